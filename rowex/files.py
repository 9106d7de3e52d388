"""
Whole indexes as files: remove, rename, copy, salvage, with their sidecars.
"""

from __future__ import annotations

import os
from typing import Any

from rowex._native import ffi, lib
from rowex.errors import pending_interrupt, raise_result, remember_interrupt
from rowex.options import Path, as_path, core_options
from rowex.results import Salvaged

__all__ = ["copy", "destroy", "rename", "salvage"]


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
    full_path = as_path(path)
    code = lib.rx_destroy(os.fsencode(full_path))
    if code < 0:
        raise_result(code, paths=(full_path,))


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
    paths = as_path(source), as_path(target)
    code = lib.rx_rename(*map(os.fsencode, paths))
    if code < 0:
        raise_result(code, paths=paths)


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

    Ctrl-C stops it within 100 ms; nothing is left of it then, or it is whole.  Cost: O(live data).
    """
    paths = as_path(source), as_path(target)
    options: tuple[Any, Any] = core_options(
        paths[1],
        "c",
        durability=durability,
        capacity=capacity,
        max_size=max_size,
        checksum=checksum,
    )
    code = lib.rx_copy_file(os.fsencode(paths[0]), options[0])
    if code < 0:
        raise_result(code, paths=paths)


_STATES = {
    int(lib.RX_SALVAGED_UNNEEDED): "not needed",
    int(lib.RX_SALVAGED_MISSING): "missing",
    int(lib.RX_SALVAGED_WHOLE): "whole",
    int(lib.RX_SALVAGED_DOUBTFUL): "doubtful",
    int(lib.RX_SALVAGED_DAMAGED): "damaged",
}


def salvage(
    path: Path,
    target: Path,
    *,
    orphans: bool = False,
    replace: bool = False,
    durability: str | None = None,
    capacity: int | None = None,
    max_size: int | None = None,
    checksum: bool | None = None,
) -> Salvaged:
    """
    Get out what can be had of an index that is refused, into a fresh one.

    Args:
        path: Of its data file, which may be damaged or missing; it and its sidecars are only read.
        target: Of the new index; nothing may be there.
        orphans: Whether to take, for keys that are found nowhere else, also items to which nothing
            in the data file leads.  They may be old values, or removed.
        replace: Whether an index at *target* may be replaced.
        durability: Of the new index; None: as the source.
        capacity: Likewise, in bytes; None: the default for its size.
        max_size: Likewise, in bytes; None: as the source.
        checksum: Whether its values carry checksums; None: as the source.

    Returns:
        What was kept, and what was lost and where.

    Raises:
        FileNotFoundError: Neither *path* nor a checkpoint or log of it is there.
        FileExistsError: There is something at *target*.
        FormatError: Not a Rowex file, or one of another version.
        RowexError: Somebody has it open.
        DiskFullError: No room for the new index; nothing is left of it.
        ValueError: *target* is the source.

    Of a file without a log, what its tree leads to is taken, at whatever moment it was written.
    Else the checkpoint and all of the log that can be read, and the data file where something of them
    is lost.  It needs room for two copies.  Ctrl-C stops it within 100 ms; nothing is left then.
    """
    told = ffi.new("struct rx_salvaged *")
    options: tuple[Any, Any] = core_options(
        as_path(target),
        "n" if replace else "c",
        durability=durability,
        capacity=capacity,
        max_size=max_size,
        checksum=checksum,
    )
    return salvage_told(path, options[0], orphans, told)


def salvage_told(path: Path, options: Any, orphans: bool, told: Any) -> Salvaged:
    """
    As `salvage`, for who wants to see how far it is.

    Args:
        path: As there.
        options: A `struct rx_options` of the new index.
        orphans: As there.
        told: A `struct rx_salvaged`, which is written meanwhile.

    Returns:
        As `salvage`; raises as it.
    """
    faults: list[tuple[int, str]] = []
    context = ffi.new_handle(faults)
    paths = as_path(path), os.fsdecode(ffi.string(options.path))
    code = lib.rx_salvage(os.fsencode(paths[0]), options, orphans, lib.rowex_on_fault, context, told)
    interrupted = pending_interrupt()
    if interrupted is not None:
        remember_interrupt(None)
        raise interrupted
    if code < 0:
        raise_result(code, paths=paths)
    return Salvaged(
        target=paths[1],
        keys=told.keys,
        data_file=_STATES[told.name.state],
        data_file_items=told.name.leaves,
        data_file_lost=told.name.lost,
        checkpoint=_STATES[told.checkpoint.state],
        checkpoint_items=told.checkpoint.leaves,
        checkpoint_lost=told.checkpoint.lost,
        log=_STATES[told.log],
        log_entries=told.entries,
        log_gaps=told.gaps,
        log_lost_bytes=told.gap_bytes,
        orphans=told.orphans,
        orphans_taken=orphans,
        options_known=bool(told.options_known),
        losses=tuple(text for _, text in faults),
    )
