/* SIGKILL of a publisher, of a subscriber, of the daemon, at any moment: what the others have, and
 * that nobody waits for the dead. */
#include "../harness.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

static size_t size_of(uint64_t number) {
    return MESSAGE_BYTES_MIN + number % 7 * 500;
}

/* ---- a publisher */

struct flood {
    uint64_t say_after; /* samples */
    bool loan;          /* then keeps a loan open */
};

/* Publishes until it is killed. */
static void publish_for_ever(int socket, const void *argument, struct report *report) {
    const struct flood *flood = argument;
    struct shmps *bus;
    struct shmps_publisher *pub;
    void *loan;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, "t", NULL, &pub));
    for (uint64_t i = 0;; i++) {
        if (i == flood->say_after) {
            if (flood->loan) {
                MUST_OK(report, shmps_loan(pub, 3000, SHMPS_FOREVER, &loan));
                memset(loan, 0xff, 3000);
            }
            role_say(socket, report);
            if (flood->loan)
                role_listen(socket);
        }
        MUST_OK(report, message_publish(pub, 1, i, size_of(i), SHMPS_FOREVER));
    }
}

/* All that a dead publisher has committed, in order; then no more. Returns how many. */
static uint64_t drain(struct shmps_subscriber *sub, uint64_t *ret_lost) {
    struct shmps_sample s;
    uint64_t received = 0, lost = 0;
    for (;;) {
        struct shmps_event event;
        int r = shmps_take(sub, &s, 0);
        if (r == SHMPS_EMPTY) {
            /* It has left, and nothing has come since we looked. */
            if (shmps_subscriber_event(sub, &event, 0) == 0 &&
                event.kind == SHMPS_PUBLISHER_LEFT && shmps_take(sub, &s, 0) == SHMPS_EMPTY)
                break;
            sched_yield();
            continue;
        }
        assert_true(r == 0 || r == SHMPS_LOST);
        lost += s.lost;
        if (r == SHMPS_LOST)
            continue;
        assert_true(sample_is(&s, 1, received + lost));
        assert_int_equal(s.bytes, size_of(received + lost));
        received++;
        assert_ok(shmps_release(sub, &s));
    }
    *ret_lost = lost;
    return received;
}

/* A pair of joined and left may go untold: ask for the first while it is there. */
static void see(struct shmps_subscriber *sub, const struct child *publisher) {
    struct shmps_event event;
    assert_ok(shmps_subscriber_event(sub, &event, SHMPS_FOREVER));
    assert_int_equal(event.kind, SHMPS_PUBLISHER_JOINED);
    assert_int_equal(event.pid, publisher->pid);
}

static void test_a_publisher_is_killed(void **state) {
    (void)state;
    struct shmps *bus = connected();
    uint64_t random = test_seed();
    for (int round = 0; round < 60; round++) {
        struct flood flood = { .say_after = draw(&random, 60), .loan = round % 4 == 0 };
        struct shmps_subscriber *reliable = subscriber_on(bus, "t", SHMPS_RELIABLE);
        struct shmps_subscriber *lossy = subscriber_on(bus, "+", SHMPS_LOSSY);
        struct child child;
        uint64_t lost, all;
        child_start(&child, publish_for_ever, &flood);
        child_hear(&child);
        see(reliable, &child);
        see(lossy, &child);
        for (uint64_t k = draw(&random, 300); k > 0; k--)
            sched_yield(); /* amid whatever it does: the reliable one stops it after a lap */
        child_kill(&child);
        all = drain(reliable, &lost);
        assert_int_equal(lost, 0);
        assert_true(all >= flood.say_after);
        assert_int_equal(drain(lossy, &lost) + lost, all);
        assert_int_equal(lost, 0); /* held back by the reliable one, it could not be lapped */
        shmps_subscriber_close(lossy);
        shmps_subscriber_close(reliable);
        assert_int_equal(count_segments("r"), 0); /* drained, so it has gone */
        assert_int_equal(count_segments("e"), 0);
    }
    shmps_close(bus);
}

