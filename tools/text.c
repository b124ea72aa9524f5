#include "text.h"
#include "tool.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

size_t utf8_next(const char *text, size_t bytes, uint32_t *ret_character) {
    static const struct {
        uint8_t mask, lead;
        uint32_t least;
    } forms[4] = {
        { 0x80, 0x00, 0 }, { 0xe0, 0xc0, 0x80 }, { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 }
    };
    if (bytes == 0)
        return 0;
    uint8_t first = (uint8_t)text[0];
    for (size_t more = 0; more < 4; more++) {
        if ((first & forms[more].mask) != forms[more].lead)
            continue;
        if (bytes < more + 1)
            return 0;
        uint32_t character = first & (uint8_t)~forms[more].mask;
        for (size_t i = 1; i <= more; i++) {
            uint8_t next = (uint8_t)text[i];
            if ((next & 0xc0) != 0x80)
                return 0;
            character = character << 6 | (next & 0x3f);
        }
        bool surrogate = character >= 0xd800 && character <= 0xdfff;
        if (character < forms[more].least || character > 0x10ffff || surrogate)
            return 0;
        *ret_character = character;
        return more + 1;
    }
    return 0;
}

bool utf8_valid(const char *text, size_t bytes) {
    for (size_t i = 0; i < bytes;) {
        uint32_t character;
        size_t n = utf8_next(text + i, bytes - i, &character);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

/* C0, DEL and C1: the last are commands in 8 bits. */
static bool is_control(uint32_t character) {
    return character < 0x20 || (character >= 0x7f && character < 0xa0);
}

static void print_escaped(FILE *to, const char *data, size_t bytes, bool lines) {
    for (size_t i = 0; i < bytes;) {
        uint32_t character = 0;
        size_t n = utf8_next(data + i, bytes - i, &character);
        bool blank = character == '\n' || character == '\t';
        bool keep = n > 0 && (!is_control(character) || (lines && blank));
        if (n == 0)
            n = 1;
        if (keep)
            fwrite(data + i, 1, n, to);
        else
            for (size_t k = 0; k < n; k++)
                fprintf(to, "\\x%02x", (unsigned)(uint8_t)data[i + k]);
        i += n;
    }
}

void print_payload(FILE *to, const char *data, size_t bytes) {
    print_escaped(to, data, bytes, true);
}

char *text_escape(const char *text) {
    char *escaped = NULL;
    size_t bytes;
    FILE *to = open_memstream(&escaped, &bytes);
    if (!to)
        out_of_memory();
    print_escaped(to, text, strlen(text), false);
    if (fclose(to) != 0)
        out_of_memory();
    return escaped;
}

void size_text(uint64_t bytes, char ret[SIZE_TEXT_BYTES]) {
    static const char units[] = "KMGTPE";
    if (bytes < 1024) {
        snprintf(ret, SIZE_TEXT_BYTES, "%u", (unsigned)bytes);
        return;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    for (; value >= 1023.5 && unit + 1 < sizeof(units) - 1; unit++)
        value /= 1024;
    snprintf(ret, SIZE_TEXT_BYTES, value < 9.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
}

static int64_t clock_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void time_text(uint64_t monotonic_ns, bool utc, char ret[TIME_TEXT_BYTES]) {
    /* once, so that two times are as far apart as they were */
    static int64_t offset;
    if (offset == 0)
        offset = clock_of(CLOCK_REALTIME) - clock_of(CLOCK_MONOTONIC);
    int64_t now = clock_of(CLOCK_MONOTONIC);
    /* later than now is a lie, and must not overflow */
    int64_t at = offset + (monotonic_ns > (uint64_t)now ? now : (int64_t)monotonic_ns);
    time_t seconds = at / 1000000000;
    char day[32] = "", zone[8] = "Z";
    struct tm tm;
    if (utc ? gmtime_r(&seconds, &tm) : localtime_r(&seconds, &tm)) {
        strftime(day, sizeof(day), utc ? "%Y-%m-%dT%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &tm);
        if (!utc)
            strftime(zone, sizeof(zone), "%z", &tm);
    }
    /* in us: the two clocks cannot be read at the same time */
    snprintf(ret, TIME_TEXT_BYTES, "%s.%06d%s", day, (int)(at % 1000000000 / 1000), zone);
}

struct json_object *json_text(const char *text) {
    if (utf8_valid(text, strlen(text)))
        return json_object_new_string(text);
    char *escaped = text_escape(text);
    struct json_object *string = json_object_new_string(escaped);
    free(escaped);
    return string;
}

static char *base64(const unsigned char *data, size_t bytes) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                 "0123456789+/";
    char *text = malloc((bytes + 2) / 3 * 4 + 1);
    if (!text)
        out_of_memory();
    char *out = text;
    for (size_t i = 0; i < bytes; i += 3) {
        size_t n = bytes - i < 3 ? bytes - i : 3;
        uint32_t word = (uint32_t)data[i] << 16 | (n > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                        (n > 2 ? (uint32_t)data[i + 2] : 0);
        *out++ = digits[word >> 18 & 63];
        *out++ = digits[word >> 12 & 63];
        *out++ = n > 1 ? digits[word >> 6 & 63] : '=';
        *out++ = n > 2 ? digits[word & 63] : '=';
    }
    *out = '\0';
    return text;
}

void json_add_bytes(struct json_object *object, const char *key, const char *data, size_t bytes) {
    if (bytes <= INT32_MAX && utf8_valid(data, bytes)) {
        json_object_object_add(object, key, json_object_new_string_len(data, (int)bytes));
        return;
    }
    char name[64];
    snprintf(name, sizeof(name), "%s_base64", key);
    char *text = base64((const unsigned char *)data, bytes);
    json_object_object_add(object, name, json_object_new_string(text));
    free(text);
}

void json_print(struct json_object *object) {
    const char *line = json_object_to_json_string_ext(
        object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    if (!line)
        out_of_memory();
    puts(line);
    json_object_put(object);
}
