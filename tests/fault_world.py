"""
An index on a disk that fails, and what it must hold: for fault_driver.py.

What it had been told to be durable is there after the loss of power, together with a prefix of what
came after it; what it could see is there for the next opener on the same boot; reads go on whatever
fails; what has failed for good stays so; and once the disk works again, so does the index, after
being opened anew at the latest.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import rowex
import rowex._native
from power import without_power
from tools import counted

State = dict[bytes, bytes]
CASE_S = 30

_core = ctypes.CDLL(rowex._native.__file__)
_core.rx_fault_arm.argtypes = [ctypes.c_char_p]
_core.rx_fault_arm.restype = None
_core.rx_fault_count.restype = ctypes.c_uint64
_boots = itertools.count()


def calls() -> int:
    """That the plan is about, since it was armed."""
    return int(_core.rx_fault_count())


def arm(plan: str) -> None:
    """From now on, "": nothing fails."""
    _core.rx_fault_arm(plan.encode())


@contextlib.contextmanager
def boot(name: str) -> Iterator[None]:
    """What is opened in it is opened by a machine that was switched off and on."""
    before = os.environ.get("ROWEX_BOOT_ID")
    os.environ["ROWEX_BOOT_ID"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["ROWEX_BOOT_ID"]
        else:
            os.environ["ROWEX_BOOT_ID"] = before


def after_power_loss(path: Path) -> State:
    """What another boot finds in a copy of the files."""
    with boot(f"later {next(_boots)}"), rowex.open(path) as index:
        index.check()
        assert len(index) == counted(index)
        return dict(index.items())


class World:
    """An index under faults, what it may hold, and what it must."""

    def __init__(self, path: Path, state: State) -> None:
        self.path = path
        self.index: rowex.Index | None = None
        self.states = [state]  # one after each change that returned
        self.maybe: State | None = None  # after the one that did not
        self.sure = 0  # of states: told to be durable
        self.tickets: list[int] = []
        self.inode = 0
        self.mode = path.stat().st_mode if path.exists() else 0
        self.dead = False  # the log has failed for good

    def open(self, **options: object) -> rowex.Index:
        """The index; nothing is written out by itself."""
        self.index = rowex.open(self.path, flush_interval=60, **options)
        self.inode = self.path.stat().st_ino
        return self.index

    def close(self) -> None:
        """Afterwards everything is durable."""
        assert self.index is not None
        self.index.close()
        self.sure = len(self.states) - 1

    def change(self, after: State, call: Callable[[], int]) -> int:
        """Perform it; its ticket."""
        self.maybe = after
        ticket = call()
        self.tickets.append(ticket)
        self.maybe = None
        self.states.append(after)
        return ticket

    def put(self, key: bytes, value: bytes, *, wait: bool = True) -> None:
        """One key."""
        index = self.index
        assert index is not None
        ticket = self.change({**self.states[-1], key: value}, lambda: index.put(key, value))
        if wait:
            self.wait(ticket)

    def wait(self, ticket: int) -> None:
        """Until it is durable."""
        assert self.index is not None
        self.index.wait_durable(ticket, timeout=CASE_S / 2)
        assert self.index.durable >= ticket
        self.sure = len(self.states) - 1

    # ---- afterwards ----

    def kept(self) -> list[State]:
        """The states that the loss of power may leave."""
        return self.states[self.sure :] + ([] if self.maybe is None else [self.maybe])

    def look(self, whole: bool, for_good: bool) -> None:
        """Everything that must hold; *whole*: nothing had failed, *for_good*: it still does."""
        index, off = self.index, None
        if index is not None and not index.closed:
            seen = self.read(index)
            assert seen == self.states[-1] or seen == self.maybe
            if seen == self.maybe:
                self.states.append(seen)
            self.maybe = None
            off = without_power(self.path, self.path.parent.with_name("off"))
        arm("")
        if off is not None:
            assert after_power_loss(off) in self.kept(), "after the loss of power at the fault"
        if index is not None and not index.closed:
            self.go_on(index, for_good)
        if whole:
            assert self.maybe is None
            assert not self.dead
        if not self.path.exists():
            assert not self.states[-1]
            return
        off = without_power(self.path, self.path.parent.with_name("off"))
        assert after_power_loss(off) in self.kept(), "after the loss of power"
        self.reopen()

    def read(self, index: rowex.Index) -> State:
        """Whatever fails, reads go on; only a file that was renamed just now must be opened first."""
        try:
            return dict(index.items())
        except (OSError, MemoryError):
            if self.path.stat().st_ino == self.inode:
                raise
            arm("")
            return dict(index.items())

    def go_on(self, index: rowex.Index, for_good: bool) -> None:
        """The disk works again."""
        try:
            index.flush()
        except rowex.DurabilityError:
            self.dead = True
        if self.dead:
            assert for_good, "what failed once can be rewritten"
            lost = [ticket for ticket in self.tickets if ticket > index.durable]
            assert lost
            for ticket in lost:
                refused(lambda ticket=ticket: index.wait_durable(ticket, timeout=1))
                assert index.durable < ticket
            refused(lambda: index.put(b"refused", b""))
            refused(lambda: index.remove(next(iter(self.states[-1]))))
            refused(index.flush)
            assert dict(index.items()) == self.states[-1]
            index.check()
            refused(index.close)
            return
        self.put(b"works again", b"1")
        assert dict(index.items()) == self.states[-1]
        index.check()
        self.close()

    def reopen(self) -> None:
        """On the same boot everything that could be seen is there, and everything works."""
        with rowex.open(self.path, flush_interval=60) as index:
            seen = dict(index.items())
            assert seen == self.states[-1] or seen == self.maybe, "on the same boot"
            index.check()
            index.put(b"reopened", b"1", durable=True)
            off = without_power(self.path, self.path.parent.with_name("off"))
            assert after_power_loss(off) == {**seen, b"reopened": b"1"}, "after a good session"
        assert self.mode in (0, self.path.stat().st_mode), "another mode than before"
        ours = {self.path.name + side for side in ("", "-lock", "-log", "-checkpoint")}
        assert {entry.name for entry in self.path.parent.iterdir()} <= ours, "something is left behind"


def refused(call: Callable[[], object]) -> None:
    """It raises DurabilityError."""
    try:
        call()
    except rowex.DurabilityError:
        return
    raise AssertionError("it was not refused")
