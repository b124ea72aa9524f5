#include "client/client.h"

#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define DISPATCH_TURN                                                                            \
    256 /* samples of one subscriber before the next has its turn; its descriptor stays readable \
         */

static bool in_loop_thread(const struct shmps *bus) {
    return bus->loop.started && pthread_equal(pthread_self(), bus->loop.thread);
}

static int loop_runs(const char *what) {
    return error_raise(
        SHMPS_E_STATE,
        "the loop's thread runs; %s before shmps_loop_start() or after shmps_loop_stop()", what);
}

/* The epoll that holds the descriptor of each subscriber with a callback, and the event that ends
 * the loop. */
static int open_epoll(struct shmps *bus) {
    if (bus->epoll >= 0)
        return 0;
    _cleanup_close_ int epoll = epoll_create1(EPOLL_CLOEXEC);
    _cleanup_close_ int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = NULL };
    if (epoll < 0 || event < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, event, &e) < 0)
        return error_system(errno, "cannot make the descriptor of the connection");
    bus->epoll = steal_fd(&epoll);
    bus->stop_event = steal_fd(&event);
    return 0;
}

int shmps_fd(struct shmps *bus) {
    CHECK_FORK(bus);
    int r = open_epoll(bus);
    return r < 0 ? r : bus->epoll;
}

int shmps_subscriber_on_sample(struct shmps_subscriber *sub, shmps_callback callback, void *user) {
    struct shmps *bus = sub->bus;
    CHECK_FORK(bus);
    if (bus->loop.started)
        return loop_runs("set callbacks");
    if (callback && !sub->callback) {
        int r = open_epoll(bus);
        int fd = r < 0 ? r : shmps_subscriber_fd(sub);
        if (fd < 0)
            return fd;
        struct epoll_event e = { .events = EPOLLIN, .data.ptr = sub };
        if (epoll_ctl(bus->epoll, EPOLL_CTL_ADD, fd, &e) < 0)
            return error_system(errno, "cannot watch the descriptor of \"%s\"", sub->filter);
    } else if (!callback && sub->callback) {
        epoll_ctl(bus->epoll, EPOLL_CTL_DEL, descriptor_fd(sub->descriptor), NULL);
    }
    sub->callback = callback;
    sub->user = user;
    return 0;
}

/* Call the callback for what is there. Returns how often, or an error. */
static int serve(struct shmps_subscriber *sub) {
    int calls = 0;
    while (calls < DISPATCH_TURN && sub->callback) {
        struct shmps_sample sample;
        int r = shmps_take(sub, &sample, 0);
        if (r == SHMPS_EMPTY)
            break;
        if (r < 0)
            return r;
        calls++;
        sub->callback(sub, &sample, sub->user);
        if (r == 0)
            shmps_release(sub, &sample);
    }
    return calls;
}

/* A callback before may have closed it. */
static bool is_open(struct shmps *bus, const struct shmps_subscriber *sub) {
    pthread_mutex_lock(&bus->lock);
    const struct shmps_subscriber *s = bus->subscribers;
    while (s && s != sub)
        s = s->next;
    pthread_mutex_unlock(&bus->lock);
    return s != NULL;
}

static int dispatch(struct shmps *bus, int64_t timeout_ns) {
    struct epoll_event events[32];
    uint64_t deadline = timeout_ns == 0 ? 0 : deadline_of(timeout_ns);
    int r = open_epoll(bus);
    if (r < 0)
        return r;
    for (;;) {
        int64_t left = timeout_ns == 0 ? 0 : time_left(deadline, INT64_C(3600000000000));
        int ms = left <= 0 ? 0 : (int)((left + 999999) / 1000000);
        int n = epoll_wait(bus->epoll, events, ARRAY_LENGTH(events), ms);
        if (n < 0 && errno != EINTR)
            return error_system(errno, "cannot wait for subscribers");
        int calls = 0;
        for (int i = 0; i < n; i++) {
            if (!events[i].data.ptr)
                return 0; /* asked to stop */
            r = is_open(bus, events[i].data.ptr) ? serve(events[i].data.ptr) : 0;
            if (r < 0)
                return r;
            calls += r;
        }
        if (calls > 0)
            return 0;
        if (timeout_ns == 0)
            return SHMPS_EMPTY;
        if (time_left(deadline, 1) <= 0)
            return SHMPS_TIMEOUT;
    }
}

int shmps_dispatch(struct shmps *bus, int64_t timeout_ns) {
    CHECK_FORK(bus);
    if (bus->loop.started)
        return loop_runs("dispatch");
    return dispatch(bus, timeout_ns);
}

/* ---- the loop's thread */

static void *run(void *arg) {
    struct shmps *bus = arg;
    /* An error about one ring or a lack of memory has been reported by nobody: there is nobody to
     * tell; go on. */
    /* SYNC loop.stop: pairs with the release in shmps_loop_stop() */
    while (!atomic_load_acquire(&bus->loop.stop))
        dispatch(bus, SHMPS_FOREVER);
    return NULL;
}

int shmps_loop_start(struct shmps *bus) {
    CHECK_FORK(bus);
    if (bus->loop.started)
        return loop_runs("start it");
    int r = open_epoll(bus);
    if (r < 0)
        return r;
    sigset_t all, old;
    atomic_store_relaxed(&bus->loop.stop, 0); /* relaxed: the thread is created after it */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* the program's signals are not for our thread */
    bus->loop.started = true;
    r = pthread_create(&bus->loop.thread, NULL, run, bus);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0) {
        bus->loop.started = false;
        return error_system(r, "cannot start the loop's thread");
    }
    return 0;
}

int shmps_loop_stop(struct shmps *bus) {
    CHECK_FORK(bus);
    if (!bus->loop.started)
        return error_raise(SHMPS_E_STATE, "the loop's thread does not run");
    uint64_t one = 1;
    /* SYNC loop.stop: release pairs with the acquire in run(); the eventfd wakes it. */
    atomic_store_release(&bus->loop.stop, 1);
    if (write(bus->stop_event, &one, sizeof one) < 0 && errno != EAGAIN)
        return error_system(errno, "cannot wake the loop's thread");
    if (in_loop_thread(bus))
        return 0; /* it ends after this callback; another call, or shmps_close(), joins it */
    pthread_join(bus->loop.thread, NULL);
    bus->loop.started = false;
    if (read(bus->stop_event, &one, sizeof one) < 0 && errno != EAGAIN)
        return error_system(errno, "cannot reset the loop's event");
    return 0;
}
