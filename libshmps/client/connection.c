#include "client/client.h"

#include "base/instance.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

/* ---- after fork */

atomic_u64 *fork_word;
static pthread_mutex_t fork_lock = PTHREAD_MUTEX_INITIALIZER;

int error_forked(void) {
    return error_raise(SHMPS_E_FORKED, "this handle was opened before fork(); call "
                                       "shmps_connect() in the child and open new ones");
}

struct told error_tell(void) {
    struct told told;
    snprintf(told.detail, sizeof told.detail, "%s", shmps_error_detail());
    return told;
}

int error_again(int code, const struct told *told) {
    return error_raise(code, "%s", told->detail);
}

/* The kernel zeroes the page in every child, also after vfork-less clone(), so a handle's mark no
 * longer equals it. */
static int fork_mark(uint64_t *ret) {
    static uint64_t count;
    pthread_mutex_lock(&fork_lock);
    if (!fork_word) {
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED || madvise(page, 4096, MADV_WIPEONFORK) < 0) {
            int e = errno;
            if (page != MAP_FAILED)
                munmap(page, 4096);
            pthread_mutex_unlock(&fork_lock);
            return error_system(e, "cannot set up a page that forked children lose");
        }
        fork_word = page;
    }
    /* relaxed: this process's own word, under fork_lock */
    uint64_t mark = atomic_load_relaxed(fork_word);
    if (mark == 0) {
        mark = now_ns() ^ ++count;             /* not that of the parent: time has passed since */
        atomic_store_relaxed(fork_word, mark); /* relaxed: as above */
    }
    pthread_mutex_unlock(&fork_lock);
    *ret = mark;
    return 0;
}

/* ---- finding the instance */

struct target {
    bool is_path; /* `name` is a socket's path */
    char name[SOCKET_PATH_BYTES];
};

static int choose_target(const struct shmps_connect_options *o, struct target *t) {
    const char *name = o->instance;
    if (!name || !*name)
        name = getenv("SHMPS_INSTANCE");
    if (!name || !*name)
        name = "default";
    t->is_path = strchr(name, '/') != NULL;
    if (strlen(name) >= sizeof t->name)
        return error_raise(
            SHMPS_E_INVALID,
            "the socket path \"%.40s...\" is longer than %zu bytes; use a shorter one", name,
            sizeof t->name - 1);
    if (!t->is_path && !instance_name_valid(name))
        return error_raise(SHMPS_E_INVALID,
                           "\"%.40s\" is no instance name; 1 to 32 of A-Z a-z 0-9 _ and -", name);
    memcpy(t->name, name, strlen(name) + 1);
    return 0;
}

static int try_path(struct shmps *bus, const char *path) {
    memcpy(bus->socket_path, path, strlen(path) + 1);
    return session_open(bus);
}

/* This user's instance, else the system's. NO_DAEMON: neither answers. */
static int try_instance(struct shmps *bus, const char *name) {
    char path[SOCKET_PATH_BYTES];
    int r = address_of_instance(name, false, false, path);
    if (r == 0)
        r = try_path(bus, path);
    if (r != SHMPS_E_NO_DAEMON)
        return r;
    struct told told = error_tell();
    int s = address_of_instance(name, true, false, path);
    if (s == 0)
        s = try_path(bus, path);
    return s == SHMPS_E_NO_DAEMON ? error_again(r, &told) : s;
}

static int start_and_try(struct shmps *bus, const char *name) {
    uint64_t deadline = bus->deadline_ns;
    char path[SOCKET_PATH_BYTES];
    int r = address_of_instance(name, false, true, path);
    if (r < 0)
        return r;
    struct start start;
    r = autostart_begin(&start, name, deadline);
    bool again = r == 0;
    while (again) { /* the semaphore is a hint: only a connect counts */
        again = !autostart_ended(&start) && now_ns() < deadline;
        r = try_path(bus, path);
        again = again && r == SHMPS_E_NO_DAEMON;
        if (again)
            nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
    }
    return autostart_end(&start, name, r, bus->timeout_ns);
}

static int open_session(struct shmps *bus, const struct target *t) {
    if (t->is_path)
        return try_path(bus, t->name);
    int r = try_instance(bus, t->name);
    if (r == SHMPS_E_NO_DAEMON && bus->autostart && now_ns() < bus->deadline_ns)
        r = start_and_try(bus, t->name);
    return r;
}

/* A socket's path tells nothing about segments: its pubsubd tells name and user. */
static int ask_name(struct shmps *bus, const char *path) {
    bus->admin = true;
    int r = try_path(bus, path);
    bus->admin = false;
    session_drop(bus);
    return r;
}

static int open_observing(struct shmps *bus, const struct target *t) {
    _cleanup_close_ int fd = -1;
    int r;
    if (t->is_path) {
        r = ask_name(bus, t->name);
        if (r == 0)
            r = instance_open_of(bus->uid, bus->instance, &fd);
    } else {
        memcpy(bus->instance, t->name, strlen(t->name) + 1);
        r = instance_open(bus->instance, &bus->uid, &fd);
    }
    if (r == 0)
        r = segment_map(fd, SEGMENT_READ, sizeof(struct directory_header), &bus->directory_map);
    if (r == 0)
        r = directory_attach(&bus->directory, bus->directory_map.base, bus->directory_map.bytes);
    return r;
}

