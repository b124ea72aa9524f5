/* Samples that outlive their subscriber: shmps_subscriber_close_keep(). */
#include "../harness.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KIB UINT64_C(1024)
#define KEPT_MAX 40

/* ---- the library's calls of the kernel, of which the n-th fails */

static int fail_at; /* 0: none */

static bool fails(void) {
    if (fail_at == 0 || --fail_at > 0)
        return false;
    errno = ENOMEM;
    return true;
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    return fails() ? MAP_FAILED
                   : (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
}

int mprotect(void *at, size_t bytes, int protection) {
    return fails() ? -1 : (int)syscall(SYS_mprotect, at, bytes, protection);
}

void *mremap(void *old, size_t old_bytes, size_t bytes, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    void *at = flags & MREMAP_FIXED ? va_arg(rest, void *) : NULL;
    va_end(rest);
    return fails() ? MAP_FAILED : (void *)syscall(SYS_mremap, old, old_bytes, bytes, flags, at);
}

/* ---- samples that are held, then kept */

static unsigned count_mappings(const char *what) {
    char line[512];
    unsigned n = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps) != NULL)
        n += strstr(line, what) != NULL;
    fclose(maps);
    return n;
}

static unsigned mappings_of_rings(void) {
    char name[128];
    snprintf(name, sizeof(name), "/dev/shm/shmps.%u.%s.r", (unsigned)getuid(), test_instance());
    return count_mappings(name);
}

/* Memory of no file that may only be read. */
static unsigned mappings_of_copies(void) {
    return count_mappings("r--p 00000000 00:00 0 \n");
}

static bool is_mapped(const void *p) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return msync((char *)p - (uintptr_t)p % page, page, MS_ASYNC) == 0;
}

struct kept {
    struct shmps_sample samples[KEPT_MAX];
    uint64_t numbers[KEPT_MAX];
    size_t n;
    struct shmps_kept *handle;
};

static void hold_next(struct kept *k, struct shmps_subscriber *sub, uint64_t number) {
    assert_ok(shmps_take(sub, &k->samples[k->n], 0));
    assert_true(sample_is(&k->samples[k->n], 1, number));
    k->numbers[k->n++] = number;
}

static bool all_are_whole(const struct kept *k) {
    for (size_t i = 0; i < k->n; i++)
        if (!sample_is(&k->samples[i], 1, k->numbers[i]))
            return false;
    return true;
}

static struct shmps_subscriber *subscriber_with_pins(struct shmps *bus, const char *filter,
                                                     int delivery, uint32_t pins) {
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps_subscriber *sub;
    options.delivery = delivery;
    options.pins = pins;
    assert_ok(shmps_subscriber_open(bus, filter, &options, &sub));
    return sub;
}

static void free_kept(struct kept *k) {
    bool mapped[KEPT_MAX];
    for (size_t i = 0; i < k->n; i++) /* a block, or a part of the heap */
        mapped[i] = k->samples[i].bytes > 4 * KIB && !(k->samples[i].flags & SHMPS_SAMPLE_COPIED);
    assert_true(all_are_whole(k));
    shmps_kept_free(k->handle);
    for (size_t i = 0; i < k->n; i++)
        assert_false(mapped[i] && is_mapped(k->samples[i].data));
}

