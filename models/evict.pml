/* Eviction: a reliable reader that holds samples, and a publisher whose patience may end.
 *
 * Processes: the publisher, which may evict whenever the reader keeps it from publishing; a
 * reliable reader that has joined, takes samples into holds (PINS of them) or copies them, stores
 * its need ahead of what it holds, and reads on as a lossy one when it finds itself evicted. By
 * membarrier (RING_BARE), or with -DMODE_FENCE, in which the publisher's barrier is its own fence
 * and the reader has one between pin and bit. Either may stop for ever anywhere: a reader that
 * never comes on is the one that is evicted; nobody waits without bound for another one.
 *
 *   held_is_intact         the block of a held sample is never written, evicted or not
 *   copy_is_whole          what is accepted of a copy is one sample, not torn
 *   overrun_is_explained   a reader that finds a later lap finds low past what it wanted, and, if
 *                          it takes itself for reliable, its bit: else the ring would be broken
 *   a_block_is_free        a claim finds a free block (I2)
 *   limit_is_not_passed    head <= limit (I1)
 *
 * mirrors ring_reclaim least_need need_of free_blocks load_pins ring_evict store_evicted
 * mirrors evict_laggards evict room_wait pin_reliable pin_lossy take_block settle_barrier
 * mirrors is_whole overrun ring_read store_need ring_reader_settle ring_release unpin
 *
 * holds   bare                        -DSAMPLES=4
 * holds   fence                       -DSAMPLES=3 -DMODE_FENCE
 * holds+  fence: that of reclaim      -DSAMPLES=4 -DMODE_FENCE -DNO_EVICT_BARRIER
 * holds   stores leave out of order   -DSAMPLES=3 -DWEAK
 * holds   nobody is evicted           -DSAMPLES=4 -DENDLESS_PATIENCE
 * holds+  pins before needs           -DSAMPLES=4 -DPINS_FIRST
 * holds+  longer                      -DSAMPLES=5
 * holds+  fence, longer               -DSAMPLES=4 -DMODE_FENCE
 * holds+  out of order, longer        -DSAMPLES=4 -DWEAK
 * holds+  nobody is evicted, longer   -DSAMPLES=5 -DENDLESS_PATIENCE
 * holds+  still longer, fence         -DSAMPLES=5 -DMODE_FENCE
 * holds+  holds two                   -DSAMPLES=4 -DPINS=2
 * holds+  depth 4, batches of 2       -DSAMPLES=5 -DDEPTH=4 -DBATCH=2
 * holds+  deeper buffers, weak        -DSAMPLES=4 -DWEAK -DBUFFER=3
 * reaches an evicted one holds        -DSAMPLES=5 -DREACH=1   REACH_evicted_holds
 * reaches evicted after the pin       -DSAMPLES=5 -DREACH=2   REACH_bit_unseen
 * reaches it reads on as a lossy one  -DSAMPLES=5 -DREACH=3   REACH_lossy
 * breaks  NO_EVICT_BARRIER            -DSAMPLES=5                 held_is_intact
 * breaks  NO_READER_FENCE             -DSAMPLES=5 -DMODE_FENCE    held_is_intact
 * breaks  BIT_BEFORE_PIN              -DSAMPLES=5                 held_is_intact
 * breaks  INDEX_AFTER_BIT             -DSAMPLES=5                 held_is_intact
 * breaks  NO_LOOK_AT_BIT              -DSAMPLES=5                 held_is_intact
 * breaks  NO_LOSSY_CHECK              -DSAMPLES=5                 held_is_intact
 * breaks  PINS_UNSEEN                 -DSAMPLES=5                 held_is_intact
 * breaks  NEED_BEFORE_PIN             -DSAMPLES=5                 held_is_intact
 * breaks  NEED_RELAXED                -DSAMPLES=5 -DWEAK          held_is_intact
 * breaks  COPY_WITHOUT_BIT            -DSAMPLES=5                 copy_is_whole
 * breaks  BIT_BEFORE_SEQ              -DSAMPLES=5                 overrun_is_explained
 * breaks  SPARE=-1                    -DSAMPLES=5                 a_block_is_free
 */
#include "constants.h"
#define PROCESSES 2
#define NO_STALE_CHECK
#include "ring.inc"

bit held_is_intact, copy_is_whole, overrun_is_explained, a_block_is_free, limit_is_not_passed;
bit REACH_evicted_holds, REACH_bit_unseen, REACH_lossy;

active proctype Publisher() {
    PUBLISHER_STATE;
    known = 1;
    do
    :: head == SAMPLES -> break
    :: head < SAMPLES && ROOM -> append()
    :: head < SAMPLES && !ROOM ->
        reclaim();
        if
        :: ROOM
        :: !ROOM ->
            if
#ifndef ENDLESS_PATIENCE
            :: !evicted ->
                evicted = 1;
                STORE_RELEASE(0, EVICTED, 1);
#if defined(NO_EVICT_BARRIER)
#elif defined(MODE_FENCE)
                FENCE(0)
#else
                MEMBARRIER(0)
#endif
#endif
            :: true ->
end_full:       LOAD(0, NEED) > head - DEPTH
            fi
        fi
    od
}

