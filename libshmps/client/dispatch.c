#include "client/client.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/* Samples of one subscriber before the next has its turn; its descriptor stays readable. */
#define DISPATCH_TURN 256
/* The loop's thread goes on after an error that may pass: no memory, no descriptors. */
#define LOOP_PAUSE_MS 10

/* Who may touch a subscriber with a callback: the thread that serves it, while it does. Everybody
 * else first takes it off the list, and waits until it is not served any more. The lock is not
 * held while a callback runs. */

void dispatch_init(struct dispatch *d) {
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->served, NULL);
    d->epoll = d->stop_event = -1;
}

/* The epoll that holds the descriptor of each subscriber with a callback, and the event that ends
 * the loop. */
static int open_epoll(struct dispatch *d) {
    if (d->epoll >= 0)
        return 0;
    _cleanup_close_ int epoll = epoll_create1(EPOLL_CLOEXEC);
    _cleanup_close_ int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = NULL };
    if (epoll < 0 || event < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, event, &e) < 0)
        return error_system(errno, "cannot make the descriptor of the connection");
    d->epoll = steal_fd(&epoll);
    d->stop_event = steal_fd(&event);
    return 0;
}

int shmps_fd(struct shmps *bus) {
    CHECK_FORK(bus);
    pthread_mutex_lock(&bus->dispatch.lock);
    int r = open_epoll(&bus->dispatch);
    pthread_mutex_unlock(&bus->dispatch.lock);
    return r < 0 ? r : bus->dispatch.epoll;
}

/* ---- the list; the caller holds the lock */

static struct shmps_subscriber **find(struct dispatch *d, const struct shmps_subscriber *sub) {
    struct shmps_subscriber **p = &d->called;
    while (*p && *p != sub)
        p = &(*p)->next_called;
    return *p ? p : NULL;
}

static bool serving_here(const struct dispatch *d) {
    return d->serving && pthread_equal(d->server, pthread_self());
}

/* Take it off the list; then nobody else serves it. Was it there? */
static bool take_off(struct dispatch *d, struct shmps_subscriber *sub) {
    struct shmps_subscriber **link = find(d, sub);
    if (link)
        *link = sub->next_called;
    while (d->serving == sub && !serving_here(d)) {
        atomic_store_relaxed(&d->leave, 1); /* relaxed: as in may_go_on() */
        pthread_cond_wait(&d->served, &d->lock);
    }
    return link != NULL;
}

static int change(struct dispatch *d, struct shmps_subscriber *sub, shmps_callback callback,
                  void *user) {
    int r = callback ? open_epoll(d) : 0;
    if (r < 0)
        return r;
    bool called = take_off(d, sub);
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = sub };
    if (called && !callback)
        epoll_ctl(d->epoll, EPOLL_CTL_DEL, descriptor_fd(sub->descriptor), NULL);
    else if (!called && callback &&
             epoll_ctl(d->epoll, EPOLL_CTL_ADD, descriptor_fd(sub->descriptor), &e) < 0)
        return error_system(errno, "cannot watch the descriptor of \"%s\"", sub->filter);
    sub->callback = callback;
    sub->user = user;
    if (callback) {
        sub->next_called = d->called;
        d->called = sub;
    }
    return 0;
}

int shmps_subscriber_on_sample(struct shmps_subscriber *sub, shmps_callback callback, void *user) {
    struct dispatch *d = &sub->bus->dispatch;
    CHECK_FORK(sub->bus);
    int fd = callback ? shmps_subscriber_fd(sub) : 0; /* made before anybody else serves it */
    if (fd < 0)
        return fd;
    pthread_mutex_lock(&d->lock);
    int r = change(d, sub, callback, user);
    pthread_mutex_unlock(&d->lock);
    return r;
}

bool dispatch_let_go(struct shmps_subscriber *sub) {
    struct dispatch *d = &sub->bus->dispatch;
    pthread_mutex_lock(&d->lock);
    change(d, sub, NULL, NULL);
    bool own = d->serving == sub;
    d->close_served |= own;
    pthread_mutex_unlock(&d->lock);
    return !own;
}

