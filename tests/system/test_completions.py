#!/usr/bin/env python3
"""The completions of bash, fish and zsh, really completing: verbs, options, topics of a bus."""

import os
import pty
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tap import BUILD, PUBSUBD, run_cases
from tool import SHMPS, TIMEOUT_S, own_bus

FILES = Path(__file__).resolve().parents[2] / "tools" / "completions"
TOPICS = ["q\"t\\", "users/a b", "users/registered", "x:y/z"]

# Has bash do for a line what readline does, and prints what it would offer. Breaking a line into
# words is readline's own part: here at spaces, : and =, as COMP_WORDBREAKS says.
BASH = r"""
source "$FILES/shmps.bash"; source "$FILES/pubsubd.bash"
while IFS= read -r line; do
    COMP_LINE=$line COMP_POINT=${#line} COMPREPLY=()
    eval "COMP_WORDS=($(sed -E "s/([=:'\"])/ \\\\\1 /g" <<<"$line"))"
    [[ $line != *[^\\]' ' ]] || COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    function=$(complete -p "${COMP_WORDS[0]}" | sed -E 's/.* -F ([^ ]*) .*/\1/')
    $function "${COMP_WORDS[0]}" "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
    printf '%s\n' "${COMPREPLY[@]}"
    echo "== $?"
done
"""


@contextmanager
def bus_with_topics():
    with own_bus() as bus:
        bus.env["PATH"] = f"{Path(SHMPS).parent}:{Path(PUBSUBD).parent}:{os.environ['PATH']}"
        bus.env["FILES"] = str(FILES)
        for topic in TOPICS:
            bus.subscribe(topic)
        yield bus


def check(line, offered, expected):
    assert sorted(offered) == sorted(expected), f"{line!r}: {offered}, not {expected}"


def told(bus):
    """Verbs; options of sub; options of pubsubd: as help tells."""
    verbs = re.findall(r"^  ([a-z]+) ", bus.run("help").stdout.decode(), re.M)
    sub = re.findall(r"^ .*(--[a-z-]+) ", bus.run("help", "sub").stdout.decode(), re.M)
    daemon = subprocess.run([PUBSUBD, "--help"], capture_output=True, text=True, check=True)
    listed = "".join(re.findall(r"^  +--.*\n", daemon.stdout, re.M))
    return verbs, sub, re.findall(r"--[a-z-]+", re.sub(r"   .*", "", listed))


def ask_bash(bus, lines):
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH],
        env=bus.env,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    answers = re.split(r"^== \d+\n", done.stdout, flags=re.M)[:-1]
    assert len(answers) == len(lines), done.stdout
    return [[word for word in answer.splitlines() if word] for answer in answers]


def bash_completes():
    with bus_with_topics() as bus:
        verbs, sub, daemon = told(bus)
        quoted = ["q\\\"t\\\\", "users/a\\ b", "users/registered", "x:y/z"]
        expected = {
            "shmps ": verbs,
            "shmps i": ["info"],
            "shmps help s": ["stop", "sub"],
            "shmps sub --": sub,
            "shmps --v": ["--version"],
            "shmps info ": quoted,
            "shmps info users/r": ["users/registered"],
            "shmps info users/a\\ ": ["users/a\\ b"],
            "shmps info 'users/r": ["users/registered"],
            "shmps info x:": ["y/z"],
            "shmps info x:y/z ": [],
            "shmps pub a ": [],
            "shmps sub a b ": quoted,
            "shmps sub -C ": [],
            "shmps sub --raw users/r": ["users/registered"],
            "shmps sub -C 1 users/r": ["users/registered"],
            f"shmps --instance {bus.instance} info users/r": ["users/registered"],
            f"shmps --instance={bus.instance} info users/r": ["users/registered"],
            "shmps --instance none info ": [],
            f"shmps info --instance {bus.instance[:-1]}": [bus.instance],
            f"shmps info --instance={bus.instance[:-1]}": [bus.instance],
            "shmps stop ": [],
            "shmps nothing ": [],
            "shmps top --sort m": ["memory"],
            "pubsubd --": daemon,
            "pubsubd --loop ": ["uring", "epoll"],
            "pubsubd --loop=e": ["epoll"],
            "pubsubd --instance ": [],
            f"pubsubd --socket {FILES}/pubsubd.b": [f"{FILES}/pubsubd.bash"],
        }
        for (line, words), offered in zip(expected.items(), ask_bash(bus, expected)):
            check(line, offered, words)


