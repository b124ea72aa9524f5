#!/usr/bin/env python3
"""How shmps finds its pubsubd: by name, by path, the system's; one of another build; one
that does not answer."""

import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

from tap import PUBSUBD, run_cases
from tool import (
    DONE,
    ERROR,
    NO_DAEMON,
    NO_TOPIC,
    PERMISSION,
    SHM,
    SHMPS,
    TIMED_OUT,
    TIMEOUT_S,
    USAGE,
    VERSION,
    finish,
    own_bus,
    stop,
)

SYSTEM = Path("/run/pubsubd")
SOMEBODY, NOBODY = 65533, 65534  # users of no other process


# ---------------------------------------------------------------------------- by name


def whoever_finds_nobody_is_told_the_command():
    with own_bus(daemon=False) as bus:
        command = f"start one: pubsubd --instance {bus.instance}"
        for args in (["pub", "a", "b"], ["sub", "a"], ["sub", "a", "--observe"], ["stop"], ["ls"]):
            assert command in bus.run(*args, status=NO_DAEMON).stderr.decode(), args
        for path, command in (
            (SYSTEM / "none.sock", "pubsubd --system --instance none"),
            ("/nonexistent/none.sock", "pubsubd --socket /nonexistent/none.sock"),
        ):
            got = bus.run("--instance", str(path), "stop", status=NO_DAEMON)
            assert f"start one: {command} (" in got.stderr.decode(), got.stderr


# ---------------------------------------------------------------------------- by a socket's path


def publish_to_both(bus):
    """A subscriber and an observer receive. The publisher stays as long as the observer, whom
    nobody waits for."""
    sub = bus.subscribe("a")
    observer = bus.subscribe("a", "--observe", "-C", "1")
    pub = bus.start("pub", "a", "-l")
    pub.stdin.write(b"x\n")
    assert finish(observer)[0] == b"x\n"
    assert sub.stdout.readline() == b"x\n"
    pub.stdin.close()
    pub.stdin = None
    finish(pub)


def a_socket_s_path_will_do_for_every_verb():
    with own_bus(daemon=False) as bus:
        path = f"{bus.env['XDG_RUNTIME_DIR']}/other.sock"
        command = [PUBSUBD, "--instance", bus.instance, "--socket", path]
        bus.daemon = subprocess.Popen(command, env=bus.env, stdout=subprocess.PIPE)
        assert bus.daemon.stdout.readline() == b"ready\n"
        bus.env["SHMPS_INSTANCE"] = path
        publish_to_both(bus)
        assert [o["topic"] for o in bus.objects("ls")] == ["a"]
        assert bus.objects("info", "a")[0]["daemon_pid"] == bus.daemon.pid
        bus.kill_daemon()
        for args in (["ls"], ["info", "a"], ["sub", "a", "--observe"]):
            got = bus.run(*args, status=NO_DAEMON)  # nobody tells the name any more
            assert path in got.stderr.decode(), got.stderr
        assert [o["topic"] for o in bus.objects("--instance", bus.instance, "ls")] == ["a"]


# ---------------------------------------------------------------------------- the system's


def remove_system(made):
    """What a test has made; unless somebody else uses it by now."""
    with suppress(OSError):
        if made:
            SYSTEM.rmdir()


@contextmanager
def system_daemon(bus):
    """A pubsubd --system, of the user whose directory of sockets it is."""
    made = not SYSTEM.exists()
    if made:
        SYSTEM.mkdir(0o755)
        SYSTEM.chmod(0o755)
        os.chown(SYSTEM, NOBODY, -1)
    uid = SYSTEM.stat().st_uid
    # where every user may run it
    program = f"{bus.env['XDG_RUNTIME_DIR']}/pubsubd"
    shutil.copy(PUBSUBD, program)
    command = [program, "--system", "--instance", bus.instance]
    daemon = subprocess.Popen(command, env=bus.env, stdout=subprocess.PIPE, user=uid)
    try:
        assert daemon.stdout.readline() == b"ready\n"
        yield daemon, uid
    finally:
        daemon.kill()
        daemon.wait()
        (SYSTEM / f"{bus.instance}.sock").unlink(missing_ok=True)
        remove_system(made)


def without_a_user_s_instance_it_is_the_system_s():
    with own_bus(daemon=False) as bus:
        if os.getuid() != 0:
            return refused_to_users(bus)
        os.chmod(bus.env["XDG_RUNTIME_DIR"], 0o755)
        tool = f"{bus.env['XDG_RUNTIME_DIR']}/tool"
        shutil.copy(SHMPS, tool)
        with system_daemon(bus) as (daemon, uid):
            publish_to_both(bus)
            assert [o["topic"] for o in bus.objects("ls")] == ["a"]
            assert bus.objects("info", "a")[0]["daemon_pid"] == daemon.pid
            env = dict(bus.env, XDG_RUNTIME_DIR="")
            for args in (["ls"], ["info", "a"], ["sub", "a", "--observe"], ["pub", "a", "x"]):
                got = subprocess.run(
                    [tool, *args], env=env, capture_output=True, timeout=TIMEOUT_S, user=SOMEBODY
                )
                assert got.returncode == PERMISSION, (args, got)
                assert f"belongs to user {uid}" in got.stderr.decode(), got.stderr
            daemon.kill()
            daemon.wait()
            assert b"does not run" in bus.run("ls").stderr, "its socket tells whose it was"


