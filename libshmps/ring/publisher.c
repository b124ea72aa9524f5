#include "ring/publisher.h"
#include "base/scope.h"

size_t ring_publisher_memory(const struct ring_geometry *g) {
    if (g->blocks == 0)
        return 0;
    return sizeof(struct ring_aside) * g->blocks + sizeof(uint64_t) * g->pins +
           sizeof(uint32_t) * ((size_t)g->depth + g->blocks);
}

void ring_publisher_init(struct ring_publisher *p, struct ring_header *ring,
                         const struct ring_geometry *g, const atomic_u32 *generation,
                         void *memory) {
    *p = (struct ring_publisher){
        .head = g->start,
        .limit = min_u64(g->start + g->depth, SEQUENCE_END),
        .low = g->start,
        .freed = g->start,
        .bell = 1,
        .messages = g->start,
        .generation = generation,
        .ring = ring,
        .slots = (char *)ring + RING_SLOTS_OFFSET,
        .blocks = (char *)ring + g->blocks_offset,
        .g = *g,
        .batch = ring_batch(g->depth),
        .told = g->start - RING_TELL_MAX, /* the first sample is told at once */
        .tell_after = min_u64(ring_batch(g->depth), RING_TELL_MAX),
        .loaned = RING_NO_BLOCK,
    };
    if (g->blocks == 0)
        return;
    p->aside = memory;
    p->pinned = (uint64_t *)(p->aside + g->blocks);
    p->owner = (uint32_t *)(p->pinned + g->pins);
    p->free_blocks = p->owner + g->depth;
    for (uint32_t i = 0; i < g->depth; i++)
        p->owner[i] = RING_NO_BLOCK;
    for (uint32_t i = 0; i < g->blocks; i++) /* block 0 is used first */
        p->free_blocks[i] = g->blocks - 1 - i;
    p->n_free = g->blocks;
}

static void counter_continue(atomic_u64 *counter, const atomic_u64 *old) {
    /* relaxed: single-writer counters for tools */
    atomic_store_relaxed(counter, atomic_load_relaxed(old));
}

void ring_publisher_succeed(struct ring_publisher *p, const struct ring_publisher *old) {
    p->bytes = old->bytes;
    /* Told at once: what a publisher that dies now has published is counted by its last ring.
     * relaxed: as above */
    atomic_store_relaxed(&p->ring->counters.messages, p->messages);
    atomic_store_relaxed(&p->ring->counters.bytes, p->bytes);
    counter_continue(&p->ring->counters.stalls, &old->ring->counters.stalls);
    counter_continue(&p->ring->counters.wakes, &old->ring->counters.wakes);
    counter_continue(&p->ring->counters.reclaims, &old->ring->counters.reclaims);
}

/* Store what others only need roughly: head and counters. Not after each commit: stores elsewhere
 * between the slots keep some cores from fetching the slots' lines from the reader in parallel. */
static void tell(struct ring_publisher *p) {
    p->told = p->head;
    /* SYNC ring.head: a hint for who joins or looks; release pairs with their acquire, so that
     * what lies below it is seen. */
    atomic_store_release(&p->ring->head, p->head);
    /* relaxed: single-writer counters for tools */
    atomic_store_relaxed(&p->ring->counters.messages, p->messages);
    atomic_store_relaxed(&p->ring->counters.bytes, p->bytes);
}

/* ---- reclaim (I3) */

static uint64_t need_of(const struct ring_reader_ref *reader) {
    /* SYNC reader.need: pairs with the release in ring_reader_settle(): the reader is done with
     * everything below, and whatever it still holds of it was pinned before. */
    return atomic_load_acquire(&reader->entry->need);
}

/* The smallest need of a reliable reader that is not evicted; NEED_NONE if there is none. */
static uint64_t least_need(const struct ring_publisher *p) {
    uint64_t least = NEED_NONE;
    for (uint32_t i = 0; i < p->n_readers; i++)
        if (p->readers[i].reliable && !ring_is_evicted(p, i))
            least = min_u64(least, need_of(&p->readers[i]));
    return least;
}

/* The samples that are pinned. After the needs: a joining reader whose pin is not yet seen is
 * still seen by its need (reading pins alone would let it be overwritten: model-checked). */
