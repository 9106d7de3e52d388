"""
Keys and values of every length and shape.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

import rowex
from tools import assert_same, counted, mail_keys, make_value, orders, read_value


def test_keys_that_extend_each_other_up_to_20000_bytes_are_all_there(index: Any) -> None:
    """b"a" * n for n to 20,000: each key is a prefix of all later ones."""
    lengths = [*range(300), *range(300, 20_001, 97), 19_999, 20_000]
    rng = random.Random(1)
    rng.shuffle(lengths)
    for n in lengths:
        index[b"a" * n] = b"%d" % n
    assert len(index) == len(set(lengths)) == counted(index)
    assert [len(key) for key, _ in index.scan()] == sorted(set(lengths))
    assert [int(value) for _, value in index.scan(reverse=True)] == sorted(set(lengths), reverse=True)
    for n in range(0, 20_001, 61):
        floor, ceiling = index.floor(b"a" * n), index.ceiling(b"a" * n)
        assert len(floor[0]) == max(m for m in lengths if m <= n)
        assert len(ceiling[0]) == min(m for m in lengths if m >= n)
        assert (index.get(b"a" * n) is not None) == (n in set(lengths))
    index.check()
    rng.shuffle(lengths)
    for n in lengths:
        assert index.pop(b"a" * n, None) == b"%d" % n
    assert len(index) == 0
    index.check()


@pytest.mark.long
def test_every_key_of_as_up_to_20000_is_there() -> None:
    """All 20,001 of them."""
    with rowex.memory() as index:
        for n in range(20_001):
            index[b"a" * n] = b"%d" % n
        assert len(index) == 20_001
        assert all(index[b"a" * n] == b"%d" % n for n in range(0, 20_001, 7))
        index.check()


def test_long_keys_with_long_shared_prefixes_are_told_apart(index: Any) -> None:
    """Keys of hundreds of KiB that differ only at their ends, at their middles, or by length."""
    body = random.Random(2).randbytes(300_000)
    model = {}
    for cut in (1, 255, 256, 257, 65_534, 65_535, 65_536, 65_537, 131_072, 200_000, 299_999, 300_000):
        for tail in (b"", b"\x00", b"\xff", b"tail"):
            key = body[:cut] + tail
            model[key] = make_value(key[-8:] + b"%d" % len(key), 1)
            index[key] = model[key]
    assert_same(index, model)
    for prefix in (body[:65_536], body[:200_000], body):
        expected = sorted(item for item in model.items() if item[0].startswith(prefix))
        assert list(index.scan(prefix=prefix)) == expected
    order = sorted(model)
    random.Random(3).shuffle(order)
    for key in order:
        assert index.pop(key) == model.pop(key)
        if len(model) % 8 == 0:
            assert_same(index, model)


def test_key_at_the_limit_is_taken_and_one_above_is_refused(index: Any) -> None:
    """Keys hold up to 1 MiB; a longer one is a ValueError that says so, and changes nothing."""
    most = b"k" * (1 << 20)
    index[most] = b"most"
    assert index[most] == b"most"
    for call in (
        lambda: index.put(most + b"k", b""),
        lambda: index.insert(most + b"k", b""),
        lambda: index.put_many([(most + b"k", b"")]),
        lambda: index.compare_and_set(most + b"k", None, b""),
        lambda: index.setdefault(most + b"k", b""),
    ):
        with pytest.raises(ValueError, match="1 MiB"):
            call()
    assert index.get(most + b"k") is None
    assert most + b"k" not in index
    assert index.floor(most + b"k") == (most, b"most")
    assert index.ceiling(most + b"k") is None
    assert_same(index, {most: b"most"})
    index.remove(most)
    index.check()


@pytest.mark.parametrize("checksum", [True, False])
def test_values_of_every_size_come_back(path: Any, checksum: bool) -> None:
    """From empty, over every size around the borders of the small, middle and big cells."""
    sizes = [*range(70), *range(990, 1100), *range(4060, 4110), 8192, 65_535, 65_536, 65_537, 1 << 20, 3_000_001]
    with rowex.open(path, checksum=checksum) as index:
        for size in sizes:
            index[b"size-%d" % size] = (
                make_value(b"%d" % size, size, size)[:size] if size < 8 else make_value(b"%d" % size, size, size - 8)
            )
        for size in sizes:
            assert len(index[b"size-%d" % size]) == size
            if size >= 8:
                assert read_value(b"%d" % size, index[b"size-%d" % size]) == size
        index.check()
        for size in sizes:  # in place of one of another size
            index[b"size-%d" % size] = bytes(sizes[-1] - size)
        assert {len(value) for value in index.values()} == {sizes[-1] - size for size in sizes}
        index.check()


@pytest.mark.limit(200)
def test_huge_value_comes_back_and_its_space_is_used_again(path: Any, long_run: bool) -> None:
    """A value of 64 MiB (1 GiB in a long run) is stored, replaced and removed; the file does not double each time."""
    size = 1 << 30 if long_run else 64 << 20
    with rowex.open(path) as index:
        for number in range(4):
            value = bytes([number + 1]) * (size - number)
            index[b"huge"] = value
            assert index[b"huge"] == value
            assert index.get_many([b"huge", b"absent"]) == [value, None]
        assert index.stats().file_bytes < 3.2 * size
        assert next(index.scan()) == (b"huge", value)
        assert index.pop(b"huge") == value
        assert index.first() is None
        index.compact()
        assert index.stats().file_bytes < 4 << 20


def test_every_pair_of_short_keys_is_ordered(index: Any) -> None:
    """All keys of up to two bytes from a small alphabet, the empty one included."""
    alphabet = [b"\x00", b"\x01", b"a", b"\xfe", b"\xff"]
    keys = [b"", *alphabet, *(x + y for x in alphabet for y in alphabet)]
    keys += [x + y + z for x in alphabet for y in alphabet for z in alphabet]
    for key in keys:
        index.insert(key, key)
    assert [key for key, _ in index.scan()] == sorted(keys)
    for low in keys[:31]:
        for high in keys[:31]:
            assert [k for k, _ in index.scan(low, high)] == sorted(k for k in keys if low <= k < high)
    index.check()


@pytest.mark.parametrize("kind", [4, 16, 48, 256])
def test_node_of_each_kind_answers_at_its_edges(index: Any, kind: int) -> None:
    """Growing and shrinking through every fill, with bytes at both ends of the range."""
    rng = random.Random(kind)
    order = [0, 255, 127, 128, *rng.sample([b for b in range(1, 255) if b not in (127, 128)], 252)][: kind + 1]
    model: dict[bytes, bytes] = {}
    for byte in order:
        model[b"x" + bytes([byte])] = index[b"x" + bytes([byte])] = bytes([byte])
        if len(model) % 5 == 0 or len(model) > kind - 2:
            assert_same(index, model)
    for byte in range(256):
        key = b"x" + bytes([byte])
        assert index.get(key) == model.get(key)
        assert index.floor(key) == max((item for item in model.items() if item[0] <= key), default=None)
        assert index.ceiling(key) == min((item for item in model.items() if item[0] >= key), default=None)
    rng.shuffle(order)
    for byte in order:
        assert index.pop(b"x" + bytes([byte])) == model.pop(b"x" + bytes([byte]))
        if len(model) % 7 == 0 or len(model) < 6:
            assert_same(index, model)


def test_mail_like_keys_in_three_orders_leave_the_file_at_its_floor(index: Any, rng: random.Random) -> None:
    """
    Several thousand keys of which over 1.5 % extend another, inserted, found, replaced and removed
    in three orders: the tree is empty afterwards and uses what it used at first.
    """
    keys = mail_keys(4000, rng)
    ordered = sorted(keys)
    extending = sum(later.startswith(earlier) for earlier, later in itertools.pairwise(ordered))
    assert extending > 0.015 * len(keys)
    floor = index.stats().used_bytes
    for insert_order, inserted in orders(keys, rng):
        for remove_order, removed in orders(keys, rng):
            for key in inserted:
                index.insert(key, make_value(key, 1))
            assert len(index) == len(keys)
            assert [key for key, _ in index.scan()] == ordered
            for key in removed:
                assert read_value(key, index[key]) == 1
                index[key] = make_value(key, 2, 40)
            for number, key in enumerate(removed):
                assert read_value(key, index.pop(key)) == 2
                if number == len(keys) // 2:
                    index.check()
            assert len(index) == counted(index) == 0
            used = index.stats().used_bytes
            assert used == floor, f"inserted {insert_order}, removed {remove_order}: {used - floor} bytes too many"
    index.check()
    assert index.stats().nodes == {"Node4": 0, "Node16": 0, "Node48": 0, "Node256": 1}


def test_growing_and_emptying_again_and_again_does_not_grow_the_file(index: Any, rng: random.Random) -> None:
    """Freed cells are used again: the file stays as long as after the first rounds."""
    keys = mail_keys(1500, rng)
    sizes = []
    for number in range(40):
        rng.shuffle(keys)
        for key in keys:
            index[key] = make_value(key, number, rng.randrange(8, 400))
        rng.shuffle(keys)
        index.remove_many(keys)
        sizes.append(index.stats().file_bytes)
    step = 1 << 20  # in which a small file grows
    assert sizes[-1] <= sizes[3] + step, sizes


def test_get_many_answers_in_order_with_repeats(index: Any) -> None:
    """Item i belongs to key i; big and small values mix; absent ones get the default."""
    model = {b"%d" % i: make_value(b"%d" % i, i, (i * 7919) % 70_000) for i in range(400)}
    index.put_many(model)
    wanted = [b"%d" % (i * 37 % 500) for i in range(3000)]
    marker = object()
    assert index.get_many(wanted, marker) == [model.get(key, marker) for key in wanted]
    assert index.get_many(iter(wanted)) == [model.get(key) for key in wanted]
    assert index.get_many([]) == []


def test_put_many_takes_mappings_and_iterators_and_keeps_the_last(index: Any) -> None:
    """Items are put in their order, so that the last of several with one key stays."""
    index.put_many({b"a": b"1", b"b": b"2"})
    index.put_many((b"k%d" % (i % 10), b"%d" % i) for i in range(5000))
    index.put_many([])
    assert index.get_many([b"a", b"b", b"k0", b"k9"]) == [b"1", b"2", b"4990", b"4999"]
    assert len(index) == 12


def test_put_many_that_raises_keeps_what_came_before(index: Any) -> None:
    """An iterator that fails, or an item that is wrong, does not undo items before it nor damage anything."""

    def items() -> Any:
        for i in range(3000):
            yield b"%05d" % i, b"v"
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        index.put_many(items())
    present = [key for key, _ in index.scan()]
    assert present == [b"%05d" % i for i in range(len(present))]
    index.check()


def test_ordered_batches_of_alike_keys_leave_what_single_puts_would(index: Any, rng: random.Random) -> None:
    """Keys that share their way, extend each other or come twice, beside large values: the last of each is there."""
    tails = [b"", b"\0", b"a", b"ab", b"abc" * 30, b"b", b"\xff"]
    words = [b"common/" * 40 + b"%d" % number for number in range(60)] + [b"%02x" % number for number in range(200)]
    expected: dict[bytes, bytes] = {}
    for _ in range(60):
        pairs = [
            (rng.choice(words) + rng.choice(tails), rng.randbytes(rng.choice((0, 8, 8, 8, 30_000))))
            for _ in range(rng.randrange(1, 150))
        ]
        if rng.random() < 0.8:
            pairs.sort(key=lambda pair: pair[0])
        index.put_many(pairs)
        expected.update(pairs)
        for key in rng.sample(sorted(expected), len(expected) // 8):
            assert index.pop(key) == expected.pop(key)
    assert_same(index, expected)


def test_key_that_cannot_be_stored_ends_a_batch_before_it(index: Any) -> None:
    """What came before it is put, in the same group of keys and in earlier ones; what comes after is not."""
    too_long = b"k" * (2**20 + 1)
    for before in (0, 1, 31, 32, 33, 70):
        pairs = [(b"%d/%03d" % (before, number), b"v") for number in range(before)]
        with pytest.raises(ValueError):
            index.put_many([*pairs, (too_long, b"v"), (b"%d/after" % before, b"v")])
        assert list(index.scan(prefix=b"%d/" % before)) == pairs
