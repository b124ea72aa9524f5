#include "client/client.h"

#include <limits.h>
#include <string.h>

static void wake_bell(struct shmps_publisher *pub) {
    /* All of them: observers wait on it too, whom no roster knows. */
    wake_word((const atomic_u32 *)&pub->ring.ring->bell, INT_MAX);
}

static uint64_t stamp(const struct shmps_publisher *pub) {
    return pub->timestamps ? now_ns() : 0;
}

/* ---- open, grow, close */

static void unmap_ring(struct shmps_publisher *pub) {
    for (uint32_t i = 0; i < pub->n_pages; i++)
        segment_unmap(&pub->pages[i].map);
    pub->n_pages = 0;
    segment_unmap(&pub->map);
    free(pub->memory);
    pub->memory = NULL;
}

/* Begin publishing into the ring that pubsubd has answered with. On failure nothing has changed.
 * Until the old one says that it has a successor, the publisher could go on in it. */
static int adopt_ring(struct shmps_publisher *pub, int fd, const struct wire_reply *reply) {
    struct shmps *bus = pub->bus;
    struct ring_mapping m;
    int r = attach_ring_fd(bus, fd, reply->u.publisher.serial, &m);
    if (r < 0)
        return error_context(r, "cannot use the ring for topic \"%s\"", pub->name);
    if (reply->u.publisher.topic >= bus->directory.geometry.topics) {
        segment_unmap(&m.map);
        return error_raise(SHMPS_E_PROTOCOL,
                           "pubsubd answered with a topic that the directory does not have");
    }
    size_t bytes = ring_publisher_memory(&m.g);
    void *memory = calloc(1, bytes ? bytes : 1);
    if (!memory) {
        segment_unmap(&m.map);
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for the state of a ring of %u slots",
                           m.g.depth);
    }
    struct ring_publisher next;
    ring_publisher_init(&next, m.map.base, &m.g,
                        directory_topic_generation(&bus->directory, reply->u.publisher.topic),
                        memory);
    if (pub->ring.ring) { /* it has grown */
        ring_publisher_succeed(&next, &pub->ring);
        if (ring_hand_over(&pub->ring, reply->u.publisher.serial))
            wake_bell(pub);
    }
    unmap_ring(pub);
    pub->stalled_ns = 0;
    pub->n_evicted_seats = 0; /* in the new ring nobody is */
    pub->ring = next;
    pub->map = m.map;
    pub->memory = memory;
    pub->serial = reply->u.publisher.serial;
    pub->id = m.g.publisher;
    pub->topic = reply->u.publisher.topic;
    pub->ring.readers = pub->readers;
    /* relaxed: stale, on purpose */
    pub->ring.generation_seen = atomic_load_relaxed(pub->ring.generation) - 1;
    return 0;
}

/* pubsubd has made a ring that this process cannot use. */
static int refuse_ring(struct shmps_publisher *pub, const struct wire_reply *reply, int r) {
    struct told told = error_tell();
    session_close_serial(pub->bus, reply->u.publisher.serial);
    return error_again(r, &told);
}

static int request_ring(struct shmps_publisher *pub, uint64_t message_bytes,
                        uint64_t predecessor) {
    struct wire_open_publisher request;
    struct wire_reply reply = { .status = 0 };
    _cleanup_close_ int fd = -1;
    wire_init(&request, WIRE_OPEN_PUBLISHER, 0);
    memcpy(request.topic, pub->name, sizeof request.topic);
    request.depth = pub->depth;
    request.pins = pub->pins;
    request.message_bytes = message_bytes;
    request.predecessor = predecessor;
    request.history = pub->history;
    request.flags = (pub->timestamps ? RING_TIMESTAMPS : 0) |
                    (pub->explicit_size ? RING_EXPLICIT_SIZE : 0);
    int r = session_request(pub->bus, &request, &reply, &fd);
    if (r == SHMPS_E_NO_DESCRIPTORS && reply.u.publisher.serial != 0)
        return refuse_ring(pub, &reply, r); /* it could not be received */
    if (r < 0)
        return error_context(r, "cannot open a publisher on \"%s\"", pub->name);
    if (fd < 0)
        return error_raise(SHMPS_E_PROTOCOL, "pubsubd sent no descriptor for the ring of \"%s\"",
                           pub->name);
    pub->claim.session = pub->bus->session_number;
    r = adopt_ring(pub, fd, &reply);
    if (r < 0)
        return refuse_ring(pub, &reply, r);
    if (predecessor != 0)
        session_close_serial(pub->bus, predecessor);
    return 0;
}

