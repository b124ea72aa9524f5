#include "layout/directory.h"

#include "base/error.h"
#include "base/scope.h"

#include <inttypes.h>

#define TEXT_WORDS (TOPIC_NAME_BYTES / 8)
#define INFO_WORDS_MAX (sizeof(struct ring_info) / 8)
_Static_assert(sizeof(struct ring_info) >= sizeof(struct topic_info) &&
                   sizeof(struct ring_info) >= sizeof(struct subscription_info) &&
                   sizeof(struct ring_info) >= sizeof(struct error_info),
               "the ring's info is the largest");
#define READ_TRIES 8

/* ---- records
 *
 * Why a reader never takes a torn copy. It loads version v and copies copy[v & 1]. The flip to v+1
 * writes the other copy; the first stores that can disturb the reader are those of the flip to
 * v+2, which the writer only makes after it stored v+1. Between that store and those stores the
 * writer has a release fence, the reader between its copy and its second look at version an
 * acquire fence: if one word it copied was of the flip to v+2, then the second look sees v+1 or
 * later, and the reader starts over. The text is written under the same rule, and only while the
 * content that is valid says free. Killed at any instruction, the writer leaves version and the
 * copy it points at as they were.
 *
 * record: what lies where in one of the four kinds; all begin with a record_header, then the
 * copies, then the text. */

struct record {
    struct record_header *header;
    atomic_u64 *copies; /* 2 * words */
    atomic_u64 *text;   /* TEXT_WORDS, or NULL */
    size_t words;
};

#define RECORD(r, its_text) \
    (struct record){ &(r)->header, (r)->copy[0], its_text, sizeof((r)->copy[0]) / 8 }

static bool record_read(const struct record *record, void *ret, char *ret_text) {
    size_t bytes = record->words * 8;

    for (int i = 0; i < READ_TRIES; i++) {
        /* SYNC record.version: acquire pairs with the release in flip(): the copy it points at is
         * complete. */
        uint64_t version = atomic_load_acquire(&record->header->version);
        if (version == 0) { /* never written, as most are: free, whatever is in it */
            memset(ret, 0, bytes);
            if (ret_text != NULL) {
                ret_text[0] = '\0';
            }
            return true;
        }
        copy_out_relaxed(ret, record->copies + (version & 1) * record->words, bytes);
        if (ret_text != NULL) {
            copy_out_relaxed(ret_text, record->text, TOPIC_NAME_BYTES);
            ret_text[TOPIC_NAME_BYTES - 1] = '\0';
        }
        /* SYNC record.version: pairs with the release fence in flip(), as said above. Relaxed: the
         * fence orders it. */
        fence_acquire();
        if (atomic_load_relaxed(&record->header->version) == version) {
            return true;
        }
    }
    return false;
}

/* Make `content` the valid one. */
static void flip(const struct record *record, const uint64_t *content) {
    /* relaxed: this process alone writes it */
    uint64_t version = atomic_load_relaxed(&record->header->version) + 1;

    /* SYNC record.version: the flip before must be seen before these stores; pairs with the
     * acquire fence in record_read(). */
    fence_release();
    copy_in_relaxed(record->copies + (version & 1) * record->words, content, record->words * 8);
    /* SYNC record.version: release pairs with the acquire in record_read(). */
    atomic_store_release(&record->header->version, version);
}

/* `text` NULL: it stays. A different text of a record that is not free: it is made free (all zero)
 * in between, so that nobody sees one text with the other's content. */
static void record_write(const struct record *record, const void *info, const char *text) {
    uint64_t content[INFO_WORDS_MAX] = { 0 };
    char wanted[TOPIC_NAME_BYTES] = { 0 }, present[TOPIC_NAME_BYTES];

    if (text != NULL) {
        memcpy(wanted, text, strnlen(text, TOPIC_NAME_BYTES - 1));
        copy_out_relaxed(present, record->text, TOPIC_NAME_BYTES);
        if (memcmp(wanted, present, TOPIC_NAME_BYTES) != 0) {
            flip(record, content);
            /* SYNC record.version: as in flip(), for the text. */
            fence_release();
            copy_in_relaxed(record->text, wanted, TOPIC_NAME_BYTES);
        }
    }
    memcpy(content, info, record->words * 8);
    flip(record, content);
}

/* What is not there reads as free: all zero, without a text. */
static bool absent(void *ret, size_t bytes, char *ret_text) {
    memset(ret, 0, bytes);
    if (ret_text != NULL) {
        ret_text[0] = '\0';
    }
    return false;
}

bool directory_topic(const struct directory *d, uint32_t index, struct topic_info *ret,
                     char *ret_name) {
    if (index < d->geometry.topics) {
        struct record record = RECORD(&d->topics[index], d->topics[index].text);
        if (record_read(&record, ret, ret_name)) {
            return true;
        }
    }
    return absent(ret, sizeof(*ret), ret_name);
}

bool directory_ring(const struct directory *d, uint32_t index, struct ring_info *ret) {
    if (index < d->geometry.rings) {
        struct record record = RECORD(&d->rings[index], NULL);
        if (record_read(&record, ret, NULL)) {
            return true;
        }
    }
    return absent(ret, sizeof(*ret), NULL);
}

bool directory_subscription(const struct directory *d, uint32_t index,
                            struct subscription_info *ret, char *ret_filter) {
    if (index < d->geometry.subscriptions) {
        struct record record = RECORD(&d->subscriptions[index], d->subscriptions[index].text);
        if (record_read(&record, ret, ret_filter)) {
            return true;
        }
    }
    return absent(ret, sizeof(*ret), ret_filter);
}