/* In the slot, in blocks that share pages, in blocks of pages, copied as the pins have run out. */
static void test_every_size_is_kept(void **state) {
    static const size_t sizes[] = { 32, 100, 224, 300, 640, 1000, 3000, 4096, 10000, 300 * KIB };
    static const int deliveries[] = { SHMPS_LOSSY, SHMPS_RELIABLE, SHMPS_LATEST, SHMPS_OBSERVE };
    (void)state;
    for (size_t i = 0; i < 4 * 10; i++) {
        struct kept k = { 0 };
        struct shmps *bus = connected();
        size_t bytes = sizes[i / 4];
        struct shmps_subscriber *sub = subscriber_with_pins(bus, "t", deliveries[i % 4], 7);
        struct shmps_publisher *pub = publisher_on(bus, "t", 4, bytes);
        struct shmps_sample s;
        for (uint64_t number = 0; number < 30; number++) {
            assert_ok(message_publish(pub, 1, number, bytes, 0));
            if (number % 3 == 0) { /* with others' blocks in between */
                hold_next(&k, sub, number);
            } else {
                assert_ok(shmps_take(sub, &s, 0));
                assert_ok(shmps_release(sub, &s));
            }
        }
        assert_ok(shmps_subscriber_close_keep(sub, &k.handle));
        assert_non_null(k.handle);
        assert_true(all_are_whole(&k));
        assert_int_equal(mappings_of_rings(), 1); /* the publisher's */
        sub = subscriber_with_pins(bus, "t", SHMPS_RELIABLE, 7); /* they are free again */
        struct shmps_subscriber_stats stats = SHMPS_SUBSCRIBER_STATS_INIT;
        assert_ok(shmps_subscriber_stats(sub, &stats));
        assert_true(bytes <= 224 || stats.pins == 7);
        for (uint64_t number = 30; number < 100; number++) { /* over every block */
            assert_ok(message_publish(pub, 1, number, bytes, 0));
            assert_ok(shmps_take(sub, &s, 0));
            assert_true(sample_is(&s, 1, number));
            assert_ok(shmps_release(sub, &s));
        }
        assert_true(all_are_whole(&k));
        shmps_close(bus);
        assert_int_equal(mappings_of_rings(), 0);
        free_kept(&k);
    }
}

static void test_nothing_is_held(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_kept *kept = (struct shmps_kept *)1;
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_LOSSY);
    assert_result(shmps_subscriber_close_keep(sub, NULL), SHMPS_E_INVALID);
    assert_ok(shmps_subscriber_close_keep(sub, &kept));
    assert_null(kept);
    shmps_kept_free(NULL);
    shmps_close(bus);
}

/* Hold its next sample, and let the one after it go: of neighbours one is held. */
static void hold_one_of_two(struct kept *k, struct shmps_subscriber *sub,
                            struct shmps_publisher *pub, uint64_t number, size_t bytes) {
    struct shmps_sample s;
    assert_ok(message_publish(pub, 1, number, bytes, 0));
    hold_next(k, sub, number);
    assert_ok(message_publish(pub, 1, number + 1, bytes, 0));
    assert_ok(shmps_take(sub, &s, 0));
    assert_ok(shmps_release(sub, &s));
}

/* Rings of several topics and publishers, with samples 0 to 7; one that was outgrown, one whose
 * publisher has gone. */
static void hold_of_many_rings(struct shmps *bus, struct shmps_subscriber *sub, struct kept *k,
                               struct shmps_publisher *pubs[3]) {
    pubs[0] = publisher_on(bus, "t/0", 8, 1000);
    pubs[1] = publisher_on(bus, "t/0", 8, 0);
    pubs[2] = publisher_on(bus, "t/1", 8, 2000);
    struct shmps_publisher *gone = publisher_on(bus, "t/2", 8, 5000);
    hold_one_of_two(k, sub, gone, 0, 5000);
    shmps_publisher_close(gone);
    for (uint64_t number = 0; number < 8; number += 2) {
        hold_one_of_two(k, sub, pubs[0], number, 900);
        hold_one_of_two(k, sub, pubs[1], number, 3000 + 5000 * number); /* it grows */
        hold_one_of_two(k, sub, pubs[2], number, 40 + 250 * number);
    }
}

static void test_many_rings(void **state) {
    static const int deliveries[] = { SHMPS_LOSSY, SHMPS_RELIABLE, SHMPS_OBSERVE };
    (void)state;
    for (size_t i = 0; i < 3 * 2; i++) {
        struct kept k = { 0 };
        struct shmps_publisher *pubs[3];
        struct shmps *bus = connected();
        struct shmps_subscriber *sub = subscriber_on(bus, "t/#", deliveries[i / 2]);
        hold_of_many_rings(bus, sub, &k, pubs);
        for (size_t r = 0; i % 2 == 1 && r < k.n; r += 3) { /* some are released */
            assert_ok(shmps_release(sub, &k.samples[r]));
            k.n--;
            k.samples[r] = k.samples[k.n];
            k.numbers[r] = k.numbers[k.n];
        }
        assert_ok(shmps_subscriber_close_keep(sub, &k.handle));
        assert_true(all_are_whole(&k));
        assert_int_equal(mappings_of_rings(), 3);
        for (uint64_t number = 8; number < 40; number++)
            for (int p = 0; p < 3; p++)
                assert_ok(message_publish(pubs[p], 1, number, 900, 0));
        shmps_close(bus);
        free_kept(&k);
    }
}

