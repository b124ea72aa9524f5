/* Publishers and subscribers as processes of their own: every delivery, 1 to 8 of each side, and
 * what each of them must have received. */
#include "../harness.h"

#include <stdlib.h>

#define PEERS_MAX 8
#define MESSAGES 60u /* of each publisher */

struct crowd {
    char topic[64];
    int delivery;
    uint32_t publishers, subscribers;
    uint32_t index;    /* of this one */
    uint32_t depth;
};

static size_t size_of(uint32_t publisher, uint64_t number) {
    uint64_t state = number * 31 + publisher;
    return MESSAGE_BYTES_MIN + draw(&state, number % 4 == 0 ? 8 : 1500);
}

/* ---- the two roles */

static void publish_all(int socket, const void *argument, struct report *report) {
    const struct crowd *crowd = argument;
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    struct shmps *bus;
    struct shmps_publisher *pub;
    options.depth = crowd->depth;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, crowd->topic, &options, &pub));
    MUST_OK(report, shmps_publisher_wait_subscribers(pub, crowd->subscribers, SHMPS_FOREVER));
    for (uint64_t i = 0; i < MESSAGES; i++)
        MUST_OK(report, message_publish(pub, crowd->index, i, size_of(crowd->index, i),
                                        SHMPS_FOREVER));
    role_say(socket, report);
    role_listen(socket); /* stay until all have been served */
    shmps_publisher_close(pub);
    shmps_close(bus);
}

/* What has come from one publisher so far. */
struct source {
    uint64_t id, next;
};

static void count_sample(const struct crowd *crowd, const struct shmps_sample *s,
                         struct source *sources, struct report *report) {
    const struct message *m = s->data;
    MUST(report, message_valid(m, s->bytes));
    MUST(report, m->publisher < crowd->publishers);
    struct source *from = &sources[m->publisher];
    MUST(report, from->next == 0 || from->id == s->publisher);
    MUST(report, sample_is(s, m->publisher, m->number));
    MUST(report, s->bytes == size_of(m->publisher, m->number));
    MUST(report, s->time_ns != 0);
    MUST(report, s->flags == 0 || (crowd->delivery == SHMPS_OBSERVE &&
                                   s->flags == SHMPS_SAMPLE_COPIED));
    MUST(report, strcmp(s->topic, crowd->topic) == 0);
    if (crowd->delivery == SHMPS_LATEST)
        MUST(report, m->number >= from->next && s->lost == 0);
    else
        MUST(report, m->number == from->next + s->lost);
    *from = (struct source){ s->publisher, m->number + 1 };
}

static void receive_all(int socket, const void *argument, struct report *report) {
    const struct crowd *crowd = argument;
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct source sources[PEERS_MAX] = { { 0, 0 } };
    struct shmps *bus;
    struct shmps_subscriber *sub;
    uint32_t complete = 0;
    options.delivery = crowd->delivery;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_subscriber_open(bus, crowd->topic, &options, &sub));
    role_say(socket, report);
    while (complete < crowd->publishers) {
        struct shmps_sample s;
        MUST_OK(report, shmps_take(sub, &s, SHMPS_FOREVER));
        count_sample(crowd, &s, sources, report);
        if (report->trouble[0] != '\0')
            return;
        report->values[0]++;
        report->values[1] += (int64_t)s.lost;
        complete += s.seq == MESSAGES - 1; /* the last one is never overtaken */
        MUST_OK(report, shmps_release(sub, &s));
    }
    struct shmps_subscriber_stats stats = { .size = sizeof(stats) };
    MUST_OK(report, shmps_subscriber_stats(sub, &stats));
    MUST(report, (int64_t)stats.received == report->values[0]);
    MUST(report, (int64_t)stats.lost == report->values[1]);
    shmps_subscriber_close(sub);
    shmps_close(bus);
}

/* ---- every crowd */

static void run_crowd(const struct crowd *like) {
    struct crowd crowds[2][PEERS_MAX];
    struct child publishers[PEERS_MAX], subscribers[PEERS_MAX];
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        crowds[0][i] = crowds[1][i] = *like;
        crowds[0][i].index = crowds[1][i].index = i;
    }
    for (uint32_t i = 0; i < like->subscribers; i++)
        child_start(&subscribers[i], receive_all, &crowds[0][i]);
    for (uint32_t i = 0; i < like->publishers; i++)
        child_start(&publishers[i], publish_all, &crowds[1][i]);
    for (uint32_t i = 0; i < like->subscribers; i++)
        child_hear(&subscribers[i]);
    for (uint32_t i = 0; i < like->subscribers; i++) {
        struct report r = child_end(&subscribers[i]);
        int64_t all = (int64_t)like->publishers * MESSAGES;
        if (like->delivery != SHMPS_LATEST)
            assert_int_equal(r.values[0] + r.values[1], all);
        if (like->delivery == SHMPS_RELIABLE)
            assert_int_equal(r.values[0], all);
    }
    for (uint32_t i = 0; i < like->publishers; i++) {
        child_hear(&publishers[i]);
        child_tell(&publishers[i], 0);
        child_end(&publishers[i]);
    }
}

