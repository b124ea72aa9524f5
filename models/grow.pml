/* A new ring: a publisher that grows goes on in another one, and says so in the old one's header.
 *
 * Processes: the publisher, which publishes in ring A, asks pubsubd for B, stores A's successor,
 * looks for sleepers, has A closed, and publishes in B; or goes on in A when no answer comes; a
 * subscriber of both, B after A; pubsubd. A ring's slots are one word, the number of its samples
 * committed; requests and answers are system calls.
 *   -DKILL       the publisher may be killed at any statement; pubsubd finds out
 *   -DRESTART    pubsubd may be killed at any statement, and is started again
 *   -DGONE       pubsubd may be killed at any statement, for ever
 *   -DTWICE      the subscriber knows a successor of A already, that of a request which failed
 *
 *   all_is_taken         when nothing moves any more, the subscriber has taken all samples of both
 *   nothing_is_skipped   what it takes for the end of A is the end of A, before it reads of B
 *   the_end_is_noticed   and knows when A has ended, or its publisher
 *   nobody_is_stuck      the publisher has published everything, unless it was killed
 *
 * mirrors request_ring adopt_ring grow ring_hand_over ring_finish ring_reader_successor
 * mirrors view_handed_over take_from drained any_ready arm_all follow_ring unblock find_before
 * mirrors ring_link ring_retire bus_changed raise_word change_all
 *
 * holds   as it is                    -DSAMPLES=4
 * holds   fence                       -DSAMPLES=3 -DFENCED
 * holds   publisher killed            -DSAMPLES=2 -DKILL
 * holds   pubsubd restarted           -DSAMPLES=2 -DRESTART
 * holds   pubsubd gone                -DSAMPLES=3 -DGONE
 * holds   stores leave out of order   -DSAMPLES=3 -DWEAK
 * holds   a second successor          -DSAMPLES=3 -DTWICE
 * holds+  the successor relaxed       -DSAMPLES=3 -DTWICE -DWEAK -DSUCCESSOR_RELAXED
 * holds+  longer                      -DSAMPLES=6
 * holds+  publisher killed, longer    -DSAMPLES=4 -DKILL
 * holds+  pubsubd restarted, longer   -DSAMPLES=4 -DRESTART
 * holds+  both killed                 -DSAMPLES=3 -DKILL -DRESTART
 * holds+  deeper buffers, weak        -DSAMPLES=4 -DWEAK -DBUFFER=3 -DRESTART
 * reaches the end by the successor    -DSAMPLES=3 -DREACH=1   REACH_handed_over
 * reaches the end by pubsubd          -DSAMPLES=3 -DKILL -DREACH=2   REACH_retired
 * reaches it goes on in A             -DSAMPLES=3 -DRESTART -DREACH=3   REACH_goes_on
 * breaks  SUCCESSOR_FIRST             -DSAMPLES=3 -DTWICE     all_is_taken
 * breaks  NO_LOOK_AFTER_SUCCESSOR     -DSAMPLES=3 -DTWICE     nothing_is_skipped
 * breaks  NOT_BLOCKED                 -DSAMPLES=3             nothing_is_skipped
 * breaks  RETIRED_BY_PUBSUBD_FIRST    -DSAMPLES=3 -DRESTART   all_is_taken
 * breaks  NO_RING_AT_HAND_OVER        -DSAMPLES=3 -DGONE      all_is_taken
 * breaks  NOT_READY_BY_SUCCESSOR      -DSAMPLES=3 -DGONE      all_is_taken
 * breaks  NO_BARRIER                  -DSAMPLES=3 -DGONE      all_is_taken
 * breaks  B_NOT_ARMED                 -DSAMPLES=3             all_is_taken
 * breaks  REAPED_IN_SILENCE           -DSAMPLES=3 -DKILL      the_end_is_noticed
 */
