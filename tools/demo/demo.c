/* shmps-demo - the bus at work on this machine, and a proof that nothing was lost on the way. */
#include "show.h"
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS_DEFAULT 9
#define SECONDS_MAX 3600

struct options {
    unsigned seconds;
    bool json;
    const char *out;
};

static void print_usage(FILE *file) {
    fputs(
        "usage: shmps-demo [--seconds N] [--out DIRECTORY] [--json]\n"
        "       shmps-demo compare DIRECTORY\n"
        "\n"
        "A private pubsubd, two publishers (this machine at work; frames of 1 MiB) and three\n"
        "reliable subscribers that wait by spinning, on a futex, and on a descriptor in epoll.\n"
        "After a third of the time pubsubd is killed, after two thirds it is started again and "
        "a\n"
        "newcomer joins. Exit status 0 only if nothing was lost, by the checksum of every "
        "message.\n"
        "\n"
        "  --seconds N       how long, from 1 to 3600; default 9\n"
        "  --out DIRECTORY   where the checksums go and stay; default demo-out\n"
        "  --json            one JSON object per line on stdout\n"
        "  compare           judge the checksums of an earlier run\n",
        file);
}

/* ---- the play */

/* What subscribers have received so far; the publishers' count into *ret_sent. */
static void count_received(const struct stage *stage, uint64_t received[ROLE_COUNT],
                           uint64_t *ret_sent) {
    for (int role = ROLE_FIRST_SUBSCRIBER; role < ROLE_COUNT; role++)
        received[role] = stage_totals(stage, (enum role)role).messages;
    *ret_sent = stage_sent(stage).messages;
}

static bool play_beginning(struct stage *stage, struct show *show) {
    if (!stage_start_daemon(stage))
        return false;
    show_event(show, stage, "pubsubd-started", "a private pubsubd runs, pid %d",
               (int)stage->daemon_pid);
    for (int role = ROLE_SPIN; role <= ROLE_DESCRIPTOR; role++)
        if (!stage_start(stage, (enum role)role))
            return false;
    if (!stage_wait_ready(stage, ROLE_SPIN, ROLE_DESCRIPTOR))
        return false;
    show_event(show, stage, "subscribers-ready",
               "three reliable subscribers wait: spin, futex, descriptor");
    if (!stage_start(stage, ROLE_HOST) || !stage_start(stage, ROLE_FRAMES) ||
        !stage_wait_ready(stage, ROLE_HOST, ROLE_FRAMES))
        return false;
    show_event(show, stage, "publishers-ready", "two publishers begin: host, frames");
    return true;
}

static bool play_without_daemon(struct stage *stage, struct show *show, uint64_t duration_ns,
                                struct outcome *outcome) {
    uint64_t before[ROLE_COUNT], after[ROLE_COUNT], sent_before, sent_after;
    if (!stage_kill_daemon(stage))
        return false;
    show_event(show, stage, "pubsubd-killed", "pubsubd was ended by SIGKILL");
    /* Reports are a while old: only what they say from now on was counted after its end. */
    if (!stage_play(stage, STAGE_TICK_NS))
        return false;
    count_received(stage, before, &sent_before);
    if (!stage_play(stage, duration_ns))
        return false;
    count_received(stage, after, &sent_after);
    outcome->sent_without_daemon = sent_after - sent_before;
    for (int role = ROLE_FIRST_SUBSCRIBER; role < ROLE_COUNT; role++)
        outcome->received_without_daemon[role] = after[role] - before[role];
    show_event(show, stage, "went-on",
               "all went on without it: sent +%" PRIu64 ", received by spin +%" PRIu64
               ", futex +%" PRIu64 ", descriptor +%" PRIu64,
               outcome->sent_without_daemon, outcome->received_without_daemon[ROLE_SPIN],
               outcome->received_without_daemon[ROLE_FUTEX],
               outcome->received_without_daemon[ROLE_DESCRIPTOR]);
    return true;
}

static bool play_newcomer(struct stage *stage, struct show *show, uint64_t duration_ns) {
    if (!stage_start_daemon(stage))
        return false;
    show_event(show, stage, "pubsubd-restarted", "pubsubd runs again, pid %d",
               (int)stage->daemon_pid);
    if (!stage_start(stage, ROLE_NEWCOMER) ||
        !stage_wait_ready(stage, ROLE_NEWCOMER, ROLE_NEWCOMER))
        return false;
    show_event(show, stage, "newcomer-ready", "a newcomer has joined: a fourth subscriber");
    return stage_play(stage, duration_ns);
}

