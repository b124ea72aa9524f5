/* layout/ring.h - what lies in a ring segment.
 *
 *     0      identity (128)        WRITER: pubsubd, at format
 *     128    geometry (128)        WRITER: pubsubd, at format; who attaches makes a private copy
 *     256    low                   WRITER of this line and all that follow: the one publisher
 *     384    head
 *     512    bell
 *     640    starved
 *     768    counters
 *     896    evicted (256)         one bit per entry: page ordinal * 64 + cell
 *     1152   successor             serial of the ring that the publisher goes on in, 0: none
 *     4096   slot[depth], slot_bytes each
 *     ...    block[blocks], block_bytes each, at blocks_offset (a multiple of 4096)
 *
 * READERS: all others, read-only. Hot words lie 128 bytes apart, as x86 fetches lines in pairs.
 * Sequence s lives in slot s mod depth. I1: low <= head <= low + depth; both only grow. */
#ifndef SHMPS_LAYOUT_RING_H
#define SHMPS_LAYOUT_RING_H

#include "layout/identity.h"
#include "base/segment.h"

#include <stdbool.h>

#define RING_SLOTS_OFFSET 4096
#define RING_DEPTH_MIN 2u
#define RING_DEPTH_MAX (1u << 20)
#define RING_SLOT_BYTES_MAX 1024u
#define RING_BLOCK_BYTES_MAX (UINT64_C(1) << 34)
#define RING_PINS_MAX (1u << 16)
#define RING_BYTES_MAX (UINT64_C(1) << 42)
#define SLOT_HEADER_BYTES 32
/* Explicit message sizes up to this live in the slot, larger ones in blocks (decision 3). */
#define RING_INLINE_BYTES_MAX 224u
/* The last sequence ever used is below this; need and limit arithmetic can therefore never wrap,
 * and the two values above it can mean "none". A ring that reaches it refuses to publish. */
#define SEQUENCE_END (UINT64_MAX - (UINT64_C(1) << 32))
#define NEED_NONE UINT64_MAX /* reader entry: it does not hold the publisher back */

/* How the publisher looks for sleepers (DESIGN 5); for the ring's whole life. */
enum ring_mode {
    RING_BARE = 1,  /* a compiler barrier: who goes to sleep calls membarrier */
    RING_FENCE = 2, /* a seq_cst fence: who goes to sleep needs one of his own only */
};

struct ring_geometry {
    uint32_t depth;          /* slots, a power of two, RING_DEPTH_MIN .. RING_DEPTH_MAX */
    uint32_t slot_bytes;     /* 64 * k */
    uint32_t inline_bytes;   /* slot_bytes - 32: payloads up to this lie in the slot */
    uint32_t blocks;         /* depth + pins + 1; 0 if every message fits inline */
    uint64_t block_bytes;    /* a multiple of 64 (of 4096 from there on), or 0 */
    uint64_t blocks_offset;  /* from the segment's start, or 0 */
    uint64_t message_bytes;  /* the largest message: what was asked for */
    uint64_t start;          /* the first sequence */
    uint32_t pins;           /* P: pins granted over all readers may not exceed this */
    uint32_t mode;           /* enum ring_mode */
    uint32_t topic;          /* index of the directory's topic record */
    uint32_t record;         /* index of the directory's ring record */
    uint64_t publisher;      /* shmps_sample.publisher: serial of the publisher's first ring */
    uint32_t flags;          /* RING_TIMESTAMPS, RING_EXPLICIT_SIZE */
    uint32_t reserved0;
    uint64_t reserved[6];    /* zero */
};
_Static_assert(sizeof(struct ring_geometry) == 128, "geometry is two lines");
_Static_assert(offsetof(struct ring_geometry, reserved) == 80, "no hidden padding in geometry");
#define RING_TIMESTAMPS UINT32_C(1)
#define RING_EXPLICIT_SIZE UINT32_C(2)

struct ring_header {
    struct identity identity;
    struct ring_geometry geometry;

