/* tests/unit/descriptors.h - what the tests of wait/descriptor.h share. Each runs with both kinds,
 * io_uring and thread. */
#ifndef SHMPS_TESTS_UNIT_DESCRIPTORS_H
#define SHMPS_TESTS_UNIT_DESCRIPTORS_H

#include "support.h"

#include "wait/descriptor.h"

#include <shmps/error.h>

#include <poll.h>
#include <sched.h>

#define MS INT64_C(1000000)
#define LONG_MS 20000 /* only a wake that is lost lasts that long */
#define QUIET_MS 15   /* how long we listen for what must not come */

/* The kind under test is the test's initial state; a kernel without io_uring skips its half. */
static inline enum descriptor_kind kind_of(void **state) {
    enum descriptor_kind kind = *(enum descriptor_kind *)*state;
    struct wait_descriptor *d;
    if (descriptor_open(&d, kind) == SHMPS_E_UNSUPPORTED)
        skip();
    descriptor_close(d);
    return kind;
}

static inline struct wait_descriptor *open_kind(enum descriptor_kind kind) {
    struct wait_descriptor *d = NULL;
    assert_int_equal(descriptor_open(&d, kind), 0);
    assert_int_equal(descriptor_kind(d), kind);
    return d;
}

static inline bool readable(const struct wait_descriptor *d, int timeout_ms) {
    return poll(&(struct pollfd){ .fd = descriptor_fd(d), .events = POLLIN }, 1, timeout_ms) > 0;
}

#define assert_signalled(d)                  \
    do {                                     \
        assert_true(readable((d), LONG_MS)); \
        while (!descriptor_signalled(d))     \
            sched_yield();                   \
    } while (0)

#define assert_quiet(d)                        \
    do {                                       \
        assert_false(readable((d), QUIET_MS)); \
        assert_false(descriptor_signalled(d)); \
    } while (0)

#define arm(d, words, n) assert_int_equal(descriptor_arm((d), (words), (n), -1, 0), 0)

struct words {
    atomic_u32 word[400];
};

static inline struct words *words_new(struct wait_word *list, uint32_t n) {
    struct words *w = shared_memory(sizeof(*w));
    for (uint32_t i = 0; i < n; i++)
        list[i] = (struct wait_word){ &w->word[i], 0 };
    return w;
}

static inline void words_free(struct words *w) {
    munmap(w, sizeof(*w));
}

/* Change a word and wake. SYNC word: release; who waits compares. */
static inline int change(struct wait_word *word) {
    atomic_store_release((atomic_u32 *)(uintptr_t)word->word, ++word->expected);
    return wake_word(word->word, INT32_MAX);
}

/* How many waits are on the word: a wake without a change finds them all. For a thread that
 * is about to sleep: until there is one. */
static inline int sleepers(const atomic_u32 *word) {
    int n;
    while ((n = wake_word(word, INT32_MAX)) == 0)
        sched_yield();
    return n;
}

/* An entry of a table of tests, with a kind as its state; and one for each kind. */
#define CASE(function, kind) \
    { #function " (" #kind ")", function, leak_setup, leak_teardown, &kind }
#define BOTH(function) CASE(function, uring), CASE(function, thread)

#endif
