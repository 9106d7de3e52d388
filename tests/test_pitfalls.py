"""
Bugs that other systems of this kind shipped, each with a test that would have caught it.

The letters and numbers are those of the collection that the docstrings sum up: A crash
consistency, B concurrency, C keys and ranges, D growth and processes.  Rows about persistence on
power loss wait for the log.
"""

from __future__ import annotations

import itertools
import os
import random
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from model import Model
from tools import Child, assert_same, counted, eventually, leftovers, make_value, read_value

Start = Callable[..., Child]


def beside(seconds: float, work: Callable[[Callable[[], bool]], None], watch: Callable[[], None]) -> None:
    """Run *work* in a thread while *watch* is called again and again; failures of both come through."""
    deadline = time.monotonic() + seconds
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work(lambda: time.monotonic() < deadline)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    rounds = 0
    try:
        while thread.is_alive():
            watch()
            rounds += 1
    finally:
        deadline = 0
        thread.join()
    assert not failures, failures
    assert rounds > 10


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


# ---- B. concurrency --------------------------------------------------------------------


def test_key_below_a_path_that_is_split_and_merged_is_never_missed(path: Path) -> None:
    """B1, B10: a reader whose level is past the stored prefix overshoots and misses a stable key."""
    stem = b"a rather long common path/"
    stable = [stem + b"tail/one", stem + b"tail/two"]
    with rowex.open(path) as index:
        index.update([(key, make_value(key, 1)) for key in stable])

        def split_and_merge(more: Callable[[], bool]) -> None:
            rng = random.Random(1)
            while more():
                for _ in range(100):
                    cut = rng.randrange(1, len(stable[0]))
                    key = stable[0][:cut] + b"~"
                    index[key] = b""
                    index.remove(key)

        def look() -> None:
            for key in stable * 50:
                value = index.get(key)
                assert value is not None, "a stable key was missed"
                read_value(key, value)

        beside(4, split_and_merge, look)


