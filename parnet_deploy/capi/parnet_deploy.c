/*
 * The functions of parnet_deploy.h over Python's C interface.
 *
 * What is decided is decided in bridge.py, whose functions reply (status, message, result) and do
 * not raise. Here is only what Python cannot do: start itself, and take its lock in any thread.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "parnet_deploy.h"

#ifndef PARNET_DEFAULT_PYTHON
#error "define PARNET_DEFAULT_PYTHON: the Python executable that is used without PARNET_PYTHON"
#endif

static _Thread_local char last_error[4096];
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;

static parnet_status fail(parnet_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

/* Extension modules such as numpy's find Python's symbols only if they are global, which they are
 * not in a program that loaded this library with dlopen. */
static void make_python_global(void) {
    Dl_info python;
    if (dladdr(Py_GetVersion(), &python) && python.dli_fname)
        dlopen(python.dli_fname, RTLD_LAZY | RTLD_GLOBAL | RTLD_NOLOAD);
}

/* Start the interpreter: isolated from variables, signals and locale of the host, UTF-8 throughout.
 * A virtual environment is found by its executable. */
static parnet_status start_python(void) {
    const char *executable = getenv("PARNET_PYTHON");
    if (!executable || !*executable)
        executable = PARNET_DEFAULT_PYTHON;
    if (access(executable, X_OK) != 0)
        return fail(PARNET_PYTHON,
                    "python %s: got %s, expected a Python %d.%d executable with parnet_deploy "
                    "installed. Set PARNET_PYTHON to one.",
                    executable, strerror(errno), PY_MAJOR_VERSION, PY_MINOR_VERSION);
    make_python_global();
    PyPreConfig first;
    PyPreConfig_InitIsolatedConfig(&first);
    first.utf8_mode = 1;
    PyStatus status = Py_PreInitialize(&first);
    if (!PyStatus_Exception(status)) {
        PyConfig config;
        PyConfig_InitIsolatedConfig(&config);
        status = PyConfig_SetBytesString(&config, &config.executable, executable);
        if (!PyStatus_Exception(status))
            status = Py_InitializeFromConfig(&config);
        PyConfig_Clear(&config);
    }
    if (PyStatus_Exception(status))
        return fail(PARNET_PYTHON,
                    "python %s: it cannot start (%s), expected an executable of Python %d.%d. "
                    "Set PARNET_PYTHON to one.",
                    executable, status.err_msg ? status.err_msg : "no reason given",
                    PY_MAJOR_VERSION, PY_MINOR_VERSION);
    PyEval_SaveThread(); /* the lock is taken anew for each call */
    return PARNET_OK;
}

static parnet_status have_python(void) {
    pthread_mutex_lock(&starting);
    parnet_status status = Py_IsInitialized() ? PARNET_OK : start_python();
    pthread_mutex_unlock(&starting);
    return status;
}

static pthread_key_t attached;
static pthread_once_t attached_once = PTHREAD_ONCE_INIT;

/* The thread ends: let go of what lock_python kept. PyGILState_Ensure may not find it any more, for
 * glibc may have cleared the slot where Python looks it up. */
static void detach_thread(void *state) {
    if (!Py_IsInitialized())
        return;
    PyEval_RestoreThread(state);
    PyThreadState_Clear(state);
    PyThreadState_DeleteCurrent();
}

static void make_key(void) { pthread_key_create(&attached, detach_thread); }

/* Take Python's lock. Python has a state for each thread, and would make and drop it in each call,
 * which takes a quarter as long as a small network; so it is kept until the thread ends. */
static PyGILState_STATE lock_python(void) {
    if (!PyGILState_GetThisThreadState()) {
        pthread_once(&attached_once, make_key);
        PyGILState_Ensure();
        pthread_setspecific(attached, PyEval_SaveThread());
    }
    return PyGILState_Ensure();
}

/* An exception that is no reply: Ctrl-C in a host that runs Python, or no memory. */
static parnet_status interrupted(void) {
    PyObject *kind = PyErr_Occurred(); /* borrowed */
    parnet_status status = fail(PARNET_INTERNAL, "parnet_deploy: the call ended by %s.",
                                kind ? ((PyTypeObject *)kind)->tp_name : "no exception");
    int again = kind && PyErr_GivenExceptionMatches(kind, PyExc_KeyboardInterrupt);
    PyErr_Clear();
    if (again)
        PyErr_SetInterrupt(); /* the host's Python still has to hear of it */
    return status;
}

/* Take a reply apart. `result`, a new reference, is set only if all went well; NULL: not wanted. */
static parnet_status take(PyObject *reply, PyObject **result) {
    if (!reply)
        return interrupted();
    int status;
    const char *message;
    Py_ssize_t length;
    PyObject *value;
    if (!PyArg_ParseTuple(reply, "iy#O", &status, &message, &length, &value)) {
        Py_DECREF(reply);
        return interrupted();
    }
    fail((parnet_status)status, "%.*s", (int)length, message);
    if (status == PARNET_OK && result)
        *result = Py_NewRef(value);
    Py_DECREF(reply);
    return (parnet_status)status;
}

