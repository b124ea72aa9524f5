/* wait/futex.c - see wait/futex.h. Raw system calls: glibc wraps none of these. */
#include "wait/futex.h"

#include "base/process.h"
#include "base/scope.h"

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <sys/syscall.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449 /* the same on every architecture; since Linux 5.16 */
#endif

#define NAP_NS INT64_C(1000000)

static struct timespec timespec_of(uint64_t ns) {
    return (struct timespec){
        .tv_sec = (time_t)(ns / UINT64_C(1000000000)),
        .tv_nsec = (long)(ns % UINT64_C(1000000000)),
    };
}

static bool any_differs(const struct wait_word *words, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        /* relaxed: only compared, as the kernel would; the caller's look that follows acquires */
        if (atomic_load_relaxed(words[i].word) != words[i].expected)
            return true;
    }
    return false;
}

/* Where the kernel cannot sleep on these words. A wake that changes no word goes unnoticed
 * here; in our protocols every wake follows a change. */
static enum wait_result nap_on_words(const struct wait_word *words, uint32_t n,
                                     uint64_t deadline_ns) {
    for (;;) {
        if (any_differs(words, n))
            return WAIT_WOKEN;
        uint64_t now = now_ns();
        if (now >= deadline_ns)
            return WAIT_TIMEOUT;
        struct timespec nap = timespec_of(min_u64(deadline_ns - now, NAP_NS));
        if (clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL) == EINTR)
            return WAIT_WOKEN;
    }
}

/* 0, or the errno of a system call that sleeps. */
static int sleep_on_one(const struct wait_word *word, int64_t timeout_ns) {
    struct timespec timeout = timespec_of((uint64_t)timeout_ns);
    long r = syscall(SYS_futex, (uintptr_t)word->word, FUTEX_WAIT, word->expected, &timeout, NULL,
                     0);
    return r < 0 ? errno : 0;
}

static int sleep_on_many(const struct wait_word *words, uint32_t n, uint64_t deadline_ns) {
    struct futex_waitv waiters[WAIT_WORDS_MAX];
    for (uint32_t i = 0; i < n; i++) {
        waiters[i] = (struct futex_waitv){
            .val = words[i].expected,
            .uaddr = (uintptr_t)words[i].word,
            .flags = FUTEX_32,
        };
    }
    struct timespec deadline = timespec_of(deadline_ns);
    long r = syscall(SYS_futex_waitv, waiters, n, 0, &deadline, CLOCK_MONOTONIC);
    return r < 0 ? errno : 0;
}

enum wait_result wait_on_words(const struct wait_word *words, uint32_t n, int64_t timeout_ns) {
    int64_t wanted_ns = timeout_ns > 0 ? timeout_ns : 1;
    uint64_t deadline_ns = now_ns() + (uint64_t)wanted_ns;
    if (n == 0 || n > WAIT_WORDS_MAX)
        return nap_on_words(words, n, deadline_ns);
    switch (n == 1 ? sleep_on_one(words, wanted_ns) : sleep_on_many(words, n, deadline_ns)) {
    case 0:
    case EAGAIN: /* a word had changed already */
    case EINTR:
        return WAIT_WOKEN;
    case ETIMEDOUT:
        return WAIT_TIMEOUT;
    default: /* ENOSYS; EPERM from a seccomp filter that does not know the call; ENOMEM */
        return nap_on_words(words, n, deadline_ns);
    }
}

int wake_word(const atomic_u32 *word, int n) {
    long woken = syscall(SYS_futex, (uintptr_t)word, FUTEX_WAKE, n, NULL, NULL, 0);
    return woken > 0 ? (int)woken : 0;
}

static int membarrier(int command) {
    return (int)syscall(SYS_membarrier, command, 0, 0);
}

static bool register_for_barriers(void) {
    const char *wish = getenv("SHMPS_MEMBARRIER");
    if (wish != NULL && strcmp(wish, "0") == 0)
        return false;
    const int needed = MEMBARRIER_CMD_GLOBAL_EXPEDITED | MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
    int commands = membarrier(MEMBARRIER_CMD_QUERY);
    return commands >= 0 && (commands & needed) == needed &&
           membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0;
}

/* What was found out, and by which process: a forked child sees its parent's pid and finds out
 * anew. That needs no fork handler, and it also holds where fork handlers are not run (_Fork,
 * clone). 0: not yet. */
static atomic_u64 barrier_state;

bool barrier_registered(void) {
    uint64_t mine = (uint64_t)getpid() << 1;
    /* relaxed: the word itself is all there is to know; two threads that find out together find
     * the same */
    uint64_t state = atomic_load_relaxed(&barrier_state);
    if ((state & ~UINT64_C(1)) != mine) {
        state = mine | (register_for_barriers() ? 1 : 0);
        atomic_store_relaxed(&barrier_state, state); /* relaxed: as above */
    }
    return (state & 1) != 0;
}

bool barrier_everyone(void) {
    if (barrier_registered() && membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED) == 0)
        return true;
    /* SYNC armed, starved: pairs with the sc fence of a running side that is not bare */
    fence_seq_cst();
    return false;
}
