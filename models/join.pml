/* Need and join: a newcomer against a publisher that reclaims.
 *
 * Processes: the publisher; pubsubd, which gives a reliable subscriber its seat; the subscriber,
 * who opens, joins - where the ring ended when it was seated, or one sample of history before -
 * and reads by copying. Samples lie in their slots. Each may stop for ever anywhere: all
 * properties are assertions, which hold whoever goes on.
 *
 *   joined_loses_nothing   what a joined reliable reader has not read is not written over
 *   joined_is_intact       what it reads is whole, also when low has passed its need
 *   open_misses_nothing    it begins no later than the first publish that begins after its open
 *   seen_is_served         it begins no later than what the publisher publishes once it knows of
 *                          it (wait_subscribers): before it has joined by itself
 *   limit_is_not_passed    head <= limit, also when a need goes back (I1)
 *
 * mirrors ring_reclaim least_need need_of ring_roster_stale room_wait roster_refresh read_page
 * mirrors ring_reader_join store_need history_end ring_committed_end is_whole ring_take
 * mirrors roster_seat reset_entries store_cell reader_entry_reset subscription_open
 *
 * holds   as it is                    -DSAMPLES=5
 * holds   stores leave out of order   -DSAMPLES=4 -DWEAK
 * holds   pubsubd without its barrier  -DSAMPLES=5 -DNO_DAEMON_BARRIER
 * holds+  longer                      -DSAMPLES=8
 * holds+  depth 4, batches of 2       -DSAMPLES=9 -DDEPTH=4 -DBATCH=2
 * holds+  depth 4, out of order       -DSAMPLES=7 -DDEPTH=4 -DWEAK -DBUFFER=3
 * reaches low passes a need           -DSAMPLES=5 -DREACH=1  REACH_low_passed
 * reaches history                     -DSAMPLES=5 -DREACH=2  REACH_history
 * breaks  NO_SECOND_LOOK_AT_NEED      -DSAMPLES=5   joined_is_intact
 * breaks  NO_RECLAIM_FENCE            -DSAMPLES=5   joined_is_intact
 * breaks  NO_JOIN_FENCE               -DSAMPLES=5   joined_is_intact
 * breaks  NO_LOOK_AT_LOW              -DSAMPLES=5   joined_loses_nothing
 * breaks  NO_STALE_CHECK              -DSAMPLES=5   joined_is_intact
 * breaks  STALE_BEFORE_FENCE          -DSAMPLES=5   joined_is_intact
 * breaks  GENERATION_FIRST            -DSAMPLES=5   joined_is_intact
 * breaks  GENERATION_LOADED_LATE      -DSAMPLES=5   open_misses_nothing
 * breaks  WHOLE_BY_LOW_ALONE          -DSAMPLES=5   joined_loses_nothing
 * breaks  LIMIT_GOES_BACK             -DSAMPLES=5   limit_is_not_passed
 * breaks  NO_SEATED_NEED              -DSAMPLES=5   open_misses_nothing
 * breaks  CELL_BEFORE_NEED            -DSAMPLES=5   seen_is_served
 * breaks  NEED_BEFORE_READING         -DSAMPLES=5   joined_is_intact
 * breaks  NEED_RELAXED                -DSAMPLES=5 -DWEAK   seen_is_served
 */
#include "constants.h"
#define PROCESSES 3
#define INLINE
#define HEAD_IS_TOLD
#define COMMITS published++
#define REFRESHED if :: known && !seen_at -> seen_at = head + 1 :: else fi
byte published;  /* ghosts: what the publisher commits; and that when it first knew of */
byte seen_at;    /* the newcomer, + 1; and when pubsubd answered */
byte opened_at;
bit opened;
#include "ring.inc"

bit joined_loses_nothing, joined_is_intact, open_misses_nothing, seen_is_served;
bit limit_is_not_passed;
bit REACH_low_passed, REACH_history;

