/* Publish 1 MiB frames without copying them: written in shared memory itself. */
#include <shmps/shmps.h>
#include <stdio.h>
int main(void) {
    struct shmps *bus; struct shmps_publisher *pub;
    void *frame;
    if (shmps_connect(&bus, NULL) || shmps_publisher_open(bus, "frames", NULL, &pub) ||
        shmps_publisher_wait_subscribers(pub, 1, SHMPS_FOREVER))
        return fprintf(stderr, "%s\n", shmps_error_detail()), 1;
    for (int i = 0; i < 100 && shmps_loan(pub, 1 << 20, SHMPS_FOREVER, &frame) == 0; i++) {
        snprintf(frame, 1 << 20, "frame %d", i);
        shmps_publish_loan(pub, 1 << 20, 0);
    }
    shmps_close(bus);
}
