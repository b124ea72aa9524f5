"""The harness itself: a test that leaves something behind is noticed."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from pathlib import Path

import pytest
from harness import SHM, Bus, nothing_left, private_bus


def test_every_file_is_run() -> None:
    """`meson test` runs each file here."""
    here = Path(__file__).parent
    files = {path.stem for path in here.glob("test_*.py")}
    assert files == set(re.findall(r"^  '(\w+)',$", (here / "meson.build").read_text(), re.M))


def test_a_bus_is_there(bus_env: Bus) -> None:
    assert os.environ["SHMPS_INSTANCE"] == bus_env.instance
    assert bus_env.tool("ls", "--json") == ""


def test_a_descriptor_is_noticed() -> None:
    with pytest.raises(AssertionError, match="descriptors left behind: .*/dev/null"):
        with nothing_left():
            fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)


def test_a_child_is_noticed() -> None:
    with pytest.raises(AssertionError, match="child processes left behind: .*sleep 100"):
        with nothing_left():
            child = subprocess.Popen(["sleep", "100"])
    child.kill()
    child.wait()


def test_a_thread_is_noticed() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    with pytest.raises(AssertionError, match="threads left behind"):
        with nothing_left():
            thread.start()
    end.set()
    thread.join()


def test_a_segment_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"left behind: \['shmps.*left'\]"):
        with private_bus() as bus:
            first = next(n for n in os.listdir(SHM) if f".{bus.instance}." in n)
            left = Path(SHM, f"{first.partition(bus.instance)[0]}{bus.instance}.left")
            left.touch()
    assert not left.exists()