active proctype Publisher() {
    PUBLISHER_STATE;
    do
    :: head == SAMPLES -> break
    :: head < SAMPLES -> /* publish: room_wait(), then append */
again:
        stale = (LOAD(0, GENERATION) != seen);
        if
        :: stale -> refresh()
        :: else
        fi;
        if
        :: ROOM -> append()
        :: else ->
            reclaim();
            if
            :: stale -> stale = 0; goto again
            :: !stale && ROOM -> append()
            :: else ->
end_full:       LOAD(0, NEED) > head - DEPTH || LOAD(0, GENERATION) != seen;
                goto again
            fi
        fi
    od
}

active proctype Daemon() {
    byte end, seen_empty;
    mem[NEED] = NONE; /* as formatted, or as its last owner has left it */
    if /* something else of the topic may change first, and the roster be read then */
    :: RMW(1, mem[GENERATION]++)
    :: true
    fi;
#ifdef GENERATION_FIRST
    RMW(1, mem[GENERATION]++);
#endif
    committed_end(1, end);
#ifdef NO_SEATED_NEED
    end = NONE;
#endif
#ifdef CELL_BEFORE_NEED
    STORE_RELEASE(1, CELL, 1);
#endif
#ifdef NEED_RELAXED
    STORE(1, NEED, end);
    STORE(1, CELL, 1);
#else
    STORE_RELEASE(1, NEED, end);
#ifndef CELL_BEFORE_NEED
    STORE_RELEASE(1, CELL, 1);
#endif
#endif
#ifndef GENERATION_FIRST
    RMW(1, mem[GENERATION]++);
#endif
#ifndef NO_DAEMON_BARRIER
    MEMBARRIER(1);
#endif
    d_step { FENCE(1) -> opened = 1; opened_at = published; end = 0 } /* the answer is a syscall */
}

#define R 2
active proctype Reader() {
    byte s, q, l, one, two;
    opened;
    committed_end(R, s);
    q = LOAD(R, NEED);
    d_step { if :: q < s -> s = q :: else fi; q = 0 };
    if
    :: s > 0 -> s--;
#if REACH == 2
        l = LOAD(R, LOW); if :: l <= s -> REACHED(REACH_history) :: else fi
#endif
    :: true
    fi;
    l = LOAD(R, LOW);
    d_step { if :: l > s -> s = l :: else fi; l = 0 };
    do
    :: true ->
        STORE_RELEASE(R, NEED, s);
#ifndef NO_JOIN_FENCE
        FENCE(R);
#endif
#ifdef NO_LOOK_AT_LOW
        break
#else
        l = LOAD(R, LOW);
        if
        :: l <= s -> break
        :: else -> s = l
        fi
#endif
    od;
    HOLDS(open_misses_nothing, s <= opened_at);
    HOLDS(seen_is_served, seen_at == 0 || s < seen_at);
    do
    :: s >= SAMPLES -> break
    :: s < SAMPLES ->
        q = LOAD(R, SEQ(s));
        if
        :: q < s + 1 ->
end_nothing: LOAD(R, SEQ(s)) != q
        :: q > s + 1 -> HOLDS(joined_loses_nothing, false)
        :: q == s + 1 ->
#ifdef NEED_BEFORE_READING
            STORE_RELEASE(R, NEED, s + 1);
#endif
            one = LOAD(R, INDEX(s));
            two = LOAD(R, INDEX(s));
            l = LOAD(R, LOW);
#if REACH == 1
            if :: l > s -> REACHED(REACH_low_passed) :: else fi;
#endif
#ifdef WHOLE_BY_LOW_ALONE
            HOLDS(joined_loses_nothing, l <= s);
#endif
            HOLDS(joined_is_intact, one == s + 1 && two == s + 1);
            s++;
            STORE_RELEASE(R, NEED, s)
        fi;
        d_step { q = 0; l = 0; one = 0; two = 0 }
    od;
    STORE_RELEASE(R, NEED, NONE)
}
