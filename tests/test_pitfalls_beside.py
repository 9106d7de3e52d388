"""
Bugs that other systems of this kind shipped, as in test_pitfalls.py: B concurrency, C keys and ranges.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from model import Model
from tools import Child, assert_same, make_value, read_value

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
