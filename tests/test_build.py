"""
How the core is compiled: as one where the tools can, and without a word where they cannot.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowex.native import build


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No answer of before, no wish of the environment's."""
    for name in (
        "ROWEX_DEFINES",
        "ROWEX_SANITIZE",
        "ROWEX_FLAGS",
        "ROWEX_WERROR",
        "CC",
        "CFLAGS",
        "LDSHARED",
        "LDFLAGS",
    ):
        monkeypatch.delenv(name, raising=False)
    build.links_whole.cache_clear()
    yield
    build.links_whole.cache_clear()


def program(path: Path, text: str) -> Path:
    """A program that is this shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n", "ascii")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "exit 1",
        "exit 0",
        "exec /nowhere/at/all",
        'case "$*" in *-flto*) echo unknown option >&2; exit 1 ;; esac; exec gcc "$@"',
    ],
)
def test_a_compiler_that_cannot_see_all_as_one_is_not_asked_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """It fails, makes nothing, is not there, or does not know the flag."""
    monkeypatch.setenv("CC", str(program(folder / "compiler", text)))
    assert not build.links_whole()
    assert not any(flag.startswith("-flto") for flag in build.compile_args() + build.link_args())


def test_a_linker_that_leaves_such_objects_out_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiler's plugin it makes an empty module, and says that all went well."""
    drop = """skip=
    for each; do
        shift
        case "$skip$each" in
        -plugin) skip=1 ;;
        1* | -plugin-opt*) skip= ;;
        *) set -- "$@" "$each" ;;
        esac
    done"""
    program(folder / "ld", f'{drop}\nexec {shutil.which("ld")} "$@"')
    monkeypatch.setenv("LDFLAGS", f"-B{folder}")
    source, module = folder / "whole.c", folder / "whole.so"
    source.write_text("int whole(void) { return 0; }\n", "ascii")
    for flag, found in (("-fno-lto", True), ("-flto=auto", False)):
        subprocess.run(["gcc", "-shared", "-fPIC", flag, f"-B{folder}", source, "-o", module], check=True)
        assert (b"whole" in module.read_bytes().replace(b"whole.c", b"")) == found, flag
    assert not build.links_whole()


def test_a_compiler_that_can_is_asked_in_both_steps() -> None:
    """A flag for the compiler alone would leave nothing to link."""
    assert shutil.which("gcc"), "the tests compile the core with it"
    assert "-flto=auto" in build.compile_args()
    assert "-flto=auto" in build.link_args()


@pytest.mark.parametrize("wish", ["ROWEX_DEFINES", "ROWEX_SANITIZE", "ROWEX_FLAGS"])
def test_variants_are_compiled_file_by_file(monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    """They are built often, and tests, debuggers, sanitizers and coverage look into them."""
    monkeypatch.setenv(wish, "address" if wish == "ROWEX_SANITIZE" else "-g")
    assert not any(flag.startswith(("-flto", "-fvisibility")) for flag in build.compile_args() + build.link_args())
