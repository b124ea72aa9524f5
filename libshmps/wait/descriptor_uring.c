/* wait/descriptor_uring.c - the descriptor fed by an io_uring of this process.
 *
 * Every wait - a word, the hang-up descriptor, the timeout - is a request of the ring; its
 * completion signals the registered eventfd. A wait has an entry in `waits`, which its completion
 * names. An entry is used again only after that has come, so none is ever mistaken for another's.
 *
 * With DEFER_TASKRUN a completion is only announced (IORING_SQ_TASKRUN, and the eventfd is
 * signalled) until this thread enters the kernel for it: no signal-like interruption ever reaches
 * the user's epoll_wait(). The kernel signals once for any number of announced completions, so
 * whoever drains the eventfd has to look for announced ones afterwards (settle()): what is
 * announced before the drain is seen by that look, what comes after it signals again.
 *
 * The ring takes requests from the thread that enabled it. -EEXIST tells that this is another one:
 * renew() makes a new ring for the same eventfd. The kernel takes the old one apart when it likes
 * and may signal the eventfd once more then; that is the `strays` flag. */
#include "wait/descriptor_kinds.h"

#include "base/error.h"
#include "base/scope.h"

#if HAVE_LIBURING

#include <liburing.h>
#include <poll.h>
#include <sys/syscall.h>

#define SQ_ENTRIES 64
#define CQ_ENTRIES 256      /* more than that are kept by the kernel until there is room */
#define OP_FUTEX_WAIT 51    /* IORING_OP_FUTEX_WAIT, since Linux 6.7; unknown to liburing 2.3 */
#define FUTEX_WORD_FLAGS 2  /* FUTEX2_SIZE_U32, not FUTEX2_PRIVATE */
#define FUTEX_ANY_BIT UINT64_C(0xffffffff) /* FUTEX_BITSET_MATCH_ANY: what FUTEX_WAKE wakes */
#define NOBODY UINT64_MAX   /* user_data of requests whose own completion says nothing */

enum wait_state {
    WAIT_IDLE = 0,
    WAIT_PENDING,    /* the kernel has it */
    WAIT_CANCELLING, /* it has been told to forget it, the completion is to come */
};

struct wait {
    enum wait_state state;
    bool wanted;            /* while arming: it is in the new set */
    const atomic_u32 *word; /* of a wait on a word */
};

/* The first two entries of `waits`; words follow. */
enum { ENTRY_HANGUP = 0, ENTRY_TIMEOUT = 1, ENTRY_WORDS = 2 };

struct uring_descriptor {
    struct wait_descriptor common;
    struct io_uring ring;
    bool ring_open;    /* false after a failure */
    bool ring_enabled; /* bound to a thread, the first that arms */
    bool strays;       /* a ring that was left may still signal: only the eventfd itself knows */
    int hangup_fd;
    struct wait *waits;
    uint32_t n, room;
    uint32_t cancelling; /* waits in that state */
    bool happened;       /* a wait has completed uncancelled since this was set to false */
    int failure;         /* errno of a wait that the kernel refused since this was set to 0 */
};

static struct uring_descriptor *uring_of(struct wait_descriptor *d) {
    return container_of(d, struct uring_descriptor, common);
}

/* ---- completions --------------------------------------------------------------------- */

/* Completions are announced: this thread has to enter the kernel for them. Reads memory only. */
static bool announced(const struct uring_descriptor *u) {
    /* SYNC sq_flags: acquire, pairs with the kernel's store before it signals the eventfd */
    uint32_t flags = atomic_load_acquire((const atomic_u32 *)u->ring.sq.kflags);
    return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

static bool pending(const struct uring_descriptor *u) {
    return io_uring_cq_ready(&u->ring) != 0 || announced(u);
}

static void complete(struct uring_descriptor *u, const struct io_uring_cqe *cqe) {
    if (cqe->user_data == NOBODY)
        return;
    struct wait *w = &u->waits[cqe->user_data];
    if (w->state == WAIT_CANCELLING) {
        u->cancelling--;
    } else {
        u->happened = true; /* whatever it was: the caller looks again */
        if (cqe->res < 0 && cqe->res != -EAGAIN && cqe->res != -EINTR && cqe->res != -ETIME &&
            cqe->res != -ECANCELED)
            u->failure = -cqe->res;
    }
    w->state = WAIT_IDLE;
}

/* Take in all completions, announced ones too. 0, or the negative errno of the kernel:
 * -EEXIST in another thread than the ring's. */
static int reap(struct uring_descriptor *u) {
    while (pending(u)) {
        int r = announced(u) ? io_uring_get_events(&u->ring) : 0;
        if (r < 0 && r != -EINTR)
            return r;
        struct io_uring_cqe *cqe;
        unsigned head, n = 0;
        io_uring_for_each_cqe(&u->ring, head, cqe) {
            complete(u, cqe);
            n++;
        }
        io_uring_cq_advance(&u->ring, n);
    }
    return 0;
}

/* Make the eventfd unreadable without losing a completion. */
static int settle(struct uring_descriptor *u) {
    do {
        int r = reap(u);
        descriptor_drain(u->common.fd);
        if (r < 0)
            return r;
    } while (pending(u));
    return 0;
}

/* ---- submissions --------------------------------------------------------------------- */

/* A cleared request. 0, or a negative errno. */
static int next_request(struct uring_descriptor *u, struct io_uring_sqe **ret) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    while (sqe == NULL) {
        int r = io_uring_submit(&u->ring);
        if (r < 0 && r != -EINTR)
            return r;
        sqe = io_uring_get_sqe(&u->ring);
    }
    memset(sqe, 0, sizeof(*sqe));
    *ret = sqe;
    return 0;
}

