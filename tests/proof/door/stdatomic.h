/* The compiler's <stdatomic.h> with another lock on the door: base/atomic.h includes this one in a
 * checker build, so that each access, fence and barrier of the real sources is a step of the
 * checker. memcpy() too: what it touches in a segment is a loan or a held block. And the heap is
 * part of the scene that each run begins with. */
#include_next <stdatomic.h>

#ifndef SHMPS_TESTS_PROOF_DOOR_STDATOMIC_H
#define SHMPS_TESTS_PROOF_DOOR_STDATOMIC_H

#include "../accesses.h"

#include <stdlib.h>
#include <string.h>

/* The type of what p points to, without its qualifiers. */
#define CHECKED_TYPE(p) __typeof__(*(p) + 0)

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_fetch_add_explicit
#undef atomic_compare_exchange_weak_explicit
#undef atomic_thread_fence
#undef atomic_signal_fence

#define atomic_load_explicit(p, order) \
    ((CHECKED_TYPE(p))access_load((const void *)(p), sizeof(*(p)), (order), __func__, __LINE__))
#define atomic_store_explicit(p, v, order) \
    access_store((void *)(p), (v), sizeof(*(p)), (order), __func__, __LINE__)
#define atomic_fetch_add_explicit(p, v, order) \
    access_add((void *)(p), (v), sizeof(*(p)), (order), __func__, __LINE__)
#define atomic_compare_exchange_weak_explicit(p, expected, v, order, failed) \
    access_cas((void *)(p), (expected), (v), sizeof(*(p)), (order), (failed), __func__, __LINE__)
#define atomic_thread_fence(order) access_fence((order), __func__, __LINE__)
#define atomic_signal_fence(order) access_barrier(__func__, __LINE__)
#define memcpy(to, from, n) access_copy((to), (from), (n), __func__, __LINE__)
#define __builtin_ia32_pause() access_relax()

#define malloc(n) heap_allocate(n)
#define calloc(n, size) heap_allocate((size_t)(n) * (size))
#define aligned_alloc(alignment, n) heap_allocate(n)
#define realloc(p, n) heap_resize((p), (n))
#define free(p) heap_free(p)

#endif
