#include "ring/reader.h"
#include "base/scope.h"

void ring_reader_init(struct ring_reader *r, const struct ring_header *ring,
                      const struct ring_geometry *g, struct reader_entry *entry,
                      enum policy policy, uint32_t pins, uint16_t bit, bool fence) {
    *r = (struct ring_reader){
        .g = *g,
        .entry = entry,
        .next = g->start,
        .need = NEED_NONE,
        .bit = bit,
        .policy = (uint8_t)policy,
        .pins = (uint8_t)(entry ? min_u64(pins, READER_PINS_MAX) : 0),
        .fence = fence,
    };
    ring_reader_moved(r, ring);
}

void ring_reader_moved(struct ring_reader *r, const struct ring_header *ring) {
    r->ring = ring;
    r->slots = (const char *)ring + RING_SLOTS_OFFSET;
    r->blocks = (const char *)ring + r->g.blocks_offset;
}

static bool holds_publisher_back(const struct ring_reader *r) {
    return r->policy == POLICY_RELIABLE && !r->evicted;
}

/* SYNC reader.need / ring.starved: the reader's running side of DESIGN 5, space: its store must
 * not be passed by its load. */
static void settle_barrier(const struct ring_reader *r) {
    if (r->fence || r->g.mode == RING_FENCE) /* its publisher does not call membarrier either */
        fence_seq_cst();
    else
        compiler_barrier();
}

static uint64_t load_low(const struct ring_reader *r) {
    /* SYNC ring.low: pairs with the store before the seq_cst fence in ring_reclaim(). Below it,
     * everything may already be overwritten. */
    return atomic_load_acquire(&r->ring->low);
}

/* Store need; true: a starved publisher waits for a need that lies in (old, need]. */
static bool store_need(struct ring_reader *r, uint64_t need) {
    uint64_t old = r->need;
    r->need = need;
    /* SYNC reader.need: release pairs with the acquire in need_of(): our reads of all below it are
     * over, our pins stored. */
    atomic_store_release(&r->entry->need, need);
    if (!holds_publisher_back(r))
        return false;
    settle_barrier(r);
    /* SYNC ring.starved: relaxed, ordered after the store of need by the barrier above; pairs with
     * ring_set_starved() and the publisher's membarrier. */
    uint64_t starved = atomic_load_relaxed(&r->ring->starved);
    return starved != 0 && old < starved && starved <= need;
}

void ring_reader_begin(struct ring_reader *r, uint64_t start) {
    r->next = start;
    r->need = start;
    if (r->entry && !holds_publisher_back(r))
        store_need(r, start);
}

uint64_t ring_reader_join(struct ring_reader *r, uint64_t want) {
    r->next = max_u64(want, load_low(r));
    if (!r->entry)
        return r->next;
    if (!holds_publisher_back(r)) {
        store_need(r, r->next);
        return r->next;
    }
    /* What pubsubd has stored for us, unless it is "none": the publisher may be waiting for more.
     * relaxed: our own entry, which pubsubd wrote before it told us of it */
    r->need = min_u64(atomic_load_relaxed(&r->entry->need), r->next);
    for (;;) {
        r->wake |= store_need(r, r->next);
        /* SYNC reader.need / ring.low: with the fence in ring_reclaim(): either the publisher sees
         * our need when it looks again after its fence, or we see the low that it stored before.
         */
        fence_seq_cst();
        uint64_t low = load_low(r);
        if (low <= r->next)
            return r->next;
        r->next = low;
    }
}

/* The slot of `next` holds a later lap, or low has passed it: all of [next, low) is lost. */
static enum ring_take_result overrun(struct ring_reader *r, struct ring_sample *ret) {
    uint64_t low = load_low(r);
    if (low <= r->next || low > SEQUENCE_END)
        return RING_BROKEN;
    if (holds_publisher_back(r)) {
        /* SYNC ring.evicted: acquire pairs with store_evicted(), which came before the overwriting
         * that we have seen. */
        uint64_t bits = atomic_load_acquire(&r->ring->evicted[r->bit / 64]);
        if (!(bits >> (r->bit % 64) & 1))
            return RING_BROKEN; /* it passed a reliable reader without having evicted it */
        r->evicted = true;
    }
    *ret = (struct ring_sample){ .sequence = r->next, .lost = low - r->next };
    r->next = low;
    return RING_OVERRUN;
}

