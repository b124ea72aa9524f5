"""shmps.aio with connect=True: the same three classes over topics of the bus."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvloop
from harness import SOURCE, Bus

import shmps
from shmps import codec, errors
from shmps.aio import TOPIC, Broker, Publisher, Subscriber

LIMIT_S = 30

uvloop.new_event_loop().close()  # the first one of a process keeps a pipe


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, bus_env: Bus) -> Callable[[Any], Any]:
    """Runs a program in the loop of that name, beside a bus."""

    def run(program: Coroutine[Any, Any, Any]) -> Any:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(program, LIMIT_S))

    return run


@pytest.fixture(autouse=True)
def no_receivers(bus_env: Bus) -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    while Receiver.started:
        receiver = Receiver.started.pop()
        receiver.process.kill()
        receiver.reader.join()


async def received(subscriber: Subscriber, n: int) -> list[Any]:
    return [await subscriber.receive_message() for _ in range(n)]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def messages(bus: Bus, topic: str = TOPIC) -> Any:
    return bus.info(topic)["messages"]


def test_tutorial(run: Any, bus_env: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        broker = Broker(connect=True)
        publisher = Publisher(connect=True)
        first, second = Subscriber("Subscriber 1"), Subscriber("Subscriber 2", connect=True)
        broker.subscribe(first)
        broker.subscribe(second)  # has subscribed itself; gets nothing twice
        await publisher.send_message("Good morning!")
        await broker.publish("Good night!")
        for _ in range(2):
            await first.receive_message()
            await second.receive_message()
        assert messages(bus_env) == 2

    run(main())
    assert capsys.readouterr().out.splitlines() == [
        "Subscriber 1 received message: Good morning!",
        "Subscriber 2 received message: Good morning!",
        "Subscriber 1 received message: Good night!",
        "Subscriber 2 received message: Good night!",
    ]


def test_kinds_of_messages(run: Any) -> None:
    async def main() -> None:
        publisher, subscriber = Publisher(connect=True), Subscriber("s", connect=True)
        messages: list[Any] = ["", "naïve ☕", b"\0\xff", {"a": [1, None, "ü"]}, None, 1.5, []]
        for message in [*messages, "x" * 10**6]:
            await publisher.send_message(message)
            got = await subscriber.receive_message()
            assert got == message and type(got) is type(message)
        with pytest.raises(TypeError):
            await publisher.send_message(object())

    run(main())


def test_messages_of_others(run: Any) -> None:
    """Who publishes without this module: bytes, and what is not what its tag says is an error of
    that message alone, also where it has moved into the inbox."""

    async def main() -> None:
        subscriber, publisher = Subscriber("s", connect=True), Publisher(connect=True)
        _, tag = codec.encode("")
        with shmps.connect() as bus, bus.publisher(TOPIC) as other:
            for spilled in (False, True):
                for data, word in ((b"plain", 0), (b"\xff", tag), (b"x", 99), (b"text", tag)):
                    other.publish(data, word)
                for _ in range(100 * spilled):
                    await publisher.send_message("fill")
                got: list[Any] = []
                for _ in range(4 + 100 * spilled):
                    try:
                        got.append(await subscriber.receive_message())
                    except ValueError:
                        got.append(ValueError)
                assert [m for m in got if m != "fill"] == [b"plain", ValueError, b"x", "text"]

    run(main())


def test_private_and_shared_are_two(run: Any) -> None:
    """The same name in the process and on the bus; one subscriber may be on both, and on more."""

    async def main() -> None:
        alone, shared = Broker(topic="a/b"), Broker(connect=True, topic="a/b")
        other = Broker(connect=True, topic="a/c")
        here, there, everywhere = Subscriber("here"), Subscriber("there"), Subscriber("all")
        alone.subscribe(here)
        shared.subscribe(there)
        for broker in (alone, shared, other):
            broker.subscribe(everywhere)
        for broker, message in ((alone, "private"), (shared, "shared"), (other, "other")):
            await broker.publish(message)
        assert await received(here, 1) == ["private"]
        assert await received(there, 1) == ["shared"]
        assert sorted(await received(everywhere, 3)) == ["other", "private", "shared"]
        for subscriber in (here, there, everywhere):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(subscriber.receive_message(), 1e-3)

    run(main())


def test_a_busy_topic_leaves_room_for_another(run: Any) -> None:
    async def main() -> None:
        busy, calm = Broker(connect=True, topic="busy"), Broker(connect=True, topic="calm")
        subscriber = Subscriber("s")
        busy.subscribe(subscriber)
        calm.subscribe(subscriber)
        for n in range(20):
            await busy.publish(n)
        await calm.publish("calm")
        assert "calm" in await received(subscriber, 3)

    run(main())


def test_much_sent_and_then_received(run: Any, bus_env: Bus) -> None:
    """By one task: far more than a ring holds, in order, also what was sent by many at once."""
    total = 1000

    async def main() -> None:
        publisher = Publisher(connect=True)
        subscribers = [Subscriber(f"{i}", connect=True) for i in range(3)]
        for n in range(total):
            await publisher.send_message(n)
        await asyncio.gather(*(publisher.send_message(total + n) for n in range(total)))
        assert messages(bus_env) == 2 * total
        for subscriber in subscribers:
            assert await received(subscriber, 2 * total) == list(range(2 * total))

    run(main())


def test_sent_while_others_receive(run: Any) -> None:
    total = 2000

    async def main() -> None:
        publisher = Publisher(connect=True)
        subscribers = [Subscriber(f"{i}", connect=True) for i in range(5)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(received(s, total)) for s in subscribers]
            for n in range(total):
                await publisher.send_message(n)
        assert all(task.result() == list(range(total)) for task in tasks)

    run(main())


def test_joining_and_leaving(run: Any) -> None:
    async def main() -> None:
        broker, subscriber = Broker(connect=True), Subscriber("s")
        waiting = asyncio.create_task(subscriber.receive_message())  # is nowhere subscribed yet
        await broker.publish("before")
        await settle()
        broker.subscribe(subscriber)
        await broker.publish(1)
        broker.subscribe(subscriber)
        assert await waiting == 1
        waiting = asyncio.create_task(subscriber.receive_message())
        await settle()
        broker.unsubscribe(subscriber)
        await broker.publish("while away")
        broker.subscribe(subscriber)
        await broker.publish(2)
        assert await waiting == 2
        for n in range(10):
            await broker.publish(n)
        broker.unsubscribe(subscriber)  # what it has been sent is still there
        await broker.publish("while away")
        assert await received(subscriber, 10) == list(range(10))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(subscriber.receive_message(), 1e-3)

    run(main())


def test_closing_while_waiting(run: Any) -> None:
    async def main() -> None:
        subscriber = Subscriber("s", connect=True)
        tasks = [asyncio.create_task(subscriber.receive_message()) for _ in range(3)]
        await settle()
        subscriber.close()
        for task in tasks:
            with pytest.raises(errors.ClosedError):
                await task

    run(main())


def test_cancelling_loses_nothing(run: Any) -> None:
    total = 2000

    async def main() -> None:
        publisher, subscriber = Publisher(connect=True), Subscriber("s", connect=True)
        got: list[int] = []

        async def take() -> None:
            while len(got) < total:
                got.append(await subscriber.receive_message())

        async def send() -> None:
            for n in range(total):
                await publisher.send_message(n)

        sender = asyncio.create_task(send())
        turn = 0
        while len(got) < total:
            task, turn = asyncio.create_task(take()), turn + 1
            for _ in range(turn % 7):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await sender
        assert got == list(range(total))

    run(main())


def test_a_cancelled_send_sends_nothing(run: Any, bus_env: Bus) -> None:
    """A subscriber in another process that lags holds the publisher back; the next message comes
    after what was sent."""

    async def main() -> None:
        publisher = Publisher(connect=True)
        child = Receiver(3)
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                await asyncio.wait_for(publisher.send_message(sent), 1e-2)
                sent += 1
        assert sent >= 64
        assert messages(bus_env) == sent
        child.go()
        assert child.lines() == [f"child received message: {n}" for n in range(3)]

    run(main())


def test_threads(run: Any, request: pytest.FixtureRequest) -> None:
    """Subscribers in the loops of two threads. The publisher's thread, when it has to wait, moves
    what they have not taken yet into their inboxes: all the same it arrives in order."""
    interval = sys.getswitchinterval()
    request.addfinalizer(lambda: sys.setswitchinterval(interval))
    sys.setswitchinterval(1e-6)
    total = 2000
    results: dict[int, list[Any]] = {}
    barrier = threading.Barrier(3)

    def receive(number: int) -> None:
        subscriber = Subscriber(f"{number}", connect=True)
        barrier.wait()
        results[number] = asyncio.run(received(subscriber, total))

    async def main() -> None:
        publisher = Publisher(connect=True)
        for n in range(total):
            await publisher.send_message(n)

    threads = [threading.Thread(target=receive, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait()
    run(main())
    for thread in threads:
        thread.join()
    assert results == {n: list(range(total)) for n in range(2)}


# ------------------------------------------------------------------------- between processes

RECEIVER = """
import asyncio, sys
from shmps.aio import Subscriber

