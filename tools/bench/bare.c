#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 60000

static const struct {
    const char *section, *name, *metric, *title;
} figures[BARE_COUNT] = {
    [BARE_LINE] = { "pp", "cache line ping-pong, 1 line", "RTT/2 mean", "cache line ping-pong" },
    [BARE_TWO_LINES] = { "pp", "cache line ping-pong, 2 lines", "RTT/2 mean", "... over 2 lines" },
    [BARE_FUTEX] = { "pp", "futex", "p50", "bare futex" },
    [BARE_EPOLL] = { "pp", "eventfd+epoll", "p50", "bare eventfd + epoll" },
    [BARE_RING] = { "spsc", "SPSC 64-B slots, 56-B payload", "rate", "bare ring, 64-B slots" },
};

const char *bare_name(enum bare which) {
    return figures[which].title;
}

/* Take a line `group TAB name TAB metric TAB unit TAB value` apart; true if it is the last figure
 * that was asked for. */
static bool take_line(char *line, enum bare last, double ret[BARE_COUNT]) {
    char *field[5] = { 0 }, *rest = line;
    for (int i = 0; i < 5; i++)
        if (!(field[i] = strsep(&rest, "\t\r\n")))
            return false;
    for (int i = 0; i < BARE_COUNT; i++) {
        if (strcmp(field[1], figures[i].name) != 0 || strcmp(field[2], figures[i].metric) != 0)
            continue;
        ret[i] = strtod(field[4], NULL);
        if (i == (int)last)
            return true;
    }
    return false;
}

/* In the child: a new session whose terminal is `name`, so that the program writes line by line,
 * and we need not wait for the rest of its section. */
static void run_limits(const struct bench *b, const char *name, const char *section) {
    setsid();
    int terminal = open(name, O_RDWR);
    if (terminal < 0 || dup2(terminal, STDOUT_FILENO) < 0)
        _exit(127);
    close(terminal);
    execl(b->limits, "shmps-limits", section, (char *)NULL);
    _exit(127);
}

static bool read_until(int terminal, enum bare last, double ret[BARE_COUNT]) {
    char text[512];
    size_t have = 0;
    double deadline = now_ns() + PATIENCE_MS * 1e6;
    for (;;) {
        struct pollfd p = { .fd = terminal, .events = POLLIN };
        int left_ms = (int)((deadline - now_ns()) / 1e6);
        if (left_ms <= 0 || (poll(&p, 1, left_ms) < 0 && errno != EINTR))
            return false;
        ssize_t n = read(terminal, text + have, sizeof text - 1 - have);
        if (n <= 0) /* EIO: it has ended */
            return false;
        have += (size_t)n;
        text[have] = '\0';
        for (char *end; (end = strchr(text, '\n'));) {
            char line[512];
            size_t length = (size_t)(end + 1 - text);
            memcpy(line, text, length);
            line[length] = '\0';
            memmove(text, end + 1, have + 1 - length);
            have -= length;
            if (take_line(line, last, ret))
                return true;
        }
        if (have == sizeof text - 1)
            return false; /* no line of this program is that long */
    }
}

bool bare_measure(const struct bench *b, enum bare last, double ret[BARE_COUNT]) {
    if (!b->limits[0])
        return false;
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal < 0 || grantpt(terminal) < 0 || unlockpt(terminal) < 0) {
        fail("no pseudo-terminal for shmps-limits: %s; mount devpts", strerror(errno));
        return false;
    }
    char name[64];
    if (ptsname_r(terminal, name, sizeof name) != 0) {
        close(terminal);
        return false;
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        run_limits(b, name, figures[last].section);
    /* Held open until the end: otherwise reading fails while the child has not opened it yet. */
    int held = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    bool good = pid > 0 && read_until(terminal, last, ret);
    if (pid > 0) {
        kill(-pid, SIGKILL); /* its own forked half spins or sleeps for ever otherwise */
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        while (waitpid(-pid, NULL, 0) > 0) {} /* that half is ours to bury now: see main() */
    }
    close(held);
    close(terminal);
    if (!good)
        fail("%s did not print \"%s\"", b->limits, figures[last].name);
    return good;
}
