/* Which choices are made. */
#include "checker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHOICES_MAX 40000u
#define LIST_BYTES 4096u
#define CHANGES_MAX 8u

struct choice {
    uint8_t n, taken;
};

static enum { BY_SEED, ALL, BY_LIST } mode;

static struct choice choices[CHOICES_MAX];
static uint32_t n_choices;  /* of this run */
static uint32_t n_planned;  /* ALL, BY_LIST: the first ones are given */
static struct bounds bounds;
static uint32_t spent[CHOICE_KINDS];

/* By seed. */
static struct {
    uint64_t seed, state, steps;      /* expected */
    uint64_t step;
    bool pct;                         /* by priorities; else by chance at each step */
    uint32_t priorities[FIBERS_MAX];
    uint64_t changes[CHANGES_MAX];
    uint32_t n_changes, lowest;
    uint32_t switch_one_in, memory_one_in, drain_one_in, time_one_in;
    uint64_t kill_at[FIBERS_MAX];
    uint32_t alone;                   /* steps in a row of one fiber */
} r;

static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t draw(uint64_t below) {
    r.state += UINT64_C(0x9e3779b97f4a7c15);
    return mix(r.state) % below;
}

void search_by_seed(uint64_t seed, uint64_t steps_expected) {
    mode = BY_SEED;
    r.seed = seed;
    r.steps = steps_expected < 16 ? 16 : steps_expected;
}

/* Probabilistic concurrency testing (Burckhardt et al.): random priorities, lowered at a few
 * random steps; every other seed goes by chance at each step instead. */
static void begin_by_seed(void) {
    static const uint32_t one_in[] = { 2, 4, 8, 24, 64 };
    r.state = mix(r.seed * UINT64_C(0x2545f4914f6cdd1d) + 1);
    r.step = 0;
    r.alone = 0;
    r.pct = draw(2) == 0;
    r.lowest = UINT32_MAX / 2;
    for (uint32_t f = 0; f < FIBERS_MAX; f++) {
        r.priorities[f] = r.lowest + 1 + (uint32_t)draw(UINT32_MAX / 4);
        r.kill_at[f] = draw(4) != 0 ? draw(r.steps) : UINT64_MAX;
    }
    r.n_changes = (uint32_t)draw(CHANGES_MAX);
    for (uint32_t i = 0; i < r.n_changes; i++)
        r.changes[i] = draw(r.steps);
    r.switch_one_in = one_in[draw(5)];
    r.memory_one_in = one_in[draw(5)];
    r.drain_one_in = one_in[draw(5)];
    r.time_one_in = one_in[draw(5)];
}

void search_all(const struct bounds *b) {
    mode = ALL;
    bounds = *b;
    n_planned = 0;
    n_choices = 0;
}

/* "12:1,40:2": choice number 12 is 1, ...; all others are 0. */
void search_by_list(const char *list) {
    mode = BY_LIST;
    memset(choices, 0, sizeof choices);
    n_planned = CHOICES_MAX;
    while (*list) {
        char *end;
        unsigned long at = strtoul(list, &end, 10);
        unsigned long taken = *end == ':' ? strtoul(end + 1, &end, 10) : 0;
        if (at < CHOICES_MAX)
            choices[at].taken = (uint8_t)taken;
        if (*end != ',')
            break;
        list = end + 1;
    }
}

void search_begin(void) {
    n_choices = 0;
    memset(spent, 0, sizeof spent);
    if (mode == BY_SEED)
        begin_by_seed();
}

/* The next run of all: the last choice that has another alternative, within the bounds, takes it.
 * What a choice may take was settled when it was made: `n` is 1 when nothing is left to spend. */
bool search_next(void) {
    while (n_choices > 0) {
        struct choice *last = &choices[n_choices - 1];
        if (last->taken + 1 < last->n) {
            last->taken++;
            n_planned = n_choices;
            return true;
        }
        n_choices--;
    }
    return false;
}

static uint32_t planned(enum choice_kind kind, uint32_t n) {
    struct choice *c = &choices[n_choices];
    if (mode == ALL && n_choices >= n_planned)
        c->taken = 0;
    if (n_choices + 1 >= CHOICES_MAX)
        violated("too many choices");
    c->n = mode == ALL && kind != CHOICE_FREE && spent[kind] >= bounds.of[kind] ? 1 : (uint8_t)n;
    if (c->taken >= n)
        c->taken = (uint8_t)(n - 1);
    if (c->taken != 0 && kind != CHOICE_FREE)
        spent[kind]++;
    n_choices++;
    return c->taken;
}

static void note(uint32_t n, uint32_t taken) {
    if (n_choices + 1 >= CHOICES_MAX)
        violated("too many choices");
    choices[n_choices++] = (struct choice){ .n = (uint8_t)n, .taken = (uint8_t)taken };
}

uint32_t choose(enum choice_kind kind, uint32_t n) {
    if (n <= 1)
        return 0;
    if (mode != BY_SEED)
        return planned(kind, n);
    uint32_t taken = 0;
    if (kind == CHOICE_FREE)
        taken = (uint32_t)draw(n);
    else if (draw(kind == CHOICE_DRAIN  ? r.drain_one_in
                  : kind == CHOICE_TIME ? r.time_one_in
                                        : r.memory_one_in) == 0)
        taken = 1 + (uint32_t)draw(n - 1);
    note(n, taken);
    return taken;
}

bool choose_killing(uint32_t fiber) {
    if (mode != BY_SEED)
        return planned(CHOICE_KILL, 2) != 0;
    bool killed = r.step >= r.kill_at[fiber];
    note(2, killed);
    return killed;
}

void choose_yielding(uint32_t fiber) {
    r.priorities[fiber] = --r.lowest;
}

static uint32_t highest(const uint32_t *runnable, uint32_t n) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (r.priorities[runnable[i]] > r.priorities[runnable[best]])
            best = i;
    return best;
}

static uint32_t choose_by_seed(const uint32_t *runnable, uint32_t n, uint32_t current) {
    r.step++;
    if (++r.alone > 400 && current != NOBODY) { /* turns round and round */
        r.alone = 0;
        choose_yielding(current);
    }
    for (uint32_t i = 0; i < r.n_changes; i++)
        if (r.changes[i] == r.step && current != NOBODY)
            choose_yielding(current);
    if (r.pct)
        return highest(runnable, n);
    if (current != NOBODY && draw(r.switch_one_in) != 0)
        for (uint32_t i = 0; i < n; i++)
            if (runnable[i] == current)
                return i;
    return (uint32_t)draw(n);
}

/* Alternatives are counted from the current fiber on. */
uint32_t choose_fiber(const uint32_t *runnable, uint32_t n, uint32_t current) {
    uint32_t from = 0;
    for (uint32_t i = 0; i < n; i++)
        if (runnable[i] == current)
            from = i;
    if (mode == BY_SEED) {
        uint32_t i = choose_by_seed(runnable, n, current);
        if (runnable[i] != current)
            r.alone = 0;
        note(n, (i + n - from) % n);
        return runnable[i];
    }
    uint32_t taken = planned(current == NOBODY ? CHOICE_FREE : CHOICE_PREEMPT, n);
    return runnable[(from + taken) % n];
}

const char *search_list(void) {
    static char list[LIST_BYTES];
    size_t at = 0;
    list[0] = '\0';
    for (uint32_t i = 0; i < n_choices && at + 24 < sizeof list; i++)
        if (choices[i].taken != 0)
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%u:%u", at ? "," : "", i,
                                   choices[i].taken);
    return list;
}
