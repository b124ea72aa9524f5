#include "activation.h"

#include "base/error.h"
#include "base/scope.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define FIRST_FD 3 /* sd_listen_fds(3): SD_LISTEN_FDS_START */
#define STATE_BYTES 512
#define PATIENCE_S 1 /* a service manager that does not read holds up nobody's bus */

/* ---- the socket */

static int option(int fd, int name) {
    int value = -1;
    socklen_t bytes = sizeof(value);
    return getsockopt(fd, SOL_SOCKET, name, &value, &bytes) == 0 ? value : -1;
}

/* The number in a variable, -1 if there is none. */
static long number(const char *variable) {
    const char *text = getenv(variable);
    char *end;
    if (text == NULL || *text < '0' || *text > '9')
        return -1;
    errno = 0;
    long n = strtol(text, &end, 10);
    return errno == 0 && *end == '\0' ? n : -1;
}

static int check_socket(int fd, char ret_path[SOCKET_PATH_BYTES]) {
    struct sockaddr_un address = { 0 };
    socklen_t bytes = sizeof(address);
    if (option(fd, SO_DOMAIN) != AF_UNIX || option(fd, SO_TYPE) != SOCK_SEQPACKET ||
        option(fd, SO_ACCEPTCONN) != 1)
        return error_raise(SHMPS_E_INVALID,
                           "what was handed over as descriptor %d is no listening SOCK_SEQPACKET "
                           "socket; in the socket unit use ListenSequentialPacket= and Accept=no",
                           fd);
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) < 0)
        return error_system(errno, "cannot tell where the socket that was handed over is bound");
    /* A path that fills sun_path comes without a NUL. */
    if (address.sun_path[0] != '/' || address.sun_path[SOCKET_PATH_BYTES - 1] != '\0')
        return error_raise(SHMPS_E_INVALID,
                           "the socket that was handed over is not bound to an absolute path of "
                           "at most %zu bytes; give ListenSequentialPacket= one",
                           SOCKET_PATH_BYTES - 1);
    memcpy(ret_path, address.sun_path, SOCKET_PATH_BYTES);
    return 0;
}

int activation_socket(int *ret_fd, char ret_path[SOCKET_PATH_BYTES]) {
    *ret_fd = -1;
    if (number("LISTEN_PID") != (long)getpid()) /* none, or meant for who started us */
        return 0;
    if (number("LISTEN_FDS") != 1)
        return error_raise(SHMPS_E_INVALID,
                           "LISTEN_FDS=%s: pubsubd listens on one socket; hand over exactly one, "
                           "or none", getenv("LISTEN_FDS") ? getenv("LISTEN_FDS") : "");
    int r = check_socket(FIRST_FD, ret_path);
    if (r < 0)
        return r;
    int flags = fcntl(FIRST_FD, F_GETFL);
    if (flags < 0 || fcntl(FIRST_FD, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(FIRST_FD, F_SETFD, FD_CLOEXEC) < 0)
        return error_system(errno, "cannot set up the socket that was handed over");
    *ret_fd = FIRST_FD;
    return 0;
}

/* ---- notifications */

/* A path, or '@' and an abstract name, whose first byte then is NUL. 0: neither. */
static socklen_t notify_address(const char *name, struct sockaddr_un *ret) {
    size_t length = strlen(name);
    if ((name[0] != '/' && name[0] != '@') || length < 2 || length >= sizeof(ret->sun_path))
        return 0;
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(ret->sun_path, name, length);
    if (name[0] == '@')
        ret->sun_path[0] = '\0';
    /* The length counts: of an abstract name every byte is part, also a NUL behind it. */
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (name[0] == '/'));
}

void activation_notify(const char *format, ...) {
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address;
    struct timeval patience = { .tv_sec = PATIENCE_S };
    char state[STATE_BYTES];
    if (name == NULL || *name == '\0')
        return;
    socklen_t bytes = notify_address(name, &address);
    if (bytes == 0) {
        log_warning("NOTIFY_SOCKET is \"%s\", neither a path nor @ and a name", name);
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(state, sizeof(state), format, arguments);
    va_end(arguments);
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
        sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, bytes) < 0)
        log_warning("cannot notify %s: %s", name, strerror(errno));
}
