#!/usr/bin/env python3
"""The benchmark of the Python package in its short form: its output parses, all rows are there. No
speed is asserted."""

import json
import os
import signal
import subprocess
from pathlib import Path

from tap import BUILD, PUBSUBD, run_cases, segments

SOURCE = Path(__file__).resolve().parents[2]
BENCH = SOURCE / "tools" / "bench" / "python" / "bench.py"
PYTHON = Path(os.environ.get("SHMPS_VENV") or BUILD / "venv", "bin", "python")
TIMEOUT_S = 150
AIMED = {  # rows with a target
    "publish_64",
    "publish_64_untimed",
    "receive_64_batch",
    "asyncio_aiomqtt",
    "asyncio_redis",
    "frame_flat",
    "frame_zmq",
}
REST = {
    "publish_64_drained",
    "publish_64_net",
    "publish_64_untimed_net",
    "receive_64_other_core",
    "receive_64_each",
    "receive_64_payload",
    "frame_64k",
    "frame_1m",
    "frame_8m",
    "frame_inproc",
}


class Run:
    """One run that several cases look at."""

    left = []
    rows = {}


def start(*arguments, **options):
    return subprocess.Popen(
        [PYTHON, BENCH, *arguments],
        env=dict(os.environ, SHMPS_PUBSUBD=PUBSUBD, BUILD=str(BUILD)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def look_for_rest(pid):
    """Nothing of it may remain: segments, folders, processes."""
    Run.left += segments(f".bench-py-{pid}.")
    Run.left += Path("/tmp").glob(f"shmps-bench-py-{pid}-*")
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"bench-py-{pid}\0".encode() in path.read_bytes():
                Run.left.append((path.parent / "cmdline").read_text())
        except OSError:  # has ended, or is not ours
            pass


def bench(*arguments):
    process = start(*arguments)
    stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    look_for_rest(process.pid)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def it_runs():
    done = bench("--quick", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["quick"] is True and result["repetitions"] == 1, result
    assert result["version"] and result["python"] and result["kernel"], result
    Run.rows = {row["id"]: row for row in result["rows"]}
    assert len(Run.rows) == len(result["rows"]), "an id twice"
    assert done.stderr.count("[1/1] ") >= len(AIMED), done.stderr


def every_row_is_there():
    assert set(Run.rows) == AIMED | REST, sorted(Run.rows)


def the_figures_are_consistent():
    for row in Run.rows.values():
        assert row["repetitions"] == 1 and len(row["ours_each"]) == 1, row
        ours, theirs = row["ours"]["median"], row["reference"]["median"]
        assert ours > 0 and theirs > 0, row
        expected = theirs / ours if row["ratio_is"] == "speed" else ours / theirs
        assert abs(row["ratio"]["median"] / expected - 1) < 1e-6, row


def targets_are_judged():
    assert {name for name, row in Run.rows.items() if "target" in row} == AIMED
    for name in AIMED:
        row = Run.rows[name]
        ratio, target = row["ratio"]["median"], row["target"]
        good = ratio >= target if row["target_is"] == ">=" else ratio <= target
        assert row["met"] == good, row


def what_was_not_measured_is_not_met():
    done = bench("--quick", "--check", "--only", "frame_64k")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("met: ", "not met: "))]
    assert len(lines) == len(AIMED), done.stdout
    assert all(line.startswith("not met: ") and "not measured" in line for line in lines), lines
    assert done.returncode == 1, done.returncode


def a_missing_reference_is_not_met():
    os.environ["PATH"], path = "/nowhere", os.environ["PATH"]
    try:
        done = bench("--quick", "--check", "--only", "asyncio_redis")
    finally:
        os.environ["PATH"] = path
    lines = [line for line in done.stdout.splitlines() if line.startswith("not met: ")]
    assert done.returncode == 1, done.returncode
    assert sum("redis-server is not installed" in line for line in lines) == 1, done.stdout


def ended_half_way_it_ends_what_it_started():
    process = start("--only", "asyncio_")
    for line in process.stderr:
        if line.startswith("[1/5]"):
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1, process.returncode
    look_for_rest(process.pid)


def bad_usage_is_refused():
    assert bench("--repeat", "0").returncode == 2
    assert bench("rows").returncode == 2
    helped = bench("--help")
    assert helped.returncode == 0 and "--check" in helped.stdout


def it_leaves_nothing_behind():
    assert not Run.left, Run.left


def everything():
    return "needs tools from PyPI, which ./dev gets"


if __name__ == "__main__":
    run_cases(
        [
            it_runs,
            every_row_is_there,
            the_figures_are_consistent,
            targets_are_judged,
            what_was_not_measured_is_not_met,
            a_missing_reference_is_not_met,
            ended_half_way_it_ends_what_it_started,
            bad_usage_is_refused,
            it_leaves_nothing_behind,
        ]
        if PYTHON.exists()
        else [everything]
    )
