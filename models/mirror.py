#!/usr/bin/env python3
"""The accesses to shared memory that the models mirror, as the code has them now.

    mirror.py             compare with mirrored.txt; TAP
    mirror.py --record    write mirrored.txt anew, after the models have been looked at

A model names functions of the code in lines `mirrors F G ...` of its head. mirrored.txt holds, for
each, where it is, and in their order: atomic accesses and fences, with what they touch; barriers,
waits and wakes; and calls of functions that have any. Who changes one of these is told which
models to look at.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RECORD = HERE / "mirrored.txt"
ROOMS = ("libshmps/base", "libshmps/layout", "libshmps/ring", "libshmps/client", "pubsubd")

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"", re.S)
# A function begins in column 0 and ends with a brace there.
FUNCTION = re.compile(r"^[a-z][\w ]*?[ *](\w+)\([^;{}]*\) \{\n(.*?)^\}", re.S | re.M)
ACCESS = re.compile(
    r"\b(atomic_(?:load|store|add|cas)_(?:relaxed|acquire|release)|fence_\w+|compiler_barrier"
    r"|barrier_everyone|wait_on_words|wake_word|descriptor_arm|copy_(?:in|out)_relaxed)\("
)
CALL = re.compile(r"\b(\w+)\(")


def argument(code: str, begin: int) -> str:
    """The first argument of a call, as it is written, without blanks."""
    depth = 0
    for i in range(begin, len(code)):
        if code[i] in "([":
            depth += 1
        elif code[i] in ")]" and depth > 0:
            depth -= 1
        elif code[i] in ",)" and depth == 0:
            return re.sub(r"\s+", "", code[begin:i])
    return ""


def functions() -> dict[str, list[tuple[str, str]]]:
    """Name -> (file, body) of each function of that name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).glob("*.[ch]")):
            code = COMMENT.sub("", path.read_text(encoding="utf-8"))
            for name, body in FUNCTION.findall(code):
                found.setdefault(name, []).append((path.relative_to(ROOT).as_posix(), body))
    return found


def touching(all_functions: dict[str, list[tuple[str, str]]]) -> set[str]:
    """The functions that touch shared memory, or call one that does."""
    names = {n for n, bodies in all_functions.items() if any(ACCESS.search(b) for _, b in bodies)}
    while True:
        more = {
            n for n, bodies in all_functions.items()
            if n not in names and any(names & set(CALL.findall(b)) for _, b in bodies)
        }
        if not more:
            return names
        names |= more


def sequence(body: str, interesting: set[str]) -> list[str]:
    steps = []
    for call in CALL.finditer(body):
        if ACCESS.match(call[0]):
            steps.append(f"{call[1]} {argument(body, call.end())}".rstrip())
        elif call[1] in interesting:
            steps.append(f"{call[1]}()")
    return steps


def mirrored() -> dict[str, list[str]]:
    """Function -> the models that mirror it."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("*.pml")):
        head = path.read_text(encoding="utf-8").split("*/")[0]
        for line in re.findall(r"^ \* mirrors (.*)$", head, re.M):
            for name in line.split():
                found.setdefault(name, []).append(path.name)
    return found


def as_it_is() -> tuple[dict[str, str], list[str]]:
    """Function -> what mirrored.txt has to say of it; and names that no function has."""
    all_functions = functions()
    interesting = touching(all_functions)
    texts, unknown = {}, []
    for name in sorted(mirrored()):
        if name not in all_functions:
            unknown.append(name)
            continue
        lines = []
        for file, body in all_functions[name]:
            lines.append(f"{name}: {file}")
            lines += [f"    {step}" for step in sequence(body, interesting)]
        texts[name] = "\n".join(lines) + "\n"
    return texts, unknown


def recorded() -> dict[str, str]:
    texts: dict[str, str] = {}
    if RECORD.exists():
        for text in re.findall(r"^\w+: .*\n(?:    .*\n)*", RECORD.read_text(), re.M):
            name = text.split(":")[0]
            texts[name] = texts.get(name, "") + text
    return texts


def checks() -> list[tuple[str, str | None]]:
    """Cases of the test: name, and why it fails or None."""
    texts, unknown = as_it_is()
    before, models, why = recorded(), mirrored(), []
    for name in unknown:
        why.append(f"{name}, mirrored by {' '.join(models[name])}, is no function any more")
    for name, text in texts.items():
        if before.get(name) != text:
            why.append(f"{name} has changed: look at {' '.join(models[name])}. Recorded:")
            why += before.get(name, "    nothing\n").splitlines() + ["Now:"] + text.splitlines()
    if why:
        why.append("When the models are right: models/mirror.py --record")
    return [("the code is what the models mirror", "\n".join(why) or None)]


def main() -> int:
    if sys.argv[1:] == ["--record"]:
        texts, unknown = as_it_is()
        RECORD.write_text("".join(texts.values()), encoding="utf-8")
        print("no function:", *unknown) if unknown else None
        return 1 if unknown else 0
    failed = 0
    for number, (name, why) in enumerate(checks(), 1):
        failed += why is not None
        print(f"{'not ok' if why else 'ok'} {number} - {name}")
        for line in (why or "").splitlines():
            print(f"#   {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
