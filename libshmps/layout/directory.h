/* layout/directory.h - what lies in the directory: who and what is on the bus.
 *
 *     0       header (identity, geometry, generation, daemon's state)
 *     ...     topic[topics], ring[rings], subscription[subscriptions], page[pages], error[errors],
 *             at their offsets
 *
 * WRITER: pubsubd alone. READERS: everyone, read-only, without asking, also when pubsubd is dead.
 *
 * Records.  Each record holds two copies of its content and a version: the writer fills the idle
 * copy, then stores version + 1 (release); version & 1 tells the valid copy. A daemon killed
 * half-way leaves the old content valid. A reader loads version, copies, and looks at version
 * again (record_read). The `text` of a record is written only while the record is free, and is
 * immutable while it is not.
 *
 * Topology.  A topic lists its rings (topic.first_ring, ring.next) and its roster pages
 * (topic.first_page, page.next). Cell i of a page says who has entry i in the readers segments of
 * that page, of which policy, with how many pins: the roster; publishers believe only it. For
 * every ring and page listed under one topic the readers segment exists. A subscription has the
 * same page and entry for all rings of a topic.
 *
 * Generation.  After any change that publishers or sleepers must notice, pubsubd makes it visible,
 * adds 1 to the topic's generation and to the directory's (release), then wakes both. Links and
 * lists are read between two equal loads of a generation, else read again. */
#ifndef SHMPS_LAYOUT_DIRECTORY_H
#define SHMPS_LAYOUT_DIRECTORY_H

#include "layout/identity.h"
#include "layout/readers.h"
#include "layout/topic_name.h"
#include "base/process.h"
#include "base/segment.h"

#include <stdbool.h>

#define NO_INDEX UINT32_MAX /* end of a list, or none */

/* ---- header */

struct directory_geometry {
    uint32_t topics, rings, subscriptions, pages, errors; /* records of each kind */
    uint32_t reserved0;
    /* from the start */
    uint64_t topics_offset, rings_offset, subscriptions_offset, pages_offset, errors_offset;
    uint64_t bytes; /* of the segment */
};
_Static_assert(sizeof(struct directory_geometry) == 72, "no padding");

enum daemon_state { DAEMON_RUNNING = 1, DAEMON_ENDED = 2 /* cleanly */ };

struct directory_header {
    struct identity identity;
    struct directory_geometry geometry;
    char instance[INSTANCE_BYTES + 7];
    uint64_t reserved[2];

    _Alignas(64) atomic_u32 generation; /* futex word: +1 at every change anywhere */
    uint32_t pad0[15];

    _Alignas(64) atomic_u64 epoch;      /* +1 at every start of a daemon; sessions belong to one */
    atomic_u32 daemon_pid;              /* of the daemon of this epoch */
    atomic_u32 daemon_state;            /* enum daemon_state; RUNNING after SIGKILL too */
    atomic_u64 daemon_start_time;       /* process_start_time() */
    atomic_u64 next_serial;             /* of the next ring or subscription; starts at 1 */
    uint64_t pad1[4];
};
_Static_assert(offsetof(struct directory_header, geometry) == 128, "geometry at 128");
_Static_assert(offsetof(struct directory_header, instance) == 200, "instance at 200");
_Static_assert(offsetof(struct directory_header, generation) == 256, "generation at 256");
_Static_assert(offsetof(struct directory_header, epoch) == 320, "epoch at 320");
_Static_assert(sizeof(struct directory_header) == 384, "six lines");

/* ---- records */

/* A topic. text: its name. */
struct topic_info {
    uint32_t live;            /* 0: free */
    uint32_t first_ring;      /* index of a ring record, or NO_INDEX */
    uint32_t first_page;      /* index of a roster page, or NO_INDEX */
    uint32_t publishers;      /* living ones */
    uint32_t subscribers;     /* roster cells with a policy */
    uint32_t retired_rings;   /* rings that nothing more is published in: not yet drained, or
                                 kept for history */
    uint64_t serial;
    uint64_t born_ns;
    uint64_t refused;         /* opens refused since its birth */
    uint64_t messages, bytes; /* published since its birth by publishers that have gone */
    uint64_t gone;            /* samples (final_head - start) of all rings that were removed: who
                                 knows which of them he has seen knows what he has missed */
    uint64_t gone_ring;       /* serial of the last ring counted in `gone` */
    uint64_t patience_ns;     /* a reliable subscriber that stalls a publisher for longer is
                                 evicted; 0: never */
    uint32_t history;         /* the K newest samples are kept, also of publishers that have gone,
                                 and newcomers begin with them */
    uint32_t history_asked;   /* the largest that a publisher has asked for; the rest of it is
                                 configured */
};
_Static_assert(sizeof(struct topic_info) == 96, "no padding");

