/* config.h - the configuration: from its text to a checked struct, and from a topic's name to the
 * policy that holds for it. Pure: no files, no state. docs/pubsubd.conf.example shows every key.
 *
 * Which value holds for a topic is decided for each key alone: of all filters that match the topic
 * and set the key, the most specific one's, wherever it stands in the file; without one, the
 * default. Of two filters, compare level by level from the left; the first level that differs in
 * kind decides: a name is more specific than "+", "+" than "#", and an end than "#" ("a" than
 * "a/#"). No two filters that match one topic are equally specific, and none stands twice. */
#ifndef PUBSUBD_CONFIG_H
#define PUBSUBD_CONFIG_H

#include "layout/directory.h"

#include <stddef.h>
#include <stdint.h>

#define CONFIG_BYTES_MAX (1u << 20) /* of the text */
#define CONFIG_UNLIMITED UINT64_MAX
#define CONFIG_AUTO 0
#define BUS_ERRORS 32 /* records of the last distinct errors; no key of their own */

/* What holds for a topic. */
struct topic_policy {
    /* for a publisher that does not say */
    uint64_t depth;             /* CONFIG_AUTO: 64, of messages from 1 MiB on 8 */
    uint64_t message_bytes;
    uint64_t pins;              /* CONFIG_AUTO: by the size; those granted already come on top */
    /* limits; of the topic: all its publishers' rings and their readers segments */
    uint64_t max_depth;
    uint64_t max_message_bytes;
    uint64_t max_bytes;
    uint64_t max_publishers;    /* living */
    uint64_t max_subscribers;   /* those of filters too */
    /* what is kept, and how long anybody is waited for */
    uint64_t history;           /* newest samples kept though their publishers have gone */
    uint64_t patience_ns;       /* with a reliable subscriber that stalls; 0: for ever */
};
#define TOPIC_KEYS 10

/* A section: topic "FILTER" { ... } */
struct config_topic {
    char filter[TOPIC_NAME_BYTES];
    uint32_t line;
    uint32_t lines[TOPIC_KEYS]; /* where each key is set, 0: it is not */
    struct topic_policy policy; /* only keys that are set count */
};

struct config {
    char instance[INSTANCE_BYTES]; /* "": not set */
    uint64_t log_level;            /* enum log_level */
    uint64_t idle_exit_ns;         /* of an autostarted daemon; 0: never */
    /* capacities: of the directory, for its whole life */
    uint64_t max_topics, max_rings, max_subscriptions;
    uint64_t max_memory;           /* of all segments, the directory included */
    uint64_t max_connections;
    struct config_topic *topics;   /* the most specific last */
    uint32_t n_topics;
};

/* All defaults. NULL: no memory. */
struct config *config_new(void);
void config_free(struct config *config);

/* Parse `bytes` bytes of text. `name`: of the file, for errors. INVALID, the detail begins with
 * NAME:LINE; NO_MEMORY. */
int config_parse(const char *text, size_t bytes, const char *name, struct config **ret);

/* The policy for a (valid) topic. A default that exceeds its own limit is the limit. */
void config_policy(const struct config *config, const char *topic, struct topic_policy *ret);

/* The directory for these capacities. */
void config_geometry(const struct config *config, struct directory_geometry *ret);

#endif
