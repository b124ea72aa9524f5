#!/usr/bin/env python3
"""The configuration as its user meets it: where it is looked for, --check-config, info, SIGHUP."""

import os
import pty
import signal
import subprocess
import tempfile
from pathlib import Path

from tap import PUBSUBD, run_cases, segments
from tool import DONE, ERROR, TIMEOUT_S, finish, own_bus

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "pubsubd.conf.example"


def check(*options, status=DONE, **environment):
    """What pubsubd --check-config says, on stdout and stderr."""
    env = {k: v for k, v in os.environ.items() if k not in ("XDG_CONFIG_HOME", "HOME")}
    got = subprocess.run(
        [PUBSUBD, "--check-config", *options],
        env={**env, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert got.returncode == status, f"{options}: status {got.returncode}: {got.stderr}"
    return got.stdout, got.stderr


def place(folder, text):
    path = Path(folder) / "shmps" / "pubsubd.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def the_example_is_well_formed():
    assert check("--config", str(EXAMPLE)) == (f"{EXAMPLE}: well-formed\n", "")


def a_broken_one_is_named_with_its_line():
    with tempfile.TemporaryDirectory(prefix="shmps-test-") as folder:
        path = place(folder, 'topic "a" {\n  depth = 8\n  colour = red\n}\n')
        said = check("--config", str(path), status=ERROR)
        assert said[0] == "" and said[1].startswith(f"{path}:3: no such option 'colour'"), said
        path.write_text("log = debug")
        os.chdir(path.parent)
        assert check("--config", path.name)[0] == f"{path}: well-formed\n"
        os.chdir("/")


def one_that_is_named_must_be_there():
    said = check("--config", "/nonexistent/pubsubd.conf", status=ERROR)
    assert "/nonexistent/pubsubd.conf: No such file or directory" in said[1], said


def the_places_where_it_is_looked_for():
    with tempfile.TemporaryDirectory(prefix="shmps-test-") as folder:
        home, config = Path(folder) / "home", Path(folder) / "config"
        at_home = home / ".config" / "shmps" / "pubsubd.conf"
        both = {"HOME": str(home), "XDG_CONFIG_HOME": str(config)}
        nothing = "not there, the defaults hold\n"
        assert check(HOME=str(home)) == (f"{at_home}: {nothing}", "")
        assert check() == (f"a configuration: {nothing}", "")
        place(home / ".config", "log = loud")
        assert check(HOME=str(home), status=ERROR)[1].startswith(f"{at_home}:1: ")
        assert check(**both)[0] == f"{config}/shmps/pubsubd.conf: {nothing}"
        place(config, "log = debug")
        assert check(**both)[0] == f"{config}/shmps/pubsubd.conf: well-formed\n"
        said = "".join(check("--system", status=DONE, **both))
        assert said.startswith("/etc/shmps/pubsubd.conf: "), said


def info_shows_what_is_configured():
    with own_bus(daemon=False) as bus, tempfile.TemporaryDirectory() as folder:
        bus.env["XDG_CONFIG_HOME"] = folder
        place(folder, 'topic "a/#" { depth = 4  message_size = 10KiB  pins = 2 }\n')
        bus.start_daemon()
        bus.start("pub", "-l", "a/b")
        bus.start("pub", "-l", "b")
        (ring,) = bus.until("a/b", lambda info: info["publishers"])["publishers"]
        assert (ring["depth"], ring["message_bytes"], ring["pins"]) == (4, 10240, 2), ring
        (ring,) = bus.until("b", lambda info: info["publishers"])["publishers"]
        assert (ring["depth"], ring["message_bytes"], ring["pins"]) == (64, 4096, 64), ring


def a_small_default_grows_up_to_its_limit():
    with own_bus(daemon=False) as bus, tempfile.TemporaryDirectory() as folder:
        bus.env["XDG_CONFIG_HOME"] = folder
        place(folder, 'topic "#" { message_size = 32  max_message_size = 5500 }\n')
        bus.start_daemon()
        sub = bus.subscribe("a", "-C", "3")
        pub = bus.start("pub", "-l", "a")
        pub.stdin.write(b"small\n")
        (ring,) = bus.until("a", lambda info: info["publishers"])["publishers"]
        assert ring["message_bytes"] == 32, ring
        pub.stdin.write(b"x" * 5000 + b"\n")
        pub.stdin.write(b"x" * 5500 + b"\n")
        assert finish(sub)[0] == b"small\n" + b"x" * 5000 + b"\n" + b"x" * 5500 + b"\n"
        pub.stdin.write(b"x" * 5501 + b"\n")
        said = finish(pub, status=ERROR)[1]
        assert b'a message of topic "a" may have 5500 bytes, not 5501' in said, said


def the_instance_is_chosen_by_option_environment_file():
    with own_bus(daemon=False) as bus, tempfile.TemporaryDirectory() as folder:
        bus.env["XDG_CONFIG_HOME"] = folder
        names = [f"{bus.instance}-{of}" for of in ("option", "environment", "file")]
        place(folder, f"instance = {names[2]}\n")
        for name in names:
            env = dict(bus.env, SHMPS_INSTANCE=names[1])
            if name == names[2]:
                del env["SHMPS_INSTANCE"]
            options = ["--instance", name] if name == names[0] else []
            daemon = subprocess.Popen([PUBSUBD, *options], env=env, stdout=subprocess.PIPE)
            assert daemon.stdout.readline() == b"ready\n"
            assert segments(f".{name}.dir"), name
            bus.run("stop", "--instance", name)
            assert daemon.wait(timeout=TIMEOUT_S) == 0
            daemon.stdout.close()


def a_broken_one_stops_an_autostart():
    with own_bus(daemon=False) as bus, tempfile.TemporaryDirectory() as folder:
        bus.env.update(XDG_CONFIG_HOME=folder, SHMPS_AUTOSTART="1")
        place(folder, "\n\nlog = loud\n")
        got = subprocess.run(
            [PUBSUBD, "--instance", bus.instance, "--autostarted"],
            env=bus.env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert got.returncode == 1 and f"{folder}/shmps/pubsubd.conf:3: log" in got.stderr, got


def a_terminal_that_goes_ends_it():
    """A SIGHUP by kill() means: read again; the kernel's means that the terminal has gone."""
    with own_bus(daemon=False) as bus:
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(PUBSUBD, [PUBSUBD, "--instance", bus.instance], bus.env)
        said = b""
        while b"ready" not in said:
            said += os.read(terminal, 1000)
        os.kill(pid, signal.SIGHUP)
        while b"what is opened from now on" not in said:
            said += os.read(terminal, 1000)
        bus.run("ls")
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
        assert status == 0, status
        assert not segments(f".{bus.instance}.")


if __name__ == "__main__":
    run_cases(
        [
            the_example_is_well_formed,
            a_broken_one_is_named_with_its_line,
            one_that_is_named_must_be_there,
            the_places_where_it_is_looked_for,
            info_shows_what_is_configured,
            a_small_default_grows_up_to_its_limit,
            the_instance_is_chosen_by_option_environment_file,
            a_broken_one_stops_an_autostart,
            a_terminal_that_goes_ends_it,
        ]
    )
