"""
Scenarios of test_crashpoints.py in which two processes meet: on one node, at the gate, at the log's lead, over
cells that a reader pins.  One of them dies.
"""

from __future__ import annotations

from crash_scenario import MARK, Scenario, State, Step, filled, keys, put

N4 = keys(b"n", 4)
PATH = [b"pathological-aaaa1", b"pathological-aaaa2"]
# More retired cells than are let pile up; then, when somebody has stood still for long enough, some more.
MANY: list[Step] = [put(N4[i % 4], 1 + i // 4) for i in range(1200)]
MANY += [("pause", 0.15), *(put(N4[i % 4], 1000 + i // 4) for i in range(300))]

FEW = [put(b"few%d" % i)[1:] for i in range(5)]

# What the file holds, what the one that dies does, what the other does.
MEETINGS: dict[str, tuple[State, list[Step], list[Step]]] = {
    "insert, insert": (filled(N4[:2]), [put(N4[2])], [put(b"n\x20")]),
    "the last slot": (filled(N4[:3]), [put(N4[3])], [put(b"n\x20"), put(b"n\x21")]),
    "one key": (filled(N4), [put(N4[1])], [put(N4[1], 2)]),
    "replace, remove": (filled(N4), [put(N4[1])], [("remove", N4[0]), ("remove", N4[2])]),
    "grow, grow": (filled(N4), [put(b"n\x04")], [put(b"n\x05"), put(b"n\x06")]),
    "grow, replace": (filled(N4), [put(b"n\x04")], [put(N4[0])]),
    "grow, shrink": (filled(keys(b"n", 16)), [put(b"n\x40")], [("remove", key) for key in keys(b"n", 14, 1)]),
    "shrink, insert": (
        filled(keys(b"n", 18)),
        [("remove", key) for key in keys(b"n", 8)],
        [put(b"n\x40"), put(b"n\x41")],
    ),
    "split a leaf, replace it": (filled([b"leafkey1"]), [put(b"leafkey2")], [put(b"leafkey1", 2)]),
    "split a path, insert": (filled(PATH), [put(b"path-b")], [put(PATH[0][:-1] + b"3"), put(PATH[0][:-1] + b"4")]),
    "split a path, split it": (filled(PATH), [put(b"path-b")], [put(b"pathologic-c")]),
    "split a path, grow below": (filled(PATH), [put(b"path-b")], [put(PATH[0][:-1] + bytes([i])) for i in range(9)]),
    "split a path, shrink below": (
        filled(keys(PATH[0], 6)),
        [put(b"path-b")],
        [("remove", key) for key in keys(PATH[0], 3)],
    ),
    "split a path, one more below": (
        filled(keys(PATH[0], 4)),
        [put(b"path-b")],
        [put(PATH[0] + b"\x70"), ("remove", PATH[0] + b"\x70"), put(PATH[0] + b"\x71")],
    ),
    "split a path, one fewer below": (filled(keys(PATH[0], 5)), [put(b"path-b")], [("remove", PATH[0] + b"\x00")]),
    "merge a path, insert": (filled([*PATH, b"path-b"]), [("remove", b"path-b")], [put(PATH[0][:-1] + b"3")]),
    "merge a path, insert above": (filled([*PATH, b"path-b"]), [("remove", b"path-b")], [put(b"path-c")]),
    "merge a path, replace above": (filled([*PATH, b"path-b", b"pa"]), [("remove", b"path-b")], [put(b"pa")]),
    "first writes": (filled(N4), [put(N4[0])], [put(N4[1])]),
    "extents": ({}, [put(b"x%03d" % i, 1, 9000) for i in range(9)], [put(b"y%03d" % i, 1, 9000) for i in range(9)]),
    "batch, insert": (
        filled(N4),
        [("batch", [put(N4[1], 5)[1:], (N4[2], None), put(b"n\x09", 5)[1:]])],
        [put(N4[0]), put(b"n\x21")],
    ),
    "insert, batch": (filled(N4), [put(N4[0]), put(b"n\x21")], [("batch", [put(N4[1], 5)[1:], (N4[2], None)])]),
    "one key, batch": (filled(N4), [put(N4[1], 1)], [("batch", [put(N4[1], 5)[1:], (N4[2], None)])]),
    "batch, batch": (
        filled(N4),
        [("batch", [put(N4[0], 3)[1:], put(N4[1], 3)[1:]])],
        [("batch", [put(N4[0], 4)[1:], put(N4[1], 4)[1:]])],
    ),
}


def both(base: State, steps: list[Step], other: list[Step], prelude: list[Step]) -> dict[str, Scenario]:
    """The other stands still while one dies, and does all of it while the one that dies stands still."""
    return {
        "another stands still": Scenario(base, steps, prelude, victim=other, role="stands", where=("held",)),
        "another comes": Scenario(base, steps, prelude, victim=other, role="comes", where=("alone",)),
    }


PAIRS: dict[str, Scenario] = (
    {
        f"{name}: {how}": scenario
        for name, (base, steps, other) in MEETINGS.items()
        for how, scenario in both(base, steps, other, [] if name == "first writes" else MARK).items()
    }
    | {
        "a reader stands still": Scenario(
            filled(N4), MANY, MARK, victim=[("get", N4[0]), ("look",)], role="stands", patience_s=0.9, where=("alone",)
        ),
        "reader, and many writes come": Scenario(
            {**filled(N4), **filled([b"large"], 3 << 20)},
            [("get", b"large"), ("look",)],
            MARK,
            victim=MANY,
            role="comes",
            patience_s=0.9,
            where=("alone",),
        ),
        "copier of a large value, and many writes come": Scenario(
            filled([b"large"], 600_000),
            [("backup",)],
            MARK,
            victim=[("remove", b"large"), *MANY],
            role="comes",
            patience_s=0.9,
            logged=True,
            where=("alone",),
        ),
        "a batch stands still": Scenario(
            filled(N4),
            [put(N4[1], 1)],
            MARK,
            victim=[("batch", [put(N4[1], 5)[1:], (N4[2], None)])],
            role="stands",
            patience_s=0.2,
            where=("held",),
        ),
        "a writer stands still, another copies": Scenario(
            filled(N4),
            [("either", ("compact",))],
            MARK,
            victim=[put(N4[0])],
            role="stands",
            patience_s=0.8,
            where=("held",),
        ),
        "one that takes an extent stands still": Scenario(
            filled([b"xa", b"xb", b"ya", b"yb"]),
            [put(b"yc", 1, 9000)],  # the first that it writes: it has no extent yet
            victim=[put(b"xc", 1, 9000), put(b"xd", 1, 70_000)],
            role="stands",
            patience_s=0.3,
            where=("held",),
        ),
        "a copier stands still": Scenario(
            filled(N4), [put(N4[0])], MARK, victim=[("compact",)], role="stands", patience_s=1.5, where=("held",)
        ),
        "a checker stands still": Scenario(
            filled(N4), [put(N4[0])], victim=[("check",)], role="stands", patience_s=1.5, where=("held",)
        ),
        "a copier stands still, others open": Scenario(
            filled(N4), [("open",), put(b"opened")], MARK, victim=[("compact",)], role="stands", where=("held",)
        ),
        "a copier stands still, others put many": Scenario(
            filled(N4), [("put_many", FEW)], victim=[("compact",)], role="stands", patience_s=0.3, where=("held",)
        ),
        "many at once, and a copier comes": Scenario(
            filled(N4), [("put_many", FEW)], MARK, victim=[("compact",)], role="comes", where=("alone",)
        ),
        "copier, and another copies": Scenario(
            filled(N4), [("compact",), put(b"after")], MARK, victim=[("compact",)], role="comes", where=("alone",)
        ),
        "reads and writes, and a copier comes": Scenario(
            filled(N4),
            [("look",), put(N4[0]), ("batch", [put(N4[1], 3)[1:]]), ("remove", N4[2])],
            MARK,
            victim=[("compact",)],
            role="comes",
            where=("alone",),
        ),
        "a leader stands still": Scenario(
            filled(N4),
            [("durable", *put(N4[0])[1:])],
            MARK,
            victim=[("durable", *put(N4[1])[1:])],
            role="stands",
            patience_s=0.3,
            logged=True,
            where=("held",),
        ),
        "leader, and another comes": Scenario(
            filled(N4),
            [("durable", *put(N4[0])[1:])],
            MARK,
            victim=[("durable", *put(N4[1])[1:])],
            role="comes",
            patience_s=0.3,
            logged=True,
            where=("alone",),
        ),
        "a writer stands still, others look": Scenario(
            filled(N4), [("look",), ("look",)], MARK, victim=[put(N4[0])], role="stands", where=("held",)
        ),
        "last to close, and a batch falls": Scenario(
            filled(N4),
            [("close",)],
            MARK,
            victim=[("batch", [put(N4[1], 5)[1:], (N4[2], None), put(b"n\x09", 5)[1:]])],
            role="falls",
            where=("alone",),
        ),
        "last to close, and a writer falls": Scenario(
            filled(N4),
            [("close",)],
            MARK,
            victim=[("durable", *put(N4[1])[1:]), put(b"n\x04"), ("remove", N4[0])],
            role="falls",
            logged=True,
            where=("alone",),
        ),
    }
)
