#include "settings.h"

#include "base/error.h"
#include "log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- where it is */

static int join(char ret[PATH_MAX], const char *directory, const char *name) {
    int n = snprintf(ret, PATH_MAX, "%s/%s", directory, name);
    if (n >= 0 && n < PATH_MAX)
        return 0;
    return error_raise(SHMPS_E_INVALID, "the path of the configuration is longer than %d bytes: "
                       "%.100s...", PATH_MAX - 1, ret);
}

int settings_find(struct settings *s, const char *file, bool system) {
    char here[PATH_MAX];
    s->must_exist = file != NULL;
    s->path[0] = '\0';
    if (file != NULL && file[0] != '/') { /* where we are now, wherever we go */
        if (getcwd(here, sizeof(here)) == NULL)
            return error_system(errno, "cannot tell where %s is", file);
        return join(s->path, here, file);
    }
    if (file != NULL)
        return join(s->path, "", file + 1);
    if (system)
        return join(s->path, "/etc", "shmps/pubsubd.conf");
    const char *config = secure_getenv("XDG_CONFIG_HOME"), *home = secure_getenv("HOME");
    if (config != NULL && config[0] == '/')
        return join(s->path, config, "shmps/pubsubd.conf");
    if (home != NULL && home[0] == '/')
        return join(s->path, home, ".config/shmps/pubsubd.conf");
    return 0;
}

/* ---- read */

static int open_file(const struct settings *s, int *ret) {
    struct stat stat;
    _cleanup_close_ int fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR) && !s->must_exist)
        return 1;
    if (fd < 0 || fstat(fd, &stat) < 0)
        return error_system(errno, "cannot read the configuration %s", s->path);
    if (!S_ISREG(stat.st_mode) && !S_ISCHR(stat.st_mode)) /* /dev/null is fine */
        return error_raise(SHMPS_E_INVALID, "the configuration %s is not a file", s->path);
    *ret = steal_fd(&fd);
    return 0;
}

int settings_load(const struct settings *s, struct config **ret, bool *ret_found) {
    _cleanup_close_ int fd = -1;
    int r = s->path[0] != '\0' ? open_file(s, &fd) : 1;
    *ret_found = r == 0;
    if (r < 0)
        return r;
    if (r > 0) {
        *ret = config_new();
        return *ret != NULL ? 0 : error_raise(SHMPS_E_NO_MEMORY, "no memory for the defaults");
    }
    _cleanup_free_ char *text = malloc(CONFIG_BYTES_MAX + 1);
    if (text == NULL)
        return error_raise(SHMPS_E_NO_MEMORY, "no memory for the configuration %s", s->path);
    size_t bytes = 0;
    for (ssize_t n = 1; n > 0 && bytes <= CONFIG_BYTES_MAX; bytes += (size_t)n) {
        n = read(fd, text + bytes, CONFIG_BYTES_MAX + 1 - bytes);
        if (n < 0)
            return error_system(errno, "cannot read the configuration %s", s->path);
    }
    if (bytes > CONFIG_BYTES_MAX)
        return error_raise(SHMPS_E_INVALID, "the configuration %s has more than %u bytes", s->path,
                           CONFIG_BYTES_MAX);
    return config_parse(text, bytes, s->path, ret);
}

/* ---- use */

void settings_log(const struct settings *s, const struct config *c) {
    log_setup(s->verbose ? LOG_DEBUG : (enum log_level)c->log_level);
}

static void tell_fixed(const char *key, uint64_t wanted, uint32_t now) {
    if (wanted != now)
        log_notice("%s = %" PRIu64 " takes effect at the next start after an end (shmps stop); "
                   "now it is %u", key, wanted, now);
}

void settings_tell_fixed(const struct settings *s, const struct bus *bus,
                         const struct config *c) {
    const struct directory_geometry *g = &bus->directory.geometry;
    const char *instance = c->instance[0] != '\0' ? c->instance : "default";
    if (!s->instance_chosen && strcmp(instance, bus->instance) != 0)
        log_notice("instance = %s takes effect at the next start; now it is \"%s\"", instance,
                   bus->instance);
    tell_fixed("max_topics", c->max_topics, g->topics);
    tell_fixed("max_rings", c->max_rings, g->rings);
    tell_fixed("max_subscriptions", c->max_subscriptions, g->subscriptions);
}

void settings_reload(const struct settings *s, struct bus *bus) {
    struct config *c;
    bool found;
    if (settings_load(s, &c, &found) < 0) {
        log_error("%s; the configuration stays as it was", shmps_error_detail());
        return;
    }
    config_free(bus->config);
    bus->config = c;
    settings_log(s, c);
    for (uint32_t i = 0; i < bus->topics_end; i++) {
        struct topic *topic = bus->topics[i];
        if (topic == NULL)
            continue;
        topic_configure(bus, topic);
        topic_write(bus, topic);
        bus_changed(bus, topic);
        ring_collect(bus, topic); /* less history may be to be kept */
    }
    settings_tell_fixed(s, bus, c);
    log_notice("%s %s: what is opened from now on obeys it", found ? "read again:" : "no",
               s->path[0] != '\0' ? s->path : "configuration");
}
