"""
The files of the log: which belong together, and who writes them.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from power import other_boot, recovered, segments, without_power
from rowex.cli.recover import explain
from tools import TESTS, TIME_SCALE, Child, as_somebody_else, run_python

Start = Callable[..., Child]


# ---- files that do not belong together -------------------------------------------------------


@pytest.mark.parametrize("trimmed", [False, True], ids=["log goes on", "log begins later"])
def test_old_copy_of_the_file_put_back_is_refused(path: Path, folder: Path, trimmed: bool) -> None:
    """Its log has gone on: opening it would lose what was durable without a word."""
    with rowex.open(path) as index:
        index[b"k"] = b"old"
    shutil.copyfile(path, folder / "old copy")
    with rowex.open(path) as index:
        index[b"k"] = b"new"
        if trimmed:
            index[b"large"] = bytes(3_000_000)
            index.checkpoint()
            index[b"large"] = bytes(3_000_000)
            index.checkpoint()
            del index[b"large"]
    now = path.read_bytes()
    shutil.copyfile(folder / "old copy", path)
    with pytest.raises(rowex.DurabilityError, match="old copy"):
        rowex.open(path)
    told = explain(path)
    assert told.opening == "refuse"
    assert told.why is not None
    assert "old copy" in told.why
    path.write_bytes(now)
    with rowex.open(path) as index:
        assert index[b"k"] == b"new"


def test_clean_file_without_its_log_is_good(path: Path, folder: Path) -> None:
    """It is whole by itself; a checkpoint is made before anything new is durable."""
    with rowex.open(path) as index:
        index[b"k"] = b"1"
    shutil.copyfile(path, folder / "alone.rowex")
    with rowex.open(folder / "alone.rowex") as index:
        assert index[b"k"] == b"1"
        index.put(b"l", b"2", durable=True)
        assert Path(f"{folder / 'alone.rowex'}-checkpoint").exists()
        off = without_power(folder / "alone.rowex", folder.parent / f"{folder.name}-off")
        try:
            assert recovered(off) == {b"k": b"1", b"l": b"2"}
        finally:
            shutil.rmtree(off.parent)


def test_file_made_anew_never_takes_the_old_sidecars(path: Path, folder: Path) -> None:
    """Only NAME was deleted: another index has come there, and the old log is not applied to it."""
    with rowex.open(path) as index:
        index[b"old"] = b"1"
        index.checkpoint()
    path.unlink()
    with rowex.open(path) as index:
        assert len(index) == 0
        index.put(b"new", b"1", durable=True)
        assert recovered(without_power(path, folder / "off")) == {b"new": b"1"}


def test_file_without_its_log_after_the_loss_of_power_is_refused(path: Path, folder: Path) -> None:
    """What it holds is torn, and nothing else is there."""
    with rowex.open(path) as index:
        index.put(b"k", b"1", durable=True)
        off = without_power(path, folder / "off")
    shutil.rmtree(f"{off}-log")
    with other_boot(), pytest.raises(rowex.DurabilityError, match="log"):
        rowex.open(off)


def test_killed_session_goes_on_with_its_log(path: Path, folder: Path, child: Start) -> None:
    """On the same boot nothing is lost, durable or not; with the lock file lost neither."""
    for lost in (False, True):

        def write(pipe: Any, lost: bool = lost) -> None:
            mine = rowex.open(path, flush_interval=60)
            mine.put(b"durable %d" % lost, b"1", durable=True)
            mine.put(b"visible %d" % lost, b"1")
            pipe.send("written")
            signal.pause()

        process = child(write)
        process.recv()
        process.kill()
        if lost:
            Path(f"{path}-lock").unlink()
        with rowex.open(path, flush_interval=60) as index:
            assert index[b"visible %d" % lost] == b"1"
            index.put(b"later %d" % lost, b"1", durable=True)
            off = without_power(path, folder / "off")
            assert recovered(off) == dict(index.items())


@pytest.mark.parametrize("written", [0, 100, 4096])
def test_segment_that_a_killed_recovery_left_unfinished_makes_way(path: Path, folder: Path, written: int) -> None:
    """Killed between the making of a segment and its head: the next recovery would give the same name."""
    with rowex.open(path) as index:
        index.put(b"k", b"1", durable=True)
        off = without_power(path, folder / "off")
    last = segments(off)[-1]
    term, number = int(last.name[:8], 16), int(last.name[8:], 16)
    left = last.with_name(f"{term + 1:08x}{number + 1:08x}")
    left.write_bytes(last.read_bytes()[:written])  # 4096: whole, but another's
    assert recovered(off) == {b"k": b"1"}
    assert recovered(off) == {b"k": b"1"}


def test_segment_that_never_got_its_head_is_in_nobodys_way(path: Path, folder: Path) -> None:
    """Its maker died, or the power went: recovery, which would give the same name, goes on."""
    with rowex.open(path, flush_interval=60) as index:
        index.put(b"k", b"1", durable=True)
        off = without_power(path, folder / "off")
    for term in range(1, 5):
        for number in range(1, 5):
            name = Path(f"{off}-log") / f"{term << 32 | number:016x}"
            if not name.exists():
                name.write_bytes(bytes(term * 1000 * (number - 1)))
    assert recovered(off) == {b"k": b"1"}


def test_what_a_killed_maker_left_is_cleared_away(path: Path) -> None:
    """By the next to open it first; a damaged segment, which holds something, stays."""
    with rowex.open(path) as index:
        index.put(b"k", b"1", durable=True)
    log = Path(f"{path}-log")
    (log / "0000000100000000").write_bytes(b"damaged".ljust(5000, b"."))
    before = set(log.iterdir())
    (log / "0000000100000009").write_bytes(bytes(70000))
    (log / "0000000700000001").write_bytes(b"")
    with rowex.open(path) as index:
        assert index[b"k"] == b"1"
        assert set(log.iterdir()) == before


def test_segments_of_another_index_are_left_alone(path: Path, folder: Path) -> None:
    """A process of an index that was replaced may have made them: no name of theirs is given, none removed."""
    with rowex.open(folder / "other") as index:
        index.put(b"other", b"1", durable=True)
        theirs = segments(folder / "other")[-1].read_bytes()
    with rowex.open(path, flush_interval=60) as index:
        index.put(b"k", b"1", durable=True)
        off = without_power(path, folder / "off")
    names = [Path(f"{off}-log") / f"{term << 32 | number:016x}" for term in (2, 3) for number in (2, 3)]
    for name in names:
        name.write_bytes(theirs)
    assert recovered(off) == {b"k": b"1"}
    with rowex.open(off) as index:
        index.put(b"l", b"1", durable=True)
        index.checkpoint()
    assert all(name.read_bytes() == theirs for name in names)


def test_log_begun_anew_is_never_taken_for_the_one_that_is_lost(path: Path, folder: Path, child: Start) -> None:
    """Whoever dies before the file is marked leaves a newer log that holds nothing; its segment has a new name."""
    with rowex.open(path) as index:
        index[b"k"] = b"1"
    before = {segment.name for segment in segments(path)}
    shutil.rmtree(f"{path}-log")
    clean = path.read_bytes()
    with rowex.open(path, flush_interval=60) as index:
        index.put(b"l", b"2")
        off = without_power(path, folder / "off")  # nothing was written to the new segment
    assert not before & {segment.name for segment in segments(off)}
    off.write_bytes(clean)  # the mark did not reach the disk
    assert recovered(off) == {b"k": b"1"}
    with other_boot(), rowex.open(off) as index:
        index.put(b"m", b"3", durable=True)
        again = without_power(off, folder / "again")
    assert recovered(again) == {b"k": b"1", b"m": b"3"}


def test_flush_after_the_log_was_lost_makes_durable_what_can_be_seen(path: Path, folder: Path, child: Start) -> None:
    """A log is begun for it; before, nobody is told that what a killed session left is durable."""

    def write(pipe: Any) -> None:
        mine = rowex.open(path, flush_interval=600)
        mine.put(b"visible", b"1")
        pipe.send("written")
        signal.pause()

    process = child(write)
    process.recv()
    process.kill()
    Path(f"{path}-lock").unlink()
    with rowex.open(path, flush_interval=600) as index:
        with pytest.raises(TimeoutError):
            index.wait_durable(index.position, timeout=0)
        index.flush()
        index.wait_durable(index.position, timeout=0)
        assert recovered(without_power(path, folder / "off")) == {b"visible": b"1"}


def test_ticket_of_a_killed_session_whose_log_was_written_is_known(path: Path, child: Start) -> None:
    """The next to open it writes out what is left, and knows its numbers before anybody writes."""

    def write(pipe: Any) -> None:
        mine = rowex.open(path, flush_interval=600)
        pipe.send(mine.put(b"k", b"1"))
        signal.pause()

    process = child(write)
    ticket = process.recv()
    process.kill()
    with rowex.open(path, flush_interval=600) as index:
        index.wait_durable(ticket, timeout=0)
        assert index.position == ticket


@pytest.mark.parametrize("case", ["killed", "copied", "beside"])
def test_log_that_is_begun_anew_may_end_anywhere(
    variant: Path, folder: Path, case: str, long_run: bool, rng: random.Random
) -> None:
    """Killed, or without power, at any store of the first change: begin_driver.py says how."""
    step = 1 if long_run else 4
    arguments = [str(TESTS / "begin_driver.py"), str(folder), case, str(rng.randint(1, step)), str(step)]
    done = run_python(*arguments, folder=variant, timeout_s=80)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 10


@pytest.mark.parametrize("which", ["first", "second"])
def test_checkpoint_of_a_replaced_index_that_wakes_leaves_the_new_one_alone(
    variant: Path, folder: Path, which: str
) -> None:
    """Its maker stood still at any store meanwhile: replaced_driver.py says how."""
    done = run_python(str(TESTS / "replaced_driver.py"), str(folder), which, folder=variant, timeout_s=80)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 10


# ---- who writes the log -------------------------------------------------------------------------


def test_stopped_and_killed_leaders_are_replaced(
    path: Path, folder: Path, child: Start, rng: random.Random, long_run: bool
) -> None:
    """Others get their durability; when a stopped one wakes, nothing of it harms."""

    def write(pipe: Any, name: int) -> None:
        with rowex.open(path) as mine:
            pipe.send("ready")
            counter = 0
            while not pipe.poll(0):
                counter += 1
                mine.put(b"other %d" % name, b"%d" % counter, durable=True)
            pipe.recv()
            pipe.send(counter)

    with rowex.open(path, flush_interval=60) as index:
        counter = 0
        for number in range(60 if long_run else 8):
            process = child(write, number)
            process.recv()
            process.pipe.poll(rng.random() * 0.02)
            if number % 4 == 3:
                process.kill()
            else:
                process.stop()
            counter += 1
            started = time.monotonic()
            try:
                index.put(b"mine", b"%d" % counter, durable=True, timeout=8 * TIME_SCALE)
            except TimeoutError:  # it stands between claiming and publishing an entry: that may hold the log up
                assert number % 4 != 3
            else:
                assert recovered(without_power(path, folder / "off"))[b"mine"] == b"%d" % counter
            assert time.monotonic() - started < 9 * TIME_SCALE
            if number % 4 == 3:
                continue
            process.go_on()
            process.send("end")
            done = process.recv()
            process.finish()
            state = recovered(without_power(path, folder / "off"))
            assert int(state.get(b"other %d" % number, b"0")) == done
        index.check()


def test_users_who_may_write_a_file_share_its_log(
    path: Path, folder: Path, child: Start, umask: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments, what is kept for a full disk, and checkpoints, whoever made them; and what a power cut leaves."""
    umask(0)
    folder.chmod(0o777)

    def write(pipe: Any, name: bytes) -> None:
        as_somebody_else()
        with rowex.open(path) as mine:
            mine.put_many((name + b"%d" % i, bytes(100)) for i in range(20_000))
            mine.checkpoint()
            mine.put(name, b"last", durable=True)

    with rowex.open(path) as index:
        index.put_many((b"%d" % i, bytes(100)) for i in range(1000))
        child(write, b"beside").finish()
        index.put_many((b"again %d" % i, bytes(100)) for i in range(20_000))
        index.checkpoint()
    child(write, b"alone").finish()
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    with rowex.open(path) as index:
        assert len(index) == 1000 + 3 * 20_000 + 2
        index.put(b"here", b"too", durable=True)
