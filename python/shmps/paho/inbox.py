"""What a client receives, in the order in which it was published: messages of its subscriptions,
and the answers that a broker would have sent."""

from __future__ import annotations

import heapq
import itertools
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from .. import _native, errors
from ..records import Delivery
from .matcher import precedence, topic_matches_sub
from .messages import RETAIN, RETAINED, MQTTMessage, unpack
from .properties import SubscribeOptions

# What is taken from a subscription before the others have their turn.
_TAKE_MAX = 256

# Of how many publishers it is known what has come of them.
_SEEN_MAX = 4096


@dataclass
class Subscription:
    """One filter of a client. seen: the newest sequence that has come of each publisher."""

    filter: str
    options: SubscribeOptions
    identifiers: list[int]
    subscriber: _native.Subscriber
    seen: dict[int, int] = field(default_factory=dict)

    @property
    def delivery(self) -> Delivery:
        return _delivery(self.options)


def _delivery(options: SubscribeOptions) -> Delivery:
    return "reliable" if options.QoS else "lossy"


class Entry(NamedTuple):
    """Something to be told, sorted by when it happened (time.monotonic_ns())."""

    time_ns: int
    number: int
    tell: Callable[[], None]
    is_message: bool


class Inbox:
    """Any thread may subscribe, unsubscribe and post; one at a time collects and takes.

    deliver(message) is put into the order for each message that is to be delivered; trouble(text)
    is called where messages were lost or could not be read. own: ids of this client's publishers.
    v5: as in MQTT 5 each subscription delivers a message that several match; before, only the
    first by precedence() does."""

    def __init__(
        self,
        bus: _native.Connection,
        v5: bool,
        own: Set[int],
        deliver: Callable[[MQTTMessage], None],
        trouble: Callable[[str], None],
    ) -> None:
        self._bus = bus
        self._v5 = v5
        self._own = own
        self._deliver = deliver
        self._trouble = trouble
        self._lock = threading.RLock()
        self._subscriptions: dict[str, Subscription] = {}
        self._seen: dict[int, int] = {}
        self._retained: dict[str, int] = {}  # topic: tag of what was delivered as retained
        self._entries: list[Entry] = []
        self._numbers = itertools.count()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._epoll.register(self._bell, select.EPOLLIN)
        # Tells of the end of the bus also who subscribes to nothing.
        self._watch = _native.Subscriber(bus, "$nothing/#", history=0)
        self._epoll.register(self._watch.fileno(), select.EPOLLIN)
        self._waiting = 0
        self._closed = False

    def fileno(self) -> int:
        """Readable while there is something to collect."""
        return self._epoll.fileno()

    def wait(self, timeout: float | None) -> None:
        """Until fileno() is readable, or the time is over, or another thread closes it."""
        with self._lock:
            if self._closed:
                return
            self._waiting += 1
        try:
            self._epoll.poll(timeout, 1)
        finally:
            with self._lock:
                self._waiting -= 1
                self._close_descriptors()

    def wake(self) -> None:
        """End a wait, now or the next one."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._bell, 1)

    def post(self, tell: Callable[[], None]) -> None:
        """Put an answer into the order, as of now."""
        with self._lock:
            self._push(time.monotonic_ns(), tell, False)
            self.wake()

    def subscribe(
        self,
        wanted: list[tuple[str, SubscribeOptions]],
        identifiers: list[int],
        answer: Callable[[], None],
    ) -> None:
        """Open or change subscriptions. Retained messages follow the answer. Any Error."""
        with self._lock:
            retained = []
            for sub, options in wanted:
                is_new = sub not in self._subscriptions
                self._open(sub, options, identifiers)
                if options.retainHandling == 0 or (is_new and options.retainHandling == 1):
                    retained.append(self._subscriptions[sub])
            found = [(sub, message) for sub in retained for message in self._find_retained(sub)]
            self.post(answer)
            for subscription, message in found:
                self._accept_retained(subscription, message)

    def unsubscribe(self, subs: list[str], answer: Callable[[list[bool]], None]) -> None:
        """What was published before this is still delivered, before the answer, which gets whether
        there were such subscriptions."""
        with self._lock:
            known = [self._close(self._subscriptions.pop(sub, None)) for sub in subs]
            self.post(lambda: answer(known))

    def collect(self) -> int:
        """Take what there is; what of it take(now) may give is all that was published until then,
        as `now` is returned. ClosedError: the bus has ended."""
        with self._lock:
            try:
                os.eventfd_read(self._bell)
            except BlockingIOError:
                pass
            # All that was published until now is found below. What was published later may be
            # found while something before it, in a ring that was looked at already, is not:
            # that waits for the next time.
            now = time.monotonic_ns()
            self._watch.try_take()
            for subscription in list(self._subscriptions.values()):
                now = min(now, self._collect(subscription) or now)
            return now

    def take(self, now: int) -> Entry | None:
        """The next that happened until `now`; None: no more."""
        with self._lock:
            if self._entries and self._entries[0].time_ns <= now:
                return heapq.heappop(self._entries)
            if self._entries:
                self.wake()
            return None

    def close_subscriptions(self) -> None:
        """Receive no more, and forget the messages that were not taken."""
        with self._lock:
            for subscription in self._subscriptions.values():
                self._epoll.unregister(subscription.subscriber.fileno())
                subscription.subscriber.close()
            self._subscriptions.clear()
            self._entries = [entry for entry in self._entries if not entry.is_message]
            heapq.heapify(self._entries)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self.close_subscriptions()
                self._watch.close()
                self.wake()
                self._closed = True
                self._close_descriptors()

    def _close_descriptors(self) -> None:
        """Once nobody waits for them: what closes beneath a wait does not end it."""
        if self._closed and not self._waiting:
            self._epoll.close()
            os.close(self._bell)

    def _push(self, time_ns: int, tell: Callable[[], None], is_message: bool) -> None:
        heapq.heappush(self._entries, Entry(time_ns, next(self._numbers), tell, is_message))

    def _open(self, sub: str, options: SubscribeOptions, identifiers: list[int]) -> None:
        """Where a subscriber is replaced or joined by another, what the old ones have received by
        then is collected, so that nothing is missed or comes twice."""
        old = self._subscriptions.get(sub)
        if old and old.delivery == _delivery(options):
            old.options, old.identifiers = options, identifiers
            return
        subscriber = _native.Subscriber(self._bus, sub, delivery=_delivery(options), history=0)
        for other in self._subscriptions.values():
            self._collect_all(other)
        self._close(old)
        seen = old.seen if old else {}
        self._subscriptions[sub] = Subscription(sub, options, identifiers, subscriber, seen)
        in_order = sorted(self._subscriptions.items(), key=lambda item: precedence(item[0]))
        self._subscriptions = dict(in_order)
        self._epoll.register(subscriber.fileno(), select.EPOLLIN)

    def _close(self, subscription: Subscription | None) -> bool:
        if subscription is None:
            return False
        self._collect_all(subscription)
        self._epoll.unregister(subscription.subscriber.fileno())
        subscription.subscriber.close()
        return True

    def _collect(self, subscription: Subscription) -> int:
        """Returns 0 when there is no more, else when the last one was published."""
        last = 0
        for _ in range(_TAKE_MAX):
            try:
                message = subscription.subscriber.try_take()
            except errors.ClosedError:
                raise
            except errors.Error as error:
                self._trouble(str(error))
                return 0
            if message is None:
                return 0
            last = message.time_ns
            self._accept(subscription, message)
        return last

    def _collect_all(self, subscription: Subscription) -> None:
        """All that was published until now."""
        now = time.monotonic_ns()
        while 0 < self._collect(subscription) <= now:
            pass

    def _accept(self, subscription: Subscription, message: _native.Message) -> None:
        topic = message.topic
        if not topic_matches_sub(subscription.filter, topic):
            return
        seen = subscription.seen if self._v5 else self._seen
        if seen.get(message.publisher, -1) >= message.seq:
            return  # it came by another subscription
        if message.lost:
            self._trouble(f"{message.lost} messages lost before one of {topic!r}")
        if message.evicted:
            self._trouble(f"{topic!r}: too slow for longer than its patience: may lose now")
        if len(seen) >= _SEEN_MAX and message.publisher not in seen:
            del seen[next(iter(seen))]
        seen[message.publisher] = message.seq
        if subscription.options.noLocal and message.publisher in self._own:
            return
        if message.tag & RETAIN and self._retained.get(topic) == message.tag:
            return  # it was delivered as the retained one just now
        self._push_message(subscription, message, message.time_ns, is_retained=False)

    def _accept_retained(self, subscription: Subscription, message: _native.Message) -> None:
        self._retained[message.topic.removeprefix(RETAINED)] = message.tag
        self._push_message(subscription, message, time.monotonic_ns(), is_retained=True)

    def _push_message(
        self, source: Subscription, message: _native.Message, time_ns: int, is_retained: bool
    ) -> None:
        out = unpack(message, self._v5)
        if out is None or (is_retained and not out.payload):
            return
        if is_retained:
            out.topic = out.topic.removeprefix(RETAINED).encode()
        subscription = source if self._v5 or is_retained else self._first(source, out.topic)
        out.qos = min(out.qos, subscription.options.QoS)
        out.retain = is_retained or (out.retain and subscription.options.retainAsPublished)
        if out.properties is not None and subscription.identifiers:
            out.properties.SubscriptionIdentifier = subscription.identifiers
        self._push(time_ns, lambda: self._deliver(out), True)

    def _first(self, source: Subscription, topic: str) -> Subscription:
        """Whose qos a message gets."""
        if len(self._subscriptions) == 1:
            return source
        matching = [s for s in self._subscriptions.values() if topic_matches_sub(s.filter, topic)]
        return min(matching, key=lambda s: precedence(s.filter), default=source)

    def _find_retained(self, subscription: Subscription) -> Iterator[_native.Message]:
        """In the order in which they were published. Only looks, so it makes no topics."""
        found = []
        with _native.Subscriber(
            self._bus, RETAINED + subscription.filter, delivery="observe", history=1
        ) as kept:
            while message := kept.try_take():
                topic = message.topic.removeprefix(RETAINED)
                if message.history and topic_matches_sub(subscription.filter, topic):
                    found.append(message)
        newest = {message.topic: message for message in sorted(found, key=lambda m: m.time_ns)}
        return iter(newest.values())
