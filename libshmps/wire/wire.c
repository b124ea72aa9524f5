/* wire/wire.c - see wire/wire.h. */
#include "wire/wire.h"

#include "base/error.h"
#include "base/process.h"
#include "base/scope.h"

#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

/* Bytes of a message of this type; 0 if there is no such type. DRAINED has no reply. */
static uint32_t bytes_of_type(unsigned type) {
    switch (type) {
    case WIRE_HELLO:
        return sizeof(struct wire_hello);
    case WIRE_OPEN_PUBLISHER:
        return sizeof(struct wire_open_publisher);
    case WIRE_OPEN_SUBSCRIBER:
        return sizeof(struct wire_open_subscriber);
    case WIRE_CLOSE:
        return sizeof(struct wire_close);
    case WIRE_DRAINED:
        return sizeof(struct wire_drained);
    case WIRE_STOP:
    case WIRE_PING:
        return sizeof(struct wire_plain);
    case WIRE_REPLY | WIRE_HELLO:
    case WIRE_REPLY | WIRE_OPEN_PUBLISHER:
    case WIRE_REPLY | WIRE_OPEN_SUBSCRIBER:
    case WIRE_REPLY | WIRE_CLOSE:
    case WIRE_REPLY | WIRE_STOP:
    case WIRE_REPLY | WIRE_PING:
        return sizeof(struct wire_reply);
    default:
        return 0;
    }
}

uint32_t wire_init(void *message, enum wire_type type, uint32_t sequence) {
    uint32_t bytes = bytes_of_type((unsigned)type);
    memset(message, 0, bytes);
    if (bytes > 0) {
        *(struct wire_header *)message = (struct wire_header){
            .magic = WIRE_MAGIC,
            .version = WIRE_VERSION,
            .type = (uint16_t)type,
            .bytes = bytes,
            .sequence = sequence,
        };
    }
    return bytes;
}

__attribute__((cold)) static int malformed(const char *what) {
    return error_raise(SHMPS_E_PROTOCOL,
                       "malformed control message: %s; is the other end another build of shmps?",
                       what);
}

static bool terminated(const char *string, size_t bytes) {
    return memchr(string, '\0', bytes) != NULL;
}

static bool all_zero(const uint64_t *words, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (words[i] != 0)
            return false;
    }
    return true;
}
#define reserved_zero(message) all_zero((message)->reserved, ARRAY_LENGTH((message)->reserved))

static int check_hello(const struct wire_hello *m) {
    if (m->version_min > m->version_max)
        return malformed("the hello's range of versions is empty");
    if (!terminated(m->instance, sizeof(m->instance)))
        return malformed("the instance name does not end");
    /* What another version keeps here is its own business. */
    if (m->header.version == WIRE_VERSION && !reserved_zero(m))
        return malformed("a reserved field is not zero");
    return 0;
}

static int check_request(const union wire_message *m) {
    bool zero;
    switch (m->header.type) {
    case WIRE_HELLO:
        return check_hello(&m->hello);
    case WIRE_OPEN_PUBLISHER:
        if (!terminated(m->open_publisher.topic, sizeof(m->open_publisher.topic)))
            return malformed("the topic name does not end");
        zero = reserved_zero(&m->open_publisher);
        break;
    case WIRE_OPEN_SUBSCRIBER:
        if (!terminated(m->open_subscriber.filter, sizeof(m->open_subscriber.filter)))
            return malformed("the topic filter does not end");
        zero = reserved_zero(&m->open_subscriber) && m->open_subscriber.reserved0 == 0;
        break;
    case WIRE_CLOSE:
        zero = reserved_zero(&m->close);
        break;
    case WIRE_DRAINED:
        zero = reserved_zero(&m->drained);
        break;
    default: /* STOP, PING: the type was known to have a length */
        zero = reserved_zero(&m->plain);
        break;
    }
    return zero ? 0 : malformed("a reserved field is not zero");
}

static int check_reply(const struct wire_reply *m) {
    if (m->status > 0)
        return malformed("the reply's status is neither 0 nor an error");
    if (m->descriptors > 1)
        return malformed("a reply carries at most one descriptor");
    if (!terminated(m->detail, sizeof(m->detail)))
        return malformed("the reply's detail does not end");
    if (m->header.type == (WIRE_REPLY | WIRE_HELLO) && m->status == 0 &&
        !terminated(m->u.hello.instance, sizeof(m->u.hello.instance)))
        return malformed("the instance name does not end");
    return 0;
}

int wire_check(const union wire_message *message, size_t bytes, int reply) {
    const struct wire_header *h = &message->header;
    if (bytes < sizeof(*h) || bytes > sizeof(*message))
        return malformed("it is shorter than a header or longer than any message");
    if (h->magic != WIRE_MAGIC)
        return malformed("wrong magic number");
    if (h->bytes != bytes)
        return malformed("its length is not what its header says");
    uint32_t expected = bytes_of_type(h->type);
    if (expected == 0)
        return malformed("unknown type");
    bool is_reply = (h->type & WIRE_REPLY) != 0;
    if (is_reply != (reply != 0))
        return malformed(is_reply ? "a reply where a request belongs"
                                  : "a request where a reply belongs");
    /* A HELLO and its reply are how two versions find out about each other: a later one may be
     * longer. */
    bool hello = (h->type & ~WIRE_REPLY) == WIRE_HELLO;
    bool longer_allowed = hello && h->version > WIRE_VERSION;
    if (bytes < expected || (bytes > expected && !longer_allowed))
        return malformed("its length does not fit its type");
    if (!hello && (h->version < WIRE_VERSION_MIN || h->version > WIRE_VERSION))
        return malformed("its version is not the one that was agreed");
    return is_reply ? check_reply(&message->reply) : check_request(message);
}

