"""
What an error says: which file or folder, what is there, and what can be done about it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from rowex._native import ffi, lib
from tools import refusal


def told(call: Callable[[], Any], kind: type[BaseException]) -> tuple[str, str | None]:
    """The text of an error, and the file that it carries."""
    error = refusal(call, kind)
    return str(error), getattr(error, "filename", None)


def test_missing_folder_is_named(folder: Path) -> None:
    """Creating an index below it, looking for one there, or putting a copy there."""
    path, there = folder / "no" / "index.rowex", folder / "index.rowex"
    rowex.open(there).close()
    for call in (
        *(lambda mode=mode: rowex.open(path, mode) for mode in "crwn"),
        lambda: rowex.destroy(path),
        lambda: rowex.rename(path, there),
        lambda: rowex.rename(there, path),
        lambda: rowex.copy(path, folder / "copy"),
        lambda: rowex.copy(there, path),
        lambda: rowex.salvage(path, folder / "salvaged"),
        lambda: rowex.build(path, []),
    ):
        text, filename = told(call, FileNotFoundError)
        assert f"there is no such folder: {folder / 'no'};" in text
        assert filename in (str(path), str(there))
        assert "create" not in text


def test_missing_file_is_named_and_only_open_speaks_of_creating_it(folder: Path) -> None:
    """What removes, moves or copies an index does not want one to be made."""
    path = folder / "missing"
    for call in (
        lambda: rowex.destroy(path),
        lambda: rowex.rename(path, folder / "other"),
        lambda: rowex.salvage(path, folder / "other"),
    ):
        text, filename = told(call, FileNotFoundError)
        assert (str(path) in text, "create" in text, filename) == (True, False, str(path))
    for mode in "rw":
        text, filename = told(lambda mode=mode: rowex.open(path, mode), FileNotFoundError)
        assert (f'{path}, which mode "c" would create' in text, filename) == (True, str(path))


def test_target_that_is_there_is_named_and_left(folder: Path) -> None:
    """Its bytes stay, and the error says so."""
    source, target = folder / "index", folder / "index-copy"
    target.write_bytes(b"precious")
    with rowex.open(source) as index:
        for call in (
            lambda: rowex.copy(source, target),
            lambda: index.backup(target),
            lambda: rowex.build(target, [(b"k", b"v")]),
        ):
            text, filename = told(call, FileExistsError)
            assert f"there is something already: {target} was left as it is; choose another name" in text
            assert filename == str(target)
    for call in (lambda: rowex.rename(source, target), lambda: rowex.salvage(source, target)):
        text, filename = told(call, FileExistsError)
        assert f"{target} was left as it is" in text
        assert filename == str(target)
    assert target.read_bytes() == b"precious"


def test_no_hint_points_back_at_its_own_message() -> None:
    """There is nothing more to see."""
    codes = range(-100, 100)
    hints = {code: ffi.string(lib.rx_result_hint(code)).decode() for code in codes}
    assert [hint for hint in hints.values() if hint.startswith("see ")] == []
    assert "rowex.copy(old, new, max_size=...)" in hints[lib.RX_E_FULL]
    assert "raise max_size" not in hints[lib.RX_E_FULL]


def test_conflict_names_what_the_file_has_and_only_a_file_can_have_one(path: Path) -> None:
    """A limit that is not there is not called 0, and what no file can have disagrees with none."""
    rowex.open(path).close()
    text, _ = told(lambda: rowex.open(path, max_size=1 << 20), ValueError)
    assert "the file has no max_size, 1048576 was asked for" in text
    for call in (
        lambda: rowex.open(path, "n", capacity=1 << 61),
        lambda: rowex.open(path, "n", max_size=1),
        lambda: rowex.salvage(path, path, replace=True),
    ):
        text, _ = told(call, ValueError)
        assert "disagrees" not in text


def test_index_in_use_and_closed_is_named(path: Path) -> None:
    """Of an index that somebody has open no reader is spoken, and a closed one is known by its path."""
    with rowex.open(path) as index:
        text, _ = told(lambda: rowex.destroy(path), rowex.RowexError)
        assert text == f"it is in use: {path} is open, here or in another process"
    text, _ = told(index.stats, rowex.ClosedError)
    assert str(path) in text


@pytest.mark.parametrize("mode", ["r", "w"])
def test_error_of_the_system_carries_the_file(folder: Path, mode: str) -> None:
    """As those of open() do."""
    (folder / "folder").mkdir()
    text, filename = told(lambda: rowex.open(folder / "folder", mode), IsADirectoryError)
    assert filename == str(folder / "folder")
    assert filename in text
