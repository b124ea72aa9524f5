/* samples.h - what the demo publishes: plain C structs, as they are.
 *
 *     host/cpu       struct host_cpu        counters of /proc/stat
 *     host/memory    struct host_memory     sizes of /proc/meminfo
 *     host/net/IF    struct host_net        counters of /proc/net/dev, a topic per interface
 *     host/process   struct host_process    a message per process, a few processes a tick, in turn
 *     camera/frames  DEMO_FRAME_BYTES       a stretch of real files; the tag is its number
 *
 * The tag of a host sample is the tick at which it was taken. */
#ifndef DEMO_SAMPLES_H
#define DEMO_SAMPLES_H

#include <stdint.h>

#define DEMO_FRAME_BYTES ((size_t)1 << 20)
#define DEMO_FRAME_HZ 100
#define DEMO_HOST_HZ 200
#define DEMO_CORES_MAX 64       /* cores that host/cpu tells one by one */
#define DEMO_INTERFACES_MAX 16  /* interfaces that get a topic */
#define DEMO_PROCESSES_A_TICK 4 /* so that the load does not grow with the number of processes */

/* Ticks of _SC_CLK_TCK since boot. */
struct host_cpu_times {
    uint64_t user, nice, system, idle, iowait, irq, softirq, steal;
};
struct host_cpu {
    struct host_cpu_times all;
    uint64_t context_switches;
    uint64_t forks;
    uint32_t running; /* threads on a core or waiting for one */
    uint32_t blocked; /* threads waiting for a disk */
    uint32_t cores;   /* used in core[] */
    uint32_t reserved;
    struct host_cpu_times core[DEMO_CORES_MAX];
};

struct host_memory {
    uint64_t total_bytes, free_bytes, available_bytes, buffers_bytes, cached_bytes, shared_bytes;
    uint64_t swap_total_bytes, swap_free_bytes;
};

struct host_net {
    uint64_t received_bytes, received_packets, received_errors, received_dropped;
    uint64_t sent_bytes, sent_packets, sent_errors, sent_dropped;
    char name[16];
    uint64_t present; /* 0: the interface has gone; the counters are the last known */
};

struct host_process {
    int32_t pid;
    char state; /* as in ps: R S D Z T ... */
    char name[19];
    uint64_t cpu_ticks;    /* user and system, since it began */
    uint64_t memory_bytes; /* resident */
    uint32_t cpu_permille; /* of one core, since its last sample; 0 in its first */
    uint32_t threads;
};

#endif
