#include "proc.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int proc_open(struct proc *p) {
    *p = (struct proc){.stat_fd = open("/proc/stat", O_RDONLY | O_CLOEXEC),
                       .meminfo_fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC),
                       .net_fd = open("/proc/net/dev", O_RDONLY | O_CLOEXEC)};
    return p->stat_fd < 0 || p->meminfo_fd < 0 || p->net_fd < 0 ? -1 : 0;
}

void proc_close(struct proc *p) {
    close(p->stat_fd);
    close(p->meminfo_fd);
    close(p->net_fd);
    free(p->seen);
}

/* The file from its start into p->text; what does not fit is cut off. */
static int read_text(struct proc *p, int fd) {
    size_t used = 0;
    while (used < sizeof(p->text) - 1) {
        ssize_t n = pread(fd, p->text + used, sizeof(p->text) - 1 - used, (off_t)used);
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        used += (size_t)n;
    }
    p->text[used] = '\0';
    return 0;
}

/* Cuts the first line off *text; NULL at the end. */
static char *next_line(char **text) {
    if (**text == '\0')
        return NULL;
    return strsep(text, "\n");
}

static void parse_cpu_times(const char *line, struct host_cpu_times *ret) {
    sscanf(line,
           "%*s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
           " %" SCNu64,
           &ret->user, &ret->nice, &ret->system, &ret->idle, &ret->iowait, &ret->irq,
           &ret->softirq, &ret->steal);
}

int proc_cpu(struct proc *p, struct host_cpu *ret) {
    memset(ret, 0, sizeof(*ret));
    if (read_text(p, p->stat_fd) < 0)
        return -1;
    char *rest = p->text;
    for (char *line; rest != NULL && (line = next_line(&rest)) != NULL;) {
        if (strncmp(line, "cpu ", 4) == 0)
            parse_cpu_times(line, &ret->all);
        else if (strncmp(line, "cpu", 3) == 0 && ret->cores < DEMO_CORES_MAX)
            parse_cpu_times(line, &ret->core[ret->cores++]);
        else if (strncmp(line, "ctxt ", 5) == 0)
            ret->context_switches = strtoull(line + 5, NULL, 10);
        else if (strncmp(line, "processes ", 10) == 0)
            ret->forks = strtoull(line + 10, NULL, 10);
        else if (strncmp(line, "procs_running ", 14) == 0)
            ret->running = (uint32_t)strtoul(line + 14, NULL, 10);
        else if (strncmp(line, "procs_blocked ", 14) == 0)
            ret->blocked = (uint32_t)strtoul(line + 14, NULL, 10);
    }
    return 0;
}

int proc_memory(struct proc *p, struct host_memory *ret) {
    const struct {
        const char *name;
        uint64_t *bytes;
    } fields[] = {
        {"MemTotal:", &ret->total_bytes},         {"MemFree:", &ret->free_bytes},
        {"MemAvailable:", &ret->available_bytes}, {"Buffers:", &ret->buffers_bytes},
        {"Cached:", &ret->cached_bytes},          {"Shmem:", &ret->shared_bytes},
        {"SwapTotal:", &ret->swap_total_bytes},   {"SwapFree:", &ret->swap_free_bytes},
    };
    memset(ret, 0, sizeof(*ret));
    if (read_text(p, p->meminfo_fd) < 0)
        return -1;
    char *rest = p->text;
    for (char *line; rest != NULL && (line = next_line(&rest)) != NULL;)
        for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
            size_t length = strlen(fields[i].name);
            if (strncmp(line, fields[i].name, length) == 0)
                *fields[i].bytes = strtoull(line + length, NULL, 10) * 1024;
        }
    return 0;
}

