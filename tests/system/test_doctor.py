#!/usr/bin/env python3
"""shmps doctor: each trouble is made, and must be found. In a mount namespace of its own, with a
/dev/shm of its own, so that it neither sees other tests nor troubles them."""

import ctypes
import errno
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from pathlib import Path

from tap import PUBSUBD, run_cases, segments
from tool import DONE, ERROR, SHM, SHMPS, TIMEOUT_S, kill, mount, own_bus, own_shm, publish, stop

# Not so in a user namespace, in which there is root only.
OTHERS = Path("/proc/self/uid_map").read_text().split()[2] == "4294967295"


def findings(bus, status=DONE, **kwargs):
    """What doctor finds: the last of each check, and those of a check in a list."""
    got = bus.run("doctor", "--json", status=status, **kwargs)
    assert got.stderr == b"", got.stderr
    found = {}
    for line in got.stdout.splitlines():
        o = json.loads(line)
        assert (o["verdict"] == "OK") == ("mend" not in o), o
        found.setdefault(o["check"], []).append(o)
    failed = [o for of in found.values() for o in of if o["verdict"] == "FAIL"]
    assert bool(failed) == (status == ERROR), failed
    return found


def is_found(found, check, verdict, *story):
    (o,) = found[check]
    assert o["verdict"] == verdict, o
    for word in story:
        assert word in json.dumps(o), (word, o)
    return o


def in_another(bus, commands, *status):
    """What doctor finds after other commands, in a namespace below this one."""
    script = f"{commands} && exec {SHMPS} doctor --json"
    got = subprocess.run(["unshare", "--mount", "sh", "-ec", script], env=bus.env,
                         capture_output=True, timeout=TIMEOUT_S)
    assert got.returncode in status, got
    return {o["check"]: [o] for o in map(json.loads, got.stdout.splitlines())}


# ---------------------------------------------------------------------------- nothing wrong


def a_sound_bus_is_ok_and_each_finding_is_one_line():
    with own_bus() as bus:
        bus.subscribe("a")
        found = findings(bus)
        for check in ("shm.mount", "shm.mode", "shm.space", "bus.socket", "bus.daemon",
                      "bus.files", "bus.version", "bus.topics", "leftovers"):
            assert [o["verdict"] for o in found[check]] == ["OK"], found[check]
        assert str(bus.daemon.pid) in found["bus.daemon"][0]["what"]
        lines = bus.run("doctor").stdout.decode().splitlines()
        assert len(lines) == sum(len(of) for of in found.values())
        for line in lines:
            assert re.fullmatch(r"(OK   |WARN |FAIL ) [a-z_.]+ +\S.*", line), line
            assert line.startswith("OK") or "; mend: " in line, line


def without_a_daemon_it_works_too():
    with own_bus(daemon=False) as bus:
        found = findings(bus)
        is_found(found, "bus.daemon", "OK", bus.instance)
        assert "bus.version" not in found and segments(bus.instance) == []


# ---------------------------------------------------------------------------- the machine


def dev_shm_that_is_small_full_or_open():
    with own_bus() as bus:
        full = "mount -o remount,size=64M tmpfs /dev/shm; head -c 58M /dev/zero > /dev/shm/x; "
        full += "head -c 700K /dev/zero >> /dev/shm/x"
        try:
            o = is_found(in_another(bus, full, ERROR), "shm.space", "FAIL", "others have 59M")
            assert "not shmps'" in o["mend"] and "remount,size" in o["mend"], o
        finally:
            (SHM / "x").unlink()
            mount("-o", "remount,size=256M", "tmpfs", "/dev/shm")
        pub = bus.start("pub", "big", "-l", "--depth", "8192")
        publish(pub, b"x")
        bus.until("big", lambda info: info["messages"] == 1)
        try:
            found = in_another(bus, "mount -o remount,size=48M tmpfs /dev/shm", DONE)
            o = is_found(found, "shm.space", "WARN", "gc --all", "--sort memory")
            is_found(found, "topic.memory", "WARN", "shmps info big", "more than half")
        finally:
            mount("-o", "remount,size=256M", "tmpfs", "/dev/shm")
        kill(pub)
        for mode, verdict in (("0777", "WARN"), ("1777", "OK")):
            os.chmod("/dev/shm", int(mode, 8))
            found = findings(bus)
            is_found(found, "shm.mode", verdict, f"mode {mode}")
            assert verdict == "OK" or found["shm.mode"][0]["mend"] == "chmod 1777 /dev/shm"
        found = in_another(bus, "mount --bind /usr /dev/shm", DONE, ERROR)  # it may be root's
        is_found(found, "shm.mount", "WARN", "no tmpfs")


