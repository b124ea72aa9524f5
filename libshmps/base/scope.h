/* base/scope.h - own it, clean it up automatically, steal it on the last line.
 *
 *     _cleanup_close_ int fd = open(...);
 *     ...                                // any return closes fd
 *     *ret_fd = steal_fd(&fd);           // success: the caller owns it */
#ifndef SHMPS_BASE_SCOPE_H
#define SHMPS_BASE_SCOPE_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static inline void scope_close(int *fd) {
    if (*fd >= 0) {
        int saved = errno;
        close(*fd);
        errno = saved;
    }
}
static inline void scope_free(void *p) {
    free(*(void **)p);
}
static inline int steal_fd(int *fd) {
    int stolen = *fd;
    *fd = -1;
    return stolen;
}
#define _cleanup_close_ __attribute__((cleanup(scope_close)))
#define _cleanup_free_ __attribute__((cleanup(scope_free)))
#define steal_pointer(p) \
    __extension__({ __typeof__(*(p)) stolen_ = *(p); *(p) = NULL; stolen_; })

#define ARRAY_LENGTH(a) (sizeof(a) / sizeof((a)[0]))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))

static inline uint64_t min_u64(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}
static inline uint64_t max_u64(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

#endif
