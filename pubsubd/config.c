#include "config.h"

#include "base/error.h"
#include "base/scope.h"
#include "layout/ring.h"
#include "log.h"

#include <confuse.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- the keys */

enum kind { COUNT, SLOTS, SIZE, TIME, LEVEL, NAME };

struct key {
    const char *name;
    enum kind kind;
    size_t offset;
    uint64_t min, max;
    const char *word; /* may stand for word_value; NULL: none */
    uint64_t word_value;
};

#define IN_TOPIC(field) offsetof(struct topic_policy, field)
#define IN_CONFIG(field) offsetof(struct config, field)
#define COUNT_MAX UINT64_C(1000000)
#define RECORDS_MAX 65536
#define TIME_MAX (UINT64_C(24 * 3600) * 1000000000)
#define NONE "unlimited", CONFIG_UNLIMITED

static const struct key topic_keys[TOPIC_KEYS] = {
    { "depth", SLOTS, IN_TOPIC(depth), RING_DEPTH_MIN, RING_DEPTH_MAX, "auto", CONFIG_AUTO },
    { "message_size", SIZE, IN_TOPIC(message_bytes), 1, RING_BLOCK_BYTES_MAX, NULL, 0 },
    { "pins", COUNT, IN_TOPIC(pins), 1, RING_PINS_MAX, "auto", CONFIG_AUTO },
    { "max_depth", SLOTS, IN_TOPIC(max_depth), RING_DEPTH_MIN, RING_DEPTH_MAX, NULL, 0 },
    { "max_message_size", SIZE, IN_TOPIC(max_message_bytes), 1, RING_BLOCK_BYTES_MAX, NULL, 0 },
    { "max_bytes", SIZE, IN_TOPIC(max_bytes), 1, RING_BYTES_MAX, NONE },
    { "max_publishers", COUNT, IN_TOPIC(max_publishers), 0, COUNT_MAX, NONE },
    { "max_subscribers", COUNT, IN_TOPIC(max_subscribers), 0, COUNT_MAX, NONE },
    { "history", COUNT, IN_TOPIC(history), 0, RING_DEPTH_MAX, NULL, 0 },
    { "patience", TIME, IN_TOPIC(patience_ns), 0, TIME_MAX, "never", 0 },
};
enum { DEPTH = 0, MESSAGE_SIZE = 1, MAX_DEPTH = 3, MAX_MESSAGE_SIZE = 4 }; /* of topic_keys */

static const struct topic_policy default_policy = {
    .depth = CONFIG_AUTO,
    .message_bytes = 4096,
    .pins = CONFIG_AUTO,
    .max_depth = RING_DEPTH_MAX,
    .max_message_bytes = RING_BLOCK_BYTES_MAX,
    .max_bytes = CONFIG_UNLIMITED,
    .max_publishers = CONFIG_UNLIMITED,
    .max_subscribers = CONFIG_UNLIMITED,
};

static const struct key config_keys[] = {
    { "instance", NAME, IN_CONFIG(instance), 0, 0, NULL, 0 },
    { "log", LEVEL, IN_CONFIG(log_level), 0, 0, NULL, 0 },
    { "idle_exit", TIME, IN_CONFIG(idle_exit_ns), 0, TIME_MAX, "never", 0 },
    { "max_topics", COUNT, IN_CONFIG(max_topics), 1, RECORDS_MAX, NULL, 0 },
    { "max_rings", COUNT, IN_CONFIG(max_rings), 1, RECORDS_MAX, NULL, 0 },
    { "max_subscriptions", COUNT, IN_CONFIG(max_subscriptions), 1, RECORDS_MAX, NULL, 0 },
    { "max_memory", SIZE, IN_CONFIG(max_memory), 1, RING_BYTES_MAX, NONE },
    { "max_connections", COUNT, IN_CONFIG(max_connections), 1, COUNT_MAX, NONE },
};
#define CONFIG_KEYS ARRAY_LENGTH(config_keys)
enum { MAX_MEMORY = 6 }; /* of config_keys */

struct config *config_new(void) {
    struct config *c = malloc(sizeof(*c));
    if (c != NULL)
        *c = (struct config){
            .log_level = LOG_INFO,
            .idle_exit_ns = UINT64_C(5000000000),
            .max_topics = 2048,
            .max_rings = 2048,
            .max_subscriptions = 4096,
            .max_memory = CONFIG_UNLIMITED,
            .max_connections = CONFIG_UNLIMITED,
        };
    return c;
}

