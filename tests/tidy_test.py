#!/usr/bin/env python3
"""Break every rule of tests/tidy.py on purpose, in a small tree, and see each one noticed. TAP."""

import sys
import tempfile
from pathlib import Path

import tidy

# A small tree that breaks nothing, and what breaks each rule in it.
GOOD = {
    "include/shmps/error.h": "int shmps_error(void);\n",
    "include/shmps/shmps.h": "#include <shmps/error.h>\n",
    "libshmps/libshmps.map": "SHMPS_0.1 {\nglobal:\n    shmps_error;\nlocal:\n    *;\n};\n",
    "libshmps/base/atomic.h": "#include <stdatomic.h>\n_Atomic int a;\n",
    "libshmps/layout/ring.h": '#include "base/atomic.h"\n#include <shmps/error.h>\n',
    "libshmps/ring/observer.h": '#include "layout/ring.h"\n',
    "libshmps/ring/reader.c": "/* SYNC ring.low: pairs with it */\nint a = fence_acquire();\n"
    'const char *t = "strcpy("; /* sprintf( in a comment */\n',
    "libshmps/client/client.h": '#include "ring/observer.h"\n',
    "libshmps/client/client.c": '#include "client/client.h"\n',
    "pubsubd/bus.h": '#include "layout/ring.h"\n',
    "pubsubd/bus.c": '#include "bus.h"\nint f(int a,\n      int b) {\n    return a + b;\n}\n',
    "tools/cmd_ls.c": '#include "ring/observer.h"\n',
    "tools/cmd_pub.c": "#include <shmps/shmps.h>\n",
    "python/native/module.c": '#include "native.h"\n#include <shmps/shmps.h>\n',
    "python/native/native.h": "#include <Python.h>\n",
    "tests/unit/test_x.c": '#include "ring/observer.h"\n#include <stdatomic.h>\n',
    "tests/x.py": "def f():\n    return 1\n",
}
LONG_BODY = "    x();\n" * tidy.FUNCTION_LINES
BAD = [
    ("who may include whom", "libshmps/base/error.c", '#include "layout/ring.h"\n'),
    ("who may include whom", "libshmps/layout/ring.c", '#include "ring/observer.h"\n'),
    ("who may include whom", "libshmps/layout/ring.c", '#include "ring.h"\n'),
    ("who may include whom", "libshmps/ring/reader.c", "#include <unistd.h>\n"),
    ("who may include whom", "libshmps/ring/reader.c", '#  include "wait/futex.h"\n'),
    ("who may include whom", "libshmps/wait/futex.c", '#include "layout/ring.h"\n'),
    ("who may include whom", "libshmps/wire/wire.c", '#include "wait/futex.h"\n'),
    ("who may include whom", "libshmps/client/client.c", '#include "base/absent.h"\n'),
    ("who may include whom", "pubsubd/bus.c", '#include "ring/observer.h"\n'),
    ("who may include whom", "pubsubd/bus.c", '#include "client/client.h"\n'),
    ("who may include whom", "pubsubd/bus.c", "#include <shmps/shmps.h>\n"),
    ("who may include whom", "pubsubd/bus.c", '#include "../tools/tool.h"\n'),
    ("who may include whom", "tools/cmd_ls.c", '#include "client/client.h"\n'),
    ("who may include whom", "tools/cmd_ls.c", '#include "ring/reader.h"\n'),
    ("who may include whom", "tools/cmd_pub.c", '#include "base/atomic.h"\n'),
    ("who may include whom", "tools/bench/bench.c", '#include "base/atomic.h"\n'),
    ("who may include whom", "examples/a.c", '#include "base/atomic.h"\n'),
    ("who may include whom", "python/native/module.c", '#include "base/error.h"\n'),
    ("who may include whom", "python/native/module.c", '#include "../../libshmps/base/error.h"\n'),
    ("who may include whom", "python/native/module.c", "#include <shmps/other.h>\n"),
    ("who may include whom", "tests/unit/test_x.c", '#include "../../pubsubd/bus.c"\n'),
    ("who may include whom", "elsewhere/a.c", "#include <stdio.h>\n"),
    ("lines", "pubsubd/bus.c", "/*" + "x" * tidy.LINE_COLUMNS + "*/\n"),
    ("lines", "pubsubd/bus.c", "\tint a;\n"),
    ("lines", "pubsubd/bus.c", "int a; \n"),
    ("lines", "pubsubd/bus.c", "int a;"),
    ("files", "pubsubd/bus.c", "int a;\n" * tidy.FILE_LINES),
    ("functions", "pubsubd/bus.c", "int f(void) {\n" + LONG_BODY + "}\n"),
    ("functions", "pubsubd/bus.c", "int f(int a,\n      int b) {\n" + LONG_BODY + "}\n"),
    ("functions", "tests/x.py", "def f():\n" + "    x()\n" * tidy.FUNCTION_LINES),
    ("functions", "x.pyi", "def f():\n" + "    x()\n" * tidy.FUNCTION_LINES),
    ("forbidden calls", "pubsubd/bus.c", "int a(void) { return sprintf(b, c); }\n"),
    ("forbidden calls", "pubsubd/bus.c", "void a(void) { strcpy (b, c); }\n"),
    ("forbidden calls", "tests/unit/test_x.c", 'void a(void) { strcat(b, "/*"); gets(b); }\n'),
    ("forbidden words", "pubsubd/bus.c", "/* " + "TO" "DO: later */\n"),
    ("forbidden words", "docs/x.md", "see " + "/wo" "rk/main\n"),
    (
        "atomics have a reason",
        "libshmps/layout/ring.c",
        "int a(void) { return atomic_load_acquire(&b); }\n",
    ),
    (
        "atomics have a reason",
        "pubsubd/bus.c",
        "/* SYNC */\n" + "\n" * tidy.COMMENT_REACH + "int a = fence_acquire();\n",
    ),
    (
        "atomics have a reason",
        "pubsubd/bus.c",
        'const char *s = "SYNC"; int a = fence_acquire();\n',
    ),
    (
        "atomics only through base/atomic.h",
        "libshmps/layout/ring.c",
        "int a = __atomic_load_n(&b, 0);\n",
    ),
    ("atomics only through base/atomic.h", "pubsubd/bus.c", "#include <stdatomic.h>\n"),
    ("atomics only through base/atomic.h", "libshmps/ring/reader.c", "int a = atomic_load(&b);\n"),
    ("the symbol map is the public headers", "include/shmps/shmps.h", "int shmps_new(void *p);\n"),
    (
        "the symbol map is the public headers",
        "include/shmps/error.h",
        "/* int shmps_error(void); */\n",
    ),
]


def tree_of(folder, files):
    root = Path(folder)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def main():
    cases = [("a good tree is good", None, {})] + [
        (f"{rule} #{i}", rule, {path: text}) for i, (rule, path, text) in enumerate(BAD, 1)
    ]
    failed = 0
    print(f"1..{len(cases) + 1}")
    for number, (name, rule, change) in enumerate(cases, 1):
        with tempfile.TemporaryDirectory() as folder:
            noticed = {
                r
                for r, found in tidy.check_tree(tree_of(folder, {**GOOD, **change})).items()
                if found
            }
        good = noticed == set() if rule is None else rule in noticed
        failed += not good
        print(f"{'ok' if good else 'not ok'} {number} - {name}")
        if not good:
            print(f"# noticed: {sorted(noticed)}; in {change}")
    untried = set(tidy.RULES) - {rule for rule, _, _ in BAD}
    print(f"{'not ok' if untried else 'ok'} {len(cases) + 1} - every rule is tried")
    return 1 if failed or untried else 0


if __name__ == "__main__":
    sys.exit(main())
