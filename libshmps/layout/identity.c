#include "layout/identity.h"

#include "base/error.h"
#include "base/scope.h"
#include "layout/directory.h"
#include "layout/readers.h"
#include "layout/ring.h"

#include <inttypes.h>

/* ---- fingerprint: the size of each shared struct, then the offset of each of its members;
 * constants that place things */

#define SIZE(type) (uint32_t)sizeof(struct type)
#define AT(type, member) (uint32_t)offsetof(struct type, member)

static const uint32_t identity_shape[] = {
    SIZE(identity), AT(identity, magic), AT(identity, version), AT(identity, kind),
    AT(identity, fingerprint), AT(identity, compat), AT(identity, incompat), AT(identity, bytes),
    AT(identity, serial), AT(identity, directory), AT(identity, boot_id), AT(identity, born_ns),
    AT(identity, uid), AT(identity, page), AT(identity, reserved),
};

static const uint32_t ring_shape[] = {
    SIZE(ring_geometry), AT(ring_geometry, depth), AT(ring_geometry, slot_bytes),
    AT(ring_geometry, inline_bytes), AT(ring_geometry, blocks), AT(ring_geometry, block_bytes),
    AT(ring_geometry, blocks_offset), AT(ring_geometry, message_bytes), AT(ring_geometry, start),
    AT(ring_geometry, pins), AT(ring_geometry, mode), AT(ring_geometry, topic),
    AT(ring_geometry, record), AT(ring_geometry, publisher), AT(ring_geometry, flags),
    AT(ring_geometry, reserved),
    SIZE(ring_header), AT(ring_header, identity), AT(ring_header, geometry), AT(ring_header, low),
    AT(ring_header, head), AT(ring_header, bell), AT(ring_header, starved),
    AT(ring_header, counters.messages), AT(ring_header, counters.bytes),
    AT(ring_header, counters.stalls), AT(ring_header, counters.wakes),
    AT(ring_header, counters.reclaims), AT(ring_header, evicted),
    AT(ring_header, successor),
    SIZE(slot), AT(slot, seq), AT(slot, time_ns), AT(slot, bytes), AT(slot, tag),
    AT(slot, payload), RING_SLOTS_OFFSET, RING_INLINE_BYTES_MAX, RING_BARE, RING_FENCE,
    RING_TIMESTAMPS, RING_EXPLICIT_SIZE,
};

static const uint32_t readers_shape[] = {
    SIZE(reader_entry), AT(reader_entry, need), AT(reader_entry, pins),
    SIZE(readers_segment), AT(readers_segment, identity), AT(readers_segment, armed),
    AT(readers_segment, space), AT(readers_segment, entries), READERS_ENTRIES, READER_PINS_MAX,
};

static const uint32_t directory_shape[] = {
    SIZE(directory_geometry), AT(directory_geometry, topics), AT(directory_geometry, rings),
    AT(directory_geometry, subscriptions), AT(directory_geometry, pages),
    AT(directory_geometry, errors), AT(directory_geometry, topics_offset),
    AT(directory_geometry, rings_offset), AT(directory_geometry, subscriptions_offset),
    AT(directory_geometry, pages_offset), AT(directory_geometry, errors_offset),
    AT(directory_geometry, bytes),
    SIZE(directory_header), AT(directory_header, identity), AT(directory_header, geometry),
    AT(directory_header, instance), AT(directory_header, generation), AT(directory_header, epoch),
    AT(directory_header, daemon_pid), AT(directory_header, daemon_state),
    AT(directory_header, daemon_start_time), AT(directory_header, next_serial), DAEMON_RUNNING,
    DAEMON_ENDED,
};

static const uint32_t info_shape[] = {
    SIZE(topic_info), AT(topic_info, live), AT(topic_info, first_ring), AT(topic_info, first_page),
    AT(topic_info, publishers), AT(topic_info, subscribers), AT(topic_info, retired_rings),
    AT(topic_info, serial), AT(topic_info, born_ns), AT(topic_info, refused),
    AT(topic_info, gone), AT(topic_info, gone_ring), AT(topic_info, patience_ns),
    AT(topic_info, history), AT(topic_info, history_asked),
    SIZE(owner_info), AT(owner_info, pid), AT(owner_info, uid), AT(owner_info, start_time),
    AT(owner_info, session), AT(owner_info, command),
    SIZE(ring_info), AT(ring_info, state), AT(ring_info, topic), AT(ring_info, next),
    AT(ring_info, flags), AT(ring_info, serial), AT(ring_info, publisher),
    AT(ring_info, predecessor), AT(ring_info, start), AT(ring_info, final_head),
    AT(ring_info, bytes), AT(ring_info, message_bytes), AT(ring_info, depth), AT(ring_info, pins),
    AT(ring_info, pins_granted), AT(ring_info, segment_kind), AT(ring_info, owner),
    AT(ring_info, born_ns), AT(ring_info, retired_ns), RING_FREE, RING_LIVE, RING_RETIRED,
    SIZE(subscription_info), AT(subscription_info, live), AT(subscription_info, policy),
    AT(subscription_info, pins), AT(subscription_info, history), AT(subscription_info, serial),
    AT(subscription_info, exact), AT(subscription_info, topic), AT(subscription_info, owner),
    AT(subscription_info, born_ns),
    SIZE(error_info), AT(error_info, count), AT(error_info, code), AT(error_info, first_ns),
    AT(error_info, last_ns),
};

