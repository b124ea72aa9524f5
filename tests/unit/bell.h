/* tests/unit/bell.h - a channel of one number from one process to another with the data
 * protocol of DESIGN 5, so that the ways to sleep can be tested without a ring. */
#ifndef SHMPS_TESTS_UNIT_BELL_H
#define SHMPS_TESTS_UNIT_BELL_H

#include "wait/futex.h"

#include <sched.h>

struct channel {
    _Alignas(64) atomic_u64 sequence; /* writer: the sender */
    _Alignas(64) atomic_u64 bell;     /* writer: the sender. Its low half is the futex word */
    _Alignas(64) atomic_u64 armed;    /* writer: the receiver */
};

static inline const atomic_u32 *bell_word(const struct channel *c) {
    return (const atomic_u32 *)&c->bell;
}

/* Commit `sequence`; wake if somebody armed since the last wake. Returns how many were woken. */
static inline int channel_send(struct channel *c, uint64_t sequence, bool bare) {
    /* SYNC sequence: release, pairs with channel_has() */
    atomic_store_release(&c->sequence, sequence);
    if (bare)
        compiler_barrier(); /* the other half is channel_arm()'s barrier */
    else
        fence_seq_cst();
    /* relaxed: ordered against the commit by the barrier above; `bell` is ours alone */
    uint64_t armed = atomic_load_relaxed(&c->armed);
    uint64_t bell = atomic_load_relaxed(&c->bell);
    if (armed != bell)
        return 0;
    /* SYNC bell: release, pairs with channel_arm() */
    atomic_store_release(&c->bell, bell + 1);
    return wake_word(bell_word(c), INT32_MAX);
}

static inline bool channel_has(const struct channel *c, uint64_t sequence) {
    /* SYNC sequence: acquire, pairs with channel_send() */
    return atomic_load_acquire(&c->sequence) >= sequence;
}

/* The sleeper's half: true and the word to sleep on, or false if the sequence has come
 * meanwhile. */
static inline bool channel_arm(struct channel *c, uint64_t sequence, struct wait_word *ret) {
    /* SYNC bell: acquire, pairs with channel_send() */
    uint64_t bell = atomic_load_acquire(&c->bell);
    /* relaxed: the barrier below orders it; one receiver, so no maximum to take */
    atomic_store_relaxed(&c->armed, bell);
    barrier_everyone();
    if (channel_has(c, sequence))
        return false;
    *ret = (struct wait_word){ bell_word(c), (uint32_t)bell };
    return true;
}

/* Let the receiver arm, and then get a different way towards its sleep each time: a send
 * that follows races with it. */
static inline void channel_await_sleeper(const struct channel *c, uint64_t yields) {
    /* relaxed: a moment to aim at, nothing follows from it */
    while (atomic_load_relaxed(&c->armed) != atomic_load_relaxed(&c->bell))
        sched_yield();
    for (uint64_t i = 0; i < yields; i++)
        sched_yield();
}

#endif
