#include "bus.h"

#include "base/error.h"
#include "log.h"
#include "quota.h"
#include "session.h"

#include <inttypes.h>
#include <string.h>

#define MESSAGE_PAGE UINT64_C(4096)

/* ---- what is asked for */

static int check(const struct wire_open_publisher *m) {
    int r = topic_name_check(m->topic);
    if (r < 0)
        return r;
    if ((m->flags & ~(RING_TIMESTAMPS | RING_EXPLICIT_SIZE)) != 0)
        return error_raise(SHMPS_E_INVALID, "flags %#x have a meaning unknown to this pubsubd",
                           m->flags);
    if ((m->flags & RING_EXPLICIT_SIZE) != 0 && m->message_bytes == 0)
        return error_raise(SHMPS_E_INVALID, "an explicit message size of 0 bytes");
    if (m->depth == 1)
        return error_raise(SHMPS_E_INVALID, "a depth of 1; a ring has %u slots at least",
                           RING_DEPTH_MIN);
    if (m->history > RING_DEPTH_MAX)
        return error_raise(SHMPS_E_INVALID, "a history of %u samples is more than any ring holds "
                           "(%u)", m->history, RING_DEPTH_MAX);
    return 0;
}

static int find_predecessor(const struct session *s, const struct wire_open_publisher *m,
                            struct ring **ret) {
    *ret = NULL;
    if (m->predecessor == 0)
        return 0;
    for (struct ring *ring = s->rings; ring != NULL; ring = ring->session_next) {
        if (ring->info.serial != m->predecessor)
            continue;
        if (strcmp(ring->topic->name, m->topic) != 0)
            return error_raise(SHMPS_E_INVALID, "publisher %" PRIu64 " is one of \"%s\", not of "
                               "\"%s\"", m->predecessor, ring->topic->name, m->topic);
        *ret = ring;
        return 0;
    }
    return error_raise(SHMPS_E_PERMISSION, "publisher %" PRIu64 " is not one of this session, and "
                       "cannot be replaced by it", m->predecessor);
}

static uint64_t default_pins(uint64_t message_bytes) {
    if (message_bytes <= 16 * 1024)
        return 64;
    return message_bytes < 1024 * 1024 ? 16 : 4;
}

static int make_geometry(const struct session *s, const struct wire_open_publisher *m,
                         struct opening *o) {
    const struct topic_policy *policy = &o->topic->policy;
    uint64_t granted = o->topic->pins_granted;
    uint64_t message_bytes = m->message_bytes != 0 ? m->message_bytes : policy->message_bytes;
    uint64_t depth = m->depth != 0 ? m->depth : policy->depth;
    uint64_t pins = policy->pins != CONFIG_AUTO ? policy->pins : default_pins(message_bytes);
    pins = m->pins != 0 ? max_u64(m->pins, granted) : pins + granted;
    if ((m->flags & RING_EXPLICIT_SIZE) == 0 && m->message_bytes > 0 &&
        message_bytes <= RING_BLOCK_BYTES_MAX) { /* a ring that grew uses its blocks to the end */
        message_bytes = (message_bytes + MESSAGE_PAGE - 1) & ~(MESSAGE_PAGE - 1);
        message_bytes = min_u64(message_bytes, policy->max_message_bytes);
    }
    int r = ring_geometry_make(&o->geometry, &o->bytes, depth, message_bytes, pins);
    if (r == 0 && depth == CONFIG_AUTO && o->geometry.depth > policy->max_depth)
        r = ring_geometry_make(&o->geometry, &o->bytes, policy->max_depth, message_bytes, pins);
    /* what was asked for has been checked; what is configured is kept as far as it may be */
    uint64_t history = max_u64(o->topic->info.history, o->history);
    uint64_t kept = min_u64(history_depth(history), policy->max_depth);
    if (r == 0 && o->geometry.depth < kept)
        r = ring_geometry_make(&o->geometry, &o->bytes, kept, message_bytes, pins);
    if (r < 0)
        return r;
    o->geometry.mode = s->bare ? RING_BARE : RING_FENCE;
    o->geometry.flags = m->flags;
    o->geometry.topic = o->topic->index;
    o->geometry.record = o->ring->index;
    return 0;
}

/* ---- begin */

static void enqueue(struct bus *bus, struct opening *o) {
    struct opening **p = &bus->openings;
    while (*p != NULL)
        p = &(*p)->next;
    o->next = NULL;
    *p = o;
}

