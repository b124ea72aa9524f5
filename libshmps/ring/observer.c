#include "ring/observer.h"

void ring_observe(const struct ring_header *ring, const struct ring_geometry *g,
                  struct ring_observation *ret) {
    /* SYNC ring.low: before head, so that low <= head holds in the snapshot; pairs with
     * ring_reclaim(). */
    ret->low = atomic_load_acquire(&ring->low);
    ret->head = ring_committed_end(ring, g);
    /* relaxed: figures for tools, each a single word */
    ret->bell = atomic_load_relaxed(&ring->bell);
    ret->starved = atomic_load_relaxed(&ring->starved);
    ret->stalls = atomic_load_relaxed(&ring->counters.stalls);
    ret->wakes = atomic_load_relaxed(&ring->counters.wakes);
    ret->reclaims = atomic_load_relaxed(&ring->counters.reclaims);
    ring_count(ring, g, ret->head, &ret->messages, &ret->bytes);
}
