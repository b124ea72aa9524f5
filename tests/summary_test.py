#!/usr/bin/env python3
"""tests/summary.py counts every way in which a test program can end. TAP."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SUMMARY = Path(__file__).resolve().parent / "summary.py"

# what: result as meson says it, exit status, output; expected passed and failed
PROGRAMS = {
    "all pass": ("OK", 0, "1..2\nok 1 - a\nok 2 - b\n", (2, 0)),
    "one fails": ("FAIL", 1, "1..2\nok 1 - a\nnot ok 2 - b\n", (1, 1)),
    "a crash loses the rest": ("FAIL", -6, "1..3\nok 1 - a\n", (1, 2)),
    "a hang loses the rest": ("TIMEOUT", -15, "1..2\nok 1 - a\n", (1, 1)),
    "a bad end after good cases": ("FAIL", 99, "1..1\nok 1 - a\n", (1, 1)),
    "an unlisted skip of cmocka": ("OK", 0, "1..2\nok 1 - a\nnot ok 2 # SKIP b\n", (1, 1)),
    "an unlisted skip of TAP": ("OK", 0, "1..2\nok 1 - a\nok 2 - b # SKIP no root\n", (1, 1)),
    "an unlisted skip of all": ("SKIP", 77, "", (0, 1)),
    "a skip listed for any": ("OK", 0, "1..2\nok 1 - a\nok 2 - tools of PyPI # SKIP\n", (1, 0)),
    "no TAP": ("OK", 0, "hello\n", (1, 0)),
    "two groups": ("OK", 0, "1..1\nok 1 - a\n1..1\nok 1 - a\n", (2, 0)),
    "more than planned": ("OK", 0, "1..1\nok 1 - a\nok 1 - a\n", (2, 1)),
}


def counts(log_text, status):
    """(passed, failed) of the last line for this log; None if the exit status is not `status`."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.json"
        if log_text is not None:
            log.write_text(log_text)
        done = subprocess.run([SUMMARY, log], capture_output=True, text=True)
    last = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", done.stdout.splitlines()[-1])
    return (int(last[1]), int(last[2])) if last and done.returncode == status else None


def main():
    cases = []
    for what, (result, code, output, expected) in PROGRAMS.items():
        record = {"name": "x / p", "result": result, "returncode": code, "stdout": output}
        cases.append((what, counts(json.dumps(record), 1 if expected[1] else 0) == expected))
    cases.append(("no log", counts(None, 1) == (0, 1)))
    cases.append(("an empty log", counts("", 1) == (0, 1)))
    print(f"1..{len(cases)}")
    for number, (what, good) in enumerate(cases, 1):
        print(f"{'ok' if good else 'not ok'} {number} - {what}")
    return 0 if all(good for _, good in cases) else 1


if __name__ == "__main__":
    sys.exit(main())
