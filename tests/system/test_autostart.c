/* A pubsubd that the first client starts and that ends after its last one. */
#include "../harness.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
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

static void end_of(pid_t pid) {
    struct pollfd p = { .fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };
    if (p.fd < 0)
        return; /* it has gone */
    assert_int_equal(poll(&p, 1, -1), 1);
    close(p.fd);
}

/* Wait until there is none any more: each ends by itself. */
static void await_end_of_daemons(void) {
    pid_t pids[2 * CROWD];
    for (unsigned n; (n = find_daemons(pids, 2 * CROWD)) > 0;)
        for (unsigned i = 0; i < n; i++)
            end_of(pids[i]);
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

/* ---- a start that fails */

static unsigned children_ended;

static void on_child(int signal_number) {
    (void)signal_number;
    children_ended++;
}

/* No time-out: whoever does not learn of the end at once, never does. */
static int connect_by(const char *program) {
    struct shmps_connect_options options = SHMPS_CONNECT_OPTIONS_INIT;
    struct shmps *bus = NULL;
    options.autostart = SHMPS_AUTOSTART_ON;
    options.timeout_ns = INT64_C(3600000000000);
    setenv("SHMPS_PUBSUBD", program, 1);
    int r = shmps_connect(&bus, &options);
    shmps_close(bus);
    return r;
}

static const char *write_program(const char *text) {
    static char path[128];
    snprintf(path, sizeof(path), "%s/program", test_folder());
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fchmod(fileno(file), 0700), 0);
    assert_int_equal(fclose(file), 0);
    return path;
}

static void assert_told(const char *program, const char *why) {
    assert_result(connect_by(program), SHMPS_E_NO_DAEMON);
    if (strstr(shmps_error_detail(), why) == NULL)
        fail_msg("%s: \"%s\" is not in \"%s\"", program, why, shmps_error_detail());
    /* it leaves no child, and the program has not heard of one */
    assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    assert_int_equal(children_ended, 0);
    assert_int_equal(count_segments(""), 0);
}

static void test_a_start_that_fails_tells_why_at_once(void **state) {
    (void)state;
    struct sigaction before, actions[] = { { .sa_handler = SIG_DFL },
                                           { .sa_handler = SIG_IGN },
                                           { .sa_handler = on_child },
                                           { .sa_flags = SA_NOCLDWAIT } };
    char program[512];
    snprintf(program, sizeof(program), "%s", getenv("SHMPS_PUBSUBD"));
    sigaction(SIGCHLD, NULL, &before);
    for (size_t i = 0; i < 4; i++) { /* whatever the program does about its children */
        sigaction(SIGCHLD, &actions[i], NULL);
        assert_told("/bin/false", "/bin/false was started for instance");
        assert_told("/bin/false", "ended with status 1, without a word");
        assert_told("/nonexistent/pubsubd", "cannot be run: No such file");
        assert_told("/etc/passwd", "cannot be run: Permission denied");
        assert_told("/tmp", "cannot be run: Is a directory");
        assert_told(write_program("garbage"), "cannot be run: Exec format error");
        assert_told(write_program("#!/bin/sh\necho first >&2\necho last words >&2\nexit 7\n"),
                    "ended with status 7: last words");
        assert_told(write_program("#!/bin/sh\nkill -SEGV $$\n"), "ended by signal 11");
    }
    sigaction(SIGCHLD, &before, NULL);
    setenv("SHMPS_PUBSUBD", program, 1);
}

/* As few descriptors as there can be: the library or pubsubd says so. */
static void connect_with_few(int socket, const void *argument, struct report *report) {
    const uint32_t *left = argument;
    struct rlimit limit;
    (void)socket;
    getrlimit(RLIMIT_NOFILE, &limit);
    int lowest = dup(0);
    close(lowest);
    limit.rlim_cur = limit.rlim_max = (rlim_t)lowest + *left;
    setrlimit(RLIMIT_NOFILE, &limit);
    int r = connect_by(getenv("SHMPS_PUBSUBD"));
    MUST(report, r == SHMPS_E_NO_DESCRIPTORS || r == SHMPS_E_NO_DAEMON);
    MUST(report, strstr(shmps_error_detail(), "ulimit -n") != NULL);
    report->values[0] = r;
}

