#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILDREN_MAX 400

/* The test that runs now. */
static struct {
    char instance[33];
    char folder[64];
    pid_t daemon;
    pid_t children[CHILDREN_MAX]; /* not yet reaped */
    int sockets[CHILDREN_MAX];
    unsigned descriptors, mappings, threads;
} test;

const char *test_instance(void) {
    return test.instance;
}

const char *test_folder(void) {
    return test.folder;
}

pid_t daemon_pid(void) {
    return test.daemon;
}

/* ---- what there is */

unsigned count_entries(const char *folder, const char *prefix) {
    DIR *directory = opendir(folder);
    unsigned n = 0;
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        n += entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(directory);
    return n;
}

unsigned count_segments(const char *prefix) {
    char name[128];
    snprintf(name, sizeof(name), "shmps.%u.%s.%s", (unsigned)getuid(), test.instance, prefix);
    return count_entries("/dev/shm", name);
}

unsigned count_descriptors(void) {
    return count_entries("/proc/self/fd", "") - 1; /* the one that counts */
}

unsigned count_threads(void) {
    return count_entries("/proc/self/task", "");
}

static unsigned count_mappings(void) {
    char line[512];
    unsigned n = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps) != NULL)
        n += strstr(line, "/dev/shm/") != NULL;
    fclose(maps);
    return n;
}

/* ---- seeds */

static uint64_t mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t draw(uint64_t *state, uint64_t below) {
    *state = mix(*state);
    return *state % below;
}

