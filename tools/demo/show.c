#include "show.h"
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BOLD "\033[1m"
#define GREEN "\033[32m"
#define RED "\033[31m"
#define PLAIN "\033[0m"

static const char *paint(const struct show *show, const char *colour) {
    return show->colour ? colour : "";
}

static double seconds(const struct stage *stage) {
    return (double)(now_ns() - stage->start_ns) / (double)SECOND_NS;
}

static double mebibytes(uint64_t bytes) {
    return (double)bytes / (1 << 20);
}

void show_open(struct show *show, bool json) {
    const char *terminal = getenv("TERM"), *no_color = getenv("NO_COLOR");
    bool rich = isatty(STDOUT_FILENO) && terminal != NULL && strcmp(terminal, "dumb") != 0;
    *show = (struct show){.mode = json ? SHOW_JSON : rich ? SHOW_TABLE : SHOW_LINES};
    show->colour = show->mode == SHOW_TABLE && (no_color == NULL || no_color[0] == '\0');
    show->before_ns = now_ns();
}

/* ---- JSON */

__attribute__((noreturn)) static void out_of_memory(void) {
    fputs("shmps-demo: out of memory for JSON\n", stderr);
    exit(1);
}

static struct json_object *json_map(void) {
    struct json_object *object = json_object_new_object();
    if (object == NULL)
        out_of_memory();
    return object;
}

static void json_add(struct json_object *object, const char *key, struct json_object *value) {
    if (value == NULL || json_object_object_add(object, key, value) != 0) /* NULL would be null */
        out_of_memory();
}

static void json_add_number(struct json_object *object, const char *key, uint64_t value) {
    json_add(object, key, json_object_new_uint64(value));
}

static void json_add_text(struct json_object *object, const char *key, const char *text) {
    json_add(object, key, json_object_new_string(text));
}

static void json_add_bool(struct json_object *object, const char *key, bool value) {
    json_add(object, key, json_object_new_boolean(value));
}

static struct json_object *json_event(const char *name) {
    struct json_object *object = json_map();
    json_add_text(object, "event", name);
    return object;
}

/* Print an object as one line, and free it. */
static void print_json(struct json_object *object) {
    const int form = JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE;
    const char *line = json_object_to_json_string_ext(object, form);
    if (line == NULL)
        out_of_memory();
    puts(line);
    fflush(stdout);
    json_object_put(object);
}

/* {"sent": N, "spin": N, ...}: messages so far. */
static struct json_object *json_messages(const struct stage *stage) {
    struct json_object *object = json_map();
    json_add_number(object, "sent", stage_sent(stage).messages);
    for (int role = ROLE_FIRST_SUBSCRIBER; role < ROLE_COUNT; role++)
        json_add_number(object, role_names[role], stage_totals(stage, (enum role)role).messages);
    return object;
}

/* ---- events */

static void wipe_table(struct show *show) {
    if (show->drawn != 0)
        printf("\033[%uA\033[J", show->drawn);
    show->drawn = 0;
}

void show_event(struct show *show, const struct stage *stage, const char *name,
                const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (show->mode == SHOW_JSON) {
        struct json_object *object = json_event(name);
        json_add(object, "time_s", json_object_new_double(seconds(stage)));
        json_add_text(object, "text", text);
        json_add_bool(object, "pubsubd", stage->daemon_ready);
        json_add(object, "messages", json_messages(stage));
        print_json(object);
        return;
    }
    wipe_table(show);
    printf("%s%5.1f s  %s%s\n", paint(show, BOLD), seconds(stage), text, paint(show, PLAIN));
    fflush(stdout);
}

/* ---- progress */

/* The rates of the last second or so: reports come too seldom for those of a tick. */
static void take_rates(struct show *show, const struct stage *stage) {
    uint64_t time_ns = now_ns();
    double elapsed_s = (double)(time_ns - show->before_ns) / (double)SECOND_NS;
    struct totals sent = stage_sent(stage);
    show->message_rate = (double)(sent.messages - show->before.messages) / elapsed_s;
    show->byte_rate = (double)(sent.bytes - show->before.bytes) / elapsed_s;
    for (int role = 0; role < ROLE_FIRST_SUBSCRIBER; role++)
        for (size_t i = 0; i < stage->members[role].n_topics; i++) {
            uint64_t *before = &show->topic_before[role][i];
            uint64_t messages = stage->members[role].topics[i].messages;
            show->topic_rate[role][i] = (double)(messages - *before) / elapsed_s;
            *before = messages;
        }
    show->before = sent;
    show->before_ns = time_ns;
}

static void print_line(const struct show *show, const struct stage *stage) {
    printf("%5.1f s  pubsubd %-7s  sent %7" PRIu64 " (%5.0f/s, %4.0f MiB/s)  received:",
           seconds(stage), stage->daemon_ready ? "runs" : "is dead", stage_sent(stage).messages,
           show->message_rate, show->byte_rate / (1 << 20));
    for (int role = ROLE_FIRST_SUBSCRIBER; role < ROLE_COUNT; role++)
        if (stage->members[role].ready)
            printf("  %s %" PRIu64, role_names[role],
                   stage_totals(stage, (enum role)role).messages);
    putchar('\n');
}

