/* tests/unit/test_layout_ring.c - layout/ring.h and layout/readers.h: geometry and its limits,
 * format, what is believed, the walk. */
#include "support.h"

#include "base/scope.h"
#include "layout/readers.h"
#include "layout/ring.h"

#include <shmps/error.h>

#define MIB (UINT64_C(1) << 20)

static const uint64_t boot[2] = { 1, 2 };

static void assert_told(int result, int code, const char *words) {
    assert_int_equal(result, code);
    if (strstr(shmps_error_detail(), words) == NULL)
        fail_msg("\"%s\" does not tell \"%s\"", shmps_error_detail(), words);
}

/* ---- geometry */

static struct ring_geometry make(uint64_t depth, uint64_t message_bytes, uint64_t pins,
                                 uint64_t *ret_bytes) {
    struct ring_geometry g;
    assert_int_equal(ring_geometry_make(&g, ret_bytes, depth, message_bytes, pins), 0);
    return g;
}

static void small_messages_lie_in_their_slots(void **state) {
    (void)state;
    const struct {
        uint32_t message, slot;
    } cases[] = {
        { 1, 64 },    { 31, 64 },   { 32, 64 },   { 33, 128 },  { 96, 128 },
        { 97, 192 },  { 160, 192 }, { 161, 256 }, { 223, 256 }, { RING_INLINE_BYTES_MAX, 256 },
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        uint64_t bytes;
        struct ring_geometry g = make(16, cases[i].message, 3, &bytes);
        assert_int_equal(g.slot_bytes, cases[i].slot);
        assert_int_equal(g.inline_bytes, cases[i].slot - 32);
        assert_int_equal(g.blocks, 0);
        assert_int_equal(g.block_bytes, 0);
        assert_int_equal(g.blocks_offset, 0);
        assert_int_equal(g.message_bytes, cases[i].message);
        assert_int_equal(g.depth, 16);
        assert_int_equal(g.pins, 3);
        assert_int_equal(bytes, 8192); /* the header's page, and slots of at most a page */
    }
}

static void larger_messages_lie_in_blocks(void **state) {
    (void)state;
    const struct {
        uint64_t message, block;
    } cases[] = {
        { RING_INLINE_BYTES_MAX + 1, 256 }, { 256, 256 },       { 257, 320 },
        { 4032, 4032 },                     { 4033, 4096 },     { 4095, 4096 },
        { 4096, 4096 },                     { 4097, 8192 },     { MIB - 1, MIB },
        { MIB, MIB },                       { MIB + 1, MIB + 4096 },
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        uint64_t bytes;
        struct ring_geometry g = make(64, cases[i].message, 5, &bytes);
        assert_int_equal(g.slot_bytes, 64);
        assert_int_equal(g.inline_bytes, 32);
        assert_int_equal(g.blocks, 64 + 5 + 1);
        assert_int_equal(g.block_bytes, cases[i].block);
        assert_int_equal(g.blocks_offset, 4096 + 64 * 64);
        assert_int_equal(g.message_bytes, cases[i].message);
        uint64_t end = g.blocks_offset + 70 * cases[i].block;
        assert_true(bytes >= end && bytes < end + 4096 && bytes % 4096 == 0);
    }
}

static void what_is_not_asked_for_is_chosen(void **state) {
    (void)state;
    uint64_t bytes;
    struct ring_geometry g = make(0, 0, 0, &bytes);
    assert_int_equal(g.message_bytes, 4096);
    assert_int_equal(g.block_bytes, 4096);
    assert_int_equal(g.depth, 64);
    assert_int_equal(g.blocks, 65);
    assert_int_equal(make(0, 100, 0, &bytes).depth, 64);
    assert_int_equal(make(0, MIB - 1, 0, &bytes).depth, 64);
    assert_int_equal(make(0, MIB, 0, &bytes).depth, 8);
    assert_int_equal(g.flags | g.mode | g.start | g.topic | g.record | g.publisher, 0);
}

