/* Memory models. Three in one: what differs is which store a load finds.
 *
 * TSO: each fiber has a first-in-first-out buffer of stores, which it alone sees. Fences, RMWs,
 * system calls and others' membarriers empty it; else it is emptied when a choice says so.
 *
 * Weak: each location keeps its last stores. A load finds the newest, or by choice an older one,
 * unless the fiber knows of a newer one: what it knows is for each location a store that it may
 * not go back behind. A release store tells what its fiber knows, an acquire load learns it; a
 * relaxed store tells what was known at the last fence, what a relaxed load finds is learnt at
 * the next; a seq_cst fence exchanges all of it with all fences before it (as in "promising
 * semantics", without promises: a load never finds a store that is made later). A same-fiber
 * store after a release store belongs to its release sequence (C11).
 *
 * The compiler is a part of it: a store that no compiler barrier has followed yet may not have
 * been made when another's membarrier strikes.
 *
 * Races: a plain access and a plain store of which neither happens before the other (vector
 * clocks) are a violation: the memory of a loan or of a held block belongs to one side alone. */
#include "checker.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define LOCATIONS_MAX 512u
#define STORES_KEPT 8u
#define BUFFER_MAX 48u
#define WORDS_MAX (1u << 16)

const char *const memory_names[MEMORY_MODELS] = { "sc", "tso", "weak" };

struct knowledge {
    uint32_t n;                      /* locations below it can be other than 0 */
    uint32_t time[FIBERS_MAX];       /* what has happened before */
    uint16_t seen[LOCATIONS_MAX];    /* the oldest store that may still be found */
};

struct stored {
    uint64_t value;
    uint32_t writer;
    struct knowledge tells;
};

struct location {
    const void *p;
    uint16_t newest;
    struct stored stores[STORES_KEPT];
    uint32_t written_by, written_at;  /* plainly */
    uint32_t read_at[FIBERS_MAX];
};

struct buffered {
    void *p;
    uint64_t value;
    size_t size;
    bool compiled; /* a compiler barrier has followed */
    struct knowledge tells;
};

struct side { /* of a fiber */
    struct knowledge knows;
    struct knowledge found;    /* by relaxed loads: known from the next acquire fence on */
    struct knowledge fenced;   /* known at the last release fence */
    struct knowledge compiled; /* known at the last compiler barrier */
    bool stored;               /* something since */
    struct buffered buffer[BUFFER_MAX];
    uint32_t first, n;
};

static struct {
    enum memory_model model;
    char *base;
    size_t bytes;
    uint16_t index[WORDS_MAX];     /* location + 1; 0: not yet known */
    uint32_t n;
    struct location locations[LOCATIONS_MAX];
    struct side sides[FIBERS_MAX];
    struct knowledge fences;       /* all seq_cst fences so far */
} m;

/* ---- knowledge */

static void learn_stores(struct knowledge *k, const struct knowledge *from) {
    for (uint32_t i = 0; i < from->n; i++)
        if (k->seen[i] < from->seen[i])
            k->seen[i] = from->seen[i];
    if (k->n < from->n)
        k->n = from->n;
}

static void learn(struct knowledge *k, const struct knowledge *from) {
    for (uint32_t i = 0; i < FIBERS_MAX; i++)
        if (k->time[i] < from->time[i])
            k->time[i] = from->time[i];
    learn_stores(k, from);
}

static void set_knowledge(struct knowledge *k, const struct knowledge *from) {
    uint32_t n = k->n > from->n ? k->n : from->n;
    memcpy(k->time, from->time, sizeof k->time);
    memcpy(k->seen, from->seen, n * sizeof k->seen[0]); /* 0 beyond from->n */
    k->n = from->n;
}

static void forget(struct knowledge *k) {
    memset(k->time, 0, sizeof k->time);
    memset(k->seen, 0, k->n * sizeof k->seen[0]);
    k->n = 0;
}

static void see(struct knowledge *k, uint32_t location, uint16_t store) {
    k->seen[location] = store;
    if (k->n <= location)
        k->n = location + 1;
}

static bool acquires(int order) {
    return order == memory_order_acquire || order == memory_order_acq_rel ||
           order == memory_order_seq_cst || order == memory_order_consume;
}

