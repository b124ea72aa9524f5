/* Two sides of a ring at the same time, placed by hand: every access of one side to shared memory
 * is a place where the other side may come in between, and each such place is tried - and each
 * pair of places. So the sources of the ring room are compiled into this program, with accesses
 * that call stop_here() first. What a weak memory order would add is not covered here. */
#include "base/atomic.h"

#include <stdbool.h>

static void stop_here(void);

#undef atomic_load_relaxed
#undef atomic_load_acquire
#undef atomic_store_relaxed
#undef atomic_store_release
#define atomic_load_relaxed(p) (stop_here(), atomic_load_explicit((p), memory_order_relaxed))
#define atomic_load_acquire(p) (stop_here(), atomic_load_explicit((p), memory_order_acquire))
#define atomic_store_relaxed(p, v) \
    (stop_here(), atomic_store_explicit((p), (v), memory_order_relaxed))
#define atomic_store_release(p, v) \
    (stop_here(), atomic_store_explicit((p), (v), memory_order_release))

static void copy_out_stopping(void *to, const void *from, size_t bytes) {
    size_t half = bytes / 16 * 8;
    stop_here();
    (copy_out_relaxed)(to, from, half);
    stop_here();
    (copy_out_relaxed)((char *)to + half, (const char *)from + half, bytes - half);
}
static void copy_in_stopping(void *to, const void *from, size_t bytes) {
    size_t half = bytes / 16 * 8;
    stop_here();
    (copy_in_relaxed)(to, from, half);
    stop_here();
    (copy_in_relaxed)((char *)to + half, (const char *)from + half, bytes - half);
}
#define copy_out_relaxed copy_out_stopping
#define copy_in_relaxed copy_in_stopping

#include "ring/observer.c"
#include "ring/publisher.c"
#include "ring/reader.c"

#include "rig.h"

/* ---- coming in between */

static struct {
    bool on;
    uint32_t at[2], count; /* comes in before accesses number at[0] and at[1] */
    void (*run)(void *argument);
    void *argument;
} stop;

static void stop_here(void) {
    if (!stop.on)
        return;
    uint32_t i = stop.count++;
    if (i == stop.at[0] || i == stop.at[1]) {
        stop.on = false; /* who comes in is not stopped itself */
        stop.run(stop.argument);
        stop.on = true;
    }
}

struct scene {
    struct rig rig;
    struct ring_reader r;
    enum policy policy;
    uint32_t n;               /* how many samples one coming in publishes, or takes */
    uint64_t first;           /* the sequence at which the reader began */
    uint64_t received, lost;
    struct ring_sample held[64];
    uint32_t n_held;
    uint32_t wakes;           /* times that settling said so */
    uint32_t entry;           /* of the roster */
    bool evicts, sleeps;
    uint32_t slept_on;        /* the bell that the sleeper would sleep on */
    enum ring_reclaim_result reclaimed;
};

/* What both sides do; `outer` is stopped at its accesses, `inner` comes in there. */
struct play {
    void (*prepare)(struct scene *s);
    void (*outer)(struct scene *s);
    void (*inner)(void *scene);
    void (*judge)(struct scene *s);
    enum policy policy;
    uint64_t depth, bytes;
    uint32_t n;
};

/* One run. Returns how many accesses `outer` made. */
static uint32_t play_once(const struct play *play, uint32_t first, uint32_t second) {
    static struct scene s;
    memset(&s, 0, sizeof(s));
    s.n = play->n;
    s.policy = play->policy;
    stop.on = false;
    rig_open(&s.rig, play->depth, play->bytes, 16, 0);
    play->prepare(&s);
    stop.at[0] = first;
    stop.at[1] = second;
    stop.count = 0;
    stop.run = play->inner;
    stop.argument = &s;
    stop.on = true;
    play->outer(&s);
    stop.on = false;
    rig_check(&s.rig);
    play->judge(&s);
    rig_close(&s.rig);
    return stop.count;
}

#define NOWHERE UINT32_MAX
#define PAIRS_UP_TO 40u /* accesses: for longer ones pairs would take too long */

