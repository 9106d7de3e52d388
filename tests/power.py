"""
A machine that was switched off: a copy of the folder, opened under another ROWEX_BOOT_ID.

The data file in it is not believed, only the log and the checkpoint are.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rowex
from tools import counted

_boots = itertools.count()


@contextmanager
def other_boot() -> Iterator[None]:
    """What is opened in it is opened by a machine that was switched off and on."""
    os.environ["ROWEX_BOOT_ID"] = f"boot {os.getpid()} {next(_boots)}"
    try:
        yield
    finally:
        del os.environ["ROWEX_BOOT_ID"]


def without_power(path: Path, folder: Path) -> Path:
    """
    The files as they are at one moment, where another boot finds them; the lock file is not on a disk.

    A copy takes its time: one during which a checkpoint took another's place, or a segment of the log was
    given up, mixes two moments, which no power cut does.  It is made again.
    """
    for tries in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        before = _moment(path)
        try:
            shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns("*-lock"))
        except shutil.Error:  # a segment that nobody needs any more went away under it
            if tries == 49:
                raise
        else:
            if _moment(path) == before:
                return folder / path.name
    raise RuntimeError(f"{path}: there was a checkpoint during each of 50 copies")


def _moment(path: Path) -> object:
    """What differs when the log does not begin where it began."""
    try:
        checkpoint = os.stat(f"{path}-checkpoint")
    except FileNotFoundError:
        checkpoint = None
    first = segments(path)[:1] if Path(f"{path}-log").is_dir() else None
    return checkpoint and (checkpoint.st_ino, checkpoint.st_mtime_ns), first


def segments(path: Path) -> list[Path]:
    """Of the log, oldest first."""
    return sorted(entry for entry in Path(f"{path}-log").iterdir() if entry.name != "spare")


def recovered(path: Path, **options: Any) -> dict[bytes, bytes]:
    """What another boot finds."""
    with other_boot(), rowex.open(path, **options) as index:
        index.check()
        assert len(index) == counted(index)
        return dict(index.items())
