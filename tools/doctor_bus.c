/* doctor_bus.c - one instance, from its lock to its topics; and what all of them left behind. */
#include "doctor.h"
#include "leftovers.h"
#include "text.h"
#include "tool.h"
#include "view.h"

#include "base/instance.h"
#include "base/scope.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define HELLO_NS INT64_C(2000000000)
#define ERROR_AGE_NS UINT64_C(86400000000000) /* a day: older ones are nobody's trouble any more */
#define RINGS_MANY 8 /* of one process: with fewer it is its messages that are large */

/* A command with a number or a name in it. */
struct command {
    char text[256];
};
__attribute__((format(printf, 1, 2))) static struct command command(const char *format, ...) {
    struct command made;
    va_list list;
    va_start(list, format);
    vsnprintf(made.text, sizeof(made.text), format, list);
    va_end(list);
    return made;
}

/* R, S, D, T (stopped), t (traced) ... as in proc_pid_stat(5); 0: it is gone. */
static char process_state(int pid) {
    char path[64], stat[512] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    size_t n = fread(stat, 1, sizeof(stat) - 1, file);
    fclose(file);
    stat[n] = '\0';
    const char *end = strrchr(stat, ')');
    return end && end[1] == ' ' ? end[2] : 0;
}

static bool is_stopped(int pid) {
    char state = process_state(pid);
    return state == 'T' || state == 't';
}

/* ---- the daemon */

/* pubsubd's share of descriptors, and whether its program has been replaced. */
static void check_daemon_process(struct doctor *doctor, int pid) {
    char path[64], line[256], program[PATH_MAX] = "";
    unsigned long limit = 0, n = 0;
    snprintf(path, sizeof(path), "/proc/%d/limits", pid);
    FILE *file = fopen(path, "re");
    while (file && limit == 0 && fgets(line, sizeof(line), file))
        sscanf(line, "Max open files %lu", &limit);
    if (file)
        fclose(file);
    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    DIR *descriptors = opendir(path);
    while (descriptors && readdir(descriptors))
        n++;
    if (descriptors)
        closedir(descriptors);
    if (limit > 0 && n > limit / 10 * 8)
        finding(doctor, VERDICT_WARN, "bus.descriptors",
                (struct remedy){ "it needs two for each client and refuses the next ones",
                                 "end clients, or start it with a larger ulimit -n" },
                "pubsubd has %lu of %lu descriptors open", n, limit);
    snprintf(path, sizeof(path), "/proc/%d/exe", pid);
    ssize_t length = readlink(path, program, sizeof(program) - 1);
    if (length > 10 && strcmp(program + length - 10, " (deleted)") == 0)
        finding(doctor, VERDICT_WARN, "bus.program",
                (struct remedy){ "it was updated, but the old one runs",
                                 "end it with SIGKILL and start the new one: programs go on" },
                "%s", program);
}

/* It holds the lock, or says that it runs: does it answer? `instance`: its name or path. */
static void check_hello(struct doctor *doctor, const char *instance, int holder) {
    struct shmps_connect_options options = SHMPS_CONNECT_OPTIONS_INIT;
    struct shmps *bus = NULL;
    options.instance = instance;
    options.autostart = SHMPS_AUTOSTART_OFF;
    options.timeout_ns = HELLO_NS;
    int r = shmps_connect(&bus, &options);
    if (r == 0) {
        finding_ok(doctor, "bus.daemon", "pubsubd of instance '%s' runs and answers (process %d)",
                   instance, holder);
        shmps_close(bus);
        check_daemon_process(doctor, holder);
        return;
    }
    bool full = r == SHMPS_E_NO_DESCRIPTORS || r == SHMPS_E_LIMIT;
    struct command mend =
        r == SHMPS_E_VERSION ? command("use one build of shmps for pubsubd and all programs")
        : full ? command("end clients, or start pubsubd with a larger ulimit -n")
        : is_stopped(holder)
            ? command("kill -CONT %d", holder)
            : command("if it hangs: kill -KILL %d, and pubsubd --instance %s (programs go on "
                      "meanwhile); else look for its socket: $XDG_RUNTIME_DIR, --socket, --system",
                      holder, instance);
    const char *why = shmps_error_detail();
    finding(doctor, VERDICT_FAIL, "bus.daemon", (struct remedy){ why, mend.text },
            "pubsubd of instance '%s' (process %d) %s", instance, holder,
            is_stopped(holder) ? "is stopped" : full ? "refuses clients" : "does not answer");
}

