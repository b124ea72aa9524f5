/* ring/observer.h - look at a ring read-only, without an entry: what tools and observers use.
 * Cannot be noticed.
 *
 * Everything is copied out and then checked (I4 c). Works on the ring of a dead publisher too. */
#ifndef SHMPS_RING_OBSERVER_H
#define SHMPS_RING_OBSERVER_H

#include "layout/ring.h"

struct ring_observation {
    uint64_t low, head;     /* head: the end of what is committed, walked on from the hint */
    uint64_t bell, starved;
    uint64_t messages, bytes, stalls, wakes, reclaims;
};
/* A consistent-enough snapshot of the counters; each word is loaded once, low before head. */
void ring_observe(const struct ring_header *ring, const struct ring_geometry *g,
                  struct ring_observation *ret);

#endif
