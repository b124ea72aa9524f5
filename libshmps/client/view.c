#include "client/client.h"

#include <search.h>
#include <string.h>

static struct ring_view *find_view(const struct shmps_subscriber *sub, uint64_t serial) {
    for (uint32_t i = 0; i < sub->n_rings; i++)
        if (sub->rings[i]->serial == serial)
            return sub->rings[i];
    return NULL;
}

/* A successor waits until all rings of its publisher before it are drained, so that the order of a
 * publisher that grew is kept; one in between may have gone, empty. Two of the same predecessor:
 * in one of them nothing was ever published. */
static struct ring_view *find_before(const struct shmps_subscriber *sub,
                                     const struct ring_view *view) {
    struct ring_view *before = NULL;
    for (uint32_t i = 0; view->predecessor != 0 && i < sub->n_rings; i++) {
        struct ring_view *v = sub->rings[i];
        if (v->publisher == view->publisher && v->serial < view->serial &&
            v->predecessor != view->predecessor && (!before || v->serial > before->serial))
            before = v;
    }
    return before;
}

static void unblock(struct shmps_subscriber *sub) {
    for (uint32_t i = 0; i < sub->n_rings; i++) {
        struct ring_view *view = sub->rings[i];
        view->succeeded = false;
    }
    for (uint32_t i = 0; i < sub->n_rings; i++) {
        struct ring_view *view = sub->rings[i];
        struct ring_view *before = find_before(sub, view);
        view->blocked = view->broken || before;
        if (before)
            before->succeeded = true;
    }
}

static void mark_retired(struct ring_view *view, uint64_t final_head) {
    view->retired = true;
    view->final_head = final_head;
}

bool view_handed_over(struct ring_view *view) {
    if (!view->succeeded || ring_reader_successor(&view->reader) == 0)
        return false;
    mark_retired(view, ring_committed_end(view->reader.ring, &view->reader.g));
    return true;
}

void view_free(struct ring_view *view) {
    segment_unmap(&view->group_map);
    segment_unmap(&view->readers_map);
    segment_unmap(&view->map);
    free(view);
}

/* Nothing more comes in a ring, whatever the directory has not said yet. */
static struct seen_ring *seen_end_of(struct ring_view *view) {
    struct seen_ring *seen = seen_find(view->topic, view->serial);
    if (seen && !seen->known)
        seen_end(seen, view->reader.g.start,
                 view->retired ? view->final_head
                               : ring_committed_end(view->reader.ring, &view->reader.g));
    return seen;
}

void view_detach(struct shmps_subscriber *sub, struct ring_view *view) {
    for (uint32_t i = 0; i < sub->n_rings; i++)
        if (sub->rings[i] == view) {
            memmove(&sub->rings[i], &sub->rings[i + 1], (--sub->n_rings - i) * sizeof *sub->rings);
            break;
        }
    struct seen_ring *seen = seen_end_of(view);
    if (seen)
        seen->drained = true;
    unblock(sub);
    if (sub->unsettled == view)
        sub->unsettled = NULL;
    if (view->n_held > 0) {
        view->detached = true; /* mapped until the last sample is released; nobody overwrites a
                                  ring without a publisher */
        return;
    }
    if (ring_reader_leave(&view->reader))
        wake_space(view);
    view_free(view);
}

/* ---- attaching a ring */

/* Own entry and the group's words, writable: named segments of the same user. */
static int attach_seat(struct shmps_subscriber *sub, struct ring_view *view,
                       const struct seat *seat) {
    int r = attach_readers(sub->bus, view->serial, seat->page, SEGMENT_WRITE, &view->readers_map);
    if (r < 0)
        return r;
    view->group = view->readers_map.base;
    if (seat->first != seat->page) {
        r = attach_readers(sub->bus, view->serial, seat->first, SEGMENT_WRITE, &view->group_map);
        if (r < 0)
            return r;
        view->group = view->group_map.base;
    }
    return 0;
}

