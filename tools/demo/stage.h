/* stage.h - who plays in the demo: a private pubsubd and the children, all from one thread.
 *
 * The stage owns every process it started and ends them on every way out. Calls that return bool
 * return false when the play is over: stage.problem says why, or stage.interrupted is the signal
 * that ended it. */
#ifndef DEMO_STAGE_H
#define DEMO_STAGE_H

#include "demo.h"
#include <limits.h>
#include <sys/types.h>

struct member { /* a child */
    pid_t pid;  /* 0: not started, or ended */
    int report_fd;
    bool ready, done;
    struct report topics[DEMO_TOPICS_MAX]; /* the last REPORT_TOPIC of each */
    size_t n_topics;
    struct report result;  /* REPORT_DONE */
    char record[PATH_MAX]; /* the file with its lines */
};

struct stage {
    char out[PATH_MAX];     /* absolute: where records and pubsubd.log are */
    char pubsubd[PATH_MAX]; /* the program */
    char log[PATH_MAX];     /* what all pubsubds of this run wrote to stderr */
    char runtime[64];       /* their XDG_RUNTIME_DIR; removed at the end */
    char instance[33];
    int lock_fd; /* of `out`: one demo at a time writes there */
    int signal_fd;
    int daemon_fd;    /* its stdout */
    pid_t daemon_pid; /* 0: not running */
    bool daemon_ready;
    struct member members[ROLE_COUNT];
    uint64_t start_ns; /* when the stage was set up */
    int interrupted;
    char problem[1024];
    void (*on_tick)(struct stage *stage,
                    void *user); /* called while waiting, every STAGE_TICK_NS */
    void *user;
    uint64_t next_tick_ns;
};
#define STAGE_TICK_NS (SECOND_NS / 4)

/* Prepare the directories; nothing runs yet. */
bool stage_open(struct stage *stage, const char *out);
/* End and remove everything but the records. Always to be called; after a problem or an
 * interruption it ends the children the hard way. False if there was either, or if pubsubd did not
 * end as it should. */
bool stage_close(struct stage *stage);

bool stage_start_daemon(struct stage *stage); /* returns when it accepts */
bool stage_kill_daemon(struct stage *stage);  /* SIGKILL; returns when it is gone */
bool stage_start(struct stage *stage, enum role role);

/* Go on until every role from first to last is ready (begins or waits), or has ended. */
bool stage_wait_ready(struct stage *stage, enum role first, enum role last);
bool stage_wait_end(struct stage *stage, enum role first, enum role last);
/* Go on for a time. */
bool stage_play(struct stage *stage, uint64_t duration_ns);
/* Ask a publisher to end. */
void stage_terminate(struct stage *stage, enum role role);

/* Sums over the topics of a member. */
struct totals {
    uint64_t messages, bytes, lost;
};
struct totals stage_totals(const struct stage *stage, enum role role);
/* What all publishers sent. */
struct totals stage_sent(const struct stage *stage);

#endif
