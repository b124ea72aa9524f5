/* bench.h - shmps-bench: what the pieces share.
 *
 *     bench.c    options, the plan of one run: limit, ours, limit, ours ... as often as asked
 *     bare.c     runs sections of shmps-limits and reads single figures out of them
 *     pair.c     two processes, each on its own core: one workload through the public API
 *     idle.c     the private pubsubd: start, stop, what it costs while nothing happens
 *     report.c   rows, medians, ratios; table, JSON, check
 *
 * Only the exported functions of the shared library are used; shared memory and semaphores here
 * serve to start both sides together and to bring results home. */
#ifndef SHMPS_BENCH_H
#define SHMPS_BENCH_H

#include <shmps/shmps.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define REPETITIONS_MAX 99

struct bench {
    int repetitions;
    bool quick, json, check;
    const char *only;      /* substring of a row's id, or NULL: all */
    char limits[4096];     /* path of shmps-limits, "" if there is none */
    char pubsubd[4096];    /* path of pubsubd */
    char directory[64];    /* the private runtime directory */
    int daemon;            /* pid, 0: none */
};

/* ---- bare.c */

enum bare {
    BARE_LINE,       /* cache line ping-pong, 1 line: RTT/2 mean, ns */
    BARE_TWO_LINES,  /* the same over two lines, as two rings have to */
    BARE_FUTEX,      /* futex ping-pong: RTT/2 p50, ns */
    BARE_EPOLL,      /* eventfd + epoll ping-pong: RTT/2 p50, ns */
    BARE_RING,       /* one writer, one reader, 64-byte slots, 56-byte payload: M messages/s */
    BARE_COUNT,
};
/* Run shmps-limits, unchanged, until it has printed the figure `last`; ret[] gets that and all
 * that came before it in the same section, the rest is left alone. False: it could not be had. */
bool bare_measure(const struct bench *b, enum bare last, double ret[BARE_COUNT]);
const char *bare_name(enum bare which);

/* ---- pair.c */

enum transfer {
    BY_COPY,  /* publish / take, release */
    BY_READ,  /* publish / read */
    BY_LOAN,  /* loan, write the first and last 8 bytes, publish / take, release */
    BY_LOAN_TOUCHED, /* the same, and the receiver reads both */
    BY_BATCH, /* publish_batch of 32 / take_batch, release_batch */
};
struct workload {
    enum transfer transfer;
    size_t bytes;
    int delivery;         /* enum shmps_delivery */
    int wait;             /* enum shmps_wait */
    bool epoll;           /* the receiver waits in epoll on the subscriber's descriptor */
    bool timestamps;
    bool one_way;         /* a stream from core 0 to core 1; else a ping-pong */
    bool each;            /* clock each round trip (p50), else one clock around all (mean) */
    uint32_t depth;
    uint32_t messages;
};
struct outcome {
    double value;    /* ping-pong: RTT/2 in ns; stream: M messages/s */
    double p99;      /* ping-pong with each: RTT/2 in ns, else 0 */
    uint64_t lost;
};
/* False: it failed; the reason is on stderr. */
bool pair_measure(const struct workload *w, struct outcome *ret);

/* ---- idle.c */

/* Start the private pubsubd and wait for its `ready`; environment variables lead this process and
 * its children to it. */
bool daemon_start(struct bench *b);
void daemon_stop(struct bench *b);

struct idle {
    double wakeups; /* context switches of all its threads in the time that was watched */
    double cpu_ns;  /* CPU time that it used meanwhile */
    double resident_mib;
};
/* Watch it for some time, with a publisher and a subscriber open that do nothing. */
bool idle_measure(const struct bench *b, double seconds, struct idle *ret);

/* ---- report.c */

enum aim { NO_AIM, AT_MOST, AT_LEAST };
struct row {
    const char *id;        /* stable name, for --json and --only */
    const char *work;
    const char *unit;      /* of ours and reference; NULL: ns */
    const char *reference; /* compared with; NULL: the target is for the figure itself */
    enum aim aim;          /* what the ratio has to be, against the target */
    double target;
    int n;                 /* repetitions that have both figures */
    double ours[REPETITIONS_MAX], theirs[REPETITIONS_MAX];
    double p99[REPETITIONS_MAX];
    uint64_t lost;
};
void row_add(struct row *row, double ours, double theirs);
/* It has a target, was measured, and the median of its ratios meets it. */
bool row_met(const struct row *row);
void report_table(FILE *to, const struct row *rows, size_t n);
/* A line for each row that has a target. */
void report_check(FILE *to, const struct row *rows, size_t n);
void report_json(FILE *to, const struct bench *b, const struct row *rows, size_t n);

/* ---- bench.c */

double now_ns(void);
bool pin_to(int core);
void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
