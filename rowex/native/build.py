"""
Compiles the core.

Three users: setuptools, by way of setup.py (`ffibuilder` and `hot_extension`); and people and
tests that want a variant of the core, as a copy of the package in a folder of its own::

    python -m rowex.native.build --output DIR [--define NAME[=VALUE]]... [--sanitize LIST]
        [--flag FLAG]... [--werror]

The declarations that cffi sees are cut out of index.h between its two markers, and the constants
out of errors.h and format.h, so that there is no second list of either.  This file imports
nothing of the package: it runs before there is a compiled one.

Environment, for every way of building: `ROWEX_WERROR=1` (all warnings, as errors),
`ROWEX_DEFINES` (names or NAME=VALUE, separated by spaces or commas), `ROWEX_SANITIZE`
(a list for `-fsanitize=`) and `ROWEX_FLAGS` (separated by spaces; for the compiler, behind its own,
and for the linker).
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cffi import FFI

if TYPE_CHECKING:
    from setuptools import Extension

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("rowex/native", "rowex/gc")

# What the core calls back; defined in rowex/events.py and rowex/_handle.py.
CALLBACKS = """
extern "Python" int rowex_on_interrupt(void);
extern "Python" void rowex_on_event(const char *name, uint64_t a, uint64_t b);
extern "Python" void rowex_on_fault(void *ctx, uint64_t offset, const char *text);
"""

# cffi's own generated functions do not meet our warnings; the pragma stands behind our headers.
PREAMBLE = """
#include "index.h"
#include "errors.h"
#include "format.h"
#ifdef ROWEX_CRASHPOINTS
#include "crash.h"
#endif
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wsign-compare"
"""


def declarations(root: Path = ROOT) -> str:
    """
    What cffi is told: the marked part of index.h, every result and stored code, the callbacks.

    Args:
        root: Folder that holds the package folder `rowex`.

    Returns:
        C declarations without comments.

    Raises:
        ValueError: A marker is missing, or a list is empty.
    """
    native = root / "rowex" / "native"
    parts = (native / "index.h").read_text("ascii").split("/* <cffi> */")
    if len(parts) != 2 or parts[1].count("/* </cffi> */") != 1:
        raise ValueError("index.h: expected exactly one /* <cffi> */ ... /* </cffi> */")
    api = re.sub(r"/\*.*?\*/", " ", parts[1].split("/* </cffi> */")[0], flags=re.DOTALL)
    if ("ROWEX_CRASHPOINTS", None) in define_macros():
        crash = (native / "crash.h").read_text("ascii").split("/* <cffi> */")[1].split("/* </cffi> */")[0]
        api += re.sub(r"/\*.*?\*/", " ", crash, flags=re.DOTALL)
    names = re.findall(r"\bX\((RX_\w+),", (native / "errors.h").read_text("ascii"))
    format_h = (native / "format.h").read_text("ascii")
    for enum in ("rx_durability", "rx_codec"):
        body = re.search(rf"enum {enum} \{{(.*?)\}}", format_h, flags=re.DOTALL)
        found = re.findall(r"\b(RX_\w+)\s*=", body.group(1)) if body else []
        if not found:
            raise ValueError(f"format.h: no enum {enum}")
        names += found
    if "RX_OK" not in names:
        raise ValueError("errors.h: no list of results")
    constants = "".join(f"static const int {name};\n" for name in names)
    return api + constants + CALLBACKS


def split_list(text: str) -> list[str]:
    """The items of *text*, separated by spaces or commas."""
    return [item for item in re.split(r"[\s,]+", text) if item]


def define_macros() -> list[tuple[str, str | None]]:
    """The macros that `ROWEX_DEFINES` asks for."""
    macros: list[tuple[str, str | None]] = []
    for item in split_list(os.environ.get("ROWEX_DEFINES", "")):
        name, equals, value = item.partition("=")
        macros.append((name, value if equals else None))
    return macros


@functools.cache
def links_whole() -> bool:
    """Whether what compiles and links for setuptools can see all sources of a module as one."""
    import setuptools  # noqa: F401  (first: it brings distutils, where Python has none)

    # isort: split
    from distutils import ccompiler, errors, sysconfig

    compiler = ccompiler.new_compiler()
    sysconfig.customize_compiler(compiler)
    with tempfile.TemporaryDirectory(prefix="rowex-build-") as folder:
        source, module = Path(folder, "probe.c"), Path(folder, "probe.so")
        source.write_text("int rowex_probe(void) { return 0; }\n", "ascii")
        try:
            objects = compiler.compile([str(source)], output_dir="/", extra_postargs=["-flto=auto"])
            compiler.link_shared_object(objects, str(module), extra_postargs=["-flto=auto"])
            # A linker that does not know the form of such objects may leave them out without a word.
            return hasattr(ctypes.CDLL(str(module)), "rowex_probe")
        except (errors.CCompilerError, errors.DistutilsError, OSError):
            return False


def optimisation() -> list[str]:
    """
    Flags for compiler and linker.

    Sources seen as one, with nothing to be called from outside but the module's beginning, save an eighth
    of the instructions of a lookup and a twentieth of the other frequent calls'; -O3 saves more and is
    slower.  Variants do without: they are built often, and looked into.
    """
    if any(os.environ.get(name) for name in ("ROWEX_DEFINES", "ROWEX_SANITIZE", "ROWEX_FLAGS")):
        return ["-O2"]
    return ["-O2", "-fvisibility=hidden", *(["-flto=auto"] if links_whole() else [])]


def compile_args() -> list[str]:
    """Flags for the compiler; never a flag for the building machine's own processor."""
    args = ["-std=gnu11", *optimisation(), "-pthread", "-fno-semantic-interposition"]
    if os.environ.get("ROWEX_WERROR", "0") not in ("", "0"):
        args += ["-Wall", "-Wextra", "-Werror"]
    sanitize = os.environ.get("ROWEX_SANITIZE", "")
    if sanitize:
        args += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g", "-UNDEBUG"]
    return args + os.environ.get("ROWEX_FLAGS", "").split()


