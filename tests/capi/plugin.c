/* Loads the library with dlopen and keeps its symbols to itself, as a plugin host does. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "parnet_deploy.h"

int main(int count, char **arguments) {
    if (count != 3)
        return 2;
    void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    /* POSIX gives functions as object pointers, which C has no cast for. */
    union {
        void *object;
        parnet_status (*open)(const char *, const parnet_options *, parnet_runtime **);
        const char *(*last_error)(void);
    } open_it = {dlsym(library, "parnet_open")}, why = {dlsym(library, "parnet_last_error")};
    parnet_runtime *runtime;
    parnet_status status = open_it.open(arguments[2], NULL, &runtime);
    printf("%d %s\n", (int)status, why.last_error());
    fflush(stdout);
    dlclose(library);
    return 0;
}
