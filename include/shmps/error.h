/* shmps/error.h - how every call of libshmps reports.
 *
 * Every int that a function of this library returns is one of three things:
 *     0   done
 *   > 0   a named outcome (SHMPS_EMPTY ...): nothing is wrong, the caller must handle it
 *   < 0   an error (SHMPS_E_...): nothing was done; shmps_error_detail() tells cause and remedy
 * Values are part of the ABI and never change their meaning. */
#ifndef SHMPS_ERROR_H
#define SHMPS_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* Outcomes. */
enum shmps_outcome {
    SHMPS_EMPTY = 1,    /* nothing there now (timeout 0) */
    SHMPS_FULL = 2,     /* a reliable subscriber holds the publisher back; nothing was published */
    SHMPS_LOST = 3,     /* samples were lost and none follows them: the count is in
                           shmps_sample.lost */
    SHMPS_TIMEOUT = 4,  /* the deadline passed before what was waited for */
};

/* Errors. */
enum shmps_error {
    SHMPS_E_INVALID = -1,      /* an argument is wrong */
    SHMPS_E_TOPIC = -2,        /* a topic name or filter breaks the rules in shmps.h */
    SHMPS_E_SIZE = -3,         /* larger than the publisher's explicit message_bytes, than its
                                  loan, than any message may be, or than the buffer to read into */
    SHMPS_E_NO_MEMORY = -4,    /* the process has no memory or address space left */
    SHMPS_E_NO_SPACE = -5,     /* /dev/shm is too full for a segment; the detail tells need and
                                  free */
    SHMPS_E_NO_DESCRIPTORS = -6, /* this process or pubsubd has no file descriptors left */
    SHMPS_E_LIMIT = -7,        /* a limit of pubsubd is reached; the detail tells which */
    SHMPS_E_NO_DAEMON = -8,    /* no pubsubd answers and none could be started */
    SHMPS_E_NO_TOPIC = -9,     /* no such topic */
    SHMPS_E_PERMISSION = -10,  /* the kernel or pubsubd's rules forbid it */
    SHMPS_E_VERSION = -11,     /* pubsubd or a segment is of an incompatible version */
    SHMPS_E_PROTOCOL = -12,    /* a malformed control message */
    SHMPS_E_FORKED = -13,      /* the handle was opened before fork(); open new ones in the
                                  child */
    SHMPS_E_BUSY = -14,        /* it exists already, or is in use: a running instance */
    SHMPS_E_CORRUPT = -15,     /* a segment holds what no correct peer writes; it is no longer
                                  used */
    SHMPS_E_STATE = -16,       /* not now, or not on this handle: no loan is open, the loop runs,
                                  the connection only observes */
    SHMPS_E_UNSUPPORTED = -17, /* this kernel or this build cannot do it */
    SHMPS_E_CLOSED = -18,      /* the bus was made anew while this handle was open, or pubsubd does
                                  not know it any more; open a new one */
    SHMPS_E_SYSTEM = -19,      /* another system call failed; the detail names it and its errno */
};

/* The name of a result as in this header, e.g. "SHMPS_E_NO_SPACE", "SHMPS_EMPTY", "SHMPS_OK" for
 * 0; "SHMPS_E_?" for a number that is none. Static storage. Any thread, also after fork. */
const char *shmps_error_name(int result);

/* A short lower-case sentence about a result, without a full stop. Static storage. Any thread. */
const char *shmps_error_text(int result);

/* The whole story of the last error (< 0) that a call of this library returned on the calling
 * thread: what was tried, what stood in the way, what to do. Never NULL; "" if there was none.
 * Valid until the next call that fails on this thread. */
const char *shmps_error_detail(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
