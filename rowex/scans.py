"""
`scan_batches`: the items of a scan as columns, over cffi, for both doors.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rowex._native import ffi, lib
from rowex._ranges import open_scan
from rowex.arrays import Growing
from rowex.columns import Items, Packed, is_text, numpy, output_column
from rowex.errors import raise_result

if TYPE_CHECKING:
    from rowex.calls import Calls
    from rowex.codecs import Codec

__all__ = ["scan_columns"]

ROOM_BYTES, LEAST_BYTES, ITEM_BYTES = 1 << 20, 4096, 64  # of records, at most and at least; a guess
OK, TOO_SMALL, END = int(lib.RX_OK), int(lib.RX_TOO_SMALL), int(lib.RX_END)
_new_room = ffi.new_allocator(should_clear_after_alloc=False)


def scan_columns(
    calls: Calls,
    codecs: tuple[Codec[Any], Codec[Any]],
    bounds: tuple[bytes | None, bytes | None, bytes | None],
    size: int,
    dtypes: tuple[Any, Any],
) -> Iterator[Items]:
    """
    What `scan_batches` does.

    Args:
        calls: The index, reader or writer of bytes.
        codecs: Of keys and values.
        bounds: start, stop and prefix, as stored.
        size: Items of a batch, >= 1.
        dtypes: Of keys and values; None: int64 for the codec int, else Packed.

    Returns:
        An iterator of `Items`, whose sides are arrays or Packed.

    Raises:
        TypeError: A dtype that the codecs do not give.
        ValueError: A size that is none; later, a key or value that does not fit its dtype.
        ImportError: NumPy is not installed.
    """
    numpy()
    if operator.index(size) < 1:
        raise ValueError("size must be at least 1")
    sides = [_Side(what, codec, dtype) for what, codec, dtype in zip(("keys", "values"), codecs, dtypes, strict=True)]
    return _batches(calls, open_scan(calls._live_handle(), *bounds), operator.index(size), sides)


def _batches(calls: Calls, scan: Any, size: int, sides: list[_Side]) -> Iterator[Items]:
    room = _new_room("char[]", min(ROOM_BYTES, LEAST_BYTES + ITEM_BYTES * size))
    items, need, at, done = (ffi.new("size_t *") for _ in range(4))
    code, count = OK, 0
    while code != END:
        count = 0
        while count < size:
            code = lib.rx_scan_next(
                calls._live_handle(), calls._rx_thread, scan, room, len(room), size - count, 1, items, need
            )
            if code == TOO_SMALL:
                room = _new_room("char[]", need[0])
                continue
            if code == END:
                break
            if code == OK:
                for side in sides if count == 0 else ():
                    side.begin(size, len(room))
                pointers = [side.reserve(count, len(room)) for side in sides]
                at[0] = 0
                code = lib.rx_columns_unpack(room, items[0], *pointers, count, at, done)
            if code < OK:
                raise_result(code)
            count += items[0]
        if count:
            yield Items(sides[0].end(count), sides[1].end(count))


class _Side:
    """The keys, or the values, of a batch of a scan."""

    def __init__(self, what: str, codec: Codec[Any], dtype: Any) -> None:
        if dtype is None:
            dtype = "i8" if codec.name == "int" else Packed
        self._what, self._code, self._strings = what, codec.code, codec.name == "str"
        self._text = is_text(dtype)
        self._dtype = Packed if self._text else dtype
        self._array: Any = None
        self._column: Any = None
        if self._dtype is not Packed:
            output_column(0, dtype, what, codec.code)  # say now what is wrong with it

    def begin(self, size: int, need: int) -> None:
        """A new batch, with room for *need* bytes at first."""
        if self._dtype is Packed:
            self._array = Growing(size, need)
        else:
            self._array, self._column = output_column(size, self._dtype, self._what, self._code)

    def reserve(self, done: int, need: int) -> Any:
        """Room for *need* bytes more behind the first *done* items; the column that has it."""
        if self._dtype is not Packed:
            return self._column.pointer
        self._array.grow(done, need)
        return self._array.column.pointer

    def end(self, count: int) -> Any:
        """The batch, of so many items."""
        if self._dtype is not Packed:
            return self._array[:count]
        packed = self._array.packed(count)
        packed.text = self._strings
        return packed.padded() if self._text else packed