static void run_all_crowds(int delivery, uint32_t depth) {
    struct crowd crowd = { .delivery = delivery, .depth = depth };
    for (crowd.publishers = 1; crowd.publishers <= PEERS_MAX; crowd.publishers++)
        for (crowd.subscribers = 1; crowd.subscribers <= PEERS_MAX; crowd.subscribers++) {
            snprintf(crowd.topic, sizeof(crowd.topic), "crowd/%u/%u", crowd.publishers,
                     crowd.subscribers);
            run_crowd(&crowd);
        }
}

static void test_reliable_crowds(void **state) {
    (void)state;
    run_all_crowds(SHMPS_RELIABLE, 8);
}
static void test_lossy_crowds(void **state) {
    (void)state;
    run_all_crowds(SHMPS_LOSSY, 4);
}
static void test_latest_crowds(void **state) {
    (void)state;
    run_all_crowds(SHMPS_LATEST, 4);
}

/* Each way to receive beside the others on one topic: nobody notices the others. */
static void test_all_deliveries_at_once(void **state) {
    (void)state;
    struct crowd crowds[6], from = { .publishers = 2, .subscribers = 5, .depth = 8 };
    struct child publishers[2], subscribers[6];
    const int deliveries[6] = { SHMPS_RELIABLE, SHMPS_LOSSY, SHMPS_LATEST, SHMPS_RELIABLE,
                                SHMPS_LOSSY, SHMPS_OBSERVE };
    snprintf(from.topic, sizeof(from.topic), "mixed");
    for (uint32_t i = 0; i < 6; i++) {
        crowds[i] = from;
        crowds[i].delivery = deliveries[i];
        child_start(&subscribers[i], receive_all, &crowds[i]);
        child_hear(&subscribers[i]);
    }
    for (uint32_t i = 0; i < 2; i++) {
        struct crowd *crowd = malloc(sizeof(*crowd));
        *crowd = from;
        crowd->index = i;
        child_start(&publishers[i], publish_all, crowd);
        free(crowd); /* the child has a copy */
    }
    for (uint32_t i = 0; i < 6; i++) {
        struct report r = child_end(&subscribers[i]);
        if (deliveries[i] == SHMPS_RELIABLE)
            assert_int_equal(r.values[0], 2 * MESSAGES);
        else if (deliveries[i] != SHMPS_LATEST)
            assert_int_equal(r.values[0] + r.values[1], 2 * MESSAGES);
    }
    for (uint32_t i = 0; i < 2; i++) {
        child_hear(&publishers[i]);
        child_tell(&publishers[i], 0);
        child_end(&publishers[i]);
    }
}

/* ---- who leaves at once after publishing */

static void publish_and_leave(int socket, const void *argument, struct report *report) {
    struct shmps *bus;
    struct shmps_publisher *pub;
    (void)socket;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, argument, NULL, &pub));
    for (uint64_t i = 0; i < 5; i++)
        MUST_OK(report, message_publish(pub, 7, i, 30 + 400 * i, 0));
    shmps_publisher_close(pub);
    shmps_close(bus);
}

static void test_nothing_is_lost_when_the_publisher_leaves(void **state) {
    const int deliveries[] = { SHMPS_RELIABLE, SHMPS_LOSSY, SHMPS_LATEST };
    (void)state;
    struct shmps *bus = connected();
    for (size_t i = 0; i < 3; i++) {
        struct shmps_subscriber *sub = subscriber_on(bus, "brief/#", deliveries[i]);
        struct child child;
        struct shmps_sample s;
        child_start(&child, publish_and_leave, "brief/one");
        child_end(&child);
        for (uint64_t n = deliveries[i] == SHMPS_LATEST ? 4 : 0; n < 5; n++) {
            assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
            assert_true(sample_is(&s, 7, n));
            assert_int_equal(s.lost, 0);
            assert_ok(shmps_release(sub, &s));
        }
        assert_result(shmps_take(sub, &s, 0), SHMPS_EMPTY);
        shmps_subscriber_close(sub);
    }
    shmps_close(bus);
}

/* ---- filters: topics that appear later */

