"""Receive in a coroutine: under asyncio as here, and the same under uvloop, trio and anyio."""

import asyncio

import shmps


async def main():
    with shmps.connect() as bus:
        async with bus.subscribe("hello") as subscriber:
            message = await subscriber.receive()  # or: async for message in subscriber
            print(str(message.payload, "utf-8"))


asyncio.run(main())
