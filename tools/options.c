/* options.c - command lines, read by the tables of shmps.c. */
#include "tool.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS_MAX 1e9 /* 31 years, which fit in ns */

/* A whole decimal number. strtoull alone also takes "-1", " 1" and "1x". */
static bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret) {
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || n < min || n > max)
        return false;
    *ret = n;
    return true;
}

/* Seconds, with a fraction; more than none. */
static bool parse_seconds(const char *text, int64_t *ret_ns) {
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(seconds) || seconds <= 0 || seconds > SECONDS_MAX)
        return false;
    int64_t ns = (int64_t)(seconds * 1e9);
    *ret_ns = ns > 0 ? ns : 1;
    return true;
}

static bool option_apply(const struct verb *verb, const struct option_spec *option,
                         const char *value, struct arguments *args) {
    void *target = (char *)args + option->offset;
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)target = true;
        return true;
    case OPTION_TEXT:
        *(const char **)target = value;
        return true;
    case OPTION_NUMBER:
        if (parse_number(value, option->min, option->max, target))
            return true;
        usage_error(verb->name, "--%s takes a number from %llu to %llu, not '%s'", option->name,
                    (unsigned long long)option->min, (unsigned long long)option->max, value);
        return false;
    case OPTION_SECONDS:
        if (parse_seconds(value, target))
            return true;
        usage_error(verb->name, "--%s takes seconds, more than 0 and at most 1e9, not '%s'",
                    option->name, value);
        return false;
    }
    return false;
}

bool options_parse(const struct verb *verb, int argc, char **argv, struct arguments *args) {
    struct option long_options[OPTIONS_MAX + 1] = { 0 };
    char letters[2 + 2 * OPTIONS_MAX] = ":"; /* ':' : a missing argument is told apart */
    size_t n_letters = 1;
    for (size_t i = 0; verb->options[i].name; i++) {
        const struct option_spec *option = &verb->options[i];
        int has_argument = option->argument ? required_argument : no_argument;
        long_options[i] = (struct option){ option->name, has_argument, NULL, 256 + (int)i };
        if (option->letter) {
            letters[n_letters++] = option->letter;
            if (option->argument)
                letters[n_letters++] = ':';
        }
    }
    optind = 0; /* glibc: start over */
    opterr = 0;
    for (int found; (found = getopt_long(argc, argv, letters, long_options, NULL)) != -1;) {
        const char *word = argv[optind - 1];
        if (found == ':') {
            usage_error(verb->name, "%s needs an argument", word);
            return false;
        }
        const struct option_spec *option = NULL;
        for (size_t i = 0; verb->options[i].name; i++)
            if (found == 256 + (int)i || found == verb->options[i].letter)
                option = &verb->options[i];
        if (!option || found == '?') {
            if (optopt > 0 && optopt < 256)
                usage_error(verb->name, "there is no option -%c", optopt);
            else
                usage_error(verb->name, "there is no option %s, or it takes no argument", word);
            return false;
        }
        if (!option_apply(verb, option, optarg, args))
            return false;
    }
    args->words = argv + optind;
    args->n_words = argc - optind;
    if (args->help)
        return true;
    if (args->n_words < verb->words_min)
        usage_error(verb->name, "%s is missing", verb->words);
    else if (args->n_words > verb->words_max)
        usage_error(verb->name, "'%s' is too much: it takes %s", args->words[verb->words_max],
                    verb->words[0] ? verb->words : "options only");
    else
        return true;
    return false;
}