int proc_net(struct proc *p, struct host_net *ret, size_t max, size_t *ret_n) {
    size_t n = 0;
    if (read_text(p, p->net_fd) < 0)
        return -1;
    char *rest = p->text;
    for (char *line; n < max && rest != NULL && (line = next_line(&rest)) != NULL;) {
        char *colon = strrchr(line, ':');
        if (colon == NULL) /* the two lines of heading */
            continue;
        *colon = '\0';
        line += strspn(line, " ");
        struct host_net net = {.present = 1};
        int fields = sscanf(colon + 1,
                            "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
                            " %*u %*u %*u %*u %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64,
                            &net.received_bytes, &net.received_packets, &net.received_errors,
                            &net.received_dropped, &net.sent_bytes, &net.sent_packets,
                            &net.sent_errors, &net.sent_dropped);
        if (fields != 8 || strlen(line) >= sizeof(net.name))
            continue;
        memcpy(net.name, line, strlen(line));
        ret[n++] = net;
    }
    *ret_n = n;
    return 0;
}

/* ---- processes */

static int by_pid(const void *a, const void *b) {
    const struct proc_seen *x = a, *y = b;
    return (x->pid > y->pid) - (x->pid < y->pid);
}

/* List the processes anew; who is still there keeps what is known of it. */
static int list_processes(struct proc *p) {
    struct proc_seen *seen = NULL;
    size_t n = 0, room = 0;
    DIR *dir = opendir("/proc");
    if (dir == NULL)
        return -1;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        if (n == room) {
            room = room != 0 ? 2 * room : 256;
            struct proc_seen *larger = reallocarray(seen, room, sizeof(*seen));
            if (larger == NULL) {
                free(seen);
                closedir(dir);
                return -1;
            }
            seen = larger;
        }
        struct proc_seen key = {.pid = (int32_t)atol(entry->d_name)};
        struct proc_seen *known =
            p->n_seen != 0 ? bsearch(&key, p->seen, p->n_seen, sizeof(key), by_pid) : NULL;
        seen[n++] = known != NULL ? *known : key;
    }
    closedir(dir);
    if (n != 0)
        qsort(seen, n, sizeof(*seen), by_pid);
    free(p->seen);
    p->seen = seen;
    p->n_seen = n;
    p->next = 0;
    return 0;
}

/* proc_pid_stat(5). The name is in brackets and may itself hold any character. */
static int parse_process(char *text, struct host_process *ret) {
    char *open = strchr(text, '('), *close = strrchr(text, ')');
    if (open == NULL || close == NULL || close < open)
        return -1;
    *close = '\0';
    uint64_t user = 0, system = 0, pages = 0;
    int fields = sscanf(close + 1,
                        " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
                        " %*d %*d %*d %*d %" SCNu32 " %*d %*u %*u %" SCNu64,
                        &ret->state, &user, &system, &ret->threads, &pages);
    if (fields != 5)
        return -1;
    snprintf(ret->name, sizeof(ret->name), "%.18s", open + 1);
    ret->cpu_ticks = user + system;
    ret->memory_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    return 0;
}

static int read_process(struct proc *p, struct proc_seen *seen, uint64_t now_ns,
                        struct host_process *ret) {
    char path[40];
    snprintf(path, sizeof(path), "/proc/%" PRId32 "/stat", seen->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int failed = read_text(p, fd);
    close(fd);
    *ret = (struct host_process){.pid = seen->pid};
    if (failed < 0 || parse_process(p->text, ret) < 0)
        return -1;
    if (seen->time_ns != 0 && now_ns > seen->time_ns && ret->cpu_ticks >= seen->cpu_ticks) {
        uint64_t tick_ns = UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK);
        uint64_t busy_ns = (ret->cpu_ticks - seen->cpu_ticks) * tick_ns;
        ret->cpu_permille = (uint32_t)(busy_ns * 1000 / (now_ns - seen->time_ns));
    }
    seen->cpu_ticks = ret->cpu_ticks;
    seen->time_ns = now_ns;
    return 0;
}

int proc_processes(struct proc *p, uint64_t now_ns, struct host_process *ret, size_t max,
                   size_t *ret_n) {
    *ret_n = 0;
    if (p->next >= p->n_seen && list_processes(p) < 0)
        return -1;
    while (*ret_n < max && p->next < p->n_seen)
        if (read_process(p, &p->seen[p->next++], now_ns, &ret[*ret_n]) == 0)
            ++*ret_n; /* else it has ended since it was listed */
    return 0;
}
