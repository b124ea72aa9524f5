#include "bus.h"

#include "base/error.h"
#include "base/mappings.h"
#include "log.h"
#include "session.h"

#include <inttypes.h>
#include <string.h>

/* Reading takes everything for hostile: each index is checked, each list bounded, each record
 * led to at most once. Nothing is written until all of it has verified. */

#define CORRUPT(...) error_raise(SHMPS_E_CORRUPT, __VA_ARGS__)

/* ---- subscriptions */

static int check_subscription(const struct bus *bus, uint32_t i,
                              const struct subscription_info *info, const char *filter) {
    if (topic_filter_check(filter) < 0)
        return error_context(SHMPS_E_CORRUPT, "subscription %u", i);
    if (info->policy < POLICY_LOSSY || info->policy > POLICY_RELIABLE ||
        info->pins > READER_PINS_MAX || info->serial == 0 || info->serial >= bus->next_serial ||
        info->history > RING_DEPTH_MAX || info->exact != topic_filter_is_exact(filter) ||
        (info->exact && info->topic >= bus->directory.geometry.topics))
        return CORRUPT("subscription %u holds what no pubsubd writes", i);
    for (uint32_t k = 0; k < bus->subscriptions_end; k++)
        if (bus->subscriptions[k] != NULL && bus->subscriptions[k]->info.serial == info->serial)
            return CORRUPT("subscriptions %u and %u have one serial", k, i);
    return 0;
}

static int read_subscriptions(struct bus *bus) {
    for (uint32_t i = 0; i < bus->directory.geometry.subscriptions; i++) {
        struct subscription_info info;
        char filter[TOPIC_NAME_BYTES];
        if (!directory_subscription(&bus->directory, i, &info, filter))
            return CORRUPT("subscription %u is being written, though no daemon runs", i);
        if (!info.live)
            continue;
        int r = check_subscription(bus, i, &info, filter);
        if (r < 0)
            return r;
        struct subscription *s = calloc(1, sizeof(*s));
        if (s == NULL)
            return error_raise(SHMPS_E_NO_MEMORY, "no memory for a subscription");
        s->index = i;
        s->info = info;
        memcpy(s->filter, filter, sizeof(filter));
        bus->subscriptions[i] = s;
        bus->subscriptions_end = i + 1;
    }
    return 0;
}

/* ---- rings of a topic */

/* Two records of one segment would let the end of one remove what the other has. */
static int check_ring(const struct bus *bus, const struct topic *topic, uint32_t i,
                      const struct ring_info *info) {
    if (info->state < RING_LIVE || info->state > RING_REMOVED || info->topic != topic->index ||
        info->serial == 0 || info->serial >= bus->next_serial || info->publisher > info->serial ||
        info->predecessor >= info->serial || info->bytes > RING_BYTES_MAX ||
        info->pins > RING_PINS_MAX || info->start > SEQUENCE_END ||
        (info->state == RING_LIVE) != (info->retired_ns == 0) ||
        (info->state != RING_LIVE &&
         (info->final_head < info->start || info->final_head > SEQUENCE_END)))
        return CORRUPT("ring record %u of topic \"%s\" holds what no pubsubd writes", i,
                       topic->name);
    for (uint32_t k = 0; k < bus->rings_end; k++)
        if (bus->rings[k] != NULL && bus->rings[k]->info.serial == info->serial)
            return CORRUPT("ring records %u and %u have one serial", k, i);
    return 0;
}

