/* tests/unit/test_descriptor.c - wait/descriptor.h: each test runs with both kinds, io_uring
 * and thread. */
#include "support.h"

#include "bell.h"
#include "base/scope.h"
#include "wait/descriptor.h"

#include <shmps/error.h>

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define MS INT64_C(1000000)
#define LONG_MS 20000 /* only a wake that is lost lasts that long */
#define QUIET_MS 15   /* how long we listen for what must not come */

/* The kind under test is the test's initial state; a kernel without io_uring skips its half. */
static enum descriptor_kind kind_of(void **state) {
    enum descriptor_kind kind = *(enum descriptor_kind *)*state;
    struct wait_descriptor *d;
    if (descriptor_open(&d, kind) == SHMPS_E_UNSUPPORTED)
        skip();
    descriptor_close(d);
    return kind;
}

static struct wait_descriptor *open_kind(enum descriptor_kind kind) {
    struct wait_descriptor *d = NULL;
    assert_int_equal(descriptor_open(&d, kind), 0);
    assert_int_equal(descriptor_kind(d), kind);
    return d;
}

static bool readable(const struct wait_descriptor *d, int timeout_ms) {
    return poll(&(struct pollfd){ .fd = descriptor_fd(d), .events = POLLIN }, 1, timeout_ms) > 0;
}

#define assert_signalled(d)                  \
    do {                                     \
        assert_true(readable((d), LONG_MS)); \
        while (!descriptor_signalled(d))     \
            sched_yield();                   \
    } while (0)

#define assert_quiet(d)                        \
    do {                                       \
        assert_false(readable((d), QUIET_MS)); \
        assert_false(descriptor_signalled(d)); \
    } while (0)

#define arm(d, words, n) assert_int_equal(descriptor_arm((d), (words), (n), -1, 0), 0)

struct words {
    atomic_u32 word[400];
};

static struct words *words_new(struct wait_word *list, uint32_t n) {
    struct words *w = shared_memory(sizeof(*w));
    for (uint32_t i = 0; i < n; i++)
        list[i] = (struct wait_word){ &w->word[i], 0 };
    return w;
}

static void words_free(struct words *w) {
    munmap(w, sizeof(*w));
}

/* Change a word and wake. SYNC word: release; who waits compares. */
static int change(struct wait_word *word) {
    atomic_store_release((atomic_u32 *)(uintptr_t)word->word, ++word->expected);
    return wake_word(word->word, INT32_MAX);
}

/* How many waits are on the word: a wake without a change finds them all. For a thread that
 * is about to sleep: until there is one. */
static int sleepers(const atomic_u32 *word) {
    int n;
    while ((n = wake_word(word, INT32_MAX)) == 0)
        sched_yield();
    return n;
}

/* ---- life
 * ------------------------------------------------------------------------------------- */

static void signal_and_clear(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    assert_quiet(d);
    descriptor_clear(d); /* nothing to clear is no trouble */
    assert_quiet(d);
    descriptor_signal(d);
    descriptor_signal(d);
    assert_true(descriptor_signalled(d));
    assert_true(readable(d, 0));
    assert_true(readable(d, 0)); /* level-triggered */
    descriptor_clear(d);
    assert_quiet(d);
    descriptor_close(d);
    descriptor_close(NULL);
    descriptor_abandon(NULL);
}

static void a_wake_makes_it_readable(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    struct wait_word list[3];
    struct words *w = words_new(list, 3);
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 3; i++) {
            arm(d, list, 3);
            assert_false(readable(d, 0));
            change(&list[i]);
            assert_signalled(d);
            descriptor_clear(d);
            assert_false(readable(d, 0));
            assert_false(descriptor_signalled(d));
        }
    }
    descriptor_close(d);
    words_free(w);
}

