/* client/client.h - the objects behind include/shmps/shmps.h. The only room that implements it.
 *
 *     names.c       topic names, version
 *     connection.c  connect, close; the directory; the mark that tells a forked child
 *     session.c     requests to pubsubd; reconnecting and claiming what was open
 *     autostart.c   start a pubsubd when none answers
 *     attach.c      map rings and readers segments; find one's own cell in a roster
 *     publisher.c   open, loan, publish; roster.c: who reads; room.c: wait for space
 *     subscriber.c  open, close; view.c: follow the directory; history.c: where to begin;
 *                   missed.c: what has gone unseen
 *     take.c        take, read, release; rest.c: spin, sleep, descriptor
 *     keep.c        close, but keep what is held
 *     presence.c    who is on the other side; dispatch.c: callbacks and the loop's thread
 *
 * Locks. `lock` of a connection guards its session and its two lists, that of `dispatch` the
 * callbacks and who serves them; nothing is called back while one is held, and none is taken under
 * the other. The rest of a handle belongs to the one thread that uses it. */
#ifndef SHMPS_CLIENT_CLIENT_H
#define SHMPS_CLIENT_CLIENT_H

#include <shmps/shmps.h>

#include "base/error.h"
#include "base/process.h"
#include "base/scope.h"
#include "base/segment.h"
#include "layout/directory.h"
#include "layout/ring.h"
#include "ring/publisher.h"
#include "ring/reader.h"
#include "wait/descriptor.h"
#include "wait/futex.h"
#include "wire/address.h"
#include "wire/wire.h"

#include <limits.h>
#include <pthread.h>
#include <semaphore.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a bell's low half is its first word");

/* ---- connection */

/* Callbacks, and who calls them (dispatch.c). */
struct dispatch {
    pthread_mutex_t lock;             /* of all that follows */
    pthread_cond_t served;            /* `serving` is NULL again */
    int epoll;                        /* -1: not yet */
    int stop_event;                   /* eventfd in it */
    struct shmps_subscriber *called;  /* those with a callback, by next_called */
    struct shmps_subscriber *serving; /* its callback may run, in `server` */
    pthread_t server;
    atomic_u32 leave;                 /* somebody waits for `served` */
    bool close_served;                /* its own callback has closed it: the server does it */
    bool close_bus;                   /* a callback has closed the connection: likewise */
    bool busy;                        /* a thread dispatches */
    bool started;                     /* it is the loop's, to be joined */
    bool joining;                     /* somebody does */
    pthread_t thread;
    atomic_u32 stop;                  /* asks it to end */
};

struct shmps {
    uint64_t fork_mark;           /* of the process that opened it */
    pthread_mutex_t lock;
    char instance[INSTANCE_BYTES];
    char socket_path[SOCKET_PATH_BYTES];
    uid_t uid;                    /* of the instance */
    bool observe;
    bool admin;                   /* no directory is mapped */
    bool autostart;
    bool fence;                   /* this process's running side needs fences of its own */
    atomic_u32 rebuilt;           /* pubsubd came back with another directory: every handle is
                                     closed for good */
    int64_t timeout_ns;
    uint64_t deadline_ns;         /* of shmps_connect() as a whole; NEVER once it is done */

    int session;                  /* control socket, -1: down */
    uint32_t sequence;
    uint64_t session_number;      /* counts sessions, so that claims tell theirs */
    bool claiming;                /* not all handles are claimed in this session yet */
    bool unclosed;                /* something was closed while nobody answered */
    uint32_t late;                /* answers still to come that nobody waits for any more */
    uint64_t secret;
    uint64_t epoch;               /* of the daemon that `session` belongs to */
    uint64_t epoch_followed;      /* the last that was seen in the directory */
    uint64_t retry_ns;            /* not before this time is a reconnect tried */

    struct segment_map directory_map;
    struct directory directory;

    struct shmps_publisher *publishers;
    struct shmps_subscriber *subscribers;

    struct dispatch dispatch;
};

/* The mark of this process: a word in a page that the kernel wipes in forked children. NULL before
 * the first connect. */
extern atomic_u64 *fork_word;

#define CHECK_FORK(bus) \
    do { \
        if (unlikely(is_forked(bus))) \
            return error_forked(); \
    } while (0)

