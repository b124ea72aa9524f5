/* tests/unit/support.h - what several unit tests need: leak checks, shared words, children that
 * report.
 *
 * No assertion in a child or in a second thread: they put numbers into a report, the test
 * asserts. */
#ifndef SHMPS_TESTS_UNIT_SUPPORT_H
#define SHMPS_TESTS_UNIT_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* How many file descriptors this process has open. */
static inline int open_descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    int n = 0;
    while (directory != NULL && readdir(directory) != NULL)
        n++;
    if (directory != NULL)
        closedir(directory);
    return n;
}

/* Setup and teardown of a test: it leaves no descriptor open, and closes none that was not
 * its own. */
static int descriptors_before;
static inline int leak_setup(void **state) {
    (void)state;
    descriptors_before = open_descriptors();
    return 0;
}
static inline int leak_teardown(void **state) {
    (void)state;
    int now = open_descriptors();
    if (now != descriptors_before)
        print_error("%d descriptors were open before, %d are now\n", descriptors_before, now);
    return now == descriptors_before ? 0 : -1;
}

/* Zeroed memory that forked children share. */
static inline void *shared_memory(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

struct report {
    int64_t values[8];
};

/* A child that runs `run`, then hands over its report and ends. */
struct child {
    pid_t pid;
    int pipe;
};

static inline struct child child_start(void (*run)(void *argument, struct report *report),
                                       void *argument) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL); /* else the child would print it again */
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct report report = { { 0 } };
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        run(argument, &report);
        ssize_t written = write(ends[1], &report, sizeof(report));
        _exit(written == (ssize_t)sizeof(report) ? 0 : 1);
    }
    close(ends[1]);
    return (struct child){ .pid = pid, .pipe = ends[0] };
}

/* Its report, after it has ended. */
static inline struct report child_end(struct child child) {
    struct report report = { { 0 } };
    ssize_t bytes = read(child.pipe, &report, sizeof(report));
    close(child.pipe);
    int status = -1;
    pid_t pid = waitpid(child.pid, &status, 0);
    assert_int_equal(pid, child.pid);
    assert_int_equal(bytes, sizeof(report)); /* else it died before it was done */
    assert_int_equal(status, 0);
    return report;
}

/* From now on this system call fails in this process with this errno. For children. False if
 * that is not possible. */
static inline int forbid_system_call(int number, int with_errno) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)with_errno),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {
        .len = sizeof(filter) / sizeof(filter[0]),
        .filter = filter,
    };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

#endif
