"""Subscribe without a Client of one's own: simple() and callback()."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .client import Client
from .enums import CallbackAPIVersion, MQTTProtocolVersion, MQTTv311
from .messages import MQTTMessage, check_qos
from .refusals import refuse_options

__all__ = ["callback", "simple"]


def callback(
    callback: Callable[[Client, Any, MQTTMessage], Any],
    topics: str | list[str],
    qos: int = 0,
    userdata: Any = None,
    hostname: str = "localhost",
    port: int = 1883,
    client_id: str = "",
    keepalive: int = 60,
    will: dict[str, Any] | None = None,
    auth: dict[str, Any] | None = None,
    tls: Any = None,
    protocol: int = MQTTv311,
    transport: str = "tcp",
    clean_session: bool | None = True,
    proxy_args: Any = None,
) -> None:
    """Call callback(client, userdata, message) for every message of the filters, until it calls
    client.disconnect(). Errors as of Client, connect() and subscribe()."""
    check_qos(qos)
    refuse_options(auth, tls, proxy_args)
    session = None if protocol == MQTTProtocolVersion.MQTTv5 else clean_session
    client = Client(
        CallbackAPIVersion.VERSION2, client_id, session, userdata, protocol, transport
    )
    client.on_message = callback

    @client.connect_callback()
    def subscribe(*_: Any) -> None:
        for topic in topics if isinstance(topics, list) else [topics]:
            client.subscribe(topic, qos)

    if will is not None:
        client.will_set(**will)
    client.connect(hostname, port, keepalive)
    try:
        client.loop_forever()
    finally:
        client.disconnect()


def simple(
    topics: str | list[str],
    qos: int = 0,
    msg_count: int = 1,
    retained: bool = True,
    hostname: str = "localhost",
    port: int = 1883,
    client_id: str = "",
    keepalive: int = 60,
    will: dict[str, Any] | None = None,
    auth: dict[str, Any] | None = None,
    tls: Any = None,
    protocol: int = MQTTv311,
    transport: str = "tcp",
    clean_session: bool | None = True,
    proxy_args: Any = None,
) -> MQTTMessage | list[MQTTMessage]:
    """Wait for so many messages of the filters; returns one of them as it is, more as a list.
    retained=False: not those that were retained before. Errors as of callback()."""
    if msg_count < 1:
        raise ValueError("msg_count must be > 0")
    messages: list[MQTTMessage] = []

    def keep(client: Client, _: Any, message: MQTTMessage) -> None:
        if message.retain and not retained:
            return
        messages.append(message)
        if len(messages) == msg_count:
            client.disconnect()

    callback(
        keep,
        topics,
        qos,
        None,
        hostname,
        port,
        client_id,
        keepalive,
        will,
        auth,
        tls,
        protocol,
        transport,
        clean_session,
        proxy_args,
    )
    return messages[0] if msg_count == 1 else messages
