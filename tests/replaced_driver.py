"""
A checkpoint whose maker stands still at each of its stores in turn, in the test build, while another
index is put in the place of its own (mode "n"); then it goes on.  The new index's log and
checkpoint must be left alone.

Arguments: a folder, and which of two checkpoints it is: before the first, the old log has the very
segment that a new one would begin with.  Prints how often one stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from power import recovered, without_power
from tools import Child, die_with_parent

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_stop.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
_core.rx_crash_stop.restype = None


def make(pipe: Any, path: Path, at: int, which: str) -> None:
    """A checkpoint: the log before it goes."""
    with contextlib.suppress(rowex.RowexError), rowex.open(path, flush_interval=600) as mine:
        mine.put(b"old", bytes(300 << 10), durable=True)  # more than a segment
        if which == "second":
            mine.checkpoint()
            mine.put(b"older", bytes(300 << 10), durable=True)
        _core.rx_crash_stop(at, 1)
        try:
            mine.checkpoint()
        finally:
            _core.rx_crash_stop(0, 0)
    pipe.send("done")
    pipe.recv()


def one(folder: Path, at: int, which: str) -> bool:
    """One stop; False: it has not so many stores."""
    path = folder / f"{at}" / "index.rowex"
    path.parent.mkdir()
    process = Child(make, path, at, which)
    met = process.stands_still()
    with rowex.open(path, mode="n", flush_interval=600) as index:
        index.put(b"new", b"1", durable=True)
        index.checkpoint()
        index.put(b"newer", b"1", durable=True)
        process.signal(signal.SIGCONT)
        process.recv()
        found = recovered(without_power(path, folder / "off"))
        assert found == {b"new": b"1", b"newer": b"1"}, f"stopped at store {at}: {found}"
        index.put(b"newest", b"1", durable=True)
    process.send("end")
    process.finish()
    shutil.rmtree(path.parent)
    return met


def main(folder: str, which: str) -> None:
    die_with_parent(os.getppid())
    at = 1
    while one(Path(folder), at, which):
        at += 1
    print(at - 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
