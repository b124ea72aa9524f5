/* tests/system/test_daemon.c - the control plane of a real pubsubd: what it answers, and what
 * it does not let itself be drawn into. */
#include "control.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* ---- hello */

static void hello_is_answered_with_the_directory(void **state) {
    const struct daemon *d = *state;
    struct wire_hello m;
    struct wire_reply reply;
    int fd = control_connect(d), directory = -1;
    hello_init(&m);
    snprintf(m.instance, sizeof(m.instance), "%s", d->instance);
    assert_int_equal(control_request(fd, &m, &reply, &directory), 0);
    assert_int_equal(reply.u.hello.epoch, 1);
    assert_int_equal(reply.u.hello.uid, geteuid());
    assert_int_equal(reply.u.hello.version, WIRE_VERSION);
    assert_string_equal(reply.u.hello.instance, d->instance);
    struct segment_map map;
    struct directory view;
    assert_int_equal(segment_map(directory, SEGMENT_READ, 4096, &map), 0);
    assert_int_equal(directory_attach(&view, map.base, map.bytes), 0);
    assert_int_equal(view.header->identity.serial, reply.u.hello.directory);
    assert_ptr_equal(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, directory, 0), MAP_FAILED);
    segment_unmap(&map);
    close(directory);
    assert_int_equal(control_ping(fd), 0);
    close(fd);
}

/* What a hello with these properties is answered with; the session ends with it. */
static void expect_refusal(const struct daemon *d, const struct wire_hello *m, int status,
                           const char *detail) {
    struct wire_reply reply;
    int fd = control_connect(d);
    assert_int_equal(control_request(fd, m, &reply, NULL), status);
    if (strstr(reply.detail, detail) == NULL)
        fail_msg("\"%s\" is not in: %s", detail, reply.detail);
    assert_true(control_is_closed(fd));
    close(fd);
}

static void other_versions_are_told_so_in_both_directions(void **state) {
    const struct daemon *d = *state;
    struct wire_hello m;
    hello_init(&m);
    m.version_min = m.version_max = m.header.version = WIRE_VERSION + 1;
    expect_refusal(d, &m, SHMPS_E_VERSION, "versions 2 to 2");
    hello_init(&m);
    m.version_min = m.version_max = m.header.version = WIRE_VERSION_MIN - 1;
    expect_refusal(d, &m, SHMPS_E_VERSION, "versions 0 to 0");
    hello_init(&m);
    m.fingerprint ^= 1;
    char ours[32];
    snprintf(ours, sizeof(ours), "as %016llx", (unsigned long long)layout_fingerprint());
    expect_refusal(d, &m, SHMPS_E_VERSION, ours);
    hello_init(&m);
    snprintf(m.instance, sizeof(m.instance), "another");
    expect_refusal(d, &m, SHMPS_E_INVALID, "another");
}

/* Whoever only pings and stops may be of another layout; he gets nothing else. */
static void an_admin_may_be_of_another_layout(void **state) {
    struct daemon *d = *state;
    struct wire_hello m;
    struct wire_open_publisher open;
    struct wire_reply reply;
    for (int round = 0; round < 2; round++) {
        int fd = control_connect(d);
        hello_init(&m);
        m.flags = WIRE_HELLO_ADMIN;
        m.fingerprint ^= (uint64_t)round;
        assert_int_equal(control_request(fd, &m, &reply, NULL), 0); /* no descriptor */
        assert_string_equal(reply.u.hello.instance, d->instance);
        assert_int_equal(control_ping(fd), 0);
        publisher_init(&open, "t");
        assert_int_equal(control_request(fd, &open, &reply, NULL), SHMPS_E_PROTOCOL);
        assert_true(control_is_closed(fd));
        close(fd);
        fd = control_connect(d);
        hello_init(&m);
        m.flags = WIRE_HELLO_ADMIN;
        assert_int_equal(control_request(fd, &m, &reply, NULL), 0);
        struct wire_drained drained; /* has no answer */
        wire_init(&drained, WIRE_DRAINED, 9);
        control_send(fd, &drained, sizeof(drained));
        assert_true(control_is_closed(fd));
        close(fd);
    }
    assert_int_equal(segments_left(d), 2);
}

