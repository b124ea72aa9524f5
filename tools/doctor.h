/* doctor.h - what the parts of shmps doctor share: a finding is told as soon as it is made. */
#ifndef SHMPS_TOOL_DOCTOR_H
#define SHMPS_TOOL_DOCTOR_H

#include <stdbool.h>

enum verdict { VERDICT_OK, VERDICT_WARN, VERDICT_FAIL };

struct doctor {
    bool json;
    bool failed; /* there was a FAIL */
};

/* Why it matters, and the command (or what else) that mends it; NULL with OK. */
struct remedy {
    const char *why, *mend;
};

/* Tell a finding: a line, or an object with --json. `check` never changes: scripts look for it.
 * What others wrote may be in any of it. */
__attribute__((format(printf, 5, 6))) void finding(struct doctor *doctor, enum verdict verdict,
                                                   const char *check, struct remedy remedy,
                                                   const char *format, ...);
#define finding_ok(doctor, check, ...) \
    finding((doctor), VERDICT_OK, (check), (struct remedy){ NULL, NULL }, __VA_ARGS__)

/* /dev/shm, limits, numbers of the kernel, RemoveIPC. */
void doctor_system(struct doctor *doctor);

/* What this kernel can, by trying it; and what is done without it. */
void doctor_kernel(struct doctor *doctor);

/* One instance: its daemon, its directory, its topics, its last errors; and what is left over, of
 * all instances of this user. `instance`: as given, or NULL. */
void doctor_bus(struct doctor *doctor, const char *instance);

#endif