static const struct report *topic_of(const struct stage *stage, enum role role,
                                     const char *topic) {
    const struct member *member = &stage->members[role];
    for (size_t i = 0; i < member->n_topics; i++)
        if (strcmp(member->topics[i].text, topic) == 0)
            return &member->topics[i];
    return NULL;
}

/* Eleven columns: p50 and p99 in us. */
static void print_latency(const struct report *report) {
    char text[32] = "-";
    if (report != NULL)
        snprintf(text, sizeof(text), "%.0f/%.0f", (double)report->p50_ns / 1000,
                 (double)report->p99_ns / 1000);
    printf(" %11s", text);
}

/* The topics of a publisher, lines_max at most; how many. */
static unsigned print_topics(const struct show *show, const struct stage *stage,
                             enum role publisher, unsigned lines_max) {
    const struct member *member = &stage->members[publisher];
    unsigned n = 0;
    for (; n < member->n_topics && n < lines_max; n++) {
        const struct report *sent = &member->topics[n];
        printf("%-17.17s %7" PRIu64 " %5.0f", sent->text, sent->messages,
               show->topic_rate[publisher][n]);
        for (int role = ROLE_FIRST_SUBSCRIBER; role < ROLE_COUNT; role++)
            print_latency(topic_of(stage, (enum role)role, sent->text));
        putchar('\n');
    }
    return n;
}

static void print_table(struct show *show, const struct stage *stage) {
    struct winsize screen = {0};
    unsigned rows = DEMO_TOPICS_MAX;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &screen) == 0 && screen.ws_row > 8)
        rows = screen.ws_row - 6U;
    wipe_table(show);
    printf("%5.1f s  pubsubd %s%s%s, %.0f messages/s, %.0f MiB/s\n", seconds(stage),
           paint(show, stage->daemon_ready ? GREEN : RED),
           stage->daemon_ready ? "runs" : "is dead", paint(show, PLAIN), show->message_rate,
           show->byte_rate / (1 << 20));
    printf("%s%-17s %7s %5s %11s %11s %11s %11s%s\n", paint(show, BOLD), "p50/p99 in us", "sent",
           "/s", "spin", "futex", "descriptor", "newcomer", paint(show, PLAIN));
    unsigned lines = print_topics(show, stage, ROLE_FRAMES, rows);
    lines += print_topics(show, stage, ROLE_HOST, rows - lines);
    printf("%-17s %7" PRIu64 "      ", "messages", stage_sent(stage).messages);
    for (int role = ROLE_FIRST_SUBSCRIBER; role < ROLE_COUNT; role++)
        printf(" %11" PRIu64, stage_totals(stage, (enum role)role).messages);
    printf("\n");
    show->drawn = lines + 3;
}

static void print_progress_object(const struct stage *stage) {
    struct json_object *topics = json_map();
    for (int role = 0; role < ROLE_COUNT; role++) {
        struct json_object *of_role = json_map();
        for (size_t i = 0; i < stage->members[role].n_topics; i++) {
            const struct report *report = &stage->members[role].topics[i];
            struct json_object *numbers = json_map();
            json_add_number(numbers, "messages", report->messages);
            if (role >= ROLE_FIRST_SUBSCRIBER) {
                json_add_number(numbers, "p50_ns", report->p50_ns);
                json_add_number(numbers, "p99_ns", report->p99_ns);
            }
            json_add(of_role, report->text, numbers);
        }
        json_add(topics, role_names[role], of_role);
    }
    struct json_object *object = json_event("progress");
    json_add(object, "time_s", json_object_new_double(seconds(stage)));
    json_add_bool(object, "pubsubd", stage->daemon_ready);
    json_add(object, "messages", json_messages(stage));
    json_add(object, "topics", topics);
    print_json(object);
}

void show_progress(struct show *show, const struct stage *stage) {
    uint64_t time_ns = now_ns();
    bool second_is_over = time_ns - show->before_ns >= SECOND_NS - STAGE_TICK_NS / 2;
    if (stage_sent(stage).messages == 0) { /* nothing to show yet */
        show->before_ns = time_ns;
        return;
    }
    if (second_is_over)
        take_rates(show, stage);
    if (show->mode == SHOW_TABLE)
        print_table(show, stage);
    else if (second_is_over && show->mode == SHOW_LINES)
        print_line(show, stage);
    else if (second_is_over)
        print_progress_object(stage);
    fflush(stdout);
}

/* ---- the outcome */

static const struct comparison *row_of(const struct outcome *outcome, enum role role,
                                       const char *topic) {
    for (size_t i = 0; i < outcome->records.n_rows; i++) {
        const struct comparison *row = &outcome->records.rows[i];
        if (strcmp(row->subscriber, role_names[role]) == 0 && strcmp(row->topic, topic) == 0)
            return row;
    }
    return NULL;
}

