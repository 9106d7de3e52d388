"""
The scenarios of test_crashpoints.py: each operation on the tree, its memory, its log, its file.  Those of
two processes at once: crash_pairs.py; of whole files, refusals and full disks: crash_files.py.
"""

from __future__ import annotations

from crash_files import FILES
from crash_pairs import PAIRS
from crash_scenario import MARK, Scenario, filled, keys, put
from tools import make_value

DEEP = b"d" * 300
CHAIN = b"c" * 66000
LONG = b"long/way/to/go/"
N4, N16, N48, N256 = (keys(b"n", count) for count in (4, 16, 48, 200))
PATH = [b"pathological-aaaa1", b"pathological-aaaa2"]
TIGHT = [("compact",), *MARK]  # what is there then has nodes with no more slots than they need
FILL = filled([b"fill%06d" % i for i in range(2500)], 200)

SCENARIOS: dict[str, Scenario] = {
    **FILES,
    **PAIRS,
    "insert into an empty index": Scenario({}, [put(b"only")], MARK),
    "insert the empty key": Scenario({}, [put(b"")], MARK),
    "insert nothing at the empty key": Scenario({}, [("put", b"", b"")], MARK, {"checksum": False}, where=("alone",)),
    "insert into Node4": Scenario(filled(N4[:2]), [put(N4[2])], MARK),
    "insert below the first of a Node4": Scenario(filled(keys(b"n", 2, 7)), [put(b"n\x00")], MARK),
    "insert into Node16": Scenario(filled(N16[:9]), [put(N16[9])], MARK),
    "insert into Node48": Scenario(filled(N48[:30]), [put(N48[30])], MARK),
    "insert into Node256": Scenario(filled(N256), [put(b"n\xfa")], MARK),
    "insert into the root": Scenario(filled([b"a", b"b"]), [put(b"c")], MARK),
    "grow 4 to 16": Scenario(filled(N4), [put(b"n\x04")], MARK),
    "grow 16 to 48": Scenario(filled(N16), [put(b"n\x10")], MARK),
    "grow 48 to 256": Scenario(filled(N48), [put(b"n\x30")], MARK),
    "grow a tight Node4": Scenario(filled(N4[:2]), [put(N4[2])], TIGHT),
    "grow a tight Node16": Scenario(filled(N16[:9]), [put(N16[9])], TIGHT),
    "grow a tight Node48 of many to 256": Scenario(filled(keys(b"n", 64)), [put(b"n\x40")], TIGHT),
    "key that ends at a node": Scenario(filled(PATH), [put(b"pathological-aaaa")], MARK),
    "key that extends a leaf": Scenario(filled([b"leaf"]), [put(b"leaf-more")], MARK),
    "key that a leaf extends": Scenario(filled([b"leaf-more"]), [put(b"leaf")], MARK),
    "batch of new keys": Scenario(filled(N4), [("batch", [put(key)[1:] for key in keys(b"n", 3, 4)])], MARK),
    "batch of everything": Scenario(
        filled([*N4, *PATH]),
        [("batch", [(N4[0], None), (N4[1], None), put(N4[2], 5)[1:], (b"no such key", None), put(b"path", 3)[1:]])],
        MARK,
    ),
    "batch after a batch": Scenario(
        filled(N16),
        [("batch", [put(key, 7)[1:] for key in N16[:6]]), ("batch", [(key, None) for key in N16[3:]])],
        MARK,
    ),
    "split a leaf": Scenario(filled([b"leafkey1"]), [put(b"leafkey2")], MARK),
    "split a path": Scenario(filled(PATH), [put(b"path-b")], MARK),
    "split a path at its end": Scenario(filled(PATH), [put(b"pathological")], MARK),
    "split a long path": Scenario(
        filled([DEEP + b"1", DEEP + b"2"]), [put(DEEP[:150] + b"x"), put(DEEP[:290] + b"y")], MARK
    ),
    "split a chain of paths": Scenario(
        filled([CHAIN + b"1", CHAIN + b"2"]), [put(CHAIN[:70] + b"x"), put(CHAIN[:65900] + b"y")], MARK
    ),
    "split a path above a Node16": Scenario(filled(keys(LONG, 12)), [put(b"long/x")], MARK),
    "split a path above a Node48": Scenario(filled(keys(LONG, 40)), [put(b"long/x")], MARK),
    "split a path above a Node256": Scenario(filled(keys(LONG, 200)), [put(b"long/x")], MARK),
    "merge a path onto a Node16": Scenario(filled([*keys(LONG, 12), b"long/x"]), [("remove", b"long/x")], MARK),
    "merge a path onto a Node48": Scenario(filled([*keys(LONG, 40), b"long/x"]), [("remove", b"long/x")], MARK),
    "merge a path onto a Node256": Scenario(filled([*keys(LONG, 200), b"long/x"]), [("remove", b"long/x")], MARK),
    "split a path above a tight Node16": Scenario(filled(keys(LONG, 9)), [put(b"long/x")], TIGHT),
    "merge a path onto a tight Node16": Scenario(filled([*keys(LONG, 9), b"long/x"]), [("remove", b"long/x")], TIGHT),
    "make a chain of paths": Scenario(filled([CHAIN + b"1"]), [put(CHAIN + b"2")], MARK),
    "replace": Scenario(filled(N4), [put(N4[1])], MARK),
    "replace by another size": Scenario(filled(N4), [put(N4[1], 1, 700), put(N4[1], 2, 3000)], MARK),
    "replace in the root": Scenario(filled([b"a", b"b"]), [put(b"a")], MARK),
    "replace at a node's end": Scenario(filled([*PATH, PATH[0][:-1]]), [put(PATH[0][:-1])], MARK),
    "remove": Scenario(filled(N4), [("remove", N4[1])], MARK),
    "remove from the root": Scenario(filled([b"a", b"b"]), [("remove", b"a"), ("remove", b"b")], MARK),
    "remove at a node's end": Scenario(filled([*PATH, PATH[0][:-1]]), [("remove", PATH[0][:-1])], MARK),
    "remove and merge a path": Scenario(filled([*PATH, b"path-b"]), [("remove", b"path-b")], MARK),
    "remove and merge with a leaf": Scenario(filled(PATH), [("remove", PATH[0])], MARK),
    "remove what a node hangs on": Scenario(
        filled([*PATH, b"path-b"]), [("remove", PATH[0]), ("remove", PATH[1])], MARK
    ),
    "shrink 16 to 4 to nothing": Scenario(filled(keys(b"n", 6)), [("remove", k) for k in keys(b"n", 6)], MARK),
    "shrink 48 to 16": Scenario(filled(keys(b"n", 18)), [("remove", k) for k in keys(b"n", 12)], MARK),
    "shrink 256 to 48": Scenario(filled(keys(b"n", 50)), [("remove", k) for k in keys(b"n", 22)], MARK),
    "shrink a tight Node48 of many": Scenario(filled(keys(b"n", 50)), [("remove", k) for k in keys(b"n", 50)], TIGHT),
    "use up dead slots": Scenario(
        filled(N4), [step for i in range(3) for step in (("remove", N4[i]), put(b"n" + bytes([90 + i])))], MARK
    ),
    "compare and set": Scenario(
        filled([b"k"]),
        [("cas", b"k", make_value(b"k", 0), make_value(b"k", 1)), ("cas", b"new", None, make_value(b"new", 1))],
        MARK,
    ),
    "compare and remove": Scenario(filled([b"k", b"k2"]), [("cas", b"k", make_value(b"k", 0), None)], MARK),
    "insert": Scenario(filled(N4[:3]), [("insert", N4[3], make_value(N4[3], 1))], MARK),
    "take": Scenario(filled(N4), [("pop", N4[0]), ("pop", N4[1])], MARK),
    "take any": Scenario(filled(N4), [("popitem",)], MARK),
    "set a default": Scenario(filled(N4), [("setdefault", b"nobody", make_value(b"nobody", 1))], MARK),
    "big value": Scenario(filled(N4), [put(N4[0], 1, 100_000), put(N4[0], 2, 5000), put(N4[0], 3, 90_000)], MARK),
    "big value in place of a big one": Scenario(
        filled([b"big"], 200_000), [put(b"big", 1, 199_000), ("remove", b"big"), put(b"big", 2, 150_000)], MARK
    ),
    "extent taken": Scenario({}, [put(b"x%03d" % i, 1, 2000) for i in range(80)], MARK),
    "freed cells used again": Scenario(
        filled([b"r%03d" % i for i in range(40)]),
        [put(b"r%03d" % (i % 40), 1 + i // 40, 24 + i % 5 * 8) for i in range(320)],
        MARK,
    ),
    "retired until a block is closed": Scenario(filled(N4), [put(N4[i % 4], 1 + i // 4) for i in range(130)], MARK),
    "many at once": Scenario(
        filled(N4), [("put_many", [(b"m%02d" % i, make_value(b"m%02d" % i, 1)) for i in range(30)])], MARK
    ),
    "remove many at once": Scenario(filled(N48), [("remove_many", N48[3:40])], MARK),
    "uid taken by a reader": Scenario(filled(N4), [("get", N4[0])]),
    "uid returned by a reader": Scenario(filled(N4), [("reader", N4[0]), ("reader", N4[1])], MARK),
    "uid returned by a writer": Scenario(
        filled(N4), [("writer", *put(N4[0])[1:]), ("writer", *put(b"n\x07")[1:])], MARK
    ),
    "uid returned by a thread": Scenario(filled(N4), [("aside", put(N4[0])), put(N4[1])], MARK),
    "first write after a clean open": Scenario(filled(N4), [put(N4[0]), put(b"other")]),
    "clean close": Scenario(filled(N4), [("close",)], [*MARK, put(N4[0])]),
    "clean close after only reading": Scenario(filled(N4), [("close",)], [("get", N4[0])]),
    "clean close with garbage": Scenario(
        filled(N48), [("close",)], [*MARK, *(("remove", k) for k in N48[:40]), put(b"big", 1, 80_000)]
    ),
    "open and first write": Scenario(filled(N4), [("open",), put(b"opened")]),
    "create": Scenario({}, [("create",)]),
    "startup scan": Scenario(
        filled(N48),
        [("open",), put(b"opened")],
        MARK,
        victim=[("remove", N48[5]), put(b"n\x30"), put(b"big", 1, 70_000)],
    ),
    "compact": Scenario(filled(N48), [("compact",), put(b"after")], [*MARK, *(("remove", k) for k in N48[:20])]),
    "grow by copy and rename": Scenario(
        FILL,
        [put(b"grow%03d" % i, 1, 3000) for i in range(400)],
        MARK,
        {"initial_size": 1 << 20, "capacity": 1 << 20},
    ),
    "grow in place": Scenario({}, [put(b"grow%03d" % i, 1, 60_000) for i in range(40)], MARK),
    "commit to the log": Scenario(
        filled(N4), [("durable", *put(N4[0])[1:]), ("durable", *put(N4[0], 2)[1:])], MARK, logged=True
    ),
    "flush": Scenario(filled(N4), [put(N4[0]), put(b"new"), ("flush",), put(b"later")], MARK, logged=True),
    "checkpoint": Scenario(
        filled(N48), [("checkpoint",), ("durable", *put(b"after")[1:])], [*MARK, ("remove", N48[3])], logged=True
    ),
    "second checkpoint": Scenario(
        filled(N4), [put(N4[0]), ("checkpoint",), put(N4[1])], [*MARK, ("checkpoint",)], logged=True
    ),
    "recovery": Scenario(
        filled(N48),
        [("open",), put(b"opened")],
        [("durable", *put(b"mark")[1:])],
        victim=[("durable", *put(N48[5])[1:]), ("durable", *put(b"n\x30")[1:]), ("durable", *put(N48[5], 2)[1:])],
        logged=True,
        other_boot=True,
    ),
    "recovery from a checkpoint": Scenario(
        filled(N16),
        [("open",), ("durable", *put(b"opened")[1:])],
        [("durable", *put(b"mark")[1:])],
        victim=[("checkpoint",), ("durable", *put(b"n\x30")[1:]), ("durable", b"n\x31", b"batch")],
        logged=True,
        other_boot=True,
    ),
    "reap a leader of the log": Scenario(
        filled(N4),
        [("durable", *put(N4[0], 2)[1:])],
        MARK,
        victim=[("durable", *put(N4[0], 1)[1:])],
        logged=True,
    ),
    "reap a checkpointer": Scenario(
        filled(N4), [put(N4[0], 2), ("checkpoint",)], MARK, victim=[("checkpoint",)], logged=True
    ),
    "reap a merger": Scenario(filled([*PATH, b"path-b"]), [put(b"path-b", 2)], MARK, victim=[("remove", b"path-b")]),
    "reap an inserter": Scenario(filled(N4), [put(b"n\x04", 2)], MARK, victim=[put(b"n\x04", 1)]),
    "reap a remover": Scenario(filled(PATH), [put(PATH[0], 2)], MARK, victim=[("remove", PATH[0])]),
    "reap a splitter": Scenario(filled(PATH), [put(b"path-b", 2)], MARK, victim=[put(b"path-b", 1)]),
    "reap a batch": Scenario(
        filled(N16),
        [put(N16[0], 2)],
        MARK,
        victim=[("batch", [(N16[0], None), put(N16[5], 8)[1:], put(b"n\x77", 8)[1:]])],
    ),
    "batch over a dead batch": Scenario(
        filled(N16),
        [("batch", [put(N16[0], 9)[1:], (N16[5], None)])],
        MARK,
        victim=[("batch", [(N16[0], None), put(N16[5], 8)[1:], put(b"n\x77", 8)[1:]])],
    ),
    "reap a batch at once": Scenario(
        filled(N16),
        [("open",), put(N16[0], 2), ("batch", [(N16[6], None)])],
        MARK,
        where=("held",),
        victim=[("batch", [(N16[0], None), put(N16[5], 8)[1:], put(b"n\x77", 8)[1:]])],
    ),
    "finish a dead batch": Scenario(
        filled(N16),
        [("batch", [put(N16[0], 9)[1:], (N16[5], None)]), ("batch", [put(N16[1], 9)[1:], (N16[6], None)])],
        MARK,
        victim=[("batch", [(N16[0], None), put(N16[5], 8)[1:], put(b"n\x77", 8)[1:]])],
    ),
    "reap one that retires": Scenario(
        filled(N4),
        [("open",), put(N4[0], 99)],
        MARK,
        where=("held",),
        victim=[put(N4[i % 4], 1 + i // 4) for i in range(130)],
    ),
    "reap one that takes extents": Scenario(
        {}, [("open",), put(b"x000", 2)], MARK, where=("held",), victim=[put(b"x%03d" % i, 1, 2000) for i in range(80)]
    ),
    "reap one that uses freed cells": Scenario(
        filled([b"r%03d" % i for i in range(40)]),
        [("open",), put(b"r000", 99)],
        MARK,
        where=("held",),
        victim=[put(b"r%03d" % (i % 40), 1 + i // 40, 24 + i % 5 * 8) for i in range(320)],
    ),
    "reap one that splits free cells": Scenario(
        filled([b"big"], 200_000),
        [("open",), put(b"big", 9, 1000)],
        MARK,
        where=("held",),
        victim=[
            put(b"big", 1, 199_000),
            ("remove", b"big"),
            put(b"big", 2, 150_000),
            *(put(b"big%d" % i, 3, 20_000 + 3000 * i) for i in range(6)),
            *(put(b"big%d" % i, 4, 30_000 - 3000 * i) for i in range(6)),
        ],
    ),
    "reap a checker": Scenario(
        filled(N4), [("open",), put(N4[0])], MARK, where=("held",), logged=False, victim=[("check",)]
    ),
    "reap a batch, nobody else does": Scenario(
        filled(N16),
        [("open",), put(N16[0], 2)],
        MARK,
        where=("held",),
        logged=False,
        victim=[("batch", [(N16[0], None), put(N16[5], 8)[1:], put(b"n\x77", 8)[1:]])],
    ),
    "reap one that retires, nobody else does": Scenario(
        filled(N4),
        [("open",), put(N4[0], 99)],
        MARK,
        where=("held",),
        logged=False,
        victim=[put(N4[i % 4], 1 + i // 4) for i in range(270)],
    ),
    "reap a compacter": Scenario(filled(N48), [put(N48[0], 2)], MARK, victim=[("compact",)]),
}
