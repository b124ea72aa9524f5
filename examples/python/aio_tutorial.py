"""A publisher, a broker and two subscribers in one asyncio program; no pubsubd is needed."""

import asyncio

from shmps.aio import Broker, Publisher, Subscriber


async def main():
    broker = Broker()
    publisher = Publisher()
    alice = Subscriber("Alice")
    bob = Subscriber("Bob")

    broker.subscribe(alice)
    broker.subscribe(bob)

    await publisher.send_message("the coffee is ready")
    await publisher.send_message("so is the tea")

    await alice.receive_message()
    await bob.receive_message()
    await alice.receive_message()
    await bob.receive_message()


asyncio.run(main())
