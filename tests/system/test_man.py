#!/usr/bin/env python3
"""The manual pages as man(1) shows them: nothing to warn of, and all that the programs know."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tap import BUILD, PUBSUBD, run_cases
from tool import SHMPS

ROOT = Path(__file__).resolve().parents[2]
PAGES = BUILD / "docs" / "man"
FILL = ROOT / "docs" / "man" / "fill.py"
CONF = ROOT / "docs" / "pubsubd.conf.example"
HEADERS = [str(h) for h in sorted((ROOT / "include" / "shmps").glob("*.h"))]


def run(*command, **kwargs):
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)


def pages():
    return sorted(p for p in PAGES.glob("*.[1-8]") if p.is_file())


def shown(name):
    """A page as man shows it, a section or subsection a key."""
    env = dict(os.environ, MANWIDTH="1000", MAN_KEEP_FORMATTING="", LC_ALL="C.UTF-8")
    done = run("man", "-P", "cat", "--no-hyphenation", "-l", str(PAGES / name), env=env)
    sections, title = {}, ""
    for line in done.stdout.splitlines():
        heading = re.match(r"^(?:   )?(\S.*)$", line)
        title = heading[1] if heading else title
        sections[title] = sections.get(title, "") + line + "\n"
    return sections


def options_of(text):
    """Each line of help that tells of options: their names."""
    lines = re.findall(r"^  +((?:-\w, )?--[a-z-]+.*)$", text, re.M)
    return [re.findall(r"(?<!\S)--?[a-z-]+", re.sub(r" {3,}.*", "", line)) for line in lines]


def nothing_to_warn_of():
    assert len(pages()) > 5, f"{PAGES}: {pages()}"
    for page in pages():
        done = run("man", "--warnings", "-E", "UTF-8", "-l", "-Z", str(page))
        assert done.returncode == 0 and not done.stderr, f"{page.name}: {done.stderr}"
        assert "\n.SH NAME\n" in page.read_text(encoding="utf-8"), page.name


def every_verb_and_option_of_shmps():
    page = shown("shmps.1")
    common = page["OPTIONS"]
    verbs = re.findall(r"^  ([a-z]+) .*?(\S.*)$", run(SHMPS, "help").stdout, re.M)
    assert len(verbs) > 5
    for verb, _ in verbs:
        told = run(SHMPS, "help", verb).stdout
        section = " ".join(page[verb].split())
        summary = told.splitlines()[2]
        assert summary[1:] in section, f"{verb}: {summary} is not in {section}"
        for names in options_of(told):
            for name in names:
                assert re.search(rf"(?<!\S){name}\b", section + common), f"{verb} {name}"
    for names in options_of(run(SHMPS, "help").stdout):
        assert all(name in common for name in names), names


def every_exit_status_of_shmps():
    told = re.search(r"Exit codes: (.*)\.", run(SHMPS, "help").stdout, re.S)[1]
    page = shown("shmps.1")["EXIT STATUS"]
    for number in re.findall(r"\b\d+\b", told):
        title = re.search(rf"^ +(\d+, )*{number}(, \d+)*$", page, re.M)
        assert title, f"{number} is not in {page}"


def every_option_of_pubsubd():
    page = shown("pubsubd.8")["OPTIONS"]
    options = options_of(run(PUBSUBD, "--help").stdout)
    assert len(options) > 5
    for names in options:
        assert all(re.search(rf"^ .*{n}\b", page, re.M) for n in names), f"{names}: {page}"


def every_key_of_the_configuration():
    page = "".join(shown("pubsubd.conf.5").values())
    example = CONF.read_text(encoding="utf-8")
    keys = re.findall(r"^ *(\w+) = (\S+)", example, re.M)
    assert len(keys) > 10
    for key, value in keys:
        assert re.search(rf"^ +{key} = {re.escape(value)}$", page, re.M), f"{key}: {page}"


def the_configuration_shown_is_well_formed():
    page = (ROOT / "docs" / "man" / "pubsubd.conf.5.scd").read_text(encoding="utf-8")
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
        conf.write(page.split("```")[1])
        conf.flush()
        done = run(PUBSUBD, "--check-config", "--config", conf.name)
        assert done.returncode == 0, done.stderr


def every_function_is_told_of_once():
    functions = re.findall(r"(shmps_\w+);", (ROOT / "libshmps/libshmps.map").read_text())
    told = {}
    for page in pages():
        if page.name.endswith(".3"):
            sections = shown(page.name)
            for name in re.findall(r"\b(shmps_\w+)\b", sections["NAME"].partition(" - ")[0]):
                assert name not in told, f"{name} is in {told[name]} and in {page.name}"
                told[name] = page.name
                assert f"{name}(" in sections["SYNOPSIS"], f"{page.name}: {name} has no prototype"
                body = "".join(text for title, text in sections.items() if title != "SYNOPSIS")
                assert f"{name}()" in body, f"{page.name} does not say what {name} does"
    missing = set(functions) - set(told)
    assert not missing, f"no page in docs/man tells of {missing}"


def a_template_that_names_nothing_is_an_error():
    with tempfile.TemporaryDirectory(prefix="shmps-test-") as folder:
        template = Path(folder, "x.scd")
        for line in ("@contracts nothing", "@fields nothing", "@keys nothing", "@nothing"):
            template.write_text(line, encoding="utf-8")
            command = [sys.executable, FILL, template, SHMPS, PUBSUBD, CONF, *HEADERS]
            done = run(*map(str, command))
            assert done.returncode != 0 and "nothing" in done.stderr, done


if __name__ == "__main__":
    if not shutil.which("man") or not pages():
        print("1..1\nok 1 - pages # SKIP there is no man, or no scdoc to make its pages")
        sys.exit(0)
    run_cases(
        [
            nothing_to_warn_of,
            every_verb_and_option_of_shmps,
            every_exit_status_of_shmps,
            every_option_of_pubsubd,
            every_key_of_the_configuration,
            the_configuration_shown_is_well_formed,
            every_function_is_told_of_once,
            a_template_that_names_nothing_is_an_error,
        ]
    )
