"""Subscribers and publishers in coroutines: the same programs under asyncio, uvloop, trio and
anyio. What differs between these is scaffolding, and that is anyio's in all of them."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
import trio
import uvloop
from harness import Bus, descriptors, nothing_left

import shmps

Program = Callable[[], Awaitable[Any]]
LOOPS: dict[str, Callable[[Any], Any]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "uvloop": lambda main: uvloop.run(main()),
    "trio": trio.run,
    "anyio-asyncio": anyio.run,
    "anyio-uvloop": lambda main: anyio.run(main, backend_options={"use_uvloop": True}),
    "anyio-trio": lambda main: anyio.run(main, backend="trio"),
}
TOPIC = "async/test"
IDLE_S = 0.2  # the time for which what sleeps is watched
LIMIT_S = 30

uvloop.new_event_loop().close()  # the first one of a process keeps a pipe


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Program], Any]:
    """Runs a program under one of the loops."""

    def run(main: Program) -> Any:
        async def limited() -> Any:
            with anyio.fail_after(LIMIT_S):
                return await main()

        return LOOPS[request.param](limited)

    return run


@pytest.fixture
def bus(module_bus_env: Bus) -> Iterator[shmps.Bus]:
    with nothing_left(), shmps.connect() as bus:
        yield bus


def number(message: shmps.Message) -> int:
    return int(message.copy())


def publish(bus: shmps.Bus, numbers: range, topic: str = TOPIC) -> None:
    with bus.publisher(topic) as publisher:
        for n in numbers:
            publisher.publish(b"%d" % n)


async def settle() -> None:
    """Who can run has run, and looked for descriptors, several times."""
    for _ in range(10):
        await anyio.sleep(0)


# --------------------------------------------------------------------------------- receiving


def test_async_for(run: Any, bus: shmps.Bus) -> None:
    async def main() -> None:
        async with bus.subscribe("async/#") as sub:
            publish(bus, range(50))
            got = []
            async for message in sub:
                assert message.topic == TOPIC and message.lost == 0
                got.append(number(message))
                if len(got) == 50:
                    break
            assert got == list(range(50))
        assert sub.closed

    run(main)


def test_waiting_first(run: Any, bus: shmps.Bus) -> None:
    """One message at a time, each of which is waited for."""

    async def main() -> None:
        async with bus.subscribe(TOPIC) as sub, anyio.create_task_group() as group:
            publisher = bus.publisher(TOPIC)
            turn = anyio.Event()

            async def publish_each() -> None:
                nonlocal turn
                for n in range(100):
                    await turn.wait()
                    turn = anyio.Event()
                    await settle()
                    publisher.publish(b"%d" % n)

            group.start_soon(publish_each)
            for n in range(100):
                turn.set()
                assert number(await sub.receive()) == n

    run(main)


@pytest.mark.parametrize("delivery", ["lossy", "reliable"])
def test_thousands_from_a_thread(run: Any, bus: shmps.Bus, delivery: Any) -> None:
    """As fast as it goes: in order, and what is lost is counted."""
    total = 5000

    async def main() -> None:
        async with bus.subscribe(TOPIC, delivery=delivery) as sub:
            thread = threading.Thread(target=publish, args=(bus, range(total)))
            thread.start()
            expected = 0
            async for message in sub:
                expected += message.lost
                assert number(message) == expected
                assert delivery == "lossy" or message.lost == 0
                expected += 1
                if expected == total:
                    break
            thread.join()

    run(main)


def test_many_subscribers(run: Any, bus: shmps.Bus) -> None:
    total, count = 300, 40

    async def main() -> None:
        done: list[int] = []

        async def receive(index: int) -> None:
            async with subs[index] as sub:
                for n in range(total):
                    assert number(await sub.receive()) == n
            done.append(index)

        subs = [bus.subscribe(TOPIC, delivery="reliable") for _ in range(count)]
        async with anyio.create_task_group() as group:
            for index in range(count):
                group.start_soon(receive, index)
            publisher = bus.publisher(TOPIC)
            for n in range(total):
                await publisher.send(b"%d" % n)
        assert sorted(done) == list(range(count))

    run(main)


def test_many_topics(run: Any, bus: shmps.Bus) -> None:
    """Publishers come and go, more than one at a time, on topics that one filter matches."""

    async def main() -> None:
        async with bus.subscribe("async/+/n", delivery="reliable") as sub:

            async def feed(name: int) -> None:
                with bus.publisher(f"async/{name}/n") as publisher:
                    for n in range(100):
                        await publisher.send(b"%d" % n)

            async with anyio.create_task_group() as group:
                for name in range(20):
                    group.start_soon(feed, name)
                got: dict[str, list[int]] = {}
                for _ in range(20 * 100):
                    message = await sub.receive()
                    got.setdefault(message.topic, []).append(number(message))
            assert got == {f"async/{name}/n": list(range(100)) for name in range(20)}

    run(main)


def test_timeouts(run: Any, bus: shmps.Bus) -> None:
    async def main() -> None:
        async with bus.subscribe(TOPIC, timeout=0.01) as sub:
            with pytest.raises(shmps.errors.Timeout):
                await sub.receive()
            with pytest.raises(TimeoutError):
                await sub.receive(timeout=0)
            with pytest.raises(TimeoutError):
                async for _ in sub:
                    pass
            publish(bus, range(2))
            assert number(await sub.receive(timeout=0)) == 0
            async with anyio.create_task_group() as group:
                group.start_soon(settle)
                assert number(await sub.receive(timeout=None)) == 1

    run(main)


def test_cancelling_loses_nothing(run: Any, bus: shmps.Bus) -> None:
    """A receiver is cancelled again and again, at any point, while messages come."""
    total = 3000
    rng = random.Random(4)

    async def main() -> None:
        async with bus.subscribe(TOPIC, delivery="reliable") as sub:
            thread = threading.Thread(target=publish, args=(bus, range(total)))
            thread.start()
            got: list[int] = []
            cancelled = 0
            while len(got) < total:
                with anyio.move_on_after(rng.choice([0, 1e-5, 1e-4])) as scope:
                    while len(got) < total:
                        got.append(number(await sub.receive()))
                cancelled += scope.cancelled_caught
            thread.join()
            assert got == list(range(total))
            assert cancelled > 0

    run(main)


def test_others_have_their_turn(run: Any, bus: shmps.Bus) -> None:
    """A receiver and a sender that never have to wait leave room for others."""

    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.sleep(0)

        async with bus.subscribe(TOPIC) as sub, anyio.create_task_group() as group:
            group.start_soon(other)
            publisher = bus.publisher(TOPIC, depth=4096)
            for n in range(3000):
                await publisher.send(b"%d" % n)
            sending, turns = turns, 0
            for n in range(3000):
                assert number(await sub.receive()) == n
            assert sending >= 5 and turns >= 5
            group.cancel_scope.cancel()

    run(main)


def test_messages_stay(run: Any, bus: shmps.Bus) -> None:
    """What was received can be read after the subscriber, and the ring has come round."""

    async def main() -> list[shmps.Message]:
        async with bus.subscribe(TOPIC, delivery="reliable") as sub:
            publisher = bus.publisher(TOPIC)
            kept = []
            for n in range(10):
                publisher.publish(bytes([n]) * 5000)
                kept.append(await sub.receive())
            for _ in range(200):
                publisher.publish(b"\xff" * 5000)
                await sub.receive()
            return kept

    for n, message in enumerate(run(main)):
        assert message.payload == bytes([n]) * 5000


# ----------------------------------------------------------------------------------- closing


@pytest.mark.parametrize("who", ["task", "thread", "bus"])
def test_closing_while_waiting(run: Any, bus: shmps.Bus, who: str) -> None:
    """`async for` comes to its end, receive() says that it is closed; whoever closes."""
    own = shmps.connect()

    async def main() -> None:
        first, second = own.subscribe(TOPIC), own.subscribe(TOPIC)
        ends = []

        async def iterate() -> None:
            async for _ in first:
                raise AssertionError("nobody publishes")
            ends.append("iterating")

        async def receive() -> None:
            with pytest.raises(shmps.errors.ClosedError):
                await second.receive()
            ends.append("receiving")

        def close() -> None:
            if who == "bus":
                own.close()
            first.close()
            second.close()

        async with anyio.create_task_group() as group:
            group.start_soon(iterate)
            group.start_soon(receive)
            await settle()
            assert ends == []
            thread = threading.Thread(target=close)
            thread.start() if who == "thread" else close()
        assert sorted(ends) == ["iterating", "receiving"]
        if who == "thread":
            thread.join()
        async for _ in first:
            raise AssertionError("it is closed")

    run(main)
    own.close()


def test_leaving_by_an_error(run: Any, bus: shmps.Bus) -> None:
    async def main() -> None:
        publish(bus, range(1))
        with pytest.raises(ZeroDivisionError):
            async with bus.subscribe(TOPIC) as sub:
                publish(bus, range(1))
                async for message in sub:
                    print(1 // number(message))
        assert sub.closed

    run(main)


def test_coming_and_going(run: Any, bus: shmps.Bus) -> None:
    """Descriptors are used anew by the next subscriber; nothing of the last one is in its way."""

    async def main() -> None:
        for n in range(60):
            async with bus.subscribe(TOPIC) as sub:
                if n % 3 == 0:  # leaves while the descriptor is still waited for
                    with anyio.move_on_after(1e-4):
                        await sub.receive()
                publish(bus, range(n, n + 1))
                if n % 2 == 0:
                    assert number(await sub.receive()) == n

    run(main)


def test_one_loop_after_another(run: Any, bus: shmps.Bus) -> None:
    """A subscriber outlives the loop in which it was waited for."""
    sub = bus.subscribe(TOPIC)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await sub.receive(timeout=1e-3)
        publisher = bus.publisher(TOPIC)
        async with anyio.create_task_group() as group:

            async def receive() -> None:
                assert number(await sub.receive()) == 7

            group.start_soon(receive)
            await settle()
            publisher.publish(b"7")

    run(main)
    known = descriptors().keys()
    for _ in range(3):
        run(main)
    assert descriptors().keys() == known
    sub.close()


def test_two_loops_at_once(run: Any, bus: shmps.Bus) -> None:
    """Two threads with a loop each take from one subscriber: each message is taken once."""
    total = 2000
    got: list[int] = []
    sub = bus.subscribe(TOPIC, delivery="reliable")

    async def main() -> None:
        async for message in sub:
            got.append(number(message))

    threads = [threading.Thread(target=run, args=(main,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    publish(bus, range(total))
    while len(got) < total:
        time.sleep(1e-3)
    sub.close()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(total))


def test_trio_beside_asyncio(bus: shmps.Bus) -> None:
    """A thread with each, for one subscriber: neither takes the other's loop for its own."""
    total = 500
    got: list[int] = []
    sub = bus.subscribe(TOPIC, delivery="reliable")

    async def main() -> None:
        async for message in sub:
            got.append(number(message))

    threads = [threading.Thread(target=LOOPS[name], args=(main,)) for name in ("asyncio", "trio")]
    for thread in threads:
        thread.start()
    publish(bus, range(total))
    while len(got) < total:
        time.sleep(1e-3)
    sub.close()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(total))


