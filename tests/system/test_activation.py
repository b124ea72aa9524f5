#!/usr/bin/env python3
"""pubsubd under a service manager: a socket that is handed over, notifications, the units."""

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tap import BUILD, PUBSUBD, run_cases, segments
from tool import SHMPS, TIMEOUT_S, own_bus

UNITS = Path(__file__).resolve().parents[2] / "pubsubd" / "systemd"


@contextmanager
def user_bus():
    """A bus without a daemon, and the path of its socket."""
    with own_bus(daemon=False) as bus:
        folder = Path(bus.env["XDG_RUNTIME_DIR"]) / "shmps"
        folder.mkdir(mode=0o700)
        yield bus, str(folder / f"{bus.instance}.sock")
        left = segments(f".{bus.instance}.")
        assert not left, f"left behind: {left}"


def listening(path, kind=socket.SOCK_SEQPACKET, backlog=8):
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    if backlog:
        sock.listen(backlog)
    return sock


def hand_over(bus, fds, *args, pid="$$", **env):
    """Start pubsubd as sd_listen_fds(3) tells: the descriptors from 3 on."""
    # Out of the way of the numbers that they are to have.
    kept = [os.dup2(fd, 50 + i) for i, fd in enumerate(fds)]
    moves = " ".join(f"{3 + i}<&{fd} {fd}<&-" for i, fd in enumerate(kept))
    script = f'LISTEN_PID={pid} LISTEN_FDS={len(fds)} exec "$0" "$@" {moves}'
    command = ["bash", "-c", script, PUBSUBD, "--instance", bus.instance, *args]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, env=dict(bus.env, **env), pass_fds=kept, stdout=pipe, stderr=pipe, text=True
    )
    for fd in kept:
        os.close(fd)
    bus.started.append(process)
    return process


def await_ready(process):
    assert process.stdout.readline() == "ready\n", process.stderr.read()


def end(process, status=0):
    """SIGTERM; what it said on stderr."""
    process.terminate()
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == status, f"{process.returncode}: {said}"
    return said


# ---------------------------------------------------------------------------- sockets


def a_client_that_came_first_is_served_by_the_socket_handed_over():
    with user_bus() as (bus, path):
        listener = listening(path)
        subscriber = bus.start("sub", "a", "-C", "1")
        first = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        first.connect(path)  # it waits in the queue: nobody accepts yet
        daemon = hand_over(bus, [listener.fileno()])
        await_ready(daemon)
        assert subscriber.stderr.readline() == b"subscribed\n"
        bus.run("pub", "a", "hi")
        assert subscriber.communicate(timeout=TIMEOUT_S)[0] == b"hi\n"
        end(daemon)
        assert os.path.exists(path), "the socket is not the daemon's to remove"
        first.close()
        listener.close()


def killed_and_started_anew_it_goes_on_with_the_same_socket():
    with user_bus() as (bus, path):
        listener = listening(path)
        daemon = hand_over(bus, [listener.fileno()])
        await_ready(daemon)
        subscriber = bus.subscribe("a", "-C", "2", "--reliable")
        bus.run("pub", "a", "before")
        daemon.kill()
        daemon.communicate()
        publisher = bus.start("pub", "a", "after")  # waits for who will accept it
        daemon = hand_over(bus, [listener.fileno()])
        await_ready(daemon)
        assert publisher.wait(timeout=TIMEOUT_S) == 0
        assert subscriber.communicate(timeout=TIMEOUT_S)[0] == b"before\nafter\n"
        end(daemon)
        listener.close()


def a_socket_for_another_process_is_left_alone():
    with user_bus() as (bus, path):
        other = listening(path + ".other")
        daemon = hand_over(bus, [other.fileno()], pid="1")
        await_ready(daemon)
        bus.run("pub", "a", "hi")
        end(daemon)
        assert not os.path.exists(path), "its own socket it removes"
        other.close()


def what_cannot_be_listened_on_is_refused():
    with user_bus() as (bus, path):
        good = listening(path)
        stream = listening(path + ".stream", socket.SOCK_STREAM)
        bound = listening(path + ".bound", backlog=0)
        abstract = listening(f"\0{bus.instance}")
        with open("/dev/null", "rb") as null:
            wrong = [
                ([stream.fileno()], [], "ListenSequentialPacket="),
                ([bound.fileno()], [], "no listening SOCK_SEQPACKET"),
                ([null.fileno()], [], "no listening SOCK_SEQPACKET"),
                ([abstract.fileno()], [], "not bound to an absolute path"),
                ([good.fileno(), stream.fileno()], [], "LISTEN_FDS=2"),
                ([], [], "LISTEN_FDS=0"),
                ([good.fileno()], ["--socket", "/x"], "leave out one of them"),
            ]
            for fds, args, reason in wrong:
                daemon = hand_over(bus, fds, *args)
                _, said = daemon.communicate(timeout=TIMEOUT_S)
                assert daemon.returncode == 1 and reason in said, f"{reason}: {said}"
        for sock in (good, stream, bound, abstract):
            sock.close()


def a_second_daemon_of_the_instance_is_refused():
    with user_bus() as (bus, path):
        listener = listening(path)
        daemon = hand_over(bus, [listener.fileno()])
        await_ready(daemon)
        second = hand_over(bus, [listener.fileno()])
        _, said = second.communicate(timeout=TIMEOUT_S)
        assert second.returncode == 1 and f"process {daemon.pid}" in said, said
        bus.run("pub", "a", "hi")
        end(daemon)
        listener.close()


