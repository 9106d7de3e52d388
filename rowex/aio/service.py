"""
The command form: readers and writers of their own, which take commands from queues.

Commands of one key are chained: the next goes to a worker when the one before is done, so they keep
their order, however many workers there are.  All that is said here of commands happens on the loop;
a worker only takes one from its queue, does it, and tells.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from rowex._native import lib
from rowex.aio.commands import Command
from rowex.aio.index import Index
from rowex.aio.worker import Ended, Finished, Worker, given_up
from rowex.codecs import decode_bytes, encode_bytes, encode_key
from rowex.coded import CodedIndex
from rowex.errors import ClosedError, DuplicateKeyError, RowexError, made, make_error, raise_result
from rowex.results import Stats

__all__ = ["Service"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
DEATHS = 100  # so many workers may die one after the other without having done anything


class Service(Generic[K, V]):
    """An index in the form of commands; `rowex.aio.serve` makes one."""

    def __init__(self, index: Index[K, V], readers: int, writers: int, backlog: int) -> None:
        """
        Serve an index.

        Args:
            index: Open; it is closed with the service.
            readers: Workers that read, >= 1.
            writers: Workers that write, >= 1; 0 for an index that may only be read.
            backlog: Commands that may wait while nobody awaits them, >= 1.
        """
        self._index = index
        sync = index.sync
        coded = isinstance(sync, CodedIndex)
        self._key: Callable[[Any], bytes] = sync._key if coded else encode_key
        self._value: Callable[[Any], bytes] = sync._value if coded else encode_bytes
        self._to_value: Callable[[bytes], Any] = sync._to_value if coded else decode_bytes
        self._counts = {"reader": readers, "writer": writers}
        self._open = {"reader": sync.reader, "writer": sync.writer}
        self._queues: dict[str, SimpleQueue[Any]] = {"reader": SimpleQueue(), "writer": SimpleQueue()}
        self._backlog = backlog
        self._pid = os.getpid()
        self._workers: list[Worker] = []
        self._told: deque[object] = deque()
        self._rung = False
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._chains: dict[bytes, deque[Command[Any]]] = {}  # the running command of each key, then those after it
        self._made = self._finished = self._unwatched = 0
        self._waiting: list[tuple[int, int, anyio.Event]] = []  # for their number to be within the backlog
        self._closing = False
        self._deaths = 0
        self._changed = anyio.Event()  # set at each thing told, and replaced
        self._broken: BaseException | None = None

    # ---- commands -----------------------------------------------------------------------

    def lookup(self, key: K) -> Command[V]:
        """The value of *key*; KeyError where it is absent."""

        def call(session: Any) -> Any:
            data = session.get(stored)
            if data is None:
                raise KeyError(key)
            return self._to_value(data)

        stored = self._key(key)
        return self._submit("lookup", key, stored, call)

    def exists(self, key: K) -> Command[bool]:
        """Whether *key* is present."""
        stored = self._key(key)
        return self._submit("exists", key, stored, lambda session: session.exists(stored))

    def insert(self, key: K, value: V, *, timeout: float | None = None, durable: bool = False) -> Command[int]:
        """
        Store *value* under an absent key.

        Args:
            key: Absent, else the command fails with DuplicateKeyError.
            value: Any value.
            timeout: Seconds that a writer waits for other processes, >= 0; None: as long as it takes.
            durable: Whether the command is over only when it would survive the loss of power.

        Returns:
            A command, whose result is the durability ticket.

        Raises:
            anyio.WouldBlock: The backlog is full of commands that nobody awaits: await them, or use
                `Command.accepted`.
            ClosedError: The service is closed.
            ReadOnlyError: The index may only be read.
            DurabilityError: It is to be durable, and the file has no log.
            TypeError: The key or the value cannot be stored.

        Key and value are taken as they are now, whatever becomes of a buffer later.
        """

        def call(session: Any) -> int:
            try:
                return int(session.insert(stored, data, timeout=timeout))
            except DuplicateKeyError:
                raise_result(int(lib.RX_PRESENT), key)  # named as the caller gave it

        stored, data = self._key(key), self._value(value)
        return self._change("insert", key, stored, call, timeout, durable)

    def put(self, key: K, value: V, *, timeout: float | None = None, durable: bool = False) -> Command[int]:
        """Store *value* under *key*; as `insert`, but replacing what was there."""
        stored, data = self._key(key), self._value(value)
        return self._change(
            "put", key, stored, lambda session: session.put(stored, data, timeout=timeout), timeout, durable
        )

    def remove(self, key: K, *, timeout: float | None = None, durable: bool = False) -> Command[int]:
        """Remove *key*; as `insert`, but the command fails with KeyError where it is absent."""

        def call(session: Any) -> int:
            try:
                return int(session.remove(stored, timeout=timeout))
            except KeyError:
                raise KeyError(key) from None

        stored = self._key(key)
        return self._change("remove", key, stored, call, timeout, durable)

    def _change(
        self, name: str, key: Any, stored: bytes, call: Callable[[Any], int], timeout: float | None, durable: bool
    ) -> Command[int]:
        self._index._ready(timeout, durable)
        return self._submit(name, key, stored, call, durable or self._index._commit)

    def _submit(
        self, name: str, key: Any, stored: bytes, call: Callable[[Any], T], durable: bool = False
    ) -> Command[T]:
        if self._pid != os.getpid():
            raise make_error(ClosedError, "this service is the parent process's", hint="serve the path here too")
        if self._closing:
            raise make_error(ClosedError, "this service is closed", hint="serve the path again")
        if self._unwatched >= self._backlog:
            raise anyio.WouldBlock(f"{self._unwatched} commands that nobody awaits: await them, or their accepted()")
        writes = name in ("insert", "put", "remove")
        if writes:
            self._index._raw._write_handle()
        command = Command(self, name, key, stored, call)
        command._durable = durable
        self._made += 1
        self._unwatched += 1
        command._number = self._made
        chain = self._chains.get(command._stored)
        if chain is None:
            self._chains[command._stored] = deque((command,))
            self._dispatch(command)
        else:
            chain.append(command)
        return command

    def _dispatch(self, command: Command[Any]) -> None:
        self._queues["reader" if command.name in ("lookup", "exists") else "writer"].put(command)

    def _count_watched(self) -> None:
        """A command is awaited, so its task is held back by it."""
        self._unwatched -= 1

    async def _wait_accepted(self, command: Command[Any]) -> None:
        """Wait until *command* is within the backlog."""
        if command._number <= self._finished + self._backlog:
            await checkpoint()
            return
        event = anyio.Event()
        heappush(self._waiting, (command._number, id(event), event))
        await event.wait()

    # ---- what workers tell ------------------------------------------------------------------

    def _tell(self, thing: object) -> None:
        """From any thread."""
        self._told.append(thing)
        if not self._rung:
            self._rung = True
            os.eventfd_write(self._bell, 1)

    async def _listen(self) -> None:
        """Hear what there is, or wait for it."""
        await anyio.wait_readable(self._bell)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        self._rung = False  # before the look: what is told from here on rings again
        while self._told:
            self._hear(self._told.popleft())
        self._tell_changed()

    def _tell_changed(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _hear(self, thing: object) -> None:
        if isinstance(thing, Finished):
            self._deaths = 0
            self._advance(thing.command)
            if not thing.command._durable or thing.error is not None:
                self._finish(thing.command, thing.result, thing.error)
            elif self._group.cancel_scope.cancel_called:
                self._finish(thing.command, None, given_up_late(thing.result))
            else:
                self._group.start_soon(self._settle, thing.command, thing.result)
        elif isinstance(thing, Ended):
            thing.worker.join()
            self._workers.remove(thing.worker)
            if thing.error is not None:
                self._replace(thing.worker.kind, thing.error)

    def _advance(self, command: Command[Any]) -> None:
        """The next command of its key may be done."""
        chain = self._chains[command._stored]
        chain.popleft()
        if chain:
            self._dispatch(chain[0])
        else:
            del self._chains[command._stored]

    def _finish(self, command: Command[Any], result: Any, error: BaseException | None) -> None:
        self._finished += 1
        if command._finish(result, error):
            self._unwatched -= 1
        self._tell_changed()
        while self._waiting and self._waiting[0][0] <= self._finished + self._backlog:
            heappop(self._waiting)[2].set()

    async def _settle(self, command: Command[Any], ticket: int) -> None:
        """It was changed; now it becomes durable."""
        try:
            await self._index.wait_durable(ticket)
        except Exception as error:
            made(error, ticket)
            self._finish(command, None, error)
        except BaseException:
            self._finish(command, None, given_up_late(ticket))
            raise
        else:
            self._finish(command, ticket, None)

    def _replace(self, kind: str, error: BaseException) -> None:
        """A worker died."""
        self._deaths += 1
        if self._deaths <= DEATHS:
            self._start(kind)
        elif self._broken is None:
            self._broken = error
            self._group.cancel_scope.cancel()

    # ---- life -----------------------------------------------------------------------------------

    @property
    def index(self) -> Index[K, V]:
        """The index below, for all that has no command."""
        return self._index

    @property
    def readers(self) -> tuple[int, ...]:
        """The uids of the workers that read."""
        return tuple(worker.uid for worker in self._workers if worker.kind == "reader" and worker.uid)

    @property
    def writers(self) -> tuple[int, ...]:
        """The uids of the workers that write."""
        return tuple(worker.uid for worker in self._workers if worker.kind == "writer" and worker.uid)

    @property
    def pending(self) -> int:
        """Commands that are not over."""
        return self._made - self._finished

    async def stats(self) -> Stats:
        """As `rowex.aio.Index.stats`; the workers' uids are among its `uids`."""
        return await self._index.stats()

    def _start(self, kind: str) -> None:
        self._workers.append(Worker(kind, self._open[kind], self._queues[kind], self._tell))

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        try:
            for kind, count in self._counts.items():
                for _ in range(count):
                    self._start(kind)
            self._group.start_soon(self._deliver)
            while not all(worker.uid for worker in self._workers):
                await self._changed.wait()
        except BaseException as error:
            await self._end(error)
            raise
        return self

    async def _deliver(self) -> None:
        while True:
            await self._listen()

    async def close(self) -> None:
        """
        Take no more commands, and wait until each that was taken has its result or error.

        Idempotent.  The end of the `async with` block does it too, and then closes the index; where it
        is cancelled, commands that wait or run get ClosedError, and have changed nothing.
        """
        self._closing = True
        while self.pending:
            await self._changed.wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        ending = error
        try:
            await self.close()
        except BaseException as stopped:
            ending = stopped
        swallowed = await self._end(ending)
        if ending is not None and ending is not error and not swallowed:
            raise ending
        return swallowed

    async def _end(self, error: BaseException | None) -> bool:
        """Nothing is left running; whether *error* was only our own group's cancellation."""
        self._closing = True
        self._group.cancel_scope.cancel()
        ours = error if isinstance(error, anyio.get_cancelled_exc_class()) else None
        swallowed: bool | None = False
        try:
            # Others are not handed to the group, which would wrap them.
            if ours is None:
                await self._group.__aexit__(None, None, None)
            else:
                swallowed = await self._group.__aexit__(type(ours), ours, ours.__traceback__)
        finally:
            with anyio.CancelScope(shield=True):
                await self._clear()
        await checkpoint_if_cancelled()  # the group has swallowed a cancellation from outside, too
        if self._broken is not None:
            raise make_error(RowexError, f"the workers of this service die: {self._broken!r}") from self._broken
        return bool(swallowed)

    async def _clear(self) -> None:
        for chain in self._chains.values():  # those that wait for others of their key
            while len(chain) > 1:
                self._finish(chain.pop(), None, given_up())
        for worker in self._workers:
            worker.stop()
            self._queues[worker.kind].put(None)
        while self._workers:
            await self._listen()
        self._give_up_queued()
        os.close(self._bell)
        await self._index.close()

    def _give_up_queued(self) -> None:
        for queue in self._queues.values():
            while not queue.empty():
                command = queue.get()
                if command is not None:
                    self._advance(command)
                    self._finish(command, None, given_up())


def given_up_late(ticket: int) -> Exception:
    """What a command gets that was done, but is not known to be durable."""
    error = make_error(ClosedError, "the service was given up before this change was known to be durable")
    made(error, ticket)
    return error
