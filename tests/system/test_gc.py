#!/usr/bin/env python3
"""shmps gc: what is provably nobody's goes, what anybody uses stays."""

import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from tap import PUBSUBD, run_cases, segments
from tool import DONE, PERMISSION, SHM, SHMPS, TIMEOUT_S, USAGE, finish, kill, own_bus, stop


def files(bus):
    """What the instance has, by path."""
    there = [str(SHM / name) for name in segments(f".{bus.instance}.")]
    there += [str(path) for path in Path(bus.env["XDG_RUNTIME_DIR"]).glob("shmps/*")]
    return sorted(there)


def clients(bus):
    sub = bus.subscribe("a/b")
    pub = bus.start("pub", "a/b", "-l")
    publish(pub, sub, b"first")
    return pub, sub


def publish(pub, sub, line):
    pub.stdin.write(line + b"\n")
    pub.stdin.flush()
    assert sub.stdout.readline() == line + b"\n"


@contextmanager
def dead_bus():
    with own_bus() as bus:
        processes = clients(bus)
        bus.kill_daemon()
        kill(*processes)
        yield bus


def rubbish(path):
    with path.open("r+b") as segment:
        segment.write(b"rubbish" * 1000)


def is_left_alone(bus, story, *args):
    before = files(bus)
    assert before
    got = bus.run("gc", "--yes", *args)
    assert files(bus) == before, set(before) - set(files(bus))
    assert got.stdout == b"" and story in got.stderr.decode(), got


@contextmanager
def on_a_terminal(bus, *args):
    """gc asks there. Yields the process and the terminal, once it has asked."""
    mine, its = pty.openpty()
    process = bus.start("gc", *args, stdin=its, stderr=its, stdout=subprocess.PIPE)
    os.close(its)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(mine, 1000)
    try:
        yield process, mine
    finally:
        os.close(mine)


# ---------------------------------------------------------------------------- nobody's


def what_dead_processes_left_is_listed_and_removed():
    with dead_bus() as bus:
        before = files(bus)
        kinds = [re.sub(r"^.*\.(dir|lock|sock|[re])[\d.]*$", r"\1", path) for path in before]
        assert sorted(kinds) == ["dir", "e", "lock", "r", "sock"], before
        listed = bus.run("gc", "--dry-run")
        told = [line.split() for line in listed.stdout.decode().splitlines()[1:]]
        assert sorted(row[-1] for row in told) == before, listed
        assert {row[0] for row in told} == {bus.instance}
        for o in bus.objects("gc", "--dry-run"):
            assert o["path"] in before and not o["removed"] and o["instance"] == bus.instance, o
        assert files(bus) == before
        removed = [o for o in bus.objects("gc", "--yes") if o["removed"]]
        assert sorted(o["path"] for o in removed) == before, removed
        assert files(bus) == []
        assert b"nothing to remove" in bus.run("gc", "--yes").stderr
        bus.start_daemon()  # and all can begin again
        pub, sub = clients(bus)
        publish(pub, sub, b"again")


def it_asks_first_and_only_on_a_terminal():
    with dead_bus() as bus:
        before = files(bus)
        for kwargs in ({}, {"stdin": subprocess.DEVNULL}):
            got = bus.run("gc", status=USAGE, **kwargs)
            assert b"--yes" in got.stderr and b"--dry-run" in got.stderr, got
        for answer, left in ((b"\n", before), (b"n\n", before), (b"no\n", before), (b"y\n", [])):
            with on_a_terminal(bus) as (process, terminal):
                assert files(bus) == before
                os.write(terminal, answer)
                finish(process)
            assert files(bus) == left, answer


def a_damaged_directory_and_segments_without_one_go():
    for damage in (rubbish, Path.unlink):
        with dead_bus() as bus:
            damage(SHM / f"shmps.{os.getuid()}.{bus.instance}.dir")
            # without --force only if all processes of this user may be looked at
            bus.run("gc", "--yes", "--force")
            assert files(bus) == []


