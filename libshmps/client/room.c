#include "client/client.h"

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

/* Those who have not come as far as is wanted. */
static void evict_laggards(struct shmps_publisher *pub) {
    struct ring_publisher *ring = &pub->ring;
    for (uint32_t i = 0; i < ring->n_readers; i++) {
        const struct ring_reader_ref *reader = &ring->readers[i];
        /* relaxed: a reader who stores more just now is late all the same */
        if (reader->reliable && !ring_is_evicted(ring, i) &&
            atomic_load_relaxed(&reader->entry->need) < ring->wanted) {
            ring_evict(ring, i);
            pub->evictions++;
        }
    }
    /* SYNC ring.evicted / reader.pins: the bits before the next look at the pins; pairs with the
     * reader's compiler barrier, or fence, between its pin and its look at the bit. */
    if (ring->g.mode == RING_BARE)
        barrier_everyone();
    else
        fence_seq_cst();
}

/* There is no room: when will patience be over? NEVER if the topic has all the time. The first
 * look at the stall begins it; room ends it. */
static uint64_t patience_end(struct shmps_publisher *pub, uint64_t now) {
    struct topic_info info;
    if (pub->stalled_ns == 0)
        pub->stalled_ns = now;
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
        uint64_t patience = patience_end(pub, now);
        if (now >= patience) {
            evict_laggards(pub);
            continue;
        }
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
