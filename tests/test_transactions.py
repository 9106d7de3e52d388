"""
Several changes at one instant: `Index.batch` (promises P1, P4, P5).  Deaths at each store of a batch
are scenarios of test_crashpoints.py.  Failure models here: `kill`, and a machine that comes back.
"""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rowex
from conftest import SEED, _fast_folder
from tools import TIME_SCALE, assert_same, eventually, make_value, refusal, run_python

LEVELS = ("process", "batch")
# Far apart in the tree, at several depths, at a node's end, and beside others.
GROUP = [b"", b"a", b"a/long/path/1", b"a/long/path/2", b"a/long/q", b"m\x00", b"m\x01", b"z" * 300]


def stamp(writer: int, number: int) -> bytes:
    """What every key of a group gets in one batch."""
    return struct.pack("<II", writer, number)


def read_stamp(value: bytes) -> tuple[int, int]:
    """(writer, number)."""
    writer, number = struct.unpack("<II", value)
    return int(writer), int(number)


# ---- what one batch does ------------------------------------------------------------


@pytest.mark.parametrize("durability", LEVELS)
def test_batch_is_applied_when_its_block_ends(path: Path, opened: Callable[..., Any], durability: str) -> None:
    """Nothing before, all of it after; the ticket is that of a log entry."""
    index = opened(path, durability=durability)
    index.put_many([(b"gone", b"1"), (b"kept", b"2"), (b"changed", b"3")])
    with index.batch() as batch:
        batch.put(b"changed", b"4")
        batch.put(b"new", b"5")
        batch.remove(b"gone")
        batch.remove(b"was never there")
        assert len(batch) == 4
        assert dict(index.scan()) == {b"gone": b"1", b"kept": b"2", b"changed": b"3"}
    assert_same(index, {b"kept": b"2", b"changed": b"4", b"new": b"5"})
    if durability == "process":
        assert batch.ticket == 0
    else:
        assert batch.ticket == index.position
        index.wait_durable(batch.ticket)
        assert index.durable >= batch.ticket


def test_exception_discards_the_batch(index: Any) -> None:
    """An exception in the block leaves the index as it was."""
    index.put(b"k", b"1")

    def fail() -> None:
        with index.batch() as batch:
            batch.put(b"k", b"2")
            batch.put(b"other", b"2")
            raise RuntimeError("no")

    refusal(fail, RuntimeError)
    assert_same(index, {b"k": b"1"})


def test_last_change_of_a_key_wins(index: Any) -> None:
    """A batch has one change a key: the last."""
    with index.batch() as batch:
        batch.put(b"a", b"1")
        batch.remove(b"a")
        batch.remove(b"b")
        batch.put(b"b", b"1")
        batch.put(b"b", b"2")
    assert_same(index, {b"b": b"2"})


def test_empty_batch_does_nothing(index: Any) -> None:
    """No change, no ticket."""
    with index.batch() as batch:
        pass
    assert batch.ticket == 0
    assert len(index) == 0


def test_batch_refuses_what_cannot_be(path: Path, opened: Callable[..., Any]) -> None:
    """Wrong types, an ended block, a read-only handle, a closed one, keys that are too long."""
    index = opened(path)
    with index.batch() as batch:
        refusal(lambda: batch.put("text", b""), TypeError)
        refusal(lambda: batch.put(b"k", 1), TypeError)
        refusal(lambda: batch.remove(None), TypeError)
        batch.put(bytearray(b"buffer"), memoryview(b"value"))
    refusal(lambda: batch.put(b"late", b""), ValueError)
    refusal(batch.__enter__, ValueError)
    assert_same(index, {b"buffer": b"value"})

    def too_long() -> None:
        with index.batch() as batch:
            batch.put(b"short", b"1")
            batch.put(b"k" * ((1 << 20) + 1), b"1")

    refusal(too_long, ValueError, rowex.RowexError)
    assert_same(index, {b"buffer": b"value"})
    refusal(opened(path, "r").batch, rowex.ReadOnlyError)
    with index.reader() as reader:
        refusal(reader.batch, rowex.ReadOnlyError)
    with index.writer() as writer, writer.batch() as batch:
        batch.put(b"by a writer", b"1")
    assert index.get(b"by a writer") == b"1"
    index.close()
    refusal(index.batch, rowex.ClosedError)


