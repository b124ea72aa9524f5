"""Print what is published about users, in an asyncio program."""
import asyncio

import shmps


async def main():
    with shmps.connect() as bus:
        async with bus.subscribe("users/#") as subscriber:
            async for message in subscriber:
                print(message.topic, bytes(message).decode(), flush=True)


asyncio.run(main())
