/* base/process.h - what identifies a process and a boot of the machine, and the clock. */
#ifndef SHMPS_BASE_PROCESS_H
#define SHMPS_BASE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define COMMAND_BYTES 16 /* of /proc/PID/comm, with the NUL (TASK_COMM_LEN) */

/* Start time of a process in clock ticks since boot: field 22 of /proc/PID/stat
 * (proc_pid_stat(5)); 0 if it is gone, or has ended and its parent has not reaped it yet (state Z
 * or X of its only thread: a main thread may end before the others). With the pid it identifies a
 * process within a boot. */
uint64_t process_start_time(pid_t pid);

/* Has it provably ended: no such process, or another one by now? False where it cannot be told. */
bool process_has_ended(pid_t pid, uint64_t start_time);

/* Its command name, "?" if unknown. */
void process_command(pid_t pid, char ret[COMMAND_BYTES]);

/* The boot's id, /proc/sys/kernel/random/boot_id, as two words; zeroes if it cannot be read. */
void boot_id(uint64_t ret[2]);

/* CLOCK_MONOTONIC in ns. */
static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

#endif
