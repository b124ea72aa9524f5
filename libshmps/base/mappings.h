/* base/mappings.h - which processes map which files of /dev/shm, as the kernel tells: a witness
 * that depends on no layout and on nobody's good will. It sees the processes of this user in this
 * pid namespace; of others' only root's could map a segment, which has a bus of its own. */
#ifndef SHMPS_BASE_MAPPINGS_H
#define SHMPS_BASE_MAPPINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct mapping {
    dev_t device;
    ino_t inode;
    pid_t pid;
};
struct mappings {
    struct mapping *of;
    size_t n, room;
    pid_t unreadable; /* a process of which they cannot be read, or 0 */
};
#define MAPPINGS_NONE ((struct mappings){ 0 })

/* Add those of one process; one that has ended has none. NO_MEMORY. */
int mappings_of_process(struct mappings *to, pid_t pid);
/* Add those of all other processes of this user. NO_MEMORY. */
int mappings_of_all(struct mappings *to);
void mappings_free(struct mappings *mappings);

/* A process that maps this file; 0: none. */
pid_t mappings_user(const struct mappings *mappings, dev_t device, ino_t inode);

#endif
