"""
What is measured: Rowex and what people use in its place, each behind the same few calls.

Nobody syncs to the disk during the run: Rowex has durability="process", lmdb sync=False with a
writable map, sqlite a WAL with synchronous=OFF, diskcache the same through its settings, gdbm its
fast mode, plyvel and rocksdict their defaults (no sync a write).  All but dict and SortedDict
survive the death of the process, gdbm perhaps not.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

Pairs = Sequence[tuple[bytes, bytes]]


@dataclass
class Store:
    """An open, empty store; what it cannot do is None."""

    put_many: Callable[[Pairs], object]
    get: Callable[[bytes], object]
    close: Callable[[], object]
    put: Callable[[bytes, bytes], object] | None = None
    delete: Callable[[bytes], object] | None = None
    get_many: Callable[[list[bytes]], object] | None = None
    scan: Callable[[], Iterable[object]] | None = None
    range_of: Callable[[bytes, int], object] | None = None  # so many items from a key on
    prefix_of: Callable[[bytes], object] | None = None  # all items whose keys begin so
    loaded: Callable[[], object] = tuple  # called once between put_many and the rest
    append: Callable[[Pairs], object] | None = None  # pairs in key order, all behind what is there; None: put_many
    compact: Callable[[], object] | None = None  # gives back what is not used
    put_columns: Callable[[Any, Any], object] | None = None  # arrays: of numbers as keys, of bytes
    get_columns: Callable[[Any, int], object] | None = None  # an array of numbers; bytes of each value
    shared: bool = False  # several processes may have it open
    threads: bool = True  # several threads may use this handle
    key: Callable[[bytes], Any] | None = None  # what stands for the workload's key


def open_rowex(folder: Path) -> Store:
    """Without a log: like the peers here, it survives a kill, not the loss of power."""
    return rowex_store(folder, "process")


def open_rowex_batch(folder: Path) -> Store:
    """As anybody opens it: with a log, durable within 10 ms."""
    return rowex_store(folder, "batch")


def open_rowex_str(folder: Path) -> Store:
    """With keys="str"."""
    return rowex_store(folder, "process", keys="str", key=lambda key: key.decode())


def open_rowex_int(folder: Path) -> Store:
    """With keys="int"."""
    return rowex_store(folder, "process", keys="int", key=lambda key: int.from_bytes(key, "big") - (1 << 63))


def rowex_store(folder: Path, durability: str, keys: str = "bytes", key: Callable[[bytes], Any] | None = None) -> Store:
    """Of either level and any codec."""
    import rowex

    index: Any = rowex.open(folder / "index.rowex", durability=durability, keys=keys)
    whole = keys == "int"
    by_prefix = None if keys == "int" else (lambda prefix: list(index.scan(prefix=prefix)))
    return Store(
        prefix_of=by_prefix,
        append=index.load,
        compact=index.compact,
        put_columns=index.load if whole else None,
        get_columns=(lambda numbers, size: index.get_many(numbers, dtype=f"S{size}")) if whole else None,
        shared=True,
        key=key,
        put=index.put,
        put_many=index.put_many,
        get=index.get,
        get_many=index.get_many,
        scan=index.scan,
        range_of=lambda key, count: list(index.scan(key, limit=count)),
        delete=index.remove,
        close=index.close,
    )


def build_rowex(folder: Path, pairs: Pairs, durability: str = "process", keys: str = "bytes") -> None:
    """The one call for it; it syncs the file, which of its peers only lmdb's adapter does."""
    import rowex

    rowex.build(folder / "index.rowex", pairs, codecs=(keys, "bytes"), durability=durability)


def lmdb_env(folder: Path) -> Any:
    """Without syncs, and with a writable map."""
    import lmdb

    return lmdb.open(str(folder / "lmdb"), map_size=1 << 34, sync=False, metasync=False, writemap=True)


def open_lmdb(folder: Path) -> Store:
    """A transaction a call, as its documentation has it."""
    env = lmdb_env(folder)

    def put(key: bytes, value: bytes) -> None:
        with env.begin(write=True) as transaction:
            transaction.put(key, value)

    def put_many(pairs: Pairs) -> None:
        with env.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(pairs)

    def append(pairs: Pairs) -> None:
        with env.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(pairs, append=True)

    def compact() -> None:
        """Its way to a smaller file: a copy, which takes the other's place."""
        (folder / "smaller").mkdir()
        env.copy(str(folder / "smaller"), compact=True)
        shutil.rmtree(folder / "lmdb")
        (folder / "smaller").rename(folder / "lmdb")

    def get(key: bytes) -> object:
        with env.begin() as transaction:
            return transaction.get(key)

    def get_many(keys: list[bytes]) -> object:
        with env.begin() as transaction, transaction.cursor() as cursor:
            return cursor.getmulti(keys)

    def scan() -> Iterator[object]:
        with env.begin() as transaction, transaction.cursor() as cursor:
            yield from cursor

    def range_of(key: bytes, count: int) -> object:
        with env.begin() as transaction, transaction.cursor() as cursor:
            cursor.set_range(key)
            return list(itertools.islice(cursor, count))

    def delete(key: bytes) -> None:
        with env.begin(write=True) as transaction:
            transaction.delete(key)

    def prefix_of(prefix: bytes) -> object:
        with env.begin() as transaction, transaction.cursor() as cursor:
            cursor.set_range(prefix)
            return list(itertools.takewhile(lambda item: item[0].startswith(prefix), cursor))

    return Store(
        put_many, get, env.close, put, delete, get_many, scan, range_of, prefix_of, append=append, compact=compact,
        shared=True,
    )  # fmt: skip