static void explore(struct play play) {
    static const uint64_t depths[] = { 2, 4, 8 };
    static const uint64_t sizes[] = { 96, 300 }; /* inline, in blocks */
    for (size_t d = 0; d < ARRAY_LENGTH(depths); d++) {
        const uint32_t counts[] = { 1, (uint32_t)depths[d], 2 * (uint32_t)depths[d] + 1 };
        for (size_t k = 0; k < ARRAY_LENGTH(sizes) * ARRAY_LENGTH(counts); k++) {
            uint32_t places;
            play.depth = depths[d];
            play.bytes = sizes[k % 2];
            play.n = counts[k / 2];
            places = play_once(&play, NOWHERE, NOWHERE);
            assert_true(places > 0);
            for (uint32_t i = 0; i <= places; i++) {
                play_once(&play, i, NOWHERE);
                for (uint32_t j = i + 1; d == 0 && places <= PAIRS_UP_TO && j <= places; j++)
                    play_once(&play, i, j);
            }
        }
    }
}

/* ---- what a publisher and a reader do */

static void publish_some(void *scene) {
    struct scene *s = scene;
    rig_publish(&s->rig, s->n);
}

static void take_next(struct scene *s) {
    char buffer[RIG_MESSAGE_MAX];
    struct ring_sample sample;
    enum ring_take_result result = ring_take(&s->r, buffer, &sample);
    if (result == RING_NO_PIN)
        result = ring_read(&s->r, buffer, sizeof(buffer), &sample);
    assert_int_not_equal(result, RING_BROKEN);
    if (result == RING_OVERRUN)
        s->lost += sample.lost;
    if (result != RING_TAKEN)
        return;
    s->received++;
    if (sample.block != NULL)
        s->held[s->n_held++] = sample; /* looked at by the judge */
    else
        assert_true(is_as_sent(&s->rig, &sample, buffer));
}

static void settle(struct scene *s) {
    s->wakes += ring_reader_settle(&s->r);
}

static void take_some(void *scene) {
    struct scene *s = scene;
    for (uint32_t i = 0; i < s->n; i++)
        take_next(s);
    settle(s);
}

static void release_some(void *scene) {
    struct scene *s = scene;
    for (; s->n_held > 1; s->n_held--)
        ring_release(&s->r, s->held[s->n_held - 1].pin);
    take_some(s);
}

/* What is held stays whole whatever is published; the counts are exact. */
static void judge_reader(struct scene *s) {
    uint64_t lost;
    for (uint64_t lap = 0; lap < 3; lap++) {
        for (uint32_t i = 0; i < s->n_held; i++)
            assert_true(is_as_sent(&s->rig, &s->held[i], s->held[i].block));
        s->received += take_all(&s->rig, &s->r, &lost);
        s->lost += lost;
        rig_refresh(&s->rig);
        assert_int_equal(rig_publish(&s->rig, s->rig.g.depth), s->rig.g.depth);
        rig_check(&s->rig);
    }
    s->received += take_all(&s->rig, &s->r, &lost);
    s->lost += lost;
    assert_int_equal(s->first + s->received + s->lost, s->rig.p.head);
    if (s->policy == POLICY_RELIABLE && !s->r.evicted)
        assert_int_equal(s->lost, 0);
}

static void begin_together(struct scene *s) {
    s->entry = rig_reader(&s->rig, &s->r, s->policy, 2);
    rig_publish(&s->rig, s->rig.g.depth);
}

static void observe(struct scene *s) {
    rig_observer(&s->rig, &s->r);
    rig_publish(&s->rig, s->rig.g.depth);
}

/* ---- taking while the publisher goes on, and the other way round */

static void take_three(struct scene *s) {
    for (int i = 0; i < 3; i++) {
        take_next(s);
        settle(s);
    }
}

static void publish_outer(struct scene *s) {
    rig_publish(&s->rig, 2);
}

static void test_taking_while_it_is_published(void **state) {
    const enum policy policies[] = { POLICY_LOSSY, POLICY_RELIABLE };
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        explore((struct play){ begin_together, take_three, publish_some, judge_reader,
                               policies[i], 0, 0, 0 });
        explore((struct play){ begin_together, publish_outer, take_some, judge_reader,
                               policies[i], 0, 0, 0 });
        explore((struct play){ begin_together, publish_outer, release_some, judge_reader,
                               policies[i], 0, 0, 0 });
    }
}

