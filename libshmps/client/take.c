#include "client/client.h"

#include <string.h>

#define TURN 64u /* small samples taken in a row from one ring before the others are looked at */

void wake_space(struct ring_view *view) {
    /* SYNC readers.space: release, after our store of need; pairs with the publisher's acquire
     * load before it set starved. */
    atomic_add_release(&view->group->space, 1);
    wake_word(&view->group->space, 1);
}

static inline void settle(struct ring_view *view) {
    if (unlikely(ring_reader_settle(&view->reader)))
        wake_space(view);
}

/* ---- holds: what keeps a taken sample */

static struct hold *hold_at(const struct shmps_subscriber *sub, uint32_t index) {
    return &sub->hold_chunks[index / HOLD_CHUNK][index % HOLD_CHUNK];
}

static bool add_holds(struct shmps_subscriber *sub) {
    struct hold **chunks = realloc(sub->hold_chunks,
                                   (sub->n_holds / HOLD_CHUNK + 1) * sizeof *chunks);
    if (!chunks)
        return false;
    sub->hold_chunks = chunks;
    struct hold *chunk = aligned_alloc(64, HOLD_CHUNK * sizeof *chunk);
    if (!chunk)
        return false;
    memset(chunk, 0, HOLD_CHUNK * sizeof *chunk);
    chunks[sub->n_holds / HOLD_CHUNK] = chunk;
    for (uint32_t i = HOLD_CHUNK; i-- > 0;) { /* the first is used first */
        chunk[i].next_free = sub->free_hold;
        sub->free_hold = sub->n_holds + i;
    }
    sub->n_holds += HOLD_CHUNK;
    return true;
}

void holds_free(struct hold **chunks, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        free(chunks[i / HOLD_CHUNK][i % HOLD_CHUNK].large);
    for (uint32_t i = 0; i < n / HOLD_CHUNK; i++)
        free(chunks[i]);
    free(chunks);
}

static bool hold_room(struct hold *hold, uint64_t bytes) {
    if ((uint64_t)hold->large_bytes * 64 >= bytes)
        return true;
    uint64_t rounded = (bytes + 63) / 64 * 64;
    void *larger = rounded < bytes ? NULL : aligned_alloc(64, rounded);
    if (!larger)
        return false;
    free(hold->large);
    hold->large = larger;
    hold->large_bytes = (uint32_t)(rounded / 64);
    return true;
}

static void drop_copy(struct hold *hold) {
    if (hold->large_bytes > 64) { /* more than 4 KiB: an exception, do not keep it */
        free(hold->large);
        hold->large = NULL;
        hold->large_bytes = 0;
    }
}

/* ---- one ring */

/* What a caller wants of the next sample: taken into a hold, or copied to a buffer. */
struct want {
    struct hold *hold; /* NULL: read */
    void *buffer;
    size_t room;
    uint32_t flags;
};

/* The block cannot be pinned: copy it into memory of the hold's own. */
static enum ring_take_result copy_block(struct ring_view *view, struct want *want,
                                        struct ring_sample *s) {
    struct ring_reader *r = &view->reader;
    enum ring_take_result found = RING_NO_PIN;
    while (found == RING_NO_PIN) {
        if (!hold_room(want->hold, min_u64(s->bytes, r->g.block_bytes)))
            return RING_NO_PIN;
        found = ring_read(r, want->hold->large, (size_t)want->hold->large_bytes * 64, s);
    }
    want->buffer = want->hold->large;
    if (found == RING_TAKEN)
        want->flags = SHMPS_SAMPLE_COPIED;
    return found;
}

static enum ring_take_result fetch(struct ring_view *view, struct want *want,
                                   struct ring_sample *s) {
    struct ring_reader *r = &view->reader;
    if (r->policy == POLICY_LATEST) {
        enum ring_take_result newest = ring_skip_to_latest(r);
        if (newest != RING_TAKEN)
            return newest;
    }
    if (!want->hold)
        return ring_read(r, want->buffer, want->room, s);
    want->buffer = want->hold->small;
    if (unlikely(r->g.inline_bytes > sizeof want->hold->small)) {
        if (!hold_room(want->hold, r->g.inline_bytes))
            return RING_NO_PIN;
        want->buffer = want->hold->large;
    }
    enum ring_take_result found = ring_take(r, want->buffer, s);
    return unlikely(found == RING_NO_PIN) ? copy_block(view, want, s) : found;
}