/* Who opened a ring or a subscription. */
struct owner_info {
    int32_t pid;
    uint32_t uid;
    uint64_t start_time;      /* process_start_time() */
    uint64_t session;         /* digest of the connection's secret: the same after a restart */
    char command[COMMAND_BYTES];
};
_Static_assert(sizeof(struct owner_info) == 40, "no padding");

enum ring_state {
    RING_FREE = 0,
    RING_LIVE = 1,    /* its publisher may publish */
    RING_RETIRED = 2, /* no more is published: final_head is the sequence after the last */
    RING_REMOVED = 3,    /* being removed: no longer counted as listed, though it may still be */
};
/* A ring. No text. Its segment: segment_ref_ring(serial). */
struct ring_info {
    uint32_t state;           /* enum ring_state */
    uint32_t topic;           /* index */
    uint32_t next;            /* next ring of the topic, or NO_INDEX */
    uint32_t flags;           /* as in ring_geometry */
    uint64_t serial;
    uint64_t publisher;       /* serial of the publisher's first ring */
    uint64_t predecessor;     /* serial of the ring to be drained before this one; 0: none */
    uint64_t start;           /* its first sequence */
    uint64_t final_head;      /* RETIRED only */
    uint64_t bytes;           /* of the segment */
    uint64_t message_bytes;
    uint32_t depth;
    uint32_t pins;            /* P */
    uint32_t pins_granted;    /* of P, over all readers of the roster */
    uint32_t segment_kind;
    struct owner_info owner;
    uint64_t born_ns;
    uint64_t retired_ns;
    uint64_t reserved[2];
};
_Static_assert(sizeof(struct ring_info) == 160, "no padding");

enum policy {
    POLICY_NONE = 0,
    POLICY_LOSSY = 1,
    POLICY_LATEST = 2,
    POLICY_RELIABLE = 3,
    POLICY_SPAN = 15, /* belongs to the entry before it */
};

/* A subscription. text: its filter. */
struct subscription_info {
    uint32_t live;
    uint32_t policy;          /* enum policy */
    uint32_t pins;            /* asked for; what is granted per topic is in the cell */
    uint32_t history;
    uint64_t serial;          /* rings with a larger one are younger: read from `start` */
    uint32_t exact;           /* 1: the filter is a topic name */
    uint32_t topic;           /* exact: index, else NO_INDEX */
    struct owner_info owner;
    uint64_t born_ns;
    uint64_t reserved;
};
_Static_assert(sizeof(struct subscription_info) == 88, "no padding");

/* One of the last distinct errors. text: what happened. */
struct error_info {
    uint64_t count;
    int64_t code;             /* enum shmps_error */
    uint64_t first_ns, last_ns;
};
_Static_assert(sizeof(struct error_info) == 32, "no padding");

#define RECORD_HEADER_WORDS 8 /* version, then (topics) the generation in the same line */

struct record_header {
    _Alignas(64) atomic_u64 version;
    atomic_u32 generation; /* topics only: the futex word that publishers load at each publish */
    uint32_t reserved[13];
};
_Static_assert(sizeof(struct record_header) == 64, "one line");

struct topic_record {
    struct record_header header;
    atomic_u64 copy[2][sizeof(struct topic_info) / 8];
    atomic_u64 text[TOPIC_NAME_BYTES / 8];
};
struct ring_record {
    struct record_header header;
    atomic_u64 copy[2][sizeof(struct ring_info) / 8];
};
struct subscription_record {
    struct record_header header;
    atomic_u64 copy[2][sizeof(struct subscription_info) / 8];
    atomic_u64 text[TOPIC_NAME_BYTES / 8];
};
struct error_record {
    struct record_header header;
    atomic_u64 copy[2][sizeof(struct error_info) / 8];
    atomic_u64 text[TOPIC_NAME_BYTES / 8];
};
_Static_assert(sizeof(struct topic_record) == 512, "eight lines");
_Static_assert(sizeof(struct ring_record) == 384, "six lines");

