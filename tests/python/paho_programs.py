"""Small programs for paho-mqtt, each run with the real one and with shmps.paho: they must print
the same. All of them, or those that are named, in one process:

    paho_programs.py MODULE VERSION HOST PORT [NAME...]

Each has topics of its own, t("..."), and waits for what it prints, never for a time.
"""

from __future__ import annotations

import importlib
import select
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from paho_kit import HOST, PACKAGE, PORT, VERSION, WAIT_S, Looping, mqtt, new, plain, program
from paho_kit import publish, received, run, running, say, settle, show, show_message, subscribe
from paho_kit import subscribed, t, unsubscribed, until


@program
def the_tutorial() -> None:
    got = threading.Event()

    def on_message(client: Any, userdata: Any, msg: Any) -> None:
        say(f"{msg.topic} {msg.payload.decode()}")
        got.set()

    client = new()
    client.on_message = on_message
    client.connect(HOST, PORT)
    client.loop_start()
    client.subscribe(t("users/registered"))
    client.publish(t("users/registered"), "user 4711")
    assert got.wait(WAIT_S)
    client.loop_stop()
    client.disconnect()


@program
def callbacks_and_their_arguments() -> None:
    for protocol in (mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5):
        client = new(protocol=protocol, client_id="some-name")
        told: list[str] = []
        for name in ("connect", "subscribe", "unsubscribe", "publish", "disconnect"):

            def tell(*arguments: Any, name: str = name) -> None:
                show(name)(*arguments)
                told.append(name)

            setattr(client, f"on_{name}", tell)
        loop = Looping(client)
        say(int(client.connect(HOST, PORT, 60)), client.is_connected())
        loop.until(lambda: "connect" in told)  # noqa: B023
        say(client.is_connected())
        say(*map(int, client.subscribe(t("a"), 1)))
        loop.until(lambda: "subscribe" in told)  # noqa: B023
        for qos in (0, 1, 2):
            count = told.count("publish")
            info = client.publish(t("a"), f"{qos}", qos)
            loop.until(lambda: told.count("publish") > count)  # noqa: B023
            say(*map(int, info), info.is_published(), int(info.rc), info.mid, int(info[0]))
        say(*map(int, client.unsubscribe(t("a"))))
        loop.until(lambda: "unsubscribe" in told)  # noqa: B023
        count = told.count("publish")
        client.publish(t("a"), "nobody", 1)
        loop.until(lambda: told.count("publish") > count)  # noqa: B023
        say(int(client.disconnect()), told.count("disconnect"))
        say(client.is_connected(), int(client.disconnect()), int(client.publish(t("a"), "x").rc))
        say(client.subscribe(t("a"))[1], client.unsubscribe(t("a"))[1])


@program
def subscribing_in_all_its_ways() -> None:
    client = new(protocol=mqtt.MQTTv311)
    loop, granted = Looping(client), []
    client.on_subscribe = lambda c, u, mid, qos, *_: granted.append((mid, plain(qos)))
    client.connect(HOST, PORT)
    loop.until(client.is_connected)
    client.subscribe(t("a"))
    client.subscribe(t("a"), 2)
    client.subscribe((t("a"), 1))
    client.subscribe([(t("a"), 0), (t("b/#"), 1), (t("+/c"), 2)])
    loop.until(lambda: len(granted) == 4)
    say(*granted)
    wrong: list[tuple[Any, ...]] = [("", 0), (None, 0), (t("a"), 3), (t("#/a"), 0), (7,)]
    wrong += [(t("a+"), 1), ([(t("a"), 5)],)]
    for arguments in wrong:
        try:
            client.subscribe(*arguments)
            say("accepted", arguments)
        except ValueError:
            say("ValueError", arguments)
    client.disconnect()


@program
def what_publish_refuses() -> None:
    client = new()
    client.connect(HOST, PORT)
    wrong: list[tuple[Any, ...]] = [("",), (None,), (t("+"),), (t("a/#"),), (t("a"), "x", 3)]
    wrong += [(t("a"), [1]), (t("a"), {}), (t("a"), object())]
    for arguments in wrong:
        try:
            client.publish(*arguments)
            say("accepted")
        except (ValueError, TypeError) as error:
            say("ValueError" if isinstance(error, ValueError) else "TypeError")
    client.disconnect()


