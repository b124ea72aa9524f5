#include "world.h"

#include "checker.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>

#define ARENA_BYTES (192u << 10)
#define HEAP_BYTES (512u << 10)
#define SEGMENTS_MAX 16u
#define RINGS 4u
#define SUBSCRIPTIONS 6u
#define FD_FIRST 4000
#define CLOCK_STEP_NS 5000u /* from one look at the clock to the next */
#define DIRECTORY 77u /* its serial */
#define DEFAULT_BYTES 232u /* of a message, where the publisher does not say */

static const uint64_t boot[2] = { 1, 2 };

struct segment {
    char name[SEGMENT_NAME_BYTES];
    char *base;
    size_t bytes;
    uint64_t ring; /* serial; 0: the directory */
    bool readers;
};

struct made_ring {
    struct ring_info info;
    struct ring_header *ring;
    struct readers_segment *readers;
};

static _Alignas(4096) char arena[ARENA_BYTES];
static _Alignas(64) char heap[HEAP_BYTES];
static uint8_t shared[ARENA_BYTES / 4]; /* per word: its accesses are steps */
static atomic_u64 fork_mark;
atomic_u64 *fork_word = &fork_mark;

/* All that a run changes, but arena and heap. */
static struct world {
    size_t arena_used, heap_used;
    bool registered; /* who sets the scene is, for membarrier */
    bool silent;     /* pubsubd does not close what it is asked to */
    long setting;    /* the clock meanwhile; 0: the scene is set */
    uint32_t n_segments, n_rings, n_subscriptions;
    struct segment segments[SEGMENTS_MAX];
    struct made_ring rings[RINGS];
    struct subscription_info subscriptions[SUBSCRIPTIONS];
    uint64_t cells[READERS_ENTRIES];
    struct topic_info topic;
    struct directory directory; /* pubsubd's */
    uint64_t next_serial;
} w, saved;
static char saved_arena[ARENA_BYTES], saved_heap[HEAP_BYTES];

/* ---- heap */

void *heap_allocate(size_t n) {
    size_t bytes = (n + 63) / 64 * 64 + 64; /* the size lies before it */
    if (w.heap_used + bytes > HEAP_BYTES)
        violated("the heap is full");
    char *p = heap + w.heap_used;
    w.heap_used += bytes;
    (memset)(p, 0, bytes);
    (memcpy)(p, &n, sizeof n);
    return p + 64;
}

void *heap_resize(void *p, size_t n) {
    void *grown = heap_allocate(n);
    if (p) {
        size_t old;
        (memcpy)(&old, (char *)p - 64, sizeof old);
        (memcpy)(grown, p, min_u64(old, n));
    }
    return grown;
}

void heap_free(void *p) {
    (void)p; /* all of it at the end of the run */
}

/* ---- the arena */

void world_save(void) {
    w.setting = 0;
    saved = w;
    (memcpy)(saved_arena, arena, w.arena_used);
    (memcpy)(saved_heap, heap, w.heap_used);
}

void world_restore(void) {
    size_t used = max_u64(w.arena_used, saved.arena_used);
    (memcpy)(arena, saved_arena, saved.arena_used);
    (memset)(arena + saved.arena_used, 0, used - saved.arena_used);
    (memset)(shared + saved.arena_used / 4, 0, (used - saved.arena_used) / 4);
    (memcpy)(heap, saved_heap, saved.heap_used);
    w = saved;
}

char *world_arena(size_t *ret_bytes) {
    *ret_bytes = ARENA_BYTES;
    return arena;
}

static void share(const void *from, size_t bytes) {
    (memset)(shared + ((const char *)from - arena) / 4, 1, bytes / 4);
}

bool is_shared(const void *p) {
    return shared[((const char *)p - arena) / 4] != 0;
}

static char *make_segment(const struct segment_ref *ref, size_t bytes, uint64_t ring,
                          bool readers) {
    if (w.n_segments == SEGMENTS_MAX || w.arena_used + bytes > ARENA_BYTES)
        violated("the arena is full");
    struct segment *s = &w.segments[w.n_segments++];
    *s = (struct segment){ .base = arena + w.arena_used, .bytes = bytes, .ring = ring,
                           .readers = readers };
    (memcpy)(s->name, ref->name, sizeof s->name);
    w.arena_used += (bytes + 4095) / 4096 * 4096;
    return s->base;
}

