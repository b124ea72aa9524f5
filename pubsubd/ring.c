#include "bus.h"

#include "base/error.h"
#include "log.h"
#include "session.h"

#include <inttypes.h>

int ring_map(struct bus *bus, const struct ring *ring, struct segment_map *ret,
             struct ring_geometry *ret_geometry) {
    struct segment_ref ref;
    struct segment_map map = SEGMENT_MAP_NONE;
    _cleanup_close_ int fd = -1;
    segment_ref_ring(&ref, bus->uid, bus->instance, ring->info.serial);
    int r = segment_open(&ref, SEGMENT_READ, bus->uid, &fd);
    if (r == 0)
        r = segment_map(fd, SEGMENT_READ_LAZY, RING_SLOTS_OFFSET, &map);
    if (r < 0)
        return r;
    const struct ring_header *header = map.base;
    r = ring_attach_check(header, map.bytes, ret_geometry);
    if (r == 0 && (header->identity.serial != ring->info.serial ||
                   header->identity.directory != bus->serial ||
                   ret_geometry->record != ring->index || ret_geometry->start != ring->info.start))
        r = error_raise(SHMPS_E_CORRUPT, "it is not the ring that its name says");
    if (r < 0) {
        segment_unmap(&map);
        return error_context(r, "ring segment %s", ref.name);
    }
    *ret = map;
    return 0;
}

int ring_end(struct bus *bus, const struct ring *ring, uint64_t *ret) {
    struct segment_map map;
    struct ring_geometry g;
    int r = ring_map(bus, ring, &map, &g);
    if (r < 0)
        return r;
    *ret = ring_committed_end(map.base, &g);
    segment_unmap(&map);
    return 0;
}

void ring_write(struct bus *bus, const struct ring *ring) {
    directory_ring_write(&bus->directory, ring->index, &ring->info);
}

void ring_link(struct bus *bus, struct ring *ring) {
    struct topic *topic = ring->topic;
    ring->next = topic->rings;
    ring->info.next = topic->rings != NULL ? topic->rings->index : NO_INDEX;
    ring->info.topic = topic->index;
    ring->info.state = RING_LIVE;
    ring->info.pins_granted = topic->pins_granted;
    ring_write(bus, ring);
    topic->rings = ring; /* from here on it can be found: its readers segments are there */
    topic_write(bus, topic);
}

void ring_disown(struct ring *ring) {
    if (ring->session == NULL)
        return;
    struct ring **p = &ring->session->rings;
    while (*p != ring)
        p = &(*p)->session_next;
    *p = ring->session_next;
    ring->session = NULL;
    ring->session_next = NULL;
}

bool ring_succeeds(const struct ring *ring) {
    if (ring->info.predecessor == 0)
        return false;
    for (const struct ring *r = ring->topic->rings; r != NULL; r = r->next)
        if (r->info.serial == ring->info.predecessor && r->info.state == RING_LIVE)
            return true;
    return false;
}

/* The end, and what was published to the topic's counts: the ring's own will go with it. */
static int ring_last(struct bus *bus, struct ring *ring, uint64_t *ret_end) {
    struct segment_map map;
    struct ring_geometry g;
    int r = ring_map(bus, ring, &map, &g);
    if (r < 0)
        return r;
    const struct ring_header *header = map.base;
    *ret_end = ring_committed_end(header, &g);
    /* SYNC ring.successor: acquire pairs with the publisher's release: in the successor it counts
     * on. */
    if (atomic_load_acquire(&header->successor) == 0) {
        uint64_t messages, bytes;
        ring_count(header, &g, *ret_end, &messages, &bytes);
        ring->topic->info.messages += messages;
        ring->topic->info.bytes += bytes;
    }
    segment_unmap(&map);
    return 0;
}

void ring_retire(struct bus *bus, struct ring *ring) {
    uint64_t end = ring->info.start;
    if (ring_last(bus, ring, &end) < 0) /* nobody can read it: nothing to be drained */
        bus_error(bus, SHMPS_E_CORRUPT, ring->topic->name, shmps_error_detail());
    ring_disown(ring);
    ring->info.state = RING_RETIRED;
    ring->info.final_head = end;
    ring->info.retired_ns = now_ns();
    ring_write(bus, ring);
    topic_write(bus, ring->topic);
    bus_changed(bus, ring->topic);
    log_debug("ring %" PRIu64 " of \"%s\" has ended at %" PRIu64, ring->info.serial,
              ring->topic->name, end);
}

