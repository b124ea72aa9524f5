/* base/instance.h - finding an instance in shared memory, without asking anybody. */
#ifndef SHMPS_BASE_INSTANCE_H
#define SHMPS_BASE_INSTANCE_H

#include <sys/types.h>

/* Holds the sockets of the system's instances; made by root, or by who root lets write there. */
#define SYSTEM_DIRECTORY "/run/pubsubd"

/* Open the directory of instance `name`, read-only: this user's, else that of the system, if there
 * is a socket of it. NO_DAEMON: there is neither. PERMISSION: it is of another user.
 * NO_DESCRIPTORS, SYSTEM. */
int instance_open(const char *name, uid_t *ret_uid, int *ret_fd);

/* The same of one user; of the user who has the socket or, as a service manager may have made it,
 * the socket's directory. */
int instance_open_of(uid_t uid, const char *name, int *ret_fd);
int instance_open_by_socket(const char *path, const char *name, uid_t *ret_uid, int *ret_fd);

#endif
