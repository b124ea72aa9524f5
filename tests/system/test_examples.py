#!/usr/bin/env python3
"""The first programs of examples/: each runs against a real pubsubd, and stays a first program."""

import re
import subprocess
from pathlib import Path

from tap import BUILD, private_bus, run_cases

SOURCES = Path(__file__).resolve().parents[2] / "examples"
LINES_MAX = 15
TIMEOUT_S = 30


def run_pair(publisher, subscriber):
    """What the subscriber prints of what the publisher publishes. Either may be there first."""
    with private_bus("examples") as env:
        programs = [
            subprocess.Popen(
                [BUILD / "examples" / f"example-{name}"],
                env=env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for name in (subscriber, publisher)
        ]
        try:
            output = [program.communicate(timeout=TIMEOUT_S) for program in programs]
        finally:
            for program in programs:
                program.kill()
                program.wait()
        for name, program, (_, errors) in zip((subscriber, publisher), programs, output):
            assert program.returncode == 0, f"{name}: status {program.returncode}: {errors}"
            assert errors == "", f"{name}: {errors}"
        return output[0][0]


def subscribe_receives_what_publish_sends():
    got = run_pair("publish", "subscribe")
    assert got == "hello, world\n", got


def epoll_wakes_for_it():
    got = run_pair("publish", "epoll")
    assert got == "hello, world\n", got


def a_callback_is_called_for_it():
    got = run_pair("publish", "callback")
    assert got == "hello, world\n", got


def every_loaned_frame_arrives_in_order():
    got = run_pair("loan", "reliable")
    assert got.splitlines() == [f"frame {i}" for i in range(100)], got


def they_are_short():
    """15 lines in all: comments and blanks count, too."""
    sources = sorted(SOURCES.glob("*.c"))
    assert sources, "no examples found"
    for source in sources:
        lines = source.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= LINES_MAX, f"{source.name}: {len(lines)} lines"
        program = BUILD / "examples" / f"example-{source.stem}"
        assert program.exists(), f"{source.name}: not built"


def the_readme_shows_one_of_them():
    readme = (SOURCES.parent / "README.md").read_text(encoding="utf-8")
    source = (SOURCES / "subscribe.c").read_text(encoding="utf-8")
    shown = re.search(r"^## In C\n\n((?:    .*\n|\n)+)", readme, re.M)
    assert shown, "README.md has no section 'In C' that begins with a program"
    assert re.sub(r"^    ", "", shown[1], flags=re.M).strip("\n") == source.strip("\n"), shown[1]


if __name__ == "__main__":
    run_cases(
        [
            subscribe_receives_what_publish_sends,
            epoll_wakes_for_it,
            a_callback_is_called_for_it,
            every_loaned_frame_arrives_in_order,
            they_are_short,
            the_readme_shows_one_of_them,
        ]
    )
