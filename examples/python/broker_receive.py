"""The tutorial's broker between processes: what broker_send.py publishes arrives here."""

import threading

from shmps import Broker

received = threading.Event()


def callback(message):
    print(f"Received message: {message}")
    received.set()


with Broker(connect=True) as broker:
    broker.subscribe("topic1", callback)
    received.wait()
