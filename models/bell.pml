/* The data bell: publishers that ring it only when somebody has armed, and sleepers.
 *
 * Processes: PUBLISHERS, each with a ring; SLEEPERS, each subscribed to all of them, of one trust
 * group (or each of its own: -DGROUPS); pubsubd, when somebody may be killed. A ring is bare, or
 * in fence mode (-DFENCED: ring 0, -DFENCED_1: ring 1). A ring's slots are one word here: how many
 * samples are committed. `armed` of a ring is at ARMED, one word a group.
 *   -DKILL        publisher 0 may be killed at any statement; pubsubd finds out and retires its ring
 *   -DRESTART     pubsubd, too; it is started again, and adopts
 *   -DSTOP        publisher 0 may be stopped at any statement, for ever
 *   -DKILL_SLEEPER the last sleeper may be killed at any statement
 *
 *   all_is_taken         when nothing moves any more, each living sleeper has taken all samples;
 *                        of a stopped publisher all but the one it was ringing for
 *   the_end_is_noticed   and knows that a killed publisher's ring has ended
 *   one_wake_an_arming   a wake is never paid twice for the same arming
 *
 * mirrors ring_finish ring_raise_bell arm arm_all any_ready sleep_once rest descriptor_rest subscriber_refresh
 * mirrors ring_retire bus_changed raise_word change_all
 *
 * holds   bare                        -DSAMPLES=4
 * holds   fence                       -DSAMPLES=4 -DFENCED
 * holds   two sleepers                -DSAMPLES=2 -DSLEEPERS=2
 * holds   two groups                  -DSAMPLES=1 -DSLEEPERS=2 -DGROUPS
 * holds   rings of both modes         -DSAMPLES=1 -DPUBLISHERS=2 -DFENCED
 * holds   killed                      -DSAMPLES=2 -DKILL
 * holds   killed, pubsubd, too        -DSAMPLES=1 -DKILL -DRESTART
 * holds   stopped                     -DSAMPLES=3 -DSTOP
 * holds   a sleeper killed            -DSAMPLES=1 -DSLEEPERS=2 -DKILL_SLEEPER
 * holds   stores leave out of order   -DSAMPLES=3 -DWEAK
 * holds+  two sleepers, two rings     -DSAMPLES=1 -DSLEEPERS=2 -DPUBLISHERS=2
 * holds+  two groups, longer          -DSAMPLES=2 -DSLEEPERS=2 -DGROUPS
 * holds+  two sleepers, longer        -DSAMPLES=3 -DSLEEPERS=2
 * holds+  a sleeper killed, longer    -DSAMPLES=2 -DSLEEPERS=2 -DKILL_SLEEPER
 * holds+  both modes, longer          -DSAMPLES=2 -DPUBLISHERS=2 -DFENCED
 * holds+  killed, two rings           -DSAMPLES=1 -DPUBLISHERS=2 -DKILL -DRESTART
 * holds+  deeper buffers, weak        -DSAMPLES=3 -DWEAK -DBUFFER=3 -DSLEEPERS=2
 * holds+  killed, pubsubd, longer     -DSAMPLES=2 -DKILL -DRESTART
 * reaches a sleep                     -DSAMPLES=3 -DREACH=1   REACH_asleep
 * reaches a second sleep              -DSAMPLES=3 -DREACH=2   REACH_asleep_again
 * breaks  NO_BARRIER                  -DSAMPLES=2             all_is_taken
 * breaks  NO_PUBLISHER_FENCE          -DSAMPLES=2 -DFENCED    all_is_taken
 * breaks  NO_SECOND_LOOK              -DSAMPLES=2             all_is_taken
 * breaks  ARM_PLAIN                   -DSAMPLES=2 -DSLEEPERS=2   all_is_taken
 * breaks  BELL_AFTER_ARMING           -DSAMPLES=2             all_is_taken
 * breaks  ARMED_BEFORE_COMMIT         -DSAMPLES=2             all_is_taken
 * breaks  BELL_AFTER_WAKE             -DSAMPLES=2             all_is_taken
 * breaks  BELL_NOT_RAISED             -DSAMPLES=2             one_wake_an_arming
 * breaks  UNREGISTERED                -DSAMPLES=2             all_is_taken
 * breaks  FENCE_SUFFICES              -DSAMPLES=2 -DPUBLISHERS=2 -DFENCED   all_is_taken
 * breaks  ONE_GROUP_ONLY              -DSAMPLES=2 -DSLEEPERS=2 -DGROUPS     all_is_taken
 * breaks  WAKE_ONE                    -DSAMPLES=2 -DSLEEPERS=2   all_is_taken
 * breaks  RING_WHEN_ARMED_EVER        -DSAMPLES=3             one_wake_an_arming
 * breaks  WAKE_THE_BELL_ONLY          -DSAMPLES=1 -DKILL      the_end_is_noticed
 * breaks  GENERATION_LOADED_LATE      -DSAMPLES=1 -DKILL      the_end_is_noticed
 * breaks  GENERATION_FIRST            -DSAMPLES=1 -DKILL      the_end_is_noticed
 * breaks  ADOPTED_IN_SILENCE          -DSAMPLES=1 -DKILL -DRESTART   all_is_taken
 */
