/* tests/unit/rig.h - a ring, its readers segment and a roster in private memory, for the tests of
 * the ring room.
 *
 * Each segment is mapped twice, as two processes would have it: writable for whom it belongs to,
 * read-only for all others, with a page that nobody may touch on either side. A store to memory
 * that is not one's own, or an access out of bounds, ends the test.
 *
 * The include of this file comes after those of the ring room, which may be its headers or, for
 * tests that stop at each access, its sources. */
#ifndef SHMPS_TESTS_UNIT_RIG_H
#define SHMPS_TESTS_UNIT_RIG_H

#include "invariants.h"
#include "support.h"

#include "base/error.h"
#include "base/scope.h"
#include "ring/observer.h"
#include "ring/publisher.h"
#include "ring/reader.h"

#include <time.h>

#define PAGE_BYTES 4096u
#define RIG_MESSAGE_MAX 8192u

struct twice { /* one segment, mapped twice */
    char *own;
    const char *foreign;
    size_t bytes;
};

struct rig {
    struct ring_geometry g;
    struct twice ring_memory, readers_memory;
    struct ring_header *ring;              /* the publisher's */
    const struct ring_header *ring_view;   /* the readers' */
    struct readers_segment *readers;       /* the readers' */
    const struct readers_segment *readers_view; /* the publisher's */
    atomic_u32 generation;
    struct ring_publisher p;
    void *memory;
    struct ring_reader_ref roster[READERS_ENTRIES];
    struct ring_group_ref group;
    uint32_t n_roster, next_entry;
};

/* What a message holds: words that follow from its sequence. */
static inline uint64_t mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}
static inline void fill(void *to, size_t bytes, uint64_t sequence) {
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = mix(sequence ^ i << 40);
        memcpy((char *)to + i, &word, min_u64(8, bytes - i));
    }
}
static inline bool is_filled(const void *from, size_t bytes, uint64_t sequence) {
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = mix(sequence ^ i << 40);
        if (memcmp((const char *)from + i, &word, min_u64(8, bytes - i)) != 0)
            return false;
    }
    return true;
}
/* Its size: 0 .. the largest, inline and in blocks by turns where both can be. */
static inline size_t size_of(const struct ring_geometry *g, uint64_t sequence) {
    uint64_t largest = mix(sequence) % 4 == 0 ? g->inline_bytes : g->message_bytes;
    return mix(~sequence) % (largest + 1);
}

/* ---- memory */

