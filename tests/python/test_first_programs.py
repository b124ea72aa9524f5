"""The first programs of examples/python: each runs on a real bus, and stays a first program."""

from __future__ import annotations

import subprocess
import sys

import pytest
from harness import BUILD, READY_S, SOURCE
from harness import Bus as Instance

EXAMPLES = SOURCE / "examples" / "python"
LINES_MAX = 15
FIRST = ("handler", "publish", "subscribe")


def run_pair(publisher: list[str], subscriber: list[str]) -> str:
    """What the subscriber prints of what the publisher publishes. Either may be there first."""
    programs = [
        subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for args in (subscriber, publisher)
    ]
    try:
        output = [program.communicate(timeout=READY_S) for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.wait()
    assert [program.returncode for program in programs] == [0, 0], output
    assert [errors for _, errors in output] == ["", ""]
    return output[0][0]


def python(name: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / f"{name}.py")]


def compiled(name: str) -> list[str]:
    return [str(BUILD / "examples" / f"example-{name}")]


@pytest.mark.parametrize("subscriber", ["subscribe", "handler"])
def test_it_receives_what_publish_sends(bus_env: Instance, subscriber: str) -> None:
    assert run_pair(python("publish"), python(subscriber)) == "hello, world\n"


def test_programs_in_c_are_on_the_same_bus(bus_env: Instance) -> None:
    assert run_pair(python("publish"), compiled("subscribe")) == "hello, world\n"
    assert run_pair(compiled("publish"), python("subscribe")) == "hello, world\n"


def test_they_are_short() -> None:
    for name in FIRST:
        lines = (EXAMPLES / f"{name}.py").read_text().split('"""', 2)[2].split("\n")
        assert len([line for line in lines if line.strip()]) <= LINES_MAX, name


def test_the_lines_of_the_readme_work_when_pasted(bus_env: Instance) -> None:
    section = (SOURCE / "README.md").read_text().split("## In Python\n\n")[1]
    lines = "".join(f"{line[4:]}\n" for line in section.partition("\n\n")[0].splitlines())
    assert lines.count("\n") == 5
    told = subprocess.run(
        [sys.executable, "-i", "-q"], input=lines, capture_output=True, text=True, timeout=READY_S
    )
    assert (told.returncode, told.stdout) == (0, "b'hi there'\n"), told.stderr
