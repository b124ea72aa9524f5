/* What is refused, with which error, and that nobody else notices: names, options, handles after
 * fork, no descriptors left; and several threads on one connection. */
#include "../harness.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static void assert_told(void) {
    const char *detail = shmps_error_detail();
    if (strlen(detail) < 20)
        fail_msg("this does not tell the story: \"%s\"", detail);
}

/* ---- names */

static void test_bad_names(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = NULL;
    struct shmps_subscriber *sub = NULL;
    char longest[257], levels[80];
    memset(longest, 'x', 256);
    longest[256] = '\0';
    memset(levels, 0, sizeof(levels));
    for (int i = 0; i < 33; i++)
        memcpy(levels + 2 * i, i < 32 ? "a/" : "a", i < 32 ? 2 : 1);
    const char *const neither[] = { "", "/", "a//b", "/a", "a/", "a\nb", "a\x7f", "\xff",
                                    "a/\xc0\xaf", "\xed\xa0\x80", longest, levels };
    const char *const filters[] = { "+", "#", "a/+", "a/#", "+/a/#" };
    const char *const bad_filters[] = { "a+", "a/#/b", "#a", "a/+b", "++" };
    for (size_t i = 0; i < sizeof(neither) / sizeof(neither[0]); i++) {
        assert_result(shmps_publisher_open(bus, neither[i], NULL, &pub), SHMPS_E_TOPIC);
        assert_told();
        assert_result(shmps_subscriber_open(bus, neither[i], NULL, &sub), SHMPS_E_TOPIC);
        assert_told();
        assert_result(shmps_topic_check(neither[i]), SHMPS_E_TOPIC);
        assert_result(shmps_filter_check(neither[i]), SHMPS_E_TOPIC);
    }
    for (size_t i = 0; i < 5; i++) {
        assert_result(shmps_publisher_open(bus, filters[i], NULL, &pub), SHMPS_E_TOPIC);
        assert_result(shmps_publisher_open(bus, bad_filters[i], NULL, &pub), SHMPS_E_TOPIC);
        assert_result(shmps_subscriber_open(bus, bad_filters[i], NULL, &sub), SHMPS_E_TOPIC);
        assert_ok(shmps_subscriber_open(bus, filters[i], NULL, &sub));
        shmps_subscriber_close(sub);
    }
    longest[255] = '\0'; /* as long as it may be */
    assert_ok(shmps_publisher_open(bus, longest, NULL, &pub));
    assert_ok(shmps_subscriber_open(bus, longest, NULL, &sub));
    levels[63] = '\0'; /* 32 levels */
    assert_ok(shmps_publisher_open(bus, levels, NULL, &pub));
    assert_ok(shmps_publisher_open(bus, "Gr\xc3\xb6\xc3\x9f" "e/\xf0\x9f\x8c\xa1 x", NULL, &pub));
    assert_int_equal(count_segments("r"), 3);
    shmps_close(bus);
}

/* '$' topics are hidden from wildcards on the first level. */
static void test_filters_and_dollar_topics(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "$sys/x", 0, 0);
    struct shmps_subscriber *all = subscriber_on(bus, "#", SHMPS_LOSSY);
    struct shmps_subscriber *sys = subscriber_on(bus, "$sys/#", SHMPS_LOSSY);
    struct shmps_sample s;
    assert_ok(message_publish(pub, 1, 0, 50, 0));
    assert_ok(shmps_take(sys, &s, 0));
    assert_ok(shmps_release(sys, &s));
    assert_result(shmps_take(all, &s, 0), SHMPS_EMPTY);
    shmps_close(bus);
}

/* ---- options */

static void refuse_bad_publishers(struct shmps *bus) {
    struct shmps_publisher *pub = NULL;
    for (int i = 0; i < 10; i++) {
        struct shmps_publisher_options o = SHMPS_PUBLISHER_OPTIONS_INIT;
        int expected = SHMPS_E_INVALID;
        switch (i) {
        case 0: o.size = 0; break;
        case 1: o.size = sizeof(o) + 8; break;
        case 2: o.depth = 1; break;
        case 3: o.depth = (1 << 20) + 1; break;
        case 4: o.pins = UINT32_MAX; break;
        case 5: o.message_bytes = UINT64_MAX; expected = SHMPS_E_SIZE; break;
        case 6: o.wait = 3; break;
        case 7: o.history = (1 << 20) + 1; break;
        case 8: o.reserved0 = 1; break;
        default: o.reserved[2] = 1; break;
        }
        assert_result(shmps_publisher_open(bus, "t", &o, &pub), expected);
        assert_told();
    }
    struct shmps_publisher_options huge = SHMPS_PUBLISHER_OPTIONS_INIT;
    huge.depth = 1 << 20; /* in range each, not together */
    huge.message_bytes = SHMPS_MESSAGE_BYTES_MAX;
    int r = shmps_publisher_open(bus, "t", &huge, &pub);
    assert_true(r == SHMPS_E_INVALID || r == SHMPS_E_NO_SPACE || r == SHMPS_E_LIMIT);
    assert_told();
}

