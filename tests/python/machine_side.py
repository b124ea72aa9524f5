"""One of the two processes of test_machine.py: its handles by number, and what it keeps.

main() is the worker's: it is driven by the other one over the descriptor that it is given.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import Pipe as make_pipe
from typing import Any

from shmps import _native, errors

Answer = tuple[str, Any]  # ("ok", result) or (name of the error, its text)


@dataclass
class Got:
    """A message as it was received."""

    topic: str
    publisher: int
    seq: int
    tag: int
    lost: int
    time_ns: int
    history: bool
    evicted: bool
    pinned: bool
    data: bytes


def got(message: _native.Message) -> Got:
    m = message
    told = Got(
        m.topic,
        m.publisher,
        m.seq,
        m.tag,
        m.lost,
        m.time_ns,
        m.history,
        m.evicted,
        m.pinned,
        m.copy(),
    )
    assert len(m) == len(told.data)
    assert bytes(m) == told.data
    return told


KEEP: dict[str, Callable[[_native.Message], Any]] = {
    "message": lambda message: message,
    "payload": lambda message: message.payload,
    "part": lambda message: memoryview(message)[1:],
    "array": lambda message: message.as_numpy(),
}


class GiveUp(Exception):
    """Ends the block of a loan, which is discarded."""


class Side:
    """What the rules do, here; see Rules in test_machine.py for what they expect."""

    def __init__(self) -> None:
        self.bus = _native.Connection()
        self.publishers: dict[int, _native.Publisher] = {}
        self.subscribers: dict[int, _native.Subscriber] = {}
        self.kept: dict[int, Any] = {}

    def call(self, name: str, *args: Any) -> Answer:
        """Do what the method does, here or (Remote) in another process."""
        try:
            return "ok", getattr(self, name)(*args)
        except errors.Error as error:
            return type(error).__name__, str(error)

    def open_publisher(self, key: int, topic: str, options: dict[str, Any]) -> int:
        self.publishers[key] = _native.Publisher(self.bus, topic, **options)
        return self.publishers[key].id

    def open_subscriber(self, key: int, filter: str, options: dict[str, Any]) -> None:
        self.subscribers[key] = _native.Subscriber(self.bus, filter, **options)

    def close_publisher(self, key: int) -> None:
        self.publishers.pop(key).close()

    def close_subscriber(self, key: int) -> None:
        self.subscribers.pop(key).close()

    def close_all(self) -> None:
        self.bus.close()
        assert all(p.closed for p in self.publishers.values())
        assert all(s.closed for s in self.subscribers.values())
        self.publishers.clear()
        self.subscribers.clear()
        self.bus = _native.Connection()

    def alive(self) -> bool:
        return self.bus.daemon_alive()

    def size_of(self, key: int) -> tuple[int, int]:
        stats = self.publishers[key].stats()
        return stats.depth, stats.message_bytes

    def listeners(self, key: int) -> int:
        return self.publishers[key].stats().subscribers

    def publish(self, key: int, data: bytes, tag: int) -> None:
        self.publishers[key].publish(data, tag, timeout=0)

    def publish_batch(self, key: int, batch: list[bytes], exactly: bool) -> int:
        return self.publishers[key].publish_batch(iter(batch), exactly=exactly, timeout=0)

    def loan(self, key: int, room: int, data: bytes, tag: int, discard: bool) -> None:
        publisher = self.publishers[key]
        loan = publisher.loan(room, timeout=0)
        with suppress(GiveUp), loan as view:
            assert len(view) == loan.size == room
            view[: len(data)] = data
            loan.size, loan.tag = len(data), tag
            with suppress(errors.StateError):
                publisher.publish(b"")
                raise AssertionError("published amid a loan")
            if discard:
                raise GiveUp

    def take(self, key: int, how: str, n: int, keep: dict[int, tuple[int, str]]) -> list[Got]:
        """keep: which of them, as what number, and what of it."""
        subscriber = self.subscribers[key]
        try:
            if how == "batch":
                messages = subscriber.take_batch(n, timeout=0)
            else:
                one = subscriber.try_take() if how == "try_take" else subscriber.take(timeout=0)
                messages = [] if one is None else [one]
        except errors.Timeout:
            messages = []
        for i, (number, what) in keep.items():
            if i < len(messages):
                self.kept[number] = KEEP[what](messages[i])
        return [got(message) for message in messages]

    def counts(self, key: int) -> tuple[int, int, int]:
        stats = self.subscribers[key].stats()
        return stats.received, stats.lost, stats.held

    def contents(self) -> dict[int, bytes]:
        return {number: bytes(kept) for number, kept in self.kept.items()}

    def let_go(self, number: int) -> None:
        del self.kept[number]

    def fork(self) -> dict[int, bytes]:
        """What a forked child sees of what is kept. It uses, lets go and closes everything."""
        here, there = make_pipe(duplex=False)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self.in_child(there)
                status = 0
            finally:
                os._exit(status)
        there.close()
        with here:
            seen: dict[int, bytes] = here.recv()
        assert os.waitpid(pid, 0)[1] == 0
        return seen

    def in_child(self, pipe: Pipe) -> None:
        for publisher in self.publishers.values():
            with suppress(errors.ForkedError):
                publisher.publish(b"")
                raise AssertionError("published by a child")
        for subscriber in self.subscribers.values():
            with suppress(errors.ForkedError):
                subscriber.try_take()
                raise AssertionError("taken by a child")
        pipe.send(self.contents())
        for open_here in (self.subscribers, self.publishers):
            for handle in open_here.values():
                handle.close()
        self.kept.clear()
        self.bus.close()

    def end(self) -> None:
        self.bus.close()
        self.kept.clear()


class Remote:
    """A Side in a process of its own."""

    def __init__(self) -> None:
        self.pipe, other = make_pipe()
        with other:
            program = f"import machine_side; machine_side.main({other.fileno()})"
            self.process = subprocess.Popen(
                [sys.executable, "-c", program],
                pass_fds=[other.fileno()],
                cwd=os.path.dirname(__file__),
            )
        try:
            assert self.pipe.recv() == "ready"
        except BaseException:
            self.kill()
            raise

    def call(self, name: str, *args: Any) -> Answer:
        self.pipe.send((name, args))
        answer: Answer = self.pipe.recv()
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()

    def end(self) -> None:
        """It has not failed, and closes what is open."""
        self.call("end")
        self.pipe.close()
        assert self.process.wait() == 0


def main(descriptor: int) -> None:
    side = Side()
    with Pipe(descriptor) as pipe:
        pipe.send("ready")
        with suppress(EOFError):
            while True:
                name, args = pipe.recv()
                pipe.send(side.call(name, *args))
