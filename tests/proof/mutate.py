#!/usr/bin/env python3
"""Break the sources on purpose, one place after the other: is it noticed?

Mutations are generated from the text of the files below: each memory order weakened, each fence,
barrier and store removed, each check taken out or forced, each comparison and each min/max
changed, each statement removed, neighbours that touch shared memory swapped. Each is compiled into
the checker (prove.c) and, if that finds nothing, into the unit tests of the ring.

    mutate.py [--list] [--match TEXT] [--no-units] [--minutes N] [--report FILE] [FILE...]

Prints one line for each; the report is a table. Exit status 0 also when some survive.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = ROOT / "libshmps"
PROOF = ROOT / "tests" / "proof"
FILES = (
    "ring/publisher.c",
    "ring/publisher.h",
    "ring/reader.c",
    "ring/reader.h",
    "ring/observer.c",
    "client/rest.c",
    "client/room.c",
)
UNIT_TESTS = ("test_ring", "test_ring_edges", "test_ring_hostile")
FLAGS = ["-std=gnu11", "-O1", "-w", "-D_GNU_SOURCE", '-DSHMPS_VERSION="0"', "-DHAVE_LIBURING=0"]
DOOR = ["-I", str(PROOF / "door"), "-include", "stdatomic.h"]

ORDERS = {
    "atomic_load_acquire": "atomic_load_relaxed",
    "atomic_store_release": "atomic_store_relaxed",
    "atomic_add_release(": "atomic_add_relaxed_(",
}
FENCES = ("fence_seq_cst", "fence_acquire", "fence_release", "compiler_barrier")
COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
TOUCHES = re.compile(
    r"\batomic_|\bfence_|barrier|\bcopy_(in|out)_|\btell\(|\bset_starved|\bload_|\bstore_"
    r"|\bring_\w+\(|\barm\("
)
NO_EXPRESSION = re.compile(
    r"(return|break|continue|goto|case|default|else|do|for|if|while|switch|static|const|struct"
    r"|enum|union|void|bool|char|int|size_t|u?int\d+_t|atomic_u\d+|\w+:)\b|[#}]|$"
)


@dataclass(frozen=True)
class Mutation:
    """`text`[start:end] of a file becomes `new`."""

    file: str
    text: str
    line: int
    function: str
    what: str
    start: int
    end: int
    new: str


def blank(text: str) -> str:
    """Comments and literals become spaces; all else stays where it is."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def functions(code: str) -> list[tuple[str, int, int]]:
    """Name, start and end of each body: it begins and ends in column 0."""
    found = []
    pattern = r"^[A-Za-z_][^;{}#]*?(\w+)\s*\([^;{}]*\)\s*\{\n(.*?)^\}"
    for m in re.finditer(pattern, code, re.M | re.S):
        found.append((m[1], m.start(2), m.end(2)))
    return found


def closing(code: str, at: int) -> int:
    """The position after the parenthesis that closes the one at `at`."""
    depth = 0
    for i in range(at, len(code)):
        depth += {"(": 1, ")": -1}.get(code[i], 0)
        if depth == 0:
            return i + 1
    return len(code)


def statements(code: str, start: int, end: int) -> list[tuple[int, int]]:
    """Simple statements, with their semicolons; those of one block follow each other."""
    found, begin, depth = [], start, 0
    for i in range(start, end):
        c = code[i]
        depth += {"(": 1, ")": -1}.get(c, 0)
        if depth == 0 and c in "{};:" and not (c == ":" and "?" in code[begin:i]):
            if c == ";":
                first = begin + len(code[begin:i]) - len(code[begin:i].lstrip())
                found.append((first, i + 1))
            begin = i + 1
        elif depth == 0 and c == ")" and re.match(r"\s*(if|while|for|switch)\b", code[begin:i]):
            begin = i + 1
    return found


