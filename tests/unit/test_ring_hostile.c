/* The edges of the two ways to sleep, and words that no honest peer writes, on both sides of a
 * ring: an access out of bounds meets a page that nobody may touch (rig.h). */
#include "rig.h"

/* ---- space: need passes what a starved publisher waits for exactly once */

static void test_settling_tells_once_that_there_is_room(void **state) {
    (void)state;
    /* old need 3, new need 5 */
    const struct {
        uint64_t starved;
        bool wake;
    } cases[] = { { 0, false }, { 1, false }, { 3, false }, { 4, true },
                  { 5, true },  { 6, false }, { UINT64_MAX, false } };
    const enum policy policies[] = { POLICY_RELIABLE, POLICY_LOSSY, POLICY_LATEST };
    for (size_t i = 0; i < ARRAY_LENGTH(cases) * ARRAY_LENGTH(policies); i++) {
        struct rig rig;
        struct ring_reader r;
        struct ring_sample s;
        enum policy policy = policies[i / ARRAY_LENGTH(cases)];
        bool expected = cases[i % ARRAY_LENGTH(cases)].wake && policy == POLICY_RELIABLE;
        rig_open(&rig, 8, 96, 4, 0);
        rig_reader(&rig, &r, policy, 1);
        rig_publish(&rig, 8);
        for (int k = 0; k < 3; k++)
            assert_int_equal(take_one(&rig, &r, &s), RING_TAKEN);
        assert_false(ring_reader_settle(&r));
        ring_set_starved(&rig.p, cases[i % ARRAY_LENGTH(cases)].starved);
        for (int k = 0; k < 2; k++)
            assert_int_equal(take_one(&rig, &r, &s), RING_TAKEN);
        assert_int_equal(ring_reader_settle(&r), expected);
        assert_false(ring_reader_settle(&r)); /* nothing has moved since */
        assert_int_equal(take_one(&rig, &r, &s), RING_TAKEN);
        assert_int_equal(ring_reader_settle(&r),
                         cases[i % ARRAY_LENGTH(cases)].starved == 6 && policy == POLICY_RELIABLE);
        ring_set_starved(&rig.p, 0);
        rig_close(&rig);
    }
}

static void test_an_evicted_reader_wakes_nobody(void **state) {
    (void)state;
    struct rig rig;
    struct ring_reader r;
    uint64_t lost;
    rig_open(&rig, 4, 96, 4, 0);
    uint32_t i = rig_reader(&rig, &r, POLICY_RELIABLE, 1);
    rig_publish(&rig, 4);
    ring_evict(&rig.p, i);
    rig_publish(&rig, 10);
    uint64_t received = take_all(&rig, &r, &lost);
    assert_int_equal(received + lost, 14);
    assert_true(r.evicted);
    rig_publish(&rig, 1);
    r.next++;
    ring_set_starved(&rig.p, r.next);
    assert_false(ring_reader_settle(&r));
    ring_set_starved(&rig.p, 0);
    rig_close(&rig);
}

/* ---- data: one ring of the bell for one arming */

static void test_the_bell_rings_once_for_an_arming(void **state) {
    (void)state;
    struct rig rig;
    rig_open(&rig, 64, 96, 4, 0);
    assert_int_equal(atomic_load_relaxed(&rig.ring->bell), 1);
    for (uint64_t bell = 1; bell < 40; bell++) {
        rig_append(&rig);
        assert_false(ring_finish(&rig.p)); /* nobody armed since the last one */
        atomic_store_relaxed(&rig.readers->armed, bell - 1);
        rig_append(&rig);
        assert_false(ring_finish(&rig.p)); /* armed for an older bell */
        atomic_store_relaxed(&rig.readers->armed, bell);
        if (rig.p.head + 4 > rig.p.limit)
            ring_reclaim(&rig.p, 8);
        rig_append(&rig);
        assert_true(ring_finish(&rig.p));
        assert_int_equal(atomic_load_relaxed(&rig.ring->bell), bell + 1);
        assert_int_equal(atomic_load_relaxed(&rig.ring->head), rig.p.head); /* told as it rings */
    }
    assert_int_equal(atomic_load_relaxed(&rig.ring->counters.wakes), 39);
    rig_close(&rig);
}

