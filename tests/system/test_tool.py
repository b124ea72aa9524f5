#!/usr/bin/env python3
"""shmps: its command lines, pub, sub and stop, against a real pubsubd, with every exit code."""

import base64
import json
import os
import random
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tap import BUILD, run_cases, segments
from tool import (
    ERROR,
    NO_DAEMON,
    NO_TOPIC,
    TIMED_OUT,
    TIMEOUT_S,
    USAGE,
    finish,
    numbers,
    own_bus,
    stop,
)


# ---------------------------------------------------------------------------- command lines


def help_comes_from_the_table_of_verbs():
    with own_bus(daemon=False) as bus:
        everything = bus.run("help").stdout.decode()
        assert bus.run("--help").stdout.decode() == everything
        verbs = re.findall(r"^  ([a-z]+) ", everything, re.M)
        assert verbs == "ls info top dump doctor gc pub sub stop help".split(), verbs
        for verb in verbs:
            told = bus.run("help", verb).stdout.decode()
            assert told.startswith(f"usage: shmps {verb} [OPTIONS]"), told
            assert bus.run(verb, "--help").stdout.decode() == told
            assert "--help" in told
            for line in told.splitlines():
                assert line == line.rstrip() and len(line) <= 80, f"{verb}: {line!r}"
        nothing = bus.run(status=USAGE)
        assert nothing.stdout == b"" and nothing.stderr.decode() == everything


def the_version_is_the_build_s():
    with own_bus(daemon=False) as bus:
        info = json.loads((BUILD / "meson-info" / "intro-projectinfo.json").read_text())
        assert bus.run("--version").stdout.decode() == f"shmps {info['version']}\n"


def wrong_command_lines_are_usage_errors():
    wrong = [
        (["dance"], "no verb 'dance'"),
        (["--dance", "ls"], "no option --dance"),
        (["--instance"], "no option --instance"),
        (["help", "dance"], "no verb 'dance'"),
        (["ls", "x"], "'x' is too much: it takes options only"),
        (["ls", "--raw"], "no option --raw"),
        (["ls", "-x"], "no option -x"),
        (["ls", "--json=1"], "no option --json=1"),
        (["info"], "TOPIC is missing"),
        (["info", "a", "b"], "'b' is too much: it takes TOPIC"),
        (["info", "a//b"], "'a//b'"),
        (["info", "a/#"], "'a/#'"),
        (["top"], "give -b"),
        (["top", "-b", "--sort", "age"], "not 'age'"),
        (["top", "-b", "-d", "0"], "'0'"),
        (["dump", "a/#/b"], "'a/#/b'"),
        (["dump", "-n", "0"], "'0'"),
        (["dump", "--json", "--raw"], "--raw"),
        (["gc"], "nobody can be asked"),
        (["gc", "--all", "--instance", "x", "--yes"], "--all"),
        (["pub", "a"], "one of BODY"),
        (["pub", "a", "b", "-l"], "one of BODY"),
        (["pub", "a", "-l", "-s"], "one of BODY"),
        (["pub", "+", "b"], "'+'"),
        (["pub", "a", "b", "--depth", "1"], "2 to 1048576"),
        (["pub", "a", "b", "--tag", "-1"], "'-1'"),
        (["pub", "a", "b", "--tag", "18446744073709551616"], "'18446744073709551616'"),
        (["pub", "a", "b", "--wait-subs", "1x"], "'1x'"),
        (["pub", "a", "b", "-W", "0"], "'0'"),
        (["pub", "a", "b", "-W", "nan"], "'nan'"),
        (["pub", "a", "b", "-W"], "-W needs an argument"),
        (["sub"], "FILTER... is missing"),
        (["sub", "a/#/b"], "'a/#/b'"),
        (["sub", "a", "-C", "0"], "'0'"),
        (["sub", "a", "--latest", "--reliable"], "only one of"),
        (["sub", "a", "--json", "--raw"], "--json"),
        (["--instance", "no good", "ls"], "no good"),
        (["--instance", "no good", "pub", "a", "b"], "no good"),
    ]
    with own_bus() as bus:
        for args, story in wrong:
            got = bus.run(*args, status=USAGE)
            assert got.stdout == b"", (args, got.stdout)
            assert story in got.stderr.decode(), (args, got.stderr)


def the_instance_is_chosen_before_or_after_the_verb():
    with own_bus() as bus:
        lost = dict(bus.env, SHMPS_INSTANCE=bus.instance + "x")
        bus.run("ls", env=lost, status=NO_DAEMON)
        bus.run("--instance", bus.instance, "ls", env=lost)
        bus.run("ls", f"--instance={bus.instance}", env=lost)
        bus.run(f"--instance={bus.instance}", "pub", "a", "b", env=lost)


