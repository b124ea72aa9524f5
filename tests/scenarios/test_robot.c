/* docs/scenarios/robot.md: two cameras of 8 MB frames at 30 Hz, 32 joints at 1 kHz, a viewer that
 * may lose frames, a logger that may not, a planner that crashes with frames in its hands. */
#include "scenario.h"

#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define CAMERAS 2
#define JOINTS 32
#define FRAME_BYTES UINT64_C(8000000)
#define FRAME_NS 33333333
#define JOINT_NS 1000000
#define LEGS 8         /* of the walk; in each of them a planner crashes, but in the last */
#define LEG_FRAMES 12  /* of each camera in a leg, */
#define LEG_ANGLES 400 /* of each joint in the same time */
#define FRAMES ((uint64_t)LEGS * LEG_FRAMES)
#define ANGLES ((uint64_t)LEGS * LEG_ANGLES)
#define DEPTH 2
#define SHOWN_EACH 3   /* the viewer's screen is slower than the cameras */
#define PLANNER_PINS 2
#define SPACE_NEEDED (UINT64_C(200) << 20)
#define ROBOT_OFF 1000 /* a publisher, as JOINT and PLAN */
#define JOINT 10
#define PLAN 100

/* No room for the pins of one planner more: what a dead one held must come back. */
static const char configuration[] =
    "topic \"camera/+\" { depth = 2  message_size = 8000000  pins = 4  max_bytes = 56MiB }\n"
    "topic \"joint/+\"  { depth = 256  message_size = 64 }\n";

static struct robot {
    sem_t shown;            /* posted by camera 0 after each SHOWN_EACH frames */
    _Atomic uint64_t plans; /* published by all planners */
} *robot;

/* ---- frames: a word of its own in each cache line */

static uint64_t frame_word(uint64_t camera, uint64_t number, uint64_t line) {
    return (camera << 56 ^ number << 32 ^ line) * UINT64_C(0x9e3779b97f4a7c15);
}

static void frame_fill(uint64_t *frame, uint64_t camera, uint64_t number) {
    frame[1] = camera;
    for (uint64_t line = 0; line < FRAME_BYTES / 64; line++)
        frame[line * 8] = frame_word(camera, number, line);
}

static bool frame_is(const struct shmps_sample *s, uint64_t camera, uint64_t number) {
    const uint64_t *frame = s->data;
    if (s->bytes != FRAME_BYTES || s->seq != number || frame[1] != camera)
        return false;
    for (uint64_t line = 0; line < FRAME_BYTES / 64; line++)
        if (frame[line * 8] != frame_word(camera, number, line))
            return false;
    return true;
}

static uint64_t camera_of(const struct shmps_sample *s) {
    return s->bytes == FRAME_BYTES ? ((const uint64_t *)s->data)[1] : CAMERAS;
}

/* ---- the senses: as much as they are told, until told 0 */

/* If it is late it does not wait. */
static void pace(const struct timespec *since, uint64_t n, uint64_t interval_ns) {
    uint64_t ns = (uint64_t)since->tv_nsec + n * interval_ns;
    struct timespec at = { .tv_sec = since->tv_sec + (time_t)(ns / 1000000000),
                           .tv_nsec = (long)(ns % 1000000000) };
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static void camera(int socket, const void *argument, struct report *report) {
    uint64_t which = *(const uint64_t *)argument, number = 0;
    struct shmps *bus;
    struct shmps_publisher *pub;
    struct timespec began;
    void *loan;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, which ? "camera/right" : "camera/left", NULL, &pub));
    role_say(socket, report);
    for (int64_t n; (n = role_listen(socket)) != 0; role_say(socket, report)) {
        clock_gettime(CLOCK_MONOTONIC, &began);
        for (int64_t i = 0; i < n; i++, number++) {
            pace(&began, (uint64_t)i, FRAME_NS);
            MUST_OK(report, shmps_loan(pub, FRAME_BYTES, SHMPS_FOREVER, &loan));
            frame_fill(loan, which, number);
            MUST_OK(report, shmps_publish_loan(pub, FRAME_BYTES, 0));
            if (which == 0 && number % SHOWN_EACH == SHOWN_EACH - 1)
                sem_post(&robot->shown);
        }
    }
    shmps_close(bus);
}

static void joints(int socket, const void *argument, struct report *report) {
    struct shmps *bus;
    struct shmps_publisher *pubs[JOINTS];
    struct timespec began;
    uint64_t number = 0;
    (void)argument;
    MUST_OK(report, shmps_connect(&bus, NULL));
    for (int j = 0; j < JOINTS; j++) {
        char topic[32];
        snprintf(topic, sizeof(topic), "joint/%d", j);
        MUST_OK(report, shmps_publisher_open(bus, topic, NULL, &pubs[j]));
    }
    role_say(socket, report);
    for (int64_t n; (n = role_listen(socket)) != 0; role_say(socket, report)) {
        clock_gettime(CLOCK_MONOTONIC, &began);
        for (int64_t i = 0; i < n; i++, number++) {
            pace(&began, (uint64_t)i, JOINT_NS);
            for (uint32_t j = 0; j < JOINTS; j++)
                MUST_OK(report, message_publish(pubs[j], JOINT + j, number, MESSAGE_BYTES_MIN,
                                                SHMPS_FOREVER));
        }
    }
    shmps_close(bus);
}

