#include "client/client.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define RECONNECT_PAUSE_NS UINT64_C(50000000)

/* Pubsubd has answered a claim: it knows the handle again, or no longer. */
static void claim_answered(const struct shmps *bus, struct claim *claim, atomic_u32 *gone, int r) {
    claim->session = bus->session_number;
    claim->asked = 0;
    if (r < 0)
        atomic_store_relaxed(gone, 1); /* relaxed: only ever set, as `rebuilt` */
}

/* Is it the late answer to a claim? */
static bool is_claim(struct shmps *bus, const struct wire_reply *reply) {
    uint32_t sequence = reply->header.sequence;
    for (struct shmps_publisher *p = bus->publishers; p; p = p->next)
        if (p->claim.asked == sequence) {
            claim_answered(bus, &p->claim, &p->lost, reply->status);
            return true;
        }
    for (struct shmps_subscriber *s = bus->subscribers; s; s = s->next)
        if (s->claim.asked == sequence) {
            claim_answered(bus, &s->claim, &s->gone, reply->status);
            return true;
        }
    return false;
}

/* An answer that came too late. What it has opened is closed again: one more answer to come. */
static void discard(struct shmps *bus, const struct wire_reply *reply) {
    if (is_claim(bus, reply)) {
        bus->late--;
        return;
    }
    bool opened = reply->header.type == (WIRE_REPLY | WIRE_OPEN_PUBLISHER) ||
                  reply->header.type == (WIRE_REPLY | WIRE_OPEN_SUBSCRIBER);
    if (opened && reply->status == 0) {
        struct wire_close request;
        wire_init(&request, WIRE_CLOSE, ++bus->sequence);
        request.serial = reply->u.publisher.serial; /* in the same place for both */
        if (wire_send(bus->session, &request, -1) == 0)
            return;
    }
    bus->late--;
}

/* The reply to request `sequence`; late ones before it are discarded. As wire_receive(). */
static int receive(struct shmps *bus, uint32_t sequence, union wire_message *message,
                   size_t *ret_bytes, int *ret_fd, int64_t timeout_ns) {
    for (;;) {
        _cleanup_close_ int fd = -1;
        int r = wire_receive(bus->session, message, ret_bytes, &fd, timeout_ns);
        bool came = (r == 0 || r == SHMPS_E_NO_DESCRIPTORS) && *ret_bytes > 0;
        if (came && bus->late > 0 && message->header.sequence != sequence &&
            wire_check(message, *ret_bytes, 1) == 0) {
            discard(bus, &message->reply);
            continue;
        }
        if (fd >= 0 && !ret_fd)
            return error_raise(SHMPS_E_PROTOCOL, "pubsubd sent a descriptor unasked");
        if (ret_fd)
            *ret_fd = steal_fd(&fd);
        return r;
    }
}

/* One request (initialised by wire_init) and its reply. When the time is over the session goes on:
 * pubsubd may be stopped, and a hang-up would be taken for our death. */
static int exchange(struct shmps *bus, void *request, struct wire_reply *ret, int *ret_fd) {
    struct wire_header *header = request;
    uint32_t sequence = ++bus->sequence;
    header->sequence = sequence;
    int r = wire_send(bus->session, request, -1);
    if (r < 0)
        return r;
    union wire_message message;
    size_t bytes;
    int64_t timeout_ns = time_left(bus->deadline_ns, bus->timeout_ns);
    r = receive(bus, sequence, &message, &bytes, ret_fd, timeout_ns > 0 ? timeout_ns : 1);
    if (r == SHMPS_TIMEOUT) {
        bus->late++;
        ret->status = SHMPS_E_NO_DAEMON; /* not a broken session */
        return error_raise(SHMPS_E_NO_DAEMON,
                           "pubsubd on %s (process %d) has not answered in %lld ms; is it "
                           "stopped?",
                           bus->socket_path, (int)address_daemon(bus->socket_path, bus->session),
                           (long long)(bus->timeout_ns / 1000000));
    }
    if (r == 0 && bytes == 0)
        return error_raise(SHMPS_E_NO_DAEMON,
                           "pubsubd of instance \"%s\" closed the connection", bus->instance);
    bool lost_descriptor = r == SHMPS_E_NO_DESCRIPTORS;
    if (r < 0 && !lost_descriptor)
        return r;
    r = wire_check(&message, bytes, 1);
    if (r < 0)
        return r;
    if (message.header.type != (WIRE_REPLY | header->type) || message.header.sequence != sequence)
        return error_raise(SHMPS_E_PROTOCOL,
                           "pubsubd answered message %u with another one's reply", sequence);
    *ret = message.reply;
    if (ret->status != 0)
        return error_raise(ret->status < 0 ? ret->status : SHMPS_E_PROTOCOL, "%s", ret->detail);
    if (lost_descriptor)
        return error_raise(SHMPS_E_NO_DESCRIPTORS,
                           "this process has no file descriptors left for what pubsubd sent; "
                           "close some or raise RLIMIT_NOFILE (ulimit -n)");
    return 0;
}

