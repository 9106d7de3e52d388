"""
Growth within the capacity, copy and rename beyond it, compact(): nobody stops, nothing is lost.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from churn import Churn, in_threads
from ledger import Ledger, opener
from tools import Child, assert_same, eventually, leftovers, make_value, read_value, refusal

Start = Callable[..., Child]
SMALL = {"initial_size": 1 << 18, "capacity": 1 << 19}


def test_file_grows_in_place_as_needed(path: Path) -> None:
    """Nobody guesses a size: a file of 1 MiB grows to what is put, and all handles see it."""
    with rowex.open(path) as index, rowex.open(path, "r") as reader:
        first = index.info()
        assert first.file_bytes <= 4 << 20
        for i in range(300):
            index[b"%d" % i] = make_value(b"%d" % i, i, 100_000)
            assert read_value(b"%d" % i, reader[b"%d" % i]) == i
        assert index.stats().growths > 0
        last = index.info()
        assert last.generation == first.generation == 1
        assert last.file_bytes == path.stat().st_size >= 30_000_000
        assert last.file_bytes <= 120_000_000
        index.check()


def test_growth_beyond_the_capacity_copies_and_renames(path: Path) -> None:
    """Beyond the capacity a larger generation takes the file's place, and the handle goes on."""
    with rowex.open(path, **SMALL) as index, rowex.open(path, "r") as reader:
        model = {}
        for i in range(2000):
            model[b"%d" % i] = index[b"%d" % i] = make_value(b"%d" % i, i, 1000)
            assert reader[b"%d" % i] == model[b"%d" % i]
        info = index.info()
        assert info.generation > 1
        assert index.stats().copies == info.generation - 1
        assert info.capacity_bytes > SMALL["capacity"]
        assert_same(index, model)
        assert_same(reader, model)
    assert leftovers(path) == set()
    with rowex.open(path) as index:
        assert_same(index, model)
        assert index.info().generation == info.generation


def test_readers_and_writers_of_other_processes_follow_a_rename(path: Path, child: Start, rng: random.Random) -> None:
    """Processes that have the old generation mapped go on in the new one, without a wrong answer."""
    ledger = Ledger(2, 200, (0, 40, 700, 2000))
    stable = [b"stable%03d" % i for i in range(100)]

    def read(pipe: Any) -> None:
        with rowex.open(path, "r") as mine:
            pipe.send("ready")
            while not pipe.poll(0):
                assert [read_value(k, v) for k, v in mine.scan(prefix=b"stable")] == [0] * 100
                for key in stable:
                    assert read_value(key, mine[key]) == 0

    with rowex.open(path, **SMALL) as index:
        index.put_many([(key, make_value(key, 0, 300)) for key in stable])
        readers = [child(read), child(read)]
        writers = [child(ledger.write, opener(path), w, f"{rng.random()}") for w in range(2)]
        for process in (*readers, *writers):
            process.recv()
        for _ in range(25):
            index.compact()
            steps = ledger.steps(0)
            eventually(lambda before=steps: ledger.steps(0) > before)
        for process in (*writers, *readers):
            process.send("end")
            process.finish()
        expected = ledger.contents()
        expected.update({key: make_value(key, 0, 300) for key in stable})
        assert_same(index, expected)
        assert index.info().generation > 25


def test_threads_under_compact_miss_nothing(path: Path, rng: random.Random) -> None:
    """Readers, scanners and writers in threads while the file is replaced under them."""
    churn = Churn(path)
    churn.prepare()
    import threading

    stop = threading.Event()
    with churn.open() as index:

        def compact() -> None:
            while not stop.is_set():
                index.compact()
                stop.wait(0.01)

        thread = threading.Thread(target=compact)
        thread.start()
        try:
            in_threads(churn, index, 3, str(rng.random()))
        finally:
            stop.set()
            thread.join()
        assert index.info().generation > 3