static void test_observing_while_it_is_overwritten(void **state) {
    (void)state;
    explore((struct play){ observe, take_three, publish_some, judge_reader, POLICY_NONE,
                           0, 0, 0 });
}

/* ---- joining a running ring */

static void seat_only(struct scene *s) {
    rig_publish(&s->rig, 2 * s->rig.g.depth);
    s->entry = rig_seat(&s->rig, &s->r, s->policy, 2); /* the generation has moved, no more */
}

static void join_oldest(struct scene *s) {
    s->first = ring_reader_join(&s->r, 0);
}

static void test_joining_while_it_is_published(void **state) {
    const enum policy policies[] = { POLICY_LOSSY, POLICY_RELIABLE };
    (void)state;
    for (size_t i = 0; i < 2; i++)
        explore((struct play){ seat_only, join_oldest, publish_some, judge_reader, policies[i],
                               0, 0, 0 });
}

static bool joined;
static void join_once(void *scene) {
    struct scene *s = scene;
    if (!joined)
        s->first = ring_reader_join(&s->r, 0);
    joined = true;
}
static void seat_and_forget(struct scene *s) {
    joined = false;
    seat_only(s);
}
static void publish_then_join(struct scene *s) {
    rig_publish(&s->rig, s->n);
    stop.on = false;
    join_once(s);
}

static void test_publishing_while_somebody_joins(void **state) {
    const enum policy policies[] = { POLICY_LOSSY, POLICY_RELIABLE };
    (void)state;
    for (size_t i = 0; i < 2; i++)
        explore((struct play){ seat_and_forget, publish_then_join, join_once, judge_reader,
                               policies[i], 0, 0, 0 });
}

/* ---- the newest */

static void take_newest(struct scene *s) {
    uint64_t head = s->rig.p.head; /* published before we look */
    for (int attempt = 0; attempt < 4 && s->received == 0; attempt++) {
        assert_int_equal(ring_skip_to_latest(&s->r), RING_TAKEN);
        take_next(s);
    }
    assert_int_equal(s->received, 1); /* lapped at most as often as somebody came in */
    assert_true(s->r.next >= head);
}

static void judge_newest(struct scene *s) {
    rig_publish(&s->rig, 3 * s->rig.g.depth);
    for (uint32_t i = 0; i < s->n_held; i++)
        assert_true(is_as_sent(&s->rig, &s->held[i], s->held[i].block));
    s->received = 0;
    take_newest(s);
    assert_int_equal(s->r.next, s->rig.p.head);
}

static void test_the_newest_while_it_is_published(void **state) {
    (void)state;
    explore((struct play){ begin_together, take_newest, publish_some, judge_newest,
                           POLICY_LATEST, 0, 0, 0 });
}

static void look_at_times(struct scene *s) {
    uint64_t time;
    for (uint64_t i = 0; i < 4; i++)
        if (ring_sample_time(&s->r, i, &time))
            assert_int_equal(time, i + 1000);
}
static void judge_nothing(struct scene *s) {
    (void)s;
}

static void test_times_while_they_are_overwritten(void **state) {
    (void)state;
    explore((struct play){ observe, look_at_times, publish_some, judge_nothing, POLICY_NONE,
                           0, 0, 0 });
}

/* What a viewer copies is whole, or it says that it is not. */
static void look_from_outside(struct scene *s) {
    char buffer[RIG_MESSAGE_MAX];
    for (uint64_t i = 0; i < 4; i++) {
        struct ring_observed_sample seen;
        if (ring_observe_sample(s->rig.ring_view, &s->rig.g, i, buffer, sizeof(buffer), &seen) !=
            RING_SEEN)
            continue;
        struct ring_sample sample = {
            .sequence = i, .time_ns = seen.time_ns, .tag = seen.tag, .bytes = seen.bytes
        };
        assert_true(is_as_sent(&s->rig, &sample, buffer));
        s->received++;
    }
}
static void judge_looking(struct scene *s) {
    assert_true(s->received > 0 || s->rig.p.head > s->rig.g.depth);
}

static void test_looking_from_outside_while_it_is_overwritten(void **state) {
    (void)state;
    explore((struct play){ observe, look_from_outside, publish_some, judge_looking, POLICY_NONE,
                           0, 0, 0 });
}

/* ---- eviction */

