/* tests/system/test_daemon_config.c - a real pubsubd with a configuration: what it opens, what it
 * refuses and why, and what a SIGHUP changes. */
#include "control.h"

#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

/* ---- a daemon with a configuration */

static const char *config_path(const struct daemon *d) {
    static char path[96];
    snprintf(path, sizeof(path), "%s/conf", d->folder);
    return path;
}

static void write_config(const struct daemon *d, const char *text) {
    FILE *file = fopen(config_path(d), "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

/* The one that runs ends; another begins with this configuration. */
static void restart(struct daemon *d, const char *text) {
    if (d->pid != 0)
        assert_int_equal(daemon_end(d, SIGTERM), 0);
    write_config(d, text);
    daemon_start(d, "--config", config_path(d));
}

static int teardown(void **state) {
    const struct daemon *d = *state;
    unlink(config_path(d));
    return daemon_teardown(state);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, daemon_setup, teardown)

/* Until it has said this `n` times. `fd`: any session. */
static void await_log(const struct daemon *d, int fd, const char *text, int n) {
    uint64_t deadline = now_ns() + (uint64_t)DEADLINE_NS;
    for (int found = 0; found < n && now_ns() < deadline;) {
        assert_int_equal(control_ping(fd), 0);
        found = 0;
        for (const char *s = daemon_log(d); (s = strstr(s, text)) != NULL; s++)
            found++;
        if (found >= n)
            return;
    }
    print_error("it did not say \"%s\" but\n%s", text, daemon_log(d));
    fail();
}

static void reload(const struct daemon *d, int fd, const char *text, const char *answer) {
    write_config(d, text);
    int before = 0;
    for (const char *s = daemon_log(d); (s = strstr(s, answer)) != NULL; s++)
        before++;
    kill(d->pid, SIGHUP);
    await_log(d, fd, answer, before + 1);
}
#define READ_AGAIN "read again"

/* A publisher as the library opens it: what is 0 is left to the daemon. */
static int publisher(int fd, const char *topic, uint64_t depth, uint64_t message_bytes,
                     struct wire_reply *ret) {
    struct wire_open_publisher m;
    publisher_init(&m, topic);
    m.depth = depth;
    m.message_bytes = message_bytes;
    m.flags = message_bytes != 0 ? RING_EXPLICIT_SIZE : 0;
    return control_publisher(fd, &m, ret);
}

static struct ring_info ring_of(const struct daemon *d, int fd, const char *topic, uint64_t depth,
                                uint64_t message_bytes) {
    struct wire_reply reply;
    struct ring_info info;
    struct look look;
    int r = publisher(fd, topic, depth, message_bytes, &reply);
    if (r != 0)
        print_error("%s\n", reply.detail);
    assert_int_equal(r, 0);
    look_open(&look, d);
    assert_true(look_ring(&look.d, reply.u.publisher.serial, &info));
    look_close(&look);
    return info;
}

#define assert_tells(reply, text)                                  \
    do {                                                           \
        if (strstr((reply).detail, text) == NULL)                  \
            fail_msg("\"%s\" lacks \"%s\"", (reply).detail, text); \
    } while (0)

/* ---- what is opened */

static void a_topic_without_configuration(void **state) {
    const struct daemon *d = *state;
    int fd = control_session(d, 1);
    struct ring_info ring = ring_of(d, fd, "t", 0, 0);
    assert_int_equal(ring.depth, 64);
    assert_int_equal(ring.message_bytes, 4096);
    assert_int_equal(ring.pins, 64);
    assert_int_equal(ring.bytes, 2 * 4096 + (64 + 64 + 1) * 4096);
    assert_int_equal(ring_of(d, fd, "large", 0, 1 << 20).depth, 8);
    close(fd);
}

static void defaults_by_filter(void **state) {
    struct daemon *d = *state;
    restart(d, "topic \"#\" { depth = 16 }\n"
               "topic \"a/+\" { message_size = 100 pins = 5 }\n"
               "topic \"a/b\" { depth = 4 }\n"
               "topic \"c\" { max_depth = 8 max_message_size = 1KiB }\n");
    int fd = control_session(d, 1);
    struct ring_info ring = ring_of(d, fd, "a/b", 0, 0);
    assert_int_equal(ring.depth, 4);
    assert_int_equal(ring.message_bytes, 100);
    assert_int_equal(ring.pins, 5);
    ring = ring_of(d, fd, "a/x", 0, 0);
    assert_int_equal(ring.depth, 16);
    assert_int_equal(ring.message_bytes, 100);
    ring = ring_of(d, fd, "c", 0, 0);
    assert_int_equal(ring.depth, 8);
    assert_int_equal(ring.message_bytes, 1024);
    ring = ring_of(d, fd, "$x", 0, 0);
    assert_int_equal(ring.depth, 64);
    ring = ring_of(d, fd, "a/b", 32, 5000); /* whoever says what he wants gets it */
    assert_int_equal(ring.depth, 32);
    assert_int_equal(ring.message_bytes, 5000);
    close(fd);
}

static void an_auto_depth_obeys_its_limit(void **state) {
    struct daemon *d = *state;
    restart(d, "topic a { max_depth = 4 }\n");
    int fd = control_session(d, 1);
    assert_int_equal(ring_of(d, fd, "a", 0, 0).depth, 4);
    assert_int_equal(ring_of(d, fd, "a", 0, 1 << 20).depth, 4);
    close(fd);
}

/* ---- what a topic may have */

static void geometry_beyond_the_limits(void **state) {
    struct daemon *d = *state;
    restart(d, "topic \"a/#\" { max_depth = 32 max_message_size = 6000 }\n");
    int fd = control_session(d, 1);
    struct wire_reply reply;
    struct wire_open_publisher m;
    assert_int_equal(publisher(fd, "a", 33, 0, &reply), SHMPS_E_LIMIT);
    assert_tells(reply, "a ring of topic \"a\" may have 32 slots, not 33");
    assert_tells(reply, "max_depth");
    assert_int_equal(publisher(fd, "a/b", 8, 6001, &reply), SHMPS_E_SIZE);
    assert_tells(reply, "a message of topic \"a/b\" may have 6000 bytes, not 6001");
    assert_tells(reply, "max_message_size");
    assert_int_equal(publisher(fd, "b", 33, 6001, &reply), 0);
    struct ring_info ring = ring_of(d, fd, "a", 32, 0), grown;
    struct look look;
    publisher_init(&m, "a"); /* it grows: to whole pages, but not beyond the limit */
    m.flags = 0;
    m.predecessor = ring.serial;
    m.message_bytes = 6001;
    assert_int_equal(control_publisher(fd, &m, &reply), SHMPS_E_SIZE);
    m.message_bytes = 5000;
    assert_int_equal(control_publisher(fd, &m, &reply), 0);
    look_open(&look, d);
    assert_true(look_ring(&look.d, reply.u.publisher.serial, &grown));
    assert_int_equal(grown.message_bytes, 6000);
    look_close(&look);
    close(fd);
}

static void too_many_publishers(void **state) {
    struct daemon *d = *state;
    restart(d, "topic a { max_publishers = 2 }\ntopic none { max_publishers = 0 }\n");
    int fd = control_session(d, 1);
    struct wire_reply reply;
    struct wire_open_publisher m;
    open_publisher(fd, "a");
    uint64_t second = open_publisher(fd, "a");
    assert_int_equal(publisher(fd, "a", 8, 32, &reply), SHMPS_E_LIMIT);
    assert_tells(reply, "topic \"a\" has 2 publishers, and may have 2");
    assert_tells(reply, "max_publishers");
    publisher_init(&m, "a"); /* who grows is no third one */
    m.predecessor = second;
    m.message_bytes = 64;
    assert_int_equal(control_publisher(fd, &m, &reply), 0);
    assert_int_equal(control_close(fd, second), 0); /* as he does who goes on in the new one */
    assert_int_equal(control_close(fd, reply.u.publisher.serial), 0);
    open_publisher(fd, "a");
    assert_int_equal(publisher(fd, "none", 8, 32, &reply), SHMPS_E_LIMIT);
    open_publisher(fd, "b");
    reload(d, fd, "topic a { max_publishers = 0 }", READ_AGAIN);
    m.predecessor = open_publisher(fd, "b"); /* what is there stays, and may grow */
    snprintf(m.topic, sizeof(m.topic), "b");
    reload(d, fd, "topic b { max_publishers = 0 }", READ_AGAIN);
    assert_int_equal(control_publisher(fd, &m, &reply), 0);
    assert_int_equal(publisher(fd, "b", 8, 32, &reply), SHMPS_E_LIMIT);
    close(fd);
}

/* Rings in the making count as well: as publishers, unless they replace one. */
static void publishers_in_the_making(void **state) {
    struct daemon *d = *state;
    struct wire_open_publisher m;
    struct wire_reply reply;
    uint64_t free_bytes, total;
    int ring = -1;
    restart(d, "topic a { max_publishers = 2 }\n");
    int slow = control_session(d, 1), quick = control_session(d, 2);
    assert_int_equal(segment_space(&free_bytes, &total), 0);
    publisher_init(&m, "a");
    m.predecessor = open_publisher(slow, "a"); /* stays live until its publisher closes it */
    m.depth = 2;
    m.pins = 1;
    m.message_bytes = min_u64(UINT64_C(1) << 26, free_bytes / 8); /* many turns of the loop */
    control_send(slow, &m, sizeof(m));
    uint64_t second = open_publisher(quick, "a");
    assert_int_equal(control_reply(slow, &reply, &ring), 0);
    close(ring);
    assert_int_equal(control_close(slow, m.predecessor), 0);
    assert_int_equal(control_close(slow, reply.u.publisher.serial), 0);
    m.predecessor = 0;
    control_send(slow, &m, sizeof(m));
    assert_int_equal(control_ping(quick), 0);
    assert_int_equal(publisher(quick, "a", 2, 32, &reply), SHMPS_E_LIMIT);
    assert_int_equal(control_close(quick, second), 0);
    assert_int_equal(control_reply(slow, &reply, &ring), 0);
    close(ring);
    close(quick);
    close(slow);
}

static void too_many_subscribers(void **state) {
    struct daemon *d = *state;
    restart(d, "topic \"a/+\" { max_subscribers = 2 }\n");
    int fd = control_session(d, 1);
    struct wire_reply reply;
    uint64_t one = open_subscriber(fd, "a/b", POLICY_LOSSY);
    open_subscriber(fd, "a/#", POLICY_LOSSY);
    assert_int_equal(control_subscriber(fd, "a/b", POLICY_LOSSY, 0, &reply), SHMPS_E_LIMIT);
    assert_tells(reply, "topic \"a/b\" has 2 subscribers, and may have 2");
    assert_tells(reply, "max_subscribers");
    assert_int_equal(control_subscriber(fd, "#", POLICY_LOSSY, 0, &reply), SHMPS_E_LIMIT);
    assert_int_equal(control_close(fd, one), 0);
    open_subscriber(fd, "a", POLICY_LOSSY);
    for (int i = 0; i < 2; i++)
        open_subscriber(fd, "a/+", POLICY_LOSSY); /* with a/#, three */
    assert_int_equal(publisher(fd, "a/c", 8, 32, &reply), SHMPS_E_LIMIT);
    assert_tells(reply, "no seat for the subscriber of \"a/+\"");
    assert_int_equal(segments_left(d), 2);
    close(fd);
}

/* A ring of two slots and messages that fit into them has two pages, a page of readers one. */
#define SMALL (2 * 4096)

static void too_many_bytes_of_a_topic(void **state) {
    struct daemon *d = *state;
    restart(d, "topic a { max_bytes = 20KiB }\n"); /* five pages */
    int fd = control_session(d, 1);
    struct wire_reply reply;
    assert_int_equal(ring_of(d, fd, "a", 2, 32).bytes, SMALL);
    open_subscriber(fd, "a", POLICY_LOSSY);
    assert_int_equal(publisher(fd, "a", 2, 32, &reply), SHMPS_E_LIMIT);
    assert_tells(reply, "topic \"a\" has 12288 bytes and needs 12288 more, and may have 20480");
    assert_tells(reply, "max_bytes");
    close(fd);
    fd = control_session(d, 2);
    ring_of(d, fd, "a", 2, 32);
    ring_of(d, fd, "a", 2, 32); /* 16 KiB; a page for each is too much */
    assert_int_equal(control_subscriber(fd, "a", POLICY_LOSSY, 0, &reply), SHMPS_E_LIMIT);
    assert_tells(reply, "topic \"a\" has 16384 bytes and needs 8192 more, and may have 20480");
    open_publisher(fd, "b");
    close(fd);
}

/* ---- what the bus may have */

static void too_many_bytes_of_the_bus(void **state) {
    struct daemon *d = *state;
    struct look look;
    char text[200];
    static const char small[] = "max_topics = 8 max_rings = 8 max_subscriptions = 8\n";
    restart(d, small);
    look_open(&look, d);
    uint64_t directory = look.d.geometry.bytes;
    look_close(&look);
    snprintf(text, sizeof(text), "%smax_memory = %" PRIu64 "\n", small, directory + 4 * 4096);
    restart(d, text);
    int fd = control_session(d, 1);
    struct wire_reply reply;
    ring_of(d, fd, "a", 2, 32);
    assert_int_equal(publisher(fd, "b", 64, 4096, &reply), SHMPS_E_LIMIT);
    assert_tells(reply, "topic \"b\" needs 536576 bytes, but the bus has ");
    assert_tells(reply, "max_memory");
    ring_of(d, fd, "b", 2, 32);
    assert_int_equal(control_subscriber(fd, "a", POLICY_LOSSY, 0, &reply), SHMPS_E_LIMIT);
    assert_tells(reply, "topic \"a\" needs 4096 bytes");
    close(fd);
}

static void capacities(void **state) {
    struct daemon *d = *state;
    restart(d, "max_topics = 3 max_rings = 2 max_subscriptions = 1\n");
    int fd = control_session(d, 1);
    struct wire_reply reply;
    open_publisher(fd, "a");
    open_publisher(fd, "b");
    assert_int_equal(publisher(fd, "b", 8, 32, &reply), SHMPS_E_LIMIT);
    assert_tells(reply, "all 2 rings");
    open_subscriber(fd, "c", POLICY_LOSSY);
    assert_int_equal(control_subscriber(fd, "a", POLICY_LOSSY, 0, &reply), SHMPS_E_LIMIT);
    assert_tells(reply, "all 1 subscriptions");
    assert_int_equal(publisher(fd, "d", 8, 32, &reply), SHMPS_E_LIMIT);
    assert_tells(reply, "all 3 topics");
    close(fd);
}

static void too_many_connections(void **state) {
    struct daemon *d = *state;
    struct wire_hello m;
    struct wire_reply reply;
    restart(d, "max_connections = 2\n");
    int one = control_session(d, 1), two = control_session(d, 2), three = control_connect(d);
    hello_init(&m);
    assert_int_equal(control_request(three, &m, &reply, NULL), SHMPS_E_LIMIT);
    assert_tells(reply, "as many clients as it may have (2)");
    assert_tells(reply, "max_connections");
    assert_true(control_is_closed(three));
    close(three);
    reload(d, one, "max_connections = 3\n", READ_AGAIN);
    three = control_session(d, 3);
    close(three);
    close(two);
    close(one);
}

/* ---- a /dev/shm that is full */

static bool own_dev_shm(const char *size) {
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", "", MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("none", "/dev/shm", "tmpfs", 0, size) == 0;
}

/* The last of this program: its processes see that /dev/shm from now on. */
static void a_full_dev_shm_names_topic_need_and_free(void **state) {
    struct daemon *d = *state;
    struct wire_reply reply;
    struct segment_ref ref;
    uint64_t free_bytes, total;
    int filler;
    assert_int_equal(daemon_end(d, SIGTERM), 0);
    if (!own_dev_shm("size=256k"))
        skip();
    write_config(d, "max_topics = 8 max_rings = 8 max_subscriptions = 8\n");
    daemon_start(d, "--config", config_path(d));
    int fd = control_session(d, 1);
    ring_of(d, fd, "a/b", 2, 32);
    segment_ref_ring(&ref, geteuid(), "filler", 1);
    assert_int_equal(segment_space(&free_bytes, &total), 0);
    assert_int_equal(segment_create(&ref, free_bytes, &filler), 0);
    assert_int_equal(segment_allocate(filler, 0, free_bytes), 0);
    close(filler);
    assert_int_equal(publisher(fd, "c", 2, 32, &reply), SHMPS_E_NO_SPACE);
    assert_tells(reply, "topic \"c\", a ring of 8192 bytes: a segment still needs 8192 bytes, "
                        "but only 0 are free");
    static const char *const filters[] = { "a/b", "a/+" };
    for (int i = 0; i < 2; i++) {
        assert_int_equal(control_subscriber(fd, filters[i], POLICY_LOSSY, 0, &reply),
                         SHMPS_E_NO_SPACE);
        assert_tells(reply, "topic \"a/b\": a segment still needs 4096 bytes, but only 0");
    }
    segment_remove(&ref);
    open_subscriber(fd, "a/b", POLICY_LOSSY);
    close(fd);
}

/* ---- SIGHUP */

static void read_again_for_what_comes_then(void **state) {
    struct daemon *d = *state;
    restart(d, "topic a { depth = 4 }\n");
    int fd = control_session(d, 1);
    struct ring_info before = ring_of(d, fd, "a", 0, 0), now;
    struct wire_reply reply;
    struct look look;
    reload(d, fd, "topic a { depth = 8 max_publishers = 2 }\n", READ_AGAIN);
    assert_int_equal(before.depth, 4);
    look_open(&look, d);
    assert_true(look_ring(&look.d, before.serial, &now)); /* what is there stays */
    assert_memory_equal(&now, &before, sizeof(now));
    look_close(&look);
    assert_int_equal(ring_of(d, fd, "a", 0, 0).depth, 8);
    assert_int_equal(publisher(fd, "a", 0, 0, &reply), SHMPS_E_LIMIT);
    reload(d, fd, "", READ_AGAIN);
    assert_int_equal(ring_of(d, fd, "a", 0, 0).depth, 64);
    close(fd);
}

static void what_cannot_change_is_named(void **state) {
    struct daemon *d = *state;
    restart(d, "max_topics = 5\n");
    int fd = control_session(d, 1);
    assert_null(strstr(daemon_log(d), "takes effect"));
    reload(d, fd, "max_topics = 6\nmax_rings = 7\n", READ_AGAIN);
    assert_non_null(strstr(daemon_log(d), "max_topics = 6 takes effect at the next start"));
    assert_non_null(strstr(daemon_log(d), "max_rings = 7 takes effect at the next start"));
    assert_null(strstr(daemon_log(d), "max_subscriptions"));
    close(fd);
    assert_true(WIFSIGNALED(daemon_end(d, SIGKILL))); /* what is adopted has its capacities */
    daemon_start(d, "--config", config_path(d));
    assert_non_null(strstr(daemon_log(d), "max_topics = 6 takes effect"));
    restart(d, "max_topics = 6\n");
    assert_null(strstr(daemon_log(d), "takes effect"));
}

static void a_policy_holds_after_a_restart(void **state) {
    struct daemon *d = *state;
    restart(d, "topic a { max_subscribers = 2 }\n");
    struct wire_reply reply;
    int fd = control_session(d, 1);
    uint64_t serial = open_subscriber(fd, "a", POLICY_LOSSY);
    assert_true(WIFSIGNALED(daemon_end(d, SIGKILL)));
    close(fd);
    daemon_start(d, "--config", config_path(d));
    fd = control_session(d, 1);
    assert_int_equal(claim_subscriber(fd, serial), 0);
    open_subscriber(fd, "a", POLICY_LOSSY);
    assert_int_equal(control_subscriber(fd, "a", POLICY_LOSSY, 0, &reply), SHMPS_E_LIMIT);
    close(fd);
}

static void a_broken_one_changes_nothing(void **state) {
    struct daemon *d = *state;
    char line[200];
    restart(d, "topic a { depth = 4 }\n");
    int fd = control_session(d, 1);
    snprintf(line, sizeof(line), "%s:2: depth = 5: slots are a power of two; 4 or 8; the "
             "configuration stays as it was", config_path(d));
    reload(d, fd, "topic a {\ndepth = 5 }\n", line);
    assert_int_equal(ring_of(d, fd, "a", 0, 0).depth, 4);
    unlink(config_path(d));
    kill(d->pid, SIGHUP);
    await_log(d, fd, "No such file or directory; the configuration stays as it was", 1);
    assert_int_equal(ring_of(d, fd, "a", 0, 0).depth, 4);
    close(fd);
}

static void the_log(void **state) {
    struct daemon *d = *state;
    restart(d, "log = warning\n");
    int fd = control_session(d, 1);
    assert_string_equal(daemon_log(d), "");
    reload(d, fd, "log = debug\n", READ_AGAIN);
    open_publisher(fd, "t");
    assert_non_null(strstr(daemon_log(d), "debug: ring"));
    close(fd);
}

/* ---- the start */

static void assert_ends(struct daemon *d, const char *said) {
    int status = -1;
    assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
    d->pid = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    if (strstr(daemon_log(d), said) == NULL)
        fail_msg("it did not say \"%s\" but %s", said, daemon_log(d));
    assert_int_equal(segments_left(d), 0);
}

static void a_broken_one_is_no_start(void **state) {
    struct daemon *d = *state;
    char line[200];
    restart(d, "");
    assert_int_equal(daemon_end(d, SIGTERM), 0);
    write_config(d, "# one\nlog = loud\n");
    daemon_start(d, "--config", config_path(d));
    snprintf(line, sizeof(line), "%s:2: log = loud: what is wanted is", config_path(d));
    assert_ends(d, line);
    unlink(config_path(d));
    daemon_start(d, "--config", config_path(d));
    assert_ends(d, "cannot read the configuration");
    daemon_start(d, "--config", d->folder);
    assert_ends(d, "is not a file");
}

/* It ends by itself, with status 0. */
static void await_end(struct daemon *d) {
    int status = -1, process = pidfd_open(d->pid, 0);
    struct pollfd p = { .fd = process, .events = POLLIN };
    assert_true(process >= 0);
    int n = poll(&p, 1, (int)(DEADLINE_NS / 1000000));
    close(process);
    assert_int_equal(n, 1);
    assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
    d->pid = 0;
    assert_int_equal(status, 0);
}

static void an_autostarted_one_ends_when_it_is_told(void **state) {
    struct daemon *d = *state;
    char option[120];
    assert_int_equal(daemon_end(d, SIGTERM), 0);
    write_config(d, "idle_exit = never\n");
    snprintf(option, sizeof(option), "--config=%s", config_path(d));
    daemon_start(d, option, "--autostarted");
    write_config(d, "idle_exit = 20ms\n"); /* nobody has been there yet */
    kill(d->pid, SIGHUP);
    await_end(d);
    assert_non_null(strstr(daemon_log(d), "no client for 20 ms"));
    write_config(d, "idle_exit = never\n");
    daemon_start(d, option, "--autostarted");
    int fd = control_session(d, 1);
    reload(d, fd, "idle_exit = 30ms\n", READ_AGAIN);
    close(fd);
    await_end(d);
    assert_non_null(strstr(daemon_log(d), "no client for 30 ms"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_topic_without_configuration),
        TEST(defaults_by_filter),
        TEST(an_auto_depth_obeys_its_limit),
        TEST(geometry_beyond_the_limits),
        TEST(too_many_publishers),
        TEST(publishers_in_the_making),
        TEST(too_many_subscribers),
        TEST(too_many_bytes_of_a_topic),
        TEST(too_many_bytes_of_the_bus),
        TEST(capacities),
        TEST(too_many_connections),
        TEST(read_again_for_what_comes_then),
        TEST(what_cannot_change_is_named),
        TEST(a_policy_holds_after_a_restart),
        TEST(a_broken_one_changes_nothing),
        TEST(the_log),
        TEST(a_broken_one_is_no_start),
        TEST(an_autostarted_one_ends_when_it_is_told),
        TEST(a_full_dev_shm_names_topic_need_and_free),
    };
    return cmocka_run_group_tests_name("daemon_config", tests, NULL, NULL);
}