static void check_daemon(struct doctor *doctor, const struct leftovers *found) {
    const char *name = found->instance;
    struct command start = command("pubsubd --instance %s", name);
    char who[COMMAND_BYTES];
    switch (found->usage) {
    case USAGE_DAEMON:
        check_hello(doctor, name, found->pid);
        return;
    case USAGE_CLIENTS:
        process_command(found->pid, who);
        finding(doctor, VERDICT_WARN, "bus.daemon",
                (struct remedy){ "what runs goes on, but nothing can be opened", start.text },
                "pubsubd of instance '%s' does not run, but process %d (%s) uses it", name,
                found->pid, who);
        return;
    case USAGE_UNKNOWN:
    case USAGE_NOBODY:
        if (found->n > 0)
            finding(doctor, VERDICT_WARN, "bus.daemon",
                    (struct remedy){ "it left segments behind: the next one adopts them, or gc "
                                     "removes them",
                                     start.text },
                    "pubsubd of instance '%s' does not run", name);
        else
            finding_ok(doctor, "bus.daemon",
                       "no pubsubd of instance '%s' runs or has left anything", name);
        return;
    }
}

/* ---- its files */

static void check_files(struct doctor *doctor, const struct leftovers *found) {
    uint64_t bytes = 0;
    bool good = true;
    for (size_t i = 0; i < found->n; i++) {
        const struct leftover *file = &found->files[i];
        struct command look = command("ls -l %s", file->path);
        struct command mend = command("chmod 600 %s", file->path);
        bytes += file->bytes;
        if (file->uid != geteuid())
            finding(doctor, VERDICT_FAIL, "bus.files",
                    (struct remedy){ "it bears your name, but is not used; its owner or root can "
                                     "remove it",
                                     look.text },
                    "%s belongs to user %u", file->path, (unsigned)file->uid);
        else if (file->kind != LEFTOVER_SOCKET && (file->mode & 022))
            finding(doctor, VERDICT_FAIL, "bus.files",
                    (struct remedy){ "others may write it: it is not used", mend.text },
                    "%s has mode %04o", file->path, (unsigned)file->mode & 07777);
        else
            continue;
        good = false;
    }
    char size[SIZE_TEXT_BYTES];
    size_text(bytes, size);
    if (good && found->n > 0)
        finding_ok(doctor, "bus.files", "%zu files of %s, all of mode 0600 and yours", found->n,
                   size);
}

static void check_socket_directories(struct doctor *doctor) {
    char path[PATH_MAX];
    for (size_t i = 0; leftovers_socket_directory(i, path); i++) {
        struct stat s;
        if (strcmp(path, SYSTEM_DIRECTORY) == 0)
            continue; /* it is for all */
        struct command mend = command("chmod 0700 %s", path);
        struct remedy remedy = { "it is not trusted: nobody connects there", mend.text };
        if (lstat(path, &s) < 0)
            continue;
        if (!S_ISDIR(s.st_mode) || s.st_uid != geteuid()) {
            remedy.mend = "set XDG_RUNTIME_DIR to a directory of your own";
            finding(doctor, VERDICT_FAIL, "bus.socket", remedy,
                    "%s is of user %u, or no directory", path, (unsigned)s.st_uid);
        } else if (s.st_mode & 077) {
            finding(doctor, VERDICT_FAIL, "bus.socket", remedy, "%s has mode %04o", path,
                    (unsigned)s.st_mode & 07777);
        } else {
            finding_ok(doctor, "bus.socket", "%s has mode 0700 and is yours", path);
        }
    }
}

/* ---- topics */

/* A reliable subscriber that has a whole ring to read keeps its publisher from publishing; a lossy
 * one loses, and if it is stopped it does not just take its time. The dead hold up nobody. */
