/* demo.h - the roles of the demo, and what its processes tell the one that started them.
 *
 *     orchestrator   demo.c, stage.c, show.c   starts and ends all others, shows, judges
 *       pubsubd      a private one; killed and started again on the way
 *       host         host.c                    publishes this machine, DEMO_HOST_HZ times a second
 *       frames       frames.c                  publishes 1 MiB stretches of real files
 *       spin         subscriber.c              one subscriber of everything that never sleeps
 *       futex        subscriber.c              the same, asleep whenever nothing is there
 *       descriptor   subscriber.c              two subscribers, host/# and camera/+, in one epoll
 *       newcomer     subscriber.c              joins after pubsubd was killed and started again
 *
 * A child is this program again: `shmps-demo ROLE DESCRIPTOR RECORD`, DESCRIPTOR being a
 * SOCK_SEQPACKET on which it sends struct report, RECORD the file for its lines (record.h).
 * Publishers end on SIGTERM; subscribers end when their publishers have left and everything is
 * taken. */
#ifndef DEMO_H
#define DEMO_H

#include "record.h"
#include <shmps/shmps.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum role {
    ROLE_HOST,
    ROLE_FRAMES,
    ROLE_SPIN,
    ROLE_FUTEX,
    ROLE_DESCRIPTOR,
    ROLE_NEWCOMER,
    ROLE_COUNT,
};
#define ROLE_FIRST_SUBSCRIBER ROLE_SPIN
#define DEMO_EARLY_SUBSCRIBERS 3 /* spin, futex, descriptor: before the publishers start */
#define DEMO_TOPICS_MAX 24

extern const char *const role_names[ROLE_COUNT];

#define SECOND_NS UINT64_C(1000000000)
uint64_t now_ns(void); /* CLOCK_MONOTONIC, as shmps_sample.time_ns */

/* ---- reports */

enum report_kind {
    REPORT_READY = 1, /* a subscriber is open; a publisher has found its subscribers and begins */
    REPORT_TOPIC,     /* counts so far of one topic */
    REPORT_DONE,      /* all went well; the record is complete */
    REPORT_FAILED,    /* text says what went wrong */
};
struct report {
    uint32_t kind;
    uint32_t reserved;
    uint64_t messages, bytes, lost;  /* REPORT_TOPIC */
    uint64_t p50_ns, p99_ns, max_ns; /* REPORT_TOPIC of a subscriber: from publishing to taking */
    uint64_t sleeps, copied;         /* REPORT_DONE of a subscriber: times that it waited in the
                                      kernel, and see shmps_subscriber_stats */
    uint64_t stalls, wakes;          /* REPORT_DONE of a publisher: see shmps_publisher_stats */
    char text[512];                  /* the topic, or what went wrong */
};

/* ---- latencies */

/* Buckets 1/16 of a power of two wide: what is read from them is at most 6.25 % too large. */
#define HISTOGRAM_BUCKETS (61 * 16)
struct histogram {
    uint64_t bucket[HISTOGRAM_BUCKETS];
    uint64_t n, max;
};
void histogram_add(struct histogram *h, uint64_t value);
/* The value that `permille` of all are not above; 0 if there is none. */
uint64_t histogram_quantile(const struct histogram *h, uint32_t permille);

/* ---- children (child.c) */

struct tally { /* of one topic */
    char topic[SHMPS_TOPIC_BYTES_MAX + 1];
    uint64_t messages, bytes, lost;
    struct histogram latency;
};

struct child {
    enum role role;
    int report_fd;
    struct shmps *bus;
    struct record record;
    struct tally *tallies; /* DEMO_TOPICS_MAX */
    size_t n_tallies;
    uint64_t next_report_ns;
};

extern volatile sig_atomic_t child_stop; /* SIGTERM came */

/* Each ends the process with REPORT_FAILED when something goes wrong, so that what calls them
 * reads as the main line. */
void child_fail(struct child *child, const char *what, ...)
    __attribute__((noreturn, format(printf, 2, 3)));
/* Passes a result through; an error ends the process with its detail. */
int child_check(struct child *child, int result, const char *what);
struct tally *child_tally(struct child *child, const char *topic);
/* Hash and note down a message of `tally`'s topic; its line goes into the record. */
void child_note(struct child *child, struct tally *tally, const void *data, size_t bytes,
                uint64_t publisher, uint64_t seq, uint64_t tag);
void child_report(struct child *child, const struct report *report);
void child_report_topics(struct child *child, bool now); /* ten times a second, or now */

void host_main(struct child *child, struct report *done);
void frames_main(struct child *child, struct report *done);
void subscriber_main(struct child *child, struct report *done);

/* Runs a role to its end; the exit status. */
int child_main(enum role role, int report_fd, const char *record_path);

/* ---- publishers (child.c) */

struct source { /* a publisher with what is told of it */
    struct shmps_publisher *pub;
    struct tally *tally;
    uint64_t id;
};
void source_open(struct child *child, struct source *source, const char *topic,
                 uint64_t message_bytes, uint32_t depth);
void source_wait_subscribers(struct child *child, struct source *sources, size_t n);
/* Publishes a copy, waiting for room as long as it takes. */
void source_publish(struct child *child, struct source *source, const void *data, size_t bytes,
                    uint64_t tag);
void source_close(struct source *source, struct report *done);
/* Sleep until the next beat of `hz` after *beat_ns and move that on; late beats are left out. */
void source_beat(uint64_t *beat_ns, uint32_t hz);

#endif