static bool releases(int order) {
    return order == memory_order_release || order == memory_order_acq_rel ||
           order == memory_order_seq_cst;
}

/* ---- the machine's own memory */

static uint64_t raw_load(const void *p, size_t size) {
    return size == 8 ? *(const volatile uint64_t *)p : *(const volatile uint32_t *)p;
}

static void raw_store(void *p, uint64_t value, size_t size) {
    if (size == 8)
        *(volatile uint64_t *)p = value;
    else
        *(volatile uint32_t *)p = (uint32_t)value;
}

bool memory_is_sc(void) {
    return m.model == MEMORY_SC;
}

bool memory_holds(const void *p, size_t n) {
    return (const char *)p >= m.base && (const char *)p + n <= m.base + m.bytes;
}

static uint32_t locate(const void *p) {
    size_t word = (size_t)((const char *)p - m.base) / 4;
    if (m.index[word] == 0) {
        if (m.n == LOCATIONS_MAX)
            violated("the scenario has more than %u words", LOCATIONS_MAX);
        struct location *l = &m.locations[m.n++];
        memset(l, 0, sizeof *l);
        l->p = p;
        l->written_by = NOBODY;
        m.index[word] = (uint16_t)m.n;
    }
    return m.index[word] - 1u;
}

void memory_begin(enum memory_model model, char *base, size_t bytes) {
    if (m.base != base || m.bytes != bytes || bytes / 4 > WORDS_MAX) {
        if (bytes / 4 > WORDS_MAX)
            violated("the scenario has %zu bytes of segments", bytes);
        memset(m.index, 0, sizeof m.index);
        m.n = 0;
    }
    m.model = model;
    m.base = base;
    m.bytes = bytes;
    for (uint32_t i = 0; i < m.n; i++) {
        struct location *l = &m.locations[i];
        l->newest = 0;
        l->stores[0].writer = NOBODY;
        forget(&l->stores[0].tells);
        l->written_by = NOBODY;
        memset(l->read_at, 0, sizeof l->read_at);
    }
    for (uint32_t f = 0; f < FIBERS_MAX; f++) {
        struct side *s = &m.sides[f];
        forget(&s->knows);
        forget(&s->found);
        forget(&s->fenced);
        forget(&s->compiled);
        s->stored = false;
        s->first = s->n = 0;
    }
    forget(&m.fences);
}

/* The first store of a location is what the run began with. */
static struct stored *store_of(struct location *l, uint16_t number, size_t size) {
    struct stored *s = &l->stores[number % STORES_KEPT];
    if (number == 0 && l->newest == 0)
        s->value = raw_load(l->p, size);
    return s;
}

/* ---- store buffers */

static void arrive(uint32_t fiber, const struct buffered *b) {
    struct location *l = &m.locations[locate(b->p)];
    struct stored *last = &l->stores[0];
    if (last->writer != fiber)
        forget(&last->tells);
    learn(&last->tells, &b->tells);
    last->writer = fiber;
    raw_store(b->p, b->value, b->size);
}

static void drain(uint32_t fiber, uint32_t n) {
    struct side *s = &m.sides[fiber];
    for (; n > 0 && s->n > 0; n--) {
        arrive(fiber, &s->buffer[s->first % BUFFER_MAX]);
        s->first++;
        s->n--;
    }
}

/* Before each access: some of what is held back may arrive. */
static void maybe_drain(uint32_t fiber) {
    struct side *s = &m.sides[fiber];
    if (s->n == 0)
        return;
    switch (choose(CHOICE_DRAIN, s->n > 1 ? 3 : 2)) {
    case 1:
        drain(fiber, s->n);
        break;
    case 2:
        drain(fiber, 1);
        break;
    default:
        break;
    }
}

static void buffer_store(uint32_t fiber, void *p, uint64_t value, size_t size,
                         const struct knowledge *tells) {
    struct side *s = &m.sides[fiber];
    if (s->n == BUFFER_MAX)
        drain(fiber, 1);
    struct buffered *b = &s->buffer[(s->first + s->n++) % BUFFER_MAX];
    b->p = p;
    b->value = value;
    b->size = size;
    b->compiled = false;
    set_knowledge(&b->tells, tells);
    if (m.model == MEMORY_SC || (s->n == 1 && choose(CHOICE_MEMORY, 2) == 0))
        drain(fiber, s->n);
}

