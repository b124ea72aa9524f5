#!/usr/bin/env python3
"""shmps ls and info: what they tell, also of a dead bus; broken segments crash nobody."""

import json
import os
import random
import re
import signal
import subprocess
from contextlib import contextmanager

from tap import run_cases, segments
from tool import (
    DONE,
    ERROR,
    NO_DAEMON,
    NO_TOPIC,
    PERMISSION,
    SHM,
    SHMPS,
    TIMEOUT_S,
    VERSION,
    numbers,
    own_bus,
    stop,
)


# ---------------------------------------------------------------------------- ls and info


def ls_and_info_tell_what_is_there():
    with own_bus() as bus:
        reliable = bus.subscribe("a/+", "--reliable", "-C", "100")
        lossy = bus.subscribe("a/x")
        pub = bus.start("pub", "a/x", "-l", "--depth", "16")
        pub.stdin.write(numbers(4))
        pub.stdin.flush()
        for _ in range(4):
            lossy.stdout.readline()
            reliable.stdout.readline()
        stop(reliable)
        pub.stdin.write(numbers(4, 10))
        pub.stdin.flush()
        for _ in range(6):
            lossy.stdout.readline()
        info = bus.until("a/x", lambda info: any(
            s["pid"] == lossy.pid and s["rings"][0]["cursor"] == 10 for s in info["subscribers"]
        ))
        assert bus.objects("ls") == [
            {
                "topic": "a/x",
                "publishers": 1,
                "subscribers": 2,
                "messages": 10,
                "bytes": 10,
                "memory_bytes": info["memory_bytes"],
            }
        ]
        sizes = [(SHM / name).stat().st_size for name in segments(f".{bus.instance}.")
                 if re.search(r"\.[re]\d", name)]
        assert info["memory_bytes"] == sum(sizes) > 0, (info["memory_bytes"], sizes)
        assert info["daemon_alive"] and info["daemon_pid"] == bus.daemon.pid
        (publisher,) = info["publishers"]
        assert publisher["pid"] == pub.pid and publisher["uid"] == os.getuid()
        assert publisher["command"] == "shmps" and publisher["state"] == "live"
        assert (publisher["depth"], publisher["head"], publisher["bytes"]) == (16, 10, 10)
        assert publisher["stalls"] == 0 and publisher["pins_granted"] == 2
        told = {s["pid"]: s for s in info["subscribers"]}
        assert set(told) == {reliable.pid, lossy.pid}
        for process, policy, filter_, cursor in (
            (reliable, "reliable", "a/+", 4),
            (lossy, "lossy", "a/x", 10),
        ):
            s = told[process.pid]
            assert (s["policy"], s["filter"], s["pins_granted"]) == (policy, filter_, 1), s
            (ring,) = s["rings"]
            assert ring["publisher"] == publisher["id"], ring
            assert (ring["cursor"], ring["lag"]) == (cursor, 10 - cursor), ring
            assert not ring["evicted"] and ring["pins_held"] == 0, ring
        rows = [line.split() for line in bus.run("info", "a/x").stdout.decode().splitlines()]
        for process, row in (
            (reliable, ["reliable", str(publisher["id"]), "4", "6", "0/1", "live", "a/+"]),
            (lossy, ["lossy", str(publisher["id"]), "10", "0", "0/1", "live", "a/x"]),
        ):
            assert [str(process.pid), str(os.getuid()), "shmps", *row] in rows, rows


def ls_is_sorted_and_aligned():
    with own_bus() as bus:
        topics = ["b/" + "x" * 50, "\u00fcber", "a", "$x"]
        subs = [bus.subscribe(topic) for topic in topics]
        lines = bus.run("ls").stdout.decode().splitlines()
        assert [line.split()[0] for line in lines] == ["TOPIC", *sorted(topics)]
        assert len({len(line) for line in lines}) == 1, lines
        assert [o["topic"] for o in bus.objects("ls")] == sorted(topics)
        assert len(subs) == len(topics)