@program
def payloads() -> None:
    with running() as client:
        subscribed(client, t("p"), 1)
        things = "text \u00e4", b"\0bytes\xff", bytearray(b"array"), 42, -1.5, None, "", True
        for payload in things:
            client.publish(t("p"), payload, 1)
        client.publish(t("p"), b"x" * 100000, 1)
        until(lambda: len(client.got) == 9)
        say(*[m.payload if len(m.payload) < 99 else len(m.payload) for m in client.got])
        say(*{type(m.payload).__name__ for m in client.got})


@program
def order_across_topics() -> None:
    with running() as client, running() as sender:
        subscribed(client, t("#"), 1)
        for number in range(200):
            sender.publish(t(f"topic/{number % 7}"), number, 1)
        say(*[payload for _, payload, *_ in received(client, 200)])


@program
def many_at_qos_0() -> None:
    with running() as client, running() as sender:
        subscribed(client, t("many"))
        for number in range(3000):
            sender.publish(t("many"), number)
        numbers = [int(payload) for _, payload, *_ in received(client, 3000)]
        say(numbers == list(range(3000)))


@program
def the_lower_qos_counts() -> None:
    with running() as client, running() as sender:
        for wanted in (0, 1, 2):
            subscribed(client, t(f"q{wanted}"), wanted)
        for sent in (0, 1, 2):
            for wanted in (0, 1, 2):
                sender.publish(t(f"q{wanted}"), sent, sent).wait_for_publish(WAIT_S)
        settle(client, sender)
        say(*sorted(received(client, 9)))


@program
def wildcards() -> None:
    topics = ("a", "a/b", "a/b/c", "b", "b/b", "a/c/c", "$own/a", "$own/b/c")
    filters = "# + a/# +/b a/+/c a/b +/+/+ $own/# $own/+ +/a $own/a".split()
    for at, sub in enumerate(filters):
        with running() as client:
            root = "" if sub.startswith("$") else f"{t(f'w{at}')}/"
            subscribed(client, root + sub, 1)
            for topic in topics:
                client.publish(topic if topic.startswith("$") else root + topic, topic, 1)
            settle(client)
            say(sub, *sorted(payload for _, payload, *_ in received(client, 0)))


@program
def dollar_topics_hide_from_wildcards() -> None:
    with running() as client:
        subscribed(client, [("#", 1), ("+/own", 1)])
        client.publish("$hidden/own", "hidden", 1)
        client.publish(t("own"), "seen", 1)
        settle(client)
        say(*[m.payload for m in client.got if m.payload in (b"hidden", b"seen")])


@program
def overlapping_subscriptions() -> None:
    for protocol in (mqtt.MQTTv311, mqtt.MQTTv5):
        with running(protocol=protocol) as client, running() as sender:
            for sub, qos in (("a/#", 0), ("a/b", 1), ("+/b", 0)):
                subscribed(client, t(sub), qos)
            sender.publish(t("a/b"), "all", 1)
            sender.publish(t("a/c"), "first", 1)
            sender.publish(t("x/b"), "last", 1)
            settle(client, sender)
            say(*sorted(received(client, 3)))
            client.got.clear()
            unsubscribed(client, t("a/b"))
            sender.publish(t("a/b"), "again", 1).wait_for_publish(WAIT_S)
            settle(client, sender)
            say(len(client.got) > 0, {m.qos for m in client.got})


@program
def unsubscribing() -> None:
    with running() as client, running() as sender:
        subscribed(client, [(t("a"), 1), (t("b"), 1), (t("c"), 1)])
        unsubscribed(client, [t("a"), t("b"), t("unknown")])
        for topic in "abc":
            sender.publish(t(topic), topic, 1)
        settle(client, sender)
        say(*received(client, 1))
        for wrong in ("", None, [""]):
            try:
                client.unsubscribe(wrong)
                say("accepted", wrong)
            except (ValueError, TypeError):
                say("refused", wrong)


@program
def retained_messages() -> None:
    with running() as sender:
        sender.publish(t("r/1"), "old", 1, retain=True).wait_for_publish(WAIT_S)
        sender.publish(t("r/1"), "kept", 1, retain=True).wait_for_publish(WAIT_S)
        sender.publish(t("r/2"), "another", 0, True)
        sender.publish(t("r/1"), "passing by", 1).wait_for_publish(WAIT_S)
        with running() as client:
            subscribed(client, t("r/+"), 1)
            say(*sorted(received(client, 2)))
            client.got.clear()
            sender.publish(t("r/1"), "live", 1, retain=True)
            say(*received(client, 1))
            client.got.clear()
            subscribed(client, t("r/+"), 0)
            say("again", *sorted(received(client, 2)))
    with running() as client:  # its publisher has gone
        subscribed(client, t("r/1"), 2)
        say(*received(client, 1))
        client.got.clear()
        client.publish(t("r/1"), None, 1, retain=True).wait_for_publish(WAIT_S)
        say("cleared", *received(client, 1))
    with running() as client:
        subscribed(client, t("r/#"), 2)
        settle(client)
        say(*received(client, 1))
        client.publish(t("r/2"), "", 1, retain=True).wait_for_publish(WAIT_S)