# ---------------------------------------------------------------------------- no daemon, no topic


def without_daemon_and_directory_every_verb_says_so():
    with own_bus(daemon=False) as bus:
        for args in (
            ["ls"],
            ["info", "a"],
            ["dump"],
            ["top", "-b"],
            ["pub", "a", "b"],
            ["sub", "a"],
            ["sub", "a", "--observe"],
            ["stop"],
        ):
            got = bus.run(*args, status=NO_DAEMON)
            assert got.stdout == b"" and b"pubsubd" in got.stderr, (args, got)


def a_topic_that_is_not_there():
    with own_bus() as bus:
        got = bus.run("info", "not/there", status=NO_TOPIC)
        assert got.stdout == b"" and b"'not/there'" in got.stderr


def pub_starts_a_daemon_and_stop_ends_it_but_ls_starts_none():
    with own_bus(daemon=False) as bus:
        bus.env["SHMPS_AUTOSTART"] = "1"
        bus.run("ls", status=NO_DAEMON)
        bus.run("stop", status=NO_DAEMON)
        bus.run("pub", "a", "b")
        assert bus.run("ls", "--json").stderr == b"", "its daemon does not run"
        bus.run("stop")
        bus.run("stop", status=NO_DAEMON)
        bus.run("ls", status=NO_DAEMON)


def stop_ends_the_daemon_cleanly():
    with own_bus() as bus:
        assert bus.run("stop").stdout == b""
        assert bus.daemon.wait(timeout=TIMEOUT_S) == 0
        assert segments(f".{bus.instance}.") == []


# ---------------------------------------------------------------------------- pub and sub


def lines_come_out_as_they_went_in():
    lines = [b"one", b"", b"\xff\x00\x1b[2J", b" two ", bytes(range(11, 256)) * 1000, b"last"]
    with own_bus() as bus:
        sub = bus.subscribe("a/b", "--raw", "--reliable", "-C", str(len(lines)))
        bus.run("pub", "a/b", "-l", data=b"\n".join(lines))
        output, errors = finish(sub)
        assert output == b"\n".join(lines) + b"\n"
        assert errors == b"", errors


def plain_output_is_fit_for_a_terminal():
    with own_bus() as bus:
        sub = bus.subscribe("a", "-C", "1")
        text = "gr\u00fc\u00df\t1\n2\x1b[2J\x7f\u009b\r"
        bus.run("pub", "a", "-s", data=text.encode() + b"\xfe")
        output, _ = finish(sub)
        assert output.decode() == "gr\u00fc\u00df\t1\n2\\x1b[2J\\x7f\\xc2\\x9b\\x0d\\xfe\n", output


def the_topic_is_printed_where_several_can_match():
    with own_bus() as bus:
        for args, expected in (
            (["a/b"], b"x\n"),
            (["a/b", "-v"], b"a/b x\n"),
            (["a/+"], b"a/b x\n"),
            (["a/#", "--raw"], b"x\n"),
            (["a/#", "--raw", "-v"], b"a/b x\n"),
            (["c", "a/b"], b"a/b x\n"),
        ):
            sub = bus.subscribe(*args, "-C", "1")
            bus.run("pub", "a/b", "x")
            output, _ = finish(sub)
            assert output == expected, (args, output)


def a_message_is_printed_for_each_filter_that_matches():
    with own_bus() as bus:
        sub = bus.subscribe("a/b", "a/#", "b", "-C", "2")
        bus.run("pub", "a/b", "x")
        assert finish(sub)[0] == b"a/b x\n" * 2


def json_tells_what_was_published():
    bodies = [b"", b"text \"\\/\x00\x1f", "\u20ac\U0001f600".encode()]
    bodies += [b"\xff\xfe\n", b"\xed\xa0\x80", b"a", b"ab\x80", b"abc\x80" * 400]
    tags = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]
    with own_bus() as bus:
        sub = bus.subscribe("t/#", "--json", "--reliable", "-C", str(len(bodies)))
        before = time.monotonic_ns()
        reports = []
        for i, body in enumerate(bodies):
            tag = tags[i % len(tags)]
            got = bus.run("pub", f"t/{i}", "-s", "--json", "--tag", str(tag), data=body)
            reports.append(json.loads(got.stdout))
        after = time.monotonic_ns()
        output, _ = finish(sub)
        messages = [json.loads(line) for line in output.splitlines()]
        messages.sort(key=lambda m: m["topic"])
        assert len(messages) == len(bodies)
        for i, (body, report, message) in enumerate(zip(bodies, reports, messages)):
            publisher = report["publisher"]
            assert report["topic"] == f"t/{i}", report
            assert report["subscribers"] == 1 or i == len(bodies) - 1, report  # it ends then
            assert report["messages"] == 1 and report["bytes"] == len(body), report
            assert before <= message.pop("time_ns") <= after
            expected = {"topic": f"t/{i}", "publisher": publisher, "seq": 0, "lost": 0}
            expected.update(tag=tags[i % len(tags)], history=False, bytes=len(body))
            try:
                expected["payload"] = body.decode()
            except UnicodeDecodeError:
                expected["payload_base64"] = base64.b64encode(body).decode()
            assert message == expected, (message, expected)


