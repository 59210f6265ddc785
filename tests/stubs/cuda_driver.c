/* Devices and contexts, what every call has in common, and what only tests call. */
#include "cuda_stub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STACK 64
#define DRIVER_VERSION 13000

State state;
_Thread_local bool in_callback;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local Context *stack[STACK];
static _Thread_local int depth;

/* ---- Every call: lock, count, injected errors ---------------------------------------------- */

#define MAX_NAMES 128
static struct {
    const char *name;
    long calls;
} counted[MAX_NAMES];
static struct {
    char name[64]; /* "" none, "*" whatever creates or enqueues */
    CUresult code;
    long after;
    char hit[64];
} failure;

static long *calls_of(const char *name)
{
    int i = 0;
    while (i < MAX_NAMES - 1 && counted[i].name && strcmp(counted[i].name, name)) i++;
    if (!counted[i].name) counted[i].name = name;
    return &counted[i].calls;
}

static bool frees(const char *name)
{
    return strstr(name, "Destroy") || strstr(name, "Free") || strstr(name, "Release") ||
           strstr(name, "PopCurrent") || strstr(name, "GetError");
}

static CUresult injected(const char *name)
{
    bool meant = !strcmp(failure.name, "*") ? !frees(name) : !strcmp(failure.name, name);
    if (!meant || failure.after-- > 0) return SUCCESS;
    failure.name[0] = 0;
    snprintf(failure.hit, sizeof failure.hit, "%s", name);
    return failure.code;
}

CUresult begin_call(Call *call, const char *name)
{
    if (in_callback) return NOT_PERMITTED; /* host functions must not call CUDA */
    pthread_mutex_lock(&lock);
    call->locked = true;
    ++*calls_of(name);
    CUresult code = injected(name);
    if (code) return code;
    return state.started || !strcmp(name, "cuInit") ? SUCCESS : NOT_INITIALIZED;
}

void end_call(Call *call)
{
    if (call->locked) pthread_mutex_unlock(&lock);
}

/* ---- Handles ------------------------------------------------------------------------------- */

#define FIRST_HANDLE 0x10000u

Handle handle_of(const void *object)
{
    return (Handle)(uintptr_t)(FIRST_HANDLE + ((const Head *)object)->index * 16);
}

Handle add_object(void *object, Kind kind)
{
    Head *head = object;
    if (state.handles % 1024 == 0)
        state.table = realloc(state.table, sizeof(Head *) * (state.handles + 1024));
    *head = (Head){kind, state.handles};
    state.table[state.handles++] = head;
    state.live[kind]++;
    return handle_of(object);
}

void *find_object(Handle handle, Kind kind)
{
    uintptr_t number = (uintptr_t)handle - FIRST_HANDLE;
    if ((uintptr_t)handle < FIRST_HANDLE || number % 16) return NULL;
    if (number / 16 >= state.handles) return NULL;
    Head *head = state.table[number / 16];
    return head && head->kind == kind ? head : NULL;
}

void drop_object(void *object)
{
    Head *head = object;
    state.table[head->index] = NULL;
    state.live[head->kind]--;
}

void lose_device(int device, int code)
{
    if (!state.device[device].lost) state.device[device].lost = code;
}

/* ---- Devices ------------------------------------------------------------------------------- */

PUBLIC CUresult cuInit(unsigned flags)
{
    ENTER("cuInit");
    if (flags) return INVALID_VALUE;
    if (!state.devices) return NO_DEVICE;
    state.started = true;
    return SUCCESS;
}

PUBLIC CUresult cuDriverGetVersion(int *version)
{
    ENTER("cuDriverGetVersion");
    *version = DRIVER_VERSION;
    return SUCCESS;
}

PUBLIC CUresult cuDeviceGetCount(int *count)
{
    ENTER("cuDeviceGetCount");
    *count = state.devices;
    return SUCCESS;
}

static CUresult check_device(CUdevice device)
{
    return device >= 0 && device < state.devices ? SUCCESS : INVALID_DEVICE;
}

PUBLIC CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    ENTER("cuDeviceGet");
    TRY(check_device(ordinal));
    *device = ordinal;
    return SUCCESS;
}

PUBLIC CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    ENTER("cuDeviceGetName");
    TRY(check_device(device));
    snprintf(name, length, "Stand-in GPU");
    return SUCCESS;
}

PUBLIC CUresult cuDeviceGetUuid(unsigned char *uuid, CUdevice device)
{
    ENTER("cuDeviceGetUuid");
    TRY(check_device(device));
    for (int i = 0; i < 16; i++) uuid[i] = i * 16 + device;
    return SUCCESS;
}

PUBLIC CUresult cuDeviceGetPCIBusId(char *id, int length, CUdevice device)
{
    ENTER("cuDeviceGetPCIBusId");
    TRY(check_device(device));
    snprintf(id, length, "0000:%02x:00.0", device + 1);
    return SUCCESS;
}

PUBLIC CUresult cuDeviceTotalMem_v2(size_t *nbytes, CUdevice device)
{
    ENTER("cuDeviceTotalMem");
    TRY(check_device(device));
    *nbytes = state.device[device].limit_bytes;
    return SUCCESS;
}

