/* Reclaim and hold: a lossy reader's pins, blocks set aside, low; and who copies without a pin.
 *
 * Processes: the publisher; a lossy reader (READER) that holds up to PINS samples; one that copies
 * without a pin (COPIER): ring_read(), an observer. The publisher may stop for ever anywhere, and
 * so may they: nobody waits for another one here, so an assertion that holds in all states holds
 * with the dead as well. A reader that dies keeps its pin: that is the reader that never releases.
 *
 *   held_is_intact        the block of a held sample is never written
 *   copy_is_whole         what a copier accepts is one sample, not torn
 *   overrun_is_explained  who finds a later lap finds low past what it wanted: a loss that can be
 *                         counted, else the ring would be called broken
 *   a_block_is_free       a claim finds a free block (I2: depth + P + 1 suffice)
 *   nobody_is_waited_for  the publisher never waits for a lossy reader
 *   limit_is_not_passed   head <= limit (I1)
 *   low_is_below_head     also for who looks from outside: low, then head (I1)
 *
 * mirrors ring_reclaim free_blocks load_pins set_aside ring_claim ring_commit tell
 * mirrors look load_low load_meta load_block pin_lossy take_block unpin overrun ring_release
 * mirrors is_whole still_there ring_read ring_observe
 *
 * holds   a reader holds one          -DREADER -DSAMPLES=4
 * holds   a reader copies             -DCOPIER -DSAMPLES=5
 * holds   stores leave out of order   -DREADER -DSAMPLES=4 -DWEAK
 * holds   copying, out of order       -DCOPIER -DSAMPLES=4 -DWEAK -DBUFFER=3
 * holds   no block to spare           -DREADER -DSAMPLES=4 -DSPARE=0
 * holds+  a reader holds two          -DREADER -DPINS=2 -DSAMPLES=5
 * holds+  longer                      -DREADER -DSAMPLES=6
 * holds+  depth 4                     -DREADER -DDEPTH=4 -DSAMPLES=6
 * holds+  batches of 2                -DREADER -DDEPTH=4 -DBATCH=2 -DSAMPLES=6
 * holds+  both                        -DREADER -DCOPIER -DSAMPLES=3
 * holds+  deeper buffers, weak        -DREADER -DSAMPLES=5 -DWEAK -DBUFFER=3
 * reaches a block is set aside        -DREADER -DREACH=1      REACH_aside
 * reaches the held slot is used again  -DREADER -DREACH=2     REACH_reused
 * reaches a loss                      -DREADER -DREACH=3      REACH_loss
 * breaks  NO_RECLAIM_FENCE            -DREADER                held_is_intact
 * breaks  NO_PIN_FENCE                -DREADER                held_is_intact
 * breaks  PINS_BEFORE_LOW             -DREADER                held_is_intact
 * breaks  PINS_UNSEEN                 -DREADER                held_is_intact
 * breaks  INDEX_AFTER_CHECK           -DREADER                held_is_intact
 * breaks  CHECK_BEFORE_PIN            -DREADER                held_is_intact
 * breaks  NO_CHECK                    -DREADER                held_is_intact
 * breaks  SEQ_FIRST                   -DREADER                held_is_intact
 * breaks  SEQ_RELAXED                 -DREADER -DWEAK -DBUFFER=3   held_is_intact
 * breaks  UNPIN_EARLY                 -DREADER                held_is_intact
 * breaks  SPARE=-1                    -DREADER                a_block_is_free
 * breaks  LOW_NOT_STORED              -DREADER                held_is_intact
 * breaks  LOW_BEFORE_SEQ              -DREADER                overrun_is_explained
 * breaks  NO_COPY_CHECK               -DCOPIER                copy_is_whole
 * breaks  LOW_EARLY                   -DCOPIER                copy_is_whole
 * breaks  NO_RECLAIM_FENCE            -DCOPIER -DWEAK         copy_is_whole
 * breaks  HEAD_AFTER_LOW              -DCOPIER                low_is_below_head
 * breaks  LOW_RELAXED                 -DCOPIER -DWEAK         low_is_below_head
 */
#include "constants.h"
#define PROCESSES (1 + PRESENT_R + PRESENT_C)
#ifdef READER
#define PRESENT_R 1
#else
#define PRESENT_R 0
#endif
#ifdef COPIER
#define PRESENT_C 1
#define HEAD_IS_TOLD
#else
#define PRESENT_C 0
#endif
#include "ring.inc"

bit held_is_intact, copy_is_whole, overrun_is_explained, a_block_is_free, nobody_is_waited_for;
bit limit_is_not_passed, low_is_below_head;
bit REACH_aside, REACH_reused, REACH_loss;