static bool is_behind(const struct view_ring *ring, const struct view_subscriber *subscriber,
                      const struct view_cursor *cursor) {
    if (!view_cursor_readable(cursor, ring) || cursor->evicted ||
        subscriber->policy == POLICY_LATEST || !view_owner_alive(&subscriber->info.owner))
        return false;
    return view_cursor_lag(cursor, ring) >= ring->geometry.depth &&
           (subscriber->policy == POLICY_RELIABLE || is_stopped(subscriber->info.owner.pid));
}

/* The ring in which it is behind, or NULL. */
static const struct view_ring *behind_in(const struct view_topic *topic,
                                         const struct view_subscriber *subscriber) {
    for (uint32_t i = 0; i < topic->n_rings; i++)
        if (is_behind(&topic->rings[i], subscriber, &subscriber->cursors[i]))
            return &topic->rings[i];
    return NULL;
}

static bool is_process_behind(const struct view_topic *topic, int pid) {
    for (uint32_t k = 0; k < topic->n_subscribers; k++) {
        const struct view_subscriber *subscriber = &topic->subscribers[k];
        if (subscriber->info.owner.pid == pid && behind_in(topic, subscriber))
            return true;
    }
    return false;
}

/* A process is told of once, with the first of its topics: topics[at]. */
static void check_subscriber(struct doctor *doctor, const struct view_topic *topics, size_t n,
                             size_t at, const struct view_subscriber *subscriber) {
    const struct view_topic *topic = &topics[at];
    const struct view_ring *ring = behind_in(topic, subscriber);
    int pid = subscriber->info.owner.pid;
    struct command more = { "" };
    size_t others = 0;
    if (!ring)
        return;
    for (size_t i = 0; i < n; i++) {
        if (i == at || !is_process_behind(&topics[i], pid))
            continue;
        if (i < at)
            return;
        others++;
    }
    char who[VIEW_COMMAND_BYTES];
    view_command(&subscriber->info.owner, who);
    if (others > 0)
        more = command(", and in %zu more topics", others);
    bool stopped = is_stopped(pid), reliable = subscriber->policy == POLICY_RELIABLE;
    struct command mend = stopped ? command("kill -CONT %d, or kill -KILL %d", pid, pid)
                                  : command("shmps info %s; end process %d if it hangs",
                                            topic->name, pid);
    const struct view_cursor *cursor = &subscriber->cursors[ring - topic->rings];
    finding(doctor, VERDICT_WARN, "topic.slow",
            (struct remedy){ reliable ? "its publishers wait for it" : "it loses messages",
                             mend.text },
            "topic %s: subscriber %d (%s) is %s, %" PRIu64 " messages behind publisher %d%s",
            topic->name, pid, who, stopped ? "stopped" : "slow", view_cursor_lag(cursor, ring),
            (int)ring->info.owner.pid, more.text);
}

static void check_topic(struct doctor *doctor, const struct view_topic *topic,
                        uint64_t shared_bytes) {
    const char *trouble = topic->trouble;
    for (uint32_t i = 0; i < topic->n_rings && !trouble; i++)
        trouble = topic->rings[i].trouble;
    if (trouble)
        finding(doctor, VERDICT_FAIL, "topic.broken",
                (struct remedy){ trouble, "restart its publishers" }, "topic %s", topic->name);
    if (shared_bytes > 0 && topic->memory_bytes > shared_bytes / 2) {
        char size[SIZE_TEXT_BYTES];
        struct command mend = command("shmps info %s; fewer messages a ring (depth), or smaller",
                                      topic->name);
        size_text(topic->memory_bytes, size);
        finding(doctor, VERDICT_WARN, "topic.memory",
                (struct remedy){ "that is more than half of /dev/shm", mend.text },
                "topic %s takes %s, rings: %u", topic->name, size, topic->n_rings);
    }
}

/* ---- who has the most */

/* What one process has on the bus; all: what everybody has. */
struct holder {
    struct owner_info owner;
    uint32_t rings, topics;
    uint64_t bytes, newest_ns;
    const char *newest; /* the topic of its newest ring */
    size_t counted;     /* the topic that was counted last, from 1 */
};

