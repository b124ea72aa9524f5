/* tests/system/test_daemon_restart.c - clients that die, a daemon that dies, and what the next
 * one makes of what it finds. */
#include "control.h"

#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void restart(struct daemon *d) {
    assert_int_equal(daemon_end(d, SIGKILL), SIGKILL);
    daemon_start(d, NULL, NULL);
}

/* Publish n samples into a ring, as far as the daemon looks. */
static void publish(const struct daemon *d, uint64_t serial, uint64_t n) {
    struct segment_map map;
    struct ring_header *ring = map_ring(d, serial, &map);
    atomic_store_release(&ring->head, n); /* SYNC ring.head: as a publisher does */
    segment_unmap(&map);
}

/* The reader in a seat has come as far as `need`. */
static void set_need(const struct daemon *d, const struct look *look, const char *topic,
                     uint64_t subscription, uint64_t ring, uint64_t need) {
    struct segment_map map;
    uint32_t page, cell;
    uint64_t value;
    assert_true(look_seat(&look->d, topic, subscription, &page, &cell, &value));
    struct readers_segment *readers = map_readers(d, ring, page, &map);
    atomic_store_release(&readers->entries[cell].need, need); /* SYNC reader.need: as a reader */
    segment_unmap(&map);
}

/* ---- conditions to wait for */

static bool is_retired(const struct directory *d, void *serial) {
    struct ring_info info;
    return look_ring(d, *(uint64_t *)serial, &info) && info.state == RING_RETIRED;
}

static bool is_gone(const struct directory *d, void *serial) {
    struct ring_info info;
    return !look_ring(d, *(uint64_t *)serial, &info);
}

static bool is_unsubscribed(const struct directory *d, void *serial) {
    struct subscription_info info;
    return !look_subscription(d, *(uint64_t *)serial, &info);
}

/* ---- clients that die */

static void publish_and_sleep(const struct daemon *d, int report) {
    child_report(report, child_publisher(child_session(d, 11), "t"));
}

static void subscribe_and_sleep(const struct daemon *d, int report) {
    child_report(report, child_subscriber(child_session(d, 12), "t", POLICY_RELIABLE));
}

static void a_dead_publishers_ring_is_drained_before_it_goes(void **state) {
    const struct daemon *d = *state;
    struct look look;
    struct child child;
    struct ring_info info;
    int fd = control_session(d, 1);
    uint64_t subscription = open_subscriber(fd, "t", POLICY_RELIABLE);
    look_open(&look, d);
    child_start(&child, publish_and_sleep, d);
    uint64_t ring = child_read(&child);
    assert_true(ring != 0);
    publish(d, ring, 7);
    child_end(&child, SIGKILL);
    assert_true(look_until(&look, is_retired, &ring));
    assert_true(look_ring(&look.d, ring, &info));
    assert_int_equal(info.final_head, 7);
    set_need(d, &look, "t", subscription, ring, 6);
    control_drained(fd, ring);
    assert_true(ring_exists(d, ring));
    set_need(d, &look, "t", subscription, ring, 7);
    control_drained(fd, ring);
    assert_false(ring_exists(d, ring));
    assert_true(is_gone(&look.d, &ring));
    look_close(&look);
    close(fd);
}