/* ---- removal
 *
 * Whoever subscribes must be able to tell, from the topic's record alone, how many samples have
 * gone with rings that he has not seen: topic.gone. A daemon killed at any of these steps leaves
 * what ring_forget_gone() completes.
 *     1  the ring's state is REMOVED: it no longer counts as listed
 *     2  the topic's record counts it, and says that it did, in one flip
 *     3  the list no longer leads to it, its record is freed, its names are removed
 * Who has it mapped reads on. */

static void count_gone(struct bus *bus, const struct ring *ring) {
    struct topic_info *info = &ring->topic->info;
    if (info->gone_ring == ring->info.serial)
        return;
    info->gone += ring->info.final_head - ring->info.start;
    info->gone_ring = ring->info.serial;
    topic_write(bus, ring->topic);
}

static void unlink_ring(struct bus *bus, struct ring *ring) {
    static const struct ring_info nothing = { .topic = NO_INDEX, .next = NO_INDEX };
    struct topic *topic = ring->topic;
    struct segment_ref ref;
    struct ring **p = &topic->rings, *before = NULL;
    for (; *p != ring; p = &(*p)->next)
        before = *p;
    *p = ring->next;
    if (before != NULL) {
        before->info.next = ring->info.next;
        ring_write(bus, before);
    }
    topic_write(bus, topic);
    directory_ring_write(&bus->directory, ring->index, &nothing);
    segment_ref_ring(&ref, bus->uid, bus->instance, ring->info.serial);
    segment_remove(&ref);
    roster_remove_readers(bus, ring);
    bus_changed(bus, topic);
    bus->rings[ring->index] = NULL;
    free(ring);
}

static void ring_remove(struct bus *bus, struct ring *ring) {
    ring->info.state = RING_REMOVED;
    ring_write(bus, ring);
    count_gone(bus, ring);
    unlink_ring(bus, ring);
}

void ring_forget_gone(struct bus *bus, struct topic *topic) {
    for (struct ring *ring = topic->rings, *next; ring != NULL; ring = next) {
        next = ring->next;
        if (ring->info.state == RING_REMOVED)
            ring_remove(bus, ring);
    }
}

/* ---- what is kept of the dead */

/* Does its publisher go on in another ring? Then it is outgrown, not dead. */
static bool is_outgrown(const struct ring *ring) {
    for (const struct ring *r = ring->topic->rings; r != NULL; r = r->next)
        if (r->info.state == RING_LIVE && r->info.publisher == ring->info.publisher)
            return true;
    return false;
}

/* Is it the last ring that its publisher had? */
static bool is_last(const struct ring *ring) {
    for (const struct ring *r = ring->topic->rings; r != NULL; r = r->next)
        if (r->info.publisher == ring->info.publisher && r->info.serial > ring->info.serial)
            return false;
    return true;
}

/* The oldest ring of the dead; *ret_n: how many publishers they are of. */
static struct ring *oldest_dead(const struct topic *topic, uint32_t *ret_n) {
    struct ring *oldest = NULL;
    *ret_n = 0;
    for (struct ring *ring = topic->rings; ring != NULL; ring = ring->next) {
        if (ring->info.state != RING_RETIRED || is_outgrown(ring))
            continue;
        *ret_n += is_last(ring);
        if (oldest == NULL || ring->info.retired_ns < oldest->info.retired_ns ||
            (ring->info.retired_ns == oldest->info.retired_ns &&
             ring->info.serial < oldest->info.serial))
            oldest = ring;
    }
    return oldest;
}

void ring_collect(struct bus *bus, struct topic *topic) {
    uint32_t n;
    history_mark(bus, topic);
    for (struct ring *ring = topic->rings, *next; ring != NULL; ring = next) {
        next = ring->next;
        if (ring->info.state == RING_RETIRED && !ring->has_history && roster_drained(bus, ring))
            ring_remove(bus, ring);
    }
    for (struct ring *oldest; (oldest = oldest_dead(topic, &n)) != NULL && n > DEAD_MAX;)
        ring_remove(bus, oldest);
    topic_release(bus, topic);
}
