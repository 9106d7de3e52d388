"""
Changes: at once, on the loop, where they need not wait; else in a worker thread.

A task is cancelled before its change, or while it waits in a worker, and then nothing was changed;
or while it waits for durability, and then the exception has the change's ticket, and what the call would
have returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any, TypeVar, overload

from rowex._arguments import pair_of, pairs_of, seconds
from rowex._native import lib
from rowex.aio.batches import Batch
from rowex.aio.reading import Reading
from rowex.aio.workers import patiently
from rowex.coded import CodedCalls
from rowex.durable import log_status
from rowex.errors import DuplicateKeyError, made, raise_result

__all__ = ["Changing"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
T = TypeVar("T")
LARGE_BYTES = 1 << 20  # copying more stops the loop for too long
SMALL_BATCH = 64
_MISSING: Any = object()


def _same(data: Any) -> Any:
    return data


def _size(data: Any) -> int:
    """Bytes of a value; 0 of what is none, which the call itself refuses."""
    if type(data) is bytes:
        return len(data)
    try:
        with memoryview(data) as view:
            return view.nbytes
    except TypeError:
        return 0


def _late(error: BaseException, done: tuple[object, int | None]) -> None:
    """The task is cancelled although a change was made, if one was."""
    result, ticket = done
    if ticket is not None:
        made(error, ticket, result)


class Changing(Reading[K, V]):
    """The changing half of `rowex.aio.Index`."""

    def __init__(self, index: Any, workers: int, slow_read: float) -> None:
        """
        Change an index; as `Reading`.

        Args:
            index: An `rowex.Index` or `rowex.CodedIndex`.
            workers: Calls that may be in threads at once, for each loop.
            slow_read: Seconds from which a read that met the disk counts as slow.
        """
        super().__init__(index, workers, slow_read)
        coded = isinstance(self._calls, CodedCalls)
        self._key: Callable[[K], Any] = self._calls._key if coded else _same
        self._value: Callable[[V], Any] = self._calls._value if coded else _same
        self._commit = self._raw._commit

    async def wait_durable(self, ticket: int, timeout: float | None = None) -> None:
        raise NotImplementedError  # Index has it; here is what `_settle` needs to know of it

    async def _settle(self, ticket: int, durable: bool, timeout: float | None, began: float) -> int:
        """What was changed is waited for where that is wanted."""
        if ticket and (durable or self._commit):
            left = None if timeout is None else max(0.0, timeout - (monotonic() - began))
            try:
                await self.wait_durable(ticket, left)
            except BaseException as error:
                made(error, ticket)
                raise
        return ticket

    def _ready(self, timeout: float | None, durable: bool) -> None:
        """Before anything is changed: what was asked for can be had."""
        if timeout is not None:
            seconds(timeout, "timeout")
        if durable:
            log_status(self._raw._live_handle())

    async def _wait_for(
        self,
        call: Callable[[float | None], T],
        timeout: float | None,
        first: Callable[[], T | None] | None,
        late: Callable[[BaseException, T], object],
    ) -> T:
        return await patiently(call, self._state().limiter, timeout, first, late)

    def _at_once(self, call: Callable[[float | None], T]) -> tuple[T, int | None] | None:
        """None: it would have to wait, and nothing was changed."""
        try:
            return self._plain.ticketed(lambda: call(0.0))
        except TimeoutError:
            return None

    async def _change(self, call: Callable[[float | None], T], timeout: float | None, *, at_once: bool = True) -> T:
        """A change whose method tells no ticket, with or without waiting; then durable if that is wanted."""
        began = monotonic()
        self._ready(timeout, False)
        await self._due()
        done = self._at_once(call) if at_once else None
        if done is None:
            again = (lambda: self._at_once(call)) if at_once else None
            done = await self._wait_for(lambda left: self._plain.ticketed(lambda: call(left)), timeout, again, _late)
        result, ticket = done
        if ticket:
            try:
                await self._settle(ticket, False, timeout, began)
            except BaseException as error:
                made(error, ticket, result)
                raise
        return result

    async def _store(
        self,
        at_once: Callable[[Any, Any], int | None],
        store: Callable[..., int],
        name: Any,
        data: Any,
        timeout: float | None,
    ) -> int:
        """It would have to wait, or copies much."""
        first = (lambda: at_once(name, data)) if _size(data) <= LARGE_BYTES else None
        return await self._wait_for(lambda left: store(name, data, timeout=left), timeout, first, made)

    async def put(self, key: K, value: V, *, timeout: float | None = None, durable: bool = False) -> int:
        """
        Store *value* under *key*, replacing what was there.

        Args:
            key: Any key.
            value: Any value.
            timeout: Seconds to wait for others in all, >= 0; None: as long as it takes.
            durable: Whether to wait until it would survive the loss of power.

        Returns:
            The durability ticket; 0 for a file without a log.

        Raises:
            TimeoutError: Others held what it needs, and nothing was changed; or, with `ticket` set, it
                was changed and is not durable yet.
            DiskFullError: No room; nothing was changed.
            ReadOnlyError: The index may only be read.
            ClosedError: The index is closed.

        Atomic.  At once where it need not wait.  A task that is cancelled in it has changed nothing,
        unless the exception has a `ticket`.
        """
        began = monotonic()
        self._ready(timeout, durable)
        await self._due()
        name, data = self._key(key), self._value(value)
        ticket = self._plain._try_put(name, data) if _size(data) <= LARGE_BYTES else None
        if ticket is None:
            ticket = await self._store(self._plain._try_put, self._plain.put, name, data, timeout)
        return await self._settle(ticket, True, timeout, began) if durable or self._commit else ticket

    async def insert(self, key: K, value: V, *, timeout: float | None = None, durable: bool = False) -> int:
        """
        Store *value* under an absent key; as `put`.

        Args:
            key: Absent.
            value: Any value.
            timeout: As for `put`.
            durable: As for `put`.

        Returns:
            The durability ticket.

        Raises:
            DuplicateKeyError: The key is present.
            Exception: As `put`.
        """
        began = monotonic()
        self._ready(timeout, durable)
        await self._due()
        name, data = self._key(key), self._value(value)
        try:
            ticket = self._plain._try_insert(name, data) if _size(data) <= LARGE_BYTES else None
            if ticket is None:
                ticket = await self._store(self._plain._try_insert, self._plain.insert, name, data, timeout)
        except DuplicateKeyError:
            raise_result(int(lib.RX_PRESENT), key)  # named as the caller gave it
        return await self._settle(ticket, durable, timeout, began)

    async def remove(self, key: K, *, timeout: float | None = None, durable: bool = False) -> int:
        """
        Remove a key; as `put`.

        Args:
            key: Present.
            timeout: As for `put`.
            durable: As for `put`.

        Returns:
            The durability ticket.

        Raises:
            KeyError: The key is absent.
            Exception: As `put`.
        """
        began = monotonic()
        self._ready(timeout, durable)
        await self._due()
        name = self._key(key)
        try:
            ticket = self._plain._try_remove(name)
            if ticket is None:
                ticket = await self._wait_for(
                    lambda left: self._plain.remove(name, timeout=left),
                    timeout,
                    lambda: self._plain._try_remove(name),
                    made,
                )
        except KeyError:
            raise KeyError(key) from None
        return await self._settle(ticket, durable, timeout, began)

    async def discard(self, key: K, *, timeout: float | None = None, durable: bool = False) -> bool:
        """Remove a key if it is present, as `remove`; whether it was."""
        try:
            await self.remove(key, timeout=timeout, durable=durable)
        except KeyError:
            return False
        return True

    async def compare_and_set(self, key: K, expected: V | None, new: V | None, *, timeout: float | None = None) -> bool:
        """
        Change a key's value if it is the expected one; as `rowex.Index.compare_and_set`.

        Args:
            key: Any key.
            expected: The value that it must have; None: it must be absent.
            new: The value that it gets; None: it is removed.
            timeout: As for `put`.

        Returns:
            Whether the change was made.
        """
        return await self._change(
            lambda left: bool(self._calls.compare_and_set(key, expected, new, timeout=left)), timeout
        )

    @overload
    async def pop(self, key: K, *, timeout: float | None = ...) -> V: ...
    @overload
    async def pop(self, key: K, default: V, *, timeout: float | None = ...) -> V: ...
    @overload
    async def pop(self, key: K, default: D, *, timeout: float | None = ...) -> V | D: ...
    async def pop(self, key: K, default: Any = _MISSING, *, timeout: float | None = None) -> Any:
        """
        Remove a key and return its value, or *default*; without one, KeyError.  As `remove`.

        An exception that has a `ticket` has the value as `result`.
        """
        found = await self._change(lambda left: self._calls.pop(key, _MISSING, timeout=left), timeout)
        if found is not _MISSING:
            return found
        if default is _MISSING:
            raise KeyError(key)
        return default

    async def popitem(self, last: bool = True, *, timeout: float | None = None) -> tuple[K, V]:
        """Remove the item at one end and return it; KeyError where the index is empty.  As `pop`."""
        item: tuple[K, V] = await self._change(lambda left: self._calls.popitem(last, timeout=left), timeout)
        return item

    async def setdefault(self, key: K, default: V, *, timeout: float | None = None) -> V:
        """The value of a key, which is set to *default* first where it is absent.  As `put`."""
        value: V = await self._change(lambda left: self._calls.setdefault(key, default, timeout=left), timeout)
        return value

    async def put_many(
        self, items: Mapping[K, V] | Iterable[tuple[K, V]], *, timeout: float | None = None, durable: bool = False
    ) -> int:
        """
        Put every item, in order, with a turn for the loop after every few.

        Args:
            items: A mapping, or pairs.
            timeout: As for `put`, for each item.
            durable: Whether to wait until all would survive the loss of power.

        Returns:
            The durability ticket of the last; 0 without a log, or without items.

        Raises:
            Exception: As `put`; the items before were put.

        Each put is atomic, the whole is not.  A task that is cancelled in it has put the first of them.
        """
        self._raw._write_handle()
        self._ready(timeout, durable)
        ticket = 0
        for key, value in map(pair_of, pairs_of(items)):
            name, data = self._key(key), self._value(value)
            await self._due()
            tried = self._plain._try_put(name, data) if _size(data) <= LARGE_BYTES else None
            ticket = await self.put(key, value, timeout=timeout) if tried is None else tried
        return await self._settle(ticket, durable, timeout, monotonic())

    async def remove_many(self, keys: Iterable[K], *, timeout: float | None = None, durable: bool = False) -> int:
        """
        Remove many keys, in order; absent ones are passed over.

        Args:
            keys: Any number.
            timeout: As for `put`, for each key.
            durable: As for `put_many`.

        Returns:
            The durability ticket of the last removal; 0 where there was none, or without a log.
        """
        self._raw._write_handle()
        self._ready(timeout, durable)
        ticket = 0
        for key in keys:
            try:
                await self._due()
                tried = self._plain._try_remove(self._key(key))
                ticket = await self.remove(key, timeout=timeout) if tried is None else tried
            except KeyError:
                continue
        return await self._settle(ticket, durable, timeout, monotonic())

    def batch(self, *, timeout: float | None = None, durable: bool = False) -> Batch[K, V]:
        """
        Several changes at one instant, or none of them.

        ::

            async with index.batch() as batch:
                batch.put(b"from", b"90")
                batch.put(b"to", b"110")

        Args:
            timeout: As for `put`, at the end of the block.
            durable: Whether the end of the block waits until it would survive the loss of power.

        Returns:
            A batch; it collects in memory and is applied at the end of the block.  An exception in
            the block, a cancellation too, discards it.
        """
        self._raw._write_handle()
        self._ready(timeout, durable)

        async def apply(changes: dict[bytes, bytes | None]) -> int:
            def call(left: float | None) -> int:
                return self._plain.batch(timeout=left)._apply(changes)

            began = monotonic()
            small = len(changes) <= SMALL_BATCH
            ticket = await self._change(call, timeout, at_once=small)
            return await self._settle(ticket, durable and not self._commit, timeout, began)

        return Batch(self._calls.batch(), apply)
