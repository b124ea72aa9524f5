/* tests/unit/test_topic_name.c - layout/topic_name.h: the rules of shmps.h, at every edge. */
#include "support.h"

#include "base/scope.h"
#include "layout/topic_name.h"

#include <shmps/error.h>

static void assert_refused(int result, const char *rule) {
    assert_int_equal(result, SHMPS_E_TOPIC);
    if (strstr(shmps_error_detail(), rule) == NULL)
        fail_msg("\"%s\" does not tell \"%s\"", shmps_error_detail(), rule);
}

/* Both as a topic and as a filter. */
static void assert_both(const char *name, bool good, const char *rule) {
    if (good) {
        if (topic_name_check(name) != 0 || topic_filter_check(name) != 0)
            fail_msg("\"%s\" is refused: %s", name, shmps_error_detail());
        return;
    }
    assert_refused(topic_name_check(name), rule);
    assert_refused(topic_filter_check(name), rule);
}

static void ordinary_names_are_topics_and_filters(void **state) {
    (void)state;
    const char *names[] = { "a",       "a/b",   "camera/front left/raw", "$SYS/up", "a.b-c_d",
                            "\x7e",    " ",     "\"quoted\"",            "\\",      "*",
                            "a/$b/c",  "%s%n" };
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        assert_both(names[i], true, NULL);
}

static void nothing_is_no_name(void **state) {
    (void)state;
    assert_both(NULL, false, "NULL");
    assert_both("", false, "empty");
}

static void empty_levels_are_refused(void **state) {
    (void)state;
    const char *names[] = { "/", "/a", "a/", "a//b", "a/b//", "//" };
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        assert_both(names[i], false, "is empty");
    assert_refused(topic_filter_check("#/"), "last level");
    assert_refused(topic_filter_check("+/"), "is empty");
    assert_refused(topic_filter_check("/#"), "is empty");
}

static void control_characters_are_refused_wherever_they_are(void **state) {
    (void)state;
    for (int c = 1; c < 0x80; c++) {
        char name[] = { 'a', (char)c, 'b', '\0' };
        if (c == '+' || c == '#')
            continue;
        assert_both(name, c >= 0x20 && c != 0x7f, "control character");
    }
    assert_both("\x01", false, "control character");
    assert_both("a/b\n", false, "byte 3");
    assert_both("\xc2\x80", true, NULL); /* U+0080 is beyond the rule */
}

