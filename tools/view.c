#include "view.h"

#include "text.h"
#include "tool.h"

#include "base/error.h"
#include "base/instance.h"
#include "base/scope.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Looks at lists that the daemon is changing; whoever finds them broken as often, believes it. */
#define LOOKS_MAX 16
#define LOOK_AGAIN_NS 1000000

static void *zeroed(size_t n, size_t bytes) {
    void *p = calloc(n > 0 ? n : 1, bytes);
    if (!p)
        out_of_memory();
    return p;
}

/* Room for one more than n elements; it doubles whenever n is a power of two. */
static void *enlarged(void *array, size_t n, size_t bytes) {
    if ((n & (n - 1)) != 0)
        return array;
    array = reallocarray(array, n > 0 ? 2 * n : 1, bytes);
    if (!array)
        out_of_memory();
    return array;
}

/* Keep the detail of the error that was just raised, unless something was wrong before. */
static void note_trouble(char **trouble) {
    if (*trouble)
        return;
    *trouble = strdup(shmps_error_detail());
    if (!*trouble)
        out_of_memory();
}

/* ---- the directory and its daemon */

static bool is_alive(int pid, uint64_t start_time) {
    bool exists = pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
    return exists && process_start_time(pid) == start_time;
}

bool view_owner_alive(const struct owner_info *owner) {
    return is_alive(owner->pid, owner->start_time);
}

static void find_daemon(struct view *view) {
    const struct directory_header *header = view->directory.header;
    /* relaxed: facts for people; single words, of which the kernel is asked whether they hold */
    uint32_t pid = atomic_load_relaxed(&header->daemon_pid);
    uint64_t start_time = atomic_load_relaxed(&header->daemon_start_time);
    uint32_t state = atomic_load_relaxed(&header->daemon_state);
    view->daemon_pid = pid <= INT_MAX ? (int)pid : 0;
    view->daemon_alive =
        state == DAEMON_RUNNING && is_alive(view->daemon_pid, start_time);
    view->daemon_ended = !view->daemon_alive && state == DAEMON_ENDED;
}

int view_choose_instance(const char *instance, char ret[INSTANCE_BYTES]) {
    if (!instance || !instance[0])
        instance = getenv("SHMPS_INSTANCE");
    if (!instance || !instance[0])
        instance = "default";
    if (strchr(instance, '/'))
        return error_raise(SHMPS_E_INVALID,
                           "'%s' is a socket's path, but shared memory is found by the instance's "
                           "name; give that with --instance",
                           instance);
    if (!instance_name_valid(instance))
        return error_raise(SHMPS_E_INVALID,
                           "'%s' is no instance's name, which has 1 to %d of A-Z a-z 0-9 _ and -",
                           instance, INSTANCE_BYTES - 1);
    memcpy(ret, instance, strlen(instance) + 1);
    return 0;
}

/* A socket's path tells nothing about segments: its pubsubd tells the name. */
static int open_by_path(struct view *view, const char *path, int *ret_fd) {
    struct shmps_connect_options options = SHMPS_CONNECT_OPTIONS_INIT;
    struct shmps *bus;
    options.instance = path;
    options.admin = 1;
    int r = shmps_connect(&bus, &options);
    if (r == SHMPS_E_NO_DAEMON)
        return error_context(r, "memory is found by the instance's name (--instance NAME), which "
                             "%s does not tell while nobody answers there", path);
    if (r < 0)
        return r;
    memcpy(view->instance, shmps_instance(bus), strlen(shmps_instance(bus)) + 1);
    shmps_close(bus);
    return instance_open_by_socket(path, view->instance, &view->uid, ret_fd);
}

static int open_directory(struct view *view, const char *instance, int *ret_fd) {
    if (!instance || !instance[0])
        instance = getenv("SHMPS_INSTANCE");
    if (instance && strchr(instance, '/'))
        return open_by_path(view, instance, ret_fd);
    int r = view_choose_instance(instance, view->instance);
    return r < 0 ? r : instance_open(view->instance, &view->uid, ret_fd);
}

