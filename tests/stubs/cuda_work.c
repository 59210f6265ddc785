/* Streams and events: queues that are worked off when somebody synchronises or asks. */
#include "cuda_stub.h"

#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static sem_t gate;
static bool gate_made;

uint64_t draw(void)
{
    state.random ^= state.random >> 12;
    state.random ^= state.random << 25;
    state.random ^= state.random >> 27;
    return state.random * 2685821657736338717ull >> 16;
}

Mark *new_mark(void)
{
    Mark *mark = calloc(1, sizeof *mark);
    mark->references = 1;
    return mark;
}

Mark *hold_mark(Mark *mark)
{
    mark->references++;
    return mark;
}

void drop_mark(Mark *mark)
{
    if (mark && --mark->references == 0) free(mark);
}

/* ---- What one operation does --------------------------------------------------------------- */

static bool usable(uintptr_t address, const Context *context, bool peers_only)
{
    Memory *memory = find_memory(address);
    if (!memory || memory->freed) return false;
    return !peers_only || !memory->on_device || memory->device == context->device ||
           context->peers >> memory->device & 1;
}

static void run_kernel(Op *op)
{
    for (int i = 0; i < op->touches; i++)
        if (!usable(op->touched[i], op->context, true)) {
            lose_device(op->context->device, ILLEGAL_ADDRESS);
            return;
        }
    in_callback = true;
    int code = op->kernel(op->user);
    in_callback = false;
    if (code) lose_device(op->context->device, code);
}

static void wait_at_gate(Op *op)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 60; /* whoever should open it cannot run: better an error than a hang */
    if (sem_timedwait(&gate, &until)) lose_device(op->context->device, UNKNOWN);
}

/* Run anything but a WAIT or a LAUNCH. Nothing happens on a lost device. */
void run_op(Op *op)
{
    state.time++;
    if (op->what == RECORD) {
        op->mark->reached = true;
        op->mark->time = state.time;
        return;
    }
    if (state.device[op->context->device].lost) return;
    if ((op->checked_target && !usable(op->target, op->context, false)) ||
        (op->checked_source && !usable(op->source, op->context, false))) {
        lose_device(op->context->device, ILLEGAL_ADDRESS);
        return;
    }
    switch (op->what) {
    case COPY: memmove((void *)op->target, (void *)op->source, op->nbytes); break;
    case FILL:
        for (size_t i = 0; i < op->nbytes / 4; i++) ((uint32_t *)op->target)[i] = op->value;
        break;
    case HOST:
        in_callback = true;
        op->host(op->user);
        in_callback = false;
        break;
    case KERNEL: run_kernel(op); break;
    case GATE: wait_at_gate(op); break;
    default: break;
    }
}

/* ---- The scheduler ------------------------------------------------------------------------- */

static void pop(Stream *stream)
{
    Op *op = stream->first;
    stream->first = op->next;
    if (!stream->first) stream->last = NULL;
    if (op->what == LAUNCH) {
        op->mark->reached = true;
        drop_mark(op->before);
        drop_body(op->body);
        free(op->done);
    }
    drop_mark(op->mark);
    free(op->touched);
    free(op);
}

static bool ready(Stream *stream)
{
    Op *op = stream->first;
    if (!op) return false;
    if (op->what == WAIT) return op->mark->reached;
    if (op->what != LAUNCH || !op->before || op->before->reached) return true;
    state.overlaps += !op->waited; /* nothing but the graph itself keeps them apart */
    op->waited = true;
    return false;
}

static void free_if_gone(Stream *stream)
{
    if (!stream->gone || stream->first) return;
    for (Stream **at = &state.streams; *at; at = &(*at)->next)
        if (*at == stream) {
            *at = stream->next;
            break;
        }
    free(stream->after.at);
    free(stream);
}

