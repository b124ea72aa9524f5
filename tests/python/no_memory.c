/* Preloaded into Python by test_no_memory.py: one allocation of this thread fails, the one that
 * has been asked for; and all that is alive is counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static __thread long left; /* 0: none fails */
static atomic_long alive;

/* The nth allocation from now on fails; 0: none. Returns how many were left of the last time. */
long fail_at(long n) {
    long was = left;
    left = n;
    return was;
}

long count_alive(void) {
    return atomic_load(&alive);
}

static int fails(void) {
    if (left == 0 || --left > 0)
        return 0;
    errno = ENOMEM;
    return 1;
}

static void *counted(void *memory) {
    if (memory)
        atomic_fetch_add(&alive, 1);
    return memory;
}

void *malloc(size_t bytes) {
    return fails() ? NULL : counted(__libc_malloc(bytes));
}

void *calloc(size_t n, size_t bytes) {
    return fails() ? NULL : counted(__libc_calloc(n, bytes));
}

void *realloc(void *memory, size_t bytes) {
    if (fails())
        return NULL;
    void *moved = __libc_realloc(memory, bytes);
    return memory ? moved : counted(moved);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    return fails() ? NULL : counted(__libc_memalign(alignment, bytes));
}

void *memalign(size_t alignment, size_t bytes) {
    return aligned_alloc(alignment, bytes);
}

int posix_memalign(void **ret, size_t alignment, size_t bytes) {
    *ret = aligned_alloc(alignment, bytes);
    return *ret ? 0 : ENOMEM;
}

void free(void *memory) {
    if (memory)
        atomic_fetch_sub(&alive, 1);
    __libc_free(memory);
}
