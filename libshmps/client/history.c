#include "client/client.h"

/* While choosing: a view would begin at `begin`, of what is committed up to `end`. */
struct choice {
    struct ring_view *view;
    uint64_t end, begin;
    uint64_t time; /* of sample begin - 1 */
    bool more;     /* that sample is still there */
};

static void look_back(struct choice *c) {
    c->more = c->begin > c->view->reader.g.start &&
              ring_sample_time(&c->view->reader, c->begin - 1, &c->time);
}

/* The end of history: pubsubd has stored in our entry where the ring ended when it gave us the
 * seat. Whoever saw us there may have published for us since. */
static uint64_t history_end(const struct ring_view *view) {
    uint64_t end = ring_committed_end(view->reader.ring, &view->reader.g);
    if (!view->reader.entry)
        return end;
    /* relaxed: our own entry; pubsubd wrote it before it told us of it */
    uint64_t seated = atomic_load_relaxed(&view->reader.entry->need);
    return seated >= view->reader.g.start ? min_u64(seated, end) : end;
}

static void join_at(struct shmps_subscriber *sub, struct ring_view *view, uint64_t begin,
                    uint64_t end) {
    ring_reader_join(&view->reader, begin);
    view->joined = true;
    view->history_end = end;
    if (view->reader.next < end)
        sub->history = true;
    if (view->reader.next > end && sub->policy == POLICY_LOSSY) { /* a whole lap since */
        view->lost = view->reader.next - end;
        sub->lost += view->lost;
    }
    if (ring_reader_settle(&view->reader))
        wake_space(view);
}

static uint32_t unjoined(struct shmps_subscriber *sub, const struct topic_view *topic,
                         struct choice *choices) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < sub->n_rings; i++) {
        struct ring_view *view = sub->rings[i];
        if (view->topic != topic || view->joined)
            continue;
        if (choices) {
            uint64_t end = history_end(view);
            choices[n] = (struct choice){ .view = view, .end = end, .begin = end };
            look_back(&choices[n]);
        }
        n++;
    }
    return n;
}

int history_join(struct shmps_subscriber *sub, const struct topic_view *topic) {
    uint32_t n = unjoined(sub, topic, NULL);
    if (n == 0)
        return 0;
    _cleanup_free_ struct choice *choices = calloc(n, sizeof *choices);
    if (!choices) /* unjoined views are not read; the next refresh tries again */
        return error_raise(SHMPS_E_NO_MEMORY, "no memory to choose the history of \"%s\"",
                           topic->name);
    unjoined(sub, topic, choices);
    for (uint32_t k = 0; k < topic->history; k++) {
        struct choice *newest = NULL;
        for (uint32_t i = 0; i < n; i++)
            if (choices[i].more && (!newest || choices[i].time > newest->time))
                newest = &choices[i];
        if (!newest)
            break;
        newest->begin--;
        look_back(newest);
    }
    for (uint32_t i = 0; i < n; i++)
        join_at(sub, choices[i].view, choices[i].begin, choices[i].end);
    return 0;
}

/* Read to its end, and what its publisher has in the next one is history, too. */
static bool is_in_the_way(struct ring_view *view) {
    return view->succeeded && view->joined && !view->blocked &&
           view->reader.next >= view->history_end && !ring_reader_ready(&view->reader) &&
           (view->retired || view_handed_over(view));
}

struct ring_view *history_pick(struct shmps_subscriber *sub) {
    struct ring_view *oldest = NULL;
    uint64_t oldest_time = UINT64_MAX;
    for (uint32_t i = 0; i < sub->n_rings; i++) {
        struct ring_view *view = sub->rings[i];
        uint64_t time = 0; /* gone meanwhile: taking it finds the loss */
        if (is_in_the_way(view))
            return view;
        if (!view->joined || view->blocked || view->reader.next >= view->history_end)
            continue;
        ring_sample_time(&view->reader, view->reader.next, &time);
        if (!oldest || time < oldest_time) {
            oldest = view;
            oldest_time = time;
        }
    }
    if (!oldest)
        sub->history = false;
    return oldest;
}
