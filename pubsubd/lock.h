/* lock.h - one daemon per instance. */
#ifndef PUBSUBD_LOCK_H
#define PUBSUBD_LOCK_H

#include <sys/types.h>

/* Take the lock of an instance (base/lock.h). A holder that does not answer on `path` may be one
 * that is just ending or starting: it is waited for, some seconds at most; with `path` NULL in any
 * case. BUSY: the detail tells who holds it. PERMISSION, NO_DESCRIPTORS, SYSTEM. */
int lock_take(uid_t uid, const char *instance, const char *path, int *ret_fd);

#endif
