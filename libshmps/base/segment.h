/* base/segment.h - shared memory segments: create, map, find again. Only here is their kind known.
 *
 * A named segment is a POSIX shared memory object of one user, mode 0600. Names:
 *     /shmps.UID.INSTANCE.dir             the directory
 *     /shmps.UID.INSTANCE.r<ring>         a ring
 *     /shmps.UID.INSTANCE.e<ring>.<page>  a readers segment: of this ring, for this roster page
 *     /shmps.UID.INSTANCE.lock            empty; the running daemon holds its lock
 *     /shmps.UID.INSTANCE.dir.bad-<n>     a directory that did not verify, set aside for whoever
 *                                         wants to know why
 *     /sem.shmps.UID.INSTANCE.ready.<pid> no segment: the semaphore of a client, thread <pid>,
 *                                         that has started a daemon and waits for it
 * (ring: the ring's serial, page: the roster page's index, both decimal). Sealed memory (topics
 * that cross users) will be a second kind behind the same calls: whoever holds a segment_ref need
 * not know which.
 *
 * Nothing here is known to be a well-formed segment: layout/ checks content after mapping. */
#ifndef SHMPS_BASE_SEGMENT_H
#define SHMPS_BASE_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define INSTANCE_BYTES 33      /* [A-Za-z0-9_-]{1,32} and a NUL */
#define SEGMENT_NAME_BYTES 128 /* any name here, with the NUL */

enum segment_kind { SEGMENT_NAMED = 1 /* SEGMENT_SEALED = 2 is reserved */ };

/* How a segment of an instance is found. */
struct segment_ref {
    uint32_t kind; /* enum segment_kind */
    char name[SEGMENT_NAME_BYTES];
};

void segment_ref_directory(struct segment_ref *ret, uid_t uid, const char *instance);
void segment_ref_ring(struct segment_ref *ret, uid_t uid, const char *instance, uint64_t ring);
void segment_ref_readers(struct segment_ref *ret, uid_t uid, const char *instance, uint64_t ring,
                         uint32_t page);
void segment_ref_lock(struct segment_ref *ret, uid_t uid, const char *instance);
void segment_ref_set_aside(struct segment_ref *ret, uid_t uid, const char *instance,
                           uint64_t number);

/* The name, as for sem_open(3), of the semaphore of thread `pid`. */
void segment_ready_name(char ret[SEGMENT_NAME_BYTES], uid_t uid, const char *instance, pid_t pid);

/* True if it is a well-formed instance name. */
bool instance_name_valid(const char *name);

/* A mapping. Starts out as SEGMENT_MAP_NONE. */
struct segment_map {
    void *base;
    size_t bytes;
};
#define SEGMENT_MAP_NONE ((struct segment_map){ NULL, 0 })

/* LAZY: not populated: for who maps much and touches little of it, as pubsubd does. */
enum segment_access {
    SEGMENT_READ = 0,
    SEGMENT_WRITE = 1,
    SEGMENT_READ_LAZY = 2,
    SEGMENT_WRITE_LAZY = 3,
};

/* Create a segment of `bytes` bytes that must not exist yet (BUSY). It is empty (size set, nothing
 * allocated, all zero) until segment_allocate(). NO_SPACE, NO_DESCRIPTORS, PERMISSION, SYSTEM. */
int segment_create(const struct segment_ref *ref, uint64_t bytes, int *ret_fd);

/* Allocate bytes [from, from + bytes) of it for good, so that no later access can SIGBUS. Call it
 * in chunks of at most SEGMENT_CHUNK_BYTES; EINTR is retried. NO_SPACE: the detail tells need and
 * free, and nothing has to be undone but closing and removing the segment. The first chunk is
 * refused already if there is not enough for all that the segment still lacks. */
#define SEGMENT_CHUNK_BYTES (UINT64_C(16) << 20)
int segment_allocate(int fd, uint64_t from, uint64_t bytes);

/* Free and total bytes of the file system that holds named segments. */
int segment_space(uint64_t *ret_free, uint64_t *ret_total);

/* Open a segment by its reference. A negative error: NO_TOPIC if it does not exist, PERMISSION
 * (also: it belongs to another user than `owner`, or others may write it), NO_DESCRIPTORS,
 * SYSTEM. */
int segment_open(const struct segment_ref *ref, enum segment_access access, uid_t owner,
                 int *ret_fd);

/* Map a whole segment, populated unless LAZY, and left out of forked children (MADV_DONTFORK).
 * `fd` stays open and the caller's. CORRUPT if it is smaller than min_bytes; NO_MEMORY, SYSTEM. */
int segment_map(int fd, enum segment_access access, size_t min_bytes, struct segment_map *ret);
/* Map once more, elsewhere, what is mapped, whether or not it has a name still. Not populated.
 * NO_MEMORY, SYSTEM. */
int segment_map_again(const struct segment_map *map, struct segment_map *ret);
void segment_unmap(struct segment_map *map);

/* Remove the name. Whoever has it mapped keeps it. Absent is not an error; another user's stays,
 * also for root. */
void segment_remove(const struct segment_ref *ref);

/* Give a segment another name, which must be free (BUSY). Whoever has it mapped keeps it.
 * NO_TOPIC, PERMISSION, SYSTEM. */
int segment_rename(const struct segment_ref *from, const struct segment_ref *to);

/* A segment of an instance, as its name tells. */
enum segment_content {
    SEGMENT_OF_RING = 1,
    SEGMENT_OF_READERS = 2,
    SEGMENT_SET_ASIDE = 3,
    SEGMENT_READY = 4, /* the semaphore of a client that starts a daemon */
};
struct segment_found {
    struct segment_ref ref;
    enum segment_content content;
    uint64_t ring; /* serial; SET_ASIDE, READY: 0 */
    uint32_t page; /* READERS only */
    pid_t pid;     /* READY only */
    dev_t device;
    ino_t inode;
};
/* Visit the rings, readers segments, directories set aside and semaphores of an instance that
 * there are by name and that belong to `uid`. `visit` may remove what it is shown.
 * SYSTEM, NO_DESCRIPTORS, NO_MEMORY. */
int segment_list(uid_t uid, const char *instance,
                 void (*visit)(void *data, const struct segment_found *found), void *data);

#endif
