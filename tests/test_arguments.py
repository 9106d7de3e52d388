"""
Arguments other than single keys and values: timeouts, pairs, and what an error of many items tells.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest


def timed_calls(index: Any) -> list[Callable[..., Any]]:
    """Calls beside the door that may wait."""

    def batch(timeout: Any) -> None:
        with index.batch(timeout=timeout) as changes:
            changes.put(b"k", b"v")

    return [
        lambda timeout: index.compare_and_set(b"k", None, b"v", timeout=timeout),
        lambda timeout: index.setdefault(b"k", b"v", timeout=timeout),
        lambda timeout: index.put_many([b"k"], [b"v"], timeout=timeout),
        batch,
        lambda timeout: index.pop(b"k", None, timeout=timeout),
        lambda timeout: index.remove_many([b"k"], timeout=timeout),
        lambda timeout: index.check(timeout=timeout),
        lambda timeout: index.compact(timeout=timeout),
        lambda timeout: index.wait_durable(0, timeout),
        lambda timeout: index.flush(timeout),
    ]


def test_timeouts_that_make_no_sense_are_refused(door: Any, index: Any) -> None:
    """Before anything is stored, by every call alike; numbers of all kinds are taken."""
    calls = [
        lambda timeout: door.put(b"k", b"v", timeout=timeout),
        lambda timeout: door.insert(b"k", b"v", timeout=timeout),
        lambda timeout: door.put_many({b"k": b"v"}, timeout=timeout),
        lambda timeout: door.discard(b"k", timeout=timeout),
        *timed_calls(index),
    ]
    for call in calls:
        for wrong in ("1", b"1", bytearray(b"1"), memoryview(b"1"), [1], object(), 1j):
            with pytest.raises(TypeError, match=f"timeout must be .* not {type(wrong).__name__}"):
                call(wrong)
        for number in (-1, -0.001, float("nan"), float("-inf"), 10**400, Decimal(-1)):
            with pytest.raises(ValueError, match="timeout"):
                call(number)
        assert b"k" not in door
    door.put(b"k", b"v")  # the first marks the file as in use
    for fine in (0, 0.0):
        door.put(b"k", b"v", timeout=fine)
    for fine in (None, 1, True, 1.5, 1e30, float("inf"), Decimal("1.5"), Fraction(3, 2)):
        for call in calls:
            index.discard(b"k")
            call(fine)