static void mark_pending(struct uring_descriptor *u, uint32_t entry, struct io_uring_sqe *sqe) {
    u->waits[entry].state = WAIT_PENDING;
    sqe->user_data = entry;
}

static int submit_word(struct uring_descriptor *u, uint32_t entry, const struct wait_word *word) {
    struct io_uring_sqe *sqe;
    int r = next_request(u, &sqe);
    if (r < 0)
        return r;
    sqe->opcode = OP_FUTEX_WAIT;
    sqe->fd = FUTEX_WORD_FLAGS;
    sqe->addr = (uintptr_t)word->word;
    sqe->off = word->expected;
    sqe->addr3 = FUTEX_ANY_BIT;
    mark_pending(u, entry, sqe);
    u->waits[entry].word = word->word;
    return 0;
}

static int submit_hangup(struct uring_descriptor *u, int fd) {
    struct io_uring_sqe *sqe;
    int r = next_request(u, &sqe);
    if (r < 0)
        return r;
    io_uring_prep_poll_add(sqe, fd, POLLIN | POLLRDHUP | POLLHUP);
    mark_pending(u, ENTRY_HANGUP, sqe);
    u->hangup_fd = fd;
    return 0;
}

/* Starts the timeout or moves the one that runs. `timeout` lives until the submission. */
static int submit_timeout(struct uring_descriptor *u, struct __kernel_timespec *timeout) {
    struct io_uring_sqe *sqe;
    int r = next_request(u, &sqe);
    if (r < 0)
        return r;
    if (u->waits[ENTRY_TIMEOUT].state == WAIT_PENDING) {
        io_uring_prep_timeout_update(sqe, timeout, ENTRY_TIMEOUT, 0);
        sqe->user_data = NOBODY;
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    } else {
        io_uring_prep_timeout(sqe, timeout, 0, 0);
        mark_pending(u, ENTRY_TIMEOUT, sqe);
    }
    return 0;
}

static int submit_cancel(struct uring_descriptor *u, uint32_t entry) {
    struct io_uring_sqe *sqe;
    int r = next_request(u, &sqe);
    if (r < 0)
        return r;
    io_uring_prep_cancel64(sqe, entry, 0);
    sqe->user_data = NOBODY;
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    u->waits[entry].state = WAIT_CANCELLING;
    u->cancelling++;
    return 0;
}

/* Hand over what was prepared; return when all that was cancelled is gone. */
static int submit_all(struct uring_descriptor *u) {
    while (io_uring_sq_ready(&u->ring) > 0) {
        int r = io_uring_submit(&u->ring);
        if (r < 0 && r != -EINTR)
            return r;
    }
    int r = reap(u);
    while (r == 0 && u->cancelling > 0) {
        r = io_uring_submit_and_wait(&u->ring, 1);
        r = r < 0 && r != -EINTR ? r : reap(u);
    }
    return r;
}

/* ---- the set ------------------------------------------------------------------------- */

