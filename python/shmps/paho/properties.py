"""Properties of MQTT 5 (its section 2.2.2), and options of its subscriptions."""

from __future__ import annotations

import struct
from typing import Any

from .reasoncodes import PacketTypes


class MQTTException(Exception):
    """What was asked for is against MQTT."""


class MalformedPacket(MQTTException):
    """Properties that cannot be read."""


# How a value is written: B, H, I as in struct; V a variable length integer; D bytes; S a string;
# P a pair of strings. In which packets: c CONNECT, C CONNACK, p PUBLISH, w a will, s SUBSCRIBE,
# S SUBACK, u UNSUBSCRIBE, U UNSUBACK, d DISCONNECT, a AUTH, and for the four acknowledgements k.
_TABLE = {
    "PayloadFormatIndicator": (1, "B", "pw"),
    "MessageExpiryInterval": (2, "I", "pw"),
    "ContentType": (3, "S", "pw"),
    "ResponseTopic": (8, "S", "pw"),
    "CorrelationData": (9, "D", "pw"),
    "SubscriptionIdentifier": (11, "V", "ps"),
    "SessionExpiryInterval": (17, "I", "cCd"),
    "AssignedClientIdentifier": (18, "S", "C"),
    "ServerKeepAlive": (19, "H", "C"),
    "AuthenticationMethod": (21, "S", "cCa"),
    "AuthenticationData": (22, "D", "cCa"),
    "RequestProblemInformation": (23, "B", "c"),
    "WillDelayInterval": (24, "I", "w"),
    "RequestResponseInformation": (25, "B", "c"),
    "ResponseInformation": (26, "S", "C"),
    "ServerReference": (28, "S", "Cd"),
    "ReasonString": (31, "S", "CkSUda"),
    "ReceiveMaximum": (33, "H", "cC"),
    "TopicAliasMaximum": (34, "H", "cC"),
    "TopicAlias": (35, "H", "p"),
    "MaximumQoS": (36, "B", "C"),
    "RetainAvailable": (37, "B", "C"),
    "UserProperty": (38, "P", "cCpksSuUdaw"),
    "MaximumPacketSize": (39, "I", "cC"),
    "WildcardSubscriptionAvailable": (40, "B", "C"),
    "SubscriptionIdentifierAvailable": (41, "B", "C"),
    "SharedSubscriptionAvailable": (42, "B", "C"),
}
_BY_NUMBER = {number: (name, kind) for name, (number, kind, _) in _TABLE.items()}
_PACKET = {
    PacketTypes.CONNECT: "c",
    PacketTypes.CONNACK: "C",
    PacketTypes.PUBLISH: "p",
    PacketTypes.PUBACK: "k",
    PacketTypes.PUBREC: "k",
    PacketTypes.PUBREL: "k",
    PacketTypes.PUBCOMP: "k",
    PacketTypes.SUBSCRIBE: "s",
    PacketTypes.SUBACK: "S",
    PacketTypes.UNSUBSCRIBE: "u",
    PacketTypes.UNSUBACK: "U",
    PacketTypes.DISCONNECT: "d",
    PacketTypes.AUTH: "a",
    PacketTypes.WILLMESSAGE: "w",
}
_RANGES = {
    "ReceiveMaximum": (1, 65535),
    "TopicAlias": (1, 65535),
    "TopicAliasMaximum": (0, 65535),
    "MaximumPacketSize": (1, 268435455),
    "SubscriptionIdentifier": (1, 268435455),
    "RequestResponseInformation": (0, 1),
    "RequestProblemInformation": (0, 1),
    "PayloadFormatIndicator": (0, 1),
}
_MULTIPLE = ("SubscriptionIdentifier", "UserProperty")