async def main():
    subscriber = Subscriber("child", connect=True)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(sys.argv[1])):
        await subscriber.receive_message()

asyncio.run(main())
"""


class Receiver:
    """A process with a subscriber, which receives from when it may go."""

    started: ClassVar[list[Receiver]] = []

    def __init__(self, total: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RECEIVER, str(total)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.reader = threading.Thread(target=self.read)
        self.reader.start()
        self.started.append(self)

    def read(self) -> None:
        with self.process:
            self.out = list(self.process.stdout or ())

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def lines(self) -> list[str]:
        self.reader.join()
        assert self.process.returncode == 0
        return [line.rstrip("\n") for line in self.out]


def test_between_processes(run: Any, bus_env: Bus) -> None:
    total = 2000
    children = [Receiver(total) for _ in range(2)]

    async def main() -> None:
        broker, own = Broker(connect=True), Subscriber("own")
        broker.subscribe(own)
        for child in children:
            child.go()
        for n in range(total):
            await broker.publish(f"message {n}")
        assert messages(bus_env) == total
        assert len(await received(own, total)) == total

    run(main())
    for child in children:
        assert child.lines() == [f"child received message: message {n}" for n in range(total)]


def test_examples(bus_env: Bus) -> None:
    examples = SOURCE / "examples" / "python"
    receiver = subprocess.Popen(
        [sys.executable, examples / "aio_receive.py"], stdout=subprocess.PIPE, text=True
    )
    with shmps.connect() as bus, bus.publisher("kitchen") as publisher:
        publisher.wait_subscribers(timeout=LIMIT_S)
        subprocess.run([sys.executable, examples / "aio_send.py"], timeout=LIMIT_S, check=True)
        out, _ = receiver.communicate(timeout=LIMIT_S)
        assert out.splitlines() == [
            "Alice received message: the coffee is ready",
            "Alice received message: so is the tea",
        ]
        assert messages(bus_env, "kitchen") == 2


def test_order_of_those_who_wait(run: Any) -> None:
    """Sent by many tasks at once, while there is no room: in the order in which they began."""
    total = 300
    child = Receiver(total)

    async def main() -> None:
        publisher = Publisher(connect=True)
        sending = [asyncio.create_task(publisher.send_message(n)) for n in range(total)]
        await settle()
        assert not all(task.done() for task in sending)
        child.go()
        await asyncio.gather(*sending)

    run(main())
    assert child.lines() == [f"child received message: {n}" for n in range(total)]


def test_leaving_a_flood(run: Any) -> None:
    """Another process publishes without end; who unsubscribes keeps what was sent until then."""
    program = """
