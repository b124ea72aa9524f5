#!/usr/bin/env python3
"""The Debian packages, in a copy of the machine: installed, used as a newcomer does, removed.

`./dev test long` builds them first (./dev package).
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from place import changed, in_a_copy
from tap import BUILD, run_cases
from tool import TIMEOUT_S

PACKAGES = sorted((BUILD / "packages").glob("*.deb"))
NAMES = ("libshmps-dev", "libshmps0", "python3-shmps", "shmps")
# What dpkg, ldconfig, man-db and systemd-sysusers keep books in.
BOOKS = re.compile(
    r"/etc/(passwd|group|shadow|gshadow)-?|/etc/\.pwd\.lock|/etc/ld\.so\.cache"
    r"|/var/cache/(ldconfig|man|debconf)/.*|/var/lib/dpkg/.*|/var/log/(dpkg|alternatives)\.log"
)
PROGRAM = r"""
#include <shmps/shmps.h>
#include <stdio.h>
int main(void) {
    struct shmps *bus;
    struct shmps_publisher *pub;
    if (shmps_connect(&bus, NULL) || shmps_publisher_open(bus, "a", NULL, &pub) ||
        shmps_publisher_wait_subscribers(pub, 1, SHMPS_FOREVER) ||
        shmps_publish(pub, "from C", 6, 0, 0))
        return fprintf(stderr, "%s\n", shmps_error_detail()), 1;
    shmps_close(bus);
}
"""
PYTHON_PROGRAM = """
import shmps
with shmps.connect() as bus, bus.publisher("a") as publisher:
    publisher.wait_subscribers(1)
    publisher.publish(b"from Python")
"""


def run(*command, **kwargs):
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **kwargs.pop("env", {})}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=100, check=False, **kwargs
    )
    assert done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def they_can_be_installed():
    assert [p.name.split("_")[0] for p in PACKAGES] == list(NAMES), PACKAGES
    # A minimal Debian may be told to leave out manuals.
    run("dpkg", "--path-include=/usr/share/*", "--install", *map(str, PACKAGES))
    assert run("dpkg", "--verify", *NAMES) == ""
    if shutil.which("systemd-sysusers"):
        uid = int(run("id", "-u", "shmps"))
        assert Path("/run/pubsubd").stat().st_uid == uid


def programs():
    found = set()
    for process in Path("/proc").glob("[0-9]*/exe"):
        try:
            found.add(os.readlink(process))
        except OSError:  # a kernel's, or gone
            pass
    return found


def finds_its_pubsubd(program, words, env):
    """A program starts the pubsubd of its own prefix, PATH or not, and is heard by the tool."""
    with subprocess.Popen(program, env=dict(env, PATH="/nowhere")) as publisher:
        deadline = time.monotonic() + TIMEOUT_S
        while "/usr/bin/pubsubd" not in programs():
            assert publisher.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        assert run("shmps", "sub", "a", "-C", "1", env=env) == words
        assert publisher.wait(timeout=TIMEOUT_S) == 0
    run("shmps", "stop", env=env)


def they_can_be_used():
    with tempfile.TemporaryDirectory(prefix="shmps-test-") as folder:
        env = {"XDG_RUNTIME_DIR": folder}
        source, program = f"{folder}/program.c", f"{folder}/program"
        Path(source).write_text(PROGRAM, encoding="utf-8")
        flags = run("pkg-config", "--cflags", "--libs", "shmps").split()
        run("cc", "-Wall", "-Werror", source, "-o", program, *flags)
        finds_its_pubsubd([program], "from C\n", env)
        finds_its_pubsubd(["/usr/bin/python3", "-c", PYTHON_PROGRAM], "from Python\n", env)
        assert run("/usr/bin/python3", "-m", "shmps", "--version") == run("shmps", "--version")

        command = ["/usr/bin/shmps", "sub", "a", "-C", "1"]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as subscriber:
            run("shmps", "pub", "a", "hi there", "--wait-subs", "1", env=env)
            assert subscriber.communicate(timeout=TIMEOUT_S)[0] == b"hi there\n"
        run("shmps", "stop", env=env)


def they_can_be_read_about():
    for page in ("shmps.1", "shmps_take.3", "pubsubd.conf.5", "pubsubd.8"):
        name, section = page.rsplit(".", 1)
        assert run("man", "-w", section, name).endswith(f"{section}.gz\n"), page
    for name in ("shmps", "pubsubd"):
        path = f"/usr/share/bash-completion/completions/{name}"
        assert run("bash", "-c", f"source {path}; complete -p {name}")
    unit = Path("/lib/systemd/system/pubsubd.service").read_text(encoding="utf-8")
    assert "\nExecStart=/usr/bin/pubsubd --system\n" in unit, unit


def nothing_is_left_of_them():
    assert "/usr/bin/shmps" in changed()
    run("dpkg", "--purge", *NAMES)
    left = {path for path in changed() if not BOOKS.fullmatch(path)}
    assert not left, left
    assert not Path("/run/pubsubd").exists()
    known = run("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n")
    assert not re.findall(r"^.*shmps.*$", known, re.M), known
    assert not list(Path("/dev/shm").iterdir())


def inside():
    run_cases(
        [they_can_be_installed, they_can_be_used, they_can_be_read_about, nothing_is_left_of_them]
    )


if __name__ == "__main__":
    if not PACKAGES:
        print("1..1\nok 1 - made # SKIP there are none: ./dev package makes them")
    else:
        print(f"1..1\nok 1 - packages # SKIP {in_a_copy(inside)}")
