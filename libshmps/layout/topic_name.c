#include "layout/topic_name.h"

#include "base/error.h"

#include <stddef.h>
#include <string.h>

/* Bytes of the well-formed UTF-8 sequence at `s`, or 0. The ranges of the second byte are those of
 * The Unicode Standard, table 3-7: they leave out overlong forms, surrogates and what lies beyond
 * U+10FFFF. A NUL is never in a range, so nothing is read beyond the end of the string. */
static size_t utf8_length(const unsigned char *s) {
    unsigned char low = 0x80, high = 0xbf;
    size_t length;

    if (s[0] < 0x80) {
        return 1;
    }
    if (s[0] >= 0xc2 && s[0] <= 0xdf) {
        length = 2;
    } else if ((s[0] & 0xf0) == 0xe0) {
        length = 3;
        low = s[0] == 0xe0 ? 0xa0 : low;
        high = s[0] == 0xed ? 0x9f : high;
    } else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
        length = 4;
        low = s[0] == 0xf0 ? 0x90 : low;
        high = s[0] == 0xf4 ? 0x8f : high;
    } else {
        return 0;
    }
    if (s[1] < low || s[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

/* The rules that hold for each character. */
static int check_characters(const char *what, const char *name) {
    const unsigned char *s = (const unsigned char *)name;

    for (size_t i = 0; s[i] != '\0';) {
        size_t length = utf8_length(s + i);
        if (length == 0) {
            return error_raise(SHMPS_E_TOPIC,
                               "%s: byte %zu (0x%02x) is not valid UTF-8; use UTF-8", what, i,
                               s[i]);
        }
        if (s[i] < 0x20 || s[i] == 0x7f) {
            return error_raise(SHMPS_E_TOPIC,
                               "%s: byte %zu is the control character 0x%02x; leave it out", what,
                               i, s[i]);
        }
        i += length;
    }
    return 0;
}

/* A level is `length` bytes at `level`. */
static int check_wildcards(const char *name, const char *level, size_t length, bool filter) {
    const char *plus = memchr(level, '+', length), *hash = memchr(level, '#', length);

    if (plus == NULL && hash == NULL) {
        return 0;
    }
    if (!filter) {
        return error_raise(SHMPS_E_TOPIC,
                           "topic \"%s\": '%c' is for filters only; leave it out of a topic's "
                           "name",
                           name, plus != NULL ? '+' : '#');
    }
    if (length != 1) {
        return error_raise(SHMPS_E_TOPIC,
                           "filter \"%s\": '%c' has to be a whole level, as in a/%c", name,
                           plus != NULL ? '+' : '#', plus != NULL ? '+' : '#');
    }
    if (hash != NULL && level[1] != '\0') {
        return error_raise(SHMPS_E_TOPIC, "filter \"%s\": '#' can only be the last level", name);
    }
    return 0;
}

static int check_levels(const char *what, const char *name, bool filter) {
    const char *level = name;

    for (unsigned n = 1;; n++) {
        size_t length = strcspn(level, "/");
        if (length == 0) {
            return error_raise(SHMPS_E_TOPIC,
                               "%s \"%s\": level %u is empty; leave out the '/' too many", what,
                               name, n);
        }
        if (n > TOPIC_LEVELS_MAX) {
            return error_raise(SHMPS_E_TOPIC, "%s \"%s\" has more than %d levels; use fewer '/'",
                               what, name, TOPIC_LEVELS_MAX);
        }
        int r = check_wildcards(name, level, length, filter);
        if (r < 0) {
            return r;
        }
        if (level[length] == '\0') {
            return 0;
        }
        level += length + 1;
    }
}

static int check(const char *what, const char *name, bool filter) {
    if (name == NULL || name[0] == '\0') {
        return error_raise(SHMPS_E_TOPIC, "the %s is %s; name at least one level", what,
                           name == NULL ? "NULL" : "empty");
    }
    if (strnlen(name, TOPIC_NAME_BYTES) == TOPIC_NAME_BYTES) {
        return error_raise(SHMPS_E_TOPIC, "the %s has more than %d bytes; use a shorter one", what,
                           TOPIC_NAME_BYTES - 1);
    }
    int r = check_characters(what, name); /* before any text that quotes the name */
    return r < 0 ? r : check_levels(what, name, filter);
}

int topic_name_check(const char *topic) {
    return check("topic", topic, false);
}

int topic_filter_check(const char *filter) {
    return check("filter", filter, true);
}

bool topic_filter_is_exact(const char *filter) {
    return strpbrk(filter, "+#") == NULL;
}

bool topic_filter_matches(const char *filter, const char *topic) {
    if (topic[0] == '$' && (filter[0] == '+' || filter[0] == '#')) {
        return false;
    }
    for (;;) {
        size_t f = strcspn(filter, "/"), t = strcspn(topic, "/");
        if (filter[0] == '#') {
            return true;
        }
        if (filter[0] != '+' && (f != t || memcmp(filter, topic, f) != 0)) {
            return false;
        }
        filter += f;
        topic += t;
        if (topic[0] == '\0') { /* "a/#" matches "a" */
            return filter[0] == '\0' || strcmp(filter, "/#") == 0;
        }
        if (filter[0] == '\0') {
            return false;
        }
        filter++;
        topic++;
    }
}
