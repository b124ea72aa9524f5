/* quoter - a program with a leak: it opens a publisher for each quote and closes none. When it is
 * refused one it says why, and stays. */
#include <shmps/shmps.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
    struct shmps *bus;
    struct shmps_publisher *pub;
    char topic[32];
    int r = shmps_connect(&bus, NULL);
    for (int i = 0; r == 0; i++) {
        snprintf(topic, sizeof(topic), "quote/%d", i);
        r = shmps_publisher_open(bus, topic, NULL, &pub);
        if (r == 0)
            r = shmps_publish(pub, topic, sizeof(topic), 0, 0);
    }
    printf("%s: %s\n", shmps_error_name(r), shmps_error_detail());
    fflush(stdout);
    pause();
}
