/* tests/system/test_adoption.c - a daemon is killed, what it left is damaged, and the next one
 * finds it: it becomes ready or refuses with a message, and takes nothing away from who lives. */
#include "control.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- chance, that can be repeated */

static uint64_t draw(uint64_t *state, uint64_t below) {
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (x ^ x >> 31) % below;
}

static uint64_t test_seed(void) {
    const char *given = getenv("SHMPS_TEST_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : now_ns();
    print_message("# SHMPS_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* ---- a bus that lives, and what its segments hold when the daemon dies
 *
 * a: two publishers, a reliable subscriber; b: a publisher, a subscriber with many pins; #: one
 * more. This process is the client of all of them and, as such, has all segments mapped. */

enum { A1, A2, B, RINGS };
enum { OF_A, OF_B, OF_ALL, SUBSCRIPTIONS };
#define FILES_MAX 16
#define PATH_BYTES (SEGMENT_NAME_BYTES + 16)

struct file {
    char path[PATH_BYTES];
    ino_t inode;
    uint64_t bytes;
    char *content;
    struct segment_map map; /* as whoever uses it has */
};

struct scene {
    struct daemon *d;
    uint64_t rings[RINGS], subscriptions[SUBSCRIPTIONS];
    struct file files[FILES_MAX]; /* the first is the directory */
    unsigned n_files;
};

static void shm_path(const struct segment_ref *ref, char ret[PATH_BYTES]) {
    snprintf(ret, PATH_BYTES, "/dev/shm%s", ref->name);
}

/* The file is there, as it was. */
static bool is_there(const struct file *file) {
    struct stat s;
    return lstat(file->path, &s) == 0 && s.st_ino == file->inode;
}

static void keep_file(struct scene *scene, const struct segment_ref *ref) {
    struct file *file = &scene->files[scene->n_files++];
    _cleanup_close_ int fd = -1;
    struct stat s;
    assert_true(scene->n_files <= FILES_MAX);
    shm_path(ref, file->path);
    assert_int_equal(segment_open(ref, SEGMENT_WRITE, geteuid(), &fd), 0);
    assert_int_equal(segment_map(fd, SEGMENT_WRITE_LAZY, 1, &file->map), 0);
    assert_int_equal(fstat(fd, &s), 0);
    file->inode = s.st_ino;
    file->bytes = (uint64_t)s.st_size;
    file->content = malloc(file->bytes);
    assert_non_null(file->content);
    assert_int_equal(pread(fd, file->content, file->bytes, 0), (ssize_t)file->bytes);
}

static void keep_found(void *data, const struct segment_found *found) {
    keep_file(data, &found->ref);
}

/* A running daemon; afterwards there is none. */
static void populate(struct scene *scene, struct daemon *d) {
    struct segment_ref ref;
    struct wire_reply reply;
    int fd = control_session(d, 1);
    *scene = (struct scene){ .d = d };
    scene->rings[A1] = open_publisher(fd, "a");
    scene->subscriptions[OF_A] = open_subscriber(fd, "a", POLICY_RELIABLE);
    scene->rings[A2] = open_publisher(fd, "a");
    scene->rings[B] = open_publisher(fd, "b");
    assert_int_equal(control_subscriber(fd, "b", POLICY_LOSSY, 9, &reply), 0);
    scene->subscriptions[OF_B] = reply.u.subscriber.serial;
    scene->subscriptions[OF_ALL] = open_subscriber(fd, "#", POLICY_LOSSY);
    assert_int_equal(daemon_end(d, SIGKILL), SIGKILL);
    close(fd);
    segment_ref_directory(&ref, geteuid(), d->instance);
    keep_file(scene, &ref);
    assert_int_equal(segment_list(geteuid(), d->instance, keep_found, scene), 0);
    assert_int_equal(scene->n_files, 7);
}

static void forget(struct scene *scene) {
    for (unsigned i = 0; i < scene->n_files; i++) {
        segment_unmap(&scene->files[i].map);
        free(scene->files[i].content);
    }
}

static void find_aside(void *data, const struct segment_found *found) {
    if (found->content == SEGMENT_SET_ASIDE)
        shm_path(&found->ref, data);
}

static bool rewrite(const struct file *file) {
    int fd = open(file->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool done = fd >= 0 && fchmod(fd, 0600) == 0 && fchown(fd, geteuid(), getegid()) == 0 &&
                ftruncate(fd, (off_t)file->bytes) == 0 &&
                pwrite(fd, file->content, file->bytes, 0) == (ssize_t)file->bytes;
    scope_close(&fd);
    return done;
}

/* Everything as it was when the daemon died; what has gone cannot be, then a new bus is made. */
static void restore(struct scene *scene) {
    struct daemon *d = scene->d;
    char aside[PATH_BYTES] = "";
    bool whole = true;
    assert_int_equal(segment_list(geteuid(), d->instance, find_aside, aside), 0);
    if (aside[0] != '\0')
        assert_int_equal(rename(aside, scene->files[0].path), 0);
    for (unsigned i = 0; i < scene->n_files; i++)
        whole = whole && is_there(&scene->files[i]) && rewrite(&scene->files[i]);
    if (whole)
        return;
    forget(scene);
    daemon_start(d, NULL, NULL); /* whatever it finds, */
    daemon_end(d, SIGTERM);      /* it takes with it */
    daemon_start(d, NULL, NULL);
    populate(scene, d);
}

/* ---- what the next daemon makes of it */

enum outcome {
    ADOPTED,     /* all is claimed by its owner */
    DROPPED,     /* all but ring A2 */
    ASIDE,       /* a new bus begins */
    REFUSED,     /* it does not start, and leaves everything */
    OUTCOMES,    /* none of these */
};
static const char *const outcome_names[] = { "adopted", "dropped", "set aside", "refused",
                                             "damaged otherwise" };

static bool claims(int fd, const struct scene *scene, bool *ret_others, bool *ret_a2) {
    bool sane = true;
    *ret_others = true;
    for (int i = 0; i < RINGS; i++) {
        int r = claim_publisher(fd, scene->rings[i]);
        sane = sane && (r == 0 || r == SHMPS_E_NO_TOPIC || r == SHMPS_E_PERMISSION);
        if (i == A2)
            *ret_a2 = r == 0;
        else
            *ret_others = *ret_others && r == 0;
    }
    for (int i = 0; i < SUBSCRIPTIONS; i++) {
        int r = claim_subscriber(fd, scene->subscriptions[i]);
        sane = sane && (r == 0 || r == SHMPS_E_NO_TOPIC || r == SHMPS_E_PERMISSION);
        *ret_others = *ret_others && r == 0;
    }
    return sane;
}

static enum outcome find_out(struct scene *scene) {
    struct daemon *d = scene->d;
    bool others, a2 = false;
    int status;
    daemon_start(d, NULL, NULL);
    int fd = -1;
    if (strstr(daemon_log(d), ", epoch ") == NULL) { /* not ready */
        assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
        d->pid = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 1 ||
            strstr(daemon_log(d), "SHMPS_E_") == NULL)
            fail_msg("the daemon ended with status %x:\n%s", (unsigned)status, daemon_log(d));
        return REFUSED;
    }
    fd = control_session(d, 1);
    open_publisher(fd, "new"); /* it serves newcomers */
    open_subscriber(fd, "new", POLICY_RELIABLE);
    bool aside = strstr(daemon_log(d), "set aside") != NULL;
    assert_true(claims(fd, scene, &others, &a2));
    control_drained(fd, 0);
    assert_int_equal(control_ping(fd), 0);
    assert_int_equal(daemon_end(d, SIGKILL), SIGKILL);
    close(fd);
    return aside ? ASIDE : !others ? OUTCOMES : a2 ? ADOPTED : DROPPED;
}

/* ---- each field once */

enum where { HEADER, TOPIC_A, RING_A1, RING_A2, SUBSCRIPTION_A, PAGE_A };

struct damage {
    const char *name;
    enum where where;
    size_t offset;
    unsigned bytes;
    uint64_t value;
    enum outcome outcome;
};

#define ANOTHERS_SERIAL UINT64_MAX /* stands for that of another record of this kind */
#define INDEX_OF_A2 (UINT64_MAX - 1)
#define IN(where, type, field, value, outcome) \
    { #where " " #field, where, offsetof(struct type, field), \
      sizeof(((struct type *)NULL)->field), value, outcome }

static const struct damage damages[] = {
    IN(HEADER, directory_header, identity.magic, 0, ASIDE), /* half made */
    IN(HEADER, directory_header, identity.version, 7, REFUSED),
    IN(HEADER, directory_header, identity.fingerprint, 7, REFUSED),
    IN(HEADER, directory_header, identity.incompat, 1, REFUSED),
    IN(HEADER, directory_header, identity.bytes, 4096, ASIDE),
    IN(HEADER, directory_header, identity.boot_id[1], 7, ASIDE),
    IN(HEADER, directory_header, identity.uid, 65534, ASIDE),
    IN(HEADER, directory_header, identity.serial, 7, OUTCOMES), /* no ring says that it is of it */
    IN(HEADER, directory_header, identity.reserved[2], 1, ASIDE),
    IN(HEADER, directory_header, geometry.rings, 1, ASIDE),
    IN(HEADER, directory_header, geometry.pages, UINT32_MAX, ASIDE),
    IN(HEADER, directory_header, geometry.rings_offset, 0, ASIDE),
    IN(HEADER, directory_header, geometry.bytes, 0, ASIDE),
    IN(HEADER, directory_header, instance[0], 'X', ASIDE),
    IN(HEADER, directory_header, epoch, UINT64_MAX - 7, ADOPTED),
    IN(HEADER, directory_header, daemon_pid, 1, ADOPTED),
    IN(HEADER, directory_header, daemon_state, DAEMON_ENDED, ASIDE),
    IN(HEADER, directory_header, daemon_state, 77, ADOPTED),
    IN(HEADER, directory_header, next_serial, 0, ASIDE),
    IN(HEADER, directory_header, next_serial, 2, ASIDE),
    IN(HEADER, directory_header, next_serial, UINT64_MAX - 1, ASIDE),
    IN(TOPIC_A, topic_info, first_ring, 5000, ASIDE),
    IN(TOPIC_A, topic_info, first_page, 5000, ASIDE),
    IN(TOPIC_A, topic_info, first_page, NO_INDEX, OUTCOMES), /* as if nobody had subscribed */
    IN(TOPIC_A, topic_info, publishers, 99, ADOPTED),
    IN(TOPIC_A, topic_info, subscribers, 99, ADOPTED),
    IN(TOPIC_A, topic_info, history, UINT32_MAX, ADOPTED), /* the configuration's holds */
    IN(TOPIC_A, topic_info, history_asked, UINT32_MAX, ASIDE),
    IN(RING_A2, ring_info, state, 9, ASIDE),
    IN(RING_A2, ring_info, state, RING_FREE, ASIDE),
    IN(RING_A2, ring_info, state, RING_RETIRED, ASIDE),
    IN(RING_A2, ring_info, state, RING_REMOVED, ASIDE),
    IN(RING_A2, ring_info, topic, 1, ASIDE),
    IN(RING_A2, ring_info, next, INDEX_OF_A2, ASIDE), /* a loop */
    IN(RING_A2, ring_info, next, 5000, ASIDE),
    IN(RING_A1, ring_info, serial, ANOTHERS_SERIAL, ASIDE),
    IN(RING_A2, ring_info, serial, 0, ASIDE),
    IN(RING_A2, ring_info, serial, ANOTHERS_SERIAL, ASIDE),
    IN(RING_A2, ring_info, serial, UINT64_MAX / 2, ASIDE),
    IN(RING_A2, ring_info, publisher, 1000, ASIDE),
    IN(RING_A2, ring_info, publisher, 1, DROPPED),
    IN(RING_A2, ring_info, predecessor, 1000, ASIDE),
    IN(RING_A2, ring_info, start, SEQUENCE_END + 1, ASIDE),
    IN(RING_A2, ring_info, start, 5, DROPPED),
    IN(RING_A2, ring_info, bytes, UINT64_MAX / 4, ASIDE),
    IN(RING_A2, ring_info, bytes, 4096, DROPPED),
    IN(RING_A2, ring_info, message_bytes, 99, DROPPED),
    IN(RING_A2, ring_info, depth, 4, DROPPED),
    IN(RING_A2, ring_info, pins, 1, DROPPED),
    IN(RING_A2, ring_info, pins, UINT32_MAX, ASIDE),
    IN(RING_A2, ring_info, owner.pid, 0, DROPPED), /* such an owner is dead */
    IN(RING_A2, ring_info, owner.start_time, 1, DROPPED), /* the same number, another process */
    IN(RING_A2, ring_info, retired_ns, 1, ASIDE),
    IN(SUBSCRIPTION_A, subscription_info, policy, 0, ASIDE),
    IN(SUBSCRIPTION_A, subscription_info, policy, POLICY_LATEST, ASIDE), /* its seat differs */
    IN(SUBSCRIPTION_A, subscription_info, pins, 64, ASIDE),
    IN(SUBSCRIPTION_A, subscription_info, history, UINT32_MAX, ASIDE),
    IN(SUBSCRIPTION_A, subscription_info, serial, ANOTHERS_SERIAL, ASIDE),
    IN(SUBSCRIPTION_A, subscription_info, serial, 0, ASIDE),
    IN(SUBSCRIPTION_A, subscription_info, exact, 0, ASIDE),
    IN(SUBSCRIPTION_A, subscription_info, topic, 1, ASIDE),
    IN(SUBSCRIPTION_A, subscription_info, topic, 5000, ASIDE),
    IN(PAGE_A, roster_page, topic, 1, ASIDE),
    IN(PAGE_A, roster_page, next, 5000, ASIDE),
    IN(PAGE_A, roster_page, next, 0, ASIDE),
    IN(PAGE_A, roster_page, ordinal, 1, ASIDE),
    IN(PAGE_A, roster_page, uid, 65534, ASIDE),
    IN(PAGE_A, roster_page, first, 1, ASIDE),
    IN(PAGE_A, roster_page, cells[20], 3, ASIDE),
    IN(PAGE_A, roster_page, cells[0], 77, ASIDE),
};

static struct directory attach(const struct scene *scene, struct segment_map *map) {
    struct directory d;
    _cleanup_close_ int fd = open(scene->files[0].path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(segment_map(fd, SEGMENT_WRITE_LAZY, 4096, map), 0);
    assert_int_equal(directory_attach(&d, map->base, map->bytes), 0);
    return d;
}

static uint32_t ring_index(const struct directory *d, uint64_t serial) {
    struct ring_info info;
    for (uint32_t i = 0; i < d->geometry.rings; i++)
        if (directory_ring(d, i, &info) && info.serial == serial)
            return i;
    return NO_INDEX;
}

#define VALID_COPY(record) ((char *)(record).copy[(record).header.version & 1])

static char *place_of(const struct scene *scene, const struct directory *d, enum where where) {
    struct topic_info topic;
    struct subscription_info s;
    uint32_t a = directory_topic_find(d, "a"), i = 0;
    assert_true(directory_topic(d, a, &topic, NULL));
    switch (where) {
    case TOPIC_A:
        return VALID_COPY(d->topics[a]);
    case RING_A1:
    case RING_A2:
        i = ring_index(d, scene->rings[where == RING_A1 ? A1 : A2]);
        return VALID_COPY(d->rings[i]);
    case SUBSCRIPTION_A:
        while (directory_subscription(d, i, &s, NULL) && s.serial != scene->subscriptions[OF_A])
            i++;
        return VALID_COPY(d->subscriptions[i]);
    case PAGE_A:
        return (char *)&d->pages[topic.first_page];
    default:
        return (char *)d->header;
    }
}

static void inflict(const struct scene *scene, const struct damage *damage) {
    struct segment_map map;
    struct directory d = attach(scene, &map);
    uint64_t value = damage->value;
    if (value == ANOTHERS_SERIAL)
        value = damage->where == RING_A1   ? scene->rings[A2]
                : damage->where == RING_A2 ? scene->rings[A1]
                                           : scene->subscriptions[OF_B];
    if (value == INDEX_OF_A2)
        value = ring_index(&d, scene->rings[A2]);
    char *place = place_of(scene, &d, damage->where) + damage->offset;
    memcpy(place, &value, min_u64(damage->bytes, sizeof(value)));
    segment_unmap(&map);
}

static bool all_there(const struct scene *scene) {
    bool there = true;
    for (unsigned i = 1; i < scene->n_files; i++)
        if (!is_there(&scene->files[i])) {
            print_message("# %s has gone\n", scene->files[i].path);
            there = false;
        }
    return there;
}

static void each_field_of_the_directory(void **state) {
    struct scene scene;
    unsigned wrong = 0;
    populate(&scene, *state);
    for (size_t i = 0; i < ARRAY_LENGTH(damages); i++) {
        const struct damage *damage = &damages[i];
        inflict(&scene, damage);
        enum outcome outcome = find_out(&scene);
        bool dead = strstr(damage->name, "owner") != NULL; /* then it goes, as it should */
        if (outcome != damage->outcome || (!dead && !all_there(&scene))) {
            print_error("%s = %llu: %s, expected: %s\n%s", damage->name,
                        (unsigned long long)damage->value, outcome_names[outcome],
                        outcome_names[damage->outcome], daemon_log(scene.d));
            wrong++;
        }
        restore(&scene);
    }
    assert_int_equal(find_out(&scene), ADOPTED); /* the same without any */
    assert_int_equal(wrong, 0);
    forget(&scene);
    daemon_start(scene.d, NULL, NULL);
}

/* ---- segments that are not what their names say */

enum harm { EMPTY, TRUNCATED, GARBAGE, HALF_MADE, WRITABLE_BY_ALL, A_LINK, A_FIFO, A_STRANGERS,
            MISSING, HARMS };
static const char *const harm_names[] = {
    "empty", "truncated", "garbage", "half made", "writable by all", "a link", "a FIFO",
    "a stranger's", "missing",
};

/* In the place of a file another thing, which is to be left where it is. */
static void replace_file(const struct file *file, enum harm harm) {
    assert_int_equal(unlink(file->path), 0);
    if (harm == A_LINK)
        assert_int_equal(symlink("/etc/passwd", file->path), 0);
    else if (harm == A_FIFO)
        assert_int_equal(mkfifo(file->path, 0600), 0);
    else if (harm == A_STRANGERS) {
        int fd = open(file->path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        assert_int_equal(write(fd, file->content, file->bytes), (ssize_t)file->bytes);
        assert_int_equal(fchown(fd, 65534, 65534), 0);
        close(fd);
    }
}

static void do_harm(const struct file *file, enum harm harm, uint64_t *random) {
    int fd = open(file->path, O_RDWR | O_CLOEXEC);
    struct identity identity;
    char garbage[512];
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &identity, sizeof(identity), 0), sizeof(identity));
    switch (harm) {
    case EMPTY:
        assert_int_equal(ftruncate(fd, 0), 0);
        break;
    case TRUNCATED:
        assert_int_equal(ftruncate(fd, 1000), 0);
        break;
    case GARBAGE:
        for (size_t i = 0; i < sizeof(garbage); i++)
            garbage[i] = (char)draw(random, 256);
        assert_int_equal(pwrite(fd, garbage, sizeof(garbage), 0), sizeof(garbage));
        break;
    case HALF_MADE:
        identity.magic = 0;
        assert_int_equal(pwrite(fd, &identity, sizeof(identity), 0), sizeof(identity));
        break;
    case WRITABLE_BY_ALL:
        assert_int_equal(fchmod(fd, 0666), 0);
        break;
    default:
        replace_file(file, harm);
    }
    close(fd);
}

static struct file *file_of(struct scene *scene, uint64_t ring, bool readers) {
    char tail[64];
    snprintf(tail, sizeof(tail), readers ? ".e%llu." : ".r%llu", (unsigned long long)ring);
    for (unsigned i = 0; i < scene->n_files; i++) {
        const char *found = strstr(scene->files[i].path, tail);
        if (found != NULL && (readers || strcmp(found, tail) == 0))
            return &scene->files[i];
    }
    fail_msg("no segment %s", tail);
    return NULL;
}

/* What is not ours is left where it is, whoever we are. */
static bool strange_things_stay(const struct file *file, enum harm harm) {
    struct stat s;
    return harm != A_STRANGERS || (lstat(file->path, &s) == 0 && s.st_uid == 65534);
}

static void each_segment_of_a_ring(void **state) {
    struct scene scene;
    uint64_t random = test_seed();
    unsigned wrong = 0;
    populate(&scene, *state);
    for (int k = 0; k < 2 * HARMS; k++) {
        enum harm harm = (enum harm)(k / 2);
        if (harm == A_STRANGERS && geteuid() != 0)
            continue; /* only root can give files away */
        struct file *file = file_of(&scene, scene.rings[A2], k % 2 == 1);
        do_harm(file, harm, &random);
        enum outcome outcome = find_out(&scene);
        bool told = strstr(daemon_log(scene.d), "warning: a: ") != NULL;
        for (unsigned i = 1; i < scene.n_files; i++)
            if (&scene.files[i] != file && !is_there(&scene.files[i])) {
                print_error("%s has gone\n", scene.files[i].path);
                wrong++;
            }
        if (outcome != DROPPED || !told || !strange_things_stay(file, harm)) {
            print_error("%s is %s: %s\n%s", file->path, harm_names[harm],
                        outcome_names[outcome], daemon_log(scene.d));
            wrong++;
        }
        if (!is_there(file))
            unlink(file->path);
        restore(&scene);
    }
    assert_int_equal(wrong, 0);
    forget(&scene);
    daemon_start(scene.d, NULL, NULL);
}

/* ---- anything anywhere */

#define MUTATIONS 500

/* A place that is in use: in the directory, or at the beginning of another segment. */
static uint64_t *draw_place(const struct scene *scene, const struct directory *d,
                            uint64_t *random) {
    static const struct {
        unsigned records, bytes;
    } kinds[] = { { 2, sizeof(struct topic_record) },
                  { RINGS, sizeof(struct ring_record) },
                  { SUBSCRIPTIONS, sizeof(struct subscription_record) },
                  { 2, sizeof(struct roster_page) } };
    char *const bases[] = { (char *)d->topics, (char *)d->rings, (char *)d->subscriptions,
                            (char *)d->pages };
    uint64_t kind = draw(random, 8), n = 4096;
    char *base = scene->files[1 + draw(random, scene->n_files - 1)].map.base;
    if (kind == 4) {
        base = (char *)d->header;
        n = sizeof(*d->header);
    } else if (kind < 4) {
        base = bases[kind];
        n = (uint64_t)kinds[kind].records * kinds[kind].bytes;
        uint64_t at = draw(random, n);
        if (draw(random, 2) == 0) /* in most records the text is the most */
            at = at / kinds[kind].bytes * kinds[kind].bytes + at % min_u64(kinds[kind].bytes, 384);
        return (uint64_t *)(base + (at & ~UINT64_C(7)));
    }
    return (uint64_t *)(base + (draw(random, n) & ~UINT64_C(7)));
}

static uint64_t draw_value(const struct scene *scene, const struct directory *d, uint64_t old,
                           uint64_t *random) {
    switch (draw(random, 7)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return old ^ UINT64_C(1) << draw(random, 64);
    case 3:
        return old + 1 - 2 * draw(random, 2);
    case 4:
        return draw(random, 16) << 32 * draw(random, 2);
    case 5:
        return *draw_place(scene, d, random);
    default:
        return draw(random, UINT64_MAX);
    }
}

/* Does it say whose a ring is? Who it then seems to be is dead, and his ring goes. */
static bool is_owner(const struct directory *d, const uint64_t *place) {
    const char *first = (const char *)d->rings, *p = (const char *)place;
    size_t copy = offsetof(struct ring_record, copy), info = sizeof(struct ring_info);
    if (p < first || p >= first + RINGS * sizeof(struct ring_record))
        return false;
    size_t at = (size_t)(p - first) % sizeof(struct ring_record);
    return at >= copy && (at - copy) % info >= offsetof(struct ring_info, owner) &&
           (at - copy) % info < offsetof(struct ring_info, owner) + sizeof(struct owner_info);
}

static void anything_anywhere(void **state) {
    struct scene scene;
    uint64_t random = test_seed();
    unsigned counts[OUTCOMES + 1] = { 0 };
    populate(&scene, *state);
    for (int i = 0; i < MUTATIONS; i++) {
        struct segment_map map;
        struct directory d = attach(&scene, &map);
        bool owner = false;
        for (uint64_t n = draw(&random, 4) == 0 ? 1 + draw(&random, 8) : 1; n > 0; n--) {
            uint64_t *place = draw_place(&scene, &d, &random);
            *place = draw_value(&scene, &d, *place, &random);
            owner = owner || is_owner(&d, place);
        }
        segment_unmap(&map);
        counts[find_out(&scene)]++;
        if (!owner && !all_there(&scene))
            fail_msg("mutation %d: what lives was removed:\n%s", i, daemon_log(scene.d));
        restore(&scene);
    }
    for (int i = 0; i <= OUTCOMES; i++)
        print_message("# %u %s\n", counts[i], outcome_names[i]);
    forget(&scene);
    daemon_start(scene.d, NULL, NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, daemon_setup, daemon_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(each_field_of_the_directory),
        TEST(each_segment_of_a_ring),
        TEST(anything_anywhere),
    };
    return cmocka_run_group_tests_name("adoption", tests, NULL, NULL);
}
