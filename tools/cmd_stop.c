/* shmps stop - end the instance's pubsubd. A user of the public API. */
#include "tool.h"

enum exit_code cmd_stop(const struct arguments *args) {
    struct shmps_connect_options options = SHMPS_CONNECT_OPTIONS_INIT;
    options.instance = args->instance;
    options.admin = 1; /* its layout may be another build's; and none is started to end it */
    struct shmps *bus = NULL;
    int r = shmps_connect(&bus, &options);
    if (r == 0)
        r = shmps_stop_daemon(bus);
    enum exit_code code = EXIT_DONE;
    if (r < 0)
        code = report_error(r, "cannot stop pubsubd");
    else
        report("pubsubd of instance '%s' has ended", shmps_instance(bus));
    shmps_close(bus);
    return code;
}
