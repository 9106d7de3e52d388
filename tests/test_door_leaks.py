"""
No call of a door leaks memory or references, whether it succeeds or fails.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

from rowex import CorruptionError, codecs
from rowex._door import encoded

SIZES = (0, 1, 7, 8, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20)
ITEMS, KEYS, VALUES = 0, 1, 2
FORMS = (("a", 1, b"c"), ("\0", "\xe9"), (("a",), 1 << 100), ("b" * 70_000, b"\0"), tuple(range(17)))
WRONG = (None, 1, 1.5, object(), ["a"], ("a", "b"))


def leak_cases(door: Any) -> dict[str, Callable[[], Any]]:
    """Calls that succeed and calls that fail, each to be repeated."""
    large = bytes(100_000)
    door.put_many({b"the key": b"v", b"large": large, b"\xff": b""})
    door.put_many((b"many%04d" % i, b"%d" % i) for i in range(1100))
    keys = [b"many%04d" % i for i in range(1100)]

    def half() -> None:
        scan = door.scan()
        for _ in range(300):
            next(scan)

    return {
        "get": lambda: door.get(b"the key"),
        "get large": lambda: door.get(b"large"),
        "get absent": lambda: door.get(b"no"),
        "get buffer": lambda: door.get(bytearray(b"the key")),
        "get wrong": lambda: door.get(1),
        "get keyword": lambda: door.get(b"the key", wrong=1),
        "lookup absent": lambda: door.lookup(b"no"),
        "in": lambda: b"the key" in door,
        "in wrong": lambda: 1 in door,
        "put": lambda: door.put(b"the key", b"v"),
        "put large buffer": lambda: door.put(bytearray(b"large"), bytearray(large)),
        "put wrong": lambda: door.put(bytearray(b"the key"), 1),
        "put timeout": lambda: door.put(b"the key", b"v", timeout="1"),
        "insert present": lambda: door.insert(bytearray(b"the key"), bytearray(b"v")),
        "get_many": lambda: door.get_many(keys),
        "get_many large": lambda: door.get_many([b"large", b"no", bytearray(b"the key")], object()),
        "get_many wrong": lambda: door.get_many([*keys[:100], 1]),
        "put_many": lambda: door.put_many((key, b"v") for key in keys),
        "put_many wrong": lambda: door.put_many([(b"the key", b"v"), (bytearray(b"the key"), 1)]),
        "put_many pair": lambda: door.put_many([(b"the key", b"v"), (b"the key",)]),
        "get each": lambda: door._get_each(keys, None, codecs.encode_bytes, codecs.decode_str),
        "get each large": lambda: door._get_each([b"large", b"no"], 1, codecs.encode_key, codecs.decode_str),
        "get each wrong": lambda: door._get_each(keys, None, codecs.encode_bytes, codecs.decode_tuple),
        "get each key": lambda: door._get_each([1, 2, b""], None, codecs.encode_int, codecs.decode_int),
        "scan decoded": lambda: list(door._scan(None, None, b"many", False, None, 0, codecs.decode_str, int)),
        "scan damaged": lambda: list(door._scan(None, None, b"many", False, None, 0, bytes, codecs.decode_tuple)),
        "put encoded": lambda: door.put_many(encoded([(1, b"a")] * 300, codecs.encode_int, codecs.encode_bytes)),
        "put encoded wrong": lambda: door.put_many(encoded([(1, b"a"), (1, 1)], codecs.encode_int, codecs.encode_key)),
        "put no pairs": lambda: door.put_many(encoded([(1, b"a"), [1]], codecs.encode_int, codecs.encode_key)),
        "forms": lambda: [codecs.decode_tuple(codecs.encode_tuple(item)) for item in FORMS],
        "no forms": lambda: codecs.decode_tuple(b"\x20a\x00\x10b"),
        "scan": lambda: list(door.scan()),
        "scan some": half,
        "scan prefix": lambda: list(door.scan(bytearray(b"a"), prefix=bytearray(b"many"), limit=3)),
        "scan wrong": lambda: door.scan(bytearray(b"a"), 1, prefix=b"a"),
        "scan limit": lambda: door.scan(limit=-1),
    }


def grown_bytes(call: Callable[[], Any], times: int) -> int:
    """Bytes that are there after *times* calls and were not before."""
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(times):
        with contextlib.suppress(TypeError, ValueError, KeyError, CorruptionError):
            call()
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before


def test_no_call_leaks_memory(door: Any) -> None:
    """Neither on the way of success nor on that of any error."""
    cases = leak_cases(door)
    tracemalloc.start()
    try:
        for name, call in cases.items():
            # The interpreter's own free lists fill up first; any object is larger than 24 bytes.
            rounds = (20, 20, 50, 200, 2000, 2000)
            assert any(grown_bytes(call, times) < times * 24 for times in rounds), name
    finally:
        tracemalloc.stop()


def test_no_call_leaks_references(door: Any) -> None:
    """Keys, values and defaults are as much referenced after a call as before."""
    key, absent, value, default = b"a key", b"absent", b"a value", object()
    large = bytes(70_000)
    door[key] = value

    def calls() -> None:
        door.get(key), door.get(absent, default), door.exists(key), door.get_many([key, absent], default)
        door.put(key, large), door.put(key, value), door.put_many([(key, value), (key, large)])
        list(door.scan(key, prefix=key))
        for wrong in (lambda: door.lookup(absent), lambda: door.insert(key, value), lambda: door.put(key, 1)):
            with contextlib.suppress(KeyError, TypeError):
                wrong()

    things = (key, absent, value, default, large, door)
    calls()
    gc.collect()
    before = [sys.getrefcount(thing) for thing in things]
    for _ in range(50):
        calls()
    gc.collect()
    assert before == [sys.getrefcount(thing) for thing in things]