/* One operation of one stream, by chance among those that can go on; false if none can. */
bool some_step(void)
{
    uint64_t total = 0;
    for (Stream *stream = state.streams; stream; stream = stream->next)
        if (ready(stream)) total += stream->weight;
    if (!total) return false;
    uint64_t at = draw() % total;
    Stream *chosen = state.streams;
    for (;; chosen = chosen->next) {
        if (!ready(chosen)) continue;
        if (at < chosen->weight) break;
        at -= chosen->weight;
    }
    Op *op = chosen->first;
    if (op->what == LAUNCH && op->left && !state.device[op->context->device].lost) {
        step_launch(op);
        return true;
    }
    if (op->what != WAIT && op->what != LAUNCH) run_op(op);
    pop(chosen);
    free_if_gone(chosen);
    return true;
}

/* Let some streams run far ahead of others until the next synchronisation. */
static void draw_weights(void)
{
    for (Stream *stream = state.streams; stream; stream = stream->next)
        stream->weight = 1u << 5 * (draw() % 3);
}

CUresult finish_stream(Stream *stream)
{
    draw_weights();
    while (stream->first)
        if (!some_step()) return UNKNOWN; /* it waits for what nobody will do */
    return state.device[stream->context->device].lost;
}

void finish_context(Context *context)
{
    draw_weights();
    for (bool busy = true; busy;) {
        busy = false;
        for (Stream *stream = state.streams; stream; stream = stream->next)
            busy |= stream->context == context && stream->first;
        if (busy && !some_step()) return;
    }
}

/* ---- Streams ------------------------------------------------------------------------------- */

static Stream *add_stream(Context *context)
{
    Stream *stream = calloc(1, sizeof *stream);
    stream->context = context;
    stream->weight = 1;
    stream->next = state.streams;
    state.streams = stream;
    return stream;
}

static Stream *default_stream(Context *context, bool legacy)
{
    for (Stream *stream = state.streams; stream; stream = stream->next)
        if (stream->context == context && !stream->head.kind && stream->legacy == legacy &&
            !stream->gone && (legacy || pthread_equal(stream->thread, pthread_self())))
            return stream;
    Stream *stream = add_stream(context);
    stream->legacy = legacy;
    stream->blocking = !legacy;
    stream->thread = pthread_self();
    return stream;
}

/* The stream of a handle, which must be of the context: 0 and 1 legacy, 2 the thread's own. */
CUresult find_stream(Handle handle, Context *context, Stream **found)
{
    uintptr_t number = (uintptr_t)handle;
    *found = number <= 2 ? default_stream(context, number < 2) : find_object(handle, STREAM);
    return *found && (*found)->context == context ? SUCCESS : INVALID_HANDLE;
}

static void append(Stream *stream, Op op)
{
    Op *copy = malloc(sizeof *copy);
    *copy = op;
    copy->next = NULL;
    copy->context = stream->context;
    if (stream->last) stream->last->next = copy;
    else stream->first = copy;
    stream->last = copy;
}

static void follow(Stream *stream, Stream *other)
{
    if (!other->first) return;
    Mark *mark = new_mark();
    append(other, (Op){.what = RECORD, .mark = mark});
    append(stream, (Op){.what = WAIT, .mark = hold_mark(mark)});
}

/* Into the queue, or the capture. The legacy stream orders all blocking ones of its context. */
CUresult enqueue(Stream *stream, Op op)
{
    for (Stream *other = state.streams; other; other = other->next) {
        if (other->context != stream->context || other == stream) continue;
        bool ordered = (stream->legacy && other->blocking) || (stream->blocking && other->legacy);
        if (ordered && stream->legacy && other->capture) {
            other->capture->invalid = true;
            return CAPTURE_IMPLICIT;
        }
        if (ordered && !stream->capture) follow(stream, other);
    }
    if (stream->capture) return capture_op(stream, op);
    append(stream, op);
    return SUCCESS;
}

static CUresult create_stream(Handle *handle, unsigned flags, int priority)
{
    CURRENT(context);
    if (!handle || flags > 1) return INVALID_VALUE;
    Stream *stream = add_stream(context);
    stream->blocking = flags == 0;
    stream->priority = priority < -5 ? -5 : priority > 0 ? 0 : priority;
    *handle = add_object(stream, STREAM);
    return SUCCESS;
}

