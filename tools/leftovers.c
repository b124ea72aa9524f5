#include "leftovers.h"

#include "tool.h"
#include "view.h"

#include "base/instance.h"
#include "base/lock.h"
#include "base/mappings.h"
#include "base/scope.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SHARED_MEMORY "/dev/shm"
#define SEMAPHORE_PREFIX "sem." /* glibc's sem_open(3) */
#define SOCKET_SUFFIX ".sock"

/* ---- names */

/* What a name in /dev/shm says: shmps.UID.INSTANCE.TAIL, or the semaphore
 * sem.shmps.UID.INSTANCE.ready.THREAD. Only what could have been made here counts. */
struct file_name {
    unsigned uid;
    char instance[INSTANCE_BYTES];
    enum leftover_kind kind;
    uint64_t number;
};

static bool parse_tail(const char *tail, struct file_name *ret) {
    uint32_t page;
    char made[64] = "";
    if (strcmp(tail, "dir") == 0)
        return ret->kind = LEFTOVER_DIRECTORY, true;
    if (strcmp(tail, "lock") == 0)
        return ret->kind = LEFTOVER_LOCK, true;
    if (sscanf(tail, "r%" SCNu64, &ret->number) == 1) {
        ret->kind = LEFTOVER_RING;
        snprintf(made, sizeof(made), "r%" PRIu64, ret->number);
    } else if (sscanf(tail, "e%" SCNu64 ".%" SCNu32, &ret->number, &page) == 2) {
        ret->kind = LEFTOVER_READERS;
        snprintf(made, sizeof(made), "e%" PRIu64 ".%" PRIu32, ret->number, page);
    } else if (sscanf(tail, "dir.bad-%" SCNu64, &ret->number) == 1) {
        ret->kind = LEFTOVER_SET_ASIDE;
        snprintf(made, sizeof(made), "dir.bad-%" PRIu64, ret->number);
    }
    return strcmp(made, tail) == 0;
}

static bool parse_name(const char *file, struct file_name *ret) {
    struct file_name name = { 0 };
    bool semaphore = strncmp(file, SEMAPHORE_PREFIX, strlen(SEMAPHORE_PREFIX)) == 0;
    int end = 0;
    file += semaphore ? strlen(SEMAPHORE_PREFIX) : 0;
    if (sscanf(file, "shmps.%u.%32[^.].%n", &name.uid, name.instance, &end) != 2 || end == 0 ||
        !instance_name_valid(name.instance))
        return false;
    if (!semaphore) {
        if (!parse_tail(file + end, &name))
            return false;
    } else {
        name.kind = LEFTOVER_SEMAPHORE;
        int last = 0;
        if (sscanf(file + end, "ready.%" SCNu64 "%n", &name.number, &last) != 1 ||
            file[end + last] != '\0')
            return false;
    }
    *ret = name;
    return true;
}

static void visit_shared_memory(void (*visit)(void *data, const char *file,
                                              const struct file_name *name),
                                void *data) {
    DIR *directory = opendir(SHARED_MEMORY);
    if (!directory)
        return;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        struct file_name name;
        if (parse_name(entry->d_name, &name))
            visit(data, entry->d_name, &name);
    }
    closedir(directory);
}

bool leftovers_socket_directory(size_t i, char ret[PATH_MAX]) {
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
    unsigned uid = (unsigned)geteuid();
    if (i == 0)
        snprintf(ret, PATH_MAX, "%s/shmps", runtime && runtime[0] == '/' ? runtime : "/nowhere");
    else if (i == 1)
        snprintf(ret, PATH_MAX, "/run/user/%u/shmps", uid);
    else if (i == 2)
        snprintf(ret, PATH_MAX, "/tmp/shmps-%u", uid);
    else
        snprintf(ret, PATH_MAX, SYSTEM_DIRECTORY);
    return i < 4;
}

/* ---- the list of instances */

struct names {
    char (*names)[INSTANCE_BYTES];
    size_t n, room;
};

static void add_name(struct names *names, const char *name) {
    for (size_t i = 0; i < names->n; i++)
        if (strcmp(names->names[i], name) == 0)
            return;
    if (names->n == names->room) {
        names->room = names->room ? 2 * names->room : 16;
        names->names = reallocarray(names->names, names->room, sizeof(*names->names));
        if (!names->names)
            out_of_memory();
    }
    snprintf(names->names[names->n++], INSTANCE_BYTES, "%s", name);
}

static void note_instance(void *data, const char *file, const struct file_name *name) {
    (void)file;
    if (name->uid == geteuid())
        add_name(data, name->instance);
}