static const uint32_t record_shape[] = {
    SIZE(record_header), AT(record_header, version), AT(record_header, generation),
    SIZE(topic_record), AT(topic_record, copy), AT(topic_record, text),
    SIZE(ring_record), AT(ring_record, copy),
    SIZE(subscription_record), AT(subscription_record, copy), AT(subscription_record, text),
    SIZE(error_record), AT(error_record, copy), AT(error_record, text), TOPIC_NAME_BYTES,
    SIZE(roster_page), AT(roster_page, topic), AT(roster_page, next), AT(roster_page, ordinal),
    AT(roster_page, uid), AT(roster_page, first), AT(roster_page, cells), TOPIC_PAGES_MAX,
    POLICY_NONE, POLICY_LOSSY, POLICY_LATEST, POLICY_RELIABLE, POLICY_SPAN,
};

/* FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t fnv1a(uint64_t hash, const uint32_t *numbers, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (unsigned shift = 0; shift < 32; shift += 8) {
            hash ^= numbers[i] >> shift & 0xff;
            hash *= UINT64_C(0x100000001b3);
        }
    }
    return hash;
}

uint64_t layout_fingerprint(void) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    hash = fnv1a(hash, identity_shape, ARRAY_LENGTH(identity_shape));
    hash = fnv1a(hash, ring_shape, ARRAY_LENGTH(ring_shape));
    hash = fnv1a(hash, readers_shape, ARRAY_LENGTH(readers_shape));
    hash = fnv1a(hash, directory_shape, ARRAY_LENGTH(directory_shape));
    hash = fnv1a(hash, info_shape, ARRAY_LENGTH(info_shape));
    return fnv1a(hash, record_shape, ARRAY_LENGTH(record_shape));
}

/* ---- format and check */

void identity_format(struct identity *id, uint32_t kind, uint64_t bytes, uint64_t serial,
                     uint64_t directory, const uint64_t boot[2], uint64_t born_ns, uint32_t uid,
                     uint32_t page) {
    id->version = LAYOUT_VERSION;
    id->kind = kind;
    id->fingerprint = layout_fingerprint();
    id->compat = LAYOUT_COMPAT_KNOWN;
    id->incompat = LAYOUT_INCOMPAT_KNOWN;
    id->bytes = bytes;
    id->serial = serial;
    id->directory = directory;
    id->boot_id[0] = boot[0];
    id->boot_id[1] = boot[1];
    id->born_ns = born_ns;
    id->uid = uid;
    id->page = page;
    memset(id->reserved, 0, sizeof(id->reserved));
}

void identity_publish(struct identity *id, uint64_t magic) {
    /* SYNC identity.magic: release pairs with the acquire in identity_check(): who sees it sees
     * all of the format. */
    atomic_store_release(&id->magic, magic);
}

void identity_retire(struct identity *id) {
    /* SYNC identity.magic: release pairs with the acquire in identity_check(); nothing is freed by
     * it. */
    atomic_store_release(&id->magic, 0);
}

static int check_version(const struct identity *id) {
    if (id->version != LAYOUT_VERSION) {
        return error_raise(SHMPS_E_VERSION,
                           "the segment has layout version %" PRIu32 ", this program knows "
                           "version %u: end all programs of the bus and start them with the %s "
                           "version of shmps",
                           id->version, LAYOUT_VERSION,
                           id->version > LAYOUT_VERSION ? "newer" : "same");
    }
    if (id->fingerprint != layout_fingerprint()) {
        return error_raise(SHMPS_E_VERSION,
                           "the segment was laid out by another build of shmps (fingerprint %016"
                           PRIx64 ", this program has %016" PRIx64 "): use one build for pubsubd "
                           "and all programs",
                           id->fingerprint, layout_fingerprint());
    }
    if ((id->incompat & ~LAYOUT_INCOMPAT_KNOWN) != 0) {
        return error_raise(SHMPS_E_VERSION,
                           "the segment uses features %#" PRIx32 " of which this program only "
                           "knows %#" PRIx32 ": use the newer version of shmps for it too",
                           id->incompat, LAYOUT_INCOMPAT_KNOWN);
    }
    return 0;
}

int identity_check(const struct identity *id, uint64_t magic, uint64_t mapped_bytes) {
    struct identity copy; /* checked instead of what others may change meanwhile (I6) */

    if (mapped_bytes < sizeof(copy)) {
        return error_raise(SHMPS_E_CORRUPT,
                           "the segment has %" PRIu64 " bytes: it is truncated, and not used",
                           mapped_bytes);
    }
    /* SYNC identity.magic: acquire pairs with the release in identity_publish(). */
    uint64_t found = atomic_load_acquire(&id->magic);
    if (found != magic) {
        return error_raise(SHMPS_E_CORRUPT,
                           "the segment begins with %016" PRIx64 " instead of %016" PRIx64 ": it "
                           "is not finished, already retired, or not what its name says; it is "
                           "not used",
                           found, magic);
    }
    copy_out_relaxed(&copy, id, sizeof(copy));

    int r = check_version(&copy);
    if (r < 0) {
        return r;
    }
    if (copy.bytes != mapped_bytes) {
        return error_raise(SHMPS_E_CORRUPT,
                           "the segment has %" PRIu64 " bytes, but was made with %" PRIu64 ": it "
                           "was truncated or extended, and is not used",
                           mapped_bytes, copy.bytes);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(copy.reserved); i++) {
        if (copy.reserved[i] != 0) {
            return error_raise(SHMPS_E_CORRUPT,
                               "reserved word %zu of the segment's identity is %#" PRIx64 " "
                               "instead of 0: it is damaged, and not used",
                               i, copy.reserved[i]);
        }
    }
    return 0;
}
