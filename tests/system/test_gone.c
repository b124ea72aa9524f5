/* What has gone: publishers that come and go faster than a subscriber looks, and handles that are
 * closed, or grow, while pubsubd does not answer. Nothing is lost uncounted, nobody is held back
 * by what no longer is. */
#include "../harness.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEAD_KEPT 4 /* rings of the dead that pubsubd keeps for a topic */

/* A publisher that comes, publishes and goes. */
static void visit(struct shmps *bus, const char *topic, uint32_t who, uint64_t messages) {
    struct shmps_publisher *pub = publisher_on(bus, topic, 16, 64);
    for (uint64_t i = 0; i < messages; i++)
        assert_ok(message_publish(pub, who, i, MESSAGE_BYTES_MIN, 0));
    shmps_publisher_close(pub);
}

struct tally {
    uint64_t received, lost, unseen; /* unseen: of publisher 0 */
};

static struct tally take_all(struct shmps_subscriber *sub) {
    struct tally t = { 0 };
    struct shmps_sample s;
    int r;
    while ((r = shmps_take(sub, &s, 0)) != SHMPS_EMPTY) {
        assert_true(r == 0 || r == SHMPS_LOST);
        t.lost += s.lost;
        t.unseen += r == SHMPS_LOST && s.publisher == 0 ? s.lost : 0;
        if (r == SHMPS_LOST)
            continue;
        assert_true(message_valid(s.data, s.bytes));
        t.received++;
        assert_ok(shmps_release(sub, &s));
    }
    return t;
}

static void test_the_dead_are_counted(void **state) {
    (void)state;
    static const int deliveries[] = { SHMPS_LOSSY, SHMPS_RELIABLE, SHMPS_OBSERVE };
    static const char *const filters[] = { "t", "+" };
    struct shmps *bus = connected();
    for (unsigned i = 0; i < 6; i++) {
        struct shmps_subscriber *keeper = subscriber_on(bus, "t", SHMPS_LOSSY);
        struct shmps_subscriber *sub = subscriber_on(bus, filters[i / 3], deliveries[i % 3]);
        for (uint32_t k = 0; k < 10; k++)
            visit(bus, "t", k, k + 1);
        assert_int_equal(count_segments("r"), DEAD_KEPT);
        struct tally t = take_all(sub);
        assert_int_equal(t.received, 7 + 8 + 9 + 10); /* the oldest went first */
        assert_int_equal(t.lost, 1 + 2 + 3 + 4 + 5 + 6);
        assert_int_equal(t.unseen, t.lost);
        struct shmps_subscriber_stats stats = { .size = sizeof stats };
        assert_ok(shmps_subscriber_stats(sub, &stats));
        assert_int_equal(stats.lost, t.lost);
        t = take_all(keeper);
        assert_int_equal(t.received, 34);
        assert_int_equal(t.lost, 21);
        visit(bus, "t", 11, 5); /* and no more than once */
        assert_int_equal(take_all(sub).received, 5);
        assert_int_equal(take_all(sub).lost, 0);
        shmps_subscriber_close(sub);
        shmps_subscriber_close(keeper);
    }
    shmps_close(bus);
}

static void test_latest_does_not_count(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_LATEST);
    for (uint32_t k = 0; k < 10; k++)
        visit(bus, "t", k, 3);
    struct tally t = take_all(sub);
    assert_int_equal(t.received, DEAD_KEPT);
    assert_int_equal(t.lost, 0);
    shmps_close(bus);
}

/* A filter's topics come and go; a sample names its own for as long as the subscriber is there. */
static void test_topics_come_and_go(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "reply/#", SHMPS_LOSSY);
    struct shmps_subscriber_stats stats = { .size = sizeof stats };
    struct shmps_sample first, s;
    char topic[16];
    for (int i = 0; i < 300; i++) {
        snprintf(topic, sizeof topic, "reply/%d", i % 200); /* some again */
        visit(bus, topic, 1, 3);
        for (uint64_t k = 0; k < 3; k++) {
            assert_ok(shmps_take(sub, i == 0 && k == 0 ? &first : &s, 0));
            const struct shmps_sample *taken = i == 0 && k == 0 ? &first : &s;
            assert_true(sample_is(taken, 1, k));
            assert_int_equal(taken->lost, 0);
            assert_string_equal(taken->topic, topic);
            if (taken == &s)
                assert_ok(shmps_release(sub, &s));
        }
        assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY);
    }
    assert_int_equal(shmps_daemon_alive(bus), 1);
    assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY);
    assert_ok(shmps_subscriber_stats(sub, &stats));
    assert_int_equal(stats.topics, 0);
    assert_string_equal(first.topic, "reply/0");
    assert_true(sample_is(&first, 1, 0));
    assert_ok(shmps_release(sub, &first));
    shmps_close(bus);
}

