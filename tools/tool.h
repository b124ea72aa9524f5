/* tool.h - what all verbs of shmps share: exit codes, arguments, reporting.
 *
 * Data goes to stdout, everything else to stderr. */
#ifndef SHMPS_TOOL_H
#define SHMPS_TOOL_H

#include <shmps/shmps.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes, as `shmps help` lists them. Scripts rely on them: their meaning never changes. */
enum exit_code {
    EXIT_DONE = 0,
    EXIT_ERROR = 1,
    EXIT_USAGE = 2,
    EXIT_NO_DAEMON = 3, /* neither daemon nor directory */
    EXIT_NO_TOPIC = 4,
    EXIT_PERMISSION = 5,
    EXIT_VERSION = 6,
    EXIT_TIMED_OUT = 27, /* as mosquitto_sub */
    EXIT_SIGNAL = 128,   /* + the signal's number: 130 after SIGINT */
};

/* The options and words of a command line; each verb accepts those that its table lists. */
struct arguments {
    const char *instance; /* NULL: as shmps_connect() chooses */
    bool help, json;
    bool verbose, raw, reliable, latest, observe; /* sub */
    bool lines, whole, retain;                    /* pub: -l, -s, -r */
    bool batch;                                   /* top */
    bool all, dry_run, yes, force;                /* gc */
    uint64_t count;                               /* sub, top, dump; 0: without end, or default */
    uint64_t bytes;                               /* dump; 0: default */
    int64_t interval_ns;                          /* top; 0: default */
    const char *sort;                             /* top; NULL: default */
    uint64_t history;                             /* sub */
    uint64_t wait_subscribers, tag, depth;        /* pub */
    int64_t timeout_ns;                           /* pub, sub; 0: none */
    char *const *words;
    int n_words;
};

enum option_kind { OPTION_FLAG, OPTION_NUMBER, OPTION_SECONDS, OPTION_TEXT };

/* One option; a table of them ends with an empty one. It goes to `offset` in struct arguments: a
 * bool, a uint64_t, an int64_t (ns) or a const char *. */
struct option_spec {
    char letter;          /* 0: none */
    const char *name;     /* long form, without "--" */
    const char *argument; /* what help calls its argument; NULL: it has none */
    const char *help;
    enum option_kind kind;
    size_t offset;
    uint64_t min, max;    /* OPTION_NUMBER */
};
#define OPTIONS_MAX 12

struct verb {
    const char *name;
    const char *words; /* as help shows them */
    int words_min, words_max;
    const char *summary;
    const char *details;
    struct option_spec options[OPTIONS_MAX];
    enum exit_code (*run)(const struct arguments *args);
};

/* Fill `args` from the arguments after the verb, which is argv[0]; options and words may be mixed,
 * "--" ends the options. false: it was reported on stderr. */
bool options_parse(const struct verb *verb, int argc, char **argv, struct arguments *args);

/* Report on stderr: "shmps: " and a line. */
__attribute__((format(printf, 1, 2))) void report(const char *format, ...);

/* Report a misuse of a verb, and how to get help. Returns EXIT_USAGE. */
__attribute__((format(printf, 2, 3))) enum exit_code usage_error(const char *verb,
                                                                 const char *format, ...);

/* Report an error (< 0) of the library with its whole story. Returns its exit code. */
__attribute__((format(printf, 2, 3))) enum exit_code report_error(int error, const char *format,
                                                                  ...);

/* Connect as the arguments say; -W, counted from start_ns (clock_ns()), bounds that too. What
 * fails was reported. */
enum exit_code connect_within(const struct arguments *args, uint64_t start_ns, struct shmps **ret);

/* The exit code of an error that was reported: `code`, or that of a timeout if nobody has answered
 * in the time that there was. */
enum exit_code late(const struct arguments *args, uint64_t start_ns, int error,
                    enum exit_code code);

/* There is nothing useful left to do. */
__attribute__((noreturn)) void out_of_memory(void);

enum exit_code cmd_ls(const struct arguments *args);
enum exit_code cmd_info(const struct arguments *args);
enum exit_code cmd_top(const struct arguments *args);
enum exit_code cmd_dump(const struct arguments *args);
enum exit_code cmd_doctor(const struct arguments *args);
enum exit_code cmd_gc(const struct arguments *args);
enum exit_code cmd_pub(const struct arguments *args);
enum exit_code cmd_sub(const struct arguments *args);
enum exit_code cmd_stop(const struct arguments *args);

#endif
