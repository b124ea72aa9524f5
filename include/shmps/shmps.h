/* shmps.h - publish and subscribe between the processes of one machine, through shared memory.
 *
 *     connection  ->  publisher   loan, publish          any number of each on one connection
 *                 ->  subscriber  take, release
 *
 * pubsubd lays out the shared memory and is asked only when something is opened or closed.
 * Publishing and receiving never talk to it, and go on while it is dead; connections find it again
 * by themselves.
 *
 * Results      0, a positive outcome or a negative error: see shmps/error.h. Each call names what
 *              it can say, without the prefix SHMPS_ or SHMPS_E_.
 * Handles      Not NULL, unless it says so. What a call fills is undefined after an error, unless
 *              it says so.
 * Threads      A connection may be used by several threads at once. A publisher or a subscriber
 *              belongs to one thread at a time: it may move between threads, with the caller's own
 *              synchronisation. Callbacks: see shmps_subscriber_on_sample().
 * Fork         After fork() every call on a handle of the parent returns SHMPS_E_FORKED in the
 *              child, and its memory is not mapped there. The child may call shmps_connect() anew;
 *              exec is always safe.
 * Signals      The library installs no handlers; its threads block all signals. Waits go on after
 *              EINTR.
 * Time         All times are in ns of CLOCK_MONOTONIC; a timeout is relative: 0 does not wait,
 *              SHMPS_FOREVER waits.
 * Options      Structs of options and of statistics begin with their size, so that older callers
 *              keep working: initialise with the _INIT. A NULL pointer to options means all
 *              defaults. Reserved fields must be zero. What is out of range is INVALID.
 * Closed       A bus that has ended (not died) and was started again is another one: handles of
 *              the old one say CLOSED as soon as they notice. So does a handle that pubsubd does
 *              not know any more.
 * Environment  SHMPS_INSTANCE, SHMPS_AUTOSTART, SHMPS_PUBSUBD and PATH: see shmps_connect();
 *              XDG_RUNTIME_DIR: where the user's sockets are. SHMPS_DESCRIPTOR=thread: descriptors
 *              are fed by a thread, not by an io_uring.
 *
 * Topic names  1 to 255 bytes of valid UTF-8 without NUL or other control characters
 *              (U+0000..U+001F, U+007F); '/' separates levels, at most 32, of which none may be
 *              empty ("a//b", "/a" and "a/" are refused); no '+' and no '#' anywhere.
 * Filters      The same, but a whole level may be '+' (any one level) and the last may be '#' (any
 *              number of levels, also none: "a/#" matches "a"). A first level that is a wildcard
 *              does not match a topic that begins with '$'. These are the rules of MQTT 3.1.1,
 *              section 4.7, minus empty levels. */
#ifndef SHMPS_SHMPS_H
#define SHMPS_SHMPS_H

#include <shmps/error.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define SHMPS_FOREVER INT64_C(-1)      /* as timeout_ns: wait as long as it takes */
#define SHMPS_TOPIC_BYTES_MAX 255      /* of a topic name or filter, without the NUL */
#define SHMPS_MESSAGE_BYTES_MAX (UINT64_C(1) << 34) /* 16 GiB: the largest message */

struct shmps;            /* a connection to one instance of the bus */
struct shmps_publisher;
struct shmps_subscriber;
struct shmps_kept;       /* samples that have outlived their subscriber */

/* --------------------------------------------------------------------------------------- names */

/* 0, or SHMPS_E_TOPIC with the broken rule in the detail. Pure functions. */
int shmps_topic_check(const char *topic);
int shmps_filter_check(const char *filter);

/* 1 if a valid filter matches a valid topic, else 0. Pure function. */
int shmps_filter_matches(const char *filter, const char *topic);

/* The version of the library, "MAJOR.MINOR.PATCH". Static storage. */
const char *shmps_version(void);

/* ---------------------------------------------------------------------------------- connection */

enum shmps_autostart {
    SHMPS_AUTOSTART_DEFAULT = 0,
    SHMPS_AUTOSTART_ON = 1,
    SHMPS_AUTOSTART_OFF = 2,
};

