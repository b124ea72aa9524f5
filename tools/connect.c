/* connect.c - a connection for pub and sub, within the time that they have. */
#include "interrupt.h"
#include "tool.h"

#define PATIENCE_NS INT64_C(5000000000) /* shmps_connect()'s own */

enum exit_code connect_within(const struct arguments *args, uint64_t start_ns,
                              struct shmps **ret) {
    struct shmps_connect_options options = SHMPS_CONNECT_OPTIONS_INIT;
    options.instance = args->instance;
    options.observe = args->observe;
    if (args->timeout_ns > 0 && args->timeout_ns < PATIENCE_NS)
        options.timeout_ns = args->timeout_ns;
    int r = shmps_connect(ret, &options);
    return r < 0 ? late(args, start_ns, r, report_error(r, "cannot connect")) : EXIT_DONE;
}

enum exit_code late(const struct arguments *args, uint64_t start_ns, int error,
                    enum exit_code code) {
    bool over = args->timeout_ns > 0 && clock_ns() - start_ns >= (uint64_t)args->timeout_ns;
    return over && error == SHMPS_E_NO_DAEMON ? EXIT_TIMED_OUT : code;
}
