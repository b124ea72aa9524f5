#include "demo.h"
#include "samples.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REPORT_PERIOD_NS (SECOND_NS / 10)
#define JOIN_TIMEOUT_NS ((int64_t)(10 * SECOND_NS))

const char *const role_names[ROLE_COUNT] = {
    "host", "frames", "spin", "futex", "descriptor", "newcomer",
};

volatile sig_atomic_t child_stop;

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

/* ---- latencies */

void histogram_add(struct histogram *h, uint64_t value) {
    /* Below 16 each value has its bucket; above, the leading bit picks 16 buckets and the next
     * four bits one of them. */
    uint32_t shift = value < 16 ? 0 : 59 - (uint32_t)__builtin_clzll(value);
    uint32_t index =
        value < 16 ? (uint32_t)value : (shift + 1) * 16 + (uint32_t)(value >> shift & 15);
    h->bucket[index]++;
    h->n++;
    if (value > h->max)
        h->max = value;
}

uint64_t histogram_quantile(const struct histogram *h, uint32_t permille) {
    uint64_t want = (h->n * permille + 999) / 1000, below = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS && want != 0; i++) {
        below += h->bucket[i];
        if (below < want)
            continue;
        if (i < 16)
            return i;
        uint64_t top = ((UINT64_C(16) + i % 16 + 1) << (i / 16 - 1)) - 1;
        return top < h->max ? top : h->max;
    }
    return 0;
}

/* ---- telling the orchestrator */

void child_report(struct child *child, const struct report *report) {
    while (send(child->report_fd, report, sizeof(*report), MSG_NOSIGNAL) < 0)
        if (errno != EINTR)
            exit(1); /* nobody is left who could be told */
}

void child_fail(struct child *child, const char *what, ...) {
    struct report report = {.kind = REPORT_FAILED};
    va_list args;
    va_start(args, what);
    vsnprintf(report.text, sizeof(report.text), what, args);
    va_end(args);
    child_report(child, &report);
    exit(1);
}

int child_check(struct child *child, int result, const char *what) {
    if (result < 0)
        child_fail(child, "%s: %s: %s", what, shmps_error_name(result), shmps_error_detail());
    return result;
}

void child_report_topics(struct child *child, bool now) {
    uint64_t time_ns = now_ns();
    if (!now && time_ns < child->next_report_ns)
        return;
    child->next_report_ns = time_ns + REPORT_PERIOD_NS;
    for (size_t i = 0; i < child->n_tallies; i++) {
        const struct tally *tally = &child->tallies[i];
        struct report report = {.kind = REPORT_TOPIC,
                                .messages = tally->messages,
                                .bytes = tally->bytes,
                                .lost = tally->lost,
                                .p50_ns = histogram_quantile(&tally->latency, 500),
                                .p99_ns = histogram_quantile(&tally->latency, 990),
                                .max_ns = tally->latency.max};
        memcpy(report.text, tally->topic, sizeof(tally->topic));
        child_report(child, &report);
    }
}

/* ---- counting */

struct tally *child_tally(struct child *child, const char *topic) {
    for (size_t i = 0; i < child->n_tallies; i++)
        if (strcmp(child->tallies[i].topic, topic) == 0)
            return &child->tallies[i];
    if (child->n_tallies == DEMO_TOPICS_MAX)
        child_fail(child, "more than %d topics", DEMO_TOPICS_MAX);
    struct tally *tally = &child->tallies[child->n_tallies++];
    snprintf(tally->topic, sizeof(tally->topic), "%s", topic);
    return tally;
}

void child_note(struct child *child, struct tally *tally, const void *data, size_t bytes,
                uint64_t publisher, uint64_t seq, uint64_t tag) {
    struct record_line line = {.topic = tally->topic,
                               .publisher = publisher,
                               .seq = seq,
                               .bytes = bytes,
                               .tag = tag,
                               .hash = record_hash(data, bytes)};
    if (record_add(&child->record, &line) < 0)
        child_fail(child, "cannot write its record: %s", strerror(errno));
    tally->messages++;
    tally->bytes += bytes;
}

