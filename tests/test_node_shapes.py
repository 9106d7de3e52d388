"""
Nodes of every capacity: what the bulk builder makes has no more slots than children, or few more; it is searched,
scanned, grown and emptied like any other, and damage to it is told.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rowex
from conftest import SEED
from model import Model
from rowex._native import ffi, lib
from tools import Child, assert_same

Start = Callable[..., Child]
Items = dict[bytes, bytes]
ROOT, OFFSET, CODE = 8192, 0x0000_FFFF_FFFF_FFF8, 48  # the code's place in a reference
KINDS = {2: "Node4", 3: "Node16", 4: "Node48", 5: "Node256"}
SLOTS_AT = {2: 32, 3: 40, 4: 280, 5: 24}
PREFIXES = {"without a prefix": b"", "with a prefix": b"/a prefix", "with a long prefix": b"/" * 300}
FANOUTS = range(1, 257)


def slots_for(children: int) -> tuple[str, int]:
    """The tightest shape that there is."""
    if children <= 16:
        return ("Node4" if children <= 4 else "Node16"), children
    if children <= 128:
        return "Node48", 32 if children <= 32 else 48 if children <= 48 else -(-children // 16) * 16
    return "Node256", 256


def below(fanout: int, prefix: bytes) -> bytes:
    """Where the node with so many children hangs; its children's bytes come next."""
    return bytes((fanout >> 8, fanout & 255)) + prefix


def bytes_of(fanout: int) -> list[int]:
    """So many of all bytes."""
    return random.Random(fanout).sample(range(256), fanout)


def fans(prefix: bytes, ends: bool) -> Items:
    """Nodes with 1 to 256 children, and perhaps a key that ends at each."""
    items = {below(n, prefix) + bytes((byte,)): b"%d" % byte for n in FANOUTS for byte in bytes_of(n)}
    if ends:
        items |= {below(n, prefix): b"here" for n in FANOUTS}
    return items


def make_by_compacting(path: Path, items: Items) -> None:
    """Put one by one, in no order, then copied."""
    keys = sorted(items)
    random.Random(1).shuffle(keys)
    with rowex.open(path, durability="process") as index:
        index.put_many((key, items[key]) for key in keys)
        index.compact()


def make_by_building(path: Path, items: Items) -> None:
    """Bottom-up from sorted items."""
    assert rowex.build(path, sorted(items.items()), durability="process") == len(items)


def make_by_copying(path: Path, items: Items) -> None:
    """As a copy of an index beside it."""
    other = path.with_name("other.rowex")
    with rowex.open(other, durability="process") as index:
        index.put_many(items.items())
    rowex.copy(other, path)


MAKERS = {"compact": make_by_compacting, "build": make_by_building, "copy": make_by_copying}


def nodes_on_path(index: Any, key: bytes) -> Iterator[tuple[str, Any]]:
    """The kind of each node from the root to the key, and what is told of it."""
    offsets, count = ffi.new("uint64_t[64]"), ffi.new("size_t *")
    assert lib.rx_inspect_path(index._live_handle(), key, len(key), offsets, 64, count) == lib.RX_OK
    for i in range(count[0]):
        out = ffi.new("struct rx_node_info *")
        assert lib.rx_inspect(index._live_handle(), offsets[i], out) == lib.RX_OK
        if out.kind in KINDS:
            yield KINDS[out.kind], out


def innermost(index: Any, key: bytes) -> tuple[str, Any]:
    """The node that the key's leaf hangs in."""
    return list(nodes_on_path(index, key))[-1]


