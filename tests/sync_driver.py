"""
Syncs of the data file and of its folder that fail, or that nobody makes, in the test build.  The kernel tells
of a failed one once and forgets what it could not write, so the next of the same says nothing.  Failure
models: `ioerror`, `kill`.

Arguments: a folder, and what is tried, a function's name.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from tools import Child, die_with_parent, refusal
from undecided_driver import EVERY, steps

ROOM = 1 << 12
SYNCED = 6  # a record of disk.c
FAILS_ONCE = b"msync:1:%d" % errno.EIO

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_stop.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_trail.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
_core.rx_fault_arm.argtypes = [ctypes.c_char_p]
_core.rx_crash_arm.restype = _core.rx_crash_trail.restype = _core.rx_fault_arm.restype = None
_points = (ctypes.c_int32 * (2 + ROOM))()


def places(call: Callable[[], Any]) -> list[int]:
    """Where the core stores and makes calls on files, in order."""
    _core.rx_crash_trail(ctypes.addressof(_points), ROOM)
    _core.rx_crash_arm(0)
    call()
    count = ctypes.cast(_points, ctypes.POINTER(ctypes.c_uint64))[0]
    assert count <= ROOM
    return list(_points)[2 : 2 + count]


def refused(path: Path) -> None:
    """The first write of a session does not get its mark to the disk."""
    index = rowex.open(path, flush_interval=600)
    _core.rx_fault_arm(FAILS_ONCE)
    refusal(lambda: index.put(b"key", b"1"), OSError)


def mark(path: Path) -> None:
    """The mark "in use" is stored again before its sync is tried again: by the same process, and by another."""

    def dies(pipe: Any) -> None:
        refused(path)
        os.kill(os.getpid(), signal.SIGKILL)

    rowex.open(path, durability="process").close()  # no log, so no thread beside this one
    with rowex.open(path) as index:
        _core.rx_fault_arm(FAILS_ONCE)
        first = places(lambda: refusal(lambda: index.put(b"key", b"1"), OSError))
        marks, syncs, _ = first[-3:]  # and OPENING is let go
        again = places(lambda: index.put(b"key", b"1"))
        assert syncs in again
        assert (marks, syncs) in itertools.pairwise(again), "the process that failed"
    child = Child(dies)
    assert child.wait() == -signal.SIGKILL
    child.cleanup()
    opened: list[rowex.Index] = []
    again = places(lambda: opened.append(rowex.open(path, flush_interval=600)))
    assert (marks, syncs) in itertools.pairwise(again), "who opens after it"
    opened[0].close()


def doubt(path: Path) -> None:
    """What a close could not sync is made anew from checkpoint and log by the next opener, on the same boot."""
    index = rowex.open(path, flush_interval=600)
    index.put(b"before", b"1")
    index.checkpoint()
    index.put(b"durable", b"1", durable=True)
    index.put(b"written by the close", b"1")
    _core.rx_fault_arm(FAILS_ONCE)
    refusal(index.close, OSError)
    made_anew(path, {b"before", b"durable", b"written by the close"})


def rescue(path: Path) -> None:
    """The same where who opens the file after a kill meets it."""

    def dies(pipe: Any) -> None:
        index = rowex.open(path, flush_interval=600)
        index.put(b"durable", b"1", durable=True)
        index.put(b"not written", b"1")
        os.kill(os.getpid(), signal.SIGKILL)

    child = Child(dies)
    assert child.wait() == -signal.SIGKILL
    child.cleanup()
    _core.rx_fault_arm(FAILS_ONCE)
    refusal(lambda: rowex.open(path), OSError)
    made_anew(path, {b"durable", b"not written"})


def made_anew(path: Path, keys: set[bytes]) -> None:
    """The next opener does not go on with the file, but loses nothing; the one after it finds it closed."""
    before = path.stat().st_ino
    for made in (True, False):
        with rowex.open(path, flush_interval=600) as index:
            assert set(index) == keys
            index.check()
            assert (path.stat().st_ino != before) == made
        before = path.stat().st_ino


def synced(trace: Path, inode: int) -> int:
    """How often this one was, by what disk.c has recorded."""
    data, at, found = trace.read_bytes(), 0, 0
    while at < len(data):
        size, kind, which = struct.unpack_from("<IIQ", data, at)
        found += kind == SYNCED and which == inode
        at += size
    return found


def names(path: Path) -> None:
    """The folder is synced for who makes a name in it and dies at once, by who finds it there."""
    for durability, side in (("process", ""), ("batch", "-log")):
        here = path.with_name(f"{durability}.rowex")

        def dies(pipe: Any, here: Path = here, durability: str = durability) -> None:
            _core.rx_crash_stop(*EVERY)
            with rowex.open(here, durability=durability, flush_interval=600) as index:
                index.put(b"key", b"1")

        child = Child(dies)
        steps(child, Path(f"{here}{side}").exists)
        child.cleanup()
        user = Child(uses, here, path.parent.parent / f"{durability}.trace")
        user.finish()
        user.cleanup()


def uses(pipe: Any, path: Path, trace: Path) -> None:
    """A session."""
    os.environ["ROWEX_TRACE"] = str(trace)
    inode = path.parent.stat().st_ino
    with rowex.open(path, flush_interval=600) as index:
        index.put(b"other", b"1")
        before = synced(trace, inode)
        assert before, "before anything is told to be durable"
    assert synced(trace, inode) > before, "before the file is marked as clean"


def main(folder: str, what: str) -> None:
    """Run one."""
    die_with_parent(os.getppid())
    path = Path(folder) / "files" / "index.rowex"
    path.parent.mkdir()
    {"mark": mark, "doubt": doubt, "rescue": rescue, "names": names}[what](path)


if __name__ == "__main__":
    main(*sys.argv[1:])
