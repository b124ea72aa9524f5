#include "session.h"

#include "base/error.h"
#include "log.h"

#include <inttypes.h>
#include <string.h>

static enum request_result answered(bool sent) {
    return sent ? REQUEST_DONE : REQUEST_END;
}

/* ---- hello */

/* Tells the connections of a process apart, also after a restart of either side. Never 0. */
static uint64_t connection_of(uint64_t secret) {
    uint64_t x = secret + UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    x ^= x >> 31;
    return x != 0 ? x : 1;
}

static int check_hello(const struct session *s, const struct wire_hello *m) {
    if (m->version_max < WIRE_VERSION_MIN || m->version_min > WIRE_VERSION)
        return error_raise(SHMPS_E_VERSION, "the client speaks versions %u to %u of the control "
                           "protocol, pubsubd %s versions %d to %d; use the same release of shmps "
                           "for both", m->version_min, m->version_max, SHMPS_VERSION,
                           WIRE_VERSION_MIN, WIRE_VERSION);
    if (m->fingerprint != layout_fingerprint() && !(m->flags & WIRE_HELLO_ADMIN))
        return error_raise(SHMPS_E_VERSION, "the client lays memory out as %016" PRIx64
                           ", pubsubd %s as %016" PRIx64 "; use the same release of shmps for "
                           "both, and restart pubsubd after an upgrade", m->fingerprint,
                           SHMPS_VERSION, layout_fingerprint());
    if (s->greeted)
        return error_raise(SHMPS_E_PROTOCOL, "a second hello in one session");
    if (m->instance[0] != '\0' && strcmp(m->instance, s->bus->instance) != 0)
        return error_raise(SHMPS_E_INVALID, "this is pubsubd of instance \"%s\", not of \"%s\"",
                           s->bus->instance, m->instance);
    return 0;
}

static enum request_result hello(struct session *s, const struct wire_hello *m) {
    struct wire_reply reply;
    session_reply_init(&reply, &m->header);
    int r = check_hello(s, m);
    if (r < 0) {
        session_answer(s, &reply, r, -1);
        return REQUEST_END;
    }
    s->greeted = true;
    s->bare = (m->flags & WIRE_HELLO_BARE) != 0;
    s->admin = (m->flags & WIRE_HELLO_ADMIN) != 0;
    s->owner.session = connection_of(m->secret);
    reply.u.hello.epoch = s->bus->epoch;
    reply.u.hello.directory = s->bus->serial;
    reply.u.hello.session = s->owner.session;
    reply.u.hello.uid = s->bus->uid;
    reply.u.hello.version = (uint32_t)min_u64(m->version_max, WIRE_VERSION);
    memcpy(reply.u.hello.instance, s->bus->instance, sizeof(s->bus->instance));
    log_debug("hello from process %d (%s)", (int)s->owner.pid, s->owner.command);
    return answered(session_answer(s, &reply, 0, s->admin ? -1 : s->bus->directory_fd));
}

/* ---- claims: what survived a restart of the daemon */

static bool same_process(const struct owner_info *a, const struct owner_info *b) {
    return a->pid != 0 && a->pid == b->pid && a->start_time == b->start_time && a->uid == b->uid;
}

/* May this session claim what `owner` has, and `holder` holds now? */
static int check_claim(const struct session *s, const struct owner_info *owner,
                       const struct session *holder, uint64_t serial) {
    if (!same_process(owner, &s->owner))
        return error_raise(SHMPS_E_PERMISSION, "%" PRIu64 " belongs to process %d, not to process "
                           "%d which claims it", serial, (int)owner->pid, (int)s->owner.pid);
    if (holder != NULL && holder != s && owner->session != s->owner.session)
        return error_raise(SHMPS_E_PERMISSION, "%" PRIu64 " belongs to another connection of "
                           "process %d", serial, (int)owner->pid);
    return 0;
}

static int claim_ring(struct session *s, uint64_t serial, struct ring **ret) {
    struct bus *bus = s->bus;
    struct ring *ring = NULL;
    for (uint32_t i = 0; i < bus->rings_end && ring == NULL; i++)
        if (bus->rings[i] != NULL && bus->rings[i]->info.serial == serial &&
            bus->rings[i]->info.state == RING_LIVE)
            ring = bus->rings[i];
    if (ring == NULL)
        return error_raise(SHMPS_E_NO_TOPIC, "there is no publisher %" PRIu64 " to be claimed "
                           "(any more); open a new one", serial);
    int r = check_claim(s, &ring->info.owner, ring->session, serial);
    if (r < 0)
        return r;
    ring_disown(ring);
    ring->session = s;
    ring->session_next = s->rings;
    s->rings = ring;
    reaper_claimed(bus, &s->owner);
    *ret = ring;
    return 0;
}

