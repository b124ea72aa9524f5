#!/usr/bin/env python3
"""docs/scenarios/at-3-am.md: somebody is stuck, somebody leaks, /dev/shm is full. The tool alone
tells which, who, and what to do; that is done as it says, and the bus recovers.

What the tool says is in the log. In a mount namespace, with a /dev/shm of 64 MiB."""

import json
import re
import subprocess
import time
from pathlib import Path

from tap import BUILD, run_cases, segments
from tool import DONE, ERROR, SHM, TIMEOUT_S, own_bus, own_shm, stop

QUOTER = BUILD / "tests" / "quoter"
# What is about the bus, not about the machine that the test runs on.
OF_THE_BUS = re.compile(r"shm\.space|bus\.|topic\.|process\.|leftovers")


def tell(bus, *args, status=DONE, lines=None):
    """What the operator sees; what is not OK of it, or the first lines, is also in the log."""
    text = bus.run(*args, status=status).stdout.decode()
    print("# $ shmps", *args)
    for line in text.splitlines()[:lines]:
        if not line.startswith("OK"):
            print(f"#   {line}")
    return text


def troubles(bus, status):
    """{check: finding} of all that doctor does not find OK on this bus; each check once."""
    found = {}
    tell(bus, "doctor", status=status)
    for line in bus.run("doctor", "--json", status=status).stdout.splitlines():
        o = json.loads(line)
        if o["verdict"] != "OK" and OF_THE_BUS.match(o["check"]):
            assert o["check"] not in found, o
            found[o["check"]] = o
    return found


def follow(finding):
    """Do what doctor says, as far as it is a command."""
    command = re.match(r"kill( -[A-Z]+)? \d+", finding["mend"])[0]
    print(f"# $ {command}")
    subprocess.run(command, shell=True, check=True)


def leak(bus):
    """A quoter that has been refused; and what it was told."""
    quoter = subprocess.Popen([QUOTER], env=bus.env, stdout=subprocess.PIPE, text=True)
    bus.started.append(quoter)
    refusal = quoter.stdout.readline()
    print(f"# quoter: {refusal}", end="")
    return quoter, refusal


def topics(bus):
    return [o["topic"] for o in bus.objects("ls")]