/* Did the exchange itself fail, so that the socket is of no more use? An error that pubsubd
 * answered leaves it usable. */
static bool is_broken(int r, const struct wire_reply *reply) {
    return r < 0 && r != SHMPS_E_NO_DESCRIPTORS && reply->status == 0;
}

int error_rebuilt(const struct shmps *bus) {
    return error_raise(
        SHMPS_E_CLOSED,
        "pubsubd of instance \"%s\" has ended and was started anew with an empty directory; "
        "close this connection and connect again",
        bus->instance);
}

void session_drop(struct shmps *bus) {
    /* Hung up for everyone: forked children and pending polls hold the same socket. */
    if (bus->session >= 0)
        shutdown(bus->session, SHUT_RDWR);
    scope_close(&bus->session);
    bus->session = -1;
    bus->late = 0;
}

static int map_directory(struct shmps *bus, int fd) {
    int r = segment_map(fd, SEGMENT_READ, sizeof(struct directory_header), &bus->directory_map);
    if (r == 0)
        r = directory_attach(&bus->directory, bus->directory_map.base, bus->directory_map.bytes);
    return r;
}

static int hello(struct shmps *bus) {
    struct wire_hello request;
    struct wire_reply reply = { .status = 0 };
    _cleanup_close_ int fd = -1;
    bool first = bus->directory_map.base == NULL;
    wire_init(&request, WIRE_HELLO, 0);
    request.version_min = WIRE_VERSION_MIN;
    request.version_max = WIRE_VERSION;
    request.flags = (bus->fence ? 0 : WIRE_HELLO_BARE) | (bus->admin ? WIRE_HELLO_ADMIN : 0);
    request.fingerprint = layout_fingerprint();
    request.secret = bus->secret;
    request.directory = first ? 0 : bus->directory.header->identity.serial;
    memcpy(request.instance, bus->instance, sizeof bus->instance);
    int r = exchange(bus, &request, &reply, bus->admin ? NULL : &fd);
    if (r < 0)
        return r;
    if ((fd < 0) != bus->admin || reply.u.hello.version < WIRE_VERSION_MIN ||
        reply.u.hello.version > WIRE_VERSION ||
        !memchr(reply.u.hello.instance, 0, INSTANCE_BYTES) ||
        !instance_name_valid(reply.u.hello.instance))
        return error_raise(SHMPS_E_PROTOCOL, "pubsubd's answer to hello is not well-formed");
    if (first) {
        bus->uid = reply.u.hello.uid;
        memcpy(bus->instance, reply.u.hello.instance, sizeof bus->instance);
        r = bus->admin ? 0 : map_directory(bus, fd);
        if (r < 0)
            return error_context(r, "cannot use the directory of instance \"%s\"", bus->instance);
    }
    if (!bus->admin && reply.u.hello.directory != bus->directory.header->identity.serial)
        atomic_store_relaxed(&bus->rebuilt, 1); /* relaxed: as in session_rebuilt() */
    bus->epoch = reply.u.hello.epoch;
    bus->session_number++;
    return 0;
}

/* What cannot be spoken with can still be told to end. */
static void name_daemon(const struct shmps *bus, int error) {
    struct told told = error_tell();
    int pid = (int)address_daemon(bus->socket_path, bus->session);
    error_again(error, &told);
    if (pid > 0)
        error_context(error, "pubsubd is process %d (to end it: kill %d)", pid, pid);
}

int session_open(struct shmps *bus) {
    int64_t timeout_ns = time_left(bus->deadline_ns, bus->timeout_ns);
    int r = address_connect(bus->socket_path, timeout_ns > 0 ? timeout_ns : 1, &bus->session);
    if (r == 0)
        r = hello(bus);
    if (r == SHMPS_E_VERSION)
        name_daemon(bus, r);
    if (r < 0)
        session_drop(bus);
    return r;
}

