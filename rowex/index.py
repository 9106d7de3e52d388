"""
Handles on an index of bytes: Index, and the Reader and Writer that it gives.

A handle's `rx_index` lives until the handle is collected, not only until it is closed: a thread
that is on its way into the core when another closes the handle still finds it, and is told that it
is closed.
"""

from __future__ import annotations

import os
import warnings
import weakref
from types import TracebackType
from typing import Any, Self

from rowex._native import ffi, lib
from rowex.admin import check, compact, info, stats
from rowex.calls import Calls
from rowex.durable import backup, checkpoint
from rowex.errors import RowexError, raise_reader, raise_result
from rowex.events import interrupt_soon
from rowex.options import Path
from rowex.results import CheckReport, Info, Stats

__all__ = ["Index", "Reader", "Session", "Writer"]

READER, WRITER = 2, 3  # index.h, rx_thread_open()


class Index(Calls):
    """
    An ordered mapping of bytes to bytes in a file; made by `rowex.open` and `rowex.memory`.

    It is a MutableMapping in key order.  Keys and values may be any contiguous buffer, results are
    bytes.  Use it from any thread, in forked children, and, pickled, in other processes.

    Attributes:
        path: Of the data file, absolute; None in memory.
        mode: As it was opened: "c", "r", "w" or "n".
    """

    path: str | None
    mode: str
    _owner: Any = None
    _recipe: tuple[Any, ...] | None
    _pid: int

    def __init__(
        self, handle: Any, path: str | None, mode: str, recipe: tuple[Any, ...] | None, *, commit: bool = False
    ) -> None:
        """
        Take over a handle of the core; users call `rowex.open`.

        Args:
            handle: A rx_index pointer; this object closes and frees it.
            path: Of the data file, absolute; None in memory.
            mode: As it was opened.
            recipe: How it is unpickled, as `__reduce__` returns it; None: not at all.
            commit: Whether every change waits until it is durable.
        """
        self._owner = ffi.gc(handle, lib.rx_free)
        self.path, self.mode, self._recipe = path, mode, recipe
        self._pid = os.getpid()
        self._sessions: weakref.WeakValueDictionary[int, Session] = weakref.WeakValueDictionary()
        self._bind(self._owner, ffi.NULL, readonly=mode == "r", commit=commit)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._rx is None

    def close(self) -> None:
        """
        Let running calls finish and give the file back; later calls raise ClosedError.

        Raises:
            OSError: The file could not be synced or marked; the handle is closed all the same.

        Idempotent.  Readers and writers of this handle are closed with it.  The last of all users
        marks the file as closed cleanly.
        """
        if self._rx is None:
            return
        code = lib.rx_close(self._owner)
        if code < 0 and not lib.rx_is_closed(self._owner):  # refused: called from inside one of its own calls
            raise_result(code)
        self._unbind()
        for session in list(self._sessions.values()):
            session.close()
        if code < 0:
            raise_result(code)

    def __enter__(self) -> Self:
        self._live_handle()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._owner is None or self._rx is None:
            return
        if self._pid == os.getpid():  # a forked child was given it, and need not close it
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        try:
            self.close()
        except KeyboardInterrupt:  # would be printed and forgotten here
            interrupt_soon()

    def __repr__(self) -> str:
        name = f"{type(self).__module__.split('.')[0]}.{type(self).__name__}"
        where = "in memory" if self.path is None else repr(self.path)
        if self._rx is None:
            return f"<{name} {where} mode={self.mode!r} closed>"
        try:
            count = str(len(self))
        except (RowexError, OSError):
            count = "?"
        return f"<{name} {where} mode={self.mode!r} count={count}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._recipe is None:
            raise TypeError("an index in memory cannot be pickled; forked children share it")
        return self._recipe

    def reader(self) -> Reader:
        """
        A reader with a uid of its own.

        Returns:
            An object with the reading methods and those that wait for tickets, to be closed; `with` does it.

        Raises:
            ClosedError: The index is closed.
            RowexError: The table of uids is full.

        It serves one thread at a time.
        """
        return Reader(self, READER)

    def writer(self) -> Writer:
        """
        A writer with a uid of its own.

        Returns:
            An object with the methods of the index that read, change and wait for tickets, to be closed;
            `with` does it.  What is about the index as a whole stays there: `stats`, `info`, `check`,
            `compact`, `checkpoint`, `backup`, `reader`, `writer`.

        Raises:
            ReadOnlyError: The index may only be read.
            ClosedError: The index is closed.
            RowexError: The table of uids is full.

        It serves one thread at a time.
        """
        self._write_handle()
        return Writer(self, WRITER)

    def stats(self) -> Stats:
        """
        The index in numbers; walks the tree without holding anybody up.

        Returns:
            The numbers, taken while others may write.

        Raises:
            CorruptionError: A node that was met is damaged.
            ClosedError: The index is closed.
        """
        return stats(self._live_handle())

    def info(self) -> Info:
        """
        What the index is: superblock, sizes, options.

        Returns:
            The facts.

        Raises:
            ClosedError: The index is closed.
        """
        return info(self._live_handle(), self.path, self.mode)

    def check(self, *, timeout: float | None = None) -> CheckReport:
        """
        Walk everything: structure, order, reachability against allocation, checksums, length.

        Args:
            timeout: Seconds to wait for writers to pause, >= 0; None: as long as it takes.

        Returns:
            A report, where there is no fault.

        Raises:
            CorruptionError: With every fault found, in `faults`.
            TimeoutError: A writer did not pause.
            ClosedError: The index is closed.

        Writers wait while it works where the handle may write.  Cost: O(file).
        """
        return check(self._live_handle(), self.path, timeout)

    def compact(self, *, timeout: float | None = None) -> None:
        """
        Copy what is alive to a dense new file and rename it over the old one.

        Args:
            timeout: Seconds to wait for writers to pause, >= 0; None: as long as it takes.

        Raises:
            TimeoutError: A writer did not pause; nothing was changed.
            DiskFullError: No room for the copy; nothing was changed.
            ReadOnlyError: The index may only be read.
            ClosedError: The index is closed.

        Readers go on, writers wait.  Cost: O(live data).
        """
        compact(self._write_handle(), timeout)

    def checkpoint(self, *, timeout: float | None = None) -> None:
        """
        Write a checkpoint, from which recovery begins, and drop the log before it.

        Args:
            timeout: Seconds to wait for the log, >= 0; None: as long as it takes.

        Raises:
            TimeoutError: The log could not be written so far, the message names who holds it up.
            DurabilityError: The file has no log, or it could not be written.
            DiskFullError: No room; the checkpoint before and its log stay as they are.
            ReadOnlyError: The index may only be read.
            ClosedError: The index is closed.

        Holds nobody.  One is made by itself whenever the log has grown by the size of the data.
        If another is being made just now, nothing is done.  Cost: O(data).
        """
        checkpoint(self._write_handle(), timeout)

    def backup(self, target: Path) -> int:
        """
        Make a copy that holds what the index holds at one instant, while others change it.

        Args:
            target: Path of the copy; nothing may be there.

        Returns:
            The ticket of the last change that is in the copy, by the end of the call at the latest;
            0 where the file has no log.

        Raises:
            FileExistsError: There is something at *target*.
            CorruptionError: A key or value is damaged.
            DiskFullError: No room for the copy or the log; nothing is left of the copy.
            DurabilityError: The log could not be written.
            ClosedError: The index is closed.

        The copy is one clean, synced file with the same codecs and durability, a UUID of its own and
        no sidecars.  Holds nobody; no checkpoint is made meanwhile.  Without a log it is what
        `rowex.copy` makes: all keys that were there all the time, of others some.  Ctrl-C stops it
        within 100 ms; nothing is left of it then.  Cost: O(live data).
        """
        return backup(self._live_handle(), target)


