#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_S 60
#define BATCH 32

/* Between the orchestrating process and its two halves. */
struct meeting {
    sem_t arrived[2];
    struct outcome outcome;
    double start_ns, end_ns; /* of a stream: first publish, last receipt; either side writes one */
    double round_trip_ns[];
};

struct half {
    const struct workload *w;
    struct meeting *meeting;
    int side; /* 0: starts, on core 0 */
    struct shmps *bus;
    struct shmps_publisher *pub;
    struct shmps_subscriber *sub;
    int epoll;
    uint64_t lost;
    uint64_t buffer[BATCH][4];
};

static bool went_wrong(const char *what, int result) {
    if (result < 0)
        fail("%s: %s", what, shmps_error_detail());
    else
        fail("%s: unexpectedly %s", what, shmps_error_name(result));
    return false;
}

/* ---- one message */

static inline bool send_loan(struct half *h, uint64_t i) {
    void *room;
    int r = shmps_loan(h->pub, h->w->bytes, SHMPS_FOREVER, &room);
    if (r != 0)
        return went_wrong("loan", r);
    memcpy(room, &i, sizeof i);
    memcpy((char *)room + h->w->bytes - sizeof i, &i, sizeof i);
    r = shmps_publish_loan(h->pub, h->w->bytes, i);
    return r == 0 || went_wrong("publish loan", r);
}

static inline bool send_copy(struct half *h, uint64_t i) {
    h->buffer[0][0] = i;
    int r = shmps_publish(h->pub, h->buffer[0], h->w->bytes, i, SHMPS_FOREVER);
    return r == 0 || went_wrong("publish", r);
}

static inline bool send(struct half *h, uint64_t i) {
    bool loan = h->w->transfer == BY_LOAN || h->w->transfer == BY_LOAN_TOUCHED;
    return loan ? send_loan(h, i) : send_copy(h, i);
}

static int take_by_epoll(struct half *h, struct shmps_sample *sample) {
    int r;
    while ((r = shmps_take(h->sub, sample, 0)) == SHMPS_EMPTY) {
        struct epoll_event event;
        if (epoll_wait(h->epoll, &event, 1, -1) < 0 && errno != EINTR)
            return SHMPS_E_SYSTEM;
    }
    return r;
}

static inline bool ends_meet(const struct shmps_sample *sample) {
    uint64_t first, last;
    memcpy(&first, sample->data, sizeof first);
    memcpy(&last, (const char *)sample->data + sample->bytes - sizeof last, sizeof last);
    return first == sample->tag && last == sample->tag;
}

/* Receive message i. */
static inline bool receive(struct half *h, uint64_t i) {
    struct shmps_sample sample;
    int r;
    if (h->w->transfer == BY_READ)
        r = shmps_read(h->sub, h->buffer[1], sizeof h->buffer[1], &sample, SHMPS_FOREVER);
    else
        r = h->w->epoll ? take_by_epoll(h, &sample) : shmps_take(h->sub, &sample, SHMPS_FOREVER);
    if (r != 0)
        return went_wrong("receive", r);
    if (sample.tag != i) {
        fail("message %" PRIu64 " came instead of %" PRIu64, sample.tag, i);
        return false;
    }
    if (h->w->transfer == BY_READ)
        return true;
    if (h->w->transfer == BY_LOAN_TOUCHED && !ends_meet(&sample)) {
        fail("message %" PRIu64 " is not what was sent", i);
        return false;
    }
    r = shmps_release(h->sub, &sample);
    return r == 0 || went_wrong("release", r);
}

/* ---- ping-pong */