def sequences_count_the_messages_of_a_publisher():
    with own_bus() as bus:
        sub = bus.subscribe("a", "--json", "--reliable", "-C", "200")
        bus.run("pub", "a", "-l", data=numbers(200))
        messages = [json.loads(line) for line in finish(sub)[0].splitlines()]
        assert [m["seq"] for m in messages] == list(range(200))
        assert [m["payload"] for m in messages] == [str(i) for i in range(200)]


def a_topic_counts_what_went_over_it_also_of_publishers_that_have_gone():
    with own_bus() as bus:
        sub = bus.subscribe("a", "--reliable", "-C", "204")
        bus.run("pub", "a", "-l", data=numbers(200))
        bus.run("pub", "a", "x")
        bus.run("pub", "a", "-l", data=b"y" * 100000 + b"\nz\n")  # grows
        for verb in (["ls", "--json"], ["info", "a", "--json"]):
            topic = json.loads(bus.run(*verb).stdout)
            assert topic["messages"] == 203, topic
            assert topic["bytes"] == len(numbers(200)) - 200 + 1 + 100000 + 1, topic
        bus.run("pub", "a", "end")
        finish(sub)


def all_of_stdin_is_one_message_from_a_pipe_or_a_file():
    body = random.Random(1).randbytes(3 << 20)
    with own_bus() as bus, tempfile.TemporaryFile() as file:
        file.write(body)
        file.flush()
        for begin, stdin in ((0, None), (0, file), (12345, file), (len(body), file)):
            if stdin:
                os.lseek(file.fileno(), begin, os.SEEK_SET)
            sub = bus.subscribe("a", "--raw", "-C", "1", stderr=subprocess.PIPE)
            pub = bus.start("pub", "a", "-s", stdin=stdin or subprocess.PIPE)
            if not stdin:
                pub.stdin.write(body)
                pub.stdin.close()
            output, errors = finish(sub)
            assert output == body[begin:] + b"\n", (begin, len(output), errors)
            assert pub.wait(timeout=TIMEOUT_S) == 0


def a_file_that_does_not_know_its_size():
    with own_bus() as bus, open("/proc/sys/kernel/ostype", "rb") as file:
        sub = bus.subscribe("a", "--raw", "-C", "1")
        bus.run("pub", "a", "-s", stdin=file)
        assert finish(sub)[0] == Path("/proc/sys/kernel/ostype").read_bytes() + b"\n"


def sub_flushes_each_message():
    with own_bus() as bus:
        sub = bus.subscribe("a")
        pub = bus.start("pub", "a", "-l")
        for i in range(3):
            pub.stdin.write(b"%d\n" % i)
            pub.stdin.flush()
            assert sub.stdout.readline() == b"%d\n" % i
        pub.stdin.close()
        assert pub.wait(timeout=TIMEOUT_S) == 0


def timeouts_have_their_exit_code():
    with own_bus() as bus:
        got = bus.run("sub", "a", "-W", "1", status=TIMED_OUT)
        assert got.stdout == b"" and got.stderr == b"subscribed\n", got
        bus.run("sub", "a", "-C", "1", "-W", "0.05", status=TIMED_OUT)
        got = bus.run("pub", "a", "b", "--wait-subs", "1", "-W", "1", status=TIMED_OUT)
        assert b"subscribers" in got.stderr
        pub = bus.start("pub", "a", "-l", "-W", "1")  # its stdin stays open
        assert b"stdin" in pub.stderr.readline()
        assert pub.wait(timeout=TIMEOUT_S) == TIMED_OUT


def a_count_that_is_reached_in_time_is_no_timeout():
    with own_bus() as bus:
        sub = bus.subscribe("a", "-C", "1", "-W", "20")
        bus.run("pub", "a", "b", "-W", "20")
        assert finish(sub)[0] == b"b\n"


