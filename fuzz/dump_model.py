"""
What `rowex load` should make of some bytes: another reading of the format, for fuzz/fuzz_dump.py.

Nothing of the program is used here.  How bytes become JSON, fields of CSV, Python's literals and msgpack
is theirs to say who wrote those packages, so they are asked; all else (lines, the head, codecs, base64,
which lines are no items) is written down once more, as simply as it can be.  A dump has no checksums and
no counts: one line of JSON names its version and codecs, every other line is an item.
"""

from __future__ import annotations

import ast
import csv
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Item = tuple[bytes, bytes]
Codecs = tuple[str, str]

BOM = b"\xef\xbb\xbf"
KEY_BYTES_MAX = 1 << 20
NESTING_CERTAIN = 200  # deeper lines may exhaust Python's stack here and not there
KEY_CODECS = ("bytes", "str", "int", "tuple")
VALUE_CODECS = ("bytes", "str", "int", "msgpack")
ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
PLACES = bytes(ALPHABET.find(char) & 255 for char in range(256))


class Refused(Exception):
    """This line is no item; or, of the head, nothing may be loaded."""


@dataclass(frozen=True)
class Case:
    """
    A dump, and how it is loaded.

    Attributes:
        form: Of the data: jsonl, tsv, csv, or npy.
        keys: The option --keys; "-" for none.
        values: Likewise.
        target: "new", "full", or the codecs of an index that is there: "bytes+int".
        way: "function" (what is behind the command) or "command".
        header: The option --header; of npy, whether the data are the values.
        batch: Items that the loader stores at once.
        data: The dump.
    """

    form: str
    keys: str
    values: str
    target: str
    way: str
    header: bool
    batch: int
    data: bytes


@dataclass
class Reading:
    """
    What should come of a case.

    Attributes:
        codecs: That the index has then; None where the whole dump is refused.
        checksum: Of a new index.
        items: To be stored, in the order of the lines.
        malformed: Numbers of lines that are no items, in order.
        too_large: How many more have keys that no index takes.
        certain: Whether all this is; else the dump is nested too deeply to tell.
    """

    codecs: Codecs | None = None
    checksum: bool = True
    items: list[Item] = field(default_factory=list)
    malformed: list[int] = field(default_factory=list)
    too_large: int = 0
    certain: bool = True


# ---- what codecs store -------------------------------------------------------------------------


