"""
What can be got out of a file without a log, after the loss of power: a tree of which anything may be damaged.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from salvaging import children, salvaged, target_of
from tools import Child, make_value, read_value, refusal


def put_process(pipe: Any, path: Path, items: dict[bytes, bytes], options: dict[str, Any]) -> None:
    """A file without a log, and the end."""
    index = rowex.open(path, durability="process", **options)
    index.put_many(items)
    pipe.send("left")
    os._exit(0)


@pytest.fixture
def torn(path: Path, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytearray]:
    """A file without a log, as another boot finds it; its bytes."""

    def make(items: dict[bytes, bytes], **options: Any) -> bytearray:
        writer = child(put_process, path, items, options)
        writer.recv()
        writer.wait()
        monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
        refusal(lambda: rowex.open(path), rowex.CorruptionError)
        return bytearray(path.read_bytes())

    return make


def test_file_without_a_log_gives_what_its_tree_leads_to(
    path: Path, folder: Path, torn: Callable[..., bytearray], rng: random.Random
) -> None:
    """All of it, if nothing was torn."""
    items = {rng.randbytes(rng.choice([0, 1, 2, 3, 8, 300])): make_value(b"", i, i % 3000) for i in range(3000)}
    torn(items)
    told, found = salvaged(path, target_of(folder))
    assert found == items
    assert (told.data_file, told.checkpoint, told.log) == ("doubtful", "not needed", "not needed")
    assert (told.data_file_lost, told.losses, told.complete) == (0, (), False)


def test_damaged_node_is_cut_off_and_its_items_are_orphans(
    path: Path, folder: Path, torn: Callable[..., bytearray], rng: random.Random
) -> None:
    """They are left out and counted, or with `orphans` taken; a removed key may come with them."""
    items = {rng.randbytes(4): make_value(b"", i) for i in range(5000)}
    image = torn(items)
    for at in children(image)[:2]:
        image[at + 4] ^= 1
    path.write_bytes(image)
    told, found = salvaged(path, target_of(folder))
    assert (told.data_file, told.data_file_lost, told.orphans_taken) == ("damaged", 2, False)
    assert found.items() < items.items()
    assert len(found) + told.orphans == len(items)
    told, found = salvaged(path, target_of(folder), replace=True, orphans=True)
    assert found == items
    assert told.orphans_taken
    image[8192:10304] = bytes(2112)
    path.write_bytes(image)
    told, found = salvaged(path, target_of(folder), replace=True, orphans=True)
    assert found == items
    image[0:8192] = bytes(8192)
    path.write_bytes(image)
    told, found = salvaged(path, target_of(folder), replace=True, orphans=True)
    assert found == items
    assert not told.options_known


def test_orphans_never_win_over_what_the_tree_leads_to(
    path: Path, folder: Path, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old values stay behind in the file; a removed key may come back, its old value only by `orphans`."""

    def write(pipe: Any) -> None:
        index = rowex.open(path, durability="process")
        for value in (b"first", b"second", b"third"):
            index.put_many([(b"%03d" % i, value * 5) for i in range(100)])
        for i in range(50):
            del index[b"%03d" % i]
        pipe.send("left")
        os._exit(0)

    writer = child(write)
    writer.recv()
    writer.wait()
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    there = {b"%03d" % i: b"third" * 5 for i in range(50, 100)}
    told, found = salvaged(path, target_of(folder))
    assert found == there
    told, found = salvaged(path, target_of(folder), replace=True, orphans=True)
    assert there.items() <= found.items()
    assert len(found) == 50 + told.orphans


def test_place_that_leads_to_another_keys_item_counts_as_lost(
    path: Path, folder: Path, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of different moments do that: the cell was given to another key since. An old value must not win so."""

    def write(pipe: Any) -> None:
        index = rowex.open(path, durability="process")
        index.put_many([(b"a", b"value of a"), (b"z", b"value of z"), (b"k", b"old value of k")])
        index[b"k"] = b"new value of k"
        pipe.send("left")
        os._exit(0)

    writer = child(write)
    writer.recv()
    writer.wait()
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    image = bytearray(path.read_bytes())
    cell = image.index(b"old value of k") - 1 - 8
    for key in b"az":
        struct.pack_into("<Q", image, 8192 + 24 + 8 * key, cell | 1)
    path.write_bytes(image)
    told, found = salvaged(path, target_of(folder))
    assert found == {b"k": b"new value of k"}
    assert told.data_file_lost == 2
    assert all("another key" in loss for loss in told.losses)


@pytest.mark.parametrize("seed", range(4))
def test_pages_of_different_moments_give_only_what_was_put(
    path: Path, folder: Path, child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """As the kernel leaves a mapped file: each page as it was at some moment; no value is another key's, or torn."""
    dice = random.Random(seed)

    def write(pipe: Any) -> None:
        index = rowex.open(path, durability="process", initial_size=1 << 20)
        mine = random.Random(seed)
        for number in range(20_000):
            key = b"%d" % mine.randrange(3000) * mine.randrange(1, 4)
            if mine.randrange(4):
                index[key] = make_value(key, number, mine.randrange(200))
            else:
                index.discard(key)
            if number % 4000 == 3999:
                pipe.send(number)
                pipe.recv()
        os._exit(0)

    writer = child(write)
    moments = []
    for _ in range(5):
        writer.recv()
        moments.append(path.read_bytes())
        writer.send("go on")
    writer.wait()
    monkeypatch.setenv("ROWEX_BOOT_ID", "the next")
    image = bytearray(moments[-1])
    for at in range(0, len(image), 4096):
        page = dice.choice(moments)[at : at + 4096]
        image[at : at + len(page)] = page
    path.write_bytes(image)
    for orphans in (False, True):
        _, found = salvaged(path, target_of(folder), replace=orphans, orphans=orphans)
        assert len(found) > 500
        for key, value in found.items():
            read_value(key, value)
