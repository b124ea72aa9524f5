"""The same programs with the real paho-mqtt on the real mosquitto, and with shmps.paho: they print
the same. Only their import differs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import SOURCE, Bus
from mqtt import HOST, MOSQUITTO, PAHO1, mosquitto, run

PROGRAMS = Path(__file__).with_name("paho_programs.py")
EXAMPLES = SOURCE / "examples" / "python"
REAL = "import paho.mqtt.client as mqtt"
OURS = "import shmps.paho as mqtt"


def sections(printed: str) -> dict[str, str]:
    """What each program has printed, by name."""
    parts = (part.partition("\n") for part in printed.split("== ")[1:])
    return {name: text for name, _, text in parts}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as port:
        yield port


class Printed:
    """What all programs print, with each library: run once."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.found: dict[tuple[str, int, bool], dict[str, str]] = {}

    def by(self, module: str, version: int, is_old: bool = False) -> dict[str, str]:
        key = module, version, is_old
        if key not in self.found:
            path = PAHO1 if is_old else None
            arguments = module, str(version), HOST, str(self.port)
            self.found[key] = sections(run(PROGRAMS, *arguments, module_path=path))
        return self.found[key]


@pytest.fixture(scope="module")
def printed(broker: int, module_bus_env: Bus) -> Printed:
    return Printed(broker)


def names() -> list[str]:
    """One that is skipped where there is no broker, as tests/skips.txt has it."""
    found = re.findall(r"@program\ndef (\w+)", PROGRAMS.read_text())
    return found if MOSQUITTO else ["everything"]


def compare(name: str, real: dict[str, str], ours: dict[str, str]) -> None:
    assert real[name]
    assert "failed with" not in real[name]
    assert ours[name] == real[name]


@pytest.mark.parametrize("name", names())
def test_as_paho_1(printed: Printed, name: str) -> None:
    compare(name, printed.by("paho.mqtt.client", 1, is_old=True), printed.by("shmps.paho", 1))


@pytest.mark.parametrize("name", names())
def test_as_paho_2_with_callbacks_of_version_1(printed: Printed, name: str) -> None:
    compare(name, printed.by("paho.mqtt.client", 1), printed.by("shmps.paho", 1))


@pytest.mark.parametrize("name", names())
def test_as_paho_2(printed: Printed, name: str) -> None:
    compare(name, printed.by("paho.mqtt.client", 2), printed.by("shmps.paho.client", 2))


def tutorial(folder: Path, port: int | None) -> tuple[Path, Path]:
    """The tutorial's programs; with a port they are the real thing, on a broker that is there."""
    programs = []
    for name in ("paho_receive.py", "paho_send.py"):
        text = (EXAMPLES / name).read_text()
        if port is not None:
            assert text.count(OURS) == text.count('"mqtt.eclipse.org", 1883') == 1
            text = text.replace(OURS, REAL)
            text = text.replace('"mqtt.eclipse.org", 1883', f'"{HOST}", {port}')
        programs.append(folder / name)
        programs[-1].write_text(text)
    return programs[0], programs[1]


@pytest.mark.parametrize("which", ["shmps", "paho 1", "paho 2"])
def test_the_tutorial(
    tmp_path: Path, request: pytest.FixtureRequest, which: str, bus_env: Bus
) -> None:
    port = None if which == "shmps" else request.getfixturevalue("broker")
    path = PAHO1 if which == "paho 1" else None
    receive, send = tutorial(tmp_path, port)
    assert run(send, f"Zo\u00eb of {which}", module_path=path) == ""
    assert run(receive, module_path=path) == f"New user registered: Zo\u00eb of {which}\n"