void config_free(struct config *c) {
    if (c != NULL)
        free(c->topics);
    free(c);
}

/* A topic has a roster page once it has a subscriber, and more of them only when it has many. */
void config_geometry(const struct config *c, struct directory_geometry *ret) {
    directory_geometry_make(ret, (uint32_t)c->max_topics, (uint32_t)c->max_rings,
                            (uint32_t)c->max_subscriptions,
                            (uint32_t)(c->max_topics + c->max_subscriptions / 8), BUS_ERRORS);
}

/* ---- parsing. libconfuse's callbacks carry no state of ours, and its scanner is global anyway:
 * one text at a time. */

static struct {
    const char *name;
    struct config *config;
    const cfg_t *root;
    uint32_t lines[CONFIG_KEYS];
    int result; /* the first error */
} parsing;

__attribute__((format(printf, 2, 3))) static int fault(uint32_t line, const char *format, ...) {
    char text[400];
    va_list arguments;
    if (parsing.result < 0)
        return -1;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    parsing.result = error_raise(SHMPS_E_INVALID, "%s:%u: %s", parsing.name, line, text);
    return -1;
}

static void list_keys(const struct key *keys, size_t n, char *ret, size_t bytes) {
    size_t at = 0;
    for (size_t i = 0; i < n && at < bytes; i++)
        at += (size_t)snprintf(ret + at, bytes - at, "%s%s", i > 0 ? ", " : "", keys[i].name);
}

static void on_error(cfg_t *cfg, const char *format, va_list arguments) {
    char text[200], known[200];
    vsnprintf(text, sizeof(text), format, arguments);
    if (strstr(format, "no such option") == NULL) {
        fault((uint32_t)cfg->line, "%s", text);
    } else if (cfg == parsing.root) {
        list_keys(config_keys, CONFIG_KEYS, known, sizeof(known));
        fault((uint32_t)cfg->line, "%s; there are %s, and sections topic \"FILTER\" { ... }", text,
              known);
    } else {
        list_keys(topic_keys, TOPIC_KEYS, known, sizeof(known));
        fault((uint32_t)cfg->line, "%s in the section of a topic; there are %s", text, known);
    }
}

/* ---- values */

struct unit {
    const char *name;
    uint64_t factor;
};
static const struct unit counts[] = { { "", 1 }, { NULL, 0 } };
static const struct unit sizes[] = {
    { "", 1 },
    { "KiB", UINT64_C(1) << 10 },
    { "MiB", UINT64_C(1) << 20 },
    { "GiB", UINT64_C(1) << 30 },
    { "TiB", UINT64_C(1) << 40 },
    { NULL, 0 },
};
static const struct unit times[] = {
    { "ms", 1000000 },
    { "s", 1000000000 },
    { "min", UINT64_C(60000000000) },
    { NULL, 0 },
};
static const char *const levels[] = {
    [LOG_ERROR] = "error", [LOG_WARNING] = "warning", [LOG_NOTICE] = "notice",
    [LOG_INFO] = "info",   [LOG_DEBUG] = "debug",
};

static const struct unit *units_of(const struct key *key) {
    if (key->kind == SIZE)
        return sizes;
    return key->kind == TIME ? times : counts;
}

static const char *wanted(const struct key *key) {
    switch (key->kind) {
    case SIZE: return "a number of bytes such as 4096, 64KiB or 8MiB";
    case TIME: return "a time such as 500ms, 5s or 2min";
    case LEVEL: return "error, warning, notice, info or debug";
    case NAME: return "a name of 1 to 32 of A-Z a-z 0-9 _ and -";
    default: return "a whole number";
    }
}

/* False: it is not of that form. What is too large for 64 bits is UINT64_MAX. */
static bool read_number(const char *value, const struct unit *units, uint64_t *ret) {
    uint64_t n = 0;
    const char *s = value;
    for (; *s >= '0' && *s <= '9'; s++)
        if (n == UINT64_MAX || __builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*s - '0'), &n))
            n = UINT64_MAX;
    if (s == value)
        return false;
    *ret = 0;
    if (units == times && n == 0 && *s == '\0')
        return true; /* nothing is nothing in any unit */
    for (; units->name != NULL; units++) {
        if (strcmp(s, units->name) != 0)
            continue;
        if (__builtin_mul_overflow(n, units->factor, ret))
            *ret = UINT64_MAX;
        return true;
    }
    return false;
}

