/* shmps - see and use what is on the bus. One table holds all verbs: it tells how their command
 * lines are read, what runs them, and what help says. */
#include "tool.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum exit_code cmd_help(const struct arguments *args);

#define TO(member) offsetof(struct arguments, member)
#define FLAG(letter, name, member, help) \
    { letter, name, NULL, help, OPTION_FLAG, TO(member), 0, 0 }
#define NUMBER(letter, name, argument, member, min, max, help) \
    { letter, name, argument, help, OPTION_NUMBER, TO(member), min, max }
#define SECONDS(letter, name, member, help) \
    { letter, name, "S", help, OPTION_SECONDS, TO(member), 0, 0 }
#define TEXT(letter, name, argument, member, help) \
    { letter, name, argument, help, OPTION_TEXT, TO(member), 0, 0 }

#define INSTANCE_HELP "name or socket; else $SHMPS_INSTANCE, else \"default\""
/* What all verbs understand. */
#define HELP FLAG('h', "help", help, "this text")
#define COMMON TEXT(0, "instance", "NAME", instance, INSTANCE_HELP), HELP

static const struct verb verbs[] = {
    {
        .name = "ls",
        .words = "",
        .summary = "the topics, who is on them, how much went over them",
        .details = "Reads the bus's directory in shared memory, read-only and without asking\n"
                   "anyone: also when pubsubd is dead, which is then said on stderr. MESSAGES\n"
                   "and BYTES are what was published since the topic appeared, also by\n"
                   "publishers that have gone. MEMORY is what it takes of /dev/shm.\n",
        .options = { FLAG(0, "json", json, "an object per topic and line"), COMMON },
        .run = cmd_ls,
    },
    {
        .name = "info",
        .words = "TOPIC",
        .words_min = 1,
        .words_max = 1,
        .summary = "a topic's geometry, its publishers and its subscribers",
        .details = "Reads shared memory, read-only and without asking anyone: also when pubsubd\n"
                   "is dead.\n\n"
                   "Publishers have a line for each of their rings. MESSAGE is the largest that\n"
                   "fits, HEAD the number of the next one, STALLS how often it slept for want\n"
                   "of room, WAKES how often it woke sleepers, PINS how many large messages\n"
                   "subscribers may hold, of those that could be granted. A ring is live; or\n"
                   "dead, if its process has gone and no pubsubd has noticed yet; or retired,\n"
                   "if nothing more comes, as its publisher has gone or has grown into a larger\n"
                   "ring: it goes when everybody has read it.\n\n"
                   "Subscribers have a line for each ring. CURSOR is what it reads next, LAG how\n"
                   "many it has still to read, HELD the large messages that it holds of those\n"
                   "it may hold. Observers cannot be seen.\n",
        .options = { FLAG(0, "json", json, "all of it as one object"), COMMON },
        .run = cmd_info,
    },
    {
        .name = "top",
        .words = "",
        .summary = "the topics' rates, interval by interval",
        .details = "Only in batch mode: a table an interval, for a log or a pipe. Read-only and\n"
                   "unnoticed, also when pubsubd is dead. FILL is the share of each ring that\n"
                   "the slowest subscriber has still to read, the fullest ring first: at 100% a\n"
                   "reliable one holds its publisher back. LAG is what the slowest has still to\n"
                   "read, LOST what of that is overwritten already; those with --latest, who\n"
                   "skip, do not count. EVICTED are the reliable ones that were too slow,\n"
                   "REFUSED the opens that pubsubd refused, MEMORY what the topic takes of\n"
                   "/dev/shm.\n",
        .options = {
            FLAG('b', "batch", batch, "print tables, one below the other"),
            NUMBER('n', "count", "N", count, 1, UINT64_MAX, "end after N tables"),
            SECONDS('d', "interval", interval_ns, "the time between two; else 1"),
            TEXT(0, "sort", "KEY", sort,
                 "rate (else), bytes, memory, lag, lost, refused, topic"),
            FLAG(0, "json", json, "an object per topic, interval and line"),
            COMMON,
        },
        .run = cmd_top,
    },
    {
        .name = "dump",
        .words = "[FILTER...]",
        .words_max = 256,
        .summary = "the black box: the last messages of each topic",
        .details = "Reads the rings themselves, read-only and unnoticed: of a running bus, and\n"
                   "of one of which everything was killed. The newest come last, over all\n"
                   "publishers of a topic by publish time; what is missing between two of a\n"
                   "publisher is told as a gap. Each has a line with its time, topic, sequence,\n"
                   "publisher, size and tag; below it the payload, as text if it is printable,\n"
                   "else in hex.\n\n"
                   "--json prints topic, publisher, pid, command, lost (missing before it), seq,\n"
                   "time_ns (CLOCK_MONOTONIC), time (UTC), tag, bytes, and payload or, if that\n"
                   "is no UTF-8, payload_base64. A loss that no message follows is an object\n"
                   "without seq. The calendar's time is as of now: a clock that was set since,\n"
                   "or a suspend, shifts it.\n",
        .options = {
            NUMBER('n', "count", "N", count, 1, UINT64_MAX,
                   "the newest N of each topic, instead of 10"),
            NUMBER(0, "bytes", "N", bytes, 1, UINT64_MAX,
                   "N bytes of a payload; else 256 (--raw, --json: all)"),
            FLAG(0, "raw", raw, "only the payloads as they are, and a newline after each"),
            FLAG(0, "json", json, "an object per message and line"),
            COMMON,
        },
        .run = cmd_dump,
    },
    {
        .name = "doctor",
        .words = "",
        .summary = "what is wrong here, and how it is mended",
        .details = "A line a finding: OK, WARN or FAIL, which check, what, why it matters, and\n"
                   "the command that mends it. Looks at /dev/shm, limits, what the kernel can\n"
                   "(tried), logind's RemoveIPC; at the instance: daemon, files, layout, topics,\n"
                   "the errors of the last day; and at what all instances of this user left\n"
                   "behind. Changes nothing; connects for a moment to a pubsubd that runs. Exit\n"
                   "code 1 if anything is FAIL, else 0.\n",
        .options = {
            FLAG(0, "json", json, "an object per finding and line"),
            COMMON,
        },
        .run = cmd_doctor,
    },
    {
        .name = "gc",
        .words = "",
        .summary = "remove what dead instances have left behind",
        .details = "Lists what is provably nobody's, asks, and removes it: all of an instance\n"
                   "whose pubsubd and whose processes have gone; segments that its directory\n"
                   "does not lead to; semaphores of dead processes; directories that were set\n"
                   "aside. The messages in it are lost: shmps dump shows them. While a process\n"
                   "uses an instance, running or stopped, it is left alone. Run it where pubsubd\n"
                   "ran: what another pid namespace does with this /dev/shm cannot be seen.\n",
        .options = {
            FLAG(0, "all", all, "of all instances of this user"),
            FLAG(0, "dry-run", dry_run, "only list it"),
            FLAG('y', "yes", yes, "do not ask"),
            FLAG(0, "force", force, "also an instance of another layout, if nobody maps it"),
            FLAG(0, "json", json, "an object per file and line"),
            COMMON,
        },
        .run = cmd_gc,
    },
    {
        .name = "pub",
        .words = "TOPIC [BODY]",
        .words_min = 1,
        .words_max = 2,
        .summary = "publish BODY, or what comes on stdin",
        .details = "Takes one of BODY, -l and -s. While a reliable subscriber has no room, it\n"
                   "waits as long as it takes. A BODY that begins with '-' is given after\n"
                   "\"--\". Starts a pubsubd if none runs. What -r keeps goes with pubsubd: one\n"
                   "that was started so ends some seconds after its last client (idle_exit).\n",
        .options = {
            FLAG('l', "lines", lines, "publish each line of stdin, also empty ones"),
            FLAG('s', "stdin", whole, "publish all of stdin as one message"),
            FLAG('r', "retain", retain, "the topic keeps its last message for latecomers"),
            NUMBER(0, "wait-subs", "N", wait_subscribers, 0, UINT32_MAX,
                   "first wait until the topic has N subscribers"),
            SECONDS('W', "timeout", timeout_ns, "give up after S seconds: exit code 27"),
            NUMBER(0, "tag", "N", tag, 0, UINT64_MAX, "the messages' tag, a number of your own"),
            NUMBER(0, "depth", "N", depth, 2, 1u << 20, "how many messages fit the ring"),
            FLAG(0, "json", json, "at the end, what was published as an object"),
            COMMON,
        },
        .run = cmd_pub,
    },
    {
        .name = "sub",
        .words = "FILTER...",
        .words_min = 1,
        .words_max = 256,
        .summary = "print what is published on the topics that match",
        .details = "'+' in a FILTER is any one level, '#' at its end any number of them. A topic\n"
                   "without these is created, a pubsubd started if none runs. \"subscribed\" on\n"
                   "stderr tells that from now on nothing is missed; losses are told there, too.\n"
                   "A message that matches two FILTERs is printed twice.\n\n"
                   "Prints the payload and a newline, behind the topic if several can match;\n"
                   "control characters and what is no UTF-8 as \\xHH. --json prints topic,\n"
                   "publisher, seq, time_ns (CLOCK_MONOTONIC), tag, lost (before this message),\n"
                   "history (published before the subscription), bytes, and payload or, if that\n"
                   "is no UTF-8, payload_base64. A loss that no message follows is an object\n"
                   "with topic, publisher and lost only.\n",
        .options = {
            NUMBER('C', "count", "N", count, 1, UINT64_MAX, "end after N messages"),
            SECONDS('W', "timeout", timeout_ns, "end after S seconds: exit code 27"),
            FLAG('v', "verbose", verbose, "print the topic before each payload"),
            FLAG(0, "raw", raw, "print the payload as it is, and a newline"),
            FLAG(0, "reliable", reliable, "lose nothing: publishers wait for this subscriber"),
            FLAG(0, "latest", latest, "only the newest message, skipping older ones"),
            FLAG(0, "observe", observe, "only look: unnoticed, also when pubsubd is dead"),
            NUMBER(0, "history", "K", history, 0, UINT32_MAX,
                   "begin with the newest K messages that are still there"),
            FLAG(0, "json", json, "an object per message and line"),
            COMMON,
        },
        .run = cmd_sub,
    },
    {
        .name = "stop",
        .words = "",
        .summary = "end the instance's pubsubd",
        .details = "What is open goes on without it: publishers publish, subscribers receive. A\n"
                   "pubsubd that is started later begins a new, empty bus, to which they have to\n"
                   "connect again. (To replace only the daemon, kill it with SIGKILL.)\n"
                   "It may be of another build, whose memory this one cannot read.\n",
        .options = { COMMON },
        .run = cmd_stop,
    },
    {
        .name = "help",
        .words = "[VERB]",
        .words_max = 1,
        .summary = "all verbs, or one of them with its options",
        .details = "",
        .options = { HELP },
        .run = cmd_help,
    },
};
#define N_VERBS (sizeof(verbs) / sizeof(verbs[0]))

