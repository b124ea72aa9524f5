/* loop.h - readiness of descriptors. io_uring, or epoll where that is forbidden.
 *
 * A watch fires once each time it is armed, and arming looks at the present state:
 * level-triggered, and a client that floods is served between the others. (io_uring's
 * multishot polls tell edges only, so they fit none of ours.) There is no timer in here: a
 * loop without events sleeps for ever. */
#ifndef PUBSUBD_LOOP_H
#define PUBSUBD_LOOP_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

struct loop;

/* `events`: POLLIN, POLLHUP ... as in poll(2). The watch is not armed any more; the function
 * may arm or remove any watch. */
typedef void loop_function(void *data, uint32_t events);

enum loop_kind { LOOP_ANY = 0, LOOP_URING = 1, LOOP_EPOLL = 2 };

/* ANY: io_uring, else epoll. UNSUPPORTED (URING: this kernel or build has none),
 * NO_DESCRIPTORS, NO_MEMORY, SYSTEM. */
int loop_new(struct loop **ret, enum loop_kind kind);
void loop_free(struct loop *loop);
const char *loop_name(const struct loop *loop);

/* Add a watch for a descriptor, not yet armed. `fd` stays the caller's and is closed only
 * after loop_remove(). NO_MEMORY. */
int loop_add(struct loop *loop, int fd, loop_function *function, void *data, uint32_t *ret_watch);
/* Fire once when one of `events` is there; POLLHUP and POLLERR always count. Armed already: no
 * change. */
void loop_arm(struct loop *loop, uint32_t watch, uint32_t events);
/* It fires no more. 0 is allowed and nothing. */
void loop_remove(struct loop *loop, uint32_t watch);

/* One turn: wait for events (`wait`: until there is one), then call the functions. */
int loop_turn(struct loop *loop, bool wait);

/* ---- the two ways, for loop.c */

struct loop_ready {
    uint64_t token; /* 0: nothing of ours */
    uint32_t events;
};
struct loop_way {
    const char *name;
    /* `known`: this descriptor was armed before under this token. Negative errno. */
    int (*arm)(void *state, int fd, uint32_t events, uint64_t token, bool known);
    void (*disarm)(void *state, int fd, uint64_t token, bool armed);
    /* How many are ready, at most n; 0 also after a signal. */
    int (*wait)(void *state, bool wait, struct loop_ready *ret, unsigned n);
    void (*free)(void *state);
};
int loop_uring_new(const struct loop_way **ret, void **ret_state);
int loop_epoll_new(const struct loop_way **ret, void **ret_state);

#endif
