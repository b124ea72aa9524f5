/* session.h - one connected client: from accept to its death.
 *
 *     session.c   receive, check, answer, close
 *     request.c   what each request means
 *     reaper.c    who has died; who has not come back yet after a restart
 *     server.c    the listening socket, descriptors left, the end of an idle autostarted daemon
 *
 * Nothing that a client sends, or does not read, costs anybody but that client its session. */
#ifndef PUBSUBD_SESSION_H
#define PUBSUBD_SESSION_H

#include "bus.h"

struct session {
    struct bus *bus;
    int socket;
    int pidfd;                 /* -1: refused */
    uint32_t watch, pid_watch;
    int refuse;                /* != 0: the error that answers its first message, the last */
    bool greeted;
    bool bare;                 /* its rings may be RING_BARE */
    bool admin;                /* PING and STOP only: it may be of another layout */
    struct owner_info owner;
    struct ring *rings;
    struct subscription *subscriptions;
    struct opening *opening;   /* it waits for the answer; nothing is read from it */
    struct session *next;
};

/* ---- session.c */

/* Take over an accepted socket. `refuse`: 0, or why it will be turned away. On an error the
 * socket is closed. */
int session_new(struct bus *bus, int socket, int refuse);
/* Close it and reap what it owned. The session is freed. */
void session_close(struct session *s, const char *why);
/* The daemon ends: close all of them, and leave what they own as it is. */
void session_forget_all(struct bus *bus);
/* Begin a reply to a request. */
void session_reply_init(struct wire_reply *reply, const struct wire_header *request);
/* Send a reply; status < 0: with this thread's error detail. False: it could not be sent, the
 * session is to be closed. */
bool session_answer(struct session *s, struct wire_reply *reply, int status, int fd);
/* The opening is over: read on. The session may be closed by it. */
void session_resume(struct session *s);

/* ---- request.c */

enum request_result {
    REQUEST_DONE,    /* answered, or nothing to answer */
    REQUEST_PENDING, /* session->opening will answer */
    REQUEST_END,     /* the session is to be closed */
};
enum request_result request_handle(struct session *s, const union wire_message *message);

/* ---- reaper.c */

/* The descriptor of the process at the other end, its identity and credentials.
 * NO_DESCRIPTORS, NO_DAEMON (it has died) ... */
int reaper_identify(int socket, int *ret_pidfd, struct owner_info *ret);
/* After a restart: a record's owner is alive and has not come back. False: it is dead. */
bool reaper_await(struct bus *bus, const struct owner_info *owner);
/* Some record of this owner was claimed or freed: stop waiting for him if it was the last. */
void reaper_claimed(struct bus *bus, const struct owner_info *owner);
/* A client has claimed all that it has: what else is there of the same connection was never
 * known to it. */
void reaper_orphans(struct session *s);
void reaper_forget(struct bus *bus);

/* ---- server.c */

struct server;
/* `listener`: a socket that was handed over and listens at `path`, from now on the server's; or
 * -1. */
int server_new(struct server **ret, struct bus *bus, const char *path, int listener, bool system,
               bool autostarted);
/* Between two turns of the loop. */
void server_turn(struct server *server);
/* Accept from now on; who has connected before has been waiting. */
void server_start(struct server *server);
/* Nobody can connect any more. */
void server_stop_listening(struct server *server);
void server_free(struct server *server);

#endif
