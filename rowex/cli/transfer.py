"""
All items out and in: `dump`, `load`.
"""

from __future__ import annotations

import csv
import json
import os
import reprlib
import stat
import sys
from collections.abc import Iterator
from typing import IO, Any, cast

import click
from tqdm import tqdm

import rowex
from rowex.cli.console import ABSENT, USAGE, Output, Unusable, describe, open_index, sides, tell
from rowex.cli.text import BOM, Malformed, Side, json_line, quote, shown
from rowex.columns import numpy
from rowex.errors import CorruptionError, RowexError
from rowex.index import Index

__all__ = ["dump", "load"]

DUMP_VERSION = 1
SUFFIXES = {".tsv": "tsv", ".tab": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
BATCH_ITEMS, BATCH_BYTES = 4096, 4 << 20

# ---- dump ----------------------------------------------------------------------------------------


def _stored_sides(keys: str, values: str) -> tuple[Side, Side]:
    """As dump and load see them: msgpack stays as it is stored, and needs no package."""
    return Side(keys), Side(values, values=True, raw=values == "msgpack")


def _readable_items(index: Index, damage: list[CorruptionError]) -> Iterator[tuple[bytes, bytes]]:
    """All items; where a damaged node bars the way, those before it, then those behind it, backwards."""
    low = None
    for key, value in _until_damage(index, damage, None, reverse=False):
        low = key + b"\0"
        yield key, value
    if damage:
        yield from _until_damage(index, damage, low, reverse=True)


def _until_damage(
    index: Index, damage: list[CorruptionError], low: bytes | None, *, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    high = None
    met: CorruptionError | None = None  # a scan reads ahead: what it read before the damage comes one by one
    while True:
        try:
            for key, value in index.scan(low, high, reverse=reverse, limit=1 if met else None):
                if met and not (_is_between(key, low, high) and index.exists(key)):
                    raise met  # a key that is not where it belongs would lead in circles
                low, high = (low, key) if reverse else (key + b"\0", high)
                yield key, value
                if met:
                    break
            else:
                damage += [met] if met else []
                return
        except CorruptionError as error:
            if met:
                damage.append(error)
                return
            met = error


def _is_between(key: bytes, low: bytes | None, high: bytes | None) -> bool:
    return (low is None or key >= low) and (high is None or key < high)


@click.command()
@click.argument("index_path", metavar="INDEX")
@click.option("-o", "--output", "target", type=click.File("wb"), default="-", metavar="FILE", help="Instead of stdout.")
@click.pass_context
def dump(ctx: click.Context, index_path: str, target: IO[bytes]) -> None:
    """
    Write all items as JSON lines, in key order.

    The first line names the codecs; each other one is {"key": ..., "value": ...}, where what is
    not UTF-8 is {"b64": ...}. `rowex load` reads it back, bytes and codecs as they were. Of a
    damaged file, what can be read is written, and the exit status is 1.
    """
    name = getattr(target, "name", None)
    if isinstance(name, str) and all(map(os.path.exists, (index_path, name))) and os.path.samefile(index_path, name):
        raise click.UsageError("the output would overwrite the index")
    with open_index(index_path, "r") as index:
        output = Output(target)
        told = index.info()
        keys, values = _stored_sides(told.keys_codec, told.values_codec)
        head = {
            "rowex": DUMP_VERSION,
            "keys": told.keys_codec,
            "values": told.values_codec,
            "checksum": told.checksum,
        }
        output.write(json.dumps(head).encode() + b"\n")
        damage: list[CorruptionError] = []
        hidden = True if output.is_terminal() else None  # None: unless stderr is a terminal
        with tqdm(total=len(index), unit=" items", disable=hidden, file=sys.stderr, leave=False) as bar:
            for number, (key, value) in enumerate(_readable_items(index, damage), 1):
                output.write(json_line(keys, values, key, value))
                if number % 1024 == 0:
                    bar.update(1024)
        output.flush()
    for error in damage:
        tell(str(error))
    if damage:
        ctx.exit(ABSENT)


# ---- load ----------------------------------------------------------------------------------------


class Lines:
    """
    The lines of a stream.

    Attributes:
        number: Of the line given last, from 1.
        size_bytes: Of the lines so far.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.number = 0
        self.size_bytes = 0
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream:
            self.number += 1
            self.size_bytes += len(line)
            yield line.removeprefix(BOM) if self.number == 1 else line

    def rest(self, first: list[bytes]) -> Iterator[bytes]:
        """Lines read ahead, then the others."""
        yield from first
        yield from self


class Loader:
    """
    From lines of text to items of an index.

    Attributes:
        count: Items stored.
        malformed: Lines that are no items.
    """

    def __init__(self, lines: Iterator[bytes], read: Lines, form: str) -> None:
        self.count = 0
        self.malformed = 0
        self._lines, self._read, self._form = lines, read, form

    def load(self, index: Index, bar: tqdm[Any]) -> None:
        """
        Store all items.

        Args:
            index: Open for writing.
            bar: Told of the bytes that were read.

        Raises:
            Unusable: The index became unusable; the message says how much was stored.
        """
        told = index.info()
        if self._form == "jsonl":
            keys, values = _stored_sides(told.keys_codec, told.values_codec)
            items = self._json_items(keys, values)
        else:
            keys, values = sides(index)
            items = self._table_items(keys, values)
        batch: list[tuple[bytes, bytes]] = []
        size_bytes = 0
        for item in items:
            batch.append(item)
            size_bytes += len(item[0]) + len(item[1])
            if len(batch) >= BATCH_ITEMS or size_bytes >= BATCH_BYTES:
                self._store(index, batch)
                bar.update(self._read.size_bytes - bar.n)
                batch, size_bytes = [], 0
        self._store(index, batch)
        bar.update(self._read.size_bytes - bar.n)

    def _store(self, index: Index, batch: list[tuple[bytes, bytes]]) -> None:
        try:
            index.put_many(batch)
            self.count += len(batch)
        except (RowexError, OSError, MemoryError) as error:
            text = f"{describe(error)}; {self.count} items were stored, and perhaps some of the next {len(batch)}"
            raise Unusable(text) from None
        except ValueError:  # a key that is too large: name it, and store the others
            self._store_singly(index, batch)

    def _store_singly(self, index: Index, batch: list[tuple[bytes, bytes]]) -> None:
        for key, value in batch:
            try:
                index.put(key, value)
                self.count += 1
            except RowexError:
                raise
            except ValueError as error:
                self.malformed += 1
                tell(f"at or before line {self._read.number}: {quote(key[:40]).decode()}...: {error}")

    def _report(self, error: Exception) -> None:
        self.malformed += 1
        tell(f"line {self._read.number}: {error}")

    def _json_items(self, keys: Side, values: Side) -> Iterator[tuple[bytes, bytes]]:
        for line in self._lines:
            if not line.strip():
                continue
            try:
                item = json.loads(line)
                if isinstance(item, list) and len(item) == 2:
                    item = {"key": item[0], "value": item[1]}
                if not isinstance(item, dict) or item.keys() != {"key", "value"}:
                    raise Malformed('expected {"key": ..., "value": ...}')
                yield keys.from_json(item["key"]), values.from_json(item["value"])
            except (ValueError, RecursionError) as error:
                self._report(error)

    def _table_items(self, keys: Side, values: Side) -> Iterator[tuple[bytes, bytes]]:
        rows = self._tsv_rows() if self._form == "tsv" else self._csv_rows()
        for row in rows:
            try:
                if len(row) != 2:
                    raise Malformed(f"{len(row)} column(s); expected two, KEY and VALUE")
                yield keys.parse(row[0]), values.parse(row[1])
            except Malformed as error:
                self._report(error)

    def _tsv_rows(self) -> Iterator[list[bytes]]:
        for line in self._lines:
            text = line.removesuffix(b"\n").removesuffix(b"\r")
            if text:
                yield text.split(b"\t")

    def _csv_rows(self) -> Iterator[list[bytes]]:
        limit = csv.field_size_limit(sys.maxsize)
        reader = csv.reader(line.decode("utf-8", "surrogateescape") for line in self._lines)
        try:
            while True:
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    self._report(error)
                    continue
                if row:
                    yield [field.encode("utf-8", "surrogateescape") for field in row]
        finally:
            csv.field_size_limit(limit)


def _header(line: bytes) -> dict[str, Any] | None:
    """The first line of a dump; None if it is another line."""
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(head, dict) or "rowex" not in head:
        return None
    version = head["rowex"]
    if type(version) is not int or version != DUMP_VERSION:  # true and 1.0 equal it
        raise Malformed(f"line 1: a dump of version {reprlib.repr(version)}; this program reads {DUMP_VERSION}")
    if not all(isinstance(head.get(name), str) for name in ("keys", "values")):
        raise Malformed("line 1: the header of a dump names the codecs, keys and values, as text")
    return head


def _unchanged(data: bytes) -> bytes:
    return data


def _open_target(path: str, keys: str | None, values: str | None, checksum: bool | None) -> Index:
    """The index to load into, made if missing; as bytes, with these codecs if they are named."""
    as_it_is: Any = (_unchanged, _unchanged)  # what the program's own functions wrote stays
    try:
        if keys is None and values is None and os.path.exists(path):
            return open_index(path, "w")
        index: Any = rowex.open(
            path,
            keys=as_it_is if keys == "custom" else cast(Any, keys),
            values=as_it_is if values == "custom" else cast(Any, values),
            checksum=None if os.path.exists(path) else checksum,
        )
    except (RowexError, OSError) as error:
        text = describe(error)
        raise Unusable(text if path in text else f"{path}: {text}") from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return index if isinstance(index, Index) else cast(Index, index.raw)


def _chosen(what: str, option: str | None, head: dict[str, Any] | None) -> str | None:
    named = None if head is None else str(head[what])
    if option is not None and named is not None and option != named:
        piece = shown(named.encode("utf-8", "surrogatepass")[:40]).decode()  # it may hold, and be, anything
        raise click.UsageError(f"--{what} {option} was given, but the dump is of {what} {piece}")
    return option if option is not None else named


def _total_bytes(stream: IO[bytes]) -> int | None:
    try:
        told = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return None
    return told.st_size if stat.S_ISREG(told.st_mode) else None


def _load_arrays(
    index_path: str, keys_path: str, values_path: str, codecs: tuple[str | None, str | None], quiet: bool
) -> None:
    try:
        # not numpy.load(), which takes archives too: what they hold would come as the names of their members
        keys, values = (numpy().lib.format.open_memmap(path, mode="r") for path in (keys_path, values_path))
        count = len(keys)
    except Exception as error:  # of a damaged head, Python's tokenizer's and others
        raise click.UsageError(f"arrays in files of the format .npy are needed: {str(error)[:200]}") from None
    hidden = True if quiet else None  # None: unless stderr is a terminal
    with tqdm(total=count, unit=" items", disable=hidden, file=sys.stderr, leave=False) as bar:

        def progress(done: int) -> None:
            bar.update(done - bar.n)

        try:
            if os.path.exists(index_path):
                with rowex.open(index_path, "w", keys=cast(Any, codecs[0]), values=cast(Any, codecs[1])) as index:
                    index.load(keys, values, progress=progress)
            else:
                chosen = (codecs[0] or "bytes", codecs[1] or "bytes")
                rowex.build(index_path, keys, values, codecs=chosen, progress=progress)
        except (RowexError, OSError) as error:
            raise Unusable(describe(error)) from None
        except (TypeError, ValueError) as error:
            raise click.UsageError(str(error)) from None
    if not quiet:
        tell(f"{count} item(s) stored")


@click.command()
@click.argument("index_path", metavar="INDEX")
@click.argument("source", metavar="[FILE]", type=click.File("rb"), default="-")
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["tsv", "csv", "jsonl"]),
    help="Else by the suffix of FILE: .tsv, .csv, .jsonl; JSON lines where that tells nothing.",
)
@click.option("--keys", type=click.Choice(["bytes", "str", "int", "tuple"]), help="Codec of a new index.")
@click.option("--values", type=click.Choice(["bytes", "str", "int", "msgpack"]), help="Likewise.")
@click.option("--header", is_flag=True, help="The first line of a TSV or CSV file names the columns.")
@click.option("--npy", metavar="FILE", help="Arrays: FILE of this option holds the values, the other one the keys.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, and no count.")
@click.pass_context
def load(
    ctx: click.Context,
    index_path: str,
    source: IO[bytes],
    form: str | None,
    keys: str | None,
    values: str | None,
    header: bool,
    npy: str | None,
    quiet: bool,
) -> None:
    """
    Store the items of a file, replacing those that are there.

    \b
      tsv     KEY, a tab, VALUE; nothing is an escape
      csv     KEY,VALUE with fields "in quotes" where needed
      jsonl   what dump writes; or without its first line; or [KEY, VALUE]

    FILE is stdin where it is left out, or -. INDEX is made if missing, with the codecs of the
    dump or of the options. A malformed line is named and makes the exit status 2; the rest is
    stored.

    With --npy both files are NumPy arrays: `rowex load INDEX keys.npy --npy values.npy`. Of sorted keys
    a new INDEX is built several times as fast.
    """
    if npy is not None:
        _load_arrays(index_path, str(getattr(source, "name", "-")), npy, (keys, values), quiet)
        return
    if form is None:
        form = SUFFIXES.get(os.path.splitext(str(getattr(source, "name", "")))[1].lower(), "jsonl")
    read = Lines(source)
    first = next(iter(read), None)
    ahead = [] if first is None else [first]
    head = _header(first) if first is not None and form == "jsonl" else None
    if head is not None or (header and form != "jsonl"):
        ahead = []
    checksum = None if head is None or not isinstance(head.get("checksum"), bool) else head["checksum"]
    loader = Loader(read.rest(ahead), read, form)
    with (
        _open_target(index_path, _chosen("keys", keys, head), _chosen("values", values, head), checksum) as index,
        tqdm(
            total=_total_bytes(source),
            unit="B",
            unit_scale=True,
            disable=True if quiet else None,  # None: unless stderr is a terminal
            file=sys.stderr,
            leave=False,
        ) as bar,
    ):
        loader.load(index, bar)
    if not quiet:
        tell(f"{loader.count} item(s) stored" + (f"; {loader.malformed} malformed" if loader.malformed else ""))
    if loader.malformed:
        ctx.exit(USAGE)