static void test_a_publisher_is_killed_while_it_laps(void **state) {
    (void)state;
    struct shmps *bus = connected();
    uint64_t random = test_seed();
    for (int round = 0; round < 30; round++) {
        struct flood flood = { .say_after = 1 + draw(&random, 3000) };
        struct shmps_subscriber *lossy = subscriber_on(bus, "t", SHMPS_LOSSY);
        struct shmps_subscriber *latest = subscriber_on(bus, "t", SHMPS_LATEST);
        struct shmps_sample s;
        struct child child;
        uint64_t lost, received;
        child_start(&child, publish_for_ever, &flood);
        child_hear(&child);
        see(lossy, &child);
        child_kill(&child);
        received = drain(lossy, &lost);
        assert_true(received + lost >= flood.say_after);
        assert_ok(shmps_take(latest, &s, 0));
        assert_true(sample_is(&s, 1, received + lost - 1)); /* the very last one */
        assert_ok(shmps_release(latest, &s));
        shmps_subscriber_close(latest);
        shmps_subscriber_close(lossy);
    }
    shmps_close(bus);
}

/* Stopped is not dead. */
static void test_a_publisher_is_stopped(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct flood flood = { .say_after = 10 };
    struct shmps_event event;
    struct shmps_sample s;
    struct child child;
    int status;
    child_start(&child, publish_for_ever, &flood);
    child_hear(&child);
    kill(child.pid, SIGSTOP);
    assert_int_equal(waitpid(child.pid, &status, WUNTRACED), child.pid);
    assert_ok(shmps_subscriber_event(sub, &event, 0));
    assert_int_equal(event.kind, SHMPS_PUBLISHER_JOINED);
    assert_result(shmps_subscriber_event(sub, &event, 50000000), SHMPS_TIMEOUT);
    uint64_t n = 0;
    for (; shmps_take(sub, &s, 0) == 0; n++) {
        assert_true(sample_is(&s, 1, n));
        assert_ok(shmps_release(sub, &s));
    }
    kill(child.pid, SIGCONT);
    for (uint64_t end = n + 500; n < end; n++) {
        assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
        assert_true(sample_is(&s, 1, n));
        assert_ok(shmps_release(sub, &s));
    }
    child_kill(&child);
    shmps_close(bus);
}

/* ---- a subscriber */

struct taker {
    int delivery;
    uint32_t takes; /* holds them, then takes no more */
};

static void take_and_stop(int socket, const void *argument, struct report *report) {
    const struct taker *taker = argument;
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps *bus;
    struct shmps_subscriber *sub;
    struct shmps_sample samples[8];
    options.delivery = taker->delivery;
    options.pins = 8;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_subscriber_open(bus, "t", &options, &sub));
    role_say(socket, report);
    for (uint32_t i = 0; i < taker->takes; i++)
        MUST_OK(report, shmps_take(sub, &samples[i], SHMPS_FOREVER));
    role_say(socket, report);
    role_listen(socket);
}

static void publish_until_told(int socket, const void *argument, struct report *report) {
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps *bus;
    struct shmps_publisher *pub;
    uint64_t number = 0;
    options.depth = 4;
    options.wait = *(const int *)argument;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, "t", &options, &pub));
    role_say(socket, report);
    for (int64_t n; (n = role_listen(socket)) != 0;) {
        for (; n > 0; n--, number++)
            MUST_OK(report, message_publish(pub, 1, number, 3000, SHMPS_FOREVER));
        role_say(socket, report);
    }
    shmps_close(bus);
}

static void test_a_subscriber_is_killed(void **state) {
    const int waits[] = { SHMPS_WAIT_DEFAULT, SHMPS_WAIT_SPIN, SHMPS_WAIT_SLEEP };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct child publisher, subscriber;
        child_start(&publisher, publish_until_told, &waits[i]);
        child_hear(&publisher);
        for (int round = 0; round < 8; round++) {
            struct taker taker = { .delivery = SHMPS_RELIABLE, .takes = (uint32_t)round };
            child_start(&subscriber, take_and_stop, &taker);
            child_hear(&subscriber);
            child_tell(&publisher, 100); /* it will be held back until the subscriber is dead */
            child_hear(&subscriber);
            child_kill(&subscriber);
            child_hear(&publisher);
        }
        child_tell(&publisher, 0);
        child_end(&publisher);
    }
}

