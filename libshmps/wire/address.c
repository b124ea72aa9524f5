/* wire/address.c - see wire/address.h. */
#include "wire/address.h"

#include "base/error.h"
#include "base/instance.h"
#include "base/lock.h"
#include "base/process.h"
#include "base/scope.h"
#include "base/segment.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define BACKLOG 128

/* 0; PERMISSION if it is not a directory of this user's alone; 1 if it does not exist. The last
 * component is not followed: a link that somebody else put in /tmp leads nowhere. */
static int check_directory(const char *path) {
    _cleanup_close_ int fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 1;
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
        return error_raise(SHMPS_E_PERMISSION,
                           "%s is not a directory; remove it or set XDG_RUNTIME_DIR", path);
    struct stat s;
    if (fd < 0 || fstat(fd, &s) < 0)
        return error_system(errno, "cannot look at the socket directory %s", path);
    if (s.st_uid != geteuid())
        return error_raise(SHMPS_E_PERMISSION,
                           "%s belongs to user %u, not to user %u who would trust it; set "
                           "XDG_RUNTIME_DIR to a directory of your own",
                           path, (unsigned)s.st_uid, (unsigned)geteuid());
    if ((s.st_mode & 077) != 0)
        return error_raise(SHMPS_E_PERMISSION,
                           "%s is open to others (mode %04o); run: chmod 0700 %s", path,
                           (unsigned)(s.st_mode & 07777), path);
    return 0;
}

static bool is_own_directory(const char *path) {
    struct stat s;
    return lstat(path, &s) == 0 && S_ISDIR(s.st_mode) && s.st_uid == geteuid();
}

__attribute__((format(printf, 3, 4))) static bool print_path(char *ret, size_t bytes,
                                                              const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(ret, bytes, format, arguments);
    va_end(arguments);
    return n >= 0 && (size_t)n < bytes;
}

/* The directory that holds this user's sockets. False if it is too long. */
static bool user_directory(char ret[PATH_MAX]) {
    unsigned uid = (unsigned)geteuid();
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
    if (runtime != NULL && runtime[0] == '/')
        return print_path(ret, PATH_MAX, "%s/shmps", runtime);
    char of_user[sizeof("/run/user/4294967295")];
    print_path(of_user, sizeof(of_user), "/run/user/%u", uid);
    if (is_own_directory(of_user))
        return print_path(ret, PATH_MAX, "%s/shmps", of_user);
    return print_path(ret, PATH_MAX, "/tmp/shmps-%u", uid);
}

/* The umask may have taken bits that clients need. What is there already stays as it is. */
static int make_system_directory(void) {
    if (mkdir(SYSTEM_DIRECTORY, 0755) == 0 && chmod(SYSTEM_DIRECTORY, 0755) == 0)
        return 0;
    if (errno == EEXIST && access(SYSTEM_DIRECTORY, W_OK) == 0)
        return 0;
    return error_system(errno, "the system's sockets are in " SYSTEM_DIRECTORY ", where user %u "
                        "cannot make one; run it as root, or let root make room: install -d -o %u "
                        SYSTEM_DIRECTORY " (without --system the bus is your own)",
                        (unsigned)geteuid(), (unsigned)geteuid());
}

int address_of_instance(const char *instance, bool system, bool create,
                        char ret[SOCKET_PATH_BYTES]) {
    if (!instance_name_valid(instance))
        return error_raise(SHMPS_E_INVALID,
                           "\"%s\" is no instance name: 1 to %d of A-Z a-z 0-9 _ and - are",
                           instance,
                           INSTANCE_BYTES - 1);
    char directory[PATH_MAX] = SYSTEM_DIRECTORY;
    char path[SOCKET_PATH_BYTES];
    if ((!system && !user_directory(directory)) ||
        !print_path(path, sizeof(path), "%s/%s.sock", directory, instance))
        return error_raise(SHMPS_E_INVALID,
                           "the socket of instance %s would have a path of more than %zu bytes "
                           "(%.60s...); choose a shorter name or XDG_RUNTIME_DIR",
                           instance, sizeof(path) - 1, directory);
    if (system) {
        int r = create ? make_system_directory() : 0;
        if (r < 0)
            return r;
    } else {
        if (create && mkdir(directory, 0700) < 0 && errno != EEXIST)
            return error_system(errno,
                                "cannot make the socket directory %s; XDG_RUNTIME_DIR must name "
                                "one that exists",
                                directory);
        int r = check_directory(directory);
        if (r < 0)
            return r;
    }
    memcpy(ret, path, sizeof(path));
    return 0;
}

