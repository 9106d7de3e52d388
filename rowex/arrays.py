"""
`get_many` and `put_many` for columns (see `columns`), over cffi, for both doors.

The core works with the interpreter lock given up, a chunk at a time; between chunks signals are
handled.  From SHARE_ITEMS items on several threads share a batch, each with a uid of its own, as
far as the process may use cores.  A reader or writer has one uid, hence one thread.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rowex._arguments import SLICE_NS, Wait, each_of, exact_bytes, is_arrow, settle
from rowex._door import pack
from rowex._native import ffi, lib
from rowex.arrow import arrow_column, arrow_table
from rowex.columns import (
    OFFSETS,
    Column,
    Packed,
    checked,
    input_column,
    is_column,
    is_text,
    numpy,
    output_column,
    packed_column,
)
from rowex.errors import raise_result

if TYPE_CHECKING:
    from rowex.calls import Calls
    from rowex.codecs import Codec

__all__ = ["Growing", "columns_of", "columns_of_pairs", "get_columns", "put_columns", "put_items"]

GET_ITEMS, PUT_ITEMS = 16384, 2048  # a chunk: some milliseconds
SHARE_ITEMS = 131072  # from here on another thread pays
OK, TOO_SMALL, WOULD_WAIT = int(lib.RX_OK), int(lib.RX_TOO_SMALL), int(lib.RX_WOULD_WAIT)
E_TABLE_FULL = int(lib.RX_E_TABLE_FULL)


# --- objects as columns ---


def _column_of(data: Any, what: str, codec: Codec[Any]) -> Column:
    """A buffer, a `Packed`, an array of Arrow's, or an iterable of objects that the codec takes."""
    if is_arrow(data) and not isinstance(data, Packed):
        return arrow_column(data, what, codec)
    if is_column(data):
        return input_column(data, what, codec.code)
    rows = list(data)
    parts = pack(rows, -1) if codec.plain else None
    if parts is None:
        rows = each_of(rows, codec.encode)
        parts = pack(rows, -1) or pack([exact_bytes(row, what) for row in rows], -1)  # of a class that is bytes, too
    assert parts is not None
    return packed_column(len(rows), *parts)


@contextmanager
def columns_of(keys: Codec[Any], values: Codec[Any], names: Any, contents: Any) -> Iterator[tuple[Column, Column]]:
    """
    Keys and values as columns, while they are used.

    Args:
        keys: Codec of the keys.
        values: Codec of the values.
        names: The keys; or both, as two columns of Arrow's.
        contents: The values, as many; None: *names* has both.

    Returns:
        A context manager of the two columns; on leaving the buffers are given back.

    Raises:
        TypeError: Items that the codecs do not take.
        ValueError: Not as many values as keys.
    """
    if contents is None:
        names, contents = arrow_table(names)
    with _column_of(names, "keys", keys) as key, _column_of(contents, "values", values) as value:
        if key.count != value.count:
            raise ValueError(f"there are {key.count} keys and {value.count} values")
        yield key, value


def columns_of_pairs(pairs: list[Any]) -> tuple[Column, Column] | None:
    """
    As `columns_of`, of pairs.

    Args:
        pairs: Each (key, value), as stored.

    Returns:
        The two columns; None: there are others than exact bytes, or than pairs of them.
    """
    keys = pack(pairs, 0)
    values = None if keys is None else pack(pairs, 1)
    if keys is None or values is None:
        return None
    return packed_column(len(pairs), *keys), packed_column(len(pairs), *values)


# --- sharing the work ---


class _Work:
    """
    Chunks that several threads take from a list; the first error ends it for all.

    Attributes:
        stopped: One of the threads has failed, or was interrupted.
    """

    def __init__(self, chunks: deque[Any], call: Callable[[_Work, Any], int]) -> None:
        """
        Collect what is to be done.

        Args:
            chunks: Arguments of *call*.
            call: Does one chunk; the core's result.
        """
        self._chunks, self._call = chunks, call
        self._errors: list[BaseException] = []
        self.stopped = False

    def run(self, threads: int) -> None:
        """Do all chunks, in this thread and *threads* - 1 others; raises the first error."""
        helpers = [threading.Thread(target=self._help, name="rowex", daemon=True) for _ in range(threads - 1)]
        try:
            with suppress(RuntimeError):  # no more threads: then with fewer
                for helper in helpers:
                    helper.start()
            self._take()
            for helper in helpers:
                if helper.ident is not None:
                    helper.join()
            self._take()  # what a helper gave back
        finally:
            self.stopped = True
            for helper in helpers:  # they use our buffers, and see soon that it is over
                while helper.is_alive():
                    with suppress(BaseException):
                        helper.join()
        if self._errors:
            raise self._errors.pop()  # kept by nobody: no cycle holds the buffers

    def _take(self, *, helps: bool = False) -> None:
        while not self.stopped:
            try:
                chunk = self._chunks.popleft()
            except IndexError:
                return
            code = self._call(self, chunk)
            if code == E_TABLE_FULL and helps:  # no uid for this thread: the others do it
                self._chunks.appendleft(chunk)
                return
            if code < OK:
                raise_result(code)

    def _help(self) -> None:
        try:
            self._take(helps=True)
        except BaseException as error:
            self._errors.append(error)
            self.stopped = True


