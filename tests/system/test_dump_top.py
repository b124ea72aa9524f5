#!/usr/bin/env python3
"""shmps dump and top -b: the last messages of a dead bus, and what a living one does."""

import json
import re
import signal
import threading
import time
from contextlib import contextmanager
from datetime import datetime

from tap import run_cases, segments
from tool import ERROR, NO_DAEMON, NO_TOPIC, SHM, finish, kill, own_bus, publish, stop

RING_HEAD, RING_SLOTS = 384, 4096  # offsets in a ring


@contextmanager
def killed_bus(*lines):
    """What is left of a topic a/b whose publisher and daemon were killed."""
    with own_bus() as bus:
        sub = bus.subscribe("a/b", "--reliable")
        pub = bus.start("pub", "a/b", "-l", "--depth", "8", "--tag", "9")
        publish(pub, *lines)
        for _ in lines:
            sub.stdout.readline()
        bus.kill_daemon()
        kill(sub, pub)
        bus.pub = pub
        yield bus


def ring_of(bus):
    (name,) = [n for n in segments(f".{bus.instance}.") if re.search(r"\.r\d+$", n)]
    return SHM / name


def damage(path, *words):
    """Store (offset, word of 8 bytes) into a segment."""
    data = bytearray(path.read_bytes())
    for at, word in words:
        data[at : at + 8] = word.to_bytes(8, "little")
    path.write_bytes(data)


# ---------------------------------------------------------------------------- dump


