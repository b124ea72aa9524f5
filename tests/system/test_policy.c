/* What the configuration says of a topic, or a publisher asks for, and what comes of it: history
 * that outlives its publishers, and the end of patience. */
#include "../harness.h"

#include <signal.h>
#include <unistd.h>

static void start_with(const char *configuration) {
    daemon_configure(configuration);
    daemon_start();
}

static void publish(struct shmps_publisher *pub, uint32_t who, uint64_t first, uint64_t n) {
    for (uint64_t i = first; i < first + n; i++)
        assert_ok(message_publish(pub, who, i, MESSAGE_BYTES_MIN, 0));
}

/* One that comes, publishes and goes. */
static void visit(struct shmps *bus, const char *topic, uint32_t who, uint64_t n) {
    struct shmps_publisher *pub = publisher_on(bus, topic, 0, 64);
    publish(pub, who, 0, n);
    shmps_publisher_close(pub);
}

static void expect(struct shmps_subscriber *sub, uint32_t who, uint64_t first, uint64_t n,
                   bool history) {
    struct shmps_sample s;
    for (uint64_t i = first; i < first + n; i++) {
        assert_ok(shmps_take(sub, &s, 0));
        assert_true(sample_is(&s, who, i));
        assert_int_equal(s.lost, 0);
        assert_int_equal((s.flags & SHMPS_SAMPLE_HISTORY) != 0, history);
        assert_ok(shmps_release(sub, &s));
    }
}

static void expect_nothing(struct shmps_subscriber *sub) {
    struct shmps_sample s;
    assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY);
}

/* ---- history */

static void test_the_newest_outlive_their_publishers(void **state) {
    (void)state;
    start_with("topic \"a/+\" { history = 5 }");
    struct shmps *bus = connected();
    visit(bus, "a/b", 1, 10);
    assert_int_equal(count_segments("r"), 1);
    struct shmps_subscriber *sub = subscriber_with_history(bus, "a/b", SHMPS_LOSSY, 0);
    expect(sub, 1, 5, 5, true);
    expect_nothing(sub);
    visit(bus, "a/b", 2, 3);
    expect(sub, 2, 0, 3, false);
    expect_nothing(sub);
    struct shmps_subscriber *late = subscriber_with_history(bus, "a/#", SHMPS_RELIABLE, 0);
    expect(late, 1, 8, 2, true); /* of both, by time */
    expect(late, 2, 0, 3, true);
    expect_nothing(late);
    struct shmps_subscriber *few = subscriber_with_history(bus, "a/b", SHMPS_LOSSY, 2);
    expect(few, 1, 8, 2, true); /* at least as many as the topic keeps for all */
    expect(few, 2, 0, 3, true);
    struct shmps_subscriber *none = subscriber_with_history(bus, "a/b", SHMPS_LOSSY,
                                                            SHMPS_HISTORY_NONE);
    expect_nothing(none);
    visit(bus, "a/b", 3, 5);
    expect(none, 3, 0, 5, false);
    expect(few, 3, 0, 5, false);
    expect(late, 3, 0, 5, false);
    expect(sub, 3, 0, 5, false);
    expect_nothing(sub);
    expect_nothing(late);
    expect_nothing(few);
    expect_nothing(none);
    assert_int_equal(shmps_daemon_alive(bus), 1); /* it has seen the hints before this */
    assert_int_equal(count_segments("r"), 1); /* read by all, and no longer among the newest */
    struct shmps_subscriber *last = subscriber_with_history(bus, "a/b", SHMPS_LATEST, 0);
    expect(last, 3, 4, 1, true);
    expect_nothing(last);
    visit(bus, "b", 1, 3); /* of another topic nothing is kept */
    assert_int_equal(count_segments("r"), 1);
    shmps_close(bus);
    daemon_stop();
}

