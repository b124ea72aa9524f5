"""shmps.aio inside one process, without any pubsubd."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from harness import SOURCE, nothing_left

from shmps.aio import Broker, Publisher, Subscriber
from shmps.errors import ClosedError

EXAMPLE = SOURCE / "examples" / "python" / "aio_tutorial.py"

uvloop.new_event_loop().close()  # the first one of a process keeps a pipe


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True)
def run(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Runs a program in the loop of that name, without a bus."""

    def run(program: Coroutine[Any, Any, Any]) -> Any:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(program)

    with nothing_left():
        yield run


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


async def received(subscriber: Subscriber) -> list[Any]:
    """What is there for a subscriber, until it would wait."""
    found = []
    task = asyncio.create_task(subscriber.receive_message())
    while await settle(task):
        found.append(task.result())
        task = asyncio.create_task(subscriber.receive_message())
    task.cancel()
    return found


async def settle(*tasks: asyncio.Task[Any]) -> bool:
    """All tasks run until they wait for something that nobody is about to do; are they done?"""
    for _ in range(10):
        await asyncio.sleep(0)
    return all(task.done() for task in tasks)


def test_tutorial_as_printed(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Two messages, and each subscriber receives once: two lines, and the end."""

    async def main() -> None:
        broker = Broker()
        publisher = Publisher()
        first = Subscriber("Subscriber 1")
        second = Subscriber("Subscriber 2")
        broker.subscribe(first)
        broker.subscribe(second)
        await publisher.send_message("Good morning!")
        await publisher.send_message("Good night!")
        await first.receive_message()
        await second.receive_message()

    for _ in range(2):  # a second run has nothing of the first one
        run(main())
        assert lines(capsys) == [
            "Subscriber 1 received message: Good morning!",
            "Subscriber 2 received message: Good morning!",
        ]


def test_tutorial_example() -> None:
    """No instance of the bus is there, nor could one start."""
    out = subprocess.run(
        [sys.executable, EXAMPLE],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "SHMPS_INSTANCE": "none-such", "SHMPS_AUTOSTART": "0"},
    ).stdout
    assert out.splitlines() == [
        "Alice received message: the coffee is ready",
        "Bob received message: the coffee is ready",
        "Alice received message: so is the tea",
        "Bob received message: so is the tea",
    ]


def test_waiting_first(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Who waits before anything is published is served in the order of subscribing."""

    async def main() -> None:
        broker = Broker()
        subscribers = [Subscriber(f"s{i}") for i in range(4)]
        for subscriber in subscribers:
            broker.subscribe(subscriber)
        tasks = [asyncio.create_task(s.receive_message()) for s in subscribers]
        assert not await settle(*tasks)
        await broker.publish("now")
        assert await asyncio.gather(*tasks) == ["now"] * 4

    run(main())
    assert lines(capsys) == [f"s{i} received message: now" for i in range(4)]


def test_any_object(run: Any) -> None:
    async def main() -> None:
        subscriber = Subscriber("s")
        Broker().subscribe(subscriber)
        for message in (None, 0, "", b"\0", {"a": [1]}, object(), ValueError("not raised")):
            await Publisher().send_message(message)
            assert await subscriber.receive_message() is message

    run(main())


def test_topics_are_separate(run: Any) -> None:
    async def main() -> None:
        here, there = Broker(topic="here"), Broker(topic="there")
        subscriber, both = Subscriber("one"), Subscriber("both")
        here.subscribe(subscriber)
        here.subscribe(both)
        there.subscribe(both)
        await Publisher(topic="there").send_message(1)
        await Broker(topic="here").publish(2)
        await Publisher().send_message(3)
        assert await received(subscriber) == [2]
        assert await received(both) == [1, 2]

    run(main())


def test_joining_and_leaving(run: Any) -> None:
    async def main() -> None:
        broker, subscriber = Broker(), Subscriber("s")
        await broker.publish("before")
        waiting = asyncio.create_task(subscriber.receive_message())  # is nowhere subscribed yet
        assert not await settle(waiting)
        broker.subscribe(subscriber)
        broker.subscribe(subscriber)
        assert broker.subscribers == [subscriber]
        await broker.publish(1)
        assert await waiting == 1
        await broker.publish(2)
        broker.unsubscribe(subscriber)
        broker.unsubscribe(subscriber)
        assert broker.subscribers == []
        await broker.publish("while away")
        assert await received(subscriber) == [2]
        broker.subscribe(subscriber)
        await broker.publish(3)
        assert await received(subscriber) == [3]

    run(main())


def test_comings_and_goings_while_it_runs(run: Any) -> None:
    """Each of many that come and go gets all that is published between the two."""

    async def main() -> None:
        broker, total = Broker(), 2000
        published = 0

        async def visit(first: int, last: int) -> None:
            while published < first:
                await asyncio.sleep(0)
            subscriber, start = Subscriber(f"{first}"), published
            broker.subscribe(subscriber)
            while published < last:
                await asyncio.sleep(0)
            end = published
            broker.unsubscribe(subscriber)
            assert await received(subscriber) == list(range(start, end))

        async with asyncio.TaskGroup() as group:
            for i in range(20):
                group.create_task(visit(37 * i, 37 * i + 900))
            for i in range(total):
                await broker.publish(i)
                published += 1
                if i % 7 == 0:
                    await asyncio.sleep(0)

    run(main())


def test_cancelling_loses_nothing(run: Any) -> None:
    """Receivers are cancelled at every point of their way, some when a message has woken them."""

    async def main() -> None:
        broker, subscriber, total = Broker(), Subscriber("s"), 500
        broker.subscribe(subscriber)
        got: list[int] = []

        async def take(times: int) -> None:
            for _ in range(times):
                got.append(await subscriber.receive_message())

        for i in range(total):
            tasks = [asyncio.create_task(take(1)) for _ in range(3)]
            for _ in range(i % 4):
                await asyncio.sleep(0)
            await broker.publish(i)
            for _ in range(i % 3):
                await asyncio.sleep(0)
            for task in tasks[: i % 4]:
                task.cancel()
            await settle()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        got += await received(subscriber)
        assert got == list(range(total))

    run(main())


def test_a_cancelled_one_wakes_the_next(run: Any) -> None:
    async def main() -> None:
        broker, subscriber = Broker(), Subscriber("s")
        broker.subscribe(subscriber)
        first = asyncio.create_task(subscriber.receive_message())
        second = asyncio.create_task(subscriber.receive_message())
        await settle()
        await broker.publish("for one of them")
        first.cancel()
        assert await asyncio.wait_for(second, 10) == "for one of them"
        assert first.cancelled()

    run(main())


def test_timeouts_lose_nothing(run: Any) -> None:
    async def main() -> None:
        broker, subscriber = Broker(), Subscriber("s")
        got: list[int] = []
        broker.subscribe(subscriber)

        async def publish() -> None:
            for i in range(300):
                await broker.publish(i)
                await asyncio.sleep(0)

        task = asyncio.create_task(publish())
        while len(got) < 300:
            try:
                got.append(await asyncio.wait_for(subscriber.receive_message(), 1e-5))
            except TimeoutError:
                pass
        assert got == list(range(300))
        await task

    run(main())


def test_closing_while_waiting(run: Any) -> None:
    async def main() -> None:
        broker, subscriber = Broker(), Subscriber("s")
        broker.subscribe(subscriber)
        tasks = [asyncio.create_task(subscriber.receive_message()) for _ in range(3)]
        await settle()
        subscriber.close()
        for task in tasks:
            with pytest.raises(ClosedError, match="'s'"):
                await task
        subscriber.close()
        await broker.publish("to nobody")
        with pytest.raises(ClosedError):
            await subscriber.receive_message()
        with pytest.raises(ClosedError):
            Broker(topic="another").subscribe(subscriber)

    run(main())


def test_what_was_sent_before_closing(run: Any) -> None:
    async def main() -> None:
        broker, subscriber = Broker(), Subscriber("s")
        broker.subscribe(subscriber)
        await broker.publish(1)
        subscriber.close()
        assert await subscriber.receive_message() == 1
        with pytest.raises(ClosedError):
            await subscriber.receive_message()

    run(main())


def test_others_have_their_turn(run: Any) -> None:
    """Neither a sender nor a receiver that never has to wait keeps the loop for itself."""

    async def main() -> None:
        broker, subscriber = Broker(), Subscriber("s")
        broker.subscribe(subscriber)
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        for i in range(2000):
            await broker.publish(i)
        sending, turns = turns, 0
        for _ in range(2000):
            await subscriber.receive_message()
        assert sending >= 5 and turns >= 5
        task.cancel()

    run(main())


def test_several_threads(run: Any) -> None:
    """A loop in each of several threads; all share the topic."""
    threads, total = 4, 300
    barrier = threading.Barrier(threads + 1)
    results: dict[int, list[int]] = {}

    async def receive(number: int) -> None:
        broker, subscriber = Broker(), Subscriber(f"{number}")
        broker.subscribe(subscriber)
        barrier.wait()
        results[number] = [await subscriber.receive_message() for _ in range(total)]

    async def publish() -> None:
        publisher = Publisher()
        for i in range(total):
            await publisher.send_message(i)

    workers = [threading.Thread(target=run, args=(receive(i),)) for i in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    run(publish())
    for worker in workers:
        worker.join()
    assert results == {i: list(range(total)) for i in range(threads)}


def test_one_loop_after_another(run: Any) -> None:
    """A subscriber outlives the loop in which it waited."""
    broker, subscriber = Broker(), Subscriber("s")
    broker.subscribe(subscriber)

    async def wait_in_vain() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(subscriber.receive_message(), 1e-3)

    async def receive() -> Any:
        task = asyncio.create_task(subscriber.receive_message())
        await settle()
        await broker.publish("in the second")
        return await task

    run(wait_in_vain())
    assert run(receive()) == "in the second"


def test_nobody_is_kept(run: Any) -> None:
    """A topic holds no subscriber that has been forgotten."""

    async def main() -> None:
        publisher, subscriber = Publisher(), Subscriber("s")
        Broker().subscribe(subscriber)
        await publisher.send_message("x")
        gone = weakref.ref(subscriber)
        del subscriber
        gc.collect()
        assert gone() is None
        await publisher.send_message("x")

    run(main())
