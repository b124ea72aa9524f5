#include "scenarios.h"

#include "roles.h"

#define INLINE_BYTES 8u
#define BLOCK_BYTES 40u  /* lies in a block: a one-line slot has room for 32 */
#define BLOCKS 232u      /* message_bytes: blocks are there */

/* Nobody comes, goes or dies. */
static void still(void) {
    world_open(0);
}
/* Somebody does. */
static void changing(void) {
    world_open(0);
    world_share_records();
}

static struct role publisher(uint32_t depth, uint32_t before, uint32_t samples) {
    return (struct role){ .name = "publisher", .doing = PUBLISHES, .depth = depth,
                          .before = before, .samples = samples, .bytes = INLINE_BYTES };
}
static struct role large(struct role role, uint32_t pins) {
    role.bytes = BLOCK_BYTES;
    role.largest = BLOCKS;
    role.pins = pins;
    return role;
}
static struct role subscriber(enum policy policy) {
    static const char *const names[] = { "observer", "lossy", "latest", "reliable" };
    return (struct role){ .name = names[policy], .doing = SUBSCRIBES, .policy = policy,
                          .grant = 1 };
}
static struct role holding(struct role role, uint32_t hold, uint32_t grant) {
    role.hold = hold;
    role.grant = grant;
    return role;
}
static struct role reading(struct role role) {
    role.reads = true;
    return role;
}
static struct role late(struct role role) {
    role.late = true;
    return role;
}
static struct role mortal(struct role role) {
    role.mortal = true;
    return role;
}
static struct role named(const char *name, struct role role) {
    role.name = name;
    return role;
}
static struct role leaving(struct role role) {
    role.leaves = true;
    return role;
}
static struct role fenced(struct role role) {
    role.unregistered = true;
    return role;
}
static struct role loaning(struct role role) {
    role.loans = true;
    return role;
}
static struct role batching(struct role role, uint32_t batch) {
    role.batch = batch;
    return role;
}
static struct role stopping(struct role role, uint32_t after) {
    role.stops_after = after;
    return role;
}
static const struct role looker = { .name = "looker", .doing = LOOKS };
static const struct role pubsubd = { .name = "pubsubd", .doing = REAPS };

/* ---- the data bell: nobody sleeps while there is something to take */

static void bell_bare(void) {
    still();
    role_add(subscriber(POLICY_LOSSY));
    role_add(publisher(4, 0, 2));
}
static void bell_fence(void) {
    still();
    role_add(fenced(subscriber(POLICY_LOSSY)));
    role_add(fenced(publisher(4, 0, 2)));
}
static void bell_mixed(void) {
    still();
    role_add(subscriber(POLICY_LOSSY));
    role_add(fenced(publisher(4, 0, 2)));
}
static void bell_napping(void) {
    still();
    role_add(fenced(subscriber(POLICY_LOSSY)));
    role_add(publisher(4, 0, 2));
}
static void bell_two(void) {
    still();
    role_add(named("one", subscriber(POLICY_LOSSY)));
    role_add(named("two", subscriber(POLICY_LATEST)));
    role_add(publisher(4, 0, 2));
}

static void bell_polled(void) {
    struct role role = subscriber(POLICY_LOSSY);
    role.polls = true;
    still();
    role_add(role);
    role_add(publisher(4, 0, 3));
}
static void both_polled(void) {
    struct role role = holding(subscriber(POLICY_RELIABLE), 1, 1);
    role.polls = true;
    changing();
    role_add(role);
    role_add(late(large(publisher(2, 0, 4), 2)));
}

/* ---- space: nobody waits for room while there is some */

