"""
What a scenario of test_crashpoints.py is: what the file holds, and the steps in which a process dies.

Plain data, so that both the test, which names them, and the driver, which runs them, can read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tools import make_value

State = dict[bytes, bytes]
Step = tuple[Any, ...]


def keys(prefix: bytes, count: int, start: int = 0) -> list[bytes]:
    """Keys that are children of one node."""
    return [prefix + bytes([i]) for i in range(start, start + count)]


def filled(names: list[bytes], size: int = 24) -> State:
    """A state with these keys."""
    return {name: make_value(name, 0, size) for name in names}


@dataclass(frozen=True)
class Scenario:
    """What the file holds, what the child did before, and the steps in which it dies."""

    base: State
    steps: list[Step]
    prelude: list[Step] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    victim: list[Step] = field(default_factory=list)  # another does these, and
    # dies: first, and has to be reaped; stands: still at a point; comes: while the one that dies stands still once;
    # falls: dies while the other one stands still at its first point
    role: Literal["dies", "stands", "comes", "falls"] = "dies"
    patience_s: float = 0.05  # so long one waits for who stands still
    # Whether there is a log; None: where others are. With one, somebody's flusher may reap before the one that dies.
    logged: bool | None = None
    environment: dict[str, str] = field(default_factory=dict)
    where: tuple[str, ...] = ()  # variants, when not all
    other_boot: bool = False  # the machine was switched off before the steps; nobody else is there


def put(key: bytes, number: int = 1, size: int = 24) -> Step:
    """The step that stores write *number* of a key."""
    return ("put", key, make_value(key, number, size))


MARK = [put(b"mark")]  # the session's first write, so that the scenario is about something else


def variants(scenario: Scenario) -> tuple[str, ...]:
    """Who else has the file open: a process that looks on, one that works on the same nodes, nobody."""
    if scenario.where:
        return scenario.where
    if scenario.other_boot:
        return ("alone",)
    if scenario.role != "dies" or scenario.environment:
        return ("held", "alone")
    if scenario.steps[0][0] in ("open", "create"):
        return ("held", "alone")
    return ("held", "busy", "alone")
