"""
Salvage and opening where a part is missing, older, or another index's: what is left is got out, what belongs to
another is not, and what cannot be opened says which part does not fit.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from power import segments
from rowex.cli.recover import explain
from salvaging import salvaged, target_of
from tools import Child, refusal

Start = Callable[..., Child]


def fill_segments(index: rowex.Index, name: bytes) -> dict[bytes, bytes]:
    """Values of which each takes a large part of a segment; all durable."""
    items = {name + b" %d" % i: b"%d" % i * 60_000 for i in range(6)}
    for key, value in items.items():
        index.put(key, value, durable=True)
    return items


def test_log_whose_checkpoint_is_gone_gives_what_it_has(
    path: Path, folder: Path, child: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening refuses, for what was before is lost; salvage tells of it, and of nothing that is in the log none."""

    def leave(pipe: Any) -> None:
        index = rowex.open(path, flush_interval=60)
        fill_segments(index, b"before")
        index.checkpoint()
        pipe.send(fill_segments(index, b"after"))
        os._exit(0)

    writer = child(leave)
    after = writer.recv()
    writer.finish()
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    path.with_name(path.name + "-checkpoint").unlink()
    told = explain(path)
    assert told.opening == "refuse"
    assert "its log begins after the first change" in (told.why or "")
    assert "rowex salvage" in str(refusal(lambda: rowex.open(path), rowex.DurabilityError, rowex.CorruptionError))
    result, found = salvaged(path, target_of(folder))
    assert {key: found[key] for key in after} == after
    assert result.log_gaps == 1
    assert any("what was before is gone" in loss for loss in result.losses)


def test_log_of_an_earlier_session_is_refused(path: Path) -> None:
    """An old copy of the log beside a newer file: neither is taken for the other's."""
    log, kept = path.with_name(path.name + "-log"), path.with_name("kept")
    with rowex.open(path) as index:
        index.put(b"k", b"1", durable=True)
    shutil.copytree(log, kept)
    with rowex.open(path) as index:
        items = fill_segments(index, b"later")
    assert len(segments(path)) >= 1
    newer = path.with_name("newer")
    log.rename(newer)
    kept.rename(log)
    assert "its log is older" in str(refusal(lambda: rowex.open(path), rowex.DurabilityError))
    shutil.rmtree(log)
    newer.rename(log)
    with rowex.open(path) as index:
        assert dict(index.items()) == {b"k": b"1", **items}


def test_checkpoint_of_another_index_is_not_salvaged(path: Path, folder: Path) -> None:
    """Its UUID says whose it is: no key of it gets into what is got out."""
    other = folder / "other.rowex"
    for each, name in ((path, b"mine"), (other, b"theirs")):
        with rowex.open(each) as index:
            items = fill_segments(index, name)
            index.checkpoint()
    shutil.copy(f"{other}-checkpoint", f"{path}-checkpoint")
    _, found = salvaged(path, target_of(folder))
    assert found == {key.replace(b"theirs", b"mine"): value for key, value in items.items()}
