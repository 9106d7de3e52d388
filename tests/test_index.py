"""
The public interface: what it accepts, what it answers, what it refuses.
"""

from __future__ import annotations

import array
import mmap
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest

import rowex
from tools import assert_same, refusal

Opened = Callable[..., Any]


# ---- a mapping -----------------------------------------------------------------


def test_index_is_a_mutable_mapping_in_key_order(index: Any) -> None:
    """It behaves as a dict that is sorted by its keys."""
    assert isinstance(index, MutableMapping)
    index.update({b"b": b"2", b"a": b"1", b"c": b"3"})
    index[b""] = b"0"
    assert list(index) == [b"", b"a", b"b", b"c"]
    assert list(index.items()) == [(b"", b"0"), (b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    assert list(reversed(index.values())) == [b"3", b"2", b"1", b"0"]
    assert index == {b"": b"0", b"a": b"1", b"b": b"2", b"c": b"3"}
    assert index != {b"": b"0"}
    assert b"a" in index.keys()  # noqa: SIM118
    assert (b"a", b"1") in index.items()
    assert b"3" in index.values()
    assert index.keys() & {b"a", b"zz"} == {b"a"}
    del index[b"a"]
    assert len(index) == 3
    index.clear()
    assert len(index) == 0
    assert not index


def test_missing_key_is_a_key_error_with_the_key(index: Any) -> None:
    """KeyError carries the key, as a dict's does."""
    for call in (index.lookup, index.__getitem__, index.remove, index.__delitem__, index.pop):
        with pytest.raises(KeyError) as caught:
            call(b"absent")
        assert caught.value.args == (b"absent",)
    with pytest.raises(KeyError):
        index.popitem()
    assert index.discard(b"absent") is False
    assert index.get(b"absent") is None
    assert index.get(b"absent", default=b"x") == b"x"


def test_insert_of_a_present_key_changes_nothing(index: Any) -> None:
    """DuplicateKeyError is a KeyError that knows the key; the old value stays."""
    index.insert(b"key", b"old")
    with pytest.raises(rowex.DuplicateKeyError) as caught:
        index.insert(b"key", b"new")
    assert isinstance(caught.value, KeyError)
    assert caught.value.key == b"key"
    assert index[b"key"] == b"old"
    assert len(index) == 1


def test_compare_and_set_changes_only_what_is_as_expected(index: Any) -> None:
    """None stands for absent, on either side; b"" is a value."""
    assert index.compare_and_set(b"k", b"1", b"2") is False
    assert index.compare_and_set(b"k", None, b"") is True
    assert index.compare_and_set(b"k", None, b"2") is False
    assert index.compare_and_set(b"k", b"", b"2") is True
    assert index.compare_and_set(b"k", b"22", b"3") is False
    assert index.compare_and_set(b"k", b"2", None) is True
    assert b"k" not in index
    assert index.compare_and_set(b"k", None, None) is True
    assert len(index) == 0


def test_writes_return_a_ticket_of_zero_without_a_log(path: Path) -> None:
    """Tickets are ints; a file without a log has nothing to wait for and says so."""
    with rowex.open(path, durability="process") as index:
        assert index.put(b"a", b"1") == 0
        assert index.insert(b"b", b"1") == 0
        assert index.remove(b"a") == 0
        assert index.remove_many([b"b"]) == 0
        for call in (lambda: index.wait_durable(0), index.flush, index.checkpoint, lambda: index.position):
            with pytest.raises(rowex.DurabilityError):
                call()


def test_scan_bounds_are_half_open_in_both_directions(index: Any) -> None:
    """start <= key < stop, also reversed; an empty or inverted range yields nothing."""
    index.update([(bytes([c]), b"") for c in b"abcde"])

    def found(*bounds: Any, **options: Any) -> bytes:
        return b"".join(key for key, _ in index.scan(*bounds, **options))

    assert found(b"b", b"d") == b"bc"
    assert found(b"b", b"d", reverse=True) == b"cb"
    assert found(b"bb", b"dd") == b"cd"
    assert found(b"d", b"b") == b""
    assert found(b"b", b"b") == b""
    assert found(None, b"c") == b"ab"
    assert found(b"d", None) == b"de"
    assert found(limit=2) == b"ab"
    assert found(limit=2, reverse=True) == b"ed"
    assert found(limit=0) == b""
    assert found(b"", b"") == b""
    assert found(prefix=b"") == b"abcde"
    assert found(prefix=b"c") == b"c"
    assert found(prefix=b"cc") == b""


def test_scan_of_a_prefix_of_255s_has_no_upper_end(index: Any) -> None:
    """The keys under b"\\xff\\xff" have no successor to stop at."""
    names = [b"\xfe", b"\xff", b"\xff\xff", b"\xff\xff\x00", b"\xff\xff\xff"]
    index.update([(name, b"") for name in names])
    assert [key for key, _ in index.scan(prefix=b"\xff\xff")] == names[2:]
    assert [key for key, _ in index.scan(prefix=b"\xff", reverse=True)] == names[:0:-1]


def test_changing_while_iterating_is_allowed(index: Any) -> None:
    """A loop may remove and add; each key comes at most once, in order."""
    keys = [b"%04d" % i for i in range(3000)]
    index.update([(key, b"") for key in keys])
    seen = []
    for key in index:
        seen.append(key)
        del index[key]
        index[b"!" + key] = b""
        index[key + b"+"] = b""
        del index[key + b"+"]
    assert seen == keys
    assert list(index) == [b"!" + key for key in keys]
    index.check()


def test_an_abandoned_scan_holds_nothing(index: Any) -> None:
    """A scan that is not read to its end pins no garbage and stops nobody."""
    index.update([(b"%04d" % i, bytes(100)) for i in range(5000)])
    scans = [index.scan() for _ in range(50)]
    for scan in scans:
        next(scan)
    for round_number in range(30):
        index.update([(b"%04d" % i, bytes([round_number]) * 100) for i in range(5000)])
    assert index.stats().file_bytes < 40 << 20
    index.compact()
    assert all(len(list(scan)) == 4999 for scan in scans)


def test_lookups_answer_as_the_docs_say(index: Any) -> None:
    """The examples of the documentation, word for word."""
    index[b"alice"] = b"1"
    assert isinstance(index.put(b"bob", b"2"), int)
    index.insert(b"carol", b"3")
    assert index.compare_and_set(b"bob", b"2", b"22")
    index.remove(b"alice")
    assert (index.get(b"bob", default=None), index.lookup(b"bob"), index.exists(b"bob")) == (b"22", b"22", True)
    assert index.floor(b"c") == (b"bob", b"22")
    assert index.ceiling(b"c") == (b"carol", b"3")
    assert (index.first(), index.last()) == ((b"bob", b"22"), (b"carol", b"3"))


# ---- types ------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["text", 1, 1.5, None, ["x"], (b"x",), object()], ids=repr)
def test_wrong_type_of_key_is_a_type_error_everywhere(index: Any, wrong: Any) -> None:
    """No call takes a str or a number for bytes; nothing is changed, nothing answered."""
    index[b"x"] = b"1"
    calls: list[Callable[[], Any]] = [
        lambda: index[wrong],
        lambda: wrong in index,
        lambda: index.get(wrong),
        lambda: index.lookup(wrong),
        lambda: index.exists(wrong),
        lambda: index.put(wrong, b""),
        lambda: index.insert(wrong, b""),
        lambda: index.__setitem__(wrong, b""),
        lambda: index.remove(wrong),
        lambda: index.discard(wrong),
        lambda: index.pop(wrong),
        lambda: index.pop(wrong, None),
        lambda: index.setdefault(wrong, b""),
        lambda: index.compare_and_set(wrong, None, b""),
        lambda: index.floor(wrong),
        lambda: index.ceiling(wrong),
        lambda: index.get_many([wrong]),
        lambda: index.put_many([(wrong, b"")]),
        lambda: index.remove_many([wrong]),
    ]
    if wrong is not None:
        calls += [
            lambda: list(index.scan(wrong)),
            lambda: list(index.scan(None, wrong)),
            lambda: list(index.scan(prefix=wrong)),
        ]
    for number, call in enumerate(calls):
        assert refusal(call, TypeError), f"call {number}"
    assert_same(index, {b"x": b"1"})


@pytest.mark.parametrize("wrong", ["text", 1, None, [1]], ids=repr)
def test_wrong_type_of_value_is_a_type_error_everywhere(index: Any, wrong: Any) -> None:
    """A value is bytes or another buffer; in compare_and_set None means absent."""
    index[b"x"] = b"1"
    calls: list[Callable[[], Any]] = [
        lambda: index.put(b"x", wrong),
        lambda: index.insert(b"y", wrong),
        lambda: index.__setitem__(b"x", wrong),
        lambda: index.setdefault(b"y", wrong),
        lambda: index.put_many([(b"x", wrong)]),
        lambda: index.put_many([(b"x",)]),
        lambda: index.put_many([b"x"]),
        lambda: index.put_many(7),
        lambda: index.get_many(7),
        lambda: index.remove_many(7),
    ]
    if wrong is not None:
        calls.append(lambda: index.compare_and_set(b"x", wrong, b""))
        calls.append(lambda: index.compare_and_set(b"x", b"1", wrong))
    for number, call in enumerate(calls):
        assert not isinstance(refusal(call, TypeError, ValueError), rowex.RowexError), f"call {number}"
    assert_same(index, {b"x": b"1"})


@pytest.mark.parametrize(
    "make",
    [bytes, bytearray, memoryview, lambda b: array.array("B", b), lambda b: memoryview(b + b + b)[len(b) : 2 * len(b)]],
    ids=["bytes", "bytearray", "memoryview", "array", "slice"],
)
def test_any_contiguous_buffer_is_a_key_or_a_value(index: Any, make: Callable[[bytes], Any]) -> None:
    """Buffers go in, bytes come out."""
    key, value = make(b"the key"), make(b"the value")
    index[key] = value
    assert index[make(b"the key")] == b"the value"
    assert type(index[key]) is bytes
    assert key in index
    assert index.get_many([key]) == [b"the value"]
    index.put_many([(key, make(b"other"))])
    assert index.compare_and_set(key, make(b"other"), value)
    assert [(type(k), type(v)) for k, v in index.scan(key, None, limit=1)] == [(bytes, bytes)]
    assert index.pop(key) == b"the value"
    index.insert(key, value)
    assert index.remove_many([key]) == index.position


def test_a_map_of_a_file_is_a_value(index: Any) -> None:
    """A buffer may be as big and as odd as an mmap."""
    with mmap.mmap(-1, 1 << 20) as data:
        data[:4] = b"head"
        index[b"m"] = data
    assert index[b"m"] == b"head" + bytes((1 << 20) - 4)


def test_a_buffer_with_holes_is_refused(index: Any) -> None:
    """Only contiguous buffers have a meaning as bytes."""
    holes = memoryview(b"abcdef")[::2]
    for call in (lambda: index.put(holes, b""), lambda: index.put(b"", holes), lambda: index.get(holes)):
        with pytest.raises((BufferError, TypeError)):
            call()
    assert len(index) == 0


# ---- numbers ---------------------------------------------------------------------------------


def test_stats_count_what_is_there(index: Any) -> None:
    """Nodes by kind, leaves, bytes, depths and uids are those of the keys that were put."""
    index.update([(b"a" + bytes([i]), b"") for i in range(3)])
    index.update([(b"b" + bytes([i]), b"") for i in range(10)])
    index.update([(b"c" + bytes([i]), b"") for i in range(40)])
    index.update([(b"d" + bytes([i]), b"") for i in range(200)])
    stats = index.stats()
    assert stats.keys == stats.leaves == len(index) == 253
    assert stats.nodes == {"Node4": 1, "Node16": 1, "Node48": 1, "Node256": 2}
    assert sum(stats.depths) == 253
    assert stats.depths[2] == 253
    assert stats.locked_nodes == 0
    assert stats.used_bytes + stats.free_bytes + stats.retired_bytes + stats.unused_bytes <= stats.file_bytes
    assert stats.used_bytes >= 253 * 16 + 2 * 2072
    assert stats.capacity_bytes >= stats.file_bytes
    assert [info.kind for info in stats.uids if info.kind != "flusher"] == ["thread"]  # it may have begun already
    assert index.check().keys == 253
