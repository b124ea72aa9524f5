"""Publish a message once somebody listens."""

import shmps

with shmps.connect() as bus:
    publisher = bus.publisher("hello")
    publisher.wait_subscribers()
    publisher.publish(b"hello, world")