static int map_view(struct shmps_subscriber *sub, struct topic_view *topic,
                    struct ring_view *view) {
    struct ring_mapping m;
    struct reader_entry *entry = NULL;
    int r = attach_ring(sub->bus, view->serial, &m);
    if (r < 0)
        return r;
    view->map = m.map;
    if (m.g.topic != topic->index)
        return error_raise(SHMPS_E_CORRUPT,
                           "ring %llu belongs to another topic than the directory says",
                           (unsigned long long)view->serial);
    if (sub->policy != POLICY_NONE) {
        r = attach_seat(sub, view, &topic->seat);
        if (r < 0)
            return r;
        struct readers_segment *readers = view->readers_map.base;
        entry = &readers->entries[topic->seat.cell];
    }
    ring_reader_init(&view->reader, m.map.base, &m.g, entry, sub->policy, topic->seat.pins,
                     topic->seat.bit, sub->bus->fence);
    return 0;
}

static int add_view(struct shmps_subscriber *sub, struct ring_view *view) {
    if (sub->n_rings == sub->rings_capacity) {
        uint32_t capacity = sub->rings_capacity ? sub->rings_capacity * 2 : 4;
        struct ring_view **grown = realloc(sub->rings, capacity * sizeof(struct ring_view *));
        if (!grown)
            return error_raise(SHMPS_E_NO_MEMORY, "no memory for %u rings", capacity);
        sub->rings = grown;
        sub->rings_capacity = capacity;
    }
    sub->rings[sub->n_rings++] = view;
    return 0;
}

static int attach(struct shmps_subscriber *sub, struct topic_view *topic,
                  const struct ring_info *info, struct ring_view **ret) {
    bool born_after = info->serial > sub->serial;
    struct ring_view *view = calloc(1, sizeof *view);
    if (!view)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for a ring");
    view->topic = topic;
    view->serial = info->serial;
    view->publisher = info->publisher;
    view->predecessor = info->predecessor;
    int r = map_view(sub, topic, view);
    if (r == 0)
        r = add_view(sub, view);
    if (r < 0) {
        view_free(view);
        return r == SHMPS_E_NO_TOPIC ? 0 : r; /* removed meanwhile: the generation has moved */
    }
    if (born_after) {
        ring_reader_begin(&view->reader, view->reader.g.start);
        view->joined = true;
    }
    *ret = view;
    return 0;
}

/* ---- following the directory */

/* Nothing in it is for an observer who comes later; of the others' rings, one may have ended after
 * they got their seat. */
static bool is_past(const struct shmps_subscriber *sub, const struct topic_view *topic,
                    const struct ring_info *info) {
    return info->serial <= sub->serial && info->state == RING_RETIRED && topic->history == 0 &&
           sub->policy == POLICY_NONE;
}

/* One ring of a topic's list: attach or update. Drained once, it is not looked at again: a ring
 * whose end we have reached stays listed until all have. */
static int follow_ring(struct shmps_subscriber *sub, struct topic_view *topic,
                       const struct ring_info *info) {
    struct seen_ring *seen = seen_find(topic, info->serial);
    struct ring_view *view = find_view(sub, info->serial);
    if (!view && !(seen && seen->drained) && !is_past(sub, topic, info)) {
        int r = attach(sub, topic, info, &view);
        if (r == 0 && !view && info->serial <= sub->serial)
            topic->based = false; /* removed just now, and only a part of it was for us */
        if (r < 0 || !view)
            return r;
    }
    if (!seen && !(seen = seen_add(topic, info->serial)))
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for the rings of \"%s\"", topic->name);
    seen->listed = true;
    seen->drained |= !view;
    if (info->state == RING_RETIRED)
        seen_end(seen, info->start, info->final_head);
    if (!view)
        return 0;
    view->listed = true;
    if (info->state == RING_RETIRED && !view->retired)
        mark_retired(view, info->final_head);
    return 0;
}