def test_batch_of_an_index_with_codecs(path: Path, opened: Callable[..., Any]) -> None:
    """Keys and values are those of the index."""
    index = opened(path, keys="int", values="str")
    index.put(-5, "old")
    with index.batch() as batch:
        batch.put(7, "seven")
        batch.put(-1, "minus one")
        batch.remove(-5)
        refusal(lambda: batch.put("seven", "7"), TypeError)
    assert list(index.items()) == [(-1, "minus one"), (7, "seven")]
    with index.writer() as writer, writer.batch() as batch:
        batch.remove(7)
    assert list(index.keys()) == [-1]


def test_batch_that_does_not_fit_changes_nothing(path: Path, opened: Callable[..., Any]) -> None:
    """Full is an error before anything changed (P6), and what was taken comes back."""
    index = opened(path, initial_size=1 << 20, max_size=2 << 20, durability="process")
    index.put_many((b"k%d" % i, b"old") for i in range(20))
    before = dict(index.scan())
    for _ in range(20):

        def overflow() -> None:
            with index.batch() as batch:
                for i in range(30):
                    batch.put(b"k%d" % i, bytes(100_000))

        refusal(overflow, rowex.DiskFullError)
        assert_same(index, before)
    with index.batch() as batch:
        for i in range(8):
            batch.put(b"k%d" % i, bytes(100_000))
    assert len(index.get(b"k7")) == 100_000
    index.check()


def test_large_batch_grows_the_file_by_copy_and_rename(path: Path, opened: Callable[..., Any]) -> None:
    """A generation that ends in the middle of a batch is no obstacle: it is begun anew."""
    index = opened(path, initial_size=1 << 20, capacity=1 << 20)
    expected: dict[bytes, bytes] = {}
    for number in range(8):
        with index.batch() as batch:
            for i in range(600):
                key = b"%d/%d" % (i % 7, i * number)
                expected[key] = make_value(key, number, 500)
                batch.put(key, expected[key])
    assert index.info().generation > 1
    assert_same(index, expected)


