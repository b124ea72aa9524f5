#!/usr/bin/env python3
"""What `meson install` puts where: enough to build a program against it, and nothing more. TAP.

tests/install_test.py HEADER...    with the build directory in $BUILD
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BUILD = os.environ["BUILD"]
MAP = Path(__file__).resolve().parents[1] / "libshmps" / "libshmps.map"
PROGRAM = """#include <shmps/shmps.h>
#include <stdio.h>
int main(void) {
    puts(shmps_version());
    puts(shmps_error_name(SHMPS_E_NO_SPACE));
    return 0;
}
"""


def run(*command, **environment):
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    if done.returncode:
        raise AssertionError(f"{command[0]}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def installed(root):
    """Paths below the prefix, the library's folder as LIB."""
    pc = next(root.rglob("shmps.pc"))
    lib = pc.parent.parent
    prefix = next(root.rglob("bin")).parent
    names = set()
    for path in root.rglob("*"):
        if not path.is_dir():
            below = lib if path.is_relative_to(lib) else prefix
            names.add(("LIB/" if below == lib else "") + path.relative_to(below).as_posix())
    return names, lib


def check_files(names, headers, version):
    expected = {"bin/pubsubd", "bin/shmps", "LIB/pkgconfig/shmps.pc"}
    expected.add("share/doc/shmps/pubsubd.conf.example")
    expected |= {"LIB/sysusers.d/shmps.conf", "LIB/tmpfiles.d/shmps.conf"}
    expected |= {
        f"LIB/systemd/{manager}/pubsubd.{kind}"
        for manager in ("system", "user")
        for kind in ("service", "socket")
    }
    for program in ("shmps", "pubsubd"):
        expected.add(f"share/bash-completion/completions/{program}")
        expected.add(f"share/fish/vendor_completions.d/{program}.fish")
        expected.add(f"share/zsh/site-functions/_{program}")
    if any(name.startswith("share/man/") for name in names):  # else there was no scdoc
        functions = re.findall(r"(shmps_\w+);", MAP.read_text(encoding="utf-8"))
        expected |= {f"share/man/man3/{name}.3" for name in ["shmps", *functions]}
        expected |= {"share/man/man1/shmps.1", "share/man/man8/pubsubd.8"}
        expected.add("share/man/man5/pubsubd.conf.5")
    expected |= {f"include/shmps/{Path(h).name}" for h in headers}
    expected |= {f"LIB/libshmps.so{v}" for v in ("", ".0", f".{version}")}
    if names != expected:
        raise AssertionError(f"missing {expected - names}, unexpected {names - expected}")


def check_program(root, lib, version):
    """A stranger's program: found by pkg-config, linked by soname, running."""
    sysroot = {"PKG_CONFIG_LIBDIR": str(lib / "pkgconfig"), "PKG_CONFIG_SYSROOT_DIR": str(root)}
    flags = run("pkg-config", "--cflags", "--libs", "shmps", **sysroot).split()
    source, program = root / "program.c", root / "program"
    source.write_text(PROGRAM, encoding="utf-8")
    run("cc", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(program), *flags)
    (lib / "libshmps.so").unlink()  # only the linker may need this name
    output = run(str(program), LD_LIBRARY_PATH=str(lib))
    if output != f"{version}\nSHMPS_E_NO_SPACE\n":
        raise AssertionError(f"it printed {output!r}")


def main():
    headers = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="shmps-install-") as folder:
        root = Path(folder)
        run("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", DESTDIR=folder)
        names, lib = installed(root)
        version = run("pkg-config", "--modversion", str(lib / "pkgconfig" / "shmps.pc")).strip()
        cases = {
            "these files and no others": lambda: check_files(names, headers, version),
            "a program builds against it and runs": lambda: check_program(root, lib, version),
            "the tool runs": lambda: run(
                str(next(root.rglob("bin/shmps"))), "--help", LD_LIBRARY_PATH=str(lib)
            ),
        }
        failed = 0
        print(f"1..{len(cases)}")
        for number, (name, case) in enumerate(cases.items(), 1):
            try:
                case()
                print(f"ok {number} - {name}")
            except AssertionError as why:
                failed += 1
                print(f"not ok {number} - {name}\n# " + str(why).replace("\n", "\n# "))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
