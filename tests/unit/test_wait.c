/* tests/unit/test_wait.c - wait/futex.h: sleeping on words, waking, the barrier. */
#include "support.h"

#include "bell.h"
#include "wait/futex.h"

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

#define MS INT64_C(1000000)
#define LONG_NS (INT64_C(20000) * MS) /* only a wake that is lost lasts that long */
#define WORDS 300

struct words {
    atomic_u32 go; /* the child is ready */
    atomic_u32 word[WORDS];
};

static struct words *words_new(struct wait_word list[WORDS]) {
    struct words *w = shared_memory(sizeof(*w));
    for (uint32_t i = 0; i < WORDS; i++)
        list[i] = (struct wait_word){ &w->word[i], 0 };
    return w;
}

static void words_free(struct words *w) {
    munmap(w, sizeof(*w));
}

/* A wake without a change finds its sleeper as soon as that sleeps: so this waits for it. */
static int wake_sleeper(const atomic_u32 *word, int n) {
    int woken;
    while ((woken = wake_word(word, n)) == 0)
        sched_yield();
    return woken;
}

static void a_word_that_differs_is_no_sleep(void **state) {
    (void)state;
    struct wait_word list[WORDS];
    struct words *w = words_new(list);
    const uint32_t counts[] = { 1, 2, WAIT_WORDS_MAX, WAIT_WORDS_MAX + 1, WORDS };
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        uint32_t last = counts[i] - 1;
        atomic_store_relaxed(&w->word[last], 1); /* relaxed: one thread */
        assert_int_equal(wait_on_words(list, counts[i], LONG_NS), WAIT_WOKEN);
        atomic_store_relaxed(&w->word[last], 0);
    }
    words_free(w);
}

static void nothing_happens_until_the_timeout(void **state) {
    (void)state;
    struct wait_word list[WORDS];
    struct words *w = words_new(list);
    assert_int_equal(wait_on_words(list, 0, 1), WAIT_TIMEOUT);
    assert_int_equal(wait_on_words(list, 1, 3 * MS), WAIT_TIMEOUT);
    assert_int_equal(wait_on_words(list, 2, 3 * MS), WAIT_TIMEOUT);
    assert_int_equal(wait_on_words(list, WAIT_WORDS_MAX, 3 * MS), WAIT_TIMEOUT);
    assert_int_equal(wait_on_words(list, WORDS, 3 * MS), WAIT_TIMEOUT);
    /* No time left is no sleep for ever. */
    assert_int_equal(wait_on_words(list, 1, 0), WAIT_TIMEOUT);
    assert_int_equal(wait_on_words(list, 2, -1), WAIT_TIMEOUT);
    words_free(w);
}

struct sleep {
    struct words *words;
    struct wait_word *list;
    uint32_t n;
    int64_t timeout_ns;
    int forbidden, with_errno; /* a system call that is not to be had; 0: none */
};

static void sleep_once(void *argument, struct report *report) {
    struct sleep *s = argument;
    if (s->forbidden != 0)
        report->values[1] = forbid_system_call(s->forbidden, s->with_errno);
    atomic_add_release(&s->words->go, 1); /* SYNC go: release, pairs with await_children() */
    report->values[0] = wait_on_words(s->list, s->n, s->timeout_ns);
}

static void await_children(struct words *w, uint32_t n) {
    while (atomic_load_acquire(&w->go) != n) /* SYNC go: acquire, pairs with sleep_once() */
        sched_yield();
}

static void a_wake_on_any_word_ends_the_sleep(void **state) {
    (void)state;
    struct wait_word list[WORDS];
    struct words *w = words_new(list);
    const struct {
        uint32_t n, woken;
    } cases[] = { { 1, 0 }, { 2, 0 }, { 2, 1 }, { 128, 0 }, { 128, 64 }, { 128, 127 } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sleep sleep = { .words = w, .list = list, .n = cases[i].n, .timeout_ns = LONG_NS };
        struct child child = child_start(sleep_once, &sleep);
        assert_int_equal(wake_sleeper(&w->word[cases[i].woken], 1), 1);
        assert_int_equal(child_end(child).values[0], WAIT_WOKEN);
    }
    words_free(w);
}

static void a_change_ends_a_nap(void **state) {
    (void)state;
    struct wait_word list[WORDS];
    struct words *w = words_new(list);
    struct sleep sleep = { .words = w, .list = list, .n = WORDS, .timeout_ns = LONG_NS };
    struct child child = child_start(sleep_once, &sleep);
    await_children(w, 1);
    atomic_store_release(&w->word[WORDS - 1], 7); /* SYNC word: the child compares */
    assert_int_equal(child_end(child).values[0], WAIT_WOKEN);
    words_free(w);
}

