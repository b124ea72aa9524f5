"""What the system tests in Python share: cases as TAP, and a private bus."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

BUILD = Path(os.environ["BUILD"])
PUBSUBD = os.environ.get("SHMPS_PUBSUBD", str(BUILD / "pubsubd" / "pubsubd"))


def run_cases(cases):
    """Call each function; a name is what it is called, its exception why it failed, and what it
    returns, if anything, why it could not be tried (tests/skips.txt)."""
    failed = 0
    print(f"1..{len(cases)}", flush=True)
    for number, case in enumerate(cases, 1):
        name = case.__name__.replace("_", " ")
        try:
            why = case()
            print(f"ok {number} - {name}{f' # SKIP {why}' if why else ''}", flush=True)
        except Exception as why:  # whatever it is, the next case follows
            failed += 1
            print(f"not ok {number} - {name}", flush=True)
            for line in f"{type(why).__name__}: {why}".splitlines():
                print(f"# {line}", flush=True)
    sys.exit(1 if failed else 0)


def segments(word):
    """Segments in /dev/shm whose name contains a word."""
    return sorted(name for name in os.listdir("/dev/shm") if word in name)


@contextmanager
def private_bus(name):
    """A pubsubd of its own; yields its clients' environment. It must leave nothing behind."""
    instance = f"{name}-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="shmps-test-") as runtime:
        env = dict(os.environ, XDG_RUNTIME_DIR=runtime, SHMPS_INSTANCE=instance)
        env["SHMPS_AUTOSTART"] = "0"
        daemon = subprocess.Popen(
            [PUBSUBD, "--instance", instance], env=env, stdout=subprocess.PIPE, text=True
        )
        try:
            word = daemon.stdout.readline()
            assert word == "ready\n", f"pubsubd said {word!r}"
            yield env
        finally:
            daemon.send_signal(signal.SIGTERM)
            status = daemon.wait(timeout=20)
            daemon.stdout.close()
    assert status == 0, f"pubsubd ended with {status}"
    left = segments(f".{instance}.")
    assert not left, f"left behind: {left}"
