/* ring/observer.h - look at a ring read-only, without an entry: what tools and observers use.
 * Cannot be noticed.
 *
 * Everything is copied out and then checked (I4 c). Works on the ring of a dead publisher too. */
#ifndef SHMPS_RING_OBSERVER_H
#define SHMPS_RING_OBSERVER_H

#include "layout/ring.h"

#include <stddef.h>

struct ring_observation {
    uint64_t low, head;     /* head: the end of what is committed, walked on from the hint */
    uint64_t bell, starved;
    uint64_t messages, bytes, stalls, wakes, reclaims;
};
/* A consistent-enough snapshot of the counters; each word is loaded once, low before head. */
void ring_observe(const struct ring_header *ring, const struct ring_geometry *g,
                  struct ring_observation *ret);

/* A sample as found. */
struct ring_observed_sample {
    uint64_t time_ns, tag, bytes; /* bytes: of the whole message */
};
enum ring_observe_result {
    RING_SEEN = 0,
    RING_GONE = 1,   /* below low by now: it may already be overwritten */
    RING_UNSEEN = 2, /* its slot does not hold it: not committed, or damaged */
};
/* Copy sample `sequence`, and of its payload at most `room` bytes into `buffer`. What is returned
 * with SEEN was whole when it was copied; a size or block that no honest publisher writes is
 * UNSEEN. g: the private copy, of which the whole ring is mapped. */
enum ring_observe_result ring_observe_sample(const struct ring_header *ring,
                                             const struct ring_geometry *g, uint64_t sequence,
                                             void *buffer, size_t room,
                                             struct ring_observed_sample *ret);

#endif