static const struct buffered *buffered_at(const struct side *s, const void *p) {
    for (uint32_t i = s->n; i-- > 0;) {
        const struct buffered *b = &s->buffer[(s->first + i) % BUFFER_MAX];
        if (b->p == p)
            return b;
    }
    return NULL;
}

/* ---- loads and stores */

static void tick(uint32_t fiber) {
    m.sides[fiber].knows.time[fiber]++;
}

static uint64_t find(uint32_t fiber, uint32_t location, size_t size, int order, bool newest) {
    struct location *l = &m.locations[location];
    struct side *s = &m.sides[fiber];
    const void *p = l->p;
    struct stored *found;
    uint64_t value;
    if (m.model == MEMORY_WEAK) {
        uint16_t oldest = s->knows.seen[location];
        if (l->newest >= STORES_KEPT && oldest < l->newest - (STORES_KEPT - 1))
            oldest = (uint16_t)(l->newest - (STORES_KEPT - 1));
        uint32_t back = newest || oldest == l->newest
                            ? 0
                            : choose(CHOICE_MEMORY, (uint32_t)(l->newest - oldest) + 1);
        uint16_t number = (uint16_t)(l->newest - back);
        found = store_of(l, number, size);
        value = found->value;
        see(&s->knows, location, number);
    } else {
        const struct buffered *own = buffered_at(s, p);
        if (own)
            return own->value;
        found = &l->stores[0];
        value = raw_load(p, size);
    }
    if (found->writer != fiber)
        learn(acquires(order) ? &s->knows : &s->found, &found->tells);
    return value;
}

uint64_t memory_load(uint32_t fiber, const void *p, size_t size, int order) {
    tick(fiber);
    maybe_drain(fiber);
    return find(fiber, locate(p), size, order, false);
}

static void put(uint32_t fiber, void *p, uint64_t value, size_t size, int order, bool rmw) {
    struct side *s = &m.sides[fiber];
    const struct knowledge *tells = releases(order) ? &s->knows : &s->fenced;
    s->stored = true;
    if (m.model != MEMORY_WEAK && !rmw) {
        buffer_store(fiber, p, value, size, tells);
        return;
    }
    uint32_t location = locate(p);
    struct location *l = &m.locations[location];
    if (m.model != MEMORY_WEAK) {
        drain(fiber, s->n);
        learn(&l->stores[0].tells, tells); /* an RMW goes on with the release sequence */
        l->stores[0].writer = fiber;
        raw_store(p, value, size);
        return;
    }
    const struct stored *before = store_of(l, l->newest, size);
    if (l->newest == UINT16_MAX)
        violated("too many stores");
    struct stored *next = &l->stores[(l->newest + 1) % STORES_KEPT];
    l->newest++;
    next->value = value;
    next->writer = fiber;
    set_knowledge(&next->tells, tells);
    if (before->writer == fiber || rmw)
        learn(&next->tells, &before->tells);
    see(&next->tells, location, l->newest);
    see(&s->knows, location, l->newest);
    raw_store(p, value, size);
}

void memory_store(uint32_t fiber, void *p, uint64_t value, size_t size, int order) {
    tick(fiber);
    maybe_drain(fiber);
    put(fiber, p, value, size, order, false);
}

uint64_t memory_add(uint32_t fiber, void *p, uint64_t value, size_t size, int order) {
    tick(fiber);
    drain(fiber, m.sides[fiber].n);
    uint64_t old = find(fiber, locate(p), size, order, true);
    put(fiber, p, old + value, size, order, true);
    return old;
}

bool memory_cas(uint32_t fiber, void *p, uint64_t *expected, uint64_t value, size_t size,
                int order, int failed) {
    tick(fiber);
    drain(fiber, m.sides[fiber].n);
    uint64_t old = raw_load(p, size);
    bool same = old == *expected;
    old = find(fiber, locate(p), size, same ? order : failed, same);
    if (!same && old == *expected)
        return false; /* an older store: as if it had failed for no reason */
    *expected = old;
    if (same)
        put(fiber, p, value, size, order, true);
    return same;
}

