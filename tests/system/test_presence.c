/* Who is on the other side: counts that can be waited for, and events. */
#include "../harness.h"

/* ---- roles: open, say so, stay until told, close */

static void be_publisher(int socket, const void *argument, struct report *report) {
    struct shmps_publisher_stats stats = { .size = sizeof(stats) };
    struct shmps *bus;
    struct shmps_publisher *pub;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, argument, NULL, &pub));
    MUST_OK(report, shmps_publisher_stats(pub, &stats));
    report->values[0] = (int64_t)stats.id;
    role_say(socket, report);
    role_listen(socket);
    shmps_publisher_close(pub);
    role_say(socket, report);
    role_listen(socket);
    shmps_close(bus);
}

static void be_subscriber(int socket, const void *argument, struct report *report) {
    struct shmps *bus;
    struct shmps_subscriber *sub;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_subscriber_open(bus, argument, NULL, &sub));
    role_say(socket, report);
    role_listen(socket);
    shmps_subscriber_close(sub);
    role_say(socket, report);
    role_listen(socket);
    shmps_close(bus);
}

static void finish(struct child *child) {
    child_tell(child, 0); /* close the handle */
    child_hear(child);
    child_tell(child, 0); /* close the connection */
    child_end(child);
}

/* ---- events */

static struct shmps_event next_of_subscriber(struct shmps_subscriber *sub) {
    struct shmps_event event;
    assert_ok(shmps_subscriber_event(sub, &event, SHMPS_FOREVER));
    return event;
}
static struct shmps_event next_of_publisher(struct shmps_publisher *pub) {
    struct shmps_event event;
    assert_ok(shmps_publisher_event(pub, &event, SHMPS_FOREVER));
    return event;
}

static void test_a_subscriber_learns_of_publishers(void **state) {
    const char *const filters[] = { "t/a", "t/#" };
    (void)state;
    struct shmps *bus = connected();
    for (size_t i = 0; i < 2; i++) {
        struct child here, later, killed;
        struct shmps_event event;
        child_start(&here, be_publisher, "t/a");
        int64_t here_id = child_hear(&here).values[0];
        struct shmps_subscriber *sub = subscriber_on(bus, filters[i], SHMPS_LOSSY);
        event = next_of_subscriber(sub); /* who was there is reported first */
        assert_int_equal(event.kind, SHMPS_PUBLISHER_JOINED);
        assert_int_equal(event.pid, here.pid);
        assert_int_equal(event.id, here_id);
        assert_string_equal(event.topic, "t/a");
        assert_result(shmps_subscriber_event(sub, &event, 0), SHMPS_EMPTY);
        assert_result(shmps_subscriber_event(sub, &event, 1000000), SHMPS_TIMEOUT);
        child_start(&later, be_publisher, "t/a");
        event = next_of_subscriber(sub);
        assert_int_equal(event.kind, SHMPS_PUBLISHER_JOINED);
        assert_int_equal(event.pid, later.pid);
        child_hear(&later);
        child_start(&killed, be_publisher, i == 0 ? "t/a" : "t/new");
        child_hear(&killed);
        pid_t pid = killed.pid;
        event = next_of_subscriber(sub);
        assert_int_equal(event.pid, pid);
        assert_string_equal(event.topic, i == 0 ? "t/a" : "t/new");
        child_kill(&killed);
        event = next_of_subscriber(sub);
        assert_int_equal(event.kind, SHMPS_PUBLISHER_LEFT);
        assert_int_equal(event.pid, pid);
        child_tell(&here, 0);
        event = next_of_subscriber(sub);
        assert_int_equal(event.kind, SHMPS_PUBLISHER_LEFT);
        assert_int_equal(event.id, here_id);
        child_hear(&here);
        child_tell(&here, 0);
        child_end(&here);
        finish(&later);
        shmps_subscriber_close(sub);
    }
    shmps_close(bus);
}

static void test_a_publisher_learns_of_subscribers(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t/a", 0, 0);
    struct shmps_event event;
    struct child exact, filter, killed;
    assert_result(shmps_publisher_event(pub, &event, 0), SHMPS_EMPTY);
    child_start(&exact, be_subscriber, "t/a");
    event = next_of_publisher(pub);
    assert_int_equal(event.kind, SHMPS_SUBSCRIBER_JOINED);
    assert_int_equal(event.pid, exact.pid);
    assert_string_equal(event.topic, "t/a");
    child_hear(&exact);
    child_start(&filter, be_subscriber, "+/a");
    event = next_of_publisher(pub);
    assert_int_equal(event.kind, SHMPS_SUBSCRIBER_JOINED);
    assert_int_equal(event.pid, filter.pid);
    child_hear(&filter);
    child_start(&killed, be_subscriber, "#");
    event = next_of_publisher(pub);
    pid_t pid = killed.pid;
    assert_int_equal(event.pid, pid);
    child_hear(&killed);
    child_kill(&killed);
    event = next_of_publisher(pub);
    assert_int_equal(event.kind, SHMPS_SUBSCRIBER_LEFT);
    assert_int_equal(event.pid, pid);
    child_tell(&exact, 0);
    event = next_of_publisher(pub);
    assert_int_equal(event.kind, SHMPS_SUBSCRIBER_LEFT);
    assert_int_equal(event.pid, exact.pid);
    child_hear(&exact);
    child_tell(&exact, 0);
    child_end(&exact);
    finish(&filter);
    shmps_close(bus);
}

/* ---- counts */

