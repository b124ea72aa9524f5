"""What the tests of the Python package share: a private bus for each, and their results as TAP.

By hand: build/venv/bin/pytest tests/python
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Generator, Iterator

import pytest
from harness import BUILD, Bus, private_bus

# For this process and all that it starts; `meson test` has said the same.
sys.path.insert(0, str(BUILD / "python"))
os.environ.setdefault("PYTHONPATH", str(BUILD / "python"))
os.environ.setdefault("XDG_CONFIG_HOME", str(BUILD / "no-config"))  # not the user's own
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(BUILD / "hypothesis"))


@pytest.fixture
def bus_env() -> Iterator[Bus]:
    """A bus of the test's own: its instance is in os.environ (so that shmps.connect() finds it),
    in .instance, and in .env for other processes. What is left of it after the test, segments,
    descriptors, child processes or threads, is a failure."""
    with private_bus() as bus:
        yield bus


@pytest.fixture(scope="module")
def module_bus_env() -> Iterator[Bus]:
    """The same, one for all tests of a file."""
    with private_bus() as bus:
        yield bus


@pytest.fixture
def instance(bus_env: Bus) -> str:
    """The name of the instance of a bus of the test's own."""
    return bus_env.instance


class Tap:
    """Reports as TAP on stdout, in the place of what pytest says: one case a test."""

    def __init__(self) -> None:
        self.count = 0
        self.phases: list[pytest.TestReport] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        print(f"1..{len(session.items)}", flush=True)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            print(f"1..1\nnot ok 1 - is read\n{comment(report.longreprtext)}", flush=True)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.phases.append(report)
        if report.when == "teardown":
            self.tell(report.nodeid.partition("::")[2])
            self.phases = []

    def tell(self, name: str) -> None:
        self.count += 1
        failed = [phase for phase in self.phases if phase.failed]
        skipped = [phase for phase in self.phases if phase.skipped]
        why = ""
        if skipped and not failed:
            reason = skipped[0].longrepr
            why = f" # SKIP {reason[2] if isinstance(reason, tuple) else reason}"
        print(f"{'not ok' if failed else 'ok'} {self.count} - {name}{why}", flush=True)
        for phase in failed:
            text = "\n".join([phase.longreprtext, *(s for pair in phase.sections for s in pair)])
            print(comment(text), flush=True)


def comment(text: str) -> str:
    return "\n".join(f"# {line}" for line in text.splitlines())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a failed test had in its variables goes, so that only what it leaks is left."""
    report = yield
    if call.excinfo:
        traceback.clear_frames(call.excinfo.tb)
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tap", action="store_true", help="report as TAP")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--tap"):
        config.pluginmanager.unregister(name="terminalreporter")
        config.pluginmanager.register(Tap(), "tap")
