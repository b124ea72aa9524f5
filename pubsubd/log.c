#include "log.h"

#include "base/scope.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define LINE_BYTES 1024

static enum log_level max_level = LOG_INFO;
static bool journal;

/* systemd.exec(5): $JOURNAL_STREAM is DEVICE:INODE of the stream; ours may have been redirected
 * since. */
static bool stderr_is_journal(void) {
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat s;
    return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &s) == 0 && s.st_dev == device && s.st_ino == inode;
}

void log_setup(enum log_level max) {
    max_level = max;
    journal = stderr_is_journal();
}

/* A pipe that nobody reads from must not stop the daemon. */
static bool stderr_has_room(void) {
    struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
    return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) != 0;
}

void log_line(enum log_level level, const char *format, ...) {
    static const char *const names[] = {
        [LOG_ERROR] = "error: ", [LOG_WARNING] = "warning: ", [LOG_NOTICE] = "",
        [LOG_INFO] = "",         [LOG_DEBUG] = "debug: ",
    };
    char line[LINE_BYTES];
    if (level > max_level)
        return;
    int n = journal ? snprintf(line, sizeof(line), "<%d>", (int)level)
                    : snprintf(line, sizeof(line), "pubsubd: %s", names[level]);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, arguments);
    va_end(arguments);
    size_t bytes = strlen(line);
    for (size_t i = 0; i < bytes; i++) /* a line stays one, whatever a client calls its topic */
        if ((unsigned char)line[i] < ' ')
            line[i] = ' ';
    line[bytes++] = '\n';
    if (stderr_has_room() && write(STDERR_FILENO, line, bytes) < 0)
        max_level = 0; /* nobody listens any more */
}