static inline bool is_forked(const struct shmps *bus) {
    /* relaxed: this process's own word, changed by fork only */
    return atomic_load_relaxed(fork_word) != bus->fork_mark;
}
int error_forked(void);

/* Keep the detail of an error over a clean-up that may meet errors of its own. */
struct told {
    char detail[ERROR_DETAIL_BYTES];
};
struct told error_tell(void);
int error_again(int code, const struct told *told);

/* connection.c: shmps_close(), at once. */
void connection_end(struct shmps *bus);

/* ---- dispatch.c */

void dispatch_init(struct dispatch *d);
/* In a callback: then the connection is closed after it. */
bool dispatch_close_later(struct dispatch *d);
/* A subscriber that is being closed: its callback does not run any more. false: it is the one
 * that closes it; subscriber_end() is called after it. */
bool dispatch_let_go(struct shmps_subscriber *sub);
/* Does it belong to whoever dispatches? */
bool dispatch_has(struct shmps_subscriber *sub);

/* ---- session.c; the caller holds bus->lock */

/* Connect the socket, say hello. First time: maps the directory. */
int session_open(struct shmps *bus);
void session_drop(struct shmps *bus);
/* One request (initialised by wire_init), one reply with status 0, else its error. Reconnects (and
 * claims) first if the session is down, and once more if it breaks. ret_fd NULL: no descriptor
 * expected. */
int session_request(struct shmps *bus, void *request, struct wire_reply *ret, int *ret_fd);
/* Is there a newer daemon than the one we talk to, or is the session broken? Then reconnect and
 * claim, quietly, and at most every 50 ms. Takes the lock itself. Cheap when nothing is wrong. */
void session_follow(struct shmps *bus);
/* The daemon has ended (not died), so nobody will bump a generation: ask now and then whether
 * there is a new one. */
static inline bool session_ended(const struct shmps *bus) {
    /* relaxed: a hint; session_follow() finds out */
    return atomic_load_relaxed(&bus->directory.header->daemon_state) == DAEMON_ENDED;
}
static inline bool session_rebuilt(const struct shmps *bus) {
    return atomic_load_relaxed(&bus->rebuilt) != 0; /* relaxed: a process's own flag, only ever
                                                       set */
}
int error_rebuilt(const struct shmps *bus);
/* Close a publisher or a subscription by its serial; the caller holds the lock. If none answers,
 * it is not claimed at the next reconnect, and pubsubd closes it then. */
void session_close_serial(struct shmps *bus, uint64_t serial);
/* The connection ends: if something could not be closed, the process remembers that. */
void session_leave(struct shmps *bus);
/* A new connection of this process: what earlier ones to the same daemon have left is closed. */
void session_settle(struct shmps *bus);
/* Hint that a retired ring is drained. Takes the lock itself. */
void session_drained(struct shmps *bus, uint64_t ring);

/* ---- autostart.c */

/* A pubsubd in the making. */
struct start {
    pid_t watcher; /* our child, pubsubd's parent; ends with it, and with what it ended with */
    int status;    /* of the watcher, once it has */
    bool ended;
    int log;       /* what pubsubd has written to stderr */
    sem_t *ready;
    char path[PATH_MAX];
};
/* Start pubsubd for an instance of this user; wait until it says that it is ready, has ended, or
 * deadline_ns is over. Only a connect tells whether it is. NO_DAEMON: there is none that can be
 * run. autostart_end() is to be called in any case. */
int autostart_begin(struct start *start, const char *instance, uint64_t deadline_ns);
bool autostart_ended(struct start *start);
/* Let go of it; it runs on. `r` is what connecting gave, and is returned; with NO_DAEMON it is
 * told what became of pubsubd. */
int autostart_end(struct start *start, const char *instance, int r, int64_t waited_ns);

/* ---- attach.c */

struct ring_mapping {
    struct segment_map map;
    struct ring_geometry g; /* private copy, checked */
};
/* Map ring `serial` read-only by name and check it. NO_TOPIC: it has gone. */
int attach_ring(struct shmps *bus, uint64_t serial, struct ring_mapping *ret);
/* The same for a descriptor that pubsubd sent, read-write. */
int attach_ring_fd(struct shmps *bus, int fd, uint64_t serial, struct ring_mapping *ret);
/* Map the readers segment of a ring and page. */
int attach_readers(struct shmps *bus, uint64_t ring, uint32_t page, enum segment_access access,
                   struct segment_map *ret);

