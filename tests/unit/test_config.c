/* tests/unit/test_config.c - the daemon's configuration: its keys, which filter's value holds, and
 * what is refused, with the line. */
#include "pubsubd/config.h"

#include "base/error.h"
#include "base/scope.h"
#include "layout/ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)
#define KIB UINT64_C(1024)

/* ---- */

static struct config *parsed(const char *text) {
    struct config *c = NULL;
    int r = config_parse(text, strlen(text), "f", &c);
    if (r < 0)
        print_error("%s\n", shmps_error_detail());
    assert_int_equal(r, 0);
    return c;
}

static struct topic_policy policy_of(const char *text, const char *topic) {
    struct topic_policy policy;
    struct config *c = parsed(text);
    config_policy(c, topic, &policy);
    config_free(c);
    return policy;
}

static void assert_refused(const char *text, const char *detail) {
    struct config *c = NULL;
    int r = config_parse(text, strlen(text), "f", &c);
    if (r != SHMPS_E_INVALID || strncmp(shmps_error_detail(), detail, strlen(detail)) != 0)
        print_error("%s\n-> %d %s\nnot: %s\n", text, r, shmps_error_detail(), detail);
    assert_int_equal(r, SHMPS_E_INVALID);
    assert_memory_equal(shmps_error_detail(), detail, strlen(detail));
    assert_null(c);
}

/* ---- values */

static void nothing_is_all_defaults(void **state) {
    static const char *const nothing[] = { "", "\n", "# a comment", "/* one\n */ // two", "\r\n" };
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(nothing); i++) {
        struct config *c = parsed(nothing[i]), *defaults = config_new();
        assert_non_null(defaults);
        assert_memory_equal(c, defaults, sizeof(*c));
        assert_int_equal(c->n_topics, 0);
        config_free(defaults);
        config_free(c);
    }
    struct topic_policy p = policy_of("", "a");
    assert_int_equal(p.depth, CONFIG_AUTO);
    assert_int_equal(p.message_bytes, 4096);
    assert_int_equal(p.pins, CONFIG_AUTO);
    assert_int_equal(p.max_depth, RING_DEPTH_MAX);
    assert_int_equal(p.max_message_bytes, RING_BLOCK_BYTES_MAX);
    assert_true(p.max_bytes == CONFIG_UNLIMITED && p.max_publishers == CONFIG_UNLIMITED);
    assert_true(p.max_subscribers == CONFIG_UNLIMITED);
    assert_int_equal(p.history, 0);
    assert_int_equal(p.patience_ns, 0);
}

static void keys_of_the_instance(void **state) {
    (void)state;
    struct config *c = parsed("instance = robot-1\nlog=warning idle_exit = 2min\n"
                              "max_topics = 10\nmax_rings = 65536\nmax_subscriptions = 1\n"
                              "max_memory = 1GiB\nmax_connections = '7'\n");
    assert_string_equal(c->instance, "robot-1");
    assert_int_equal(c->log_level, 4);
    assert_int_equal(c->idle_exit_ns, 120000 * MS);
    assert_int_equal(c->max_topics, 10);
    assert_int_equal(c->max_rings, 65536);
    assert_int_equal(c->max_subscriptions, 1);
    assert_int_equal(c->max_memory, KIB * KIB * KIB);
    assert_int_equal(c->max_connections, 7);
    struct directory_geometry g;
    config_geometry(c, &g);
    assert_int_equal(g.topics, 10);
    assert_int_equal(g.rings, 65536);
    assert_int_equal(g.subscriptions, 1);
    assert_true(g.pages >= 10);
    config_free(c);
    c = parsed("idle_exit = never max_connections = unlimited");
    assert_int_equal(c->idle_exit_ns, 0);
    assert_true(c->max_connections == CONFIG_UNLIMITED);
    config_free(c);
}

static void keys_of_a_topic(void **state) {
    (void)state;
    struct topic_policy p = policy_of(
        "topic \"a\" { depth = 256 message_size = 1000 pins = 3 max_depth = 512\n"
        "max_message_size = 64KiB max_bytes = 3MiB max_publishers = 0 max_subscribers = 5\n"
        "history = 10 patience = 1500ms }", "a");
    assert_int_equal(p.depth, 256);
    assert_int_equal(p.message_bytes, 1000);
    assert_int_equal(p.pins, 3);
    assert_int_equal(p.max_depth, 512);
    assert_int_equal(p.max_message_bytes, 64 * KIB);
    assert_int_equal(p.max_bytes, 3 * KIB * KIB);
    assert_int_equal(p.max_publishers, 0);
    assert_int_equal(p.max_subscribers, 5);
    assert_int_equal(p.history, 10);
    assert_int_equal(p.patience_ns, 1500 * MS);
}

