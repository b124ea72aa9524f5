/* What the client calls and a run never needs: the session is up and stays so, there are no
 * callbacks, nothing is kept. */
#include "world.h"

#include "checker.h"

#include <stdio.h>

void session_follow(struct shmps *bus) {
    (void)bus;
}
void session_drained(struct shmps *bus, uint64_t ring) {
    (void)bus;
    (void)ring; /* a hint: the ring stays listed */
}

int error_rebuilt(const struct shmps *bus) {
    (void)bus;
    violated("the bus was made anew");
}
int error_forked(void) {
    violated("somebody has forked");
}
struct told error_tell(void) {
    struct told t;
    snprintf(t.detail, sizeof t.detail, "%s", shmps_error_detail());
    return t;
}
int error_again(int code, const struct told *told) {
    return error_raise(code, "%s", told->detail);
}

bool dispatch_let_go(struct shmps_subscriber *sub) {
    (void)sub;
    return true;
}
bool dispatch_has(struct shmps_subscriber *sub) {
    (void)sub;
    return false;
}

int kept_make(struct shmps_subscriber *sub, struct shmps_kept **ret) {
    (void)sub;
    (void)ret;
    violated("somebody keeps samples");
}
void kept_finish(struct shmps_kept *kept, struct hold **chunks, uint32_t n_holds) {
    (void)kept;
    (void)chunks;
    (void)n_holds;
}
void kept_unmap(struct shmps_kept *kept) {
    (void)kept;
}
void kept_drop(struct shmps_kept *kept) {
    (void)kept;
}
