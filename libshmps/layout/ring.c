#include "layout/ring.h"

#include "base/error.h"
#include "base/scope.h"

#include <inttypes.h>

#define PAGE UINT64_C(4096)
#define DEFAULT_MESSAGE_BYTES UINT64_C(4096)
#define DEFAULT_DEPTH 64u
#define DEFAULT_DEPTH_LARGE 8u
#define LARGE_MESSAGE_BYTES (UINT64_C(1) << 20)

/* ---- geometry */

/* unit: a power of two; value: far from the end of 64 bits, as the limits of ring.h are checked
 * first */
static uint64_t round_up(uint64_t value, uint64_t unit) {
    return (value + unit - 1) & ~(unit - 1);
}

static uint32_t power_of_two(uint64_t depth) {
    uint32_t power = RING_DEPTH_MIN;
    while (power < depth) {
        power *= 2;
    }
    return power;
}

/* Slots that hold every message themselves, or one-line slots and blocks. */
static void choose_slots(struct ring_geometry *g) {
    if (g->message_bytes <= RING_INLINE_BYTES_MAX) {
        g->slot_bytes = (uint32_t)round_up(SLOT_HEADER_BYTES + g->message_bytes, CACHE_LINE);
    } else {
        g->slot_bytes = CACHE_LINE;
        g->blocks = g->depth + g->pins + 1;
        g->block_bytes = round_up(g->message_bytes, g->message_bytes < PAGE ? CACHE_LINE : PAGE);
    }
    g->inline_bytes = g->slot_bytes - SLOT_HEADER_BYTES;
}

/* Offset of the blocks and size of the segment. False if 64 bits or RING_BYTES_MAX are
 * exceeded. */
static bool choose_places(struct ring_geometry *g, uint64_t *ret_bytes) {
    uint64_t slots, end, blocks;

    if (__builtin_mul_overflow((uint64_t)g->depth, g->slot_bytes, &slots) ||
        __builtin_add_overflow(slots, RING_SLOTS_OFFSET + PAGE - 1, &end) ||
        __builtin_mul_overflow((uint64_t)g->blocks, g->block_bytes, &blocks)) {
        return false;
    }
    end &= ~(PAGE - 1);
    g->blocks_offset = g->blocks > 0 ? end : 0;
    if (__builtin_add_overflow(end, blocks, &end) || __builtin_add_overflow(end, PAGE - 1, &end)) {
        return false;
    }
    *ret_bytes = end & ~(PAGE - 1);
    return *ret_bytes <= RING_BYTES_MAX;
}

int ring_geometry_make(struct ring_geometry *ret, uint64_t *ret_segment_bytes, uint64_t depth,
                       uint64_t message_bytes, uint64_t pins) {
    struct ring_geometry g = { 0 };
    uint64_t bytes;

    g.message_bytes = message_bytes > 0 ? message_bytes : DEFAULT_MESSAGE_BYTES;
    if (g.message_bytes > RING_BLOCK_BYTES_MAX) {
        return error_raise(SHMPS_E_SIZE,
                           "a message of %" PRIu64 " bytes is larger than any may be (%" PRIu64
                           "): send it in parts",
                           message_bytes, RING_BLOCK_BYTES_MAX);
    }
    if (depth > RING_DEPTH_MAX) {
        return error_raise(SHMPS_E_INVALID,
                           "a depth of %" PRIu64 " slots is more than a ring can have (%u)", depth,
                           RING_DEPTH_MAX);
    }
    if (pins > RING_PINS_MAX) {
        return error_raise(SHMPS_E_INVALID, "%" PRIu64 " pins are more than a ring can have (%u)",
                           pins, RING_PINS_MAX);
    }
    if (depth == 0) {
        depth = g.message_bytes >= LARGE_MESSAGE_BYTES ? DEFAULT_DEPTH_LARGE : DEFAULT_DEPTH;
    }
    g.depth = power_of_two(depth);
    g.pins = (uint32_t)pins;
    choose_slots(&g);
    if (!choose_places(&g, &bytes)) {
        return error_raise(SHMPS_E_INVALID,
                           "a ring of %" PRIu32 " slots and %" PRIu32 " blocks of %" PRIu64
                           " bytes exceeds the largest segment (%" PRIu64 " bytes): ask for less "
                           "depth, pins or message_bytes",
                           g.depth, g.blocks, g.block_bytes, RING_BYTES_MAX);
    }
    *ret = g;
    *ret_segment_bytes = bytes;
    return 0;
}

