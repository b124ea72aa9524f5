#include "ring/observer.h"

/* Counters are stored now and then only (tell() in publisher.c): add what was committed since. A
 * publisher counts messages from its ring's start on, so that the counter is also the sequence up
 * to which it has counted. */
static void count_on(const struct ring_header *ring, const struct ring_geometry *g,
                     struct ring_observation *o) {
    const void *slots = (const char *)ring + RING_SLOTS_OFFSET;
    if (o->messages < g->start || o->head - o->messages > g->depth)
        return;                                  /* overtaken while we looked */
    for (; o->messages < o->head; o->messages++) /* relaxed: a figure for tools */
        o->bytes += atomic_load_relaxed(&ring_slot(slots, g, o->messages)->bytes);
}

void ring_observe(const struct ring_header *ring, const struct ring_geometry *g,
                  struct ring_observation *ret) {
    /* SYNC ring.low: before head, so that low <= head holds in the snapshot; pairs with
     * ring_reclaim(). */
    ret->low = atomic_load_acquire(&ring->low);
    ret->head = ring_committed_end(ring, g);
    /* relaxed: figures for tools, each a single word */
    ret->bell = atomic_load_relaxed(&ring->bell);
    ret->starved = atomic_load_relaxed(&ring->starved);
    ret->messages = atomic_load_relaxed(&ring->counters.messages);
    ret->bytes = atomic_load_relaxed(&ring->counters.bytes);
    ret->stalls = atomic_load_relaxed(&ring->counters.stalls);
    ret->wakes = atomic_load_relaxed(&ring->counters.wakes);
    ret->reclaims = atomic_load_relaxed(&ring->counters.reclaims);
    count_on(ring, g, ret);
}
