#include "bus.h"

#include "base/error.h"

/* A ring while the newest samples are chosen: those from `begin` on are. */
struct choice {
    struct ring *ring;
    struct segment_map map;
    struct ring_geometry g;
    uint64_t begin, end;
    uint64_t time; /* of sample begin - 1 */
    bool more;     /* that sample is still there */
};

static void look_back(struct choice *c) {
    const struct ring_header *header = c->map.base;
    c->more = false;
    if (c->begin <= c->g.start)
        return;
    const struct slot *slot = ring_slot((const char *)header + RING_SLOTS_OFFSET, &c->g,
                                        c->begin - 1);
    /* SYNC slot.seq: acquire pairs with the release in ring_commit(). */
    if (atomic_load_acquire(&slot->seq) != c->begin)
        return;
    c->time = atomic_load_relaxed(&slot->time_ns); /* relaxed: only to compare; a publisher that
                                                      laps us has newer ones anyway */
    c->more = true;
}

static uint32_t count_rings(const struct topic *topic) {
    uint32_t n = 0;
    for (const struct ring *ring = topic->rings; ring != NULL; ring = ring->next)
        n++;
    return n;
}

static uint32_t open_rings(struct bus *bus, const struct topic *topic, struct choice *choices) {
    uint32_t n = 0;
    for (struct ring *ring = topic->rings; ring != NULL; ring = ring->next) {
        struct choice *c = &choices[n];
        if (ring_map(bus, ring, &c->map, &c->g) < 0)
            continue; /* nobody can read it */
        c->ring = ring;
        c->begin = c->end = ring->info.state == RING_RETIRED
                                ? ring->info.final_head
                                : ring_committed_end(c->map.base, &c->g);
        look_back(c);
        n++;
    }
    return n;
}

/* Of two samples of the same time, or without times, that of the younger ring is newer. */
static bool is_newer(const struct choice *a, const struct choice *b) {
    return a->time != b->time ? a->time > b->time
                              : a->ring->info.serial > b->ring->info.serial;
}

static void choose(struct choice *choices, uint32_t n, uint32_t samples) {
    for (uint32_t k = 0; k < samples; k++) {
        struct choice *newest = NULL;
        for (uint32_t i = 0; i < n; i++)
            if (choices[i].more && (newest == NULL || is_newer(&choices[i], newest)))
                newest = &choices[i];
        if (newest == NULL)
            return;
        newest->begin--;
        look_back(newest);
    }
}

void history_mark(struct bus *bus, struct topic *topic) {
    bool any = false;
    for (struct ring *ring = topic->rings; ring != NULL; ring = ring->next) {
        ring->has_history = false;
        any |= ring->info.state == RING_RETIRED;
    }
    if (topic->info.history == 0 || !any)
        return;
    _cleanup_free_ struct choice *choices = calloc(count_rings(topic), sizeof(*choices));
    if (choices == NULL) { /* no memory to choose: all are kept, as far as DEAD_MAX goes */
        for (struct ring *ring = topic->rings; ring != NULL; ring = ring->next)
            ring->has_history = true;
        return;
    }
    uint32_t n = open_rings(bus, topic, choices);
    choose(choices, n, topic->info.history);
    for (uint32_t i = 0; i < n; i++) {
        choices[i].ring->has_history = choices[i].begin < choices[i].end;
        segment_unmap(&choices[i].map);
    }
}

uint64_t history_most(uint64_t depth) {
    return depth - ring_batch((uint32_t)depth);
}

uint64_t history_depth(uint64_t samples) {
    if (samples == 0)
        return 0;
    uint64_t depth = RING_DEPTH_MIN;
    while (depth < RING_DEPTH_MAX && history_most(depth) < samples)
        depth *= 2;
    return depth;
}