struct shmps_connect_options {
    size_t size;           /* sizeof this struct */
    const char *instance;  /* [A-Za-z0-9_-]{1,32}: this user's, else the system's of this name; or
                              a socket's path (it contains '/'). NULL or "": $SHMPS_INSTANCE, else
                              "default" */
    int autostart;         /* enum shmps_autostart; default: on unless SHMPS_AUTOSTART=0 is in the
                              environment; only ever starts an instance of this user, by name */
    int observe;           /* 1: do not talk to pubsubd at all, only map its directory read-only;
                              works when it is dead (of a socket's path, pubsubd is asked for its
                              name first). Only subscribers with SHMPS_OBSERVE can be opened. */
    int64_t timeout_ns;    /* for finding or starting a daemon, and for each answer; 0: 5 s */
    int admin;             /* 1: for shmps_daemon_alive() and shmps_stop_daemon() only, also with
                              a pubsubd whose layout of memory is another build's; what would open
                              something returns STATE. Starts no daemon, does not observe. */
    int reserved0;
    uint64_t reserved[3];
};
#define SHMPS_CONNECT_OPTIONS_INIT { .size = sizeof(struct shmps_connect_options) }

/* Connect to an instance of the bus; if none answers, start one of this user: $SHMPS_PUBSUBD, else
 * pubsubd of this library's own prefix, else of PATH. It ends some seconds after its last client.
 * When pubsubd dies later, everything goes on, and the connection finds its successor by itself.
 * NO_DAEMON (also: observe and no directory), VERSION, PERMISSION, NO_MEMORY, NO_DESCRIPTORS,
 * INVALID, CORRUPT (the directory), PROTOCOL (what answers is no pubsubd), SYSTEM. */
int shmps_connect(struct shmps **ret, const struct shmps_connect_options *options);

/* Close a connection and all that is still open on it; end the loop's thread. Samples still held
 * become invalid. NULL is allowed. Must not run while another thread uses the connection. In a
 * forked child it frees the child's copy only. In a callback: see shmps_subscriber_on_sample(). */
void shmps_close(struct shmps *bus);

/* The name of the instance. Valid while the connection is open. Any thread, also after fork. */
const char *shmps_instance(const struct shmps *bus);

/* 1 if pubsubd answers now, 0 if it does not within the connection's timeout_ns (publishing and
 * receiving go on all the same). CLOSED, STATE (an observing connection), FORKED, SYSTEM. */
int shmps_daemon_alive(struct shmps *bus);

/* Ask pubsubd to end, as SIGTERM does. Returns when it has closed the connection. NO_DAEMON (none
 * runs, or it does not end within the connection's timeout_ns), PERMISSION (this user may not),
 * CLOSED, STATE (an observing connection), FORKED, SYSTEM. */
int shmps_stop_daemon(struct shmps *bus);

/* ---------------------------------------------------------------------------------- publishing */

enum shmps_timestamps { SHMPS_TIMESTAMPS_ON = 0, SHMPS_TIMESTAMPS_OFF = 1 };

struct shmps_publisher_options {
    size_t size;            /* sizeof this struct */
    uint32_t depth;         /* slots, rounded up to a power of two, 2 .. 2^20; 0: as configured for
                               the topic (pubsubd.conf), else 64, or 8 if a message may be >= 1
                               MiB. Also what bounds history: the newest depth - depth/8 samples
                               (below 8: depth - 1) are there for late joiners, fewer after a
                               larger batch */
    uint32_t pins;          /* how many large samples all subscribers together may hold at once
                               without a copy, at most 65536; each costs a block of message_bytes.
                               0: as configured, else 64 for messages up to 16 KiB, 16 below 1 MiB,
                               else 4, and what subscribers have been granted already. Never less
                               than these */
    uint64_t message_bytes; /* the largest message; a larger one is refused with SHMPS_E_SIZE. 0:
                               starts as configured, else with 4 KiB, and grows: a larger loan gets
                               a larger ring from pubsubd, order and counts are kept */
    int timestamps;         /* enum shmps_timestamps: ON stores the time of publishing in every
                               sample */
    int wait;               /* enum shmps_wait, for waiting while FULL */
    uint32_t history;       /* the topic keeps at least that many of its newest samples, also when
                               its publishers have gone (those of four such), and late joiners
                               begin with them: as if it were configured for the topic
                               (pubsubd.conf); the larger of both counts. Once asked for, it holds
                               while the topic lives, thus as long as a sample is kept. The ring is
                               made deep enough (as with `depth`, a larger batch leaves fewer);
                               LIMIT: max_depth of the topic, or of any ring, does not allow it.
                               All ends with pubsubd: when it is stopped, or ends as its last
                               client has gone (idle_exit); not when it is killed and restarted */
    uint32_t reserved0;
    uint64_t reserved[3];
};
#define SHMPS_PUBLISHER_OPTIONS_INIT { .size = sizeof(struct shmps_publisher_options) }

