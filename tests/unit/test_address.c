/* tests/unit/test_address.c - wire/address.h: where the socket is, who may own it,
 * connecting and listening. */
#include "support.h"

#include "base/scope.h"
#include "wire/address.h"

#include <shmps/error.h>

#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define DEADLINE_NS INT64_C(20000000000)

/* A directory of this test's own, and the environment that leads there. */
struct place {
    char directory[64];
    char *runtime; /* of the environment before */
};

static int place_setup(void **state) {
    struct place *p = calloc(1, sizeof(*p));
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    p->runtime = runtime != NULL ? strdup(runtime) : NULL;
    snprintf(p->directory, sizeof(p->directory), "/tmp/shmps-test-XXXXXX");
    if (mkdtemp(p->directory) == NULL)
        return -1;
    setenv("XDG_RUNTIME_DIR", p->directory, 1);
    *state = p;
    return leak_setup(state);
}

static int remove_entry(const char *directory, const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return remove(path);
}

static int place_teardown(void **state) {
    struct place *p = *state;
    const char *left[] = { "shmps/a.sock", "shmps/b.sock", "shmps", "target", "a.sock", "plain" };
    for (size_t i = 0; i < ARRAY_LENGTH(left); i++)
        remove_entry(p->directory, left[i]);
    int r = rmdir(p->directory);
    if (p->runtime != NULL)
        setenv("XDG_RUNTIME_DIR", p->runtime, 1);
    else
        unsetenv("XDG_RUNTIME_DIR");
    free(p->runtime);
    free(p);
    return r != 0 ? r : leak_teardown(state);
}

static const char *in(const struct place *p, const char *name) {
    static char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", p->directory, name);
    return path;
}

static mode_t mode_of(const char *path) {
    struct stat s;
    assert_int_equal(lstat(path, &s), 0);
    return s.st_mode & 07777;
}

static void the_path_is_in_the_runtime_directory(void **state) {
    struct place *p = *state;
    char path[SOCKET_PATH_BYTES];
    assert_int_equal(address_of_instance("a", false, false, path), 0); /* it may be missing */
    assert_string_equal(path, in(p, "shmps/a.sock"));
    struct stat s;
    assert_int_equal(lstat(in(p, "shmps"), &s), -1);
    assert_int_equal(address_of_instance("a", false, true, path), 0);
    assert_string_equal(path, in(p, "shmps/a.sock"));
    assert_int_equal(mode_of(in(p, "shmps")), 0700);
    assert_int_equal(address_of_instance("a", false, true, path), 0); /* it may exist */
}

static void without_the_variable_it_is_elsewhere(void **state) {
    (void)state;
    char path[SOCKET_PATH_BYTES], of_user[64], expected[128];
    snprintf(of_user, sizeof(of_user), "/run/user/%u", (unsigned)geteuid());
    struct stat s;
    bool has_own = lstat(of_user, &s) == 0 && S_ISDIR(s.st_mode) && s.st_uid == geteuid();
    if (has_own)
        snprintf(expected, sizeof(expected), "%s/shmps/a.sock", of_user);
    else
        snprintf(expected, sizeof(expected), "/tmp/shmps-%u/a.sock", (unsigned)geteuid());
    const char *values[] = { NULL, "", "relative/path" };
    for (size_t i = 0; i < ARRAY_LENGTH(values); i++) {
        unsetenv("XDG_RUNTIME_DIR");
        if (values[i] != NULL)
            setenv("XDG_RUNTIME_DIR", values[i], 1);
        assert_int_equal(address_of_instance("a", false, false, path), 0);
        assert_string_equal(path, expected);
    }
    assert_int_equal(address_of_instance("a", true, false, path), 0);
    assert_string_equal(path, "/run/pubsubd/a.sock");
}

static void names_and_lengths_are_checked(void **state) {
    (void)state;
    char path[SOCKET_PATH_BYTES] = "untouched";
    const char *names[] = { "", "a/b", "..", "a b", "012345678901234567890123456789012" };
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        assert_int_equal(address_of_instance(names[i], false, false, path), SHMPS_E_INVALID);
    /* The longest that fits, and one more. */
    char runtime[200] = "/";
    size_t room = SOCKET_PATH_BYTES - 1 - strlen("/shmps/a.sock");
    memset(runtime + 1, 'x', room);
    runtime[room + 1] = '\0';
    setenv("XDG_RUNTIME_DIR", runtime, 1);
    assert_int_equal(address_of_instance("a", false, false, path), SHMPS_E_INVALID);
    assert_string_equal(path, "untouched");
    runtime[room] = '\0';
    setenv("XDG_RUNTIME_DIR", runtime, 1);
    assert_int_equal(address_of_instance("a", false, false, path), 0);
    assert_int_equal(strlen(path), SOCKET_PATH_BYTES - 1);
    /* A runtime directory that does not exist is not made. */
    assert_int_equal(address_of_instance("a", false, true, path), SHMPS_E_SYSTEM);
}

