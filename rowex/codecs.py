"""
Between Python objects and the bytes that the core stores.

Key codecs keep order: ``encode(a) < encode(b)`` exactly when ``a < b`` in Python, for str, int,
bytes, and tuples whose elements at the same place have the same type.  Every codec gives back what
it was given, refuses other types with TypeError, and answers bytes that it cannot have written
with CorruptionError.

The stored forms are described in `_forms`; that of msgpack is what the msgpack package writes, and
tuples come back from it as lists.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rowex._arguments import stopped
from rowex._door import coding
from rowex._forms import damaged
from rowex._native import lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Codec", "codec_name", "key_codec", "value_codec"]

T = TypeVar("T")
Pair = tuple[Callable[[T], bytes], Callable[[bytes], T]]

# Of the door that was chosen: in C where it is built, for what is plain.
encode_key: Callable[[Buffer], bytes] = coding.encode_key
encode_bytes: Callable[[Buffer], bytes] = coding.encode_bytes
decode_bytes: Callable[[bytes], bytes] = coding.decode_bytes
encode_str: Callable[[str], bytes] = coding.encode_str
decode_str: Callable[[bytes], str] = coding.decode_str
encode_int: Callable[[int], bytes] = coding.encode_int
decode_int: Callable[[bytes], int] = coding.decode_int
encode_tuple: Callable[[tuple[Any, ...]], bytes] = coding.encode_tuple
decode_tuple: Callable[[bytes], tuple[Any, ...]] = coding.decode_tuple


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


@cache
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
        raise damaged("msgpack", data, str(error) or type(error).__name__) from None


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
        The codec; its encode raises TypeError where *encode* does not give bytes.  A StopIteration of
        either becomes a RuntimeError, as in generators.
    """

    def checked(value: Any) -> bytes:
        try:
            data = encode(value)
        except StopIteration as error:
            stopped(error)
        if not isinstance(data, bytes):
            raise TypeError(f"the codec's encode gave {type(data).__name__}, not bytes")
        return data

    def guarded(data: bytes) -> Any:
        try:
            return decode(data)
        except StopIteration as error:
            stopped(error)

    return Codec("custom", CUSTOM, checked, guarded, checked)


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
