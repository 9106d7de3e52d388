"""
Batches: several keys at one instant, or not at all.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from power import other_boot, recovered, without_power
from tools import Child, assert_same, counted

Start = Callable[..., Child]
KEYS = [b"account/%02d" % i for i in range(12)]


def test_batch_applies_all_at_its_end(path: Path) -> None:
    """Nothing is seen before; the last change of a key counts; removing an absent key is no error."""
    with rowex.open(path) as index:
        index.put_many([(b"a", b"1"), (b"b", b"2")])
        with index.batch() as batch:
            batch.put(b"c", b"3")
            batch.remove(b"a")
            batch.remove(b"never there")
            batch.put(b"b", b"no")
            batch.put(b"b", b"22")
            assert_same(index, {b"a": b"1", b"b": b"2"})
        assert_same(index, {b"b": b"22", b"c": b"3"})
        assert batch.ticket == index.position
        index.wait_durable(batch.ticket)
        with pytest.raises(ValueError, match="over"):
            batch.put(b"d", b"4")
        index.check()


def test_exception_discards_a_batch(path: Path) -> None:
    """As if it had never been."""
    with rowex.open(path) as index:
        index[b"a"] = b"1"
        position = index.position
        batch = index.batch()

        def fail() -> None:
            with batch:
                batch.put(b"a", b"2")
                raise LookupError

        with pytest.raises(LookupError):
            fail()
        assert batch.ticket == 0
        assert index.position == position
        assert_same(index, {b"a": b"1"})


def test_batch_that_is_never_entered_gives_a_resource_warning(path: Path) -> None:
    """Where it holds changes, which are lost; not where it is empty, was applied or discarded."""
    with rowex.open(path) as index:

        def forget() -> None:
            index.batch().put(b"a", b"1")

        with pytest.warns(ResourceWarning, match="never applied"):
            forget()
        assert len(index) == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            empty = index.batch()
            with index.batch() as applied:
                applied.put(b"b", b"2")
            with contextlib.suppress(KeyError), index.batch() as discarded:
                discarded.put(b"c", b"3")
                raise KeyError
            del empty, applied, discarded
        assert dict(index) == {b"b": b"2"}


def test_batch_without_a_log_and_with_codecs(path: Path) -> None:
    """The same on a file of the level "process", and for keys that are no bytes."""
    with rowex.open(path, durability="process", keys="str", values="int") as index:
        with index.batch() as batch:
            batch.put("one", 1)
            batch.put("two", 2)
        assert batch.ticket == 0
        assert dict(index) == {"one": 1, "two": 2}
        with index.batch() as batch, pytest.raises(TypeError):
            batch.put(4, 4)  # type: ignore[arg-type]
        assert len(index) == 2


def test_reader_that_saw_one_sees_all(path: Path, child: Start) -> None:
    """Whichever key of a batch is looked at first, those looked at later are of it, or of a later one."""

    def write(pipe: Any) -> None:
        with rowex.open(path) as mine:
            pipe.send("ready")
            number = 0
            while not pipe.poll(0):
                number += 1
                with mine.batch() as batch:
                    for key in KEYS:
                        batch.put(key, b"%d" % number)

    writer = child(write)
    writer.recv()
    dice = random.Random(1)
    with rowex.open(path) as index:
        rose = last = 0
        until = time.monotonic() + 2
        while time.monotonic() < until:
            seen = 0
            for key in dice.sample(KEYS, len(KEYS)):
                now = int(index.get(key) or b"0")
                assert now >= seen, "a batch was seen in part"
                seen = now
            rose += seen > last
            last = seen
        writer.send("end")
        writer.finish()
        assert rose > 20, "nobody wrote meanwhile: this showed nothing"
        index.check()


def tag_all(mine: Any, name: int, number: int, dice: random.Random) -> None:
    """Write the same into all accounts, or remove them all, beside keys of our own."""
    with mine.batch() as batch:
        for key in dice.sample(KEYS, len(KEYS)):
            if number % 7:
                batch.put(key, b"%d %d" % (name, number))
            else:
                batch.remove(key)
        batch.put(b"own/%d" % name, b"%d" % number)


def one_tag(index: Any) -> None:
    """Nobody writes: all accounts have the same, or none is there."""
    assert len({index.get(key) for key in KEYS}) == 1
    assert len(index) == counted(index)


def test_overlapping_batches_neither_wait_for_ever_nor_mix(path: Path, child: Start) -> None:
    """Threads of two processes, the same keys in any order, other writers between them."""

    def write(pipe: Any, name: int) -> None:
        with rowex.open(path) as mine:

            def run(thread: int) -> None:
                dice = random.Random(name * 10 + thread)
                for number in range(150):
                    tag_all(mine, name * 10 + thread, number, dice)

            threads = [threading.Thread(target=run, args=(thread,)) for thread in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            pipe.send("done")

    with rowex.open(path) as index:
        children = [child(write, name) for name in range(2)]
        for process in children:
            assert process.recv(60) == "done"
            process.finish()
        one_tag(index)
        assert {index[b"own/%d" % name] for name in (0, 1, 10, 11)} == {b"149"}
        index.check()


def test_killed_batches_happened_whole_or_not_at_all(
    path: Path, folder: Path, child: Start, rng: random.Random, long_run: bool
) -> None:
    """After each kill, on the same machine and on one that was switched off."""

    def write(pipe: Any, name: int, seed: int) -> None:
        mine, dice, number = rowex.open(path), random.Random(seed), 0
        pipe.send("ready")
        while True:
            number += 1
            tag_all(mine, name, number, dice)

    with rowex.open(path) as index:
        for number in range(200 if long_run else 15):
            writers = [child(write, name, rng.randrange(2**32)) for name in range(2)]
            for writer in writers:
                writer.recv()
            writers[0].pipe.poll(rng.random() * 0.05)
            for writer in writers:
                writer.kill()
            with index.batch() as batch:  # meets what they have left
                batch.put(b"own/mine", b"%d" % number)
                batch.put(KEYS[3], index.get(KEYS[0]) or b"")
            index.discard(KEYS[3]) if index.get(KEYS[0]) is None else None
            one_tag(index)
            if number % 3 == 0:
                index.check()
                index.flush()
                state = recovered(without_power(path, folder / "off"))
                assert len({state.get(key) for key in KEYS}) == 1
                assert state[b"own/mine"] == b"%d" % number


def test_recovered_batches_are_whole(path: Path, folder: Path) -> None:
    """A batch is one entry of the log: removals, new keys, and more than a frame holds."""
    with rowex.open(path) as index:
        index.put_many([(b"gone %d" % i, b"") for i in range(10)])
        with index.batch() as batch:
            for i in range(10):
                batch.remove(b"gone %d" % i)
            for i in range(3000):
                batch.put(b"%05d" % i, bytes([i % 256]) * 200)
            batch.put(b"large", bytes(3 << 20))
        index.flush()
        expected = dict(index.items())
        off = without_power(path, folder / "off")
    assert recovered(off) == expected
    with other_boot(), rowex.open(off) as index:
        index.check()
