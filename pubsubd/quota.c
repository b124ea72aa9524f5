#include "quota.h"

#include "base/error.h"

#include <inttypes.h>

uint64_t quota_topic_bytes(const struct topic *topic) {
    uint64_t readers = (uint64_t)topic->n_pages * READERS_BYTES, bytes = 0;
    for (const struct ring *ring = topic->rings; ring != NULL; ring = ring->next)
        bytes += ring->info.bytes + readers;
    for (const struct opening *o = topic->openings; o != NULL; o = o->topic_next)
        bytes += o->bytes + readers;
    return bytes;
}

uint64_t quota_bus_bytes(const struct bus *bus) {
    uint64_t bytes = bus->directory.geometry.bytes;
    for (uint32_t i = 0; i < bus->topics_end; i++)
        if (bus->topics[i] != NULL)
            bytes += quota_topic_bytes(bus->topics[i]);
    return bytes;
}

static int check_publishers(const struct topic *topic) {
    uint64_t n = 0;
    for (const struct ring *ring = topic->rings; ring != NULL; ring = ring->next)
        n += ring->info.state == RING_LIVE && !ring_succeeds(ring);
    for (const struct opening *o = topic->openings; o != NULL; o = o->topic_next)
        n += o->predecessor == NULL;
    if (n <= topic->policy.max_publishers) /* with this one */
        return 0;
    return error_raise(SHMPS_E_LIMIT, "topic \"%s\" has %" PRIu64 " publishers, and may have %"
                       PRIu64 "; close one, or raise max_publishers in pubsubd.conf", topic->name,
                       n - 1, topic->policy.max_publishers);
}

int quota_publisher(const struct topic *topic, const struct wire_open_publisher *m,
                     bool replaces) {
    const struct topic_policy *policy = &topic->policy;
    /* what no ring may have is refused with its geometry */
    if (m->message_bytes <= RING_BLOCK_BYTES_MAX && m->message_bytes > policy->max_message_bytes)
        return error_raise(SHMPS_E_SIZE, "a message of topic \"%s\" may have %" PRIu64 " bytes, "
                           "not %" PRIu64 "; send it in parts, or raise max_message_size in "
                           "pubsubd.conf", topic->name, policy->max_message_bytes,
                           m->message_bytes);
    if (m->depth <= RING_DEPTH_MAX && m->depth > policy->max_depth)
        return error_raise(SHMPS_E_LIMIT, "a ring of topic \"%s\" may have %" PRIu64 " slots, "
                           "not %" PRIu64 "; ask for less depth, or raise max_depth in "
                           "pubsubd.conf", topic->name, policy->max_depth, m->depth);
    if (m->history > history_most(policy->max_depth))
        return error_raise(SHMPS_E_LIMIT, "topic \"%s\" can keep %" PRIu64 " samples, not %u, in "
                           "a ring of max_depth = %" PRIu64 " slots; ask for less history, or "
                           "raise max_depth in pubsubd.conf (up to %u)", topic->name,
                           history_most(policy->max_depth), m->history, policy->max_depth,
                           RING_DEPTH_MAX);
    return replaces ? 0 : check_publishers(topic);
}

static int check_topic(const struct topic *topic, uint64_t with_it, uint64_t more) {
    if (with_it <= topic->policy.max_bytes)
        return 0;
    return error_raise(SHMPS_E_LIMIT, "topic \"%s\" has %" PRIu64 " bytes and needs %" PRIu64
                       " more, and may have %" PRIu64 "; close publishers, ask for less depth, "
                       "message_bytes or pins, or raise max_bytes in pubsubd.conf", topic->name,
                       with_it - more, more, topic->policy.max_bytes);
}

static int check_bus(const struct bus *bus, const struct topic *topic, uint64_t with_it,
                     uint64_t more) {
    if (with_it <= bus->config->max_memory)
        return 0;
    return error_raise(SHMPS_E_LIMIT, "topic \"%s\" needs %" PRIu64 " bytes, but the bus has %"
                       PRIu64 " of the %" PRIu64 " that it may have; close publishers, ask for "
                       "less depth, message_bytes or pins, or raise max_memory in pubsubd.conf",
                       topic->name, more, with_it - more, bus->config->max_memory);
}

int quota_ring(const struct bus *bus, const struct opening *o) {
    uint64_t more = o->bytes + (uint64_t)o->topic->n_pages * READERS_BYTES;
    int r = check_topic(o->topic, quota_topic_bytes(o->topic), more);
    return r < 0 ? r : check_bus(bus, o->topic, quota_bus_bytes(bus), more);
}

int quota_subscriber(const struct topic *topic) {
    uint32_t n = roster_subscribers(topic);
    if (n < topic->policy.max_subscribers)
        return 0;
    return error_raise(SHMPS_E_LIMIT, "topic \"%s\" has %u subscribers, and may have %" PRIu64
                       "; close one, or raise max_subscribers in pubsubd.conf", topic->name, n,
                       topic->policy.max_subscribers);
}

int quota_page(const struct bus *bus, const struct topic *topic) {
    uint64_t more = 0;
    for (const struct ring *ring = topic->rings; ring != NULL; ring = ring->next)
        more += READERS_BYTES;
    for (const struct opening *o = topic->openings; o != NULL; o = o->topic_next)
        more += READERS_BYTES;
    int r = check_topic(topic, quota_topic_bytes(topic) + more, more);
    return r < 0 ? r : check_bus(bus, topic, quota_bus_bytes(bus) + more, more);
}
