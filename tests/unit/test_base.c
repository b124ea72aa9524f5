/* tests/unit/test_base.c - base/error.h and base/process.h: what an error tells; what identifies a
 * process and a boot. */
#include "support.h"

#include "base/error.h"
#include "base/process.h"
#include "base/scope.h"

#include <ctype.h>
#include <pthread.h>

/* ---- errors */

static void every_result_has_its_name(void **state) {
    (void)state;
    const char *errors[] = {
        "SHMPS_E_INVALID",     "SHMPS_E_TOPIC",          "SHMPS_E_SIZE",
        "SHMPS_E_NO_MEMORY",   "SHMPS_E_NO_SPACE",       "SHMPS_E_NO_DESCRIPTORS",
        "SHMPS_E_LIMIT",       "SHMPS_E_NO_DAEMON",      "SHMPS_E_NO_TOPIC",
        "SHMPS_E_PERMISSION",  "SHMPS_E_VERSION",        "SHMPS_E_PROTOCOL",
        "SHMPS_E_FORKED",      "SHMPS_E_BUSY",           "SHMPS_E_CORRUPT",
        "SHMPS_E_STATE",       "SHMPS_E_UNSUPPORTED",    "SHMPS_E_CLOSED",
        "SHMPS_E_SYSTEM",
    };
    const char *outcomes[] = { "SHMPS_OK", "SHMPS_EMPTY", "SHMPS_FULL", "SHMPS_LOST",
                               "SHMPS_TIMEOUT" };
    assert_int_equal(ARRAY_LENGTH(errors), -SHMPS_E_SYSTEM);
    for (int i = 0; i < (int)ARRAY_LENGTH(errors); i++)
        assert_string_equal(shmps_error_name(-1 - i), errors[i]);
    for (int i = 0; i < (int)ARRAY_LENGTH(outcomes); i++)
        assert_string_equal(shmps_error_name(i), outcomes[i]);
}

static void a_number_that_is_no_result_has_a_name_too(void **state) {
    (void)state;
    const int numbers[] = { SHMPS_E_SYSTEM - 1, SHMPS_TIMEOUT + 1, INT32_MIN, INT32_MAX };
    for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++) {
        assert_string_equal(shmps_error_name(numbers[i]), "SHMPS_E_?");
        assert_true(strlen(shmps_error_text(numbers[i])) > 0);
    }
}

static void every_text_is_one_lower_case_sentence_of_its_own(void **state) {
    (void)state;
    for (int i = SHMPS_E_SYSTEM; i <= SHMPS_TIMEOUT; i++) {
        const char *text = shmps_error_text(i);
        assert_true(islower((unsigned char)text[0]));
        assert_int_not_equal(text[strlen(text) - 1], '.');
        assert_null(strchr(text, '\n'));
        for (int j = SHMPS_E_SYSTEM; j < i; j++)
            assert_string_not_equal(text, shmps_error_text(j));
    }
}

static void raising_records_the_story_and_returns_the_code(void **state) {
    (void)state;
    assert_int_equal(error_raise(SHMPS_E_LIMIT, "%d of %s", 7, "topics"), SHMPS_E_LIMIT);
    assert_string_equal(shmps_error_detail(), "7 of topics");
    assert_int_equal(error_raise(SHMPS_E_BUSY, "x"), SHMPS_E_BUSY);
    assert_string_equal(shmps_error_detail(), "x");
}

static void a_failed_system_call_is_mapped_and_named(void **state) {
    (void)state;
    const struct {
        int number, code;
    } cases[] = {
        { ENOSPC, SHMPS_E_NO_SPACE },        { EMFILE, SHMPS_E_NO_DESCRIPTORS },
        { ENFILE, SHMPS_E_NO_DESCRIPTORS },  { ENOMEM, SHMPS_E_NO_MEMORY },
        { EACCES, SHMPS_E_PERMISSION },      { EPERM, SHMPS_E_PERMISSION },
        { EINVAL, SHMPS_E_SYSTEM },          { ENOENT, SHMPS_E_SYSTEM },
        { 99999, SHMPS_E_SYSTEM },
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        char expected[256];
        snprintf(expected, sizeof(expected), "cannot do %zu: %s%s", i, strerror(cases[i].number),
                 cases[i].number == EMFILE ? "; raise RLIMIT_NOFILE (ulimit -n)" : "");
        assert_int_equal(error_system(cases[i].number, "cannot do %zu", i), cases[i].code);
        assert_string_equal(shmps_error_detail(), expected);
    }
}

