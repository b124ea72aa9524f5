#include "session.h"

#include "base/error.h"
#include "log.h"
#include "wire/address.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#define ACCEPTS_A_TURN 16
#define REFUSED_MAX 16    /* clients being turned away at a time; more are hung up on at once */
#define RESERVE 64        /* descriptors for everything but clients */
#define BACK_OFF_NS INT64_C(100000000)
#define LISTEN_NS UINT64_C(3000000000)

struct server {
    struct bus *bus;
    char path[SOCKET_PATH_BYTES];
    int listener, spare, idle_timer, accept_timer;
    uint32_t watch, idle_watch, accept_watch;
    uint64_t descriptors; /* that clients may use up */
    bool autostarted;
    bool handed_over;     /* the listener is somebody else's, who goes on listening */
    bool idle;            /* nobody is there; autostarted: the timer runs */
    uint64_t idle_exit_ns; /* what the timer was set to */
};

static int set_timer(int fd, int64_t ns) {
    struct itimerspec t = {
        .it_value = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 },
    };
    return timerfd_settime(fd, 0, &t, NULL);
}

/* ---- accept */

static uint64_t descriptors_used(const struct bus *bus) {
    return 2 * (uint64_t)(bus->n_sessions - bus->n_refused) + bus->n_refused + bus->n_owners;
}

/* No descriptor is left, though some were kept: give up the spare one for a moment, so that who
 * waits learns that he waits in vain. False: not even that helped. */
static bool turn_away(struct server *server) {
    scope_close(&server->spare);
    int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
    bool accepted = fd >= 0 || errno == EAGAIN;
    scope_close(&fd);
    server->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return accepted;
}

static void welcome(struct server *server, int fd) {
    struct bus *bus = server->bus;
    int refuse = descriptors_used(bus) + 2 > server->descriptors ? SHMPS_E_NO_DESCRIPTORS : 0;
    if (refuse == 0 && bus->n_sessions - bus->n_refused >= bus->config->max_connections)
        refuse = SHMPS_E_LIMIT;
    if (refuse != 0 && bus->n_refused >= REFUSED_MAX) {
        scope_close(&fd);
        return;
    }
    if (session_new(bus, fd, refuse) < 0)
        log_debug("no session for who has just connected: %s", shmps_error_detail());
}

static void on_connect(void *data, uint32_t events) {
    struct server *server = data;
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            welcome(server, fd);
            continue;
        }
        if (errno == EAGAIN)
            break;
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        int r = error_system(errno, "cannot accept a client");
        bus_error(server->bus, r, "accept", shmps_error_detail());
        if (!turn_away(server)) { /* without a pause this would spin */
            set_timer(server->accept_timer, BACK_OFF_NS);
            loop_arm(server->bus->loop, server->accept_watch, POLLIN);
            return;
        }
    }
    loop_arm(server->bus->loop, server->watch, POLLIN);
}

static void read_timer(int fd) {
    uint64_t expirations;
    ssize_t n = read(fd, &expirations, sizeof(expirations));
    (void)n; /* nothing read: it was set anew meanwhile */
}

static void on_accept_timer(void *data, uint32_t events) {
    struct server *server = data;
    (void)events;
    read_timer(server->accept_timer);
    loop_arm(server->bus->loop, server->watch, POLLIN);
}

/* ---- an autostarted daemon ends some time after its last client */

static bool nobody_is_here(const struct bus *bus) {
    return bus->n_sessions == 0 && bus->owners == NULL;
}

static void on_idle_timer(void *data, uint32_t events) {
    struct server *server = data;
    (void)events;
    read_timer(server->idle_timer);
    server->idle = false;
    if (!nobody_is_here(server->bus))
        return;
    int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) { /* at the last moment */
        welcome(server, fd);
        return;
    }
    log_notice("no client for %" PRIu64 " ms: an autostarted pubsubd ends",
               server->idle_exit_ns / 1000000);
    server->bus->ending = true;
}

void server_turn(struct server *server) {
    bool idle = nobody_is_here(server->bus);
    uint64_t idle_exit_ns = server->bus->config->idle_exit_ns;
    if ((idle == server->idle && idle_exit_ns == server->idle_exit_ns) || server->bus->ending)
        return;
    server->idle = idle;
    server->idle_exit_ns = idle_exit_ns;
    if (idle)
        bus_rest(server->bus);
    if (!server->autostarted)
        return;
    set_timer(server->idle_timer, idle ? (int64_t)idle_exit_ns : 0);
    loop_arm(server->bus->loop, server->idle_watch, POLLIN);
}

/* ---- begin and end */

/* Each client costs two descriptors: its socket and its process. */
static uint64_t descriptors_for_clients(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1024 - RESERVE;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur >= 2 * RESERVE ? limit.rlim_cur - RESERVE : limit.rlim_cur / 2;
}

/* The kernel takes an io_uring apart some time after its process has died, and until then its
 * polls keep the dead daemon's socket open. As we hold the instance's lock, that is who
 * listens there - or a stranger, if he stays. */
static int listen_patiently(struct server *server, bool system) {
    uint64_t deadline = now_ns() + LISTEN_NS;
    for (;;) {
        int r = address_listen(server->path, system, &server->listener);
        if (r != SHMPS_E_BUSY || now_ns() >= deadline)
            return r;
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    }
}

static int open_descriptors(struct server *server, bool system) {
    struct loop *loop = server->bus->loop;
    server->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    server->idle_timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    server->accept_timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (server->spare < 0 || server->idle_timer < 0 || server->accept_timer < 0)
        return error_system(errno, "cannot make a timer");
    int r = loop_add(loop, server->idle_timer, on_idle_timer, server, &server->idle_watch);
    if (r == 0)
        r = loop_add(loop, server->accept_timer, on_accept_timer, server, &server->accept_watch);
    if (r == 0 && !server->handed_over)
        r = listen_patiently(server, system);
    if (r == 0)
        r = loop_add(loop, server->listener, on_connect, server, &server->watch);
    return r;
}

int server_new(struct server **ret, struct bus *bus, const char *path, int listener, bool system,
               bool autostarted) {
    struct server *server = calloc(1, sizeof(*server));
    if (server == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for the control socket");
    server->bus = bus;
    server->listener = listener;
    server->handed_over = listener >= 0;
    server->spare = server->idle_timer = server->accept_timer = -1;
    server->autostarted = autostarted;
    server->descriptors = descriptors_for_clients();
    if (strlen(path) >= sizeof(server->path)) {
        server_free(server);
        return error_raise(SHMPS_E_INVALID, "the socket's path has more than %zu bytes: %s",
                           sizeof(server->path) - 1, path);
    }
    memcpy(server->path, path, strlen(path) + 1);
    int r = open_descriptors(server, system);
    if (r < 0) {
        server_free(server);
        return r;
    }
    *ret = server;
    return 0;
}

void server_start(struct server *server) {
    loop_arm(server->bus->loop, server->watch, POLLIN);
}

void server_stop_listening(struct server *server) {
    if (server->listener < 0)
        return;
    if (!server->handed_over)
        unlink(server->path);
    loop_remove(server->bus->loop, server->watch);
    server->watch = 0;
    scope_close(&server->listener);
    server->listener = -1;
}

void server_free(struct server *server) {
    if (server == NULL)
        return;
    server_stop_listening(server);
    loop_remove(server->bus->loop, server->idle_watch);
    loop_remove(server->bus->loop, server->accept_watch);
    scope_close(&server->spare);
    scope_close(&server->idle_timer);
    scope_close(&server->accept_timer);
    free(server);
}
