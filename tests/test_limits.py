"""
Limits of tables, paths and sizes, and of what a process may have: each is an error that says which.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from rowex.aio.waiters import Waiters
from tools import Child, as_somebody_else, refusal, run_python

Start = Callable[..., Child]
UIDS = 4096


# ---- tables ----------------------------------------------------------------------------


def test_table_of_uids_that_is_full_is_an_error_until_one_is_closed(path: Path) -> None:
    """Whoever has a uid already works on; a closed reader's is free for the next."""
    with rowex.open(path, flush_interval=60) as index, contextlib.ExitStack() as stack:
        index[b"k"] = b"1"

        def crowd() -> None:
            for _ in range(UIDS):
                stack.enter_context(index.reader())

        with pytest.raises(rowex.RowexError, match=f"{UIDS} threads, readers and writers"):
            crowd()
        assert index[b"k"] == b"1"
        index[b"k"] = b"2"
        stack.close()
        with index.reader() as reader:
            assert reader[b"k"] == b"2"


# ---- paths -----------------------------------------------------------------------------


def test_path_that_leads_nowhere_is_an_error_that_says_why(folder: Path) -> None:
    """Too long, round in a circle, through a file: an OSError with its number, and no file is made."""
    (folder / "file").write_bytes(b"")
    (folder / "round").symlink_to("about")
    (folder / "about").symlink_to("round")
    (folder / "far").symlink_to("far away/further/index")
    before = sorted(folder.iterdir())
    expected = {
        folder / ("n" * 5000): errno.ENAMETOOLONG,
        folder / "round": errno.ELOOP,
        folder / "file" / "index": errno.ENOTDIR,
        folder / "far": errno.ENOENT,
    }
    for path, number in expected.items():
        error = refusal(lambda path=path: rowex.open(path), OSError)
        assert (error.errno, path) == (number, path)  # type: ignore[attr-defined]
    assert sorted(folder.iterdir()) == before


# ---- sizes -----------------------------------------------------------------------------


def test_sizes_that_no_file_can_have_are_conflicts(path: Path) -> None:
    """Nothing is made of sizes below the smallest file or beyond all addresses, or that exclude each other."""
    rowex.open(path.with_name("source"), durability="process").close()
    before = sorted(path.parent.iterdir())

    def copy(**options: Any) -> None:
        rowex.copy(path.with_name("source"), path, **options)

    def build(**options: Any) -> None:
        rowex.build(path, [(b"k", b"v")], **options)

    for make in (lambda **options: rowex.open(path, **options), rowex.memory, copy, build):
        for options, text in (
            ({"max_size": 1000}, "max_size is 1000, the smallest file has 131072"),
            ({"capacity": 1}, "capacity is 1, the smallest file has 131072"),
            ({"capacity": 1 << 62}, "too large"),
            ({"initial_size": 64 << 20, "max_size": 1 << 20}, "initial_size is 67108864, max_size is 1048576"),
            ({"initial_size": 2 << 20, "capacity": 1 << 20}, "initial_size is 2097152, capacity is 1048576"),
        ):
            if "initial_size" not in options or make not in (copy, build):
                assert text in str(refusal(lambda make=make, options=options: make(**options), ValueError))
    assert sorted(path.parent.iterdir()) == before


def test_initial_size_is_at_least_the_smallest_and_at_most_the_limits(folder: Path) -> None:
    """A file is neither smaller than its parts nor larger than it may become."""
    with rowex.open(folder / "small", initial_size=1):
        assert 1 < (folder / "small").stat().st_size < 1 << 20
    for limits in ({"max_size": 300_000}, {"capacity": 300_000}):
        with rowex.open(folder / "limited", "n", **limits) as index:
            index[b"k"] = b"1"
            assert (folder / "limited").stat().st_size <= 320 << 10, limits


