"""
What is refused, and what can be got out of it: `rowex salvage`, and who points at it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from commands import do, start
from power import segments
from rowex.cli.recover import explain
from salvaging import children, damage, salvaged, target_of
from tools import Child, eventually, make_value, refusal, reseal


def leave(pipe: Any, path: Path, options: dict[str, Any]) -> None:
    """A checkpoint with 500 keys, 100 changes behind it, and the end."""
    index = rowex.open(path, **options)
    index.put_many([(b"%05d" % i, b"value %d" % i) for i in range(500)])
    index.checkpoint()
    for i in range(450, 550):
        index.put(b"%05d" % i, b"later %d" % i)
    index.flush()
    pipe.send("left")
    os._exit(0)


@pytest.fixture
def left(path: Path, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """An index with a checkpoint and a log, as another boot finds it."""

    def make(**options: Any) -> None:
        writer = child(leave, path, options)
        writer.recv()
        writer.wait()
        monkeypatch.setenv("ROWEX_BOOT_ID", "the next")

    return make


def model() -> dict[bytes, bytes]:
    """What `left` holds."""
    return {b"%05d" % i: b"later %d" % i if i >= 450 else b"value %d" % i for i in range(550)}


# ---- refused, and by whom ------------------------------------------------------------------------


def test_recovery_refuses_a_damaged_value_in_the_checkpoint(path: Path, left: Callable[..., None]) -> None:
    """Its checksum is compared before it becomes the index; nothing is changed."""
    left()
    checkpoint = path.with_name(path.name + "-checkpoint")
    damage(checkpoint, b"value 123")
    names = set(path.parent.iterdir())
    before = {file: file.read_bytes() for file in (path, checkpoint)}
    told = explain(path)
    assert (told.opening, told.checkpoint) == ("refuse", "damaged")
    assert "checksum" in (told.why or "")
    error = refusal(lambda: rowex.open(path), rowex.CorruptionError)
    assert "checkpoint" in str(error)
    assert "checksum" in str(error)
    assert "rowex salvage" in str(error)
    assert {file: file.read_bytes() for file in before} == before
    assert {name for name in path.parent.iterdir() if not name.name.endswith("-lock")} <= names


# ---- got out: what a checkpoint and a log hold ------------------------------------------------------


def test_whole_checkpoint_and_log_give_everything(path: Path, folder: Path, left: Callable[..., None]) -> None:
    """The data file is not needed then; it may be missing, cut, or anything."""
    left()
    whole = path.read_bytes()
    for number, content in enumerate([whole, None, b"", whole[:100], whole[:70_000], bytes(len(whole)), b"x" * 10_000]):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        told, found = salvaged(path, target_of(folder), replace=number > 0)
        assert found == model()
        assert (told.checkpoint, told.log, told.complete) == ("whole", "whole", True)
        assert told.data_file == ("missing" if content is None else "not needed")
        assert (told.checkpoint_items, told.log_entries, told.options_known) == (500, 100, True)
        assert (told.log_gaps, told.checkpoint_lost, told.orphans) == (0, 0, 0)


def test_damaged_value_of_the_checkpoint_costs_that_key_at_most(
    path: Path, folder: Path, left: Callable[..., None]
) -> None:
    """The data file still has it, as long as there is one; the loss is named."""
    left()
    damage(Path(f"{path}-checkpoint"), b"value 123")
    told, found = salvaged(path, target_of(folder))
    assert found == model()
    assert (told.data_file, told.checkpoint, told.log) == ("doubtful", "damaged", "whole")
    assert told.checkpoint_lost == 1
    assert not told.complete
    path.unlink()
    told, found = salvaged(path, target_of(folder), replace=True)
    assert found == {key: value for key, value in model().items() if key != b"00123"}
    assert told.data_file == "missing"
    (loss,) = told.losses
    assert "checkpoint" in loss
    assert "checksum" in loss


def one_by_one(pipe: Any, path: Path) -> None:
    """A checkpoint with 100 keys, 100 frames behind it, and the end."""
    index = rowex.open(path)
    index.put_many([(b"%05d" % i, b"old %d" % i) for i in range(100)])
    index.checkpoint()
    for i in range(50, 150):
        index.put(b"%05d" % i, b"new %d" % i, durable=True)
    pipe.send("left")
    os._exit(0)


def test_damaged_frame_costs_its_changes_and_no_more(
    path: Path, folder: Path, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is before it and behind it is applied in order; what is lost is told."""
    writer = child(one_by_one, path)
    writer.recv()
    writer.wait()
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    expected = {b"%05d" % i: b"old %d" % i if i < 50 else b"new %d" % i for i in range(150)}
    for key in (b"new 70", b"new 120"):
        for file in segments(path):
            if key in file.read_bytes():
                damage(file, key)
    refusal(lambda: rowex.open(path), rowex.CorruptionError)
    told, found = salvaged(path, target_of(folder))
    assert (told.log, told.log_gaps, told.log_entries, told.data_file) == ("damaged", 2, 98, "doubtful")
    assert found.pop(b"00070") in (b"old 70", b"new 70")
    assert found == {key: value for key, value in expected.items() if key != b"00070"}
    path.unlink()
    told, found = salvaged(path, target_of(folder), replace=True)
    assert (told.log, told.data_file, len(told.losses)) == ("damaged", "missing", 2)
    assert found == {key: value for key, value in expected.items() if key != b"00120"} | {b"00070": b"old 70"}
    assert told.log_lost_bytes > 0


