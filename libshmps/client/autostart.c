#include "client/client.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

static bool is_program(const char *path) {
    return access(path, X_OK) == 0;
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
        if (strlen(env) >= PATH_MAX || !is_program(env))
            return error_raise(SHMPS_E_NO_DAEMON,
                               "SHMPS_PUBSUBD is \"%.200s\", which is no program that can be run",
                               env);
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

/* Run it as nobody's child, in a session of its own, with nothing of ours open: two plain clones,
 * the first without an exit signal, so that the program that uses this library sees neither
 * SIGCHLD nor a zombie. Between clone and exec only system calls are made, as other threads may
 * have held any lock. */
static int spawn(const char *path, const char *const argv[]) {
    _cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return error_system(errno, "cannot open /dev/null for pubsubd");
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* no handler of the program may run in the child */
    pid_t pid = (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
    if (pid == 0) {
        setsid();
        if (syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) != 0)
            _exit(0);
        for (int fd = 0; fd <= 2; fd++)
            dup2(null, fd);
        syscall(SYS_close_range, 3u, ~0u, 0u);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execve(path, (char *const *)argv, environ);
        _exit(127);
    }
    int e = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (pid < 0)
        return error_system(e, "cannot start %s", path);
    while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR) {}
    return 0;
}

static void wait_ready(sem_t *ready, uint64_t deadline_ns) {
    struct timespec deadline = { .tv_sec = (time_t)(deadline_ns / 1000000000),
                                 .tv_nsec = (long)(deadline_ns % 1000000000) };
    while (sem_clockwait(ready, CLOCK_MONOTONIC, &deadline) < 0 && errno == EINTR) {}
}

int autostart(const char *instance, uint64_t deadline_ns) {
    char path[PATH_MAX], semaphore[SEGMENT_NAME_BYTES], name[INSTANCE_BYTES];
    int r = find_program(path);
    if (r < 0)
        return r;
    memcpy(name, instance, strlen(instance) + 1);
    snprintf(semaphore, sizeof semaphore, "/shmps.%u.%s.ready.%ld", (unsigned)getuid(), instance,
             (long)syscall(SYS_gettid));
    sem_unlink(semaphore); /* of an earlier process with our number */
    sem_t *ready = sem_open(semaphore, O_CREAT | O_EXCL, 0600, 0);
    if (ready == SEM_FAILED)
        return error_system(errno, "cannot make the semaphore %s that tells when pubsubd is ready",
                            semaphore);
    const char *const argv[] = { "pubsubd",           "--instance", name, "--autostarted",
                                 "--ready-semaphore", semaphore,    NULL };
    r = spawn(path, argv);
    if (r == 0)
        wait_ready(ready, deadline_ns);
    sem_close(ready);
    sem_unlink(semaphore);
    return r;
}
