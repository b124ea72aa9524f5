/* tests/unit/test_segment.c - base/segment.h, for real in /dev/shm, under an instance name of this
 * process alone. */
#include "support.h"

#include "base/error.h"
#include "base/scope.h"
#include "base/segment.h"

#include <fcntl.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define PAGE UINT64_C(4096)
#define MIB (UINT64_C(1) << 20)

static struct segment_ref ref;  /* what a test creates */
static struct segment_ref ref2; /* and what it renames it to */
static char instance[INSTANCE_BYTES];
static char path[16 + SEGMENT_NAME_BYTES];
static char path2[sizeof(path)];

static int segment_setup(void **state) {
    snprintf(instance, sizeof(instance), "test-segment-%d", (int)getpid());
    segment_ref_ring(&ref, getuid(), instance, 1);
    segment_ref_ring(&ref2, getuid(), instance, 2);
    snprintf(path, sizeof(path), "/dev/shm%s", ref.name);
    snprintf(path2, sizeof(path2), "/dev/shm%s", ref2.name);
    return leak_setup(state);
}

static int segment_teardown(void **state) {
    unlink(path);
    unlink(path2);
    return leak_teardown(state);
}

static void assert_detail(const char *words) {
    if (strstr(shmps_error_detail(), words) == NULL)
        fail_msg("\"%s\" does not tell \"%s\"", shmps_error_detail(), words);
}

static int created(uint64_t bytes) {
    int fd = -1;
    assert_int_equal(segment_create(&ref, bytes, &fd), 0);
    assert_true(fd >= 0);
    return fd;
}

static struct stat status_of(int fd) {
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    return status;
}

/* ---- names */

static void names_tell_user_instance_and_content(void **state) {
    (void)state;
    struct segment_ref r;
    segment_ref_directory(&r, 1000, "default");
    assert_string_equal(r.name, "/shmps.1000.default.dir");
    assert_int_equal(r.kind, SEGMENT_NAMED);
    segment_ref_ring(&r, 0, "a", UINT64_MAX);
    assert_string_equal(r.name, "/shmps.0.a.r18446744073709551615");
    segment_ref_lock(&r, 7, "x_-Y");
    assert_string_equal(r.name, "/shmps.7.x_-Y.lock");
    segment_ref_set_aside(&r, 7, "x", 3);
    assert_string_equal(r.name, "/shmps.7.x.dir.bad-3");
    /* the longest there is */
    segment_ref_readers(&r, UINT32_MAX, "abcdefghijklmnopqrstuvwxyz012345", UINT64_MAX,
                        UINT32_MAX);
    assert_string_equal(r.name, "/shmps.4294967295.abcdefghijklmnopqrstuvwxyz012345"
                                ".e18446744073709551615.4294967295");
}

static void instance_names_are_short_and_plain(void **state) {
    (void)state;
    const char *good[] = { "a", "default", "A-z_09", "abcdefghijklmnopqrstuvwxyz012345" };
    const char *bad[] = { "", "a/b", ".", "..", "a.b", "a b", "\xc3\xbc", "a\n", "%s",
                          "abcdefghijklmnopqrstuvwxyz0123456" };
    for (size_t i = 0; i < ARRAY_LENGTH(good); i++)
        assert_true(instance_name_valid(good[i]));
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        assert_false(instance_name_valid(bad[i]));
}

/* ---- create and allocate */

