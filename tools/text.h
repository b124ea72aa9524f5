/* text.h - bytes that others wrote, made fit for a terminal, a table or JSON. */
#ifndef SHMPS_TOOL_TEXT_H
#define SHMPS_TOOL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct json_object;

/* The length of the well-formed UTF-8 character at the start of `bytes` bytes (RFC 3629: shortest
 * form, no surrogates, nothing beyond U+10FFFF), and the character; 0 if there is none. */
size_t utf8_next(const char *text, size_t bytes, uint32_t *ret_character);

bool utf8_valid(const char *text, size_t bytes);

/* Print bytes for people: text as it is, with its newlines and tabs; control characters, which
 * could command the terminal, and what is no UTF-8 as \xHH. */
void print_payload(FILE *to, const char *data, size_t bytes);

/* A name for one line: as above, but newlines and tabs are escaped, too. The caller frees it. */
char *text_escape(const char *text);

/* "17", "4.0K", "1.5M" ... as ls -h: powers of 1024. */
#define SIZE_TEXT_BYTES 16
void size_text(uint64_t bytes, char ret[SIZE_TEXT_BYTES]);

/* A time of CLOCK_MONOTONIC as the calendar tells it now (neither a clock that was set nor a
 * suspend since then is known): local with its offset, or UTC as in RFC 3339. */
#define TIME_TEXT_BYTES 48
void time_text(uint64_t monotonic_ns, bool utc, char ret[TIME_TEXT_BYTES]);

/* A JSON string; what is no UTF-8 in it as \xHH. */
struct json_object *json_text(const char *text);

/* Add `key` to an object or, for bytes that are no UTF-8, `key`_base64 (RFC 4648, padded). */
void json_add_bytes(struct json_object *object, const char *key, const char *data, size_t bytes);

/* Print an object as one line, and free it. */
void json_print(struct json_object *object);

#endif
