"""The loop that calls handlers: an epoll over the descriptors of their subscribers."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from . import errors

if TYPE_CHECKING:
    from ._native import Message, Subscriber

TURN = 64  # messages of one subscriber, after which the others have a turn
FOREVER_S = 9e9  # so long is for ever
POLL_S = 3600.0  # epoll knows no more than some weeks
RETRY_S = 0.1  # how long one that cannot be read is left alone


def deadline(timeout: float | None) -> float | None:
    """When the time is over, by time.monotonic(); None: never."""
    if timeout is None:
        return None
    if not timeout >= 0:
        raise ValueError("a timeout is a number of seconds from 0 on, or None: wait for ever")
    return time.monotonic() + timeout if timeout < FOREVER_S else None


class Entry:
    """A handler and its subscriber."""

    def __init__(self, subscriber: Subscriber, handler: Callable[[Message], Any]) -> None:
        self.subscriber = subscriber
        self.handler = handler
        self.descriptor = subscriber.fileno()
        self.live = True
        self.trouble: type[errors.Error] | None = None  # reported already


class Run:
    """One stay of a thread in the loop."""

    def __init__(self, thread: threading.Thread, own: bool = False) -> None:
        self.thread = thread
        self.own = own  # it was started for this, and is waited for
        self.stopping = False


class Loop:
    """One thread at a time runs it; the others add, remove and stop. A message is taken only when
    its handler is called at once, so that stopping loses none and large ones are not copied."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        # Reentrant: a signal's handler may come in between and stop the loop.
        self._changed = threading.Condition(threading.RLock())
        self._entries: dict[int, Entry] = {}  # by descriptor
        self._postponed: list[Entry] = []  # the runner's own
        self._run: Run | None = None
        self._current: Entry | None = None
        self._closed = False
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)

    _bell = -1

    def _forked(self) -> bool:
        return os.getpid() != self._pid

    @contextmanager
    def _use(self) -> Iterator[None]:
        self._check()  # in a forked child, a thread that it has not may have the lock
        with self._changed:
            self._check()
            yield

    def _check(self) -> None:
        if self._forked():
            raise errors.ForkedError("the loop belongs to the parent process; connect anew")
        if self._closed:
            raise errors.ClosedError("the bus is closed; connect anew")

    def runs_here(self) -> bool:
        """Whether this thread is in the loop: a handler is what calls."""
        return self._run is not None and self._run.thread is threading.current_thread()

    # ------------------------------------------------------------------------------- handlers

    def add(self, subscriber: Subscriber, handler: Callable[[Message], Any]) -> None:
        entry = Entry(subscriber, handler)
        with self._use():
            self._entries[entry.descriptor] = entry
            self._epoll.register(entry.descriptor, select.EPOLLIN)

    def remove(self, handler: Callable[[Message], Any], filter: str | None) -> None:
        with self._use():
            gone = [
                entry
                for entry in self._entries.values()
                if entry.handler == handler and filter in (None, entry.subscriber.filter)
            ]
            for entry in gone:
                self._drop(entry)
            while self._current in gone and not self.runs_here():
                self._changed.wait()
        for entry in gone:
            entry.subscriber.close()

    def _drop(self, entry: Entry) -> None:
        entry.live = False
        del self._entries[entry.descriptor]
        with suppress(FileNotFoundError):  # it is postponed
            self._epoll.unregister(entry.descriptor)

    # ------------------------------------------------------------------------ running, stopping

    def _claim(self, run: Run) -> None:
        with self._use():
            while self._run is not None:
                if self.runs_here() or not self._run.stopping:
                    raise errors.StateError("the loop of this bus runs already; stop it first")
                self._changed.wait()
                self._check()
            self._run = run

    def _leave(self, run: Run) -> None:
        if self._forked():  # bell and epoll are also the parent's
            return
        with self._changed:
            if self._run is not run:
                return
            self._run = None
            with suppress(BlockingIOError):
                os.eventfd_read(self._bell)
            if self._closed:
                self._release()
            self._changed.notify_all()

    @contextmanager
    def _running(self) -> Iterator[Run]:
        run = Run(threading.current_thread())
        try:
            self._claim(run)
            yield run
        finally:
            self._leave(run)

    def start(self) -> None:
        def stay() -> None:
            try:
                self._stay(run)
            finally:
                self._leave(run)

        run = Run(threading.Thread(target=stay, name="shmps-loop", daemon=True), own=True)
        self._claim(run)
        try:
            run.thread.start()
        except RuntimeError:  # no more threads
            self._leave(run)
            raise

    def _stay(self, run: Run) -> None:
        while not run.stopping:
            self._turn(run, None)

    def forever(self) -> None:
        with self._running() as run:
            self._stay(run)

    def once(self, timeout: float | None) -> int:
        end = deadline(timeout)
        with self._running() as run:
            while True:
                left = None if end is None else max(0.0, min(end - time.monotonic(), POLL_S))
                handled = self._turn(run, left)
                if handled or run.stopping:
                    return handled
                if left == 0:
                    raise errors.Timeout(f"no message for a handler within {timeout:g} s")

    def drain(self, seconds: float) -> None:
        """Call the handlers with all that is there now, also what no descriptor tells of yet, for
        so long at most."""
        end = time.monotonic() + seconds
        with self._running() as run:
            while time.monotonic() < end:
                with self._changed:
                    descriptors = list(self._entries)
                if not sum(self._serve(run, descriptor) for descriptor in descriptors):
                    return

    def stop(self) -> None:
        if sys.is_finalizing() or self._closed:  # its thread has ended
            return
        with self._use():
            run = self._stop()
        if run is not None and run.own:
            run.thread.join()

    def _stop(self) -> Run | None:
        """End the run that there is, and wait for it unless it is this thread's own; it."""
        run = self._run
        if run is None:
            return None
        run.stopping = True
        os.eventfd_write(self._bell, 1)
        if self.runs_here():
            return None
        while self._run is run:
            self._changed.wait()
        return run

    def close(self) -> None:
        """Stop it, and let go of all handlers. In a forked child: nothing is the child's."""
        if self._forked() or sys.is_finalizing():
            return
        with self._changed:
            if self._closed:
                return
            self._closed = True
            for entry in list(self._entries.values()):
                self._drop(entry)
            run = self._stop()
            if self._run is None:
                self._release()
        if run is not None and run.own:
            run.thread.join()

    def _release(self) -> None:
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1
            self._epoll.close()

    def __del__(self) -> None:
        self._release()

    # ---------------------------------------------------------------------------------- serving

    def _turn(self, run: Run, seconds: float | None) -> int:
        """Wait for messages, and give each subscriber that has some its turn."""
        if self._postponed:
            seconds = RETRY_S if seconds is None else min(seconds, RETRY_S)
        ready = self._epoll.poll(seconds)
        with self._changed:
            for entry in self._postponed:
                if entry.live:
                    self._epoll.register(entry.descriptor, select.EPOLLIN)
            self._postponed.clear()
        return sum(self._serve(run, descriptor) for descriptor, _ in ready)

    def _serve(self, run: Run, descriptor: int) -> int:
        with self._changed:
            entry = self._entries.get(descriptor)
            if entry is None:  # the bell, or removed just now
                return 0
            self._current = entry
        try:
            return self._call(run, entry)
        finally:
            self._served()

    def _served(self) -> None:
        if self._forked():  # by the handler
            return
        with self._changed:
            self._current = None
            self._changed.notify_all()

    def _call(self, run: Run, entry: Entry) -> int:
        """Call a handler with what is there; how often."""
        for handled in range(TURN):
            if not entry.live or run.stopping:
                return handled
            try:
                message = entry.subscriber.try_take()
            except errors.ForkedError:  # the handler's child is back: the loop is not its own
                raise
            except errors.Error as error:
                self._cannot_take(entry, error)
                return handled
            if message is None:
                return handled
            entry.trouble = None
            try:
                entry.handler(message)
            except Exception as error:
                _report(error)
            del message
        return TURN

    def _cannot_take(self, entry: Entry, error: errors.Error) -> None:
        """Report it, once; try again later, unless the subscriber has come to its end."""
        with self._changed:
            if not entry.live:
                return
            if isinstance(error, errors.ClosedError):
                self._drop(entry)
            else:
                self._epoll.unregister(entry.descriptor)
                self._postponed.append(entry)
        if entry.trouble is not type(error):
            entry.trouble = type(error)
            _report(error)


def _report(error: BaseException) -> None:
    thread = threading.current_thread()
    if thread is threading.main_thread():
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        threading.excepthook(
            threading.ExceptHookArgs((type(error), error, error.__traceback__, thread))
        )
