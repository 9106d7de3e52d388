"""
Ctrl-C where a call has done its work already, or where there seems to be nobody to tell.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import signal
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rowex
from rowex._waits import until_done
from rowex.errors import remember_interrupt
from test_interrupt import interrupt
from tools import TIME_SCALE, Child, counted, eventually, refusal, run_python

Start = Callable[..., Child]
KEYS = 300_000
OPENING, GROWING = 1 << 40, (1 << 40) + 2  # format.h: locked by who opens or closes, by who adds zeros


@contextlib.contextmanager
def locked(path: Path | str, byte: int) -> Iterator[None]:
    """Hold a byte of NAME-lock, so that who wants it waits."""
    descriptor = os.open(f"{path}-lock", os.O_RDWR)

    def taken() -> bool:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, byte, 1, 0))
        except OSError:
            return False
        return True

    try:
        eventually(taken)
        yield
    finally:
        os.close(descriptor)


def grow_where_fallocate_is_missing(path: str) -> None:
    """Runs in the test build: the change that waits ahead of need is the one that is interrupted."""
    heard = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal heard
        heard = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, on_signal)
    with rowex.open(path, durability="process") as index:
        index[b"first"] = b""
        ctypes.CDLL(rowex._native.__file__).rx_fault_arm(b"fallocate:1+:95")  # EOPNOTSUPP
        with locked(path, GROWING):
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            for i in range(100):
                try:
                    index.compare_and_set(b"%d" % i, None, bytes(50_000))
                except KeyboardInterrupt:
                    break
                assert not heard, "the interrupted change returned"
            assert heard, "nothing had to wait"
        index[b"last"] = b"still usable"
        index.check()


def test_change_that_waits_to_grow_ahead_of_need_is_interrupted(path: Path, variant: Path) -> None:
    """It has what it needs and could return; the signal is delivered all the same."""
    call = f"import test_interrupt_late; test_interrupt_late.grow_where_fallocate_is_missing({str(path)!r})"
    done = run_python("-c", call, folder=variant, timeout_s=60)
    assert done.returncode == 0, done.stderr


def test_copy_is_interrupted_soon_also_when_it_closes_its_source(path: Path, child: Start) -> None:
    """The copy is there and whole; the signal is not forgotten for that."""
    target = path.with_name("copy.rowex")
    with rowex.open(path) as index:
        index.put_many([(b"%08d" % i, b"value of %d" % i) for i in range(KEYS)])

    def copy(pipe: Any) -> None:
        pipe.send("begin")
        refusal(lambda: rowex.copy(path, target), KeyboardInterrupt)
        pipe.send(time.monotonic())

    process = child(copy)
    process.recv()
    eventually(lambda: list(path.parent.glob("copy.rowex-copy-*")))  # the source is open
    with locked(path, OPENING):
        eventually(target.exists)
        assert not process.pipe.poll(0.3), "it waits"
        sent = time.monotonic()
        process.signal(signal.SIGINT)
        assert process.recv() - sent < 0.3 * TIME_SCALE
    process.finish()
    with rowex.open(target) as index:
        assert len(index) == KEYS
        index.check()
    rowex.destroy(target)


def test_handle_that_is_collected_hands_on_an_interruption_of_its_closing(
    path: Path, child: Start, opened: Callable[..., Any]
) -> None:
    """Nothing can be raised there, so it is raised behind it."""
    index = opened(path)

    def collect(pipe: Any) -> None:
        warnings.simplefilter("ignore", ResourceWarning)
        mine: Any = rowex.open(path)
        mine[b"k"] = b"v"
        pipe.send("begin")
        pipe.recv()
        try:
            mine = None
            for _ in range(100):
                time.sleep(0.1)  # until Ctrl-C ends it
        except KeyboardInterrupt:
            pipe.send(time.monotonic())

    process = child(collect)
    process.recv()
    with locked(path, OPENING):
        process.send("go")
        assert not process.pipe.poll(0.3), "it waits"
        sent = time.monotonic()
        process.signal(signal.SIGINT)
        assert process.recv() - sent < 0.3 * TIME_SCALE
    process.finish()
    index[b"k"] = b"w"
    index.check()


def test_call_that_succeeds_although_it_was_interrupted_tells_so_at_its_end() -> None:
    """A batch that is committed, say, and whose wrappers a stopped writer holds up."""

    def attempt(wait_ns: int) -> int:
        remember_interrupt(KeyboardInterrupt("kept"))
        return 0

    with pytest.raises(KeyboardInterrupt, match="kept"):
        until_done(attempt, None)
    assert until_done(lambda wait_ns: 0, None) == 0


@pytest.mark.parametrize("when", ["early", "late"])
def test_large_batch_is_interrupted_soon_and_all_or_nothing(
    path: Path, child: Start, opened: Callable[..., Any], rng: random.Random, when: str
) -> None:
    """While it is put together, and while it is cleared away; what is left of it is finished by who comes next."""
    index = opened(path, durability="process")
    changes: dict[bytes, bytes | None] = {b"key%07d" % i: b"value" for i in range(300_000)}
    repaired: list[int] = []

    def apply(mine: Any) -> None:
        batch = mine.batch()
        batch._changes = changes  # put together before, so that only the core is interrupted
        batch.__exit__(None, None, None)

    def begun(process: Child) -> None:
        if when == "late":
            eventually(lambda: len(index) > 0)
        else:
            process.pipe.poll(0.2 + rng.random() / 8)

    def repair() -> None:
        repaired.append(len(index))
        assert len(index) == counted(index)
        index.check()
        index.clear()

    interrupt(child, path, apply, begun, repair)
    assert set(repaired) <= {0, len(changes)}
    index.check()
