/* tests/unit/test_identity.c - layout/identity.h: which segments are believed. */
#include "support.h"

#include "base/scope.h"
#include "layout/identity.h"

#include <shmps/error.h>

#define BYTES UINT64_C(8192)

static const uint64_t boot[2] = { 11, 22 };

static void assert_told(int result, int code, const char *words) {
    assert_int_equal(result, code);
    if (strstr(shmps_error_detail(), words) == NULL)
        fail_msg("\"%s\" does not tell \"%s\"", shmps_error_detail(), words);
}

/* A good one. */
static struct identity made(void) {
    struct identity id;
    memset(&id, 0, sizeof(id));
    identity_format(&id, 1, BYTES, 5, 6, boot, 7, 8, 9);
    identity_publish(&id, MAGIC_RING);
    return id;
}

static void magics_spell_what_they_are(void **state) {
    (void)state;
    const uint64_t magics[] = { MAGIC_DIRECTORY, MAGIC_RING, MAGIC_READERS };
    const char *const names[] = { "shmpsDIR", "shmpsRNG", "shmpsRDR" };
    for (size_t i = 0; i < ARRAY_LENGTH(magics); i++)
        for (unsigned k = 0; k < 8; k++) /* little-endian: as od -c shows it */
            assert_int_equal(magics[i] >> (8 * k) & 0xff, names[i][k]);
}

static void a_formatted_segment_tells_all_about_itself(void **state) {
    (void)state;
    struct identity id = made();
    assert_int_equal(identity_check(&id, MAGIC_RING, BYTES), 0);
    assert_int_equal(id.version, LAYOUT_VERSION);
    assert_int_equal(id.kind, 1);
    assert_int_equal(id.fingerprint, layout_fingerprint());
    assert_int_equal(id.bytes, BYTES);
    assert_int_equal(id.serial, 5);
    assert_int_equal(id.directory, 6);
    assert_memory_equal(id.boot_id, boot, sizeof(boot));
    assert_int_equal(id.born_ns, 7);
    assert_int_equal(id.uid, 8);
    assert_int_equal(id.page, 9);
}

static void nothing_is_believed_before_the_magic_or_after_retirement(void **state) {
    (void)state;
    struct identity id;
    memset(&id, 0, sizeof(id));
    identity_format(&id, 1, BYTES, 5, 6, boot, 7, 8, 9);
    assert_told(identity_check(&id, MAGIC_RING, BYTES), SHMPS_E_CORRUPT, "not finished");
    identity_publish(&id, MAGIC_RING);
    assert_int_equal(identity_check(&id, MAGIC_RING, BYTES), 0);
    identity_retire(&id);
    assert_told(identity_check(&id, MAGIC_RING, BYTES), SHMPS_E_CORRUPT, "retired");
}

static void one_kind_of_segment_is_no_other(void **state) {
    (void)state;
    struct identity id = made();
    assert_told(identity_check(&id, MAGIC_READERS, BYTES), SHMPS_E_CORRUPT, "begins with");
    assert_told(identity_check(&id, MAGIC_DIRECTORY, BYTES), SHMPS_E_CORRUPT, "begins with");
}

static void an_older_or_newer_version_is_refused_naming_both(void **state) {
    (void)state;
    struct identity id = made();
    id.version = LAYOUT_VERSION + 1;
    assert_told(identity_check(&id, MAGIC_RING, BYTES), SHMPS_E_VERSION,
                "layout version 2, this program knows version 1");
    assert_told(SHMPS_E_VERSION, SHMPS_E_VERSION, "newer");
    id.version = LAYOUT_VERSION - 1;
    assert_told(identity_check(&id, MAGIC_RING, BYTES), SHMPS_E_VERSION,
                "layout version 0, this program knows version 1");
    /* What another version has elsewhere is no evidence of damage. */
    id.bytes = 1;
    id.reserved[0] = 1;
    id.fingerprint = 1;
    assert_int_equal(identity_check(&id, MAGIC_RING, BYTES), SHMPS_E_VERSION);
}

