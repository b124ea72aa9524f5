/* Callbacks, by shmps_dispatch() and by the loop thread; subscribers that are opened, changed and
 * closed meanwhile, by other threads and by the callbacks themselves. */
#include "../harness.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

/* Until another thread or process has got there. */
#define UNTIL(condition)   \
    while (!(condition)) { \
        sched_yield();     \
    }

struct counted {
    _Atomic uint64_t received, wrong;
    _Atomic int stop_at;
    struct shmps *bus;
};

static void on_sample(struct shmps_subscriber *sub, const struct shmps_sample *sample,
                      void *user) {
    struct counted *c = user;
    (void)sub;
    c->wrong += sample->data == NULL || !sample_is(sample, 1, c->received);
    c->received++;
    if (c->stop_at != 0 && (int)c->received == c->stop_at)
        shmps_loop_stop(c->bus);
}

/* Of samples in any order, with gaps. */
static void count_only(struct shmps_subscriber *sub, const struct shmps_sample *sample,
                       void *user) {
    struct counted *c = user;
    (void)sub;
    c->wrong += sample->data != NULL && !message_valid(sample->data, sample->bytes);
    c->received++;
}

static void test_dispatch(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct counted counted[3] = { { .bus = bus }, { .bus = bus }, { .bus = bus } };
    struct shmps_subscriber *subs[3];
    struct child children[3];
    const char *const topics[3] = { "t/0", "t/1", "t/2" };
    assert_result(shmps_dispatch(bus, 0), SHMPS_EMPTY);
    assert_result(shmps_dispatch(bus, -2), SHMPS_E_INVALID);
    for (size_t i = 0; i < 3; i++) {
        subs[i] = subscriber_on(bus, topics[i], SHMPS_RELIABLE);
        assert_ok(shmps_subscriber_on_sample(subs[i], on_sample, &counted[i]));
        child_start(&children[i], publish_when_told, topics[i]);
        child_hear(&children[i]);
    }
    int fd = shmps_fd(bus);
    assert_true(fd >= 0);
    int r;
    while ((r = shmps_dispatch(bus, 0)) == 0) {
    }
    assert_result(r, SHMPS_EMPTY);
    assert_result(shmps_dispatch(bus, 2000000), SHMPS_TIMEOUT);
    for (uint64_t round = 1; round <= 300; round++) {
        size_t i = round % 3;
        uint64_t end = counted[i].received + 2;
        struct pollfd p = { .fd = fd, .events = POLLIN };
        child_tell(&children[i], 2);
        while (counted[i].received < end) {
            if (round % 2 == 0) /* its descriptor, or its own waiting */
                assert_int_equal(poll(&p, 1, -1), 1);
            r = shmps_dispatch(bus, round % 2 == 0 ? 0 : SHMPS_FOREVER);
            assert_true(r == 0 || r == SHMPS_EMPTY);
        }
    }
    assert_ok(shmps_subscriber_on_sample(subs[0], NULL, NULL)); /* no longer called */
    child_tell(&children[0], 1);
    struct shmps_sample s;
    assert_ok(shmps_take(subs[0], &s, SHMPS_FOREVER));
    assert_ok(shmps_release(subs[0], &s));
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(counted[i].received, 200);
        assert_int_equal(counted[i].wrong, 0);
        child_tell(&children[i], 0);
        child_end(&children[i]);
    }
    shmps_close(bus);
}

static void test_the_loops_thread(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct counted counted = { .bus = bus };
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct child child;
    assert_result(shmps_loop_stop(bus), SHMPS_E_STATE);
    assert_ok(shmps_subscriber_on_sample(sub, on_sample, &counted));
    for (int run = 0; run < 3; run++) {
        counted.received = 0;
        child_start(&child, publish_when_told, "t");
        child_hear(&child);
        assert_ok(shmps_loop_start(bus));
        assert_result(shmps_loop_start(bus), SHMPS_E_STATE);
        assert_result(shmps_dispatch(bus, 0), SHMPS_E_STATE);
        counted.stop_at = run == 1 ? 50 : 0; /* from within a callback */
        for (int i = 0; i < 50; i++)
            child_tell(&child, 1);
        child_tell(&child, 0);
        child_end(&child);
        while (counted.received < 50) /* it has been published: it comes */
            sched_yield();
        assert_ok(shmps_loop_stop(bus));
        assert_int_equal(counted.wrong, 0);
    }
    assert_ok(shmps_loop_start(bus));
    shmps_close(bus); /* stops it */
}

