"""
Scans gather the leaves of small nodes before they come to them: whatever hangs below whatever, in both directions, from
any key, up to any limit, they give what a sorted dict gives; and damage below is told by who comes to it alone.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import rowex
from conftest import SEED
from model import Model

ROOT, NODE4, OFFSET = 8192, 2, 0x0000_FFFF_FFFF_FFF8
FANS = (1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 47, 48, 49, 50, 120, 256)
LIMITS = (1, 7, 8, 9, 14, 15, 16, 17, 30, 31, 32, 33, 47, 48, 49, 63, 64, 65, 100, 200, None)


def below(dice: random.Random, stem: bytes, fan: int, depth: int) -> Iterator[bytes]:
    """Keys below a node of so many children: leaves, smaller nodes (perhaps with a prefix), keys of nodes."""
    if dice.random() < 0.3:
        yield stem
    inner = dice.choice((0.0, 0.1, 0.5, 1.0)) if depth and fan < 100 else 0.0
    for byte in dice.sample(range(256), fan):
        child = stem + bytes([byte])
        if dice.random() < inner:
            rest = bytes(dice.randrange(3)) + child[:1] * dice.randrange(2)
            yield from below(dice, child + rest, dice.choice((2, 2, 3, 4, 5, 16, 17, 48)), depth - 1)
        else:
            yield child


def assert_scans(index: rowex.Index, model: Model, dice: random.Random, times: int) -> None:
    """From anywhere to anywhere."""
    keys = [key for key, _ in model.pairs()]
    for _ in range(times):
        limit = dice.choice(LIMITS)
        start, stop = (dice.choice((None, *dice.sample(keys, 2))) for _ in range(2))
        start = start and start + dice.choice((b"", b"", b"\0", b"\xff"))
        for reverse in (False, True):
            told = list(index.scan(start, stop, reverse=reverse, limit=limit))
            assert told == model.scan(start, stop, reverse=reverse, limit=limit), (start, stop, reverse, limit)


@pytest.mark.limit(240)
@pytest.mark.parametrize("fences", [False, True])
@pytest.mark.parametrize("fan", FANS)
def test_scans_of_nodes_below_nodes_give_what_a_sorted_dict_gives(
    fan: int, fences: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they were put, after removals, and compacted."""
    if fences:
        monkeypatch.setenv("ROWEX_FENCES", "1")
    dice = random.Random(SEED + fan)
    with rowex.open(path, durability="pmem" if fences else "process") as index:
        keys = [key for top in range(3) for key in below(dice, bytes([7 * top]), fan, 3)][:3000]
        dice.shuffle(keys)
        items = {key: key * dice.randrange(3) for key in keys}
        index.put_many(items)
        assert_scans(index, Model(items.items()), dice, 60)
        for key in keys[::3]:
            del index[key], items[key]
        if not items:
            return
        assert_scans(index, Model(items.items()), dice, 40)
        index.compact()
        assert_scans(index, Model(items.items()), dice, 40)


def reference(image: bytes, byte: int) -> int:
    """What the root's slot for a byte holds."""
    return int(struct.unpack_from("<Q", image, ROOT + 24 + 8 * byte)[0])


def fill(path: Path, each: int = 3) -> list[bytes]:
    """Three Node4s below the root, of so many leaves each, and leaves between them."""
    keys = sorted([b"%c%d" % (top, n) for top in b"cgk" for n in range(each)] + [b"%c" % top for top in b"abdefhijlm"])
    with rowex.open(path, durability="process", initial_size=1 << 17) as index:
        index.put_many((key, b"") for key in keys)
    return keys


DAMAGE = {
    "another level": (4, b"\7"),
    "another shape": (0, b"\5"),
    "more prefix than there is file": (2, b"\xff\xff"),
    "a node where its key ends": (16, b"\x02\x20\0\0\0\0\0\0"),
    "a child beyond the file": (32, b"\x02\0\0\0\0\x70\0\0"),
}


@pytest.mark.parametrize("each", [2, 3])
@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_damaged_node_fails_who_comes_to_it_and_nobody_else(what: str, reverse: bool, each: int, path: Path) -> None:
    """The middle one of three: before it and behind it everything is given, whatever is gathered there."""
    keys = fill(path, each)
    image = bytearray(path.read_bytes())
    at, bad = DAMAGE[what]
    node = reference(image, ord("g")) & OFFSET
    image[node + at : node + at + len(bad)] = bad
    path.write_bytes(image)
    good = [key for key in keys if (key >= b"h" if reverse else key < b"g")]
    good = good[::-1] if reverse else good
    with rowex.open(path, "r") as index:
        for limit in range(1, len(good) + 1):
            assert [key for key, _ in index.scan(reverse=reverse, limit=limit)] == good[:limit]
        for limit in (*range(len(good) + each + 1, 30), None):
            with pytest.raises(rowex.CorruptionError):
                list(index.scan(reverse=reverse, limit=limit))
        others = [key for key, _ in index.scan(b"h", limit=100)]
        assert others == [key for key in keys if key >= b"h"]