def build_lmdb(folder: Path, pairs: Pairs) -> None:
    """One transaction, each key behind the last; synced, as what rowex.build makes."""
    env = lmdb_env(folder)
    with env.begin(write=True) as transaction, transaction.cursor() as cursor:
        cursor.putmulti(pairs, append=True)
    env.sync(True)
    env.close()


def open_lmdb_held(folder: Path) -> Store:
    """Reads in one transaction that is never given back: the fastest, but it sees no news and pins garbage."""
    env = lmdb_env(folder)

    def put_many(pairs: Pairs) -> None:
        with env.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(pairs)

    store = Store(put_many, tuple, env.close, threads=False)

    def loaded() -> None:
        transaction = env.begin()
        cursor = transaction.cursor()

        def range_of(key: bytes, count: int) -> object:
            cursor.set_range(key)
            return list(itertools.islice(cursor, count))

        store.get, store.get_many, store.range_of = transaction.get, cursor.getmulti, range_of
        store.scan = lambda: transaction.cursor()

    store.loaded = loaded
    return store


def open_sqlite(folder: Path) -> Store:
    """A table without rowids, each statement its own transaction."""
    base = sqlite3.connect(folder / "sqlite", isolation_level=None, cached_statements=16, timeout=60)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=OFF")
    base.execute("CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID")

    def put_many(pairs: Pairs) -> None:
        base.execute("BEGIN")
        base.executemany("INSERT OR REPLACE INTO t VALUES (?, ?)", pairs)
        base.execute("COMMIT")

    def get(key: bytes) -> object:
        row = base.execute("SELECT v FROM t WHERE k = ?", (key,)).fetchone()
        return row[0] if row else None

    def get_many(keys: list[bytes]) -> object:
        marks = ",".join("?" * len(keys))
        return base.execute(f"SELECT k, v FROM t WHERE k IN ({marks})", keys).fetchall()

    return Store(
        put=lambda key, value: base.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (key, value)),
        put_many=put_many,
        get=get,
        get_many=get_many,
        scan=lambda: base.execute("SELECT k, v FROM t ORDER BY k"),
        range_of=lambda key, count: base.execute(
            "SELECT k, v FROM t WHERE k >= ? ORDER BY k LIMIT ?", (key, count)
        ).fetchall(),
        shared=True,
        threads=False,
        compact=lambda: base.execute("VACUUM") and base.execute("PRAGMA wal_checkpoint(TRUNCATE)"),
        delete=lambda key: base.execute("DELETE FROM t WHERE k = ?", (key,)),
        close=base.close,
    )


def open_plyvel(folder: Path) -> Store:
    """LevelDB."""
    import plyvel

    base = plyvel.DB(str(folder / "plyvel"), create_if_missing=True)

    def put_many(pairs: Pairs) -> None:
        with base.write_batch() as batch:
            for key, value in pairs:
                batch.put(key, value)

    return Store(
        put=base.put,
        put_many=put_many,
        get=base.get,
        scan=base.iterator,
        range_of=lambda key, count: list(itertools.islice(base.iterator(start=key), count)),
        prefix_of=lambda prefix: list(base.iterator(prefix=prefix)),
        compact=base.compact_range,
        delete=base.delete,
        close=base.close,
    )


def open_rocksdict(folder: Path) -> Store:
    """RocksDB, bytes as they are."""
    import rocksdict

    base = rocksdict.Rdict(str(folder / "rocksdict"), rocksdict.Options(raw_mode=True))

    def put_many(pairs: Pairs) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in pairs:
            batch.put(key, value)
        base.write(batch)

    return Store(
        put=base.put,
        put_many=put_many,
        get=base.get,
        get_many=lambda keys: base.get([*keys]),
        scan=base.items,
        range_of=lambda key, count: list(itertools.islice(base.items(from_key=key), count)),
        compact=lambda: base.compact_range(None, None),
        delete=base.delete,
        close=base.close,
    )