static void a_word_that_differs_makes_it_readable(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    struct wait_word list[3];
    struct words *w = words_new(list, 3);
    for (int i = 0; i < 3; i++) {
        struct wait_word differing[3] = { list[0], list[1], list[2] };
        differing[i].expected = 9;
        arm(d, differing, 3);
        assert_signalled(d);
        descriptor_clear(d);
        arm(d, list, 3);
        assert_quiet(d);
        arm(d, differing, 3); /* also where a wait on the word is kept */
        assert_signalled(d);
        descriptor_clear(d);
    }
    descriptor_close(d);
    words_free(w);
}

/* It may change between the look of the caller and the wait of the kernel: the kernel compares. */
static void a_change_amid_arming_is_seen(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    struct wait_word list[2];
    struct words *w = words_new(list, 2);
    arm(d, list, 2);
    change(&list[1]); /* signalled, not cleared */
    arm(d, list, 2);
    assert_signalled(d);
    descriptor_clear(d);
    descriptor_close(d);
    words_free(w);
}

static void an_idle_one_stays_quiet(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    struct wait_word list[6];
    struct words *w = words_new(list, 6);
    int ends[2], others[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, others), 0);
    arm(d, list, 3);
    assert_quiet(d);
    arm(d, list, 3); /* the same */
    assert_quiet(d);
    arm(d, list, 6); /* more */
    assert_quiet(d);
    arm(d, list + 2, 2); /* fewer */
    assert_quiet(d);
    arm(d, list, 2); /* others */
    assert_quiet(d);
    const struct {
        int hangup_fd;
        int64_t timeout_ns;
    } steps[] = {
        { -1, 10000 * MS }, { -1, 20000 * MS }, { ends[0], 20000 * MS }, { ends[0], 0 },
        { others[0], 0 }, { others[0], 20000 * MS }, { -1, 0 },
    };
    for (size_t i = 0; i < ARRAY_LENGTH(steps); i++) {
        int r = descriptor_arm(d, list, 2, steps[i].hangup_fd, steps[i].timeout_ns);
        assert_int_equal(r, 0);
        assert_quiet(d);
    }
    arm(d, NULL, 0); /* nothing at all */
    assert_quiet(d);
    descriptor_close(d);
    for (int i = 0; i < 2; i++) {
        close(ends[i]);
        close(others[i]);
    }
    words_free(w);
}

/* ---- the set
 * ---------------------------------------------------------------------------------- */

static void one_wait_per_word_however_often_armed(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    struct wait_word list[4];
    struct words *w = words_new(list, 4);
    for (int round = 0; round < 20; round++) {
        arm(d, list, 4);
        arm(d, list, 4);
        arm(d, list + (round & 1), 3); /* each word at another place than before */
        arm(d, list, 4);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(sleepers(list[i].word), 1);
            assert_signalled(d);
            descriptor_clear(d);
            arm(d, list, 4);
        }
    }
    struct wait_word twice[2] = { list[0], list[0] };
    arm(d, twice, 2);
    change(&list[0]);
    assert_signalled(d);
    descriptor_close(d);
    words_free(w);
}

/* After arm() nobody waits on a word that is no longer in the set, and its memory may go. */
static void a_word_that_is_gone_is_left(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    struct wait_word list[3], gone[2];
    struct words *w = words_new(list, 2);
    for (int round = 0; round < 20; round++) {
        struct words *other = words_new(gone, 2);
        list[2] = gone[0];
        arm(d, list, 3);
        arm(d, list, 2);
        assert_int_equal(wake_word(gone[0].word, INT32_MAX), 0);
        assert_false(readable(d, 0));
        words_free(other);
        arm(d, list, 2);
        change(&list[1]);
        assert_signalled(d);
        descriptor_clear(d);
    }
    arm(d, list, 2);
    descriptor_close(d);
    assert_int_equal(wake_word(list[0].word, INT32_MAX), 0); /* nor after close */
    words_free(w);
}

