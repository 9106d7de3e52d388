"""
What an index has of each event loop that uses it: its waiting tasks, and its share of threads.
"""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakKeyDictionary

import anyio
from anyio.lowlevel import RunVar

from rowex.aio.waiters import Waiters

__all__ = ["LoopState", "state_of"]

_states: RunVar[WeakKeyDictionary[Any, LoopState]] = RunVar("rowex.aio")


class LoopState:
    """Of one index in one loop."""

    def __init__(self, workers: int) -> None:
        self.limiter = anyio.CapacityLimiter(workers)
        self.pid = os.getpid()
        self._waiters: Waiters | None = None

    def waiters(self, handle: Any) -> Waiters:
        """Where tasks wait for tickets, made when the first one does."""
        if self._waiters is None or not self._waiters.usable:
            self._waiters = Waiters(handle)
        return self._waiters

    def take_waiters(self) -> Waiters | None:
        """Where they wait, if any ever did; the next to come begins anew."""
        found, self._waiters = self._waiters, None
        return found


def state_of(index: Any, workers: int) -> LoopState:
    """
    The state of *index* in the running loop, made if need be.

    Args:
        index: Anything that can be referred to weakly; the state goes with it, or with the loop.
        workers: How many of its calls may be in threads at once.

    Returns:
        The state.
    """
    states = _states.get(None)
    if states is None:
        states = WeakKeyDictionary()
        _states.set(states)
    state = states.get(index)
    if state is None or state.pid != os.getpid():
        state = states[index] = LoopState(workers)
    return state
