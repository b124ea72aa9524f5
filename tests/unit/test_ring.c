/* The ring: invariants I1 to I6 of DESIGN 3 placed by hand at their edges, hostile words on both
 * sides, and long random runs against what must hold. No processes, no second thread: what two
 * sides do at the same time is in test_ring_edges.c. */
#include "rig.h"

static const uint64_t depths[] = { 2, 4, 8, 16, 64 };
static const uint64_t sizes[] = { 32, 224, 300, 5000 }; /* inline, inline, blocks, blocks */

/* The k-th first sequence to be tried: 0, and short of where a word of 32, of 63 bits or the
 * sequences themselves end, so that `room` samples cross or reach it. */
#define STARTS 4
static uint64_t start_of(int k, uint64_t room) {
    const uint64_t edges[STARTS] = { 0, UINT64_C(1) << 32, UINT64_C(1) << 63, SEQUENCE_END };
    return k == 0 ? 0 : edges[k] - (k == STARTS - 1 ? room : room / 2);
}

#define FOR_EACH_SHAPE(depth, bytes, start, room)                        \
    for (size_t d_ = 0; d_ < ARRAY_LENGTH(depths); d_++)                 \
        for (size_t s_ = 0; s_ < ARRAY_LENGTH(sizes); s_++)              \
            for (int k_ = 0; k_ < STARTS; k_++)                          \
                for (uint64_t once_ = 1, depth = depths[d_], bytes = sizes[s_], \
                              start = start_of(k_, (room) * depth); once_; once_ = 0)

static void test_everyone_receives_everything(void **state) {
    (void)state;
    FOR_EACH_SHAPE(depth, bytes, start, 6) {
        struct rig rig;
        struct ring_reader readers[4];
        uint64_t lost, n = 6 * depth;
        rig_open(&rig, depth, bytes, 16, start);
        rig_reader(&rig, &readers[0], POLICY_LOSSY, 4);
        rig_reader(&rig, &readers[1], POLICY_RELIABLE, 4);
        rig_reader(&rig, &readers[2], POLICY_RELIABLE, 0); /* no pin granted: copies */
        rig_observer(&rig, &readers[3]);
        for (uint64_t i = 0; i < n; i++) {
            assert_int_equal(rig_publish(&rig, 1), 1);
            for (size_t k = 0; k < ARRAY_LENGTH(readers); k++) {
                assert_int_equal(take_all(&rig, &readers[k], &lost), 1);
                assert_int_equal(lost, 0);
            }
        }
        assert_int_equal(rig.p.head, start + n);
        rig_check(&rig);
        rig_close(&rig);
    }
}

static void test_a_lapped_reader_knows_its_loss_exactly(void **state) {
    (void)state;
    FOR_EACH_SHAPE(depth, bytes, start, 5) {
        struct rig rig;
        struct ring_reader lossy, observer;
        uint64_t lost, received, n = 4 * depth + depth / 2 + 1;
        rig_open(&rig, depth, bytes, 4, start);
        rig_reader(&rig, &lossy, POLICY_LOSSY, 4);
        rig_observer(&rig, &observer);
        assert_int_equal(rig_publish(&rig, n), n);
        received = take_all(&rig, &lossy, &lost);
        assert_int_equal(received + lost, n);
        assert_int_equal(lost, rig.p.low - start); /* the gap is what lies below low, no more */
        assert_true(received >= depth - ring_batch((uint32_t)depth));
        received = take_all(&rig, &observer, &lost);
        assert_int_equal(received + lost, n);
        rig_close(&rig);
    }
}

static void test_sequences_end(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(depths); i++) {
        struct rig rig;
        struct ring_reader reliable;
        uint64_t lost, received = 0;
        rig_open(&rig, depths[i], 300, 4, SEQUENCE_END - 21);
        rig_reader(&rig, &reliable, POLICY_RELIABLE, 4);
        for (int k = 0; k < 21; k++) {
            assert_int_equal(rig_publish(&rig, 1), 1);
            received += take_all(&rig, &reliable, &lost);
        }
        assert_int_equal(received, 21);
        assert_int_equal(rig.p.head, SEQUENCE_END);
        assert_false(ring_can_claim(&rig.p, 1));
        assert_int_equal(ring_reclaim(&rig.p, 1), RING_USED_UP);
        assert_false(ring_reader_ready(&reliable));
        rig_close(&rig);
    }
}

