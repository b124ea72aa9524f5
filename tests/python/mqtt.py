"""A mosquitto of the test's own, and the two paho-mqtt that are held against shmps.paho."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HOST = "127.0.0.1"
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
WAIT_S = 90
PAHO1 = Path(os.environ.get("SHMPS_VENV") or Path(sys.prefix)) / "paho1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


@contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """Yields its port. It keeps nothing on disk."""
    if MOSQUITTO is None:
        pytest.skip("needs the package mosquitto")
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} {HOST}\nallow_anonymous true\nlog_dest none\n")
    server = subprocess.Popen([MOSQUITTO, "-c", config])
    try:
        end = time.monotonic() + WAIT_S
        while not listens(port):
            assert server.poll() is None and time.monotonic() < end, "mosquitto does not start"
        yield port
    finally:
        server.terminate()
        server.wait()


def run(*arguments: str | Path, module_path: Path | None = None) -> str:
    """What a program in Python prints on stdout; module_path comes before all others."""
    env = dict(os.environ)
    if module_path:
        env["PYTHONPATH"] = os.pathsep.join([str(module_path), env["PYTHONPATH"]])
    program = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        timeout=WAIT_S,
    )
    assert program.returncode == 0, program.stdout
    return program.stdout