/* Visitors, and subscribers that look now and then, while pubsubd is killed now and then. */
static void test_every_sample_is_received_or_counted(void **state) {
    (void)state;
    enum { SUBSCRIBERS = 4 };
    uint64_t random = test_seed();
    for (int round = 0; round < 8; round++) {
        struct shmps *bus = connected();
        struct shmps_subscriber *subs[SUBSCRIBERS];
        struct tally sums[SUBSCRIBERS] = { { 0 } };
        uint64_t sent[SUBSCRIBERS] = { 0 };
        for (uint32_t i = 0; i < SUBSCRIBERS; i++)
            subs[i] = NULL;
        for (uint32_t k = 0; k < 60; k++) {
            uint64_t messages = draw(&random, 12);
            uint32_t i = (uint32_t)draw(&random, SUBSCRIBERS);
            if (!subs[i]) /* some come later: what went before is not theirs */
                subs[i] = subscriber_on(bus, i % 2 ? "a/#" : "a/b", i < 2 ? SHMPS_LOSSY
                                                                           : SHMPS_RELIABLE);
            if (draw(&random, 20) == 0) {
                daemon_kill();
                daemon_start();
            }
            visit(bus, "a/b", k, messages);
            for (uint32_t j = 0; j < SUBSCRIBERS; j++) {
                sent[j] += subs[j] ? messages : 0;
                if (!subs[j] || draw(&random, 6) > 0)
                    continue;
                struct tally t = take_all(subs[j]);
                sums[j].received += t.received;
                sums[j].lost += t.lost;
            }
        }
        for (uint32_t j = 0; j < SUBSCRIBERS; j++) {
            if (!subs[j])
                continue;
            struct tally t = take_all(subs[j]);
            assert_int_equal(sums[j].received + t.received + sums[j].lost + t.lost, sent[j]);
        }
        shmps_close(bus);
    }
}

/* ---- closed while nobody answers */

/* A reliable subscriber that no longer is must not hold back the publishers to come. */
static void publish_freely(struct shmps *bus) {
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 64);
    for (uint64_t i = 0; i < 40; i++)
        assert_ok(message_publish(pub, 1, i, MESSAGE_BYTES_MIN, 0));
    shmps_publisher_close(pub);
}

static void test_a_subscriber_closed_without_pubsubd(void **state) {
    (void)state;
    struct shmps *bus = connected(), *other = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct shmps_subscriber *rest = subscriber_on(bus, "t", SHMPS_LOSSY);
    daemon_kill();
    shmps_subscriber_close(sub);
    daemon_start();
    assert_int_equal(take_all(rest).received, 0); /* its connection comes back */
    publish_freely(other);
    shmps_close(other);
    shmps_close(bus);
}

static void test_a_connection_closed_without_pubsubd(void **state) {
    (void)state;
    struct shmps *bus = connected();
    subscriber_on(bus, "t", SHMPS_RELIABLE);
    publisher_on(bus, "t", 4, 64);
    daemon_kill();
    shmps_close(bus);
    daemon_start();
    bus = connected(); /* in the name of the one that has gone, it closes what that left */
    assert_int_equal(count_segments("r"), 0);
    publish_freely(bus);
    shmps_close(bus);
}

struct dead_reader {
    bool threads; /* its main thread ends, another one lives on */
};

static void *sit(void *argument) {
    (void)argument;
    for (;;)
        pause();
    return NULL;
}

static void subscribe_and_sit(int socket, const void *argument, struct report *report) {
    const struct dead_reader *dead = argument;
    struct shmps *bus;
    struct shmps_subscriber *sub;
    struct shmps_subscriber_options o = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    pthread_t thread;
    o.delivery = SHMPS_RELIABLE;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_subscriber_open(bus, "t", &o, &sub));
    if (dead->threads)
        MUST_OK(report, pthread_create(&thread, NULL, sit, NULL));
    role_say(socket, report);
    if (dead->threads)
        pthread_exit(NULL);
    sit(NULL);
}

