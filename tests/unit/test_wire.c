/* tests/unit/test_wire.c - wire/wire.h: what is accepted, and what comes with a message. */
#include "support.h"

#include "base/scope.h"
#include "wire/wire.h"

#include <shmps/error.h>

#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define MS INT64_C(1000000)

static const struct {
    unsigned type;
    uint32_t bytes;
} types[] = {
    { WIRE_HELLO, sizeof(struct wire_hello) },
    { WIRE_OPEN_PUBLISHER, sizeof(struct wire_open_publisher) },
    { WIRE_OPEN_SUBSCRIBER, sizeof(struct wire_open_subscriber) },
    { WIRE_CLOSE, sizeof(struct wire_close) },
    { WIRE_DRAINED, sizeof(struct wire_drained) },
    { WIRE_STOP, sizeof(struct wire_plain) },
    { WIRE_PING, sizeof(struct wire_plain) },
    { WIRE_REPLY | WIRE_HELLO, sizeof(struct wire_reply) },
    { WIRE_REPLY | WIRE_OPEN_PUBLISHER, sizeof(struct wire_reply) },
    { WIRE_REPLY | WIRE_OPEN_SUBSCRIBER, sizeof(struct wire_reply) },
    { WIRE_REPLY | WIRE_CLOSE, sizeof(struct wire_reply) },
    { WIRE_REPLY | WIRE_STOP, sizeof(struct wire_reply) },
    { WIRE_REPLY | WIRE_PING, sizeof(struct wire_reply) },
};

static uint32_t init(union wire_message *m, unsigned type) {
    memset(m, 0x5a, sizeof(*m)); /* what a message before it left */
    return wire_init(m, (enum wire_type)type, 77);
}

static int is_reply(unsigned type) {
    return (type & WIRE_REPLY) != 0;
}

#define assert_malformed(m, bytes, reply)                                        \
    do {                                                                         \
        assert_int_equal(wire_check((m), (bytes), (reply)), SHMPS_E_PROTOCOL);   \
        assert_non_null(strstr(shmps_error_detail(), "malformed"));              \
    } while (0)

/* ---- wire_check() -------------------------------------------------------------------- */

static void every_type_passes_as_it_was_made(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(types); i++) {
        union wire_message m;
        assert_int_equal(init(&m, types[i].type), types[i].bytes);
        assert_int_equal(m.header.magic, WIRE_MAGIC);
        assert_int_equal(m.header.version, WIRE_VERSION);
        assert_int_equal(m.header.type, types[i].type);
        assert_int_equal(m.header.bytes, types[i].bytes);
        assert_int_equal(m.header.sequence, 77);
        for (uint32_t b = sizeof(m.header); b < types[i].bytes; b++)
            assert_int_equal(m.bytes[b], 0);
        assert_int_equal(m.bytes[types[i].bytes], 0x5a); /* no more than promised */
        int reply = is_reply(types[i].type);
        assert_int_equal(wire_check(&m, types[i].bytes, reply), 0);
        assert_malformed(&m, types[i].bytes, !reply);
    }
}

static void no_type_has_another_length(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(types); i++) {
        union wire_message other;
        init(&other, types[i].type);
        other.header.bytes++;
        assert_malformed(&other, types[i].bytes, is_reply(types[i].type));
        for (uint32_t bytes = 0; bytes <= WIRE_MESSAGE_BYTES_MAX + 8; bytes++) {
            union wire_message m;
            init(&m, types[i].type);
            if (bytes == types[i].bytes)
                continue;
            assert_malformed(&m, bytes, is_reply(types[i].type)); /* it says another length */
            m.header.bytes = bytes;
            assert_malformed(&m, bytes, is_reply(types[i].type)); /* it admits it */
        }
    }
}

static void no_other_type_exists(void **state) {
    (void)state;
    for (unsigned type = 0; type <= UINT16_MAX; type++) {
        bool known = false;
        for (size_t i = 0; i < ARRAY_LENGTH(types); i++)
            known = known || types[i].type == type;
        if (known)
            continue;
        for (size_t i = 0; i < ARRAY_LENGTH(types); i++) {
            union wire_message m;
            uint32_t bytes = init(&m, types[i].type);
            m.header.type = (uint16_t)type;
            assert_int_equal(wire_check(&m, bytes, is_reply(type)), SHMPS_E_PROTOCOL);
        }
    }
    union wire_message m;
    memset(&m, 0x5a, sizeof(m));
    assert_int_equal(wire_init(&m, (enum wire_type)99, 1), 0);
    assert_int_equal(m.bytes[0], 0x5a);
}

