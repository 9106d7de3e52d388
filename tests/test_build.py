"""
How the core is compiled: as one where the tools can, and without a word where they cannot.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rowex.native import build


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No answer of before, no wish of the environment's."""
    for name in ("ROWEX_DEFINES", "ROWEX_SANITIZE", "ROWEX_FLAGS", "ROWEX_WERROR", "CC"):
        monkeypatch.delenv(name, raising=False)
    build.links_whole.cache_clear()
    yield
    build.links_whole.cache_clear()


def compiler(folder: Path, text: str) -> str:
    """A compiler that is this shell script."""
    path = folder / "a compiler"
    path.write_text(f"#!/bin/sh\n{text}\n", "ascii")
    path.chmod(0o755)
    return f"'{path}'"


@pytest.mark.parametrize("says", ["exit 1", "echo 'unknown option, ignored' >&2", "exec /nowhere/at/all"])
def test_a_compiler_that_cannot_see_all_as_one_is_not_asked_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    """It fails, or ignores the flag with a warning."""
    monkeypatch.setenv("CC", compiler(folder, says))
    assert not build.links_whole()
    assert not any(flag.startswith("-flto") for flag in build.compile_args() + build.link_args())


def test_no_compiler_at_all_is_left_to_setuptools_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question is none that a build fails for."""
    monkeypatch.setenv("CC", "/nowhere/at/all")
    assert not build.links_whole()


def test_a_compiler_that_can_is_asked_in_both_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag for the compiler alone would leave nothing to link."""
    monkeypatch.setenv("CC", compiler(folder, "exit 0"))
    assert "-flto=auto" in build.compile_args()
    assert "-flto=auto" in build.link_args()


@pytest.mark.parametrize("wish", ["ROWEX_DEFINES", "ROWEX_SANITIZE", "ROWEX_FLAGS"])
def test_variants_are_compiled_file_by_file(monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    """They are built often, and tests, debuggers, sanitizers and coverage look into them."""
    monkeypatch.setenv(wish, "address" if wish == "ROWEX_SANITIZE" else "-g")
    assert not any(flag.startswith(("-flto", "-fvisibility")) for flag in build.compile_args() + build.link_args())
