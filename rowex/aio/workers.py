"""
Worker threads for what would stop the loop: calls that wait for others, or for the disk.

A call is stopped from outside by the question that the core asks about every 20 ms: so a task that
is cancelled leaves no call behind that goes on without it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from rowex._arguments import seconds
from rowex.aio.context import bound, task_name
from rowex.events import stop_when

__all__ = ["patiently", "run"]

T = TypeVar("T")
GRACE_S = 0.25  # a call that got a thread tells itself, and better, that the time is over


class Stopped(BaseException):
    """The call was ended because its task goes away; nobody gets to see it."""


class Job(Generic[T]):
    """One call, and how far it has come."""

    result: T

    def __init__(self, call: Callable[[], T], task: str | None) -> None:
        self._call, self._task = call, task
        self._lock = threading.Lock()
        self.interrupt: KeyboardInterrupt | None = None
        self.stopped = self.began = self.over = self.happened = False

    def run(self) -> None:
        """In the worker."""
        with self._lock:
            if self.stopped:
                return
            self.began = True
        try:
            self._check()
            stop_when(self._check)
            with bound(self._task):
                self.result = self._call()
            self.happened = True
        finally:
            stop_when(None)
            self.over = True

    def _check(self) -> None:
        if self.stopped:
            raise Stopped
        try:
            anyio.from_thread.check_cancelled()
        except KeyboardInterrupt as error:  # trio's, told once, and here: a call that is nearly over would lose it
            self.interrupt = error
            raise

    async def stop(self) -> None:
        """
        Have it end, and wait for that: asyncio's own `cancel()`, unlike a scope's, does not wait for threads.
        """
        with self._lock:
            self.stopped = True
            began = self.began
        while began and not self.over:
            with contextlib.suppress(anyio.get_cancelled_exc_class()), anyio.CancelScope(shield=True):
                await anyio.sleep(0.002)


async def run(
    call: Callable[[], T],
    limiter: anyio.CapacityLimiter | None = None,
    *,
    first: Callable[[], T | None] | None = None,
    late: Callable[[BaseException, T], object] | None = None,
) -> T:
    """
    Call something in a worker thread.

    Args:
        call: What may wait.
        limiter: How many of its kind may run at once; None: as many as there are.
        first: Tried on the loop when its turn has come, for by then it may need no thread; None, or
            the result None: it does.
        late: Called with the exception and the result where the task is cancelled, or Ctrl-C comes, although
            there is one.

    Returns:
        Its result.

    Raises:
        BaseException: What it raised; or the task was cancelled, and the call was ended.
    """
    if limiter is None:
        return await _in_thread(call, late)
    mine = object()
    await limiter.acquire_on_behalf_of(mine)
    try:
        if first is not None and (found := first()) is not None:
            return found
        return await _in_thread(call, late)
    finally:
        limiter.release_on_behalf_of(mine)


async def _in_thread(call: Callable[[], T], late: Callable[[BaseException, T], object] | None) -> T:
    job = Job(call, task_name())
    try:
        await anyio.to_thread.run_sync(job.run, limiter=anyio.CapacityLimiter(1))
    except anyio.get_cancelled_exc_class() as error:
        await job.stop()
        if job.happened and late is not None:
            late(error, job.result)
        raise
    except Exception as error:
        if job.interrupt is None or getattr(error, "ticket", None):  # what was made must be told
            raise
        raise job.interrupt from error
    if job.interrupt is not None:
        if late is not None:
            late(job.interrupt, job.result)
        raise job.interrupt
    return job.result


async def patiently(
    call: Callable[[float | None], T],
    limiter: anyio.CapacityLimiter,
    timeout: float | None,
    first: Callable[[], T | None] | None = None,
    late: Callable[[BaseException, T], object] | None = None,
) -> T:
    """
    Call something that takes a timeout in a worker thread.

    Args:
        call: Is given the seconds that are left.
        limiter: How many may run at once.
        timeout: Seconds, >= 0, with the wait for a thread; None: as long as it takes.
        first: As for `run`.
        late: As for `run`.

    Returns:
        Its result.

    Raises:
        TimeoutError: The time is over; nothing was changed.
    """
    if timeout is None:
        return await run(lambda: call(None), limiter, first=first, late=late)
    until = monotonic() + seconds(timeout, "timeout")
    with anyio.move_on_after(timeout + GRACE_S):
        return await run(lambda: call(max(0.0, until - monotonic())), limiter, first=first, late=late)
    raise TimeoutError(f"no worker thread was free within {timeout} s; nothing was changed")