static void test_while_pubsubd_is_dead(void **state) {
    (void)state;
    struct kept k = { 0 };
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 2000);
    for (uint64_t number = 0; number < 3; number++) {
        assert_ok(message_publish(pub, 1, number, 2000, 0));
        hold_next(&k, sub, number);
    }
    daemon_kill();
    assert_ok(shmps_subscriber_close_keep(sub, &k.handle));
    for (uint64_t number = 3; number < 40; number++) /* it is not held back */
        assert_ok(message_publish(pub, 1, number, 2000, 0));
    assert_true(all_are_whole(&k));
    daemon_start();
    shmps_close(bus);
    free_kept(&k);
}

/* ---- other threads */

struct reading {
    struct kept *kept;
    _Atomic bool stop;
    _Atomic uint64_t rounds, wrong;
};

static void *read_on(void *arg) {
    struct reading *r = arg;
    while (!r->stop) {
        r->wrong += !all_are_whole(r->kept);
        r->rounds++;
    }
    return NULL;
}

static void test_others_read_meanwhile(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 1000);
    uint64_t number = 0;
    for (int round = 0; round < 50; round++) {
        struct kept k = { 0 };
        struct reading reading = { .kept = &k };
        pthread_t thread;
        struct shmps_subscriber *sub = subscriber_with_pins(bus, "t", SHMPS_RELIABLE, 20);
        for (int i = 0; i < 20; i++, number++) {
            assert_ok(message_publish(pub, 1, number, 900, 0));
            hold_next(&k, sub, number);
        }
        assert_int_equal(pthread_create(&thread, NULL, read_on, &reading), 0);
        while (reading.rounds < 2) {
        }
        assert_ok(shmps_subscriber_close_keep(sub, &k.handle));
        uint64_t closed = reading.rounds;
        for (int i = 0; i < 100; i++, number++)
            assert_ok(message_publish(pub, 1, number, 900, 0));
        while (reading.rounds < closed + 2) {
        }
        reading.stop = true;
        pthread_join(thread, NULL);
        assert_int_equal(reading.wrong, 0);
        free_kept(&k);
    }
    shmps_close(bus);
}

/* ---- what fails leaves everything as it was */

/* It receives what is put beside what it holds. */
static void receive_on(struct shmps_subscriber *sub, struct shmps_publisher *pubs[3],
                       uint64_t number) {
    struct pollfd p = { .fd = shmps_subscriber_fd(sub), .events = POLLIN };
    struct shmps_sample s;
    assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY);
    for (uint64_t end = number + 100; number < end; number++)
        for (int i = 0; i < 3; i++) {
            assert_ok(message_publish(pubs[i], 1, number, 900, 0));
            assert_int_equal(poll(&p, 1, 10000), 1);
            assert_ok(shmps_take(sub, &s, 0));
            assert_int_equal(s.flags, 0);
            assert_true(sample_is(&s, 1, number));
            assert_ok(shmps_release(sub, &s));
            assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY);
        }
}

/* Try it with the n-th call failing, `tries` times. How often it failed. */
static uint64_t fail_to_keep(struct shmps_subscriber *sub, struct kept *k,
                             struct shmps_publisher *pubs[3], int n, uint64_t tries) {
    for (uint64_t i = 0; i < tries; i++) {
        fail_at = n;
        int r = shmps_subscriber_close_keep(sub, &k->handle);
        bool failed = fail_at == 0;
        fail_at = 0;
        assert_result(r, failed ? SHMPS_E_NO_MEMORY : 0);
        if (!failed)
            return i;
        assert_true(all_are_whole(k));
        receive_on(sub, pubs, 8 + 100 * i);
        assert_true(all_are_whole(k));
    }
    return tries;
}