def test_lost_log_or_checkpoint_leaves_the_others(path: Path, folder: Path, left: Callable[..., None]) -> None:
    """With the data file; and of the log alone, what it holds, as bytes."""
    left()
    copy = folder / "copy"
    shutil.copytree(path.parent, copy, ignore=shutil.ignore_patterns("out", "copy"))
    shutil.rmtree(f"{path}-log")
    told, found = salvaged(path, target_of(folder))
    assert (told.checkpoint, told.log, told.data_file) == ("whole", "missing", "doubtful")
    assert found.keys() == model().keys()
    path.unlink()
    told, found = salvaged(path, target_of(folder), replace=True)
    assert found == {b"%05d" % i: b"value %d" % i for i in range(500)}
    path = copy / path.name
    Path(f"{path}-checkpoint").unlink()
    told, found = salvaged(path, target_of(folder), replace=True)
    assert found == model()  # it begins with the first change, still
    assert (told.data_file, told.checkpoint, told.log) == ("not needed", "missing", "whole")
    path.unlink()
    told, found = salvaged(path, target_of(folder), replace=True)
    assert found == model()
    assert not told.options_known


def test_options_of_the_source_are_kept(path: Path, folder: Path, left: Callable[..., None]) -> None:
    """Codecs, level and checksums, also where only the checkpoint tells them; others can be asked for."""
    with rowex.open(path, keys="int", values="str", durability="commit") as index:
        index[5] = "five"
        index.checkpoint()
    path.unlink()
    rowex.salvage(path, target_of(folder))
    with rowex.open(target_of(folder)) as index:
        assert dict(index.items()) == {5: "five"}
        told = index.raw.info()
        assert (told.keys_codec, told.values_codec, told.durability, told.checksum) == ("int", "str", "commit", True)
    rowex.salvage(path, target_of(folder), replace=True, durability="process", checksum=False)
    with rowex.open(target_of(folder), "r") as index:
        told = index.raw.info()
        assert (told.durability, told.checksum) == ("process", False)


def test_clean_file_with_a_damaged_node_is_filled_up_from_checkpoint_and_log(
    path: Path, folder: Path, rng: random.Random
) -> None:
    """It wins over them where it is sound."""
    expected = {rng.randbytes(4): make_value(b"", i) for i in range(5000)}
    with rowex.open(path) as index:
        index.put_many(expected)
        index.checkpoint()
    image = bytearray(path.read_bytes())
    for at in children(image)[:3]:
        image[at + 4] ^= 1
    path.write_bytes(image)
    told, found = salvaged(path, target_of(folder))
    assert found == expected
    assert (told.data_file, told.data_file_lost, told.checkpoint, told.log) == ("damaged", 3, "whole", "whole")


