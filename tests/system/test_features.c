/* What a publisher and a subscriber can ask for: batches, tags, times, history, copies, observing,
 * waiting for room. With a real daemon; both sides mostly in one process, as their order
 * matters. */
#include "../harness.h"

#include <time.h>

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void publish(struct shmps_publisher *pub, uint64_t first, uint64_t n) {
    for (uint64_t i = first; i < first + n; i++)
        assert_ok(message_publish(pub, 1, i, 30 + i % 5 * 300, 0));
}

static void expect_message(struct shmps_subscriber *sub, uint32_t publisher, uint64_t number) {
    struct shmps_sample s;
    assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
    if (!sample_is(&s, publisher, number) || s.lost != 0)
        fail_msg("message %llu of publisher %u expected, %llu has come, %llu lost",
                 (unsigned long long)number, publisher, (unsigned long long)s.seq,
                 (unsigned long long)s.lost);
    assert_ok(shmps_release(sub, &s));
}

static void expect_empty(struct shmps_subscriber *sub) {
    struct shmps_sample s;
    assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY);
}

/* ---- batches */

#define BATCH 20
static void batch_of(struct shmps_message messages[BATCH], unsigned char bodies[BATCH][64],
                     uint64_t first) {
    for (uint64_t i = 0; i < BATCH; i++) {
        message_fill(bodies[i], 1, first + i, 24 + i);
        messages[i] = (struct shmps_message){ bodies[i], 24 + i, first + i };
    }
}

static void test_publishing_in_batches(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 16, 64);
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct shmps_message messages[BATCH];
    static unsigned char bodies[BATCH][64];
    size_t done = 77;
    batch_of(messages, bodies, 0);
    assert_result(shmps_publish_batch(pub, messages, 17, SHMPS_EXACTLY, 0, &done),
                  SHMPS_E_INVALID); /* more than the ring has slots */
    assert_int_equal(done, 0);
    assert_result(shmps_publish_batch(pub, messages, 1, SHMPS_UP_TO, -2, &done), SHMPS_E_INVALID);
    assert_result(shmps_publish_batch(pub, messages, 1, 2, 0, &done), SHMPS_E_INVALID);
    assert_ok(shmps_publish_batch(pub, messages, 10, SHMPS_EXACTLY, 0, &done));
    assert_int_equal(done, 10);
    batch_of(messages, bodies, 10);
    assert_result(shmps_publish_batch(pub, messages, 7, SHMPS_EXACTLY, 0, &done), SHMPS_FULL);
    assert_int_equal(done, 0); /* all or none */
    assert_result(shmps_publish_batch(pub, messages, 7, SHMPS_EXACTLY, 1000000, &done),
                  SHMPS_FULL);
    assert_ok(shmps_publish_batch(pub, messages, 7, SHMPS_UP_TO, 0, &done));
    assert_int_equal(done, 6); /* as many as there is room for */
    assert_result(shmps_publish_batch(pub, messages, 7, SHMPS_UP_TO, 0, &done), SHMPS_FULL);
    assert_int_equal(done, 0);
    for (uint64_t i = 0; i < 16; i++)
        expect_message(sub, 1, i);
    expect_empty(sub);
    batch_of(messages, bodies, 16);
    assert_ok(shmps_publish_batch(pub, messages, 16, SHMPS_EXACTLY, 0, &done)); /* all slots */
    assert_int_equal(done, 16);
    assert_ok(shmps_publish_batch(pub, messages, 0, SHMPS_EXACTLY, 0, &done));
    for (uint64_t i = 16; i < 32; i++)
        expect_message(sub, 1, i);
    messages[1].bytes = 65; /* one that is too large: none is published */
    assert_result(shmps_publish_batch(pub, messages, 3, SHMPS_UP_TO, 0, &done), SHMPS_E_SIZE);
    assert_int_equal(done, 0);
    expect_empty(sub);
    shmps_close(bus);
}