#define MANY 400
static void more_words_than_any_table(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    static struct wait_word list[MANY];
    struct words *w = words_new(list, MANY);
    arm(d, list, MANY);
    assert_quiet(d);
    change(&list[MANY - 1]);
    assert_signalled(d);
    descriptor_clear(d);
    arm(d, list, MANY);
    assert_quiet(d);
    for (int i = 0; i < MANY; i++) /* all at once */
        change(&list[i]);
    assert_signalled(d);
    descriptor_clear(d);
    arm(d, list, MANY);
    if (readable(d, QUIET_MS)) { /* a thread may have seen half of the changes, then the rest */
        descriptor_clear(d);
        arm(d, list, MANY);
    }
    assert_quiet(d);
    const int some[] = { 0, 150, 255, 256, 300, MANY - 1 };
    for (size_t i = 0; i < ARRAY_LENGTH(some); i++) { /* and each is waited on again */
        change(&list[some[i]]);
        assert_signalled(d);
        descriptor_clear(d);
        arm(d, list, MANY);
    }
    assert_quiet(d);
    arm(d, list, 1);
    assert_quiet(d);
    change(&list[0]);
    assert_signalled(d);
    descriptor_close(d);
    words_free(w);
}

/* ---- time and hang-up
 * ------------------------------------------------------------------------- */

static void the_timeout_makes_it_readable(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    struct wait_word list[1];
    struct words *w = words_new(list, 1);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(descriptor_arm(d, list, 1, -1, 2 * MS), 0);
        assert_signalled(d);
        descriptor_clear(d);
        assert_int_equal(descriptor_arm(d, list, 1, -1, 0), 0);
        assert_quiet(d);
    }
    /* The last word counts: it is moved away, taken away, brought near. */
    assert_int_equal(descriptor_arm(d, list, 1, -1, 5 * MS), 0);
    if (!readable(d, 0)) { /* a slow machine may be too late for this step */
        assert_int_equal(descriptor_arm(d, list, 1, -1, 60000 * MS), 0);
        descriptor_clear(d);
        assert_quiet(d);
    }
    assert_int_equal(descriptor_arm(d, list, 1, -1, 1 * MS), 0);
    assert_signalled(d);
    descriptor_close(d);
    words_free(w);
}

static void a_hang_up_makes_it_readable(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    struct wait_word list[1];
    struct words *w = words_new(list, 1);
    for (int round = 0; round < 3; round++) {
        int ends[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
        assert_int_equal(descriptor_arm(d, list, 1, ends[0], 0), 0);
        assert_quiet(d);
        if (round == 1)
            assert_int_equal(write(ends[1], "x", 1), 1); /* or readable */
        else
            close(ends[1]);
        assert_signalled(d);
        descriptor_clear(d);
        assert_int_equal(descriptor_arm(d, list, 1, ends[0], 0), 0); /* it still is */
        assert_signalled(d);
        descriptor_clear(d);
        assert_int_equal(descriptor_arm(d, list, 1, -1, 0), 0);
        assert_quiet(d);
        close(ends[0]);
        if (round == 1)
            close(ends[1]);
    }
    descriptor_close(d);
    words_free(w);
}

static void the_hang_up_descriptor_can_be_another(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    int first[2], second[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, first), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, second), 0);
    assert_int_equal(descriptor_arm(d, NULL, 0, first[0], 0), 0);
    assert_int_equal(descriptor_arm(d, NULL, 0, second[0], 0), 0);
    close(first[1]); /* no longer of interest */
    assert_quiet(d);
    close(second[1]);
    assert_signalled(d);
    descriptor_close(d);
    close(first[0]);
    close(second[0]);
}

