/* doctor_system.c - what the system gives: /dev/shm, limits, numbers of the kernel, logind. */
#include "doctor.h"
#include "text.h"
#include "tool.h"

#include "base/scope.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#define SHARED_MEMORY "/dev/shm"
#define SPACE_LEAST (UINT64_C(64) << 20)
#define FREE_LEAST (UINT64_C(1) << 20) /* a ring of a publisher that gives no size: 528 KiB */
#define FILES_LEAST 100
#define SYSTEM_UID_MAX 999 /* logind spares users up to it, and root */

/* ---- /dev/shm */

static void check_mode(struct doctor *doctor) {
    struct stat s;
    if (stat(SHARED_MEMORY, &s) < 0)
        return;
    unsigned mode = s.st_mode & 07777;
    struct remedy remedy = { "no segment can be made", "chmod 1777 " SHARED_MEMORY };
    if (access(SHARED_MEMORY, R_OK | W_OK | X_OK) < 0) {
        finding(doctor, VERDICT_FAIL, "shm.mode", remedy,
                SHARED_MEMORY " has mode %04o and is of user %u: not for user %u", mode,
                (unsigned)s.st_uid, (unsigned)geteuid());
        return;
    }
    remedy.why = "others can remove and replace your segments";
    if ((mode & 0022) && !(mode & 01000))
        finding(doctor, VERDICT_WARN, "shm.mode", remedy, SHARED_MEMORY " has mode %04o", mode);
    else
        finding_ok(doctor, "shm.mode", SHARED_MEMORY " has mode %04o", mode);
}

/* What is in it: of shmps, and of others. */
struct use {
    uint64_t ours, others, largest;
    char name[NAME_MAX + 1]; /* of the largest of others */
};

static void count_use(struct use *ret) {
    DIR *directory = opendir(SHARED_MEMORY);
    struct stat s;
    *ret = (struct use){ 0 };
    if (!directory)
        return;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (fstatat(dirfd(directory), entry->d_name, &s, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(s.st_mode))
            continue;
        uint64_t bytes = (uint64_t)s.st_blocks * 512;
        bool ours = strncmp(entry->d_name, "shmps.", 6) == 0;
        *(ours ? &ret->ours : &ret->others) += bytes;
        if (ours || bytes <= ret->largest)
            continue;
        ret->largest = bytes;
        snprintf(ret->name, sizeof(ret->name), "%s", entry->d_name);
    }
    closedir(directory);
}

static void space_remedy(const struct use *use, size_t bytes, char *ret) {
    static const char larger[] = "or mount -o remount,size=1G /dev/shm (a container: "
                                 "--shm-size=1g)";
    char size[SIZE_TEXT_BYTES];
    size_text(use->largest, size);
    if (use->ours > use->others)
        snprintf(ret, bytes, "shmps top -b -n 1 --sort memory, and shmps gc --all; %s", larger);
    else if (use->largest > 0)
        snprintf(ret, bytes, "remove what is not shmps' (ls -lS /dev/shm; the largest is "
                 SHARED_MEMORY "/%s, %s); %s", use->name, size, larger);
    else
        snprintf(ret, bytes, "remove what is not shmps'; %s", larger);
}

static void check_space(struct doctor *doctor, const struct statfs *fs) {
    char total[SIZE_TEXT_BYTES], left[SIZE_TEXT_BYTES], ours[SIZE_TEXT_BYTES];
    char others[SIZE_TEXT_BYTES], mend[512];
    uint64_t total_bytes = fs->f_blocks * (uint64_t)fs->f_bsize;
    uint64_t free_bytes = fs->f_bavail * (uint64_t)fs->f_bsize;
    struct use use;
    if (total_bytes == 0) {
        finding_ok(doctor, "shm.space", SHARED_MEMORY " has no limit");
        return;
    }
    count_use(&use);
    size_text(total_bytes, total);
    size_text(free_bytes, left);
    size_text(use.ours, ours);
    size_text(use.others, others);
    enum verdict verdict = VERDICT_OK;
    struct remedy remedy = { NULL, NULL };
    if (free_bytes < FREE_LEAST) {
        verdict = VERDICT_FAIL;
        remedy.why = "new publishers are refused";
    } else if (free_bytes < total_bytes / 10) {
        verdict = VERDICT_WARN;
        remedy.why = "new publishers will be refused soon";
    } else if (total_bytes < SPACE_LEAST) {
        verdict = VERDICT_WARN;
        remedy.why = "a few publishers fill it";
    }
    space_remedy(&use, sizeof(mend), mend);
    if (verdict != VERDICT_OK)
        remedy.mend = mend;
    finding(doctor, verdict, "shm.space", remedy,
            "%s of %s are free, shmps has %s, others have %s", left, total, ours, others);
    if (fs->f_files > 0 && fs->f_ffree < FILES_LEAST)
        finding(doctor, VERDICT_FAIL, "shm.files",
                (struct remedy){ "no segment can be made",
                                 "mount -o remount,nr_inodes=1M /dev/shm" },
                "%llu files are left", (unsigned long long)fs->f_ffree);
}