/* Where a subscription sits in a topic's roster. */
struct seat {
    uint32_t page;     /* index of the roster page */
    uint32_t first;    /* of the group's first page */
    uint32_t cell;
    uint32_t pins;     /* granted */
    uint16_t bit;      /* of the evicted bits */
};
/* Find the seat of a subscription (record index) in a topic. False: not (yet) there. */
bool find_seat(const struct directory *d, uint32_t first_page, uint32_t subscription,
               struct seat *ret);

/* ---- presence.c */

struct peer {
    uint64_t id;
    int32_t pid;
    const char *topic;
};
struct presence {
    bool started;
    struct peer *known; /* sorted by id */
    size_t n_known;
    struct shmps_event *events;
    size_t n_events, next_event;
};
void presence_free(struct presence *p);

/* ---- publisher */

struct publisher_page {
    uint32_t page;
    struct segment_map map; /* readers segment, read-only */
};

/* Which session knows a handle. */
struct claim {
    uint64_t session;           /* its number */
    uint32_t asked;             /* sequence of a claim whose answer is late, 0: none */
};

/* Whom this publisher has evicted: the bit and the cell of the roster, as it was. */
struct evicted_seat {
    uint16_t bit;
    uint64_t cell;
};

struct shmps_publisher {
    struct ring_publisher ring; /* hot */
    struct shmps *bus;
    bool timestamps;
    bool loaned;
    atomic_u32 lost;            /* pubsubd no longer knows it: set by whoever reconnects */
    size_t loan_bytes;
    struct claim claim;
    uint64_t stalled_ns;        /* there has been no room since; 0: there was at the last look, */
    uint64_t stalled_head;      /* for this sample; */
    uint64_t laggards[32];      /* bits of those who lagged then */
    struct evicted_seat *evicted_seats;
    size_t n_evicted_seats;
    uint64_t dead_looked_ns;    /* when it was last looked for dead readers */
    uint64_t evictions;

    bool explicit_size;
    int wait;
    uint64_t depth, pins;       /* as asked for */
    uint32_t history;
    uint64_t serial;            /* of the current ring */
    uint64_t id;                /* of the first ring */
    uint32_t topic;             /* index */
    char name[TOPIC_NAME_BYTES];
    struct segment_map map;
    void *memory;               /* of the ring's private state */

    struct publisher_page pages[TOPIC_PAGES_MAX];
    uint32_t n_pages;
    struct ring_reader_ref *readers;
    size_t readers_capacity;
    struct ring_group_ref groups[TOPIC_PAGES_MAX];
    const atomic_u32 *spaces[TOPIC_PAGES_MAX]; /* of each group */

    struct presence presence;
    struct shmps_publisher *next;
};

/* roster.c: CLOSED if it will never publish again. */
int publisher_check(const struct shmps_publisher *pub);
/* Read the roster anew, map new readers segments. */
int roster_refresh(struct shmps_publisher *pub);
/* The cell of a bit, 0: none. */
uint64_t roster_cell(const struct shmps_publisher *pub, uint16_t bit);
/* room.c: make or wait for room for n samples. 0, FULL, errors. The roster is fresh afterwards. */
int room_wait(struct shmps_publisher *pub, uint32_t n, int64_t timeout_ns);

/* ---- subscriber */

/* A ring that was seen in a topic's list. */
struct seen_ring {
    uint64_t serial;
    uint64_t samples; /* in all of it; known when nothing more is published */
    bool known;
    bool drained;     /* not to be attached again */
    bool listed;      /* seen by the current refresh */
};

struct topic_view {
    uint32_t index;
    uint64_t serial;
    bool seated;
    bool whole;               /* the last refresh has met all its rings */
    struct seat seat;
    uint32_t history;         /* samples to begin with */
    struct seen_ring *seen;   /* its rings that are or were listed: missed.c */
    uint32_t n_seen, seen_capacity;
    bool based;               /* gone_base is known; else counting begins at this refresh */
    uint64_t gone_base;       /* topic_info.gone at the first look, in open: what
                                 went before was not promised, */
    uint64_t gone;            /* and now; */
    uint64_t gone_ring;       /* the last that is counted in `gone`; */
    uint64_t leaving;         /* samples in rings that are being removed, and not counted yet; */
    uint64_t gone_seen;       /* what of it lay in rings that were seen; */
    uint64_t missed;          /* the rest */
    uint64_t missed_untold;
    struct topic_view *next;
    bool over;                /* it has gone, with all its rings */
    const char *name;         /* of the subscriber: samples may still name it */
};

