"""A subscriber in a process of its own: what aio_send.py sends arrives here."""

import asyncio

from shmps.aio import Subscriber


async def main():
    alice = Subscriber("Alice", connect=True, topic="kitchen")
    await alice.receive_message()
    await alice.receive_message()


asyncio.run(main())
