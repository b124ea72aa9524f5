/* Wait in an epoll, among whatever else it watches: take until EMPTY, then wait. */
#include <shmps/shmps.h>
#include <stdio.h>
#include <sys/epoll.h>
int main(void) {
    struct shmps *bus; struct shmps_subscriber *sub; struct shmps_sample sample = {0};
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = epoll_create1(0);
    if (shmps_connect(&bus, NULL) || shmps_subscriber_open(bus, "hello", NULL, &sub) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, shmps_subscriber_fd(sub), &event))
        return fprintf(stderr, "%s\n", shmps_error_detail()), 1;
    while (shmps_take(sub, &sample, 0) == SHMPS_EMPTY) epoll_wait(epoll, &event, 1, -1);
    printf("%.*s\n", (int)sample.bytes, (const char *)sample.data);
    shmps_close(bus);
}