static void check_shared_memory(struct doctor *doctor) {
    static const char mend[] = "mount -t tmpfs -o mode=1777 tmpfs /dev/shm";
    struct statfs fs;
    if (statfs(SHARED_MEMORY, &fs) < 0) {
        finding(doctor, VERDICT_FAIL, "shm.mount",
                (struct remedy){ "nothing can be shared", mend },
                SHARED_MEMORY " cannot be looked at (%s)", strerror(errno));
        return;
    }
    if (fs.f_type == TMPFS_MAGIC)
        finding_ok(doctor, "shm.mount", SHARED_MEMORY " is a tmpfs");
    else
        finding(doctor, VERDICT_WARN, "shm.mount",
                (struct remedy){ "what is published may be written to a disk", mend },
                SHARED_MEMORY " is no tmpfs (type %#lx)", (unsigned long)fs.f_type);
    check_mode(doctor);
    check_space(doctor, &fs);
}

/* ---- limits */

static const struct limit {
    const char *check, *name;
    int resource;
    rlim_t least;
    struct remedy remedy;
} limits[] = {
    { "limit.nofile", "descriptors (RLIMIT_NOFILE)", RLIMIT_NOFILE, 1024,
      { "pubsubd needs two for each client, a subscriber one, and more while it opens",
        "ulimit -n 4096 (systemd: LimitNOFILE=4096)" } },
    { "limit.fsize", "the size of a file (RLIMIT_FSIZE)", RLIMIT_FSIZE, RLIM_INFINITY,
      { "a larger segment ends pubsubd with SIGXFSZ", "ulimit -f unlimited" } },
    { "limit.as", "address space (RLIMIT_AS)", RLIMIT_AS, RLIM_INFINITY,
      { "rings are mapped whole", "ulimit -v unlimited" } },
};

static void limit_text(rlim_t limit, char ret[32]) {
    if (limit == RLIM_INFINITY)
        snprintf(ret, 32, "unlimited");
    else
        snprintf(ret, 32, "%llu", (unsigned long long)limit);
}

static void check_limits(struct doctor *doctor) {
    for (size_t i = 0; i < ARRAY_LENGTH(limits); i++) {
        const struct limit *limit = &limits[i];
        struct rlimit now;
        char soft[32], hard[32];
        if (getrlimit((__rlimit_resource_t)limit->resource, &now) < 0)
            continue;
        limit_text(now.rlim_cur, soft);
        limit_text(now.rlim_max, hard);
        if (now.rlim_cur >= limit->least)
            finding_ok(doctor, limit->check, "%s: %s", limit->name, soft);
        else
            finding(doctor, VERDICT_WARN, limit->check, limit->remedy, "%s: %s, at most %s",
                    limit->name, soft, hard);
    }
}

/* ---- numbers of the kernel */

static const struct number {
    const char *check, *path;
    uint64_t least;
    struct remedy remedy;
} numbers[] = {
    { "limit.map_count", "/proc/sys/vm/max_map_count", 16384,
      { "a subscriber maps two segments a publisher, pubsubd all of them",
        "sysctl -w vm.max_map_count=65530" } },
    { "limit.epoll", "/proc/sys/fs/epoll/max_user_watches", 16384,
      { "without io_uring pubsubd watches two descriptors a client",
        "sysctl -w fs.epoll.max_user_watches=65536" } },
};

/* The numbers at the beginning of a file of /proc. Returns how many there are. */
static int read_numbers(const char *path, uint64_t *ret, int n) {
    FILE *file = fopen(path, "re");
    int found = 0;
    while (file && found < n && fscanf(file, "%" SCNu64, &ret[found]) == 1)
        found++;
    if (file)
        fclose(file);
    return found;
}

static void check_numbers(struct doctor *doctor) {
    uint64_t files[3];
    for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++) {
        const struct number *number = &numbers[i];
        uint64_t now;
        if (read_numbers(number->path, &now, 1) != 1)
            continue; /* this kernel has no such limit */
        if (now >= number->least)
            finding_ok(doctor, number->check, "%s: %" PRIu64, number->path, now);
        else
            finding(doctor, VERDICT_WARN, number->check, number->remedy, "%s: %" PRIu64,
                    number->path, now);
    }
    if (read_numbers("/proc/sys/fs/file-nr", files, 3) != 3)
        return;
    if (files[0] < files[2] / 10 * 9)
        finding_ok(doctor, "limit.file_max", "%" PRIu64 " files are open on this machine, of %"
                   PRIu64, files[0], files[2]);
    else
        finding(doctor, VERDICT_WARN, "limit.file_max",
                (struct remedy){ "soon nobody can open anything",
                                 "sysctl -w fs.file-max=1000000" },
                "%" PRIu64 " files are open on this machine, of %" PRIu64, files[0], files[2]);
}