def sites(file: str) -> list[Mutation]:
    text = (ROOMS / file).read_text()
    code = blank(text)
    found: list[Mutation] = []

    for name, start, end in functions(code):
        def add(what: str, a: int, b: int, new: str, function: str = name) -> None:
            line = code.count("\n", 0, a) + 1
            found.append(Mutation(file, text, line, function, what, a, b, new))

        for old, new in ORDERS.items():
            for m in re.finditer(re.escape(old), code[start:end]):
                add(f"{old.rstrip('(')} -> relaxed", start + m.start(), start + m.end(), new)
        for m in re.finditer(r"\b(" + "|".join(FENCES) + r")\(\)", code[start:end]):
            add(f"{m[1]} removed", start + m.start(), start + m.end(), "(void)0")
            if m[1] == "fence_seq_cst":
                add("fence_seq_cst -> acquire + release", start + m.start(), start + m.end(),
                    "(fence_acquire(), fence_release())")
        for m in re.finditer(r"\bbarrier_everyone\(\)", code[start:end]):
            add("membarrier removed", start + m.start(), start + m.end(), "barrier_registered()")
        for m in re.finditer(r"\b(if|while)\s*(?=\()", code[start:end]):
            a = start + m.end()
            b = closing(code, a)
            condition = " ".join(text[a:b].split())
            add(f"{m[1]} {condition} -> never", a, b, f"(0 && {text[a:b]})")
            if m[1] == "if":
                add(f"if {condition} -> always", a, b, f"(1 || {text[a:b]})")
        for m in re.finditer(r"(?<![-<>=!])(<=|>=|==|!=|<|>)(?![<>=])", code[start:end]):
            new = COMPARISONS[m[1]]
            around = " ".join(text[start + m.start() - 18 : start + m.end() + 18].split())
            add(f"{m[1]} -> {new} in ...{around}...", start + m.start(), start + m.end(), new)
        for m in re.finditer(r"\b(min|max)_u64\b", code[start:end]):
            new = "max_u64" if m[1] == "min" else "min_u64"
            add(f"{m[0]} -> {new}", start + m.start(), start + m.end(), new)
        simple = statements(code, start, end)
        for a, b in simple:
            if code[a:b] != ";" and not NO_EXPRESSION.match(code[a:b]):
                add(f"removed: {' '.join(text[a:b].split())}", a, b, ";")
        for (a, b), (c, d) in zip(simple, simple[1:]):
            if code[b:c].strip() or re.match(r"return|break|continue", code[a:b]):
                continue
            if re.match(r"return|break|continue", code[c:d]):
                continue
            if TOUCHES.search(code[a:b]) and TOUCHES.search(code[c:d]):
                add(f"swapped: {' '.join(text[a:b].split())} {' '.join(text[c:d].split())}", a, d,
                    text[c:d] + " " + text[a:b])
    return found


