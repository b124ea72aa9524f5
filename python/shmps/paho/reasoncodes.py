"""Reason codes of MQTT 5 (its section 2.4), which VERSION2 callbacks get from every protocol."""

from __future__ import annotations

import functools


class PacketTypes:
    """The kinds of packets of MQTT, by number; 99 stands for a will's message."""

    indexes = range(1, 16)
    (
        CONNECT,
        CONNACK,
        PUBLISH,
        PUBACK,
        PUBREC,
        PUBREL,
        PUBCOMP,
        SUBSCRIBE,
        SUBACK,
        UNSUBSCRIBE,
        UNSUBACK,
        PINGREQ,
        PINGRESP,
        DISCONNECT,
        AUTH,
    ) = indexes
    WILLMESSAGE = 99
    Names = (
        "reserved Connect Connack Publish Puback Pubrec Pubrel Pubcomp Subscribe Suback "
        "Unsubscribe Unsuback Pingreq Pingresp Disconnect Auth"
    ).split()


# Which packets a name may stand in: C CONNACK, A PUBACK, R PUBREC, L PUBREL, P PUBCOMP, S SUBACK,
# U UNSUBACK, D DISCONNECT, X AUTH.
_PACKET = {
    "C": PacketTypes.CONNACK,
    "A": PacketTypes.PUBACK,
    "R": PacketTypes.PUBREC,
    "L": PacketTypes.PUBREL,
    "P": PacketTypes.PUBCOMP,
    "S": PacketTypes.SUBACK,
    "U": PacketTypes.UNSUBACK,
    "D": PacketTypes.DISCONNECT,
    "X": PacketTypes.AUTH,
}
_CODES = (
    (0, "Success", "CARLPUX"),
    (0, "Normal disconnection", "D"),
    (0, "Granted QoS 0", "S"),
    (1, "Granted QoS 1", "S"),
    (2, "Granted QoS 2", "S"),
    (4, "Disconnect with will message", "D"),
    (16, "No matching subscribers", "AR"),
    (17, "No subscription found", "U"),
    (24, "Continue authentication", "X"),
    (25, "Re-authenticate", "X"),
    (128, "Unspecified error", "CARSUD"),
    (129, "Malformed packet", "CD"),
    (130, "Protocol error", "CD"),
    (131, "Implementation specific error", "CARSUD"),
    (132, "Unsupported protocol version", "C"),
    (133, "Client identifier not valid", "C"),
    (134, "Bad user name or password", "C"),
    (135, "Not authorized", "CARSUD"),
    (136, "Server unavailable", "C"),
    (137, "Server busy", "CD"),
    (138, "Banned", "C"),
    (139, "Server shutting down", "D"),
    (140, "Bad authentication method", "CD"),
    (141, "Keep alive timeout", "D"),
    (142, "Session taken over", "D"),
    (143, "Topic filter invalid", "SUD"),
    (144, "Topic name invalid", "CARD"),
    (145, "Packet identifier in use", "ARSU"),
    (146, "Packet identifier not found", "LP"),
    (147, "Receive maximum exceeded", "D"),
    (148, "Topic alias invalid", "D"),
    (149, "Packet too large", "CD"),
    (150, "Message rate too high", "D"),
    (151, "Quota exceeded", "CARSD"),
    (152, "Administrative action", "D"),
    (153, "Payload format invalid", "ARD"),
    (154, "Retain not supported", "CD"),
    (155, "QoS not supported", "CD"),
    (156, "Use another server", "CD"),
    (157, "Server moved", "CD"),
    (158, "Shared subscription not supported", "SD"),
    (159, "Connection rate exceeded", "CD"),
    (160, "Maximum connect time", "D"),
    (161, "Subscription identifiers not supported", "SD"),
    (162, "Wildcard subscription not supported", "SD"),
)


@functools.total_ordering
class ReasonCode:
    """A reason code in one kind of packet, by its name or, if that is given, its number. Equal to
    its number, to its name, and to another of the same number. KeyError: no such code there."""

    def __init__(self, packetType: int, aName: str = "Success", identifier: int = -1) -> None:
        self.packetType = packetType
        if identifier == -1:
            self.set(aName)
        else:
            self.value = identifier
            self.getName()

    def set(self, name: str) -> None:
        """Change it to the code of this name in the same kind of packet."""
        if name == "Success" and self.packetType == PacketTypes.DISCONNECT:
            name = "Normal disconnection"
        self.value = self.getId(name)

    def getId(self, name: str) -> int:
        """The number of a name in this kind of packet."""
        for value, other, packets in _CODES:
            if other == name and self.packetType in map(_PACKET.get, packets):
                return value
        raise KeyError(f"no reason code {name!r} in packets of type {self.packetType}")

    def getName(self) -> str:
        for value, name, packets in _CODES:
            if value == self.value and self.packetType in map(_PACKET.get, packets):
                return name
        raise KeyError(f"no reason code {self.value} in packets of type {self.packetType}")

    def pack(self) -> bytearray:
        return bytearray([self.value])

    def unpack(self, buffer: bytes) -> int:
        self.value = buffer[0]
        self.getName()
        return 1

    def json(self) -> str:
        return self.getName()

    @property
    def is_failure(self) -> bool:
        return self.value >= 0x80

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str(self) == other
        if isinstance(other, ReasonCode):
            return self.value == other.value
        return isinstance(other, int) and self.value == other

    def __lt__(self, other: object) -> bool:
        if isinstance(other, ReasonCode):
            return self.value < other.value
        return self.value < other if isinstance(other, int) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.value)

    def __str__(self) -> str:
        return self.getName()

    def __repr__(self) -> str:
        return f"ReasonCode({PacketTypes.Names[self.packetType]}, {self.getName()!r})"


ReasonCodes = ReasonCode  # its name in paho 1.x
