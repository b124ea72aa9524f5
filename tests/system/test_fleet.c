/* A fleet under load while pubsubd is killed and started again, and the storm of those who come
 * back: nothing is lost, everybody comes back by himself, nothing stays. */
#include "../harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- who is connected, as the kernel tells */

/* Sessions that the present pubsubd has accepted: connected sockets of its path, which each are in
 * this list once, at the side that listened. */
static unsigned count_sessions(void) {
    char path[128], line[256];
    unsigned n = 0, state;
    snprintf(path, sizeof(path), "%s/shmps/%s.sock", test_folder(), test_instance());
    FILE *sockets = fopen("/proc/net/unix", "re");
    assert_non_null(sockets);
    while (fgets(line, sizeof(line), sockets) != NULL)
        n += strstr(line, path) != NULL &&
             sscanf(line, "%*s %*s %*s %*s %*s %x", &state) == 1 && state == 3;
    fclose(sockets);
    return n;
}

static unsigned count_daemon_descriptors(void) {
    char folder[64];
    snprintf(folder, sizeof(folder), "/proc/%ld/fd", (long)daemon_pid());
    return count_entries(folder, "");
}

static void nap_us(long us) {
    nanosleep(&(struct timespec){ .tv_nsec = us * 1000 }, NULL);
}

/* The watchdog bounds it. */
static void await(unsigned (*count)(void), unsigned wanted) {
    while (count() != wanted)
        nap_us(1000);
}

/* ---- 50 processes */

enum {
    TOPICS = 4,
    PUBLISHERS = 2 * TOPICS,  /* publisher k on load/k%TOPICS, the second half grow */
    VISITORS = 3,             /* publishers that come and go, on a topic of their own */
    RELIABLE = 12, LOSSY = 12, /* stay from the beginning to the end */
    WATCHERS = 4,             /* lossy, of the visitors */
    PASSERS = 11,             /* subscribers that come and go */
    FLEET = PUBLISHERS + VISITORS + RELIABLE + LOSSY + WATCHERS + PASSERS,
    RESTARTS = 20,
    NUMBERS_MAX = PUBLISHERS + VISITORS,
};
_Static_assert(FLEET == 50, "as many as promised");

struct part {
    uint32_t number;
    uint64_t seed;
    int delivery, wait;
    char topic[16];
};

enum { SENT = 0, RECEIVED = 1, LOST = 2 };

static bool told(int socket, int64_t *ret) {
    return recv(socket, ret, sizeof(*ret), MSG_DONTWAIT) == sizeof(*ret);
}

/* Without pubsubd nothing can be opened, nor grow: he tries again. */
static bool again(int r) {
    if (r == SHMPS_E_NO_DAEMON)
        nap_us(500);
    return r == SHMPS_E_NO_DAEMON;
}

static void publish_until_told(int socket, const void *argument, struct report *report) {
    const struct part *part = argument;
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps *bus;
    struct shmps_publisher *pub;
    uint64_t random = part->seed, most = MESSAGE_BYTES_MIN;
    bool grows = part->number >= TOPICS;
    int64_t word;
    options.wait = part->wait;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, part->topic, &options, &pub));
    role_say(socket, report);
    role_listen(socket); /* all are here */
    while (!told(socket, &word)) {
        for (int k = 0; k < 16; k++, report->values[SENT]++) {
            size_t bytes = MESSAGE_BYTES_MIN + draw(&random, most);
            int r;
            do
                r = message_publish(pub, part->number, (uint64_t)report->values[SENT], bytes,
                                    SHMPS_FOREVER);
            while (again(r));
            MUST_OK(report, r);
        }
        most += grows && most < 60000 ? most / 8 : 0;
        nap_us(1000);
    }
    role_say(socket, report);
    role_listen(socket); /* all has been read */
    shmps_close(bus);
}