/* Metadata of the slot, each word once. Only to be believed after a later check of low. */
static void load_meta(const struct slot *slot, uint64_t sequence, struct ring_sample *ret) {
    /* relaxed: after the acquire load of seq, before the acquire fence that precedes the check of
     * low */
    ret->sequence = sequence;
    ret->time_ns = atomic_load_relaxed(&slot->time_ns);
    ret->tag = atomic_load_relaxed(&slot->tag);
    ret->lost = 0;
    ret->block = NULL;
}

/* I4 c: what was copied is whole if low has not passed the sample meanwhile. Or I4 a: low may pass
 * a need that a publisher with an old roster has not seen, but nothing is written there: after its
 * fence it finds that the roster has changed. Unless it has evicted us. */
static bool is_whole(const struct ring_reader *r, uint64_t sequence) {
    fence_acquire(); /* SYNC ring.low: orders the copies before this look at low; pairs with the
                      * fence in ring_reclaim() */
    if (likely(load_low(r) <= sequence))
        return true;
    if (!holds_publisher_back(r) || sequence < r->need)
        return false;
    /* SYNC ring.evicted: acquire pairs with store_evicted(), which comes before the
     * overwriting. */
    uint64_t bits = atomic_load_acquire(&r->ring->evicted[r->bit / 64]);
    return !(bits >> (r->bit % 64) & 1);
}

static bool still_there(const struct ring_reader *r) {
    return is_whole(r, r->next);
}

/* 0: committed; else what to return. */
static enum ring_take_result look(struct ring_reader *r, const struct slot *slot,
                                  struct ring_sample *ret) {
    /* SYNC slot.seq: acquire pairs with the release in ring_commit(). */
    uint64_t seq = atomic_load_acquire(&slot->seq);
    if (likely(seq == r->next + 1))
        return RING_TAKEN;
    return seq <= r->next ? RING_NOTHING : overrun(r, ret);
}

static uint64_t load_block(const struct slot *slot) {
    return atomic_load_relaxed(&slot->payload[0]); /* relaxed: as in load_meta() */
}

static bool block_valid(const struct ring_reader *r, uint64_t block, uint64_t bytes) {
    return block < r->g.blocks && bytes <= r->g.block_bytes;
}

static void unpin(struct ring_reader *r, uint32_t pin) {
    r->held &= ~(UINT64_C(1) << pin);
    /* SYNC reader.pins: release pairs with the acquire in load_pins(): our reads of the block are
     * over. */
    atomic_store_release(reader_pin(r->entry, pin), 0);
}

/* A reliable reader: need <= s protects the sample; the pin is for the time after need has moved
 * on. A plain store; if the eviction bit is still clear after it, a publisher that evicts us from
 * now on will see the pin (its membarrier). */
static bool pin_reliable(struct ring_reader *r, const struct slot *slot, uint32_t pin,
                         struct ring_sample *ret, uint64_t *block) {
    /* SYNC reader.pins: relaxed, published by the release store of need; against eviction by the
     * barrier below */
    atomic_store_relaxed(reader_pin(r->entry, pin), r->next + 1);
    load_meta(slot, r->next, ret);
    *block = load_block(slot);
    settle_barrier(r);
    /* SYNC ring.evicted: relaxed, ordered after the pin by the barrier above; pairs with
     * store_evicted() + membarrier. */
    uint64_t bits = atomic_load_relaxed(&r->ring->evicted[r->bit / 64]);
    if (likely(!(bits >> (r->bit % 64) & 1)))
        return true;
    r->evicted = true; /* from now on a lossy reader */
    return false;
}

/* I4 b: pin, fence, copy the slot, check low. The index is taken before the check: after it, it
 * may be another sample's. */
static bool pin_lossy(struct ring_reader *r, const struct slot *slot, uint32_t pin,
                      struct ring_sample *ret, uint64_t *block) {
    /* SYNC reader.pins: relaxed, the fence orders it before the look at low */
    atomic_store_relaxed(reader_pin(r->entry, pin), r->next + 1);
    /* SYNC reader.pins / ring.low: with the fence in ring_reclaim(): either its look at the pins
     * sees ours, or we see its low. */
    fence_seq_cst();
    load_meta(slot, r->next, ret);
    *block = load_block(slot);
    return still_there(r);
}

