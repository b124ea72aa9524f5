"""SubscribeOptions, where paho has it."""

from .properties import MQTTException, SubscribeOptions

__all__ = ["MQTTException", "SubscribeOptions"]
