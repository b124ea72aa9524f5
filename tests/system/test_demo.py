#!/usr/bin/env python3
"""The demo in its short form on a pipe; its proof done again here, from its files alone."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tap import BUILD, PUBSUBD, run_cases, segments

DEMO = BUILD / "tools" / "demo" / "shmps-demo"
EARLY = ("spin", "futex", "descriptor")
TIMEOUT_S = 90


class Run:
    """One run that several cases look at."""

    directory = None
    process = None
    objects = []
    result = {}


def demo(*arguments, **options):
    return subprocess.run(
        [DEMO, *arguments],
        env=dict(os.environ, SHMPS_PUBSUBD=PUBSUBD),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        **options,
    )


def records(path, heading):
    """{topic: [(publisher, sequence, bytes, tag, hash)]} of a record."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# shmps-demo {heading}", f"{path} begins with {lines[0]!r}"
    assert lines[-1] == f"# end {len(lines) - 2}", f"{path} ends with {lines[-1]!r}"
    topics = {}
    for line in lines[1:-1]:
        topic, publisher, sequence, size, tag, digest = line.rsplit(" ", 5)
        assert re.fullmatch("[0-9a-f]{16}", digest), line
        entry = (publisher, int(sequence), int(size), int(tag), digest)
        topics.setdefault(topic, []).append(entry)
    return topics


def sent_by_all():
    sent = {}
    for name in ("host", "frames"):
        sent.update(records(Run.result["files"][name], f"sent {name}"))
    return sent


def it_ends_with_status_0():
    Run.process = demo("--seconds", "3", "--json", "--out", str(Run.directory))
    process = Run.process
    assert process.returncode == 0, f"{process.returncode}: {process.stdout}{process.stderr}"
    assert process.stderr == "", process.stderr
    Run.objects = [json.loads(line) for line in process.stdout.splitlines()]
    Run.result = Run.objects[-1]
    assert Run.result["event"] == "result" and Run.result["ok"] is True, Run.result


def it_kills_pubsubd_and_goes_on():
    events = [o["event"] for o in Run.objects]
    order = ["publishers-ready", "pubsubd-killed", "went-on"]
    order += ["pubsubd-restarted", "newcomer-ready", "publishers-left"]
    at = [events.index(event) for event in order]
    assert at == sorted(at), events
    without = Run.result["without_daemon"]
    assert without["sent"] > 0 and all(without[name] > 0 for name in EARLY), without


def it_publishes_this_machine_and_frames():
    sent = sent_by_all()
    expected = {"host/cpu", "host/memory", "host/process", "host/net/lo", "camera/frames"}
    assert expected <= set(sent), sorted(sent)
    assert {size for _, _, size, _, _ in sent["camera/frames"]} == {1 << 20}
    for topic, lines in sent.items():
        assert [line[1] for line in lines] == list(range(len(lines))), topic
    assert sum(map(len, sent.values())) == Run.result["sent"]
    digests = {line[4] for line in sent["camera/frames"]}
    assert len(digests) > len(sent["camera/frames"]) / 2, "the frames are all alike"


def everyone_received_all_of_it():
    sent = sent_by_all()
    for name in EARLY:
        received = records(Run.result["files"][name], f"received {name} all")
        assert received == sent, name


def the_newcomer_received_all_from_its_first_on():
    sent = sent_by_all()
    received = records(Run.result["files"]["newcomer"], "received newcomer tail")
    assert set(received) == set(sent), sorted(received)
    for topic, lines in received.items():
        assert lines == sent[topic][lines[0][1] :], topic
        assert lines[0][1] > 0, f"{topic}: it was there from the start"


def the_numbers_it_prints_are_those_of_the_files():
    rows = {(o["subscriber"], o["topic"]): o for o in Run.objects if o["event"] == "topic"}
    for topic, lines in sent_by_all().items():
        for name in EARLY:
            row = rows[name, topic]
            assert row["sent"] == row["received"] == len(lines), row
            assert row["lost"] == row["wrong"] == row["extra"] == 0, row
            assert 0 < row["p50_ns"] <= row["p99_ns"] <= row["max_ns"], row


def copy_of_records(name):
    return Path(shutil.copytree(Run.directory, Run.directory.parent / name))


