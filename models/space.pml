/* Space: a publisher that waits for room, and reliable readers that wake it.
 *
 * Processes: the publisher; READERS reliable readers, which take one sample or all there are
 * before they store their need; pubsubd, when a reader may be killed. The ring's slots are one
 * word, the number of samples committed; it is full when a need is DEPTH behind. The publisher
 * waits for ROOM slots (a batch). Readers look for samples at once, or, with -DWITH_BELL, sleep on
 * the bell, so that both sides may sleep: whoever does so looks at the other's word before.
 *   -DFENCED        readers fence between need and starved (a process that has not registered, or
 *                   a ring in fence mode); -DUNREGISTERED: the barrier does not reach them
 *   -DKILL          reader 0 may be killed at any statement: pubsubd takes its seat away
 *   -DRESTART       pubsubd, too; it is started again, and adopts
 *
 *   all_is_published     when nothing moves any more, all samples are published
 *   all_is_taken         and taken by each living reader
 *
 * mirrors sleep_for_space ring_set_starved room_wait ring_reclaim least_need need_of
 * mirrors store_need settle_barrier ring_reader_settle wake_space ring_finish arm
 * mirrors roster_unseat release_entry reader_entry_reset subscription_close raise_word change_all
 *
 * holds   one reader                  -DSAMPLES=5
 * holds   two readers                 -DSAMPLES=3 -DREADERS=2
 * holds   a batch                     -DSAMPLES=5 -DROOM=2
 * holds   fence                       -DSAMPLES=4 -DFENCED -DUNREGISTERED
 * holds   both sides sleep            -DSAMPLES=5 -DDEPTH=3 -DROOM=3 -DWITH_BELL
 * holds   a reader killed             -DSAMPLES=4 -DKILL
 * holds   a reader and pubsubd        -DSAMPLES=3 -DKILL -DRESTART
 * holds   stores leave out of order   -DSAMPLES=4 -DWEAK
 * holds+  two readers, longer         -DSAMPLES=5 -DREADERS=2
 * holds+  a reader killed, longer     -DSAMPLES=4 -DREADERS=2 -DKILL
 * holds+  depth 3, batch of 3         -DSAMPLES=7 -DDEPTH=3 -DROOM=3 -DREADERS=2
 * holds+  both sides sleep, depth 3   -DSAMPLES=7 -DDEPTH=3 -DROOM=3 -DWITH_BELL
 * holds+  adopted in silence          -DSAMPLES=3 -DKILL -DRESTART -DADOPTED_IN_SILENCE
 * holds+  both sides, killed          -DSAMPLES=4 -DWITH_BELL -DKILL -DRESTART
 * holds+  killed, two readers         -DSAMPLES=4 -DREADERS=2 -DKILL -DRESTART
 * holds+  deeper buffers, weak        -DSAMPLES=5 -DWEAK -DBUFFER=3 -DREADERS=2
 * reaches a sleep                     -DSAMPLES=4 -DREACH=1     REACH_asleep
 * reaches both asleep at some time    -DSAMPLES=5 -DROOM=2 -DWITH_BELL -DREACH=2   REACH_reader_asleep
 * breaks  NO_BARRIER                  -DSAMPLES=4               all_is_published
 * breaks  UNREGISTERED                -DSAMPLES=4               all_is_published
 * breaks  NO_SECOND_LOOK              -DSAMPLES=4               all_is_published
 * breaks  SPACE_LOADED_LATE           -DSAMPLES=4               all_is_published
 * breaks  STARVED_BEFORE_NEED         -DSAMPLES=4               all_is_published
 * breaks  EQUAL_NEED_ONLY             -DSAMPLES=5               all_is_published
 * breaks  SPACE_NOT_RAISED            -DSAMPLES=4               all_is_published
 * breaks  SPACE_AFTER_WAKE            -DSAMPLES=4               all_is_published
 * breaks  STARVED_NOT_STORED          -DSAMPLES=4               all_is_published
 * breaks  LAZY_NEED                   -DSAMPLES=5 -DDEPTH=3 -DROOM=3 -DWITH_BELL   all_is_published
 * breaks  LAZY_LOOK                   -DSAMPLES=5 -DWITH_BELL   all_is_published
 * breaks  REAPED_IN_SILENCE           -DSAMPLES=4 -DKILL        all_is_published
 * breaks  REAPED_NEED_LATE            -DSAMPLES=4 -DKILL        all_is_published
 */