/* Open a publisher; the topic is created if it does not exist. When this returns, every subscriber
 * whose filter matches will receive what is published.
 * TOPIC, INVALID, SIZE (message_bytes), NO_DAEMON, NO_SPACE, LIMIT, PERMISSION, NO_MEMORY,
 * NO_DESCRIPTORS, STATE (an observing connection), CLOSED, FORKED, SYSTEM. */
int shmps_publisher_open(struct shmps *bus, const char *topic,
                         const struct shmps_publisher_options *options,
                         struct shmps_publisher **ret);

/* Close it; an open loan is discarded. Subscribers still receive all that was published, unless
 * the rings of more than 4 publishers that have gone wait in the topic: then the oldest goes, and
 * who had not seen it is told what was lost with it. NULL is allowed. */
void shmps_publisher_close(struct shmps_publisher *pub);

/* Copy a message into the ring and publish it. data may be NULL if bytes is 0. `tag` is the user's
 * own word, carried along. Never waits for a lossy or latest subscriber.
 * FULL: a reliable subscriber has not made room within timeout_ns. SIZE, STATE (a loan is open),
 * INVALID, CLOSED, FORKED, LIMIT (the ring's 2^64 sequence numbers are used up); NO_MEMORY and
 * NO_DESCRIPTORS (somebody has subscribed, and his entry cannot be mapped); what
 * shmps_publisher_open() says, when it has to grow: then nothing was published. */
int shmps_publish(struct shmps_publisher *pub, const void *data, size_t bytes, uint64_t tag,
                  int64_t timeout_ns);

/* Borrow room for a message of up to `bytes` bytes in the ring itself; the caller writes it in
 * place. One loan may be open per publisher. *ret is aligned to 32 bytes at least, to 64 from 225
 * bytes on, to 4096 from 4 KiB on; it holds what happens to be there, and is valid until it is
 * published or discarded. Returns like shmps_publish(): waiting for room happens here. */
int shmps_loan(struct shmps_publisher *pub, size_t bytes, int64_t timeout_ns, void **ret);

/* Publish the first `bytes` bytes (<= those loaned) of the open loan, in place. Never waits. STATE
 * (no loan), SIZE, FORKED. */
int shmps_publish_loan(struct shmps_publisher *pub, size_t bytes, uint64_t tag);

/* Give the open loan back unpublished. STATE (no loan), FORKED. */
int shmps_discard(struct shmps_publisher *pub);

struct shmps_message {
    const void *data;
    size_t bytes;
    uint64_t tag;
};
enum shmps_batch { SHMPS_UP_TO = 0, SHMPS_EXACTLY = 1 };

/* Publish n messages in order, looking for room and for sleepers once, with one time for all.
 * SHMPS_UP_TO   publishes as many as there is room for now, at least one: waits up to timeout_ns
 *               for the first;
 * SHMPS_EXACTLY publishes all n or, when the time is over, none (FULL); n <= depth, else INVALID.
 * *ret_done: the number published, always set; 0 after an error. Otherwise as shmps_publish().
 * A process killed in between leaves a prefix of the batch. */
int shmps_publish_batch(struct shmps_publisher *pub, const struct shmps_message *messages,
                        size_t n, enum shmps_batch how, int64_t timeout_ns, size_t *ret_done);

/* Wait until at least n subscribers are open on the topic, by name or by filter, those of this
 * process too; observers do not count. TIMEOUT (also with a timeout of 0), INVALID, CLOSED,
 * FORKED. */
int shmps_publisher_wait_subscribers(struct shmps_publisher *pub, uint32_t n, int64_t timeout_ns);

struct shmps_publisher_stats {
    size_t size;            /* sizeof this struct */
    uint64_t messages;      /* published since it was opened, as the next three */
    uint64_t bytes;         /* of their payload */
    uint64_t stalls;        /* times that it slept for want of room */
    uint64_t wakes;         /* calls to wake sleepers */
    uint64_t evictions;     /* reliable subscribers it has gone on without, as they stalled it for
                               longer than the topic's patience */
    uint32_t subscribers;   /* open on the topic now */
    uint32_t depth;         /* slots of the ring */
    uint64_t message_bytes; /* the largest message that needs no larger ring */
    uint64_t id;            /* shmps_sample.publisher of what it publishes */
};
#define SHMPS_PUBLISHER_STATS_INIT { .size = sizeof(struct shmps_publisher_stats) }

