#include "compare.h"
#include "record.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* What was sent on a topic; index = sequence. */
struct sent_topic {
    char name[COMPARE_NAME_BYTES];
    uint64_t publisher;
    struct record_line *lines;
    size_t n, room;
    struct comparison *row; /* of the subscriber being judged */
    uint64_t next;          /* sequence that must come next */
    bool started;
};

struct compare {
    struct sent_topic *topics;
    size_t n_topics;
    struct compare_result *result;
};

static bool complain(struct compare *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(c->result->complaint, sizeof(c->result->complaint), format, args);
    va_end(args);
    return false;
}

static struct sent_topic *find_topic(struct compare *c, const char *name) {
    for (size_t i = 0; i < c->n_topics; i++)
        if (strcmp(c->topics[i].name, name) == 0)
            return &c->topics[i];
    return NULL;
}

static void *grow(void *array, size_t *room, size_t size) {
    *room = *room != 0 ? 2 * *room : 64;
    void *larger = reallocarray(array, *room, size);
    if (larger == NULL) {
        fputs("shmps-demo: out of memory\n", stderr);
        exit(1);
    }
    return larger;
}

/* ---- the files */

typedef bool (*line_fn)(struct compare *c, const char *path, const struct record_line *line,
                        void *user);

/* Every line of a file between its heading, already read, and its end, which must be there. */
static bool read_lines(struct compare *c, FILE *file, const char *path, line_fn each,
                       void *user) {
    char text[512];
    uint64_t lines = 0, end;
    while (fgets(text, sizeof(text), file) != NULL) {
        struct record_line line;
        text[strcspn(text, "\n")] = '\0';
        if (sscanf(text, "# end %" SCNu64, &end) == 1)
            return end == lines || complain(c, "%s: %" PRIu64 " lines, but its end says %" PRIu64,
                                            path, lines, end);
        lines++;
        if (record_parse(text, &line) < 0)
            return complain(c, "%s: line %" PRIu64 " is not a record", path, lines + 1);
        if (!each(c, path, &line, user))
            return false;
    }
    return complain(c, "%s: it has no end; its process died before it was done", path);
}

static bool add_sent(struct compare *c, const char *path, const struct record_line *line,
                     void *user) {
    size_t *room = user;
    struct sent_topic *topic = find_topic(c, line->topic);
    if (topic == NULL) {
        if (c->n_topics == *room)
            c->topics = grow(c->topics, room, sizeof(*c->topics));
        topic = &c->topics[c->n_topics++];
        *topic = (struct sent_topic){.publisher = line->publisher};
        snprintf(topic->name, sizeof(topic->name), "%s", line->topic);
    }
    if (line->seq != topic->n || line->publisher != topic->publisher)
        return complain(c, "%s: %s: the publisher's own sequence has a gap at %zu", path,
                        line->topic, topic->n);
    if (topic->n == topic->room)
        topic->lines = grow(topic->lines, &topic->room, sizeof(*topic->lines));
    topic->lines[topic->n] = *line;
    topic->lines[topic->n++].topic = topic->name;
    return true;
}

static bool judge_received(struct compare *c, const char *path, const struct record_line *line,
                           void *user) {
    const bool *tail = user;
    struct sent_topic *topic = find_topic(c, line->topic);
    if (topic == NULL)
        return complain(c, "%s: nobody sent on the topic %s", path, line->topic);
    struct comparison *row = topic->row;
    if (*tail && !topic->started)
        topic->next = line->seq;
    topic->started = true;
    if (line->seq >= topic->n || line->seq < topic->next || line->publisher != topic->publisher) {
        row->extra++;
        return true;
    }
    row->missing += line->seq - topic->next;
    topic->next = line->seq + 1;
    const struct record_line *sent = &topic->lines[line->seq];
    if (sent->bytes == line->bytes && sent->tag == line->tag && sent->hash == line->hash)
        row->received++;
    else
        row->wrong++;
    return true;
}

static void sum_up(struct compare *c, struct sent_topic *topic, bool tail) {
    struct compare_result *result = c->result;
    struct comparison *row = topic->row;
    row->missing += topic->n - topic->next;
    if (tail && !topic->started)
        row->missing = topic->n; /* a newcomer that never received any has proved nothing */
    row->sent = row->received + row->wrong + row->missing;
    result->received += row->received;
    result->missing += row->missing;
    result->wrong += row->wrong;
    result->extra += row->extra;
}