def pub_waits_for_subscribers():
    with own_bus() as bus:
        pub = bus.start("pub", "a", "x", "--wait-subs", "2")
        bus.until("a", lambda info: info["publishers"])
        one = bus.subscribe("a", "-C", "1")
        assert pub.poll() is None
        two = bus.subscribe("+", "-C", "1", "--raw")
        assert finish(pub) == (b"", b"")
        assert finish(one)[0] == finish(two)[0] == b"x\n"


def pub_waits_while_a_reliable_subscriber_has_no_room():
    with own_bus() as bus:
        sub = bus.subscribe("a", "--reliable", "-C", "18")
        stop(sub)
        pub = bus.start("pub", "a", "-l", "--depth", "4", "--json")
        pub.stdin.write(numbers(18))
        pub.stdin.close()
        pub.stdin = None
        bus.until("a", lambda info: any(p["stalls"] > 0 for p in info["publishers"]))
        assert pub.poll() is None
        sub.send_signal(signal.SIGCONT)
        assert finish(sub) == (numbers(18), b"")
        report = json.loads(finish(pub)[0])
        assert report["messages"] == 18 and report["stalls"] > 0, report


def pub_gives_up_waiting_for_room_after_its_timeout():
    with own_bus() as bus:
        sub = bus.subscribe("a", "--reliable")
        stop(sub)
        lines = b"x\n" * 9
        args = ("pub", "a", "-l", "--depth", "2", "-W", "0.5", "--json")
        got = bus.run(*args, data=lines, status=TIMED_OUT)
        assert b"make room" in got.stderr, got.stderr
        assert json.loads(got.stdout)["messages"] == 2, got.stdout


def losses_are_told_when_and_where_they_happen():
    with own_bus() as bus:
        sub = bus.subscribe("a", "--json")
        stop(sub)
        bus.run("pub", "a", "-l", "--depth", "8", data=numbers(1000))
        sub.send_signal(signal.SIGCONT)
        messages = []
        while not messages or messages[-1]["seq"] != 999:
            messages.append(json.loads(sub.stdout.readline()))
        sub.send_signal(signal.SIGINT)
        _, errors = finish(sub, 130)
        lost = sum(m["lost"] for m in messages)
        assert lost > 900 and lost + len(messages) == 1000, (lost, len(messages))
        at = 0
        for m in messages:
            assert m["seq"] == at + m["lost"] and m["payload"] == str(m["seq"]), m
            at = m["seq"] + 1
        told = re.findall(rb"^shmps: a: (\d+) messages of publisher", errors, re.M)
        assert sum(int(n) for n in told) == lost, errors
        assert errors.splitlines()[-1].endswith(b"%d lost" % lost), errors


def losses_are_told_at_the_end_too():
    with own_bus() as bus:
        sub = bus.subscribe("a", "--raw", "-C", "1")
        stop(sub)
        bus.run("pub", "a", "-l", "--depth", "2", data=numbers(10))
        sub.send_signal(signal.SIGCONT)
        _, errors = finish(sub)
        assert re.search(rb"1 messages of 1 bytes received, [89] lost\n$", errors), errors


def latest_prints_the_newest_only():
    with own_bus() as bus:
        sub = bus.subscribe("a", "--latest", "-C", "1")
        stop(sub)
        pub = bus.start("pub", "a", "-l")
        pub.stdin.write(numbers(10))
        pub.stdin.flush()
        bus.until("a", lambda info: info["messages"] == 10)
        sub.send_signal(signal.SIGCONT)
        assert finish(sub) == (b"9\n", b"")


def history_comes_first_and_is_marked():
    with own_bus() as bus:
        pub = bus.start("pub", "a", "-l")
        pub.stdin.write(numbers(5))
        pub.stdin.flush()
        bus.until("a", lambda info: info["messages"] == 5)
        sub = bus.subscribe("a", "--history", "3", "--json", "-C", "4")
        pub.stdin.write(b"5\n")
        pub.stdin.close()
        messages = [json.loads(line) for line in finish(sub)[0].splitlines()]
        assert [(m["seq"], m["history"]) for m in messages] == [
            (2, True),
            (3, True),
            (4, True),
            (5, False),
        ]


def the_last_message_is_retained():
    with own_bus() as bus:
        bus.run("pub", "a", "-l", "-r", data=b"one\ntwo\n")
        bus.run("pub", "b", "gone")
        bus.run("pub", "c", "-s", "--retain", data=b"all of it")
        last = bus.run("sub", "#", "-C", "2")
        assert sorted(last.stdout.splitlines()) == [b"a two", b"c all of it"], last.stdout
        bus.run("pub", "a", "three")  # it goes on being kept
        assert bus.run("sub", "a", "-C", "1").stdout == b"three\n"
        info = json.loads(bus.run("info", "a", "--json").stdout)
        assert (info["history"], info["messages"]) == (1, 3), info
        assert b"the newest 1 " in bus.run("info", "a").stdout


