"""No call of the extension leaves references or memory behind, also if it is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import BUILD, SOURCE, Bus

DEBUG = shutil.which("python3-dbg")
PROGRAM = str(Path(__file__).with_name("every_call.py"))


def told_by(*command: str, **env: str) -> str:
    """What it says, if it finds nothing."""
    done = subprocess.run(
        [*command, "-X", "dev", "-W", "error", PROGRAM],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


def test_no_memory_is_left(bus_env: Bus) -> None:
    assert "0 references" in told_by(sys.executable)


def built_for(python: str, place: Path) -> None:
    """The package for a debug build of Python, which counts references in the extension, too."""
    (place / "shmps").mkdir()
    for source in (SOURCE / "python/shmps").glob("*.py"):
        shutil.copy(source, place / "shmps")
    include = "import sysconfig; print(sysconfig.get_path('include'))"
    subprocess.run(
        [
            *os.environ.get("CC", "cc").split(),
            *("-g", "-shared", "-fPIC", "-D_GNU_SOURCE", "-DPy_LIMITED_API=0x030b0000"),
            f"-I{subprocess.check_output([python, '-c', include], text=True).strip()}",
            f"-I{SOURCE / 'include'}",
            *map(str, (SOURCE / "python/native").glob("*.c")),
            *("-o", str(place / "shmps/_native.abi3.so")),
            *(f"-L{BUILD / 'libshmps'}", "-lshmps", f"-Wl,-rpath,{BUILD / 'libshmps'}"),
        ],
        check=True,
    )


@pytest.mark.skipif(not DEBUG, reason="needs the package python3-dbg")
def test_references_under_a_debug_build(bus_env: Bus, tmp_path: Path) -> None:
    assert DEBUG
    built_for(DEBUG, tmp_path)
    print(told_by(DEBUG, PYTHONPATH=str(tmp_path)))
