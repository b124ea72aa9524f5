#include "base/segment.h"

#include "base/error.h"
#include "base/scope.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* Where glibc's shm_open(3) puts its objects. */
#define SHARED_MEMORY_DIRECTORY "/dev/shm"

/* A signal that keeps coming must not keep the daemon in fallocate(2) for ever: tmpfs starts a
 * range over after each. */
#define ALLOCATE_TRIES 100

__attribute__((format(printf, 4, 5)))
static void make_ref(struct segment_ref *ret, uid_t uid, const char *instance,
                     const char *format, ...) {
    char tail[64];
    va_list args;

    va_start(args, format);
    vsnprintf(tail, sizeof(tail), format, args);
    va_end(args);
    ret->kind = SEGMENT_NAMED;
    snprintf(ret->name, sizeof(ret->name), "/shmps.%u.%.*s.%s", (unsigned)uid, INSTANCE_BYTES - 1,
             instance, tail);
}

void segment_ref_directory(struct segment_ref *ret, uid_t uid, const char *instance) {
    make_ref(ret, uid, instance, "dir");
}

void segment_ref_ring(struct segment_ref *ret, uid_t uid, const char *instance, uint64_t ring) {
    make_ref(ret, uid, instance, "r%" PRIu64, ring);
}

void segment_ref_readers(struct segment_ref *ret, uid_t uid, const char *instance, uint64_t ring,
                         uint32_t page) {
    make_ref(ret, uid, instance, "e%" PRIu64 ".%" PRIu32, ring, page);
}

void segment_ref_lock(struct segment_ref *ret, uid_t uid, const char *instance) {
    make_ref(ret, uid, instance, "lock");
}

void segment_ref_set_aside(struct segment_ref *ret, uid_t uid, const char *instance,
                           uint64_t number) {
    make_ref(ret, uid, instance, "dir.bad-%" PRIu64, number);
}

void segment_ready_name(char ret[SEGMENT_NAME_BYTES], uid_t uid, const char *instance, pid_t pid) {
    snprintf(ret, SEGMENT_NAME_BYTES, "/shmps.%u.%.*s.ready.%d", (unsigned)uid, INSTANCE_BYTES - 1,
             instance, (int)pid);
}

bool instance_name_valid(const char *name) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789_-";

    size_t n = strnlen(name, INSTANCE_BYTES);
    return n >= 1 && n < INSTANCE_BYTES && strspn(name, allowed) == n;
}

int segment_create(const struct segment_ref *ref, uint64_t bytes, int *ret_fd) {
    if (bytes > INT64_MAX) {
        return error_raise(SHMPS_E_INVALID,
                           "segment %s: %" PRIu64 " bytes are more than a file can have",
                           ref->name, bytes);
    }
    _cleanup_close_ int fd = shm_open(ref->name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        if (errno == EEXIST) {
            return error_raise(SHMPS_E_BUSY,
                               "segment %s exists already; if nothing uses it, remove %s%s",
                               ref->name, SHARED_MEMORY_DIRECTORY, ref->name);
        }
        return error_system(errno, "cannot create segment %s", ref->name);
    }
    /* fchmod: the umask may have taken bits that the owner needs. */
    if (fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)bytes) < 0) {
        int saved = errno;
        shm_unlink(ref->name);
        return error_system(saved, "cannot set up segment %s with %" PRIu64 " bytes", ref->name,
                            bytes);
    }
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* What the file still lacks, and what its file system has; both 0 if the file system knows no
 * limit (size=0). */
static int lack_and_free(int fd, uint64_t *ret_lack, uint64_t *ret_free) {
    struct stat file;
    struct statvfs fs;

    if (fstat(fd, &file) < 0 || fstatvfs(fd, &fs) < 0) {
        return error_system(errno, "cannot ask for the space of shared memory");
    }
    uint64_t size = (uint64_t)file.st_size, allocated = (uint64_t)file.st_blocks * 512;
    bool limited = fs.f_blocks > 0;
    *ret_lack = limited && size > allocated ? size - allocated : 0;
    *ret_free = limited ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
    return 0;
}