#include "constants.h"
#ifndef READERS
#define READERS 1
#endif
#ifndef DEPTH
#define DEPTH 2
#endif
#ifndef ROOM
#define ROOM 1
#endif
#define PROCESSES (1 + READERS)
#define NONE 255
#define COMMITTED 0
#define STARVED 1
#define BELL 2
#define ARMED 3
#define SPACE 4
#define GENERATION 5
#define NEED(r) (5 + (r)) /* r: 1, 2 */
#define GONE(r) (7 + (r)) /* the roster no longer has it */
#define WORDS 10
/* Sleeper 0 is the publisher: words 0, space, and 1, generation; 1 the reader: 2, the bell. */
#define SLEEPERS 2
#define SLEEP_WORDS 3
#include "tso.inc"
#include "futex.inc"

bit all_is_published, all_is_taken;
bit REACH_asleep, REACH_reader_asleep;
bit may_die, dead, published, done[3];

inline ring_the_bell() { /* ring_finish(), and the wake */
    if
    :: LOAD(0, ARMED) == bell ->
        bell++;
        STORE_RELEASE(0, BELL, bell);
        wake_all(0, 2)
    :: else
    fi
}
inline least_need() {
    need = (gone[1] -> NONE : LOAD(0, NEED(1)));
#if READERS > 1
    n = (gone[2] -> NONE : LOAD(0, NEED(2)));
    d_step { if :: n < need -> need = n :: else fi; n = 0 }
#endif
}
inline refresh() {
    do
    :: true ->
        seen = LOAD(0, GENERATION);
        gone[1] = LOAD(0, GONE(1));
#if READERS > 1
        gone[2] = LOAD(0, GONE(2));
#endif
        if :: seen == LOAD(0, GENERATION) -> break :: else fi
    od
}
#define FULL (need != NONE && need + DEPTH <= head)

inline sleep_for_space() {
#ifndef SPACE_LOADED_LATE
    expected[0] = LOAD(0, SPACE);
#endif
    expected[1] = seen;
#ifndef STARVED_NOT_STORED
    wanted = (ROOM > DEPTH -> head : head - DEPTH + ROOM);
    STORE(0, STARVED, wanted);
    wanted = 0;
#endif
#if defined(NO_BARRIER) || defined(UNREGISTERED)
    FENCE(0);
#else
    MEMBARRIER(0);
#endif
#ifndef NO_SECOND_LOOK
    FENCE(0); /* reclaim */
    least_need();
    stale = (LOAD(0, GENERATION) != seen);
#endif
    if
    :: FULL && !stale ->
#ifdef SPACE_LOADED_LATE
        expected[0] = LOAD(0, SPACE);
#endif
        IS_AS_EXPECTED(0, 1, GENERATION);
        IS_AS_EXPECTED(0, 0, SPACE);
        asleep[0] = 1;
#if REACH == 1
        if :: !woken[0] -> REACHED(REACH_asleep) :: else fi;
#endif
end_asleep:
        woken[0]
    :: else
    fi;
    unqueue();
    STORE(0, STARVED, MODEL_STARVED_NONE);
    need = 0
}
active proctype Publisher() {
    byte s, head, need, wanted, n, seen, seen_empty, bell = MODEL_BELL_FIRST, i, expected[SLEEP_WORDS];
    bit gone[3], stale;
    mem[BELL] = MODEL_BELL_FIRST;
    may_die = 1;
    do
    :: head == SAMPLES -> break
    :: head < SAMPLES ->
        stale = (LOAD(0, GENERATION) != seen);
        if :: stale -> refresh(); stale = 0 :: else fi;
        least_need();
        if
        :: FULL ->
#ifdef LAZY_LOOK
            skip;
#endif
            sleep_for_space()
        :: else ->
            d_step { head++; need = 0 };
            STORE_RELEASE(0, COMMITTED, head);
#ifdef WITH_BELL
#ifdef LAZY_LOOK
            if :: head % (DEPTH + 1) == 0 -> ring_the_bell() :: else fi
#else
            ring_the_bell()
#endif
#endif
        fi
    od;
#if defined(WITH_BELL) && defined(LAZY_LOOK)
    ring_the_bell();
#endif
    published = 1
}