static void deliver(struct shmps_subscriber *sub, struct ring_view *view, const struct want *want,
                    const struct ring_sample *s, struct shmps_sample *ret) {
    ret->data = s->block ? s->block : want->buffer;
    ret->bytes = s->bytes;
    ret->seq = s->sequence;
    ret->time_ns = s->time_ns;
    ret->tag = s->tag;
    ret->lost = view->lost;
    ret->topic = view->topic->name;
    ret->publisher = view->publisher;
    ret->flags = want->flags | view->flags |
                 (s->sequence < view->history_end ? SHMPS_SAMPLE_HISTORY : 0);
    ret->hold = NO_INDEX;
    view->lost = 0;
    view->flags = 0;
    sub->received++;
    sub->copied += want->flags & SHMPS_SAMPLE_COPIED;
    if (want->hold) {
        ret->hold = sub->free_hold; /* the hold that is being filled is the first free one */
        sub->free_hold = want->hold->next_free;
        want->hold->view = view;
        want->hold->pin = NO_PIN;
        if (s->block) {
            want->hold->pin = s->pin;
            want->hold->block = s->block;
            want->hold->bytes = s->bytes;
        }
        view->n_held++;
        sub->held++;
    }
}

static int report_lost(struct ring_view *view, struct shmps_sample *ret) {
    *ret = (struct shmps_sample){
        .seq = view->reader.next,
        .lost = view->lost,
        .topic = view->topic->name,
        .publisher = view->publisher,
        .flags = view->flags,
        .hold = NO_INDEX,
    };
    view->lost = 0;
    view->flags = 0;
    return SHMPS_LOST;
}

static int report_broken(struct ring_view *view) {
    view->broken = view->blocked = true;
    if (view->n_held == 0 && ring_reader_leave(&view->reader))
        wake_space(view);
    return error_raise(
        SHMPS_E_CORRUPT,
        "the ring of publisher %llu on \"%s\" holds what no publisher of ours writes; it is left "
        "out from now on - end that process (shmps info %s tells which)",
        (unsigned long long)view->publisher, view->topic->name, view->topic->name);
}

static void count_lost(struct shmps_subscriber *sub, struct ring_view *view, uint64_t lost) {
    if (view->reader.policy == POLICY_LATEST)
        return; /* skipping is what was asked for */
    view->lost += lost;
    sub->lost += lost;
}

/* A ring without a publisher has been read to its end. */
static int drained(struct shmps_subscriber *sub, struct ring_view *view,
                   struct shmps_sample *ret) {
    int r = SHMPS_EMPTY;
    uint64_t serial = view->serial;
    if (view->reader.next < view->final_head) {
        count_lost(sub, view, view->final_head - view->reader.next);
        view->reader.next = view->final_head;
    }
    if (view->lost > 0)
        r = report_lost(view, ret);
    settle(view);
    view_detach(sub, view);
    session_drained(sub->bus, serial);
    return r;
}

/* The next sample of one ring. 0, EMPTY, LOST, SIZE, CORRUPT, NO_MEMORY. *ret_gone: the view has
 * been detached. */