static void test_waiting_for_counts(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t/a", 0, 0);
    struct shmps_subscriber *sub = subscriber_on(bus, "t/+", SHMPS_LOSSY);
    struct shmps_subscriber_stats stats = { .size = sizeof(stats) };
    struct child publishers[5], subscribers[5];
    assert_ok(shmps_publisher_wait_subscribers(pub, 0, 0));
    assert_ok(shmps_publisher_wait_subscribers(pub, 1, 0)); /* our own */
    assert_result(shmps_publisher_wait_subscribers(pub, 2, 0), SHMPS_TIMEOUT);
    assert_result(shmps_publisher_wait_subscribers(pub, 2, 1000000), SHMPS_TIMEOUT);
    assert_ok(shmps_subscriber_wait_publishers(sub, 1, 0));
    assert_result(shmps_subscriber_wait_publishers(sub, 2, 1000000), SHMPS_TIMEOUT);
    for (uint32_t i = 0; i < 5; i++)
        child_start(&subscribers[i], be_subscriber, i % 2 == 0 ? "t/a" : "#");
    assert_ok(shmps_publisher_wait_subscribers(pub, 6, SHMPS_FOREVER));
    for (uint32_t i = 0; i < 5; i++)
        child_start(&publishers[i], be_publisher, i % 2 == 0 ? "t/a" : "t/b");
    assert_ok(shmps_subscriber_wait_publishers(sub, 6, SHMPS_FOREVER));
    assert_ok(shmps_subscriber_stats(sub, &stats));
    assert_int_equal(stats.publishers, 6);
    assert_int_equal(stats.topics, 2);
    for (uint32_t i = 0; i < 5; i++) {
        child_hear(&subscribers[i]);
        finish(&subscribers[i]);
        child_hear(&publishers[i]);
        finish(&publishers[i]);
    }
    assert_ok(shmps_publisher_wait_subscribers(pub, 1, 0));
    assert_result(shmps_publisher_wait_subscribers(pub, 2, 0), SHMPS_TIMEOUT);
    assert_result(shmps_subscriber_wait_publishers(sub, 2, 0), SHMPS_TIMEOUT);
    assert_ok(shmps_subscriber_stats(sub, &stats));
    assert_int_equal(stats.publishers, 1);
    assert_int_equal(stats.topics, 1); /* nobody is left on the other one */
    shmps_close(bus);
}

/* Whom wait_subscribers() or an event has shown receives what is published then. */
static void subscribe_and_take_one(int socket, const void *argument, struct report *report) {
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps *bus;
    struct shmps_subscriber *sub;
    struct shmps_sample s;
    options.delivery = *(const int *)argument;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_subscriber_open(bus, "t", &options, &sub));
    MUST_OK(report, shmps_take(sub, &s, SHMPS_FOREVER));
    report->values[0] = (int64_t)s.seq;
    (void)socket;
    shmps_close(bus);
}

static void test_who_is_seen_receives(void **state) {
    const int deliveries[] = { SHMPS_RELIABLE, SHMPS_LOSSY, SHMPS_LATEST };
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 0, 0);
    for (uint64_t i = 0; i < 150; i++) {
        struct child child;
        struct shmps_event event;
        child_start(&child, subscribe_and_take_one, &deliveries[i % 3]);
        if (i / 3 % 2 == 0)
            assert_ok(shmps_publisher_wait_subscribers(pub, 1, SHMPS_FOREVER));
        else
            do
                event = next_of_publisher(pub);
            while (event.kind != SHMPS_SUBSCRIBER_JOINED || event.pid != child.pid);
        assert_ok(message_publish(pub, 1, i, 100, SHMPS_FOREVER)); /* once */
        assert_int_equal(child_end(&child).values[0], i);
        while (shmps_publisher_wait_subscribers(pub, 1, 0) == 0)
            shmps_publisher_event(pub, &event, 1000000); /* until it has gone */
    }
    shmps_close(bus);
}

/* Nobody will ever come to a bus that was made anew behind our back: no wait for ever. */
static void test_waiting_on_a_bus_that_was_made_anew(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct shmps *bus = connected();
        struct shmps_publisher *pub = publisher_on(bus, "p", 0, 0);
        struct shmps_subscriber *sub = subscriber_on(bus, i % 2 == 0 ? "s" : "s/#", SHMPS_LOSSY);
        struct shmps_event event;
        assert_result(shmps_publisher_wait_subscribers(pub, 1, -2), SHMPS_E_INVALID);
        assert_result(shmps_publisher_event(pub, &event, -2), SHMPS_E_INVALID);
        assert_result(shmps_subscriber_wait_publishers(sub, 1, -2), SHMPS_E_INVALID);
        assert_result(shmps_subscriber_event(sub, &event, -2), SHMPS_E_INVALID);
        daemon_stop();
        daemon_start();
        int64_t timeout_ns = i < 2 ? SHMPS_FOREVER : 0;
        assert_result(shmps_publisher_wait_subscribers(pub, 1, timeout_ns), SHMPS_E_CLOSED);
        assert_result(shmps_subscriber_wait_publishers(sub, 1, timeout_ns), SHMPS_E_CLOSED);
        assert_result(shmps_publisher_event(pub, &event, timeout_ns), SHMPS_E_CLOSED);
        assert_result(shmps_subscriber_event(sub, &event, timeout_ns), SHMPS_E_CLOSED);
        shmps_close(bus);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_a_subscriber_learns_of_publishers),
        WITH_DAEMON(test_a_publisher_learns_of_subscribers),
        WITH_DAEMON(test_waiting_for_counts),
        WITH_DAEMON(test_who_is_seen_receives),
        WITH_DAEMON(test_waiting_on_a_bus_that_was_made_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
