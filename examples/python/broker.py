"""A tutorial's program: a broker, which calls every callback of a topic with each message."""

from shmps import Broker


def callback(message):
    print(f"Received message: {message}")


broker = Broker()
broker.subscribe("topic1", callback)
broker.publish("topic1", "Hello, World!")
