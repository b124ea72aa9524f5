/* ring/publisher.h - the publisher's side of a ring: claim, commit, reclaim. No system calls, no
 * allocation.
 *
 * The caller (client/) maps memory, keeps the roster up to date, sleeps and wakes. State is
 * private to one thread.
 *
 *     while (!ring_can_claim(p, 1))
 *         refresh the roster if it is stale; ring_reclaim(p, 1); or sleep on space
 *     write into ring_claim(p, bytes)
 *     if (ring_commit(p, bytes, tag, time)) wake the bell
 *
 * I1  low <= head <= limit <= low + depth; all only grow.
 * I2  slot(s) is written only when head <= s < limit; a block only when no sample in [limit -
 *     depth, head) owns it and no pin holds it.
 * I3  ring_reclaim(). */
#ifndef SHMPS_RING_PUBLISHER_H
#define SHMPS_RING_PUBLISHER_H

#include "layout/ring.h"
#include "layout/readers.h"

#include <stdbool.h>

/* A reader as the roster says. Refreshed by the caller whenever the topic's generation has
 * changed. */
struct ring_reader_ref {
    const struct reader_entry *entry; /* untrusted */
    uint8_t reliable;                 /* its need counts */
    uint8_t pins;                     /* granted: words beyond are ignored */
    uint16_t bit;                     /* ordinal * 64 + cell */
};

/* A trust group: where its sleepers arm. */
struct ring_group_ref {
    const atomic_u64 *armed;
};

struct ring_aside { /* a block of a sample below limit - depth, pinned or not yet looked at */
    uint64_t sequence; /* of the sample that owned the block */
    uint32_t block;
};

#define RING_NO_BLOCK UINT32_MAX
#define RING_TELL_MAX 8u /* head and counters may be so many samples behind: who looks walks on */

struct ring_publisher {
    /* touched by every publish */
    uint64_t head;
    uint64_t limit;
    uint64_t bell;                  /* private copy of what we stored */
    uint64_t messages, bytes;       /* private copies of the counters */
    uint64_t told;                  /* the head last stored for others to see, */
    uint64_t tell_after;            /* and how far they may be behind */
    const atomic_u32 *generation;   /* of the topic, in the directory */
    uint32_t generation_seen;       /* set by the caller when it refreshes */
    uint32_t n_groups;
    const struct ring_group_ref *groups;
    struct ring_header *ring;
    char *slots;
    char *blocks;
    struct ring_geometry g;         /* private copy */

    /* touched by reclaim */
    uint64_t low;
    uint64_t freed;                 /* blocks of samples below this were set aside, or are free:
                                       limit - depth */
    uint32_t batch;
    const struct ring_reader_ref *readers;
    uint32_t n_readers;
    uint64_t wanted;                /* after a reclaim without room: the need that would make
                                       room */

    /* blocks: private memory given by the caller */
    uint32_t *owner;                /* [depth]: block of the sample in this slot, or
                                       RING_NO_BLOCK */
    uint32_t *free_blocks;          /* [blocks]: a stack */
    uint32_t n_free;
    struct ring_aside *aside;       /* [blocks] */
    uint32_t n_aside;
    uint64_t *pinned;               /* [pins]: the samples found pinned at the last look */
    uint32_t n_pinned;
    uint32_t loaned;                /* the block of the open claim, or RING_NO_BLOCK */
    uint64_t evicted[32];           /* private copy of the bits that we set */
};

/* Bytes of private memory that ring_publisher_init() needs for owner, free_blocks, aside and
 * pinned. */
size_t ring_publisher_memory(const struct ring_geometry *g);

/* Start publishing into a freshly formatted ring (head == low == start). `memory`:
 * ring_publisher_memory() bytes, 8-byte aligned, zeroed. The roster is empty until the caller sets
 * readers, groups and generation_seen. */
void ring_publisher_init(struct ring_publisher *p, struct ring_header *ring,
                         const struct ring_geometry *g,
                         const atomic_u32 *generation, void *memory);

/* A publisher that grew counts on: `old` is its previous ring. Messages count on by themselves, as
 * sequences do. Before the first claim. */
void ring_publisher_succeed(struct ring_publisher *p, const struct ring_publisher *old);

/* The topic's generation is not the one the roster was read at: refresh it before going on. */
static inline bool ring_roster_stale(const struct ring_publisher *p) {
    /* SYNC topic.generation: pairs with pubsubd's release increment; whoever sees it also sees the
       roster. */
    return atomic_load_acquire(p->generation) != p->generation_seen;
}

/* Room for n samples now? Says nothing about the roster. */
static inline bool ring_can_claim(const struct ring_publisher *p, uint32_t n) {
    return p->limit - p->head >= n;
}

enum ring_reclaim_result {
    RING_ROOM = 0,    /* there is room for n */
    RING_NO_ROOM = 1, /* reliable readers hold it back; p->wanted says what their need has to be */
    RING_STALE = 2,   /* the generation moved: refresh the roster, then call again */
    RING_USED_UP = 3, /* SEQUENCE_END is reached */
};
/* I3: make room for n samples (1 <= n <= depth), moving low by a batch at least. */
enum ring_reclaim_result ring_reclaim(struct ring_publisher *p, uint32_t n);

/* Begin the next sample (there is room): where to write a payload of up to `bytes` (<=
 * message_bytes) bytes: in its slot if bytes <= inline_bytes, else in a free block, of which there
 * always is one (I2). One claim may be open. */
void *ring_claim(struct ring_publisher *p, size_t bytes);

/* Give an open claim back. */
void ring_unclaim(struct ring_publisher *p);

/* Commit the claimed sample with its first `bytes` bytes. A block whose message turned out to fit
 * inline is copied into the slot. */
void ring_commit(struct ring_publisher *p, size_t bytes, uint64_t tag, uint64_t time_ns);

/* claim + copy + commit. */
void ring_append(struct ring_publisher *p, const void *data, size_t bytes, uint64_t tag,
                 uint64_t time_ns);

/* To be called after the last commit of a publish or batch: looks for sleepers (DESIGN 5, data).
 * Now and then it also stores head and counters for others to see: after RING_TELL_MAX samples,
 * before low moves, and when it rings.
 * true: the bell was rung, wake its futex word now. */
bool ring_finish(struct ring_publisher *p);

/* Ring, whoever has armed: for sleepers of a group that cannot be looked at. The caller wakes the
 * bell's futex word now. */
void ring_raise_bell(struct ring_publisher *p);

/* The publisher goes on in another ring, of serial `successor`: nothing more is committed here.
 * true: the bell was rung, wake its futex word now. */
bool ring_hand_over(struct ring_publisher *p, uint64_t successor);

/* Before sleeping on space: publish the need that would help. 0 when awake again. The caller then
 * executes the barrier, reclaims once more, and only then sleeps. */
void ring_set_starved(struct ring_publisher *p, uint64_t need);

/* Evict reader i of the roster (DESIGN 4): set its bit. The caller then executes the barrier; from
 * then on reclaim ignores its need, but not its pins. */
void ring_evict(struct ring_publisher *p, uint32_t i);
/* Has reader i of the roster been evicted by this publisher? */
static inline bool ring_is_evicted(const struct ring_publisher *p, uint32_t i) {
    uint16_t bit = p->readers[i].bit;
    return p->evicted[bit / 64] >> (bit % 64) & 1;
}
/* pubsubd has given the entry to a new subscriber: clear the bit. By the caller, when it refreshes
 * the roster. */
void ring_unevict(struct ring_publisher *p, uint16_t bit);

#endif
