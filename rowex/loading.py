"""
Many items at once: `build` makes a new index of them, `Index.load` puts them into one that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from rowex._arguments import SLICE_NS, Wait, is_arrow, pairs_of, raise_item
from rowex._door import encoded
from rowex._native import ffi, lib
from rowex.arrays import columns_of, columns_of_pairs, put_items
from rowex.codecs import Codec, encode_bytes, encode_key, key_codec, value_codec
from rowex.columns import Column
from rowex.errors import raise_result
from rowex.options import Path, as_path, core_options

if TYPE_CHECKING:
    from rowex.calls import Calls

__all__ = ["build", "load_into"]

Progress = Callable[[int], object]
CHUNK_ITEMS = 65536  # some milliseconds of building
PUT_PAIRS = 4096  # at once, and durable together where the handle waits for that
BUILD_PAIRS = 512  # objects that are in the cache when they are looked at again
OK = int(lib.RX_OK)


def build(
    path: Path,
    items: Any,
    values: Any = None,
    *,
    codecs: tuple[Any, Any] = ("bytes", "bytes"),
    durability: str | None = None,
    capacity: int | None = None,
    max_size: int | None = None,
    checksum: bool | None = None,
    progress: Progress | None = None,
) -> int:
    """
    Make a new index of many items; much faster than putting them, where they come in key order.

    Args:
        path: Of the data file; nothing may be there.
        items: Pairs (key, value), a mapping, or a record batch of Arrow's; or keys, as `put_many` takes them.
        values: As many values as keys; None: *items* has both.
        codecs: Of keys and values, as `open` takes them.
        durability: As for `open`.
        capacity: As for `open`.
        max_size: As for `open`.
        checksum: As for `open`.
        progress: Called now and then with the number of items stored so far.

    Returns:
        How many items came in key order from the first on, and were built.  The others were put.

    Raises:
        FileExistsError: There is something at *path*.
        TypeError: Items that the codecs do not take.
        ValueError: Items that cannot be stored, or not as many values as keys.
        DiskFullError: No room.

    Until the first item that is out of order, or the end, there is no file at *path*, and an exception
    leaves nothing behind; after it the items before it are there, whole and synced, and each put is
    atomic.  The file is dense and in key order, as after `compact`.
    """
    key, value = key_codec(codecs[0]), value_codec(codecs[1])
    full_path = as_path(path)
    struct, path_memory = core_options(
        full_path,
        "n",
        durability=durability,
        capacity=capacity,
        max_size=max_size,
        key_code=key.code,
        value_code=value.code,
        checksum=checksum,
    )
    out = ffi.new("rx_building **")
    code = lib.rx_building_open(struct, out)
    if code < OK:
        raise_result(code, paths=(full_path,))
    del path_memory
    opened = (full_path, codecs, durability)
    with _Building(ffi.gc(out[0], lib.rx_building_close), progress) as building:
        if values is not None or is_arrow(items):
            with columns_of(key, value, items, values) as (keys, contents):
                building.add(keys, contents)
                building.finish()
                if building.count < keys.count:
                    _put_rest(opened, lambda raw: _put_columns(raw, keys, contents, building.count, progress))
        else:
            rest = building.add_pairs(_stored(items, key, value))
            building.finish()
            if rest is not None:
                _put_rest(opened, lambda raw: _put_pairs(raw, rest, building.count, progress))
        return building.count


def _stored(items: Any, key: Codec[Any], value: Codec[Any]) -> Iterator[Any]:
    """Pairs of bytes, or of what is like bytes."""
    pairs = pairs_of(items)
    return pairs if key.plain and value.plain else encoded(pairs, key.encode, value.encode)


def _failing(error: Exception) -> Iterator[Any]:
    raise error
    yield


class _Building:
    """
    A file that is being built.

    Attributes:
        count: Items in it.
    """

    def __init__(self, pointer: Any, progress: Progress | None) -> None:
        self._pointer, self._progress = pointer, progress
        self.count = 0

    def __enter__(self) -> _Building:
        return self

    def __exit__(self, *_: object) -> None:
        ffi.release(self._pointer)  # at once: what is not finished goes, whatever keeps the exception

    def add(self, keys: Column, values: Column) -> int:
        """Add the items of columns, up to the first that is out of order; how many."""
        done = ffi.new("size_t *")
        code = OK
        while done[0] < keys.count and code == OK:
            start = done[0]
            end = min(start + CHUNK_ITEMS, keys.count)
            code = lib.rx_building_add(self._pointer, keys.pointer, values.pointer, start, end, done)
            if code < OK:
                raise_item(code, None, self.count + done[0] - start)
            self.count += done[0] - start
            if self._progress is not None:
                self._progress(self.count)
        return int(done[0])

    def add_pairs(self, pairs: Iterator[Any]) -> Iterator[Any] | None:
        """Add pairs, up to the first that is out of order; the rest, or None."""
        while True:
            chunk: list[Any] = []
            failure: Exception | None = None
            try:
                chunk.extend(islice(pairs, BUILD_PAIRS))  # which keeps what came before an exception
            except Exception as error:
                failure = error
            columns = columns_of_pairs(chunk)
            if columns is None:
                rows, chunk = chunk, []
                try:
                    chunk.extend(encoded(rows, encode_key, encode_bytes, self.count))
                except Exception as error:
                    failure = error
                columns = columns_of_pairs(chunk)
                assert columns is not None
            with columns[0], columns[1]:
                done = self.add(*columns)
            if done < len(chunk):
                return chain(chunk[done:], pairs if failure is None else _failing(failure))
            if failure is not None:
                raise failure
            if not chunk:
                return None

    def finish(self) -> None:
        """Give the file its name."""
        code = lib.rx_building_finish(self._pointer)
        if code < OK:
            raise_result(code)


def _put_rest(opened: tuple[str, tuple[Any, Any], str | None], put: Callable[[Calls], object]) -> None:
    from rowex.opening import open as open_index

    path, (keys, values), durability = opened
    with open_index(path, "w", keys=keys, values=values, durability=durability) as index:
        put(getattr(index, "raw", index))


def _put_columns(calls: Calls, keys: Column, values: Column, start: int, progress: Progress | None) -> int:
    step = keys.count if progress is None else 4 * CHUNK_ITEMS
    wait, ticket = Wait(None), 0
    while start < keys.count:
        end = min(start + step, keys.count)
        ticket = put_items(calls, keys, values, start, end, wait)
        start = end
        if progress is not None:
            progress(end)
    return ticket


def _put_pairs(calls: Calls, pairs: Iterator[Any], count: int, progress: Progress | None) -> int:
    ticket = 0
    while True:
        chunk: list[Any] = []
        try:
            chunk.extend(islice(pairs, PUT_PAIRS))  # which keeps what came before an exception
        except BaseException as error:  # it is the one told; as put_many() does
            with suppress(Exception):
                calls._put_pairs(chunk, None if isinstance(error, Exception) else SLICE_NS / 1e9, count)
            raise
        if not chunk:
            return ticket
        ticket = calls._put_pairs(chunk, None, count)
        count += len(chunk)
        if progress is not None:
            progress(count)


def load_into(
    calls: Calls, key: Codec[Any], value: Codec[Any], items: Any, values: Any, progress: Progress | None
) -> int:
    """
    What `load` does.

    Args:
        calls: The index or writer of bytes.
        key: Its codecs.
        value: Likewise.
        items: Pairs, a mapping, or keys.
        values: As many values as keys; None: *items* has both.
        progress: Called now and then with the number of items stored so far.

    Returns:
        The ticket of the last.

    Raises:
        Exception: As `put_many`.
    """
    calls._write_handle()
    if values is None and not is_arrow(items):
        if progress is None and key.plain and value.plain:
            return calls._put_pairs(items, None, 0)
        return _put_pairs(calls, _stored(items, key, value), 0, progress)
    with columns_of(key, value, items, values) as (keys, contents):
        return _put_columns(calls, keys, contents, 0, progress)
