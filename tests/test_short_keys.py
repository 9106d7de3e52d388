"""Keys and prefixes of each short length: one that differs in any byte is another."""

from __future__ import annotations

from pathlib import Path

import pytest

import rowex


def others(key: bytes) -> list[bytes]:
    """The key with one byte changed, each in turn, but for the first: that one chooses the slot in the root."""
    return [key[:at] + bytes((key[at] ^ 1,)) + key[at + 1 :] for at in range(1, len(key))]


@pytest.mark.parametrize("length", range(1, 41))
def test_key_that_differs_in_one_byte_is_absent(length: int, path: Path) -> None:
    """By itself, and among those that share all but their last byte, one by one and many at once."""
    alone, shared = b"k" * length, b"p" * length
    with rowex.open(path, durability="process") as index:
        index.put_many((key, key) for key in (alone, shared + b"\x00", shared + b"\x80"))
        for key in (alone, shared + b"\x00", shared + b"\x80"):
            assert index.get(key) == key
            assert index.get_many([key, *others(key)]) == [key] + [None] * (len(key) - 1)
            assert [index.get(other) for other in others(key)] == [None] * (len(key) - 1)