/* ---- reliable readers */

static void test_a_reliable_reader_holds_the_publisher_back(void **state) {
    (void)state;
    FOR_EACH_SHAPE(depth, bytes, start, 6) {
        struct rig rig;
        struct ring_reader slow, quick;
        struct ring_sample s;
        uint64_t lost, batch = ring_batch((uint32_t)depth);
        rig_open(&rig, depth, bytes, 4, start);
        rig_reader(&rig, &slow, POLICY_RELIABLE, 2);
        rig_reader(&rig, &quick, POLICY_RELIABLE, 2);
        assert_int_equal(rig_publish(&rig, depth + 3), depth); /* not one more */
        assert_int_equal(take_all(&rig, &quick, &lost), depth);
        assert_int_equal(ring_reclaim(&rig.p, 1), RING_NO_ROOM);
        /* What it waits for is room for a batch, and just that need makes it. */
        assert_int_equal(rig.p.wanted, start + batch);
        for (uint64_t i = 0; i < batch; i++) {
            assert_int_equal(take_one(&rig, &slow, &s), RING_TAKEN);
            assert_int_equal(ring_reclaim(&rig.p, 1), RING_NO_ROOM); /* not settled */
        }
        ring_reader_settle(&slow);
        assert_int_equal(ring_reclaim(&rig.p, (uint32_t)batch), RING_ROOM);
        assert_int_equal(rig_publish(&rig, 2 * depth), batch);
        assert_int_equal(take_all(&rig, &slow, &lost), depth); /* the rest, and what came */
        assert_int_equal(lost, 0);
        rig_close(&rig);
    }
}

static void test_batches_up_to_the_whole_depth(void **state) {
    (void)state;
    FOR_EACH_SHAPE(depth, bytes, start, 6) {
        struct rig rig;
        struct ring_reader reliable;
        uint64_t lost;
        rig_open(&rig, depth, bytes, 4, start);
        for (int k = 0; k < 2; k++) { /* nobody holds it back: a whole lap at once */
            assert_int_equal(ring_reclaim(&rig.p, (uint32_t)depth), RING_ROOM);
            assert_int_equal(rig.p.limit, rig.p.head + depth);
            for (uint64_t i = 0; i < depth; i++)
                rig_append(&rig);
            ring_finish(&rig.p);
            rig_check(&rig);
        }
        rig_publish(&rig, 3); /* not all told yet: low must not pass the head that others see */
        assert_int_equal(ring_reclaim(&rig.p, (uint32_t)depth), RING_ROOM);
        rig_check(&rig);
        rig_append(&rig);
        ring_finish(&rig.p);
        rig_seat(&rig, &reliable, POLICY_RELIABLE, 4);
        rig_refresh(&rig);
        assert_int_equal(ring_reader_join(&reliable, rig.p.head - 1), rig.p.head - 1);
        assert_int_equal(ring_reclaim(&rig.p, (uint32_t)depth), RING_NO_ROOM);
        assert_int_equal(rig.p.wanted, rig.p.head); /* it has to be read to the end */
        assert_int_equal(take_all(&rig, &reliable, &lost), 1);
        assert_int_equal(ring_reclaim(&rig.p, (uint32_t)depth), RING_ROOM);
        for (uint64_t i = 0; i < depth; i++)
            rig_append(&rig);
        ring_finish(&rig.p);
        assert_int_equal(take_all(&rig, &reliable, &lost), depth);
        assert_int_equal(lost, 0);
        rig_close(&rig);
    }
}