struct ring_view {
    struct ring_reader reader; /* hot */
    struct topic_view *topic;
    uint64_t serial, publisher, predecessor;
    uint64_t lost;             /* not yet reported */
    uint32_t flags;            /* of the next sample or LOST: EVICTED */
    uint64_t history_end;      /* samples below are history */
    uint64_t final_head;
    bool retired;              /* nothing after final_head */
    bool broken;               /* never looked at again; reported once */
    bool blocked;              /* broken, or its predecessor is not drained yet */
    bool succeeded;            /* another one waits for it to be drained */
    bool evicted;              /* has been told */
    bool joined;               /* reads from `next` on; else still to join */
    bool listed;               /* seen in the directory by the current refresh */
    bool detached;             /* only held samples keep it */
    uint32_t n_held;
    struct readers_segment *group; /* where to arm and to count space; NULL: observer */
    struct segment_map map, readers_map, group_map;
};

/* What a taken sample keeps: one line. */
struct hold {
    union {
        uint64_t small[4];  /* an inline payload of a one-line slot */
        struct {            /* where it lies, if it is pinned */
            const void *block;
            uint64_t bytes;
        };
    };
    void *large;            /* private memory for longer copies */
    struct ring_view *view; /* NULL: free */
    uint32_t large_bytes;   /* in units of 64 */
    uint32_t pin;           /* NO_PIN: nothing is pinned */
    uint32_t next_free;
    uint32_t pad;
};
#define NO_PIN UINT32_MAX

struct shmps_subscriber {
    struct shmps *bus;
    struct claim claim;
    const atomic_u32 *generation; /* of the topic, or of the whole for a filter */
    uint32_t generation_seen;
    bool exact;
    uint8_t policy;               /* POLICY_NONE: observer */
    int wait;
    struct ring_view **rings;
    uint32_t n_rings, rings_capacity;
    uint32_t current;             /* ring to look at first */
    uint32_t turn;                /* samples taken in a row from it */
    bool history;                 /* some view has history left */
    bool missed;                  /* some topic has samples that were missed, and not yet told */
    int pending;                  /* a LOST or an error that ended a batch: told by the next
                                     call */
    struct shmps_sample pending_sample;
    struct ring_view *unsettled;  /* taken from in this batch, its need not stored yet */

    struct hold **hold_chunks;    /* of HOLD_CHUNK each; never moved */
    uint32_t n_holds;
    uint32_t free_hold;

    uint64_t received, lost, copied, sleeps, evictions;
    uint32_t held;
    uint64_t spin_ns;             /* the adaptive bound */

    struct wait_descriptor *descriptor;
    struct wait_word *words;      /* scratch for sleeping */
    uint32_t words_capacity;

    uint64_t serial;              /* rings born later have larger ones */
    uint32_t record;
    uint32_t history_samples;
    uint32_t pins;
    atomic_u32 gone;              /* pubsubd no longer knows it: set by whoever reconnects */
    char filter[TOPIC_NAME_BYTES];
    struct topic_view *topics;
    void *names;                  /* of topics, as tsearch(3) keeps them: until it is closed */

    struct shmps_kept *half_kept; /* where shmps_subscriber_close_keep() has gone wrong */

    shmps_callback callback;
    void *user;
    struct shmps_subscriber *next_called;
    struct presence presence;
    struct shmps_subscriber *next;
};
#define HOLD_CHUNK 64u

/* take.c: n holds and what they keep of their own. */
void holds_free(struct hold **chunks, uint32_t n);

/* keep.c */
/* Make pages that hold pinned blocks the process's own, and let the subscriber read its rings in
 * other mappings from now on. *ret: what is to be kept, but for the holds. On an error the
 * subscriber goes on. */
int kept_make(struct shmps_subscriber *sub, struct shmps_kept **ret);
/* The subscriber has ended, these are its holds: unmap what is not kept. */
void kept_finish(struct shmps_kept *kept, struct hold **chunks, uint32_t n_holds);
/* The list of a subscriber that ends: unmap it; free the rest, in a forked child too. */
void kept_unmap(struct shmps_kept *kept);
void kept_drop(struct shmps_kept *kept);

