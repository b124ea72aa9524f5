/* Fibers of one thread, switched at the accesses. */
#undef _FORTIFY_SOURCE /* its longjmp() knows one stack */
#include "checker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define STACK_BYTES (64u << 10)
#define STEPS_MAX 20000u
#define WORDS_MAX 8u
#define ROUNDS_MAX 200u /* time-outs in one run */

enum fiber_state { FIBER_READY, FIBER_ASLEEP, FIBER_AWAITS, FIBER_DONE, FIBER_KILLED };

struct fiber {
    const char *name;
    void (*body)(void *argument);
    void *argument;
    bool mortal, reached, begun;
    enum fiber_state state;
    struct sleep_word words[WORDS_MAX];
    uint32_t n_words;
    struct sleep_word watched[WORDS_MAX];
    uint32_t n_watched;
    bool signalled;
    uint64_t until, length;
    bool timed_out;
    bool (*ready)(const void *argument);
    const void *ready_argument;
    uint32_t ready_from;
    jmp_buf place;
    ucontext_t context;
    char *stack;
};

static struct {
    struct fiber fibers[FIBERS_MAX];
    uint32_t n, self, next;
    bool on;                /* accesses are steps */
    bool in_run;
    bool killed;            /* somebody was */
    jmp_buf home;
    ucontext_t home_context;
    uint64_t now;
    const struct run *run;
    enum run_result result;
    char story[512];
} s;

uint64_t run_steps;

/* ---- fibers */

uint32_t fiber_add(const char *name, void (*body)(void *argument), void *argument, bool mortal,
                   bool reached) {
    if (s.n == FIBERS_MAX)
        violated("more than %d fibers", FIBERS_MAX);
    struct fiber *f = &s.fibers[s.n];
    char *stack = f->stack ? f->stack : malloc(STACK_BYTES);
    *f = (struct fiber){ .name = name, .body = body, .argument = argument, .mortal = mortal,
                         .reached = reached, .state = FIBER_READY, .stack = stack };
    return s.n++;
}

const char *fiber_name(uint32_t fiber) {
    return fiber < s.n ? s.fibers[fiber].name : "-";
}
bool fiber_killed(uint32_t fiber) {
    return s.fibers[fiber].state == FIBER_KILLED;
}
bool fiber_reached(uint32_t fiber) {
    return s.fibers[fiber].reached;
}
bool fiber_lives(uint32_t fiber) {
    return s.fibers[fiber].state < FIBER_DONE;
}
uint32_t fiber_count(void) {
    return s.n;
}
uint32_t fiber_self(void) {
    return s.self;
}
bool running(void) {
    return s.on;
}
uint64_t clock_now(void) {
    return s.now;
}
void clock_pass(uint64_t ns) {
    s.now += ns;
}
const char *run_story(void) {
    return s.story;
}

_Noreturn static void end_run(enum run_result result) {
    s.result = result;
    s.on = false;
    s.next = NOBODY;
    _longjmp(s.home, 1);
}

void violated(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(s.story, sizeof s.story, format, args);
    va_end(args);
    if (!s.in_run) {
        fprintf(stderr, "proof: %s\n", s.story);
        exit(1);
    }
    trace(s.self, "!!! %s", s.story);
    end_run(RUN_VIOLATED);
}

static void fiber_main(void) {
    struct fiber *f = &s.fibers[s.self];
    s.on = true;
    f->body(f->argument);
    s.on = false;
    memory_settle(s.self);
    trace(s.self, "ends");
    f->state = FIBER_DONE;
    s.next = NOBODY;
    _longjmp(s.home, 1);
}

/* From home into a fiber, until somebody jumps home. */
static void enter(uint32_t fiber) {
    struct fiber *f = &s.fibers[fiber];
    s.self = fiber;
    if (f->begun) {
        s.on = true;
        _longjmp(f->place, 1);
    }
    f->begun = true;
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = NULL;
    makecontext(&f->context, fiber_main, 0);
    setcontext(&f->context);
}

