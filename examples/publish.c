/* Publish a message: copied into shared memory, from where every subscriber reads it. */
#include <shmps/shmps.h>
#include <stdio.h>

int main(void) {
    struct shmps *bus;
    struct shmps_publisher *pub;
    if (shmps_connect(&bus, NULL) || shmps_publisher_open(bus, "hello", NULL, &pub) ||
        shmps_publisher_wait_subscribers(pub, 1, SHMPS_FOREVER) ||
        shmps_publish(pub, "hello, world", 12, 0, SHMPS_FOREVER))
        return fprintf(stderr, "%s\n", shmps_error_detail()), 1;
    shmps_close(bus);
}