static void a_directory_open_to_others_is_refused(void **state) {
    struct place *p = *state;
    char path[SOCKET_PATH_BYTES];
    const mode_t modes[] = { 0770, 0707, 0701, 0710, 0755 };
    assert_int_equal(mkdir(in(p, "shmps"), 0700), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(modes); i++) {
        assert_int_equal(chmod(in(p, "shmps"), modes[i]), 0);
        for (int create = 0; create < 2; create++) {
            int r = address_of_instance("a", false, create, path);
            assert_int_equal(r, SHMPS_E_PERMISSION);
            assert_non_null(strstr(shmps_error_detail(), "chmod 0700"));
        }
    }
    assert_int_equal(chmod(in(p, "shmps"), 0700), 0);
    assert_int_equal(address_of_instance("a", false, false, path), 0);
}

static void a_directory_of_somebody_else_is_refused(void **state) {
    struct place *p = *state;
    char path[SOCKET_PATH_BYTES];
    if (geteuid() != 0)
        skip(); /* cannot give one away */
    assert_int_equal(mkdir(in(p, "shmps"), 0700), 0);
    assert_int_equal(chown(in(p, "shmps"), 12345, (gid_t)-1), 0);
    for (int create = 0; create < 2; create++) {
        assert_int_equal(address_of_instance("a", false, create, path), SHMPS_E_PERMISSION);
        assert_non_null(strstr(shmps_error_detail(), "12345"));
    }
}

static void a_link_or_a_file_in_its_place_is_refused(void **state) {
    struct place *p = *state;
    char path[SOCKET_PATH_BYTES], target[PATH_MAX];
    snprintf(target, sizeof(target), "%s", in(p, "target"));
    assert_int_equal(mkdir(target, 0700), 0);
    assert_int_equal(symlink(target, in(p, "shmps")), 0);
    for (int create = 0; create < 2; create++)
        assert_int_equal(address_of_instance("a", false, create, path), SHMPS_E_PERMISSION);
    assert_int_equal(unlink(in(p, "shmps")), 0);
    assert_int_equal(mknod(in(p, "shmps"), S_IFREG | 0600, 0), 0);
    for (int create = 0; create < 2; create++)
        assert_int_equal(address_of_instance("a", false, create, path), SHMPS_E_PERMISSION);
}

/* ---- listening and connecting -------------------------------------------------------- */

static void who_connects_reaches_who_listens(void **state) {
    struct place *p = *state;
    const char *path = in(p, "a.sock");
    for (int system = 0; system < 2; system++) {
        int listener = -1, client = -1;
        mode_t umask_before = umask(0077); /* it must not matter */
        int r = address_listen(path, system, &listener);
        umask(umask_before);
        assert_int_equal(r, 0);
        assert_int_equal(mode_of(path), system ? 0666 : 0600);
        assert_int_equal(fcntl(listener, F_GETFD), FD_CLOEXEC);
        assert_true((fcntl(listener, F_GETFL) & O_NONBLOCK) != 0);
        assert_int_equal(accept4(listener, NULL, NULL, SOCK_CLOEXEC), -1);
        assert_int_equal(errno, EAGAIN);

        assert_int_equal(address_connect(path, DEADLINE_NS, &client), 0);
        assert_int_equal(fcntl(client, F_GETFD), FD_CLOEXEC);
        assert_true((fcntl(client, F_GETFL) & O_NONBLOCK) == 0);
        int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(server >= 0);
        char first[8], second[8];
        assert_int_equal(send(client, "abc", 3, 0), 3); /* datagrams keep their bounds */
        assert_int_equal(send(client, "de", 2, 0), 2);
        assert_int_equal(recv(server, first, sizeof(first), 0), 3);
        assert_int_equal(recv(server, second, sizeof(second), 0), 2);
        close(server);
        close(client);
        close(listener);
        r = address_connect(path, DEADLINE_NS, &client); /* it ended */
        assert_int_equal(r, SHMPS_E_NO_DAEMON);
        /* The next round replaces the dead file. */
    }
    assert_int_equal(unlink(path), 0);
}

