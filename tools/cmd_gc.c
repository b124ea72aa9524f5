/* shmps gc - remove what is provably nobody's. */
#include "leftovers.h"
#include "table.h"
#include "text.h"
#include "tool.h"
#include "view.h"

#include "base/lock.h"
#include "base/scope.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- telling */

/* Why the rest is left alone. `named`: somebody asked for just this one. */
static void report_usage(const struct leftovers *found, bool named) {
    char command[COMMAND_BYTES];
    const char *name = found->instance;
    switch (found->usage) {
    case USAGE_DAEMON:
        if (named)
            report("instance '%s' is left alone: its pubsubd runs (process %d)", name, found->pid);
        break;
    case USAGE_CLIENTS:
        process_command(found->pid, command);
        char *escaped = text_escape(command);
        report("instance '%s' is left alone: its pubsubd does not run, but process %d (%s) uses "
               "it; start pubsubd, or end its processes",
               name, found->pid, escaped);
        free(escaped);
        break;
    case USAGE_UNKNOWN:
        if (found->pid)
            report("instance '%s' is left alone: %s; and process %d may not be looked at, which "
                   "might use it; if it does not: shmps gc --instance %s --force",
                   name, found->trouble ? found->trouble : "it has no directory", found->pid,
                   name);
        else
            report("instance '%s' is left alone: %s; when its programs have ended: shmps gc "
                   "--instance %s --force",
                   name, found->trouble, name);
        break;
    case USAGE_NOBODY:
        break;
    }
}

static void print_json(const struct leftovers *found, const struct leftover *file, bool removed) {
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "instance", json_object_new_string(found->instance));
    json_object_object_add(o, "path", json_text(file->path));
    json_object_object_add(o, "kind", json_object_new_string(leftover_kind_name(file->kind)));
    json_object_object_add(o, "bytes", json_object_new_uint64(file->bytes));
    json_object_object_add(o, "removed", json_object_new_boolean(removed));
    json_print(o);
}

static void print_table(const struct leftovers *found, size_t n) {
    static const char *const titles[] = { "INSTANCE", ">SIZE", "WHAT", "PATH" };
    struct table table = TABLE(titles);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < found[i].n; k++) {
            const struct leftover *file = &found[i].files[k];
            if (!file->stale)
                continue;
            char *path = text_escape(file->path);
            table_add(&table, "%s", found[i].instance);
            table_add_size(&table, file->bytes);
            table_add(&table, "%s", leftover_kind_name(file->kind));
            table_add(&table, "%s", path);
            free(path);
        }
    }
    table_print(&table, "");
}

/* ---- removing */

static bool was_listed(const struct leftovers *listed, const struct leftover *file) {
    for (size_t i = 0; i < listed->n; i++)
        if (listed->files[i].stale && listed->files[i].inode == file->inode &&
            listed->files[i].device == file->device &&
            strcmp(listed->files[i].path, file->path) == 0)
            return true;
    return false;
}

/* Remove what was listed and is stale still. `locked`: so the lock's file may go, too; taking the
 * lock may have made it. */
static enum exit_code remove_files(const struct arguments *args, const struct leftovers *listed,
                                   const struct leftovers *now, bool locked, size_t *removed) {
    enum exit_code code = EXIT_DONE;
    for (size_t i = 0; i < now->n; i++) {
        const struct leftover *file = &now->files[i];
        bool lock = file->kind == LEFTOVER_LOCK;
        if (!file->stale || (lock ? !locked : !was_listed(listed, file)))
            continue;
        bool gone = unlink(file->path) == 0 || errno == ENOENT;
        if (!gone) {
            report("cannot remove %s: %s", file->path, strerror(errno));
            code = EXIT_ERROR;
        }
        *removed += gone;
        if (args->json && was_listed(listed, file))
            print_json(listed, file, gone);
    }
    return code;
}

/* A daemon may have started since it was listed: what only a daemon may change is removed under
 * its lock, after another look. */
static enum exit_code remove_leftovers(const struct arguments *args,
                                       const struct leftovers *listed, size_t *removed) {
    _cleanup_close_ int lock = -1;
    struct leftovers now;
    int holder = 0;
    if (listed->usage != USAGE_DAEMON) {
        int r = instance_lock_take(geteuid(), listed->instance, &lock, &holder);
        if (r < 0)
            return report_error(r, "cannot clear instance '%s'", listed->instance);
        if (r > 0) {
            report("instance '%s' is left alone: process %d has just taken it", listed->instance,
                   holder);
            return EXIT_DONE;
        }
    }
    leftovers_find(&now, listed->instance, lock >= 0, args->force);
    enum exit_code code = remove_files(args, listed, &now, lock >= 0, removed);
    leftovers_free(&now);
    return code;
}

/* ---- asking */

static bool ask(size_t n, uint64_t bytes) {
    char size[SIZE_TEXT_BYTES], answer[16];
    size_text(bytes, size);
    fflush(stdout);
    fprintf(stderr, "remove these %zu files (%s)? [y/N] ", n, size);
    return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

static enum exit_code clear(const struct arguments *args, const struct leftovers *found,
                            size_t n) {
    uint64_t bytes = 0, more;
    size_t files = 0, removed = 0;
    enum exit_code code = EXIT_DONE;
    for (size_t i = 0; i < n; i++) {
        report_usage(&found[i], !args->all);
        files += leftovers_stale(&found[i], &more);
        bytes += more;
    }
    if (files == 0) {
        report("there is nothing to remove");
        return EXIT_DONE;
    }
    if (!args->json)
        print_table(found, n);
    if (args->dry_run) {
        for (size_t i = 0; args->json && i < n; i++)
            for (size_t k = 0; k < found[i].n; k++)
                if (found[i].files[k].stale)
                    print_json(&found[i], &found[i].files[k], false);
        return EXIT_DONE;
    }
    if (!args->yes && !ask(files, bytes)) {
        report("nothing was removed");
        return EXIT_DONE;
    }
    for (size_t i = 0; i < n; i++) {
        if (leftovers_stale(&found[i], &more) == 0)
            continue;
        enum exit_code cleared = remove_leftovers(args, &found[i], &removed);
        code = cleared != EXIT_DONE ? cleared : code;
    }
    report("%zu files were removed", removed);
    return code;
}

enum exit_code cmd_gc(const struct arguments *args) {
    char one[1][INSTANCE_BYTES], (*names)[INSTANCE_BYTES] = one;
    size_t n = 1;
    if (args->all && args->instance)
        return usage_error("gc", "--all and --instance do not go together");
    if (!args->yes && !args->dry_run && (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)))
        return usage_error("gc",
                           "nobody can be asked: give --yes to remove, or --dry-run to list");
    int r = args->all ? 0 : view_choose_instance(args->instance, one[0]);
    if (r < 0)
        return report_error(r, "cannot look for leftovers");
    if (args->all)
        names = leftovers_instances(&n);
    struct leftovers *found = calloc(n + 1, sizeof(*found));
    if (!found)
        out_of_memory();
    for (size_t i = 0; i < n; i++)
        leftovers_find(&found[i], names[i], false, args->force);
    enum exit_code code;
    if (args->instance && found[0].n == 0 && leftovers_of_others(one[0])) {
        report("instance '%s' is another user's; run gc as that user: sudo -u '#UID' shmps gc "
               "--instance %s (ls -ln /dev/shm tells whose)", one[0], one[0]);
        code = EXIT_PERMISSION;
    } else {
        code = clear(args, found, n);
    }
    for (size_t i = 0; i < n; i++)
        leftovers_free(&found[i]);
    free(found);
    if (args->all)
        free(names);
    return code;
}