static void test_each_group_can_ring(void **state) {
    (void)state;
    struct rig rig;
    atomic_u64 armed[3] = { 0, 0, 0 };
    struct ring_group_ref groups[3] = { { &armed[0] }, { &armed[1] }, { &armed[2] } };
    rig_open(&rig, 64, 96, 4, 0);
    rig.p.groups = groups;
    rig.p.n_groups = 3;
    for (uint64_t i = 0; i < 9; i++) {
        atomic_store_relaxed(&armed[i % 3], i + 1);
        rig_append(&rig);
        assert_true(ring_finish(&rig.p));
        rig_append(&rig);
        assert_false(ring_finish(&rig.p));
    }
    atomic_store_relaxed(&armed[1], UINT64_MAX); /* pesters nobody, mutes only itself */
    rig_append(&rig);
    assert_false(ring_finish(&rig.p));
    rig.p.n_groups = 0;
    atomic_store_relaxed(&armed[0], 10);
    rig_append(&rig);
    assert_false(ring_finish(&rig.p));
    rig_close(&rig);
}

/* ---- a publisher among hostile readers */

static void test_needs_that_jump(void **state) {
    (void)state;
    struct rig rig;
    struct ring_reader honest, hostile;
    uint64_t lost;
    rig_open(&rig, 8, 300, 8, 1000);
    rig_reader(&rig, &honest, POLICY_RELIABLE, 2);
    rig_reader(&rig, &hostile, POLICY_RELIABLE, 2);
    const uint64_t needs[] = { 0, 999, 1000, UINT64_MAX, SEQUENCE_END + 1, 1u << 31, 1003, 1 };
    for (size_t i = 0; i < 4 * ARRAY_LENGTH(needs); i++) {
        uint64_t head = rig.p.head;
        atomic_store_release(&hostile.entry->need, needs[i % ARRAY_LENGTH(needs)]);
        rig_publish(&rig, 3); /* held back, or not: its own affair */
        rig_check(&rig);
        assert_int_equal(take_all(&rig, &honest, &lost), rig.p.head - head);
        assert_int_equal(lost, 0); /* nobody else notices */
    }
    atomic_store_release(&hostile.entry->need, 0);
    uint64_t given = rig.p.limit - rig.p.head; /* it is not taken back */
    assert_int_equal(rig_publish(&rig, 20), given);
    assert_int_equal(ring_reclaim(&rig.p, 1), RING_NO_ROOM);
    atomic_store_release(&hostile.entry->need, NEED_NONE);
    take_all(&rig, &honest, &lost);
    assert_int_equal(rig_publish(&rig, 8), 8);
    rig_close(&rig);
}

static void test_pins_that_are_none(void **state) {
    (void)state;
    struct rig rig;
    struct ring_reader honest, hostile;
    struct ring_sample held = { .block = NULL };
    uint64_t random = test_seed(), lost;
    char buffer[RIG_MESSAGE_MAX];
    rig_open(&rig, 8, 300, 5, 0);
    rig_reader(&rig, &hostile, POLICY_LOSSY, 3); /* granted 3, writes all 7 */
    rig_reader(&rig, &honest, POLICY_LOSSY, 2);
    for (int step = 0; step < 20000; step++) {
        uint64_t what[] = { rig.p.head - draw(&random, 20), rig.p.head, 0, UINT64_MAX,
                            mix(random), SEQUENCE_END, rig.p.low + 1 };
        atomic_store_release(reader_pin(hostile.entry, (uint32_t)draw(&random, 7)),
                             what[draw(&random, ARRAY_LENGTH(what))]);
        uint64_t n = 1 + draw(&random, 4);
        assert_int_equal(rig_publish(&rig, n), n);
        rig_check(&rig);
        if (held.block == NULL || draw(&random, 30) == 0) {
            if (held.block != NULL)
                ring_release(&honest, held.pin);
            held.block = NULL;
            take_all(&rig, &honest, &lost);
            rig_publish(&rig, 1);
            if (ring_take(&honest, buffer, &held) != RING_TAKEN)
                held.block = NULL;
        }
        if (held.block != NULL)
            assert_true(is_as_sent(&rig, &held, held.block));
    }
    rig_close(&rig);
}

