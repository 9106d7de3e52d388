"""
The operations on an index of bytes, with the calling thread's uid or an explicit one.

The frequent ones are inherited from the door (`_door`); the rest is here, over cffi.  Every method
may be called from any thread; none holds the interpreter lock while it waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, overload

from rowex._arguments import UNMADE, each_of
from rowex._door import Door
from rowex._native import ffi, lib
from rowex._ranges import RECORD
from rowex._views import OrderedMapping
from rowex._waits import ends, left, until_done
from rowex.arrays import get_columns, put_columns
from rowex.batch import Batch, batch_attempt
from rowex.codecs import BYTES, KEY_BYTES, encode_bytes, encode_key
from rowex.durable import Tickets, wait_durable
from rowex.errors import ClosedError, made, make_error, raise_result
from rowex.loading import load_into
from rowex.scans import scan_columns

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from rowex.columns import Items

__all__ = ["Calls"]

T = TypeVar("T")

OK, ABSENT, TOO_SMALL = int(lib.RX_OK), int(lib.RX_ABSENT), int(lib.RX_TOO_SMALL)
FIRST, LAST, FLOOR, CEILING = 0, 1, 2, 3  # rx_edge()
ROOM_BYTES, CHUNK_ITEMS = 1024, 1024  # for an answer, before its size is known; keys handed to the core at once
_MISSING: Any = object()
_new_room = ffi.new_allocator(should_clear_after_alloc=False)


class Calls(Door, Tickets, OrderedMapping[bytes, bytes]):
    """What Index, Reader and Writer have in common."""

    _rx: Any = None  # rx_index *; None: closed
    _rx_thread: Any = ffi.NULL
    _readonly: bool = False
    _commit: bool = False  # every change waits until it is durable

    def _bind(self, handle: Any, thread: Any, *, readonly: bool, commit: bool) -> None:
        Door.__init__(self, int(ffi.cast("uintptr_t", handle)), int(ffi.cast("uintptr_t", thread)), readonly, commit)
        self._rx, self._rx_thread, self._readonly, self._commit = handle, thread, readonly, commit

    def _unbind(self) -> None:
        self._rx = None
        self._rebind(0, 0)

    def _live_handle(self) -> Any:
        handle = self._rx
        if handle is None:
            where = getattr(self, "path", None)
            text = f"this {type(self).__name__.lower()} is closed" + (f": {where}" if where else "")
            raise make_error(ClosedError, text, hint="open it again")
        return handle

    def _write_handle(self) -> Any:
        handle = self._live_handle()
        if self._readonly:
            raise_result(int(lib.RX_E_READONLY))
        return handle

    def _settled(self, ticket: int, timeout: float | None) -> int:
        """What was changed, if anything was, is waited for where this handle wants that."""
        if self._commit and ticket:
            try:
                wait_durable(self._live_handle(), self._rx_thread, ticket, timeout)
            except BaseException as error:
                made(error, ticket)
                raise
        return ticket

    def _changed(
        self, attempt: Callable[[int], int], ticket: Any, timeout: float | None, result: Callable[[], T]
    ) -> tuple[int, T | None]:
        """
        One change, and the wait until it is durable; in *ticket* is UNMADE until it is made.

        What is raised after it was made has its ticket, and what *result* tells.  Gives the core's answer, and of what
        was made, what *result* tells: behind this nothing is called any more, an interrupt there would not say so.
        """
        end, told = ends(timeout), None
        try:
            code = until_done(attempt, timeout)
            if code == OK and ticket[0] != UNMADE:  # what is to be absent and is: nothing is changed
                self._settled(int(ticket[0]), left(end))
                told = result()
        except BaseException as error:
            if ticket[0] != UNMADE:  # not the code: an interrupt may come before that is known here
                made(error, int(ticket[0]), result())
            raise
        return code, told

    def _get_columns(self, keys: Any, default: Any, dtype: Any) -> Any:
        return get_columns(self, KEY_BYTES, BYTES, keys, default, dtype)  # the door's get_many, for columns

    def _put_columns(self, keys: Any, values: Any, timeout: float | None) -> int:
        return put_columns(self, KEY_BYTES, BYTES, keys, values, timeout)

    def load(self, items: Any, values: Any = None, *, progress: Callable[[int], object] | None = None) -> int:
        """
        Put many items, and tell how far it is.

        Args:
            items: Pairs (key, value), a mapping, or a record batch of Arrow's; or keys, as `put_many` takes them.
            values: As many values as keys; None: *items* has both.
            progress: Called now and then with the number of items stored so far.

        Returns:
            The ticket of the last.

        Raises:
            Exception: As `put_many`; what came before is put.

        `rowex.build` makes a new index of sorted items several times as fast.
        """
        return load_into(self, KEY_BYTES, BYTES, items, values, progress)

    def scan_batches(
        self,
        start: Buffer | None = None,
        stop: Buffer | None = None,
        *,
        prefix: Buffer | None = None,
        size: int = 65536,
        keys: Any = None,
        values: Any = None,
    ) -> Iterator[Items]:
        """
        The items with start <= key < stop, in key order, as NumPy arrays.

        Args:
            start: The smallest key; None: no bound.
            stop: The first key that is too great; None: no bound.
            prefix: Only keys that begin with it.
            size: Items of a batch, >= 1; the last may have fewer.
            keys: dtype of the keys; None: of any length, as a `Packed`.
            values: dtype of the values, likewise.

        Returns:
            An iterator of `Items`: arrays, or `Packed`, each new.

        Raises:
            TypeError: A dtype that cannot be stored.
            ValueError: While iterating: an item does not fit its dtype.
            ImportError: NumPy is not installed.

        As weak as `scan`: of keys that come and go meanwhile some are given.
        """
        first, last, stem = (None if bound is None else encode_key(bound) for bound in (start, stop, prefix))
        return scan_columns(self, (KEY_BYTES, BYTES), (first, last, stem), size, (keys, values))

    def __len__(self) -> int:
        count = ffi.new("uint64_t *")
        code = lib.rx_count(self._live_handle(), count)
        if code < OK:
            raise_result(code)
        return int(count[0])

    def compare_and_set(
        self, key: Buffer, expected: Buffer | None, new: Buffer | None, *, timeout: float | None = None
    ) -> bool:
        """
        Change a key's value if it is the expected one.

        Args:
            key: Any key.
            expected: The value that it must have; None: it must be absent.
            new: The value that it gets; None: it is removed.
            timeout: As for `remove`.

        Returns:
            Whether the value was as expected, and the change was made.

        Raises:
            TimeoutError: Others held what it needs; nothing was changed, unless it has a `ticket` (see `rowex`).
            DiskFullError: No room; likewise.
            ReadOnlyError: The index may only be read.

        Atomic: no other change of the key comes between the comparison and the change.
        """
        data = encode_key(key)
        old, old_size = _optional(expected)
        value, value_size = _optional(new)
        handle, thread = self._write_handle(), self._rx_thread
        ticket = ffi.new("uint64_t *", UNMADE)
        code, _ = self._changed(
            lambda ns: lib.rx_compare_and_set(
                handle, thread, data, len(data), old, old_size, value, value_size, ns, ticket
            ),
            ticket,
            timeout,
            lambda: True,
        )
        return code == OK

    @overload
    def pop(self, key: Buffer, *, timeout: float | None = ...) -> bytes: ...
    @overload
    def pop(self, key: Buffer, default: bytes, *, timeout: float | None = ...) -> bytes: ...
    @overload
    def pop(self, key: Buffer, default: T, *, timeout: float | None = ...) -> bytes | T: ...
    def pop(self, key: Buffer, default: Any = _MISSING, *, timeout: float | None = None) -> Any:
        """
        Remove a key and return its value.

        Args:
            key: Any key.
            default: Returned where it is absent; without one that is a KeyError.
            timeout: As for `remove`.

        Returns:
            The value, or *default*.

        Raises:
            KeyError: The key is absent and there is no default.
            TimeoutError: Others held what it needs; if it has a `ticket` (see `rowex`), `result` is the value.
            ReadOnlyError: The index may only be read.

        Atomic: of several that pop a key at once, one gets the value.
        """
        value = self._take(key, timeout)
        if value is not None:
            return value
        if default is _MISSING:
            raise KeyError(key)
        return default

    def _take(self, key: Buffer, timeout: float | None, result: Callable[[bytes], object] | None = None) -> Any:
        # result: what the call returns for the value, where that is another thing
        data = encode_key(key)
        handle, thread = self._write_handle(), self._rx_thread
        ticket, size = ffi.new("uint64_t *", UNMADE), ffi.new("size_t *", ROOM_BYTES)
        end = ends(timeout)
        while True:
            capacity = int(size[0])
            room = _new_room("char[]", max(1, capacity))

            def attempt(ns: int, room: Any = room, capacity: int = capacity) -> int:
                return int(lib.rx_take(handle, thread, data, len(data), room, capacity, size, ns, ticket))

            def taken(room: Any = room) -> object:
                value = bytes(ffi.buffer(room, int(size[0])))
                return value if result is None else result(value)

            code, value = self._changed(attempt, ticket, left(end), taken)
            if code == OK:
                return value
            if code == ABSENT:
                return None

    def popitem(self, last: bool = True, *, timeout: float | None = None) -> tuple[bytes, bytes]:
        """
        Remove the item at one end and return it.

        Args:
            last: The last key; False: the first.
            timeout: As for `remove`.

        Returns:
            (key, value).

        Raises:
            KeyError: The index is empty.
            TimeoutError: Others held what it needs; as for `pop`, with the item as `result`.
            ReadOnlyError: The index may only be read.

        Atomic: no two calls get the same item.
        """
        self._write_handle()
        end = ends(timeout)
        while True:
            item = self.last() if last else self.first()
            if item is None:
                raise KeyError("popitem(): the index is empty")
            taken: tuple[bytes, bytes] | None
            taken = self._take(item[0], left(end), partial(lambda name, data: (name, data), item[0]))
            if taken is not None:
                return taken

    def setdefault(self, key: Buffer, default: Buffer = b"", *, timeout: float | None = None) -> bytes:
        """
        The value of a key, which is set first where it is absent.

        Args:
            key: Any key.
            default: The value that it gets where it is absent.
            timeout: As for `remove`.

        Returns:
            The value that the key has now.

        Raises:
            TimeoutError: Others held what it needs; nothing was changed, unless it has a `ticket` (see `rowex`).
            DiskFullError: No room; likewise.
            ReadOnlyError: The index may only be read.

        Atomic: of several at once, one sets the value and all return it.
        """
        name, value = encode_key(key), encode_bytes(default)
        handle, thread = self._write_handle(), self._rx_thread
        ticket, end = ffi.new("uint64_t *", UNMADE), ends(timeout)
        while True:
            found = self.get(name)
            if found is not None:
                return found
            code, _ = self._changed(
                lambda ns: lib.rx_insert(handle, thread, name, len(name), value, len(value), ns, ticket),
                ticket,
                left(end),
                lambda: value,
            )
            if code == OK:
                return value

    def remove_many(self, keys: Iterable[Buffer], *, timeout: float | None = None) -> int:
        """
        Remove many keys, in chunks that loop in the core.

        Args:
            keys: Any number; absent ones are passed over.
            timeout: Seconds to wait for each chunk, and until all are durable, >= 0; None: as long as it takes.

        Returns:
            The durability ticket of the last removal; 0 where nothing was removed, or without a log.

        Raises:
            TypeError: A key is not bytes; chunks before its own were removed.
            TimeoutError: Others held what it needs; the keys before were removed, all if it has a `ticket`.
            ReadOnlyError: The index may only be read.

        Each removal is atomic, the whole is not.  Ctrl-C is answered between chunks.
        """
        self._write_handle()
        ticket, remaining, count = ffi.new("uint64_t *"), iter(keys), 0
        while chunk := each_of(islice(remaining, CHUNK_ITEMS), encode_key, count):
            count += len(chunk)
            self._remove_chunk(chunk, timeout, ticket)
        return self._settled(int(ticket[0]), timeout)

    def _remove_chunk(self, chunk: list[bytes], timeout: float | None, ticket: Any) -> None:
        pointers = ffi.new("void *[]", [ffi.from_buffer(key) for key in chunk])
        sizes = ffi.new("size_t[]", [len(key) for key in chunk])
        done, removed = ffi.new("size_t *"), ffi.new("size_t *")
        handle, thread, at = self._write_handle(), self._rx_thread, 0

        def attempt(ns: int) -> int:
            nonlocal at
            done[0] = removed[0] = 0
            code = lib.rx_remove_many(
                handle, thread, len(chunk) - at, pointers + at, sizes + at, ns, done, removed, ticket
            )
            at += int(done[0])
            return int(code)

        until_done(attempt, timeout)

    def batch(self, *, timeout: float | None = None) -> Batch[Buffer, Buffer]:
        """
        Several changes at one instant, or none of them.

        ::

            with index.batch() as batch:
                batch.put(b"from", b"90")
                batch.put(b"to", b"110")
                batch.remove(b"pending")

        Args:
            timeout: Seconds to wait for other writers at the end of the block, >= 0; None: as long as it takes.

        Returns:
            A batch; it collects in memory, and is applied when the block ends.  Its `ticket` is known then.

        Raises:
            ReadOnlyError: The index may only be read.
            ClosedError: The index is closed.
            TimeoutError: At its end: others held what it needs; nothing was changed, unless it has a `ticket`.
            DiskFullError: At its end: no room; likewise.

        Who has read one of its values reads all of them from then on; a scan, as always, does not
        stand still meanwhile.  Overlapping batches take effect one after the other.
        Cost: O(bytes), with the keys and values twice in memory until it is over.
        """
        self._write_handle()

        def apply(changes: dict[bytes, bytes | None]) -> int:
            ticket = ffi.new("uint64_t *", UNMADE)
            handle = self._write_handle()
            if not changes:
                return 0
            attempt = batch_attempt(handle, self._rx_thread, changes, timeout, ticket)
            self._changed(attempt, ticket, timeout, lambda: None)
            number: int = ticket[0]
            return number

        return Batch(apply, encode_key, encode_bytes)

    def first(self) -> tuple[bytes, bytes] | None:
        """The item with the smallest key, or None."""
        return self._edge(FIRST, b"")

    def last(self) -> tuple[bytes, bytes] | None:
        """The item with the greatest key, or None."""
        return self._edge(LAST, b"")

    def floor(self, key: Buffer) -> tuple[bytes, bytes] | None:
        """The item with the greatest key <= *key*, or None."""
        return self._edge(FLOOR, encode_key(key))

    def ceiling(self, key: Buffer) -> tuple[bytes, bytes] | None:
        """The item with the smallest key >= *key*, or None."""
        return self._edge(CEILING, encode_key(key))

    def _edge(self, which: int, key: bytes) -> tuple[bytes, bytes] | None:
        need = ffi.new("size_t *", ROOM_BYTES)
        while True:
            handle, capacity = self._live_handle(), int(need[0])
            room = _new_room("char[]", capacity)
            code = lib.rx_edge(handle, self._rx_thread, which, key, len(key), room, capacity, need)
            if code == OK:
                break
            if code == ABSENT:
                return None
            if code != TOO_SMALL:
                raise_result(code)
        record = ffi.buffer(room, capacity)
        key_size, _, value_size = RECORD.unpack_from(record)
        start = RECORD.size + key_size
        return record[RECORD.size : start], record[start : start + value_size]


def _optional(value: Buffer | None) -> tuple[Any, int]:
    """A value for the core, where NULL means absent."""
    if value is None:
        return ffi.NULL, 0
    data = encode_bytes(value)
    return data, len(data)