static void load_pins(struct ring_publisher *p) {
    p->n_pinned = 0;
    for (uint32_t i = 0; i < p->n_readers; i++)
        for (uint32_t k = 0; k < p->readers[i].pins; k++) {
            /* SYNC reader.pins: acquire pairs with the release unpin in ring_release(): its reads
             * of the block are over. A pin that matters was stored before its reader saw low <= s,
             * or before its need; hence before our fence, or before the need that we have seen. */
            uint64_t pin = atomic_load_acquire(reader_pin_view(p->readers[i].entry, k));
            if (pin != 0 && p->n_pinned < p->g.pins)
                p->pinned[p->n_pinned++] = pin - 1;
        }
}

static bool is_pinned(const struct ring_publisher *p, uint64_t sequence) {
    for (uint32_t i = 0; i < p->n_pinned; i++)
        if (p->pinned[i] == sequence)
            return true;
    return false;
}

/* The blocks of samples below limit - depth: free unless pinned, which is looked at later. */
static void set_aside(struct ring_publisher *p) {
    for (; p->freed < p->limit - p->g.depth; p->freed++) {
        uint32_t *owner = &p->owner[p->freed & (p->g.depth - 1)];
        if (*owner != RING_NO_BLOCK)
            p->aside[p->n_aside++] = (struct ring_aside){ p->freed, *owner };
        *owner = RING_NO_BLOCK;
    }
}

/* Look at the pins only when the free blocks do not last until the next reclaim: a look takes
 * from each reader the line that it stores its pins in. Enough come back: no more than P are
 * pinned, and there are depth + P + 1. */
static void free_blocks(struct ring_publisher *p) {
    if (p->n_free > p->limit - p->head)
        return;
    load_pins(p);
    for (uint32_t i = 0; i < p->n_aside;) {
        if (is_pinned(p, p->aside[i].sequence)) {
            i++;
        } else {
            p->free_blocks[p->n_free++] = p->aside[i].block;
            p->aside[i] = p->aside[--p->n_aside];
        }
    }
}

enum ring_reclaim_result ring_reclaim(struct ring_publisher *p, uint32_t n) {
    uint64_t depth = p->g.depth;
    if (unlikely(p->head + n > SEQUENCE_END))
        return RING_USED_UP;

    tell(p); /* before low: low <= head also for who looks from outside (I1) */
    uint64_t low = p->low + p->batch;
    if (p->head + n > depth)
        low = max_u64(low, p->head + n - depth);
    low = min_u64(min_u64(low, p->head), least_need(p));
    if (low > p->low) {
        p->low = low;
        /* SYNC ring.low: the seq_cst fence below orders it before our loads of needs and pins;
         * pairs with the readers' load of low after their own fence or copy (I4). Release: who
         * looks from outside and sees it also sees the head just told (I1). */
        atomic_store_release(&p->ring->low, low);
    }
    /* SYNC ring.low / reader.need / reader.pins: with the seq_cst fence between a reader's store
     * of its need or pin and its load of low: either we see its store, or it sees our low. Also
     * orders low before we write what it frees. */
    fence_seq_cst();
    if (ring_roster_stale(p))
        return RING_STALE;

    uint64_t limit = min_u64(p->low, least_need(p)) + depth;
    if (limit > p->limit) /* never back: the need of one who is just joining may be stale */
        p->limit = min_u64(limit, SEQUENCE_END);
    if (p->g.blocks > 0) {
        set_aside(p);
        free_blocks(p);
    }
    /* relaxed: a single-writer counter for tools */
    atomic_store_relaxed(&p->ring->counters.reclaims,
                         atomic_load_relaxed(&p->ring->counters.reclaims) + 1);

    if (ring_can_claim(p, n))
        return RING_ROOM;
    p->wanted = min_u64(p->head, p->head + max_u64(n, p->batch) - depth);
    return RING_NO_ROOM;
}

/* ---- claim and commit */

void *ring_claim(struct ring_publisher *p, size_t bytes) {
    if (likely(bytes <= p->g.inline_bytes))
        return ring_slot(p->slots, &p->g, p->head)->payload;
    p->loaned = p->free_blocks[--p->n_free];
    return p->blocks + p->loaned * p->g.block_bytes;
}

void ring_unclaim(struct ring_publisher *p) {
    if (p->loaned != RING_NO_BLOCK) {
        p->free_blocks[p->n_free++] = p->loaned;
        p->loaned = RING_NO_BLOCK;
    }
}