static void test_eviction_ends_the_waiting(void **state) {
    (void)state;
    struct rig rig;
    struct ring_reader laggard, other;
    struct ring_sample held, s;
    char buffer[RIG_MESSAGE_MAX];
    uint64_t lost, received = 0;
    rig_open(&rig, 8, 5000, 8, 0);
    uint32_t i = rig_reader(&rig, &laggard, POLICY_RELIABLE, 2);
    rig_reader(&rig, &other, POLICY_RELIABLE, 2);
    assert_int_equal(rig_publish(&rig, 100), 8);
    do /* holds the block of one sample */
        assert_int_equal(ring_take(&laggard, buffer, &held), RING_TAKEN);
    while (held.block == NULL);
    received = held.sequence + 1;
    assert_int_equal(take_all(&rig, &other, &lost), 8);
    assert_int_equal(ring_reclaim(&rig.p, 8), RING_NO_ROOM);
    ring_evict(&rig.p, i);
    assert_int_equal(ring_reclaim(&rig.p, 1), RING_ROOM); /* its need no longer counts */
    for (int k = 0; k < 50; k++) {
        assert_int_equal(rig_publish(&rig, 1), 1);
        assert_int_equal(take_all(&rig, &other, &lost), 1);
        assert_int_equal(lost, 0);
        assert_true(is_as_sent(&rig, &held, held.block)); /* its pin still does */
        rig_check(&rig);
    }
    assert_false(laggard.evicted);
    assert_int_equal(take_one(&rig, &laggard, &s), RING_OVERRUN);
    assert_true(laggard.evicted); /* a lossy reader from now on */
    ring_release(&laggard, held.pin);
    received += s.lost + take_all(&rig, &laggard, &lost);
    assert_int_equal(lost, 0);
    assert_int_equal(received, 58);
    assert_int_equal(rig_publish(&rig, 30), 8); /* the other one still holds it back */
    assert_false(ring_reader_settle(&laggard));
    ring_unevict(&rig.p, rig.roster[i].bit);
    assert_int_equal(atomic_load_relaxed(&rig.ring->evicted[0]), 0);
    rig_close(&rig);
}

/* ---- joining and leaving */

static void test_joining_late(void **state) {
    (void)state;
    FOR_EACH_SHAPE(depth, bytes, start, 4) {
        struct rig rig;
        struct ring_reader readers[4];
        const enum policy policies[4] = { POLICY_LOSSY, POLICY_RELIABLE, POLICY_RELIABLE,
                                          POLICY_LATEST };
        uint64_t lost, n = 3 * depth, low;
        rig_open(&rig, depth, bytes, 16, start);
        rig_publish(&rig, n);
        low = rig.p.low;
        for (size_t i = 0; i < 4; i++)
            rig_seat(&rig, &readers[i], policies[i], 2);
        assert_int_equal(ring_reader_join(&readers[0], start), low); /* too old: the oldest */
        assert_int_equal(ring_reader_join(&readers[1], start), low);
        assert_int_equal(ring_reader_join(&readers[2], start + n), start + n); /* only news */
        assert_int_equal(ring_reader_join(&readers[3], start + n - 1), start + n - 1);
        rig_refresh(&rig);
        assert_int_equal(take_all(&rig, &readers[0], &lost), start + n - low);
        assert_int_equal(take_all(&rig, &readers[1], &lost), start + n - low);
        assert_int_equal(take_all(&rig, &readers[2], &lost), 0);
        assert_int_equal(take_all(&rig, &readers[3], &lost), 1);
        assert_int_equal(rig_publish(&rig, 2), 2);
        assert_int_equal(take_all(&rig, &readers[2], &lost), 2);
        assert_int_equal(take_all(&rig, &readers[1], &lost), 2);
        assert_int_equal(lost, 0);
        rig_close(&rig);
    }
}