static void evict_and_publish(void *scene) {
    struct scene *s = scene;
    ring_evict(&s->rig.p, s->entry);
    assert_int_equal(rig_publish(&s->rig, s->n), s->n);
}

static void test_evicted_while_taking(void **state) {
    (void)state;
    explore((struct play){ begin_together, take_three, evict_and_publish, judge_reader,
                           POLICY_RELIABLE, 0, 0, 0 });
}

static void evict_outer(struct scene *s) {
    evict_and_publish(s);
}

static void test_taking_while_being_evicted(void **state) {
    (void)state;
    explore((struct play){ begin_together, evict_outer, take_some, judge_reader,
                           POLICY_RELIABLE, 0, 0, 0 });
}

/* ---- space: nobody sleeps while there is room */

static void want_space(void *scene) {
    struct scene *s = scene;
    s->reclaimed = ring_reclaim(&s->rig.p, 1);
    if (s->reclaimed != RING_NO_ROOM)
        return;
    s->wakes = 0; /* its word of space is loaded here: a wake from now on is noticed */
    ring_set_starved(&s->rig.p, s->rig.p.wanted);
    s->reclaimed = ring_reclaim(&s->rig.p, 1);
}
static void want_space_outer(struct scene *s) {
    want_space(s);
}

static void judge_space(struct scene *s) {
    settle(s);
    if (s->reclaimed == RING_NO_ROOM && s->r.need >= s->rig.p.wanted)
        assert_true(s->wakes > 0);
    if (s->r.need < s->rig.p.wanted)
        assert_int_equal(s->wakes, 0); /* none for nothing */
    ring_set_starved(&s->rig.p, 0);
    judge_reader(s);
}

static void test_no_sleep_while_there_is_room(void **state) {
    (void)state;
    explore((struct play){ begin_together, want_space_outer, take_some, judge_space,
                           POLICY_RELIABLE, 0, 0, 0 });
    explore((struct play){ begin_together, take_three, want_space, judge_space,
                           POLICY_RELIABLE, 0, 0, 0 });
}

/* ---- data: nobody sleeps while there is something to take */

static void take_all_there_is(struct scene *s) {
    rig_reader(&s->rig, &s->r, s->policy, 2);
}

static void lie_down(void *scene) { /* as rest.c does */
    struct scene *s = scene;
    uint64_t bell = atomic_load_acquire(&s->rig.ring_view->bell);
    uint64_t armed = atomic_load_relaxed(&s->rig.readers->armed);
    if (armed < bell)
        atomic_store_relaxed(&s->rig.readers->armed, bell);
    s->slept_on = (uint32_t)bell;
    s->sleeps = !ring_reader_ready(&s->r);
}
static void lie_down_outer(struct scene *s) {
    lie_down(s);
}
static void publish_one(void *scene) {
    struct scene *s = scene;
    rig_publish(&s->rig, 1);
}
static void publish_one_outer(struct scene *s) {
    publish_one(s);
}

static void judge_data(struct scene *s) {
    bool asleep = s->sleeps && (uint32_t)atomic_load_relaxed(&s->rig.ring->bell) == s->slept_on;
    assert_false(asleep && ring_reader_ready(&s->r));
}

static void test_no_sleep_while_there_is_data(void **state) {
    (void)state;
    explore((struct play){ take_all_there_is, publish_one_outer, lie_down, judge_data,
                           POLICY_LOSSY, 0, 0, 0 });
    explore((struct play){ take_all_there_is, lie_down_outer, publish_one, judge_data,
                           POLICY_LOSSY, 0, 0, 0 });
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taking_while_it_is_published),
        cmocka_unit_test(test_observing_while_it_is_overwritten),
        cmocka_unit_test(test_joining_while_it_is_published),
        cmocka_unit_test(test_publishing_while_somebody_joins),
        cmocka_unit_test(test_the_newest_while_it_is_published),
        cmocka_unit_test(test_times_while_they_are_overwritten),
        cmocka_unit_test(test_looking_from_outside_while_it_is_overwritten),
        cmocka_unit_test(test_evicted_while_taking),
        cmocka_unit_test(test_taking_while_being_evicted),
        cmocka_unit_test(test_no_sleep_while_there_is_room),
        cmocka_unit_test(test_no_sleep_while_there_is_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
