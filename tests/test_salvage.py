"""
What is refused, and what can be got out of it: `rowex salvage`, and who points at it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from tools import Child, refusal


def damage(file: Path, data: bytes) -> int:
    """Flip a bit in the middle of the first place where *data* stands; where that is."""
    image = bytearray(file.read_bytes())
    at = image.index(data) + len(data) // 2
    image[at] ^= 4
    file.write_bytes(image)
    return at


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
    error = refusal(lambda: rowex.open(path), rowex.CorruptionError)
    assert "checkpoint" in str(error)
    assert "checksum" in str(error)
    assert "rowex salvage" in str(error)
    assert {file: file.read_bytes() for file in before} == before
    assert {name for name in path.parent.iterdir() if not name.name.endswith("-lock")} <= names
