/* ring/reader.h - a subscriber's side of one ring: join, look, take, release. No system calls, no
 * allocation.
 *
 * The publisher is untrusted: every word is loaded once and checked (I6). State is private to one
 * thread.
 *
 * I4  a reader touches sample s only if  (a) reliable and its own need <= s, or  (b) it stored pin
 *     = s + 1, then a seq_cst fence, and then low <= s, or  (c) it copied relaxed words, then an
 *     acquire fence, and then low <= s still.
 * I5  unpin and need are release stores. */
#ifndef SHMPS_RING_READER_H
#define SHMPS_RING_READER_H

#include "layout/ring.h"
#include "layout/readers.h"
#include "layout/directory.h"

#include <stdbool.h>

struct ring_reader {
    const struct ring_header *ring;
    const char *slots;
    const char *blocks;
    struct ring_geometry g;       /* private copy */
    struct reader_entry *entry;   /* own entry; NULL for an observer */
    uint64_t next;                /* sequence to be read next */
    uint64_t need;                /* last stored in the entry */
    uint16_t bit;                 /* of the evicted bits */
    uint8_t policy;               /* enum policy; POLICY_NONE: observer */
    uint8_t pins;                 /* granted */
    bool fence;                   /* this process is not registered for membarrier: fence on its
                                     running side */
    bool evicted;                 /* seen its eviction bit: a lossy reader from now on */
    bool wake;                    /* joining has made room that a starved publisher waits for:
                                     settle() tells */
    uint64_t held;                /* bit i: pin word i is in use */
};

enum ring_take_result {
    RING_TAKEN = 0,
    RING_NOTHING = 1,  /* no committed sample yet */
    RING_OVERRUN = 2,  /* ret->lost samples were lost; next has moved on; look again */
    RING_NO_PIN = 3,   /* the sample lies in a block and no pin is left: copy it, or release one */
    RING_BROKEN = 4,   /* not what an honest publisher writes; do not use this ring any more */
};

/* A sample as found. */
struct ring_sample {
    uint64_t sequence, time_ns, tag, bytes;
    uint64_t lost;     /* OVERRUN only */
    const void *block; /* where it lies, or NULL: inline, copied to the caller's buffer */
    uint32_t pin;      /* which hold to release; only when block != NULL */
};

/* Set up over a checked ring. entry NULL: observer. The start is chosen by one of the two
 * below. */
void ring_reader_init(struct ring_reader *r, const struct ring_header *ring,
                      const struct ring_geometry *g,
                      struct reader_entry *entry, enum policy policy, uint32_t pins, uint16_t bit,
                      bool fence);

/* The ring is mapped elsewhere now. */
void ring_reader_moved(struct ring_reader *r, const struct ring_header *ring);

/* A ring born after the subscription: its entry already says need = start (reliable). Begin
 * there. */
void ring_reader_begin(struct ring_reader *r, uint64_t start);

/* Join a running ring at `want` (or the oldest still there, if that is newer): I4 (a) for a
 * reliable reader. Returns the sequence it really begins at. */
uint64_t ring_reader_join(struct ring_reader *r, uint64_t want);

/* Is something there to take (or to find lost)? One acquire load. */
static inline bool ring_reader_ready(const struct ring_reader *r) {
    const struct slot *slot = ring_slot(r->slots, &r->g, r->next);
    /* SYNC slot.seq: pairs with the release in ring_commit(); only a hint here, taking loads it
       again. */
    uint64_t seq = atomic_load_acquire(&slot->seq);
    return seq > r->next; /* s + 1, or of a later lap; sequences never wrap (SEQUENCE_END) */
}

/* The serial of the ring that the publisher goes on in; then all that it has committed here is
 * seen, and nothing more comes. 0: it publishes here. */
static inline uint64_t ring_reader_successor(const struct ring_reader *r) {
    /* SYNC ring.successor: acquire pairs with the release in ring_hand_over(). */
    return atomic_load_acquire(&r->ring->successor);
}

/* Take the next sample. Inline payloads are copied into `buffer` (room for g.inline_bytes rounded
 * up to 8). Blocks are pinned if a pin is left, else NO_PIN and nothing has changed. A reliable
 * reader's need is not stored yet: see ring_reader_settle(). */
enum ring_take_result ring_take(struct ring_reader *r, void *buffer, struct ring_sample *ret);

/* Copy the next sample, wherever it lies, into `buffer` of `room` bytes. If it is larger: NO_PIN
 * with ret->bytes set, and nothing has changed. Needs no pin (I4 c). */
enum ring_take_result ring_read(struct ring_reader *r, void *buffer, size_t room,
                                struct ring_sample *ret);

/* Move `next` to the newest committed sample (latest). TAKEN: there is one to take; NOTHING. */
enum ring_take_result ring_skip_to_latest(struct ring_reader *r);

/* Give up the hold of a taken block. */
void ring_release(struct ring_reader *r, uint32_t pin);

/* Tell the publisher how far this reader is: store need = next. After taking, before sleeping.
 * What is held stays protected by its pin. true: a starved publisher waits for just this: add 1 to
 * space (release) and wake it. */
bool ring_reader_settle(struct ring_reader *r);

/* Leave: need none, pins 0. Result as for settle. Nothing may be held any more. */
bool ring_reader_leave(struct ring_reader *r);

/* The time of a sample, if it is still there (checked as I4 c). For choosing and merging
 * history. */
bool ring_sample_time(const struct ring_reader *r, uint64_t sequence, uint64_t *ret);

#endif
