"""
Reading: at once, on the loop, unless the pages are cold.

A read of a page that is in memory takes a microsecond or less, and a thread would cost fifty.  One
that meets the disk stops the loop.  So reads are timed: after one that was slow, and in which the
kernel had to fetch a page, the next ones go to a worker thread, until enough of them were fast.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, Generic, TypeVar, overload

from anyio.lowlevel import checkpoint

from rowex._ranges import ITEMS, KEYS, VALUES
from rowex.aio.loops import LoopState, state_of
from rowex.aio.plain import plain_calls
from rowex.aio.scanning import Scan
from rowex.aio.workers import run

__all__ = ["Reading"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
T = TypeVar("T")

TURN = 64  # calls that return at once before the loop has a turn
COLD_READS = 64  # so many reads in a row must be fast in a worker before they are done on the loop again
CHUNK = 256  # keys, or items of a scan, on the loop at once


def major_faults() -> int:
    """How often this thread has waited for the disk to fetch a page."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_majflt


class Reading(Generic[K, V]):
    """The reading half of `rowex.aio.Index`."""

    def __init__(self, index: Any, workers: int, slow_read: float) -> None:
        """
        Read from an index.

        Args:
            index: An `rowex.Index` or `rowex.CodedIndex`.
            workers: Calls that may be in threads at once, for each loop.
            slow_read: Seconds from which a read that met the disk counts as slow.
        """
        self._index = index
        self._raw, self._plain, self._calls = plain_calls(index)
        self._workers, self._slow_s = workers, slow_read
        self._turn = 0
        self._cold = 0  # reads still to be done in a worker
        self._faults = major_faults()

    def _state(self) -> LoopState:
        return state_of(self, self._workers)

    async def _due(self) -> None:
        """Others' turn, now and then; the only place where a call that returns at once is cancelled."""
        self._turn += 1
        if self._turn >= TURN:
            self._turn = 0
            await checkpoint()

    async def _read(self, call: Callable[[], T], offload: bool = False) -> T:
        if offload or self._cold:
            return await run(lambda: self._read_cold(call), self._state().limiter)
        self._turn += 1
        if self._turn >= TURN:
            self._turn = 0
            await checkpoint()
        began = perf_counter()
        found = call()
        if perf_counter() - began >= self._slow_s:
            self._was_slow()
        return found

    def _was_slow(self) -> None:
        """Was it the disk, or did somebody else have the processor?"""
        faults = major_faults()
        if faults != self._faults:
            self._faults, self._cold = faults, COLD_READS

    def _read_cold(self, call: Callable[[], T]) -> T:
        """In a worker."""
        faults, began = major_faults(), perf_counter()
        found = call()
        slow = perf_counter() - began >= self._slow_s and major_faults() != faults
        self._cold = COLD_READS if slow else max(0, self._cold - 1)
        return found

    @overload
    async def get(self, key: K, *, offload: bool = ...) -> V | None: ...
    @overload
    async def get(self, key: K, default: V, *, offload: bool = ...) -> V: ...
    @overload
    async def get(self, key: K, default: D, *, offload: bool = ...) -> V | D: ...
    async def get(self, key: K, default: Any = None, *, offload: bool = False) -> Any:
        """
        The value of a key.

        Args:
            key: Any key.
            default: Returned where it is absent.
            offload: Read in a worker thread, for what is known to be cold or large.

        Returns:
            The value, or *default*.

        Raises:
            CorruptionError: A node that was met is damaged.
            ClosedError: The index is closed.

        At once, without a thread; a read of a page that is not in memory stops the loop for as long
        as the disk takes, and after a slow one the next go to a worker by themselves.
        """
        if offload or self._cold:
            return await self._read(lambda: self._calls.get(key, default), offload)
        self._turn += 1
        if self._turn >= TURN:
            self._turn = 0
            await checkpoint()
        began = perf_counter()
        found = self._calls.get(key, default)
        if perf_counter() - began >= self._slow_s:
            self._was_slow()
        return found

    async def lookup(self, key: K, *, offload: bool = False) -> V:
        """The value of *key*, as `get`; KeyError where it is absent."""
        found: V = await self._read(lambda: self._calls.lookup(key), offload)
        return found

    async def exists(self, key: K, *, offload: bool = False) -> bool:
        """Whether *key* is present, as `get`."""
        return bool(await self._read(lambda: self._calls.exists(key), offload))

    @overload
    async def get_many(self, keys: Iterable[K], *, offload: bool = ...) -> list[V | None]: ...
    @overload
    async def get_many(self, keys: Iterable[K], default: D, *, offload: bool = ...) -> list[V | D]: ...
    async def get_many(self, keys: Iterable[K], default: Any = None, *, offload: bool = False) -> list[Any]:
        """
        The values of many keys, with a turn for the loop after every few hundred.

        Args:
            keys: Any number; order and repeats are kept.
            default: Stands in for each absent one.
            offload: As for `get`.

        Returns:
            A list as long as *keys*.
        """
        self._raw._live_handle()
        wanted, found = list(keys), []
        for at in range(0, len(wanted), CHUNK):
            chunk = wanted[at : at + CHUNK]
            # mypy cannot tell the type of a lambda that has a default; without it the chunk would be the loop's.
            found += await self._read(lambda chunk=chunk: self._calls.get_many(chunk, default), offload)  # type: ignore[misc] # see above
            if len(wanted) > CHUNK:
                await checkpoint()
        return found

    async def first(self) -> tuple[K, V] | None:
        """The item with the smallest key, or None."""
        return await self._read(self._calls.first)

    async def last(self) -> tuple[K, V] | None:
        """The item with the greatest key, or None."""
        return await self._read(self._calls.last)

    async def floor(self, key: K) -> tuple[K, V] | None:
        """The item with the greatest key <= *key*, or None."""
        return await self._read(lambda: self._calls.floor(key))

    async def ceiling(self, key: K) -> tuple[K, V] | None:
        """The item with the smallest key >= *key*, or None."""
        return await self._read(lambda: self._calls.ceiling(key))

    def __len__(self) -> int:
        """The number of keys."""
        return len(self._calls)

    def scan(
        self,
        start: K | None = None,
        stop: K | None = None,
        *,
        prefix: K | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Scan[tuple[K, V]]:
        """
        The items with start <= key < stop, in key order: `async for key, value in index.scan(): ...`.

        Args:
            start: The smallest key; None: no bound.
            stop: The first key that is too great; None: no bound.
            prefix: Only keys that begin with it.
            reverse: From the greatest to the smallest.
            limit: At most so many; None: all.

        Returns:
            An async iterator.  It fetches a batch of items at a time, with a turn for the loop before
            each, holds nothing between two of them, and needs no closing.  One task uses it at a time.
        """
        return Scan(self._calls._scan(start, stop, prefix, reverse, limit, ITEMS), CHUNK, self._read)

    def keys(self, *, reverse: bool = False) -> Scan[K]:
        """All keys in order, as `scan`."""
        return Scan(self._calls._scan_all(KEYS, reverse=reverse), CHUNK, self._read)

    def values(self, *, reverse: bool = False) -> Scan[V]:
        """All values in the order of their keys, as `scan`."""
        return Scan(self._calls._scan_all(VALUES, reverse=reverse), CHUNK, self._read)

    def __aiter__(self) -> Scan[K]:
        return self.keys()