static void space_bare(void) {
    still();
    role_add(subscriber(POLICY_RELIABLE));
    role_add(publisher(2, 2, 2));
}
static void space_fence(void) {
    still();
    role_add(fenced(subscriber(POLICY_RELIABLE)));
    role_add(fenced(publisher(2, 2, 2)));
}
static void space_mixed(void) {
    still();
    role_add(subscriber(POLICY_RELIABLE));
    role_add(fenced(publisher(2, 2, 2)));
}
static void space_unregistered(void) {
    still();
    role_add(fenced(subscriber(POLICY_RELIABLE)));
    role_add(publisher(2, 2, 2));
}
static void space_two(void) {
    still();
    role_add(named("one", subscriber(POLICY_RELIABLE)));
    role_add(named("two", subscriber(POLICY_RELIABLE)));
    role_add(publisher(2, 2, 2));
}
static void both_sleep(void) {
    still();
    role_add(subscriber(POLICY_RELIABLE));
    role_add(publisher(2, 0, 5));
}
static void both_sleep_fence(void) {
    still();
    role_add(fenced(subscriber(POLICY_RELIABLE)));
    role_add(fenced(publisher(4, 2, 6)));
}

static struct role spinning(struct role role) {
    role.spins = true;
    return role;
}
static void both_spin(void) {
    still();
    role_add(spinning(subscriber(POLICY_RELIABLE)));
    role_add(spinning(publisher(2, 0, 4)));
}

/* ---- overwriting: nothing torn, all losses counted */

static void lapped_inline(void) {
    still();
    role_add(subscriber(POLICY_LOSSY));
    role_add(publisher(2, 0, 5));
}
static void lapped_small(void) {
    still();
    role_add(subscriber(POLICY_LOSSY));
    role_add(publisher(2, 2, 1));
}
static void lapped_blocks(void) {
    still();
    role_add(holding(subscriber(POLICY_LOSSY), 1, 2));
    role_add(large(publisher(2, 0, 5), 2));
}
static void lapped_no_pins(void) {
    still();
    role_add(holding(subscriber(POLICY_LOSSY), 2, 1));
    role_add(large(publisher(2, 0, 5), 1));
}
static void lapped_reading(void) {
    still();
    role_add(fenced(reading(subscriber(POLICY_LOSSY))));
    role_add(fenced(loaning(large(publisher(2, 1, 4), 2))));
}
static void lapped_shrinking(void) {
    struct role role = loaning(large(publisher(2, 1, 4), 2));
    role.bytes = INLINE_BYTES;
    role.loan_bytes = BLOCK_BYTES;
    still();
    role_add(subscriber(POLICY_LOSSY));
    role_add(role);
}
static void lapped_latest(void) {
    still();
    role_add(holding(subscriber(POLICY_LATEST), 1, 2));
    role_add(large(publisher(4, 0, 6), 2));
}
static void lapped_observer(void) {
    still();
    role_add(subscriber(POLICY_NONE));
    role_add(publisher(2, 0, 4));
}
static void looked_at(void) {
    still();
    role_add(looker);
    role_add(subscriber(POLICY_LOSSY));
    role_add(large(publisher(2, 2, 4), 2));
}

static void looked_at_deep(void) {
    still();
    role_add(looker);
    role_add(subscriber(POLICY_LOSSY));
    role_add(batching(publisher(16, 1, 17), 16));
}

/* ---- holding */

static void held_reliable(void) {
    still();
    role_add(holding(subscriber(POLICY_RELIABLE), 1, 2));
    role_add(large(publisher(2, 0, 5), 2));
}
static void held_fence(void) {
    still();
    role_add(fenced(holding(subscriber(POLICY_RELIABLE), 2, 3)));
    role_add(fenced(loaning(large(publisher(2, 1, 5), 3))));
}
static void held_by_two(void) {
    still();
    role_add(holding(subscriber(POLICY_RELIABLE), 1, 2));
    role_add(holding(subscriber(POLICY_LOSSY), 1, 2));
    role_add(large(publisher(2, 0, 5), 4));
}
static void batches(void) {
    still();
    role_add(holding(subscriber(POLICY_RELIABLE), 1, 2));
    role_add(named("lossy", reading(subscriber(POLICY_LOSSY))));
    role_add(batching(large(publisher(4, 0, 8), 4), 3));
}

/* ---- joining a running ring */