static void depth_becomes_a_power_of_two(void **state) {
    (void)state;
    const struct {
        uint32_t asked, given;
    } cases[] = {
        { 1, 2 },      { 2, 2 },         { 3, 4 },  { 4, 4 },
        { 5, 8 },      { 1000, 1024 },   { (1u << 19) + 1, 1u << 20 },
        { RING_DEPTH_MAX - 1, RING_DEPTH_MAX }, { RING_DEPTH_MAX, RING_DEPTH_MAX },
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        uint64_t bytes;
        struct ring_geometry g = make(cases[i].asked, 32, 0, &bytes);
        assert_int_equal(g.depth, cases[i].given);
        assert_int_equal(bytes, (4096 + (uint64_t)g.depth * 64 + 4095) / 4096 * 4096);
    }
}

static void what_exceeds_a_limit_is_refused_and_nothing_overflows(void **state) {
    (void)state;
    const struct {
        uint64_t depth, message, pins;
        int code;
    } cases[] = {
        { (uint64_t)RING_DEPTH_MAX + 1, 0, 0, SHMPS_E_INVALID },
        { UINT32_MAX, 0, 0, SHMPS_E_INVALID },
        { (UINT64_C(1) << 32) + 2, 0, 0, SHMPS_E_INVALID }, /* no truncation to 32 bits */
        { UINT64_MAX, 0, 0, SHMPS_E_INVALID },
        { 2, RING_BLOCK_BYTES_MAX + 1, 0, SHMPS_E_SIZE },
        { 2, UINT64_MAX, 0, SHMPS_E_SIZE },
        { 2, UINT64_MAX - 62, 0, SHMPS_E_SIZE }, /* would be 0 if rounded up */
        { 2, 0, RING_PINS_MAX + 1, SHMPS_E_INVALID },
        { 2, 0, (UINT64_C(1) << 32) + 1, SHMPS_E_INVALID },
        { 2, 0, UINT64_MAX, SHMPS_E_INVALID },
        { 256, RING_BLOCK_BYTES_MAX, 0, SHMPS_E_INVALID }, /* 2^42 and a little */
        { RING_DEPTH_MAX, RING_BLOCK_BYTES_MAX, RING_PINS_MAX, SHMPS_E_INVALID },
        { 2, RING_BLOCK_BYTES_MAX, RING_PINS_MAX, SHMPS_E_INVALID },
        { UINT64_MAX, UINT64_MAX, UINT64_MAX, SHMPS_E_SIZE },
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct ring_geometry g = { .depth = 77 };
        uint64_t bytes = 88;
        int r = ring_geometry_make(&g, &bytes, cases[i].depth, cases[i].message, cases[i].pins);
        assert_int_equal(r, cases[i].code);
        assert_int_equal(g.depth, 77); /* outputs only on success */
        assert_int_equal(bytes, 88);
    }
}

static void the_limits_themselves_are_allowed(void **state) {
    (void)state;
    uint64_t bytes;
    struct ring_geometry g = make(2, RING_BLOCK_BYTES_MAX, 0, &bytes);
    assert_int_equal(g.block_bytes, RING_BLOCK_BYTES_MAX);
    assert_int_equal(bytes, 8192 + 3 * RING_BLOCK_BYTES_MAX);
    g = make(128, RING_BLOCK_BYTES_MAX, 126, &bytes); /* 255 of 2^34: the last below 2^42 */
    assert_true(bytes <= RING_BYTES_MAX);
    assert_int_equal(ring_geometry_make(&g, &bytes, 128, RING_BLOCK_BYTES_MAX, 127),
                     SHMPS_E_INVALID);
    g = make(RING_DEPTH_MAX, 4096, RING_PINS_MAX, &bytes);
    assert_int_equal(g.blocks, RING_DEPTH_MAX + RING_PINS_MAX + 1);
    assert_int_equal(bytes, g.blocks_offset + (uint64_t)g.blocks * 4096);
}

static void batches_are_an_eighth(void **state) {
    (void)state;
    assert_int_equal(ring_batch(2), 1);
    assert_int_equal(ring_batch(4), 1);
    assert_int_equal(ring_batch(8), 1);
    assert_int_equal(ring_batch(16), 2);
    assert_int_equal(ring_batch(RING_DEPTH_MAX), RING_DEPTH_MAX / 8);
}

