/* shmps top - what each topic does, interval by interval. A viewer. */
#include "interrupt.h"
#include "table.h"
#include "text.h"
#include "tool.h"
#include "view.h"

#include "base/process.h"

#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INTERVAL_NS INT64_C(1000000000)
#define RINGS_SHOWN 4 /* fills in a cell; the fullest first */

/* One look at all topics. */
struct look {
    uint64_t at_ns;
    struct view_topic *topics;
    size_t n;
};

/* A topic between two looks. */
struct row {
    const struct view_topic *topic;
    double messages_per_s, bytes_per_s;
    uint64_t lag, lost; /* of the subscriber for which it is worst; latest ones skip on purpose */
    uint32_t evicted;
    uint32_t n_fills;
    uint32_t *fills; /* of each ring in percent, the fullest first */
};

/* ---- figures */

/* Where one subscriber is in one ring. Below low all is overwritten: lost, though it may not have
 * noticed yet. */
static void count_cursor(struct row *row, const struct view_subscriber *subscriber,
                         const struct view_ring *ring, const struct view_cursor *cursor,
                         uint64_t *most_unread) {
    row->evicted += cursor->evicted;
    if (!view_cursor_readable(cursor, ring) || subscriber->policy == POLICY_LATEST)
        return;
    uint64_t lag = view_cursor_lag(cursor, ring);
    uint64_t lost = cursor->next < ring->seen.low ? ring->seen.low - cursor->next : 0;
    row->lag = lag > row->lag ? lag : row->lag;
    row->lost = lost > row->lost ? lost : row->lost;
    *most_unread = lag > *most_unread ? lag : *most_unread;
}

static int fullest_first(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x > y ? -1 : x < y;
}

/* How much of each ring somebody has still to read. */
static void count_rings(struct row *row) {
    const struct view_topic *topic = row->topic;
    row->fills = calloc(topic->n_rings + 1, sizeof(*row->fills));
    if (!row->fills)
        out_of_memory();
    for (uint32_t i = 0; i < topic->n_rings; i++) {
        const struct view_ring *ring = &topic->rings[i];
        uint64_t unread = 0;
        for (uint32_t k = 0; k < topic->n_subscribers; k++)
            count_cursor(row, &topic->subscribers[k], ring, &topic->subscribers[k].cursors[i],
                         &unread);
        if (ring->trouble)
            continue;
        uint32_t depth = ring->geometry.depth;
        unread = unread < depth ? unread : depth;
        row->fills[row->n_fills++] = (uint32_t)((unread * 100 + depth - 1) / depth);
    }
    qsort(row->fills, row->n_fills, sizeof(*row->fills), fullest_first);
}

static double rate(uint64_t before, uint64_t now, double seconds) {
    return now > before ? (double)(now - before) / seconds : 0;
}

/* A topic that was not there before began at 0. */
static void fill_row(struct row *row, const struct view_topic *topic, const struct look *before,
                     double seconds) {
    uint64_t messages = 0, bytes = 0;
    for (size_t i = 0; i < before->n; i++) {
        if (before->topics[i].info.serial != topic->info.serial)
            continue;
        messages = before->topics[i].messages;
        bytes = before->topics[i].bytes;
    }
    *row = (struct row){ .topic = topic };
    row->messages_per_s = rate(messages, topic->messages, seconds);
    row->bytes_per_s = rate(bytes, topic->bytes, seconds);
    count_rings(row);
}

/* ---- sorting */

static int by_number(double a, double b) {
    return a > b ? -1 : a < b;
}
static int by_rate(const void *a, const void *b) {
    return by_number(((const struct row *)a)->messages_per_s,
                     ((const struct row *)b)->messages_per_s);
}
static int by_bytes(const void *a, const void *b) {
    return by_number(((const struct row *)a)->bytes_per_s, ((const struct row *)b)->bytes_per_s);
}
static int by_memory(const void *a, const void *b) {
    return by_number((double)((const struct row *)a)->topic->memory_bytes,
                     (double)((const struct row *)b)->topic->memory_bytes);
}
static int by_lag(const void *a, const void *b) {
    return by_number((double)((const struct row *)a)->lag, (double)((const struct row *)b)->lag);
}
static int by_lost(const void *a, const void *b) {
    return by_number((double)((const struct row *)a)->lost, (double)((const struct row *)b)->lost);
}
static int by_refused(const void *a, const void *b) {
    return by_number((double)((const struct row *)a)->topic->info.refused,
                     (double)((const struct row *)b)->topic->info.refused);
}
static int by_topic(const void *a, const void *b) {
    return strcmp(((const struct row *)a)->topic->name, ((const struct row *)b)->topic->name);
}

