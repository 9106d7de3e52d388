"""
Between Python objects and the bytes that the core stores.

Key codecs keep order: ``encode(a) < encode(b)`` exactly when ``a < b`` in Python, for str, int,
bytes, and tuples whose elements at the same place have the same type.  Every codec gives back what
it was given, refuses other types with TypeError, and answers bytes that it cannot have written
with CorruptionError.

The stored forms, which files depend on and which therefore never change:

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
msgpack (values)
    What the msgpack package writes; tuples come back as lists.
"""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rowex._arguments import exact_bytes
from rowex._native import lib
from rowex.errors import CorruptionError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Codec", "codec_name", "key_codec", "value_codec"]

T = TypeVar("T")
Pair = tuple[Callable[[T], bytes], Callable[[bytes], T]]

LENGTH_DIRECT_MAX = 119  # bytes of an int whose length fits its first byte
TAG_BYTES, TAG_STR, TAG_INT, TAG_TUPLE, END = 0x10, 0x20, 0x30, 0x40, 0x00
ESCAPED = b"\x00\xff"
COMPLEMENT = bytes(255 - byte for byte in range(256))


@dataclass(frozen=True)
class Codec(Generic[T]):
    """
    How one side of an index, keys or values, is stored.

    Attributes:
        name: As `rowex.open` takes it; "custom" for a pair of functions.
        code: As the file stores it.
        encode: From an object to its bytes.
        decode: From the bytes to an equal object.
        encode_prefix: For keys: what the encodings of all keys with that prefix begin with.
    """

    name: str
    code: int
    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]
    encode_prefix: Callable[[T], bytes]

    @property
    def plain(self) -> bool:
        """Whether bytes are stored as they are."""
        return self.code == BYTES.code


def _damaged(what: str, data: bytes, reason: str) -> CorruptionError:
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
        raise _damaged("a str", data, error.reason) from None


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
        raise _damaged("an int", data, "bytes are left over")
    return value


def _decode_int_at(data: bytes, at: int) -> tuple[int, int]:
    """The int that starts at *at*, and where it ends."""
    if at >= len(data):
        raise _damaged("an int", data, "cut short")
    if data[at] >= 0x80:
        return _decode_natural_at(data, at, COMPLEMENT, negative=False)
    value, end = _decode_natural_at(data, at, COMPLEMENT, negative=True)
    return -value - 1, end


def _decode_natural_at(data: bytes, at: int, table: bytes, *, negative: bool) -> tuple[int, int]:
    def take(start: int, count: int) -> bytes:
        piece = data[start : start + count]
        if len(piece) != count:
            raise _damaged("an int", data, "cut short")
        return piece.translate(table) if negative else piece

    size = take(at, 1)[0] - 0x80
    at += 1
    if size > LENGTH_DIRECT_MAX:
        count = size - LENGTH_DIRECT_MAX
        digits = take(at, count)
        size = int.from_bytes(digits)
        at += count
        if digits[0] == 0 or size <= LENGTH_DIRECT_MAX:
            raise _damaged("an int", data, "a length that is longer than needed")
    digits = take(at, size)
    if size and digits[0] == 0:
        raise _damaged("an int", data, "leading zeros")
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
            raise _damaged("a tuple", data, f"unknown tag {tag:#04x} at {at - 1}")
    if len(open_items) > 1:
        raise _damaged("a tuple", data, "cut short")
    return tuple(open_items[0])


def _unescape_at(data: bytes, at: int) -> tuple[bytes, int]:
    """The bytes up to the END that is not part of an escape, and what follows it."""
    end = at
    while True:
        end = data.find(b"\x00", end)
        if end < 0:
            raise _damaged("a tuple", data, "cut short")
        if data[end + 1 : end + 2] != b"\xff":
            return data[at:end].replace(ESCAPED, b"\x00"), end + 1
        end += 2


def _msgpack() -> ModuleType:
    try:
        import msgpack
    except ImportError:
        raise ImportError(
            'values="msgpack" needs the package msgpack: pip install "rowex[msgpack]"', name="msgpack"
        ) from None
    module: ModuleType = msgpack
    return module


def encode_msgpack(value: object) -> bytes:
    """Anything that msgpack can pack."""
    data: bytes = _msgpack().packb(value, use_bin_type=True)
    return data


