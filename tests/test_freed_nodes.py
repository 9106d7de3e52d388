"""What nodes that were made in bulk leave behind when they grow is used again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import rowex
from conftest import SEED

KEYS, EXCHANGES = 100_000, 250_000


def heap_after_exchanges(path: Path, compacts: bool, few: int) -> int:
    """Bytes of the heap after keys were exchanged for others, as many as there were."""
    dice = random.Random(SEED)

    def key() -> bytes:
        return bytes((dice.randrange(few), *dice.randbytes(7)))

    with rowex.open(path, durability="process") as index:
        keys = [key() for _ in range(KEYS)]
        index.put_many((each, b"12345678") for each in keys)
        if compacts:
            index.compact()
        for _ in range(EXCHANGES):
            at = dice.randrange(KEYS)
            index.discard(keys[at])
            keys[at] = key()
            index.put(keys[at], b"12345678")
        stats = index.stats()
        assert dict.fromkeys(keys) == dict.fromkeys(index)
        index.check()
        return stats.used_bytes + stats.free_bytes + stats.retired_bytes


@pytest.mark.parametrize("few", [256, 16], ids=["small nodes", "larger nodes"])
def test_exchange_of_keys_after_compacting_needs_no_more_room_than_without(few: int, path: Path, folder: Path) -> None:
    """The heap ends no larger than that of an index that was never compacted."""
    print(f"ROWEX_SEED={SEED}")
    never = heap_after_exchanges(path, False, few)
    assert heap_after_exchanges(folder / "compacted.rowex", True, few) < never * 1.1
