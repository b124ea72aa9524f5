"""The wheel that ./dev wheel makes: what is in it, what it needs, and that it alone suffices.

It is installed into fresh venvs of every CPython from 3.11 on that is found here.
"""

from __future__ import annotations

import email
import os
import re
import select
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from harness import BUILD, SOURCE, children, segments

TIMEOUT_S = 60
LIBC = re.compile(r"libc\.so\.6|ld-linux-[\w-]+\.so\.\d|libshmps\.so\.0")
PROGRAM = '''
import os, shmps, sys

with shmps.connect() as bus:
    pub, sub = bus.publisher("users/registered"), bus.subscribe("users/#", timeout=20)
    pub.publish(b"hi there")
    with pub.loan(1 << 20) as view:
        view[:4] = b"loan"
    assert bytes(sub.take()) == b"hi there"
    assert bytes(sub.take().payload[:4]) == b"loan"
    print(os.path.dirname(shmps.__file__), flush=True)
    sys.stdin.read()
'''


def wheel() -> Path:
    wheels = list((BUILD / "wheel").glob("*.whl"))
    assert len(wheels) == 1, f"./dev wheel makes one, there are {wheels}"
    return wheels[0]


@pytest.fixture(scope="module")
def content() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="shmps-test-") as folder:
        with zipfile.ZipFile(wheel()) as archive:
            archive.extractall(folder)
        yield Path(folder)


def version() -> str:
    found = re.search(r"^  version: '(.*)',", (SOURCE / "meson.build").read_text(), re.M)
    assert found
    return found[1]


def is_elf(path: Path) -> bool:
    return path.is_file() and path.read_bytes()[:4] == b"\x7fELF"


def readelf(option: str, path: Path) -> str:
    return subprocess.run(
        ["readelf", "--wide", option, path], capture_output=True, text=True, check=True
    ).stdout


def test_one_wheel_is_for_all_releases(content: Path) -> None:
    name = rf"shmps-{re.escape(version())}-cp311-abi3-manylinux_2_\d+_{os.uname().machine}\.whl"
    assert re.fullmatch(name, wheel().name)


def test_it_holds_the_package_and_nothing_else(content: Path) -> None:
    package = SOURCE / "python" / "shmps"
    sources = {p.relative_to(package.parent) for p in package.rglob("*") if p.is_file()}
    wanted = {str(p) for p in sources if p.suffix in (".py", ".pyi", ".typed")}
    wanted |= {"shmps/_native.abi3.so", "shmps/lib/libshmps.so.0"}
    wanted |= {"shmps/bin/pubsubd", "shmps/bin/shmps"}
    info = f"shmps-{version()}.dist-info"
    found = {str(p.relative_to(content)) for p in content.rglob("*") if p.is_file()}
    assert {name for name in found if not name.startswith(info)} == wanted


def test_it_says_what_it_is(content: Path) -> None:
    text = (content / f"shmps-{version()}.dist-info" / "METADATA").read_text()
    told = email.message_from_string(text)
    assert (told["Name"], told["Version"]) == ("shmps", version())
    assert told["License-Expression"] == "MIT"
    assert told["Requires-Python"] == ">=3.11"
    assert told.get_all("Requires-Dist") is None
    readme = (SOURCE / "README.md").read_text()
    assert told["Summary"].split(",")[0] in readme
    assert told.get_payload() == readme


def test_it_needs_only_the_libc_that_its_name_says(content: Path) -> None:
    said = re.search(r"manylinux_(2)_(\d+)_", wheel().name)
    assert said
    newest = (0, 0)
    programs = [path for path in content.rglob("*") if is_elf(path)]
    assert len(programs) == 4
    for path in programs:
        dynamic = readelf("--dynamic", path)
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
        assert needed and all(map(LIBC.fullmatch, needed)), f"{path.name} needs {needed}"
        wanted = ["$ORIGIN/lib"] if path.suffix == ".so" else []
        assert re.findall(r"\(R(?:UN)?PATH\).*\[(.*)\]", dynamic) == wanted, path.name
        for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", readelf("--version-info", path)):
            newest = max(newest, (int(major), int(minor)))
    assert newest == (int(said[1]), int(said[2]))


@cache
def pythons() -> dict[str, str]:
    """Each CPython from 3.11 on that is found: its release, and where it is. Beside those in PATH,
    those that lie beside this one, as managers of many releases have them."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += [path / "bin" for path in Path(sys.base_prefix).parent.glob("*")]
    ask = "import sys; print(sys.implementation.name, *sys.version_info[:3], sys.executable)"
    found: dict[str, str] = {}
    for path in sorted(p for folder in folders for p in folder.glob("python3*")):
        if re.fullmatch(r"python3(\.\d+)?", path.name):
            told = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=False)
            name, *release, real = told.stdout.split() or ["", "0", ""]
            if name == "cpython" and list(map(int, release)) >= [3, 11]:
                found.setdefault(".".join(release), real)
    return found


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An environment that knows nothing of the build; yields the name of its instance."""
    instance = f"wheel-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="shmps-test-") as runtime:
        for name in list(os.environ):
            if name.startswith(("SHMPS", "PYTHON", "LD_")):
                monkeypatch.delenv(name)
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("SHMPS_INSTANCE", instance)
        monkeypatch.chdir(runtime)
        yield instance
    assert not segments(instance)


def install(python: str, place: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([python, "-m", "venv", "--without-pip", place], check=True, timeout=TIMEOUT_S)
    pip += ["--python", str(place), "install", "--no-index", "--no-compile", str(wheel())]
    subprocess.run(pip, check=True, timeout=TIMEOUT_S)


def programs_of(place: Path) -> dict[Path, int]:
    """The programs of a folder that run, and their processes."""
    running = {}
    for link in Path("/proc").glob("[0-9]*/exe"):
        try:
            program = Path(os.readlink(link))
        except OSError:  # the kernel's, somebody else's, or gone
            continue
        if program.is_relative_to(place):
            running[program] = int(link.parent.name)
    return running


@pytest.mark.parametrize("release", pythons())
def test_installed_alone_it_works(release: str, clean: str, tmp_path: Path) -> None:
    venv = tmp_path.resolve() / "venv"
    install(pythons()[release], venv)

    def run(*command: str) -> str:
        return subprocess.run(
            [venv / "bin" / command[0], *command[1:]],
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        ).stdout

    with subprocess.Popen(
        [venv / "bin" / "python", "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout and program.stdin
        package = Path(program.stdout.readline().strip())
        assert package.is_relative_to(venv)
        # It has started the pubsubd of the wheel, and speaks to it; so does the tool.
        running = programs_of(venv)
        assert list(running) == [package / "bin" / "pubsubd"]
        daemon = os.pidfd_open(running.popitem()[1])
        told = run("shmps", "info", "users/registered", "--json")
        assert '"messages":2' in told.replace(" ", "")
        assert run("python", "-m", "shmps", "ls") == run("shmps", "ls")
        program.stdin.close()
    assert program.returncode == 0
    run("shmps", "stop")
    ended, _, _ = select.select([daemon], [], [], TIMEOUT_S)
    os.close(daemon)
    assert ended and not programs_of(venv) and not children()
    assert run("pubsubd", "--version").split()[-1] == version()
