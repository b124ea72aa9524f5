#include "client/client.h"

#include <string.h>
#include <unistd.h>

#define SPIN_NS UINT64_C(20000) /* spin this long before sleeping (SHMPS_WAIT_DEFAULT) */
#define LOOKS_PER_CLOCK 16      /* looks at the needs between two looks at the clock */
#define AWAY_MAX 32             /* pauses between two looks */

/* Have the readers come as far as a sleeping publisher would want? */
static bool space_ready(const struct shmps_publisher *pub) {
    for (uint32_t i = 0; i < pub->ring.n_readers; i++) {
        const struct ring_reader_ref *reader = &pub->ring.readers[i];
        /* relaxed: a hint to reclaim, which loads it again with acquire */
        if (reader->reliable && !ring_is_evicted(&pub->ring, i) &&
            atomic_load_relaxed(&reader->entry->need) < pub->ring.wanted)
            return false;
    }
    return true;
}

/* true: something has moved. */
static bool spin(struct shmps_publisher *pub, uint64_t until_ns) {
    /* Each look takes the line of its need away from a reader, who stores it with every sample. So
     * the more there is to be read before there is room, the longer we look away. */
    uint32_t away = (uint32_t)min_u64(pub->ring.batch / 8 + 1, AWAY_MAX);
    for (uint32_t looks = 1;; looks++) {
        if (space_ready(pub) || ring_roster_stale(&pub->ring))
            return true;
        for (uint32_t i = 0; i < away; i++)
            cpu_relax();
        if (looks % LOOKS_PER_CLOCK == 0 && now_ns() >= until_ns)
            return false;
    }
}

/* DESIGN 5, space: x = space; starved; barrier; look at the needs again; sleep while space is
 * still x. */
static enum ring_reclaim_result sleep_for_space(struct shmps_publisher *pub, uint32_t n,
                                                uint64_t deadline_ns) {
    struct ring_publisher *ring = &pub->ring;
    struct wait_word words[TOPIC_PAGES_MAX + 1];
    uint32_t n_words = 0;
    words[n_words++] = (struct wait_word){ .word = ring->generation,
                                           .expected = ring->generation_seen };
    for (uint32_t i = 0; i < ring->n_groups; i++)
        /* SYNC readers.space: acquire, before starved is stored; pairs with the release increment
         * of the reader's wake. */
        words[n_words++] = (struct wait_word){ .word = pub->spaces[i],
                                               .expected = atomic_load_acquire(pub->spaces[i]) };
    ring_set_starved(ring, ring->wanted);
    int64_t bound = barrier_everyone() ? SLEEP_BOUND_NS : BARRIER_NAP_NS;
    enum ring_reclaim_result found = ring_reclaim(ring, n);
    if (found == RING_NO_ROOM) {
        int64_t left = time_left(deadline_ns, bound);
        if (left > 0)
            wait_on_words(words, n_words, left);
    }
    ring_set_starved(ring, 0);
    return found;
}

/* ---- patience (DESIGN 4): works without pubsubd, by what the directory says */

/* Pids in the directory are as pubsubd sees them: only who sees himself as pubsubd does can tell
 * from one that its process has ended. */
static bool sees_pids(const struct shmps_publisher *pub) {
    struct ring_info info;
    return directory_ring(&pub->bus->directory, pub->ring.g.record, &info) &&
           info.serial == pub->serial && info.owner.pid == getpid() &&
           info.owner.start_time == process_start_time(getpid());
}

static bool is_dead(const struct shmps_publisher *pub, uint64_t cell) {
    struct subscription_info s;
    return cell != 0 &&
           directory_subscription(&pub->bus->directory, cell_subscription(cell), &s, NULL) &&
           s.live && process_has_ended(s.owner.pid, s.owner.start_time);
}

/* A reliable reader that keeps n samples from being published. */
static bool lags(const struct ring_publisher *ring, uint32_t i, uint32_t n) {
    const struct ring_reader_ref *reader = &ring->readers[i];
    /* relaxed: a reader who stores more just now is late all the same */
    uint64_t need = atomic_load_relaxed(&reader->entry->need);
    return reader->reliable && !ring_is_evicted(ring, i) && need < ring->head &&
           ring->head - need > ring->g.depth - n;
}

/* The seat is remembered, so that the bit can be cleared when it is another's. */
static void evict(struct shmps_publisher *pub, uint32_t i, uint64_t cell) {
    size_t n = pub->n_evicted_seats;
    struct evicted_seat *grown = realloc(pub->evicted_seats, (n + 1) * sizeof *grown);
    if (!grown)
        return; /* later */
    pub->evicted_seats = grown;
    grown[pub->n_evicted_seats++] = (struct evicted_seat){ pub->ring.readers[i].bit, cell };
    ring_evict(&pub->ring, i);
    pub->evictions++;
}