static void test_taking_in_batches(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 16, 0);
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_LOSSY);
    struct shmps_sample samples[40];
    size_t done = 77;
    assert_result(shmps_take_batch(sub, samples, 5, SHMPS_UP_TO, 0, &done), SHMPS_EMPTY);
    assert_int_equal(done, 0);
    assert_result(shmps_take_batch(sub, samples, 5, SHMPS_EXACTLY, 1000000, &done), SHMPS_TIMEOUT);
    assert_result(shmps_take_batch(sub, samples, 5, SHMPS_UP_TO, -2, &done), SHMPS_E_INVALID);
    assert_result(shmps_take_batch(sub, samples, 5, 2, 0, &done), SHMPS_E_INVALID);
    publish(pub, 0, 7);
    assert_ok(shmps_take_batch(sub, samples, 5, SHMPS_EXACTLY, 0, &done));
    assert_int_equal(done, 5);
    assert_ok(shmps_take_batch(sub, samples + 5, 5, SHMPS_EXACTLY, 1000000, &done));
    assert_int_equal(done, 2); /* what there is when the time is over */
    for (uint64_t i = 0; i < 7; i++)
        assert_true(sample_is(&samples[i], 1, i));
    assert_ok(shmps_release_batch(sub, samples, 7));
    assert_result(shmps_release(sub, &samples[3]), SHMPS_E_INVALID); /* once only */
    publish(pub, 7, 40); /* laps it: the gap is told with the sample after it */
    assert_ok(shmps_take_batch(sub, samples, 40, SHMPS_UP_TO, 0, &done));
    assert_int_equal(samples[0].seq, 7 + samples[0].lost);
    assert_int_equal(samples[0].lost + done, 40);
    assert_true(samples[0].lost >= 24);
    for (size_t i = 1; i < done; i++)
        assert_int_equal(samples[i].lost, 0);
    assert_ok(shmps_release_batch(sub, samples, done));
    struct shmps_subscriber_stats stats = { .size = sizeof(stats) };
    assert_ok(shmps_subscriber_stats(sub, &stats));
    assert_int_equal(stats.received + stats.lost, 47);
    assert_int_equal(stats.held, 0);
    shmps_close(bus);
}

/* A whole ring that is lost with its publisher: the loss is told, although no sample follows. */
static void test_a_loss_at_the_tail_is_told(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_LOSSY);
    struct shmps_sample samples[20], s;
    size_t done;
    struct shmps_publisher *pub = publisher_on(bus, "t", 16, 0);
    publish(pub, 0, 3);
    assert_ok(shmps_take_batch(sub, samples, 20, SHMPS_UP_TO, 0, &done));
    assert_int_equal(done, 3);
    assert_ok(shmps_release_batch(sub, samples, 3));
    publish(pub, 3, 100);
    shmps_publisher_close(pub);
    uint64_t received = 0, lost = 0;
    int r;
    while ((r = shmps_take(sub, &s, 0)) != SHMPS_EMPTY) {
        assert_true(r == 0 || r == SHMPS_LOST);
        lost += s.lost;
        received += r == 0;
        if (r == 0)
            assert_ok(shmps_release(sub, &s));
    }
    assert_int_equal(received + lost, 100);
    shmps_close(bus);
}

/* ---- tags and times */

static void test_tags_and_times(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps_publisher *timed, *untimed;
    struct shmps_subscriber *sub = subscriber_on(bus, "t/+", SHMPS_RELIABLE);
    struct shmps_sample s;
    assert_ok(shmps_publisher_open(bus, "t/timed", &options, &timed));
    options.timestamps = SHMPS_TIMESTAMPS_OFF;
    assert_ok(shmps_publisher_open(bus, "t/untimed", &options, &untimed));
    for (uint64_t i = 0; i < 10; i++) {
        uint64_t tag = i % 2 == 0 ? UINT64_MAX - i : i, before = now_ns();
        assert_ok(shmps_publish(timed, &i, sizeof(i), tag, 0));
        assert_ok(shmps_take(sub, &s, 0));
        assert_int_equal(s.tag, tag);
        assert_true(s.time_ns >= before && s.time_ns <= now_ns());
        assert_string_equal(s.topic, "t/timed");
        assert_ok(shmps_release(sub, &s));
        assert_ok(shmps_publish(untimed, &i, sizeof(i), tag, 0));
        assert_ok(shmps_take(sub, &s, 0));
        assert_int_equal(s.time_ns, 0);
        assert_int_equal(s.tag, tag);
        assert_int_equal(s.seq, i);
        assert_memory_equal(s.data, &i, sizeof(i));
        assert_string_equal(s.topic, "t/untimed");
        assert_ok(shmps_release(sub, &s));
    }
    shmps_close(bus);
}