import shmps
with shmps.connect() as bus:
    publisher = bus.publisher("flood")
    n = 0
    while True:
        publisher.publish(b"%d" % n)
        n += 1
"""

    async def main() -> None:
        broker, subscriber = Broker(connect=True, topic="flood"), Subscriber("s")
        broker.subscribe(subscriber)
        with subprocess.Popen([sys.executable, "-c", program]) as flood:
            try:
                got = await received(subscriber, 1000)
                broker.unsubscribe(subscriber)
            finally:
                flood.kill()
        subscriber.close()
        with pytest.raises(errors.ClosedError):
            while True:
                got.append(await subscriber.receive_message())
        assert got == [b"%d" % n for n in range(len(got))]

    run(main())


def test_a_process_that_dies(run: Any) -> None:
    """It held the publisher back; its death lets it go on."""

    async def main() -> None:
        publisher, own = Publisher(connect=True), Subscriber("own", connect=True)
        child = Receiver(1)

        async def send() -> None:
            for n in range(500):
                await publisher.send_message(n)

        sending = asyncio.create_task(send())
        assert await received(own, 64) == list(range(64))
        assert not sending.done()
        child.process.kill()
        child.reader.join()
        assert await received(own, 500 - 64) == list(range(64, 500))
        await sending

    run(main())


def test_fork(run: Any) -> None:
    """A child opens its own; it gets nothing of its parent's and takes nothing from it."""
    program = """
import asyncio, os, sys
from shmps.aio import Publisher, Subscriber

async def talk(name):
    subscriber = Subscriber(name, connect=True, topic=name)
    publisher = Publisher(connect=True, topic=name)
    await publisher.send_message("hi " + name)
    await subscriber.receive_message()

publisher, subscriber = Publisher(connect=True), Subscriber("s", connect=True)
asyncio.run(publisher.send_message("of the parent"))
if os.fork() == 0:
    asyncio.run(talk("child"))
    sys.stdout.flush()
    os._exit(0)
os.wait()
asyncio.run(subscriber.receive_message())
"""
    out = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=LIMIT_S
    )
    assert out.returncode == 0
    assert out.stdout.splitlines() == [
        "child received message: hi child",
        "s received message: of the parent",
    ]


def test_no_pubsubd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("SHMPS_AUTOSTART", "0")
    for make in (Broker, Publisher, lambda **options: Subscriber("s", **options)):
        with pytest.raises(errors.NoDaemonError):
            make(connect=True)
