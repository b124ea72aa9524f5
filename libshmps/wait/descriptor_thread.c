/* wait/descriptor_thread.c - the descriptor where io_uring is not to be had: a thread that sleeps
 * and writes the eventfd.
 *
 * The thread sleeps in wait_on_words() on the armed words and on one of its own, `orders`. The
 * user's thread gives it a new set by changing `orders`, and waits until it has been taken over:
 * after arm() the old words are touched no more, so that their memory may go. What happens first
 * makes the thread write the eventfd once; then it sleeps on `orders` alone.
 *
 * The hang-up descriptor: a thread cannot sleep on futexes and poll at once. Its sleep is bounded
 * by SLEEP_BOUND_NS and it polls in between, if there is such a descriptor. A second thread in
 * poll() would save ten wake-ups a second of a fallback, for one more thread in each process. A
 * hang-up is the daemon's end, which no sample waits for. */
#include "wait/descriptor_kinds.h"

#include "base/error.h"
#include "base/process.h"
#include "base/scope.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>

#define STACK_BYTES (256 * 1024)
#define FOREVER_NS (INT64_C(3600) * INT64_C(1000000000)) /* a sleep without a bound */

/* What to wait for. words[0] is kept free for `orders`. */
struct wait_set {
    struct wait_word *words;
    uint32_t n, room; /* with words[0] */
    int hangup_fd;
    uint64_t deadline_ns; /* 0: none */
    bool armed;
};

enum fired {
    FIRED_NOT = 0,
    FIRING = 1, /* it is just being written */
    FIRED = 2,
};

struct thread_descriptor {
    struct wait_descriptor common;
    pthread_t thread;
    atomic_u32 orders; /* writer: the user's thread. Raised for each new order */
    atomic_u32 taken;  /* writer: the thread. The orders that it has taken over */
    atomic_u32 fired;  /* writers: both, in turn. Was the eventfd written since the last clear? */
    struct wait_set next; /* the user's; from raised `orders` to `taken` the thread's */
    bool quit;            /* as next */
    struct wait_set now;  /* the thread's */
};

static struct thread_descriptor *thread_of(struct wait_descriptor *d) {
    return container_of(d, struct thread_descriptor, common);
}

static bool hung_up(int fd) {
    struct pollfd p = { .fd = fd, .events = POLLIN | POLLRDHUP };
    return fd >= 0 && poll(&p, 1, 0) > 0;
}

static bool differs(const struct wait_set *set) {
    for (uint32_t i = 1; i < set->n; i++) {
        /* relaxed: only compared, as the kernel would; the user's look that follows acquires */
        if (atomic_load_relaxed(set->words[i].word) != set->words[i].expected)
            return true;
    }
    return false;
}

/* Sleep until something of the set happens (true) or there is a new order (false). */
static bool sleep_on_set(struct thread_descriptor *t, uint32_t order) {
    struct wait_set *set = &t->now;
    set->words[0] = (struct wait_word){ &t->orders, order };
    for (;;) {
        int64_t bound_ns = set->armed && set->hangup_fd >= 0 ? SLEEP_BOUND_NS : FOREVER_NS;
        if (set->armed && set->deadline_ns != 0) {
            uint64_t now = now_ns();
            if (now >= set->deadline_ns)
                return true;
            bound_ns = (int64_t)min_u64((uint64_t)bound_ns, set->deadline_ns - now);
        }
        if (set->armed && hung_up(set->hangup_fd))
            return true;
        enum wait_result r = wait_on_words(set->words, set->armed ? set->n : 1, bound_ns);
        /* SYNC orders: acquire, pairs with give_order() */
        bool ordered = atomic_load_acquire(&t->orders) != order;
        /* A change just before the new order is news, too. */
        if (set->armed && (ordered ? differs(set) : r == WAIT_WOKEN))
            return true;
        if (ordered)
            return false;
    }
}

static void *thread_main(void *argument) {
    struct thread_descriptor *t = argument;
    uint32_t order = 0;
    for (;;) {
        if (sleep_on_set(t, order)) {
            t->now.armed = false;
            /* Before the write: whoever finds the eventfd readable knows that it can be
             * cleared. After it: who clears has the write behind him, else it would stay
             * readable. SYNC fired: release, both pair with thread_clear() */
            atomic_store_release(&t->fired, FIRING);
            eventfd_write(t->common.fd, 1);
            atomic_store_release(&t->fired, FIRED); /* SYNC fired: as above */
            continue;
        }
        /* SYNC orders: acquire, pairs with give_order(): `next` and `quit` are ours now */
        order = atomic_load_acquire(&t->orders);
        struct wait_set old = t->now;
        t->now = t->next;
        t->next = old;
        bool quit = t->quit;
        /* SYNC taken: release, pairs with give_order(): the old words are left, `next` is
         * the user's again */
        atomic_store_release(&t->taken, order);
        wake_word(&t->taken, 1);
        if (quit)
            return NULL;
    }
}