def test_writer_finds_its_own_insert_while_others_split_and_merge(path: Path) -> None:
    """B1: a writer once missed its own insert."""
    with rowex.open(path) as index:
        stem = b"shared path of writers/"
        index[stem + b"x"] = b""
        failures: list[str] = []

        def write(number: int, deadline: float) -> None:
            rng = random.Random(number)
            while time.monotonic() < deadline and not failures:
                key = stem[: rng.randrange(3, len(stem))] + bytes([65 + number]) + b"%d" % rng.randrange(9)
                index[key] = b"%d" % number
                if index.get(key) != b"%d" % number:
                    failures.append(f"{key!r} was missed by its writer")
                if index.pop(key, None) != b"%d" % number:
                    failures.append(f"{key!r} could not be removed by its writer")

        deadline = time.monotonic() + 3
        threads = [threading.Thread(target=write, args=(n, deadline)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures[:3]
        assert_same(index, {stem + b"x": b""})


def test_range_through_changing_prefixes_reads_whole_keys(path: Path) -> None:
    """B2, B7: a prefix or leaf key loaded too late or torn crashes or misleads a range under writers."""
    stems = [b"p" * n for n in (1, 4, 8, 9, 40)]
    stable = [stem + b"q%d" % i for stem in stems for i in range(3)]
    with rowex.open(path) as index:
        index.update([(key, make_value(key, 0)) for key in stable])

        def change(more: Callable[[], bool]) -> None:
            rng = random.Random(2)
            while more():
                for _ in range(60):
                    key = rng.choice(stems)[: rng.randrange(1, 41)] + bytes([rng.randrange(97, 123)])
                    if key not in stable:
                        index[key] = make_value(key, 0, rng.randrange(300))
                        index.discard(key)

        def scan() -> None:
            for stem in stems:
                found = [key for key, value in index.scan(stem, stem + b"\xff") if read_value(key, value) == 0]
                assert [key for key in found if key in stable] == sorted(
                    key for key in stable if stem <= key < stem + b"\xff"
                )

        beside(3, change, scan)


def test_idle_reader_does_not_hold_up_reuse(path: Path) -> None:
    """B3: a guard that never leaves its epoch lets garbage grow for ever."""
    with rowex.open(path) as index, index.reader() as idle, rowex.open(path, "r") as other:
        index[b"k"] = b"1"
        idle.get(b"k")
        scan = other.scan()
        next(scan)
        for i in range(3000):
            index[b"k"] = make_value(b"k", i, 10_000)
        assert index.stats().file_bytes < 8 << 20
        assert index.stats().reclaimed_cells > 1000
        assert read_value(b"k", idle.get(b"k")) == 2999


def test_reader_of_another_process_is_respected_by_reuse(path: Path, child: Start) -> None:
    """B4: reclamation that waits for writers only, or for its own process only."""

    def read(pipe: Any) -> None:
        with rowex.open(path, "r") as mine:
            pipe.send("ready")
            while not pipe.poll(0):
                for i in range(50):
                    read_value(b"%d" % i, mine[b"%d" % i])
                for key, value in mine.scan():
                    read_value(key, value)

    with rowex.open(path) as index:
        index.update([(b"%d" % i, make_value(b"%d" % i, 0)) for i in range(50)])
        readers = [child(read), child(read)]
        for process in readers:
            process.recv()
        for number in range(60):
            for i in range(50):
                index[b"%d" % i] = make_value(b"%d" % i, number, (number * 37 + i * 11) % 2000)
        assert index.stats().reclaimed_cells > 500
        for process in readers:
            process.send("end")
            process.finish()


def test_removal_from_every_kind_of_node_keeps_its_neighbours(index: Any) -> None:
    """B5: removing through the wrong kind of node corrupts memory."""
    for count in (2, 4, 5, 16, 17, 48, 49, 256):
        keys = [b"%03d/" % count + bytes([i]) for i in range(count)]
        index.update([(key, make_value(key, 1)) for key in keys])
        order = list(keys)
        random.Random(count).shuffle(order)
        alive = set(keys)
        for key in order:
            index.remove(key)
            alive.discard(key)
            if len(alive) % 9 == 0 or len(alive) < 4:
                assert {k for k, _ in index.scan(prefix=b"%03d/" % count)} == alive
                assert all(read_value(k, index[k]) == 1 for k in alive)
    index.check()


def test_node16_search_beside_inserts_finds_every_stable_key(path: Path) -> None:
    """B6: a vector load of 16 key bytes beside single-byte stores."""
    with rowex.open(path) as index:
        stable = [b"v" + bytes([i]) for i in range(0, 250, 40)]
        index.update([(key, make_value(key, 3)) for key in stable])

        def fill(more: Callable[[], bool]) -> None:
            while more():
                for i in range(1, 10):
                    index[b"v" + bytes([i])] = b""
                for i in range(1, 10):
                    del index[b"v" + bytes([i])]

        def look() -> None:
            for key in stable:
                assert read_value(key, index[key]) == 3
            assert index.get(b"v\xff") is None

        beside(3, fill, look)


def test_keys_that_share_more_than_seven_bytes_stay_apart(index: Any) -> None:
    """B8: keys that share a prefix longer than what a node stores are silently corrupted."""
    rng = random.Random(8)
    model: dict[bytes, bytes] = {}
    for shared in (6, 7, 8, 9, 15, 16, 17, 63, 64, 65, 254, 255, 256, 257, 1000, 70_000):
        stem = rng.randbytes(shared)
        for tail in (b"", b"\x00", b"\x01", b"zz", b"zzz", rng.randbytes(9)):
            model[stem + tail] = index[stem + tail] = make_value(stem[-8:] + tail, shared)
        for cut in (1, shared // 2, shared - 1):
            model[stem[:cut] + b"!"] = index[stem[:cut] + b"!"] = b"side"
    assert_same(index, model)
    for key in sorted(model, key=lambda key: key[::-1]):
        assert index.pop(key) == model.pop(key)
    assert_same(index, model)


# ---- C. keys and ranges -----------------------------------------------------------------------


def test_prefixes_nuls_and_duplicates_are_ordinary_keys(index: Any) -> None:
    """C1, C7: a key that begins another, one with NULs, and a duplicate insert that loses a key."""
    keys = [b"", b"\0", b"\0\0", b"a", b"a\0", b"a\0\0", b"a\0b", b"ab", b"abc", b"abcd" * 5, b"abcd" * 5 + b"\0"]
    for order in (keys, keys[::-1]):
        for key in order:
            index.insert(key, b"1" + key)
            with pytest.raises(KeyError):
                index.insert(key, b"2")
        assert_same(index, {key: b"1" + key for key in keys})
        for key in order:
            index.remove(key)
            assert key not in index
        assert len(index) == 0


def test_degenerate_ranges_are_empty_or_single(index: Any) -> None:
    """C2: a range from a key to itself crashes."""
    index.update([(key, key) for key in (b"", b"k", b"k\0", b"kk")])
    for key in (b"", b"k", b"k\0", b"kk", b"absent"):
        assert list(index.scan(key, key)) == []
        assert list(index.scan(key, key, reverse=True)) == []
        expected = [(key, key)] if key != b"absent" else []
        assert list(index.scan(key, key + b"\0")) == expected
        assert list(index.scan(key, key + b"\0", reverse=True)) == expected
    assert list(index.scan(b"z", b"a")) == []


def test_range_that_ends_in_a_prefix_of_stored_keys_ends_there(index: Any, rng: random.Random) -> None:
    """C3: a range end that begins stored keys was padded and yielded keys beyond it."""
    model = Model()
    for _ in range(400):
        key = bytes(rng.choice(b"ab\x00\xff") for _ in range(rng.randrange(8)))
        model.items[key] = index[key] = b""
    probes = [bytes(rng.choice(b"ab\x00\xff") for _ in range(rng.randrange(5))) for _ in range(40)]
    for low in probes[:20]:
        for high in probes[20:]:
            for reverse in (False, True):
                assert list(index.scan(low, high, reverse=reverse)) == model.scan(low, high, reverse=reverse)


def test_scan_beside_writers_yields_each_key_once_and_in_order(path: Path) -> None:
    """C4: scans under writers that return duplicates, and once two keys in the wrong order."""
    with rowex.open(path) as index:
        stable = [b"%04d" % i for i in range(0, 2000, 2)]
        index.update([(key, b"") for key in stable])

        def change(more: Callable[[], bool]) -> None:
            rng = random.Random(4)
            while more():
                for _ in range(100):
                    key = b"%04d" % (rng.randrange(1000) * 2 + 1)
                    index[key + b"x" * rng.randrange(3)] = b""
                    index.discard(b"%04d" % (rng.randrange(1000) * 2 + 1))

        def scan() -> None:
            for reverse in (False, True):
                keys = [key for key, _ in index.scan(reverse=reverse)]
                ordered = keys[::-1] if reverse else keys
                assert all(x < y for x, y in itertools.pairwise(ordered))
                assert set(stable) <= set(keys)

        beside(3, change, scan)


def test_scan_goes_on_where_it_stopped(index: Any) -> None:
    """C5: a scan that cannot be continued because its position is lost between batches."""
    expected = [(b"%05d" % i, bytes(i % 300)) for i in range(4000)]
    index.put_many(expected)
    for reverse in (False, True):
        scan = index.scan(reverse=reverse)
        found = []
        for pair in scan:
            found.append(pair)
            if len(found) % 97 == 0:
                index.get(b"00000")
                index[b"99999x"] = b""
                del index[b"99999x"]
        assert found == (expected[::-1] if reverse else expected)
    steps, at = [], b""
    while batch := list(index.scan(at, None, limit=33)):
        steps += batch
        at = batch[-1][0] + b"\0"
    assert steps == expected


def test_nodes_that_shrink_keep_their_prefix_and_the_key_that_ends_there(index: Any) -> None:
    """C6: long prefixes and shrinking nodes that lose the prefix, keys that are subsets of others, removal."""
    for stem in (b"x" * 5, b"x" * 300, b"x" * 65_600):
        ended = {stem: b"ends here", stem[:-1]: b"shorter"}
        children = {stem + bytes([i]) + b"tail": b"%d" % i for i in range(60)}
        model = {**ended, **children}
        index.update(model)
        for key in sorted(children, key=lambda key: (key[len(stem)] * 7) % 60):
            assert index.pop(key) == model.pop(key)
            if len(model) in (50, 49, 40, 18, 17, 14, 6, 5, 4, 3, 2):
                assert_same(index, model)
        assert_same(index, ended)
        index.clear()


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
