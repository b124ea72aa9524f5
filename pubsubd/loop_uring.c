#include "loop.h"

#include "base/error.h"
#include "base/scope.h"

#if HAVE_LIBURING

#include <liburing.h>
#include <string.h>

#define ENTRIES 64

struct uring_state {
    struct io_uring ring;
};

static struct io_uring_sqe *next_entry(struct uring_state *s) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);
    if (sqe == NULL) { /* the queue is full of what the kernel has not seen yet */
        io_uring_submit(&s->ring);
        sqe = io_uring_get_sqe(&s->ring);
    }
    return sqe;
}

static int uring_arm(void *state, int fd, uint32_t events, uint64_t token, bool known) {
    struct io_uring_sqe *sqe = next_entry(state);
    (void)known; /* each poll is a request of its own */
    if (sqe == NULL)
        return -EAGAIN;
    io_uring_prep_poll_add(sqe, fd, events);
    io_uring_sqe_set_data64(sqe, token);
    return 0;
}

/* A poll in flight holds its file: it must go before a close can be seen by the other end. */
static void uring_disarm(void *state, int fd, uint64_t token, bool armed) {
    struct uring_state *s = state;
    (void)fd;
    if (!armed)
        return;
    struct io_uring_sqe *sqe = next_entry(s);
    if (sqe == NULL)
        return;
    io_uring_prep_poll_remove(sqe, token);
    io_uring_sqe_set_data64(sqe, 0);
    io_uring_submit(&s->ring); /* before the caller closes the descriptor */
}

static int uring_wait(void *state, bool wait, struct loop_ready *ret, unsigned n) {
    struct uring_state *s = state;
    struct io_uring_cqe *cqe;
    unsigned head, found = 0;
    int r = io_uring_submit_and_wait(&s->ring, wait ? 1 : 0);
    /* EBUSY, EAGAIN: take what has come, then submit again */
    if (r < 0 && r != -EINTR && r != -EBUSY && r != -EAGAIN)
        return error_system(-r, "cannot wait for events");
    io_uring_for_each_cqe(&s->ring, head, cqe) {
        if (found == n)
            break;
        ret[found++] = (struct loop_ready){
            .token = cqe->user_data,
            .events = cqe->res < 0 ? POLLERR : (uint32_t)cqe->res,
        };
    }
    io_uring_cq_advance(&s->ring, found);
    return (int)found;
}

static void uring_free(void *state) {
    struct uring_state *s = state;
    io_uring_queue_exit(&s->ring);
    free(s);
}

int loop_uring_new(const struct loop_way **ret, void **ret_state) {
    static const struct loop_way way = {
        .name = "io_uring",
        .arm = uring_arm,
        .disarm = uring_disarm,
        .wait = uring_wait,
        .free = uring_free,
    };
    struct uring_state *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for the loop");
    int r = io_uring_queue_init(ENTRIES, &s->ring, 0);
    if (r < 0) {
        free(s);
        return error_raise(SHMPS_E_UNSUPPORTED, "io_uring is not to be had (%s); use --loop epoll",
                           strerror(-r));
    }
    /* A kernel before 5.5 drops completions that do not fit; its polls are not for us. */
    if ((s->ring.features & IORING_FEAT_NODROP) == 0) {
        uring_free(s);
        return error_raise(SHMPS_E_UNSUPPORTED,
                           "this kernel's io_uring is too old; use --loop epoll");
    }
    *ret = &way;
    *ret_state = s;
    return 0;
}

#else

int loop_uring_new(const struct loop_way **ret, void **ret_state) {
    (void)ret;
    (void)ret_state;
    return error_raise(SHMPS_E_UNSUPPORTED,
                       "this pubsubd was built without liburing; use --loop epoll");
}

#endif
