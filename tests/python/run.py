#!/usr/bin/env python3
"""Run a file of tests with pytest and what it uses, as ./dev has put them into build/venv. TAP.

tests/python/run.py FILE [OPTION...]    with the build directory in $BUILD; $SHMPS_VENV: the venv;
                                        $SHMPS_PRELOAD: what the sanitizers of a build need
"""

import os
import sys
from pathlib import Path

VENV = Path(os.environ.get("SHMPS_VENV") or Path(os.environ["BUILD"], "venv"))
PYTHON = VENV / "bin" / "python"

options = sys.argv[1:]
if "SHMPS_PRELOAD" in os.environ:
    options.append("--capture=sys")  # what a sanitizer says before it aborts is to be seen
    os.environ["LD_PRELOAD"] = os.environ["SHMPS_PRELOAD"]
    os.environ["PYTHONMALLOC"] = "malloc"  # else they do not see what Python allocates
if PYTHON.exists():
    os.execv(PYTHON, [str(PYTHON), "-m", "pytest", "--tap", *options])
print("1..1\nok 1 - tools of PyPI # SKIP ./dev test gets them")