static void print_outcome_topic(const struct stage *stage, const struct outcome *outcome,
                                const struct report *sent) {
    printf("%-18s %8" PRIu64, sent->text, sent->messages);
    for (int role = ROLE_FIRST_SUBSCRIBER; role < ROLE_COUNT; role++) {
        const struct report *got = topic_of(stage, (enum role)role, sent->text);
        const struct comparison *row = row_of(outcome, (enum role)role, sent->text);
        printf("%*s %-10s", role == ROLE_FIRST_SUBSCRIBER ? 0 : 27, "", role_names[role]);
        if (got != NULL && row != NULL)
            printf(" %8" PRIu64 " %5" PRIu64 " %9.1f %9.1f %9.1f", row->received,
                   row->missing + row->wrong + row->extra, (double)got->p50_ns / 1000,
                   (double)got->p99_ns / 1000, (double)got->max_ns / 1000);
        putchar('\n');
    }
}

static void print_members(const struct stage *stage, const struct outcome *outcome) {
    for (int role = 0; role < ROLE_COUNT; role++) {
        const struct member *member = &stage->members[role];
        const struct report *result = &member->result;
        if (role < ROLE_FIRST_SUBSCRIBER)
            printf("%-10s waited for room %" PRIu64 " times, woke sleepers %" PRIu64 " times\n",
                   role_names[role], result->stalls, result->wakes);
        else
            printf("%-10s waited in the kernel %" PRIu64 " times, copied %" PRIu64
                   " large samples, received %" PRIu64 " while no pubsubd ran\n",
                   role_names[role], result->sleeps, result->copied,
                   outcome->received_without_daemon[role]);
    }
}

static void print_outcome(struct show *show, const struct stage *stage,
                          const struct outcome *outcome) {
    struct totals sent = stage_sent(stage);
    wipe_table(show);
    printf("\n%s%-18s %8s %-10s %8s %5s %9s %9s %9s%s\n", paint(show, BOLD), "topic", "sent",
           "subscriber", "received", "lost", "p50 us", "p99 us", "max us", paint(show, PLAIN));
    for (int role = ROLE_FRAMES; role >= ROLE_HOST; role--)
        for (size_t i = 0; i < stage->members[role].n_topics; i++)
            print_outcome_topic(stage, outcome, &stage->members[role].topics[i]);
    putchar('\n');
    print_members(stage, outcome);
    printf("\nrecords: %s/{sent,received}.*.txt; again: shmps-demo compare %s\n", stage->out,
           stage->out);
    if (outcome->good)
        printf("%snothing was lost: %" PRIu64 " messages, %.0f MiB sent; all checksums agree%s\n",
               paint(show, GREEN), sent.messages, mebibytes(sent.bytes), paint(show, PLAIN));
    else
        printf("%sFAILED: %s%s\n", paint(show, RED), outcome->reason, paint(show, PLAIN));
}

static void print_row_object(const struct stage *stage, const struct comparison *row) {
    struct json_object *object = json_event("topic");
    json_add_text(object, "topic", row->topic);
    json_add_text(object, "subscriber", row->subscriber);
    json_add_number(object, "sent", row->sent);
    json_add_number(object, "received", row->received);
    json_add_number(object, "lost", row->missing);
    json_add_number(object, "wrong", row->wrong);
    json_add_number(object, "extra", row->extra);
    for (int role = ROLE_FIRST_SUBSCRIBER; role < ROLE_COUNT; role++) {
        const struct report *got = topic_of(stage, (enum role)role, row->topic);
        if (got == NULL || strcmp(role_names[role], row->subscriber) != 0)
            continue;
        json_add_number(object, "p50_ns", got->p50_ns);
        json_add_number(object, "p99_ns", got->p99_ns);
        json_add_number(object, "max_ns", got->max_ns);
    }
    print_json(object);
}

static void print_outcome_objects(const struct stage *stage, const struct outcome *outcome) {
    for (size_t i = 0; i < outcome->records.n_rows; i++)
        print_row_object(stage, &outcome->records.rows[i]);

    struct json_object *without_daemon = json_map(), *files = json_map();
    json_add_number(without_daemon, "sent", outcome->sent_without_daemon);
    for (int role = 0; role < ROLE_COUNT; role++) {
        json_add_text(files, role_names[role], stage->members[role].record);
        if (role >= ROLE_FIRST_SUBSCRIBER)
            json_add_number(without_daemon, role_names[role],
                            outcome->received_without_daemon[role]);
    }
    struct json_object *object = json_event("result");
    json_add_bool(object, "ok", outcome->good);
    json_add_text(object, "reason", outcome->reason);
    json_add_text(object, "instance", stage->instance);
    json_add_number(object, "sent", stage_sent(stage).messages);
    json_add_number(object, "bytes", stage_sent(stage).bytes);
    json_add(object, "without_daemon", without_daemon);
    json_add_text(object, "directory", stage->out);
    json_add(object, "files", files);
    print_json(object);
}

void show_outcome(struct show *show, const struct stage *stage, const struct outcome *outcome) {
    if (show->mode == SHOW_JSON)
        print_outcome_objects(stage, outcome);
    else
        print_outcome(show, stage, outcome);
    fflush(stdout);
}
