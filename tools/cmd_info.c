/* shmps info - all about one topic. A viewer. */
#include "table.h"
#include "text.h"
#include "tool.h"
#include "view.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

static const char *policy_name(uint32_t policy) {
    static const char *const names[] = { "none", "lossy", "latest", "reliable" };
    return policy < sizeof(names) / sizeof(names[0]) ? names[policy] : "unknown";
}

static const char *ring_state_name(const struct view_ring *ring) {
    if (ring->trouble)
        return "unreadable";
    if (ring->info.state != RING_LIVE)
        return "retired";
    return view_owner_alive(&ring->info.owner) ? "live" : "dead";
}

static const char *subscriber_state_name(const struct view_subscriber *subscriber) {
    return view_owner_alive(&subscriber->info.owner) ? "live" : "dead";
}

/* ---- JSON */

static struct json_object *number(uint64_t n) {
    return json_object_new_uint64(n);
}

static void add_owner(struct json_object *o, const struct owner_info *owner) {
    json_object_object_add(o, "pid", json_object_new_int(owner->pid));
    json_object_object_add(o, "uid", number(owner->uid));
    char command[VIEW_COMMAND_BYTES];
    view_command(owner, command);
    json_object_object_add(o, "command", json_text(command));
}

static struct json_object *publisher_json(const struct view_ring *ring) {
    struct json_object *o = json_object_new_object();
    add_owner(o, &ring->info.owner);
    json_object_object_add(o, "id", number(ring->info.publisher));
    json_object_object_add(o, "ring", number(ring->info.serial));
    json_object_object_add(o, "state", json_object_new_string(ring_state_name(ring)));
    json_object_object_add(o, "depth", number(ring->info.depth));
    json_object_object_add(o, "message_bytes", number(ring->info.message_bytes));
    json_object_object_add(o, "memory_bytes", number(ring->info.bytes));
    json_object_object_add(o, "pins", number(ring->info.pins));
    json_object_object_add(o, "pins_granted", number(ring->info.pins_granted));
    json_object_object_add(o, "born_ns", number(ring->info.born_ns));
    if (ring->trouble) {
        json_object_object_add(o, "trouble", json_text(ring->trouble));
        return o;
    }
    json_object_object_add(o, "slot_bytes", number(ring->geometry.slot_bytes));
    json_object_object_add(o, "block_bytes", number(ring->geometry.block_bytes));
    json_object_object_add(o, "blocks", number(ring->geometry.blocks));
    json_object_object_add(o, "start", number(ring->geometry.start));
    json_object_object_add(o, "low", number(ring->seen.low));
    json_object_object_add(o, "head", number(ring->seen.head));
    json_object_object_add(o, "bytes", number(ring->seen.bytes));
    json_object_object_add(o, "stalls", number(ring->seen.stalls));
    json_object_object_add(o, "wakes", number(ring->seen.wakes));
    return o;
}

static struct json_object *cursor_json(const struct view_cursor *cursor,
                                       const struct view_ring *ring) {
    struct json_object *o = json_object_new_object();
    bool readable = view_cursor_readable(cursor, ring);
    json_object_object_add(o, "publisher", number(ring->info.publisher));
    json_object_object_add(o, "ring", number(ring->info.serial));
    json_object_object_add(o, "cursor", readable ? number(cursor->next) : NULL);
    json_object_object_add(o, "lag", readable ? number(view_cursor_lag(cursor, ring)) : NULL);
    json_object_object_add(o, "pins_held", number(cursor->held));
    json_object_object_add(o, "evicted", json_object_new_boolean(cursor->evicted));
    return o;
}

