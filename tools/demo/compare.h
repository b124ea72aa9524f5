/* compare.h - the verdict: the records of a run against each other, read from the files alone. */
#ifndef DEMO_COMPARE_H
#define DEMO_COMPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COMPARE_NAME_BYTES 256

/* What one subscriber received of one topic. */
struct comparison {
    char subscriber[COMPARE_NAME_BYTES];
    char topic[COMPARE_NAME_BYTES];
    uint64_t sent;     /* that it had to receive: all, or from its first on */
    uint64_t received; /* as sent, in order */
    uint64_t missing;  /* sent, not received */
    uint64_t wrong;    /* received with another size, tag or checksum */
    uint64_t extra;    /* received twice, out of order, or never sent */
};

struct compare_result {
    struct comparison *rows; /* for each subscriber, each topic */
    size_t n_rows;
    uint64_t sent, received, missing, wrong, extra;
    char complaint[512]; /* "", or why the files cannot be judged at all */
};

/* Compare sent.*.txt with received.*.txt in a directory. True if each subscriber received what
 * was sent and nothing else. ret is always set; free it with compare_free(). */
bool compare_directory(const char *directory, struct compare_result *ret);
void compare_free(struct compare_result *result);

/* `shmps-demo compare DIR`: says what it finds; 0 if all is well, else 1. */
int compare_main(const char *directory);

#endif
