"""Publish and subscribe between the processes of one machine, through shared memory.

    with shmps.connect() as bus:
        subscriber = bus.subscribe("users/#")
        bus.publisher("users/registered").publish(b"hi")
        print(bytes(subscriber.take()))
"""

from __future__ import annotations

from . import errors
from ._native import Loan, Message, filter_check, filter_matches, topic_check, version
from .broker import Broker
from .bus import Bus, Publisher, Subscriber, connect
from .errors import Error, Full, Timeout
from .records import Event, PublisherStats, SubscriberStats

__version__ = version()
__all__ = [
    "Broker",
    "Bus",
    "Error",
    "Event",
    "Full",
    "Loan",
    "Message",
    "Publisher",
    "PublisherStats",
    "Subscriber",
    "SubscriberStats",
    "Timeout",
    "connect",
    "errors",
    "filter_check",
    "filter_matches",
    "topic_check",
    "version",
]
