#!/usr/bin/env python3
"""Check the models with spin. TAP, one case per line that a model's head lists.

    run.py [--all] [--jobs N] [MODEL...]    the cases of all models, or of some
    run.py --trace MODEL VARIANT            the steps that lead a variant to its error

In the comment that a model begins with:

    holds   WHAT     FLAGS              no property is violated, in any state
    holds+  WHAT     FLAGS              the same, larger: only with --all, or SHMPS_MODELS=all
    reaches WHAT     FLAGS  MARK        a state that matters is reached, else nothing is proved
    breaks  VARIANT  FLAGS  PROPERTY    with -DVARIANT, just this property is violated

A search that was not finished is a failure of `holds`. Before the models, the code that they
mirror is compared with models/mirrored.txt (mirror.py). Exit status 1 if a case fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import mirror

HERE = Path(__file__).resolve().parent
LIMIT_S = {False: 100, True: 1800}  # of one case; with --all
MEMORY_MB = {False: 1500, True: 6000}
DEPTH = 20_000  # of a path, in steps; far more than there are
HASH = {False: "-w21", True: "-w26"}  # so many bits: the hash table

CASE = re.compile(r"^ \* (holds\+?|reaches|breaks) +(.*?)(?: {2,}(-D.*?))?(?: {2,}(\w+))?$")
ERROR = re.compile(r"^pan:\d+: (.*) \(at depth", re.M)
FIGURES = (
    ("states", re.compile(r"([\d.e+]+) states, stored")),
    ("depth", re.compile(r"depth reached (\d+)")),
)
UNFINISHED = re.compile(r"Search not completed|max search depth too small|out of memory|aborting")


@dataclass(frozen=True)
class Case:
    model: str
    kind: str  # holds, holds+, reaches, breaks
    what: str
    flags: tuple[str, ...]
    names: str  # the property that breaks, or the mark that is reached

    def title(self) -> str:
        return f"{self.model}: {self.kind.rstrip('+')} {self.what} {' '.join(self.flags)}"


def cases_of(path: Path) -> list[Case]:
    cases = []
    head = path.read_text(encoding="utf-8").split("*/")[0]
    for line in head.splitlines():
        found = CASE.match(line)
        if not found:
            continue
        kind, what, flags, names = found.groups()
        if (kind in ("reaches", "breaks")) != (names is not None):
            sys.exit(f"{path.name}: what does this case expect? {line}")
        variant = (f"-D{what}",) if kind == "breaks" else ()
        cases.append(
            Case(path.stem, kind, what, variant + tuple((flags or "").split()), names or "")
        )
    return cases


def violated(said: str) -> str | None:
    """The name of what pan has found to be violated: the last word of an assertion."""
    error = ERROR.search(said)
    if not error:
        return None
    if "invalid end state" in error[1]:
        return "everything_ends"
    return re.findall(r"\w+", error[1])[-1]


def build(case: Case, place: Path, large: bool) -> None:
    subprocess.run(
        ["spin", *case.flags, "-a", str(HERE / f"{case.model}.pml")],
        cwd=place, check=True, capture_output=True, text=True,
    )
    # tcc makes slower checkers than gcc, but at once; most end before gcc would have.
    compiler = ["tcc"] if shutil.which("tcc") and not large else ["gcc", "-O2"]
    options = ["-w", "-DSAFETY", "-DVECTORSZ=1024", f"-DMEMLIM={MEMORY_MB[large]}"]
    subprocess.run(
        [*compiler, *options, *["-DCOLLAPSE"] * large, "-o", "pan", "pan.c"],
        cwd=place, check=True, capture_output=True, text=True,
    )


def judge(case: Case, said: str) -> str | None:
    """Why the case fails, or None."""
    name = violated(said)
    if case.kind.startswith("holds"):
        if name is not None:
            return f"{name} does not hold"
        if "errors: 0" not in said or UNFINISHED.search(said):
            return "the search was not finished: " + " ".join(said.split())[-200:]
        return None
    if name == case.names:
        return None
    return f"{name} instead of {case.names}" if name else f"{case.names}: nothing was found"


def run(case: Case, large: bool) -> tuple[str | None, str]:
    """Why it fails, or None; and figures."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shmps-model-") as folder:
        place = Path(folder)
        try:
            build(case, place, large)
            pan = subprocess.run(
                ["./pan", f"-m{DEPTH}", HASH[large]],
                cwd=place, capture_output=True, text=True, timeout=LIMIT_S[large],
            )
        except subprocess.CalledProcessError as error:
            return f"{error.cmd[0]}: {error.stdout}{error.stderr}", ""
        except subprocess.TimeoutExpired:
            return f"not finished within {LIMIT_S[large]} s", ""
    said = pan.stdout + pan.stderr
    figures = [
        f"{name} {int(float(found[1]))}" for name, pattern in FIGURES
        if (found := pattern.search(said))
    ]
    return judge(case, said), ", ".join([*figures, f"{time.monotonic() - began:.1f} s"])


def trace(case: Case) -> None:
    with tempfile.TemporaryDirectory(prefix="shmps-model-") as folder:
        place = Path(folder)
        build(case, place, False)
        subprocess.run(["./pan", f"-m{DEPTH}"], cwd=place, capture_output=True, check=False)
        # Once more, up to the shortest that it finds soon.
        subprocess.run(
            ["timeout", "60", "./pan", "-i", "-m3000"], cwd=place, capture_output=True, check=False
        )
        subprocess.run(["./pan", "-r", "-n"], cwd=place, check=False)


def models(names: list[str]) -> list[Path]:
    found = sorted(HERE.glob("*.pml"))
    unknown = set(names) - {path.stem for path in found}
    if unknown:
        sys.exit(f"no model {', '.join(sorted(unknown))}")
    return [path for path in found if not names or path.stem in names]


def selected(paths: list[Path], large: bool) -> list[Case]:
    cases = [case for path in paths for case in cases_of(path)]
    return [case for case in cases if large or case.kind != "holds+"]


class Tap:
    def __init__(self, planned: int) -> None:
        self.number = self.failed = 0
        print(f"1..{planned}", flush=True)

    def case(self, name: str, why: str | None, figures: str = "") -> None:
        self.number += 1
        self.failed += why is not None
        print(f"{'not ok' if why else 'ok'} {self.number} - {name}", flush=True)
        for line in [figures] * bool(figures) + (why or "").splitlines():
            print(f"#   {line}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args()
    if asked.trace:
        model, variant = asked.names
        for case in cases_of(HERE / f"{model}.pml"):
            if case.what == variant:
                trace(case)
                return 0
        sys.exit(f"{model} has no case {variant}")
    large = asked.all or os.environ.get("SHMPS_MODELS") == "all"
    cases = selected(models(asked.names), large)
    mirrored = [] if asked.names else mirror.checks()
    if not shutil.which("spin"):
        tap = Tap(len(mirrored) + 1)
        for name, why in mirrored:
            tap.case(name, why)
        tap.case("models # SKIP needs the package spin", None)
        return 1 if tap.failed else 0
    tap = Tap(len(mirrored) + len(cases))
    for name, why in mirrored:
        tap.case(name, why)
    with ThreadPoolExecutor(asked.jobs) as pool:
        for case, (why, figures) in zip(cases, pool.map(lambda c: run(c, large), cases)):
            tap.case(case.title(), why, figures)
    return 1 if tap.failed else 0


if __name__ == "__main__":
    sys.exit(main())
