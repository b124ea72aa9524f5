#include "session.h"

#include "base/error.h"
#include "base/mappings.h"
#include "log.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* since Linux 6.5 */
#endif

/* ---- who is at the other end */

static int pidfd_of(pid_t pid) {
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

static bool has_ended(int pidfd) {
    struct pollfd p = { .fd = pidfd, .events = POLLIN };
    return poll(&p, 1, 0) != 0;
}

/* The kernel's own answer where it has one: a number alone may have passed to another process. */
static int open_peer(int socket, pid_t pid) {
    int pidfd = -1;
    socklen_t bytes = sizeof(pidfd);
    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &bytes) == 0)
        return pidfd;
    if (errno == EMFILE || errno == ENFILE)
        return -1;
    return pidfd_of(pid);
}

int reaper_identify(int socket, int *ret_pidfd, struct owner_info *ret) {
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0)
        return error_system(errno, "cannot tell who has connected");
    _cleanup_close_ int pidfd = open_peer(socket, peer.pid);
    if (pidfd < 0)
        return error_system(errno, "cannot watch process %d", (int)peer.pid);
    struct owner_info owner = {
        .pid = peer.pid,
        .uid = peer.uid,
        .start_time = process_start_time(peer.pid),
    };
    process_command(peer.pid, owner.command);
    if (has_ended(pidfd)) /* looked at after the rest: that was of this process */
        return error_raise(SHMPS_E_NO_DAEMON, "process %d has ended", (int)peer.pid);
    *ret = owner;
    *ret_pidfd = steal_fd(&pidfd);
    return 0;
}

/* ---- those who have not come back yet */

struct owner {
    struct bus *bus;
    int32_t pid;
    uint64_t start_time;
    int pidfd;
    uint32_t watch;
    struct owner *next;
};

static bool owns(const struct owner *owner, const struct owner_info *info) {
    return info->pid == owner->pid && info->start_time == owner->start_time;
}

static void forget(struct owner *owner) {
    struct bus *bus = owner->bus;
    struct owner **p = &bus->owners;
    while (*p != owner)
        p = &(*p)->next;
    *p = owner->next;
    bus->n_owners--;
    loop_remove(bus->loop, owner->watch);
    scope_close(&owner->pidfd);
    free(owner);
}

/* Reap what `matches` says of what nobody has claimed. */
static void reap(struct bus *bus, const struct owner_info *who, bool of_connection) {
    for (uint32_t i = 0; i < bus->subscriptions_end; i++) {
        struct subscription *s = bus->subscriptions[i];
        if (s != NULL && s->session == NULL && s->info.owner.pid == who->pid &&
            s->info.owner.start_time == who->start_time &&
            (!of_connection || s->info.owner.session == who->session))
            subscription_close(bus, s, true);
    }
    for (uint32_t i = 0; i < bus->rings_end; i++) {
        struct ring *ring = bus->rings[i];
        if (ring == NULL || ring->session != NULL || ring->info.state != RING_LIVE ||
            ring->info.owner.pid != who->pid || ring->info.owner.start_time != who->start_time ||
            (of_connection && ring->info.owner.session != who->session))
            continue;
        struct topic *topic = ring->topic;
        ring_retire(bus, ring);
        ring_collect(bus, topic);
    }
}

static void on_death(void *data, uint32_t events) {
    struct owner *owner = data;
    struct owner_info who = { .pid = owner->pid, .start_time = owner->start_time };
    struct bus *bus = owner->bus;
    (void)events;
    log_debug("process %d has ended before it came back", (int)owner->pid);
    forget(owner);
    reap(bus, &who, false);
}

/* Has it executed another program meanwhile? Pid and start time are the same then, but nothing is
 * mapped any more; whoever has anything open has the directory mapped. */
static bool is_another_program(const struct bus *bus, pid_t pid) {
    struct mappings mappings = MAPPINGS_NONE;
    struct stat directory;
    bool known = fstat(bus->directory_fd, &directory) == 0 &&
                 mappings_of_process(&mappings, pid) == 0 && mappings.unreadable == 0;
    pid_t user = mappings_user(&mappings, directory.st_dev, directory.st_ino);
    mappings_free(&mappings);
    return known && user == 0;
}

bool reaper_await(struct bus *bus, const struct owner_info *info) {
    for (const struct owner *owner = bus->owners; owner != NULL; owner = owner->next)
        if (owns(owner, info))
            return true;
    if (info->pid <= 0 || process_start_time(info->pid) != info->start_time)
        return false;
    _cleanup_close_ int pidfd = pidfd_of(info->pid);
    if (pidfd < 0 && errno == ESRCH)
        return false;
    if (process_start_time(info->pid) != info->start_time)
        return false; /* it has ended in between, and the number is another's */
    if (is_another_program(bus, info->pid))
        return false;
    struct owner *owner = pidfd >= 0 ? calloc(1, sizeof(*owner)) : NULL;
    if (owner == NULL) {
        log_warning("process %d cannot be watched until it comes back", (int)info->pid);
        return true;
    }
    *owner = (struct owner){ .bus = bus, .pid = info->pid, .start_time = info->start_time };
    owner->pidfd = steal_fd(&pidfd);
    owner->next = bus->owners;
    bus->owners = owner;
    bus->n_owners++;
    if (loop_add(bus->loop, owner->pidfd, on_death, owner, &owner->watch) < 0) {
        forget(owner);
        return true;
    }
    loop_arm(bus->loop, owner->watch, POLLIN);
    return true;
}

void reaper_claimed(struct bus *bus, const struct owner_info *info) {
    struct owner *owner = bus->owners;
    while (owner != NULL && !owns(owner, info))
        owner = owner->next;
    if (owner == NULL)
        return;
    for (uint32_t i = 0; i < bus->subscriptions_end; i++) {
        const struct subscription *s = bus->subscriptions[i];
        if (s != NULL && s->session == NULL && owns(owner, &s->info.owner))
            return;
    }
    for (uint32_t i = 0; i < bus->rings_end; i++) {
        const struct ring *ring = bus->rings[i];
        if (ring != NULL && ring->session == NULL && ring->info.state == RING_LIVE &&
            owns(owner, &ring->info.owner))
            return;
    }
    forget(owner);
}

void reaper_orphans(struct session *s) {
    reap(s->bus, &s->owner, true);
    reaper_claimed(s->bus, &s->owner);
}

void reaper_forget(struct bus *bus) {
    while (bus->owners != NULL)
        forget(bus->owners);
}
