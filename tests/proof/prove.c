/* The program: scenarios under schedules. Without arguments: all of them, a fixed set of seeds and
 * all schedules of the small ones within bounds; TAP.
 *
 *     prove --list
 *     prove [--schedules N] [--from SEED] [--memory sc|tso|weak] [SCENARIO...]   by seed
 *     prove --all [--preemptions N] [--deviations N] [--cap N] [--memory ...] [SCENARIO...]
 *         --early: not on after the first violation; --small: with --schedules, small ones all
 *     prove --seed SEED --memory MODEL SCENARIO       one run, told step by step
 *     prove --choices LIST --memory MODEL SCENARIO    the same */
#include "checker.h"
#include "roles.h"
#include "scenarios.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#define CHECK_SCHEDULES 2500u /* of each scenario and memory, in a test run */
#define CHECK_CAP 30000u

static struct {
    uint64_t schedules, from, cap;
    const char *seed, *choices;
    uint32_t models; /* bits */
    bool all, random, small, exit_early;
    struct bounds bounds;
} o = {
    .schedules = CHECK_SCHEDULES,
    .cap = CHECK_CAP,
    .models = (1u << MEMORY_MODELS) - 1,
    .bounds = { { [CHOICE_PREEMPT] = 3, [CHOICE_FREE] = UINT32_MAX, [CHOICE_MEMORY] = 1,
                  [CHOICE_DRAIN] = 1, [CHOICE_KILL] = 1, [CHOICE_TIME] = 1 } },
};

static const struct scenario *current;
static enum memory_model model;
static uint64_t seed;
static uint64_t all_schedules, all_steps;

static void begin(void) {
    size_t bytes;
    char *arena = world_arena(&bytes);
    memory_begin(model, arena, bytes);
    roles_begin();
}

static enum run_result run(void) {
    struct run r = { .begin = begin, .overslept = role_overslept, .judge = roles_judge,
                     .time_passes = current->time_passes };
    enum run_result result = run_once(&r);
    all_schedules++;
    all_steps += run_steps;
    return result;
}

static void set_scene(const struct scenario *scenario) {
    current = scenario;
    roles = NULL;
    n_roles = 0;
    scenario->set();
    world_save();
}

static void tell_violation(bool by_seed) {
    printf("# %s, %s: %s\n", current->name, memory_names[model], run_story());
    printf("# again, step by step: prove --memory %s ", memory_names[model]);
    if (by_seed)
        printf("--seed %llu %s\n", (unsigned long long)seed, current->name);
    else
        printf("--choices %s %s\n", search_list(), current->name);
}

/* What went wrong may have been worse than a violation. */
static void crashed(int signal) {
    static char line[256];
    int n = snprintf(line, sizeof line, "# signal %d in: prove --memory %s --seed %llu %s\n",
                     signal, memory_names[model], (unsigned long long)seed, current->name);
    if (write(STDOUT_FILENO, line, (size_t)n) < 0)
        _exit(3);
    _exit(2);
}

/* By seed. How many runs until one went wrong; 0: none did. */
static uint64_t by_seed(void) {
    uint64_t expected = 200;
    for (uint64_t i = 0; i < o.schedules; i++) {
        seed = o.from + i;
        search_by_seed(seed, expected);
        if (run() != RUN_HELD) {
            tell_violation(true);
            return i + 1;
        }
    }
    return 0;
}

static uint64_t by_all(bool *ret_capped) {
    uint64_t n = 0;
    search_all(&o.bounds);
    do {
        n++;
        if (run() != RUN_HELD) {
            tell_violation(false);
            return n;
        }
    } while (n < o.cap && search_next());
    *ret_capped = n == o.cap;
    return 0;
}

static bool prove_one(uint32_t number, bool all) {
    uint64_t schedules = all_schedules, steps = all_steps, wrong;
    bool capped = false;
    struct timespec t[2];
    clock_gettime(CLOCK_MONOTONIC, &t[0]);
    wrong = all ? by_all(&capped) : by_seed();
    clock_gettime(CLOCK_MONOTONIC, &t[1]);
    double seconds = (double)(t[1].tv_sec - t[0].tv_sec) +
                     (double)(t[1].tv_nsec - t[0].tv_nsec) / 1e9;
    printf("%s %u - %s, %s, %s\n", wrong ? "not ok" : "ok", number, current->name,
           memory_names[model], all ? "all" : "by seed");
    printf("# %llu schedules%s, %llu steps, %.1f s\n",
           (unsigned long long)(all_schedules - schedules), capped ? " (capped)" : "",
           (unsigned long long)(all_steps - steps), seconds);
    fflush(stdout);
    return wrong == 0;
}

static bool is_chosen(const struct scenario *s, char **names) {
    if (!*names)
        return true;
    for (; *names; names++)
        if (strcmp(*names, s->name) == 0)
            return true;
    return false;
}