/* ---- plain accesses */

static void check_race(uint32_t fiber, const struct location *l, bool writes) {
    const struct knowledge *knows = &m.sides[fiber].knows;
    if (l->written_by != NOBODY && l->written_by != fiber &&
        knows->time[l->written_by] < l->written_at)
        violated("%s %s plainly what %s writes at the same time: %s", fiber_name(fiber),
                 writes ? "writes" : "reads", fiber_name(l->written_by), name_of(l->p));
    for (uint32_t f = 0; writes && f < FIBERS_MAX; f++)
        if (f != fiber && knows->time[f] < l->read_at[f])
            violated("%s writes plainly what %s reads at the same time: %s", fiber_name(fiber),
                     fiber_name(f), name_of(l->p));
}

void memory_copy_in(uint32_t fiber, void *to, const void *from, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        char *p = (char *)to + i;
        uint64_t word = raw_load(p, 8);
        memcpy(&word, (const char *)from + i, n - i < 8 ? n - i : 8);
        tick(fiber);
        struct location *l = &m.locations[locate(p)];
        check_race(fiber, l, true);
        put(fiber, p, word, 8, memory_order_relaxed, false);
        l->written_by = fiber;
        l->written_at = m.sides[fiber].knows.time[fiber];
    }
}

void memory_copy_out(uint32_t fiber, void *to, const void *from, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        const char *p = (const char *)from + i;
        tick(fiber);
        struct location *l = &m.locations[locate(p)];
        check_race(fiber, l, false);
        uint64_t word = find(fiber, locate(p), 8, memory_order_relaxed, false);
        l->read_at[fiber] = m.sides[fiber].knows.time[fiber];
        memcpy((char *)to + i, &word, n - i < 8 ? n - i : 8);
    }
}

/* ---- fences */

/* Fences order stores; what happens before what, only loads of what was stored tell. */
static void fence_all(struct side *s) {
    learn(&s->knows, &s->found);
    learn_stores(&s->knows, &m.fences);
    learn_stores(&m.fences, &s->knows);
    set_knowledge(&s->fenced, &s->knows);
}

void memory_compiler_barrier(uint32_t fiber) {
    struct side *s = &m.sides[fiber];
    set_knowledge(&s->compiled, &s->knows);
    s->stored = false;
    for (uint32_t i = 0; i < s->n; i++)
        s->buffer[(s->first + i) % BUFFER_MAX].compiled = true;
}

void memory_fence(uint32_t fiber, int order) {
    struct side *s = &m.sides[fiber];
    tick(fiber);
    if (order == memory_order_seq_cst) {
        drain(fiber, s->n);
        fence_all(s);
    }
    if (acquires(order))
        learn(&s->knows, &s->found);
    if (releases(order))
        set_knowledge(&s->fenced, &s->knows);
    memory_compiler_barrier(fiber);
}

/* The interrupt finds a fiber somewhere. What no compiler barrier has followed may be still to
 * come, by choice. */
static void strike(uint32_t fiber) {
    struct side *s = &m.sides[fiber];
    uint32_t made = 0;
    while (made < s->n && s->buffer[(s->first + made) % BUFFER_MAX].compiled)
        made++;
    bool whole = !s->stored || !fiber_lives(fiber) || choose(CHOICE_MEMORY, 2) == 0;
    drain(fiber, whole ? s->n : made);
    if (whole) {
        fence_all(s);
        return;
    }
    learn_stores(&s->knows, &m.fences);
    learn_stores(&m.fences, &s->compiled);
}

void memory_everyone(uint32_t fiber) {
    memory_fence(fiber, memory_order_seq_cst);
    for (uint32_t f = 0; f < fiber_count(); f++)
        if (f != fiber && fiber_reached(f))
            strike(f);
    memory_fence(fiber, memory_order_seq_cst);
}

void memory_settle(uint32_t fiber) {
    drain(fiber, m.sides[fiber].n);
}

void memory_tell(uint32_t fiber, uint32_t by) {
    drain(fiber, m.sides[fiber].n);
    learn(&m.sides[by].knows, &m.sides[fiber].knows);
}