/* All rings of a topic. pubsubd keeps the list whole at each of its steps, but who walks it
 * meanwhile may be led to a record that is another's by now: *ret_whole says that the end was
 * reached, else nothing may be concluded from what was not met. */
static int follow_rings(struct shmps_subscriber *sub, struct topic_view *topic, uint32_t first,
                        bool *ret_whole) {
    const struct directory *d = &sub->bus->directory;
    struct ring_info info;
    uint32_t index = first;
    int first_error = 0;
    for (uint32_t i = 0; i < d->geometry.rings && index < d->geometry.rings; i++) {
        if (!directory_ring(d, index, &info) || info.topic != topic->index ||
            info.state == RING_FREE)
            break;
        int r = 0;
        if (info.state != RING_REMOVED)
            r = follow_ring(sub, topic, &info);
        else if (info.serial != topic->gone_ring)
            topic->leaving += info.final_head - info.start; /* not counted yet */
        if (r < 0 && first_error == 0)
            first_error = r;
        index = info.next;
    }
    *ret_whole = index == NO_INDEX;
    return first_error;
}

/* Has nothing gone since topic->gone was read? */
static bool gone_is(const struct shmps_subscriber *sub, const struct topic_view *topic) {
    struct topic_info info;
    return directory_topic(&sub->bus->directory, topic->index, &info, NULL) &&
           info.gone == topic->gone;
}

#define WALKS_MAX 16

static int follow_topic(struct shmps_subscriber *sub, struct topic_view *topic) {
    struct topic_info info;
    int r = 0;
    topic->whole = false;
    for (int walks = 0; walks < WALKS_MAX && !topic->whole && r == 0; walks++) {
        if (!directory_topic(&sub->bus->directory, topic->index, &info, NULL))
            continue;
        if (!info.live || info.serial != topic->serial) {
            topic->whole = topic->over = true;
            return 0;
        }
        if (!topic->seated && sub->policy != POLICY_NONE) {
            topic->seated = find_seat(&sub->bus->directory, info.first_page, sub->record,
                                      &topic->seat);
            if (!topic->seated)
                return 0; /* not ours yet: the generation will move */
        }
        topic->gone = info.gone;
        topic->gone_ring = info.gone_ring;
        topic->leaving = 0;
        if (info.serial > sub->serial)
            topic->based = true; /* younger than we are: all that goes with its rings is for us */
        topic->history = sub->history_samples == SHMPS_HISTORY_NONE
                             ? 0
                             : (uint32_t)max_u64(sub->history_samples, info.history);
        r = follow_rings(sub, topic, info.first_ring, &topic->whole);
        /* what has gone unseen during the first walk would be taken for missed */
        topic->whole = topic->whole && (topic->based || gone_is(sub, topic));
    }
    int joined = history_join(sub, topic);
    return r < 0 ? r : joined;
}

static struct topic_view *find_topic(const struct shmps_subscriber *sub, uint64_t serial) {
    for (struct topic_view *t = sub->topics; t; t = t->next)
        if (t->serial == serial)
            return t;
    return NULL;
}

static int by_text(const void *a, const void *b) {
    return strcmp(a, b);
}

static const char *keep_name(struct shmps_subscriber *sub, const char *name) {
    char *copy = strdup(name);
    char **kept = copy ? tsearch(copy, &sub->names, by_text) : NULL;
    if (!kept || *kept != copy)
        free(copy); /* it is known */
    return kept ? *kept : NULL;
}

/* A filter's topics come and go: views of those that have gone are dropped when their rings have
 * been read. */
static void forget_topics(struct shmps_subscriber *sub) {
    for (uint32_t i = 0; i < sub->n_rings; i++)
        sub->rings[i]->topic->over = false;
    for (struct topic_view **p = &sub->topics; *p;) {
        struct topic_view *t = *p;
        if (!t->over || t->missed_untold > 0) {
            p = &t->next;
            continue;
        }
        *p = t->next;
        free(t->seen);
        free(t);
    }
}