static int corrupt_geometry(const char *what, uint64_t value) {
    return error_raise(SHMPS_E_CORRUPT,
                       "%s %" PRIu64 " of a ring's geometry is none that pubsubd makes: the ring "
                       "is damaged, and not used",
                       what, value);
}

int ring_geometry_check(const struct ring_geometry *g, uint64_t segment_bytes) {
    static const uint64_t zero[ARRAY_LENGTH(g->reserved)];
    struct ring_geometry made;
    uint64_t bytes;

    if (g->message_bytes == 0) {
        return corrupt_geometry("message_bytes", 0);
    }
    if (ring_geometry_make(&made, &bytes, g->depth, g->message_bytes, g->pins) < 0) {
        return error_context(SHMPS_E_CORRUPT,
                             "a ring's geometry is damaged, and the ring not used");
    }
    if (g->depth != made.depth) {
        return corrupt_geometry("depth", g->depth);
    }
    if (g->slot_bytes != made.slot_bytes || g->inline_bytes != made.inline_bytes) {
        return corrupt_geometry("slot_bytes", g->slot_bytes);
    }
    if (g->blocks != made.blocks || g->block_bytes != made.block_bytes) {
        return corrupt_geometry("blocks or block_bytes", g->block_bytes);
    }
    if (g->blocks_offset != made.blocks_offset) {
        return corrupt_geometry("blocks_offset", g->blocks_offset);
    }
    if (bytes != segment_bytes) {
        return error_raise(SHMPS_E_CORRUPT,
                           "a ring's geometry needs %" PRIu64 " bytes, its segment has %" PRIu64
                           ": it is not used",
                           bytes, segment_bytes);
    }
    if (g->start > SEQUENCE_END) {
        return corrupt_geometry("start", g->start);
    }
    if (g->mode != RING_BARE && g->mode != RING_FENCE) {
        return corrupt_geometry("mode", g->mode);
    }
    if ((g->flags & ~(RING_TIMESTAMPS | RING_EXPLICIT_SIZE)) != 0) {
        return corrupt_geometry("flags", g->flags);
    }
    if (g->reserved0 != 0 || memcmp(g->reserved, zero, sizeof(zero)) != 0) {
        return corrupt_geometry("reserved", 1);
    }
    return 0;
}

/* ---- format and attach */

void ring_format(struct ring_header *ring, const struct ring_geometry *g) {
    ring->geometry = *g;
    /* relaxed, all of them: whoever attaches has seen the magic, which is published later. A
     * zeroed slot is an empty one: seq would be s + 1 of no sequence below SEQUENCE_END. */
    atomic_store_relaxed(&ring->low, g->start);
    atomic_store_relaxed(&ring->head, g->start);
    atomic_store_relaxed(&ring->bell, 1);
    atomic_store_relaxed(&ring->starved, 0);
}

int ring_attach_check(const struct ring_header *ring, uint64_t mapped_bytes,
                      struct ring_geometry *ret) {
    struct ring_geometry g;

    int r = identity_check(&ring->identity, MAGIC_RING, mapped_bytes);
    if (r < 0) {
        return r;
    }
    if (mapped_bytes < RING_SLOTS_OFFSET) {
        return error_raise(SHMPS_E_CORRUPT,
                           "a ring of %" PRIu64 " bytes has no room for its header: it is not "
                           "used",
                           mapped_bytes);
    }
    copy_out_relaxed(&g, &ring->geometry, sizeof(g));
    r = ring_geometry_check(&g, mapped_bytes);
    if (r < 0) {
        return r;
    }
    *ret = g;
    return 0;
}

uint64_t ring_committed_end(const struct ring_header *ring, const struct ring_geometry *g) {
    const char *slots = (const char *)ring + RING_SLOTS_OFFSET;

    /* SYNC ring.head: acquire pairs with the release in ring_finish(): samples below it are seen
     * committed. */
    uint64_t end = atomic_load_acquire(&ring->head);
    /* What a broken publisher stored must not become the start of a successor, or a reader's
     * position, beyond all others. */
    end = min_u64(max_u64(end, g->start), SEQUENCE_END);
    for (uint32_t i = 0; i < g->depth && end < SEQUENCE_END; i++) {
        /* SYNC slot.seq: acquire pairs with the release in ring_commit(). */
        if (atomic_load_acquire(&ring_slot(slots, g, end)->seq) != end + 1) {
            break;
        }
        end++;
    }
    return end;
}