static void what_make_made_is_accepted(void **state) {
    (void)state;
    const uint64_t depths[] = { 1, 2, 8, 1000, 4096 };
    const uint64_t messages[] = { 0, 1, 32, 100, 224, 225, 4095, 4096, 5000, MIB };
    for (size_t i = 0; i < ARRAY_LENGTH(depths); i++)
        for (size_t k = 0; k < ARRAY_LENGTH(messages); k++) {
            uint64_t bytes;
            struct ring_geometry g = make(depths[i], messages[k], i * k, &bytes);
            g.start = k % 2 ? SEQUENCE_END : i;
            g.mode = k % 2 ? RING_BARE : RING_FENCE;
            g.flags = k % 2 ? RING_TIMESTAMPS | RING_EXPLICIT_SIZE : 0;
            g.topic = g.record = UINT32_MAX;
            g.publisher = UINT64_MAX;
            assert_int_equal(ring_geometry_check(&g, bytes), 0);
        }
}

static struct ring_geometry good_geometry(uint64_t message_bytes, uint64_t *ret_bytes) {
    struct ring_geometry g = make(8, message_bytes, 3, ret_bytes);
    g.mode = RING_BARE;
    g.start = 5;
    g.flags = RING_TIMESTAMPS;
    return g;
}

static void every_damaged_geometry_is_refused(void **state) {
    (void)state;
    const uint64_t messages[] = { 100, 300 };
    for (size_t i = 0; i < ARRAY_LENGTH(messages); i++) {
        uint64_t bytes;
        const struct ring_geometry good = good_geometry(messages[i], &bytes);
        struct ring_geometry g;
#define REFUSED(member, value) \
    do { \
        g = good; \
        g.member = (value); \
        assert_int_equal(ring_geometry_check(&g, bytes), SHMPS_E_CORRUPT); \
    } while (0)
        const uint32_t depths[] = { 0, 1, 3, 7, 9, 64, RING_DEPTH_MAX * 2, UINT32_MAX };
        for (size_t k = 0; k < ARRAY_LENGTH(depths); k++)
            REFUSED(depth, depths[k]);
        const uint32_t sizes[] = { 0, 1, 32, 63, 65, 128, 256, 1024, UINT32_MAX };
        for (size_t k = 0; k < ARRAY_LENGTH(sizes); k++) {
            REFUSED(slot_bytes, sizes[k]);
            REFUSED(inline_bytes, sizes[k] == 32 ? 31 : sizes[k]);
            REFUSED(blocks, sizes[k] == 0 ? 1 : sizes[k]);
        }
        REFUSED(block_bytes, good.block_bytes + 64);
        REFUSED(block_bytes, UINT64_MAX);
        REFUSED(blocks_offset, good.blocks_offset + 4096);
        REFUSED(blocks_offset, UINT64_MAX - 4095);
        REFUSED(message_bytes, 0);
        REFUSED(message_bytes, good.message_bytes * 4);
        REFUSED(message_bytes, UINT64_MAX);
        REFUSED(pins, RING_PINS_MAX + 1);
        REFUSED(pins, UINT32_MAX);
        REFUSED(start, SEQUENCE_END + 1);
        REFUSED(start, UINT64_MAX);
        REFUSED(mode, 0);
        REFUSED(mode, 3);
        REFUSED(flags, 4);
        REFUSED(flags, UINT32_C(1) << 31);
        REFUSED(reserved0, 1);
        for (size_t k = 0; k < ARRAY_LENGTH(good.reserved); k++)
            REFUSED(reserved[k], 1);
        assert_int_equal(ring_geometry_check(&good, bytes - 4096), SHMPS_E_CORRUPT);
        assert_int_equal(ring_geometry_check(&good, bytes + 4096), SHMPS_E_CORRUPT);
        assert_int_equal(ring_geometry_check(&good, 0), SHMPS_E_CORRUPT);
        assert_int_equal(ring_geometry_check(&good, bytes), 0);
    }
}

static void a_geometry_without_a_message_size_is_refused(void **state) {
    (void)state;
    uint64_t bytes;
    struct ring_geometry g = good_geometry(0, &bytes);
    assert_int_equal(ring_geometry_check(&g, bytes), 0);
    g.message_bytes = 0; /* all else is as if 0 had been asked for */
    assert_told(ring_geometry_check(&g, bytes), SHMPS_E_CORRUPT, "message_bytes 0");
}

