"""
SIGKILL at random instants while others work (promise P4).  Failure model: `kill`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from ledger import Ledger, opener
from tools import TIME_SCALE, Child, assert_same, counted, eventually, leftovers, make_value, read_value, uid_count

Start = Callable[..., Child]
WITHIN_S = 1.0 * TIME_SCALE


def wait_for_steps(ledger: Ledger, writer: int, steps: int, process: Child) -> None:
    """Until the writer has done so many more."""
    goal = ledger.steps(writer) + steps
    eventually(lambda: ledger.steps(writer) >= goal or not process.alive(), 30, f"writer {writer} goes on")


def kill_again_and_again(
    path: Path,
    ledger: Ledger,
    start: Start,
    rng: random.Random,
    kills: int,
    between: Callable[[Any], None],
    **options: Any,
) -> None:
    """Kill one of the writers, look at what it left, start another in its place, and so on."""
    seed = str(rng.random())
    with rowex.open(path, **options) as index:
        writers = [start(ledger.write, opener(path), w, f"{seed} {w}") for w in range(ledger.writers)]
        for process in writers:
            process.recv()
        for number in range(1, kills + 1):
            victim = rng.randrange(ledger.writers)
            wait_for_steps(ledger, victim, rng.randrange(1, 60), writers[victim])
            writers[victim].pipe.poll(rng.random() * 0.002)
            writers[victim].kill()
            ledger.audit(index, victim)
            started = time.monotonic()
            for i in rng.sample(range(ledger.keys_each), 5):
                ledger.step(index, victim, i)
            assert time.monotonic() - started < WITHIN_S
            between(index)
            for other in range(ledger.writers):
                if other != victim:
                    wait_for_steps(ledger, other, 1, writers[other])
            writers[victim].cleanup()
            writers[victim] = start(ledger.write, opener(path), victim, f"{seed} {number}")
            writers[victim].recv()
            if number % 10 == 0 or number == kills:
                audit_all(index, ledger, writers)
        for process in writers:
            process.send("end")
            process.finish()
        assert_same(index, ledger.contents())
        assert eventually(lambda: uid_count(index) <= 2)
    assert leftovers(path) == set()
    with rowex.open(path) as index:
        assert index.stats().scans == 0, "the last to close left it clean"
        assert_same(index, ledger.contents())


def audit_all(index: Any, ledger: Ledger, writers: list[Child]) -> None:
    """With all writers standing still: len() is what a scan counts, and all is as they were told."""
    ledger.pause(True)
    for process in writers:
        assert process.recv() == "paused"
    expected = ledger.contents()
    assert len(index) == counted(index) == len(expected)
    index.check()
    assert dict(index.scan()) == expected
    ledger.pause(False)
    for process in writers:
        process.send("go on")


@pytest.mark.limit(120)
def test_killed_writers_lose_nothing_and_hold_up_nobody(
    path: Path, child: Start, rng: random.Random, long_run: bool
) -> None:
    """All that returned is there, what was in flight is whole or not, len() is exact, others go on."""
    kills = 1000 if long_run else 60
    ledger = Ledger(4, 90)
    kill_again_and_again(path, ledger, child, rng, kills, lambda index: None)


@pytest.mark.limit(120)
def test_writers_killed_before_and_during_growth_lose_nothing(
    path: Path, child: Start, rng: random.Random, long_run: bool
) -> None:
    """The same while the file is copied and renamed again and again, by them and by others."""
    kills = 300 if long_run else 30
    ledger = Ledger(3, 120, (0, 40, 700, 9000, 30_000))

    def compact(index: Any) -> None:
        index.compact()

    kill_again_and_again(path, ledger, child, rng, kills, compact, initial_size=1 << 18, capacity=1 << 20)


@pytest.mark.limit(120)
def test_killed_compacters_leave_the_old_file_or_the_new(
    path: Path, child: Start, rng: random.Random, long_run: bool
) -> None:
    """A process killed while it copies and renames holds up nobody for a second and leaves no copy."""
    ledger = Ledger(2, 300)
    seed = str(rng.random())

    def compact(pipe: Any) -> None:
        with rowex.open(path) as mine:
            pipe.send("ready")
            while True:
                mine.compact()

    with rowex.open(path) as index:
        writers = [child(ledger.write, opener(path), w, f"{seed} {w}") for w in range(2)]
        for process in writers:
            process.recv()
        for _ in range(200 if long_run else 20):
            copier = child(compact)
            copier.recv()
            copier.pipe.poll(rng.random() * 0.02)
            copier.kill()
            started = time.monotonic()
            index[b"after the death"] = b"1"
            del index[b"after the death"]
            assert time.monotonic() - started < WITHIN_S
        audit_all(index, ledger, writers)
        for process in writers:
            process.send("end")
            process.finish()
        assert index.info().generation > 1
        assert_same(index, ledger.contents())
    assert leftovers(path) == set()


def test_everybody_killed_at_once_leaves_a_file_that_opens(
    path: Path, child: Start, rng: random.Random, long_run: bool
) -> None:
    """Nobody is left to tidy up: the next opener scans, and finds all that returned."""
    ledger = Ledger(3, 100)
    for _round_number in range(100 if long_run else 12):
        writers = [child(ledger.write, opener(path), w, f"{rng.random()}") for w in range(3)]
        for process in writers:
            process.recv()
        wait_for_steps(ledger, 0, rng.randrange(1, 100), writers[0])
        for process in writers:
            process.signal(9)
        for process in writers:
            process.wait()
        with rowex.open(path) as index:
            assert index.stats().scans == 1
            index.check()
            for writer in range(3):
                ledger.audit(index, writer)
            assert_same(index, ledger.contents())
            assert index.stats().retired_bytes == 0, "what was garbage is free"
        assert leftovers(path) == set()


def test_space_of_the_dead_comes_back(path: Path, child: Start, rng: random.Random) -> None:
    """However many writers die with extents, lists and garbage of their own, the file does not grow for ever."""
    keys = [b"k%03d" % i for i in range(200)]

    def write(pipe: Any) -> None:
        with rowex.open(path) as mine:
            pipe.send("ready")
            while True:
                for key in keys:
                    mine[key] = make_value(key, 1, random.randrange(2000))

    sizes = []
    with rowex.open(path) as index:
        for _ in range(40):
            process = child(write)
            process.recv()
            process.pipe.poll(0.005 + rng.random() * 0.02)
            process.kill()
            index[b"k000"] = b""
            index.discard(b"k000")
            sizes.append(index.stats().file_bytes)
        index.check()
        for key, value in index.scan():
            read_value(key, value)
    assert sizes[-1] <= 16 << 20, sizes


def test_lock_holder_killed_with_a_living_child_is_noticed_as_dead(
    path: Path, child: Start, rng: random.Random
) -> None:
    """Descriptors live on in a forked child; the locks of its dead parent do not."""
    ledger = Ledger(1, 60)

    def write(pipe: Any) -> None:
        index = rowex.open(path)
        index[b"warm"] = b""
        heir = Child(inherit, index)
        pipe.send(heir.pid)
        ledger.write(pipe, lambda: index, 0, "w")

    def inherit(pipe: Any, index: Any) -> None:
        os.setsid()
        import ctypes

        ctypes.CDLL(None).prctl(1, 0)  # outlive the parent
        pipe.poll(60)

    with rowex.open(path) as index:
        for _ in range(12):
            process = child(write)
            heir = process.recv()
            process.recv()
            try:
                wait_for_steps(ledger, 0, rng.randrange(1, 40), process)
                process.kill()
                os.kill(heir, 0)
                ledger.audit(index, 0)
                started = time.monotonic()
                for i in range(ledger.keys_each):
                    ledger.step(index, 0, i)
                assert time.monotonic() - started < WITHIN_S
                assert len(index) == counted(index)
                index.check()
            finally:
                os.kill(heir, 9)
        assert eventually(lambda: uid_count(index) <= 2)


def test_killed_readers_leave_nothing_behind(path: Path, child: Start, rng: random.Random) -> None:
    """A reader killed inside an operation pins garbage for no longer than until it is missed."""
    with rowex.open(path) as index:
        index.put_many([(b"%d" % i, bytes(50_000)) for i in range(40)])

        def read(pipe: Any) -> None:
            with rowex.open(path, "r") as mine:
                pipe.send("ready")
                while True:
                    for _ in mine.scan():
                        pass

        for number in range(20):
            process = child(read)
            process.recv()
            process.pipe.poll(rng.random() * 0.01)
            process.kill()
            index.put_many([(b"%d" % i, bytes([number]) * 50_000) for i in range(40)])
        assert index.stats().file_bytes < 40 << 20
        index[b"end"] = b""
        assert eventually(lambda: index.put(b"end", b"") > 0 and uid_count(index) <= 2, 10)
        index.check()
