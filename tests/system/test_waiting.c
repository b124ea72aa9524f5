/* The ways to wait for a sample: spinning, sleeping, a descriptor in the user's epoll. Publisher
 * and subscriber are processes of their own, and the publisher sends when it is told to, so that
 * the waiting side really waits. */
#include "../harness.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <time.h>

/* A ping is answered with a pong: each message is waited for from scratch. */
struct game {
    int wait;
    uint64_t rounds;
};

static void answer(int socket, const void *argument, struct report *report) {
    const struct game *game = argument;
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps *bus;
    struct shmps_publisher *pub;
    struct shmps_subscriber *sub;
    options.wait = game->wait;
    options.delivery = SHMPS_RELIABLE;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_subscriber_open(bus, "ping", &options, &sub));
    MUST_OK(report, shmps_publisher_open(bus, "pong", NULL, &pub));
    role_say(socket, report);
    for (uint64_t i = 0; i < game->rounds; i++) {
        struct shmps_sample s;
        MUST_OK(report, shmps_take(sub, &s, SHMPS_FOREVER));
        MUST(report, sample_is(&s, 1, i));
        MUST_OK(report, shmps_release(sub, &s));
        MUST_OK(report, message_publish(pub, 2, i, 40, SHMPS_FOREVER));
    }
    shmps_close(bus);
}

static void play(int wait, uint64_t rounds) {
    struct game game = { wait, rounds };
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "ping", 0, 0);
    struct shmps_subscriber *sub;
    struct child child;
    options.wait = wait;
    assert_ok(shmps_subscriber_open(bus, "pong", &options, &sub));
    child_start(&child, answer, &game);
    child_hear(&child);
    for (uint64_t i = 0; i < rounds; i++) {
        struct shmps_sample s;
        assert_ok(message_publish(pub, 1, i, 40, SHMPS_FOREVER));
        assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
        assert_true(sample_is(&s, 2, i));
        assert_ok(shmps_release(sub, &s));
    }
    struct shmps_subscriber_stats stats = { .size = sizeof(stats) };
    assert_ok(shmps_subscriber_stats(sub, &stats));
    if (wait == SHMPS_WAIT_SPIN)
        assert_int_equal(stats.sleeps, 0);
    if (wait == SHMPS_WAIT_SLEEP)
        assert_true(stats.sleeps > 0);
    child_end(&child);
    shmps_close(bus);
}

static void test_spinning(void **state) {
    (void)state;
    play(SHMPS_WAIT_SPIN, 2000);
}
static void test_sleeping(void **state) {
    (void)state;
    play(SHMPS_WAIT_SLEEP, 2000);
}
static void test_spinning_then_sleeping(void **state) {
    (void)state;
    play(SHMPS_WAIT_DEFAULT, 2000);
}

/* A publisher that sleeps for room is woken by whom it waits for: so often that a sleep which only
 * its bound ends would be noticed by the watchdog. */
static void publish_into_two_slots(int socket, const void *argument, struct report *report) {
    const struct game *game = argument;
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps_publisher_stats stats = { .size = sizeof(stats) };
    struct shmps *bus;
    struct shmps_publisher *pub;
    options.depth = 2;
    options.wait = game->wait;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, "t", &options, &pub));
    MUST_OK(report, shmps_publisher_wait_subscribers(pub, 1, SHMPS_FOREVER));
    for (uint64_t i = 0; i < game->rounds; i++)
        MUST_OK(report, message_publish(pub, 1, i, 40, SHMPS_FOREVER));
    MUST_OK(report, shmps_publisher_stats(pub, &stats));
    report->values[0] = (int64_t)stats.stalls;
    (void)socket;
    shmps_close(bus);
}

static void test_sleeping_for_room(void **state) {
    (void)state;
    struct game game = { SHMPS_WAIT_SLEEP, 4000 };
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct child child;
    child_start(&child, publish_into_two_slots, &game);
    for (uint64_t i = 0; i < game.rounds; i++) {
        struct shmps_sample s;
        assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
        assert_true(sample_is(&s, 1, i));
        assert_ok(shmps_release(sub, &s));
        if (i % 2 == 1)
            sched_yield(); /* it fills both, and sleeps */
    }
    assert_true(child_end(&child).values[0] > 0);
    shmps_close(bus);
}