CASES = [(prefix, ends) for prefix in PREFIXES for ends in (False, True)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}{', a key ends' * case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[bytes, bool]:
    """What leads to the nodes, and whether a key ends at each."""
    prefix, ends = request.param
    return PREFIXES[prefix], ends


# ---- sound nodes -----------------------------------------------------------------------------


@pytest.mark.parametrize("maker", MAKERS)
def test_nodes_made_in_bulk_have_the_slots_that_they_need(maker: str, path: Path) -> None:
    """For every number of children the tightest shape; puts make nodes of whole size; all have what was put."""
    items = fans(b"/a prefix", True)
    MAKERS[maker](path, items)
    with rowex.open(path) as index:
        assert_same(index, items)
        used = index.stats().used_bytes
        for fanout in FANOUTS:
            kind, out = innermost(index, below(fanout, b"/a prefix"))
            assert (kind, out.slots) == slots_for(fanout)
            assert (out.live, out.children) == (fanout, fanout)
            assert out.given == (fanout if kind != "Node256" else 256)
    with rowex.open(path.with_name("put.rowex"), durability="process") as index:
        index.put_many(items.items())
        assert index.stats().used_bytes > used
        for fanout in FANOUTS:
            kind, out = innermost(index, below(fanout, b"/a prefix"))
            assert (kind, out.slots) in (("Node4", 4), ("Node16", 16), ("Node48", 48), ("Node256", 256))


def test_nodes_of_every_capacity_are_searched_and_scanned(case: tuple[bytes, bool], path: Path) -> None:
    """Present and absent bytes, both ways, from and to every byte of each node, as the model has it."""
    items = fans(*case)
    make_by_building(path, items)
    dice = random.Random(SEED)
    with rowex.open(path) as index:
        assert_same(index, items)
        for fanout in FANOUTS:
            node = below(fanout, case[0])
            keys = [node, *(node + bytes((byte,)) for byte in range(256)), node[:-1], node + b"\0\0"]
            here = {key: items[key] for key in keys if key in items}
            assert index.get_many(keys) == [items.get(key) for key in keys]
            assert [index.get(key) for key in keys] == [items.get(key) for key in keys]
            assert dict(index.scan(prefix=node)) == here
            model = Model(here)
            for _ in range(6):
                start, stop = sorted(node + bytes((dice.randrange(256),)) for _ in range(2))
                for reverse in (False, True):
                    for limit in (None, dice.randrange(1, 40)):
                        told = list(index.scan(start, stop, reverse=reverse, limit=limit))
                        assert told == model.scan(start, stop, reverse=reverse, limit=limit), (fanout, start, stop)
            least, most = min(here), max(here)
            assert index.ceiling(node) == (least, items[least])
            assert index.floor(node + b"\xff\xff") == (most, items[most])


@pytest.mark.limit(240)
def test_nodes_of_every_capacity_grow_and_shrink(case: tuple[bytes, bool], path: Path) -> None:
    """By every missing byte and the key that ends there; then, tight anew, by every key down to nothing."""
    prefix, ends = case
    items = fans(prefix, ends)
    make_by_building(path, items)
    dice = random.Random(SEED)
    with rowex.open(path) as index:
        ends_of = [b"", *(bytes((byte,)) for byte in range(256))]
        new = [key for n in FANOUTS for end in ends_of if (key := below(n, prefix) + end) not in items]
        dice.shuffle(new)
        for number, key in enumerate(new):
            assert index.get(key) is None
            items[key] = b"new %d" % number
            index.put(key, items[key])
            assert index.get(key) == items[key]
        assert_same(index, items)
        for fanout in FANOUTS:
            assert innermost(index, below(fanout, prefix))[1].slots == 256
        for key in set(items) - set(fans(prefix, ends)):
            del index[key]
            del items[key]
        index.compact()
        assert_same(index, items)
        old = sorted(items)
        dice.shuffle(old)
        for number, key in enumerate(old):
            assert index.pop(key) == items.pop(key)
            if number % 5000 == 0:
                assert_same(index, items)
        assert_same(index, {})
        assert index.stats().nodes["Node256"] == 1


@pytest.mark.parametrize("children", [2, 4, 5, 16, 17, 32, 33, 48, 49, 64, 65, 100, 112, 113, 128])
def test_full_tight_nodes_are_copied_to_whole_ones(children: int, path: Path) -> None:
    """One key more than there are slots; a path split above; a path merged onto it."""
    items = {b"long/path" + bytes((byte,)): b"%d" % byte for byte in bytes_of(children)}
    for step in ("grow", "split", "merge"):
        at = path.with_name(step)
        make_by_building(at, items | ({b"long/else": b""} if step == "merge" else {}))
        changed = dict(items)
        with rowex.open(at) as index:
            if step == "grow":
                free = slots_for(children)[1] - children
                missing = [byte for byte in range(256) if byte not in bytes_of(children)][: free + 1]
                changed |= {b"long/path" + bytes((byte,)): b"new" for byte in missing}
                index.update({key: changed[key] for key in set(changed) - set(items)})
            elif step == "split":
                changed[b"long/else"] = index[b"long/else"] = b""
            else:
                del index[b"long/else"]
            whole = 4 if len(changed) <= 4 else 16 if len(changed) <= 16 else 48 if len(changed) <= 48 else 256
            if step != "grow" and len(items) <= 48:
                whole = 4 if children <= 4 else 16 if children <= 16 else 48
            assert innermost(index, min(items))[1].slots == whole
            assert_same(index, changed)


@pytest.mark.parametrize("children", [64, 100, 128])
def test_a_wide_node_shrinks_with_its_children(children: int, path: Path) -> None:
    """To a whole Node48, a Node16, a Node4, and away: space follows what is left."""
    keys = [b"wide" + bytes((byte,)) for byte in bytes_of(children)]
    items = dict.fromkeys(keys, b"value")
    make_by_building(path, items)
    slots = []
    with rowex.open(path) as index:
        for key in keys[:-2]:
            del index[key]
            del items[key]
            slots.append(innermost(index, keys[-1])[1].slots)
            if len(items) % 7 == 0:
                assert_same(index, items)
        assert_same(index, items)
        assert index.stats().dead_slots <= 4
    assert sorted(set(slots), reverse=True) == [slots_for(children)[1], 48, 16, 4]
    assert slots == sorted(slots, reverse=True)
    assert 16 <= children - 1 - slots.index(48) <= 40  # what is left then


@pytest.mark.limit(240)
@pytest.mark.parametrize("fences", [False, True])
def test_puts_removals_and_copies_in_any_order_agree_with_a_dict(
    fences: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that crowd at a few nodes; after each copy those are tight, and what follows meets them so."""
    if fences:
        monkeypatch.setenv("ROWEX_FENCES", "1")
    dice = random.Random(SEED)
    stems = [b"", b"s", b"stem", b"stem/" * 60, b"\xff"]
    items: Items = {}
    with rowex.open(path, durability="pmem" if fences else "process") as index:
        for _ in range(60):
            stem, width = dice.choice(stems), dice.choice((2, 4, 16, 48, 64, 128, 256))
            for _ in range(dice.randrange(1, 300)):
                key = stem + bytes(dice.randrange(width) for _ in range(dice.randrange(4)))
                if dice.random() < 0.6:
                    items[key] = index[key] = b"%d" % dice.randrange(1000)
                else:
                    assert index.pop(key, None) == items.pop(key, None)
            if dice.random() < 0.3:
                gone = dice.sample(sorted(items), len(items) * dice.randrange(10) // 10)
                index.remove_many(gone)
                for key in gone:
                    del items[key]
            if dice.random() < 0.7:
                index.compact()
            assert_same(index, items)


@pytest.mark.parametrize(("count", "most"), [(100_000, 48), (300_000, 43), (1_000_000, 45)])
def test_random_keys_take_few_bytes_each_once_compacted(count: int, most: int, path: Path) -> None:
    """Of 8 bytes, with values of 8 bytes: whole nodes would take 3 to 9 bytes a key more."""
    dice = random.Random(count)
    keys = sorted({dice.randbytes(8) for _ in range(count)})
    rowex.build(path, [(key, key) for key in keys], durability="process")
    assert path.stat().st_size / len(keys) < most
    with rowex.open(path, "r") as index:
        assert index.stats().used_bytes / len(keys) < most
        assert index.get_many(keys[::97]) == keys[::97]


# ---- damaged ones ----------------------------------------------------------------------------


FEW, SOME, MANY, WIDE = 2, 9, 20, 100
COUNTS = {ord("f"): FEW, ord("s"): SOME, ord("m"): MANY, ord("w"): WIDE}
KEYS = {bytes((top, byte)): b"%d" % byte for top, count in COUNTS.items() for byte in bytes_of(count)}


def reference_of(image: bytes, top: int) -> int:
    """What the root's slot holds."""
    return int(struct.unpack_from("<Q", image, ROOT + 24 + 8 * top)[0])


def refer(image: bytearray, top: int, reference: int) -> None:
    """Put another there."""
    struct.pack_into("<Q", image, ROOT + 24 + 8 * top, reference)


def count_is_too_large(image: bytearray, top: int) -> None:
    """The node says that it has given more slots than there are."""
    image[(reference_of(image, top) & OFFSET) + 1] = 255


def code_in_header(image: bytearray, top: int) -> None:
    """The header tells another capacity than the reference."""
    image[reference_of(image, top) & OFFSET] ^= 0x10


def code_in_reference(image: bytearray, top: int) -> None:
    """The reference tells another capacity than the header."""
    refer(image, top, reference_of(image, top) ^ 1 << CODE)


def code_of_no_shape(image: bytearray, top: int) -> None:
    """Both tell the same, which no kind has."""
    at = reference_of(image, top) & OFFSET
    image[at] |= 0xF0
    refer(image, top, reference_of(image, top) | 0xF << CODE)
    if image[at] & 15 == 3:  # 15 slots are a Node16's
        image[at] = 0x43
        refer(image, top, (at | 3) | 4 << CODE)


def odd_bits_in_reference(image: bytearray, top: int) -> None:
    """Above the code nothing may stand."""
    refer(image, top, reference_of(image, top) | 1 << 52)


def index_is_beyond(image: bytearray, top: int) -> None:
    """A Node48's byte has the slot behind the last; of others a byte is there twice."""
    at = reference_of(image, top) & OFFSET
    if image[at] & 15 != 4:
        image[at + 25] = image[at + 24]
        return
    index = image[at + 24 : at + 280]
    image[at + 24 + index.index(1)] = {MANY: 33, WIDE: 113}[COUNTS[top]]


DAMAGE: dict[str, tuple[Callable[[bytearray, int], None], str]] = {
    "count too large": (count_is_too_large, r"given 255 of \d+ slots"),
    "code in the header": (code_in_header, "expected a node of shape"),
    "code in the reference": (code_in_reference, "expected a node of shape|is no node|outside the file"),
    "code of no shape": (code_of_no_shape, "is no node"),
    "odd bits": (odd_bits_in_reference, "impossible reference"),
    "index beyond": (index_is_beyond, "can be found by their key bytes"),
}


def use(index: Any, checks: bool) -> None:
    """Every kind of reading, and some writing; a wrong value is none of the answers that may come."""

    def attempt(call: Callable[[], Any]) -> None:
        with contextlib.suppress(rowex.CorruptionError):
            call()

    def read(key: bytes) -> None:
        assert index.get(key) in (KEYS.get(key), None)

    every = [bytes((top, byte)) for top in COUNTS for byte in range(256)]
    for key in every:
        attempt(lambda key=key: read(key))
    attempt(lambda: index.get_many(every))
    for reverse in (False, True):
        attempt(lambda reverse=reverse: list(index.scan(reverse=reverse)))
        for top in COUNTS:
            for limit in (3, 100):
                bound = bytes((top, 100))
                attempt(lambda b=bound, r=reverse, n=limit: list(index.scan(b, reverse=r, limit=n)))
                attempt(lambda b=bound, r=reverse, n=limit: list(index.scan(stop=b, reverse=r, limit=n)))
    attempt(index.stats)
    if checks:
        for key in every[::7]:
            attempt(lambda key=key: index.put(key, b"new"))
            attempt(lambda key=key: index.remove(key))
        attempt(index.compact)


@pytest.mark.parametrize("top", COUNTS, ids="few some many wide".split())
@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_tight_node_is_told_and_nothing_crashes(what: str, top: int, path: Path, child: Start) -> None:
    """In a file that was closed check() says what it is; in one that was not, the scan at opening may."""
    damage, text = DAMAGE[what]

    def leave(pipe: Any) -> None:
        index = rowex.open(path)
        index[b"mark"] = b""  # in use
        pipe.send(len(index))
        os._exit(0)  # not a close

    make_by_building(path, KEYS)
    image = bytearray(path.read_bytes())
    damage(image, top)
    path.write_bytes(image)
    with rowex.open(path) as index, pytest.raises(rowex.CorruptionError) as caught:
        index.check()
    assert any(re.search(text, fault) for _, fault in caught.value.faults), caught.value.faults
    for mode in ("r", "w"):
        with rowex.open(path, mode) as index:
            if damage is code_in_header and COUNTS[top] <= 16:  # of larger ones a lookup does not read the header
                with pytest.raises(rowex.CorruptionError, match="expected a node of shape"):
                    index.get(bytes((top, 0)))
            use(index, mode == "w")
    path.unlink()
    make_by_building(path, KEYS)
    child(leave).finish()
    image = bytearray(path.read_bytes())
    damage(image, top)
    with path.open("r+b") as file:  # the same inode
        file.write(image)
    suppressed = () if damage is count_is_too_large else (rowex.CorruptionError,)
    with contextlib.suppress(*suppressed), rowex.open(path) as index:
        use(index, True)


@pytest.mark.parametrize("top", COUNTS, ids="few some many wide".split())
def test_nodes_at_the_end_of_the_file_are_read_to_their_last_slot(top: int, path: Path) -> None:
    """And no further, whatever count and index say; one that would need more room than is left is refused."""
    make_by_building(path, KEYS)
    image = bytearray(path.read_bytes())
    reference = reference_of(image, top)
    kind, slots = reference & 7, slots_for(COUNTS[top])[1]
    size = SLOTS_AT[kind] + 8 * slots
    at = len(image) - size
    image[at:] = image[reference & OFFSET :][:size]
    refer(image, top, at | reference & ~OFFSET)
    sound = bytes(image)
    path.write_bytes(sound)
    with rowex.open(path, "r") as index:
        assert dict(index.scan()) == KEYS
        assert index.get_many(list(KEYS)) == list(KEYS.values())
    for damage in (count_is_too_large, index_is_beyond, code_in_header, code_in_reference, code_of_no_shape):
        image = bytearray(sound)
        damage(image, top)
        path.write_bytes(image)
        with rowex.open(path, "r") as index:
            use(index, False)
    image = bytearray(sound)
    image[at] &= 0x0F  # whole: but for a wide one it reaches beyond the end
    refer(image, top, at | kind)
    path.write_bytes(image)
    with rowex.open(path, "r") as index:
        use(index, False)
        if slots < 48:
            with pytest.raises(rowex.CorruptionError, match=r"outside the file|impossible reference"):
                index.get(bytes((top, 0)))