static void dequeue(struct bus *bus, struct opening *o) {
    for (struct opening **p = &bus->openings; *p != NULL; p = &(*p)->next)
        if (*p == o) {
            *p = o->next;
            return;
        }
}

static void leave_topic(struct opening *o) {
    for (struct opening **p = &o->topic->openings; *p != NULL; p = &(*p)->topic_next)
        if (*p == o) {
            *p = o->topic_next;
            return;
        }
}

/* The record that the ring will have. */
static int reserve_ring(struct bus *bus, struct opening *o) {
    uint32_t n = bus->directory.geometry.rings;
    uint32_t index = free_index((void *const *)bus->rings, n);
    if (index == NO_INDEX)
        return error_raise(SHMPS_E_LIMIT, "all %u rings of the bus are in use; close publishers",
                           n);
    struct ring *ring = calloc(1, sizeof(*ring));
    if (ring == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "pubsubd has no memory for a ring");
    ring->index = index;
    ring->topic = o->topic;
    bus->rings[index] = ring;
    if (index >= bus->rings_end)
        bus->rings_end = index + 1;
    o->ring = ring;
    return 0;
}

/* The segment, still under a name of its own: its serial is drawn when it is finished, so that it
 * says which subscriptions were there before. */
static int create_segment(struct bus *bus, struct opening *o) {
    segment_ref_ring(&o->ref, bus->uid, bus->instance, bus_draw_serial(bus));
    return segment_create(&o->ref, o->bytes, &o->fd);
}

/* Everything that an opening holds, whatever it got to. */
static void discard(struct bus *bus, struct opening *o) {
    dequeue(bus, o);
    leave_topic(o);
    if (o->fd >= 0)
        segment_remove(&o->ref);
    scope_close(&o->fd);
    if (o->ring != NULL) {
        bus->rings[o->ring->index] = NULL;
        free(o->ring);
    }
    if (o->session->opening == o)
        o->session->opening = NULL;
    topic_release(bus, o->topic);
    free(o);
}

void opening_cancel(struct bus *bus, struct opening *o) {
    discard(bus, o);
}

static int prepare(struct bus *bus, struct session *session, const struct wire_open_publisher *m,
                   struct opening *o) {
    int r = quota_publisher(o->topic, m, o->predecessor != NULL);
    if (r == 0)
        r = reserve_ring(bus, o);
    if (r == 0)
        r = make_geometry(session, m, o);
    if (r == 0)
        r = quota_ring(bus, o);
    if (r < 0)
        return r;
    o->ring->has_blocks = o->geometry.blocks > 0;
    o->ring->info = (struct ring_info){
        .state = RING_FREE,
        .flags = m->flags,
        .predecessor = m->predecessor,
        .bytes = o->bytes,
        .message_bytes = o->geometry.message_bytes,
        .depth = o->geometry.depth,
        .pins = o->geometry.pins,
        .segment_kind = SEGMENT_NAMED,
        .owner = session->owner,
    };
    return create_segment(bus, o);
}

int opening_begin(struct bus *bus, struct session *session, const struct wire_open_publisher *m) {
    struct ring *predecessor = NULL;
    struct topic *topic = NULL;
    int r = check(m);
    if (r == 0)
        r = find_predecessor(session, m, &predecessor);
    if (r == 0)
        r = topic_get(bus, m->topic, &topic);
    if (r < 0)
        return r;
    struct opening *o = calloc(1, sizeof(*o));
    if (o == NULL) {
        topic_release(bus, topic);
        return error_raise(SHMPS_E_NO_MEMORY, "pubsubd has no memory for a ring");
    }
    *o = (struct opening){
        .session = session,
        .request = m->header,
        .topic = topic,
        .topic_next = topic->openings,
        .predecessor = predecessor,
        .history = m->history,
        .fd = -1,
    };
    topic->openings = o;
    r = prepare(bus, session, m, o);
    if (r < 0) {
        topic_refused(bus, topic);
        discard(bus, o);
        return r;
    }
    session->opening = o;
    enqueue(bus, o);
    return 0;
}

/* ---- finish: all of it within one turn of the loop */

static int format(struct bus *bus, const struct opening *o) {
    struct segment_map map;
    int r = segment_map(o->fd, SEGMENT_WRITE_LAZY, o->bytes, &map);
    if (r < 0)
        return r;
    struct ring_header *header = map.base;
    identity_format(&header->identity, SEGMENT_NAMED, o->bytes, o->ring->info.serial, bus->serial,
                    bus->boot, now_ns(), bus->uid, 0);
    ring_format(header, &o->geometry);
    identity_publish(&header->identity, MAGIC_RING);
    segment_unmap(&map);
    return 0;
}

