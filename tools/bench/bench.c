/* shmps-bench: how fast the bus is on this machine, as ratios to what the machine can do. */
#include "bench.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static const char help[] =
    "shmps-bench [OPTION...]: measure the bus beside the bare limits of this machine, in one run\n"
    "\n"
    "  --quick      one repetition of fewer messages: that all of it works, not how fast it is\n"
    "  --repeat N   repetitions, 1 to 99 (default 5)\n"
    "  --only TEXT  only the rows whose id contains TEXT\n"
    "  --json       one JSON object on stdout instead of the table\n"
    "  --check      a line per target; exit status 0 only if all are met\n"
    "  --help       this\n"
    "\n"
    "It starts a pubsubd of its own ($SHMPS_PUBSUBD, else that of the same build) and pins its\n"
    "processes to cores 0 and 1. Everything else that runs meanwhile shows in the figures.\n";

double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("shmps-bench: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\n", stderr);
    va_end(arguments);
}

bool pin_to(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set) == 0)
        return true;
    fail("cannot pin to core %d: %s; two cores are needed", core, strerror(errno));
    return false;
}

/* ---- what is measured */

enum row_id {
    ONE_WAY,
    ONE_WAY_TWO_LINES,
    ONE_WAY_READ,
    ONE_WAY_RELIABLE,
    ONE_WAY_TIMESTAMPS,
    ONE_WAY_DEFAULT,
    LOAN_LARGE,
    LOAN_TOUCHED,
    FUTEX,
    EPOLL,
    RATE,
    RATE_TAKE,
    RATE_BATCH,
    RATE_LOSSY,
    IDLE_WAKEUPS,
    IDLE_CPU,
    IDLE_RESIDENT,
    ROWS,
};

static struct row rows[ROWS] = {
    [ONE_WAY] = { .id = "one_way_32", .work = "one-way, 32 B, spin", .aim = AT_MOST,
                  .target = 1.5 },
    [ONE_WAY_TWO_LINES] = { .id = "one_way_32_two_lines", .work = "the same" },
    [ONE_WAY_READ] = { .id = "one_way_32_read", .work = "one-way, 32 B, spin, read" },
    [ONE_WAY_RELIABLE] = { .id = "one_way_32_reliable", .work = "one-way, 32 B, spin, reliable" },
    [ONE_WAY_TIMESTAMPS] = { .id = "one_way_32_timestamps",
                             .work = "one-way, 32 B, timestamps on" },
    [ONE_WAY_DEFAULT] = { .id = "one_way_32_default_wait", .work = "one-way, 32 B, default wait" },
    [LOAN_LARGE] = { .id = "loan_8mib", .work = "8 MiB loan, hand-over, spin", .aim = AT_MOST,
                     .target = 1.3 },
    [LOAN_TOUCHED] = { .id = "loan_8mib_touched", .work = "8 MiB loan, receiver reads both ends" },
    [FUTEX] = { .id = "one_way_32_futex", .work = "one-way, 32 B, futex, p50", .aim = AT_MOST,
                .target = 1.2 },
    [EPOLL] = { .id = "one_way_32_descriptor", .work = "one-way, 32 B, descriptor in epoll, p50" },
    [RATE] = { .id = "rate_32_reliable", .work = "rate 1 -> 1, 32 B, reliable", .unit = "M/s",
               .aim = AT_LEAST, .target = 0.25 },
    [RATE_TAKE] = { .id = "rate_32_reliable_take", .work = "rate, reliable, take + release",
                    .unit = "M/s" },
    [RATE_BATCH] = { .id = "rate_32_reliable_batch", .work = "rate, reliable, batches of 32",
                     .unit = "M/s" },
    [RATE_LOSSY] = { .id = "rate_32_lossy", .work = "rate, lossy (sent; lost are counted)",
                     .unit = "M/s" },
    [IDLE_WAKEUPS] = { .id = "idle_wakeups", .work = "idle daemon, wake-ups", .unit = "",
                       .aim = AT_MOST, .target = 0 },
    [IDLE_CPU] = { .id = "idle_cpu", .work = "idle daemon, CPU time", .aim = AT_MOST,
                   .target = 0 },
    [IDLE_RESIDENT] = { .id = "idle_resident", .work = "idle daemon, resident", .unit = "MiB",
                        .aim = AT_MOST, .target = 6 },
};

/* As deep as lets a publisher run ahead of its reader; docs/benchmarks says why that matters. */
#define RATE_DEPTH 4096
#define SPIN .wait = SHMPS_WAIT_SPIN, .messages = 300000
#define LARGE .bytes = 8 * MIB, .depth = 8, .wait = SHMPS_WAIT_SPIN, .messages = 100000
#define SMALL .bytes = 32, .depth = 8, .wait = SHMPS_WAIT_SPIN, .messages = 100000
#define SLEEP .wait = SHMPS_WAIT_SLEEP, .each = true, .messages = 20000
#define STREAM .wait = SHMPS_WAIT_SPIN, .one_way = true, .depth = RATE_DEPTH, .messages = 10000000

