"""shmps.paho between processes: what `shmps info` counts, wills, helpers one after the other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import shmps.paho as mqtt
from harness import Bus
from mqtt import run
from shmps.paho import publish, subscribe
from test_paho import V2, WAIT_S, running, until

PREAMBLE = """
import sys, os, signal
import shmps.paho as mqtt
from shmps.paho import publish
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
"""


@contextmanager
def process(program: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def ready(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"


RECEIVE = """
import threading
done = threading.Event()
got = []
def on_message(client, userdata, message):
    if message.payload == b"end":
        done.set()
    else:
        got.append(int(message.payload))
client.on_message = on_message
client.on_subscribe = lambda *_: print("ready", flush=True)
client.connect("mqtt.eclipse.org", 1883)
client.subscribe("counted/#", QOS)
client.loop_start()
done.wait()
print(len(got), got == list(range(len(got))), flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_info_counts_what_is_published_and_received(bus_env: Bus, qos: int) -> None:
    with process(RECEIVE.replace("QOS", str(qos))) as child, running() as client:
        ready(child)
        for number in range(1000):
            client.publish("counted/here", number, qos)
        client.publish("counted/here", "end", qos).wait_for_publish(WAIT_S)
        assert child.stdout is not None
        assert child.stdout.readline() == "1000 True\n"
        told = bus_env.info("counted/here")
        assert told["messages"] == 1001
        readers = [one for one in told["subscribers"] if one["pid"] == child.pid]
        assert [ring["lag"] for one in readers for ring in one["rings"]] == [0]


WILL = """
client.will_set("the/will", "of " + sys.argv[1] if sys.argv[1:] else "mine", QOS, RETAIN)
client.connect("localhost")
client.publish("the/life", "as usual")
print("ready", flush=True)
END
"""


def will(end: str, qos: int = 1, retain: bool = False) -> str:
    return WILL.replace("QOS", str(qos)).replace("RETAIN", str(retain)).replace("END", end)


@pytest.mark.parametrize(
    "end",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os._exit(1)",
        "sys.exit()",
        "raise KeyError('a bug')",
        "os.close(client.socket().fileno()); os.closerange(3, 1000); os.abort()",
        "client.disconnect(mqtt.ReasonCode(mqtt.PacketTypes.DISCONNECT, identifier=4))",
        "client.reconnect(); client.disconnect()",
        "os.fork() and os._exit(1); sys.stdin.read()",
    ],
)
def test_a_will_is_published_however_its_process_ends(bus_env: Bus, end: str) -> None:
    with running() as client:
        client.subscribe("the/will", 1)
        with process(will(end)) as child:
            ready(child)
            until(lambda: client.got)
        assert client.got == [b"mine"]


@pytest.mark.parametrize(
    "end",
    ["client.disconnect()", "client.will_clear(); client.disconnect()"],
)
def test_no_will_after_disconnect(bus_env: Bus, end: str) -> None:
    with running() as client:
        client.subscribe("the/#", 1)
        with process(will(end)) as child:
            ready(child)
            assert child.wait(WAIT_S) == 0
        client.publish("the/end", "end", 1)
        until(lambda: b"end" in client.got)
        assert client.got == [b"as usual", b"end"]


def test_a_retained_will(bus_env: Bus) -> None:
    with process(will("os.kill(os.getpid(), signal.SIGKILL)", retain=True)) as child:
        ready(child)
        subscribe.simple("the/will")  # it is there, whether retained or live
    message = subscribe.simple("the/will")
    assert isinstance(message, mqtt.MQTTMessage)
    assert (message.payload, message.retain) == (b"mine", True)


def test_several_wills_of_one_process(bus_env: Bus) -> None:
    program = """
others = [mqtt.Client(mqtt.CallbackAPIVersion.VERSION2) for _ in range(3)]
for number, other in enumerate(others):
    other.will_set(f"wills/{number}", f"{number}", 1)
    other.connect("localhost")
others[1].disconnect()
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with running() as client:
        client.subscribe("wills/#", 1)
        with process(program) as child:
            ready(child)
        until(lambda: len(client.got) == 2)
        assert sorted(client.got) == [b"0", b"2"]


def test_a_will_of_this_process_leaves_no_process(bus_env: Bus) -> None:
    client = mqtt.Client(V2)
    client.will_set("a", "b")
    client.connect("localhost")
    client.disconnect()


SINGLES = """
for number in range(200):
    publish.single("counted/singles", number, qos=1)
publish.single("counted/singles", "end", qos=1)
"""


def test_helpers_one_after_the_other_lose_nothing(bus_env: Bus) -> None:
    with process(RECEIVE.replace("QOS", "1")) as child:
        ready(child)
        run("-c", PREAMBLE + SINGLES)
        assert child.stdout is not None
        assert child.stdout.readline() == "200 True\n"


def test_what_is_retained_outlives_its_publisher(bus_env: Bus) -> None:
    with running() as keeper:  # somebody is on the bus
        run("-c", PREAMBLE + "publish.single('state', 'first', retain=True)")
        run("-c", PREAMBLE + "publish.single('state', 'second', retain=True)")
        for _ in range(5):
            run("-c", PREAMBLE + "publish.single('state', 'passing')")
        keeper.subscribe("state")
        until(lambda: keeper.got)
        assert keeper.got == [b"second"]
        publish.single("state", None, retain=True)
        until(lambda: len(keeper.got) == 2)
        keeper.unsubscribe("state")
        keeper.subscribe([("state", 0), ("flag", 1)])
        keeper.publish("flag", "end", 1)
        until(lambda: b"end" in keeper.got)
        assert keeper.got == [b"second", b"", b"end"]