def _variable(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def _counted(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


def _write(kind: str, value: Any) -> bytes:
    if kind == "V":
        return _variable(value)
    if kind == "D":
        return _counted(bytes(value))
    if kind == "S":
        return _counted(value.encode())
    if kind == "P":
        return _counted(value[0].encode()) + _counted(value[1].encode())
    return struct.pack("!" + kind, value)


class _Reader:
    """Takes values from bytes; MalformedPacket where they end too early."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, n: int) -> bytes:
        if self.at + n > len(self.data):
            raise MalformedPacket("properties end in the middle of a value")
        self.at += n
        return self.data[self.at - n : self.at]

    def counted(self) -> bytes:
        return self.take(struct.unpack("!H", self.take(2))[0])

    def variable(self) -> int:
        value = shift = 0
        while True:
            digit = self.take(1)[0]
            value |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                return value

    def read(self, kind: str) -> Any:
        if kind == "V":
            return self.variable()
        if kind == "D":
            return self.counted()
        if kind == "S":
            return self.counted().decode()
        if kind == "P":
            return self.counted().decode(), self.counted().decode()
        return struct.unpack("!" + kind, self.take(struct.calcsize("!" + kind)))[0]


class Properties:
    """Properties of one kind of packet, set and read as attributes named as in MQTT 5 without the
    spaces: properties.ContentType = "text/plain". UserProperty and SubscriptionIdentifier are
    lists: setting one adds to it. MQTTException: no such property there, or out of its range."""

    def __init__(self, packetType: int) -> None:
        object.__setattr__(self, "packetType", packetType)

    def __setattr__(self, name: str, value: Any) -> None:
        name = name.replace(" ", "")
        if name == "packetType":
            object.__setattr__(self, name, value)
            return
        if name not in _TABLE:
            raise MQTTException(f"no property {name}: there are {', '.join(_TABLE)}")
        if _PACKET[self.packetType] not in _TABLE[name][2]:
            raise MQTTException(f"{name} is no property of packets of type {self.packetType}")
        if name in _RANGES and not isinstance(value, list):
            low, high = _RANGES[name]
            if not low <= value <= high:
                raise MQTTException(f"{name} must be from {low} to {high}, not {value}")
        if name in _MULTIPLE:
            more = value if isinstance(value, list) else [value]
            value = self.__dict__.get(name, []) + more
        object.__setattr__(self, name, value)

    def names(self) -> list[str]:
        """The properties that are set."""
        return [name for name in _TABLE if name in self.__dict__]

    def clear(self) -> None:
        for name in self.names():
            delattr(self, name)

    def isEmpty(self) -> bool:
        return not self.names()

    def json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.names()}
        if "CorrelationData" in values:
            values["CorrelationData"] = values["CorrelationData"].hex()
        return values

    def pack(self) -> bytes:
        """As they stand in a packet, with their length first."""
        out = b""
        for name in self.names():
            number, kind, _ = _TABLE[name]
            value = getattr(self, name)
            for one in value if name in _MULTIPLE else [value]:
                out += _variable(number) + _write(kind, one)
        return _variable(len(out)) + out

    def unpack(self, buffer: bytes) -> tuple[Properties, int]:
        """Read what pack() has written; returns self and how many bytes that was."""
        self.clear()
        head = _Reader(buffer)
        length = head.variable()
        body = _Reader(head.take(length))
        while body.at < length:
            number = body.variable()
            if number not in _BY_NUMBER:
                raise MalformedPacket(f"no property has the number {number}")
            name, kind = _BY_NUMBER[number]
            setattr(self, name, body.read(kind))
        return self, head.at

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the property {name} is not set")

    def __str__(self) -> str:
        return f"[{', '.join(f'{name} : {getattr(self, name)}' for name in self.names())}]"


class SubscribeOptions:
    """How a subscription of MQTT 5 delivers. qos: 0, 1, 2. noLocal: not what this client itself
    publishes. retainAsPublished: messages keep the retain flag they were published with.
    retainHandling: retained messages are sent at every subscribe (0), only where the subscription
    is new (1), never (2). AssertionError: out of range."""

    RETAIN_SEND_ON_SUBSCRIBE = 0
    RETAIN_SEND_IF_NEW_SUB = 1
    RETAIN_DO_NOT_SEND = 2

    def __init__(
        self,
        qos: int = 0,
        noLocal: bool = False,
        retainAsPublished: bool = False,
        retainHandling: int = RETAIN_SEND_ON_SUBSCRIBE,
    ) -> None:
        if qos not in (0, 1, 2):
            raise AssertionError(f"QoS should be 0, 1 or 2, not {qos}")
        if retainHandling not in (0, 1, 2):
            raise AssertionError(f"retainHandling should be 0, 1 or 2, not {retainHandling}")
        self.QoS = qos
        self.noLocal = noLocal
        self.retainAsPublished = retainAsPublished
        self.retainHandling = retainHandling

    def json(self) -> dict[str, Any]:
        return dict(vars(self))

    def __str__(self) -> str:
        return "{" + ", ".join(f"{name}={value}" for name, value in vars(self).items()) + "}"

    __repr__ = __str__
