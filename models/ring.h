/* The publisher's ring as the models see it: slots, blocks, low, and one reader's entry.
 *
 * Process 0 is the publisher, alone. A slot has its seq and one word for all that is stored
 * relaxed before it (the index of the block, size, time, tag); a block one word, the number of its
 * sample + 1. Any free block may be taken next; the code takes the one freed last. */
#ifndef DEPTH
#define DEPTH 2
#endif
#ifndef SAMPLES
#define SAMPLES 5
#endif
#ifndef PINS
#define PINS 1
#endif
#ifndef BATCH
#define BATCH 1
#endif
#ifndef SPARE
#define SPARE MODEL_BLOCKS_SPARE
#endif
#ifdef INLINE /* samples lie in their slots; no blocks, no pins */
#define BLOCKS 0
#else
#define BLOCKS (DEPTH + PINS + SPARE)
#endif
#define NONE 255

#define LOW 0
#define NEED 1
#define PIN(i) (2 + (i))
#define EVICTED 4
#define GENERATION 5
#define CELL 6
#define HEAD 7
#define SEQ(s) (8 + ((s) % DEPTH))
#define INDEX(s) (8 + DEPTH + ((s) % DEPTH))
#define BLOCK(b) (8 + 2 * DEPTH + (b))
#define WORDS (8 + 2 * DEPTH + BLOCKS)
#include "tso.h"

/* What a publisher knows by itself. own: the sample that a block belongs to, + 1; 0: free */
#ifdef INLINE
#define OWN_BLOCKS
#else
#define OWN_BLOCKS byte i, pin[2], own[BLOCKS];
#endif
#define PUBLISHER_STATE \
    byte head, low, limit = DEPTH, need, v, seen, seen_empty; \
    bit known, evicted, stale; \
    OWN_BLOCKS

#define ROOM (limit > head)

inline least_need() { /* of the one reliable reader, if the roster tells of it */
    need = ((known && !evicted) -> LOAD(0, NEED) : NONE)
}

#ifndef INLINE
inline load_pins() {
    pin[0] = LOAD(0, PIN(0));
#if PINS > 1
    pin[1] = LOAD(0, PIN(1));
#endif
}
#endif

/* limit only grows; blocks of samples below limit - depth are set aside (they are told by that
 * from those in use), and free when they are not found pinned. */
inline new_limit() {
    d_step {
#ifdef NO_SECOND_LOOK_AT_NEED
        v = low + DEPTH;
#else
        v = (need < low -> need : low) + DEPTH;
#endif
#ifdef LIMIT_GOES_BACK
        limit = v;
#else
        if :: v > limit -> limit = v :: else fi;
#endif
        v = 0
#ifndef INLINE
        ;
        do /* how many are free */
        :: i < BLOCKS -> if :: own[i] == 0 -> v++ :: else fi; i++
        :: else -> break
        od;
        i = 0
#endif
    }
}

#ifndef INLINE
inline free_blocks() {
    if
#ifdef PINS_UNSEEN
    :: true ->
        d_step { pin[0] = 0; pin[1] = 0 };
#else
    :: v <= limit - head ->
#ifndef PINS_FIRST
        load_pins();
#endif
#endif
        d_step {
            do
            :: i < BLOCKS ->
                if
                :: own[i] > 0 && own[i] <= limit - DEPTH && own[i] != pin[0] && own[i] != pin[1]
                    -> own[i] = 0
                :: else
                fi;
                i++
            :: else -> break
            od;
            i = 0
        }
    :: else
    fi;
    d_step { v = 0; pin[0] = 0; pin[1] = 0 }
}
#endif

inline new_low() {
    d_step {
        v = low + BATCH;
        if :: head + 1 > DEPTH && head + 1 - DEPTH > v -> v = head + 1 - DEPTH :: else fi;
        if :: v > head -> v = head :: else fi;
        if :: v > need -> v = need :: else fi;
        if :: v > low -> low = v :: else -> v = 0 fi;
        need = 0
    }
}

