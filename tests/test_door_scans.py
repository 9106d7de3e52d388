"""
Scans through a door: what they give, and what they keep alive.
"""

from __future__ import annotations

import gc
import operator
import random
import weakref
from typing import Any

import pytest

from doors import address_of, door_module
from rowex.errors import ClosedError

SIZES = (0, 1, 7, 8, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20)
ITEMS, KEYS, VALUES = 0, 1, 2
WRONG = (None, 1, 1.5, object(), ["a"], ("a", "b"))


def in_range(model: dict[bytes, bytes], start: Any, stop: Any, prefix: Any, reverse: bool, limit: Any) -> list[Any]:
    """What a scan must give."""
    found = [
        (key, value)
        for key, value in sorted(model.items(), reverse=reverse)
        if (start is None or key >= start)
        and (stop is None or key < stop)
        and (prefix is None or key.startswith(prefix))
    ]
    return found[:limit]


def test_scan_gives_what_a_sorted_dict_gives(door: Any, rng: random.Random) -> None:
    """Any combination of start, stop, prefix, direction and limit; all three kinds of result."""
    alphabet = b"\0a\xfe\xff"
    model = {bytes(rng.choices(alphabet, k=rng.randrange(6))): rng.randbytes(rng.randrange(20)) for _ in range(400)}
    door.put_many(model)

    def some() -> bytes | None:
        return bytes(rng.choices(alphabet, k=rng.randrange(5))) if rng.random() < 0.6 else None

    for _ in range(400):
        start, stop, prefix, reverse = some(), some(), some(), rng.random() < 0.5
        limit = rng.choice([None, None, 0, 1, 15, 16, 17, 1000, 1 << 70])
        expected = in_range(model, start, stop, prefix, reverse, limit if limit is None else min(limit, 1 << 60))
        assert expected == list(door.scan(start, stop, prefix=prefix, reverse=reverse, limit=limit))
        args = (start, stop, prefix, reverse, limit)
        assert [key for key, _ in expected] == list(door._scan(*args, KEYS))
        assert [value for _, value in expected] == list(door._scan(*args, VALUES))


def test_scans_begin_and_end_anywhere_in_nodes_of_all_sizes(door: Any, rng: random.Random) -> None:
    """Batches that gather begin at 8 items, or 32 where there is a bound: from a leaf, between two, behind all."""
    model: dict[bytes, bytes] = {}
    for first, fan in enumerate((1, 2, 4, 5, 15, 16, 17, 40, 48, 49, 200, 256)):
        for byte in rng.sample(range(256), fan):
            below = rng.choice((0, 0, 1, 3, 17))
            stem = bytes([20 * first, byte])
            model |= {
                stem + bytes([each]): rng.randbytes(rng.choice((0, 8, 100, 900)))
                for each in rng.sample(range(256), below)
            }
            if not below or rng.random() < 0.3:
                model[stem] = b"ends here"
    for pair in rng.sample(sorted(model.items()), len(model)):
        door[pair[0]] = pair[1]
    keys = sorted(model)
    for start in (key for key in keys if len(key) == 2):  # a leaf that comes before all the others of a full window
        assert in_range(model, start, None, None, False, 64) == list(door.scan(start, limit=64))
        assert in_range(model, None, start + b"\0", None, True, 64) == list(
            door.scan(None, start + b"\0", reverse=True, limit=64)
        )
    for limit in (0, 1, 15, 16, 17, 31, 32, 33, 100, 127, 128, 129, 300, None):
        for reverse in (False, True):
            for _ in range(40):
                bounds = [rng.choice(keys) + rng.choice((b"", b"", b"\0", b"x"))[: rng.randrange(2)] for _ in range(2)]
                start, stop = rng.choice([bounds, sorted(bounds), (bounds[0], None), (None, bounds[0]), (None, None)])
                expected = in_range(model, start, stop, None, reverse, limit)
                assert expected == list(door.scan(start, stop, reverse=reverse, limit=limit))


def test_scan_tells_list_how_many_a_limit_allows(index: Any) -> None:
    """A hint: never more than there may be, and no promise."""
    hot_door = door_module("hot").Door(address_of(index._rx))
    hot_door.put_many((b"%04d" % i, b"") for i in range(2000))
    scan = hot_door.scan(limit=100)
    assert operator.length_hint(scan) == 100
    next(scan)
    assert operator.length_hint(scan) == 99
    assert len(list(scan)) == 99
    assert operator.length_hint(scan) == 0
    assert operator.length_hint(hot_door.scan()) == 0
    assert operator.length_hint(hot_door.scan(limit=1 << 62)) == 1024
    assert len(list(hot_door.scan(limit=5000))) == 2000