def link_args() -> list[str]:
    """Flags for the linker."""
    sanitize = os.environ.get("ROWEX_SANITIZE", "")
    flags = os.environ.get("ROWEX_FLAGS", "").split()
    return ["-pthread", *optimisation(), *([f"-fsanitize={sanitize}"] if sanitize else []), *flags]


def list_files(patterns: Sequence[str], root: Path = ROOT) -> list[str]:
    """Paths relative to *root* (setuptools wants them so), in a stable order."""
    found = (path for folder in FOLDERS for pattern in patterns for path in (root / folder).glob(pattern))
    return sorted(path.relative_to(root).as_posix() for path in found)


def make_ffibuilder(root: Path = ROOT) -> FFI:
    """
    The module rowex._native: the core and its complete binding.

    Args:
        root: Folder that holds the package folder `rowex`, the working directory of the build.

    Returns:
        A builder to hand to setuptools or to compile.
    """
    builder = FFI()
    builder.cdef(declarations(root))
    sources = [path for path in list_files(["*.c"], root) if not Path(path).name.startswith("hot")]
    builder.set_source(
        "rowex._native",
        PREAMBLE,
        sources=sources,
        depends=list_files(["*.h"], root),
        include_dirs=list(FOLDERS),
        define_macros=define_macros(),
        extra_compile_args=compile_args(),
        extra_link_args=link_args(),
    )
    return builder


def hot_extension(root: Path = ROOT) -> Extension:
    """
    The module rowex._hot: the frequent calls, written by hand.

    It may fail to build (another interpreter's headers): then cffi serves those calls too.

    Args:
        root: Folder that holds the package folder `rowex`, the working directory of the build.

    Returns:
        An extension to hand to setuptools.
    """
    from setuptools import Extension

    return Extension(
        "rowex._hot",
        sources=list_files(["hot*.c"], root),
        depends=list_files(["*.h"], root),
        include_dirs=list(FOLDERS),
        define_macros=define_macros(),
        extra_compile_args=compile_args(),
        extra_link_args=link_args(),
        optional=os.environ.get("ROWEX_WERROR", "0") in ("", "0"),
    )


def build_variant(output: Path) -> None:
    """
    Copy the package to *output*/rowex and compile it there, as the environment says.

    Args:
        output: Folder to make or to write into; `PYTHONPATH` then names it.

    Raises:
        OSError: A file could not be copied or written.
        Exception: The compiler's complaint, by way of setuptools.
    """
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    output = output.resolve()
    package = output / "rowex"
    if package != ROOT / "rowex":
        ignore = shutil.ignore_patterns("*.so", "*.o", "__pycache__")
        shutil.copytree(ROOT / "rowex", package, ignore=ignore, dirs_exist_ok=True)
    before = Path.cwd()
    os.chdir(output)  # the sources are named relative to it
    try:
        native = make_ffibuilder(output).distutils_extension(str(output / "build"))
        distribution = Distribution({"name": "rowex", "ext_modules": [native, hot_extension(output)]})
        command = build_ext(distribution)
        command.build_lib = str(output)
        command.build_temp = str(output / "build")
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    The command line: build a variant of the package in a folder of its own.

    Args:
        arguments: Without the program's name; None: those of the process.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m rowex.native.build", description=main.__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder that gets the package")
    parser.add_argument("--define", action="append", default=[], metavar="NAME[=VALUE]")
    parser.add_argument("--sanitize", metavar="LIST", help="for -fsanitize=")
    parser.add_argument("--flag", action="append", default=[], help="for compiler and linker; as --flag=-g")
    parser.add_argument("--werror", action="store_true", help="all warnings, as errors")
    options = parser.parse_args(arguments)
    if options.define:
        os.environ["ROWEX_DEFINES"] = " ".join(options.define)
    if options.sanitize:
        os.environ["ROWEX_SANITIZE"] = options.sanitize
    if options.flag:
        os.environ["ROWEX_FLAGS"] = " ".join(options.flag)
    if options.werror:
        os.environ["ROWEX_WERROR"] = "1"
    build_variant(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
elif __name__ != "rowex.native.build":  # setuptools, which looks for the name
    ffibuilder = make_ffibuilder()