static void a_random_geometry_is_refused(void **state) {
    (void)state;
    uint64_t x = 88172645463325252, words[sizeof(struct ring_geometry) / 8];
    for (int round = 0; round < 100000; round++) {
        for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            words[i] = round % 2 ? x : x % 5;
        }
        struct ring_geometry g;
        memcpy(&g, words, sizeof(g));
        assert_int_equal(ring_geometry_check(&g, MIB), SHMPS_E_CORRUPT);
    }
}

/* ---- a ring: depth 8, starts at 5; message_bytes as given */

struct fixture {
    struct ring_header *ring;
    uint64_t bytes;
    struct ring_geometry g;
};

static struct fixture ring_new(uint64_t message_bytes) {
    struct fixture f;
    f.g = good_geometry(message_bytes, &f.bytes);
    f.ring = aligned_alloc(4096, f.bytes);
    assert_non_null(f.ring);
    memset(f.ring, 0, f.bytes);
    identity_format(&f.ring->identity, 1, f.bytes, 1, 2, boot, 3, 4, 0);
    ring_format(f.ring, &f.g);
    identity_publish(&f.ring->identity, MAGIC_RING);
    return f;
}

static struct slot *slot_of(const struct fixture *f, uint64_t s) {
    return ring_slot((char *)f->ring + RING_SLOTS_OFFSET, &f->g, s);
}

/* As a publisher commits, without storing head. */
static void commit(const struct fixture *f, uint64_t s, uint64_t bytes, uint64_t block) {
    atomic_store_relaxed(&slot_of(f, s)->bytes, bytes); /* relaxed, here and below: one thread */
    atomic_store_relaxed(&slot_of(f, s)->payload[0], block);
    atomic_store_relaxed(&slot_of(f, s)->seq, s + 1);
}

static void set(const struct fixture *f, uint64_t low, uint64_t head) {
    atomic_store_relaxed(&f->ring->low, low); /* relaxed: one thread */
    atomic_store_relaxed(&f->ring->head, head);
}

static int check(const struct fixture *f) {
    return ring_check(f->ring, f->bytes);
}

static void a_new_ring_is_empty_from_its_start(void **state) {
    (void)state;
    struct fixture f = ring_new(300);
    struct ring_geometry g;
    assert_int_equal(ring_attach_check(f.ring, f.bytes, &g), 0);
    assert_memory_equal(&g, &f.g, sizeof(g));
    /* relaxed: one thread */
    assert_int_equal(atomic_load_relaxed(&f.ring->low), 5);
    assert_int_equal(atomic_load_relaxed(&f.ring->head), 5);
    assert_int_equal(atomic_load_relaxed(&f.ring->bell), 1);
    assert_int_equal(atomic_load_relaxed(&f.ring->starved), 0);
    for (uint64_t s = 5; s < 5 + 8; s++)
        assert_int_not_equal(atomic_load_relaxed(&slot_of(&f, s)->seq), s + 1);
    assert_int_equal(ring_committed_end(f.ring, &g), 5);
    assert_int_equal(check(&f), 0);
    free(f.ring);
}

static void slots_are_found_by_sequence(void **state) {
    (void)state;
    struct fixture f = ring_new(100); /* slots of 192 bytes */
    char *slots = (char *)f.ring + RING_SLOTS_OFFSET;
    assert_ptr_equal(slot_of(&f, 0), slots);
    assert_ptr_equal(slot_of(&f, 7), slots + 7 * 192);
    assert_ptr_equal(slot_of(&f, 8), slots);
    assert_ptr_equal(slot_of(&f, SEQUENCE_END), slots + (SEQUENCE_END % 8) * 192);
    free(f.ring);
}

