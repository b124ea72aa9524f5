/* Messages in blocks: held ones, pins and copies, publishers that grow, sizes that are refused. */
#include "../harness.h"

#include <stdlib.h>
#include <sys/statvfs.h>

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)

static struct shmps_subscriber *subscriber_with_pins(struct shmps *bus, int delivery,
                                                     uint32_t pins) {
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps_subscriber *sub;
    options.delivery = delivery;
    options.pins = pins;
    assert_ok(shmps_subscriber_open(bus, "t", &options, &sub));
    return sub;
}

static struct shmps_subscriber_stats stats_of(struct shmps_subscriber *sub) {
    struct shmps_subscriber_stats stats = { .size = sizeof(stats) };
    assert_ok(shmps_subscriber_stats(sub, &stats));
    return stats;
}

/* ---- holding */

static void test_what_is_held_stays_as_it_was(void **state) {
    const int deliveries[] = { SHMPS_LOSSY, SHMPS_RELIABLE, SHMPS_LATEST };
    const uint32_t pins[] = { 1, 4, 7, 8, 20, 63 };
    (void)state;
    struct shmps *bus = connected();
    for (size_t i = 0; i < 3 * 6; i++) {
        int delivery = deliveries[i / 6];
        uint32_t n = pins[i % 6];
        struct shmps_subscriber *sub = subscriber_with_pins(bus, delivery, n);
        struct shmps_publisher *pub = publisher_on(bus, "t", 4, 4 * KIB);
        struct shmps_sample held[63], s;
        uint64_t number = 0;
        for (uint32_t k = 0; k < n; k++, number++) {
            assert_ok(message_publish(pub, 1, number, 3000, 0));
            assert_ok(shmps_take(sub, &held[k], 0));
            assert_int_equal(held[k].flags, 0);
        }
        assert_int_equal(stats_of(sub).pins, n);
        assert_int_equal(stats_of(sub).held, n);
        for (uint64_t lap = 0; lap < 20; lap++, number++) { /* beyond its pins: copies */
            assert_ok(message_publish(pub, 1, number, 3000 + lap, 0));
            assert_ok(shmps_take(sub, &s, 0));
            assert_true(sample_is(&s, 1, number));
            assert_int_equal(s.flags, SHMPS_SAMPLE_COPIED);
            for (uint32_t k = 0; k < n; k++)
                assert_true(sample_is(&held[k], 1, k));
            assert_ok(shmps_release(sub, &s));
        }
        assert_int_equal(stats_of(sub).copied, 20);
        assert_ok(shmps_release(sub, &held[n / 2])); /* in any order */
        assert_ok(message_publish(pub, 1, number, 3000, 0));
        assert_ok(shmps_take(sub, &held[n / 2], 0));
        assert_int_equal(held[n / 2].flags, 0);
        assert_true(sample_is(&held[n / 2], 1, number));
        assert_ok(shmps_release_batch(sub, held, n));
        shmps_publisher_close(pub);
        shmps_subscriber_close(sub);
    }
    shmps_close(bus);
}

/* What was taken stays readable after its publisher has gone. */
static void test_held_beyond_the_end_of_its_publisher(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_with_pins(bus, SHMPS_RELIABLE, 4);
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 64 * KIB);
    struct shmps_sample held[2], s;
    assert_ok(message_publish(pub, 1, 0, 64 * KIB, 0));
    assert_ok(message_publish(pub, 1, 1, 40 * KIB, 0));
    assert_ok(shmps_take(sub, &held[0], 0));
    assert_ok(shmps_take(sub, &held[1], 0));
    shmps_publisher_close(pub);
    assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY);
    assert_true(sample_is(&held[0], 1, 0));
    assert_true(sample_is(&held[1], 1, 1));
    assert_ok(shmps_release(sub, &held[1]));
    assert_true(sample_is(&held[0], 1, 0));
    assert_ok(shmps_release(sub, &held[0]));
    assert_result(shmps_release(sub, &held[0]), SHMPS_E_INVALID);
    shmps_close(bus);
}