static void the_header_is_checked(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(types); i++) {
        unsigned type = types[i].type;
        bool hello = (type & ~(unsigned)WIRE_REPLY) == WIRE_HELLO;
        const uint16_t versions[] = { 0, WIRE_VERSION + 1, UINT16_MAX };
        union wire_message m;
        uint32_t bytes = init(&m, type);
        m.header.magic ^= 1;
        assert_malformed(&m, bytes, is_reply(type));
        for (size_t v = 0; v < ARRAY_LENGTH(versions); v++) {
            init(&m, type);
            m.header.version = versions[v];
            int r = wire_check(&m, bytes, is_reply(type));
            assert_int_equal(r, hello ? 0 : SHMPS_E_PROTOCOL); /* hellos settle the version */
        }
    }
}

static void hellos_of_later_versions_may_be_longer(void **state) {
    (void)state;
    const unsigned hellos[] = { WIRE_HELLO, WIRE_REPLY | WIRE_HELLO };
    for (int i = 0; i < 2; i++) {
        union wire_message m;
        uint32_t bytes = init(&m, hellos[i]);
        m.header.version = WIRE_VERSION + 1;
        m.header.bytes = bytes + 64;
        assert_int_equal(wire_check(&m, bytes + 64, i), 0);
        m.header.bytes = bytes - 8;
        assert_malformed(&m, bytes - 8, i); /* the fixed part is not whole */
        m.header.version = 0;
        m.header.bytes = bytes + 64;
        assert_malformed(&m, bytes + 64, i); /* no earlier one was */
    }
    union wire_message m;
    uint32_t bytes = init(&m, WIRE_HELLO);
    m.hello.reserved[3] = 1;
    m.header.version = WIRE_VERSION + 1;
    assert_int_equal(wire_check(&m, bytes, 0), 0);
    m.hello.version_min = 2;
    m.hello.version_max = 1;
    assert_malformed(&m, bytes, 0);
    m.hello.version_max = 9;
    assert_int_equal(wire_check(&m, bytes, 0), 0);
}

/* A field of a message, set to what it must not hold. */
static void spoil_zero(unsigned type, size_t offset, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        union wire_message m;
        uint32_t length = init(&m, type);
        m.bytes[offset + i] = (char)0x80;
        assert_malformed(&m, length, 0);
    }
}
#define RESERVED(type, structure, field)   \
    spoil_zero(type, offsetof(struct structure, field), \
               sizeof(((struct structure *)0)->field))

static void reserved_fields_are_zero(void **state) {
    (void)state;
    RESERVED(WIRE_HELLO, wire_hello, reserved);
    RESERVED(WIRE_OPEN_PUBLISHER, wire_open_publisher, reserved);
    RESERVED(WIRE_OPEN_SUBSCRIBER, wire_open_subscriber, reserved);
    RESERVED(WIRE_OPEN_SUBSCRIBER, wire_open_subscriber, reserved0);
    RESERVED(WIRE_CLOSE, wire_close, reserved);
    RESERVED(WIRE_DRAINED, wire_drained, reserved);
    RESERVED(WIRE_STOP, wire_plain, reserved);
    RESERVED(WIRE_PING, wire_plain, reserved);
}

static void spoil_string(unsigned type, size_t offset, size_t bytes) {
    union wire_message m;
    uint32_t length = init(&m, type);
    memset(m.bytes + offset, 'a', bytes);
    assert_malformed(&m, length, is_reply(type));
    m.bytes[offset + bytes - 1] = '\0'; /* the longest there can be */
    assert_int_equal(wire_check(&m, length, is_reply(type)), 0);
}
#define STRING(type, structure, field)     \
    spoil_string(type, offsetof(struct structure, field), \
                 sizeof(((struct structure *)0)->field))

static void strings_end_within_their_field(void **state) {
    (void)state;
    STRING(WIRE_HELLO, wire_hello, instance);
    STRING(WIRE_OPEN_PUBLISHER, wire_open_publisher, topic);
    STRING(WIRE_OPEN_SUBSCRIBER, wire_open_subscriber, filter);
    STRING(WIRE_REPLY | WIRE_HELLO, wire_reply, u.hello.instance);
    for (size_t i = 0; i < ARRAY_LENGTH(types); i++) {
        if (is_reply(types[i].type))
            STRING(types[i].type, wire_reply, detail);
    }
}

