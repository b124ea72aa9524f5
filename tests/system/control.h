/* tests/system/control.h - a real pubsubd, and the control protocol spoken to it directly. */
#ifndef SHMPS_TESTS_CONTROL_H
#define SHMPS_TESTS_CONTROL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/scope.h"
#include "base/segment.h"
#include "layout/directory.h"
#include "layout/ring.h"
#include "wait/futex.h"
#include "wire/address.h"
#include "wire/wire.h"

#include <sys/types.h>

#define DEADLINE_NS INT64_C(20000000000) /* of everything that is waited for */

/* ---- a daemon */

struct daemon {
    pid_t pid;                /* 0: not running */
    char instance[INSTANCE_BYTES];
    char folder[64];          /* of the socket and of what it logs; removed at the end */
    char socket[96];
    uint64_t max_descriptors; /* != 0: its RLIMIT_NOFILE */
};

/* cmocka's setup and teardown: a running daemon of its own, *state. The teardown ends it and
 * fails if a segment is left. */
int daemon_setup(void **state);
int daemon_teardown(void **state);

/* Start a program as this instance's daemon, with up to two more options; returns when it has
 * said that it is ready, or has ended. */
void daemon_start(struct daemon *d, const char *option, const char *value);
/* Send a signal and wait for the end: the status as of waitpid(2). */
int daemon_end(struct daemon *d, int signal);
/* What it has written to stderr so far, at most 64 KiB. Static storage. */
const char *daemon_log(const struct daemon *d);

/* Names in /dev/shm that belong to the instance. */
unsigned segments_left(const struct daemon *d);
bool ring_exists(const struct daemon *d, uint64_t serial);

/* ---- a session */

int control_connect(const struct daemon *d);
/* Send a request of wire_init() and receive its reply. The reply's status, or CONTROL_CLOSED.
 * ret_fd NULL: none is expected. */
#define CONTROL_CLOSED 1000
int control_request(int fd, const void *request, struct wire_reply *ret, int *ret_fd);
void control_send(int fd, const void *message, size_t bytes);
/* The next reply. */
int control_reply(int fd, struct wire_reply *ret, int *ret_fd);
bool control_is_closed(int fd); /* waits for it */

void hello_init(struct wire_hello *m);
/* Connected, and hello said with this secret. */
int control_session(const struct daemon *d, uint64_t secret);
int control_ping(int fd);
int control_close(int fd, uint64_t serial);
void control_drained(int fd, uint64_t ring);

/* A publisher of small messages (depth 8, 32 bytes), or of what `m` says. The status; on
 * success the reply. */
void publisher_init(struct wire_open_publisher *m, const char *topic);
int control_publisher(int fd, const struct wire_open_publisher *m, struct wire_reply *ret);
uint64_t open_publisher(int fd, const char *topic);
int control_subscriber(int fd, const char *filter, enum policy policy, uint32_t pins,
                       struct wire_reply *ret);
uint64_t open_subscriber(int fd, const char *filter, enum policy policy);
int claim_publisher(int fd, uint64_t serial);
int claim_subscriber(int fd, uint64_t serial);

/* ---- the directory, as anyone may look at it */

struct look {
    struct segment_map map;
    struct directory d;
};
void look_open(struct look *look, const struct daemon *d);
void look_close(struct look *look);
/* Wait until `condition` holds; looks again whenever the directory's generation moves. False:
 * it took too long. */
bool look_until(const struct look *look, bool (*condition)(const struct directory *d, void *data),
                void *data);
/* By serial or name. False: none. */
bool look_ring(const struct directory *d, uint64_t serial, struct ring_info *ret);
bool look_topic(const struct directory *d, const char *name, struct topic_info *ret);
bool look_seat(const struct directory *d, const char *topic, uint64_t subscription,
               uint32_t *ret_page, uint32_t *ret_cell, uint64_t *ret_value);
bool look_subscription(const struct directory *d, uint64_t serial, struct subscription_info *ret);

/* Map a ring, or a readers segment, writable. */
void *map_ring(const struct daemon *d, uint64_t serial, struct segment_map *map);
struct readers_segment *map_readers(const struct daemon *d, uint64_t ring, uint32_t page,
                                    struct segment_map *map);

/* ---- clients in processes of their own. A child asserts nothing: it reports what it has got. */

struct child {
    pid_t pid;
    int answers; /* pipe: what the child reports */
};
/* Run `body` in a child, which then sleeps. */
void child_start(struct child *child, void (*body)(const struct daemon *d, int report),
                 const struct daemon *d);
/* For its body. -1 or 0: it did not work. */
int child_session(const struct daemon *d, uint64_t secret);
uint64_t child_publisher(int fd, const char *topic);
uint64_t child_subscriber(int fd, const char *filter, enum policy policy);
void child_report(int report, uint64_t word);
/* The next word that it reports. */
uint64_t child_read(const struct child *child);
/* Send it a signal (0: it ends by itself) and wait for its end. */
void child_end(struct child *child, int signal);

#endif
