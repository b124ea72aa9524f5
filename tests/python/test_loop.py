"""Handlers: Bus.on() and off(), and who calls them."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import shmps
from harness import READY_S
from harness import Bus as Instance

IDLE_S = 0.4


@pytest.fixture
def bus(bus_env: Instance) -> Iterator[shmps.Bus]:
    with shmps.connect() as connected:
        yield connected


def publish(bus: shmps.Bus, topic: str, *messages: bytes) -> None:
    """Messages that are there when this returns."""
    with bus.publisher(topic, depth=1024) as publisher:
        for message in messages:
            publisher.publish(message)


def collect(bus: shmps.Bus, filter: str, **options: Any) -> list[bytes]:
    """What a handler of that filter has been called with by now."""
    got: list[bytes] = []
    bus.on(filter, lambda message: got.append(bytes(message)), **options)
    return got


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread or process does without telling."""
    end = time.monotonic() + READY_S
    while not condition():
        assert time.monotonic() < end, "it does not come to it"
        time.sleep(0.002)


def handle(bus: shmps.Bus, messages: int) -> None:
    """Run the loop until so many messages have been handled."""
    while messages > 0:
        messages -= bus.loop_once(READY_S)
    assert messages == 0, f"{-messages} more than there should be"


@contextmanager
def program(code: str) -> Iterator[subprocess.Popen[str]]:
    """A program on the test's bus."""
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(command, text=True, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def in_the_loop(bus: shmps.Bus, process: subprocess.Popen[str]) -> None:
    """Wait until a program that is ready to print got for a message has done so."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    publish(bus, "a", b"")
    assert process.stdout.readline() == "got\n"


def test_on_decorates_and_calls_with_each_message(bus: shmps.Bus) -> None:
    got = []

    @bus.on("a/#")
    def handler(message: shmps.Message) -> None:
        got.append((message.topic, bytes(message)))

    assert callable(handler)
    publish(bus, "a/b", b"1", b"2")
    handle(bus, 2)
    assert got == [("a/b", b"1"), ("a/b", b"2")]


def test_on_takes_what_subscribing_takes(bus: shmps.Bus) -> None:
    publisher = bus.publisher("a", depth=8)
    for number in range(3):
        publisher.publish(b"%d" % number)
    late = collect(bus, "a", history=2)
    reliable = collect(bus, "a", delivery="reliable", history=0)
    handle(bus, 2)
    with pytest.raises(shmps.Full):
        for _ in range(100):
            publisher.publish(b"more", timeout=0)
    assert (late, reliable) == ([b"1", b"2"], [])
    with pytest.raises(shmps.errors.TopicError):
        bus.on("a//b", print)
    with pytest.raises(TypeError):
        bus.on("a", print, timeout=5)  # type: ignore[call-overload]


def test_several_handlers_of_a_topic_and_a_handler_of_several_topics(bus: shmps.Bus) -> None:
    first, second = collect(bus, "a"), collect(bus, "+")
    both: list[str] = []

    def handler(message: shmps.Message) -> None:
        both.append(message.topic)

    bus.on("a", handler)
    bus.on("b", handler)
    publish(bus, "a", b"1")
    publish(bus, "b", b"2")
    handle(bus, 5)
    assert (first, sorted(second), sorted(both)) == ([b"1"], [b"1", b"2"], ["a", "b"])


def test_off_ends_it_for_a_filter_or_for_all(bus: shmps.Bus) -> None:
    got: list[str] = []

    def handler(message: shmps.Message) -> None:
        got.append(message.topic)

    for topic in ("a", "b", "c"):
        bus.on(topic, handler)
    bus.off(handler, "a")
    for topic in ("a", "b", "c"):
        publish(bus, topic, b"")
    handle(bus, 2)
    assert sorted(got) == ["b", "c"]
    bus.off(handler)
    bus.off(handler)  # again: there is nothing to be done
    publish(bus, "b", b"")
    with pytest.raises(TimeoutError):
        bus.loop_once(0.05)


def test_off_in_its_own_handler_is_the_end_of_it(bus: shmps.Bus) -> None:
    got: list[bytes] = []

    @bus.on("a")
    def handler(message: shmps.Message) -> None:
        got.append(bytes(message))
        bus.off(handler)

    publish(bus, "a", b"1", b"2")
    handle(bus, 1)
    with pytest.raises(shmps.Timeout):
        bus.loop_once(0)
    assert got == [b"1"]


def test_off_waits_for_a_call_that_another_thread_is_in(bus: shmps.Bus) -> None:
    order, started, go = [], threading.Event(), threading.Event()

    @bus.on("a")
    def handler(message: shmps.Message) -> None:
        started.set()
        go.wait()
        order.append("handler")

    def off() -> None:
        bus.off(handler)
        order.append("off")

    bus.loop_start()
    publish(bus, "a", b"1", b"2")
    started.wait()
    remover = threading.Thread(target=off)
    remover.start()
    remover.join(0.1)
    assert remover.is_alive(), "it has not waited"
    go.set()
    remover.join()
    bus.loop_stop()
    assert order == ["handler", "off"]


def test_a_thread_calls_until_it_is_stopped(bus: shmps.Bus) -> None:
    got, done = [], threading.Event()

    @bus.on("a")
    def handler(message: shmps.Message) -> None:
        got.append((bytes(message), threading.current_thread().name))
        if bytes(message) == b"99":
            done.set()

    bus.loop_start()
    publish(bus, "a", *(b"%d" % number for number in range(100)))
    assert done.wait(READY_S)
    bus.loop_stop()
    bus.loop_stop()  # again: there is nothing to be done
    assert got == [(b"%d" % number, "shmps-loop") for number in range(100)]
    assert not [t for t in threading.enumerate() if t.name == "shmps-loop"]
    publish(bus, "a", b"later")
    assert len(got) == 100
    handle(bus, 1)
    assert got[-1] == (b"later", "MainThread")


def test_handlers_come_and_go_while_the_loop_runs(bus: shmps.Bus) -> None:
    bus.loop_start()
    for number in range(20):
        arrived = threading.Event()

        def handler(message: shmps.Message, arrived: threading.Event = arrived) -> None:
            arrived.set()

        bus.on("a", handler)
        publish(bus, "a", b"%d" % number)
        assert arrived.wait(READY_S)
        bus.off(handler)


def test_what_a_handler_raises_is_reported_and_the_loop_goes_on(
    bus: shmps.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[str] = []
    done = threading.Event()
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: reported.append(str(error)))
    monkeypatch.setattr(
        threading, "excepthook", lambda args: reported.append(f"thread: {args.exc_value}")
    )

    @bus.on("a")
    def handler(message: shmps.Message) -> None:
        if bytes(message) == b"end":
            done.set()
        else:
            raise ValueError(str(message.payload, "utf-8"))

    publish(bus, "a", b"1", b"2")
    handle(bus, 2)
    assert reported == ["1", "2"]
    bus.loop_start()
    publish(bus, "a", b"3", b"end")
    assert done.wait(READY_S)
    bus.loop_stop()
    assert reported == ["1", "2", "thread: 3"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_ends_the_loop(bus: shmps.Bus, kind: type[BaseException]) -> None:
    def handler(message: shmps.Message) -> None:
        if bytes(message) == b"end":
            raise kind

    bus.on("a", handler)
    rest = collect(bus, "a")
    publish(bus, "a", b"1", b"end", b"2")
    with pytest.raises(kind):
        bus.loop_forever()
    handle(bus, 1 + 3 - len(rest))  # what was there is still there
    assert rest == [b"1", b"end", b"2"]


def test_stopping_from_a_handler_ends_after_it_and_loses_nothing(bus: shmps.Bus) -> None:
    got: list[bytes] = []

    @bus.on("a")
    def handler(message: shmps.Message) -> None:
        got.append(bytes(message))
        bus.loop_stop()

    publish(bus, "a", b"1", b"2", b"3")
    bus.loop_forever()
    assert got == [b"1"]
    bus.loop_start()
    until(lambda: len(got) == 2)
    bus.loop_start()  # when the old thread has ended
    until(lambda: len(got) == 3)
    assert got == [b"1", b"2", b"3"]


def test_a_signal_handler_may_stop_it(bus: shmps.Bus) -> None:
    code = """
import shmps, signal
with shmps.connect() as bus:
    bus.on("a", lambda message: print("got", flush=True))
    signal.signal(signal.SIGTERM, lambda *_: bus.loop_stop())
    print("ready", flush=True)
    bus.loop_forever()
print("done")
"""
    with program(code) as process:
        in_the_loop(bus, process)
        process.terminate()
        assert process.communicate(timeout=READY_S) == ("done\n", "")
        assert process.returncode == 0


def test_control_c_ends_loop_forever(bus: shmps.Bus) -> None:
    code = """
import shmps
with shmps.connect() as bus:
    bus.on("a", lambda message: print("got", flush=True))
    print("ready", flush=True)
    try:
        bus.loop_forever()
    except KeyboardInterrupt:
        print("interrupted")
"""
    with program(code) as process:
        in_the_loop(bus, process)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=READY_S) == ("interrupted\n", "")
        assert process.returncode == 0


def test_once_waits_for_the_first_and_says_when_the_time_is_over(bus: shmps.Bus) -> None:
    with pytest.raises(shmps.Timeout):
        bus.loop_once(0)
    got = collect(bus, "a")
    with pytest.raises(TimeoutError):
        bus.loop_once(0.02)
    later = threading.Timer(0.02, publish, (bus, "a", b"1"))
    later.start()
    assert bus.loop_once() == 1
    later.join()
    assert got == [b"1"]


def test_one_thread_at_a_time_is_in_the_loop(bus: shmps.Bus) -> None:
    refused: list[str] = []

    @bus.on("a")
    def handler(message: shmps.Message) -> None:
        for run in (bus.loop_once, bus.loop_forever, bus.loop_start):
            with pytest.raises(shmps.errors.StateError) as caught:
                run()
            refused.append(caught.value.name)

    publish(bus, "a", b"1")
    handle(bus, 1)
    assert refused == ["SHMPS_E_STATE"] * 3
    bus.loop_start()
    with pytest.raises(shmps.errors.StateError):
        bus.loop_start()
    with pytest.raises(shmps.errors.StateError):
        bus.loop_forever()


def test_closing_ends_the_loop_wherever_it_runs(bus_env: Instance) -> None:
    bus = shmps.connect()
    bus.on("a", lambda message: bus.close())
    publish(bus, "a", b"1", b"2")
    bus.loop_forever()
    assert bus.closed
    for call in (bus.loop_forever, bus.loop_start, bus.loop_once):
        with pytest.raises(shmps.errors.ClosedError):
            call()
    bus.loop_stop()  # there is nothing to stop
    instance = bus_env.instance
    assert repr(bus) == f"<shmps.Bus {instance}, closed>"
    with pytest.raises(shmps.errors.ClosedError):
        bus.on("a", print)
    other = shmps.connect()
    other.on("a", print)
    other.loop_start()
    other.close()
    assert not [t for t in threading.enumerate() if t.name == "shmps-loop"]


def test_who_has_much_leaves_the_others_their_turn(bus: shmps.Bus) -> None:
    order: list[str] = []
    for topic in ("much", "little"):
        bus.on(topic, lambda message: order.append(message.topic))
    publish(bus, "much", *[b""] * 500)
    publish(bus, "little", b"")
    bus.loop.drain(READY_S)
    assert len(order) == 501
    assert order.index("little") <= 64


def test_large_messages_are_handled_where_they_lie(bus: shmps.Bus) -> None:
    pinned: list[bool] = []
    bus.on("a", lambda message: pinned.append(message.pinned))
    publish(bus, "a", *[bytes(100_000)] * 20)
    handle(bus, 20)
    assert pinned == [True] * 20


def switches(thread: int | None) -> int:
    """How often a thread has gone to sleep."""
    text = Path(f"/proc/self/task/{thread}/status").read_text()
    return int(text.partition("voluntary_ctxt_switches:")[2].split()[0])


def test_an_idle_loop_does_not_wake(bus: shmps.Bus) -> None:
    got = collect(bus, "a")
    bus.loop_start()
    publish(bus, "a", b"1")
    until(lambda: got)
    (thread,) = (t.native_id for t in threading.enumerate() if t.name == "shmps-loop")
    time.sleep(0.05)  # the last wake-up of this message
    before = switches(thread)
    time.sleep(IDLE_S)
    assert switches(thread) == before
    publish(bus, "a", b"2")
    until(lambda: len(got) == 2)
    assert switches(thread) > before


def test_a_subscriber_that_is_closed_under_it_is_reported_and_goes(
    bus: shmps.Bus, bus_env: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_value))
    bus.on("a", print)
    bus.loop_start()
    assert bus_env.end() == 0  # the bus ends, and begins anew as another one
    bus_env.start()
    until(lambda: reported)
    bus.loop_stop()
    assert [type(error) for error in reported] == [shmps.errors.ClosedError]
    assert not bus.loop._entries
    with pytest.raises(shmps.Timeout):
        bus.loop_once(0.05)


def test_what_may_pass_is_reported_once_and_tried_again(
    bus: shmps.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: reported.append(error))
    trouble = [shmps.errors.NoMemoryError("no memory") for _ in range(3)]
    take = shmps.Subscriber.try_take

    def try_take(self: shmps.Subscriber) -> shmps.Message | None:
        if trouble and self.filter == "a":
            raise trouble.pop()
        return take(self)

    monkeypatch.setattr(shmps.Subscriber, "try_take", try_take)
    got, others = collect(bus, "a"), collect(bus, "b")
    publish(bus, "a", b"1")
    publish(bus, "b", b"1")
    handle(bus, 2)
    assert (got, others, trouble, len(reported)) == ([b"1"], [b"1"], [], 1)


def test_a_bus_that_is_forgotten_goes_with_its_handlers(bus_env: Instance) -> None:
    bus = shmps.connect()
    bus.on("a", lambda message: bus.close())
    bus.loop_start()
    bus.loop_stop()
    gone = weakref.ref(bus)
    del bus
    gc.collect()
    assert gone() is None  # the fixture looks for descriptors and mappings


def test_a_forked_child_has_no_loop(bus: shmps.Bus) -> None:
    bus.on("a", print)
    bus.loop_start()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for call in (bus.loop_start, bus.loop_stop, bus.loop_forever, bus.loop_once):
                with pytest.raises(shmps.errors.ForkedError):
                    call()
            bus.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    got = collect(bus, "b")
    publish(bus, "b", b"1")
    until(lambda: got)
    bus.loop_stop()


@pytest.mark.parametrize("timeout", [float("inf"), 3e6])
def test_a_time_longer_than_epoll_knows(bus: shmps.Bus, timeout: float) -> None:
    threading.Timer(0.05, bus.loop_stop).start()
    assert bus.loop_once(timeout) == 0


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_time_that_is_none(bus: shmps.Bus, timeout: float) -> None:
    with pytest.raises(ValueError, match="a number of seconds"):
        bus.loop_once(timeout)


def test_a_child_that_comes_back_from_a_handler(bus: shmps.Bus) -> None:
    """The loop is not its own: it ends there."""
    children = []
    bus.on("a", lambda message: children.append(os.fork()))
    publish(bus, "a", b"1", b"2")
    parent = os.getpid()
    try:
        bus.loop_once(10)
    except shmps.errors.ForkedError:
        if os.getpid() == parent:
            raise
        os._exit(7)
    finally:
        if os.getpid() != parent:
            os._exit(1)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    got = collect(bus, "b")
    publish(bus, "b", b"1")
    handle(bus, 1)
    assert got == [b"1"]
