#include "bus.h"

#include "base/error.h"

#include <string.h>

struct topic *topic_find(const struct bus *bus, const char *name) {
    for (uint32_t i = 0; i < bus->topics_end; i++)
        if (bus->topics[i] != NULL && strcmp(bus->topics[i]->name, name) == 0)
            return bus->topics[i];
    return NULL;
}

void topic_configure(const struct bus *bus, struct topic *topic) {
    config_policy(bus->config, topic->name, &topic->policy);
    topic->info.history = (uint32_t)max_u64(topic->policy.history, topic->info.history_asked);
    topic->info.patience_ns = topic->policy.patience_ns;
}

void topic_keep(const struct bus *bus, struct topic *topic, uint32_t history) {
    if (history <= topic->info.history_asked)
        return;
    topic->info.history_asked = history;
    topic_configure(bus, topic);
}

void topic_write(struct bus *bus, struct topic *topic) {
    struct topic_info *info = &topic->info;
    info->live = 1;
    info->first_ring = topic->rings != NULL ? topic->rings->index : NO_INDEX;
    info->first_page = topic->pages != NULL ? topic->pages->index : NO_INDEX;
    info->subscribers = roster_subscribers(topic);
    info->publishers = info->retired_rings = 0;
    for (const struct ring *r = topic->rings; r != NULL; r = r->next) {
        info->publishers += r->info.state == RING_LIVE && !ring_succeeds(r);
        info->retired_rings += r->info.state == RING_RETIRED;
    }
    directory_topic_write(&bus->directory, topic->index, info, topic->listed ? NULL : topic->name);
    topic->listed = true;
}

/* Every filter that matches gets its seats, before the first ring is born. */
static int seat_filters(struct bus *bus, struct topic *topic) {
    for (uint32_t i = 0; i < bus->subscriptions_end; i++) {
        const struct subscription *s = bus->subscriptions[i];
        if (s == NULL || s->info.exact || !topic_filter_matches(s->filter, topic->name))
            continue;
        int r = roster_seat(bus, topic, s);
        if (r < 0)
            return error_context(r, "no seat for the subscriber of \"%s\" (process %d)", s->filter,
                                 (int)s->info.owner.pid);
    }
    return 0;
}

static void topic_free(struct bus *bus, struct topic *topic) {
    static const struct topic_info nothing;
    if (topic->listed) {
        directory_topic_write(&bus->directory, topic->index, &nothing, NULL);
        bus_changed(bus, topic);
    }
    roster_free(bus, topic);
    bus->topics[topic->index] = NULL;
    free(topic);
}

int topic_get(struct bus *bus, const char *name, struct topic **ret) {
    struct topic *topic = topic_find(bus, name);
    if (topic != NULL) {
        *ret = topic;
        return 0;
    }
    uint32_t index = free_index((void *const *)bus->topics, bus->directory.geometry.topics);
    if (index == NO_INDEX)
        return error_raise(SHMPS_E_LIMIT, "all %u topics of the bus are in use; a topic goes when "
                           "its last publisher and subscriber have gone",
                           bus->directory.geometry.topics);
    topic = calloc(1, sizeof(*topic));
    if (topic == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "pubsubd has no memory for a topic");
    topic->index = index;
    topic->info.serial = bus_draw_serial(bus);
    topic->info.born_ns = now_ns();
    memcpy(topic->name, name, strlen(name) + 1);
    topic_configure(bus, topic);
    bus->topics[index] = topic;
    if (index >= bus->topics_end)
        bus->topics_end = index + 1;
    int r = seat_filters(bus, topic);
    if (r < 0) {
        topic_free(bus, topic);
        return r;
    }
    topic_write(bus, topic);
    bus_changed(bus, topic);
    *ret = topic;
    return 0;
}

void topic_refused(struct bus *bus, struct topic *topic) {
    topic->info.refused++;
    topic_write(bus, topic);
}

void topic_release(struct bus *bus, struct topic *topic) {
    if (topic->rings == NULL && topic->openings == NULL && topic->exact == 0)
        topic_free(bus, topic);
}
