#include "lock.h"

#include "base/error.h"
#include "base/lock.h"
#include "base/process.h"
#include "wire/address.h"

#include <stdbool.h>
#include <unistd.h>

#define PATIENCE_NS UINT64_C(3000000000)
#define PAUSE_NS 10000000

static bool answers(const char *path) {
    int fd;
    if (path == NULL || address_connect(path, PAUSE_NS, &fd) < 0)
        return false;
    close(fd);
    return true;
}

int lock_take(uid_t uid, const char *instance, const char *path, int *ret_fd) {
    uint64_t deadline = now_ns() + PATIENCE_NS;
    int holder = 0;
    for (;;) {
        int r = instance_lock_take(uid, instance, ret_fd, &holder);
        if (r <= 0)
            return r;
        if (answers(path) || now_ns() >= deadline)
            return error_raise(SHMPS_E_BUSY, "instance \"%s\" has a running pubsubd, process %d; "
                               "stop it first (shmps stop), or choose another name (--instance)",
                               instance, holder);
        nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
    }
}