    _Alignas(128) atomic_u64 low;     /* sequences below it must not be read any more */
    _Alignas(128) atomic_u64 head;    /* next sequence, stored after the commit: a hint */
    _Alignas(128) atomic_u64 bell;    /* starts at 1; +1 before a wake; low half: futex word */
    _Alignas(128) atomic_u64 starved; /* the need that a sleeping publisher waits for, 0: none */
    _Alignas(128) struct {            /* for tools: plain, of a single writer, relaxed */
        atomic_u64 messages;
        atomic_u64 bytes;
        atomic_u64 stalls;            /* times that it slept for want of room */
        atomic_u64 wakes;             /* FUTEX_WAKE calls on the bell */
        atomic_u64 reclaims;
        atomic_u64 reserved[11];
    } counters;
    _Alignas(128) atomic_u64 evicted[32];
    _Alignas(128) atomic_u64 successor; /* stored after the last commit */
};
_Static_assert(offsetof(struct ring_header, geometry) == 128, "geometry at 128");
_Static_assert(offsetof(struct ring_header, low) == 256, "low at 256");
_Static_assert(offsetof(struct ring_header, head) == 384, "head at 384");
_Static_assert(offsetof(struct ring_header, bell) == 512, "bell at 512");
_Static_assert(offsetof(struct ring_header, starved) == 640, "starved at 640");
_Static_assert(offsetof(struct ring_header, counters) == 768, "counters at 768");
_Static_assert(offsetof(struct ring_header, evicted) == 896, "evicted at 896");
_Static_assert(offsetof(struct ring_header, successor) == 1152, "successor at 1152");
_Static_assert(sizeof(struct ring_header) <= RING_SLOTS_OFFSET, "the slots follow the header");

struct slot {
    atomic_u64 seq;        /* s + 1: sample s is committed. Stored last, with release */
    atomic_u64 time_ns;    /* CLOCK_MONOTONIC of the commit, 0 without timestamps */
    atomic_u64 bytes;      /* of the message; <= inline_bytes: in `payload`, else in a block */
    atomic_u64 tag;
    atomic_u64 payload[];  /* inline bytes, or payload[0] = index of the block */
};
_Static_assert(sizeof(struct slot) == SLOT_HEADER_BYTES, "slot header is half a line");
_Static_assert(offsetof(struct slot, payload) == SLOT_HEADER_BYTES, "payload follows");

static inline struct slot *ring_slot(const void *slots, const struct ring_geometry *g,
                                     uint64_t sequence) {
    return (struct slot *)((char *)slots + (sequence & (g->depth - 1)) * (size_t)g->slot_bytes);
}

/* Samples reclaimed at a time: depth / 8, at least 1. */
static inline uint32_t ring_batch(uint32_t depth) {
    return depth >= 8 ? depth / 8 : 1;
}

/* What a publisher asks for -> a full geometry and the segment's size. message_bytes 0: not set
 * explicitly (4096 then). `pins`: P, already decided. INVALID or SIZE for what exceeds a limit
 * above; nothing overflows. */
int ring_geometry_make(struct ring_geometry *ret, uint64_t *ret_segment_bytes, uint64_t depth,
                       uint64_t message_bytes, uint64_t pins);

/* Is this geometry one that ring_geometry_make() could have made, and does it fit `segment_bytes`?
 * CORRUPT if not. To be called on a private copy. */
int ring_geometry_check(const struct ring_geometry *g, uint64_t segment_bytes);

/* Format a zeroed, allocated segment: geometry, bell = 1, low = head = geometry->start, slots
 * marked empty. The identity is formatted by the caller before, and published by the caller
 * after. */
void ring_format(struct ring_header *ring, const struct ring_geometry *g);

/* identity_check, then copy the geometry out once and check the copy. */
int ring_attach_check(const struct ring_header *ring, uint64_t mapped_bytes,
                      struct ring_geometry *ret);

/* The sequence after the last committed sample: walks on from `head` while slots are committed, at
 * most depth steps. For whoever looks from outside (joins, drains, retires). g: the private copy.
 * Always in [g->start, SEQUENCE_END], whatever the publisher stored. */
uint64_t ring_committed_end(const struct ring_header *ring, const struct ring_geometry *g);

/* Messages and bytes published up to `end` (ring_committed_end): the publisher's counters, which
 * it stores now and then only, and what was committed since. Of a publisher that grew: over all of
 * its rings. Figures for people, not to be relied on. */
void ring_count(const struct ring_header *ring, const struct ring_geometry *g, uint64_t end,
                uint64_t *ret_messages, uint64_t *ret_bytes);

/* Walk the whole structure: I1, every slot in [low, head) committed with its own sequence, sizes
 * and block indices in range, no block owned twice. Only while the publisher does not run. CORRUPT
 * with the first violation. */
int ring_check(const struct ring_header *ring, uint64_t mapped_bytes);

#endif