def test_capacity_is_what_a_file_has_at_least(path: Path, child: Start) -> None:
    """It never becomes less; a file with less is a conflict that names both; a second handle counts what others did."""
    asked = 8 << 20
    for _ in range(2):
        with rowex.open(path, capacity=asked) as index, rowex.open(path, capacity=1 << 20):
            index[b"k"] = b"1"
            for larger in (asked + 1, 1 << 40):
                text = str(refusal(lambda larger=larger: rowex.open(path, capacity=larger), ValueError))
                assert str(asked) in text
                assert str(larger) in text
            index.compact()
            assert index.info().capacity_bytes >= asked
        asked = 8 << 30 if asked < 8 << 30 else asked
        rowex.open(path, "n", capacity=asked).close()

    def grow(pipe: Any) -> None:
        with rowex.open(path) as index:
            for i in range(200):
                index[b"%d" % i] = bytes(10_000)

    rowex.open(path, "n", capacity=1 << 20).close()
    with rowex.open(path) as index:
        child(grow).finish()
        with rowex.open(path, capacity=4 << 20):
            assert index.info().capacity_bytes >= 4 << 20


def test_key_that_is_too_long_is_absent_for_who_only_looks_or_removes(
    path: Path, door: Any, opened: Callable[..., Any]
) -> None:
    """No such key can be there, so only who would store it has made a mistake."""
    long = b"k" * ((1 << 20) + 1)
    index = opened(path.with_name("other"), durability="commit")
    index[b"k"] = b"1"
    for each in (door, index):
        for take in (each.remove, each.lookup, each.__getitem__, each.__delitem__, each._try_remove):
            with pytest.raises(KeyError) as caught:
                take(long)
            assert caught.value.args == (long,)
        assert each.get(long) is None
        assert each.discard(long) is False
        assert long not in each
        assert each.get_many([long]) == [None]
        for store in (lambda each=each: each.put(long, b""), lambda each=each: each.insert(long, b"")):
            with pytest.raises(ValueError, match="1048577 bytes, the limit is 1048576"):
                store()
        assert list(each.scan(long)) == []
    with pytest.raises(KeyError):
        index.pop(long)
    assert index.pop(long, None) is None
    assert index.compare_and_set(long, b"1", None) is False
    assert index.compare_and_set(long, None, None) is True
    index.remove_many([long])
    assert index.floor(long) == (b"k", b"1")
    assert index.ceiling(long) is None
    with index.batch() as batch:
        batch.remove(long)
    with index.batch() as batch:
        batch.remove(long)
        batch.put(b"l", b"2")
    for store in (lambda: index.compare_and_set(long, None, b""), lambda: index.setdefault(long, b"")):
        with pytest.raises(ValueError, match="1048577 bytes"):
            store()
    assert list(index) == [b"k", b"l"]
    with rowex.open(index.path, "r") as reader:
        for take in (reader.discard, lambda key: reader.compare_and_set(key, None, None)):
            with pytest.raises(rowex.ReadOnlyError):
                take(long)
    index.close()
    for take in (index.discard, index.remove, index.exists):
        with pytest.raises(rowex.ClosedError):
            take(long)


# ---- room ------------------------------------------------------------------------------


