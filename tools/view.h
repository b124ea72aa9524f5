/* view.h - what the viewers (ls, info, dump ...) see: directory and rings of an instance, mapped
 * read-only by name. Nobody is asked and nobody notices.
 *
 * All of it is untrusted: lists are bounded, indices checked, and a segment that is missing,
 * truncated or garbage is trouble of its topic, not of the tool. */
#ifndef SHMPS_TOOL_VIEW_H
#define SHMPS_TOOL_VIEW_H

#include "base/segment.h"
#include "layout/directory.h"
#include "ring/observer.h"

#include <stdbool.h>

struct view {
    char instance[INSTANCE_BYTES];
    uid_t uid;
    struct segment_map map;
    struct directory directory;
    int daemon_pid;    /* of the last one */
    bool daemon_alive;
    bool daemon_ended; /* not alive, as it was told to end */
};

struct view_ring {
    struct ring_info info;
    char *trouble; /* why its segment cannot be read, to be freed; NULL: the following is known */
    struct ring_geometry geometry;
    struct ring_observation seen;
    uint64_t evicted[32];
};

/* Where a subscriber is in a ring. */
struct view_cursor {
    bool known;    /* false: its readers segment cannot be read; the topic's trouble tells why */
    bool evicted;
    uint32_t held; /* pins */
    uint64_t next; /* sequence, or NEED_NONE: it has not begun to read */
};

struct view_subscriber {
    uint32_t policy, pins;         /* of its cell; pins: granted for this topic */
    uint32_t page, cell;           /* page: 0, 1 ... in the order of the topic's list */
    struct subscription_info info; /* all zero: the cell names no live subscription */
    char filter[TOPIC_NAME_BYTES];
    struct view_cursor *cursors;   /* [n_rings] */
};

struct view_page {
    uint32_t index, ordinal;
};

struct view_topic {
    uint32_t index;
    struct topic_info info;
    char name[TOPIC_NAME_BYTES];
    struct view_ring *rings; /* as the directory lists them: the newest first */
    uint32_t n_rings;
    struct view_page pages[TOPIC_PAGES_MAX];
    uint32_t n_pages;
    struct view_subscriber *subscribers;
    uint32_t n_subscribers;
    uint64_t memory_bytes;    /* of all its segments */
    uint64_t messages, bytes; /* over its publishers, also those that have gone */
    char *trouble;            /* the first thing found wrong with it, or NULL */
};

/* The name of the instance that is meant: `instance`; NULL: $SHMPS_INSTANCE, else "default".
 * INVALID, also for a socket's path. */
int view_choose_instance(const char *instance, char ret[INSTANCE_BYTES]);

/* Map the directory of an instance, NULL: $SHMPS_INSTANCE, else "default": this user's, else the
 * system's; of the one that a socket's path leads to, its pubsubd is asked. And find out whether
 * its daemon lives. NO_DAEMON: there is none. INVALID, PERMISSION, VERSION,
 * CORRUPT, NO_MEMORY, NO_DESCRIPTORS, SYSTEM. */
int view_open(struct view *ret, const char *instance);
void view_close(struct view *view);

/* The same of this user's instance `name` only. */
int view_open_own(struct view *ret, const char *name);

/* Whether the process that opened a ring or a subscription is there. */
bool view_owner_alive(const struct owner_info *owner);

/* Say on stderr that the daemon does not run, if it does not. */
void view_report_daemon(const struct view *view);

/* Read topic record `index` with all that belongs to it. 0, or SHMPS_EMPTY: the record is free.
 * What cannot be read is left out and told in ret->trouble. Free it with view_topic_free(). */
int view_topic_read(const struct view *view, uint32_t index, struct view_topic *ret);
void view_topic_free(struct view_topic *topic);

/* Map a ring to look at its samples, as view_topic_read() does for its figures. CORRUPT, VERSION,
 * PERMISSION, NO_TOPIC (it has gone), NO_MEMORY, NO_DESCRIPTORS, SYSTEM. */
int view_ring_map(const struct view *view, const struct ring_info *info,
                  struct ring_geometry *ret_geometry, struct segment_map *ret);

/* Read all topics there are, sorted by name. Free them with view_topics_free(). */
struct view_topic *view_topics_read(const struct view *view, size_t *ret_n);
void view_topics_free(struct view_topic *topics, size_t n);

/* Whether it is known where a subscriber is in a ring; how many samples of it it has still to
 * read, then. */
bool view_cursor_readable(const struct view_cursor *cursor, const struct view_ring *ring);
uint64_t view_cursor_lag(const struct view_cursor *cursor, const struct view_ring *ring);

/* The command of an owner, as a string. */
#define VIEW_COMMAND_BYTES (COMMAND_BYTES + 1)
void view_command(const struct owner_info *owner, char ret[VIEW_COMMAND_BYTES]);

/* Say on stderr what is wrong with a topic and its rings. true: something is. */
bool view_report_trouble(const struct view_topic *topic);

#endif