static void a_later_version_may_say_a_longer_hello(void **state) {
    const struct daemon *d = *state;
    struct { struct wire_hello m; uint64_t more[4]; } longer = { .more = { 1, 2, 3, 4 } };
    struct wire_reply reply;
    int fd = control_connect(d), directory = -1;
    hello_init(&longer.m);
    longer.m.header.version = WIRE_VERSION + 1;
    longer.m.header.bytes = sizeof(longer);
    longer.m.version_max = WIRE_VERSION + 1;
    assert_int_equal(control_request(fd, &longer, &reply, &directory), 0);
    assert_int_equal(reply.u.hello.version, WIRE_VERSION);
    close(directory);
    close(fd);
}

/* ---- malformed messages */

static void expect_end(const struct daemon *d, bool greeted, const void *message, size_t bytes) {
    int fd = greeted ? control_session(d, 5) : control_connect(d);
    control_send(fd, message, bytes);
    assert_true(control_is_closed(fd));
    close(fd);
}

static void malformed_messages_end_their_session_only(void **state) {
    const struct daemon *d = *state;
    int witness = control_session(d, 1);
    char junk[2000];
    struct wire_plain ping, m;
    struct wire_open_publisher p;
    memset(junk, 0x5a, sizeof(junk));
    wire_init(&ping, WIRE_PING, 1);
    expect_end(d, false, &ping, sizeof(ping)); /* before hello */
    for (size_t bytes = 1; bytes < sizeof(ping); bytes += 3)
        expect_end(d, true, &ping, bytes); /* truncated */
    expect_end(d, true, junk, sizeof(junk)); /* longer than any message */
    expect_end(d, true, junk, sizeof(ping));
    m = ping;
    m.header.magic ^= 1;
    expect_end(d, true, &m, sizeof(m));
    m = ping;
    m.header.bytes++;
    expect_end(d, true, &m, sizeof(m));
    m = ping;
    m.header.type = 99;
    expect_end(d, true, &m, sizeof(m));
    m = ping;
    m.header.version = WIRE_VERSION + 1;
    expect_end(d, true, &m, sizeof(m));
    m = ping;
    m.reserved[1] = 1;
    expect_end(d, true, &m, sizeof(m));
    publisher_init(&p, "a");
    memset(p.topic, 'a', sizeof(p.topic)); /* without an end */
    expect_end(d, true, &p, sizeof(p));
    struct wire_reply reply;
    wire_init(&reply, (enum wire_type)(WIRE_REPLY | WIRE_PING), 1);
    expect_end(d, true, &reply, sizeof(reply));
    assert_int_equal(control_ping(witness), 0);
    close(witness);
}

static void random_messages_end_their_session_only(void **state) {
    const struct daemon *d = *state;
    int witness = control_session(d, 1);
    unsigned seed = (unsigned)getpid();
    print_message("# seed %u\n", seed);
    for (int i = 0; i < 300; i++) {
        union wire_message m;
        int fd = i % 2 == 0 ? control_session(d, 2) : control_connect(d);
        wire_init(&m, (enum wire_type)(1 + rand_r(&seed) % 7), 1);
        size_t bytes = m.header.bytes;
        for (int k = rand_r(&seed) % 8; k >= 0; k--)
            m.bytes[(size_t)rand_r(&seed) % bytes] = (char)rand_r(&seed);
        if (m.header.type != WIRE_STOP)
            control_send(fd, &m, bytes);
        close(fd);
    }
    assert_int_equal(control_ping(witness), 0);
    close(witness);
}

static unsigned count_descriptors(const struct daemon *d) {
    char path[64];
    unsigned n = 0;
    for (int i = 0; i < 256; i++) {
        char target[8];
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)d->pid, i);
        n += readlink(path, target, sizeof(target)) > 0;
    }
    return n;
}

