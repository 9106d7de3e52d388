"""
The level "pmem": who may have it, and what another boot finds.  There is no persistent memory here:
fences are forced, and what a power cut leaves of the stores is tried by scripts/persist-order.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import rowex
from power import other_boot
from tools import Child, assert_same, leftovers


def leave_open(_: Any, path: Path, compacts: bool) -> None:
    """Fills an index and is killed without closing it."""
    index = rowex.open(path, durability="pmem")
    index.put_many([(b"k%04d" % i, b"v" * (i % 900)) for i in range(2000)])
    index.remove_many([b"k%04d" % i for i in range(0, 2000, 3)])
    with index.batch() as batch:
        batch.put(b"x", b"1")
        batch.remove(b"k0001")
    if compacts:
        index.compact()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushes and fences are made although the disk is an ordinary one."""
    monkeypatch.setenv("ROWEX_FENCES", "1")


def test_pmem_without_dax_is_refused_before_a_file_is_made(path: Path) -> None:
    """The error says what is missing, where, and what to do; nothing is left behind."""
    with pytest.raises(rowex.DurabilityError, match=r"DAX.*index\.rowex.*choose durability=\"commit\""):
        rowex.open(path, durability="pmem")
    assert list(path.parent.iterdir()) == []


def test_pmem_file_on_an_ordinary_disk_can_be_read_and_copied_but_not_written(
    path: Path, forced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was brought there by other means is not lost to its owner."""
    with rowex.open(path, durability="pmem") as index:
        index[b"k"] = b"v"
    monkeypatch.delenv("ROWEX_FENCES")
    with pytest.raises(rowex.DurabilityError, match="open it with mode"):
        rowex.open(path)
    with rowex.open(path, "r") as index:
        assert index.info().durability == "pmem"
        assert_same(index, {b"k": b"v"})
    target = path.parent / "commit.rowex"
    rowex.copy(path, target, durability="commit")
    with rowex.open(target) as index:
        assert_same(index, {b"k": b"v"})
    with pytest.raises(rowex.DurabilityError, match="DAX"):
        rowex.copy(path, path.parent / "pmem.rowex", durability="pmem")
    assert not (path.parent / "pmem.rowex").exists()


def test_pmem_is_fixed_at_creation(path: Path, forced: None) -> None:
    """Another level is an error that names both, as is pmem for a file of another level."""
    rowex.open(path, durability="pmem").close()
    for other in ("process", "batch", "commit"):
        with pytest.raises(ValueError, match=rf'"pmem".*"{other}"'):
            rowex.open(path, durability=other)
    rowex.open(path, "n", durability="batch").close()
    with pytest.raises(ValueError, match=r'"batch".*"pmem"'):
        rowex.open(path, durability="pmem")


def test_pmem_has_no_log_and_tickets_are_zero(path: Path, forced: None) -> None:
    """What has returned is durable: there is nothing to wait for."""
    with rowex.open(path, durability="pmem") as index:
        assert index.info().fences
        assert index.put(b"k", b"v") == 0
        with index.batch() as batch:
            batch.put(b"k2", b"v2")
        with pytest.raises(rowex.DurabilityError, match="what has returned is durable"):
            index.flush()
    assert leftovers(path) == set()


def test_pmem_file_that_nobody_closed_is_used_by_the_next_boot(path: Path, forced: None) -> None:
    """All is there, the space of the dead comes back, and the boots after it go on with it."""
    expected: dict[bytes, bytes] = {}
    for compacts in (False, True):
        assert Child(leave_open, path, compacts).wait() == -signal.SIGKILL
        expected |= {b"k%04d" % i: b"v" * (i % 900) for i in range(2000) if i % 3 and i != 1}
        expected[b"x"] = b"1"
        for number in range(2):
            with other_boot(), rowex.open(path) as index:
                index.check()
                assert_same(index, expected)
                index[b"boot%d" % number] = expected[b"boot%d" % number] = bytes([number, compacts])
                index.check()
        with rowex.open(path) as index:
            assert_same(index, expected)
    assert os.path.getsize(path) < 8 << 20


def test_copy_of_a_pmem_file_in_use_is_refused(path: Path, forced: None) -> None:
    """Bytes that were copied while others stored are of no one moment, whichever boot asks."""
    with rowex.open(path, durability="pmem") as index:
        index[b"k"] = b"v"
        copy = path.parent / "copied.rowex"
        copy.write_bytes(path.read_bytes())
    with other_boot(), pytest.raises(rowex.CorruptionError, match="copy"):
        rowex.open(copy)