static bool play_end(struct stage *stage, struct show *show) {
    stage_terminate(stage, ROLE_HOST);
    stage_terminate(stage, ROLE_FRAMES);
    if (!stage_wait_end(stage, ROLE_HOST, ROLE_FRAMES))
        return false;
    show_event(show, stage, "publishers-left", "the publishers have left");
    if (!stage_wait_end(stage, ROLE_SPIN, ROLE_NEWCOMER))
        return false;
    show_event(show, stage, "subscribers-left", "the subscribers have taken all and left");
    return true;
}

static bool play(struct stage *stage, struct show *show, const struct options *options,
                 struct outcome *outcome) {
    uint64_t third_ns = options->seconds * SECOND_NS / 3;
    return play_beginning(stage, show) && stage_play(stage, third_ns) &&
           play_without_daemon(stage, show, third_ns, outcome) &&
           play_newcomer(stage, show, third_ns) && play_end(stage, show);
}

/* ---- the verdict */

static void judge(const struct stage *stage, struct outcome *outcome) {
    outcome->records_agree = compare_directory(stage->out, &outcome->records);
    if (outcome->records.complaint[0] != '\0')
        snprintf(outcome->reason, sizeof(outcome->reason), "%s", outcome->records.complaint);
    else if (!outcome->records_agree)
        snprintf(outcome->reason, sizeof(outcome->reason),
                 "%" PRIu64 " messages missing, %" PRIu64 " with a wrong checksum, %" PRIu64
                 " twice, out of order or never sent",
                 outcome->records.missing, outcome->records.wrong, outcome->records.extra);
    for (int role = ROLE_FIRST_SUBSCRIBER; role < ROLE_COUNT && !outcome->reason[0]; role++) {
        if (stage_totals(stage, (enum role)role).lost != 0)
            snprintf(outcome->reason, sizeof(outcome->reason), "%s was told of a loss",
                     role_names[role]);
        else if (role != ROLE_NEWCOMER && outcome->received_without_daemon[role] == 0)
            snprintf(outcome->reason, sizeof(outcome->reason),
                     "%s received nothing while no pubsubd ran", role_names[role]);
    }
    outcome->good = outcome->reason[0] == '\0';
}

static void on_tick(struct stage *stage, void *user) {
    show_progress(user, stage);
}

static int run(const struct options *options) {
    struct stage *stage = calloc(1, sizeof(*stage));
    struct outcome outcome = {0};
    struct show show;
    if (stage == NULL) {
        fputs("shmps-demo: out of memory\n", stderr);
        return 1;
    }
    show_open(&show, options->json);
    bool played = stage_open(stage, options->out);
    stage->on_tick = on_tick;
    stage->user = &show;
    played = played && play(stage, &show, options, &outcome);
    bool closed = stage_close(stage);
    if (played)
        judge(stage, &outcome);
    if (!closed) {
        outcome.good = false;
        snprintf(outcome.reason, sizeof(outcome.reason), "%s",
                 stage->problem[0] != '\0' ? stage->problem
                                           : "interrupted; everything was ended");
    }
    if (played || options->json)
        show_outcome(&show, stage, &outcome);
    if (!outcome.good)
        fprintf(stderr, "shmps-demo: %s\n", outcome.reason);
    int status = outcome.good ? 0 : stage->interrupted ? 128 + stage->interrupted : 1;
    compare_free(&outcome.records);
    free(stage);
    return status;
}

/* ---- the command line */

/* `shmps-demo ROLE DESCRIPTOR RECORD`, as the stage starts it; -1 if it is no such call. */
static int run_role(int argc, char **argv) {
    if (argc != 4)
        return -1;
    for (int role = 0; role < ROLE_COUNT; role++)
        if (strcmp(argv[1], role_names[role]) == 0)
            return child_main((enum role)role, (int)strtol(argv[2], NULL, 10), argv[3]);
    return -1;
}

static bool parse_seconds(const char *text, unsigned *ret) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 1 || value > SECONDS_MAX)
        return false;
    *ret = (unsigned)value;
    return true;
}

int main(int argc, char **argv) {
    static const struct option longs[] = {
        {"seconds", required_argument, NULL, 's'},
        {"out", required_argument, NULL, 'o'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.seconds = SECONDS_DEFAULT, .out = "demo-out"};
    int status = run_role(argc, argv);
    if (status >= 0)
        return status;
    for (int option; (option = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        if (option == 'h') {
            print_usage(stdout);
            return 0;
        }
        if (option == 'j')
            options.json = true;
        else if (option == 'o')
            options.out = optarg;
        else if (option != 's' || !parse_seconds(optarg, &options.seconds)) {
            print_usage(stderr);
            return 2;
        }
    }
    if (argc - optind == 2 && strcmp(argv[optind], "compare") == 0)
        return compare_main(argv[optind + 1]);
    if (optind != argc) {
        print_usage(stderr);
        return 2;
    }
    return run(&options);
}