static void descriptors_sent_unasked_are_not_kept(void **state) {
    const struct daemon *d = *state;
    int witness = control_session(d, 1);
    unsigned before = count_descriptors(d);
    struct wire_plain ping;
    wire_init(&ping, WIRE_PING, 1);
    for (int i = 0; i < 20; i++) {
        int fd = control_session(d, 2);
        assert_int_equal(wire_send(fd, &ping, STDERR_FILENO), 0);
        assert_true(control_is_closed(fd));
        close(fd);
    }
    assert_int_equal(control_ping(witness), 0);
    assert_int_equal(count_descriptors(d), before);
    close(witness);
}

static void who_does_not_read_his_replies_is_hung_up_on(void **state) {
    const struct daemon *d = *state;
    int fd = control_session(d, 1), witness = control_session(d, 2);
    struct wire_plain ping;
    wire_init(&ping, WIRE_PING, 1);
    ssize_t n;
    do {
        n = send(fd, &ping, sizeof(ping), MSG_NOSIGNAL);
    } while (n == sizeof(ping)); /* blocks while the daemon has to catch up */
    assert_true(errno == EPIPE || errno == ECONNRESET);
    assert_int_equal(control_ping(witness), 0);
    close(fd);
    close(witness);
}

/* ---- publishers and subscribers */

static void a_publisher_gets_a_formatted_ring(void **state) {
    const struct daemon *d = *state;
    int fd = control_session(d, 1), ring_fd = -1;
    struct wire_open_publisher m;
    struct wire_reply reply;
    struct look look;
    publisher_init(&m, "robot/arm");
    m.message_bytes = 10000;
    m.depth = 5;
    m.flags |= RING_TIMESTAMPS;
    assert_int_equal(control_request(fd, &m, &reply, &ring_fd), 0);
    struct segment_map map;
    struct ring_geometry g;
    assert_int_equal(segment_map(ring_fd, SEGMENT_WRITE, 4096, &map), 0);
    assert_int_equal(ring_attach_check(map.base, map.bytes, &g), 0);
    assert_int_equal(ring_check(map.base, map.bytes), 0);
    assert_int_equal(g.depth, 8);
    assert_int_equal(g.message_bytes, 10000);
    assert_int_equal(g.mode, RING_FENCE); /* hello did not say that it may be bare */
    assert_int_equal(g.record, reply.u.publisher.record);
    assert_int_equal(g.publisher, reply.u.publisher.serial);
    assert_int_equal(g.flags, RING_TIMESTAMPS | RING_EXPLICIT_SIZE);
    segment_unmap(&map);
    close(ring_fd);
    look_open(&look, d);
    struct ring_info info;
    struct topic_info topic;
    assert_true(look_ring(&look.d, reply.u.publisher.serial, &info));
    assert_int_equal(info.state, RING_LIVE);
    assert_int_equal(info.owner.pid, getpid());
    assert_int_equal(info.pins, 64);
    assert_true(look_topic(&look.d, "robot/arm", &topic));
    assert_int_equal(topic.publishers, 1);
    assert_int_equal(control_close(fd, reply.u.publisher.serial), 0);
    assert_false(ring_exists(d, reply.u.publisher.serial)); /* empty, and nobody reads it */
    assert_false(look_topic(&look.d, "robot/arm", &topic));
    look_close(&look);
    close(fd);
}

