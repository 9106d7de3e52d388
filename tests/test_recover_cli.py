"""
After the loss of power: what `rowex recover` tells and does, what `rowex salvage` gets out.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from commands import do
from rowex.cli.recover import Explained, explain
from tools import Child, assert_same, refusal

TIMES = float(os.environ.get("ROWEX_TIME_SCALE", "1"))
SEGMENT_HEAD = 4096


def leave_open(pipe: Any, path: Path, first: int, count: int, options: dict[str, Any]) -> None:
    """Put some keys, each durable before the next, and wait to be killed."""
    index = rowex.open(path, **options)
    for i in range(first, first + count):
        ticket = index.put(b"%05d" % i, b"value %d" % i)
        if options.get("durability") != "process":
            index.wait_durable(ticket)
    pipe.send(ticket)
    pipe.recv()


@pytest.fixture
def unclosed(path: Path, child: Callable[..., Child]) -> Callable[..., int]:
    """Have a process write keys and die; the last ticket."""

    def make(first: int = 0, count: int = 100, **options: Any) -> int:
        writer = child(leave_open, path, first, count, options)
        ticket = int(writer.recv())
        writer.kill()
        return ticket

    return make


def model(count: int) -> dict[bytes, bytes]:
    """What the first *count* puts have made."""
    return {b"%05d" % i: b"value %d" % i for i in range(count)}


def bytes_of(path: Path) -> dict[str, bytes]:
    """Every file of an index, but for NAME-lock."""
    found = [entry for entry in path.parent.rglob("*") if entry.is_file() and not entry.name.endswith("-lock")]
    return {str(entry): entry.read_bytes() for entry in found}


def explained(path: Path) -> Explained:
    """What is told, having looked that telling it changed nothing, and that the command says the same."""
    names = set(path.parent.rglob("*"))
    before = bytes_of(path)
    told = explain(path)
    done = do("recover", "--explain", "--json", path)
    assert done.exit_code == (1 if told.opening == "refuse" else 0)
    said = json.loads(done.stdout)
    assert {name: value for name, value in said.items() if name != "uuid"} == {
        name: getattr(told, name) for name in said if name != "uuid"
    }
    words = {
        "use": "uses it",
        "scan": "uses it, brings",
        "join": "joins",
        "recover": "recovers",
        "refuse": "is refused: ",
    }
    assert f"opening it  {words[told.opening]}" in do("recover", "--explain", path).stdout
    assert bytes_of(path) == before
    assert set(path.parent.rglob("*")) == names
    return told


def segments(path: Path) -> list[Path]:
    """The files of the log, in order."""
    return sorted(entry for entry in path.with_name(path.name + "-log").iterdir() if entry.name != "spare")


def damage(file: Path, offset: int) -> None:
    """Flip the bits of a byte."""
    with file.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ 0xFF]))


# ---- recover -------------------------------------------------------------------------------------


def test_explain_of_a_clean_file(path: Path) -> None:
    """It is used as it is."""
    with rowex.open(path) as index:
        index.update(model(10))
        last = index.position
        index.flush()  # or the log is written while it is looked at
        told = explained(path)
        assert (told.opening, told.open_now) == ("join", True)
    told = explained(path)
    assert (told.opening, told.state, told.keys, told.position, told.log_end) == ("use", "clean", 10, last, "clean")
    assert not told.open_now
    assert "needed no recovery" in do("recover", path).stderr


def test_explain_of_a_file_that_nobody_closed_on_this_boot(path: Path, unclosed: Callable[..., int]) -> None:
    """What is in memory is the truth: it is scanned."""
    unclosed()
    told = explained(path)
    assert (told.opening, told.state, told.unwritten_entries) == ("scan", "in use, on this boot", 0)
    path.with_name(path.name + "-lock").unlink()
    assert explained(path).unwritten_entries is None
    assert do("recover", path).exit_code == 0
    with rowex.open(path) as index:
        assert_same(index, model(100))


def test_recover_tells_before_and_does(
    path: Path, unclosed: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it would do, it does: the checkpoint, then the log."""
    with rowex.open(path) as index:
        index.update(model(50))
        index.checkpoint()
        at = index.position
    ticket = unclosed(50, 70)
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    told = explained(path)
    assert (told.opening, told.state, told.checkpoint) == ("recover", "in use, on another boot", "whole")
    assert (told.checkpoint_ticket, told.checkpoint_keys) == (at, 50)
    assert (told.log_from, told.log_upto, told.log_entries, told.log_end) == (at, ticket, 70, "clean")
    done = do("recover", "--json", path)
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["recovered"], said["entries"], said["keys"]) == (True, 70, 120)
    assert said["before"]["log_upto"] == ticket
    assert explained(path).opening == "use"
    assert "needed no recovery" in do("recover", path).stderr
    with rowex.open(path) as index:
        assert_same(index, model(120))


