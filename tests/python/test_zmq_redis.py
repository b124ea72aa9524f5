"""The same program in pyzmq, redis-py and shmps, side by side: a reader of any of them finds here
what he knows, and the three print the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import SOURCE, Bus

EXAMPLES = SOURCE / "examples" / "python"
LIMIT_S = 30
PRINTED = "New user registered: Ada Lovelace\nNew user registered: Zoë Müller\n"


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A redis-server of the test's own: on a Unix socket, with nothing on disk."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs the package redis-server")
    url = f"unix://{tmp_path}/redis"
    server = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", tmp_path / "redis", "--save", ""],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        with server.stdout:
            for line in server.stdout:
                if "ready to accept connections" in line:
                    break
            yield url
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(params=["zmq", "redis", "shmps"])
def program(request: pytest.FixtureRequest, tmp_path: Path, bus_env: Bus) -> tuple[str, ...]:
    """The program, with where to meet, if it must be told."""
    path = str(EXAMPLES / f"users_{request.param}.py")
    if request.param == "zmq":
        return path, f"ipc://{tmp_path}/zmq"
    if request.param == "redis":
        return path, request.getfixturevalue("redis_url")
    return (path,)


def start(program: tuple[str, ...], role: str) -> subprocess.Popen[str]:
    path, *where = program
    return subprocess.Popen(
        [sys.executable, "-X", "utf8", path, role, *where],
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )


@pytest.mark.parametrize("first", ["subscribe", "publish"])
def test_same_output(program: tuple[str, ...], first: str) -> None:
    """Whichever of the two processes is there first."""
    roles = [first, *({"subscribe", "publish"} - {first})]
    processes = {role: start(program, role) for role in roles}
    try:
        printed = {role: p.communicate(timeout=LIMIT_S)[0] for role, p in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert [process.returncode for process in processes.values()] == [0, 0]
    assert printed == {"publish": "", "subscribe": PRINTED}


def test_as_short() -> None:
    """Ours needs no more lines than theirs."""
    lines = {
        name: len((EXAMPLES / f"users_{name}.py").read_text().splitlines())
        for name in ("zmq", "redis", "shmps")
    }
    assert lines["shmps"] <= min(lines.values()), lines