/* ---- those who look */

static struct shmps_subscriber *look_at(struct shmps *bus, const char *filter, int delivery,
                                        uint32_t pins) {
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps_subscriber *sub;
    options.delivery = delivery;
    options.pins = pins;
    return shmps_subscriber_open(bus, filter, &options, &sub) == 0 ? sub : NULL;
}

/* Shows a frame until the screen is ready for another one. */
static void viewer(int socket, const void *argument, struct report *report) {
    struct shmps *bus;
    struct shmps_subscriber *sub;
    uint64_t next[CAMERAS] = { 0 };
    (void)argument;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST(report, (sub = look_at(bus, "camera/+", SHMPS_LOSSY, 1)) != NULL);
    role_say(socket, report);
    while (next[0] < FRAMES || next[1] < FRAMES) {
        struct shmps_sample s;
        MUST_OK(report, shmps_take(sub, &s, SHMPS_FOREVER));
        uint64_t c = camera_of(&s);
        MUST(report, c < CAMERAS && s.seq == next[c] + s.lost && frame_is(&s, c, s.seq));
        next[c] = s.seq + 1;
        report->values[c]++;
        report->values[CAMERAS + c] += (int64_t)s.lost;
        while (sem_wait(&robot->shown) != 0) {}
        MUST(report, frame_is(&s, c, s.seq)); /* it has not changed */
        MUST_OK(report, shmps_release(sub, &s));
    }
    shmps_close(bus);
}

struct log {
    uint64_t frames[CAMERAS], angles[JOINTS], plans[LEGS], all_plans;
    bool off;
};

static bool log_complete(const struct log *log) {
    bool complete = log->off && log->all_plans == atomic_load(&robot->plans);
    for (int c = 0; c < CAMERAS; c++)
        complete = complete && log->frames[c] == FRAMES;
    for (int j = 0; j < JOINTS; j++)
        complete = complete && log->angles[j] == ANGLES;
    return complete;
}

/* Each of each sender, in order, and none lost. */
static bool log_sample(struct log *log, const struct shmps_sample *s) {
    const struct message *m = s->data;
    uint64_t c = camera_of(s);
    if (s->lost > 0)
        return false;
    if (c < CAMERAS)
        return frame_is(s, c, log->frames[c]++);
    if (m->publisher >= JOINT && m->publisher < JOINT + JOINTS)
        return sample_is(s, m->publisher, log->angles[m->publisher - JOINT]++);
    if (m->publisher >= PLAN && m->publisher < PLAN + LEGS) {
        log->all_plans++;
        return sample_is(s, m->publisher, log->plans[m->publisher - PLAN]++);
    }
    log->off = m->publisher == ROBOT_OFF;
    return log->off;
}

static void logger(int socket, const void *argument, struct report *report) {
    static struct log log;
    struct shmps *bus;
    struct shmps_subscriber *sub;
    (void)argument;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST(report, (sub = look_at(bus, "#", SHMPS_RELIABLE, 1)) != NULL);
    role_say(socket, report);
    while (!log_complete(&log)) {
        struct shmps_sample s;
        MUST_OK(report, shmps_take(sub, &s, SHMPS_FOREVER));
        MUST(report, log_sample(&log, &s));
        MUST_OK(report, shmps_release(sub, &s));
    }
    report->values[0] = (int64_t)log.all_plans;
    shmps_close(bus);
}

/* Takes two frames and the newest angles, publishes a plan, and says that it holds the frames. If
 * it is told something it has lived. */
static void planner(int socket, const void *argument, struct report *report) {
    struct shmps_subscriber_stats stats = SHMPS_SUBSCRIBER_STATS_INIT;
    struct shmps *bus;
    struct shmps_subscriber *eyes, *body;
    struct shmps_publisher *pub;
    struct shmps_sample frames[PLANNER_PINS], angle;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST(report, (eyes = look_at(bus, "camera/+", SHMPS_LOSSY, PLANNER_PINS)) != NULL);
    MUST(report, (body = look_at(bus, "joint/+", SHMPS_LATEST, 0)) != NULL);
    MUST_OK(report, shmps_publisher_open(bus, "plan", NULL, &pub));
    role_say(socket, report);
    for (int i = 0; i < PLANNER_PINS; i++)
        MUST_OK(report, shmps_take(eyes, &frames[i], SHMPS_FOREVER));
    MUST_OK(report, shmps_take(body, &angle, SHMPS_FOREVER));
    MUST(report, message_valid(angle.data, angle.bytes));
    MUST_OK(report, shmps_release(body, &angle));
    MUST_OK(report, message_publish(pub, *(const uint32_t *)argument, 0, MESSAGE_BYTES_MIN,
                                    SHMPS_FOREVER));
    atomic_fetch_add(&robot->plans, 1);
    MUST_OK(report, shmps_subscriber_stats(eyes, &stats));
    MUST(report, stats.pins == PLANNER_PINS && stats.held == PLANNER_PINS && stats.copied == 0);
    role_say(socket, report);
    role_listen(socket);
    for (int i = 0; i < PLANNER_PINS; i++) {
        MUST(report, frame_is(&frames[i], camera_of(&frames[i]), frames[i].seq));
        MUST_OK(report, shmps_release(eyes, &frames[i]));
    }
    shmps_close(bus);
}