static void test_bad_options(void **state) {
    (void)state;
    struct shmps *bus = connected(), *none = NULL;
    struct shmps_publisher *pub = NULL;
    struct shmps_subscriber *sub = NULL;
    refuse_bad_publishers(bus);
    for (int i = 0; i < 7; i++) {
        struct shmps_subscriber_options o = SHMPS_SUBSCRIBER_OPTIONS_INIT;
        switch (i) {
        case 0: o.size = 4; break;
        case 1: o.size = 4096; break;
        case 2: o.delivery = 4; break;
        case 3: o.wait = -1; break;
        case 4: o.pins = 64; break;
        case 5: o.history = UINT32_MAX - 1; break;
        default: o.reserved[0] = 1; break;
        }
        assert_result(shmps_subscriber_open(bus, "t", &o, &sub), SHMPS_E_INVALID);
        assert_told();
    }
    const char *const instances[] = { "", "a b", "x.y", "0123456789012345678901234567890123",
                                      "\xc3\xa4" };
    for (int i = 1; i < 5; i++) {
        struct shmps_connect_options o = SHMPS_CONNECT_OPTIONS_INIT;
        o.instance = instances[i];
        assert_result(shmps_connect(&none, &o), SHMPS_E_INVALID);
        assert_told();
    }
    struct shmps_connect_options o = SHMPS_CONNECT_OPTIONS_INIT;
    o.instance = "/nonexistent/socket";
    assert_result(shmps_connect(&none, &o), SHMPS_E_NO_DAEMON);
    assert_told();
    assert_result(shmps_connect(NULL, NULL), SHMPS_E_INVALID);
    assert_result(shmps_publisher_open(bus, "t", NULL, NULL), SHMPS_E_INVALID);
    assert_result(shmps_subscriber_open(bus, "t", NULL, NULL), SHMPS_E_INVALID);
    struct shmps_publisher_stats stats = { .size = 1 };
    struct shmps_subscriber_stats counts = { .size = sizeof(counts) + 8 };
    pub = publisher_on(bus, "t", 0, 0);
    sub = subscriber_on(bus, "t", SHMPS_LOSSY);
    assert_result(shmps_publisher_stats(pub, &stats), SHMPS_E_INVALID);
    assert_result(shmps_subscriber_stats(sub, &counts), SHMPS_E_INVALID);
    assert_int_equal(count_segments("r"), 1); /* of all that was refused nothing is left */
    shmps_publisher_close(NULL);
    shmps_subscriber_close(NULL);
    shmps_close(NULL);
    shmps_close(bus);
}

/* It is for asking and ending only. */
static void test_an_admin_opens_nothing(void **state) {
    (void)state;
    struct shmps_connect_options o = SHMPS_CONNECT_OPTIONS_INIT;
    struct shmps *bus = NULL;
    struct shmps_publisher *pub = NULL;
    struct shmps_subscriber *sub = NULL;
    for (int i = 0; i < 4; i++) {
        o.admin = i == 0 ? 2 : i == 1 ? -1 : 1;
        o.observe = i == 2;
        o.reserved0 = i == 3;
        assert_result(shmps_connect(&bus, &o), SHMPS_E_INVALID);
        assert_told();
    }
    o.reserved0 = 0;
    assert_ok(shmps_connect(&bus, &o));
    assert_string_equal(shmps_instance(bus), test_instance());
    assert_result(shmps_publisher_open(bus, "t", NULL, &pub), SHMPS_E_STATE);
    assert_told();
    for (int delivery = SHMPS_LOSSY; delivery <= SHMPS_OBSERVE; delivery++) {
        struct shmps_subscriber_options s = SHMPS_SUBSCRIBER_OPTIONS_INIT;
        s.delivery = delivery;
        assert_result(shmps_subscriber_open(bus, "t", &s, &sub), SHMPS_E_STATE);
        assert_told();
    }
    assert_result(shmps_dispatch(bus, 0), SHMPS_EMPTY);
    assert_int_equal(shmps_daemon_alive(bus), 1);
    daemon_kill();
    assert_int_equal(shmps_daemon_alive(bus), 0);
    daemon_start();
    assert_int_equal(shmps_daemon_alive(bus), 1);
    shmps_close(bus);
    setenv("SHMPS_AUTOSTART", "1", 1);
    daemon_stop();
    assert_result(shmps_connect(&bus, &o), SHMPS_E_NO_DAEMON); /* it starts none */
}