/* As MQTT's retained message: the last value, across publishers and restarts of the daemon. */
static void test_the_last_value_is_retained(void **state) {
    (void)state;
    start_with("topic \"state/#\" { history = 1 }");
    struct shmps *bus = connected();
    for (uint32_t k = 1; k <= 12; k++) {
        visit(bus, "state/door", k, 1 + k % 3);
        struct shmps_subscriber *sub = subscriber_with_history(bus, "state/+", SHMPS_LOSSY, 0);
        expect(sub, k, k % 3, 1, true);
        expect_nothing(sub);
        shmps_subscriber_close(sub);
        assert_int_equal(count_segments("r"), 1);
        if (k % 4 == 0) {
            daemon_kill();
            daemon_start();
        }
    }
    shmps_close(bus);
    bus = connected();
    struct shmps_subscriber *sub = subscriber_with_history(bus, "state/door", SHMPS_LATEST, 0);
    expect(sub, 12, 0, 1, true);
    struct shmps_publisher *pub = publisher_on(bus, "state/door", 0, 64);
    publish(pub, 13, 0, 1); /* one that stays: its own is newer */
    expect(sub, 13, 0, 1, false);
    struct shmps_subscriber *late = subscriber_with_history(bus, "state/#", SHMPS_LOSSY, 0);
    expect(late, 13, 0, 1, true);
    expect_nothing(late);
    shmps_close(bus);
    daemon_stop();
}

/* By time over two publishers, one of which has grown; and before what is new. */
static void test_history_of_one_that_has_grown(void **state) {
    (void)state;
    start_with("topic t { history = 20 }");
    struct shmps *bus = connected();
    struct shmps_publisher *a = publisher_on(bus, "t", 32, 0), *b = publisher_on(bus, "t", 32, 0);
    struct shmps_subscriber *keeper = subscriber_with_history(bus, "t", SHMPS_LOSSY, 0);
    for (uint64_t i = 0; i < 12; i++)
        assert_ok(message_publish(i % 2 ? b : a, (uint32_t)(i % 2), i / 2, i == 6 ? 50000 : 100,
                                  0));
    struct shmps_subscriber *sub = subscriber_with_history(bus, "t", SHMPS_LOSSY, 0);
    for (uint64_t i = 6; i < 9; i++)
        assert_ok(message_publish(b, 1, i, 100, 0));
    for (uint64_t i = 0; i < 12; i++)
        expect(sub, (uint32_t)(i % 2), i / 2, 1, true);
    expect(sub, 1, 6, 3, false);
    expect_nothing(sub);
    shmps_subscriber_close(keeper);
    shmps_close(bus);
    daemon_stop();
}

static void test_a_ring_is_deep_enough_for_the_history(void **state) {
    (void)state;
    start_with("topic deep { history = 300 }");
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "deep", 4, 64);
    for (uint64_t i = 0; i < 2000; i++) {
        publish(pub, 1, i, 1);
        if (i % 97 != 0 || i < 300)
            continue;
        struct shmps_subscriber *sub = subscriber_with_history(bus, "deep", SHMPS_LOSSY, 0);
        expect(sub, 1, i - 299, 300, true);
        expect_nothing(sub);
        shmps_subscriber_close(sub);
    }
    shmps_close(bus);
    daemon_stop();
}

static void test_less_history_is_given_back(void **state) {
    (void)state;
    start_with("topic a { history = 5 }");
    struct shmps *bus = connected();
    visit(bus, "a", 1, 3);
    assert_int_equal(count_segments("r"), 1);
    daemon_configure("");
    kill(daemon_pid(), SIGHUP);
    while (count_segments("r") > 0)
        assert_int_equal(shmps_daemon_alive(bus), 1);
    shmps_close(bus);
    daemon_stop();
}

/* ---- history that a publisher asks for */

static int open_keeping(struct shmps *bus, const char *topic, uint32_t history,
                        struct shmps_publisher **ret) {
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    options.history = history;
    options.depth = 2;
    options.message_bytes = 64;
    return shmps_publisher_open(bus, topic, &options, ret);
}