def test_opening_while_another_process_grows_it_finds_all(path: Path, child: Start, long_run: bool) -> None:
    """Joining is possible at any moment of growth and of copy and rename."""

    def grow(pipe: Any) -> None:
        with rowex.open(path, **SMALL) as mine:
            pipe.send("ready")
            number = 0
            while not pipe.poll(0):
                number += 1
                mine[b"%06d" % number] = make_value(b"%06d" % number, number, 400)
                if number % 500 == 0:
                    mine.compact()

    process = child(grow)
    process.recv()
    present = 0  # all up to it were there before the scan began; of those born meanwhile any may be met (P2)
    for _ in range(60 if long_run else 25):  # each reads all that there is by then
        with rowex.open(path, "r") as index:
            numbers = [read_value(key, value) for key, value in index.scan()]
            assert numbers == sorted(set(numbers))
            assert numbers[:present] == list(range(1, present + 1))
            present = next((at for at, number in enumerate(numbers) if number != at + 1), len(numbers))
    process.send("end")
    process.finish()
    with rowex.open(path) as index:
        index.check()


def test_compact_gives_space_back_and_keeps_the_rest(path: Path) -> None:
    """After removals the file shrinks to what is alive; generation and order are right."""
    with rowex.open(path) as index:
        index.put_many([(b"%05d" % i, make_value(b"%05d" % i, i, 2000)) for i in range(10_000)])
        index.remove_many([b"%05d" % i for i in range(10_000) if i % 100])
        before = path.stat().st_size
        index.compact()
        assert path.stat().st_size < before / 4
        assert index.info().file_bytes == path.stat().st_size
        stats = index.stats()
        assert stats.free_bytes + stats.retired_bytes == 0
        assert_same(index, {b"%05d" % i: make_value(b"%05d" % i, i, 2000) for i in range(0, 10_000, 100)})
        index.compact()
        assert index.info().generation == 3


def test_scan_goes_on_across_a_rename(path: Path) -> None:
    """A scan begun in one generation goes on in the next: nothing twice, nothing missed."""
    with rowex.open(path) as index:
        names = [b"%05d" % i for i in range(5000)]
        index.put_many([(name, b"") for name in names])
        for reverse in (False, True):
            found = []
            for key, _ in index.scan(reverse=reverse):
                found.append(key)
                if len(found) % 500 == 1:
                    index.compact()
            assert found == names[:: -1 if reverse else 1]


