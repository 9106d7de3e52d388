"""
Ranges of keys: what a scan is asked for, and the records that it answers with.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any

from rowex._native import ffi, lib
from rowex.errors import raise_result

__all__ = ["ITEMS", "KEYS", "RECORD", "VALUES", "open_scan", "records"]

ITEMS, KEYS, VALUES = 0, 1, 2  # what a scan yields
RECORD = Struct("=IIQ")  # key length, zero, value length (index.h, rx_scan_next)


def _successor(prefix: bytes) -> bytes | None:
    # The first key after all that begin with prefix.
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def open_scan(
    handle: Any,
    start: bytes | None,
    stop: bytes | None,
    prefix: bytes | None,
    *,
    reverse: bool = False,
    limit: int = -1,
) -> Any:
    """
    A scan of the core.

    Args:
        handle: Of an open index.
        start: The smallest key; None: no bound.
        stop: The first key that is too great; None: no bound.
        prefix: Only keys that begin with it; None: all.
        reverse: From the greatest to the smallest.
        limit: At most so many items; -1: all.

    Returns:
        A `rx_scan *`, which is closed when it is collected.

    Raises:
        ClosedError: The index is closed.
    """
    if prefix is not None:
        after = _successor(prefix)
        start = prefix if start is None else max(start, prefix)
        stop = stop if after is None else after if stop is None else min(stop, after)
    first, last = (ffi.NULL if bound is None else ffi.from_buffer(bound) for bound in (start, stop))
    out = ffi.new("rx_scan **")
    code = lib.rx_scan_open(handle, first, len(start or b""), last, len(stop or b""), reverse, limit, out)
    if code != lib.RX_OK:
        raise_result(code)
    return ffi.gc(out[0], lib.rx_scan_close)


def records(buffer: Any, count: int, what: int) -> Iterator[Any]:
    """
    What a scan gives of a batch.

    Args:
        buffer: The records.
        count: How many.
        what: ITEMS, KEYS, or VALUES.

    Returns:
        An iterator of the pairs, the keys or the values; without the values of KEYS, which are not there.
    """
    at = 0
    for _ in range(count):
        key_size, _zero, value_size = RECORD.unpack_from(buffer, at)
        key_at = at + RECORD.size
        value_at = key_at + key_size
        end = value_at + (0 if what == KEYS else value_size)
        at = (end + 7) & ~7
        if what == KEYS:
            yield buffer[key_at:value_at]
        elif what == VALUES:
            yield buffer[value_at:end]
        else:
            yield buffer[key_at:value_at], buffer[value_at:end]
