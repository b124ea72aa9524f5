"""Publisher, Broker and Subscriber with asyncio's await.

    broker = Broker()
    publisher = Publisher()
    subscriber = Subscriber("Subscriber 1")
    broker.subscribe(subscriber)
    await publisher.send_message("Hello, World!")
    await subscriber.receive_message()      # prints: Subscriber 1 received message: Hello, World!

All brokers and publishers of a process that name the same topic share it, and who names none means
TOPIC. Without connect=True a topic is private to the process: it needs no pubsubd, any object
passes, and what a subscriber has not received waits in its inbox, however much that is.

With connect=True it is the topic of that name on the bus, for all processes. What json can say
passes, and bytes (see shmps.codec). Nothing is lost: where a subscriber of another process lags by
a whole ring, publishing waits for it. For those of its own process it does not: while it waits,
their messages move into their inboxes, so that one task may send much and then receive it. Errors
are those of shmps.Publisher.publish() and shmps.Subscriber.take().

Threads: subscribing, publishing and receiving may happen in the event loops of several threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from . import codec
from .bus import Bus
from .bus import Publisher as BusPublisher
from .bus import Subscriber as BusSubscriber
from .errors import ClosedError, Error, Full

TOPIC = "shmps/aio"

_NOTHING = object()
_TURN = 256  # so many messages without a wait, then other tasks have their turn


class _Turns:
    """Lets others run when one task has gone on for long without a wait. Tasks that come here once
    each keep their order."""

    def __init__(self) -> None:
        self._task = 0
        self._left = 0

    async def next(self) -> None:
        task = id(asyncio.current_task())
        if task != self._task:
            self._task, self._left = task, _TURN
        self._left -= 1
        if self._left <= 0:
            self._left = _TURN
            await asyncio.sleep(0)


@contextlib.contextmanager
def _reading(
    sources: Iterable[BusSubscriber], callback: Callable[..., object], *args: Any
) -> Iterator[None]:
    """Call back in this loop whenever a source is readable. By duplicates of the descriptors: a
    source may be closed, or be read here twice."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        for source in sources:
            fd = os.dup(source.fileno())
            stack.callback(os.close, fd)
            loop.add_reader(fd, callback, *args)
            stack.callback(loop.remove_reader, fd)
        yield


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _Topic:
    """A topic inside this process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscribers: WeakKeyDictionary[Subscriber, None] = WeakKeyDictionary()
        self._turns = _Turns()

    def source(self) -> BusSubscriber | None:
        return None

    async def publish(self, message: Any) -> None:
        await self._turns.next()
        for subscriber in list(self.subscribers):
            subscriber._put(message)


class _BusTopic(_Topic):
    """A topic of the bus, with one publisher for all of this process."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._bus = _bus()
        self._publisher: BusPublisher | None = None
        self._order: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]
        self._order = WeakKeyDictionary()

    def source(self) -> BusSubscriber:
        return self._bus.subscribe(self.name, delivery="reliable")

    def publisher(self) -> BusPublisher:
        with _lock:
            if self._publisher is None:
                self._publisher = self._bus.publisher(self.name)
            return self._publisher

    async def publish(self, message: Any) -> None:
        await self._turns.next()
        data, tag = codec.encode(message)
        publisher = self.publisher()
        async with self._order.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            try:
                publisher.publish(data, tag, timeout=0)
            except Full:
                with contextlib.ExitStack() as stack:
                    for subscriber in list(self.subscribers):
                        stack.enter_context(subscriber._spilling(self))
                    await publisher.send(data, tag)


_lock = threading.RLock()
_topics: WeakValueDictionary[tuple[int, str | None, str], _Topic] = WeakValueDictionary()
_buses: WeakValueDictionary[tuple[int, str | None], Bus] = WeakValueDictionary()


def _bus() -> Bus:
    """The connection that all topics of this process share."""
    key = os.getpid(), os.environ.get("SHMPS_INSTANCE")
    bus = _buses.get(key)
    if bus is None:
        bus = _buses[key] = Bus()
    return bus


def _topic(connect: bool, name: str) -> _Topic:
    instance = os.environ.get("SHMPS_INSTANCE", "default") if connect else None
    key = os.getpid(), instance, name
    with _lock:
        topic = _topics.get(key)
        if topic is None:
            topic = _topics[key] = _BusTopic(name) if connect else _Topic(name)
        return topic


class Publisher:
    """Sends messages to the subscribers of a topic."""

    def __init__(self, *, connect: bool = False, topic: str = TOPIC) -> None:
        self._topic = _topic(connect, topic)

    async def send_message(self, message: Any) -> None:
        await self._topic.publish(message)