def test_memory_index_that_is_used_up_says_so_and_goes_on_when_something_goes(path: Path) -> None:
    """It is never copied to a larger one: not on demand either."""
    with rowex.memory(capacity=4 << 20) as index:
        keys = [b"%06d" % i for i in range(100_000)]

        def crowd() -> None:
            for key in keys:
                index[key] = bytes(200)

        with pytest.raises(rowex.DiskFullError, match=r"capacity of this memory\(\) index"):
            crowd()
        with pytest.raises(rowex.RowexError, match="in memory cannot be copied"):
            index.compact()
        held = len(index)
        assert list(index) == keys[:held]
        index.remove_many(keys[: held // 2])
        index[b"again"] = bytes(200)
        index.check()


def test_large_value_finds_room_among_small_holes(path: Path) -> None:
    """More than half of a file that may not grow is garbage, in pieces: a copy without them makes room."""
    keys = [b"%06d" % i for i in range(30_000)]
    with rowex.open(path, durability="process", max_size=8 << 20) as index:
        index.put_many([(key, bytes(150)) for key in keys])
        index.remove_many([key for i, key in enumerate(keys) if i % 4])
        generation = index.info().generation
        index[b"large"] = bytes(3 << 20)
        assert index.info().generation == generation + 1
        assert len(index) == len(keys) // 4 + 1
        assert path.stat().st_size <= 8 << 20
        index.check()


def test_file_that_is_mostly_garbage_is_copied_instead_of_growing(path: Path) -> None:
    """Seven of eight items went, in pieces too small for what comes: the file is smaller afterwards."""
    keys = [b"%06d" % i for i in range(90_000)]
    with rowex.open(path, durability="process") as index:
        index.put_many([(key, bytes(900)) for key in keys])
        size = path.stat().st_size
        index.remove_many([key for i, key in enumerate(keys) if i % 8])
        index[b"large"] = bytes(size // 4)
        assert path.stat().st_size < size
        assert len(index) == len(keys) // 8 + 1
        index.check()


# ---- what the process may have -----------------------------------------------------------


def test_file_that_is_open_read_only_here_is_not_opened_for_writing_too(path: Path, child: Start) -> None:
    """One mapping serves all handles of a process: the second is told, and the first goes on."""
    with rowex.open(path) as index:
        index[b"k"] = b"1"
    path.chmod(0o444)
    path.with_name(path.name + "-lock").touch()
    for name in path.parent.iterdir():
        if name != path and name.is_file():
            name.chmod(0o666)
    path.parent.chmod(0o777)

    def use(pipe: Any) -> None:
        as_somebody_else()
        with rowex.open(path, "r") as index:
            error = refusal(lambda: rowex.open(path, "w"), rowex.RowexError)
            pipe.send((str(error), index[b"k"]))

    text, value = child(use).recv()
    assert "open read-only" in text
    assert value == b"1"


def test_watch_without_a_descriptor_or_thread_is_an_error(path: Path, child: Start) -> None:
    """A loop that cannot wait for the log is told, and the index works on."""

    def use(pipe: Any) -> None:
        as_somebody_else()
        with rowex.memory() as index:
            handle = index._live_handle()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            refusal(lambda: Waiters(handle), OSError)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            before = os.listdir("/proc/self/fd")
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
            refusal(lambda: Waiters(handle), MemoryError)
            assert os.listdir("/proc/self/fd") == before
            index[b"k"] = b"1"
            pipe.send(index[b"k"])

    assert child(use).recv() == b"1"


# ---- kernels without membarrier() ----------------------------------------------------------

MIXED = """
import os, sys, rowex
from tools import Child, refusal

path, rounds = sys.argv[1], 300
STABLE = [b"stable %03d" % i for i in range(100)]

def change(index, name):
    for n in range(rounds):
        for i in range(10):
            index.put(name + b" %d" % i, b"%d" % n * 50)
        index.remove(name + b" %d" % (n % 10))
        assert all(index.get_many(STABLE)), "a stable key was missed"

def without(pipe):
    os.environ["ROWEX_NO_MEMBARRIER"] = "1"
    with rowex.open(path) as index:
        pipe.send("open")
        pipe.recv()
        change(index, b"without")
        pipe.send(str(refusal(index.compact, rowex.RowexError)))
        pipe.recv()
        index.compact()  # now nobody relies on others' barriers
        change(index, b"alone")
        index.check()
        pipe.send(len(index))

other = Child(without)
assert other.recv() == "open"
with rowex.open(path) as index:
    index.put_many([(key, key) for key in STABLE])
    other.send("go")
    change(index, b"with")
    print(other.recv())
    index.compact()
    index.check()
    assert len(index) == 100 + 9 + 9
other.send("alone")
assert other.recv() == 100 + 9 + 9 + 9
other.finish()
"""


def test_process_without_membarrier_works_beside_one_that_has_it(path: Path) -> None:
    """It fences its own reads and leaves to the other what takes everybody's barrier; alone it does all."""
    done = run_python("-c", MIXED, str(path))
    assert done.returncode == 0, done.stderr
    assert "membarrier" in done.stdout
