#include "control.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* ---- a daemon */

static const char *program(void) {
    const char *path = getenv("SHMPS_PUBSUBD");
    return path != NULL ? path : "build/pubsubd/pubsubd";
}

static void log_path(const struct daemon *d, char ret[96]) {
    snprintf(ret, 96, "%s/log", d->folder);
}

/* In the child: nothing but system calls, and never back. */
static void become_daemon(const struct daemon *d, const char *option, const char *value, int out,
                          int log) {
    struct rlimit limit = { d->max_descriptors, d->max_descriptors };
    dup2(out, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    if (d->max_descriptors != 0)
        setrlimit(RLIMIT_NOFILE, &limit);
    const char *name = program();
    execlp(name, name, "--instance", d->instance, "--socket", d->socket, option, value, NULL);
    _exit(127);
}

void daemon_start(struct daemon *d, const char *option, const char *value) {
    char path[96], line[16] = "";
    int out[2];
    log_path(d, path);
    int log = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    assert_true(log >= 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    d->pid = fork();
    assert_true(d->pid >= 0);
    if (d->pid == 0)
        become_daemon(d, option, value, out[1], log);
    close(out[1]);
    close(log);
    struct pollfd p = { .fd = out[0], .events = POLLIN };
    assert_int_equal(poll(&p, 1, (int)(DEADLINE_NS / 1000000)), 1);
    ssize_t n = read(out[0], line, sizeof(line) - 1); /* 0: it has ended */
    close(out[0]);
    assert_true(n == 0 || strcmp(line, "ready\n") == 0);
}

int daemon_end(struct daemon *d, int signal) {
    int status = -1;
    kill(d->pid, signal);
    assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
    d->pid = 0;
    return status;
}

const char *daemon_log(const struct daemon *d) {
    static char text[65536];
    char path[96];
    log_path(d, path);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void forget_folder(const struct daemon *d) {
    char path[96];
    log_path(d, path);
    unlink(path);
    unlink(d->socket);
    rmdir(d->folder);
}

int daemon_setup(void **state) {
    static unsigned count;
    struct daemon *d = calloc(1, sizeof(*d));
    if (d == NULL)
        return -1;
    snprintf(d->instance, sizeof(d->instance), "t%d-%u", (int)getpid(), ++count);
    snprintf(d->folder, sizeof(d->folder), "/tmp/shmps-test-XXXXXX");
    if (mkdtemp(d->folder) == NULL)
        return -1;
    snprintf(d->socket, sizeof(d->socket), "%s/socket", d->folder);
    *state = d;
    daemon_start(d, NULL, NULL);
    return 0;
}

int daemon_teardown(void **state) {
    struct daemon *d = *state;
    int status = d->pid != 0 ? daemon_end(d, SIGTERM) : 0;
    unsigned left = segments_left(d);
    if (status != 0 || left > 0)
        print_error("daemon ended with status %x, left %u segments; it said:\n%s",
                    (unsigned)status, left, daemon_log(d));
    forget_folder(d);
    free(d);
    return status == 0 && left == 0 ? 0 : -1;
}

/* ---- segments */

unsigned segments_left(const struct daemon *d) {
    char prefix[SEGMENT_NAME_BYTES];
    unsigned n = 0;
    DIR *directory = opendir("/dev/shm");
    assert_non_null(directory);
    snprintf(prefix, sizeof(prefix), "shmps.%u.%s.", (unsigned)geteuid(), d->instance);
    for (const struct dirent *e; (e = readdir(directory)) != NULL;)
        n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    closedir(directory);
    return n;
}

static bool opens(const struct segment_ref *ref) {
    int fd;
    if (segment_open(ref, SEGMENT_READ, geteuid(), &fd) < 0)
        return false;
    close(fd);
    return true;
}

bool ring_exists(const struct daemon *d, uint64_t serial) {
    struct segment_ref ref;
    segment_ref_ring(&ref, geteuid(), d->instance, serial);
    return opens(&ref);
}

static void *map_segment(const struct segment_ref *ref, struct segment_map *map) {
    int fd;
    assert_int_equal(segment_open(ref, SEGMENT_WRITE, geteuid(), &fd), 0);
    assert_int_equal(segment_map(fd, SEGMENT_WRITE, 4096, map), 0);
    close(fd);
    return map->base;
}

void *map_ring(const struct daemon *d, uint64_t serial, struct segment_map *map) {
    struct segment_ref ref;
    segment_ref_ring(&ref, geteuid(), d->instance, serial);
    return map_segment(&ref, map);
}

struct readers_segment *map_readers(const struct daemon *d, uint64_t ring, uint32_t page,
                                    struct segment_map *map) {
    struct segment_ref ref;
    segment_ref_readers(&ref, geteuid(), d->instance, ring, page);
    return map_segment(&ref, map);
}

/* ---- a session */

int control_connect(const struct daemon *d) {
    int fd = -1;
    int r = address_connect(d->socket, DEADLINE_NS, &fd);
    if (r < 0)
        print_error("%s\n", shmps_error_detail());
    assert_int_equal(r, 0);
    return fd;
}

void control_send(int fd, const void *message, size_t bytes) {
    assert_int_equal(send(fd, message, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

int control_reply(int fd, struct wire_reply *ret, int *ret_fd) {
    union wire_message m;
    size_t bytes = 0;
    int r = wire_receive(fd, &m, &bytes, ret_fd, DEADLINE_NS);
    if (r == SHMPS_TIMEOUT)
        fail_msg("no reply in time");
    if (r < 0 || bytes == 0)
        return CONTROL_CLOSED;
    assert_int_equal(wire_check(&m, bytes, 1), 0);
    *ret = m.reply;
    return ret->status;
}

int control_request(int fd, const void *request, struct wire_reply *ret, int *ret_fd) {
    if (wire_send(fd, request, -1) < 0)
        return CONTROL_CLOSED;
    int r = control_reply(fd, ret, ret_fd);
    if (r != CONTROL_CLOSED) {
        const struct wire_header *h = request;
        assert_int_equal(ret->header.type, WIRE_REPLY | h->type);
        assert_int_equal(ret->header.sequence, h->sequence);
        assert_int_equal(ret->status < 0, ret->detail[0] != '\0');
    }
    return r;
}

bool control_is_closed(int fd) {
    struct pollfd p = { .fd = fd, .events = POLLIN };
    union wire_message m;
    size_t bytes = 1;
    return poll(&p, 1, (int)(DEADLINE_NS / 1000000)) == 1 &&
           (wire_receive(fd, &m, &bytes, NULL, 0) < 0 || bytes == 0);
}

void hello_init(struct wire_hello *m) {
    wire_init(m, WIRE_HELLO, 1);
    m->version_min = WIRE_VERSION_MIN;
    m->version_max = WIRE_VERSION;
    m->fingerprint = layout_fingerprint();
}

/* As a client does while it has anything open: a restarted daemon knows by it that it still is the
 * program that opened it. Until the process ends. */
static void keep_mapped(int directory) {
    struct segment_map map;
    if (directory >= 0 && segment_map(directory, SEGMENT_READ_LAZY, 4096, &map) < 0)
        print_error("%s\n", shmps_error_detail());
}

int control_session(const struct daemon *d, uint64_t secret) {
    struct wire_hello m;
    struct wire_reply reply;
    int fd = control_connect(d), directory = -1;
    hello_init(&m);
    m.secret = secret;
    assert_int_equal(control_request(fd, &m, &reply, &directory), 0);
    assert_true(directory >= 0);
    keep_mapped(directory);
    close(directory);
    return fd;
}

int control_ping(int fd) {
    struct wire_plain m;
    struct wire_reply reply;
    wire_init(&m, WIRE_PING, 77);
    return control_request(fd, &m, &reply, NULL);
}

int control_close(int fd, uint64_t serial) {
    struct wire_close m;
    struct wire_reply reply;
    wire_init(&m, WIRE_CLOSE, 78);
    m.serial = serial;
    return control_request(fd, &m, &reply, NULL);
}

void control_drained(int fd, uint64_t ring) {
    struct wire_drained m;
    wire_init(&m, WIRE_DRAINED, 79);
    m.ring = ring;
    control_send(fd, &m, sizeof(m));
    assert_int_equal(control_ping(fd), 0); /* has been dealt with */
}

void publisher_init(struct wire_open_publisher *m, const char *topic) {
    wire_init(m, WIRE_OPEN_PUBLISHER, 80);
    snprintf(m->topic, sizeof(m->topic), "%s", topic);
    m->depth = 8;
    m->message_bytes = 32;
    m->flags = RING_EXPLICIT_SIZE;
}

int control_publisher(int fd, const struct wire_open_publisher *m, struct wire_reply *ret) {
    int ring = -1;
    int r = control_request(fd, m, ret, &ring);
    assert_int_equal(r == 0 && m->claim == 0, ring >= 0);
    if (ring >= 0)
        close(ring);
    return r;
}

uint64_t open_publisher(int fd, const char *topic) {
    struct wire_open_publisher m;
    struct wire_reply reply;
    publisher_init(&m, topic);
    int r = control_publisher(fd, &m, &reply);
    if (r < 0)
        print_error("%s\n", reply.detail);
    assert_int_equal(r, 0);
    return reply.u.publisher.serial;
}

int control_subscriber(int fd, const char *filter, enum policy policy, uint32_t pins,
                       struct wire_reply *ret) {
    struct wire_open_subscriber m;
    wire_init(&m, WIRE_OPEN_SUBSCRIBER, 81);
    snprintf(m.filter, sizeof(m.filter), "%s", filter);
    m.policy = policy;
    m.pins = pins;
    return control_request(fd, &m, ret, NULL);
}

uint64_t open_subscriber(int fd, const char *filter, enum policy policy) {
    struct wire_reply reply;
    int r = control_subscriber(fd, filter, policy, 0, &reply);
    if (r < 0)
        print_error("%s\n", reply.detail);
    assert_int_equal(r, 0);
    return reply.u.subscriber.serial;
}

int claim_publisher(int fd, uint64_t serial) {
    struct wire_open_publisher m;
    struct wire_reply reply;
    wire_init(&m, WIRE_OPEN_PUBLISHER, 82);
    m.claim = serial;
    int r = control_publisher(fd, &m, &reply);
    if (r == 0)
        assert_int_equal(reply.u.publisher.serial, serial);
    return r;
}

int claim_subscriber(int fd, uint64_t serial) {
    struct wire_open_subscriber m;
    struct wire_reply reply;
    wire_init(&m, WIRE_OPEN_SUBSCRIBER, 83);
    m.claim = serial;
    int r = control_request(fd, &m, &reply, NULL);
    if (r == 0)
        assert_int_equal(reply.u.subscriber.serial, serial);
    return r;
}

/* ---- the directory */

void look_open(struct look *look, const struct daemon *d) {
    struct segment_ref ref;
    int fd;
    segment_ref_directory(&ref, geteuid(), d->instance);
    assert_int_equal(segment_open(&ref, SEGMENT_READ, geteuid(), &fd), 0);
    assert_int_equal(segment_map(fd, SEGMENT_READ_LAZY, 4096, &look->map), 0);
    close(fd);
    assert_int_equal(directory_attach(&look->d, look->map.base, look->map.bytes), 0);
}

void look_close(struct look *look) {
    segment_unmap(&look->map);
}

bool look_until(const struct look *look, bool (*condition)(const struct directory *d, void *data),
                void *data) {
    uint64_t deadline = now_ns() + (uint64_t)DEADLINE_NS;
    const atomic_u32 *generation = directory_generation(&look->d);
    while (now_ns() < deadline) {
        /* SYNC directory.generation: acquire pairs with the daemon's release. */
        struct wait_word word = { generation, atomic_load_acquire(generation) };
        if (condition(&look->d, data))
            return true;
        wait_on_words(&word, 1, DEADLINE_NS);
    }
    return false;
}

bool look_ring(const struct directory *d, uint64_t serial, struct ring_info *ret) {
    for (uint32_t i = 0; i < d->geometry.rings; i++)
        if (directory_ring(d, i, ret) && ret->state != RING_FREE && ret->serial == serial)
            return true;
    return false;
}

bool look_topic(const struct directory *d, const char *name, struct topic_info *ret) {
    uint32_t i = directory_topic_find(d, name);
    return i != NO_INDEX && directory_topic(d, i, ret, NULL);
}

bool look_subscription(const struct directory *d, uint64_t serial, struct subscription_info *ret) {
    for (uint32_t i = 0; i < d->geometry.subscriptions; i++)
        if (directory_subscription(d, i, ret, NULL) && ret->live && ret->serial == serial)
            return true;
    return false;
}

bool look_seat(const struct directory *d, const char *topic, uint64_t subscription,
               uint32_t *ret_page, uint32_t *ret_cell, uint64_t *ret_value) {
    struct topic_info t;
    struct subscription_info s;
    if (!look_topic(d, topic, &t))
        return false;
    for (uint32_t page = t.first_page; page != NO_INDEX;
         page = atomic_load_acquire(&d->pages[page].next)) /* SYNC page.next: as any walker */
        for (uint32_t i = 0; i < READERS_ENTRIES; i++) {
            /* SYNC page.cells: acquire pairs with the daemon's release. */
            uint64_t cell = atomic_load_acquire(&d->pages[page].cells[i]);
            if (cell == 0 || cell_policy(cell) == POLICY_SPAN ||
                !directory_subscription(d, cell_subscription(cell), &s, NULL) ||
                s.serial != subscription)
                continue;
            *ret_page = page;
            *ret_cell = i;
            *ret_value = cell;
            return true;
        }
    return false;
}

/* ---- children */

void child_start(struct child *child, void (*body)(const struct daemon *d, int report),
                 const struct daemon *d) {
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    child->pid = fork();
    assert_true(child->pid >= 0);
    if (child->pid == 0) {
        close(ends[0]);
        body(d, ends[1]);
        for (;;)
            pause();
    }
    close(ends[1]);
    child->answers = ends[0];
}

/* One exchange, without an assertion. */
static bool child_request(int fd, const void *request, struct wire_reply *ret) {
    union wire_message m;
    size_t bytes = 0;
    int received = -1;
    if (wire_send(fd, request, -1) < 0 ||
        wire_receive(fd, &m, &bytes, &received, DEADLINE_NS) != 0)
        return false;
    if (m.header.type == (WIRE_REPLY | WIRE_HELLO))
        keep_mapped(received);
    scope_close(&received);
    *ret = m.reply;
    return bytes == sizeof(m.reply) && m.reply.status == 0;
}

int child_session(const struct daemon *d, uint64_t secret) {
    struct wire_hello m;
    struct wire_reply reply;
    int fd;
    hello_init(&m);
    m.secret = secret;
    if (address_connect(d->socket, DEADLINE_NS, &fd) < 0)
        return -1;
    return child_request(fd, &m, &reply) ? fd : -1;
}

uint64_t child_publisher(int fd, const char *topic) {
    struct wire_open_publisher m;
    struct wire_reply reply;
    publisher_init(&m, topic);
    return child_request(fd, &m, &reply) ? reply.u.publisher.serial : 0;
}

uint64_t child_subscriber(int fd, const char *filter, enum policy policy) {
    struct wire_open_subscriber m;
    struct wire_reply reply;
    wire_init(&m, WIRE_OPEN_SUBSCRIBER, 81);
    snprintf(m.filter, sizeof(m.filter), "%s", filter);
    m.policy = policy;
    return child_request(fd, &m, &reply) ? reply.u.subscriber.serial : 0;
}

void child_report(int report, uint64_t word) {
    if (write(report, &word, sizeof(word)) != sizeof(word))
        _exit(1);
}

uint64_t child_read(const struct child *child) {
    struct pollfd p = { .fd = child->answers, .events = POLLIN };
    uint64_t word = 0;
    assert_int_equal(poll(&p, 1, (int)(DEADLINE_NS / 1000000)), 1);
    assert_int_equal(read(child->answers, &word, sizeof(word)), sizeof(word));
    return word;
}

void child_end(struct child *child, int signal) {
    if (signal != 0)
        kill(child->pid, signal);
    assert_int_equal(waitpid(child->pid, NULL, 0), child->pid);
    close(child->answers);
}
