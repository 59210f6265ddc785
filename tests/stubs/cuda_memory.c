/* Memory of devices and of the host, and copies between them. */
#include "cuda_stub.h"

#include <stdlib.h>
#include <string.h>

#define QUARANTINE_BYTES (64u << 20) /* freed memory that is kept, so that its use is noticed */

Memory *find_memory(uintptr_t address)
{
    for (Memory *memory = state.memory; memory; memory = memory->next)
        if (address >= memory->start && address < memory->start + memory->nbytes) return memory;
    return NULL;
}

static CUresult allocate(size_t nbytes, bool on_device, uintptr_t *address)
{
    CURRENT(context);
    TRY(refuse_in_capture());
    Device *device = &state.device[context->device];
    if (!nbytes) return INVALID_VALUE;
    if (on_device && nbytes > device->limit_bytes - device->used_bytes) return OUT_OF_MEMORY;
    void *start = aligned_alloc(256, (nbytes + 255) / 256 * 256);
    if (!start) return OUT_OF_MEMORY;
    memset(start, 0xff, nbytes); /* NaN, as float32 */
    Memory *memory = calloc(1, sizeof *memory);
    *memory = (Memory){(uintptr_t)start, nbytes, on_device, false, context, context->device,
                       state.memory};
    state.memory = memory;
    if (on_device) device->used_bytes += nbytes;
    *address = (uintptr_t)start;
    return SUCCESS;
}

void free_memory(Memory *memory)
{
    memory->freed = true;
    memset((void *)memory->start, 0xff, memory->nbytes);
    if (memory->on_device) state.device[memory->device].used_bytes -= memory->nbytes;
    size_t kept = 0; /* the list begins with the youngest */
    for (Memory **at = &state.memory; *at;) {
        Memory *old = *at;
        kept += old->freed ? old->nbytes : 0;
        if (!old->freed || kept <= QUARANTINE_BYTES || old == memory) {
            at = &old->next;
            continue;
        }
        *at = old->next;
        free((void *)old->start);
        free(old);
    }
}

static CUresult release(uintptr_t address, bool on_device)
{
    Context *context;
    CUresult lost;
    TRY(context_to_free_in(&context, &lost));
    Memory *memory = find_memory(address);
    if (!memory || memory->start != address || memory->freed || memory->on_device != on_device ||
        memory->context != context)
        return INVALID_VALUE;
    free_memory(memory);
    return lost;
}

PUBLIC CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t nbytes)
{
    ENTER("cuMemAlloc");
    return allocate(nbytes, true, (uintptr_t *)address);
}

PUBLIC CUresult cuMemFree_v2(CUdeviceptr address)
{
    ENTER("cuMemFree");
    return release(address, true);
}

PUBLIC CUresult cuMemHostAlloc(void **address, size_t nbytes, unsigned flags)
{
    ENTER("cuMemHostAlloc");
    if (flags > 7) return INVALID_VALUE;
    return allocate(nbytes, false, (uintptr_t *)address);
}

PUBLIC CUresult cuMemFreeHost(void *address)
{
    ENTER("cuMemFreeHost");
    return release((uintptr_t)address, false);
}

PUBLIC CUresult cuMemGetInfo_v2(size_t *left, size_t *total)
{
    ENTER("cuMemGetInfo");
    CURRENT(context);
    Device *device = &state.device[context->device];
    *left = device->limit_bytes - device->used_bytes;
    *total = device->limit_bytes;
    return SUCCESS;
}

PUBLIC CUresult cuPointerGetAttribute(void *data, int attribute, CUdeviceptr address)
{
    ENTER("cuPointerGetAttribute");
    CURRENT(context);
    Memory *memory = find_memory(address);
    if (!memory || memory->freed) return INVALID_VALUE;
    switch (attribute) {
    case 1: *(Handle *)data = handle_of(memory->context); return SUCCESS;
    case 2: *(unsigned *)data = memory->on_device ? 2 : 1; return SUCCESS;
    case 9: *(int *)data = memory->device; return SUCCESS;
    default: return INVALID_VALUE;
    }
}

/* ---- Copies -------------------------------------------------------------------------------- */

/* How an address may take part in a copy: memory of ours all of which is there, or the host's. */
static CUresult check_range(uintptr_t address, size_t nbytes, bool device, bool *ours)
{
    Memory *memory = find_memory(address);
    *ours = memory != NULL;
    if (!address || (device && !(memory && memory->on_device))) return INVALID_VALUE;
    if (!memory) return SUCCESS;
    return memory->freed || address + nbytes > memory->start + memory->nbytes ? INVALID_VALUE
                                                                             : SUCCESS;
}

static CUresult copy(uintptr_t target, bool device_target, uintptr_t source, bool device_source,
                     size_t nbytes, Handle on)
{
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(on, context, &stream));
    Op op = {.what = COPY, .target = target, .source = source, .nbytes = nbytes};
    TRY(check_range(target, nbytes, device_target, &op.checked_target));
    TRY(check_range(source, nbytes, device_source, &op.checked_source));
    return enqueue(stream, op);
}

PUBLIC CUresult cuMemcpyAsync(CUdeviceptr target, CUdeviceptr source, size_t nbytes, Handle on)
{
    ENTER("cuMemcpyAsync");
    return copy(target, false, source, false, nbytes, on);
}

PUBLIC CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t nbytes,
                                     Handle on)
{
    ENTER("cuMemcpyDtoDAsync");
    return copy(target, true, source, true, nbytes, on);
}

PUBLIC CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t nbytes,
                                     Handle on)
{
    ENTER("cuMemcpyHtoDAsync");
    return copy(target, true, (uintptr_t)source, false, nbytes, on);
}

PUBLIC CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t nbytes, Handle on)
{
    ENTER("cuMemcpyDtoHAsync");
    return copy((uintptr_t)target, false, source, true, nbytes, on);
}

PUBLIC CUresult cuMemcpyPeerAsync(CUdeviceptr target, Handle target_context, CUdeviceptr source,
                                  Handle source_context, size_t nbytes, Handle on)
{
    ENTER("cuMemcpyPeerAsync");
    CURRENT(context);
    Context *there = find_object(target_context, CONTEXT);
    Context *here = find_object(source_context, CONTEXT);
    if (!there || !here || there->dead || here->dead) return INVALID_CONTEXT;
    Memory *to = find_memory(target), *from = find_memory(source);
    if (!to || !from || to->context != there || from->context != here) return INVALID_VALUE;
    Stream *stream;
    TRY(find_stream(on, context, &stream));
    TRY(refuse_waiting(stream)); /* a peer copy cannot be captured */
    return copy(target, true, source, true, nbytes, on);
}

PUBLIC CUresult cuMemsetD32Async(CUdeviceptr target, unsigned value, size_t count, Handle on)
{
    ENTER("cuMemsetD32Async");
    CURRENT(context);
    Stream *stream;
    TRY(find_stream(on, context, &stream));
    Op op = {.what = FILL, .target = target, .nbytes = count * 4, .value = value};
    TRY(check_range(target, op.nbytes, true, &op.checked_target));
    return enqueue(stream, op);
}
