"""The C extension: connections, publishers, loans, subscribers and messages.

All times are in seconds; a timeout of None waits for ever, 0 does not wait. A wait lets other
threads run, and Ctrl-C ends it. Where a timeout ends a wait, shmps.errors.Timeout is raised, which
is a TimeoutError. Every call may raise another shmps.errors.Error; what each code means is in
include/shmps/error.h.

Threads: every object may be used by several threads; calls on one publisher or subscriber take
turns. Fork: in the child every call raises shmps.errors.ForkedError, but messages that the parent
held, and views of them, remain readable there, as copies. Objects close themselves when nobody
refers to them any more.
"""

from collections.abc import Awaitable, Iterable
from types import TracebackType
from typing import Any, Self, final

from typing_extensions import Buffer

from .records import Delivery, Event, PublisherStats, SubscriberStats, Wait

def version() -> str: ...
def topic_check(topic: str, /) -> None: ...  # raises TopicError
def filter_check(filter: str, /) -> None: ...  # raises TopicError
def filter_matches(filter: str, topic: str, /) -> bool: ...

class Connection:
    """A connection to one instance of the bus. instance: its name or the path of its socket; None:
    $SHMPS_INSTANCE, else "default". autostart: whether to start a pubsubd of this user if none
    answers; None: yes, unless SHMPS_AUTOSTART=0. observe: do not talk to pubsubd, only look;
    works when it is dead."""

    def __new__(
        cls,
        instance: str | None = None,
        *,
        autostart: bool | None = None,
        observe: bool = False,
        timeout: float | None = 5.0,
    ) -> Self: ...
    @property
    def instance(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    def daemon_alive(self) -> bool: ...
    def stop_daemon(self) -> None: ...
    def close(self) -> None: ...  # and all that is open on it; may be called again
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

class Publisher:
    """Publishes on one topic. Options as in struct shmps_publisher_options, 0: the default.
    history: the topic keeps at least that many of its newest messages for late subscribers, also
    after its publishers have gone."""

    def __new__(
        cls,
        connection: Connection,
        topic: str,
        *,
        depth: int = 0,
        pins: int = 0,
        message_bytes: int = 0,
        timestamps: bool = True,
        wait: Wait = "default",
        history: int = 0,
    ) -> Self: ...
    @property
    def topic(self) -> str: ...
    @property
    def id(self) -> int: ...  # Message.publisher of what it publishes
    @property
    def closed(self) -> bool: ...
    def publish(self, data: Buffer, tag: int = 0, timeout: float | None = None) -> None:
        """Copy a message into the ring. Waits only for reliable subscribers: raises Full when one
        has made no room within the timeout."""

    def publish_batch(
        self, messages: Iterable[Buffer], *, exactly: bool = False, timeout: float | None = None
    ) -> int:
        """Publish in order; returns how many. All of them, or those that there was room for within
        the timeout (Full, if none). exactly: all at once, or Full."""

    def loan(self, size: int, *, tag: int = 0, timeout: float | None = None) -> Loan: ...
    def wait_subscribers(self, n: int = 1, timeout: float | None = None) -> None: ...
    def event(self, timeout: float | None = None) -> Event: ...
    def stats(self) -> PublisherStats: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

@final
class Loan:
    """Room in the ring, to be written in place:

        with publisher.loan(size) as view: ...

    publishes at the end of the block, and discards after an exception. Every view of it must have
    gone by then (BufferError, and nothing is published): what is published does not change."""

    size: int  # bytes to publish: may be lowered, and raised up to what was loaned
    tag: int
    def __enter__(self) -> memoryview: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Subscriber:
    """Receives what is published on the topics of a filter. timeout: how long take() and iterating
    wait for each message. history: begin with that many of the newest messages of each topic;
    None: as configured for the topic, 0: none."""

    def __new__(
        cls,
        connection: Connection,
        filter: str,
        *,
        timeout: float | None = None,
        delivery: Delivery = "lossy",
        wait: Wait = "default",
        history: int | None = None,
        pins: int = 0,
    ) -> Self: ...
    timeout: float | None
    @property
    def filter(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    def take(self, timeout: float | None = ...) -> Message: ...  # default: self.timeout
    def try_take(self) -> Message | None: ...
    def take_batch(self, n: int, timeout: float | None = ...) -> list[Message]:
        """Wait for one message and take up to n, at least one."""

    def fileno(self) -> int:
        """A descriptor that is readable while there may be something to take. Take until
        try_take() gives None before each wait. Never read, write or close it."""

    def wait_publishers(self, n: int = 1, timeout: float | None = None) -> None: ...
    def event(self, timeout: float | None = None) -> Event: ...
    def stats(self) -> SubscriberStats: ...
    def close(self) -> None: ...  # who iterates in another thread comes to the end
    def __iter__(self) -> Self: ...
    def __next__(self) -> Message: ...  # the end: closed by this process
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[Message]: ...  # waits by _next(), which shmps.Subscriber has
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

@final
class Message:
    """A received message. Its bytes are there, and do not change, as long as the message or any
    view of it is: also after close()."""

    @property
    def topic(self) -> str: ...
    @property
    def seq(self) -> int: ...  # 0, 1, 2 ... of its publisher
    @property
    def time_ns(self) -> int: ...  # time.monotonic_ns() at publishing, 0: timestamps are off
    @property
    def tag(self) -> int: ...  # the publisher's own word
    @property
    def lost(self) -> int: ...  # messages lost since the previous one that was received
    @property
    def publisher(self) -> int: ...
    @property
    def pinned(self) -> bool: ...  # False: copied, as no pin was left
    @property
    def history(self) -> bool: ...  # published before the subscriber was opened
    @property
    def evicted(self) -> bool: ...  # the publisher goes on without this reliable subscriber
    @property
    def payload(self) -> memoryview: ...  # read-only
    def copy(self) -> bytes: ...
    def as_numpy(self, dtype: Any = "u1") -> Any: ...  # an array on the payload, without a copy
    def __len__(self) -> int: ...  # bytes of the payload
    def __bool__(self) -> bool: ...  # True, also if it is empty
    def __bytes__(self) -> bytes: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