static void test_nothing_has_happened(void **state) {
    (void)state;
    uint64_t failures = 1;
    int n = 0;
    while (failures > 0) {
        struct kept k = { 0 };
        struct shmps_publisher *pubs[3];
        struct shmps *bus = connected();
        unsigned copies = mappings_of_copies();
        struct shmps_subscriber *sub = subscriber_with_pins(bus, "t/#", SHMPS_RELIABLE, 9);
        hold_of_many_rings(bus, sub, &k, pubs);
        failures = fail_to_keep(sub, &k, pubs, ++n, 2);
        if (failures == 2 && n % 2 == 0) { /* closed as ever; what is held goes with it */
            shmps_subscriber_close(sub);
            assert_int_equal(mappings_of_rings(), 3);
            assert_false(is_mapped(k.samples[0].data));
        } else {
            if (failures == 2)
                assert_ok(shmps_subscriber_close_keep(sub, &k.handle));
            assert_int_equal(mappings_of_rings(), 3);
            assert_true(mappings_of_copies() > copies);
            free_kept(&k);
        }
        assert_int_equal(mappings_of_copies(), copies);
        shmps_close(bus);
    }
    print_message("# %d calls were made to fail\n", n - 1);
    assert_true(n > 20);
}

/* ---- a callback, a child */

static void close_in_callback(struct shmps_subscriber *sub, const struct shmps_sample *sample,
                              void *user) {
    struct shmps_kept *kept;
    (void)sample;
    *(int *)user = shmps_subscriber_close_keep(sub, &kept);
    if (shmps_subscriber_on_sample(sub, NULL, NULL) == 0) /* it still is served */
        *(int *)user |= shmps_subscriber_close_keep(sub, &kept);
}

static void test_a_callback_stands_in_the_way(void **state) {
    (void)state;
    int result = 0;
    struct kept k = { 0 };
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 2000);
    assert_ok(message_publish(pub, 1, 0, 2000, 0));
    hold_next(&k, sub, 0);
    assert_ok(shmps_subscriber_on_sample(sub, close_in_callback, &result));
    assert_result(shmps_subscriber_close_keep(sub, &k.handle), SHMPS_E_STATE);
    assert_ok(message_publish(pub, 1, 1, 2000, 0));
    assert_ok(shmps_dispatch(bus, SHMPS_FOREVER));
    assert_int_equal(result, SHMPS_E_STATE);
    assert_ok(shmps_subscriber_close_keep(sub, &k.handle));
    shmps_close(bus);
    free_kept(&k);
}

struct inherited {
    struct shmps *bus;
    struct shmps_subscriber *sub;
    struct kept *kept;
};

static void use_in_child(int socket, const void *argument, struct report *report) {
    const struct inherited *i = argument;
    struct shmps_kept *kept;
    (void)socket;
    MUST(report, shmps_subscriber_close_keep(i->sub, &kept) == SHMPS_E_FORKED);
    MUST(report, all_are_whole(i->kept));
    shmps_kept_free(i->kept->handle);
    MUST(report, !is_mapped(i->kept->samples[0].data));
    shmps_close(i->bus);
}

static void test_children_inherit_what_is_kept(void **state) {
    (void)state;
    struct kept k = { 0 };
    struct child child;
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 0);
    for (uint64_t number = 0; number < 3; number++) {
        assert_ok(message_publish(pub, 1, number, number == 1 ? 40 : 9000, 0));
        hold_next(&k, sub, number);
    }
    assert_ok(shmps_subscriber_close_keep(sub, &k.handle));
    struct inherited inherited = { bus, subscriber_on(bus, "t", SHMPS_LOSSY), &k };
    child_start(&child, use_in_child, &inherited);
    child_end(&child);
    assert_true(all_are_whole(&k));
    shmps_close(bus);
    free_kept(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_every_size_is_kept),
        WITH_DAEMON(test_nothing_is_held),
        WITH_DAEMON(test_many_rings),
        WITH_DAEMON(test_while_pubsubd_is_dead),
        WITH_DAEMON(test_others_read_meanwhile),
        WITH_DAEMON(test_nothing_has_happened),
        WITH_DAEMON(test_a_callback_stands_in_the_way),
        WITH_DAEMON(test_children_inherit_what_is_kept),
    };
    return cmocka_run_group_tests_name("keep", tests, NULL, NULL);
}