static void test_pins_are_shared_out(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps_publisher *pub;
    struct shmps_sample first[6], second[6];
    options.depth = 8;
    options.pins = 6;
    options.message_bytes = 64 * KIB;
    assert_ok(shmps_publisher_open(bus, "t", &options, &pub));
    struct shmps_subscriber *one = subscriber_with_pins(bus, SHMPS_RELIABLE, 4);
    struct shmps_subscriber *two = subscriber_with_pins(bus, SHMPS_RELIABLE, 4);
    struct shmps_subscriber *three = subscriber_with_pins(bus, SHMPS_RELIABLE, 4);
    assert_int_equal(stats_of(one).pins, 4);
    assert_int_equal(stats_of(two).pins, 2); /* what is left */
    assert_int_equal(stats_of(three).pins, 0);
    for (uint64_t i = 0; i < 6; i++) {
        struct shmps_sample s;
        assert_ok(message_publish(pub, 1, i, 50000, 0));
        assert_ok(shmps_take(one, &first[i], 0));
        assert_ok(shmps_take(two, &second[i], 0));
        assert_ok(shmps_take(three, &s, 0));
        assert_int_equal(first[i].flags, i < 4 ? 0 : SHMPS_SAMPLE_COPIED);
        assert_int_equal(second[i].flags, i < 2 ? 0 : SHMPS_SAMPLE_COPIED);
        assert_int_equal(s.flags, SHMPS_SAMPLE_COPIED);
        assert_true(sample_is(&s, 1, i));
        assert_ok(shmps_release(three, &s));
    }
    for (uint64_t i = 6; i < 50; i++) {
        struct shmps_sample s;
        assert_ok(message_publish(pub, 1, i, 50000, 0));
        struct shmps_subscriber *subs[] = { one, two, three };
        for (int k = 0; k < 3; k++) {
            assert_ok(shmps_take(subs[k], &s, 0));
            assert_true(sample_is(&s, 1, i));
            assert_ok(shmps_release(subs[k], &s));
        }
    }
    for (uint64_t i = 0; i < 6; i++) {
        assert_true(sample_is(&first[i], 1, i));
        assert_true(sample_is(&second[i], 1, i));
    }
    shmps_close(bus); /* closes what is open, also with samples held */
}

/* ---- loans */

static void test_loans(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 0);
    struct shmps_subscriber *sub = subscriber_with_pins(bus, SHMPS_RELIABLE, 2);
    struct shmps_sample s;
    size_t done;
    void *loan, *second;
    assert_result(shmps_publish_loan(pub, 0, 0), SHMPS_E_STATE);
    assert_result(shmps_discard(pub), SHMPS_E_STATE);
    for (uint64_t i = 0; i < 30; i++) {
        size_t bytes = i % 2 == 0 ? 4096 : 28;
        assert_ok(shmps_loan(pub, bytes, 0, &loan));
        assert_int_equal((uintptr_t)loan % 32, 0);
        assert_true(bytes < 4096 || (uintptr_t)loan % 64 == 0);
        memset(loan, 0xff, bytes);
        assert_result(shmps_loan(pub, 1, 0, &second), SHMPS_E_STATE);
        assert_result(shmps_publish(pub, "x", 1, 0, 0), SHMPS_E_STATE);
        struct shmps_message message = { "x", 1, 0 };
        assert_result(shmps_publish_batch(pub, &message, 1, SHMPS_UP_TO, 0, &done), SHMPS_E_STATE);
        assert_ok(shmps_discard(pub));
        assert_ok(shmps_loan(pub, bytes, 0, &loan));
        assert_result(shmps_publish_loan(pub, bytes + 1, 0), SHMPS_E_SIZE);
        size_t used = i % 4 == 0 ? 30 : 28; /* less than was loaned: it fits into the slot */
        message_fill(loan, 1, i, i % 4 == 2 ? bytes : used < bytes ? used : bytes);
        assert_ok(shmps_publish_loan(pub, i % 4 == 2 ? bytes : used < bytes ? used : bytes, i));
        assert_ok(shmps_take(sub, &s, 0));
        assert_true(sample_is(&s, 1, i));
        assert_ok(shmps_release(sub, &s));
        assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY); /* discarded is not published */
    }
    assert_ok(shmps_loan(pub, 4096, 0, &loan));
    shmps_publisher_close(pub); /* an open loan is discarded */
    assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY);
    shmps_close(bus);
}

/* ---- growing */

static size_t growing_size(uint64_t i) {
    return i < 5 ? 100 : i < 10 ? MIB : i < 12 ? 5 * MIB : 100;
}
#define GROWING 16