def int_bytes(number: int) -> bytes:
    """As rowex/codecs.py says that ints are stored."""
    if number < 0:
        return bytes(255 - byte for byte in int_bytes(-number - 1))
    digits = number.to_bytes((number.bit_length() + 7) // 8, "big")
    if len(digits) <= 119:
        return bytes([0x80 + len(digits)]) + digits
    size = len(digits).to_bytes((len(digits).bit_length() + 7) // 8, "big")
    return bytes([0xF7 + len(size)]) + size + digits


def int_end(data: bytes, at: int) -> int:
    """Where the int ends that starts there."""
    if at >= len(data):
        raise Refused
    flip = 0 if data[at] >= 0x80 else 255
    size, at = (data[at] ^ flip) - 0x80, at + 1
    if size > 119:
        digits = bytes(byte ^ flip for byte in data[at : at + size - 119])
        if len(digits) != size - 119 or digits[0] == 0 or int.from_bytes(digits, "big") <= 119:
            raise Refused
        size, at = int.from_bytes(digits, "big"), at + len(digits)
    if at + size > len(data) or (size and data[at] == flip):
        raise Refused
    return at + size


def tuple_bytes(items: Any) -> bytes:
    """As rowex/codecs.py says that tuples are stored."""
    if not isinstance(items, tuple):
        raise Refused
    out = b""
    for item in items:
        if isinstance(item, tuple):
            out += b"\x40" + tuple_bytes(item) + b"\0"
        elif isinstance(item, bytes):
            out += b"\x10" + item.replace(b"\0", b"\0\xff") + b"\0"
        elif isinstance(item, str):
            out += b"\x20" + item.encode("utf-8", "surrogatepass").replace(b"\0", b"\0\xff") + b"\0"
        elif type(item) is int:
            out += b"\x30" + int_bytes(item)
        else:
            raise Refused
    return out


STRING = re.compile(rb"((?:[^\0]|\0\xff)*)\0(?!\xff)", re.DOTALL)


def check_tuple(data: bytes) -> None:
    """Refuse what tuple_bytes() never gives."""
    at = depth = 0
    while at < len(data):
        tag, at = data[at], at + 1
        if tag == 0x30:
            at = int_end(data, at)
        elif tag in (0x10, 0x20):
            string = STRING.match(data, at)
            if string is None:
                raise Refused
            if tag == 0x20:
                check_str(string[1].replace(b"\0\xff", b"\0"))
            at = string.end()
        elif tag == 0x40:
            depth += 1
        elif tag == 0 and depth:
            depth -= 1
        else:
            raise Refused
    if depth:
        raise Refused


def check_str(data: bytes) -> None:
    """Refuse what is neither UTF-8 nor a surrogate in its manner."""
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise Refused from None


def check_stored(codec: str, data: bytes) -> None:
    """Refuse what the codec never stores."""
    if codec == "int" and int_end(data, 0) != len(data):
        raise Refused
    if codec == "str":
        check_str(data)
    if codec == "tuple":
        check_tuple(data)


# ---- lines of JSON -----------------------------------------------------------------------------


def parse_json(line: bytes) -> Any:
    """What JSON says."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise Refused from None


def from_base64(text: str) -> bytes:
    """Base64 with its padding, and nothing else."""
    data = text.encode("utf-8", "surrogatepass")
    bare = data.rstrip(b"=")
    places = bare.translate(PLACES)
    if len(data) % 4 or len(data) - len(bare) > 2 or 255 in places:
        raise Refused
    out = bytearray()
    for at in range(0, len(places), 4):
        number, bits = 0, 6 * len(places[at : at + 4])
        for place in places[at : at + 4]:
            number = number << 6 | place
        if number & (1 << bits % 8) - 1:
            raise Refused
        out += (number >> bits % 8).to_bytes(bits // 8, "big")
    return bytes(out)


def stored_of_json(codec: str, item: Any) -> bytes:
    """What a key or a value of a line of JSON is stored as."""
    if codec == "int" and type(item) is int:
        return int_bytes(item)
    if isinstance(item, str):
        try:
            stored = item.encode()
        except UnicodeEncodeError:
            raise Refused from None
    elif isinstance(item, dict) and list(item) == ["b64"] and isinstance(item["b64"], str):
        stored = from_base64(item["b64"])
    else:
        raise Refused
    if codec != "msgpack":  # whose bytes are believed, for the package may be missing
        check_stored(codec, stored)
    return stored


def json_item(codecs: Codecs, line: bytes) -> Item:
    """The item of a line."""
    item = parse_json(line)
    if isinstance(item, list) and len(item) == 2:
        key, value = item
    elif isinstance(item, dict) and sorted(item) == ["key", "value"]:
        key, value = item["key"], item["value"]
    else:
        raise Refused
    return stored_of_json(codecs[0], key), stored_of_json(codecs[1], value)


def head_of(line: bytes) -> dict[str, Any] | None:
    """The head; None where the first line is an item."""
    try:
        head = parse_json(line)
    except Refused:
        return None
    if not isinstance(head, dict) or "rowex" not in head:
        return None
    if type(head["rowex"]) is not int or head["rowex"] != 1:
        raise Refused
    if not isinstance(head.get("keys"), str) or not isinstance(head.get("values"), str):
        raise Refused
    return head


# ---- tables ------------------------------------------------------------------------------------


def stored_of_text(codec: str, text: bytes) -> bytes:
    """What a field of a table is stored as."""
    try:
        if codec == "str":
            return text.decode().encode()
        if codec == "int":
            if not re.fullmatch(rb"[+-]?(0[xX][0-9a-fA-F]+|[0-9]+)", text):
                raise Refused
            return int_bytes(int(text, 16) if b"x" in text.lower() else int(text))
        if codec == "tuple":
            return tuple_bytes(ast.literal_eval(text.decode()))
        if codec == "msgpack":
            import msgpack

            packed: bytes = msgpack.packb(json.loads(text), use_bin_type=True)
            return packed
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError):
        raise Refused from None
    return text


def rows_of(form: str, lines: list[bytes], first: int) -> Iterator[tuple[int, list[bytes] | None]]:
    """The rows of a table, each with the number of its last line; None for one that is none."""
    if form == "tsv":
        for number, line in enumerate(lines, first):
            text = line.removesuffix(b"\n").removesuffix(b"\r")
            if text:
                yield number, text.split(b"\t")
        return
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(line.decode("utf-8", "surrogateescape") for line in lines)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield first - 1 + reader.line_num, None
            continue
        if row:
            yield first - 1 + reader.line_num, [cell.encode("utf-8", "surrogateescape") for cell in row]


def table_items(codecs: Codecs, form: str, lines: list[bytes], first: int) -> Iterator[tuple[int, Item | None]]:
    """As `rows_of`, but the items."""
    for number, row in rows_of(form, lines, first):
        try:
            if row is None or len(row) != 2:
                raise Refused
            yield number, (stored_of_text(codecs[0], row[0]), stored_of_text(codecs[1], row[1]))
        except Refused:
            yield number, None


# ---- the whole ---------------------------------------------------------------------------------


def codecs_of(case: Case, head: dict[str, Any] | None) -> Codecs:
    """Those of the index to load into; refused where they are not those that are asked for."""
    there: tuple[str | None, ...] = (None, None)
    if case.target != "new":
        there = ("bytes", "bytes") if case.target == "full" else tuple(case.target.split("+"))
    found = []
    for what, option, old, known in zip(
        ("keys", "values"), (case.keys, case.values), there, (KEY_CODECS, VALUE_CODECS), strict=True
    ):
        asked = {option} - {"-"} | ({head[what]} if head else set())
        if len(asked) > 1 or not asked <= {*known, "custom"}:
            raise Refused
        chosen = asked.pop() if asked else old or "bytes"
        if old and chosen != old:
            raise Refused
        found.append(chosen)
    return found[0], found[1]


def read(case: Case) -> Reading:
    """
    Read a dump.

    Args:
        case: Of any form but npy.

    Returns:
        What should come of it.
    """
    lines = [line + b"\n" for line in case.data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    if not lines[-1]:
        lines.pop()
    if lines:
        lines[0] = lines[0].removeprefix(BOM)
    reading = Reading()
    head = None
    if lines and case.form == "jsonl":
        reading.certain = lines[0].count(b"[") + lines[0].count(b"{") < NESTING_CERTAIN
        try:
            head = head_of(lines[0])
        except Refused:
            return reading
    try:
        reading.codecs = codecs_of(case, head)
    except Refused:
        return reading
    if head is not None and isinstance(head.get("checksum"), bool):
        reading.checksum = head["checksum"]
    skipped = head is not None or (case.header and case.form != "jsonl" and bool(lines))
    first = 2 if skipped else 1
    lines = lines[1:] if skipped else lines
    for number, item in items_of(reading.codecs, case.form, lines, first):
        if item is None:
            reading.malformed.append(number)
        elif len(item[0]) > KEY_BYTES_MAX:
            reading.too_large += 1
        else:
            reading.items.append(item)
    return reading


def items_of(codecs: Codecs, form: str, lines: list[bytes], first: int) -> Iterator[tuple[int, Item | None]]:
    """Each item with the number of its line; None for what is none."""
    if form != "jsonl":
        yield from table_items(codecs, form, lines, first)
        return
    for number, line in enumerate(lines, first):
        if line.strip():
            try:
                yield number, json_item(codecs, line)
            except Refused:
                yield number, None