static struct json_object *subscriber_json(const struct view_topic *topic,
                                           const struct view_subscriber *subscriber) {
    struct json_object *o = json_object_new_object();
    add_owner(o, &subscriber->info.owner);
    json_object_object_add(o, "id", number(subscriber->info.serial));
    json_object_object_add(o, "policy", json_object_new_string(policy_name(subscriber->policy)));
    json_object_object_add(o, "state", json_object_new_string(subscriber_state_name(subscriber)));
    json_object_object_add(o, "filter", json_text(subscriber->filter));
    json_object_object_add(o, "history", number(subscriber->info.history));
    json_object_object_add(o, "pins_wanted", number(subscriber->info.pins));
    json_object_object_add(o, "pins_granted", number(subscriber->pins));
    json_object_object_add(o, "born_ns", number(subscriber->info.born_ns));
    struct json_object *rings = json_object_new_array();
    for (uint32_t i = 0; i < topic->n_rings; i++)
        json_object_array_add(rings, cursor_json(&subscriber->cursors[i], &topic->rings[i]));
    json_object_object_add(o, "rings", rings);
    return o;
}

static void print_json(const struct view *view, const struct view_topic *topic) {
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "topic", json_text(topic->name));
    json_object_object_add(o, "serial", number(topic->info.serial));
    json_object_object_add(o, "born_ns", number(topic->info.born_ns));
    json_object_object_add(o, "messages", number(topic->messages));
    json_object_object_add(o, "bytes", number(topic->bytes));
    json_object_object_add(o, "memory_bytes", number(topic->memory_bytes));
    json_object_object_add(o, "refused", number(topic->info.refused));
    json_object_object_add(o, "history", number(topic->info.history));
    json_object_object_add(o, "daemon_alive", json_object_new_boolean(view->daemon_alive));
    json_object_object_add(o, "daemon_pid", json_object_new_int(view->daemon_pid));
    struct json_object *publishers = json_object_new_array();
    for (uint32_t i = 0; i < topic->n_rings; i++)
        json_object_array_add(publishers, publisher_json(&topic->rings[i]));
    json_object_object_add(o, "publishers", publishers);
    struct json_object *subscribers = json_object_new_array();
    for (uint32_t i = 0; i < topic->n_subscribers; i++)
        json_object_array_add(subscribers, subscriber_json(topic, &topic->subscribers[i]));
    json_object_object_add(o, "subscribers", subscribers);
    json_print(o);
}

/* ---- for people */

static void add_number(struct table *table, bool known, uint64_t n) {
    if (known)
        table_add(table, "%llu", (unsigned long long)n);
    else
        table_add(table, "-");
}

static void add_owner_cells(struct table *table, const struct owner_info *owner) {
    char command[VIEW_COMMAND_BYTES];
    view_command(owner, command);
    char *escaped = text_escape(command);
    table_add(table, "%d", (int)owner->pid);
    table_add(table, "%u", owner->uid);
    table_add(table, "%s", escaped[0] ? escaped : "-");
    free(escaped);
}

static void print_publishers(const struct view_topic *topic) {
    static const char *const titles[] = { ">PID",     ">UID",    "COMMAND", ">ID",     ">DEPTH",
                                          ">MESSAGE", ">MEMORY", ">HEAD",   ">STALLS", ">WAKES",
                                          ">PINS",    "STATE" };
    struct table table = TABLE(titles);
    for (uint32_t i = 0; i < topic->n_rings; i++) {
        const struct view_ring *ring = &topic->rings[i];
        add_owner_cells(&table, &ring->info.owner);
        add_number(&table, true, ring->info.publisher);
        add_number(&table, true, ring->info.depth);
        table_add_size(&table, ring->info.message_bytes);
        table_add_size(&table, ring->info.bytes);
        add_number(&table, !ring->trouble, ring->seen.head);
        add_number(&table, !ring->trouble, ring->seen.stalls);
        add_number(&table, !ring->trouble, ring->seen.wakes);
        table_add(&table, "%u/%u", ring->info.pins_granted, ring->info.pins);
        table_add(&table, "%s", ring_state_name(ring));
    }
    table_print(&table, "  ");
}

