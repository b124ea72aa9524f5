/* shmps dump - the black box: the last samples of each topic, out of its rings. A viewer; each
 * sample is copied and then checked, as an observer does (DESIGN 3, I4 c). */
#include "text.h"
#include "tool.h"
#include "view.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_DEFAULT 10
#define BYTES_DEFAULT 256
#define HEX_COLUMNS 16
#define INDENT "    "

struct dump_ring {
    const struct ring_info *info;
    struct ring_geometry geometry;
    struct segment_map map;
    uint64_t end; /* what is committed */
};

/* A sample that is to be told. */
struct dump_pick {
    uint64_t time_ns, sequence;
    uint32_t ring;
};

struct dump {
    const struct arguments *args;
    const struct view_topic *topic;
    struct dump_ring *rings;
    struct dump_pick *picks;
    size_t n_picks;
    uint64_t *told; /* of each publisher, by its newest ring: the sequence after the last told */
    char *buffer;
    size_t room;
};

static void *allocated(size_t n, size_t bytes) {
    void *p = calloc(n > 0 ? n : 1, bytes);
    if (!p)
        out_of_memory();
    return p;
}

/* ---- choosing */

static int by_time(const void *a, const void *b) {
    const struct dump_pick *x = a, *y = b;
    if (x->time_ns != y->time_ns)
        return x->time_ns < y->time_ns ? -1 : 1;
    if (x->ring != y->ring)
        return x->ring > y->ring ? -1 : 1; /* a topic lists its newest ring first */
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

static uint64_t count_of(const struct arguments *args) {
    return args->count ? args->count : COUNT_DEFAULT;
}

static uint64_t bytes_of(const struct arguments *args) {
    return args->bytes ? args->bytes : args->raw || args->json ? UINT64_MAX : BYTES_DEFAULT;
}

/* The newest samples of one ring. */
static void pick_ring(struct dump *dump, uint32_t ring) {
    const struct dump_ring *of = &dump->rings[ring];
    uint64_t n = count_of(dump->args);
    n = n < of->geometry.depth ? n : of->geometry.depth;
    uint64_t first = of->end - of->geometry.start > n ? of->end - n : of->geometry.start;
    for (uint64_t s = first; s < of->end; s++) {
        struct ring_observed_sample seen;
        if (ring_observe_sample(of->map.base, &of->geometry, s, NULL, 0, &seen) == RING_SEEN)
            dump->picks[dump->n_picks++] = (struct dump_pick){ seen.time_ns, s, ring };
    }
}

/* The newest samples of the topic, over all its rings. */
static void pick(struct dump *dump) {
    size_t room = 0, n = dump->topic->n_rings;
    for (size_t i = 0; i < n; i++)
        room += dump->rings[i].geometry.depth; /* 0: it is not mapped */
    dump->picks = allocated(room, sizeof(*dump->picks));
    for (uint32_t i = 0; i < n; i++)
        if (dump->rings[i].map.base)
            pick_ring(dump, i);
    qsort(dump->picks, dump->n_picks, sizeof(*dump->picks), by_time);
    uint64_t count = count_of(dump->args);
    if (dump->n_picks > count) {
        memmove(dump->picks, dump->picks + (dump->n_picks - count), count * sizeof(*dump->picks));
        dump->n_picks = count;
    }
}

/* ---- telling a payload */

static bool is_printable(const char *data, size_t bytes) {
    for (size_t i = 0; i < bytes;) {
        uint32_t character;
        size_t n = utf8_next(data + i, bytes - i, &character);
        if (n == 0 || (character < 0x20 && character != '\n' && character != '\t') ||
            (character >= 0x7f && character < 0xa0))
            return false;
        i += n;
    }
    return true;
}

/* Without the beginning of a character that was cut off. */
static size_t whole_characters(const char *data, size_t bytes) {
    for (size_t back = 1; back <= 3 && back <= bytes; back++) {
        uint32_t character;
        unsigned char c = (unsigned char)data[bytes - back];
        if (c >= 0xc0)
            return utf8_next(data + bytes - back, back, &character) ? bytes : bytes - back;
    }
    return bytes;
}

static void print_text(const char *data, size_t bytes) {
    for (size_t i = 0; i < bytes;) {
        const char *end = memchr(data + i, '\n', bytes - i);
        size_t n = end ? (size_t)(end - data) - i : bytes - i;
        fputs(INDENT, stdout);
        print_payload(stdout, data + i, n);
        putchar('\n');
        i += n + 1;
    }
}

static void print_hex(const unsigned char *data, size_t bytes) {
    for (size_t at = 0; at < bytes; at += HEX_COLUMNS) {
        printf(INDENT "%08zx ", at);
        for (size_t i = at; i < at + HEX_COLUMNS; i++)
            if (i < bytes)
                printf(" %02x", data[i]);
            else
                fputs("   ", stdout);
        fputs("  |", stdout);
        for (size_t i = at; i < bytes && i < at + HEX_COLUMNS; i++)
            putchar(data[i] >= 0x20 && data[i] < 0x7f ? data[i] : '.');
        puts("|");
    }
}

static void print_readable(const char *data, size_t shown, uint64_t bytes) {
    size_t text = shown < bytes ? whole_characters(data, shown) : shown;
    if (is_printable(data, text)) {
        print_text(data, text);
        shown = text;
    } else {
        print_hex((const unsigned char *)data, shown);
    }
    if (shown < bytes)
        printf(INDENT "... %llu more bytes\n", (unsigned long long)(bytes - shown));
}

/* ---- telling a sample */

static struct json_object *sample_json(const struct dump *dump, const struct ring_info *info,
                                       uint64_t lost) {
    struct json_object *o = json_object_new_object();
    char command[VIEW_COMMAND_BYTES];
    view_command(&info->owner, command);
    json_object_object_add(o, "topic", json_text(dump->topic->name));
    json_object_object_add(o, "publisher", json_object_new_uint64(info->publisher));
    json_object_object_add(o, "pid", json_object_new_int(info->owner.pid));
    json_object_object_add(o, "command", json_text(command));
    json_object_object_add(o, "lost", json_object_new_uint64(lost));
    return o;
}

/* `lost` samples of a publisher, of which the last is before `next`, are not there any more. */
static void print_gap(const struct dump *dump, const struct ring_info *info, uint64_t next,
                      uint64_t lost) {
    char *name = text_escape(dump->topic->name);
    printf("--- gap: %llu messages of %s are missing, seq %llu to %llu of process %d\n",
           (unsigned long long)lost, name, (unsigned long long)(next - lost),
           (unsigned long long)(next - 1), (int)info->owner.pid);
    free(name);
}

static void print_line(const struct dump *dump, const struct dump_pick *pick,
                       const struct ring_info *info, const struct ring_observed_sample *seen) {
    char time[TIME_TEXT_BYTES] = "(no time)", command[VIEW_COMMAND_BYTES];
    view_command(&info->owner, command);
    char *name = text_escape(dump->topic->name), *escaped = text_escape(command);
    if (seen->time_ns)
        time_text(seen->time_ns, false, time);
    printf("%s  %s  seq %llu  pid %d %s  %llu bytes  tag %llu\n", time, name,
           (unsigned long long)pick->sequence, (int)info->owner.pid, escaped,
           (unsigned long long)seen->bytes, (unsigned long long)seen->tag);
    free(escaped);
    free(name);
}

static void print_json(const struct dump *dump, const struct dump_pick *pick,
                       const struct ring_info *info, const struct ring_observed_sample *seen,
                       uint64_t lost) {
    struct json_object *o = sample_json(dump, info, lost);
    json_object_object_add(o, "seq", json_object_new_uint64(pick->sequence));
    json_object_object_add(o, "time_ns", json_object_new_uint64(seen->time_ns));
    if (seen->time_ns) {
        char time[TIME_TEXT_BYTES];
        time_text(seen->time_ns, true, time);
        json_object_object_add(o, "time", json_object_new_string(time));
    }
    json_object_object_add(o, "tag", json_object_new_uint64(seen->tag));
    json_object_object_add(o, "bytes", json_object_new_uint64(seen->bytes));
    size_t shown = seen->bytes < dump->room ? seen->bytes : dump->room;
    if (shown < seen->bytes && utf8_valid(dump->buffer, whole_characters(dump->buffer, shown)))
        shown = whole_characters(dump->buffer, shown);
    json_add_bytes(o, "payload", dump->buffer, shown);
    json_print(o);
}

/* Where the sequence after the last that was told of a ring's publisher is kept. */
static uint64_t *told_of(const struct dump *dump, uint32_t ring) {
    uint32_t first = 0;
    while (dump->rings[first].info->publisher != dump->rings[ring].info->publisher)
        first++;
    return &dump->told[first];
}

static void tell_sample(const struct dump *dump, const struct dump_pick *pick) {
    const struct dump_ring *ring = &dump->rings[pick->ring];
    struct ring_observed_sample seen;
    if (ring_observe_sample(ring->map.base, &ring->geometry, pick->sequence, dump->buffer,
                            dump->room, &seen) != RING_SEEN)
        return; /* overwritten since it was chosen: a gap before the next */
    uint64_t *told = told_of(dump, pick->ring);
    uint64_t lost = *told && pick->sequence > *told ? pick->sequence - *told : 0;
    *told = pick->sequence + 1;
    size_t shown = seen.bytes < dump->room ? seen.bytes : dump->room;
    if (dump->args->json) {
        print_json(dump, pick, ring->info, &seen, lost);
    } else if (dump->args->raw) {
        fwrite(dump->buffer, 1, shown, stdout);
        putchar('\n');
    } else {
        if (lost)
            print_gap(dump, ring->info, pick->sequence, lost);
        print_line(dump, pick, ring->info, &seen);
        print_readable(dump->buffer, shown, seen.bytes);
    }
}

/* What is missing at the end of a publisher, of which something was told. */
static void tell_end(const struct dump *dump, uint32_t ring) {
    uint64_t told = *told_of(dump, ring), end = 0;
    if (told_of(dump, ring) != &dump->told[ring] || told == 0)
        return;
    for (uint32_t i = ring; i < dump->topic->n_rings; i++)
        if (told_of(dump, i) == &dump->told[ring] && dump->rings[i].end > end)
            end = dump->rings[i].end;
    if (end <= told || dump->args->raw)
        return;
    if (dump->args->json)
        json_print(sample_json(dump, dump->rings[ring].info, end - told));
    else
        print_gap(dump, dump->rings[ring].info, end, end - told);
}

/* ---- a topic */

/* Map its rings, and find the largest payload. One that cannot be mapped has been reported with
 * the topic's trouble, or went just now. */
static void open_rings(const struct view *view, struct dump *dump) {
    for (uint32_t i = 0; i < dump->topic->n_rings; i++) {
        struct dump_ring *ring = &dump->rings[i];
        ring->info = &dump->topic->rings[i].info;
        if (view_ring_map(view, ring->info, &ring->geometry, &ring->map) < 0) {
            ring->geometry = (struct ring_geometry){ 0 };
            continue;
        }
        ring->end = ring_committed_end(ring->map.base, &ring->geometry);
        uint64_t largest = ring->geometry.block_bytes > ring->geometry.inline_bytes
                               ? ring->geometry.block_bytes
                               : ring->geometry.inline_bytes;
        uint64_t wanted = bytes_of(dump->args);
        wanted = wanted < largest ? wanted : largest;
        dump->room = wanted > dump->room ? wanted : dump->room;
    }
}

static void dump_topic(const struct view *view, const struct arguments *args,
                       const struct view_topic *topic) {
    struct dump dump = { .args = args, .topic = topic };
    dump.rings = allocated(topic->n_rings, sizeof(*dump.rings));
    dump.told = allocated(topic->n_rings, sizeof(*dump.told));
    open_rings(view, &dump);
    dump.buffer = allocated(dump.room, 1);
    pick(&dump);
    for (size_t i = 0; i < dump.n_picks; i++)
        tell_sample(&dump, &dump.picks[i]);
    for (uint32_t i = 0; i < topic->n_rings; i++) {
        tell_end(&dump, i);
        segment_unmap(&dump.rings[i].map);
    }
    free(dump.picks);
    free(dump.buffer);
    free(dump.told);
    free(dump.rings);
}

static bool is_wanted(const struct arguments *args, const char *name) {
    for (int i = 0; i < args->n_words; i++)
        if (topic_filter_matches(args->words[i], name))
            return true;
    return args->n_words == 0;
}

/* Each FILTER must match something. */
static enum exit_code check_words(const struct arguments *args, const struct view_topic *topics,
                                  size_t n) {
    enum exit_code code = EXIT_DONE;
    for (int i = 0; i < args->n_words; i++) {
        size_t k = 0;
        while (k < n && !topic_filter_matches(args->words[i], topics[k].name))
            k++;
        if (k == n) {
            report("there is no topic '%s': nothing is left of it", args->words[i]);
            code = EXIT_NO_TOPIC;
        }
    }
    return code;
}

enum exit_code cmd_dump(const struct arguments *args) {
    struct view view;
    if (args->json && args->raw)
        return usage_error("dump", "--json and --raw do not go together");
    for (int i = 0; i < args->n_words; i++)
        if (topic_filter_check(args->words[i]) < 0)
            return report_error(SHMPS_E_TOPIC, "'%s' is no filter", args->words[i]);
    int r = view_open(&view, args->instance);
    if (r < 0)
        return report_error(r, "cannot read the bus");
    view_report_daemon(&view);
    size_t n;
    struct view_topic *topics = view_topics_read(&view, &n);
    enum exit_code code = check_words(args, topics, n);
    for (size_t i = 0; i < n; i++) {
        if (!is_wanted(args, topics[i].name))
            continue;
        if (view_report_trouble(&topics[i]))
            code = EXIT_ERROR;
        dump_topic(&view, args, &topics[i]);
    }
    view_topics_free(topics, n);
    view_close(&view);
    return code;
}
