"""A copy of this machine that can be thrown away: for tests that install and remove things.

An overlay over the root and over the folders of sources and build, in namespaces of its own, with
/run, /tmp and /dev/shm of its own. What the test changes is there only, and can be listed.
"""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from tap import BUILD

SOURCE = Path(__file__).resolve().parents[2]
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")
LAYERS = Path("/run/layers")  # in the copy: what was changed, a folder for each overlay


def mount(*args):
    subprocess.run(("mount", *args), check=True)


def overlay(lower, target, number):
    """Over `lower` at `target`; its changes end up in LAYERS/number."""
    upper, work = LAYERS / str(number), LAYERS / f"{number}.work"
    upper.mkdir()
    work.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount("-t", "overlay", "-o", options, "none", str(target))


def enter():
    """Called in the namespaces: this process goes on in the copy."""
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "tmpfs", "/run")
    LAYERS.mkdir()
    root = LAYERS / "root"
    root.mkdir()
    overlay("/", root, 0)
    for number, folder in enumerate(sorted({SOURCE, BUILD.resolve()}), 1):
        overlay(folder, f"{root}{folder}", number)
    for folder in ("/dev", "/proc", "/sys"):
        mount("--rbind", folder, f"{root}{folder}")
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", f"{root}/dev/shm")
    mount("--bind", "/run", f"{root}/run")
    os.chroot(root)
    os.chdir(SOURCE)


def changed():
    """Paths of files that were added, changed or removed, apart from those in the build folder."""
    found = set()
    folders = ["/", *sorted({str(SOURCE), str(BUILD.resolve())})]
    for number, folder in enumerate(folders):
        upper = LAYERS / str(number)
        for path in upper.rglob("*"):
            if not stat.S_ISDIR(path.lstat().st_mode):
                found.add(os.path.join(folder, path.relative_to(upper)))
    return {p for p in found if not Path(p).is_relative_to(BUILD.resolve())}


def in_a_copy(run):
    """Run a function in a copy of the machine, if that can be had: else why not."""
    if sys.argv[1:] == ["inside"]:
        enter()
        run()
    attempt = [*NAMESPACES, "mount", "-t", "overlay", "-o", "lowerdir=/etc:/usr", "none", "/mnt"]
    tried = subprocess.run(attempt, capture_output=True, text=True, check=False)
    if tried.returncode:
        return tried.stderr.strip() or "no namespaces"
    command = [*NAMESPACES, sys.executable, sys.argv[0], "inside"]
    sys.exit(subprocess.run(command, check=False).returncode)