/* A roster page: 60 cells, one 8-byte store each. Written by pubsubd; the publisher and
 * subscribers read it. */
struct roster_page {
    atomic_u32 topic;    /* index of its topic, or NO_INDEX: free */
    atomic_u32 next;     /* next page of the topic, or NO_INDEX */
    atomic_u32 ordinal;  /* 0 .. 31 within the topic: evicted bit = ordinal * 64 + cell */
    atomic_u32 uid;      /* the trust group */
    atomic_u32 first;    /* the group's first page: armed and space are in its segments */
    uint32_t reserved[3];
    atomic_u64 cells[READERS_ENTRIES];
};
_Static_assert(sizeof(struct roster_page) == 512, "eight lines");
#define TOPIC_PAGES_MAX 32

/* A cell: policy in bits 0-7, pins granted in 8-15, index of the subscription in 32-63. 0: free.
 * POLICY_SPAN: belongs to the entry before it (more than 7 pins). */
static inline uint64_t cell_make(enum policy policy, uint32_t pins, uint32_t subscription) {
    return (uint64_t)policy | (uint64_t)pins << 8 | (uint64_t)subscription << 32;
}
static inline uint32_t cell_policy(uint64_t cell) {
    return cell & 0xff;
}
static inline uint32_t cell_pins(uint64_t cell) {
    return cell >> 8 & 0xff;
}
static inline uint32_t cell_subscription(uint64_t cell) {
    return (uint32_t)(cell >> 32);
}

/* ---- access: a directory is used through its checked, private view */

struct directory {
    struct directory_header *header;
    struct directory_geometry geometry; /* private copy, checked */
    struct topic_record *topics;
    struct ring_record *rings;
    struct subscription_record *subscriptions;
    struct roster_page *pages;
    struct error_record *errors;
};

/* The geometry for so many records of each kind; offsets and size are computed. */
void directory_geometry_make(struct directory_geometry *g, uint32_t topics, uint32_t rings,
                             uint32_t subscriptions, uint32_t pages, uint32_t errors);
/* Format a zeroed, allocated segment; all lists empty, generation 1, epoch 0. Identity as for
 * ring_format(). */
void directory_format(struct directory_header *header, const struct directory_geometry *g,
                      const char *instance);
/* identity_check, copy the geometry out once, check the copy (CORRUPT), and set up the view. */
int directory_attach(struct directory *ret, void *base, uint64_t mapped_bytes);

/* Read the valid copy of a record (and its text, of TOPIC_NAME_BYTES, NUL-terminated; NULL: not
 * wanted). Returns false when the writer came in between eight times in a row, or the index is out
 * of range: *ret is all zero then, which is free, and the text empty; look again at the next
 * generation. Any process. */
bool directory_topic(const struct directory *d, uint32_t index, struct topic_info *ret,
                     char *ret_name);
bool directory_ring(const struct directory *d, uint32_t index, struct ring_info *ret);
bool directory_subscription(const struct directory *d, uint32_t index,
                            struct subscription_info *ret, char *ret_filter);
bool directory_error(const struct directory *d, uint32_t index, struct error_info *ret,
                     char *ret_text);

/* Write a record: one atomic flip. Text only when the record is free now; NULL: it stays. A text
 * that differs from the present one costs a second flip: the record is free in between, so that
 * nobody sees one text with the content of the other. Longer texts are cut. pubsubd only; index in
 * range. */
void directory_topic_write(struct directory *d, uint32_t index, const struct topic_info *info,
                           const char *name);
void directory_ring_write(struct directory *d, uint32_t index, const struct ring_info *info);
void directory_subscription_write(struct directory *d, uint32_t index,
                                  const struct subscription_info *info, const char *filter);
void directory_error_write(struct directory *d, uint32_t index, const struct error_info *info,
                           const char *text);

/* The futex word of a topic's generation; of the whole. */
static inline atomic_u32 *directory_topic_generation(const struct directory *d, uint32_t topic) {
    return &d->topics[topic].header.generation;
}
static inline atomic_u32 *directory_generation(const struct directory *d) {
    return &d->header->generation;
}

/* The index of a live topic by name, or NO_INDEX. A linear scan. */
uint32_t directory_topic_find(const struct directory *d, const char *name);

#endif
