#include "client/client.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

/* 0, or why it cannot be run. */
static int program_trouble(const char *path) {
    struct stat s;
    if (stat(path, &s) < 0)
        return errno;
    if (!S_ISREG(s.st_mode))
        return S_ISDIR(s.st_mode) ? EISDIR : EACCES;
    return access(path, X_OK) < 0 ? errno : 0;
}

static bool is_program(const char *path) {
    return program_trouble(path) == 0;
}

/* LIBDIR/libshmps.so.0 -> PREFIX/bin/pubsubd, for LIBDIR = PREFIX/lib or PREFIX/lib/TRIPLET. */
static bool find_beside_library(char ret[PATH_MAX]) {
    Dl_info info;
    if (!dladdr((void *)(uintptr_t)find_beside_library, &info) || !info.dli_fname)
        return false;
    char dir[PATH_MAX];
    if (!realpath(info.dli_fname, dir))
        return false;
    for (int level = 0; level < 3; level++) {
        char *slash = strrchr(dir, '/');
        if (!slash || slash == dir)
            return false;
        *slash = 0;
        if (level > 0 && (size_t)snprintf(ret, PATH_MAX, "%s/bin/pubsubd", dir) < PATH_MAX &&
            is_program(ret))
            return true;
    }
    return false;
}

static bool find_in_path(char ret[PATH_MAX]) {
    const char *path = getenv("PATH");
    if (!path)
        path = "/usr/local/bin:/usr/bin:/bin";
    while (*path) {
        int length = (int)strcspn(path, ":");
        if (length > 0 &&
            (size_t)snprintf(ret, PATH_MAX, "%.*s/pubsubd", length, path) < PATH_MAX &&
            is_program(ret))
            return true;
        path += length + (path[length] == ':');
    }
    return false;
}

static int find_program(char ret[PATH_MAX]) {
    const char *env = getenv("SHMPS_PUBSUBD");
    if (env && *env) {
        char reason[128];
        int trouble = strlen(env) < PATH_MAX ? program_trouble(env) : ENAMETOOLONG;
        if (trouble != 0)
            return error_raise(SHMPS_E_NO_DAEMON,
                               "no pubsubd answers, and SHMPS_PUBSUBD is \"%.200s\", which cannot "
                               "be run: %s; set it to pubsubd's path, or unset it",
                               env, strerror_r(trouble, reason, sizeof reason));
        memcpy(ret, env, strlen(env) + 1);
        return 0;
    }
    if (find_beside_library(ret) || find_in_path(ret))
        return 0;
    return error_raise(
        SHMPS_E_NO_DAEMON,
        "no pubsubd answers, and there is none to start: not beside libshmps, not in PATH; "
        "install it, or set SHMPS_PUBSUBD to its path");
}

/* ---- the watcher: a child of ours and pubsubd's parent, until that is ready or has ended */

/* Runs in the child of a process that may have other threads, which held any lock: system calls
 * and what signal handlers may call, nothing else. */
__attribute__((noreturn)) static void become_daemon(const char *path, const char *const argv[]) {
    static const char failed[] = "it cannot be run: ";
    sigset_t none;
    setsid();
    dup2(STDIN_FILENO, STDOUT_FILENO);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(path, (char *const *)argv, environ);
    const char *why = strerrordesc_np(errno);
    if (write(STDERR_FILENO, failed, sizeof failed - 1) > 0 && why)
        (void)!write(STDERR_FILENO, why, strlen(why));
    _exit(127);
}

/* Likewise. Nothing of ours stays open in it but the pipe; nor does it outlive us. */
__attribute__((noreturn)) static void watch(const struct start *start, pid_t client, int log,
                                            const char *const argv[]) {
    int status = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != client)
        _exit(0);
    signal(SIGCHLD, SIG_DFL); /* ignored, it would keep the status from us */
    dup2(log, STDERR_FILENO);
    fcntl(STDERR_FILENO, F_SETFD, 0); /* it was that already, in a program without stderr */
    close(STDIN_FILENO);
    close_range(STDERR_FILENO + 1, ~0u, 0);
    if (open("/dev/null", O_RDWR) == STDIN_FILENO) {
        pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
        if (pid == 0)
            become_daemon(start->path, argv);
        while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    }
    sem_post(start->ready);
    _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

/* A plain clone without an exit signal: the program that uses this library sees no SIGCHLD, and
 * no wait of its own takes our child. When the watcher goes, pubsubd is nobody's child. */