PUBLIC CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    ENTER("cuDeviceGetAttribute");
    TRY(check_device(device));
    switch (attribute) {
    case 16: *value = 4; return SUCCESS; /* multiprocessors */
    case 18: *value = 0; return SUCCESS; /* integrated */
    case 20: *value = state.device[device].compute_mode; return SUCCESS;
    case 75: *value = 9; return SUCCESS; /* compute capability */
    case 76: *value = 0; return SUCCESS;
    default: return INVALID_VALUE;
    }
}

PUBLIC CUresult cuDeviceCanAccessPeer(int *can, CUdevice from, CUdevice to)
{
    ENTER("cuDeviceCanAccessPeer");
    TRY(check_device(from));
    TRY(check_device(to));
    *can = from != to && state.device[from].reachable >> to & 1;
    return SUCCESS;
}

/* ---- Contexts ------------------------------------------------------------------------------ */

static CUresult top(Context **found)
{
    *found = depth ? stack[depth - 1] : NULL;
    if (!*found) return INVALID_CONTEXT;
    return (*found)->dead ? CONTEXT_IS_DESTROYED : SUCCESS;
}

CUresult current_context(Context **found)
{
    TRY(top(found));
    return state.device[(*found)->device].lost;
}

CUresult context_to_free_in(Context **found, CUresult *lost)
{
    TRY(top(found));
    TRY(refuse_in_capture());
    *lost = state.device[(*found)->device].lost;
    return SUCCESS;
}

static Context *find_context(Handle handle)
{
    Context *context = find_object(handle, CONTEXT);
    return context && !context->dead ? context : NULL;
}

static void drop_context(Context *context)
{
    finish_context(context);
    for (Stream *stream = state.streams, *next; stream; stream = next) {
        next = stream->next;
        if (stream->context == context) retire_stream(stream);
    }
    for (uint32_t i = 0; i < state.handles; i++) {
        Event *event = (Event *)state.table[i];
        if (event && event->head.kind == EVENT && event->context == context) drop_event(event);
    }
    for (Memory *memory = state.memory; memory; memory = memory->next)
        if (memory->context == context && !memory->freed) free_memory(memory);
    context->dead = true; /* kept: it may stand in the stack of some thread */
    if (!context->primary) drop_object(context);
}

PUBLIC CUresult cuDevicePrimaryCtxRetain(Handle *handle, CUdevice device)
{
    ENTER("cuDevicePrimaryCtxRetain");
    TRY(check_device(device));
    if (state.device[device].compute_mode == 2) return 46;
    if (state.device[device].lost) return state.device[device].lost;
    Context *context = state.device[device].primary;
    if (!context) {
        state.device[device].primary = context = calloc(1, sizeof *context);
        context->device = device;
        context->primary = true;
        add_object(context, CONTEXT);
        state.live[CONTEXT]--; /* counted by how often it is retained */
    }
    context->dead = false;
    context->retained++;
    *handle = handle_of(context);
    return SUCCESS;
}

PUBLIC CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    ENTER("cuDevicePrimaryCtxRelease");
    TRY(check_device(device));
    Context *context = state.device[device].primary;
    if (!context || !context->retained) return INVALID_CONTEXT;
    if (--context->retained == 0) drop_context(context);
    return SUCCESS;
}

PUBLIC CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active)
{
    ENTER("cuDevicePrimaryCtxGetState");
    TRY(check_device(device));
    *flags = 0;
    *active = state.device[device].primary && state.device[device].primary->retained;
    return SUCCESS;
}

static CUresult push(Context *context)
{
    if (depth == STACK) return INVALID_VALUE;
    stack[depth++] = context;
    return SUCCESS;
}

PUBLIC CUresult cuCtxCreate_v2(Handle *handle, unsigned flags, CUdevice device)
{
    ENTER("cuCtxCreate");
    (void)flags;
    TRY(check_device(device));
    Context *context = calloc(1, sizeof *context);
    context->device = device;
    *handle = add_object(context, CONTEXT);
    return push(context);
}

PUBLIC CUresult cuCtxCreate_v4(Handle *handle, void *parameters, unsigned flags, CUdevice device)
{
    return parameters ? NOT_SUPPORTED : cuCtxCreate_v2(handle, flags, device);
}

PUBLIC CUresult cuCtxDestroy_v2(Handle handle)
{
    ENTER("cuCtxDestroy");
    Context *context = find_context(handle);
    if (!context || context->primary) return INVALID_CONTEXT;
    drop_context(context);
    if (depth && stack[depth - 1] == context) depth--;
    return SUCCESS;
}

PUBLIC CUresult cuCtxPushCurrent_v2(Handle handle)
{
    ENTER("cuCtxPushCurrent");
    Context *context = find_context(handle);
    return context ? push(context) : INVALID_CONTEXT;
}

PUBLIC CUresult cuCtxPopCurrent_v2(Handle *handle)
{
    ENTER("cuCtxPopCurrent");
    if (!depth) return INVALID_CONTEXT;
    depth--;
    if (handle) *handle = handle_of(stack[depth]);
    return SUCCESS;
}

