"""A publisher in a process of its own: sends to whoever has subscribed by now."""

import asyncio

from shmps.aio import Publisher


async def main():
    publisher = Publisher(connect=True, topic="kitchen")
    await publisher.send_message("the coffee is ready")
    await publisher.send_message("so is the tea")


asyncio.run(main())
