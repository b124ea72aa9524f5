/* tests/unit/test_directory.c - layout/directory.h: geometry, what is attached, records under
 * kills and under readers. */
#include "support.h"

#include "base/scope.h"
#include "layout/directory.h"

#include <shmps/error.h>

#include <pthread.h>
#include <sched.h>

static const uint64_t boot[2] = { 1, 2 };

static void assert_told(int result, int code, const char *words) {
    assert_int_equal(result, code);
    if (strstr(shmps_error_detail(), words) == NULL)
        fail_msg("\"%s\" does not tell \"%s\"", shmps_error_detail(), words);
}

/* A directory of 4 topics, 5 rings, 6 subscriptions, 3 pages and 2 errors. */
static struct directory new_directory(void) {
    struct directory_geometry g;
    struct directory d;
    directory_geometry_make(&g, 4, 5, 6, 3, 2);
    struct directory_header *header = aligned_alloc(4096, g.bytes);
    assert_non_null(header);
    memset(header, 0, g.bytes);
    identity_format(&header->identity, 1, g.bytes, 99, 0, boot, 3, 4, 0);
    directory_format(header, &g, "default");
    identity_publish(&header->identity, MAGIC_DIRECTORY);
    assert_int_equal(directory_attach(&d, header, g.bytes), 0);
    return d;
}

static int attach_again(const struct directory *d) {
    struct directory again = { 0 };
    int r = directory_attach(&again, d->header, d->geometry.bytes);
    assert_int_equal(again.header != NULL, r == 0); /* outputs only on success */
    return r;
}

/* ---- geometry and attaching */

static void records_lie_behind_each_other_on_lines_of_their_own(void **state) {
    (void)state;
    struct directory_geometry g;
    directory_geometry_make(&g, 4, 5, 6, 3, 2);
    assert_int_equal(g.topics_offset, sizeof(struct directory_header));
    assert_int_equal(g.rings_offset, g.topics_offset + 4 * sizeof(struct topic_record));
    assert_int_equal(g.subscriptions_offset, g.rings_offset + 5 * sizeof(struct ring_record));
    assert_int_equal(g.pages_offset,
                     g.subscriptions_offset + 6 * sizeof(struct subscription_record));
    assert_int_equal(g.errors_offset, g.pages_offset + 3 * sizeof(struct roster_page));
    uint64_t end = g.errors_offset + 2 * sizeof(struct error_record);
    assert_true(g.bytes >= end && g.bytes < end + 4096 && g.bytes % 4096 == 0);
    const uint64_t offsets[] = { g.topics_offset, g.rings_offset, g.subscriptions_offset,
                                 g.pages_offset, g.errors_offset };
    for (size_t i = 0; i < ARRAY_LENGTH(offsets); i++)
        assert_int_equal(offsets[i] % CACHE_LINE, 0);
}

static void the_largest_counts_do_not_overflow(void **state) {
    (void)state;
    struct directory_geometry g;
    directory_geometry_make(&g, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX);
    uint64_t each = sizeof(struct topic_record) + sizeof(struct ring_record) +
                    sizeof(struct subscription_record) + sizeof(struct roster_page) +
                    sizeof(struct error_record);
    assert_true(g.bytes >= UINT32_MAX * each);
    assert_true(g.bytes < (UINT32_MAX + UINT64_C(1)) * each + 8192);
}

static void a_new_directory_is_empty(void **state) {
    (void)state;
    struct directory d = new_directory();
    assert_string_equal(d.header->instance, "default");
    /* relaxed: one thread */
    assert_int_equal(atomic_load_relaxed(&d.header->generation), 1);
    assert_int_equal(atomic_load_relaxed(&d.header->epoch), 0);
    assert_int_equal(atomic_load_relaxed(&d.header->next_serial), 1);
    assert_ptr_equal(directory_generation(&d), &d.header->generation);
    for (uint32_t i = 0; i < 4; i++) {
        struct topic_info info;
        char name[TOPIC_NAME_BYTES];
        assert_true(directory_topic(&d, i, &info, name));
        assert_int_equal(info.live, 0);
        assert_string_equal(name, "");
        assert_ptr_equal(directory_topic_generation(&d, i), &d.topics[i].header.generation);
    }
    for (uint32_t i = 0; i < 5; i++) {
        struct ring_info info;
        assert_true(directory_ring(&d, i, &info));
        assert_int_equal(info.state, RING_FREE);
    }
    for (uint32_t i = 0; i < 6; i++) {
        struct subscription_info info;
        assert_true(directory_subscription(&d, i, &info, NULL));
        assert_int_equal(info.live, 0);
    }
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(atomic_load_relaxed(&d.pages[i].topic), NO_INDEX);
        assert_int_equal(atomic_load_relaxed(&d.pages[i].next), NO_INDEX);
        for (uint32_t k = 0; k < READERS_ENTRIES; k++)
            assert_int_equal(atomic_load_relaxed(&d.pages[i].cells[k]), 0);
    }
    assert_int_equal(directory_topic_find(&d, "a"), NO_INDEX);
    assert_int_equal(directory_topic_find(&d, ""), NO_INDEX); /* free ones have no name */
    free(d.header);
}

