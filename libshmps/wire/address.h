/* wire/address.h - where the control socket of an instance is. Shared by both ends.
 *
 * User instance    $XDG_RUNTIME_DIR/shmps/NAME.sock; without that variable
 *                  /run/user/UID/shmps/NAME.sock if /run/user/UID exists and belongs to the user;
 *                  else /tmp/shmps-UID/NAME.sock. The directory is 0700 and its owner is checked
 *                  (a /tmp/shmps-UID of somebody else is refused).
 * System instance  /run/pubsubd/NAME.sock, only with --system. */
#ifndef SHMPS_WIRE_ADDRESS_H
#define SHMPS_WIRE_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

#define SOCKET_PATH_BYTES sizeof(((struct sockaddr_un *)0)->sun_path)

/* The socket path of this user's or the system's instance NAME. With `create`, its directory is
 * made (0700, the system's 0755); without, it may be missing: then nobody listens. PERMISSION (the
 * directory belongs to somebody else or is open to others; that of the system cannot be made or
 * written), INVALID (path too long), SYSTEM. */
int address_of_instance(const char *instance, bool system, bool create,
                        char ret[SOCKET_PATH_BYTES]);

/* Connect a SEQPACKET socket (CLOEXEC, blocking). NO_DAEMON (nobody listens: the detail tells the
 * command that starts one; or has not accepted in time), PERMISSION (also: another user listens on
 * a path outside /run/pubsubd), NO_DESCRIPTORS, SYSTEM. */
int address_connect(const char *path, int64_t timeout_ns, int *ret_fd);

/* The pubsubd that serves a connection to `path`; 0: not to be told, as in another pid namespace.
 * The detail of an error that was raised before is lost. */
pid_t address_daemon(const char *path, int fd);

/* Bind and listen (CLOEXEC, non-blocking, mode 0600 for a user's, 0666 for the system's).
 * Replaces a dead socket file: the caller holds the instance's lock. BUSY (a living process
 * listens there: another instance was given the same path), PERMISSION (what is there is no
 * socket), NO_DESCRIPTORS, SYSTEM. */
int address_listen(const char *path, bool system, int *ret_fd);

#endif