def one_that_is_just_ending_is_waited_for():
    with user_bus() as (bus, path):
        listener = listening(path)
        lock = os.open(f"/dev/shm/shmps.{os.getuid()}.{bus.instance}.lock", os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        daemon = hand_over(bus, [listener.fileno()])
        try:
            daemon.wait(timeout=0.3)  # nothing tells from outside that it waits
        except subprocess.TimeoutExpired:
            pass
        os.close(lock)
        await_ready(daemon)
        end(daemon)
        listener.close()


def systemd_socket_activate_starts_it_for_the_first_client():
    program = shutil.which("systemd-socket-activate")
    if not program:
        return "there is no systemd-socket-activate"
    with user_bus() as (bus, path):
        manager = subprocess.Popen(
            [program, "--seqpacket", "-l", path, PUBSUBD, "--instance", bus.instance],
            env=bus.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        bus.started.append(manager)
        said = manager.stderr.readline()
        assert said.startswith(f"Listening on {path}"), said
        subscriber = bus.subscribe("a", "-C", "1")  # this starts it
        bus.run("pub", "a", "hi")
        assert subscriber.communicate(timeout=TIMEOUT_S)[0] == b"hi\n"
        bus.run("stop")
        manager.communicate(timeout=TIMEOUT_S)
        assert manager.returncode == 0  # it became pubsubd
    return None


# ---------------------------------------------------------------------------- notifications


def the_service_manager_hears_ready_and_stopping():
    with user_bus() as (bus, path):
        for name in (path + ".notify", f"\0{bus.instance}.notify"):
            heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            heard.bind(name)
            heard.settimeout(TIMEOUT_S)
            env = dict(bus.env, NOTIFY_SOCKET=name.replace("\0", "@"))
            daemon = subprocess.Popen(
                [PUBSUBD, "--instance", bus.instance], env=env, stdout=subprocess.DEVNULL
            )
            bus.started.append(daemon)
            ready = heard.recv(4096).decode()
            assert ready == f"READY=1\nSTATUS=instance {bus.instance}", ready
            bus.run("pub", "a", "hi")  # ready it is
            daemon.send_signal(signal.SIGHUP)
            reloading = heard.recv(4096).decode()
            assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", reloading), reloading
            assert heard.recv(4096) == b"READY=1"
            daemon.terminate()
            assert heard.recv(4096) == b"STOPPING=1"
            assert daemon.wait(timeout=TIMEOUT_S) == 0
            heard.close()


def nobody_to_notify_is_said_and_no_trouble():
    with user_bus() as (bus, path):
        for name, reason in ((path + ".none", "cannot notify"), ("none", "neither a path")):
            daemon = hand_over(bus, [], pid="1", NOTIFY_SOCKET=name)
            await_ready(daemon)
            bus.run("pub", "a", "hi")
            said = end(daemon)
            assert said.count(reason) == 2 and name in said, said  # ready, stopping


def an_autostarted_one_keeps_quiet_on_its_users_notify_socket():
    with user_bus() as (bus, path):
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        heard.bind(path + ".notify")
        env = dict(bus.env, SHMPS_AUTOSTART="1", NOTIFY_SOCKET=path + ".notify")
        bus.run("pub", "a", "hi", env=env)
        bus.run("stop")
        heard.setblocking(False)
        try:
            assert not heard.recv(4096), "it spoke for the program that started it"
        except BlockingIOError:
            pass
        heard.close()


# ---------------------------------------------------------------------------- units


def fill(folder, name):
    """A unit as it is installed, but for where pubsubd is."""
    for source in (UNITS / name).glob("pubsubd.*"):
        text = source.read_text(encoding="utf-8")
        target = Path(folder) / source.name.removesuffix(".in")
        target.write_text(text.replace("@bindir@", str(Path(PUBSUBD).parent)), encoding="utf-8")
        yield str(target)


def the_units_are_what_systemd_understands():
    program = shutil.which("systemd-analyze")
    if not program:
        return "there is no systemd-analyze"
    for name in ("system", "user"):
        with tempfile.TemporaryDirectory(prefix="shmps-test-") as folder:
            units = list(fill(folder, name))
            env = dict(os.environ, XDG_RUNTIME_DIR=folder, SYSTEMD_LOG_LEVEL="warning")
            done = subprocess.run(
                [program, "verify", f"--{name}", "--man=no", *units],
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            said = done.stdout + done.stderr
            about = [line for line in said.splitlines() if "pubsubd" in line]
            assert done.returncode == 0 and not about, said
    return None


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    assert Path(SHMPS).is_relative_to(BUILD)
    run_cases(
        [
            a_client_that_came_first_is_served_by_the_socket_handed_over,
            killed_and_started_anew_it_goes_on_with_the_same_socket,
            a_socket_for_another_process_is_left_alone,
            what_cannot_be_listened_on_is_refused,
            a_second_daemon_of_the_instance_is_refused,
            one_that_is_just_ending_is_waited_for,
            systemd_socket_activate_starts_it_for_the_first_client,
            the_service_manager_hears_ready_and_stopping,
            nobody_to_notify_is_said_and_no_trouble,
            an_autostarted_one_keeps_quiet_on_its_users_notify_socket,
            the_units_are_what_systemd_understands,
        ]
    )
