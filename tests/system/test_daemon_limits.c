/* tests/system/test_daemon_limits.c - a real pubsubd that has too little of something: it
 * refuses, with a reason, and everybody else goes on. */
#include "control.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* ---- memory and records */

static void a_full_dev_shm_is_a_refusal(void **state) {
    const struct daemon *d = *state;
    int fd = control_session(d, 1);
    struct wire_open_publisher m;
    struct wire_reply reply;
    uint64_t free_before, free_after, total;
    assert_int_equal(segment_space(&free_before, &total), 0);
    publisher_init(&m, "video/large");
    m.message_bytes = UINT64_C(1) << 34;
    m.depth = 64;
    assert_int_equal(control_publisher(fd, &m, &reply), SHMPS_E_NO_SPACE);
    assert_non_null(strstr(reply.detail, "video/large"));
    assert_non_null(strstr(reply.detail, "free"));
    assert_int_equal(segments_left(d), 2);
    assert_int_equal(segment_space(&free_after, &total), 0);
    open_publisher(fd, "small");
    close(fd);
}

static void too_many_subscribers_of_a_topic(void **state) {
    const struct daemon *d = *state;
    int fd = control_session(d, 1);
    struct wire_reply reply;
    const int most = TOPIC_PAGES_MAX * READERS_ENTRIES;
    open_publisher(fd, "t");
    for (int i = 0; i < most; i++)
        open_subscriber(fd, "t", POLICY_LOSSY);
    assert_int_equal(control_subscriber(fd, "t", POLICY_LOSSY, 0, &reply), SHMPS_E_LIMIT);
    open_subscriber(fd, "u", POLICY_LOSSY);
    assert_int_equal(segments_left(d), 2 + 1 + TOPIC_PAGES_MAX);
    close(fd);
}

static void too_many_rings(void **state) {
    const struct daemon *d = *state;
    int fd = control_session(d, 1);
    struct wire_open_publisher m;
    struct wire_reply reply;
    struct look look;
    look_open(&look, d);
    publisher_init(&m, "t");
    m.depth = 2;
    for (uint32_t i = 0; i < look.d.geometry.rings; i++)
        assert_int_equal(control_publisher(fd, &m, &reply), 0);
    assert_int_equal(control_publisher(fd, &m, &reply), SHMPS_E_LIMIT);
    assert_int_equal(control_close(fd, reply.u.publisher.serial), SHMPS_E_INVALID);
    assert_int_equal(control_ping(fd), 0);
    look_close(&look);
    close(fd);
}

static void a_large_ring_holds_up_nobody_else(void **state) {
    const struct daemon *d = *state;
    uint64_t free_bytes, total;
    int slow = control_session(d, 1), quick = control_session(d, 2), ring = -1;
    struct wire_open_publisher m;
    struct wire_reply reply;
    assert_int_equal(segment_space(&free_bytes, &total), 0);
    publisher_init(&m, "large");
    m.depth = 2;
    m.pins = 1;
    m.message_bytes = min_u64(UINT64_C(1) << 28, free_bytes / 8); /* 4 blocks */
    control_send(slow, &m, sizeof(m));
    int pings = 0;
    struct pollfd p = { .fd = slow, .events = POLLIN };
    do {
        assert_int_equal(control_ping(quick), 0);
        pings++;
    } while (poll(&p, 1, 0) == 0);
    assert_true(pings >= (int)(4 * m.message_bytes / SEGMENT_CHUNK_BYTES) / 2);
    assert_int_equal(control_reply(slow, &reply, &ring), 0);
    close(ring);
    control_send(slow, &m, sizeof(m)); /* and gives up on the next one */
    close(slow);
    struct look look;
    look_open(&look, d);
    while (segments_left(d) > 2)
        assert_int_equal(control_ping(quick), 0);
    look_close(&look);
    close(quick);
}

/* ---- descriptors */

static unsigned lowest_free_descriptor(const struct daemon *d) {
    char path[64], target[8];
    unsigned i = 0;
    do {
        snprintf(path, sizeof(path), "/proc/%d/fd/%u", (int)d->pid, i++);
    } while (readlink(path, target, sizeof(target)) > 0);
    return i - 1;
}

static void few_descriptors_turn_clients_away_with_a_reason(void **state) {
    struct daemon *d = *state;
    int fds[64], n = 0;
    struct wire_hello m;
    struct wire_reply reply;
    assert_int_equal(daemon_end(d, SIGTERM), 0);
    d->max_descriptors = 40;
    daemon_start(d, NULL, NULL);
    hello_init(&m);
    for (;; n++) {
        int directory = -1;
        assert_true(n < 64);
        fds[n] = control_connect(d);
        int r = control_request(fds[n], &m, &reply, &directory);
        scope_close(&directory);
        if (r != 0) {
            assert_int_equal(r, SHMPS_E_NO_DESCRIPTORS);
            break;
        }
    }
    assert_true(n >= 5);
    assert_true(control_is_closed(fds[n]));
    open_publisher(fds[0], "t");
    for (int i = 0; i <= n; i++)
        close(fds[i]);
    int fd = -1;
    for (int tries = 0; fd < 0 && tries < 1000; tries++) { /* until it has noticed */
        int directory = -1;
        fd = control_connect(d);
        if (control_request(fd, &m, &reply, &directory) != 0)
            fd = (close(fd), -1);
        scope_close(&directory);
    }
    assert_true(fd >= 0);
    close(fd);
}

static void no_descriptor_at_all_hangs_up_and_goes_on(void **state) {
    struct daemon *d = *state;
    int witness = control_session(d, 1), directory = -1;
    struct rlimit none_free = { lowest_free_descriptor(d), 4096 }, none = { 1, 4096 };
    struct rlimit many = { 1024, 4096 };
    struct wire_hello m;
    struct wire_reply reply;
    assert_int_equal(prlimit(d->pid, RLIMIT_NOFILE, &none_free, NULL), 0);
    for (int i = 0; i < 20; i++) { /* its spare one lets it hang up */
        int fd = control_connect(d);
        assert_true(control_is_closed(fd));
        close(fd);
    }
    assert_int_equal(prlimit(d->pid, RLIMIT_NOFILE, &none, NULL), 0);
    int waiting = control_connect(d); /* not even that: it has to wait */
    hello_init(&m);
    control_send(waiting, &m, sizeof(m));
    for (int i = 0; i < 100; i++)
        assert_int_equal(control_ping(witness), 0);
    assert_int_equal(prlimit(d->pid, RLIMIT_NOFILE, &many, NULL), 0);
    assert_int_equal(control_reply(waiting, &reply, &directory), 0);
    close(directory);
    close(waiting);
    close(witness);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, daemon_setup, daemon_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_full_dev_shm_is_a_refusal),
        TEST(too_many_subscribers_of_a_topic),
        TEST(too_many_rings),
        TEST(a_large_ring_holds_up_nobody_else),
        TEST(few_descriptors_turn_clients_away_with_a_reason),
        TEST(no_descriptor_at_all_hangs_up_and_goes_on),
    };
    return cmocka_run_group_tests_name("daemon_limits", tests, NULL, NULL);
}
