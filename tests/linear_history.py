"""
Is a recorded history linearizable?  The checker of fuzz/linear.py, tested by test_linear.py.

Wing and Gong's search with Lowe's memory of what was tried: an operation may come next if no other
that is still to come had returned before it was called.  Some things keep the search small.  Keys
that no batch joins are judged alone (linearizability is compositional).  What found
something and changed nothing is put where that first holds: whatever order there is, moving it
forward to there leaves one.  A value that is overwritten must not be found by anybody who is still to come, if it was
written once.  And of what was in flight when its process was killed, nothing has to come at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NEVER = 1 << 62  # returned: the caller was killed first
State = tuple[int, ...]  # of each key the number of its value, 0 absent

GET, PUT, INSERT, REMOVE, CAS, POP, BATCH = range(7)
NAMES = ("get", "put", "insert", "remove", "compare_and_set", "pop", "batch")


@dataclass(frozen=True)
class Op:
    """
    One operation as its caller saw it.

    Attributes:
        kind: GET and so on.
        called: When it was called.
        returned: When it returned, NEVER if it did not: it may have happened or not.
        key: Number of the key (BATCH: unused).
        value: What is put (CAS: 0 removes).
        expected: CAS: 0 is absent.
        result: The value found (GET, POP), 1 done or 0 not (INSERT, REMOVE, CAS).
        changes: BATCH: key to value, 0 absent afterwards.
        client: For messages.
    """

    kind: int
    called: int
    returned: int
    key: int = 0
    value: int = 0
    expected: int = 0
    result: int = 0
    changes: tuple[tuple[int, int], ...] = ()
    client: int = 0

    @property
    def pending(self) -> bool:
        """Was its caller killed in it?"""
        return self.returned == NEVER

    @property
    def keys(self) -> tuple[int, ...]:
        """The keys that it is about."""
        return tuple(key for key, _ in self.changes) if self.kind == BATCH else (self.key,)

    @property
    def writes(self) -> bool:
        """May it have changed something?"""
        return self.kind in (PUT, BATCH) or (self.kind != GET and bool(self.result or self.pending))

    def __str__(self) -> str:
        what = dict(self.changes) if self.kind == BATCH else f"key {self.key}"
        until = "never" if self.pending else self.returned
        return (
            f"client {self.client} [{self.called}, {until}] {NAMES[self.kind]} {what} value {self.value} "
            f"expected {self.expected}: {self.result}"
        )


def after(state: State, op: Op) -> State | None:
    """The state after *op*, if it can happen at *state* with its result; None if not."""
    if op.kind == BATCH:
        new = list(state)
        for key, value in op.changes:
            new[key] = value
        return tuple(new)
    have, new_value, result = state[op.key], state[op.key], 0
    if op.kind in (GET, POP):
        result = have
        new_value = have if op.kind == GET else 0
    elif op.kind == PUT:
        new_value, result = op.value, op.result
    elif op.kind == INSERT:
        result = int(have == 0)
        new_value = op.value if result else have
    elif op.kind == REMOVE:
        result, new_value = int(have != 0), 0
    elif op.kind == CAS:
        result = int(have == op.expected)
        new_value = op.value if result else have
    if result != op.result and not op.pending:
        return None
    return state if new_value == have else (*state[: op.key], new_value, *state[op.key + 1 :])


class TooHardError(Exception):
    """The search was given up: neither answer is known."""


class Search:
    """The search for an order of operations that one state after the other explains."""

    def __init__(self, ops: Iterable[Op], initial: State, limit: int) -> None:
        ops = sorted(ops, key=lambda op: (op.called, op.returned))
        self.done = [op for op in ops if not op.pending]
        self.pending = [op for op in ops if op.pending and op.writes]
        self.initial = initial
        self.limit = limit
        self.needs = self.finders()
        self.best: tuple[int, list[Op], State] = (-1, [], initial)

    def finders(self) -> dict[tuple[int, int], int]:
        """Who finds a value that was written once: a key and a value to a set of `done`."""
        written: dict[tuple[int, int], int] = dict.fromkeys(enumerate(self.initial), 1)
        for op in (*self.done, *self.pending):
            for change in op.changes or ((op.key, op.value),):
                if op.kind in (PUT, INSERT, CAS, BATCH):
                    written[change] = written.get(change, 0) + 1
        found: dict[tuple[int, int], int] = {}
        for i, op in enumerate(self.done):
            value = op.expected if op.kind == CAS and op.result else op.result if op.kind in (GET, POP) else 0
            if value and written.get((op.key, value), 0) == 1:
                found[op.key, value] = found.get((op.key, value), 0) | 1 << i
        return found

    def hopeless(self, ordered: int, op: Op, state: State, new: State) -> bool:
        """Has *op* overwritten what somebody is still to find?"""
        return any(state[key] != new[key] and self.needs.get((key, state[key]), 0) & ~ordered for key in op.keys)

    def window(self, ordered: int, first: int) -> tuple[list[int], int]:
        """Which returned ones may come next, and the earliest return among those still to come."""
        earliest, found = NEVER, []
        for i in range(first, len(self.done)):
            op = self.done[i]
            if op.called > earliest:
                break
            if not ordered >> i & 1:
                found.append(i)
                earliest = min(earliest, op.returned)
        found = [i for i in found if self.done[i].called <= earliest]
        return sorted(found, key=lambda i: self.done[i].returned), earliest

    def advance(self, ordered: int, first: int, state: State) -> tuple[int, int, list[int], int]:
        """Puts in order all that changes nothing here; what may come next then."""
        while True:
            while first < len(self.done) and ordered >> first & 1:
                first += 1
            candidates, earliest = self.window(ordered, first)
            here = [i for i in candidates if not self.done[i].writes and after(state, self.done[i]) == state]
            if not here:
                return ordered, first, candidates, earliest
            for i in here:
                ordered |= 1 << i

    def run(self) -> bool:
        """Is there an order?"""
        everything = (1 << len(self.done)) - 1
        tried: set[tuple[int, int, State]] = set()
        stack = [(0, 0, 0, self.initial)]
        while stack:
            ordered, killed, first, state = stack.pop()
            ordered, first, candidates, earliest = self.advance(ordered, first, state)
            if ordered == everything:
                return True
            if (ordered, killed, state) in tried:
                continue
            tried.add((ordered, killed, state))
            if len(tried) > self.limit:
                raise TooHardError
            if ordered.bit_count() > self.best[0]:
                self.best = (ordered.bit_count(), [self.done[i] for i in candidates], state)
            for j, op in enumerate(self.pending):
                if op.called <= earliest and not killed >> j & 1:
                    new = after(state, op)
                    if new is not None and new != state and not self.hopeless(ordered, op, state, new):
                        stack.append((ordered, killed | 1 << j, first, new))
            for i in reversed(candidates):
                op, chosen = self.done[i], ordered | 1 << i
                new = after(state, op)
                if new is not None and not self.hopeless(chosen, op, state, new):
                    stack.append((chosen, killed, first, new))
        return False


def groups(ops: Iterable[Op], count: int) -> list[set[int]]:
    """Keys that batches join, each group of which is judged for itself."""
    parent = list(range(count))

    def root(key: int) -> int:
        while parent[key] != key:
            key = parent[key]
        return key

    for op in ops:
        for key in op.keys[1:]:
            parent[root(key)] = root(op.keys[0])
    found: dict[int, set[int]] = {}
    for key in range(count):
        found.setdefault(root(key), set()).add(key)
    return list(found.values())


def violation(ops: list[Op], initial: Mapping[int, int], count: int, limit: int = 40_000) -> str | None:
    """
    Why a history is not linearizable.

    Args:
        ops: The history.
        initial: Key to value at its beginning; others are absent.
        count: Number of keys.
        limit: States to try at most.

    Returns:
        None if it is linearizable; else the operations of which none could come next.

    Raises:
        TooHardError: Undecided at the limit.
    """
    start = tuple(initial.get(key, 0) for key in range(count))
    for group in groups(ops, count):
        search = Search([op for op in ops if op.keys[0] in group], start, limit)
        if not search.run():
            reached, candidates, state = search.best
            told = "\n  ".join(str(op) for op in candidates)
            values = {key: state[key] for key in sorted(group)}
            return f"after {reached} of {len(search.done)} operations, at {values}, none can come next of\n  {told}"
    return None


def overlap(ops: list[Op]) -> int:
    """How many operations ran while another client's was changing one of their keys."""
    met = 0
    active: list[Op] = []
    for op in sorted((op for op in ops if not op.pending), key=lambda op: op.called):
        active = [other for other in active if other.returned > op.called]
        for other in active:
            if other.client != op.client and (op.writes or other.writes) and set(op.keys) & set(other.keys):
                met += 1
                break
        active.append(op)
    return met