/* Its entry is given to others, also with samples held. */
static void test_many_subscribers_are_killed(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 4096);
    struct shmps_event event;
    uint64_t number = 0;
    for (int round = 0; round < 130; round++) { /* more than two pages of entries */
        struct taker taker = { .delivery = round % 2 == 0 ? SHMPS_LOSSY : SHMPS_RELIABLE,
                               .takes = 3 };
        struct child child;
        child_start(&child, take_and_stop, &taker);
        child_hear(&child);
        for (int i = 0; i < 4; i++)
            assert_ok(message_publish(pub, 1, number++, 3000, SHMPS_FOREVER));
        child_hear(&child);
        assert_ok(shmps_publisher_event(pub, &event, SHMPS_FOREVER));
        assert_int_equal(event.kind, SHMPS_SUBSCRIBER_JOINED);
        child_kill(&child);
        assert_ok(shmps_publisher_event(pub, &event, SHMPS_FOREVER));
        assert_int_equal(event.kind, SHMPS_SUBSCRIBER_LEFT);
        for (int i = 0; i < 10; i++)
            assert_ok(message_publish(pub, 1, number++, 3000, SHMPS_FOREVER));
    }
    assert_int_equal(count_segments("e"), 1); /* one page has sufficed */
    shmps_close(bus);
}

/* ---- the daemon */

/* Publishes as told, receives its own topic's counterpart: traffic that needs no daemon. */
static void receive_until_told(int socket, const void *argument, struct report *report) {
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps *bus;
    struct shmps_subscriber *sub;
    struct shmps_sample s;
    uint64_t number = 0;
    options.delivery = *(const int *)argument;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_subscriber_open(bus, "t", &options, &sub));
    role_say(socket, report);
    for (int64_t n; (n = role_listen(socket)) != 0;) {
        for (; n > 0; n--, number++) {
            MUST_OK(report, shmps_take(sub, &s, SHMPS_FOREVER));
            MUST(report, sample_is(&s, 1, number));
            MUST_OK(report, shmps_release(sub, &s));
        }
        role_say(socket, report);
    }
    shmps_close(bus);
}

static void exchange(struct child *publisher, struct child *subscriber, int64_t n) {
    child_tell(publisher, n);
    child_tell(subscriber, n);
    child_hear(publisher);
    child_hear(subscriber);
}

static void test_the_daemon_is_killed(void **state) {
    (void)state;
    const int wait = SHMPS_WAIT_DEFAULT, delivery = SHMPS_RELIABLE;
    struct child publisher, subscriber;
    struct shmps *bus;
    child_start(&publisher, publish_until_told, &wait);
    child_start(&subscriber, receive_until_told, &delivery);
    child_hear(&publisher);
    child_hear(&subscriber);
    exchange(&publisher, &subscriber, 300);
    for (uint64_t round = 0; round < 5; round++) {
        struct shmps_sample s;
        daemon_kill();
        exchange(&publisher, &subscriber, 300); /* goes on */
        daemon_start();
        exchange(&publisher, &subscriber, 300);
        bus = connected(); /* newcomers on both sides */
        struct shmps_subscriber *sub = subscriber_on(bus, "#", SHMPS_RELIABLE);
        struct shmps_publisher *pub = publisher_on(bus, "new", 0, 0);
        child_tell(&publisher, 3); /* the old publisher, the new subscriber */
        child_tell(&subscriber, 3);
        for (uint64_t i = 0; i < 3; i++) {
            assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
            assert_true(sample_is(&s, 1, 300 + round * 603 + 600 + i));
            assert_ok(shmps_release(sub, &s));
        }
        child_hear(&publisher);
        child_hear(&subscriber);
        assert_ok(message_publish(pub, 2, 0, 100, 0));
        assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
        assert_true(sample_is(&s, 2, 0));
        shmps_close(bus);
    }
    child_tell(&publisher, 0);
    child_tell(&subscriber, 0);
    child_end(&publisher);
    child_end(&subscriber);
}

