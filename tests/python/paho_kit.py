"""What paho_programs.py is written with: the library under test, and what they wait with.

The first arguments of the process say which: MODULE VERSION HOST PORT. MODULE is imported as mqtt;
VERSION is that of the callbacks."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

mqtt: Any = importlib.import_module(sys.argv[1])
PACKAGE = sys.argv[1].removesuffix(".client")
publish: Any = importlib.import_module(f"{PACKAGE}.publish")
subscribe: Any = importlib.import_module(f"{PACKAGE}.subscribe")
VERSION = int(sys.argv[2])
HOST, PORT = sys.argv[3], int(sys.argv[4])
WAIT_S = 20
programs: dict[str, Callable[[], None]] = {}
prefix = ""


def program(function: Callable[[], None]) -> Callable[[], None]:
    programs[function.__name__] = function
    return function


def t(name: str) -> str:
    return f"{prefix}/{name}"


def new(*arguments: Any, **options: Any) -> Any:
    if VERSION == 2:
        return mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, *arguments, **options)
    return mqtt.Client(*arguments, **options)


def say(*words: Any) -> None:
    """Without the prefix of the topics and the numbers of packets of the broker."""
    print(*(str(word).replace(prefix + "/", "") for word in words), flush=True)


def plain(value: Any) -> str:
    """An argument of a callback: enums as numbers, reason codes by name, properties by content."""
    if isinstance(value, dict):
        return str({key: int(number) for key, number in value.items()})
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(map(plain, value))})"
    return str(int(value)) if isinstance(value, int) else str(value)


def show(name: str) -> Callable[..., None]:
    def callback(client: Any, userdata: Any, *arguments: Any) -> None:
        if name == "connect":
            arguments = arguments[:2]  # not what a broker says of itself in its properties
        say(name, *(plain(argument) for argument in arguments))

    return callback


def show_message(client: Any, userdata: Any, message: Any) -> None:
    say("message", message.topic, message.payload, message.qos, message.retain)


class Looping:
    """Runs a client's loop by hand until something has happened."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def until(self, happened: Callable[[], Any]) -> None:
        end = time.monotonic() + WAIT_S
        while not happened():
            assert time.monotonic() < end, "it did not happen"
            self.client.loop(0.05)


def until(happened: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@contextmanager
def running(*arguments: Any, **options: Any) -> Iterator[Any]:
    """A connected client whose thread runs, with what it has received in .got."""
    client = new(*arguments, **options)
    client.got = []
    client.on_message = lambda c, u, m: c.got.append(m)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect(HOST, PORT)
    client.loop_start()
    assert connected.wait(WAIT_S)
    yield client
    client.disconnect()
    client.loop_stop()


def subscribed(client: Any, *arguments: Any, **options: Any) -> None:
    """Subscribe, and wait for the answer."""
    done = threading.Event()
    before, client.on_subscribe = client.on_subscribe, lambda *_: done.set()
    client.subscribe(*arguments, **options)
    assert done.wait(WAIT_S)
    client.on_subscribe = before


def unsubscribed(client: Any, topic: Any) -> None:
    """Unsubscribe, and wait for the answer."""
    done = threading.Event()
    client.on_unsubscribe = lambda *_: done.set()
    client.unsubscribe(topic)
    assert done.wait(WAIT_S)


def received(client: Any, n: int) -> list[Any]:
    """The first n messages: topic, payload, qos, retain."""
    until(lambda: len(client.got) >= n)
    return [(m.topic, m.payload.decode(), m.qos, bool(m.retain)) for m in client.got]


def settle(client: Any, sender: Any = None) -> None:
    """All that was sent before has been received when the answer to this is there."""
    end = threading.Event()
    client.message_callback_add(t("settle"), lambda *_: end.set())
    subscribed(client, t("settle"), 1)
    (sender or client).publish(t("settle"), "", 1)
    assert end.wait(WAIT_S)


def run(names: list[str]) -> None:
    """These programs, or all of them."""
    global prefix
    for name in names or programs:
        prefix = f"test/{os.getpid()}/{name}"
        print(f"== {name}", flush=True)
        try:
            programs[name]()
        except Exception as error:  # the next one has its turn
            say("failed with", type(error).__name__, error)
