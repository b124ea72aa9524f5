"""The tutorial's broker between processes: publishes to whoever has subscribed by now."""

from shmps import Broker

with Broker(connect=True) as broker:
    broker.publish("topic1", "Hello, World!")