static void a_hang_up_descriptor_can_be_closed(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    for (int close_all = 0; close_all < 2; close_all++) {
        int ends[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
        assert_int_equal(descriptor_arm(d, NULL, 0, ends[0], 0), 0);
        assert_quiet(d);
        if (close_all)
            descriptor_close(d);
        else
            arm(d, NULL, 0);
        close(ends[0]); /* nobody else holds it: its peer sees the end */
        struct pollfd p = { .fd = ends[1], .events = POLLIN };
        assert_int_equal(poll(&p, 1, LONG_MS), 1);
        assert_true((p.revents & POLLHUP) != 0);
        close(ends[1]);
    }
}

/* ---- threads and forks
 * ------------------------------------------------------------------------ */

struct in_thread {
    struct wait_descriptor *d;
    const struct wait_word *words;
    int result;
};

static void *arm_in_thread(void *argument) {
    struct in_thread *t = argument;
    t->result = descriptor_arm(t->d, t->words, 2, -1, 60000 * MS);
    return NULL;
}

static void run_thread(struct in_thread *t) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, arm_in_thread, t), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(t->result, 0);
}

static void another_thread_may_arm(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    struct wait_word list[2];
    struct words *w = words_new(list, 2);
    struct in_thread t = { .d = d, .words = list };
    for (int round = 0; round < 5; round++) {
        /* and it ends: an io_uring's waits die with it, which must not go unnoticed */
        run_thread(&t);
        if (descriptor_kind(d) == DESCRIPTOR_THREAD)
            change(&list[round & 1]);
        assert_signalled(d);
        descriptor_clear(d);
        arm(d, list, 2); /* here */
        /* An old ring that the kernel takes apart may signal once more. */
        while (readable(d, QUIET_MS)) {
            descriptor_clear(d);
            arm(d, list, 2);
        }
        assert_false(descriptor_signalled(d));
        change(&list[round & 1]);
        assert_signalled(d);
        descriptor_clear(d);
    }
    descriptor_close(d);
    words_free(w);
}

static void abandon_it(void *argument, struct report *report) {
    report->values[0] = open_descriptors();
    descriptor_abandon(argument);
    report->values[1] = open_descriptors();
}

static void a_child_can_abandon_it(void **state) {
    int before = open_descriptors();
    struct wait_descriptor *d = open_kind(kind_of(state));
    int used = open_descriptors() - before;
    struct wait_word list[2];
    struct words *w = words_new(list, 2);
    arm(d, list, 2);
    struct report report = child_end(child_start(abandon_it, d));
    assert_int_equal(report.values[0] - report.values[1], used);
    assert_quiet(d);
    change(&list[0]);
    assert_signalled(d);
    descriptor_close(d);
    words_free(w);
}

/* ---- the handshake of DESIGN 5 through epoll
 * --------------------------------------------------- */

#define ROUNDS 3000
struct ping_pong {
    struct channel there, back;
    enum descriptor_kind kind;
};

/* What the receiving child reports. */
enum { ROUNDS_DONE, SLEEPS, INTERRUPTED, LOST, SPURIOUS };

static void sleep_in_epoll(struct wait_descriptor *d, int epoll, struct report *report) {
    struct epoll_event event;
    int n = epoll_wait(epoll, &event, 1, LONG_MS);
    report->values[SLEEPS]++;
    if (n < 0 && errno == EINTR)
        report->values[INTERRUPTED]++;
    if (n == 0)
        report->values[LOST]++;
    descriptor_clear(d);
}

static void receive_all(void *argument, struct report *report) {
    struct ping_pong *p = argument;
    bool bare = barrier_registered();
    struct wait_descriptor *d;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (descriptor_open(&d, p->kind) != 0)
        return;
    struct epoll_event event = { .events = EPOLLIN };
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor_fd(d), &event) != 0)
        return;
    for (uint64_t s = 1; s <= ROUNDS && report->values[LOST] == 0; s++) {
        while (!channel_has(&p->there, s) && report->values[LOST] == 0) {
            struct wait_word word;
            if (!channel_arm(&p->there, s, &word))
                break;
            if (descriptor_arm(d, &word, 1, -1, SLEEP_BOUND_NS * 100) != 0)
                return;
            sleep_in_epoll(d, epoll, report);
            if (!channel_has(&p->there, s))
                report->values[SPURIOUS]++;
        }
        report->values[ROUNDS_DONE]++;
        channel_send(&p->back, s, bare);
    }
    descriptor_close(d);
    close(epoll);
}

