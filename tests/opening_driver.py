"""
More scenarios of test_takeover.py, of takeover_driver.py's kind: who opens, and who makes a checkpoint.

    opening_driver.py SCENARIO FOLDER          prints how many points the scenario met
"""

from __future__ import annotations

import ctypes
import itertools
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rowex
import rowex._native
from power import other_boot, recovered, without_power
from takeover_driver import KEYS, PLAIN, fresh, last_points, main, start_compact, sweep
from tools import Child, assert_same, leftovers, refusal

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_crash_arm.argtypes = [ctypes.c_uint64]
_core.rx_crash_stop.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
_core.rx_crash_arm.restype = _core.rx_crash_stop.restype = None


def renamed_at(folder: Path) -> int:
    """The first point of a compaction behind its rename."""
    at = last_points(folder, 40)
    while True:
        path = fresh(folder)
        before = path.stat().st_ino
        with rowex.open(path):
            process, stopped = start_compact(path, at)
            assert stopped
            after = path.stat().st_ino
            process.cleanup()
        if after != before:
            return at
        at += 1


def start_open(path: Path, mode: str, at: int) -> tuple[Child, bool]:
    """A process that opens it; whether it stands still at its point `at`."""

    def work(pipe: Any) -> None:
        _core.rx_crash_stop(at, 1)
        mine = rowex.open(path, mode, **(PLAIN if mode == "n" else {}))
        _core.rx_crash_arm(0)
        pipe.send(dict(mine))
        mine.close()

    process = Child(work)
    return process, process.stands_still()


def opener(folder: Path) -> int:
    """A copier died behind its rename, who opens stands still at each of its points: those on the old file go on."""
    dies_at = renamed_at(folder)

    def one(at: int) -> bool:
        path = fresh(folder)
        with rowex.open(path) as index:
            assert index[b"k001"] == KEYS[b"k001"]
            copier, _ = start_compact(path, dies_at)
            copier.kill()
            process, stopped = start_open(path, "w", at)
            assert index[b"k001"] == KEYS[b"k001"], f"the opener stands still at point {at}"
            assert_same(index, KEYS)
            if stopped:
                process.go_on()
            assert process.recv() == KEYS
            process.finish()
            process.cleanup()
            copier.cleanup()
        return stopped

    return sweep(one)


def new_one(folder: Path) -> int:
    """Mode "n" stands still at each of its points, a copier right before its rename; that one wakes first."""
    stands_at = renamed_at(folder) - 1

    def one(at: int) -> bool:
        path = fresh(folder)
        copier, copies = start_compact(path, stands_at)
        assert copies
        process, stopped = start_open(path, "n", at)
        copier.go_on()
        copier.recv()
        if stopped:
            process.go_on()
        assert process.recv() == {}, f"the one with mode n stood still at point {at}"
        process.finish()
        process.cleanup()
        copier.finish()
        copier.cleanup()
        with rowex.open(path) as again:
            assert dict(again) == {}, f"the one with mode n stood still at point {at}"
        return stopped

    return sweep(one)


def outgrown(folder: Path) -> int:
    """Who makes a checkpoint stands still while the index outgrows its capacity; then the power fails."""
    path = folder / "outgrown" / "index.rowex"
    path.parent.mkdir()
    with rowex.open(path, capacity=2 << 20) as index:
        index.put_many((b"k%05d" % i, bytes(1000)) for i in range(1200))

        def work(pipe: Any) -> None:
            with rowex.open(path) as mine:
                _core.rx_crash_stop(2000, 1)
                mine.checkpoint()
                _core.rx_crash_arm(0)

        process = Child(work)
        assert process.stands_still()
        index.put_many((b"\xff%05d" % i, bytes(1000)) for i in range(8000))
        process.go_on()
        process.finish()
        process.cleanup()
        index.flush()
        state = dict(index)
        assert recovered(without_power(path, folder / "off")) == state
    return 1