def after_everything_was_killed_the_last_messages_are_told_by_publish_time():
    with own_bus() as bus:
        sub = bus.subscribe("a/#")
        began = time.time()
        pubs = [bus.start("pub", "a/b", "-l") for _ in range(3)]
        other = bus.start("pub", "a/c", "-l")
        sent = []
        for i in range(15):  # one after the other, so that their order is known
            publish(pubs[i % 3], b"%d" % i)
            sub.stdout.readline()
            sent.append((pubs[i % 3].pid, i // 3, str(i)))
        publish(other, b"other")
        sub.stdout.readline()
        ended = time.time()
        bus.kill_daemon()
        kill(sub, other, *pubs)
        got = bus.run("dump", "a/b", "--json")
        assert b"does not run" in got.stderr, got.stderr
        told = [json.loads(line) for line in got.stdout.splitlines()]
        assert [(o["pid"], o["seq"], o["payload"]) for o in told] == sent[-10:], told
        assert all(o["lost"] == 0 and o["command"] == "shmps" for o in told), told
        for o in told:
            at = datetime.fromisoformat(o["time"].replace("Z", "+00:00")).timestamp()
            assert began - 0.1 <= at <= ended + 0.1, (began, at, ended)
        newest = bus.objects("dump", "-n", "1")
        assert [(o["topic"], o["payload"]) for o in newest] == [("a/b", "14"), ("a/c", "other")]
        assert len(bus.objects("dump", "-n", "100", "a/+")) == 16


def payloads_are_text_if_printable_else_hex():
    lines = [b"plain", "\u00e4\u00f6".encode(), b"\x1b[2J", bytes(range(128, 148)), b""]
    with killed_bus(*lines) as bus:
        told = bus.run("dump").stdout.decode().splitlines()
        heads = [line for line in told if not line.startswith("    ")]
        for number, (head, line) in enumerate(zip(heads, lines, strict=True)):
            expected = (
                rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{{6}}[+-]\d{{4}}  a/b  seq {number}  "
                rf"pid {bus.pub.pid} shmps  {len(line)} bytes  tag 9"
            )
            assert re.fullmatch(expected, head), head
        assert [line for line in told if line.startswith("    ")] == [
            "    plain",
            "    \u00e4\u00f6",
            "    00000000  1b 5b 32 4a                                      |.[2J|",
            "    00000000  80 81 82 83 84 85 86 87 88 89 8a 8b 8c 8d 8e 8f  |................|",
            "    00000010  90 91 92 93                                      |....|",
        ]
        assert bus.run("dump", "--raw").stdout == b"".join(line + b"\n" for line in lines)
        cut = bus.run("dump", "--bytes", "3").stdout.decode()
        assert "\n    pla\n    ... 2 more bytes\n" in cut, cut
        assert "\n    \u00e4\n    ... 2 more bytes\n" in cut, cut  # no half of a character
        assert bus.run("dump", "--raw", "--bytes", "1", "-n", "3").stdout == b"\x1b\n\x80\n\n"
        (o,) = bus.objects("dump", "-n", "2", "--bytes", "2")[:1]
        assert (o["bytes"], o["payload_base64"]) == (20, "gIE="), o


def gaps_are_marked():
    with killed_bus(*(b"%d" % i for i in range(6))) as bus:
        ring = ring_of(bus)
        slots = [RING_SLOTS + 64 * i for i in range(6)]
        damage(ring, (RING_HEAD, 6), (slots[2], 0), (slots[3], 999), (slots[5], 0))
        text = bus.run("dump").stdout.decode()
        told = [line for line in text.splitlines() if line[:4].strip() == "" or "gap" in line]
        pid = bus.pub.pid
        assert told == [
            "    0",
            "    1",
            f"--- gap: 2 messages of a/b are missing, seq 2 to 3 of process {pid}",
            "    4",
            f"--- gap: 1 messages of a/b are missing, seq 5 to 5 of process {pid}",
        ], told
        objects = bus.objects("dump")
        assert [(o.get("seq"), o["lost"]) for o in objects] == [(0, 0), (1, 0), (4, 2), (None, 1)]
        assert bus.run("dump", "--raw").stdout == b"0\n1\n4\n"


def only_what_is_still_there_is_told():
    with killed_bus(*(b"%d" % i for i in range(21))) as bus:
        info = bus.objects("info", "a/b")[0]["publishers"][0]
        told = [o["seq"] for o in bus.objects("dump", "-n", "100")]
        assert told == list(range(info["low"], 21)) and 0 < len(told) <= 8, (info, told)


def a_publisher_that_grew_has_no_gap():
    with own_bus() as bus:
        sub = bus.subscribe("a", "--reliable", "-C", "100")
        stop(sub)
        pub = bus.start("pub", "a", "-l")
        publish(pub, b"x", b"x", b"y" * 10000, b"z")
        bus.until("a", lambda info: info["messages"] == 4)
        told = bus.objects("dump")
        assert [(o["seq"], o["bytes"], o["lost"]) for o in told] == [
            (0, 1, 0), (1, 1, 0), (2, 10000, 0), (3, 1, 0)
        ], told
        assert told[2]["payload"] == "y" * 10000 and len({o["publisher"] for o in told}) == 1


def what_is_dumped_of_a_living_ring_is_whole():
    with own_bus() as bus:
        pub = bus.start("pub", "a", "-l", "--depth", "16")
        bus.running = True

        def feed():
            at = 0
            while bus.running:
                lines = b"".join(b"%0100d\n" % i for i in range(at, at + 1000))
                while lines:  # a write can be cut short by a signal
                    lines = lines[pub.stdin.write(lines) :]
                at += 1000

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            bus.until("a", lambda info: info["messages"] > 1000)
            seen = 0
            for _ in range(40):
                for o in bus.objects("dump", "-n", "16"):
                    assert "seq" not in o or int(o["payload"]) == o["seq"], o
                    seen += "seq" in o
            assert seen > 0
            assert bus.until("a", lambda info: True)["subscribers"] == []
        finally:
            bus.running = False
            feeder.join()


def a_topic_that_is_not_there_and_a_ring_that_cannot_be_read():
    with killed_bus(b"1") as bus:
        got = bus.run("dump", "a/b", "not/there", status=NO_TOPIC)
        assert b"'not/there'" in got.stderr and got.stdout.endswith(b"    1\n"), got
        ring_of(bus).write_bytes(b"rubbish")
        got = bus.run("dump", status=ERROR)
        assert b"a/b: /dev/shm/shmps." in got.stderr and got.stdout == b"", got


# ---------------------------------------------------------------------------- top


def tables(process):
    """The objects of one interval after the other."""
    interval = []
    for line in process.stdout:
        o = json.loads(line)
        if interval and o["time"] != interval[0]["time"]:
            yield interval
            interval = []
        interval.append(o)


def rates_add_up_to_what_was_published():
    with own_bus() as bus:
        sub = bus.subscribe("a")
        pub = bus.start("pub", "a", "-l")
        publish(pub, b"first")
        sub.stdout.readline()
        top = bus.start("top", "-b", "-d", "0.05", "--json")
        told = tables(top)
        assert next(told)[0]["messages"] == 1
        publish(pub, *([b"xyz"] * 100))
        messages = size = 0
        for (o,) in told:
            messages += o["messages_per_s"] * o["interval_s"]
            size += o["bytes_per_s"] * o["interval_s"]
            if o["messages"] == 101:
                break
        assert (round(messages), round(size)) == (100, 300), (messages, size)
        assert (o["publishers"], o["subscribers"], o["bytes"]) == (1, 1, 305), o
        assert o["memory_bytes"] == bus.objects("ls")[0]["memory_bytes"]
        top.send_signal(signal.SIGINT)
        finish(top, 128 + signal.SIGINT)


def lag_losses_and_fill_are_those_of_the_slowest():
    with own_bus() as bus:
        slow, quick = bus.subscribe("a"), bus.subscribe("a")
        latest = bus.subscribe("a", "--latest")
        pub = bus.start("pub", "a", "-l", "--depth", "8")
        publish(pub, b"0")
        for sub in (slow, quick, latest):
            sub.stdout.readline()
        stop(slow)
        stop(latest)
        for i in range(1, 21):
            publish(pub, b"%d" % i)
            quick.stdout.readline()
        info = bus.until("a", lambda info: any(
            s["pid"] == quick.pid and s["rings"][0]["lag"] == 0 for s in info["subscribers"]
        ))
        (at,) = [s["rings"][0]["cursor"] for s in info["subscribers"] if s["pid"] == slow.pid]
        (o,) = bus.objects("top", "-b", "-n", "1", "-d", "0.01")
        assert (o["lag"], o["lost"], o["fill_percent"]) == (
            21 - at, info["publishers"][0]["low"] - at, [100]
        ), (o, info)
        assert o["lost"] > 0 and o["evicted"] == 0 and o["refused"] == 0, o


def tables_are_sorted_by_what_is_asked_for():
    with own_bus() as bus:
        subs = [bus.subscribe(topic) for topic in ("big", "busy", "calm")]
        big = bus.start("pub", "big", "-l", "--depth", "1024")
        busy = bus.start("pub", "busy", "-l", "--depth", "2")
        publish(big, b"x" * 50)
        subs[0].stdout.readline()
        for key, order in (("rate", "busy big calm"), ("memory", "big busy calm"),
                           ("topic", "big busy calm"), ("bytes", "busy big calm")):
            top = bus.start("top", "-b", "-d", "0.05", "--sort", key)
            assert b"instance" in top.stdout.readline()
            publish(busy, *([b"y"] * 60))
            while True:
                rows = [line.split() for line in iter(top.stdout.readline, b"\n")]
                rows = [row for row in rows if row[0] in (b"big", b"busy", b"calm")]
                if any(row[:1] == [b"busy"] and row[1] != b"0" for row in rows):
                    break
            assert [row[0].decode() for row in rows] == order.split(), (key, rows)
            kill(top)


def top_of_a_dead_bus_and_of_one_that_ends():
    with killed_bus(b"1") as bus:
        got = bus.run("top", "-b", "-n", "2", "-d", "0.01")
        assert got.stdout.count(b"(does not run)") == 2 and b"does not run" in got.stderr, got
    with own_bus() as bus:
        top = bus.start("top", "-b", "-d", "0.02")
        assert f"instance {bus.instance}".encode() in top.stdout.readline()
        bus.run("stop")
        _, errors = finish(top, NO_DAEMON)
        assert b"there is no pubsubd" in errors, errors


if __name__ == "__main__":
    run_cases(
        [
            after_everything_was_killed_the_last_messages_are_told_by_publish_time,
            payloads_are_text_if_printable_else_hex,
            gaps_are_marked,
            only_what_is_still_there_is_told,
            a_publisher_that_grew_has_no_gap,
            what_is_dumped_of_a_living_ring_is_whole,
            a_topic_that_is_not_there_and_a_ring_that_cannot_be_read,
            rates_add_up_to_what_was_published,
            lag_losses_and_fill_are_those_of_the_slowest,
            tables_are_sorted_by_what_is_asked_for,
            top_of_a_dead_bus_and_of_one_that_ends,
        ]
    )