WRONG = {  # of a Node4 of two leaves: changes of its bytes, and of the slot that leads to it
    "a byte twice": ({24: b"00"}, 0),
    "one slot, and two children": ({0: b"\x12"}, 1 << 48),
    "no such number of slots": ({0: b"\x52"}, 5 << 48),
    "more children than it has": ({1: b"\4"}, 0),
    "fewer children than it has": ({1: b"\1"}, 0),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_in_a_node_is_the_same_to_a_scan_that_gathers(what: str, path: Path) -> None:
    """Whether one goes through many keys at once, or through one after the other."""
    fill(path, 2)
    image = bytearray(path.read_bytes())
    changes, other = WRONG[what]
    slot = ROOT + 24 + 8 * ord("g")
    node = reference(image, ord("g")) & OFFSET
    for at, bad in changes.items():
        image[node + at : node + at + len(bad)] = bad
    struct.pack_into("<Q", image, slot, reference(image, ord("g")) | other)
    path.write_bytes(image)

    with rowex.open(path, "r") as index:
        for reverse in (False, True):
            told: list[object] = []
            for limit in (7, 40):  # how many a seeking scan wants: few, or enough to gather
                keys: list[bytes] = []
                try:
                    for start in range(ord("a"), ord("n"), 3):
                        bounds = {"start": bytes([start]), "stop": bytes([start + 3])}
                        keys += [key for key, _ in index.scan(**bounds, reverse=reverse, limit=limit)]
                    told.append(keys)
                except rowex.CorruptionError as error:
                    told.append(str(error))
            assert told[0] == told[1]


ORDER = {  # two neighbours, and how the second one's key begins when it is damaged
    "shorter, and its value greater": (b"ca", b"d", b"c"),
    "much shorter, and its value greater": (b"caaaaaaaa", b"d", b"c"),
    "less than all": (b"c0000000", b"d0000000", b"a"),
    "less than the one before alone": (b"c0000000", b"d0000000", b"b9"),
}


@pytest.mark.parametrize("what", ORDER)
@pytest.mark.parametrize("reverse", [False, True])
def test_keys_out_of_order_are_told(what: str, reverse: bool, path: Path) -> None:
    """However they are compared: by their first bytes at once, where they have so many."""
    first, second, bad = ORDER[what]
    with rowex.open(path, durability="process", initial_size=1 << 17) as index:
        index.put_many((b"%c0000000" % top, b"") for top in b"abefghijklm")
        index.put_many({first: b"", second: b"zzzzzzz"})
    image = bytearray(path.read_bytes())
    leaf = reference(image, ord("d")) & OFFSET
    image[leaf + 8 : leaf + 8 + len(bad)] = bad
    path.write_bytes(image)
    with rowex.open(path, "r") as index:
        for limit in (11 if reverse else 5, 12, None):
            with pytest.raises(rowex.CorruptionError, match="out of order"):
                list(index.scan(reverse=reverse, limit=limit))


@pytest.mark.parametrize("reverse", [False, True])
def test_keys_out_of_order_are_told_from_one_batch_to_the_next(reverse: bool, path: Path) -> None:
    """Of 40 keys each in turn has the key of another: of the one before it, of the first."""
    with rowex.open(path, durability="process", initial_size=1 << 17) as index:
        index.put_many((bytes([top]) * 8, b"") for top in range(100, 140))
    whole = path.read_bytes()
    for top in range(101, 139):
        for other in (top + 1, 139) if reverse else (top - 1, 100):
            image = bytearray(whole)
            leaf = reference(image, top) & OFFSET
            image[leaf + 8 : leaf + 16] = bytes([other]) * 8
            path.write_bytes(image)
            with rowex.open(path, "r") as index, pytest.raises(rowex.CorruptionError, match="out of order"):
                list(index.scan(reverse=reverse))


@pytest.mark.parametrize("reverse", [False, True])
def test_nodes_without_a_leaf_are_passed_over(reverse: bool, path: Path) -> None:
    """An undone change may leave one."""
    keys = fill(path)
    image = bytearray(path.read_bytes())
    for top in b"gk":
        struct.pack_into("<4Q", image, (reference(image, top) & OFFSET) + 32, 0, 0, 0, 0)
    path.write_bytes(image)
    left = [key for key in keys if not (key[0] in b"gk" and len(key) == 2)]
    with rowex.open(path, "r") as index:
        for limit in (1, 8, 10, 12, 40, None):
            assert [key for key, _ in index.scan(reverse=reverse, limit=limit)] == left[:: -1 if reverse else 1][:limit]


@pytest.mark.limit(120)
def test_a_tree_of_nodes_that_share_their_children_is_told(path: Path) -> None:
    """Each node's slots lead to the same one below it, and no leaf is anywhere: nobody goes all 4 ** 40 ways."""
    depth = 40
    with rowex.open(path, durability="process", initial_size=1 << 17) as index:
        index.put_many((b"a" * n + bytes([byte]), b"") for n in range(1, depth) for byte in b"abcd")
    image = bytearray(path.read_bytes())
    slot, seen = ROOT + 24 + 8 * ord("a"), 0
    while True:
        (ref,) = struct.unpack_from("<Q", image, slot)
        if ref & 7 != NODE4:
            break
        node, seen = ref & OFFSET, seen + 1
        (first,) = struct.unpack_from("<Q", image, node + 32)
        below = first if first & 7 == NODE4 else 0
        struct.pack_into("<Q", image, node + 16, 0)
        struct.pack_into("<4Q", image, node + 32, below, below, below, below)
        slot = node + 32
    assert seen > depth - 5
    path.write_bytes(image)
    with rowex.open(path, "r") as index:
        for reverse in (False, True):
            for limit in (3, 1000):
                with pytest.raises(rowex.CorruptionError, match="share their children"):
                    list(index.scan(reverse=reverse, limit=limit))


@pytest.mark.parametrize("extra", [98, 99, 148, 200])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_child_that_a_full_node_has_twice_is_told(extra: int, reverse: bool, path: Path, folder: Path) -> None:
    """More bytes lead to slots than there are slots: nothing that hangs there is left out in silence."""
    with rowex.open(path, durability="process") as index:
        index.put_many((b"k%c" % byte, b"") for byte in range(100, 148))
    image = bytearray(path.read_bytes())
    at = (reference(image, ord("k")) & OFFSET) + 24
    image[at + extra] = image[at + (147 if extra < 100 else 100)]
    path.write_bytes(image)
    with rowex.open(path, "r") as index:
        for limit in (None, 200):
            with pytest.raises(rowex.CorruptionError):
                list(index.scan(reverse=reverse, limit=limit))
        with pytest.raises(rowex.CorruptionError):
            index.check()
    with pytest.raises(rowex.CorruptionError):
        rowex.copy(path, folder / "copy.rowex")
    with rowex.open(path) as index, pytest.raises(rowex.CorruptionError):
        index.compact()


@pytest.mark.parametrize("count", [16, 20, 32])
def test_a_bad_end_of_a_node_fails_who_comes_to_it_downwards(count: int, path: Path) -> None:
    """The key that ends at a node comes last then, however its children fill what is loaded at once."""
    with rowex.open(path, durability="process") as index:
        index.put_many((bytes([byte]), b"") for byte in range(60, 60 + count))
    image = bytearray(path.read_bytes())
    struct.pack_into("<Q", image, ROOT + 16, 65536 | NODE4)
    path.write_bytes(image)
    with rowex.open(path, "r") as index:
        for start in range(61, 60 + count):
            told = [key[0] for key, _ in index.scan(bytes([start]), reverse=True)]
            assert told == [*range(59 + count, start - 1, -1)]
        for limit in (None, count + 1, 200):
            with pytest.raises(rowex.CorruptionError, match="hangs no leaf"):
                list(index.scan(reverse=True, limit=limit))


BESIDE = {  # keys, keys of nodes whose pages are lost, and a scan that ends before these
    "an upper bound": (range(9), range(9, 10), {"start": b"\0", "stop": b"\5"}, 5),
    "an upper bound alone": (range(9), range(9, 10), {"stop": b"\5"}, 5),
    "a limit": (range(20), range(20, 21), {"limit": 20}, 20),
    "a lower bound, downwards": (range(5, 20), range(4, 5), {"start": b"\6", "stop": b"\n", "reverse": True}, 4),
    "nodes of nodes": ([1], [2], {"limit": 27}, 27),
    "nodes of nodes, and a prefix": ([1], [2], {"prefix": b"\1\0"}, 9),
}


@pytest.mark.parametrize("what", BESIDE)
def test_a_scan_reads_no_node_beyond_what_bounds_it(what: str, path: Path) -> None:
    """Whose page is lost: nothing is told, and the index goes on."""
    near, lost, bounds, count = BESIDE[what]
    keys = [bytes([top]) for top in near]
    if "nodes" in what:
        keys = [bytes([1, a, b, c]) for a in range(3) for b in range(3) for c in range(3)]
    with rowex.open(path, durability="process", initial_size=1 << 17) as index:
        index.put_many((key, b"") for key in keys)
        index.put_many((b"\xf0%d" % n, bytes(20_000)) for n in range(300))
        index.put_many((bytes([top, low]), b"") for top in lost for low in range(3))
    with rowex.open(path) as index:
        os.truncate(path, 1 << 20)
        assert len(list(index.scan(**bounds))) == count
        assert keys[0] in index
