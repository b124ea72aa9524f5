"""Frames as numpy arrays, handed from one process to another and back: half a round trip.

The giver writes the first and the last byte of a frame, the taker reads both."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy
import shmps
from place import Missing, pin, side, unpin
from report import Row

KIB, MIB = 1 << 10, 1 << 20
FLAT = {"frame_flat": 8 * MIB, "frame_32k": 32 * KIB, "frame_1024k": MIB}
DEPTH = 4
ROUNDS = 2000
WARM = 50  # rounds before, in which memory is touched for the first time

ROWS = [
    Row("frame_flat", "8 MiB frame, handed over", "1 KiB frame", 1.5),
    Row("frame_32k", "32 KiB frame, handed over", "1 KiB frame"),
    Row("frame_1024k", "1 MiB frame, handed over", "1 KiB frame"),
    Row(
        "frame_zmq",
        "1 MiB frame, handed over",
        "pyzmq copy=False, ipc://",
        50,
        ">=",
        faster=True,
    ),
    Row(
        "frame_zmq_inproc",
        "1 MiB frame, handed over",
        "pyzmq copy=False, inproc://",
        faster=True,
        note="pyzmq within one thread of one process: it hands over a pointer",
    ),
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


def zmq_frame(size: int) -> Any:
    return numpy.zeros(size, "u1")


def zmq_give(socket: Any, frame: Any) -> None:
    frame[0] = 1
    frame[-1] = 1
    socket.send(frame, copy=False)


def zmq_take(socket: Any) -> None:
    frame = numpy.frombuffer(socket.recv(copy=False), "u1")
    if frame[0] != 1 or frame[-1] != 1:
        raise RuntimeError("a frame has arrived damaged")


@contextmanager
def zmq_socket() -> Iterator[Any]:
    try:
        import zmq
    except ImportError:
        raise Missing("pyzmq is not installed") from None
    with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
        socket.linger = 0
        yield socket


def half_round_trip(there: Callable[[], None], back: Callable[[], None], rounds: int) -> float:
    """ns, the median."""
    times = []
    for turn in range(WARM + rounds):
        start = time.perf_counter_ns()
        there()
        back()
        if turn >= WARM:
            times.append(time.perf_counter_ns() - start)
    return median(times) / 2


def shmps_hand_over(size: int, rounds: int) -> float:
    pin(0)
    try:
        with (
            shmps.connect() as bus,
            bus.subscribe("back") as sub,
            bus.publisher("there", depth=DEPTH, message_bytes=size) as pub,
            side("shmps_echo", size, "there", "back", DEPTH, core=1),
        ):
            return half_round_trip(
                lambda: shmps_give(pub, size), lambda: shmps_take(sub), rounds
            )
    finally:
        unpin()


def zmq_hand_over(size: int, rounds: int) -> float:
    """Where the kernel puts it: each side has a thread that copies to or from the socket."""
    with (
        tempfile.TemporaryDirectory(prefix=f"shmps-bench-py-{os.getpid()}-") as folder,
        zmq_socket() as socket,
    ):
        address = f"ipc://{folder}/socket"
        socket.bind(address)
        frame = zmq_frame(size)
        with side("zmq_echo", size, address, core=-1):
            return half_round_trip(
                lambda: zmq_give(socket, frame), lambda: zmq_take(socket), rounds
            )


def zmq_inproc(size: int, rounds: int) -> float:
    with zmq_socket() as a, a.context.socket(a.type) as b:
        a.bind("inproc://frames")
        b.connect("inproc://frames")
        frame = zmq_frame(size)

        def hand_over(giver: Any, taker: Any) -> None:
            zmq_give(giver, frame)
            zmq_take(taker)

        return half_round_trip(lambda: hand_over(a, b), lambda: hand_over(b, a), rounds)


def measure(wanted: Callable[[Row], bool], quick: bool) -> None:
    flat = [row for row in ROWS[:len(FLAT)] if wanted(row)]
    rounds = ROUNDS // (10 if quick else 1)
    for row in flat:
        theirs = shmps_hand_over(KIB, rounds)
        row.add(shmps_hand_over(FLAT[row.id], rounds), theirs)
    for row, reference, few in (
        (ROWS[-2], zmq_hand_over, 10),
        (ROWS[-1], zmq_inproc, 1),
    ):
        if not wanted(row):
            continue
        try:
            theirs = reference(MIB, rounds // few)
        except Missing as why:
            row.missing = str(why)
            continue
        row.add(shmps_hand_over(MIB, rounds), theirs)
