#include "layout/readers.h"

#include "layout/ring.h" /* NEED_NONE */

void readers_format(struct readers_segment *readers) {
    /* relaxed: whoever attaches has seen the magic, which is published later */
    atomic_store_relaxed(&readers->armed, 0);
    atomic_store_relaxed(&readers->space, 0);
    for (uint32_t i = 0; i < READERS_ENTRIES; i++) {
        reader_entry_reset(&readers->entries[i], 0, NEED_NONE);
    }
}

void reader_entry_reset(struct reader_entry *entry, uint32_t pins, uint64_t need) {
    uint32_t words = reader_span(pins) * (uint32_t)(sizeof(*entry) / 8) - 1;

    /* SYNC reader.need, reader.pins: release pairs with the publisher's acquire in ring_reclaim():
     * the reads of who had the entry before are over. The need first, then what it protects. */
    atomic_store_release(&entry->need, need);
    for (uint32_t i = 0; i < words; i++) {
        atomic_store_release(reader_pin(entry, i), 0);
    }
}
