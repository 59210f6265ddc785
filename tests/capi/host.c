/*
 * A program without Python that does everything parnet_deploy.h offers, and some things it refuses.
 *
 *     host DEPLOYMENT IMAGES COUNT LOGITS
 *
 * Prints "what<TAB>status<TAB>message" for each call, and writes the logits of COUNT images.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parnet_deploy.h"

enum { THREADS = 4, ROUNDS = 5 };

static parnet_runtime *runtime;
static parnet_description about;
static int count;
static size_t pixels, classes;
static float *images;

static void say(const char *what, parnet_status status) {
    printf("%s\t%d\t%s\n", what, (int)status, parnet_last_error());
}

static float *floats(size_t number) {
    float *values = calloc(number, sizeof *values);
    if (!values)
        abort();
    return values;
}

/* All images, some times over; the logits, or NULL if a call failed. */
static void *run_all(void *unused) {
    (void)unused;
    float *logits = floats((size_t)count * classes);
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < (size_t)count; i++)
            if (parnet_run_into(runtime, images + i * pixels, logits + i * classes, 1) != PARNET_OK)
                return NULL;
    return logits;
}

/* Ask until it is refused; the status of the refusal. */
static void *run_until_closed(void *answered) {
    float *logits = floats(classes);
    static parnet_status refused[THREADS];
    int *calls = answered;
    parnet_status status;
    do {
        status = parnet_run_into(runtime, images, logits, 1);
        __atomic_add_fetch(calls, 1, __ATOMIC_SEQ_CST);
    } while (status == PARNET_OK);
    free(logits);
    static int next;
    int mine = __atomic_fetch_add(&next, 1, __ATOMIC_SEQ_CST);
    refused[mine] = status;
    return &refused[mine];
}

static void *fail_once(void *unused) {
    parnet_run_into(NULL, NULL, NULL, 1);
    return unused;
}

static void refusals(const char *path) {
    parnet_runtime *none = (parnet_runtime *)path; /* anything but null */
    parnet_options options = PARNET_OPTIONS_DEFAULT;
    say("open null path", parnet_open(NULL, NULL, &none));
    say("open null handle", parnet_open(path, NULL, NULL));
    say("open missing", parnet_open("no/such/deployment", NULL, &none));
    printf("handle after refusal\t%d\t\n", none != NULL);
    options.slots = -1;
    say("open slots", parnet_open(path, &options, &none));
    options.slots = 0;
    options.backend = "abacus";
    say("open backend", parnet_open(path, &options, &none));
    options.backend = NULL;
    options.plan = "no-such-plan";
    say("open plan", parnet_open(path, &options, &none));
    options.plan = "\xff";
    say("open plan not utf-8", parnet_open(path, &options, &none));
    say("close null", parnet_close(NULL));
    say("describe null handle", parnet_describe(NULL, &about));
}

static void refused_runs(void) {
    float *logits = floats(classes);
    for (size_t k = 0; k < classes; k++)
        logits[k] = 77;
    say("run null handle", parnet_run_into(NULL, images, logits, 1));
    say("run null images", parnet_run_into(runtime, NULL, logits, 1));
    say("run null logits", parnet_run_into(runtime, images, NULL, 1));
    say("run none", parnet_run_into(runtime, images, logits, 0));
    say("run negative", parnet_run_into(runtime, images, logits, -1));
    say("run too many", parnet_run_into(runtime, images, logits, about.max_batch + 1));
    say("run size", parnet_run_size_into(runtime, images, logits, 1, 48, 48));
    say("describe null", parnet_describe(runtime, NULL));
    int untouched = 1;
    for (size_t k = 0; k < classes; k++)
        untouched &= logits[k] == 77;
    printf("logits untouched\t%d\t\n", untouched);
    say("run", parnet_run_size_into(runtime, images, logits, 1, about.max_height, about.max_width));
    pthread_t other;
    if (pthread_create(&other, NULL, fail_once, NULL) || pthread_join(other, NULL))
        abort();
    say("failure of another thread", PARNET_OK);
    free(logits);
}

static int at_once(const char *target) {
    pthread_t threads[THREADS];
    void *logits[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run_all, NULL))
            abort();
    for (int i = 0; i < THREADS; i++)
        if (pthread_join(threads[i], &logits[i]) || !logits[i])
            return 0;
    size_t number = (size_t)count * classes;
    int same = 1;
    for (int i = 1; i < THREADS; i++)
        same &= memcmp(logits[0], logits[i], number * sizeof(float)) == 0;
    FILE *file = fopen(target, "wb");
    if (!file || fwrite(logits[0], sizeof(float), number, file) != number || fclose(file))
        abort();
    for (int i = 0; i < THREADS; i++)
        free(logits[i]);
    return same;
}

static void *run_once(void *unused) {
    float *logits = floats(classes);
    if (parnet_run_into(runtime, images, logits, 1) != PARNET_OK)
        abort();
    free(logits);
    return unused;
}

static void many_threads(int number) {
    for (int i = 0; i < number; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, run_once, NULL) || pthread_join(thread, NULL))
            abort();
    }
}

/* Memory of this process, in pages. */
static long resident(void) {
    long all, here;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &all, &here) != 2 || fclose(file))
        abort();
    return here;
}

static void close_at_work(void) {
    pthread_t threads[THREADS];
    int calls = 0;
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run_until_closed, &calls))
            abort();
    while (__atomic_load_n(&calls, __ATOMIC_SEQ_CST) < 20) {
    }
    say("close at work", parnet_close(runtime));
    for (int i = 0; i < THREADS; i++) {
        void *status;
        if (pthread_join(threads[i], &status))
            abort();
        printf("thread refused\t%d\t\n", (int)*(parnet_status *)status);
    }
}

int main(int number, char **arguments) {
    if (number != 5)
        return 2;
    printf("abi\t%d\t\n", parnet_abi_version() == PARNET_ABI_VERSION);
    printf("before any call\t0\t%s\n", parnet_last_error());
    refusals(arguments[1]);
    parnet_options options = PARNET_OPTIONS_DEFAULT;
    options.slots = 2;
    options.threads = 1;
    say("open", parnet_open(arguments[1], &options, &runtime));
    say("describe", parnet_describe(runtime, &about));
    printf("shape\t0\t%d %d %d %d %d %d %d %s %s\n", (int)about.channels, (int)about.min_height,
           (int)about.min_width, (int)about.max_height, (int)about.max_width, (int)about.classes,
           (int)about.max_batch, about.backend, about.plan);
    count = atoi(arguments[3]);
    pixels = (size_t)about.channels * (size_t)about.max_height * (size_t)about.max_width;
    classes = (size_t)about.classes;
    images = floats((size_t)count * pixels);
    FILE *file = fopen(arguments[2], "rb");
    if (!file || fread(images, sizeof(float), (size_t)count * pixels, file) != (size_t)count * pixels)
        abort();
    fclose(file);

    refused_runs();
    printf("threads agree\t%d\t\n", at_once(arguments[4]));
    many_threads(100);
    long before = resident();
    many_threads(1000);
    printf("pages of ended threads\t%ld\t\n", resident() - before);
    close_at_work();
    say("close again", parnet_close(runtime));
    float logit[1];
    say("run after close", parnet_run_into(runtime, images, logit, 1));
    say("describe after close", parnet_describe(runtime, &about));
    say("open again", parnet_open(arguments[1], NULL, &runtime));
    free(images);
    return 0; /* with a runtime open: ending so must be clean too */
}
