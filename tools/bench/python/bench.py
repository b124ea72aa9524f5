#!/usr/bin/env python3
"""./dev bench python: how fast the Python package is, as ratios measured in one run.

Options, the plan of a run, progress. calls.py: publish, receive beside an empty call and a list;
streams.py: asyncio beside aiomqtt and redis-py; frames.py: numpy frames beside pyzmq; side.py:
their other processes; place.py: pubsubd, servers, cores; report.py: medians, table, JSON."""

from __future__ import annotations

import argparse
import gc
import importlib
import signal
import sys

from place import PATHS, private_bus
from report import Row, check, report_json, table

GROUPS = ("calls", "streams", "frames")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dev bench python",
        description="Measure the Python package beside references, in one run. It starts a"
        " pubsubd, a mosquitto and a redis-server of its own, and uses two cores. Everything else"
        " that runs meanwhile shows in the figures.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one repetition of fewer messages: that all of it works, not how fast it is",
    )
    parser.add_argument(
        "--repeat", type=int, choices=range(1, 100), metavar="N", help="repetitions (default 5)"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only the rows whose id contains TEXT"
    )
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of the table")
    parser.add_argument(
        "--check",
        action="store_true",
        help="a line per target; exit status 0 only if all are met",
    )
    options = parser.parse_args()
    options.repeat = options.repeat or (1 if options.quick else 5)
    return options


class Progress:
    """What is measured now, on stderr: one line on a terminal, a line each elsewhere."""

    def __init__(self, repetitions: int, only: str) -> None:
        self.repetitions = repetitions
        self.repetition = 0
        self.only = only
        self.terminal = sys.stderr.isatty()

    def wanted(self, row: Row) -> bool:
        """Is this row to be measured? If so, it is next."""
        if self.only not in row.id:
            return False
        line = f"[{self.repetition}/{self.repetitions}] {row.work} / {row.reference}"
        text = f"\r\033[K{line}" if self.terminal else f"{line}\n"
        print(text, end="", file=sys.stderr, flush=True)
        return True

    def done(self) -> None:
        if self.terminal:
            print(end="\r\033[K", file=sys.stderr, flush=True)


def main() -> int:
    options = parse()
    sys.path[:0] = PATHS
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end what was started
    modules = [importlib.import_module(name) for name in GROUPS]
    rows: list[Row] = [row for module in modules for row in module.ROWS]
    progress = Progress(options.repeat, options.only)
    gc.disable()  # as timeit does
    with private_bus():
        for _ in range(options.repeat):
            progress.repetition += 1
            for module in modules:
                module.measure(progress.wanted, options.quick)
                gc.collect()
    progress.done()
    if options.json:
        import shmps

        print(report_json(rows, options.repeat, options.quick, shmps.__version__))
    else:
        print(table([row for row in rows if options.only in row.id]))
    if options.check:
        print(check(rows), file=sys.stderr if options.json else sys.stdout)
        return 0 if all(row.met for row in rows if row.target is not None) else 1
    return 0 if all(row.ours for row in rows if options.only in row.id) else 1


if __name__ == "__main__":
    sys.exit(main())
