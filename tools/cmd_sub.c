/* shmps sub - print what is published. A user of the public API. */
#include "interrupt.h"
#include "text.h"
#include "tool.h"

#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TURN 64 /* samples taken of one filter before the others have their turn */

struct sub {
    const struct arguments *args;
    struct shmps *bus;
    struct shmps_subscriber **subscribers; /* one per filter */
    struct pollfd *fds;                    /* theirs, the interrupt's, stdout's */
    size_t n;
    bool with_topic;
    bool reader_gone; /* of stdout */
    uint64_t start_ns;
    uint64_t messages, bytes, lost;
    enum exit_code code;
};

/* ---- printing */

static void print_json(const struct shmps_sample *sample, bool lost_only) {
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "topic", json_text(sample->topic));
    json_object_object_add(o, "publisher", json_object_new_uint64(sample->publisher));
    if (!lost_only) {
        json_object_object_add(o, "seq", json_object_new_uint64(sample->seq));
        json_object_object_add(o, "time_ns", json_object_new_uint64(sample->time_ns));
        json_object_object_add(o, "tag", json_object_new_uint64(sample->tag));
    }
    json_object_object_add(o, "lost", json_object_new_uint64(sample->lost));
    if (!lost_only) {
        bool history = sample->flags & SHMPS_SAMPLE_HISTORY;
        json_object_object_add(o, "history", json_object_new_boolean(history));
        json_object_object_add(o, "bytes", json_object_new_uint64(sample->bytes));
        json_add_bytes(o, "payload", sample->data, sample->bytes);
    }
    json_print(o);
}

static void print_plain(const struct sub *sub, const struct shmps_sample *sample) {
    if (sub->with_topic) {
        print_payload(stdout, sample->topic, strlen(sample->topic));
        putchar(' ');
    }
    if (sub->args->raw)
        fwrite(sample->data, 1, sample->bytes, stdout);
    else
        print_payload(stdout, sample->data, sample->bytes);
    putchar('\n');
}

static void note_loss(struct sub *sub, const struct shmps_sample *sample) {
    if (sample->lost == 0)
        return;
    sub->lost += sample->lost;
    report("%s: %llu messages of publisher %llu were lost", sample->topic,
           (unsigned long long)sample->lost, (unsigned long long)sample->publisher);
}

/* Flush what was printed since errno was set to 0. false: it is time to end. */
static bool flush(struct sub *sub) {
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    sub->reader_gone = errno == EPIPE;
    if (!sub->reader_gone) {
        report("cannot write to stdout: %s", strerror(errno));
        sub->code = EXIT_ERROR;
    }
    clearerr(stdout); /* it is dealt with */
    return false;
}

/* ---- taking */

static bool is_over(const struct sub *sub) {
    return (sub->args->count > 0 && sub->messages >= sub->args->count) || interrupt_signal() ||
           sub->reader_gone;
}

/* Take and print the next sample. 0; EMPTY; < 0: it is time to end. */
static int take_one(struct sub *sub, struct shmps_subscriber *subscriber) {
    struct shmps_sample sample;
    int r = shmps_take(subscriber, &sample, 0);
    if (r == SHMPS_E_CORRUPT) { /* of one publisher: the others go on */
        sub->code = report_error(r, "a publisher is left out");
        return 0;
    }
    if (r < 0) {
        sub->code = report_error(r, "cannot receive");
        return r;
    }
    if (r == SHMPS_EMPTY)
        return r;
    bool lost_only = r == SHMPS_LOST;
    note_loss(sub, &sample);
    errno = 0;
    if (sub->args->json)
        print_json(&sample, lost_only);
    else if (!lost_only)
        print_plain(sub, &sample);
    bool flushed = flush(sub);
    if (!lost_only) {
        sub->messages++;
        sub->bytes += sample.bytes;
        shmps_release(subscriber, &sample);
    }
    return flushed ? 0 : SHMPS_E_STATE;
}

/* Take until there is nothing more. 0, or < 0: it is time to end. */
static int take_all(struct sub *sub) {
    for (bool more = true; more && !is_over(sub);) {
        more = false;
        for (size_t i = 0; i < sub->n; i++) {
            int r = 0;
            for (int k = 0; k < TURN && r == 0 && !is_over(sub); k++)
                r = take_one(sub, sub->subscribers[i]);
            if (r < 0)
                return r;
            more = more || r == 0;
        }
    }
    return 0;
}

