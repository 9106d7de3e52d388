"""
Opening and closing: modes, options, paths, handles and what becomes of them.
"""

from __future__ import annotations

import gc
import pickle
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rowex
from tools import assert_same, eventually, refusal, uid_count

Opened = Callable[..., Any]


# ---- opening ---------------------------------------------------------------------------


def test_modes_create_refuse_and_replace_as_dbm_has_it(path: Path, opened: Opened) -> None:
    """c creates, r and w need a file, n begins anew."""
    for mode in ("r", "w"):
        with pytest.raises(FileNotFoundError):
            opened(path, mode)
    assert not path.exists()
    with opened(path, "c") as index:
        index[b"k"] = b"1"
    with opened(path, "r") as index:
        assert index[b"k"] == b"1"
        for call in (
            lambda: index.put(b"k", b""),
            lambda: index.remove(b"k"),
            lambda: index.pop(b"k", None),
            lambda: index.put_many([(b"k", b"")]),
            lambda: index.compare_and_set(b"k", b"1", b""),
            lambda: index.setdefault(b"k2", b""),
            lambda: index.popitem(),
            lambda: index.clear(),
            lambda: index.compact(),
            lambda: index.writer(),
            lambda: index.__setitem__(b"k", b""),
            lambda: index.insert(b"k3", b""),
            lambda: index.remove_many([b"k"]),
            lambda: index.discard(b"k"),
        ):
            with pytest.raises(rowex.ReadOnlyError) as caught:
                call()
            assert isinstance(caught.value, PermissionError)
        assert_same(index, {b"k": b"1"})
    with opened(path, "w") as index:
        index[b"k"] = b"2"
    with opened(path, "n") as index:
        assert len(index) == 0
    with opened(str(path)) as index:
        assert len(index) == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mode": "x"}, ValueError),
        ({"mode": ""}, ValueError),
        ({"durability": "always"}, ValueError),
        ({"keys": "float"}, ValueError),
        ({"values": 7}, TypeError),
        ({"capacity": -1}, ValueError),
        ({"capacity": "big"}, TypeError),
        ({"initial_size": 0}, ValueError),
        ({"max_size": 1.5}, TypeError),
        ({"max_size": 1}, ValueError),
        ({"max_size": 1, "mode": "n"}, ValueError),
        ({"capacity": 1 << 61}, ValueError),
        ({"capacity": 1 << 47}, MemoryError),
        ({"checksum": 1}, TypeError),
        ({"flush_interval": 0}, ValueError),
        ({"no_such_option": 1}, TypeError),
    ],
    ids=str,
)
def test_senseless_option_is_refused_before_a_file_is_made(path: Path, options: dict[str, Any], error: Any) -> None:
    """A wrong option is an error at once, and leaves nothing behind."""
    with pytest.raises(error):
        rowex.open(path, **options)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        ({"keys": "str"}, {"keys": "int"}),
        ({"keys": "str"}, {"keys": "bytes"}),
        ({"values": "msgpack"}, {"values": "str"}),
        ({"checksum": False}, {"checksum": True}),
        ({"max_size": 1 << 26}, {"max_size": 1 << 27}),
    ],
    ids=str,
)
def test_option_that_disagrees_with_the_file_names_both(
    path: Path, made: dict[str, Any], asked: dict[str, Any]
) -> None:
    """A conflicting choice is an error that names what the file has and what was asked for."""
    rowex.open(path, **made).close()
    with pytest.raises(ValueError) as caught:
        rowex.open(path, **asked)
    text = str(caught.value).lower()
    for word in [str(value).lower() for value in (*made.values(), *asked.values()) if isinstance(value, str)]:
        assert word in text
    rowex.open(path, **made).close()
    rowex.open(path).close()


def test_file_remembers_what_it_was_made_with(path: Path, opened: Opened) -> None:
    """None means "as the file says"."""
    opened(path, keys="tuple", values="int", checksum=False, max_size=1 << 26).close()
    index = opened(path, "w")
    index[("a", 1)] = 5
    told = index.info()
    assert (told.keys_codec, told.values_codec, told.checksum) == ("tuple", "int", False)
    assert told.max_size_bytes == 1 << 26
    assert told.durability == "batch"
    assert list(index.items()) == [(("a", 1), 5)]


