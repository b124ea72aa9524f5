"""The extension: publishing, loans, taking, errors; what each promises."""

from __future__ import annotations

import array
import gc
import os
import time
import weakref
from collections.abc import Callable, Iterator

import numpy
import pytest
import shmps
from harness import SHM, Bus, mappings
from shmps import _native, errors

LARGE = 5000  # more than what lies in a slot or in a message: it is pinned


@pytest.fixture
def bus(bus_env: Bus) -> Iterator[_native.Connection]:
    with _native.Connection() as connection:
        yield connection


@pytest.fixture
def pair(bus: _native.Connection) -> Iterator[tuple[_native.Publisher, _native.Subscriber]]:
    subscriber = _native.Subscriber(bus, "a/#", timeout=10)
    with _native.Publisher(bus, "a/b") as publisher:
        yield publisher, subscriber


Pair = tuple[_native.Publisher, _native.Subscriber]


def test_what_a_message_tells(pair: Pair) -> None:
    publisher, subscriber = pair
    before = time.monotonic_ns()
    publisher.publish(b"hi", tag=2**64 - 1)
    publisher.publish(b"", 7)
    message = subscriber.take()
    assert (message.topic, message.seq, message.tag) == ("a/b", 0, 2**64 - 1)
    assert before <= message.time_ns <= time.monotonic_ns()
    assert message.publisher == publisher.id
    assert (message.lost, message.history, message.evicted) == (0, False, False)
    assert bytes(message) == message.copy() == bytes(message.payload) == b"hi"
    assert len(message) == 2 and message.payload.readonly
    assert repr(message) == "<shmps.Message a/b #0, 2 bytes>"
    empty = next(subscriber)
    assert (empty.seq, empty.tag, empty.copy()) == (1, 7, b"")


@pytest.mark.parametrize("size", [0, 1, 32, 33, 255, 256, 257, 4096, 4097, 70000, 3 << 20])
def test_any_size_arrives_whole(pair: Pair, size: int) -> None:
    publisher, subscriber = pair
    data = os.urandom(size)
    publisher.publish(data)
    with publisher.loan(size) as room:
        room[:] = data
    assert publisher.publish_batch([data, bytearray(data), memoryview(data)]) == 3
    for seq in range(5):
        message = subscriber.take()
        assert message.seq == seq and message.copy() == data


def test_any_buffer_is_published(pair: Pair) -> None:
    publisher, subscriber = pair
    numbers = array.array("d", [1.0, 2.0])
    for data in (numbers, numpy.array(numbers), memoryview(b"xabc")[1:], bytearray(b"z")):
        publisher.publish(data)
        assert subscriber.take().copy() == bytes(data)
    numpy.testing.assert_array_equal(numpy.frombuffer(numbers), [1, 2])
    with pytest.raises(ValueError, match="contiguous"):
        publisher.publish(numpy.zeros((4, 4))[:, ::2])
    with pytest.raises(TypeError, match=r"not str: encode it"):
        publisher.publish("hi")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        publisher.publish_batch([b"x", 5])  # type: ignore[list-item]
    assert subscriber.try_take() is None


def test_as_numpy_is_the_payload_itself(pair: Pair) -> None:
    publisher, subscriber = pair
    publisher.publish(numpy.arange(1000, dtype="f8"))
    message = subscriber.take()
    array = message.as_numpy("f8")
    assert not array.flags.writeable and not array.flags.owndata
    start = numpy.frombuffer(message.payload, "u1").ctypes.data
    assert array.ctypes.data == start == message.as_numpy().ctypes.data
    del message
    gc.collect()
    numpy.testing.assert_array_equal(array, numpy.arange(1000))


def test_what_is_held_does_not_change(pair: Pair) -> None:
    """Some have a pin; for the others none is left: they are copies."""
    publisher, subscriber = pair
    held = []
    for i in range(10):
        publisher.publish(bytes([i]) * LARGE)
        held.append(subscriber.take())
    granted = subscriber.stats().pins
    assert [m.pinned for m in held] == [True] * granted + [False] * (10 - granted)
    views = [m.payload for m in held]
    del held
    for _ in range(500):
        publisher.publish(b"\xff" * LARGE)
        subscriber.take_batch(64)
    assert [bytes(v) for v in views] == [bytes([i]) * LARGE for i in range(10)]
    assert subscriber.stats().held == 10
    del views
    assert subscriber.stats().held == 0
    publisher.publish(b"x" * LARGE)
    assert subscriber.take().pinned


