"""Connections, publishers and subscribers: those of the C extension, with handlers that a loop
calls, and for coroutines under asyncio, uvloop, trio and anyio."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from . import _native, errors
from .loop import Loop, deadline

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ._native import Message
    from .records import Delivery, Wait
    from .waiting import AsyncioReader, TrioReader

T = TypeVar("T")
Handler = TypeVar("Handler", bound="Callable[[Message], Any]")

TURNS = 256  # messages without a wait, after which a coroutine lets others run
PAUSE_MIN_S, PAUSE_MAX_S = 0.0005, 0.008  # between looks for room in send()


def connect(
    instance: str | None = None,
    *,
    autostart: bool | None = None,
    observe: bool = False,
    timeout: float | None = 5.0,
) -> Bus:
    """Connect to an instance of the bus: its name or the path of its socket, None: that of
    $SHMPS_INSTANCE, else "default". If no pubsubd answers, one of this user is started, unless
    autostart is False (or None, and SHMPS_AUTOSTART=0). observe: only look, without pubsubd.

    Raises NoDaemonError, VersionError, NotPermittedError, and others of shmps.errors."""
    return Bus(instance, autostart=autostart, observe=observe, timeout=timeout)


def _only(owner: object, name: str, value: T) -> T:
    """The attribute of the name, the value if there is none yet: the same for all threads."""
    only: T = owner.__dict__.setdefault(name, value)
    return only


class Publisher(_native.Publisher):
    """Publishes on one topic: see Bus.publisher()."""

    _turns = 0

    def __repr__(self) -> str:
        return f"<shmps.Publisher {self.topic}{', closed' if self.closed else ''}>"

    async def send(self, data: Buffer, tag: int = 0, timeout: float | None = None) -> None:
        """publish(), for a coroutine: where a reliable subscriber makes it wait, others run. Room
        is looked for every few milliseconds. When it is cancelled, nothing has been published."""
        self._turns += 1
        if self._turns < TURNS:
            try:
                return self.publish(data, tag, 0)
            except errors.Full:
                pass
        return await self._send(data, tag, timeout)

    async def _send(self, data: Buffer, tag: int, timeout: float | None) -> None:
        from . import waiting

        if self._turns >= TURNS:
            self._turns = 0
            await waiting.sleep(0)
        end = deadline(timeout)
        pause = PAUSE_MIN_S
        while True:
            try:
                return self.publish(data, tag, 0)
            except errors.Full:
                if end is not None and time.monotonic() >= end:
                    raise
            self._turns = 0
            await waiting.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX_S)


class Subscriber(_native.Subscriber):
    """Receives what is published on the topics of a filter: see Bus.subscribe().

    In a coroutine: `await sub.receive()`, `async for message in sub`, and `async with` to close it
    at the end. No message is lost by cancelling these. Several tasks may wait on one, but under
    trio only one at a time (trio.BusyResourceError)."""

    _turns = 0

    def __repr__(self) -> str:
        return f"<shmps.Subscriber {self.filter}{', closed' if self.closed else ''}>"

    @property
    def _readers(self) -> dict[Any, AsyncioReader | TrioReader]:  # by event loop
        return _only(self, "_waiting", {})

    async def receive(self, timeout: float | None | EllipsisType = ...) -> Message:
        """take(), for a coroutine: the next message. timeout: seconds, None: for ever, not given:
        self.timeout. Raises Timeout, ClosedError, and what take() raises."""
        self._turns += 1
        if self._turns < TURNS:
            message = self.try_take()
            if message is not None:
                return message
        return await self._receive(self.timeout if isinstance(timeout, EllipsisType) else timeout)

    async def _receive(self, timeout: float | None) -> Message:
        from . import waiting

        if self._turns >= TURNS:
            self._turns = 0
            await waiting.sleep(0)
        end = deadline(timeout)
        while (message := self.try_take()) is None:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise errors.Timeout(f"no message on {self.filter!r} within {timeout:g} s")
            self._turns = 0
            await self._reader(waiting.running()).wait(left)
        return message

    def _reader(self, loop: Any) -> AsyncioReader | TrioReader:
        from . import waiting

        reader = self._readers.get(loop)
        if reader is None:
            for other, old in list(self._readers.items()):
                if old.finished:
                    self._readers.pop(other).close()
            reader = self._readers[loop] = waiting.reader(self.fileno())
        return reader

    def close(self) -> None:
        """Unsubscribe. Who waits in a coroutine or iterates in another thread comes to the end;
        messages that are held remain readable."""
        super().close()
        self._wake()

    def _wake(self) -> None:
        if "_waiting" in self.__dict__:
            with suppress(KeyError):  # the last one; another thread may be at it, too
                while True:
                    self._readers.popitem()[1].close()

    def __del__(self) -> None:
        self._wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self.close()

    async def _next(self, give_way: bool) -> Message:
        """What `async for` waits for, where there is no message at once, or others are to run."""
        if give_way:
            from . import waiting

            await waiting.sleep(0)
        try:
            return await self._receive(self.timeout)
        except errors.ClosedError:
            if self.closed:
                raise StopAsyncIteration from None
            raise


class Bus(_native.Connection):
    """A connection to one instance of the bus: see connect(). Handlers set with on() are called by
    the thread that is in loop_forever() or loop_once(), or by that of loop_start()."""

    def __repr__(self) -> str:
        return f"<shmps.Bus {self.instance}{', closed' if self.closed else ''}>"

    @property
    def loop(self) -> Loop:
        """Who calls the handlers: on(), off() and loop_...() are its methods."""
        loop: Loop | None = self.__dict__.get("_loop")
        return loop or _only(self, "_loop", Loop())

    @property
    def _subscribers(self) -> set[weakref.ref[Subscriber]]:
        return _only(self, "_opened", set())

    def publisher(
        self,
        topic: str,
        *,
        depth: int = 0,
        pins: int = 0,
        message_bytes: int = 0,
        timestamps: bool = True,
        wait: Wait = "default",
        history: int = 0,
    ) -> Publisher:
        """Open a publisher; every subscriber there is receives what it publishes.

        depth           slots of its ring, messages; 0: as configured, else 64
        pins            large messages that all subscribers together may hold without a copy
        message_bytes   the largest message; 0: it grows as needed
        timestamps      whether each message carries the time of publishing
        wait            how to wait for a reliable subscriber: "default", "spin", "sleep"
        history         so many of its newest messages are kept for late subscribers"""
        return Publisher(
            self,
            topic,
            depth=depth,
            pins=pins,
            message_bytes=message_bytes,
            timestamps=timestamps,
            wait=wait,
            history=history,
        )

    def subscribe(
        self,
        filter: str,
        *,
        timeout: float | None = None,
        delivery: Delivery = "lossy",
        wait: Wait = "default",
        history: int | None = None,
        pins: int = 0,
    ) -> Subscriber:
        """Open a subscriber; it misses nothing that is published from now on.

        filter    a topic; '+' stands for one level, '#' at the end for any number of them
        timeout   seconds that take(), receive() and iterating wait for a message; None: for ever
        delivery  "lossy": in order, message.lost counts what was overrun; "latest": always the
                  newest; "reliable": publishers wait for it; "observe": cannot be noticed
        wait      how take() waits: "default", "spin", "sleep"
        history   begin with so many of the newest messages of each topic; None: as configured
        pins      large messages of a topic that it may hold without a copy; 0: 4"""
        subscriber = Subscriber(
            self,
            filter,
            timeout=timeout,
            delivery=delivery,
            wait=wait,
            history=history,
            pins=pins,
        )
        opened = self._subscribers
        opened.add(weakref.ref(subscriber, opened.discard))
        return subscriber

    @overload
    def on(
        self,
        filter: str,
        handler: None = None,
        *,
        delivery: Delivery = "lossy",
        history: int | None = None,
        pins: int = 0,
    ) -> Callable[[Handler], Handler]: ...
    @overload
    def on(
        self,
        filter: str,
        handler: Handler,
        *,
        delivery: Delivery = "lossy",
        history: int | None = None,
        pins: int = 0,
    ) -> Handler: ...
    def on(
        self,
        filter: str,
        handler: Handler | None = None,
        *,
        delivery: Delivery = "lossy",
        history: int | None = None,
        pins: int = 0,
    ) -> Handler | Callable[[Handler], Handler]:
        """Subscribe a handler, which the loop calls with each message. A decorator, or called with
        the handler. Each has a subscriber of its own. What it raises is reported as for a thread
        (threading.excepthook; in the main thread sys.excepthook), and the loop goes on; but
        KeyboardInterrupt and SystemExit end the loop. Any thread, also in a handler."""

        def subscribe(handler: Handler) -> Handler:
            subscriber = self.subscribe(filter, delivery=delivery, history=history, pins=pins)
            self.loop.add(subscriber, handler)
            return handler

        return subscribe if handler is None else subscribe(handler)

    def off(self, handler: Callable[[Message], Any], filter: str | None = None) -> None:
        """Unsubscribe a handler, from one filter or from all of them. When this returns, it is not
        called any more; in a handler: once that has returned. Else this waits for a handler that
        runs: hold no lock that it needs."""
        self.loop.remove(handler, filter)

    def loop_start(self) -> None:
        """Run the loop in a daemon thread. StateError: it runs already."""
        self.loop.start()

    def loop_stop(self) -> None:
        """End the loop: no handler runs any more when this returns. In a handler: it ends after
        that. Nothing that was not handled is lost: a loop that is run later goes on with it."""
        self.loop.stop()

    def loop_forever(self) -> None:
        """Run the loop here, until loop_stop(), close() or Ctrl-C (KeyboardInterrupt).
        StateError: it runs already."""
        self.loop.forever()

    def loop_once(self, timeout: float | None = None) -> int:
        """Call the handlers with what is there, at most 64 messages each; if there is nothing,
        wait for it. Returns how many messages were handled: 0 after a loop_stop() only. Raises
        Timeout; StateError: the loop runs already."""
        return self.loop.once(timeout)

    def close(self) -> None:
        """End the loop, close all that is open, and disconnect."""
        if "_loop" in self.__dict__:
            self.loop.close()
        for reference in self._subscribers.copy():
            subscriber = reference()
            if subscriber is not None:
                subscriber.close()
        super().close()