def test_paths_may_be_str_bytes_or_path_and_odd(folder: Path) -> None:
    """Every way to write a path names the same file; names may hold anything but NUL."""
    name = folder / "caf\u00e9 \udcff'\n"
    for form in (name, str(name), bytes(name)):
        with rowex.open(form) as index:
            index[b"n"] = b"%d" % (int(index.get(b"n", b"0")) + 1)
    with rowex.open(name) as index:
        assert index[b"n"] == b"3"
    for wrong in ("", "a\0b"):
        with pytest.raises(ValueError):
            rowex.open(wrong)
    with pytest.raises(TypeError):
        rowex.open(7)


def test_folder_or_missing_folder_is_a_clear_error(folder: Path) -> None:
    """What cannot be opened is an OSError of the right kind."""
    with pytest.raises(FileNotFoundError):
        rowex.open(folder / "no" / "index.rowex")
    with pytest.raises((OSError, rowex.FormatError)):
        rowex.open(folder)


# ---- closing -----------------------------------------------------------------------------


def test_closed_index_answers_nothing_but_closed_error(path: Path) -> None:
    """After close() every call raises ClosedError, and close() itself does nothing."""
    index = rowex.open(path)
    index[b"k"] = b"1"
    scan = index.scan()
    index.close()
    index.close()
    calls: list[Callable[[], Any]] = [
        lambda: index[b"k"],
        lambda: b"k" in index,
        lambda: len(index),
        lambda: index.get(b"k"),
        lambda: index.put(b"k", b""),
        lambda: index.insert(b"k", b""),
        lambda: index.remove(b"k"),
        lambda: index.pop(b"k", None),
        lambda: index.popitem(),
        lambda: index.setdefault(b"k", b""),
        lambda: index.compare_and_set(b"k", None, None),
        lambda: index.get_many([b"k"]),
        lambda: index.put_many([(b"k", b"")]),
        lambda: index.remove_many([b"k"]),
        lambda: list(index.scan()),
        lambda: list(index),
        lambda: list(scan),
        lambda: index.first(),
        lambda: index.floor(b"k"),
        lambda: index.stats(),
        lambda: index.info(),
        lambda: index.check(),
        lambda: index.compact(),
        lambda: index.reader(),
        lambda: index.writer(),
        lambda: index.flush(),
        lambda: index.__enter__(),
    ]
    for number, call in enumerate(calls):
        assert isinstance(refusal(call, rowex.ClosedError), ValueError), f"call {number}"
    assert index.closed


def test_readers_and_writers_have_uids_of_their_own(index: Any) -> None:
    """reader() and writer() hold a uid, show it, and close with their index."""
    with index.reader() as reader, index.writer() as writer, index.writer() as second:
        assert len({reader.uid, writer.uid, second.uid}) == 3
        writer[b"k"] = b"1"
        second.put_many([(b"l", b"2")])
        assert reader[b"k"] == b"1"
        assert list(reader.scan()) == [(b"k", b"1"), (b"l", b"2")]
        assert len(reader) == 2
        uids = {info.uid: info.kind for info in index.stats().uids}
        assert (uids[reader.uid], uids[writer.uid]) == ("reader", "writer")
        with pytest.raises(rowex.ReadOnlyError):
            reader.put(b"k", b"2")
    with pytest.raises(rowex.ClosedError):
        reader.get(b"k")
    left = index.reader()
    index.close()
    with pytest.raises(rowex.ClosedError):
        left.get(b"k")
    left.close()


@pytest.mark.parametrize("keys", ["bytes", "str"])
def test_readers_and_writers_wait_for_tickets(path: Path, opened: Opened, keys: Any) -> None:
    """position, durable, wait_durable and flush, as on the index."""
    index = opened(path, keys=keys, flush_interval=600)
    key: Any = "k" if keys == "str" else b"k"
    value: Any = b"1"
    with index.writer() as writer, index.reader() as reader:
        ticket = writer.put(key, value)
        assert reader.position == writer.position == ticket > writer.durable
        writer.wait_durable(ticket, timeout=60)
        assert reader.durable == writer.durable == ticket
        last = writer.put(key, value)
        reader.flush(timeout=60)
        assert index.durable == last
        writer.flush()
    with pytest.raises(rowex.ClosedError):
        writer.wait_durable(ticket)


