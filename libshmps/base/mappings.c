#include "base/mappings.h"

#include "base/error.h"
#include "base/scope.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define SHARED_MEMORY "/dev/shm"

static int add(struct mappings *to, dev_t device, ino_t inode, pid_t pid) {
    if (to->n == to->room) {
        size_t room = to->room > 0 ? 2 * to->room : 256;
        struct mapping *grown = reallocarray(to->of, room, sizeof(*grown));
        if (grown == NULL) {
            return error_raise(SHMPS_E_NO_MEMORY, "no memory for who maps what");
        }
        to->of = grown;
        to->room = room;
    }
    to->of[to->n++] = (struct mapping){ device, inode, pid };
    return 0;
}

/* proc_pid_maps(5) */
static int add_process(struct mappings *to, pid_t pid, dev_t device) {
    char path[64], *line = NULL;
    size_t room = 0;
    int r = 0;

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    if (maps == NULL) {
        if (errno != ENOENT && errno != ESRCH) {
            to->unreadable = pid;
        }
        return 0;
    }
    while (r == 0 && getline(&line, &room, maps) >= 0) {
        unsigned major_, minor_;
        unsigned long inode;
        if (sscanf(line, "%*x-%*x %*s %*x %x:%x %lu", &major_, &minor_, &inode) == 3 &&
            makedev(major_, minor_) == device) {
            r = add(to, device, inode, pid);
        }
    }
    if (ferror(maps) && errno != ESRCH) {
        to->unreadable = pid;
    }
    free(line);
    fclose(maps);
    return r;
}

static bool shared_memory_device(dev_t *ret) {
    struct stat s;

    if (stat(SHARED_MEMORY, &s) < 0) {
        return false; /* nobody maps anything of it */
    }
    *ret = s.st_dev;
    return true;
}

int mappings_of_process(struct mappings *to, pid_t pid) {
    dev_t device;

    return shared_memory_device(&device) ? add_process(to, pid, device) : 0;
}

/* One that may not be looked at (PR_SET_DUMPABLE) has its files in /proc owned by root, but says
 * its real user. */
static bool is_ours(pid_t pid) {
    char path[64], line[256];
    unsigned uid = 0;
    bool known = false;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *status = fopen(path, "re");
    while (status != NULL && !known && fgets(line, sizeof(line), status) != NULL) {
        known = sscanf(line, "Uid: %u", &uid) == 1;
    }
    if (status != NULL) {
        fclose(status);
    }
    return known && uid == geteuid();
}

int mappings_of_all(struct mappings *to) {
    const struct dirent *entry;
    dev_t device;
    int r = 0;

    if (!shared_memory_device(&device)) {
        return 0;
    }
    DIR *processes = opendir("/proc");
    if (processes == NULL) {
        to->unreadable = getpid(); /* and all others */
        return 0;
    }
    while (r == 0 && (entry = readdir(processes)) != NULL) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (*end == '\0' && pid > 0 && pid != getpid() && is_ours((pid_t)pid)) {
            r = add_process(to, (pid_t)pid, device);
        }
    }
    closedir(processes);
    return r;
}

void mappings_free(struct mappings *mappings) {
    free(mappings->of);
    *mappings = MAPPINGS_NONE;
}

pid_t mappings_user(const struct mappings *mappings, dev_t device, ino_t inode) {
    for (size_t i = 0; i < mappings->n; i++) {
        if (mappings->of[i].inode == inode && mappings->of[i].device == device) {
            return mappings->of[i].pid;
        }
    }
    return 0;
}
