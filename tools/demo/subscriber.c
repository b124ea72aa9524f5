/* Receives, each role in its own way; ends when publishers have left and everything is taken. */
#include "demo.h"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define LOOK_NS ((int64_t)(SECOND_NS / 20)) /* how long it waits before it looks around */

static void subscriber_open(struct child *child, const char *filter, int wait,
                            struct shmps_subscriber **ret) {
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    options.delivery = SHMPS_RELIABLE;
    options.wait = wait;
    child_check(child, shmps_subscriber_open(child->bus, filter, &options, ret), filter);
}

static void receive(struct child *child, struct shmps_subscriber *sub,
                    struct shmps_sample *sample) {
    uint64_t time_ns = now_ns();
    struct tally *tally = child_tally(child, sample->topic);
    histogram_add(&tally->latency, time_ns > sample->time_ns ? time_ns - sample->time_ns : 0);
    tally->lost += sample->lost;
    child_note(child, tally, sample->data, sample->bytes, sample->publisher, sample->seq,
               sample->tag);
    child_check(child, shmps_release(sub, sample), "release");
}

/* Take until nothing is there for timeout_ns. */
static void drain(struct child *child, struct shmps_subscriber *sub, int64_t timeout_ns) {
    struct shmps_sample sample;
    for (int result; !child_stop;) {
        result = child_check(child, shmps_take(sub, &sample, timeout_ns), "take");
        if (result == SHMPS_EMPTY || result == SHMPS_TIMEOUT)
            return;
        if (result == SHMPS_LOST)
            child_tally(child, sample.topic)->lost += sample.lost;
        else
            receive(child, sub, &sample);
        child_report_topics(child, false);
    }
}

/* Nothing will ever come again: first nobody is there who could publish, then nothing is left. */
static bool is_over(struct child *child, struct shmps_subscriber *sub) {
    struct shmps_subscriber_stats stats = {.size = sizeof(stats)};
    child_check(child, shmps_subscriber_stats(sub, &stats), "stats");
    if (stats.publishers != 0)
        return false;
    drain(child, sub, 0);
    return true;
}

/* Ready, and then until the first publisher is there. */
static void meet(struct child *child, struct shmps_subscriber *const *subs, size_t n) {
    child_report(child, &(struct report){.kind = REPORT_READY});
    for (size_t i = 0; i < n; i++)
        while (!child_stop &&
               child_check(child, shmps_subscriber_wait_publishers(subs[i], 1, LOOK_NS),
                           "presence") != 0)
            ;
}

/* Its own loop: take waits, in whichever way the subscriber was opened with. */
static void take_loop(struct child *child, struct shmps_subscriber *sub) {
    meet(child, &sub, 1);
    do {
        drain(child, sub, LOOK_NS);
        child_report_topics(child, false);
    } while (!child_stop && !is_over(child, sub));
}

/* Somebody else's loop: two subscribers among what an epoll watches. */
static void epoll_loop(struct child *child, struct shmps_subscriber **subs, size_t n,
                       struct report *done) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < n; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = subs[i]};
        int fd = child_check(child, shmps_subscriber_fd(subs[i]), "descriptor");
        if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            child_fail(child, "epoll: %s", strerror(errno));
    }
    meet(child, subs, n);
    for (size_t i = 0; i < n; i++)
        drain(child, subs[i], 0);
    for (size_t over = 0; !child_stop && over < n;) {
        struct epoll_event events[4];
        done->sleeps++;
        int ready = epoll_wait(epoll, events, 4, (int)(LOOK_NS / 1000000));
        if (ready < 0 && errno != EINTR)
            child_fail(child, "epoll_wait: %s", strerror(errno));
        for (int i = 0; i < ready; i++)
            drain(child, events[i].data.ptr, 0);
        child_report_topics(child, false);
        over = 0;
        for (size_t i = 0; ready == 0 && i < n; i++)
            over += is_over(child, subs[i]);
    }
    close(epoll);
}

static void subscriber_finish(struct child *child, struct shmps_subscriber *sub,
                              struct report *done) {
    struct shmps_subscriber_stats stats = {.size = sizeof(stats)};
    child_check(child, shmps_subscriber_stats(sub, &stats), "stats");
    done->sleeps += stats.sleeps;
    done->copied += stats.copied;
    shmps_subscriber_close(sub);
}

void subscriber_main(struct child *child, struct report *done) {
    static const int waits[ROLE_COUNT] = {
        [ROLE_SPIN] = SHMPS_WAIT_SPIN, [ROLE_FUTEX] = SHMPS_WAIT_SLEEP};
    struct shmps_subscriber *subs[2];
    if (child->role == ROLE_DESCRIPTOR) {
        subscriber_open(child, "host/#", SHMPS_WAIT_DEFAULT, &subs[0]);
        subscriber_open(child, "camera/+", SHMPS_WAIT_DEFAULT, &subs[1]);
        epoll_loop(child, subs, 2, done);
        subscriber_finish(child, subs[1], done);
    } else {
        subscriber_open(child, "#", waits[child->role], &subs[0]);
        take_loop(child, subs[0]);
    }
    subscriber_finish(child, subs[0], done);
}
