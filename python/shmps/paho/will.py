"""Wills: messages that are published when a process has ended without disconnect(), however it
ended.

No broker watches the clients here, so a process of its own does, one for each process that has
wills: it is started with the first of them, waits on the process it was started by (pidfd_open)
and publishes what that has left. It needs no pubsubd that lives on, and ends with the last will.
If it is killed itself, the wills are lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from .messages import NotSupportedError, Packet


class Keeper:
    """The process that keeps the wills of this one. Any thread may set and clear."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._wills: set[int] = set()
        self._pid = os.getpid()

    def set(self, key: int, will: Packet) -> None:
        """When this returns, the will is published whatever becomes of this process. OSError: the
        keeper cannot be started."""
        with self._lock:
            if self._process is None:
                self._process = self._start()
            self._wills.add(key)
            self._say({"key": key, "topic": will.topic, "data": will.data.hex(), "tag": will.tag})

    def clear(self, key: int) -> None:
        """When this returns, it is not published any more. A forked child has none."""
        with self._lock:
            if key not in self._wills or self._pid != os.getpid() or self._process is None:
                return
            self._wills.discard(key)
            try:
                self._say({"key": key, "end": not self._wills})
            except OSError:
                pass  # it was killed, and its wills with it
            if not self._wills:
                process, self._process = self._process, None
                process.communicate()

    def _start(self) -> subprocess.Popen[str]:
        if not sys.executable:
            raise NotSupportedError("a will is kept by another process, and no Python is found")
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        return subprocess.Popen(
            [sys.executable, "-m", "shmps.paho.keeper", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )

    def _say(self, what: dict[str, Any]) -> None:
        assert self._process and self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            self._process, self._wills = None, set()
            raise ConnectionError("the process that keeps wills has ended")