def test_recover_from_the_log_alone_in_words(
    path: Path, unclosed: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a checkpoint all is in the log."""
    unclosed(0, 30)
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    assert explained(path).checkpoint == "none"
    done = do("recover", "--explain", path)
    assert "an empty index and then 30 change(s)" in done.stdout
    done = do("recover", path)
    assert done.exit_code == 0
    assert "30 change(s) of the log replayed, 30 key(s)" in done.stderr
    with rowex.open(path) as index:
        assert_same(index, model(30))


def test_torn_tail_is_told_and_dropped(
    path: Path, unclosed: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes behind the last whole frame that were never durable are no damage."""
    ticket = unclosed(0, 20)
    end = explain(path).log_bytes
    assert end is not None
    with segments(path)[-1].open("r+b") as stream:
        stream.seek(SEGMENT_HEAD + end)
        stream.write(b"\x77" * 900)
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    told = explained(path)
    assert (told.opening, told.log_end, told.log_upto) == ("recover", "torn", ticket)
    assert do("recover", path).exit_code == 0
    with rowex.open(path) as index:
        assert_same(index, model(20))


def test_damage_below_the_durable_point_is_refused_and_told(
    path: Path, unclosed: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which tickets are lost, at least, and where; nothing is changed by the refusal."""
    ticket = unclosed(0, 200)
    damage(segments(path)[0], SEGMENT_HEAD + 20)
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    told = explained(path)
    assert (told.opening, told.log_end, told.log_entries, told.damaged_byte) == ("refuse", "damaged", 0, 0)
    assert told.lost_from == (1 << 44) + 1
    assert told.lost_from < (told.lost_upto or 0) <= ticket
    assert told.readable_entries_behind == 199
    before = bytes_of(path)
    done = do("recover", path)
    assert done.exit_code == 3
    assert "durable" in done.stderr
    assert bytes_of(path) == before
    refusal(lambda: rowex.open(path), rowex.CorruptionError)


def test_damage_in_a_large_segment_is_judged_quickly(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is behind a place that is not whole is looked through by window, not by word."""
    with rowex.open(path, durability="batch", initial_size=300 << 20) as index:
        value = bytes(range(256)) * 400
        for i in range(300):
            index.wait_durable(index.put(b"%05d" % i, value))
        assert len(segments(path)) <= 2
        told = explain(path)
        assert told.log_entries == 300
        shutil.copytree(path.parent, path.parent / "copy", ignore=shutil.ignore_patterns("copy"))
    copy = path.parent / "copy" / path.name
    assert segments(copy)[0].stat().st_size > 20 << 20
    damage(segments(copy)[0], SEGMENT_HEAD + 20)
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    started = time.monotonic()
    told = explain(copy)
    seconds = time.monotonic() - started
    assert told.log_end == "damaged"
    assert seconds < 5 * TIMES, f"{seconds:.1f} s"


def test_lost_log_and_damaged_checkpoint_are_refused(
    path: Path, unclosed: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is named, and what to do."""
    with rowex.open(path) as index:
        index.update(model(10))
        index.checkpoint()
    unclosed(10, 10)
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    checkpoint = path.with_name(path.name + "-checkpoint")
    whole = checkpoint.read_bytes()
    damage(checkpoint, 306)
    told = explained(path)
    assert (told.opening, told.checkpoint) == ("refuse", "damaged")
    checkpoint.write_bytes(whole)
    assert explained(path).opening == "recover"
    shutil.move(path.with_name(path.name + "-log"), path.with_name("elsewhere"))
    told = explained(path)
    assert (told.opening, told.log_segments) == ("refuse", None)
    assert "log is gone" in (told.why or "")
    assert "rowex salvage" in do("recover", "--explain", path).stdout
    assert do("recover", path).exit_code == 3


def test_explain_of_what_cannot_be_opened(
    path: Path, unclosed: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without a log after the loss of power, a damaged superblock, another file, none."""
    unclosed(0, 10, durability="process")
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    told = explained(path)
    assert (told.opening, told.state, told.log_segments) == ("refuse", "in use, on another boot", None)
    damage(path, 100)
    told = explained(path)
    assert (told.opening, told.state, told.uuid) == ("refuse", "unreadable", None)
    path.with_name("text").write_bytes(b"text")
    assert explain(path.with_name("text")).opening == "refuse"
    assert do("recover", "--explain", path.with_name("none")).exit_code == 3
    refusal(lambda: explain(path.with_name("none")), FileNotFoundError)