static void note_sockets(struct names *names, const char *path) {
    DIR *directory = opendir(path);
    if (!directory)
        return;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char name[INSTANCE_BYTES];
        const char *suffix = strstr(entry->d_name, SOCKET_SUFFIX);
        if (!suffix || suffix[strlen(SOCKET_SUFFIX)] || suffix - entry->d_name >= INSTANCE_BYTES)
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)(suffix - entry->d_name), entry->d_name);
        if (instance_name_valid(name))
            add_name(names, name);
    }
    closedir(directory);
}

static int by_name(const void *a, const void *b) {
    return strcmp(a, b);
}

char (*leftovers_instances(size_t *ret_n))[INSTANCE_BYTES] {
    struct names names = { 0 };
    char path[PATH_MAX];
    visit_shared_memory(note_instance, &names);
    for (size_t i = 0; leftovers_socket_directory(i, path); i++)
        note_sockets(&names, path);
    if (names.n > 0)
        qsort(names.names, names.n, sizeof(*names.names), by_name);
    *ret_n = names.n;
    return names.names;
}

struct other {
    const char *instance;
    bool found;
};

static void note_other(void *data, const char *file, const struct file_name *name) {
    struct other *other = data;
    (void)file;
    if (name->uid != geteuid() && strcmp(name->instance, other->instance) == 0)
        other->found = true;
}

bool leftovers_of_others(const char *instance) {
    struct other other = { .instance = instance };
    visit_shared_memory(note_other, &other);
    return other.found;
}

/* ---- the files of one */

static void add_file(struct leftovers *found, const char *directory, const char *file,
                     enum leftover_kind kind, uint64_t number) {
    struct leftover new = { .kind = kind, .number = number };
    struct stat s;
    int length = snprintf(new.path, sizeof(new.path), "%s/%s", directory, file);
    if (length < 0 || (size_t)length >= sizeof(new.path) || lstat(new.path, &s) < 0)
        return; /* gone just now */
    if (kind == LEFTOVER_SOCKET && s.st_uid != geteuid())
        return; /* the system's sockets may be others' */
    new.device = s.st_dev;
    new.inode = s.st_ino;
    new.uid = s.st_uid;
    new.mode = s.st_mode;
    new.bytes = (uint64_t)s.st_blocks * 512;
    found->files = reallocarray(found->files, found->n + 1, sizeof(*found->files));
    if (!found->files)
        out_of_memory();
    found->files[found->n++] = new;
}

static void note_file(void *data, const char *file, const struct file_name *name) {
    struct leftovers *found = data;
    if (name->uid == geteuid() && strcmp(name->instance, found->instance) == 0)
        add_file(found, SHARED_MEMORY, file, name->kind, name->number);
}

static int by_kind(const void *a, const void *b) {
    const struct leftover *x = a, *y = b;
    return x->kind != y->kind ? (int)x->kind - (int)y->kind : strcmp(x->path, y->path);
}

static void list_files(struct leftovers *found) {
    char path[PATH_MAX], file[INSTANCE_BYTES + sizeof(SOCKET_SUFFIX)];
    visit_shared_memory(note_file, found);
    snprintf(file, sizeof(file), "%s" SOCKET_SUFFIX, found->instance);
    for (size_t i = 0; leftovers_socket_directory(i, path); i++)
        add_file(found, path, file, LEFTOVER_SOCKET, 0);
    if (found->n > 0)
        qsort(found->files, found->n, sizeof(*found->files), by_kind);
}

/* ---- who maps them */

static pid_t mapped_by(const struct mappings *mappings, const struct leftover *file) {
    return mappings_user(mappings, file->device, file->inode);
}

/* ---- what the directory says */

struct mentioned {
    bool readable, other_layout;
    int owner;         /* one that lives, or 0 */
    uint64_t *serials; /* of the rings that it leads to */
    size_t n;
};

static void read_records(const struct directory *d, struct mentioned *ret) {
    ret->serials = calloc(d->geometry.rings, sizeof(*ret->serials));
    if (!ret->serials)
        out_of_memory();
    for (uint32_t i = 0; i < d->geometry.rings; i++) {
        struct ring_info ring;
        if (!directory_ring(d, i, &ring) || ring.state == RING_FREE)
            continue;
        ret->serials[ret->n++] = ring.serial;
        if (ring.state == RING_LIVE && view_owner_alive(&ring.owner))
            ret->owner = ring.owner.pid;
    }
    for (uint32_t i = 0; i < d->geometry.subscriptions; i++) {
        struct subscription_info subscription;
        if (directory_subscription(d, i, &subscription, NULL) && subscription.live &&
            view_owner_alive(&subscription.owner))
            ret->owner = subscription.owner.pid;
    }
}

