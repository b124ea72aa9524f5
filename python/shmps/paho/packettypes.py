"""PacketTypes, where paho has it."""

from .reasoncodes import PacketTypes

__all__ = ["PacketTypes"]