/* subscriber.c: shmps_subscriber_close(), at once. */
void subscriber_end(struct shmps_subscriber *sub);

/* view.c: CLOSED if it will never receive again. */
int subscriber_check(const struct shmps_subscriber *sub);
/* Read the directory anew: new topics and rings are attached, rings without a publisher
 * marked. On an error about a single ring the others are served, and it is reported once. */
int subscriber_refresh(struct shmps_subscriber *sub);
/* Did it fail as a whole, not because of a single ring? */
static inline bool refresh_failed(int r) {
    return r == SHMPS_E_NO_MEMORY || r == SHMPS_E_NO_DESCRIPTORS || r == SHMPS_E_CLOSED;
}
/* Done with a ring: drained, or broken and gone. Held samples keep it mapped. */
void view_detach(struct shmps_subscriber *sub, struct ring_view *view);
void view_free(struct ring_view *view);
/* Is a ring read to its end, as its publisher goes on in another one? Then it is as retired. */
bool view_handed_over(struct ring_view *view);

/* missed.c: samples that have gone with rings that the subscriber has never seen. */
struct seen_ring *seen_find(const struct topic_view *topic, uint64_t serial);
/* Of one that is not there yet. NULL: no memory. */
struct seen_ring *seen_add(struct topic_view *topic, uint64_t serial);
void seen_end(struct seen_ring *seen, uint64_t start, uint64_t final_head);
/* After a refresh whose lists were whole. */
void missed_settle(struct shmps_subscriber *sub, struct topic_view *topic);
/* The next loss to be told. */
int missed_report(struct shmps_subscriber *sub, struct shmps_sample *ret);

/* history.c: let the views of a topic that were there before the subscription join, at the K
 * newest samples by time. NO_MEMORY: to be tried again. */
int history_join(struct shmps_subscriber *sub, const struct topic_view *topic);
/* The view whose next sample is the oldest of what is left of history; NULL when none is left. */
struct ring_view *history_pick(struct shmps_subscriber *sub);
static inline bool subscriber_stale(const struct shmps_subscriber *sub) {
    /* SYNC topic.generation / directory.generation: acquire pairs with pubsubd's release
       increment; what it made visible
     * before is seen after. */
    return atomic_load_acquire(sub->generation) != sub->generation_seen;
}
/* take.c: add one to the group's space and wake a starved publisher. */
void wake_space(struct ring_view *view);

/* rest.c */
/* Wait until something may be there, the generation moved, or deadline_ns passed. TIMEOUT or 0. */
int rest(struct shmps_subscriber *sub, uint64_t deadline_ns);
/* A take found nothing and there is a descriptor: clear and arm it. Returns true if something came
 * in between: look again. */
bool descriptor_rest(struct shmps_subscriber *sub);

/* ---- deadlines: timeout_ns < 0 is for ever */
#define NEVER UINT64_MAX
static inline int check_timeout(int64_t timeout_ns) {
    if (unlikely(timeout_ns < SHMPS_FOREVER))
        return error_raise(SHMPS_E_INVALID,
                           "timeout_ns is %lld; it may be SHMPS_FOREVER, 0 or more",
                           (long long)timeout_ns);
    return 0;
}
static inline uint64_t deadline_of(int64_t timeout_ns) {
    return timeout_ns < 0 ? NEVER : now_ns() + (uint64_t)timeout_ns;
}
/* Both sides' batches. */
static inline int check_batch(enum shmps_batch how, int64_t timeout_ns) {
    if (unlikely(how != SHMPS_UP_TO && how != SHMPS_EXACTLY))
        return error_raise(SHMPS_E_INVALID, "how is %d; it may be SHMPS_UP_TO or SHMPS_EXACTLY",
                           (int)how);
    return check_timeout(timeout_ns);
}
/* ns from now until the deadline, at most `bound`; <= 0: it has passed. */
static inline int64_t time_left(uint64_t deadline_ns, int64_t bound) {
    if (deadline_ns == NEVER)
        return bound;
    int64_t left = (int64_t)(deadline_ns - now_ns());
    return left < bound ? left : bound;
}

#endif
