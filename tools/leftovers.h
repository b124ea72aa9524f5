/* leftovers.h - all that an instance has in /dev/shm and beside its socket, who uses it, and what
 * of it is provably nobody's. Looks only.
 *
 * The proof: the kernel says that nobody holds the instance's lock, no process maps any of its
 * segments, and those whom a readable directory names as owners are gone. It holds for the
 * processes that can be seen: not for those of another pid namespace that shares /dev/shm. */
#ifndef SHMPS_TOOL_LEFTOVERS_H
#define SHMPS_TOOL_LEFTOVERS_H

#include "base/segment.h"

#include <limits.h>
#include <stdbool.h>

enum usage {
    USAGE_NOBODY,  /* neither pubsubd nor a process that uses it */
    USAGE_DAEMON,  /* process `pid` holds its lock */
    USAGE_CLIENTS, /* no pubsubd, but process `pid` uses it */
    USAGE_UNKNOWN, /* nobody seen; but the directory is of another layout, or cannot be read, as
                    * cannot process `pid` (0: it can) */
};

enum leftover_kind { /* in the order in which they are removed */
    LEFTOVER_DIRECTORY,
    LEFTOVER_RING,
    LEFTOVER_READERS,
    LEFTOVER_SET_ASIDE,
    LEFTOVER_SEMAPHORE,
    LEFTOVER_SOCKET,
    LEFTOVER_LOCK,
};

#define LEFTOVER_PATH_BYTES 256 /* segments have shorter names, sockets must */

struct leftover {
    enum leftover_kind kind;
    char path[LEFTOVER_PATH_BYTES];
    dev_t device;
    ino_t inode;
    uid_t uid;
    mode_t mode;
    uint64_t bytes;  /* allocated */
    uint64_t number; /* RING, READERS: the ring's serial; SEMAPHORE: who waits for it */
    bool stale;      /* provably nobody's */
};

struct leftovers {
    char instance[INSTANCE_BYTES];
    enum usage usage;
    int pid;
    char *trouble; /* why the directory cannot be read, or NULL: it can, or there is none */
    struct leftover *files;
    size_t n;
};

/* The names of all instances of which this user has something, sorted; to be freed. */
char (*leftovers_instances(size_t *ret_n))[INSTANCE_BYTES];

/* Look at one instance. `locked`: the caller holds its lock. `force`: another layout, or what
 * cannot be read, does not keep it from being nobody's. Free it with leftovers_free(). */
void leftovers_find(struct leftovers *ret, const char *instance, bool locked, bool force);
void leftovers_free(struct leftovers *found);

/* How many files of it are stale, and what they take. */
size_t leftovers_stale(const struct leftovers *found, uint64_t *ret_bytes);

/* Whether another user has an instance of this name. */
bool leftovers_of_others(const char *instance);

const char *leftover_kind_name(enum leftover_kind kind);

/* The places where sockets of this user's daemons can be (wire/address.h): all of them, as a
 * daemon may have been started with another environment than ours. false: no more than i. */
bool leftovers_socket_directory(size_t i, char ret[PATH_MAX]);

/* Whether a process listens on a socket file. Connects, if there is one. */
bool socket_listens(const char *path);

#endif
