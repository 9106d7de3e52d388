"""
Dumps for fuzz/fuzz_dump.py: valid ones, and what is made of them.

A case is written as a line that says how it is loaded, and the dump behind it; so the corpus needs no
second file, and the way of loading is mutated like all else.
"""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from dump_model import BOM, KEY_BYTES_MAX, Case, int_bytes, tuple_bytes

HAS_MSGPACK, HAS_NUMPY = (find_spec(name) is not None for name in ("msgpack", "numpy"))
MARK = b"# rowex dump case: "
FORMS = ["jsonl"] * 7 + ["tsv", "csv"] + ["npy"] * HAS_NUMPY
TARGETS = ["bytes+bytes", "str+int", "int+str", "tuple+bytes", "custom+custom", *["bytes+msgpack"] * HAS_MSGPACK]
BATCHES = [1, 2, 3, 4096]
BYTES_MAX = 3 << 19  # of a case; one that grows longer is cut

INTS = [0, 1, -1, 7, -5, 127, 128, 255, 256, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64, -(2**64), 10**30]
INTS += [256**118, 256**119 - 1, 256**119, -(256**119), -(256**119) - 1, 10**4299, 256**300]
TEXTS = ["", "a", "kept", "k\0", "\0\xff", "é", "\ud800", "\ufeff", "\u2028", "\U0010ffff", '"', "\\", "x" * 300, "\r"]
TEXTS += ["10", "0x1F", "-5", "('a', 1)", "()", "{}", "[1]", "null", "AA==", "\x1b[2J", "\x80\x00", "y" * 3000]
VERSIONS: list[Any] = [1, 1, 1, 0, -1, 2, 1.0, True, None, "1", [1], 2**64, 1e999, "v" * 5000, [[]], {"a": 1}]
NAMES = ["bytes", "str", "int", "tuple", "msgpack", "custom", "unknown (9)", "", "BYTES", "\x1b[2J", "a\nb", "\ud800"]
TAGS = [b"\x00", b"\xff\x00", b"\x40", b"\x10", b"\x20a\x00", b"\x30\x81", b"\xf8\x78"]
NAMES_WRONG: list[Any] = [None, 1, [], {}, "n" * 5000]
WORDS = [
    *b'null true {} [] [[[[ "b64" "key" "value" "rowex" "custom" -1 1e999 NaN 1.0 : , " \\ \\ud800 \\u0000'.split(),
    *b"\\x00 == = AA== ' 0x 99999999999999999999 \xef\xbb\xbf \xed\xa0\x80 \xff \xc3 ( ) # b'a' 1j () (1,)".split(),
    *[b"\n", b"\r\n", b"\r", b"\0", b"\t", b" ", b"\x0b", b"\x1b[2J", b'""', b"'''", b"[" * 90, b"(" * 90, b"9" * 4400],
    *b"'descr' 'fortran_order' 'shape' '|O' '<U3' '|V0' '<M8[ns]' '|S0' '<f2' (3,) (-1,) (2,2) PK\x03\x04 L".split(),
]


def to_bytes(case: Case) -> bytes:
    """As a file of the corpus."""
    words = [case.form, case.keys, case.values, case.target, case.way, "header" if case.header else "-", case.batch]
    return MARK + " ".join(map(str, words)).encode() + b"\n" + case.data


def from_bytes(data: bytes) -> Case:
    """The inverse; of any other bytes, the case in which they are loaded into a new index."""
    first, _, rest = data.partition(b"\n")
    if not first.startswith(MARK):
        return Case("jsonl", "-", "-", "new", "function", False, BATCHES[-1], data)
    form, keys, values, target, way, header, batch = first.removeprefix(MARK).decode().split()
    return Case(form, keys, values, target, way, header == "header", int(batch), rest)


# ---- valid ones --------------------------------------------------------------------------------


def an_object(codec: str, dice: random.Random, depth: int = 0) -> Any:
    """Something for the codec to store."""
    if codec == "int":
        return dice.choice([*INTS, dice.randrange(-300, 300)])
    if codec == "str":
        return dice.choice([*TEXTS, f"key{dice.randrange(40)}"])
    if codec == "tuple":
        kinds = ["int", "str", "bytes"] + ["tuple"] * (depth < 3)
        return tuple(an_object(dice.choice(kinds), dice, depth + 1) for _ in range(dice.randrange(4)))
    return dice.choice([b"", b"a", b"kept", b"\xff\xfe", b"key%d" % dice.randrange(40), dice.randbytes(9)])