class Broker:
    """Decides who subscribes to a topic, and publishes on it too."""

    def __init__(self, *, connect: bool = False, topic: str = TOPIC) -> None:
        self._topic = _topic(connect, topic)
        self.subscribers: list[Subscriber] = []  # that this broker has subscribed, in order

    def subscribe(self, subscriber: Subscriber) -> None:
        """From now on the subscriber gets each message, once however often this is called."""
        subscriber._join(self._topic)
        if subscriber not in self.subscribers:
            self.subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Nothing that is published from now on; what it has been sent it may still receive."""
        subscriber._leave(self._topic)
        with contextlib.suppress(ValueError):
            self.subscribers.remove(subscriber)

    async def publish(self, message: Any) -> None:
        await self._topic.publish(message)


class Subscriber:
    """Receives what is published where a broker has subscribed it; with connect=True it has
    subscribed to a topic of the bus itself, and needs no broker."""

    def __init__(self, name: str, *, connect: bool = False, topic: str = TOPIC) -> None:
        self.name = name
        self._inbox: deque[tuple[Any, int | None]] = deque()  # messages; tag: still encoded
        self._topics: dict[_Topic, BusSubscriber | None] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._lock = threading.Lock()
        self._turns = _Turns()
        self._closed = False
        if connect:
            self._join(_topic(connect, topic))

    async def receive_message(self) -> Any:
        """Wait for the next message, print it, and return it. Cancelled, it takes none. Several
        tasks may call this: each message goes to one of them."""
        await self._turns.next()
        while (message := self._next()) is _NOTHING:
            if self._closed:
                raise ClosedError(f"subscriber {self.name!r} is closed")
            await self._wait()
        print(f"{self.name} received message: {message}")
        return message

    def close(self) -> None:
        """Leave all topics. What has been sent may still be received; after that, and for who
        waits, there is a ClosedError."""
        self._closed = True
        for topic in list(self._topics):
            self._leave(topic)
        self._wake(len(self._waiters))

    def _join(self, topic: _Topic) -> None:
        if self._closed:
            raise ClosedError(f"subscriber {self.name!r} is closed")
        with self._lock:
            if topic not in self._topics:
                self._topics[topic] = topic.source()
                topic.subscribers[self] = None
        self._wake(len(self._waiters))

    def _leave(self, topic: _Topic) -> None:
        topic.subscribers.pop(self, None)
        self._spill(topic, until_ns=time.monotonic_ns())
        with self._lock:
            source = self._topics.pop(topic, None)
            if source is not None:
                source.close()
        self._wake(len(self._waiters))

    def _next(self) -> Any:
        """The next message, or _NOTHING."""
        with self._lock:
            if self._inbox:
                message, tag = self._inbox.popleft()
                return message if tag is None else codec.decode(message, tag)
            for topic, source in list(self._topics.items()):
                if source and (found := source.try_take()) is not None:
                    self._topics[topic] = self._topics.pop(topic)  # next time the others first
                    return codec.decode(found.payload, found.tag)
            return _NOTHING

    def _put(self, message: Any) -> None:
        self._inbox.append((message, None))
        self._wake(1)

    def _wake(self, n: int) -> None:
        """Let n tasks that wait look again."""
        while n > 0 and self._waiters:
            with contextlib.suppress(IndexError, RuntimeError):  # others did; a closed loop
                waiter = self._waiters.popleft()
                waiter.get_loop().call_soon_threadsafe(_finish, waiter)
                n -= 1

    async def _wait(self) -> None:
        """Until there may be something to take. Who has been woken and leaves messages behind, as
        when cancelled, wakes the next one."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            with contextlib.ExitStack() as stack:
                with self._lock:
                    sources = [source for source in self._topics.values() if source]
                    stack.enter_context(_reading(sources, _finish, waiter))
                if not self._inbox and not self._closed:
                    await waiter
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
            if self._inbox:
                self._wake(1)

    @contextlib.contextmanager
    def _spilling(self, topic: _Topic) -> Iterator[None]:
        """What is there, and meanwhile comes, moves into the inbox: its publisher gets room."""
        self._spill(topic)
        with contextlib.ExitStack() as stack:
            with self._lock:
                source = self._topics.get(topic)
                stack.enter_context(_reading([source] if source else [], self._spill, topic))
            yield

    def _spill(self, topic: _Topic, until_ns: int | None = None) -> None:
        n = len(self._inbox)
        with self._lock, contextlib.suppress(Error):  # who receives is told
            source = self._topics.get(topic)
            while source and (message := source.try_take()) is not None:
                if until_ns is not None and message.time_ns > until_ns:
                    break
                self._inbox.append((message.copy(), message.tag))
        self._wake(len(self._inbox) - n)
