#include "client/client.h"

#include <unistd.h>

#define SPIN_NS_MAX UINT64_C(50000)
#define SPIN_NS_MIN UINT64_C(1000)
#define OBSERVER_NAP_NS \
    INT64_C(5000000) /* an observer arms nothing, so it has to look now and then */
#define LOOKS_PER_CLOCK 32

static bool any_ready(const struct shmps_subscriber *sub) {
    for (uint32_t i = 0; i < sub->n_rings; i++) {
        const struct ring_view *view = sub->rings[i];
        if (!view->blocked && view->joined &&
            (ring_reader_ready(&view->reader) || view->retired ||
             unlikely(view->succeeded && ring_reader_successor(&view->reader) != 0)))
            return true;
    }
    return subscriber_stale(sub) || unlikely(session_rebuilt(sub->bus));
}

/* ---- spinning */

/* Spinning on the only core keeps the publisher from running. Our own affinity says nothing: who
 * is pinned to one core talks with those on the others. */
static bool may_spin(void) {
    static atomic_u32 known;                  /* 0: not yet, 1: no, 2: yes; of this process */
    uint32_t k = atomic_load_relaxed(&known); /* relaxed: a process's own constant */
    if (k == 0) {
        k = sysconf(_SC_NPROCESSORS_ONLN) == 1 ? 1 : 2;
        atomic_store_relaxed(&known, k); /* relaxed: as above */
    }
    return k == 2;
}

static bool spin(const struct shmps_subscriber *sub, uint64_t until_ns) {
    for (uint32_t looks = 1;; looks++) {
        if (any_ready(sub))
            return true;
        cpu_relax();
        if (looks % LOOKS_PER_CLOCK != 0)
            continue;
        if (unlikely(session_ended(sub->bus)))
            session_follow(sub->bus);
        if (now_ns() >= until_ns)
            return false;
    }
}

/* ---- arming (DESIGN 5, data) */

static bool words_room(struct shmps_subscriber *sub) {
    if (sub->words_capacity > sub->n_rings)
        return true;
    uint32_t capacity = 2 * sub->n_rings + 2;
    struct wait_word *grown = realloc(sub->words, capacity * sizeof *grown);
    if (!grown)
        return false;
    sub->words = grown;
    sub->words_capacity = capacity;
    return true;
}

/* armed = max(armed, bell). */
static void arm(struct readers_segment *group, uint64_t bell) {
    /* relaxed: only the start of the CAS loop */
    uint64_t armed = atomic_load_relaxed(&group->armed);
    /* SYNC readers.armed: a relaxed CAS; the caller's barrier orders it before its second look at
     * the slots; pairs with the load after the commit in ring_finish(). */
    while (armed < bell && !atomic_cas_relaxed(&group->armed, &armed, bell)) {}
}

/* Arm on all rings. Returns the number of words, and how long a sleep on them may last. The
 * generation was loaded before the rings were listed. */
static uint32_t arm_all(struct shmps_subscriber *sub, int64_t *ret_bound) {
    bool bare = false, observer = sub->policy == POLICY_NONE;
    uint32_t n = 0;
    sub->words[n++] = (struct wait_word){ .word = sub->generation,
                                          .expected = sub->generation_seen };
    for (uint32_t i = 0; i < sub->n_rings; i++) {
        struct ring_view *view = sub->rings[i];
        if (view->blocked || !view->joined || view->retired)
            continue;
        /* SYNC ring.bell: acquire pairs with the release in ring_finish(): a bell seen shows the
         * commits before it. */
        uint64_t bell = atomic_load_acquire(&view->reader.ring->bell);
        sub->words[n++] = (struct wait_word){ .word = (const atomic_u32 *)&view->reader.ring->bell,
                                              .expected = (uint32_t)bell };
        if (view->group)
            arm(view->group, bell);
        bare |= view->reader.g.mode == RING_BARE;
    }
    *ret_bound = observer ? OBSERVER_NAP_NS : SLEEP_BOUND_NS;
    if (observer)
        return n;
    if (!bare)
        fence_seq_cst(); /* SYNC readers.armed: pairs with the publisher's fence in RING_FENCE mode
                          */
    else if (!barrier_everyone())
        *ret_bound = BARRIER_NAP_NS;
    return n;
}

/* ---- sleeping */

/* Sleep once. The spin bound adapts: a sleep that spinning would have spared makes it longer, a
 * long one shorter. */
static void sleep_once(struct shmps_subscriber *sub, uint64_t deadline_ns) {
    int64_t bound;
    if (!words_room(sub)) { /* no memory to list the words: a nap instead */
        struct timespec nap = { .tv_nsec = BARRIER_NAP_NS };
        nanosleep(&nap, NULL);
        return;
    }
    uint32_t n = arm_all(sub, &bound);
    if (any_ready(sub))
        return;
    uint64_t start = now_ns();
    int64_t left = time_left(deadline_ns, bound);
    if (left <= 0)
        return;
    sub->sleeps++;
    wait_on_words(sub->words, n, left);
    if (unlikely(session_ended(sub->bus)))
        session_follow(sub->bus);
    uint64_t slept = now_ns() - start;
    if (slept < SPIN_NS_MAX)
        sub->spin_ns = min_u64(2 * sub->spin_ns, SPIN_NS_MAX);
    else
        sub->spin_ns = max_u64(sub->spin_ns - sub->spin_ns / 4, SPIN_NS_MIN);
}

int rest(struct shmps_subscriber *sub, uint64_t deadline_ns) {
    for (;;) {
        uint64_t now = now_ns();
        if (any_ready(sub))
            return 0;
        if (now >= deadline_ns)
            return SHMPS_TIMEOUT;
        if (sub->wait == SHMPS_WAIT_SPIN) {
            if (spin(sub, deadline_ns))
                return 0;
            continue;
        }
        if (sub->wait == SHMPS_WAIT_DEFAULT && may_spin() &&
            spin(sub, min_u64(deadline_ns, now + sub->spin_ns)))
            return 0;
        sleep_once(sub, deadline_ns);
    }
}

/* ---- the descriptor */

bool descriptor_rest(struct shmps_subscriber *sub) {
    struct wait_descriptor *d = sub->descriptor;
    if (!descriptor_signalled(d))
        return false; /* armed, and nothing has happened */
    descriptor_clear(d);
    if (!words_room(sub)) {
        descriptor_signal(d); /* keep it readable: the user comes back */
        return false;
    }
    session_follow(sub->bus); /* a hang-up of the session signals it too */
    int64_t bound;
    uint32_t n = arm_all(sub, &bound);
    if (any_ready(sub)) {
        descriptor_signal(d);
        return true;
    }
    /* While pubsubd runs, it wakes whom a dying publisher has not; without it the sleep is
     * bounded. */
    pthread_mutex_lock(&sub->bus->lock);
    int session = sub->bus->session;
    int64_t timeout = session >= 0 && bound == SLEEP_BOUND_NS ? 0 : bound;
    int r = descriptor_arm(d, sub->words, n, session, timeout);
    pthread_mutex_unlock(&sub->bus->lock);
    if (r < 0)
        descriptor_signal(d);
    return false;
}

int shmps_subscriber_fd(struct shmps_subscriber *sub) {
    CHECK_FORK(sub->bus);
    if (!sub->descriptor) {
        int r = descriptor_open(&sub->descriptor, DESCRIPTOR_ANY);
        if (r < 0)
            return error_context(r, "cannot make a descriptor for \"%s\"", sub->filter);
        descriptor_signal(sub->descriptor);
        descriptor_rest(sub);
    }
    return descriptor_fd(sub->descriptor);
}