static void a_reply_has_a_status_and_at_most_one_descriptor(void **state) {
    (void)state;
    union wire_message m;
    uint32_t bytes = init(&m, WIRE_REPLY | WIRE_PING);
    m.reply.status = SHMPS_E_LIMIT;
    m.reply.descriptors = 1;
    assert_int_equal(wire_check(&m, bytes, 1), 0);
    m.reply.status = 1;
    assert_malformed(&m, bytes, 1);
    m.reply.status = 0;
    m.reply.descriptors = 2;
    assert_malformed(&m, bytes, 1);
}

/* ---- over a socket ------------------------------------------------------------------- */

struct pair {
    int ours, theirs;
};

static struct pair pair_new(int flags) {
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0, ends), 0);
    return (struct pair){ ends[0], ends[1] };
}

static void pair_free(struct pair p) {
    close(p.ours);
    close(p.theirs);
}

/* Send any bytes with any number of descriptors (all the same file), as a hostile peer would. */
static void send_raw(int socket, const void *bytes, size_t length, int fd, size_t descriptors) {
    static char control[CMSG_SPACE(253 * sizeof(int))];
    struct iovec part = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
    struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1 };
    if (descriptors > 0) {
        m.msg_control = control;
        m.msg_controllen = CMSG_SPACE(descriptors * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(descriptors * sizeof(int));
        for (size_t i = 0; i < descriptors; i++)
            memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(int));
    }
    assert_int_equal(sendmsg(socket, &m, MSG_NOSIGNAL), length);
}

static void a_message_arrives_with_its_descriptor(void **state) {
    (void)state;
    struct pair p = pair_new(0);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; i < ARRAY_LENGTH(types); i++) {
        bool with = i % 2 == 0;
        union wire_message sent, received;
        uint32_t bytes = init(&sent, types[i].type);
        sent.bytes[bytes - 1] = 'x';
        assert_int_equal(wire_send(p.theirs, &sent, with ? null : -1), 0);
        size_t length = 0;
        int fd = 12345;
        assert_int_equal(wire_receive(p.ours, &received, &length, &fd, -1), 0);
        assert_int_equal(length, bytes);
        assert_memory_equal(&sent, &received, bytes);
        assert_int_equal(fd >= 0, with);
        if (with) {
            struct stat here, there;
            assert_true(fstat(fd, &here) == 0 && fstat(null, &there) == 0);
            assert_int_equal(here.st_rdev, there.st_rdev);
            assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
            close(fd);
        } else {
            assert_int_equal(fd, -1);
        }
    }
    close(null);
    pair_free(p);
}

static void surplus_descriptors_are_closed(void **state) {
    (void)state;
    const size_t counts[] = { 1, 2, 3, 100, 253 };
    for (size_t i = 0; i < ARRAY_LENGTH(counts); i++) {
        for (int wanted = 0; wanted < 2; wanted++) {
            struct pair p = pair_new(0);
            int before = open_descriptors();
            union wire_message m, received;
            uint32_t bytes = init(&m, WIRE_PING);
            send_raw(p.theirs, &m, bytes, p.theirs, counts[i]);
            size_t length = 0;
            int fd = -1;
            int r = wire_receive(p.ours, &received, &length, wanted ? &fd : NULL, -1);
            bool fine = wanted && counts[i] == 1;
            assert_int_equal(r, fine ? 0 : SHMPS_E_PROTOCOL);
            assert_int_equal(open_descriptors(), before + fine);
            assert_int_equal(fd >= 0, fine);
            if (fine)
                close(fd);
            pair_free(p);
        }
    }
}

static void an_empty_datagram_is_the_end_and_keeps_nothing(void **state) {
    (void)state;
    for (size_t descriptors = 0; descriptors < 4; descriptors++) {
        struct pair p = pair_new(0);
        int before = open_descriptors();
        send_raw(p.theirs, "", 0, p.theirs, descriptors);
        union wire_message m;
        size_t length = 99;
        int fd = 99;
        assert_int_equal(wire_receive(p.ours, &m, &length, &fd, -1), 0);
        assert_int_equal(length, 0);
        assert_int_equal(fd, -1);
        assert_int_equal(open_descriptors(), before);
        pair_free(p);
    }
}

