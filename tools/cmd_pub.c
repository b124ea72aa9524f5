/* shmps pub - publish an argument, lines, or all of stdin. A user of the public API. */
#include "interrupt.h"
#include "text.h"
#include "tool.h"

#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES 65536
/* The ring of `pub -s` is for one message, which may be huge: the fewest slots and blocks. */
#define DEPTH_OF_ONE 2
#define PINS_OF_ONE 1

struct pub {
    const struct arguments *args;
    struct shmps *bus;
    struct shmps_publisher *publisher;
    uint64_t start_ns;
    uint64_t messages, bytes;
    enum exit_code code; /* why it ends, if not EXIT_DONE */
};

static bool fail(struct pub *pub, int error, const char *what) {
    pub->code = late(pub->args, pub->start_ns, error, report_error(error, "cannot %s", what));
    return false;
}

/* What was waited for is not there after a slice of time. false: it is time to end. */
static bool may_go_on(struct pub *pub, const char *waiting_for) {
    if (interrupt_signal()) {
        pub->code = interrupt_code();
    } else if (interrupt_slice(pub->start_ns, pub->args->timeout_ns) == 0) {
        report("timeout: still waiting for %s", waiting_for);
        pub->code = EXIT_TIMED_OUT;
    } else {
        return true;
    }
    return false;
}

static const char a_reader[] = "a reliable subscriber to make room";

static bool publish(struct pub *pub, const void *data, size_t bytes) {
    for (;;) {
        int r = shmps_publish(pub->publisher, data, bytes, pub->args->tag,
                              interrupt_slice(pub->start_ns, pub->args->timeout_ns));
        if (r < 0)
            return fail(pub, r, "publish");
        if (r == 0)
            break;
        if (!may_go_on(pub, a_reader))
            return false;
    }
    pub->messages++;
    pub->bytes += bytes;
    return true;
}

static bool open_publisher(struct pub *pub, uint64_t message_bytes, uint32_t depth,
                           uint32_t pins) {
    struct shmps_publisher_options options = SHMPS_PUBLISHER_OPTIONS_INIT;
    options.message_bytes = message_bytes;
    options.depth = pub->args->depth ? (uint32_t)pub->args->depth : depth;
    options.pins = pins;
    options.history = pub->args->retain;
    int r = shmps_publisher_open(pub->bus, pub->args->words[0], &options, &pub->publisher);
    if (r < 0)
        return fail(pub, r, "open the publisher");
    uint32_t n = (uint32_t)pub->args->wait_subscribers;
    while (n > 0) {
        r = shmps_publisher_wait_subscribers(
            pub->publisher, n, interrupt_slice(pub->start_ns, pub->args->timeout_ns));
        if (r < 0)
            return fail(pub, r, "wait for subscribers");
        if (r == 0)
            break;
        if (!may_go_on(pub, "subscribers"))
            return false;
    }
    return true;
}

/* Read what there is of stdin, but not after an interrupt or the timeout. 0: end of file; -1: it
 * is time to end, and why was reported. */
static ssize_t read_input(struct pub *pub, char *buffer, size_t bytes) {
    while (may_go_on(pub, "the end of stdin")) {
        struct pollfd fds[2] = { { .fd = STDIN_FILENO, .events = POLLIN },
                                 { .fd = interrupt_fd(), .events = POLLIN } };
        int64_t slice = interrupt_slice(pub->start_ns, pub->args->timeout_ns);
        /* without a timeout there is nothing to look at before something comes */
        int wait_ms = pub->args->timeout_ns ? (int)(slice / 1000000) + 1 : -1;
        if (poll(fds, 2, wait_ms) <= 0 || interrupt_signal())
            continue;
        ssize_t n = read(STDIN_FILENO, buffer, bytes);
        if (n >= 0)
            return n;
        if (errno != EINTR && errno != EAGAIN) {
            report("cannot read stdin: %s", strerror(errno));
            pub->code = EXIT_ERROR;
            return -1;
        }
    }
    return -1;
}

/* ---- -l */

static bool publish_lines(struct pub *pub) {
    char *buffer = NULL;
    size_t room = 0, filled = 0;
    bool going = true;
    while (going) {
        if (room - filled < READ_BYTES) {
            room = room ? 2 * room : 2 * READ_BYTES;
            buffer = realloc(buffer, room);
            if (!buffer)
                out_of_memory();
        }
        ssize_t n = read_input(pub, buffer + filled, room - filled);
        if (n <= 0) {
            if (n == 0 && filled > 0) /* the last line has no newline */
                publish(pub, buffer, filled);
            break;
        }
        size_t searched = filled, begin = 0;
        filled += (size_t)n;
        for (char *end; going && (end = memchr(buffer + searched, '\n', filled - searched));) {
            size_t at = (size_t)(end - buffer);
            going = publish(pub, buffer + begin, at - begin);
            begin = searched = at + 1;
        }
        memmove(buffer, buffer + begin, filled - begin);
        filled -= begin;
    }
    free(buffer);
    return pub->code == EXIT_DONE;
}