class Session(Calls):
    """
    A uid of its own on an index.

    Attributes:
        index: The index that it was made from, kept open by nobody but its owner.
        uid: Never used twice.
    """

    index: Index
    uid: int

    def __init__(self, index: Index, kind: int) -> None:
        """
        Take a uid; users call `Index.reader` or `Index.writer`.

        Args:
            index: Open.
            kind: READER or WRITER.

        Raises:
            ClosedError: The index is closed.
            RowexError: The table of uids is full.
        """
        handle, out = index._live_handle(), ffi.new("rx_thread **")
        code = lib.rx_thread_open(handle, kind, out)
        if code < 0:
            raise_result(code)
        self.index = index
        self.uid = int(lib.rx_thread_uid(handle, out[0]))
        self._pid = os.getpid()
        self._bind(handle, out[0], readonly=index._readonly or kind == READER, commit=index._commit)
        index._sessions[id(self)] = self

    @property
    def closed(self) -> bool:
        """Whether it, or its index, was closed."""
        return self._rx is None

    def close(self) -> None:
        """Give the uid back; later calls raise ClosedError.  Idempotent."""
        handle = self.__dict__.pop("_rx", None)  # at once: two threads may both close it
        if handle is None:
            return
        thread = self._rx_thread
        self._unbind()
        self._rx_thread = ffi.NULL
        self.index._sessions.pop(id(self), None)
        lib.rx_thread_close(handle, thread)

    def __enter__(self) -> Self:
        self._live_handle()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._rx is None:
            return
        if self._pid == os.getpid():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        self.close()

    def __repr__(self) -> str:
        state = " closed" if self._rx is None else ""
        return f"<rowex.{type(self).__name__} uid={self.uid} of {self.index!r}{state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"a {type(self).__name__.lower()} cannot be pickled; pickle its index")


class Reader(Session):
    """What `Index.reader` gives: the methods that read, or wait for tickets, under a uid of its own."""

    def _write_handle(self) -> Any:
        self._live_handle()
        raise_reader()


class Writer(Session):
    """What `Index.writer` gives: the methods that read, change, or wait for tickets, under a uid of its own."""
