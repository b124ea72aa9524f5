"""Where memory runs out, wherever that is: MemoryError, or success. See no_memory.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Bus

HERE = Path(__file__).parent


@pytest.mark.timeout(110)
def test_each_allocation_fails(bus_env: Bus, tmp_path: Path) -> None:
    hook = tmp_path / "no_memory.so"
    compiler = os.environ.get("CC", "cc").split()
    flags = ["-O2", "-shared", "-fPIC", str(HERE / "no_memory.c"), "-o", str(hook)]
    subprocess.run([*compiler, *flags], check=True)
    done = subprocess.run(
        [sys.executable, str(HERE / "no_memory.py")],
        env={**os.environ, "LD_PRELOAD": str(hook), "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
