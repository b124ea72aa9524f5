"""Subscribers and publishers in coroutines, under asyncio."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
import shmps
from harness import READY_S
from harness import Bus as Instance
from shmps.bus import TURNS

T = TypeVar("T")
MANY = 3 * TURNS
IDLE_S = 0.4


@pytest.fixture
def bus(bus_env: Instance) -> Iterator[shmps.Bus]:
    with shmps.connect() as connected:
        yield connected


def run(main: Coroutine[Any, Any, T]) -> T:
    async def within() -> T:
        async with asyncio.timeout(READY_S):
            return await main

    return asyncio.run(within())


async def asleep(task: asyncio.Task[Any]) -> None:
    """Let a task run until it waits, for a message or for room."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done(), task


def test_async_for_receives_everything_in_order(bus: shmps.Bus) -> None:
    async def main() -> None:
        publisher = bus.publisher("a", depth=64)
        async with bus.subscribe("a", delivery="reliable") as subscriber:
            got: list[bytes] = []

            async def receive() -> None:
                async for message in subscriber:
                    got.append(bytes(message))
                    if len(got) == MANY:
                        break

            receiver = asyncio.create_task(receive())
            for number in range(MANY):
                await publisher.send(b"%d" % number)
            await receiver
            assert got == [b"%d" % number for number in range(MANY)]
        assert subscriber.closed

    run(main())


def test_a_message_from_another_thread_wakes_it(bus: shmps.Bus) -> None:
    async def main() -> None:
        publisher = bus.publisher("a")
        async with bus.subscribe("a") as subscriber:
            for _ in range(5):
                receiver = asyncio.create_task(subscriber.receive())
                await asleep(receiver)
                await asyncio.to_thread(publisher.publish, b"x")
                assert bytes(await receiver) == b"x"

    run(main())
    assert threading.active_count() == 1


def test_others_run_while_messages_keep_coming(bus: shmps.Bus) -> None:
    async def main() -> None:
        publisher = bus.publisher("a", depth=4096)
        async with bus.subscribe("a") as subscriber:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0)

            for _ in range(MANY):
                publisher.publish(b"")
            ticking = asyncio.create_task(tick())
            for _ in range(MANY):
                await subscriber.receive()
            assert ticks >= MANY // TURNS
            before = ticks
            for _ in range(MANY):
                await publisher.send(b"")
            assert ticks - before >= MANY // TURNS
            ticking.cancel()

    run(main())


def test_when_the_time_is_over_it_says_so(bus: shmps.Bus) -> None:
    async def main() -> None:
        async with bus.subscribe("a", timeout=0.02) as subscriber:
            with pytest.raises(shmps.Timeout, match="'a'"):
                await subscriber.receive()
            with pytest.raises(TimeoutError):
                async for _ in subscriber:
                    pass
            subscriber.timeout = None
            with pytest.raises(shmps.Timeout):
                await subscriber.receive(0)
            with pytest.raises(shmps.Timeout):
                await subscriber.receive(0.02)
            bus.publisher("a").publish(b"1")
            assert bytes(await subscriber.receive(0)) == b"1"

    run(main())


def test_cancelling_loses_no_message(bus: shmps.Bus) -> None:
    async def main() -> None:
        publisher = bus.publisher("a", depth=1024)
        async with bus.subscribe("a") as subscriber:
            got: list[int] = []
            for number in range(200):
                receiver = asyncio.create_task(subscriber.receive())
                for turn in range(number % 10):  # before, while and after it is woken
                    if turn == 1:
                        publisher.publish(b"%d" % number)
                    await asyncio.sleep(0)
                if number % 10 < 2:
                    publisher.publish(b"%d" % number)
                receiver.cancel()
                try:
                    got.append(int(bytes(await receiver)))
                except asyncio.CancelledError:
                    pass
            while (message := subscriber.try_take()) is not None:
                got.append(int(bytes(message)))
            assert got == list(range(200))

    run(main())


def test_wait_for_loses_no_message(bus: shmps.Bus) -> None:
    async def main() -> None:
        publisher = bus.publisher("a")
        async with bus.subscribe("a", delivery="reliable") as subscriber:

            async def publish() -> None:
                for number in range(300):
                    await publisher.send(b"%d" % number)
                    await asyncio.sleep(0.0003)

            publishing = asyncio.create_task(publish())
            got: list[int] = []
            while len(got) < 300:
                try:
                    message = await asyncio.wait_for(subscriber.receive(), 0.0003)
                    got.append(int(bytes(message)))
                except TimeoutError:
                    pass
            assert got == list(range(300))
            await publishing

    run(main())


def test_nothing_is_taken_before_it_is_awaited(bus: shmps.Bus) -> None:
    async def main() -> None:
        publisher, subscriber = bus.publisher("a"), bus.subscribe("a")
        publisher.publish_batch([b"1", b"2"])
        dropped = aiter(subscriber).__anext__()
        del dropped
        first = anext(subscriber)
        assert bytes(await first) == b"1"
        with pytest.raises(RuntimeError):
            await first
        assert bytes(await anext(subscriber)) == b"2"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(subscriber), 0)
        waiting = asyncio.ensure_future(anext(subscriber))
        await asleep(waiting)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        publisher.publish(b"3")
        assert bytes(await anext(subscriber)) == b"3"

    run(main())


