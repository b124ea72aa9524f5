#include "roles.h"

#include "../unit/invariants.h"
#include "checker.h"
#include "ring/observer.h"

#include <stdio.h>

#define MESSAGE_MAX 512u
#define PID_FIRST 5000
#define BATCH_MAX 16u
#define GROWN_BYTES 248u /* more than a ring has that was opened without a size */
#define SECOND INT64_C(1000000000)

struct role *roles;
uint32_t n_roles;

/* ---- what is sent */

static uint64_t word_of(uint64_t sequence, size_t i) {
    return (sequence + 1) * UINT64_C(1000) + i;
}

static void fill(void *to, size_t bytes, uint64_t sequence) {
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = word_of(sequence, i);
        (memcpy)((char *)to + i, &word, min_u64(8, bytes - i));
    }
}

static uint64_t tag_of(uint64_t sequence) {
    return sequence + 100;
}

static size_t bytes_of(const struct role *publisher, uint64_t sequence) {
    bool grown = publisher->grows_at != 0 && sequence >= publisher->grows_at;
    return grown ? GROWN_BYTES : publisher->bytes;
}

static const struct role *publisher_of(void) {
    for (uint32_t i = 0; i < n_roles; i++)
        if (roles[i].doing == PUBLISHES)
            return &roles[i];
    violated("nobody publishes");
}

static void check_content(const struct role *role, uint64_t sequence, uint64_t bytes, uint64_t tag,
                          const void *data, const char *when) {
    char found[MESSAGE_MAX], sent[MESSAGE_MAX];
    require(bytes == bytes_of(publisher_of(), sequence), "%s: sample %llu has %llu bytes %s",
            role->name, (unsigned long long)sequence, (unsigned long long)bytes, when);
    require(tag == tag_of(sequence), "%s: sample %llu has the tag of sample %lld %s", role->name,
            (unsigned long long)sequence, (long long)tag - 100, when);
    memcpy(found, data, bytes); /* plainly, where it is in a block */
    fill(sent, bytes, sequence);
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = 0;
        (memcpy)(&word, found + i, min_u64(8, bytes - i));
        require((memcmp)(found + i, sent + i, min_u64(8, bytes - i)) == 0,
                "%s: sample %llu holds at byte %zu a word of sample %lld %s", role->name,
                (unsigned long long)sequence, i, (long long)(word / 1000) - 1, when);
    }
}

/* ---- publisher */

static bool somebody_is_reliable(void) {
    for (uint32_t i = 0; i < n_roles; i++)
        if (roles[i].doing == SUBSCRIBES && roles[i].policy == POLICY_RELIABLE)
            return true;
    return false;
}

static void open_publisher(struct role *role) {
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    options.depth = role->depth;
    options.pins = role->pins;
    options.message_bytes = role->grows_at ? 0 : role->largest ? role->largest : role->bytes;
    options.timestamps = SHMPS_TIMESTAMPS_ON;
    options.wait = role->spins ? SHMPS_WAIT_DEFAULT : SHMPS_WAIT_SLEEP;
    int r = shmps_publisher_open(role->bus, TOPIC, &options, &role->pub);
    require(r == 0, "%s cannot open: %s", role->name, shmps_error_detail());
}

static int publish_loan(struct role *role, int64_t timeout) {
    uint64_t sequence = role->pub->ring.head;
    char message[MESSAGE_MAX];
    void *loan;
    size_t room = max_u64(role->bytes, role->loan_bytes);
    int r = shmps_loan(role->pub, room, timeout, &loan);
    if (r != 0)
        return r;
    fill(message, role->bytes, sequence);
    if (room > role->pub->ring.g.inline_bytes)
        memcpy(loan, message, role->bytes); /* plainly: it is ours */
    else
        copy_in_relaxed(loan, message, role->bytes);
    return shmps_publish_loan(role->pub, role->bytes, tag_of(sequence));
}

static int publish_batch(struct role *role, size_t n, int64_t timeout, size_t *ret_done) {
    char messages[BATCH_MAX][MESSAGE_MAX];
    struct shmps_message batch[BATCH_MAX];
    for (size_t i = 0; i < n; i++) {
        uint64_t sequence = role->pub->ring.head + i;
        fill(messages[i], role->bytes, sequence);
        batch[i] = (struct shmps_message){ .data = messages[i], .bytes = role->bytes,
                                           .tag = tag_of(sequence) };
    }
    return shmps_publish_batch(role->pub, batch, n, SHMPS_UP_TO, timeout, ret_done);
}

