"""
Changes that never wait, on both doors: the ticket, or None with nothing changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from rowex import _slow
from rowex._native import ffi
from test_stopped import NODE, stopped_holder
from tools import Child

Start = Callable[..., Child]


class SlowDoor(_slow.Door):
    """The calls over cffi, on the handle of another index."""

    def __init__(self, index: Any) -> None:
        super().__init__(int(ffi.cast("uintptr_t", index._rx)), 0, index._readonly)


@pytest.fixture(params=["the index's", "slow"])
def door(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """The door of an index, or one over cffi."""
    return SlowDoor if request.param == "slow" else lambda index: index


def test_changes_at_once_give_tickets(index: Any, door: Callable[[Any], Any]) -> None:
    """As put(), insert() and remove(), errors included."""
    tried = door(index)
    index[b"first"] = b""  # the session's first write has to wait for the mark
    first = tried._try_put(b"a", bytearray(b"1"))
    assert index.position == first
    assert tried._try_insert(bytearray(b"b"), b"2") > first
    assert index.get_many([b"a", b"b"]) == [b"1", b"2"]
    with pytest.raises(rowex.DuplicateKeyError) as caught:
        tried._try_insert(b"a", b"3")
    assert caught.value.key == b"a"
    assert tried._try_remove(b"a") == index.position
    with pytest.raises(KeyError) as absent:
        tried._try_remove(b"a")
    assert absent.value.args == (b"a",)
    for call in (lambda: tried._try_put("a", b""), lambda: tried._try_put(b"a", 1), lambda: tried._try_remove("a")):
        with pytest.raises(TypeError):
            call()


def test_first_write_of_a_session_is_refused_at_once(index: Any, door: Callable[[Any], Any]) -> None:
    """It would have to sync the file; None, and nothing was changed."""
    tried = door(index)
    assert tried._try_put(b"a", b"1") is None
    assert tried._try_insert(b"a", b"1") is None
    assert (b"a" in index, len(index)) == (False, 0)


def test_held_node_is_refused_at_once(
    path: Path, child: Start, rng: random.Random, index: Any, door: Callable[[Any], Any]
) -> None:
    """Beside a stopped writer: None, again and again, and nothing was changed."""
    process = stopped_holder(path, index, child, rng)
    before, tried = index[NODE[2]], door(index)
    for _ in range(100):
        assert tried._try_put(NODE[2], b"x") is None
        assert tried._try_remove(NODE[2]) is None
    assert index[NODE[2]] == before
    process.go_on()
    process.send("end")
    process.finish()
    assert tried._try_put(NODE[2], b"x") == index.position


def test_closed_and_readonly_are_errors_not_waits(path: Path, opened: Callable[..., Any]) -> None:
    """Never None for what will not change by waiting."""
    opened(path)[b"a"] = b"1"
    reading, closed = opened(path, "r"), opened(path)
    closed.close()
    for call in (lambda i: i._try_put(b"a", b""), lambda i: i._try_insert(b"b", b""), lambda i: i._try_remove(b"a")):
        with pytest.raises(rowex.ReadOnlyError):
            call(reading)
        with pytest.raises(rowex.ReadOnlyError):
            call(SlowDoor(reading))
        with pytest.raises(rowex.ClosedError):
            call(closed)