def _threads(calls: Calls, count: int) -> int:
    if calls._rx_thread != ffi.NULL or count < SHARE_ITEMS:
        return 1
    return min(len(os.sched_getaffinity(0)), count * 2 // SHARE_ITEMS)


# --- get ---


def get_columns(calls: Calls, keys: Codec[Any], values: Codec[Any], wanted: Any, default: Any, dtype: Any) -> Any:
    """
    What `get_many` does for columns.

    Args:
        calls: The index, reader or writer of bytes.
        keys: Its codecs.
        values: Likewise.
        wanted: The keys.
        default: Stands in for each absent value.
        dtype: Of the values; None: a list of objects.

    Returns:
        A list; or (an array or a Packed, an array of bool: which are present).

    Raises:
        TypeError: Keys or a dtype that the codecs do not take.
        ValueError: A key that cannot be stored, or a value that does not fit the dtype.
        ImportError: dtype was given, and NumPy is not installed.
    """
    calls._live_handle()
    if dtype is Packed and default is not None:
        raise TypeError("a Packed has no place for a default: what is absent has no bytes")
    with _column_of(wanted, "keys", keys) as column:
        if dtype is None:
            return _get_list(calls, column, values, default)
        found = numpy().zeros(column.count, "?")
        result: Any
        if is_text(dtype):
            result = _get_packed(calls, column, found).padded()
        elif dtype is Packed:
            result = _get_packed(calls, column, found)
            result.valid = found.copy()  # the other one is the caller's
            result.text = values.name == "str"
        else:
            result, into = output_column(column.count, dtype, "values", values.code)
            _get_fixed(calls, column, into, found)
    if default is not None:
        result[~found] = default
    return result, found


def _get_fixed(calls: Calls, keys: Column, values: Column, found: Any) -> None:
    answers = ffi.from_buffer("uint8_t[]", found) if keys.count else ffi.NULL

    def call(_: _Work, start: int) -> int:
        done, need = ffi.new("size_t *"), ffi.new("size_t *")
        end = min(start + GET_ITEMS, keys.count)
        return int(
            lib.rx_get_columns(
                calls._live_handle(),
                calls._rx_thread,
                keys.pointer,
                values.pointer,
                answers,
                start,
                end,
                done,
                need,
            )
        )

    _Work(deque(range(0, keys.count, GET_ITEMS)), call).run(_threads(calls, keys.count))


class Growing:
    """An OFFSETS column of bytes whose room grows; without NumPy."""

    def __init__(self, count: int, capacity: int) -> None:
        self.data = bytearray(capacity)
        self.offsets = bytearray(8 * (count + 1))
        self._count = count
        self._describe()

    def _describe(self) -> None:
        held = ffi.from_buffer(self.data), ffi.from_buffer(self.offsets)
        self.column = Column(self._count, OFFSETS, 8, held[0], *held, offsets=held[1], capacity=len(self.data))

    def used(self, done: int) -> int:
        """Bytes of the first *done* items."""
        return int.from_bytes(self.offsets[8 * done : 8 * done + 8], "little")

    def packed(self, count: int) -> Packed:
        """The first *count* items, over NumPy."""
        np = numpy()
        return Packed(
            np.frombuffer(self.data, "u1")[: self.used(count)], np.frombuffer(self.offsets, "i8")[: count + 1]
        )

    def grow(self, done: int, need: int) -> None:
        """Room for *need* bytes behind the first *done* items."""
        wanted = self.used(done) + need
        if wanted > len(self.data):
            self.column.__exit__()  # it holds the buffer, which cannot grow then
            self.data += bytes(max(wanted, 2 * len(self.data)) - len(self.data))
            self._describe()


def _get_growing(calls: Calls, keys: Column, found: Any, into: Growing) -> None:
    done, need = ffi.new("size_t *"), ffi.new("size_t *")
    while done[0] < keys.count:
        at = done[0]
        code = lib.rx_get_columns(
            calls._live_handle(),
            calls._rx_thread,
            keys.pointer,
            into.column.pointer,
            found,
            at,
            min(at + GET_ITEMS, keys.count),
            done,
            need,
        )
        if code == TOO_SMALL:
            into.grow(done[0], need[0])
        elif code < OK:
            raise_result(code)


def _get_packed(calls: Calls, keys: Column, found: Any) -> Packed:
    into = Growing(keys.count, 4096 + keys.count * 16)
    _get_growing(calls, keys, ffi.from_buffer("uint8_t[]", found), into)
    return into.packed(keys.count)


def _get_list(calls: Calls, keys: Column, values: Codec[Any], default: Any) -> list[Any]:
    into = Growing(keys.count, 4096 + keys.count * 16)
    found = bytearray(keys.count)
    _get_growing(calls, keys, ffi.from_buffer("uint8_t[]", found), into)
    packed = Packed(into.data, memoryview(into.offsets).cast("q"))
    rows = [data if there else None for data, there in zip(packed, found, strict=True)]
    return each_of(rows, lambda data: default if data is None else values.decode(data))


# --- put ---


def put_columns(
    calls: Calls, keys: Codec[Any], values: Codec[Any], names: Any, contents: Any, timeout: float | None
) -> int:
    """
    What `put_many` does for columns.

    Args:
        calls: The index or writer of bytes.
        keys: Its codecs.
        values: Likewise.
        names: The keys; or both, as two columns of Arrow's.
        contents: The values, as many; None: *names* has both.
        timeout: Seconds to wait for others, >= 0; None: as long as it takes.

    Returns:
        The ticket of the last.

    Raises:
        TypeError: Items that the codecs do not take; nothing was changed.
        ValueError: Not as many values as keys, or items that cannot be stored; nothing was changed.
        TimeoutError: Others held what it needs; what came before was put.
        Exception: As `put_many`.
    """
    wait = Wait(timeout)
    calls._write_handle()
    with columns_of(keys, values, names, contents) as (key, value):
        return put_items(calls, key, value, 0, key.count, wait)


def put_items(calls: Calls, key: Column, value: Column, start: int, end: int, wait: Wait) -> int:
    """
    Put the items [start, end) of two columns; waits until they are durable where the handle wants that.

    Args:
        calls: The index or writer of bytes.
        key: The keys.
        value: The values.
        start: The first item.
        end: Behind the last.
        wait: How long to wait for others.

    Returns:
        The ticket of the last.

    Raises:
        ValueError: Items that cannot be stored; nothing was changed.
        Exception: As `put_many`.
    """
    ascending = checked(key, start, end)
    checked(value, start, end)
    tickets: list[int] = []

    def call(work: _Work, chunk: tuple[int, int, int, int]) -> int:
        first, last, part, parts = chunk
        done, ticket = ffi.new("size_t *", first), ffi.new("uint64_t *")
        slice_ns = SLICE_NS
        code = OK
        while done[0] < last and code >= OK and not work.stopped:
            at = done[0]
            code = lib.rx_put_columns(
                calls._write_handle(),
                calls._rx_thread,
                key.pointer,
                value.pointer,
                at,
                min(at + PUT_ITEMS, last),
                part,
                parts,
                slice_ns,
                done,
                ticket,
            )
            if code == WOULD_WAIT:
                slice_ns = wait.more()
        tickets.append(int(ticket[0]))
        return int(code)

    threads = _threads(calls, end - start)
    _Work(_shares(start, end, threads, ascending), call).run(threads)
    ticket = max(tickets, default=0)
    if calls._commit and ticket:
        settle(lambda ns: lib.rx_wait_durable(calls._live_handle(), calls._rx_thread, ticket, ns), ticket, wait)
    return ticket


def _shares(start: int, end: int, threads: int, ascending: bool) -> deque[tuple[int, int, int, int]]:
    """Who puts what: ranges of ascending keys; else by key, so that of equal ones the last comes last."""
    if not ascending:
        return deque((start, end, part, threads) for part in range(threads))
    step = -(-(end - start) // threads) or 1
    return deque((first, min(first + step, end), 0, 1) for first in range(start, end, step))