def limits_of_the_process():
    def lower(which, to):
        return lambda: resource.setrlimit(which, (to, to))

    with own_bus() as bus:
        for check, which, to, mend in (
            ("limit.nofile", resource.RLIMIT_NOFILE, 200, "ulimit -n"),
            ("limit.fsize", resource.RLIMIT_FSIZE, 1 << 20, "ulimit -f"),
            ("limit.as", resource.RLIMIT_AS, 1 << 46, "ulimit -v"),
        ):
            found = findings(bus, preexec_fn=lower(which, to))
            is_found(found, check, "WARN", f": {to}, at most {to}", mend)


# Of x86_64 and of all others that share the newer table.
NUMBERS = {"x86_64": {"membarrier": 324, "memfd_create": 319}}.get(
    platform.machine(), {"membarrier": 283, "memfd_create": 279}
) | {"io_uring_setup": 425, "futex_waitv": 449, "pidfd_open": 434}


def without(*calls):
    """Make system calls fail with ENOSYS from now on: a filter of seccomp(2), in classic BPF."""
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD|W|ABS; BPF_JMP|JEQ|K; BPF_RET|K
    code = [(load, 0, 0, 0)]  # the number, at the start of struct seccomp_data
    for call in calls:
        code += [(equal, 0, 1, NUMBERS[call]), (give, 0, 0, 0x50000 | errno.ENOSYS)]
    code += [(give, 0, 0, 0x7FFF0000)]  # SECCOMP_RET_ALLOW
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *c) for c in code))
    filter_ = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, filter_, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def what_the_kernel_lacks_is_told_with_what_is_done_instead():
    with own_bus() as bus:
        here = findings(bus)
        for call, check, verdict, instead in (
            ("io_uring_setup", "kernel.io_uring", "WARN", "epoll"),
            ("futex_waitv", "kernel.futex_waitv", "WARN", "naps"),
            ("membarrier", "kernel.membarrier", "WARN", "fence"),
            ("memfd_create", "kernel.memfd_seals", "WARN", "cross users"),
            ("pidfd_open", "kernel.pidfd_open", "FAIL", "pubsubd learns"),
        ):
            found = findings(bus, status=ERROR if verdict == "FAIL" else DONE,
                             preexec_fn=lambda call=call: without(call))
            is_found(found, check, verdict, instead)
            changed = {c for c in found if c.startswith("kernel.")
                       and found[c][0]["verdict"] != here[c][0]["verdict"]}
            assert changed <= {check, "kernel.uring_futex"}, (call, changed)
        found = findings(bus, env=dict(bus.env, SHMPS_MEMBARRIER="0"))
        is_found(found, "kernel.membarrier", "WARN", "unset SHMPS_MEMBARRIER")