static const char *name_in_ring(const struct segment *s, size_t at) {
    static char name[48];
    static const char *const words[] = { "low", "head", "bell", "starved" };
    static const char *const slot[] = { "seq", "time", "bytes", "tag" };
    const struct ring_geometry *g = &((const struct ring_header *)(const void *)s->base)->geometry;
    if (at < 768)
        return words[(at - 256) / 128];
    if (at < RING_SLOTS_OFFSET)
        return at < 1152 ? "evicted" : "successor";
    size_t from = at - RING_SLOTS_OFFSET, word = from % g->slot_bytes / 8;
    if (g->blocks > 0 && at >= g->blocks_offset)
        snprintf(name, sizeof name, "block[%zu] + %zu", (at - g->blocks_offset) / g->block_bytes,
                 (at - g->blocks_offset) % g->block_bytes);
    else if (word < 4)
        snprintf(name, sizeof name, "slot[%zu].%s", from / g->slot_bytes, slot[word]);
    else
        snprintf(name, sizeof name, "slot[%zu] + %zu", from / g->slot_bytes, 8 * (word - 4));
    return name;
}

const char *name_of(const void *p) {
    static char name[64];
    for (uint32_t i = 0; i < w.n_segments; i++) {
        const struct segment *s = &w.segments[i];
        if ((const char *)p < s->base || (const char *)p >= s->base + s->bytes)
            continue;
        size_t at = (size_t)((const char *)p - s->base), word = (at - 256) / 8;
        if (s->ring == 0)
            return p == &w.directory.header->generation      ? "bus.generation"
                   : p == &w.directory.topics[0].header.generation ? "topic.generation"
                                                                   : "roster";
        if (!s->readers)
            snprintf(name, sizeof name, "%s", name_in_ring(s, at));
        else if (at < 256)
            snprintf(name, sizeof name, at < 192 ? "armed" : "space");
        else if (word % 8 == 0)
            snprintf(name, sizeof name, "entry[%zu].need", word / 8);
        else
            snprintf(name, sizeof name, "entry[%zu].pins[%zu]", word / 8, word % 8 - 1);
        if (s->ring > 1)
            snprintf(name + strlen(name), sizeof name - strlen(name), " of %u",
                     (unsigned)s->ring);
        return name;
    }
    return "private memory";
}

/* ---- base/segment.h */

void segment_ref_ring(struct segment_ref *ret, uid_t uid, const char *instance, uint64_t ring) {
    ret->kind = SEGMENT_NAMED;
    snprintf(ret->name, sizeof ret->name, "%u.%s.r%u", (unsigned)uid, instance, (unsigned)ring);
}

void segment_ref_readers(struct segment_ref *ret, uid_t uid, const char *instance, uint64_t ring,
                         uint32_t page) {
    ret->kind = SEGMENT_NAMED;
    snprintf(ret->name, sizeof ret->name, "%u.%s.e%u.%u", (unsigned)uid, instance, (unsigned)ring,
             page);
}

int segment_open(const struct segment_ref *ref, enum segment_access access, uid_t owner,
                 int *ret_fd) {
    (void)access;
    (void)owner;
    for (uint32_t i = 0; i < w.n_segments; i++)
        if (strcmp(w.segments[i].name, ref->name) == 0) {
            *ret_fd = FD_FIRST + (int)i; /* closing it fails, which nobody looks at */
            return 0;
        }
    return error_raise(SHMPS_E_NO_TOPIC, "there is no %s", ref->name);
}

int segment_map(int fd, enum segment_access access, size_t min_bytes, struct segment_map *ret) {
    (void)access;
    (void)min_bytes;
    const struct segment *s = &w.segments[fd - FD_FIRST];
    *ret = (struct segment_map){ s->base, s->bytes };
    return 0;
}

void segment_unmap(struct segment_map *map) {
    *map = SEGMENT_MAP_NONE;
}

bool instance_name_valid(const char *name) {
    return name[0] != '\0';
}

/* ---- base/process.h, wait/futex.h */

uint64_t process_start_time(pid_t pid) {
    (void)pid;
    return 1;
}

bool process_has_ended(pid_t pid, uint64_t start_time) {
    (void)start_time;
    return pid_has_ended(pid);
}

