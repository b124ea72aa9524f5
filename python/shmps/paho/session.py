"""A client's connection to the bus: connect, publish, subscribe, disconnect."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import Any

from .. import _native, errors
from .callbacks import Callbacks, is_v5
from .enums import *
from .inbox import Inbox
from .messages import (
    MQTTMessage,
    MQTTMessageInfo,
    Packet,
    PayloadType,
    check_filter,
    check_qos,
    pack,
)
from .outbox import WAITING_MAX, Outbox
from .properties import Properties, SubscribeOptions
from .reasoncodes import ReasonCode
from .refusals import Refusals, refuse
from .will import Keeper

_SESSION = "no broker keeps a session while its client is away; a client begins anew each time"

_bus_log = logging.getLogger("shmps.paho")
_told: set[str] = set()
_keeper = Keeper()


def tell_once(text: str) -> None:
    """What a program asks for and chooses nothing here: in the log, once for the process."""
    if text not in _told:
        _told.add(text)
        _bus_log.info("%s", text)


class Socket:
    """What Client.socket() returns: a descriptor for select, poll and event loops, readable while
    loop_read() has something to do. Never writable, and nothing can be read from it."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def fileno(self) -> int:
        return self._inbox.fileno()

    def setsockopt(self, *option: Any) -> None:
        """Chooses nothing: it is no socket."""
        tell_once("Client.socket().setsockopt() chooses nothing: there is no network connection")


