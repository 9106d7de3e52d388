"""
An index whose keys or values are not bytes: codecs around an index of bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from rowex._arguments import encoded_keys, is_arrow, note_key, pairs_of
from rowex._door import encoded
from rowex._native import lib
from rowex._ranges import ITEMS
from rowex._views import OrderedMapping
from rowex._waits import ends, left
from rowex.arrays import get_columns, put_columns
from rowex.batch import Batch
from rowex.calls import Calls
from rowex.codecs import Codec
from rowex.columns import Items, is_column
from rowex.errors import DuplicateKeyError, raise_result, returning
from rowex.index import Index, Session
from rowex.loading import load_into
from rowex.options import Path
from rowex.results import CheckReport, Info, Stats
from rowex.scans import scan_columns

__all__ = ["CodedCalls", "CodedIndex", "CodedSession"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
_MISSING: Any = object()


class CodedCalls(OrderedMapping[K, V], Generic[K, V]):
    """The operations of an index of bytes, for keys K and values V; where little is said, see those of `Index`."""

    def __init__(self, raw: Calls, keys: Codec[K], values: Codec[V]) -> None:
        """
        Wrap an index, reader or writer of bytes.

        Args:
            raw: What stores the bytes; this object owns it.
            keys: Codec of the keys.
            values: Codec of the values.
        """
        self._raw, self._keys, self._values = raw, keys, values
        self._key: Callable[[K], bytes] = keys.encode
        self._value: Callable[[V], bytes] = values.encode
        self._to_key: Callable[[bytes], K] = keys.decode
        self._to_value: Callable[[bytes], V] = values.decode

    def __getitem__(self, key: K, /) -> V:
        return self.lookup(key)

    def __setitem__(self, key: K, value: V, /) -> None:
        self._raw[self._key(key)] = self._value(value)

    def __delitem__(self, key: K, /) -> None:
        self.remove(key)

    def __contains__(self, key: Any, /) -> bool:
        return self._raw.exists(self._key(key))

    def __len__(self) -> int:
        return len(self._raw)

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: V) -> V: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The value of *key*, or *default* where it is absent; as `Index.get`, which says more."""
        data = self._raw.get(self._key(key))
        if data is None:
            return default
        try:  # as _value_of(), without its frame
            return self._to_value(data)
        except Exception as error:
            note_key(error, key)
            raise

    def lookup(self, key: K, /) -> V:
        """The value of *key*; KeyError where it is absent; as `Index.lookup`."""
        data = self._raw.get(self._key(key))
        if data is None:
            raise KeyError(key)
        return self._value_of(key, data)

    def exists(self, key: K, /) -> bool:
        """Whether *key* is present; as `Index.exists`."""
        return self._raw.exists(self._key(key))

    def put(self, key: K, value: V, *, timeout: float | None = None, durable: bool = False) -> int:
        """Store *value* under *key*, replacing what was there; the ticket; as `Index.put`, which says more."""
        return self._raw.put(self._key(key), self._value(value), timeout=timeout, durable=durable)

    def insert(self, key: K, value: V, *, timeout: float | None = None, durable: bool = False) -> int:
        """Store *value* under an absent key; the ticket.  DuplicateKeyError where it is present; as `Index.insert`."""
        try:
            return self._raw.insert(self._key(key), self._value(value), timeout=timeout, durable=durable)
        except DuplicateKeyError:
            raise_result(lib.RX_PRESENT, key)  # named as the caller gave it, not as it is stored

    @overload
    def get_many(self, keys: Iterable[K]) -> list[V | None]: ...
    @overload
    def get_many(self, keys: Iterable[K], default: D) -> list[V | D]: ...
    @overload
    def get_many(self, keys: Any, default: Any = None, *, dtype: Any) -> Any: ...
    def get_many(self, keys: Any, default: Any = None, *, dtype: Any = None) -> Any:
        """The values of *keys*, in their order; with a dtype, as arrays; as `Index.get_many`, which says more."""
        if dtype is not None or is_column(keys):
            return get_columns(self._raw, self._keys, self._values, keys, default, dtype)
        return self._raw._get_each(keys, default, self._key, self._to_value)

    @overload
    def put_many(
        self, items: Mapping[K, V] | Iterable[tuple[K, V]], values: None = ..., *, timeout: float | None = ...
    ) -> int: ...
    @overload
    def put_many(self, items: Any, values: Any, *, timeout: float | None = ...) -> int: ...
    def put_many(self, items: Any, values: Any = None, *, timeout: float | None = None) -> int:
        """Put every item, or keys and *values*; the ticket of the last; as `Index.put_many`, which says more."""
        if values is not None or is_arrow(items):
            return put_columns(self._raw, self._keys, self._values, items, values, timeout)
        return self._raw.put_many(encoded(pairs_of(items), self._key, self._value), timeout=timeout)

    def remove_many(self, keys: Iterable[K], *, timeout: float | None = None) -> int:
        """Remove many keys; the ticket of the last removal.  Each removal is atomic, the whole is not."""
        return self._raw.remove_many(encoded_keys(keys, self._key), timeout=timeout)

    def batch(self, *, timeout: float | None = None) -> Batch[K, V]:
        """Several changes at one instant, or none of them; see `Calls.batch`."""
        return self._raw.batch(timeout=timeout)._coded(self._key, self._value)

    def remove(self, key: K, *, timeout: float | None = None) -> int:
        """Remove a key; the ticket.  KeyError where it is absent; as `Index.remove`, which says more."""
        try:
            return self._raw.remove(self._key(key), timeout=timeout)
        except KeyError:
            raise KeyError(key) from None

    def discard(self, key: K, *, timeout: float | None = None) -> bool:
        """Remove a key if it is present; whether it was; as `Index.discard`."""
        return self._raw.discard(self._key(key), timeout=timeout)

    def compare_and_set(self, key: K, expected: V | None, new: V | None, *, timeout: float | None = None) -> bool:
        """
        Change a key's value if it is the expected one; whether it was.

        Args:
            key: Any key.
            expected: The value that it must have, compared as stored bytes; None: it must be absent.
            new: The value that it gets; None: it is removed.
            timeout: Seconds to wait for other writers, >= 0; None: as long as it takes.

        Returns:
            Whether the change was made.
        """
        return self._raw.compare_and_set(
            self._key(key),
            None if expected is None else self._value(expected),
            None if new is None else self._value(new),
            timeout=timeout,
        )

    @overload
    def pop(self, key: K, *, timeout: float | None = ...) -> V: ...
    @overload
    def pop(self, key: K, default: V, *, timeout: float | None = ...) -> V: ...
    @overload
    def pop(self, key: K, default: D, *, timeout: float | None = ...) -> V | D: ...
    def pop(self, key: K, default: Any = _MISSING, *, timeout: float | None = None) -> Any:
        """
        Remove a key and return its value, or *default*; without one, KeyError.

        A value that cannot be decoded stays where it is.  Otherwise as `Calls.pop`.
        """
        name, end = self._key(key), ends(timeout)
        self._raw._write_handle()
        while (data := self._raw.get(name)) is not None:
            value = self._to_value(data)
            with returning(value):
                if self._raw.compare_and_set(name, data, None, timeout=left(end)):
                    return value
        if default is _MISSING:
            raise KeyError(key)
        return default

    def popitem(self, last: bool = True, *, timeout: float | None = None) -> tuple[K, V]:
        """
        Remove the item at one end and return it; KeyError where the index is empty.

        An item that cannot be decoded stays where it is.  Otherwise as `Calls.popitem`.
        """
        end = ends(timeout)
        self._raw._write_handle()
        while (found := self._raw.last() if last else self._raw.first()) is not None:
            item = self._item(found)
            with returning(item):
                if self._raw.compare_and_set(*found, None, timeout=left(end)):
                    return item
        raise KeyError("popitem(): the index is empty")

    def setdefault(self, key: K, default: V, *, timeout: float | None = None) -> V:
        """The value of a key, which is set to *default* first where it is absent."""
        name, data = self._key(key), self._value(default)
        with returning(default):
            return self._value_of(key, self._raw.setdefault(name, data, timeout=timeout))

    def first(self) -> tuple[K, V] | None:
        """The item with the smallest key, or None."""
        return self._item_or_none(self._raw.first())

    def last(self) -> tuple[K, V] | None:
        """The item with the greatest key, or None."""
        return self._item_or_none(self._raw.last())

    def floor(self, key: K) -> tuple[K, V] | None:
        """The item with the greatest key <= *key*, or None."""
        return self._item_or_none(self._raw.floor(self._key(key)))

    def ceiling(self, key: K) -> tuple[K, V] | None:
        """The item with the smallest key >= *key*, or None."""
        return self._item_or_none(self._raw.ceiling(self._key(key)))

    def _value_of(self, key: K, data: bytes) -> V:
        try:
            return self._to_value(data)
        except Exception as error:
            note_key(error, key)
            raise

    def _item(self, item: tuple[bytes, bytes]) -> tuple[K, V]:
        key = self._to_key(item[0])
        return key, self._value_of(key, item[1])

    def _item_or_none(self, item: tuple[bytes, bytes] | None) -> tuple[K, V] | None:
        return None if item is None else self._item(item)

    def scan(
        self,
        start: K | None = None,
        stop: K | None = None,
        *,
        prefix: K | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[K, V]]:
        """
        The items with start <= key < stop, in key order.

        Args:
            start: The smallest key; None: no bound.
            stop: The first key that is too great; None: no bound.
            prefix: Only keys that begin with it: with its characters, or its first elements.
            reverse: From the greatest to the smallest.
            limit: At most so many; None: all.

        Returns:
            An iterator of (key, value).

        Raises:
            TypeError: A bound of the wrong type, or a prefix where keys have none.
        """
        return self._scan(start, stop, prefix, reverse, limit, ITEMS)

    def _scan(
        self, start: K | None, stop: K | None, prefix: K | None, reverse: bool, limit: int | None, what: int
    ) -> Iterator[Any]:
        return self._raw._scan(
            None if start is None else self._key(start),
            None if stop is None else self._key(stop),
            None if prefix is None else self._keys.encode_prefix(prefix),
            reverse,
            limit,
            what,
            self._to_key,
            self._to_value,
        )

    def load(self, items: Any, values: Any = None, *, progress: Callable[[int], object] | None = None) -> int:
        """As `Calls.load`."""
        return load_into(self._raw, self._keys, self._values, items, values, progress)

    def scan_batches(
        self,
        start: K | None = None,
        stop: K | None = None,
        *,
        prefix: K | None = None,
        size: int = 65536,
        keys: Any = None,
        values: Any = None,
    ) -> Iterator[Items]:
        """As `Calls.scan_batches`; integers of the codec int are int64 where no dtype is given."""
        bounds = (
            None if start is None else self._key(start),
            None if stop is None else self._key(stop),
            None if prefix is None else self._keys.encode_prefix(prefix),
        )
        return scan_columns(self._raw, (self._keys, self._values), bounds, size, (keys, values))

    @property
    def position(self) -> int:
        """As `Index.position`."""
        return self._raw.position

    @property
    def durable(self) -> int:
        """As `Index.durable`."""
        return self._raw.durable

    def wait_durable(self, ticket: int, timeout: float | None = None) -> None:
        """As `Index.wait_durable`."""
        self._raw.wait_durable(ticket, timeout)

    def flush(self, timeout: float | None = None) -> None:
        """As `Index.flush`."""
        self._raw.flush(timeout)