/* An old kernel (ENOSYS), and a container whose filter has not heard of the call (EPERM). */
static void without_futex_waitv_it_naps(void **state) {
    (void)state;
    const int errors[] = { ENOSYS, EPERM };
    for (int i = 0; i < 2; i++) {
        struct wait_word list[WORDS];
        struct words *w = words_new(list);
        struct sleep sleep = {
            .words = w, .list = list, .n = 2, .timeout_ns = LONG_NS,
            .forbidden = SYS_futex_waitv, .with_errno = errors[i],
        };
        struct child child = child_start(sleep_once, &sleep);
        await_children(w, 1);
        atomic_store_release(&w->word[1], 1); /* SYNC word: the child compares */
        struct report report = child_end(child);
        assert_int_equal(report.values[0], WAIT_WOKEN);
        assert_true(report.values[1]);

        atomic_store_relaxed(&w->word[1], 0); /* relaxed: no child */
        sleep.timeout_ns = 3 * MS;
        report = child_end(child_start(sleep_once, &sleep));
        assert_int_equal(report.values[0], WAIT_TIMEOUT);
        words_free(w);
    }
}

static void on_signal(int number) {
    (void)number;
}

static void a_signal_ends_the_sleep(void **state) {
    (void)state;
    struct sigaction action = { .sa_handler = on_signal }, before;
    sigaction(SIGUSR1, &action, &before); /* for the children: before they exist */
    const uint32_t counts[] = { 1, 2, WORDS };
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        struct wait_word list[WORDS];
        struct words *w = words_new(list);
        struct sleep sleep = { .words = w, .list = list, .n = counts[i], .timeout_ns = LONG_NS };
        struct child child = child_start(sleep_once, &sleep);
        /* Until it has ended: one that comes before the sleep does nothing. */
        siginfo_t info = { 0 };
        while (waitid(P_PID, (id_t)child.pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
               info.si_pid == 0) {
            kill(child.pid, SIGUSR1);
            sched_yield();
        }
        assert_int_equal(child_end(child).values[0], WAIT_WOKEN);
        words_free(w);
    }
    sigaction(SIGUSR1, &before, NULL);
}

