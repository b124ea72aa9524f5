"""`python -m shmps ...`: the tool. A wheel brings it and pubsubd along, and runs both by this."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn


def run(name: str) -> NoReturn:
    """Become the program: the one inside of the package, else the one in PATH."""
    inside = Path(__file__).parent / "bin" / name
    program = str(inside) if inside.exists() else shutil.which(name)
    if program is None:
        sys.exit(f"shmps: no program {name}, neither in the package nor in PATH: install shmps")
    os.execv(program, [name, *sys.argv[1:]])


def shmps() -> NoReturn:
    run("shmps")


def pubsubd() -> NoReturn:
    run("pubsubd")


if __name__ == "__main__":
    shmps()