#include "constants.h"
#ifndef PUBLISHERS
#define PUBLISHERS 1
#endif
#ifndef SLEEPERS
#define SLEEPERS 1
#endif
#define PROCESSES (PUBLISHERS + SLEEPERS)
#define SAMPLE(p) (p)
#define BELL(p) (2 + (p))
#ifdef GROUPS
#define ARMED(p, s) (4 + 2 * (s) + (p))
#else
#define ARMED(p, s) (4 + (p))
#endif
#define GENERATION 8
#define RETIRED 9
#define WORDS 10
#define SLEEP_WORDS 3 /* 0, 1: the bells; 2: the generation */
#include "tso.inc"
#include "futex.inc"

bit all_is_taken, the_end_is_noticed, one_wake_an_arming;
bit REACH_asleep, REACH_asleep_again;
bit may_die, dead, reaped, sleeper_dead; /* may_die: everything has begun */
byte arms[2], wakes[2], taken[SLEEPERS * 2];
bit noticed[SLEEPERS];

#ifdef FENCED
#define IS_FENCED(p) (p == 0 || FENCED_1)
#else
#define IS_FENCED(p) (p == 1 && FENCED_1)
#endif
#ifndef FENCED_1
#define FENCED_1 0
#endif
#define ALL_FENCED (IS_FENCED(0) && (PUBLISHERS == 1 || IS_FENCED(1)))

inline ring_the_bell() {
#ifndef BELL_NOT_RAISED
    bell++;
#endif
#ifndef BELL_AFTER_WAKE
    STORE_RELEASE(p, BELL(p), bell);
#endif
    FENCE(p); /* the system call */
#ifdef WAKE_ONE
    d_step { if :: queued[p] -> woken[0] = 1 :: queued[SLEEP_WORDS + p] -> woken[1] = 1
                :: else fi; skip };
#else
    wake_all(p, p);
#endif
    d_step { wakes[p]++; HOLDS(one_wake_an_arming, wakes[p] <= arms[p]) };
#ifdef BELL_AFTER_WAKE
    STORE_RELEASE(p, BELL(p), bell)
#endif
}
proctype Publisher(byte p) {
    byte n, bell = MODEL_BELL_FIRST;
    bit rung;
    {
        do
        :: n == SAMPLES -> break
        :: n < SAMPLES ->
            n++;
#ifdef ARMED_BEFORE_COMMIT
            rung = (LOAD(p, ARMED(p, 0)) == bell);
#endif
            STORE_RELEASE(p, SAMPLE(p), n);
#ifndef NO_PUBLISHER_FENCE
            if :: IS_FENCED(p) -> FENCE(p) :: else fi;
#endif
#ifndef ARMED_BEFORE_COMMIT
#ifdef RING_WHEN_ARMED_EVER
            rung = (LOAD(p, ARMED(p, 0)) != MODEL_ARMED_FIRST);
#else
            rung = (LOAD(p, ARMED(p, 0)) == bell);
#endif
#endif
#if defined(GROUPS) && !defined(ONE_GROUP_ONLY)
            rung = rung || (LOAD(p, ARMED(p, 1)) == bell);
#endif
            if
            :: rung -> rung = 0; ring_the_bell()
            :: else
            fi
        od
    } unless { p == 0 && dead }
}

#if defined(KILL) || defined(STOP)
active proctype Fate() {
    if :: may_die -> dead = 1 :: may_die fi
}
#endif

#ifdef KILL
bit daemon_dies;
active proctype Daemon() {
    {
        true;
end_life: dead && FENCE(0); /* of the dead all stores are seen by the time that the kernel tells */
#ifndef WAKE_THE_BELL_ONLY
#ifdef GENERATION_FIRST
        mem[GENERATION]++;
        wake_all(0, 2);
#endif
        mem[RETIRED] = 1;
#ifndef GENERATION_FIRST
        mem[GENERATION]++;
        wake_all(0, 2);
#endif
#else
        mem[RETIRED] = 1;
        wake_all(0, 0);
#endif
        reaped = 1
    } unless { daemon_dies };
    if
    :: daemon_dies && !reaped -> /* started again: what was retired before is, and it looks at the rest */
        daemon_dies = 0;
        if
        :: mem[RETIRED]
        :: else ->
end_again:  dead && FENCE(0); mem[RETIRED] = 1
#ifdef ADOPTED_IN_SILENCE
            ; mem[GENERATION]++; wake_all(0, 2)
#endif
        fi;
#ifndef ADOPTED_IN_SILENCE
        mem[GENERATION]++;
        wake_all(0, 2);
#endif
        reaped = 1
    :: else
    fi
}
#ifdef RESTART
active proctype DaemonsFate() {
    if :: may_die -> daemon_dies = 1 :: may_die fi
}
#endif
#endif