/* ---- coming back: everything that was open is claimed by its serial */

/* Send a claim. False: no answer in time - it may come late -, or the session has broken. */
static bool send_claim(struct shmps *bus, void *request, struct claim *claim, atomic_u32 *gone) {
    const struct wire_header *header = request;
    struct wire_reply reply = { .status = 0 };
    int r = exchange(bus, request, &reply, NULL);
    if (is_broken(r, &reply))
        session_drop(bus);
    else if (r == SHMPS_E_NO_DAEMON)
        claim->asked = header->sequence;
    else
        claim_answered(bus, claim, gone, r);
    return claim->session == bus->session_number;
}

static bool claim_publisher(struct shmps *bus, struct shmps_publisher *pub) {
    struct wire_open_publisher request;
    if (pub->claim.session == bus->session_number)
        return true;
    wire_init(&request, WIRE_OPEN_PUBLISHER, 0);
    memcpy(request.topic, pub->name, sizeof request.topic);
    request.claim = pub->serial;
    return send_claim(bus, &request, &pub->claim, &pub->lost);
}

static bool claim_subscriber(struct shmps *bus, struct shmps_subscriber *sub) {
    struct wire_open_subscriber request;
    if (sub->claim.session == bus->session_number || sub->policy == POLICY_NONE)
        return true; /* an observer was never announced */
    wire_init(&request, WIRE_OPEN_SUBSCRIBER, 0);
    memcpy(request.filter, sub->filter, sizeof request.filter);
    request.policy = sub->policy;
    request.claim = sub->serial;
    return send_claim(bus, &request, &sub->claim, &sub->gone);
}

static void send_drained(struct shmps *bus, uint64_t ring) {
    struct wire_drained hint;
    wire_init(&hint, WIRE_DRAINED, ++bus->sequence);
    hint.ring = ring;
    if (bus->session >= 0 && wire_send(bus->session, &hint, -1) == SHMPS_E_NO_DAEMON)
        session_drop(bus);
}

/* Claim what this session has not claimed yet. When an answer does not come in time - pubsubd may
 * be stopped, or busy with others - the session stays, as a hang-up would be taken for our death,
 * and this goes on when the answer has come. */
static void claim_all(struct shmps *bus) {
    bus->claiming = true;
    for (struct shmps_publisher *p = bus->publishers; p; p = p->next)
        if (!claim_publisher(bus, p))
            return;
    for (struct shmps_subscriber *s = bus->subscribers; s; s = s->next)
        if (!claim_subscriber(bus, s))
            return;
    bus->claiming = false;
    if (bus->admin)
        return;
    send_drained(bus, 0); /* those that were drained while it was down; and what is not claimed has
                             been closed */
    bus->unclosed = false;
}

static int reconnect(struct shmps *bus) {
    session_drop(bus);
    uint64_t now = now_ns();
    if (now < bus->retry_ns)
        return error_raise(SHMPS_E_NO_DAEMON,
                           "pubsubd of instance \"%s\" does not run; start it again, clients "
                           "come back by themselves",
                           bus->instance);
    /* a pause of its own for each connection, so that a thousand do not come at once */
    bus->retry_ns = now + RECONNECT_PAUSE_NS + bus->secret % RECONNECT_PAUSE_NS;
    int r = session_open(bus);
    if (r < 0 || session_rebuilt(bus))
        return r;
    claim_all(bus);
    return bus->session >= 0
               ? 0
               : error_raise(SHMPS_E_NO_DAEMON, "pubsubd of instance \"%s\" went down again",
                             bus->instance);
}

int session_request(struct shmps *bus, void *request, struct wire_reply *ret, int *ret_fd) {
    for (int attempt = 0;; attempt++) {
        if (bus->session < 0 && attempt == 0)
            bus->retry_ns = 0; /* somebody asks: it may have been started just now */
        int r = bus->session >= 0 ? 0 : reconnect(bus);
        if (r < 0)
            return r;
        if (session_rebuilt(bus))
            return error_rebuilt(bus);
        ret->status = 0;
        r = exchange(bus, request, ret, ret_fd);
        if (!is_broken(r, ret))
            return r;
        session_drop(bus);
        if (attempt > 0 || r != SHMPS_E_NO_DAEMON)
            return r;
        bus->retry_ns = 0; /* it has just gone: one new one is worth a look at once */
    }
}

