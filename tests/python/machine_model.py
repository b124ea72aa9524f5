"""What test_machine.py expects of the bus: for each topic the messages of its publishers in order,
and for each subscriber what it has had of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from machine_side import Got
from shmps import _native

DEAD_MAX = 4  # publishers that have gone, of which a topic keeps what nobody has read


@dataclass
class Message:
    data: bytes
    tag: int
    order: int  # among all of the bus


@dataclass
class Ring:
    """A publisher goes on in a larger one when it has to grow."""

    start: int
    low: int = 0  # what comes before may be overwritten; nothing else is ever lost


@dataclass
class Publisher:
    key: int
    side: Any
    topic: str
    id: int
    depth: int
    room: int  # the largest message that needs no larger ring
    options: dict[str, Any]
    open: bool = True
    messages: list[Message] = field(default_factory=list)
    rings: list[Ring] = field(default_factory=lambda: [Ring(0)])

    @property
    def head(self) -> int:
        return len(self.messages)

    @property
    def batch(self) -> int:
        return max(self.depth // 8, 1)

    def may_pass(self, n: int) -> None:
        """It looks for room for n messages: how far may the oldest be overwritten?"""
        ring = self.rings[-1]
        passed = min(self.head, self.head + min(n, self.depth) - self.depth + self.batch)
        ring.low = max(ring.low, passed)

    def may_be_lost(self, seq: int) -> bool:
        return seq < max(r.low for r in self.rings if r.start <= seq)

    def last_of_rings(self) -> set[int]:
        """What a subscriber that wants the latest only may get."""
        ends = [ring.start for ring in self.rings[1:]] + [self.head]
        return {end - 1 for end in ends}


@dataclass
class Subscriber:
    key: int
    side: Any
    filter: str
    options: dict[str, Any]
    begin: dict[int, int]  # what was published when it was opened, by publisher
    wanted: dict[str, int]  # of the history of a topic, at most
    history: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # where it is sure
    reached: dict[int, int] = field(default_factory=dict)  # the next one, where it had any
    got_history: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    received: int = 0
    lost: int = 0  # as told with messages
    held: set[int] = field(default_factory=set)  # the numbers of its messages in `kept`

    @property
    def delivery(self) -> str:
        return str(self.options["delivery"])

    def begins(self, publisher: Publisher) -> int:
        return self.begin.get(publisher.id, 0)

    def next_of(self, publisher: Publisher) -> int:
        return max(self.reached.get(publisher.id, 0), self.begins(publisher))


class Model:
    def __init__(self) -> None:
        self.publishers: dict[int, Publisher] = {}  # by id; also those that have gone
        self.subscribers: dict[int, Subscriber] = {}
        self.kept: dict[int, tuple[Any, bytes]] = {}  # by number: in which process, and what
        self.count = 0

    def live(self) -> list[Publisher]:
        return [p for p in self.publishers.values() if p.open]

    def of_topics(self, filter: str) -> list[Publisher]:
        return [p for p in self.publishers.values() if _native.filter_matches(filter, p.topic)]

    def of_topic(self, topic: str) -> list[Publisher]:
        return [p for p in self.publishers.values() if p.topic == topic]

    def listeners(self, topic: str) -> list[Subscriber]:
        return [s for s in self.subscribers.values() if _native.filter_matches(s.filter, topic)]

    def gone_may_be_forgotten(self, publisher: Publisher) -> bool:
        dead = [p for p in self.of_topic(publisher.topic) if not p.open]
        return not publisher.open and len(dead) > DEAD_MAX

    # ---- publishing

    def is_full(self, publisher: Publisher, n: int) -> tuple[bool, bool]:
        """Is there no room for n messages: certainly, possibly?"""
        certainly = possibly = False
        start = publisher.rings[-1].start
        for subscriber in self.listeners(publisher.topic):
            if subscriber.delivery != "reliable":
                continue
            most = least = subscriber.next_of(publisher)
            if publisher.id in subscriber.begin and publisher.id not in subscriber.reached:
                least -= subscriber.wanted.get(publisher.topic, 0)
            behind = publisher.head + n - publisher.depth
            certainly |= behind > max(most, start)
            possibly |= behind > max(least, start)
        return certainly, possibly

    def published(self, publisher: Publisher, data: bytes, tag: int) -> None:
        self.count += 1
        publisher.messages.append(Message(data, tag, self.count))

    # ---- subscribing

    def subscribed(
        self, key: int, side: Any, filter: str, options: dict[str, Any]
    ) -> Subscriber:
        begin = {p.id: p.head for p in self.of_topics(filter)}
        subscriber = Subscriber(key, side, filter, options, begin, {})
        asked = options["history"]
        for topic in {p.topic for p in self.of_topics(filter)}:
            publishers = self.of_topic(topic)
            of_topic = max(p.options["history"] for p in publishers)
            wanted = 0 if asked == 0 else max(asked or 0, of_topic)
            subscriber.wanted[topic] = wanted
            sure = all(p.open and p.head <= p.depth and len(p.rings) == 1 for p in publishers)
            times = all(p.options["timestamps"] for p in publishers)
            if sure and (times or len(publishers) == 1) and (asked or asked == 0):
                all_of_it = [
                    (m.order, p.id, i) for p in publishers for i, m in enumerate(p.messages)
                ]
                newest = sorted(all_of_it)[-wanted:] if wanted else []
                subscriber.history[topic] = [(id, seq) for _, id, seq in newest]
        self.subscribers[key] = subscriber
        return subscriber

    def received(self, s: Subscriber, got: Got) -> None:
        """It may receive this now."""
        p = self.publishers[got.publisher]
        assert p.topic == got.topic
        assert _native.filter_matches(s.filter, got.topic)
        assert got.seq < p.head
        message = p.messages[got.seq]
        assert got.data == message.data
        assert got.tag == message.tag
        assert (got.time_ns > 0) == p.options["timestamps"]
        assert not got.evicted
        assert got.history == (got.seq < s.begins(p))
        first = s.reached.get(p.id, got.seq if got.history else s.begins(p))
        assert got.seq >= first
        if s.delivery == "latest":
            assert got.seq in p.last_of_rings()
        else:
            self.may_be_skipped(s, p, range(first, got.seq))
        if got.history:
            of_topic = s.got_history.setdefault(got.topic, [])
            of_topic.append((p.id, got.seq))
            assert len(of_topic) <= s.wanted[got.topic]
        s.reached[p.id] = got.seq + 1
        s.received += 1
        s.lost += got.lost

    def may_be_skipped(self, s: Subscriber, p: Publisher, skipped: range) -> None:
        if skipped and not self.gone_may_be_forgotten(p):
            assert s.delivery == "lossy", f"{skipped} of {p.id} skipped: {s}"
            assert all(p.may_be_lost(seq) for seq in skipped), f"{skipped} of {p.id} lost: {p}"

    def emptied(self, s: Subscriber, received: int, lost: int) -> None:
        """There is nothing for it: so it has had all, and each loss is counted."""
        assert received == s.received
        assert s.lost <= lost
        published = history = 0
        for p in self.of_topics(s.filter):
            published += p.head - s.begins(p)
            if s.next_of(p) < p.head:
                self.may_be_skipped(s, p, range(s.next_of(p), p.head))
        history = sum(len(of_topic) for of_topic in s.got_history.values())
        if s.delivery == "latest":
            assert lost == 0
        else:
            unseen = sum(s.wanted.values()) - history
            assert 0 <= received + lost - published - history <= unseen
        for topic, expected in s.history.items():
            had = s.got_history.get(topic, [])
            if s.delivery != "latest":
                assert [m for m in expected if m in had] == had
                for id, seq in set(expected) - set(had):
                    p = self.publishers[id]
                    self.may_be_skipped(s, p, range(seq, seq + 1))
