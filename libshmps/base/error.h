/* base/error.h - raising an error with its whole story.
 *
 * Negative results are passed on unchanged; positive outcomes are handled by the caller
 * (shmps/error.h). The function that meets the trouble raises it once, with cause and remedy;
 * callers that know more about what was tried put that in front with error_context(). */
#ifndef SHMPS_BASE_ERROR_H
#define SHMPS_BASE_ERROR_H

#include <shmps/error.h>

#define ERROR_DETAIL_BYTES 512 /* with the NUL; longer details are cut */

/* Record the detail (printf format) for the calling thread and return `code` (< 0). */
__attribute__((format(printf, 2, 3), cold)) int error_raise(int code, const char *format, ...);

/* The same for a failed system call: maps errno_value to a code (ENOSPC: NO_SPACE, EMFILE and
 * ENFILE: NO_DESCRIPTORS, ENOMEM: NO_MEMORY, EACCES and EPERM: PERMISSION, else SYSTEM) and
 * appends ": <strerror>" and, for EMFILE, the remedy. */
__attribute__((format(printf, 2, 3), cold)) int error_system(int errno_value,
                                                             const char *format, ...);

/* Put "<context>: " before the recorded detail; returns `code` unchanged. */
__attribute__((format(printf, 2, 3), cold)) int error_context(int code, const char *format, ...);

#endif