static enum ring_take_result take_block(struct ring_reader *r, const struct slot *slot,
                                        struct ring_sample *ret) {
    uint64_t free_pins = ~r->held & (r->pins < 64 ? (UINT64_C(1) << r->pins) - 1 : UINT64_MAX);
    if (free_pins == 0)
        return RING_NO_PIN;
    uint32_t pin = (uint32_t)__builtin_ctzll(free_pins);
    uint64_t block;
    bool safe = holds_publisher_back(r) && pin_reliable(r, slot, pin, ret, &block);
    if (!safe && !pin_lossy(r, slot, pin, ret, &block)) {
        unpin(r, pin);
        return overrun(r, ret);
    }
    if (!block_valid(r, block, ret->bytes)) {
        unpin(r, pin);
        return RING_BROKEN;
    }
    r->held |= UINT64_C(1) << pin;
    ret->pin = pin;
    ret->block = r->blocks + block * r->g.block_bytes;
    r->next++;
    return RING_TAKEN;
}

enum ring_take_result ring_take(struct ring_reader *r, void *buffer, struct ring_sample *ret) {
    const struct slot *slot = ring_slot(r->slots, &r->g, r->next);
    enum ring_take_result found = look(r, slot, ret);
    if (found != RING_TAKEN)
        return found;
    /* relaxed: believed only after the check of low that every way below makes */
    ret->bytes = atomic_load_relaxed(&slot->bytes);
    if (unlikely(ret->bytes > r->g.inline_bytes))
        return take_block(r, slot, ret);
    load_meta(slot, r->next, ret);
    copy_out_relaxed(buffer, slot->payload, ret->bytes);
    if (unlikely(!still_there(r)))
        return overrun(r, ret);
    r->next++;
    return RING_TAKEN;
}

enum ring_take_result ring_read(struct ring_reader *r, void *buffer, size_t room,
                                struct ring_sample *ret) {
    const struct slot *slot = ring_slot(r->slots, &r->g, r->next);
    enum ring_take_result found = look(r, slot, ret);
    if (found != RING_TAKEN)
        return found;
    /* relaxed: believed only after the check of low below */
    ret->bytes = atomic_load_relaxed(&slot->bytes);
    load_meta(slot, r->next, ret);
    const void *from = slot->payload;
    bool valid = true;
    if (ret->bytes > r->g.inline_bytes) {
        uint64_t block = load_block(slot);
        valid = block_valid(r, block, ret->bytes);
        from = valid ? r->blocks + block * r->g.block_bytes : NULL;
    }
    bool fits = valid && ret->bytes <= room;
    if (likely(fits))
        copy_out_relaxed(buffer, from, ret->bytes);
    if (unlikely(!still_there(r)))
        return overrun(r, ret);
    if (unlikely(!valid))
        return RING_BROKEN;
    if (unlikely(!fits))
        return RING_NO_PIN;
    r->next++;
    return RING_TAKEN;
}

enum ring_take_result ring_skip_to_latest(struct ring_reader *r) {
    /* SYNC ring.head: acquire pairs with the release in ring_finish(); a hint, we walk on while
     * slots are committed. */
    uint64_t end = max_u64(atomic_load_acquire(&r->ring->head), r->next);
    if (end > SEQUENCE_END)
        return RING_BROKEN;
    for (uint32_t i = 0; i < r->g.depth; i++, end++) {
        /* SYNC slot.seq: acquire pairs with the release in ring_commit(). */
        uint64_t seq = atomic_load_acquire(&ring_slot(r->slots, &r->g, end)->seq);
        if (seq != end + 1)
            break;
    }
    if (end == r->next)
        return ring_reader_ready(r) ? RING_TAKEN
                                    : RING_NOTHING; /* ready: lapped, taking finds out */
    r->next = end - 1;
    return RING_TAKEN;
}

void ring_release(struct ring_reader *r, uint32_t pin) {
    if (pin < READER_PINS_MAX && (r->held >> pin & 1))
        unpin(r, pin);
}

bool ring_reader_settle(struct ring_reader *r) {
    bool wake = r->wake;
    r->wake = false;
    if (r->entry && r->need != r->next)
        wake |= store_need(r, r->next);
    return wake;
}

bool ring_reader_leave(struct ring_reader *r) {
    if (!r->entry)
        return false;
    while (r->held != 0)
        unpin(r, (uint32_t)__builtin_ctzll(r->held));
    return store_need(r, NEED_NONE) || r->wake;
}

bool ring_sample_time(const struct ring_reader *r, uint64_t sequence, uint64_t *ret) {
    const struct slot *slot = ring_slot(r->slots, &r->g, sequence);
    /* SYNC slot.seq: acquire pairs with the release in ring_commit(). */
    if (atomic_load_acquire(&slot->seq) != sequence + 1)
        return false;
    *ret = atomic_load_relaxed(&slot->time_ns); /* relaxed: checked by low below */
    return is_whole(r, sequence);
}
