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


@pytest.mark.parametrize("compacted", [False, True])
def test_nodes_of_few_children_find_each_of_their_bytes_and_no_other(compacted: bool, path: Path) -> None:
    """Bytes that follow each other, lie 0x80 apart, or are 0, which those without a child are too."""
    near = [(a, (a + step) & 255) for a in (0, 1, 0x7F, 0x80, 0xFF) for step in (1, 2, 0x7F, 0x80, 0x81, 0xFF)]
    several = [(3, 2, 1), (0x81, 0x80, 1), (0, 0x80, 0xFF), (4, 3, 2, 1), (0xFF, 0, 0x80, 1), (1, 0, 2, 0x80)]
    nodes = {b"%03d" % number: children for number, children in enumerate([*near, *several])}
    with rowex.open(path, durability="process") as index:
        index.put_many((name + bytes((byte,)), b"%d" % byte) for name, children in nodes.items() for byte in children)
        if compacted:
            index.compact()
        for name, children in nodes.items():
            every = [name + bytes((byte,)) for byte in range(256)]
            expected = [b"%d" % byte if byte in children else None for byte in range(256)]
            assert index.get_many(every) == expected, children
            assert [index.get(key) for key in every] == expected, children
