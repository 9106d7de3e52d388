"""
Tasks cancelled at random: hypothesis looks for an order of starts, cancellations and waits after which
the index does not hold exactly what the tasks were told.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import rowex
import rowex.aio
from conftest import _fast_folder
from tools import assert_same

KEYS = [b"", b"a", b"ab", b"b" * 300, *(b"n%d" % number for number in range(20))]
ABSENT: Any = object()


class Running:
    """One operation on one key, which no other touches meanwhile."""

    future: Future[None]

    def __init__(self, key: bytes, after: bytes | None) -> None:
        self.key, self.after = key, after  # after: the value if it happens
        self.told: Any = None  # what it was told: "happened", "not", or an exception of another kind
        self.over = threading.Event()


class Machine(RuleBasedStateMachine):
    """Tasks on an index, whose gate is closed by somebody else now and then."""

    backend = "trio"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="rowex-aio-", dir=_fast_folder()))
        self.portal_context = anyio.from_thread.start_blocking_portal(self.backend)
        self.portal = self.portal_context.__enter__()
        self.sync = rowex.open(self.folder / "index", capacity=1 << 20)
        self.index = self.portal.call(self.wrap)
        self.model: dict[bytes, bytes] = {}
        self.running: dict[bytes, Running] = {}
        self.checker: threading.Thread | None = None

    async def wrap(self) -> Any:
        return rowex.aio.Index(self.sync, workers=3)

    async def work(self, operation: Running, call: Callable[[], Any]) -> None:
        try:
            await call()
            operation.told = "happened"
        except BaseException as error:
            cancelled = isinstance(error, anyio.get_cancelled_exc_class())
            operation.told = "happened" if hasattr(error, "ticket") else "not" if cancelled else error
            raise
        finally:
            operation.over.set()

    def start(self, key: bytes, after: bytes | None, call: Callable[[], Any]) -> None:
        operation = self.running[key] = Running(key, after)
        operation.future = self.portal.start_task_soon(self.work, operation, call)

    @rule(key=st.sampled_from(KEYS), size=st.sampled_from([0, 5, 600]), how=st.integers(0, 5), durable=st.booleans())
    def begin(self, key: bytes, size: int, how: int, durable: bool) -> None:
        """Begin a change of a key that nobody changes."""
        if key in self.running:
            self.settle(key)
        before, value = self.model.get(key), os.urandom(size)
        index = self.index

        async def batch() -> None:
            async with index.batch(durable=durable) as batch:
                batch.put(key, value)

        if how == 0:
            self.start(key, value, batch)
        elif how == 1 and before is None:
            self.start(key, value, lambda: index.insert(key, value, durable=durable))
        elif how == 2 and before is not None:
            self.start(key, None, lambda: index.remove(key, durable=durable))
        elif how == 3:
            self.start(key, value, lambda: index.compare_and_set(key, before, value))
        elif how == 4:
            self.start(key, None, lambda: index.pop(key, None))
        else:
            self.start(key, value, lambda: index.put(key, value, durable=durable))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        """Cancel one that may be anywhere in what it does."""
        self.running[data.draw(st.sampled_from(sorted(self.running)))].future.cancel()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def wait(self, data: Any) -> None:
        """Wait for one, and believe what it was told."""
        self.settle(data.draw(st.sampled_from(sorted(self.running))))

    def settle(self, key: bytes) -> None:
        operation = self.running.pop(key)
        assert operation.over.wait(60), f"the operation on {key!r} does not end"
        if operation.told == "happened":
            if operation.after is None:
                self.model.pop(key, None)
            else:
                self.model[key] = operation.after
        else:
            assert operation.told == "not", operation.told

    @rule()
    def close_the_gate(self) -> None:
        """For a while nothing can be written."""
        if self.checker is None or not self.checker.is_alive():
            self.checker = threading.Thread(target=lambda: [self.sync.check() for _ in range(5)])
            self.checker.start()

    def teardown(self) -> None:
        try:
            for key in list(self.running):
                self.settle(key)
            if self.checker is not None:
                self.checker.join()
            assert_same(self.sync, self.model)
            assert not {uid for uid in self.sync.stats().uids if uid.inside}
        finally:
            self.portal.call(self.index.close)
            self.portal_context.__exit__(None, None, None)
            shutil.rmtree(self.folder, ignore_errors=True)


class AsyncioMachine(Machine):
    """On the other loop."""

    backend = "asyncio"


@pytest.mark.limit(400)
@pytest.mark.parametrize("machine", [Machine, AsyncioMachine])
def test_tasks_cancelled_at_random_leave_what_they_were_told(machine: type[Machine], long_run: bool) -> None:
    """An operation that was cancelled has happened or not, as its exception says."""
    from hypothesis.stateful import run_state_machine_as_test

    profile = settings(max_examples=2000 if long_run else 40, stateful_step_count=40)
    run_state_machine_as_test(machine, settings=profile)