def decode_msgpack(data: bytes) -> Any:
    """The inverse of `encode_msgpack`, but for tuples, which come back as lists."""
    try:
        return _msgpack().unpackb(data, raw=False, strict_map_key=False)
    except ImportError:
        raise
    except Exception as error:  # its own classes, ValueError, RecursionError
        raise _damaged("msgpack", data, str(error) or type(error).__name__) from None


def _no_prefix(value: int) -> bytes:
    raise TypeError(f"int keys have no prefixes: {value!r}; use start and stop")


KEY_BYTES: Codec[bytes] = Codec("bytes", int(lib.RX_C_BYTES), encode_key, decode_bytes, encode_key)
BYTES: Codec[bytes] = Codec("bytes", int(lib.RX_C_BYTES), encode_bytes, decode_bytes, encode_bytes)
STR: Codec[str] = Codec("str", int(lib.RX_C_STR), encode_str, decode_str, encode_str)
INT: Codec[int] = Codec("int", int(lib.RX_C_INT), encode_int, decode_int, _no_prefix)
TUPLE: Codec[tuple[Any, ...]] = Codec("tuple", int(lib.RX_C_TUPLE), encode_tuple, decode_tuple, encode_tuple)
MSGPACK: Codec[Any] = Codec("msgpack", int(lib.RX_C_MSGPACK), encode_msgpack, decode_msgpack, encode_msgpack)
CUSTOM = int(lib.RX_C_CUSTOM)

_KEYS: dict[str, Codec[Any]] = {codec.name: codec for codec in (KEY_BYTES, STR, INT, TUPLE)}
_VALUES: dict[str, Codec[Any]] = {codec.name: codec for codec in (BYTES, STR, INT, MSGPACK)}
_NAMES: dict[int, str] = {codec.code: codec.name for codec in (BYTES, STR, INT, TUPLE, MSGPACK)}


def _find(what: str, table: dict[str, Codec[Any]], chosen: object) -> Codec[Any]:
    if isinstance(chosen, str):
        codec = table.get(chosen)
        if codec is None:
            raise ValueError(f"{what}={reprlib.repr(chosen)}: choose from {', '.join(table)}, or a pair of functions")
        if codec is MSGPACK:
            _msgpack()  # say so now, not at the first value
        return codec
    if isinstance(chosen, (tuple, list)) and len(chosen) == 2 and all(callable(f) for f in chosen):
        return custom(chosen[0], chosen[1])
    raise TypeError(f"{what}= takes a codec's name or a pair of functions (encode, decode), not {chosen!r}")


def custom(encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> Codec[Any]:
    """
    A codec of two functions of the caller's.

    Args:
        encode: From an object to bytes; for keys, the bytes give the order.
        decode: From those bytes to the object.

    Returns:
        The codec; its encode raises TypeError where *encode* does not give bytes.
    """

    def checked(value: Any) -> bytes:
        data = encode(value)
        if not isinstance(data, bytes):
            raise TypeError(f"the codec's encode gave {type(data).__name__}, not bytes")
        return data

    return Codec("custom", CUSTOM, checked, decode, checked)


def key_codec(chosen: str | Pair[Any]) -> Codec[Any]:
    """
    The codec for keys that `rowex.open` was asked for.

    Args:
        chosen: "bytes", "str", "int", "tuple", or (encode, decode).

    Returns:
        The codec.

    Raises:
        ValueError: No codec has that name.
        TypeError: Neither a name nor a pair of functions.
    """
    return _find("keys", _KEYS, chosen)


def value_codec(chosen: str | Pair[Any]) -> Codec[Any]:
    """
    The codec for values that `rowex.open` was asked for.

    Args:
        chosen: "bytes", "str", "int", "msgpack", or (encode, decode).

    Returns:
        The codec.

    Raises:
        ValueError: No codec has that name.
        TypeError: Neither a name nor a pair of functions.
        ImportError: The package msgpack is not installed.
    """
    return _find("values", _VALUES, chosen)


def codec_name(code: int) -> str:
    """The name of a stored code: a codec's, "custom", or "unknown (code)"."""
    return "custom" if code == CUSTOM else _NAMES.get(code, f"unknown ({code})")