/* One scenario under one memory. */
static bool prove_both(char **names, uint32_t *number) {
    bool all = o.all ? *names || current->small : current->small && (!o.random || o.small);
    bool held = true;
    if (!o.all)
        held = prove_one(++*number, false);
    if (all && (held || !o.exit_early))
        held &= prove_one(++*number, true);
    return held;
}

static int prove(char **names) {
    uint32_t number = 0;
    bool held = true;
    for (uint32_t i = 0; i < n_scenarios && (held || !o.exit_early); i++) {
        if (!is_chosen(&scenarios[i], names))
            continue;
        set_scene(&scenarios[i]);
        for (model = 0; model < MEMORY_MODELS && (held || !o.exit_early); model++)
            if (o.models >> model & 1)
                held &= prove_both(names, &number);
    }
    printf("1..%u\n", number);
    printf("# %llu schedules, %llu steps, %u scenarios under a memory\n",
           (unsigned long long)all_schedules, (unsigned long long)all_steps, number);
    return number == 0 ? 2 : held ? 0 : 1;
}

static int replay(const struct scenario *s) {
    set_scene(s);
    for (model = 0; !(o.models >> model & 1);)
        model++;
    if (o.choices) {
        search_by_list(o.choices);
    } else {
        seed = strtoull(o.seed, NULL, 0);
        search_by_seed(seed, 200);
    }
    trace_open(true);
    enum run_result r = run();
    printf("# %s\n", r == RUN_HELD ? "all holds" : run_story());
    printf("# the same: --choices %s\n", search_list());
    return r == RUN_HELD ? 0 : 1;
}

static int usage(void) {
    fprintf(stderr, "prove: unknown scenario or option; --list tells scenarios\n");
    return 2;
}

enum option_value { LIST = 1, SCHEDULES, FROM, MEMORY, EVERY, PREEMPTIONS, DEVIATIONS, CAP, SEED,
                    CHOICES, EARLY, SMALL };
static const struct option options[] = {
    { "list", no_argument, NULL, LIST },
    { "schedules", required_argument, NULL, SCHEDULES },
    { "from", required_argument, NULL, FROM },
    { "memory", required_argument, NULL, MEMORY },
    { "all", no_argument, NULL, EVERY },
    { "preemptions", required_argument, NULL, PREEMPTIONS },
    { "deviations", required_argument, NULL, DEVIATIONS },
    { "cap", required_argument, NULL, CAP },
    { "seed", required_argument, NULL, SEED },
    { "choices", required_argument, NULL, CHOICES },
    { "early", no_argument, NULL, EARLY },
    { "small", no_argument, NULL, SMALL },
    { NULL, 0, NULL, 0 },
};

static uint64_t number_of(const char *text) {
    return strtoull(text, NULL, 0);
}

static bool set_option(int option) {
    switch (option) {
    case SCHEDULES:
        o.schedules = number_of(optarg);
        o.random = true;
        return true;
    case FROM:
        o.from = number_of(optarg);
        return true;
    case MEMORY:
        o.models = 0;
        for (uint32_t i = 0; i < MEMORY_MODELS; i++)
            if (strcmp(optarg, memory_names[i]) == 0)
                o.models = 1u << i;
        return o.models != 0;
    case EVERY:
        o.all = true;
        return true;
    case PREEMPTIONS:
        o.bounds.of[CHOICE_PREEMPT] = (uint32_t)number_of(optarg);
        return true;
    case DEVIATIONS:
        o.bounds.of[CHOICE_MEMORY] = o.bounds.of[CHOICE_DRAIN] = (uint32_t)number_of(optarg);
        return true;
    case CAP:
        o.cap = number_of(optarg);
        return true;
    case SEED:
        o.seed = optarg;
        return true;
    case CHOICES:
        o.choices = optarg;
        return true;
    case SMALL:
        o.small = true;
        return true;
    case EARLY:
        o.exit_early = true;
        return true;
    default:
        return false;
    }
}

int main(int argc, char **argv) {
    int option;
    signal(SIGSEGV, crashed);
    signal(SIGBUS, crashed);
    signal(SIGFPE, crashed);
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == LIST) {
            for (uint32_t i = 0; i < n_scenarios; i++)
                printf("%-22s %s\n", scenarios[i].name, scenarios[i].what);
            return 0;
        }
        if (!set_option(option))
            return usage();
    }
    if (!o.seed && !o.choices) {
        int status = prove(argv + optind);
        return status == 2 ? usage() : status;
    }
    for (uint32_t i = 0; i < n_scenarios && argv[optind]; i++)
        if (strcmp(argv[optind], scenarios[i].name) == 0)
            return replay(&scenarios[i]);
    return usage();
}
