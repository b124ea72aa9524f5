/* pubsubd - lays out the shared memory of a bus and decides who may use it. It carries no
 * message. */
#include "activation.h"
#include "base/error.h"
#include "base/lock.h"
#include "bus.h"
#include "lock.h"
#include "log.h"
#include "session.h"
#include "settings.h"
#include "wait/futex.h"
#include "wire/address.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#define EXIT_USAGE 2

struct options {
    const char *instance; /* NULL: not chosen here */
    const char *config;
    const char *socket;
    const char *ready_semaphore;
    bool system;
    bool check_config;
    bool autostarted;
    bool verbose;
    enum loop_kind loop;
    int listener; /* the socket that a service manager handed over, or -1 */
};

static void print_usage(FILE *to) {
    fputs("usage: pubsubd [OPTION]...\n"
          "Lay out the shared memory of a publish/subscribe bus. Runs in the foreground, prints\n"
          "\"ready\" when it accepts clients, ends on SIGTERM, reads its configuration again on\n"
          "SIGHUP.\n"
          "\n"
          "  --instance NAME         the name of the bus (default: $SHMPS_INSTANCE, else as\n"
          "                          configured, else \"default\")\n"
          "  --system                the bus of the machine: socket in /run/pubsubd\n"
          "  --config FILE           the configuration (default: shmps/pubsubd.conf in\n"
          "                          $XDG_CONFIG_HOME or ~/.config; in /etc with --system)\n"
          "  --check-config          say whether it is well-formed: status 0, or 1 and where not\n"
          "  --socket PATH           listen here instead\n"
          "  --loop uring|epoll      how to wait (default: io_uring, else epoll; $SHMPS_LOOP)\n"
          "  --ready-semaphore NAME  post this named semaphore when ready\n"
          "  --autostarted           end some time (idle_exit) after the last client\n"
          "  --verbose               log every client\n"
          "  --version, --help\n"
          "\n"
          "A listening socket that a service manager hands over (LISTEN_FDS) is used instead of\n"
          "one of its own; NOTIFY_SOCKET is told READY=1, RELOADING=1 and STOPPING=1.\n",
          to);
}

static bool parse_loop(const char *name, enum loop_kind *ret) {
    if (strcmp(name, "uring") == 0)
        *ret = LOOP_URING;
    else if (strcmp(name, "epoll") == 0)
        *ret = LOOP_EPOLL;
    else
        return false;
    return true;
}