/* ---- closing while the loop's thread runs */

/* Closed by another thread in the middle of traffic: from then on it is not called, and nothing of
 * it is used. What its callback is given is freed at once, so that a checker would see it. */
static void test_closing_while_the_loop_runs(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 0, 0);
    uint64_t number = 0;
    assert_ok(shmps_loop_start(bus));
    for (int round = 0; round < 300; round++) {
        struct counted *counted = calloc(1, sizeof(*counted));
        struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_LOSSY);
        assert_ok(shmps_subscriber_on_sample(sub, count_only, counted));
        for (int i = 0; i < 1 + round % 40; i++)
            assert_ok(message_publish(pub, 1, number++, 100, 0));
        if (round % 3 != 0)
            UNTIL(counted->received > 0);
        if (round % 2 == 0)
            assert_ok(shmps_subscriber_on_sample(sub, NULL, NULL)); /* and then it is ours */
        else
            shmps_subscriber_close(sub);
        uint64_t received = counted->received;
        for (int i = 0; i < 5; i++)
            assert_ok(message_publish(pub, 1, number++, 100, 0));
        assert_int_equal(counted->received, received);
        assert_int_equal(counted->wrong, 0);
        free(counted);
        if (round % 2 == 0) {
            struct shmps_sample s;
            assert_ok(shmps_take(sub, &s, 0));
            assert_true(message_valid(s.data, s.bytes));
            assert_ok(shmps_release(sub, &s));
            shmps_subscriber_close(sub);
        }
    }
    assert_ok(shmps_loop_stop(bus));
    shmps_close(bus);
}

/* A callback that takes its time: who closes its subscriber waits for it. */
struct slow {
    _Atomic int called, inside, go_on, inside_when_closed;
    struct shmps_subscriber *sub;
};

static void be_slow(struct shmps_subscriber *sub, const struct shmps_sample *sample, void *user) {
    struct slow *slow = user;
    (void)sub;
    (void)sample;
    slow->inside = slow->called = 1;
    UNTIL(slow->go_on);
    sched_yield();
    slow->inside = 0;
}

static void *close_it(void *user) {
    struct slow *slow = user;
    shmps_subscriber_close(slow->sub);
    slow->inside_when_closed = slow->inside;
    return NULL;
}

static void test_closing_waits_for_the_callback(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 0, 0);
    assert_ok(shmps_loop_start(bus));
    for (int round = 0; round < 50; round++) {
        struct slow slow = { .sub = subscriber_on(bus, "t", SHMPS_RELIABLE) };
        struct shmps_subscriber *other = subscriber_on(bus, "t", SHMPS_RELIABLE);
        pthread_t thread;
        assert_ok(shmps_subscriber_on_sample(slow.sub, be_slow, &slow));
        assert_ok(shmps_publish(pub, "x", 1, 0, 0));
        UNTIL(slow.called);
        assert_int_equal(pthread_create(&thread, NULL, close_it, &slow), 0);
        shmps_subscriber_close(other); /* nobody else has to wait */
        for (int i = 0; i < round; i++)
            sched_yield();
        slow.go_on = 1;
        pthread_join(thread, NULL);
        assert_int_equal(slow.inside_when_closed, 0);
    }
    shmps_close(bus);
}

/* ---- closing in a callback */

struct ending {
    _Atomic uint64_t received, wrong;
    uint64_t last;                  /* with this one, */
    struct shmps_subscriber *close; /* this is closed, */
    struct shmps *close_bus;        /* or all */
};

static void end_in_callback(struct shmps_subscriber *sub, const struct shmps_sample *sample,
                            void *user) {
    struct ending *e = user;
    (void)sub;
    if (e->received + 1 == e->last) {
        shmps_subscriber_close(e->close);
        shmps_close(e->close_bus);
    }
    e->wrong += !message_valid(sample->data, sample->bytes); /* the sample is still held */
    e->received++;
}

static void wait_for_subscribers(struct shmps_publisher *pub, uint32_t n) {
    struct shmps_publisher_stats stats = { .size = sizeof(stats) };
    do
        assert_ok(shmps_publisher_stats(pub, &stats));
    while (stats.subscribers != n);
}