bool directory_error(const struct directory *d, uint32_t index, struct error_info *ret,
                     char *ret_text) {
    if (index < d->geometry.errors) {
        struct record record = RECORD(&d->errors[index], d->errors[index].text);
        if (record_read(&record, ret, ret_text)) {
            return true;
        }
    }
    return absent(ret, sizeof(*ret), ret_text);
}

void directory_topic_write(struct directory *d, uint32_t index, const struct topic_info *info,
                           const char *name) {
    struct record record = RECORD(&d->topics[index], d->topics[index].text);
    record_write(&record, info, name);
}

void directory_ring_write(struct directory *d, uint32_t index, const struct ring_info *info) {
    struct record record = RECORD(&d->rings[index], NULL);
    record_write(&record, info, NULL);
}

void directory_subscription_write(struct directory *d, uint32_t index,
                                  const struct subscription_info *info, const char *filter) {
    struct record record = RECORD(&d->subscriptions[index], d->subscriptions[index].text);
    record_write(&record, info, filter);
}

void directory_error_write(struct directory *d, uint32_t index, const struct error_info *info,
                           const char *text) {
    struct record record = RECORD(&d->errors[index], d->errors[index].text);
    record_write(&record, info, text);
}

uint32_t directory_topic_find(const struct directory *d, const char *name) {
    char text[TOPIC_NAME_BYTES];
    struct topic_info info;

    for (uint32_t i = 0; i < d->geometry.topics; i++) {
        /* Twice, as most records are free and most of a record is its text. */
        if (directory_topic(d, i, &info, NULL) && info.live != 0 &&
            directory_topic(d, i, &info, text) && info.live != 0 && strcmp(text, name) == 0) {
            return i;
        }
    }
    return NO_INDEX;
}

/* ---- the whole */

/* `n` records of `bytes` bytes, which are a multiple of a line, at *end. 2^32 records of each kind
 * are far from 2^64. */
static uint64_t place(uint64_t *end, uint32_t n, size_t bytes) {
    uint64_t at = *end;
    *end += (uint64_t)n * bytes;
    return at;
}

void directory_geometry_make(struct directory_geometry *g, uint32_t topics, uint32_t rings,
                             uint32_t subscriptions, uint32_t pages, uint32_t errors) {
    uint64_t end = sizeof(struct directory_header);

    *g = (struct directory_geometry){
        .topics = topics,
        .rings = rings,
        .subscriptions = subscriptions,
        .pages = pages,
        .errors = errors,
    };
    g->topics_offset = place(&end, topics, sizeof(struct topic_record));
    g->rings_offset = place(&end, rings, sizeof(struct ring_record));
    g->subscriptions_offset = place(&end, subscriptions, sizeof(struct subscription_record));
    g->pages_offset = place(&end, pages, sizeof(struct roster_page));
    g->errors_offset = place(&end, errors, sizeof(struct error_record));
    g->bytes = (end + 4095) & ~UINT64_C(4095);
}

static void set_view(struct directory *d, void *base, const struct directory_geometry *g) {
    char *start = base;

    d->header = base;
    d->geometry = *g;
    d->topics = (struct topic_record *)(start + g->topics_offset);
    d->rings = (struct ring_record *)(start + g->rings_offset);
    d->subscriptions = (struct subscription_record *)(start + g->subscriptions_offset);
    d->pages = (struct roster_page *)(start + g->pages_offset);
    d->errors = (struct error_record *)(start + g->errors_offset);
}

void directory_format(struct directory_header *header, const struct directory_geometry *g,
                      const char *instance) {
    struct directory d;

    set_view(&d, header, g);
    header->geometry = *g;
    memset(header->instance, 0, sizeof(header->instance));
    memcpy(header->instance, instance, strnlen(instance, INSTANCE_BYTES - 1));
    /* relaxed, all of them: whoever attaches has seen the magic, which is published later. Zeroed
     * records are free, so only the pages have to be touched. */
    atomic_store_relaxed(&header->generation, 1);
    atomic_store_relaxed(&header->epoch, 0);
    atomic_store_relaxed(&header->next_serial, 1);
    for (uint32_t i = 0; i < g->pages; i++) {
        atomic_store_relaxed(&d.pages[i].topic, NO_INDEX); /* relaxed: as above */
        atomic_store_relaxed(&d.pages[i].next, NO_INDEX);
    }
}

int directory_attach(struct directory *ret, void *base, uint64_t mapped_bytes) {
    const struct directory_header *header = base;
    struct directory_geometry g, made;
    char instance[sizeof(header->instance)];

    int r = identity_check(&header->identity, MAGIC_DIRECTORY, mapped_bytes);
    if (r < 0) {
        return r;
    }
    if (mapped_bytes < sizeof(*header)) {
        return error_raise(SHMPS_E_CORRUPT,
                           "a directory of %" PRIu64 " bytes has no room for its header: it is "
                           "not used",
                           mapped_bytes);
    }
    copy_out_relaxed(&g, &header->geometry, sizeof(g));
    directory_geometry_make(&made, g.topics, g.rings, g.subscriptions, g.pages, g.errors);
    if (memcmp(&g, &made, sizeof(g)) != 0 || g.bytes != mapped_bytes) {
        return error_raise(SHMPS_E_CORRUPT,
                           "the directory's geometry does not fit its %" PRIu64 " bytes: it is "
                           "damaged, and not used",
                           mapped_bytes);
    }
    copy_out_relaxed(instance, header->instance, sizeof(instance));
    if (!instance_name_valid(instance)) { /* looks at INSTANCE_BYTES at most */
        return error_raise(SHMPS_E_CORRUPT,
                           "the directory names no instance: it is damaged, and not used");
    }
    set_view(ret, base, &g);
    return 0;
}