def a_publisher_that_grew_is_counted_once():
    with own_bus() as bus:
        sub = bus.subscribe("a", "--reliable", "-C", "100")
        stop(sub)
        pub = bus.start("pub", "a", "-l")
        pub.stdin.write(b"x\n" * 3 + b"y" * 10000 + b"\n")
        pub.stdin.flush()
        info = bus.until("a", lambda info: info["messages"] == 4)
        assert info["bytes"] == 10003, info["bytes"]
        assert sorted(p["state"] for p in info["publishers"]) == ["live", "retired"], info
        assert len({p["id"] for p in info["publishers"]}) == 1
        assert bus.objects("ls")[0]["publishers"] == 1
        told = bus.run("info", "a").stdout.decode()
        assert "\npublishers: 1 (and 1 retired ring, still to be read)\n" in told, told
        pub.stdin.close()
        bus.until("a", lambda info: {p["state"] for p in info["publishers"]} == {"retired"})
        told = bus.run("info", "a").stdout.decode()
        assert "\npublishers: 0 (and 2 retired rings, still to be read)\n" in told, told


def a_publisher_that_grew_counts_on():
    with own_bus() as bus:
        sub = bus.subscribe("a", "--reliable", "-C", "100")
        stop(sub)
        pub = bus.start("pub", "a", "-l", "--depth", "4")
        pub.stdin.write(numbers(6))
        pub.stdin.flush()
        bus.until("a", lambda info: any(p["stalls"] > 0 for p in info["publishers"]))
        sub.send_signal(signal.SIGCONT)
        for _ in range(6):
            sub.stdout.readline()
        stop(sub)  # the ring to come waits for it: it cannot begin with stalls of its own
        (small,) = bus.until("a", lambda info: info["messages"] == 6)["publishers"]
        pub.stdin.write(b"y" * 10000 + b"\n")
        pub.stdin.flush()
        info = bus.until("a", lambda info: info["messages"] == 7)
        (large,) = [p for p in info["publishers"] if p["state"] == "live"]
        assert large["ring"] != small["ring"] and large["message_bytes"] >= 10000, info
        assert (large["id"], large["bytes"]) == (small["id"], 10006), info
        assert large["stalls"] == small["stalls"] > 0, info
        assert large["wakes"] >= small["wakes"], info


def with_the_daemon_dead_ls_and_info_still_tell():
    with own_bus() as bus:
        sub = bus.subscribe("a")
        pub = bus.start("pub", "a", "-l")
        pub.stdin.write(numbers(3))
        pub.stdin.flush()
        for _ in range(3):
            sub.stdout.readline()
        bus.until("a", lambda info: info["subscribers"][0]["rings"][0]["cursor"] == 3)
        before = [bus.run(*args, "--json").stdout for args in (["ls"], ["info", "a"])]
        bus.kill_daemon()
        for args, was in zip((["ls"], ["info", "a"]), before):
            got = bus.run(*args, "--json")
            assert got.stdout == was.replace(b'"daemon_alive":true', b'"daemon_alive":false'), got
            assert b"does not run" in got.stderr and str(bus.daemon.pid) in got.stderr.decode()
            assert b"does not run" in bus.run(*args).stderr
        bus.run("info", "b", status=NO_TOPIC)
        bus.run("pub", "a", "b", status=NO_DAEMON)
        sub.kill()
        sub.wait()
        pub.kill()
        pub.wait()
        info = bus.objects("info", "a")[0]
        assert info["publishers"][0]["state"] == info["subscribers"][0]["state"] == "dead", info


# ---------------------------------------------------------------------------- broken segments


@contextmanager
def black_box():
    """What a daemon, a publisher and a subscriber that were killed have left."""
    with own_bus() as bus:
        sub = bus.subscribe("a/#", "--reliable")
        pub = bus.start("pub", "a/b", "-l")
        pub.stdin.write(numbers(5) + b"z" * 300 + b"\n")
        pub.stdin.flush()
        for _ in range(6):
            sub.stdout.readline()
        bus.kill_daemon()
        for process in (sub, pub):
            process.kill()
            process.wait()
        yield bus


