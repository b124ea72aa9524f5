#include "stage.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define JOIN_DEADLINE_NS (15 * SECOND_NS)

static bool fail(struct stage *stage, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static bool fail(struct stage *stage, const char *format, ...) {
    if (stage->problem[0] == '\0') { /* the first one is the cause of the others */
        va_list args;
        va_start(args, format);
        vsnprintf(stage->problem, sizeof(stage->problem), format, args);
        va_end(args);
    }
    return false;
}

/* ---- directories and surroundings */

/* $SHMPS_PUBSUBD, else the one built with this program, else the one installed beside it. */
static bool find_pubsubd(struct stage *stage) {
    static const char *const places[] = {"../../pubsubd/pubsubd", "pubsubd"};
    const char *given = getenv("SHMPS_PUBSUBD");
    char self[PATH_MAX], path[PATH_MAX + 32];
    if (given != NULL && given[0] != '\0')
        return realpath(given, stage->pubsubd) != NULL ||
               fail(stage, "SHMPS_PUBSUBD=%s: %s; set it to the path of pubsubd", given,
                    strerror(errno));
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0)
        return fail(stage, "/proc/self/exe: %s", strerror(errno));
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", self, places[i]);
        if (realpath(path, stage->pubsubd) != NULL)
            return true;
    }
    return fail(stage, "pubsubd is not beside %s; build it, or set SHMPS_PUBSUBD to its path",
                self);
}