static void visit_until_told(int socket, const void *argument, struct report *report) {
    const struct part *part = argument;
    struct shmps *bus;
    uint64_t random = part->seed;
    int64_t word;
    MUST_OK(report, shmps_connect(&bus, NULL));
    role_say(socket, report);
    role_listen(socket);
    while (!told(socket, &word)) {
        struct shmps_publisher *pub;
        int r;
        while (again(r = shmps_publisher_open(bus, part->topic, NULL, &pub))) {}
        MUST_OK(report, r);
        for (uint64_t i = 0, n = draw(&random, 40); i < n; i++, report->values[SENT]++)
            MUST_OK(report, message_publish(pub, part->number, i, 100, SHMPS_FOREVER));
        shmps_publisher_close(pub);
        nap_us(2000);
    }
    role_say(socket, report);
    role_listen(socket);
    shmps_close(bus);
}

/* One take. In order, and of publishers that stay each gap is exactly what was lost. */
static void take_one(struct shmps_subscriber *sub, const struct part *part, uint64_t *next,
                     bool whole, struct report *report) {
    struct shmps_sample s;
    int r = shmps_take(sub, &s, 20000000);
    if (r == SHMPS_TIMEOUT)
        return;
    MUST(report, r == 0 || r == SHMPS_LOST);
    report->values[LOST] += (int64_t)s.lost;
    MUST(report, part->delivery != SHMPS_RELIABLE || s.lost == 0 || s.publisher != 0);
    MUST(report, part->delivery != SHMPS_RELIABLE || s.lost == 0);
    if (r == SHMPS_LOST)
        return;
    const struct message *m = s.data;
    MUST(report, message_valid(m, s.bytes) && m->publisher < NUMBERS_MAX);
    MUST(report, sample_is(&s, m->publisher, m->number));
    if (whole) {
        MUST(report, m->number == next[m->publisher] + s.lost);
        next[m->publisher] = m->number + 1;
    }
    report->values[RECEIVED]++;
    MUST_OK(report, shmps_release(sub, &s));
}

static void subscribe_until_told(int socket, const void *argument, struct report *report) {
    const struct part *part = argument;
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps *bus;
    struct shmps_subscriber *sub;
    struct shmps_sample s;
    uint64_t next[NUMBERS_MAX] = { 0 };
    int64_t all = INT64_MAX;
    bool stays = strcmp(part->topic, "visits") != 0;
    options.delivery = part->delivery;
    options.wait = part->wait;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_subscriber_open(bus, part->topic, &options, &sub));
    role_say(socket, report);
    while (report->values[RECEIVED] + report->values[LOST] < all && report->trouble[0] == '\0') {
        told(socket, &all);
        take_one(sub, part, next, stays && part->delivery == SHMPS_RELIABLE, report);
    }
    MUST(report, shmps_take(sub, &s, 0) == SHMPS_EMPTY);
    shmps_close(bus);
}

/* Comes and goes: while he is there, nothing that a reliable one should have is missing. */
static void pass_until_told(int socket, const void *argument, struct report *report) {
    const struct part *part = argument;
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps *bus;
    uint64_t random = part->seed;
    int64_t word;
    options.delivery = part->delivery;
    options.wait = part->wait;
    MUST_OK(report, shmps_connect(&bus, NULL));
    role_say(socket, report);
    while (!told(socket, &word)) {
        struct shmps_subscriber *sub;
        uint64_t next[NUMBERS_MAX] = { 0 };
        int r;
        while (again(r = shmps_subscriber_open(bus, part->topic, &options, &sub))) {}
        MUST_OK(report, r);
        for (uint64_t k = draw(&random, 60); k > 0; k--)
            take_one(sub, part, next, false, report);
        shmps_subscriber_close(sub);
        nap_us(3000);
    }
    shmps_close(bus);
}

