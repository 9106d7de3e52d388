"""
No room: a full disk is an error before anything changed (promise P6).  Of files without a log;
what the log needs is in test_durability.py.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from tools import Child, assert_same, counted, make_value, read_value

Start = Callable[..., Child]


def fill(index: Any, sizes: list[int]) -> dict[bytes, bytes]:
    """Put until there is no room; what is there."""
    model: dict[bytes, bytes] = {}
    for i in range(100_000):
        key = b"fill/%05d" % i
        value = make_value(key, i, sizes[i % len(sizes)])
        try:
            index[key] = value
        except rowex.DiskFullError:
            assert index.get(key) is None, "a put that failed changed nothing"
            return model
        model[key] = value
    raise AssertionError("it was never full")


@pytest.mark.parametrize("sizes", [[100], [3000], [60_000, 200, 10]], ids=str)
def test_full_disk_is_an_error_before_anything_changed(tiny_disk: Callable[[str], Path], sizes: list[int]) -> None:
    """DiskFullError; reading, removing, closing still work, and what was removed makes room."""
    disk = tiny_disk("12m")
    path = disk / "index.rowex"
    with rowex.open(path, durability="process") as index:
        model = fill(index, sizes)
        with pytest.raises(rowex.DiskFullError) as caught:
            index.put(b"one more", bytes(8 << 20))
        assert isinstance(caught.value, OSError)
        assert len(model) * sum(sizes) / len(sizes) > 4 << 20
        assert len(index) == len(model) == counted(index)
        for key, value in model.items():
            assert index[key] == value
        index.check()
        for key in list(model)[::2]:
            index.remove(key)
            del model[key]
        for i, key in enumerate(list(model)[: len(model) // 4]):
            model[key] = make_value(key, i, sizes[0] // 2)
            index[key] = model[key]
        assert_same(index, model)
    with rowex.open(path, durability="process") as index:
        assert_same(index, model)


def test_put_many_on_a_full_disk_keeps_what_came_before(tiny_disk: Callable[[str], Path]) -> None:
    """The items before the one that found no room are there, those after it are not."""
    with rowex.open(tiny_disk("8m") / "index.rowex", durability="process") as index:
        items = [(b"%06d" % i, make_value(b"%06d" % i, i, 500)) for i in range(40_000)]
        with pytest.raises(rowex.DiskFullError):
            index.put_many(items)
        count = len(index)
        assert 0 < count < len(items)
        assert_same(index, dict(items[:count]))


def test_compact_on_a_full_disk_leaves_the_old_file(tiny_disk: Callable[[str], Path]) -> None:
    """A copy for which there is no room is given up; the index goes on."""
    disk = tiny_disk("10m")
    with rowex.open(disk / "index.rowex", durability="process") as index:
        model = fill(index, [2000])
        with pytest.raises(rowex.DiskFullError):
            index.compact()
        assert index.info().generation == 1
        assert {entry.name for entry in disk.iterdir()} == {"index.rowex", "index.rowex-lock"}
        assert_same(index, model)


def test_growth_beyond_the_capacity_on_a_full_disk_is_an_error(tiny_disk: Callable[[str], Path]) -> None:
    """When the copy to a larger generation finds no room, the old one goes on, unchanged."""
    disk = tiny_disk("10m")
    with rowex.open(disk / "index.rowex", durability="process", initial_size=1 << 20, capacity=6 << 20) as index:
        model = fill(index, [1000])
        assert {entry.name for entry in disk.iterdir()} == {"index.rowex", "index.rowex-lock"}
        index.remove_many(list(model)[::2])
        for key in list(model)[::2]:
            del model[key]
        assert_same(index, model)


def test_creating_on_a_full_disk_is_an_error_that_leaves_nothing(tiny_disk: Callable[[str], Path]) -> None:
    """No room for a new file: DiskFullError, and no half of one."""
    disk = tiny_disk("2m")
    (disk / "ballast").write_bytes(bytes((2 << 20) - 65536))
    with pytest.raises(rowex.DiskFullError), rowex.open(disk / "index.rowex", durability="process") as index:
        index[b"k"] = bytes(1 << 20)
    assert {entry.name for entry in disk.iterdir()} - {"index.rowex", "index.rowex-lock"} == {"ballast"}
    (disk / "ballast").unlink()
    with rowex.open(disk / "index.rowex", capacity=1 << 20, initial_size=1 << 17) as index:
        index[b"k"] = b"1"


def test_disk_filled_by_others_never_ends_a_process(tiny_disk: Callable[[str], Path], child: Start) -> None:
    """Whoever writes while others take the last block: errors, never SIGBUS; all that returned is there."""
    disk = tiny_disk("16m")
    path = disk / "index.rowex"

    def write(pipe: Any, number: int) -> None:
        with rowex.open(path, durability="process") as mine:
            pipe.send("ready")
            full = 0
            i = 0
            while full < 50:
                key = b"%d/%06d" % (number, i)
                try:
                    mine[key] = make_value(key, i, 700)
                    i += 1
                except rowex.DiskFullError:
                    full += 1
                    assert mine.get(key) is None
                    if i:
                        last = b"%d/%06d" % (number, i - 1)
                        assert read_value(last, mine[last]) == i - 1
            pipe.send(i)

    with rowex.open(path, durability="process") as index:
        children = [child(write, n) for n in range(3)]
        for process in children:
            process.recv()
        with open(disk / "ballast", "wb") as ballast:
            try:
                while any(process.alive() for process in children):
                    ballast.write(bytes(65536))
                    ballast.flush()
            except OSError:
                pass
        counts = [process.recv(60) for process in children]
        for process in children:
            process.finish()
        names = [(b"%d/%06d" % (n, i), i) for n, count in enumerate(counts) for i in range(count)]
        assert_same(index, {key: make_value(key, i, 700) for key, i in names})
        os.unlink(disk / "ballast")
        index[b"room again"] = bytes(100_000)
        index.check()


def test_opening_a_clean_file_on_a_full_disk_reads(tiny_disk: Callable[[str], Path]) -> None:
    """Reading needs next to no room; if there is none for the lock file, that is what is said."""
    disk = tiny_disk("4m")
    path = disk / "index.rowex"
    with rowex.open(path, durability="process", initial_size=1 << 18, capacity=1 << 20) as index:
        index[b"k"] = b"1"
    with contextlib.suppress(OSError):
        (disk / "ballast").write_bytes(bytes(8 << 20))
    try:
        with rowex.open(path, "r") as index:
            assert index[b"k"] == b"1"
    except rowex.DiskFullError as error:
        said = str(error)
    else:
        said = ""
    assert "lock" in said or not said
    (disk / "ballast").unlink()
    with rowex.open(path) as index:
        assert_same(index, {b"k": b"1"})


def test_address_space_that_runs_out_is_an_error(path: Path, child: Start) -> None:
    """A capacity that the process may not map is an exception, and other indexes go on."""

    def limited(pipe: Any) -> None:
        import resource

        with rowex.open(path, capacity=1 << 20) as small:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
            with pytest.raises((MemoryError, OSError, rowex.RowexError)):
                rowex.open(path.parent / "large.rowex", capacity=1 << 36)
            small[b"k"] = b"1"
            assert small[b"k"] == b"1"

    child(limited).finish()
    assert (path.parent / "large.rowex").exists() is False


def test_log_of_a_full_disk_takes_removals_and_close(tiny_disk: Callable[[str], Path]) -> None:
    """At "batch": puts are refused before anything changed, removals and close go on, and all of it is durable."""
    path = tiny_disk("16m") / "index.rowex"
    with rowex.open(path) as index:
        model = fill(index, [100, 3000])
        assert len(model) > 1000
        assert_same(index, model)
        index.flush()
        for key in list(model)[::2]:
            index.remove(key)
            del model[key]
        index.flush()
        assert index.durable == index.position
        assert_same(index, model)
    with rowex.open(path, "r") as index:
        assert_same(index, model)
        index.check()


def test_removals_that_use_up_what_is_kept_for_them_are_refused(tiny_disk: Callable[[str], Path]) -> None:
    """The log of long keys outgrows a quarter of the data: nothing is changed then, and more disk ends it."""
    disk = tiny_disk("16m")
    path = disk / "index.rowex"
    with rowex.open(path, flush_interval=60) as index:
        model: dict[bytes, bytes] = {}
        with contextlib.suppress(rowex.DiskFullError):
            for i in range(100_000):
                key = b"%06d" % i + bytes(3000)
                index[key] = b"v"
                model[key] = b"v"
        there = len(model)

        def remove_all() -> None:
            for key in list(model):
                index.remove(key)
                del model[key]

        with pytest.raises(rowex.DiskFullError, match="kept for removals"):
            remove_all()
        assert there * 4 / 5 > len(model) > 0
        assert_same(index, model)
    with rowex.open(path) as index:
        assert_same(index, model)
        subprocess.run(["mount", "-o", "remount,size=48m", str(disk)], check=True)
        for key in list(model):
            index.remove(key)
        index.flush()
        assert len(index) == 0


def test_removals_find_no_room_for_smaller_nodes_and_do_without(path: Path) -> None:
    """A file that is full to its last cell: what would shrink stays as large as it is."""
    with rowex.open(path, max_size=2 << 20, capacity=2 << 20, durability="process") as index:
        model: dict[bytes, bytes] = {}
        for first in range(40):
            for second in range(49):
                key = b"node %c %c" % (first, second)
                index[key] = model[key] = b"1"
        for size in (100_000, 10_000, 1000, 100, 10, 1):
            with contextlib.suppress(rowex.DiskFullError):
                for i in range(100_000):
                    key = b"fill %6d %d" % (size, i)
                    index[key] = bytes(size)
                    model[key] = bytes(size)
        for first in range(40):
            for second in range(3, 49):
                key = b"node %c %c" % (first, second)
                index.remove(key)
                del model[key]
        assert_same(index, model)
        index.check()


def test_disk_filled_by_others_refuses_puts_and_keeps_the_log_whole(tiny_disk: Callable[[str], Path]) -> None:
    """What was put before stays able to become durable; there is room again when the others have gone."""
    disk = tiny_disk("16m")
    with rowex.open(disk / "index.rowex", flush_interval=60) as index:
        model = {b"%03d" % i: make_value(b"%03d" % i, i, 1000) for i in range(300)}
        index.put_many(model.items())
        with contextlib.suppress(OSError):
            (disk / "ballast").write_bytes(bytes(32 << 20))
        index.flush()
        kept = len(index)
        with pytest.raises(rowex.DiskFullError):
            index.put_many((b"more %d" % i, bytes(200)) for i in range(100_000))
        assert all(index.get(key) == value for key, value in model.items())
        for key in list(model)[:150]:
            index.remove(key)
        index.flush()
        assert len(index) == counted(index) >= kept - 150
        (disk / "ballast").unlink()
        index.put(b"room again", bytes(100_000), durable=True)


def test_space_of_a_dead_process_is_taken_before_the_answer_is_full(path: Path, child: Start) -> None:
    """Below max_size, too: who is dead is only known to who looks."""

    def fill_and_empty(pipe: Any) -> None:
        with rowex.open(path) as index:
            for i in range(7):
                index[b"%d" % i] = bytes(60_000)
            for i in range(7):
                del index[b"%d" % i]
            pipe.send("emptied")
            pipe.recv()

    with rowex.open(path, durability="process", initial_size=256 << 10, max_size=640 << 10) as index:
        other = child(fill_and_empty)
        other.recv()
        other.kill()
        for i in range(4):
            index[b"%d" % i] = bytes(50_000)
        assert index.stats().takeovers == 1
