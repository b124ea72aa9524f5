"""Threads share publishers and subscribers; waits let others run and are ended by signals; forked
children keep what their parent's messages held."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver, resource_tracker

import pytest
from harness import Bus
from shmps import _native, errors

LARGE = 5000


@pytest.fixture
def bus(bus_env: Bus) -> Iterator[_native.Connection]:
    with _native.Connection() as connection:
        yield connection


def is_asleep(thread: threading.Thread) -> bool:
    """It sleeps in a system call, so it has let the interpreter go. Field 3 of proc(5)'s stat."""
    with open(f"/proc/self/task/{thread.native_id}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"


def started(work: Callable[[], object]) -> threading.Thread:
    """Start a thread; it waits."""
    thread = threading.Thread(target=work)
    thread.start()
    while not is_asleep(thread):
        pass
    return thread


def test_waiting_lets_other_threads_run(bus: _native.Connection) -> None:
    subscriber = _native.Subscriber(bus, "a", wait="sleep")
    got: list[bytes] = []
    thread = started(lambda: got.append(subscriber.take(30).copy()))
    publisher = _native.Publisher(bus, "a")  # while it waits
    publisher.publish(b"hi")
    thread.join()
    assert got == [b"hi"]


def test_calls_of_several_threads_take_turns(bus: _native.Connection) -> None:
    """Four publish through one publisher, four take from one subscriber: nothing is lost, twice or
    torn, and each sees its share in order."""
    publisher = _native.Publisher(bus, "a", depth=64)
    subscriber = _native.Subscriber(bus, "a", delivery="reliable")
    threads, each = 4, 2000

    def publish(who: int) -> None:
        for i in range(each):
            publisher.publish(b"%d %d " % (who, i) + b"x" * (i % 3 * 300))

    def take(_: int) -> list[bytes]:
        taken = []
        try:
            while True:
                taken.append(subscriber.take(2).copy())
        except errors.Timeout:
            return taken

    with ThreadPoolExecutor(2 * threads) as pool:
        takers = [pool.submit(take, i) for i in range(threads)]
        list(pool.map(publish, range(threads)))
        shares = [taker.result() for taker in takers]
    seen = []
    for share in shares:
        parts = [message.split(b" ") for message in share]
        numbers = [(int(who), int(i)) for who, i, _ in parts]
        for _, i, rest in parts:
            assert rest == b"x" * (int(i) % 3 * 300)
        for who in range(threads):
            of_one = [i for w, i in numbers if w == who]
            assert of_one == sorted(of_one)
        seen += numbers
    assert sorted(seen) == [(who, i) for who in range(threads) for i in range(each)]


def test_others_get_their_turn_while_one_waits(bus: _native.Connection) -> None:
    subscriber = _native.Subscriber(bus, "a", wait="sleep")
    thread = started(lambda: list(subscriber))
    assert subscriber.try_take() is None
    assert subscriber.stats().received == 0
    assert subscriber.fileno() >= 0
    with pytest.raises(errors.Timeout):
        subscriber.take(0.05)
    subscriber.close()
    thread.join()


def test_close_ends_the_waits_of_other_threads(bus: _native.Connection) -> None:
    full = _native.Publisher(bus, "b", depth=2)
    blocker = _native.Subscriber(bus, "b", delivery="reliable")
    full.publish_batch([b"1", b"2"])
    subscriber = _native.Subscriber(bus, "a", wait="sleep")
    outcomes: list[object] = []

    def note(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                outcomes.append(call())
            except errors.Error as error:
                outcomes.append(type(error))

        return run

    waits: list[Callable[[], object]] = [
        lambda: list(subscriber),
        lambda: full.publish(b"3"),
        lambda: full.wait_subscribers(9),
    ]
    threads = [started(note(wait)) for wait in waits]
    full.close()  # before the one that it waits for
    bus.close()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == sorted(map(str, [[], *[errors.ClosedError] * 2]))
    assert blocker.closed


def test_a_bus_is_closed_while_a_subscriber_is(bus: _native.Connection) -> None:
    subscriber = _native.Subscriber(bus, "a", wait="sleep")
    waiting = started(lambda: list(subscriber))
    closing = started(subscriber.close)
    bus.close()
    closing.join()
    waiting.join()


def test_who_waits_for_events_keeps_no_messages_back(bus: _native.Connection) -> None:
    subscriber, publisher = _native.Subscriber(bus, "a"), _native.Publisher(bus, "a")
    subscriber.event()

    def wait() -> None:
        with pytest.raises(errors.ClosedError):
            subscriber.event()

    thread = started(wait)
    publisher.publish_batch([b"1", b"2", b"3"])
    first = subscriber.try_take()
    assert first is not None and first.copy() == b"1"
    assert [message.copy() for message in subscriber.take_batch(2, timeout=0)] == [b"2", b"3"]
    subscriber.close()
    thread.join()


def test_a_publisher_that_others_use_is_not_full(bus: _native.Connection) -> None:
    publisher = _native.Publisher(bus, "a")
    large, done = b"x" * (4 << 20), threading.Event()

    def publish() -> None:
        while not done.is_set():
            publisher.publish(large)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        for _ in range(100):
            publisher.publish(b"y", timeout=0)
    finally:
        done.set()
        thread.join()


def test_a_view_taken_while_a_loan_waits_for_its_turn(bus: _native.Connection) -> None:
    """By the handler of a signal. Either it comes too late, or nothing is published."""
    publisher, subscriber = _native.Publisher(bus, "a"), _native.Subscriber(bus, "a")
    publisher.event()

    def wait() -> None:
        with pytest.raises(errors.ClosedError):
            publisher.event()

    views: list[memoryview | None] = []

    def look(*_: object) -> None:
        try:
            views.append(memoryview(loan))
        except BufferError:
            views.append(None)

    thread = started(wait)
    old = signal.signal(signal.SIGALRM, look)
    try:
        loan = publisher.loan(LARGE)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            loan.__exit__(None, None, None)
        except BufferError:
            pass
        while not views:
            pass
    finally:
        signal.signal(signal.SIGALRM, old)
    assert (subscriber.try_take() is None) == (views[0] is not None)
    views.clear()
    publisher.close()
    thread.join()


def test_others_run_while_a_ring_grows(bus_env: Bus) -> None:
    """pubsubd, which has to make it larger, does not answer."""
    with _native.Connection(timeout=0.5) as bus:
        publisher = _native.Publisher(bus, "a")
        outcomes: list[type[Exception]] = []

        def publish() -> None:
            for call in (lambda: publisher.publish(b"x" * LARGE), lambda: publisher.loan(LARGE)):
                try:
                    call()
                except errors.Error as error:
                    outcomes.append(type(error))

        bus_env.daemon.send_signal(signal.SIGSTOP)
        try:
            thread = started(publish)
            assert not outcomes
            thread.join()
        finally:
            bus_env.daemon.send_signal(signal.SIGCONT)
        assert outcomes == [errors.NoDaemonError] * 2
        publisher.publish(b"x" * LARGE)


AT_EXIT = """
import sys, threading, time
import shmps
bus = shmps.connect()
sub = bus.subscribe("a", wait="sleep")
threading.Thread(target=list, args=(sub,), daemon=True).start()
bus.on("a", print)
bus.loop_start()
class Owner:
    def __del__(self, call=getattr(*(bus, "close") if sys.argv[1] == "bus" else (sub, "close"))):
        call()
        print("closed", flush=True)
owner = Owner()
time.sleep(0.05)
"""


@pytest.mark.parametrize("what", ["bus", "subscriber"])
def test_the_end_of_the_interpreter_closes(bus_env: Bus, what: str) -> None:
    """Its daemon threads never come back from their waits."""
    program = [sys.executable, "-c", AT_EXIT, what]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, timeout=30, check=True)
    assert done.stdout == "closed\n"


def test_messages_let_go_while_another_thread_waits(bus: _native.Connection) -> None:
    """Their pins come back although the thread that waits has the subscriber."""
    subscriber = _native.Subscriber(bus, "a", wait="sleep")
    publisher = _native.Publisher(bus, "a")
    pins = subscriber.stats().pins
    publisher.publish_batch([b"x" * LARGE] * pins)
    held = subscriber.take_batch(pins)
    assert all(m.pinned for m in held)
    got: list[bool] = []
    thread = started(lambda: got.append(subscriber.take(30).pinned))
    held.clear()
    while subscriber.stats().held > 0:
        pass
    publisher.publish(b"y" * LARGE)
    thread.join()
    assert got == [True]


CTRL_C = """
import signal, sys, threading
import shmps
bus = shmps.connect()
sub = bus.subscribe("a", wait=sys.argv[2])
pub = bus.publisher("b", depth=2)
full = bus.subscribe("b", delivery="reliable")
pub.publish_batch([b"1", b"2"])
waits = {
    "take": sub.take,
    "iterate": lambda: list(sub),
    "batch": lambda: sub.take_batch(9),
    "publish": lambda: pub.publish(b"3"),
    "loan": lambda: pub.loan(1),
    "subscribers": lambda: pub.wait_subscribers(9),
    "event": sub.event,
}
try:
    print("waiting", flush=True)
    waits[sys.argv[1]]()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    pub.close()
    bus.close()
"""


@pytest.mark.parametrize(
    "wait", ["take", "iterate", "batch", "publish", "loan", "subscribers", "event"]
)
@pytest.mark.parametrize("how", ["default", "spin", "sleep"])
def test_ctrl_c(bus_env: Bus, wait: str, how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CTRL_C, wait, how], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
    assert process.returncode == 0


def in_child(work: Callable[[], None]) -> None:
    """Run it in a forked child, which must find nothing wrong."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_forked_child_is_told(bus: _native.Connection) -> None:
    publisher, subscriber = _native.Publisher(bus, "a"), _native.Subscriber(bus, "a")

    def child() -> None:
        calls: list[Callable[[], object]] = [
            lambda: publisher.publish(b""),
            lambda: _native.Publisher(bus, "b"),
            subscriber.try_take,
            subscriber.fileno,
            subscriber.stats,
            bus.daemon_alive,
        ]
        for call in calls:
            with pytest.raises(errors.ForkedError):
                call()
        subscriber.close()
        publisher.close()
        bus.close()
        with _native.Connection() as own:
            _native.Publisher(own, "a").publish(b"of the child")

    in_child(child)
    assert subscriber.take(10).copy() == b"of the child"
    publisher.publish(b"of the parent")
    assert subscriber.take(10).copy() == b"of the parent"


def test_a_forked_child_reads_what_was_held(bus: _native.Connection) -> None:
    """Also what shares a page with others, and while the parent goes on."""
    publisher = _native.Publisher(bus, "a", message_bytes=100000)
    subscriber = _native.Subscriber(bus, "a", pins=8)
    sizes = [300, 300, 1000, 5000, 70000, 10, 300, 4096, 100000, 300, 300, 300]
    data = [bytes([i]) * size for i, size in enumerate(sizes)]
    for each in data:
        publisher.publish(each)
    messages = subscriber.take_batch(100)
    assert {m.pinned for m in messages} == {True, False}
    views = [m.payload for m in messages]
    parent_may_go_on, child_may_look = os.pipe(), os.pipe()

    def child() -> None:
        os.write(parent_may_go_on[1], b".")
        os.read(child_may_look[0], 1)
        assert [bytes(view) for view in views] == data
        assert [message.copy() for message in messages] == data
        views.clear()
        messages.clear()

    def parent() -> None:
        os.read(parent_may_go_on[0], 1)
        views.clear()
        messages.clear()
        for _ in range(300):
            publisher.publish(b"\xff" * 100000)
        os.write(child_may_look[1], b".")

    pid = os.fork()
    if pid == 0:
        try:
            child()
            os._exit(0)
        finally:
            os._exit(1)
    parent()
    assert os.waitpid(pid, 0)[1] == 0
    for end in (*parent_may_go_on, *child_may_look):
        os.close(end)


LATE_HOOK = """
import os, threading
def between():
    if publisher.stats().messages == 0:
        publisher.publish(b"x" * 5000)
        thread.join()
os.register_at_fork(before=between)
import shmps
bus = shmps.connect()
subscriber, publisher = bus.subscribe("a"), bus.publisher("a")
held = []
thread = threading.Thread(target=lambda: held.append(subscriber.take(10)))
thread.start()
pid = os.fork()
if pid == 0:
    os._exit(held[0].copy() != b"x" * 5000)
assert held[0].pinned and os.waitpid(pid, 0)[1] == 0
"""


def test_what_is_taken_amid_a_fork_is_in_the_child(bus_env: Bus) -> None:
    subprocess.run([sys.executable, "-c", LATE_HOOK], timeout=30, check=True)


def test_a_forked_child_may_write_a_loan(bus: _native.Connection) -> None:
    """Which goes nowhere."""
    publisher, subscriber = _native.Publisher(bus, "a"), _native.Subscriber(bus, "a")

    def child() -> None:
        room[:] = b"c" * LARGE
        in_child(lambda: room.__setitem__(0, 1))
        assert bytes(room) == b"c" * LARGE
        with pytest.raises(errors.ForkedError):
            publisher.publish(b"")

    with publisher.loan(LARGE) as room:
        room[:] = b"p" * LARGE
        in_child(child)
    assert subscriber.take(10).copy() == b"p" * LARGE


def test_a_fork_amid_the_wait_of_another_thread(bus: _native.Connection) -> None:
    subscriber = _native.Subscriber(bus, "a", wait="sleep")
    thread = started(lambda: list(subscriber))

    def child() -> None:
        with pytest.raises(errors.ForkedError):
            subscriber.take(1)
        subscriber.close()
        bus.close()

    in_child(child)
    subscriber.close()
    thread.join()


# What these start for the whole process, and leave running, is there before any test.
resource_tracker.ensure_running()
forkserver.ensure_running()


def square(number: int, env: dict[str, str]) -> int:
    os.environ.update(env)  # a server of forks has that of its start
    with _native.Connection() as bus:
        _native.Publisher(bus, "squares").publish(b"%d" % number**2)
    return number**2


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_multiprocessing(bus_env: Bus, bus: _native.Connection, method: str) -> None:
    subscriber = _native.Subscriber(bus, "squares", delivery="reliable")
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.starmap(square, [(i, bus_env.env) for i in range(8)])
        assert results == [i * i for i in range(8)]
        pool.close()
        pool.join()
    got = subscriber.take_batch(8)  # rings of four publishers that have gone are kept
    assert {int(message.copy()) for message in got} <= {i * i for i in range(8)}
    assert len(got) >= 4 and subscriber.stats().lost + len(got) == 8
