"""A client with the interface of paho.mqtt.client, on the bus in shared memory of this machine."""

from __future__ import annotations

import threading
from typing import Any, overload

from .. import errors
from .callbacks import ConnectFlags, DisconnectFlags
from .enums import *
from .matcher import MQTTMatcher, topic_matches_sub
from .messages import MQTTMessage, MQTTMessageInfo, NotSupportedError, PayloadType
from .properties import MQTTException, Properties, SubscribeOptions
from .reasoncodes import PacketTypes, ReasonCode, ReasonCodes
from .session import Session, tell_once

__all__ = [
    "AUTH",
    "CONNACK",
    "CONNACK_ACCEPTED",
    "CONNACK_REFUSED_BAD_USERNAME_PASSWORD",
    "CONNACK_REFUSED_IDENTIFIER_REJECTED",
    "CONNACK_REFUSED_NOT_AUTHORIZED",
    "CONNACK_REFUSED_PROTOCOL_VERSION",
    "CONNACK_REFUSED_SERVER_UNAVAILABLE",
    "CONNECT",
    "CallbackAPIVersion",
    "Client",
    "ConnackCode",
    "ConnectFlags",
    "DISCONNECT",
    "DisconnectFlags",
    "LOGGING_LEVEL",
    "LogLevel",
    "MQTTErrorCode",
    "MQTTException",
    "MQTTMatcher",
    "MQTTMessage",
    "MQTTMessageInfo",
    "MQTTProtocolVersion",
    "MQTT_BRIDGE",
    "MQTT_CLEAN_START_FIRST_ONLY",
    "MQTT_CLIENT",
    "MQTT_ERR_ACL_DENIED",
    "MQTT_ERR_AGAIN",
    "MQTT_ERR_AUTH",
    "MQTT_ERR_CONN_LOST",
    "MQTT_ERR_CONN_REFUSED",
    "MQTT_ERR_ERRNO",
    "MQTT_ERR_INVAL",
    "MQTT_ERR_KEEPALIVE",
    "MQTT_ERR_NOMEM",
    "MQTT_ERR_NOT_FOUND",
    "MQTT_ERR_NOT_SUPPORTED",
    "MQTT_ERR_NO_CONN",
    "MQTT_ERR_PAYLOAD_SIZE",
    "MQTT_ERR_PROTOCOL",
    "MQTT_ERR_QUEUE_SIZE",
    "MQTT_ERR_SUCCESS",
    "MQTT_ERR_TLS",
    "MQTT_ERR_UNKNOWN",
    "MQTT_LOG_DEBUG",
    "MQTT_LOG_ERR",
    "MQTT_LOG_INFO",
    "MQTT_LOG_NOTICE",
    "MQTT_LOG_WARNING",
    "MQTTv31",
    "MQTTv311",
    "MQTTv5",
    "MessageState",
    "MessageType",
    "NotSupportedError",
    "PINGREQ",
    "PINGRESP",
    "PUBACK",
    "PUBCOMP",
    "PUBLISH",
    "PUBREC",
    "PUBREL",
    "PacketTypes",
    "PahoClientMode",
    "PayloadType",
    "Properties",
    "ReasonCode",
    "ReasonCodes",
    "SUBACK",
    "SUBSCRIBE",
    "SubscribeOptions",
    "UNSUBACK",
    "UNSUBSCRIBE",
    "connack_string",
    "error_string",
    "mqtt_ms_invalid",
    "mqtt_ms_publish",
    "mqtt_ms_queued",
    "mqtt_ms_resend_pubcomp",
    "mqtt_ms_resend_pubrel",
    "mqtt_ms_send_pubrec",
    "mqtt_ms_wait_for_puback",
    "mqtt_ms_wait_for_pubcomp",
    "mqtt_ms_wait_for_pubrec",
    "mqtt_ms_wait_for_pubrel",
    "topic_matches_sub",
]

# How soon the loop sees that another thread has connected.
_LOOK_SECONDS = 0.01


