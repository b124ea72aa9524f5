#include "client/client.h"

#include <search.h>
#include <string.h>

#define PINS_DEFAULT 4u
#define SPIN_NS_START UINT64_C(20000)

static int check_options(const struct shmps_subscriber_options *given,
                         struct shmps_subscriber_options *o) {
    *o = (struct shmps_subscriber_options)SHMPS_SUBSCRIBER_OPTIONS_INIT;
    if (given) {
        if (given->size < offsetof(struct shmps_subscriber_options, delivery) ||
            given->size > sizeof *o)
            return error_raise(
                SHMPS_E_INVALID,
                "shmps_subscriber_options.size is %zu, this library knows up to %zu; "
                "initialise it with SHMPS_SUBSCRIBER_OPTIONS_INIT",
                given->size, sizeof *o);
        memcpy(o, given, given->size);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(o->reserved); i++)
        if (o->reserved[i] != 0)
            return error_raise(SHMPS_E_INVALID,
                               "a reserved field of shmps_subscriber_options is not zero");
    if (o->delivery < 0 || o->delivery > SHMPS_OBSERVE || o->wait < 0 ||
        o->wait > SHMPS_WAIT_SLEEP)
        return error_raise(SHMPS_E_INVALID,
                           "delivery or wait of shmps_subscriber_options is out of range");
    if (o->pins > READER_PINS_MAX)
        return error_raise(SHMPS_E_INVALID, "pins is %u; it may be 1 to %d, or 0 for %u", o->pins,
                           READER_PINS_MAX, PINS_DEFAULT);
    if (o->history > RING_DEPTH_MAX && o->history != SHMPS_HISTORY_NONE)
        return error_raise(SHMPS_E_INVALID, "history is %u; no ring holds more than %u samples",
                           o->history, RING_DEPTH_MAX);
    return 0;
}

static enum policy policy_of(int delivery) {
    switch (delivery) {
    case SHMPS_LATEST:
        return POLICY_LATEST;
    case SHMPS_RELIABLE:
        return POLICY_RELIABLE;
    case SHMPS_OBSERVE:
        return POLICY_NONE;
    default:
        return POLICY_LOSSY;
    }
}

/* Ask pubsubd for a subscription. Caller holds the lock. */
static int announce(struct shmps_subscriber *sub, uint32_t *ret_topic) {
    struct wire_open_subscriber request;
    struct wire_reply reply;
    wire_init(&request, WIRE_OPEN_SUBSCRIBER, 0);
    memcpy(request.filter, sub->filter, sizeof request.filter);
    request.policy = sub->policy;
    request.pins = sub->pins;
    request.history = sub->history_samples == SHMPS_HISTORY_NONE ? 0 : sub->history_samples;
    int r = session_request(sub->bus, &request, &reply, NULL);
    if (r < 0)
        return error_context(r, "cannot subscribe to \"%s\"", sub->filter);
    sub->serial = reply.u.subscriber.serial;
    sub->claim.session = sub->bus->session_number;
    sub->record = reply.u.subscriber.record;
    *ret_topic = reply.u.subscriber.topic;
    if (sub->exact && *ret_topic >= sub->bus->directory.geometry.topics)
        return error_raise(SHMPS_E_PROTOCOL,
                           "pubsubd answered with a topic that the directory does not have");
    return 0;
}

/* An observer announces nothing: what is in the directory now is old, what comes later is new. */
static void observe(struct shmps_subscriber *sub, uint32_t *ret_topic) {
    const struct directory *d = &sub->bus->directory;
    /* SYNC directory.next_serial: acquire pairs with pubsubd's release; rings made before have
     * smaller serials. */
    sub->serial = atomic_load_acquire(&d->header->next_serial) - 1;
    sub->exact = false; /* its topic may come and go: follow the whole */
    *ret_topic = NO_INDEX;
}

