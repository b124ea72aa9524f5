#include "client/client.h"

#include <string.h>

/* The readers segment of a page, mapped once for the ring's life: it is born and retired with the
 * ring. */
static int map_page(struct shmps_publisher *pub, uint32_t page,
                    const struct readers_segment **ret) {
    for (uint32_t i = 0; i < pub->n_pages; i++)
        if (pub->pages[i].page == page) {
            *ret = pub->pages[i].map.base;
            return 0;
        }
    if (pub->n_pages == TOPIC_PAGES_MAX)
        return error_raise(SHMPS_E_CORRUPT, "topic \"%s\" has more than %d roster pages",
                           pub->name, TOPIC_PAGES_MAX);
    struct publisher_page *p = &pub->pages[pub->n_pages];
    int r = attach_readers(pub->bus, pub->serial, page, SEGMENT_READ, &p->map);
    if (r < 0)
        return error_context(r, "cannot map the readers of topic \"%s\"", pub->name);
    p->page = page;
    pub->n_pages++;
    *ret = p->map.base;
    return 0;
}

static int add_reader(struct shmps_publisher *pub, const struct reader_entry *entry, uint64_t cell,
                      uint16_t bit, uint32_t *pins_left) {
    if (pub->ring.n_readers == pub->readers_capacity) {
        size_t capacity = pub->readers_capacity ? pub->readers_capacity * 2 : 16;
        struct ring_reader_ref *grown = realloc(pub->readers, capacity * sizeof *grown);
        if (!grown)
            return error_raise(SHMPS_E_NO_MEMORY, "no memory for the roster of topic \"%s\"",
                               pub->name);
        pub->readers = grown;
        pub->readers_capacity = capacity;
    }
    /* Never believe in more pins than the ring has blocks for: then a free block is always left.
     */
    uint32_t pins = (uint32_t)min_u64(cell_pins(cell), *pins_left);
    *pins_left -= pins;
    pub->readers[pub->ring.n_readers++] = (struct ring_reader_ref){
        .entry = entry,
        .reliable = cell_policy(cell) == POLICY_RELIABLE,
        .pins = (uint8_t)pins,
        .bit = bit,
    };
    return 0;
}

static int read_page(struct shmps_publisher *pub, uint32_t page, uint32_t *pins_left,
                     uint32_t *ret_next) {
    const struct roster_page *p = &pub->bus->directory.pages[page];
    const struct readers_segment *readers = NULL;
    int r = map_page(pub, page, &readers);
    if (r < 0)
        return r;
    /* relaxed: fixed before the page was linked, seen through the acquire that led here */
    uint32_t ordinal = atomic_load_relaxed(&p->ordinal) % TOPIC_PAGES_MAX;
    /* relaxed: as above */
    if (atomic_load_relaxed(&p->first) == page && pub->ring.n_groups < TOPIC_PAGES_MAX) {
        pub->groups[pub->ring.n_groups] = (struct ring_group_ref){ .armed = &readers->armed };
        pub->spaces[pub->ring.n_groups++] = &readers->space;
    }
    for (uint32_t i = 0; i < READERS_ENTRIES && r == 0; i++) {
        /* SYNC page.cells: acquire pairs with pubsubd's release store; the entry was reset before
         * it. */
        uint64_t cell = atomic_load_acquire(&p->cells[i]);
        uint32_t policy = cell_policy(cell);
        if (cell != 0 && policy != POLICY_SPAN &&
            i + reader_span(cell_pins(cell)) <= READERS_ENTRIES)
            r = add_reader(pub, &readers->entries[i], cell, (uint16_t)(ordinal * 64 + i),
                           pins_left);
    }
    /* SYNC page.next: pairs with the release when a page is linked */
    *ret_next = atomic_load_acquire(&p->next);
    return r;
}

uint64_t roster_cell(const struct shmps_publisher *pub, uint16_t bit) {
    const struct directory *d = &pub->bus->directory;
    struct topic_info topic;
    if (!directory_topic(d, pub->topic, &topic, NULL))
        return 0;
    uint32_t page = topic.first_page;
    for (uint32_t ordinal = 0; page < d->geometry.pages && ordinal <= bit / 64u; ordinal++) {
        /* SYNC page.cells: acquire pairs with pubsubd's release store. */
        if (ordinal == bit / 64u)
            return atomic_load_acquire(&d->pages[page].cells[bit % 64u]);
        /* SYNC page.next: pairs with the release when a page is linked */
        page = atomic_load_acquire(&d->pages[page].next);
    }
    return 0;
}

/* The bits of those who were evicted and have left: their cells can be given to others again. */
static void unevict_gone(struct shmps_publisher *pub) {
    for (size_t i = 0; i < pub->n_evicted_seats;) {
        const struct evicted_seat *seat = &pub->evicted_seats[i];
        if (roster_cell(pub, seat->bit) == seat->cell) {
            i++;
            continue;
        }
        ring_unevict(&pub->ring, seat->bit);
        pub->evicted_seats[i] = pub->evicted_seats[--pub->n_evicted_seats];
    }
}

static int read_roster(struct shmps_publisher *pub) {
    const struct directory *d = &pub->bus->directory;
    struct topic_info info;
    uint32_t pins_left = pub->ring.g.pins;
    pub->ring.n_readers = 0;
    pub->ring.n_groups = 0;
    if (!directory_topic(d, pub->topic, &info, NULL) || !info.live)
        return 0; /* on its way out */
    uint32_t page = info.first_page;
    for (uint32_t i = 0; i < TOPIC_PAGES_MAX && page < d->geometry.pages; i++) {
        int r = read_page(pub, page, &pins_left, &page);
        if (r < 0)
            return r;
    }
    return 0;
}

int publisher_check(const struct shmps_publisher *pub) {
    if (session_rebuilt(pub->bus))
        return error_rebuilt(pub->bus);
    if (atomic_load_relaxed(&pub->lost)) /* relaxed: only ever set */
        return error_raise(SHMPS_E_CLOSED,
                           "pubsubd no longer knows this publisher of \"%s\"; open it anew",
                           pub->name);
    return 0;
}

int roster_refresh(struct shmps_publisher *pub) {
    const atomic_u32 *generation = pub->ring.generation;
    uint32_t g;
    int r;
    do {
        /* SYNC topic.generation: acquire pairs with pubsubd's release increment. Lists read
         * between two equal loads are whole. */
        g = atomic_load_acquire(generation);
        /* After the load: a starting daemon raises the generation after its epoch, and does it
         * only once. */
        session_follow(pub->bus);
        r = publisher_check(pub);
        if (r < 0)
            return r;
        r = read_roster(pub);
    } while (atomic_load_acquire(generation) != g); /* SYNC topic.generation: as above */
    pub->ring.readers = pub->readers;
    pub->ring.groups = pub->groups;
    if (r < 0)
        return r;
    unevict_gone(pub);
    pub->ring.generation_seen = g;
    return 0;
}