static void a_new_segment_is_empty_private_and_closed_on_exec(void **state) {
    (void)state;
    mode_t before = umask(0777); /* even so */
    int fd = created(3 * PAGE);
    umask(before);
    struct stat status = status_of(fd);
    assert_int_equal(status.st_size, 3 * PAGE);
    assert_int_equal(status.st_blocks, 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
}

static void what_exists_is_not_created_again(void **state) {
    (void)state;
    int fd = created(PAGE), second = -1;
    assert_int_equal(segment_create(&ref, PAGE, &second), SHMPS_E_BUSY);
    assert_detail(ref.name);
    assert_int_equal(second, -1);
    close(fd);
}

static void an_impossible_size_leaves_nothing_behind(void **state) {
    (void)state;
    int fd = -1;
    assert_int_equal(segment_create(&ref, UINT64_MAX, &fd), SHMPS_E_INVALID);
    assert_int_equal(fd, -1);
    assert_int_equal(access(path, F_OK), -1);
}

static void truncate_fails(void *argument, struct report *report) {
    (void)argument;
    int fd = -1;
    report->values[0] = forbid_system_call(SYS_ftruncate, ENOSPC);
    report->values[1] = segment_create(&ref, PAGE, &fd);
    report->values[2] = fd;
    report->values[3] = access(path, F_OK);
}

static void a_create_that_fails_half_way_leaves_nothing_behind(void **state) {
    (void)state;
    struct report report = child_end(child_start(truncate_fails, NULL));
    assert_true(report.values[0]);
    assert_int_equal(report.values[1], SHMPS_E_NO_SPACE);
    assert_int_equal(report.values[2], -1);
    assert_int_equal(report.values[3], -1);
}

static void no_descriptors(void *argument, struct report *report) {
    (void)argument;
    struct rlimit limit = { 0, 0 };
    int fd = -1;
    setrlimit(RLIMIT_NOFILE, &limit);
    report->values[0] = segment_create(&ref, PAGE, &fd);
    report->values[1] = segment_open(&ref2, SEGMENT_READ, getuid(), &fd);
    report->values[2] = fd;
}

static void without_descriptors_nothing_is_created_or_opened(void **state) {
    (void)state;
    close(open(path2, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    struct report report = child_end(child_start(no_descriptors, NULL));
    assert_int_equal(report.values[0], SHMPS_E_NO_DESCRIPTORS);
    assert_int_equal(report.values[1], SHMPS_E_NO_DESCRIPTORS);
    assert_int_equal(report.values[2], -1);
    assert_int_equal(access(path, F_OK), -1);
}

static void chunks_are_allocated_one_by_one(void **state) {
    (void)state;
    int fd = created(4 * MIB);
    for (uint64_t at = 0; at < 4 * MIB; at += MIB) {
        assert_int_equal(segment_allocate(fd, at, MIB), 0);
        assert_int_equal(status_of(fd).st_blocks, (at + MIB) / 512);
    }
    assert_int_equal(segment_allocate(fd, 0, MIB), 0); /* again: nothing more */
    assert_int_equal(status_of(fd).st_blocks, 4 * MIB / 512);
    assert_int_equal(status_of(fd).st_size, 4 * MIB);
    close(fd);
}

static void more_than_is_free_is_refused_with_need_and_free(void **state) {
    (void)state;
    uint64_t free_bytes, total;
    assert_int_equal(segment_space(&free_bytes, &total), 0);
    assert_true(free_bytes <= total && total > 0);
    uint64_t bytes = free_bytes + 4096 * MIB;
    int fd = created(bytes);
    assert_int_equal(segment_allocate(fd, 0, PAGE), SHMPS_E_NO_SPACE); /* at the first chunk */
    char need[64];
    snprintf(need, sizeof(need), "needs %llu bytes", (unsigned long long)bytes);
    assert_detail(need);
    assert_detail("are free in /dev/shm");
    assert_detail("remount,size=");
    assert_int_equal(status_of(fd).st_blocks, 0);
    close(fd);
}

/* In a /dev/shm of its own, of one MiB. */
static void in_a_small_file_system(void *argument, struct report *report) {
    (void)argument;
    uint64_t free_bytes = 0, total = 0;
    int a = -1, b = -1;
    if ((unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) ||
        mount("none", "/", "", MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/dev/shm", "tmpfs", 0, "size=1m") < 0)
        return;
    report->values[0] = 1;
    report->values[1] = segment_space(&free_bytes, &total);
    report->values[2] = (int64_t)total;
    report->values[3] = segment_create(&ref, 3 * MIB / 4, &a);
    report->values[4] = segment_allocate(a, 0, 3 * MIB / 4);
    segment_create(&ref2, MIB / 2, &b);
    report->values[5] = segment_allocate(b, 0, MIB / 4);
    const char *told = strstr(shmps_error_detail(), "needs 524288 bytes, but only 262144 are");
    report->values[6] = told != NULL;
    segment_remove(&ref);
    close(a);
    report->values[7] = segment_allocate(b, 0, MIB / 2);
    close(b);
}

static void a_full_file_system_refuses_until_there_is_room(void **state) {
    (void)state;
    struct report report = child_end(child_start(in_a_small_file_system, NULL));
    if (!report.values[0])
        skip();
    assert_int_equal(report.values[1], 0);
    assert_int_equal(report.values[2], MIB);
    assert_int_equal(report.values[3], 0);
    assert_int_equal(report.values[4], 0);
    assert_int_equal(report.values[5], SHMPS_E_NO_SPACE);
    assert_true(report.values[6]);
    assert_int_equal(report.values[7], 0);
}

static void allocation_fails(void *argument, struct report *report) {
    int number = *(int *)argument, fd = -1;
    segment_create(&ref, MIB, &fd);
    report->values[0] = forbid_system_call(SYS_fallocate, number);
    report->values[1] = segment_allocate(fd, 0, MIB);
    report->values[2] = strstr(shmps_error_detail(), "needs 1048576 bytes") != NULL;
}

static void signals_without_end_do_not_hold_an_allocation_for_ever(void **state) {
    (void)state;
    int number = EINTR;
    struct report report = child_end(child_start(allocation_fails, &number));
    assert_true(report.values[0]);
    assert_int_equal(report.values[1], SHMPS_E_SYSTEM);
}

static void space_taken_by_others_meanwhile_is_told_too(void **state) {
    (void)state;
    int number = ENOSPC;
    struct report report = child_end(child_start(allocation_fails, &number));
    assert_true(report.values[0]);
    assert_int_equal(report.values[1], SHMPS_E_NO_SPACE);
    assert_true(report.values[2]);
}

/* ---- open */

static int open_result(enum segment_access how, uid_t owner) {
    int fd = -1;
    int r = segment_open(&ref, how, owner, &fd);
    assert_int_equal(fd >= 0, r == 0);
    if (fd >= 0)
        close(fd);
    return r;
}

static void what_is_not_there_is_no_topic(void **state) {
    (void)state;
    assert_int_equal(open_result(SEGMENT_READ, getuid()), SHMPS_E_NO_TOPIC);
    assert_detail(ref.name);
}

static void a_segment_is_found_again_as_it_was_asked_for(void **state) {
    (void)state;
    close(created(PAGE));
    const struct {
        enum segment_access access;
        int flags;
    } cases[] = {
        { SEGMENT_READ, O_RDONLY },
        { SEGMENT_WRITE, O_RDWR },
        { SEGMENT_READ_LAZY, O_RDONLY },
        { SEGMENT_WRITE_LAZY, O_RDWR },
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        int fd = -1;
        assert_int_equal(segment_open(&ref, cases[i].access, getuid(), &fd), 0);
        assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, cases[i].flags);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        close(fd);
    }
}

static void a_segment_of_another_user_is_refused(void **state) {
    (void)state;
    close(created(PAGE));
    assert_int_equal(open_result(SEGMENT_READ, getuid() + 1), SHMPS_E_PERMISSION);
    assert_detail("belongs to user");
    if (getuid() == 0) {
        assert_int_equal(chown(path, 1, 1), 0);
        assert_int_equal(open_result(SEGMENT_WRITE, 0), SHMPS_E_PERMISSION);
        assert_detail("belongs to user 1 instead of 0");
        assert_int_equal(open_result(SEGMENT_WRITE, 1), 0);
    }
}

static void a_segment_that_others_may_write_is_refused(void **state) {
    (void)state;
    close(created(PAGE));
    const mode_t bad[] = { 0620, 0602, 0666, 0777 }, good[] = { 0600, 0640, 0604, 0644 };
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        assert_int_equal(chmod(path, bad[i]), 0);
        assert_int_equal(open_result(SEGMENT_READ, getuid()), SHMPS_E_PERMISSION);
        assert_detail("chmod 600");
    }
    for (size_t i = 0; i < ARRAY_LENGTH(good); i++) {
        assert_int_equal(chmod(path, good[i]), 0);
        assert_int_equal(open_result(SEGMENT_READ, getuid()), 0);
    }
}

static void other_files_in_its_place_are_refused(void **state) {
    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(open_result(SEGMENT_READ, getuid()), SHMPS_E_PERMISSION); /* no waiting */
    assert_int_equal(open_result(SEGMENT_WRITE, getuid()), SHMPS_E_PERMISSION);
    assert_detail("not a plain segment");
    assert_int_equal(unlink(path), 0);

    close(open(path2, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    assert_int_equal(symlink(path2, path), 0);
    assert_int_equal(open_result(SEGMENT_READ, getuid()), SHMPS_E_PERMISSION);
    assert_detail("symbolic link");
    assert_int_equal(unlink(path), 0);

    assert_int_equal(link(path2, path), 0);
    assert_int_equal(open_result(SEGMENT_READ, getuid()), SHMPS_E_PERMISSION);
    assert_detail("2 links");
    assert_int_equal(unlink(path), 0);

    assert_int_equal(mkdir(path, 0700), 0);
    assert_true(open_result(SEGMENT_READ, getuid()) < 0);
    assert_int_equal(rmdir(path), 0);
}

/* ---- map */

static void what_one_writes_the_other_reads(void **state) {
    (void)state;
    int fd = created(2 * PAGE), again = -1;
    struct segment_map w = SEGMENT_MAP_NONE, r = SEGMENT_MAP_NONE;
    assert_int_equal(segment_allocate(fd, 0, 2 * PAGE), 0);
    assert_int_equal(segment_map(fd, SEGMENT_WRITE, 2 * PAGE, &w), 0);
    assert_int_equal(segment_open(&ref, SEGMENT_READ, getuid(), &again), 0);
    assert_int_equal(segment_map(again, SEGMENT_READ, PAGE, &r), 0);
    close(fd);
    close(again);
    segment_remove(&ref);
    segment_remove(&ref); /* absent is fine */
    assert_int_equal(w.bytes, 2 * PAGE);
    assert_int_equal(r.bytes, 2 * PAGE); /* all of it, not only min_bytes */
    assert_int_equal(open_result(SEGMENT_READ, getuid()), SHMPS_E_NO_TOPIC);
    ((char *)w.base)[2 * PAGE - 1] = 'x';
    assert_int_equal(((char *)r.base)[2 * PAGE - 1], 'x');
    segment_unmap(&w);
    segment_unmap(&r);
    assert_null(w.base);
    assert_int_equal(w.bytes, 0);
    segment_unmap(&w); /* none is fine */
}

static void a_truncated_segment_is_refused(void **state) {
    (void)state;
    struct segment_map map = SEGMENT_MAP_NONE;
    int fd = created(2 * PAGE);
    assert_int_equal(segment_map(fd, SEGMENT_READ, 2 * PAGE + 1, &map), SHMPS_E_CORRUPT);
    assert_detail("8192 bytes");
    assert_int_equal(ftruncate(fd, PAGE), 0);
    assert_int_equal(segment_map(fd, SEGMENT_READ, 2 * PAGE, &map), SHMPS_E_CORRUPT);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(segment_map(fd, SEGMENT_READ, 0, &map), SHMPS_E_CORRUPT);
    assert_null(map.base);
    close(fd);
}

static void more_than_the_address_space_is_no_memory(void **state) {
    (void)state;
    struct segment_map map = SEGMENT_MAP_NONE;
    int fd = created(UINT64_C(1) << 60);
    assert_int_equal(segment_map(fd, SEGMENT_READ_LAZY, PAGE, &map), SHMPS_E_NO_MEMORY);
    assert_null(map.base);
    close(fd);
}

static void only_lazy_mappings_are_not_populated(void **state) {
    (void)state;
    const struct {
        enum segment_access access;
        bool populated;
    } cases[] = {
        { SEGMENT_READ_LAZY, false },
        { SEGMENT_WRITE_LAZY, false },
        { SEGMENT_READ, true },
    };
    int fd = created(4 * PAGE);
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct segment_map map = SEGMENT_MAP_NONE;
        assert_int_equal(segment_map(fd, cases[i].access, PAGE, &map), 0);
        assert_int_equal(status_of(fd).st_blocks > 0, cases[i].populated);
        segment_unmap(&map);
    }
    close(fd);
}

static void looks_at_mapping(void *argument, struct report *report) {
    struct segment_map *map = argument;
    report->values[0] = msync(map->base, map->bytes, MS_ASYNC);
    report->values[1] = errno;
}

static void a_forked_child_has_no_mapping(void **state) {
    (void)state;
    struct segment_map map = SEGMENT_MAP_NONE;
    int fd = created(PAGE);
    assert_int_equal(segment_map(fd, SEGMENT_WRITE, PAGE, &map), 0);
    struct report report = child_end(child_start(looks_at_mapping, &map));
    assert_int_equal(report.values[0], -1);
    assert_int_equal(report.values[1], ENOMEM); /* nothing is mapped there */
    assert_int_equal(msync(map.base, map.bytes, MS_ASYNC), 0);
    segment_unmap(&map);
    close(fd);
}

static void advice_fails(void *argument, struct report *report) {
    (void)argument;
    struct segment_map map = SEGMENT_MAP_NONE;
    int fd = -1;
    segment_create(&ref, PAGE, &fd);
    report->values[0] = forbid_system_call(SYS_madvise, EINVAL);
    report->values[1] = segment_map(fd, SEGMENT_READ, PAGE, &map);
    report->values[2] = map.base == NULL;
}

static void a_mapping_that_children_would_get_is_none(void **state) {
    (void)state;
    struct report report = child_end(child_start(advice_fails, NULL));
    assert_true(report.values[0]);
    assert_int_equal(report.values[1], SHMPS_E_SYSTEM);
    assert_true(report.values[2]);
}

/* ---- rename and list */

static void a_renamed_segment_has_only_its_new_name(void **state) {
    (void)state;
    int fd = -1;
    assert_int_equal(segment_rename(&ref, &ref2), SHMPS_E_NO_TOPIC);
    close(created(PAGE));
    assert_int_equal(segment_rename(&ref, &ref2), 0);
    assert_int_equal(open_result(SEGMENT_READ, getuid()), SHMPS_E_NO_TOPIC);
    assert_int_equal(segment_open(&ref2, SEGMENT_READ, getuid(), &fd), 0);
    close(fd);
    close(created(2 * PAGE)); /* ref2 is taken, and kept */
    assert_int_equal(segment_rename(&ref, &ref2), SHMPS_E_BUSY);
    assert_int_equal(open_result(SEGMENT_READ, getuid()), 0);
}

struct found {
    unsigned rings, readers, aside, ready, wrong;
};

static void count_found(void *data, const struct segment_found *found) {
    struct found *n = data;
    n->rings += found->content == SEGMENT_OF_RING && found->ring == 1;
    n->readers += found->content == SEGMENT_OF_READERS && found->ring == 12 && found->page == 3;
    n->aside += found->content == SEGMENT_SET_ASIDE && found->ring == 0;
    n->ready += found->content == SEGMENT_READY && found->pid == 77;
    n->wrong += strstr(found->ref.name, instance) == NULL;
    segment_remove(&found->ref);
}

static void a_list_shows_what_is_of_the_instance(void **state) {
    (void)state;
    struct segment_ref refs[3];
    const char *others[] = { ".r1x", ".r01", ".r-1", ".e1", ".e1.2.3", ".x1", "x.r1",
                             ".dir.bad-", ".ready.77" };
    struct found found = { 0 };
    int fd;
    segment_ref_ring(&refs[0], getuid(), instance, 1);
    segment_ref_readers(&refs[1], getuid(), instance, 12, 3);
    segment_ref_set_aside(&refs[2], getuid(), instance, 4);
    char semaphore[SEGMENT_NAME_BYTES];
    segment_ready_name(semaphore, getuid(), instance, 77);
    sem_t *ready = sem_open(semaphore, O_CREAT | O_EXCL, 0600, 0);
    assert_ptr_not_equal(ready, SEM_FAILED);
    sem_close(ready);
    for (size_t i = 0; i < ARRAY_LENGTH(refs); i++) {
        assert_int_equal(segment_create(&refs[i], PAGE, &fd), 0);
        close(fd);
    }
    char other[ARRAY_LENGTH(others)][sizeof(path)];
    for (size_t i = 0; i < ARRAY_LENGTH(others); i++) {
        snprintf(other[i], sizeof(other[i]), "/dev/shm/shmps.%u.%s%s", (unsigned)getuid(),
                 instance, others[i]);
        close(open(other[i], O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    }
    assert_int_equal(segment_list(getuid(), instance, count_found, &found), 0);
    int kept = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(others); i++)
        kept += unlink(other[i]) == 0;
    assert_int_equal(kept, ARRAY_LENGTH(others));
    assert_int_equal(found.rings, 1);
    assert_int_equal(found.readers, 1);
    assert_int_equal(found.aside, 1);
    assert_int_equal(found.ready, 1);
    assert_int_equal(sem_unlink(semaphore), -1); /* the name that was shown is the file's */
    assert_int_equal(found.wrong, 0);
    struct found none = { 0 };
    assert_int_equal(segment_list(getuid(), instance, count_found, &none), 0);
    assert_int_equal(none.rings + none.readers + none.aside, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, segment_setup, segment_teardown)

int main(void) {
    alarm(50);
    const struct CMUnitTest tests[] = {
        TEST(names_tell_user_instance_and_content),
        TEST(instance_names_are_short_and_plain),
        TEST(a_new_segment_is_empty_private_and_closed_on_exec),
        TEST(what_exists_is_not_created_again),
        TEST(an_impossible_size_leaves_nothing_behind),
        TEST(a_create_that_fails_half_way_leaves_nothing_behind),
        TEST(without_descriptors_nothing_is_created_or_opened),
        TEST(chunks_are_allocated_one_by_one),
        TEST(more_than_is_free_is_refused_with_need_and_free),
        TEST(a_full_file_system_refuses_until_there_is_room),
        TEST(signals_without_end_do_not_hold_an_allocation_for_ever),
        TEST(space_taken_by_others_meanwhile_is_told_too),
        TEST(what_is_not_there_is_no_topic),
        TEST(a_segment_is_found_again_as_it_was_asked_for),
        TEST(a_segment_of_another_user_is_refused),
        TEST(a_segment_that_others_may_write_is_refused),
        TEST(other_files_in_its_place_are_refused),
        TEST(what_one_writes_the_other_reads),
        TEST(a_truncated_segment_is_refused),
        TEST(more_than_the_address_space_is_no_memory),
        TEST(only_lazy_mappings_are_not_populated),
        TEST(a_forked_child_has_no_mapping),
        TEST(a_mapping_that_children_would_get_is_none),
        TEST(a_renamed_segment_has_only_its_new_name),
        TEST(a_list_shows_what_is_of_the_instance),
    };
    return cmocka_run_group_tests_name("segments", tests, NULL, NULL);
}