def semaphores_of_the_dead_and_directories_set_aside_go_also_beside_a_daemon():
    with own_bus() as bus:
        clients(bus)
        dead = subprocess.Popen(["true"])
        dead.wait()
        prefix = f"shmps.{os.getuid()}.{bus.instance}."
        stale = [SHM / f"sem.{prefix}ready.{dead.pid}", SHM / f"{prefix}dir.bad-77"]
        kept = [SHM / f"sem.{prefix}ready.{os.getpid()}", SHM / f"{prefix}else",
                SHM / f"sem.{prefix}ready.{dead.pid}x"]
        for path in stale + kept:
            path.write_bytes(b"x" * 32)
        before = files(bus)
        bus.run("gc", "--yes")
        assert set(before) - set(files(bus)) == {str(path) for path in stale}
        for path in kept:
            path.unlink()


def segments_that_the_directory_does_not_lead_to_go():
    with own_bus() as bus:
        pub, sub = clients(bus)
        bus.kill_daemon()
        prefix = f"shmps.{os.getuid()}.{bus.instance}."
        orphans = [SHM / f"{prefix}r9999", SHM / f"{prefix}e9999.0"]
        for path in orphans:
            path.write_bytes(bytes(4096))
        before = files(bus)
        bus.run("gc", "--yes")
        assert set(before) - set(files(bus)) == {str(path) for path in orphans}
        publish(pub, sub, b"goes on")


# ---------------------------------------------------------------------------- somebody's


def a_running_bus_is_left_alone():
    with own_bus() as bus:
        pub, sub = clients(bus)
        is_left_alone(bus, f"pubsubd runs (process {bus.daemon.pid})")
        kill(pub, sub)
        deadline = time.monotonic() + TIMEOUT_S
        while len(files(bus)) > 3:  # pubsubd removes their ring itself: dir, lock, socket stay
            assert time.monotonic() < deadline, files(bus)
            time.sleep(0.005)
        is_left_alone(bus, "pubsubd runs")


def a_stopped_daemon_is_alive():
    with own_bus() as bus:
        kill(*clients(bus))
        stop(bus.daemon)
        is_left_alone(bus, f"pubsubd runs (process {bus.daemon.pid})")
        bus.daemon.send_signal(signal.SIGCONT)


def with_the_daemon_killed_what_clients_use_is_left_alone():
    with own_bus() as bus:
        pub, sub = clients(bus)
        bus.kill_daemon()
        is_left_alone(bus, "(shmps) uses it")
        publish(pub, sub, b"second")
        bus.start_daemon()
        publish(pub, sub, b"third")
        other = bus.subscribe("a/b")
        publish(pub, other, b"fourth")
        bus.kill_daemon()
        kill(sub, other)
        stop(pub)
        is_left_alone(bus, f"process {pub.pid} (shmps) uses it")
        kill(pub)
        bus.run("gc", "--yes")
        assert files(bus) == []


def who_only_looks_uses_it_too():
    with own_bus() as bus:
        processes = clients(bus)
        observer = bus.subscribe("a/b", "--observe")
        bus.kill_daemon()
        kill(*processes)
        is_left_alone(bus, f"process {observer.pid} (shmps) uses it")
        is_left_alone(bus, f"process {observer.pid} (shmps) uses it", "--force")


def another_layout_is_left_alone_unless_forced():
    with own_bus() as bus:
        pub, sub = clients(bus)
        bus.kill_daemon()
        path = SHM / f"shmps.{os.getuid()}.{bus.instance}.dir"
        with path.open("r+b") as directory:
            directory.seek(8)
            directory.write(b"\x63\0\0\0")  # identity.version
        is_left_alone(bus, "uses it")
        is_left_alone(bus, "uses it", "--force")
        kill(pub, sub)
        is_left_alone(bus, "layout version 99")
        bus.run("gc", "--yes", "--force")
        assert files(bus) == []


# ---------------------------------------------------------------------------- races


def a_daemon_that_starts_while_it_asks_keeps_its_bus():
    with dead_bus() as bus:
        with on_a_terminal(bus) as (process, terminal):
            bus.start_daemon()
            before = files(bus)
            os.write(terminal, b"y\n")
            finish(process)
            assert files(bus) == before
        pub, sub = clients(bus)
        publish(pub, sub, b"after")


def whoever_is_first_a_starting_daemon_gets_a_whole_bus():
    for _ in range(15):
        with dead_bus() as bus:
            daemon = subprocess.Popen(
                [PUBSUBD, "--instance", bus.instance], env=bus.env, stdout=subprocess.PIPE
            )
            bus.daemon = daemon
            gcs = [bus.start("gc", "--yes") for _ in range(2)]
            assert daemon.stdout.readline() == b"ready\n"
            for gc in gcs:
                finish(gc)
            pub, sub = clients(bus)
            publish(pub, sub, b"after")
            kill(pub, sub)