def test_repr_tells_path_mode_count_and_closed(path: Path) -> None:
    """repr shows what one wants to know at a prompt, and never raises."""
    index = rowex.open(path)
    index[b"k"] = b"1"
    text = repr(index)
    assert str(path) in text
    assert "'c'" in text
    assert "1" in text.replace(str(path), "")
    assert "closed" not in text
    index.close()
    assert "closed" in repr(index)


def test_unclosed_index_gives_a_resource_warning_and_is_closed(path: Path) -> None:
    """Forgetting close() is told and harmless: the file ends up clean."""
    index = rowex.open(path)
    index[b"k"] = b"1"
    handles = [index]
    del index
    with pytest.warns(ResourceWarning, match="unclosed"):
        handles.clear()
    with rowex.open(path, "r") as again:
        assert again[b"k"] == b"1"
        assert again.stats().scans == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with rowex.open(path) as index:
            pass
        del index
        gc.collect()


def test_weak_references_work_and_do_not_keep_it_open(path: Path) -> None:
    """A weak reference follows the handle until it is collected."""
    index = rowex.open(path)
    reference = weakref.ref(index)
    assert reference() is index
    index.close()
    del index
    gc.collect()
    assert reference() is None


def test_pickled_handle_opens_the_same_file(path: Path, opened: Opened) -> None:
    """Path and options travel; "c" and "n" become "w", so that nothing is made or replaced."""
    for mode, expected in (("n", "w"), ("c", "w"), ("w", "w"), ("r", "r")):
        index = opened(path, mode)
        if mode != "r":
            index[b"k"] = b"1"
        data = pickle.dumps(index)
        with pickle.loads(data) as copy:
            assert copy.mode == expected
            assert copy.path == index.path
            assert copy[b"k"] == b"1"
        index.close()
    rowex.destroy(path)
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)


def test_what_has_no_meaning_elsewhere_is_not_pickled(index: Any) -> None:
    """Readers, writers and memory() say so instead of becoming something else."""
    with index.reader() as reader, pytest.raises(TypeError):
        pickle.dumps(reader)
    with rowex.memory() as memory, pytest.raises(TypeError):
        pickle.dumps(memory)


def test_two_handles_on_one_file_share_everything(path: Path, opened: Opened) -> None:
    """Two handles in one process see each other's writes at once, and close one by one."""
    first, second = opened(path), opened(path)
    reader = opened(path, "r")
    for i in range(500):
        first[b"%d" % i] = b"1"
        second[b"%d" % i] = b"2"
        assert first[b"%d" % i] == reader[b"%d" % i] == b"2"
    assert len(first) == len(second) == len(reader) == 500
    first.close()
    second[b"more"] = b"3"
    second.compact()
    assert reader[b"more"] == b"3"
    with pytest.raises(rowex.ReadOnlyError):
        reader[b"no"] = b""
    second.close()
    assert len(reader) == 501


def test_memory_is_an_index_without_a_file(folder: Path) -> None:
    """rowex.memory() has the whole interface and leaves nothing on disk."""
    with rowex.memory() as index:
        index.update([(b"%d" % i, b"x" * i) for i in range(2000)])
        assert len(index) == 2000
        assert index.path is None
        assert "memory" in repr(index)
        index.check()
        index.remove_many([b"%d" % i for i in range(0, 2000, 2)])
        assert_same(index, {b"%d" % i: b"x" * i for i in range(1, 2000, 2)})
    with pytest.raises(rowex.ClosedError):
        index.get(b"1")


def test_uids_come_back_when_handles_close(path: Path) -> None:
    """A thousand readers one after another use one slot."""
    with rowex.open(path) as index:
        before = uid_count(index)
        for _ in range(1000):
            with index.reader() as reader:
                reader.get(b"k")
        assert eventually(lambda: uid_count(index) <= before + 1)