static int check_options(const struct shmps_connect_options *given,
                         struct shmps_connect_options *o) {
    *o = (struct shmps_connect_options)SHMPS_CONNECT_OPTIONS_INIT;
    if (given) {
        if (given->size < offsetof(struct shmps_connect_options, instance) ||
            given->size > sizeof *o)
            return error_raise(SHMPS_E_INVALID,
                               "shmps_connect_options.size is %zu, this library knows up to %zu; "
                               "initialise it with SHMPS_CONNECT_OPTIONS_INIT",
                               given->size, sizeof *o);
        memcpy(o, given, given->size);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(o->reserved); i++)
        if (o->reserved[i] != 0)
            return error_raise(SHMPS_E_INVALID,
                               "a reserved field of shmps_connect_options is not zero");
    if (o->autostart < 0 || o->autostart > SHMPS_AUTOSTART_OFF || o->observe < 0 ||
        o->observe > 1 || o->timeout_ns < 0 || o->admin < 0 || o->admin > 1 ||
        (o->admin && o->observe) || o->reserved0 != 0)
        return error_raise(SHMPS_E_INVALID, "autostart, observe, admin, timeout_ns or a reserved "
                           "field of shmps_connect_options is out of range");
    return 0;
}

static struct shmps *connection_new(const struct shmps_connect_options *o) {
    struct shmps *bus = calloc(1, sizeof *bus);
    if (!bus)
        return NULL;
    pthread_mutex_init(&bus->lock, NULL);
    dispatch_init(&bus->dispatch);
    bus->session = -1;
    bus->observe = o->observe;
    bus->admin = o->admin;
    const char *env = getenv("SHMPS_AUTOSTART");
    bool off = o->admin || o->autostart == SHMPS_AUTOSTART_OFF;
    bus->autostart =
        !off && (o->autostart == SHMPS_AUTOSTART_ON || !(env && strcmp(env, "0") == 0));
    bus->timeout_ns = o->timeout_ns > 0 ? o->timeout_ns : INT64_C(5000000000);
    bus->deadline_ns = deadline_of(bus->timeout_ns);
    bus->fence = !barrier_registered();
    if (getrandom(&bus->secret, sizeof bus->secret, 0) != sizeof bus->secret)
        bus->secret = now_ns();
    return bus;
}

int shmps_connect(struct shmps **ret, const struct shmps_connect_options *options) {
    struct shmps_connect_options o;
    struct target target;
    uint64_t mark = 0;
    if (!ret)
        return error_raise(SHMPS_E_INVALID,
                           "shmps_connect() needs a place for the connection; it got NULL");
    int r = check_options(options, &o);
    if (r == 0)
        r = choose_target(&o, &target);
    if (r == 0)
        r = fork_mark(&mark);
    if (r < 0)
        return r;
    struct shmps *bus = connection_new(&o);
    if (!bus)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for a connection");
    bus->fork_mark = mark;
    r = bus->observe ? open_observing(bus, &target) : open_session(bus, &target);
    if (r == 0 && !bus->observe)
        session_settle(bus);
    if (r < 0) {
        struct told told = error_tell();
        shmps_close(bus);
        return error_again(r, &told);
    }
    bus->deadline_ns = NEVER;
    *ret = bus;
    return 0;
}

void connection_end(struct shmps *bus) {
    bool forked = is_forked(bus);
    if (!forked && bus->dispatch.started)
        shmps_loop_stop(bus);
    while (bus->subscribers)
        shmps_subscriber_close(bus->subscribers);
    while (bus->publishers)
        shmps_publisher_close(bus->publishers);
    scope_close(&bus->dispatch.epoll);
    scope_close(&bus->dispatch.stop_event);
    if (forked) { /* threads of the parent may have had the locks */
        scope_close(&bus->session); /* the parent's goes on; nothing is mapped here */
    } else {
        session_leave(bus);
        session_drop(bus);
        segment_unmap(&bus->directory_map);
        pthread_cond_destroy(&bus->dispatch.served);
        pthread_mutex_destroy(&bus->dispatch.lock);
        pthread_mutex_destroy(&bus->lock);
    }
    free(bus);
}

void shmps_close(struct shmps *bus) {
    if (bus && (is_forked(bus) || !dispatch_close_later(&bus->dispatch)))
        connection_end(bus);
}

const char *shmps_instance(const struct shmps *bus) {
    return bus->instance;
}

int shmps_daemon_alive(struct shmps *bus) {
    CHECK_FORK(bus);
    if (bus->observe)
        return error_raise(SHMPS_E_STATE, "an observing connection does not talk to pubsubd");
    struct wire_plain ping;
    struct wire_reply reply;
    pthread_mutex_lock(&bus->lock);
    wire_init(&ping, WIRE_PING, 0);
    int r = session_request(bus, &ping, &reply, NULL);
    pthread_mutex_unlock(&bus->lock);
    return r == 0 ? 1 : r == SHMPS_E_NO_DAEMON ? 0 : r;
}

int shmps_stop_daemon(struct shmps *bus) {
    CHECK_FORK(bus);
    if (bus->observe)
        return error_raise(SHMPS_E_STATE, "an observing connection does not talk to pubsubd");
    struct wire_plain stop;
    struct wire_reply reply;
    pthread_mutex_lock(&bus->lock);
    wire_init(&stop, WIRE_STOP, 0);
    int r = session_request(bus, &stop, &reply, NULL);
    if (r == 0) { /* until it has gone: end of file */
        union wire_message message;
        size_t bytes;
        int64_t timeout = bus->timeout_ns;
        r = wire_receive(bus->session, &message, &bytes, NULL, timeout);
        session_drop(bus);
        if (r == SHMPS_TIMEOUT)
            r = error_raise(SHMPS_E_NO_DAEMON,
                            "pubsubd agreed to end but has not closed the connection in %lld ms",
                            (long long)(timeout / 1000000));
        else
            r = 0;
    }
    pthread_mutex_unlock(&bus->lock);
    return r;
}
