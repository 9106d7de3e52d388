"""
The forms in which keys and values are stored, which files depend on and which therefore never change.

bytes
    As they are.
str
    UTF-8, lone surrogates as three bytes each.  Sorted bytes are sorted code points.
int
    Any size.  For n >= 0: ``80 + L``, then n as L bytes, most significant first, L as small as
    possible (0 for n = 0) and at most 119; longer ones: ``F7 + k``, then L as k bytes, likewise
    smallest, then the L bytes.  For n < 0: the complement of every byte of the form of -n - 1.
tuple
    Its elements one after the other, each behind a tag: ``10`` bytes, ``20`` str, ``30`` int,
    ``40`` tuple; so elements of different types sort in this order.  bytes and str are followed by
    ``00``, a ``00`` inside them is written ``00 FF``; an inner tuple is followed by ``00``.

What is plain is done by `native/hot_codec.c`, where it is built; it comes here with everything else.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from rowex._arguments import exact_bytes
from rowex.errors import CorruptionError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "damaged",
    "decode_bytes",
    "decode_int",
    "decode_str",
    "decode_tuple",
    "encode_bytes",
    "encode_int",
    "encode_key",
    "encode_str",
    "encode_tuple",
]

LENGTH_DIRECT_MAX = 119  # bytes of an int whose length fits its first byte
TAG_BYTES, TAG_STR, TAG_INT, TAG_TUPLE, END = 0x10, 0x20, 0x30, 0x40, 0x00
ESCAPED = b"\x00\xff"
COMPLEMENT = bytes(255 - byte for byte in range(256))


def damaged(what: str, data: bytes, reason: str) -> CorruptionError:
    """The error that says which stored bytes are not what they should be, and why."""
    return CorruptionError(f"these bytes are not {what} that Rowex stored: {bytes(data)[:40]!r} ({reason})")


def _wrong_type(what: str, value: object) -> TypeError:
    return TypeError(f"expected {what}, not {type(value).__name__}")


def encode_key(key: Buffer) -> bytes:
    """A key of bytes, or of any contiguous buffer, as they are."""
    return key if type(key) is bytes else exact_bytes(key, "key")


def encode_bytes(value: Buffer) -> bytes:
    """A value of bytes, or of any contiguous buffer, as they are."""
    return value if type(value) is bytes else exact_bytes(value, "value")


def decode_bytes(data: bytes) -> bytes:
    """Bytes as they are."""
    return data


def encode_str(value: str) -> bytes:
    """A str as UTF-8, lone surrogates included."""
    if not isinstance(value, str):
        raise _wrong_type("str", value)
    return value.encode("utf-8", "surrogatepass")


def decode_str(data: bytes) -> str:
    """The inverse of `encode_str`."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise damaged("a str", data, error.reason) from None


def encode_int(value: int) -> bytes:
    """An int of any size, or what stands for one, so that the bytes sort as the numbers do."""
    number = value if type(value) is int else _int_of(value)
    if number is None:
        raise _wrong_type("int", value)
    if number < 0:
        return _encode_natural(-number - 1).translate(COMPLEMENT)
    return _encode_natural(number)


def _int_of(value: Any) -> int | None:
    """An int, or what stands for one (NumPy's integers do); bool is none, as True would come back as 1."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _encode_natural(value: int) -> bytes:
    size = (value.bit_length() + 7) // 8
    if size <= LENGTH_DIRECT_MAX:
        return bytes((0x80 + size,)) + value.to_bytes(size)
    size_bytes = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((0xF7 + len(size_bytes),)) + size_bytes + value.to_bytes(size)


def decode_int(data: bytes) -> int:
    """The inverse of `encode_int`."""
    value, end = _decode_int_at(data, 0)
    if end != len(data):
        raise damaged("an int", data, "bytes are left over")
    return value


def _decode_int_at(data: bytes, at: int) -> tuple[int, int]:
    """The int that starts at *at*, and where it ends."""
    if at >= len(data):
        raise damaged("an int", data, "cut short")
    if data[at] >= 0x80:
        return _decode_natural_at(data, at, COMPLEMENT, negative=False)
    value, end = _decode_natural_at(data, at, COMPLEMENT, negative=True)
    return -value - 1, end


def _decode_natural_at(data: bytes, at: int, table: bytes, *, negative: bool) -> tuple[int, int]:
    def take(start: int, count: int) -> bytes:
        piece = data[start : start + count]
        if len(piece) != count:
            raise damaged("an int", data, "cut short")
        return piece.translate(table) if negative else piece

    size = take(at, 1)[0] - 0x80
    at += 1
    if size > LENGTH_DIRECT_MAX:
        count = size - LENGTH_DIRECT_MAX
        digits = take(at, count)
        size = int.from_bytes(digits)
        at += count
        if digits[0] == 0 or size <= LENGTH_DIRECT_MAX:
            raise damaged("an int", data, "a length that is longer than needed")
    digits = take(at, size)
    if size and digits[0] == 0:
        raise damaged("an int", data, "leading zeros")
    return int.from_bytes(digits), at + size


def encode_tuple(value: tuple[Any, ...]) -> bytes:
    """A tuple of bytes, str, int and such tuples, so that the bytes sort as the tuples do."""
    if not isinstance(value, tuple):
        raise _wrong_type("tuple", value)
    out = bytearray()
    open_tuples = [iter(value)]  # a stack of our own: nesting may be deeper than Python recurses
    while open_tuples:
        for item in open_tuples[-1]:
            if isinstance(item, tuple):
                out.append(TAG_TUPLE)
                open_tuples.append(iter(item))
                break
            _append_item(out, item)
        else:
            open_tuples.pop()
            if open_tuples:
                out.append(END)
    return bytes(out)


def _append_item(out: bytearray, item: object) -> None:
    if isinstance(item, bytes):
        out.append(TAG_BYTES)
        out += item.replace(b"\x00", ESCAPED)
        out.append(END)
    elif isinstance(item, str):
        out.append(TAG_STR)
        out += encode_str(item).replace(b"\x00", ESCAPED)
        out.append(END)
    elif (number := _int_of(item)) is not None:
        out.append(TAG_INT)
        out += encode_int(number)
    else:
        raise TypeError(f"a tuple may hold bytes, str, int and tuples, not {type(item).__name__}")


def decode_tuple(data: bytes) -> tuple[Any, ...]:
    """The inverse of `encode_tuple`."""
    open_items: list[list[Any]] = [[]]
    at = 0
    while at < len(data):
        tag = data[at]
        at += 1
        if tag == TAG_TUPLE:
            open_items.append([])
        elif tag == TAG_INT:
            number, at = _decode_int_at(data, at)
            open_items[-1].append(number)
        elif tag in (TAG_BYTES, TAG_STR):
            raw, at = _unescape_at(data, at)
            open_items[-1].append(raw if tag == TAG_BYTES else decode_str(raw))
        elif tag == END and len(open_items) > 1:
            inner = tuple(open_items.pop())
            open_items[-1].append(inner)
        else:
            raise damaged("a tuple", data, f"unknown tag {tag:#04x} at {at - 1}")
    if len(open_items) > 1:
        raise damaged("a tuple", data, "cut short")
    return tuple(open_items[0])


def _unescape_at(data: bytes, at: int) -> tuple[bytes, int]:
    """The bytes up to the END that is not part of an escape, and what follows it."""
    end = at
    while True:
        end = data.find(b"\x00", end)
        if end < 0:
            raise damaged("a tuple", data, "cut short")
        if data[end + 1 : end + 2] != b"\xff":
            return data[at:end].replace(ESCAPED, b"\x00"), end + 1
        end += 2