static void no_message_is_longer_than_any(void **state) {
    (void)state;
    struct pair p = pair_new(0);
    int before = open_descriptors();
    static const char huge[5000];
    const size_t lengths[] = { WIRE_MESSAGE_BYTES_MAX, WIRE_MESSAGE_BYTES_MAX + 1, sizeof(huge) };
    for (size_t i = 0; i < ARRAY_LENGTH(lengths); i++) {
        send_raw(p.theirs, huge, lengths[i], p.theirs, 1);
        union wire_message m;
        size_t length = 0;
        int fd = -1;
        int r = wire_receive(p.ours, &m, &length, &fd, -1);
        assert_int_equal(r, i == 0 ? 0 : SHMPS_E_PROTOCOL);
        assert_int_equal(length, i == 0 ? lengths[0] : 0);
        assert_int_equal(fd >= 0, i == 0);
        if (fd >= 0)
            close(fd);
        assert_int_equal(open_descriptors(), before);
    }
    pair_free(p);
}

static void receive_at_the_limit(void *argument, struct report *report) {
    int socket = *(int *)argument;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(null); /* the lowest free one: from there on nothing is allowed */
    struct rlimit none = { (rlim_t)null, (rlim_t)null };
    union wire_message m;
    size_t length = 0;
    int fd = -1;
    report->values[0] = setrlimit(RLIMIT_NOFILE, &none) == 0;
    report->values[1] = wire_receive(socket, &m, &length, &fd, -1);
    report->values[2] = (int64_t)length;
    report->values[3] = wire_check(&m, length, 1);
    report->values[4] = fd;
    report->values[5] = wire_receive(socket, &m, &length, NULL, -1); /* a surplus all the same */
}

static void without_descriptors_the_message_is_still_delivered(void **state) {
    (void)state;
    struct pair p = pair_new(0);
    union wire_message m;
    uint32_t bytes = init(&m, WIRE_REPLY | WIRE_HELLO);
    for (int i = 0; i < 2; i++)
        assert_int_equal(wire_send(p.theirs, &m, p.theirs), 0);
    struct report report = child_end(child_start(receive_at_the_limit, &p.ours));
    assert_true(report.values[0]);
    assert_int_equal(report.values[1], SHMPS_E_NO_DESCRIPTORS);
    assert_int_equal(report.values[2], bytes);
    assert_int_equal(report.values[3], 0);
    assert_int_equal(report.values[4], -1);
    assert_int_equal(report.values[5], SHMPS_E_PROTOCOL);
    pair_free(p);
}

static void receiving_waits_as_long_as_told(void **state) {
    (void)state;
    const int flags[] = { 0, SOCK_NONBLOCK };
    for (int i = 0; i < 2; i++) {
        struct pair p = pair_new(flags[i]);
        union wire_message m;
        size_t length = 0;
        assert_int_equal(wire_receive(p.ours, &m, &length, NULL, 0), SHMPS_EMPTY);
        assert_int_equal(wire_receive(p.ours, &m, &length, NULL, 2 * MS), SHMPS_TIMEOUT);
        uint32_t bytes = init(&m, WIRE_PING);
        for (int n = 0; n < 3; n++)
            assert_int_equal(wire_send(p.theirs, &m, -1), 0);
        const int64_t timeouts[] = { 0, 20000 * MS, -1 };
        for (size_t t = 0; t < ARRAY_LENGTH(timeouts); t++) {
            length = 0;
            assert_int_equal(wire_receive(p.ours, &m, &length, NULL, timeouts[t]), 0);
            assert_int_equal(length, bytes);
        }
        close(p.theirs);
        for (size_t t = 0; t < ARRAY_LENGTH(timeouts); t++) {
            length = 99;
            assert_int_equal(wire_receive(p.ours, &m, &length, NULL, timeouts[t]), 0);
            assert_int_equal(length, 0);
        }
        close(p.ours);
    }
}

static volatile sig_atomic_t signals;
static void on_signal(int number) {
    (void)number;
    signals = signals + 1;
}

static void send_late(void *argument, struct report *report) {
    int socket = *(int *)argument;
    union wire_message m;
    for (int i = 0; i < 100; i++) /* most of them while the parent waits */
        kill(getppid(), SIGUSR1);
    init(&m, WIRE_PING);
    report->values[0] = wire_send(socket, &m, -1);
}