bool dispatch_has(struct shmps_subscriber *sub) {
    struct dispatch *d = &sub->bus->dispatch;
    pthread_mutex_lock(&d->lock);
    bool has = find(d, sub) || d->serving == sub;
    pthread_mutex_unlock(&d->lock);
    return has;
}

bool dispatch_close_later(struct dispatch *d) {
    pthread_mutex_lock(&d->lock);
    bool later = serving_here(d);
    if (later) /* written and read by who serves alone */
        d->close_bus = true;
    pthread_mutex_unlock(&d->lock);
    return later;
}

/* ---- serving */

static bool begin(struct dispatch *d, struct shmps_subscriber *sub) {
    pthread_mutex_lock(&d->lock);
    bool called = find(d, sub) != NULL; /* it may have been closed since the epoll told of it */
    if (called) {
        d->serving = sub;
        d->server = pthread_self();
        atomic_store_relaxed(&d->leave, 0); /* relaxed: as in may_go_on() */
    }
    pthread_mutex_unlock(&d->lock);
    return called;
}

static void end(struct dispatch *d) {
    pthread_mutex_lock(&d->lock);
    struct shmps_subscriber *closed = d->close_served ? d->serving : NULL;
    d->serving = NULL;
    d->close_served = false;
    pthread_cond_broadcast(&d->served);
    pthread_mutex_unlock(&d->lock);
    if (closed)
        subscriber_end(closed);
}

static bool may_go_on(const struct dispatch *d) {
    /* relaxed: hints to be quick; who waits for the end is told of it under the lock */
    return !d->close_bus && !atomic_load_relaxed(&d->leave) && !atomic_load_relaxed(&d->stop);
}

/* Call the callback for what is there. 0, or an error. */
static int call(struct shmps_subscriber *sub, int *calls) {
    for (int i = 0; i < DISPATCH_TURN && sub->callback && may_go_on(&sub->bus->dispatch); i++) {
        struct shmps_sample sample;
        int r = shmps_take(sub, &sample, 0);
        if (r == SHMPS_EMPTY || r < 0)
            return r < 0 ? r : 0;
        ++*calls;
        sub->callback(sub, &sample, sub->user);
        if (r == 0)
            shmps_release(sub, &sample);
    }
    return 0;
}

static int serve(struct dispatch *d, struct shmps_subscriber *sub, int *calls) {
    if (!begin(d, sub))
        return 0;
    int r = call(sub, calls);
    if (r == SHMPS_E_CLOSED) { /* for good: its descriptor would be readable for ever */
        struct told told = error_tell();
        shmps_subscriber_on_sample(sub, NULL, NULL);
        r = error_again(r, &told);
    }
    end(d);
    return r;
}

/* All that is ready is served, whatever stands in the way of one of them. 0, or the first error;
 * *ret_done: there is no need to wait any more. */
static int serve_all(struct dispatch *d, const struct epoll_event *events, int n, bool *ret_done) {
    struct told told;
    int calls = 0, first_error = 0;
    *ret_done = false;
    for (int i = 0; i < n && !d->close_bus; i++) {
        struct shmps_subscriber *sub = events[i].data.ptr; /* NULL: asked to stop */
        int r = sub ? serve(d, sub, &calls) : 0;
        if (r < 0 && first_error == 0) {
            first_error = r;
            told = error_tell();
        }
        *ret_done |= !sub;
    }
    *ret_done |= calls > 0 || d->close_bus;
    return first_error < 0 ? error_again(first_error, &told) : 0;
}

static int dispatch(struct dispatch *d, int64_t timeout_ns) {
    struct epoll_event events[32];
    uint64_t deadline = timeout_ns == 0 ? 0 : deadline_of(timeout_ns);
    for (;;) {
        int64_t left = timeout_ns == 0 ? 0 : time_left(deadline, INT64_C(3600000000000));
        int ms = left <= 0 ? 0 : (int)((left + 999999) / 1000000);
        int n = epoll_wait(d->epoll, events, ARRAY_LENGTH(events), ms);
        if (n < 0 && errno != EINTR)
            return error_system(errno, "cannot wait for subscribers");
        bool done;
        int r = serve_all(d, events, n, &done);
        if (r < 0 || done)
            return r;
        if (timeout_ns == 0)
            return SHMPS_EMPTY;
        if (time_left(deadline, 1) <= 0)
            return SHMPS_TIMEOUT;
    }
}

