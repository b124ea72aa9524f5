#!/usr/bin/env python3
"""Fill a manual page's template, so that the page says what the programs and headers say.

    docs/man/fill.py TEMPLATE.scd SHMPS PUBSUBD EXAMPLE.conf HEADER...

A line of the template that begins with '@' is replaced:

    @verbs              each verb of shmps, as `shmps help VERB` tells
    @options            the options of pubsubd, as `pubsubd --help` tells
    @prototypes NAME... the functions' declarations
    @contracts NAME...  what the headers say above them
    @keys PART          keys, defaults and comments of a part of the example configuration
    @fields NAME        the members of a struct or an enum, and what the header says beside them

Prints scdoc(5). A name that is not there is an error: exit status 1.
"""

import re
import subprocess
import sys
from pathlib import Path

# -o, --option ARGUMENT  text
OPTION = re.compile(r"^ {2,6}((?:-\w, )?--[\w-]+(?:, --[\w-]+)*)(?: ([^\s-]\S*))?(?:\s{2,}(.*)|)$")
COMMON = ("--instance", "--help")  # of every verb; the template tells of them once


def escape(text):
    """Nothing in it means anything to scdoc, wherever it stands."""
    text = re.sub(r"([\\*_#`~<>])", r"\\\1", text)
    return re.sub(r"^([-.\[|\];])", r"\\\1", text).replace("++", "+\\+")


def sentence(text):
    """As prose: what is a phrase in a table begins large and ends with a full stop."""
    text = " ".join(text.split())
    return escape(text[:1].upper() + text[1:] + ("" if not text or text.endswith(".") else "."))


def text_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def paragraphs(lines):
    """Lines joined to paragraphs, escaped."""
    blocks = "\n".join(lines).split("\n\n")
    return "\n\n".join(escape(" ".join(block.split())) for block in blocks if block.strip())


def option_list(lines):
    """Options and their text, which may go on in deeper lines."""
    out = []
    for line in lines:
        match = OPTION.match(line)
        if match:
            names = ", ".join(f"*{escape(n)}*" for n in match[1].split(", "))
            argument = f" _{escape(match[2])}_" if match[2] else ""
            out.append([f"{names}{argument}", match[3] or ""])
        elif out and line.startswith(" " * 8):
            out[-1][1] += f" {line.strip()}"
    return "\n\n".join(f"{name}\n\t{sentence(text)}" for name, text in out) + "\n"


def split_options(text):
    """What stands before the options, the options' lines, and what stands behind them."""
    lines = text.splitlines()
    at = [i for i, line in enumerate(lines) if OPTION.match(line)]
    if not at:
        return lines, [], []
    end = at[-1] + 1
    while end < len(lines) and lines[end].startswith(" " * 8):
        end += 1
    return lines[: at[0]], lines[at[0] : end], lines[end:]


def verbs(shmps):
    out = []
    for verb in re.findall(r"^  ([a-z]+) ", text_of(shmps, "help"), re.M):
        told, options, _ = split_options(text_of(shmps, "help", verb))
        words = told[0].partition("[OPTIONS]")[2].strip()
        options = [o for o in options if not any(f"{c} " in o for c in COMMON)]
        call = f"*shmps {verb}* {'[_option_...] ' if options else ''}{escape(words)}".strip()
        summary, details = sentence(told[2]), paragraphs(told[3:])
        out.append(f"## {verb}\n\n{call}\n\n{summary}\n\n{details}\n\n{option_list(options)}")
    return "\n".join(out)


def keys(example, part):
    """Keys below the heading `# ---- PART...`: what stands above some of them is a paragraph."""
    parts = re.split(r"^# ---- ", Path(example).read_text(encoding="utf-8"), flags=re.M)
    found = [p for p in parts[1:] if p.startswith(part)]
    if len(found) != 1:
        sys.exit(f"{example}: no heading begins with {part}")
    out, above, last = [], [], None
    for line in found[0].splitlines()[1:]:
        key = re.match(r"^ *(\w+) = (\S+)(?: +# (.*))?$", line)
        comment = re.match(r"^( *)# ?(.*)$", line)
        if key:
            out += [f"{escape(' '.join(above))}\n"] if above else []
            last = [f"*{key[1]}* = _{escape(key[2])}_", key[3] or ""]
            out.append(last)
            above = []
        elif comment and len(comment[1]) > 8:
            last[1] += f" {comment[2]}"
        else:
            above = above + [comment[2]] if comment else []
    return "\n".join(o if isinstance(o, str) else f"{o[0]}\n\t{escape(o[1])}\n" for o in out)


