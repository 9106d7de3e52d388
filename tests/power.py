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
    """The files as they are, where another boot finds them; the lock file is not on a disk."""
    for tries in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns("*-lock"))
            break
        except shutil.Error:  # a segment that nobody needs any more went away under it
            if tries == 19:
                raise
    return folder / path.name


def segments(path: Path) -> list[Path]:
    """Of the log, oldest first."""
    return sorted(entry for entry in Path(f"{path}-log").iterdir() if entry.name != "spare")


def recovered(path: Path, **options: Any) -> dict[bytes, bytes]:
    """What another boot finds."""
    with other_boot(), rowex.open(path, **options) as index:
        index.check()
        assert len(index) == counted(index)
        return dict(index.items())