/* ---- publishers */

void source_open(struct child *child, struct source *source, const char *topic,
                 uint64_t message_bytes, uint32_t depth) {
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps_publisher_stats stats = {.size = sizeof(stats)};
    options.message_bytes = message_bytes;
    options.depth = depth;
    child_check(child, shmps_publisher_open(child->bus, topic, &options, &source->pub), topic);
    child_check(child, shmps_publisher_stats(source->pub, &stats), topic);
    source->tally = child_tally(child, topic);
    source->id = stats.id;
}

void source_wait_subscribers(struct child *child, struct source *sources, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (child_check(child,
                        shmps_publisher_wait_subscribers(sources[i].pub, DEMO_EARLY_SUBSCRIBERS,
                                                         JOIN_TIMEOUT_NS),
                        sources[i].tally->topic) != 0)
            child_fail(child, "%s: its %d subscribers did not come", sources[i].tally->topic,
                       DEMO_EARLY_SUBSCRIBERS);
}

void source_publish(struct child *child, struct source *source, const void *data, size_t bytes,
                    uint64_t tag) {
    int result = shmps_publish(source->pub, data, bytes, tag, SHMPS_FOREVER);
    if (child_check(child, result, source->tally->topic) != 0)
        child_fail(child, "%s: publish says %s", source->tally->topic, shmps_error_name(result));
    child_note(child, source->tally, data, bytes, source->id, source->tally->messages, tag);
}

void source_close(struct source *source, struct report *done) {
    struct shmps_publisher_stats stats = {.size = sizeof(stats)};
    if (shmps_publisher_stats(source->pub, &stats) == 0) {
        done->stalls += stats.stalls;
        done->wakes += stats.wakes;
    }
    shmps_publisher_close(source->pub);
}

void source_beat(uint64_t *beat_ns, uint32_t hz) {
    uint64_t period_ns = SECOND_NS / hz, now = now_ns();
    *beat_ns += period_ns;
    if (*beat_ns < now)
        *beat_ns = now;
    struct timespec t = {.tv_sec = (time_t)(*beat_ns / SECOND_NS),
                         .tv_nsec = (long)(*beat_ns % SECOND_NS)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL); /* SIGTERM ends it early: fine */
}

/* ---- the frame around every role */

static void on_terminate(int signal_number) {
    (void)signal_number;
    child_stop = 1;
}

int child_main(enum role role, int report_fd, const char *record_path) {
    static void (*const mains[ROLE_COUNT])(struct child *, struct report *) = {
        host_main,       frames_main,     subscriber_main,
        subscriber_main, subscriber_main, subscriber_main,
    };
    struct child child = {.role = role, .report_fd = report_fd};
    struct report done = {.kind = REPORT_DONE};
    struct sigaction action = {.sa_handler = on_terminate};
    char heading[64], name[16];

    snprintf(name, sizeof(name), "demo-%s", role_names[role]);
    prctl(PR_SET_NAME, name);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* whatever ends the orchestrator, nobody is left behind */
    sigaction(SIGTERM, &action, NULL);
    child.tallies = calloc(DEMO_TOPICS_MAX, sizeof(*child.tallies));
    if (child.tallies == NULL)
        child_fail(&child, "out of memory");
    snprintf(heading, sizeof(heading),
             role < ROLE_FIRST_SUBSCRIBER ? "sent %s" : "received %s %s", role_names[role],
             role == ROLE_NEWCOMER ? "tail" : "all");
    if (record_open(&child.record, record_path, heading) < 0)
        child_fail(&child, "%s: %s", record_path, strerror(errno));
    child_check(&child, shmps_connect(&child.bus, NULL), "connect");

    mains[role](&child, &done);

    shmps_close(child.bus);
    if (record_close(&child.record) < 0)
        child_fail(&child, "%s: %s", record_path, strerror(errno));
    child_report_topics(&child, true);
    child_report(&child, &done);
    free(child.tallies);
    return 0;
}