static void bad_requests_are_refused_with_a_reason(void **state) {
    const struct daemon *d = *state;
    static const struct {
        const char *topic;
        uint64_t depth, message_bytes, pins;
        uint32_t flags, history;
        int status;
    } bad[] = {
        { "", 8, 32, 0, 0, 0, SHMPS_E_TOPIC },
        { "a/+/b", 8, 32, 0, 0, 0, SHMPS_E_TOPIC },
        { "a//b", 8, 32, 0, 0, 0, SHMPS_E_TOPIC },
        { "\xff", 8, 32, 0, 0, 0, SHMPS_E_TOPIC },
        { "a", 1, 32, 0, 0, 0, SHMPS_E_INVALID },
        { "a", (1u << 20) + 1, 32, 0, 0, 0, SHMPS_E_INVALID },
        { "a", UINT64_MAX, 32, 0, 0, 0, SHMPS_E_INVALID },
        { "a", 8, UINT64_MAX, 0, 0, 0, SHMPS_E_SIZE },
        { "a", 8, (UINT64_C(1) << 34) + 1, 0, RING_EXPLICIT_SIZE, 0, SHMPS_E_SIZE },
        { "a", 1 << 20, UINT64_C(1) << 34, 0, 0, 0, SHMPS_E_INVALID },
        { "a", 8, 4096, UINT64_MAX, 0, 0, SHMPS_E_INVALID },
        { "a", 8, 4096, 65537, 0, 0, SHMPS_E_INVALID },
        { "a", 8, 32, 0, 4, 0, SHMPS_E_INVALID },
        { "a", 8, 0, 0, RING_EXPLICIT_SIZE, 0, SHMPS_E_INVALID },
        { "a", 8, 32, 0, 0, (1u << 20) + 1, SHMPS_E_INVALID },
        { "a", 8, 32, 0, 0, UINT32_MAX, SHMPS_E_INVALID },
        { "a", 8, 32, 0, 0, 1u << 20, SHMPS_E_LIMIT },
    };
    int fd = control_session(d, 1);
    struct wire_reply reply;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct wire_open_publisher m;
        publisher_init(&m, bad[i].topic);
        m.depth = bad[i].depth;
        m.message_bytes = bad[i].message_bytes;
        m.pins = bad[i].pins;
        m.flags = bad[i].flags;
        m.history = bad[i].history;
        int r = control_publisher(fd, &m, &reply);
        if (r != bad[i].status)
            fail_msg("case %zu: %d, %s", i, r, reply.detail);
    }
    assert_int_equal(control_subscriber(fd, "a/#/b", POLICY_LOSSY, 4, &reply), SHMPS_E_TOPIC);
    assert_int_equal(control_subscriber(fd, "a", POLICY_NONE, 4, &reply), SHMPS_E_INVALID);
    assert_int_equal(control_subscriber(fd, "a", (enum policy)4, 4, &reply), SHMPS_E_INVALID);
    assert_int_equal(control_subscriber(fd, "a", POLICY_LOSSY, 64, &reply), SHMPS_E_INVALID);
    assert_int_equal(control_close(fd, 12345), SHMPS_E_INVALID);
    assert_int_equal(segments_left(d), 2); /* directory and lock */
    close(fd);
}

static void a_subscriber_has_its_seat_in_rings_before_and_after(void **state) {
    const struct daemon *d = *state;
    int fd = control_session(d, 1);
    struct look look;
    struct segment_map map;
    uint32_t page, cell;
    uint64_t value;
    look_open(&look, d);
    uint64_t before = open_publisher(fd, "a/b");
    struct ring_header *ring = map_ring(d, before, &map);
    atomic_store_release(&ring->head, 3); /* SYNC ring.head: as a publisher does */
    segment_unmap(&map);
    uint64_t exact = open_subscriber(fd, "a/b", POLICY_RELIABLE);
    uint64_t filter = open_subscriber(fd, "+/#", POLICY_LOSSY);
    uint64_t after = open_publisher(fd, "a/b");
    assert_true(look_seat(&look.d, "a/b", exact, &page, &cell, &value));
    assert_int_equal(cell_policy(value), POLICY_RELIABLE);
    struct readers_segment *readers = map_readers(d, before, page, &map);
    assert_int_equal(readers->entries[cell].need, 3); /* what comes from now on */
    segment_unmap(&map);
    readers = map_readers(d, after, page, &map);
    assert_int_equal(readers->entries[cell].need, 0); /* born after: everything */
    segment_unmap(&map);
    assert_true(look_seat(&look.d, "a/b", filter, &page, &cell, &value));
    open_publisher(fd, "c"); /* a topic that the filter has waited for */
    assert_true(look_seat(&look.d, "c", filter, &page, &cell, &value));
    assert_int_equal(control_close(fd, filter), 0);
    assert_false(look_seat(&look.d, "a/b", filter, &page, &cell, &value));
    look_close(&look);
    close(fd);
}

