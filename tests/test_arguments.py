"""
Arguments other than single keys and values: timeouts, pairs, and what an error of many items tells.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

import rowex
from doors import address_of


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


def test_a_reader_says_that_it_is_one(make_door: Callable[..., Any], index: Any) -> None:
    """The index that it is of may well be open to write; a handle that is not says another thing."""
    with index.reader() as reader:
        mine = make_door(address_of(reader._rx_thread), readonly=True)
        changes = [reader.compare_and_set, reader.setdefault]
        for door in (reader, mine):
            changes += [door.put, door.insert, door.__setitem__, door._try_put, door._try_insert]
            changes += [lambda key, value, door=door: door.put_many([(key, value)])]
            changes += [lambda key, value, door=door: door.remove(key)]
            changes += [lambda key, value, door=door: door.discard(key)]
            changes += [lambda key, value, door=door: door._try_remove(key)]
        for change in changes:
            with pytest.raises(
                rowex.ReadOnlyError, match=r"a reader changes nothing; use the index, or its writer"
            ) as caught:
                change(b"k", *([b"", b""] if change == reader.compare_and_set else [b""]))
            assert caught.value.errno == errno.EROFS
    other = make_door(readonly=True)
    for change in (other.put, other._try_put):
        with pytest.raises(rowex.ReadOnlyError, match="the index is open read-only"):
            change(b"k", b"v")