static int spawn(struct start *start, const char *const argv[]) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_system(errno, "cannot make the pipe in which pubsubd tells what is wrong");
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    pid_t client = getpid();
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* no handler of the program may run in the child */
    start->watcher = (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
    if (start->watcher == 0)
        watch(start, client, ends[1], argv);
    int e = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    close(ends[1]);
    start->log = ends[0];
    return start->watcher > 0 ? 0 : error_system(e, "cannot start %s", start->path);
}

static void wait_ready(sem_t *ready, uint64_t deadline_ns) {
    struct timespec deadline = { .tv_sec = (time_t)(deadline_ns / 1000000000),
                                 .tv_nsec = (long)(deadline_ns % 1000000000) };
    while (sem_clockwait(ready, CLOCK_MONOTONIC, &deadline) < 0 && errno == EINTR) {}
}

int autostart_begin(struct start *start, const char *instance, uint64_t deadline_ns) {
    char semaphore[SEGMENT_NAME_BYTES], name[INSTANCE_BYTES];
    *start = (struct start){ .watcher = -1, .log = -1, .ready = SEM_FAILED };
    int r = find_program(start->path);
    if (r < 0)
        return r;
    memcpy(name, instance, strlen(instance) + 1);
    segment_ready_name(semaphore, getuid(), instance, (pid_t)syscall(SYS_gettid));
    sem_unlink(semaphore); /* of an earlier process with our number */
    start->ready = sem_open(semaphore, O_CREAT | O_EXCL, 0600, 0);
    if (start->ready == SEM_FAILED)
        return error_system(errno, "cannot make the semaphore /dev/shm/sem.%s, with which pubsubd "
                            "tells that it is ready; is /dev/shm full?", semaphore + 1);
    const char *const argv[] = { "pubsubd",           "--instance", name, "--autostarted",
                                 "--ready-semaphore", semaphore,    NULL };
    r = spawn(start, argv);
    if (r == 0)
        wait_ready(start->ready, deadline_ns);
    sem_unlink(semaphore);
    return r;
}

bool autostart_ended(struct start *start) {
    if (!start->ended)
        start->ended = waitpid(start->watcher, &start->status, __WALL | WNOHANG) == start->watcher;
    return start->ended;
}

/* The last line that pubsubd, or who ran in its place, has written. */
static const char *last_line(int log, char *buffer, size_t room) {
    size_t n = 0;
    for (ssize_t got; (got = read(log, buffer + n, room - 1 - n)) > 0;) {
        n += (size_t)got;
        if (n == room - 1) { /* keep the end */
            memmove(buffer, buffer + room / 2, n - room / 2);
            n -= room / 2;
        }
    }
    while (n > 0 && buffer[n - 1] == '\n')
        n--;
    buffer[n] = '\0';
    char *line = memrchr(buffer, '\n', n);
    return line ? line + 1 : buffer;
}

static int error_start(const struct start *start, const char *instance, int64_t waited_ns) {
    static const char prefix[] = "pubsubd: error: ";
    char text[1024], end[64];
    const char *why = last_line(start->log, text, sizeof text);
    int status = WEXITSTATUS(start->status);
    if (strncmp(why, prefix, sizeof prefix - 1) == 0)
        why += sizeof prefix - 1;
    if (!start->ended)
        snprintf(end, sizeof end, "has not become ready in %lld ms",
                 (long long)(waited_ns / 1000000));
    else if (status > 128)
        snprintf(end, sizeof end, "was ended by signal %d", status - 128);
    else
        snprintf(end, sizeof end, "ended with status %d", status);
    return error_raise(SHMPS_E_NO_DAEMON, "%.150s was started for instance \"%s\" and %s%s%s",
                       start->path, instance, end, *why ? ": " : ", without a word", why);
}

int autostart_end(struct start *start, const char *instance, int r, int64_t waited_ns) {
    if (start->watcher > 0 && !autostart_ended(start)) {
        kill(start->watcher, SIGKILL);
        while (waitpid(start->watcher, NULL, __WALL) < 0 && errno == EINTR) {}
    }
    if (start->watcher > 0 && r == SHMPS_E_NO_DAEMON)
        r = error_start(start, instance, waited_ns);
    scope_close(&start->log);
    if (start->ready != SEM_FAILED)
        sem_close(start->ready);
    return r;
}
