/* doctor_kernel.c - each feature of the kernel is really used once. */
#include "doctor.h"

#include "base/scope.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>

#if HAVE_LIBURING
#include <liburing.h>
#endif

#define OP_FUTEX_WAIT 51   /* IORING_OP_FUTEX_WAIT, since Linux 6.7; unknown to liburing 2.3 */
#define FUTEX_WORD_FLAGS 2 /* FUTEX2_SIZE_U32 */
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static const char newer_kernel[] =
    "a newer kernel, or a container whose seccomp profile allows it";

/* r: 0, or the errno with which it failed. */
static void tell(struct doctor *doctor, const char *check, int r, enum verdict verdict,
                 const char *without, const char *mend) {
    if (r == 0)
        finding_ok(doctor, check, "works");
    else
        finding(doctor, verdict, check, (struct remedy){ without, mend }, "is not to be had (%s)",
                strerror(r));
}

/* ---- io_uring */

#if HAVE_LIBURING
/* A wait for a word that differs already completes at once, if the kernel knows such waits. */
static int try_uring_futex(struct io_uring *ring) {
    static uint32_t word = 1;
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    struct io_uring_cqe *cqe;
    if (!sqe)
        return ENOSPC;
    memset(sqe, 0, sizeof(*sqe));
    sqe->opcode = OP_FUTEX_WAIT;
    sqe->fd = FUTEX_WORD_FLAGS;
    sqe->addr = (uintptr_t)&word;
    sqe->addr2 = 0; /* expected */
    sqe->addr3 = FUTEX_BITSET_MATCH_ANY;
    int r = io_uring_submit_and_wait(ring, 1);
    if (r >= 0)
        r = io_uring_peek_cqe(ring, &cqe);
    if (r < 0)
        return -r;
    int result = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return result == -EAGAIN ? 0 : result < 0 ? -result : EINVAL;
}
#endif

static void try_uring(struct doctor *doctor) {
    static const char without[] =
        "pubsubd waits with epoll, and a subscriber's descriptor is fed by a thread";
    static const char without_futex[] = "a subscriber's descriptor is fed by a thread";
#if HAVE_LIBURING
    struct io_uring ring;
    int r = -io_uring_queue_init(8, &ring,
                                 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    const char *mend = r == EPERM ? "sysctl -w kernel.io_uring_disabled=0; a container: a seccomp "
                                    "profile that allows io_uring"
                       : r == ENOMEM ? "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity)"
                                     : newer_kernel;
    tell(doctor, "kernel.io_uring", r, VERDICT_WARN, without, mend);
    if (r == 0) {
        tell(doctor, "kernel.uring_futex", try_uring_futex(&ring), VERDICT_WARN, without_futex,
             "Linux 6.7 or newer");
        io_uring_queue_exit(&ring);
        return;
    }
#else
    finding(doctor, VERDICT_WARN, "kernel.io_uring",
            (struct remedy){ without, "build with liburing" }, "this build has no liburing");
#endif
    finding(doctor, VERDICT_WARN, "kernel.uring_futex",
            (struct remedy){ without_futex, "see kernel.io_uring" }, "needs io_uring");
}

/* ---- the others; each returns 0 or an errno */

static int try_futex_waitv(void) {
    static uint32_t words[2] = { 1, 1 };
    struct futex_waitv waiters[2] = {
        { .val = 1, .uaddr = (uintptr_t)&words[0], .flags = FUTEX_32 },
        { .val = 0, .uaddr = (uintptr_t)&words[1], .flags = FUTEX_32 }, /* differs */
    };
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    long r = syscall(SYS_futex_waitv, waiters, 2, 0, &deadline, CLOCK_MONOTONIC);
    return r >= 0 || errno == EAGAIN ? 0 : errno;
}

static int try_membarrier(void) {
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) < 0 ||
        syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) < 0)
        return errno;
    return 0;
}

static int try_pidfd(void) {
    _cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    struct pollfd event = { .fd = fd, .events = POLLIN };
    if (fd < 0)
        return errno;
    return poll(&event, 1, 0) == 0 ? 0 : EINVAL; /* we have not ended */
}

static int try_peer_pidfd(void) {
    int pair[2], peer = -1;
    socklen_t bytes = sizeof(peer);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return errno;
    int r = getsockopt(pair[0], SOL_SOCKET, SO_PEERPIDFD, &peer, &bytes) < 0 ? errno : 0;
    scope_close(&peer);
    close(pair[0]);
    close(pair[1]);
    return r;
}

static int try_sealing(void) {
    _cleanup_close_ int fd = memfd_create("shmps doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return errno;
    if (ftruncate(fd, 4096) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE) < 0)
        return errno;
    void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return 0;
    munmap(map, 4096);
    return EINVAL; /* the seal does not hold */
}

void doctor_kernel(struct doctor *doctor) {
    struct utsname name;
    if (uname(&name) == 0)
        finding_ok(doctor, "kernel.release", "%s %s", name.sysname, name.release);
    try_uring(doctor);
    tell(doctor, "kernel.futex_waitv", try_futex_waitv(), VERDICT_WARN,
         "who waits for several publishers naps for 1 ms at a time", newer_kernel);
    const char *wish = getenv("SHMPS_MEMBARRIER");
    if (wish && strcmp(wish, "0") == 0)
        finding(doctor, VERDICT_WARN, "kernel.membarrier",
                (struct remedy){ "each publish has a fence of 30 ns or so",
                                 "unset SHMPS_MEMBARRIER" },
                "is not used, as SHMPS_MEMBARRIER=0");
    else
        tell(doctor, "kernel.membarrier", try_membarrier(), VERDICT_WARN,
             "each publish has a fence of 30 ns or so, and who sleeps wakes each 1 ms",
             newer_kernel);
    tell(doctor, "kernel.pidfd_open", try_pidfd(), VERDICT_FAIL,
         "pubsubd learns of the end of a client by it, and lets in none without", newer_kernel);
    tell(doctor, "kernel.peer_pidfd", try_peer_pidfd(), VERDICT_WARN,
         "pubsubd asks for the process of a client by its number instead", "Linux 6.5 or newer");
    tell(doctor, "kernel.memfd_seals", try_sealing(), VERDICT_WARN,
         "topics cannot cross users; within one nothing is lost", newer_kernel);
}