def logind_that_removes_what_a_user_leaves():
    uid = random.SystemRandom().randrange(1 << 20, 1 << 30)
    env = {"PATH": os.environ["PATH"], "SHMPS_INSTANCE": "none"}
    with tempfile.TemporaryDirectory(prefix="shmps-test-") as place:
        os.chmod(place, 0o755)
        shmps = shutil.copy(SHMPS, place)
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        for hidden in ("/etc/systemd", "/usr/lib/systemd", "/usr/local/lib/systemd"):
            if os.path.isdir(hidden):
                mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", hidden)

        def told(user=uid):
            got = subprocess.run([shmps, "doctor", "--json"], user=user, group=user, env=env,
                                 extra_groups=[], cwd="/", capture_output=True)
            return next(o for o in map(json.loads, got.stdout.splitlines())
                        if o["check"] == "login.remove_ipc")

        assert told()["verdict"] == "OK" and "no systemd-logind" in told()["what"]
        run = Path("/run/systemd")
        (run / "users").mkdir(parents=True)
        assert told()["verdict"] == "WARN" and "the default" in told()["what"], told()
        assert "enable-linger" in told()["mend"] and "RemoveIPC=no" in told()["mend"]
        assert told(user=999)["verdict"] == "OK" and told(user=0)["verdict"] == "OK"
        drop_ins = run / "logind.conf.d"
        drop_ins.mkdir()
        for name, text, verdict in (
            ("logind.conf", "[Login]\nRemoveIPC=no\n", "OK"),
            ("logind.conf", "[Other]\nRemoveIPC=no\n", "WARN"),
            ("logind.conf", "[Login]\n# RemoveIPC=no\n", "WARN"),
            ("logind.conf.d/50.conf", "[Login]\n RemoveIPC = false\n", "OK"),
            ("logind.conf.d/60.conf", "[Login]\nRemoveIPC=yes\n", "WARN"),
            ("logind.conf.d/70.txt", "[Login]\nRemoveIPC=no\n", "WARN"),
            ("logind.conf.d/40.conf", "[Login]\nRemoveIPC=no\n", "WARN"),
        ):
            (run / name).write_text(text)
            assert told()["verdict"] == verdict, (name, text, told())


# ---------------------------------------------------------------------------- the bus


def a_daemon_that_is_stopped_or_dead():
    with own_bus() as bus:
        sub = bus.subscribe("a")
        stop(bus.daemon)
        o = is_found(findings(bus, ERROR), "bus.daemon", "FAIL", "is stopped")
        assert o["mend"] == f"kill -CONT {bus.daemon.pid}", o
        subprocess.run(o["mend"], shell=True, check=True)
        is_found(findings(bus), "bus.daemon", "OK")
        bus.kill_daemon()
        found = findings(bus)
        o = is_found(found, "bus.daemon", "WARN", f"process {sub.pid} (shmps) uses it")
        assert o["mend"] == f"pubsubd --instance {bus.instance}", o
        is_found(found, "leftovers", "OK")
        kill(sub)
        found = findings(bus)
        is_found(found, "bus.daemon", "WARN", "does not run")
        o = is_found(found, "leftovers", "WARN", f"of instance '{bus.instance}'")
        assert o["mend"].startswith(f"shmps gc --instance {bus.instance}"), o
        bus.run("gc", "--yes")
        is_found(findings(bus), "leftovers", "OK")


def a_program_that_was_replaced_and_descriptors_that_run_out():
    with own_bus(daemon=False) as bus, tempfile.TemporaryDirectory() as place:
        program = shutil.copy(PUBSUBD, place)
        limit = (512, 512)
        bus.daemon = subprocess.Popen(
            [program, "--instance", bus.instance], env=bus.env, stdout=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit),
        )
        assert bus.daemon.stdout.readline() == b"ready\n"
        assert "bus.program" not in findings(bus)
        os.unlink(program)
        is_found(findings(bus), "bus.program", "WARN", "(deleted)", "SIGKILL")
        clients = []
        while "bus.descriptors" not in findings(bus):
            for _ in range(100):
                clients.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                clients[-1].connect(f"{bus.env['XDG_RUNTIME_DIR']}/shmps/{bus.instance}.sock")
        is_found(findings(bus), "bus.descriptors", "WARN", "of 512 descriptors")
        for client in clients:
            client.close()


def files_and_directories_that_others_may_write():
    with own_bus() as bus:
        directory = SHM / f"shmps.{os.getuid()}.{bus.instance}.dir"
        directory.chmod(0o666)
        found = findings(bus, ERROR)
        o = is_found(found, "bus.files", "FAIL", "mode 0666")
        is_found(found, "bus.directory", "FAIL", "may write")
        subprocess.run(o["mend"], shell=True, check=True)
        findings(bus)
        sockets = Path(bus.env["XDG_RUNTIME_DIR"]) / "shmps"
        sockets.chmod(0o755)
        o = is_found(findings(bus, ERROR), "bus.socket", "FAIL", "mode 0755")
        subprocess.run(o["mend"], shell=True, check=True)
        findings(bus)


