"""Publishing for a client: publishers that are opened when needed, and what waits for room."""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from .. import _native, errors
from .messages import RETAINED, MQTTMessageInfo, Packet

# A publisher has room for messages up to one of these sizes, in so many slots: readers that sleep
# should not miss a burst, and a topic should cost less than one of C's defaults: 330 KiB, while
# its messages are small. Larger messages: 2 slots.
_DEPTHS = {1 << 8: 1024, 1 << 12: 128, 1 << 16: 16, 1 << 20: 4}
_PINS = 1  # what is received is copied at once
_OPEN_MAX = 32  # publishers of a client

# How many messages of qos 0 may wait in a topic where a subscriber of qos 1 or 2 has stalled.
WAITING_MAX = 1000

# In a burst, readers get a moment after so many messages, or a quarter of the slots: their threads
# need the interpreter, or a processor. A burst is over when there is nothing for so long.
_PAUSE_AFTER = 64
_PAUSE_SECONDS = 0.0005
_BURST_NS = 50_000_000

# How long the sender waits in one topic before it looks at the others.
_ROOM_SECONDS = 0.02

Outcome = Literal["done", "waiting", "dropped"]


@dataclass
class _Lane:
    """A topic: its publisher, if one is open, and what waits. Below RETAINED the publisher keeps
    one message, and the bus keeps that when it has gone."""

    topic: str
    publisher: _native.Publisher | None = None
    message_bytes: int = 0  # the publisher's
    pause_after: int = 0
    burst: int = 0  # messages since the last pause
    paused_ns: int = 0  # when the last pause was
    waiting: deque[tuple[Packet, MQTTMessageInfo]] = field(default_factory=deque)

    @property
    def is_companion(self) -> bool:
        return self.topic.startswith(RETAINED)

    def open(self, bus: _native.Connection, size: int) -> _native.Publisher:
        """One whose messages may have so many bytes."""
        if self.publisher is not None and size > self.message_bytes:
            self.close()
        if self.publisher is None:
            self.message_bytes = next((limit for limit in _DEPTHS if size <= limit), size)
            depth = 2 if self.is_companion else _DEPTHS.get(self.message_bytes, 2)
            self.pause_after = max(1, min(_PAUSE_AFTER, depth // 4))
            self.publisher = _native.Publisher(
                bus,
                self.topic,
                depth=depth,
                pins=_PINS,
                message_bytes=self.message_bytes,
                history=int(self.is_companion),
            )
        return self.publisher

    def close(self) -> None:
        if self.publisher is not None:
            self.publisher.close()
            self.publisher = None

    def publish(self, bus: _native.Connection, packet: Packet, timeout: float) -> int:
        """Returns the publisher's id. Full: there is no room."""
        publisher = self.open(bus, len(packet.data))
        publisher.publish(packet.data, packet.tag, timeout)
        self.burst += 1
        if self.burst >= self.pause_after and not self.is_companion:
            now = time.monotonic_ns()
            if now - self.paused_ns < _BURST_NS:
                time.sleep(_PAUSE_SECONDS)
            self.burst, self.paused_ns = 0, time.monotonic_ns()
        return publisher.id


class Outbox:
    """The publishers of one connection. Any thread may publish. What finds no room waits, in the
    order of its topic, and a thread that is there only then brings it into the ring.

    published(packet, info) is called for what has waited and lies in the ring now, failed(error,
    packet, info) for what never will: from the thread, with locks held."""

    def __init__(
        self,
        bus: _native.Connection,
        published: Callable[[Packet, MQTTMessageInfo], None],
        failed: Callable[[errors.Error, Packet, MQTTMessageInfo], None],
    ) -> None:
        self._bus = bus
        self._published = published
        self._failed = failed
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._changed = threading.Condition(threading.RLock())
        self._sender: threading.Thread | None = None
        self._ended = False
        self.ids: set[int] = set()  # Message.publisher of all that was published here

    def publish(self, packet: Packet, info: MQTTMessageInfo, waiting_max: int = 0) -> Outcome:
        """Publish, now or as soon as there is room: "done", or "waiting", of which published()
        tells. "dropped": as many as waiting_max (0: any number) wait in the topic already. Any
        Error but Full."""
        with self._changed:
            if packet.retain:
                # Before the topic itself: who subscribes in between gets the message twice, and
                # can tell by its tag, rather than never.
                self._lane(RETAINED + packet.topic).publish(self._bus, packet, 0)
            lane = self._lane(packet.topic)
            if not lane.waiting and self._put(lane, packet):
                return "done"
            if waiting_max and len(lane.waiting) >= waiting_max:
                return "dropped"
            lane.waiting.append((packet, info))
            if self._sender is None:
                self._sender = threading.Thread(
                    target=self._send, name="shmps-paho-send", daemon=True
                )
                self._sender.start()
            return "waiting"

    def waiting(self) -> int:
        """How many messages wait for room."""
        with self._changed:
            return sum(len(lane.waiting) for lane in self._lanes.values())

    def subscribers(self, topic: str) -> int:
        """How many a topic has that was published on just now."""
        with self._changed:
            publisher = self._lane(topic).publisher
            return publisher.stats().subscribers if publisher else 0

    def flush(self, timeout: float | None) -> bool:
        """Wait until nothing waits for room; False: the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: self._sender is None, timeout)

    def close(self) -> list[tuple[Packet, MQTTMessageInfo]]:
        """Close all publishers; returns what still waits."""
        with self._changed:
            self._ended = True
            sender = self._sender
        if sender and sender is not threading.current_thread():
            sender.join()
        with self._changed:
            left = [entry for lane in self._lanes.values() for entry in lane.waiting]
            for lane in self._lanes.values():
                lane.close()
            self._lanes.clear()
        return left

    def _lane(self, topic: str) -> _Lane:
        """The one of a topic, which is now the one used last; the one unused for longest goes."""
        if topic not in self._lanes and len(self._lanes) >= _OPEN_MAX:
            idle = next((lane for lane in self._lanes.values() if not lane.waiting), None)
            if idle:
                idle.close()
                del self._lanes[idle.topic]
        lane = self._lanes.setdefault(topic, _Lane(topic))
        self._lanes.move_to_end(topic)
        return lane

    def _put(self, lane: _Lane, packet: Packet) -> bool:
        """False: there is no room."""
        try:
            self.ids.add(lane.publish(self._bus, packet, 0))
        except errors.Full:
            return False
        return True

    def _send(self) -> None:
        """The thread. It goes around the topics where something waits, so that one subscriber that
        has stalled does not hold up the others."""
        for turn in itertools.count():
            with self._changed:
                lanes = [lane for lane in self._lanes.values() if lane.waiting]
                if not lanes or self._ended:
                    self._sender = None
                    self._changed.notify_all()
                    return
            if not sum(self._send_waiting(lane) for lane in lanes):
                self._wait_room(lanes[turn % len(lanes)])

    def _send_waiting(self, lane: _Lane) -> int:
        """Returns how many have gone."""
        count = 0
        while True:
            with self._changed:
                if not lane.waiting or self._ended:
                    return count
                packet, info = lane.waiting[0]
                try:
                    if not self._put(lane, packet):
                        return count
                    self._published(packet, info)
                except errors.Error as error:
                    self._failed(error, packet, info)
                    if isinstance(error, errors.ClosedError):
                        self._ended = True  # what waits is for the next connection
                        return count
                lane.waiting.popleft()
            count += 1

    def _wait_room(self, lane: _Lane) -> None:
        """Until there is room in this topic, but not for long: others may have some before."""
        if lane.publisher is not None and lane.waiting:
            try:
                packet, info = lane.waiting[0]
                lane.publisher.publish(packet.data, packet.tag, _ROOM_SECONDS)
                self.ids.add(lane.publisher.id)
            except errors.Error:
                return  # Full; any other one comes again in _send_waiting()
            with self._changed:
                lane.waiting.popleft()
                self._published(packet, info)


def publish_once(bus: _native.Connection, packet: Packet, timeout: float) -> None:
    """Publish one message, with its publishers opened for it. Any Error; Full: no room."""
    size = max(len(packet.data), 1)
    if packet.retain:
        topic = RETAINED + packet.topic
        with _native.Publisher(
            bus, topic, depth=2, pins=1, message_bytes=size, history=1
        ) as publisher:
            publisher.publish(packet.data, packet.tag, timeout)
    with _native.Publisher(bus, packet.topic, depth=2, pins=1, message_bytes=size) as publisher:
        publisher.publish(packet.data, packet.tag, timeout)
