"""
The async index, and opening it.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio

import rowex
from rowex._arguments import seconds
from rowex._native import ffi
from rowex.aio.changing import Changing
from rowex.aio.workers import patiently, run
from rowex.options import Path
from rowex.results import CheckReport, Info, Stats

__all__ = ["Index", "Opening"]

K = TypeVar("K")
V = TypeVar("V")
WORKERS = 8
SLOW_READ_S = 0.001


class Index(Changing[K, V]):
    """
    An index for async programs, made by `rowex.aio.open`; on trio and asyncio.

    What need not wait is done at once on the loop, what waits for others goes to a worker thread.
    Tasks of any loop may use it, also in a forked child.

    Attributes:
        sync: The index below, an `rowex.Index` or `rowex.CodedIndex`.
    """

    def __init__(self, sync: Any, *, workers: int = WORKERS, slow_read: float = SLOW_READ_S) -> None:
        """
        Wrap an open index, as `rowex.memory()` gives it.

        Args:
            sync: An `rowex.Index` or `rowex.CodedIndex`; `close` closes it.
            workers: Calls that may be in threads at once, for each loop, >= 1.
            slow_read: Seconds from which a read that met the disk sends the next ones to a worker, >= 0.

        Raises:
            ClosedError: It is closed.
            ValueError: An argument out of range.
        """
        check_limits(workers, slow_read)
        super().__init__(sync, workers, slow_read)
        self.sync = sync

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

    @property
    def position(self) -> int:
        """The ticket of the last change that anybody made; as `rowex.Index.position`."""
        return self._raw.position

    @property
    def durable(self) -> int:
        """The ticket up to which everything survives the loss of power."""
        return self._raw.durable

    async def wait_durable(self, ticket: int, timeout: float | None = None) -> None:
        """
        Wait until an operation would survive the loss of power.

        Args:
            ticket: What the operation returned, here or in any process.
            timeout: Seconds, >= 0; None: as long as it takes.

        Raises:
            DurabilityError: It never will, because the log could not be written; or there is no log.
            DiskFullError: Not yet, because there is no room for the log.
            TimeoutError: Not yet; the message names who holds it up.
            ClosedError: The index is closed.

        Without a thread a waiter: ten thousand waiters are ten thousand tasks, and one descriptor.
        """
        if isinstance(ticket, bool) or not isinstance(ticket, int):
            raise TypeError(f"a ticket is the int that an operation returned, not {type(ticket).__name__}")
        if not 0 <= ticket < 2**64:
            raise ValueError(f"{ticket} is no ticket")
        waiters = self._state().waiters(self._raw._live_handle())
        if timeout is None:
            await waiters.wait(ticket)
            return
        with anyio.move_on_after(seconds(timeout, "timeout")) as scope:
            await waiters.wait(ticket)
        if scope.cancelled_caught:
            raise waiters.late(ticket, timeout)

    async def flush(self, timeout: float | None = None) -> None:
        """Make everything up to now survive the loss of power; as `wait_durable`."""
        await self.wait_durable(self.position, timeout)

    async def checkpoint(self, *, timeout: float | None = None) -> None:
        """As `rowex.Index.checkpoint`, in a worker, whose start does not count; a task that is cancelled stops it."""
        await run(lambda: self._raw.checkpoint(timeout=timeout), self._state().limiter)

    async def backup(self, target: Path) -> int:
        """As `rowex.Index.backup`, in a worker; a task that is cancelled leaves nothing of the copy."""
        return await run(lambda: self._raw.backup(target), self._state().limiter)

    async def compact(self, *, timeout: float | None = None) -> None:
        """As `rowex.Index.compact`, in a worker."""
        await patiently(lambda left: self._raw.compact(timeout=left), self._state().limiter, timeout)

    async def check(self, *, timeout: float | None = None) -> CheckReport:
        """As `rowex.Index.check`, in a worker."""
        return await patiently(lambda left: self._raw.check(timeout=left), self._state().limiter, timeout)

    async def stats(self) -> Stats:
        """As `rowex.Index.stats`, in a worker."""
        return await run(self._raw.stats, self._state().limiter)

    async def info(self) -> Info:
        """As `rowex.Index.info`, in a worker."""
        return await run(self._raw.info, self._state().limiter)

    async def close(self) -> None:
        """
        Let running calls finish and give the file back; later ones raise ClosedError.

        Raises:
            OSError: The file could not be synced or marked; the index is closed all the same.

        Idempotent.  Not cut short by a cancellation.  Tasks that wait for tickets get ClosedError.
        """
        with anyio.CancelScope(shield=True):
            waiters = self._state().take_waiters()
            watch = await waiters.close() if waiters is not None else None

            def close() -> None:
                try:
                    if watch is not None:
                        ffi.release(watch)
                finally:
                    self._raw.close()

            await run(close, anyio.CapacityLimiter(1))

    async def __aenter__(self) -> Self:
        self._raw._live_handle()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<rowex.aio.Index of {self.sync!r}>"


def check_limits(workers: int, slow_read: float) -> None:
    """ValueError or TypeError where they are out of range."""
    if workers < 1:
        raise ValueError(f"workers={workers}: 1 or more")
    seconds(slow_read, "slow_read")


class Opening(Generic[K, V]):
    """What `rowex.aio.open` returns: `async with` it, or `await` it and close the index."""

    def __init__(self, path: Any, mode: str, workers: int, slow_read: float, options: dict[str, Any]) -> None:
        check_limits(workers, slow_read)
        self._args = (path, mode, options)
        self._limits: dict[str, Any] = {"workers": workers, "slow_read": slow_read}
        self._index: Index[K, V] | None = None

    async def _open(self) -> Index[K, V]:
        path, mode, options = self._args
        sync_open: Any = rowex.open

        def opened() -> Index[K, V]:
            return Index(sync_open(path, mode, **options), **self._limits)

        return await run(opened, late=lambda _, index: index.sync.close())

    def __await__(self) -> Any:
        return self._open().__await__()

    async def __aenter__(self) -> Index[K, V]:
        self._index = await self._open()
        return self._index

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._index is not None:
            await self._index.close()
