#!/usr/bin/env python3
"""The rules that a machine can hold: who may include whom, sizes, forbidden calls, atomics.

Checks the tree that it is in. TAP, one case per rule; exit status 1 if a rule is broken.
tests/tidy_test.py breaks every rule on purpose.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LINE_COLUMNS = 100  # a line is shorter than this
FILE_LINES = 600
FUNCTION_LINES = 70

# What a folder may include besides itself: rooms, and public headers. The longest prefix counts.
ROOMS = ("base", "layout", "ring", "wait", "wire", "client")
ALL_ROOMS = set(ROOMS)
ERROR = {"shmps/error.h"}
PUBLIC = {"shmps/error.h", "shmps/shmps.h"}
FOLDERS = {
    "include/shmps/": (set(), PUBLIC),
    "libshmps/base/": (set(), PUBLIC),
    "libshmps/layout/": ({"base"}, PUBLIC),
    "libshmps/ring/": ({"layout", "base"}, PUBLIC),
    "libshmps/wait/": ({"base"}, PUBLIC),
    "libshmps/wire/": ({"base"}, PUBLIC),
    "libshmps/client/": (ALL_ROOMS, PUBLIC),
    "pubsubd/": ({"layout", "wire", "wait", "base"}, ERROR),
    "tools/": (set(), PUBLIC),
    "tools/demo/": (set(), PUBLIC),
    "tools/bench/": (set(), PUBLIC),
    "examples/": (set(), PUBLIC),
    "python/native/": (set(), PUBLIC),
    "tests/": (ALL_ROOMS, PUBLIC),
    "models/": (set(), set()),
}
# The tool's viewers read segments, read-only.
VIEWERS = tuple(
    f"tools/{name}"
    for name in (
        "cmd_dump.c",
        "cmd_gc.c",
        "cmd_info.c",
        "cmd_ls.c",
        "cmd_top.c",
        "doctor_bus.c",
        "doctor_kernel.c",
        "doctor_system.c",
        "leftovers.c",
        "leftovers.h",
        "view.c",
        "view.h",
    )
)
VIEWER_ROOMS = {"layout", "base"}
VIEWER_HEADERS = {"ring/observer.h"}
# The daemon's pure parts, tested as the rooms are; what the models say of the layout.
OTHER_PARTS = {
    ("tests/unit/test_config.c", "pubsubd/config.h"),
    ("tests/unit/test_models.c", "models/constants.h"),
}
# Compiles the ring's sources with accesses that it can stop at.
STOPPING = "tests/unit/test_ring_edges.c"
# The algorithm makes no system calls and allocates nothing: all the libc headers it may see.
RING_LIBC = {"stdbool.h", "stddef.h", "stdint.h", "string.h"}

# Kept byte for byte as they were when the machine's bare limits were measured with them.
FOREIGN = ("tools/bench/limits.c", "tools/bench/common.h")

FORBIDDEN_CALLS = {
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "strcpy": "memcpy or snprintf, with the size known",
    "strcat": "snprintf, with the size known",
    "strncpy": "memcpy or snprintf: it may leave out the NUL",
    "strncat": "snprintf, with the size known",
    "gets": "fgets",
    "alloca": "an array of fixed size, or malloc",
    "atoi": "strtol with a look at errno and the end",
}
# Written in two halves, so that this file does not break its own rule.
FORBIDDEN_WORDS = ("TO" "DO", "FIX" "ME", "XX" "X", "HA" "CK", "/wo" "rk/", "/wo" 'rk"')
WORDS_BINARY = (".png", ".ico", ".gz")

# What touches shared memory: its atomics carry a comment, and go through base/atomic.h.
SHARED = ("libshmps/", "pubsubd/", "tools/")
ATOMIC_HOME = "libshmps/base/atomic.h"
RAW_ATOMICS_ALLOWED = {
    "tools/bench/": "sees the public API only; its atomics are between its own threads",
    "tools/demo/": "sees the public API only; its atomics are between its own threads",
    "examples/": "sees the public API only",
    "tests/": "places states by hand and runs threads of its own",
}
COMMENT_REACH = 8  # lines above an atomic in which its comment may stand
ATOMIC_SITE = re.compile(
    r"\b(?:atomic_(?:load|store|add|cas)_\w+|fence_\w+|compiler_barrier)\s*\("
)
ATOMIC_RAW = re.compile(
    r"\b__atomic_\w+|\b__sync_\w+|\bmemory_order_\w+|\batomic_\w+_explicit\b"
    r"|<stdatomic\.h>|\b_Atomic\b"
    r"|\batomic_(?:thread_fence|signal_fence|init|exchange|fetch_\w+|flag\w*|load|store)\b"
)


def split_comments(text):
    """C text -> lines of code, without comments and insides of literals; lines of comments."""
    code, comments, i, n, state = [], [], 0, len(text), "code"
    while i < n:
        c, two = text[i], text[i : i + 2]
        if c == "\n":
            code.append(c)
            comments.append(c)
            if state == "line":
                state = "code"
        elif state == "code" and two in ("/*", "//"):
            state = "block" if two == "/*" else "line"
            i += 1
        elif state == "block" and two == "*/":
            state = "code"
            i += 1
        elif state in ("block", "line"):
            comments.append(c)
        elif state == "code":
            code.append(c)
            if c in "\"'":
                state = c
        elif c == "\\" and text[i + 1 : i + 2] != "\n":
            i += 1
        elif c == state:
            code.append(c)
            state = "code"
        i += 1
    return "".join(code).split("\n"), "".join(comments).split("\n")


class Source:
    """One file: its path from the root, its text and, of C, its code and comments by line."""

    def __init__(self, root, path):
        self.path = path
        self.text = (root / path).read_text(encoding="utf-8", errors="surrogateescape")
        self.lines = self.text.splitlines()
        self.is_c = path.endswith((".c", ".h"))
        self.foreign = path in FOREIGN
        self.code, self.comments = split_comments(self.text) if self.is_c else ([], [])


def tree(root):
    """Every file of the project that is text: what git would list, without asking git."""
    sources = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        first = name.split("/")[0]
        if (
            not path.is_file()
            or path.is_symlink()
            or first in (".git", ".mypy_cache", ".hypothesis")
            or first.startswith("build")
            or "__pycache__" in name
            or name.startswith("demo-out/")
            or name.endswith(WORDS_BINARY)
        ):
            continue
        sources.append(Source(root, name))
    return sources


def folder_of(path):
    return max((f for f in FOLDERS if path.startswith(f)), key=len, default=None)


def include_trouble(source, name, quoted, root):
    """Why this file may not have this include, or None."""
    folder = folder_of(source.path)
    if folder is None:
        return "C sources belong into one of the known folders"
    rooms, public = FOLDERS[folder]
    headers = set()
    if source.path in VIEWERS:
        rooms, headers = VIEWER_ROOMS, VIEWER_HEADERS
    if not quoted:
        if name.startswith("shmps/"):
            return None if name in public else f"<{name}> is not for {folder}"
        if folder == "libshmps/ring/" and name not in RING_LIBC:
            return f"<{name}>: the ring makes no system calls and allocates nothing"
        return None
    if name.endswith(".c") and source.path != STOPPING:
        return f'"{name}": sources are not included'
    if (source.path, name) in OTHER_PARTS:
        return None
    first = name.split("/")[0]
    if first in ROOMS and "/" in name:
        own = folder == f"libshmps/{first}/"
        if not (own or first in rooms or name in headers):
            return f"\"{name}\": {source.path.rsplit('/', 1)[0]} may not include {first}"
        return None if (root / "libshmps" / name).is_file() else f'"{name}": no such header'
    if folder.startswith("libshmps/"):
        return f'"{name}": write "ROOM/{name}"'
    local = (root / source.path).parent / name
    inside = local.resolve().as_posix().startswith((root.resolve() / folder).as_posix())
    return None if local.is_file() and inside else f'"{name}": not a header of {folder}'


def check_includes(sources, root):
    pattern = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
    for s in sources:
        if not s.is_c:
            continue
        for number, line in enumerate(s.lines, 1):
            match = pattern.match(line)
            if match:
                why = include_trouble(s, match[1] or match[2], match[1] is not None, root)
                if why:
                    yield s.path, number, why


def is_code(source):
    return source.path.endswith(
        (".c", ".h", ".py", ".pyi", ".sh", ".map", "meson.build")
    ) or source.path in ("dev", ".ci/run")


def check_lines(sources, _root):
    for s in sources:
        if not is_code(s) or s.foreign:
            continue
        for number, line in enumerate(s.lines, 1):
            if len(line) >= LINE_COLUMNS:
                yield s.path, number, f"{len(line)} columns (fewer than {LINE_COLUMNS})"
            if "\t" in line or line != line.rstrip():
                yield s.path, number, "a tab, or space at the end"
        if s.text and not s.text.endswith("\n"):
            yield s.path, len(s.lines), "no newline at the end"


def check_files(sources, _root):
    for s in sources:
        if is_code(s) and not s.foreign and len(s.lines) >= FILE_LINES:
            yield s.path, len(s.lines), f"{len(s.lines)} lines (fewer than {FILE_LINES})"


def c_functions(source):
    """(first line, last line, text of the first) of each function: both are in column 0."""
    start = None
    for number, line in enumerate(source.code, 1):
        if line.startswith("}"):
            if start is not None and "(" in source.code[start - 1]:
                yield start, number, source.code[start - 1].strip()
            start = None
        elif re.match(r"[A-Za-z_]", line):
            start = number
        elif line.startswith("#"):
            continue


def check_functions(sources, _root):
    for s in sources:
        if s.foreign:
            continue
        if s.is_c:
            spans = list(c_functions(s))
        elif s.path.endswith((".py", ".pyi")):
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
            spans = [
                (f.lineno, f.end_lineno, f.name)
                for f in ast.walk(ast.parse(s.text))
                if isinstance(f, kinds)
            ]
        else:
            continue
        for first, last, name in spans:
            if last - first + 1 >= FUNCTION_LINES:
                long = f"{last - first + 1} lines (fewer than {FUNCTION_LINES})"
                yield s.path, first, f"{long}: {name}"


def check_calls(sources, _root):
    pattern = re.compile(r"(?<![\w.>])(" + "|".join(FORBIDDEN_CALLS) + r")\s*\(")
    for s in sources:
        if not s.is_c or s.foreign:
            continue
        for number, line in enumerate(s.code, 1):
            for name in pattern.findall(line):
                yield s.path, number, f"{name}(): use {FORBIDDEN_CALLS[name]}"


def check_words(sources, _root):
    pattern = re.compile(
        "|".join(rf"\b{w}\b" if w.isalpha() else re.escape(w) for w in FORBIDDEN_WORDS)
    )
    for s in sources:
        if s.foreign:
            continue
        for number, line in enumerate(s.lines, 1):
            found = pattern.search(line)
            if found:
                yield s.path, number, f"the word {found[0]}"


def check_atomic_comments(sources, _root):
    for s in sources:
        if not s.is_c or s.foreign or s.path == ATOMIC_HOME or not s.path.startswith(SHARED):
            continue
        for number, line in enumerate(s.code, 1):
            site = ATOMIC_SITE.search(line)
            if not site:
                continue
            near = "\n".join(s.comments[max(0, number - 1 - COMMENT_REACH) : number])
            if not re.search(r"\bSYNC\b|\b[Rr]elaxed\b", near):
                name = site[0].rstrip("( ")
                yield s.path, number, f"{name}: no comment SYNC or relaxed near it"


def check_atomic_home(sources, _root):
    for s in sources:
        if (
            not s.is_c
            or s.foreign
            or s.path == ATOMIC_HOME
            or s.path.startswith(tuple(RAW_ATOMICS_ALLOWED))
        ):
            continue
        for number, line in enumerate(s.code, 1):
            raw = ATOMIC_RAW.search(line)
            if raw:
                yield s.path, number, f"{raw[0]}: only through {ATOMIC_HOME}"


def check_symbol_map(sources, _root):
    """The map names the functions that the public headers declare, no more and no fewer."""
    declared, mapped, map_path = set(), set(), "libshmps/libshmps.map"
    for s in sources:
        if s.path.startswith("include/shmps/") and s.is_c:
            declared |= set(
                re.findall(r"^[a-z][\w *]*?\b(shmps_\w+)\s*\(", "\n".join(s.code), re.M)
            ) - {"shmps_callback"}
        elif s.path == map_path:
            mapped |= set(
                re.findall(r"^\s*(shmps_\w+);", re.sub(r"/\*.*?\*/", "", s.text, flags=re.S), re.M)
            )
    for name in sorted(declared - mapped):
        yield map_path, 1, f"{name} is declared in include/shmps and missing here"
    for name in sorted(mapped - declared):
        yield map_path, 1, f"{name} is not declared in include/shmps"


RULES = {
    "who may include whom": check_includes,
    "lines": check_lines,
    "files": check_files,
    "functions": check_functions,
    "forbidden calls": check_calls,
    "forbidden words": check_words,
    "atomics have a reason": check_atomic_comments,
    "atomics only through base/atomic.h": check_atomic_home,
    "the symbol map is the public headers": check_symbol_map,
}


def check_tree(root):
    sources = tree(root)
    return {rule: list(check(sources, root)) for rule, check in RULES.items()}


def main():
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    failed = 0
    print(f"1..{len(RULES)}")
    for number, (rule, found) in enumerate(check_tree(ROOT).items(), 1):
        failed += bool(found)
        print(f"{'not ok' if found else 'ok'} {number} - {rule}")
        for path, line, why in found:
            print(f"# {path}:{line}: {why}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