/* -1: go on; else exit with this status. */
static int parse_options(int argc, char **argv, struct options *o) {
    static const struct option known[] = {
        { "instance", required_argument, NULL, 'i' },
        { "system", no_argument, NULL, 's' },
        { "config", required_argument, NULL, 'c' },
        { "check-config", no_argument, NULL, 'C' },
        { "socket", required_argument, NULL, 'p' },
        { "loop", required_argument, NULL, 'l' },
        { "ready-semaphore", required_argument, NULL, 'r' },
        { "autostarted", no_argument, NULL, 'a' },
        { "verbose", no_argument, NULL, 'v' },
        { "version", no_argument, NULL, 'V' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    const char *loop = getenv("SHMPS_LOOP");
    const char *named = getenv("SHMPS_INSTANCE"); /* a socket's path is for clients only */
    bool by_name = named != NULL && *named != 0 && strchr(named, '/') == NULL;
    *o = (struct options){ .instance = by_name ? named : NULL };
    for (int c; (c = getopt_long(argc, argv, "h", known, NULL)) != -1;) {
        switch (c) {
        case 'i': o->instance = optarg; break;
        case 's': o->system = true; break;
        case 'c': o->config = optarg; break;
        case 'C': o->check_config = true; break;
        case 'p': o->socket = optarg; break;
        case 'l': loop = optarg; break;
        case 'r': o->ready_semaphore = optarg; break;
        case 'a': o->autostarted = true; break;
        case 'v': o->verbose = true; break;
        case 'V': puts("pubsubd " SHMPS_VERSION); return 0;
        case 'h': print_usage(stdout); return 0;
        default: print_usage(stderr); return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "pubsubd: \"%s\" is no option\n", argv[optind]);
        return EXIT_USAGE;
    }
    if (loop != NULL && *loop != '\0' && !parse_loop(loop, &o->loop)) {
        fprintf(stderr, "pubsubd: the loop is \"uring\" or \"epoll\", not \"%s\"\n", loop);
        return EXIT_USAGE;
    }
    return -1;
}

/* ---- signals */

struct signals {
    struct bus *bus;
    const struct settings *settings;
    int fd;
    uint32_t watch;
};

static void on_signal(void *data, uint32_t events) {
    struct signals *signals = data;
    struct signalfd_siginfo info;
    (void)events;
    bool read_it = read(signals->fd, &info, sizeof(info)) == sizeof(info);
    /* The kernel's own SIGHUP: the terminal of a daemon in the foreground has gone. */
    if (read_it && info.ssi_signo == SIGHUP && info.ssi_code != SI_KERNEL) {
        activation_notify("RELOADING=1\nMONOTONIC_USEC=%" PRIu64, now_ns() / 1000);
        settings_reload(signals->settings, signals->bus);
        activation_notify("READY=1");
    } else if (read_it) {
        log_notice("%s: ending", strsignal((int)info.ssi_signo));
        signals->bus->ending = true;
        return;
    }
    loop_arm(signals->bus->loop, signals->watch, POLLIN);
}

static int watch_signals(struct signals *signals, struct bus *bus) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals->bus = bus;
    signals->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals->fd < 0)
        return error_system(errno, "cannot receive signals");
    int r = loop_add(bus->loop, signals->fd, on_signal, signals, &signals->watch);
    if (r == 0)
        loop_arm(bus->loop, signals->watch, POLLIN);
    return r;
}

/* ---- ready */

/* Whoever started us waits for it; it is a hint, and its absence nobody's trouble but his. */
static void post_ready(const char *name) {
    if (name == NULL)
        return;
    sem_t *semaphore = sem_open(name, 0);
    if (semaphore == SEM_FAILED) {
        log_warning("cannot open the semaphore %s: %s", name, strerror(errno));
        return;
    }
    sem_post(semaphore);
    sem_close(semaphore);
}

static void print_ready(void) {
    static const char line[] = "ready\n";
    ssize_t n = write(STDOUT_FILENO, line, sizeof(line) - 1);
    (void)n; /* nobody reads it: then nobody waits for it */
}

/* ---- the life of a daemon */

static int find_path(struct options *o, char ret[SOCKET_PATH_BYTES]) {
    if (!instance_name_valid(o->instance))
        return error_raise(SHMPS_E_INVALID, "\"%s\" is no instance name: 1 to %d of A-Z a-z 0-9 _ "
                           "and - are", o->instance, INSTANCE_BYTES - 1);
    int r = activation_socket(&o->listener, ret);
    if (r == 0 && o->listener >= 0 && o->socket != NULL)
        return error_raise(SHMPS_E_INVALID, "a socket at %s was handed over (LISTEN_FDS), and "
                           "--socket names another; leave out one of them", ret);
    if (r < 0 || o->listener >= 0)
        return r;
    if (o->socket == NULL)
        return address_of_instance(o->instance, o->system, true, ret);
    if (strlen(o->socket) >= SOCKET_PATH_BYTES)
        return error_raise(SHMPS_E_INVALID, "a socket's path has at most %zu bytes: %s",
                           SOCKET_PATH_BYTES - 1, o->socket);
    memcpy(ret, o->socket, strlen(o->socket) + 1);
    return 0;
}