static void units(void **state) {
    (void)state;
    assert_int_equal(policy_of("topic a { patience = 3s }", "a").patience_ns, 3000 * MS);
    assert_int_equal(policy_of("topic a { patience = 0 }", "a").patience_ns, 0);
    assert_int_equal(policy_of("topic a { patience = 0s }", "a").patience_ns, 0);
    assert_int_equal(policy_of("topic a { patience = \"never\" }", "a").patience_ns, 0);
    assert_int_equal(policy_of("topic a { max_bytes = 1TiB }", "a").max_bytes,
                     KIB * KIB * KIB * KIB);
    assert_int_equal(policy_of("topic a { max_message_size = 16GiB }", "a").max_message_bytes,
                     RING_BLOCK_BYTES_MAX);
}

/* ---- which filter's value holds */

static void the_most_specific_filter_decides(void **state) {
    (void)state;
    /* from the least specific to the most, for a/b/c */
    static const char *const filters[] = {
        "#",     "+/#",   "+/+/c", "+/b/#", "+/b/+",   "a/#",
        "a/+/#", "a/+/c", "a/b/#", "a/b/+", "a/b/c/#", "a/b/c",
    };
    const size_t n = ARRAY_LENGTH(filters);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++) {
            char text[200];
            if (i == k)
                continue;
            snprintf(text, sizeof(text), "topic \"%s\" { history = %zu }\n"
                     "topic \"%s\" { history = %zu }", filters[i], i, filters[k], k);
            assert_int_equal(policy_of(text, "a/b/c").history, i > k ? i : k);
        }
}

/* Kinds of levels count, not how their characters sort. */
static void a_name_is_more_specific_than_a_plus(void **state) {
    (void)state;
    static const char text[] = "topic \"a/!\" { history = 1 }\ntopic \"a/+\" { history = 2 }\n"
                               "topic \"a/#\" { history = 3 }\ntopic \" /b\" { history = 4 }\n"
                               "topic \"+/b\" { history = 5 }\n";
    assert_int_equal(policy_of(text, "a/!").history, 1);
    assert_int_equal(policy_of(text, "a/x").history, 2);
    assert_int_equal(policy_of(text, "a").history, 3);
    assert_int_equal(policy_of(text, " /b").history, 4);
    assert_int_equal(policy_of(text, "b/b").history, 5);
}

static void each_key_for_itself(void **state) {
    (void)state;
    static const char text[] = "topic \"a/b\" { history = 1 }\n"
                               "topic \"a/+\" { history = 2 max_publishers = 2 }\n"
                               "topic \"#\"   { history = 3 max_publishers = 3 pins = 3 }\n"
                               "topic \"x\"   { history = 4 max_publishers = 4 pins = 4 }\n";
    struct topic_policy p = policy_of(text, "a/b");
    assert_int_equal(p.history, 1);
    assert_int_equal(p.max_publishers, 2);
    assert_int_equal(p.pins, 3);
    assert_int_equal(p.depth, CONFIG_AUTO);
    assert_int_equal(policy_of(text, "a/c").history, 2);
    assert_int_equal(policy_of(text, "a/c/d").history, 3);
    assert_int_equal(policy_of(text, "$x").history, 0); /* "#" does not match it */
}

static void a_default_beyond_its_limit_is_the_limit(void **state) {
    (void)state;
    static const char text[] = "topic \"#\" { depth = 64 message_size = 1MiB }\n"
                               "topic \"a\" { max_depth = 8 max_message_size = 100 }\n";
    struct topic_policy p = policy_of(text, "a");
    assert_int_equal(p.depth, 8);
    assert_int_equal(p.message_bytes, 100);
    p = policy_of(text, "b");
    assert_int_equal(p.depth, 64);
    assert_int_equal(p.message_bytes, KIB * KIB);
}

/* ---- what is refused */

