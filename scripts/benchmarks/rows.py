"""
The rows of one peer over one workload, measured in a process of its own.

Rows are timed in pieces until all is done or the row's time is spent, so that slow peers do not
make the run long; a random part of random keys costs what the whole does.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from . import crowd
from .peers import BUILDERS, PEERS, Store
from .quiet import quiet, touch
from .workloads import YCSB, Data, requests

T = TypeVar("T")

PIECE = 1000
SHARED = 131_072  # keys of an array for which rowex uses more than one thread
ROWS = {
    "get hot": "get, one hot key",
    "get hit": "get, random, present",
    "get made": "get, keys made for each call",
    "get miss": "get, random, absent",
    "get_many": "get_many of 100, a key",
    "get_many 1000": "get_many of 1000, a key",
    "get_columns": "get_many of an array, on one core, a key",
    "get_columns two": "get_many of an array, on two cores, a key",
    "scan": "full scan, an item",
    "range": "range of 100, a range",
    "prefix": "items with a prefix, an item",
    "put": "put, a new key",
    "put_many": "load in random order, put_many of 1000, a key",
    "load sorted": "load in key order, put_many of 1000, a key",
    "bulk sorted": "load in key order at once, a key",
    "append": "load in key order behind what is there, a key",
    "put_columns": "load of sorted arrays, on one core, a key",
    "delete": "delete, a key",
    "open": "open to the first get",
    "disk": "disk blocks, bytes a key",
    "compacted": "disk blocks after compacting, bytes a key",
    "memory": "peak memory, mapped pages included, bytes a key",
    "threads get_many": "get_many of 1000 by two threads, a key",
    "process get": "get, random, by a process that has opened it, a key",
    "processes get": "get, random, by two processes, a key",
    "processes put": "put over what is there, random, by two processes, a key",
    "beside get": "get, random, while another process puts",
    "beside put": "put, while another process gets",
    "stall get": "longest get while another process loads",
    "stall put": "longest put of that load",
    **{f"ycsb {letter}": f"YCSB {letter}, an operation" for letter in YCSB},
}


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


def each(call: Callable[[T], object], keys: Sequence[T]) -> Iterable[tuple[int, Callable[[], object]]]:
    """Pieces that call it with one key after the other, from a loop as people write it."""

    def loop(part: Sequence[T]) -> None:
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


def memory(what: str) -> int:
    """Bytes that this process has in memory (VmRSS), or had at most (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next((line for line in status.splitlines() if line.startswith(what)), "0 0 kB")
    return int(line.split()[1]) * 1024


class Unit:
    """One peer, one workload: the data as the peer wants it, and what is measured."""

    def __init__(self, name: str, folder: Path, data: Data, budget_s: float) -> None:
        """
        Prepare.

        Args:
            name: Of the peer.
            folder: Empty, for its files.
            data: Keys and values.
            budget_s: Seconds for each row but the loads.
        """
        self.open, self.build = PEERS[name], BUILDERS.get(name)
        self.folder, self.data, self.budget = folder, data, budget_s
        self.row: dict[str, float] = {}
        probe = self.open(self._room("probe"))
        self.key: Callable[[bytes], Any] = probe.key or bytes
        probe.close()

    def _room(self, name: str) -> Path:
        room = self.folder / name
        room.mkdir()
        return room

    def _room_of_one(self) -> int:
        """Bytes of memory that an item may want, files included."""
        return 128 + 2 * (len(self.data.keys[0]) + self.data.value)

    def _quiet(self) -> None:
        quiet(len(self.data.keys) * self._room_of_one())

    def _keys(self, keys: Sequence[bytes]) -> list[Any]:
        return [self.key(key) for key in keys]

    def _pairs(self, keys: Sequence[bytes]) -> list[tuple[Any, bytes]]:
        return [(self.key(key), self.data.value_of(key)) for key in keys]

    def run(self) -> dict[str, float]:
        """All rows that the peer has: nanoseconds by row; and bytes."""
        main = self._room("main")
        before = memory("VmRSS")
        store = self.open(main)
        try:
            self._load(store, main)
            self._reads(store)
            self._changes(store)
            self._ycsb(store)
            self.row["memory"] = max(0, memory("VmHWM") - before) / len(self.data.keys)
        finally:
            store.close()
        if store.put:
            self._sorted()
            self._columns()
        if disk_bytes(main):
            self._reopened(main)
        if store.shared:
            self.row |= crowd.processes(self.open, main, self._keys(self.data.probes), self.budget)
            pairs = self._pairs(self.data.keys)
            self._quiet()
            self.row |= crowd.growth(self.open, self._room("growth"), pairs, self.budget)
        if store.compact:
            self._compacted(main)
        return self.row

    def _load(self, store: Store, main: Path) -> None:
        keys = self.data.keys  # pairs are made batch by batch: the peak of memory is to be the peer's
        pieces = (
            (len(part), partial(store.put_many, self._pairs(part)))
            for part in (keys[at : at + 1000] for at in range(0, len(keys), 1000))
        )
        self._quiet()
        self.row["put_many"] = timed(pieces, float("inf"))[0]
        if size := disk_bytes(main):
            self.row["disk"] = size / len(self.data.keys)
        store.loaded()
        # That the adapter finds what it stored, or the times mean nothing.
        for key in self.data.probes[:100]:
            if store.get(self.key(key)) != self.data.value_of(key):
                raise AssertionError("a stored value was not found")
        if any(store.get(self.key(key)) is not None for key in self.data.misses[:100]):
            raise AssertionError("an absent key was found")

    def _sorted(self) -> None:
        """In key order: in batches, in two halves; at once; the second half behind the first."""
        pairs = self._pairs(sorted(self.data.keys))
        half = len(pairs) // 2
        self._quiet()
        store = self.open(self._room("sorted"))
        first, second = (timed(batches(store.put_many, part, 1000), float("inf"))[0] * len(part)
                         for part in (pairs[:half], pairs[half:]))  # fmt: skip
        self.row["load sorted"] = self.row["bulk sorted"] = (first + second) / len(pairs)
        self.row["append"] = second / (len(pairs) - half)
        store.close()
        if self.build:
            build, room = self.build, self._room("bulk")
            self._quiet()
            self.row["bulk sorted"] = timed([(len(pairs), lambda: build(room, pairs))], float("inf"))[0]
        if store.append:
            store = self.open(self._room("append"))
            store.put_many(pairs[:half])
            self._quiet()
            self.row["append"] = timed([(len(pairs) - half, partial(store.append or tuple, pairs[half:]))], 1)[0]
            store.close()

    def _columns(self) -> None:
        """Sorted numbers and their values as arrays: into an empty store, and back in random order."""
        store, cores = self.open(self._room("columns")), os.sched_getaffinity(0)
        if store.put_columns and store.get_columns:
            import numpy

            os.sched_setaffinity(0, {min(cores)})  # or it would use all
            numbers = numpy.array(self._keys(sorted(self.data.keys)))
            values = numpy.frombuffer(b"".join(map(self.data.value_of, sorted(self.data.keys))), f"V{self.data.value}")
            self._quiet()
            self.row["put_columns"] = timed([(len(numbers), partial(store.put_columns, numbers, values))], 1)[0]
            wanted = numpy.array(self._keys(self.data.probes))
            calls = 3 * [(len(wanted), partial(store.get_columns, wanted, self.data.value))]
            self.row["get_columns"] = timed(calls, self.budget)[0]
            os.sched_setaffinity(0, sorted(cores)[:2])
            if len(cores) > 1 and len(wanted) >= SHARED:
                self.row["get_columns two"] = timed(calls, self.budget)[0]
            os.sched_setaffinity(0, cores)
        store.close()

    def _compacted(self, main: Path) -> None:
        store = self.open(main)
        if store.compact and store.scan:
            count = sum(1 for _ in store.scan())
            store.compact()
            store.close()
            self.row["compacted"] = disk_bytes(main) / count

    def _made(self, store: Store) -> None:
        """Keys that nobody has hashed or touched before: cut out of one buffer for each call."""
        if store.key or len({len(key) for key in self.data.probes[:1000]}) != 1:
            return
        size, joined, get = len(self.data.probes[0]), b"".join(self.data.probes), store.get

        def loop(begin: int) -> None:
            for at in range(begin, min(begin + PIECE * size, len(joined)), size):
                get(joined[at : at + size])

        pieces = ((PIECE, partial(loop, at)) for at in range(0, len(joined), PIECE * size))
        self.row["get made"] = timed(pieces, self.budget)[0]

    def _reads(self, store: Store) -> None:
        probes, misses = self._keys(self.data.probes), self._keys(self.data.misses)
        hot, count = [probes[len(probes) // 2]] * len(probes), len(self.data.keys)
        self.row["get hot"] = timed(each(store.get, hot), self.budget)[0]
        self.row["get hit"] = timed(each(store.get, probes), self.budget)[0]
        self.row["get miss"] = timed(each(store.get, misses), self.budget)[0]
        self._made(store)
        if store.get_many:
            self.row["get_many"] = timed(batches(store.get_many, probes, 100), self.budget)[0]
            self.row["get_many 1000"] = timed(batches(store.get_many, probes, 1000), self.budget)[0]
            if store.threads:
                self.row["threads get_many"] = crowd.threads(store.get_many, probes, self.budget)
        if store.scan:
            self.row["scan"] = timed(scanning(store.scan(), count), self.budget)[0]
        if store.range_of:
            take = store.range_of
            self.row["range"] = timed(each(lambda key: take(key, 100), probes), self.budget)[0]
        if store.prefix_of:
            self._prefixes(store.prefix_of)

    def _prefixes(self, prefix_of: Callable[[bytes], Any]) -> None:
        spent = items = 0
        for prefix in self._keys(self.data.prefixes):
            begin = time.perf_counter_ns()
            found = prefix_of(prefix)
            spent += time.perf_counter_ns() - begin
            items += len(found)
            if spent > self.budget * 1e9:
                break
        self.row["prefix"] = spent / items

    def _changes(self, store: Store) -> None:
        if not store.put or not store.delete:
            return
        put, fresh = store.put, self._pairs(self.data.fresh)
        touch(len(fresh) * self._room_of_one())
        self.row["put"], done = timed(each(lambda pair: put(*pair), fresh), self.budget)
        self.row["delete"] = timed(each(store.delete, [key for key, _ in fresh[:done]]), self.budget)[0]

    def _ycsb(self, store: Store) -> None:
        put, range_of = store.put, store.range_of
        if not put:
            return
        value = self.data.value_of(b"updated")

        def one(request: tuple[str, Any, int]) -> None:
            kind, key, size = request
            if kind == "read":
                store.get(key)
            elif kind == "scan" and range_of:
                range_of(key, size)
            elif kind == "modify":
                put(key, (store.get(key) or value)[::-1])
            else:
                put(key, value)

        for letter, mix in YCSB.items():
            if range_of or "scan" not in mix:
                draws = [(kind, self.key(key), size) for kind, key, size in requests(self.data, letter, 50_000, 1)]
                self.row[f"ycsb {letter}"] = timed(each(one, draws), self.budget)[0]

    def _reopened(self, main: Path) -> None:
        key, times = self.key(self.data.probes[0]), []
        for _ in range(5):
            begin = time.perf_counter_ns()
            store = self.open(main)
            store.loaded()
            found = store.get(key)
            times.append(time.perf_counter_ns() - begin)
            store.close()
            if found is None:
                raise AssertionError("nothing was found after opening")
        self.row["open"] = sorted(times)[2]


def one_unit(name: str, folder: Path, data: Data, budget_s: float) -> dict[str, float]:
    """
    All rows of one peer over one workload, in a child process, so that memory is its own.

    Raises:
        ImportError: The peer is not there.
        RuntimeError: The child died or raised; its error is on stderr.
    """

    def work() -> dict[str, Any]:
        gc.collect()
        gc.disable()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins here
        try:
            return Unit(name, folder, data, budget_s).run()
        except ImportError as error:
            return {"left out": str(error)}

    random.seed(os.getpid())
    row = crowd.in_child(work)
    if "left out" in row:
        raise ImportError(row["left out"])
    return row
