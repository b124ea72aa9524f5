"""Receive a message: its payload is a view of shared memory, there as long as it is held."""

import shmps

with shmps.connect() as bus:
    message = bus.subscribe("hello").take()
    print(str(message.payload, "utf-8"))