static void compose(struct part *parts, role *roles, uint64_t *random) {
    static const int waits[] = { SHMPS_WAIT_DEFAULT, SHMPS_WAIT_SLEEP };
    for (uint32_t i = 0; i < FLEET; i++) {
        struct part *p = &parts[i];
        uint32_t k = i;
        *p = (struct part){ .number = i, .wait = waits[i % 2], .seed = draw(random, UINT64_MAX) };
        snprintf(p->topic, sizeof(p->topic), "load/%u", i % TOPICS);
        if (k < PUBLISHERS) {
            roles[i] = publish_until_told;
        } else if ((k -= PUBLISHERS) < VISITORS) {
            roles[i] = visit_until_told;
            snprintf(p->topic, sizeof(p->topic), "visits");
        } else if ((k -= VISITORS) < RELIABLE + LOSSY) {
            roles[i] = subscribe_until_told;
            p->delivery = k < RELIABLE ? SHMPS_RELIABLE : SHMPS_LOSSY;
            if (k % RELIABLE >= RELIABLE - 4)
                snprintf(p->topic, sizeof(p->topic), k % 2 == 0 ? "load/+" : "load/#");
        } else if ((k -= RELIABLE + LOSSY) < WATCHERS) {
            roles[i] = subscribe_until_told;
            p->delivery = SHMPS_LOSSY;
            snprintf(p->topic, sizeof(p->topic), "visits");
        } else {
            roles[i] = pass_until_told;
            p->delivery = k % 2 == 0 ? SHMPS_RELIABLE : SHMPS_LOSSY;
        }
    }
}

static int64_t sent_to(const char *filter, const struct part *parts, const int64_t *sent) {
    int64_t sum = 0;
    for (uint32_t i = 0; i < PUBLISHERS + VISITORS; i++)
        if (strcmp(filter, parts[i].topic) == 0 ||
            (strncmp(filter, "load/", 5) == 0 && strpbrk(filter, "+#") && i < PUBLISHERS))
            sum += sent[i];
    return sum;
}

/* All are connected. Who has ended in trouble never will be. */
static void await_fleet(const struct child *children) {
    while (count_sessions() != FLEET) {
        for (uint32_t i = 0; i < FLEET; i++) {
            struct pollfd p = { .fd = children[i].socket, .events = POLLIN };
            if (poll(&p, 1, 0) != 0)
                child_hear(&children[i]);
        }
        nap_us(1000);
    }
}

static void restart_pubsubd(const struct child *children, uint64_t *random) {
    for (int i = 0; i < RESTARTS; i++) {
        if (draw(random, 2) == 0)
            await_fleet(children); /* else it is killed amid those who come back */
        nap_us((long)draw(random, 30000));
        daemon_kill();
        nap_us((long)draw(random, 30000));
        daemon_start();
    }
    await_fleet(children);
}

static void test_a_fleet_under_load(void **state) {
    (void)state;
    static struct part parts[FLEET];
    static struct child children[FLEET];
    role roles[FLEET];
    int64_t sent[PUBLISHERS + VISITORS], messages = 0, lost = 0;
    uint64_t random = test_seed();
    unsigned idle = count_daemon_descriptors();
    compose(parts, roles, &random);
    for (uint32_t i = FLEET; i-- > 0;) { /* publishers last: all is for those who stay */
        child_start(&children[i], roles[i], &parts[i]);
        child_hear(&children[i]);
    }
    for (uint32_t i = 0; i < PUBLISHERS + VISITORS; i++)
        child_tell(&children[i], 1);
    restart_pubsubd(children, &random);
    for (uint32_t i = 0; i < PUBLISHERS + VISITORS; i++)
        child_tell(&children[i], 0);
    for (uint32_t i = 0; i < PUBLISHERS + VISITORS; i++) {
        sent[i] = child_hear(&children[i]).values[SENT];
        messages += sent[i];
    }
    for (uint32_t i = PUBLISHERS + VISITORS; i < FLEET; i++)
        child_tell(&children[i], sent_to(parts[i].topic, parts, sent));
    for (uint32_t i = PUBLISHERS + VISITORS; i < FLEET; i++) {
        struct report report = child_end(&children[i]);
        if (roles[i] != subscribe_until_told)
            continue;
        assert_int_equal(report.values[RECEIVED] + report.values[LOST],
                         sent_to(parts[i].topic, parts, sent));
        if (parts[i].delivery == SHMPS_RELIABLE)
            assert_int_equal(report.values[LOST], 0);
        lost += report.values[LOST];
    }
    for (uint32_t i = 0; i < PUBLISHERS + VISITORS; i++) {
        child_tell(&children[i], 0);
        child_end(&children[i]);
    }
    print_message("# %lld messages, the lossy ones lost %lld\n", (long long)messages,
                  (long long)lost);
    await(count_sessions, 0);
    await(count_daemon_descriptors, idle);
    assert_int_equal(count_segments("r"), 0);
    assert_int_equal(count_segments("e"), 0);
}