class Session(Callbacks, Refusals):
    """All of Client but its loop."""

    def _start(
        self,
        version: CallbackAPIVersion,
        client_id: str | bytes | None = "",
        clean_session: bool | None = None,
        userdata: Any = None,
        protocol: int = MQTTv311,
        transport: str = "tcp",
        reconnect_on_failure: bool = True,
        manual_ack: bool = False,
    ) -> None:
        v5 = is_v5(protocol)
        if transport.lower() not in ("websockets", "tcp", "unix"):
            raise ValueError(f"transport must be websockets, tcp or unix, not {transport}")
        if v5 and clean_session is not None:
            raise ValueError("Clean session is not used for MQTT 5.0")
        if clean_session is False:
            refuse("clean_session=False", _SESSION)
        self.manual_ack_set(manual_ack)
        Callbacks.__init__(self, version, v5, userdata)
        self.protocol = MQTTProtocolVersion(protocol)
        self.transport = transport.lower()
        self._client_id = client_id.encode() if isinstance(client_id, str) else client_id or b""
        self._reconnect_on_failure = reconnect_on_failure
        self.host, self.port, self.keepalive = "", 1883, 60
        self.connect_timeout = 5.0
        self.max_queued_messages = 0
        self._max_inflight_messages = 20
        self._delays = (1.0, 120.0)
        self._delay = 0.0
        self._mid = 0
        self._received_mid = 0
        self._mid_lock = threading.Lock()
        self._will: Packet | None = None
        self._will_kept: Packet | None = None  # of this connection
        self._state = "new"
        self._bus: _native.Connection | None = None
        self._inbox: Inbox | None = None
        self._outbox: Outbox | None = None
        self._unsent: list[tuple[Packet, MQTTMessageInfo]] = []  # with a qos, for the next bus
        self._thread: threading.Thread | None = None
        self._in_loop = 0  # calls of loop() or loop_forever() that wait, or call the callbacks
        self._stop = threading.Event()
        self._lock = threading.RLock()  # of what connects and disconnects

    def reinitialise(
        self, client_id: str = "", clean_session: bool = True, userdata: Any = None
    ) -> None:
        """Close the connection, and begin as a new Client of the same version and protocol."""
        self._close(is_clean=False)
        session = None if self._v5 else clean_session
        self._start(self._callback_api_version, client_id, session, userdata, self.protocol)

    def __del__(self) -> None:
        if getattr(self, "_bus", None) is not None:
            try:
                self._close(is_clean=False)
            except errors.Error:
                pass  # of a forked child's parent, or of a bus that has ended

    # ------------------------------------------------------------------------------- connection

    def connect(
        self,
        host: str,
        port: int = 1883,
        keepalive: int = 60,
        bind_address: str = "",
        bind_port: int = 0,
        clean_start: int = MQTT_CLEAN_START_FIRST_ONLY,
        properties: Properties | None = None,
    ) -> MQTTErrorCode:
        """Connect to the bus; a pubsubd is started if none runs. on_connect is called by the loop.
        NoDaemonError (a ConnectionError), VersionError, NotPermittedError."""
        self.connect_async(
            host, port, keepalive, bind_address, bind_port, clean_start, properties
        )
        return self.reconnect()

    def connect_async(
        self,
        host: str,
        port: int = 1883,
        keepalive: int = 60,
        bind_address: str = "",
        bind_port: int = 0,
        clean_start: int = MQTT_CLEAN_START_FIRST_ONLY,
        properties: Properties | None = None,
    ) -> None:
        """The loop will connect."""
        if not host:
            raise ValueError("Invalid host.")
        if port <= 0:
            raise ValueError("Invalid port number.")
        if keepalive < 0:
            raise ValueError("Keepalive must be >=0.")
        if bind_port < 0:
            raise ValueError("Invalid bind port number.")
        if not self._v5 and clean_start != MQTT_CLEAN_START_FIRST_ONLY:
            raise ValueError("Clean start only applies to MQTT V5")
        if not clean_start:
            refuse("clean_start=False", _SESSION)
        if properties is not None and not properties.isEmpty():
            refuse("properties of connect()", "no broker reads them")
        self._end("connect async")
        self.host, self.port, self.keepalive = host, port, keepalive
        bound = f", bind_address={bind_address!r}, bind_port={bind_port}"
        tell_once(
            f"host={host!r}, port={port}, keepalive={keepalive}, transport={self.transport!r}"
            f"{bound if bind_address or bind_port else ''} choose nothing: "
            "messages pass through the shared memory of this machine"
        )

    def connect_srv(
        self,
        domain: str | None = None,
        keepalive: int = 60,
        bind_address: str = "",
        bind_port: int = 0,
        clean_start: int = MQTT_CLEAN_START_FIRST_ONLY,
        properties: Properties | None = None,
    ) -> MQTTErrorCode:
        """As connect(): a domain chooses as little as a host."""
        host = domain or "localhost"
        return self.connect(
            host, 1883, keepalive, bind_address, bind_port, clean_start, properties
        )

    def reconnect(self) -> MQTTErrorCode:
        """Connect again. Subscriptions have to be made again: on_connect is the place for that.
        Errors as of connect()."""
        if not self.host:
            raise ValueError("Invalid host.")
        self._end("connecting")
        try:
            self._call(self.on_pre_connect, "on_pre_connect")
            bus = self._open()
        except BaseException:
            self._state = "connection lost"
            raise
        with self._lock:
            outbox = Outbox(bus, self._has_gone, self._has_failed)
            self._inbox = Inbox(bus, self._v5, outbox.ids, self._receive, self._trouble)
            self._bus, self._outbox = bus, outbox
        self._log(MQTT_LOG_DEBUG, "Sending CONNECT to the bus %s", bus.instance)
        self._call(self.on_socket_open, "on_socket_open", Socket(self._inbox))
        self._inbox.post(self._connected)
        return MQTT_ERR_SUCCESS

    def _open(self) -> _native.Connection:
        bus = _native.Connection(timeout=self.connect_timeout)
        self._will_kept = self._will
        try:
            if self._will_kept:
                _keeper.set(id(self), self._will_kept)
        except BaseException:
            bus.close()
            raise
        return bus

    def _connected(self) -> None:
        if self._state == "connecting":  # not if it is to disconnect already
            self._state = "connected"
        self._delay = 0.0
        self._log(MQTT_LOG_DEBUG, "Received CONNACK (0, 0)")
        self._tell_connect()
        unsent, self._unsent = self._unsent, []
        for packet, info in unsent:
            try:
                self._send(packet, info)
            except errors.Error as error:
                self._has_failed(error, packet, info)

    def disconnect(
        self, reasoncode: ReasonCode | None = None, properties: Properties | None = None
    ) -> MQTTErrorCode:
        """Disconnect, after what was published has gone; without its will, unless by MQTT 5 the
        reason is "Disconnect with will message". Where a loop runs it does that soon, and ends."""
        if properties is not None and not properties.isEmpty():
            refuse("properties of disconnect()", "no broker reads them")
        wants_will = reasoncode is not None and reasoncode.value == 4
        if reasoncode is not None and reasoncode.value not in (0, 4):
            refuse(f"disconnect() with the reason {reasoncode}", "no broker reads it")
        inbox = self._inbox
        if inbox is None:
            self._state = "disconnected"
            self._stop.set()
            return MQTT_ERR_NO_CONN
        if wants_will:
            self._publish_will()
        self._state = "disconnecting"
        self._log(MQTT_LOG_DEBUG, "Sending DISCONNECT")
        if self._is_direct() and not self._in_loop:
            self._disconnected()
        else:
            inbox.wake()
        return MQTT_ERR_SUCCESS

    def _disconnected(self) -> None:
        """What was published before goes first, and is told. Its own subscriptions would keep it
        from going, if they have no room."""
        inbox, outbox = self._inbox, self._outbox
        if inbox is None or outbox is None:
            return
        inbox.close_subscriptions()
        outbox.flush(self.connect_timeout)
        while entry := inbox.take(inbox.collect()):
            entry.tell()
        self._tell_disconnect(MQTT_ERR_SUCCESS)
        self._close(is_clean=True)
        if self._state == "disconnecting":
            self._state = "disconnected"

    def _end(self, state: str) -> None:
        """Close the connection for another one; without its will where disconnect() was called."""
        was, self._state = self._state, state
        self._close(is_clean=was == "disconnecting")

    def _lost(self) -> MQTTErrorCode:
        """The bus has ended, or was made anew."""
        self._state = "connection lost"
        self._close(is_clean=True)
        self._tell_disconnect(MQTT_ERR_CONN_LOST)
        return MQTT_ERR_CONN_LOST

    def _close(self, is_clean: bool) -> None:
        """is_clean: without its will."""
        with self._lock:
            bus, inbox, outbox = self._bus, self._inbox, self._outbox
            if bus is None or inbox is None or outbox is None:
                return
            if not is_clean:
                self._publish_will()
            _keeper.clear(id(self))
            self._bus = self._inbox = self._outbox = None
            for packet, info in outbox.close():
                if packet.qos:
                    self._unsent.append((packet, info))
                else:
                    info.rc = MQTT_ERR_CONN_LOST
                    info._set_as_published()
        try:
            self._call(self.on_socket_close, "on_socket_close", Socket(inbox))
        finally:
            inbox.close()
            bus.close()

    def _publish_will(self) -> None:
        if self._will_kept and self._outbox:
            self._outbox.publish(self._will_kept, MQTTMessageInfo(0))

    def is_connected(self) -> bool:
        """Whether the loop has told that it is, and it is still."""
        return self._state == "connected"

    def socket(self) -> Socket | None:
        """For an event loop: call loop_read() when it is readable. None: not connected."""
        return Socket(self._inbox) if self._inbox else None

    # ------------------------------------------------------------------- publish and subscribe

    def publish(
        self,
        topic: str,
        payload: PayloadType = None,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> MQTTMessageInfo:
        """Publish. It never waits: where a subscriber of qos 1 or 2 has no room, the message does,
        here; of those with qos 0 at most 1000 for a topic, then rc is MQTT_ERR_QUEUE_SIZE.
        ValueError: a topic, qos, payload or property that cannot be; TopicError, which is one, of
        a name that only this bus refuses: "/a", "a//b". NoSpaceError, LimitError: of the bus."""
        if properties is not None and not self._v5:
            raise ValueError("Properties only apply to MQTT V5")
        packet = pack(topic, payload, qos, retain, properties)
        info = MQTTMessageInfo(self._next_mid())
        self._send(packet, info)
        return info

    def _keep_unsent(self, packet: Packet, info: MQTTMessageInfo, result: MQTTErrorCode) -> None:
        """There is no connection; with a qos a message waits for one."""
        info.rc = result
        if packet.qos and 0 < self.max_queued_messages <= len(self._unsent):
            info.rc = MQTT_ERR_QUEUE_SIZE
        elif packet.qos:
            self._unsent.append((packet, info))

    def flush(self, timeout: float | None = None) -> bool:
        """Not in paho: wait until all that was published lies in the rings; False: it does not
        within so many seconds."""
        return self._outbox is None or self._outbox.flush(timeout)

    def is_alive(self) -> bool:
        """Not in paho: whether it has a connection to a bus that has not ended, asked now."""
        try:
            return self._bus is not None and (self._bus.daemon_alive() or True)
        except errors.ClosedError:
            return False

    def _send(self, packet: Packet, info: MQTTMessageInfo) -> None:
        outbox, inbox = self._outbox, self._inbox
        if outbox is None or inbox is None:
            self._keep_unsent(packet, info, MQTT_ERR_NO_CONN)
            return
        qos = packet.qos
        if qos and 0 < self.max_queued_messages <= outbox.waiting():
            info.rc = MQTT_ERR_QUEUE_SIZE
            return
        text = "Sending PUBLISH (d0, q%d, r%d, m%d), '%s', ... (%d bytes)"
        self._log(
            MQTT_LOG_DEBUG, text, qos, packet.retain, info.mid, packet.topic, len(packet.data)
        )
        try:
            outcome = outbox.publish(packet, info, 0 if qos else WAITING_MAX)
        except errors.ClosedError:
            self._keep_unsent(packet, info, MQTT_ERR_CONN_LOST)
            inbox.post(self._check)
            return
        if outcome == "dropped":
            info.rc = MQTT_ERR_QUEUE_SIZE
            self._trouble(f"dropped, as {WAITING_MAX} wait already for {packet.topic!r}")
        elif outcome == "done":
            is_alone = self._v5 and not outbox.subscribers(packet.topic)
            if qos == 0 and self._is_direct():
                self._published(packet, info, is_alone)
            else:
                inbox.post(partial(self._published, packet, info, is_alone))

    def _has_gone(self, packet: Packet, info: MQTTMessageInfo) -> None:
        if inbox := self._inbox:
            inbox.post(partial(self._published, packet, info, False))

    def _has_failed(self, error: errors.Error, packet: Packet, info: MQTTMessageInfo) -> None:
        self._trouble(f"not published on {packet.topic!r}: {error}")
        if not isinstance(error, errors.ClosedError):
            info.rc = MQTT_ERR_UNKNOWN
            info._set_as_published()  # nobody waits for it any more
        elif self._inbox:
            self._inbox.post(self._check)

    def _check(self) -> None:
        """The loop does it: whether the bus is there."""
        if self._bus:
            self._bus.daemon_alive()

    def _published(self, packet: Packet, info: MQTTMessageInfo, is_alone: bool) -> None:
        try:
            self._tell_publish(info.mid, packet.qos, is_alone)
        finally:
            info._set_as_published()

    def subscribe(
        self,
        topic: str | tuple[str, Any] | list[tuple[str, Any]],
        qos: int = 0,
        options: SubscribeOptions | None = None,
        properties: Properties | None = None,
    ) -> tuple[MQTTErrorCode, int | None]:
        """Subscribe to a filter, a pair of filter and qos (MQTT 5: or SubscribeOptions), or a list
        of such pairs. When this returns, all that is published from then on will be received.
        Returns the result and the mid of on_subscribe. ValueError: as publish()."""
        if isinstance(topic, tuple):
            topic = [topic]
        elif isinstance(topic, str):
            if options is not None and qos:
                raise ValueError("Subscribe options and qos parameters cannot be combined.")
            topic = [(topic, qos if options is None else options)]
        if not isinstance(topic, list) or not topic:
            raise ValueError("No topic specified, or incorrect topic type.")
        wanted = [(self._check_filter(sub), self._options(how)) for sub, how in topic]
        identifiers: list[int] = []
        if properties is not None and not properties.isEmpty():
            if not self._v5:
                raise ValueError("Properties only apply to MQTT V5")
            if properties.names() != ["SubscriptionIdentifier"]:
                refuse("UserProperty of subscribe()", "no broker reads it")
            identifiers = properties.SubscriptionIdentifier
        inbox = self._inbox
        if inbox is None:
            return MQTT_ERR_NO_CONN, None
        mid = self._next_mid()
        self._log(MQTT_LOG_DEBUG, "Sending SUBSCRIBE (m%d) %s", mid, wanted)
        granted = [how.QoS for _, how in wanted]
        inbox.subscribe(wanted, identifiers, partial(self._tell_subscribe, mid, granted))
        return MQTT_ERR_SUCCESS, mid

    def _check_filter(self, sub: str) -> str:
        check_filter(sub)
        if sub.startswith("$SYS"):
            self._log(MQTT_LOG_WARNING, "%s: no broker tells of itself; see `shmps top`", sub)
        return sub

    def _options(self, how: Any) -> SubscribeOptions:
        if isinstance(how, SubscribeOptions) and self._v5:
            return how
        if not isinstance(how, int):
            raise ValueError("Invalid QoS level.")
        check_qos(how)
        return SubscribeOptions(how)

    def unsubscribe(
        self, topic: str | list[str], properties: Properties | None = None
    ) -> tuple[MQTTErrorCode, int | None]:
        """Unsubscribe from a filter or a list of them. What was published before is still
        delivered. Returns the result and the mid of on_unsubscribe. ValueError: as subscribe()."""
        subs = [topic] if isinstance(topic, str) else topic
        if not isinstance(subs, list) or not subs:
            raise ValueError("No topic specified, or incorrect topic type.")
        for sub in subs:
            check_filter(sub)
        if properties is not None and not properties.isEmpty():
            refuse("properties of unsubscribe()", "no broker reads them")
        inbox = self._inbox
        if inbox is None:
            return MQTT_ERR_NO_CONN, None
        mid = self._next_mid()
        self._log(MQTT_LOG_DEBUG, "Sending UNSUBSCRIBE (m%d) %s", mid, subs)
        inbox.unsubscribe(subs, partial(self._tell_unsubscribe, mid))
        return MQTT_ERR_SUCCESS, mid

    def _receive(self, message: MQTTMessage) -> None:
        if message.qos:
            self._received_mid = self._received_mid % 65535 + 1
            message.mid = self._received_mid
        self._tell_message(message)

    def _trouble(self, text: str) -> None:
        self._log(MQTT_LOG_WARNING, "%s", text)

    def _next_mid(self) -> int:
        with self._mid_lock:
            self._mid = self._mid % 65535 + 1
            return self._mid

    def will_set(
        self,
        topic: str,
        payload: PayloadType = None,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        """A message that is published when this process ends without disconnect(), even if it is
        killed, from the next connect() on. Another process keeps it, see shmps.paho.will. Errors
        as of publish()."""
        if properties is not None and not self._v5:
            raise ValueError("Properties only apply to MQTT V5")
        self._will = pack(topic, payload, qos, retain, properties)

    def will_clear(self) -> None:
        """From the next connect() on there is none."""
        self._will = None

    def _is_direct(self) -> bool:
        """Nobody else runs the loop, so calls tell their results at once, as in paho."""
        return (
            self._thread is None
            and not self._in_callback
            and self.on_socket_register_write is None
        )