def stored(codec: str, dice: random.Random) -> bytes:
    """Bytes that the codec may have stored."""
    item = an_object(codec, dice)
    if codec == "int":
        return int_bytes(item)
    if codec == "tuple":
        return tuple_bytes(item)
    return item.encode("utf-8", "surrogatepass") if isinstance(item, str) else item


def as_json(data: bytes, dice: random.Random) -> Any:
    """Stored bytes as a member of a line."""
    try:
        if dice.random() < 0.7:
            return data.decode()
    except UnicodeDecodeError:
        pass
    return {"b64": base64.b64encode(data).decode()}


def json_item(codec: str, dice: random.Random) -> Any:
    """A key or value of a line; mostly one that the codec takes."""
    if dice.random() < 0.04:
        return dice.choice([None, 1.5, True, [], {}, {"b64": 1}, {"b64": "AA==", "x": 0}, *TEXTS])
    if codec == "int" and dice.random() < 0.7:
        return an_object("int", dice)
    data = stored(codec, dice)
    if dice.random() < 0.15:
        data = bytes(change_bytes(bytearray(data), dice, WORDS))
    return as_json(data, dice)


def a_line(codecs: list[str], dice: random.Random) -> bytes:
    """An item."""
    key, value = (json_item(codec, dice) for codec in codecs)
    item: Any = [key, value] if dice.random() < 0.2 else {"key": key, "value": value}
    text = json.dumps(item, ensure_ascii=dice.random() < 0.5)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def a_head(codecs: list[str], dice: random.Random) -> bytes:
    """The first line of a dump."""
    head = {"rowex": 1, "keys": codecs[0], "values": codecs[1], "checksum": dice.random() < 0.5}
    return json.dumps(head).encode() + b"\n"


def a_field(codec: str, dice: random.Random, form: str) -> bytes:
    """A field of a table."""
    if codec == "int":
        number = an_object("int", dice)
        text = hex(number).encode() if number.bit_length() > 4096 or dice.random() < 0.2 else b"%d" % number
    elif codec == "tuple":
        text = dice.choice([b"()", b"('a', 1)", b"(b'x', ('e', -5), ())", b"(1,)", b"((((), 2), 'b'),)"])
    elif codec == "msgpack":
        text = dice.choice([b"1", b'"a"', b"null", b'[1, {"k": 2.5}]', b"-5", b"1e300", b"[[[[]]]]"])
    else:
        text = stored(codec, dice)
    return b'"%b"' % text.replace(b'"', b'""') if form == "csv" and dice.random() < 0.5 else text


def an_array(dice: random.Random) -> bytes:
    """Three items, as NumPy writes them."""
    import numpy

    kind = dice.choice(["i8", "u1", "S3", "U2", ">i4", "f8", "O", "uint8 rows"])
    items: Any = {"S3": [b"a", b"b", b"cde"], "U2": ["a", "b", "c"]}.get(kind, [1, 2, 3])
    if kind == "O":
        items = [b"a", None, 1]
    if kind == "uint8 rows":
        kind, items = "u1", [[1, 2], [3, 4], [5, 6]]
    array = numpy.array(items, dtype=kind)
    out = io.BytesIO()
    numpy.save(out, array)
    return out.getvalue()


def valid(dice: random.Random) -> Case:
    """A dump that is as it should be, but for some of its items."""
    form = dice.choice(FORMS)
    target = dice.choice(["new", "full", *TARGETS * 4])
    codecs = dice.choice(TARGETS).split("+") if target == "new" or dice.random() < 0.1 else target.split("+")
    codecs = ["bytes", "bytes"] if target == "full" else codecs
    options = codecs if dice.random() < 0.2 and "custom" not in codecs else ["-", "-"]
    lines = []
    if form == "npy":
        data = an_array(dice)
    else:
        if form == "jsonl" and dice.random() < 0.8:
            lines.append(a_head(codecs, dice))
        for _ in range(dice.choice([0, 1, 2, 3, 5, 9])):
            if form == "jsonl":
                lines.append(a_line(codecs, dice))
            else:
                fields = [a_field(codec, dice, form) for codec in codecs]
                lines.append((b"\t" if form == "tsv" else b",").join(fields) + b"\n")
        data = b"".join(lines)
    way = "command" if dice.random() < 0.12 else "function"
    return Case(form, options[0], options[1], target, way, dice.random() < 0.2, dice.choice(BATCHES), data)


