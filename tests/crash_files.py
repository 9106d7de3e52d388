"""
Scenarios of test_crashpoints.py about whole files and their sidecars, about what is refused, and about little
room: on the disk, below max_size, in the tables of the lock file.
"""

from __future__ import annotations

from crash_scenario import MARK, Scenario, filled, keys, put

N4, N48 = keys(b"n", 4), keys(b"n", 48)
ITEMS = [put(b"built%04d" % i)[1:] for i in range(40)]
LARGE = [put(b"f%02d" % i, 1, 60_000) for i in range(6)]
TIGHT = {"initial_size": 256 << 10, "max_size": 640 << 10}
EXISTED = [("durable", *put(N4[0])[1:]), ("checkpoint",), ("compact",), ("durable", *put(N4[1])[1:])]
DURABLE_MARK = [("durable", *put(b"mark")[1:])]
NO_SPACE, IO_ERROR = 28, 5

IDLE = [
    put(b"n\x00", 1, 50_000),
    *(("aside", put(b"a%02d" % i, 1, 9000)) for i in range(30)),
    *(("aside", ("remove", b"a%02d" % i)) for i in range(30)),
    ("aside", put(b"large", 1, 70_000)),  # more than an extent: what was removed is freed first
]
ADOPTS = [put(b"m%02d" % i, 1, 9000) for i in range(20)]

