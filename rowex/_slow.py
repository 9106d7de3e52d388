"""
The frequent calls of an index over cffi: the class `Door` where the extension `_hot` is not built.

It behaves as `_hot.Door` does, in values, exceptions and their order; the same tests run on both.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, overload

from rowex._arguments import (
    UNMADE,
    Wait,
    changed,
    each_of,
    encoded,
    exact_bytes,
    export,
    is_arrow,
    note_key,
    pack,
    pairs_of,
    raise_item,
    settle,
)
from rowex._door_texts import TEXTS
from rowex._forms import decode_bytes, encode_bytes, encode_key
from rowex._native import ffi, lib
from rowex._ranges import ITEMS, KEYS, VALUES, open_scan, records
from rowex.columns import is_column
from rowex.errors import made, raise_reader, raise_result

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Door", "encoded", "pack"]

_FIRST_BYTES = 4096  # a first try for one value, and for a scan's first batch
_ROOM_BYTES = 65536
_CHUNK_ITEMS = 1024
_COPIED_BYTES = 4 << 20  # a chunk of copies ends here
_FIRST_ITEMS = 16
_ABSENT_SIZE, _MAX_LIMIT = (1 << 64) - 1, (1 << 63) - 1

_allocate = ffi.new_allocator(should_clear_after_alloc=False)


class Door:
    """
    The frequent calls of an index.

    Args:
        handle: Address of the core's rx_index; 0 is closed.
        thread: Address of an rx_thread; 0 for the calling thread's own.
        readonly: Whether writing is refused here already.
        commit: Whether every change waits until it is durable.
    """

    _handle: Any
    _thread: Any
    _get_columns: Callable[..., Any]  # these are the index's
    _put_columns: Callable[..., int]

    def __init__(self, handle: int, thread: int = 0, readonly: bool = False, commit: bool = False) -> None:
        self._refuses, self._waits = bool(readonly), bool(commit)
        self._rebind(handle, thread)

    def _rebind(self, handle: int, thread: int, /) -> None:
        if not isinstance(handle, int) or not isinstance(thread, int):
            raise TypeError("handle and thread are addresses, as int")
        self._handle = ffi.cast("rx_index *", handle) if handle else None
        self._thread = ffi.cast("rx_thread *", thread) if thread else ffi.NULL

    def _open_handle(self) -> Any:
        handle = self._handle
        if handle is None:
            raise_result(lib.RX_E_CLOSED)
        return handle

    def _writable(self) -> None:
        if self._open_handle() is not None and self._refuses:
            raise_result(lib.RX_E_READONLY) if self._thread == ffi.NULL else raise_reader()

    # --- reading ---

    def _fetch(self, key: ReadableBuffer) -> bytes | None:
        exact = exact_bytes(key, "key")
        size = ffi.new("size_t *")
        capacity = _FIRST_BYTES
        while True:
            handle = self._open_handle()
            room = _allocate("char[]", capacity)
            code = lib.rx_get(handle, self._thread, ffi.from_buffer(exact), len(exact), room, capacity, size)
            if code == lib.RX_OK:
                return bytes(ffi.buffer(room, size[0]))
            if code == lib.RX_ABSENT:
                return None
            if code != lib.RX_TOO_SMALL:
                raise_result(code, key)
            capacity = size[0]

    def get(self, key: ReadableBuffer, default: Any = None) -> Any:
        value = self._fetch(key)
        return default if value is None else value

    def lookup(self, key: ReadableBuffer, /) -> bytes:
        value = self._fetch(key)
        if value is None:
            raise KeyError(key)
        return value

    def exists(self, key: ReadableBuffer, /) -> bool:
        exact = exact_bytes(key, "key")
        handle = self._open_handle()
        code = lib.rx_exists(handle, self._thread, ffi.from_buffer(exact), len(exact))
        if code not in (lib.RX_OK, lib.RX_ABSENT):
            raise_result(code, key)
        return bool(code == lib.RX_OK)

    def __getitem__(self, key: ReadableBuffer, /) -> bytes:
        return self.lookup(key)

    def __contains__(self, key: Any, /) -> bool:
        return self.exists(key)

    # --- writing ---

    def _settle(self, ticket: Any, asked: bool, wait: Wait) -> None:
        """What was changed, if anything was, is waited for where the handle wants that or *asked*."""
        number = ticket[0]
        if number not in (0, UNMADE) and (self._waits or asked):
            settle(lambda ns: lib.rx_wait_durable(self._open_handle(), self._thread, number, ns), number, wait)

    def _store(
        self, call: Callable[..., int], key: ReadableBuffer, value: ReadableBuffer, asked: bool, wait: Wait
    ) -> int:
        exact = exact_bytes(key, "key")

        def attempt(ticket: Any) -> None:
            with export(value, "value") as data:
                self._writable()
                if asked and (code := lib.rx_wait_durable(self._open_handle(), self._thread, 0, 0)) < 0:
                    raise_result(code)  # it needs a log: said before anything is stored
                pointer, slice_ns = ffi.from_buffer(exact), 0
                while True:
                    handle, size = self._open_handle(), len(data)
                    code = call(handle, self._thread, pointer, len(exact), data, size, slice_ns, ticket)
                    if code == lib.RX_OK:
                        return
                    if code != lib.RX_WOULD_WAIT:
                        raise_result(code, key)
                    slice_ns = wait.more()

        return changed(attempt, lambda ticket: self._settle(ticket, asked, wait))

    def put(
        self, key: ReadableBuffer, value: ReadableBuffer, *, timeout: float | None = None, durable: bool = False
    ) -> int:
        return self._store(lib.rx_put, key, value, bool(durable), Wait(timeout))

    def insert(
        self, key: ReadableBuffer, value: ReadableBuffer, *, timeout: float | None = None, durable: bool = False
    ) -> int:
        return self._store(lib.rx_insert, key, value, bool(durable), Wait(timeout))

    def __setitem__(self, key: ReadableBuffer, value: ReadableBuffer, /) -> None:
        self.put(key, value)

    def _take_out(self, key: ReadableBuffer, timeout: float | None) -> int | None:
        wait, exact = Wait(timeout), exact_bytes(key, "key")
        self._writable()

        def attempt(ticket: Any) -> None:
            pointer, slice_ns = ffi.from_buffer(exact), 0
            while True:
                code = lib.rx_remove(self._open_handle(), self._thread, pointer, len(exact), slice_ns, ticket)
                if code in (lib.RX_OK, lib.RX_ABSENT):
                    return
                if code != lib.RX_WOULD_WAIT:
                    raise_result(code, key)
                slice_ns = wait.more()

        ticket = changed(attempt, lambda ticket: self._settle(ticket, False, wait))
        return None if ticket == UNMADE else ticket

    def remove(self, key: ReadableBuffer, *, timeout: float | None = None) -> int:
        ticket = self._take_out(key, timeout)
        if ticket is None:
            raise KeyError(key)
        return ticket

    def discard(self, key: ReadableBuffer, *, timeout: float | None = None) -> bool:
        return self._take_out(key, timeout) is not None

    def __delitem__(self, key: ReadableBuffer, /) -> None:
        self.remove(key)

    # --- without waiting ---

    def _tried(self, code: int, key: ReadableBuffer, ticket: Any) -> int | None:
        if code == lib.RX_OK:
            return int(ticket[0])
        if code != lib.RX_WOULD_WAIT:
            raise_result(code, key)
        return None

    def _try_store(self, call: Callable[..., int], key: ReadableBuffer, value: ReadableBuffer) -> int | None:
        exact = exact_bytes(key, "key")
        with export(value, "value") as data:
            self._writable()
            ticket = ffi.new("uint64_t *")
            handle, pointer = self._open_handle(), ffi.from_buffer(exact)
            return self._tried(call(handle, self._thread, pointer, len(exact), data, len(data), 0, ticket), key, ticket)

    # As put(), insert() and remove() at once; None where they would have to wait.

    def _try_put(self, key: ReadableBuffer, value: ReadableBuffer) -> int | None:
        return self._try_store(lib.rx_put, key, value)

    def _try_insert(self, key: ReadableBuffer, value: ReadableBuffer) -> int | None:
        return self._try_store(lib.rx_insert, key, value)

    def _try_remove(self, key: ReadableBuffer, /) -> int | None:
        exact = exact_bytes(key, "key")
        self._writable()
        ticket, pointer = ffi.new("uint64_t *"), ffi.from_buffer(exact)
        code = lib.rx_remove(self._open_handle(), self._thread, pointer, len(exact), 0, ticket)
        return self._tried(code, key, ticket)

    # --- many ---

    @overload
    def get_many(self, keys: Iterable[ReadableBuffer]) -> list[bytes | None]: ...
    @overload
    def get_many(self, keys: Iterable[ReadableBuffer], default: Any) -> list[Any]: ...
    @overload
    def get_many(self, keys: Any, default: Any = None, *, dtype: Any) -> Any: ...
    def get_many(self, keys: Any, default: Any = None, *, dtype: Any = None) -> Any:
        self._open_handle()
        if dtype is not None or is_column(keys):
            return self._get_columns(keys, default, dtype)
        return self._get_each(keys, default, encode_key, decode_bytes)

    def _get_each(
        self, keys: Iterable[Any], default: Any, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any], /
    ) -> list[Any]:
        # get_many() of keys that are encoded first, and of values that are decoded
        self._open_handle()
        exact = each_of(keys, lambda key: encode_key(encode(key)))
        room = _allocate("char[]", _ROOM_BYTES)
        values: list[Any] = []
        while len(values) < len(exact):
            chunk = exact[len(values) : len(values) + _CHUNK_ITEMS]
            found = self._get_chunk(chunk, room, len(values))
            if not found:  # the first value does not fit: by itself
                found = [self._fetch(chunk[0])]
            values += each_of(found, lambda data: default if data is None else decode(data), len(values))
        return values

    def _get_chunk(self, keys: list[bytes], room: Any, first: int) -> list[bytes | None]:
        pointers = [ffi.from_buffer(key) for key in keys]
        sizes = ffi.new("uint64_t[]", len(keys))
        done, need = ffi.new("size_t *"), ffi.new("size_t *")
        code = lib.rx_get_many(
            self._open_handle(),
            self._thread,
            len(keys),
            ffi.new("const void *[]", pointers),
            ffi.new("size_t[]", [len(key) for key in keys]),
            room,
            len(room),
            sizes,
            done,
            need,
        )
        if code not in (lib.RX_OK, lib.RX_TOO_SMALL):
            at = min(done[0], len(keys) - 1)
            raise_item(code, keys[at], first + at)
        packed, at = ffi.buffer(room), 0
        values: list[bytes | None] = []
        for size in sizes[0 : done[0]]:
            if size == _ABSENT_SIZE:
                values.append(None)
            else:
                values.append(packed[at : at + size])
                at += size
        return values

    def put_many(self, items: Any, values: Any = None, *, timeout: float | None = None) -> int:
        self._writable()
        if values is not None or is_arrow(items):
            return self._put_columns(items, values, timeout)
        return self._put_pairs(items, timeout, 0)

    def _put_pairs(self, items: Any, timeout: float | None, first: int, /) -> int:
        # put_many() of pairs; first: the number of the first in what is told of errors
        self._writable()
        wait = Wait(timeout)
        pairs: list[tuple[bytes, bytes]] = []
        copied_bytes = 0
        ticket = ffi.new("uint64_t *")
        try:
            for pair in encoded(pairs_of(items), encode_key, encode_bytes, first):
                pairs.append(pair)
                copied_bytes += len(pair[0]) + len(pair[1])
                if len(pairs) >= _CHUNK_ITEMS or copied_bytes >= _COPIED_BYTES:
                    chunk, pairs, copied_bytes = pairs, [], 0
                    first += len(chunk)
                    self._put_chunk(chunk, wait, ticket, first - len(chunk))
        except BaseException as error:
            # It is the one told; before it comes only what ends programs, like Ctrl-C in this very wait.
            if not isinstance(error, Exception):  # such a thing itself waits briefly
                wait.once()
            with contextlib.suppress(Exception):
                self._put_chunk(pairs, wait, ticket, first)
            raise
        self._put_chunk(pairs, wait, ticket, first, last=True)
        number: int = ticket[0]
        return number

    def _put_chunk(
        self, pairs: list[tuple[bytes, bytes]], wait: Wait, ticket: Any, first: int, last: bool = False
    ) -> None:
        keys, values = [ffi.from_buffer(key) for key, _ in pairs], [ffi.from_buffer(value) for _, value in pairs]
        sides = [
            (ffi.new("void *[]", side), ffi.new("size_t[]", [len(each) for each in side])) for side in (keys, values)
        ]
        done, at, slice_ns = ffi.new("size_t *"), 0, 0
        try:
            while at < len(pairs):
                rest = [column + at for side in sides for column in side]
                handle, thread = self._open_handle(), self._thread
                code = lib.rx_put_many(handle, thread, len(pairs) - at, *rest, slice_ns, done, ticket)
                if code == lib.RX_OK:
                    break
                put, done[0] = done[0], 0
                at += put
                if code != lib.RX_WOULD_WAIT:
                    raise_item(code, pairs[at][0] if at < len(pairs) else None, first + at)
                slice_ns = wait.more()
            if last:
                self._settle(ticket, False, wait)
        except BaseException as error:
            if last and ticket[0] and at + done[0] == len(pairs):  # all are put
                made(error, int(ticket[0]))
            raise

    # --- scanning ---

    def scan(
        self,
        start: ReadableBuffer | None = None,
        stop: ReadableBuffer | None = None,
        *,
        prefix: ReadableBuffer | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._scan(start, stop, prefix, reverse, limit, ITEMS)

    def _scan(
        self,
        start: ReadableBuffer | None,
        stop: ReadableBuffer | None,
        prefix: ReadableBuffer | None,
        reverse: bool,
        limit: int | None,
        what: int,
        to_key: Callable[[bytes], Any] | None = None,
        to_value: Callable[[bytes], Any] | None = None,
    ) -> Iterator[Any]:
        if what not in (ITEMS, KEYS, VALUES):
            raise ValueError("what is 0 for items, 1 for keys, 2 for values")
        most = -1
        if limit is not None:
            try:
                most = min(operator.index(limit), _MAX_LIMIT)
            except TypeError:
                raise TypeError(f"limit must be an int or None, not {type(limit).__name__}") from None
            if most < 0:
                raise ValueError("limit must not be negative")
        first, last, stem = (None if bound is None else exact_bytes(bound, "key") for bound in (start, stop, prefix))
        handle = self._open_handle()
        found = self._walk(handle, open_scan(handle, first, last, stem, reverse=bool(reverse), limit=most), what)
        if to_key is None or to_value is None:
            return found
        if what == ITEMS:
            return map(decoding(to_key, to_value), found)
        return map(to_key if what == KEYS else to_value, found)

    def _walk(self, handle: Any, scan: Any, what: int) -> Iterator[Any]:
        batch_items, capacity = _FIRST_ITEMS, _FIRST_BYTES
        room = _allocate("char[]", capacity)
        items, need = ffi.new("size_t *"), ffi.new("size_t *")
        while True:
            if self._handle != handle:
                raise_result(lib.RX_E_CLOSED)
            code = lib.rx_scan_next(
                handle,
                self._thread,
                scan,
                room,
                capacity,
                batch_items,
                what != KEYS,
                items,
                need,
            )
            if code == lib.RX_END:
                return
            if code == lib.RX_TOO_SMALL:
                capacity = max(need[0], capacity)
                room = _allocate("char[]", capacity)
                continue
            if code != lib.RX_OK:
                raise_result(code)
            yield from records(ffi.buffer(room), items[0], what)
            batch_items = min(batch_items * 8, _CHUNK_ITEMS)
            if capacity != _ROOM_BYTES:
                capacity = _ROOM_BYTES
                room = _allocate("char[]", capacity)


def decoding(
    to_key: Callable[[bytes], Any], to_value: Callable[[bytes], Any]
) -> Callable[[tuple[bytes, bytes]], tuple[Any, Any]]:
    """What makes an item of its bytes; what is raised of a value says of which key."""

    def decoded(item: tuple[bytes, bytes]) -> tuple[Any, Any]:
        key = to_key(item[0])
        try:
            return key, to_value(item[1])
        except Exception as error:
            note_key(error, key)
            raise

    return decoded


for _name, _text in TEXTS.items():
    getattr(Door, _name).__doc__ = _text