static void utf8_of_every_length_is_accepted_at_its_edges(void **state) {
    (void)state;
    const char *names[] = {
        "\xc2\x80",         /* U+0080, the first of two bytes */
        "\xdf\xbf",         /* U+07FF, the last */
        "\xe0\xa0\x80",     /* U+0800 */
        "\xed\x9f\xbf",     /* U+D7FF, before the surrogates */
        "\xee\x80\x80",     /* U+E000, after them */
        "\xef\xbf\xbf",     /* U+FFFF */
        "\xf0\x90\x80\x80", /* U+10000 */
        "\xf3\xbf\xbf\xbf", /* U+FFFFF */
        "\xf4\x8f\xbf\xbf", /* U+10FFFF */
        "t\xc3\xbcr/\xe2\x82\xac/\xf0\x9f\x9a\x80",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        assert_both(names[i], true, NULL);
}

static void what_is_not_utf8_is_refused(void **state) {
    (void)state;
    const char *names[] = {
        "\x80",             /* a continuation alone */
        "\xbf",
        "\xc0\x80",         /* U+0000, overlong */
        "\xc0\xaf",         /* '/', overlong */
        "\xc1\xbf",         /* U+007F, overlong */
        "\xe0\x80\xaf",     /* '/', overlong in three */
        "\xe0\x9f\xbf",     /* U+07FF, overlong */
        "\xf0\x80\x80\xaf", /* '/', overlong in four */
        "\xf0\x8f\xbf\xbf", /* U+FFFF, overlong */
        "\xed\xa0\x80",     /* U+D800, the first surrogate */
        "\xed\xbf\xbf",     /* U+DFFF, the last */
        "\xf4\x90\x80\x80", /* U+110000 */
        "\xf5\x80\x80\x80",
        "\xf8\x88\x80\x80\x80",
        "\xfe",
        "\xff",
        "\xc2",             /* truncated after 1 of 2 */
        "\xe2\x82",         /* after 2 of 3 */
        "\xe2",
        "\xf0\x9f\x9a",     /* after 3 of 4 */
        "\xf0\x9f",
        "\xf0",
        "\xe2\x82/",        /* interrupted by what is fine alone */
        "\xe2/\x82",
        "\xf0\x9f\x9a/x",
        "\xc2x",
        "a\xffz",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        assert_both(names[i], false, "not valid UTF-8");
    assert_both("ab\xff", false, "byte 2 (0xff)");
}

/* Every string of one to three bytes of the interesting kinds gives the verdict of a decoder that
 * computes code points instead of comparing ranges. */
static bool decodes(const unsigned char *s, size_t n) {
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    for (size_t i = 0; i < n;) {
        size_t length = s[i] < 0x80 ? 1 : s[i] >> 5 == 6 ? 2 : s[i] >> 4 == 14 ? 3
                        : s[i] >> 3 == 30 ? 4 : 0;
        if (length == 0 || i + length > n)
            return false;
        uint32_t point = length == 1 ? s[i] : s[i] & (0x7fu >> length);
        for (size_t k = 1; k < length; k++) {
            if (s[i + k] >> 6 != 2)
                return false;
            point = point << 6 | (s[i + k] & 0x3f);
        }
        if (point < least[length] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
            return false;
        i += length;
    }
    return true;
}

static void every_sequence_of_bytes_agrees_with_a_decoder(void **state) {
    (void)state;
    const unsigned char tails[] = { 'a', 0x7e, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff };
    size_t n = ARRAY_LENGTH(tails), good = 0;
    for (unsigned first = 0x80; first <= 0xff; first++) {
        for (size_t i = 0; i < n * n * n; i++) {
            unsigned char s[5] = { (unsigned char)first, tails[i % n], tails[i / n % n],
                                   tails[i / n / n], '\0' };
            for (size_t length = 1; length <= 4; length++) {
                unsigned char cut[5] = { 0 };
                memcpy(cut, s, length);
                bool valid = topic_name_check((const char *)cut) == 0;
                if (valid != decodes(cut, length))
                    fail_msg("%02x %02x %02x %02x (%zu)", cut[0], cut[1], cut[2], cut[3], length);
                good += valid;
            }
        }
    }
    assert_true(good > 0);
}

static void a_name_has_at_most_255_bytes(void **state) {
    (void)state;
    char name[TOPIC_NAME_BYTES + 2];
    memset(name, 'x', sizeof(name));
    name[1] = '\0';
    assert_both(name, true, NULL);
    name[1] = 'x';
    name[255] = '\0';
    assert_both(name, true, NULL);
    name[255] = 'x';
    name[256] = '\0';
    assert_both(name, false, "255 bytes");
    /* Bytes, not characters: 127 times two are 254. */
    for (int i = 0; i < 127; i++)
        memcpy(name + 2 * i, "\xc3\xbc", 2);
    memcpy(name + 254, "a", 2);
    assert_both(name, true, NULL);
    memcpy(name + 254, "\xc3\xbc", 3);
    assert_both(name, false, "255 bytes");
}

/* n levels, each `level`. */
static const char *levels(int n, const char *level) {
    static char name[512];
    size_t used = 0;
    for (int i = 0; i < n; i++)
        used += (size_t)snprintf(name + used, sizeof(name) - used, "%s%s", i > 0 ? "/" : "",
                                 level);
    return name;
}

static void a_name_has_at_most_32_levels(void **state) {
    (void)state;
    assert_both(levels(31, "a"), true, NULL);
    assert_both(levels(32, "a"), true, NULL);
    assert_both(levels(33, "a"), false, "32 levels");
    assert_int_equal(topic_filter_check(levels(32, "+")), 0);
    assert_refused(topic_filter_check(levels(33, "+")), "32 levels");
}

static void wildcards_are_no_topic(void **state) {
    (void)state;
    const char *names[] = { "+", "#", "a/+", "a/#", "+/a", "a+", "a#b", "a/b+/c" };
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        assert_refused(topic_name_check(names[i]), "filters only");
}

static void a_wildcard_is_a_whole_level_and_hash_the_last(void **state) {
    (void)state;
    const char *good[] = { "+", "#", "a/+", "a/#", "+/+", "+/#", "a/+/b/+/#", "$SYS/#", "+/a" };
    for (size_t i = 0; i < ARRAY_LENGTH(good); i++)
        assert_int_equal(topic_filter_check(good[i]), 0);
    const char *parts[] = { "a+", "+a", "a#", "#a", "a/b#", "a/+b/c", "++", "##", "+#", "a/b+c" };
    for (size_t i = 0; i < ARRAY_LENGTH(parts); i++)
        assert_refused(topic_filter_check(parts[i]), "whole level");
    const char *not_last[] = { "#/a", "a/#/b", "#/#", "a/#/+" };
    for (size_t i = 0; i < ARRAY_LENGTH(not_last); i++)
        assert_refused(topic_filter_check(not_last[i]), "last level");
}

static void exact_is_what_has_no_wildcard(void **state) {
    (void)state;
    assert_true(topic_filter_is_exact("a"));
    assert_true(topic_filter_is_exact("$SYS/a b"));
    assert_false(topic_filter_is_exact("+"));
    assert_false(topic_filter_is_exact("a/#"));
    assert_false(topic_filter_is_exact("a/+/b"));
}

/* MQTT 3.1.1, section 4.7, minus its examples with empty levels. */
static void filters_match_as_in_mqtt(void **state) {
    (void)state;
    const struct {
        const char *filter, *topic;
        bool matches;
    } cases[] = {
        { "sport/tennis/player1/#", "sport/tennis/player1", true },
        { "sport/tennis/player1/#", "sport/tennis/player1/ranking", true },
        { "sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true },
        { "sport/tennis/player1/#", "sport/tennis/player12", false },
        { "sport/tennis/player1/#", "sport/tennis", false },
        { "sport/#", "sport", true },
        { "sport/#", "sports", false },
        { "#", "sport", true },
        { "#", "sport/tennis/player1", true },
        { "sport/tennis/+", "sport/tennis/player1", true },
        { "sport/tennis/+", "sport/tennis/player2", true },
        { "sport/tennis/+", "sport/tennis/player1/ranking", false },
        { "sport/tennis/+", "sport/tennis", false },
        { "sport/+", "sport", false },
        { "+", "finance", true },
        { "+", "finance/x", false },
        { "+/+", "finance/x", true },
        { "+/+", "finance", false },
        { "+/tennis/#", "sport/tennis", true },
        { "+/tennis/#", "sport/tennis/a/b", true },
        { "+/tennis/#", "sport/golf", false },
        { "sport/+/player1", "sport/tennis/player1", true },
        { "sport/+/player1", "sport/tennis/x/player1", false },
        { "+/#", "a", true },
        { "+/+/#", "a", false },
        { "a", "a", true },
        { "a", "A", false },
        { "a", "ab", false },
        { "ab", "a", false },
        { "a/b", "a", false },
        { "a", "a/b", false },
        { "a/b", "a/b", true },
        { "a/b/c", "a/b/d", false },
        { "a/+", "a/\xc3\xbc", true },
        { "#", "$SYS", false },
        { "#", "$SYS/up", false },
        { "+", "$SYS", false },
        { "+/up", "$SYS/up", false },
        { "+/#", "$SYS/up", false },
        { "$SYS/#", "$SYS/up", true },
        { "$SYS/#", "$SYS", true },
        { "$SYS/+", "$SYS/up", true },
        { "$SYS/up", "$SYS/up", true },
        { "$SYS/#", "$SYSTEM", false },
        { "a/+", "a/$b", true },
        { "a/#", "a/$b", true },
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        assert_int_equal(topic_filter_check(cases[i].filter), 0);
        assert_int_equal(topic_name_check(cases[i].topic), 0);
        if (topic_filter_matches(cases[i].filter, cases[i].topic) != cases[i].matches)
            fail_msg("%s - %s", cases[i].filter, cases[i].topic);
    }
}

static void the_longest_names_match_too(void **state) {
    (void)state;
    char topic[512];
    snprintf(topic, sizeof(topic), "%s", levels(32, "abcdefg"));
    topic[255] = '\0';
    assert_int_equal(topic_name_check(topic), 0);
    assert_true(topic_filter_matches(topic, topic));
    assert_true(topic_filter_matches(levels(32, "+"), topic));
    assert_false(topic_filter_matches(levels(31, "+"), topic));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordinary_names_are_topics_and_filters),
        cmocka_unit_test(nothing_is_no_name),
        cmocka_unit_test(empty_levels_are_refused),
        cmocka_unit_test(control_characters_are_refused_wherever_they_are),
        cmocka_unit_test(utf8_of_every_length_is_accepted_at_its_edges),
        cmocka_unit_test(what_is_not_utf8_is_refused),
        cmocka_unit_test(every_sequence_of_bytes_agrees_with_a_decoder),
        cmocka_unit_test(a_name_has_at_most_255_bytes),
        cmocka_unit_test(a_name_has_at_most_32_levels),
        cmocka_unit_test(wildcards_are_no_topic),
        cmocka_unit_test(a_wildcard_is_a_whole_level_and_hash_the_last),
        cmocka_unit_test(exact_is_what_has_no_wildcard),
        cmocka_unit_test(filters_match_as_in_mqtt),
        cmocka_unit_test(the_longest_names_match_too),
    };
    return cmocka_run_group_tests_name("topic names", tests, NULL, NULL);
}