/* ---- the storm */

enum { PROCESSES = 6, EACH = 50, CONNECTIONS = PROCESSES * EACH, MESSAGES = 5 };

static void many_connections(int socket, const void *argument, struct report *report) {
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps *buses[EACH];
    struct shmps_subscriber *subs[EACH];
    struct shmps_sample s;
    int64_t all = INT64_MAX;
    (void)argument;
    options.delivery = SHMPS_RELIABLE;
    for (int i = 0; i < EACH; i++) {
        MUST_OK(report, shmps_connect(&buses[i], NULL));
        MUST_OK(report, shmps_subscriber_open(buses[i], "storm", &options, &subs[i]));
    }
    role_say(socket, report);
    while (report->values[RECEIVED] < all) {
        for (int i = 0, r; i < EACH; i++) {
            while ((r = shmps_take(subs[i], &s, 0)) == 0) {
                report->values[RECEIVED]++;
                MUST_OK(report, shmps_release(subs[i], &s));
            }
            MUST(report, r == SHMPS_EMPTY); /* neither lost, nor CLOSED */
        }
        told(socket, &all);
        nap_us(1000);
    }
    for (int i = 0; i < EACH; i++)
        shmps_close(buses[i]);
}

/* Start pubsubd with its log in a file. */
static void start_logging(char path[128]) {
    snprintf(path, 128, "%s/log", test_folder());
    daemon_configure("log = debug\n");
    fflush(stderr);
    int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    int file = open(path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    assert_true(saved >= 0 && file >= 0);
    dup2(file, STDERR_FILENO);
    daemon_start();
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(file);
}

static unsigned count_lines(const char *path, const char *with) {
    char line[1024];
    unsigned n = 0;
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL)
        n += strstr(line, with) != NULL;
    fclose(file);
    return n;
}

static void publish_some(struct shmps_publisher *pub, uint64_t *number) {
    for (int i = 0; i < MESSAGES; i++)
        assert_ok(message_publish(pub, 0, (*number)++, 100, SHMPS_FOREVER));
}

static void test_three_hundred_come_back(void **state) {
    (void)state;
    struct child children[PROCESSES];
    struct timespec begin, end;
    char log[128];
    uint64_t number = 0;
    for (int i = 0; i < PROCESSES; i++) {
        child_start(&children[i], many_connections, NULL);
        child_hear(&children[i]);
    }
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "storm", 0, 0);
    publish_some(pub, &number);
    daemon_kill();
    publish_some(pub, &number);
    start_logging(log);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    publish_some(pub, &number); /* this one comes back too */
    await(count_sessions, CONNECTIONS + 1);
    clock_gettime(CLOCK_MONOTONIC, &end);
    print_message("# all are back after %lld ms\n",
                  (long long)(end.tv_sec - begin.tv_sec) * 1000 +
                      (end.tv_nsec - begin.tv_nsec) / 1000000);
    publish_some(pub, &number);
    for (int i = 0; i < PROCESSES; i++)
        child_tell(&children[i], (int64_t)number * EACH);
    for (int i = 0; i < PROCESSES; i++)
        assert_int_equal(child_end(&children[i]).values[RECEIVED], number * EACH);
    assert_int_equal(shmps_daemon_alive(bus), 1);
    assert_int_equal(count_lines(log, "hello from process"), CONNECTIONS + 1); /* once each */
    assert_int_equal(count_lines(log, "warning:"), 0);
    shmps_close(bus);
}

