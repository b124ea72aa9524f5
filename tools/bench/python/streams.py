"""asyncio: messages a second through `async for`, from one process to another.

For each system one process publishes and one receives, pinned to a core each; a server, where
there is one, runs where the kernel puts it. All messages arrive: nothing is dropped at either end.
The rate is the receiver's, from its first message to its last."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version

from place import Missing, answer, mosquitto, redis_server, side, tell
from report import Row

BYTES = 64
DEPTH = 65536  # the others' queues have no end
MESSAGES = {"shmps": 400_000, "aiomqtt": 20_000, "redis": 60_000}

OURS = f"shmps: reliable subscriber, `await pub.send()`, depth {DEPTH}, no timestamps"
ROWS = [
    Row(
        "asyncio_aiomqtt",
        "asyncio, 64 B, async for",
        "aiomqtt, mosquitto",
        20,
        ">=",
        "msg/s",
        note=f"{OURS}; aiomqtt: QoS 0, mosquitto with unlimited queues and TCP_NODELAY",
    ),
    Row(
        "asyncio_redis",
        "asyncio, 64 B, async for",
        "redis-py, redis-server",
        20,
        ">=",
        "msg/s",
        note=f"{OURS}; redis-py: PUBLISH in pipelines of 100, listen() with hiredis's parser, "
        "redis-server without persistence and limits",
    ),
]
SERVERS: dict[str, Callable[[], AbstractContextManager[int]]] = {
    "aiomqtt": mosquitto,
    "redis": redis_server,
}
PACKAGES = {"aiomqtt": ["aiomqtt"], "redis": ["redis", "hiredis"]}


def rate(system: str, n: int, *place: object) -> float:
    """Messages a second."""
    with (
        side(f"{system}_receive", n, *place, core=1) as receiver,
        side(f"{system}_send", BYTES, n, *(place or [DEPTH]), core=0) as sender,
    ):
        tell(sender, "go")
        return float(answer(receiver, "rate"))


def rate_of(system: str, n: int) -> float:
    try:
        for package in PACKAGES[system]:
            version(package)
    except PackageNotFoundError as why:
        raise Missing(f"{why.name} is not installed") from None
    with SERVERS[system]() as port:
        return rate(system, n, port)


def measure(wanted: Callable[[Row], bool], quick: bool) -> None:
    for row, system in zip(ROWS, SERVERS, strict=True):
        if not wanted(row):
            continue
        few = 10 if quick else 1
        try:
            theirs = rate_of(system, MESSAGES[system] // few)
        except Missing as why:
            row.missing = str(why)
            continue
        row.add(rate("shmps", MESSAGES["shmps"] // few), theirs)