static void test_a_publisher_grows(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 8, 0);
    struct shmps_subscriber *all[] = {
        subscriber_with_pins(bus, SHMPS_RELIABLE, 2), subscriber_with_pins(bus, SHMPS_LOSSY, 2),
        subscriber_on(bus, "#", SHMPS_RELIABLE), /* these two read it as it comes */
        subscriber_on(bus, "t", SHMPS_LOSSY) };
    struct shmps_publisher_stats before = { .size = sizeof(before) }, after = before;
    struct shmps_sample s, held;
    assert_ok(shmps_publisher_stats(pub, &before));
    for (uint64_t i = 0; i < GROWING; i++) {
        assert_ok(message_publish(pub, 1, i, growing_size(i), 0));
        for (int k = 2; k < 4; k++) {
            assert_ok(shmps_take(all[k], &s, 0));
            assert_true(sample_is(&s, 1, i));
            assert_int_equal(s.publisher, before.id); /* the same publisher */
            if (k == 2 && i == 3)
                held = s; /* of a ring that will be left */
            else
                assert_ok(shmps_release(all[k], &s));
        }
    }
    assert_true(sample_is(&held, 1, 3));
    assert_ok(shmps_release(all[2], &held));
    for (uint64_t i = 0; i < GROWING; i++)
        for (int k = 0; k < 2; k++) { /* and these after all */
            assert_ok(shmps_take(all[k], &s, 0));
            assert_true(sample_is(&s, 1, i));
            assert_int_equal(s.lost, 0);
            assert_ok(shmps_release(all[k], &s));
        }
    for (int k = 0; k < 4; k++)
        assert_result(shmps_take(all[k], &s, 0), SHMPS_EMPTY);
    assert_ok(shmps_publisher_stats(pub, &after));
    assert_int_equal(after.id, before.id);
    assert_int_equal(after.messages, GROWING);
    assert_true(after.message_bytes >= 5 * MIB);
    assert_int_equal(stats_of(all[0]).publishers, 1);
    assert_int_equal(count_segments("r"), 1); /* the old ones are drained */
    shmps_close(bus);
}

static void grow_in_a_child(int socket, const void *argument, struct report *report) {
    struct shmps *bus;
    struct shmps_publisher *pub;
    (void)argument;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, "t", NULL, &pub));
    MUST_OK(report, shmps_publisher_wait_subscribers(pub, 2, SHMPS_FOREVER));
    for (uint64_t i = 0; i < GROWING; i++)
        MUST_OK(report, message_publish(pub, 1, i, growing_size(i), SHMPS_FOREVER));
    (void)socket;
    shmps_publisher_close(pub);
    shmps_close(bus);
}

static void test_a_publisher_grows_and_leaves(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_subscriber *subs[] = { subscriber_on(bus, "t", SHMPS_RELIABLE),
                                        subscriber_on(bus, "+", SHMPS_LOSSY) };
    struct child child;
    struct shmps_sample s;
    child_start(&child, grow_in_a_child, NULL);
    for (uint64_t i = 0; i < GROWING; i++)
        for (int k = 0; k < 2; k++) {
            assert_ok(shmps_take(subs[k], &s, SHMPS_FOREVER));
            assert_true(sample_is(&s, 1, i));
            assert_int_equal(s.lost, 0);
            assert_ok(shmps_release(subs[k], &s));
        }
    child_end(&child);
    shmps_close(bus);
}

/* All counts go on in the larger ring. */
static void test_a_publisher_that_grew_counts_on(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_publisher *pub = publisher_on(bus, "t", 4, 0);
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct shmps_publisher_stats before = { .size = sizeof(before) }, after = before;
    struct shmps_sample s;
    void *loan;
    assert_true(shmps_subscriber_fd(sub) >= 0);
    assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY); /* asleep now: the first wakes it */
    for (uint64_t i = 0; i < 4; i++)
        assert_ok(message_publish(pub, 1, i, 1000, 0));
    assert_result(message_publish(pub, 1, 4, 1000, 2000000), SHMPS_FULL);
    assert_ok(shmps_publisher_stats(pub, &before));
    assert_int_equal(before.wakes, 1);
    assert_true(before.stalls > 0);
    for (uint64_t i = 0; i < 4; i++) {
        assert_ok(shmps_take(sub, &s, 0));
        assert_ok(shmps_release(sub, &s));
    }
    for (int i = 0; i < 2; i++) { /* also over two of them */
        assert_ok(shmps_loan(pub, (size_t)before.message_bytes + 1, 0, &loan));
        assert_ok(shmps_publisher_stats(pub, &after));
        assert_true(after.message_bytes > before.message_bytes);
        assert_int_equal(after.id, before.id);
        assert_int_equal(after.messages, 4);
        assert_int_equal(after.bytes, 4000);
        assert_int_equal(after.stalls, before.stalls);
        assert_int_equal(after.wakes, before.wakes);
        assert_ok(shmps_discard(pub));
        before = after;
    }
    shmps_close(bus);
}

/* ---- sizes that are refused */

static void test_an_explicit_size_is_kept(void **state) {
    (void)state;
    const uint64_t sizes[] = { 1, 32, 224, 225, 4096, 5000, MIB };
    struct shmps *bus = connected();
    static unsigned char body[MIB + 1];
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct shmps_publisher *pub = publisher_on(bus, "t", 4, sizes[i]);
        struct shmps_publisher_stats stats = { .size = sizeof(stats) };
        void *loan;
        assert_ok(shmps_publish(pub, body, sizes[i], 0, 0));
        assert_result(shmps_publish(pub, body, sizes[i] + 1, 0, 0), SHMPS_E_SIZE);
        assert_non_null(strstr(shmps_error_detail(), "message_bytes"));
        assert_result(shmps_loan(pub, sizes[i] + 1, 0, &loan), SHMPS_E_SIZE);
        assert_ok(shmps_publish(pub, body, sizes[i], 0, 0)); /* and it goes on */
        assert_ok(shmps_publisher_stats(pub, &stats));
        assert_int_equal(stats.messages, 2);
        assert_int_equal(stats.message_bytes, sizes[i]);
        shmps_publisher_close(pub);
    }
    shmps_close(bus);
}

