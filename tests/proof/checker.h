/* proof/checker.h - a scheduler of our own under the real sources.
 *
 *     accesses.c    what an access becomes (door/stdatomic.h leads there), what is told of a run
 *     memory.c      what an access does: memory models, races
 *     scheduler.c   who goes on: fibers, choices, sleeping, killing
 *     search.c      which choices are made: all up to a bound, by seed, by a list
 *     descriptor.c, absent.c  what the client has besides
 *     world.c       the rest of the machine: segments, futexes, membarrier, clock, pubsubd's part
 *     roles.c       publisher, subscriber, ..., and what each of them checks
 *     scenarios.c   who meets whom
 *     prove.c       the program
 *
 * A run: the segments and the heap as the scenario's set() left them, then the fibers, one at a
 * time. What a run does follows from its choices alone. */
#ifndef SHMPS_TESTS_PROOF_CHECKER_H
#define SHMPS_TESTS_PROOF_CHECKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FIBERS_MAX 8
#define NAP_NS 1000000 /* who sleeps no longer looks by himself: no wake-up is lost to him */
#define NOBODY UINT32_MAX

/* ---- memory.c */

enum memory_model {
    MEMORY_SC = 0,   /* one access after the other */
    MEMORY_TSO = 1,  /* a store buffer per fiber, as x86 has */
    MEMORY_WEAK = 2, /* C11's orders: a load may find any store that nothing has forbidden */
    MEMORY_MODELS = 3,
};
extern const char *const memory_names[MEMORY_MODELS];

/* Before a run. [base, base + bytes) holds all segments. */
void memory_begin(enum memory_model model, char *base, size_t bytes);
void memory_fence(uint32_t fiber, int order);
void memory_compiler_barrier(uint32_t fiber);
/* membarrier(GLOBAL_EXPEDITED): a fence of everybody whom it reaches, wherever he is. */
void memory_everyone(uint32_t fiber);
/* What a fiber finds, as atomic access or plainly (what belongs to it alone). */
uint64_t memory_load(uint32_t fiber, const void *p, size_t size, int order);
void memory_store(uint32_t fiber, void *p, uint64_t value, size_t size, int order);
uint64_t memory_add(uint32_t fiber, void *p, uint64_t value, size_t size, int order);
bool memory_cas(uint32_t fiber, void *p, uint64_t *expected, uint64_t value, size_t size,
                int order, int failed);
void memory_copy_in(uint32_t fiber, void *to, const void *from, size_t n);
void memory_copy_out(uint32_t fiber, void *to, const void *from, size_t n);
/* It ends, or is killed: its stores arrive. */
void memory_settle(uint32_t fiber);
/* `by` starts with all that `fiber` knows: a message between them. */
void memory_tell(uint32_t fiber, uint32_t by);
bool memory_is_sc(void);
bool memory_holds(const void *p, size_t n); /* in the segments? */

/* ---- scheduler.c */

/* A step of the running fiber: the place where others may go on. False: nobody runs. */
bool step(void);
bool running(void);
uint32_t fiber_self(void);

/* Before a run: a fiber that will run `body`. Its number. `reached`: by others' membarrier. */
uint32_t fiber_add(const char *name, void (*body)(void *argument), void *argument, bool mortal,
                   bool reached);
bool fiber_reached(uint32_t fiber);
const char *fiber_name(uint32_t fiber);
bool fiber_killed(uint32_t fiber);
bool fiber_lives(uint32_t fiber); /* neither done nor killed */
uint32_t fiber_count(void);
/* Give up the turn until `ready` says so; what `from` knows is known then (NOBODY: nothing). */
void fiber_await(bool (*ready)(const void *argument), const void *argument, uint32_t from);

/* Sleep on words of 32 bits while each is as expected; 0 woken, 1 time-out. */
struct sleep_word {
    const void *word;
    uint32_t expected;
};
int futex_sleep(const struct sleep_word *words, uint32_t n, int64_t timeout_ns);
int futex_wake(const void *word, int n);
/* Watch words, as a descriptor does: a wake on one signals the fiber, also while it does not
 * sleep; one that differs signals at once. They replace those that were watched. */
void futex_watch(const struct sleep_word *words, uint32_t n);
void futex_signal(bool signalled);
bool futex_signalled(void);
/* Sleep until signalled; as futex_sleep(). */
int futex_poll(int64_t timeout_ns);
uint64_t clock_now(void);
void clock_pass(uint64_t ns);

/* Something does not hold: ends the run. Outside of a run: ends the program. */
_Noreturn void violated(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define require(condition, ...) \
    do { \
        if (!(condition)) \
            violated(__VA_ARGS__); \
    } while (0)

enum run_result { RUN_HELD, RUN_VIOLATED, RUN_TOO_LONG };
struct run {
    void (*begin)(void);      /* restores the scene, adds the fibers */
    /* Is it asleep though what it waits for is there? Nobody runs. */
    const char *(*overslept)(uint32_t fiber);
    void (*judge)(void);      /* after */
    bool time_passes;         /* sleeps may end by time-out, by choice, and when nobody goes on */
};
enum run_result run_once(const struct run *run);
const char *run_story(void); /* what did not hold */
extern uint64_t run_steps;   /* of the last run */

/* ---- search.c */

enum choice_kind {
    CHOICE_PREEMPT, /* 0: the running fiber goes on */
    CHOICE_FREE,    /* somebody else must */
    CHOICE_MEMORY,  /* 0: as if memory were simple */
    CHOICE_DRAIN,   /* 0: what is in the store buffer stays there */
    CHOICE_KILL,    /* 0: it lives */
    CHOICE_TIME,    /* 0: no sleeper's time is over */
    CHOICE_KINDS,
};
/* One of 0 .. n - 1. */
uint32_t choose(enum choice_kind kind, uint32_t n);
/* Which of the runnable fibers; `current` is one of them, or NOBODY. */
uint32_t choose_fiber(const uint32_t *runnable, uint32_t n, uint32_t current);
bool choose_killing(uint32_t fiber);
/* The running fiber waits for others by turning round. */
void choose_yielding(uint32_t fiber);

struct bounds {
    uint32_t of[CHOICE_KINDS];
};
void search_by_seed(uint64_t seed, uint64_t steps_expected);
void search_all(const struct bounds *bounds);
bool search_next(void);              /* of all: is there another run? */
void search_by_list(const char *list);
void search_begin(void);             /* of a run */
const char *search_list(void);       /* the choices of the last run that are not 0 */

/* ---- accesses.c */

void trace_open(bool on);
bool trace_on(void);
void trace(uint32_t fiber, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- world.c: what it knows of an address in the segments */

/* Is an access to it a step? */
bool is_shared(const void *p);
/* What lies there; a static buffer. */
const char *name_of(const void *p);

#endif
