"""The program of test_no_memory.py: each piece of every_call.py again and again, with its first,
second, third ... allocation failing, in Python, the extension and the library. MemoryError or
success, no crash; and nothing is left of it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Any

from every_call import PIECES, Place, forks
from harness import descriptors

hook: Any = ctypes.CDLL(None)
SWEEPS = 4
Piece = Callable[[Place], object]


def out_of_memory(error: BaseException | None) -> bool:
    """It, or what came of it, is a MemoryError."""
    seen = []
    while error is not None and error not in seen:
        if isinstance(error, MemoryError):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def once(piece: Piece, place: Place, n: int) -> bool:
    """Fail the nth allocation. False: it has fewer."""
    fail_at, wrong = hook.fail_at, None
    try:
        fail_at(n)
        piece(place)
    except BaseException as error:
        wrong = error
    try:
        left = fail_at(0)
    except (MemoryError, ctypes.ArgumentError):  # this call's own
        return False
    if wrong is not None and not out_of_memory(wrong):
        raise wrong
    del wrong
    place.drain()
    return bool(left == 0)


def sweep(piece: Piece, place: Place) -> int:
    n = 1
    while once(piece, place, n):
        n += 1
    gc.collect()
    return n - 1


def left_by(piece: Piece, place: Place) -> tuple[int, int]:
    """How many allocations it makes; what is alive after failing in each of them."""
    sweep(piece, place)
    sweep(piece, place)
    before = hook.count_alive()
    for _ in range(SWEEPS):
        n = sweep(piece, place)
    return n, hook.count_alive() - before


def main() -> int:
    hook.fail_at.restype = hook.count_alive.restype = ctypes.c_long
    hook.fail_at.argtypes = [ctypes.c_long]
    place = Place()
    leaks = 0
    open_before = descriptors().keys()
    for piece in PIECES:
        piece(place)  # what is made at the first use may end the process, as glibc has it
    for piece in PIECES:
        if piece is forks:
            continue
        n, left = left_by(piece, place)
        leaks += left >= SWEEPS
        print(f"{piece.__name__}: {n} allocations, {left} left", flush=True)
    assert descriptors().keys() == open_before
    place.bus.close()
    return leaks > 0


if __name__ == "__main__":
    sys.exit(main())