static void count_ring(struct holder *holder, const struct ring_info *info,
                       const struct view_topic *topic, size_t ordinal) {
    holder->rings++;
    holder->bytes += info->bytes;
    holder->topics += holder->counted != ordinal;
    holder->counted = ordinal;
    if (info->born_ns < holder->newest_ns)
        return;
    holder->newest_ns = info->born_ns;
    holder->newest = topic->name;
}

static struct holder *holder_of(struct holder *holders, size_t *n,
                                const struct owner_info *owner) {
    size_t i = 0;
    while (i < *n && (holders[i].owner.pid != owner->pid ||
                      holders[i].owner.start_time != owner->start_time))
        i++;
    if (i == *n)
        holders[(*n)++].owner = *owner;
    return &holders[i];
}

/* One that opens and does not close: it has most of what there is. */
static void check_holder(struct doctor *doctor, const struct holder *holder,
                         const struct holder *all) {
    char size[SIZE_TEXT_BYTES], who[VIEW_COMMAND_BYTES];
    struct command mend = command("kill %d gives all of them back; or raise what is short: "
                                  "/dev/shm, or the limits (pubsubd.conf)",
                                  (int)holder->owner.pid);
    size_text(holder->bytes, size);
    view_command(&holder->owner, who);
    finding(doctor, VERDICT_WARN, "process.rings",
            (struct remedy){ "if it opens publishers and does not close them, it soon keeps all "
                             "others from opening",
                             mend.text },
            "process %d (%s) has %u of %u rings in %u topics, %s, the newest in %s",
            (int)holder->owner.pid, who, holder->rings, all->rings, holder->topics, size,
            holder->newest);
}

/* `shared_bytes`: of /dev/shm, 0: not known; `refused`: somebody was, lately. */
static void check_holders(struct doctor *doctor, const struct view *view,
                          const struct view_topic *topics, size_t n, uint64_t shared_bytes,
                          bool refused) {
    struct holder all = { .rings = 0 };
    size_t n_holders = 0;
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < topics[i].n_rings; k++)
            count_ring(&all, &topics[i].rings[k].info, &topics[i], i + 1);
    struct holder *holders = calloc(all.rings + 1, sizeof(*holders));
    if (!holders)
        out_of_memory();
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < topics[i].n_rings; k++) {
            const struct ring_info *info = &topics[i].rings[k].info;
            if (info->state == RING_LIVE)
                count_ring(holder_of(holders, &n_holders, &info->owner), info, &topics[i], i + 1);
        }
    for (size_t i = 0; i < n_holders; i++) {
        const struct holder *holder = &holders[i];
        if (holder->rings >= RINGS_MANY &&
            ((shared_bytes > 0 && holder->bytes > shared_bytes / 2) ||
             holder->rings > view->directory.geometry.rings / 2 ||
             (refused && holder->bytes > all.bytes / 2)))
            check_holder(doctor, holder, &all);
    }
    free(holders);
}

static void check_topics(struct doctor *doctor, const struct view *view, bool refused) {
    uint64_t free_bytes, total = 0;
    size_t n;
    struct view_topic *topics = view_topics_read(view, &n);
    if (segment_space(&free_bytes, &total) < 0)
        total = 0;
    finding_ok(doctor, "bus.topics", "%zu", n);
    for (size_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < topics[i].n_subscribers; k++)
            check_subscriber(doctor, topics, n, i, &topics[i].subscribers[k]);
        check_topic(doctor, &topics[i], total);
    }
    check_holders(doctor, view, topics, n, total, refused);
    view_topics_free(topics, n);
}

/* ---- pubsubd's last errors */

