/* wait/descriptor.h - a private, level-triggered descriptor that becomes readable when one of
 * several words changes.
 *
 * It is an eventfd of this process. What feeds it:
 *   io_uring   IORING_OP_FUTEX_WAIT (kernel >= 6.7) on each word; completions signal the eventfd
 *              (registered; SINGLE_ISSUER | DEFER_TASKRUN, so that no epoll_wait of the user is
 *              interrupted with EINTR)
 *   thread     where io_uring is not to be had: a thread that sleeps in wait_on_words() and
 *              writes the eventfd
 * Life: open, then any number of { clear, arm }. After arm() the descriptor becomes readable once
 * when something happened, and stays so until clear(). It may be armed again and again without
 * clear(): words already waited on are kept.
 *
 * One thread at a time. The io_uring belongs to the thread that armed it last; arm() from another
 * thread makes a new one. */
#ifndef SHMPS_WAIT_DESCRIPTOR_H
#define SHMPS_WAIT_DESCRIPTOR_H

#include "wait/futex.h"

struct wait_descriptor;

enum descriptor_kind {
    /* io_uring if possible, else thread; SHMPS_DESCRIPTOR=thread in the environment: thread */
    DESCRIPTOR_ANY = 0,
    DESCRIPTOR_URING = 1,
    DESCRIPTOR_THREAD = 2,
};

/* NO_DESCRIPTORS, NO_MEMORY, UNSUPPORTED (URING asked for and impossible), SYSTEM. */
int descriptor_open(struct wait_descriptor **ret, enum descriptor_kind kind);
/* Cancels all waits, joins the thread, closes the eventfd. NULL is allowed. */
void descriptor_close(struct wait_descriptor *d);
/* In a forked child: give back memory and descriptors only, touch no ring and no thread.
 * NULL is allowed. */
void descriptor_abandon(struct wait_descriptor *d);

int descriptor_fd(const struct wait_descriptor *d);
enum descriptor_kind descriptor_kind(const struct wait_descriptor *d);

/* Wait for: any of the words to differ from what is expected, or be woken; `hangup_fd` (>= 0)
 * to be hung up or readable; timeout_ns (> 0) to pass.
 *
 * The set replaces the previous one: waits on words that are no longer in it are cancelled, those
 * still pending on a word in it are kept (whatever value they expected: a change of the word is
 * always followed by a wake), the rest is submitted. A word that already differs makes the
 * descriptor readable at once. The caller has done the arming protocol of DESIGN 5 (armed,
 * barrier, second look) before.
 *
 * The words stay mapped until the next arm() without them (or close) has returned. A wait may hold
 * hangup_fd's file open: arm without it before closing it, else its peer sees no hang-up. SYSTEM,
 * NO_MEMORY: whether any wait is left is not known. */
int descriptor_arm(struct wait_descriptor *d, const struct wait_word *words, uint32_t n,
                   int hangup_fd, int64_t timeout_ns);

/* Consume what completed and make the descriptor unreadable. */
void descriptor_clear(struct wait_descriptor *d);

/* Make it readable now. */
void descriptor_signal(struct wait_descriptor *d);

/* True if it has been signalled since the last clear. Costs no system call where that can be
 * known. */
bool descriptor_signalled(struct wait_descriptor *d);

#endif