static void what_is_no_ring_is_not_attached(void **state) {
    (void)state;
    struct fixture f = ring_new(300);
    struct ring_geometry g = { .depth = 77 };
    assert_int_equal(ring_attach_check(f.ring, f.bytes - 4096, &g), SHMPS_E_CORRUPT);
    f.ring->geometry.mode = 9;
    assert_told(ring_attach_check(f.ring, f.bytes, &g), SHMPS_E_CORRUPT, "mode 9");
    f.ring->geometry.mode = RING_BARE;
    identity_retire(&f.ring->identity);
    assert_int_equal(ring_attach_check(f.ring, f.bytes, &g), SHMPS_E_CORRUPT);
    identity_publish(&f.ring->identity, MAGIC_READERS);
    assert_int_equal(ring_attach_check(f.ring, f.bytes, &g), SHMPS_E_CORRUPT);
    identity_publish(&f.ring->identity, MAGIC_RING);
    f.ring->identity.version = 2;
    assert_int_equal(ring_attach_check(f.ring, f.bytes, &g), SHMPS_E_VERSION);
    f.ring->identity.version = LAYOUT_VERSION;
    f.ring->identity.bytes = 1024; /* consistent, but smaller than a ring's header */
    assert_told(ring_attach_check(f.ring, 1024, &g), SHMPS_E_CORRUPT, "no room");
    assert_int_equal(g.depth, 77);
    f.ring->identity.bytes = f.bytes;
    assert_int_equal(ring_attach_check(f.ring, f.bytes, &g), 0);
    free(f.ring);
}

static void the_end_is_found_beyond_head(void **state) {
    (void)state;
    struct fixture f = ring_new(300);
    for (uint64_t n = 0; n < 8; n++) {
        assert_int_equal(ring_committed_end(f.ring, &f.g), 5 + n);
        commit(&f, 5 + n, 0, 0); /* killed before it stored head */
    }
    assert_int_equal(ring_committed_end(f.ring, &f.g), 13); /* depth steps, no more */
    set(&f, 5, 9);
    assert_int_equal(ring_committed_end(f.ring, &f.g), 13);
    /* A hole ends the walk: what is behind it was never committed in order. */
    atomic_store_relaxed(&slot_of(&f, 11)->seq, 0); /* relaxed: one thread */
    assert_int_equal(ring_committed_end(f.ring, &f.g), 11);
    free(f.ring);
}

static void the_end_is_a_sequence_whatever_the_publisher_stored(void **state) {
    (void)state;
    struct fixture f = ring_new(300);
    const uint64_t heads[] = { 0, 4, SEQUENCE_END, SEQUENCE_END + 1, UINT64_MAX };
    for (size_t i = 0; i < ARRAY_LENGTH(heads); i++) {
        set(&f, 5, heads[i]);
        assert_int_equal(ring_committed_end(f.ring, &f.g), heads[i] < 5 ? 5 : SEQUENCE_END);
    }
    /* seq = s + 1 for every sequence near the end does not lead beyond it */
    for (uint64_t s = SEQUENCE_END - 4; s < SEQUENCE_END + 4; s++)
        commit(&f, s, 0, 0);
    set(&f, 5, SEQUENCE_END - 4);
    assert_int_equal(ring_committed_end(f.ring, &f.g), SEQUENCE_END);
    free(f.ring);
}

static void the_walk_accepts_what_an_honest_publisher_leaves(void **state) {
    (void)state;
    struct fixture f = ring_new(300);
    for (uint64_t s = 5; s < 13; s++)
        commit(&f, s, 300, s - 5);
    set(&f, 5, 13);
    assert_int_equal(check(&f), 0);
    commit(&f, 13, 33, 8); /* in the slot of 5; killed before head */
    set(&f, 6, 13);
    assert_int_equal(check(&f), 0);
    commit(&f, 14, 32, 999999); /* inline: no block index */
    set(&f, 7, 15);
    assert_int_equal(check(&f), 0);
    set(&f, 15, 15); /* all below low */
    assert_int_equal(check(&f), 0);
    free(f.ring);
}

