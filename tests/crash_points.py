"""
Which of a scenario's points to die at.  A counted run has told the place in the core of each; a place
is passed once, or thousands of times.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

ROOM = 1 << 20  # points of one run whose places are told


@dataclass(frozen=True)
class Target:
    """Die at the number-th passage of a place; 0: of any."""

    number: int
    place: int = 0


@dataclass(frozen=True)
class Plan:
    """How many deaths: `wanted` (0: every point), or `places` times first, last and random passages of each place."""

    wanted: int = 0
    small: int = 0  # where there are so many points or fewer, every one all the same
    places: int = 0
    briefly: bool = False  # of a place, its first passage does

    def share(self, parts: int) -> Plan:
        """For one of several parts of the work."""
        return replace(self, wanted=self.wanted and max(1, self.wanted // parts), small=0)

    def first(self) -> Plan:
        """For where the other dies, or stands still."""
        return replace(self, wanted=self.wanted and max(4, self.wanted // 4), small=0)


def choose(trail: Sequence[int], plan: Plan, seen: Counter[int], rng: random.Random) -> list[Target]:
    """
    The deaths of one scenario, or of what follows one death of a victim.

    Args:
        trail: The place of each point, in order.
        plan: How many deaths.
        seen: Deaths that each place had before, in this scenario; with `places` they count.
        rng: Chooses.

    Returns:
        Each at most once; few at many places rather than many at few.
    """
    if not (plan.wanted or plan.places or plan.briefly) or len(trail) <= max(plan.small, plan.wanted):
        return [Target(number) for number in range(1, len(trail) + 1)]
    passages = Counter(trail)
    if plan.briefly:
        return [Target(1, place) for place in passages if not seen[place]]
    if plan.places:
        return [
            Target(number, place)
            for place, count in passages.items()
            for number in _ends_and_some(count, plan.places, 3 * plan.places - seen[place], rng)
        ]
    places = sorted(passages)
    rng.shuffle(places)
    left = {place: rng.sample(range(1, passages[place] + 1), min(passages[place], plan.wanted)) for place in places}
    chosen: list[Target] = []
    while len(chosen) < plan.wanted:
        chosen += [Target(left[place].pop(), place) for place in places if left[place]]
    return chosen[: plan.wanted]


def number_in(trail: Sequence[int], target: Target) -> int:
    """The number of a target among all points."""
    passages = [number for number, place in enumerate(trail, 1) if target.place in (0, place)]
    return passages[target.number - 1]


def _ends_and_some(count: int, each: int, most: int, rng: random.Random) -> list[int]:
    """Of 1 to *count*: the first *each*, the last, as many at random; not more than *most*, the first before all."""
    ends = [*range(1, min(each, count) + 1), *range(max(count - each, each) + 1, count + 1)]
    between = range(each + 1, count - each + 1)
    chosen = [*ends, *rng.sample(between, min(each, len(between)))]
    return chosen[: max(0, most)]
