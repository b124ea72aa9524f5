"""What paho offers and a bus in shared memory has no place for. It raises, and says why."""

from __future__ import annotations

from typing import Any, NoReturn

from .messages import NotSupportedError

_TLS = (
    "messages never leave this machine's memory, so there is no connection to encrypt; what "
    "guards them are the permissions of files: the bus belongs to one user. Take the call out"
)
_PASSWORD = (
    "nobody here could check a password: the bus belongs to one user, and the kernel tells who "
    "may open it. Take the call out"
)
_NETWORK = "no network connection is made. Take the call out"
_BRIDGE = "there is no broker to bridge to"
_ACK = "a message in the ring is delivered, and no broker keeps it until it is acknowledged"


def refuse(what: str, why: str) -> NoReturn:
    """Raise NotSupportedError."""
    raise NotSupportedError(f"{what}: {why}")


class Refusals:
    """Methods of paho's Client that all raise NotSupportedError."""

    def tls_set(self, *arguments: Any, **options: Any) -> NoReturn:
        refuse("tls_set", _TLS)

    def tls_set_context(self, context: Any = None) -> NoReturn:
        refuse("tls_set_context", _TLS)

    def tls_insecure_set(self, value: bool) -> NoReturn:
        refuse("tls_insecure_set", _TLS)

    def username_pw_set(self, username: str | None, password: str | None = None) -> None:
        """None for both, which is paho's way to take them back, is no error."""
        if username is not None or password is not None:
            refuse("username_pw_set", _PASSWORD)

    @property
    def username(self) -> None:
        return None

    @username.setter
    def username(self, value: str | None) -> None:
        self.username_pw_set(value)

    @property
    def password(self) -> None:
        return None

    @password.setter
    def password(self, value: str | None) -> None:
        self.username_pw_set(None, value)

    def ws_set_options(self, *arguments: Any, **options: Any) -> NoReturn:
        refuse("ws_set_options", _NETWORK)

    def proxy_set(self, **options: Any) -> NoReturn:
        refuse("proxy_set", _NETWORK)

    def enable_bridge_mode(self) -> NoReturn:
        refuse("enable_bridge_mode", _BRIDGE)

    def manual_ack_set(self, on: bool) -> None:
        """False, the default, is no error."""
        if on:
            refuse("manual_ack", _ACK)

    def ack(self, mid: int, qos: int) -> NoReturn:
        refuse("ack", _ACK)


def refuse_options(auth: Any, tls: Any, proxy_args: Any) -> None:
    """Of publish.multiple() and its like: they must be None (or empty)."""
    if auth:
        refuse("auth", _PASSWORD)
    if tls is not None:
        refuse("tls", _TLS)
    if proxy_args is not None:
        refuse("proxy_args", _NETWORK)
