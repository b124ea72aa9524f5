/* settings.h - the configuration's file: where it is, read at the start and again on SIGHUP.
 *
 * --config FILE, else $XDG_CONFIG_HOME/shmps/pubsubd.conf (~/.config/... without that variable),
 * of the system's instance /etc/shmps/pubsubd.conf. Only the first must exist. */
#ifndef PUBSUBD_SETTINGS_H
#define PUBSUBD_SETTINGS_H

#include "bus.h"

#include <limits.h>

struct settings {
    char path[PATH_MAX];  /* absolute; "": there is no place for one */
    bool must_exist;
    bool verbose;         /* log everything, whatever the file says */
    bool instance_chosen; /* by an option or the environment: the file's does not count */
};

/* Fill in where it is. `file`: of --config, or NULL. INVALID: too long a path. */
int settings_find(struct settings *settings, const char *file, bool system);
/* Read and check it; all defaults if it is missing and may be. *ret_found: it was there.
 * INVALID, NO_MEMORY, PERMISSION, SYSTEM. */
int settings_load(const struct settings *settings, struct config **ret, bool *ret_found);
/* What is logged from now on. */
void settings_log(const struct settings *settings, const struct config *config);
/* Log what the configuration asks for and this bus, as it is, cannot have. */
void settings_tell_fixed(const struct settings *settings, const struct bus *bus,
                         const struct config *config);
/* Read it again: what is opened from now on obeys it. If it is broken the old one stays. */
void settings_reload(const struct settings *settings, struct bus *bus);

#endif