static void test_joining_counts_before_the_publisher_goes_on(void **state) {
    (void)state;
    struct rig rig;
    struct ring_reader reliable;
    uint64_t lost;
    rig_open(&rig, 8, 300, 4, 0);
    rig_publish(&rig, 8);
    rig_seat(&rig, &reliable, POLICY_RELIABLE, 4);
    assert_int_equal(ring_reader_join(&reliable, 0), 0);
    /* The roster that the publisher knows is old: it may not use what it has just reclaimed. */
    assert_int_equal(ring_reclaim(&rig.p, 1), RING_STALE);
    assert_false(ring_can_claim(&rig.p, 1));
    rig_refresh(&rig);
    assert_int_equal(ring_reclaim(&rig.p, 1), RING_NO_ROOM);
    assert_int_equal(take_all(&rig, &reliable, &lost), 8);
    assert_int_equal(lost, 0);
    rig_close(&rig);
}

static void test_leaving_frees_the_publisher(void **state) {
    (void)state;
    struct rig rig;
    struct ring_reader reliable;
    struct ring_sample s;
    char buffer[RIG_MESSAGE_MAX];
    rig_open(&rig, 4, 5000, 4, 0);
    rig_reader(&rig, &reliable, POLICY_RELIABLE, 4);
    assert_int_equal(rig_publish(&rig, 9), 4);
    do
        assert_int_equal(ring_take(&reliable, buffer, &s), RING_TAKEN);
    while (s.block == NULL);
    ring_set_starved(&rig.p, rig.p.wanted);
    assert_true(ring_reader_leave(&reliable)); /* who waits has to be woken */
    ring_set_starved(&rig.p, 0);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(atomic_load_relaxed(reader_pin(reliable.entry, i)), 0);
    assert_int_equal(rig_publish(&rig, 9), 9);
    rig_check(&rig);
    rig_close(&rig);
}

/* ---- pins */

static uint32_t count_different(const struct ring_sample *samples, uint32_t n) {
    uint32_t different = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = 0;
        while (samples[k].sequence != samples[i].sequence)
            k++;
        different += k == i;
    }
    return different;
}

static void test_a_held_block_is_never_reused(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(depths); i++) {
        struct rig rig;
        struct ring_reader lossy, wide;
        struct ring_sample held[3 + 20];
        char buffer[RIG_MESSAGE_MAX];
        uint32_t n = 0;
        rig_open(&rig, depths[i], 5000, 3 + 20, 0);
        rig_reader(&rig, &lossy, POLICY_LOSSY, 3);
        rig_reader(&rig, &wide, POLICY_LOSSY, 20); /* pins over three entries */
        for (uint64_t lap = 0; lap < 50; lap++) {
            struct ring_sample s;
            rig_publish(&rig, 1 + lap % (2 * depths[i]));
            for (int k = 0; k < 2; k++) { /* one more of each, as long as pins last */
                struct ring_reader *r = k == 0 ? &lossy : &wide;
                while (r->held != (UINT64_C(1) << r->pins) - 1) {
                    enum ring_take_result result = ring_take(r, buffer, &s);
                    if (result != RING_TAKEN && result != RING_OVERRUN)
                        break;
                    if (result == RING_TAKEN && s.block != NULL) {
                        held[n++] = s;
                        break;
                    }
                }
            }
            for (uint32_t k = 0; k < n; k++)
                assert_true(is_as_sent(&rig, &held[k], held[k].block));
            rig_check(&rig);
        }
        assert_int_equal(n, 23);
        rig_publish(&rig, 2 * depths[i]);
        assert_int_equal(rig_count_aside(&rig, held, n), count_different(held, n));
        for (uint32_t k = 0; k < 3; k++)
            ring_release(&lossy, k);
        for (uint32_t k = 0; k < 20; k++)
            ring_release(&wide, k);
        rig_publish(&rig, 30 * depths[i] + 100); /* they come back */
        assert_int_equal(rig_count_aside(&rig, held, n), 0);
        rig_check(&rig);
        rig_close(&rig);
    }
}