static void unlink_subscriber(struct shmps_subscriber *sub) {
    for (struct shmps_subscriber **p = &sub->bus->subscribers; *p; p = &(*p)->next)
        if (*p == sub) {
            *p = sub->next;
            return;
        }
}

static int start(struct shmps_subscriber *sub) {
    struct shmps *bus = sub->bus;
    uint32_t topic = NO_INDEX;
    int r = 0;
    pthread_mutex_lock(&bus->lock);
    if (sub->policy == POLICY_NONE)
        observe(sub, &topic);
    else
        r = announce(sub, &topic);
    if (r == 0) {
        sub->next = bus->subscribers;
        bus->subscribers = sub;
    }
    pthread_mutex_unlock(&bus->lock);
    if (r < 0)
        return r;
    if (sub->exact) {
        struct topic_view *view = calloc(1, sizeof *view);
        if (!view)
            return error_raise(SHMPS_E_NO_MEMORY, "no memory for a subscriber");
        struct topic_info info;
        while (!directory_topic(&bus->directory, topic, &info, NULL)) {
            cpu_relax(); /* it is being written */
        }
        view->serial = info.serial;
        view->index = topic;
        view->name = sub->filter;
        sub->topics = view;
        sub->generation = directory_topic_generation(&bus->directory, topic);
    } else {
        sub->generation = directory_generation(&bus->directory);
    }
    r = subscriber_refresh(sub);
    if (r < 0 && !refresh_failed(r))
        sub->generation_seen--; /* the first take looks again, and tells of that ring */
    return refresh_failed(r) ? r : 0;
}

int shmps_subscriber_open(struct shmps *bus, const char *filter,
                          const struct shmps_subscriber_options *options,
                          struct shmps_subscriber **ret) {
    struct shmps_subscriber_options o;
    CHECK_FORK(bus);
    int r = topic_filter_check(filter);
    if (r == 0)
        r = check_options(options, &o);
    if (r == 0 && !ret)
        r = error_raise(SHMPS_E_INVALID,
                        "shmps_subscriber_open() needs a place for the subscriber; it got NULL");
    if (r == 0 && bus->observe && o.delivery != SHMPS_OBSERVE)
        r = error_raise(SHMPS_E_STATE,
                        "an observing connection can only have subscribers with SHMPS_OBSERVE");
    if (r == 0 && bus->admin)
        r = error_raise(SHMPS_E_STATE, "an admin connection cannot have subscribers");
    if (r < 0)
        return r;
    struct shmps_subscriber *sub = calloc(1, sizeof *sub);
    if (!sub)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for a subscriber");
    sub->bus = bus;
    sub->exact = topic_filter_is_exact(filter);
    sub->policy = policy_of(o.delivery);
    sub->wait = o.wait;
    sub->history_samples = o.history;
    sub->pins = o.pins ? o.pins : PINS_DEFAULT;
    sub->spin_ns = SPIN_NS_START;
    sub->free_hold = NO_INDEX;
    memcpy(sub->filter, filter, strlen(filter) + 1);
    r = start(sub);
    if (r < 0) {
        struct told told = error_tell();
        shmps_subscriber_close(sub);
        return error_again(r, &told);
    }
    *ret = sub;
    return 0;
}

/* The process's own memory of it; in a forked child that is all there is. */
static void free_private(struct shmps_subscriber *sub) {
    for (struct topic_view *t = sub->topics, *next; t; t = next) {
        next = t->next;
        free(t->seen);
        free(t);
    }
    holds_free(sub->hold_chunks, sub->n_holds);
    tdestroy(sub->names, free);
    free(sub->rings);
    free(sub->words);
    presence_free(&sub->presence);
    kept_drop(sub->half_kept);
    free(sub);
}

/* Views that only held samples keep are found through the holds. */
static void release_all(struct shmps_subscriber *sub) {
    for (uint32_t i = 0; i < sub->n_holds; i++) {
        struct hold *hold = &sub->hold_chunks[i / HOLD_CHUNK][i % HOLD_CHUNK];
        struct ring_view *view = hold->view;
        if (view && --view->n_held == 0 && view->detached)
            view_free(view);
        hold->view = NULL;
    }
}

