#include "base/instance.h"

#include "base/error.h"
#include "base/segment.h"

#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_directory(uid_t uid, const char *name, int *ret_fd) {
    struct segment_ref ref;
    segment_ref_directory(&ref, uid, name);
    int r = segment_open(&ref, SEGMENT_READ, uid, ret_fd);
    if (r == SHMPS_E_PERMISSION && uid != geteuid())
        return error_raise(r, "instance \"%s\" belongs to user %u, and its shared memory is for "
                           "that user alone; look as that user or as root: sudo -u '#%u' ...",
                           name, (unsigned)uid, (unsigned)uid);
    return r;
}

static int error_absent(uid_t uid, const char *name) {
    return error_raise(SHMPS_E_NO_DAEMON, "there is no pubsubd \"%s\" of user %u, and none has "
                       "left anything (no /dev/shm/shmps.%u.%s.dir); start one: pubsubd "
                       "--instance %s",
                       name, (unsigned)uid, (unsigned)uid, name, name);
}

int instance_open_of(uid_t uid, const char *name, int *ret_fd) {
    int r = open_directory(uid, name, ret_fd);
    return r == SHMPS_E_NO_TOPIC ? error_absent(uid, name) : r;
}

int instance_open_by_socket(const char *path, const char *name, uid_t *ret_uid, int *ret_fd) {
    char folder[PATH_MAX];
    struct stat socket, parent;
    int length = snprintf(folder, sizeof(folder), "%s", path);
    if (lstat(path, &socket) < 0 || !S_ISSOCK(socket.st_mode))
        return error_absent(geteuid(), name);
    while (length > 0 && folder[length - 1] != '/')
        folder[--length] = '\0';
    int r = open_directory(*ret_uid = socket.st_uid, name, ret_fd);
    if (r == SHMPS_E_NO_TOPIC && stat(folder, &parent) == 0)
        r = open_directory(*ret_uid = parent.st_uid, name, ret_fd);
    return r == SHMPS_E_NO_TOPIC ? error_absent(socket.st_uid, name) : r;
}

int instance_open(const char *name, uid_t *ret_uid, int *ret_fd) {
    char path[PATH_MAX];
    *ret_uid = geteuid();
    int r = open_directory(*ret_uid, name, ret_fd);
    if (r != SHMPS_E_NO_TOPIC)
        return r;
    /* its socket outlives a daemon that was killed, as its segments do */
    snprintf(path, sizeof(path), SYSTEM_DIRECTORY "/%s.sock", name);
    r = instance_open_by_socket(path, name, ret_uid, ret_fd);
    return r == SHMPS_E_NO_DAEMON ? error_absent(geteuid(), name) : r;
}