/* Home; comes back when it is this fiber's turn. */
static void leave(uint32_t next) {
    struct fiber *f = &s.fibers[s.self];
    s.on = false;
    s.next = next;
    if (_setjmp(f->place) == 0)
        _longjmp(s.home, 1);
}

/* ---- who can go on */

static bool is_runnable(struct fiber *f) {
    if (f->state == FIBER_AWAITS && f->ready(f->ready_argument)) {
        if (f->ready_from != NOBODY)
            memory_tell(f->ready_from, (uint32_t)(f - s.fibers));
        f->state = FIBER_READY;
    }
    return f->state == FIBER_READY;
}

static uint32_t list_runnable(uint32_t *ret) {
    bool was_on = s.on;
    uint32_t n = 0;
    s.on = false;
    for (uint32_t i = 0; i < s.n; i++)
        if (is_runnable(&s.fibers[i]))
            ret[n++] = i;
    s.on = was_on;
    return n;
}

static void die(void) {
    struct fiber *f = &s.fibers[s.self];
    s.on = false;
    s.killed = true;
    memory_settle(s.self);
    trace(s.self, "is killed");
    f->state = FIBER_KILLED;
    s.next = NOBODY;
    _longjmp(s.home, 1);
}

/* True: the first sleeper's time is over, and he can go on. */
static bool pass_time(void) {
    struct fiber *first = NULL;
    for (uint32_t i = 0; i < s.n; i++) {
        struct fiber *f = &s.fibers[i];
        if (f->state == FIBER_ASLEEP && (!first || f->until < first->until))
            first = f;
    }
    if (!first)
        return false;
    if (s.now < first->until)
        s.now = first->until;
    first->timed_out = true;
    first->state = FIBER_READY;
    return true;
}

static bool somebody_sleeps(void) {
    for (uint32_t i = 0; i < s.n; i++)
        if (s.fibers[i].state == FIBER_ASLEEP)
            return true;
    return false;
}

bool step(void) {
    uint32_t runnable[FIBERS_MAX];
    if (!s.on)
        return false;
    if (++run_steps > STEPS_MAX) {
        snprintf(s.story, sizeof s.story, "it does not end");
        end_run(RUN_TOO_LONG);
    }
    if (s.fibers[s.self].mortal && choose_killing(s.self))
        die();
    if (s.run->time_passes && somebody_sleeps() && choose(CHOICE_TIME, 2) != 0)
        pass_time();
    uint32_t n = list_runnable(runnable);
    if (n > 1) {
        uint32_t next = choose_fiber(runnable, n, s.self);
        if (next != s.self)
            leave(next);
    }
    return true;
}

void fiber_await(bool (*ready)(const void *argument), const void *argument, uint32_t from) {
    struct fiber *f = &s.fibers[s.self];
    f->ready = ready;
    f->ready_argument = argument;
    f->ready_from = from;
    f->state = FIBER_AWAITS;
    memory_fence(s.self, memory_order_seq_cst);
    leave(NOBODY);
}

/* ---- futexes */

/* Does any word differ from what is expected? As the kernel looks: after a full barrier. */
static bool differs(const struct sleep_word *words, uint32_t n) {
    if (!step())
        violated("somebody sleeps outside of a run");
    memory_fence(s.self, memory_order_seq_cst);
    if (n > WORDS_MAX)
        violated("somebody sleeps on %u words", n);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t found = memory_load(s.self, words[i].word, 4, memory_order_relaxed);
        if ((uint32_t)found == words[i].expected)
            continue;
        trace(s.self, "does not sleep: %s is %llu, not %u", name_of(words[i].word),
              (unsigned long long)found, words[i].expected);
        return true;
    }
    return false;
}

static int sleep_now(int64_t timeout_ns) {
    struct fiber *f = &s.fibers[s.self];
    f->length = (uint64_t)timeout_ns;
    f->until = s.now + f->length;
    f->timed_out = false;
    f->state = FIBER_ASLEEP;
    trace(s.self, "sleeps");
    leave(NOBODY);
    trace(s.self, f->timed_out ? "has slept its time" : "wakes");
    return f->timed_out;
}