static void indices_out_of_range_read_as_free(void **state) {
    (void)state;
    struct directory d = new_directory();
    const uint32_t beyond[] = { 6, 7, NO_INDEX - 1, NO_INDEX };
    for (size_t i = 0; i < ARRAY_LENGTH(beyond); i++) {
        struct topic_info topic = { .live = 1 };
        struct ring_info ring = { .state = RING_LIVE };
        struct subscription_info subscription = { .live = 1 };
        struct error_info error = { .count = 1 };
        char text[4][TOPIC_NAME_BYTES] = { "x", "x", "x" };
        assert_false(directory_topic(&d, beyond[i], &topic, text[0]));
        assert_false(directory_ring(&d, beyond[i], &ring));
        assert_false(directory_subscription(&d, beyond[i], &subscription, text[1]));
        assert_false(directory_error(&d, beyond[i], &error, text[2]));
        assert_int_equal(topic.live + ring.state + subscription.live + error.count, 0);
        for (int k = 0; k < 3; k++)
            assert_string_equal(text[k], "");
    }
    struct topic_info info;
    assert_true(directory_topic(&d, 3, &info, NULL)); /* the last, and one beyond it */
    assert_false(directory_topic(&d, 4, &info, NULL));
    struct ring_info ring;
    assert_true(directory_ring(&d, 4, &ring));
    assert_false(directory_ring(&d, 5, &ring));
    struct subscription_info subscription;
    assert_true(directory_subscription(&d, 5, &subscription, NULL));
    assert_false(directory_subscription(&d, 6, &subscription, NULL));
    struct error_info error;
    assert_true(directory_error(&d, 1, &error, NULL));
    assert_false(directory_error(&d, 2, &error, NULL));
    free(d.header);
}

static void a_damaged_geometry_is_refused(void **state) {
    (void)state;
    struct directory d = new_directory();
    const struct directory_geometry good = d.header->geometry;
    uint32_t words[sizeof(good) / 4];
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        const uint32_t values[] = { UINT32_MAX, UINT32_C(1) << 31, 4096, 77 };
        for (size_t k = 0; k < ARRAY_LENGTH(values); k++) {
            memcpy(words, &good, sizeof(good));
            words[i] ^= values[k]; /* each word of it, the reserved one too */
            memcpy(&d.header->geometry, words, sizeof(good));
            assert_told(attach_again(&d), SHMPS_E_CORRUPT, "geometry");
        }
    }
    /* Right in itself, but of another size than the segment. */
    directory_geometry_make(&d.header->geometry, 40, 50, 60, 30, 20);
    assert_told(attach_again(&d), SHMPS_E_CORRUPT, "geometry");
    d.header->geometry = good;
    assert_int_equal(attach_again(&d), 0);
    free(d.header);
}

static void what_is_no_directory_is_not_attached(void **state) {
    (void)state;
    struct directory d = new_directory(), again;
    uint64_t bytes = d.geometry.bytes;
    assert_int_equal(directory_attach(&again, d.header, bytes - 4096), SHMPS_E_CORRUPT);
    assert_int_equal(directory_attach(&again, d.header, 0), SHMPS_E_CORRUPT);
    d.header->identity.bytes = 128; /* a good identity, and nothing behind it */
    assert_told(directory_attach(&again, d.header, 128), SHMPS_E_CORRUPT, "no room");
    d.header->identity.bytes = bytes;
    identity_publish(&d.header->identity, MAGIC_RING);
    assert_int_equal(attach_again(&d), SHMPS_E_CORRUPT);
    identity_publish(&d.header->identity, MAGIC_DIRECTORY);
    d.header->identity.incompat = 1;
    assert_int_equal(attach_again(&d), SHMPS_E_VERSION);
    d.header->identity.incompat = 0;

    const char *bad[] = { "", "a/b", "a.b", "\xff" };
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        snprintf(d.header->instance, sizeof(d.header->instance), "%s", bad[i]);
        assert_told(attach_again(&d), SHMPS_E_CORRUPT, "names no instance");
    }
    memset(d.header->instance, 'x', sizeof(d.header->instance)); /* no end */
    assert_told(attach_again(&d), SHMPS_E_CORRUPT, "names no instance");
    d.header->instance[INSTANCE_BYTES - 1] = '\0';
    assert_int_equal(attach_again(&d), 0);
    free(d.header);
}

