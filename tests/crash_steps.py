"""
Steps of the scenarios of test_crashpoints.py: doing them, and the states that they may leave.
"""

from __future__ import annotations

import threading
from typing import Any

import rowex
from crash_scenarios import State, Step


def perform(index: Any, step: Step) -> Any:
    """Do one step; answers the index to go on with."""
    name, *args = step
    match name:
        case "remove":
            index.remove(args[0])
        case "cas":
            assert index.compare_and_set(*args)
        case "open" | "create":
            return rowex.open(args[0])
        case "durable":
            index.put(*args, durable=True)
        case "reader":
            with index.reader() as reader:
                reader.get(args[0])
        case "writer":
            with index.writer() as writer:
                writer.put(*args)
        case "thread":
            thread = threading.Thread(target=index.put, args=args)
            thread.start()
            thread.join()
        case "batch":
            with index.batch() as batch:
                for key, value in args[0]:
                    batch.remove(key) if value is None else batch.put(key, value)
        case _:
            getattr(index, name)(*args)
    return index


def outcomes(state: State, step: Step) -> list[State]:
    """The states that the step goes through, the one before it first and the one after it last."""
    name, *args = step
    match name:
        case "put" | "insert" | "setdefault" | "durable" | "writer" | "thread":
            return [state, {**state, args[0]: args[1]}]
        case "remove" | "pop":
            return [state, without(state, args[0])]
        case "popitem":
            return [state, *(without(state, key) for key in state)]
        case "cas":
            return [state, without(state, args[0]) if args[2] is None else {**state, args[0]: args[2]}]
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
