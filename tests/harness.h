/* tests/harness.h - tests of the bus with real processes: a pubsubd of their own, children that
 * play a role and report, and nothing left behind.
 *
 * Each test has an instance and a runtime directory of its own, and a watchdog. Its teardown fails
 * if descriptors, mappings of segments, segments, threads or children are left.
 * No assertion in a child or in a second thread: those fill a report, the test looks at it. */
#ifndef SHMPS_TESTS_HARNESS_H
#define SHMPS_TESTS_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <shmps/shmps.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

/* ---- a test */

/* Setup: a new instance in the environment, the baseline, the watchdog; with_daemon also starts a
 * daemon. One teardown for both. */
int test_setup(void **state);
int test_setup_with_daemon(void **state);
int test_teardown(void **state);
#define WITH_DAEMON(test) \
    cmocka_unit_test_setup_teardown(test, test_setup_with_daemon, test_teardown)
#define WITHOUT_DAEMON(test) cmocka_unit_test_setup_teardown(test, test_setup, test_teardown)

#define WATCHDOG_S 60 /* no test may take longer; the whole program ends then */

const char *test_instance(void);
const char *test_folder(void); /* XDG_RUNTIME_DIR */
/* How many segments of the instance there are in /dev/shm whose name goes on with this. */
unsigned count_segments(const char *prefix);
/* Entries of a folder whose name begins like this, hidden ones apart. */
unsigned count_entries(const char *folder, const char *prefix);
unsigned count_descriptors(void);
unsigned count_threads(void);

/* $SHMPS_TEST_SEED, or a new one; printed, so that a failure can be repeated. */
uint64_t test_seed(void);
/* A number below `below`, the next of a row that begins with a seed. */
uint64_t draw(uint64_t *state, uint64_t below);

/* ---- the daemon */

/* What pubsubd.conf says when it is started the next time. */
void daemon_configure(const char *text);
/* Start pubsubd and wait until it says that it is ready. */
void daemon_start(void);
/* SIGKILL, and wait for its end. */
void daemon_kill(void);
/* SIGTERM: it must end with status 0. */
void daemon_stop(void);
pid_t daemon_pid(void); /* 0: none was started */

/* ---- results of the library */

/* Assert a result; otherwise the whole story is told. */
#define assert_result(call, expected) \
    assert_result_at(#call, (call), (expected), __FILE__, __LINE__)
#define assert_ok(call) assert_result(call, 0)
void assert_result_at(const char *call, int result, int expected, const char *file, int line);

/* A connection with its publisher, or its subscriber; or the handle on a connection that is
 * there. For the test's own process. */
struct shmps *connected(void);
struct shmps_publisher *publisher_on(struct shmps *bus, const char *topic, uint32_t depth,
                                     uint64_t message_bytes);
struct shmps_subscriber *subscriber_on(struct shmps *bus, const char *filter, int delivery);
struct shmps_subscriber *subscriber_with_history(struct shmps *bus, const char *filter,
                                                 int delivery, uint32_t k);

/* ---- messages that prove themselves: who sent them, the how many-th, and a checksum */

struct message {
    uint32_t publisher;
    uint32_t bytes;
    uint64_t number;
    uint64_t checksum; /* of all the rest */
    unsigned char rest[];
};
#define MESSAGE_BYTES_MIN sizeof(struct message)

void message_fill(void *to, uint32_t publisher, uint64_t number, size_t bytes);
bool message_valid(const void *from, size_t bytes);
/* Publish message `number` of `publisher`. */
int message_publish(struct shmps_publisher *pub, uint32_t publisher, uint64_t number, size_t bytes,
                    int64_t timeout_ns);
/* Does the sample hold what this publisher sent as this message? */
bool sample_is(const struct shmps_sample *sample, uint32_t publisher, uint64_t number);

/* ---- children */

struct report {
    int64_t values[12];
    char trouble[400]; /* "": none */
};

struct child {
    pid_t pid; /* 0: has been reaped */
    int socket;
};

/* What a child does. It fills the report that its end sends. `socket`: to the test. */
typedef void (*role)(int socket, const void *argument, struct report *report);

/* Fork a child that plays a role and ends; it dies with the test. */
void child_start(struct child *child, role play, const void *argument);
/* Give it a number. */
void child_tell(const struct child *child, int64_t number);
/* Its next word; fails the test if that is trouble, or if it has died. */
struct report child_hear(const struct child *child);
/* Its report, after it has ended by itself. */
struct report child_end(struct child *child);
void child_kill(struct child *child);

/* In a child: a word to the test in between, and a number from it (blocks). */
void role_say(int socket, const struct report *report);
int64_t role_listen(int socket);

/* A role: publishes as many messages on the topic `argument` as it is told, until told 0. Says a
 * word when it has opened. */
void publish_when_told(int socket, const void *argument, struct report *report);

/* In a role: what does not hold is reported, and the role ends. */
#define MUST(report, condition)                                               \
    do {                                                                      \
        if (!(condition)) {                                                   \
            trouble_at((report), #condition, __FILE__, __LINE__);             \
            return;                                                           \
        }                                                                     \
    } while (0)
#define MUST_OK(report, call) MUST(report, (call) == 0)
void trouble_at(struct report *report, const char *what, const char *file, int line);

#endif