static void test_messages_of_no_bytes(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 0, 0);
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_LOSSY);
    struct shmps_sample s;
    assert_ok(shmps_publish(pub, NULL, 0, 5, 0));
    assert_ok(shmps_take(sub, &s, 0));
    assert_int_equal(s.bytes, 0);
    assert_int_equal(s.tag, 5);
    assert_ok(shmps_release(sub, &s));
    shmps_close(bus);
}

/* ---- reading copies */

static void test_reading(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 0, 0);
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    static unsigned char buffer[2000];
    struct shmps_sample s;
    assert_result(shmps_read(sub, buffer, sizeof(buffer), &s, 0), SHMPS_EMPTY);
    assert_ok(message_publish(pub, 1, 0, 25, 0));
    assert_ok(message_publish(pub, 1, 1, 1500, 0));
    assert_ok(message_publish(pub, 1, 2, 26, 0));
    assert_result(shmps_read(sub, buffer, 24, &s, 0), SHMPS_E_SIZE);
    assert_int_equal(s.bytes, 25);
    assert_ok(shmps_read(sub, buffer, 25, &s, 0)); /* it was still the next one */
    assert_ptr_equal(s.data, buffer);
    assert_true(sample_is(&s, 1, 0));
    assert_result(shmps_read(sub, buffer, 1499, &s, 0), SHMPS_E_SIZE);
    assert_int_equal(s.bytes, 1500);
    assert_ok(shmps_read(sub, buffer, s.bytes, &s, 0));
    assert_true(sample_is(&s, 1, 1));
    assert_int_equal(s.flags, 0);
    expect_message(sub, 1, 2);
    assert_result(shmps_read(sub, buffer, 24, &s, 1000), SHMPS_TIMEOUT);
    shmps_close(bus);
}

/* ---- history */

static void test_history_is_the_newest_of_all_publishers(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pubs[3];
    uint64_t order[30], n = 0, next[3] = { 0 };
    for (uint32_t i = 0; i < 3; i++)
        pubs[i] = publisher_on(bus, "t", 64, 0);
    uint64_t random = test_seed();
    for (; n < 30; n++) {
        order[n] = draw(&random, 3);
        assert_ok(message_publish(pubs[order[n]], (uint32_t)order[n], next[order[n]], 100, 0));
        next[order[n]]++;
    }
    const uint32_t ks[] = { 0, 1, 7, 29, 30, 31, 1000 };
    for (size_t i = 0; i < 2 * sizeof(ks) / sizeof(ks[0]); i++) {
        struct shmps_subscriber *sub = subscriber_with_history(
            bus, i % 2 == 0 ? "t" : "#", i % 3 == 0 ? SHMPS_RELIABLE : SHMPS_LOSSY, ks[i / 2]);
        struct shmps_sample s;
        uint64_t k = ks[i / 2] < n ? ks[i / 2] : n, last_time = 0;
        for (uint64_t m = n - k; m < n; m++) {
            assert_ok(shmps_take(sub, &s, 0));
            assert_int_equal(((const struct message *)s.data)->publisher, order[m]);
            assert_true(message_valid(s.data, s.bytes));
            assert_true(s.time_ns >= last_time);
            assert_int_equal(s.flags, SHMPS_SAMPLE_HISTORY);
            last_time = s.time_ns;
            assert_ok(shmps_release(sub, &s));
        }
        expect_empty(sub);
        assert_ok(message_publish(pubs[0], 0, next[0]++, 100, 0)); /* and then what is new */
        assert_ok(shmps_take(sub, &s, 0));
        assert_int_equal(s.flags, 0);
        assert_true(sample_is(&s, 0, next[0] - 1));
        assert_ok(shmps_release(sub, &s));
        shmps_subscriber_close(sub);
        for (uint32_t p = 0; p < 3; p++) { /* each round has a history of its own */
            shmps_publisher_close(pubs[p]);
            pubs[p] = publisher_on(bus, "t", 64, 0);
            next[p] = 0;
        }
        for (n = 0; n < 30; n++) {
            order[n] = draw(&random, 3);
            assert_ok(message_publish(pubs[order[n]], (uint32_t)order[n], next[order[n]]++, 100,
                                      0));
        }
    }
    shmps_close(bus);
}