static int serve(struct bus *bus, struct server *server, const struct options *o,
                 const struct settings *settings) {
    bool found;
    int r = adopt(bus, &found);
    if (r == 0 && !found)
        r = bus_create(bus);
    if (r < 0)
        return r;
    server_start(server);
    bus_begin(bus);
    log_notice("pubsubd %s, instance \"%s\", epoch %" PRIu64 ", %s", SHMPS_VERSION, bus->instance,
               bus->epoch, loop_name(bus->loop));
    settings_tell_fixed(settings, bus, bus->config);
    post_ready(o->ready_semaphore);
    print_ready();
    activation_notify("READY=1\nSTATUS=instance %s", bus->instance);
    while (!bus->ending && r == 0) {
        server_turn(server);
        r = loop_turn(bus->loop, bus->openings == NULL);
        opening_step(bus);
    }
    if (r < 0)
        return r; /* as after a SIGKILL: the next daemon adopts what is there */
    activation_notify("STOPPING=1");
    /* What can be found goes first, then those who wait for the end see it. */
    server_stop_listening(server);
    bus_end(bus);
    instance_lock_remove(bus->uid, bus->instance);
    return 0;
}

static int run(struct bus *bus, const struct options *o, const struct settings *settings,
               const char *path) {
    struct signals signals = { .fd = -1, .settings = settings };
    struct server *server = NULL;
    int r = loop_new(&bus->loop, o->loop);
    if (r < 0)
        return r;
    r = watch_signals(&signals, bus);
    if (r == 0)
        r = server_new(&server, bus, path, o->listener, o->system, o->autostarted);
    if (r == 0)
        r = serve(bus, server, o, settings);
    session_forget_all(bus);
    reaper_forget(bus);
    server_free(server);
    loop_remove(bus->loop, signals.watch);
    scope_close(&signals.fd);
    loop_free(bus->loop);
    bus_forget(bus);
    return r;
}

/* Read the configuration, and say so if that is all that is asked for. */
static int configure(struct bus *bus, struct options *o, struct settings *settings) {
    bool found = false;
    settings->verbose = o->verbose;
    settings->instance_chosen = o->instance != NULL;
    int r = settings_find(settings, o->config, o->system);
    if (r == 0)
        r = settings_load(settings, &bus->config, &found);
    if (r < 0)
        return r;
    if (o->check_config) {
        printf(found ? "%s: well-formed\n" : "%s: not there, the defaults hold\n",
               settings->path[0] != '\0' ? settings->path : "a configuration");
        return 0;
    }
    settings_log(settings, bus->config);
    if (o->instance == NULL)
        o->instance = bus->config->instance[0] != '\0' ? bus->config->instance : "default";
    return 0;
}

int main(int argc, char **argv) {
    struct options o;
    static struct bus bus;
    static struct settings settings;
    char path[SOCKET_PATH_BYTES];
    _cleanup_close_ int lock = -1;
    int status = parse_options(argc, argv, &o);
    if (status >= 0)
        return status;
    signal(SIGPIPE, SIG_IGN); /* who started us may have gone, with the other end of stderr */
    log_setup(o.verbose ? LOG_DEBUG : LOG_INFO);
    umask(077);
    int r = configure(&bus, &o, &settings);
    if (o.check_config) {
        if (r < 0)
            fprintf(stderr, "%s\n", shmps_error_detail());
        config_free(bus.config);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    if (r == 0)
        r = find_path(&o, path);
    if (r == 0 && o.autostarted && chdir("/") < 0)
        r = error_system(errno, "cannot leave the directory it was started in");
    if (o.autostarted)
        unsetenv("NOTIFY_SOCKET"); /* it waits for the program that started us, not for us */
    bus.uid = geteuid();
    bus.directory_fd = -1;
    /* That a socket answers which somebody else keeps open says nothing about a daemon. */
    if (r == 0)
        r = lock_take(bus.uid, o.instance, o.listener < 0 ? path : NULL, &lock);
    if (r == SHMPS_E_BUSY)
        post_ready(o.ready_semaphore); /* there is a daemon, which is what its user waits for */
    if (r == 0) {
        memcpy(bus.instance, o.instance, strlen(o.instance) + 1);
        boot_id(bus.boot);
        barrier_registered();
        r = run(&bus, &o, &settings, path);
        if (r < 0) /* what it found stays, an empty file need not */
            instance_lock_remove(bus.uid, bus.instance);
    }
    config_free(bus.config);
    if (r < 0)
        log_error("%s: %s", shmps_error_name(r), shmps_error_detail());
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
