/* tests/unit/test_descriptor.c - wait/descriptor.h: life, set, time, hang-up, threads, forks. */
#include "descriptors.h"

#include "base/scope.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* ---- life ---------------------------------------------------------------------------- */

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

/* ---- the set ------------------------------------------------------------------------- */

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

/* ---- time and hang-up ---------------------------------------------------------------- */

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

/* ---- threads and forks --------------------------------------------------------------- */

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

/* ---- what can be missing ------------------------------------------------------------- */

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
        CASE(without_io_uring_a_thread_does_it, uring),
    };
    return cmocka_run_group_tests_name("descriptor", tests, NULL, NULL);
}