# ---------------------------------------------------------------------------- other users


@contextmanager
def another_user():
    """Runs the tool as a user that nobody else has; yields how."""
    uid = random.SystemRandom().randrange(1 << 20, 1 << 30)
    with tempfile.TemporaryDirectory(prefix="shmps-test-") as place:
        os.chmod(place, 0o711)
        home = Path(place) / "home"
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)
        for program in (SHMPS, PUBSUBD, shutil.which("sleep")):
            shutil.copy(program, place)
        os.chmod(f"{place}/sleep", 0o711)  # who may not read a program may not look at it either
        env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(home), "SHMPS_AUTOSTART": "0"}

        def run(*args, **kwargs):
            command = [f"{place}/{args[0]}", *args[1:]]
            return subprocess.Popen(command, env=env, user=uid, group=uid, extra_groups=[],
                                    cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    stdin=subprocess.DEVNULL, **kwargs)

        try:
            yield uid, run
        finally:
            for name in segments(f"shmps.{uid}."):
                (SHM / name).unlink()


def other_users_instances_are_not_touched():
    with another_user() as (uid, run), dead_bus() as bus:
        before = files(bus)
        _, errors = finish(run("shmps", "gc", "--yes", "--instance", bus.instance), PERMISSION)
        assert b"another user's" in errors, errors
        daemons = []
        for name in ("one", "two", "three"):
            daemons.append(run("pubsubd", "--instance", name))
            assert daemons[-1].stdout.readline() == b"ready\n"
        kill(*daemons[:2])
        rubbish(SHM / f"shmps.{uid}.two.dir")
        output, _ = finish(run("shmps", "gc", "--all", "--yes", "--json"))
        removed = {o["instance"] for o in map(json.loads, output.splitlines()) if o["removed"]}
        assert removed == {"one", "two"}, output
        left = segments(f"shmps.{uid}.")
        assert left == [f"shmps.{uid}.three.dir", f"shmps.{uid}.three.lock"], left
        assert files(bus) == before
        daemons[2].terminate()
        assert daemons[2].wait(timeout=TIMEOUT_S) == DONE
        for daemon in daemons:
            daemon.communicate()


def a_process_that_may_not_be_looked_at_might_use_a_damaged_bus():
    with another_user() as (uid, run):
        hidden, daemon = run("sleep", "99"), run("pubsubd", "--instance", "one")
        daemon.stdout.readline()
        daemon.kill()
        daemon.communicate()
        there = segments(f"shmps.{uid}.")
        output, _ = finish(run("shmps", "gc", "--all", "--dry-run", "--json"))
        assert len(output.splitlines()) == 3, output  # its directory can be read: it is nobody's
        rubbish(SHM / f"shmps.{uid}.one.dir")
        _, errors = finish(run("shmps", "gc", "--all", "--yes"))
        assert f"process {hidden.pid} may not be looked at" in errors.decode(), errors
        assert segments(f"shmps.{uid}.") == there
        hidden.kill()
        hidden.communicate()
        finish(run("shmps", "gc", "--all", "--yes"))
        assert segments(f"shmps.{uid}.") == []


if __name__ == "__main__":
    cases = [
        what_dead_processes_left_is_listed_and_removed,
        it_asks_first_and_only_on_a_terminal,
        a_damaged_directory_and_segments_without_one_go,
        semaphores_of_the_dead_and_directories_set_aside_go_also_beside_a_daemon,
        segments_that_the_directory_does_not_lead_to_go,
        a_running_bus_is_left_alone,
        a_stopped_daemon_is_alive,
        with_the_daemon_killed_what_clients_use_is_left_alone,
        who_only_looks_uses_it_too,
        another_layout_is_left_alone_unless_forced,
        a_daemon_that_starts_while_it_asks_keeps_its_bus,
        whoever_is_first_a_starting_daemon_gets_a_whole_bus,
    ]
    if os.getuid() == 0:  # who else could be another user?
        cases.append(other_users_instances_are_not_touched)
        cases.append(a_process_that_may_not_be_looked_at_might_use_a_damaged_bus)
    run_cases(cases)
