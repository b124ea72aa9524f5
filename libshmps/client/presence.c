#include "client/client.h"

#include <string.h>

void presence_free(struct presence *p) {
    free(p->known);
    free(p->events);
    *p = (struct presence){ .started = false };
}

/* A growing list of peers. */
struct peers {
    struct peer *items;
    size_t n, capacity;
};

static int peers_add(struct peers *list, uint64_t id, int32_t pid, const char *topic) {
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 16;
        struct peer *grown = realloc(list->items, capacity * sizeof *grown);
        if (!grown)
            return error_raise(SHMPS_E_NO_MEMORY, "no memory for a list of %zu peers", capacity);
        list->items = grown;
        list->capacity = capacity;
    }
    list->items[list->n++] = (struct peer){ .id = id, .pid = pid, .topic = topic };
    return 0;
}

static int by_id(const void *a, const void *b) {
    const struct peer *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int push_event(struct presence *p, int kind, const struct peer *peer) {
    struct shmps_event *grown = realloc(p->events, (p->n_events + 1) * sizeof *grown);
    if (!grown)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for an event");
    p->events = grown;
    grown[p->n_events++] = (struct shmps_event){
        .kind = kind, .pid = peer->pid, .id = peer->id, .topic = peer->topic
    };
    return 0;
}

/* Turn what has changed since the last list into events; takes over the list. */
static int compare(struct presence *p, struct peers *now, int joined) {
    size_t i = 0, k = 0;
    int r = 0;
    if (now->n > 0)
        qsort(now->items, now->n, sizeof *now->items, by_id);
    size_t different = 0; /* a publisher that is growing has two rings */
    for (size_t j = 0; j < now->n; j++)
        if (different == 0 || now->items[different - 1].id != now->items[j].id)
            now->items[different++] = now->items[j];
    now->n = different;
    p->n_events = p->next_event = 0;
    while (r == 0 && (i < p->n_known || k < now->n)) {
        if (k == now->n || (i < p->n_known && p->known[i].id < now->items[k].id))
            r = push_event(p, joined + 1, &p->known[i++]); /* ..._LEFT is ..._JOINED + 1 */
        else if (i == p->n_known || now->items[k].id < p->known[i].id)
            r = push_event(p, joined, &now->items[k++]);
        else
            i++, k++;
    }
    free(p->known);
    p->known = now->items;
    p->n_known = now->n;
    return r;
}

/* ---- who is there */

static int list_publishers(struct shmps_subscriber *sub, struct peers *list) {
    const struct directory *d = &sub->bus->directory;
    for (const struct topic_view *t = sub->topics; t; t = t->next) {
        struct topic_info topic;
        if (!directory_topic(d, t->index, &topic, NULL) || !topic.live ||
            topic.serial != t->serial)
            continue;
        uint32_t index = topic.first_ring;
        for (uint32_t i = 0; i < d->geometry.rings && index < d->geometry.rings; i++) {
            struct ring_info info;
            if (!directory_ring(d, index, &info) || info.topic != t->index)
                break;
            int r = info.state == RING_LIVE
                        ? peers_add(list, info.publisher, info.owner.pid, t->name)
                        : 0;
            if (r < 0)
                return r;
            index = info.next;
        }
    }
    return 0;
}

static int list_subscribers(struct shmps_publisher *pub, struct peers *list) {
    const struct directory *d = &pub->bus->directory;
    struct topic_info topic;
    if (!directory_topic(d, pub->topic, &topic, NULL) || !topic.live)
        return 0;
    uint32_t page = topic.first_page;
    for (uint32_t i = 0; i < TOPIC_PAGES_MAX && page < d->geometry.pages; i++) {
        for (uint32_t k = 0; k < READERS_ENTRIES; k++) {
            struct subscription_info info;
            /* SYNC page.cells: acquire pairs with pubsubd's release store. */
            uint64_t cell = atomic_load_acquire(&d->pages[page].cells[k]);
            if (cell == 0 || cell_policy(cell) == POLICY_SPAN ||
                !directory_subscription(d, cell_subscription(cell), &info, NULL) || !info.live)
                continue;
            int r = peers_add(list, info.serial, info.owner.pid, pub->name);
            if (r < 0)
                return r;
        }
        /* SYNC page.next: pairs with the release when a page is linked */
        page = atomic_load_acquire(&d->pages[page].next);
    }
    return 0;
}

static int next_event(struct presence *p, struct shmps_event *ret) {
    if (p->next_event == p->n_events)
        return SHMPS_EMPTY;
    *ret = p->events[p->next_event++];
    return 0;
}

/* Sleep on a generation word until it is no longer `seen`, or the deadline. */
static int await_change(struct shmps *bus, const atomic_u32 *generation, uint32_t seen,
                        uint64_t deadline_ns) {
    struct wait_word word = { .word = generation, .expected = seen };
    int64_t left = time_left(deadline_ns, SLEEP_BOUND_NS);
    if (left <= 0)
        return SHMPS_TIMEOUT;
    wait_on_words(&word, 1, left);
    session_follow(bus);
    return 0;
}

/* ---- a publisher's side */

static int follow_publisher(struct shmps_publisher *pub) {
    if (unlikely(session_ended(pub->bus)))
        session_follow(pub->bus);
    return publisher_check(pub);
}

int shmps_publisher_event(struct shmps_publisher *pub, struct shmps_event *ret,
                          int64_t timeout_ns) {
    CHECK_FORK(pub->bus);
    int r = check_timeout(timeout_ns);
    if (r < 0)
        return r;
    uint64_t deadline = timeout_ns == 0 ? 0 : deadline_of(timeout_ns);
    for (;;) {
        if (next_event(&pub->presence, ret) == 0)
            return 0;
        struct peers list = { .n = 0 };
        /* SYNC topic.generation: before the list is read */
        uint32_t seen = atomic_load_acquire(pub->ring.generation);
        r = follow_publisher(pub);
        if (r == 0)
            r = list_subscribers(pub, &list);
        if (r < 0) {
            free(list.items);
            return r;
        }
        r = compare(&pub->presence, &list, SHMPS_SUBSCRIBER_JOINED);
        if (r < 0)
            return r;
        if (next_event(&pub->presence, ret) == 0)
            return 0;
        if (timeout_ns == 0)
            return SHMPS_EMPTY;
        if (await_change(pub->bus, pub->ring.generation, seen, deadline) != 0)
            return SHMPS_TIMEOUT;
    }
}

int shmps_publisher_wait_subscribers(struct shmps_publisher *pub, uint32_t n, int64_t timeout_ns) {
    CHECK_FORK(pub->bus);
    int r = check_timeout(timeout_ns);
    if (r < 0)
        return r;
    uint64_t deadline = deadline_of(timeout_ns);
    for (;;) {
        struct topic_info info;
        /* SYNC topic.generation: before the count is read */
        uint32_t seen = atomic_load_acquire(pub->ring.generation);
        r = follow_publisher(pub);
        if (r < 0)
            return r;
        if (directory_topic(&pub->bus->directory, pub->topic, &info, NULL) &&
            info.subscribers >= n)
            return 0;
        if (await_change(pub->bus, pub->ring.generation, seen, deadline) != 0)
            return SHMPS_TIMEOUT;
    }
}

/* ---- a subscriber's side */

/* Topics that have appeared since are followed by a refresh; what it says of single rings, takes
 * will say again. */
static int follow_subscriber(struct shmps_subscriber *sub) {
    if (unlikely(session_ended(sub->bus)))
        session_follow(sub->bus);
    int r = subscriber_check(sub);
    if (r < 0 || !subscriber_stale(sub))
        return r;
    r = subscriber_refresh(sub);
    return refresh_failed(r) ? r : 0;
}

int shmps_subscriber_event(struct shmps_subscriber *sub, struct shmps_event *ret,
                           int64_t timeout_ns) {
    CHECK_FORK(sub->bus);
    int r = check_timeout(timeout_ns);
    if (r < 0)
        return r;
    uint64_t deadline = timeout_ns == 0 ? 0 : deadline_of(timeout_ns);
    for (;;) {
        if (next_event(&sub->presence, ret) == 0)
            return 0;
        struct peers list = { .n = 0 };
        /* SYNC topic.generation: before the list is read */
        uint32_t seen = atomic_load_acquire(sub->generation);
        r = follow_subscriber(sub);
        if (r == 0)
            r = list_publishers(sub, &list);
        if (r < 0) {
            free(list.items);
            return r;
        }
        r = compare(&sub->presence, &list, SHMPS_PUBLISHER_JOINED);
        if (r < 0)
            return r;
        if (next_event(&sub->presence, ret) == 0)
            return 0;
        if (timeout_ns == 0)
            return SHMPS_EMPTY;
        if (await_change(sub->bus, sub->generation, seen, deadline) != 0)
            return SHMPS_TIMEOUT;
    }
}

int shmps_subscriber_wait_publishers(struct shmps_subscriber *sub, uint32_t n,
                                     int64_t timeout_ns) {
    CHECK_FORK(sub->bus);
    int r = check_timeout(timeout_ns);
    if (r < 0)
        return r;
    uint64_t deadline = deadline_of(timeout_ns);
    for (;;) {
        uint32_t found = 0;
        /* SYNC topic.generation: before the counts are read */
        uint32_t seen = atomic_load_acquire(sub->generation);
        r = follow_subscriber(sub);
        if (r < 0)
            return r;
        for (const struct topic_view *t = sub->topics; t; t = t->next) {
            struct topic_info info;
            if (directory_topic(&sub->bus->directory, t->index, &info, NULL) &&
                info.serial == t->serial)
                found += info.publishers;
        }
        if (found >= n)
            return 0;
        if (await_change(sub->bus, sub->generation, seen, deadline) != 0)
            return SHMPS_TIMEOUT;
    }
}