uint64_t test_seed(void) {
    const char *given = getenv("SHMPS_TEST_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0)
                                  : mix((uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 30) >> 32;
    print_message("# SHMPS_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* ---- setup and teardown */

static void on_alarm(int signal) {
    static const char text[] = "Bail out! a test has not ended in time\n";
    (void)signal;
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(124);
    alarm(3); /* now deadly */
    if (test.daemon != 0 && kill(test.daemon, SIGTERM) == 0)
        waitpid(test.daemon, NULL, 0); /* it takes its segments with it; children die with us */
    _exit(124);
}

int test_setup(void **state) {
    static unsigned count;
    (void)state;
    memset(&test, 0, sizeof(test));
    snprintf(test.instance, sizeof(test.instance), "test-%ld-%u", (long)getpid(), ++count);
    snprintf(test.folder, sizeof(test.folder), "/tmp/shmps-test-XXXXXX");
    if (mkdtemp(test.folder) == NULL)
        return -1;
    setenv("XDG_RUNTIME_DIR", test.folder, 1);
    setenv("XDG_CONFIG_HOME", test.folder, 1);
    setenv("SHMPS_INSTANCE", test.instance, 1);
    setenv("SHMPS_AUTOSTART", "0", 1);
    test.descriptors = count_descriptors();
    test.mappings = count_mappings();
    test.threads = count_threads();
    struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESETHAND | SA_NODEFER };
    sigaction(SIGALRM, &action, NULL);
    alarm(WATCHDOG_S);
    return 0;
}

int test_setup_with_daemon(void **state) {
    if (test_setup(state) < 0)
        return -1;
    daemon_start();
    return 0;
}

static int complain(const char *what, unsigned before, unsigned now) {
    if (before == now)
        return 0;
    print_error("%s: %u before the test, %u after it\n", what, before, now);
    return -1;
}

static void list_descriptors(void) {
    char path[64], target[256];
    for (int fd = 3; fd < 256; fd++) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        if (n > 0)
            print_error("  %d -> %.*s\n", fd, (int)n, target);
    }
}

static void remove_folder(void) {
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", test.folder);
    if (system(command) != 0)
        print_error("cannot remove %s\n", test.folder);
}

/* A test that failed half-way leaves them. */
static void end_children(void) {
    for (int i = 0; i < CHILDREN_MAX; i++) {
        if (test.children[i] == 0)
            continue;
        kill(test.children[i], SIGKILL);
        waitpid(test.children[i], NULL, 0);
        close(test.sockets[i]);
    }
}

int test_teardown(void **state) {
    int wrong = 0;
    (void)state;
    end_children();
    if (test.daemon != 0) {
        int status = 0;
        kill(test.daemon, SIGTERM);
        waitpid(test.daemon, &status, 0);
        wrong |= complain("exit status of the daemon", 0, (unsigned)status);
    }
    wrong |= complain("segments", 0, count_segments(""));
    wrong |= complain("mappings of /dev/shm", test.mappings, count_mappings());
    wrong |= complain("threads", test.threads, count_threads());
    int descriptors = complain("descriptors", test.descriptors, count_descriptors());
    if (descriptors != 0)
        list_descriptors();
    wrong |= descriptors;
    wrong |= complain("children", 0, waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD);
    remove_folder();
    alarm(0);
    return wrong;
}

/* ---- the daemon */

void daemon_configure(const char *text) {
    char path[128];
    snprintf(path, sizeof(path), "%s/shmps", test.folder);
    assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
    snprintf(path, sizeof(path), "%s/shmps/pubsubd.conf", test.folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

void daemon_start(void) {
    const char *program = getenv("SHMPS_PUBSUBD");
    int ends[2];
    char line[6];
    size_t n = 0;
    assert_int_equal(test.daemon, 0);
    if (program == NULL)
        fail_msg("SHMPS_PUBSUBD must tell where pubsubd is");
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t test_process = getpid(), pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(ends[1], STDOUT_FILENO);
        if (getppid() == test_process)
            execl(program, "pubsubd", "--instance", test.instance, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    while (n < sizeof(line)) { /* "ready\n" */
        ssize_t got = read(ends[0], line + n, sizeof(line) - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    close(ends[0]);
    test.daemon = pid;
    if (n != sizeof(line) || memcmp(line, "ready\n", sizeof(line)) != 0)
        fail_msg("%s has not become ready", program);
}

static int end_daemon(int signal_number) {
    int status = -1;
    assert_int_not_equal(test.daemon, 0);
    kill(test.daemon, signal_number);
    assert_int_equal(waitpid(test.daemon, &status, 0), test.daemon);
    test.daemon = 0;
    return status;
}

void daemon_kill(void) {
    assert_true(WIFSIGNALED(end_daemon(SIGKILL)));
}

void daemon_stop(void) {
    assert_int_equal(end_daemon(SIGTERM), 0);
}

/* ---- results */

void assert_result_at(const char *call, int result, int expected, const char *file, int line) {
    if (result == expected)
        return;
    print_error("%s: %s%s%s\n", call, shmps_error_name(result), result < 0 ? ": " : "",
                result < 0 ? shmps_error_detail() : "");
    print_error("expected: %s\n", shmps_error_name(expected));
    _fail(file, line);
}

struct shmps *connected(void) {
    struct shmps *bus = NULL;
    assert_ok(shmps_connect(&bus, NULL));
    return bus;
}

struct shmps_publisher *publisher_on(struct shmps *bus, const char *topic, uint32_t depth,
                                     uint64_t message_bytes) {
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps_publisher *pub = NULL;
    options.depth = depth;
    options.message_bytes = message_bytes;
    assert_ok(shmps_publisher_open(bus, topic, &options, &pub));
    return pub;
}

struct shmps_subscriber *subscriber_with_history(struct shmps *bus, const char *filter,
                                                 int delivery, uint32_t k) {
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps_subscriber *sub;
    options.delivery = delivery;
    options.history = k;
    assert_ok(shmps_subscriber_open(bus, filter, &options, &sub));
    return sub;
}

struct shmps_subscriber *subscriber_on(struct shmps *bus, const char *filter, int delivery) {
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps_subscriber *sub = NULL;
    options.delivery = delivery;
    assert_ok(shmps_subscriber_open(bus, filter, &options, &sub));
    return sub;
}

/* ---- messages */

static uint64_t checksum_of(const struct message *m, size_t bytes) {
    uint64_t sum = mix((uint64_t)m->publisher << 32 | m->bytes) ^ mix(m->number);
    size_t i = 0, rest = bytes - sizeof(*m);
    for (; i + 8 <= rest; i += 8) {
        uint64_t word;
        memcpy(&word, m->rest + i, 8);
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    }
    for (; i < rest; i++)
        sum = (sum ^ m->rest[i]) * UINT64_C(0x100000001b3);
    return sum;
}

void message_fill(void *to, uint32_t publisher, uint64_t number, size_t bytes) {
    struct message *m = to;
    uint64_t word = mix(number ^ (uint64_t)publisher << 48);
    m->publisher = publisher;
    m->bytes = (uint32_t)bytes;
    m->number = number;
    for (size_t i = 0; i < bytes - sizeof(*m); i += 8, word += 0x100000001)
        memcpy(m->rest + i, &word, bytes - sizeof(*m) - i < 8 ? bytes - sizeof(*m) - i : 8);
    m->checksum = checksum_of(m, bytes);
}

bool message_valid(const void *from, size_t bytes) {
    const struct message *m = from;
    return bytes >= sizeof(*m) && m->bytes == bytes && m->checksum == checksum_of(m, bytes);
}

int message_publish(struct shmps_publisher *pub, uint32_t publisher, uint64_t number, size_t bytes,
                    int64_t timeout_ns) {
    void *loan;
    int r = shmps_loan(pub, bytes, timeout_ns, &loan);
    if (r != 0)
        return r;
    message_fill(loan, publisher, number, bytes);
    return shmps_publish_loan(pub, bytes, number);
}

bool sample_is(const struct shmps_sample *sample, uint32_t publisher, uint64_t number) {
    const struct message *m = sample->data;
    return message_valid(m, sample->bytes) && m->publisher == publisher && m->number == number &&
           sample->seq == number && sample->tag == number;
}

/* ---- children */

void child_start(struct child *child, role play, const void *argument) {
    int ends[2], place = 0;
    while (place < CHILDREN_MAX && test.children[place] != 0)
        place++;
    assert_true(place < CHILDREN_MAX);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    fflush(NULL); /* else the child would print it again */
    pid_t test_process = getpid(), pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        static struct report report;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(0);
        close(ends[0]);
        for (int i = 0; i < CHILDREN_MAX; i++)
            if (test.children[i] != 0)
                close(test.sockets[i]);
        if (getppid() == test_process)
            play(ends[1], argument, &report);
        role_say(ends[1], &report);
        _exit(0);
    }
    close(ends[1]);
    *child = (struct child){ .pid = pid, .socket = ends[0] };
    test.children[place] = pid;
    test.sockets[place] = ends[0];
}

void child_tell(const struct child *child, int64_t number) {
    assert_int_equal(send(child->socket, &number, sizeof(number), MSG_NOSIGNAL), sizeof(number));
}

struct report child_hear(const struct child *child) {
    struct report report;
    ssize_t got = read(child->socket, &report, sizeof(report));
    if (got != sizeof(report))
        fail_msg("a child has died without a report");
    if (report.trouble[0] != '\0')
        fail_msg("in a child: %s", report.trouble);
    return report;
}

static int reap(struct child *child) {
    int status = -1;
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    for (int i = 0; i < CHILDREN_MAX; i++)
        if (test.children[i] == child->pid)
            test.children[i] = 0;
    close(child->socket);
    *child = (struct child){ .pid = 0, .socket = -1 };
    return status;
}

struct report child_end(struct child *child) {
    struct report report = child_hear(child);
    assert_int_equal(reap(child), 0);
    return report;
}

void child_kill(struct child *child) {
    kill(child->pid, SIGKILL);
    int status = reap(child);
    assert_true(WIFSIGNALED(status));
}

void role_say(int socket, const struct report *report) {
    if (send(socket, report, sizeof(*report), MSG_NOSIGNAL) != sizeof(*report))
        _exit(1);
}

int64_t role_listen(int socket) {
    int64_t number = 0;
    if (read(socket, &number, sizeof(number)) != sizeof(number))
        _exit(1); /* the test has gone */
    return number;
}

void trouble_at(struct report *report, const char *what, const char *file, int line) {
    if (report->trouble[0] == '\0')
        snprintf(report->trouble, sizeof(report->trouble), "%s:%d: %s (%.250s)", file, line, what,
                 shmps_error_detail());
}

/* ---- a role of several tests */

void publish_when_told(int socket, const void *argument, struct report *report) {
    struct shmps *bus;
    struct shmps_publisher *pub;
    uint64_t number = 0;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, argument, NULL, &pub));
    role_say(socket, report);
    for (int64_t n; (n = role_listen(socket)) != 0;)
        for (; n > 0; n--)
            MUST_OK(report, message_publish(pub, 1, number++, 100, SHMPS_FOREVER));
    shmps_publisher_close(pub);
    shmps_close(bus);
}