static void the_walk_finds_a_broken_first_invariant(void **state) {
    (void)state;
    struct fixture f = ring_new(300);
    const struct {
        uint64_t low, head;
    } cases[] = {
        { 4, 5 },  { 6, 5 },  { 0, 0 },  { 5, 14 }, { 5, UINT64_MAX }, { UINT64_MAX, UINT64_MAX },
        { 5, 4 },  { UINT64_MAX, 5 },    { SEQUENCE_END + 1, SEQUENCE_END + 1 },
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        set(&f, cases[i].low, cases[i].head);
        assert_told(check(&f), SHMPS_E_CORRUPT, "I1 does not hold");
    }
    /* beyond the last sequence of all, with everything else in order */
    for (uint64_t s = SEQUENCE_END - 2; s <= SEQUENCE_END; s++)
        commit(&f, s, 0, 0);
    set(&f, SEQUENCE_END - 2, SEQUENCE_END);
    assert_int_equal(check(&f), 0);
    set(&f, SEQUENCE_END - 2, SEQUENCE_END + 1);
    assert_told(check(&f), SHMPS_E_CORRUPT, "I1 does not hold");
    /* committed further than low + depth, though head does not say so */
    for (uint64_t s = 5; s < 13; s++)
        commit(&f, s, 0, 0);
    commit(&f, 13, 0, 0);
    set(&f, 5, 13);
    assert_told(check(&f), SHMPS_E_CORRUPT, "I1 does not hold");
    free(f.ring);
}

static void the_walk_finds_broken_slots(void **state) {
    (void)state;
    struct fixture f = ring_new(300); /* 12 blocks */
    for (uint64_t s = 5; s < 9; s++)
        commit(&f, s, 300, s);
    set(&f, 5, 9);
    assert_int_equal(check(&f), 0);

    const uint64_t seqs[] = { 0, 6, 8, 15, UINT64_MAX };
    for (size_t i = 0; i < ARRAY_LENGTH(seqs); i++) {
        atomic_store_relaxed(&slot_of(&f, 6)->seq, seqs[i]); /* relaxed: one thread */
        assert_told(check(&f), SHMPS_E_CORRUPT, "sample 6: not committed");
    }
    const uint64_t sizes[] = { 301, 320, UINT64_MAX };
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        commit(&f, 6, sizes[i], 6);
        assert_told(check(&f), SHMPS_E_CORRUPT, "sample 6: too large");
    }
    const uint64_t blocks[] = { 12, UINT32_MAX, UINT64_MAX };
    for (size_t i = 0; i < ARRAY_LENGTH(blocks); i++) {
        commit(&f, 6, 300, blocks[i]);
        assert_told(check(&f), SHMPS_E_CORRUPT, "sample 6: no such block");
    }
    commit(&f, 6, 300, 5);
    assert_told(check(&f), SHMPS_E_CORRUPT, "sample 6: owns what an older one owns, block 5");
    commit(&f, 6, 300, 11);
    assert_int_equal(check(&f), 0);
    commit(&f, 8, 300, 11);
    assert_told(check(&f), SHMPS_E_CORRUPT, "sample 8: owns what an older one owns, block 11");
    free(f.ring);
}

static void blocks_are_compared_beyond_the_first_window(void **state) {
    (void)state;
    struct fixture f;
    f.g = make(2, 300, RING_PINS_MAX, &f.bytes); /* 65539 blocks */
    f.g.mode = RING_FENCE;
    f.ring = mmap(NULL, f.bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(f.ring, MAP_FAILED);
    identity_format(&f.ring->identity, 1, f.bytes, 1, 2, boot, 3, 4, 0);
    ring_format(f.ring, &f.g);
    identity_publish(&f.ring->identity, MAGIC_RING);
    const struct {
        uint64_t a, b;
        int result;
    } cases[] = {
        { 65538, 65538, SHMPS_E_CORRUPT }, { 65536, 65536, SHMPS_E_CORRUPT },
        { 65535, 65535, SHMPS_E_CORRUPT }, { 0, 65536, 0 },
        { 65537, 1, 0 },                   { 2, 65538, 0 },
        { 65538, 65539, SHMPS_E_CORRUPT },
    };
    set(&f, 0, 2);
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        commit(&f, 0, 300, cases[i].a);
        commit(&f, 1, 300, cases[i].b);
        assert_int_equal(check(&f), cases[i].result);
    }
    munmap(f.ring, f.bytes);
}

/* ---- readers */