/* store_need(), and what its caller does if the publisher waits for just this */
inline settle() {
#ifdef STARVED_BEFORE_NEED
    starved = LOAD(r, STARVED);
#endif
    STORE_RELEASE(r, NEED(r), next);
#ifdef FENCED
    FENCE(r);
#endif
#ifndef STARVED_BEFORE_NEED
    starved = LOAD(r, STARVED);
#endif
    if
#ifdef EQUAL_NEED_ONLY
    :: starved != MODEL_STARVED_NONE && starved == next ->
#else
    :: starved != MODEL_STARVED_NONE && old < starved && starved <= next ->
#endif
#ifdef SPACE_AFTER_WAKE
        wake_all(r, 0);
#endif
#ifndef SPACE_NOT_RAISED
        RMW(r, mem[SPACE]++);
#endif
#ifndef SPACE_AFTER_WAKE
        wake_all(r, 0)
#endif
    :: else
    fi;
    d_step { old = next; starved = 0 }
}
inline sleep_for_data() {
    expected[2] = LOAD(r, BELL);
    RMW(r, if :: mem[ARMED] < expected[2] -> mem[ARMED] = expected[2] :: else fi; n = 0);
    MEMBARRIER(r);
    n = LOAD(r, COMMITTED);
    if
    :: n == next ->
        IS_AS_EXPECTED(r, 2, BELL);
        asleep[1] = 1;
#if REACH == 2
        if :: !woken[1] && next > 2 -> REACHED(REACH_reader_asleep) :: else fi;
#endif
end_nothing:
        woken[1]
    :: else
    fi;
    unqueue();
    n = 0
}
proctype Reader(byte r) {
    byte s = 1, next, old, n, starved, seen_empty, i, expected[SLEEP_WORDS];
    {
        do
        :: next == SAMPLES -> break
        :: next < SAMPLES ->
            n = LOAD(r, COMMITTED);
            if
            :: n > next ->
                if /* one, or all */
                :: next++
                :: n > next + 1 -> next = n
                fi;
                n = 0;
#ifdef LAZY_NEED
                if :: next - old >= 2 -> settle() :: else fi
#else
                settle()
#endif
            :: n <= next ->
                n = 0;
#ifdef WITH_BELL
                sleep_for_data()
#else
end_nothing:    LOAD(r, COMMITTED) != next
#endif
            fi
        od;
        done[r] = 1
    } unless { dead && r == 1 };
    unqueue()
}

#ifdef KILL
bit daemon_dies, reaped;
active proctype Fate() {
    if :: may_die -> dead = 1 :: may_die fi
}
inline reap() {
#ifdef REAPED_IN_SILENCE
    mem[NEED(1)] = NONE;
#else
#ifndef REAPED_NEED_LATE
    mem[NEED(1)] = NONE;
#endif
    mem[SPACE]++;
    wake_all(1, 0);
#ifdef REAPED_NEED_LATE
    mem[NEED(1)] = NONE;
#else
    mem[GONE(1)] = 1;
    mem[GENERATION]++;
    wake_all(1, 1);
#endif
#endif
    reaped = 1
}
active proctype Daemon() {
    {
        true;
end_life:
        dead && FENCE(1);
        reap()
    } unless { daemon_dies };
    if
    :: daemon_dies && !reaped -> /* started again: it looks at whoever has a seat still */
        daemon_dies = 0;
        if
        :: mem[GONE(1)]
        :: else ->
end_again:  dead && FENCE(1);
            reap()
        fi;
#ifndef ADOPTED_IN_SILENCE
        mem[GENERATION]++;
        wake_all(1, 1)
#endif
    :: else
    fi
}
#ifdef RESTART
active proctype DaemonsFate() {
    if :: may_die -> daemon_dies = 1 :: may_die fi
}
#endif
#endif

init {
    atomic {
        may_die;
        run Reader(1);
#if READERS > 1
        run Reader(2)
#endif
    }
    timeout;
    HOLDS(all_is_published, published);
    HOLDS(all_is_taken, dead || done[1]);
#if READERS > 1
    HOLDS(all_is_taken, done[2]);
#endif
end_done:
    false
}
