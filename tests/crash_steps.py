"""
Steps of the scenarios of test_crashpoints.py: doing them, and the states that they may leave.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy  # noqa: F401 -- what Packed needs: a forked process need not import it again

import rowex
from crash_scenario import State, Step
from rowex._native import ffi, lib
from rowex.cli.recover import explain
from rowex.columns import Packed
from tools import eventually

OPENS = ("open", "create", "copy", "salvage", "build", "destroy", "away", "back")  # no index is open before


def opens_itself(steps: list[Step]) -> bool:
    """Whether the first step is about the file, not about an open index."""
    first = next(step for step in steps if step[0] != "fault")
    return (first[1][0] if first[0] in ("refused", "either") else first[0]) in OPENS


def elsewhere(path: Path) -> Path:
    """Where copies go."""
    return path.parent.with_name(f"{path.parent.name}.other") / "copy.rowex"


def perform(index: Any, step: Step, path: Path) -> Any:
    """Do one step; answers the index to go on with."""
    name, *args = step
    if name in _CALLS:
        _CALLS[name](index, *args)
    elif name in _FILES:
        _FILES[name](path, *args)
    elif name in OPENS:
        return rowex.open(path)
    elif name == "backup":
        index.backup(elsewhere(path))
    elif name == "until checkpoint":
        before = _checkpoint(path)
        eventually(lambda: _put_durably(index, *args) or _checkpoint(path) != before)
    elif name == "pause":
        time.sleep(args[0])  # nothing is waited for: another process is to go on beside this one for a while
    elif name == "aside":
        thread = threading.Thread(target=perform, args=(index, args[0], path))
        thread.start()
        thread.join()
    elif name in ("refused", "either"):
        try:
            perform(index, args[0], path)
        except (rowex.RowexError, OSError):
            return index
        assert name == "either", f"{args[0]} was not refused"
    else:
        getattr(index, name)(*args)
    return index


def _checkpoint(path: Path) -> int:
    try:
        return os.stat(f"{path}-checkpoint").st_ino
    except FileNotFoundError:
        return 0


def _put_durably(index: Any, key: bytes, value: bytes) -> None:
    index.put(key, value, durable=True)


def _cas(index: Any, key: bytes, expected: bytes | None, new: bytes | None) -> None:
    assert index.compare_and_set(key, expected, new)


def _batch(index: Any, items: list[tuple[bytes, bytes | None]]) -> None:
    with index.batch() as batch:
        for key, value in items:
            batch.remove(key) if value is None else batch.put(key, value)


def _reader(index: Any, key: bytes) -> None:
    with index.reader() as reader:
        reader.get(key)


def _writer(index: Any, key: bytes, value: bytes) -> None:
    with index.writer() as writer:
        writer.put(key, value)


def _readers(index: Any, count: int) -> None:
    """So many at once: the table of uids grows."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(index.reader()).exists(b"nobody")


def _writers(index: Any, items: list[tuple[bytes, bytes]]) -> None:
    """One for each, all at once: so many arenas."""
    with ExitStack() as stack:
        for key, value in items:
            stack.enter_context(index.writer()).put(key, value)


def _look(index: Any) -> None:
    """Every kind of reading."""
    some = next(iter(index.keys()), b"nobody")
    index.exists(some)
    index.get(some)
    index.get_many([some, b"nobody"])
    index.get_many(Packed.of([some, b"nobody"]), dtype=Packed)
    list(index.scan())
    index.first(), index.last(), index.floor(some), index.ceiling(some)
    index.stats()
    index.info()
    lib.rx_inspect(index._live_handle(), 4096, ffi.new("struct rx_node_info *"))
    lib.rx_inspect_path(index._live_handle(), some, len(some), ffi.new("uint64_t[64]"), 64, ffi.new("size_t *"))


def _watch(index: Any) -> None:
    """What rowex.aio waits with."""
    out = ffi.new("rx_watch **")
    assert lib.rx_watch_open(index._live_handle(), out) == lib.RX_OK
    lib.rx_watch_close(out[0])


def _replace(path: Path) -> None:
    """Another file, which holds the same, takes the name."""
    rowex.copy(path, elsewhere(path))
    os.replace(elsewhere(path), path)


def _read_only(path: Path) -> None:
    with rowex.open(path, "r") as index:
        index.check()


def _salvage(path: Path) -> None:
    rowex.salvage(path, elsewhere(path))


_CALLS: dict[str, Callable[..., Any]] = {
    "remove": lambda index, key: index.remove(key),
    "cas": _cas,
    "durable": _put_durably,
    "reader": _reader,
    "writer": _writer,
    "readers": _readers,
    "writers": _writers,
    "batch": _batch,
    "look": _look,
    "watch": _watch,
}
_FILES: dict[str, Callable[..., Any]] = {
    "copy": lambda path: rowex.copy(path, elsewhere(path)),
    "salvage": _salvage,
    "build": lambda path, items: rowex.build(elsewhere(path), items),
    "destroy": rowex.destroy,
    "read only": _read_only,
    "explain": explain,
    "replace file": _replace,
    "away": lambda path: rowex.rename(path, elsewhere(path)),
    "back": lambda path: rowex.rename(elsewhere(path), path),
}


def outcomes(state: State, step: Step) -> list[State]:
    """The states that the step goes through, the one before it first and the one after it last."""
    name, *args = step
    match name:
        case "aside":
            return outcomes(state, args[0])
        case "put" | "insert" | "setdefault" | "durable" | "writer" | "until checkpoint":
            return [state, {**state, args[0]: args[1]}]
        case "remove" | "pop":
            return [state, without(state, args[0])]
        case "popitem":
            return [state, *(without(state, key) for key in state)]
        case "cas":
            return [state, without(state, args[0]) if args[2] is None else {**state, args[0]: args[2]}]
        case "destroy":
            return [state, {}]
        case "refused":
            return [state]
        case "either":
            return outcomes(state, args[0])
        case "writers":
            return [{**state, **dict(args[0][:i])} for i in range(len(args[0]) + 1)]
        case "batch":
            changed = {**state, **dict(args[0])}
            return [state, {key: value for key, value in changed.items() if value is not None}]
        case "put_many":
            return [{**state, **dict(args[0][:i])} for i in range(len(args[0]) + 1)]
        case "remove_many":
            return [without(state, *args[0][:i]) for i in range(len(args[0]) + 1)]
        case _:
            return [state]


def without(state: State, *gone: bytes) -> State:
    """The state less some keys."""
    return {key: value for key, value in state.items() if key not in gone}


def last_of(state: State, step: Step) -> list[State]:
    """The states that it may leave when it has returned."""
    if step[0] == "put_many":
        return [{**state, **dict(step[1])}]
    every = outcomes(state, step)
    return every[1:] if step[0] == "popitem" else every if step[0] == "either" else every[-1:]


def touched(steps: list[Step]) -> list[bytes]:
    """The keys that the steps are about."""
    found: dict[bytes, None] = {}
    for _, *args in steps:
        for arg in args:
            for item in arg if isinstance(arg, list) else [arg]:
                key = item[0] if isinstance(item, tuple) else item
                if isinstance(key, bytes) and arg is args[0]:
                    found[key] = None
    return list(found)[:6]