/* Fill as much of *ret as ret->size has room for. INVALID (ret->size), FORKED. */
int shmps_publisher_stats(struct shmps_publisher *pub, struct shmps_publisher_stats *ret);

/* --------------------------------------------------------------------------------- subscribing */

enum shmps_delivery {
    SHMPS_LOSSY = 0,    /* every sample in order; if the subscriber falls behind by more than the
                           ring, the oldest are lost and counted where the gap is */
    SHMPS_LATEST = 1,   /* always the newest sample; older unread ones are skipped, which is not a
                           loss */
    SHMPS_RELIABLE = 2, /* every sample in order; the publisher cannot pass it and is told FULL */
    SHMPS_OBSERVE = 3,  /* as lossy, but read-only: no entry, cannot be noticed; samples are always
                           copies */
};
enum shmps_wait {
    SHMPS_WAIT_DEFAULT = 0, /* spin for a bounded, adaptive while, then sleep */
    SHMPS_WAIT_SPIN = 1,    /* never sleep: the lowest latency, one core */
    SHMPS_WAIT_SLEEP = 2,   /* sleep at once (futex) */
};

struct shmps_subscriber_options {
    size_t size;        /* sizeof this struct */
    int delivery;       /* enum shmps_delivery */
    int wait;           /* enum shmps_wait */
    uint32_t history;   /* first deliver the newest K samples of each topic, over all its
                           publishers by time, also of those that have gone, as far as their rings
                           are kept: the topic's own history (pubsubd.conf, or the publishers'),
                           and until all have read them. 0: the topic's history, none unless
                           configured or asked for by a publisher; SHMPS_HISTORY_NONE: only what is
                           published from now on */
    uint32_t pins;      /* how many large samples of a topic it wants to hold at once without a
                           copy, 1 .. 63; 0: 4. Fewer may be granted: see shmps_subscriber_stats */
    uint64_t reserved[4];
};
#define SHMPS_HISTORY_NONE UINT32_MAX
#define SHMPS_SUBSCRIBER_OPTIONS_INIT { .size = sizeof(struct shmps_subscriber_options) }

enum shmps_sample_flags {
    SHMPS_SAMPLE_COPIED = 1,  /* a large sample that could not be pinned (no pin left or granted,
                                 an observer): data is a private copy */
    SHMPS_SAMPLE_HISTORY = 2, /* published before the subscriber was opened */
    SHMPS_SAMPLE_EVICTED = 4, /* once for each publisher that this reliable subscriber has stalled
                                 for longer than the topic's patience: it has gone on, `lost` tells
                                 by how many, and it is read as by a lossy one from here on. Open
                                 anew to be reliable again; so it is in a larger ring that the
                                 publisher grows into. Also set on a LOST */
};

/* A received sample. Filled by take and read; the caller must not change what is internal. */
struct shmps_sample {
    const void *data;    /* aligned to 64 bytes; valid, and never overwritten by an honest
                            publisher, until release */
    size_t bytes;
    uint64_t seq;        /* 0, 1, 2, ... per publisher, without gaps */
    uint64_t time_ns;    /* CLOCK_MONOTONIC at publishing; 0: timestamps are off */
    uint64_t tag;
    uint64_t lost;       /* samples of this publisher lost between the previous one and this one;
                            of publisher 0: of publishers that have come and gone unseen */
    const char *topic;   /* valid while the subscriber is open */
    uint64_t publisher;  /* identifies the publisher among all of the instance, for its life */
    uint32_t flags;      /* enum shmps_sample_flags */
    uint32_t hold;       /* internal */
};

/* Open a subscriber for a topic or a filter. An exact topic is created if it does not exist (not
 * by an observer); topics and publishers that appear later are received from their first sample.
 * Nothing that is published after this returned is missed. TOPIC, INVALID, NO_DAEMON, LIMIT,
 * NO_SPACE, PERMISSION, NO_MEMORY, NO_DESCRIPTORS, STATE (an observing connection, and not
 * SHMPS_OBSERVE), CLOSED, FORKED, SYSTEM. */
int shmps_subscriber_open(struct shmps *bus, const char *filter,
                          const struct shmps_subscriber_options *options,
                          struct shmps_subscriber **ret);

/* Unsubscribe. Samples still held become invalid. NULL is allowed. In a callback, and while one
 * runs: see shmps_subscriber_on_sample(). */
void shmps_subscriber_close(struct shmps_subscriber *sub);