PUBLIC CUresult cuCtxSetCurrent(Handle handle)
{
    ENTER("cuCtxSetCurrent");
    Context *context = handle ? find_context(handle) : NULL;
    if (handle && !context) return INVALID_CONTEXT;
    if (depth) depth--;
    return context ? push(context) : SUCCESS;
}

PUBLIC CUresult cuCtxGetCurrent(Handle *handle)
{
    ENTER("cuCtxGetCurrent");
    *handle = depth ? handle_of(stack[depth - 1]) : NULL;
    return SUCCESS;
}

PUBLIC CUresult cuCtxGetDevice(CUdevice *device)
{
    ENTER("cuCtxGetDevice");
    Context *context;
    TRY(top(&context));
    *device = context->device;
    return SUCCESS;
}

PUBLIC CUresult cuCtxGetId(Handle handle, unsigned long long *id)
{
    ENTER("cuCtxGetId");
    Context *context;
    if (!handle) TRY(top(&context));
    else if (!(context = find_context(handle))) return INVALID_CONTEXT;
    *id = context->head.index + 1;
    return SUCCESS;
}

PUBLIC CUresult cuCtxSynchronize(void)
{
    ENTER("cuCtxSynchronize");
    CURRENT(context);
    TRY(refuse_in_capture());
    finish_context(context);
    return state.device[context->device].lost;
}

PUBLIC CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    ENTER("cuCtxGetStreamPriorityRange");
    CURRENT(context);
    *least = 0;
    *greatest = -5;
    return SUCCESS;
}

PUBLIC CUresult cuCtxEnablePeerAccess(Handle handle, unsigned flags)
{
    ENTER("cuCtxEnablePeerAccess");
    CURRENT(context);
    Context *peer = find_context(handle);
    if (!peer) return INVALID_CONTEXT;
    if (flags) return INVALID_VALUE;
    if (peer->device == context->device) return INVALID_DEVICE;
    if (!(state.device[context->device].reachable >> peer->device & 1))
        return PEER_ACCESS_UNSUPPORTED;
    if (context->peers >> peer->device & 1) return PEER_ACCESS_ALREADY_ENABLED;
    context->peers |= 1u << peer->device;
    return SUCCESS;
}

/* ---- Extras for tests ---------------------------------------------------------------------- */

/* Forget everything: a new machine. Handles go on, so that old ones stay invalid. */
PUBLIC void stub_reset(int devices, size_t limit_bytes, uint64_t seed)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_DEVICES; i++) {
        Context *primary = state.device[i].primary;
        if (primary) primary->dead = true;
        state.device[i] = (Device){.limit_bytes = limit_bytes, .reachable = ~0u};
    }
    for (uint32_t i = 0; i < state.handles; i++) state.table[i] = NULL;
    for (Memory *memory = state.memory; memory; memory = memory->next) memory->freed = true;
    memset(state.live, 0, sizeof state.live);
    memset(counted, 0, sizeof counted);
    memset(&failure, 0, sizeof failure);
    state.streams = NULL;
    state.captures = NULL;
    state.started = false;
    state.devices = devices < MAX_DEVICES ? devices : MAX_DEVICES;
    state.overlaps = 0;
    state.time = 0;
    state.random = seed * 2654435761u + 88172645463325252ull;
    depth = 0; /* of this thread */
    pthread_mutex_unlock(&lock);
}

PUBLIC void stub_seed(uint64_t seed)
{
    state.random = seed * 2654435761u + 88172645463325252ull;
}

PUBLIC void stub_fail(const char *name, int code, long after)
{
    snprintf(failure.name, sizeof failure.name, "%s", name);
    failure.code = code;
    failure.after = after;
    failure.hit[0] = 0;
}

PUBLIC const char *stub_failed(void) { return failure.hit; }

PUBLIC void stub_lose(int device, int code) { lose_device(device, code); }

PUBLIC void stub_set_compute_mode(int device, int mode)
{
    state.device[device].compute_mode = mode;
}

PUBLIC void stub_forbid_peer(int from, int to) { state.device[from].reachable &= ~(1u << to); }

PUBLIC long stub_calls(const char *name)
{
    for (int i = 0; i < MAX_NAMES && counted[i].name; i++)
        if (!strcmp(counted[i].name, name)) return counted[i].calls;
    return 0;
}

PUBLIC int stub_depth(void) { return depth; }

PUBLIC long stub_overlaps(void) { return state.overlaps; }

PUBLIC size_t stub_used_bytes(int device) { return state.device[device].used_bytes; }

/* contexts, streams, events, graphs, execs, device memory, host memory, primaries retained */
PUBLIC void stub_live(long counts[8])
{
    for (int kind = 1; kind < KINDS; kind++) counts[kind - 1] = state.live[kind];
    counts[5] = counts[6] = counts[7] = 0;
    for (Memory *memory = state.memory; memory; memory = memory->next)
        if (!memory->freed) counts[memory->on_device ? 5 : 6]++;
    for (int i = 0; i < state.devices; i++)
        counts[7] += state.device[i].primary ? state.device[i].primary->retained : 0;
}