static void values_that_are_none(void **state) {
    (void)state;
    assert_refused("max_topics = 0", "f:1: max_topics = 0: at least 1");
    assert_refused("max_topics = 65537", "f:1: max_topics = 65537: at most 65536");
    assert_refused("max_topics = -1", "f:1: max_topics = -1: what is wanted is a whole number");
    assert_refused("max_topics = 1k", "f:1: max_topics = 1k: what is wanted");
    assert_refused("max_topics = \"\"", "f:1: max_topics = : what is wanted");
    assert_refused("max_topics = 99999999999999999999999", "f:1: max_topics = 999999999999");
    assert_refused("max_topics = 18446744073709551617", "f:1: max_topics = 18446744073709551617:"
                   " at most");
    assert_refused("\nmax_memory = 5MB", "f:2: max_memory = 5MB: what is wanted is a number of "
                   "bytes such as 4096, 64KiB or 8MiB, or unlimited");
    assert_refused("max_memory = 99999999999TiB", "f:1: max_memory = 99999999999TiB: at most");
    assert_refused("idle_exit = 5", "f:1: idle_exit = 5: what is wanted is a time such as 500ms");
    assert_refused("idle_exit = 9999999min", "f:1: idle_exit = 9999999min: at most 1440min");
    assert_refused("log = loud", "f:1: log = loud: what is wanted is error, warning, notice, info "
                   "or debug");
    assert_refused("instance = \"a b\"", "f:1: instance = a b: what is wanted is a name");
    assert_refused("instance = abcdefghijklmnopqrstuvwxyz0123456", "f:1: instance = abc");
    assert_refused("topic a {\n depth = 100\n}", "f:2: depth = 100: slots are a power of two; 64 "
                   "or 128");
    assert_refused("topic a { depth = 1 }", "f:1: depth = 1: at least 2");
    assert_refused("topic a { message_size = 0 }", "f:1: message_size = 0: at least 1");
    assert_refused("topic a { message_size = 17GiB }", "f:1: message_size = 17GiB: at most 16GiB");
    assert_refused("topic a { depth = never }", "f:1: depth = never: what is wanted is a whole "
                   "number, or auto");
}

static void what_does_not_go_together(void **state) {
    (void)state;
    assert_refused("topic a {\ndepth = 64\nmax_depth = 32\n}",
                   "f:3: depth of topic \"a\" exceeds its max_depth");
    assert_refused("topic a {\nmax_message_size = 1KiB\n\nmessage_size = 2KiB\n}",
                   "f:4: message_size of topic \"a\" exceeds its max_message_size");
    assert_refused("\n\nmax_memory = 1MiB", "f:3: max_memory is less than the directory alone");
    config_free(parsed("max_memory = 1MiB max_topics = 10 max_rings = 10 max_subscriptions = 10"));
    assert_refused("log = info\n\nlog = debug", "f:3: log is set on line 1 already");
    assert_refused("topic a { pins = 1\n}\ntopic b { pins = 1\npins = 1 }",
                   "f:4: pins is set on line 3 already");
    assert_refused("topic \"a\" { }\ntopic a { }", "f:2: found duplicate title 'a'");
}

static void keys_and_filters_that_are_none(void **state) {
    (void)state;
    assert_refused("# c\ndeph = 4", "f:2: no such option 'deph'; there are instance, log,");
    assert_refused("depth = 4", "f:1: no such option 'depth'; there are");
    assert_refused("topic a {\n\n log = info }", "f:3: no such option 'log' in the section of a "
                   "topic; there are depth, message_size,");
    assert_refused("\ntopic \"a//b\"\n{\n pins = 1 }", "f:3: filter \"a//b\": level 2 is empty");
    assert_refused("\ntopic \"a/#/b\" { }", "f:2: filter \"a/#/b\": '#' can only be the last");
    assert_refused("topic \"\" { }", "f:1: the filter is empty");
    assert_refused("topic { }", "f:1: missing title");
    assert_refused("topic a/+ { }", "f:1: '+' stands outside quotes");
    assert_refused("\ntopic a/# { }\npins = 1", "f:3: ");
}

static void broken_texts(void **state) {
    (void)state;
    assert_refused("topic a {\n pins = 1\n", "f:1: the section that begins here has no end");
    assert_refused("}", "f:1: unexpected closing brace");
    assert_refused("log = info\n/* no end", "f:2: this comment has no end");
    assert_refused("/*/", "f:1: this comment has no end");
    assert_refused("log = \"info", "f:1: ");
    assert_refused("\nlog = 'info", "f:2: ");
    assert_refused("log", "f:1: premature end of file");
    assert_refused("log info", "f:1: missing equal sign");
    assert_refused("log += info", "f:1: attempt to append");
    assert_refused("log = {info}", "f:1: unexpected token");
    assert_refused("log = info *", "f:1: '*' stands outside quotes");
    assert_refused("log =\n\x01info", "f:2: the control character 0x01");
    struct config *c = NULL;
    assert_int_equal(config_parse("log = info\n\0log", 14, "f", &c), SHMPS_E_INVALID);
    assert_string_equal(shmps_error_detail(), "f:2: the control character 0x00; leave it out");
    assert_refused("topic|depth = 4", "f:1: ");
    assert_refused("topic a { topic b { } }", "f:1: no such option 'topic' in the section");
}

