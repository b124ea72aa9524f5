"""What publishers and subscribers tell of themselves, and what can be chosen for them."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Delivery: TypeAlias = Literal["lossy", "latest", "reliable", "observe"]
Wait: TypeAlias = Literal["default", "spin", "sleep"]


class PublisherStats(NamedTuple):
    """Of a publisher, since it was opened."""

    messages: int  # published
    bytes: int  # of their payload
    stalls: int  # times that it slept for want of room
    wakes: int  # calls to wake sleepers
    evictions: int  # reliable subscribers it has gone on without
    subscribers: int  # open on the topic now
    depth: int  # slots of the ring
    message_bytes: int  # the largest message that needs no larger ring


class SubscriberStats(NamedTuple):
    """Of a subscriber, since it was opened."""

    received: int
    lost: int
    copied: int  # large messages among them that were copied for want of a pin
    sleeps: int  # times that a call of it went to sleep
    evictions: int  # publishers that have gone on without it
    publishers: int  # open on its topics now
    held: int  # messages that lie in the ring, or in copies for want of a pin
    pins: int  # granted, in the topic where it has most
    topics: int  # that its filter matches now


class Event(NamedTuple):
    """Somebody has come or gone on the other side."""

    kind: str  # "publisher joined", "publisher left", "subscriber joined", "subscriber left"
    pid: int  # of the process, as pubsubd sees it
    id: int  # of the publisher (Message.publisher) or of the subscriber
    topic: str