/* Unsubscribe, and keep what is held: the data of held samples stays where it is, as it is and
 * readable without a break also by other threads, as memory of the process's own; children inherit
 * it. Publishers get their blocks back at once. *ret: what is kept, NULL if nothing is held; it
 * depends on nothing else, and is freed by shmps_kept_free(). Copies all pages that are pinned.
 * After an error nothing has happened, the subscriber is open. STATE (it has a callback, or is
 * served just now), INVALID, NO_MEMORY, FORKED (large samples are not mapped in the child),
 * SYSTEM. */
int shmps_subscriber_close_keep(struct shmps_subscriber *sub, struct shmps_kept **ret);

/* Free what was kept; the samples become invalid. NULL is allowed. Any thread; a forked child
 * frees its own copy. */
void shmps_kept_free(struct shmps_kept *kept);

/* Take the next sample without copying it, where it is large (in a block); a small one is copied
 * out of its slot. Several may be held at once, and released in any order. Of several publishers
 * each has its turn.
 * 0; EMPTY (timeout 0) or TIMEOUT; LOST: only ret->lost, ->topic and ->publisher are set, there is
 * nothing to release. CORRUPT: a publisher's ring is broken; it is left out from then on. VERSION,
 * PERMISSION, SYSTEM: a ring cannot be mapped; it is tried again when publishers come or go. The
 * others are served on. NO_MEMORY, NO_DESCRIPTORS: nothing is lost yet, try again. INVALID,
 * CLOSED, FORKED. */
int shmps_take(struct shmps_subscriber *sub, struct shmps_sample *ret, int64_t timeout_ns);

/* Give a sample back, after which its data must not be used. To be called once for each one taken;
 * what is held when the subscriber is closed goes with it. INVALID (it is not held), FORKED. */
int shmps_release(struct shmps_subscriber *sub, struct shmps_sample *sample);

/* Take up to n samples at once. UP_TO waits for the first only; EXACTLY waits until n are there,
 * for timeout_ns at most, and then delivers what there is. *ret_done: the number taken, always
 * set; if it is > 0 the result is 0, else as shmps_take(). A LOST without a sample, or an error,
 * ends a batch and is reported by the next call. */
int shmps_take_batch(struct shmps_subscriber *sub, struct shmps_sample *samples, size_t n,
                     enum shmps_batch how, int64_t timeout_ns, size_t *ret_done);

/* Give n samples back: all of them, whatever is wrong with one. The first error, if any. */
int shmps_release_batch(struct shmps_subscriber *sub, struct shmps_sample *samples, size_t n);

/* Copy the next sample into `buffer`. As take and release in one: there is nothing to release.
 * ret->data is `buffer`, ret->bytes the sample's size. SIZE: it is larger than `bytes`; it stays
 * the next one, and ret->bytes tells its size. Otherwise as shmps_take(). */
int shmps_read(struct shmps_subscriber *sub, void *buffer, size_t bytes, struct shmps_sample *ret,
               int64_t timeout_ns);

/* A descriptor that is readable while something can be taken, level-triggered, for epoll, poll,
 * asyncio, libuv ... Made at the first call, owned by the subscriber: never read, write or close
 * it. After it was readable, call shmps_take(sub, ..., 0) as often as you like; it stays readable
 * until a take has said EMPTY: take until then before each wait. Now and then it is readable for
 * nothing. NO_DESCRIPTORS, NO_MEMORY, FORKED, SYSTEM. */
int shmps_subscriber_fd(struct shmps_subscriber *sub);

/* Wait until at least n publishers are open on the topics of this subscriber, those of this
 * process too. TIMEOUT (also with a timeout of 0), INVALID, NO_MEMORY, NO_DESCRIPTORS, CLOSED,
 * FORKED. */
int shmps_subscriber_wait_publishers(struct shmps_subscriber *sub, uint32_t n, int64_t timeout_ns);

struct shmps_subscriber_stats {
    size_t size;         /* sizeof this struct */
    uint64_t received;   /* samples taken or read since it was opened */
    uint64_t lost;       /* samples lost since then */
    uint64_t copied;     /* large samples among `received` that had to be copied for a take */
    uint64_t sleeps;     /* times that a call of it went to sleep; not for its descriptor */
    uint64_t evictions;  /* publishers that have gone on without it (SHMPS_SAMPLE_EVICTED) */
    uint32_t publishers; /* open on its topics now */
    uint32_t held;       /* samples held now */
    uint32_t pins;       /* granted, in the topic where it has most */
    uint32_t topics;     /* that its filter matches now */
};
#define SHMPS_SUBSCRIBER_STATS_INIT { .size = sizeof(struct shmps_subscriber_stats) }

