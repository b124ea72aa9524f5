/* activation.h - what a service manager hands over and wants to hear: the protocols of
 * sd_listen_fds(3) and sd_notify(3), which are promised to be stable and need no library. */
#ifndef PUBSUBD_ACTIVATION_H
#define PUBSUBD_ACTIVATION_H

#include "wire/address.h"

/* The socket to accept clients on, if one was handed over ($LISTEN_PID, $LISTEN_FDS): listening
 * already, for the one who handed it over, who goes on listening when we have ended. *ret_fd:
 * CLOEXEC and non-blocking, -1 if there is none; ret_path: where it is bound. INVALID: not
 * exactly one, or not one that clients can find. */
int activation_socket(int *ret_fd, char ret_path[SOCKET_PATH_BYTES]);

/* Tell who waits for it on $NOTIFY_SOCKET; nobody: nothing. printf format, one VARIABLE=VALUE a
 * line: READY=1, RELOADING=1, STOPPING=1, STATUS=... What cannot be sent is logged. */
__attribute__((format(printf, 1, 2))) void activation_notify(const char *format, ...);

#endif