/* A larger message than the ring can take: a larger ring, unless the size was set explicitly. */
static int grow(struct shmps_publisher *pub, size_t bytes) {
    if (bytes > SHMPS_MESSAGE_BYTES_MAX)
        return error_raise(SHMPS_E_SIZE, "a message of %zu bytes; the largest possible has %llu",
                           bytes, (unsigned long long)SHMPS_MESSAGE_BYTES_MAX);
    if (pub->explicit_size)
        return error_raise(SHMPS_E_SIZE,
                           "a message of %zu bytes on \"%s\", which was opened with message_bytes "
                           "= %llu; open it "
                           "with a larger size, or with 0 to let it grow",
                           bytes, pub->name, (unsigned long long)pub->ring.g.message_bytes);
    /* at least twice as large, so that slowly growing messages do not cost a ring each */
    uint64_t larger = max_u64(bytes,
                              min_u64(2 * pub->ring.g.message_bytes, SHMPS_MESSAGE_BYTES_MAX));
    pthread_mutex_lock(&pub->bus->lock);
    int r = request_ring(pub, larger, pub->serial);
    if (larger > bytes && /* what it needs may be allowed, or fit */
        (r == SHMPS_E_SIZE || r == SHMPS_E_LIMIT || r == SHMPS_E_NO_SPACE))
        r = request_ring(pub, bytes, pub->serial);
    pthread_mutex_unlock(&pub->bus->lock);
    return r < 0 ? r : roster_refresh(pub);
}

static int check_options(const struct shmps_publisher_options *given,
                         struct shmps_publisher_options *o) {
    *o = (struct shmps_publisher_options)SHMPS_PUBLISHER_OPTIONS_INIT;
    if (given) {
        if (given->size < offsetof(struct shmps_publisher_options, depth) ||
            given->size > sizeof *o)
            return error_raise(
                SHMPS_E_INVALID,
                "shmps_publisher_options.size is %zu, this library knows up to %zu; "
                "initialise it with SHMPS_PUBLISHER_OPTIONS_INIT",
                given->size, sizeof *o);
        memcpy(o, given, given->size);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(o->reserved); i++)
        if (o->reserved[i] != 0 || o->reserved0 != 0)
            return error_raise(SHMPS_E_INVALID,
                               "a reserved field of shmps_publisher_options is not zero");
    if (o->timestamps < 0 || o->timestamps > SHMPS_TIMESTAMPS_OFF || o->wait < 0 ||
        o->wait > SHMPS_WAIT_SLEEP)
        return error_raise(SHMPS_E_INVALID,
                           "timestamps or wait of shmps_publisher_options is out of range");
    if (o->message_bytes > SHMPS_MESSAGE_BYTES_MAX)
        return error_raise(
            SHMPS_E_SIZE, "message_bytes is %llu; the largest possible message has %llu",
            (unsigned long long)o->message_bytes, (unsigned long long)SHMPS_MESSAGE_BYTES_MAX);
    if (o->depth == 1 || o->depth > RING_DEPTH_MAX)
        return error_raise(SHMPS_E_INVALID, "depth is %u; it may be 2 to %u, or 0 for the default",
                           o->depth, RING_DEPTH_MAX);
    if (o->pins > RING_PINS_MAX)
        return error_raise(SHMPS_E_INVALID, "pins is %u; it may be at most %u", o->pins,
                           RING_PINS_MAX);
    if (o->history > RING_DEPTH_MAX)
        return error_raise(SHMPS_E_INVALID, "history is %u; no ring holds more than %u samples",
                           o->history, RING_DEPTH_MAX);
    return 0;
}

