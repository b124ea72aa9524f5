#include "bus.h"

#include "base/error.h"
#include "log.h"
#include "wait/futex.h"

#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

/* ---- the directory */

static uint64_t random_serial(void) {
    uint64_t serial = 0;
    if (getrandom(&serial, sizeof(serial), 0) != sizeof(serial) || serial == 0)
        serial = now_ns() | 1;
    return serial;
}

static int format(struct bus *bus, const struct directory_geometry *g) {
    struct directory_header *header = bus->map.base;
    uint64_t serial = random_serial();
    identity_format(&header->identity, SEGMENT_NAMED, g->bytes, serial, 0, bus->boot, now_ns(),
                    bus->uid, 0);
    directory_format(header, g, bus->instance);
    identity_publish(&header->identity, MAGIC_DIRECTORY);
    int r = directory_attach(&bus->directory, bus->map.base, bus->map.bytes);
    /* what formatting touched need not stay in this process's memory */
    madvise(bus->map.base, bus->map.bytes, MADV_DONTNEED);
    bus->serial = serial;
    bus->next_serial = max_u64(bus->serial_min, 1);
    /* relaxed: seen with the epoch, which is stored later */
    atomic_store_relaxed(&header->next_serial, bus->next_serial);
    return r;
}

static int allocate(int fd, uint64_t bytes) {
    int r = 0;
    for (uint64_t done = 0; done < bytes && r == 0; done += SEGMENT_CHUNK_BYTES)
        r = segment_allocate(fd, done, min_u64(bytes - done, SEGMENT_CHUNK_BYTES));
    return r;
}

int bus_create(struct bus *bus) {
    struct segment_ref ref;
    struct directory_geometry g;
    _cleanup_close_ int fd = -1;
    segment_ref_directory(&ref, bus->uid, bus->instance);
    config_geometry(bus->config, &g);
    int r = segment_create(&ref, g.bytes, &fd);
    if (r < 0)
        return r;
    r = allocate(fd, g.bytes);
    if (r == 0)
        r = segment_map(fd, SEGMENT_WRITE_LAZY, g.bytes, &bus->map);
    if (r == 0)
        r = format(bus, &g);
    if (r == 0)
        r = segment_open(&ref, SEGMENT_READ, bus->uid, &bus->directory_fd);
    if (r == 0)
        r = bus_tables(bus);
    if (r < 0) {
        bus_forget(bus);
        segment_remove(&ref);
    }
    return r;
}

