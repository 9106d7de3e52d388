"""
What the owners of keys were told, in memory that outlives them, and the judgement of what is found.

An owner has *units*: single keys (those of tests/ledger.py) and groups of keys that only batches write, all
keys of one at once.  Each unit goes through numbered states, every fourth is absence.  All steps of an owner are
one sequence: a step is entered before the call, with its ticket after it.  Therefore, at any time,

- whoever reads a unit finds the state that was noted before he asked, or a later one, at most one beyond what
  is noted when he has read (P1); who has seen a batch sees nothing older in any key of its group;
- after a death all is as noted, but for the one step that was under way (P4);
- after a power cut there is one point in the order of tickets, not before what anybody was told to be durable,
  such that all steps up to it are there and none after it (P5).

Beside it lies one key that all owners count up by compare-and-set; its number is made of theirs.
"""

from __future__ import annotations

import mmap
import random
from collections.abc import Sequence
from typing import Any

import rowex
from ledger import Ledger
from tools import make_value, read_value

GROUP = 5
TALLY = b"tally"
STEPS = 1 << 16  # of an owner that are remembered
_WORDS = 6
_BEGUN, _RETURNED, _BASE, _TOLD, _CALLED, _COUNTED = range(_WORDS)


def state_of(key: bytes, value: bytes | None) -> int | None:
    """The state that a value belongs to; None: the key is absent."""
    return None if value is None else read_value(key, value)


