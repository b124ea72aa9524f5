/* base/lock.h - the lock of an instance: who holds it is its daemon, or clears up after one.
 *
 * An flock(2) on the empty segment .lock, which the kernel gives back when its holder dies. It is
 * of all layouts. The holder may remove the file; who waited for it then locks the next one. */
#ifndef SHMPS_BASE_LOCK_H
#define SHMPS_BASE_LOCK_H

#include <sys/types.h>

/* Take it, without waiting. 0: until *ret_fd is closed; 1: another process holds it, *ret_holder
 * (0: not to be told, as in another pid namespace). PERMISSION, NO_DESCRIPTORS, SYSTEM. */
int instance_lock_take(uid_t uid, const char *instance, int *ret_fd, int *ret_holder);

/* Who holds it, without touching it; 0: nobody, or not to be told. */
int instance_lock_holder(uid_t uid, const char *instance);

/* Remove its file, while it is held. The lock itself goes with the descriptor. */
void instance_lock_remove(uid_t uid, const char *instance);

#endif
