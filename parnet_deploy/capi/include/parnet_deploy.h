/*
 * parnet_deploy for C and C++: open a deployment once, then answer images from your own memory.
 *
 *     parnet_runtime *runtime = NULL;
 *     if (parnet_open("engines/digits", NULL, &runtime) != PARNET_OK)
 *         fprintf(stderr, "%s\n", parnet_last_error());
 *     parnet_run_into(runtime, images, logits, 1);
 *     parnet_close(runtime);
 *
 * Python: the library runs the engines through Python's runtime. In a process without Python,
 * parnet_open starts one: that of the build, or the executable that PARNET_PYTHON names, of the
 * same minor version (3.11 and so on), with parnet_deploy installed; a virtual environment's
 * bin/python will do. No other variable of Python counts (PYTHONHOME, PYTHONPATH), and the host's
 * signal handlers and locale stay as they are. In a process that runs Python already, the library
 * uses that one.
 *
 * It never ends the interpreter, for numpy and others cannot be loaded a second time. For the same
 * reason the library stays loaded after dlclose.
 *
 * Threads: every function may be called from any thread, and must not be called by one that holds
 * a lock which Python code waits for. Up to `slots` calls of parnet_run_into compute at the same
 * time; the others wait. A thread that has called keeps some of Python's memory until it ends. A
 * process that forks must open its runtimes afterwards.
 *
 * Ownership: memory that you pass stays yours. A handle stays valid for good: after parnet_close a
 * call is refused, not undefined.
 */
#ifndef PARNET_DEPLOY_H
#define PARNET_DEPLOY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a function or struct of this header changes. The library's soname ends in it too. */
#define PARNET_ABI_VERSION 1

#define PARNET_API __attribute__((visibility("default")))

typedef enum parnet_status {
    PARNET_OK = 0,
    PARNET_INPUT = 1,        /* your arguments: a null pointer, a batch, a size, an option */
    PARNET_DEPLOYMENT = 2,   /* the directory: not there, changed, no such plan */
    PARNET_BACKEND = 3,      /* no plan runs here, a run failed, or the runtime is closed */
    PARNET_DEVICE_LOST = 4,  /* the device must not be used again: open the runtime again */
    PARNET_CHECK_FAILED = 5, /* the engines compute something else than when they were built */
    PARNET_PYTHON = 6,       /* no usable Python with parnet_deploy installed */
    PARNET_INTERNAL = 7      /* a bug; the message has the traceback */
} parnet_status;

/* A deployment, opened. */
typedef struct parnet_runtime parnet_runtime;

/* How to open. Zero and NULL stand for the default. */
typedef struct parnet_options {
    const char *backend;           /* take plans of this backend only, such as "onnxruntime" */
    const char *plan;              /* take the plan with this key; default: the best that runs */
    int32_t slots;                 /* calls that compute at the same time; default 1 */
    int32_t threads;               /* cores for the engines; default: what the plan says */
    int32_t replan_on_device_lost; /* not 0: go on with what is left when a device is lost */
} parnet_options;

#define PARNET_OPTIONS_DEFAULT {0, 0, 0, 0, 0}

/* What is open. Images are (n, channels, height, width), answers (n, classes). */
typedef struct parnet_description {
    int32_t channels;
    int32_t min_height, min_width; /* the same as max where one size is accepted */
    int32_t max_height, max_width;
    int32_t classes;
    int32_t max_batch;
    char backend[64];
    char plan[256];
} parnet_description;

/* PARNET_ABI_VERSION of the library: another one than the header's must not be used. */
PARNET_API int parnet_abi_version(void);

/*
 * Open the deployment in a directory. Takes as long as loading its engines.
 *
 * path: the directory. options: NULL for the defaults. runtime: where the handle goes; NULL goes
 * there if opening fails. Give the handle back with parnet_close.
 */
PARNET_API parnet_status parnet_open(const char *path, const parnet_options *options,
                                     parnet_runtime **runtime);

/* Say what is open; it may change if a device was lost and something else took over. */
PARNET_API parnet_status parnet_describe(parnet_runtime *runtime, parnet_description *description);

/*
 * Compute the logits of n images, and return when they are there. Nothing is copied or allocated
 * for images and logits; if it fails, the logits are untouched.
 *
 * images: (n, channels, height, width) float32, without gaps, in host memory; only read.
 * logits: (n, classes) float32. For a deployment that accepts one size of image.
 */
PARNET_API parnet_status parnet_run_into(parnet_runtime *runtime, const float *images,
                                         float *logits, int32_t n);

/* The same for images of a size within the description's, where it accepts several. */
PARNET_API parnet_status parnet_run_size_into(parnet_runtime *runtime, const float *images,
                                              float *logits, int32_t n, int32_t height,
                                              int32_t width);

/*
 * Why the last call in this thread failed: what was got, what was expected and what to do, in
 * UTF-8, 4000 bytes at most; empty if it went well. Valid until this thread's next call.
 */
PARNET_API const char *parnet_last_error(void);

/*
 * Wait for the calls in flight, then free engines and buffers. NULL, and what is closed already,
 * is PARNET_OK. Some hundred bytes stay, so that a late call can be refused.
 */
PARNET_API parnet_status parnet_close(parnet_runtime *runtime);

#ifdef __cplusplus
}
#endif

#endif