static void publish_on_new_topics(int socket, const void *argument, struct report *report) {
    const struct crowd *crowd = argument;
    struct shmps *bus;
    char topic[64];
    (void)socket;
    MUST_OK(report, shmps_connect(&bus, NULL));
    for (uint32_t i = 0; i < 10; i++) {
        struct shmps_publisher *pub;
        snprintf(topic, sizeof(topic), "plant/%u/%s", 10 * crowd->index + i,
                 i % 2 == 0 ? "temperature" : "pressure");
        MUST_OK(report, shmps_publisher_open(bus, topic, NULL, &pub));
        for (uint64_t n = 0; n < 5; n++)
            MUST_OK(report, message_publish(pub, 10 * crowd->index + i, n, 100, SHMPS_FOREVER));
        shmps_publisher_close(pub);
    }
    shmps_close(bus);
}

static void test_filters_miss_nothing_of_later_topics(void **state) {
    (void)state;
    const struct {
        const char *filter;
        uint32_t topics;
    } cases[] = { { "plant/#", 40 }, { "plant/+/temperature", 20 }, { "+/+/pressure", 20 },
                  { "plant/7/+", 1 }, { "#", 40 }, { "plant/+", 0 }, { "plant/3/pressure", 1 } };
    struct shmps *bus = connected();
    struct shmps_subscriber *subs[7];
    struct child children[4];
    struct crowd crowds[4];
    for (size_t i = 0; i < 7; i++)
        subs[i] = subscriber_on(bus, cases[i].filter, i % 2 == 0 ? SHMPS_RELIABLE : SHMPS_LOSSY);
    for (uint32_t i = 0; i < 4; i++) {
        crowds[i].index = i;
        child_start(&children[i], publish_on_new_topics, &crowds[i]);
    }
    for (size_t i = 0; i < 7; i++) {
        uint64_t next[40] = { 0 };
        struct shmps_sample s;
        for (uint32_t n = 0; n < 5 * cases[i].topics; n++) {
            assert_ok(shmps_take(subs[i], &s, SHMPS_FOREVER));
            uint32_t from = ((const struct message *)s.data)->publisher;
            assert_true(from < 40 && shmps_filter_matches(cases[i].filter, s.topic));
            assert_true(sample_is(&s, from, next[from]++)); /* from the first one on */
            assert_int_equal(s.lost, 0);
            assert_ok(shmps_release(subs[i], &s));
        }
    }
    for (uint32_t i = 0; i < 4; i++)
        child_end(&children[i]);
    for (size_t i = 0; i < 7; i++) {
        struct shmps_sample s;
        assert_result(shmps_take(subs[i], &s, 0), SHMPS_EMPTY);
        shmps_subscriber_close(subs[i]);
    }
    shmps_close(bus);
}

/* Nothing that is published after open has returned is missed, however the two come together. */
static void publish_on_demand(int socket, const void *argument, struct report *report) {
    struct shmps *bus;
    struct shmps_publisher *pub;
    MUST_OK(report, shmps_connect(&bus, NULL));
    MUST_OK(report, shmps_publisher_open(bus, argument, NULL, &pub));
    role_say(socket, report);
    for (uint64_t i = 0; role_listen(socket) != 0; i++) {
        MUST_OK(report, message_publish(pub, 1, i, 60, 0));
        role_say(socket, report);
    }
    shmps_publisher_close(pub);
    shmps_close(bus);
}

static void test_nothing_after_open_is_missed(void **state) {
    const int deliveries[] = { SHMPS_RELIABLE, SHMPS_LOSSY, SHMPS_LATEST };
    (void)state;
    struct shmps *bus = connected();
    struct child child;
    child_start(&child, publish_on_demand, "now");
    child_hear(&child);
    for (uint64_t i = 0; i < 150; i++) {
        struct shmps_subscriber *sub = subscriber_on(bus, i % 2 == 0 ? "now" : "#",
                                                     deliveries[i % 3]);
        struct shmps_sample s;
        child_tell(&child, 1);
        child_hear(&child);
        assert_ok(shmps_take(sub, &s, SHMPS_FOREVER));
        assert_true(sample_is(&s, 1, i)); /* that one, and none before it */
        assert_ok(shmps_release(sub, &s));
        shmps_subscriber_close(sub);
    }
    child_tell(&child, 0);
    child_end(&child);
    shmps_close(bus);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_reliable_crowds),
        WITH_DAEMON(test_lossy_crowds),
        WITH_DAEMON(test_latest_crowds),
        WITH_DAEMON(test_all_deliveries_at_once),
        WITH_DAEMON(test_nothing_is_lost_when_the_publisher_leaves),
        WITH_DAEMON(test_filters_miss_nothing_of_later_topics),
        WITH_DAEMON(test_nothing_after_open_is_missed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