/* Whether somebody was refused what pubsubd has no room for. */
static bool check_errors(struct doctor *doctor, const struct view *view) {
    uint64_t now = now_ns();
    bool refused = false;
    for (uint32_t i = 0; i < view->directory.geometry.errors; i++) {
        struct error_info error;
        char text[TOPIC_NAME_BYTES];
        if (!directory_error(&view->directory, i, &error, text) || error.count == 0)
            continue;
        uint64_t age = now > error.last_ns ? now - error.last_ns : 0;
        if (age > ERROR_AGE_NS)
            continue;
        refused |= error.code == SHMPS_E_NO_SPACE || error.code == SHMPS_E_LIMIT;
        finding(doctor, VERDICT_WARN, "bus.error",
                (struct remedy){ text, "as it says; it is forgotten after a day" },
                "%s, %" PRIu64 " times, last %" PRIu64 " s ago",
                error.code >= INT_MIN && error.code < 0 ? shmps_error_name((int)error.code) : "?",
                error.count, age / 1000000000);
    }
    return refused;
}

/* ---- directory and versions */

/* `r`: as view_open() returned it, with its detail. */
static void check_directory(struct doctor *doctor, const char *name, const struct view *view,
                            int r) {
    if (r == SHMPS_E_NO_DAEMON)
        return;
    if (r < 0) {
        struct command mend = r == SHMPS_E_PERMISSION
                                  ? command("see bus.files")
                                  : command("end its programs, and shmps gc --force --instance %s",
                                            name);
        finding(doctor, VERDICT_FAIL, r == SHMPS_E_VERSION ? "bus.version" : "bus.directory",
                (struct remedy){ shmps_error_detail(), mend.text },
                "the directory of instance '%s' cannot be used", name);
        return;
    }
    finding_ok(doctor, "bus.version", "the directory has layout %u of this build",
               view->directory.header->identity.version);
    bool refused = check_errors(doctor, view);
    check_topics(doctor, view, refused);
}

/* ---- what is left over, of all instances */

static void check_leftovers(struct doctor *doctor) {
    size_t n, total = 0;
    char(*names)[INSTANCE_BYTES] = leftovers_instances(&n);
    for (size_t i = 0; i < n; i++) {
        struct leftovers found;
        char size[SIZE_TEXT_BYTES];
        uint64_t bytes;
        leftovers_find(&found, names[i], false, false);
        size_t files = leftovers_stale(&found, &bytes);
        struct command mend = command("shmps gc --instance %s (shmps dump --instance %s first "
                                      "shows what is in it)",
                                      names[i], names[i]);
        size_text(bytes, size);
        if (files > 0)
            finding(doctor, VERDICT_WARN, "leftovers",
                    (struct remedy){ "nobody uses them", mend.text },
                    "%zu files of %s of instance '%s'", files, size, names[i]);
        total += files;
        leftovers_free(&found);
    }
    if (total == 0)
        finding_ok(doctor, "leftovers", "none of yours");
    free(names);
}

/* Its name: as given, or as the one tells to whose socket a path leads. */
static int find_name(const char *instance, char ret[INSTANCE_BYTES]) {
    struct view view;
    if (view_choose_instance(instance, ret) == 0)
        return 0;
    int r = view_open(&view, instance);
    if (r < 0)
        return r;
    memcpy(ret, view.instance, INSTANCE_BYTES);
    view_close(&view);
    return 0;
}

static void check_instance(struct doctor *doctor, const char *instance, const char *name) {
    struct leftovers found;
    struct view view;
    leftovers_find(&found, name, false, false);
    int r = view_open(&view, instance);
    if (r == 0 && view.uid != geteuid()) /* the system's */
        check_hello(doctor, view.instance, view.daemon_pid);
    else
        check_daemon(doctor, &found);
    if (r < 0)
        r = view_open(&view, instance); /* for its detail */
    check_directory(doctor, name, &view, r);
    check_files(doctor, &found);
    if (r == 0)
        view_close(&view);
    leftovers_free(&found);
}

void doctor_bus(struct doctor *doctor, const char *instance) {
    char name[INSTANCE_BYTES];
    finding_ok(doctor, "version", "shmps %s, layout %u, fingerprint %016" PRIx64, SHMPS_VERSION,
               LAYOUT_VERSION, layout_fingerprint());
    check_socket_directories(doctor);
    if (find_name(instance, name) < 0)
        finding(doctor, VERDICT_FAIL, "bus.instance",
                (struct remedy){ shmps_error_detail(), "give --instance NAME" },
                "which bus is meant is not known");
    else
        check_instance(doctor, instance, name);
    check_leftovers(doctor);
}