static const struct verb *verb_find(const char *name) {
    for (size_t i = 0; i < N_VERBS; i++)
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    return NULL;
}

static void print_option(const struct option_spec *option) {
    char letter[8] = "    ", names[64];
    if (option->letter)
        snprintf(letter, sizeof(letter), "-%c, ", option->letter);
    snprintf(names, sizeof(names), "%s--%s %s", letter, option->name,
             option->argument ? option->argument : "");
    printf("  %-20s  %s\n", names, option->help);
}

static void print_verb(const struct verb *verb) {
    printf("usage: shmps %s [OPTIONS]%s%s\n\n%s\n\n", verb->name, verb->words[0] ? " " : "",
           verb->words, verb->summary);
    if (verb->details[0])
        printf("%s\n", verb->details);
    for (const struct option_spec *option = verb->options; option->name; option++)
        print_option(option);
}

static void print_help(FILE *to) {
    fputs("usage: shmps [--instance NAME] VERB ...\n\n", to);
    for (size_t i = 0; i < N_VERBS; i++) {
        char call[64];
        snprintf(call, sizeof(call), "%s %s", verbs[i].name, verbs[i].words);
        fprintf(to, "  %-18s  %s\n", call, verbs[i].summary);
    }
    fprintf(to, "\n  %-18s  %s\n  %-18s  %s\n", "--instance NAME", INSTANCE_HELP, "--version",
            "the version of this tool");
    fputs("\nData goes to stdout, everything else to stderr. \"shmps help VERB\" tells more.\n"
          "Exit codes: 0 done, 1 error, 2 usage, 3 neither pubsubd nor its directory,\n"
          "4 no such topic, 5 permission, 6 version, 27 timeout, 130 and 143 ended by\n"
          "SIGINT and SIGTERM.\n",
          to);
}

