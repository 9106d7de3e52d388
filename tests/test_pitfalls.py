"""
Bugs that other systems of this kind shipped, each with a test that would have caught it.

The letters and numbers are those of the collection that the docstrings sum up: A crash
consistency, B concurrency, C keys and ranges, D growth and processes.  B and C are in
test_pitfalls_beside.py; the loss of power has tests by subject.
"""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from tools import Child, counted, eventually, leftovers, make_value, read_value

Start = Callable[..., Child]


# ---- A. crash consistency ------------------------------------------------------------


def killed_while(child: Start, path: Path, work: Callable[[Any], None], delay_s: float) -> None:
    """A process that does *work* again and again dies after a moment."""

    def loop(pipe: Any) -> None:
        mine = rowex.open(path)
        mine[b"warm"] = b""
        pipe.send("ready")
        while True:
            work(mine)

    process = child(loop)
    process.recv()
    process.pipe.poll(delay_s)
    process.kill()


def test_child_and_count_of_a_node_never_disagree_after_a_death(path: Path, child: Start, rng: random.Random) -> None:
    """A1, A2: a key found by get but missed by a range, or overwritten by the next insert, after a crash."""

    def fill_and_empty(mine: Any) -> None:
        for i in range(20):
            mine[b"node" + bytes([i])] = make_value(b"node" + bytes([i]), i)
        for i in range(20):
            mine.discard(b"node" + bytes([i]))

    with rowex.open(path) as index:
        for _ in range(30):
            killed_while(child, path, fill_and_empty, rng.random() * 0.003)
            by_get = {b"node" + bytes([i]) for i in range(20) if index.get(b"node" + bytes([i])) is not None}
            by_range = {key for key, _ in index.scan(prefix=b"node")}
            assert by_get == by_range
            for i in range(20, 24):
                index.insert(b"node" + bytes([i]), b"later")
            assert {key for key, _ in index.scan(prefix=b"node")} == by_range | {
                b"node" + bytes([i]) for i in range(20, 24)
            }
            assert len(index) == counted(index)
            index.remove_many([key for key, _ in index.scan(prefix=b"node")])


def test_death_during_creation_leaves_nothing_or_an_index(path: Path, child: Start, rng: random.Random) -> None:
    """A3: a root that is missing or half there when the creator died."""

    def create(pipe: Any) -> None:
        pipe.send("ready")
        while True:
            with rowex.open(path, "n") as mine:
                mine[b"k"] = b"1"

    for _ in range(30):
        process = child(create)
        process.recv()
        process.pipe.poll(rng.random() * 0.01)
        process.kill()
        with rowex.open(path) as index:
            assert dict(index.scan()) in ({}, {b"k": b"1"})
            index[b"l"] = b"2"
            index.check()
        assert leftovers(path) == set()
        rowex.destroy(path)


def test_garbage_of_the_dead_is_neither_lost_nor_freed_twice(path: Path, child: Start, rng: random.Random) -> None:
    """A4, A8: deletion lists and counters that a crash loses or repeats; space lost for ever."""
    keys = [b"%03d" % i for i in range(150)]

    def replace(mine: Any) -> None:
        for key in keys:
            mine[key] = make_value(key, 1, random.randrange(1200))

    with rowex.open(path) as index:
        for _ in range(15):
            killed_while(child, path, replace, rng.random() * 0.02)
            replace(index)
            index.check()
        for key, value in index.scan(prefix=b""):
            if key != b"warm":
                read_value(key, value)
        stats = index.stats()
        assert stats.used_bytes < 400_000
        assert stats.file_bytes < 12 << 20
    killed_while(child, path, replace, 0.01)
    with rowex.open(path) as index:
        stats = index.stats()
        assert stats.scans == 1
        assert stats.retired_bytes == 0
        accounted = stats.used_bytes + stats.free_bytes + stats.unused_bytes
        assert accounted <= stats.file_bytes
        index.check()


def test_lock_of_the_dead_never_makes_anyone_spin(path: Path, child: Start, rng: random.Random) -> None:
    """A7: lock bits live in the file and survive a crash; later writers spin for ever."""
    with rowex.open(path) as index:
        for _ in range(25):
            killed_while(child, path, lambda mine: mine.put(b"hot", os.urandom(600)), rng.random() * 0.002)
            started = time.monotonic()
            index[b"hot"] = b"mine"
            assert time.monotonic() - started < 1
        assert index.stats().locked_nodes == 0
    killed_while(child, path, lambda mine: mine.put(b"hot", os.urandom(600)), 0.002)
    with rowex.open(path) as index:
        assert index.stats().locked_nodes == 0
        index[b"hot"] = b"mine"