static void test_deadlines(void **state) {
    const int waits[] = { SHMPS_WAIT_DEFAULT, SHMPS_WAIT_SPIN, SHMPS_WAIT_SLEEP };
    (void)state;
    struct shmps *bus = connected();
    for (size_t i = 0; i < 3; i++) {
        struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
        struct shmps_subscriber *sub;
        struct shmps_sample s;
        options.wait = waits[i];
        assert_ok(shmps_subscriber_open(bus, "t", &options, &sub));
        assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY);
        assert_result(shmps_take(sub, &s, 1), SHMPS_TIMEOUT);
        assert_result(shmps_take(sub, &s, 5000000), SHMPS_TIMEOUT);
        assert_result(shmps_take(sub, &s, -2), SHMPS_E_INVALID);
        shmps_subscriber_close(sub);
    }
    shmps_close(bus);
}

/* A publisher that comes only while somebody sleeps already, on a topic and on a filter. */
static void test_asleep_before_there_is_a_publisher(void **state) {
    const char *const filters[] = { "t/1", "t/+", "#" };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
        struct shmps *bus = connected();
        struct shmps_subscriber *sub;
        struct shmps_sample s;
        struct child child;
        options.wait = SHMPS_WAIT_SLEEP;
        assert_ok(shmps_subscriber_open(bus, filters[i], &options, &sub));
        child_start(&child, publish_when_told, "t/1");
        child_tell(&child, 1); /* as soon as it is there */
        child_tell(&child, 0);
        assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
        assert_true(sample_is(&s, 1, 0));
        assert_ok(shmps_release(sub, &s));
        child_hear(&child);
        child_end(&child);
        shmps_close(bus);
    }
}

/* ---- a descriptor */

static volatile sig_atomic_t signals;
static void on_signal(int signal) {
    (void)signal;
    signals++;
}

static bool is_readable(int fd) {
    struct pollfd p = { .fd = fd, .events = POLLIN };
    return poll(&p, 1, 0) == 1;
}

/* In the user's epoll, for ever: no message may be forgotten, and no EINTR may come of our own. */
static void test_a_descriptor_in_epoll(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct child child;
    struct shmps_sample s;
    uint64_t received = 0, interrupted = 0, vain = 0, rounds = 1500;
    child_start(&child, publish_when_told, "t");
    child_hear(&child);
    int fd = shmps_subscriber_fd(sub), epoll = epoll_create1(EPOLL_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(shmps_subscriber_fd(sub), fd); /* made once */
    struct epoll_event e = { .events = EPOLLIN }; /* level-triggered */
    assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e), 0);
    while (shmps_take(sub, &s, 0) == 0)
        assert_ok(shmps_release(sub, &s));
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t n = 1 + round % 3, end = received + n;
        child_tell(&child, (int64_t)n);
        while (received < end) {
            int ready = epoll_wait(epoll, &e, 1, -1);
            interrupted += ready < 0 && errno == EINTR;
            uint64_t before = received;
            while (ready == 1 && shmps_take(sub, &s, 0) == 0) {
                assert_true(sample_is(&s, 1, received++));
                assert_ok(shmps_release(sub, &s));
            }
            vain += ready == 1 && received == before;
        }
    }
    assert_int_equal(interrupted, 0);
    assert_true(vain <= received); /* coalescing: now and then once for nothing, not always */
    child_tell(&child, 0);
    child_end(&child);
    close(epoll);
    shmps_close(bus);
}

static void test_a_descriptor_is_level_triggered(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 0, 0);
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_LOSSY);
    struct shmps_sample s;
    int fd = shmps_subscriber_fd(sub);
    assert_true(fd >= 0);
    while (shmps_take(sub, &s, 0) == 0) {
    }
    assert_false(is_readable(fd));
    for (uint64_t i = 0; i < 20; i += 2) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        assert_ok(message_publish(pub, 1, i, 100, 0));
        assert_int_equal(poll(&p, 1, -1), 1);
        assert_true(is_readable(fd)); /* still */
        assert_ok(message_publish(pub, 1, i + 1, 100, 0));
        assert_ok(shmps_take(sub, &s, 0));
        assert_true(sample_is(&s, 1, i));
        assert_ok(shmps_release(sub, &s));
        assert_true(is_readable(fd)); /* one is left */
        assert_ok(shmps_take(sub, &s, 0));
        assert_true(sample_is(&s, 1, i + 1));
        assert_ok(shmps_release(sub, &s));
        assert_true(is_readable(fd)); /* until a take has said EMPTY */
        assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY);
        assert_false(is_readable(fd));
    }
    shmps_close(bus);
}