# ---- what is made of them ----------------------------------------------------------------------


def change_bytes(out: bytearray, dice: random.Random, words: list[bytes]) -> bytearray:
    """Flip, put, cut and copy."""
    at = dice.randrange(len(out) + 1)
    size = dice.choice([0, 1, 1, 2, 5, dice.randrange(40)])
    action = dice.randrange(6)
    if action == 0 and at < len(out):
        out[at] ^= 1 << dice.randrange(8)
    elif action == 1:
        out[at : at + size] = dice.choice(words)
    elif action == 2:
        out[at:at] = dice.choice(words)
    elif action == 3:
        del out[at : at + size]
    elif action == 4:
        source = dice.randrange(len(out) + 1)
        out[at:at] = out[source : source + size]
    else:
        out[at : at + 1] = dice.choice([b"\0", b"\x01", b"\x7f", b"\xff", b"\n", dice.randbytes(1)])
    return out


def change_lines(data: bytes, dice: random.Random, other: Case) -> bytes:
    """Repeat, leave out, exchange, sort, cut off; take some of another dump's."""
    lines = data.split(b"\n")
    at, to = dice.randrange(len(lines) + 1), dice.randrange(len(lines) + 1)
    action = dice.randrange(10)
    if action == 0:
        lines[at:at] = lines[to : to + 3]
    elif action == 1:
        del lines[at : at + dice.choice([1, 1, 2, 5])]
    elif action == 2 and at < len(lines) and to < len(lines):
        lines[at], lines[to] = lines[to], lines[at]
    elif action == 3:
        lines.sort(reverse=dice.random() < 0.5)
    elif action == 4:
        lines[at:at] = other.data.split(b"\n")[to : to + dice.choice([1, 2, 9])]
    elif action == 5:
        return data + other.data
    elif action == 6:
        lines[at:at] = lines[to : to + 2] * dice.choice([5, 20, 20, 50] + [2500] * (dice.random() < 0.02))
    elif action == 7:
        lines[at:at] = [dice.choice([b"", b" ", b"\t\r", b"\0", b"\x0b\x0c", BOM])]
    elif action == 8:
        return data[: dice.randrange(len(data) + 1)]
    else:
        lines[at : at + 2] = [b" ".join(lines[at : at + 2])]
    return b"\n".join(lines)