static void no_wake_is_lost(void **state) {
    enum descriptor_kind kind = kind_of(state);
    struct ping_pong *p = shared_memory(sizeof(*p));
    p->kind = kind;
    atomic_store_relaxed(&p->there.armed, UINT64_MAX); /* relaxed: no child yet. Nobody armed */
    atomic_store_relaxed(&p->back.armed, UINT64_MAX);
    struct child child = child_start(receive_all, p);
    bool bare = barrier_registered();
    uint64_t done = 0;
    for (uint64_t s = 1; s <= ROUNDS && done == s - 1; s++) {
        if (s % 2 != 0)
            channel_await_sleeper(&p->there, s % 16);
        channel_send(&p->there, s, bare);
        bool timed_out = false;
        while (!channel_has(&p->back, s) && !timed_out) {
            struct wait_word word;
            if (channel_arm(&p->back, s, &word))
                timed_out = wait_on_words(&word, 1, LONG_MS * MS) == WAIT_TIMEOUT;
        }
        done += !timed_out;
    }
    struct report report = child_end(child);
    assert_int_equal(done, ROUNDS);
    assert_int_equal(report.values[ROUNDS_DONE], ROUNDS);
    assert_int_equal(report.values[LOST], 0);
    assert_int_equal(report.values[INTERRUPTED], 0);
    /* Else nothing was tested; and a wait that is left over from the last time would show as
     * many for nothing. */
    assert_in_range(report.values[SLEEPS], ROUNDS / 100, 2 * ROUNDS);
    assert_in_range(report.values[SPURIOUS], 0, ROUNDS / 10);
    munmap(p, sizeof(*p));
}

/* ---- a wake while arming makes the descriptor quiet -------------------------------------- */

#define RACES 4000
struct race {
    struct words words;
    atomic_u32 go;
};

/* Changes and wakes the first word as soon as it is told to. */
static void change_when_told(void *argument, struct report *report) {
    struct race *race = argument;
    for (uint32_t round = 1; round <= RACES; round++) {
        /* SYNC go: acquire, pairs with the test's store */
        for (unsigned spins = 0; atomic_load_acquire(&race->go) != round; spins++) {
            if (spins % 1024 == 1023)
                sched_yield();
        }
        for (uint32_t i = 0; i < round % 16; i++) /* at another moment each time */
            cpu_relax();
        atomic_store_release(&race->words.word[0], round); /* SYNC word: who waits compares */
        wake_word(&race->words.word[0], 1);
        report->values[0]++;
    }
}

/* A word that is taken out of the set makes noise that must not wake the user; what comes amid it
 * must. */
static void a_wake_amid_arming_is_not_lost(void **state) {
    struct wait_descriptor *d = open_kind(kind_of(state));
    struct race *race = shared_memory(sizeof(*race));
    struct child child = child_start(change_when_told, race);
    uint32_t round;
    for (round = 1; round <= RACES; round++) {
        struct wait_word list[2] = {
            { &race->words.word[0], round - 1 },
            { &race->words.word[1], 0 },
        };
        if (descriptor_arm(d, list, 2, -1, 0) != 0)
            break;
        atomic_store_release(&race->go, round); /* SYNC go: release, pairs with the child's load */
        bool fine;
        do { /* again, if it was signalled for the round before */
            fine = descriptor_arm(d, list, 1, -1, 0) == 0 && readable(d, LONG_MS);
            descriptor_clear(d);
            /* SYNC word: acquire, pairs with the child's store */
        } while (fine && atomic_load_acquire(&race->words.word[0]) != round);
        if (!fine)
            break;
    }
    assert_int_equal(round, RACES + 1);
    assert_int_equal(child_end(child).values[0], RACES);
    descriptor_close(d);
    munmap(race, sizeof(*race));
}