static void visit_keeping(struct shmps *bus, const char *topic, uint32_t who, uint64_t n,
                          uint32_t history) {
    struct shmps_publisher *pub;
    assert_ok(open_keeping(bus, topic, history, &pub));
    publish(pub, who, 0, n);
    shmps_publisher_close(pub);
}

/* A newcomer gets the newest n of this publisher, who has published `of`, and nothing else. */
static void expect_kept(struct shmps *bus, const char *filter, uint32_t who, uint64_t n,
                        uint64_t of) {
    struct shmps_subscriber *sub = subscriber_with_history(bus, filter, SHMPS_LOSSY, 0);
    expect(sub, who, of - n, n, true);
    expect_nothing(sub);
    shmps_subscriber_close(sub);
}

static void test_a_publisher_asks_for_history(void **state) {
    (void)state;
    struct shmps *bus = connected();
    visit_keeping(bus, "a/b", 1, 10, 5);
    assert_int_equal(count_segments("r"), 1);
    expect_kept(bus, "a/b", 1, 5, 10);
    expect_kept(bus, "a/+", 1, 5, 10);
    visit_keeping(bus, "a/b", 2, 10, 0); /* it holds for those who do not ask, */
    expect_kept(bus, "a/b", 2, 5, 10);
    visit_keeping(bus, "a/b", 3, 10, 2); /* and who asks for less does not make it less */
    expect_kept(bus, "a/b", 3, 5, 10);
    visit_keeping(bus, "a/b", 4, 20, 9);
    expect_kept(bus, "a/b", 4, 9, 20);
    shmps_close(bus);
    daemon_kill();
    daemon_start();
    bus = connected();
    expect_kept(bus, "a/b", 4, 9, 20);
    visit_keeping(bus, "a/b", 5, 20, 0);
    expect_kept(bus, "a/#", 5, 9, 20);
    visit_keeping(bus, "c", 1, 5, 0); /* other topics are as ever */
    expect_kept(bus, "c", 1, 0, 5);
    assert_int_equal(count_segments("r"), 1);
    struct shmps_publisher *pub;
    assert_ok(open_keeping(bus, "d", 3, &pub));
    daemon_kill(); /* at once: it has noted it before it answered */
    publish(pub, 1, 0, 10);
    daemon_start();
    shmps_publisher_close(pub);
    expect_kept(bus, "d", 1, 3, 10);
    shmps_close(bus);
    daemon_stop(); /* this is its end */
    assert_int_equal(count_segments(""), 0);
    daemon_start();
    bus = connected();
    expect_kept(bus, "a/b", 5, 0, 20);
    shmps_close(bus);
}

/* A topic goes with its last sample, and what was asked for with it. */
static void test_nothing_is_kept_of_nothing(void **state) {
    (void)state;
    struct shmps *bus = connected();
    visit_keeping(bus, "t", 1, 0, 5);
    assert_int_equal(count_segments("r"), 0);
    visit_keeping(bus, "t", 2, 3, 0);
    assert_int_equal(count_segments("r"), 0);
    shmps_close(bus);
}

static void test_what_is_kept_of_one_that_grows(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps_publisher *pub;
    options.history = 12;
    options.depth = 4;
    assert_ok(shmps_publisher_open(bus, "t", &options, &pub));
    for (uint64_t i = 0; i < 40; i++)
        assert_ok(message_publish(pub, 1, i, i < 32 ? 100 : 20000, 0));
    expect_kept(bus, "t", 1, 12, 40); /* of both rings */
    shmps_publisher_close(pub);
    expect_kept(bus, "t", 1, 12, 40);
    daemon_kill();
    daemon_start();
    expect_kept(bus, "t", 1, 12, 40);
    shmps_close(bus);
}