@program
def subscribe_options_of_mqtt_5() -> None:
    module: Any = importlib.import_module(f"{PACKAGE}.subscribeoptions")
    options = module.SubscribeOptions
    with running(protocol=mqtt.MQTTv5) as client, running() as sender:
        sender.publish(t("o/kept"), "kept", 1, True).wait_for_publish(WAIT_S)
        for name, option in (
            ("never", options(qos=1, retainHandling=options.RETAIN_DO_NOT_SEND)),
            ("if new", options(qos=1, retainHandling=options.RETAIN_SEND_IF_NEW_SUB)),
            ("always", options(qos=1)),
            ("as published", options(qos=1, retainAsPublished=True)),
            ("not mine", options(qos=1, noLocal=True, retainHandling=2)),
        ):
            subscribed(client, t("o/#"), options=option)
            subscribed(client, t("o/#"), options=option)
            client.publish(t("o/mine"), "mine", 1).wait_for_publish(WAIT_S)
            sender.publish(t("o/other"), "other", 1, True).wait_for_publish(WAIT_S)
            settle(client, sender)
            say(name, option.json(), *sorted(received(client, 0)))
            unsubscribed(client, t("o/#"))
            sender.publish(t("o/other"), "", 1, True).wait_for_publish(WAIT_S)
            client.got.clear()
        sender.publish(t("o/kept"), "", 1, True).wait_for_publish(WAIT_S)


@program
def properties_of_mqtt_5() -> None:
    kinds = importlib.import_module(f"{PACKAGE}.packettypes")
    module = importlib.import_module(f"{PACKAGE}.properties")
    properties = module.Properties(kinds.PacketTypes.PUBLISH)
    properties.ContentType = "text/plain"
    properties.ResponseTopic = "answer/to"
    properties.CorrelationData = b"\x01\x02"
    properties.PayloadFormatIndicator = 1
    properties.MessageExpiryInterval = 3600
    properties.UserProperty = ("name", "value")
    properties.UserProperty = ("name", "another")
    number = module.Properties(kinds.PacketTypes.SUBSCRIBE)
    number.SubscriptionIdentifier = 77
    say(properties.json(), properties)
    with running(protocol=mqtt.MQTTv5) as client, running() as old:
        subscribed(client, t("p"), 1, properties=number)
        subscribed(old, t("p"), 1)
        client.publish(t("p"), "hi", 1, properties=properties)
        until(lambda: client.got and old.got)
        message = client.got[0].properties
        message.MessageExpiryInterval = 3600  # less by what it took
        say(client.got[0].payload, message.json(), old.got[0].payload)
    for name, value in (("TopicAlias", 0), ("NoSuch", 1), ("SessionExpiryInterval", 1)):
        try:
            setattr(properties, name, value)
            say("accepted", name)
        except module.MQTTException:
            say("refused", name)


@program
def callbacks_by_topic() -> None:
    with running() as client:
        told: list[tuple[str, bytes]] = []

        def tell(name: str) -> Callable[..., None]:
            return lambda c, u, m: told.append((name, m.payload))

        client.on_message = tell("on_message")
        for sub in ("+/x", "a/#", "a/x", "b/y"):
            client.message_callback_add(t(sub), tell(sub))

        @client.topic_callback(t("b/+"))  # type: ignore[untyped-decorator]
        def by_decorator(client: Any, userdata: Any, message: Any) -> None:
            told.append(("by decorator", message.payload))

        client.message_callback_remove(t("b/y"))
        client.message_callback_remove(t("never/added"))
        subscribed(client, t("#"), 1)
        for topic in ("a/x", "a", "b/x", "b/y", "c/d"):
            client.publish(t(topic), topic, 1)
        settle(client)
        say(*[entry for entry in told if entry[1]])
        for arguments in ((None, tell("x")), (t("a"), None)):
            try:
                client.message_callback_add(*arguments)
            except ValueError:
                say("ValueError")


