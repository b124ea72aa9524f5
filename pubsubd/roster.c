#include "bus.h"

#include "base/error.h"
#include "log.h"
#include "quota.h"
#include "wait/futex.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

/* ---- readers segments */

int roster_map_readers(struct bus *bus, const struct ring *ring, uint32_t page,
                       struct segment_map *ret) {
    struct segment_ref ref;
    struct segment_map map = SEGMENT_MAP_NONE;
    _cleanup_close_ int fd = -1;
    segment_ref_readers(&ref, bus->uid, bus->instance, ring->info.serial, page);
    int r = segment_open(&ref, SEGMENT_WRITE, bus->uid, &fd);
    if (r == 0)
        r = segment_map(fd, SEGMENT_WRITE, READERS_BYTES, &map);
    if (r < 0)
        return r;
    const struct readers_segment *readers = map.base;
    r = identity_check(&readers->identity, MAGIC_READERS, map.bytes);
    if (r == 0 && (map.bytes != READERS_BYTES || readers->identity.serial != ring->info.serial ||
                   readers->identity.page != page || readers->identity.directory != bus->serial))
        r = error_raise(SHMPS_E_CORRUPT, "%s is not the readers segment that its name says",
                        ref.name);
    if (r < 0) {
        segment_unmap(&map);
        return error_context(r, "readers segment %s", ref.name);
    }
    *ret = map;
    return 0;
}

static void remove_readers(struct bus *bus, const struct ring *ring, uint32_t page) {
    struct segment_ref ref;
    segment_ref_readers(&ref, bus->uid, bus->instance, ring->info.serial, page);
    segment_remove(&ref);
}

static void format_readers(struct bus *bus, const struct ring *ring, const struct page *page,
                           uint64_t need, struct readers_segment *readers) {
    identity_format(&readers->identity, SEGMENT_NAMED, READERS_BYTES, ring->info.serial,
                    bus->serial, bus->boot, now_ns(), bus->uid, page->index);
    readers_format(readers);
    for (uint32_t i = 0; i < READERS_ENTRIES; i++) {
        uint64_t cell = page->cells[i];
        if (cell != 0 && cell_policy(cell) != POLICY_SPAN)
            reader_entry_reset(&readers->entries[i], cell_pins(cell), need);
    }
    identity_publish(&readers->identity, MAGIC_READERS);
}

static int make_readers(struct bus *bus, const struct ring *ring, const struct page *page,
                        uint64_t need) {
    struct segment_ref ref;
    struct segment_map map;
    _cleanup_close_ int fd = -1;
    segment_ref_readers(&ref, bus->uid, bus->instance, ring->info.serial, page->index);
    int r = segment_create(&ref, READERS_BYTES, &fd);
    if (r < 0)
        return r;
    r = segment_allocate(fd, 0, READERS_BYTES);
    if (r == 0)
        r = segment_map(fd, SEGMENT_WRITE, READERS_BYTES, &map);
    if (r < 0) {
        segment_remove(&ref);
        return r;
    }
    format_readers(bus, ring, page, need, map.base);
    segment_unmap(&map);
    return 0;
}

int roster_make_readers(struct bus *bus, const struct ring *ring, uint64_t need) {
    for (const struct page *page = ring->topic->pages; page != NULL; page = page->next) {
        int r = make_readers(bus, ring, page, need);
        if (r < 0)
            return r; /* the caller removes what was made */
    }
    return 0;
}

void roster_remove_readers(struct bus *bus, const struct ring *ring) {
    for (const struct page *page = ring->topic->pages; page != NULL; page = page->next)
        remove_readers(bus, ring, page->index);
}

/* ---- pages */

int roster_page_new(struct bus *bus, struct topic *topic, uint32_t index, struct page **ret) {
    struct page *page = calloc(1, sizeof(*page));
    if (page == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "pubsubd has no memory for a roster page");
    page->index = index;
    page->ordinal = topic->n_pages++;
    if (topic->last_page != NULL)
        topic->last_page->next = page;
    else
        topic->pages = page;
    topic->last_page = page;
    bus->pages[index] = page;
    if (index >= bus->pages_end)
        bus->pages_end = index + 1;
    *ret = page;
    return 0;
}