static void test_the_larger_history_counts(void **state) {
    (void)state;
    start_with("topic t { history = 3 }");
    struct shmps *bus = connected();
    visit_keeping(bus, "t", 1, 10, 2);
    expect_kept(bus, "t", 1, 3, 10);
    visit_keeping(bus, "t", 2, 10, 6);
    expect_kept(bus, "t", 2, 6, 10);
    daemon_configure("topic t { history = 8 }");
    kill(daemon_pid(), SIGHUP);
    assert_int_equal(shmps_daemon_alive(bus), 1);
    visit_keeping(bus, "t", 3, 10, 0);
    expect_kept(bus, "t", 3, 8, 10);
    daemon_configure("");
    kill(daemon_pid(), SIGHUP);
    assert_int_equal(shmps_daemon_alive(bus), 1);
    visit_keeping(bus, "t", 4, 10, 0);
    expect_kept(bus, "t", 4, 6, 10); /* what was asked for is not the configuration's to take */
    shmps_close(bus);
    daemon_stop();
}

static void test_limits_of_what_is_asked_for(void **state) {
    (void)state;
    start_with("topic \"small/#\" { max_depth = 64 }");
    struct shmps *bus = connected();
    struct shmps_publisher *pub;
    visit_keeping(bus, "small/a", 1, 10, 1);
    assert_result(open_keeping(bus, "small/a", 57, &pub), SHMPS_E_LIMIT);
    assert_non_null(strstr(shmps_error_detail(), "56 samples"));
    visit_keeping(bus, "small/a", 2, 10, 0);
    expect_kept(bus, "small/a", 2, 1, 10); /* who was refused has changed nothing */
    visit_keeping(bus, "small/a", 3, 1000, 56);
    expect_kept(bus, "small/a", 3, 56, 1000);
    assert_result(open_keeping(bus, "t", 7 * (1 << 17) + 1, &pub), SHMPS_E_LIMIT);
    assert_result(open_keeping(bus, "t", (1 << 20) + 1, &pub), SHMPS_E_INVALID);
    shmps_close(bus);
    daemon_stop();
}

/* ---- patience */

static uint64_t evictions_of(struct shmps_subscriber *sub) {
    struct shmps_subscriber_stats stats = { .size = sizeof stats };
    assert_ok(shmps_subscriber_stats(sub, &stats));
    return stats.evictions;
}

static void test_patience_ends(void **state) {
    (void)state;
    static const bool dead[] = { false, true };
    for (int k = 0; k < 2; k++) {
        start_with("topic t { patience = 50ms }");
        struct shmps *bus = connected();
        struct shmps_subscriber *stuck = subscriber_with_history(bus, "t", SHMPS_RELIABLE, 0);
        struct shmps_subscriber *quick = subscriber_with_history(bus, "t", SHMPS_RELIABLE, 0);
        struct shmps_publisher *pub = publisher_on(bus, "t", 16, 64);
        struct shmps_sample s;
        if (dead[k])
            daemon_kill();
        publish(pub, 1, 0, 16);
        expect(quick, 1, 0, 16, false);
        assert_result(message_publish(pub, 1, 16, MESSAGE_BYTES_MIN, 0), SHMPS_FULL);
        assert_int_equal(evictions_of(stuck), 0);
        assert_ok(message_publish(pub, 1, 16, MESSAGE_BYTES_MIN, SHMPS_FOREVER));
        publish(pub, 1, 17, 10);
        expect(quick, 1, 16, 11, false); /* nobody else notices */
        assert_int_equal(evictions_of(quick), 0);
        assert_ok(shmps_take(stuck, &s, 0));
        assert_true(s.flags & SHMPS_SAMPLE_EVICTED);
        assert_true(s.lost >= 11 && s.lost <= 16);
        uint64_t next = s.lost;
        assert_true(sample_is(&s, 1, next++));
        assert_ok(shmps_release(stuck, &s));
        expect(stuck, 1, next, 27 - next, false); /* and it goes on */
        expect_nothing(stuck);
        assert_int_equal(evictions_of(stuck), 1);
        for (uint64_t i = 27; i < 100; i++) { /* as a lossy one: nobody waits for it */
            publish(pub, 1, i, 1);
            expect(quick, 1, i, 1, false);
        }
        assert_ok(shmps_take(stuck, &s, 0));
        assert_false(s.flags & SHMPS_SAMPLE_EVICTED);
        assert_true(s.lost > 0 && sample_is(&s, 1, 27 + s.lost));
        struct shmps_publisher_stats stats = { .size = sizeof stats };
        assert_ok(shmps_publisher_stats(pub, &stats));
        assert_int_equal(stats.evictions, 1);
        if (dead[k])
            daemon_start();
        shmps_subscriber_close(stuck);
        /* opened anew, it is reliable again */
        stuck = subscriber_with_history(bus, "t", SHMPS_RELIABLE, 0);
        publish(pub, 1, 100, 16);
        expect(quick, 1, 100, 16, false);
        assert_result(message_publish(pub, 1, 116, MESSAGE_BYTES_MIN, 0), SHMPS_FULL);
        expect(stuck, 1, 100, 16, false);
        shmps_close(bus);
        daemon_stop();
    }
}

