"""What the tests of shmps share: a private bus in which the tool runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from tap import BUILD, PUBSUBD, segments

SHMPS = str(BUILD / "tools" / "shmps")
TIMEOUT_S = 30
SHM = Path("/dev/shm")
INSIDE = "SHMPS_TEST_INSIDE"  # in the environment: own_shm() has begun this program anew
DONE, ERROR, USAGE, NO_DAEMON, NO_TOPIC, PERMISSION, VERSION, TIMED_OUT = 0, 1, 2, 3, 4, 5, 6, 27


class Bus:
    """A private instance: runs the tool in it, and ends what a case leaves running."""

    def __init__(self, runtime, name):
        self.instance = f"{name}-{os.getpid()}"
        self.env = dict(os.environ, XDG_RUNTIME_DIR=runtime, SHMPS_INSTANCE=self.instance)
        self.env.update(SHMPS_AUTOSTART="0", SHMPS_PUBSUBD=PUBSUBD)
        self.started = []
        self.daemon = None

    def start_daemon(self):
        self.daemon = subprocess.Popen(
            [PUBSUBD, "--instance", self.instance], env=self.env, stdout=subprocess.PIPE
        )
        assert self.daemon.stdout.readline() == b"ready\n", "pubsubd is not ready"

    def kill_daemon(self):
        self.daemon.kill()
        self.daemon.wait()

    def start(self, *args, **kwargs):
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options["bufsize"] = 0  # what is read here and what communicate() reads is one stream
        process = subprocess.Popen([SHMPS, *args], env=self.env, **{**options, **kwargs})
        self.started.append(process)
        return process

    def run(self, *args, status=DONE, data=b"", env=None, **kwargs):
        """Run it to its end, which must be with that status."""
        if "stdin" not in kwargs:
            kwargs["input"] = data
        got = subprocess.run(
            [SHMPS, *args], env=env or self.env, capture_output=True, timeout=TIMEOUT_S, **kwargs
        )
        assert got.returncode == status, f"{args}: status {got.returncode}: {got.stderr}"
        return got

    def subscribe(self, *args, **kwargs):
        """Start a subscriber; it misses nothing from now on."""
        process = self.start("sub", *args, **kwargs)
        word = process.stderr.readline()
        assert word == b"subscribed\n", f"sub said {word!r}"
        return process

    def objects(self, *args):
        """What a verb prints with --json."""
        return [json.loads(line) for line in self.run(*args, "--json").stdout.splitlines()]

    def until(self, topic, condition):
        """What info tells of a topic, as soon as it meets the condition."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            info = self.start("info", topic, "--json")
            output, _ = info.communicate(timeout=TIMEOUT_S)
            if info.returncode == 0 and condition(json.loads(output)):
                return json.loads(output)
            assert time.monotonic() < deadline, f"info {topic} does not come to it: {output}"
            time.sleep(0.005)

    def end(self):
        for process in self.started:
            process.kill()
            process.wait()
        if self.daemon and self.daemon.poll() is None:
            self.daemon.terminate()
            assert self.daemon.wait(timeout=TIMEOUT_S) == 0
            left = segments(f".{self.instance}.")
            assert not left, f"left behind: {left}"
        for name in segments(f".{self.instance}."):
            (SHM / name).unlink()


@contextmanager
def own_bus(daemon=True):
    with tempfile.TemporaryDirectory(prefix="shmps-test-") as runtime:
        bus = Bus(runtime, "tool")
        try:
            if daemon:
                bus.start_daemon()
            yield bus
        finally:
            bus.end()


def mount(*args):
    subprocess.run(["mount", *args], check=True)


def own_shm(size):
    """Run this program again, in a mount namespace with a /dev/shm of its own and of that size:
    where that cannot be, it is skipped."""
    if INSIDE in os.environ:
        mount("-t", "tmpfs", "-o", f"size={size},mode=1777", "tmpfs", "/dev/shm")
        return
    ways = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])
    for way in ways if shutil.which("unshare") else ():
        if subprocess.run([*way, "true"], capture_output=True).returncode == 0:
            os.environ[INSIDE] = "1"
            os.execvp(way[0], [*way, sys.executable, *sys.argv])
    print("1..1\nok 1 - everything # SKIP needs a mount namespace")
    sys.exit(0)


def finish(process, status=DONE):
    """Wait for its end; what it still had to say on stdout and stderr."""
    output, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == status, f"status {process.returncode}: {errors}"
    return output, errors


def stop(process):
    """Stop it, and know that it stands still."""
    process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), status


def kill(*processes):
    for process in processes:
        process.kill()
        process.wait()


def publish(process, *lines):
    """Lines for a `pub -l`."""
    process.stdin.write(b"".join(line + b"\n" for line in lines))
    process.stdin.flush()


def numbers(*of):
    return b"".join(b"%d\n" % i for i in range(*of))
