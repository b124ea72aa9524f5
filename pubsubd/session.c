#include "session.h"

#include "base/error.h"
#include "log.h"

#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

#define MESSAGES_A_TURN 16

static void on_socket(void *data, uint32_t events);

static void on_death(void *data, uint32_t events) {
    (void)events;
    session_close(data, "its process has ended");
}

/* ---- birth */

static int watch(struct session *s) {
    int r = loop_add(s->bus->loop, s->socket, on_socket, s, &s->watch);
    if (r == 0 && s->pidfd >= 0)
        r = loop_add(s->bus->loop, s->pidfd, on_death, s, &s->pid_watch);
    return r;
}

static void destroy(struct session *s) {
    loop_remove(s->bus->loop, s->watch);
    loop_remove(s->bus->loop, s->pid_watch);
    if (s->socket >= 0)
        shutdown(s->socket, SHUT_RDWR); /* seen at once, whoever else holds the descriptor */
    scope_close(&s->socket);
    scope_close(&s->pidfd);
    free(s);
}

int session_new(struct bus *bus, int socket, int refuse) {
    _cleanup_close_ int fd = socket;
    struct session *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "pubsubd has no memory for a session");
    s->bus = bus;
    s->socket = steal_fd(&fd);
    s->pidfd = -1;
    s->refuse = refuse;
    int r = refuse == 0 ? reaper_identify(s->socket, &s->pidfd, &s->owner) : 0;
    if (r == SHMPS_E_NO_DESCRIPTORS || r == SHMPS_E_PERMISSION)
        s->refuse = r;
    else if (r < 0) {
        destroy(s);
        return r;
    }
    if (s->refuse == 0 && s->owner.uid != bus->uid && s->owner.uid != 0)
        s->refuse = SHMPS_E_PERMISSION;
    r = watch(s);
    if (r < 0) {
        destroy(s);
        return r;
    }
    s->next = bus->sessions;
    bus->sessions = s;
    bus->n_sessions++;
    bus->n_refused += s->refuse != 0;
    loop_arm(bus->loop, s->watch, POLLIN);
    if (s->pid_watch != 0)
        loop_arm(bus->loop, s->pid_watch, POLLIN);
    return 0;
}

/* ---- death */

void session_close(struct session *s, const char *why) {
    struct bus *bus = s->bus;
    log_debug("session of process %d (%s) ends: %s", (int)s->owner.pid, s->owner.command, why);
    if (s->opening != NULL)
        opening_cancel(bus, s->opening);
    while (s->subscriptions != NULL)
        subscription_close(bus, s->subscriptions, true);
    while (s->rings != NULL) {
        struct topic *topic = s->rings->topic;
        ring_retire(bus, s->rings);
        ring_collect(bus, topic);
    }
    struct session **p = &bus->sessions;
    while (*p != s)
        p = &(*p)->next;
    *p = s->next;
    bus->n_sessions--;
    bus->n_refused -= s->refuse != 0;
    destroy(s);
}

void session_forget_all(struct bus *bus) {
    for (struct session *s = bus->sessions, *next; s != NULL; s = next) {
        next = s->next;
        if (s->opening != NULL) {
            scope_close(&s->opening->fd);
            free(s->opening);
        }
        destroy(s);
    }
    bus->sessions = NULL;
    bus->openings = NULL;
}

/* ---- answers */

void session_reply_init(struct wire_reply *reply, const struct wire_header *request) {
    wire_init(reply, (enum wire_type)(WIRE_REPLY | request->type), request->sequence);
}

bool session_answer(struct session *s, struct wire_reply *reply, int status, int fd) {
    reply->status = status;
    reply->descriptors = status == 0 && fd >= 0;
    if (status < 0) {
        const char *detail = shmps_error_detail();
        memcpy(reply->detail, detail, strnlen(detail, sizeof(reply->detail) - 1));
        memset(&reply->u, 0, sizeof(reply->u));
        bus_error(s->bus, status, s->owner.command, detail);
    }
    int r = wire_send(s->socket, reply, reply->descriptors ? fd : -1);
    if (r == SHMPS_E_LIMIT) /* it does not read; the daemon does not wait for it */
        bus_error(s->bus, r, s->owner.command, shmps_error_detail());
    return r == 0;
}

/* ---- messages */

static void refuse(struct session *s, const union wire_message *message) {
    struct wire_reply reply;
    int status = s->refuse;
    if (status == SHMPS_E_PERMISSION)
        error_raise(status, "instance \"%s\" belongs to user %u, and topics do not cross users "
                    "yet; start a pubsubd of your own", s->bus->instance, (unsigned)s->bus->uid);
    else if (status == SHMPS_E_LIMIT)
        error_raise(status, "pubsubd of instance \"%s\" has as many clients as it may have (%"
                    PRIu64 "); close one, or raise max_connections in pubsubd.conf",
                    s->bus->instance, s->bus->config->max_connections);
    else
        error_raise(status, "pubsubd of instance \"%s\" has no descriptors left for another "
                    "client: start it with a larger RLIMIT_NOFILE (ulimit -n)", s->bus->instance);
    session_reply_init(&reply, &message->header);
    session_answer(s, &reply, status, -1);
}

/* One message, if there is one. */
static enum request_result receive(struct session *s, bool *ret_empty, const char **ret_why) {
    union wire_message message;
    size_t bytes = 0;
    int r = wire_receive(s->socket, &message, &bytes, NULL, 0);
    *ret_empty = r == SHMPS_EMPTY;
    if (*ret_empty)
        return REQUEST_DONE;
    if (r == 0 && bytes == 0) {
        *ret_why = "hung up";
        return REQUEST_END;
    }
    if (r == 0)
        r = wire_check(&message, bytes, 0);
    if (r == 0 && !s->greeted && message.header.type != WIRE_HELLO)
        r = error_raise(SHMPS_E_PROTOCOL, "the first message of a session must be a hello");
    if (r < 0) {
        bus_error(s->bus, r, s->owner.command, shmps_error_detail());
        *ret_why = "not a well-formed message";
        return REQUEST_END;
    }
    *ret_why = "as asked for, or as its messages cannot be answered";
    if (s->refuse != 0) {
        refuse(s, &message);
        return REQUEST_END;
    }
    return request_handle(s, &message);
}

static void on_socket(void *data, uint32_t events) {
    struct session *s = data;
    const char *why = "hung up";
    if (s->opening != NULL || (events & (POLLIN | POLLHUP)) == 0) {
        session_close(s, why); /* while an opening is under way only its hang-up is awaited */
        return;
    }
    for (int i = 0; i < MESSAGES_A_TURN; i++) {
        bool empty;
        enum request_result result = receive(s, &empty, &why);
        if (result == REQUEST_END) {
            session_close(s, why);
            return;
        }
        if (result == REQUEST_PENDING) {
            loop_arm(s->bus->loop, s->watch, POLLRDHUP);
            return;
        }
        if (empty || s->bus->ending)
            break;
    }
    loop_arm(s->bus->loop, s->watch, POLLIN);
}

void session_resume(struct session *s) {
    struct loop *loop = s->bus->loop;
    loop_remove(loop, s->watch); /* the wait for its hang-up is of no more use */
    s->watch = 0;
    if (loop_add(loop, s->socket, on_socket, s, &s->watch) < 0)
        session_close(s, shmps_error_detail());
    else
        loop_arm(loop, s->watch, POLLIN);
}
