/* Errors in words, and the table in which cuda.bindings looks functions up. */
#include "cuda_stub.h"

#include <string.h>

/* ---- Errors in words ----------------------------------------------------------------------- */

static const struct {
    int code;
    const char *name, *text;
} errors[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
};

static CUresult find_error(int code, const char **text, bool name)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code) {
            *text = name ? errors[i].name : errors[i].text;
            return SUCCESS;
        }
    *text = NULL;
    return INVALID_VALUE;
}

PUBLIC CUresult cuGetErrorName(int code, const char **name)
{
    return find_error(code, name, true);
}

PUBLIC CUresult cuGetErrorString(int code, const char **text)
{
    return find_error(code, text, false);
}

/* ---- The table that cuda.bindings asks ----------------------------------------------------- */

#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#define FUNCTIONS(_)                                                                               \
    _(cuInit, cuInit) _(cuDriverGetVersion, cuDriverGetVersion) _(cuDeviceGet, cuDeviceGet)        \
    _(cuDeviceGetCount, cuDeviceGetCount) _(cuDeviceGetName, cuDeviceGetName)                      \
    _(cuDeviceGetUuid, cuDeviceGetUuid) _(cuDeviceGetPCIBusId, cuDeviceGetPCIBusId)                \
    _(cuDeviceTotalMem, cuDeviceTotalMem_v2) _(cuDeviceGetAttribute, cuDeviceGetAttribute)         \
    _(cuDeviceCanAccessPeer, cuDeviceCanAccessPeer)                                                \
    _(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain)                                          \
    _(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2)                                     \
    _(cuDevicePrimaryCtxGetState, cuDevicePrimaryCtxGetState) _(cuCtxCreate, cuCtxCreate_v2)       \
    _(cuCtxDestroy, cuCtxDestroy_v2) _(cuCtxPushCurrent, cuCtxPushCurrent_v2)                      \
    _(cuCtxPopCurrent, cuCtxPopCurrent_v2) _(cuCtxSetCurrent, cuCtxSetCurrent)                     \
    _(cuCtxGetCurrent, cuCtxGetCurrent) _(cuCtxGetDevice, cuCtxGetDevice)                          \
    _(cuCtxGetId, cuCtxGetId) _(cuCtxSynchronize, cuCtxSynchronize)                                \
    _(cuCtxGetStreamPriorityRange, cuCtxGetStreamPriorityRange)                                    \
    _(cuCtxEnablePeerAccess, cuCtxEnablePeerAccess) _(cuMemAlloc, cuMemAlloc_v2)                   \
    _(cuMemFree, cuMemFree_v2) _(cuMemHostAlloc, cuMemHostAlloc) _(cuMemFreeHost, cuMemFreeHost)   \
    _(cuMemGetInfo, cuMemGetInfo_v2) _(cuPointerGetAttribute, cuPointerGetAttribute)               \
    _(cuStreamCreate, cuStreamCreate) _(cuStreamCreateWithPriority, cuStreamCreateWithPriority)    \
    _(cuStreamDestroy, cuStreamDestroy_v2) _(cuStreamGetPriority, cuStreamGetPriority)             \
    _(cuStreamGetFlags, cuStreamGetFlags) _(cuStreamGetCtx, cuStreamGetCtx)                        \
    _(cuStreamSynchronize, cuStreamSynchronize) _(cuStreamQuery, cuStreamQuery)                    \
    _(cuStreamWaitEvent, cuStreamWaitEvent) _(cuStreamBeginCapture, cuStreamBeginCapture_v2)       \
    _(cuStreamEndCapture, cuStreamEndCapture) _(cuStreamIsCapturing, cuStreamIsCapturing)          \
    _(cuEventCreate, cuEventCreate) _(cuEventDestroy, cuEventDestroy_v2)                           \
    _(cuEventRecord, cuEventRecord) _(cuEventSynchronize, cuEventSynchronize)                      \
    _(cuEventQuery, cuEventQuery) _(cuEventElapsedTime, cuEventElapsedTime)                        \
    _(cuMemcpyAsync, cuMemcpyAsync) _(cuMemcpyDtoDAsync, cuMemcpyDtoDAsync_v2)                     \
    _(cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2) _(cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2)          \
    _(cuMemcpyPeerAsync, cuMemcpyPeerAsync) _(cuMemsetD32Async, cuMemsetD32Async)                  \
    _(cuLaunchHostFunc, cuLaunchHostFunc) _(cuGraphGetNodes, cuGraphGetNodes)                      \
    _(cuGraphInstantiateWithFlags, cuGraphInstantiateWithFlags) _(cuGraphUpload, cuGraphUpload)    \
    _(cuGraphLaunch, cuGraphLaunch) _(cuGraphExecDestroy, cuGraphExecDestroy)                      \
    _(cuGraphDestroy, cuGraphDestroy)

#define DECLARE(name, function) CUresult function();
FUNCTIONS(DECLARE)
CUresult cuCtxCreate_v4();

#define ROW(name, function) {#name, 0, (void *)function},
static const struct {
    const char *name;
    int since; /* of several rows with one name, the youngest that the caller knows counts */
    void *function;
} table[] = {
    FUNCTIONS(ROW)
    {"cuGetErrorName", 0, (void *)cuGetErrorName},
    {"cuGetErrorString", 0, (void *)cuGetErrorString},
    {"cuCtxCreate", 11040, NULL},
    {"cuCtxCreate", 12050, (void *)cuCtxCreate_v4},
    {"cuStreamGetCtx", 12050, NULL},
};

PUBLIC CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version,
                                    uint64_t flags, int *status)
{
    (void)flags;
    int since = -1;
    *function = NULL;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].name, symbol) && table[i].since <= version && table[i].since > since) {
            since = table[i].since;
            *function = table[i].function;
        }
    if (status) *status = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}