def bash_completes_without_a_bus():
    with own_bus(daemon=False) as bus:
        bus.env.update(PATH=f"{Path(SHMPS).parent}:{os.environ['PATH']}", FILES=str(FILES))
        check("shmps info ", ask_bash(bus, ["shmps info "])[0], [])


def fish_completes():
    if not shutil.which("fish"):
        return "there is no fish"
    with bus_with_topics() as bus:
        verbs, sub, daemon = told(bus)
        expected = {
            "shmps ": verbs,
            "shmps sub --": sub,
            "shmps info ": TOPICS,
            "shmps info users/r": ["users/registered"],
            "shmps sub a b x": ["x:y/z"],
            "shmps pub a ": [],
            "shmps top --sort=m": ["--sort=memory"],
            "shmps --instance none info ": [],
            "pubsubd --": daemon,
            "pubsubd --loop ": ["uring", "epoll"],
        }
        script = "source $FILES/shmps.fish; source $FILES/pubsubd.fish; complete -C $argv"
        with tempfile.TemporaryDirectory(prefix="shmps-test-") as home:
            for line, words in expected.items():
                done = subprocess.run(
                    ["fish", "--no-config", "-c", script, "--", line],
                    env=dict(bus.env, HOME=home),
                    capture_output=True,
                    text=True,
                    timeout=TIMEOUT_S,
                    check=True,
                )
                check(line, [o.split("\t")[0] for o in done.stdout.splitlines()], words)
    return None


ZSH = """
PS1= ; unsetopt beep; stty -echo
fpath=($FILES $fpath); autoload -U compinit; compinit -u -D
tell() { print -r -- $BUFFER >$ANSWERS; BUFFER=; }
zle -N tell; bindkey '^X^T' tell
print ready >$ANSWERS
"""


def zsh_completes():
    if not shutil.which("zsh"):
        return "there is no zsh"
    expected = {
        "shmps inf": "shmps info ",
        "shmps sub --reli": "shmps sub --reliable ",
        "shmps info users/r": "shmps info users/registered ",
        "shmps info users/a": "shmps info users/a\\ b ",
        "shmps sub a b x": "shmps sub a b x:y/z ",
        "shmps top --sort=me": "shmps top --sort=memory ",
        "shmps top --sort me": "shmps top --sort memory ",
        "shmps --instance none info users/r": "shmps --instance none info users/r",
        "pubsubd --auto": "pubsubd --autostarted ",
        "pubsubd --loop=ep": "pubsubd --loop=epoll ",
    }
    with bus_with_topics() as bus, tempfile.TemporaryDirectory(prefix="shmps-test-") as home:
        answers = f"{home}/answers"
        os.mkfifo(answers)
        Path(home, ".zshrc").write_text(ZSH, encoding="utf-8")
        bus.env.update(HOME=home, ZDOTDIR=home, ANSWERS=answers, TERM="dumb")
        child, terminal = pty.fork()
        if child == 0:
            os.execvpe("zsh", ["zsh", "-d", "-i"], bus.env)
        try:
            assert Path(answers).read_text(encoding="utf-8") == "ready\n"
            for line, completed in expected.items():
                os.write(terminal, line.encode() + b"\t\x18\x14")
                check(line, [Path(answers).read_text(encoding="utf-8").rstrip("\n")], [completed])
        finally:
            os.close(terminal)
            os.kill(child, 9)
            os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    assert Path(SHMPS).is_relative_to(BUILD)
    run_cases([bash_completes, bash_completes_without_a_bus, fish_completes, zsh_completes])
