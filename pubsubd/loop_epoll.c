#include "loop.h"

#include "base/error.h"
#include "base/scope.h"

#include <sys/epoll.h>

_Static_assert(EPOLLIN == POLLIN && EPOLLHUP == POLLHUP && EPOLLERR == POLLERR &&
                   EPOLLRDHUP == POLLRDHUP,
               "the events of poll(2) and epoll(7) are the same bits");

struct epoll_state {
    int fd;
};

static int epoll_arm(void *state, int fd, uint32_t events, uint64_t token, bool known) {
    struct epoll_state *s = state;
    struct epoll_event e = { .events = events | EPOLLONESHOT, .data.u64 = token };
    return epoll_ctl(s->fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

static void epoll_disarm(void *state, int fd, uint64_t token, bool armed) {
    struct epoll_state *s = state;
    (void)token;
    (void)armed; /* it is in the set all the same */
    epoll_ctl(s->fd, EPOLL_CTL_DEL, fd, NULL);
}

static int epoll_wait_some(void *state, bool wait, struct loop_ready *ret, unsigned n) {
    struct epoll_state *s = state;
    struct epoll_event events[64];
    int found = epoll_wait(s->fd, events, n < 64 ? (int)n : 64, wait ? -1 : 0);
    if (found < 0)
        return errno == EINTR ? 0 : error_system(errno, "cannot wait for events");
    for (int i = 0; i < found; i++)
        ret[i] = (struct loop_ready){ .token = events[i].data.u64, .events = events[i].events };
    return found;
}

static void epoll_free(void *state) {
    struct epoll_state *s = state;
    close(s->fd);
    free(s);
}

int loop_epoll_new(const struct loop_way **ret, void **ret_state) {
    static const struct loop_way way = {
        .name = "epoll",
        .arm = epoll_arm,
        .disarm = epoll_disarm,
        .wait = epoll_wait_some,
        .free = epoll_free,
    };
    struct epoll_state *s = malloc(sizeof(*s));
    if (s == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for the loop");
    s->fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->fd < 0) {
        int r = error_system(errno, "cannot make an epoll descriptor");
        free(s);
        return r;
    }
    *ret = &way;
    *ret_state = s;
    return 0;
}