static bool read_level(const char *value, uint64_t *ret) {
    for (size_t i = LOG_ERROR; i < ARRAY_LENGTH(levels); i++)
        if (strcmp(value, levels[i]) == 0) {
            *ret = i;
            return true;
        }
    return false;
}

static int check_bounds(const struct key *key, const char *value, uint64_t n, uint32_t line) {
    if (n < key->min || n > key->max) {
        uint64_t bound = n < key->min ? key->min : key->max;
        const struct unit *best = units_of(key);
        for (const struct unit *u = best; u->name != NULL; u++)
            if (bound >= u->factor && bound % u->factor == 0)
                best = u;
        return fault(line, "%s = %.60s: at %s %" PRIu64 "%s", key->name, value,
                     n < key->min ? "least" : "most", bound / best->factor, best->name);
    }
    if (key->kind == SLOTS && (n & (n - 1)) != 0) {
        uint64_t power = RING_DEPTH_MIN;
        while (power * 2 < n)
            power *= 2;
        return fault(line, "%s = %s: slots are a power of two; %" PRIu64 " or %" PRIu64, key->name,
                     value, power, power * 2);
    }
    return 0;
}

/* The value of a key into `to`, the struct that has it. */
static int read_value(const struct key *key, const char *value, uint32_t line, void *to) {
    void *field = (char *)to + key->offset;
    uint64_t n = 0;
    if (key->kind == NAME && instance_name_valid(value)) {
        memcpy(field, value, strlen(value) + 1);
        return 0;
    }
    if (key->word != NULL && strcmp(value, key->word) == 0) {
        n = key->word_value;
    } else if (key->kind == NAME ||
               (key->kind == LEVEL && !read_level(value, &n)) ||
               (key->kind != LEVEL && !read_number(value, units_of(key), &n))) {
        return fault(line, "%s = %.60s: what is wanted is %s%s%s", key->name, value, wanted(key),
                     key->word != NULL ? ", or " : "", key->word != NULL ? key->word : "");
    } else if (key->kind != LEVEL && check_bounds(key, value, n, line) < 0) {
        return -1;
    }
    memcpy(field, &n, sizeof(n));
    return 0;
}

static int set_key(const struct key *key, const char *value, uint32_t line, uint32_t *set_at,
                   void *to) {
    if (*set_at != 0)
        return fault(line, "%s is set on line %u already", key->name, *set_at);
    *set_at = line;
    return read_value(key, value, line, to);
}

/* ---- sections */

/* The section that is being read; made at its first key. NULL: it cannot be. */
static struct config_topic *topic_of(const cfg_t *section, uint32_t line) {
    struct config *c = parsing.config;
    const char *filter = section->title;
    if (c->n_topics > 0 && strcmp(c->topics[c->n_topics - 1].filter, filter) == 0)
        return &c->topics[c->n_topics - 1];
    if (topic_filter_check(filter) < 0)
        return fault(line, "%s", shmps_error_detail()), NULL;
    struct config_topic *topics = realloc(c->topics, (c->n_topics + 1) * sizeof(*topics));
    if (topics == NULL)
        return fault(line, "no memory for this section"), NULL;
    c->topics = topics;
    struct config_topic *t = &topics[c->n_topics++];
    *t = (struct config_topic){ .line = line };
    memcpy(t->filter, filter, strlen(filter) + 1);
    return t;
}

static int on_value(cfg_t *cfg, cfg_opt_t *opt, const char *value, void *result) {
    uint32_t line = (uint32_t)cfg->line;
    *(long *)result = 0; /* libconfuse's own store is not used */
    if (cfg == parsing.root) {
        for (size_t i = 0; i < CONFIG_KEYS; i++)
            if (strcmp(config_keys[i].name, opt->name) == 0)
                return set_key(&config_keys[i], value, line, &parsing.lines[i], parsing.config);
        return -1;
    }
    /* the root's line is still that of the section's opening brace */
    struct config_topic *t = topic_of(cfg, (uint32_t)parsing.root->line);
    for (size_t i = 0; t != NULL && i < TOPIC_KEYS; i++)
        if (strcmp(topic_keys[i].name, opt->name) == 0)
            return set_key(&topic_keys[i], value, line, &t->lines[i], &t->policy);
    return -1;
}

