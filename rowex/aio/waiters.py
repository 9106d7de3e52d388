"""
Tasks that wait until tickets are durable: one descriptor for all of a loop, and no thread a task.

The core's watch makes the descriptor readable when something became durable, or will not be.  One
of the waiting tasks, the reader, sleeps on it, and tells the others; when it leaves, told or
cancelled, another becomes the reader.  So nothing runs while nobody waits, and no background task
is needed.
"""

from __future__ import annotations

import os
from heapq import heapify, heappop, heappush
from typing import Any

import anyio

from rowex._native import ffi, lib
from rowex.errors import ClosedError, make_error, raise_result

__all__ = ["Waiters"]

OK, WOULD_WAIT = int(lib.RX_OK), int(lib.RX_WOULD_WAIT)
MANY_GONE = 1024


class Waiter:
    """One task that waits."""

    __slots__ = ("error", "event", "gone", "told")

    def __init__(self, event: anyio.Event) -> None:
        self.event = event
        self.told = self.gone = False
        self.error: Exception | None = None

    def tell(self, error: Exception | None) -> None:
        """Its ticket is durable, or *error* says why it is not."""
        self.told, self.error = True, error
        self.event.set()


class Waiters:
    """The waiting tasks of one loop of one process, on one index."""

    def __init__(self, handle: Any) -> None:
        """
        Begin with none.

        Args:
            handle: A rx_index pointer that keeps what it points to.

        Raises:
            ClosedError: The index is closed.
            OSError: There is no descriptor.
            MemoryError: There is no memory, or no thread.
        """
        out = ffi.new("rx_watch **")
        code = lib.rx_watch_open(handle, out)
        if code < OK:
            raise_result(code)
        self._handle = handle  # which must outlive the watch
        self._watch: Any = ffi.gc(out[0], lib.rx_watch_close)
        self._fd = int(lib.rx_watch_fd(self._watch))
        self._pid = os.getpid()
        self._heap: list[tuple[int, int, Waiter]] = []  # (ticket, arrival, waiter)
        self._gone = self._arrivals = 0
        self._asked: tuple[int, int] | None = None  # round, and the arrivals that it is for
        self._reader: Waiter | None = None
        self._new_event: type[anyio.Event] = type(anyio.Event())  # this loop's kind: asking costs as much as waiting

    def __len__(self) -> int:
        """How many wait."""
        return len(self._heap) - self._gone

    @property
    def usable(self) -> bool:
        """Whether it is open, and this process's."""
        return self._watch is not None and self._pid == os.getpid()

    async def wait(self, ticket: int) -> None:
        """
        Wait until what a ticket stands for is durable.

        Args:
            ticket: What an operation returned.

        Raises:
            Exception: As `Index.wait_durable`, but for its timeout.
        """
        code = lib.rx_is_durable(self._handle, ticket)
        if code == OK:
            return
        if code != WOULD_WAIT:
            raise_result(code)
        waiter = Waiter(self._new_event())
        self._arrivals += 1
        heappush(self._heap, (ticket, self._arrivals, waiter))
        if self._asked is None:
            self._ask()
        try:
            while not waiter.told:
                if self._reader is None:
                    await self._read(waiter)
                else:
                    await waiter.event.wait()
                    waiter.event = waiter.event if waiter.told else self._new_event()
        finally:
            self._leave(waiter)
        if waiter.error is not None:
            raise waiter.error

    def _ask(self) -> None:
        """For all who wait, once between two looks: what the watch makes durable is all that was changed."""
        asked = ffi.new("uint64_t *")
        code = lib.rx_watch_ask(self._watch, self._heap[0][0], asked)
        if code != OK:
            self._asked = int(asked[0]), self._arrivals
        if code != WOULD_WAIT:  # it has just become durable, or all is over: to be seen at once
            os.eventfd_write(self._fd, 1)

    async def _read(self, waiter: Waiter) -> None:
        self._reader = waiter
        try:
            await anyio.wait_readable(self._fd)
        finally:
            self._reader = None
        if self._watch is not None:
            self._look()

    def _look(self) -> None:
        durable, failed = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        code = lib.rx_watch_look(self._watch, durable, failed)
        upto, asked, self._asked = int(durable[0]), self._asked, None
        while self._heap and self._heap[0][0] <= upto:
            self._tell(heappop(self._heap)[2], None)
        if code < OK and asked is not None and asked[0] <= int(failed[0]):
            for _, arrival, waiter in self._heap:
                if arrival <= asked[1]:
                    self._tell(waiter, _failure(code))
            self._heap = [item for item in self._heap if item[1] > asked[1]]
            heapify(self._heap)
        if self._heap:
            self._ask()

    def _tell(self, waiter: Waiter, error: Exception | None) -> None:
        if waiter.gone:
            self._gone -= 1
        else:
            waiter.tell(error)

    def _leave(self, waiter: Waiter) -> None:
        if not waiter.told:
            waiter.gone = True
            self._gone += 1
            if self._gone > max(MANY_GONE, len(self._heap) // 2):
                self._heap = [item for item in self._heap if not item[2].gone]
                heapify(self._heap)
                self._gone = 0
        if self._reader is None:
            self._pass_on()

    def _pass_on(self) -> None:
        """Wake somebody, who then reads."""
        while self._heap and self._heap[-1][2].gone:
            self._heap.pop()
            self._gone -= 1
        if self._heap:
            self._heap[-1][2].event.set()

    def late(self, ticket: int, timeout: float) -> Exception:
        """The exception of a wait whose time is over; it names who holds it up."""
        error = _failure(int(lib.rx_watch_late(self._watch)))
        error.add_note(f"ticket {ticket} was waited for {timeout} s")
        return error

    async def close(self) -> Any:
        """
        Tell all that it is over.

        Returns:
            The watch, which is to be closed where waiting a moment does no harm; None: it was.
        """
        if not self.usable:
            return None
        watch, self._watch = self._watch, None
        heap, self._heap = self._heap, []
        for _, _, waiter in heap:
            self._tell(waiter, make_error(ClosedError, "this index is closed", hint="open it again"))
        with anyio.CancelScope(shield=True):
            while self._reader is not None:  # its descriptor must not be another's when it wakes
                os.eventfd_write(self._fd, 1)
                await anyio.lowlevel.checkpoint()
        return watch


def _failure(code: int) -> Exception:
    try:
        raise_result(code)
    except Exception as error:
        return error
