/* tests/unit/invariants.h - what must be true of a publisher's state between two calls. */
#ifndef SHMPS_TESTS_UNIT_INVARIANTS_H
#define SHMPS_TESTS_UNIT_INVARIANTS_H

#include "ring/publisher.h"

#include <stdlib.h>

/* I1, I2 and where each block is: free, owned, set aside or loaned, exactly once; as far as its
 * private memory tells. NULL, or what does not hold. */
static inline const char *what_is_wrong_inside(const struct ring_publisher *p) {
    unsigned char *seen;
    const char *wrong = NULL;
    if (p->head > p->limit || p->limit > p->low + p->g.depth)
        return "head <= limit <= low + depth does not hold";
    if (p->g.blocks == 0)
        return NULL;
    if (p->n_free + (p->loaned != RING_NO_BLOCK) < p->limit - p->head + 1)
        return "there are fewer free blocks than may be claimed";
    seen = calloc(1, p->g.blocks);
    if (seen == NULL)
        return "no memory";
    for (uint32_t i = 0; i < p->n_free; i++)
        seen[p->free_blocks[i]]++;
    for (uint32_t i = 0; i < p->n_aside; i++)
        seen[p->aside[i].block]++;
    for (uint32_t i = 0; i < p->g.depth; i++)
        if (p->owner[i] != RING_NO_BLOCK)
            seen[p->owner[i]]++;
    if (p->loaned != RING_NO_BLOCK)
        seen[p->loaned]++;
    for (uint32_t i = 0; i < p->g.blocks; i++)
        if (seen[i] != 1)
            wrong = seen[i] == 0 ? "a block is nowhere" : "a block is in two places";
    free(seen);
    return wrong;
}

/* The same, and what others see of it. */
static inline const char *what_is_wrong(const struct ring_publisher *p) {
    uint64_t low = atomic_load_relaxed(&p->ring->low), head = atomic_load_relaxed(&p->ring->head);
    if (low != p->low || low > head || head > p->head)
        return "low <= head does not hold for who looks";
    return what_is_wrong_inside(p);
}

#endif