int shmps_publisher_open(struct shmps *bus, const char *topic,
                         const struct shmps_publisher_options *options,
                         struct shmps_publisher **ret) {
    struct shmps_publisher_options o;
    CHECK_FORK(bus);
    int r = topic_name_check(topic);
    if (r == 0)
        r = check_options(options, &o);
    if (r == 0 && (!ret || bus->observe || bus->admin))
        r = error_raise(ret ? SHMPS_E_STATE : SHMPS_E_INVALID,
                        "a publisher needs a connection that is neither observe nor admin, "
                        "and a place for its handle");
    if (r < 0)
        return r;
    struct shmps_publisher *pub = calloc(1, sizeof *pub);
    if (!pub)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for a publisher");
    pub->bus = bus;
    pub->timestamps = o.timestamps == SHMPS_TIMESTAMPS_ON;
    pub->explicit_size = o.message_bytes != 0;
    pub->wait = o.wait;
    pub->depth = o.depth;
    pub->pins = o.pins;
    pub->history = o.history;
    memcpy(pub->name, topic, strlen(topic) + 1);
    pthread_mutex_lock(&bus->lock);
    r = request_ring(pub, o.message_bytes, 0);
    if (r == 0) {
        pub->next = bus->publishers;
        bus->publishers = pub;
    }
    pthread_mutex_unlock(&bus->lock);
    if (r == 0 && (r = roster_refresh(pub)) == 0) {
        *ret = pub;
        return 0;
    }
    struct told told = error_tell();
    shmps_publisher_close(pub);
    return error_again(r, &told);
}

void shmps_publisher_close(struct shmps_publisher *pub) {
    if (!pub)
        return;
    struct shmps *bus = pub->bus;
    if (!is_forked(bus)) {
        pthread_mutex_lock(&bus->lock);
        for (struct shmps_publisher **p = &bus->publishers; *p; p = &(*p)->next)
            if (*p == pub) {
                session_close_serial(bus, pub->serial); /* may reconnect, and claim it first */
                *p = pub->next;
                break;
            }
        pthread_mutex_unlock(&bus->lock);
        unmap_ring(pub);
    } else { /* the child's copy of the list; nothing is mapped here */
        for (struct shmps_publisher **p = &bus->publishers; *p; p = &(*p)->next)
            if (*p == pub) {
                *p = pub->next;
                break;
            }
        free(pub->memory);
    }
    presence_free(&pub->presence);
    free(pub->readers);
    free(pub->evicted_seats);
    free(pub);
}

/* ---- publish */

/* The roster has changed since the room was found: a sleeper of a group that we did not know may
 * have armed before the commit. If its group cannot be had, the bell is rung for it all the same:
 * a wake without it would pass who has looked, and is about to sleep (models/group.pml). */
static void finish_stale(struct shmps_publisher *pub) {
    if (roster_refresh(pub) < 0)
        ring_raise_bell(&pub->ring);
    else if (!ring_finish(&pub->ring))
        return;
    wake_bell(pub);
}

static inline void finish(struct shmps_publisher *pub) {
    if (unlikely(ring_finish(&pub->ring)))
        wake_bell(pub);
    if (unlikely(ring_roster_stale(&pub->ring)))
        finish_stale(pub);
}

/* What every publish checks first; then there is room for n messages of up to `bytes`. */
static int prepare_slow(struct shmps_publisher *pub, size_t bytes, uint32_t n,
                        int64_t timeout_ns) {
    if (pub->loaned)
        return error_raise(SHMPS_E_STATE, "a loan is open on \"%s\"; publish or discard it first",
                           pub->name);
    int r = check_timeout(timeout_ns);
    if (r == 0 && bytes > pub->ring.g.message_bytes)
        r = grow(pub, bytes);
    return r < 0 ? r : room_wait(pub, n, timeout_ns);
}

static inline int prepare(struct shmps_publisher *pub, size_t bytes, uint32_t n,
                          int64_t timeout_ns) {
    CHECK_FORK(pub->bus);
    if (likely(ring_can_claim(&pub->ring, n) && !ring_roster_stale(&pub->ring) && !pub->loaned &&
               bytes <= pub->ring.g.message_bytes && timeout_ns >= SHMPS_FOREVER))
        return 0;
    return prepare_slow(pub, bytes, n, timeout_ns);
}

int shmps_publish(struct shmps_publisher *pub, const void *data, size_t bytes, uint64_t tag,
                  int64_t timeout_ns) {
    int r = prepare(pub, bytes, 1, timeout_ns);
    if (unlikely(r != 0))
        return r;
    ring_append(&pub->ring, data, bytes, tag, stamp(pub));
    finish(pub);
    return 0;
}

