"""The broker of the tutorial: in one process, and between processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import shmps
from harness import READY_S, SOURCE
from harness import Bus as Instance
from shmps import Broker, codec, errors

EXAMPLES = SOURCE / "examples" / "python"
HELLO = "Received message: Hello, World!\n"


def start(*args: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it printed; it must end well and report nothing."""
    try:
        output, reported = process.communicate(timeout=READY_S)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, reported) == (0, "")
    return output


def subscribed(topic: str, count: int) -> None:
    """Wait until a topic has so many subscribers."""
    with shmps.connect() as bus:
        bus.publisher(topic).wait_subscribers(count, READY_S)


# ------------------------------------------------------------------------------- in one process


def test_the_tutorials_program_runs_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHMPS_AUTOSTART", "0")
    monkeypatch.setenv("SHMPS_INSTANCE", "nobody")  # without any daemon
    assert finish(start(EXAMPLES / "broker.py")) == HELLO


def test_each_callback_is_called_at_once_in_order_with_the_very_object() -> None:
    broker, got = Broker(), []
    message = object()
    broker.subscribe("a", lambda message: got.append((1, message)))
    broker.subscribe("b", lambda message: got.append((2, message)))
    broker.subscribe("a", lambda message: got.append((3, message)))
    broker.publish("a", message)
    assert got == [(1, message), (3, message)]
    assert all(found is message for _, found in got)
    broker.publish("nobody", message)


def test_wildcards_are_filters() -> None:
    broker = Broker()
    got: list[tuple[str, str]] = []

    def callback(filter: str, message: str) -> None:
        got.append((filter, message))

    for topic in ("a/b", "a/+", "a/#", "#", "b/+"):
        broker.subscribe(topic, partial(callback, topic))
    broker.publish("a/b", "x")
    broker.publish("a", "y")
    assert [topic for topic, message in got if message == "x"] == ["a/b", "a/+", "a/#", "#"]
    assert [topic for topic, message in got if message == "y"] == ["a/#", "#"]
    with pytest.raises(TypeError, match="a callback is called"):
        Broker().subscribe("a", None)  # type: ignore[arg-type]
    with pytest.raises(errors.TopicError):
        broker.subscribe("a/#/b", print)
    for topic in ("a/+", "#", "/a", ""):
        with pytest.raises(errors.TopicError):
            broker.publish(topic, "x")


def test_unsubscribing() -> None:
    broker = Broker()
    got: list[str] = []
    for topic in ("a", "a", "b"):
        broker.subscribe(topic, got.append)
    broker.publish("a", "1")
    broker.unsubscribe("a", got.append)
    broker.unsubscribe("a", got.append)  # again: there is nothing to be done
    broker.publish("a", "2")
    broker.publish("b", "3")
    assert got == ["1", "1", "3"]


def test_callbacks_may_subscribe_unsubscribe_and_publish() -> None:
    broker = Broker()
    got: list[str] = []

    def once(message: str) -> None:
        got.append(f"once {message}")
        broker.unsubscribe("a", once)
        broker.subscribe("a", later)
        broker.publish("b", message)

    def later(message: str) -> None:
        got.append(f"later {message}")

    broker.subscribe("a", once)
    broker.subscribe("b", lambda message: got.append(f"b {message}"))
    broker.publish("a", "1")
    broker.publish("a", "2")
    assert got == ["once 1", "b 1", "later 2"]


def test_what_callbacks_raise_is_raised_when_all_were_called() -> None:
    broker = Broker()
    got: list[Any] = []

    def fail(message: str) -> None:
        raise ValueError(message)

    broker.subscribe("a", fail)
    broker.subscribe("a", got.append)
    with pytest.raises(ValueError, match="x"):
        broker.publish("a", "x")
    assert got == ["x"]
    broker.subscribe("a", fail)
    with pytest.raises(ExceptionGroup) as caught:
        broker.publish("a", "x")
    assert [type(error) for error in caught.value.exceptions] == [ValueError, ValueError]
    assert got == ["x", "x"]


def test_many_threads_use_one() -> None:
    broker = Broker()
    got: list[int] = []
    broker.subscribe("count", got.append)

    def work() -> None:
        for number in range(200):
            broker.subscribe("other", print)
            broker.publish("count", number)
            broker.unsubscribe("other", print)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(list(range(200)) * 4)


@pytest.mark.parametrize("connect", [False, True])
def test_a_closed_one_says_so(bus_env: Instance, connect: bool) -> None:
    with Broker(connect=connect) as broker:
        broker.subscribe("a", print)
    broker.close()  # again: there is nothing to be done
    with pytest.raises(errors.ClosedError):
        broker.publish("a", "x")
    for call in (broker.subscribe, broker.unsubscribe):
        with pytest.raises(errors.ClosedError):
            call("a", print)


# ---------------------------------------------------------------------------- between processes


def test_the_tutorials_program_between_processes(bus_env: Instance) -> None:
    receivers = [start(EXAMPLES / "broker_receive.py") for _ in range(2)]
    try:
        subscribed("topic1", 2)
        assert finish(start(EXAMPLES / "broker_send.py")) == ""
    except BaseException:
        for receiver in receivers:
            receiver.kill()
        raise
    assert [finish(receiver) for receiver in receivers] == [HELLO] * 2