static int check_default(const struct config_topic *t, int key, int limit) {
    uint64_t value, most;
    if (t->lines[key] == 0 || t->lines[limit] == 0)
        return 0;
    memcpy(&value, (const char *)&t->policy + topic_keys[key].offset, sizeof(value));
    memcpy(&most, (const char *)&t->policy + topic_keys[limit].offset, sizeof(most));
    if (value <= most)
        return 0;
    return fault((uint32_t)max_u64(t->lines[key], t->lines[limit]),
                 "%s of topic \"%s\" exceeds its %s; lower the one or raise the other",
                 topic_keys[key].name, t->filter, topic_keys[limit].name);
}

static int on_section(cfg_t *cfg, cfg_opt_t *opt) {
    const cfg_t *section = cfg_opt_getnsec(opt, cfg_opt_size(opt) - 1);
    const struct config_topic *t = topic_of(section, (uint32_t)cfg->line);
    if (t == NULL || check_default(t, DEPTH, MAX_DEPTH) < 0)
        return -1;
    return check_default(t, MESSAGE_SIZE, MAX_MESSAGE_SIZE);
}

/* ---- the text before libconfuse sees it */

/* libconfuse 3.3 counts lines wrongly after comments, takes a section that the end of the file
 * cuts off for whole, and skips characters that it does not know. So comments become blanks, and
 * the other two are refused here. */
struct scan {
    char *s;
    uint32_t line;
    uint32_t depth, opened; /* open braces; the line of the last */
};

/* A quoted string, escapes and all. Where it does not end, libconfuse says so. */
static void skip_string(struct scan *scan) {
    char quote = *scan->s++;
    for (; *scan->s != '\0' && *scan->s != quote; scan->s++) {
        if (*scan->s == '\\' && scan->s[1] != '\0')
            scan->s++;
        scan->line += *scan->s == '\n';
    }
    if (*scan->s != '\0')
        scan->s++;
}

static void blank(struct scan *scan) {
    if (*scan->s == '\n')
        scan->line++;
    else
        *scan->s = ' ';
    scan->s++;
}

static int blank_comment(struct scan *scan) {
    uint32_t begun = scan->line;
    if (scan->s[0] == '#' || scan->s[1] == '/') {
        while (*scan->s != '\0' && *scan->s != '\n')
            blank(scan);
        return 0;
    }
    for (int i = 0; i < 2; i++)
        blank(scan);
    while (*scan->s != '\0' && (scan->s[0] != '*' || scan->s[1] != '/'))
        blank(scan);
    if (*scan->s == '\0')
        return fault(begun, "this comment has no end; end it with */");
    for (int i = 0; i < 2; i++)
        blank(scan);
    return 0;
}

static int scan_character(struct scan *scan) {
    unsigned char c = (unsigned char)*scan->s++;
    if (c == '\n')
        scan->line++;
    if (c == '{') {
        scan->depth++;
        scan->opened = scan->line;
    }
    if (c == '}' && scan->depth > 0) /* one too many: libconfuse says so */
        scan->depth--;
    if (c == '*' || (c == '+' && *scan->s != '='))
        return fault(scan->line, "'%c' stands outside quotes; write topic \"a/+\" { ... }", c);
    if (c == 0x7f || (c < ' ' && c != '\n' && c != '\t' && c != '\r'))
        return fault(scan->line, "the control character 0x%02x; leave it out", c);
    return 0;
}

static int prepare(char *text, size_t bytes) {
    struct scan scan = { .s = text, .line = 1 };
    int r = 0;
    while (r == 0 && *scan.s != '\0') {
        if (*scan.s == '"' || *scan.s == '\'')
            skip_string(&scan);
        else if (*scan.s == '#' || (*scan.s == '/' && (scan.s[1] == '/' || scan.s[1] == '*')))
            r = blank_comment(&scan);
        else
            r = scan_character(&scan);
    }
    if (r == 0 && (size_t)(scan.s - text) < bytes)
        return fault(scan.line, "the control character 0x00; leave it out");
    if (r == 0 && scan.depth > 0)
        return fault(scan.opened, "the section that begins here has no end; end it with }");
    return r;
}

/* ---- the order of filters */

static int rank(const char *level, size_t length) {
    if (length == 1 && *level == '#')
        return 0;
    return length == 1 && *level == '+' ? 1 : 2;
}

