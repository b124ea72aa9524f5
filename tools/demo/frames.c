/* Publishes frames: files of this machine, end to end, read straight into the ring. */
#include "demo.h"
#include "samples.h"
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <string.h>
#include <unistd.h>

struct reel { /* the files, one after the other, for ever */
    glob_t paths;
    size_t next; /* in paths */
    int fd;      /* being read; -1: none */
};

/* Programs and libraries: every system has some, and no two stretches of them are alike. */
static void reel_open(struct child *child, struct reel *reel) {
    static const char *const patterns[] = {"/usr/lib/*-linux-*/lib*.so.*", "/usr/lib64/lib*.so.*",
                                           "/usr/bin/*"};
    *reel = (struct reel){.fd = -1};
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
        glob(patterns[i], i != 0 ? GLOB_APPEND : 0, NULL, &reel->paths);
    if (reel->paths.gl_pathc == 0)
        child_fail(child, "found no files in /usr/lib and /usr/bin to make frames of");
}

static void reel_close(struct reel *reel) {
    if (reel->fd >= 0)
        close(reel->fd);
    globfree(&reel->paths);
}

static void reel_turn(struct reel *reel) {
    if (reel->fd >= 0)
        close(reel->fd);
    reel->fd = open(reel->paths.gl_pathv[reel->next], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    reel->next = (reel->next + 1) % reel->paths.gl_pathc;
}

/* Fill a frame; the end of a file is followed by the beginning of the next. What cannot be read
 * is passed over. */
static void reel_read(struct child *child, struct reel *reel, char *frame) {
    size_t used = 0, turns = 0;
    while (used < DEMO_FRAME_BYTES) {
        ssize_t n = reel->fd >= 0 ? read(reel->fd, frame + used, DEMO_FRAME_BYTES - used) : 0;
        if (n > 0) {
            used += (size_t)n;
            turns = 0;
        } else if (turns++ <= reel->paths.gl_pathc) {
            reel_turn(reel);
        } else {
            child_fail(child, "none of the files in /usr/lib and /usr/bin can be read");
        }
    }
}

static void publish_frame(struct child *child, struct source *source, struct reel *reel) {
    uint64_t number = source->tally->messages;
    void *frame;
    if (child_check(child, shmps_loan(source->pub, DEMO_FRAME_BYTES, SHMPS_FOREVER, &frame),
                    "loan") != 0)
        child_fail(child, "a loan without a deadline came back without a frame");
    reel_read(child, reel, frame);
    /* Noted first: a published frame is the subscribers', not this process's any more. */
    child_note(child, source->tally, frame, DEMO_FRAME_BYTES, source->id, number, number);
    child_check(child, shmps_publish_loan(source->pub, DEMO_FRAME_BYTES, number), "publish");
}

void frames_main(struct child *child, struct report *done) {
    struct source source;
    struct reel reel;
    reel_open(child, &reel);
    source_open(child, &source, "camera/frames", DEMO_FRAME_BYTES, 0);
    source_wait_subscribers(child, &source, 1);
    child_report(child, &(struct report){.kind = REPORT_READY});

    uint64_t beat_ns = now_ns();
    while (!child_stop) {
        publish_frame(child, &source, &reel);
        child_report_topics(child, false);
        source_beat(&beat_ns, DEMO_FRAME_HZ);
    }
    source_close(&source, done);
    reel_close(&reel);
}
