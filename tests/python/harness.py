"""A private bus for tests: a pubsubd of its own, and a look that nothing is left of a test."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("BUILD", SOURCE / "build"))
PUBSUBD = os.environ.get("SHMPS_PUBSUBD", str(BUILD / "pubsubd" / "pubsubd"))
SHMPS = str(BUILD / "tools" / "shmps")
SHM = Path("/dev/shm")
READY_S = 20
count = 0


def segments(instance: str) -> list[str]:
    return sorted(name for name in os.listdir(SHM) if f".{instance}." in name)


def descriptors() -> dict[int, str]:
    """What this process has open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one by which the folder was read
            pass
    return found


def children() -> dict[int, str]:
    """The child processes of this one, dead ones that nobody has waited for too."""
    found = {}
    for path in Path("/proc/self/task").glob("*/children"):
        for pid in path.read_text().split():
            try:
                found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            except FileNotFoundError:  # has ended just now, and was not ours to wait for
                pass
    return found


def mappings(instance: str) -> set[str]:
    """Segments of an instance that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if f".{instance}." in line}


@contextmanager
def nothing_left() -> Iterator[None]:
    """No descriptors, child processes or threads of this process more than before."""
    gc.collect()
    before = descriptors(), children(), set(threading.enumerate())
    yield
    gc.collect()
    after = descriptors(), children()
    for kind, old, new in zip(("descriptors", "child processes"), before, after, strict=False):
        left = {number: what for number, what in new.items() if number not in old}
        assert not left, f"{kind} left behind: {left}"
    threads = [t for t in threading.enumerate() if t not in before[2] and t.is_alive()]
    assert not threads, f"threads left behind: {threads}"


class Bus:
    """One instance. `env`: what a process needs to be on it; `daemon`: its pubsubd."""

    def __init__(self, runtime: str) -> None:
        global count
        count += 1
        self.instance = f"py-{os.getpid()}-{count}"
        self.env = {
            "SHMPS_INSTANCE": self.instance,
            "SHMPS_PUBSUBD": PUBSUBD,
            "SHMPS_AUTOSTART": "0",
            "XDG_RUNTIME_DIR": runtime,
        }
        self.start()

    def start(self) -> None:
        self.daemon = subprocess.Popen(
            [PUBSUBD, "--instance", self.instance],
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.daemon.stdout is not None
        with self.daemon.stdout:
            word = self.daemon.stdout.readline()
        assert word == "ready\n", f"pubsubd said {word!r}"

    def kill(self) -> None:
        """As if it had crashed; start() brings the next one."""
        self.daemon.kill()
        self.daemon.wait()

    def end(self) -> int:
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
        return self.daemon.wait(timeout=READY_S)

    def tool(self, *args: str) -> str:
        """What the tool prints on stdout."""
        return subprocess.run(
            [SHMPS, *args],
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            text=True,
            timeout=READY_S,
            check=True,
        ).stdout

    def info(self, topic: str) -> dict[str, Any]:
        """What `shmps info` tells of a topic."""
        told: dict[str, Any] = json.loads(self.tool("info", topic, "--json"))
        return told


@contextmanager
def private_bus() -> Iterator[Bus]:
    """A bus, in the environment of this process and its children. It leaves nothing behind."""
    with nothing_left(), tempfile.TemporaryDirectory(prefix="shmps-test-") as runtime:
        bus = Bus(runtime)
        before = {name: os.environ.get(name) for name in bus.env}
        os.environ.update(bus.env)
        try:
            yield bus
            gc.collect()
            mapped = mappings(bus.instance)
            assert not mapped, f"still mapped: {mapped}"
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
            status = bus.end()
            left = segments(bus.instance)
            for name in left:
                (SHM / name).unlink(missing_ok=True)
        assert status == 0, f"pubsubd ended with {status}"
        assert not left, f"left behind: {left}"