PUBLIC CUresult cuStreamCreate(Handle *handle, unsigned flags)
{
    ENTER("cuStreamCreate");
    return create_stream(handle, flags, 0);
}

PUBLIC CUresult cuStreamCreateWithPriority(Handle *handle, unsigned flags, int priority)
{
    ENTER("cuStreamCreateWithPriority");
    return create_stream(handle, flags, priority);
}

void retire_stream(Stream *stream)
{
    forget_captures(stream);
    if (stream->head.kind) drop_object(stream);
    stream->gone = true;
    free_if_gone(stream);
}

PUBLIC CUresult cuStreamDestroy_v2(Handle handle)
{
    ENTER("cuStreamDestroy");
    Context *context;
    CUresult lost;
    TRY(context_to_free_in(&context, &lost));
    Stream *stream = find_object(handle, STREAM);
    if (!stream || stream->context != context) return INVALID_HANDLE;
    retire_stream(stream);
    return lost;
}

PUBLIC CUresult cuStreamGetPriority(Handle handle, int *priority)
{
    ENTER("cuStreamGetPriority");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(handle, context, &stream));
    *priority = stream->priority;
    return SUCCESS;
}

PUBLIC CUresult cuStreamGetFlags(Handle handle, unsigned *flags)
{
    ENTER("cuStreamGetFlags");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(handle, context, &stream));
    *flags = !stream->blocking;
    return SUCCESS;
}

PUBLIC CUresult cuStreamGetCtx(Handle handle, Handle *context)
{
    ENTER("cuStreamGetCtx");
    if ((uintptr_t)handle <= 2) {
        CURRENT(current);
        *context = handle_of(current);
        return SUCCESS;
    }
    Stream *stream = find_object(handle, STREAM);
    if (!stream) return INVALID_HANDLE;
    *context = handle_of(stream->context);
    return SUCCESS;
}

CUresult refuse_waiting(Stream *stream)
{
    if (!stream->capture) return SUCCESS;
    stream->capture->invalid = true;
    return CAPTURE_UNSUPPORTED;
}

PUBLIC CUresult cuStreamSynchronize(Handle handle)
{
    ENTER("cuStreamSynchronize");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(handle, context, &stream));
    TRY(refuse_waiting(stream));
    return finish_stream(stream);
}

PUBLIC CUresult cuStreamQuery(Handle handle)
{
    ENTER("cuStreamQuery");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(handle, context, &stream));
    TRY(refuse_waiting(stream));
    some_step();
    if (state.device[context->device].lost) return state.device[context->device].lost;
    return stream->first ? NOT_READY : SUCCESS;
}

/* ---- Events -------------------------------------------------------------------------------- */

PUBLIC CUresult cuEventCreate(Handle *handle, unsigned flags)
{
    ENTER("cuEventCreate");
    CURRENT(context);
    if (!handle || flags > 3) return INVALID_VALUE;
    Event *event = calloc(1, sizeof *event);
    event->context = context;
    event->timed = !(flags & 2);
    *handle = add_object(event, EVENT);
    return SUCCESS;
}

void drop_event(Event *event)
{
    drop_object(event);
    drop_mark(event->mark);
    free(event->after.at);
    free(event);
}

PUBLIC CUresult cuEventDestroy_v2(Handle handle)
{
    ENTER("cuEventDestroy");
    Context *context;
    CUresult lost;
    TRY(context_to_free_in(&context, &lost));
    Event *event = find_object(handle, EVENT);
    if (!event || event->context != context) return INVALID_HANDLE;
    drop_event(event);
    return lost;
}