void ring_count(const struct ring_header *ring, const struct ring_geometry *g, uint64_t end,
                uint64_t *ret_messages, uint64_t *ret_bytes) {
    const char *slots = (const char *)ring + RING_SLOTS_OFFSET;

    /* relaxed, all of them: figures. A publisher counts messages from its ring's start on, so that
     * the counter is also the sequence up to which it has counted. */
    *ret_messages = atomic_load_relaxed(&ring->counters.messages);
    *ret_bytes = atomic_load_relaxed(&ring->counters.bytes);
    if (*ret_messages < g->start || end - *ret_messages > g->depth) {
        return; /* overtaken while we looked, or not yet counted at all */
    }
    for (; *ret_messages < end; ++*ret_messages) {
        *ret_bytes += atomic_load_relaxed(&ring_slot(slots, g, *ret_messages)->bytes);
    }
}

/* ---- the walk */

static int broken(const char *what, uint64_t sequence, uint64_t value) {
    return error_raise(SHMPS_E_CORRUPT, "ring: sample %" PRIu64 ": %s %" PRIu64, sequence, what,
                       value);
}

static int check_slot(const struct slot *slot, const struct ring_geometry *g, uint64_t sequence) {
    /* relaxed, all of them: the publisher does not run */
    uint64_t seq = atomic_load_relaxed(&slot->seq);
    uint64_t bytes = atomic_load_relaxed(&slot->bytes);
    if (seq != sequence + 1) {
        return broken("not committed: its slot has seq", sequence, seq);
    }
    if (bytes > g->message_bytes) {
        return broken("too large: bytes", sequence, bytes);
    }
    if (bytes > g->inline_bytes) {
        uint64_t block = atomic_load_relaxed(&slot->payload[0]); /* relaxed: as above */
        if (block >= g->blocks) {
            return broken("no such block", sequence, block);
        }
    }
    return 0;
}

/* No block twice: with a bitmap for a window of the blocks, and a pass over the samples for each
 * window, as this room allocates nothing. */
#define WINDOW_BLOCKS 65536u

static int check_owners(const struct ring_header *ring, const struct ring_geometry *g,
                        uint64_t low, uint64_t end) {
    const char *slots = (const char *)ring + RING_SLOTS_OFFSET;

    for (uint32_t first = 0; first < g->blocks; first += WINDOW_BLOCKS) {
        uint64_t owned[WINDOW_BLOCKS / 64] = { 0 };
        for (uint64_t s = low; s < end; s++) {
            const struct slot *slot = ring_slot(slots, g, s);
            /* relaxed: the publisher does not run */
            if (atomic_load_relaxed(&slot->bytes) <= g->inline_bytes) {
                continue;
            }
            /* relaxed: as above; below `first` it wraps */
            uint64_t block = atomic_load_relaxed(&slot->payload[0]) - first;
            if (block >= WINDOW_BLOCKS) {
                continue;
            }
            if ((owned[block / 64] >> (block % 64) & 1) != 0) {
                return broken("owns what an older one owns, block", s, block + first);
            }
            owned[block / 64] |= UINT64_C(1) << (block % 64);
        }
    }
    return 0;
}

int ring_check(const struct ring_header *ring, uint64_t mapped_bytes) {
    const char *slots = (const char *)ring + RING_SLOTS_OFFSET;
    struct ring_geometry g;

    int r = ring_attach_check(ring, mapped_bytes, &g);
    if (r < 0) {
        return r;
    }
    /* relaxed: the publisher does not run */
    uint64_t low = atomic_load_relaxed(&ring->low);
    uint64_t head = atomic_load_relaxed(&ring->head);
    /* A publisher may have been killed between commit and head. */
    uint64_t end = ring_committed_end(ring, &g);
    if (low < g.start || low > head || head > SEQUENCE_END || end - low > g.depth) {
        return error_raise(SHMPS_E_CORRUPT,
                           "ring: I1 does not hold: start %" PRIu64 ", low %" PRIu64 ", head %"
                           PRIu64 ", committed up to %" PRIu64 ", depth %" PRIu32,
                           g.start, low, head, end, g.depth);
    }
    for (uint64_t s = low; s < end; s++) {
        r = check_slot(ring_slot(slots, &g, s), &g, s);
        if (r < 0) {
            return r;
        }
    }
    return check_owners(ring, &g, low, end);
}