/* An older program's options are shorter: what it does not know has its default. So are its
 * statistics. */
static void test_shorter_options(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher_options o = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps_publisher_stats stats = { .size = sizeof(stats) };
    struct shmps_publisher *pub;
    o.size = offsetof(struct shmps_publisher_options, message_bytes);
    o.depth = 16;
    o.message_bytes = UINT64_MAX; /* not looked at */
    assert_ok(shmps_publisher_open(bus, "t", &o, &pub));
    assert_ok(shmps_publisher_stats(pub, &stats));
    assert_int_equal(stats.depth, 16);
    assert_int_equal(stats.message_bytes, 4096);
    assert_ok(shmps_publish(pub, "x", 1, 0, 0));
    stats = (struct shmps_publisher_stats){
        .size = offsetof(struct shmps_publisher_stats, bytes), .bytes = 77
    };
    assert_ok(shmps_publisher_stats(pub, &stats));
    assert_int_equal(stats.messages, 1);
    assert_int_equal(stats.bytes, 77); /* there is no such field */
    shmps_close(bus);
}

/* ---- a ring that is broken */

/* Overwrite the magic of a publisher's ring, as a process gone wild might. */
static void break_ring_of(struct shmps_publisher *pub) {
    struct shmps_publisher_stats stats = SHMPS_PUBLISHER_STATS_INIT;
    char path[128];
    assert_ok(shmps_publisher_stats(pub, &stats));
    snprintf(path, sizeof(path), "/dev/shm/shmps.%u.%s.r%llu", (unsigned)getuid(),
             test_instance(), (unsigned long long)stats.id);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "nonsense", 8, 0), 8);
    close(fd);
}

static void test_a_broken_ring_keeps_nobody_out(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *broken = publisher_on(bus, "t", 4, 100);
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 100);
    struct shmps_sample s;
    break_ring_of(broken);
    const int deliveries[] = { SHMPS_OBSERVE, SHMPS_LOSSY, SHMPS_RELIABLE };
    for (uint64_t i = 0; i < 6; i++) {
        struct shmps_subscriber *sub = subscriber_on(bus, i % 2 ? "t" : "#", deliveries[i / 2]);
        assert_result(shmps_take(sub, &s, SHMPS_FOREVER), SHMPS_E_CORRUPT);
        assert_told();
        assert_ok(message_publish(pub, 1, i, 50, 0));
        assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
        assert_true(sample_is(&s, 1, i));
        shmps_subscriber_close(sub);
    }
    shmps_close(bus);
}

/* ---- after fork */

struct handles {
    struct shmps *bus;
    struct shmps_publisher *pub;
    struct shmps_subscriber *sub;
    struct shmps_sample sample;
};

static void ignore_sample(struct shmps_subscriber *sub, const struct shmps_sample *sample,
                          void *user) {
    (void)sub;
    (void)sample;
    (void)user;
}