static bool is_hung_up(int fd) {
    struct pollfd p = { .fd = fd, .events = POLLRDHUP };
    return poll(&p, 1, 0) > 0;
}

/* Late answers must not stay: they make the session's socket, and so descriptors, readable. */
static void take_late(struct shmps *bus) {
    union wire_message message;
    size_t bytes = 0;
    while (bus->session >= 0 && bus->late > 0)
        if (receive(bus, 0, &message, &bytes, NULL, 0) != 0 || bytes == 0)
            return;
}

void session_follow(struct shmps *bus) {
    if (bus->observe)
        return;
    pthread_mutex_lock(&bus->lock);
    /* SYNC directory.epoch: acquire pairs with the release of a starting daemon; it listens
     * before. */
    uint64_t epoch = atomic_load_acquire(&bus->directory.header->epoch);
    take_late(bus);
    if (epoch != bus->epoch_followed) { /* there is a new one for certain: no pause before it */
        bus->epoch_followed = epoch;
        bus->retry_ns = 0;
    }
    if (bus->session < 0 || epoch != bus->epoch || is_hung_up(bus->session))
        reconnect(bus);
    else if (bus->claiming && bus->late == 0)
        claim_all(bus);
    pthread_mutex_unlock(&bus->lock);
}

void session_drained(struct shmps *bus, uint64_t ring) {
    pthread_mutex_lock(&bus->lock);
    send_drained(bus, ring);
    pthread_mutex_unlock(&bus->lock);
}

/* ---- what is closed while nobody answers
 *
 * pubsubd takes it for open, as its process lives: a reliable subscription that nobody reads would
 * hold back every publisher to come. The next reconnect of the connection tells; if there is none
 * to come, the next connection of the process does, in the name of the one that has gone. */

struct left_behind {
    uint64_t secret;
    uint64_t fork_mark;
    struct left_behind *next;
    char socket_path[SOCKET_PATH_BYTES];
};
static struct left_behind *left_behind; /* of this process, guarded by: */
static pthread_mutex_t left_lock = PTHREAD_MUTEX_INITIALIZER;

void session_close_serial(struct shmps *bus, uint64_t serial) {
    struct wire_close request;
    struct wire_reply reply;
    wire_init(&request, WIRE_CLOSE, 0);
    request.serial = serial;
    reply.status = 0;
    int r = session_request(bus, &request, &reply, NULL);
    if (r < 0 && (r == SHMPS_E_NO_DAEMON || reply.status == 0)) /* pubsubd has not answered */
        bus->unclosed = true;
}

static void keep_left(struct left_behind *left) {
    pthread_mutex_lock(&left_lock);
    left->next = left_behind;
    left_behind = left;
    pthread_mutex_unlock(&left_lock);
}

void session_leave(struct shmps *bus) {
    struct left_behind *left = bus->unclosed ? calloc(1, sizeof *left) : NULL;
    if (!left)
        return; /* without memory it stays open until the process ends */
    left->secret = bus->secret;
    left->fork_mark = bus->fork_mark;
    memcpy(left->socket_path, bus->socket_path, sizeof left->socket_path);
    keep_left(left);
}

static struct left_behind *take_left(const struct shmps *bus) {
    struct left_behind *found = NULL;
    if (pthread_mutex_trylock(&left_lock) != 0)
        return NULL; /* another thread is at it; or was, when this process was forked from it */
    for (struct left_behind **p = &left_behind; *p && !found; p = found ? p : &(*p)->next)
        if ((*p)->fork_mark == bus->fork_mark &&
            strcmp((*p)->socket_path, bus->socket_path) == 0) {
            found = *p;
            *p = found->next;
        }
    pthread_mutex_unlock(&left_lock);
    return found;
}

void session_settle(struct shmps *bus) {
    struct left_behind *left;
    bool settled = true;
    while (settled && (left = take_left(bus))) {
        struct shmps old = *bus; /* its session is another, in the name of the one that has gone */
        struct wire_plain ping;
        struct wire_reply reply = { .status = 0 };
        old.session = -1;
        old.late = 0;
        old.secret = left->secret;
        if (session_open(&old) == 0) {
            send_drained(&old, 0);
            wire_init(&ping, WIRE_PING, 0); /* answered: it has looked */
            settled = exchange(&old, &ping, &reply, NULL) == 0;
        } else {
            settled = false;
        }
        session_drop(&old);
        if (settled)
            free(left);
        else
            keep_left(left); /* for the next one */
    }
}
