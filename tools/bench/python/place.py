"""Where it is measured: a private pubsubd, the servers of others, child processes, cores."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
BUILD = Path(os.environ.get("BUILD", FOLDER.parents[2] / "build")).resolve()
PUBSUBD = os.environ.get("SHMPS_PUBSUBD", str(BUILD / "pubsubd" / "pubsubd"))
PATHS = [str(BUILD / "python"), str(BUILD / "tools" / "bench" / "python")]
READY_S = 20
CORES = sorted(os.sched_getaffinity(0))[:2]
ANYWHERE = -1


class Missing(Exception):
    """What a reference needs is not there: why."""


def cores(core: int) -> list[int]:
    """The first or the second of two, 0 or 1; or both."""
    return CORES if core == ANYWHERE or len(CORES) < 2 else [CORES[core]]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    os.sched_setaffinity(0, cores(core))
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores(ANYWHERE))


def end(process: subprocess.Popen[str], sign: int = signal.SIGTERM) -> None:
    """Tell it to end, and see that it does."""
    if process.poll() is None:
        process.send_signal(sign)
    try:
        process.wait(READY_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()


@contextmanager
def private_bus() -> Iterator[None]:
    """A pubsubd of our own, in the environment of this process and its children."""
    instance = f"bench-py-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix=f"shmps-bench-py-{os.getpid()}-") as folder:
        os.environ.update(
            SHMPS_INSTANCE=instance,
            SHMPS_AUTOSTART="0",
            XDG_RUNTIME_DIR=folder,
            XDG_CONFIG_HOME=folder,  # not the user's own
        )
        daemon = subprocess.Popen(
            [PUBSUBD, "--instance", instance], stdout=subprocess.PIPE, text=True
        )
        try:
            assert daemon.stdout
            if daemon.stdout.readline() != "ready\n":
                raise SystemExit(f"{PUBSUBD} does not start")
            yield
        finally:
            end(daemon)


@contextmanager
def side(role: str, *args: object, core: int) -> Iterator[subprocess.Popen[str]]:
    """Another process of the bench, in a role of side.py, ready; lines go to and fro."""
    places = ",".join(map(str, cores(core)))  # what it inherits may be less
    command = [sys.executable, str(FOLDER / "side.py"), places, role, *map(str, args)]
    process = subprocess.Popen(
        command,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(PATHS)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        answer(process, "ready")
        yield process
    finally:
        end(process, signal.SIGKILL)


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str], word: str) -> str:
    """Its next line, without its first word, which must be that one."""
    assert process.stdout
    said = process.stdout.readline()
    if said.split()[:1] != [word]:
        raise RuntimeError(f"{process.args!r}: said {said!r}, not {word!r}")
    return said.removeprefix(word).strip()


# ---- servers of others


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not path:
        raise Missing(f"{name} is not installed")
    return path


@contextmanager
def server(command: list[str], port: int, folder: str) -> Iterator[int]:
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Missing(f"{command[0]} does not start") from None
                time.sleep(0.02)
        yield port
    finally:
        end(process)


@contextmanager
def mosquitto() -> Iterator[int]:
    """On loopback, with nothing that slows it or drops messages. Yields its port."""
    with tempfile.TemporaryDirectory(prefix=f"shmps-bench-py-{os.getpid()}-") as folder:
        port = free_port()
        lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false"]
        lines += ["max_queued_messages 0", "max_inflight_messages 0", "set_tcp_nodelay true"]
        Path(folder, "conf").write_text("\n".join([*lines, "log_dest none", ""]))
        os.chmod(folder, 0o755)  # it leaves root for a user of its own
        with server([program("mosquitto"), "-c", f"{folder}/conf"], port, folder):
            yield port


@contextmanager
def redis_server() -> Iterator[int]:
    """The same for redis."""
    with tempfile.TemporaryDirectory(prefix=f"shmps-bench-py-{os.getpid()}-") as folder:
        port = free_port()
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        options += ["--client-output-buffer-limit", "pubsub 0 0 0"]
        with server([program("redis-server"), "--port", str(port), *options], port, folder):
            yield port