/* Fill the record of a page that nothing leads to yet, then let the last page, or the topic's
 * record, lead to it. */
static void link_page(struct bus *bus, struct topic *topic, const struct page *page,
                      const struct page *before) {
    struct roster_page *record = &bus->directory.pages[page->index];
    /* relaxed, all but the last: seen through the release that leads here */
    atomic_store_relaxed(&record->next, NO_INDEX);
    atomic_store_relaxed(&record->ordinal, page->ordinal);
    atomic_store_relaxed(&record->uid, bus->uid);
    atomic_store_relaxed(&record->first, topic->pages->index);
    for (uint32_t i = 0; i < READERS_ENTRIES; i++)
        atomic_store_relaxed(&record->cells[i], 0); /* relaxed: as above */
    atomic_store_relaxed(&record->topic, topic->index);
    if (before != NULL) {
        /* SYNC page.next: release pairs with the acquire of who walks the pages. */
        atomic_store_release(&bus->directory.pages[before->index].next, page->index);
    } else if (topic->listed) {
        topic_write(bus, topic);
    }
}

static int add_page(struct bus *bus, struct topic *topic, struct page **ret) {
    if (topic->n_pages == TOPIC_PAGES_MAX)
        return error_raise(SHMPS_E_LIMIT, "topic \"%s\" has as many subscribers as fit (%d pages "
                           "of %d)", topic->name, TOPIC_PAGES_MAX, READERS_ENTRIES);
    uint32_t index = free_index((void *const *)bus->pages, bus->directory.geometry.pages);
    if (index == NO_INDEX)
        return error_raise(SHMPS_E_LIMIT, "all %u roster pages of the bus are in use; %d "
                           "subscribers share one within a topic",
                           bus->directory.geometry.pages, READERS_ENTRIES);
    struct page page = { .index = index };
    const struct ring *failed = NULL;
    int r = quota_page(bus, topic);
    if (r < 0)
        return r;
    for (const struct ring *ring = topic->rings; ring != NULL && r == 0; ring = ring->next) {
        r = make_readers(bus, ring, &page, NEED_NONE);
        failed = r < 0 ? ring : NULL;
    }
    const struct page *before = topic->last_page;
    if (r == 0)
        r = roster_page_new(bus, topic, index, ret);
    if (r < 0) {
        for (const struct ring *ring = topic->rings; ring != failed; ring = ring->next)
            remove_readers(bus, ring, index);
        return r;
    }
    link_page(bus, topic, *ret, before);
    return 0;
}

void roster_free(struct bus *bus, struct topic *topic) {
    for (struct page *page = topic->pages, *next; page != NULL; page = next) {
        next = page->next;
        /* relaxed: nothing leads here any more */
        atomic_store_relaxed(&bus->directory.pages[page->index].topic, NO_INDEX);
        bus->pages[page->index] = NULL;
        free(page);
    }
    topic->pages = topic->last_page = NULL;
}

uint32_t roster_subscribers(const struct topic *topic) {
    uint32_t n = 0;
    for (const struct page *page = topic->pages; page != NULL; page = page->next)
        for (uint32_t i = 0; i < READERS_ENTRIES; i++)
            if (page->cells[i] != 0 && cell_policy(page->cells[i]) != POLICY_SPAN)
                n++;
    return n;
}

/* ---- seats */

/* Pins that every ring of the topic, also one in the making, still has for one more reader. */
static uint32_t grantable_pins(const struct topic *topic, uint32_t wanted) {
    uint64_t left = wanted;
    for (const struct ring *ring = topic->rings; ring != NULL; ring = ring->next)
        if (ring->has_blocks && ring->info.state == RING_LIVE)
            left = min_u64(left, ring->info.pins - min_u64(ring->info.pins, topic->pins_granted));
    for (const struct opening *o = topic->openings; o != NULL; o = o->topic_next)
        if (o->ring->has_blocks)
            left = min_u64(left, o->ring->info.pins -
                                     min_u64(o->ring->info.pins, topic->pins_granted));
    return (uint32_t)left;
}

