"""
The checker that judges recorded histories (linear_history.py): it accepts what can be, and refuses what cannot.
"""

from __future__ import annotations

import itertools
import random

import pytest

from linear_history import BATCH, CAS, GET, INSERT, NEVER, POP, PUT, REMOVE, Op, TooHardError, after, overlap, violation

GOOD: dict[str, list[Op]] = {
    "nothing at all": [],
    "one after the other": [
        Op(PUT, 0, 1, value=5),
        Op(GET, 2, 3, result=5),
        Op(REMOVE, 4, 5, result=1),
        Op(GET, 6, 7, result=0),
    ],
    "a read beside a write sees either": [
        Op(PUT, 0, 10, value=5),
        Op(GET, 1, 2, result=0),
        Op(GET, 3, 4, result=5),
    ],
    "writes that overlap come in either order": [
        Op(PUT, 0, 10, value=5),
        Op(PUT, 1, 9, value=6),
        Op(GET, 11, 12, result=5),
    ],
    "one of two compare-and-sets wins": [
        Op(PUT, 0, 1, value=1),
        Op(CAS, 2, 9, expected=1, value=2, result=1),
        Op(CAS, 3, 8, expected=1, value=3, result=0),
        Op(GET, 10, 11, result=2),
    ],
    "a compare-and-set that removes": [
        Op(PUT, 0, 1, value=1),
        Op(CAS, 2, 3, expected=1, value=0, result=1),
        Op(INSERT, 4, 5, value=2, result=1),
        Op(POP, 6, 7, result=2),
        Op(POP, 8, 9, result=0),
    ],
    "killed, and it happened": [Op(PUT, 0, NEVER, value=5), Op(GET, 100, 101, result=5)],
    "killed, and it did not happen": [Op(PUT, 0, NEVER, value=5), Op(GET, 100, 101, result=0)],
    "killed, and it happened between two reads": [
        Op(PUT, 0, NEVER, value=5),
        Op(GET, 100, 101, result=0),
        Op(GET, 102, 103, result=5),
    ],
    "a write that is overwritten at once": [
        Op(GET, 0, 100, result=5),
        Op(PUT, 10, 20, value=5),
        Op(PUT, 11, 21, value=6),
        Op(GET, 30, 40, result=6),
    ],
    "a batch at one instant": [
        Op(BATCH, 0, 10, changes=((0, 5), (1, 6))),
        Op(GET, 1, 2, key=1, result=0),
        Op(GET, 3, 4, key=0, result=5),
        Op(GET, 5, 6, key=1, result=6),
    ],
    "a write of the same value twice": [
        Op(PUT, 0, 9, value=5),
        Op(PUT, 1, 8, value=6),
        Op(PUT, 2, 7, value=5),
        Op(GET, 10, 11, result=5),
        Op(GET, 12, 13, result=5),
    ],
}