/* Some samples, at least one unless there is no room. */
static int publish_some(struct role *role, uint64_t left, int64_t timeout, size_t *ret_done) {
    char message[MESSAGE_MAX];
    *ret_done = 1;
    if (role->batch > 1)
        return publish_batch(role, min_u64(left, role->batch), timeout, ret_done);
    if (role->loans)
        return publish_loan(role, timeout);
    uint64_t sequence = role->pub->ring.head;
    size_t bytes = bytes_of(role, sequence);
    fill(message, bytes, sequence);
    return shmps_publish(role->pub, message, bytes, tag_of(sequence), timeout);
}

static void publish(struct role *role, uint64_t n) {
    /* Nobody waits for a lossy reader: there is always room. */
    int64_t timeout = !somebody_is_reliable() ? 0 : role->patience_ns ? role->patience_ns : -1;
    for (uint64_t i = 0; i < n;) {
        size_t done;
        int r = publish_some(role, n - i, timeout, &done);
        require(r == 0 || (r == SHMPS_FULL && role->patience_ns != 0), "%s: publish says %s",
                role->name, shmps_error_name(r));
        if (r == 0)
            i += done;
        const char *wrong = what_is_wrong_inside(&role->pub->ring);
        require(!wrong, "%s: %s", role->name, wrong);
    }
}

static void run_publisher(void *argument) {
    struct role *role = argument;
    if (role->late)
        open_publisher(role);
    publish(role, role->samples);
    if (role->leaves)
        shmps_publisher_close(role->pub);
    role->satisfied = true;
}

/* ---- subscriber */

static uint64_t publisher_published(void) {
    for (uint32_t i = 0; i < n_roles; i++)
        if (roles[i].doing == PUBLISHES && roles[i].pub)
            return roles[i].pub->ring.head;
    return 0;
}

static void open_subscriber(struct role *role) {
    static const int deliveries[] = {
        [POLICY_NONE] = SHMPS_OBSERVE,
        [POLICY_LOSSY] = SHMPS_LOSSY,
        [POLICY_LATEST] = SHMPS_LATEST,
        [POLICY_RELIABLE] = SHMPS_RELIABLE,
    };
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    options.delivery = deliveries[role->policy];
    options.wait = role->spins ? SHMPS_WAIT_DEFAULT : SHMPS_WAIT_SLEEP;
    options.history = role->history;
    options.pins = role->grant;
    uint64_t before = publisher_published();
    int r = shmps_subscriber_open(role->bus, TOPIC, &options, &role->sub);
    require(r == 0, "%s cannot open: %s", role->name, shmps_error_detail());
    if (role->sub->n_rings > 0) { /* lost since it has its seat, or not for it */
        const struct ring_view *view = role->sub->rings[0];
        role->first = role->next = view->reader.next - view->lost;
        role->began = true;
        require(role->first <= publisher_published(), "%s begins at %llu, too late", role->name,
                (unsigned long long)role->first);
        /* where stores are seen at once */
        require(!memory_is_sc() || role->first + role->history >= before,
                "%s begins at %llu, %llu were there", role->name,
                (unsigned long long)role->first, (unsigned long long)before);
    }
}

static void let_go(struct role *role, uint32_t i) {
    struct shmps_sample *s = &role->held[i];
    check_content(role, s->seq, s->bytes, s->tag, s->data, "when it is released");
    require(shmps_release(role->sub, s) == 0, "%s: %s", role->name, shmps_error_detail());
    for (role->n_held--; i < role->n_held; i++)
        role->held[i] = role->held[i + 1];
}

