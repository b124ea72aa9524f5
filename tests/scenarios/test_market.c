/* docs/scenarios/market.md: 300 strategies on one feed of 20 topics. One of them is stopped, some
 * are killed and come again: nobody else notices, and everybody's counts add up. */
#include "scenario.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define TOPICS 20
#define STRATEGIES 300
#define ROUNDS 15  /* in each of them one strategy is killed and started again; in one more none */
#define QUOTES 6   /* of each topic in a round */
#define QUOTES_ALL ((uint64_t)(ROUNDS + 1) * QUOTES)
#define DEPTH 32
#define STOPPED 0  /* a lossy one */
#define QUOTE_BYTES 64

/* What the feed has published of each topic. */
static _Atomic uint64_t *published;

/* 300 of them come at once, to a machine that may have other work. */
static const struct shmps_connect_options patient = {
    .size = sizeof(patient), .timeout_ns = SCENARIO_S * INT64_C(1000000000)
};

/* Every third strategy settles what was traded in Frankfurt, and must not miss anything. */
static const struct kind {
    const char *filter;
    int delivery;
} kinds[] = {
    { "market/#", SHMPS_LOSSY },
    { "market/#", SHMPS_LOSSY },
    { "market/frankfurt/+", SHMPS_RELIABLE },
};

static void name_topic(int t, char ret[64]) {
    static const char *const exchanges[] = { "frankfurt", "london", "paris", "zurich" };
    snprintf(ret, 64, "market/%s/%d", exchanges[t % 4], t / 4);
}

/* How many topics, and so how many of QUOTES_ALL quotes, are of a strategy. */
static uint64_t topics_of(const struct kind *kind) {
    uint64_t n = 0;
    for (int t = 0; t < TOPICS; t++) {
        char topic[64];
        name_topic(t, topic);
        n += shmps_filter_matches(kind->filter, topic) != 0;
    }
    return n;
}

/* ---- the feed: as many quotes of each topic as it is told, until told 0 */

static void feed(int socket, const void *argument, struct report *report) {
    struct shmps *bus;
    struct shmps_publisher *pubs[TOPICS];
    (void)argument;
    MUST_OK(report, shmps_connect(&bus, NULL));
    for (int t = 0; t < TOPICS; t++) {
        struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
        char topic[64];
        options.depth = DEPTH;
        options.message_bytes = QUOTE_BYTES;
        name_topic(t, topic);
        MUST_OK(report, shmps_publisher_open(bus, topic, &options, &pubs[t]));
    }
    role_say(socket, report);
    for (int64_t n; (n = role_listen(socket)) != 0; role_say(socket, report))
        for (; n > 0; n--)
            for (int t = 0; t < TOPICS; t++) {
                uint64_t number = atomic_load(&published[t]);
                MUST_OK(report, message_publish(pubs[t], (uint32_t)t, number, QUOTE_BYTES,
                                                SHMPS_FOREVER));
                atomic_store(&published[t], number + 1);
            }
    for (int t = 0; t < TOPICS; t++) {
        struct shmps_publisher_stats stats = SHMPS_PUBLISHER_STATS_INIT;
        MUST_OK(report, shmps_publisher_stats(pubs[t], &stats));
        MUST(report, stats.evictions == 0);
        report->values[0] += (int64_t)stats.messages;
    }
    shmps_close(bus);
}

/* ---- a strategy: takes all there is until the close of the market */

struct book {
    uint64_t next[TOPICS], before[TOPICS], after[TOPICS];
    bool begun[TOPICS];
    uint64_t received, lost, due;
    unsigned closed; /* topics */
};

/* It begins with what was published after its open returned, if not before. */
static void take_quote(struct book *book, const struct shmps_sample *s, struct report *report) {
    const struct message *m = s->data;
    uint32_t t = m->publisher;
    MUST(report, t < TOPICS && sample_is(s, t, s->seq) && s->seq < QUOTES_ALL);
    if (!book->begun[t]) {
        book->next[t] = s->seq - s->lost;
        MUST(report, book->next[t] >= book->before[t]);
        MUST(report, book->next[t] <= book->after[t]);
        book->due += QUOTES_ALL - book->next[t];
        book->begun[t] = true;
    }
    MUST(report, s->seq == book->next[t] + s->lost);
    book->next[t] = s->seq + 1;
    book->received++;
    book->lost += s->lost;
    book->closed += book->next[t] == QUOTES_ALL;
}

