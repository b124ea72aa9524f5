/* tests/unit/test_descriptor_wakes.c - wait/descriptor.h: no wake is lost, and no epoll_wait() is
 * interrupted. */
#include "descriptors.h"

#include "bell.h"

#include <sys/epoll.h>

/* ---- the handshake of DESIGN 5 through epoll ----------------------------------------- */

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

/* ---- a wake while arming makes the descriptor quiet ---------------------------------- */

#define RACES 12000
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
        for (uint32_t i = 0; i < round % 32; i++) /* at another moment each time */
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

int main(void) {
    static enum descriptor_kind uring = DESCRIPTOR_URING, thread = DESCRIPTOR_THREAD;
    alarm(55); /* a lost wake ends the test, not the build */
    const struct CMUnitTest tests[] = {
        BOTH(no_wake_is_lost),
        BOTH(a_wake_amid_arming_is_not_lost),
    };
    return cmocka_run_group_tests_name("descriptor_wakes", tests, NULL, NULL);
}
