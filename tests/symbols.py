#!/usr/bin/env python3
"""libshmps.so exports exactly what include/shmps declares, and needs no more than it says.

    tests/symbols.py LIBSHMPS.SO HEADER...

TAP. The other half - that the map is the headers - is a rule of tests/tidy.py; this looks at what
was built.
"""

import re
import subprocess
import sys
from pathlib import Path

VERSIONS = {"SHMPS_0.1"}
NEEDED = {"libc.so.6", "liburing.so.2", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
SANITIZERS = ("libasan.", "libubsan.", "libtsan.")  # of a build with b_sanitize


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def declared(headers):
    names = set()
    for header in headers:
        text = re.sub(r"/\*.*?\*/", "", Path(header).read_text(encoding="utf-8"), flags=re.S)
        names |= set(re.findall(r"^[a-z][\w *]*?\b(shmps_\w+)\s*\(", text, re.M)) - {
            "shmps_callback"
        }
    return names


def exported(library):
    """name -> version of each defined dynamic symbol."""
    found = {}
    for line in output("nm", "-D", "--defined-only", library).splitlines():
        kind, name = line.split()[-2:]
        name, _, version = name.partition("@")
        if kind != "A":  # the versions themselves
            found[name] = version.lstrip("@")
    return found


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    library, headers = sys.argv[1], sys.argv[2:]
    names, symbols, dynamic = (
        declared(headers),
        exported(library),
        output("readelf", "-d", library),
    )
    needed = {n for n in re.findall(r"NEEDED.*\[(.+)\]", dynamic) if not n.startswith(SANITIZERS)}
    cases = {
        "everything that is declared is exported": sorted(names - set(symbols)),
        "nothing else is exported": sorted(set(symbols) - names),
        "every symbol has a version": sorted(n for n, v in symbols.items() if v not in VERSIONS),
        "the soname is libshmps.so.0": [] if "[libshmps.so.0]" in dynamic else ["it is not"],
        "it needs libc and liburing only": sorted(needed - NEEDED),
    }
    print(f"1..{len(cases)}")
    for number, (name, wrong) in enumerate(cases.items(), 1):
        print(f"{'not ok' if wrong else 'ok'} {number} - {name}")
        for what in wrong:
            print(f"# {what}")
    return 1 if any(cases.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
