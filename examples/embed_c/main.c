/*
 * Classify one image from C: embed_c DEPLOYMENT [IMAGE]
 *
 * IMAGE is a file of raw float32, (channels, height, width), prepared as in training; without it
 * the image is zeros. Prints the plan and the likeliest class.
 */
#include <stdio.h>
#include <stdlib.h>

#include "parnet_deploy.h"

static int refuse(void) {
    fprintf(stderr, "embed_c: %s\n", parnet_last_error());
    return 1;
}

static int read_floats(const char *path, float *values, size_t count) {
    FILE *file = fopen(path, "rb");
    size_t got = file ? fread(values, sizeof *values, count, file) : 0;
    if (file)
        fclose(file);
    if (got == count)
        return 1;
    fprintf(stderr, "embed_c: %s: got %zu values, expected %zu.\n", path, got, count);
    return 0;
}

int main(int count, char **arguments) {
    if (count < 2 || count > 3) {
        fprintf(stderr, "usage: embed_c DEPLOYMENT [IMAGE]\n");
        return 2;
    }
    parnet_runtime *runtime;
    if (parnet_open(arguments[1], NULL, &runtime) != PARNET_OK)
        return refuse();
    parnet_description about;
    if (parnet_describe(runtime, &about) != PARNET_OK)
        return refuse();
    printf("plan %s on %s: %dx%dx%d, %d classes\n", about.plan, about.backend, (int)about.channels,
           (int)about.max_height, (int)about.max_width, (int)about.classes);

    size_t pixels = (size_t)about.channels * (size_t)about.max_height * (size_t)about.max_width;
    float *image = calloc(pixels, sizeof *image);
    float *logits = calloc((size_t)about.classes, sizeof *logits);
    if (!image || !logits)
        return 1;
    if (count == 3 && !read_floats(arguments[2], image, pixels))
        return 1;
    if (parnet_run_into(runtime, image, logits, 1) != PARNET_OK)
        return refuse();
    int best = 0;
    for (int k = 1; k < about.classes; k++)
        if (logits[k] > logits[best])
            best = k;
    printf("class %d, logit %.4f\n", best, (double)logits[best]);

    parnet_close(runtime);
    free(logits);
    free(image);
    return 0;
}