static uint64_t id_of(struct shmps_publisher *pub) {
    struct shmps_publisher_stats stats = { .size = sizeof(stats) };
    assert_ok(shmps_publisher_stats(pub, &stats));
    return stats.id;
}

static void test_history_of_publishers_that_have_gone(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_subscriber *slow = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct shmps_publisher *gone = publisher_on(bus, "t", 64, 0), *there;
    publish(gone, 0, 5);
    shmps_publisher_close(gone); /* its ring stays until the slow one has read it */
    there = publisher_on(bus, "t", 64, 0);
    publish(there, 0, 2);
    struct shmps_subscriber *late = subscriber_with_history(bus, "t", SHMPS_LOSSY, 4);
    expect_message(late, 1, 3);
    expect_message(late, 1, 4);
    expect_message(late, 1, 0);
    expect_message(late, 1, 1);
    expect_empty(late);
    uint64_t next[2] = { 0, 0 };
    for (uint64_t i = 0; i < 7; i++) { /* in order for each publisher */
        struct shmps_sample s;
        assert_ok(shmps_take(slow, &s, 0));
        assert_true(sample_is(&s, 1, next[s.publisher == id_of(there)]++));
        assert_ok(shmps_release(slow, &s));
    }
    assert_int_equal(next[0], 5);
    expect_empty(slow);
    shmps_close(bus);
}

/* ---- waiting for room */

static void test_full_with_and_without_a_deadline(void **state) {
    (void)state;
    const int waits[] = { SHMPS_WAIT_DEFAULT, SHMPS_WAIT_SPIN, SHMPS_WAIT_SLEEP };
    struct shmps *bus = connected();
    for (size_t i = 0; i < 3; i++) {
        struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
        struct shmps_publisher *pub;
        struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
        void *loan;
        options.depth = 4;
        options.wait = waits[i];
        assert_ok(shmps_publisher_open(bus, "t", &options, &pub));
        publish(pub, 0, 4);
        const int64_t deadlines[] = { 0, 1, 1000000, 30000000 };
        for (size_t k = 0; k < 4; k++) {
            uint64_t before = now_ns();
            assert_result(shmps_publish(pub, "x", 1, 0, deadlines[k]), SHMPS_FULL);
            assert_result(shmps_loan(pub, 1, deadlines[k], &loan), SHMPS_FULL);
            assert_true(now_ns() - before >= 2 * (uint64_t)deadlines[k]); /* not too early */
        }
        struct shmps_publisher_stats stats = { .size = sizeof(stats) };
        assert_ok(shmps_publisher_stats(pub, &stats));
        assert_int_equal(stats.messages, 4);
        assert_int_equal(stats.subscribers, 1);
        assert_int_equal(stats.depth, 4);
        for (uint64_t n = 0; n < 4; n++)
            expect_message(sub, 1, n);
        publish(pub, 4, 4);
        shmps_subscriber_close(sub); /* with samples that nobody will take */
        publish(pub, 8, 20);
        shmps_publisher_close(pub);
    }
    shmps_close(bus);
}

static void publish_blocked(int socket, const void *argument, struct report *report) {
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps *bus;
    struct shmps_publisher *pub;
    options.depth = 4;
    options.wait = *(const int *)argument;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, "t", &options, &pub));
    role_say(socket, report);
    role_listen(socket); /* somebody has subscribed */
    uint64_t i = 0;
    while (message_publish(pub, 1, i, 100, 0) == 0)
        i++;
    role_say(socket, report); /* full */
    MUST(report, i == 4);
    for (; i < 50; i++)
        MUST_OK(report, message_publish(pub, 1, i, 100, SHMPS_FOREVER));
    shmps_publisher_close(pub);
    shmps_close(bus);
}

static void test_unsubscribing_frees_a_blocked_publisher(void **state) {
    const int waits[] = { SHMPS_WAIT_DEFAULT, SHMPS_WAIT_SPIN, SHMPS_WAIT_SLEEP };
    (void)state;
    struct shmps *bus = connected();
    for (size_t i = 0; i < 6; i++) {
        struct child child;
        child_start(&child, publish_blocked, &waits[i % 3]);
        child_hear(&child);
        struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
        child_tell(&child, 0);
        child_hear(&child);
        if (i < 3) /* it takes them, or it leaves */
            for (uint64_t n = 0; n < 50; n++)
                expect_message(sub, 1, n);
        shmps_subscriber_close(sub);
        child_end(&child);
    }
    shmps_close(bus);
}

