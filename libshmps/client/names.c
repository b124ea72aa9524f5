#include "client/client.h"

int shmps_topic_check(const char *topic) {
    return topic_name_check(topic);
}

int shmps_filter_check(const char *filter) {
    return topic_filter_check(filter);
}

int shmps_filter_matches(const char *filter, const char *topic) {
    return topic_filter_matches(filter, topic);
}

const char *shmps_version(void) {
    return SHMPS_VERSION;
}