static void an_instance_name_of_any_length_is_kept_or_cut(void **state) {
    (void)state;
    struct directory d = new_directory();
    directory_format(d.header, &d.geometry, "abcdefghijklmnopqrstuvwxyz012345");
    assert_string_equal(d.header->instance, "abcdefghijklmnopqrstuvwxyz012345");
    assert_int_equal(attach_again(&d), 0);
    directory_format(d.header, &d.geometry, "abcdefghijklmnopqrstuvwxyz0123456789");
    assert_string_equal(d.header->instance, "abcdefghijklmnopqrstuvwxyz012345");
    free(d.header);
}

/* ---- records */

static void what_is_written_is_read(void **state) {
    (void)state;
    struct directory d = new_directory();
    char text[TOPIC_NAME_BYTES];

    struct topic_info t = { .live = 1, .first_ring = 2, .first_page = NO_INDEX, .refused = 7 }, t2;
    directory_topic_write(&d, 3, &t, "a/b");
    assert_true(directory_topic(&d, 3, &t2, text));
    assert_memory_equal(&t, &t2, sizeof(t));
    assert_string_equal(text, "a/b");

    struct ring_info r = { .state = RING_LIVE, .serial = 9, .owner.command = "me" }, r2;
    r.retired_ns = 1;
    r.reserved[1] = 5;
    directory_ring_write(&d, 4, &r);
    assert_true(directory_ring(&d, 4, &r2));
    assert_memory_equal(&r, &r2, sizeof(r));

    struct subscription_info s = { .live = 1, .serial = 8, .reserved = 3 }, s2;
    directory_subscription_write(&d, 5, &s, "a/#");
    assert_true(directory_subscription(&d, 5, &s2, text));
    assert_memory_equal(&s, &s2, sizeof(s));
    assert_string_equal(text, "a/#");

    struct error_info e = { .count = 3, .code = SHMPS_E_LIMIT, .last_ns = 4 }, e2;
    directory_error_write(&d, 1, &e, "too many");
    assert_true(directory_error(&d, 1, &e2, text));
    assert_memory_equal(&e, &e2, sizeof(e));
    assert_string_equal(text, "too many");

    /* and nothing beside it */
    assert_true(directory_topic(&d, 2, &t2, text) && t2.live == 0);
    assert_true(directory_ring(&d, 3, &r2) && r2.state == RING_FREE);
    assert_true(directory_subscription(&d, 4, &s2, NULL) && s2.live == 0);
    assert_true(directory_error(&d, 0, &e2, NULL) && e2.count == 0);
    assert_int_equal(attach_again(&d), 0);
    free(d.header);
}

static void topics_are_found_by_name_while_they_live(void **state) {
    (void)state;
    struct directory d = new_directory();
    struct topic_info live = { .live = 1 }, gone = { .live = 0 };
    directory_topic_write(&d, 1, &live, "a/b");
    directory_topic_write(&d, 3, &live, "a");
    assert_int_equal(directory_topic_find(&d, "a/b"), 1);
    assert_int_equal(directory_topic_find(&d, "a"), 3);
    assert_int_equal(directory_topic_find(&d, "a/"), NO_INDEX);
    directory_topic_write(&d, 1, &gone, NULL);
    assert_int_equal(directory_topic_find(&d, "a/b"), NO_INDEX);
    directory_topic_write(&d, 0, &live, "a/b"); /* elsewhere */
    assert_int_equal(directory_topic_find(&d, "a/b"), 0);
    free(d.header);
}

static uint64_t version_of(const struct directory *d, uint32_t topic) {
    return atomic_load_relaxed(&d->topics[topic].header.version); /* relaxed: one thread */
}

static void a_change_of_content_is_one_flip(void **state) {
    (void)state;
    struct directory d = new_directory();
    struct topic_info t = { .live = 1 };
    directory_topic_write(&d, 0, &t, "a");
    for (int i = 0; i < 5; i++) {
        uint64_t before = version_of(&d, 0);
        t.serial++;
        directory_topic_write(&d, 0, &t, i % 2 ? NULL : "a");
        assert_int_equal(version_of(&d, 0), before + 1);
        struct topic_info seen;
        char name[TOPIC_NAME_BYTES];
        assert_true(directory_topic(&d, 0, &seen, name));
        assert_int_equal(seen.serial, t.serial);
        assert_string_equal(name, "a");
    }
    free(d.header);
}