/* Itself, or another one, which is not called any more although something is there for it. */
static void test_closing_in_a_callback(void **state) {
    (void)state;
    struct shmps *bus = connected(), *other = connected();
    struct shmps_publisher *pub = publisher_on(other, "t", 0, 0);
    uint64_t number = 0;
    for (int round = 0; round < 40; round++) {
        bool loop = round % 2 == 0, itself = round % 4 < 2;
        struct shmps_subscriber *subs[] = { subscriber_on(bus, "t", SHMPS_RELIABLE),
                                            subscriber_on(bus, "t", SHMPS_RELIABLE) };
        struct ending endings[2] = { { .last = 3 }, { .last = 3 } };
        for (int i = 0; i < 2; i++)
            endings[i].close = subs[itself ? i : 1 - i];
        wait_for_subscribers(pub, 2);
        for (int i = 0; i < 6; i++)
            assert_ok(message_publish(pub, 1, number++, 3000, 0));
        for (int i = 0; i < 2; i++)
            assert_ok(shmps_subscriber_on_sample(subs[i], end_in_callback, &endings[i]));
        if (loop)
            assert_ok(shmps_loop_start(bus));
        while (itself ? endings[0].received + endings[1].received < 6
                      : endings[0].received < 6 && endings[1].received < 6)
            if (!loop)
                assert_ok(shmps_dispatch(bus, SHMPS_FOREVER));
        wait_for_subscribers(pub, itself ? 0 : 1);
        if (loop)
            assert_ok(shmps_loop_stop(bus));
        assert_int_equal(endings[0].wrong + endings[1].wrong, 0);
        if (!itself) { /* one of them was first, and has closed the other one */
            int first = endings[0].received == 6 ? 0 : 1;
            assert_int_equal(endings[1 - first].received, 0);
            shmps_subscriber_close(subs[first]);
        }
        wait_for_subscribers(pub, 0);
    }
    shmps_close(other);
    shmps_close(bus);
}

static void test_closing_the_connection_in_a_callback(void **state) {
    (void)state;
    struct shmps *other = connected();
    struct shmps_publisher *pub = publisher_on(other, "t", 0, 0);
    unsigned threads = count_threads(), descriptors = count_descriptors();
    for (int round = 0; round < 10; round++) {
        struct shmps *bus = connected();
        struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
        struct ending ending = { .last = 2, .close_bus = bus };
        subscriber_on(bus, "#", SHMPS_RELIABLE);
        for (uint64_t i = 0; i < 3; i++)
            assert_ok(message_publish(pub, 1, i, 3000, 0));
        assert_ok(shmps_subscriber_on_sample(sub, end_in_callback, &ending));
        if (round % 2 == 0)
            assert_ok(shmps_loop_start(bus));
        else
            assert_result(shmps_dispatch(bus, SHMPS_FOREVER), SHMPS_E_CLOSED);
        UNTIL(count_threads() == threads && count_descriptors() == descriptors);
        assert_int_equal(ending.received, 2);
        assert_int_equal(ending.wrong, 0);
        wait_for_subscribers(pub, 0);
    }
    shmps_close(other);
}

/* ---- many threads on one connection */

struct visitor {
    struct shmps *bus;
    uint64_t called, wrong;
    int trouble; /* a result that was not expected */
};

static void *come_and_go(void *user) {
    struct visitor *v = user;
    for (int round = 0; round < 60 && v->trouble == 0; round++) {
        struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
        struct counted *counted = calloc(2, sizeof(*counted));
        struct shmps_subscriber *sub;
        options.delivery = round % 2 == 0 ? SHMPS_LOSSY : SHMPS_LATEST;
        v->trouble = shmps_subscriber_open(v->bus, round % 3 == 0 ? "#" : "t", &options, &sub);
        if (v->trouble == 0) {
            v->trouble = shmps_subscriber_on_sample(sub, count_only, &counted[0]);
            UNTIL(v->trouble != 0 || counted[0].received > 0);
            if (v->trouble == 0 && round % 4 == 0) /* another one in its place */
                v->trouble = shmps_subscriber_on_sample(sub, count_only, &counted[1]);
            shmps_subscriber_close(sub);
        }
        v->called += counted[0].received;
        v->wrong += counted[0].wrong + counted[1].wrong;
        free(counted);
    }
    return NULL;
}

