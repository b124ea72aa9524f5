/* record.h - the proof: a file per process, a line for each message that it sent or received.
 *
 *     # shmps-demo sent host            the first line: which side, and who
 *     host/cpu 2a 0 1104 17 8f0c..      topic, publisher (hex), sequence, bytes, tag, XXH3 64-bit
 *     ...                               hash of the payload (16 hex digits)
 *     # end 5120                        the last line: how many lines; missing if the process died
 *
 * "# shmps-demo received NAME all" must hold every message, "received NAME tail" of each topic
 * every one from its first on. Whoever sends hashes what it is about to publish, whoever receives
 * hashes what it was given, each on its own. */
#ifndef DEMO_RECORD_H
#define DEMO_RECORD_H

#include <stdint.h>
#include <stdio.h>

struct record {
    FILE *file;
    uint64_t lines;
};

struct record_line {
    const char *topic;
    uint64_t publisher;
    uint64_t seq;
    uint64_t bytes;
    uint64_t tag;
    uint64_t hash;
};

uint64_t record_hash(const void *data, size_t bytes);

/* All: 0, or -1 with errno. */
int record_open(struct record *record, const char *path, const char *heading);
int record_add(struct record *record, const struct record_line *line);
int record_close(struct record *record);

/* Takes a line apart in place. 0, or -1 if it is not one. */
int record_parse(char *text, struct record_line *ret);

#endif