static void test_a_pin_outlives_the_need(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(depths); i++) {
        struct rig rig;
        struct ring_reader reliable;
        struct ring_sample held;
        char buffer[RIG_MESSAGE_MAX];
        uint64_t lost, received;
        rig_open(&rig, depths[i], 5000, 1, 0);
        rig_reader(&rig, &reliable, POLICY_RELIABLE, 1);
        do {
            rig_publish(&rig, 1);
            assert_int_equal(ring_take(&reliable, buffer, &held), RING_TAKEN);
            ring_reader_settle(&reliable);
        } while (held.block == NULL);
        received = held.sequence + 1;
        for (uint64_t k = 0; k < 20 * depths[i]; k++) {
            assert_int_equal(rig_publish(&rig, 1), 1);
            received += take_all(&rig, &reliable, &lost); /* by copies: its one pin is in use */
            assert_int_equal(lost, 0);
            assert_true(is_as_sent(&rig, &held, held.block));
        }
        assert_int_equal(received, rig.p.head);
        assert_int_equal(rig_count_aside(&rig, &held, 1), 1);
        ring_release(&reliable, held.pin);
        ring_release(&reliable, held.pin); /* twice does no harm */
        rig_publish(&rig, 1);
        rig_close(&rig);
    }
}

static void test_without_a_pin_nothing_changes(void **state) {
    (void)state;
    struct rig rig;
    struct ring_reader reader;
    struct ring_sample s;
    char message[300], buffer[300];
    rig_open(&rig, 4, 300, 1, 0);
    rig_reader(&rig, &reader, POLICY_LOSSY, 0);
    fill(message, 300, 0);
    ring_append(&rig.p, message, 300, 1, 2);
    ring_finish(&rig.p);
    assert_int_equal(ring_take(&reader, buffer, &s), RING_NO_PIN);
    assert_int_equal(reader.next, 0);
    assert_int_equal(ring_read(&reader, buffer, 299, &s), RING_NO_PIN); /* too small a buffer */
    assert_int_equal(s.bytes, 300);
    assert_int_equal(reader.next, 0);
    assert_int_equal(ring_read(&reader, buffer, 300, &s), RING_TAKEN);
    assert_true(is_filled(buffer, 300, 0));
    assert_int_equal(s.tag, 1);
    assert_int_equal(s.time_ns, 2);
    assert_int_equal(ring_take(&reader, buffer, &s), RING_NOTHING);
    assert_int_equal(ring_read(&reader, buffer, 300, &s), RING_NOTHING);
    rig_close(&rig);
}

static void test_a_loan_that_shrinks_or_is_given_back(void **state) {
    (void)state;
    struct rig rig;
    struct ring_reader reader;
    struct ring_sample s;
    char buffer[300];
    rig_open(&rig, 4, 300, 1, 0);
    rig_reader(&rig, &reader, POLICY_RELIABLE, 1);
    for (uint64_t i = 0; i < 40; i++) {
        uint32_t n_free = rig.p.n_free;
        size_t bytes = i % 3 == 0 ? 300 : i % 3 == 1 ? 33 : 32; /* the last fits into the slot */
        if (!ring_can_claim(&rig.p, 1))
            assert_int_equal(ring_reclaim(&rig.p, 1), RING_ROOM);
        n_free = rig.p.n_free;
        void *loan = ring_claim(&rig.p, 300);
        rig_check(&rig);
        ring_unclaim(&rig.p);
        assert_int_equal(rig.p.n_free, n_free);
        loan = ring_claim(&rig.p, 300);
        fill(loan, bytes, i);
        ring_commit(&rig.p, bytes, 0, 0);
        ring_finish(&rig.p);
        assert_int_equal(rig.p.n_free, bytes > 32 ? n_free - 1 : n_free);
        rig_check(&rig);
        assert_int_equal(ring_take(&reader, buffer, &s), RING_TAKEN);
        assert_int_equal(s.bytes, bytes);
        assert_true((s.block != NULL) == (bytes > 32));
        assert_true(is_filled(s.block != NULL ? s.block : buffer, bytes, i));
        if (s.block != NULL)
            ring_release(&reader, s.pin);
        ring_reader_settle(&reader);
    }
    rig_close(&rig);
}

/* ---- the newest, and history */