/* Without pubsubd, that would have reaped it. Who only has lost his main thread is not dead. */
static void test_a_dead_subscriber_without_pubsubd(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) {
        const struct dead_reader dead = { .threads = k == 1 };
        struct shmps *bus = connected();
        struct shmps_publisher *pub = publisher_on(bus, "t", 4, 64);
        struct shmps_publisher_stats stats = { .size = sizeof stats };
        struct child child;
        child_start(&child, subscribe_and_sit, &dead);
        child_hear(&child);
        daemon_kill();
        for (uint64_t i = 0; i < 4; i++)
            assert_ok(message_publish(pub, 1, i, MESSAGE_BYTES_MIN, 0));
        if (k == 0)
            kill(child.pid, SIGKILL); /* not reaped: a zombie */
        else
            assert_result(message_publish(pub, 1, 4, MESSAGE_BYTES_MIN, 400000000), SHMPS_FULL);
        if (k == 1)
            child_kill(&child);
        for (uint64_t i = 4; i < 40; i++)
            assert_ok(message_publish(pub, 1, i, MESSAGE_BYTES_MIN, SHMPS_FOREVER));
        assert_ok(shmps_publisher_stats(pub, &stats));
        assert_int_equal(stats.evictions, 1);
        if (k == 0)
            child_kill(&child);
        shmps_close(bus);
        daemon_start();
    }
}

/* ---- coming back to a pubsubd that is stopped */

static void *knock(void *argument) {
    struct shmps *bus = argument;
    while (shmps_daemon_alive(bus) == 1) {}
    return NULL;
}

/* Nobody is taken for dead because pubsubd was stopped while he came back. */
static void test_pubsubd_is_stopped_while_all_come_back(void **state) {
    (void)state;
    enum { HANDLES = 300 };
    struct shmps_publisher *pubs[HANDLES];
    uint64_t random = test_seed();
    for (int round = 0; round < 4; round++) {
        struct shmps_connect_options o = SHMPS_CONNECT_OPTIONS_INIT;
        struct shmps *bus, *other = connected();
        pthread_t thread;
        o.timeout_ns = 100000000;
        assert_ok(shmps_connect(&bus, &o));
        for (int i = 0; i < HANDLES; i++) {
            char topic[16];
            snprintf(topic, sizeof topic, "t/%d", i);
            while (shmps_publisher_open(bus, topic, NULL, &pubs[i]) == SHMPS_E_NO_DAEMON) {}
        }
        daemon_kill();
        daemon_start();
        assert_int_equal(pthread_create(&thread, NULL, knock, bus), 0); /* comes back, claims */
        for (uint64_t k = draw(&random, 40); k > 0; k--)
            shmps_daemon_alive(other);
        kill(daemon_pid(), SIGSTOP);
        pthread_join(thread, NULL); /* it has waited in vain */
        kill(daemon_pid(), SIGCONT);
        while (shmps_daemon_alive(bus) != 1) {}
        struct shmps_subscriber *sub = subscriber_on(other, "t/#", SHMPS_RELIABLE);
        for (int i = 0; i < HANDLES; i++)
            assert_ok(message_publish(pubs[i], 1, 0, MESSAGE_BYTES_MIN, 0));
        assert_ok(shmps_subscriber_wait_publishers(sub, HANDLES, 0));
        assert_int_equal(take_all(sub).received, HANDLES);
        shmps_close(bus);
        shmps_close(other);
    }
}

/* ---- growing while pubsubd is slow or dead */

static struct shmps *impatient(void) {
    struct shmps_connect_options o = SHMPS_CONNECT_OPTIONS_INIT;
    struct shmps *bus;
    o.timeout_ns = 300000000;
    assert_ok(shmps_connect(&bus, &o));
    return bus;
}

static void expect(struct shmps_subscriber *sub, uint64_t first, uint64_t n) {
    struct shmps_sample s;
    for (uint64_t i = first; i < first + n; i++) {
        assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
        assert_true(sample_is(&s, 1, i));
        assert_int_equal(s.seq, i);
        assert_ok(shmps_release(sub, &s));
    }
}

static void test_a_publisher_that_cannot_grow_goes_on(void **state) {
    (void)state;
    static const bool dead[] = { false, true };
    for (int k = 0; k < 2; k++) {
        struct shmps *bus = impatient();
        struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
        struct shmps_publisher *pub = publisher_on(bus, "t", 16, 0);
        assert_ok(message_publish(pub, 1, 0, 100, 0));
        if (dead[k])
            daemon_kill();
        else
            kill(daemon_pid(), SIGSTOP);
        assert_result(message_publish(pub, 1, 1, 20000, 0), SHMPS_E_NO_DAEMON);
        for (uint64_t i = 1; i < 5; i++)
            assert_ok(message_publish(pub, 1, i, 100, 0));
        expect(sub, 0, 3);
        if (dead[k])
            daemon_start();
        else
            kill(daemon_pid(), SIGCONT); /* it makes the ring that nobody waits for */
        while (message_publish(pub, 1, 5, 20000, 0) != 0) {}
        assert_ok(message_publish(pub, 1, 6, 100, 0));
        expect(sub, 3, 4);
        struct shmps_publisher_stats stats = { .size = sizeof stats };
        assert_ok(shmps_publisher_stats(pub, &stats));
        assert_int_equal(stats.messages, 7);
        assert_int_equal(stats.subscribers, 1);
        shmps_close(bus);
        assert_int_equal(count_segments("r"), 0);
    }
}

