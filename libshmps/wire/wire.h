/* wire/wire.h - the control protocol: fixed-size messages over AF_UNIX SOCK_SEQPACKET,
 * little-endian, one datagram each.
 *
 * Each request has exactly one reply, in order; a client waits for it before it sends the next, or
 * gives up and discards it later. Nothing is sent unasked by the daemon. DRAINED has no reply.
 * A reply carries at most one descriptor. The
 * first request must be HELLO; anything malformed (length, magic, unknown type, a descriptor that
 * nobody asked for, strings without NUL) ends the session. Reserved fields are zero. */
#ifndef SHMPS_WIRE_WIRE_H
#define SHMPS_WIRE_WIRE_H

#include <stdint.h>
#include <sys/types.h>

#define WIRE_MAGIC UINT32_C(0x31706d73) /* "smp1" */
/* this build's; the range it accepts is WIRE_VERSION_MIN .. WIRE_VERSION */
#define WIRE_VERSION 1
#define WIRE_VERSION_MIN 1
#define WIRE_NAME_BYTES 256             /* topic or filter, NUL-terminated */
#define WIRE_DETAIL_BYTES 512
#define WIRE_MESSAGE_BYTES_MAX 1024

enum wire_type {
    WIRE_HELLO = 1,
    /* also: grow (predecessor != 0), claim after a restart (claim != 0) */
    WIRE_OPEN_PUBLISHER = 2,
    WIRE_OPEN_SUBSCRIBER = 3,   /* also: claim */
    WIRE_CLOSE = 4,             /* a publisher or a subscription, by serial */
    WIRE_DRAINED = 5,           /* hint: this session has drained a retired ring; no reply */
    WIRE_STOP = 6,              /* end the daemon */
    WIRE_PING = 7,
    WIRE_REPLY = 0x8000,        /* | type of the request */
};

struct wire_header {
    uint32_t magic;
    uint16_t version;   /* of the sender's protocol; HELLO settles it */
    uint16_t type;      /* enum wire_type */
    uint32_t bytes;     /* of the whole message */
    uint32_t sequence;  /* chosen by the client, repeated in the reply */
};

struct wire_hello {
    struct wire_header header;
    uint16_t version_min, version_max;
    uint32_t flags;               /* WIRE_HELLO_BARE, WIRE_HELLO_ADMIN */
    uint64_t fingerprint;         /* layout_fingerprint() */
    /* random, per connection; proves the client after a restart where pids cannot */
    uint64_t secret;
    /* serial of the directory it has mapped, 0: none yet (first hello) */
    uint64_t directory;
    char instance[40];            /* which it expects; empty: any */
    uint64_t reserved[4];
};
#define WIRE_HELLO_BARE UINT32_C(1) /* barrier_registered(): rings it publishes may be RING_BARE */
/* Only PING and STOP will follow: no descriptor is sent, and the layout need not be the same. */
#define WIRE_HELLO_ADMIN UINT32_C(2)

struct wire_open_publisher {
    struct wire_header header;
    char topic[WIRE_NAME_BYTES];
    uint64_t depth;               /* 0: default */
    uint64_t message_bytes;       /* 0: default, may grow */
    uint64_t pins;                /* 0: default */
    /* serial of the sender's ring that the new one replaces, 0: none */
    uint64_t predecessor;
    /* serial of a ring of this process that survived a restart: only adopted, no descriptor is
     * sent; all else is ignored */
    uint64_t claim;
    /* RING_TIMESTAMPS, RING_EXPLICIT_SIZE of layout/ring.h, as numbers */
    uint32_t flags;
    /* newest samples that the topic is to keep while it lives; 0: as it is. A pubsubd that does
     * not know it finds a reserved field that is not zero */
    uint32_t history;
    uint64_t reserved[4];
};

struct wire_open_subscriber {
    struct wire_header header;
    char filter[WIRE_NAME_BYTES];
    uint32_t policy;              /* enum policy of layout/directory.h: LOSSY, LATEST, RELIABLE */
    uint32_t pins;                /* wanted, 0 .. 63 */
    uint32_t history;
    uint32_t reserved0;
    /* serial of a subscription of this process that survived a restart; all else is ignored */
    uint64_t claim;
    uint64_t reserved[4];
};