/* A new publisher, and one on a new topic, make it readable too. */
static void test_a_descriptor_of_a_filter(void **state) {
    (void)state;
    struct shmps *bus = connected(), *other = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t/#", SHMPS_LOSSY);
    struct shmps_sample s;
    char topic[16];
    int fd = shmps_subscriber_fd(sub);
    for (uint32_t i = 0; i < 20; i++) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        while (shmps_take(sub, &s, 0) == 0)
            assert_ok(shmps_release(sub, &s));
        snprintf(topic, sizeof(topic), "t/%u", i % 7);
        struct shmps_publisher *pub = publisher_on(other, topic, 0, 0);
        assert_ok(message_publish(pub, i, 0, 50, 0));
        do
            assert_int_equal(poll(&p, 1, -1), 1);
        while (shmps_take(sub, &s, 0) != 0);
        assert_true(sample_is(&s, i, 0));
        assert_ok(shmps_release(sub, &s));
        if (i % 2 == 0)
            shmps_publisher_close(pub);
    }
    shmps_close(other);
    shmps_close(bus);
}

/* More rings than a sleep can be told of at once: nothing is forgotten all the same. */
static void publish_on_many(int socket, const void *argument, struct report *report) {
    enum { MANY = 150 };
    static struct shmps_publisher *pubs[MANY];
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps *bus;
    char topic[32];
    (void)argument;
    options.message_bytes = 100;
    MUST_OK(report, shmps_connect(&bus, NULL));
    for (uint32_t i = 0; i < MANY; i++) {
        snprintf(topic, sizeof(topic), "t/%u", i);
        MUST_OK(report, shmps_publisher_open(bus, topic, &options, &pubs[i]));
    }
    role_say(socket, report);
    for (int64_t i; (i = role_listen(socket)) != 0;)
        MUST_OK(report, message_publish(pubs[i % MANY], (uint32_t)(i % MANY), (uint64_t)i / MANY,
                                        50, SHMPS_FOREVER));
    shmps_close(bus);
}

static void test_many_rings(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps_subscriber *sleeping, *polled;
    struct shmps_sample s;
    struct child child;
    options.wait = SHMPS_WAIT_SLEEP;
    assert_ok(shmps_subscriber_open(bus, "t/+", &options, &sleeping));
    assert_ok(shmps_subscriber_open(bus, "#", &options, &polled));
    struct pollfd p = { .fd = shmps_subscriber_fd(polled), .events = POLLIN };
    child_start(&child, publish_on_many, NULL);
    child_hear(&child);
    while (shmps_take(polled, &s, 0) == 0)
        assert_ok(shmps_release(polled, &s));
    for (uint32_t i = 150; i < 600; i++) {
        child_tell(&child, i);
        assert_ok(shmps_take(sleeping, &s, SHMPS_FOREVER));
        assert_true(message_valid(s.data, s.bytes));
        assert_int_equal(((const struct message *)s.data)->publisher, i % 150);
        assert_ok(shmps_release(sleeping, &s));
        do
            assert_int_equal(poll(&p, 1, -1), 1);
        while (shmps_take(polled, &s, 0) != 0);
        assert_int_equal(((const struct message *)s.data)->number, i / 150);
        assert_ok(shmps_release(polled, &s));
    }
    child_tell(&child, 0);
    child_end(&child);
    shmps_close(bus);
}

/* The library's waits go on after a signal of the program. */
static void test_signals_do_not_end_a_wait(void **state) {
    (void)state;
    const int waits[] = { SHMPS_WAIT_DEFAULT, SHMPS_WAIT_SPIN, SHMPS_WAIT_SLEEP };
    struct sigaction action = { .sa_handler = on_signal };
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
    struct itimerspec often = { { 0, 1000000 }, { 0, 1000000 } };
    struct shmps *bus = connected();
    timer_t timer;
    sigaction(SIGUSR1, &action, NULL);
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    assert_int_equal(timer_settime(timer, 0, &often, NULL), 0);
    for (size_t i = 0; i < 3; i++) {
        struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
        struct shmps_subscriber *sub;
        struct shmps_sample s;
        options.wait = waits[i];
        signals = 0;
        assert_ok(shmps_subscriber_open(bus, "t", &options, &sub));
        assert_result(shmps_take(sub, &s, 30000000), SHMPS_TIMEOUT);
        assert_true(signals > 0);
        shmps_subscriber_close(sub);
    }
    timer_delete(timer);
    signal(SIGUSR1, SIG_DFL);
    shmps_close(bus);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_spinning),
        WITH_DAEMON(test_sleeping),
        WITH_DAEMON(test_spinning_then_sleeping),
        WITH_DAEMON(test_sleeping_for_room),
        WITH_DAEMON(test_deadlines),
        WITH_DAEMON(test_asleep_before_there_is_a_publisher),
        WITH_DAEMON(test_a_descriptor_in_epoll),
        WITH_DAEMON(test_a_descriptor_is_level_triggered),
        WITH_DAEMON(test_a_descriptor_of_a_filter),
        WITH_DAEMON(test_many_rings),
        WITH_DAEMON(test_signals_do_not_end_a_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
