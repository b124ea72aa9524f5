"""Every call of the extension, also what it refuses, in small pieces that leave nothing behind:
for the tests that count references, and for those in which memory runs out.

As a program, on a bus of its own: counts what each piece leaves; exits with 1 if there is any.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shmps import _native, errors

LARGE = b"x" * 5000
SMALL = b"y" * 100
ROUNDS = 20


@contextmanager
def refused(*kinds: type[BaseException]) -> Iterator[None]:
    try:
        yield
    except kinds:
        return
    raise AssertionError(f"not refused with {kinds}")


class Place:
    """What the pieces need that takes long to make."""

    def __init__(self) -> None:
        self.bus: Any = _native.Connection()  # Any: pieces pass what the types forbid
        self.publisher: Any = _native.Publisher(self.bus, "place", depth=8, message_bytes=70000)
        self.subscriber: Any = _native.Subscriber(self.bus, "place")

    def drain(self) -> int:
        n = 0
        while self.subscriber.try_take():
            n += 1
        return n


native: Any = _native


def names(place: Place) -> None:
    native.version()
    native.topic_check("a/b")
    native.filter_check("a/#")
    assert native.filter_matches("a/#", "a/b") and not native.filter_matches("a", "b")
    for wrong in ("a//b", "a/#"):
        with refused(errors.TopicError):
            native.topic_check(wrong)
        with refused(errors.TopicError):
            native.filter_matches("a", wrong)
    with refused(errors.TopicError):
        native.filter_check("#/a")
    for bad in (5, "a\0b", "a\udc80"):
        with refused(TypeError, ValueError):
            native.topic_check(bad)
        with refused(TypeError, ValueError):
            native.filter_matches(bad, "a")


def connections(place: Place) -> None:
    with native.Connection(os.environ["SHMPS_INSTANCE"], autostart=False, timeout=None) as bus:
        assert bus.instance and not bus.closed and bus.daemon_alive()
        native.Publisher(bus, "closed with it")
    bus.close()
    for call in (bus.daemon_alive, bus.stop_daemon, lambda: native.Subscriber(bus, "a")):
        with refused(errors.ClosedError):
            call()
    with native.Connection(observe=True) as looker:
        native.Subscriber(looker, "a", delivery="observe").close()
        with refused(errors.StateError):
            native.Publisher(looker, "a")
        with refused(errors.StateError):
            looker.daemon_alive()
    with refused(errors.NoDaemonError):
        native.Connection("nobody-here", autostart=False, timeout=0)
    with refused(errors.InvalidError):
        native.Connection("no name")
    for wrong in ({"instance": 5}, {"timeout": "x"}, {"timeout": -1}, {"nothing": 1}):
        with refused(TypeError, ValueError):
            native.Connection(**wrong)


def publishers(place: Place) -> None:
    options = {"depth": 4, "pins": 2, "message_bytes": 100, "timestamps": False, "history": 2}
    with native.Publisher(place.bus, "p", **options, wait="sleep") as publisher:
        assert publisher.topic == "p" and publisher.id and not publisher.closed
        publisher.stats()
        with refused(errors.SizeError):
            publisher.publish(LARGE)
        with refused(errors.Timeout):
            publisher.wait_subscribers(1, timeout=0)
        with refused(errors.Timeout):
            publisher.event(timeout=0)
        with refused(ValueError, TypeError, OverflowError):
            publisher.wait_subscribers(-1)
    for call in (publisher.stats, publisher.event, publisher.wait_subscribers):
        with refused(errors.ClosedError):
            call()
    for calls in (publisher.publish, publisher.loan, lambda _: publisher.publish_batch([b""])):
        with refused(errors.ClosedError, TypeError):
            calls(b"")
    with refused(errors.TopicError):
        native.Publisher(place.bus, "a/#")
    with refused(errors.InvalidError):
        native.Publisher(place.bus, "a", depth=1)
    for wrong in ((place, "a"), (place.bus, 5), (place.bus,)):
        with refused(TypeError):
            native.Publisher(*wrong)
    for option in ({"depth": -1}, {"wait": "long"}, {"depth": "x"}, {"message_bytes": -1}):
        with refused(TypeError, ValueError, OverflowError):
            native.Publisher(place.bus, "a", **option)


def growing(place: Place) -> int:
    with native.Publisher(place.bus, "g") as publisher:
        subscriber = native.Subscriber(place.bus, "g")
        publisher.publish(LARGE * 2)
        publisher.publish_batch([SMALL, LARGE * 5])
        assert len(subscriber.take_batch(9)) == 3
        subscriber.close()
    return 3


def subscribers(place: Place) -> None:
    with native.Subscriber(
        place.bus, "s/#", timeout=0, delivery="reliable", wait="sleep", history=2, pins=3
    ) as subscriber:
        assert subscriber.filter == "s/#" and not subscriber.closed and subscriber.timeout == 0
        subscriber.timeout = 0.5
        subscriber.timeout = None
        with refused(ValueError):
            subscriber.timeout = -1
        subscriber.stats()
        assert subscriber.fileno() > 0 and subscriber.try_take() is None
        for call in (subscriber.wait_publishers, subscriber.event, subscriber.take):
            with refused(errors.Timeout):
                call(timeout=0)
        with refused(errors.Timeout):
            subscriber.take_batch(5, 0.001)
        for wrong in (0, -1, "x"):
            with refused(TypeError, ValueError):
                subscriber.take_batch(wrong)
        with refused(TypeError):
            subscriber.take(1, 2)
        with refused(TypeError):
            subscriber.take(timeout=1, tim=2)
    assert list(subscriber) == []
    for call in (subscriber.stats, subscriber.try_take, subscriber.take, subscriber.fileno):
        with refused(errors.ClosedError):
            call()
    with refused(errors.TopicError):
        native.Subscriber(place.bus, "#/a")
    for option in ({"pins": -1}, {"delivery": "lousy"}, {"history": "x"}, {"history": -1}):
        with refused(TypeError, ValueError):
            native.Subscriber(place.bus, "a", **option)


def events(place: Place) -> None:
    publisher = native.Publisher(place.bus, "e")
    subscriber = native.Subscriber(place.bus, "e")
    publisher.wait_subscribers()
    subscriber.wait_publishers(n=1)
    assert publisher.event().kind == "subscriber joined"
    assert subscriber.event(5).kind == "publisher joined"
    publisher.close()
    assert subscriber.event(timeout=5).kind == "publisher left"
    subscriber.close()


def publishing(place: Place) -> int:
    publisher = place.publisher
    for data in (SMALL, bytearray(SMALL), memoryview(LARGE), LARGE, b"", LARGE * 8):
        publisher.publish(data)
    publisher.publish(SMALL, 2**64 - 1, timeout=None)
    publisher.publish(data=SMALL, tag=7, timeout=1.5)
    for wrong in ((), ("text",), (5,), (SMALL, -1), (SMALL, "x"), (SMALL, 0, -1), (1, 2, 3, 4)):
        with refused(TypeError, ValueError, OverflowError):
            publisher.publish(*wrong)
    with refused(TypeError):
        publisher.publish(SMALL, tagg=1)
    with refused(TypeError):
        publisher.publish(SMALL, data=SMALL)
    with refused(BufferError, ValueError):
        publisher.publish(memoryview(SMALL)[::2])
    return place.drain()


def batches(place: Place) -> int:
    publisher = place.publisher
    assert publisher.publish_batch([]) == 0
    assert publisher.publish_batch([SMALL, bytearray(LARGE), memoryview(SMALL)]) == 3
    assert publisher.publish_batch((SMALL for _ in range(3)), exactly=True, timeout=1) == 3
    for wrong in ((), (5,), ([SMALL, 5],), ([SMALL, "x"],), (1 // n for n in (1, 0))):
        with refused(TypeError, ZeroDivisionError):
            publisher.publish_batch(wrong) if isinstance(wrong, Iterator) else (
                publisher.publish_batch(*wrong)
            )
    with refused(errors.InvalidError):
        publisher.publish_batch([SMALL] * 9, exactly=True)
    with refused(errors.SizeError):
        publisher.publish_batch([SMALL, b"x" * 70001])
    assert len(place.subscriber.take_batch(4)) == 4
    return 4 + place.drain()


def full(place: Place) -> int:
    publisher = native.Publisher(place.bus, "f", depth=2)
    subscriber = native.Subscriber(place.bus, "f", delivery="reliable")
    assert publisher.publish_batch([SMALL] * 3, timeout=0) == 2
    for timeout in (0, 0.001):
        with refused(errors.Full):
            publisher.publish(SMALL, timeout=timeout)
        with refused(errors.Full):
            publisher.publish_batch([SMALL], exactly=True, timeout=timeout)
        with refused(errors.Full):
            publisher.loan(5, timeout=timeout)
    assert len(list(zip(range(2), subscriber, strict=False))) == 2
    place_is_closed(publisher, subscriber)
    return 2


def place_is_closed(*handles: Any) -> None:
    for handle in handles:
        handle.close()
        handle.close()


def loans(place: Place) -> int:
    publisher = place.publisher
    with publisher.loan(5000, tag=3) as view:
        view[:3] = b"abc"
    loan = publisher.loan(10)
    with loan as view:
        assert loan.size == 10 and loan.tag == 0
        loan.size, loan.tag = 3, 2**64 - 1
        with refused(ValueError):
            loan.size = 11
        with refused(TypeError, OverflowError):
            loan.tag = "x"
        with refused(errors.StateError):
            publisher.loan(1)
        with refused(RuntimeError):
            loan.__enter__()
    with refused(BufferError):
        memoryview(loan)
    with refused(ZeroDivisionError), publisher.loan(5000):
        1 // 0
    with refused(BufferError), publisher.loan(5000) as view:
        part = view[1:]
    del part, view
    publisher.loan(5000)
    publisher.loan(5000).__enter__()
    for wrong in ((), (-1,), ("x",), (1, 2)):
        with refused(TypeError, ValueError):
            publisher.loan(*wrong)
    return place.drain()


def a_view_outlives_its_publisher(place: Place) -> None:
    publisher = native.Publisher(place.bus, "v")
    loan = publisher.loan(5000)
    view = memoryview(loan)
    publisher.close()
    view[:] = LARGE
    with refused(BufferError):
        loan.__exit__(None, None, None)


def messages(place: Place) -> int:
    n = 0
    for data in (SMALL, LARGE, b""):
        place.publisher.publish(data, 5)
        message = place.subscriber.take()
        n += 1
        assert message and len(message) == len(data)
        assert bytes(message) == message.copy() == bytes(message.payload) == data
        told = (message.topic, message.seq, message.time_ns, message.tag, message.lost)
        flags = (message.publisher, message.pinned, message.history, message.evicted)
        assert told and flags and repr(message)
        with refused(BufferError, TypeError):
            message.payload[:] = data
        with refused(TypeError):
            message.as_numpy(1, 2)
        with refused(TypeError):
            native.Message()
    return n


def keeping(place: Place) -> int:
    """Pinned, copied; beyond the end of the subscriber."""
    subscriber = native.Subscriber(place.bus, "place", pins=2)
    place.publisher.publish_batch([LARGE] * 5)
    held = subscriber.take_batch(5)
    views = [message.payload for message in held[:3]]
    subscriber.close()
    del held
    assert all(view == LARGE for view in views)
    return 5 + place.drain()


def losses(place: Place) -> int:
    for _ in range(30):
        place.publisher.publish(SMALL)
    message = place.subscriber.take()
    assert message.lost > 0
    return 1 + place.drain()


class Cyclic(_native.Subscriber):
    me: Any


def cycles(place: Place) -> None:
    subscriber = Cyclic(place.bus, "c")
    subscriber.me = subscriber
    assert gc.is_tracked(subscriber) and place.bus in gc.get_referents(subscriber)
    del subscriber
    gc.collect()


def forks(place: Place) -> int:
    place.publisher.publish(LARGE)
    message = place.subscriber.take()
    pid = os.fork()
    if pid == 0:
        os._exit(message.copy() != LARGE)
    assert os.waitpid(pid, 0)[1] == 0
    return 1


PIECES: list[Callable[[Place], int | None]] = [
    names,
    connections,
    publishers,
    growing,
    subscribers,
    events,
    publishing,
    batches,
    full,
    loans,
    a_view_outlives_its_publisher,
    messages,
    keeping,
    losses,
    cycles,
    forks,
]


def count() -> tuple[int, int]:
    gc.collect()
    total = getattr(sys, "gettotalrefcount", lambda: 0)
    return total(), sys.getallocatedblocks()


def left_by(piece: Callable[[Place], int | None], place: Place) -> tuple[int, int]:
    """References and blocks of memory, after so many rounds."""
    for _ in range(3):
        piece(place)
    references, blocks = count()
    made = 0
    for _ in range(ROUNDS):
        made += piece(place) or 0
    after, blocks_after = count()
    if after:  # a message that is used again is not counted anew, but where it goes
        after += made
    return after - references, blocks_after - blocks


def main() -> int:
    place = Place()
    leaks = 0
    for piece in PIECES:
        references, blocks = left_by(piece, place)
        leaks += references >= ROUNDS or blocks >= ROUNDS
        print(f"{piece.__name__}: {references} references, {blocks} blocks after {ROUNDS} rounds")
    place.bus.close()
    return leaks > 0


if __name__ == "__main__":
    sys.exit(main())
