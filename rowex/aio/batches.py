"""
Several changes that take effect at one instant, or not at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

import rowex.batch

__all__ = ["Batch"]

K = TypeVar("K")
V = TypeVar("V")


class Batch(Generic[K, V]):
    """
    Changes collected in memory, applied together at the end of an `async with` block; `Index.batch` makes one.

    Attributes:
        ticket: The durability ticket, once the batch was applied; 0 before.
    """

    ticket: int

    def __init__(
        self,
        collected: rowex.batch.Batch[K, V],
        apply: Callable[[dict[bytes, bytes | None]], Awaitable[int]],
    ) -> None:
        """
        Begin with nothing; users call `Index.batch`.

        Args:
            collected: What encodes and collects.
            apply: Applies the changes and returns the ticket.
        """
        self._collected, self._apply = collected, apply
        self.ticket = 0

    def put(self, key: K, value: V) -> None:
        """Store *value* under *key* when the batch is applied; ValueError once the block has ended."""
        self._collected.put(key, value)

    def remove(self, key: K) -> None:
        """Remove *key* when the batch is applied; no error where it is absent then."""
        self._collected.remove(key)

    def __len__(self) -> int:
        """How many keys it changes."""
        return len(self._collected)

    async def __aenter__(self) -> Self:
        self._collected.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._collected._over = True
        if kind is not None:
            return
        try:
            self.ticket = await self._apply(self._collected._changes)
        except BaseException as stopped:
            self.ticket = getattr(stopped, "ticket", 0)
            raise
