/* show.h - what the demo prints: lines on a pipe, a table that is redrawn on a terminal, or one
 * JSON object per line. */
#ifndef DEMO_SHOW_H
#define DEMO_SHOW_H

#include "compare.h"
#include "stage.h"

enum show_mode { SHOW_LINES, SHOW_TABLE, SHOW_JSON };

struct show {
    enum show_mode mode;
    bool colour;          /* a terminal, and NO_COLOR is not set */
    unsigned drawn;       /* lines of the table on the screen */
    uint64_t before_ns;   /* the rates are those since then, when */
    struct totals before; /* ... this was the sum and */
    uint64_t topic_before[ROLE_FIRST_SUBSCRIBER][DEMO_TOPICS_MAX]; /* ... these the messages */
    double message_rate, byte_rate;                                /* a second */
    double topic_rate[ROLE_FIRST_SUBSCRIBER][DEMO_TOPICS_MAX];
};

void show_open(struct show *show, bool json);

/* Something happened: `name` for programs, the text for people. */
void show_event(struct show *show, const struct stage *stage, const char *name,
                const char *format, ...) __attribute__((format(printf, 4, 5)));

/* How things are; to be called every STAGE_TICK_NS. */
void show_progress(struct show *show, const struct stage *stage);

/* The outcome of it all. */
struct outcome {
    struct compare_result records;
    uint64_t sent_without_daemon;                 /* while no pubsubd ran */
    uint64_t received_without_daemon[ROLE_COUNT]; /* by each subscriber */
    bool records_agree;
    bool good;         /* the exit status will be 0 */
    char reason[1024]; /* why not */
};
void show_outcome(struct show *show, const struct stage *stage, const struct outcome *outcome);

#endif