#include "constants.h"
#define PROCESSES 2
#define A 0
#define B 1
#define COMMITTED(ring) (ring)
#define BELL(ring) (2 + (ring))
#define ARMED(ring) (4 + (ring))
#define SUCCESSOR 6
#define GENERATION 7
#define LISTED 8 /* B is in the directory */
#define RETIRED(ring) (9 + (ring))
#define WORDS 11
#define SLEEPERS 1
#define SLEEP_WORDS 3 /* 0, 1: the bells; 2: the generation */
#include "tso.inc"
#include "futex.inc"

bit all_is_taken, the_end_is_noticed, nothing_is_skipped, nobody_is_stuck;
bit REACH_handed_over, REACH_retired, REACH_goes_on;
bit dead, daemon_dies, at_end; /* at_end: the subscriber knows that A is over */
bit asked, answered, failed, closed, done; /* what passes the socket */
byte taken[2], published; /* in A: a ghost, after the store */

inline finish(ring) {
#ifdef FENCED
    FENCE(0);
#endif
    if
    :: LOAD(0, ARMED(ring)) == bell ->
        bell++;
        STORE_RELEASE(0, BELL(ring), bell);
        wake_all(0, ring)
    :: else
    fi
}
inline hand_over() {
#ifdef SUCCESSOR_RELAXED
    STORE(0, SUCCESSOR, 1);
#else
    STORE_RELEASE(0, SUCCESSOR, 1);
#endif
#ifndef NO_RING_AT_HAND_OVER
    finish(A);
#endif
    skip
}
active proctype Publisher() {
    byte n, bell = MODEL_BELL_FIRST;
    {
        do
        :: n + 1 < SAMPLES -> /* the last sample is too large for A */
            n++;
            STORE_RELEASE(0, COMMITTED(A), n);
            published = n;
            finish(A)
        :: else -> break
        od;
#ifdef SUCCESSOR_FIRST
        hand_over();
        n++;
        STORE_RELEASE(0, COMMITTED(A), n);
        published = n;
#endif
        FENCE(0);
        asked = 1;
        if
        :: answered ->
#ifndef SUCCESSOR_FIRST
            hand_over();
#endif
            FENCE(0);
            closed = 1;
            bell = MODEL_BELL_FIRST;
            STORE_RELEASE(0, COMMITTED(B), 1);
            finish(B)
        :: failed && !answered -> /* the user is told, and goes on with what A takes */
#if REACH == 3
            REACHED(REACH_goes_on);
#endif
            n++;
            STORE_RELEASE(0, COMMITTED(A), n);
            published = n;
            finish(A)
        fi;
        done = 1
    } unless { dead }
}
#ifdef KILL
active proctype Fate() {
    if :: dead = 1 :: true fi
}
#endif

/* pubsubd's stores are seen in order: each change ends with a locked instruction. */
inline changed() {
    mem[GENERATION]++;
    wake_all(1, 2)
}
active proctype Daemon() {
again:
    {
        true;
end_serve:
        do
        :: asked && !answered && !failed && !mem[LISTED] && !dead ->
#ifdef RETIRED_BY_PUBSUBD_FIRST
            mem[RETIRED(A)] = 1;
#endif
            mem[LISTED] = 1;
            changed();
            answered = 1
        :: closed && !mem[RETIRED(A)] && !dead ->
            mem[RETIRED(A)] = 1;
            changed()
        :: dead && FENCE(0) && (!mem[RETIRED(A)] || mem[LISTED] && !mem[RETIRED(B)]) ->
            mem[RETIRED(A)] = 1;
            if :: mem[LISTED] -> mem[RETIRED(B)] = 1 :: else fi;
#ifndef REAPED_IN_SILENCE
            changed()
#endif
        od
    } unless { daemon_dies };
    failed = 1; /* the hang-up */
#ifndef GONE
    daemon_dies = 0;
    if /* started again: B is not claimed, if its publisher does not know of it */
    :: mem[LISTED] && !answered -> mem[RETIRED(B)] = 1
    :: else
    fi;
    changed();
    goto again
#endif
}
#if defined(RESTART) || defined(GONE)
active proctype DaemonsFate() {
    if :: daemon_dies = 1 :: true fi
}
#endif