static void a_write_killed_anywhere_leaves_the_old_content(void **state) {
    (void)state;
    struct directory d = new_directory();
    struct topic_info old = { .live = 1, .serial = 1 }, seen;
    char name[TOPIC_NAME_BYTES];
    directory_topic_write(&d, 0, &old, "a");
    for (int flips = 0; flips < 2; flips++) {
        /* The idle copy as after any number of words, without the flip. */
        uint64_t version = version_of(&d, 0);
        for (size_t words = 0; words <= sizeof(old) / 8; words++) {
            for (size_t i = 0; i < words; i++) /* relaxed: one thread */
                atomic_store_relaxed(&d.topics[0].copy[(version + 1) & 1][i], UINT64_MAX);
            assert_true(directory_topic(&d, 0, &seen, name));
            assert_memory_equal(&seen, &old, sizeof(old));
            assert_string_equal(name, "a");
        }
        /* Whoever comes after the killed writer goes on from there. */
        old.serial++;
        directory_topic_write(&d, 0, &old, NULL);
        assert_true(directory_topic(&d, 0, &seen, name));
        assert_memory_equal(&seen, &old, sizeof(old));
    }
    free(d.header);
}

static void texts_are_cut_ended_and_replaced_as_a_whole(void **state) {
    (void)state;
    struct directory d = new_directory();
    struct error_info e = { .count = 1 }, seen;
    char longer[400], text[TOPIC_NAME_BYTES];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    directory_error_write(&d, 0, &e, longer);
    assert_true(directory_error(&d, 0, &seen, text));
    assert_int_equal(strlen(text), TOPIC_NAME_BYTES - 1);
    directory_error_write(&d, 0, &e, "y");
    assert_true(directory_error(&d, 0, &seen, text));
    assert_string_equal(text, "y");
    assert_int_equal(seen.count, 1);
    for (size_t i = 0; i < TOPIC_NAME_BYTES / 8; i++) /* garbage: no end of the string */
        atomic_store_relaxed(&d.errors[0].text[i], UINT64_MAX); /* relaxed: one thread */
    assert_true(directory_error(&d, 0, &seen, text));
    assert_int_equal(strlen(text), TOPIC_NAME_BYTES - 1);
    free(d.header);
}

static void another_text_frees_the_record_in_between(void **state) {
    (void)state;
    struct directory d = new_directory();
    struct error_info e = { .count = 5 }, seen;
    directory_error_write(&d, 0, &e, "one");
    uint64_t before = atomic_load_relaxed(&d.errors[0].header.version); /* relaxed: one thread */
    e.count = 1;
    directory_error_write(&d, 0, &e, "two");
    assert_int_equal(atomic_load_relaxed(&d.errors[0].header.version), before + 2);
    /* What a reader saw in the middle: the flip before the last. */
    atomic_store_relaxed(&d.errors[0].header.version, before + 1);
    assert_true(directory_error(&d, 0, &seen, NULL));
    assert_int_equal(seen.count, 0);
    free(d.header);
}

/* ---- records that are written while they are read */

#define MOVES 50
#define RESTLESS 400000
#define PATIENCE 100000000

/* Read at least RESTLESS times, and on until the record has moved MOVES times. Now and then the
 * writer gets the processor, if there is only one, or a checker that runs one thread at a time. */
static bool read_on(int reads, unsigned moves) {
    if (reads % 4096 == 0)
        sched_yield();
    return reads < RESTLESS || (moves < MOVES && reads < PATIENCE);
}

struct race {
    struct directory d;
    atomic_u32 stop;
};

/* All words of the content are the same number; the text is of the same number, or the record is
 * free. */
static void fill(struct ring_info *info, uint64_t n) {
    uint64_t words[sizeof(*info) / 8];
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++)
        words[i] = n;
    memcpy(info, words, sizeof(words));
}

static void *write_rings(void *argument) {
    struct race *race = argument;
    struct ring_info info;
    for (uint64_t n = 1; atomic_load_relaxed(&race->stop) == 0; n++) { /* relaxed: only a flag */
        fill(&info, n);
        directory_ring_write(&race->d, 0, &info);
    }
    return NULL;
}

