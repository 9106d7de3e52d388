"""
Commands: operations handed to a service, to be awaited, polled or dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

from rowex.aio.context import task_name

if TYPE_CHECKING:
    from rowex.aio.service import Service

__all__ = ["Command"]

T = TypeVar("T")


class Command(Generic[T]):
    """
    One operation of a `Service`; it goes on whether anybody awaits it or not.

    Attributes:
        name: "lookup", "exists", "insert", "put" or "remove".
        key: As it was given.
    """

    name: str
    key: Any

    def __init__(
        self, service: Service[Any, Any], name: str, key: Any, stored: bytes, call: Callable[[Any], T]
    ) -> None:
        """
        Made by a service, in the task that asks for it.

        Args:
            service: Whose it is.
            name: Of the operation.
            key: As the caller gave it.
            stored: As it is stored: commands of one key keep their order.
            call: Does it, with a worker's reader or writer of bytes.
        """
        self.name, self.key = name, key
        self._stored, self._call = stored, call
        self._number = 0  # of the service's commands, from 1
        self._durable = False
        self._context: Context = copy_context()
        self._task = task_name()
        self._service = service
        self._done: anyio.Event | None = None
        self._over = self._watched = False
        self._result: Any = None
        self._error: BaseException | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is no result yet: it waits its turn, or is being done."""
        return not self._over

    def result(self) -> T:
        """
        What it found, or the ticket of its change.

        Returns:
            The result.

        Raises:
            anyio.WouldBlock: It is running.
            Exception: What went wrong; nothing was changed, unless it has a `ticket`: then the change is
                made, but not known to be durable.
        """
        if not self._over:
            raise anyio.WouldBlock
        if self._error is not None:
            raise self._error
        found: T = self._result
        return found

    def __await__(self) -> Generator[Any, Any, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        """A task that is cancelled here leaves the command to itself; it can be awaited again."""
        if not self._over:
            self._watch()
            if self._done is None:
                self._done = anyio.Event()
            await self._done.wait()
        return self.result()

    async def accepted(self) -> None:
        """
        Wait until the service has caught up so far that this command is within its backlog.

        For who drops its commands, and has to be held back: `await service.put(key, value).accepted()`.
        """
        self._watch()
        await self._service._wait_accepted(self)

    def _watch(self) -> None:
        """Somebody holds it, and so is held back by it."""
        if not self._watched and not self._over:
            self._watched = True
            self._service._count_watched()

    def _finish(self, result: T | None, error: BaseException | None) -> bool:
        """On the loop: it is over; whether nobody had watched it."""
        self._over, self._result, self._error = True, result, error
        if self._done is not None:
            self._done.set()
        return not self._watched

    def __repr__(self) -> str:
        state = "running" if not self._over else "failed" if self._error is not None else "done"
        return f"<rowex.aio.Command {self.name} {self.key!r:.100} {state}>"