def test_damaged_file_in_use_on_this_boot_is_filled_up(path: Path, folder: Path, child: Callable[..., Child]) -> None:
    """Its writer was killed, what it holds is the newest; what is lost of it is in checkpoint and log."""
    writer = child(leave, path, {})
    writer.recv()
    writer.wait()
    image = bytearray(path.read_bytes())
    (place,) = children(image)
    image[place + 4] ^= 1
    with path.open("r+b") as stream:  # the same inode
        stream.write(image)
    refusal(lambda: rowex.open(path), rowex.CorruptionError)
    told, found = salvaged(path, target_of(folder))
    assert found == model()
    assert (told.data_file, told.data_file_items, told.checkpoint, told.log) == ("damaged", 0, "whole", "whole")


def test_interrupted_salvage_leaves_nothing(path: Path, folder: Path) -> None:
    """Ctrl-C, as soon as there is something to leave."""
    with rowex.open(path, durability="process", initial_size=64 << 20) as index:
        index.put_many((b"%08d" % i, b"value") for i in range(2_000_000))  # seconds, so that it is still at it
    target = target_of(folder)
    process = start("salvage", path, target, cwd=target.parent)
    eventually(lambda: list(target.parent.glob("*-salvage-*")) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"rowex: interrupted\n")
    assert list(target.parent.iterdir()) == []


# ---- refused, and the command --------------------------------------------------------------------------


def test_salvage_leaves_alone_what_it_should(path: Path, folder: Path, left: Callable[..., None]) -> None:
    """An index in use, a target that is there, the source itself, another's file, nothing."""
    target = target_of(folder)
    with rowex.open(path) as index:
        index[b"k"] = b"v"
        assert "backup" in str(refusal(lambda: rowex.salvage(path, target), rowex.RowexError))
    target.write_bytes(b"precious")
    refusal(lambda: rowex.salvage(path, target), FileExistsError)
    assert target.read_bytes() == b"precious"
    for replace in (False, True):
        refusal(lambda replace=replace: rowex.salvage(path, path, replace=replace), ValueError, FileExistsError)
    refusal(lambda: rowex.salvage(folder / "none", folder / "out" / "other"), FileNotFoundError)
    text = folder / "text"
    text.write_bytes(b"text\n" * 10_000)
    refusal(lambda: rowex.salvage(text, folder / "out" / "other"), rowex.FormatError)
    image = bytearray(path.read_bytes())
    struct.pack_into("<I", image, 8, 9)
    reseal(image)
    path.write_bytes(image)
    assert "version 9" in str(refusal(lambda: rowex.salvage(path, folder / "out" / "other"), rowex.FormatError))
    assert sorted(entry.name for entry in target.parent.iterdir()) == ["new.rowex"]


def test_salvage_passes_over_a_checkpoint_of_another_version_and_index(path: Path, folder: Path) -> None:
    """A file that took the name since is not refused for what the one before it left."""
    checkpoint = path.with_name(path.name + "-checkpoint")
    with rowex.open(path) as index:
        index[b"old"] = b"1"
        index.checkpoint()
    image = bytearray(checkpoint.read_bytes())
    path.unlink()
    with rowex.open(path, durability="process") as index:
        index[b"new"] = b"2"
    struct.pack_into("<I", image, 8, 9)
    reseal(image)
    checkpoint.write_bytes(image)
    (folder / "out").mkdir(exist_ok=True)
    rowex.salvage(path, folder / "out" / "other")
    with rowex.open(folder / "out" / "other", "r") as index:
        assert dict(index.items()) == {b"new": b"2"}


def test_command_tells_what_was_kept_and_lost(path: Path, folder: Path, left: Callable[..., None]) -> None:
    """In words and as JSON; the exit status is 1 where something was lost."""
    left()
    done = do("salvage", path, target_of(folder))
    assert done.exit_code == 0, done.stderr
    assert "550 key(s)" in done.stdout
    damage(Path(f"{path}-checkpoint"), b"value 77")
    path.unlink()
    done = do("salvage", "--replace", path, target_of(folder))
    assert done.exit_code == 1
    assert "549 key(s)" in done.stdout
    assert "the checkpoint, at" in done.stderr
    done = do("salvage", "--json", "--replace", "--all", path, target_of(folder))
    told = json.loads(done.stdout)
    assert (told["keys"], told["complete"], told["checkpoint_lost"], len(told["losses"])) == (549, False, 1, 1)
    assert do("salvage", path, target_of(folder)).exit_code == 3
    assert do("salvage", path, folder / "out" / "sub" / "x").exit_code == 3
