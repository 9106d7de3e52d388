"""
Several changes that take effect at one instant, or not at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from rowex._native import ffi, lib

__all__ = ["Batch", "batch_attempt"]

K = TypeVar("K")
V = TypeVar("V")
L = TypeVar("L")
W = TypeVar("W")
KEY_BYTES = 1 << 20  # format.h, RX_KEY_MAX; one that is longer is absent
WAIT_NS = 1_000_000_000  # giving a batch up to hear signals costs: the core hears them while it waits


class Batch(Generic[K, V]):
    """
    Changes collected in memory, applied together at the end of a `with` block; `Index.batch` makes one.

    Attributes:
        ticket: The durability ticket, once the batch was applied; 0 before, for a file without a log,
            and where nothing was changed.

    An exception in the block discards it.  Of several changes of one key the last counts.  It serves
    one thread at a time and one block; without a block nothing is applied, which is a ResourceWarning.
    """

    ticket: int
    _over = True  # of one that was not even made

    def __init__(
        self, apply: Callable[[dict[bytes, bytes | None]], int], key: Callable[[K], bytes], value: Callable[[V], bytes]
    ) -> None:
        """
        Begin with nothing; users call `Index.batch`.

        Args:
            apply: Applies the changes, None for a removal, and returns the ticket.
            key: Encodes a key.
            value: Encodes a value.
        """
        self._apply, self._key, self._value = apply, key, value
        self._changes: dict[bytes, bytes | None] = {}
        self._over = False
        self.ticket = 0

    def put(self, key: K, value: V) -> None:
        """
        Store *value* under *key* when the batch is applied, replacing what is there.

        Args:
            key: Any key.
            value: Any value.

        Raises:
            TypeError: The key or the value cannot be stored.
            ValueError: The block has ended.
        """
        self._collect(self._key(key), self._value(value))

    def remove(self, key: K) -> None:
        """
        Remove *key* when the batch is applied; no error where it is absent then.

        Args:
            key: Any key.

        Raises:
            TypeError: No such key can be stored.
            ValueError: The block has ended.
        """
        self._collect(self._key(key), None)

    def _collect(self, key: bytes, value: bytes | None) -> None:
        if self._over:
            raise ValueError("this batch is over")
        self._changes[key] = value

    def _coded(self, key: Callable[[L], bytes], value: Callable[[W], bytes]) -> Batch[L, W]:
        """The same, empty, for keys and values that are encoded otherwise."""
        return Batch(self._apply, key, value)

    def __len__(self) -> int:
        """How many keys it changes."""
        return len(self._changes)

    def __enter__(self) -> Self:
        if self._over:
            raise ValueError("this batch is over")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if kind is not None:
            return
        try:
            self.ticket = self._apply(self._changes)
        except BaseException as stopped:
            self.ticket = getattr(stopped, "ticket", 0)  # it may be applied, and not yet known to be durable
            raise

    def __del__(self) -> None:
        if not self._over and self._changes:
            warnings.warn(
                f"never applied: {self!r}; use it in a `with` block", ResourceWarning, stacklevel=2, source=self
            )

    def __repr__(self) -> str:
        return f"<rowex.Batch of {len(self)} keys{', over' if self._over else ''}>"


def batch_attempt(
    handle: Any, thread: Any, changes: dict[bytes, bytes | None], timeout: float | None, ticket: Any
) -> Callable[[int], int]:
    """
    What hands the changes to the core.

    Args:
        handle: Of an open index that may be written.
        thread: An explicit uid, or NULL.
        changes: By key; None: to be absent.
        timeout: Seconds to wait for others, >= 0; None: as long as it takes.
        ticket: A `uint64_t *`, which gets the ticket.

    Returns:
        One attempt, for `until_done`.
    """
    keys = sorted(key for key, value in changes.items() if value is not None or len(key) <= KEY_BYTES)
    values = [changes[key] for key in keys]
    held = [ffi.NULL if value is None else ffi.from_buffer(value) for value in values]
    key_pointers = ffi.new("void *[]", [ffi.from_buffer(key) for key in keys])
    key_sizes = ffi.new("size_t[]", [len(key) for key in keys])
    value_pointers = ffi.new("void *[]", held)
    value_sizes = ffi.new("size_t[]", [0 if value is None else len(value) for value in values])

    def attempt(ns: int, alive: object = held) -> int:
        wait_ns = ns if timeout is not None else WAIT_NS
        return int(
            lib.rx_batch_apply(
                handle, thread, len(keys), key_pointers, key_sizes, value_pointers, value_sizes, wait_ns, ticket
            )
        )

    return attempt
