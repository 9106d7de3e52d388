"""
A writer whose value the log does not take before it is written out does that itself, and stands still before
each store of that in turn, in the test build; meanwhile the file is copied and renamed.  When it wakes it must put its
key into the file that is there now, with room of that file.

Argument: a folder.  Prints how many writers stopped.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from tools import Child, die_with_parent

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_stop.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_stop.restype = _core.rx_crash_arm.restype = None
NEVER = {"flush_interval": 600.0}
STORES = 8  # until it has begun to write the log
LARGE = 4 << 20


def write(pipe: Any, path: Path, at: int) -> None:
    """A small value, and a large one."""
    with rowex.open(path, **NEVER) as mine:
        mine.put(b"before", b"1")
        _core.rx_crash_stop(at, 1)
        mine.put(b"large", bytes(LARGE))
        _core.rx_crash_arm(0)
        pipe.send("done")
        pipe.recv()


def one(folder: Path, at: int) -> bool:
    """One writer stops at its store `at`; whether it did before it was done."""
    path = folder / f"{at}" / "index.rowex"
    path.parent.mkdir()
    with rowex.open(path, **NEVER) as index:
        index.put_many((b"%04d" % number, bytes(20)) for number in range(1000))
        process = Child(write, path, at)
        stops = process.stands_still()
        if stops:
            index.flush()
            index.compact()
            index.put(b"for it to write", b"1")
            process.signal(signal.SIGCONT)
        assert process.recv() == "done"
        index.check()
        assert index[b"large"] == bytes(LARGE)
        process.send("end")
        process.finish()
    shutil.rmtree(path.parent)
    return stops


def main(folder: str) -> None:
    die_with_parent(os.getppid())
    print(sum(one(Path(folder), at) for at in range(1, STORES + 1)))


if __name__ == "__main__":
    main(*sys.argv[1:])