static int take_from(struct shmps_subscriber *sub, struct ring_view *view, struct want *want,
                     struct shmps_sample *ret, bool *ret_gone) {
    struct ring_sample s;
    for (;;) {
        switch (fetch(view, want, &s)) {
        case RING_TAKEN:
            deliver(sub, view, want, &s, ret);
            return 0;
        case RING_NOTHING:
            if (likely(!view->retired)) {
                if (likely(!view_handed_over(view)))
                    return SHMPS_EMPTY;
                continue;
            }
            *ret_gone = true;
            return drained(sub, view, ret);
        case RING_OVERRUN:
            count_lost(sub, view, s.lost);
            if (unlikely(view->reader.evicted && !view->evicted)) {
                view->evicted = true;
                view->flags = SHMPS_SAMPLE_EVICTED;
                sub->evictions++;
            }
            continue;
        case RING_NO_PIN:
            if (want->hold)
                return error_raise(
                    SHMPS_E_NO_MEMORY,
                    "no memory for a copy of %llu bytes; release samples before taking more",
                    (unsigned long long)s.bytes);
            ret->bytes = s.bytes;
            return error_raise(SHMPS_E_SIZE,
                               "the next sample of \"%s\" has %llu bytes, the buffer %zu; read it "
                               "with a larger one",
                               view->topic->name, (unsigned long long)s.bytes, want->room);
        case RING_BROKEN:
            return report_broken(view);
        }
    }
}

/* ---- all rings */

static int take_now(struct shmps_subscriber *sub, struct want *want, struct shmps_sample *ret,
                    struct ring_view **ret_view) {
    if (unlikely(sub->pending != 0)) {
        int r = sub->pending;
        sub->pending = 0;
        *ret = sub->pending_sample;
        return r;
    }
    if (unlikely(subscriber_stale(sub) || session_rebuilt(sub->bus))) {
        int r = subscriber_refresh(sub);
        if (r < 0)
            return r;
    }
    if (unlikely(sub->missed)) {
        int r = missed_report(sub, ret);
        if (r != SHMPS_EMPTY)
            return r;
    }
    bool gone = false;
    while (unlikely(sub->history)) {
        struct ring_view *view = history_pick(sub);
        if (!view)
            break;
        gone = false;
        int r = take_from(sub, view, want, ret, &gone);
        *ret_view = gone ? NULL : view;
        if (r != SHMPS_EMPTY)
            return r;
        if (!gone) /* a committed sample that is none any more: no honest publisher's */
            view->history_end = view->reader.next;
    }
    for (uint32_t looked = 0; looked < sub->n_rings; looked++) {
        if (sub->current >= sub->n_rings)
            sub->current = 0;
        struct ring_view *view = sub->rings[sub->current];
        gone = false;
        int r = unlikely(view->blocked || !view->joined) ? SHMPS_EMPTY
                                                         : take_from(sub, view, want, ret, &gone);
        *ret_view = gone ? NULL : view;
        if (likely(r == 0)) {
            /* at once after a large one, or when it cannot keep up: else one camera would stand
             * still while the other is shown */
            bool large = ret->bytes > view->reader.g.inline_bytes;
            if (++sub->turn >= TURN || large || ret->lost > 0) {
                sub->turn = 0;
                sub->current++;
            }
            return 0;
        }
        if (r != SHMPS_EMPTY)
            return r;
        if (gone)
            looked = UINT32_MAX; /* what it blocked may go on: look at all again */
        else
            sub->current++;
        sub->turn = 0;
    }
    return SHMPS_EMPTY;
}

/* take_now, and waiting as asked for. Need is stored before waiting and before returning. */
static int take_wait(struct shmps_subscriber *sub, struct want *want, struct shmps_sample *ret,
                     uint64_t *deadline, int64_t timeout_ns, struct ring_view **ret_view) {
    for (;;) {
        int r = take_now(sub, want, ret, ret_view);
        if (likely(r != SHMPS_EMPTY))
            return r;
        if (unlikely(session_ended(sub->bus)))
            session_follow(sub->bus); /* no generation will tell of its successor */
        if (timeout_ns == 0) {
            if (!sub->descriptor || !descriptor_rest(sub))
                return SHMPS_EMPTY;
            continue;
        }
        if (*deadline == 0)
            *deadline = deadline_of(timeout_ns);
        if (rest(sub, *deadline) == SHMPS_TIMEOUT)
            return SHMPS_TIMEOUT;
    }
}

static inline int check_holds(struct shmps_subscriber *sub) {
    if (unlikely(sub->free_hold == NO_INDEX) && !add_holds(sub))
        return error_raise(SHMPS_E_NO_MEMORY, "no memory to hold another sample; release some");
    return 0;
}

