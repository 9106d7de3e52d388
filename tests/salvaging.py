"""
What the tests of salvage share: damage, and a look at what was got out.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rowex


def damage(file: Path, data: bytes) -> int:
    """Flip a bit in the middle of the first place where *data* stands; where that is."""
    image = bytearray(file.read_bytes())
    at = image.index(data) + len(data) // 2
    image[at] ^= 4
    file.write_bytes(image)
    return at


def sides(path: Path) -> list[Path]:
    """Every file of the source, but for NAME-lock."""
    found = [path, Path(f"{path}-checkpoint"), *sorted(Path(f"{path}-log").glob("*"))]
    return [file for file in found if file.exists()]


@contextlib.contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Nothing of the source is changed by what is done in it."""
    before = {file: file.read_bytes() for file in sides(path)}
    yield
    assert {file: file.read_bytes() for file in sides(path)} == before


def salvaged(path: Path, target: Path, **options: Any) -> tuple[rowex.Salvaged, dict[bytes, bytes]]:
    """What was told, and what is in the new index, which is sound."""
    with unchanged(path):
        told = rowex.salvage(path, target, **options)
    with rowex.open(target, "r") as index:
        index.check()
        found = dict(index.items())
        assert len(index) == len(found) == told.keys
        assert index.info().clean
    assert not [entry for entry in target.parent.iterdir() if "-salvage-" in entry.name]
    return told, found


def target_of(folder: Path) -> Path:
    """Where nothing else is."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return out / "new.rowex"


def children(image: bytes) -> list[int]:
    """Offsets of the nodes below the root."""
    slots = struct.unpack_from("<256Q", image, 8192 + 24)
    return [slot & 0xFFFFFFFFFFF8 for slot in slots if slot & 7 in (2, 3, 4, 5)]
