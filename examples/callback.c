/* Have a function called for what arrives on any topic that a filter matches. */
#include <shmps/shmps.h>
#include <stdio.h>

static void print(struct shmps_subscriber *sub, const struct shmps_sample *sample, void *user) {
    printf("%.*s\n", (int)sample->bytes, (const char *)sample->data), (void)sub, (void)user;
}
int main(void) {
    struct shmps *bus;
    struct shmps_subscriber *sub;
    if (shmps_connect(&bus, NULL) || shmps_subscriber_open(bus, "hello/#", NULL, &sub) ||
        shmps_subscriber_on_sample(sub, print, NULL) || shmps_dispatch(bus, SHMPS_FOREVER))
        return fprintf(stderr, "%s\n", shmps_error_detail()), 1;
    shmps_close(bus);
}
