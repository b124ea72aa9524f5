/* quota.h - what a topic's policy and the configuration allow. Each check is made before
 * anything is allocated, and raises LIMIT (SIZE for a message) with what is asked for, what is in
 * use, what is allowed, and the key that allows it. */
#ifndef PUBSUBD_QUOTA_H
#define PUBSUBD_QUOTA_H

#include "bus.h"

/* What a publisher asks for, before its ring has a geometry. `replaces`: its ring grows. */
int quota_publisher(const struct topic *topic, const struct wire_open_publisher *request,
                     bool replaces);
/* The ring in the making, which is counted among its topic's openings. */
int quota_ring(const struct bus *bus, const struct opening *opening);
/* One more subscriber. */
int quota_subscriber(const struct topic *topic);
/* One more roster page: a readers segment for each ring. */
int quota_page(const struct bus *bus, const struct topic *topic);

/* Bytes of all segments of a topic; of the bus. Of a ring in the making, what it will have. */
uint64_t quota_topic_bytes(const struct topic *topic);
uint64_t quota_bus_bytes(const struct bus *bus);

#endif