static bool open_out(struct stage *stage, const char *out) {
    if (mkdir(out, 0777) < 0 && errno != EEXIST)
        return fail(stage, "%s: %s; choose another place for the records with --out", out,
                    strerror(errno));
    if (realpath(out, stage->out) == NULL || strlen(stage->out) > PATH_MAX - 64)
        return fail(stage, "%s: %s", out, strerror(errno));
    stage->lock_fd = open(stage->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (stage->lock_fd < 0)
        return fail(stage, "%s: %s", out, strerror(errno));
    if (flock(stage->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return fail(stage,
                    "another demo is writing to %s; give this one its own place with --out", out);
    snprintf(stage->log, sizeof(stage->log), "%.4000s/pubsubd.log", stage->out);
    unlink(stage->log);
    for (int role = 0; role < ROLE_COUNT; role++) {
        char *path = stage->members[role].record;
        snprintf(path, PATH_MAX, "%.4000s/%s.%s.txt", stage->out,
                 role < ROLE_FIRST_SUBSCRIBER ? "sent" : "received", role_names[role]);
        if (unlink(path) < 0 && errno != ENOENT) /* of an earlier run */
            return fail(stage, "%s: %s; choose another place for the records with --out", path,
                        strerror(errno));
    }
    return true;
}

bool stage_open(struct stage *stage, const char *out) {
    *stage =
        (struct stage){.lock_fd = -1, .signal_fd = -1, .daemon_fd = -1, .start_ns = now_ns()};
    for (int role = 0; role < ROLE_COUNT; role++)
        stage->members[role].report_fd = -1;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN); /* nobody reads the table any more: still end everything */
    stage->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (stage->signal_fd < 0)
        return fail(stage, "signalfd: %s", strerror(errno));
    if (!find_pubsubd(stage) || !open_out(stage, out))
        return false;
    snprintf(stage->runtime, sizeof(stage->runtime), "/tmp/shmps-demo-XXXXXX");
    if (mkdtemp(stage->runtime) == NULL) {
        stage->runtime[0] = '\0';
        return fail(stage, "/tmp: %s", strerror(errno));
    }
    snprintf(stage->instance, sizeof(stage->instance), "demo-%d", (int)getpid());
    setenv("XDG_RUNTIME_DIR", stage->runtime, 1);
    setenv("SHMPS_INSTANCE", stage->instance, 1);
    setenv("SHMPS_AUTOSTART", "0", 1); /* while pubsubd is dead, it shall stay dead */
    return true;
}

/* ---- processes */

/* In a new child. It has its own process group: Ctrl-C is for the stage to handle. */
static void become_child(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
}

static void run_daemon(struct stage *stage, int stdout_fd) {
    int log_fd = open(stage->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    become_child();
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* kept by exec: no daemon without its demo */
    if (dup2(stdout_fd, STDOUT_FILENO) < 0 || dup2(log_fd, STDERR_FILENO) < 0)
        _exit(127);
    execl(stage->pubsubd, "pubsubd", "--instance", stage->instance, (char *)NULL);
    _exit(127);
}

static bool daemon_is_ready(struct stage *stage, uint32_t roles) {
    (void)roles;
    return stage->daemon_ready;
}

static bool wait_until(struct stage *stage, bool (*until)(struct stage *, uint32_t),
                       uint32_t roles, uint64_t duration_ns);

bool stage_start_daemon(struct stage *stage) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return fail(stage, "pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0)
        run_daemon(stage, fds[1]);
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return fail(stage, "fork: %s", strerror(errno));
    }
    stage->daemon_pid = pid;
    stage->daemon_fd = fds[0];
    stage->daemon_ready = false;
    return wait_until(stage, daemon_is_ready, 0, JOIN_DEADLINE_NS) ||
           fail(stage, "pubsubd did not say that it is ready; see %.900s", stage->log);
}

/* Its end; the status of waitpid(). */
static int forget_daemon(struct stage *stage) {
    int status = 0;
    waitpid(stage->daemon_pid, &status, 0);
    close(stage->daemon_fd);
    stage->daemon_fd = -1;
    stage->daemon_pid = 0;
    stage->daemon_ready = false;
    return status;
}

bool stage_kill_daemon(struct stage *stage) {
    kill(stage->daemon_pid, SIGKILL);
    int status = forget_daemon(stage);
    return (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
           fail(stage, "pubsubd had ended before it was killed (status 0x%x); see %.900s",
                (unsigned)status, stage->log);
}

bool stage_start(struct stage *stage, enum role role) {
    struct member *member = &stage->members[role];
    int fds[2];
    char number[16];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return fail(stage, "socketpair: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        become_child();
        fcntl(fds[1], F_SETFD, 0);
        snprintf(number, sizeof(number), "%d", fds[1]);
        execl("/proc/self/exe", "shmps-demo", role_names[role], number, member->record,
              (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return fail(stage, "fork: %s", strerror(errno));
    }
    member->pid = pid;
    member->report_fd = fds[0];
    return true;
}

/* A child has ended: as it should, if it said so before. */
static bool forget_member(struct stage *stage, enum role role) {
    struct member *member = &stage->members[role];
    int status = 0;
    waitpid(member->pid, &status, 0);
    close(member->report_fd);
    member->report_fd = -1;
    member->pid = 0;
    if (member->done && status == 0)
        return true;
    if (WIFSIGNALED(status))
        return fail(stage, "%s was ended by signal %d (%s)", role_names[role], WTERMSIG(status),
                    strsignal(WTERMSIG(status)));
    return fail(stage, "%s ended with status %d before it was done", role_names[role],
                WEXITSTATUS(status));
}

void stage_terminate(struct stage *stage, enum role role) {
    if (stage->members[role].pid != 0)
        kill(stage->members[role].pid, SIGTERM);
}

/* ---- listening */

static bool take_topic(struct stage *stage, struct member *member, const struct report *report) {
    size_t i = 0;
    while (i < member->n_topics && strcmp(member->topics[i].text, report->text) != 0)
        i++;
    if (i == DEMO_TOPICS_MAX)
        return fail(stage, "more than %d topics", DEMO_TOPICS_MAX);
    member->topics[i] = *report;
    if (i == member->n_topics)
        member->n_topics++;
    return true;
}

static bool take_report(struct stage *stage, enum role role) {
    struct member *member = &stage->members[role];
    struct report report;
    ssize_t n = recv(member->report_fd, &report, sizeof(report), 0);
    if (n == 0)
        return forget_member(stage, role);
    if (n != (ssize_t)sizeof(report))
        return fail(stage, "%s: a report of %zd bytes", role_names[role], n);
    report.text[sizeof(report.text) - 1] = '\0';
    if (report.kind == REPORT_READY)
        member->ready = true;
    else if (report.kind == REPORT_TOPIC)
        return take_topic(stage, member, &report);
    else if (report.kind == REPORT_FAILED)
        return fail(stage, "%s: %s", role_names[role], report.text);
    else {
        member->done = true;
        member->result = report;
    }
    return true;
}

static bool take_daemon_word(struct stage *stage) {
    char text[64];
    ssize_t n = read(stage->daemon_fd, text, sizeof(text));
    if (n > 0) {
        if (memmem(text, (size_t)n, "ready", 5) != NULL)
            stage->daemon_ready = true;
        return true;
    }
    int status = forget_daemon(stage);
    return fail(stage, "pubsubd ended by itself (status 0x%x); see %.900s", (unsigned)status,
                stage->log);
}

static bool take_signal(struct stage *stage) {
    struct signalfd_siginfo info;
    if (read(stage->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return true;
    stage->interrupted = (int)info.ssi_signo;
    return false;
}

/* One look at everything that can be heard, for timeout_ms at most. */
static bool listen_once(struct stage *stage, int timeout_ms) {
    struct pollfd fds[ROLE_COUNT + 2];
    for (int role = 0; role < ROLE_COUNT; role++)
        fds[role] = (struct pollfd){.fd = stage->members[role].report_fd, .events = POLLIN};
    fds[ROLE_COUNT] = (struct pollfd){.fd = stage->signal_fd, .events = POLLIN};
    fds[ROLE_COUNT + 1] = (struct pollfd){.fd = stage->daemon_fd, .events = POLLIN};
    if (poll(fds, ROLE_COUNT + 2, timeout_ms) < 0)
        return errno == EINTR || fail(stage, "poll: %s", strerror(errno));
    for (int role = 0; role < ROLE_COUNT; role++)
        if (fds[role].revents != 0 && !take_report(stage, (enum role)role))
            return false;
    if (fds[ROLE_COUNT + 1].revents != 0 && !take_daemon_word(stage))
        return false;
    return fds[ROLE_COUNT].revents == 0 || take_signal(stage);
}

/* True as soon as `until` is; NULL: when the time is over. False: the time is over, a problem, or
 * an interruption. */
static bool wait_until(struct stage *stage, bool (*until)(struct stage *, uint32_t),
                       uint32_t roles, uint64_t duration_ns) {
    uint64_t end_ns = now_ns() + duration_ns;
    for (;;) {
        if (until != NULL && until(stage, roles))
            return true;
        uint64_t time_ns = now_ns();
        if (time_ns >= end_ns)
            return until == NULL;
        if (time_ns >= stage->next_tick_ns && stage->on_tick != NULL) {
            stage->next_tick_ns = time_ns + STAGE_TICK_NS;
            stage->on_tick(stage, stage->user);
        }
        uint64_t next_ns = end_ns < stage->next_tick_ns ? end_ns : stage->next_tick_ns;
        int timeout_ms = next_ns > time_ns ? (int)((next_ns - time_ns + 999999) / 1000000) : 0;
        if (!listen_once(stage, timeout_ms))
            return false;
    }
}

static bool all_ready(struct stage *stage, uint32_t roles) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if ((roles >> role & 1) && !stage->members[role].ready)
            return false;
    return true;
}

static bool all_ended(struct stage *stage, uint32_t roles) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if ((roles >> role & 1) && stage->members[role].pid != 0)
            return false;
    return true;
}

static uint32_t role_set(enum role first, enum role last) {
    return (UINT32_C(2) << last) - (UINT32_C(1) << first);
}

bool stage_wait_ready(struct stage *stage, enum role first, enum role last) {
    return wait_until(stage, all_ready, role_set(first, last), JOIN_DEADLINE_NS) ||
           (!stage->interrupted &&
            fail(stage, "%s and those with it were not ready in time", role_names[first]));
}

bool stage_wait_end(struct stage *stage, enum role first, enum role last) {
    return wait_until(stage, all_ended, role_set(first, last), JOIN_DEADLINE_NS) ||
           (!stage->interrupted &&
            fail(stage, "%s and those with it did not end in time", role_names[first]));
}

bool stage_play(struct stage *stage, uint64_t duration_ns) {
    return wait_until(stage, NULL, 0, duration_ns);
}

/* ---- the end */

static bool stop_daemon(struct stage *stage) {
    if (stage->daemon_pid == 0)
        return true;
    kill(stage->daemon_pid, SIGTERM);
    struct pollfd gone = {.fd = stage->daemon_fd};
    bool in_time = poll(&gone, 1, 5000) > 0;
    if (!in_time)
        kill(stage->daemon_pid, SIGKILL);
    int status = forget_daemon(stage);
    return status == 0 ||
           fail(stage, "pubsubd did not end well after SIGTERM (status 0x%x); see %.900s",
                (unsigned)status, stage->log);
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    (void)status, (void)kind, (void)walk;
    remove(path);
    return 0;
}

bool stage_close(struct stage *stage) {
    bool well = stage->problem[0] == '\0' && !stage->interrupted;
    stage->on_tick = NULL;
    for (int role = 0; role < ROLE_COUNT; role++)
        if (stage->members[role].pid != 0) {
            kill(stage->members[role].pid, SIGKILL);
            forget_member(stage, (enum role)role);
        }
    if (stage->daemon_pid == 0 && stage->runtime[0] != '\0' && !well) {
        /* A dead one leaves its segments: a new one finds them, and removes them when it ends. */
        int interrupted = stage->interrupted;
        stage_start_daemon(stage);
        stage->interrupted = interrupted;
    }
    bool stopped = stop_daemon(stage);
    if (stage->runtime[0] != '\0')
        nftw(stage->runtime, remove_entry, 4, FTW_DEPTH | FTW_PHYS);
    close(stage->signal_fd);
    if (stage->lock_fd >= 0)
        close(stage->lock_fd);
    return well && stopped;
}

/* ---- sums */

struct totals stage_totals(const struct stage *stage, enum role role) {
    struct totals sum = {0};
    for (size_t i = 0; i < stage->members[role].n_topics; i++) {
        sum.messages += stage->members[role].topics[i].messages;
        sum.bytes += stage->members[role].topics[i].bytes;
        sum.lost += stage->members[role].topics[i].lost;
    }
    return sum;
}

struct totals stage_sent(const struct stage *stage) {
    struct totals sum = stage_totals(stage, ROLE_HOST), frames = stage_totals(stage, ROLE_FRAMES);
    sum.messages += frames.messages;
    sum.bytes += frames.bytes;
    return sum;
}