def until(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it does not come to it"
        time.sleep(0.005)


def stuck(bus, messages):
    """A logger that is stopped, and an arm that has more to say than the ring takes."""
    logger = bus.subscribe("robot/arm", "--reliable")
    arm = bus.start("pub", "robot/arm", "-l", "--depth", "16")
    stop(logger)
    arm.stdin.write(b"".join(b"position %d\n" % i for i in range(messages)))
    bus.until("robot/arm", lambda info: any(p["stalls"] for p in info["publishers"]))
    return logger, arm


def goes_on(logger, arm, messages):
    """Nothing of what the arm had to say is lost."""
    for i in range(messages):
        assert logger.stdout.readline() == b"position %d\n" % i, i
    arm.stdin.close()
    assert arm.wait(timeout=TIMEOUT_S) == DONE


# ---------------------------------------------------------------------------- the cases


def stuck_leaking_and_full_at_once():
    with own_bus() as bus:
        logger, arm = stuck(bus, 40)
        quoter, refusal = leak(bus)
        assert re.match(r"SHMPS_E_NO_SPACE: .*quote/\d+.* needs 536576 bytes", refusal), refusal

        found = troubles(bus, ERROR)
        assert set(found) == {"shm.space", "topic.slow", "process.rings", "bus.error"}, found
        assert found["shm.space"]["verdict"] == "FAIL", found
        slow, leaking = found["topic.slow"], found["process.rings"]
        assert slow["what"] == (
            f"topic robot/arm: subscriber {logger.pid} (shmps) is stopped, 16 messages behind "
            f"publisher {arm.pid}"
        ), slow
        quotes = len(topics(bus)) - 1
        assert leaking["what"].startswith(
            f"process {quoter.pid} (quoter) has {quotes} of {quotes + 1} rings in {quotes} topics"
        ), leaking
        assert "quote/" in found["bus.error"]["why"], found

        largest = tell(bus, "top", "-b", "-n", "1", "-d", "0.1", "--sort", "memory", lines=4)
        assert largest.splitlines()[2].startswith("quote/0 "), largest
        slowest = tell(bus, "top", "-b", "-n", "1", "-d", "0.1", "--sort", "lag", lines=3)
        assert re.match(r"robot/arm +0 +0 +1 +1 +100% +16 ", slowest.splitlines()[2]), slowest
        info = tell(bus, "info", "robot/arm")
        assert re.search(rf"{logger.pid} .*shmps +reliable .* 16 ", info), info
        last = tell(bus, "dump", "robot/arm", "-n", "2")
        assert [line.strip() for line in last.splitlines()][1::2] == ["position 14", "position 15"]
        assert "nothing" in bus.run("gc", "--dry-run").stderr.decode()  # all is somebody's

        follow(slow)
        goes_on(logger, arm, 40)
        follow(leaking)
        quoter.wait()
        until(lambda: topics(bus) == ["robot/arm"])
        assert set(troubles(bus, DONE)) == {"bus.error"}  # it remembers for a day
        bus.run("pub", "quote/0", "there is room")


def a_limit_in_place_of_a_full_dev_shm():
    with own_bus(daemon=False) as bus:
        folder = Path(bus.env["XDG_RUNTIME_DIR"])
        (folder / "conf" / "shmps").mkdir(parents=True)
        (folder / "conf" / "shmps" / "pubsubd.conf").write_text("max_memory = 16MiB\n")
        bus.env["XDG_CONFIG_HOME"] = str(folder / "conf")
        bus.start_daemon()
        bus.subscribe("robot/arm")
        quoter, refusal = leak(bus)
        assert re.match(r"SHMPS_E_LIMIT: .*max_memory", refusal), refusal
        found = troubles(bus, DONE)
        assert set(found) == {"process.rings", "bus.error"}, found
        assert f"process {quoter.pid} (quoter)" in found["process.rings"]["what"], found
        follow(found["process.rings"])
        quoter.wait()
        until(lambda: topics(bus) == ["robot/arm"])
        bus.run("pub", "quote/0", "there is room")
        assert set(troubles(bus, DONE)) == {"bus.error"}


def full_of_what_is_not_ours():
    with own_bus() as bus:
        sub = bus.subscribe("robot/arm")
        core = SHM / "core.of.somebody"
        with core.open("wb") as file:
            try:
                while file.write(bytes(1 << 16)):
                    file.flush()
            except OSError:
                pass  # it is full
        try:
            got = bus.run("pub", "robot/leg", "x", status=ERROR)
            assert b"robot/leg" in got.stderr, got.stderr
            found = troubles(bus, ERROR)
            assert set(found) == {"shm.space", "bus.error"}, found
            assert str(core) in found["shm.space"]["mend"], found
        finally:
            core.unlink()  # as it says
        bus.run("pub", "robot/arm", "goes on")
        assert sub.stdout.readline() == b"goes on\n"
        assert set(troubles(bus, DONE)) == {"bus.error"}


def nobody_is_left_alive():
    with own_bus() as bus:
        logger, arm = stuck(bus, 40)
        bus.kill_daemon()
        for process in (logger, arm):
            process.kill()
            process.wait()
        found = troubles(bus, DONE)
        assert set(found) == {"bus.daemon", "leftovers"}, found
        told = tell(bus, "dump", "robot/arm", "-n", "2")
        assert "position 15" in told and f"pid {arm.pid} shmps" in told, told
        assert f"--instance {bus.instance}" in found["leftovers"]["mend"], found
        tell(bus, "gc", "--yes")
        assert segments(f".{bus.instance}.") == []
        assert troubles(bus, DONE) == {}


if __name__ == "__main__":
    own_shm("64M")
    run_cases(
        [
            stuck_leaking_and_full_at_once,
            a_limit_in_place_of_a_full_dev_shm,
            full_of_what_is_not_ours,
            nobody_is_left_alive,
        ]
    )