/* One line per subscriber and ring; a subscriber of no ring has one, too. */
static void print_subscribers(const struct view_topic *topic) {
    static const char *const titles[] = { ">PID",    ">UID", "COMMAND", "POLICY", ">PUBLISHER",
                                          ">CURSOR", ">LAG", ">HELD",   "STATE",  "FILTER" };
    struct table table = TABLE(titles);
    for (uint32_t i = 0; i < topic->n_subscribers; i++) {
        const struct view_subscriber *subscriber = &topic->subscribers[i];
        char *filter = text_escape(subscriber->filter);
        for (uint32_t k = 0; k == 0 || k < topic->n_rings; k++) {
            const struct view_ring *ring = k < topic->n_rings ? &topic->rings[k] : NULL;
            const struct view_cursor *cursor = &subscriber->cursors[k];
            bool readable = ring && view_cursor_readable(cursor, ring);
            add_owner_cells(&table, &subscriber->info.owner);
            table_add(&table, "%s", policy_name(subscriber->policy));
            add_number(&table, ring, ring ? ring->info.publisher : 0);
            add_number(&table, readable, cursor->next);
            add_number(&table, readable, readable ? view_cursor_lag(cursor, ring) : 0);
            table_add(&table, "%u/%u", cursor->held, subscriber->pins);
            table_add(&table, "%s",
                      cursor->evicted ? "evicted" : subscriber_state_name(subscriber));
            table_add(&table, "%s", filter[0] ? filter : "-");
        }
        free(filter);
    }
    table_print(&table, "  ");
}

static void print_text(const struct view_topic *topic) {
    char *name = text_escape(topic->name);
    char memory[SIZE_TEXT_BYTES];
    size_text(topic->memory_bytes, memory);
    uint64_t now = now_ns(), age = now > topic->info.born_ns ? now - topic->info.born_ns : 0;
    printf("topic     %s\n", name);
    printf("age       %.1f s\n", (double)age / 1e9);
    printf("messages  %llu of %llu bytes in all\n", (unsigned long long)topic->messages,
           (unsigned long long)topic->bytes);
    printf("memory    %s (rings: %u, readers segments: %u)\n", memory, topic->n_rings,
           topic->n_rings * topic->n_pages);
    printf("refused   %llu\n", (unsigned long long)topic->info.refused);
    if (topic->info.history > 0)
        printf("history   the newest %u are kept, and newcomers begin with them\n",
               topic->info.history);
    uint32_t retired = 0;
    for (uint32_t i = 0; i < topic->n_rings; i++)
        retired += topic->rings[i].info.state != RING_LIVE;
    printf("\npublishers: %u", topic->info.publishers);
    if (retired > 0)
        printf(" (and %u retired ring%s, still to be read%s)", retired, retired == 1 ? "" : "s",
               topic->info.history > 0 ? " or kept" : "");
    putchar('\n');
    if (topic->n_rings > 0)
        print_publishers(topic);
    printf("\nsubscribers: %u\n", topic->n_subscribers);
    if (topic->n_subscribers > 0)
        print_subscribers(topic);
    free(name);
}

enum exit_code cmd_info(const struct arguments *args) {
    const char *name = args->words[0];
    struct view view;
    int r = shmps_topic_check(name);
    if (r < 0)
        return report_error(r, "'%s' is no topic", name);
    r = view_open(&view, args->instance);
    if (r < 0)
        return report_error(r, "cannot read the bus");
    view_report_daemon(&view);
    struct view_topic topic;
    uint32_t index = directory_topic_find(&view.directory, name);
    if (index == NO_INDEX || view_topic_read(&view, index, &topic) != 0) {
        report("there is no topic '%s': nobody publishes or subscribes to it", name);
        view_close(&view);
        return EXIT_NO_TOPIC;
    }
    enum exit_code code = view_report_trouble(&topic) ? EXIT_ERROR : EXIT_DONE;
    if (args->json)
        print_json(&view, &topic);
    else
        print_text(&topic);
    view_topic_free(&topic);
    view_close(&view);
    return code;
}
