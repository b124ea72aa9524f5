"""Messages as paho shows them, and as they lie on the bus."""

from __future__ import annotations

import itertools
import random
import struct
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from .. import _native
from .enums import MessageState, MQTTErrorCode, error_string
from .properties import Properties
from .reasoncodes import PacketTypes

PayloadType: TypeAlias = str | bytes | bytearray | int | float | None

# The tag of a message on the bus: "mqtt", then in its low 32 bits the qos it was published with
# (2 bits), RETAIN, PROPERTIES, and of a retained message a number (24 bits) that is the same in
# the topic and in its companion. What has another tag was published by another program.
_MAGIC = int.from_bytes(b"mqtt", "big")
RETAIN = 4
PROPERTIES = 8
_number = itertools.count(random.getrandbits(24))

# Where the retained message of a topic is kept.
RETAINED = "$retained/"


class NotSupportedError(NotImplementedError, ValueError):
    """This part of MQTT or of paho cannot be had on a bus in shared memory; the text says why."""


class MQTTMessageInfo:
    """What publish() returns: how far the message is. Also a pair (rc, mid)."""

    def __init__(self, mid: int) -> None:
        self.mid = mid
        self.rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        self._published = threading.Event()

    def is_published(self) -> bool:
        """Whether the loop has told that it lies in the ring of its topic. ValueError,
        RuntimeError: it never will, see rc."""
        self._check()
        return self._published.is_set()

    def wait_for_publish(self, timeout: float | None = None) -> None:
        """Wait until is_published(), or until the time (in seconds) is over. With a qos above 0 it
        is the loop that tells, so one must run. Errors as of is_published()."""
        self._check()
        self._published.wait(timeout)
        self._check()

    def _check(self) -> None:
        if self.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            raise ValueError("Message is not queued due to ERR_QUEUE_SIZE")
        if self.rc > 0:
            raise RuntimeError(f"Message publish failed: {error_string(self.rc)}")

    def _set_as_published(self) -> None:
        self._published.set()

    def __iter__(self) -> Iterator[int]:
        return iter((self.rc, self.mid))

    def __getitem__(self, index: int) -> int:
        if index not in (0, 1):
            raise IndexError("index out of range")
        return (self.rc, self.mid)[index]

    def __str__(self) -> str:
        return str((self.rc, self.mid))


class MQTTMessage:
    """A received message. topic: str. payload: bytes. qos: the lower one of publisher and
    subscription. mid: counts the messages with a qos above 0 that this client has received.
    retain: it is the retained message of the topic, not a new one. timestamp: time.monotonic()
    when it was received. properties: of MQTT 5, else None. dup: False, nothing is sent twice."""

    def __init__(self, mid: int = 0, topic: bytes = b"") -> None:
        self.mid = mid
        self._topic = topic
        self.timestamp = 0.0
        self.state = MessageState.MQTT_MS_INVALID
        self.dup = False
        self.payload = b""
        self.qos = 0
        self.retain = False
        self.info = MQTTMessageInfo(mid)
        self.properties: Properties | None = None

    @property
    def topic(self) -> str:
        return self._topic.decode()

    @topic.setter
    def topic(self, value: bytes) -> None:
        self._topic = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MQTTMessage) and self.mid == other.mid

    __hash__ = object.__hash__


def encode_payload(payload: PayloadType) -> bytes:
    """As paho does: numbers in decimals, None as nothing. TypeError, ValueError (256 MiB)."""
    if isinstance(payload, (bytes, bytearray)):
        data = bytes(payload)
    elif payload is None:
        data = b""
    elif isinstance(payload, (str, int, float)):
        data = str(payload).encode()
    else:
        raise TypeError("payload must be a string, bytearray, int, float or None.")
    if len(data) > 268435455:
        raise ValueError("Payload too large.")
    return data


class Packet(NamedTuple):
    """A message on its way into the rings: the bytes and their tag."""

    topic: str
    data: bytes
    tag: int

    @property
    def qos(self) -> int:
        return self.tag & 3

    @property
    def retain(self) -> bool:
        return bool(self.tag & RETAIN)


def pack(
    topic: str, payload: PayloadType, qos: int, retain: bool, properties: Properties | None
) -> Packet:
    """ValueError: what this bus cannot carry (TopicError: the name), or MQTT does not allow."""
    check_qos(qos)
    check_topic(topic, retain)
    data, flags = encode_payload(payload), qos
    if retain:
        flags |= RETAIN | (next(_number) & 0xFFFFFF) << 8
    if properties is not None and not properties.isEmpty():
        carried = Properties(PacketTypes.PUBLISH)
        for name in properties.names():
            if name in ("TopicAlias", "SubscriptionIdentifier", "WillDelayInterval"):
                raise NotSupportedError(f"{name} of a published message: {_WHY[name]}")
            setattr(carried, name, getattr(properties, name))
        trailer = carried.pack()
        data += trailer + struct.pack("<I", len(trailer))
        flags |= PROPERTIES
    return Packet(topic, data, _MAGIC << 32 | flags)


_WHY = {
    "TopicAlias": "an alias makes packets shorter, and no packets are sent; leave it out",
    "SubscriptionIdentifier": "it belongs to subscribe()",
    "WillDelayInterval": "a will is published at once; leave it out",
}


def check_qos(qos: int) -> None:
    if qos not in (0, 1, 2):
        raise ValueError("Invalid QoS level.")


def check_topic(topic: str | None, retain: bool = False) -> None:
    """ValueError (TopicError) with the broken rule: of MQTT, of the bus, or of retained ones."""
    if not topic:
        raise ValueError("Invalid topic.")
    if "+" in topic or "#" in topic:
        raise ValueError("Publish topic cannot contain wildcards.")
    if topic.startswith(RETAINED):
        raise ValueError(f"topics below {RETAINED} hold the retained messages of other topics")
    _native.topic_check(topic)
    if retain:
        _native.topic_check(RETAINED + topic)


def check_filter(sub: str | None) -> None:
    """ValueError (TopicError) with the broken rule."""
    if not sub:
        raise ValueError("Invalid topic.")
    if sub.startswith("$share/"):
        raise NotSupportedError(
            f"subscription {sub!r}: shared subscriptions need a broker that deals messages out; "
            "on this bus every subscriber gets every message"
        )
    if sub.startswith(RETAINED):
        raise ValueError(f"topics below {RETAINED} hold the retained messages of other topics")
    _native.filter_check(sub)


def unpack(message: _native.Message, v5: bool) -> MQTTMessage | None:
    """The message, with the qos and the retain flag it was published with.
    None: it has expired (MessageExpiryInterval)."""
    flags = message.tag & 0xFFFFFFFF if message.tag >> 32 == _MAGIC else 0
    out = MQTTMessage(topic=message.topic.encode())
    out.payload = message.copy()
    out.qos = flags & 3
    out.retain = bool(flags & RETAIN)
    out.timestamp = time.monotonic()
    properties = Properties(PacketTypes.PUBLISH)
    if flags & PROPERTIES:
        length = struct.unpack("<I", out.payload[-4:])[0]
        properties.unpack(out.payload[-4 - length : -4])
        out.payload = out.payload[: -4 - length]
        if "MessageExpiryInterval" in properties.names():
            age = (time.monotonic_ns() - message.time_ns) // 10**9
            if age >= properties.MessageExpiryInterval > 0:
                return None
            properties.MessageExpiryInterval -= age
    if v5:
        out.properties = properties
    return out
