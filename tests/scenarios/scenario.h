/* scenario.h - what the scenarios share: the tool as an operator types it, what the bus costs. */
#ifndef SHMPS_TESTS_SCENARIO_H
#define SHMPS_TESTS_SCENARIO_H

#include "../harness.h"

#define SCENARIO_S 150 /* as WATCHDOG_S: a machine may have other work */

/* Zeroed memory that the children of this test share with it. */
void *shared_zeroes(size_t bytes);

/* Bytes of all segments of the instance that are in /dev/shm now. */
uint64_t bytes_in_use(void);

/* Descriptors that another process has open. */
unsigned descriptors_of(pid_t pid);

/* What `shmps ARGUMENTS` prints, which is also in the log, without what doctor finds OK. Valid
 * until the next call. */
const char *shmps_says(const char *arguments);

/* Ask again until what it says contains the words. */
void await_words(const char *arguments, const char *words);

/* SIGSTOP; it stands still when this returns. */
void child_stop(const struct child *child);

#endif