/* ---- what can be missing
 * ----------------------------------------------------------------------- */

static int64_t kind_or_error(enum descriptor_kind wish) {
    struct wait_descriptor *d;
    int r = descriptor_open(&d, wish);
    if (r < 0)
        return r;
    enum descriptor_kind kind = descriptor_kind(d);
    descriptor_close(d);
    return (int64_t)kind;
}

static void open_any(void *argument, struct report *report) {
    const char *way = argument;
    report->values[0] = 1;
    if (strcmp(way, "filter") == 0)
        report->values[0] = forbid_system_call(SYS_io_uring_setup, EPERM);
    if (strcmp(way, "thread") == 0)
        setenv("SHMPS_DESCRIPTOR", "thread", 1);
    if (strcmp(way, "limit") == 0)
        report->values[0] = setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 0, 0 }) == 0;
    report->values[1] = kind_or_error(DESCRIPTOR_ANY);
    report->values[2] = kind_or_error(DESCRIPTOR_URING);
    report->values[3] = open_descriptors();
}

static void without_io_uring_a_thread_does_it(void **state) {
    (void)state;
    unsetenv("SHMPS_DESCRIPTOR");
    char plain[] = "plain", filter[] = "filter", thread[] = "thread", limit[] = "limit";
    struct report r = child_end(child_start(open_any, plain));
    bool has_uring = r.values[1] == DESCRIPTOR_URING;
    assert_int_equal(r.values[1], has_uring ? DESCRIPTOR_URING : DESCRIPTOR_THREAD);
    assert_int_equal(r.values[2], has_uring ? DESCRIPTOR_URING : SHMPS_E_UNSUPPORTED);
    int64_t open = r.values[3];
    r = child_end(child_start(open_any, filter));
    assert_true(r.values[0]);
    assert_int_equal(r.values[1], DESCRIPTOR_THREAD);
    assert_int_equal(r.values[2], SHMPS_E_UNSUPPORTED);
    assert_int_equal(r.values[3], open);
    r = child_end(child_start(open_any, thread));
    assert_int_equal(r.values[1], DESCRIPTOR_THREAD);
    assert_int_equal(r.values[2], has_uring ? DESCRIPTOR_URING : SHMPS_E_UNSUPPORTED);
    r = child_end(child_start(open_any, limit));
    assert_true(r.values[0]);
    assert_int_equal(r.values[1], SHMPS_E_NO_DESCRIPTORS);
    assert_int_equal(r.values[2], SHMPS_E_NO_DESCRIPTORS);
}

int main(void) {
    static enum descriptor_kind uring = DESCRIPTOR_URING, thread = DESCRIPTOR_THREAD;
    alarm(55); /* a lost wake ends the test, not the build */
#define CASE(function, kind) \
    { #function " (" #kind ")", function, leak_setup, leak_teardown, &kind }
#define BOTH(function) CASE(function, uring), CASE(function, thread)
    const struct CMUnitTest tests[] = {
        BOTH(signal_and_clear),
        BOTH(a_wake_makes_it_readable),
        BOTH(a_word_that_differs_makes_it_readable),
        BOTH(a_change_amid_arming_is_seen),
        BOTH(an_idle_one_stays_quiet),
        BOTH(one_wait_per_word_however_often_armed),
        BOTH(a_word_that_is_gone_is_left),
        BOTH(more_words_than_any_table),
        BOTH(the_timeout_makes_it_readable),
        BOTH(a_hang_up_makes_it_readable),
        BOTH(the_hang_up_descriptor_can_be_another),
        BOTH(a_hang_up_descriptor_can_be_closed),
        BOTH(another_thread_may_arm),
        BOTH(a_child_can_abandon_it),
        BOTH(no_wake_is_lost),
        BOTH(a_wake_amid_arming_is_not_lost),
        CASE(without_io_uring_a_thread_does_it, uring),
    };
    return cmocka_run_group_tests_name("descriptor", tests, NULL, NULL);
}
