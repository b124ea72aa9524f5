/* layout/topic_name.h - the rules for topic names and filters (written down in shmps/shmps.h) and
 * matching. Pure. */
#ifndef SHMPS_LAYOUT_TOPIC_NAME_H
#define SHMPS_LAYOUT_TOPIC_NAME_H

#include <stdbool.h>

#define TOPIC_NAME_BYTES 256 /* with the NUL */
#define TOPIC_LEVELS_MAX 32

/* 0, or SHMPS_E_TOPIC with the broken rule in the detail. NULL is allowed and refused. */
int topic_name_check(const char *topic);
int topic_filter_check(const char *filter);
/* Of a valid filter. */
bool topic_filter_is_exact(const char *filter);
/* Of a valid filter and a valid topic. */
bool topic_filter_matches(const char *filter, const char *topic);

#endif