static void joins_lossy(void) {
    changing();
    role_add(late(holding(subscriber(POLICY_LOSSY), 1, 2)));
    role_add(large(publisher(2, 2, 4), 2));
}
static void joins_reliable(void) {
    changing();
    role_add(late(holding(subscriber(POLICY_RELIABLE), 1, 2)));
    role_add(large(publisher(2, 2, 4), 2));
}
static void joins_inline(void) {
    changing();
    role_add(fenced(late(subscriber(POLICY_RELIABLE))));
    role_add(fenced(publisher(2, 3, 4)));
}
static void joins_with_history(void) {
    struct role role = late(subscriber(POLICY_RELIABLE));
    role.history = 2;
    changing();
    role_add(role);
    role_add(publisher(4, 4, 4));
}
static void joins_far_back(void) {
    struct role role = late(holding(subscriber(POLICY_RELIABLE), 1, 1));
    role.history = 3;
    changing();
    role_add(role);
    role_add(large(publisher(4, 7, 8), 1));
}
static void joins_beside(void) {
    changing();
    role_add(subscriber(POLICY_RELIABLE));
    role_add(named("joiner", late(leaving(subscriber(POLICY_RELIABLE)))));
    role_add(publisher(2, 2, 4));
}
static void ring_comes(void) {
    changing();
    role_add(subscriber(POLICY_RELIABLE));
    role_add(late(publisher(2, 0, 3)));
}
static void leaves(void) {
    changing();
    role_add(named("leaver", leaving(stopping(holding(subscriber(POLICY_RELIABLE), 1, 1), 2))));
    role_add(named("other", subscriber(POLICY_LOSSY)));
    role_add(large(publisher(2, 0, 5), 2));
}

static void grows(void) {
    struct role role = large(publisher(2, 0, 4), 2);
    role.grows_at = 2;
    changing();
    role_add(holding(subscriber(POLICY_RELIABLE), 1, 2));
    role_add(role);
}
static void grows_in_silence(void) {
    grows();
    world_silence();
}
static void grows_lossy(void) {
    struct role role = large(publisher(2, 1, 4), 2);
    role.grows_at = 3;
    changing();
    role_add(fenced(holding(subscriber(POLICY_LOSSY), 1, 2)));
    role_add(fenced(role));
}

/* ---- eviction */

static void evicted_while_taking(void) {
    world_open(1);
    role_add(holding(subscriber(POLICY_RELIABLE), 1, 2));
    role_add(large(publisher(2, 0, 5), 2));
}
static void evicted_fence(void) {
    world_open(1);
    role_add(fenced(holding(subscriber(POLICY_RELIABLE), 1, 2)));
    role_add(fenced(large(publisher(2, 2, 4), 2)));
}
static void evicted_mixed(void) {
    world_open(1);
    role_add(holding(subscriber(POLICY_RELIABLE), 1, 2));
    role_add(fenced(large(publisher(2, 2, 4), 2)));
}
static void evicted_inline(void) {
    world_open(1);
    role_add(subscriber(POLICY_RELIABLE));
    role_add(publisher(2, 2, 4));
}

/* ---- deaths */

static void reader_dies(void) {
    changing();
    role_add(mortal(holding(subscriber(POLICY_RELIABLE), 1, 1)));
    role_add(named("other", holding(subscriber(POLICY_LOSSY), 1, 1)));
    role_add(large(publisher(2, 0, 5), 2));
    role_add(pubsubd);
}
static void nobody_reaps(void) {
    changing();
    role_add(mortal(holding(subscriber(POLICY_RELIABLE), 1, 1)));
    role_add(named("other", holding(subscriber(POLICY_LOSSY), 1, 1)));
    role_add(large(publisher(2, 0, 5), 2));
}
static void publisher_dies(void) {
    changing();
    role_add(holding(subscriber(POLICY_RELIABLE), 1, 2));
    role_add(mortal(large(publisher(2, 0, 4), 2)));
    role_add(pubsubd);
}
static void sleeper_dies(void) {
    changing();
    role_add(named("mortal", mortal(subscriber(POLICY_LOSSY))));
    role_add(named("other", subscriber(POLICY_LOSSY)));
    role_add(publisher(4, 0, 3));
    role_add(pubsubd);
}