static void a_wake_wakes_as_many_as_asked_for(void **state) {
    (void)state;
    struct wait_word list[WORDS];
    struct words *w = words_new(list);
    assert_int_equal(wake_word(&w->word[0], 1), 0); /* nobody there */
    struct sleep sleep = { .words = w, .list = list, .n = 1, .timeout_ns = LONG_NS };
    struct child children[3];
    for (int i = 0; i < 3; i++)
        children[i] = child_start(sleep_once, &sleep);
    int woken = 0;
    for (int i = 0; i < 3; i++) {
        int now = wake_sleeper(&w->word[0], 1);
        assert_int_equal(now, 1);
        woken += now;
    }
    assert_int_equal(woken, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(child_end(children[i]).values[0], WAIT_WOKEN);
    assert_int_equal(wake_word(&w->word[0], INT32_MAX), 0);
    assert_int_equal(wake_word(NULL, 1), 0); /* an error counts as none */
    words_free(w);
}

/* Both the sleeper and the waker see the word through a mapping that they cannot write. */
static void a_read_only_mapping_will_do(void **state) {
    (void)state;
    int fd = memfd_create("words", MFD_CLOEXEC);
    assert_true(fd >= 0 && ftruncate(fd, 4096) == 0);
    atomic_u32 *sleeper = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    atomic_u32 *waker = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(sleeper != MAP_FAILED && waker != MAP_FAILED);
    for (uint32_t n = 1; n <= 2; n++) {
        struct words *w = shared_memory(sizeof(*w));
        struct wait_word list[2] = { { &sleeper[5], 0 }, { &sleeper[6], 0 } };
        struct sleep sleep = { .words = w, .list = list, .n = n, .timeout_ns = LONG_NS };
        struct child child = child_start(sleep_once, &sleep);
        assert_int_equal(wake_sleeper(&waker[5], 1), 1);
        assert_int_equal(child_end(child).values[0], WAIT_WOKEN);
        words_free(w);
    }
    munmap(sleeper, 4096);
    munmap(waker, 4096);
    close(fd);
}

/* ---- the handshake of DESIGN 5: no wake is lost -------------------------------------- */

#define ROUNDS 4000
struct ping_pong {
    struct channel there, back;
    uint32_t words; /* 1: FUTEX_WAIT, 2: futex_waitv */
};

/* Returns how often it slept; a sleep that timed out makes it negative. */
static int64_t receive(struct channel *c, uint64_t sequence, uint32_t n) {
    static atomic_u32 never;
    int64_t sleeps = 0;
    while (!channel_has(c, sequence)) {
        struct wait_word list[2] = { { NULL, 0 }, { &never, 0 } };
        if (!channel_arm(c, sequence, &list[0]))
            break;
        sleeps++;
        if (wait_on_words(list, n, LONG_NS) == WAIT_TIMEOUT)
            return INT64_MIN;
    }
    return sleeps;
}

static void pong(void *argument, struct report *report) {
    struct ping_pong *p = argument;
    bool bare = barrier_registered();
    for (uint64_t s = 1; s <= ROUNDS; s++) {
        int64_t sleeps = receive(&p->there, s, p->words);
        if (sleeps < 0)
            return; /* the report says so: not all rounds */
        report->values[0]++;
        report->values[1] += sleeps;
        channel_send(&p->back, s, bare);
    }
}

static void no_wake_is_lost(void **state) {
    (void)state;
    for (uint32_t words = 1; words <= 2; words++) {
        struct ping_pong *p = shared_memory(sizeof(*p));
        p->words = words;
        /* relaxed: no child yet. It wraps */
        atomic_store_relaxed(&p->there.bell, UINT32_MAX - 100);
        atomic_store_relaxed(&p->back.armed, UINT64_MAX);       /* relaxed: nobody armed */
        atomic_store_relaxed(&p->there.armed, UINT64_MAX);
        struct child child = child_start(pong, p);
        bool bare = barrier_registered();
        int64_t sleeps = 0;
        uint64_t done = 0;
        for (uint64_t s = 1; s <= ROUNDS; s++) {
            if (s % 2 != 0)
                channel_await_sleeper(&p->there, s % 16);
            channel_send(&p->there, s, bare);
            int64_t slept = receive(&p->back, s, words);
            if (slept < 0)
                break;
            sleeps += slept;
            done++;
        }
        struct report report = child_end(child);
        assert_int_equal(done, ROUNDS);
        assert_int_equal(report.values[0], ROUNDS);
        /* Else nothing was tested. */
        assert_true(report.values[1] + sleeps > ROUNDS / 100);
        munmap(p, sizeof(*p));
    }
}

/* ---- the barrier --------------------------------------------------------------------- */

static bool kernel_has_barriers(void) {
    const int needed = MEMBARRIER_CMD_GLOBAL_EXPEDITED | MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
    long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    return commands >= 0 && (commands & needed) == needed;
}

static void use_barrier(void *argument, struct report *report) {
    const char *way = argument;
    report->values[0] = 1;
    if (strcmp(way, "environment") == 0)
        setenv("SHMPS_MEMBARRIER", "0", 1);
    if (strcmp(way, "filter") == 0)
        report->values[0] = forbid_system_call(SYS_membarrier, ENOSYS);
    report->values[1] = barrier_registered();
    report->values[2] = barrier_everyone();
    report->values[3] = barrier_registered();
}

static void the_barrier_is_what_the_kernel_can(void **state) {
    (void)state;
    unsetenv("SHMPS_MEMBARRIER");
    assert_int_equal(barrier_registered(), kernel_has_barriers());
    assert_int_equal(barrier_everyone(), kernel_has_barriers());
    char plain[] = "plain", environment[] = "environment", filter[] = "filter";
    struct report r = child_end(child_start(use_barrier, plain));
    assert_int_equal(r.values[1], kernel_has_barriers());
    assert_int_equal(r.values[2], kernel_has_barriers());
    /* The child of a process that has registered finds out anew. */
    r = child_end(child_start(use_barrier, environment));
    assert_false(r.values[1] || r.values[2] || r.values[3]);
    r = child_end(child_start(use_barrier, filter));
    assert_true(r.values[0]);
    assert_false(r.values[1] || r.values[2] || r.values[3]);
    assert_int_equal(barrier_registered(), kernel_has_barriers());
}

int main(void) {
    alarm(50); /* a lost wake ends the test, not the build */
#define CASE(function) cmocka_unit_test_setup_teardown(function, leak_setup, leak_teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_word_that_differs_is_no_sleep),
        CASE(nothing_happens_until_the_timeout),
        CASE(a_wake_on_any_word_ends_the_sleep),
        CASE(a_change_ends_a_nap),
        CASE(without_futex_waitv_it_naps),
        CASE(a_signal_ends_the_sleep),
        CASE(a_wake_wakes_as_many_as_asked_for),
        CASE(a_read_only_mapping_will_do),
        CASE(no_wake_is_lost),
        CASE(the_barrier_is_what_the_kernel_can),
    };
    return cmocka_run_group_tests_name("wait", tests, NULL, NULL);
}
