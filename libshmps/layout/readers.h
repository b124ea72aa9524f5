/* layout/readers.h - what lies in a readers segment: exactly one page of 4096 bytes.
 *
 *     0     identity (128)     WRITER: pubsubd
 *     128   armed (64)         WRITERS: the sleepers of the group, by CAS; only in the group's
 *           first page, 0 elsewhere
 *     192   space (64)         WRITERS: the readers of the group; only in the group's first page
 *     256   entry[60], 64 bytes each; WRITER: the one subscriber that pubsubd gave it to; pubsubd
 *           while it has none
 *
 * One per ring and roster page; the publisher maps it read-only, as untrusted input. Cell i of the
 * roster page in the directory tells the policy and pins of entry i. A subscriber with more than 7
 * pins owns the following entries too. */
#ifndef SHMPS_LAYOUT_READERS_H
#define SHMPS_LAYOUT_READERS_H

#include "layout/identity.h"

#define READERS_ENTRIES 60
#define READERS_BYTES 4096
#define READER_PINS_MAX 63 /* 7 in the first entry, 8 in each of up to 7 more */

/* need: sequences >= need are still wanted (reliable), or the next one to be read (others; tools
 * only). NEED_NONE: none. pins[i]: s + 1: the block of sample s is held; 0: nothing. One pin is
 * one sample, for every policy (decision 2). */
struct reader_entry {
    _Alignas(64) atomic_u64 need;
    atomic_u64 pins[7];
};
_Static_assert(sizeof(struct reader_entry) == 64, "an entry is one line");

struct readers_segment {
    struct identity identity;
    _Alignas(64) atomic_u64 armed; /* the largest bell that a sleeper armed for; from 0 */
    _Alignas(64) atomic_u32 space; /* futex word: +1 when a starved publisher may have room */
    _Alignas(64) struct reader_entry entries[READERS_ENTRIES];
};
_Static_assert(offsetof(struct readers_segment, armed) == 128, "armed at 128");
_Static_assert(offsetof(struct readers_segment, space) == 192, "space at 192");
_Static_assert(offsetof(struct readers_segment, entries) == 256, "entries at 256");
_Static_assert(sizeof(struct readers_segment) == READERS_BYTES, "one page");

/* Entries that a subscriber with `pins` pins occupies: 1 .. 8. */
static inline uint32_t reader_span(uint32_t pins) {
    return pins <= 7 ? 1 : 1 + (pins - 7 + 7) / 8;
}
/* Pin word i of an entry: pins[0..6] of its own line, then the words of the following lines. */
static inline atomic_u64 *reader_pin(struct reader_entry *entry, uint32_t i) {
    return (atomic_u64 *)entry + 1 + i;
}
static inline const atomic_u64 *reader_pin_view(const struct reader_entry *entry, uint32_t i) {
    return (const atomic_u64 *)entry + 1 + i;
}

/* Format a zeroed segment: all needs NEED_NONE. Identity as for ring_format(). */
void readers_format(struct readers_segment *readers);
/* Give an entry (and its span) to nobody: need = `need`, pins 0. By pubsubd only, while it has no
 * owner. */
void reader_entry_reset(struct reader_entry *entry, uint32_t pins, uint64_t need);

#endif