static void test_latest_goes_to_the_newest(void **state) {
    (void)state;
    FOR_EACH_SHAPE(depth, bytes, start, 8) {
        struct rig rig;
        struct ring_reader latest;
        struct ring_sample s;
        rig_open(&rig, depth, bytes, 4, start);
        rig_reader(&rig, &latest, POLICY_LATEST, 2);
        assert_int_equal(ring_skip_to_latest(&latest), RING_NOTHING);
        for (uint64_t k = 1; k < depth; k += depth / 4 + 1) {
            rig_publish(&rig, k);
            assert_int_equal(ring_skip_to_latest(&latest), RING_TAKEN);
            assert_int_equal(latest.next, rig.p.head - 1);
            assert_int_equal(take_one(&rig, &latest, &s), RING_TAKEN);
            assert_int_equal(ring_skip_to_latest(&latest), RING_NOTHING);
            assert_false(ring_reader_settle(&latest));
        }
        rig_publish(&rig, 3 * depth + 1); /* lapped: never a loss */
        assert_int_equal(ring_skip_to_latest(&latest), RING_TAKEN);
        assert_int_equal(take_one(&rig, &latest, &s), RING_TAKEN);
        assert_int_equal(s.sequence, rig.p.head - 1);
        rig_close(&rig);
    }
}

static void test_times_of_what_is_still_there(void **state) {
    (void)state;
    FOR_EACH_SHAPE(depth, bytes, start, 4) {
        struct rig rig;
        struct ring_reader reader;
        uint64_t time;
        rig_open(&rig, depth, bytes, 4, start);
        rig_observer(&rig, &reader);
        assert_false(ring_sample_time(&reader, start, &time));
        rig_publish(&rig, 3 * depth);
        assert_int_equal(ring_committed_end(rig.ring_view, &rig.g), rig.p.head);
        for (uint64_t s = start; s < rig.p.head + depth && s < SEQUENCE_END; s++) {
            bool there = s >= rig.p.low && s < rig.p.head;
            assert_int_equal(ring_sample_time(&reader, s, &time), there);
            assert_true(!there || time == s + 1000);
        }
        rig_close(&rig);
    }
}

static void test_a_publisher_killed_between_commit_and_head(void **state) {
    (void)state;
    struct rig rig;
    struct ring_reader reader, late;
    struct ring_observation o;
    uint64_t lost;
    rig_open(&rig, 64, 300, 4, 0); /* tells head every 8 samples */
    rig_reader(&rig, &reader, POLICY_LOSSY, 4);
    for (int i = 0; i < 13; i++)
        rig_append(&rig); /* committed, never told */
    assert_int_equal(atomic_load_relaxed(&rig.ring->head), 0);
    assert_int_equal(ring_committed_end(rig.ring_view, &rig.g), 13);
    assert_int_equal(take_all(&rig, &reader, &lost), 13);
    rig_observer(&rig, &late);
    assert_int_equal(ring_reader_join(&late, 0), 0);
    assert_int_equal(take_all(&rig, &late, &lost), 13);
    rig_observer(&rig, &late);
    assert_int_equal(ring_skip_to_latest(&late), RING_TAKEN);
    assert_int_equal(late.next, 12);
    ring_observe(rig.ring_view, &rig.g, &o);
    assert_int_equal(o.head, 13);
    assert_int_equal(o.messages, 13);
    assert_int_equal(o.bytes, rig.p.bytes);
    assert_int_equal(ring_check(rig.ring_view, rig.ring_memory.bytes), 0);
    rig_close(&rig);
}

/* ---- long random runs */

struct model { /* what a reader must have seen */
    struct ring_reader r;
    uint64_t from, received, lost;
    struct ring_sample held[8];
    uint32_t n_held;
};