static void context_goes_in_front_and_keeps_the_code(void **state) {
    (void)state;
    error_raise(SHMPS_E_NO_SPACE, "need 5, free 3");
    assert_int_equal(error_context(SHMPS_E_NO_SPACE, "topic %s", "a/b"), SHMPS_E_NO_SPACE);
    assert_string_equal(shmps_error_detail(), "topic a/b: need 5, free 3");
}

static void the_recorded_detail_may_be_an_argument(void **state) {
    (void)state;
    error_raise(SHMPS_E_SYSTEM, "inner");
    error_raise(SHMPS_E_SYSTEM, "outer (%s)", shmps_error_detail());
    assert_string_equal(shmps_error_detail(), "outer (inner)");
    error_context(SHMPS_E_SYSTEM, "again [%s]", shmps_error_detail());
    assert_string_equal(shmps_error_detail(), "again [outer (inner)]: outer (inner)");
}

static void a_longer_detail_is_cut(void **state) {
    (void)state;
    char longer[2 * ERROR_DETAIL_BYTES];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    error_raise(SHMPS_E_SYSTEM, "%s", longer);
    assert_int_equal(strlen(shmps_error_detail()), ERROR_DETAIL_BYTES - 1);
    error_context(SHMPS_E_SYSTEM, "front");
    assert_int_equal(strlen(shmps_error_detail()), ERROR_DETAIL_BYTES - 1);
    assert_memory_equal(shmps_error_detail(), "front: xxx", 10);
    error_system(ENOENT, "%s", longer);
    assert_int_equal(strlen(shmps_error_detail()), ERROR_DETAIL_BYTES - 1);
}

static void *raise_in_a_thread(void *result) {
    snprintf(result, ERROR_DETAIL_BYTES, "<%s>", shmps_error_detail());
    error_raise(SHMPS_E_SYSTEM, "of the thread");
    return NULL;
}

static void each_thread_has_a_detail_of_its_own(void **state) {
    (void)state;
    char before[ERROR_DETAIL_BYTES];
    pthread_t thread;
    error_raise(SHMPS_E_SYSTEM, "of the test");
    assert_int_equal(pthread_create(&thread, NULL, raise_in_a_thread, before), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(before, "<>");
    assert_string_equal(shmps_error_detail(), "of the test");
}

/* ---- processes */

static void a_process_keeps_its_start_time(void **state) {
    (void)state;
    uint64_t start = process_start_time(getpid());
    assert_true(start > 0);
    assert_int_equal(process_start_time(getpid()), start);
    /* In ticks since boot, as CLOCK_BOOTTIME is: it cannot lie in the future. */
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    assert_true(start / (uint64_t)sysconf(_SC_CLK_TCK) <= (uint64_t)now.tv_sec);
}

static void start_time_is_field_22_of_its_stat(void **state) {
    (void)state;
    char line[1024] = "";
    FILE *f = fopen("/proc/self/stat", "re");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f));
    fclose(f);
    char *field = strrchr(line, ')') + 1; /* field 2 ends here */
    for (int i = 2; i < 22; i++)
        field = strchr(field, ' ') + 1;
    assert_int_equal(process_start_time(getpid()), strtoull(field, NULL, 10));
}

static void rename_itself(void *argument, struct report *report) {
    report->values[0] = (int64_t)process_start_time(getpid());
    report->values[1] = prctl(PR_SET_NAME, argument);
    report->values[2] = (int64_t)process_start_time(getpid());
    char command[COMMAND_BYTES];
    process_command(getpid(), command);
    report->values[3] = strcmp(command, argument);
}