/* Handles of one process over the death of the daemon, with what happens meanwhile. */
static void test_deaths_while_the_daemon_is_dead(void **state) {
    (void)state;
    struct flood flood = { .say_after = 20 };
    struct taker taker = { .delivery = SHMPS_RELIABLE, .takes = 2 };
    struct child dying_publisher, dying_subscriber;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "u", 4, 0), *refused;
    struct shmps_subscriber *reliable = subscriber_on(bus, "t", SHMPS_RELIABLE);
    uint64_t lost, n = 0;
    child_start(&dying_subscriber, take_and_stop, &taker);
    child_hear(&dying_subscriber);
    child_start(&dying_publisher, publish_for_ever, &flood);
    child_hear(&dying_publisher);
    see(reliable, &dying_publisher);
    child_hear(&dying_subscriber);
    assert_int_equal(shmps_daemon_alive(bus), 1);
    daemon_kill();
    assert_int_equal(shmps_daemon_alive(bus), 0);
    assert_result(shmps_publisher_open(bus, "v", NULL, &refused), SHMPS_E_NO_DAEMON);
    child_kill(&dying_publisher);
    child_kill(&dying_subscriber);
    assert_ok(message_publish(pub, 1, n++, 100, 0));
    daemon_start();
    assert_true(drain(reliable, &lost) >= 20);
    assert_int_equal(lost, 0);
    assert_int_equal(shmps_daemon_alive(bus), 1);
    assert_result(shmps_publisher_wait_subscribers(pub, 1, 0), SHMPS_TIMEOUT);
    struct shmps_subscriber *sub = subscriber_on(bus, "u", SHMPS_RELIABLE);
    for (; n < 5; n++)
        assert_ok(message_publish(pub, 1, n, 100, 0));
    for (uint64_t i = 1; i < 5; i++) {
        struct shmps_sample s;
        assert_ok(shmps_take(sub, &s, 0));
        assert_true(sample_is(&s, 1, i));
        assert_ok(shmps_release(sub, &s));
    }
    assert_int_equal(count_segments("r"), 1); /* of what has died nothing is left */
    shmps_close(bus);
}

/* A publisher that must wait for somebody who dies while there is no daemon to say so. */
static void test_held_back_by_who_died_without_a_daemon(void **state) {
    (void)state;
    const int wait = SHMPS_WAIT_SLEEP;
    struct taker taker = { .delivery = SHMPS_RELIABLE, .takes = 1 };
    struct child publisher, subscriber;
    child_start(&publisher, publish_until_told, &wait);
    child_hear(&publisher);
    child_start(&subscriber, take_and_stop, &taker);
    child_hear(&subscriber);
    child_tell(&publisher, 50);
    child_hear(&subscriber);
    daemon_kill();
    child_kill(&subscriber);
    daemon_start();
    child_hear(&publisher);
    child_tell(&publisher, 0);
    child_end(&publisher);
}

/* A daemon that was told to end takes the bus with it; its clients learn it from the next one. */
static void test_a_clean_end_is_told(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 0);
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct shmps_sample s;
    assert_ok(message_publish(pub, 1, 0, 100, 0));
    daemon_stop(); /* cleanly: all segments have gone */
    assert_int_equal(count_segments(""), 0);
    assert_ok(shmps_take(sub, &s, 0)); /* what is mapped goes on */
    assert_true(sample_is(&s, 1, 0));
    assert_ok(shmps_release(sub, &s));
    assert_ok(message_publish(pub, 1, 1, 100, 0));
    assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
    assert_ok(shmps_release(sub, &s));
    daemon_start();
    int r;
    while ((r = shmps_take(sub, &s, 10000000)) == SHMPS_TIMEOUT) {
    }
    assert_result(r, SHMPS_E_CLOSED); /* another bus now */
    while ((r = message_publish(pub, 1, 2, 100, 10000000)) == 0 || r == SHMPS_FULL) {
    }
    assert_result(r, SHMPS_E_CLOSED);
    shmps_close(bus);
    bus = connected();
    sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    shmps_close(bus);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_a_publisher_is_killed),
        WITH_DAEMON(test_a_publisher_is_killed_while_it_laps),
        WITH_DAEMON(test_a_publisher_is_stopped),
        WITH_DAEMON(test_a_subscriber_is_killed),
        WITH_DAEMON(test_many_subscribers_are_killed),
        WITH_DAEMON(test_the_daemon_is_killed),
        WITH_DAEMON(test_deaths_while_the_daemon_is_dead),
        WITH_DAEMON(test_held_back_by_who_died_without_a_daemon),
        WITH_DAEMON(test_a_clean_end_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