/* ---- RemoveIPC (logind.conf(5)): whose last session ends loses what is in /dev/shm */

#define DROP_INS_MAX 256
struct drop_in {
    char name[NAME_MAX + 1];
    const char *place;
};

/* From the least to the most important. */
static const char *const places[] = { "/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd",
                                      "/etc/systemd" };

/* The last assignment in section [Login]; false: there is none. */
static bool read_setting(const char *path, bool *ret) {
    char line[512], value[16];
    bool login = false, found = false;
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (line[0] == '[')
            login = strncmp(line, "[Login]", 7) == 0;
        if (!login || sscanf(line, " RemoveIPC = %15s", value) != 1)
            continue;
        *ret = strchr("yYtT1", value[0]) || strcasecmp(value, "on") == 0;
        found = true;
    }
    if (file)
        fclose(file);
    return found;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct drop_in *)a)->name, ((const struct drop_in *)b)->name);
}

/* Drop-ins are read in the order of their names; one of a more important place hides its
 * namesakes. */
static size_t find_drop_ins(struct drop_in *ret) {
    size_t n = 0;
    for (size_t p = 0; p < ARRAY_LENGTH(places); p++) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s/logind.conf.d", places[p]);
        DIR *directory = opendir(path);
        for (const struct dirent *entry; directory && (entry = readdir(directory)) != NULL;) {
            size_t length = strlen(entry->d_name), i = 0;
            if (length < 5 || strcmp(entry->d_name + length - 5, ".conf") != 0)
                continue;
            while (i < n && strcmp(ret[i].name, entry->d_name) != 0)
                i++;
            if (i == DROP_INS_MAX)
                continue;
            snprintf(ret[i].name, sizeof(ret[i].name), "%s", entry->d_name);
            ret[i].place = places[p];
            n += i == n;
        }
        if (directory)
            closedir(directory);
    }
    qsort(ret, n, sizeof(*ret), by_name);
    return n;
}

static bool remove_ipc(char ret_from[PATH_MAX]) {
    static struct drop_in drop_ins[DROP_INS_MAX];
    char path[PATH_MAX];
    bool value = true;
    snprintf(ret_from, PATH_MAX, "the default");
    for (size_t p = ARRAY_LENGTH(places); p-- > 0;) {
        snprintf(path, sizeof(path), "%s/logind.conf", places[p]);
        if (access(path, F_OK) < 0)
            continue;
        if (read_setting(path, &value))
            memcpy(ret_from, path, sizeof(path));
        break; /* it hides the others */
    }
    size_t n = find_drop_ins(drop_ins);
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof(path), "%s/logind.conf.d/%.255s", drop_ins[i].place,
                 drop_ins[i].name);
        if (read_setting(path, &value))
            memcpy(ret_from, path, sizeof(path));
    }
    return value;
}

static bool lingers(const char *user) {
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "/var/lib/systemd/linger/%s", user);
    return access(path, F_OK) == 0;
}

static void check_remove_ipc(struct doctor *doctor) {
    char from[PATH_MAX], mend[256];
    const struct passwd *entry = getpwuid(geteuid());
    const char *user = entry ? entry->pw_name : "USER";
    if (access("/run/systemd/users", F_OK) < 0) {
        finding_ok(doctor, "login.remove_ipc", "no systemd-logind runs here");
    } else if (geteuid() <= SYSTEM_UID_MAX) {
        finding_ok(doctor, "login.remove_ipc", "user %u is a system user, whom logind spares",
                   (unsigned)geteuid());
    } else if (!remove_ipc(from)) {
        finding_ok(doctor, "login.remove_ipc", "RemoveIPC=no (%s)", from);
    } else if (lingers(user)) {
        finding_ok(doctor, "login.remove_ipc", "RemoveIPC=yes (%s), but %s lingers", from, user);
    } else {
        snprintf(mend, sizeof(mend),
                 "loginctl enable-linger %s; or RemoveIPC=no in /etc/systemd/logind.conf.d/"
                 "shmps.conf, and systemctl restart systemd-logind",
                 user);
        finding(doctor, VERDICT_WARN, "login.remove_ipc",
                (struct remedy){ "when your last session ends, logind removes all that you have "
                                 "in /dev/shm, of running programs too",
                                 mend },
                "RemoveIPC=yes (%s)", from);
    }
}

void doctor_system(struct doctor *doctor) {
    check_shared_memory(doctor);
    check_limits(doctor);
    check_numbers(doctor);
    check_remove_ipc(doctor);
}