def backed_up(folder: Path) -> int:
    """Who makes a backup stands still while the file is compacted: the backup has its mode, not that of its making."""
    path = folder / "backed" / "index.rowex"
    path.parent.mkdir()
    with rowex.open(path) as index:
        index.put_many((b"k%05d" % i, bytes(1000)) for i in range(3000))
        path.chmod(0o640)
        target = folder / "backup.rowex"

        def work(pipe: Any) -> None:
            with rowex.open(path) as mine:
                _core.rx_crash_stop(2000, 1)
                mine.backup(target)
                _core.rx_crash_arm(0)

        process = Child(work)
        assert process.stands_still()
        index.compact()
        process.go_on()
        process.finish()
        process.cleanup()
        assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(path.stat().st_mode) == 0o640
    return 1


def late(index: rowex.Index) -> str | None:
    """What a checkpoint says that is not to wait long; None: it was made."""
    try:
        index.checkpoint(timeout=0.05)
    except TimeoutError as error:
        return str(error)
    return None


def closed_in_time(path: Path) -> None:
    """Who closes while the log is held up waits five seconds, once, and says so."""

    def closes(pipe: Any) -> None:
        mine = rowex.open(path, flush_interval=600)
        started = time.monotonic()
        refusal(mine.close, rowex.DurabilityError)
        pipe.send(time.monotonic() - started)

    process = Child(closes)
    assert 5 <= process.recv() < 9
    process.finish()
    process.cleanup()


def checkpoint_waits(folder: Path) -> int:
    """A writer stands still at each point of a put: a checkpoint is made, or says in time that the log is held up."""
    found = 0
    path = fresh(folder, flush_interval=600)

    def one(at: int) -> bool:
        nonlocal found

        def work(pipe: Any) -> None:
            with rowex.open(path) as mine:
                mine.put(b"before", b"1")
                _core.rx_crash_stop(at, 1)
                mine.put(b"stands", b"%d" % at)
                _core.rx_crash_arm(0)
                pipe.send("done")

        process = Child(work)
        stopped = process.stands_still()
        said = late(index)
        assert said is None or str(process.pid) in said
        if said and not found:
            closed_in_time(path)
        found += said is not None
        if stopped:
            process.go_on()
        process.recv()
        process.finish()
        process.cleanup()
        index.checkpoint(timeout=60)
        return stopped

    with rowex.open(path) as index:
        index.put(b"begun", b"1")
        sweep(one)
    return found


def recovery_outgrown(folder: Path) -> int:
    """A recovery dies while it copies what outgrew its capacity: the next one, and destroying it, leave nothing."""
    path = folder / "from" / "index.rowex"
    path.parent.mkdir()
    with rowex.open(path, capacity=1 << 20, flush_interval=600) as index:
        index.put_many((b"k%05d" % i, bytes(1000)) for i in range(200))
        index.checkpoint()
        index.put_many((b"k%05d" % i, bytes(1000)) for i in range(4000))
        index.flush()
        state = dict(index)
        found = 0
        for at in itertools.count(700, 700):
            off = without_power(path, folder / "off")
            with other_boot():
                process, _ = dies_opening(off, at)
                left = {name for name in leftovers(off) if "-recovery-copy-" in name}
                process.cleanup()
                if process.wait() == 0:
                    break
                if left and found:
                    rowex.destroy(off)
                    assert list(off.parent.iterdir()) == [], left
                elif left:
                    with rowex.open(off) as again:
                        assert dict(again) == state
                    assert leftovers(off) == set(), left
                found += bool(left)
        return found


def dies_opening(path: Path, at: int) -> tuple[Child, int]:
    """A process that dies at its point `at` while it opens it, if there are so many; how it ended."""

    def work(pipe: Any) -> None:
        _core.rx_crash_arm(at)
        rowex.open(path)
        os._exit(0)

    process = Child(work)
    return process, process.wait()


SCENARIOS: dict[str, Callable[[Path], int]] = {
    one.__name__: one for one in (opener, new_one, outgrown, checkpoint_waits, backed_up, recovery_outgrown)
}


if __name__ == "__main__":
    main(SCENARIOS, *sys.argv[1:])