#define ME 1
#ifdef TWICE
#define SUCCEEDED true
#else
#define SUCCEEDED known
#endif
inline arm(ring) {
    expected[ring] = LOAD(ME, BELL(ring));
    RMW(ME, if :: mem[ARMED(ring)] < expected[ring] -> mem[ARMED(ring)] = expected[ring]
               :: else fi; n = 0)
}
active proctype Subscriber() {
    byte s, i, expected[SLEEP_WORDS], n, seen, seen_empty;
    bit known, over, drained, stay;
    d_step { mem[BELL(A)] = MODEL_BELL_FIRST; mem[BELL(B)] = MODEL_BELL_FIRST };
    do
    :: true ->
        if /* refresh */
        :: LOAD(ME, GENERATION) != seen ->
            do
            :: true ->
                seen = LOAD(ME, GENERATION);
                known = LOAD(ME, LISTED);
                n = LOAD(ME, RETIRED(A));
                if :: seen == LOAD(ME, GENERATION) -> break :: else fi
            od;
                over = over || n;
            at_end = over;
#if REACH == 2
            if :: n && !drained -> REACHED(REACH_retired) :: else fi;
#endif
            n = 0
        :: else
        fi;
        /* take: A to its end, then B */
        stay = 1;
        do
        :: stay && !drained ->
            n = LOAD(ME, COMMITTED(A));
            if
            :: n > taken[A] -> taken[A] = n
            :: n == taken[A] && over ->
                drained = 1;
                HOLDS(nothing_is_skipped, taken[A] >= published && taken[B] == 0)
            :: n == taken[A] && !over ->
                if
                :: SUCCEEDED && LOAD(ME, SUCCESSOR) != MODEL_SUCCESSOR_NONE ->
#if REACH == 1
                    REACHED(REACH_handed_over);
#endif
#ifdef NO_LOOK_AFTER_SUCCESSOR
                    drained = 1;
                    HOLDS(nothing_is_skipped, taken[A] >= published && taken[B] == 0);
#endif
                    over = 1;
                    at_end = 1
                :: else -> stay = 0
                fi
            fi;
            n = 0
        :: stay && drained && known ->
            taken[B] = LOAD(ME, COMMITTED(B));
            stay = 0
        :: !stay || drained && !known -> break
        od;
        stay = 0;
#ifdef NOT_BLOCKED
        if :: known -> taken[B] = LOAD(ME, COMMITTED(B)) :: else fi;
#endif
        /* rest */
        expected[2] = seen;
        if :: !drained -> arm(A) :: else fi;
#ifdef B_NOT_ARMED
        expected[1] = LOAD(ME, BELL(B));
#else
        if :: drained && known -> arm(B) :: else fi;
#endif
#if defined(FENCED) || defined(NO_BARRIER)
        FENCE(ME);
#else
        MEMBARRIER(ME);
#endif
        if
        :: !drained -> stay = LOAD(ME, COMMITTED(A)) > taken[A];
#ifndef NOT_READY_BY_SUCCESSOR
            if :: SUCCEEDED && LOAD(ME, SUCCESSOR) != MODEL_SUCCESSOR_NONE -> stay = 1 :: else fi
#endif
        :: drained && known -> stay = LOAD(ME, COMMITTED(B)) > taken[B]
        :: else
        fi;
        if
        :: stay || LOAD(ME, GENERATION) != seen -> stay = 0
        :: else ->
            IS_AS_EXPECTED(ME, 2, GENERATION);
            if :: !drained -> IS_AS_EXPECTED(ME, 0, BELL(A)) :: else fi;
            if :: drained && known -> IS_AS_EXPECTED(ME, 1, BELL(B)) :: else fi;
            asleep[s] = 1;
end_asleep: woken[s]
        fi;
        unqueue()
    od
}
init {
    timeout;
    HOLDS(all_is_taken, taken[A] == mem[COMMITTED(A)] && taken[B] == mem[COMMITTED(B)]);
    HOLDS(the_end_is_noticed, !mem[RETIRED(A)] || at_end);
    HOLDS(nobody_is_stuck, done || dead);
end_done:
    false
}
