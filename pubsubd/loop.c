#include "loop.h"

#include "base/error.h"
#include "base/scope.h"

#define READY_MAX 64

/* A watch's token: generation << 32 | index + 1. What comes late for a watch that was removed
 * finds another generation. */
struct slot {
    int fd;
    uint32_t generation;
    loop_function *function; /* NULL: free */
    void *data;
    uint32_t next_free;
    bool armed;
    bool known;
};

struct loop {
    const struct loop_way *way;
    void *state;
    struct slot *slots;
    uint32_t n_slots;
    uint32_t free_slot; /* index + 1; 0: none */
};

int loop_new(struct loop **ret, enum loop_kind kind) {
    struct loop *loop = calloc(1, sizeof(*loop));
    if (loop == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for the loop");
    int r = kind == LOOP_EPOLL ? SHMPS_E_UNSUPPORTED : loop_uring_new(&loop->way, &loop->state);
    if (r < 0 && kind != LOOP_URING)
        r = loop_epoll_new(&loop->way, &loop->state);
    if (r < 0) {
        free(loop);
        return r;
    }
    *ret = loop;
    return 0;
}

void loop_free(struct loop *loop) {
    if (loop == NULL)
        return;
    loop->way->free(loop->state);
    free(loop->slots);
    free(loop);
}

const char *loop_name(const struct loop *loop) {
    return loop->way->name;
}

static int more_slots(struct loop *loop) {
    uint32_t n = loop->n_slots ? loop->n_slots * 2 : 16;
    struct slot *slots = realloc(loop->slots, n * sizeof(*slots));
    if (slots == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for %u watched descriptors", n);
    for (uint32_t i = n; i-- > loop->n_slots;) {
        slots[i] = (struct slot){ .next_free = loop->free_slot };
        loop->free_slot = i + 1;
    }
    loop->slots = slots;
    loop->n_slots = n;
    return 0;
}

static uint64_t token_of(const struct loop *loop, uint32_t watch) {
    return (uint64_t)loop->slots[watch - 1].generation << 32 | watch;
}

int loop_add(struct loop *loop, int fd, loop_function *function, void *data, uint32_t *ret_watch) {
    int r = loop->free_slot != 0 ? 0 : more_slots(loop);
    if (r < 0)
        return r;
    uint32_t watch = loop->free_slot;
    struct slot *slot = &loop->slots[watch - 1];
    loop->free_slot = slot->next_free;
    *slot = (struct slot){
        .fd = fd,
        .generation = slot->generation + 1,
        .function = function,
        .data = data,
    };
    *ret_watch = watch;
    return 0;
}

void loop_arm(struct loop *loop, uint32_t watch, uint32_t events) {
    struct slot *slot = &loop->slots[watch - 1];
    if (slot->armed)
        return;
    slot->armed =
        loop->way->arm(loop->state, slot->fd, events, token_of(loop, watch), slot->known) == 0;
    if (slot->armed)
        slot->known = true;
    else /* the kernel has no memory for it: what it watches counts as failed */
        slot->function(slot->data, POLLERR);
}

void loop_remove(struct loop *loop, uint32_t watch) {
    if (watch == 0)
        return;
    struct slot *slot = &loop->slots[watch - 1];
    if (slot->known)
        loop->way->disarm(loop->state, slot->fd, token_of(loop, watch), slot->armed);
    slot->function = NULL;
    slot->generation++;
    slot->next_free = loop->free_slot;
    loop->free_slot = watch;
}

int loop_turn(struct loop *loop, bool wait) {
    struct loop_ready ready[READY_MAX];
    int n = loop->way->wait(loop->state, wait, ready, READY_MAX);
    for (int i = 0; i < n; i++) {
        uint32_t watch = (uint32_t)ready[i].token;
        if (watch == 0 || watch > loop->n_slots || token_of(loop, watch) != ready[i].token)
            continue;
        struct slot *slot = &loop->slots[watch - 1];
        if (!slot->armed)
            continue;
        slot->armed = false;
        slot->function(slot->data, ready[i].events);
    }
    return n < 0 ? n : 0;
}