@program
def decorators_and_a_subclass() -> None:
    class Mine(mqtt.Client):  # type: ignore[misc]
        def on_message(self, client: Any, userdata: Any, message: Any) -> None:
            say("method", message.payload, userdata)
            done.set()

    done = threading.Event()
    version = (mqtt.CallbackAPIVersion.VERSION2,) if VERSION == 2 else ()
    client = Mine(*version, userdata="first")

    @client.connect_callback()  # type: ignore[untyped-decorator]
    def connected(client: Any, userdata: Any, *_: Any) -> None:
        say("connected", userdata)
        client.user_data_set({"user": "data"})
        client.subscribe(t("s"))

    @client.subscribe_callback()  # type: ignore[untyped-decorator]
    def answered(client: Any, userdata: Any, *_: Any) -> None:
        say("subscribed", userdata)
        client.publish(t("s"), "hi")

    client.connect(HOST, PORT)
    client.loop_start()
    assert done.wait(WAIT_S)
    client.disconnect()
    client.loop_stop()


@program
def loop_forever_until_disconnect() -> None:
    client = new(userdata=[])
    client.on_connect = lambda c, *_: c.subscribe(t("f"), 1)
    client.on_subscribe = lambda c, *_: [c.publish(t("f"), n, 1) for n in range(5)]
    client.on_disconnect = show("disconnect")

    def on_message(client: Any, userdata: list[int], message: Any) -> None:
        userdata.append(int(message.payload))
        if len(userdata) == 5:
            client.disconnect()

    client.on_message = on_message
    client.connect(HOST, PORT)
    say(int(client.loop_forever()))
    say(client._userdata, client.is_connected())


@program
def connect_async_and_again() -> None:
    client = new()
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.on_disconnect = show("disconnect")
    client.connect_async(HOST, PORT)
    say(client.is_connected())
    client.loop_start()
    for _ in range(2):
        assert connected.wait(WAIT_S)
        connected.clear()
        say(client.is_connected())
        client.disconnect()
        client.loop_stop()
        say(client.is_connected())
        client.reconnect()
        client.loop_start()
    assert connected.wait(WAIT_S)
    client.disconnect()
    client.loop_stop()
    say(int(client.loop_stop() or 0) >= 0)


@program
def published_before_it_is_connected() -> None:
    client = new()
    first = client.publish(t("early"), "0")
    second = client.publish(t("early"), "1", 1)
    say(int(first.rc), int(second.rc))
    for info in (first, second):
        try:
            info.wait_for_publish(1)
        except RuntimeError as error:
            say(error)
    with running() as reader:
        subscribed(reader, t("early"), 1)
        client.connect(HOST, PORT)
        client.loop_start()
        say(*received(reader, 1))
        client.disconnect()
        client.loop_stop()


@program
def a_socket_in_a_poll() -> None:
    opened: list[str] = []
    client = new()
    client.on_socket_open = lambda c, u, s: opened.append("open")
    client.on_socket_close = lambda c, u, s: opened.append("close")
    client.on_message = show_message
    say(client.socket())
    client.connect(HOST, PORT)
    say(opened, client.socket() is not None)
    got: list[Any] = []
    client.on_subscribe = lambda c, *_: c.publish(t("poll"), "hi")
    client.on_message = lambda c, u, m: got.append(m.payload)
    client.subscribe(t("poll"))
    poll = select.poll()
    poll.register(client.socket().fileno(), select.POLLIN)
    while not got:
        if client.want_write():
            client.loop_write()
        assert poll.poll(WAIT_S * 1000)
        assert int(client.loop_read()) == 0
        assert int(client.loop_misc()) == 0
    say(got)
    client.disconnect()
    say(opened, client.socket(), int(client.loop_read()), int(client.loop_misc()))


@program
def exceptions_in_callbacks() -> None:
    def fails(*_: Any) -> None:
        raise KeyError("mine")

    client = new()
    client.on_connect = fails
    client.connect(HOST, PORT)
    try:
        Looping(client).until(lambda: False)
    except KeyError as error:
        say("KeyError", error)
    client.on_connect = None
    client.suppress_exceptions = True
    client.on_message = fails
    client.on_log = lambda c, u, level, text: (
        say(int(level), text) if "Caught" in text else None
    )
    client.subscribe(t("e"), 1)
    done: list[int] = []
    client.message_callback_add(t("e/end"), lambda *_: done.append(1))
    client.subscribe(t("e/end"), 1)
    client.publish(t("e"), "x", 1)
    client.publish(t("e/end"), "x", 1)
    Looping(client).until(lambda: done)
    client.disconnect()