static int claim_subscription(struct session *s, uint64_t serial, struct subscription **ret) {
    struct bus *bus = s->bus;
    struct subscription *found = NULL;
    for (uint32_t i = 0; i < bus->subscriptions_end && found == NULL; i++)
        if (bus->subscriptions[i] != NULL && bus->subscriptions[i]->info.serial == serial)
            found = bus->subscriptions[i];
    if (found == NULL)
        return error_raise(SHMPS_E_NO_TOPIC, "there is no subscription %" PRIu64 " to be claimed "
                           "(any more); open a new one", serial);
    int r = check_claim(s, &found->info.owner, found->session, serial);
    if (r < 0)
        return r;
    subscription_disown(found);
    found->session = s;
    found->session_next = s->subscriptions;
    s->subscriptions = found;
    reaper_claimed(bus, &s->owner);
    *ret = found;
    return 0;
}

/* ---- open */

static enum request_result open_publisher(struct session *s, const struct wire_open_publisher *m) {
    struct wire_reply reply;
    struct ring *ring = NULL;
    session_reply_init(&reply, &m->header);
    int r = m->claim != 0 ? claim_ring(s, m->claim, &ring) : opening_begin(s->bus, s, m);
    if (r == 0 && m->claim == 0)
        return REQUEST_PENDING;
    if (r == 0) {
        reply.u.publisher.serial = ring->info.serial;
        reply.u.publisher.record = ring->index;
        reply.u.publisher.topic = ring->topic->index;
    }
    return answered(session_answer(s, &reply, r, -1));
}

static enum request_result open_subscriber(struct session *s,
                                           const struct wire_open_subscriber *m) {
    struct wire_reply reply;
    struct subscription *found = NULL;
    session_reply_init(&reply, &m->header);
    int r = m->claim != 0 ? claim_subscription(s, m->claim, &found)
                          : subscription_open(s->bus, s, m, &found);
    if (r == 0) {
        reply.u.subscriber.serial = found->info.serial;
        reply.u.subscriber.record = found->index;
        reply.u.subscriber.topic = found->info.topic;
    }
    return answered(session_answer(s, &reply, r, -1));
}

/* ---- close and others */

static int close_ring(struct session *s, uint64_t serial) {
    for (struct ring *ring = s->rings; ring != NULL; ring = ring->session_next) {
        if (ring->info.serial != serial)
            continue;
        struct topic *topic = ring->topic;
        ring_retire(s->bus, ring);
        ring_collect(s->bus, topic);
        return 0;
    }
    return SHMPS_E_NO_TOPIC;
}

static int close_subscription(struct session *s, uint64_t serial) {
    for (struct subscription *sub = s->subscriptions; sub != NULL; sub = sub->session_next) {
        if (sub->info.serial != serial)
            continue;
        subscription_close(s->bus, sub, false);
        return 0;
    }
    return SHMPS_E_NO_TOPIC;
}

static enum request_result close_serial(struct session *s, const struct wire_close *m) {
    struct wire_reply reply;
    session_reply_init(&reply, &m->header);
    int r = close_ring(s, m->serial);
    if (r < 0)
        r = close_subscription(s, m->serial);
    if (r < 0)
        r = error_raise(SHMPS_E_INVALID, "no publisher or subscription %" PRIu64 " is open in "
                        "this session", m->serial);
    return answered(session_answer(s, &reply, r, -1));
}

static enum request_result drained(struct session *s, const struct wire_drained *m) {
    struct bus *bus = s->bus;
    if (m->ring == 0)
        reaper_orphans(s);
    for (uint32_t i = 0; i < bus->topics_end; i++) {
        struct topic *topic = bus->topics[i];
        bool concerned = false;
        for (const struct ring *r = topic != NULL ? topic->rings : NULL; r != NULL; r = r->next)
            concerned |= r->info.state == RING_RETIRED &&
                         (m->ring == 0 || r->info.serial == m->ring);
        if (concerned)
            ring_collect(bus, topic);
    }
    return REQUEST_DONE;
}

static enum request_result plain(struct session *s, const struct wire_plain *m) {
    struct wire_reply reply;
    session_reply_init(&reply, &m->header);
    bool sent = session_answer(s, &reply, 0, -1);
    if (m->header.type == WIRE_STOP) {
        log_notice("stopped by process %d (%s)", (int)s->owner.pid, s->owner.command);
        s->bus->ending = true;
    }
    return answered(sent);
}

static enum request_result refuse_admin(struct session *s, const union wire_message *message) {
    struct wire_reply reply;
    if (message->header.type == WIRE_DRAINED) /* has no answer */
        return REQUEST_END;
    session_reply_init(&reply, &message->header);
    int r = error_raise(SHMPS_E_PROTOCOL, "a session that began as admin may only ping and stop");
    session_answer(s, &reply, r, -1);
    return REQUEST_END;
}

enum request_result request_handle(struct session *s, const union wire_message *message) {
    if (s->admin && message->header.type != WIRE_PING && message->header.type != WIRE_STOP)
        return refuse_admin(s, message);
    switch (message->header.type) {
    case WIRE_HELLO:
        return hello(s, &message->hello);
    case WIRE_OPEN_PUBLISHER:
        return open_publisher(s, &message->open_publisher);
    case WIRE_OPEN_SUBSCRIBER:
        return open_subscriber(s, &message->open_subscriber);
    case WIRE_CLOSE:
        return close_serial(s, &message->close);
    case WIRE_DRAINED:
        return drained(s, &message->drained);
    default: /* STOP, PING: wire_check() knows no other */
        return plain(s, &message->plain);
    }
}