/* "NAME all" or "NAME tail" of the heading. */
static bool judge_file(struct compare *c, FILE *file, const char *path, struct comparison *rows) {
    char text[COMPARE_NAME_BYTES], name[COMPARE_NAME_BYTES], extent[8];
    if (fgets(text, sizeof(text), file) == NULL ||
        sscanf(text, "# shmps-demo received %255s %7s", name, extent) != 2 ||
        (strcmp(extent, "all") != 0 && strcmp(extent, "tail") != 0))
        return complain(c, "%s: it does not begin with \"# shmps-demo received NAME all|tail\"",
                        path);
    bool tail = strcmp(extent, "tail") == 0;
    for (size_t i = 0; i < c->n_topics; i++) {
        struct sent_topic *topic = &c->topics[i];
        topic->row = &rows[i];
        topic->next = 0;
        topic->started = false;
        memcpy(rows[i].subscriber, name, sizeof(name));
        memcpy(rows[i].topic, topic->name, sizeof(topic->name));
    }
    if (!read_lines(c, file, path, judge_received, &tail))
        return false;
    for (size_t i = 0; i < c->n_topics; i++)
        sum_up(c, &c->topics[i], tail);
    return true;
}

/* The heading of a file that a publisher wrote, then its lines. */
static bool load_file(struct compare *c, FILE *file, const char *path, size_t *room) {
    char text[COMPARE_NAME_BYTES];
    if (fgets(text, sizeof(text), file) == NULL || strncmp(text, "# shmps-demo sent ", 18) != 0)
        return complain(c, "%s: it does not begin with \"# shmps-demo sent NAME\"", path);
    return read_lines(c, file, path, add_sent, room);
}

static int is_sent(const struct dirent *entry) {
    return strncmp(entry->d_name, "sent.", 5) == 0;
}
static int is_received(const struct dirent *entry) {
    return strncmp(entry->d_name, "received.", 9) == 0;
}

static bool load_sent(struct compare *c, const char *directory, struct dirent **files,
                      int n_files) {
    size_t room = 0;
    for (int i = 0; i < n_files; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s/%s", directory, files[i]->d_name);
        FILE *file = fopen(path, "re");
        if (file == NULL)
            return complain(c, "%s: %s", path, strerror(errno));
        bool good = load_file(c, file, path, &room);
        fclose(file);
        if (!good)
            return false;
    }
    for (size_t i = 0; i < c->n_topics; i++)
        c->result->sent += c->topics[i].n;
    return c->n_topics != 0 || complain(c, "%s: nothing was sent", directory);
}

static bool judge_received_files(struct compare *c, const char *directory, struct dirent **files,
                                 int n_files) {
    struct compare_result *result = c->result;
    result->n_rows = (size_t)n_files * c->n_topics;
    result->rows = calloc(result->n_rows, sizeof(*result->rows));
    if (result->rows == NULL)
        return complain(c, "out of memory");
    for (int i = 0; i < n_files; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s/%s", directory, files[i]->d_name);
        FILE *file = fopen(path, "re");
        if (file == NULL)
            return complain(c, "%s: %s", path, strerror(errno));
        bool good = judge_file(c, file, path, &result->rows[(size_t)i * c->n_topics]);
        fclose(file);
        if (!good)
            return false;
    }
    return result->missing + result->wrong + result->extra == 0;
}

/* ---- */

static void free_names(struct dirent **files, int n_files) {
    for (int i = 0; i < n_files; i++)
        free(files[i]);
    free(files);
}

bool compare_directory(const char *directory, struct compare_result *ret) {
    struct compare c = {.result = ret};
    struct dirent **sent = NULL, **received = NULL;
    *ret = (struct compare_result){0};
    int n_sent = scandir(directory, &sent, is_sent, alphasort);
    int n_received = scandir(directory, &received, is_received, alphasort);
    bool good = n_sent > 0 && n_received > 0;
    if (!good)
        complain(&c, "%s: no sent.*.txt or no received.*.txt there; shmps-demo --out makes them",
                 directory);
    good = good && load_sent(&c, directory, sent, n_sent);
    good = good && judge_received_files(&c, directory, received, n_received);
    for (size_t i = 0; i < c.n_topics; i++)
        free(c.topics[i].lines);
    free(c.topics);
    free_names(sent, n_sent);
    free_names(received, n_received);
    return good;
}

void compare_free(struct compare_result *result) {
    free(result->rows);
}

int compare_main(const char *directory) {
    struct compare_result result;
    bool good = compare_directory(directory, &result);
    for (size_t i = 0; i < result.n_rows; i++) {
        const struct comparison *row = &result.rows[i];
        printf("%-12s %-24s sent %8" PRIu64 "  received %8" PRIu64 "  missing %" PRIu64
               "  wrong %" PRIu64 "  extra %" PRIu64 "\n",
               row->subscriber, row->topic, row->sent, row->received, row->missing, row->wrong,
               row->extra);
    }
    if (result.complaint[0] != '\0')
        fprintf(stderr, "shmps-demo: %s\n", result.complaint);
    puts(good ? "the records agree: nothing was lost" : "the records DISAGREE");
    compare_free(&result);
    return good ? 0 : 1;
}