/* ring_reclaim(). Sets `room`, or `stale`, or `wanted`. */
inline reclaim() {
#ifdef STALE_BEFORE_FENCE
    stale = (LOAD(0, GENERATION) != seen);
#endif
#ifdef HEAD_IS_TOLD
#ifndef HEAD_AFTER_LOW
    STORE_RELEASE(0, HEAD, head);
#endif
#endif
    least_need();
    new_low();
#ifdef PINS_BEFORE_LOW
    load_pins();
#endif
    if
#ifdef LOW_NOT_STORED
#elif defined(LOW_RELAXED)
    :: v > 0 -> v = 0; STORE(0, LOW, low)
#else
    :: v > 0 -> v = 0; STORE_RELEASE(0, LOW, low)
#endif
    :: else -> v = 0
    fi;
#if defined(HEAD_IS_TOLD) && defined(HEAD_AFTER_LOW)
    STORE_RELEASE(0, HEAD, head);
#endif
#ifndef NO_RECLAIM_FENCE
    FENCE(0);
#endif
#if !defined(NO_STALE_CHECK) && !defined(STALE_BEFORE_FENCE)
    stale = (LOAD(0, GENERATION) != seen);
#endif
    if
    :: stale
    :: else ->
#ifdef PINS_FIRST
        load_pins();
#endif
        least_need();
        new_limit();
#ifdef PINS_BEFORE_LOW
        d_step {
            do
            :: i < BLOCKS ->
                if
                :: own[i] > 0 && own[i] <= limit - DEPTH && own[i] != pin[0] && own[i] != pin[1]
                    -> own[i] = 0
                :: else
                fi;
                i++
            :: else -> break
            od;
            i = 0; v = 0; pin[0] = 0; pin[1] = 0
        };
#elif !defined(INLINE)
        free_blocks();
#endif
        HOLDS(limit_is_not_passed, limit >= head);
        need = 0
    fi
}

/* claim, write, commit */
#ifndef REFRESHED
#define REFRESHED skip
#endif
#ifndef COMMITS
#define COMMITS skip
#endif
inline append() {
#ifdef INLINE
    STORE(0, INDEX(head), head + 1);
    COMMITS;
    STORE_RELEASE(0, SEQ(head), head + 1);
    head++
#else
    if
    :: own[0] == 0 -> i = 0
    :: own[1] == 0 -> i = 1
#if BLOCKS > 2
    :: own[2] == 0 -> i = 2
#endif
#if BLOCKS > 3
    :: own[3] == 0 -> i = 3
#endif
#if BLOCKS > 4
    :: own[4] == 0 -> i = 4
#endif
#if BLOCKS > 5
    :: own[5] == 0 -> i = 5
#endif
#if BLOCKS > 6
    :: own[6] == 0 -> i = 6
#endif
    :: else -> HOLDS(a_block_is_free, false)
    fi;
    own[i] = head + 1;
#ifdef SEQ_FIRST
    STORE_RELEASE(0, SEQ(head), head + 1);
#endif
    STORE(0, BLOCK(i), head + 1);
    STORE(0, INDEX(head), i);
#ifndef SEQ_FIRST
#ifdef SEQ_RELAXED
    STORE(0, SEQ(head), head + 1);
#else
    STORE_RELEASE(0, SEQ(head), head + 1);
#endif
#endif
    d_step { head++; i = 0 }
#endif
}

/* ring_committed_end(), by process p_ */
inline committed_end(p_, e_) {
    e_ = LOAD(p_, HEAD);
    do
    :: e_ < SAMPLES && LOAD(p_, SEQ(e_)) == e_ + 1 -> e_++
    :: else -> break
    od
}

/* roster_refresh(): what is read between two equal loads of the generation is whole */
inline refresh() {
    do
    :: true ->
#ifndef GENERATION_LOADED_LATE
        v = LOAD(0, GENERATION);
#endif
        known = LOAD(0, CELL);
#ifdef GENERATION_LOADED_LATE
        v = LOAD(0, GENERATION);
        break
#elif defined(GENERATION_LOADED_ONCE)
        break
#else
        if
        :: v == LOAD(0, GENERATION) -> break
        :: else
        fi
#endif
    od;
    seen = v; /* spin wants no jump into a d_step */
    d_step { REFRESHED; v = 0; stale = 0 }
}