static int reserve(struct uring_descriptor *u, uint32_t entries) {
    if (entries <= u->room)
        return 0;
    uint32_t room = entries + entries / 2 + 8;
    struct wait *larger = realloc(u->waits, room * sizeof(*larger));
    if (larger == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory to wait on %u words", (unsigned)entries);
    memset(larger + u->room, 0, (room - u->room) * sizeof(*larger));
    u->waits = larger;
    u->room = room;
    return 0;
}

/* The entry that waits on this word, else `n`. Sets change little from one arm to the next,
 * so the search begins where the word was when the set was the same. */
static uint32_t find_word(const struct uring_descriptor *u, const atomic_u32 *word,
                          uint32_t hint) {
    if (hint < u->n && u->waits[hint].state == WAIT_PENDING && u->waits[hint].word == word)
        return hint;
    for (uint32_t i = ENTRY_WORDS; i < u->n; i++) {
        if (u->waits[i].state == WAIT_PENDING && u->waits[i].word == word)
            return i;
    }
    return u->n;
}

static uint32_t free_entry(struct uring_descriptor *u, uint32_t hint) {
    if (hint < u->n && u->waits[hint].state == WAIT_IDLE)
        return hint;
    for (uint32_t i = ENTRY_WORDS; i < u->n; i++) {
        if (u->waits[i].state == WAIT_IDLE)
            return i;
    }
    return u->n++; /* reserved by the caller */
}

/* The same words again find their entries; new ones get some. A word that differs already
 * needs no wait. */
static int set_words(struct uring_descriptor *u, const struct wait_word *words, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t entry = find_word(u, words[i].word, ENTRY_WORDS + i);
        bool is_new = entry == u->n;
        /* relaxed: only compared, as the kernel would; the caller's look that follows acquires */
        bool differs = atomic_load_relaxed(words[i].word) != words[i].expected;
        if (differs)
            u->happened = true;
        if (is_new && differs)
            continue;
        if (is_new) {
            entry = free_entry(u, ENTRY_WORDS + i);
            int r = submit_word(u, entry, &words[i]);
            if (r < 0)
                return r;
        }
        u->waits[entry].wanted = true;
    }
    return 0;
}

