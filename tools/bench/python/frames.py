"""Frames as numpy arrays: the giver writes the first and the last byte, the taker reads both.

Within one thread, where nothing but the hand-over itself is timed: is it as fast for 8 MiB as for
1 KiB? And from one process to another, as many as go through, beside pyzmq."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from statistics import median
from typing import Any

import numpy
import shmps
from place import ANYWHERE, answer, pinned, side
from report import Row

KIB, MIB = 1 << 10, 1 << 20
FLAT = {"frame_flat": 8 * MIB, "frame_64k": 64 * KIB, "frame_1m": MIB}
DEPTH = 8  # frames that may be under way, also zmq's high-water marks
PINS = 4
ROUNDS = 4000
WARM = 50  # rounds before, in which memory is touched for the first time
FRAMES = {"shmps": 20_000, "zmq": 500}

SENT = f"PUSH to PULL over ipc://, high-water marks {DEPTH}; it copies into and out of a socket"
ROWS = [
    Row("frame_flat", "8 MiB frame, one thread", "1 KiB frame", 1.5),
    Row("frame_64k", "64 KiB frame, one thread", "1 KiB frame"),
    Row("frame_1m", "1 MiB frame, one thread", "1 KiB frame"),
    Row("frame_inproc", "1 MiB frame, one thread", "pyzmq copy=False, inproc", faster=True),
    Row(
        "frame_zmq",
        "1 MiB frames, two processes",
        "pyzmq copy=False",
        50,
        ">=",
        "msg/s",
        note=f"shmps: reliable subscriber, depth {DEPTH}; pyzmq: {SENT}",
    ),
    Row("frame_8m", "8 MiB frames, two processes", "1 MiB frames", unit="msg/s"),
]


def shmps_give(pub: shmps.Publisher, size: int) -> None:
    with pub.loan(size) as buffer:
        frame = numpy.frombuffer(buffer, "u1")
        frame[0] = 1
        frame[-1] = 1
        del frame


def shmps_take(sub: shmps.Subscriber) -> None:
    frame = sub.take().as_numpy()
    if frame[0] != 1 or frame[-1] != 1:
        raise RuntimeError("a frame has arrived damaged")


def zmq_give(socket: Any, frame: Any) -> None:
    frame[0] = 1
    frame[-1] = 1
    socket.send(frame, copy=False)


def zmq_take(socket: Any) -> None:
    frame = numpy.frombuffer(socket.recv(copy=False), "u1")
    if frame[0] != 1 or frame[-1] != 1:
        raise RuntimeError("a frame has arrived damaged")


@contextmanager
def zmq_socket(kind: int) -> Iterator[Any]:
    import zmq

    with zmq.Context() as context, context.socket(kind) as socket:
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = DEPTH
        yield socket


# ---- in one thread


def turns(give: Callable[[], None], take: Callable[[], None], rounds: int) -> float:
    """ns for one hand-over, the median."""
    times: list[int] = []
    for _ in range(WARM + rounds):
        start = time.perf_counter_ns()
        give()
        take()
        times.append(time.perf_counter_ns() - start)
    return median(times[WARM:])


def shmps_turns(size: int, rounds: int) -> float:
    with (
        pinned(0),
        shmps.connect() as bus,
        bus.subscribe("frame") as sub,
        bus.publisher("frame", depth=DEPTH, pins=PINS, message_bytes=size) as pub,
    ):
        return turns(lambda: shmps_give(pub, size), lambda: shmps_take(sub), rounds)


def zmq_turns(size: int, rounds: int) -> float:
    import zmq

    frame = numpy.zeros(size, "u1")
    with pinned(0), zmq_socket(zmq.PAIR) as a, a.context.socket(zmq.PAIR) as b:
        a.bind("inproc://frame")
        b.connect("inproc://frame")
        return turns(lambda: zmq_give(a, frame), lambda: zmq_take(b), rounds)


# ---- from one process to another


def shmps_rate(size: int, n: int) -> float:
    """Frames a second."""
    with (
        pinned(0),
        shmps.connect() as bus,
        side("shmps_frames", n, core=1) as receiver,
        bus.publisher("frames", depth=DEPTH, pins=PINS, message_bytes=size) as pub,
    ):
        for _ in range(1 + n):
            shmps_give(pub, size)
        return float(answer(receiver, "rate"))


def zmq_rate(size: int, n: int) -> float:
    """Not pinned: each side has a thread that copies to or from the socket."""
    import zmq

    frames = [numpy.zeros(size, "u1") for _ in range(4 * DEPTH)]  # none is written while under way
    with (
        tempfile.TemporaryDirectory(prefix=f"shmps-bench-py-{os.getpid()}-") as folder,
        side("zmq_frames", n, f"ipc://{folder}/socket", core=ANYWHERE) as receiver,
        zmq_socket(zmq.PUSH) as socket,
    ):
        socket.connect(f"ipc://{folder}/socket")
        for frame in islice(cycle(frames), 1 + n):
            zmq_give(socket, frame)
        return float(answer(receiver, "rate"))


def have_zmq() -> bool:
    try:
        import zmq
    except ImportError:
        return False
    return bool(zmq.zmq_version())


def measure(wanted: Callable[[Row], bool], quick: bool) -> None:
    few = 10 if quick else 1
    *flat, inproc, zmq, large = ROWS
    for row in filter(wanted, flat):
        theirs = shmps_turns(KIB, ROUNDS // few)
        row.add(shmps_turns(FLAT[row.id], ROUNDS // few), theirs)
    for row in (inproc, zmq):
        if not have_zmq():
            row.missing = "pyzmq is not installed"
    if not inproc.missing and wanted(inproc):
        theirs = zmq_turns(MIB, ROUNDS // few)
        inproc.add(shmps_turns(MIB, ROUNDS // few), theirs)
    n = FRAMES["shmps"] // few
    if not zmq.missing and wanted(zmq):
        theirs = zmq_rate(MIB, FRAMES["zmq"] // few)
        zmq.add(shmps_rate(MIB, n), theirs)
    if wanted(large):
        theirs = shmps_rate(MIB, n)
        large.add(shmps_rate(8 * MIB, n), theirs)