/* The cells of a page that some publisher has evicted: not handed out, as its bit would hit the
 * newcomer. */
static uint64_t evicted_cells(struct bus *bus, const struct topic *topic,
                              const struct page *page) {
    uint64_t evicted = 0;
    for (const struct ring *ring = topic->rings; ring != NULL; ring = ring->next) {
        struct segment_map map;
        struct ring_geometry g;
        if (ring->info.state != RING_LIVE || ring_map(bus, ring, &map, &g) < 0)
            continue;
        const struct ring_header *header = map.base;
        /* SYNC ring.evicted: acquire pairs with the publisher's release. */
        evicted |= atomic_load_acquire(&header->evicted[page->ordinal]);
        segment_unmap(&map);
    }
    return evicted;
}

/* `span` free cells in a row. */
static bool find_cells(struct bus *bus, const struct topic *topic, const struct page *page,
                       uint32_t span, uint32_t *ret) {
    uint32_t run = 0;
    bool asked = false;
    uint64_t evicted = 0;
    for (uint32_t i = 0; i < READERS_ENTRIES; i++) {
        if (page->cells[i] == 0 && !asked) {
            evicted = evicted_cells(bus, topic, page);
            asked = true;
        }
        run = page->cells[i] == 0 && (evicted >> i & 1) == 0 ? run + 1 : 0;
        if (run == span) {
            *ret = i + 1 - span;
            return true;
        }
    }
    return false;
}

/* A publisher that sees the newcomer may publish for him at once, before he has joined by himself:
 * so his entries say that he needs what comes from now on. */
static int reset_entries(struct bus *bus, const struct topic *topic, const struct page *page,
                         uint32_t cell, uint32_t pins) {
    for (const struct ring *ring = topic->rings; ring != NULL; ring = ring->next) {
        struct segment_map map;
        uint64_t need = NEED_NONE;
        int r = ring->info.state == RING_LIVE ? ring_end(bus, ring, &need) : 0;
        if (r == SHMPS_E_CORRUPT) /* nobody can read it; who subscribes has the others */
            bus_error(bus, r, topic->name, shmps_error_detail());
        if (r == 0 || r == SHMPS_E_CORRUPT)
            r = roster_map_readers(bus, ring, page->index, &map);
        if (r < 0)
            return r;
        struct readers_segment *readers = map.base;
        reader_entry_reset(&readers->entries[cell], pins, need);
        segment_unmap(&map);
    }
    return 0;
}

static void store_cell(struct bus *bus, struct page *page, uint32_t i, uint64_t cell) {
    page->cells[i] = cell;
    /* SYNC page.cells: release pairs with the acquire of publishers and subscribers; the entry
     * was reset before. */
    atomic_store_release(&bus->directory.pages[page->index].cells[i], cell);
}

static void write_granted(struct bus *bus, const struct topic *topic) {
    for (struct ring *ring = topic->rings; ring != NULL; ring = ring->next) {
        if (ring->info.state != RING_LIVE || ring->info.pins_granted == topic->pins_granted)
            continue;
        ring->info.pins_granted = topic->pins_granted;
        ring_write(bus, ring);
    }
}

int roster_seat(struct bus *bus, struct topic *topic, const struct subscription *s) {
    uint32_t pins = grantable_pins(topic, s->info.pins);
    uint32_t span = reader_span(pins), cell = 0;
    struct page *page = topic->pages;
    int r = quota_subscriber(topic);
    if (r < 0)
        return r;
    while (page != NULL && !find_cells(bus, topic, page, span, &cell))
        page = page->next;
    r = page != NULL ? 0 : add_page(bus, topic, &page);
    if (r == 0)
        r = reset_entries(bus, topic, page, cell, pins);
    if (r < 0)
        return r;
    topic->pins_granted += pins;
    write_granted(bus, topic);
    for (uint32_t i = span; --i > 0;) /* what belongs to the seat is there before the seat is */
        store_cell(bus, page, cell + i, cell_make(POLICY_SPAN, 0, s->index));
    store_cell(bus, page, cell, cell_make((enum policy)s->info.policy, pins, s->index));
    return 0;
}

