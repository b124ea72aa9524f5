/* Publishes this machine: CPU, memory, interfaces and processes, from /proc. */
#include "demo.h"
#include "proc.h"
#include "samples.h"
#include <errno.h>
#include <string.h>

#define HOST_DEPTH 256 /* over a second: reliable subscribers may be held up by a busy machine */

struct host {
    struct proc proc;
    struct source cpu, memory, process;
    struct source net[DEMO_INTERFACES_MAX];
    struct host_net last[DEMO_INTERFACES_MAX]; /* of each that has a topic */
    size_t n_net;
};

static void need(struct child *child, int result, const char *what) {
    if (result < 0)
        child_fail(child, "cannot read %s: %s", what, strerror(errno));
}

/* A topic for each interface whose name may be a level of one. */
static void open_interfaces(struct child *child, struct host *host) {
    struct host_net all[DEMO_INTERFACES_MAX];
    size_t n;
    need(child, proc_net(&host->proc, all, DEMO_INTERFACES_MAX, &n), "/proc/net/dev");
    for (size_t i = 0; i < n; i++) {
        char topic[40];
        snprintf(topic, sizeof(topic), "host/net/%s", all[i].name);
        if (shmps_topic_check(topic) != 0)
            continue;
        host->last[host->n_net] = all[i];
        source_open(child, &host->net[host->n_net++], topic, sizeof(struct host_net), HOST_DEPTH);
    }
}

static void publish_interfaces(struct child *child, struct host *host, uint64_t tick) {
    struct host_net now[DEMO_INTERFACES_MAX];
    size_t n;
    need(child, proc_net(&host->proc, now, DEMO_INTERFACES_MAX, &n), "/proc/net/dev");
    for (size_t i = 0; i < host->n_net; i++) {
        struct host_net *last = &host->last[i];
        last->present = 0;
        for (size_t k = 0; k < n; k++)
            if (strcmp(now[k].name, last->name) == 0)
                *last = now[k];
        source_publish(child, &host->net[i], last, sizeof(*last), tick);
    }
}

static void publish_tick(struct child *child, struct host *host, uint64_t tick) {
    struct host_cpu cpu;
    struct host_memory memory;
    struct host_process processes[DEMO_PROCESSES_A_TICK];
    size_t n;
    need(child, proc_cpu(&host->proc, &cpu), "/proc/stat");
    source_publish(child, &host->cpu, &cpu, sizeof(cpu), tick);
    need(child, proc_memory(&host->proc, &memory), "/proc/meminfo");
    source_publish(child, &host->memory, &memory, sizeof(memory), tick);
    publish_interfaces(child, host, tick);
    need(child, proc_processes(&host->proc, now_ns(), processes, DEMO_PROCESSES_A_TICK, &n),
         "/proc");
    for (size_t i = 0; i < n; i++)
        source_publish(child, &host->process, &processes[i], sizeof(processes[i]), tick);
}

void host_main(struct child *child, struct report *done) {
    static struct host host; /* large: it holds the text being parsed */
    need(child, proc_open(&host.proc), "/proc");
    source_open(child, &host.cpu, "host/cpu", sizeof(struct host_cpu), HOST_DEPTH);
    source_open(child, &host.memory, "host/memory", sizeof(struct host_memory), HOST_DEPTH);
    source_open(child, &host.process, "host/process", sizeof(struct host_process),
                HOST_DEPTH * DEMO_PROCESSES_A_TICK);
    open_interfaces(child, &host);
    source_wait_subscribers(child, &host.cpu, 1);
    source_wait_subscribers(child, &host.memory, 1);
    source_wait_subscribers(child, &host.process, 1);
    source_wait_subscribers(child, host.net, host.n_net);
    child_report(child, &(struct report){.kind = REPORT_READY});

    uint64_t beat_ns = now_ns();
    for (uint64_t tick = 0; !child_stop; tick++) {
        publish_tick(child, &host, tick);
        child_report_topics(child, false);
        source_beat(&beat_ns, DEMO_HOST_HZ);
    }

    source_close(&host.cpu, done);
    source_close(&host.memory, done);
    source_close(&host.process, done);
    for (size_t i = 0; i < host.n_net; i++)
        source_close(&host.net[i], done);
    proc_close(&host.proc);
}