static const struct sort {
    const char *name;
    int (*compare)(const void *a, const void *b);
} sorts[] = {
    { "rate", by_rate }, { "bytes", by_bytes }, { "memory", by_memory }, { "lag", by_lag },
    { "lost", by_lost }, { "refused", by_refused }, { "topic", by_topic },
};

static const struct sort *sort_find(const char *name) {
    if (!name)
        return &sorts[0];
    for (size_t i = 0; i < sizeof(sorts) / sizeof(sorts[0]); i++)
        if (strcmp(sorts[i].name, name) == 0)
            return &sorts[i];
    return NULL;
}

/* Equal ones stay in the order of their names: rows are. */
static void sort_rows(struct row *rows, size_t n, const struct sort *sort) {
    for (size_t i = 1; i < n; i++) {
        struct row row = rows[i];
        size_t k = i;
        for (; k > 0 && sort->compare(&row, &rows[k - 1]) < 0; k--)
            rows[k] = rows[k - 1];
        rows[k] = row;
    }
}

/* ---- printing */

static void print_json(const struct row *row, double seconds, const char *time) {
    struct json_object *o = json_object_new_object(), *fills = json_object_new_array();
    const struct view_topic *topic = row->topic;
    for (uint32_t i = 0; i < row->n_fills; i++)
        json_object_array_add(fills, json_object_new_uint64(row->fills[i]));
    json_object_object_add(o, "time", json_object_new_string(time));
    json_object_object_add(o, "interval_s", json_object_new_double(seconds));
    json_object_object_add(o, "topic", json_text(topic->name));
    json_object_object_add(o, "messages_per_s", json_object_new_double(row->messages_per_s));
    json_object_object_add(o, "bytes_per_s", json_object_new_double(row->bytes_per_s));
    json_object_object_add(o, "messages", json_object_new_uint64(topic->messages));
    json_object_object_add(o, "bytes", json_object_new_uint64(topic->bytes));
    json_object_object_add(o, "publishers", json_object_new_uint64(topic->info.publishers));
    json_object_object_add(o, "subscribers", json_object_new_uint64(topic->info.subscribers));
    json_object_object_add(o, "fill_percent", fills);
    json_object_object_add(o, "lag", json_object_new_uint64(row->lag));
    json_object_object_add(o, "lost", json_object_new_uint64(row->lost));
    json_object_object_add(o, "evicted", json_object_new_uint64(row->evicted));
    json_object_object_add(o, "refused", json_object_new_uint64(topic->info.refused));
    json_object_object_add(o, "memory_bytes", json_object_new_uint64(topic->memory_bytes));
    json_print(o);
}

static void add_fills(struct table *table, const struct row *row) {
    char text[RINGS_SHOWN * 8 + 16] = "-";
    size_t at = 0;
    for (uint32_t i = 0; i < row->n_fills && i < RINGS_SHOWN; i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%u%%", i ? "," : "",
                               row->fills[i]);
    if (row->n_fills > RINGS_SHOWN)
        snprintf(text + at, sizeof(text) - at, ",+%u", row->n_fills - RINGS_SHOWN);
    table_add(table, "%s", text);
}

