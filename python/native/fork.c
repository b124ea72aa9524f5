/* fork.c - see native.h. */
#include "native.h"

#include <pthread.h>

unsigned forks;

static void in_child(void) {
    forks++;
}

bool fork_init(PyObject *module) {
    (void)module;
    return pthread_atfork(NULL, NULL, in_child) == 0;
}