/* More subscribers than fit on one page of a roster: those on the next ones hold the publisher
 * back, wake it, and are woken as well. */
static void test_many_subscribers(void **state) {
    enum { MANY = 130 };
    (void)state;
    const int wait = SHMPS_WAIT_SLEEP;
    struct shmps *bus = connected();
    struct shmps_subscriber *subs[MANY];
    struct child child;
    child_start(&child, publish_blocked, &wait);
    child_hear(&child);
    for (int i = 0; i < MANY; i++)
        subs[i] = subscriber_on(bus, "t", SHMPS_RELIABLE);
    child_tell(&child, 0);
    child_hear(&child);
    for (int i = 0; i < MANY - 1; i++) /* the last of all is who holds it back */
        for (uint64_t n = 0; n < 4; n++)
            expect_message(subs[i], 1, n);
    for (uint64_t n = 0; n < 4; n++)
        expect_message(subs[MANY - 1], 1, n);
    for (uint64_t n = 4; n < 50; n++)
        for (int i = MANY - 1; i >= 0; i--)
            expect_message(subs[i], 1, n);
    child_end(&child);
    for (int i = 0; i < MANY; i++)
        expect_empty(subs[i]);
    shmps_close(bus);
}

/* ---- observing */

static void test_an_observer_is_not_noticed(void **state) {
    (void)state;
    struct shmps_connect_options options = SHMPS_CONNECT_OPTIONS_INIT;
    struct shmps *bus = connected(), *looking = NULL;
    struct shmps_publisher *pub = publisher_on(bus, "a/b", 8, 0), *none;
    struct shmps_subscriber *observer, *refused;
    struct shmps_publisher_stats stats = { .size = sizeof(stats) };
    struct shmps_event event;
    struct shmps_sample s;
    publish(pub, 0, 3);
    options.observe = 1;
    assert_ok(shmps_connect(&looking, &options));
    assert_result(shmps_publisher_open(looking, "t", NULL, &none), SHMPS_E_STATE);
    assert_result(shmps_subscriber_open(looking, "t", NULL, &refused), SHMPS_E_STATE);
    observer = subscriber_with_history(looking, "a/#", SHMPS_OBSERVE, 2);
    expect_message(observer, 1, 1);
    expect_message(observer, 1, 2);
    publish(pub, 3, 100); /* never held back */
    assert_ok(shmps_publisher_stats(pub, &stats));
    assert_int_equal(stats.subscribers, 0);
    assert_result(shmps_publisher_event(pub, &event, 0), SHMPS_EMPTY);
    assert_result(shmps_publisher_wait_subscribers(pub, 1, 1000000), SHMPS_TIMEOUT);
    uint64_t received = 0, lost = 0;
    while (shmps_take(observer, &s, 0) == 0) {
        assert_int_equal(s.seq, 3 + received + lost + s.lost);
        assert_true(message_valid(s.data, s.bytes));
        received++;
        lost += s.lost;
        assert_ok(shmps_release(observer, &s));
    }
    assert_int_equal(received + lost, 100);
    daemon_kill(); /* what a dead daemon has left can be looked at */
    struct shmps *later = NULL;
    assert_ok(shmps_connect(&later, &options));
    struct shmps_subscriber *after = subscriber_with_history(later, "#", SHMPS_OBSERVE, 1);
    expect_message(after, 1, 102);
    publish(pub, 103, 1);
    expect_message(after, 1, 103);
    expect_message(observer, 1, 103);
    shmps_close(later);
    shmps_close(looking);
    daemon_start();
    shmps_close(bus);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_publishing_in_batches),
        WITH_DAEMON(test_taking_in_batches),
        WITH_DAEMON(test_a_loss_at_the_tail_is_told),
        WITH_DAEMON(test_tags_and_times),
        WITH_DAEMON(test_messages_of_no_bytes),
        WITH_DAEMON(test_reading),
        WITH_DAEMON(test_history_is_the_newest_of_all_publishers),
        WITH_DAEMON(test_history_of_publishers_that_have_gone),
        WITH_DAEMON(test_full_with_and_without_a_deadline),
        WITH_DAEMON(test_unsubscribing_frees_a_blocked_publisher),
        WITH_DAEMON(test_many_subscribers),
        WITH_DAEMON(test_an_observer_is_not_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