static void test_a_start_without_descriptors(void **state) {
    (void)state;
    struct child child;
    for (uint32_t left = 0; left < 4; left++) {
        child_start(&child, connect_with_few, &left);
        child_end(&child);
    }
    await_end_of_daemons();
}

/* A /dev/shm of its own, with room for the semaphore but not for a bus. */
static void connect_in_a_full_one(int socket, const void *argument, struct report *report) {
    (void)socket;
    (void)argument;
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=64k") < 0)
        return;
    report->values[0] = 1;
    MUST(report, connect_by(getenv("SHMPS_PUBSUBD")) == SHMPS_E_NO_DAEMON);
    MUST(report, strstr(shmps_error_detail(), "NO_SPACE: a segment still needs") != NULL);
    MUST(report, count_segments("") == 0); /* nor is an empty lock left */
}

static void test_a_start_in_a_full_dev_shm(void **state) {
    (void)state;
    struct child child;
    child_start(&child, connect_in_a_full_one, NULL);
    if (child_end(&child).values[0] == 0)
        skip(); /* cannot have a mount namespace */
}

/* ---- a client that is killed while it waits */

static void connect_and_wait(int socket, const void *argument, struct report *report) {
    (void)socket;
    (void)report;
    connect_by(argument);
}

static pid_t parent_of(pid_t pid) {
    char path[64], line[256];
    int parent = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    while (parent == 0 && fgets(line, sizeof(line), file) != NULL)
        sscanf(line, "PPid: %d", &parent);
    fclose(file);
    return (pid_t)parent;
}

static bool semaphore_exists(long pid) {
    char path[128];
    snprintf(path, sizeof(path), "/dev/shm/sem.shmps.%u.%s.ready.%ld", (unsigned)getuid(),
             test_instance(), pid);
    return access(path, F_OK) == 0;
}

/* Its helper goes with it; its semaphore goes with the next daemon, a living client's does not. */
static void test_a_client_that_is_killed_leaves_nothing(void **state) {
    (void)state;
    char program[512], fifo[96], text[256], name[96];
    struct child child;
    int pid = 0;
    snprintf(program, sizeof(program), "%s", getenv("SHMPS_PUBSUBD"));
    snprintf(fifo, sizeof(fifo), "%s/fifo", test_folder());
    assert_int_equal(mkfifo(fifo, 0600), 0);
    snprintf(text, sizeof(text), "#!/bin/sh\necho $$ >%s\nexec cat %s\n", fifo, fifo);
    child_start(&child, connect_and_wait, write_program(text));
    FILE *file = fopen(fifo, "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%d", &pid), 1);
    fclose(file);
    pid_t watcher = parent_of(pid), client = child.pid;
    assert_int_equal(parent_of(watcher), client);
    assert_true(semaphore_exists(client));
    child_kill(&child);
    end_of(watcher);
    kill(pid, SIGKILL);
    assert_true(semaphore_exists(client));
    snprintf(name, sizeof(name), "/shmps.%u.%s.ready.%d", (unsigned)getuid(), test_instance(),
             (int)getpid());
    sem_t *living = sem_open(name, O_CREAT | O_EXCL, 0600, 0);
    assert_ptr_not_equal(living, SEM_FAILED);
    sem_close(living);
    setenv("SHMPS_PUBSUBD", program, 1);
    daemon_start();
    assert_false(semaphore_exists(client));
    assert_true(semaphore_exists(getpid()));
    sem_unlink(name);
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
        WITHOUT_DAEMON(test_a_start_that_fails_tells_why_at_once),
        WITHOUT_DAEMON(test_a_start_without_descriptors),
        WITHOUT_DAEMON(test_a_start_in_a_full_dev_shm),
        WITHOUT_DAEMON(test_a_client_that_is_killed_leaves_nothing),
        WITHOUT_DAEMON(test_one_daemon_for_all_who_start_at_once),
        WITHOUT_DAEMON(test_started_stopped_started),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
