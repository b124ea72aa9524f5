/* bus.h - the state of the instance, and what may be done to it.
 *
 *     bus.c           the directory's mapping, serials, free indices, changes, the last errors,
 *                     the end
 *     topic.c         topics: find, make, free
 *     roster.c        roster pages, readers segments, seats of subscriptions
 *     ring.c          rings: link, retire, remove
 *     history.c       which of a topic's retired rings hold its newest samples
 *     opening.c       a ring in the making, allocated a chunk per turn of the loop
 *     subscription.c  open and close
 *     quota.c         what the configuration allows (quota.h)
 *     adopt.c         after a restart: the directory that is there, verified record by record
 *
 * These objects are private memory and what the daemon decides by; the directory is written
 * through from them and read only by adopt.c. So nobody who scribbles into a segment leads the
 * daemon astray.
 *
 * Writing order: what a reader will be led to exists before the store that leads to it; then
 * the topic's generation moves (bus_changed). A daemon killed in between leaves records that
 * nothing leads to: adopt.c frees them. */
#ifndef PUBSUBD_BUS_H
#define PUBSUBD_BUS_H

#include "config.h"
#include "base/scope.h"
#include "base/segment.h"
#include "layout/directory.h"
#include "layout/ring.h"
#include "loop.h"
#include "wire/wire.h"

struct session;
struct owner;

struct page {
    uint32_t index;
    uint32_t ordinal; /* within the topic */
    struct page *next;
    uint64_t cells[READERS_ENTRIES];
};

struct topic {
    uint32_t index;
    bool listed;               /* its record is live */
    struct topic_info info;
    char name[TOPIC_NAME_BYTES];
    struct ring *rings;        /* newest first, as in the directory */
    struct opening *openings;  /* rings in the making */
    struct page *pages;        /* by ordinal, as in the directory */
    struct page *last_page;
    uint32_t n_pages;
    uint32_t exact;            /* subscriptions of it alone: they keep it, filters do not */
    uint32_t pins_granted;     /* over all seats */
    struct topic_policy policy; /* as configured now */
};

struct ring {
    uint32_t index;
    struct ring_info info;     /* state RING_FREE: in the making, not yet in the directory */
    bool has_blocks;
    bool has_history;          /* RETIRED: of the topic's newest samples it holds some */
    struct topic *topic;
    struct ring *next;         /* of the topic */
    struct session *session;   /* LIVE: whose it is; NULL: its owner has not come back yet */
    struct ring *session_next;
};

struct subscription {
    uint32_t index;
    struct subscription_info info;
    char filter[TOPIC_NAME_BYTES];
    struct session *session;   /* NULL: its owner has not come back yet */
    struct subscription *session_next;
};

/* A ring that is being allocated; its session waits for the answer. */
struct opening {
    struct session *session;
    struct wire_header request;
    struct topic *topic;
    struct opening *topic_next;
    struct ring *ring;
    struct ring *predecessor;
    struct ring_geometry geometry;
    struct segment_ref ref;    /* its name while it is made */
    int fd;
    uint32_t history;          /* asked for */
    uint64_t bytes, allocated;
    struct opening *next;      /* of bus->openings: whose turn it is */
};

struct bus {
    char instance[INSTANCE_BYTES];
    uid_t uid;
    uint64_t boot[2];
    struct loop *loop;
    struct config *config;     /* as of the last SIGHUP; capacities are the directory's */

    struct segment_map map;
    struct directory directory;
    int directory_fd;          /* read-only, for the clients */
    uint64_t serial;           /* of the directory */
    uint64_t epoch;
    uint64_t next_serial;
    uint64_t serial_min;       /* smaller ones are in names of segments that others still use */

    struct topic **topics;     /* by index of their records; NULL: free */
    struct ring **rings;
    struct subscription **subscriptions;
    struct page **pages;
    uint32_t topics_end;       /* every index in use is below */
    uint32_t rings_end;
    uint32_t subscriptions_end;
    uint32_t pages_end;

    struct opening *openings;
    struct owner *owners;      /* living processes that have not come back after a restart */
    uint32_t n_owners;
    struct session *sessions;
    uint32_t n_sessions, n_refused;
    bool ending;               /* the loop ends after this turn */
    struct {
        uint64_t count, last_ns, first_ns;
        int code;
        char text[TOPIC_NAME_BYTES];
    } errors[BUS_ERRORS];
};

/* ---- bus.c */

/* A new, empty directory. BUSY: its name is taken. NO_SPACE and others as in base/segment.h. */
int bus_create(struct bus *bus);
/* The tables for a directory that is mapped and checked. NO_MEMORY. */
int bus_tables(struct bus *bus);
/* Forget everything that was learnt from a directory, and unmap it. */
void bus_forget(struct bus *bus);
/* The daemon accepts: a new epoch, and every topic's sleepers look again. */
void bus_begin(struct bus *bus);
/* Nobody is there: what was touched of the directory need not stay in this process's memory. */
void bus_rest(struct bus *bus);
/* A clean end: everybody is told, all segments are removed. */
void bus_end(struct bus *bus);
/* Is it of use, though no directory mentions it? */
bool bus_needs(const struct segment_found *found);

/* The next serial; used up in the directory before anything has it. */
uint64_t bus_draw_serial(struct bus *bus);
/* What was written before is now to be noticed: raise and wake the topic's generation (NULL:
 * none) and the whole's. */
