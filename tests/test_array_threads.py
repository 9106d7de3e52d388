"""
Arrays shared by several threads, and Ctrl-C.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import cannot_run
from rowex import arrays
from test_interrupt import interrupt, soon
from tools import Child

np = pytest.importorskip("numpy")

Start = Callable[..., Child]


@pytest.fixture
def cores() -> int:
    """How many this process may use; at least two."""
    count = len(os.sched_getaffinity(0))
    if count < 2:
        cannot_run("there is one core")
    return count


@pytest.mark.parametrize("shape", ["ascending", "shuffled", "repeated"])
def test_several_threads_do_what_one_does(index: Any, cores: int, monkeypatch: Any, shape: str) -> None:
    """Of equal keys the last value counts; the helpers give their uids back."""
    monkeypatch.setattr(arrays, "SHARE_ITEMS", 1000)
    monkeypatch.setattr(arrays, "PUT_ITEMS", 100)
    monkeypatch.setattr(arrays, "GET_ITEMS", 100)
    helpers: list[threading.Thread] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (helpers.append(self), start(self))[1])
    rng = np.random.default_rng(1)
    keys = np.arange(20000)
    if shape != "ascending":
        rng.shuffle(keys)
    if shape == "repeated":
        keys %= 700
    values = rng.integers(0, 2**60, len(keys))
    index.put_many(keys, values)
    assert helpers
    expected = dict(zip(keys.tolist(), values.tolist(), strict=True))
    got, found = index.get_many(keys, dtype="i8")
    assert (found.all(), got.tolist()) == (True, [expected[key] for key in keys.tolist()])
    assert len(index) == len(expected)
    assert not any(helper.is_alive() for helper in helpers)
    index.check()


def test_an_error_in_any_thread_ends_the_call(
    path: Path, opened: Callable[..., Any], cores: int, monkeypatch: Any
) -> None:
    """It is raised once, in the caller."""
    monkeypatch.setattr(arrays, "SHARE_ITEMS", 1000)
    monkeypatch.setattr(arrays, "GET_ITEMS", 50)
    index = opened(path, keys="int", values="int")
    keys = np.arange(20000)
    index.put_many(keys, keys)
    index[19999] = 2**70
    for _ in range(10):
        with pytest.raises(ValueError, match="item 19999 "):
            index.get_many(keys, dtype="i8")
    assert index.get_many(keys[:-1], dtype="i8")[0].tolist() == keys[:-1].tolist()


@pytest.mark.parametrize("what", ["get", "put", "scan"])
def test_calls_on_arrays_are_interrupted_soon(path: Path, child: Start, opened: Callable[..., Any], what: str) -> None:
    """With as many threads as there are cores."""
    index = opened(path)
    keys = np.random.default_rng(1).permutation(1_500_000)
    if what != "put":
        index.put_many(keys[:300_000], keys[:300_000])

    def call(mine: Any) -> None:
        while True:
            if what == "get":
                mine.get_many(keys, dtype="i8")
            elif what == "put":
                mine.put_many(keys, keys)
            else:
                for _ in mine.scan_batches(keys="i8"):
                    pass

    interrupt(child, path, call, soon, lambda: None)
    index.check()