static void a_signal_does_not_end_the_wait(void **state) {
    (void)state;
    struct sigaction action = { .sa_handler = on_signal }, before;
    sigaction(SIGUSR1, &action, &before); /* no SA_RESTART */
    const int64_t timeouts[] = { 20000 * MS, -1 };
    for (size_t t = 0; t < ARRAY_LENGTH(timeouts); t++) {
        struct pair p = pair_new(0);
        signals = 0;
        struct child child = child_start(send_late, &p.theirs);
        union wire_message m;
        size_t length = 0;
        assert_int_equal(wire_receive(p.ours, &m, &length, NULL, timeouts[t]), 0);
        assert_int_equal(length, sizeof(struct wire_plain));
        assert_int_equal(child_end(child).values[0], 0);
        assert_true(signals > 0);
        pair_free(p);
    }
    sigaction(SIGUSR1, &before, NULL);
}

static void what_a_peer_said_before_it_left_is_heard(void **state) {
    (void)state;
    struct pair p = pair_new(0);
    union wire_message m;
    uint32_t bytes = init(&m, WIRE_DRAINED);
    assert_int_equal(wire_send(p.ours, &m, -1), 0); /* never read: the kernel reports a reset */
    init(&m, WIRE_REPLY | WIRE_PING);
    assert_int_equal(wire_send(p.theirs, &m, -1), 0);
    close(p.theirs);
    size_t length = 0;
    assert_int_equal(wire_receive(p.ours, &m, &length, NULL, -1), 0);
    assert_int_equal(length, sizeof(struct wire_reply));
    assert_int_not_equal(length, bytes);
    assert_int_equal(wire_receive(p.ours, &m, &length, NULL, -1), 0);
    assert_int_equal(length, 0);
    close(p.ours);
}

static void sending_to_nobody_is_no_signal(void **state) {
    (void)state;
    struct sigaction before;
    sigaction(SIGPIPE, &(struct sigaction){ .sa_handler = on_signal }, &before);
    signals = 0;
    struct pair p = pair_new(0);
    close(p.theirs);
    union wire_message m;
    init(&m, WIRE_PING);
    assert_int_equal(wire_send(p.ours, &m, -1), SHMPS_E_NO_DAEMON);
    assert_int_equal(signals, 0);
    assert_int_equal(wire_send(p.theirs, &m, -1), SHMPS_E_SYSTEM); /* closed */
    size_t length = 0;
    assert_int_equal(wire_receive(p.theirs, &m, &length, NULL, -1), SHMPS_E_SYSTEM);
    close(p.ours);
    sigaction(SIGPIPE, &before, NULL);
}

static void a_full_socket_is_a_limit(void **state) {
    (void)state;
    struct pair p = pair_new(SOCK_NONBLOCK);
    union wire_message m;
    init(&m, WIRE_REPLY | WIRE_HELLO);
    int sent = 0, r;
    while ((r = wire_send(p.ours, &m, p.ours)) == 0 && sent < 100000)
        sent++;
    assert_int_equal(r, SHMPS_E_LIMIT);
    assert_true(sent > 0);
    pair_free(p);
}

int main(void) {
    alarm(50);
#define CASE(function) cmocka_unit_test_setup_teardown(function, leak_setup, leak_teardown)
    const struct CMUnitTest tests[] = {
        CASE(every_type_passes_as_it_was_made),
        CASE(no_type_has_another_length),
        CASE(no_other_type_exists),
        CASE(the_header_is_checked),
        CASE(hellos_of_later_versions_may_be_longer),
        CASE(reserved_fields_are_zero),
        CASE(strings_end_within_their_field),
        CASE(a_reply_has_a_status_and_at_most_one_descriptor),
        CASE(a_message_arrives_with_its_descriptor),
        CASE(surplus_descriptors_are_closed),
        CASE(an_empty_datagram_is_the_end_and_keeps_nothing),
        CASE(no_message_is_longer_than_any),
        CASE(without_descriptors_the_message_is_still_delivered),
        CASE(receiving_waits_as_long_as_told),
        CASE(a_signal_does_not_end_the_wait),
        CASE(what_a_peer_said_before_it_left_is_heard),
        CASE(sending_to_nobody_is_no_signal),
        CASE(a_full_socket_is_a_limit),
    };
    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
