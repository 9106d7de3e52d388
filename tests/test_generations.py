"""
Users of one file that find another under its name, and calls that close what they work on
(promises P2, P7 and P8, rule R10).
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rowex
from tools import Child, assert_same, eventually, refusal

Start = Callable[..., Child]
PLAIN: dict[str, Any] = {"durability": "process"}
OPENING = 1 << 40  # a byte of NAME-lock
USERS = OPENING + 1  # of NAME-lock and of the data file
SET_LOCK = 37  # F_OFD_SETLK
CLEAN = 1


def hold_opening(path: Path) -> int:
    """A descriptor that holds up whoever opens, closes or marks the index, until it is closed."""
    descriptor = os.open(f"{path}-lock", os.O_RDWR)
    fcntl.fcntl(descriptor, SET_LOCK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, OPENING, 1, 0))
    return descriptor


def descriptors_of(path: Path) -> int:
    """How many descriptors of this process lead to the file."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}") == str(path)
        except OSError:
            continue
    return found


def test_user_who_has_died_by_half_is_waited_for(path: Path, child: Start) -> None:
    """The kernel takes its locks on the two files back one after the other; who opens in between waits."""
    rowex.open(path, **PLAIN).close()

    def come(pipe: Any) -> None:
        pipe.recv()
        with rowex.open(path) as mine:
            pipe.send(len(mine))

    process = child(come)
    half = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(half, SET_LOCK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, USERS, 1, 0))
        process.send("go")
        process.pipe.poll(0.2)  # it is inside by now
    finally:
        os.close(half)
    assert process.recv() == 0
    process.finish()


# ---- another file under the name ------------------------------------------------------------


def test_backup_put_back_beside_a_user_is_opened(path: Path, folder: Path, child: Start) -> None:
    """It has the same UUID and an older generation; the users of the file before know nothing of it."""
    with rowex.open(path) as index:
        index[b"old"] = b"1"
    shutil.copy(path, folder / "backup")
    index = rowex.open(path)
    index[b"new"] = b"2"
    index.compact()
    os.replace(folder / "backup", path)
    shutil.rmtree(f"{path}-log", ignore_errors=True)

    def look(pipe: Any) -> None:
        with rowex.open(path) as mine:
            pipe.send(dict(mine.scan()))

    process = child(look)
    assert process.recv() == {b"old": b"1"}
    process.finish()
    refusal(index.compact, rowex.RowexError, OSError)
    index.close()
    with rowex.open(path) as again:
        assert_same(again, {b"old": b"1"})


def test_len_of_a_replaced_file_is_refused_as_get_is(path: Path, child: Start) -> None:
    """No count of another file, nor half of one."""

    def replace(pipe: Any) -> None:
        with rowex.open(path, "n", **PLAIN) as mine:
            mine[b"a"] = b"b"

    with rowex.open(path, **PLAIN) as index:
        index.put_many((b"%d" % i, b"v") for i in range(100))
        child(replace).finish()
        told = refusal(lambda: index.get(b"1"), rowex.RowexError, OSError)
        assert type(refusal(lambda: len(index), rowex.RowexError, OSError)) is type(told)


def test_last_to_close_after_a_copy_that_it_has_not_seen_leaves_a_clean_file(path: Path, child: Start) -> None:
    """The file that the name names is marked, not the one that it had open."""

    def idle(pipe: Any) -> None:
        mine = rowex.open(path)
        mine[b"idle"] = b"1"
        pipe.send("ready")
        pipe.recv()
        mine.close()

    with rowex.open(path, **PLAIN) as index:
        index[b"k"] = b"1"
        process = child(idle)
        process.recv()
        index.compact()
        index[b"after"] = b"1"
    process.send("close")
    process.finish()
    assert path.read_bytes()[256] == CLEAN
    with rowex.open(path) as index:
        assert_same(index, {b"k": b"1", b"idle": b"1", b"after": b"1"})


# ---- keys that end at a node ------------------------------------------------------------------