def segment(bus, kind):
    (name,) = [n for n in segments(f".{bus.instance}.") if re.search(rf"\.{kind}[\d.]*$", n)]
    return SHM / name


def truncated_and_garbage_segments_are_told():
    with black_box() as bus:
        bus.run("ls")
        for kind in ("dir", "r", "e"):
            path = segment(bus, kind)
            good = path.read_bytes()
            for bad in (
                b"",
                good[:1],
                good[:100],
                good[: len(good) // 2],
                bytes(len(good)),
                random.Random(2).randbytes(len(good)),
                good[:8] + b"\xff" * (len(good) - 8),
            ):
                path.write_bytes(bad)
                other_version = bad[8:12] == b"\xff" * 4 and kind == "dir"
                status = VERSION if other_version else ERROR
                for args in (["ls"], ["info", "a/b"], ["ls", "--json"], ["info", "a/b", "--json"]):
                    got = bus.run(*args, status=status)
                    assert path.name in got.stderr.decode(), (kind, len(bad), args, got.stderr)
                    assert (got.stdout == b"") == (kind == "dir"), (kind, args, got.stdout)
            path.write_bytes(good)
        segment(bus, "r").unlink()
        got = bus.run("info", "a/b", status=ERROR)
        assert b"unreadable" in got.stdout, got


def another_version_and_foreign_permissions_have_their_exit_codes():
    with black_box() as bus:
        path = segment(bus, "dir")
        good = path.read_bytes()
        path.write_bytes(good[:8] + b"\x02\x00\x00\x00" + good[12:])  # identity.version
        for args in (["ls"], ["info", "a/b"], ["sub", "a/b", "--observe"]):
            got = bus.run(*args, status=VERSION)
            assert b"SHMPS_E_VERSION" in got.stderr, got.stderr
        path.write_bytes(good)
        bus.run("ls")
        path.chmod(0o666)
        for args in (["ls"], ["info", "a/b"], ["sub", "a/b", "--observe"]):
            got = bus.run(*args, status=PERMISSION)
            assert b"SHMPS_E_PERMISSION" in got.stderr, got.stderr


def records_of(directory, kind):
    """Where the directory's records of a kind begin: directory_geometry, at 128."""
    at = 152 + 8 * ("topics", "rings", "subscriptions", "pages", "errors").index(kind)
    return int.from_bytes(directory[at : at + 8], "little")


def store(data, at, number, size):
    data[at : at + size] = number.to_bytes(size, "little")


def lists_that_run_in_circles_end():
    with black_box() as bus:
        path = segment(bus, "dir")
        good = path.read_bytes()
        rings, pages = bytearray(good), bytearray(good)
        for copy in range(2):  # both copies of ring_info: next = itself
            store(rings, records_of(good, "rings") + 64 + copy * 160 + 8, 0, 4)
        store(pages, records_of(good, "pages") + 4, 0, 4)  # roster_page: next = itself
        for bad, list_ in ((rings, b"rings"), (pages, b"roster pages")):
            path.write_bytes(bad)
            for args in (["ls"], ["info", "a/b"]):
                got = bus.run(*args, status=ERROR)
                assert b"list of its %s is broken" % list_ in got.stderr, got.stderr
                assert b"a/b" in got.stdout


def indices_outside_are_refused():
    with black_box() as bus:
        path = segment(bus, "dir")
        good = path.read_bytes()
        page = records_of(good, "pages")
        for at, value in ((page + 4, 1 << 30), (page + 8, 32), (page, 1)):  # next, ordinal, topic
            bad = bytearray(good)
            store(bad, at, value, 4)
            path.write_bytes(bad)
            got = bus.run("info", "a/b", "--json", status=ERROR)
            assert b"list of its roster pages is broken" in got.stderr, got.stderr
        bad = bytearray(good)
        for copy in range(2):
            store(bad, records_of(good, "rings") + 64 + copy * 160 + 4, 7, 4)  # ring_info.topic
        path.write_bytes(bad)
        got = bus.run("info", "a/b", status=ERROR)
        assert b"list of its rings is broken" in got.stderr, got.stderr
        bad = bytearray(good)  # the last cell: more pins than are, which would lie behind the page
        store(bad, page + 32 + 59 * 8, 1 | 255 << 8 | 0xFFFF << 32, 8)
        path.write_bytes(bad)
        readers = segment(bus, "e")
        readers.write_bytes(readers.read_bytes()[:-56] + b"\1" * 56)  # entry 59: need, pins
        told = bus.objects("info", "a/b")[0]["subscribers"]
        assert len(told) == 2 and told[1]["pins_granted"] == 63, told
        assert told[1]["rings"][0]["pins_held"] == 0, told


def segments_of_another_ring_or_directory_are_refused():
    with black_box() as bus:
        for kind in ("r", "e"):
            path = segment(bus, kind)
            good = path.read_bytes()
            for at in (40, 48):  # identity.serial, identity.directory
                bad = bytearray(good)
                store(bad, at, 99, 8)
                path.write_bytes(bad)
                got = bus.run("info", "a/b", status=ERROR)
                assert b"it belongs to another ring or another directory" in got.stderr, got.stderr
            path.write_bytes(good)


def a_process_that_has_only_the_pid_of_the_daemon_is_not_it():
    with black_box() as bus:
        path = segment(bus, "dir")
        data = bytearray(path.read_bytes())
        store(data, 328, os.getpid(), 4)  # directory_header.daemon_pid
        path.write_bytes(data)
        got = bus.run("ls")
        assert b"does not run (it was process %d)" % os.getpid() in got.stderr, got.stderr


def random_damage_never_crashes_a_viewer():
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"# seed {seed}", flush=True)
    dice = random.Random(seed)
    with black_box() as bus:
        paths = {kind: segment(bus, kind) for kind in ("dir", "r", "e")}
        good = {kind: path.read_bytes() for kind, path in paths.items()}
        used = {"dir": hot_spots(good["dir"]), "r": [(0, 4096 + 1024)], "e": [(0, 4096)]}
        for _ in range(60):
            for kind in paths:
                bad = bytearray(good[kind])
                for _ in range(dice.choice((1, 3, 30))):
                    first, size = dice.choice(used[kind])
                    at = first + dice.randrange(size)
                    bad[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
                paths[kind].write_bytes(bad)
            for args in (
                ["ls"],
                ["info", "a/b", "--json"],
                ["dump", "--json"],
                ["top", "-b", "-n", "1", "-d", "0.001", "--json"],
            ):
                got = subprocess.run(
                    [SHMPS, *args], env=bus.env, capture_output=True, timeout=TIMEOUT_S
                )
                status = got.returncode
                assert status in (DONE, ERROR, NO_TOPIC, PERMISSION, VERSION), (seed, args, got)
                for line in got.stdout.splitlines() if "--json" in args else ():
                    json.loads(line)


def hot_spots(directory):
    """(offset, bytes) of the directory's header and of the first records of each kind."""
    spots = [(0, 384)]
    for kind in ("topics", "rings", "subscriptions", "pages"):
        spots.append((records_of(directory, kind), 1024))
    return spots


if __name__ == "__main__":
    run_cases(
        [
            ls_and_info_tell_what_is_there,
            ls_is_sorted_and_aligned,
            a_publisher_that_grew_is_counted_once,
            a_publisher_that_grew_counts_on,
            with_the_daemon_dead_ls_and_info_still_tell,
            truncated_and_garbage_segments_are_told,
            another_version_and_foreign_permissions_have_their_exit_codes,
            lists_that_run_in_circles_end,
            indices_outside_are_refused,
            segments_of_another_ring_or_directory_are_refused,
            a_process_that_has_only_the_pid_of_the_daemon_is_not_it,
            random_damage_never_crashes_a_viewer,
        ]
    )