static const struct workload works[ROWS] = {
    [ONE_WAY] = { SPIN },
    [ONE_WAY_READ] = { SPIN, .transfer = BY_READ },
    [ONE_WAY_RELIABLE] = { SPIN, .delivery = SHMPS_RELIABLE },
    [ONE_WAY_TIMESTAMPS] = { SPIN, .timestamps = true },
    [ONE_WAY_DEFAULT] = { .wait = SHMPS_WAIT_DEFAULT, .messages = 300000 },
    [LOAN_LARGE] = { LARGE, .transfer = BY_LOAN },
    [LOAN_TOUCHED] = { LARGE, .transfer = BY_LOAN_TOUCHED },
    [FUTEX] = { SLEEP },
    [EPOLL] = { SLEEP, .epoll = true },
    [RATE] = { STREAM, .delivery = SHMPS_RELIABLE, .transfer = BY_READ },
    [RATE_TAKE] = { STREAM, .delivery = SHMPS_RELIABLE },
    [RATE_BATCH] = { STREAM, .delivery = SHMPS_RELIABLE, .transfer = BY_BATCH },
    [RATE_LOSSY] = { STREAM, .transfer = BY_READ },
};
/* The 32-byte hand-over that the 8 MiB ones are compared with: the same calls, the same depth. */
static const struct workload small_loan = { SMALL, .transfer = BY_LOAN };
static const struct workload small_loan_touched = { SMALL, .transfer = BY_LOAN_TOUCHED };

/* ---- a run */

static bool wanted(const struct bench *b, enum row_id id) {
    return !b->only || strstr(rows[id].id, b->only);
}

static bool measure(const struct bench *b, const struct workload *from, struct outcome *ret) {
    struct workload w = *from;
    w.bytes = w.bytes ? w.bytes : 32;
    w.messages /= b->quick ? 20 : 1;
    return pair_measure(&w, ret);
}

static void progress(int repetition, const struct bench *b, const char *what) {
    bool terminal = isatty(STDERR_FILENO);
    fprintf(stderr, "%s[%d/%d] %s%s", terminal ? "\r\033[K" : "", repetition + 1, b->repetitions,
            what, terminal ? "" : "\n");
    fflush(stderr);
}

/* Measure ours now, right after the reference was measured. */
static void compare_row(int repetition, const struct bench *b, enum row_id id,
                        const char *reference, double theirs) {
    struct outcome o;
    struct row *row = &rows[id];
    if (!wanted(b, id))
        return;
    row->reference = reference;
    progress(repetition, b, row->work);
    if (!measure(b, &works[id], &o))
        return;
    row->p99[row->n] = o.p99;
    row->lost += o.lost;
    row_add(row, o.value, theirs);
}

static bool any_wanted(const struct bench *b, enum row_id first, enum row_id last) {
    for (enum row_id id = first; id <= last; id++)
        if (wanted(b, id))
            return true;
    return false;
}

static void spin_rows(int repetition, const struct bench *b) {
    double bare[BARE_COUNT];
    for (enum row_id id = ONE_WAY; id <= ONE_WAY_DEFAULT; id++) {
        if (id == ONE_WAY_TWO_LINES || !wanted(b, id))
            continue;
        if (!bare_measure(b, BARE_TWO_LINES, bare))
            continue;
        int before = rows[id].n;
        compare_row(repetition, b, id, bare_name(BARE_LINE), bare[BARE_LINE]);
        if (id != ONE_WAY || rows[ONE_WAY].n == before)
            continue;
        rows[ONE_WAY_TWO_LINES].reference = bare_name(BARE_TWO_LINES);
        row_add(&rows[ONE_WAY_TWO_LINES], rows[ONE_WAY].ours[before], bare[BARE_TWO_LINES]);
    }
}

static void loan_rows(int repetition, const struct bench *b) {
    struct outcome small;
    if (wanted(b, LOAN_LARGE) && measure(b, &small_loan, &small))
        compare_row(repetition, b, LOAN_LARGE, "32 B loan", small.value);
    if (wanted(b, LOAN_TOUCHED) && measure(b, &small_loan_touched, &small))
        compare_row(repetition, b, LOAN_TOUCHED, "32 B loan, read", small.value);
}

static void sleep_rows(int repetition, const struct bench *b) {
    double bare[BARE_COUNT];
    if (!any_wanted(b, FUTEX, EPOLL))
        return;
    progress(repetition, b, "bare futex, eventfd + epoll");
    enum bare last = wanted(b, EPOLL) ? BARE_EPOLL : BARE_FUTEX;
    if (!bare_measure(b, last, bare))
        return;
    compare_row(repetition, b, FUTEX, bare_name(BARE_FUTEX), bare[BARE_FUTEX]);
    if (last == BARE_EPOLL)
        compare_row(repetition, b, EPOLL, bare_name(BARE_EPOLL), bare[BARE_EPOLL]);
}