/* In a forked child. */
static void abandon(struct shmps_subscriber *sub) {
    unlink_subscriber(sub);
    descriptor_abandon(sub->descriptor);
    for (uint32_t i = 0; i < sub->n_rings; i++)
        free(sub->rings[i]);
    free_private(sub);
}

void subscriber_end(struct shmps_subscriber *sub) {
    struct shmps *bus = sub->bus;
    descriptor_close(sub->descriptor);
    release_all(sub);
    for (uint32_t i = 0; i < sub->n_rings; i++) {
        if (ring_reader_leave(&sub->rings[i]->reader))
            wake_space(sub->rings[i]);
        view_free(sub->rings[i]);
    }
    kept_unmap(sub->half_kept);
    pthread_mutex_lock(&bus->lock);
    if (sub->serial != 0 && sub->policy != POLICY_NONE)
        session_close_serial(bus, sub->serial);
    unlink_subscriber(sub); /* after the request, which may reconnect and claim it */
    pthread_mutex_unlock(&bus->lock);
    free_private(sub);
}

void shmps_subscriber_close(struct shmps_subscriber *sub) {
    if (!sub)
        return;
    if (is_forked(sub->bus))
        abandon(sub);
    else if (dispatch_let_go(sub))
        subscriber_end(sub);
}

int shmps_subscriber_close_keep(struct shmps_subscriber *sub, struct shmps_kept **ret) {
    struct shmps_kept *kept = NULL;
    CHECK_FORK(sub->bus);
    if (!ret)
        return error_raise(SHMPS_E_INVALID, "shmps_subscriber_close_keep() needs a place for what "
                                            "it keeps; it got NULL");
    if (dispatch_has(sub))
        return error_raise(SHMPS_E_STATE,
                           "the subscriber of \"%s\" has a callback; clear it before, outside of "
                           "it (shmps_subscriber_on_sample())",
                           sub->filter);
    int r = sub->held > 0 ? kept_make(sub, &kept) : 0;
    if (r < 0)
        return error_context(r, "cannot keep what is held of \"%s\"", sub->filter);
    struct hold **chunks = sub->hold_chunks;
    uint32_t n_holds = sub->n_holds;
    release_all(sub);
    if (kept) {
        sub->hold_chunks = NULL;
        sub->n_holds = 0;
    }
    subscriber_end(sub);
    if (kept)
        kept_finish(kept, chunks, n_holds);
    *ret = kept;
    return 0;
}

int shmps_subscriber_stats(struct shmps_subscriber *sub, struct shmps_subscriber_stats *ret) {
    CHECK_FORK(sub->bus);
    if (ret->size < offsetof(struct shmps_subscriber_stats, received) || ret->size > sizeof *ret)
        return error_raise(SHMPS_E_INVALID,
                           "shmps_subscriber_stats.size is %zu, this library knows up to %zu; "
                           "initialise it with SHMPS_SUBSCRIBER_STATS_INIT",
                           ret->size, sizeof *ret);
    struct shmps_subscriber_stats stats = {
        .size = ret->size,
        .received = sub->received,
        .lost = sub->lost,
        .copied = sub->copied,
        .sleeps = sub->sleeps,
        .evictions = sub->evictions,
        .held = sub->held,
    };
    for (const struct topic_view *t = sub->topics; t; t = t->next) {
        struct topic_info info;
        if (!directory_topic(&sub->bus->directory, t->index, &info, NULL) ||
            info.serial != t->serial)
            continue;
        stats.topics++;
        stats.publishers += info.publishers;
        stats.pins = (uint32_t)max_u64(stats.pins, t->seat.pins);
    }
    memcpy(ret, &stats, stats.size);
    return 0;
}