int clock_gettime(clockid_t clock, struct timespec *ret) {
    if (w.setting) { /* before all that runs will be */
        *ret = (struct timespec){ .tv_nsec = ++w.setting };
        return 0;
    }
    if (!running())
        return (int)syscall(SYS_clock_gettime, clock, ret);
    clock_pass(CLOCK_STEP_NS);
    ret->tv_sec = (time_t)(clock_now() / UINT64_C(1000000000));
    ret->tv_nsec = (long)(clock_now() % UINT64_C(1000000000));
    return 0;
}

enum wait_result wait_on_words(const struct wait_word *words, uint32_t n, int64_t timeout_ns) {
    struct sleep_word sleeping[8];
    for (uint32_t i = 0; i < n && i < ARRAY_LENGTH(sleeping); i++)
        sleeping[i] = (struct sleep_word){ words[i].word, words[i].expected };
    return futex_sleep(sleeping, n, timeout_ns) ? WAIT_TIMEOUT : WAIT_WOKEN;
}

int wake_word(const atomic_u32 *word, int n) {
    return futex_wake((const void *)word, n);
}

bool barrier_registered(void) {
    return running() ? fiber_reached(fiber_self()) : w.registered;
}

bool barrier_everyone(void) {
    if (!running() || !step())
        return barrier_registered();
    if (barrier_registered()) {
        trace(fiber_self(), "membarrier");
        memory_everyone(fiber_self());
        return true;
    }
    fence_seq_cst();
    return false;
}

/* ---- pubsubd */

static void raise_word(atomic_u32 *word) {
    atomic_add_release(word, 1);
    wake_word(word, INT_MAX);
}

static void changed(void) {
    raise_word(&w.directory.topics[0].header.generation);
    raise_word(&w.directory.header->generation);
}

static void write_topic(void) {
    directory_topic_write(&w.directory, 0, &w.topic, w.topic.live ? NULL : TOPIC);
}

static void store_cell(uint32_t i, uint64_t cell) {
    w.cells[i] = cell;
    atomic_store_release(&w.directory.pages[0].cells[i], cell);
}

void world_open(uint32_t patience_ms) {
    struct directory_geometry g;
    struct segment_ref ref = { .name = "directory" };
    (memset)(arena, 0, sizeof arena);
    (memset)(shared, 0, sizeof shared);
    w = (struct world){ .next_serial = 1, .setting = 1 };
    directory_geometry_make(&g, 1, RINGS, SUBSCRIPTIONS, 1, 1);
    struct directory_header *header = (void *)make_segment(&ref, g.bytes, 0, false);
    identity_format(&header->identity, SEGMENT_NAMED, g.bytes, DIRECTORY, 0, boot, 3, 4, 0);
    directory_format(header, &g, "proof");
    identity_publish(&header->identity, MAGIC_DIRECTORY);
    if (directory_attach(&w.directory, header, g.bytes) < 0)
        violated("%s", shmps_error_detail());
    const struct roster_page *page = &w.directory.pages[0];
    w.topic = (struct topic_info){ .live = 1, .first_ring = NO_INDEX, .first_page = NO_INDEX,
                                   .serial = w.next_serial++,
                                   .patience_ns = patience_ms * UINT64_C(1000000) };
    directory_topic_write(&w.directory, 0, &w.topic, TOPIC);
    header->daemon_state = DAEMON_RUNNING;
    share(&w.directory.topics[0].header.generation, 4);
    share(&header->generation, 4);
    share(page->cells, sizeof page->cells);
}

void world_silence(void) {
    w.silent = true;
}

void world_share_records(void) {
    const struct directory *d = &w.directory;
    share(d->topics, sizeof *d->topics - TOPIC_NAME_BYTES);
    share(d->rings, RINGS * sizeof *d->rings);
    for (uint32_t i = 0; i < SUBSCRIPTIONS; i++)
        share(&d->subscriptions[i], sizeof *d->subscriptions - TOPIC_NAME_BYTES);
}

struct shmps *world_connect(int32_t pid, bool registered) {
    w.registered = registered;
    struct shmps *bus = heap_allocate(sizeof *bus);
    bus->directory = w.directory;
    bus->fence = !registered;
    bus->session_number = 1;
    bus->session = pid; /* whom the session is of */
    snprintf(bus->instance, sizeof bus->instance, "proof");
    pthread_mutex_init(&bus->lock, NULL);
    return bus;
}

