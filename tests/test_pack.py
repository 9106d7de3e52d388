"""
`pack`: many bytes objects as one, for what takes columns.
"""

from __future__ import annotations

import array
import itertools
from typing import Any

import pytest

from doors import NAMES, door_module

WRONG = (bytearray(b"x"), None, 1, "x", type("Mine", (bytes,), {})(b"x"))
NO_PAIRS = [[b"a", b"b"], (b"a",), (b"a", b"b", b"c"), b"ab"]


@pytest.mark.parametrize("side", [-1, 0, 1])
def test_objects_are_packed(rng: Any, side: int) -> None:
    """Both doors make the same of rows of one size, of many, of none; what is not exact bytes is not packed."""
    packs = [door_module(name).pack for name in NAMES]

    def row(item: object) -> object:
        return item if side < 0 else tuple(item if i == side else b"other" for i in range(2))

    for sizes in ((8,), (0,), (0, 1), (3, 300, 0, 8), (100_000, 1)):
        for count in (0, 1, 2, 15, 16, 17, 1000 if max(sizes) < 1000 else 20):
            items = [rng.randbytes(rng.choice(sizes)) for _ in range(count)]
            rows = [row(item) for item in items]
            first = packs[0](rows, side)
            assert first is not None
            assert [pack(rows, side) for pack in packs] == [first] * len(packs)
            data, width, offsets = first
            assert data == b"".join(items)
            if width:
                assert offsets is None
                assert set(map(len, items)) == {width}
            else:
                ends = array.array("q", offsets).tolist()
                assert [data[a:b] for a, b in itertools.pairwise(ends)] == items
            for at in {0, count // 2, count - 1} if count else ():
                for wrong in (bytearray(b"x"), None, 1, "x", type("Mine", (bytes,), {})(b"x")):
                    assert [pack([*rows[:at], row(wrong), *rows[at + 1 :]], side) for pack in packs] == [None] * len(
                        packs
                    )
                if side >= 0:
                    for wrong in ([b"a", b"b"], (b"a",), (b"a", b"b", b"c"), b"ab"):
                        assert [pack([*rows[:at], wrong, *rows[at + 1 :]], side) for pack in packs] == [None] * len(
                            packs
                        )


def test_the_short_door_packs_lists_only() -> None:
    """Wrong arguments are refused, not read."""
    for arguments in ((), ([],), ((), 0), ([], 2), ([], -2), ([], "x"), ([], 1 << 70)):
        with pytest.raises((TypeError, OverflowError)):
            door_module("hot").pack(*arguments)