#define SCENARIO(name_, what_, ...) { .name = #name_, .what = (what_), .set = name_, __VA_ARGS__ }
const struct scenario scenarios[] = {
    SCENARIO(bell_bare, "a sleeper and two samples", .small = true),
    SCENARIO(bell_fence, "the same, fences", .small = true),
    SCENARIO(bell_mixed, "the same, only the publisher fences", .small = true),
    SCENARIO(bell_napping, "the same, the sleeper cannot call membarrier", ),
    SCENARIO(bell_two, "two sleepers of a group", ),
    SCENARIO(bell_polled, "the same, with a descriptor", .small = true),
    SCENARIO(both_polled, "a full ring, a reader with a descriptor, a publisher that comes", ),
    SCENARIO(space_bare, "a full ring and its reliable reader", .small = true),
    SCENARIO(space_fence, "the same, fences", .small = true),
    SCENARIO(space_mixed, "the same, only the publisher fences", ),
    SCENARIO(space_unregistered, "the same, only the reader fences", ),
    SCENARIO(space_two, "the same, two readers", ),
    SCENARIO(both_sleep, "both sides sleep, depth 2", ),
    SCENARIO(both_sleep_fence, "both sides sleep, depth 4, fences", ),
    SCENARIO(both_spin, "the same, both spin before they sleep", ),
    SCENARIO(lapped_inline, "a lossy reader is lapped, inline", ),
    SCENARIO(lapped_small, "the same, one lap", .small = true),
    SCENARIO(lapped_blocks, "a lossy reader that holds is lapped", ),
    SCENARIO(lapped_no_pins, "the same, more held than granted", ),
    SCENARIO(lapped_reading, "the same, copies; loans", ),
    SCENARIO(lapped_shrinking, "the same, loans that turn out to fit inline", ),
    SCENARIO(lapped_latest, "the newest, while it is overwritten", ),
    SCENARIO(lapped_observer, "an observer is lapped", .time_passes = true),
    SCENARIO(looked_at, "a tool looks, read-only", ),
    SCENARIO(looked_at_deep, "the same, depth 16, batches of a whole ring", ),
    SCENARIO(held_reliable, "a reliable reader holds", ),
    SCENARIO(held_fence, "the same, fences, loans", ),
    SCENARIO(held_by_two, "a reliable and a lossy reader hold", ),
    SCENARIO(batches, "batches of three, depth 4", ),
    SCENARIO(joins_lossy, "a lossy reader joins", ),
    SCENARIO(joins_reliable, "a reliable reader joins", ),
    SCENARIO(joins_inline, "the same, inline, fences", ),
    SCENARIO(joins_with_history, "the same, with history", ),
    SCENARIO(joins_far_back, "the same, all that there is, in blocks", ),
    SCENARIO(joins_beside, "the same, beside another one, and leaves", ),
    SCENARIO(ring_comes, "a publisher comes while its reader sleeps", ),
    SCENARIO(grows, "a publisher grows into a larger ring", ),
    SCENARIO(grows_in_silence, "the same, and pubsubd does not end the old ring", ),
    SCENARIO(grows_lossy, "the same, lossy, fences", ),
    SCENARIO(leaves, "a reliable reader leaves", ),
    SCENARIO(evicted_while_taking, "a slow reader is evicted while it takes", .time_passes = true),
    SCENARIO(evicted_fence, "the same, fences", .time_passes = true),
    SCENARIO(evicted_mixed, "the same, only the publisher fences", .time_passes = true),
    SCENARIO(evicted_inline, "the same, inline", .time_passes = true),
    SCENARIO(reader_dies, "a reader is killed at any step", ),
    SCENARIO(nobody_reaps, "the same, and pubsubd is dead: the publisher evicts it", ),
    SCENARIO(publisher_dies, "a publisher is killed at any step", ),
    SCENARIO(sleeper_dies, "one of two sleepers is killed", ),
};
const uint32_t n_scenarios = sizeof scenarios / sizeof scenarios[0];