/* A ring in which nothing was published goes at once, and those around it keep their order. */
static void test_a_ring_in_between_goes_empty(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct shmps_subscriber *observer = subscriber_on(bus, "t", SHMPS_OBSERVE);
    struct shmps_publisher *pub = publisher_on(bus, "t", 128, 0);
    void *loan;
    for (uint64_t i = 0; i < 100; i++)
        assert_ok(message_publish(pub, 1, i, 100, 0));
    assert_ok(shmps_loan(pub, 20000, 0, &loan));
    assert_ok(shmps_discard(pub));
    assert_ok(message_publish(pub, 1, 100, 200000, 0));
    assert_ok(message_publish(pub, 1, 101, 100, 0));
    expect(observer, 0, 102); /* first: for it nothing is kept */
    expect(sub, 0, 102);
    shmps_close(bus);
}

/* pubsubd is killed again and again, at any instruction of a grow. */
static void grow_for_ever(int socket, const void *argument, struct report *report) {
    (void)argument;
    struct shmps *bus;
    struct shmps_publisher *pub = NULL;
    uint64_t number = 0;
    MUST_OK(report, shmps_connect(&bus, NULL));
    role_say(socket, report);
    while (role_listen(socket) > 0) {
        int opened;
        while ((opened = shmps_publisher_open(bus, "t", NULL, &pub)) == SHMPS_E_NO_DAEMON) {}
        MUST_OK(report, opened);
        number = 0;
        for (size_t bytes = 100; bytes < 100000; bytes *= 3)
            for (int k = 0; k < 3; k++) {
                int r;
                do
                    r = message_publish(pub, 1, number, bytes, SHMPS_FOREVER);
                while (r == SHMPS_E_NO_DAEMON);
                MUST_OK(report, r);
                number++;
            }
        report->values[0] += (int64_t)number;
        shmps_publisher_close(pub);
    }
    shmps_close(bus);
}

static void test_pubsubd_is_killed_while_a_publisher_grows(void **state) {
    (void)state;
    enum { ROUNDS = 30 };
    uint64_t random = test_seed();
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct child child;
    uint64_t received = 0, next = 0, publisher = 0;
    child_start(&child, grow_for_ever, NULL);
    child_hear(&child);
    child_tell(&child, 1);
    for (int rounds = 0; rounds < ROUNDS;) {
        struct shmps_sample s;
        for (uint64_t k = draw(&random, 12); k > 0 && rounds < ROUNDS; k--) {
            assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
            assert_true(next == 0 || s.publisher == publisher); /* through all its rings */
            publisher = s.publisher;
            assert_int_equal(s.lost, 0);
            assert_true(sample_is(&s, 1, next));
            received++;
            assert_ok(shmps_release(sub, &s));
            if (++next < 21)
                continue;
            next = 0;
            child_tell(&child, ++rounds < ROUNDS); /* another one, or the end */
        }
        if (rounds < ROUNDS && draw(&random, 3) == 0) {
            daemon_kill();
            daemon_start();
        }
    }
    struct report report = child_end(&child);
    assert_int_equal(report.values[0], ROUNDS * 21);
    assert_int_equal(received, ROUNDS * 21);
    shmps_close(bus);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_the_dead_are_counted),
        WITH_DAEMON(test_latest_does_not_count),
        WITH_DAEMON(test_topics_come_and_go),
        WITH_DAEMON(test_every_sample_is_received_or_counted),
        WITH_DAEMON(test_a_subscriber_closed_without_pubsubd),
        WITH_DAEMON(test_a_connection_closed_without_pubsubd),
        WITH_DAEMON(test_a_dead_subscriber_without_pubsubd),
        WITH_DAEMON(test_pubsubd_is_stopped_while_all_come_back),
        WITH_DAEMON(test_a_publisher_that_cannot_grow_goes_on),
        WITH_DAEMON(test_a_ring_in_between_goes_empty),
        WITH_DAEMON(test_pubsubd_is_killed_while_a_publisher_grows),
    };
    return cmocka_run_group_tests_name("what has gone", tests, NULL, NULL);
}