# ----------------------------------------------------------------------------------- sending


def test_sending_waits_for_a_reliable_one(run: Any, bus: shmps.Bus) -> None:
    """Meanwhile the others run: without them nobody would make room."""

    async def main() -> None:
        publisher = bus.publisher(TOPIC, depth=4)
        async with bus.subscribe(TOPIC, delivery="reliable") as sub:
            sent = 0

            async def send() -> None:
                nonlocal sent
                for n in range(200):
                    await publisher.send(b"%d" % n)
                    sent += 1

            async with anyio.create_task_group() as group:
                group.start_soon(send)
                await settle()
                assert sent == 4
                for n in range(200):
                    assert number(await sub.receive()) == n
            with pytest.raises(shmps.errors.Full):
                for n in range(5):
                    await publisher.send(b"%d" % n, timeout=1e-3)
            with anyio.move_on_after(1e-3) as scope:
                await publisher.send(b"never")
            assert scope.cancelled_caught
            assert [number(await sub.receive()) for _ in range(4)] == list(range(4))
            assert sub.try_take() is None

    run(main)


def test_a_flood_that_nobody_takes(run: Any, bus: shmps.Bus) -> None:
    """A subscriber for which nobody waits at the moment costs the loop a turn, not one each."""

    async def main() -> None:
        async with bus.subscribe(TOPIC) as sub:
            with pytest.raises(TimeoutError):
                await sub.receive(timeout=1e-3)  # its descriptor is known to the loop now
            publish(bus, range(10))
            await settle()
            before = time.thread_time()
            await anyio.sleep(IDLE_S)
            used = time.thread_time() - before
            assert used < IDLE_S / 10  # what spins uses all of it
            assert number(await sub.receive()) == 0

    run(main)


def test_pubsubd_dies(run: Any, bus_env: Bus) -> None:
    """Who waits goes on waiting; messages come all the same, and from newcomers once there is a
    pubsubd again."""

    async def main() -> None:
        with shmps.connect() as bus:
            publisher = bus.publisher(TOPIC)
            async with bus.subscribe("async/#") as sub, anyio.create_task_group() as group:

                async def trouble() -> None:
                    await settle()
                    bus_env.kill()
                    await settle()
                    publisher.publish(b"1")
                    bus_env.start()
                    await settle()

                group.start_soon(trouble)
                assert number(await sub.receive()) == 1

    run(main)
