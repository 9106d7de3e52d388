"""
The first change of a session whose log is gone, in the test build: it dies at each of its stores in
turn, while a checkpoint is made and a log begun.  Then the index must open, on this boot and on
another, with all that it held.

Arguments: a folder, and the case: "killed", the session before was killed and NAME-lock is lost;
"copied", the file was closed cleanly and stands alone; "beside", the same, and another process,
which has it open, makes the next change; the first store and the step to the next.
Prints how often one died.
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
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_arm.restype = None
STATE = {b"old %d" % i: b"1" for i in range(10)}


def fill(pipe: Any, path: Path) -> None:
    """A session of some changes, that nobody closes."""
    mine = rowex.open(path)
    for key, value in STATE.items():
        mine.put(key, value, durable=True)
    pipe.send("written")
    signal.pause()


def change(pipe: Any, path: Path, at: int) -> None:
    """The first change; dies at its store `at`."""
    with rowex.open(path, flush_interval=600) as mine:
        _core.rx_crash_arm(at)
        mine.put(b"new", b"1", durable=True)
        _core.rx_crash_arm(0)
    pipe.send("done")


def prepare(path: Path, case: str) -> None:
    """An index whose log is gone."""
    path.parent.mkdir()
    if case == "killed":
        process = Child(fill, path)
        process.recv()
        process.kill()
        Path(f"{path}-lock").unlink()
    else:
        source = path.parent / "source"
        with rowex.open(source) as index:
            index.update(STATE)
        shutil.copyfile(source, path)
        rowex.destroy(source)


def one(folder: Path, case: str, at: int) -> bool:
    """One death; False: it has not so many stores."""
    path = folder / f"{at}" / "index.rowex"
    prepare(path, case)
    with contextlib.ExitStack() as open_beside:
        beside = open_beside.enter_context(rowex.open(path, flush_interval=600)) if case == "beside" else None
        process = Child(change, path, at)
        died = process.wait() != 0
        expected = dict(STATE)
        if beside is not None:
            expected[b"beside"] = bytes(300 << 10)  # more than a segment
            beside.put(b"beside", expected[b"beside"], durable=True)
        without_power(path, folder / "off")
    for found in (recovered(folder / "off" / path.name), dict_of(path), dict_of(path)):
        assert found in (expected, {**expected, b"new": b"1"}), f"{case}, died at store {at}: {sorted(found)}"
    shutil.rmtree(path.parent)
    return died


def dict_of(path: Path) -> dict[bytes, bytes]:
    """What this boot finds, and that it can be changed."""
    with rowex.open(path) as index:
        found = dict(index.items())
        index.put(b"x", b"", durable=True)
        index.remove(b"x")
    return found


def main(folder: str, case: str, first: str, step: str) -> None:
    die_with_parent(os.getppid())
    at = int(first)
    while one(Path(folder), case, at):
        at += int(step)
    print((at - int(first)) // int(step))


if __name__ == "__main__":
    main(*sys.argv[1:])