#define FORKED(report, call) MUST(report, (call) == SHMPS_E_FORKED)
static void use_forked_handles(int socket, const void *argument, struct report *report) {
    struct handles h = *(const struct handles *)argument;
    struct shmps_publisher_stats ps = { .size = sizeof(ps) };
    struct shmps_subscriber_stats ss = { .size = sizeof(ss) };
    struct shmps_message message = { "x", 1, 0 };
    struct shmps_publisher *pub;
    struct shmps_subscriber *sub;
    struct shmps_sample s;
    struct shmps_event event;
    size_t done;
    void *loan;
    char buffer[8];
    (void)socket;
    FORKED(report, shmps_daemon_alive(h.bus));
    FORKED(report, shmps_stop_daemon(h.bus));
    FORKED(report, shmps_publisher_open(h.bus, "t", NULL, &pub));
    FORKED(report, shmps_subscriber_open(h.bus, "t", NULL, &sub));
    FORKED(report, shmps_fd(h.bus));
    FORKED(report, shmps_dispatch(h.bus, 0));
    FORKED(report, shmps_loop_start(h.bus));
    FORKED(report, shmps_loop_stop(h.bus));
    FORKED(report, shmps_publish(h.pub, "x", 1, 0, 0));
    FORKED(report, shmps_loan(h.pub, 1, 0, &loan));
    FORKED(report, shmps_publish_loan(h.pub, 1, 0));
    FORKED(report, shmps_discard(h.pub));
    FORKED(report, shmps_publish_batch(h.pub, &message, 1, SHMPS_UP_TO, 0, &done));
    FORKED(report, shmps_publisher_wait_subscribers(h.pub, 1, 0));
    FORKED(report, shmps_publisher_stats(h.pub, &ps));
    FORKED(report, shmps_publisher_event(h.pub, &event, 0));
    FORKED(report, shmps_take(h.sub, &s, 0));
    FORKED(report, shmps_take_batch(h.sub, &s, 1, SHMPS_UP_TO, 0, &done));
    FORKED(report, shmps_read(h.sub, buffer, sizeof(buffer), &s, 0));
    FORKED(report, shmps_release(h.sub, &h.sample));
    FORKED(report, shmps_release_batch(h.sub, &h.sample, 1));
    FORKED(report, shmps_subscriber_fd(h.sub));
    FORKED(report, shmps_subscriber_wait_publishers(h.sub, 1, 0));
    FORKED(report, shmps_subscriber_stats(h.sub, &ss));
    FORKED(report, shmps_subscriber_event(h.sub, &event, 0));
    FORKED(report, shmps_subscriber_on_sample(h.sub, ignore_sample, NULL));
    MUST(report, strstr(shmps_error_detail(), "fork") != NULL);
    MUST(report, shmps_instance(h.bus)[0] != '\0');
    struct shmps *own; /* the child's own, beside them */
    MUST_OK(report, shmps_connect(&own, NULL));
    MUST_OK(report, shmps_publisher_open(own, "t", NULL, &pub));
    MUST_OK(report, message_publish(pub, 2, 0, 50, 0));
    FORKED(report, shmps_take(h.sub, &s, 0));
    shmps_publisher_close(h.pub); /* frees the child's copies only */
    shmps_subscriber_close(h.sub);
    shmps_close(h.bus);
    MUST_OK(report, message_publish(pub, 2, 1, 50, 0));
    shmps_close(own);
}

static void test_handles_after_fork(void **state) {
    (void)state;
    struct handles h = { .bus = connected() };
    h.pub = publisher_on(h.bus, "t", 0, 0);
    h.sub = subscriber_on(h.bus, "t", SHMPS_RELIABLE);
    assert_true(shmps_subscriber_fd(h.sub) >= 0);
    assert_ok(shmps_subscriber_on_sample(h.sub, ignore_sample, NULL));
    assert_ok(message_publish(h.pub, 1, 0, 3000, 0));
    assert_ok(shmps_take(h.sub, &h.sample, 0)); /* held over the fork */
    for (uint64_t round = 0; round < 3; round++) {
        struct child child;
        struct shmps_sample s;
        child_start(&child, use_forked_handles, &h);
        child_end(&child);
        for (uint64_t i = 0; i < 2; i++) {
            assert_ok(shmps_take(h.sub, &s, SHMPS_FOREVER));
            assert_true(sample_is(&s, 2, i));
            assert_ok(shmps_release(h.sub, &s));
        }
        assert_true(sample_is(&h.sample, 1, 0)); /* the parent's are as they were */
        assert_ok(message_publish(h.pub, 1, 1 + round, 40, 0));
        assert_ok(shmps_take(h.sub, &s, 0));
        assert_true(sample_is(&s, 1, 1 + round));
        assert_ok(shmps_release(h.sub, &s));
    }
    assert_ok(shmps_release(h.sub, &h.sample));
    shmps_close(h.bus);
}

/* ---- no descriptors left */

/* Take away all descriptors but n, run out of them, and report what was answered. */
static void run_out(int socket, const void *argument, struct report *report) {
    const uint32_t *left = argument;
    struct shmps *bus = NULL, *second = NULL;
    struct shmps_publisher *pub = NULL, *more = NULL;
    struct shmps_subscriber *sub = NULL;
    struct shmps_sample s;
    struct rlimit limit;
    (void)socket;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, "t", NULL, &pub));
    MUST_OK(report, shmps_subscriber_open(bus, "t", NULL, &sub));
    MUST_OK(report, message_publish(pub, 1, 0, 100, 0)); /* it has met its reader */
    MUST_OK(report, shmps_take(sub, &s, 0));
    MUST_OK(report, shmps_release(sub, &s));
    getrlimit(RLIMIT_NOFILE, &limit);
    int lowest = dup(0); /* the first that is free */
    close(lowest);
    limit.rlim_cur = (rlim_t)lowest + *left;
    setrlimit(RLIMIT_NOFILE, &limit);
    int r[4] = { shmps_connect(&second, NULL), shmps_publisher_open(bus, "u", NULL, &more),
                 0, shmps_subscriber_fd(sub) };
    struct shmps_subscriber *other = NULL;
    r[2] = shmps_subscriber_open(bus, "t", NULL, &other);
    for (int i = 0; i < 4; i++) {
        MUST(report, r[i] >= 0 || r[i] == SHMPS_E_NO_DESCRIPTORS);
        report->values[0] += r[i] < 0;
        report->values[1] += r[i] >= 0;
    }
    for (uint64_t i = 1; i < 100; i++) { /* what is open goes on */
        MUST_OK(report, message_publish(pub, 1, i, 100, 0));
        MUST_OK(report, shmps_take(sub, &s, 0));
        MUST(report, sample_is(&s, 1, i));
        MUST_OK(report, shmps_release(sub, &s));
    }
    MUST(report, shmps_daemon_alive(bus) == 1);
    limit.rlim_cur = 256;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (more == NULL) /* and again, once there are some */
        MUST_OK(report, shmps_publisher_open(bus, "u", NULL, &more));
    shmps_close(second);
    shmps_close(bus);
}