static enum exit_code cmd_help(const struct arguments *args) {
    if (args->n_words == 0) {
        print_help(stdout);
        return EXIT_DONE;
    }
    const struct verb *verb = verb_find(args->words[0]);
    if (!verb)
        return usage_error("help", "there is no verb '%s'", args->words[0]);
    print_verb(verb);
    return EXIT_DONE;
}

void report(const char *format, ...) {
    va_list list;
    va_start(list, format);
    flockfile(stderr);
    fputs("shmps: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(list);
}

enum exit_code usage_error(const char *verb, const char *format, ...) {
    va_list list;
    va_start(list, format);
    fprintf(stderr, "shmps %s: ", verb);
    vfprintf(stderr, format, list);
    fprintf(stderr, "; see: shmps help %s\n", verb);
    va_end(list);
    return EXIT_USAGE;
}

enum exit_code report_error(int error, const char *format, ...) {
    const char *detail = shmps_error_detail();
    va_list list;
    va_start(list, format);
    fputs("shmps: ", stderr);
    vfprintf(stderr, format, list);
    fprintf(stderr, ": %s (%s)\n", detail[0] ? detail : shmps_error_text(error),
            shmps_error_name(error));
    va_end(list);
    switch (error) {
    case SHMPS_E_INVALID:
    case SHMPS_E_TOPIC:
        return EXIT_USAGE;
    case SHMPS_E_NO_DAEMON:
        return EXIT_NO_DAEMON;
    case SHMPS_E_NO_TOPIC:
        return EXIT_NO_TOPIC;
    case SHMPS_E_PERMISSION:
        return EXIT_PERMISSION;
    case SHMPS_E_VERSION:
        return EXIT_VERSION;
    default:
        return EXIT_ERROR;
    }
}

/* Write out what stdout holds. That nobody reads it any more is no error. */
static bool flush_output(void) {
    errno = 0;
    if ((fflush(stdout) == 0 && !ferror(stdout)) || errno == EPIPE)
        return true;
    report("cannot write to stdout: %s", errno ? strerror(errno) : "an earlier write failed");
    return false;
}

void out_of_memory(void) {
    report("out of memory");
    exit(EXIT_ERROR);
}

/* What may stand before the verb. Returns its index, or 0 after an exit code was decided. */
static int leading_options(int argc, char **argv, struct arguments *args, enum exit_code *ret) {
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--version") == 0) {
            printf("shmps %s\n", shmps_version());
            *ret = EXIT_DONE;
            return 0;
        }
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(stdout);
            *ret = EXIT_DONE;
            return 0;
        }
        if (strncmp(argv[i], "--instance=", 11) == 0) {
            args->instance = argv[i] + 11;
        } else if (strcmp(argv[i], "--instance") == 0 && i + 1 < argc) {
            args->instance = argv[++i];
        } else {
            report("there is no option %s before the verb, or its argument is missing; see: shmps "
                   "help",
                   argv[i]);
            *ret = EXIT_USAGE;
            return 0;
        }
    }
    if (i < argc)
        return i;
    print_help(stderr);
    *ret = EXIT_USAGE;
    return 0;
}

int main(int argc, char **argv) {
    struct arguments args = { 0 };
    enum exit_code code = EXIT_USAGE;
    signal(SIGPIPE, SIG_DFL); /* whatever the parent did: `shmps ls | head` is to end quietly */
    int at = leading_options(argc, argv, &args, &code);
    if (at > 0) {
        const struct verb *verb = verb_find(argv[at]);
        if (!verb) {
            report("there is no verb '%s'; see: shmps help", argv[at]);
            return EXIT_USAGE;
        }
        if (!options_parse(verb, argc - at, argv + at, &args))
            return EXIT_USAGE;
        if (args.help)
            print_verb(verb);
        code = args.help ? EXIT_DONE : verb->run(&args);
    }
    if (code == EXIT_DONE && !flush_output())
        code = EXIT_ERROR;
    return (int)code;
}
