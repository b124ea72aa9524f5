"""In one process: what a publish and a receive cost, beside the least that Python can do.

References and ours take turns in slices of about a millisecond; a figure is the median of them. A
loop of its own for each, as CPython adapts a loop's code to what it calls. Times are those of the
whole loop, as `timeit` counts them, except where a row says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice, repeat
from statistics import median
from types import FunctionType
from typing import Any

import empty_call
import shmps
from place import answer, pinned, side, tell
from report import Row

BYTES = 64
BATCH = 64
DEPTH = 4096  # messages that lie ready before they are taken
CALLS = 10_000  # in a slice
SLICES = 21

EMPTY = "empty call"
LIST = "list of memoryviews"
PUBLISH = [
    Row("publish_64", "publish 64 B", EMPTY, 3),
    Row("publish_64_untimed", "publish 64 B, without timestamps", EMPTY, 3),
    Row("publish_64_drained", "publish 64 B, one process takes", EMPTY),
    Row("publish_64_net", "publish 64 B, without the loop", EMPTY),
    Row("publish_64_untimed_net", "the same without timestamps", EMPTY),
]
RECEIVE = [
    Row("receive_64_batch", "receive 64 B, batches of 64, len()", LIST, 3),
    Row("receive_64_other_core", "the same, written by another core", LIST),
    Row("receive_64_each", "receive 64 B, one by one, len()", LIST),
    Row("receive_64_payload", "receive 64 B, batches, payload[0]", LIST),
]
ROWS = PUBLISH + RECEIVE

Loop = Callable[..., None]


def own(loop: Loop) -> Loop:
    """A copy with code of its own."""
    assert isinstance(loop, FunctionType)
    return FunctionType(loop.__code__.replace(), loop.__globals__)


def per_call(loop: Loop, n: int, *args: Any) -> float:
    """ns per turn of a loop that makes n."""
    start = time.perf_counter_ns()
    loop(*args, n)
    return (time.perf_counter_ns() - start) / n


# ---- publish


def call(function: Callable[[bytes], None], data: bytes, n: int) -> None:
    for _ in repeat(None, n):
        function(data)


def nothing(n: int) -> None:
    for _ in repeat(None, n):
        pass


def publish_pair(publish: Callable[[bytes], None], slices: int) -> tuple[float, float, float]:
    """Ours, the empty call and the bare loop."""
    data = bytes(BYTES)
    ours, empty = own(call), own(call)
    times: list[tuple[float, float, float]] = []
    for _ in range(slices):
        loop_ns = per_call(nothing, CALLS)
        empty_ns = per_call(empty, CALLS, empty_call.empty, data)
        times.append((per_call(ours, CALLS, publish, data), empty_ns, loop_ns))
    a, b, c = zip(*times, strict=True)
    return median(a), median(b), median(c)


def publish(wanted: Callable[[Row], bool], slices: int) -> None:
    plain, untimed, drained, net, untimed_net = PUBLISH
    with shmps.connect() as bus:
        for row, row_net, topic, bytes_, timestamps in (
            (plain, net, "publish", 0, True),
            (untimed, untimed_net, "publish/untimed", BYTES, False),
        ):
            if wanted(row) or wanted(row_net):
                with bus.publisher(topic, message_bytes=bytes_, timestamps=timestamps) as pub:
                    ours, empty, loop = publish_pair(pub.publish, slices)
                row.add(ours, empty)
                row_net.add(ours - loop, empty - loop)
        if wanted(drained):
            with bus.publisher("drained") as pub, side("drain", "drained", core=1):
                ours, empty, _ = publish_pair(pub.publish, slices)
            drained.add(ours, empty)


# ---- receive


def batches(sub: shmps.Subscriber, n: int) -> None:
    while n > 0:
        messages = sub.take_batch(BATCH)
        for message in messages:
            len(message)
        n -= len(messages)


def batches_payload(sub: shmps.Subscriber, n: int) -> None:
    while n > 0:
        messages = sub.take_batch(BATCH)
        for message in messages:
            message.payload[0]
        n -= len(messages)


def each(sub: shmps.Subscriber, n: int) -> None:
    for message in islice(sub, n):
        len(message)


def views(of: list[memoryview], _: int) -> None:
    for view in of:
        len(view)


def views_first(of: list[memoryview], _: int) -> None:
    for view in of:
        view[0]


def receive_pair(
    fill: Callable[[], None], sub: shmps.Subscriber, loops: tuple[Loop, Loop], slices: int
) -> tuple[float, float]:
    """Ours and the list; filling the ring is not counted."""
    of = [memoryview(bytes(BYTES)) for _ in range(DEPTH)]
    ours, theirs = loops
    times: list[tuple[float, float]] = []
    for _ in range(slices):
        fill()
        theirs_ns = per_call(theirs, DEPTH, of)
        times.append((per_call(ours, DEPTH, sub), theirs_ns))
    a, b = zip(*times, strict=True)
    return median(a), median(b)


def receive(wanted: Callable[[Row], bool], slices: int) -> None:
    batch, other_core, one_by_one, payload = RECEIVE
    with shmps.connect() as bus:
        data = bytes(BYTES)
        sub = bus.subscribe("receive")
        with bus.publisher("receive", depth=DEPTH, message_bytes=BYTES) as pub:
            for row, loops in (
                (batch, (batches, views)),
                (one_by_one, (each, views)),
                (payload, (batches_payload, views_first)),
            ):
                if wanted(row):
                    pair = receive_pair(lambda: call(pub.publish, data, DEPTH), sub, loops, slices)
                    row.add(*pair)
        if wanted(other_core):
            sub = bus.subscribe("filled")
            with side("fill", "filled", BYTES, DEPTH, core=1) as filler:
                def fill() -> None:
                    tell(filler, "fill")
                    answer(filler, "filled")

                other_core.add(*receive_pair(fill, sub, (own(batches), own(views)), slices))


def measure(wanted: Callable[[Row], bool], quick: bool) -> None:
    slices = 3 if quick else SLICES
    with pinned(0):
        publish(wanted, slices)
        receive(wanted, slices)
