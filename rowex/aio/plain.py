"""
The index that the async one calls: the same handle, whose changes are not waited for until durable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from rowex._native import ffi
from rowex.calls import Calls
from rowex.coded import CodedCalls, CodedIndex
from rowex.index import Index

__all__ = ["Plain", "plain_calls"]

T = TypeVar("T")


class Plain(Calls):
    """The calls of an index; each tells the ticket of its change, where the method itself does not."""

    def __init__(self, raw: Index) -> None:
        """
        Share the handle of *raw*, which stays its owner.

        Args:
            raw: Open.
        """
        self._bind(raw._live_handle(), ffi.NULL, readonly=raw._readonly, commit=False)
        self._told = threading.local()

    def _settled(self, ticket: int, timeout: float | None) -> int:
        self._told.ticket = ticket
        return ticket

    def ticketed(self, call: Callable[[], T]) -> tuple[T, int | None]:
        """What *call* returns, and the ticket of the change that it made; None: it made none."""
        self._told.ticket = None
        result = call()
        return result, self._told.ticket


def plain_calls(index: Any) -> tuple[Index, Plain, Any]:
    """
    The parts of an index.

    Args:
        index: An `Index` or a `CodedIndex`.

    Returns:
        The index of bytes, its plain calls, and these with the codecs of *index*.
    """
    if isinstance(index, CodedIndex):
        plain = Plain(index.raw)
        return index.raw, plain, CodedCalls(plain, index._keys, index._values)
    plain = Plain(index)
    return index, plain, plain
