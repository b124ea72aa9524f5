#!/usr/bin/env python3
"""./dev install and ./dev uninstall, in a copy of the machine."""

import os
import subprocess
from pathlib import Path

from place import SOURCE, changed, in_a_copy
from tap import BUILD, run_cases

# The loader's, rewritten by ldconfig.
CACHES = {"/etc/ld.so.cache", "/var/cache/ldconfig/aux-cache"}


def dev(*args, status=0):
    env = dict(os.environ, SHMPS_BUILD=str(BUILD))
    for name in ("PREFIX", "DESTDIR"):
        env.pop(name, None)
    done = subprocess.run(
        [str(SOURCE / "dev"), *args], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, f"{args}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def uninstall_removes_exactly_what_install_put():
    before = changed()
    dev("install")
    assert "/usr/local/bin/shmps" in changed()
    others = Path("/usr/local/include/shmps/of-another.h")
    others.write_text("", encoding="utf-8")
    subprocess.run(["/usr/local/bin/shmps", "help"], check=True, stdout=subprocess.DEVNULL)
    dev("install", "--prefix", "/opt/shmps test")  # what is known of the first is not forgotten
    assert Path("/opt/shmps test/bin/shmps").exists()
    dev("uninstall")
    left = changed() - before - CACHES
    assert left == {str(others)}, left
    assert not Path("/opt/shmps test").exists()
    assert "nothing is installed" in dev("uninstall", status=1)


def a_prefix_must_be_a_path():
    for args in (["--prefix", "x"], ["--prefix="], ["--prefix"], ["x"]):
        assert "dev: " in dev("install", *args, status=1)


def run():
    run_cases([uninstall_removes_exactly_what_install_put, a_prefix_must_be_a_path])


if __name__ == "__main__":
    print(f"1..1\nok 1 - uninstall # SKIP {in_a_copy(run)}")
