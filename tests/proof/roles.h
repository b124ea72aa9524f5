/* proof/roles.h - who takes part in a scenario: each a process of its own, with a handle of the
 * real client, and what it checks while it goes on. */
#ifndef SHMPS_TESTS_PROOF_ROLES_H
#define SHMPS_TESTS_PROOF_ROLES_H

#include "world.h"

#define ROLES_MAX 6u
#define HELD_MAX 4u

enum doing { PUBLISHES, SUBSCRIBES, LOOKS, REAPS };

struct role {
    /* as the scenario says */
    const char *name;
    enum doing doing;
    bool mortal;         /* may be killed at any step */
    bool late;           /* opens its handle in the run; else it has been there before */
    bool leaves;         /* closes its handle when it is done */
    bool unregistered;   /* for membarrier: fences of its own, a ring in fence mode */
    bool spins;          /* before it sleeps */
    /* PUBLISHES */
    uint32_t depth, pins, samples; /* before: published already, in the scene; then: in the run */
    uint32_t before;
    uint32_t bytes;      /* of a message; above 32 in a block */
    uint32_t largest;    /* message_bytes; 0: as `bytes` */
    uint32_t grows_at;   /* larger messages from this sample on; 0: never */
    bool loans;
    uint32_t loan_bytes; /* as much at least */
    uint32_t batch;      /* more than 1: published so many at a time */
    int64_t patience_ns; /* gives up a sample after that; 0: waits for ever */
    /* SUBSCRIBES */
    enum policy policy;
    uint32_t hold;       /* samples it holds at a time */
    uint32_t grant;      /* pins */
    uint32_t history;
    bool reads;          /* copies instead of taking */
    bool polls;          /* has a descriptor, and takes until there is nothing */
    uint32_t stops_after; /* takes no more than so many; 0: all */

    /* what becomes of it */
    uint32_t fiber;
    int32_t pid;
    struct shmps *bus;
    struct shmps_publisher *pub;
    struct shmps_subscriber *sub;
    uint64_t next, received, lost, first, time_ns;
    bool began, evicted, satisfied;
    struct shmps_sample held[HELD_MAX];
    uint32_t n_held;
};

extern struct role *roles; /* of the scenario, in the scene's heap */
extern uint32_t n_roles;

/* In set(): somebody takes part. What has to be there before opens its handle now. */
void role_add(struct role role);
/* Of a run: a fiber for each role; whether one oversleeps; what must be true in the end. */
void roles_begin(void);
const char *role_overslept(uint32_t fiber);
void roles_judge(void);

#endif