/* More than /dev/shm has: refused with what is needed and what is free; nothing is left of it. */
static void test_more_than_there_is_room_for(void **state) {
    (void)state;
    struct statvfs shm;
    struct shmps *bus = connected();
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps_publisher *pub, *small = publisher_on(bus, "small", 4, 0);
    struct shmps_subscriber *sub = subscriber_on(bus, "small", SHMPS_RELIABLE);
    assert_int_equal(statvfs("/dev/shm", &shm), 0);
    uint64_t total = (uint64_t)shm.f_blocks * shm.f_frsize;
    unsigned segments = count_segments("");
    options.depth = 8;
    options.message_bytes = total / 8 < SHMPS_MESSAGE_BYTES_MAX ? total / 8
                                                                : SHMPS_MESSAGE_BYTES_MAX;
    while (options.depth * options.message_bytes < total)
        options.depth *= 2;
    assert_result(shmps_publisher_open(bus, "huge", &options, &pub), SHMPS_E_NO_SPACE);
    assert_non_null(strstr(shmps_error_detail(), "need"));
    assert_non_null(strstr(shmps_error_detail(), "free"));
    assert_int_equal(count_segments(""), segments);
    assert_ok(message_publish(small, 1, 0, 100, 0)); /* nobody else notices */
    struct shmps_sample s;
    assert_ok(shmps_take(sub, &s, 0));
    assert_ok(shmps_release(sub, &s));
    /* The same for a publisher that would have to grow: it stays as it was. */
    void *loan;
    uint64_t too_large = total < SHMPS_MESSAGE_BYTES_MAX ? total : SHMPS_MESSAGE_BYTES_MAX;
    if (4 * too_large > total) {
        assert_result(shmps_loan(small, too_large, 0, &loan), SHMPS_E_NO_SPACE);
        assert_ok(message_publish(small, 1, 1, 100, 0));
        assert_ok(shmps_take(sub, &s, 0));
        assert_true(sample_is(&s, 1, 1));
        assert_ok(shmps_release(sub, &s));
    }
    assert_result(shmps_loan(small, SHMPS_MESSAGE_BYTES_MAX + 1, 0, &loan), SHMPS_E_SIZE);
    shmps_close(bus);
}

/* One that can look at some only must not see one of two cameras only. */
static void test_each_publisher_has_its_turn(void **state) {
    static const size_t sizes[] = { 10000, MESSAGE_BYTES_MIN };
    (void)state;
    struct shmps *bus = connected();
    for (int k = 0; k < 2; k++) {
        struct shmps_subscriber *sub = subscriber_on(bus, "camera/+", SHMPS_LOSSY);
        struct shmps_publisher *pubs[] = { publisher_on(bus, "camera/left", 4, sizes[k]),
                                           publisher_on(bus, "camera/right", 4, sizes[k]) };
        uint32_t shown[2] = { 0 };
        for (uint64_t i = 0; i < 100; i++) {
            for (uint32_t c = 0; c < 2; c++)
                assert_ok(message_publish(pubs[c], c, i, sizes[k], 0));
            if (i % 10 != 9)
                continue;
            struct shmps_sample s;
            assert_ok(shmps_take(sub, &s, 0));
            shown[((const struct message *)s.data)->publisher]++;
            assert_ok(shmps_release(sub, &s));
        }
        assert_int_equal(shown[0], 5);
        assert_int_equal(shown[1], 5);
        shmps_subscriber_close(sub);
        shmps_publisher_close(pubs[0]);
        shmps_publisher_close(pubs[1]);
    }
    shmps_close(bus);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_what_is_held_stays_as_it_was),
        WITH_DAEMON(test_held_beyond_the_end_of_its_publisher),
        WITH_DAEMON(test_pins_are_shared_out),
        WITH_DAEMON(test_each_publisher_has_its_turn),
        WITH_DAEMON(test_loans),
        WITH_DAEMON(test_a_publisher_grows),
        WITH_DAEMON(test_a_publisher_grows_and_leaves),
        WITH_DAEMON(test_a_publisher_that_grew_counts_on),
        WITH_DAEMON(test_an_explicit_size_is_kept),
        WITH_DAEMON(test_more_than_there_is_room_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