def a_file_of_another_user_with_our_name():
    with own_bus() as bus:
        name = SHM / f"shmps.{os.getuid()}.{bus.instance}.r77"
        name.write_bytes(b"x")
        os.chown(name, 12345, 12345)
        found = findings(bus, ERROR)
        is_found(found, "bus.files", "FAIL", "belongs to user 12345", f"ls -l {name}")
        bus.run("gc", "--yes")
        assert name.exists()
        name.unlink()
        findings(bus)


def another_layout_and_a_name_that_is_none():
    with own_bus() as bus:
        path = f"{bus.env['XDG_RUNTIME_DIR']}/shmps/{bus.instance}.sock"
        found = findings(bus, env=dict(bus.env, SHMPS_INSTANCE=path))
        is_found(found, "bus.daemon", "OK", bus.instance, str(bus.daemon.pid))
        bus.kill_daemon()
        with (SHM / f"shmps.{os.getuid()}.{bus.instance}.dir").open("r+b") as directory:
            directory.seek(8)
            directory.write(b"\x63\0\0\0")  # identity.version
        is_found(findings(bus, ERROR), "bus.version", "FAIL", "layout version 99", "gc --force")
        found = findings(bus, ERROR, env=dict(bus.env, SHMPS_INSTANCE="/a/socket"))
        is_found(found, "bus.instance", "FAIL", "/a/socket")


def who_holds_up_whom():
    with own_bus() as bus:
        sub = bus.subscribe("a/b", "--reliable")
        pub = bus.start("pub", "a/b", "-l", "--depth", "4")
        stop(sub)
        publish(pub, *([b"x"] * 10))
        bus.until("a/b", lambda info: any(p["stalls"] for p in info["publishers"]))
        o = is_found(findings(bus), "topic.slow", "WARN", "publishers wait",
                     f"subscriber {sub.pid} (shmps) is stopped, 4 messages behind publisher",
                     f"publisher {pub.pid}")
        assert o["mend"].startswith(f"kill -CONT {sub.pid}"), o
        sub.send_signal(signal.SIGCONT)
        bus.until("a/b", lambda info: info["messages"] == 10 and
                  info["subscribers"][0]["rings"][0]["lag"] == 0)
        assert "topic.slow" not in findings(bus)


def the_errors_of_the_last_day():
    with own_bus() as bus:
        bus.run("pub", "huge", "-l", "--depth", "1048576", data=b"x\n", status=ERROR)
        is_found(findings(bus), "bus.error", "WARN", "SHMPS_E_NO_SPACE, 1 times", "huge")


def it_changes_nothing():
    with own_bus() as bus:
        subs = bus.subscribe("a"), bus.subscribe("a", "--reliable")
        pub = bus.start("pub", "a", "-l")
        publish(pub, b"x")
        for sub in subs:
            sub.stdout.readline()
        bus.kill_daemon()
        for process in (*subs, pub):
            stop(process)  # else they write themselves
        before = {name: (SHM / name).read_bytes() for name in segments(bus.instance)}
        findings(bus)
        assert {name: (SHM / name).read_bytes() for name in segments(bus.instance)} == before


if __name__ == "__main__":
    own_shm("256M")
    cases = [
        a_sound_bus_is_ok_and_each_finding_is_one_line,
        without_a_daemon_it_works_too,
        dev_shm_that_is_small_full_or_open,
        limits_of_the_process,
        what_the_kernel_lacks_is_told_with_what_is_done_instead,
        a_daemon_that_is_stopped_or_dead,
        a_program_that_was_replaced_and_descriptors_that_run_out,
        files_and_directories_that_others_may_write,
        another_layout_and_a_name_that_is_none,
        who_holds_up_whom,
        the_errors_of_the_last_day,
        it_changes_nothing,
    ]
    if OTHERS:
        cases += [logind_that_removes_what_a_user_leaves, a_file_of_another_user_with_our_name]
    run_cases(cases)
