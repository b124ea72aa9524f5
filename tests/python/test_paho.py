"""shmps.paho where it is not as on a broker: what it refuses and why, who waits for whom, the end
of the bus."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import shmps.paho as mqtt
from harness import Bus
from shmps import errors
from shmps.paho import publish, subscribe
from shmps.paho.outbox import WAITING_MAX
from shmps.paho.outbox import _Lane as Lane

V2 = mqtt.CallbackAPIVersion.VERSION2
WAIT_S = 20


def until(happened: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@contextmanager
def running(*arguments: Any, **options: Any) -> Iterator[Any]:
    """A connected client whose thread runs, with the payloads it has received in .got."""
    client: Any = mqtt.Client(V2, *arguments, **options)
    client.got = []
    client.on_message = lambda c, u, m: c.got.append(m.payload)
    client.connect("localhost")
    client.loop_start()
    try:
        until(client.is_connected)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()
        publish.close()


def properties(packet: int, **values: Any) -> mqtt.Properties:
    made = mqtt.Properties(packet)
    for name, value in values.items():
        setattr(made, name, value)
    return made


CONNECT = properties(mqtt.PacketTypes.CONNECT, SessionExpiryInterval=60)
DISCONNECT = properties(mqtt.PacketTypes.DISCONNECT, ReasonString="bye")
ALIAS = properties(mqtt.PacketTypes.PUBLISH, TopicAlias=3)
DELAY = properties(mqtt.PacketTypes.WILLMESSAGE, WillDelayInterval=3)
USER = properties(mqtt.PacketTypes.SUBSCRIBE, UserProperty=("a", "b"))
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def v5() -> mqtt.Client:
    return mqtt.Client(V2, protocol=mqtt.MQTTv5)


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        (lambda: mqtt.Client().tls_set(), "no connection to encrypt"),
        (lambda: mqtt.Client().tls_set_context(TLS), "no connection to encrypt"),
        (lambda: mqtt.Client().tls_insecure_set(True), "no connection to encrypt"),
        (lambda: mqtt.Client().username_pw_set("me", "secret"), "nobody here could check"),
        (lambda: setattr(mqtt.Client(), "password", "x"), "nobody here could check"),
        (lambda: publish.single("a", "b", auth={"username": "me"}), "nobody here could check"),
        (lambda: publish.single("a", "b", tls={"ca_certs": "x"}), "no connection to encrypt"),
        (lambda: subscribe.simple("a", auth={"username": "me"}), "nobody here could check"),
        (lambda: subscribe.callback(print, "a", tls=TLS), "no connection to encrypt"),
        (lambda: subscribe.simple("a", proxy_args={"proxy": 1}), "no network connection"),
        (lambda: mqtt.Client().ws_set_options("/mqtt"), "no network connection"),
        (lambda: mqtt.Client().proxy_set(proxy_type=2), "no network connection"),
        (lambda: mqtt.Client().enable_bridge_mode(), "no broker to bridge to"),
        (lambda: mqtt.Client(V2, manual_ack=True), "is delivered"),
        (lambda: mqtt.Client("me", clean_session=False), "no broker keeps a session"),
        (lambda: v5().connect("h", clean_start=False), "no broker keeps a session"),
        (lambda: v5().connect("h", properties=CONNECT), "no broker reads"),
        (lambda: v5().disconnect(properties=DISCONNECT), "no broker reads"),
        (lambda: v5().publish("a", "b", properties=ALIAS), "no packets are sent"),
        (lambda: v5().will_set("a", "b", properties=DELAY), "published at once"),
        (lambda: v5().subscribe("a", properties=USER), "no broker reads"),
        (lambda: mqtt.Client().subscribe("$share/group/a"), "every subscriber gets every"),
    ],
)
def test_what_it_refuses_and_why(attempt: Callable[[], Any], why: str) -> None:
    with pytest.raises(mqtt.NotSupportedError, match=why):
        attempt()


@pytest.mark.parametrize("topic", ["/a", "a/", "a//b", "/", "a/" * 40 + "a", "x" * 256, "a\x01"])
def test_topics_that_only_this_bus_refuses(topic: str) -> None:
    client = mqtt.Client(V2)
    for attempt in (client.publish, client.subscribe, client.unsubscribe, client.will_set):
        with pytest.raises(errors.TopicError):
            attempt(topic)
    with pytest.raises(ValueError, match="level 1 is empty"):
        client.publish("/a")


def test_companions_of_retained_messages_are_not_for_programs() -> None:
    for attempt in (mqtt.Client().publish, mqtt.Client().subscribe):
        with pytest.raises(ValueError, match="retained messages of other topics"):
            attempt("$retained/a")
    with pytest.raises(errors.TopicError):
        mqtt.Client().publish("x" * 250, "its companion has a longer name", retain=True)


def test_properties_are_for_mqtt_5() -> None:
    for attempt in (mqtt.Client().publish, mqtt.Client().will_set):
        with pytest.raises(ValueError, match="only apply to MQTT V5"):
            attempt("a", "b", properties=properties(mqtt.PacketTypes.PUBLISH, ContentType="x"))


def test_host_and_port_are_logged_once(bus_env: Bus, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "shmps.paho"):
        for _ in range(2):
            client = mqtt.Client(V2)
            client.connect("some.host", 8883, 17)
            client.disconnect()
    said = [record.getMessage() for record in caplog.records if "some.host" in record.getMessage()]
    assert len(said) == 1
    assert "host='some.host', port=8883, keepalive=17" in said[0]
    assert "choose nothing" in said[0]


def test_messages_of_other_programs_are_plain(bus_env: Bus) -> None:
    with running() as client:
        client.subscribe("from/shell", 1)
        bus_env.tool("pub", "from/shell", "hello")
        until(lambda: client.got)
        assert client.got == [b"hello"]


def test_a_stalled_subscriber_stalls_its_topic_only_and_nobody_waits(bus_env: Bus) -> None:
    stalled = mqtt.Client(V2)
    got: list[bytes] = []
    stalled.on_message = lambda c, u, m: got.append(m.payload)
    stalled.connect("localhost")
    stalled.subscribe("slow", 1)  # and its loop does not run
    with running() as client:
        client.subscribe("fast", 1)
        infos = [client.publish("slow", n, 1) for n in range(5000)]
        client.publish("fast", "passes").wait_for_publish(WAIT_S)
        until(lambda: client.got)
        assert not infos[-1].is_published()
        lost = [client.publish("slow", "at most once", 0).rc for _ in range(2)]
        assert lost == [mqtt.MQTT_ERR_QUEUE_SIZE] * 2  # WAITING_MAX wait already
        assert len(infos) > WAITING_MAX
        stalled.loop_start()
        infos[-1].wait_for_publish(WAIT_S)
        until(lambda: len(got) == 5000)
        assert got == [b"%d" % n for n in range(5000)]
        client.max_queued_messages_set(1)
    stalled.disconnect()
    stalled.loop_stop()


def test_what_waits_goes_where_there_is_room(bus_env: Bus) -> None:
    stalled = mqtt.Client(V2)
    stalled.connect("localhost")
    stalled.subscribe("slow", 1)  # and its loop does not run
    with running() as client, running() as late:
        block = threading.Event()
        late.message_callback_add("late", lambda c, u, m: (block.wait(WAIT_S), late.got.append(1)))
        late.subscribe("late", 1)
        for number in range(3000):
            client.publish("slow", number, 1)
            client.publish("late", number, 1)
        assert len(late.got) == 0
        block.set()
        until(lambda: len(late.got) == 3000)
        stalled.disconnect()


def test_a_message_found_late_keeps_its_place(bus_env: Bus) -> None:
    """What is published on one topic while another one is looked at."""
    with running() as sender:
        client = mqtt.Client(V2)
        got: list[str] = []
        client.on_message = lambda c, u, m: got.append(m.topic)
        client.connect("localhost")
        client.subscribe([("a", 1), ("b", 1)])
        client.loop(0)
        assert client._inbox is not None
        first = client._inbox._subscriptions["a"]
        real = first.subscriber

        class Watched:
            """Is found empty, and at once no more is."""

            def try_take(self) -> None:
                first.subscriber = real
                assert real.try_take() is None
                sender.publish("a", "before", 1).wait_for_publish(WAIT_S)
                sender.publish("b", "after", 1).wait_for_publish(WAIT_S)

        first.subscriber = Watched()  # type: ignore[assignment]
        while len(got) < 2:
            client.loop(1)
        assert got == ["a", "b"]
        client.disconnect()


def test_a_client_without_a_loop_may_fill_its_own_subscription(bus_env: Bus) -> None:
    client = mqtt.Client(V2)
    got: list[bytes] = []
    client.on_message = lambda c, u, m: got.append(m.payload)
    client.connect("localhost")
    client.subscribe("own", 1)
    for number in range(3000):
        client.publish("own", number, 1)
    while len(got) < 3000:
        client.loop(1)
    assert got == [b"%d" % n for n in range(3000)]
    client.disconnect()


def test_what_has_waited_in_vain_says_so(bus_env: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(lane: Lane, bus: Any, packet: Any, timeout: float) -> int:
        if packet.data == b"bad":
            raise errors.LimitError("no room for that")
        return into(lane, bus, packet, timeout)

    into = Lane.publish
    monkeypatch.setattr(Lane, "publish", publish)
    with running() as client:
        stalled = mqtt.Client(V2)
        stalled.connect("localhost")
        stalled.subscribe("a", 1)
        infos = [client.publish("a", "x", 1) for _ in range(1500)]
        bad, last = client.publish("a", "bad", 1), client.publish("a", "last", 1)
        stalled.unsubscribe("a")
        with pytest.raises(RuntimeError):
            bad.wait_for_publish(WAIT_S)
        for info in (*infos, last):
            info.wait_for_publish(WAIT_S)
            assert info.is_published()
        stalled.disconnect()


def test_how_many_may_wait(bus_env: Bus) -> None:
    with running() as stalled:
        block = threading.Event()
        stalled.on_message = lambda *_: block.wait(WAIT_S)
        stalled.subscribe("slow", 1)
        with running() as client:
            client.max_queued_messages_set(10)
            codes = [client.publish("slow", n, 1).rc for n in range(3000)]
            assert codes[0] == mqtt.MQTT_ERR_SUCCESS
            assert codes[-1] == mqtt.MQTT_ERR_QUEUE_SIZE
            block.set()


def test_growing_messages(bus_env: Bus) -> None:
    with running() as client:
        client.subscribe("grows", 1)
        sizes = [1, 300, 5000, 70000, 1 << 20, 10, 3]
        for size in sizes:
            client.publish("grows", b"x" * size, 1)
        until(lambda: len(client.got) == len(sizes))
        assert [len(payload) for payload in client.got] == sizes


def test_many_topics(bus_env: Bus) -> None:
    with running() as client:
        client.subscribe("many/#", 1)
        for turn in range(2):
            for number in range(200):
                client.publish(f"many/{number}", f"{turn} {number}", 1)
        until(lambda: len(client.got) == 400)
        assert client.got[-1] == b"1 199"


def test_a_retained_message_expires(bus_env: Bus) -> None:
    expiry = properties(mqtt.PacketTypes.PUBLISH, MessageExpiryInterval=1)
    with running(protocol=mqtt.MQTTv5) as client:
        client.publish("short", "lived", 1, True, expiry).wait_for_publish(WAIT_S)
        client.publish("long", "lived", 1, True).wait_for_publish(WAIT_S)
        time.sleep(1.01)
        client.subscribe([("short", 1), ("long", 1)])
        until(lambda: client.got)
        client.publish("long", "end", 1)
        until(lambda: b"end" in client.got)
        assert client.got == [b"lived", b"end"]


def test_the_end_of_the_bus_and_the_next_one(bus_env: Bus) -> None:
    told: list[str] = []
    with running() as client:
        client.reconnect_delay_set(0.01, 0.1)

        @client.connect_callback()  # type: ignore[untyped-decorator]
        def connected(*_: Any) -> None:
            told.append("connect")
            client.subscribe("again", 1)

        client.on_disconnect = lambda c, u, flags, code, props: told.append(str(code))
        client.subscribe("again", 1)
        assert bus_env.end() == 0
        bus_env.start()
        until(lambda: "connect" in told)
        assert told == ["Unspecified error", "connect"]
        client.publish("again", "here", 1)
        until(lambda: client.got)
        assert client.got == [b"here"]


@pytest.mark.parametrize("by_signal", [False, True])
def test_disconnect_ends_a_loop_that_waits(bus_env: Bus, by_signal: bool) -> None:
    client = mqtt.Client(V2)
    told: list[str] = []
    client.on_disconnect = lambda c, u, flags, code, props: told.append(str(code))
    client.connect("localhost")
    before = signal.signal(signal.SIGUSR1, lambda *_: client.disconnect())
    kill = partial(os.kill, os.getpid(), signal.SIGUSR1)
    timer = threading.Timer(0.2, kill if by_signal else client.disconnect)
    timer.start()
    client.loop_forever()
    timer.join()
    signal.signal(signal.SIGUSR1, before)
    assert told == ["Normal disconnection"]
    assert client.socket() is None


def test_disconnect_at_any_time_is_not_lost(bus_env: Bus) -> None:
    for _ in range(200):
        told: list[str] = []
        client = mqtt.Client(V2)
        client.on_connect = lambda *_, told=told: told.append("connect")
        client.on_publish = lambda *_, told=told: told.append("publish")
        client.on_disconnect = lambda *_, told=told: told.append("disconnect")
        client.connect("localhost")
        client.loop_start()
        client.publish("a/b", "x", 1)
        client.disconnect()
        client.loop_stop()
        assert told == ["connect", "publish", "disconnect"]
        assert client.socket() is None


def test_connecting_again_while_the_thread_runs(bus_env: Bus) -> None:
    """No will for who has disconnected, and no pause."""
    with running() as reader:
        reader.subscribe("will", 1)
        with running() as client:
            client.will_set("will", "of one that has disconnected", 1)
            connected: list[float] = []
            client.on_connect = lambda *_: connected.append(time.monotonic())
            client.reconnect()
            until(lambda: len(connected) == 1)
            client.will_set("will", "of one that has not", 1)
            client.disconnect()
            client.connect("localhost")
            client.loop_start()
            until(lambda: len(connected) == 2)
            start = time.monotonic()
            client.reconnect()
            until(lambda: len(connected) == 3)
            assert connected[2] - start < 0.9
            until(lambda: reader.got)
        assert reader.got == [b"of one that has not"]


def test_what_the_end_of_the_bus_stopped_goes_on_the_next_one(bus_env: Bus) -> None:
    sender = mqtt.Client(V2)
    sender.connect("localhost")
    sender.publish("a", "before", 1)
    assert bus_env.end() == 0
    bus_env.start()
    rcs = [sender.publish("a", "between", qos).rc for qos in (0, 1)]
    with running() as client:
        client.subscribe("a", 1)
        sender.reconnect()
        sender.loop_start()
        until(lambda: client.got)
        sender.disconnect()
        sender.loop_stop()
        assert rcs == [mqtt.MQTT_ERR_CONN_LOST] * 2
        assert client.got == [b"between"]


def test_an_on_log_that_raises_harms_nothing(bus_env: Bus) -> None:
    with running() as client:
        client.subscribe("a", 1)
        client.on_log = lambda *_: 1 // 0
        client.publish("a", "here", 1)
        until(lambda: client.got)


def test_all_goes_on_while_pubsubd_is_dead(bus_env: Bus) -> None:
    with running() as client:
        client.subscribe("a", 1)
        client.publish("a", "before", 1)
        until(lambda: len(client.got) == 1)
        bus_env.kill()
        client.publish("a", "dead", 1)
        until(lambda: len(client.got) == 2)
        bus_env.start()
        client.subscribe("b", 1)
        client.publish("b", "after", 1)
        until(lambda: len(client.got) == 3)
        assert client.is_connected()


def test_in_asyncio_by_its_socket(bus_env: Bus) -> None:
    async def main() -> list[bytes]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        client = mqtt.Client(V2)
        client.on_socket_open = lambda c, u, sock: loop.add_reader(sock, c.loop_read)
        client.on_socket_close = lambda c, u, sock: loop.remove_reader(sock)
        client.on_socket_register_write = lambda *_: pytest.fail("nothing waits to be written")
        client.on_connect = lambda c, *_: c.subscribe("aio")
        client.on_subscribe = lambda c, *_: c.publish("aio", "hi")
        client.on_message = lambda c, u, message: done.set_result(message.payload)
        gone = loop.create_future()
        client.on_disconnect = lambda *_: gone.set_result(None)
        client.connect("localhost")
        got = [await asyncio.wait_for(done, WAIT_S)]
        client.disconnect()
        await asyncio.wait_for(gone, WAIT_S)
        return got

    assert asyncio.run(main()) == [b"hi"]


def test_losses_are_told(bus_env: Bus) -> None:
    told: list[str] = []
    client = mqtt.Client(V2)
    client.on_log = lambda c, u, level, text: (
        told.append(text) if level == mqtt.MQTT_LOG_WARNING else None
    )
    client.connect("localhost")
    client.subscribe("fast", 0)  # and its loop does not run
    with running() as sender:
        for number in range(5000):
            sender.publish("fast", number, 1)
        client.loop(1)
    assert "messages lost before one of 'fast'" in told[0]
    client.disconnect()


def test_reason_codes_compare_and_print() -> None:
    code = mqtt.ReasonCode(mqtt.PacketTypes.CONNACK, "Not authorized")
    assert code == 135 == code.value
    assert code == "Not authorized"
    assert code == mqtt.ReasonCode(mqtt.PacketTypes.CONNACK, identifier=135)
    assert code > 0 and code.is_failure
    assert repr(code) == "ReasonCode(Connack, 'Not authorized')"
    assert str(mqtt.ReasonCode(mqtt.PacketTypes.DISCONNECT)) == "Normal disconnection"
    with pytest.raises(KeyError):
        mqtt.ReasonCode(mqtt.PacketTypes.SUBACK, "Success")


def test_who_only_publishes_finds_the_next_bus(bus_env: Bus) -> None:
    with running() as sender:
        sender.reconnect_delay_set(0.01, 0.1)
        sender.publish("a", "before", 1).wait_for_publish(WAIT_S)
        assert bus_env.end() == 0
        bus_env.start()
        with running() as client:
            client.subscribe("a", 1)
            until(lambda: sender.publish("a", "after", 1) and client.got)