/* Hand `next` to the thread, return when it has been taken over. */
static void give_order(struct thread_descriptor *t) {
    /* SYNC orders: release, pairs with the thread's loads */
    uint32_t order = atomic_add_release(&t->orders, 1) + 1;
    wake_word(&t->orders, 1);
    for (;;) {
        /* SYNC taken: acquire, pairs with thread_main() */
        uint32_t taken = atomic_load_acquire(&t->taken);
        if (taken == order)
            return;
        wait_on_words(&(struct wait_word){ &t->taken, taken }, 1, SLEEP_BOUND_NS);
    }
}

static int reserve(struct wait_set *set, uint32_t words) {
    if (words <= set->room)
        return 0;
    uint32_t room = words + words / 2 + 8;
    struct wait_word *larger = realloc(set->words, room * sizeof(*larger));
    if (larger == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory to wait on %u words", (unsigned)words);
    set->words = larger;
    set->room = room;
    return 0;
}

static int thread_arm(struct wait_descriptor *d, const struct wait_word *words, uint32_t n,
                      int hangup_fd, int64_t timeout_ns) {
    struct thread_descriptor *t = thread_of(d);
    int r = reserve(&t->next, n + 1);
    if (r < 0)
        return r;
    if (n > 0)
        memcpy(t->next.words + 1, words, n * sizeof(*words));
    t->next.n = n + 1;
    t->next.hangup_fd = hangup_fd;
    t->next.deadline_ns = timeout_ns > 0 ? now_ns() + (uint64_t)timeout_ns : 0;
    t->next.armed = true;
    give_order(t);
    return 0;
}

static void thread_clear(struct wait_descriptor *d) {
    struct thread_descriptor *t = thread_of(d);
    /* SYNC fired: acquire, pairs with thread_main(). The write is one system call away. */
    while (atomic_load_acquire(&t->fired) == FIRING)
        sched_yield();
    /* Before the drain: a thread that fires in between leaves either both or, at worst,
     * `fired` alone. SYNC fired: relaxed, as a set flag only makes the user clear once more */
    atomic_store_relaxed(&t->fired, FIRED_NOT);
    descriptor_drain(d->fd);
}

static bool thread_signalled(struct wait_descriptor *d) {
    /* SYNC fired: acquire, pairs with thread_main() */
    return atomic_load_acquire(&thread_of(d)->fired) != FIRED_NOT;
}

static void free_sets(struct thread_descriptor *t) {
    free(t->now.words);
    /* the same in a child that was forked amid their exchange */
    if (t->next.words != t->now.words)
        free(t->next.words);
}

static void thread_close(struct wait_descriptor *d) {
    struct thread_descriptor *t = thread_of(d);
    t->quit = true;
    give_order(t);
    pthread_join(t->thread, NULL);
    free_sets(t);
}

/* In the child there is no thread. */
static void thread_abandon(struct wait_descriptor *d) {
    free_sets(thread_of(d));
}

static const struct descriptor_functions thread_functions = {
    .arm = thread_arm,
    .clear = thread_clear,
    .signalled = thread_signalled,
    .close = thread_close,
    .abandon = thread_abandon,
};

/* Signals are for the user's threads: this one starts with all of them blocked. */
static int start_thread(struct thread_descriptor *t) {
    pthread_attr_t attributes;
    int e = pthread_attr_init(&attributes);
    if (e != 0)
        return e;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    e = pthread_create(&t->thread, &attributes, thread_main, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (e == 0)
        pthread_setname_np(t->thread, "shmps-wait");
    return e;
}

int descriptor_thread_open(int fd, struct wait_descriptor **ret) {
    struct thread_descriptor *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for a wait descriptor");
    t->common = (struct wait_descriptor){
        .functions = &thread_functions,
        .kind = DESCRIPTOR_THREAD,
        .fd = fd,
    };
    int r = reserve(&t->now, 1);
    if (r == 0)
        r = reserve(&t->next, 1);
    if (r == 0) {
        int e = start_thread(t);
        if (e != 0)
            r = error_system(e, "cannot start a thread that waits for samples");
    }
    if (r < 0) {
        free_sets(t);
        free(t);
        return r;
    }
    *ret = &t->common;
    return 0;
}
