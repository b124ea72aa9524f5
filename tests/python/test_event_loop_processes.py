"""Subscribers in coroutines of other processes: under each event loop they get all messages, and
sleep while there are none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import SOURCE, Bus

import shmps

LOOPS = ("asyncio", "uvloop", "trio", "anyio-asyncio", "anyio-uvloop", "anyio-trio")
TOPIC = "async/test"
IDLE_S = 0.5  # the time for which what sleeps is watched
LIMIT_S = 30


@pytest.fixture
def bus(bus_env: Bus) -> Iterator[shmps.Bus]:
    with shmps.connect() as bus:
        yield bus


CHILD = """
import asyncio, sys
import anyio, trio, uvloop
import shmps

async def main():
    total = int(sys.argv[2])
    with shmps.connect() as bus:
        async with bus.subscribe("async/test", delivery="reliable") as sub:
            print("ready", flush=True)
            n = 0
            async for message in sub:
                assert int(bytes(message)) == n and not message.lost
                n += 1
                if n == total:
                    print("half", flush=True)
                if n == 2 * total:
                    break
            print("end", flush=True)

run = {
    "asyncio": lambda: asyncio.run(main()),
    "uvloop": lambda: uvloop.run(main()),
    "trio": lambda: trio.run(main),
    "anyio-asyncio": lambda: anyio.run(main),
    "anyio-uvloop": lambda: anyio.run(main, backend_options={"use_uvloop": True}),
    "anyio-trio": lambda: anyio.run(main, backend="trio"),
}
run[sys.argv[1]]()
"""


def switches(pid: int) -> int:
    """How often a process has gone to sleep of itself, in all its threads."""
    return sum(
        int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def asleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def idle(pid: int) -> int:
    """How often a process wakes up while there is nothing for it to do."""
    while not asleep(pid):
        time.sleep(1e-3)
    time.sleep(IDLE_S / 5)  # it may have been a short sleep on the way
    before = switches(pid)
    time.sleep(IDLE_S)
    return switches(pid) - before


@contextmanager
def child_under(loop: str, total: int) -> Iterator[subprocess.Popen[str]]:
    """CHILD, when it has subscribed; whatever happens to the test, it ends with it."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, loop, str(total)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("loop", LOOPS)
def test_between_processes(bus: shmps.Bus, loop: str) -> None:
    """Thousands of messages to another process, in order; and before, between and after two runs
    of them it sleeps, without a wake-up and without a second thread."""
    total = 3000
    with child_under(loop, total) as child:
        assert child.stdout is not None
        publisher = bus.publisher(TOPIC)
        assert idle(child.pid) == 0
        for n in range(total):
            publisher.publish(b"%d" % n)
        assert child.stdout.readline() == "half\n"
        assert idle(child.pid) == 0
        assert len(os.listdir(f"/proc/{child.pid}/task")) == 1
        for n in range(total, 2 * total):
            publisher.publish(b"%d" % n)
        assert child.communicate(timeout=LIMIT_S) == ("end\n", "")
        assert child.returncode == 0


def test_idle_wakeups_are_noticed() -> None:
    """The measure itself: a process that polls is seen to do so."""
    polls = "import time\nprint(flush=True)\nwhile True: time.sleep(0.01)"
    with subprocess.Popen([sys.executable, "-c", polls], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            assert idle(child.pid) > 5
        finally:
            child.kill()


def test_ctrl_c(bus: shmps.Bus) -> None:
    """asyncio's way and trio's: the task is cancelled, KeyboardInterrupt comes out of run()."""
    for loop in ("asyncio", "trio"):
        with child_under(loop, 1000) as child:
            while not asleep(child.pid):
                time.sleep(1e-3)
            child.send_signal(signal.SIGINT)
            _, errors = child.communicate(timeout=LIMIT_S)
            assert child.returncode == -signal.SIGINT and "KeyboardInterrupt" in errors, errors


def test_no_import_of_trio(bus: shmps.Bus) -> None:
    """Who does not use trio or anyio does not get them; nor is asyncio needed for `for`."""
    program = textwrap.dedent(
        """
        import sys, shmps
        with shmps.connect() as bus, bus.subscribe("async/test") as sub:
            bus.publisher("async/test").publish(b"1")
            sub.take()
        print({"trio", "anyio", "sniffio", "asyncio"} & set(sys.modules))
        """
    )
    out = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert (out.returncode, out.stdout) == (0, "set()\n")


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_examples(bus: shmps.Bus, loop: str) -> None:
    example = SOURCE / "examples" / "python" / f"{loop}_subscribe.py"
    assert len(example.read_text().splitlines()) <= 15
    publisher = bus.publisher("users/registered")
    with subprocess.Popen([sys.executable, example], stdout=subprocess.PIPE, text=True) as child:
        try:
            publisher.wait_subscribers(timeout=LIMIT_S)
            publisher.publish(b"Ada Lovelace")
            assert child.stdout is not None
            assert child.stdout.readline() == "users/registered Ada Lovelace\n"
        finally:
            child.kill()