static int no_space(uint64_t need, uint64_t free_bytes) {
    return error_raise(SHMPS_E_NO_SPACE,
                       "a segment still needs %" PRIu64 " bytes, but only %" PRIu64 " are free "
                       "in %s; close publishers, ask for less depth or smaller messages, or make "
                       "it larger (mount -o remount,size=...)",
                       need, free_bytes, SHARED_MEMORY_DIRECTORY);
}

int segment_allocate(int fd, uint64_t from, uint64_t bytes) {
    uint64_t lack, free_bytes;
    int r = lack_and_free(fd, &lack, &free_bytes);

    if (r < 0) {
        return r;
    }
    if (lack > free_bytes) {
        return no_space(lack, free_bytes);
    }
    for (int i = 0; i < ALLOCATE_TRIES; i++) {
        if (fallocate(fd, 0, (off_t)from, (off_t)bytes) == 0) {
            return 0;
        }
        if (errno != EINTR) {
            break;
        }
    }
    if (errno == ENOSPC) { /* others were faster */
        r = lack_and_free(fd, &lack, &free_bytes);
        return r < 0 ? r : no_space(max_u64(lack, bytes), free_bytes);
    }
    return error_system(errno, "cannot allocate %" PRIu64 " bytes at %" PRIu64 " of a segment",
                        bytes, from);
}

int segment_space(uint64_t *ret_free, uint64_t *ret_total) {
    struct statvfs fs;

    if (statvfs(SHARED_MEMORY_DIRECTORY, &fs) < 0) {
        return error_system(errno, "cannot ask for the space of %s; is it mounted?",
                            SHARED_MEMORY_DIRECTORY);
    }
    *ret_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    *ret_total = (uint64_t)fs.f_blocks * fs.f_frsize;
    return 0;
}

/* Names in a directory that all users may write are no proof of anything: is this what
 * segment_create() made? */
