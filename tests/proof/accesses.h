/* proof/accesses.h - what each access to shared memory becomes in a checker build. Outside of a
 * run, and outside of the segments, it is what it always was. `order`: a memory_order. */
#ifndef SHMPS_TESTS_PROOF_ACCESSES_H
#define SHMPS_TESTS_PROOF_ACCESSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t access_load(const void *p, size_t size, int order, const char *where, int line);
void access_store(void *p, uint64_t value, size_t size, int order, const char *where, int line);
uint64_t access_add(void *p, uint64_t value, size_t size, int order, const char *where, int line);
bool access_cas(void *p, void *expected, uint64_t value, size_t size, int order, int failed,
                const char *where, int line);
void access_fence(int order, const char *where, int line);
void access_barrier(const char *where, int line); /* the compiler's */
void *access_copy(void *to, const void *from, size_t n, const char *where, int line);
void access_relax(void);

/* Zeroed, aligned to 64. */
void *heap_allocate(size_t n);
void *heap_resize(void *p, size_t n);
void heap_free(void *p);

#endif