def test_scan_at_its_limit_of_a_closed_door(door: Any) -> None:
    """It tells, as every scan that goes on after the end of its door."""
    door.put_many((b"%04d" % i, b"") for i in range(100))
    scan = door.scan(limit=20)
    assert len([next(scan) for _ in range(20)]) == 20
    assert next(scan, None) is None
    scan = door.scan(limit=20)
    assert len([next(scan) for _ in range(20)]) == 20
    door._rebind(0, 0)
    with pytest.raises(ClosedError):
        next(scan)


def test_prefix_of_one_byte_leaves_the_interpreters_bytes_alone(door: Any) -> None:
    """The end of a prefix is computed in memory of its own."""
    for byte in range(256):
        list(door.scan(prefix=bytes([byte])))
    assert list(range(256)) == [bytes([byte])[0] for byte in range(256)]
    assert bytes([ord("a") + 1]) == b"b"


def test_scan_over_many_items_of_mixed_size(door: Any, rng: random.Random) -> None:
    """Batches end anywhere; a value may be larger than any batch."""
    model = {b"%06d" % i: rng.randbytes(rng.choice((0, 3, 50))) for i in range(5000)}
    for size in (4096, 65000, 65536, 70000, 2 << 20):
        model[b"%06d" % rng.randrange(5000)] = rng.randbytes(size)
    model[b"000000"] = bytes(300_000)
    door.put_many(model)
    assert sorted(model.items()) == list(door.scan())
    assert sorted(model.items(), reverse=True) == list(door.scan(reverse=True))
    assert sorted(model) == list(door._scan(None, None, None, False, None, KEYS))


def test_pairs_that_the_caller_keeps_never_change(door: Any) -> None:
    """The iterator uses a pair again only where nobody else has it."""
    model = {b"%04d" % i: b"v%d" % i for i in range(2000)}
    door.put_many(model)
    kept = list(door.scan())
    assert len({id(pair) for pair in kept}) == 2000
    assert sorted(model.items()) == kept
    scan, pairs = door.scan(), []
    for number, pair in enumerate(scan):
        if number % 3 == 0:
            pairs.append(pair)
        del pair
    assert [(b"%04d" % i, b"v%d" % i) for i in range(0, 2000, 3)] == pairs
    assert {(b"%04d" % i, b"v%d" % i) for i in range(2000)} == set(door.scan())


def test_finished_scan_stays_finished(door: Any) -> None:
    """Also when keys come after its end was met."""
    door[b"a"] = b""
    scan = door.scan()
    assert iter(scan) is scan
    assert list(scan) == [(b"a", b"")]
    door[b"b"] = b""
    assert list(scan) == []
    assert list(door.scan(b"z", b"a")) == []


def test_scan_sees_changes_between_batches(door: Any) -> None:
    """Changing while iterating is allowed; what is there throughout is given once."""
    door.put_many((b"%05d" % i, b"") for i in range(0, 4000, 2))
    seen = []
    for key, _ in door.scan():
        seen.append(key)
        door[b"%05d" % (int(key) | 1)] = b""
    assert sorted(set(seen)) == seen
    assert {b"%05d" % i for i in range(0, 4000, 2)} <= set(seen)


def test_scan_keeps_its_door_alive(door_type: Any, index: Any) -> None:
    """Nobody else has to hold the door while a scan of it goes on."""
    index.put_many((b"%d" % i, b"") for i in range(100))
    door = door_type(address_of(index._rx))
    scan = door.scan()
    gone = weakref.ref(door)
    del door
    assert len(list(scan)) == 100
    del scan
    assert gone() is None


def test_door_in_a_cycle_is_collected(door_type: Any, index: Any) -> None:
    """The garbage collector finds it through the scan that it holds."""
    door = door_type(address_of(index._rx))
    door[b"k"] = b"v"
    door.scan_of_mine = door.scan()
    next(door.scan_of_mine)
    gone = weakref.ref(door)
    del door
    gc.collect()
    assert gone() is None