def test_views_outlive_their_subscriber_and_connection(bus_env: Bus) -> None:
    with _native.Connection() as bus:
        subscriber = _native.Subscriber(bus, "a")
        publisher = _native.Publisher(bus, "a")
        for i in range(6):
            publisher.publish(bytes([i]) * LARGE)
        messages = subscriber.take_batch(6)
        views = [m.payload[1:] for m in messages[:3]] + [messages[3].as_numpy()]
    assert subscriber.closed and publisher.closed and bus.closed
    with _native.Connection() as other:  # others write where they were
        again = _native.Publisher(other, "a")
        for _ in range(200):
            again.publish(b"\xff" * LARGE)
    del bus, subscriber, publisher
    gc.collect()
    assert [bytes(v[:9]) for v in views] == [bytes([i]) * 9 for i in range(4)]
    assert [m.copy() for m in messages] == [bytes([i]) * LARGE for i in range(6)]
    del messages, views
    gc.collect()
    assert mappings(bus_env.instance) == set()


def test_who_closes_holds_nobody_back(bus: _native.Connection) -> None:
    """A reliable subscriber with a message held: closed, publishers do not wait for it."""
    publisher = _native.Publisher(bus, "a", depth=8)
    subscriber = _native.Subscriber(bus, "a", delivery="reliable")
    publisher.publish(b"1" * LARGE)
    message = subscriber.take()
    for _ in range(7):
        publisher.publish(b"2" * LARGE)
    with pytest.raises(errors.Full):
        for _ in range(2):
            publisher.publish(b"3" * LARGE, timeout=0)
    subscriber.close()
    for _ in range(100):
        publisher.publish(b"4" * LARGE, timeout=0)
    assert message.copy() == b"1" * LARGE


def test_loans(pair: Pair) -> None:
    publisher, subscriber = pair
    with publisher.loan(LARGE, tag=3) as room:
        assert len(room) == LARGE and not room.readonly
        room[:4] = b"abcd"
    assert bytes(subscriber.take().payload[:4]) == b"abcd"
    loan = publisher.loan(100)
    with loan as room:
        room[:3] = b"abc"
        loan.size, loan.tag = 3, 9
    message = subscriber.take()
    assert (message.copy(), message.tag) == (b"abc", 9)
    with pytest.raises(ValueError, match="0 to 100"):
        loan.size = 101
    with pytest.raises(BufferError):
        memoryview(loan)
    with pytest.raises(ValueError, match="released"):
        room[0]


def test_a_loan_is_discarded_after_an_exception(pair: Pair) -> None:
    publisher, subscriber = pair
    with pytest.raises(ZeroDivisionError):
        with publisher.loan(10) as room:
            room[0] = 1 // 0
    publisher.loan(10)  # nobody keeps it
    publisher.publish(b"next")
    message = subscriber.take()
    assert (message.copy(), message.seq) == (b"next", 0)


def test_a_loan_is_not_published_while_a_view_can_write(pair: Pair) -> None:
    publisher, subscriber = pair
    with pytest.raises(BufferError, match="nothing was published"):
        with publisher.loan(LARGE) as room:
            array = numpy.frombuffer(room, "u1")
    with pytest.raises(errors.StateError):
        publisher.publish(b"not yet")
    assert subscriber.try_take() is None
    del array
    with pytest.raises(BufferError):
        with publisher.loan(LARGE) as room:
            part = room[:10]
    del part, room
    publisher.publish(b"now")
    assert subscriber.take().seq == 0


def test_a_view_of_a_loan_outlives_its_publisher(bus: _native.Connection, bus_env: Bus) -> None:
    publisher = _native.Publisher(bus, "a")
    loan = publisher.loan(LARGE)
    view = memoryview(loan)
    publisher.close()
    view[:] = b"x" * LARGE
    with pytest.raises(BufferError):
        loan.__exit__(None, None, None)
    bus.close()
    view[:] = b"y" * LARGE
    assert bytes(view) == b"y" * LARGE
    del view
    assert mappings(bus_env.instance) == set()


def test_batches(pair: Pair) -> None:
    publisher, subscriber = pair
    assert publisher.publish_batch([]) == 0
    assert publisher.publish_batch(b"%d" % i for i in range(50)) == 50
    assert [m.copy() for m in subscriber.take_batch(20)] == [b"%d" % i for i in range(20)]
    assert [m.copy() for m in subscriber.take_batch(1000)] == [b"%d" % i for i in range(20, 50)]
    with pytest.raises(errors.Timeout):
        subscriber.take_batch(1, timeout=0)
    with pytest.raises(ValueError):
        subscriber.take_batch(0)