static void pins_are_granted_from_what_every_ring_has(void **state) {
    const struct daemon *d = *state;
    int fd = control_session(d, 1);
    struct wire_open_publisher m;
    struct wire_reply reply;
    struct look look;
    struct ring_info info;
    uint32_t page, cell;
    uint64_t value, subscriptions[3];
    static const uint32_t wanted[3] = { 20, 20, 20 }, granted[3] = { 20, 10, 0 };
    look_open(&look, d);
    publisher_init(&m, "frames");
    m.message_bytes = 4096;
    m.pins = 30;
    assert_int_equal(control_publisher(fd, &m, &reply), 0);
    uint64_t ring = reply.u.publisher.serial;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(control_subscriber(fd, "frames", POLICY_LOSSY, wanted[i], &reply), 0);
        subscriptions[i] = reply.u.subscriber.serial;
        assert_true(look_seat(&look.d, "frames", subscriptions[i], &page, &cell, &value));
        assert_int_equal(cell_pins(value), granted[i]);
    }
    assert_true(look_ring(&look.d, ring, &info));
    assert_int_equal(info.pins_granted, 30);
    m.pins = 1; /* fewer than are granted already: not possible */
    assert_int_equal(control_publisher(fd, &m, &reply), 0);
    assert_true(look_ring(&look.d, reply.u.publisher.serial, &info));
    assert_int_equal(info.pins, 30);
    assert_int_equal(control_close(fd, subscriptions[0]), 0); /* with its span of 3 entries */
    assert_int_equal(control_subscriber(fd, "frames", POLICY_LOSSY, 20, &reply), 0);
    assert_true(look_seat(&look.d, "frames", reply.u.subscriber.serial, &page, &cell, &value));
    assert_int_equal(cell_pins(value), 20);
    assert_int_equal(cell, 0);
    look_close(&look);
    close(fd);
}

static void a_publisher_that_grows_goes_on_where_it_was(void **state) {
    const struct daemon *d = *state;
    int fd = control_session(d, 1);
    struct wire_open_publisher m;
    struct wire_reply reply;
    struct look look;
    struct segment_map map;
    struct ring_info info;
    struct topic_info topic;
    look_open(&look, d);
    open_subscriber(fd, "t", POLICY_RELIABLE);
    uint64_t old = open_publisher(fd, "t");
    struct ring_header *ring = map_ring(d, old, &map);
    atomic_store_release(&ring->head, 5); /* SYNC ring.head: as a publisher does */
    segment_unmap(&map);
    publisher_init(&m, "t");
    m.message_bytes = 100000;
    m.flags = 0;
    m.predecessor = old;
    assert_int_equal(control_publisher(fd, &m, &reply), 0);
    assert_true(look_ring(&look.d, old, &info));
    assert_int_equal(info.state, RING_LIVE); /* its publisher ends it, when he has the new one */
    assert_true(look_topic(&look.d, "t", &topic));
    assert_int_equal(topic.publishers, 1);
    assert_int_equal(control_close(fd, old), 0);
    assert_true(look_ring(&look.d, old, &info));
    assert_int_equal(info.state, RING_RETIRED); /* its reader has not drained it */
    assert_int_equal(info.final_head, 5);
    assert_true(look_ring(&look.d, reply.u.publisher.serial, &info));
    assert_int_equal(info.state, RING_LIVE);
    assert_int_equal(info.start, 5);
    assert_int_equal(info.publisher, old);
    assert_int_equal(info.predecessor, old);
    assert_true(info.message_bytes >= 100000);
    assert_int_equal(control_publisher(fd, &m, &reply), SHMPS_E_PERMISSION); /* not again */
    look_close(&look);
    close(fd);
}

/* ---- ownership */

