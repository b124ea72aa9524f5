/* wait/futex.h - sleep until one of several words changes; wake; the system-wide barrier. No
 * knowledge of rings. */
#ifndef SHMPS_WAIT_FUTEX_H
#define SHMPS_WAIT_FUTEX_H

#include "base/atomic.h"

#include <stdbool.h>

/* A word to sleep on: sleep while *word == expected. May lie in a read-only mapping. */
struct wait_word {
    const atomic_u32 *word;
    uint32_t expected;
};

enum wait_result {
    WAIT_WOKEN = 0,   /* woken, or a word had changed already, or a signal came: look again */
    WAIT_TIMEOUT = 1,
};

/* Of futex_waitv(2); with more, or on a kernel without it (< 5.16), sleeps are naps of 1 ms. */
#define WAIT_WORDS_MAX 128

/* Sleep until any word differs from what is expected, a wake on one, or timeout_ns (> 0)
 * passed. Shared (cross-process) futexes. Never fails: where the kernel cannot do it, it naps. */
enum wait_result wait_on_words(const struct wait_word *words, uint32_t n, int64_t timeout_ns);

/* Wake at most n sleepers on a shared word, which may be in a read-only mapping. Returns how
 * many were woken; errors count as none. */
int wake_word(const atomic_u32 *word, int n);

/* What this process can do about barriers; found out once, at the first call (which
 * registers the process for MEMBARRIER_CMD_GLOBAL_EXPEDITED). Thread-safe. SHMPS_MEMBARRIER=0
 * in the environment forces `false` (for tests and for machines with isolated cores). After
 * fork the child registers anew by itself at its first call. */
/* others' membarrier reaches this process: its running side may be bare */
bool barrier_registered(void);

/* The sleeper's barrier: membarrier(GLOBAL_EXPEDITED). Returns false where that is not
 * possible: then a seq_cst fence was executed instead, and the sleep must be bounded by
 * BARRIER_NAP_NS. */
bool barrier_everyone(void);
#define BARRIER_NAP_NS INT64_C(1000000)

/* Every sleep is bounded by this, so that a peer killed or stopped between its store and its
 * wake delays nobody longer. */
#define SLEEP_BOUND_NS INT64_C(100000000)

#endif