int wire_send(int socket, const void *message, int fd) {
    const struct wire_header *header = message;
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = { .bytes = { 0 } };
    struct iovec part = { .iov_base = (void *)(uintptr_t)message, .iov_len = header->bytes };
    struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1 };
    if (fd >= 0) {
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        *c = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET,
            .cmsg_type = SCM_RIGHTS,
            .cmsg_len = CMSG_LEN(sizeof(int)),
        };
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    ssize_t sent;
    do
        sent = sendmsg(socket, &m, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return 0; /* a datagram goes whole or not at all */
    switch (errno) {
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return error_raise(SHMPS_E_NO_DAEMON, "the other end of the control socket has gone");
    case EAGAIN:
        return error_raise(SHMPS_E_LIMIT,
                           "the control socket is full: the other end does not read its messages");
    case ETOOMANYREFS:
        return error_raise(SHMPS_E_LIMIT,
                           "too many descriptors of this user are in flight; raise RLIMIT_NOFILE "
                           "(ulimit -n)");
    default:
        return error_system(errno, "cannot send %" PRIu32 " bytes on the control socket",
                            header->bytes);
    }
}

/* Room for two descriptors: one that may be wanted, and a second that proves a surplus. The
 * kernel itself drops what does not fit, so that a hostile message cannot make us hold hundreds,
 * not even for a moment. */
#define CONTROL_DESCRIPTORS 2
union control_buffer {
    char bytes[CMSG_SPACE(CONTROL_DESCRIPTORS * sizeof(int))];
    struct cmsghdr align;
};

/* Take the first descriptor out of what was received, close all others; returns how many there
 * were. */
static unsigned collect_descriptors(struct msghdr *m, int *ret_first) {
    unsigned n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (n++ == 0)
                *ret_first = fd;
            else
                close(fd);
        }
    }
    return n;
}

/* A message, or the end of file, has arrived. Everything that came with it is owned or closed
 * from here on. */
static int accept_message(struct msghdr *m, size_t bytes, size_t *ret_bytes, int *ret_fd) {
    _cleanup_close_ int first = -1;
    unsigned descriptors = collect_descriptors(m, &first);
    bool dropped = (m->msg_flags & MSG_CTRUNC) != 0;
    /* also an empty datagram, which no correct peer sends: the session is over either way */
    if (bytes == 0) {
        *ret_bytes = 0;
        return 0;
    }
    if ((m->msg_flags & MSG_TRUNC) != 0)
        return malformed("it is longer than any message");
    if (descriptors > 1 || (ret_fd == NULL && (descriptors > 0 || dropped)))
        return malformed("it carries a descriptor that nobody asked for");
    *ret_bytes = bytes;
    if (dropped)
        return error_raise(SHMPS_E_NO_DESCRIPTORS,
                           "no descriptor left to receive one; raise RLIMIT_NOFILE (ulimit -n) or "
                           "close some");
    if (ret_fd != NULL)
        *ret_fd = steal_fd(&first);
    return 0;
}

/* Wait until the socket may be read. 0, or SHMPS_TIMEOUT. */
static int wait_readable(int socket, bool forever, uint64_t deadline_ns) {
    struct pollfd p = { .fd = socket, .events = POLLIN };
    struct timespec left = { 0 };
    if (!forever) {
        uint64_t now = now_ns();
        if (now >= deadline_ns)
            return SHMPS_TIMEOUT;
        left.tv_sec = (time_t)((deadline_ns - now) / UINT64_C(1000000000));
        left.tv_nsec = (long)((deadline_ns - now) % UINT64_C(1000000000));
    }
    if (ppoll(&p, 1, forever ? NULL : &left, NULL) < 0 && errno != EINTR)
        return error_system(errno, "cannot wait for the control socket");
    return 0;
}

int wire_receive(int socket, union wire_message *ret, size_t *ret_bytes, int *ret_fd,
                 int64_t timeout_ns) {
    uint64_t deadline_ns = timeout_ns > 0 ? now_ns() + (uint64_t)timeout_ns : 0;
    bool reset_seen = false;
    if (ret_fd != NULL)
        *ret_fd = -1;
    for (;;) {
        union control_buffer control;
        struct iovec part = { .iov_base = ret, .iov_len = sizeof(*ret) };
        struct msghdr m = {
            .msg_iov = &part,
            .msg_iovlen = 1,
            .msg_control = control.bytes,
            .msg_controllen = sizeof(control.bytes),
        };
        ssize_t received = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (received >= 0)
            return accept_message(&m, (size_t)received, ret_bytes, ret_fd);
        if (errno == EINTR)
            continue;
        if (errno == ECONNRESET && !reset_seen) {
            /* The peer closed with messages of ours unread. The kernel says so once, before it
             * hands out what the peer had sent: that, or the end of file, comes next. */
            reset_seen = true;
            continue;
        }
        if (errno != EAGAIN)
            return error_system(errno, "cannot receive from the control socket");
        if (timeout_ns == 0)
            return SHMPS_EMPTY;
        int r = wait_readable(socket, timeout_ns < 0, deadline_ns);
        if (r != 0)
            return r;
    }
}