class Builder:
    """Objects of the unbroken sources, and programs with one file broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        meson = (PROOF / "meson.build").read_text()
        listed = re.findall(r"'([\w./]+\.c)'", meson)
        self.sources = [(PROOF / p).resolve() for p in listed]
        self.objects = {p: folder / (re.sub(r"\W", "_", str(p)) + ".o") for p in self.sources}
        for p, o in self.objects.items():
            self.compile(p, o, [])

    def flags(self, source: Path) -> list[str]:
        plain = {"accesses.c", "memory.c", "scheduler.c", "search.c"}
        own = source.parent == PROOF and source.name in plain
        return FLAGS + ([] if own else DOOR)

    def compile(self, source: Path, to: Path, overlay: list[str]) -> bool:
        command = ["gcc", *self.flags(self.origin(source)), *overlay]
        command += ["-I", str(ROOT / "include"), "-I", str(ROOMS), "-I", str(PROOF)]
        command += ["-Datomic_add_relaxed_(p,v)=atomic_fetch_add_explicit(p,v,__ATOMIC_RELAXED)"]
        run = subprocess.run([*command, "-c", str(source), "-o", str(to)], capture_output=True)
        return run.returncode == 0

    def origin(self, source: Path) -> Path:
        try:
            return ROOMS / source.relative_to(self.folder / "broken")
        except ValueError:
            return source

    def write(self, m: Mutation) -> Path:
        broken = self.folder / "broken" / m.file
        broken.parent.mkdir(parents=True, exist_ok=True)
        broken.write_text(m.text[: m.start] + m.new + m.text[m.end :])
        return broken

    def build_prove(self, m: Mutation, broken: Path) -> Path | None:
        overlay = ["-I", str(self.folder / "broken")]
        objects = dict(self.objects)
        again = [ROOMS / m.file] if m.file.endswith(".c") else [
            p for p in self.sources if ROOMS in p.parents and p.parent.name in ("ring", "client")
        ]
        for p in again:
            objects[p] = self.folder / "broken.o" if len(again) == 1 else (
                self.folder / f"broken_{p.parent.name}_{p.stem}.o")
            source = broken if len(again) == 1 else p
            if not self.compile(source, objects[p], overlay):
                return None
        program = self.folder / "prove"
        link = ["gcc", "-o", str(program), *map(str, objects.values()), "-lpthread"]
        return program if subprocess.run(link, capture_output=True).returncode == 0 else None

    def unit_test(self, name: str, broken: Path) -> bool:
        """Does a unit test of the ring fail? It is compiled with the broken file in front."""
        program = self.folder / name
        rooms = [p for p in self.sources if p.parent.name in ("base", "layout")]
        if name != "test_ring_edges":
            rooms += [p for p in self.sources if p.parent.name == "ring"]
        own = {ROOMS / broken.relative_to(self.folder / "broken"): broken}
        command = ["gcc", *FLAGS, "-I", str(self.folder / "broken"), "-I", str(ROOT / "include")]
        command += ["-I", str(ROOMS), str(ROOT / "tests" / "unit" / f"{name}.c")]
        command += [str(own.get(p, p)) for p in rooms] + ["-o", str(program), "-lcmocka"]
        if subprocess.run(command, capture_output=True).returncode != 0:
            return False
        return run_program([str(program)], 60)[0] != 0


def run_program(command: list[str], seconds: int) -> tuple[int, str]:
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        return run.returncode, run.stdout
    except subprocess.TimeoutExpired as e:
        return -1, (e.stdout or b"").decode() + "\n# it does not end\n"


# First a few schedules of each scenario, then more.
ROUNDS = (
    ["--schedules", "60"],
    ["--schedules", "500", "--from", "60", "--small", "--cap", "3000"],
)


def rank(m: Mutation) -> int:
    """What orders memory comes first, then what touches it, then checks, then all else."""
    if m.what.endswith("-> relaxed") or re.match(r"fence_|compiler_|membarrier", m.what):
        return 0
    if m.what.startswith("swapped") or (m.what.startswith("removed") and TOUCHES.search(m.what)):
        return 1
    return 2 if re.match(r"if |while ", m.what) else 3


def judge(builder: Builder, m: Mutation, units: bool) -> tuple[str, str]:
    """By what it was caught, and how; or "survives"."""
    broken = builder.write(m)
    try:
        program = builder.build_prove(m, broken)
        if program is None:
            return "no program", ""
        before = 0
        for more in ROUNDS:
            status, output = run_program([str(program), "--early", *more], 240)
            total = re.findall(r"# (\d+) schedules, \d+ steps,", output)
            if status != 0:
                cause = [x for x in output.splitlines() if re.match(r"# \w+, (sc|tso|weak): ", x)]
                why = cause[-1][2:] if cause else "it crashes or does not end"
                return "scheduler", f"{before + int(total[-1] if total else 0)} schedules; {why}"
            before += int(total[-1])
        if units and m.file.startswith("ring/"):
            for name in UNIT_TESTS:
                if builder.unit_test(name, broken):
                    return name, ""
        return "survives", ""
    finally:
        broken.unlink()


def reasons() -> dict[tuple[str, ...], str]:
    """Of survivors.txt: (file, function, mutation) -> why it survives."""
    lines = (PROOF / "survivors.txt").read_text().splitlines()
    split = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return {tuple(cells[:3]): cells[3] for cells in split}


def row(m: Mutation, by: str, how: str) -> str:
    cells = (f"{m.file}:{m.line}", m.function, f"`{m.what}`".replace("|", "\\|"), by, how)
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("files", nargs="*", default=FILES)
    parser.add_argument("--list", action="store_true", help="print the mutations only")
    parser.add_argument("--match", default="", help="only those whose text contains this")
    parser.add_argument("--no-units", action="store_true", help="without the unit tests")
    parser.add_argument("--minutes", type=float, default=1e9, help="then the rest is left untried")
    parser.add_argument("--report", type=Path, help="write a table")
    a = parser.parse_args()
    mutations = [m for f in a.files for m in sites(f) if a.match in f"{m.function} {m.what}"]
    mutations.sort(key=rank)
    if a.list:
        for m in mutations:
            print(f"{m.file}:{m.line} {m.function}: {m.what}")
        print(f"{len(mutations)} mutations")
        return 0
    known = reasons()
    end = time.monotonic() + 60 * a.minutes
    counts: dict[str, int] = {}
    rows = []
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        builder = Builder(Path(folder))
        for m in mutations:
            by, how = "untried", ""
            if time.monotonic() < end:
                by, how = judge(builder, m, not a.no_units)
            if by == "survives":
                how = known.get((m.file, m.function, m.what), "open: no reason yet")
            counts[by] = counts.get(by, 0) + 1
            if by != "no program":
                rows.append(row(m, by, how))
                print(f"{by}: {m.file}:{m.line} {m.function}: {m.what} - {how}", flush=True)
    summary = ", ".join(f"{n} {by}" for by, n in sorted(counts.items()))
    print(f"# {summary}")
    if a.report:
        head = "| place | function | mutation | caught by | after, how |\n|---|---|---|---|---|\n"
        a.report.write_text(head + "\n".join(rows) + f"\n\n{summary}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