def test_small_and_large_ones_take_turns(pair: Pair) -> None:
    publisher, subscriber = pair
    sent = [bytes([i]) * size for i, size in enumerate([1, 5000, 256, 257, 9000, 0, 5000, 3] * 5)]
    publisher.publish_batch(sent)
    assert [m.copy() for m in subscriber.take_batch(3)] == sent[:3]
    assert [subscriber.take().copy() for _ in range(9)] == sent[3:12]
    assert [bytes(m) for m in subscriber.take_batch(100)] == sent[12:]


def test_an_error_that_ends_a_batch_is_raised_next(bus: _native.Connection, bus_env: Bus) -> None:
    """Of two publishers one has been damaged: what the other has published comes first, and the
    error's text is still its own when others have come in between."""
    subscriber = _native.Subscriber(bus, "a/#", timeout=0)
    bad = _native.Publisher(bus, "a/bad", message_bytes=32)
    good = _native.Publisher(bus, "a/good", message_bytes=32)  # looked at first
    good.publish(b"1")
    bad.publish(b"damaged")
    for path in SHM.glob(f"*.{bus_env.instance}.r*"):
        data = path.read_bytes()
        at = data.find(b"damaged")
        if at >= 0:  # before the payload: sequence, time, bytes, tag (layout.md)
            assert data[at - 16 : at - 8] == (7).to_bytes(8, "little")
            with path.open("r+b") as ring:
                ring.seek(at - 16)
                ring.write(b"\xff" * 8)
    assert [m.copy() for m in subscriber.take_batch(9)] == [b"1"]
    with pytest.raises(errors.TopicError):
        _native.topic_check("a//b")
    with pytest.raises(errors.CorruptError, match='"a/bad" holds what no publisher'):
        subscriber.take_batch(9)
    assert subscriber.try_take() is None


def test_full_for_single_messages_and_batches(bus: _native.Connection) -> None:
    publisher = _native.Publisher(bus, "a", depth=8)
    subscriber = _native.Subscriber(bus, "a", delivery="reliable")
    with pytest.raises(errors.InvalidError, match="batch of exactly 9 messages"):
        publisher.publish_batch([b"x"] * 9, exactly=True, timeout=0)
    assert publisher.publish_batch([b"x"], exactly=True) == 1
    with pytest.raises(errors.Full):
        publisher.publish_batch([b"x"] * 8, exactly=True, timeout=0)
    assert publisher.publish_batch([b"x"] * 20, timeout=0.01) == 7
    for timeout in (0, 0.01):
        with pytest.raises(errors.Full) as caught:
            publisher.publish(b"y", timeout=timeout)
        assert (caught.value.code, caught.value.name) == (2, "SHMPS_FULL")
        with pytest.raises(errors.Full):
            publisher.publish_batch([b"y"], timeout=timeout)
        with pytest.raises(errors.Full):
            publisher.loan(1, timeout=timeout)
    assert len(subscriber.take_batch(100)) == 8
    publisher.publish(b"z", timeout=0)


def test_what_is_lost_is_told(bus: _native.Connection) -> None:
    publisher = _native.Publisher(bus, "a", depth=8)
    subscriber = _native.Subscriber(bus, "a")
    for i in range(100):
        publisher.publish(b"%d" % i)
    messages = subscriber.take_batch(100)
    assert sum(m.lost for m in messages) + len(messages) == 100
    assert messages[-1].copy() == b"99" and subscriber.stats().lost == 100 - len(messages)
    short = _native.Publisher(bus, "a", depth=8)
    for _ in range(30):
        short.publish(b"x")
    short.close()
    publisher.publish(b"after")
    lost = received = 0
    while (message := subscriber.try_take()) is not None:
        lost, received = lost + message.lost, received + 1
    assert lost + received == 31


def test_timeouts(pair: Pair) -> None:
    publisher, subscriber = pair
    assert subscriber.try_take() is None
    with pytest.raises(TimeoutError) as caught:
        subscriber.take(timeout=0)
    assert isinstance(caught.value, shmps.Error) and caught.value.code == 4
    with pytest.raises(errors.Timeout):
        subscriber.take(0.01)
    subscriber.timeout = 0.01
    assert subscriber.timeout == 0.01
    with pytest.raises(errors.Timeout):
        next(subscriber)
    with pytest.raises(errors.Timeout):
        for _ in subscriber:
            raise AssertionError("there is none")
    with pytest.raises(errors.Timeout):
        publisher.wait_subscribers(2, timeout=0)
    publisher.wait_subscribers()
    subscriber.wait_publishers(n=1, timeout=0)
    for wrong in (-1, float("nan"), "1"):
        with pytest.raises((ValueError, TypeError)):
            subscriber.take(wrong)  # type: ignore[arg-type]
    subscriber.timeout = None
    assert subscriber.timeout is None
    with pytest.raises(AttributeError):
        del subscriber.timeout


