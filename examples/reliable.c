/* Receive every frame: the publisher waits for a reliable subscriber rather than pass it. */
#include <shmps/shmps.h>
#include <stdio.h>
int main(void) {
    struct shmps_subscriber_options want = {.size = sizeof(want), .delivery = SHMPS_RELIABLE};
    struct shmps *bus; struct shmps_subscriber *sub;
    struct shmps_sample sample;
    if (shmps_connect(&bus, NULL) || shmps_subscriber_open(bus, "frames", &want, &sub))
        return fprintf(stderr, "%s\n", shmps_error_detail()), 1;
    for (int i = 0; i < 100 && shmps_take(sub, &sample, SHMPS_FOREVER) == 0; i++) {
        printf("%s\n", (const char *)sample.data);
        shmps_release(sub, &sample);
    }
    shmps_close(bus);
}