/* A filter: views for the topics that have appeared. */
static int follow_filter(struct shmps_subscriber *sub) {
    const struct directory *d = &sub->bus->directory;
    char name[TOPIC_NAME_BYTES];
    struct topic_info info;
    for (uint32_t i = 0; i < d->geometry.topics; i++) {
        if (!directory_topic(d, i, &info, NULL) || !info.live || find_topic(sub, info.serial))
            continue; /* without the names, which are most of it */
        if (!directory_topic(d, i, &info, name) || !info.live || find_topic(sub, info.serial) ||
            topic_name_check(name) < 0 || !topic_filter_matches(sub->filter, name))
            continue;
        struct topic_view *view = calloc(1, sizeof *view);
        if (!view)
            return error_raise(SHMPS_E_NO_MEMORY, "no memory for topic \"%s\"", name);
        view->index = i;
        view->serial = info.serial;
        view->name = keep_name(sub, name);
        if (!view->name) {
            free(view);
            return error_raise(SHMPS_E_NO_MEMORY, "no memory for topic \"%s\"", name);
        }
        view->next = sub->topics;
        sub->topics = view;
    }
    return 0;
}

static int follow(struct shmps_subscriber *sub) {
    for (uint32_t i = 0; i < sub->n_rings; i++)
        sub->rings[i]->listed = false;
    for (struct topic_view *t = sub->topics; t; t = t->next)
        for (uint32_t i = 0; i < t->n_seen; i++)
            t->seen[i].listed = false;
    int first_error = sub->exact ? 0 : follow_filter(sub);
    for (struct topic_view *t = sub->topics; t; t = t->next) {
        int r = follow_topic(sub, t);
        if (r < 0 && first_error == 0)
            first_error = r;
    }
    return first_error;
}

/* pubsubd has dropped them; what we have mapped can still be read. */
static void forget_unlisted(struct shmps_subscriber *sub) {
    for (uint32_t i = 0; i < sub->n_rings;) {
        struct ring_view *view = sub->rings[i];
        if (!view->listed && view->topic->whole) {
            if (view->broken) {
                view_detach(sub, view);
                continue;
            }
            if (!view->retired)
                mark_retired(view, ring_committed_end(view->reader.ring, &view->reader.g));
            seen_end_of(view);
        }
        i++;
    }
}

int subscriber_check(const struct shmps_subscriber *sub) {
    if (session_rebuilt(sub->bus))
        return error_rebuilt(sub->bus);
    if (atomic_load_relaxed(&sub->gone)) /* relaxed: only ever set */
        return error_raise(SHMPS_E_CLOSED,
                           "pubsubd no longer knows this subscriber of \"%s\"; open it anew",
                           sub->filter);
    return 0;
}

int subscriber_refresh(struct shmps_subscriber *sub) {
    uint32_t g;
    int r;
    do {
        /* SYNC topic.generation: as in subscriber_stale(); lists between two equal loads are
         * whole */
        g = atomic_load_acquire(sub->generation);
        /* After the load: a starting daemon raises the generation after its epoch, and does it
         * only once. */
        session_follow(sub->bus);
        r = subscriber_check(sub);
        if (r < 0)
            return r;
        r = follow(sub);
    } while (atomic_load_acquire(sub->generation) != g); /* SYNC topic.generation: as above */
    forget_unlisted(sub);
    unblock(sub);
    bool whole = true;
    for (struct topic_view *t = sub->topics; t; t = t->next) {
        whole = whole && (t->whole || (!t->seated && sub->policy != POLICY_NONE));
        if (t->whole)
            missed_settle(sub, t);
    }
    if (!sub->exact)
        forget_topics(sub);
    if (whole && r != SHMPS_E_NO_MEMORY && r != SHMPS_E_NO_DESCRIPTORS) /* else once more */
        sub->generation_seen = g;
    return r;
}