static int read_ring(struct bus *bus, struct topic *topic, uint32_t i, struct ring **ret) {
    struct ring_info info;
    if (i >= bus->directory.geometry.rings || bus->rings[i] != NULL)
        return CORRUPT("the rings of topic \"%s\" are no list", topic->name);
    if (!directory_ring(&bus->directory, i, &info))
        return CORRUPT("ring record %u is being written, though no daemon runs", i);
    int r = check_ring(bus, topic, i, &info);
    if (r < 0)
        return r;
    struct ring *ring = calloc(1, sizeof(*ring));
    if (ring == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for a ring");
    ring->index = i;
    ring->info = info;
    ring->topic = topic;
    bus->rings[i] = ring;
    if (i >= bus->rings_end)
        bus->rings_end = i + 1;
    *ret = ring;
    return 0;
}

static int read_rings(struct bus *bus, struct topic *topic) {
    struct ring **tail = &topic->rings;
    for (uint32_t i = topic->info.first_ring; i != NO_INDEX; i = (*tail)->info.next) {
        if (*tail != NULL)
            tail = &(*tail)->next;
        int r = read_ring(bus, topic, i, tail);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- pages of a topic */

/* A seat: its owner exists, wants this topic, and has no other seat in it. */
static int check_seat(const struct bus *bus, const struct topic *topic, uint64_t cell) {
    uint32_t i = cell_subscription(cell);
    uint32_t policy = cell_policy(cell);
    if (i >= bus->directory.geometry.subscriptions || bus->subscriptions[i] == NULL)
        return CORRUPT("a seat in topic \"%s\" belongs to no subscription", topic->name);
    const struct subscription *s = bus->subscriptions[i];
    if (policy != s->info.policy || cell_pins(cell) > READER_PINS_MAX ||
        !(s->info.exact ? s->info.topic == topic->index
                        : topic_filter_matches(s->filter, topic->name)))
        return CORRUPT("a seat in topic \"%s\" is not what its subscription wants", topic->name);
    for (const struct page *page = topic->pages; page != NULL; page = page->next)
        for (uint32_t c = 0; c < READERS_ENTRIES; c++)
            if (page->cells[c] != 0 && cell_policy(page->cells[c]) != POLICY_SPAN &&
                cell_subscription(page->cells[c]) == i)
                return CORRUPT("subscription %u has two seats in topic \"%s\"", i, topic->name);
    return 0;
}

/* Cells of a span without a seat before them are what a daemon killed while it gave or took
 * one left: they stay 0 here, and are cleared in the record. */
static int read_cells(struct bus *bus, struct topic *topic, struct page *page) {
    struct roster_page *record = &bus->directory.pages[page->index];
    for (uint32_t i = 0; i < READERS_ENTRIES; i++) {
        uint64_t cell = atomic_load_relaxed(&record->cells[i]); /* relaxed: no other daemon runs */
        if (cell == 0 || cell_policy(cell) == POLICY_SPAN)
            continue;
        int r = check_seat(bus, topic, cell);
        if (r < 0)
            return r;
        uint32_t span = reader_span(cell_pins(cell));
        if (i + span > READERS_ENTRIES)
            return CORRUPT("a seat in topic \"%s\" exceeds its page", topic->name);
        page->cells[i] = cell;
        for (uint32_t k = 1; k < span; k++) {
            /* relaxed: as above */
            page->cells[i + k] = atomic_load_relaxed(&record->cells[i + k]);
            if (page->cells[i + k] != cell_make(POLICY_SPAN, 0, cell_subscription(cell)))
                return CORRUPT("a seat in topic \"%s\" lacks its pins", topic->name);
        }
        topic->pins_granted += cell_pins(cell);
        topic->exact += bus->subscriptions[cell_subscription(cell)]->info.exact;
        i += span - 1;
    }
    return 0;
}

static int read_pages(struct bus *bus, struct topic *topic) {
    uint32_t i = topic->info.first_page;
    while (i != NO_INDEX) {
        if (i >= bus->directory.geometry.pages || bus->pages[i] != NULL ||
            topic->n_pages == TOPIC_PAGES_MAX)
            return CORRUPT("the roster pages of topic \"%s\" are no list", topic->name);
        const struct roster_page *record = &bus->directory.pages[i];
        /* relaxed, all of them: no other daemon runs */
        if (atomic_load_relaxed(&record->topic) != topic->index ||
            atomic_load_relaxed(&record->ordinal) != topic->n_pages ||
            atomic_load_relaxed(&record->uid) != bus->uid ||
            atomic_load_relaxed(&record->first) != topic->info.first_page)
            return CORRUPT("roster page %u of topic \"%s\" holds what no pubsubd writes", i,
                           topic->name);
        uint32_t next = atomic_load_relaxed(&record->next); /* relaxed: as above */
        struct page *page;
        int r = roster_page_new(bus, topic, i, &page);
        if (r == 0)
            r = read_cells(bus, topic, page);
        if (r < 0)
            return r;
        i = next;
    }
    return 0;
}

/* ---- topics */

static int read_topics(struct bus *bus) {
    for (uint32_t i = 0; i < bus->directory.geometry.topics; i++) {
        struct topic_info info;
        char name[TOPIC_NAME_BYTES];
        if (!directory_topic(&bus->directory, i, &info, name))
            return CORRUPT("topic %u is being written, though no daemon runs", i);
        if (!info.live)
            continue;
        if (topic_name_check(name) < 0)
            return error_context(SHMPS_E_CORRUPT, "topic %u", i);
        if (info.history_asked > RING_DEPTH_MAX)
            return CORRUPT("topic \"%s\" is to keep more samples than any ring holds", name);
        if (topic_find(bus, name) != NULL)
            return CORRUPT("topic \"%s\" is there twice", name);
        struct topic *topic = calloc(1, sizeof(*topic));
        if (topic == NULL)
            return error_raise(SHMPS_E_NO_MEMORY, "no memory for a topic");
        topic->index = i;
        topic->info = info;
        topic->listed = true;
        memcpy(topic->name, name, sizeof(name));
        topic_configure(bus, topic);
        bus->topics[i] = topic;
        bus->topics_end = i + 1;
        int r = read_rings(bus, topic);
        if (r == 0)
            r = read_pages(bus, topic);
        if (r < 0)
            return r;
    }
    return 0;
}

static void read_errors(struct bus *bus) {
    for (uint32_t i = 0; i < BUS_ERRORS && i < bus->directory.geometry.errors; i++) {
        struct error_info info;
        char text[TOPIC_NAME_BYTES];
        if (!directory_error(&bus->directory, i, &info, text) || info.count == 0)
            continue;
        bus->errors[i].count = info.count;
        bus->errors[i].code = (int)info.code;
        bus->errors[i].first_ns = info.first_ns;
        bus->errors[i].last_ns = info.last_ns;
        memcpy(bus->errors[i].text, text, sizeof(text));
    }
}

/* ---- the directory as a whole */

static int check_header(struct bus *bus) {
    const struct directory_header *h = bus->directory.header;
    if (memcmp(h->identity.boot_id, bus->boot, sizeof(bus->boot)) != 0)
        return CORRUPT("it was made before the machine's last start");
    if (h->identity.uid != bus->uid)
        return CORRUPT("it was made by user %u", h->identity.uid);
    if (strncmp(h->instance, bus->instance, sizeof(h->instance)) != 0)
        return CORRUPT("it is not one of instance \"%s\"", bus->instance);
    /* relaxed: no other daemon runs */
    if (atomic_load_relaxed(&h->daemon_state) == DAEMON_ENDED)
        return CORRUPT("its daemon had ended it");
    bus->serial = h->identity.serial;
    bus->next_serial = atomic_load_relaxed(&h->next_serial); /* relaxed: as above */
    if (bus->next_serial == 0 || bus->next_serial > UINT64_MAX / 2)
        return CORRUPT("its next serial is %" PRIu64, bus->next_serial);
    return 0;
}

static int read_directory(struct bus *bus, const struct segment_ref *ref) {
    _cleanup_close_ int fd = -1;
    int r = segment_open(ref, SEGMENT_WRITE, bus->uid, &fd);
    if (r == 0)
        r = segment_open(ref, SEGMENT_READ, bus->uid, &bus->directory_fd);
    if (r == 0)
        r = segment_map(fd, SEGMENT_WRITE_LAZY, sizeof(struct directory_header), &bus->map);
    if (r == 0)
        r = directory_attach(&bus->directory, bus->map.base, bus->map.bytes);
    if (r == 0)
        r = check_header(bus);
    if (r == 0)
        r = bus_tables(bus);
    if (r == 0)
        r = read_subscriptions(bus);
    if (r == 0)
        r = read_topics(bus);
    if (r == 0)
        read_errors(bus);
    return r;
}

/* ---- repair: what a daemon that was killed half-way left, and what has died since */

static void free_unled_records(struct bus *bus) {
    static const struct ring_info no_ring = { .topic = NO_INDEX, .next = NO_INDEX };
    struct directory *d = &bus->directory;
    for (uint32_t i = 0; i < d->geometry.rings; i++) {
        struct ring_info info;
        if (bus->rings[i] == NULL && directory_ring(d, i, &info) && info.state != RING_FREE)
            directory_ring_write(d, i, &no_ring);
    }
    for (uint32_t i = 0; i < d->geometry.pages; i++) {
        /* relaxed, all of them: nothing leads to the page, or the word is as it was */
        if (bus->pages[i] == NULL && atomic_load_relaxed(&d->pages[i].topic) != NO_INDEX)
            atomic_store_relaxed(&d->pages[i].topic, NO_INDEX);
        for (uint32_t c = 0; bus->pages[i] != NULL && c < READERS_ENTRIES; c++)
            if (atomic_load_relaxed(&d->pages[i].cells[c]) != bus->pages[i]->cells[c])
                atomic_store_relaxed(&d->pages[i].cells[c], bus->pages[i]->cells[c]);
    }
}

/* What its record says is what its segment was made as. */
static int check_geometry(const struct ring *ring, const struct segment_map *map,
                          const struct ring_geometry *g) {
    const struct ring_info *info = &ring->info;
    if (info->bytes != map->bytes || info->depth != g->depth || info->pins != g->pins ||
        info->message_bytes != g->message_bytes || info->publisher != g->publisher ||
        ring->topic->index != g->topic)
        return CORRUPT("ring %" PRIu64 " is not as its record says", info->serial);
    return 0;
}

static int check_segments(struct bus *bus, struct ring *ring) {
    struct segment_map map;
    struct ring_geometry g;
    int r = ring_map(bus, ring, &map, &g);
    if (r < 0)
        return r;
    ring->has_blocks = g.blocks > 0;
    r = check_geometry(ring, &map, &g);
    segment_unmap(&map);
    for (const struct page *page = ring->topic->pages; page != NULL && r == 0; page = page->next) {
        r = roster_map_readers(bus, ring, page->index, &map);
        if (r == 0)
            segment_unmap(&map);
    }
    return r;
}

/* Its segments are damaged, gone or another's, and nobody can be led to them: its record goes. As
 * nothing mentions them then, the sweep removes them unless somebody uses them. */
static void drop_ring(struct bus *bus, struct ring *ring) {
    static const struct ring_info nothing = { .topic = NO_INDEX, .next = NO_INDEX };
    struct topic *topic = ring->topic;
    struct ring **p = &topic->rings, *before = NULL;
    bus_error(bus, SHMPS_E_CORRUPT, topic->name, shmps_error_detail());
    for (; *p != ring; p = &(*p)->next)
        before = *p;
    *p = ring->next;
    if (before != NULL) {
        before->info.next = ring->info.next;
        ring_write(bus, before);
    }
    if (ring->info.state == RING_RETIRED && topic->info.gone_ring != ring->info.serial) {
        topic->info.gone += ring->info.final_head - ring->info.start;
        topic->info.gone_ring = ring->info.serial;
    }
    topic_write(bus, topic);
    directory_ring_write(&bus->directory, ring->index, &nothing);
    bus->rings[ring->index] = NULL;
    free(ring);
}

/* Does an error say something about the segment, rather than about us? */
static bool is_damage(int r) {
    return r == SHMPS_E_CORRUPT || r == SHMPS_E_VERSION || r == SHMPS_E_NO_TOPIC ||
           r == SHMPS_E_PERMISSION;
}

static int check_rings(struct bus *bus) {
    for (uint32_t i = 0; i < bus->rings_end; i++) {
        struct ring *ring = bus->rings[i];
        int r = ring != NULL ? check_segments(bus, ring) : 0;
        if (r < 0 && !is_damage(r))
            return r;
        if (r < 0)
            drop_ring(bus, ring);
        else if (ring != NULL && ring->info.state == RING_LIVE &&
                 !reaper_await(bus, &ring->info.owner))
            ring_retire(bus, ring);
    }
    return 0;
}

static void check_subscriptions(struct bus *bus) {
    static const struct subscription_info nothing = { .topic = NO_INDEX };
    for (uint32_t i = 0; i < bus->subscriptions_end; i++) {
        struct subscription *s = bus->subscriptions[i];
        if (s == NULL)
            continue;
        bool lost = false;
        if (s->info.exact) { /* a daemon was killed while it opened or closed it */
            struct topic *topic = bus->topics[s->info.topic];
            lost = topic == NULL || strcmp(topic->name, s->filter) != 0 ||
                   !roster_has_seat(topic, s);
        }
        if (lost) {
            directory_subscription_write(&bus->directory, i, &nothing, NULL);
            bus->subscriptions[i] = NULL;
            free(s);
        } else if (!reaper_await(bus, &s->info.owner)) {
            subscription_close(bus, s, true);
        }
    }
}

static int repair(struct bus *bus) {
    free_unled_records(bus);
    for (uint32_t i = 0; i < bus->topics_end; i++)
        if (bus->topics[i] != NULL)
            ring_forget_gone(bus, bus->topics[i]);
    int r = check_rings(bus);
    if (r < 0)
        return error_context(r, "instance \"%s\" cannot be taken over now, and is left as it is",
                             bus->instance);
    check_subscriptions(bus);
    for (uint32_t i = 0; i < bus->topics_end; i++) {
        struct topic *topic = bus->topics[i];
        if (topic == NULL)
            continue;
        topic_write(bus, topic);
        ring_collect(bus, topic);
    }
    return 0;
}

/* ---- leftovers */

static bool is_mentioned(const struct bus *bus, const struct segment_found *found) {
    for (uint32_t i = 0; i < bus->rings_end; i++) {
        const struct ring *ring = bus->rings[i];
        if (ring == NULL || ring->info.serial != found->ring)
            continue;
        if (found->content == SEGMENT_OF_RING)
            return true;
        for (const struct page *page = ring->topic->pages; page != NULL; page = page->next)
            if (page->index == found->page)
                return true;
    }
    return false;
}

struct sweep {
    struct bus *bus;
    struct mappings mappings;
    bool asked; /* mappings: only once something is found */
    int error;
};

/* What a daemon killed half-way left, nobody has; but whatever the directory says, nothing is
 * taken away from who has it. */
static void sweep_segment(void *data, const struct segment_found *found) {
    struct sweep *sweep = data;
    struct bus *bus = sweep->bus;
    if (bus_needs(found) || is_mentioned(bus, found))
        return;
    if (!sweep->asked)
        sweep->error = mappings_of_all(&sweep->mappings);
    sweep->asked = true;
    if (sweep->error < 0)
        return;
    pid_t user = mappings_user(&sweep->mappings, found->device, found->inode);
    if (user != 0) {
        log_warning("%s is left, though nothing in the directory mentions it: process %d uses it",
                    found->ref.name, (int)user);
        if (found->ring < UINT64_MAX / 4) /* higher ones are not met in any bus's life */
            bus->serial_min = max_u64(bus->serial_min, found->ring + 1);
        return;
    }
    log_info("removing %s, which nothing in the directory mentions", found->ref.name);
    segment_remove(&found->ref);
}

static int sweep(struct bus *bus) {
    struct sweep s = { .bus = bus, .mappings = MAPPINGS_NONE };
    int r = segment_list(bus->uid, bus->instance, sweep_segment, &s);
    mappings_free(&s.mappings);
    return r < 0 ? r : s.error;
}

static void remove_set_aside(void *data, const struct segment_found *found) {
    (void)data;
    if (found->content == SEGMENT_SET_ASIDE)
        segment_remove(&found->ref);
}

static int set_aside(struct bus *bus, const struct segment_ref *ref) {
    struct segment_ref to;
    bus_error(bus, SHMPS_E_CORRUPT, "the directory found is set aside", shmps_error_detail());
    bus_forget(bus);
    segment_ref_set_aside(&to, bus->uid, bus->instance, now_ns());
    int r = segment_rename(ref, &to);
    if (r == 0)
        log_warning("it is kept as %s; a new bus begins, clients must connect again", to.name);
    return r;
}

int adopt(struct bus *bus, bool *ret_found) {
    struct segment_ref ref;
    segment_ref_directory(&ref, bus->uid, bus->instance);
    /* What was set aside before: its time to be looked at is over. */
    int r = segment_list(bus->uid, bus->instance, remove_set_aside, NULL);
    if (r == 0)
        r = read_directory(bus, &ref);
    *ret_found = r == 0;
    if (r == 0) {
        r = repair(bus);
        if (r == 0)
            log_notice("adopted what was there; it waits for %u processes to come back",
                       bus->n_owners);
    } else if (r == SHMPS_E_VERSION) {
        /* Another build's bus: its programs may live, and their rings are left alone. */
        return error_context(r, "instance \"%s\" cannot be taken over (when its programs have "
                             "ended: rm /dev/shm/shmps.%u.%s.*)", bus->instance,
                             (unsigned)bus->uid, bus->instance);
    } else if (r == SHMPS_E_CORRUPT) {
        r = set_aside(bus, &ref);
    } else if (r == SHMPS_E_NO_TOPIC) {
        r = 0;
    }
    if (r < 0)
        return r;
    r = sweep(bus);
    if (*ret_found)
        bus_rest(bus);
    return r;
}