static void test_no_descriptors_left(void **state) {
    (void)state;
    int64_t refused = 0, done = 0;
    struct shmps *bus = connected();
    for (uint32_t left = 0; left < 12; left++) {
        struct child child;
        child_start(&child, run_out, &left);
        struct report r = child_end(&child);
        refused += r.values[0];
        done += r.values[1];
        assert_true(left > 0 || r.values[0] >= 3);
    }
    assert_true(refused > 0 && done > 0);
    assert_int_equal(shmps_daemon_alive(bus), 1);
    assert_int_equal(count_segments("r"), 0);
    shmps_close(bus);
}

/* ---- threads */

struct thread {
    pthread_t id;
    struct shmps *bus;
    uint32_t index;
    int wrong; /* line, 0: none */
};

#define EXPECT(t, condition)                              \
    do {                                                  \
        if (!(condition) && (t)->wrong == 0)              \
            (t)->wrong = __LINE__;                        \
    } while (0)

/* Opens, uses and closes handles on the connection that all share. */
static void *open_and_close(void *argument) {
    struct thread *t = argument;
    char topic[32];
    for (uint32_t round = 0; round < 60; round++) {
        struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
        struct shmps_publisher *pub = NULL;
        struct shmps_subscriber *sub = NULL;
        struct shmps_sample s;
        options.delivery = SHMPS_RELIABLE;
        snprintf(topic, sizeof(topic), "t/%u/%u", t->index, round % 3);
        EXPECT(t, shmps_subscriber_open(t->bus, topic, &options, &sub) == 0);
        EXPECT(t, shmps_publisher_open(t->bus, topic, NULL, &pub) == 0);
        if (sub == NULL || pub == NULL)
            return NULL;
        if (round % 4 == 0)
            EXPECT(t, shmps_subscriber_fd(sub) >= 0);
        for (uint64_t i = 0; i < 20; i++) {
            EXPECT(t, message_publish(pub, t->index, i, 200, 0) == 0);
            EXPECT(t, shmps_take(sub, &s, SHMPS_FOREVER) == 0 && sample_is(&s, t->index, i));
            EXPECT(t, shmps_release(sub, &s) == 0);
        }
        EXPECT(t, shmps_daemon_alive(t->bus) == 1);
        shmps_publisher_close(pub);
        shmps_subscriber_close(sub);
    }
    return NULL;
}

static void test_threads_on_one_connection(void **state) {
    (void)state;
    struct thread threads[4];
    struct shmps *bus = connected();
    for (uint32_t i = 0; i < 4; i++) {
        threads[i] = (struct thread){ .bus = bus, .index = i };
        assert_int_equal(pthread_create(&threads[i].id, NULL, open_and_close, &threads[i]), 0);
    }
    for (uint32_t i = 0; i < 4; i++)
        pthread_join(threads[i].id, NULL);
    for (uint32_t i = 0; i < 4; i++)
        if (threads[i].wrong != 0)
            fail_msg("thread %u: line %d", i, threads[i].wrong);
    assert_int_equal(count_segments("r"), 0);
    shmps_close(bus);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_bad_names),
        WITH_DAEMON(test_filters_and_dollar_topics),
        WITH_DAEMON(test_bad_options),
        WITH_DAEMON(test_an_admin_opens_nothing),
        WITH_DAEMON(test_shorter_options),
        WITH_DAEMON(test_a_broken_ring_keeps_nobody_out),
        WITH_DAEMON(test_handles_after_fork),
        WITH_DAEMON(test_no_descriptors_left),
        WITH_DAEMON(test_threads_on_one_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