def test_max_size_is_never_exceeded(path: Path) -> None:
    """max_size bounds the file; beyond it is DiskFullError, and removals make room again."""
    limit = 4 << 20
    with rowex.open(path, max_size=limit) as index:
        written = 0

        def fill() -> None:
            nonlocal written
            for i in range(10_000):
                index[b"%05d" % i] = make_value(b"%05d" % i, i, 2000)
                written += 1

        error = refusal(fill, rowex.DiskFullError)
        assert "max_size" in str(error)
        assert path.stat().st_size <= limit
        assert written * 2000 > limit / 4
        assert len(index) == written
        index.check()
        index.remove_many([b"%05d" % i for i in range(written // 2)])
        for i in range(written // 3):
            index[b"again%05d" % i] = make_value(b"again%05d" % i, i, 1900)
        assert path.stat().st_size <= limit
        index.check()
    with rowex.open(path) as index:
        assert index.info().max_size_bytes == limit


def test_value_larger_than_what_max_size_leaves_is_refused(path: Path) -> None:
    """At once, alone and in a batch: no copy of the file makes room for it."""
    with rowex.open(path, max_size=1 << 20) as index:
        index[b"small"] = b"1"
        with pytest.raises(rowex.DiskFullError, match="max_size"):
            index.put(b"large", bytes(900 << 10), timeout=30)

        def both() -> None:
            with index.batch(timeout=30) as batch:
                batch.put(b"other", b"1")
                batch.put(b"large", bytes(900 << 10))

        assert "max_size" in str(refusal(both, rowex.DiskFullError))
        assert index.stats().generation == 1
        index.put(b"less", bytes(500 << 10), timeout=30)
        index.check()
        assert sorted(index) == [b"less", b"small"]


def test_initial_size_and_capacity_are_as_asked(path: Path) -> None:
    """A new file has the size and the capacity that were asked for."""
    with rowex.open(path, initial_size=10 << 20, capacity=64 << 20) as index:
        info = index.info()
        assert 10 << 20 <= info.file_bytes < 12 << 20
        assert 64 << 20 <= info.capacity_bytes < 80 << 20
        for i in range(600):
            index[b"%d" % i] = bytes(10_000)
        assert index.info().file_bytes < 12 << 20


@pytest.mark.parametrize("how", ["handle", "process"])
def test_n_replaces_a_file_in_use_and_its_users_are_told(path: Path, child: Start, how: str) -> None:
    """Mode "n" makes a new file in the old one's place; users of the old one get an error, and no data mix."""

    def use(pipe: Any) -> None:
        old = rowex.open(path)
        old[b"old"] = b"1"
        pipe.send("ready")
        pipe.recv()
        outcomes = []
        for call in (lambda: old.put(b"late", b"1"), lambda: old.get(b"old"), lambda: len(list(old.scan()))):
            try:
                call()
                outcomes.append("answered")
            except (rowex.FormatError, rowex.ClosedError, OSError) as error:
                outcomes.append(type(error).__name__)
        old.close()
        pipe.send(outcomes)

    if how == "process":
        process = child(use)
        process.recv()
        with rowex.open(path, "n") as index:
            assert len(index) == 0
            index[b"new"] = b"2"
            process.send("go on")
            assert process.recv()[0] != "answered"
            process.finish()
            assert_same(index, {b"new": b"2"})
    else:
        old = rowex.open(path)
        old[b"old"] = b"1"
        with rowex.open(path, "n") as index:
            assert len(index) == 0
            index[b"new"] = b"2"
            with pytest.raises((rowex.FormatError, OSError)):
                old[b"late"] = b"1"
            old.close()
            assert_same(index, {b"new": b"2"})
    with rowex.open(path) as index:
        assert_same(index, {b"new": b"2"})
    assert leftovers(path) == set()


def test_file_unlinked_under_a_handle_is_not_resurrected(path: Path, opened: Any) -> None:
    """Once the name is gone, copy and rename is an error and makes no new file; closing works."""
    index = opened(path, **SMALL)
    index[b"k"] = b"1"
    path.unlink()
    with pytest.raises((rowex.RowexError, OSError)):
        index.compact()
    refusal(lambda: [index.put(b"%d" % i, bytes(1000)) for i in range(5000)], rowex.RowexError, OSError)
    index.close()
    assert not path.exists()
    with rowex.open(path) as fresh:
        assert len(fresh) == 0
        fresh[b"new"] = b"1"
        fresh.check()
    assert leftovers(path) == set()


def test_foreign_file_put_in_the_place_is_not_overwritten(path: Path, folder: Path, opened: Any) -> None:
    """A file that others renamed to the name is theirs: copy and rename refuses."""
    index = opened(path, **SMALL)
    index[b"k"] = b"1"
    other = folder / "other"
    other.write_bytes(b"precious" * 1000)
    os.rename(other, path)
    with pytest.raises((rowex.RowexError, OSError)):
        index.compact()
    assert path.read_bytes() == b"precious" * 1000
    index.close()
    assert path.read_bytes() == b"precious" * 1000
    with pytest.raises(rowex.FormatError):
        rowex.open(path)


def test_another_index_put_in_the_place_is_told_apart_by_its_uuid(path: Path, folder: Path, opened: Any) -> None:
    """A Rowex file with another UUID renamed to the name is never taken for the next generation."""
    other = folder / "other.rowex"
    with rowex.open(other) as index:
        index[b"other"] = b"2"
    index = opened(path)
    index[b"k"] = b"1"
    os.rename(other, path)
    with pytest.raises((rowex.RowexError, OSError)):
        index.compact()
    index.close()
    with rowex.open(path) as index:
        assert_same(index, {b"other": b"2"})
