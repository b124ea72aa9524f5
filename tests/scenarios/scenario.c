#include "scenario.h"

#include <dirent.h>
#include <glob.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void *shared_zeroes(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

uint64_t bytes_in_use(void) {
    char pattern[128];
    glob_t found;
    uint64_t bytes = 0;
    snprintf(pattern, sizeof(pattern), "/dev/shm/shmps.%u.%s.*", (unsigned)getuid(),
             test_instance());
    if (glob(pattern, 0, NULL, &found) != 0)
        return 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct stat s;
        if (stat(found.gl_pathv[i], &s) == 0)
            bytes += (uint64_t)s.st_blocks * 512;
    }
    globfree(&found);
    return bytes;
}

unsigned descriptors_of(pid_t pid) {
    char path[64];
    unsigned n = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(directory);
    return n;
}

/* Its output, line by line; `show`: also to the log. */
static const char *run_tool(const char *arguments, bool show) {
    static char text[1 << 16];
    char command[512], *at = text;
    snprintf(command, sizeof(command), "exec \"$BUILD\"/tools/shmps %s", arguments);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    if (show)
        print_message("# $ shmps %s\n", arguments);
    while (fgets(at, (int)(text + sizeof(text) - at), output) != NULL) {
        if (show && strncmp(at, "OK ", 3) != 0)
            print_message("#   %s", at);
        at += strlen(at);
    }
    *at = '\0';
    pclose(output);
    return text;
}

const char *shmps_says(const char *arguments) {
    return run_tool(arguments, true);
}

void await_words(const char *arguments, const char *words) {
    static const struct timespec nap = { .tv_nsec = 5000000 };
    while (strstr(run_tool(arguments, false), words) == NULL)
        nanosleep(&nap, NULL); /* the watchdog ends it */
    shmps_says(arguments);
}

void child_stop(const struct child *child) {
    int status = 0;
    kill(child->pid, SIGSTOP);
    assert_int_equal(waitpid(child->pid, &status, WUNTRACED), child->pid);
    assert_true(WIFSTOPPED(status));
}