int bus_tables(struct bus *bus) {
    const struct directory_geometry *g = &bus->directory.geometry;
    bus->topics = calloc(g->topics, sizeof(void *));
    bus->rings = calloc(g->rings, sizeof(void *));
    bus->subscriptions = calloc(g->subscriptions, sizeof(void *));
    bus->pages = calloc(g->pages, sizeof(void *));
    if (bus->topics == NULL || bus->rings == NULL || bus->subscriptions == NULL ||
        bus->pages == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for the tables of the bus");
    return 0;
}

void bus_forget(struct bus *bus) {
    const struct directory_geometry *g = &bus->directory.geometry;
    for (uint32_t i = 0; bus->topics != NULL && i < g->topics; i++)
        free(bus->topics[i]);
    for (uint32_t i = 0; bus->rings != NULL && i < g->rings; i++)
        free(bus->rings[i]);
    for (uint32_t i = 0; bus->subscriptions != NULL && i < g->subscriptions; i++)
        free(bus->subscriptions[i]);
    for (uint32_t i = 0; bus->pages != NULL && i < g->pages; i++)
        free(bus->pages[i]);
    free(steal_pointer(&bus->topics));
    free(steal_pointer(&bus->rings));
    free(steal_pointer(&bus->subscriptions));
    free(steal_pointer(&bus->pages));
    bus->topics_end = bus->rings_end = bus->subscriptions_end = bus->pages_end = 0;
    scope_close(&bus->directory_fd);
    bus->directory_fd = -1;
    segment_unmap(&bus->map);
    bus->directory = (struct directory){ 0 };
}

/* ---- begin and end of a daemon */

static void change_all(struct bus *bus) {
    for (uint32_t i = 0; i < bus->topics_end; i++)
        if (bus->topics[i] != NULL && bus->topics[i]->listed)
            bus_changed(bus, bus->topics[i]);
    bus_changed(bus, NULL);
}

void bus_begin(struct bus *bus) {
    struct directory_header *h = bus->directory.header;
    /* relaxed: this daemon alone writes them; ordered before the epoch below */
    atomic_store_relaxed(&h->daemon_pid, (uint32_t)getpid());
    atomic_store_relaxed(&h->daemon_start_time, process_start_time(getpid()));
    atomic_store_relaxed(&h->daemon_state, DAEMON_RUNNING);
    bus->epoch = atomic_load_relaxed(&h->epoch) + 1; /* relaxed: as above */
    /* SYNC directory.epoch: release pairs with the client's acquire: whoever sees it finds us
     * listening. */
    atomic_store_release(&h->epoch, bus->epoch);
    change_all(bus);
}

bool bus_needs(const struct segment_found *found) {
    switch (found->content) {
    case SEGMENT_SET_ASIDE: /* kept until the next start */
        return true;
    case SEGMENT_READY: /* whose thread lives waits for it, and removes it */
        return kill(found->pid, 0) == 0 || errno != ESRCH;
    default:
        return false;
    }
}

static void remove_found(void *data, const struct segment_found *found) {
    (void)data;
    if (!bus_needs(found))
        segment_remove(&found->ref);
}

void bus_end(struct bus *bus) {
    struct segment_ref ref;
    /* SYNC directory.daemon_state: release; whoever was woken by the generation below sees it. */
    atomic_store_release(&bus->directory.header->daemon_state, DAEMON_ENDED);
    change_all(bus);
    if (segment_list(bus->uid, bus->instance, remove_found, NULL) < 0)
        log_warning("segments are left behind: %s", shmps_error_detail());
    segment_ref_directory(&ref, bus->uid, bus->instance);
    segment_remove(&ref);
}

void bus_rest(struct bus *bus) {
    madvise(bus->map.base, bus->map.bytes, MADV_DONTNEED); /* its content stays in the segment */
    malloc_trim(0);
}

/* ---- serials, changes */

uint64_t bus_draw_serial(struct bus *bus) {
    uint64_t serial = bus->next_serial++;
    /* SYNC directory.next_serial: release pairs with an observer's acquire: rings that it does
     * not find yet have a serial that is not below. Stored before it is used, it is never used
     * twice. */
    atomic_store_release(&bus->directory.header->next_serial, bus->next_serial);
    return serial;
}

static void raise_word(atomic_u32 *word) {
    /* SYNC topic.generation, directory.generation: release pairs with the acquire of publishers,
     * subscribers and sleepers: what was written before is seen by who sees the new value. */
    atomic_add_release(word, 1);
    wake_word(word, INT_MAX);
}

void bus_changed(struct bus *bus, const struct topic *topic) {
    if (topic != NULL)
        raise_word(directory_topic_generation(&bus->directory, topic->index));
    raise_word(directory_generation(&bus->directory));
}

uint32_t free_index(void *const *table, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (table[i] == NULL)
            return i;
    return NO_INDEX;
}

/* ---- the last distinct errors */

static uint32_t error_slot(const struct bus *bus, int code, const char *text) {
    uint32_t oldest = 0;
    for (uint32_t i = 0; i < BUS_ERRORS; i++) {
        if (bus->errors[i].count > 0 && bus->errors[i].code == code &&
            strcmp(bus->errors[i].text, text) == 0)
            return i;
        if (bus->errors[i].last_ns < bus->errors[oldest].last_ns)
            oldest = i;
    }
    return oldest;
}

void bus_error(struct bus *bus, int code, const char *what, const char *text) {
    char line[TOPIC_NAME_BYTES] = { 0 }; /* all of it: it goes into shared memory */
    snprintf(line, sizeof(line), "%s: %s", what, text);
    uint32_t i = error_slot(bus, code, line);
    bool known = bus->errors[i].count > 0 && bus->errors[i].code == code &&
                 strcmp(bus->errors[i].text, line) == 0;
    uint64_t now = now_ns();
    if (!known) {
        log_warning("%s: %s", what, text);
        bus->errors[i].count = 0;
        bus->errors[i].first_ns = now;
        bus->errors[i].code = code;
        memcpy(bus->errors[i].text, line, sizeof(line));
    }
    bus->errors[i].count++;
    bus->errors[i].last_ns = now;
    if (bus->directory.header == NULL || i >= bus->directory.geometry.errors)
        return;
    struct error_info info = { 0 };
    if (!known) /* free it first: a record's text changes only while it is free */
        directory_error_write(&bus->directory, i, &info, NULL);
    info = (struct error_info){
        .count = bus->errors[i].count,
        .code = code,
        .first_ns = bus->errors[i].first_ns,
        .last_ns = now,
    };
    directory_error_write(&bus->directory, i, &info, known ? NULL : line);
}