#define ME (PUBLISHERS + s)
inline arm(r) {
    expected[r] = LOAD(ME, BELL(r));
#ifdef ARM_PLAIN
    STORE(ME, ARMED(r, s), expected[r]);
    arms[r]++;
#else
    do /* armed = max(armed, bell), by compare and swap */
    :: true ->
        armed = LOAD(ME, ARMED(r, s));
        if
        :: armed >= expected[r] -> break
        :: else ->
            RMW(ME, swapped = (mem[ARMED(r, s)] == armed); if
                :: swapped -> mem[ARMED(r, s)] = expected[r]; arms[r]++
                :: else fi; armed = 0);
            if :: swapped -> break :: else fi
        fi
    od;
    armed = 0; swapped = 0;
#endif
#ifdef BELL_AFTER_ARMING
    expected[r] = LOAD(ME, BELL(r));
#endif
}
inline barrier() {
#if defined(NO_BARRIER)
    FENCE(ME);
#elif defined(UNREGISTERED)
    FENCE(ME); /* it does not reach who has not registered: here, all publishers */
#elif defined(FENCE_SUFFICES)
    if :: IS_FENCED(0) -> FENCE(ME) :: else -> MEMBARRIER(ME) fi;
#else
    if :: ALL_FENCED -> FENCE(ME) :: else -> MEMBARRIER(ME) fi;
#endif
}
inline look(r) {
    n = LOAD(ME, SAMPLE(r));
    if :: n > taken[s * 2 + r] -> news = 1 :: else fi;
    n = 0
}
proctype Sleeper(byte s) {
    byte expected[SLEEP_WORDS], i, armed, n, generation, seen_empty;
    bit news, swapped;
#if REACH == 2
    byte sleeps;
#endif
    {
        do
        :: true -> /* refresh: what is read between two equal loads of the generation is whole; take all */
#ifndef GENERATION_LOADED_LATE
        generation = LOAD(ME, GENERATION);
#endif
        noticed[s] = LOAD(ME, RETIRED);
#ifdef GENERATION_LOADED_LATE
        generation = LOAD(ME, GENERATION);
#endif
        taken[s * 2] = LOAD(ME, SAMPLE(0));
#if PUBLISHERS > 1
        taken[s * 2 + 1] = LOAD(ME, SAMPLE(1));
#endif
        expected[2] = generation;
        arm(0);
#if PUBLISHERS > 1
        arm(1);
#endif
        barrier();
#ifndef NO_SECOND_LOOK
        look(0);
#if PUBLISHERS > 1
        look(1);
#endif
#endif
        if
#ifndef NO_SECOND_LOOK
        :: news || LOAD(ME, GENERATION) != generation -> news = 0
#endif
        :: else ->
            IS_AS_EXPECTED(ME, 2, GENERATION);
            IS_AS_EXPECTED(ME, 0, BELL(0));
#if PUBLISHERS > 1
            IS_AS_EXPECTED(ME, 1, BELL(1));
#endif
#if REACH == 1
            if :: !woken[s] && mem[SAMPLE(0)] == 1 -> REACHED(REACH_asleep) :: else fi;
#elif REACH == 2
            if :: !woken[s] && sleeps > 0 && mem[SAMPLE(0)] == 2 -> REACHED(REACH_asleep_again)
               :: else fi;
            sleeps = 1;
#endif
            asleep[s] = 1;
end_asleep: woken[s]
        fi;
        unqueue()
        od
    } unless { sleeper_dead && s == SLEEPERS - 1 };
    unqueue()
}
#ifdef KILL_SLEEPER
active proctype SleepersFate() {
    if :: may_die -> sleeper_dead = 1 :: may_die fi
}
#endif

#define TAKEN(s, p) (taken[s * 2 + p] == mem[SAMPLE(p)] || \
                     (p == 0 && dead && !reaped && mem[SAMPLE(p)] - taken[s * 2 + p] == 1))
#define DONE(s) \
    HOLDS(all_is_taken, s == SLEEPERS - 1 && sleeper_dead || asleep[s] && \
                        TAKEN(s, 0) && (PUBLISHERS == 1 || TAKEN(s, 1))); \
    HOLDS(the_end_is_noticed, s == SLEEPERS - 1 && sleeper_dead || noticed[s] == mem[RETIRED])

init {
    atomic {
        mem[BELL(0)] = MODEL_BELL_FIRST;
        mem[BELL(1)] = MODEL_BELL_FIRST;
        run Publisher(0);
#if PUBLISHERS > 1
        run Publisher(1);
#endif
        run Sleeper(0);
#if SLEEPERS > 1
        run Sleeper(1);
#endif
        may_die = 1
    }
    timeout;
    DONE(0);
#if SLEEPERS > 1
    DONE(1)
#endif
end_done:
    false
}