static void a_reader_never_sees_a_torn_record(void **state) {
    (void)state;
    struct race race = { .d = new_directory() };
    pthread_t writer;
    uint64_t words[sizeof(struct ring_info) / 8], last = 0;
    struct ring_info info;
    unsigned torn = 0, back = 0, moves = 0;
    assert_int_equal(pthread_create(&writer, NULL, write_rings, &race), 0);
    for (int i = 0; read_on(i, moves); i++) {
        if (!directory_ring(&race.d, 0, &info))
            continue;
        memcpy(words, &info, sizeof(words));
        for (size_t k = 1; k < ARRAY_LENGTH(words); k++)
            torn += words[k] != words[0];
        back += words[0] < last;
        moves += words[0] != last;
        last = words[0];
    }
    atomic_store_relaxed(&race.stop, 1); /* relaxed: only a flag */
    pthread_join(writer, NULL);
    free(race.d.header);
    assert_int_equal(torn, 0);
    assert_int_equal(back, 0);
    assert_true(moves >= MOVES); /* else the two never met */
}

static void *write_topics(void *argument) {
    struct race *race = argument;
    struct topic_info info = { 0 };
    char name[TOPIC_NAME_BYTES] = "";
    for (uint64_t n = 1; atomic_load_relaxed(&race->stop) == 0; n++) { /* relaxed: only a flag */
        info.live = n > 1;
        info.serial = n - 1;
        directory_topic_write(&race->d, 0, &info, name);
        /* What takes long while the topic lives: there a lone processor is mostly taken away. */
        snprintf(name, sizeof(name), "%0200llu", (unsigned long long)n);
        info.live = 0;
        directory_topic_write(&race->d, 0, &info, NULL);
    }
    return NULL;
}

static void a_reader_never_sees_the_name_of_another_topic(void **state) {
    (void)state;
    struct race race = { .d = new_directory() };
    pthread_t writer;
    unsigned wrong = 0, moves = 0;
    uint64_t last = 0;
    assert_int_equal(pthread_create(&writer, NULL, write_topics, &race), 0);
    for (int i = 0; read_on(i, moves); i++) {
        struct topic_info info;
        char name[TOPIC_NAME_BYTES];
        if (!directory_topic(&race.d, 0, &info, name) || info.live == 0)
            continue;
        wrong += strtoull(name, NULL, 10) != info.serial || strlen(name) != 200;
        moves += info.serial != last;
        last = info.serial;
    }
    atomic_store_relaxed(&race.stop, 1); /* relaxed: only a flag */
    pthread_join(writer, NULL);
    free(race.d.header);
    assert_int_equal(wrong, 0);
    assert_true(moves >= MOVES);
}

/* ---- cells */

static void cells_keep_what_they_are_made_of(void **state) {
    (void)state;
    const enum policy policies[] = { POLICY_LOSSY, POLICY_LATEST, POLICY_RELIABLE, POLICY_SPAN };
    const uint32_t pins[] = { 0, 1, 7, READER_PINS_MAX };
    const uint32_t subscriptions[] = { 0, 1, 4095, NO_INDEX };
    for (size_t i = 0; i < 4 * 4 * 4; i++) {
        enum policy policy = policies[i / 16];
        uint64_t cell = cell_make(policy, pins[i / 4 % 4], subscriptions[i % 4]);
        assert_int_equal(cell_policy(cell), policy);
        assert_int_equal(cell_pins(cell), pins[i / 4 % 4]);
        assert_int_equal(cell_subscription(cell), subscriptions[i % 4]);
        assert_true(cell != 0); /* 0 is free */
    }
}

int main(void) {
    alarm(50);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_lie_behind_each_other_on_lines_of_their_own),
        cmocka_unit_test(the_largest_counts_do_not_overflow),
        cmocka_unit_test(a_new_directory_is_empty),
        cmocka_unit_test(indices_out_of_range_read_as_free),
        cmocka_unit_test(a_damaged_geometry_is_refused),
        cmocka_unit_test(what_is_no_directory_is_not_attached),
        cmocka_unit_test(an_instance_name_of_any_length_is_kept_or_cut),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(topics_are_found_by_name_while_they_live),
        cmocka_unit_test(a_change_of_content_is_one_flip),
        cmocka_unit_test(a_write_killed_anywhere_leaves_the_old_content),
        cmocka_unit_test(texts_are_cut_ended_and_replaced_as_a_whole),
        cmocka_unit_test(another_text_frees_the_record_in_between),
        cmocka_unit_test(a_reader_never_sees_a_torn_record),
        cmocka_unit_test(a_reader_never_sees_the_name_of_another_topic),
        cmocka_unit_test(cells_keep_what_they_are_made_of),
    };
    return cmocka_run_group_tests_name("directory", tests, NULL, NULL);
}
