/* layout/identity.h - the first 128 bytes of every segment: what it is, of which layout, whose.
 *
 * WRITER: pubsubd, once, when it formats the segment; `magic` is stored last (release) and cleared
 * first on retirement. READERS: everyone who attaches. Nothing else in a segment may be believed
 * before identity_check() said 0. */
#ifndef SHMPS_LAYOUT_IDENTITY_H
#define SHMPS_LAYOUT_IDENTITY_H

#include "base/atomic.h"

#define CACHE_LINE 64

/* "shmpsDIR", "shmpsRNG", "shmpsRDR" as little-endian words. */
#define MAGIC_DIRECTORY UINT64_C(0x52494473706d6873)
#define MAGIC_RING UINT64_C(0x474e5273706d6873)
#define MAGIC_READERS UINT64_C(0x52445273706d6873)

#define LAYOUT_VERSION 1u

/* Words that say what a segment uses beyond layout version 1. An unknown bit in `incompat`:
 * refuse; in `compat`: ignore. */
#define LAYOUT_COMPAT_KNOWN UINT32_C(0)
#define LAYOUT_INCOMPAT_KNOWN UINT32_C(0)

struct identity {
    atomic_u64 magic;       /* stored last */
    uint32_t version;       /* LAYOUT_VERSION */
    uint32_t kind;          /* enum segment_kind of base/segment.h */
    uint64_t fingerprint;   /* layout_fingerprint() of the writer */
    uint32_t compat;
    uint32_t incompat;
    uint64_t bytes;         /* of the whole segment */
    uint64_t serial;        /* directory: random; ring and readers: the ring's serial */
    uint64_t directory;     /* ring and readers: serial of their directory; directory: 0 */
    uint64_t boot_id[2];    /* boot in which it was formatted */
    uint64_t born_ns;       /* CLOCK_MONOTONIC */
    uint32_t uid;           /* of the daemon that formatted it */
    uint32_t page;          /* readers: index of the roster page; else 0 */
    uint64_t reserved[5];   /* zero */
};
_Static_assert(sizeof(struct identity) == 128, "identity is two lines, without padding");
_Static_assert(offsetof(struct identity, reserved) == 88, "no hidden padding in identity");

/* FNV-1a over every size and offset that two builds must agree on. Equal for all processes of one
 * build; differs when a struct of this room changes. */
uint64_t layout_fingerprint(void);

/* Fill all of it but the magic. */
void identity_format(struct identity *id, uint32_t kind, uint64_t bytes, uint64_t serial,
                     uint64_t directory, const uint64_t boot_id[2], uint64_t born_ns, uint32_t uid,
                     uint32_t page);
/* Store the magic with release: from now on the segment may be attached. */
void identity_publish(struct identity *id, uint64_t magic);
/* Clear the magic: nobody attaches from now on. */
void identity_retire(struct identity *id);

/* Check the identity of a mapped segment of `mapped_bytes` bytes. 0, or with the whole story in
 * the detail: CORRUPT (magic, size, reserved), VERSION (version, fingerprint, incompat: both sides
 * named). */
int identity_check(const struct identity *id, uint64_t magic, uint64_t mapped_bytes);

#endif
