/* Memory as several processes see it, for all models here.
 *
 * Each process has a store buffer of BUFFER entries; Memory, a process of its own, writes entries
 * out at any time. LOAD sees the own buffer first, then memory; loads are executed in program
 * order. FENCE waits until the own buffer is empty; an atomic read-modify-write does so, too, and
 * then acts on memory. A store into a full buffer waits.
 *   as it is    x86-TSO: entries leave in order
 *   -DWEAK      any entry may leave before an older one of another word, unless it is a release
 *               store. Loads stay in order: where a model lets one be early it says so
 * MEMBARRIER (GLOBAL_EXPEDITED): an own fence, then each other process's buffer is empty at an
 * instant of its own within the call, in any order. */
#ifndef BUFFER
#define BUFFER 2
#endif

typedef Buffer {
    byte n;
    byte word[BUFFER];
    byte value[BUFFER];
    bit release[BUFFER]
}
Buffer sb[PROCESSES];
byte mem[WORDS];

#define IN_BUFFER(p, x, i) (sb[p].n > i && sb[p].word[i] == (x))
#if BUFFER == 2
#define LOAD(p, x) (IN_BUFFER(p, x, 1) -> sb[p].value[1] : \
                   (IN_BUFFER(p, x, 0) -> sb[p].value[0] : mem[x]))
#elif BUFFER == 3
#define LOAD(p, x) (IN_BUFFER(p, x, 2) -> sb[p].value[2] : \
                   (IN_BUFFER(p, x, 1) -> sb[p].value[1] : \
                   (IN_BUFFER(p, x, 0) -> sb[p].value[0] : mem[x])))
#endif

inline store(p_, x_, v_, r_) {
    d_step {
        sb[p_].n < BUFFER ->
        sb[p_].word[sb[p_].n] = x_;
        sb[p_].value[sb[p_].n] = v_;
        sb[p_].release[sb[p_].n] = r_;
        sb[p_].n++
    }
}
#define STORE(p, x, v) store(p, x, v, 0)
#ifdef WEAK
#define STORE_RELEASE(p, x, v) store(p, x, v, 1)
#else
#define STORE_RELEASE(p, x, v) store(p, x, v, 0)
#endif

#define FENCE(p) (sb[p].n == 0)
/* An atomic read-modify-write of a word: `action` sees and changes mem[]. */
#define RMW(p, action) d_step { FENCE(p) -> action }

inline leave(p_, i_) { /* entry i_ of a buffer becomes visible */
    mem[sb[p_].word[i_]] = sb[p_].value[i_];
    if
    :: i_ == 0 && sb[p_].n > 1 ->
        sb[p_].word[0] = sb[p_].word[1]; sb[p_].value[0] = sb[p_].value[1];
        sb[p_].release[0] = sb[p_].release[1]
    :: else
    fi;
#if BUFFER == 3
    if
    :: i_ <= 1 && sb[p_].n > 2 ->
        sb[p_].word[1] = sb[p_].word[2]; sb[p_].value[1] = sb[p_].value[2];
        sb[p_].release[1] = sb[p_].release[2]
    :: else
    fi;
#endif
    sb[p_].n--;
    sb[p_].word[sb[p_].n] = 0; sb[p_].value[sb[p_].n] = 0; sb[p_].release[sb[p_].n] = 0
}

#define EARLY_1(p) (sb[p].n > 1 && !sb[p].release[1] && sb[p].word[1] != sb[p].word[0])
#define EARLY_2(p) (sb[p].n > 2 && !sb[p].release[2] && sb[p].word[2] != sb[p].word[0] && \
                    sb[p].word[2] != sb[p].word[1])
#if !defined(WEAK)
#define WRITE_OUT(p) :: d_step { sb[p].n > 0 -> leave(p, 0) }
#elif BUFFER == 2
#define WRITE_OUT(p) :: d_step { sb[p].n > 0 -> leave(p, 0) } \
                     :: d_step { EARLY_1(p) -> leave(p, 1) }
#else
#define WRITE_OUT(p) :: d_step { sb[p].n > 0 -> leave(p, 0) } \
                     :: d_step { EARLY_1(p) -> leave(p, 1) } \
                     :: d_step { EARLY_2(p) -> leave(p, 2) }
#endif

active proctype Memory() {
end:
    do
    WRITE_OUT(0)
    WRITE_OUT(1)
#if PROCESSES > 2
    WRITE_OUT(2)
#endif
#if PROCESSES > 3
    WRITE_OUT(3)
#endif
    od
}

/* The caller has a local `byte seen_empty`. */
inline MEMBARRIER(p_) {
    FENCE(p_);
    seen_empty = 1 << p_;
    do
    :: d_step { !(seen_empty & 1) && FENCE(0) -> seen_empty = seen_empty | 1 }
    :: d_step { !(seen_empty & 2) && FENCE(1) -> seen_empty = seen_empty | 2 }
#if PROCESSES > 2
    :: d_step { !(seen_empty & 4) && FENCE(2) -> seen_empty = seen_empty | 4 }
#endif
#if PROCESSES > 3
    :: d_step { !(seen_empty & 8) && FENCE(3) -> seen_empty = seen_empty | 8 }
#endif
    :: d_step { seen_empty == (1 << PROCESSES) - 1 -> skip }; break
    od;
    seen_empty = 0
}

/* A property by its name: what pan prints when it does not hold. The bits are never set. */
#define HOLDS(name, e) assert((e) || name)
/* A variant that must reach this place, else the model proves nothing about it. */
#define REACHED(name) assert(name)