static void take_and_hold(const struct rig *rig, struct model *m, uint64_t *random) {
    char buffer[RIG_MESSAGE_MAX];
    struct ring_sample s;
    enum ring_take_result result = ring_take(&m->r, buffer, &s);
    if (result == RING_NO_PIN)
        result = ring_read(&m->r, buffer, sizeof(buffer), &s);
    m->lost += result == RING_OVERRUN ? s.lost : 0;
    assert_true(result == RING_TAKEN || result == RING_NOTHING ||
                (result == RING_OVERRUN && m->r.policy == POLICY_LOSSY));
    if (result == RING_TAKEN) {
        m->received++;
        assert_true(is_as_sent(rig, &s, s.block != NULL ? s.block : buffer));
        assert_int_equal(m->r.next, m->from + m->received + m->lost);
        if (s.block != NULL)
            m->held[m->n_held++] = s;
    }
    if (draw(random, 2) == 0)
        ring_reader_settle(&m->r);
}

static void let_go(struct model *m, uint64_t *random) {
    if (m->n_held > 0) {
        uint32_t i = (uint32_t)draw(random, m->n_held);
        ring_release(&m->r, m->held[i].pin);
        m->held[i] = m->held[--m->n_held];
    }
}

static void random_run(uint64_t seed, int steps) {
    uint64_t random = seed, depth = UINT64_C(2) << draw(&random, 5);
    struct rig rig;
    struct model models[6];
    uint32_t n = (uint32_t)draw(&random, ARRAY_LENGTH(models) + 1), evict = 0;
    memset(models, 0, sizeof(models));
    rig_open(&rig, depth, sizes[draw(&random, ARRAY_LENGTH(sizes))], 24,
             start_of((int)draw(&random, STARTS), 100000));
    for (uint32_t i = 0; i < n; i++) {
        enum policy policy = draw(&random, 2) == 0 ? POLICY_LOSSY : POLICY_RELIABLE;
        rig_reader(&rig, &models[i].r, policy, (uint32_t)draw(&random, 5));
        models[i].from = rig.g.start;
    }
    for (int step = 0; step < steps; step++) {
        struct model *m = n > 0 ? &models[draw(&random, n)] : NULL;
        uint64_t what = draw(&random, 8);
        if (what < 3 || m == NULL)
            rig_publish(&rig, 1 + draw(&random, what == 0 ? 2 * depth : 2));
        else if (what < 6)
            take_and_hold(&rig, m, &random);
        else
            let_go(m, &random);
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t k = 0; k < models[i].n_held; k++)
                assert_true(is_as_sent(&rig, &models[i].held[k], models[i].held[k].block));
        rig_check(&rig);
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t lost;
        models[i].received += take_all(&rig, &models[i].r, &lost);
        models[i].lost += lost;
        assert_int_equal(models[i].from + models[i].received + models[i].lost, rig.p.head);
        assert_true(models[i].r.policy == POLICY_LOSSY || models[i].lost == 0);
        evict += models[i].r.evicted;
    }
    assert_int_equal(evict, 0);
    rig_close(&rig);
}

static void test_random_runs(void **state) {
    (void)state;
    uint64_t seed = test_seed();
    for (int i = 0; i < 300; i++)
        random_run(seed + (uint64_t)i, 400);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everyone_receives_everything),
        cmocka_unit_test(test_a_lapped_reader_knows_its_loss_exactly),
        cmocka_unit_test(test_sequences_end),
        cmocka_unit_test(test_a_reliable_reader_holds_the_publisher_back),
        cmocka_unit_test(test_batches_up_to_the_whole_depth),
        cmocka_unit_test(test_eviction_ends_the_waiting),
        cmocka_unit_test(test_joining_late),
        cmocka_unit_test(test_joining_counts_before_the_publisher_goes_on),
        cmocka_unit_test(test_leaving_frees_the_publisher),
        cmocka_unit_test(test_a_held_block_is_never_reused),
        cmocka_unit_test(test_a_pin_outlives_the_need),
        cmocka_unit_test(test_without_a_pin_nothing_changes),
        cmocka_unit_test(test_a_loan_that_shrinks_or_is_given_back),
        cmocka_unit_test(test_latest_goes_to_the_newest),
        cmocka_unit_test(test_times_of_what_is_still_there),
        cmocka_unit_test(test_a_publisher_killed_between_commit_and_head),
        cmocka_unit_test(test_random_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
