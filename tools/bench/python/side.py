"""The other processes of the bench: side.py CORE,... ROLE ARGUMENT...

Each prints `ready`, and does its work: at once, or for each line on stdin."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator

from place import PATHS

sys.path[:0] = PATHS

BATCH = 64
PIPELINE = 100  # messages that redis-py sends at once


def say(*words: object) -> None:
    print(*words, flush=True)


# ---- calls.py


def drain(topic: str) -> None:
    """Take until killed."""
    import shmps

    with shmps.connect() as bus, bus.subscribe(topic) as sub:
        say("ready")
        while True:
            sub.take_batch(BATCH)


def fill(topic: str, size: str, n: str) -> None:
    """For each line: publish n messages."""
    import shmps

    data = bytes(int(size))
    with (
        shmps.connect() as bus,
        bus.publisher(topic, depth=int(n), message_bytes=len(data)) as pub,
    ):
        say("ready")
        for _ in sys.stdin:
            for _ in range(int(n)):
                pub.publish(data)
            say("filled")


# ---- streams.py: one publishes n messages for a line, the other tells the rate


async def lines() -> AsyncIterator[str]:
    """Of stdin; meanwhile others run."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line


class Clock:
    """From the first message to the n-th."""

    def __init__(self, n: str) -> None:
        self.left = int(n)
        self.n = int(n) - 1
        self.start = 0

    def last(self) -> bool:
        """One more message is there. Was it the last?"""
        if not self.start:
            self.start = time.perf_counter_ns()
        self.left -= 1
        if self.left:
            return False
        say("rate", self.n / (time.perf_counter_ns() - self.start) * 1e9)
        return True


async def shmps_send(size: str, n: str, depth: str) -> None:
    import shmps

    data = bytes(int(size))
    with (
        shmps.connect() as bus,
        bus.publisher(
            "stream", depth=int(depth), message_bytes=len(data), timestamps=False
        ) as pub,
    ):
        say("ready")
        async for _ in lines():
            for _ in range(int(n)):
                await pub.send(data)
            say("sent")


async def shmps_receive(n: str) -> None:
    import shmps

    clock = Clock(n)
    with shmps.connect() as bus:
        async with bus.subscribe("stream", delivery="reliable") as sub:
            say("ready")
            async for message in sub:
                len(message)
                if clock.last():
                    break


async def aiomqtt_send(size: str, n: str, port: str) -> None:
    import aiomqtt

    data = bytes(int(size))
    async with aiomqtt.Client("127.0.0.1", int(port)) as client:
        say("ready")
        async for _ in lines():
            for _ in range(int(n)):
                await client.publish("stream", data)
            say("sent")


async def aiomqtt_receive(n: str, port: str) -> None:
    import aiomqtt

    clock = Clock(n)
    async with aiomqtt.Client("127.0.0.1", int(port)) as client:
        await client.subscribe("stream")
        say("ready")
        async for message in client.messages:
            len(message.payload)
            if clock.last():
                break


async def redis_send(size: str, n: str, port: str) -> None:
    import redis.asyncio

    data = bytes(int(size))
    async with redis.asyncio.Redis(port=int(port)) as client:
        await client.ping()
        say("ready")
        async for _ in lines():
            for _ in range(int(n) // PIPELINE):
                pipeline = client.pipeline(transaction=False)
                for _ in range(PIPELINE):
                    pipeline.publish("stream", data)
                await pipeline.execute()
            say("sent")


async def redis_receive(n: str, port: str) -> None:
    import redis.asyncio

    clock = Clock(n)
    async with redis.asyncio.Redis(port=int(port)) as client, client.pubsub() as pubsub:
        await pubsub.subscribe("stream")
        async for message in pubsub.listen():
            if message["type"] == "subscribe":
                say("ready")
                continue
            len(message["data"])
            if clock.last():
                break


# ---- frames.py


def shmps_frames(n: str) -> None:
    import frames
    import shmps

    clock = Clock(n)
    with shmps.connect() as bus, bus.subscribe("frames", delivery="reliable") as sub:
        say("ready")
        frames.shmps_take(sub)
        while not clock.last():
            frames.shmps_take(sub)


def zmq_frames(n: str, address: str) -> None:
    import frames
    import zmq

    clock = Clock(n)
    with frames.zmq_socket(zmq.PULL) as socket:
        socket.bind(address)
        say("ready")
        frames.zmq_take(socket)
        while not clock.last():
            frames.zmq_take(socket)


ROLES = {
    f.__name__: f
    for f in (
        *(drain, fill, shmps_frames, zmq_frames),
        *(shmps_send, shmps_receive, aiomqtt_send, aiomqtt_receive, redis_send, redis_receive),
    )
}

if __name__ == "__main__":
    os.sched_setaffinity(0, map(int, sys.argv[1].split(",")))
    work = ROLES[sys.argv[2]](*sys.argv[3:])
    if work is not None:
        asyncio.run(work)