static int cancel_unwanted(struct uring_descriptor *u) {
    for (uint32_t i = 0; i < u->n; i++) {
        if (u->waits[i].state == WAIT_PENDING && !u->waits[i].wanted) {
            int r = submit_cancel(u, i);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

/* Bind the ring to this thread. liburing 2.3 declares a function for it and does not export it. */
static int enable_ring(struct uring_descriptor *u) {
    const unsigned command = IORING_REGISTER_ENABLE_RINGS;
    long r = syscall(SYS_io_uring_register, u->ring.ring_fd, command, NULL, 0);
    if (r < 0)
        return -errno;
    u->ring_enabled = true;
    return 0;
}

/* 0, or a negative errno of the kernel. */
static int change_set(struct uring_descriptor *u, const struct wait_word *words, uint32_t n,
                      int hangup_fd, int64_t timeout_ns) {
    int r = u->ring_enabled ? 0 : enable_ring(u);
    if (r == 0)
        r = reap(u);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < u->n; i++)
        u->waits[i].wanted = false;
    struct wait *hangup = &u->waits[ENTRY_HANGUP];
    if (hangup->state == WAIT_PENDING && u->hangup_fd != hangup_fd) {
        r = submit_cancel(u, ENTRY_HANGUP);
        if (r == 0)
            r = submit_all(u); /* its entry is needed for the new one */
    }
    if (r == 0 && hangup_fd >= 0 && hangup->state == WAIT_IDLE)
        r = submit_hangup(u, hangup_fd);
    hangup->wanted = hangup_fd >= 0;
    struct __kernel_timespec timeout = {
        .tv_sec = timeout_ns / INT64_C(1000000000),
        .tv_nsec = timeout_ns % INT64_C(1000000000),
    };
    if (r == 0 && timeout_ns > 0)
        r = submit_timeout(u, &timeout);
    u->waits[ENTRY_TIMEOUT].wanted = timeout_ns > 0;
    if (r == 0)
        r = set_words(u, words, n);
    if (r == 0)
        r = cancel_unwanted(u);
    return r < 0 ? r : submit_all(u);
}

/* ---- the ring ------------------------------------------------------------------------ */

static int open_ring(struct uring_descriptor *u) {
    struct io_uring_params p = {
        .flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL |
                 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED,
        .cq_entries = CQ_ENTRIES,
    };
    int r = io_uring_queue_init_params(SQ_ENTRIES, &u->ring, &p);
    if (r == -EMFILE || r == -ENFILE || r == -ENOMEM)
        return error_system(-r, "cannot make an io_uring");
    if (r < 0)
        return error_raise(SHMPS_E_UNSUPPORTED, "no io_uring on this system: %s", strerror(-r));
    u->ring_open = true;
    u->ring_enabled = false;
    io_uring_ring_dontfork(&u->ring); /* else a child would keep the ring's memory for nothing */
    r = io_uring_register_eventfd(&u->ring, u->common.fd);
    return r < 0 ? error_system(-r, "cannot register an eventfd with io_uring") : 0;
}

/* The kernel forgets all that was submitted. */
static void close_ring(struct uring_descriptor *u) {
    if (u->ring_open)
        io_uring_queue_exit(&u->ring);
    u->ring_open = false;
    for (uint32_t i = 0; i < u->n; i++)
        u->waits[i].state = WAIT_IDLE;
    u->cancelling = 0;
}

static int renew(struct uring_descriptor *u) {
    close_ring(u);
    u->strays = true;
    int r = open_ring(u);
    if (r < 0)
        close_ring(u);
    return r;
}

/* ---- the functions of the kind ------------------------------------------------------- */

static int uring_arm(struct wait_descriptor *d, const struct wait_word *words, uint32_t n,
                     int hangup_fd, int64_t timeout_ns) {
    struct uring_descriptor *u = uring_of(d);
    u->happened = false;
    u->failure = 0;
    int r = reserve(u, u->n + n);
    if (r < 0)
        return r;
    if (!u->ring_open) {
        r = renew(u);
        if (r < 0)
            return r;
    }
    uint32_t before = *u->ring.cq.khead;
    r = change_set(u, words, n, hangup_fd, timeout_ns);
    if (r == -EEXIST) { /* the ring is another thread's */
        r = renew(u);
        if (r < 0)
            return r;
        before = *u->ring.cq.khead;
        r = change_set(u, words, n, hangup_fd, timeout_ns);
    }
    /* Only cancelled waits completed: that is no news, and must not wake the user. */
    if (r == 0 && !u->happened && !d->signalled && *u->ring.cq.khead != before)
        r = settle(u);
    if (r < 0) {
        close_ring(u); /* nothing half-done: the next arm() begins anew */
        return error_system(-r, "cannot wait with io_uring");
    }
    if (u->happened && !d->signalled)
        descriptor_signal(d);
    if (u->failure != 0)
        return error_system(u->failure, "io_uring cannot wait for a word or the control socket");
    return 0;
}

static void uring_clear(struct wait_descriptor *d) {
    struct uring_descriptor *u = uring_of(d);
    if (u->ring_open)
        settle(u); /* in another thread completions stay in the ring: the next arm() renews it */
    else
        descriptor_drain(d->fd);
}

static bool uring_signalled(struct wait_descriptor *d) {
    struct uring_descriptor *u = uring_of(d);
    if (u->strays || !u->ring_open)
        return poll(&(struct pollfd){ .fd = d->fd, .events = POLLIN }, 1, 0) > 0;
    return pending(u);
}

static void uring_close(struct wait_descriptor *d) {
    struct uring_descriptor *u = uring_of(d);
    /* Told one by one, the waits end now, not when the kernel has taken the ring apart: the
     * hang-up descriptor is closed for good when the user closes it. In another thread it
     * fails, and the latter has to do. */
    if (u->ring_enabled && u->ring_open)
        (void)change_set(u, NULL, 0, -1, 0);
    close_ring(u);
    free(u->waits);
}

/* The child has the ring's descriptor but not its memory (dontfork). */
static void uring_abandon(struct wait_descriptor *d) {
    struct uring_descriptor *u = uring_of(d);
    if (u->ring_open)
        close(u->ring.ring_fd);
    free(u->waits);
}

static const struct descriptor_functions uring_functions = {
    .arm = uring_arm,
    .clear = uring_clear,
    .signalled = uring_signalled,
    .close = uring_close,
    .abandon = uring_abandon,
};

static bool knows_futex_wait(struct io_uring *ring) {
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    if (probe == NULL)
        return false;
    bool known = io_uring_opcode_supported(probe, OP_FUTEX_WAIT) != 0;
    io_uring_free_probe(probe);
    return known;
}

int descriptor_uring_open(int fd, struct wait_descriptor **ret) {
    struct uring_descriptor *u = calloc(1, sizeof(*u));
    if (u == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for a wait descriptor");
    u->common = (struct wait_descriptor){
        .functions = &uring_functions,
        .kind = DESCRIPTOR_URING,
        .fd = fd,
    };
    u->hangup_fd = -1;
    int r = reserve(u, ENTRY_WORDS);
    if (r == 0) {
        u->n = ENTRY_WORDS;
        r = open_ring(u);
    }
    if (r == 0 && !knows_futex_wait(&u->ring))
        r = error_raise(SHMPS_E_UNSUPPORTED, "io_uring cannot wait on a futex before Linux 6.7");
    if (r < 0) {
        close_ring(u);
        free(u->waits);
        free(u);
        return r;
    }
    *ret = &u->common;
    return 0;
}

#else

int descriptor_uring_open(int fd, struct wait_descriptor **ret) {
    (void)fd;
    (void)ret;
    return error_raise(SHMPS_E_UNSUPPORTED, "this build has no liburing");
}

#endif