int futex_sleep(const struct sleep_word *words, uint32_t n, int64_t timeout_ns) {
    struct fiber *f = &s.fibers[s.self];
    if (differs(words, n))
        return 0;
    memcpy(f->words, words, n * sizeof *words);
    f->n_words = n;
    return sleep_now(timeout_ns);
}

void futex_watch(const struct sleep_word *words, uint32_t n) {
    struct fiber *f = &s.fibers[s.self];
    f->signalled |= differs(words, n);
    memcpy(f->watched, words, n * sizeof *words);
    f->n_watched = n;
}
void futex_signal(bool signalled) {
    s.fibers[s.self].signalled = signalled;
}
bool futex_signalled(void) {
    return s.fibers[s.self].signalled;
}

int futex_poll(int64_t timeout_ns) {
    struct fiber *f = &s.fibers[s.self];
    if (differs(NULL, 0) || f->signalled)
        return 0;
    f->n_words = 0;
    return sleep_now(timeout_ns);
}

static bool is_among(const void *word, const struct sleep_word *words, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (words[i].word == word)
            return true;
    return false;
}

int futex_wake(const void *word, int n) {
    int woken = 0;
    if (!step())
        return 0;
    memory_fence(s.self, memory_order_seq_cst);
    for (uint32_t i = 0; i < s.n && woken < n; i++) {
        struct fiber *f = &s.fibers[i];
        bool signal = is_among(word, f->watched, f->n_watched);
        bool sleeps = f->state == FIBER_ASLEEP;
        f->signalled |= signal;
        if (sleeps && ((signal && f->n_words == 0) || is_among(word, f->words, f->n_words)))
            f->state = FIBER_READY;
        woken += signal || (sleeps && f->state == FIBER_READY);
    }
    trace(s.self, "wakes %d on %s", woken, name_of(word));
    return woken;
}

/* All sleep, or are done. True: somebody goes on. */
static bool at_rest(uint32_t *rounds) {
    bool asleep = false, naps = false;
    for (uint32_t i = 0; i < s.n; i++) {
        struct fiber *f = &s.fibers[i];
        if (f->state == FIBER_AWAITS)
            violated("%s waits for ever", f->name);
        if (f->state != FIBER_ASLEEP)
            continue;
        asleep = true;
        naps |= f->length <= NAP_NS;
        const char *why = s.run->overslept(i);
        if (why && !s.killed && f->length > NAP_NS)
            violated("a wake-up is lost: %s sleeps, and %s", f->name, why);
    }
    if (!asleep)
        return false;
    if ((!s.run->time_passes && !s.killed && !naps) || ++*rounds > ROUNDS_MAX)
        violated("nobody goes on, and not all is done");
    return pass_time();
}

/* ---- a run */

/* The fiber in s.next, else whoever can; false: the run is over. */
static bool go_on(uint32_t *rounds) {
    uint32_t runnable[FIBERS_MAX];
    uint32_t next = s.next;
    s.next = NOBODY;
    if (next == NOBODY) {
        uint32_t n = list_runnable(runnable);
        if (n == 0)
            return at_rest(rounds);
        next = n == 1 ? runnable[0] : choose_fiber(runnable, n, NOBODY);
    }
    enter(next);
    return true;
}

enum run_result run_once(const struct run *run) {
    static uint32_t rounds;
    s.n = 0;
    s.run = run;
    s.result = RUN_HELD;
    s.story[0] = '\0';
    s.now = UINT64_C(1000000000);
    s.next = NOBODY;
    s.killed = false;
    s.in_run = true;
    run_steps = 0;
    rounds = 0;
    search_begin();
    run->begin();
    _setjmp(s.home); /* comes here again and again */
    while (s.result == RUN_HELD && go_on(&rounds)) {}
    if (s.result == RUN_HELD && _setjmp(s.home) == 0)
        run->judge();
    s.in_run = false;
    return s.result;
}