static void print_table(const struct view *view, const struct row *rows, size_t n,
                        const char *time) {
    static const char *const titles[] = { "TOPIC", ">MSG/S", ">BYTES/S", ">PUB",
                                          ">SUB",  "FILL",   ">LAG",     ">LOST",
                                          ">EVICTED", ">REFUSED", ">MEMORY" };
    struct table table = TABLE(titles);
    for (size_t i = 0; i < n; i++) {
        const struct row *row = &rows[i];
        char *name = text_escape(row->topic->name);
        table_add(&table, "%s", name);
        table_add(&table, "%.0f", row->messages_per_s);
        table_add_size(&table, (uint64_t)row->bytes_per_s);
        table_add(&table, "%u", row->topic->info.publishers);
        table_add(&table, "%u", row->topic->info.subscribers);
        add_fills(&table, row);
        table_add(&table, "%llu", (unsigned long long)row->lag);
        table_add(&table, "%llu", (unsigned long long)row->lost);
        table_add(&table, "%u", row->evicted);
        table_add(&table, "%llu", (unsigned long long)row->topic->info.refused);
        table_add_size(&table, row->topic->memory_bytes);
        free(name);
    }
    printf("%s  instance %s, pubsubd %d%s, topics: %zu\n", time, view->instance,
           view->daemon_pid, view->daemon_alive ? "" : " (does not run)", n);
    table_print(&table, "");
    putchar('\n');
}

static enum exit_code print_look(const struct view *view, const struct arguments *args,
                                 const struct look *before, const struct look *now) {
    double seconds = (double)(now->at_ns - before->at_ns) / 1e9;
    enum exit_code code = EXIT_DONE;
    char time[TIME_TEXT_BYTES];
    struct row *rows = calloc(now->n + 1, sizeof(*rows));
    if (!rows)
        out_of_memory();
    time_text(now->at_ns, args->json, time);
    for (size_t i = 0; i < now->n; i++) {
        fill_row(&rows[i], &now->topics[i], before, seconds);
        if (view_report_trouble(&now->topics[i]))
            code = EXIT_ERROR;
    }
    sort_rows(rows, now->n, sort_find(args->sort));
    if (!args->json)
        print_table(view, rows, now->n, time);
    for (size_t i = 0; i < now->n; i++) {
        if (args->json)
            print_json(&rows[i], seconds, time);
        free(rows[i].fills);
    }
    free(rows);
    fflush(stdout); /* who reads the pipe waits for each interval */
    return code;
}

/* ---- the loop */

/* false: a signal came. */
static bool wait_until(uint64_t deadline_ns) {
    for (uint64_t now; !interrupt_signal() && (now = now_ns()) < deadline_ns;) {
        struct timespec left = { .tv_sec = (time_t)((deadline_ns - now) / 1000000000),
                                 .tv_nsec = (long)((deadline_ns - now) % 1000000000) };
        struct pollfd event = { .fd = interrupt_fd(), .events = POLLIN };
        ppoll(&event, 1, &left, NULL);
    }
    return interrupt_signal() == 0;
}

/* The directory is looked for each time: a daemon that was stopped and started has another one. */
static enum exit_code take_look(const struct arguments *args, struct view *view,
                                struct look *ret) {
    int r = view_open(view, args->instance);
    if (r < 0)
        return report_error(r, "cannot read the bus");
    ret->at_ns = now_ns();
    ret->topics = view_topics_read(view, &ret->n);
    return EXIT_DONE;
}

enum exit_code cmd_top(const struct arguments *args) {
    uint64_t interval_ns = (uint64_t)(args->interval_ns ? args->interval_ns : INTERVAL_NS);
    struct look before = { 0 }, now = { 0 };
    struct view view;
    if (!args->batch)
        return usage_error("top", "only batch mode is there: give -b");
    if (!sort_find(args->sort))
        return usage_error("top", "--sort takes rate, bytes, memory, lag, lost, refused or topic, "
                           "not '%s'", args->sort);
    interrupt_catch();
    enum exit_code code = take_look(args, &view, &before);
    if (code != EXIT_DONE)
        return code;
    view_report_daemon(&view);
    view_close(&view);
    uint64_t deadline = before.at_ns;
    for (uint64_t n = 0; args->count == 0 || n < args->count; n++) {
        deadline = deadline + interval_ns > now_ns() ? deadline + interval_ns : now_ns();
        if (!wait_until(deadline)) {
            code = interrupt_code();
            break;
        }
        enum exit_code looked = take_look(args, &view, &now);
        if (looked != EXIT_DONE) {
            code = looked;
            break;
        }
        if (print_look(&view, args, &before, &now) != EXIT_DONE)
            code = EXIT_ERROR;
        view_close(&view);
        view_topics_free(before.topics, before.n);
        before = now;
    }
    view_topics_free(before.topics, before.n);
    return code;
}