#define R 1
inline use(k) {
    HOLDS(held_is_intact, LOAD(R, BLOCK(block[k])) == holds[k]);
#if REACH == 1
    if :: mem[EVICTED] && mem[SEQ(holds[k] - 1)] > holds[k] -> REACHED(REACH_evicted_holds)
    :: else fi;
#endif
    HOLDS(held_is_intact, LOAD(R, BLOCK(block[k])) == holds[k]);
    STORE_RELEASE(R, PIN(k), MODEL_PIN_NONE);
    d_step { holds[k] = 0; block[k] = 0 }
}
inline settle() {
#ifdef NEED_RELAXED
    STORE(R, NEED, s)
#else
    STORE_RELEASE(R, NEED, s)
#endif
}
inline lossy() {
    STORE(R, PIN(k), s + 1);
    FENCE(R);
    b = LOAD(R, INDEX(s));
#ifdef NO_LOSSY_CHECK
    l = s
#else
    l = LOAD(R, LOW)
#endif
}
inline reliable() {
#ifdef BIT_BEFORE_PIN
    bits = LOAD(R, EVICTED);
#endif
#ifdef NEED_BEFORE_PIN
    STORE_RELEASE(R, NEED, s + 1);
#endif
    STORE(R, PIN(k), s + 1);
#ifndef INDEX_AFTER_BIT
    b = LOAD(R, INDEX(s));
#endif
#if defined(MODE_FENCE) && !defined(NO_READER_FENCE)
    FENCE(R);
#endif
#if !defined(BIT_BEFORE_PIN) && !defined(NO_LOOK_AT_BIT)
    bits = LOAD(R, EVICTED);
#endif
#ifdef INDEX_AFTER_BIT
    b = LOAD(R, INDEX(s));
#endif
    l = s;
    if
    :: bits -> ev = 1; lossy()
    :: else
#if REACH == 2
        -> if :: mem[EVICTED] -> REACHED(REACH_bit_unseen) :: else fi
#endif
    fi
}
inline overrun() {
    l = LOAD(R, LOW);
    HOLDS(overrun_is_explained, l > s);
    if
    :: !ev ->
#ifndef BIT_BEFORE_SEQ
        bits = LOAD(R, EVICTED);
#endif
        HOLDS(overrun_is_explained, bits);
        ev = 1
    :: ev
    fi;
    s = l
}
inline take() {
    if
    :: ev ->
#if REACH == 3
        REACHED(REACH_lossy);
#endif
        lossy()
    :: !ev -> reliable()
    fi;
    if
    :: l <= s ->
        d_step { holds[k] = s + 1; block[k] = b; s++ };
        settle()
    :: else ->
        STORE_RELEASE(R, PIN(k), MODEL_PIN_NONE);
        overrun()
    fi
}
inline copy() {
    b = LOAD(R, INDEX(s));
    one = LOAD(R, BLOCK(b));
    two = LOAD(R, BLOCK(b));
    l = LOAD(R, LOW);
    if
    :: l > s && !ev ->
#ifndef COPY_WITHOUT_BIT
        bits = LOAD(R, EVICTED);
#endif
        if :: !bits -> l = s :: else fi
    :: else
    fi;
    if
    :: l <= s ->
        HOLDS(copy_is_whole, one == s + 1 && two == s + 1);
        s++;
        settle()
    :: else -> overrun()
    fi
}
active proctype Reader() {
    byte s, q, l, b, k, one, two, holds[PINS], block[PINS];
    bit ev, bits;
    do
    :: s >= SAMPLES && holds[0] == 0 -> break
    :: holds[0] > 0 -> use(0)
#if PINS > 1
    :: holds[1] > 0 -> use(1)
#endif
    :: s < SAMPLES ->
#ifdef BIT_BEFORE_SEQ
        bits = LOAD(R, EVICTED);
#endif
        q = LOAD(R, SEQ(s));
        if
        :: q < s + 1 -> /* holds on, or goes to sleep with nothing held */
            if
            :: holds[0] > 0
            :: holds[0] == 0 ->
end_nothing:    LOAD(R, SEQ(s)) != q
            fi
        :: q > s + 1 -> overrun()
        :: q == s + 1 ->
            k = (holds[0] > 0);
            if
            :: k < PINS && (k == 0 || holds[PINS - 1] == 0) -> take()
            :: copy()
            fi
        fi;
        d_step { q = 0; l = 0; b = 0; k = 0; one = 0; two = 0; bits = 0 }
    od;
    STORE_RELEASE(R, NEED, NONE)
}
