/* interrupt.h - SIGINT and SIGTERM as something that can be waited for. */
#ifndef SHMPS_TOOL_INTERRUPT_H
#define SHMPS_TOOL_INTERRUPT_H

#include "tool.h"

/* From now on SIGINT and SIGTERM are only noted. */
void interrupt_catch(void);

/* The signal that came, or 0. */
int interrupt_signal(void);

/* A descriptor that is readable once one came. */
int interrupt_fd(void);

/* The exit code of who ends because of it: 128 + the signal's number. */
enum exit_code interrupt_code(void);

/* Time left of a limit in ns that started at `start_ns` (0: no limit): what a call that cannot be
 * interrupted may take until the next look at interrupt_signal(). 0: the limit is over. */
int64_t interrupt_slice(uint64_t start_ns, int64_t limit_ns);

/* CLOCK_MONOTONIC. */
uint64_t clock_ns(void);

#endif