def test_events(bus: _native.Connection) -> None:
    publisher = _native.Publisher(bus, "a")
    subscriber = _native.Subscriber(bus, "a")
    event = publisher.event(timeout=10)
    assert (event.kind, event.pid, event.topic) == ("subscriber joined", os.getpid(), "a")
    event = subscriber.event()
    assert (event.kind, event.id, event.pid) == ("publisher joined", publisher.id, os.getpid())
    publisher.close()
    assert subscriber.event(timeout=10).kind == "publisher left"
    with pytest.raises(errors.Timeout):
        subscriber.event(timeout=0)


def test_history(bus: _native.Connection) -> None:
    publisher = _native.Publisher(bus, "a")
    publisher.publish_batch([b"1", b"2", b"3"])
    late = _native.Subscriber(bus, "a", history=2)
    assert [(m.copy(), m.history) for m in late.take_batch(9)] == [(b"2", True), (b"3", True)]
    publisher.publish(b"4")
    assert not late.take().history
    assert _native.Subscriber(bus, "a", history=0).try_take() is None
    newest = _native.Subscriber(bus, "a", delivery="latest")
    publisher.publish_batch([b"5", b"6"])
    assert newest.take().copy() == b"6"


def test_history_outlives_its_publishers(bus: _native.Connection) -> None:
    with _native.Publisher(bus, "a", history=2) as publisher:
        publisher.publish_batch([b"1", b"2", b"3"])
    late = _native.Subscriber(bus, "a")
    assert [(m.copy(), m.history) for m in late.take_batch(9)] == [(b"2", True), (b"3", True)]


def test_an_observer_is_not_noticed(bus: _native.Connection) -> None:
    publisher = _native.Publisher(bus, "a")
    with _native.Connection(observe=True) as looker:
        observer = _native.Subscriber(looker, "a", delivery="observe")
        publisher.publish(b"x" * LARGE)
        message = observer.take(10)
        assert not message.pinned and message.copy() == b"x" * LARGE
        assert publisher.stats().subscribers == 0
        with pytest.raises(errors.StateError):
            _native.Publisher(looker, "b")


def test_statistics(pair: Pair) -> None:
    publisher, subscriber = pair
    publisher.publish_batch([b"abc"] * 4)
    subscriber.take_batch(3)
    mine, theirs = publisher.stats(), subscriber.stats()
    assert (mine.messages, mine.bytes, mine.subscribers, mine.depth) == (4, 12, 1, 64)
    assert (theirs.received, theirs.lost, theirs.publishers, theirs.topics) == (3, 0, 1, 1)


def test_errors_say_what_to_do(bus: _native.Connection) -> None:
    with pytest.raises(errors.TopicError, match='"a//b": level 2 is empty') as caught:
        _native.Publisher(bus, "a//b")
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, shmps.Error)
    assert (caught.value.code, caught.value.name) == (-2, "SHMPS_E_TOPIC") and caught.value.remedy
    with pytest.raises(errors.NoDaemonError, match="nobody-here") as refused:
        _native.Connection("nobody-here", autostart=False)
    assert isinstance(refused.value, ConnectionError)
    with pytest.raises(errors.SizeError):
        _native.Publisher(bus, "a", message_bytes=16).publish(b"x" * 17)
    with pytest.raises(errors.InvalidError):
        _native.Publisher(bus, "a", depth=1 << 30)
    with pytest.raises(ValueError, match="'lossy', 'latest', 'reliable', 'observe', not 'lousy'"):
        _native.Subscriber(bus, "a", delivery="lousy")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no argument 'tagg'"):
        _native.Publisher(bus, "a").publish(b"", tagg=1)  # type: ignore[call-arg]
    for kind in errors.BY_CODE.values():
        assert kind.remedy and str(kind("why")) == "why"


def test_an_error_that_is_cut_off_within_a_character(bus_env: Bus) -> None:
    with pytest.raises(errors.InvalidError, match="longer than 107 bytes"):
        _native.Connection("/tmp/" + "ü" * 300)