/* The module that answers, of the same version as this library; a new reference. */
static parnet_status import_bridge(PyObject **bridge) {
    *bridge = PyImport_ImportModule("parnet_deploy.capi.bridge");
    if (!*bridge) {
        PyObject *kind, *error, *trace;
        PyErr_Fetch(&kind, &error, &trace);
        PyObject *text = error ? PyObject_Str(error) : NULL;
        const char *why = text ? PyUnicode_AsUTF8(text) : NULL;
        fail(PARNET_PYTHON,
             "python: it cannot import parnet_deploy (%s). Install parnet_deploy there, or set "
             "PARNET_PYTHON to an executable of Python %d.%d that has it.",
             why ? why : "no reason given", PY_MAJOR_VERSION, PY_MINOR_VERSION);
        Py_XDECREF(text);
        Py_XDECREF(kind);
        Py_XDECREF(error);
        Py_XDECREF(trace);
        PyErr_Clear();
        return PARNET_PYTHON;
    }
    PyObject *version = PyObject_GetAttrString(*bridge, "ABI_VERSION");
    long number = version ? PyLong_AsLong(version) : -1;
    Py_XDECREF(version);
    PyErr_Clear();
    if (number == PARNET_ABI_VERSION)
        return PARNET_OK;
    Py_CLEAR(*bridge);
    return fail(PARNET_PYTHON,
                "parnet_deploy: got ABI version %ld of the installed package, expected %d. "
                "Build the library again.",
                number, PARNET_ABI_VERSION);
}

/* Text of the host for Python; None for NULL. What is not UTF-8 names nothing that exists. */
static PyObject *text_or_none(const char *text) {
    if (!text)
        return Py_NewRef(Py_None);
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
}

/* Refuse what cannot be asked: no handle, or an interpreter that the host has ended. */
static parnet_status check_handle(const parnet_runtime *runtime) {
    if (!runtime)
        return fail(PARNET_INPUT, "runtime: got a null handle, expected one from parnet_open.");
    if (!Py_IsInitialized())
        return fail(PARNET_PYTHON, "python: the host has ended it. Open the runtime before that.");
    return PARNET_OK;
}

int parnet_abi_version(void) { return PARNET_ABI_VERSION; }

const char *parnet_last_error(void) { return last_error; }

parnet_status parnet_open(const char *path, const parnet_options *options,
                          parnet_runtime **runtime) {
    if (!runtime)
        return fail(PARNET_INPUT, "parnet_open: got null for runtime, expected where it goes.");
    *runtime = NULL;
    if (!path)
        return fail(PARNET_INPUT, "parnet_open: got a null path, expected a directory.");
    parnet_status status = have_python();
    if (status != PARNET_OK)
        return status;
    parnet_options chosen = PARNET_OPTIONS_DEFAULT;
    if (options)
        chosen = *options;
    PyGILState_STATE lock = lock_python();
    PyObject *bridge;
    status = import_bridge(&bridge);
    if (status == PARNET_OK) {
        PyObject *handle = NULL; /* never given back: see parnet_close in the header */
        status = take(PyObject_CallMethod(bridge, "open_runtime", "NNNiii",
                                          PyUnicode_DecodeFSDefault(path),
                                          text_or_none(chosen.backend), text_or_none(chosen.plan),
                                          (int)chosen.slots, (int)chosen.threads,
                                          (int)chosen.replan_on_device_lost),
                      &handle);
        *runtime = (parnet_runtime *)handle;
        Py_DECREF(bridge);
    }
    PyGILState_Release(lock);
    return status;
}

parnet_status parnet_describe(parnet_runtime *runtime, parnet_description *description) {
    parnet_status status = check_handle(runtime);
    if (status != PARNET_OK)
        return status;
    if (!description)
        return fail(PARNET_INPUT, "parnet_describe: got null, expected where the answer goes.");
    PyGILState_STATE lock = lock_python();
    PyObject *members;
    status = take(PyObject_CallMethod((PyObject *)runtime, "describe", NULL), &members);
    if (status == PARNET_OK) {
        parnet_description found = {0};
        const char *backend, *plan;
        if (PyArg_ParseTuple(members, "iiiiiiiss", &found.channels, &found.min_height,
                             &found.min_width, &found.max_height, &found.max_width,
                             &found.classes, &found.max_batch, &backend, &plan)) {
            snprintf(found.backend, sizeof found.backend, "%s", backend);
            snprintf(found.plan, sizeof found.plan, "%s", plan);
            *description = found;
        } else {
            status = interrupted();
        }
        Py_DECREF(members);
    }
    PyGILState_Release(lock);
    return status;
}

parnet_status parnet_run_size_into(parnet_runtime *runtime, const float *images, float *logits,
                                   int32_t n, int32_t height, int32_t width) {
    parnet_status status = check_handle(runtime);
    if (status != PARNET_OK)
        return status;
    PyGILState_STATE lock = lock_python();
    status = take(PyObject_CallMethod((PyObject *)runtime, "run", "KKiii",
                                      (unsigned long long)(uintptr_t)images,
                                      (unsigned long long)(uintptr_t)logits, (int)n, (int)height,
                                      (int)width),
                  NULL);
    PyGILState_Release(lock);
    return status;
}

parnet_status parnet_run_into(parnet_runtime *runtime, const float *images, float *logits,
                              int32_t n) {
    return parnet_run_size_into(runtime, images, logits, n, 0, 0);
}

parnet_status parnet_close(parnet_runtime *runtime) {
    if (!runtime) {
        last_error[0] = '\0';
        return PARNET_OK;
    }
    parnet_status status = check_handle(runtime);
    if (status != PARNET_OK)
        return status;
    PyGILState_STATE lock = lock_python();
    status = take(PyObject_CallMethod((PyObject *)runtime, "close", NULL), NULL);
    PyGILState_Release(lock);
    return status;
}
