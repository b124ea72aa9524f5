/* wait/descriptor_kinds.h - what descriptor.c and the two kinds of descriptors know of each other.
 *
 * A kind is a set of functions and a struct that begins with struct wait_descriptor. The eventfd
 * is made and closed by descriptor.c. */
#ifndef SHMPS_WAIT_DESCRIPTOR_KINDS_H
#define SHMPS_WAIT_DESCRIPTOR_KINDS_H

#include "wait/descriptor.h"

struct descriptor_functions {
    int (*arm)(struct wait_descriptor *d, const struct wait_word *words, uint32_t n,
               int hangup_fd, int64_t timeout_ns);
    void (*clear)(struct wait_descriptor *d);     /* consume what completed, drain the eventfd */
    bool (*signalled)(struct wait_descriptor *d); /* by what feeds it; own signals are known */
    void (*close)(struct wait_descriptor *d);     /* give back all but the eventfd and `d` */
    void (*abandon)(struct wait_descriptor *d);   /* the same in a forked child */
};

struct wait_descriptor {
    const struct descriptor_functions *functions;
    enum descriptor_kind kind;
    int fd;         /* the eventfd, non-blocking */
    bool signalled; /* it is known to be readable: signalled, and not cleared since */
};

/* Make one that feeds `fd`, which stays the caller's if this fails. */
int descriptor_uring_open(int fd, struct wait_descriptor **ret);
int descriptor_thread_open(int fd, struct wait_descriptor **ret);

/* Make the eventfd unreadable. */
void descriptor_drain(int fd);

#endif