static inline void *map_guarded(int fd, size_t bytes, int protection) {
    char *area = mmap(NULL, bytes + 2 * PAGE_BYTES, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(area, MAP_FAILED);
    void *inside = mmap(area + PAGE_BYTES, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
    assert_ptr_not_equal(inside, MAP_FAILED);
    return inside;
}

static inline struct twice map_twice(size_t bytes) {
    int fd = memfd_create("rig", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    struct twice t = {
        .own = map_guarded(fd, bytes, PROT_READ | PROT_WRITE),
        .foreign = map_guarded(fd, bytes, PROT_READ),
        .bytes = bytes,
    };
    close(fd);
    return t;
}

static inline void unmap_twice(struct twice *t) {
    munmap(t->own - PAGE_BYTES, t->bytes + 2 * PAGE_BYTES);
    munmap((char *)(uintptr_t)t->foreign - PAGE_BYTES, t->bytes + 2 * PAGE_BYTES);
}

/* ---- a rig */

static inline void rig_open(struct rig *rig, uint64_t depth, uint64_t message_bytes, uint64_t pins,
                            uint64_t start) {
    static const uint64_t boot[2] = { 1, 2 };
    uint64_t bytes;
    memset(rig, 0, sizeof(*rig));
    assert_int_equal(ring_geometry_make(&rig->g, &bytes, depth, message_bytes, pins), 0);
    rig->g.start = start;
    rig->g.mode = RING_FENCE;
    rig->ring_memory = map_twice(bytes);
    rig->readers_memory = map_twice(READERS_BYTES);
    rig->ring = (struct ring_header *)(void *)rig->ring_memory.own;
    rig->ring_view = (const struct ring_header *)(const void *)rig->ring_memory.foreign;
    rig->readers = (struct readers_segment *)(void *)rig->readers_memory.own;
    rig->readers_view = (const struct readers_segment *)(const void *)rig->readers_memory.foreign;
    identity_format(&rig->ring->identity, SEGMENT_NAMED, bytes, 1, 2, boot, 3, 4, 0);
    ring_format(rig->ring, &rig->g);
    identity_publish(&rig->ring->identity, MAGIC_RING);
    readers_format(rig->readers);
    assert_int_equal(ring_attach_check(rig->ring_view, bytes, &rig->g), 0);
    rig->memory = calloc(1, ring_publisher_memory(&rig->g) + 1);
    assert_non_null(rig->memory);
    ring_publisher_init(&rig->p, rig->ring, &rig->g, &rig->generation, rig->memory);
    rig->group.armed = &rig->readers_view->armed;
    rig->p.readers = rig->roster;
    rig->p.groups = &rig->group;
    rig->p.n_groups = 1;
}

/* What the client does when the generation has moved. */
static inline void rig_refresh(struct rig *rig) {
    rig->p.generation_seen = atomic_load_acquire(&rig->generation);
    rig->p.n_readers = rig->n_roster;
}

/* A new entry in the roster, as pubsubd makes it; the publisher has not seen it yet. It is where
 * `ret` says: a reader still has to begin or to join. */
static inline uint32_t rig_seat(struct rig *rig, struct ring_reader *ret, enum policy policy,
                                uint32_t pins) {
    struct reader_entry *entry = &rig->readers->entries[rig->next_entry];
    uint16_t bit = (uint16_t)rig->next_entry;
    assert_true(rig->next_entry + reader_span(pins) <= READERS_ENTRIES);
    reader_entry_reset(entry, pins, NEED_NONE);
    rig->roster[rig->n_roster] = (struct ring_reader_ref){
        .entry = &rig->readers_view->entries[rig->next_entry],
        .reliable = policy == POLICY_RELIABLE,
        .pins = (uint8_t)pins,
        .bit = bit,
    };
    rig->next_entry += reader_span(pins);
    atomic_add_release(&rig->generation, 1);
    ring_reader_init(ret, rig->ring_view, &rig->g, entry, policy, pins, bit, true);
    return rig->n_roster++;
}

/* A reader that was there before the ring. */
static inline uint32_t rig_reader(struct rig *rig, struct ring_reader *ret, enum policy policy,
                                  uint32_t pins) {
    uint32_t i = rig_seat(rig, ret, policy, pins);
    if (policy == POLICY_RELIABLE)
        reader_entry_reset(ret->entry, pins, rig->g.start);
    ring_reader_begin(ret, rig->g.start);
    rig_refresh(rig);
    return i;
}

static inline void rig_observer(struct rig *rig, struct ring_reader *ret) {
    ring_reader_init(ret, rig->ring_view, &rig->g, NULL, POLICY_NONE, 0, 0, true);
}

/* ---- invariants */

static inline void rig_check(const struct rig *rig) {
    const char *wrong = what_is_wrong(&rig->p);
    if (wrong != NULL)
        fail_msg("%s", wrong);
}

static inline void rig_close(struct rig *rig) {
    rig_check(rig);
    if (ring_check(rig->ring_view, rig->ring_memory.bytes) != 0)
        fail_msg("%s", shmps_error_detail());
    free(rig->memory);
    unmap_twice(&rig->ring_memory);
    unmap_twice(&rig->readers_memory);
}

/* ---- publishing and taking */

/* The next sample, of the size and content that its sequence says. */
static inline void rig_append(struct rig *rig) {
    char message[RIG_MESSAGE_MAX];
    uint64_t sequence = rig->p.head;
    size_t bytes = size_of(&rig->g, sequence);
    fill(message, bytes, sequence);
    ring_append(&rig->p, message, bytes, ~sequence, sequence + 1000);
}

/* n samples, with a reclaim whenever there is no room. Returns how many were possible. */
static inline uint64_t rig_publish(struct rig *rig, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        if (!ring_can_claim(&rig->p, 1)) {
            enum ring_reclaim_result result = ring_reclaim(&rig->p, 1);
            if (result == RING_STALE) {
                rig_refresh(rig);
                result = ring_reclaim(&rig->p, 1);
            }
            if (result != RING_ROOM)
                return i;
        }
        rig_append(rig);
        ring_finish(&rig->p);
    }
    return n;
}

/* Is this sample what was published under its sequence? `data`: where it lies. */
static inline bool is_as_sent(const struct rig *rig, const struct ring_sample *s,
                              const void *data) {
    return s->bytes == size_of(&rig->g, s->sequence) && s->tag == ~s->sequence &&
           s->time_ns == s->sequence + 1000 && is_filled(data, s->bytes, s->sequence);
}

/* Take the next sample, check it, let go of it at once; NO_PIN: read it. */
static inline enum ring_take_result take_one(const struct rig *rig, struct ring_reader *r,
                                             struct ring_sample *s) {
    char buffer[RIG_MESSAGE_MAX];
    uint64_t next = r->next;
    enum ring_take_result result = ring_take(r, buffer, s);
    if (result == RING_NO_PIN)
        result = ring_read(r, buffer, sizeof(buffer), s);
    if (result == RING_TAKEN) {
        assert_int_equal(s->sequence, next);
        assert_true(is_as_sent(rig, s, s->block != NULL ? s->block : buffer));
        if (s->block != NULL)
            ring_release(r, s->pin);
    }
    return result;
}

/* Take all there is. Returns how many were received; *ret_lost: how many were lost. */
static inline uint64_t take_all(const struct rig *rig, struct ring_reader *r, uint64_t *ret_lost) {
    struct ring_sample s;
    uint64_t received = 0, lost = 0;
    enum ring_take_result result;
    while ((result = take_one(rig, r, &s)) == RING_TAKEN || result == RING_OVERRUN) {
        received += result == RING_TAKEN;
        lost += result == RING_OVERRUN ? s.lost : 0;
    }
    assert_int_equal(result, RING_NOTHING);
    ring_reader_settle(r);
    *ret_lost = lost;
    return received;
}

/* ---- seeds */

/* $SHMPS_TEST_SEED, or a new one; printed, so that a failure can be repeated. */
static inline uint64_t test_seed(void) {
    const char *given = getenv("SHMPS_TEST_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0)
                                  : mix((uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 30) >> 32;
    print_message("# SHMPS_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}
static inline uint64_t draw(uint64_t *state, uint64_t below) {
    *state = mix(*state);
    return *state % below;
}

/* Blocks set aside whose sample is one of these. */
static inline uint32_t rig_count_aside(const struct rig *rig, const struct ring_sample *samples,
                                       uint32_t n) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < rig->p.n_aside; i++)
        for (uint32_t k = 0; k < n; k++)
            if (rig->p.aside[i].sequence == samples[k].sequence) {
                found++;
                break;
            }
    return found;
}

#endif
