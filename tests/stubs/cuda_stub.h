/* A small CUDA driver over host memory, for tests. What it does and how to use it: cuda_stub.py.
 *
 * cuda_driver.c  devices and contexts, what every call has in common, what only tests call
 * cuda_memory.c  memory and copies
 * cuda_work.c    streams, events, and the scheduler that runs what is enqueued
 * cuda_graph.c   capture and graphs
 * cuda_table.c   errors in words, and the table of functions
 *
 * Handles are numbers that are never used twice, so a stale one is always noticed. One lock covers
 * everything; host callbacks run under it, in the thread that synchronises. */
#ifndef PARNET_CUDA_STUB_H
#define PARNET_CUDA_STUB_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef void *Handle;

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    PEER_ACCESS_UNSUPPORTED = 217,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    PEER_ACCESS_ALREADY_ENABLED = 704,
    CONTEXT_IS_DESTROYED = 709,
    NOT_PERMITTED = 800,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_MERGE = 902,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
    UNKNOWN = 999,
};

#define MAX_DEVICES 8
#define PUBLIC __attribute__((visibility("default")))

typedef enum { CONTEXT = 1, STREAM, EVENT, GRAPH, EXEC, KINDS } Kind;

typedef struct {
    Kind kind;
    uint32_t index; /* in the table of handles */
} Head;

typedef struct Stream Stream;

typedef struct Context {
    Head head;
    int device;
    bool primary, dead;
    int retained;      /* of a primary context */
    unsigned peers;    /* bit d: may touch memory of device d */
    Stream *defaults;  /* the legacy stream and those of threads */
} Context;

typedef struct {
    int lost, compute_mode;
    size_t limit_bytes, used_bytes;
    unsigned reachable; /* bit d: cuDeviceCanAccessPeer */
    Context *primary;
} Device;

typedef struct Memory {
    uintptr_t start;
    size_t nbytes;
    bool on_device, freed;
    Context *context;
    int device;
    struct Memory *next;
} Memory;

/* One record of an event, shared by whoever waits for it. */
typedef struct {
    int references;
    bool reached;
    uint64_t time; /* a count of operations, in place of a clock */
} Mark;

typedef struct {
    int count;
    int *at;
} Numbers;

typedef enum { COPY, FILL, HOST, KERNEL, GATE, RECORD, WAIT, LAUNCH } What;

typedef struct Op {
    What what;
    Context *context;
    uintptr_t target, source; /* COPY, FILL */
    bool checked_target, checked_source;
    size_t nbytes;
    uint32_t value;
    void (*host)(void *);  /* HOST */
    int (*kernel)(void *); /* KERNEL: returns 0 or the error that loses the device */
    void *user;
    CUdeviceptr *touched;
    int touches;
    Mark *mark;            /* RECORD, WAIT; LAUNCH: reached behind it */
    Mark *before;          /* LAUNCH: the launch before it */
    struct Body *body;     /* LAUNCH */
    bool *done;            /* LAUNCH: which nodes ran */
    int left;
    bool waited;           /* LAUNCH: for the launch before it, which nothing else orders */
    struct Op *next;
} Op;

typedef struct {
    Op op;
    Numbers after;
} Node;

/* The nodes of a graph, shared by its executables and their launches. */
typedef struct Body {
    int references, count;
    Node *nodes;
} Body;

typedef struct {
    Head head;
    Body *body;
} Graph;

typedef struct {
    Head head;
    Body *body;
    Context *context;
    Mark *last;
} Exec;

typedef struct Capture {
    uint64_t id;
    Stream *origin;
    pthread_t thread;
    int mode;
    bool invalid;
    Body *body;
    struct Capture *next;
} Capture;

struct Stream {
    Head head;
    Context *context;
    bool blocking, legacy, gone;
    pthread_t thread; /* of a default stream of a thread */
    int priority;
    unsigned weight;
    Op *first, *last;
    Capture *capture;
    Numbers after; /* nodes that the next captured one depends on */
    Stream *next;
};

typedef struct {
    Head head;
    Context *context;
    bool timed;
    Mark *mark;
    uint64_t capture; /* where it was last recorded, 0: not in a capture */
    Numbers after;
} Event;

typedef struct {
    bool started;
    int devices;
    Device device[MAX_DEVICES];
    Head **table;
    uint32_t handles;
    int live[KINDS];
    Memory *memory;
    Stream *streams;
    Capture *captures;
    uint64_t captures_begun, time, random;
    long overlaps; /* launches that only the rule "one at a time" kept apart */
} State;

extern State state;
extern _Thread_local bool in_callback;

/* cuda_driver.c */
typedef struct {
    bool locked;
} Call;
CUresult begin_call(Call *call, const char *name);
void end_call(Call *call);
/* First line of each entry point: lock, count, and fail where a test asked for it. */
#define ENTER(name)                                                                                \
    Call call __attribute__((cleanup(end_call))) = {false};                                        \
    CUresult refused = begin_call(&call, name);                                                    \
    if (refused) return refused
/* The current context, which must be alive and not lost. */
#define CURRENT(context)                                                                           \
    Context *context;                                                                              \
    CUresult unusable = current_context(&context);                                                 \
    if (unusable) return unusable
#define TRY(expression)                                                                            \
    do {                                                                                           \
        CUresult tried = (expression);                                                             \
        if (tried) return tried;                                                                   \
    } while (0)

CUresult current_context(Context **found);
/* The same for what frees: on a lost device it frees, and returns the error that lost it. */
CUresult context_to_free_in(Context **found, CUresult *lost);
Handle handle_of(const void *object);
Handle add_object(void *object, Kind kind);
void *find_object(Handle handle, Kind kind);
void drop_object(void *object);
void lose_device(int device, int code);

/* cuda_memory.c */
Memory *find_memory(uintptr_t address);
void free_memory(Memory *memory);

/* cuda_work.c */
uint64_t draw(void);
CUresult find_stream(Handle handle, Context *context, Stream **found);
CUresult enqueue(Stream *stream, Op op);
CUresult refuse_waiting(Stream *stream);
CUresult finish_stream(Stream *stream);
void finish_context(Context *context);
void retire_stream(Stream *stream);
void drop_event(Event *event);
bool some_step(void);
void run_op(Op *op);
Mark *new_mark(void);
Mark *hold_mark(Mark *mark);
void drop_mark(Mark *mark);

/* cuda_graph.c */
CUresult refuse_in_capture(void);
CUresult capture_op(Stream *stream, Op op);
CUresult capture_record(Stream *stream, Event *event);
CUresult capture_wait(Stream *stream, Event *event);
bool captured_event(const Event *event);
void forget_captures(const Stream *stream);
void step_launch(Op *launch);
void drop_body(Body *body);
Numbers copy_numbers(Numbers from);

#endif
