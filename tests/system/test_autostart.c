/* A pubsubd that the first client starts and that ends after its last one. */
#include "../harness.h"

#include <ctype.h>
#include <dirent.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CROWD 8

/* The processes that serve this instance, by their command lines. */
static unsigned find_daemons(pid_t pids[], unsigned room) {
    DIR *proc = opendir("/proc");
    unsigned n = 0;
    assert_non_null(proc);
    for (struct dirent *entry; (entry = readdir(proc)) != NULL && n < room;) {
        char path[64], line[512];
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof(path), "/proc/%.20s/cmdline", entry->d_name);
        FILE *file = fopen(path, "re");
        if (file == NULL)
            continue;
        size_t got = fread(line, 1, sizeof(line) - 1, file);
        fclose(file);
        line[got] = '\0';
        if (strcmp(line, "pubsubd") == 0 && memmem(line, got, test_instance(),
                                                   strlen(test_instance())) != NULL)
            pids[n++] = (pid_t)strtol(entry->d_name, NULL, 10);
    }
    closedir(proc);
    return n;
}

/* Wait until there is none any more: each ends by itself. */
static void await_end_of_daemons(void) {
    pid_t pids[2 * CROWD];
    for (unsigned n; (n = find_daemons(pids, 2 * CROWD)) > 0;)
        for (unsigned i = 0; i < n; i++) {
            int fd = (int)syscall(SYS_pidfd_open, pids[i], 0);
            struct pollfd p = { .fd = fd, .events = POLLIN };
            if (fd < 0)
                continue; /* it has gone */
            assert_int_equal(poll(&p, 1, -1), 1);
            close(fd);
        }
}

static void meet(int socket, const void *argument, struct report *report) {
    const uint32_t *index = argument;
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps *bus;
    struct shmps_publisher *pub;
    struct shmps_subscriber *sub;
    bool seen[CROWD] = { false };
    options.delivery = SHMPS_RELIABLE;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_subscriber_open(bus, "meeting", &options, &sub));
    MUST_OK(report, shmps_publisher_open(bus, "meeting", NULL, &pub));
    MUST_OK(report, shmps_publisher_wait_subscribers(pub, CROWD, SHMPS_FOREVER));
    MUST_OK(report, message_publish(pub, *index, 0, 50, SHMPS_FOREVER));
    for (int i = 0; i < CROWD; i++) {
        struct shmps_sample s;
        MUST_OK(report, shmps_take(sub, &s, SHMPS_FOREVER));
        const struct message *m = s.data;
        MUST(report, sample_is(&s, m->publisher, 0) && m->publisher < CROWD &&
                         !seen[m->publisher]);
        seen[m->publisher] = true;
        MUST_OK(report, shmps_release(sub, &s));
    }
    role_say(socket, report);
    role_listen(socket);
    shmps_close(bus);
}

/* Processes that start at once find each other: there is one daemon, and nothing is left of it
 * after its last client, neither a process nor a segment. */
static void test_one_daemon_for_all_who_start_at_once(void **state) {
    (void)state;
    struct child children[CROWD];
    uint32_t index[CROWD];
    pid_t pids[2 * CROWD];
    setenv("SHMPS_AUTOSTART", "1", 1);
    for (uint32_t i = 0; i < CROWD; i++) {
        index[i] = i;
        child_start(&children[i], meet, &index[i]);
    }
    for (uint32_t i = 0; i < CROWD; i++)
        child_hear(&children[i]);
    assert_true(find_daemons(pids, 2 * CROWD) >= 1);
    assert_int_equal(count_segments("dir"), 1);
    for (uint32_t i = 0; i < CROWD; i++) {
        child_tell(&children[i], 0);
        child_end(&children[i]);
    }
    struct shmps *late = connected(); /* it is still there, and stays while it is used */
    shmps_close(late);
    await_end_of_daemons();
    assert_int_equal(count_segments(""), 0);
}

static void test_no_daemon_is_started_unasked(void **state) {
    (void)state;
    struct shmps_connect_options options = SHMPS_CONNECT_OPTIONS_INIT;
    struct shmps *bus = NULL;
    pid_t pids[4];
    assert_result(shmps_connect(&bus, NULL), SHMPS_E_NO_DAEMON); /* SHMPS_AUTOSTART=0 */
    setenv("SHMPS_AUTOSTART", "1", 1);
    options.autostart = SHMPS_AUTOSTART_OFF;
    assert_result(shmps_connect(&bus, &options), SHMPS_E_NO_DAEMON);
    options.observe = 1;
    options.autostart = SHMPS_AUTOSTART_DEFAULT;
    assert_result(shmps_connect(&bus, &options), SHMPS_E_NO_DAEMON); /* who only looks */
    assert_null(bus);
    assert_int_equal(find_daemons(pids, 4), 0);
    assert_int_equal(count_segments(""), 0);
}

static void test_a_daemon_that_cannot_be_started(void **state) {
    (void)state;
    const char *program = getenv("SHMPS_PUBSUBD");
    const char *const others[] = { "/nonexistent/pubsubd", "/bin/false", "/etc/passwd" };
    struct shmps_connect_options options = SHMPS_CONNECT_OPTIONS_INIT;
    char saved[512];
    snprintf(saved, sizeof(saved), "%s", program);
    options.autostart = SHMPS_AUTOSTART_ON;
    options.timeout_ns = 20000000;
    for (size_t i = 0; i < 3; i++) {
        struct shmps *bus = NULL;
        setenv("SHMPS_PUBSUBD", others[i], 1);
        assert_result(shmps_connect(&bus, &options), SHMPS_E_NO_DAEMON);
        assert_true(strlen(shmps_error_detail()) > 20);
        assert_null(bus);
    }
    setenv("SHMPS_PUBSUBD", saved, 1);
}

/* It can be told to end, and started again by the next client. */
static void test_started_stopped_started(void **state) {
    (void)state;
    struct shmps_connect_options options = SHMPS_CONNECT_OPTIONS_INIT;
    options.autostart = SHMPS_AUTOSTART_ON;
    for (int i = 0; i < 3; i++) {
        struct shmps *bus;
        assert_ok(shmps_connect(&bus, &options));
        assert_string_equal(shmps_instance(bus), test_instance());
        assert_int_equal(shmps_daemon_alive(bus), 1);
        assert_ok(shmps_stop_daemon(bus));
        shmps_close(bus);
        await_end_of_daemons();
        assert_int_equal(count_segments(""), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITHOUT_DAEMON(test_no_daemon_is_started_unasked),
        WITHOUT_DAEMON(test_a_daemon_that_cannot_be_started),
        WITHOUT_DAEMON(test_one_daemon_for_all_who_start_at_once),
        WITHOUT_DAEMON(test_started_stopped_started),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