def an_observer_sees_all_and_is_not_seen():
    with own_bus() as bus:
        pub = bus.start("pub", "a", "-l")
        pub.stdin.write(b"0\n")
        pub.stdin.flush()
        bus.until("a", lambda info: info["messages"] == 1)
        sub = bus.subscribe("a", "--observe", "--history", "9", "-C", "3")
        assert sub.stdout.readline() == b"0\n"
        bus.kill_daemon()
        pub.stdin.write(b"1\n2\n")
        pub.stdin.flush()
        assert sub.stdout.readline() == b"1\n"
        assert bus.objects("info", "a")[0]["subscribers"] == []
        assert finish(sub)[0] == b"2\n"


def signals_end_with_a_summary():
    with own_bus() as bus:
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            sub = bus.subscribe("a")
            bus.run("pub", "a", "xyz")
            assert sub.stdout.readline() == b"xyz\n"
            sub.send_signal(number)
            output, errors = finish(sub, status)
            assert output == b"" and b"1 messages of 3 bytes received, 0 lost" in errors, errors
        sub = bus.subscribe("a", "--reliable")
        stop(sub)
        pub = bus.start("pub", "a", "-l", "--depth", "2")
        pub.stdin.write(b"x\n" * 9)
        pub.stdin.flush()
        bus.until("a", lambda info: any(p["stalls"] > 0 for p in info["publishers"]))
        pub.send_signal(signal.SIGINT)
        assert b"2 messages of 2 bytes published" in finish(pub, 130)[1]
        pub = bus.start("pub", "b", "-l")  # nothing comes on its stdin
        bus.until("b", lambda info: info["publishers"])
        pub.send_signal(signal.SIGINT)
        assert b"0 messages of 0 bytes published" in finish(pub, 130)[1]


def a_reader_of_stdout_that_goes_is_no_error():
    with own_bus() as bus:
        sub = bus.subscribe("a")
        sub.stdout.close()
        sub.stdout = None
        assert finish(sub)[1] == b"", "it does not notice until something comes"
        sub = bus.subscribe("a")
        stop(sub)
        sub.stdout.close()
        sub.stdout = None
        bus.run("pub", "a", "-l", data=numbers(9))
        sub.send_signal(signal.SIGCONT)
        assert finish(sub)[1] == b""


def a_full_stdout_is_an_error():
    with own_bus() as bus, open("/dev/full", "wb") as full:
        sub = bus.subscribe("a", stdout=full)
        bus.run("pub", "a", "b")
        assert b"cannot write to stdout" in finish(sub, ERROR)[1]
        ls = bus.start("ls", stdout=full)
        assert b"cannot write to stdout" in finish(ls, ERROR)[1]


if __name__ == "__main__":
    run_cases(
        [
            help_comes_from_the_table_of_verbs,
            the_version_is_the_build_s,
            wrong_command_lines_are_usage_errors,
            the_instance_is_chosen_before_or_after_the_verb,
            without_daemon_and_directory_every_verb_says_so,
            a_topic_that_is_not_there,
            pub_starts_a_daemon_and_stop_ends_it_but_ls_starts_none,
            stop_ends_the_daemon_cleanly,
            lines_come_out_as_they_went_in,
            plain_output_is_fit_for_a_terminal,
            the_topic_is_printed_where_several_can_match,
            a_message_is_printed_for_each_filter_that_matches,
            json_tells_what_was_published,
            sequences_count_the_messages_of_a_publisher,
            a_topic_counts_what_went_over_it_also_of_publishers_that_have_gone,
            all_of_stdin_is_one_message_from_a_pipe_or_a_file,
            a_file_that_does_not_know_its_size,
            sub_flushes_each_message,
            timeouts_have_their_exit_code,
            a_count_that_is_reached_in_time_is_no_timeout,
            pub_waits_for_subscribers,
            pub_waits_while_a_reliable_subscriber_has_no_room,
            pub_gives_up_waiting_for_room_after_its_timeout,
            losses_are_told_when_and_where_they_happen,
            losses_are_told_at_the_end_too,
            latest_prints_the_newest_only,
            history_comes_first_and_is_marked,
            the_last_message_is_retained,
            an_observer_sees_all_and_is_not_seen,
            signals_end_with_a_summary,
            a_reader_of_stdout_that_goes_is_no_error,
            a_full_stdout_is_an_error,
        ]
    )
