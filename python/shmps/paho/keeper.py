"""The process that keeps wills, see will.py: python3 -m shmps.paho.keeper PID, orders on stdin.

An order is a line of JSON: {"key": number, "topic": ..., "data": hexadecimal, "tag": number} sets
a will, {"key": number} clears it, and "end" says that no others come. Each is answered by a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from typing import IO

from .. import _native, errors
from .messages import Packet
from .outbox import publish_once

# How long it waits for room that a stalled subscriber makes, in each topic.
_ROOM_SECONDS = 5.0


def follow(owner: int, orders: IO[bytes]) -> dict[int, Packet]:
    """Follow the orders until the owner has ended, or has no more of them; returns its wills."""
    wills: dict[int, Packet] = {}
    poll = select.poll()
    poll.register(owner, select.POLLIN)
    poll.register(orders, select.POLLIN)
    text = b""
    while True:
        ready = dict(poll.poll())
        if orders.fileno() in ready:
            read = os.read(orders.fileno(), 1 << 16)
            *lines, text = (text + read).split(b"\n")
            for line in lines:
                order = json.loads(line)
                wills.pop(order["key"], None)
                if "topic" in order:
                    data = bytes.fromhex(order["data"])
                    wills[order["key"]] = Packet(order["topic"], data, order["tag"])
                with contextlib.suppress(OSError):  # who asked may have died meanwhile
                    os.write(sys.stdout.fileno(), b"done\n")
                if order.get("end"):
                    return wills
            if not read:
                poll.unregister(orders)  # the owner has ended, or only closed its descriptors
        elif owner in ready:
            return wills


def main() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_IGN)
    try:
        owner = os.pidfd_open(int(sys.argv[1]))
    except ProcessLookupError:
        return  # it has ended before it could say anything
    with _native.Connection() as bus:
        for will in follow(owner, sys.stdin.buffer).values():
            try:
                publish_once(bus, will, _ROOM_SECONDS)
            except errors.Error as error:
                print(f"shmps: the will for {will.topic!r} is lost: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