static bool ping_pong(struct half *h, uint32_t first, uint32_t n, double *ret_each) {
    if (h->side == 1) {
        for (uint32_t i = first; i < first + n; i++)
            if (!receive(h, i) || !send(h, i))
                return false;
        return true;
    }
    for (uint32_t i = first; i < first + n; i++) {
        double t = ret_each ? now_ns() : 0;
        if (!send(h, i) || !receive(h, i))
            return false;
        if (ret_each)
            ret_each[i - first] = now_ns() - t;
    }
    return true;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool run_ping_pong(struct half *h) {
    uint32_t n = h->w->messages, warm = n / 10;
    struct outcome *o = &h->meeting->outcome;
    double *each = h->w->each && h->side == 0 ? h->meeting->round_trip_ns : NULL;
    if (!ping_pong(h, 0, warm, NULL))
        return false;
    double start = now_ns();
    if (!ping_pong(h, warm, n, each))
        return false;
    if (h->side != 0)
        return true;
    o->value = (now_ns() - start) / n / 2;
    if (each) {
        qsort(each, n, sizeof *each, compare);
        o->value = each[n / 2] / 2;
        o->p99 = each[n - n / 100 - 1] / 2;
    }
    return true;
}

/* ---- stream */

static bool send_batch(struct half *h, uint64_t first) {
    struct shmps_message messages[BATCH];
    for (uint64_t k = 0; k < BATCH; k++) {
        h->buffer[k][0] = first + k;
        messages[k] = (struct shmps_message){ h->buffer[k], h->w->bytes, first + k };
    }
    size_t done;
    int r = shmps_publish_batch(h->pub, messages, BATCH, SHMPS_EXACTLY, SHMPS_FOREVER, &done);
    return r == 0 || went_wrong("publish batch", r);
}

static bool send_stream(struct half *h, uint32_t n) {
    if (h->w->transfer == BY_BATCH) {
        for (uint32_t i = 0; i < n; i += BATCH)
            if (!send_batch(h, i))
                return false;
        return true;
    }
    for (uint32_t i = 0; i < n; i++)
        if (!send(h, i))
            return false;
    return true;
}

/* A sample came: its number must follow, after what was counted as lost. */
static bool in_order(struct half *h, const struct shmps_sample *sample, uint64_t *next) {
    *next += sample->lost;
    h->lost += sample->lost;
    if (sample->tag == (*next)++)
        return true;
    fail("message %" PRIu64 " came instead of %" PRIu64, sample->tag, *next - 1);
    return false;
}

static bool receive_batches(struct half *h, uint32_t n) {
    struct shmps_sample samples[BATCH];
    for (uint64_t next = 0; next < n;) {
        size_t done;
        int r = shmps_take_batch(h->sub, samples, BATCH, SHMPS_UP_TO, SHMPS_FOREVER, &done);
        if (r != 0)
            return went_wrong("take batch", r);
        for (size_t k = 0; k < done; k++)
            if (!in_order(h, &samples[k], &next))
                return false;
        r = shmps_release_batch(h->sub, samples, done);
        if (r != 0)
            return went_wrong("release batch", r);
    }
    return true;
}

static bool receive_stream(struct half *h, uint32_t n) {
    struct shmps_sample sample;
    bool by_read = h->w->transfer == BY_READ;
    for (uint64_t next = 0; next < n;) {
        int r = by_read ? shmps_read(h->sub, h->buffer, sizeof h->buffer, &sample, SHMPS_FOREVER)
                        : shmps_take(h->sub, &sample, SHMPS_FOREVER);
        if (r != 0)
            return went_wrong("receive", r);
        if (!in_order(h, &sample, &next))
            return false;
        if (!by_read && (r = shmps_release(h->sub, &sample)) != 0)
            return went_wrong("release", r);
    }
    return true;
}

static bool run_stream(struct half *h) {
    uint32_t n = h->w->messages;
    if (h->side == 0) {
        h->meeting->start_ns = now_ns();
        return send_stream(h, n);
    }
    bool by_batch = h->w->transfer == BY_BATCH;
    if (by_batch ? !receive_batches(h, n) : !receive_stream(h, n))
        return false;
    h->meeting->end_ns = now_ns();
    h->meeting->outcome.lost = h->lost;
    return true;
}

/* ---- the two processes */

static bool open_publisher(struct half *h, const char *topic) {
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    options.depth = h->w->depth;
    options.message_bytes = h->w->bytes;
    options.timestamps = h->w->timestamps ? SHMPS_TIMESTAMPS_ON : SHMPS_TIMESTAMPS_OFF;
    options.wait = h->w->wait;
    int r = shmps_publisher_open(h->bus, topic, &options, &h->pub);
    return r == 0 || went_wrong(topic, r);
}

static bool open_subscriber(struct half *h, const char *topic) {
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    options.delivery = h->w->delivery;
    options.wait = h->w->wait;
    int r = shmps_subscriber_open(h->bus, topic, &options, &h->sub);
    if (r != 0 || !h->w->epoll)
        return r == 0 || went_wrong(topic, r);
    struct epoll_event event = { .events = EPOLLIN };
    h->epoll = epoll_create1(EPOLL_CLOEXEC);
    int fd = shmps_subscriber_fd(h->sub);
    if (fd < 0)
        return went_wrong("descriptor", fd);
    return h->epoll >= 0 && epoll_ctl(h->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static void run_half(const struct workload *w, struct meeting *meeting, int side) {
    static const char *const topics[] = { "bench/stream", "bench/answer" }; /* of side 0, 1 */
    struct half h = { .w = w, .meeting = meeting, .side = side, .epoll = -1 };
    alarm(PATIENCE_S);
    bool good = pin_to(side);
    int r = good ? shmps_connect(&h.bus, NULL) : 0;
    good = good && (r == 0 || went_wrong("connect", r));
    if (!w->one_way || side == 0)
        good = good && open_publisher(&h, topics[side]);
    if (!w->one_way || side == 1)
        good = good && open_subscriber(&h, topics[!side]);
    sem_post(&meeting->arrived[!side]); /* also after a failure: nobody waits for ever */
    while (sem_wait(&meeting->arrived[side]) < 0) {
    }
    good = good && (w->one_way ? run_stream(&h) : run_ping_pong(&h));
    /* Nobody leaves before both have received everything. */
    sem_post(&meeting->arrived[!side]);
    while (sem_wait(&meeting->arrived[side]) < 0) {
    }
    shmps_subscriber_close(h.sub);
    shmps_publisher_close(h.pub);
    shmps_close(h.bus);
    _exit(good ? 0 : 1);
}

/* Wait for both; when one fails, the other is of no use. */
static bool join(const pid_t half[2]) {
    bool good = true;
    for (int left = 2; left > 0;) {
        int status;
        pid_t pid = wait(&status);
        if (pid < 0 && errno != EINTR)
            return false;
        if (pid != half[0] && pid != half[1])
            continue;
        left--;
        if (status == 0)
            continue;
        if (WIFSIGNALED(status) && good)
            fail("one half ended by signal %d%s", WTERMSIG(status),
                 WTERMSIG(status) == SIGALRM ? ": it took too long" : "");
        good = false;
        if (left > 0)
            kill(pid == half[0] ? half[1] : half[0], SIGKILL);
    }
    return good;
}

bool pair_measure(const struct workload *w, struct outcome *ret) {
    size_t bytes = sizeof(struct meeting) + (w->each ? w->messages * sizeof(double) : 0);
    struct meeting *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (m == MAP_FAILED) {
        fail("no memory: %s", strerror(errno));
        return false;
    }
    sem_init(&m->arrived[0], 1, 0);
    sem_init(&m->arrived[1], 1, 0);
    fflush(NULL);
    pid_t half[2];
    for (int side = 0; side < 2; side++) {
        half[side] = fork();
        if (half[side] == 0)
            run_half(w, m, side);
    }
    bool good = half[0] > 0 && half[1] > 0 && join(half);
    if (w->one_way && good)
        m->outcome.value = w->messages * 1e3 / (m->end_ns - m->start_ns);
    *ret = m->outcome;
    munmap(m, bytes);
    return good;
}