/* Named segments cannot be sealed: one that is truncated while it is read ends the reader. */
static void on_truncated(int signal_number) {
    static const char text[] = "shmps: a segment was truncated while it was read; try again\n";
    (void)signal_number;
    (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
    _exit(EXIT_ERROR);
}

static int map_directory(struct view *view, int fd) {
    struct segment_ref ref;
    signal(SIGBUS, on_truncated);
    segment_ref_directory(&ref, view->uid, view->instance);
    int r = segment_map(fd, SEGMENT_READ, sizeof(struct directory_header), &view->map);
    if (r == 0)
        r = directory_attach(&view->directory, view->map.base, view->map.bytes);
    if (r < 0) {
        segment_unmap(&view->map);
        return error_context(r, "/dev/shm%s", ref.name);
    }
    find_daemon(view);
    return 0;
}

int view_open(struct view *ret, const char *instance) {
    struct view view = { 0 };
    _cleanup_close_ int fd = -1;
    int r = open_directory(&view, instance, &fd);
    if (r == 0)
        r = map_directory(&view, fd);
    if (r == 0)
        *ret = view;
    return r;
}

int view_open_own(struct view *ret, const char *name) {
    struct view view = { .uid = geteuid() };
    _cleanup_close_ int fd = -1;
    int r = instance_open_of(view.uid, name, &fd);
    snprintf(view.instance, sizeof(view.instance), "%s", name);
    if (r == 0)
        r = map_directory(&view, fd);
    if (r == 0)
        *ret = view;
    return r;
}

void view_close(struct view *view) {
    segment_unmap(&view->map);
}

void view_report_daemon(const struct view *view) {
    if (!view->daemon_alive)
        report("pubsubd of instance '%s' does not run%s (it was process %d); this is what there "
               "is in shared memory",
               view->instance, view->daemon_ended ? ", it was told to end" : "",
               view->daemon_pid);
}

/* ---- segments of rings */

/* Is it the segment that the directory means? Its identity was checked for itself. */
static int check_owner(const struct view *view, const struct identity *identity, uint64_t serial,
                       uint32_t page) {
    if (identity->serial == serial && identity->page == page &&
        identity->directory == view->directory.header->identity.serial)
        return 0;
    return error_raise(SHMPS_E_CORRUPT, "it belongs to another ring or another directory");
}

/* Map and check the segment of ring `serial` or, with a page, its readers segment for that. */
static int map_segment(const struct view *view, uint64_t serial, const struct view_page *page,
                       struct ring_geometry *ret_geometry, struct segment_map *ret) {
    struct segment_map map = SEGMENT_MAP_NONE;
    struct segment_ref ref;
    _cleanup_close_ int fd = -1;
    if (page)
        segment_ref_readers(&ref, view->uid, view->instance, serial, page->index);
    else
        segment_ref_ring(&ref, view->uid, view->instance, serial);
    int r = segment_open(&ref, SEGMENT_READ_LAZY, view->uid, &fd);
    if (r == 0)
        r = segment_map(fd, SEGMENT_READ_LAZY, page ? READERS_BYTES : RING_SLOTS_OFFSET, &map);
    if (r == 0)
        r = page ? identity_check(map.base, MAGIC_READERS, map.bytes)
                 : ring_attach_check(map.base, map.bytes, ret_geometry);
    if (r == 0)
        r = check_owner(view, map.base, serial, page ? page->index : 0);
    if (r < 0) {
        segment_unmap(&map);
        return error_context(r, "/dev/shm%s", ref.name);
    }
    *ret = map;
    return 0;
}

int view_ring_map(const struct view *view, const struct ring_info *info,
                  struct ring_geometry *ret_geometry, struct segment_map *ret) {
    return map_segment(view, info->serial, NULL, ret_geometry, ret);
}

static void read_ring(const struct view *view, struct view_ring *ring) {
    struct segment_map map = SEGMENT_MAP_NONE;
    if (map_segment(view, ring->info.serial, NULL, &ring->geometry, &map) < 0) {
        note_trouble(&ring->trouble);
        return;
    }
    const struct ring_header *header = map.base;
    ring_observe(header, &ring->geometry, &ring->seen);
    for (size_t i = 0; i < ARRAY_LENGTH(ring->evicted); i++)
        ring->evicted[i] = atomic_load_relaxed(&header->evicted[i]); /* relaxed: for people */
    segment_unmap(&map);
}

static void read_cursor(const struct readers_segment *readers, const struct view_subscriber *of,
                        const struct view_ring *ring, uint32_t bit, struct view_cursor *ret) {
    const struct reader_entry *entry = &readers->entries[of->cell];
    ret->known = true;
    ret->next = atomic_load_relaxed(&entry->need); /* relaxed: facts for people, as the next */
    if (of->cell + reader_span(of->pins) <= READERS_ENTRIES)
        for (uint32_t i = 0; i < of->pins; i++)
            ret->held += atomic_load_relaxed(reader_pin_view(entry, i)) != 0;
    if (!ring->trouble)
        ret->evicted = ring->evicted[bit / 64] >> bit % 64 & 1;
}

/* Where the subscribers of one page are in one ring. */
static void read_cursors(const struct view *view, struct view_topic *topic, uint32_t page,
                         uint32_t ring) {
    struct segment_map map = SEGMENT_MAP_NONE;
    const struct view_page *at = &topic->pages[page];
    if (map_segment(view, topic->rings[ring].info.serial, at, NULL, &map) < 0) {
        note_trouble(&topic->trouble);
        return;
    }
    for (uint32_t i = 0; i < topic->n_subscribers; i++) {
        struct view_subscriber *of = &topic->subscribers[i];
        if (of->page == page)
            read_cursor(map.base, of, &topic->rings[ring], at->ordinal * 64 + of->cell,
                        &of->cursors[ring]);
    }
    segment_unmap(&map);
}

/* ---- lists of the directory */

static int list_broken(const char *which, uint32_t at) {
    return error_raise(SHMPS_E_CORRUPT, "the directory's list of its %s is broken at record %u",
                       which, at);
}

/* A broken list is left out. */
static int list_rings(const struct view *view, struct view_topic *topic) {
    const struct directory *d = &view->directory;
    for (uint32_t i = topic->info.first_ring; i != NO_INDEX;) {
        struct ring_info info;
        if (topic->n_rings == d->geometry.rings || !directory_ring(d, i, &info) ||
            info.state == RING_FREE || info.topic != topic->index) {
            topic->n_rings = 0;
            return list_broken("rings", i);
        }
        topic->rings = enlarged(topic->rings, topic->n_rings, sizeof(*topic->rings));
        topic->rings[topic->n_rings++] = (struct view_ring){ .info = info };
        i = info.next;
    }
    return 0;
}

static void list_cells(const struct view *view, struct view_topic *topic, uint32_t page) {
    const struct roster_page *roster = &view->directory.pages[topic->pages[page].index];
    for (uint32_t cell = 0; cell < READERS_ENTRIES; cell++) {
        /* SYNC roster.cell: acquire pairs with pubsubd's release store, which comes after the
         * subscription's record. */
        uint64_t word = atomic_load_acquire(&roster->cells[cell]);
        if (word == 0 || cell_policy(word) == POLICY_SPAN)
            continue;
        topic->subscribers =
            enlarged(topic->subscribers, topic->n_subscribers, sizeof(*topic->subscribers));
        struct view_subscriber *of = &topic->subscribers[topic->n_subscribers++];
        *of = (struct view_subscriber){ .policy = cell_policy(word),
                                        .pins = cell_pins(word),
                                        .page = page,
                                        .cell = cell,
                                        .cursors = zeroed(topic->n_rings, sizeof(*of->cursors)) };
        if (of->pins > READER_PINS_MAX)
            of->pins = READER_PINS_MAX;
        if (!directory_subscription(&view->directory, cell_subscription(word), &of->info,
                                    of->filter) ||
            !of->info.live)
            of->info = (struct subscription_info){ 0 };
    }
}

static int list_pages(const struct view *view, struct view_topic *topic) {
    const struct directory *d = &view->directory;
    for (uint32_t i = topic->info.first_page; i != NO_INDEX;) {
        if (topic->n_pages == TOPIC_PAGES_MAX || i >= d->geometry.pages)
            return list_broken("roster pages", i);
        const struct roster_page *roster = &d->pages[i];
        /* relaxed: the caller looks at the generation before and after */
        uint32_t ordinal = atomic_load_relaxed(&roster->ordinal);
        if (atomic_load_relaxed(&roster->topic) != topic->index || ordinal >= TOPIC_PAGES_MAX)
            return list_broken("roster pages", i);
        topic->pages[topic->n_pages] = (struct view_page){ .index = i, .ordinal = ordinal };
        list_cells(view, topic, topic->n_pages++);
        i = atomic_load_relaxed(&roster->next); /* relaxed: as above */
    }
    return 0;
}

/* ---- topics */

/* A publisher that has outgrown a ring has several; each counts on where the one before ended. */
static bool is_newest(const struct view_topic *topic, uint32_t ring) {
    for (uint32_t i = 0; i < topic->n_rings; i++)
        if (!topic->rings[i].trouble &&
            topic->rings[i].info.publisher == topic->rings[ring].info.publisher &&
            topic->rings[i].info.serial > topic->rings[ring].info.serial)
            return false;
    return true;
}

static void read_segments(const struct view *view, struct view_topic *topic) {
    for (uint32_t i = 0; i < topic->n_rings; i++) {
        read_ring(view, &topic->rings[i]);
        for (uint32_t page = 0; page < topic->n_pages; page++)
            read_cursors(view, topic, page, i);
        topic->memory_bytes +=
            topic->rings[i].info.bytes + (uint64_t)topic->n_pages * READERS_BYTES;
    }
    topic->messages = topic->info.messages;
    topic->bytes = topic->info.bytes;
    for (uint32_t i = 0; i < topic->n_rings; i++) {
        const struct view_ring *ring = &topic->rings[i];
        if (ring->trouble || ring->info.state != RING_LIVE || !is_newest(topic, i))
            continue;
        topic->messages += ring->seen.messages;
        topic->bytes += ring->seen.bytes;
    }
}

static bool any_trouble(const struct view_topic *topic) {
    bool any = topic->trouble != NULL;
    for (uint32_t i = 0; i < topic->n_rings; i++)
        any = any || topic->rings[i].trouble;
    return any;
}

int view_topic_read(const struct view *view, uint32_t index, struct view_topic *ret) {
    const struct directory *d = &view->directory;
    for (int look = 1;; look++) {
        struct view_topic topic = { .index = index };
        if (index >= d->geometry.topics)
            return SHMPS_EMPTY;
        /* SYNC topic.generation: pairs with pubsubd's release increment after each change; equal
         * before and after: nothing of it changed meanwhile. */
        uint32_t before = atomic_load_acquire(directory_topic_generation(d, index));
        if (!directory_topic(d, index, &topic.info, topic.name) || !topic.info.live)
            return SHMPS_EMPTY;
        if (list_rings(view, &topic) < 0 || list_pages(view, &topic) < 0)
            note_trouble(&topic.trouble);
        read_segments(view, &topic);
        fence_acquire(); /* what was read comes before the second look at the generation */
        /* relaxed: the fence orders it */
        bool same = atomic_load_relaxed(directory_topic_generation(d, index)) == before;
        /* A segment may go a moment before or after the generation says so: what is in a list but
         * cannot be found is looked for again, too. */
        if ((same && !any_trouble(&topic)) || look == LOOKS_MAX) {
            *ret = topic;
            return 0;
        }
        view_topic_free(&topic);
        nanosleep(&(struct timespec){ .tv_nsec = LOOK_AGAIN_NS }, NULL);
    }
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct view_topic *)a)->name, ((const struct view_topic *)b)->name);
}

