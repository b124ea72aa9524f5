/* proof/scenarios.h - who meets whom. */
#ifndef SHMPS_TESTS_PROOF_SCENARIOS_H
#define SHMPS_TESTS_PROOF_SCENARIOS_H

#include <stdbool.h>
#include <stdint.h>

struct scenario {
    const char *name, *what;
    void (*set)(void);
    bool time_passes; /* sleeps may end by time-out when nobody can go on */
    bool small;       /* all of its schedules are tried, within bounds */
};
extern const struct scenario scenarios[];
extern const uint32_t n_scenarios;

#endif