void ring_commit(struct ring_publisher *p, size_t bytes, uint64_t tag, uint64_t time_ns) {
    struct slot *slot = ring_slot(p->slots, &p->g, p->head);
    if (unlikely(p->loaned != RING_NO_BLOCK)) {
        if (bytes > p->g.inline_bytes) {
            atomic_store_relaxed(&slot->payload[0], p->loaned); /* relaxed: as below */
            p->owner[p->head & (p->g.depth - 1)] = p->loaned;
            p->loaned = RING_NO_BLOCK;
        } else {
            copy_in_relaxed(slot->payload, p->blocks + p->loaned * p->g.block_bytes, bytes);
            ring_unclaim(p);
        }
    }
    /* relaxed: published by the release store of seq below */
    atomic_store_relaxed(&slot->time_ns, time_ns);
    atomic_store_relaxed(&slot->bytes, bytes);
    atomic_store_relaxed(&slot->tag, tag);
    /* SYNC slot.seq: the commit. Release pairs with the acquire in ring_take(), ring_read() and
     * ring_reader_ready(): whoever sees it also sees the slot and the payload. */
    atomic_store_release(&slot->seq, p->head + 1);
    p->head++;
    p->messages++;
    p->bytes += bytes;
}

void ring_append(struct ring_publisher *p, const void *data, size_t bytes, uint64_t tag,
                 uint64_t time_ns) {
    void *to = ring_claim(p, bytes);
    if (likely(p->loaned == RING_NO_BLOCK))
        copy_in_relaxed(to, data, bytes);
    else
        memcpy(to, data, bytes); /* the block is ours alone until the commit (I2) */
    ring_commit(p, bytes, tag, time_ns);
}

void ring_raise_bell(struct ring_publisher *p) {
    tell(p);
    p->bell++;
    /* SYNC ring.bell: release pairs with the sleeper's acquire load before it arms; the futex call
     * that follows is a full barrier in the kernel. */
    atomic_store_release(&p->ring->bell, p->bell);
    /* relaxed: a counter for tools */
    atomic_store_relaxed(&p->ring->counters.wakes,
                         atomic_load_relaxed(&p->ring->counters.wakes) + 1);
}

bool ring_finish(struct ring_publisher *p) {
    if (unlikely(p->head - p->told >= p->tell_after))
        tell(p);

    /* SYNC readers.armed: the commit must not be passed by the load of armed. A sleeper stores
     * armed, calls membarrier, and only then looks at the slots again; in fence mode our fence
     * pairs with its own. (DESIGN 5, data) */
    if (p->g.mode == RING_BARE)
        compiler_barrier();
    else
        fence_seq_cst();
    bool rung = false;
    for (uint32_t i = 0; i < p->n_groups; i++)
        /* relaxed: ordered as said above */
        rung |= atomic_load_relaxed(p->groups[i].armed) == p->bell;
    if (likely(!rung))
        return false;
    ring_raise_bell(p);
    return true;
}

bool ring_hand_over(struct ring_publisher *p, uint64_t successor) {
    tell(p);
    /* SYNC ring.successor: release pairs with the reader's acquire in ring_reader_successor(): it
     * then sees all that was committed here. */
    atomic_store_release(&p->ring->successor, successor);
    return ring_finish(p);
}

/* ---- waiting for space, eviction */

void ring_set_starved(struct ring_publisher *p, uint64_t need) {
    /* SYNC ring.starved: relaxed, the caller's barrier orders it before its last look at the
     * needs; pairs with the load after the store of need in ring_reader_settle(). */
    atomic_store_relaxed(&p->ring->starved, need);
    if (need != 0) /* relaxed: a counter for tools */
        atomic_store_relaxed(&p->ring->counters.stalls,
                             atomic_load_relaxed(&p->ring->counters.stalls) + 1);
}

static void store_evicted(struct ring_publisher *p, uint16_t bit) {
    /* SYNC ring.evicted: release; ordered before our next look at the pins by the caller's
     * barrier; pairs with the load after the pin in ring_take(). */
    atomic_store_release(&p->ring->evicted[bit / 64], p->evicted[bit / 64]);
}

void ring_evict(struct ring_publisher *p, uint32_t i) {
    uint16_t bit = p->readers[i].bit;
    p->evicted[bit / 64] |= UINT64_C(1) << (bit % 64);
    store_evicted(p, bit);
}

void ring_unevict(struct ring_publisher *p, uint16_t bit) {
    p->evicted[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
    store_evicted(p, bit);
}
