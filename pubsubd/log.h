/* log.h - what pubsubd says on stderr. Under journald each line begins with its level, `<N>`. */
#ifndef PUBSUBD_LOG_H
#define PUBSUBD_LOG_H

#include <stdbool.h>

/* As in syslog(3). */
enum log_level { LOG_ERROR = 3, LOG_WARNING = 4, LOG_NOTICE = 5, LOG_INFO = 6, LOG_DEBUG = 7 };

/* Lines above `max` are left out. */
void log_setup(enum log_level max);

/* One line, printf format, without the newline. Never fails: a reader of stderr that is gone
 * or slow costs lines, not the daemon. */
__attribute__((format(printf, 2, 3))) void log_line(enum log_level level, const char *format, ...);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_notice(...) log_line(LOG_NOTICE, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
