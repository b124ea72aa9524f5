#include "base/lock.h"

#include "base/error.h"
#include "base/scope.h"
#include "base/segment.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* The process that holds the lock of a file, as /proc/locks tells (proc(5)); 0: unknown. */
static int holder_of(int fd) {
    struct stat s;
    char line[256];
    int holder = 0;
    FILE *locks = fopen("/proc/locks", "re");
    if (locks == NULL)
        return 0;
    while (holder == 0 && fstat(fd, &s) == 0 && fgets(line, sizeof(line), locks) != NULL) {
        int pid;
        unsigned major_, minor_;
        unsigned long long inode;
        if (sscanf(line, "%*s FLOCK ADVISORY WRITE %d %x:%x:%llu", &pid, &major_, &minor_,
                   &inode) == 4 &&
            inode == s.st_ino && makedev(major_, minor_) == s.st_dev)
            holder = pid;
    }
    fclose(locks);
    return holder;
}

static bool same_file(int a, int b) {
    struct stat sa, sb;
    return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_ino == sb.st_ino &&
           sa.st_dev == sb.st_dev;
}

/* As instance_lock_take(); 2: what was locked is not the instance's lock any more: again. */
static int try_lock(const struct segment_ref *ref, int *ret_fd, int *ret_holder) {
    _cleanup_close_ int fd = shm_open(ref->name, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_system(errno, "cannot open the lock %s", ref->name);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return error_system(errno, "cannot lock %s", ref->name);
        *ret_holder = holder_of(fd);
        return 1;
    }
    _cleanup_close_ int now = shm_open(ref->name, O_RDWR | O_CLOEXEC, 0);
    if (now < 0 || !same_file(fd, now))
        return 2; /* a daemon that ended removed it in between */
    *ret_fd = steal_fd(&fd);
    return 0;
}

int instance_lock_take(uid_t uid, const char *instance, int *ret_fd, int *ret_holder) {
    struct segment_ref ref;
    int r;
    segment_ref_lock(&ref, uid, instance);
    do
        r = try_lock(&ref, ret_fd, ret_holder);
    while (r == 2);
    return r;
}

int instance_lock_holder(uid_t uid, const char *instance) {
    struct segment_ref ref;
    segment_ref_lock(&ref, uid, instance);
    _cleanup_close_ int fd = shm_open(ref.name, O_RDONLY | O_CLOEXEC, 0);
    return fd < 0 ? 0 : holder_of(fd);
}

void instance_lock_remove(uid_t uid, const char *instance) {
    struct segment_ref ref;
    segment_ref_lock(&ref, uid, instance);
    segment_remove(&ref);
}