def refused_to_users(bus):
    got = subprocess.run([PUBSUBD, "--system"], env=bus.env, capture_output=True)
    assert got.returncode == 1 and b"run it as root" in got.stderr, got


def the_system_s_directory_is_made():
    """Where it is missing; by who may."""
    with own_bus(daemon=False) as bus:
        if os.getuid() != 0:
            return refused_to_users(bus)
        made = not SYSTEM.exists()
        command = [PUBSUBD, "--system", "--instance", bus.instance]
        bus.daemon = subprocess.Popen(command, env=bus.env, stdout=subprocess.PIPE)
        try:
            assert bus.daemon.stdout.readline() == b"ready\n"
            assert (SYSTEM / f"{bus.instance}.sock").is_socket()
            assert not made or SYSTEM.stat().st_mode & 0o7777 == 0o755
            bus.run("pub", "a", "x")
            bus.run("stop")
            assert bus.daemon.wait(timeout=TIMEOUT_S) == 0
        finally:
            remove_system(made)


# ---------------------------------------------------------------------------- of another build

HEADER = struct.Struct("<IHHII")  # magic, version, type, bytes, sequence
HELLO = struct.Struct("<HHIQQQ40s32x")  # versions, flags, fingerprint, secret, directory, instance
MAGIC, TYPE_HELLO, TYPE_STOP, REPLY, ADMIN = 0x31706D73, 1, 6, 0x8000, 2


def a_daemon_of_another_layout_is_stopped():
    """The other way round, as there is one build only: a client of another layout."""
    with own_bus() as bus:
        path = f"{bus.env['XDG_RUNTIME_DIR']}/shmps/{bus.instance}.sock"
        for flags, status in ((0, -11), (ADMIN, 0)):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                client.connect(path)
                body = HELLO.pack(1, 1, flags, 4711, 1, 0, bus.instance.encode())
                hello = HEADER.pack(MAGIC, 1, TYPE_HELLO, HEADER.size + len(body), 1) + body
                client.send(hello)
                answer = client.recv(2048)
                assert struct.unpack_from("<i", answer, HEADER.size) == (status,), answer
                if status == 0:
                    client.send(HEADER.pack(MAGIC, 1, TYPE_STOP, HEADER.size + 16, 2) + bytes(16))
                    assert struct.unpack_from("<i", client.recv(2048), HEADER.size) == (0,)
                assert client.recv(2048) == b"", "it hangs up"
        assert bus.daemon.wait(timeout=TIMEOUT_S) == 0


def answer_as_another_version(listener, asked):
    """Refuse every hello, as a pubsubd does that speaks no version of ours."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            hello = client.recv(2048)
            asked.append(HEADER.unpack_from(hello))
            body = struct.pack("<iI", VERSION_ERROR, 0) + bytes(112) + b"too old".ljust(512, b"\0")
            size, sequence = HEADER.size + len(body), asked[-1][4]
            client.send(HEADER.pack(MAGIC, 9, REPLY | TYPE_HELLO, size, sequence) + body)


VERSION_ERROR = -11


def a_daemon_of_another_protocol_is_named():
    with own_bus(daemon=False) as bus:
        folder = Path(bus.env["XDG_RUNTIME_DIR"], "shmps")
        folder.mkdir(0o700)
        asked = []
        lock = open(SHM / f"shmps.{os.getuid()}.{bus.instance}.lock", "w", encoding="ascii")
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a pubsubd of any layout holds it
        with lock, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(folder / f"{bus.instance}.sock"))
            listener.listen()
            daemon = threading.Thread(target=answer_as_another_version, args=(listener, asked))
            daemon.start()
            try:
                for args in (["stop"], ["pub", "a", "b"], ["sub", "a"]):
                    got = bus.run(*args, status=VERSION).stderr.decode()
                    assert f"process {os.getpid()} (to end it: kill {os.getpid()})" in got, got
                    assert "too old" in got, got
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                daemon.join()
        assert [header[2] for header in asked] == [TYPE_HELLO] * 3, asked


# ---------------------------------------------------------------------------- in time


def the_timeout_bounds_connecting_too():
    with own_bus() as bus:
        stop(bus.daemon)
        bus.env["SHMPS_AUTOSTART"] = "1"  # there is one, though it does not answer
        for args in (["sub", "a"], ["pub", "a", "b"]):
            got = bus.run(*args, "-W", "0.05", status=TIMED_OUT)
            assert f"(process {bus.daemon.pid})".encode() in got.stderr, got.stderr
            assert b"not answered in " in got.stderr, got.stderr
        bus.daemon.send_signal(signal.SIGCONT)
        bus.run("pub", "a", "b", "-W", "20")


def every_exit_code_is_listed():
    with own_bus(daemon=False) as bus:
        told = " ".join(bus.run("help").stdout.decode().split("Exit codes:")[1].split())
        codes = (DONE, ERROR, USAGE, NO_DAEMON, NO_TOPIC, PERMISSION, VERSION, TIMED_OUT, 130, 143)
        for code in codes:
            assert f"{code} " in told, (code, told)


if __name__ == "__main__":
    run_cases(
        [
            whoever_finds_nobody_is_told_the_command,
            a_socket_s_path_will_do_for_every_verb,
            without_a_user_s_instance_it_is_the_system_s,
            the_system_s_directory_is_made,
            a_daemon_of_another_layout_is_stopped,
            a_daemon_of_another_protocol_is_named,
            the_timeout_bounds_connecting_too,
            every_exit_code_is_listed,
        ]
    )