static void rate_rows(int repetition, const struct bench *b) {
    double bare[BARE_COUNT];
    for (enum row_id id = RATE; id <= RATE_LOSSY; id++)
        if (wanted(b, id) && bare_measure(b, BARE_RING, bare))
            compare_row(repetition, b, id, bare_name(BARE_RING), bare[BARE_RING]);
}

static void idle_rows(const struct bench *b) {
    struct idle idle;
    if (!any_wanted(b, IDLE_WAKEUPS, IDLE_RESIDENT))
        return;
    progress(b->repetitions - 1, b, "idle daemon");
    if (!idle_measure(b, b->quick ? 1 : 5, &idle))
        return;
    const double figures[] = { idle.wakeups, idle.cpu_ns, idle.resident_mib };
    for (enum row_id id = IDLE_WAKEUPS; id <= IDLE_RESIDENT; id++)
        if (wanted(b, id))
            row_add(&rows[id], figures[id - IDLE_WAKEUPS], 0);
}

static void run(const struct bench *b) {
    for (int i = 0; i < b->repetitions; i++) {
        spin_rows(i, b);
        loan_rows(i, b);
        rate_rows(i, b);
        sleep_rows(i, b);
    }
    idle_rows(b);
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

/* ---- start */

static bool number(const char *text, int *ret) {
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno || *end || end == text || n < 1 || n > REPETITIONS_MAX)
        return false;
    *ret = (int)n;
    return true;
}

/* 0: go on; else the exit status + 1. */
static int parse(struct bench *b, int argc, char **argv) {
    static const struct option options[] = {
        { "quick", no_argument, NULL, 'q' }, { "repeat", required_argument, NULL, 'r' },
        { "only", required_argument, NULL, 'o' }, { "json", no_argument, NULL, 'j' },
        { "check", no_argument, NULL, 'c' }, { "help", no_argument, NULL, 'h' }, { 0 },
    };
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'q') {
            b->quick = true;
            b->repetitions = 1;
        } else if (c == 'o') {
            b->only = optarg;
        } else if (c == 'j') {
            b->json = true;
        } else if (c == 'c') {
            b->check = true;
        } else if (c == 'h') {
            fputs(help, stdout);
            return 1;
        } else if (c != 'r' || !number(optarg, &b->repetitions)) {
            fputs("shmps-bench: see --help\n", stderr);
            return 3;
        }
    }
    if (optind == argc)
        return 0;
    fail("unexpected \"%s\"; see --help", argv[optind]);
    return 3;
}

/* All lie in one build: tools/bench/shmps-bench, tools/bench/shmps-limits, pubsubd/pubsubd. */
static bool find_programs(struct bench *b) {
    char own[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);
    if (n < 0) {
        fail("/proc is needed: %s", strerror(errno));
        return false;
    }
    own[n] = '\0';
    *strrchr(own, '/') = '\0';
    const char *pubsubd = getenv("SHMPS_PUBSUBD");
    int room = (int)sizeof b->limits;
    bool fits = snprintf(b->limits, sizeof b->limits, "%s/shmps-limits", own) < room;
    if (pubsubd)
        fits = fits && snprintf(b->pubsubd, sizeof b->pubsubd, "%s", pubsubd) < room;
    else
        fits = fits && snprintf(b->pubsubd, sizeof b->pubsubd, "%s/../../pubsubd/pubsubd",
                                own) < room;
    if (fits && access(b->limits, X_OK) < 0) {
        fail("%s: %s (built where liburing is, on x86-64): nothing to compare with", b->limits,
             strerror(errno));
        b->limits[0] = '\0';
    }
    return fits;
}

int main(int argc, char **argv) {
    struct bench b = { .repetitions = 5 };
    int done = parse(&b, argc, argv);
    if (done)
        return done - 1;
    if (!find_programs(&b))
        return 1;
    prctl(PR_SET_CHILD_SUBREAPER, 1L); /* shmps-limits forks, and is stopped half-way */
    bool started = daemon_start(&b);
    if (started)
        run(&b);
    daemon_stop(&b);
    if (!started)
        return 1;
    if (b.json)
        report_json(stdout, &b, rows, ROWS);
    else
        report_table(stdout, rows, ROWS);
    if (b.check)
        report_check(b.json ? stderr : stdout, rows, ROWS);
    bool all_met = true, all_measured = true;
    for (size_t i = 0; i < ROWS; i++) {
        all_met = all_met && (rows[i].aim == NO_AIM || row_met(&rows[i]));
        all_measured = all_measured && (rows[i].n > 0 || !wanted(&b, (enum row_id)i));
    }
    return (b.check ? all_met : all_measured) ? 0 : 1;
}