static void test_pins_beyond_the_grant_are_ignored(void **state) {
    (void)state;
    struct rig rig;
    struct ring_reader greedy;
    rig_open(&rig, 4, 300, 2, 0);
    rig_reader(&rig, &greedy, POLICY_LOSSY, 2);
    char message[300] = { 0 };
    for (uint64_t lap = 0; lap < 10; lap++) {
        for (int i = 0; i < 4; i++) {
            if (!ring_can_claim(&rig.p, 1))
                assert_int_equal(ring_reclaim(&rig.p, 1), RING_ROOM);
            ring_append(&rig.p, message, 300, 0, 0);
        }
        ring_finish(&rig.p);
        for (uint32_t i = 0; i < 7; i++) /* pins all there is */
            atomic_store_release(reader_pin(greedy.entry, i), rig.p.head - i % 4);
        rig_check(&rig);
        assert_true(rig.p.n_pinned <= 2);
    }
    rig_close(&rig);
}

/* ---- a reader of a hostile publisher */

static struct slot *slot_of(const struct rig *rig, uint64_t sequence) {
    return ring_slot((char *)rig->ring + RING_SLOTS_OFFSET, &rig->g, sequence);
}

/* All that a reader can be asked for, on a ring where anything may stand. It has to come back, and
 * what it says must lie within the ring. */
static void use_all(const struct rig *rig, struct ring_reader *r) {
    char buffer[RIG_MESSAGE_MAX];
    struct ring_sample s;
    uint64_t time;
    ring_reader_ready(r);
    enum ring_take_result result = ring_take(r, buffer, &s);
    if (result == RING_TAKEN) {
        assert_true(s.bytes <= rig->g.message_bytes || s.bytes <= rig->g.block_bytes);
        if (s.block != NULL) {
            const char *first = s.block;
            assert_true(first >= rig->ring_memory.foreign + rig->g.blocks_offset);
            assert_true(first + s.bytes <= rig->ring_memory.foreign + rig->ring_memory.bytes);
            ring_release(r, s.pin);
        }
    }
    ring_read(r, buffer, sizeof(buffer), &s);
    ring_read(r, buffer, 1, &s);
    ring_sample_time(r, r->next, &time);
    struct ring_observed_sample seen;
    buffer[1] = 'x'; /* beyond the room that is given */
    ring_observe_sample(rig->ring_view, &rig->g, r->next, buffer, 1, &seen);
    assert_int_equal(buffer[1], 'x');
    ring_observe_sample(rig->ring_view, &rig->g, r->next, buffer, sizeof(buffer), &seen);
    ring_skip_to_latest(r);
    ring_take(r, buffer, &s);
    ring_reader_settle(r);
    if (result == RING_BROKEN) /* a caller goes no further */
        r->next = rig->g.start;
}

static void test_single_words_that_no_publisher_writes(void **state) {
    (void)state;
    const uint64_t values[] = { 0, 1, 2, 9, 1u << 20, UINT64_C(1) << 34, UINT64_C(1) << 63,
                                SEQUENCE_END, SEQUENCE_END + 1, UINT64_MAX };
    const enum policy policies[] = { POLICY_NONE, POLICY_LOSSY, POLICY_RELIABLE, POLICY_LATEST };
    for (size_t i = 0; i < ARRAY_LENGTH(values) * 7 * 4 * 2; i++) {
        struct rig rig;
        struct ring_reader r;
        struct ring_observation o;
        uint64_t value = values[i % ARRAY_LENGTH(values)];
        size_t word = i / ARRAY_LENGTH(values) % 7;
        enum policy policy = policies[i / ARRAY_LENGTH(values) / 7 % 4];
        rig_open(&rig, 8, i >= ARRAY_LENGTH(values) * 7 * 4 ? 300 : 96, 4, 0);
        if (policy == POLICY_NONE)
            rig_observer(&rig, &r);
        else
            rig_reader(&rig, &r, policy, 2);
        rig_publish(&rig, 4);
        struct slot *slot = slot_of(&rig, 0), saved = *slot;
        uint64_t payload = slot->payload[0], low = rig.ring->low, head = rig.ring->head;
        atomic_u64 *words[] = { &slot->seq,      &slot->bytes,    &slot->payload[0],
                                &rig.ring->low,  &rig.ring->head, &slot->time_ns,
                                &rig.ring->evicted[0] };
        atomic_store_relaxed(words[word], value);
        use_all(&rig, &r);
        ring_observe(rig.ring_view, &rig.g, &o);
        ring_committed_end(rig.ring_view, &rig.g);
        ring_check(rig.ring_view, rig.ring_memory.bytes);
        use_all(&rig, &r);
        *slot = saved;
        slot->payload[0] = payload;
        rig.ring->low = low;
        rig.ring->head = head;
        rig_close(&rig);
    }
}

