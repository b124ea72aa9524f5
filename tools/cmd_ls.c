/* shmps ls - the topics of an instance. A viewer. */
#include "table.h"
#include "text.h"
#include "tool.h"
#include "view.h"

#include <json-c/json.h>
#include <stdlib.h>

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
        table_add(&table, "%s", name);
        table_add(&table, "%u", topic->info.publishers);
        table_add(&table, "%u", topic->info.subscribers);
        table_add(&table, "%llu", (unsigned long long)topic->messages);
        table_add(&table, "%llu", (unsigned long long)topic->bytes);
        table_add_size(&table, topic->memory_bytes);
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
    size_t n;
    struct view_topic *topics = view_topics_read(&view, &n);
    enum exit_code code = EXIT_DONE;
    for (size_t i = 0; i < n; i++) {
        if (view_report_trouble(&topics[i]))
            code = EXIT_ERROR;
        if (args->json)
            print_json(&topics[i]);
    }
    if (!args->json)
        print_table(topics, n);
    view_topics_free(topics, n);
    view_close(&view);
    return code;
}
