/* Receive a message: taken where it lies, and given back. */
#include <shmps/shmps.h>
#include <stdio.h>

int main(void) {
    struct shmps *bus;
    struct shmps_subscriber *sub;
    struct shmps_sample sample;
    if (shmps_connect(&bus, NULL) || shmps_subscriber_open(bus, "hello", NULL, &sub) ||
        shmps_take(sub, &sample, SHMPS_FOREVER))
        return fprintf(stderr, "%s\n", shmps_error_detail()), 1;
    printf("%.*s\n", (int)sample.bytes, (const char *)sample.data);
    shmps_release(sub, &sample);
    shmps_close(bus);
}