/* Fill as much of *ret as ret->size has room for. INVALID (ret->size), FORKED. */
int shmps_subscriber_stats(struct shmps_subscriber *sub, struct shmps_subscriber_stats *ret);

/* ------------------------------------------------------------------------------------ presence */

enum shmps_event_kind {
    SHMPS_PUBLISHER_JOINED = 1,
    SHMPS_PUBLISHER_LEFT = 2,
    SHMPS_SUBSCRIBER_JOINED = 3,
    SHMPS_SUBSCRIBER_LEFT = 4,
};
struct shmps_event {
    int kind;           /* enum shmps_event_kind */
    int32_t pid;        /* of the process, as pubsubd sees it */
    uint64_t id;        /* of the publisher (shmps_sample.publisher) or of the subscriber */
    const char *topic;  /* valid until the handle is closed */
};

/* The next change among those on the other side of a handle: a publisher learns of subscribers, a
 * subscriber of publishers. Those present at the first call are reported first, as joined. Who
 * came and went between two calls is not reported. There is no descriptor for it.
 * 0; EMPTY (timeout 0) or TIMEOUT; NO_MEMORY, INVALID, CLOSED, FORKED; for a subscriber also
 * NO_DESCRIPTORS. */
int shmps_publisher_event(struct shmps_publisher *pub, struct shmps_event *ret,
                          int64_t timeout_ns);
int shmps_subscriber_event(struct shmps_subscriber *sub, struct shmps_event *ret,
                           int64_t timeout_ns);

/* ----------------------------------------------------------------------------------- callbacks */

/* A sample for `sub`, which is released when this has returned; data == NULL: a LOST without a
 * sample. `user` as set. For what it may do see shmps_subscriber_on_sample(). */
typedef void (*shmps_callback)(struct shmps_subscriber *sub, const struct shmps_sample *sample,
                               void *user);

/* Set, change or (with NULL) clear the callback of a subscriber. It gets a descriptor, as by
 * shmps_subscriber_fd(), with the same errors.
 *
 * Callbacks are called by the thread that is in shmps_dispatch(), or by the loop's; by one at a
 * time for a connection. As long as it is there, subscribers with a callback belong to it. Other
 * threads may then still open subscribers, set, change or clear callbacks, and close what has one:
 * that waits until a callback of this subscriber has returned (so hold no lock that it needs).
 * Afterwards the subscriber is not called any more: it belongs to the caller, or is gone.
 *
 * A callback may use the subscriber that it was given, set, change or clear callbacks, close
 * subscribers, and close the connection if no other thread uses it. When it closes its own
 * subscriber or the connection, that happens after it has returned; shmps_dispatch() then says
 * CLOSED for the connection, the loop's thread ends. */
int shmps_subscriber_on_sample(struct shmps_subscriber *sub, shmps_callback callback, void *user);

/* One descriptor for all subscribers of the connection that have a callback: readable, level-
 * triggered, while shmps_dispatch() has work. Owned by the connection: never read, write or close
 * it. NO_DESCRIPTORS, NO_MEMORY, FORKED, SYSTEM. */
int shmps_fd(struct shmps *bus);

/* Call the callbacks for what is there; if nothing is, wait up to timeout_ns for the first. 0
 * after at least one callback; EMPTY (timeout 0) or TIMEOUT; else what shmps_take() said of one
 * of them: the others have been served all the same. Whose take says CLOSED has lost its
 * callback. STATE: in a callback, or while another thread is in it or the loop's thread runs.
 * INVALID, FORKED, NO_DESCRIPTORS, SYSTEM. */
int shmps_dispatch(struct shmps *bus, int64_t timeout_ns);

/* A background thread that dispatches until stopped. It tells nobody of errors: a subscriber
 * that is CLOSED loses its callback, what may pass is tried again. STATE: it runs already, or a
 * thread is in shmps_dispatch(). NO_MEMORY, NO_DESCRIPTORS, FORKED, SYSTEM. */
int shmps_loop_start(struct shmps *bus);

/* End it: no callback runs any more when this returns. In a callback: it ends after that one,
 * and another call, or shmps_close(), waits for its end. STATE (it does not run, or another
 * thread is in here), FORKED. */
int shmps_loop_stop(struct shmps *bus);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