/* For the dead: whoever waits for their need or holds back a block for them stops doing so. */
static void release_entry(struct bus *bus, const struct ring *ring, const struct page *page,
                          uint32_t cell, uint32_t pins) {
    struct segment_map map;
    if (roster_map_readers(bus, ring, page->index, &map) < 0)
        return; /* its publisher cannot read it either */
    struct readers_segment *readers = map.base;
    reader_entry_reset(&readers->entries[cell], pins, NEED_NONE);
    segment_unmap(&map);
    if (roster_map_readers(bus, ring, ring->topic->pages->index, &map) < 0)
        return;
    readers = map.base;
    /* SYNC readers.space: release pairs with the acquire of the starved publisher; the need was
     * stored before. */
    atomic_add_release(&readers->space, 1);
    wake_word(&readers->space, INT_MAX);
    segment_unmap(&map);
}

static bool find_seat(const struct topic *topic, uint32_t subscription, struct page **ret_page,
                      uint32_t *ret_cell) {
    for (struct page *page = topic->pages; page != NULL; page = page->next)
        for (uint32_t i = 0; i < READERS_ENTRIES; i++)
            if (page->cells[i] != 0 && cell_policy(page->cells[i]) != POLICY_SPAN &&
                cell_subscription(page->cells[i]) == subscription) {
                *ret_page = page;
                *ret_cell = i;
                return true;
            }
    return false;
}

bool roster_has_seat(const struct topic *topic, const struct subscription *s) {
    struct page *page;
    uint32_t cell;
    return find_seat(topic, s->index, &page, &cell);
}

bool roster_unseat(struct bus *bus, struct topic *topic, const struct subscription *s, bool dead) {
    struct page *page;
    uint32_t cell;
    if (!find_seat(topic, s->index, &page, &cell))
        return false;
    uint32_t pins = cell_pins(page->cells[cell]);
    uint32_t span = reader_span(pins);
    for (const struct ring *ring = topic->rings; dead && ring != NULL; ring = ring->next)
        release_entry(bus, ring, page, cell, pins);
    for (uint32_t i = 0; i < span; i++)
        store_cell(bus, page, cell + i, 0);
    topic->pins_granted -= pins;
    write_granted(bus, topic);
    return true;
}

/* ---- draining */

static bool page_drained(const struct readers_segment *readers, const struct page *page,
                         uint64_t final_head) {
    for (uint32_t i = 0; i < READERS_ENTRIES; i++) {
        if (page->cells[i] == 0 || cell_policy(page->cells[i]) == POLICY_SPAN)
            continue;
        /* SYNC reader.need: acquire pairs with the reader's release: it has taken all below. */
        if (atomic_load_acquire(&readers->entries[i].need) < final_head)
            return false;
    }
    return true;
}

bool roster_drained(struct bus *bus, const struct ring *ring) {
    if (ring->info.final_head == ring->info.start)
        return true;
    for (const struct page *page = ring->topic->pages; page != NULL; page = page->next) {
        struct segment_map map;
        int r = roster_map_readers(bus, ring, page->index, &map);
        if (r == SHMPS_E_NO_DESCRIPTORS || r == SHMPS_E_NO_MEMORY || r == SHMPS_E_SYSTEM)
            return false; /* our trouble, not theirs: it is looked at again */
        if (r < 0)
            return true; /* nobody can say what he needs of it */
        bool drained = page_drained(map.base, page, ring->info.final_head);
        segment_unmap(&map);
        if (!drained)
            return false;
    }
    return true;
}