static void nobody_there_is_no_daemon(void **state) {
    struct place *p = *state;
    int fd = 77;
    const struct {
        const char *path, *command;
    } cases[] = {
        { strdupa(in(p, "a.sock")), "start one: pubsubd --socket /" },
        { strdupa(in(p, "shmps/a.sock")), "start one: pubsubd --instance a" },
        { "/run/pubsubd/test-none.sock", "start one: pubsubd --system --instance test-none" },
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        int r = address_connect(cases[i].path, DEADLINE_NS, &fd);
        assert_int_equal(r, SHMPS_E_NO_DAEMON);
        assert_non_null(strstr(shmps_error_detail(), cases[i].command));
    }
    assert_int_equal(fd, 77);
    char longer[300];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(address_connect(longer, DEADLINE_NS, &fd), SHMPS_E_INVALID);
    assert_int_equal(address_connect("", DEADLINE_NS, &fd), SHMPS_E_INVALID);
    assert_int_equal(address_listen(longer, false, &fd), SHMPS_E_INVALID);
    assert_int_equal(address_listen("", false, &fd), SHMPS_E_INVALID);
    assert_int_equal(address_listen(in(p, "shmps/a.sock"), false, &fd), SHMPS_E_SYSTEM);
    assert_int_equal(fd, 77);
}

static void only_dead_sockets_are_replaced(void **state) {
    struct place *p = *state;
    int listener = -1, second = -1, client = -1;
    assert_int_equal(mknod(in(p, "plain"), S_IFREG | 0600, 0), 0);
    assert_int_equal(address_listen(in(p, "plain"), false, &second), SHMPS_E_PERMISSION);
    struct stat s;
    assert_int_equal(lstat(in(p, "plain"), &s), 0); /* still there */

    assert_int_equal(address_listen(in(p, "a.sock"), false, &listener), 0);
    assert_int_equal(address_listen(in(p, "a.sock"), false, &second), SHMPS_E_BUSY);
    const char *path = in(p, "a.sock");
    assert_int_equal(address_connect(path, DEADLINE_NS, &client), 0); /* the first one lives */
    close(client);
    close(listener);
    assert_int_equal(address_listen(in(p, "a.sock"), false, &second), 0);
    close(second);
}

/* As one that is stopped, while many try. */
static void a_listener_that_does_not_accept_is_not_waited_for(void **state) {
    struct place *p = *state;
    const char *path = in(p, "a.sock");
    int listener = -1, client = -1, clients[256], n = 0;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    assert_true(strlen(path) < sizeof(address.sun_path));
    memcpy(address.sun_path, path, strlen(path));
    assert_int_equal(address_listen(path, false, &listener), 0);
    for (bool full = false; !full && n < 256; n++) {
        clients[n] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        full = connect(clients[n], (struct sockaddr *)&address, sizeof(address)) < 0;
    }
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(address_connect(path, 1000000, &client), SHMPS_E_NO_DAEMON);
    assert_non_null(strstr(shmps_error_detail(), "has not accepted in 1 ms; is it stopped?"));
    while (n > 0)
        close(clients[--n]);
    close(listener);
}

static void listen_as_somebody_else(void *argument, struct report *report) {
    const struct place *p = argument;
    int listener = -1;
    report->values[0] = setgid(12345) == 0 && setuid(12345) == 0;
    report->values[1] = address_listen(in(p, "a.sock"), true, &listener);
}

static void connect_to_inherited(void *argument, struct report *report) {
    const struct place *p = argument;
    int client = -1;
    report->values[0] = setgid(12345) == 0 && setuid(12345) == 0;
    report->values[1] = address_connect(in(p, "a.sock"), DEADLINE_NS, &client);
    report->values[2] = client;
}

/* Somebody else listens where a user's own daemon belongs. */
static void a_listener_of_somebody_else_is_refused(void **state) {
    struct place *p = *state;
    if (geteuid() != 0)
        skip(); /* cannot become somebody else */
    int listener = -1;
    assert_int_equal(chmod(p->directory, 0755), 0);
    assert_int_equal(address_listen(in(p, "a.sock"), true, &listener), 0);
    struct report report = child_end(child_start(connect_to_inherited, p));
    assert_true(report.values[0]);
    assert_int_equal(report.values[1], SHMPS_E_PERMISSION);
    assert_int_equal(report.values[2], -1);
    close(listener);
    /* And a place where one may not write is no place to listen. */
    assert_int_equal(unlink(in(p, "a.sock")), 0);
    report = child_end(child_start(listen_as_somebody_else, p));
    assert_true(report.values[0]);
    assert_int_equal(report.values[1], SHMPS_E_PERMISSION);
}

int main(void) {
    alarm(50);
#define CASE(function) cmocka_unit_test_setup_teardown(function, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        CASE(the_path_is_in_the_runtime_directory),
        CASE(without_the_variable_it_is_elsewhere),
        CASE(names_and_lengths_are_checked),
        CASE(a_directory_open_to_others_is_refused),
        CASE(a_directory_of_somebody_else_is_refused),
        CASE(a_link_or_a_file_in_its_place_is_refused),
        CASE(who_connects_reaches_who_listens),
        CASE(nobody_there_is_no_daemon),
        CASE(only_dead_sockets_are_replaced),
        CASE(a_listener_that_does_not_accept_is_not_waited_for),
        CASE(a_listener_of_somebody_else_is_refused),
    };
    return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
