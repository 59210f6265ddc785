/* libcuda.so.1 for tests that build: two GPUs with a name, no memory and no work.

   FAKE_DRIVER_ERROR in the environment makes cuDevicePrimaryCtxRetain return that error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICES = 2, INVALID_DEVICE = 101, NOT_FOUND = 500, MAJOR = 75, MINOR = 76 };

static char contexts[DEVICES];

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = DEVICES; return 0; }

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal < 0 || ordinal >= DEVICES ? INVALID_DEVICE : 0;
}

int cuDeviceGetName(char *name, int size, int device) {
    snprintf(name, size, "Fake GPU");
    return 0;
}

int cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, device + 1, 16); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)8 << 30; return 0; }

int cuDeviceGetAttribute(int *value, int which, int device) {
    *value = which == MAJOR ? 9 : 0;
    return which == MAJOR || which == MINOR ? 0 : NOT_FOUND;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    const char *error = getenv("FAKE_DRIVER_ERROR");
    *context = &contexts[device];
    return error ? atoi(error) : 0;
}

int cuCtxSetCurrent(void *context) { return context >= (void *)contexts ? 0 : NOT_FOUND; }

/* How cuda.bindings finds the others: by their newest name. */
int cuGetProcAddress_v2(const char *symbol, void **found, int version, unsigned long flags,
                        int *status) {
    char newest[128];
    void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    snprintf(newest, sizeof newest, "%s_v2", symbol);
    *found = dlsym(self, newest);
    if (!*found) *found = dlsym(self, symbol);
    if (status) *status = *found ? 0 : 1;
    return *found ? 0 : NOT_FOUND;
}
