/* A new group: a readers page is added while the publisher scans.
 *
 * Processes: the publisher, who knows no group yet; pubsubd, which makes a page with the first
 * reader of a group, links it, raises the generation, and answers; that reader, who then takes,
 * arms in its group's word, and sleeps. The ring's slots are one word, the number of samples
 * committed. FIELDS stands for what a page's record says beside its link.
 *   -DFENCED      the ring is in fence mode
 *   -DRESTART     pubsubd may be killed at any statement before its answer, and is started again;
 *                 the subscriber asks it once more, as its seat may be there or not
 *
 *   all_is_taken     when nothing moves any more, the newcomer has taken all samples
 *   page_is_whole    who is led to a page finds it filled
 *
 * mirrors finish_stale roster_refresh read_roster read_page ring_finish ring_raise_bell ring_roster_stale
 * mirrors link_page add_page roster_seat bus_changed subscription_open arm arm_all
 *
 * holds   bare                        -DSAMPLES=4
 * holds   fence                       -DSAMPLES=4 -DFENCED
 * holds   pubsubd restarted           -DSAMPLES=3 -DRESTART
 * holds   stores leave out of order   -DSAMPLES=3 -DWEAK
 * holds   pubsubd without its barrier  -DSAMPLES=3 -DNO_DAEMON_BARRIER
 * holds   its page cannot be had      -DSAMPLES=3 -DPAGE_NOT_HAD
 * holds+  longer                      -DSAMPLES=8
 * holds+  longer, fence, restarted    -DSAMPLES=6 -DFENCED -DRESTART
 * holds+  deeper buffers, weak        -DSAMPLES=5 -DWEAK -DBUFFER=3
 * reaches a sleep                     -DSAMPLES=3 -DREACH=1   REACH_asleep
 * reaches a group found by the second look  -DSAMPLES=3 -DREACH=2   REACH_second_look
 * breaks  NO_LOOK_AFTER_COMMIT        -DSAMPLES=3             all_is_taken
 * breaks  LOOK_BEFORE_COMMIT          -DSAMPLES=3             all_is_taken
 * breaks  NO_SECOND_FINISH            -DSAMPLES=3             all_is_taken
 * breaks  GENERATION_FIRST            -DSAMPLES=3             all_is_taken
 * breaks  GENERATION_LOADED_LATE      -DSAMPLES=3             all_is_taken
 * breaks  NO_BARRIER                  -DSAMPLES=3             all_is_taken
 * breaks  NO_PUBLISHER_FENCE          -DSAMPLES=3 -DFENCED    all_is_taken
 * breaks  LINK_FIRST                  -DSAMPLES=3             page_is_whole
 * breaks  LINK_RELAXED                -DSAMPLES=3 -DWEAK      page_is_whole
 * breaks  WAKE_WITHOUT_BELL           -DSAMPLES=3             all_is_taken
 */
#include "constants.h"
#define PROCESSES 3
#define COMMITTED 0
#define BELL 1
#define ARMED 2
#define GENERATION 3
#define PAGE 4
#define FIELDS 5
#define WORDS 6
#define SLEEPERS 1
#define SLEEP_WORDS 2 /* 0: the bell; 1: the generation */
#include "tso.inc"
#include "futex.inc"

bit all_is_taken, page_is_whole, REACH_asleep, REACH_second_look;
bit opened, daemon_dies;
byte taken;

