#include "bus.h"

#include "base/error.h"
#include "log.h"
#include "session.h"
#include "wait/futex.h"

#include <inttypes.h>
#include <string.h>

static int check(const struct wire_open_subscriber *m) {
    int r = topic_filter_check(m->filter);
    if (r < 0)
        return r;
    if (m->policy < POLICY_LOSSY || m->policy > POLICY_RELIABLE)
        return error_raise(SHMPS_E_INVALID, "policy %u is none (1 lossy, 2 latest, 3 reliable)",
                           m->policy);
    if (m->pins > READER_PINS_MAX)
        return error_raise(SHMPS_E_INVALID, "%u pins are more than a subscriber may have (%d)",
                           m->pins, READER_PINS_MAX);
    if (m->history > RING_DEPTH_MAX)
        return error_raise(SHMPS_E_INVALID, "a history of %u samples is more than any ring holds "
                           "(%u)", m->history, RING_DEPTH_MAX);
    return 0;
}

static int make(struct bus *bus, const struct session *session,
                const struct wire_open_subscriber *m, struct subscription **ret) {
    uint32_t n = bus->directory.geometry.subscriptions;
    uint32_t index = free_index((void *const *)bus->subscriptions, n);
    if (index == NO_INDEX)
        return error_raise(SHMPS_E_LIMIT, "all %u subscriptions of the bus are in use; close some",
                           n);
    struct subscription *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "pubsubd has no memory for a subscription");
    s->index = index;
    s->info = (struct subscription_info){
        .live = 1,
        .policy = m->policy,
        .pins = m->pins,
        .history = m->history,
        .exact = topic_filter_is_exact(m->filter),
        .topic = NO_INDEX,
        .owner = session->owner,
        .born_ns = now_ns(),
    };
    memcpy(s->filter, m->filter, strlen(m->filter) + 1);
    *ret = s;
    return 0;
}

/* Write its record, then give it its seats. On an error, those it got are to be taken back. */
static int place(struct bus *bus, struct subscription *s, struct topic *exact) {
    s->info.serial = bus_draw_serial(bus);
    bus->subscriptions[s->index] = s;
    if (s->index >= bus->subscriptions_end)
        bus->subscriptions_end = s->index + 1;
    directory_subscription_write(&bus->directory, s->index, &s->info, s->filter);
    if (exact != NULL) {
        int r = roster_seat(bus, exact, s);
        return r < 0 ? error_context(r, "topic \"%s\"", exact->name) : 0;
    }
    for (uint32_t i = 0; i < bus->topics_end; i++) {
        struct topic *topic = bus->topics[i];
        if (topic == NULL || !topic_filter_matches(s->filter, topic->name))
            continue;
        int r = roster_seat(bus, topic, s);
        if (r < 0)
            return error_context(r, "topic \"%s\"", topic->name);
    }
    return 0;
}

/* All topics in which it may have a seat. */
static bool concerns(const struct subscription *s, const struct topic *topic) {
    if (topic == NULL)
        return false;
    return s->info.exact ? topic->index == s->info.topic
                         : topic_filter_matches(s->filter, topic->name);
}

int subscription_open(struct bus *bus, struct session *session,
                      const struct wire_open_subscriber *m, struct subscription **ret) {
    struct subscription *s = NULL;
    struct topic *exact = NULL;
    int r = check(m);
    if (r == 0)
        r = make(bus, session, m, &s);
    if (r < 0)
        return r;
    if (s->info.exact)
        r = topic_get(bus, s->filter, &exact);
    if (r < 0) {
        free(s);
        return r;
    }
    if (exact != NULL) {
        s->info.topic = exact->index;
        exact->exact++;
    }
    r = place(bus, s, exact);
    if (r < 0) {
        if (exact != NULL)
            topic_refused(bus, exact);
        subscription_close(bus, s, false);
        return r;
    }
    for (uint32_t i = 0; i < bus->topics_end; i++) {
        if (!concerns(s, bus->topics[i]))
            continue;
        topic_write(bus, bus->topics[i]);
        bus_changed(bus, bus->topics[i]);
    }
    /* A publisher that has looked at the generation before may still be publishing: what it
     * commits from now on, the joining reader sees. (DESIGN 2) */
    barrier_everyone();
    s->session = session;
    s->session_next = session->subscriptions;
    session->subscriptions = s;
    *ret = s;
    log_debug("subscription %" PRIu64 " to \"%s\" by process %d", s->info.serial, s->filter,
              (int)s->info.owner.pid);
    return 0;
}

void subscription_disown(struct subscription *s) {
    if (s->session == NULL)
        return;
    struct subscription **p = &s->session->subscriptions;
    while (*p != s)
        p = &(*p)->session_next;
    *p = s->session_next;
    s->session = NULL;
    s->session_next = NULL;
}

void subscription_close(struct bus *bus, struct subscription *s, bool dead) {
    static const struct subscription_info nothing = { .topic = NO_INDEX };
    subscription_disown(s);
    for (uint32_t i = 0; i < bus->topics_end; i++) {
        struct topic *topic = bus->topics[i];
        if (!concerns(s, topic))
            continue;
        topic->exact -= s->info.exact;
        if (roster_unseat(bus, topic, s, dead))
            topic_write(bus, topic);
    }
    directory_subscription_write(&bus->directory, s->index, &nothing, NULL);
    bus->subscriptions[s->index] = NULL;
    for (uint32_t i = 0; i < bus->topics_end; i++) {
        struct topic *topic = bus->topics[i];
        if (!concerns(s, topic))
            continue;
        bus_changed(bus, topic);
        ring_collect(bus, topic); /* it may have been the last that had not drained a ring */
    }
    bus_changed(bus, NULL); /* also one that concerns no topic has gone */
    free(s);
}