BAD: dict[str, list[Op]] = {
    "a read of what was never written": [Op(PUT, 0, 1, value=5), Op(GET, 2, 3, result=6)],
    "a lost write": [Op(PUT, 0, 1, value=5), Op(GET, 2, 3, result=0)],
    "a stale read": [Op(PUT, 0, 1, value=5), Op(PUT, 2, 3, value=6), Op(GET, 4, 5, result=5)],
    "new, then old again": [
        Op(PUT, 0, 10, value=5),
        Op(GET, 1, 2, result=5, client=1),
        Op(GET, 3, 4, result=0, client=2),
    ],
    "two readers disagree about the order": [
        Op(PUT, 0, 9, value=5),
        Op(PUT, 0, 9, value=6),
        Op(GET, 1, 2, result=5, client=1),
        Op(GET, 3, 4, result=6, client=1),
        Op(GET, 5, 6, result=5, client=2),
    ],
    "both compare-and-sets win": [
        Op(PUT, 0, 1, value=1),
        Op(CAS, 2, 9, expected=1, value=2, result=1),
        Op(CAS, 3, 8, expected=1, value=3, result=1),
    ],
    "a compare-and-set fails though nobody was there": [
        Op(PUT, 0, 1, value=1),
        Op(CAS, 2, 3, expected=1, value=2, result=0),
    ],
    "a key inserted twice": [Op(INSERT, 0, 9, value=5, result=1), Op(INSERT, 1, 8, value=6, result=1)],
    "a value taken twice": [Op(PUT, 0, 1, value=5), Op(POP, 2, 9, result=5), Op(POP, 3, 8, result=5)],
    "removed, and found": [Op(PUT, 0, 1, value=5), Op(REMOVE, 2, 3, result=1), Op(GET, 4, 5, result=5)],
    "killed: seen, and then not": [
        Op(PUT, 0, NEVER, value=5),
        Op(GET, 100, 101, result=5),
        Op(GET, 102, 103, result=0),
    ],
    "killed after it was called, seen before": [Op(GET, 0, 1, result=5), Op(PUT, 2, NEVER, value=5)],
    "half a batch": [
        Op(BATCH, 0, 10, changes=((0, 5), (1, 6))),
        Op(GET, 1, 2, key=0, result=5),
        Op(GET, 3, 4, key=1, result=0),
    ],
    "half a killed batch": [
        Op(BATCH, 0, NEVER, changes=((0, 5), (1, 6))),
        Op(GET, 100, 101, key=0, result=5),
        Op(GET, 102, 103, key=1, result=0),
    ],
    "batches in two orders": [
        Op(BATCH, 0, 9, changes=((0, 5), (1, 5))),
        Op(BATCH, 0, 9, changes=((0, 6), (1, 6))),
        Op(GET, 10, 11, key=0, result=5),
        Op(GET, 10, 11, key=1, result=6),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_history_that_an_order_explains_is_accepted(name: str) -> None:
    """No false alarm."""
    assert violation(GOOD[name], {}, 2) is None


@pytest.mark.parametrize("name", BAD)
def test_history_that_no_order_explains_is_refused(name: str) -> None:
    """And it is told which operations could not come next."""
    assert "none can come next" in str(violation(BAD[name], {}, 2))


def test_first_values_count() -> None:
    """A history begins with what was there."""
    assert violation([Op(GET, 0, 1, result=7)], {0: 7}, 1) is None
    assert violation([Op(GET, 0, 1, result=0)], {0: 7}, 1) is not None


def explains(order: tuple[Op, ...], dropped: set[int]) -> bool:
    """Does this order, without some killed ones, respect time and results?"""
    state: tuple[int, ...] | None = (0, 0)
    for i, op in enumerate(order):
        if i in dropped:
            continue
        if any(later.returned < op.called for j, later in enumerate(order) if j > i and j not in dropped):
            return False
        state = after(state, op) if state is not None else None
        if state is None:
            return False
    return True


def by_hand(ops: list[Op]) -> bool:
    """Every order, every choice of the killed ones: no cleverness."""
    for order in itertools.permutations(ops):
        killed = [i for i, op in enumerate(order) if op.pending]
        for n in range(len(killed) + 1):
            if any(explains(order, set(chosen)) for chosen in itertools.combinations(killed, n)):
                return True
    return False


def some_history(rng: random.Random) -> list[Op]:
    """Five operations, with results that may be right."""
    ops = []
    for client in range(5):
        called = rng.randrange(12)
        returned = NEVER if rng.random() < 0.15 else called + 1 + rng.randrange(8)
        kind = rng.choice([GET, GET, PUT, INSERT, REMOVE, CAS, POP, BATCH])
        result = rng.choice([0, 1, 2]) if kind in (GET, POP) else rng.randrange(2)
        changes = ((0, rng.randrange(3)), (1, rng.randrange(3))) if kind == BATCH else ()
        value, expected = 1 + rng.randrange(2), rng.randrange(3)
        ops.append(Op(kind, called, returned, rng.randrange(2), value, expected, result, changes, client))
    return ops


def test_answer_is_that_of_trying_every_order(rng: random.Random) -> None:
    """On small random histories, good and bad, the clever search agrees with the plain one."""
    seen = {True: 0, False: 0}
    for _ in range(1500):
        ops = some_history(rng)
        expected = by_hand(ops)
        seen[expected] += 1
        assert (violation(ops, {}, 2) is None) == expected, "\n".join(map(str, ops))
    assert min(seen.values()) > 50


def test_search_that_grows_too_large_is_given_up() -> None:
    """Undecided is neither yes nor no."""
    writes = [Op(PUT, 0, 100, value=1 + i, client=i) for i in range(12)]
    reads = [Op(GET, 200 + i, 200 + i, result=99) for i in range(1)]
    with pytest.raises(TooHardError):
        violation([*writes, *reads], {}, 1, limit=50)


def test_overlap_counts_what_met_a_writer() -> None:
    """Reads alone are no contention; nor are other keys, nor one client's own."""
    put, get = Op(PUT, 0, 10, value=1, client=1), Op(GET, 5, 6, result=1, client=2)
    assert overlap([put, get]) == 1
    assert overlap([Op(GET, 0, 10, client=1), get]) == 0
    assert overlap([put, Op(GET, 5, 6, key=1, client=2)]) == 0
    assert overlap([put, Op(GET, 5, 6, client=1)]) == 0
    assert overlap([put, Op(GET, 11, 12, client=2)]) == 0