static int fill_address(const char *path, struct sockaddr_un *ret) {
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (path[0] == '\0' || !print_path(ret->sun_path, sizeof(ret->sun_path), "%s", path))
        return error_raise(SHMPS_E_INVALID,
                           "a socket path has 1 to %zu bytes, this one has %zu: %.100s",
                           sizeof(ret->sun_path) - 1, strlen(path), path);
    return 0;
}

static int connect_socket(int fd, const struct sockaddr_un *address) {
    int r;
    do
        r = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    while (r < 0 && errno == EINTR);
    return r;
}

/* unix(7): SO_SNDTIMEO bounds connect(2) too, which waits while the listener's queue is full. */
static int connect_within(int fd, const struct sockaddr_un *address, int64_t timeout_ns) {
    uint64_t deadline_ns = now_ns() + (uint64_t)timeout_ns;
    struct timeval none = { 0 };
    int r;
    do {
        uint64_t now = now_ns(), left_us = now < deadline_ns ? (deadline_ns - now) / 1000 + 1 : 1;
        struct timeval left = { .tv_sec = (time_t)(left_us / 1000000),
                                .tv_usec = (suseconds_t)(left_us % 1000000) };
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &left, sizeof(left)) < 0)
            return -1;
        r = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    } while (r < 0 && errno == EINTR);
    return r < 0 ? r : setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
}

/* The process that called listen() at the other end; 0: not to be told. */
static pid_t peer_of(int fd) {
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0 ? 0 : peer.pid;
}

/* Whether the process that called listen() lives. A killed daemon's socket can outlive it and go
 * on taking connections: what its io_uring holds is let go by a kernel thread, in its own time
 * (seen: more than half a second on a busy machine). */
static bool listener_lives(int fd) {
    pid_t pid = peer_of(fd);
    if (pid <= 0)
        return true; /* not to be told: in another pid namespace */
    _cleanup_close_ int process = (int)syscall(SYS_pidfd_open, pid, 0);
    if (process < 0)
        return errno != ESRCH;
    struct pollfd ended = { .fd = process, .events = POLLIN };
    return poll(&ended, 1, 0) == 0;
}

/* A user's bus is served by that user. Between the look at a directory that did not exist yet
 * and the connect, somebody else may have made it in /tmp; who listens cannot lie about who he
 * is. */
static int check_listener(int fd, const char *path) {
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0)
        return error_system(errno, "cannot tell who listens on %s", path);
    if (peer.uid != geteuid() && strncmp(path, SYSTEM_DIRECTORY "/",
                                         sizeof(SYSTEM_DIRECTORY)) != 0)
        return error_raise(SHMPS_E_PERMISSION,
                           "user %u listens on %s, not user %u; stop that process or use another "
                           "instance",
                           (unsigned)peer.uid, path, (unsigned)geteuid());
    return 0;
}

/* The instance whose socket has this path unless one is chosen; false: none. */
static bool usual_instance(const char *path, char ret[SOCKET_PATH_BYTES], bool *ret_system) {
    static const char end[] = ".sock";
    const char *slash = strrchr(path, '/');
    char usual[SOCKET_PATH_BYTES];
    if (!print_path(ret, SOCKET_PATH_BYTES, "%s", slash != NULL ? slash + 1 : path))
        return false;
    size_t n = strlen(ret);
    if (n < sizeof(end) || strcmp(ret + n - (sizeof(end) - 1), end) != 0)
        return false;
    ret[n - (sizeof(end) - 1)] = '\0';
    for (int system = 0; system < 2; system++) {
        *ret_system = system != 0;
        if (address_of_instance(ret, *ret_system, false, usual) == 0 && strcmp(usual, path) == 0)
            return true;
    }
    return false;
}

