/* proof/world.h - the machine around the real sources of ring and client: segments in private
 * memory, futexes and barriers of the checker, a session that never breaks, and pubsubd's part as
 * far as it touches rings, readers and roster, in pubsubd's order.
 *
 * Steps are: accesses to rings and readers segments but for identity, geometry and counters; to
 * the generations and the cells of the roster; and, where they change in a run, to the records of
 * the directory. */
#ifndef SHMPS_TESTS_PROOF_WORLD_H
#define SHMPS_TESTS_PROOF_WORLD_H

#include "client/client.h"

#define TOPIC "t"

/* A new scene: an empty directory with one topic. */
void world_open(uint32_t patience_ms);
/* Accesses to the records of the directory are steps too: where they change in a run. Texts, which
 * do not, are none. */
void world_share_records(void);
/* From now on pubsubd closes nothing. */
void world_silence(void);
/* A connection; of a process that is registered for membarrier, or not: until the next one is
 * made, all is done by this process. `pid`: as pubsubd knows it. */
struct shmps *world_connect(int32_t pid, bool registered);
/* Is it set up? Then each run begins here. */
void world_save(void);
void world_restore(void);

/* pubsubd learns that a process has ended. */
void world_reap(int32_t pid);

/* Where all segments lie. */
char *world_arena(size_t *ret_bytes);

/* The ring number i, in order of birth, for who looks when nobody runs. */
const struct ring_header *world_ring(uint32_t i, size_t *ret_bytes);
uint32_t world_rings(void);

/* Provided by the roles: has the process ended? */
bool pid_has_ended(int32_t pid);

#endif