inline refresh() {
    do
    :: true ->
#ifndef GENERATION_LOADED_LATE
        seen = LOAD(0, GENERATION);
#endif
        known = LOAD(0, PAGE);
        if :: known -> HOLDS(page_is_whole, LOAD(0, FIELDS)) :: else fi;
#ifdef GENERATION_LOADED_LATE
        seen = LOAD(0, GENERATION);
        break
#else
        if :: seen == LOAD(0, GENERATION) -> break :: else fi
#endif
    od
}
inline finish() {
#if defined(FENCED) && !defined(NO_PUBLISHER_FENCE)
    FENCE(0);
#endif
    if
    :: known && LOAD(0, ARMED) == bell ->
        bell++;
        STORE_RELEASE(0, BELL, bell);
        wake_all(0, 0)
    :: else
    fi
}
active proctype Publisher() {
    byte head, seen, bell = MODEL_BELL_FIRST;
    bit known, stale;
    mem[BELL] = MODEL_BELL_FIRST;
    do
    :: head == SAMPLES -> break
    :: head < SAMPLES ->
        stale = (LOAD(0, GENERATION) != seen);
        if :: stale -> refresh(); stale = 0 :: else fi;
#ifdef LOOK_BEFORE_COMMIT
        stale = (LOAD(0, GENERATION) != seen);
#endif
        head++;
        STORE_RELEASE(0, COMMITTED, head);
        finish();
#if !defined(NO_LOOK_AFTER_COMMIT) && !defined(LOOK_BEFORE_COMMIT)
        stale = (LOAD(0, GENERATION) != seen);
#endif
        if
        :: stale ->
#if defined(PAGE_NOT_HAD) || defined(WAKE_WITHOUT_BELL)
#ifdef PAGE_NOT_HAD
            bell++;
            STORE_RELEASE(0, BELL, bell);
#endif
            wake_all(0, 0);
#else
            refresh();
#if REACH == 2
            if :: known && LOAD(0, ARMED) == bell -> REACHED(REACH_second_look) :: else fi;
#endif
#ifndef NO_SECOND_FINISH
            finish();
#endif
#endif
            stale = 0
        :: else
        fi
    od
}

#define D 1
inline seat() {
#ifdef GENERATION_FIRST
    RMW(D, mem[GENERATION]++);
    wake_all(D, 1);
#endif
    if
    :: LOAD(D, PAGE) /* there already, by the one before it */
    :: else ->
#ifdef LINK_FIRST
        STORE_RELEASE(D, PAGE, 1);
#endif
        STORE(D, FIELDS, 1);
#ifdef LINK_RELAXED
        STORE(D, PAGE, 1)
#elif !defined(LINK_FIRST)
        STORE_RELEASE(D, PAGE, 1)
#endif
    fi;
#ifndef GENERATION_FIRST
    RMW(D, mem[GENERATION]++);
    wake_all(D, 1);
#endif
#ifndef NO_DAEMON_BARRIER
    MEMBARRIER(D);
#endif
    FENCE(D); /* the answer is a system call */
    opened = 1
}
active proctype Daemon() {
    byte seen_empty;
    {
        if /* something else of the topic may change first */
        :: RMW(D, mem[GENERATION]++); wake_all(D, 1)
        :: true
        fi;
        seat()
    } unless { daemon_dies };
    if
    :: !opened -> /* started again: what it finds is adopted, the topic's generation raised */
        seen_empty = 0;
        FENCE(D);
        daemon_dies = 0;
        RMW(D, mem[GENERATION]++);
        wake_all(D, 1);
        seat()
    :: opened
    fi
}
#ifdef RESTART
active proctype Fate() {
    if :: daemon_dies = 1 :: true fi
}
#endif

#define ME 2
active proctype Newcomer() {
    byte s, i, expected[SLEEP_WORDS], n, seen_empty;
    opened && mem[BELL] != 0;
    do
    :: true ->
        expected[1] = LOAD(ME, GENERATION);
        taken = LOAD(ME, COMMITTED);
        expected[0] = LOAD(ME, BELL);
        RMW(ME, if :: mem[ARMED] < expected[0] -> mem[ARMED] = expected[0] :: else fi; n = 0);
#if defined(FENCED) || defined(NO_BARRIER)
        FENCE(ME);
#else
        MEMBARRIER(ME);
#endif
        n = LOAD(ME, COMMITTED);
        if
        :: n > taken || LOAD(ME, GENERATION) != expected[1]
        :: else ->
            IS_AS_EXPECTED(ME, 1, GENERATION);
            IS_AS_EXPECTED(ME, 0, BELL);
            n = 0;
            asleep[s] = 1;
#if REACH == 1
            if :: !woken[s] -> REACHED(REACH_asleep) :: else fi;
#endif
end_asleep: woken[s]
        fi;
        n = 0;
        unqueue()
    od
}
init {
    timeout;
    HOLDS(all_is_taken, taken == mem[COMMITTED] && mem[COMMITTED] == SAMPLES);
end_done:
    false
}