void bus_changed(struct bus *bus, const struct topic *topic);
/* Remember an error among the last distinct ones, and log it when it is new. `what` precedes
 * the text. */
void bus_error(struct bus *bus, int code, const char *what, const char *text);

/* The lowest free index below `n`, or NO_INDEX; `table` holds pointers. */
uint32_t free_index(void *const *table, uint32_t n);

/* ---- topic.c */

struct topic *topic_find(const struct bus *bus, const char *name);
/* The topic of this (valid) name, made if it does not exist: then every filter that matches
 * has its seats in it. LIMIT, NO_SPACE ... */
int topic_get(struct bus *bus, const char *name, struct topic **ret);
/* What the configuration says of it, now; the caller writes the record. */
void topic_configure(const struct bus *bus, struct topic *topic);
/* A publisher wants so many samples to be kept. Not written yet. */
void topic_keep(const struct bus *bus, struct topic *topic, uint32_t history);
/* Count anew and write the record. */
void topic_write(struct bus *bus, struct topic *topic);
/* Count an open that was refused. */
void topic_refused(struct bus *bus, struct topic *topic);
/* Free it if nothing keeps it: no ring, no ring in the making, no subscription of just this
 * topic. */
void topic_release(struct bus *bus, struct topic *topic);

/* ---- roster.c */

/* Give a subscription a seat in a topic: cells, and entries in the readers segments of all its
 * rings. The caller writes the topic and calls bus_changed(). LIMIT, NO_SPACE ... */
int roster_seat(struct bus *bus, struct topic *topic, const struct subscription *s);
/* Take it back. `dead`: its owner did not leave by itself. Returns false if it had none. */
bool roster_unseat(struct bus *bus, struct topic *topic, const struct subscription *s, bool dead);
/* The readers segments of a ring for all pages of its topic; every reader needs `need` first. */
int roster_make_readers(struct bus *bus, const struct ring *ring, uint64_t need);
void roster_remove_readers(struct bus *bus, const struct ring *ring);
/* Has every reader of the topic come to the end of a retired ring? */
bool roster_drained(struct bus *bus, const struct ring *ring);
/* Map the readers segment of a ring and page, checked. */
int roster_map_readers(struct bus *bus, const struct ring *ring, uint32_t page,
                       struct segment_map *ret);
/* A page of a topic, private and in the tables only. */
int roster_page_new(struct bus *bus, struct topic *topic, uint32_t index, struct page **ret);
/* Free a topic's pages. */
void roster_free(struct bus *bus, struct topic *topic);
uint32_t roster_subscribers(const struct topic *topic);
bool roster_has_seat(const struct topic *topic, const struct subscription *s);

/* ---- ring.c */

#define DEAD_MAX 4 /* publishers of a topic that have gone, and whose rings are kept */

/* Map a ring read-only and check it against its record. */
int ring_map(struct bus *bus, const struct ring *ring, struct segment_map *ret,
             struct ring_geometry *ret_geometry);
/* Put a ring that is ready into its topic's list, and into the session's. */
void ring_link(struct bus *bus, struct ring *ring);
/* Nothing more will be published: record the end. Then ring_collect() for its topic. */
void ring_retire(struct bus *bus, struct ring *ring);
/* Remove the retired rings of a topic that are drained and hold no history, and the oldest of
 * those whose publishers have gone, above DEAD_MAX. Frees the topic if nothing keeps it: it must
 * not be used afterwards. */
void ring_collect(struct bus *bus, struct topic *topic);
/* After a restart: complete the removals that were begun. */
void ring_forget_gone(struct bus *bus, struct topic *topic);
/* Its session lets go of it. */
void ring_disown(struct ring *ring);
/* Its publisher is about to grow from a live ring into this one: it has both. */
bool ring_succeeds(const struct ring *ring);
/* The last sequence + 1, now. */
int ring_end(struct bus *bus, const struct ring *ring, uint64_t *ret);
void ring_write(struct bus *bus, const struct ring *ring);

/* ---- history.c */

/* Mark the retired rings that hold some of the topic's K newest samples (has_history). */
void history_mark(struct bus *bus, struct topic *topic);
/* The depth that a ring needs so that K samples always stay in it; 0 for no history. */
uint64_t history_depth(uint64_t samples);
/* How many samples always stay in a ring of this depth. */
uint64_t history_most(uint64_t depth);

/* ---- opening.c */

/* Begin to make a ring. 0: session->opening is set, and answers in a later turn of the loop. */
int opening_begin(struct bus *bus, struct session *session,
                  const struct wire_open_publisher *request);
/* Do one chunk of the next opening's work. */
void opening_step(struct bus *bus);
void opening_cancel(struct bus *bus, struct opening *opening);

/* ---- subscription.c */

int subscription_open(struct bus *bus, struct session *session,
                      const struct wire_open_subscriber *request, struct subscription **ret);
void subscription_close(struct bus *bus, struct subscription *s, bool dead);
void subscription_disown(struct subscription *s);

/* ---- adopt.c */

/* Open the directory if there is one and take over what is in it; what does not verify is set
 * aside. *ret_found: it was there and is adopted. Segments that no record mentions are
 * removed. */
int adopt(struct bus *bus, bool *ret_found);

#endif