struct view_topic *view_topics_read(const struct view *view, size_t *ret_n) {
    uint32_t records = view->directory.geometry.topics;
    struct view_topic *topics = zeroed(records, sizeof(*topics));
    size_t n = 0;
    for (uint32_t i = 0; i < records; i++)
        if (view_topic_read(view, i, &topics[n]) == 0)
            n++;
    qsort(topics, n, sizeof(*topics), by_name);
    *ret_n = n;
    return topics;
}

void view_topics_free(struct view_topic *topics, size_t n) {
    for (size_t i = 0; i < n; i++)
        view_topic_free(&topics[i]);
    free(topics);
}

bool view_cursor_readable(const struct view_cursor *cursor, const struct view_ring *ring) {
    return cursor->known && cursor->next != NEED_NONE && !ring->trouble;
}

uint64_t view_cursor_lag(const struct view_cursor *cursor, const struct view_ring *ring) {
    return cursor->next < ring->seen.head ? ring->seen.head - cursor->next : 0;
}

void view_command(const struct owner_info *owner, char ret[VIEW_COMMAND_BYTES]) {
    snprintf(ret, VIEW_COMMAND_BYTES, "%.*s", COMMAND_BYTES, owner->command);
}

void view_topic_free(struct view_topic *topic) {
    for (uint32_t i = 0; i < topic->n_rings; i++)
        free(topic->rings[i].trouble);
    for (uint32_t i = 0; i < topic->n_subscribers; i++)
        free(topic->subscribers[i].cursors);
    free(topic->rings);
    free(topic->subscribers);
    free(topic->trouble);
    *topic = (struct view_topic){ 0 };
}

bool view_report_trouble(const struct view_topic *topic) {
    char *name = text_escape(topic->name);
    if (topic->trouble)
        report("%s: %s", name, topic->trouble);
    for (uint32_t i = 0; i < topic->n_rings; i++)
        if (topic->rings[i].trouble)
            report("%s: %s", name, topic->rings[i].trouble);
    free(name);
    return any_trouble(topic);
}