short = st.lists(st.sampled_from([0, 97, 98, 255]), max_size=5).map(bytes)
deep = st.tuples(st.integers(0, 60), short).map(lambda t: (b"long path " * 6)[: t[0]] + t[1])
names = st.one_of(short, deep, st.integers(0, 255).map(lambda i: b"n" + bytes([i])))
contents = st.one_of(st.none(), st.binary(max_size=30), st.integers(0, 3000).map(bytes))
steps = st.lists(st.tuples(st.booleans(), st.lists(st.tuples(names, contents), max_size=40)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(steps=steps, durability=st.sampled_from(LEVELS))
def test_batches_and_single_changes_do_what_a_dict_does(
    steps: list[tuple[bool, list[tuple[bytes, bytes | None]]]], durability: str
) -> None:
    """Any sequence of batches and single changes leaves what it leaves in a dict, now and after reopening."""
    folder = Path(tempfile.mkdtemp(prefix="rowex-batch-", dir=_fast_folder()))
    model: dict[bytes, bytes] = {}
    try:
        with rowex.open(folder / "index", durability=durability) as index:
            for together, changes in steps:
                if together:
                    with index.batch() as batch:
                        for key, value in changes:
                            batch.remove(key) if value is None else batch.put(key, value)
                else:
                    for key, value in changes:
                        index.discard(key) if value is None else index.put(key, value)
                for key, value in changes:
                    model.pop(key, None)
                    if value is not None:
                        model[key] = value
                assert_same(index, model)
        with rowex.open(folder / "index") as index:
            assert_same(index, model)
    finally:
        shutil.rmtree(folder)


# ---- beside others -------------------------------------------------------------------


def write_group(index: Any, writer: int, number: int, rng: random.Random) -> None:
    """One batch: the same stamp for every key of the group."""
    order = list(GROUP)
    rng.shuffle(order)
    with index.batch() as batch:
        for key in order:
            batch.put(key, stamp(writer, number))


def write_groups(pipe: Any, path: Path, writer: int, count: int, seed: str) -> None:
    """A process that writes batches; count 0: until it is killed."""
    rng = random.Random(f"{seed} {writer}")
    with rowex.open(path) as index:
        pipe.send("ready")
        for number in itertools.count(1):
            write_group(index, writer, number, rng)
            if number == count:
                break


def watch_group(index: Any, over: Callable[[], bool], rng: random.Random) -> int:
    """
    Read the group key by key: of each writer, what is read never goes back.

    Returns:
        How many values were read.
    """
    latest: dict[int, int] = {}
    reads = 0
    while True:
        last = over()
        for key in rng.sample(GROUP, len(GROUP)):
            writer, number = read_stamp(index.get(key))
            assert number >= latest.get(writer, 0), (
                f"{key!r} is of batch {number}, one of {latest[writer]} was read before"
            )
            latest[writer] = number
            reads += 1
        if last:
            return reads


@pytest.mark.parametrize("durability", LEVELS)
def test_reader_of_one_value_reads_all_from_then_on(
    path: Path, opened: Callable[..., Any], child: Callable[..., Any], rng: random.Random, durability: str
) -> None:
    """Who has read one value of a batch never reads an older one of its other keys; in threads and processes."""
    index = opened(path, durability=durability)
    write_group(index, 0, 1, rng)
    writer = child(write_groups, path, 0, 1500, SEED)
    failures: list[BaseException] = []

    def watch(seed: int) -> None:
        try:
            watch_group(index, lambda: not writer.alive(), random.Random(seed))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=watch, args=(rng.random(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.finish(60)
    assert not failures, failures
    assert {index.get(key) for key in GROUP} == {stamp(0, 1500)}
    index.check()


@pytest.mark.parametrize("durability", LEVELS)
def test_overlapping_batches_take_effect_one_after_the_other(
    path: Path, opened: Callable[..., Any], child: Callable[..., Any], rng: random.Random, durability: str
) -> None:
    """Batches of several processes and threads over the same keys: all succeed, and one is the last everywhere."""
    index = opened(path, durability=durability)
    write_group(index, 0, 0, rng)
    children = [child(write_groups, path, writer, 300, SEED) for writer in (1, 2)]
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            for number in range(1, 301):
                write_group(index, writer, number, random.Random(f"{SEED} {writer} {number}"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in (3, 4)]
    for thread in threads:
        thread.start()
    watch_group(index, lambda: not any(thread.is_alive() for thread in threads), rng)
    for thread in threads:
        thread.join()
    for process in children:
        process.finish(60)
    assert not failures, failures
    values = {index.get(key) for key in GROUP}
    assert len(values) == 1, values
    assert read_stamp(values.pop())[1] == 300
    assert len(index) == len(GROUP)
    index.check()


def churn(pipe: Any, path: Path, writer: int, seed: str) -> None:
    """Batches that put and remove two halves of the same keys in turn, among single changes."""
    rng = random.Random(f"{seed} {writer}")
    with rowex.open(path) as index:
        pipe.send("ready")
        for number in itertools.count(1):
            with index.batch() as batch:
                for i in range(40):
                    key = b"half/%d/%d" % (i % 2, i)
                    batch.put(key, stamp(writer, number)) if i % 2 == number % 2 else batch.remove(key)
            for _ in range(rng.randrange(3)):
                index.put(b"half/%d/%d" % (rng.randrange(2), 100 + rng.randrange(9)), b"single")


def halves(index: Any) -> list[int]:
    """How many keys of batches each half holds; each is all or nothing while nobody writes."""
    found: dict[int, set[bytes]] = {0: set(), 1: set()}
    counts = [0, 0]
    for key, value in index.scan(prefix=b"half/"):
        _, half, i = key.split(b"/")
        if int(i) < 100:
            counts[int(half)] += 1
            found[int(half)].add(value)
    assert all(len(values) <= 1 for values in found.values()), found
    return counts


@pytest.mark.parametrize("durability", LEVELS)
def test_killed_writers_leave_batches_whole(
    path: Path, opened: Callable[..., Any], child: Callable[..., Any], rng: random.Random, durability: str
) -> None:
    """SIGKILL at random instants, two at a time: all or nothing, the length exact, no fault, the next goes on."""
    print(f"ROWEX_SEED={SEED}")
    index = opened(path, durability=durability)
    index.put(b"mark", b"1")
    for round_ in range(12):
        children = [child(churn, path, writer, f"{SEED} {round_}") for writer in (1, 2)]
        for process in children:
            process.recv()
        until = time.monotonic() + rng.random() * 0.05
        eventually(lambda until=until: time.monotonic() > until)
        for process in children:
            process.signal(signal.SIGKILL)
        for process in children:
            process.wait()
        if round_ % 3 == 0:
            index.check()
        if round_ % 2:
            index.put(b"half/0/100", b"beside what the dead left, if anything")
        assert sorted(halves(index)) in ([0, 0], [0, 20])
        assert len(index) == sum(1 for _ in index.scan())
        index.check()
        with index.batch() as batch:
            for i in range(40):
                batch.remove(b"half/%d/%d" % (i % 2, i))
        assert halves(index) == [0, 0]


@pytest.mark.parametrize("durability", LEVELS)
def test_stopped_batch_gives_way(
    path: Path, opened: Callable[..., Any], child: Callable[..., Any], durability: str
) -> None:
    """A writer that meets the batch of a stopped process goes on; the batch happens when it wakes, whole."""
    index = opened(path, durability=durability)
    index.put(b"first", b"1")
    names = [b"first", *(b"key%06d" % i for i in range(30_000))]

    def write(pipe: Any) -> None:
        with rowex.open(path) as own:
            own.put(b"warm", b"1")
            pipe.send("ready")
            with own.batch() as batch:
                for name in names:
                    batch.put(name, b"batch")
                pipe.send("now")
        pipe.recv()  # who is stopped must be there

    writer = child(write)
    assert [writer.recv(), writer.recv()] == ["ready", "now"]
    writer.pipe.poll(0.03)
    writer.stop()
    started = time.monotonic()
    try:
        index.put(b"first", b"2", timeout=5 * TIME_SCALE)
        went_on = True
    except TimeoutError:  # it was stopped while it held a node: that is its right (P4)
        went_on = False
    assert not went_on or time.monotonic() - started < 3 * TIME_SCALE
    writer.go_on()
    writer.send("end")
    writer.finish(60)
    assert {index.get(name) for name in names[1:]} == {b"batch"}
    assert index.get(b"first") in (b"2", b"batch")
    assert len(index) == len(names) + 1
    index.check()


# ---- when the machine comes back ----------------------------------------------------------

REOPEN = """
import sys
import rowex
from test_transactions import GROUP, read_stamp, halves
with rowex.open(sys.argv[1]) as index:
    index.check()
    values = {index.get(key) for key in GROUP}
    assert len(values) == 1, values
    print(*read_stamp(values.pop()), len(index), sum(1 for _ in index.scan()), index.position >> 44)
    print(*sorted(halves(index)))
"""


def acknowledge(pipe: Any, path: Path, seed: str) -> None:
    """Batches, each told when it is durable, and large ones among them."""
    rng = random.Random(seed)
    with rowex.open(path) as index:
        for number in itertools.count(1):
            with index.batch() as batch:
                for key in GROUP:
                    batch.put(key, stamp(1, number))
                for i in range(40):
                    key = b"half/%d/%d" % (i % 2, i)
                    batch.put(key, stamp(1, number)) if i % 2 == number % 2 else batch.remove(key)
                if number % 5 == 0:
                    for i in range(3):
                        batch.put(b"large/%d" % i, bytes(rng.randrange(300_000)))
            if number % 2:
                index.wait_durable(batch.ticket)
                pipe.send(number)


@pytest.mark.parametrize("number", range(4))
def test_recovery_finds_batches_whole(path: Path, child: Callable[..., Any], rng: random.Random, number: int) -> None:
    """From checkpoint and log alone: everything acknowledged is there, and every batch is all or nothing."""
    with rowex.open(path) as index:
        write_group(index, 1, 0, rng)
        incarnation = index.position >> 44
    writer = child(acknowledge, path, f"{SEED} {number}")
    acknowledged = 0
    while acknowledged < 20 + 7 * number:
        acknowledged = writer.recv()
    writer.kill()
    while writer.pipe.poll(0):
        try:
            acknowledged = writer.pipe.recv()
        except (EOFError, ConnectionResetError):
            break
    package = Path(rowex.__file__).resolve().parents[1]
    for boot in ("one", "two"):
        done = run_python("-c", REOPEN, str(path), folder=package, ROWEX_BOOT_ID=f"boot {boot}")
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        _, found, length, scanned, seen = map(int, first.split())
        assert seen == incarnation + 1, "the log was not recovered"
        assert found >= acknowledged
        assert length == scanned
        assert second == "0 20"