def test_the_tutorials_program_connected_prints_the_same(bus_env: Instance) -> None:
    program = (EXAMPLES / "broker.py").read_text().replace("Broker()", "Broker(connect=True)")
    assert finish(start("-c", program)) == HELLO


def test_shmps_info_counts_the_messages(bus_env: Instance) -> None:
    code = """
import shmps, sys
with shmps.Broker(connect=True) as broker:
    for number in range(1000):
        broker.publish("count/up", number)
    print("published", flush=True)
    sys.stdin.read()
"""
    with Broker(connect=True) as broker:
        got: list[int] = []
        every = threading.Event()

        def callback(number: int) -> None:
            got.append(number)
            if number == 999:
                every.set()

        broker.subscribe("count/+", callback)
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None and process.stdin is not None
            assert process.stdout.readline() == b"published\n"
            assert every.wait(READY_S)
            info = bus_env.info("count/up")
            assert info["messages"] == 1000
            assert [s["policy"] for s in info["subscribers"]] == ["reliable"]
        assert got == list(range(1000))


def test_callbacks_get_what_was_published(bus_env: Instance) -> None:
    messages: list[Any]
    messages = ["", "Grüße", b"", b"\0\xff", None, True, 7, 1.5, [1, "2"], {"a": {"b": []}}]
    with Broker(connect=bus_env.instance) as one, Broker(connect=True) as other:
        got: list[Any] = []
        every = threading.Event()

        def callback(message: Any) -> None:
            got.append(message)
            if len(got) == len(messages):
                every.set()

        other.subscribe("a", callback)
        for message in messages:
            one.publish("a", message)
        assert every.wait(READY_S)
        assert got == messages
        assert [type(message) for message in got] == [type(message) for message in messages]
        with pytest.raises(TypeError, match="JSON"):
            one.publish("a", object())


def test_unsubscribed_is_not_called_any_more(bus_env: Instance) -> None:
    with Broker(connect=True) as broker:
        got: list[str] = []
        seen = threading.Event()

        def again(message: str) -> None:
            if message == "last":
                seen.set()

        broker.subscribe("a", got.append)
        broker.subscribe("a", got.append)
        broker.subscribe("#", got.append)
        broker.unsubscribe("a", got.append)
        broker.subscribe("a", again)
        broker.publish("a", "last")
        assert seen.wait(READY_S)
    assert got == ["last"]  # by "#": closing has called it with what was there


def test_closing_calls_with_what_is_there(bus_env: Instance) -> None:
    got: list[int] = []
    with Broker(connect=True) as broker:
        broker.subscribe("a", got.append)
        for number in range(300):  # more than the ring holds: publish() waits
            broker.publish("a", number)
    assert got == list(range(300))


def test_a_callback_that_would_wait_for_itself_is_told(
    bus_env: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shmps.broker.OWN_S", 0.05)
    raised: list[BaseException | None] = []
    told = threading.Event()

    def hook(args: threading.ExceptHookArgs) -> None:
        raised.append(args.exc_value)
        told.set()

    monkeypatch.setattr(threading, "excepthook", hook)
    with Broker(connect=True) as broker:

        def flood(message: str) -> None:
            if message == "begin":
                for _ in range(1000):
                    broker.publish("a", "more")

        broker.subscribe("a", flood)
        broker.publish("a", "begin")
        assert told.wait(READY_S)
    assert [type(error) for error in raised] == [errors.Full]
    raised.clear()  # its frames hold the broker


def test_a_callback_may_close_it(bus_env: Instance) -> None:
    broker, closed = Broker(connect=True), threading.Event()

    def callback(message: str) -> None:
        broker.close()
        closed.set()

    broker.subscribe("a", callback)
    broker.publish("a", "x")
    assert closed.wait(READY_S)
    for thread in threading.enumerate():
        if thread.name == "shmps-loop":
            thread.join(READY_S)


def test_a_forked_child_ends_quietly(bus_env: Instance) -> None:
    code = """
import os, shmps, sys
broker = shmps.Broker(connect=True)
broker.subscribe("a", print)
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
broker.publish("a", "parent")
"""
    assert finish(start("-c", code)) == "parent\n"


def test_the_codec_tells_kinds_by_a_readable_tag() -> None:
    assert codec.encode("ä") == ("ä".encode(), int.from_bytes(b"utf-8\0\0\0", "little"))
    assert codec.encode([1, None]) == (b"[1,null]", int.from_bytes(b"json\0\0\0\0", "little"))
    view = memoryview(b"x")
    assert codec.encode(view) == (view, 0)
    assert codec.decode(b"x", 12345) == b"x"  # another program's own word
    with pytest.raises(ValueError, match="invalid start byte"):
        codec.decode(b"\xff", codec.UTF_8)
    with pytest.raises(ValueError, match="JSON"):  # not as its reader in C would have it
        codec.encode(float("nan"))
    assert codec.decode(*codec.encode({1: (2,)})) == {"1": [2]}


def test_a_signal_that_publishes_amid_publishing(bus_env: Instance) -> None:
    with shmps.Broker(connect=True) as broker:
        sent = []

        def send(*_: object) -> None:
            sent.append(1)
            broker.publish("t", "signal")

        old = signal.signal(signal.SIGALRM, send)
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        try:
            while len(sent) < 100:
                broker.publish("t", "main")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