static void at_most_four_dead_rings_wait_in_a_topic(void **state) {
    const struct daemon *d = *state;
    struct topic_info topic;
    struct look look;
    uint64_t rings[7];
    int fd = control_session(d, 1);
    open_subscriber(fd, "t", POLICY_LOSSY);
    look_open(&look, d);
    for (size_t i = 0; i < ARRAY_LENGTH(rings); i++) {
        rings[i] = open_publisher(fd, "t");
        publish(d, rings[i], 1);
        assert_int_equal(control_close(fd, rings[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(rings); i++)
        assert_int_equal(ring_exists(d, rings[i]), i >= 3); /* the oldest went first */
    assert_true(look_topic(&look.d, "t", &topic));
    assert_int_equal(topic.retired_rings, 4);
    look_close(&look);
    close(fd);
}

static void a_dead_subscriber_gives_up_its_seat_and_its_need(void **state) {
    const struct daemon *d = *state;
    struct look look;
    struct child child;
    struct segment_map map;
    uint32_t page, cell;
    uint64_t value;
    int fd = control_session(d, 1);
    uint64_t ring = open_publisher(fd, "t");
    look_open(&look, d);
    child_start(&child, subscribe_and_sleep, d);
    uint64_t subscription = child_read(&child);
    assert_true(look_seat(&look.d, "t", subscription, &page, &cell, &value));
    struct readers_segment *readers = map_readers(d, ring, page, &map);
    /* SYNC reader.need, reader.pins: as a reader does */
    atomic_store_release(&readers->entries[cell].need, 3);
    atomic_store_release(&readers->entries[cell].pins[2], 2);
    child_end(&child, SIGKILL);
    assert_true(look_until(&look, is_unsubscribed, &subscription));
    assert_int_equal(readers->entries[cell].need, NEED_NONE);
    assert_int_equal(readers->entries[cell].pins[2], 0);
    assert_int_equal(readers->space, 1); /* a starved publisher would have been woken */
    assert_false(look_seat(&look.d, "t", subscription, &page, &cell, &value));
    segment_unmap(&map);
    look_close(&look);
    close(fd);
}

static void publish_and_exec(const struct daemon *d, int report) {
    child_report(report, child_publisher(child_session(d, 11), "t"));
    execlp("sleep", "sleep", "1000", NULL);
}

static void exec_ends_a_session(void **state) {
    const struct daemon *d = *state;
    struct look look;
    struct child child;
    look_open(&look, d);
    child_start(&child, publish_and_exec, d);
    uint64_t ring = child_read(&child);
    assert_true(look_until(&look, is_gone, &ring));
    child_end(&child, SIGKILL);
    look_close(&look);
}

/* Its own child keeps the socket open. */
static void publish_and_fork(const struct daemon *d, int report) {
    uint64_t ring = child_publisher(child_session(d, 11), "t");
    pid_t pid = fork();
    if (pid != 0) {
        child_report(report, (uint64_t)pid);
        child_report(report, ring);
    }
}

static void a_fork_that_keeps_the_socket_keeps_nobody_alive(void **state) {
    const struct daemon *d = *state;
    struct look look;
    struct child child;
    look_open(&look, d);
    child_start(&child, publish_and_fork, d);
    pid_t grandchild = (pid_t)child_read(&child);
    uint64_t ring = child_read(&child);
    child_end(&child, SIGKILL);
    assert_true(look_until(&look, is_gone, &ring));
    assert_int_equal(kill(grandchild, SIGKILL), 0);
    look_close(&look);
}

/* ---- a daemon that dies */

static void a_restarted_daemon_knows_what_was_there(void **state) {
    struct daemon *d = *state;
    struct look look;
    struct ring_info info;
    struct topic_info info_of_topic;
    int fd = control_session(d, 1);
    uint64_t ring = open_publisher(fd, "a");
    uint64_t subscription = open_subscriber(fd, "#", POLICY_RELIABLE);
    uint64_t exact = open_subscriber(fd, "a", POLICY_LOSSY);
    look_open(&look, d);
    uint64_t serial = look.d.header->identity.serial;
    uint32_t index = directory_topic_find(&look.d, "a");
    const atomic_u32 *topic = directory_topic_generation(&look.d, index);
    uint32_t before = atomic_load_acquire(topic); /* SYNC topic.generation: the daemon's release */
    restart(d);
    assert_true(control_is_closed(fd));
    close(fd);
    assert_int_equal(look.d.header->epoch, 2);
    assert_int_equal(look.d.header->daemon_pid, d->pid);
    assert_int_equal(look.d.header->identity.serial, serial);
    assert_true(*topic != before);
    fd = control_session(d, 1);
    assert_int_equal(claim_publisher(fd, ring), 0);
    assert_int_equal(claim_subscriber(fd, subscription), 0);
    assert_int_equal(claim_subscriber(fd, exact), 0);
    assert_int_equal(claim_publisher(fd, ring), 0); /* once more does no harm */
    control_drained(fd, 0);
    assert_true(look_ring(&look.d, ring, &info));
    assert_int_equal(info.state, RING_LIVE);
    uint64_t later = open_publisher(fd, "b");
    assert_true(later > subscription && later > ring);
    assert_int_equal(control_close(fd, ring), 0);
    assert_int_equal(control_close(fd, subscription), 0);
    assert_false(ring_exists(d, ring));
    assert_true(look_topic(&look.d, "a", &info_of_topic)); /* for him who wants just this one */
    assert_int_equal(control_close(fd, exact), 0);
    assert_false(look_topic(&look.d, "a", &info_of_topic));
    look_close(&look);
    close(fd);
}

static void who_died_with_the_daemon_is_reaped_by_the_next(void **state) {
    struct daemon *d = *state;
    struct look look;
    struct child publisher, subscriber;
    int fd = control_session(d, 1);
    uint64_t mine = open_subscriber(fd, "t", POLICY_RELIABLE);
    look_open(&look, d);
    child_start(&publisher, publish_and_sleep, d);
    child_start(&subscriber, subscribe_and_sleep, d);
    uint64_t ring = child_read(&publisher), subscription = child_read(&subscriber);
    publish(d, ring, 4);
    assert_int_equal(daemon_end(d, SIGKILL), SIGKILL);
    child_end(&publisher, SIGKILL);
    child_end(&subscriber, SIGKILL);
    daemon_start(d, NULL, NULL);
    assert_true(is_retired(&look.d, &ring)); /* at once, and still to be drained */
    assert_true(is_unsubscribed(&look.d, &subscription));
    close(fd);
    fd = control_session(d, 1);
    assert_int_equal(claim_subscriber(fd, mine), 0);
    set_need(d, &look, "t", mine, ring, 4);
    control_drained(fd, 0);
    assert_false(ring_exists(d, ring));
    look_close(&look);
    close(fd);
}

static void who_dies_before_he_comes_back_is_reaped_too(void **state) {
    struct daemon *d = *state;
    struct look look;
    struct child child;
    look_open(&look, d);
    child_start(&child, publish_and_sleep, d);
    uint64_t ring = child_read(&child);
    restart(d);
    assert_false(is_gone(&look.d, &ring)); /* stopped, asleep: alive */
    int fd = control_session(d, 1);
    assert_int_equal(claim_publisher(fd, ring), SHMPS_E_PERMISSION);
    child_end(&child, SIGKILL);
    assert_true(look_until(&look, is_gone, &ring));
    look_close(&look);
    close(fd);
}

static void what_a_connection_does_not_claim_it_never_knew(void **state) {
    struct daemon *d = *state;
    struct look look;
    int first = control_session(d, 1), second = control_session(d, 2);
    uint64_t known = open_subscriber(first, "t", POLICY_RELIABLE);
    uint64_t orphan = open_subscriber(first, "t", POLICY_RELIABLE);
    uint64_t others = open_subscriber(second, "t", POLICY_RELIABLE);
    look_open(&look, d);
    restart(d);
    close(first);
    first = control_session(d, 1);
    assert_int_equal(claim_subscriber(first, known), 0);
    control_drained(first, 0);
    assert_true(is_unsubscribed(&look.d, &orphan));
    assert_false(is_unsubscribed(&look.d, &others));
    close(second);
    second = control_session(d, 2);
    assert_int_equal(claim_subscriber(second, others), 0);
    look_close(&look);
    close(first);
    close(second);
}

static void many_restarts_lose_nothing(void **state) {
    struct daemon *d = *state;
    uint64_t rings[20], subscriptions[20];
    int fd = control_session(d, 1);
    char topic[32];
    for (int i = 0; i < 20; i++) {
        snprintf(topic, sizeof(topic), "t/%d", i % 5);
        rings[i] = open_publisher(fd, topic);
        subscriptions[i] = open_subscriber(fd, i % 2 == 0 ? topic : "t/+", POLICY_LOSSY);
    }
    unsigned left = segments_left(d);
    for (int round = 0; round < 5; round++) {
        restart(d);
        close(fd);
        fd = control_session(d, 1);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(claim_publisher(fd, rings[i]), 0);
            assert_int_equal(claim_subscriber(fd, subscriptions[i]), 0);
        }
        control_drained(fd, 0);
        assert_int_equal(segments_left(d), left);
    }
    for (int i = 0; i < 20; i++) {
        assert_int_equal(control_close(fd, rings[i]), 0);
        assert_int_equal(control_close(fd, subscriptions[i]), 0);
    }
    assert_int_equal(segments_left(d), 2);
    close(fd);
}

/* ---- what is not as it should be */

static void a_ring_that_does_not_verify_is_dropped(void **state) {
    struct daemon *d = *state;
    struct segment_ref ref;
    struct look look;
    int fd = control_session(d, 1);
    uint64_t whole = open_publisher(fd, "a"), truncated = open_publisher(fd, "b");
    uint64_t missing = open_publisher(fd, "c"), garbled = open_publisher(fd, "d");
    struct segment_map map;
    look_open(&look, d);
    segment_ref_ring(&ref, geteuid(), d->instance, missing);
    segment_remove(&ref);
    segment_ref_ring(&ref, geteuid(), d->instance, truncated);
    int ring = -1;
    assert_int_equal(segment_open(&ref, SEGMENT_WRITE, geteuid(), &ring), 0);
    assert_int_equal(ftruncate(ring, 100), 0);
    close(ring);
    memset((char *)map_ring(d, garbled, &map) + 128, 0xff, 128);
    segment_unmap(&map);
    restart(d);
    close(fd);
    fd = control_session(d, 1);
    assert_int_equal(claim_publisher(fd, whole), 0);
    assert_int_equal(claim_publisher(fd, truncated), SHMPS_E_NO_TOPIC);
    assert_int_equal(claim_publisher(fd, missing), SHMPS_E_NO_TOPIC);
    assert_int_equal(claim_publisher(fd, garbled), SHMPS_E_NO_TOPIC);
    assert_int_equal(segments_left(d), 3);
    look_close(&look);
    close(fd);
}

enum damage { ZEROES, TRUNCATED, NOISE, OTHER_BOOT, LIST_LOOPS, SEAT_OF_NOBODY, DAMAGES };

static void inflict(struct directory *d, enum damage damage) {
    unsigned seed = 1;
    char *bytes = (char *)d->header;
    struct topic_info topic;
    struct ring_info ring;
    uint32_t t = directory_topic_find(d, "t");
    assert_true(directory_topic(d, t, &topic, NULL));
    switch (damage) {
    case ZEROES:
        memset(bytes, 0, d->geometry.bytes);
        break;
    case NOISE:
        for (uint64_t i = 256; i < d->geometry.bytes; i++)
            bytes[i] = (char)rand_r(&seed);
        break;
    case OTHER_BOOT:
        d->header->identity.boot_id[0] ^= 1;
        break;
    case LIST_LOOPS:
        assert_true(directory_ring(d, topic.first_ring, &ring));
        ring.next = topic.first_ring;
        directory_ring_write(d, topic.first_ring, &ring);
        break;
    case SEAT_OF_NOBODY: /* SYNC page.cells: no daemon runs */
        atomic_store_relaxed(&d->pages[topic.first_page].cells[30],
                             cell_make(POLICY_LOSSY, 1, 99));
        break;
    default:
        break;
    }
}

static void a_directory_that_does_not_verify_is_set_aside(void **state) {
    struct daemon *d = *state;
    for (enum damage damage = ZEROES; damage < DAMAGES; damage++) {
        struct segment_ref ref;
        struct segment_map map;
        struct directory directory;
        int fd = control_session(d, 1), segment = -1;
        open_publisher(fd, "t");
        open_subscriber(fd, "t", POLICY_LOSSY);
        assert_int_equal(daemon_end(d, SIGKILL), SIGKILL);
        close(fd);
        segment_ref_directory(&ref, geteuid(), d->instance);
        assert_int_equal(segment_open(&ref, SEGMENT_WRITE, geteuid(), &segment), 0);
        assert_int_equal(segment_map(segment, SEGMENT_WRITE, 4096, &map), 0);
        assert_int_equal(directory_attach(&directory, map.base, map.bytes), 0);
        if (damage == TRUNCATED)
            assert_int_equal(ftruncate(segment, 5000), 0);
        else
            inflict(&directory, damage);
        segment_unmap(&map);
        close(segment);
        daemon_start(d, NULL, NULL);
        assert_non_null(strstr(daemon_log(d), "set aside"));
        assert_non_null(strstr(daemon_log(d), "epoch 1"));
        assert_int_equal(segments_left(d), 3); /* the new one, the lock, the last set aside */
        fd = control_session(d, 1);
        assert_int_equal(control_ping(fd), 0);
        close(fd);
    }
    assert_int_equal(daemon_end(d, SIGTERM), 0);
    assert_int_equal(segments_left(d), 1); /* it can be looked at until the next start */
    daemon_start(d, NULL, NULL);
    assert_int_equal(segments_left(d), 2);
}

/* Its programs may live: a daemon of another layout leaves them everything. */
static void a_directory_of_another_version_is_left_alone(void **state) {
    struct daemon *d = *state;
    struct segment_ref ref;
    struct segment_map map;
    int status, segment = -1;
    int fd = control_session(d, 1);
    open_publisher(fd, "t");
    open_subscriber(fd, "t", POLICY_LOSSY);
    unsigned segments_before = (unsigned)segments_left(d);
    assert_int_equal(daemon_end(d, SIGKILL), SIGKILL);
    segment_ref_directory(&ref, geteuid(), d->instance);
    assert_int_equal(segment_open(&ref, SEGMENT_WRITE, geteuid(), &segment), 0);
    assert_int_equal(segment_map(segment, SEGMENT_WRITE, 4096, &map), 0);
    struct identity *identity = map.base;
    identity->version = LAYOUT_VERSION + 1;
    daemon_start(d, NULL, NULL);
    assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_non_null(strstr(daemon_log(d), "SHMPS_E_VERSION"));
    assert_int_equal(segments_left(d), segments_before - 1); /* the lock was nobody's */
    identity->version = LAYOUT_VERSION;
    segment_unmap(&map);
    close(segment);
    daemon_start(d, NULL, NULL); /* its own build takes over */
    assert_null(strstr(daemon_log(d), "set aside"));
    close(fd);
}

static void make_file(const char *name) {
    int fd = shm_open(name, O_CREAT | O_RDWR, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void leftovers_go_but_only_ours(void **state) {
    struct daemon *d = *state;
    char other[SEGMENT_NAME_BYTES], strange[SEGMENT_NAME_BYTES];
    struct segment_ref ref;
    int fd = control_session(d, 1);
    uint64_t ring = open_publisher(fd, "t");
    assert_int_equal(daemon_end(d, SIGKILL), SIGKILL);
    segment_ref_ring(&ref, geteuid(), d->instance, 4711);
    make_file(ref.name);
    segment_ref_readers(&ref, geteuid(), d->instance, 4711, 3);
    make_file(ref.name);
    snprintf(other, sizeof(other), "/shmps.%u.%s-other.r1", (unsigned)geteuid(), d->instance);
    make_file(other);
    snprintf(strange, sizeof(strange), "/shmps.%u.%s.r01", (unsigned)geteuid(), d->instance);
    make_file(strange);
    daemon_start(d, NULL, NULL);
    assert_int_equal(shm_unlink(other), 0);
    assert_int_equal(shm_unlink(strange), 0);
    assert_int_equal(segments_left(d), 3);
    assert_true(ring_exists(d, ring));
    close(fd);
}

/* ---- a second daemon, and the end of an autostarted one */

static void a_second_daemon_says_who_is_there(void **state) {
    struct daemon *d = *state;
    struct daemon second = *d;
    char name[64], pid[32];
    int status;
    snprintf(name, sizeof(name), "/shmps-test-%d", (int)getpid());
    sem_t *ready = sem_open(name, O_CREAT | O_EXCL, 0600, 0);
    assert_ptr_not_equal(ready, SEM_FAILED);
    daemon_start(&second, "--ready-semaphore", name);
    assert_int_equal(waitpid(second.pid, &status, 0), second.pid);
    assert_int_equal(WEXITSTATUS(status), 1);
    snprintf(pid, sizeof(pid), "process %d;", (int)d->pid);
    assert_non_null(strstr(daemon_log(d), pid));
    assert_int_equal(sem_trywait(ready), 0);
    sem_close(ready);
    sem_unlink(name);
    int fd = control_session(d, 1);
    assert_int_equal(control_ping(fd), 0);
    close(fd);
}

static void the_ready_semaphore_is_posted(void **state) {
    struct daemon *d = *state;
    char name[64];
    assert_int_equal(daemon_end(d, SIGTERM), 0);
    snprintf(name, sizeof(name), "/shmps-test-%d", (int)getpid());
    sem_t *ready = sem_open(name, O_CREAT | O_EXCL, 0600, 0);
    assert_ptr_not_equal(ready, SEM_FAILED);
    daemon_start(d, "--ready-semaphore", name);
    assert_int_equal(sem_trywait(ready), 0);
    sem_close(ready);
    sem_unlink(name);
}

static void an_autostarted_daemon_ends_after_its_last_client(void **state) {
    struct daemon *d = *state;
    int status;
    assert_int_equal(daemon_end(d, SIGTERM), 0);
    daemon_start(d, "--autostarted", NULL);
    int fd = control_session(d, 1);
    open_publisher(fd, "t");
    close(fd);
    assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
    assert_int_equal(status, 0);
    d->pid = 0;
    assert_int_equal(segments_left(d), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, daemon_setup, daemon_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_dead_publishers_ring_is_drained_before_it_goes),
        TEST(at_most_four_dead_rings_wait_in_a_topic),
        TEST(a_dead_subscriber_gives_up_its_seat_and_its_need),
        TEST(exec_ends_a_session),
        TEST(a_fork_that_keeps_the_socket_keeps_nobody_alive),
        TEST(a_restarted_daemon_knows_what_was_there),
        TEST(who_died_with_the_daemon_is_reaped_by_the_next),
        TEST(who_dies_before_he_comes_back_is_reaped_too),
        TEST(what_a_connection_does_not_claim_it_never_knew),
        TEST(many_restarts_lose_nothing),
        TEST(a_ring_that_does_not_verify_is_dropped),
        TEST(a_directory_that_does_not_verify_is_set_aside),
        TEST(a_directory_of_another_version_is_left_alone),
        TEST(leftovers_go_but_only_ours),
        TEST(a_second_daemon_says_who_is_there),
        TEST(the_ready_semaphore_is_posted),
        TEST(an_autostarted_daemon_ends_after_its_last_client),
    };
    return cmocka_run_group_tests_name("daemon_restart", tests, NULL, NULL);
}