def test_nodes_shrink_though_keys_that_end_at_them_came_and_went(folder: Path) -> None:
    """Those are counted apart: a node of 256 that has become empty is given up."""
    nodes = []
    for churn in (0, 60):
        with rowex.open(folder / f"{churn}.rowex", **PLAIN) as index:
            for number in range(100):
                prefix = b"%04d" % number
                index.put_many((prefix + bytes([i]), b"v") for i in range(60))
                for _ in range(churn):
                    index[prefix] = b"t"
                    del index[prefix]
                index.remove_many([prefix + bytes([i]) for i in range(60)])
            index.check()
            nodes.append(index.stats().nodes)
    assert nodes[1] == nodes[0]


# ---- a listener that closes -------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Have a function called at each event."""
    logger = logging.getLogger("rowex")
    before, handlers = logger.level, []

    def listen(function: Callable[[], None]) -> None:
        class Listener(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                function()

        handlers.append(Listener())
        logger.addHandler(handlers[-1])
        logger.setLevel("INFO")

    yield listen
    for handler in handlers:
        logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.mark.limit(20)
@pytest.mark.parametrize("how", ["writer", "nested", "plain"])
def test_listener_that_closes_the_index_does_not_wait_for_its_own_call(
    path: Path, listening: Callable[[Callable[[], None]], None], how: str
) -> None:
    """Closing from inside a call is refused, also by a call within it and with a writer of one's own."""
    index = rowex.open(path, **PLAIN)
    refusals: list[BaseException] = []

    def close() -> None:
        if how == "nested":
            index.get(b"k")
        refusals.append(refusal(index.close, rowex.RowexError, OSError))

    listening(close)
    if how == "writer":
        with index.writer() as writer:
            for i in range(40):
                writer.put(b"%d" % i, bytes(100_000))
    else:
        for i in range(40):
            index.put(b"%d" % i, bytes(100_000))
    assert refusals, "nothing was told"
    assert len(index) == 40
    index.close()


# ---- fork in the midst of another thread's opening ----------------------------------------------


def outlive(pipe: Any, held: int) -> None:
    """A child that goes on living, without the test's own descriptor."""
    os.close(held)
    pipe.send("ready")
    pipe.recv()


def test_fork_beside_a_renaming_leaves_no_lock_in_the_child(path: Path, folder: Path, child: Start) -> None:
    """The index can be opened while the child lives."""
    rowex.open(path, **PLAIN).close()
    Path(f"{path}-lock").touch()
    other = folder / "other.rowex"
    held = hold_opening(path)
    before = descriptors_of(Path(f"{path}-lock"))
    thread = threading.Thread(target=rowex.rename, args=(path, other))
    thread.start()
    eventually(lambda: descriptors_of(Path(f"{path}-lock")) > before)
    process = child(outlive, held)
    process.recv()
    os.close(held)
    thread.join(20)
    assert not thread.is_alive()
    os.rename(other, path)
    with rowex.open(path, "w") as index:
        index[b"k"] = b"1"
    rowex.destroy(path)
    process.send("end")
    process.finish()


def test_fork_beside_a_reopening_leaves_the_grandchild_working(path: Path, child: Start) -> None:
    """The thread that was inside is not in the grandchild."""
    index = rowex.open(path, **PLAIN)
    index[b"k"] = b"1"

    def grandchild(pipe: Any, held: int) -> None:
        os.close(held)
        pipe.recv()
        assert index[b"k"] == b"1"

    def work(pipe: Any) -> None:
        held = hold_opening(path)
        seen: list[bytes] = []
        before = descriptors_of(Path(f"{path}-lock"))
        thread = threading.Thread(target=lambda: seen.append(index[b"k"]))
        thread.start()
        eventually(lambda: descriptors_of(Path(f"{path}-lock")) > before)
        process = Child(grandchild, held)
        try:
            os.close(held)
            process.send("go")
            thread.join(20)
            assert seen == [b"1"]
            process.finish()
        finally:
            process.cleanup()

    child(work).finish()
    index.close()