static void a_command_with_brackets_and_spaces_misleads_nobody(void **state) {
    (void)state;
    char evil[] = ") Z 1 (2) 3 (4";
    struct report report = child_end(child_start(rename_itself, evil));
    assert_true(report.values[0] > 0);
    assert_int_equal(report.values[1], 0);
    assert_int_equal(report.values[2], report.values[0]);
    assert_int_equal(report.values[3], 0);
}

static void who_has_ended_has_no_start_time(void **state) {
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(0);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(process_start_time(pid), 0); /* a zombie */
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(process_start_time(pid), 0); /* gone */
    assert_true(process_has_ended(pid, 1));
}

static void what_is_not_known_has_not_ended(void **state) {
    (void)state;
    uint64_t start = process_start_time(getpid());
    assert_false(process_has_ended(getpid(), start));
    assert_true(process_has_ended(getpid(), start + 1)); /* another one by now */
    assert_false(process_has_ended(getpid(), 0));
    assert_false(process_has_ended(0, start));
    assert_false(process_has_ended(-1, start));
}

static void an_unknown_process_has_the_command_question_mark(void **state) {
    (void)state;
    char command[COMMAND_BYTES];
    memset(command, 'x', sizeof(command));
    process_command(-1, command);
    assert_string_equal(command, "?");
    for (size_t i = 2; i < sizeof(command); i++)
        assert_int_equal(command[i], 0); /* nothing of the caller's stack gets into a segment */
}

static void the_longest_command_fits(void **state) {
    (void)state;
    char longest[] = "fifteen-letters";
    assert_int_equal(strlen(longest), COMMAND_BYTES - 1);
    assert_int_equal(child_end(child_start(rename_itself, longest)).values[3], 0);
}

static void the_boot_id_is_the_kernels(void **state) {
    (void)state;
    uint64_t id[2], again[2];
    char text[64] = "", expected[64];
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof(text), f));
    fclose(f);
    boot_id(id);
    boot_id(again);
    assert_memory_equal(id, again, sizeof(id));
    snprintf(expected, sizeof(expected), "%08x-%04x-%04x-%04x-%012llx\n", (unsigned)(id[0] >> 32),
             (unsigned)(id[0] >> 16 & 0xffff), (unsigned)(id[0] & 0xffff),
             (unsigned)(id[1] >> 48), (unsigned long long)(id[1] & 0xffffffffffff));
    assert_string_equal(text, expected);
}

static void the_clock_does_not_go_back(void **state) {
    (void)state;
    uint64_t before = now_ns();
    for (int i = 0; i < 1000; i++) {
        uint64_t now = now_ns();
        assert_true(now >= before);
        before = now;
    }
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    assert_true((uint64_t)t.tv_sec >= before / 1000000000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, leak_setup, leak_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_result_has_its_name),
        TEST(a_number_that_is_no_result_has_a_name_too),
        TEST(every_text_is_one_lower_case_sentence_of_its_own),
        TEST(raising_records_the_story_and_returns_the_code),
        TEST(a_failed_system_call_is_mapped_and_named),
        TEST(context_goes_in_front_and_keeps_the_code),
        TEST(the_recorded_detail_may_be_an_argument),
        TEST(a_longer_detail_is_cut),
        TEST(each_thread_has_a_detail_of_its_own),
        TEST(a_process_keeps_its_start_time),
        TEST(start_time_is_field_22_of_its_stat),
        TEST(a_command_with_brackets_and_spaces_misleads_nobody),
        TEST(who_has_ended_has_no_start_time),
        TEST(what_is_not_known_has_not_ended),
        TEST(an_unknown_process_has_the_command_question_mark),
        TEST(the_longest_command_fits),
        TEST(the_boot_id_is_the_kernels),
        TEST(the_clock_does_not_go_back),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