class Client(Session):
    """As paho's Client, 1.x and 2.x: Client("name") and Client(CallbackAPIVersion.VERSION2,
    "name"). Without a version callbacks get the arguments of VERSION1.

    The bus is the instance that $SHMPS_INSTANCE names; client_id, host, port, keepalive and
    transport choose nothing. qos 0: who reads too slowly loses messages, and on_log tells how many
    (MQTT_LOG_WARNING). qos 1 and 2 of a subscription: it receives every message once and in order;
    while it has no room for more, messages for it wait in the clients that publish them.

    Threads: as in paho. Fork: the child must make its own client.
    NotSupportedError: clean_session=False, manual_ack=True. ValueError: what paho refuses."""

    @overload
    def __init__(
        self,
        callback_api_version: CallbackAPIVersion,
        client_id: str | bytes | None = "",
        clean_session: bool | None = None,
        userdata: Any = None,
        protocol: int = MQTTv311,
        transport: str = "tcp",
        reconnect_on_failure: bool = True,
        manual_ack: bool = False,
    ) -> None: ...

    @overload
    def __init__(
        self,
        client_id: str | bytes | None = "",
        clean_session: bool | None = None,
        userdata: Any = None,
        protocol: int = MQTTv311,
        transport: str = "tcp",
        reconnect_on_failure: bool = True,
        manual_ack: bool = False,
        *,
        callback_api_version: CallbackAPIVersion = CallbackAPIVersion.VERSION1,
    ) -> None: ...

    def __init__(self, *arguments: Any, **options: Any) -> None:
        version = options.pop("callback_api_version", CallbackAPIVersion.VERSION1)
        if arguments and isinstance(arguments[0], CallbackAPIVersion):
            version, *arguments = arguments  # type: ignore[assignment]
        if not isinstance(version, CallbackAPIVersion):
            raise ValueError("Unsupported callback API version")
        self._start(version, *arguments, **options)

    def loop(self, timeout: float = 1.0, max_packets: int = 1) -> MQTTErrorCode:
        """Call the callbacks for what there is; if nothing is, wait so many seconds for it."""
        if timeout < 0:
            raise ValueError("Invalid timeout.")
        return self._loop(timeout)

    def _loop(self, timeout: float | None) -> MQTTErrorCode:
        inbox = self._inbox
        if inbox is None:
            if self._state in ("new", "connected"):
                self._state = "connection lost"
            return MQTT_ERR_CONN_LOST
        self._in_loop += 1
        try:
            inbox.wait(timeout)
            return self.loop_read()
        finally:
            self._in_loop -= 1

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Call the callbacks for what there is; for event loops, when socket() is readable."""
        inbox = self._inbox
        if inbox is None:
            return MQTT_ERR_NO_CONN
        try:
            now = inbox.collect()
        except errors.ClosedError:
            return self._lost()
        while self._inbox is inbox and (entry := inbox.take(now)):
            if self._state != "disconnecting" or not entry.is_message:
                entry.tell()
        if self._state == "disconnecting" and self._inbox is inbox:
            self._disconnected()
        return MQTT_ERR_SUCCESS

    def loop_write(self, max_packets: int = 1) -> MQTTErrorCode:
        """Nothing ever waits to be written to the socket: see want_write()."""
        return MQTT_ERR_NO_CONN if self._inbox is None else MQTT_ERR_SUCCESS

    def loop_misc(self) -> MQTTErrorCode:
        """There is nothing to be done at intervals."""
        return MQTT_ERR_NO_CONN if self._inbox is None else MQTT_ERR_SUCCESS

    def want_write(self) -> bool:
        return False

    def loop_forever(
        self, timeout: float = 1.0, max_packets: int = 1, retry_first_connection: bool = False
    ) -> MQTTErrorCode:
        """Run the loop until disconnect(); where the bus has ended, connect again. It sleeps while
        there is nothing to do: timeout and max_packets, which tune paho's waits, change nothing.
        A second argument that is a bool is retry_first_connection, as in paho 2."""
        retry = retry_first_connection or max_packets is True
        if self._thread is not threading.current_thread():
            self._stop.clear()
        while self._state == "connect async" and not self._stop.is_set():
            self._try_to_connect(raises=not retry)
        result = MQTT_ERR_SUCCESS
        while not self._stop.is_set():
            result = self._loop(None)
            if result == MQTT_ERR_SUCCESS:
                continue
            if self._state == "disconnected" or not self._reconnect_on_failure:
                break
            if self._state == "connecting":  # another thread is at it
                self._stop.wait(_LOOK_SECONDS)
                continue
            self._wait_before_reconnect()
            if not self._stop.is_set() and self._state in ("connect async", "connection lost"):
                self._try_to_connect(raises=False)
        if self._state == "disconnecting":  # loop_stop() came before the loop could see that
            self.loop_read()
        return result

    def _try_to_connect(self, raises: bool) -> None:
        state = self._state
        try:
            self.reconnect()
        except (errors.Error, OSError):
            self._state = state
            self._call(self.on_connect_fail, "on_connect_fail")
            if raises:
                raise
            self._log(MQTT_LOG_DEBUG, "Connection failed, retrying")
            if state == "connect async":
                self._wait_before_reconnect()

    def _wait_before_reconnect(self) -> None:
        shortest, longest = self._delays
        self._delay = min(self._delay * 2, longest) if self._delay else shortest
        self._stop.wait(self._delay)

    def reconnect_delay_set(self, min_delay: float = 1, max_delay: float = 120) -> None:
        """Seconds before the loop connects again; doubled with each failure up to the second."""
        self._delays, self._delay = (min_delay, max_delay), 0.0

    def loop_start(self) -> MQTTErrorCode:
        """Run loop_forever() in a thread. MQTT_ERR_INVAL: it runs already."""
        if self._thread is not None:
            return MQTT_ERR_INVAL
        self._stop.clear()
        name = f"shmps-paho-{self._client_id.decode()}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        return MQTT_ERR_SUCCESS

    def _run(self) -> None:
        try:
            self.loop_forever(retry_first_connection=True)
        finally:
            self._thread = None

    def loop_stop(self, force: bool = False) -> MQTTErrorCode:
        """End that thread: no callback runs any more when this returns, unless one calls it.
        MQTT_ERR_INVAL: it does not run. force, which does nothing in paho, does nothing here."""
        thread = self._thread
        if thread is None:
            return MQTT_ERR_INVAL
        self._stop.set()
        if inbox := self._inbox:
            inbox.wake()
        if thread is not threading.current_thread():
            thread.join()
        return MQTT_ERR_SUCCESS

    @property
    def max_inflight_messages(self) -> int:
        return self._max_inflight_messages

    @max_inflight_messages.setter
    def max_inflight_messages(self, value: int) -> None:
        self.max_inflight_messages_set(value)

    def max_inflight_messages_set(self, inflight: int) -> None:
        """Chooses nothing: how many messages may be on their way is the depth of the ring."""
        if inflight < 0:
            raise ValueError("Invalid inflight.")
        tell_once(f"max_inflight_messages={inflight} chooses nothing: messages lie in a ring")
        self._max_inflight_messages = inflight

    def max_queued_messages_set(self, queue_size: int) -> Client:
        """How many messages with qos 1 and 2 may wait for room or for a connection; 0: any number.
        One more is not published, and its rc is MQTT_ERR_QUEUE_SIZE."""
        if not isinstance(queue_size, int) or queue_size < 0:
            raise ValueError("Invalid queue size.")
        self.max_queued_messages = queue_size
        return self

    def message_retry_set(self, retry: float) -> None:
        """Chooses nothing, as in paho 1.x: no message is sent twice."""
        tell_once(f"message_retry_set({retry}) chooses nothing: no message is sent twice")