static void make_readers(const struct shmps *bus, struct made_ring *made, uint64_t need) {
    struct segment_ref ref;
    segment_ref_readers(&ref, 0, bus->instance, made->info.serial, 0);
    made->readers = (void *)make_segment(&ref, READERS_BYTES, made->info.serial, true);
    identity_format(&made->readers->identity, SEGMENT_NAMED, READERS_BYTES, made->info.serial,
                    DIRECTORY, boot, 3, 4, 0);
    readers_format(made->readers);
    for (uint32_t i = 0; i < READERS_ENTRIES; i++)
        if (w.cells[i] != 0 && cell_policy(w.cells[i]) != POLICY_SPAN)
            reader_entry_reset(&made->readers->entries[i], cell_pins(w.cells[i]), need);
    identity_publish(&made->readers->identity, MAGIC_READERS);
    share(&made->readers->armed, READERS_BYTES - 128);
}

static struct made_ring *ring_of_serial(uint64_t serial) {
    for (uint32_t i = 0; i < w.n_rings; i++)
        if (w.rings[i].info.serial == serial)
            return &w.rings[i];
    return NULL;
}

static struct made_ring *make_ring(const struct shmps *bus,
                                   const struct wire_open_publisher *request) {
    struct segment_ref ref;
    struct ring_geometry g;
    uint64_t bytes, serial = w.next_serial++;
    const struct made_ring *before = ring_of_serial(request->predecessor);
    uint32_t record = w.n_rings++;
    struct made_ring *made = &w.rings[record];
    uint64_t message_bytes = request->message_bytes ? request->message_bytes : DEFAULT_BYTES;
    if (ring_geometry_make(&g, &bytes, request->depth, message_bytes, request->pins) < 0)
        violated("%s", shmps_error_detail());
    g.mode = barrier_registered() ? RING_BARE : RING_FENCE;
    g.record = record;
    g.start = before ? ring_committed_end(before->ring, &before->ring->geometry) : 0;
    g.publisher = before ? before->info.publisher : serial;
    made->info = (struct ring_info){ .state = RING_LIVE, .next = w.topic.first_ring,
                                     .serial = serial, .publisher = g.publisher,
                                     .predecessor = request->predecessor, .start = g.start,
                                     .bytes = bytes, .depth = g.depth, .pins = g.pins,
                                     .owner = { .pid = getpid(), .start_time = 1 } };
    made->info.owner.session = (uint64_t)bus->session;
    if (w.topic.first_page != NO_INDEX)
        make_readers(bus, made, g.start);
    segment_ref_ring(&ref, 0, bus->instance, serial);
    made->ring = (void *)make_segment(&ref, bytes, serial, false);
    identity_format(&made->ring->identity, SEGMENT_NAMED, bytes, serial, DIRECTORY, boot, 3, 4, 0);
    ring_format(made->ring, &g);
    identity_publish(&made->ring->identity, MAGIC_RING);
    share(&made->ring->low, 512);
    share(made->ring->evicted, 384);
    share((char *)made->ring + RING_SLOTS_OFFSET, bytes - RING_SLOTS_OFFSET);
    return made;
}

static int open_ring(struct shmps *bus, const struct wire_open_publisher *request,
                     struct wire_reply *ret, int *ret_fd) {
    const struct made_ring *made = make_ring(bus, request);
    *ret_fd = FD_FIRST + (int)w.n_segments - 1;
    uint32_t record = (uint32_t)(made - w.rings);
    directory_ring_write(&w.directory, record, &made->info);
    w.topic.first_ring = record;
    write_topic();
    changed();
    ret->u.publisher.serial = made->info.serial;
    return 0;
}

/* The first subscriber of the topic: its group's page. */
static void make_page(const struct shmps *bus) {
    struct roster_page *page = &w.directory.pages[0];
    w.topic.first_page = 0;
    for (uint32_t i = 0; i < w.n_rings; i++)
        make_readers(bus, &w.rings[i], NEED_NONE);
    atomic_store_relaxed(&page->topic, 0);
    write_topic();
}