@program
def helpers_publish() -> None:
    with running() as client:
        subscribed(client, t("h/#"), 1)
        publish.single(t("h/1"), "one", hostname=HOST, port=PORT)
        publish.single(t("h/1"), "two", qos=1, hostname=HOST, port=PORT)
        messages = [
            {"topic": t("h/2"), "payload": "three", "qos": 1},
            (t("h/2"), "four", 1, False),
            {"topic": t("h/3"), "payload": 5},
            {"topic": t("h/3")},
        ]
        publish.multiple(messages, hostname=HOST, port=PORT)
        publish.single(t("h/4"), "kept", retain=True, hostname=HOST, port=PORT)
        say(*received(client, 7))
    try:
        publish.multiple(7, hostname=HOST, port=PORT)
    except TypeError:
        say("TypeError")
    message = subscribe.simple(t("h/4"), hostname=HOST, port=PORT)
    say(message.topic, message.payload, bool(message.retain))
    publish.single(t("h/4"), None, retain=True, hostname=HOST, port=PORT)


@program
def helpers_subscribe() -> None:
    sender = threading.Thread(target=keep_publishing, daemon=True)
    sender.start()
    found = subscribe.simple([t("s/a"), t("s/b")], 1, 4, hostname=HOST, port=PORT)
    say(len(found), {m.topic for m in found} <= {t("s/a"), t("s/b")})
    found = subscribe.simple(t("s/a"), qos=0, hostname=HOST, port=PORT)
    say(found.topic, found.payload)

    def stop(client: Any, userdata: Any, message: Any) -> None:
        stops.append((userdata, message.topic))
        client.disconnect()

    stops: list[tuple[Any, str]] = []
    subscribe.callback(stop, t("s/b"), userdata="mine", hostname=HOST, port=PORT)
    say(stops[0])
    stopped.set()
    sender.join()
    for options in ({"qos": 3}, {"msg_count": 0}):
        try:
            subscribe.simple(t("s/a"), hostname=HOST, port=PORT, **options)
        except ValueError:
            say("ValueError")


stopped = threading.Event()


def keep_publishing() -> None:
    with running() as client:
        while not stopped.wait(0.01):
            client.publish(t("s/a"), "a", 1)
            client.publish(t("s/b"), "b", 1)


@program
def names_and_numbers() -> None:
    for code in range(-2, 18):
        say(code, mqtt.error_string(code))
    for code in range(7):
        say(code, mqtt.connack_string(code))
    names = [name for name in dir(mqtt) if name.startswith(("MQTT_ERR", "MQTT_LOG", "CONNACK_"))]
    say(*[(name, int(getattr(mqtt, name))) for name in names])
    say(*[int(number) for number in (mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5)])
    pairs = "a a, a/b a/b, a a/b, a/# a, a/# a/b/c, + a, + /a, +/+ /a, # $a, +/b $a/b, $a/# $a/b"
    more = "a/+/c a//c, a/+ a/, # a/b, a/b a/c, +/b/# a/b, a+ a+"
    for pair in [*pairs.split(", "), *more.split(", ")]:
        say(pair, mqtt.topic_matches_sub(*pair.split(" ")))


@program
def infos_and_messages() -> None:
    info = mqtt.MQTTMessageInfo(7)
    say(*map(int, info), int(info[0]), int(info[1]), info.is_published())
    result, mid = info
    say(int(result), mid)
    try:
        say(info[2])
    except IndexError:
        say("IndexError")
    info.wait_for_publish(0.01)
    message = mqtt.MQTTMessage(3, b"a/b")
    say(message.mid, message.topic, message.payload, message.qos, message.retain, message.dup)
    say(message == mqtt.MQTTMessage(3), message == mqtt.MQTTMessage(4), message != 3)


@program
def what_a_client_refuses() -> None:
    attempts: tuple[Callable[[], Any], ...] = (
        lambda: new(clean_session=False),
        lambda: new(transport="pigeon"),
        lambda: new(protocol=mqtt.MQTTv5, clean_session=True),
        lambda: new().connect(""),
        lambda: new().connect(HOST, 0),
        lambda: new().connect(HOST, PORT, -1),
        lambda: new().reconnect(),
        lambda: new().loop(-1),
        lambda: new().will_set("", "x"),
        lambda: new().will_set("a", "x", 3),
        lambda: new().max_inflight_messages_set(-1),
        lambda: new().max_queued_messages_set(-1),
    )
    for attempt in attempts:
        try:
            attempt()
            say("accepted")
        except ValueError:
            say("ValueError")


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    run(sys.argv[5:])