class CodedIndex(CodedCalls[K, V]):
    """
    An ordered mapping of K to V in a file; made by `rowex.open` for a file with codecs.

    The methods are those of `Index`; `raw` is the index of bytes below.
    """

    _raw: Index

    @property
    def raw(self) -> Index:
        """The index of bytes below; it is closed with this one."""
        return self._raw

    @property
    def path(self) -> str | None:
        """Of the data file, absolute; None in memory."""
        return self._raw.path

    @property
    def mode(self) -> str:
        """As it was opened."""
        return self._raw.mode

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._raw.closed

    def close(self) -> None:
        """As `Index.close`."""
        self._raw.close()

    def __enter__(self) -> Self:
        self._raw.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        codecs = f"keys={self._keys.name} values={self._values.name}"
        return repr(self._raw).replace("rowex.Index", "rowex.CodedIndex", 1)[:-1] + f" {codecs}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return self._raw.__reduce__()

    def reader(self) -> CodedSession[K, V]:
        """As `Index.reader`."""
        return CodedSession(self._raw.reader(), self._keys, self._values)

    def writer(self) -> CodedSession[K, V]:
        """As `Index.writer`."""
        return CodedSession(self._raw.writer(), self._keys, self._values)

    def stats(self) -> Stats:
        """As `Index.stats`."""
        return self._raw.stats()

    def info(self) -> Info:
        """As `Index.info`."""
        return self._raw.info()

    def check(self, *, timeout: float | None = None) -> CheckReport:
        """As `Index.check`."""
        return self._raw.check(timeout=timeout)

    def compact(self, *, timeout: float | None = None) -> None:
        """As `Index.compact`."""
        self._raw.compact(timeout=timeout)

    def checkpoint(self, *, timeout: float | None = None) -> None:
        """As `Index.checkpoint`."""
        self._raw.checkpoint(timeout=timeout)

    def backup(self, target: Path) -> int:
        """As `Index.backup`."""
        return self._raw.backup(target)


class CodedSession(CodedCalls[K, V]):
    """What `CodedIndex.reader` and `writer` give: what `Index.reader` and `writer` do, for keys K and values V."""

    _raw: Session

    @property
    def raw(self) -> Session:
        """The reader or writer of bytes below; it is closed with this one."""
        return self._raw

    @property
    def uid(self) -> int:
        """Never used twice."""
        return self._raw.uid

    @property
    def closed(self) -> bool:
        """Whether it, or its index, was closed."""
        return self._raw.closed

    def close(self) -> None:
        """Give the uid back.  Idempotent."""
        self._raw.close()

    def __enter__(self) -> Self:
        self._raw.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._raw)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._raw.__reduce__()
