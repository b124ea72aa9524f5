#include "ring/observer.h"

#include "base/scope.h"

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

/* Where the payload of a sample of `bytes` bytes lies, or NULL if that is nowhere. */
static const void *payload_of(const struct ring_header *ring, const struct ring_geometry *g,
                              const struct slot *slot, uint64_t bytes) {
    if (bytes <= g->inline_bytes)
        return slot->payload;
    /* relaxed: after the acquire load of seq, before the fence that precedes the check of low */
    uint64_t block = atomic_load_relaxed(&slot->payload[0]);
    if (block >= g->blocks || bytes > g->block_bytes)
        return NULL;
    return (const char *)ring + g->blocks_offset + block * g->block_bytes;
}

enum ring_observe_result ring_observe_sample(const struct ring_header *ring,
                                             const struct ring_geometry *g, uint64_t sequence,
                                             void *buffer, size_t room,
                                             struct ring_observed_sample *ret) {
    const struct slot *slot = ring_slot((const char *)ring + RING_SLOTS_OFFSET, g, sequence);
    struct ring_observed_sample found;
    /* SYNC slot.seq: acquire pairs with the release in ring_commit(). */
    bool committed = atomic_load_acquire(&slot->seq) == sequence + 1;
    /* relaxed, all of them: believed only after the check of low below */
    found.time_ns = atomic_load_relaxed(&slot->time_ns);
    found.tag = atomic_load_relaxed(&slot->tag);
    found.bytes = atomic_load_relaxed(&slot->bytes);
    const void *from = payload_of(ring, g, slot, found.bytes);
    if (committed && from)
        copy_out_relaxed(buffer, from, min_u64(found.bytes, room));
    fence_acquire(); /* SYNC ring.low: orders the copies before this look at low; pairs with the
                      * fence in ring_reclaim() */
    if (atomic_load_relaxed(&ring->low) > sequence) /* relaxed: the fence orders it */
        return RING_GONE;
    if (!committed || !from)
        return RING_UNSEEN;
    *ret = found;
    return RING_SEEN;
}