/* Only who has kept just that from being published for all the time. */
static void test_patience_is_with_others(void **state) {
    (void)state;
    start_with("topic t { patience = 30ms }");
    struct shmps *bus = connected();
    struct shmps_subscriber *stuck = subscriber_with_history(bus, "t", SHMPS_RELIABLE, 0);
    struct shmps_subscriber *slow = subscriber_with_history(bus, "t", SHMPS_RELIABLE, 0);
    struct shmps_publisher *pub = publisher_on(bus, "t", 64, 64);
    publish(pub, 1, 0, 64);
    expect(slow, 1, 0, 6, false); /* room for 6, less than a publisher reclaims at a time */
    assert_result(message_publish(pub, 1, 64, MESSAGE_BYTES_MIN, 0), SHMPS_FULL);
    /* it lags, but is new */
    struct shmps_subscriber *late = subscriber_with_history(bus, "t", SHMPS_RELIABLE, 56);
    assert_ok(message_publish(pub, 1, 64, MESSAGE_BYTES_MIN, SHMPS_FOREVER));
    expect(slow, 1, 6, 59, false);
    assert_int_equal(evictions_of(slow), 0);
    expect(late, 1, 8, 56, true);
    expect(late, 1, 64, 1, false);
    assert_int_equal(evictions_of(late), 0);
    shmps_subscriber_close(stuck);
    shmps_close(bus);
    daemon_stop();
}

/* A full batch that was given up is no stall of what is published later. */
static void test_a_stall_is_that_of_one_sample(void **state) {
    (void)state;
    start_with("topic t { patience = 30ms }");
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_with_history(bus, "t", SHMPS_RELIABLE, 0);
    struct shmps_publisher *pub = publisher_on(bus, "t", 16, 64);
    struct shmps_message batch[16];
    struct message message;
    size_t done;
    message_fill(&message, 1, 0, sizeof message);
    for (int i = 0; i < 16; i++)
        batch[i] = (struct shmps_message){ &message, sizeof message, 0 };
    publish(pub, 1, 0, 1);
    assert_result(shmps_publish_batch(pub, batch, 16, SHMPS_EXACTLY, 0, &done), SHMPS_FULL);
    publish(pub, 1, 1, 14);
    expect(sub, 1, 0, 15, false);
    assert_result(shmps_take(sub, &(struct shmps_sample){ 0 }, 40000000), SHMPS_TIMEOUT);
    publish(pub, 1, 15, 1); /* and patience would have been over */
    assert_result(shmps_publish_batch(pub, batch, 16, SHMPS_EXACTLY, 0, &done), SHMPS_FULL);
    expect(sub, 1, 15, 1, false);
    assert_int_equal(evictions_of(sub), 0);
    shmps_close(bus);
    daemon_stop();
}

