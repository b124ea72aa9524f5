"""A program with types, as a user writes it. mypy --strict reads it in `./dev lint`, where each
`type: ignore` is a mistake that it must notice; here it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import assert_type

import pytest
import shmps
from harness import Bus
from shmps.records import Delivery


def test_a_program(bus_env: Bus) -> None:
    delivery: Delivery = "reliable"
    with shmps.connect() as bus:
        assert_type(bus, shmps.Bus)
        publisher = bus.publisher("users/registered", depth=8)
        assert_type(publisher, shmps.Publisher)
        subscriber = bus.subscribe("users/#", timeout=20, delivery=delivery)
        assert_type(subscriber, shmps.Subscriber)

        for data in (b"1", bytearray(b"2"), memoryview(b"3")):
            publisher.publish(data)
        with publisher.loan(4, tag=7) as view:
            assert_type(view, memoryview)
            view[:] = b"loan"

        message = subscriber.take()
        assert_type(message, shmps.Message)
        assert_type(message.payload, memoryview)
        assert_type(message.topic, str)
        assert_type(subscriber.try_take(), shmps.Message | None)
        assert_type(subscriber.take_batch(10), list[shmps.Message])
        assert_type(publisher.stats().messages, int)
        publisher.close()
        with pytest.raises(shmps.errors.ClosedError) as closed:
            publisher.publish(message)  # a message is a buffer
        assert_type(closed.value.remedy, str)


def test_a_coroutine(bus_env: Bus) -> None:
    async def program() -> bytes:
        with shmps.connect() as bus:
            publisher = bus.publisher("a")
            async with bus.subscribe("a", timeout=20) as subscriber:
                await publisher.send(b"hi")
                async for message in subscriber:
                    assert_type(message, shmps.Message)
                    return bytes(message)
        raise AssertionError("the end has come")

    assert asyncio.run(program()) == b"hi"


def test_a_handler(bus_env: Bus) -> None:
    got: list[str] = []
    with shmps.connect() as bus:

        @bus.on("a/+", history=1)
        def handler(message: shmps.Message) -> None:
            got.append(message.topic)

        same: Callable[[shmps.Message], None] = handler  # its type is kept
        assert same is handler
        bus.publisher("a/b").publish(b"")
        while not got:
            bus.loop_once(20)
    assert got == ["a/b"]


def test_what_is_wrong(bus_env: Bus) -> None:
    with shmps.connect() as bus:
        publisher = bus.publisher("a")
        with pytest.raises(TypeError):
            publisher.publish("text")  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError)):
            bus.subscribe("a", delivery="quick")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            bus.subscribe(1)  # type: ignore[arg-type]
        with pytest.raises(AttributeError):
            bus.subscribe("a").receive_all()  # type: ignore[attr-defined]