static int check_file(int fd, const char *name, uid_t owner) {
    struct stat file;

    if (fstat(fd, &file) < 0) {
        return error_system(errno, "cannot look at segment %s", name);
    }
    if (file.st_nlink == 0) {
        return error_raise(SHMPS_E_NO_TOPIC, "segment %s has just been removed; look again", name);
    }
    if (!S_ISREG(file.st_mode) || file.st_nlink != 1) {
        return error_raise(SHMPS_E_PERMISSION,
                           "%s%s is not a plain segment (mode %o, %lu links) and is not used; "
                           "find out who made it, and remove it",
                           SHARED_MEMORY_DIRECTORY, name, (unsigned)file.st_mode,
                           (unsigned long)file.st_nlink);
    }
    if (file.st_uid != owner) {
        return error_raise(SHMPS_E_PERMISSION,
                           "segment %s belongs to user %u instead of %u and is not used; find "
                           "out who made it, and remove it",
                           name, (unsigned)file.st_uid, (unsigned)owner);
    }
    if ((file.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return error_raise(SHMPS_E_PERMISSION,
                           "others than user %u may write segment %s (mode %o): it is not used; "
                           "chmod 600 %s%s if nothing else can have written it, else remove it",
                           (unsigned)owner, name, (unsigned)file.st_mode & 07777,
                           SHARED_MEMORY_DIRECTORY, name);
    }
    return 0;
}

static bool is_write(enum segment_access access) {
    return access == SEGMENT_WRITE || access == SEGMENT_WRITE_LAZY;
}

static bool is_lazy(enum segment_access access) {
    return access == SEGMENT_READ_LAZY || access == SEGMENT_WRITE_LAZY;
}

int segment_open(const struct segment_ref *ref, enum segment_access access, uid_t owner,
                 int *ret_fd) {
    /* O_NONBLOCK: somebody may have put a FIFO in the segment's place, at which open(2) would
     * wait. */
    int flags = (is_write(access) ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;
    _cleanup_close_ int fd = shm_open(ref->name, flags, 0);
    int r;

    if (fd < 0) {
        if (errno == ENOENT) {
            return error_raise(SHMPS_E_NO_TOPIC, "there is no segment %s", ref->name);
        }
        if (errno == ELOOP) {
            return error_raise(SHMPS_E_PERMISSION,
                               "%s%s is a symbolic link and is not used; remove it",
                               SHARED_MEMORY_DIRECTORY, ref->name);
        }
        return error_system(errno, "cannot open segment %s", ref->name);
    }
    r = check_file(fd, ref->name, owner);
    if (r < 0) {
        return r;
    }
    *ret_fd = steal_fd(&fd);
    return 0;
}

int segment_map(int fd, enum segment_access access, size_t min_bytes, struct segment_map *ret) {
    struct stat file;

    if (fstat(fd, &file) < 0) {
        return error_system(errno, "cannot ask for the size of a segment");
    }
    if (file.st_size <= 0 || (uint64_t)file.st_size < min_bytes) {
        return error_raise(SHMPS_E_CORRUPT,
                           "a segment has %lld bytes where at least %zu are needed: it is "
                           "truncated, or not one of this bus; it is not used",
                           (long long)file.st_size, min_bytes);
    }
    if ((uint64_t)file.st_size > SIZE_MAX) {
        return error_raise(SHMPS_E_NO_MEMORY,
                           "a segment of %lld bytes does not fit into this process",
                           (long long)file.st_size);
    }
    size_t bytes = (size_t)file.st_size;
    int protection = is_write(access) ? PROT_READ | PROT_WRITE : PROT_READ;
    int flags = MAP_SHARED | (is_lazy(access) ? 0 : MAP_POPULATE);
    void *base = mmap(NULL, bytes, protection, flags, fd, 0);
    if (base == MAP_FAILED) {
        return error_system(errno, "cannot map a segment of %zu bytes", bytes);
    }
    if (madvise(base, bytes, MADV_DONTFORK) < 0) {
        int saved = errno;
        munmap(base, bytes);
        return error_system(saved, "cannot keep a segment of %zu bytes out of forked children",
                            bytes);
    }
    *ret = (struct segment_map){ base, bytes };
    return 0;
}

/* mremap(2): an old size of 0 leaves what is shared where it is. MADV_DONTFORK goes along. */
int segment_map_again(const struct segment_map *map, struct segment_map *ret) {
    void *base = mremap(map->base, 0, map->bytes, MREMAP_MAYMOVE);

    if (base == MAP_FAILED) {
        return error_system(errno, "cannot map a segment of %zu bytes once more", map->bytes);
    }
    *ret = (struct segment_map){ base, map->bytes };
    return 0;
}

void segment_unmap(struct segment_map *map) {
    if (map->base != NULL) {
        munmap(map->base, map->bytes);
    }
    *map = SEGMENT_MAP_NONE;
}

/* In a directory with the sticky bit nobody else can put another file in the place of ours. */
void segment_remove(const struct segment_ref *ref) {
    char path[sizeof(SHARED_MEMORY_DIRECTORY) + SEGMENT_NAME_BYTES];
    struct stat file;

    snprintf(path, sizeof(path), "%s%s", SHARED_MEMORY_DIRECTORY, ref->name);
    if (lstat(path, &file) == 0 && file.st_uid == geteuid()) {
        unlink(path);
    }
}

int segment_rename(const struct segment_ref *from, const struct segment_ref *to) {
    char from_path[sizeof(SHARED_MEMORY_DIRECTORY) + SEGMENT_NAME_BYTES];
    char to_path[sizeof(from_path)];

    snprintf(from_path, sizeof(from_path), "%s%s", SHARED_MEMORY_DIRECTORY, from->name);
    snprintf(to_path, sizeof(to_path), "%s%s", SHARED_MEMORY_DIRECTORY, to->name);
    if (renameat2(AT_FDCWD, from_path, AT_FDCWD, to_path, RENAME_NOREPLACE) == 0) {
        return 0;
    }
    if (errno == EEXIST) {
        return error_raise(SHMPS_E_BUSY,
                           "segment %s cannot be renamed: %s exists already; if nothing uses it, "
                           "remove it",
                           from->name, to_path);
    }
    if (errno == ENOENT) {
        return error_raise(SHMPS_E_NO_TOPIC, "there is no segment %s to be renamed", from->name);
    }
    return error_system(errno, "cannot rename segment %s to %s", from->name, to->name);
}

/* Where glibc's sem_open(3) puts /NAME: beside the segments, as sem.NAME. */
static bool parse_ready(const char *tail, uid_t uid, const char *instance,
                        struct segment_found *ret) {
    char name[SEGMENT_NAME_BYTES];
    int pid;

    if (sscanf(tail, "ready.%d", &pid) != 1 || pid <= 0) {
        return false;
    }
    segment_ready_name(name, uid, instance, pid);
    ret->content = SEGMENT_READY;
    ret->pid = pid;
    ret->ref.kind = SEGMENT_NAMED;
    snprintf(ret->ref.name, sizeof(ret->ref.name), "/sem.%.*s", SEGMENT_NAME_BYTES - 6, name + 1);
    return true;
}

/* Only names that could have been made here count: made again from what was read, it is the
 * same. */
static bool parse_name(const char *file, uid_t uid, const char *instance,
                       struct segment_found *ret) {
    struct segment_found found = { 0 };
    char prefix[SEGMENT_NAME_BYTES];
    bool semaphore = strncmp(file, "sem.", 4) == 0;
    const char *name = semaphore ? file + 4 : file;

    snprintf(prefix, sizeof(prefix), "shmps.%u.%s.", (unsigned)uid, instance);
    if (strncmp(name, prefix, strlen(prefix)) != 0) {
        return false;
    }
    const char *tail = name + strlen(prefix);
    uint64_t number;
    if (semaphore) {
        if (!parse_ready(tail, uid, instance, &found)) {
            return false;
        }
    } else if (sscanf(tail, "r%" SCNu64, &found.ring) == 1) {
        found.content = SEGMENT_OF_RING;
        segment_ref_ring(&found.ref, uid, instance, found.ring);
    } else if (sscanf(tail, "e%" SCNu64 ".%" SCNu32, &found.ring, &found.page) == 2) {
        found.content = SEGMENT_OF_READERS;
        segment_ref_readers(&found.ref, uid, instance, found.ring, found.page);
    } else if (sscanf(tail, "dir.bad-%" SCNu64, &number) == 1) {
        found.content = SEGMENT_SET_ASIDE;
        segment_ref_set_aside(&found.ref, uid, instance, number);
    } else {
        return false;
    }
    *ret = found;
    return strcmp(found.ref.name + 1, file) == 0;
}

int segment_list(uid_t uid, const char *instance,
                 void (*visit)(void *data, const struct segment_found *found), void *data) {
    DIR *directory = opendir(SHARED_MEMORY_DIRECTORY);
    const struct dirent *entry;
    struct segment_found found;
    struct stat file;

    if (directory == NULL) {
        return error_system(errno, "cannot look into %s", SHARED_MEMORY_DIRECTORY);
    }
    while ((entry = readdir(directory)) != NULL) {
        if (parse_name(entry->d_name, uid, instance, &found) &&
            fstatat(dirfd(directory), entry->d_name, &file, AT_SYMLINK_NOFOLLOW) == 0 &&
            file.st_uid == uid) {
            found.device = file.st_dev;
            found.inode = file.st_ino;
            visit(data, &found);
        }
    }
    closedir(directory);
    return 0;
}