static void *publish_on_and_on(void *user) {
    struct counted *end = user;
    struct shmps_publisher *pub;
    uint64_t number = 0;
    if (shmps_publisher_open(end->bus, "t", NULL, &pub) != 0)
        return NULL; /* then nobody is called, and the watchdog barks */
    while (!end->stop_at) {
        end->wrong += message_publish(pub, 1, number++, 100, 0) != 0;
        sched_yield();
    }
    shmps_publisher_close(pub);
    return NULL;
}

static void test_threads_come_and_go(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct visitor visitors[4] = { { 0 } };
    struct counted end = { .bus = bus };
    pthread_t threads[4], publishing;
    assert_ok(shmps_loop_start(bus));
    assert_int_equal(pthread_create(&publishing, NULL, publish_on_and_on, &end), 0);
    for (int i = 0; i < 4; i++) {
        visitors[i].bus = bus;
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &visitors[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_result(visitors[i].trouble, 0);
        assert_int_equal(visitors[i].wrong, 0);
        assert_true(visitors[i].called >= 60);
    }
    end.stop_at = 1;
    pthread_join(publishing, NULL);
    assert_int_equal(end.wrong, 0);
    shmps_close(bus);
}

/* ---- one at a time */

struct nested {
    struct shmps *bus;
    int dispatch, start, stop, set;
};

static void use_the_bus(struct shmps_subscriber *sub, const struct shmps_sample *sample,
                        void *user) {
    struct nested *n = user;
    (void)sample;
    n->dispatch = shmps_dispatch(n->bus, 0);
    n->start = shmps_loop_start(n->bus);
    n->stop = shmps_loop_stop(n->bus);
    n->set = shmps_subscriber_on_sample(sub, NULL, NULL); /* the first is the last */
}

static void test_a_callback_cannot_dispatch(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 0, 0);
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct nested nested = { bus, 0, 0, 0, -1 };
    struct shmps_sample s;
    assert_ok(shmps_subscriber_on_sample(sub, use_the_bus, &nested));
    for (uint64_t i = 0; i < 2; i++)
        assert_ok(message_publish(pub, 1, i, 100, 0));
    assert_ok(shmps_dispatch(bus, SHMPS_FOREVER));
    assert_result(nested.dispatch, SHMPS_E_STATE);
    assert_result(nested.start, SHMPS_E_STATE);
    assert_result(nested.stop, SHMPS_E_STATE);
    assert_ok(nested.set);
    assert_result(shmps_dispatch(bus, 0), SHMPS_EMPTY);
    assert_ok(shmps_take(sub, &s, 0));
    assert_true(sample_is(&s, 1, 1));
    shmps_close(bus);
}

/* ---- the end of the bus */

/* A bus that was made anew: told once, and then it keeps no thread busy. */
static void test_a_bus_that_was_made_anew(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct counted counted = { .bus = bus };
    struct shmps_subscriber *subs[2];
    struct shmps_sample s;
    for (int i = 0; i < 2; i++) {
        subs[i] = subscriber_on(bus, "t", SHMPS_RELIABLE);
        assert_ok(shmps_subscriber_on_sample(subs[i], count_only, &counted));
    }
    daemon_stop();
    daemon_start();
    int r;
    while ((r = shmps_dispatch(bus, SHMPS_FOREVER)) == 0) {
    }
    assert_result(r, SHMPS_E_CLOSED);
    while (shmps_dispatch(bus, 0) == SHMPS_E_CLOSED) { /* once for each, if not both at once */
    }
    assert_result(shmps_dispatch(bus, 300000000), SHMPS_TIMEOUT);
    assert_result(shmps_take(subs[0], &s, 0), SHMPS_E_CLOSED);
    assert_result(shmps_take(subs[1], &s, 0), SHMPS_E_CLOSED);
    assert_int_equal(counted.received, 0);
    shmps_close(bus);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_dispatch),
        WITH_DAEMON(test_the_loops_thread),
        WITH_DAEMON(test_closing_while_the_loop_runs),
        WITH_DAEMON(test_closing_waits_for_the_callback),
        WITH_DAEMON(test_closing_in_a_callback),
        WITH_DAEMON(test_closing_the_connection_in_a_callback),
        WITH_DAEMON(test_threads_come_and_go),
        WITH_DAEMON(test_a_callback_cannot_dispatch),
        WITH_DAEMON(test_a_bus_that_was_made_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