/* ---- the robot */

static struct child senses[CAMERAS + 1], viewing, logging; /* senses: cameras, then all joints */

struct cost {
    unsigned descriptors, segments;
    uint64_t bytes;
};

static struct cost cost_now(void) {
    return (struct cost){ .descriptors = descriptors_of(daemon_pid()),
                          .segments = count_segments(""),
                          .bytes = bytes_in_use() };
}

/* Who is there for the whole walk speaks up before its end only if it is in trouble. */
static void expect_silence(const struct child *child) {
    char byte;
    if (recv(child->socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
        child_hear(child); /* fails */
}

/* pubsubd learns of deaths by itself, and the logger reads what the dead have left. */
static void await_cost(struct cost cost) {
    static const struct timespec nap = { .tv_nsec = 2000000 };
    for (struct cost now; now = cost_now(), now.descriptors != cost.descriptors ||
                                                now.segments != cost.segments ||
                                                now.bytes != cost.bytes;) {
        expect_silence(&viewing);
        expect_silence(&logging);
        nanosleep(&nap, NULL); /* the watchdog ends it */
    }
}

static void start(struct child *child, role play, const void *argument) {
    child_start(child, play, argument);
    child_hear(child);
}

static void senses_tell(int64_t frames, int64_t angles) {
    for (int i = 0; i < CAMERAS; i++)
        child_tell(&senses[i], frames);
    child_tell(&senses[CAMERAS], angles);
}

static void senses_hear(void) {
    for (int i = 0; i <= CAMERAS; i++)
        child_hear(&senses[i]);
}

/* The planner dies with two frames in its hands, at once or after others have passed. */
static void walk(int leg, struct cost without_planner) {
    static uint32_t name;
    struct child planning;
    name = PLAN + (uint32_t)leg;
    start(&planning, planner, &name);
    senses_tell(LEG_FRAMES, LEG_ANGLES);
    child_hear(&planning);
    if (leg == 1) {
        shmps_says("top -b -n 1 -d 0.3 --sort bytes");
        shmps_says("info camera/left");
    }
    if (leg < LEGS - 1 && leg % 2 == 0)
        child_kill(&planning);
    senses_hear();
    if (leg == LEGS - 1) {
        child_tell(&planning, 1);
        child_end(&planning);
    } else if (leg % 2 == 1) {
        child_kill(&planning);
    }
    await_cost(without_planner);
}

static void switch_off(void) {
    struct shmps *bus = connected();
    struct shmps_publisher *off = publisher_on(bus, "off", 0, 0);
    assert_ok(message_publish(off, ROBOT_OFF, 0, MESSAGE_BYTES_MIN, SHMPS_FOREVER));
    shmps_close(bus);
}

static void test_a_robot_whose_planner_crashes(void **state) {
    static const uint64_t which[CAMERAS] = { 0, 1 };
    struct statvfs shm;
    (void)state;
    alarm(SCENARIO_S);
    assert_int_equal(statvfs("/dev/shm", &shm), 0);
    if (shm.f_bavail * (uint64_t)shm.f_frsize < SPACE_NEEDED)
        skip();
    robot = shared_zeroes(sizeof(*robot));
    assert_int_equal(sem_init(&robot->shown, 1, 0), 0);
    daemon_configure(configuration);
    daemon_start();
    struct cost nothing = cost_now();
    for (int i = 0; i < CAMERAS; i++)
        start(&senses[i], camera, &which[i]);
    start(&senses[CAMERAS], joints, NULL);
    start(&viewing, viewer, NULL);
    start(&logging, logger, NULL);

    struct cost without_planner = cost_now();
    for (int leg = 0; leg < LEGS; leg++)
        walk(leg, without_planner);
    for (uint64_t i = 0; i < 2 * FRAMES; i++)
        sem_post(&robot->shown);
    switch_off();

    struct report seen = child_end(&viewing);
    for (int c = 0; c < CAMERAS; c++) {
        print_message("# camera %d: shown %lld, lost %lld of %d\n", c, (long long)seen.values[c],
                      (long long)seen.values[CAMERAS + c], (int)FRAMES);
        assert_int_equal(seen.values[c] + seen.values[CAMERAS + c], FRAMES);
    }
    assert_true(seen.values[0] <= (int64_t)FRAMES / SHOWN_EACH + 1 + DEPTH);
    assert_int_equal(child_end(&logging).values[0], LEGS);
    senses_tell(0, 0);
    for (int i = 0; i <= CAMERAS; i++)
        child_end(&senses[i]);
    await_cost(nothing);
    munmap(robot, sizeof(*robot));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITHOUT_DAEMON(test_a_robot_whose_planner_crashes),
    };
    return cmocka_run_group_tests_name("robot", tests, NULL, NULL);
}
