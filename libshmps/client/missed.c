#include "client/client.h"

/* A ring may be removed before a subscriber has read it to the end: of the dead, pubsubd keeps a
 * few. Whoever has it mapped reads on; whoever has never seen it has missed all of it. The topic's
 * record says how many samples have gone with all its rings (gone); the subscriber remembers which
 * rings it has seen, and how many samples were in them. The difference is what it has missed,
 * however late it looks. */

struct seen_ring *seen_find(const struct topic_view *topic, uint64_t serial) {
    for (uint32_t i = 0; i < topic->n_seen; i++)
        if (topic->seen[i].serial == serial)
            return &topic->seen[i];
    return NULL;
}

struct seen_ring *seen_add(struct topic_view *topic, uint64_t serial) {
    if (topic->n_seen == topic->seen_capacity) {
        uint32_t capacity = topic->seen_capacity ? topic->seen_capacity * 2 : 4;
        struct seen_ring *grown = realloc(topic->seen, capacity * sizeof *grown);
        if (!grown)
            return NULL;
        topic->seen = grown;
        topic->seen_capacity = capacity;
    }
    struct seen_ring *seen = &topic->seen[topic->n_seen++];
    *seen = (struct seen_ring){ .serial = serial };
    return seen;
}

void seen_end(struct seen_ring *seen, uint64_t start, uint64_t final_head) {
    seen->samples = final_head - start;
    seen->known = true;
}

void missed_settle(struct shmps_subscriber *sub, struct topic_view *topic) {
    for (uint32_t i = 0; i < topic->n_seen;) {
        if (topic->seen[i].listed || !topic->seen[i].known) {
            i++;
            continue;
        }
        topic->gone_seen += topic->seen[i].samples;
        topic->seen[i] = topic->seen[--topic->n_seen];
    }
    /* A ring leaves the list before it is counted: the difference may be short for a while, and is
     * never too large. */
    if (!topic->based)
        topic->gone_base = topic->gone + topic->leaving - topic->gone_seen - topic->missed;
    topic->based = true;
    uint64_t missed = topic->gone - topic->gone_base - topic->gone_seen;
    if (missed > SEQUENCE_END || missed <= topic->missed)
        return;
    if (sub->policy != POLICY_LATEST) { /* skipping is what that one asked for */
        topic->missed_untold += missed - topic->missed;
        sub->lost += missed - topic->missed;
        sub->missed = true;
    }
    topic->missed = missed;
}

int missed_report(struct shmps_subscriber *sub, struct shmps_sample *ret) {
    for (struct topic_view *t = sub->topics; t; t = t->next) {
        if (t->missed_untold == 0)
            continue;
        *ret = (struct shmps_sample){
            .lost = t->missed_untold,
            .topic = t->name,
            .hold = NO_INDEX,
        };
        t->missed_untold = 0;
        return SHMPS_LOST;
    }
    sub->missed = false;
    return SHMPS_EMPTY;
}
