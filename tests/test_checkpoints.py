"""
Checkpoints: what they drop of the log, and the loss of power beside them.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import rowex
from power import other_boot, recovered, segments, without_power
from rowex._native import ffi, lib
from tools import Child, eventually, make_value


def test_checkpoint_drops_the_log_before_it(path: Path, folder: Path) -> None:
    """Recovery begins there; removals after it stay removals."""
    with rowex.open(path) as index:
        index.put_many((b"%05d" % i, bytes(100)) for i in range(10_000))
        before = len(segments(path))
        index.checkpoint()
        assert len(segments(path)) < before
        index.remove_many([b"%05d" % i for i in range(0, 10_000, 2)])
        index.flush()
        off = without_power(path, folder / "off")
        assert recovered(off) == dict(index.items())


def test_checkpoint_comes_by_itself_while_writers_work(path: Path, folder: Path) -> None:
    """The log does not grow for ever, and nobody is held up for good."""
    with rowex.open(path) as index:
        for number in range(40):
            index.put_many((b"%04d" % i, make_value(b"%04d" % i, number, 400)) for i in range(1000))
        eventually(lambda: Path(f"{path}-checkpoint").exists(), 10)
        index.flush()
        eventually(lambda: not list(path.parent.glob("*-checkpoint-new-*")), 10)
        off = without_power(path, folder / "off")
        assert recovered(off) == dict(index.items())


def test_power_goes_while_checkpoints_follow_each_other(path: Path, folder: Path) -> None:
    """Whichever moment of a checkpoint a cut finds, the log goes on where the checkpoint ends."""

    def keep_checkpointing(pipe: Any) -> None:
        with rowex.open(path) as index:
            for number in itertools.count():
                index.put_many((b"other %04d" % i, b"%d" % number) for i in range(1000))
                index.put(b"mine", b"%d" % number, durable=True)
                pipe.send(number)
                index.checkpoint()

    child, number = Child(keep_checkpointing), -1
    try:
        for _ in range(30):
            number = child.recv()
            child.stop()
            while child.pipe.poll():
                number = child.recv()
            off = without_power(path, folder / "off")
            child.go_on()
            assert int(recovered(off)[b"mine"]) >= number
    finally:
        child.cleanup()


def test_log_is_measured_from_the_last_checkpoint_in_later_sessions_too(path: Path) -> None:
    """Else each session after it would begin with another."""
    with rowex.open(path, flush_interval=600) as index:
        index.put(b"k", bytes(3 << 20), durable=True)
        index.checkpoint()
    for _ in range(2):
        with rowex.open(path, flush_interval=600) as index:
            index.put(b"l", b"1", durable=True)
            told = ffi.new("struct rx_log_info *")
            assert lib.rx_log_status(index._live_handle(), told) == lib.RX_OK
            assert 0 < told.log_bytes < 1000


def test_recovery_may_take_more_room_than_max_size(path: Path, folder: Path) -> None:
    """What compact() had joined lies scattered in a replay; the disk has room for that."""
    with rowex.open(path, max_size=4 << 20, flush_interval=600) as index:
        written = [b"%05d" % i for i in range(3500)]
        index.put_many((key, bytes(1000)) for key in written)
        index.remove_many([key for key in written if int(key) % 5 < 2])
        index.compact()
        index.put(b"large", bytes(1_200_000))
        index.flush()
        state = dict(index.items())
        off = without_power(path, folder / "off")
        assert recovered(off) == state
        with other_boot(), rowex.open(off) as again:
            assert again.info().max_size_bytes == 4 << 20
            again.compact()
            again[b"more"] = b"1"
            assert off.stat().st_size <= 4 << 20
