#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_MS 10000
#define STOP_MS 5000

static bool wait_ready(int pipe_end) {
    char text[64] = "";
    size_t have = 0;
    while (!strstr(text, "ready\n")) {
        struct pollfd p = { .fd = pipe_end, .events = POLLIN };
        if (poll(&p, 1, START_MS) != 1 || have == sizeof text - 1)
            return false;
        ssize_t n = read(pipe_end, text + have, sizeof text - 1 - have);
        if (n <= 0)
            return false;
        have += (size_t)n;
        text[have] = '\0';
    }
    return true;
}

bool daemon_start(struct bench *b) {
    snprintf(b->directory, sizeof b->directory, "/tmp/shmps-bench-%d-XXXXXX", (int)getpid());
    if (!mkdtemp(b->directory)) {
        b->directory[0] = '\0';
        fail("cannot make a directory in /tmp: %s", strerror(errno));
        return false;
    }
    char instance[32];
    snprintf(instance, sizeof instance, "bench-%d", (int)getpid());
    setenv("XDG_RUNTIME_DIR", b->directory, 1);
    setenv("SHMPS_INSTANCE", instance, 1);
    setenv("SHMPS_AUTOSTART", "0", 1);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        fail("no pipe: %s", strerror(errno));
        return false;
    }
    fflush(NULL);
    b->daemon = fork();
    if (b->daemon == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl(b->pubsubd, "pubsubd", "--instance", instance, (char *)NULL);
        fail("cannot run %s: %s; build it, or set SHMPS_PUBSUBD", b->pubsubd, strerror(errno));
        _exit(127);
    }
    close(ends[1]);
    bool ready = b->daemon > 0 && wait_ready(ends[0]);
    close(ends[0]);
    if (!ready)
        fail("pubsubd did not say `ready` within %d s", START_MS / 1000);
    return ready;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *where) {
    (void)status;
    (void)kind;
    (void)where;
    return remove(path);
}

void daemon_stop(struct bench *b) {
    if (b->daemon > 0) {
        kill(b->daemon, SIGTERM);
        for (int ms = 0; waitpid(b->daemon, NULL, WNOHANG) == 0; ms += 10) {
            if (ms == STOP_MS) {
                fail("pubsubd did not end on SIGTERM; killed");
                kill(b->daemon, SIGKILL);
            }
            poll(NULL, 0, 10);
        }
        b->daemon = 0;
    }
    if (b->directory[0])
        nftw(b->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    b->directory[0] = '\0';
}

/* The number behind `key` in a file of /proc, or -1. */
static double proc_number(const char *path, const char *key) {
    FILE *f = fopen(path, "re");
    char line[256];
    double value = -1;
    while (f && value < 0 && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtod(line + strlen(key), NULL);
    if (f)
        fclose(f);
    return value;
}

/* Over all threads: times that one left its core, and the CPU time that they used. */
static bool activity(int pid, double *ret_switches, double *ret_cpu_ns) {
    char path[300];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        return false;
    *ret_switches = *ret_cpu_ns = 0;
    for (struct dirent *entry; (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.32s/status", pid, entry->d_name);
        *ret_switches += proc_number(path, "voluntary_ctxt_switches:");
        *ret_switches += proc_number(path, "nonvoluntary_ctxt_switches:");
        snprintf(path, sizeof path, "/proc/%d/task/%.32s/schedstat", pid, entry->d_name);
        double used = proc_number(path, "");
        *ret_cpu_ns += used > 0 ? used : 0;
    }
    closedir(tasks);
    return true;
}

static bool watch(const struct bench *b, double seconds, struct idle *ret) {
    struct timespec settle = { .tv_nsec = 300000000 };
    struct timespec time = { .tv_sec = (time_t)seconds };
    double switches[2], cpu_ns[2];
    nanosleep(&settle, NULL); /* let it finish what opening the handles caused */
    if (!activity(b->daemon, &switches[0], &cpu_ns[0]))
        return false;
    nanosleep(&time, NULL);
    if (!activity(b->daemon, &switches[1], &cpu_ns[1]))
        return false;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", b->daemon);
    ret->wakeups = switches[1] - switches[0];
    ret->cpu_ns = cpu_ns[1] - cpu_ns[0];
    ret->resident_mib = proc_number(path, "VmRSS:") / 1024;
    return ret->resident_mib > 0;
}

bool idle_measure(const struct bench *b, double seconds, struct idle *ret) {
    struct shmps *bus = NULL;
    struct shmps_publisher *pub = NULL;
    struct shmps_subscriber *sub = NULL;
    bool good = shmps_connect(&bus, NULL) == 0 &&
                shmps_publisher_open(bus, "bench/idle", NULL, &pub) == 0 &&
                shmps_subscriber_open(bus, "bench/idle", NULL, &sub) == 0;
    if (!good)
        fail("idle: %s", shmps_error_detail());
    good = good && watch(b, seconds, ret);
    shmps_subscriber_close(sub);
    shmps_publisher_close(pub);
    shmps_close(bus);
    return good;
}