static void formatted_readers_hold_nobody_back(void **state) {
    (void)state;
    struct readers_segment *r = aligned_alloc(READERS_BYTES, READERS_BYTES);
    assert_non_null(r);
    memset(r, 0, sizeof(*r));
    readers_format(r);
    for (uint32_t i = 0; i < READERS_ENTRIES; i++) {
        /* relaxed: one thread */
        assert_int_equal(atomic_load_relaxed(&r->entries[i].need), NEED_NONE);
        for (uint32_t k = 0; k < 7; k++)
            assert_int_equal(atomic_load_relaxed(reader_pin(&r->entries[i], k)), 0);
    }
    assert_int_equal(atomic_load_relaxed(&r->armed), 0);
    assert_int_equal(atomic_load_relaxed(&r->space), 0);
    free(r);
}

static void a_span_has_room_for_its_pins_and_no_more(void **state) {
    (void)state;
    for (uint32_t pins = 0; pins <= READER_PINS_MAX; pins++) {
        uint32_t words = reader_span(pins) * 8 - 1;
        assert_true(words >= pins);
        assert_true(reader_span(pins) == 1 || words - 8 < pins);
    }
    assert_int_equal(reader_span(0), 1);
    assert_int_equal(reader_span(7), 1);
    assert_int_equal(reader_span(8), 2);
    assert_int_equal(reader_span(15), 2);
    assert_int_equal(reader_span(16), 3);
    assert_int_equal(reader_span(READER_PINS_MAX), 8);
}

static void a_reset_touches_its_own_span_only(void **state) {
    (void)state;
    struct readers_segment *r = aligned_alloc(READERS_BYTES, READERS_BYTES);
    assert_non_null(r);
    const uint32_t pins[] = { 0, 1, 7, 8, 15, 16, 63 };
    for (size_t i = 0; i < ARRAY_LENGTH(pins); i++) {
        uint32_t span = reader_span(pins[i]);
        memset(r, 0xee, sizeof(*r));
        reader_entry_reset(&r->entries[10], pins[i], 42);
        assert_int_equal(atomic_load_relaxed(&r->entries[10].need), 42); /* relaxed: one thread */
        for (uint32_t k = 0; k < span * 8 - 1; k++)
            assert_int_equal(atomic_load_relaxed(reader_pin(&r->entries[10], k)), 0);
        assert_int_equal(*((unsigned char *)&r->entries[10] - 1), 0xee);
        assert_int_equal(*(unsigned char *)&r->entries[10 + span], 0xee);
    }
    free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_messages_lie_in_their_slots),
        cmocka_unit_test(larger_messages_lie_in_blocks),
        cmocka_unit_test(what_is_not_asked_for_is_chosen),
        cmocka_unit_test(depth_becomes_a_power_of_two),
        cmocka_unit_test(what_exceeds_a_limit_is_refused_and_nothing_overflows),
        cmocka_unit_test(the_limits_themselves_are_allowed),
        cmocka_unit_test(batches_are_an_eighth),
        cmocka_unit_test(what_make_made_is_accepted),
        cmocka_unit_test(every_damaged_geometry_is_refused),
        cmocka_unit_test(a_geometry_without_a_message_size_is_refused),
        cmocka_unit_test(a_random_geometry_is_refused),
        cmocka_unit_test(a_new_ring_is_empty_from_its_start),
        cmocka_unit_test(slots_are_found_by_sequence),
        cmocka_unit_test(what_is_no_ring_is_not_attached),
        cmocka_unit_test(the_end_is_found_beyond_head),
        cmocka_unit_test(the_end_is_a_sequence_whatever_the_publisher_stored),
        cmocka_unit_test(the_walk_accepts_what_an_honest_publisher_leaves),
        cmocka_unit_test(the_walk_finds_a_broken_first_invariant),
        cmocka_unit_test(the_walk_finds_broken_slots),
        cmocka_unit_test(blocks_are_compared_beyond_the_first_window),
        cmocka_unit_test(formatted_readers_hold_nobody_back),
        cmocka_unit_test(a_span_has_room_for_its_pins_and_no_more),
        cmocka_unit_test(a_reset_touches_its_own_span_only),
    };
    return cmocka_run_group_tests_name("ring layout", tests, NULL, NULL);
}