static void nobody_touches_what_belongs_to_another_session(void **state) {
    const struct daemon *d = *state;
    int mine = control_session(d, 1), other = control_session(d, 2);
    struct wire_open_publisher m;
    struct wire_reply reply;
    uint64_t ring = open_publisher(mine, "t");
    uint64_t subscription = open_subscriber(mine, "t", POLICY_LOSSY);
    assert_int_equal(control_close(other, ring), SHMPS_E_INVALID);
    assert_int_equal(control_close(other, subscription), SHMPS_E_INVALID);
    publisher_init(&m, "t");
    m.predecessor = ring;
    assert_int_equal(control_publisher(other, &m, &reply), SHMPS_E_PERMISSION);
    assert_int_equal(claim_publisher(other, ring), SHMPS_E_PERMISSION);
    assert_int_equal(claim_subscriber(other, subscription), SHMPS_E_PERMISSION);
    publisher_init(&m, "another");
    m.predecessor = ring;
    assert_int_equal(control_publisher(mine, &m, &reply), SHMPS_E_INVALID);
    assert_int_equal(claim_publisher(mine, 999), SHMPS_E_NO_TOPIC);
    assert_int_equal(claim_publisher(mine, ring), 0);
    assert_int_equal(control_close(mine, ring), 0);
    close(mine);
    close(other);
}

/* ---- the end */

static void stop_is_answered_then_nothing_is_left(void **state) {
    struct daemon *d = *state;
    int fd = control_session(d, 1);
    struct wire_plain m;
    struct wire_reply reply;
    struct look look;
    look_open(&look, d);
    uint64_t ring = open_publisher(fd, "t");
    struct segment_map map;
    struct ring_header *header = map_ring(d, ring, &map);
    /* SYNC directory.generation: pairs with the daemon's release. */
    uint32_t generation = atomic_load_acquire(directory_generation(&look.d));
    wire_init(&m, WIRE_STOP, 1);
    assert_int_equal(control_request(fd, &m, &reply, NULL), 0);
    assert_true(control_is_closed(fd));
    assert_int_equal(segments_left(d), 0);
    assert_int_equal(access(d->socket, F_OK), -1);
    assert_int_equal(look.d.header->daemon_state, DAEMON_ENDED);
    assert_true(*directory_generation(&look.d) != generation);
    assert_int_equal(header->identity.magic, MAGIC_RING); /* who has it mapped goes on */
    int status;
    assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
    assert_int_equal(status, 0);
    d->pid = 0;
    segment_unmap(&map);
    look_close(&look);
    close(fd);
}

static void errors_are_kept_in_the_directory(void **state) {
    const struct daemon *d = *state;
    int fd = control_session(d, 1);
    struct wire_reply reply;
    struct look look;
    struct error_info info;
    char text[TOPIC_NAME_BYTES];
    look_open(&look, d);
    for (int i = 0; i < 3; i++)
        assert_int_equal(control_subscriber(fd, "a#", POLICY_LOSSY, 0, &reply), SHMPS_E_TOPIC);
    bool found = false;
    for (uint32_t i = 0; i < look.d.geometry.errors; i++)
        if (directory_error(&look.d, i, &info, text) && info.count == 3)
            found = info.code == SHMPS_E_TOPIC && strstr(text, "test_daemon") != NULL;
    assert_true(found);
    look_close(&look);
    close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, daemon_setup, daemon_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(hello_is_answered_with_the_directory),
        TEST(other_versions_are_told_so_in_both_directions),
        TEST(an_admin_may_be_of_another_layout),
        TEST(a_later_version_may_say_a_longer_hello),
        TEST(malformed_messages_end_their_session_only),
        TEST(random_messages_end_their_session_only),
        TEST(descriptors_sent_unasked_are_not_kept),
        TEST(who_does_not_read_his_replies_is_hung_up_on),
        TEST(a_publisher_gets_a_formatted_ring),
        TEST(bad_requests_are_refused_with_a_reason),
        TEST(a_subscriber_has_its_seat_in_rings_before_and_after),
        TEST(pins_are_granted_from_what_every_ring_has),
        TEST(a_publisher_that_grows_goes_on_where_it_was),
        TEST(nobody_touches_what_belongs_to_another_session),
        TEST(stop_is_answered_then_nothing_is_left),
        TEST(errors_are_kept_in_the_directory),
    };
    return cmocka_run_group_tests_name("daemon", tests, NULL, NULL);
}