/* Who is evicted and opens anew, again and again, does not use up the seats. */
static void test_seats_of_the_evicted_are_given_back(void **state) {
    (void)state;
    start_with("topic t { patience = 1ms }");
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 2, 64);
    uint64_t next = 0;
    for (int k = 0; k < 200; k++) {
        struct shmps_subscriber *sub = subscriber_with_history(bus, "t", SHMPS_RELIABLE,
                                                               SHMPS_HISTORY_NONE);
        for (int i = 0; i < 3; i++)
            assert_ok(message_publish(pub, 1, next++, MESSAGE_BYTES_MIN, SHMPS_FOREVER));
        shmps_subscriber_close(sub);
        assert_int_equal(count_segments("e"), 1);
    }
    struct shmps_publisher_stats stats = { .size = sizeof stats };
    assert_ok(shmps_publisher_stats(pub, &stats));
    assert_int_equal(stats.evictions, 200);
    shmps_close(bus);
    daemon_stop();
}

/* What an evicted subscriber holds stays as it was. */
static void test_held_by_the_evicted(void **state) {
    (void)state;
    start_with("topic t { patience = 20ms }");
    struct shmps *bus = connected();
    struct shmps_subscriber *stuck = subscriber_with_history(bus, "t", SHMPS_RELIABLE, 0);
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 5000);
    struct shmps_sample held[3];
    for (uint64_t i = 0; i < 3; i++) {
        assert_ok(message_publish(pub, 1, i, 5000, 0));
        assert_ok(shmps_take(stuck, &held[i], 0));
    }
    for (uint64_t i = 3; i < 200; i++)
        assert_ok(message_publish(pub, 1, i, 5000, SHMPS_FOREVER));
    for (uint64_t i = 0; i < 3; i++) {
        assert_true(sample_is(&held[i], 1, i));
        assert_ok(shmps_release(stuck, &held[i]));
    }
    shmps_close(bus);
    daemon_stop();
}

static void test_without_patience_nobody_is_evicted(void **state) {
    (void)state;
    start_with("topic t { patience = never }");
    struct shmps *bus = connected();
    struct shmps_subscriber *stuck = subscriber_with_history(bus, "t", SHMPS_RELIABLE, 0);
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 64);
    publish(pub, 1, 0, 4);
    assert_result(message_publish(pub, 1, 4, MESSAGE_BYTES_MIN, 100000000), SHMPS_FULL);
    expect(stuck, 1, 0, 4, false);
    shmps_close(bus);
    daemon_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITHOUT_DAEMON(test_the_newest_outlive_their_publishers),
        WITHOUT_DAEMON(test_the_last_value_is_retained),
        WITHOUT_DAEMON(test_history_of_one_that_has_grown),
        WITHOUT_DAEMON(test_a_ring_is_deep_enough_for_the_history),
        WITHOUT_DAEMON(test_less_history_is_given_back),
        WITH_DAEMON(test_a_publisher_asks_for_history),
        WITH_DAEMON(test_nothing_is_kept_of_nothing),
        WITH_DAEMON(test_what_is_kept_of_one_that_grows),
        WITHOUT_DAEMON(test_the_larger_history_counts),
        WITHOUT_DAEMON(test_limits_of_what_is_asked_for),
        WITHOUT_DAEMON(test_patience_ends),
        WITHOUT_DAEMON(test_patience_is_with_others),
        WITHOUT_DAEMON(test_a_stall_is_that_of_one_sample),
        WITHOUT_DAEMON(test_seats_of_the_evicted_are_given_back),
        WITHOUT_DAEMON(test_held_by_the_evicted),
        WITHOUT_DAEMON(test_without_patience_nobody_is_evicted),
    };
    return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
