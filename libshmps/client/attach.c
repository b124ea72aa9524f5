#include "client/client.h"

static int check_ring(struct shmps *bus, uint64_t serial, struct ring_mapping *m) {
    const struct ring_header *ring = m->map.base;
    int r = ring_attach_check(ring, m->map.bytes, &m->g);
    if (r < 0)
        return r;
    if (ring->identity.serial != serial ||
        ring->identity.directory != bus->directory.header->identity.serial)
        return error_raise(
            SHMPS_E_CORRUPT,
            "ring %llu is not of this directory; restart pubsubd, which sets it aside",
            (unsigned long long)serial);
    return 0;
}

static int map_ring(struct shmps *bus, int fd, enum segment_access access, uint64_t serial,
                    struct ring_mapping *ret) {
    struct ring_mapping m = { .map = SEGMENT_MAP_NONE };
    int r = segment_map(fd, access, RING_SLOTS_OFFSET, &m.map);
    if (r == 0)
        r = check_ring(bus, serial, &m);
    if (r < 0) {
        segment_unmap(&m.map);
        return r;
    }
    *ret = m;
    return 0;
}

int attach_ring_fd(struct shmps *bus, int fd, uint64_t serial, struct ring_mapping *ret) {
    return map_ring(bus, fd, SEGMENT_WRITE, serial, ret);
}

int attach_ring(struct shmps *bus, uint64_t serial, struct ring_mapping *ret) {
    struct segment_ref ref;
    _cleanup_close_ int fd = -1;
    segment_ref_ring(&ref, bus->uid, bus->instance, serial);
    int r = segment_open(&ref, SEGMENT_READ, bus->uid, &fd);
    return r < 0 ? r : map_ring(bus, fd, SEGMENT_READ, serial, ret);
}

int attach_readers(struct shmps *bus, uint64_t ring, uint32_t page, enum segment_access access,
                   struct segment_map *ret) {
    struct segment_ref ref;
    _cleanup_close_ int fd = -1;
    struct segment_map map = SEGMENT_MAP_NONE;
    segment_ref_readers(&ref, bus->uid, bus->instance, ring, page);
    int r = segment_open(&ref, access, bus->uid, &fd);
    if (r == 0)
        r = segment_map(fd, access, READERS_BYTES, &map);
    if (r < 0)
        return r;
    const struct readers_segment *readers = map.base;
    r = identity_check(&readers->identity, MAGIC_READERS, map.bytes);
    if (r == 0 && (readers->identity.serial != ring || readers->identity.page != page))
        r = error_raise(SHMPS_E_CORRUPT, "%s is not the readers segment that its name says",
                        ref.name);
    if (r < 0) {
        segment_unmap(&map);
        return r;
    }
    *ret = map;
    return 0;
}

bool find_seat(const struct directory *d, uint32_t first_page, uint32_t subscription,
               struct seat *ret) {
    uint32_t page = first_page;
    for (uint32_t i = 0; i < TOPIC_PAGES_MAX && page < d->geometry.pages; i++) {
        const struct roster_page *p = &d->pages[page];
        for (uint32_t cell = 0; cell < READERS_ENTRIES; cell++) {
            /* SYNC page.cells: acquire pairs with pubsubd's release store; the entry was reset
             * before it. */
            uint64_t c = atomic_load_acquire(&p->cells[cell]);
            if (c == 0 || cell_policy(c) == POLICY_SPAN || cell_subscription(c) != subscription)
                continue;
            /* relaxed: fixed before the page was linked, seen through the acquire that led here */
            uint32_t ordinal = atomic_load_relaxed(&p->ordinal);
            uint32_t first = atomic_load_relaxed(&p->first);
            uint32_t pins = cell_pins(c);
            if (ordinal >= TOPIC_PAGES_MAX || cell + reader_span(pins) > READERS_ENTRIES ||
                pins > READER_PINS_MAX)
                return false;
            *ret = (struct seat){ .page = page,
                                  .first = first,
                                  .cell = cell,
                                  .pins = pins,
                                  .bit = (uint16_t)(ordinal * 64 + cell) };
            return true;
        }
        /* SYNC page.next: pairs with the release when a page is linked */
        page = atomic_load_acquire(&p->next);
    }
    return false;
}
