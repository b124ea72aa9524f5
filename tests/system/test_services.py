#!/usr/bin/env python3
"""The units at work under a real systemd: the user's manager, in namespaces of its own.

That manager runs as root, so that it can also do what the unit of the machine's bus asks for:
another user, the sandbox, the filter of system calls. The file system is read-only there, but for
private /run, /tmp and /dev/shm; when this program ends, the kernel ends all others.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tap import BUILD, PUBSUBD, run_cases

SOURCE = Path(__file__).resolve().parents[2] / "pubsubd" / "systemd"
UNITS = Path("/run/units")
SYSTEMD = "/lib/systemd/systemd"
NEEDED = ("systemctl", "systemd-sysusers", "systemd-tmpfiles", "unshare", "setpriv")
TIMEOUT_S = 30

RUNTIME = Path("/run/manager")  # not in /run/user, which ProtectHome= hides
BIN = Path("/run/bin")
SHMPS = str(BIN / "shmps")
HERE = {"XDG_RUNTIME_DIR": str(RUNTIME), "HOME": "/run/home", "PATH": "/usr/sbin:/usr/bin:/bin"}


def run(*command, user=None, instance="default", status=0, **kwargs):
    if user:
        command = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command)
    env = dict(HERE, SHMPS_AUTOSTART="0", SHMPS_INSTANCE=instance)
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **kwargs
    )
    assert done.returncode == status, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def show(unit, name):
    return run("systemctl", "--user", "show", "-P", name, unit).strip()


def until(unit, name, value):
    deadline = time.monotonic() + TIMEOUT_S
    while show(unit, name) != value:
        assert time.monotonic() < deadline, run("systemctl", "--user", "status", unit, status=None)
        time.sleep(0.01)


# ---------------------------------------------------------------------------- cases


def a_bus_at_work(unit, user=None, instance="default"):
    """Started by its first client, killed, started anew, ended, started by the next client."""
    service, sock = f"{unit}.service", f"{unit}.socket"
    run("systemctl", "--user", "start", sock)
    assert show(service, "ActiveState") == "inactive"
    run(SHMPS, "pub", "a", "hi", user=user, instance=instance)
    until(service, "SubState", "running")
    assert show(service, "StatusText") == "instance default"
    process = show(service, "MainPID")
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    assert "\nSeccomp:\t2\n" in status, status
    files = [os.readlink(f) for f in Path(f"/proc/{process}/fd").iterdir()]
    assert "anon_inode:[io_uring]" in files, files

    run("systemctl", "--user", "reload", service)  # ends with the READY=1 behind RELOADING=1
    assert show(service, "MainPID") == process

    command = [SHMPS, "sub", "b", "-C", "1", "--reliable"]
    if user:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    with subprocess.Popen(
        command,
        env=dict(HERE, SHMPS_INSTANCE=instance),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as subscriber:
        said = subscriber.stderr.readline()
        assert said == "subscribed\n", said
        os.kill(int(process), 9)
        until(service, "NRestarts", "1")
        run(SHMPS, "pub", "b", "there", user=user, instance=instance)
        assert subscriber.communicate(timeout=TIMEOUT_S)[0] == "there\n"

    run(SHMPS, "stop", user=user, instance=instance)
    until(service, "ActiveState", "inactive")
    run(SHMPS, "pub", "a", "again", user=user, instance=instance)
    run("systemctl", "--user", "stop", sock, service)
    assert show(service, "Result") == "success"
    assert not list(Path("/dev/shm").iterdir()), list(Path("/dev/shm").iterdir())


def the_bus_of_a_user():
    a_bus_at_work("pubsubd")


def the_bus_of_the_machine_in_its_sandbox():
    a_bus_at_work("machine", user="shmps", instance="/run/pubsubd/default.sock")


def the_bus_of_the_machine_is_found_without_being_named():
    run("systemctl", "--user", "start", "machine.socket")
    os.environ.pop("SHMPS_INSTANCE", None)
    out = run(
        "setpriv", "--reuid=shmps", "--regid=shmps", "--clear-groups",
        "env", "-u", "SHMPS_INSTANCE", "-u", "XDG_RUNTIME_DIR", SHMPS, "pub", "a", "hi", "--json",
    )  # fmt: skip
    assert '"a"' in out, out
    run("systemctl", "--user", "stop", "machine.socket", "machine.service")


# ---------------------------------------------------------------------------- the place


def mount(*args):
    subprocess.run(("mount", *args), check=True)


def install_units(folder):
    """The user's as they are; the machine's under another name, as their manager is the same."""
    folder.mkdir(parents=True)
    for name, prefix in (("user", "pubsubd"), ("system", "machine")):
        for source in (UNITS / name).glob("pubsubd.*"):
            text = source.read_text(encoding="utf-8").replace("@bindir@", str(BIN))
            text = text.replace("pubsubd.socket", f"{prefix}.socket")
            target = folder / source.name.replace("pubsubd", prefix).removesuffix(".in")
            target.write_text(text, encoding="utf-8")


def make_place():
    mount("--make-rprivate", "/")
    subprocess.run(("umount", "-R", "-l", "/sys/fs/cgroup"), check=False)
    mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    BIN.mkdir()
    shutil.copy(PUBSUBD, BIN)
    shutil.copy(BUILD / "tools" / "shmps", BIN)
    shutil.copytree(SOURCE, UNITS)  # before /tmp is another
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm")
    for private in ("/tmp", "/var/tmp"):
        mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", private)
    Path("/run/systemd/system").mkdir(parents=True)  # sd_booted(3)
    Path("/run/systemd/inaccessible/dir").mkdir(parents=True, mode=0)  # with it, hides what
    Path("/run/systemd/inaccessible/reg").touch(mode=0)  # Protect*= say
    RUNTIME.mkdir(mode=0o711)
    install_units(Path("/run/home/.config/systemd/user"))
    root = Path("/run/root")
    (root / "etc").mkdir(parents=True)
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", root / "etc")
    run("systemd-sysusers", f"--root={root}", str(UNITS / "shmps.sysusers"))
    for name in ("passwd", "group"):
        mount("--bind", str(root / "etc" / name), f"/etc/{name}")
    run("systemd-tmpfiles", "--create", str(UNITS / "shmps.tmpfiles"))
    mount("-o", "remount,bind,ro", "/")


def inside():
    make_place()
    with open("/run/log", "wb") as log:
        # umask: as that of PID 1, whose socket for notifications is open to all.
        manager = subprocess.Popen([SYSTEMD, "--user"], env=HERE, stdout=log, stderr=log, umask=0)
    deadline = time.monotonic() + TIMEOUT_S
    while not (RUNTIME / "systemd" / "private").exists():
        assert manager.poll() is None and time.monotonic() < deadline, Path("/run/log").read_text()
        time.sleep(0.01)
    run_cases(
        [
            the_bus_of_a_user,
            the_bus_of_the_machine_in_its_sandbox,
            the_bus_of_the_machine_is_found_without_being_named,
        ]
    )


def main():
    if sys.argv[1:] == ["inside"]:
        inside()
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
    missing = [name for name in (*NEEDED, SYSTEMD) if not shutil.which(name)]
    attempt = [*namespaces, "mount", "-t", "cgroup2", "cgroup2", "/mnt"]
    tried = not missing and subprocess.run(attempt, capture_output=True, check=False)
    if missing or tried.returncode:
        print(f"1..1\nok 1 - services # SKIP {missing or tried.stderr}")
        return 0
    command = [*namespaces, sys.executable, __file__, "inside"]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