/* ---- who lives, and who does not */

static void subscribe_and_wait(int socket, const void *argument, struct report *report) {
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    const char *then = argument;
    struct shmps *bus;
    struct shmps_subscriber *sub;
    struct shmps_sample s;
    options.delivery = SHMPS_RELIABLE;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_subscriber_open(bus, "t", &options, &sub));
    if (strcmp(then, "fork") == 0)
        report->values[0] = fork(); /* it has the socket */
    while (report->values[0] == 0 && strcmp(then, "fork") == 0)
        pause();
    role_say(socket, report);
    role_listen(socket);
    if (strcmp(then, "exec") == 0) {
        fcntl(socket, F_SETFD, 0); /* the test hears the end of it */
        execlp("sleep", "sleep", "1000", (char *)NULL);
    }
    for (; shmps_take(sub, &s, 0) == 0; report->values[RECEIVED]++)
        MUST_OK(report, shmps_release(sub, &s));
    shmps_close(bus);
}

/* A reliable subscriber that does nothing while pubsubd is restarted holds back the publisher. */
static void test_who_lives_is_waited_for(void **state) {
    (void)state;
    struct child child;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 0);
    uint64_t number = 0;
    child_start(&child, subscribe_and_wait, "take");
    child_hear(&child);
    daemon_kill();
    daemon_start();
    while (message_publish(pub, 1, number, 100, 0) == 0)
        number++;
    assert_int_equal(number, 4);
    child_tell(&child, 1);
    assert_int_equal(child_end(&child).values[RECEIVED], number);
    shmps_close(bus);
}

static void expect_free(struct shmps_publisher *pub) {
    for (uint64_t i = 0; i < 40; i++)
        assert_ok(message_publish(pub, 1, i, 100, SHMPS_FOREVER));
}

static bool has_executed(pid_t pid) {
    char path[64], command[32] = "";
    snprintf(path, sizeof(path), "/proc/%ld/comm", (long)pid);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    if (fgets(command, sizeof(command), file) == NULL)
        command[0] = '\0';
    fclose(file);
    return strcmp(command, "sleep\n") == 0;
}

/* Same pid, same start time, another program: nobody reads what it had subscribed to. */
static void test_who_executes_another_program_is_not(void **state) {
    (void)state;
    struct child child;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 0);
    child_start(&child, subscribe_and_wait, "exec");
    child_hear(&child);
    daemon_kill();
    child_tell(&child, 1);
    while (!has_executed(child.pid))
        nap_us(1000);
    daemon_start();
    expect_free(pub);
    child_kill(&child);
    shmps_close(bus);
}

static void test_who_has_died_is_not_though_a_fork_lives(void **state) {
    (void)state;
    struct child child;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 0);
    child_start(&child, subscribe_and_wait, "fork");
    pid_t fork_of_it = (pid_t)child_hear(&child).values[0];
    daemon_kill();
    child_kill(&child);
    daemon_start();
    expect_free(pub);
    assert_int_equal(kill(fork_of_it, SIGKILL), 0);
    shmps_close(bus);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_a_fleet_under_load),
        WITH_DAEMON(test_three_hundred_come_back),
        WITH_DAEMON(test_who_lives_is_waited_for),
        WITH_DAEMON(test_who_executes_another_program_is_not),
        WITH_DAEMON(test_who_has_died_is_not_though_a_fork_lives),
    };
    return cmocka_run_group_tests_name("a fleet", tests, NULL, NULL);
}
