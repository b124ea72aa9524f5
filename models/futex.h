/* Sleeping as the kernel does it. Wait: compare a word and queue on it, in one step, word by word
 * (futex_waitv is not atomic over its words); a word that differs ends it. Wake: the system call is
 * a full barrier, then all who are queued on the word are woken in one step. No sleep has a time
 * bound here, so that what the bound hides is seen.
 *
 * SLEEPERS sleep on up to SLEEP_WORDS words each. A sleeper has its
 * number `s`, and bytes `i` and `expected[]`. */
bit queued[SLEEPERS * SLEEP_WORDS];
bit woken[SLEEPERS];
bit asleep[SLEEPERS];

inline wake_all(p_, k_) {
    d_step {
        FENCE(p_) ->
        if :: queued[k_] -> woken[0] = 1 :: else fi;
#if SLEEPERS > 1
        if :: queued[SLEEP_WORDS + k_] -> woken[1] = 1 :: else fi;
#endif
        skip
    }
}

#define IS_AS_EXPECTED(me, k, word) \
    d_step { \
        FENCE(me) -> \
        if :: mem[word] == expected[k] -> queued[s * SLEEP_WORDS + k] = 1 \
           :: else -> woken[s] = 1 fi; \
        skip \
    }

inline unqueue() {
    d_step {
        do
        :: i < SLEEP_WORDS -> queued[s * SLEEP_WORDS + i] = 0; expected[i] = 0; i++
        :: else -> break
        od;
        i = 0; woken[s] = 0; asleep[s] = 0
    }
}
