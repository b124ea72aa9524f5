#include "interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS INT64_C(200000000)

static volatile sig_atomic_t caught;
static int event = -1;

static void on_signal(int signal_number) {
    int saved = errno;
    uint64_t one = 1;
    caught = signal_number;
    (void)!write(event, &one, sizeof(one));
    errno = saved;
}

void interrupt_catch(void) {
    /* an eventfd and no signalfd: a blocked signal would stay so in what the library starts */
    event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event < 0) {
        report("cannot make an eventfd: %s", strerror(errno));
        exit(EXIT_ERROR);
    }
    struct sigaction action = { .sa_handler = on_signal };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int interrupt_signal(void) {
    return caught;
}

int interrupt_fd(void) {
    return event;
}

enum exit_code interrupt_code(void) {
    return (enum exit_code)(EXIT_SIGNAL + caught);
}

int64_t interrupt_slice(uint64_t start_ns, int64_t limit_ns) {
    if (limit_ns == 0)
        return SLICE_NS;
    int64_t left = limit_ns - (int64_t)(clock_ns() - start_ns);
    return left <= 0 ? 0 : left < SLICE_NS ? left : SLICE_NS;
}

uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}
