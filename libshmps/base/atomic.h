/* base/atomic.h - the only door to memory that another process can change.
 *
 * The order is in the name, as in mimalloc's atomic.h; there is no default. Every site names its
 * partner in a comment `SYNC word: ...`; a relaxed access says why that suffices. A checker build
 * can turn each of these into a scheduling point, so nothing in shared memory is touched by any
 * other means - except the payload of a loan or of a held block, which belongs to one side alone
 * while it is touched (DESIGN 3, I2 and I4). */
#ifndef SHMPS_BASE_ATOMIC_H
#define SHMPS_BASE_ATOMIC_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef _Atomic uint64_t atomic_u64;
typedef _Atomic uint32_t atomic_u32;

_Static_assert(sizeof(atomic_u64) == 8 && _Alignof(atomic_u64) == 8, "words of 64 bits are plain");
_Static_assert(sizeof(atomic_u32) == 4 && _Alignof(atomic_u32) == 4, "words of 32 bits are plain");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "no locks behind words");

#define atomic_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define atomic_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define atomic_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define atomic_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define atomic_add_release(p, v) atomic_fetch_add_explicit((p), (v), memory_order_release)
#define atomic_cas_relaxed(p, expected, v) \
    atomic_compare_exchange_weak_explicit((p), (expected), (v), memory_order_relaxed, \
                                          memory_order_relaxed)

#define fence_acquire() atomic_thread_fence(memory_order_acquire)
#define fence_release() atomic_thread_fence(memory_order_release)
#define fence_seq_cst() atomic_thread_fence(memory_order_seq_cst)

/* Keeps the compiler from moving accesses across; the other half is the sleeper's membarrier
 * (DESIGN 5). */
#define compiler_barrier() atomic_signal_fence(memory_order_seq_cst)

/* What a spinning loop does between two looks. */
static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#else
    compiler_barrier();
#endif
}

/* Copy bytes out of memory that may change meanwhile, by relaxed words. `from` is 8-byte aligned
 * and readable up to the next multiple of 8. What was copied may be torn: the caller checks
 * afterwards (fence_acquire, then low; DESIGN I4 c). */
static inline void copy_out_relaxed(void *to, const void *from, size_t bytes) {
    const atomic_u64 *words = from;
    char *out = to;
    size_t i = 0;
    for (; bytes >= 8; bytes -= 8, i++) {
        uint64_t w = atomic_load_relaxed(&words[i]); /* relaxed: the caller's fence orders it */
        memcpy(out + i * 8, &w, 8);
    }
    if (bytes > 0) {
        uint64_t w = atomic_load_relaxed(&words[i]); /* relaxed: as above */
        memcpy(out + i * 8, &w, bytes);
    }
}

/* Copy bytes into memory that others may be reading, by relaxed words; the tail of the last word
 * is zeroed. `to` is 8-byte aligned and writable up to the next multiple of 8. Ordered by the
 * caller's release store afterwards. */
static inline void copy_in_relaxed(void *to, const void *from, size_t bytes) {
    atomic_u64 *words = to;
    const char *in = from;
    size_t i = 0;
    for (; bytes >= 8; bytes -= 8, i++) {
        uint64_t w;
        memcpy(&w, in + i * 8, 8);
        atomic_store_relaxed(&words[i], w); /* relaxed: published by the caller's release store */
    }
    if (bytes > 0) {
        uint64_t w = 0;
        memcpy(&w, in + i * 8, bytes);
        atomic_store_relaxed(&words[i], w); /* relaxed: as above */
    }
}

#endif