class Books(Ledger):
    """The books of all owners."""

    def __init__(self, owners: int, singles: int, groups: int, sizes: tuple[int, ...], durability: str) -> None:
        super().__init__(owners, singles + groups, sizes)
        self.singles = singles
        self.logged, self.at_once = durability != "process", durability == "commit"
        self._bits = min(16, 64 // owners)
        self._words = memoryview(mmap.mmap(-1, 8 * owners * (_WORDS + 3 * STEPS))).cast("Q")

    # ---- the words ---------------------------------------------------------------------------------

    def _at(self, owner: int, word: int) -> int:
        return owner * (_WORDS + 3 * STEPS) + word

    def _get(self, owner: int, word: int) -> int:
        return int(self._words[self._at(owner, word)])

    def _set(self, owner: int, word: int, number: int) -> None:
        self._words[self._at(owner, word)] = number

    def _entry(self, owner: int, step: int) -> int:
        return self._at(owner, _WORDS + 3 * (step % STEPS))

    def _step_at(self, owner: int, step: int) -> tuple[int, int, int]:
        """Unit, state and ticket (0: not known) of a step."""
        at = self._entry(owner, step)
        unit, state, ticket = self._words[at : at + 3]
        return int(unit), int(state), int(ticket)

    # ---- the units ---------------------------------------------------------------------------------

    def keys(self, owner: int, unit: int) -> list[bytes]:
        """Of a unit: one, or those of its group, far from each other in the tree."""
        if unit < self.singles:
            return [self.key(owner, unit)]
        stems = (b"a", b"account/%04d" % unit, b"group/", b"long" * 30, b"user:1000")
        return [stem + b"{%d.%d.%d" % (unit, i, owner) for i, stem in enumerate(stems[:GROUP])]

    def content(self, key: bytes, unit: int, state: int) -> bytes | None:
        """What a key of a unit holds in a state; None: it is absent."""
        return None if state % 4 == 0 else make_value(key, state, self.sizes[(state + unit) % len(self.sizes)])

    def is_in(self, found: dict[bytes, bytes | None], owner: int, unit: int, state: int) -> bool:
        """Whether all keys of a unit are in a state."""
        return all(found[key] == self.content(key, unit, state) for key in self.keys(owner, unit))

    def find(self, index: Any, owner: int, unit: int) -> dict[bytes, bytes | None]:
        """What the keys of a unit hold."""
        return {key: index.get(key) for key in self.keys(owner, unit)}

    def show(self, found: dict[bytes, bytes | None], owner: int, unit: int) -> str:
        """For messages."""
        states = ", ".join(str(state_of(key, found[key])) for key in self.keys(owner, unit))
        return f"owner {owner}, unit {unit} ({self.keys(owner, unit)[0]!r}): found {states}"

    # ---- the owner ---------------------------------------------------------------------------------

    def step_unit(self, index: Any, owner: int, unit: int) -> None:
        """
        Bring a unit to its next state.

        Raises:
            DiskFullError: There was no room; nothing has changed.
            TimeoutError: Others held what it needs; nothing has changed.
        """
        number, state = self._get(owner, _BEGUN), self.noted(owner, unit) + 1
        at = self._entry(owner, number)
        self._words[at], self._words[at + 1], self._words[at + 2] = unit, state, 0
        self._set(owner, _BEGUN, number + 1)
        try:
            ticket, told = self._apply(index, owner, unit, state)
        except (rowex.DiskFullError, TimeoutError) as error:
            found = self.find(index, owner, unit)
            if not self.at_once or not self.is_in(found, owner, unit, state):
                self._was_refused(found, owner, unit, state - 1, str(error))
                self._set(owner, _BEGUN, number)
                raise
            ticket, told = 0, False  # at "commit" it was done, only not yet durable
        self._words[at + 2] = ticket
        self.note(owner, unit, state)
        self._set(owner, _RETURNED, number + 1)
        if told:
            self._set(owner, _TOLD, max(ticket, self._get(owner, _TOLD)))

    def _was_refused(self, found: dict[bytes, bytes | None], owner: int, unit: int, state: int, why: str) -> None:
        assert self.is_in(found, owner, unit, state), f"{why}, and yet: {self.show(found, owner, unit)}"

    def _apply(self, index: Any, owner: int, unit: int, state: int) -> tuple[int, bool]:
        """Make the change; its ticket, and whether it is known to be durable.  Some steps have no patience."""
        timeout = 0.02 if (state + unit) % 7 == 0 else None
        if unit >= self.singles:
            with index.batch(timeout=timeout) as batch:
                for key in self.keys(owner, unit):
                    value = self.content(key, unit, state)
                    batch.remove(key) if value is None else batch.put(key, value)
            return batch.ticket, self.at_once
        key = self.key(owner, unit)
        value = self.content(key, unit, state)
        if value is None:
            return index.remove(key, timeout=timeout), self.at_once
        if state % 3 == 0:
            assert index.compare_and_set(key, self.content(key, unit, state - 1), value), f"{key!r}: another's value"
            return 0, False
        if state % 4 == 1:
            return index.insert(key, value, timeout=timeout), self.at_once
        durable = self.logged and state % 16 == 2
        return index.put(key, value, durable=durable, timeout=None if durable else timeout), durable or self.at_once

    def make_durable(self, index: Any, owner: int) -> None:
        """Wait until all that the owner did is durable, and note that."""
        number = self._get(owner, _RETURNED)
        if self.logged:
            position = index.position
            index.wait_durable(position)
            self._set(owner, _TOLD, max(position, self._get(owner, _TOLD)))
        self._set(owner, _BASE, number)

    def must_wait(self, owner: int) -> bool:
        """Whether no more steps can be remembered before some are durable."""
        return self._get(owner, _BEGUN) - self._get(owner, _BASE) > STEPS - 2

    def count_up(self, index: Any, owner: int) -> None:
        """Count, in the key that all count in."""
        while True:
            self.look_at_count(index, owner)
            counted = self._get(owner, _COUNTED)
            seen = index[TALLY]
            number = read_value(TALLY, seen)
            ours = self._shifted(owner, self._own(owner, number) + 1) | number & ~self._shifted(owner, -1)
            self._set(owner, _CALLED, counted + 1)
            if index.compare_and_set(TALLY, seen, make_value(TALLY, ours)):
                self._set(owner, _COUNTED, counted + 1)
                return
            self._set(owner, _CALLED, counted)

    def look_at_count(self, index: Any, owner: int) -> None:
        """The owner's part is what it was told, or one more where it died, or found the disk full, before it was."""
        found = self._own(owner, read_value(TALLY, index[TALLY]))
        counted, called, mask = self._get(owner, _COUNTED), self._get(owner, _CALLED), (1 << self._bits) - 1
        assert found in (counted & mask, called & mask), (
            f"owner {owner} counted {counted}, {found} modulo {mask + 1} found"
        )
        if found == called & mask:
            self._set(owner, _COUNTED, called)
        else:
            self._set(owner, _CALLED, counted)

    def _own(self, owner: int, number: int) -> int:
        return number >> owner * self._bits & (1 << self._bits) - 1

    def _shifted(self, owner: int, number: int) -> int:
        return (number & (1 << self._bits) - 1) << owner * self._bits

    # ---- the judges --------------------------------------------------------------------------------

    def observe(self, index: Any, owner: int, unit: int, rng: random.Random) -> None:
        """Read a unit while its owner may be writing it."""
        low, keys, seen = self.noted(owner, unit), self.keys(owner, unit), []
        if rng.random() < 0.2:  # side by side, in no order among them
            for key, value in zip(keys, index.get_many(keys), strict=True):
                self._judge(owner, unit, key, value, low)
            return
        for key in rng.sample(keys, len(keys)):
            value = index.get(key)
            seen.append(state_of(key, value))
            low = self._judge(owner, unit, key, value, low, seen)

    def _judge(
        self, owner: int, unit: int, key: bytes, value: bytes | None, low: int, seen: Sequence[int | None] = ()
    ) -> int:
        """The least state in which a key is, of which it is known that it is at least in *low*."""
        state = state_of(key, value)
        told = f"owner {owner}, unit {unit}, {key!r}: at least {low} was there, saw {state} after {seen}"
        if state is None:
            low = -(-low // 4) * 4
        else:
            assert state >= low, told
            assert value == self.content(key, unit, state), told
            low = state
        high = self.noted(owner, unit) + 1
        assert low <= high, f"{told}; at most {high} was begun"
        return low

    def audit_owner(self, index: Any, owner: int) -> None:
        """After the owner's death: all is as it was told, but for the step that was under way."""
        self._finish_step(index, owner)
        for unit in range(self.keys_each):
            found = self.find(index, owner, unit)
            state = self.noted(owner, unit)
            assert self.is_in(found, owner, unit, state), f"{self.show(found, owner, unit)}; noted {state}"
        self.look_at_count(index, owner)

    def _finish_step(self, index: Any, owner: int) -> None:
        number = self._get(owner, _RETURNED)
        if self._get(owner, _BEGUN) == number:
            return
        unit, state, _ = self._step_at(owner, number)
        if self.noted(owner, unit) < state and not self.is_in(self.find(index, owner, unit), owner, unit, state):
            self._set(owner, _BEGUN, number)
            return
        self.note(owner, unit, state)
        self._set(owner, _RETURNED, number + 1)

    def everything(self) -> dict[bytes, bytes]:
        """All that must be in the index, the tally not among it."""
        found = {}
        for owner in range(self.writers):
            for unit in range(self.keys_each):
                for key in self.keys(owner, unit):
                    value = self.content(key, unit, self.noted(owner, unit))
                    if value is not None:
                        found[key] = value
        return found

    def judge_cut(self, found: dict[bytes, bytes]) -> int:
        """
        After a power cut, with all owners dead: one point in the order of tickets explains all that is found.

        Args:
            found: What recovery found; the books then say that.

        Returns:
            How many steps were lost that nobody had been told to be durable.
        """
        everything = {
            key: found.get(key) for o in range(self.writers) for u in range(self.keys_each) for key in self.keys(o, u)
        }
        told = max(self._get(owner, _TOLD) for owner in range(self.writers))
        points = [self._points(everything, owner) for owner in range(self.writers)]
        places = sorted({told, *(low for owner in points for _, low, _ in owner)})
        for at in reversed([place for place in places if place >= told]):
            chosen = [[step for step, low, high in owner if low <= at < high] for owner in points]
            if all(chosen):
                lost = sum(self._go_back(owner, steps[-1]) for owner, steps in enumerate(chosen))
                self._count_back(found)
                return lost
        raise AssertionError(f"no point in the order of tickets explains what is found; told {told}, possible {points}")

    def _points(self, found: dict[bytes, bytes | None], owner: int) -> list[tuple[int, int, int]]:
        """After which steps of an owner all its units are as found, with the tickets between which the cut was then."""
        base, end = self._get(owner, _BASE), self._get(owner, _BEGUN)
        steps = [self._step_at(owner, number) for number in range(base, end)]
        states = [self.noted(owner, unit) for unit in range(self.keys_each)]
        for unit, state, _ in reversed(steps):
            states[unit] = state - 1
        fits = [self.is_in(found, owner, unit, state) for unit, state in enumerate(states)]
        points, low = [], 0
        for done in range(len(steps) + 1):
            if done:
                unit, state, ticket = steps[done - 1]
                fits[unit] = self.is_in(found, owner, unit, state)
                low = ticket or low
            if all(fits):
                high = next((ticket for _, _, ticket in steps[done:] if ticket), 1 << 64)
                points.append((base + done, low, high))
        never = [self.show(found, owner, unit) + f", noted {states[unit]}" for unit, fit in enumerate(fits) if not fit]
        assert points, f"owner {owner} was never in the state that is found; not as at the end: {'; '.join(never)}"
        return points

    def _go_back(self, owner: int, number: int) -> int:
        """Make a step the last one; how many came after it."""
        end, returned = self._get(owner, _BEGUN), self._get(owner, _RETURNED)
        for step in range(self._get(owner, _BASE), number):
            unit, state, _ = self._step_at(owner, step)
            self.note(owner, unit, state)
        for step in reversed(range(number, end)):
            unit, state, _ = self._step_at(owner, step)
            self.note(owner, unit, state - 1)
        for word in (_BEGUN, _RETURNED, _BASE):
            self._set(owner, word, number)
        return max(0, returned - number)

    def _count_back(self, found: dict[bytes, bytes]) -> None:
        number = read_value(TALLY, found[TALLY])
        for owner in range(self.writers):
            own, called = self._own(owner, number), self._get(owner, _CALLED)
            behind = (called - own) % (1 << self._bits)
            assert behind <= called, f"owner {owner} counted {called}, {own} found"
            self._set(owner, _CALLED, called - behind)
            self._set(owner, _COUNTED, called - behind)