def the_comparer_says_yes():
    judged = demo("compare", str(copy_of_records("untouched")))
    assert judged.returncode == 0, judged.stdout + judged.stderr


def refused(name, file, edit):
    """The comparer says no to a copy in which the lines of one file were edited."""
    directory = copy_of_records(name)
    path = directory / file
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(edit(lines)) + "\n", encoding="utf-8")
    judged = demo("compare", str(directory))
    assert judged.returncode == 1, f"{name}: {judged.returncode}: {judged.stdout}"
    assert "DISAGREE" in judged.stdout, judged.stdout


def end_of(lines):
    return [*lines[:-1], f"# end {len(lines) - 2}"]


def the_comparer_notices_what_is_wrong():
    def other_digest(lines):
        middle = len(lines) // 2
        last = "1" if lines[middle][-1] == "0" else "0"
        return [*lines[:middle], lines[middle][:-1] + last, *lines[middle + 1 :]]

    def without(n):
        return lambda lines: end_of(lines[:n] + lines[n + 1 :])

    refused("digest", "received.spin.txt", other_digest)
    refused("digest-sent", "sent.frames.txt", other_digest)
    refused("missing", "received.futex.txt", without(len(Run.objects) + 10))
    refused("missing-first", "received.futex.txt", without(1))
    refused("missing-last", "received.descriptor.txt", without(-2))
    refused("missing-newcomer", "received.newcomer.txt", without(-2))
    refused("twice", "received.spin.txt", lambda lines: end_of([*lines[:2], *lines[1:]]))
    refused("swapped", "received.spin.txt", lambda lines: swap_of_a_topic(lines))
    refused("cut", "received.spin.txt", lambda lines: lines[: len(lines) // 2])
    refused("nothing", "received.newcomer.txt", lambda lines: [lines[0], "# end 0"])


def swap_of_a_topic(lines):
    """Two neighbours of the same topic in the other order."""
    at = [i for i, line in enumerate(lines) if line.startswith("host/cpu ")]
    lines[at[3]], lines[at[4]] = lines[at[4]], lines[at[3]]
    return lines


def it_leaves_nothing_else_behind():
    left = segments(f".{Run.result['instance']}.")
    assert not left, left
    names = sorted(path.name for path in Run.directory.iterdir())
    assert "pubsubd.log" in names and len(names) == 7, names


def interrupted_after(cue):
    """Lines on a pipe up to one that holds `cue`, then Ctrl-C; nothing is left."""
    out = Run.directory.parent / "interrupted"
    process = subprocess.Popen(
        [DEMO, "--seconds", "3", "--out", str(out)],
        env=dict(os.environ, SHMPS_PUBSUBD=PUBSUBD),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        for line in process.stdout:
            assert "\033" not in line, line
            if cue in line:
                break
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, (process.returncode, output)
    left = segments(f".demo-{process.pid}.")
    assert not left, left


def ctrl_c_ends_everything():
    interrupted_after("subscribers wait")
    interrupted_after("publishers begin")


def ctrl_c_ends_everything_while_no_pubsubd_runs():
    interrupted_after("was ended by SIGKILL")


def bad_usage_is_refused():
    for arguments in (["--seconds", "0"], ["--seconds", "x"], ["--no-such-option"], ["elsewhere"]):
        refusal = demo(*arguments)
        assert refusal.returncode == 2 and "usage:" in refusal.stderr, (arguments, refusal)
    assert demo("compare", str(Run.directory.parent)).returncode == 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="shmps-test-") as temporary:
        Run.directory = Path(temporary) / "out"
        run_cases(
            [
                it_ends_with_status_0,
                it_kills_pubsubd_and_goes_on,
                it_publishes_this_machine_and_frames,
                everyone_received_all_of_it,
                the_newcomer_received_all_from_its_first_on,
                the_numbers_it_prints_are_those_of_the_files,
                the_comparer_says_yes,
                the_comparer_notices_what_is_wrong,
                it_leaves_nothing_else_behind,
                ctrl_c_ends_everything,
                ctrl_c_ends_everything_while_no_pubsubd_runs,
                bad_usage_is_refused,
            ]
        )
