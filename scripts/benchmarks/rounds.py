"""
The Python part: every row of every peer, in rounds that alternate between the peers.

Rows are timed in pieces until all is done or the row's time is spent, so that slow peers do not
make the run long; a random part of random keys costs what the whole does.
"""

from __future__ import annotations

import gc
import itertools
import random
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from .peers import PEERS, Store

T = TypeVar("T")
Times = dict[str, dict[str, list[float]]]  # of each peer, of each row, by round

PIECE = 1000
ROWS = {
    "get hot": "get, one hot key",
    "get hit": "get, random, present",
    "get miss": "get, random, absent",
    "get_many": "get_many of 100, a key",
    "scan": "full scan, an item",
    "range": "range of 100, a range",
    "put": "put, a new key",
    "put_many": "put_many of 1000, a key",
    "delete": "delete, a key",
    "disk": "disk blocks, bytes a key",
}


@dataclass
class Data:
    """What all peers are given."""

    keys: list[bytes]
    probes: list[bytes]  # the keys in another order
    misses: list[bytes]
    fresh: list[bytes]  # to be put one by one


def make_data(count: int, seed: int) -> Data:
    """Random 8-byte keys; absent ones are alike."""
    dice = random.Random(seed)
    everything = list(dict.fromkeys(dice.randbytes(8) for _ in range(2 * count + count // 2 + 1000)))
    keys, misses, fresh = everything[:count], everything[count : 2 * count], everything[2 * count :][: count // 2]
    return Data(keys, dice.sample(keys, count), misses, fresh)


def timed(pieces: Iterable[tuple[int, Callable[[], object]]], budget_s: float) -> tuple[float, int]:
    """
    Run pieces of work until they or the time run out.

    Args:
        pieces: Operations in each, and how to run it.
        budget_s: Seconds after which no further piece begins.

    Returns:
        Nanoseconds an operation, and the number of operations.
    """
    spent = done = 0
    clock = time.perf_counter_ns
    for count, work in pieces:
        begin = clock()
        work()
        spent += clock() - begin
        done += count
        if spent > budget_s * 1e9:
            break
    return spent / done, done


def each(call: Callable[[bytes], object], keys: Sequence[bytes]) -> Iterable[tuple[int, Callable[[], object]]]:
    """Pieces that call it with one key after the other, from a loop as people write it."""

    def loop(part: Sequence[bytes]) -> None:
        for key in part:
            call(key)

    for at in range(0, len(keys), PIECE):
        part = keys[at : at + PIECE]
        yield len(part), partial(loop, part)


def batches(call: Callable[[list[T]], object], items: list[T], size: int) -> Iterable[tuple[int, Callable[[], object]]]:
    """Pieces that each call it once with so many items."""
    for at in range(0, len(items), size):
        part = items[at : at + size]
        yield len(part), partial(call, part)


def scanning(items: Iterable[object], count: int) -> Iterable[tuple[int, Callable[[], object]]]:
    """Pieces that take the next items of one scan."""
    rest = iter(items)

    def take(size: int) -> None:
        deque(itertools.islice(rest, size), maxlen=0)

    for at in range(0, count, 10 * PIECE):
        size = min(10 * PIECE, count - at)
        yield size, partial(take, size)


def disk_bytes(folder: Path) -> int:
    """Allocated blocks of all files below."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def verify(store: Store, data: Data) -> None:
    """That the adapter finds what it stored, or the times mean nothing."""
    for key in data.probes[:100]:
        if store.get(key) != key:
            raise AssertionError("a stored value was not found")
    if any(store.get(key) is not None for key in data.misses[:100]):
        raise AssertionError("an absent key was found")


def measure_reads(store: Store, data: Data, budget_s: float) -> dict[str, float]:
    """The rows that change nothing."""
    hot = [data.probes[len(data.probes) // 2]] * len(data.probes)
    row = {
        "get hot": timed(each(store.get, hot), budget_s)[0],
        "get hit": timed(each(store.get, data.probes), budget_s)[0],
        "get miss": timed(each(store.get, data.misses), budget_s)[0],
    }
    if store.get_many:
        row["get_many"] = timed(batches(store.get_many, data.probes, 100), budget_s)[0]
    if store.scan:
        row["scan"] = timed(scanning(store.scan(), len(data.keys)), budget_s)[0]
    if store.range_of:
        take = store.range_of
        row["range"] = timed(each(lambda key: take(key, 100), data.probes), budget_s)[0]
    return row


def one_round(open_: Callable[[Path], Store], folder: Path, data: Data, budget_s: float) -> dict[str, float]:
    """
    All rows of one peer, on a new store.

    Args:
        open_: Opens it.
        folder: Empty, for its files.
        data: Keys.
        budget_s: Seconds for each row but put_many.

    Returns:
        Nanoseconds by row, for those that it has; and bytes.

    Raises:
        ImportError: It is not there.
    """
    store, row = open_(folder), {}
    try:
        pairs = list(zip(data.keys, data.keys, strict=True))
        row["put_many"] = timed(batches(store.put_many, pairs, 1000), float("inf"))[0]
        if size := disk_bytes(folder):
            row["disk"] = size / len(data.keys)
        store.loaded()
        verify(store, data)
        row |= measure_reads(store, data, budget_s)
        if store.put and store.delete:
            put = store.put
            row["put"], done = timed(each(lambda key: put(key, key), data.fresh), budget_s)
            row["delete"] = timed(each(store.delete, data.fresh[:done]), budget_s)[0]
    finally:
        store.close()
    return row


def measure(data: Data, folder: Path, repeats: int, budget_s: float, names: Sequence[str]) -> Times:
    """
    Every peer that imports, in turn, so many times.

    Args:
        data: Keys.
        folder: Where the files lie.
        repeats: Rounds, at least 1; 3 and more make a median.
        budget_s: Seconds for each row of each round.
        names: Of the peers; what does not import is named on stderr and left out.

    Returns:
        Nanoseconds of every round, by peer and row.
    """
    times: Times = {name: {} for name in names}
    for number in range(repeats):
        for name in list(times):
            room = folder / f"{name}-{number}".replace(" ", "-")
            room.mkdir()
            gc.collect()
            gc.disable()
            try:
                for row, value in one_round(PEERS[name], room, data, budget_s).items():
                    times[name].setdefault(row, []).append(value)
            except ImportError as error:
                print(f"{name}: left out ({error})", file=sys.stderr)
                del times[name]
            finally:
                gc.enable()
                shutil.rmtree(room)
    return times
