"""Print what is published about users, in a trio program."""
import shmps
import trio


async def main():
    with shmps.connect() as bus:
        async with bus.subscribe("users/#") as subscriber:
            async for message in subscriber:
                print(message.topic, bytes(message).decode(), flush=True)


trio.run(main)