int shmps_take(struct shmps_subscriber *sub, struct shmps_sample *ret, int64_t timeout_ns) {
    CHECK_FORK(sub->bus);
    uint64_t deadline = 0;
    struct ring_view *view = NULL;
    int r = check_timeout(timeout_ns);
    if (r == 0)
        r = check_holds(sub);
    if (unlikely(r < 0))
        return r;
    struct want want = { .hold = hold_at(sub, sub->free_hold) };
    r = take_wait(sub, &want, ret, &deadline, timeout_ns, &view);
    if (likely(r == 0))
        settle(view);
    return r;
}

int shmps_read(struct shmps_subscriber *sub, void *buffer, size_t bytes, struct shmps_sample *ret,
               int64_t timeout_ns) {
    CHECK_FORK(sub->bus);
    uint64_t deadline = 0;
    struct ring_view *view = NULL;
    struct want want = { .buffer = buffer, .room = bytes };
    int r = check_timeout(timeout_ns);
    if (unlikely(r < 0))
        return r;
    r = take_wait(sub, &want, ret, &deadline, timeout_ns, &view);
    if (likely(r == 0))
        settle(view);
    return r;
}

/* Store the need of the ring that a batch has taken from; before another one, before waiting, at
 * the end. */
static void settle_batch(struct shmps_subscriber *sub) {
    if (sub->unsettled)
        settle(sub->unsettled);
    sub->unsettled = NULL;
}

int shmps_take_batch(struct shmps_subscriber *sub, struct shmps_sample *samples, size_t n,
                     enum shmps_batch how, int64_t timeout_ns, size_t *ret_done) {
    *ret_done = 0;
    CHECK_FORK(sub->bus);
    uint64_t deadline = 0;
    struct ring_view *view = NULL;
    size_t done = 0;
    int r = check_batch(how, timeout_ns);
    while (r == 0 && done < n) {
        r = check_holds(sub);
        if (r < 0)
            break;
        struct want want = { .hold = hold_at(sub, sub->free_hold) };
        r = take_now(sub, &want, &samples[done], &view);
        if (r == SHMPS_EMPTY && (done == 0 || how == SHMPS_EXACTLY)) {
            settle_batch(sub);
            r = take_wait(sub, &want, &samples[done], &deadline, timeout_ns, &view);
        }
        if (r != 0)
            break;
        if (sub->unsettled != view) {
            settle_batch(sub);
            sub->unsettled = view;
        }
        done++;
    }
    settle_batch(sub);
    if (done > 0 && r != 0 && r != SHMPS_EMPTY && r != SHMPS_TIMEOUT) {
        sub->pending = r; /* told by the next call */
        sub->pending_sample = samples[done];
    }
    *ret_done = done;
    return done > 0 ? 0 : r;
}

/* ---- release */

int shmps_release(struct shmps_subscriber *sub, struct shmps_sample *sample) {
    CHECK_FORK(sub->bus);
    if (unlikely(sample->hold >= sub->n_holds || !hold_at(sub, sample->hold)->view))
        return error_raise(SHMPS_E_INVALID,
                           "this sample is not held; release each taken sample once");
    struct hold *hold = hold_at(sub, sample->hold);
    struct ring_view *view = hold->view;
    if (hold->pin != NO_PIN)
        ring_release(&view->reader, hold->pin);
    hold->view = NULL;
    drop_copy(hold);
    hold->next_free = sub->free_hold;
    sub->free_hold = sample->hold;
    sample->hold = NO_INDEX;
    sub->held--;
    if (--view->n_held == 0 && unlikely(view->detached))
        view_free(view);
    return 0;
}

int shmps_release_batch(struct shmps_subscriber *sub, struct shmps_sample *samples, size_t n) {
    int first_error = 0;
    for (size_t i = n; i-- > 0;) { /* backwards: the holds come back in the order they went */
        int r = shmps_release(sub, &samples[i]);
        if (r < 0 && first_error == 0)
            first_error = r;
    }
    return first_error;
}