/* Those who have kept n samples from being published since the stall began; or, of all who do, the
 * dead, whom pubsubd would have reaped if it were there. True: there were some. */
static bool evict_laggards(struct shmps_publisher *pub, uint32_t n, bool dead) {
    struct ring_publisher *ring = &pub->ring;
    uint64_t before = pub->evictions;
    for (uint32_t i = 0; i < ring->n_readers; i++) {
        uint16_t bit = ring->readers[i].bit;
        uint64_t cell = roster_cell(pub, bit);
        if (lags(ring, i, n) &&
            (dead ? is_dead(pub, cell) : pub->laggards[bit / 64] >> (bit % 64) & 1))
            evict(pub, i, cell);
    }
    if (pub->evictions == before)
        return false;
    /* SYNC ring.evicted / reader.pins: the bits before the next look at the pins; pairs with the
     * reader's compiler barrier, or fence, between its pin and its look at the bit. */
    if (ring->g.mode == RING_BARE)
        barrier_everyone();
    else
        fence_seq_cst();
    return true;
}

/* Now and then while there is no room: a reader that is provably dead is evicted. */
static bool evict_dead(struct shmps_publisher *pub, uint32_t n, uint64_t now) {
    if (now - pub->dead_looked_ns < SLEEP_BOUND_NS)
        return false;
    pub->dead_looked_ns = now;
    return sees_pids(pub) && evict_laggards(pub, n, true);
}

/* The first look at a stall: whoever comes later, or lags later, is not its cause. */
static void begin_stall(struct shmps_publisher *pub, uint32_t n, uint64_t now) {
    pub->stalled_ns = pub->dead_looked_ns = now;
    pub->stalled_head = pub->ring.head;
    memset(pub->laggards, 0, sizeof pub->laggards);
    for (uint32_t i = 0; i < pub->ring.n_readers; i++) {
        uint16_t bit = pub->ring.readers[i].bit;
        if (lags(&pub->ring, i, n))
            pub->laggards[bit / 64] |= UINT64_C(1) << (bit % 64);
    }
}

/* There is no room: when will patience be over? NEVER if the topic has all the time. A stall is
 * that of one sample: whatever has been published since has ended it. */
static uint64_t patience_end(struct shmps_publisher *pub, uint32_t n, uint64_t now) {
    struct topic_info info;
    if (pub->stalled_ns == 0 || pub->stalled_head != pub->ring.head)
        begin_stall(pub, n, now);
    if (!directory_topic(&pub->bus->directory, pub->topic, &info, NULL) || info.patience_ns == 0)
        return NEVER;
    uint64_t end;
    return __builtin_add_overflow(pub->stalled_ns, info.patience_ns, &end) ? NEVER : end;
}

static int room_found(struct shmps_publisher *pub) {
    pub->stalled_ns = 0;
    return 0;
}

int room_wait(struct shmps_publisher *pub, uint32_t n, int64_t timeout_ns) {
    uint64_t deadline = 0; /* not yet looked at the clock */
    for (;;) {
        if (unlikely(session_ended(pub->bus)))
            session_follow(pub->bus);
        if (ring_roster_stale(&pub->ring) || unlikely(session_rebuilt(pub->bus))) {
            int r = roster_refresh(pub);
            if (r < 0)
                return r;
        }
        if (ring_can_claim(&pub->ring, n))
            return room_found(pub);
        switch (ring_reclaim(&pub->ring, n)) {
        case RING_ROOM:
            return room_found(pub);
        case RING_STALE:
            continue;
        case RING_USED_UP:
            return error_raise(
                SHMPS_E_LIMIT,
                "all sequence numbers of this ring are used up; open a new publisher");
        case RING_NO_ROOM:
            break;
        }
        uint64_t now = now_ns();
        uint64_t patience = patience_end(pub, n, now);
        if (now >= patience ? evict_laggards(pub, n, false) : evict_dead(pub, n, now))
            continue;
        if (now >= patience) /* others lag by now: their time begins */
            begin_stall(pub, n, now);
        if (timeout_ns == 0)
            return SHMPS_FULL;
        if (deadline == 0)
            deadline = timeout_ns < 0 ? NEVER : now + (uint64_t)timeout_ns;
        else if (now >= deadline)
            return SHMPS_FULL;
        uint64_t until = min_u64(deadline, patience);
        if (pub->wait == SHMPS_WAIT_SPIN) {
            spin(pub, min_u64(until, now + SLEEP_BOUND_NS));
            continue;
        }
        if (pub->wait == SHMPS_WAIT_DEFAULT && spin(pub, min_u64(until, now + SPIN_NS)))
            continue;
        sleep_for_space(pub, n, until);
    }
}