def test_closing_ends_async_for(bus: shmps.Bus) -> None:
    async def main() -> None:
        publisher = bus.publisher("a")

        async def receive(subscriber: shmps.Subscriber) -> str:
            async for _ in subscriber:
                pass
            return "the end"

        for close in (
            lambda subscriber: subscriber.close(),
            lambda subscriber: asyncio.to_thread(subscriber.close),
            lambda subscriber: bus.close(),
        ):
            subscriber = bus.subscribe("a")
            publisher.publish(bytes(100_000))
            held = await subscriber.receive()
            receiver = asyncio.create_task(receive(subscriber))
            await asleep(receiver)
            closing = close(subscriber)
            if closing is not None:
                await closing
            assert await receiver == "the end"
            assert await receive(subscriber) == "the end"
            assert not subscriber._readers  # nor their descriptors
            with pytest.raises(shmps.errors.ClosedError):
                await subscriber.receive()
            assert bytes(held) == bytes(100_000)

    run(main())


def test_two_tasks_share_a_subscriber(bus: shmps.Bus) -> None:
    async def main() -> None:
        publisher = bus.publisher("a")
        async with bus.subscribe("a") as subscriber:
            receivers = [asyncio.create_task(subscriber.receive()) for _ in range(2)]
            await asleep(receivers[0])
            publisher.publish(b"1")
            publisher.publish(b"2")
            got = [bytes(message) for message in await asyncio.gather(*receivers)]
            assert sorted(got) == [b"1", b"2"]

    run(main())


def test_a_descriptor_is_registered_once_for_many_messages(bus: shmps.Bus) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls: list[int] = []
        add = loop.add_reader

        def add_reader(descriptor: int, *rest: Any) -> None:
            calls.append(descriptor)
            add(descriptor, *rest)

        loop.add_reader = add_reader  # type: ignore[method-assign,assignment]
        publisher, got = bus.publisher("a"), asyncio.Event()
        async with bus.subscribe("a") as subscriber:

            async def receive() -> None:
                async for _ in subscriber:
                    got.set()

            receiver = asyncio.create_task(receive())
            for _ in range(50):
                await asleep(receiver)
                publisher.publish(b"")
                await got.wait()
                got.clear()
        await receiver
        assert len(calls) == 1

    run(main())


def test_messages_that_nobody_waits_for_do_not_keep_it_awake(bus: shmps.Bus) -> None:
    async def main() -> None:
        publisher = bus.publisher("a")
        async with bus.subscribe("a") as subscriber:
            with pytest.raises(TimeoutError):
                await subscriber.receive(0.01)  # it is registered now
            publisher.publish(b"")
            await asyncio.sleep(0.05)
            turns = 0
            selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
            select = selector.select

            def count(timeout: float | None) -> Any:
                nonlocal turns
                turns += 1
                return select(timeout)

            selector.select = count
            await asyncio.sleep(IDLE_S)
            assert turns <= 2  # one that sleeps, and perhaps one that is a little early
            assert await subscriber.receive(0) is not None

    run(main())


def test_sending_waits_for_room_and_lets_others_run(bus: shmps.Bus) -> None:
    async def main() -> None:
        publisher = bus.publisher("a", depth=8)
        with bus.subscribe("a", delivery="reliable") as subscriber:
            sent = 0
            with pytest.raises(shmps.Full):
                while True:
                    await publisher.send(b"%d" % sent, timeout=0)
                    sent += 1
            with pytest.raises(shmps.Full):
                await publisher.send(b"late", timeout=0.01)
            cancelled = asyncio.create_task(publisher.send(b"cancelled"))
            await asleep(cancelled)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            sending = asyncio.create_task(publisher.send(b"%d" % sent, 7))
            await asleep(sending)
            got = [subscriber.take(READY_S) for _ in range(sent)]
            await sending
            got.append(subscriber.take(READY_S))
            assert [int(bytes(message)) for message in got] == list(range(sent + 1))
            assert got[-1].tag == 7
            assert subscriber.try_take() is None

    run(main())


def test_one_event_loop_after_the_other(bus: shmps.Bus) -> None:
    publisher, subscriber = bus.publisher("a"), bus.subscribe("a")

    async def main() -> bytes:
        receiver = asyncio.create_task(subscriber.receive())
        await asleep(receiver)
        publisher.publish(b"x")
        return bytes(await receiver)

    before = len(os.listdir("/proc/self/fd"))
    assert [run(main()) for _ in range(3)] == [b"x"] * 3
    assert len(os.listdir("/proc/self/fd")) <= before + 3  # its own two, and one for the last loop
    subscriber.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_who_forgets_to_close_leaves_nothing(bus: shmps.Bus) -> None:
    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        subscriber = bus.subscribe("a")
        with pytest.raises(TimeoutError):
            await subscriber.receive(0.001)
        del subscriber
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before

    run(main())


def test_outside_of_a_coroutine_there_is_nothing_to_wait_in(bus: shmps.Bus) -> None:
    receive = bus.subscribe("a").receive()
    with pytest.raises(RuntimeError, match="no running event loop"):
        receive.send(None)
