/* proc.h - this machine as /proc shows it, parsed into the structs of samples.h.
 * Files stay open and are read again from the start: one system call a file and tick. */
#ifndef DEMO_PROC_H
#define DEMO_PROC_H

#include "samples.h"
#include <stddef.h>

struct proc_seen { /* a process as it was at its last sample */
    int32_t pid;
    uint64_t cpu_ticks;
    uint64_t time_ns; /* 0: not sampled yet */
};

struct proc {
    int stat_fd, meminfo_fd, net_fd;
    struct proc_seen *seen; /* ascending by pid */
    size_t n_seen;
    size_t next;         /* in seen: whose turn it is */
    char text[64 << 10]; /* of the file being parsed */
};

/* 0, or -1 with errno. */
int proc_open(struct proc *p);
void proc_close(struct proc *p);

int proc_cpu(struct proc *p, struct host_cpu *ret);
int proc_memory(struct proc *p, struct host_memory *ret);

/* The counters of all interfaces; *ret_n <= max. */
int proc_net(struct proc *p, struct host_net *ret, size_t max, size_t *ret_n);

/* The next max processes in turn, fewer if some have ended. *ret_n may be 0. */
int proc_processes(struct proc *p, uint64_t now_ns, struct host_process *ret, size_t max,
                   size_t *ret_n);

#endif