int shmps_loan(struct shmps_publisher *pub, size_t bytes, int64_t timeout_ns, void **ret) {
    int r = prepare(pub, bytes, 1, timeout_ns);
    if (unlikely(r != 0))
        return r;
    if (unlikely(!ret))
        return error_raise(SHMPS_E_INVALID,
                           "shmps_loan() needs a place for the loan; it got NULL");
    *ret = ring_claim(&pub->ring, bytes);
    pub->loan_bytes = bytes;
    pub->loaned = true;
    return 0;
}

static int check_loan(const struct shmps_publisher *pub) {
    CHECK_FORK(pub->bus);
    if (unlikely(!pub->loaned))
        return error_raise(SHMPS_E_STATE, "no loan is open on \"%s\"", pub->name);
    return 0;
}

int shmps_publish_loan(struct shmps_publisher *pub, size_t bytes, uint64_t tag) {
    int r = check_loan(pub);
    if (unlikely(r < 0))
        return r;
    if (unlikely(bytes > pub->loan_bytes))
        return error_raise(
            SHMPS_E_SIZE,
            "%zu bytes of a loan of %zu; loan as much as you need, publish as much as you used",
            bytes, pub->loan_bytes);
    pub->loaned = false;
    ring_commit(&pub->ring, bytes, tag, stamp(pub));
    finish(pub);
    return 0;
}

int shmps_discard(struct shmps_publisher *pub) {
    int r = check_loan(pub);
    if (r < 0)
        return r;
    ring_unclaim(&pub->ring);
    pub->loaned = false;
    return 0;
}

int shmps_publish_batch(struct shmps_publisher *pub, const struct shmps_message *messages,
                        size_t n, enum shmps_batch how, int64_t timeout_ns, size_t *ret_done) {
    size_t bytes = 0;
    *ret_done = 0;
    CHECK_FORK(pub->bus);
    int r = check_batch(how, timeout_ns);
    if (r < 0 || n == 0)
        return r;
    for (size_t i = 0; i < n; i++)
        bytes = max_u64(bytes, messages[i].bytes);
    if (bytes > pub->ring.g.message_bytes && !pub->loaned) {
        r = grow(pub, bytes);
        if (r < 0)
            return r;
    }
    if (how == SHMPS_EXACTLY && n > pub->ring.g.depth)
        return error_raise(
            SHMPS_E_INVALID,
            "a batch of exactly %zu messages in a ring of %u slots; open the publisher with a "
            "larger depth, or publish up to n",
            n, pub->ring.g.depth);
    r = prepare(pub, bytes, how == SHMPS_EXACTLY ? (uint32_t)n : 1, timeout_ns);
    if (r != 0)
        return r;
    if (!ring_can_claim(&pub->ring, (uint32_t)min_u64(n, pub->ring.g.depth)))
        ring_reclaim(&pub->ring, (uint32_t)min_u64(
                                     n, pub->ring.g.depth)); /* whatever it finds: one is there */
    size_t done = 0;
    uint64_t time_ns = stamp(pub);
    for (; done < n && ring_can_claim(&pub->ring, 1); done++)
        ring_append(&pub->ring, messages[done].data, messages[done].bytes, messages[done].tag,
                    time_ns);
    finish(pub);
    *ret_done = done;
    return 0;
}

int shmps_publisher_stats(struct shmps_publisher *pub, struct shmps_publisher_stats *ret) {
    CHECK_FORK(pub->bus);
    if (ret->size < offsetof(struct shmps_publisher_stats, messages) || ret->size > sizeof *ret)
        return error_raise(SHMPS_E_INVALID,
                           "shmps_publisher_stats.size is %zu, this library knows up to %zu; "
                           "initialise it with SHMPS_PUBLISHER_STATS_INIT",
                           ret->size, sizeof *ret);
    struct topic_info info;
    bool found = directory_topic(&pub->bus->directory, pub->topic, &info, NULL);
    const struct ring_header *ring = pub->ring.ring;
    struct shmps_publisher_stats stats = {
        .size = ret->size,
        .messages = pub->ring.messages,
        .bytes = pub->ring.bytes,
        .stalls = atomic_load_relaxed(&ring->counters.stalls), /* relaxed: our own counters */
        .wakes = atomic_load_relaxed(&ring->counters.wakes),
        .evictions = pub->evictions,
        .subscribers = found ? info.subscribers : 0,
        .depth = pub->ring.g.depth,
        .message_bytes = pub->ring.g.message_bytes,
        .id = pub->id,
    };
    memcpy(ret, &stats, stats.size);
    return 0;
}
