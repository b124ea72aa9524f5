#include "base/process.h"

#include "base/scope.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

/* The beginning of a file of /proc as a string. False if it cannot be read. */
static bool read_file(const char *path, char *ret, size_t room) {
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0) {
        return false;
    }
    do {
        n = read(fd, ret, room - 1);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        return false; /* ESRCH: it ended between open and read */
    }
    ret[n] = '\0';
    return true;
}

uint64_t process_start_time(pid_t pid) {
    char path[64], stat[1024], state;
    unsigned long long start;
    long threads;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (!read_file(path, stat, sizeof(stat))) {
        return 0;
    }
    /* Field 2 is the command in parentheses, which may itself contain any characters: the last ')'
     * ends it. */
    const char *rest = strrchr(stat, ')');
    if (rest == NULL) {
        return 0;
    }
    int found = sscanf(rest + 1,
                       " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %ld "
                       "%*s %llu",
                       &state, &threads, &start);
    bool ended = state == 'X' || state == 'x' || (state == 'Z' && threads <= 1);
    return found != 3 || ended ? 0 : start;
}

bool process_has_ended(pid_t pid, uint64_t start_time) {
    if (pid <= 0 || start_time == 0) {
        return false; /* it was not known who it is */
    }
    if (kill(pid, 0) < 0 && errno == ESRCH) {
        return true;
    }
    uint64_t now = process_start_time(pid);
    if (now != 0) {
        return now != start_time;
    }
    /* Not to be seen in /proc: hidden, or ended and not yet reaped. */
    _cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = { .fd = pidfd, .events = POLLIN };
    return pidfd >= 0 ? poll(&p, 1, 0) > 0 : errno == ESRCH;
}

void process_command(pid_t pid, char ret[COMMAND_BYTES]) {
    char path[64], comm[64];

    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    if (!read_file(path, comm, sizeof(comm))) {
        snprintf(comm, sizeof(comm), "?");
    }
    comm[strcspn(comm, "\n")] = '\0';
    /* All bytes are set: what is copied into a segment must not carry a stack's leftovers. */
    memset(ret, 0, COMMAND_BYTES);
    memcpy(ret, comm, strnlen(comm, COMMAND_BYTES - 1));
}

void boot_id(uint64_t ret[2]) {
    char text[64];
    uint64_t words[2] = { 0, 0 };
    unsigned digits = 0;

    ret[0] = ret[1] = 0;
    if (!read_file("/proc/sys/kernel/random/boot_id", text, sizeof(text))) {
        return;
    }
    for (const char *c = text; *c != '\0' && digits < 32; c++) {
        unsigned value;
        if (*c >= '0' && *c <= '9') {
            value = (unsigned)(*c - '0');
        } else if (*c >= 'a' && *c <= 'f') {
            value = (unsigned)(*c - 'a') + 10;
        } else {
            continue; /* the hyphens of the UUID */
        }
        words[digits / 16] = words[digits / 16] << 4 | value;
        digits++;
    }
    if (digits == 32) {
        ret[0] = words[0];
        ret[1] = words[1];
    }
}
