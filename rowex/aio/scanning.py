"""
Scans: async iterators that fetch a batch at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, Generic, Self, TypeVar

from anyio.lowlevel import checkpoint

__all__ = ["Scan"]

T = TypeVar("T")


class Scan(Generic[T]):
    """What `Index.scan`, `keys` and `values` give: an async iterator."""

    def __init__(self, found: Iterator[T], size: int, read: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        """
        Iterate over what another iterator yields.

        Args:
            found: A scan of the index.
            size: Items of a batch.
            read: Calls what reads, on the loop or in a worker.
        """
        self._found, self._size, self._read = found, size, read
        self._items: deque[T] = deque()
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if not self._items:
            await self._fetch()
            if not self._items:
                raise StopAsyncIteration
        return self._items.popleft()

    async def batch(self) -> list[T]:
        """The next items at once, in order; an empty list at the end."""
        if not self._items:
            await self._fetch()
        items = list(self._items)
        self._items.clear()
        return items

    async def _fetch(self) -> None:
        await checkpoint()
        if not self._over:
            await self._read(self._fetch_now)

    def _fetch_now(self) -> None:
        """Keeps what it found itself: a task that is cancelled meanwhile loses none of it."""
        before = len(self._items)
        self._items.extend(islice(self._found, self._size))
        self._over = len(self._items) - before < self._size