FILES: dict[str, Scenario] = {
    "every kind of reading": Scenario(filled(N48), [("look",), ("check",), ("watch",)]),
    "reading much": Scenario(filled([b"k%04d" % i for i in range(1500)]), [("look",), ("put_many", ITEMS)], MARK),
    "a value of several MiB": Scenario(
        filled([b"huge"], 3 << 20), [("look",), ("read only",), ("backup",)], MARK, where=("alone",)
    ),
    "many readers": Scenario(filled(N4), [("readers", 70)], MARK),
    "many writers": Scenario(filled(N4), [("writers", [put(b"w%d" % i)[1:] for i in range(10)])], MARK),
    "a large batch": Scenario(filled(N48), [("batch", [put(b"b%03d" % i)[1:] for i in range(140)])], MARK),
    "batch of large values": Scenario(
        filled(N4, 70_000), [("batch", [put(N4[0], 1, 80_000)[1:], put(b"new", 1, 90_000)[1:]])], MARK
    ),
    "create and first write": Scenario({}, [("create",), ("durable", *put(b"first")[1:])]),
    "create and close": Scenario({}, [("create",), put(b"first"), ("close",)]),
    "clean close of a logged file": Scenario(
        filled(N4), [("close",)], [*MARK, ("durable", *put(N4[0])[1:])], logged=True, where=("alone",)
    ),
    "explain": Scenario(filled(N4), [("explain",)], MARK, where=("held", "alone")),
    "copy": Scenario(filled(N48), [("copy",)]),
    "backup": Scenario(filled(N48), [("backup",), put(N48[0])], MARK),
    "backup, and writes come": Scenario(
        filled(N48),
        [("backup",)],
        MARK,
        victim=[put(N48[0]), ("remove", N48[1]), ("durable", *put(b"new")[1:])],
        role="comes",
        logged=True,
        where=("alone",),
    ),
    "salvage": Scenario(
        filled(N48), [("salvage",)], MARK, victim=[put(N48[0]), ("remove", N48[1])], where=("alone",), logged=True
    ),
    "build": Scenario({}, [("build", ITEMS)], where=("alone",)),
    "build out of order": Scenario({}, [("build", [*ITEMS[20:], *ITEMS[:20]])], where=("alone",)),
    "destroy": Scenario(filled(N4), [("destroy",)], MARK, victim=EXISTED, where=("alone",), logged=True),
    "rename": Scenario(filled(N4), [("away",), ("back",)], MARK, victim=EXISTED, where=("alone",), logged=True),
    "recovery after a copy": Scenario(
        filled(N4),
        [("open",), put(b"opened")],
        DURABLE_MARK,
        victim=EXISTED,
        where=("alone",),
        logged=True,
        other_boot=True,
    ),
    "startup scan after a batch": Scenario(
        filled(N48),
        [("open",), put(b"opened")],
        MARK,
        victim=[("batch", [put(N48[1], 5)[1:], (N48[2], None), put(b"new", 5)[1:]])],
        where=("alone",),
    ),
    "open after a copier's death": Scenario(
        filled(N48), [("open",), put(b"opened")], MARK, victim=[("compact",)], where=("held", "alone")
    ),
    "checkpoint by itself": Scenario(
        filled(N4),
        [("until checkpoint", *put(b"log", i, 200_000)[1:]) for i in range(3)] + [("close",)],
        MARK,
        logged=True,
        where=("alone",),
    ),
    "a segment is full": Scenario(
        filled(N4), [("durable", *put(b"log%d" % (i % 3), i, 60_000)[1:]) for i in range(8)], MARK, logged=True
    ),
    "open after a destroyer's death": Scenario(
        filled(N4), [("open",), put(b"opened")], victim=[("destroy",)], where=("alone",), logged=True
    ),
    "another file has taken the name, grow": Scenario(
        filled(N4),
        [("replace file",), ("refused", put(b"large", 1, 5_000_000)), ("open",), put(b"opened")],
        DURABLE_MARK,
        where=("alone",),
        logged=True,
    ),
    "another file has taken the name, close": Scenario(
        filled(N4),
        [("replace file",), ("open",), ("either", ("close",)), ("open",), put(b"opened")],
        DURABLE_MARK,
        where=("alone",),
        logged=True,
    ),
    "eight bytes of an extent are left": Scenario(
        {},
        [put(b"one more")],
        [*MARK, put(b"rest", 1, 62_000), ("put_many", [put(b"%05d" % i)[1:] for i in range(30)])],
        where=("alone",),
    ),
    "a larger file": Scenario(
        filled(N48),
        [("put_many", ITEMS[:8]), ("remove_many", N48[:8])],
        MARK,
        {"initial_size": 16 << 20},
        where=("alone",),
    ),
    "writers after a copy": Scenario(
        filled(N4),
        [("writers", [put(b"w%d" % i, 2)[1:] for i in range(10)])],
        [("writers", [put(b"w%d" % i, 1)[1:] for i in range(10)]), ("compact",)],
    ),
    "a copy on a slow disk": Scenario(
        filled(N4),
        [("compact",), put(N4[0])],
        MARK,
        environment={"ROWEX_TRACE": "/dev/null", "ROWEX_SYNC_US": "150000"},
        where=("alone",),
    ),
    # ---- refusals
    **{
        f"a first write finds no room at call {n}": Scenario(
            filled(N4), [("fault", f"fallocate:{n}+:{NO_SPACE}"), ("either", put(N4[0], 1))], where=("held", "alone")
        )
        for n in range(1, 7)
    },
    "no room for a segment": Scenario(
        filled([b"log0", b"log1"], 30_000),
        [
            ("fault", f"fallocate:1+:{NO_SPACE}"),
            *(("either", ("durable", *put(b"log%d" % (i % 2), i, 30_000)[1:])) for i in range(14)),
        ],
        [put(b"log%d" % (i % 2), 1 + i // 2, 30_000) for i in range(4)],
        logged=True,
        where=("alone",),
    ),
    "a sync of the log fails": Scenario(
        filled(N4),
        [("fault", f"fdatasync:1:{IO_ERROR}"), ("durable", *put(N4[0])[1:]), put(N4[1])],
        MARK,
        logged=True,
        where=("held", "alone"),
    ),
    "the log fails for good": Scenario(
        filled(N4),
        [("fault", f"fdatasync:1+:{IO_ERROR}"), ("either", ("durable", *put(N4[0])[1:])), ("either", ("close",))],
        MARK,
        logged=True,
        where=("alone",),
    ),
    **{
        f"last to close, at call {n} the log is not to be had": Scenario(
            filled(N4),
            [("fault", f"open:{n}:{IO_ERROR}"), ("either", ("close",))],
            [("get", N4[0])],  # who closes has not written: the log is to be opened
            victim=[put(N4[1]), ("durable", *put(N4[2])[1:])],
            role="falls",
            where=("alone",),
            logged=True,
        )
        for n in range(2, 4)
    },
    "a checkpoint fails": Scenario(
        filled(N4),
        [("fault", f"rename:1:{IO_ERROR}"), ("refused", ("checkpoint",)), put(N4[0])],
        MARK,
        logged=True,
        where=("held", "alone"),
    ),
    "a copy finds no room": Scenario(
        filled(N4), [("fault", f"fallocate:1:{NO_SPACE}"), ("refused", ("compact",)), put(N4[0])], MARK
    ),
    "a copy cannot be renamed": Scenario(
        filled(N4), [("fault", f"rename:1:{IO_ERROR}"), ("refused", ("compact",)), put(N4[0])], MARK
    ),
    "a copy cannot be made": Scenario(
        filled(N4), [("fault", f"fsync:1+:{IO_ERROR}"), ("refused", ("backup",))], MARK, where=("held", "alone")
    ),
    "a build fails": Scenario({}, [("fault", f"fsync:1:{IO_ERROR}"), ("refused", ("build", ITEMS))], where=("alone",)),
    "create fails": Scenario(
        {}, [("fault", f"fsync:1:{IO_ERROR}"), ("refused", ("create",)), ("create",)], where=("alone",)
    ),
    "a first write fails": Scenario(
        filled(N4), [("fault", f"fsync:1:{IO_ERROR}"), ("refused", put(N4[0])), put(N4[1])], where=("held", "alone")
    ),
    **{
        f"a first log finds no room at call {n}": Scenario(
            {}, [("create",), ("fault", f"fallocate:{n}+:{NO_SPACE}"), ("either", put(b"first", 1))], where=("alone",)
        )
        for n in range(1, 7)
    },
    **{
        f"a first log finds no room once, at call {n}": Scenario(
            {}, [("create",), ("fault", f"fallocate:{n}:{NO_SPACE}"), ("either", put(b"first", 1))], where=("alone",)
        )
        for n in range(2, 5)
    },
    **{
        f"a recovery fails at sync {n}": Scenario(
            filled(N4),
            [("fault", f"fsync:{n}:{IO_ERROR}"), ("either", ("open",)), ("open",), put(b"opened")],
            DURABLE_MARK,
            victim=[("durable", *put(N4[1])[1:])],
            where=("alone",),
            logged=True,
            other_boot=True,
        )
        for n in range(1, 7)
    },
    **{
        f"a recovery fails at read {n}": Scenario(
            filled(N4),
            [("fault", f"pread:{n}:{IO_ERROR}"), ("either", ("open",)), ("open",), put(b"opened")],
            DURABLE_MARK,
            victim=[("durable", *put(N4[1])[1:])],
            where=("alone",),
            logged=True,
            other_boot=True,
        )
        for n in range(11, 15)
    },
    "a batch finds no room": Scenario(
        {},
        [*LARGE, ("refused", ("batch", [put(b"g%d" % i, 1, 90_000)[1:] for i in range(4)]))],
        MARK,
        TIGHT,
        where=("held", "alone"),  # who works takes room
    ),
    "a disk is full": Scenario(
        filled(N4),
        [("fault", f"fallocate:1+:{NO_SPACE}"), *(("either", put(b"d%02d" % i, 1, 250_000)) for i in range(5))],
        MARK,
    ),
    "max_size is reached": Scenario(
        {},
        [
            *LARGE,
            ("refused", put(b"more", 1, 300_000)),
            *(("remove", f[1]) for f in LARGE[:3]),
            put(b"more", 1, 100_000),
        ],
        MARK,
        TIGHT,
        where=("held", "alone"),
    ),
    "max_size is reached, idle lists are taken": Scenario(
        {},
        [("either", put(b"more%d" % i, 1, 50_000)) for i in range(4)],
        [*MARK, *(("aside", step) for step in LARGE), *(("aside", ("remove", step[1])) for step in LARGE)],
        TIGHT,
    ),
    "max_size is reached, and a writer falls": Scenario(
        {},
        [("either", put(b"more%d" % i, 1, 55_000)) for i in range(9)],
        MARK,
        TIGHT,
        victim=[put(b"some", 1, 3000)],  # what is left of its extent is found at the very end
        role="falls",
        where=("alone",),
    ),
    "idle lists are adopted": Scenario({}, ADOPTS, IDLE),
    "idle lists are adopted, and another comes": Scenario(
        {},
        ADOPTS,
        IDLE,
        victim=[("aside", ("put_many", [put(b"o%02d" % i, 1, 9000)[1:] for i in range(40)]))],
        role="comes",
        where=("alone",),
    ),
    # ---- other machines
    "writes on persistent memory": Scenario(
        filled(N4),
        [
            put(N4[0]),
            put(b"n\x04"),
            ("remove", N4[1]),
            ("batch", [put(N4[2], 5)[1:], put(b"new", 5, 2000)[1:]]),
            ("get", N4[3]),
        ],
        MARK,
        environment={"ROWEX_FENCES": "1"},
        where=("alone",),
    ),
    "other nodes and leaves on persistent memory": Scenario(
        filled([*keys(b"n", 30), *keys(b"o", 16), b"path/one/way", b"path/one/day"]),
        [
            put(b"n\x1e"),
            put(b"o\x10"),
            put(b"large", 1, 90_000),
            put(b"", 1, 3000),
            put(b"path/two"),
            ("batch", [put(b"large too", 1, 90_000)[1:], put(b"n\x01", 2)[1:]]),
            ("remove", b"path/two"),
            ("writer", *put(b"n\x1f")[1:]),
        ],
        MARK,
        environment={"ROWEX_FENCES": "1"},
        where=("alone",),
    ),
    "growth on persistent memory": Scenario(
        {},
        [put(b"grow%03d" % i, 1, 60_000) for i in range(20)],
        MARK,
        environment={"ROWEX_FENCES": "1"},
        where=("alone",),
    ),
    "without membarrier": Scenario(
        filled(N4),
        [("look",), put(N4[0]), *(put(N4[i % 4], 1 + i) for i in range(130)), ("either", ("compact",))],
        MARK,
        environment={"ROWEX_NO_MEMBARRIER": "1"},
        where=("alone",),
    ),
}