class Headers:
    def __init__(self, paths):
        self.text = "\n".join(Path(p).read_text(encoding="utf-8") for p in paths)

    def declaration(self, name):
        """The comment above a function, and its declaration on one line."""
        found = re.search(rf"^[a-z][\w *]*?\b{name}\s*\([^;]*;", self.text, re.M)
        if not found:
            sys.exit(f"no header declares {name}")
        before = self.text[: found.start()]
        end = before.rfind("*/")
        between = before[end + 2 :]
        if re.search(r"\n\s*\n", between):
            sys.exit(f"no comment stands above {name}")
        comment = before[before.rfind("/*", 0, end) + 2 : end]
        return comment, " ".join(found[0].split())

    def prototypes(self, names):
        return "\n\n".join(bold(self.declaration(name)[1], name) for name in names)

    def contracts(self, names):
        groups = {}
        for name in names:
            groups.setdefault(self.declaration(name)[0], []).append(name)
        out = []
        for comment, group in groups.items():
            lines = [re.sub(r"^ \* ?", "", line) for line in comment.splitlines()]
            title = ", ".join(f"*{escape(name)}*()" for name in group)
            out += [title] + [f"\t{p}\n" for p in self.items(lines)]
        return "\n".join(out)

    @staticmethod
    def items(lines):
        """Paragraphs; a line `WORD   text` begins one, which deeper lines continue."""
        blocks, item = [[]], False
        for line in lines:
            begins = re.match(r"^[A-Z]\w+ {2,}", line)
            if not line.strip() or begins or (item and not line.startswith("    ")):
                blocks.append([])
            item = bool(begins) or (item and line.startswith("    "))
            blocks[-1].append(line)
        return [escape(" ".join(" ".join(b).split())) for b in blocks if "".join(b).strip()]

    def fields(self, name):
        found = re.search(rf"^(struct|enum) {name} \{{(.*?)\}};", self.text, re.M | re.S)
        if not found:
            sys.exit(f"no header defines {name}")
        out = []
        member = re.compile(r"\s*([^;,/]+?)\s*(?:[;,]|(?=\s*(?:/\*|$)))\s*(?:/\*(.*?)\*/)?", re.S)
        at = 0
        body = found[2]
        while body[at:].strip():
            match = member.match(body, at)
            at = match.end()
            declared, comment = " ".join(match[1].split()), match[2] or ""
            if re.match(r"\w+ reserved", declared):
                continue
            out += [f"*{escape(declared)}*", f"\t{escape(' '.join(comment.split()))}".rstrip(), ""]
        return f"*{found[1]} {escape(name)}*\n\n" + "\n".join(out)


def bold(declaration, name):
    before, after = declaration.split(name, 1)
    return f"{escape(before)}*{escape(name)}*{escape(after)}"


def main():
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    template, shmps, pubsubd, example = sys.argv[1:5]
    headers = Headers(sys.argv[5:])
    fillers = {
        "@verbs": lambda _: verbs(shmps),
        "@options": lambda _: option_list(split_options(text_of(pubsubd, "--help"))[1]),
        "@keys": lambda part: keys(example, " ".join(part)),
        "@prototypes": headers.prototypes,
        "@contracts": headers.contracts,
        "@fields": lambda names: headers.fields(names[0]),
    }
    for line in Path(template).read_text(encoding="utf-8").splitlines():
        words = line.split()
        if line.startswith("@"):
            if words[0] not in fillers:
                sys.exit(f"{template}: {words[0]}: one of {', '.join(fillers)} it must be")
            line = re.sub(r"\n{3,}", "\n\n", fillers[words[0]](words[1:]))
        print(line)


if __name__ == "__main__":
    main()
