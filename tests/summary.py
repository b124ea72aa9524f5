#!/usr/bin/env python3
"""Count test cases in logs of `meson test`; last line: `N passed, N failed, N skipped`.

    tests/summary.py LOG.json...

A case is a line of TAP that a program printed; a program that prints none is one case. What was
planned and not reported, and an exit status that no case explains, are failures. So is a skip that
tests/skips.txt does not list. Exit status 0 only if nothing failed and something passed.
"""

import json
import re
import sys
from pathlib import Path

SKIPS = Path(__file__).resolve().parent / "skips.txt"

PLAN = re.compile(r"^1\.\.(\d+)")
CASE = re.compile(r"^(not )?ok\b\s*\d*\s*(?:- )?(.*)$")
DIRECTIVE = re.compile(r"^(.*?)\s*# ?SKIP\b[: ]*(.*)$", re.I)


def allowed_skips():
    """skips.txt: `PROGRAM CASE: REASON`, PROGRAM `*` for any, # for comments."""
    listed = {}
    for line in SKIPS.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            case, _, reason = line.partition(":")
            if not reason.strip():
                sys.exit(f"{SKIPS}: `{line}` has no reason: write `PROGRAM CASE: REASON`")
            listed[" ".join(case.split())] = reason.strip()
    return listed


def cases_of(stdout):
    """[(outcome, name, note)] of a program's TAP, and how many cases it planned."""
    cases, planned = [], 0
    for line in stdout.splitlines():
        plan, case = PLAN.match(line), CASE.match(line)
        if plan:
            planned += int(plan[1])
        elif case:
            skip = DIRECTIVE.match(case[2])
            if skip:  # cmocka: "not ok 3 # SKIP name"; others: "ok 3 - name # SKIP reason"
                cases.append(("skip", skip[1] or skip[2], skip[2]))
            else:
                cases.append(("fail" if case[1] else "pass", case[2], ""))
    return cases, planned


def judge(test):
    """[(outcome, name, note)] of one program, with what it should have said and did not."""
    result = test["result"]
    cases, planned = cases_of(test.get("stdout", ""))
    if not cases and not planned:
        outcome = {"OK": "pass", "SKIP": "skip"}.get(result, "fail")
        return [(outcome, "", result if outcome == "fail" else "")]
    if planned and len(cases) < planned:
        cases += [
            ("fail", f"case {n}", f"never reported: {result}")
            for n in range(len(cases) + 1, planned + 1)
        ]
    elif planned and len(cases) > planned:
        cases.append(("fail", "", f"{len(cases)} cases were reported, {planned} planned"))
    if result not in ("OK", "SKIP") and not any(c[0] == "fail" for c in cases):
        cases.append(("fail", "", f"{result}, exit status {test.get('returncode')}"))
    return cases


def main():
    if not sys.argv[1:]:
        sys.exit(__doc__)
    listed, count, problems = allowed_skips(), {"pass": 0, "fail": 0, "skip": 0}, []
    for log in sys.argv[1:]:
        path = Path(log)
        tests = (
            [json.loads(t) for t in path.read_text(encoding="utf-8").splitlines()]
            if path.exists()
            else []
        )
        if not tests:
            count["fail"] += 1
            problems.append(f"failed: {log}: no test was run")
        for test in tests:
            program = test["name"].split(" / ")[-1]
            for outcome, name, note in judge(test):
                case = f"{program} {name}".strip()
                reason = listed.get(case) or listed.get(f"* {name}")
                if outcome == "skip" and not reason:
                    outcome, note = (
                        "fail",
                        f"skipped, and tests/skips.txt does not list it {note}".rstrip(),
                    )
                count[outcome] += 1
                if outcome == "skip":
                    problems.append(f"skipped: {case}: {reason}")
                elif outcome == "fail":
                    problems.append(f"failed: {case}{': ' + note if note else ''}  [{path.stem}]")
    for problem in problems:
        print(problem)
    print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")
    return 0 if count["fail"] == 0 and count["pass"] > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