static void test_what_is_broken_is_said(void **state) {
    (void)state;
    char buffer[RIG_MESSAGE_MAX];
    for (int k = 0; k < 6; k++) {
        struct rig rig;
        struct ring_reader r;
        struct ring_sample s;
        rig_open(&rig, 8, 300, 4, 0);
        rig_reader(&rig, &r, k == 5 ? POLICY_RELIABLE : POLICY_LOSSY, 2);
        char message[300] = { 0 };
        ring_append(&rig.p, message, 300, 0, 0);
        ring_finish(&rig.p);
        struct slot *slot = slot_of(&rig, 0);
        struct slot saved = *slot;
        uint64_t block = slot->payload[0];
        if (k == 0)
            slot->payload[0] = rig.g.blocks; /* one beyond the last */
        else if (k == 1)
            slot->bytes = rig.g.block_bytes + 1;
        else if (k == 2)
            slot->seq = 9; /* of a later lap, but low says that this one is there */
        else if (k == 3)
            slot->seq = UINT64_MAX;
        else if (k == 4)
            slot->payload[0] = UINT64_MAX;
        else { /* has passed a reliable reader without evicting it */
            slot->seq = 9;
            rig.ring->low = 1;
        }
        assert_int_equal(ring_take(&r, buffer, &s), RING_BROKEN);
        assert_int_equal(ring_read(&r, buffer, sizeof(buffer), &s), RING_BROKEN);
        assert_int_equal(r.held, 0);
        assert_int_equal(atomic_load_relaxed(reader_pin(r.entry, 0)), 0); /* no pin is left */
        *slot = saved;
        slot->payload[0] = block;
        rig.ring->low = 0;
        rig_close(&rig);
    }
}

static void test_rings_of_noise(void **state) {
    (void)state;
    uint64_t random = test_seed();
    const enum policy policies[] = { POLICY_NONE, POLICY_LOSSY, POLICY_RELIABLE, POLICY_LATEST };
    for (int i = 0; i < 200; i++) {
        struct rig rig;
        struct ring_reader r;
        rig_open(&rig, 8, i % 2 == 0 ? 96 : 300, 4, 0);
        if (i % 4 == 0)
            rig_observer(&rig, &r);
        else
            rig_reader(&rig, &r, policies[i % 4], 2);
        for (int step = 0; step < 100; step++) {
            struct slot *slot = slot_of(&rig, draw(&random, 8));
            atomic_u64 *words[] = { &slot->seq,      &slot->bytes,    &slot->payload[0],
                                    &rig.ring->low,  &rig.ring->head, &rig.ring->evicted[0],
                                    &rig.ring->bell, &rig.ring->starved };
            uint64_t near = draw(&random, 20), any = mix(random + 1);
            atomic_store_relaxed(words[draw(&random, ARRAY_LENGTH(words))],
                                 draw(&random, 3) == 0 ? any : near);
            use_all(&rig, &r);
        }
        free(rig.memory); /* not rig_close(): what stands there now is no ring */
        unmap_twice(&rig.ring_memory);
        unmap_twice(&rig.readers_memory);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settling_tells_once_that_there_is_room),
        cmocka_unit_test(test_an_evicted_reader_wakes_nobody),
        cmocka_unit_test(test_the_bell_rings_once_for_an_arming),
        cmocka_unit_test(test_each_group_can_ring),
        cmocka_unit_test(test_needs_that_jump),
        cmocka_unit_test(test_pins_that_are_none),
        cmocka_unit_test(test_pins_beyond_the_grant_are_ignored),
        cmocka_unit_test(test_single_words_that_no_publisher_writes),
        cmocka_unit_test(test_what_is_broken_is_said),
        cmocka_unit_test(test_rings_of_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
