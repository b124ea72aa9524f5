"""Waiting in a coroutine, without a thread: under asyncio (uvloop too) and under trio, so also
under anyio. trio is looked for only where the program has imported it."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, TypeAlias

Key: TypeAlias = Any  # what stands for an event loop: asyncio's loop, or the token of trio's run


def _trio() -> Any:
    """The module trio if one of its tasks runs now, else None."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            return None
    return trio


def running() -> Key:
    """The event loop that runs now. RuntimeError: none does."""
    trio = _trio()
    return trio.lowlevel.current_trio_token() if trio else asyncio.get_running_loop()


async def sleep(seconds: float) -> None:
    """Let others run; 0: those who can run now."""
    trio = _trio()
    await (trio.sleep(seconds) if trio else asyncio.sleep(seconds))


def reader(descriptor: int) -> AsyncioReader | TrioReader:
    """What waits for a descriptor in the event loop that runs now. It has a duplicate of it, so
    that the other may be closed at any time, by any thread."""
    trio = _trio()
    return TrioReader(trio, descriptor) if trio else AsyncioReader(descriptor)


class AsyncioReader:
    """The descriptor stays registered while messages come, and is forgotten when it is readable
    and nobody waits: a message costs no system call to register it."""

    def __init__(self, descriptor: int) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.dup(descriptor)
        self._registered = False
        self._stale = False  # asyncio has looked again before the task could take
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def finished(self) -> bool:
        return self._loop.is_closed()

    async def wait(self, seconds: float | None) -> None:
        """Until it is readable, the time is over, or it is closed; sometimes for nothing."""
        if self._descriptor < 0:
            return
        if not self._registered:
            self._loop.add_reader(self._descriptor, self._readable)
            self._registered, self._stale = True, False
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        timer = None if seconds is None else self._loop.call_later(seconds, _wake, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _readable(self) -> None:
        if self._stale:  # if it is readable all the same, this is called again at once
            self._stale = False
        elif self._waiters:
            self._stale = True
            self._wake_all()
        else:
            self._forget()

    def _wake_all(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            _wake(waiter)

    def _forget(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._registered = False

    def close(self) -> None:
        """End every wait. Any thread."""
        elsewhere = self._loop.is_running() and asyncio._get_running_loop() is not self._loop
        if elsewhere and os.getpid() == self._pid:
            try:
                self._loop.call_soon_threadsafe(self._end)
                return
            except RuntimeError:  # it has been closed
                pass
        self._end()

    def _end(self) -> None:
        if self._descriptor < 0:
            return
        if not self._loop.is_closed() and os.getpid() == self._pid:  # a child has only copies
            if self._registered:
                self._forget()
            self._wake_all()
        os.close(self._descriptor)
        self._descriptor = -1


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class TrioReader:
    """As trio has it, one task at a time may wait (trio.BusyResourceError)."""

    def __init__(self, trio: Any, descriptor: int) -> None:
        self._pid = os.getpid()
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._descriptor = os.dup(descriptor)

    @property
    def finished(self) -> bool:
        try:
            self._token.run_sync_soon(bool)
        except self._trio.RunFinishedError:
            return True
        return False

    async def wait(self, seconds: float | None) -> None:
        """Until it is readable, the time is over, or it is closed; sometimes for nothing."""
        if self._descriptor < 0:
            return
        with self._trio.move_on_after(float("inf") if seconds is None else seconds):
            try:
                await self._trio.lowlevel.wait_readable(self._descriptor)
            except self._trio.ClosedResourceError:
                pass

    def close(self) -> None:
        """End every wait. Any thread."""
        if os.getpid() != self._pid:  # a child has only copies
            self._end(told=True)
            return
        if _trio() and running() is self._token:
            self._end()
            return
        try:
            self._token.run_sync_soon(self._end)
        except self._trio.RunFinishedError:
            self._end(told=True)

    def _end(self, told: bool = False) -> None:
        if self._descriptor < 0:
            return
        if not told:
            self._trio.lowlevel.notify_closing(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
