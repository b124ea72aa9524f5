#!/usr/bin/env python3
"""The benchmark in its short form: its output parses, all rows are there. No speed is asserted."""

import json
import os
import subprocess
from pathlib import Path

from tap import BUILD, PUBSUBD, run_cases, segments

BENCH = BUILD / "tools" / "bench" / "shmps-bench"
TIMEOUT_S = 150
COMPARED = {  # rows that have a bare limit, or a smaller message, beside them
    "one_way_32": True,
    "one_way_32_two_lines": False,
    "one_way_32_read": False,
    "one_way_32_reliable": False,
    "one_way_32_timestamps": False,
    "one_way_32_default_wait": False,
    "loan_8mib": True,
    "loan_8mib_touched": False,
    "one_way_32_futex": True,
    "one_way_32_descriptor": False,
    "rate_32_reliable": True,
    "rate_32_reliable_take": False,
    "rate_32_reliable_batch": False,
    "rate_32_lossy": False,
}
IDLE = {"idle_wakeups", "idle_cpu", "idle_resident"}


class Run:
    """One run that several cases look at."""

    done = None
    left = []
    rows = {}


def bench(*arguments):
    """Run it; nothing of it may remain."""
    process = subprocess.Popen(
        [BENCH, *arguments],
        env=dict(os.environ, SHMPS_PUBSUBD=PUBSUBD),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    Run.left += segments(f".bench-{process.pid}.")
    Run.left += Path("/tmp").glob(f"shmps-bench-{process.pid}-*")
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def it_runs():
    Run.done = bench("--quick", "--json")
    assert Run.done.returncode == 0, Run.done.stderr
    result = json.loads(Run.done.stdout)
    assert result["quick"] is True and result["repetitions"] == 1, result
    Run.rows = {row["id"]: row for row in result["rows"]}
    assert len(Run.rows) == len(result["rows"]), "an id twice"


def every_row_is_there():
    assert set(Run.rows) == set(COMPARED) | IDLE, sorted(Run.rows)


def the_figures_are_consistent():
    for name, row in Run.rows.items():
        assert row["repetitions"] == 1 and len(row["ours_each"]) == 1, row
        ours = row["ours"]
        assert ours["min"] <= ours["median"] <= ours["max"], row
        if name in COMPARED:
            assert ours["median"] > 0 and row["reference"]["median"] > 0, row
            expected = ours["median"] / row["reference"]["median"]
            assert abs(row["ratio"]["median"] / expected - 1) < 1e-3, row
        assert row["lost"] == 0 or name == "rate_32_lossy", row


def targets_are_judged():
    aimed = {name for name, row in Run.rows.items() if "target" in row}
    assert aimed == {name for name, has in COMPARED.items() if has} | IDLE, aimed
    for row in Run.rows.values():
        if "target" in row:
            figure = row.get("ratio", row["ours"])["median"]
            good = figure >= row["target"] if row["target_is"] == ">=" else figure <= row["target"]
            assert row["met"] == good, row


def what_was_not_measured_is_not_met():
    done = bench("--quick", "--check", "--only", "idle_resident")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("met: ", "not met: "))]
    assert len(lines) == sum("target" in row for row in Run.rows.values()), done.stdout
    assert sum("not measured" in line for line in lines) == len(lines) - 1, lines
    assert done.returncode == 1, done.returncode


def bad_usage_is_refused():
    assert bench("--repeat", "0").returncode == 2
    assert bench("rows").returncode == 2
    helped = bench("--help")
    assert helped.returncode == 0 and "--check" in helped.stdout


def it_leaves_nothing_behind():
    assert not Run.left, Run.left


if __name__ == "__main__":
    run_cases(
        [
            it_runs,
            every_row_is_there,
            the_figures_are_consistent,
            targets_are_judged,
            what_was_not_measured_is_not_met,
            bad_usage_is_refused,
            it_leaves_nothing_behind,
        ]
    )