/* The command that starts who should listen there. */
static void print_command(const char *path, char *ret, size_t bytes) {
    char name[SOCKET_PATH_BYTES];
    bool system;
    if (usual_instance(path, name, &system))
        print_path(ret, bytes, "pubsubd %s--instance %s", system ? "--system " : "", name);
    else
        print_path(ret, bytes, "pubsubd --socket %s", path);
}

/* Who listens may be a service manager that has handed its socket over. */
pid_t address_daemon(const char *path, int fd) {
    char name[SOCKET_PATH_BYTES], command[COMMAND_BYTES];
    struct stat s;
    bool system;
    pid_t holder = 0, peer = peer_of(fd);
    if (usual_instance(path, name, &system) && lstat(path, &s) == 0)
        holder = instance_lock_holder(s.st_uid, name);
    if (holder > 0)
        return holder;
    process_command(peer, command);
    return strcmp(command, "pubsubd") == 0 ? peer : 0;
}

static int error_nobody(const char *path, const char *what) {
    char command[SOCKET_PATH_BYTES + 32];
    print_command(path, command, sizeof(command));
    return error_raise(SHMPS_E_NO_DAEMON, "%s %s; start one: %s", what, path, command);
}

int address_connect(const char *path, int64_t timeout_ns, int *ret_fd) {
    struct sockaddr_un address;
    int r = fill_address(path, &address);
    if (r < 0)
        return r;
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_system(errno, "cannot make a socket");
    if (connect_within(fd, &address, timeout_ns) < 0) {
        if (errno == ENOENT || errno == ECONNREFUSED)
            return error_nobody(path, "no pubsubd listens on");
        if (errno == EAGAIN)
            return error_raise(SHMPS_E_NO_DAEMON, "pubsubd, which listens on %s, has not accepted "
                               "in %lld ms; is it stopped?", path,
                               (long long)(timeout_ns / 1000000));
        return error_system(errno, "cannot connect to %s", path);
    }
    r = check_listener(fd, path);
    if (r < 0)
        return r;
    if (!listener_lives(fd))
        return error_nobody(path, "pubsubd has ended, which listened on");
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* Remove the socket file that a dead daemon left. Never a live one's (another instance that was
 * given the same path), nor anything that is not a socket. */
static int remove_dead_socket(const struct sockaddr_un *address) {
    const char *path = address->sun_path;
    struct stat s;
    if (lstat(path, &s) < 0)
        return errno == ENOENT ? 0 : error_system(errno, "cannot look at %s", path);
    if (!S_ISSOCK(s.st_mode))
        return error_raise(SHMPS_E_PERMISSION,
                           "%s exists and is not a socket; remove it or choose another path",
                           path);
    _cleanup_close_ int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return error_system(errno, "cannot make a socket");
    bool connected = connect_socket(probe, address) == 0;
    if ((connected && listener_lives(probe)) || (!connected && errno == EAGAIN))
        return error_raise(SHMPS_E_BUSY,
                           "another process listens on %s; stop it or choose another path", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return error_system(errno, "cannot remove the dead socket %s", path);
    return 0;
}

int address_listen(const char *path, bool system, int *ret_fd) {
    struct sockaddr_un address;
    mode_t mode = system ? 0666 : 0600;
    int r = fill_address(path, &address);
    if (r < 0)
        return r;
    r = remove_dead_socket(&address);
    if (r < 0)
        return r;
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_system(errno, "cannot make a socket");
    /* bind() makes the file with the socket's mode less the umask, so it is never open wider
     * than meant; what the umask took away comes back afterwards. */
    if (fchmod(fd, mode) < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return error_system(errno, "cannot bind the control socket %s", path);
    if (chmod(path, mode) < 0 || listen(fd, BACKLOG) < 0) {
        r = error_system(errno, "cannot listen on %s", address.sun_path);
        unlink(path);
        return r;
    }
    *ret_fd = steal_fd(&fd);
    return 0;
}
