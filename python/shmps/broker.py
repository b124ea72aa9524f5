"""The broker of the tutorial: subscribe(topic, callback), publish(topic, message)."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

from . import _native, bus, codec, errors

if TYPE_CHECKING:
    from types import TracebackType

    from ._native import Message

Callback: TypeAlias = Callable[[Any], object]

CLOSE_S = 1.0  # close() calls callbacks with what is there, for so long at most
OWN_S = 1.0  # a callback waits so long for room where its own broker may be who has to make it


class Subscription(NamedTuple):
    topic: str
    callback: Callback

    def handle(self, message: Message) -> None:
        self.callback(codec.decode(message.payload, message.tag))


class Broker:
    """Calls every callback of a topic with each message that is published on it. A subscription's
    topic may be a filter: '+' stands for one level, '#' at the end for any number of them.

    Broker()              within this process, without pubsubd. publish() calls the callbacks, with
                          the very object, in the order of subscribing; any object is a message
    Broker(connect=True)  with all processes on the bus (of $SHMPS_INSTANCE; a str names another).
                          A background thread calls the callbacks; a message is str, bytes, or what
                          json can say. None is lost: publish() waits for those who lag

    Any thread may call it, also a callback. A topic that is none raises TopicError; after close()
    every call raises ClosedError."""

    def __init__(self, *, connect: bool | str = False) -> None:
        self._lock = threading.RLock()  # a signal's handler may come in between and publish
        self._subscriptions: list[Subscription] = []
        self._publishers: dict[str, bus.Publisher] = {}
        self._closed = False
        self._bus: bus.Bus | None = None
        if connect:
            self._bus = bus.connect(connect if isinstance(connect, str) else None)
            self._bus.loop_start()
            atexit.register(self.close)

    def subscribe(self, topic: str, callback: Callback) -> None:
        """Call callback(message) with each message from now on; subscribed twice, it is called
        twice. Between processes, what it raises is reported as in Bus.on()."""
        _native.filter_check(topic)
        if not callable(callback):
            raise TypeError(f"a callback is called with the message, but this is {callback!r}")
        subscription = Subscription(topic, callback)
        with self._lock:
            self._check()
            self._subscriptions.append(subscription)
            if self._bus is not None:
                self._bus.on(topic, subscription.handle, delivery="reliable")

    def unsubscribe(self, topic: str, callback: Callback) -> None:
        """Undo subscribe(topic, callback). Between processes the callback is not called any more
        when this returns, or, in a callback, when that has returned; in one process a publish()
        that another thread is in may still call it."""
        with self._lock:
            self._check()
            gone = [s for s in self._subscriptions if s == (topic, callback)]
            self._subscriptions = [s for s in self._subscriptions if s not in gone]
        if self._bus is not None:
            for subscription in gone:
                self._bus.off(subscription.handle)

    def publish(self, topic: str, message: Any) -> None:
        """Call the callbacks of the topic with the message, or have them called in every process.

        In one process, what a callback raises is raised here, when all have been called; of
        several an ExceptionGroup. Between processes: TypeError or ValueError if json cannot say
        it; NoSpaceError, LimitError ... as Bus.publisher() and publish(); Full: in a callback,
        there is no room and its own broker, which subscribes to the topic, may be who lags."""
        _native.topic_check(topic)
        if self._bus is None:
            self._call(topic, message)
        else:
            data, tag = codec.encode(message)
            self._publisher(self._bus, topic).publish(data, tag, self._patience(self._bus, topic))

    def _callbacks(self, topic: str) -> list[Callback]:
        with self._lock:
            self._check()
            return [
                s.callback
                for s in self._subscriptions
                if s.topic == topic or _native.filter_matches(s.topic, topic)
            ]

    def _call(self, topic: str, message: Any) -> None:
        raised: list[Exception] = []
        for callback in self._callbacks(topic):
            try:
                callback(message)
            except Exception as error:
                raised.append(error)
        if len(raised) == 1:
            raise raised[0]
        if raised:
            raise ExceptionGroup(f"{len(raised)} callbacks of {topic!r} failed", raised)

    def _publisher(self, bus: bus.Bus, topic: str) -> bus.Publisher:
        """One for each topic, until close()."""
        with self._lock:
            self._check()
            publisher = self._publishers.get(topic)
            if publisher is None:
                publisher = self._publishers[topic] = bus.publisher(topic)
            return publisher

    def _patience(self, bus: bus.Bus, topic: str) -> float | None:
        return OWN_S if bus.loop.runs_here() and self._callbacks(topic) else None

    def _check(self) -> None:
        if self._closed:
            raise errors.ClosedError("this broker is closed; make another one")

    def close(self) -> None:
        """Between processes, call the callbacks with what is there, and disconnect; this is also
        done when the program ends. May be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._subscriptions.clear()
        if self._bus is not None:
            atexit.unregister(self.close)
            with suppress(errors.ForkedError):  # in a child there is nothing to be called
                if not self._bus.loop.runs_here():
                    self._bus.loop.stop()
                    self._bus.loop.drain(CLOSE_S)
            self._bus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self.close()