struct wire_close {
    struct wire_header header;
    uint64_t serial;              /* of a ring or a subscription of this session */
    uint64_t reserved[2];
};

struct wire_drained {
    struct wire_header header;
    uint64_t ring;                /* serial; 0: look at all retired rings */
    uint64_t reserved[2];
};

struct wire_plain { /* STOP, PING */
    struct wire_header header;
    uint64_t reserved[2];
};

struct wire_reply {
    struct wire_header header;
    int32_t status;               /* 0 or enum shmps_error */
    uint32_t descriptors;         /* 0 or 1, must equal what arrived */
    union {
        struct {                  /* HELLO; descriptor (not with ADMIN): the directory,
                                     read-only */
            uint64_t epoch;
            uint64_t directory;   /* its serial */
            uint64_t session;
            uint32_t uid;         /* of the instance, for names of segments */
            uint32_t version;     /* of the protocol that is used from now on */
            char instance[40];
        } hello;
        struct {                  /* OPEN_PUBLISHER; descriptor: the ring, read-write */
            uint64_t serial;
            uint32_t record;      /* index of its ring record */
            uint32_t topic;       /* index of its topic */
        } publisher;
        struct {                  /* OPEN_SUBSCRIBER */
            uint64_t serial;
            uint32_t record;      /* index of its subscription record */
            uint32_t topic;       /* exact filter: index of its topic, else NO_INDEX */
        } subscriber;
        uint64_t words[14];
    } u;
    char detail[WIRE_DETAIL_BYTES]; /* status != 0: cause and remedy, NUL-terminated */
};

_Static_assert(sizeof(struct wire_header) == 16, "no padding");
_Static_assert(sizeof(struct wire_hello) == 16 + 8 + 24 + 40 + 32, "no padding");
_Static_assert(sizeof(struct wire_open_publisher) == 16 + 256 + 40 + 8 + 32, "no padding");
_Static_assert(sizeof(struct wire_open_subscriber) == 16 + 256 + 16 + 8 + 32, "no padding");
_Static_assert(sizeof(struct wire_reply) == 16 + 8 + 112 + 512, "no padding");
_Static_assert(sizeof(struct wire_reply) <= WIRE_MESSAGE_BYTES_MAX, "fits a message");

/* Any message, for receiving. */
union wire_message {
    struct wire_header header;
    struct wire_hello hello;
    struct wire_open_publisher open_publisher;
    struct wire_open_subscriber open_subscriber;
    struct wire_close close;
    struct wire_drained drained;
    struct wire_plain plain;
    struct wire_reply reply;
    char bytes[WIRE_MESSAGE_BYTES_MAX];
};

/* Zero a message and fill its header. `message` has room for the type's size, which is
 * returned. */
uint32_t wire_init(void *message, enum wire_type type, uint32_t sequence);

/* Check a received message of `bytes` bytes: magic, length against its type, NULs, reserved
 * fields. `reply`: it must be a reply, else it must be a request. PROTOCOL, with what is wrong.
 * HELLO of any version passes as long as its fixed part is whole; the caller settles the
 * version. */
int wire_check(const union wire_message *message, size_t bytes, int reply);

/* Send one message with an optional descriptor (-1: none). Never raises SIGPIPE, retries
 * EINTR. 0; NO_DAEMON (the peer is gone), LIMIT (would block, or ETOOMANYREFS), SYSTEM. */
int wire_send(int socket, const void *message, int fd);

/* Receive one message. *ret_bytes 0: end of file. A descriptor beyond the first, or any if
 * ret_fd is NULL, is closed and makes it PROTOCOL; a truncated descriptor (MSG_CTRUNC: this
 * process has none left) is NO_DESCRIPTORS with the message still delivered. timeout_ns: < 0
 * waits for ever, 0 does not wait. A positive return: SHMPS_TIMEOUT or (timeout 0) SHMPS_EMPTY. */
int wire_receive(int socket, union wire_message *ret, size_t *ret_bytes, int *ret_fd,
                 int64_t timeout_ns);

#endif