def test_break_beyond_the_file_is_refused(path: Path) -> None:
    """A9: a break advanced past the end of the file, and a reopening scan that runs past it."""
    with rowex.open(path) as index:
        index.put_many([(b"%05d" % i, bytes(500)) for i in range(2000)])
    image = bytearray(path.read_bytes())
    for wrong in (len(image) + 65_536, 1 << 47, 2**64 - 65_536, 65_537, 1):
        other = bytearray(image)
        struct.pack_into("<Q", other, 304, wrong)
        path.write_bytes(other)
        with pytest.raises((rowex.CorruptionError, rowex.FormatError)):
            rowex.open(path)


# ---- D. growth and processes ----------------------------------------------------------------


def test_file_is_never_shorter_than_what_it_says(path: Path, child: Start, rng: random.Random) -> None:
    """D1: a header that names a layout before the file has the length."""

    def grow(mine: Any) -> None:
        for i in range(100):
            mine[b"%03d" % i] = bytes(60_000)
        mine.compact()
        mine.clear()
        mine.compact()

    for _ in range(12):
        killed_while(child, path, grow, rng.random() * 0.1)
        with rowex.open(path, "r") as index:
            info = index.info()
            assert info.break_bytes <= info.file_bytes == path.stat().st_size
            index.check()
    rowex.open(path).close()
    assert leftovers(path) == set()


def test_no_write_is_lost_into_a_file_that_was_renamed_over(path: Path, child: Start) -> None:
    """D2: a writer that still has the old inode mapped commits into a file that nobody can reach."""

    def write(pipe: Any, number: int) -> None:
        with rowex.open(path) as mine:
            pipe.send("ready")
            count = 0
            while not pipe.poll(0):
                mine.insert(b"%d/%08d" % (number, count), b"")
                count += 1
            pipe.send(count)

    with rowex.open(path) as index:
        index[b"first"] = b""
        writers = [child(write, n) for n in range(3)]
        for process in writers:
            process.recv()
        for _ in range(40):
            index.compact()
        for process in writers:
            process.send("end")
        counts = [process.recv() for process in writers]
        for process in writers:
            process.finish()
        for number, count in enumerate(counts):
            expected = [b"%d/%08d" % (number, i) for i in range(count)]
            assert [key for key, _ in index.scan(prefix=b"%d/" % number)] == expected
        index.check()


def test_reader_of_the_old_file_is_safe_while_it_is_renamed_over(path: Path, child: Start) -> None:
    """D3: truncating or reusing the old file under those who have it mapped."""

    def read(pipe: Any) -> None:
        with rowex.open(path, "r") as mine:
            pipe.send("ready")
            while not pipe.poll(0):
                for key, value in mine.scan():
                    read_value(key, value)

    with rowex.open(path) as index:
        index.update([(b"%d" % i, make_value(b"%d" % i, 0, 20_000)) for i in range(100)])
        process = child(read)
        process.recv()
        for number in range(30):
            index[b"%d" % number] = make_value(b"%d" % number, number, 30_000)
            index.compact()
        process.send("end")
        process.finish()


def test_two_opens_of_one_file_in_one_process_agree(path: Path, folder: Path, opened: Any) -> None:
    """D5: two copies of the engine on one file in one process give silent wrong results."""
    rowex.open(path).close()
    os.link(path, folder / "hard.rowex")
    first, second = opened(path), opened(path)
    for i in range(300):
        (first if i % 2 else second)[b"%d" % i] = b"%d" % i
    assert len(first) == len(second) == 300
    second.close()
    first[b"more"] = b""
    third = opened(path)
    assert len(third) == 301
    first.compact()
    assert len(third) == 301
    try:
        other_name = opened(folder / "hard.rowex")
    except (rowex.RowexError, OSError):
        return
    assert other_name.get(b"nothing") is None


def test_dead_process_is_noticed_though_nobody_waits_for_it(path: Path) -> None:
    """Death is not judged by pid: a zombie looks alive to kill(2), and is dead all the same."""
    with rowex.open(path) as index:
        index[b"hot"] = b""
        pid = os.fork()
        if pid == 0:
            mine = rowex.open(path)
            while True:
                mine.put_many([(b"hot", os.urandom(700))] * 500)
        try:
            eventually(lambda: len(index[b"hot"]) == 700)
            os.kill(pid, 9)
            started = time.monotonic()
            eventually(lambda: index.put(b"hot", b"mine") > 0 and index[b"hot"] == b"mine", 1)
            assert time.monotonic() - started < 1
            os.kill(pid, 0)  # it is still there, as a zombie
        finally:
            os.waitpid(pid, 0)
        index.check()
