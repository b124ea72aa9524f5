/* shmps ls - the topics of an instance. A viewer. */
#include "table.h"
#include "text.h"
#include "tool.h"
#include "view.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct view_topic *)a)->name, ((const struct view_topic *)b)->name);
}

static void print_json(const struct view_topic *topic) {
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "topic", json_text(topic->name));
    json_object_object_add(o, "publishers", json_object_new_uint64(topic->info.publishers));
    json_object_object_add(o, "subscribers", json_object_new_uint64(topic->info.subscribers));
    json_object_object_add(o, "messages", json_object_new_uint64(topic->messages));
    json_object_object_add(o, "bytes", json_object_new_uint64(topic->bytes));
    json_object_object_add(o, "memory_bytes", json_object_new_uint64(topic->memory_bytes));
    json_print(o);
}

static void print_table(const struct view_topic *topics, size_t n) {
    static const char *const titles[] = { "TOPIC",     ">PUBLISHERS", ">SUBSCRIBERS",
                                          ">MESSAGES", ">BYTES",      ">MEMORY" };
    struct table table = TABLE(titles);
    for (size_t i = 0; i < n; i++) {
        const struct view_topic *topic = &topics[i];
        char *name = text_escape(topic->name);
        char memory[SIZE_TEXT_BYTES];
        size_text(topic->memory_bytes, memory);
        table_add(&table, "%s", name);
        table_add(&table, "%u", topic->info.publishers);
        table_add(&table, "%u", topic->info.subscribers);
        table_add(&table, "%llu", (unsigned long long)topic->messages);
        table_add(&table, "%llu", (unsigned long long)topic->bytes);
        table_add(&table, "%s", memory);
        free(name);
    }
    table_print(&table, "");
}

enum exit_code cmd_ls(const struct arguments *args) {
    struct view view;
    int r = view_open(&view, args->instance);
    if (r < 0)
        return report_error(r, "cannot read the bus");
    view_report_daemon(&view);
    uint32_t records = view.directory.geometry.topics;
    struct view_topic *topics = calloc(records, sizeof(*topics));
    if (!topics)
        out_of_memory();
    size_t n = 0;
    for (uint32_t i = 0; i < records; i++)
        if (view_topic_read(&view, i, &topics[n]) == 0)
            n++;
    qsort(topics, n, sizeof(*topics), by_name);
    enum exit_code code = EXIT_DONE;
    for (size_t i = 0; i < n; i++) {
        if (view_report_trouble(&topics[i]))
            code = EXIT_ERROR;
        if (args->json)
            print_json(&topics[i]);
    }
    if (!args->json)
        print_table(topics, n);
    for (size_t i = 0; i < n; i++)
        view_topic_free(&topics[i]);
    free(topics);
    view_close(&view);
    return code;
}
