/* wait/descriptor.h: readable when the checker has signalled the fiber. One per process. */
#include "world.h"

#include "checker.h"

struct wait_descriptor {
    char none;
};

int descriptor_open(struct wait_descriptor **ret, enum descriptor_kind kind) {
    (void)kind;
    *ret = heap_allocate(sizeof **ret);
    return 0;
}
void descriptor_close(struct wait_descriptor *d) {
    if (d)
        futex_watch(NULL, 0);
}
void descriptor_abandon(struct wait_descriptor *d) {
    (void)d;
}
int descriptor_fd(const struct wait_descriptor *d) {
    (void)d;
    return 0;
}

int descriptor_arm(struct wait_descriptor *d, const struct wait_word *words, uint32_t n,
                   int hangup_fd, int64_t timeout_ns) {
    struct sleep_word watched[8];
    (void)d;
    (void)hangup_fd;
    if (timeout_ns != 0)
        violated("a descriptor with a time-out"); /* not while pubsubd is there */
    for (uint32_t i = 0; i < n && i < ARRAY_LENGTH(watched); i++)
        watched[i] = (struct sleep_word){ words[i].word, words[i].expected };
    futex_watch(watched, n);
    return 0;
}
void descriptor_clear(struct wait_descriptor *d) {
    (void)d;
    futex_signal(false);
}
void descriptor_signal(struct wait_descriptor *d) {
    (void)d;
    futex_signal(true);
}
bool descriptor_signalled(struct wait_descriptor *d) {
    (void)d;
    return futex_signalled();
}