static void lines_are_counted_across_everything(void **state) {
    (void)state;
    assert_refused("# one\n// two\n/* three\nfour */ log = info # five\n\r\n"
                   "topic \"a\" { # '\"{\n pins = 1 } // \"\n\"x\ny\" = 1", "f:9: no such option");
    assert_refused("topic \"a b\" { # \"\n pins = 1\n}\ntopic 'a // \" b' {\n pins = x }",
                   "f:4: filter \"a // \" b\": level 2 is empty");
    assert_refused("topic \"a\\\"{\" { pins = 1 }\nx = 1", "f:2: no such option 'x'");
}

/* ---- any text */

static uint64_t next(uint64_t *x) {
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

static char *sample(size_t *ret_bytes) {
    char path[4096];
    const char *source = getenv("SOURCE");
    snprintf(path, sizeof(path), "%s/docs/pubsubd.conf.example", source != NULL ? source : ".");
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    char *text = calloc(1, 65536);
    assert_non_null(text);
    *ret_bytes = fread(text, 1, 65535, file);
    fclose(file);
    return text;
}

static void the_example_sets_every_key_to_its_default(void **state) {
    (void)state;
    size_t bytes;
    char *text = sample(&bytes);
    struct config *c = parsed(text), *defaults = config_new();
    struct topic_policy p, without;
    assert_string_equal(c->instance, "default");
    assert_int_equal(c->n_topics, 1);
    config_policy(c, "a", &p);
    config_policy(defaults, "a", &without);
    assert_memory_equal(&p, &without, sizeof(p));
    for (int i = 0; i < TOPIC_KEYS; i++)
        assert_int_not_equal(c->topics[0].lines[i], 0);
    struct config values = *c;
    memset(values.instance, 0, sizeof(values.instance));
    values.topics = NULL;
    values.n_topics = 0;
    assert_memory_equal(&values, defaults, sizeof(values));
    config_free(defaults);
    config_free(c);
    free(text);
}

/* Whatever is broken in it: refused with a line, or taken, and nothing else. */
static void broken_examples_are_refused_or_taken(void **state) {
    (void)state;
    static const char pieces[] = "{}=\"'#/*\\\n+$1a\xff \t,()|";
    uint64_t seed = 4711;
    size_t bytes, refused = 0, taken = 0;
    char *text = sample(&bytes), *copy = malloc(bytes);
    assert_non_null(copy);
    for (int i = 0; i < 3000; i++) {
        struct config *c = NULL;
        memcpy(copy, text, bytes);
        for (uint64_t k = next(&seed) % 4 + 1; k > 0; k--)
            copy[next(&seed) % bytes] = pieces[next(&seed) % (sizeof(pieces) - 1)];
        int r = config_parse(copy, next(&seed) % 4 != 0 ? bytes : next(&seed) % bytes, "f", &c);
        if (r == 0) {
            config_free(c);
            taken++;
            continue;
        }
        unsigned line;
        assert_int_equal(r, SHMPS_E_INVALID);
        assert_int_equal(sscanf(shmps_error_detail(), "f:%u: ", &line), 1);
        refused++;
    }
    assert_true(refused > 100 && taken > 100);
    free(copy);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_all_defaults),
        cmocka_unit_test(keys_of_the_instance),
        cmocka_unit_test(keys_of_a_topic),
        cmocka_unit_test(units),
        cmocka_unit_test(the_most_specific_filter_decides),
        cmocka_unit_test(a_name_is_more_specific_than_a_plus),
        cmocka_unit_test(each_key_for_itself),
        cmocka_unit_test(a_default_beyond_its_limit_is_the_limit),
        cmocka_unit_test(values_that_are_none),
        cmocka_unit_test(what_does_not_go_together),
        cmocka_unit_test(keys_and_filters_that_are_none),
        cmocka_unit_test(broken_texts),
        cmocka_unit_test(lines_are_counted_across_everything),
        cmocka_unit_test(the_example_sets_every_key_to_its_default),
        cmocka_unit_test(broken_examples_are_refused_or_taken),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