static void strategy(int socket, const void *argument, struct report *report) {
    static struct book book;
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    struct shmps_subscriber_stats stats = SHMPS_SUBSCRIBER_STATS_INIT;
    struct shmps *bus;
    struct shmps_subscriber *sub;
    const struct kind *kind = argument;
    options.delivery = kind->delivery;
    MUST_OK(report, shmps_connect(&bus, &patient));
    for (int t = 0; t < TOPICS; t++)
        book.before[t] = atomic_load(&published[t]);
    MUST_OK(report, shmps_subscriber_open(bus, kind->filter, &options, &sub));
    for (int t = 0; t < TOPICS; t++) /* and the one that is published just now, as yet uncounted */
        book.after[t] = atomic_load(&published[t]) + 1;
    role_say(socket, report);
    role_listen(socket); /* the market opens */
    while (book.closed < topics_of(kind)) {
        struct shmps_sample s;
        MUST_OK(report, shmps_take(sub, &s, SHMPS_FOREVER));
        take_quote(&book, &s, report);
        if (report->trouble[0])
            return;
        MUST_OK(report, shmps_release(sub, &s));
    }
    MUST_OK(report, shmps_subscriber_stats(sub, &stats));
    MUST(report, stats.received == book.received && stats.lost == book.lost);
    MUST(report, book.received + book.lost == book.due);
    MUST(report, options.delivery != SHMPS_RELIABLE || book.lost == 0);
    report->values[0] = (int64_t)book.received;
    report->values[1] = (int64_t)book.lost;
    shmps_close(bus);
}

/* ---- the market */

static struct child strategies[STRATEGIES];
static bool restarted[STRATEGIES];

static void strategy_start(int i) {
    child_start(&strategies[i], strategy, &kinds[i % 3]);
}

/* A trading day: in each round, while the feed goes on, one strategy dies and comes again. */
static uint64_t trade(const struct child *feeding, uint64_t random) {
    uint64_t most = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int victim = 1 + (int)draw(&random, STRATEGIES - 1);
        child_tell(feeding, QUOTES);
        child_kill(&strategies[victim]);
        strategy_start(victim);
        restarted[victim] = true;
        child_hear(&strategies[victim]);
        child_tell(&strategies[victim], 1);
        child_hear(feeding);
        uint64_t bytes = bytes_in_use();
        most = bytes > most ? bytes : most;
    }
    child_tell(feeding, QUOTES); /* who came last sees the close too */
    child_hear(feeding);
    return most;
}

static void expect_the_stopped_one_is_named(void) {
    char words[128];
    const char *told = shmps_says("doctor");
    snprintf(words, sizeof(words), "subscriber %d (test_market) is stopped, %d messages behind",
             (int)strategies[STOPPED].pid, (int)QUOTES_ALL);
    const char *found = strstr(told, words);
    assert_non_null(found);
    assert_null(strstr(found + 1, words)); /* once, not for each topic */
    assert_non_null(strstr(found, "in 19 more topics: it loses messages; mend: kill -CONT"));
}

static void close_of_the_market(void) {
    uint64_t reliable = 0, lossy = 0, lost = 0;
    for (int i = 0; i < STRATEGIES; i++) {
        if (i == STOPPED)
            continue;
        struct report report = child_end(&strategies[i]);
        uint64_t sum = (uint64_t)(report.values[0] + report.values[1]);
        if (restarted[i])
            assert_true(sum <= topics_of(&kinds[i % 3]) * QUOTES_ALL);
        else
            assert_int_equal(sum, topics_of(&kinds[i % 3]) * QUOTES_ALL);
        *(i % 3 == 2 ? &reliable : &lossy) += (uint64_t)report.values[0];
        lost += (uint64_t)report.values[1];
    }
    print_message("# reliable ones received %llu, lossy ones %llu and lost %llu\n",
                  (unsigned long long)reliable, (unsigned long long)lossy,
                  (unsigned long long)lost);
}

static void test_300_strategies_on_one_feed(void **state) {
    struct child feeding;
    uint64_t random = test_seed();
    (void)state;
    alarm(SCENARIO_S);
    published = shared_zeroes(TOPICS * sizeof(*published));
    child_start(&feeding, feed, NULL);
    child_hear(&feeding);
    for (int i = 0; i < STRATEGIES; i++)
        strategy_start(i);
    for (int i = 0; i < STRATEGIES; i++)
        child_hear(&strategies[i]);
    unsigned rings = count_segments("r");
    assert_int_equal(rings, TOPICS);
    uint64_t before = bytes_in_use();
    child_stop(&strategies[STOPPED]);
    for (int i = 0; i < STRATEGIES; i++)
        child_tell(&strategies[i], 1);

    uint64_t most = trade(&feeding, random);
    expect_the_stopped_one_is_named();
    shmps_says("ls");
    close_of_the_market();

    /* The stopped one has missed all but what the rings still have. */
    kill(strategies[STOPPED].pid, SIGCONT);
    struct report report = child_end(&strategies[STOPPED]);
    assert_int_equal(report.values[0] + report.values[1], TOPICS * QUOTES_ALL);
    assert_true(report.values[0] <= TOPICS * DEPTH);
    child_tell(&feeding, 0);
    assert_int_equal(child_end(&feeding).values[0], TOPICS * QUOTES_ALL);

    print_message("# %llu bytes before the first quote, at most %llu later\n",
                  (unsigned long long)before, (unsigned long long)most);
    assert_true(most <= before + TOPICS * 4096);
    munmap(published, TOPICS * sizeof(*published));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(test_300_strategies_on_one_feed),
    };
    return cmocka_run_group_tests_name("market", tests, NULL, NULL);
}
