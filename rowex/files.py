"""
Whole indexes as files: remove, rename, copy, with their sidecars.
"""

from __future__ import annotations

import os
from typing import Any

from rowex._native import lib
from rowex.errors import raise_result
from rowex.options import as_path, core_options

__all__ = ["copy", "destroy", "rename"]

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def _name(path: Path) -> bytes:
    return os.fsencode(as_path(path))


def destroy(path: Path) -> None:
    """
    Remove an index and its sidecars.

    Args:
        path: Of the data file.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: Not a Rowex file; it is left alone.
        RowexError: Somebody has it open; it is left alone.
        PermissionError: The folder may not be written.
    """
    code = lib.rx_destroy(_name(path))
    if code < 0:
        raise_result(code)


def rename(source: Path, target: Path) -> None:
    """
    Rename an index and its sidecars.

    Args:
        source: Of the data file.
        target: Its new path, on the same filesystem.

    Raises:
        FileNotFoundError: There is no such file.
        FileExistsError: There is something at *target*.
        RowexError: Somebody has it open; nothing was changed.
        PermissionError: A folder may not be written.
    """
    code = lib.rx_rename(_name(source), _name(target))
    if code < 0:
        raise_result(code)


def copy(
    source: Path,
    target: Path,
    *,
    durability: str | None = None,
    capacity: int | None = None,
    max_size: int | None = None,
    checksum: bool | None = None,
) -> None:
    """
    Make a dense, key-ordered copy of an index, under a new UUID.

    Args:
        source: Of the data file; others may be using it.
        target: Of the copy; nothing may be there.
        durability: Of the copy; None: as the source.
        capacity: Of the copy, in bytes; None: the default for its size.
        max_size: Of the copy, in bytes; None: as the source.
        checksum: Whether values of the copy carry checksums; None: as the source.

    Raises:
        FileNotFoundError: There is no *source*.
        FileExistsError: There is something at *target*.
        CorruptionError: A key or value of the source is damaged.
        DiskFullError: No room for the copy; nothing is left of it.
        DurabilityError: A level that this version cannot give.

    Ctrl-C stops it within 100 ms; nothing is left of it then.  Cost: O(live data).
    """
    options: tuple[Any, Any] = core_options(
        as_path(target),
        "c",
        durability=durability,
        capacity=capacity,
        max_size=max_size,
        checksum=checksum,
    )
    code = lib.rx_copy_file(_name(source), options[0])
    if code < 0:
        raise_result(code)