static void another_build_is_refused_naming_both(void **state) {
    (void)state;
    struct identity id = made();
    char own[32];
    id.fingerprint = 0xabcdef0123456789;
    assert_told(identity_check(&id, MAGIC_RING, BYTES), SHMPS_E_VERSION, "abcdef0123456789");
    snprintf(own, sizeof(own), "%016llx", (unsigned long long)layout_fingerprint());
    assert_told(SHMPS_E_VERSION, SHMPS_E_VERSION, own);
}

static void an_unknown_incompat_bit_refuses_and_a_compat_bit_does_not(void **state) {
    (void)state;
    for (unsigned bit = 0; bit < 32; bit++) {
        struct identity id = made();
        id.compat = UINT32_C(1) << bit;
        assert_int_equal(identity_check(&id, MAGIC_RING, BYTES), 0);
        id.incompat = UINT32_C(1) << bit;
        assert_told(identity_check(&id, MAGIC_RING, BYTES), SHMPS_E_VERSION, "features");
    }
}

static void a_size_that_is_not_the_segments_is_refused(void **state) {
    (void)state;
    struct identity id = made();
    assert_told(identity_check(&id, MAGIC_RING, BYTES - 1), SHMPS_E_CORRUPT, "truncated");
    assert_told(identity_check(&id, MAGIC_RING, BYTES + 4096), SHMPS_E_CORRUPT, "8192");
    id.bytes = UINT64_MAX;
    assert_int_equal(identity_check(&id, MAGIC_RING, BYTES), SHMPS_E_CORRUPT);
    id.bytes = 0;
    assert_int_equal(identity_check(&id, MAGIC_RING, BYTES), SHMPS_E_CORRUPT);
}

static void a_segment_too_small_for_an_identity_is_not_even_looked_at(void **state) {
    (void)state;
    /* The last byte of a page that nothing follows: to read on would end the test. */
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(mprotect(pages + 4096, 4096, PROT_NONE), 0);
    const size_t sizes[] = { 0, 8, 64, 120 };
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        const void *at = pages + 4096 - sizes[i];
        assert_told(identity_check(at, MAGIC_RING, sizes[i]), SHMPS_E_CORRUPT, "truncated");
    }
    munmap(pages, 8192);
}

static void reserved_words_must_be_zero(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(((struct identity *)0)->reserved); i++) {
        struct identity id = made();
        id.reserved[i] = UINT64_C(1) << 63;
        assert_told(identity_check(&id, MAGIC_RING, BYTES), SHMPS_E_CORRUPT, "reserved");
    }
}

static void garbage_is_refused(void **state) {
    (void)state;
    uint64_t words[sizeof(struct identity) / 8], x = 88172645463325252;
    for (int round = 0; round < 10000; round++) {
        for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            words[i] = x;
        }
        struct identity id;
        memcpy(&id, words, sizeof(id));
        assert_int_equal(identity_check(&id, MAGIC_RING, BYTES), SHMPS_E_CORRUPT);
        identity_publish(&id, MAGIC_RING); /* garbage behind a magic */
        assert_int_equal(identity_check(&id, MAGIC_RING, BYTES), SHMPS_E_VERSION);
    }
}

static void the_fingerprint_is_always_the_same(void **state) {
    (void)state;
    assert_int_equal(layout_fingerprint(), layout_fingerprint());
    assert_true(layout_fingerprint() != 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(magics_spell_what_they_are),
        cmocka_unit_test(a_formatted_segment_tells_all_about_itself),
        cmocka_unit_test(nothing_is_believed_before_the_magic_or_after_retirement),
        cmocka_unit_test(one_kind_of_segment_is_no_other),
        cmocka_unit_test(an_older_or_newer_version_is_refused_naming_both),
        cmocka_unit_test(another_build_is_refused_naming_both),
        cmocka_unit_test(an_unknown_incompat_bit_refuses_and_a_compat_bit_does_not),
        cmocka_unit_test(a_size_that_is_not_the_segments_is_refused),
        cmocka_unit_test(a_segment_too_small_for_an_identity_is_not_even_looked_at),
        cmocka_unit_test(reserved_words_must_be_zero),
        cmocka_unit_test(garbage_is_refused),
        cmocka_unit_test(the_fingerprint_is_always_the_same),
    };
    return cmocka_run_group_tests_name("identity", tests, NULL, NULL);
}