active proctype Publisher() {
    PUBLISHER_STATE;
    do
    :: head == SAMPLES -> break
    :: head < SAMPLES && !ROOM ->
        reclaim();
#if REACH == 1
        d_step {
            do
            :: i < BLOCKS ->
                if
                :: own[i] > 0 && own[i] <= limit - DEPTH -> REACHED(REACH_aside)
                :: else
                fi;
                i++
            :: else -> i = 0; break
            od
        }
#endif
        HOLDS(nobody_is_waited_for, ROOM)
    :: head < SAMPLES && ROOM -> append()
    od
}

#ifdef READER
#define R 1
inline lossy_check(k) {
#ifndef INDEX_AFTER_CHECK
    b = LOAD(R, INDEX(s));
#endif
#ifdef NO_CHECK
    l = s;
#elif !defined(CHECK_BEFORE_PIN)
    l = LOAD(R, LOW);
#endif
#ifdef INDEX_AFTER_CHECK
    b = LOAD(R, INDEX(s));
#endif
}
inline use(k) { /* the user looks at what it holds, at two moments at least */
#ifdef UNPIN_EARLY
    STORE_RELEASE(R, PIN(k), MODEL_PIN_NONE);
#endif
    HOLDS(held_is_intact, LOAD(R, BLOCK(block[k])) == holds[k]);
    HOLDS(held_is_intact, LOAD(R, BLOCK(block[k])) == holds[k]);
#if REACH == 2
    if :: mem[SEQ(holds[k] - 1)] > holds[k] -> REACHED(REACH_reused) :: else fi;
#endif
    STORE_RELEASE(R, PIN(k), MODEL_PIN_NONE);
    d_step { holds[k] = 0; block[k] = 0 }
}
active proctype Reader() {
    byte s, q, l, b, k, holds[PINS], block[PINS];
    s = LOAD(R, LOW);
    do
    :: s >= SAMPLES && holds[0] == 0 -> break
    :: holds[0] > 0 -> use(0)
#if PINS > 1
    :: holds[1] > 0 -> use(1)
#endif
#if PINS > 1
    :: s < SAMPLES && (holds[0] == 0 || holds[1] == 0) ->
        k = (holds[0] > 0);
#else
    :: s < SAMPLES && holds[0] == 0 ->
#endif
#ifdef LOW_BEFORE_SEQ
        l = LOAD(R, LOW);
#endif
        q = LOAD(R, SEQ(s));
        if
        :: q < s + 1 ->
end_nothing: LOAD(R, SEQ(s)) != q
        :: q > s + 1 ->
#ifndef LOW_BEFORE_SEQ
            l = LOAD(R, LOW);
#endif
            HOLDS(overrun_is_explained, l > s);
            s = l
        :: q == s + 1 ->
#ifdef CHECK_BEFORE_PIN
            l = LOAD(R, LOW);
#endif
            STORE(R, PIN(k), s + 1);
#ifndef NO_PIN_FENCE
            FENCE(R);
#endif
            lossy_check(k);
            if
            :: l <= s -> d_step { holds[k] = s + 1; block[k] = b; s++ }
            :: else ->
#if REACH == 3
                REACHED(REACH_loss);
#endif
                STORE_RELEASE(R, PIN(k), MODEL_PIN_NONE);
                s = l
            fi
        fi;
        d_step { q = 0; l = 0; b = 0; k = 0 }
    od
}
#endif

#ifdef COPIER
#define C (PROCESSES - 1)
active proctype Copier() {
    byte s, q, l, b, one, two;
    s = LOAD(C, LOW);
    do
    :: s >= SAMPLES -> break
    :: s < SAMPLES ->
        q = LOAD(C, SEQ(s));
        if
        :: q < s + 1 ->
end_nothing: LOAD(C, SEQ(s)) != q
        :: q > s + 1 ->
            l = LOAD(C, LOW);
            HOLDS(overrun_is_explained, l > s);
            s = l
        :: q == s + 1 ->
#ifdef LOW_EARLY /* no acquire fence: the check may be executed before the copy */
            l = LOAD(C, LOW);
#endif
            b = LOAD(C, INDEX(s));
            one = LOAD(C, BLOCK(b));
            two = LOAD(C, BLOCK(b));
#ifdef NO_COPY_CHECK
            l = s;
#elif !defined(LOW_EARLY)
            l = LOAD(C, LOW);
#endif
            HOLDS(copy_is_whole, l > s || (one == s + 1 && two == s + 1));
            d_step { s = (l <= s -> s + 1 : l); b = 0; one = 0; two = 0 };
            l = LOAD(C, LOW);
            HOLDS(low_is_below_head, l <= LOAD(C, HEAD))
        fi;
        d_step { q = 0; l = 0 }
    od
}
#endif