def build_rocksdict(folder: Path, pairs: Pairs) -> None:
    """A file of sorted items that is taken in as it is, as its documentation advises."""
    import rocksdict

    options = rocksdict.Options(raw_mode=True)
    writer = rocksdict.SstFileWriter(options)
    writer.open(str(folder / "sorted.sst"))
    for key, value in pairs:
        writer[key] = value
    writer.finish()
    base = rocksdict.Rdict(str(folder / "rocksdict"), options)
    base.ingest_external_file([str(folder / "sorted.sst")])
    base.close()


def open_gdbm(folder: Path) -> Store:
    """A hash file: a scan has no order, and there is no range."""
    import dbm.gnu

    base = dbm.gnu.open(str(folder / "gdbm"), "cf")  # noqa: SIM115 (the caller closes it)

    def put_many(pairs: Pairs) -> None:
        for key, value in pairs:
            base[key] = value

    def scan() -> Iterator[object]:
        key = base.firstkey()
        while key is not None:
            yield key, base[key]
            key = base.nextkey(key)

    return Store(
        put=base.__setitem__,
        put_many=put_many,
        get=base.get,
        scan=scan,
        compact=base.reorganize,
        delete=base.__delitem__,
        close=base.close,
    )


def open_diskcache(folder: Path) -> Store:
    """A cache in sqlite, with eviction off: a scan has no promised order, and there is no range."""
    import diskcache

    cache = diskcache.Cache(str(folder / "diskcache"), eviction_policy="none", sqlite_synchronous=0)

    def put_many(pairs: Pairs) -> None:
        with cache.transact():
            for key, value in pairs:
                cache.set(key, value)

    return Store(
        put=cache.set,
        put_many=put_many,
        get=cache.get,
        scan=lambda: ((key, cache.get(key)) for key in cache.iterkeys()),
        delete=cache.delete,
        close=cache.close,
    )


def open_berkeley(folder: Path) -> Store:
    """A B-tree without an environment: no log, no locks."""
    import berkeleydb.db as bdb  # type: ignore[import-not-found]

    base = bdb.DB()
    base.open(str(folder / "berkeley"), None, bdb.DB_BTREE, bdb.DB_CREATE)

    def put_many(pairs: Pairs) -> None:
        for key, value in pairs:
            base.put(key, value)

    def scan() -> Iterator[object]:
        cursor = base.cursor()
        item = cursor.first()
        while item:
            yield item
            item = cursor.next()

    def range_of(key: bytes, count: int) -> object:
        cursor = base.cursor()
        item, out = cursor.set_range(key), []
        while item and len(out) < count:
            out.append(item)
            item = cursor.next()
        return out

    return Store(
        put=base.put,
        put_many=put_many,
        get=base.get,
        scan=scan,
        range_of=range_of,
        compact=lambda: base.compact(flags=bdb.DB_FREE_SPACE),
        delete=base.delete,
        close=base.close,
        threads=False,
    )


def open_dict(_folder: Path) -> Store:
    """In the memory of one process, without order: the floor."""
    base: dict[bytes, bytes] = {}
    return Store(
        put=base.__setitem__,
        put_many=base.update,
        get=base.get,
        get_many=lambda keys: list(map(base.get, keys)),
        scan=base.items,
        delete=base.__delitem__,
        close=base.clear,
    )


def open_sorted(_folder: Path) -> Store:
    """In the memory of one process, in order."""
    import sortedcontainers

    base: Any = sortedcontainers.SortedDict()

    def put_many(pairs: Pairs) -> None:
        for key, value in pairs:  # its update() sorts everything again
            base[key] = value

    return Store(
        put=base.__setitem__,
        put_many=put_many,
        get=base.get,
        get_many=lambda keys: list(map(base.get, keys)),
        scan=base.items,
        range_of=lambda key, count: [(each, base[each]) for each in itertools.islice(base.irange(key), count)],
        delete=base.__delitem__,
        close=base.clear,
    )


PEERS: dict[str, Callable[[Path], Store]] = {
    "rowex": open_rowex,
    "rowex batch": open_rowex_batch,
    "rowex str": open_rowex_str,
    "rowex int": open_rowex_int,
    "lmdb": open_lmdb,
    "lmdb held": open_lmdb_held,
    "sqlite3": open_sqlite,
    "plyvel": open_plyvel,
    "rocksdict": open_rocksdict,
    "dbm.gnu": open_gdbm,
    "diskcache": open_diskcache,
    "berkeleydb": open_berkeley,
    "dict": open_dict,
    "SortedDict": open_sorted,
}

# A new store of pairs in key order, where there is a better way than opening one and put_many.
BUILDERS: dict[str, Callable[[Path, Pairs], object]] = {
    "rowex": build_rowex,
    "rowex batch": partial(build_rowex, durability="batch"),
    "rowex str": partial(build_rowex, keys="str"),
    "rowex int": partial(build_rowex, keys="int"),
    "lmdb": build_lmdb,
    "rocksdict": build_rocksdict,
}
