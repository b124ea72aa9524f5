#include "base/error.h"

#include "base/scope.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char detail[ERROR_DETAIL_BYTES];

struct error_words {
    int code;
    const char *name;
    const char *text;
};

#define WORDS(code, text) { code, #code, text }
static const struct error_words all_words[] = {
    { 0, "SHMPS_OK", "done" },
    WORDS(SHMPS_EMPTY, "nothing to take now"),
    WORDS(SHMPS_FULL, "a reliable subscriber holds the publisher back"),
    WORDS(SHMPS_LOST, "samples were lost"),
    WORDS(SHMPS_TIMEOUT, "the time is over"),
    WORDS(SHMPS_E_INVALID, "an argument is wrong"),
    WORDS(SHMPS_E_TOPIC, "not a valid topic name or filter"),
    WORDS(SHMPS_E_SIZE, "the message is too large"),
    WORDS(SHMPS_E_NO_MEMORY, "no memory or address space is left"),
    WORDS(SHMPS_E_NO_SPACE, "the file system of shared memory is too full"),
    WORDS(SHMPS_E_NO_DESCRIPTORS, "no file descriptors are left"),
    WORDS(SHMPS_E_LIMIT, "a limit of the daemon is reached"),
    WORDS(SHMPS_E_NO_DAEMON, "no daemon answers"),
    WORDS(SHMPS_E_NO_TOPIC, "no such topic"),
    WORDS(SHMPS_E_PERMISSION, "permission denied"),
    WORDS(SHMPS_E_VERSION, "of an incompatible version"),
    WORDS(SHMPS_E_PROTOCOL, "a malformed control message"),
    WORDS(SHMPS_E_FORKED, "the handle belongs to the parent process"),
    WORDS(SHMPS_E_BUSY, "it exists already or is in use"),
    WORDS(SHMPS_E_CORRUPT, "a segment is damaged"),
    WORDS(SHMPS_E_STATE, "not possible in this state"),
    WORDS(SHMPS_E_UNSUPPORTED, "not supported by this kernel or build"),
    WORDS(SHMPS_E_CLOSED, "the bus was rebuilt while the handle was open"),
    WORDS(SHMPS_E_SYSTEM, "a system call failed"),
};

static const struct error_words *find_words(int code) {
    for (size_t i = 0; i < ARRAY_LENGTH(all_words); i++) {
        if (all_words[i].code == code) {
            return &all_words[i];
        }
    }
    return NULL;
}

const char *shmps_error_name(int result) {
    const struct error_words *words = find_words(result);
    return words != NULL ? words->name : "SHMPS_E_?";
}

const char *shmps_error_text(int result) {
    const struct error_words *words = find_words(result);
    return words != NULL ? words->text : "not a result of this library";
}

const char *shmps_error_detail(void) {
    return detail;
}

/* All three format into a buffer of their own first: an argument may be the recorded detail
 * itself. */

int error_raise(int code, const char *format, ...) {
    char story[ERROR_DETAIL_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(story, sizeof(story), format, args);
    va_end(args);
    memcpy(detail, story, sizeof(detail));
    return code;
}

static int code_of_errno(int errno_value) {
    switch (errno_value) {
    case ENOSPC:
        return SHMPS_E_NO_SPACE;
    case EMFILE:
    case ENFILE:
        return SHMPS_E_NO_DESCRIPTORS;
    case ENOMEM:
        return SHMPS_E_NO_MEMORY;
    case EACCES:
    case EPERM:
        return SHMPS_E_PERMISSION;
    default:
        return SHMPS_E_SYSTEM;
    }
}

int error_system(int errno_value, const char *format, ...) {
    char story[ERROR_DETAIL_BYTES];
    char reason[128];
    va_list args;

    va_start(args, format);
    vsnprintf(story, sizeof(story), format, args);
    va_end(args);
    /* The GNU strerror_r(3): it returns the text, which need not be in the buffer. */
    const char *text = strerror_r(errno_value, reason, sizeof(reason));
    return error_raise(code_of_errno(errno_value), "%s: %s%s", story, text,
                       errno_value == EMFILE ? "; raise RLIMIT_NOFILE (ulimit -n)" : "");
}

int error_context(int code, const char *format, ...) {
    char story[ERROR_DETAIL_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(story, sizeof(story), format, args);
    va_end(args);
    return error_raise(code, "%s: %s", story, detail);
}