static void read_directory(struct leftovers *found, struct mentioned *ret) {
    struct view view;
    int r = view_open_own(&view, found->instance);
    if (r == 0) {
        read_records(&view.directory, ret);
        view_close(&view);
        ret->readable = true;
        return;
    }
    ret->other_layout = r == SHMPS_E_VERSION;
    found->trouble = r == SHMPS_E_NO_DAEMON ? NULL : strdup(shmps_error_detail());
}

static bool is_mentioned(const struct mentioned *mentioned, uint64_t serial) {
    for (size_t i = 0; i < mentioned->n; i++)
        if (mentioned->serials[i] == serial)
            return true;
    return false;
}

/* ---- the verdict */

static bool is_used_by_clients(enum leftover_kind kind) {
    return kind == LEFTOVER_DIRECTORY || kind == LEFTOVER_RING || kind == LEFTOVER_READERS;
}

static void decide_usage(struct leftovers *found, const struct mappings *mappings,
                         const struct mentioned *mentioned, bool locked, bool force) {
    found->pid = locked ? 0 : instance_lock_holder(geteuid(), found->instance);
    found->usage = found->pid ? USAGE_DAEMON : USAGE_NOBODY;
    if (found->usage == USAGE_DAEMON)
        return;
    found->pid = mentioned->owner;
    for (size_t i = 0; i < found->n && !found->pid; i++)
        if (is_used_by_clients(found->files[i].kind))
            found->pid = mapped_by(mappings, &found->files[i]);
    if (found->pid)
        found->usage = USAGE_CLIENTS;
    else if (!force && found->n > 0 &&
             (mentioned->other_layout || (!mentioned->readable && mappings->unreadable)))
        found->usage = USAGE_UNKNOWN;
    if (found->usage == USAGE_UNKNOWN && !mentioned->other_layout)
        found->pid = mappings->unreadable;
}

static bool is_stale(const struct leftovers *found, const struct leftover *file,
                     const struct mappings *mappings, const struct mentioned *mentioned) {
    char path[64];
    if (file->uid != geteuid() || mapped_by(mappings, file))
        return false;
    switch (file->kind) {
    case LEFTOVER_SET_ASIDE:
        return true;
    case LEFTOVER_SEMAPHORE: /* its number is a thread's */
        snprintf(path, sizeof(path), "/proc/%" PRIu64, file->number);
        return access(path, F_OK) < 0;
    case LEFTOVER_RING:
    case LEFTOVER_READERS: /* as the next daemon's: what the directory does not lead to, goes */
        return found->usage == USAGE_NOBODY ||
               (found->usage == USAGE_CLIENTS && mentioned->readable &&
                !is_mentioned(mentioned, file->number));
    case LEFTOVER_SOCKET:
        return found->usage == USAGE_NOBODY && S_ISSOCK(file->mode) && !socket_listens(file->path);
    case LEFTOVER_DIRECTORY:
    case LEFTOVER_LOCK:
        return found->usage == USAGE_NOBODY;
    }
    return false;
}

void leftovers_find(struct leftovers *ret, const char *instance, bool locked, bool force) {
    struct mappings mappings = MAPPINGS_NONE;
    struct mentioned mentioned = { 0 };
    *ret = (struct leftovers){ 0 };
    snprintf(ret->instance, sizeof(ret->instance), "%s", instance);
    list_files(ret);
    if (mappings_of_all(&mappings) < 0)
        out_of_memory();
    read_directory(ret, &mentioned);
    decide_usage(ret, &mappings, &mentioned, locked, force);
    for (size_t i = 0; i < ret->n; i++)
        ret->files[i].stale = is_stale(ret, &ret->files[i], &mappings, &mentioned);
    mappings_free(&mappings);
    free(mentioned.serials);
}

void leftovers_free(struct leftovers *found) {
    free(found->files);
    free(found->trouble);
    *found = (struct leftovers){ 0 };
}

size_t leftovers_stale(const struct leftovers *found, uint64_t *ret_bytes) {
    size_t n = 0;
    *ret_bytes = 0;
    for (size_t i = 0; i < found->n; i++) {
        n += found->files[i].stale;
        *ret_bytes += found->files[i].stale ? found->files[i].bytes : 0;
    }
    return n;
}

const char *leftover_kind_name(enum leftover_kind kind) {
    static const char *const names[] = {
        "directory",           "ring",      "readers segment", "directory set aside",
        "ready semaphore", "socket", "lock",
    };
    return names[kind];
}

bool socket_listens(const char *path) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || length < 0 || (size_t)length >= sizeof(address.sun_path))
        return true; /* not to be told */
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return errno != ECONNREFUSED;
    /* What a killed daemon's io_uring holds takes connections for a while after its end. */
    struct ucred peer = { 0 };
    socklen_t bytes = sizeof(peer);
    bool told = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 && peer.pid > 0;
    return !told || process_start_time(peer.pid) != 0;
}
