/* Memory is given back: in /dev/shm when rings are outgrown and publishers leave, in pubsubd when
 * topics go; and what `shmps info` says that a topic costs is what it costs. */
#include "../harness.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Allocated bytes of the instance's segments whose name goes on with this. */
static uint64_t allocated(const char *tail) {
    char prefix[128], path[400];
    uint64_t bytes = 0;
    struct stat s;
    DIR *directory = opendir("/dev/shm");
    assert_non_null(directory);
    snprintf(prefix, sizeof(prefix), "shmps.%u.%s.%s", (unsigned)getuid(), test_instance(), tail);
    for (const struct dirent *e; (e = readdir(directory)) != NULL;) {
        snprintf(path, sizeof(path), "/dev/shm/%s", e->d_name);
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 && lstat(path, &s) == 0)
            bytes += (uint64_t)s.st_blocks * 512;
    }
    closedir(directory);
    return bytes;
}

/* VmRSS of pubsubd less what is file-backed: its own memory. */
static uint64_t own_memory(void) {
    char path[64], line[256];
    uint64_t kib = 0;
    snprintf(path, sizeof(path), "/proc/%ld/status", (long)daemon_pid());
    FILE *status = fopen(path, "re");
    assert_non_null(status);
    while (kib == 0 && fgets(line, sizeof(line), status) != NULL)
        if (strncmp(line, "RssAnon:", 8) == 0)
            kib = strtoull(line + 8, NULL, 10);
    fclose(status);
    assert_true(kib > 0);
    return kib * 1024;
}

static void take_all(struct shmps_subscriber *sub, uint64_t n) {
    struct shmps_sample s;
    for (uint64_t i = 0; i < n; i++) {
        assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
        assert_ok(shmps_release(sub, &s));
    }
    assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY); /* has drained what was outgrown */
}

static void test_what_was_outgrown_is_given_back(void **state) {
    (void)state;
    struct shmps *bus = connected();
    uint64_t before = allocated("");
    for (int round = 0; round < 3; round++) {
        struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
        struct shmps_publisher *pub = publisher_on(bus, "t", 8, 0);
        uint64_t small = allocated("r"), number = 0;
        for (size_t bytes = 100; bytes < 2000000; bytes *= 3)
            assert_ok(message_publish(pub, 1, number++, bytes, 0));
        take_all(sub, number);
        assert_int_equal(shmps_daemon_alive(bus), 1); /* it has dealt with what it was told */
        assert_int_equal(count_segments("r"), 1);
        assert_int_equal(count_segments("e"), 1);
        assert_true(allocated("r") > small);
        shmps_publisher_close(pub);
        shmps_subscriber_close(sub);
        assert_int_equal(allocated(""), before);
    }
    shmps_close(bus);
}

static void open_and_close(struct shmps *bus, int topics) {
    struct shmps_publisher *pubs[250];
    struct shmps_subscriber *subs[250];
    char name[32];
    for (int i = 0; i < topics; i++) {
        snprintf(name, sizeof(name), "many/%d", i);
        pubs[i] = publisher_on(bus, name, 4, 32);
        subs[i] = subscriber_on(bus, name, SHMPS_LOSSY);
    }
    assert_int_equal(count_segments("r"), topics);
    for (int i = 0; i < topics; i++) {
        shmps_subscriber_close(subs[i]);
        shmps_publisher_close(pubs[i]);
    }
    assert_int_equal(count_segments("r"), 0);
    assert_int_equal(count_segments("e"), 0);
}

static void test_a_thousand_topics_leave_nothing(void **state) {
    (void)state;
    struct shmps *bus = connected();
    uint64_t before = allocated("");
    open_and_close(bus, 1);
    uint64_t idle = own_memory();
    for (int k = 0; k < 4; k++)
        open_and_close(bus, 250);
    uint64_t after = own_memory();
    print_message("# pubsubd's own memory: %llu KiB, after 1000 topics %llu KiB\n",
                  (unsigned long long)idle / 1024, (unsigned long long)after / 1024);
    /* a sanitizer keeps what was freed for a while, to find who still uses it */
    assert_true(after < idle + (getenv("ASAN_OPTIONS") != NULL ? 64 : 1) * 1024 * 1024);
    assert_int_equal(allocated(""), before);
    shmps_close(bus);
}

/* The first "memory_bytes" is the topic's. */
static uint64_t said_by_info(const char *topic) {
    static const char key[] = "\"memory_bytes\":";
    char command[400], text[65536];
    const char *build = getenv("BUILD");
    if (build == NULL)
        fail_msg("BUILD must tell where tools/shmps is");
    snprintf(command, sizeof(command), "%s/tools/shmps info --json %s", build, topic);
    FILE *info = popen(command, "re");
    assert_non_null(info);
    text[fread(text, 1, sizeof(text) - 1, info)] = '\0';
    assert_int_equal(pclose(info), 0);
    const char *found = strstr(text, key);
    assert_non_null(found);
    return strtoull(found + strlen(key), NULL, 10);
}

static void test_info_says_what_a_topic_costs(void **state) {
    (void)state;
    struct shmps *bus = connected();
    struct shmps_subscriber *sub = subscriber_on(bus, "t", SHMPS_RELIABLE);
    struct shmps_publisher *one = publisher_on(bus, "t", 0, 0);
    struct shmps_publisher *two = publisher_on(bus, "t", 4, 9);
    assert_int_equal(said_by_info("t"), allocated("r") + allocated("e"));
    assert_ok(message_publish(one, 1, 0, 100, 0));
    assert_ok(message_publish(one, 1, 1, 50000, 0)); /* the outgrown ring is still to be read */
    assert_int_equal(count_segments("r"), 3);
    assert_int_equal(said_by_info("t"), allocated("r") + allocated("e"));
    take_all(sub, 2);
    shmps_publisher_close(two);
    assert_int_equal(said_by_info("t"), allocated("r") + allocated("e"));
    shmps_close(bus);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_what_was_outgrown_is_given_back),
        WITH_DAEMON(test_a_thousand_topics_leave_nothing),
        WITH_DAEMON(test_info_says_what_a_topic_costs),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