static void seat(const struct shmps *bus, uint32_t record, uint32_t policy, uint32_t pins) {
    uint32_t cell = 0;
    while (w.cells[cell] != 0)
        cell++;
    if (w.topic.first_page == NO_INDEX)
        make_page(bus);
    for (uint32_t i = 0; i < w.n_rings; i++) {
        struct made_ring *made = &w.rings[i];
        uint64_t need = NEED_NONE;
        if (made->info.state == RING_LIVE)
            need = ring_committed_end(made->ring, &made->ring->geometry);
        reader_entry_reset(&made->readers->entries[cell], pins, need);
    }
    for (uint32_t i = reader_span(pins); --i > 0;)
        store_cell(cell + i, cell_make(POLICY_SPAN, 0, record));
    store_cell(cell, cell_make(policy, pins, record));
}

static int subscribe(struct shmps *bus, const struct wire_open_subscriber *request,
                     struct wire_reply *ret) {
    uint32_t record = w.n_subscriptions++;
    struct subscription_info *s = &w.subscriptions[record];
    *s = (struct subscription_info){ .live = 1, .policy = request->policy, .pins = request->pins,
                                     .serial = w.next_serial++, .exact = 1,
                                     .owner = { .pid = bus->session, .start_time = 1 } };
    directory_subscription_write(&w.directory, record, s, TOPIC);
    seat(bus, record, request->policy, request->pins);
    write_topic();
    changed();
    barrier_everyone();
    ret->u.subscriber.serial = s->serial;
    ret->u.subscriber.record = record;
    return 0;
}

int session_request(struct shmps *bus, void *request, struct wire_reply *ret, int *ret_fd) {
    const struct wire_header *header = request;
    (memset)(ret, 0, sizeof *ret);
    if (header->type == WIRE_OPEN_PUBLISHER)
        return open_ring(bus, request, ret, ret_fd);
    return subscribe(bus, request, ret);
}

static void release_entry(struct made_ring *made, uint32_t cell, uint32_t pins) {
    reader_entry_reset(&made->readers->entries[cell], pins, NEED_NONE);
    atomic_add_release(&made->readers->space, 1);
    wake_word(&made->readers->space, INT_MAX);
}

static void unsubscribe(uint32_t record, bool dead) {
    uint32_t cell = 0;
    while (cell < READERS_ENTRIES &&
           (w.cells[cell] == 0 || cell_subscription(w.cells[cell]) != record))
        cell++;
    uint32_t pins = cell_pins(w.cells[cell]);
    for (uint32_t i = 0; dead && i < w.n_rings; i++)
        release_entry(&w.rings[i], cell, pins);
    for (uint32_t i = 0; i < reader_span(pins); i++)
        store_cell(cell + i, 0);
    w.subscriptions[record].live = 0;
    directory_subscription_write(&w.directory, record, &w.subscriptions[record], NULL);
    write_topic();
    changed();
}

static void retire(struct made_ring *made) {
    made->info.final_head = ring_committed_end(made->ring, &made->ring->geometry);
    made->info.state = RING_RETIRED;
    directory_ring_write(&w.directory, (uint32_t)(made - w.rings), &made->info);
    changed();
}

void world_reap(int32_t pid) {
    for (uint32_t i = 0; i < w.n_rings; i++)
        if (w.rings[i].info.state == RING_LIVE &&
            w.rings[i].info.owner.session == (uint64_t)pid)
            retire(&w.rings[i]);
    for (uint32_t i = 0; i < w.n_subscriptions; i++)
        if (w.subscriptions[i].live && w.subscriptions[i].owner.pid == pid)
            unsubscribe(i, true);
}

void session_close_serial(struct shmps *bus, uint64_t serial) {
    (void)bus;
    struct made_ring *made = ring_of_serial(serial);
    if (w.silent)
        return;
    if (made)
        retire(made);
    for (uint32_t i = 0; i < w.n_subscriptions; i++)
        if (w.subscriptions[i].live && w.subscriptions[i].serial == serial)
            unsubscribe(i, false);
}

const struct ring_header *world_ring(uint32_t i, size_t *ret_bytes) {
    *ret_bytes = w.rings[i].info.bytes;
    return w.rings[i].ring;
}

uint32_t world_rings(void) {
    return w.n_rings;
}