/* ---- who dispatches: one thread at a time */

static int enter(struct dispatch *d) {
    if (d->started)
        return error_raise(SHMPS_E_STATE, "the loop's thread runs; shmps_loop_stop() ends it");
    if (d->busy)
        return error_raise(SHMPS_E_STATE, "a thread is in shmps_dispatch() already, maybe this "
                                          "one: a callback cannot dispatch");
    int r = open_epoll(d);
    d->busy = r == 0;
    return r;
}

int shmps_dispatch(struct shmps *bus, int64_t timeout_ns) {
    CHECK_FORK(bus);
    struct dispatch *d = &bus->dispatch;
    int r = check_timeout(timeout_ns);
    if (r < 0)
        return r;
    pthread_mutex_lock(&d->lock);
    r = enter(d);
    pthread_mutex_unlock(&d->lock);
    if (r < 0)
        return r;
    r = dispatch(d, timeout_ns);
    pthread_mutex_lock(&d->lock);
    d->busy = false;
    pthread_mutex_unlock(&d->lock);
    if (d->close_bus) {
        connection_end(bus);
        return error_raise(SHMPS_E_CLOSED, "a callback has closed the connection");
    }
    return r;
}

/* ---- the loop's thread */

static void *run(void *arg) {
    struct shmps *bus = arg;
    struct dispatch *d = &bus->dispatch;
    /* SYNC dispatch.stop: pairs with the release in ask_to_stop() */
    while (!d->close_bus && !atomic_load_acquire(&d->stop)) {
        /* There is nobody to tell of an error: go on, after a pause that a stop ends. */
        struct pollfd stop = { .fd = d->stop_event, .events = POLLIN };
        if (dispatch(d, SHMPS_FOREVER) < 0 && !d->close_bus)
            poll(&stop, 1, LOOP_PAUSE_MS);
    }
    if (d->close_bus) {
        pthread_detach(pthread_self());
        d->started = false; /* nobody else uses the connection: it is being closed */
        connection_end(bus);
    }
    return NULL;
}

static int start_thread(struct shmps *bus) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* the program's signals are not for our thread */
    int e = pthread_create(&bus->dispatch.thread, NULL, run, bus);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return e == 0 ? 0 : error_system(e, "cannot start the loop's thread");
}

int shmps_loop_start(struct shmps *bus) {
    CHECK_FORK(bus);
    struct dispatch *d = &bus->dispatch;
    pthread_mutex_lock(&d->lock);
    int r = enter(d);
    if (r == 0) {
        r = start_thread(bus);
        d->busy = d->started = r == 0;
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

/* Ask the thread to end. *ret_join: it is ours to be joined. */
static int ask_to_stop(struct dispatch *d, bool *ret_join) {
    if (!d->started || d->joining)
        return error_raise(SHMPS_E_STATE, "the loop's thread does not run, or another thread is "
                                          "stopping it already");
    /* SYNC dispatch.stop: release pairs with the acquire in run(); the eventfd wakes it. */
    atomic_store_release(&d->stop, 1);
    eventfd_write(d->stop_event, 1); /* EAGAIN: it is readable */
    d->joining = *ret_join = !pthread_equal(pthread_self(), d->thread);
    return 0;
}

int shmps_loop_stop(struct shmps *bus) {
    CHECK_FORK(bus);
    struct dispatch *d = &bus->dispatch;
    eventfd_t count;
    bool join = false;
    pthread_mutex_lock(&d->lock);
    int r = ask_to_stop(d, &join);
    pthread_mutex_unlock(&d->lock);
    if (!join)
        return r; /* in a callback: it ends afterwards; another call, or shmps_close(), joins it */
    pthread_join(d->thread, NULL);
    pthread_mutex_lock(&d->lock);
    eventfd_read(d->stop_event, &count);
    atomic_store_relaxed(&d->stop, 0); /* relaxed: it has ended; the next one is created later */
    d->busy = d->started = d->joining = false;
    pthread_mutex_unlock(&d->lock);
    return 0;
}
