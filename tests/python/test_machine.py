"""Whatever programs do, in any order: a state machine of Hypothesis against the real library in
two processes, with a pubsubd that dies now and then. machine_model.py says what is right.

    SHMPS_EXAMPLES=5000 build/venv/bin/pytest tests/python/test_machine.py

does more than the fixed examples of each run, others each time; SHMPS_SEED repeats them.
"""

from __future__ import annotations

import os
import random
import sys
from contextlib import ExitStack, nullcontext, suppress
from typing import Any

import hypothesis
import pytest
from harness import Bus, private_bus
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from machine_model import Model, Publisher, Ring, Subscriber
from machine_side import KEEP, Answer, Remote, Side

EXAMPLES = 80
STEPS = 40
TOPICS = ["a", "a/b", "d"]
FILTERS = [*TOPICS, "#", "a/#", "a/+"]
BORDERS = [0, 1, 31, 32, 33, 224, 225, 255, 256, 257, 4095, 4096, 4097, 8192, 8193, 20000]
SMALL = 256  # what has no more bytes is not held

sizes = st.sampled_from(BORDERS) | st.integers(0, 300) | st.integers(0, 20000)
which = st.integers(0, 7)
tags = st.sampled_from([0, 1, 2**64 - 1])
publisher_options = st.fixed_dictionaries(
    {
        "depth": st.sampled_from([0, 2, 4, 8, 16]),
        "message_bytes": st.sampled_from([0, 0, 0, 0, 0, 64, 4096]),
        "history": st.sampled_from([0, 0, 1, 5]),
        "timestamps": st.booleans(),
        "pins": st.sampled_from([0, 1]),
    }
)
subscriber_options = st.fixed_dictionaries(
    {
        "delivery": st.sampled_from(["lossy", "latest", "reliable", "reliable"]),
        "history": st.sampled_from([None, 0, 0, 1, 3, 20]),
        "pins": st.sampled_from([0, 1, 9]),
    }
)
Opening = tuple[int, str, dict[str, Any]]
publishers = st.tuples(which, st.sampled_from(TOPICS), publisher_options)
subscribers = st.tuples(which, st.sampled_from(FILTERS), subscriber_options)
keeping = st.dictionaries(st.integers(0, 3), st.sampled_from(sorted(KEEP)), max_size=3)