/* < 0: `a` is less specific. A total order; between filters that match one topic the one of
 * config.h. */
static int compare_filters(const char *a, const char *b) {
    for (;;) {
        size_t m = strcspn(a, "/"), n = strcspn(b, "/");
        int r = rank(a, m) - rank(b, n);
        if (r == 0 && (r = memcmp(a, b, min_u64(m, n))) == 0)
            r = (m > n) - (m < n);
        if (r != 0)
            return r;
        a += m;
        b += n;
        if (*a == '\0' || *b == '\0') /* what ends is more specific than a "#" that follows */
            return (*a == '\0') - (*b == '\0');
        a++;
        b++;
    }
}

static int compare_topics(const void *a, const void *b) {
    const struct config_topic *x = a, *y = b;
    return compare_filters(x->filter, y->filter);
}

void config_policy(const struct config *c, const char *topic, struct topic_policy *ret) {
    *ret = default_policy;
    for (uint32_t i = 0; i < c->n_topics; i++) {
        const struct config_topic *t = &c->topics[i];
        if (!topic_filter_matches(t->filter, topic))
            continue;
        for (size_t k = 0; k < TOPIC_KEYS; k++) {
            size_t at = topic_keys[k].offset;
            if (t->lines[k] != 0)
                memcpy((char *)ret + at, (const char *)&t->policy + at, sizeof(uint64_t));
        }
    }
    ret->depth = min_u64(ret->depth, ret->max_depth);
    ret->message_bytes = min_u64(ret->message_bytes, ret->max_message_bytes);
}

/* ---- the whole */

static void add_keys(cfg_opt_t *options, const struct key *keys, size_t n) {
    for (size_t i = 0; i < n; i++) {
        cfg_opt_t option = CFG_INT_CB(keys[i].name, 0, CFGF_NODEFAULT, on_value);
        options[i] = option;
    }
}

static void parse(char *text) {
    cfg_opt_t topic[TOPIC_KEYS + 1] = { [TOPIC_KEYS] = CFG_END() };
    cfg_opt_t options[CONFIG_KEYS + 2] = {
        [CONFIG_KEYS] = CFG_SEC("topic", topic, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
        [CONFIG_KEYS + 1] = CFG_END(),
    };
    add_keys(topic, topic_keys, TOPIC_KEYS);
    add_keys(options, config_keys, CONFIG_KEYS);
    cfg_t *root = cfg_init(options, CFGF_NONE);
    FILE *file = root != NULL ? fmemopen(text, strlen(text), "r") : NULL;
    if (file == NULL || (root->filename = strdup(parsing.name)) == NULL) {
        parsing.result = error_raise(SHMPS_E_NO_MEMORY, "no memory for the configuration");
    } else {
        parsing.root = root;
        cfg_set_error_function(root, on_error);
        cfg_set_validate_func(root, "topic", on_section);
        if (cfg_parse_fp(root, file) != CFG_SUCCESS)
            fault((uint32_t)root->line, "this is not understood");
    }
    if (file != NULL)
        fclose(file);
    if (root != NULL)
        cfg_free(root);
}

static void check_memory(const struct config *c) {
    struct directory_geometry g;
    config_geometry(c, &g);
    if (c->max_memory < g.bytes)
        fault(parsing.lines[MAX_MEMORY], "max_memory is less than the directory alone takes (%"
              PRIu64 " bytes); raise it, or lower max_topics, max_rings and max_subscriptions",
              g.bytes);
}

int config_parse(const char *text, size_t bytes, const char *name, struct config **ret) {
    struct config *c = config_new();
    _cleanup_free_ char *copy = malloc(bytes + 1);
    memset(&parsing, 0, sizeof(parsing));
    parsing.name = name;
    parsing.config = c;
    if (c == NULL || copy == NULL) {
        parsing.result = error_raise(SHMPS_E_NO_MEMORY, "no memory for the configuration");
    } else {
        memcpy(copy, text, bytes);
        copy[bytes] = '\0';
        if (prepare(copy, bytes) == 0 && bytes > 0)
            parse(copy);
        if (parsing.result == 0)
            check_memory(c);
    }
    if (parsing.result < 0) {
        config_free(c);
        return parsing.result;
    }
    if (c->n_topics > 0)
        qsort(c->topics, c->n_topics, sizeof(*c->topics), compare_topics);
    *ret = c;
    return 0;
}
