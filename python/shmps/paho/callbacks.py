"""What a client tells its program: the callbacks, with the arguments of each version of paho."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

from .enums import (
    LOGGING_LEVEL,
    CallbackAPIVersion,
    ConnackCode,
    LogLevel,
    MQTTErrorCode,
    MQTTProtocolVersion,
)
from .matcher import MQTTMatcher
from .messages import MQTTMessage
from .properties import Properties
from .reasoncodes import PacketTypes, ReasonCode

Callback: TypeAlias = Callable[..., Any] | None
F = TypeVar("F", bound=Callable[..., Any])


class ConnectFlags(NamedTuple):
    session_present: bool  # False: no session outlives its client here


class DisconnectFlags(NamedTuple):
    is_disconnect_packet_from_server: bool  # False: there is no server


class Callbacks:
    """Each may be set as an attribute, by a decorator, or as a method of a subclass. They are
    called by whoever runs the loop, one at a time; an exception ends the loop, unless
    suppress_exceptions is set (one of on_log is dropped, as in paho). client and userdata come
    first, then by VERSION1 (v5: with MQTTv5) and VERSION2:

    on_connect      flags dict, result; v5: flags dict, reason, properties | flags, reason, props
    on_disconnect   result; v5: result, None                               | flags, reason, props
    on_subscribe    mid, granted qos; v5: mid, reasons, properties         | mid, reasons, props
    on_unsubscribe  mid; v5: mid, properties, reason or reasons            | mid, reasons, props
    on_publish      mid                                                    | mid, reason, props
    on_message      message
    on_log          level, text
    on_connect_fail, on_pre_connect    nothing
    on_socket_open, on_socket_close    the socket: an object with fileno()
    on_socket_register_write, on_socket_unregister_write    are never called: nothing waits to be
                    written to a socket. Setting the first says, as in paho, that the program's own
                    loop calls loop_read(): on_publish is then called there.
    """

    on_connect: Callback = None
    on_connect_fail: Callback = None
    on_disconnect: Callback = None
    on_log: Callback = None
    on_message: Callback = None
    on_pre_connect: Callback = None
    on_publish: Callback = None
    on_socket_close: Callback = None
    on_socket_open: Callback = None
    on_socket_register_write: Callback = None
    on_socket_unregister_write: Callback = None
    on_subscribe: Callback = None
    on_unsubscribe: Callback = None

    def __init__(self, version: CallbackAPIVersion, v5: bool, userdata: Any) -> None:
        self.suppress_exceptions = False
        self._callback_api_version = version
        self._version2 = version == CallbackAPIVersion.VERSION2
        self._v5 = v5
        self._userdata = userdata
        self._logger: logging.Logger | None = None
        self._filtered = MQTTMatcher()
        self._in_callback = 0

    @property
    def callback_api_version(self) -> CallbackAPIVersion:
        return self._callback_api_version

    def _decorator(self, name: str) -> Callable[[F], F]:
        def set_callback(function: F) -> F:
            setattr(self, name, function)
            return function

        return set_callback

    def connect_callback(self) -> Callable[[F], F]:
        return self._decorator("on_connect")

    def connect_fail_callback(self) -> Callable[[F], F]:
        return self._decorator("on_connect_fail")

    def disconnect_callback(self) -> Callable[[F], F]:
        return self._decorator("on_disconnect")

    def log_callback(self) -> Callable[[F], F]:
        return self._decorator("on_log")

    def message_callback(self) -> Callable[[F], F]:
        return self._decorator("on_message")

    def pre_connect_callback(self) -> Callable[[F], F]:
        return self._decorator("on_pre_connect")

    def publish_callback(self) -> Callable[[F], F]:
        return self._decorator("on_publish")

    def socket_close_callback(self) -> Callable[[F], F]:
        return self._decorator("on_socket_close")

    def socket_open_callback(self) -> Callable[[F], F]:
        return self._decorator("on_socket_open")

    def socket_register_write_callback(self) -> Callable[[F], F]:
        return self._decorator("on_socket_register_write")

    def socket_unregister_write_callback(self) -> Callable[[F], F]:
        return self._decorator("on_socket_unregister_write")

    def subscribe_callback(self) -> Callable[[F], F]:
        return self._decorator("on_subscribe")

    def unsubscribe_callback(self) -> Callable[[F], F]:
        return self._decorator("on_unsubscribe")

    def topic_callback(self, sub: str) -> Callable[[F], F]:
        """Decorator: as message_callback_add()."""

        def add(function: F) -> F:
            self.message_callback_add(sub, function)
            return function

        return add

    def message_callback_add(self, sub: str, callback: Callable[..., Any]) -> None:
        """Messages whose topic matches a filter go to this callback (and to the others that were
        added and match), not to on_message. It does not subscribe. ValueError: one is missing."""
        if callback is None or sub is None:
            raise ValueError("sub and callback must both be defined.")
        self._filtered[sub] = callback

    def message_callback_remove(self, sub: str) -> None:
        """Take the callback of a filter away, if there is one. ValueError: None."""
        if sub is None:
            raise ValueError("sub must defined.")
        try:
            del self._filtered[sub]
        except KeyError:
            pass

    def user_data_set(self, userdata: Any) -> None:
        """Callbacks get it as their second argument."""
        self._userdata = userdata

    def user_data_get(self) -> Any:
        return self._userdata

    def enable_logger(self, logger: logging.Logger | None = None) -> None:
        """Log what on_log tells, with this logger or that of shmps.paho.client."""
        self._logger = logger or self._logger or logging.getLogger("shmps.paho.client")

    def disable_logger(self) -> None:
        self._logger = None

    @property
    def logger(self) -> logging.Logger | None:
        return self._logger

    @logger.setter
    def logger(self, value: logging.Logger | None) -> None:
        self._logger = value

    def _log(self, level: LogLevel, text: str, *arguments: Any) -> None:
        if self.on_log is not None:
            with contextlib.suppress(Exception):  # as paho: there is nowhere to tell it
                self.on_log(self, self._userdata, level, text % arguments)
        if self._logger is not None:
            self._logger.log(LOGGING_LEVEL[level], text, *arguments)

    def _call(self, function: Callback, name: str, *arguments: Any) -> None:
        if function is None:
            return
        self._in_callback += 1
        try:
            function(self, self._userdata, *arguments)
        except Exception as error:
            self._log(LogLevel.MQTT_LOG_ERR, "Caught exception in %s: %s", name, error)
            if not self.suppress_exceptions:
                raise
        finally:
            self._in_callback -= 1

    def _tell_connect(self) -> None:
        code = ReasonCode(PacketTypes.CONNACK, "Success")
        properties = Properties(PacketTypes.CONNACK)
        arguments: tuple[Any, ...] = ({"session present": 0}, int(ConnackCode.CONNACK_ACCEPTED))
        if self._version2:
            arguments = (ConnectFlags(False), code, properties)
        elif self._v5:
            arguments = ({"session present": 0}, code, properties)
        self._call(self.on_connect, "on_connect", *arguments)

    def _tell_disconnect(self, result: MQTTErrorCode) -> None:
        arguments: tuple[Any, ...] = (result,)
        if self._version2:
            name = "Success" if result == MQTTErrorCode.MQTT_ERR_SUCCESS else "Unspecified error"
            code = ReasonCode(PacketTypes.DISCONNECT, name)
            arguments = (DisconnectFlags(False), code, Properties(PacketTypes.DISCONNECT))
        elif self._v5:
            arguments = (result, None)
        self._call(self.on_disconnect, "on_disconnect", *arguments)

    def _tell_subscribe(self, mid: int, granted: list[int]) -> None:
        self._log(LogLevel.MQTT_LOG_DEBUG, "Received SUBACK")
        codes = [ReasonCode(PacketTypes.SUBACK, identifier=qos) for qos in granted]
        arguments: tuple[Any, ...] = (mid, codes, Properties(PacketTypes.SUBACK))
        if not self._version2 and not self._v5:
            arguments = (mid, tuple(granted))
        self._call(self.on_subscribe, "on_subscribe", *arguments)

    def _tell_unsubscribe(self, mid: int, known: list[bool]) -> None:
        self._log(LogLevel.MQTT_LOG_DEBUG, "Received UNSUBACK (Mid: %d)", mid)
        properties = Properties(PacketTypes.UNSUBACK)
        names = ["Success" if was else "No subscription found" for was in known]
        codes = [ReasonCode(PacketTypes.UNSUBACK, name) for name in names] if self._v5 else []
        arguments: tuple[Any, ...] = (mid,)
        if self._version2:
            arguments = (mid, codes, properties)
        elif self._v5:
            arguments = (mid, properties, codes[0] if len(codes) == 1 else codes)
        self._call(self.on_unsubscribe, "on_unsubscribe", *arguments)

    def _tell_publish(self, mid: int, qos: int, is_alone: bool) -> None:
        """is_alone: nobody has subscribed; MQTT 5 tells that with a qos of 1."""
        kind = PacketTypes.PUBCOMP if qos == 2 else PacketTypes.PUBACK
        name = "No matching subscribers" if is_alone and qos == 1 else "Success"
        arguments: tuple[Any, ...] = (mid,)
        if self._version2:
            arguments = (mid, ReasonCode(kind, name), Properties(kind))
        self._call(self.on_publish, "on_publish", *arguments)

    def _tell_message(self, message: MQTTMessage) -> None:
        self._log(
            LogLevel.MQTT_LOG_DEBUG,
            "Received PUBLISH (d0, q%d, r%d, m%d), '%s', ...  (%d bytes)",
            message.qos,
            message.retain,
            message.mid,
            message.topic,
            len(message.payload),
        )
        filtered = list(self._filtered.iter_match(message.topic))
        for function in filtered:
            self._call(function, f"user defined callback function {function!r}", message)
        if not filtered:
            self._call(self.on_message, "on_message", message)


def is_v5(protocol: int) -> bool:
    """Of MQTTv31, MQTTv311 and MQTTv5, which differ here only in what callbacks get. ValueError:
    another one."""
    return MQTTProtocolVersion(protocol) == MQTTProtocolVersion.MQTTv5