class Rules(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.bus: Bus = self.stack.enter_context(private_bus())
        self.sides: list[Any] = [Side(), None]
        self.model = Model()
        self.number = 0
        self.daemon = True
        self.settled = True  # pubsubd has seen who has gone

    # ---- helpers

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def data(self, size: int) -> bytes:
        word = b"%d," % self.next_number()
        return (word * (size // len(word) + 1))[:size]

    def side(self, i: int) -> Any:
        if self.sides[i % 2] is None:
            self.sides[1] = Remote()
        return self.sides[i % 2]

    def publisher(self, i: int) -> Publisher:
        live = self.model.live()
        return live[i % len(live)]

    def subscriber(self, i: int) -> Subscriber:
        return list(self.model.subscribers.values())[i % len(self.model.subscribers)]

    def ok(self, side: Any, *call: Any) -> Any:
        how, result = side.call(*call)
        assert how == "ok", f"{call[0]}: {how}: {result}"
        return result

    def has_publishers(self) -> bool:
        return bool(self.model.live())

    def has_subscribers(self) -> bool:
        return bool(self.model.subscribers)

    # ---- opening and closing

    @initialize(
        publishers=st.lists(publishers, min_size=2, max_size=2),
        subscribers=st.lists(subscribers, min_size=3, max_size=3),
    )
    def first(self, publishers: list[Opening], subscribers: list[Opening]) -> None:
        for opening in publishers:
            self.open_publisher(opening)
        for opening in subscribers:
            self.open_subscriber(opening)

    @rule(opening=publishers)
    def open_publisher(self, opening: Opening) -> None:
        where, topic, options = opening
        if not self.daemon and self.sides[where % 2] is None:
            return
        key, side = self.next_number(), self.side(where)
        answer = side.call("open_publisher", key, topic, options)
        if not self.daemon:
            assert answer[0] == "NoDaemonError", answer
            return
        assert answer[0] == "ok", answer
        depth, room = self.ok(side, "size_of", key)
        p = Publisher(key, side, topic, answer[1], depth, room, options)
        assert p.id not in self.model.publishers
        self.model.publishers[p.id] = p

    @rule(opening=subscribers)
    def open_subscriber(self, opening: Opening) -> None:
        where, filter, options = opening
        if not self.daemon and self.sides[where % 2] is None:
            return
        key, side = self.next_number(), self.side(where)
        answer = side.call("open_subscriber", key, filter, options)
        if not self.daemon:
            assert answer[0] == "NoDaemonError", answer
            return
        assert answer[0] == "ok", answer
        self.model.subscribed(key, side, filter, options)

    @rule(i=which, what=st.sampled_from(["publisher", "subscriber", "all"]))
    def close(self, i: int, what: str) -> None:
        if what == "publisher" and self.model.live():
            p = self.publisher(i)
            self.ok(p.side, "close_publisher", p.key)
            p.open = False
        elif what == "subscriber" and self.model.subscribers:
            s = self.subscriber(i)
            self.ok(s.side, "close_subscriber", s.key)
            self.unsubscribed(s)
        elif what == "all" and self.daemon:
            side = self.side(i)
            self.ok(side, "close_all")
            self.gone(side)

    @precondition(lambda self: self.daemon)
    @rule(opening=publishers, n=st.integers(3, 6), size=sizes)
    def come_and_go(self, opening: Opening, n: int, size: int) -> None:
        """Publishers, one after the other; of those that have gone, a topic keeps a few."""
        for i in range(n):
            self.open_publisher(opening)
            place = len(self.model.live()) - 1
            self.publish(place, size, i, 2)
            self.close(place, "publisher")

    def unsubscribed(self, s: Subscriber) -> None:
        del self.model.subscribers[s.key]
        self.settled = self.settled and self.daemon

    def gone(self, side: Any) -> None:
        for p in self.model.live():
            p.open = p.open and p.side is not side
        for s in list(self.model.subscribers.values()):
            if s.side is side:
                self.unsubscribed(s)

    # ---- publishing

    def prepared(self, p: Publisher, size: int, n: int) -> str:
        """What publishing n messages of up to this size will say; the publisher grows for it."""
        if size > p.room:
            if p.options["message_bytes"]:
                return "SizeError"
            if not self.daemon:
                return "NoDaemonError"
            p.rings.append(Ring(p.head, p.head))
            p.room = -1
        p.may_pass(n)
        certainly, possibly = self.model.is_full(p, n)
        if certainly and self.settled:
            return "Full"
        return "ok or Full" if possibly or not self.settled else "ok"

    def compare(self, p: Publisher, answer: Answer, expected: str) -> bool:
        assert answer[0] in expected.split(" or "), f"{answer}, expected: {expected}"
        if p.room < 0:
            p.depth, p.room = self.ok(p.side, "size_of", p.key)
        return answer[0] == "ok"

    @precondition(has_publishers)
    @rule(i=which, size=sizes, tag=tags, times=st.sampled_from([1, 1, 1, 5, 20]))
    def publish(self, i: int, size: int, tag: int, times: int) -> None:
        p = self.publisher(i)
        for _ in range(times):
            data = self.data(size)
            expected = self.prepared(p, size, 1)
            if not self.compare(p, p.side.call("publish", p.key, data, tag), expected):
                return
            self.model.published(p, data, tag)

    @precondition(has_publishers)
    @rule(i=which, sizes=st.lists(sizes, max_size=20), exactly=st.booleans())
    def publish_batch(self, i: int, sizes: list[int], exactly: bool) -> None:
        p = self.publisher(i)
        batch = [self.data(size) for size in sizes]
        if not batch:
            assert self.ok(p.side, "publish_batch", p.key, [], exactly) == 0
            return
        expected = self.prepared(p, max(sizes), len(sizes) if exactly else 1)
        grows = p.room < 0
        if exactly and len(sizes) > p.depth and expected not in ("SizeError", "NoDaemonError"):
            expected = "ok or InvalidError" if grows else "InvalidError"
        room = sum(not self.model.is_full(p, n + 1)[1] for n in range(len(batch)))
        p.may_pass(len(batch))
        answer = p.side.call("publish_batch", p.key, batch, exactly)
        published = self.compare(p, answer, expected)
        assert not (grows and exactly) or published == (len(batch) <= p.depth)
        if not published:
            return
        n = answer[1]
        assert n == len(batch) if exactly else room <= n <= len(batch)
        for data in batch[:n]:
            self.model.published(p, data, 0)
        p.may_pass(1)
        if n < len(batch) and self.settled:
            assert self.model.is_full(p, 1)[1]

    @precondition(has_publishers)
    @rule(i=which, room=sizes, part=st.sampled_from([0, 1, 2, 3]), tag=tags, discard=st.booleans())
    def loan(self, i: int, room: int, part: int, tag: int, discard: bool) -> None:
        p = self.publisher(i)
        data = self.data(room * part // 3)
        expected = self.prepared(p, room, 1)
        answer = p.side.call("loan", p.key, room, data, tag, discard)
        if self.compare(p, answer, expected) and not discard:
            self.model.published(p, data, tag)

    # ---- taking

    @precondition(has_subscribers)
    @rule(i=which, how=st.sampled_from(["try_take", "take", "batch"]), n=sizes, keep=keeping)
    def take(self, i: int, how: str, n: int, keep: dict[int, str]) -> None:
        s = self.subscriber(i)
        numbered = {k: (self.next_number(), what) for k, what in keep.items()}
        messages = self.ok(s.side, "take", s.key, how, n + 1, numbered)
        assert len(messages) <= (n + 1 if how == "batch" else 1)
        for k, got in enumerate(messages):
            self.model.received(s, got)
            if k in numbered:
                number, what = numbered[k]
                self.model.kept[number] = s.side, got.data[1:] if what == "part" else got.data
                s.held |= {number} if len(got.data) > SMALL else set()
        received, lost, held = self.ok(s.side, "counts", s.key)
        assert held == len(s.held & self.model.kept.keys())
        if messages and how != "batch":
            assert s.lost == lost
        if len(messages) < (n + 1 if how == "batch" else 1):
            self.model.emptied(s, received, lost)

    @precondition(has_subscribers)
    @rule(i=which)
    def take_all(self, i: int) -> None:
        self.take(i, "batch", 100000, {})

    # ---- what is kept

    def look_at_kept(self) -> None:
        for side in self.sides:
            expected = {n: data for n, (where, data) in self.model.kept.items() if where is side}
            if side is not None:
                assert self.ok(side, "contents") == expected

    @precondition(lambda self: self.model.kept)
    @rule(i=which)
    def let_go(self, i: int) -> None:
        self.look_at_kept()
        number = sorted(self.model.kept)[i % len(self.model.kept)]
        side, _ = self.model.kept.pop(number)
        self.ok(side, "let_go", number)

    @precondition(lambda self: self.model.kept)
    @rule(i=which)
    def fork(self, i: int) -> None:
        self.forked(list(self.model.kept.values())[i % len(self.model.kept)][0])

    def forked(self, side: Any) -> None:
        expected = {n: data for n, (where, data) in self.model.kept.items() if where is side}
        assert self.ok(side, "fork") == expected

    # ---- deaths

    @rule(worker=st.booleans())
    def kill(self, worker: bool) -> None:
        if worker and self.sides[1] is not None:
            self.kill_worker()
        elif not worker and self.daemon:
            self.bus.kill()
            self.daemon = False

    @precondition(lambda self: not self.daemon)
    @rule()
    def start_pubsubd(self) -> None:
        self.bus.start()
        self.daemon = True
        for side in self.sides:
            assert side is None or self.ok(side, "alive")
        self.settle()

    def kill_worker(self) -> None:
        side, self.sides[1] = self.sides[1], None
        side.kill()
        self.gone(side)
        self.model.kept = {n: k for n, k in self.model.kept.items() if k[0] is not side}
        self.settled = False
        if self.daemon:
            self.settle()

    def settle(self) -> None:
        """Wait until pubsubd has seen who has gone."""
        for p in self.model.live():
            while self.ok(p.side, "listeners", p.key) != len(self.model.listeners(p.topic)):
                pass
        self.settled = True

    # ---- the end

    def teardown(self) -> None:
        failed = sys.exc_info()[0] is not None
        try:
            if not failed:
                self.finish()
        finally:
            if isinstance(self.sides[1], Remote) and self.sides[1].process.poll() is None:
                self.sides[1].kill()
            self.sides.clear()
            self.model = Model()
            with suppress(AssertionError) if failed else nullcontext():
                self.stack.close()

    def finish(self) -> None:
        """All get what there is; nobody has failed, and nothing is left."""
        self.look_at_kept()
        for i in range(len(self.model.subscribers)):
            self.take(i, "batch", 100000, {0: "payload", 1: "array", 2: "message", 3: "part"})
        if not self.daemon:
            self.start_pubsubd()
        for side in {id(side): side for side, _ in self.model.kept.values()}.values():
            self.forked(side)
        for side in self.sides:
            if side is not None:
                self.ok(side, "close_all")
        self.look_at_kept()
        for side in self.sides:
            if side is not None:
                side.end()


@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_whatever_programs_do() -> None:
    examples = os.environ.get("SHMPS_EXAMPLES")
    machine: Any = Rules
    if examples:
        number = int(os.environ.get("SHMPS_SEED", random.getrandbits(32)))
        print(f"SHMPS_SEED={number} SHMPS_EXAMPLES={examples} repeats this")
        machine = hypothesis.seed(number)(Rules)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(examples or EXAMPLES),
            stateful_step_count=STEPS,
            derandomize=not examples,
            database=None,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
