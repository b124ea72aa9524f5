/* wait/descriptor.c - see wait/descriptor.h. What is common to the kinds. */
#include "wait/descriptor.h"

#include "base/error.h"
#include "base/scope.h"
#include "wait/descriptor_kinds.h"

#include <sys/eventfd.h>

static int open_kind(enum descriptor_kind kind, int fd, struct wait_descriptor **ret) {
    if (kind == DESCRIPTOR_URING)
        return descriptor_uring_open(fd, ret);
    if (kind == DESCRIPTOR_THREAD)
        return descriptor_thread_open(fd, ret);
    const char *wish = getenv("SHMPS_DESCRIPTOR");
    bool thread_only = wish != NULL && strcmp(wish, "thread") == 0;
    if (!thread_only && descriptor_uring_open(fd, ret) == 0)
        return 0;
    return descriptor_thread_open(fd, ret); /* whatever was wrong with the other */
}

int descriptor_open(struct wait_descriptor **ret, enum descriptor_kind kind) {
    _cleanup_close_ int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0)
        return error_system(errno, "cannot make an eventfd");
    struct wait_descriptor *d;
    int r = open_kind(kind, fd, &d);
    if (r < 0)
        return r;
    d->fd = steal_fd(&fd);
    *ret = d;
    return 0;
}

void descriptor_close(struct wait_descriptor *d) {
    if (d == NULL)
        return;
    d->functions->close(d);
    close(d->fd);
    free(d);
}

void descriptor_abandon(struct wait_descriptor *d) {
    if (d == NULL)
        return;
    d->functions->abandon(d);
    close(d->fd);
    free(d);
}

int descriptor_fd(const struct wait_descriptor *d) {
    return d->fd;
}

enum descriptor_kind descriptor_kind(const struct wait_descriptor *d) {
    return d->kind;
}

int descriptor_arm(struct wait_descriptor *d, const struct wait_word *words, uint32_t n,
                   int hangup_fd, int64_t timeout_ns) {
    return d->functions->arm(d, words, n, hangup_fd, timeout_ns);
}

void descriptor_clear(struct wait_descriptor *d) {
    d->signalled = false;
    d->functions->clear(d);
}

void descriptor_signal(struct wait_descriptor *d) {
    /* EAGAIN: the counter is at its end, so the eventfd is readable */
    eventfd_write(d->fd, 1);
    d->signalled = true;
}

bool descriptor_signalled(struct wait_descriptor *d) {
    return d->signalled || d->functions->signalled(d);
}

void descriptor_drain(int fd) {
    eventfd_t count;
    /* EAGAIN: nothing to drain */
    eventfd_read(fd, &count);
}