/* ---- -s */

static bool loan(struct pub *pub, size_t bytes, char **ret) {
    for (;;) {
        void *data;
        int r = shmps_loan(pub->publisher, bytes,
                           interrupt_slice(pub->start_ns, pub->args->timeout_ns), &data);
        if (r < 0)
            return fail(pub, r, "get room for the message");
        if (r == 0) {
            *ret = data;
            return true;
        }
        if (!may_go_on(pub, a_reader))
            return false;
    }
}

/* A file: read straight into the ring. It is published as far as it went when it was opened, or
 * less if it ends before. */
static bool publish_file(struct pub *pub, size_t bytes) {
    char *data = NULL;
    if (!open_publisher(pub, bytes, DEPTH_OF_ONE, PINS_OF_ONE) || !loan(pub, bytes, &data))
        return false;
    size_t filled = 0;
    while (filled < bytes) {
        ssize_t n = read_input(pub, data + filled, bytes - filled);
        if (n < 0)
            return false;
        if (n == 0)
            break;
        filled += (size_t)n;
    }
    int r = shmps_publish_loan(pub->publisher, filled, pub->args->tag);
    if (r < 0)
        return fail(pub, r, "publish");
    pub->messages++;
    pub->bytes += filled;
    return true;
}

/* A pipe, or a file that does not know its size (/proc): the size is known at the end. */
static bool publish_stream(struct pub *pub) {
    char *buffer = NULL;
    size_t room = 0, filled = 0;
    ssize_t n;
    do {
        if (room - filled < READ_BYTES) {
            room = room ? 2 * room : 2 * READ_BYTES;
            buffer = realloc(buffer, room);
            if (!buffer)
                out_of_memory();
        }
        n = read_input(pub, buffer + filled, room - filled);
        filled += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    bool done = n == 0 &&
                open_publisher(pub, filled ? filled : 1, DEPTH_OF_ONE, PINS_OF_ONE) &&
                publish(pub, buffer, filled);
    free(buffer);
    return done;
}

static bool publish_whole(struct pub *pub) {
    struct stat status;
    off_t at;
    if (fstat(STDIN_FILENO, &status) == 0 && S_ISREG(status.st_mode) &&
        (at = lseek(STDIN_FILENO, 0, SEEK_CUR)) >= 0 && at < status.st_size)
        return publish_file(pub, (size_t)(status.st_size - at));
    return publish_stream(pub);
}

/* ---- the whole */

static void print_report(const struct pub *pub) {
    struct shmps_publisher_stats stats = { .size = sizeof(stats) };
    if (pub->publisher && shmps_publisher_stats(pub->publisher, &stats) < 0)
        return;
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "topic", json_text(pub->args->words[0]));
    json_object_object_add(o, "publisher", json_object_new_uint64(stats.id));
    json_object_object_add(o, "messages", json_object_new_uint64(pub->messages));
    json_object_object_add(o, "bytes", json_object_new_uint64(pub->bytes));
    json_object_object_add(o, "stalls", json_object_new_uint64(stats.stalls));
    json_object_object_add(o, "wakes", json_object_new_uint64(stats.wakes));
    json_object_object_add(o, "subscribers", json_object_new_uint64(stats.subscribers));
    json_print(o);
}

enum exit_code cmd_pub(const struct arguments *args) {
    int sources = (args->n_words == 2) + args->lines + args->whole;
    if (sources != 1)
        return usage_error("pub", "one of BODY, -l and -s is needed");
    struct pub pub = { .args = args, .start_ns = clock_ns() };
    int r = shmps_topic_check(args->words[0]);
    if (r < 0)
        return report_error(r, "'%s' is no topic", args->words[0]);
    pub.code = connect_within(args, pub.start_ns, &pub.bus);
    if (pub.code != EXIT_DONE)
        return pub.code;
    interrupt_catch();
    if (args->whole) {
        publish_whole(&pub);
    } else if (args->lines) {
        if (open_publisher(&pub, 0, 0, 0))
            publish_lines(&pub);
    } else {
        const char *body = args->words[1];
        size_t bytes = strlen(body);
        if (open_publisher(&pub, bytes ? bytes : 1, 0, 0))
            publish(&pub, body, bytes);
    }
    if (interrupt_signal() && pub.code == interrupt_code())
        report("interrupted: %llu messages of %llu bytes published",
               (unsigned long long)pub.messages, (unsigned long long)pub.bytes);
    if (args->json)
        print_report(&pub);
    shmps_publisher_close(pub.publisher);
    shmps_close(pub.bus);
    return pub.code;
}