static int give_name(struct bus *bus, struct opening *o) {
    struct segment_ref ref;
    o->ring->info.serial = bus_draw_serial(bus);
    segment_ref_ring(&ref, bus->uid, bus->instance, o->ring->info.serial);
    int r = segment_rename(&o->ref, &ref);
    if (r == 0)
        o->ref = ref;
    return r;
}

/* The predecessor may have been claimed or closed by another session while the ring was made. */
static int find_again(struct opening *o) {
    o->predecessor = NULL;
    if (o->ring->info.predecessor == 0)
        return 0;
    for (struct ring *ring = o->session->rings; ring != NULL; ring = ring->session_next)
        if (ring->info.serial == o->ring->info.predecessor)
            o->predecessor = ring;
    if (o->predecessor == NULL)
        return error_raise(SHMPS_E_INVALID, "publisher %" PRIu64 " was closed meanwhile, and "
                           "cannot be replaced", o->ring->info.predecessor);
    return 0;
}

/* Everything but the links. */
static int complete(struct bus *bus, struct opening *o) {
    struct ring *ring = o->ring;
    uint64_t start = 0;
    int r = find_again(o);
    if (r == 0 && o->predecessor != NULL)
        r = ring_end(bus, o->predecessor, &start);
    if (r == 0)
        r = give_name(bus, o);
    if (r < 0)
        return r;
    ring->info.start = start;
    ring->info.publisher = o->predecessor != NULL ? o->predecessor->info.publisher
                                                  : ring->info.serial;
    ring->info.born_ns = now_ns();
    o->geometry.start = start;
    o->geometry.publisher = ring->info.publisher;
    r = format(bus, o);
    if (r == 0)
        r = roster_make_readers(bus, ring, start);
    if (r < 0)
        roster_remove_readers(bus, ring);
    return r;
}

/* An outgrown ring stays its publisher's, live: he alone decides when he goes on in the new one,
 * says so in the old one, and closes it. So a daemon killed at any time here leaves him a ring
 * that all read. */
static void put_in_place(struct bus *bus, struct opening *o) {
    struct ring *ring = steal_pointer(&o->ring);
    topic_keep(bus, o->topic, o->history); /* written with the link */
    ring_link(bus, ring);
    ring->session = o->session;
    ring->session_next = o->session->rings;
    o->session->rings = ring;
    bus_changed(bus, o->topic);
    log_debug("ring %" PRIu64 " of \"%s\", %" PRIu64 " bytes, for process %d", ring->info.serial,
              o->topic->name, o->bytes, (int)ring->info.owner.pid);
}

/* What it leads to has happened before the answer says so. */
static void answer(struct bus *bus, struct opening *o, int r) {
    struct session *session = o->session;
    struct topic *topic = o->topic;
    struct wire_reply reply;
    _cleanup_close_ int fd = -1;
    session_reply_init(&reply, &o->request);
    if (r == 0) {
        struct ring *ring = o->ring;
        put_in_place(bus, o);
        reply.u.publisher.serial = ring->info.serial;
        reply.u.publisher.record = ring->index;
        reply.u.publisher.topic = topic->index;
        fd = steal_fd(&o->fd); /* also: the segment stays */
    } else {
        topic_refused(bus, topic);
    }
    discard(bus, o); /* frees the topic if nothing else keeps it */
    if (session_answer(session, &reply, r, fd))
        session_resume(session);
    else
        session_close(session, "it does not take its answers");
}

void opening_step(struct bus *bus) {
    struct opening *o = bus->openings;
    if (o == NULL)
        return;
    uint64_t chunk = min_u64(o->bytes - o->allocated, SEGMENT_CHUNK_BYTES);
    int r = segment_allocate(o->fd, o->allocated, chunk);
    o->allocated += chunk;
    if (r == 0 && o->allocated < o->bytes) {
        dequeue(bus, o); /* whoever else waits comes first */
        enqueue(bus, o);
        return;
    }
    if (r == 0)
        r = complete(bus, o);
    if (r < 0)
        error_context(r, "topic \"%s\", a ring of %" PRIu64 " bytes", o->topic->name, o->bytes);
    answer(bus, o, r);
}