/* Wait for the next sample, a signal, the timeout, or the end of who reads stdout. */
static void wait_for_more(struct sub *sub) {
    int64_t limit = sub->args->timeout_ns;
    int wait_ms = -1;
    if (limit > 0) {
        int64_t left = limit - (int64_t)(clock_ns() - sub->start_ns);
        if (left <= 0) {
            sub->code = EXIT_TIMED_OUT;
            return;
        }
        wait_ms = left / 1000000 < 1000000 ? (int)(left / 1000000) + 1 : 1000000;
    }
    if (poll(sub->fds, sub->n + 2, wait_ms) > 0)
        sub->reader_gone = sub->fds[sub->n + 1].revents & (POLLERR | POLLHUP | POLLNVAL);
}

static void receive(struct sub *sub) {
    while (!is_over(sub) && sub->code != EXIT_TIMED_OUT) {
        if (take_all(sub) < 0)
            return;
        if (!is_over(sub))
            wait_for_more(sub);
    }
}

/* ---- opening */

static int delivery_of(const struct arguments *args) {
    return args->reliable  ? SHMPS_RELIABLE
           : args->latest  ? SHMPS_LATEST
           : args->observe ? SHMPS_OBSERVE
                           : SHMPS_LOSSY;
}

static bool open_filters(struct sub *sub) {
    const struct arguments *args = sub->args;
    struct shmps_subscriber_options options = SHMPS_SUBSCRIBER_OPTIONS_INIT;
    options.delivery = delivery_of(args);
    options.history = (uint32_t)args->history;
    options.pins = 1; /* it holds one message at a time; each pin may cost its publisher a block */
    for (; sub->n < (size_t)args->n_words; sub->n++) {
        const char *filter = args->words[sub->n];
        struct shmps_subscriber *subscriber;
        int r = shmps_subscriber_open(sub->bus, filter, &options, &subscriber);
        if (r == 0) {
            sub->subscribers[sub->n] = subscriber;
            r = shmps_subscriber_fd(subscriber);
        }
        if (r < 0) {
            sub->code = late(args, sub->start_ns, r,
                             report_error(r, "cannot subscribe to '%s'", filter));
            return false;
        }
        sub->fds[sub->n] = (struct pollfd){ .fd = r, .events = POLLIN };
    }
    sub->fds[sub->n] = (struct pollfd){ .fd = interrupt_fd(), .events = POLLIN };
    sub->fds[sub->n + 1] = (struct pollfd){ .fd = STDOUT_FILENO }; /* POLLERR comes unasked */
    return true;
}

static enum exit_code check_filters(const struct arguments *args) {
    if (args->reliable + args->latest + args->observe > 1)
        return usage_error("sub", "only one of --reliable, --latest and --observe can be");
    if (args->json && (args->raw || args->verbose))
        return usage_error("sub", "--json goes with neither --raw nor -v");
    for (int i = 0; i < args->n_words; i++) {
        int r = shmps_filter_check(args->words[i]);
        if (r < 0)
            return report_error(r, "'%s' is no filter", args->words[i]);
    }
    return EXIT_DONE;
}

static void report_end(const struct sub *sub) {
    if (sub->reader_gone && sub->lost == 0)
        return;
    if (interrupt_signal() || sub->lost > 0)
        report("%s%llu messages of %llu bytes received, %llu lost",
               interrupt_signal() ? "interrupted: " : "", (unsigned long long)sub->messages,
               (unsigned long long)sub->bytes, (unsigned long long)sub->lost);
}

enum exit_code cmd_sub(const struct arguments *args) {
    enum exit_code code = check_filters(args);
    if (code != EXIT_DONE)
        return code;
    size_t n = (size_t)args->n_words;
    struct sub sub = { .args = args, .start_ns = clock_ns() };
    sub.subscribers = calloc(n, sizeof(*sub.subscribers));
    sub.fds = calloc(n + 2, sizeof(*sub.fds));
    if (!sub.subscribers || !sub.fds)
        out_of_memory();
    sub.with_topic = args->verbose || (!args->raw && (n > 1 || strpbrk(args->words[0], "+#")));
    sub.code = connect_within(args, sub.start_ns, &sub.bus);
    if (sub.code == EXIT_DONE) {
        interrupt_catch();
        signal(SIGPIPE, SIG_IGN); /* who ends reading ends us, and is told so by EPIPE */
        if (open_filters(&sub)) {
            fputs("subscribed\n", stderr);
            receive(&sub);
            report_end(&sub);
        }
        if (interrupt_signal())
            sub.code = interrupt_code();
    }
    for (size_t i = 0; i < n; i++)
        shmps_subscriber_close(sub.subscribers[i]);
    shmps_close(sub.bus);
    free(sub.subscribers);
    free(sub.fds);
    return sub.code;
}