def test_numbers_of_numpy_and_out_of_range(pair: Pair, bus: _native.Connection) -> None:
    publisher, subscriber = pair
    with publisher.loan(numpy.int64(3), tag=numpy.uint64(7)) as room:  # type: ignore[arg-type]
        room[:] = b"abc"
    (message,) = subscriber.take_batch(numpy.int32(1))  # type: ignore[arg-type]
    assert (message.copy(), message.tag) == (b"abc", 7)
    for wrong in (-1, 2**64):
        with pytest.raises(OverflowError):
            publisher.publish(b"", wrong)
        with pytest.raises(OverflowError):
            _native.Publisher(bus, "a", message_bytes=wrong)
        loan = publisher.loan(1, tag=5)
        with pytest.raises(OverflowError):
            loan.tag = wrong
        assert loan.tag == 5
        del loan


def test_names() -> None:
    assert _native.filter_matches("a/+", "a/b") and not _native.filter_matches("a/+", "a")
    with pytest.raises(errors.TopicError):
        _native.filter_matches("a//+", "a/b")
    with pytest.raises(errors.TopicError):
        _native.topic_check("a/#")
    _native.filter_check("a/#")
    with pytest.raises(TypeError):
        _native.topic_check(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="null character"):
        _native.topic_check("a\0b")
    with pytest.raises(UnicodeEncodeError):
        _native.topic_check("a\udc80")
    assert _native.version() == shmps.__version__


def test_what_is_closed_says_so(bus: _native.Connection) -> None:
    publisher, subscriber = _native.Publisher(bus, "a"), _native.Subscriber(bus, "a")
    with publisher, subscriber:
        assert not publisher.closed and not subscriber.closed
    for handle in (publisher, subscriber):
        assert handle.closed
        handle.close()
    calls: list[Callable[[], object]] = [
        lambda: publisher.publish(b""),
        lambda: publisher.loan(1),
        lambda: publisher.publish_batch([b""]),
        publisher.stats,
        publisher.event,
        publisher.wait_subscribers,
        subscriber.take,
        subscriber.try_take,
        lambda: subscriber.take_batch(1),
        subscriber.fileno,
        subscriber.stats,
        subscriber.wait_publishers,
    ]
    for call in calls:
        with pytest.raises(errors.ClosedError):
            call()
    assert list(subscriber) == []
    bus.close()
    bus.close()
    with pytest.raises(errors.ClosedError):
        _native.Publisher(bus, "a")
    with pytest.raises(errors.ClosedError):
        bus.daemon_alive()


def test_what_nobody_refers_to_closes(bus: _native.Connection) -> None:
    publisher = _native.Publisher(bus, "a")
    subscribers = [_native.Subscriber(bus, "a") for _ in range(3)]
    assert publisher.stats().subscribers == 3
    del subscribers
    gc.collect()
    assert publisher.stats().subscribers == 0


class Weak(_native.Subscriber):
    pass


def test_a_subscriber_whose_end_closes_the_bus(bus: _native.Connection) -> None:
    subscriber = Weak(bus, "a")
    _watch = weakref.ref(subscriber, lambda _: bus.close())
    del subscriber
    assert bus.closed


def test_a_subscriber_that_keeps_its_own_message_is_garbage(bus: _native.Connection) -> None:
    subscriber = Weak(bus, "a")
    _native.Publisher(bus, "a").publish(b"x" * LARGE)
    subscriber.last = subscriber.take().payload  # type: ignore[attr-defined]
    watch = weakref.ref(subscriber)
    del subscriber
    gc.collect()
    assert watch() is None


def test_pubsubd_may_die_and_come_back(bus_env: Bus, bus: _native.Connection) -> None:
    publisher, subscriber = _native.Publisher(bus, "a"), _native.Subscriber(bus, "a")
    assert bus.daemon_alive()
    bus_env.kill()
    publisher.publish(b"alone")
    assert subscriber.take(10).copy() == b"alone"
    bus_env.start()
    assert bus.daemon_alive()
    assert _native.Subscriber(bus, "a", history=1).take(10).copy() == b"alone"


def test_a_loan_that_is_never_left_goes_with_who_has_it(bus: _native.Connection) -> None:
    publisher = _native.Publisher(bus, "a")
    view = publisher.loan(LARGE).__enter__()
    view[:4] = b"abcd"
    with pytest.raises(errors.StateError):
        publisher.publish(b"x")
    del view
    publisher.publish(b"x")


def test_an_empty_message_is_true(pair: Pair) -> None:
    publisher, subscriber = pair
    publisher.publish_batch([b"", b"1"])
    taken = []
    while message := subscriber.try_take():
        taken.append(message.copy())
    assert taken == [b"", b"1"]
