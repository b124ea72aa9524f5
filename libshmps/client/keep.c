#include "client/client.h"

#include <string.h>
#include <sys/mman.h>

/* How a pinned block outlives its pin at the same address: its pages are copied, and the copy is
 * moved over them. mremap(2) does that under the lock that a page fault waits for, so who reads
 * there meanwhile sees the ring's page or the copy, never a hole. The pins are given up
 * afterwards.
 *
 * All that may fail without harm comes first. Then the subscriber changes over to a second mapping
 * of its rings, so that it can go on if a move fails: what was moved until then, and its old
 * mappings, stay as they are until it is closed (`half_kept`). */

/* Pages in the mapping of a ring. */
struct run {
    const struct ring_view *view;
    char *start, *end;
    void *copy; /* NULL: moved */
};

struct shmps_kept {
    struct hold **hold_chunks;
    uint32_t n_holds;
    struct run *runs;         /* by address */
    size_t n_runs;
    struct ring_view **views; /* that have pinned blocks in their mapping, */
    struct segment_map *maps; /* and their second ones, later the former ones */
    size_t n_maps;
    struct shmps_kept *next;  /* what had gone wrong before */
};

static size_t run_bytes(const struct run *run) {
    return (size_t)(run->end - run->start);
}

static uintptr_t page_mask(void) {
    return (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
}

static char *page_start(const void *p) {
    return (char *)p - ((uintptr_t)p & page_mask());
}

static char *page_end(const void *p) {
    return page_start((const char *)p + page_mask());
}

static int by_address(const void *a, const void *b) {
    const char *x = ((const struct run *)a)->start, *y = ((const struct run *)b)->start;
    return (x > y) - (x < y);
}

/* ---- what is pinned */

/* The pages of each pinned block; those that touch are one. */
static void list_runs(const struct shmps_subscriber *sub, struct shmps_kept *kept) {
    for (uint32_t i = 0; i < sub->n_holds; i++) {
        const struct hold *hold = &sub->hold_chunks[i / HOLD_CHUNK][i % HOLD_CHUNK];
        if (hold->view && hold->pin != NO_PIN)
            kept->runs[kept->n_runs++] = (struct run){
                .view = hold->view,
                .start = page_start(hold->block),
                .end = page_end((const char *)hold->block + hold->bytes),
            };
    }
    qsort(kept->runs, kept->n_runs, sizeof *kept->runs, by_address);
    size_t n = 0;
    for (size_t i = 0; i < kept->n_runs; i++) {
        struct run *last = n > 0 ? &kept->runs[n - 1] : NULL, *run = &kept->runs[i];
        if (!last || last->view != run->view || run->start > last->end)
            kept->runs[n++] = *run;
        else if (run->end > last->end)
            last->end = run->end;
    }
    kept->n_runs = n;
}

static int copy_run(struct run *run) {
    size_t bytes = run_bytes(run);
    void *copy = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (copy == MAP_FAILED)
        return error_system(errno, "no memory for %zu bytes", bytes);
    run->copy = copy;
    memcpy(copy, run->start, bytes);
    if (mprotect(copy, bytes, PROT_READ) < 0) /* as the ring is */
        return error_system(errno, "cannot protect %zu bytes", bytes);
    return 0;
}

static int map_again(struct shmps_kept *kept, const struct run *run) {
    struct ring_view *view = (struct ring_view *)run->view;
    const char *base = view->map.base;
    bool known = kept->n_maps > 0 && kept->views[kept->n_maps - 1] == view;
    if (known || run->start < base || run->start >= base + view->map.bytes)
        return 0; /* it lies in a mapping that a failure has left */
    int r = segment_map_again(&view->map, &kept->maps[kept->n_maps]);
    if (r == 0)
        kept->views[kept->n_maps++] = view;
    return r;
}

/* ---- moving */

static void change_over(struct shmps_kept *kept) {
    for (size_t i = 0; i < kept->n_maps; i++) {
        struct ring_view *view = kept->views[i];
        struct segment_map former = view->map;
        view->map = kept->maps[i];
        kept->maps[i] = former;
        ring_reader_moved(&view->reader, view->map.base);
    }
}

static int move_runs(struct shmps_kept *kept) {
    for (size_t i = 0; i < kept->n_runs; i++) {
        struct run *run = &kept->runs[i];
        size_t bytes = run_bytes(run);
        if (mremap(run->copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, run->start) ==
            MAP_FAILED)
            return error_system(errno, "cannot move %zu bytes", bytes);
        run->copy = NULL;
    }
    return 0;
}

static void unmap_copies(struct shmps_kept *kept) {
    for (size_t i = 0; i < kept->n_runs; i++)
        if (kept->runs[i].copy)
            munmap(kept->runs[i].copy, run_bytes(&kept->runs[i]));
    kept->n_runs = 0;
}

static int make(struct shmps_subscriber *sub, struct shmps_kept *kept) {
    size_t n = sub->held;
    kept->runs = calloc(n, sizeof *kept->runs);
    kept->views = calloc(n, sizeof(struct ring_view *));
    kept->maps = calloc(n, sizeof *kept->maps);
    if (!kept->runs || !kept->views || !kept->maps)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory to list %zu samples", n);
    list_runs(sub, kept);
    int r = 0;
    for (size_t i = 0; r == 0 && i < kept->n_runs; i++)
        r = copy_run(&kept->runs[i]);
    for (size_t i = 0; r == 0 && i < kept->n_runs; i++)
        r = map_again(kept, &kept->runs[i]);
    return r;
}

int kept_make(struct shmps_subscriber *sub, struct shmps_kept **ret) {
    struct shmps_kept *kept = calloc(1, sizeof *kept);
    if (!kept)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory to list samples");
    int r = make(sub, kept);
    if (r < 0) {
        unmap_copies(kept);
        kept_unmap(kept);
        kept_drop(kept);
        return r;
    }
    change_over(kept);
    r = move_runs(kept);
    kept->next = sub->half_kept;
    sub->half_kept = r < 0 ? kept : NULL;
    if (r < 0) {
        unmap_copies(kept);
        if (sub->descriptor)
            descriptor_signal(sub->descriptor); /* it waits on words in the former mappings */
        return r;
    }
    *ret = kept;
    return 0;
}

/* ---- afterwards */

/* Unmap all but the runs. */
static void trim(const struct segment_map *map, const struct shmps_kept *kept) {
    char *at = map->base, *end = page_end(at + map->bytes);
    for (size_t i = 0; i < kept->n_runs; i++) {
        const struct run *run = &kept->runs[i];
        if (run->start < at || run->start >= end)
            continue;
        if (run->start > at)
            munmap(at, (size_t)(run->start - at));
        at = run->end;
    }
    if (at < end)
        munmap(at, (size_t)(end - at));
}

void kept_finish(struct shmps_kept *kept, struct hold **chunks, uint32_t n_holds) {
    for (struct shmps_kept *k = kept; k; k = k->next) {
        for (size_t i = 0; i < k->n_maps; i++)
            trim(&k->maps[i], kept);
        k->n_maps = 0;
    }
    kept->hold_chunks = chunks;
    kept->n_holds = n_holds;
}

void kept_unmap(struct shmps_kept *kept) {
    for (struct shmps_kept *k = kept; k; k = k->next)
        for (size_t i = 0; i < k->n_maps; i++)
            segment_unmap(&k->maps[i]);
}

void kept_drop(struct shmps_kept *kept) {
    for (struct shmps_kept *k = kept, *next; k; k = next) {
        next = k->next;
        holds_free(k->hold_chunks, k->n_holds);
        free(k->runs);
        free(k->views);
        free(k->maps);
        free(k);
    }
}

void shmps_kept_free(struct shmps_kept *kept) {
    for (size_t i = 0; kept && i < kept->n_runs; i++)
        munmap(kept->runs[i].start, run_bytes(&kept->runs[i]));
    kept_drop(kept);
}