static void count_sample(struct role *role, const struct shmps_sample *s, bool is_sample) {
    if (!role->began) {
        role->first = role->next = s->seq - s->lost;
        role->began = true;
    }
    if (s->flags & SHMPS_SAMPLE_EVICTED)
        role->evicted = true;
    if (role->policy == POLICY_LATEST)
        require(s->seq >= role->next && s->lost == 0, "%s: sample %llu after %lld", role->name,
                (unsigned long long)s->seq, (long long)role->next - 1);
    else
        require(s->seq == role->next + s->lost,
                "%s: sample %llu, %llu lost, after sample %lld", role->name,
                (unsigned long long)s->seq, (unsigned long long)s->lost,
                (long long)role->next - 1);
    require(s->lost == 0 || role->policy != POLICY_RELIABLE || role->evicted,
            "%s is reliable, not evicted, and has lost %llu", role->name,
            (unsigned long long)s->lost);
    require(!is_sample || s->time_ns >= role->time_ns + (publisher_of()->batch < 2),
            "%s: sample %llu is of %llu, after one of %llu", role->name,
            (unsigned long long)s->seq, (unsigned long long)s->time_ns,
            (unsigned long long)role->time_ns);
    role->time_ns = is_sample ? s->time_ns : role->time_ns;
    role->next = s->seq + is_sample;
    role->received += is_sample;
    role->lost += s->lost;
}

static bool has_all(const struct role *role) {
    const struct role *publisher = publisher_of();
    return role->next >= publisher->before + publisher->samples ||
           (role->stops_after != 0 && role->received >= role->stops_after);
}

/* Takes one, holds it for a while. */
static int take(struct role *role) {
    struct shmps_sample s;
    char buffer[MESSAGE_MAX];
    int64_t timeout = -1;
    for (uint32_t i = 0; i < n_roles; i++)
        if (roles[i].mortal)
            timeout = SECOND; /* who is killed publishes no more */
    if (role->polls)
        timeout = 0;
    int r = role->reads ? shmps_read(role->sub, buffer, sizeof buffer, &s, timeout)
                        : shmps_take(role->sub, &s, timeout);
    if (r != 0 && r != SHMPS_LOST)
        return r;
    count_sample(role, &s, r == 0);
    if (r != 0)
        return 0;
    if (role->reads) {
        check_content(role, s.seq, s.bytes, s.tag, buffer, "when it was read");
        return 0;
    }
    check_content(role, s.seq, s.bytes, s.tag, s.data, "when it was taken");
    role->held[role->n_held++] = s;
    if (role->n_held > role->hold)
        let_go(role, 0);
    return 0;
}

static void run_subscriber(void *argument) {
    struct role *role = argument;
    if (role->late)
        open_subscriber(role);
    if (role->polls)
        require(shmps_subscriber_fd(role->sub) >= 0, "%s: no descriptor", role->name);
    while (!has_all(role)) {
        int r = take(role);
        if (r == SHMPS_EMPTY && role->polls) {
            futex_poll(SECOND);
            continue;
        }
        if (r == SHMPS_TIMEOUT && fiber_killed(publisher_of()->fiber))
            break;
        require(r == 0 || r == SHMPS_TIMEOUT, "%s: take says %s, %s", role->name,
                shmps_error_name(r), shmps_error_detail());
    }
    while (role->n_held > 0)
        let_go(role, role->n_held - 1);
    if (role->leaves)
        shmps_subscriber_close(role->sub);
    role->satisfied = true;
}

/* ---- who looks read-only, as tools do */

static void run_looker(void *argument) {
    struct role *role = argument;
    size_t ring_bytes;
    const struct ring_header *ring = world_ring(0, &ring_bytes);
    struct ring_geometry g = ring->geometry;
    uint64_t low = 0;
    for (uint32_t round = 0; round < 2; round++) {
        struct ring_observation seen;
        ring_observe(ring, &g, &seen);
        /* head may fall back: a walk that begins at an old hint and is lapped ends at once */
        require(seen.low <= seen.head && seen.low >= low, "%s sees low %llu, head %llu after %llu",
                role->name, (unsigned long long)seen.low, (unsigned long long)seen.head,
                (unsigned long long)low);
        low = seen.low;
        for (uint64_t s = max_u64(seen.low + 2, seen.head) - 2; s <= seen.head; s++) {
            struct ring_observed_sample sample;
            char buffer[MESSAGE_MAX];
            enum ring_observe_result r = ring_observe_sample(ring, &g, s, buffer, sizeof buffer,
                                                             &sample);
            require(r != RING_UNSEEN || s == seen.head, "%s does not see sample %llu", role->name,
                    (unsigned long long)s);
            if (r == RING_SEEN)
                check_content(role, s, sample.bytes, sample.tag, buffer, "when it was looked at");
        }
    }
    role->satisfied = true;
}