def change_member(data: bytes, dice: random.Random, case: Case) -> bytes:
    """A line of JSON with other members: its codecs, its version, its key, what its base64 says."""
    lines = data.split(b"\n")
    at = dice.choice([0, dice.randrange(len(lines))])
    try:
        item = json.loads(lines[at])
    except (ValueError, RecursionError):
        return change_lines(data, dice, case)
    codecs = case.target.split("+") if "+" in case.target else dice.choice(TARGETS).split("+")
    if isinstance(item, dict) and "rowex" in item:
        change_head(item, dice)
    elif isinstance(item, dict) and item:
        name = dice.choice(list(item))
        held = item[name]
        if isinstance(held, dict) and isinstance(held.get("b64"), str) and dice.random() < 0.6:
            item[name] = {"b64": base64_of(held["b64"], dice)}
        else:
            item[name] = json_item(codecs[name == "value"], dice)
        action = dice.randrange(20)
        if action == 0:
            item = list(item.values())
        elif action == 1:
            item[dice.choice(["Key", "", "rowex", "b64", "keys"])] = item.pop(name)
        elif action == 2:
            item["more"] = None
    elif isinstance(item, list):
        item[dice.randrange(len(item) + 1) :] = [json_item(dice.choice(codecs), dice)]
    text = json.dumps(item, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    if dice.random() < 0.05:
        text = text.replace(b"{", b'{"key": 5, ', 1)
    lines[at] = text
    return b"\n".join(lines)


def change_head(head: dict[str, Any], dice: random.Random) -> None:
    """Of a dump."""
    action = dice.randrange(8)
    name = dice.choice(["keys", "values"])
    if action == 0:
        head["rowex"] = dice.choice(VERSIONS)
    elif action == 1:
        head[name] = dice.choice(NAMES_WRONG)
    elif action == 2:
        head.pop(dice.choice(list(head)))
    elif action == 3:
        head["checksum"] = dice.choice([True, False, None, 1, "true"])
    elif action == 4:
        head["keys"], head["values"] = head.get("values"), head.get("keys")
    elif action == 5:
        head["more"] = dice.choice(VERSIONS)
    else:
        head[name] = dice.choice(NAMES)


def base64_of(text: str, dice: random.Random) -> str:
    """Of bytes that were changed, so that it is right and they are not; or the other way round."""
    try:
        data = bytearray(base64.b64decode(text))
    except ValueError:
        data = bytearray()
    if dice.random() < 0.8:
        for _ in range(dice.choice([1, 1, 3])):
            data = change_bytes(data, dice, TAGS)
        return base64.b64encode(data).decode()
    at = dice.randrange(len(text) + 1)
    return text[:at] + dice.choice(["=", "==", "\n", " ", "-", "_", "A", "é", "\0"]) + text[at + dice.randrange(3) :]


def change_whole(data: bytes, dice: random.Random, case: Case) -> bytes:
    """Another encoding, other ends of lines, a mark before it; a line that is very long."""
    action = dice.randrange(9)
    if action == 0:
        return BOM * dice.choice([1, 1, 2]) + data
    if action == 1:
        return data.replace(b"\n", dice.choice([b"\r\n", b"\r", b"\n\n", b"\0\n"]))
    if action in (2, 3):
        encoding = dice.choice(["utf-16", "utf-16-be", "utf-32-be", "utf-32", "utf-7"])
        return data.decode("utf-8", "replace").encode(encoding)
    if action == 4:
        return data.rstrip(b"\n")
    if action == 5:
        return data.replace(b'"', b"'") if dice.random() < 0.3 else data.replace(b": ", b":")
    if action == 6 and dice.random() < 0.4:
        size = KEY_BYTES_MAX + dice.choice([-1, 0, 1, 1, 1, 2])
        return data + long_line(case.form, size) + a_line(["str", "str"], dice)
    if action == 7:
        return data.replace(dice.choice([b"a", b"1", b"="]), dice.choice(WORDS), 3)
    return data + long_line(case.form, dice.choice([200, 5000, 70000]))


def long_line(form: str, size: int) -> bytes:
    """An item whose key is long."""
    text = b'["%b","v"]\n' if form == "jsonl" else b"%b\tv\n" if form == "tsv" else b"%b,v\n"
    return text % (b"x" * size)


def change_array(data: bytes, dice: random.Random) -> bytes:
    """The head of an array is text whose length stands before it; mostly it is made right again."""
    out = change_bytes(bytearray(data), dice, WORDS)
    size = out.find(b"\n") - 9
    if dice.random() < 0.7 and 0 < size < 65536 and len(out) > 10:
        out[8:10] = size.to_bytes(2, "little")
    return bytes(out)


def change_way(case: Case, dice: random.Random) -> Case:
    """Loaded otherwise."""
    other = valid(dice)
    words: dict[str, Callable[[], Any]] = {
        "keys": lambda: dice.choice(["-", "-", "bytes", "str", "int", "tuple"]),
        "values": lambda: dice.choice(["-", "-", "bytes", "str", "int", *["msgpack"] * HAS_MSGPACK]),
        "target": lambda: other.target,
        "way": lambda: other.way,
        "header": lambda: not case.header,
        "batch": lambda: other.batch,
        "form": lambda: other.form,
    }
    name = dice.choice(list(words))
    return replace(case, **{name: words[name]()})


def mutated(case: Case, other: Case, dice: random.Random) -> Case:
    """
    Another case.

    Args:
        case: To begin with.
        other: Whose pieces may be taken.
        dice: Decide.

    Returns:
        A case whose data are at most BYTES_MAX long.
    """
    for _ in range(dice.choice([1, 1, 1, 2, 3, 6])):
        data, action = case.data, dice.random()
        if action < 0.08:
            case = change_way(case, dice)
            continue
        if case.form == "npy":
            data = change_array(data, dice)
        elif action < 0.30:
            data = bytes(change_bytes(bytearray(data), dice, WORDS))
        elif action < 0.55:
            data = change_lines(data, dice, other)
        elif action < 0.93 and case.form == "jsonl":
            data = change_member(data, dice, case)
        elif action < 0.93:
            data = bytes(change_bytes(bytearray(data), dice, WORDS))
        else:
            data = change_whole(data, dice, case)
        case = replace(case, data=data[:BYTES_MAX])
    return case