PUBLIC CUresult cuEventRecord(Handle handle, Handle on)
{
    ENTER("cuEventRecord");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(on, context, &stream));
    Event *event = find_object(handle, EVENT);
    if (!event || event->context != context) return INVALID_HANDLE;
    if (stream->capture) return capture_record(stream, event);
    Mark *mark = new_mark();
    TRY(enqueue(stream, (Op){.what = RECORD, .mark = mark}));
    drop_mark(event->mark);
    event->mark = hold_mark(mark);
    event->capture = 0;
    return SUCCESS;
}

PUBLIC CUresult cuStreamWaitEvent(Handle on, Handle handle, unsigned flags)
{
    ENTER("cuStreamWaitEvent");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(on, context, &stream));
    Event *event = find_object(handle, EVENT);
    if (!event) return INVALID_HANDLE;
    if (flags) return INVALID_VALUE;
    if (stream->capture || event->capture) return capture_wait(stream, event);
    if (!event->mark) return SUCCESS;
    return enqueue(stream, (Op){.what = WAIT, .mark = hold_mark(event->mark)});
}

static CUresult find_event(Handle handle, Context *context, Event **event)
{
    *event = find_object(handle, EVENT);
    if (!*event || (*event)->context != context) return INVALID_HANDLE;
    return captured_event(*event) ? CAPTURED_EVENT : SUCCESS;
}

PUBLIC CUresult cuEventSynchronize(Handle handle)
{
    ENTER("cuEventSynchronize");
    CURRENT(context);
    Event *event;
    TRY(find_event(handle, context, &event));
    if (!event->mark) return SUCCESS;
    draw_weights();
    while (!event->mark->reached)
        if (!some_step()) return UNKNOWN;
    return state.device[context->device].lost;
}

PUBLIC CUresult cuEventQuery(Handle handle)
{
    ENTER("cuEventQuery");
    CURRENT(context);
    Event *event;
    TRY(find_event(handle, context, &event));
    some_step();
    if (state.device[context->device].lost) return state.device[context->device].lost;
    return !event->mark || event->mark->reached ? SUCCESS : NOT_READY;
}

/* Each operation counts as one microsecond. */
PUBLIC CUresult cuEventElapsedTime(float *ms, Handle from, Handle to)
{
    ENTER("cuEventElapsedTime");
    CURRENT(context);
    Event *start, *end;
    TRY(find_event(from, context, &start));
    TRY(find_event(to, context, &end));
    if (!start->timed || !end->timed || !start->mark || !end->mark) return INVALID_HANDLE;
    if (!start->mark->reached || !end->mark->reached) return NOT_READY;
    *ms = ((double)end->mark->time - (double)start->mark->time) / 1000;
    return SUCCESS;
}

/* ---- Host functions and kernels ------------------------------------------------------------- */

PUBLIC CUresult cuLaunchHostFunc(Handle on, void (*function)(void *), void *user)
{
    ENTER("cuLaunchHostFunc");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(on, context, &stream));
    return function ? enqueue(stream, (Op){.what = HOST, .host = function, .user = user})
                    : INVALID_VALUE;
}

/* A kernel: like cuLaunchKernel it needs its stream's context to be current. */
PUBLIC CUresult stub_launch(Handle on, int (*kernel)(void *), void *user, int touches,
                            const CUdeviceptr *touched)
{
    ENTER("stub_launch");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(on, context, &stream));
    Op op = {.what = KERNEL, .kernel = kernel, .user = user, .touches = touches};
    op.touched = malloc(sizeof *touched * (touches + 1));
    memcpy(op.touched, touched, sizeof *touched * touches);
    CUresult status = enqueue(stream, op);
    if (status) free(op.touched);
    return status;
}

/* An operation that blocks the thread that runs it until stub_open_gate. */
PUBLIC CUresult stub_close_gate(Handle on)
{
    ENTER("stub_close_gate");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(on, context, &stream));
    if (!gate_made) gate_made = !sem_init(&gate, 0, 0);
    return enqueue(stream, (Op){.what = GATE});
}

PUBLIC void stub_open_gate(void) /* takes no lock: the waiting thread holds it */
{
    sem_post(&gate);
}
