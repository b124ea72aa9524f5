"""Publish without a Client of one's own: single() and multiple()."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Any

from .client import Client
from .enums import CallbackAPIVersion, MQTTErrorCode, MQTTv311, error_string
from .messages import PayloadType
from .properties import MQTTException
from .refusals import refuse_options

__all__ = ["close", "multiple", "single"]

# Of the publishers of a topic that have gone, the rings of four are kept for who has not read
# them. So the client stays for the next call; it is this process's, and of one instance.
_lock = threading.Lock()
_kept: Client | None = None
_kept_for: tuple[int, str | None, int] | None = None


def close() -> None:
    """Close the client that is kept for the next call. Needed only by who wants nothing left open
    before its process ends."""
    global _kept
    with _lock:
        if _kept is not None:
            _kept.disconnect()
        _kept = None


def multiple(
    msgs: Iterable[Any],
    hostname: str = "localhost",
    port: int = 1883,
    client_id: str = "",
    keepalive: int = 60,
    will: dict[str, Any] | None = None,
    auth: dict[str, Any] | None = None,
    tls: Any = None,
    protocol: int = MQTTv311,
    transport: str = "tcp",
    proxy_args: Any = None,
) -> None:
    """Publish messages: dicts with topic and if needed payload, qos, retain and properties, or
    tuples of these in this order. Returns when all lie in the rings of their topics: waits for
    room where a subscriber of qos 1 or 2 makes it. Errors as of Client, connect(), publish()."""
    if not isinstance(msgs, Iterable):
        raise TypeError("msgs must be an iterable")
    messages = list(msgs)
    if not messages:
        raise ValueError("msgs is empty")
    if not all(isinstance(message, (dict, tuple, list)) for message in messages):
        raise TypeError("message must be a dict, tuple, or list")
    refuse_options(auth, tls, proxy_args)
    if will is not None:
        client = Client(CallbackAPIVersion.VERSION2, client_id, None, None, protocol, transport)
        client.will_set(**will)
        client.connect(hostname, port, keepalive)
        _publish(client, messages)
        client.disconnect()
        return
    with _lock:
        _publish(_keep(client_id, hostname, port, keepalive, protocol, transport), messages)


def single(
    topic: str,
    payload: PayloadType = None,
    qos: int = 0,
    retain: bool = False,
    hostname: str = "localhost",
    port: int = 1883,
    client_id: str = "",
    keepalive: int = 60,
    will: dict[str, Any] | None = None,
    auth: dict[str, Any] | None = None,
    tls: Any = None,
    protocol: int = MQTTv311,
    transport: str = "tcp",
    proxy_args: Any = None,
) -> None:
    """Publish one message, as multiple() does."""
    message = {"topic": topic, "payload": payload, "qos": qos, "retain": retain}
    multiple(
        [message],
        hostname,
        port,
        client_id,
        keepalive,
        will,
        auth,
        tls,
        protocol,
        transport,
        proxy_args,
    )


def _keep(
    client_id: str, hostname: str, port: int, keepalive: int, protocol: int, transport: str
) -> Client:
    """The client that is kept, connected."""
    global _kept, _kept_for
    wanted = (os.getpid(), os.environ.get("SHMPS_INSTANCE"), protocol)
    if _kept is not None and _kept_for == wanted and _kept.is_alive():
        return _kept
    _kept, _kept_for = (
        Client(CallbackAPIVersion.VERSION2, client_id, None, None, protocol, transport),
        wanted,
    )
    _kept.connect(hostname, port, keepalive)
    return _kept


def _publish(client: Client, messages: list[Any]) -> None:
    for message in messages:
        info = client.publish(**message) if isinstance(message, dict) else client.publish(*message)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise MQTTException(error_string(info.rc))
    client.flush()