/* ---- pubsubd */

static bool somebody_has_died(const void *argument) {
    const struct role *role = argument;
    return !fiber_lives(role->fiber);
}

static void run_reaper(void *argument) {
    struct role *role = argument;
    for (uint32_t i = 0; i < n_roles; i++) {
        if (!roles[i].mortal)
            continue;
        fiber_await(somebody_has_died, &roles[i], roles[i].fiber);
        if (fiber_killed(roles[i].fiber))
            world_reap(roles[i].pid);
    }
    role->satisfied = true;
}

bool pid_has_ended(int32_t pid) {
    return fiber_killed(roles[pid - PID_FIRST].fiber);
}

/* ---- all of them */

void role_add(struct role role) {
    if (!roles)
        roles = heap_allocate(ROLES_MAX * sizeof *roles);
    if (n_roles == ROLES_MAX)
        violated("more than %u roles", ROLES_MAX);
    struct role *added = &roles[n_roles];
    *added = role;
    added->pid = PID_FIRST + (int32_t)n_roles++;
    if (added->hold >= HELD_MAX)
        violated("%s holds too many", added->name);
    added->bus = world_connect(added->pid, !added->unregistered);
    if (added->late)
        return;
    if (added->doing == PUBLISHES) {
        open_publisher(added);
        publish(added, added->before);
    } else if (added->doing == SUBSCRIBES) {
        open_subscriber(added);
    }
}

void roles_begin(void) {
    static void (*const bodies[])(void *) = { run_publisher, run_subscriber, run_looker,
                                              run_reaper };
    world_restore();
    for (uint32_t i = 0; i < n_roles; i++)
        roles[i].fiber = fiber_add(roles[i].name, bodies[roles[i].doing], &roles[i],
                                   roles[i].mortal, !roles[i].unregistered);
}

const char *role_overslept(uint32_t fiber) {
    struct role *role = &roles[fiber];
    if (role->doing == SUBSCRIBES && role->policy != POLICY_NONE)
        return role->sub && rest(role->sub, 0) == 0 ? "there is something to take" : NULL;
    if (role->doing != PUBLISHES)
        return NULL;
    const struct ring_publisher *ring = &role->pub->ring;
    if (ring_roster_stale(ring))
        return "the roster has changed";
    for (uint32_t i = 0; i < ring->n_readers; i++)
        if (ring->readers[i].reliable && !ring_is_evicted(ring, i) &&
            atomic_load_relaxed(&ring->readers[i].entry->need) < ring->wanted)
            return NULL;
    return "there is room";
}

static void judge_subscriber(const struct role *role, uint64_t end) {
    if (!fiber_killed(role->fiber))
        require(role->satisfied, "%s is not done", role->name);
    if (!role->satisfied || role->stops_after != 0 || !role->began)
        return;
    require(role->next == end, "%s has come to %llu, not to %llu", role->name,
            (unsigned long long)role->next, (unsigned long long)end);
    require(role->policy == POLICY_LATEST || role->first + role->received + role->lost == end,
            "%s: %llu received, %llu lost of %llu", role->name,
            (unsigned long long)role->received, (unsigned long long)role->lost,
            (unsigned long long)(end - role->first));
}

void roles_judge(void) {
    size_t bytes;
    uint64_t end = 0;
    for (uint32_t i = 0; i < world_rings(); i++) {
        const struct ring_header *ring = world_ring(i, &bytes);
        require(ring_check(ring, bytes) == 0, "%s", shmps_error_detail());
        end = max_u64(end, ring_committed_end(ring, &ring->geometry));
    }
    for (uint32_t i = 0; i < n_roles; i++) {
        const struct role *role = &roles[i];
        if (role->doing == SUBSCRIBES)
            judge_subscriber(role, end);
        if (role->doing != PUBLISHES || fiber_killed(role->fiber) || role->leaves)
            continue;
        const char *wrong = what_is_wrong(&role->pub->ring);
        require(role->satisfied && !wrong, "%s: %s", role->name, wrong ? wrong : "not done");
        require(role->pub->ring.head == role->before + role->samples, "%s has published %llu",
                role->name, (unsigned long long)role->pub->ring.head);
    }
}
