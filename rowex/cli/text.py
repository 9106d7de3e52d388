"""
Bytes as text that can be read back: tokens, quoting, and the forms of codecs and of JSON.

A line is tokens separated by white space (ASCII's).  A token is bare, or stands in double quotes,
between which ``\\"  \\\\  \\n  \\t  \\xNN`` are escapes; a bare one has no double quote, and nothing in it
is an escape.  `quote` writes the quoted form: printable UTF-8 as it is, every other byte escaped, so
that ``tokens(quote(data)) == [data]``, and what is shown on a terminal cannot command it.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import re
from typing import Any

from rowex.codecs import Codec, key_codec, value_codec
from rowex.errors import RowexError

__all__ = ["BOM", "Malformed", "Side", "argument", "json_line", "quote", "shown", "tokens"]

BOM = b"\xef\xbb\xbf"  # which some programs put before UTF-8
_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(?!\S)|([^\s"]++)(?!\S)', re.DOTALL)
_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.?)", re.DOTALL)
_SPACE = re.compile(rb"\s*")
_NOT_BARE = re.compile(rb'[\s"\\]')
_ESCAPES = {b'"': b'"', b"\\": b"\\", b"n": b"\n", b"t": b"\t"}
_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
_INT = re.compile(rb"[+-]?(?:0[xX][0-9A-Fa-f]+|[0-9]+)")
DECIMAL_BITS_MAX = 4096  # longer ints are shown in hexadecimal, which Python converts in linear time
JSON_INT_MAX = 2**53  # what every reader of JSON keeps exact


class Malformed(ValueError):
    """Text that is not what it should be; the message says what is wrong with it."""


def _unescape(match: re.Match[bytes]) -> bytes:
    escape = match[1]
    if len(escape) == 3:
        return bytes((int(escape[1:], 16),))
    plain = _ESCAPES.get(escape)
    if plain is None:
        raise Malformed(f'unknown escape {shown(match[0]).decode()}; known are \\" \\\\ \\n \\t \\xNN')
    return plain


def tokens(line: bytes) -> list[bytes]:
    """
    Split a line.

    Args:
        line: Without or with the newline that ends it.

    Returns:
        The tokens, unquoted.

    Raises:
        Malformed: A quote is not closed, stands inside a bare token or is followed by one; or an
            escape is unknown.
    """
    if b'"' not in line:
        return line.split()
    found: list[bytes] = []
    at = _SPACE.match(line).end()  # type: ignore[union-attr] # it matches nothing, too
    while at < len(line):
        match = _TOKEN.match(line, at)
        if match is None:
            wrong = (
                "text follows a closing quote, or the quote is not closed"
                if line[at] == ord('"')
                else ("a double quote inside a bare token")
            )
            raise Malformed(f"{wrong}: {line[at : at + 40].decode(errors='backslashreplace').strip()}")
        quoted = match[1]
        found.append(match[2] if quoted is None else _ESCAPE.sub(_unescape, quoted))
        at = _SPACE.match(line, match.end()).end()  # type: ignore[union-attr] # it matches nothing, too
    return found


def argument(text: str) -> bytes:
    """
    The bytes of an argument of the command line.

    Args:
        text: As the shell gave it.  In double quotes of its own, it holds escapes.

    Returns:
        The bytes.

    Raises:
        Malformed: It begins with a double quote, but is not one quoted token.
    """
    data = os.fsencode(text)
    if not data.startswith(b'"'):
        return data
    found = tokens(data)
    if len(found) != 1:
        raise Malformed("a KEY or VALUE that begins with a double quote is one quoted token")
    return found[0]


def _escape(char: str) -> str:
    known = _ESCAPED.get(char)
    if known is not None:
        return known
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def _is_plain(data: bytes) -> bool:
    """Whether all is printable, and nothing needs an escape."""
    try:
        return data.decode().isprintable() and b'"' not in data and b"\\" not in data
    except UnicodeDecodeError:
        return False


def quote(data: bytes) -> bytes:
    """
    Bytes as a quoted token.

    Args:
        data: Any bytes.

    Returns:
        One line of printable UTF-8, quotes included, that `tokens` reads back as *data*.
    """
    if _is_plain(data):
        return b'"%b"' % data
    return b'"%b"' % "".join(map(_escape, data.decode("utf-8", "surrogateescape"))).encode()


def shown(data: bytes) -> bytes:
    """
    Bytes as a token, quoted only where they need it.

    Args:
        data: Any bytes.

    Returns:
        One line of printable UTF-8 that `tokens` reads back as *data*.
    """
    return data if data and not _NOT_BARE.search(data) and _is_plain(data) else quote(data)


class Side:
    """
    How one side of an index, keys or values, is written as text and as JSON.

    Attributes:
        name: Of the codec that the file names.
    """

    def __init__(self, name: str, *, values: bool = False, raw: bool = False) -> None:
        """
        Args:
            name: Of the codec, as `info()` has it.
            values: Whether these are values, else keys.
            raw: Whether text stands for the stored bytes, whatever the codec.

        Raises:
            ImportError: The codec's package is not installed.
        """
        self.name = name
        self._codec: Codec[Any] | None = None
        if not raw and name in ("str", "int", "tuple", "msgpack"):
            self._codec = value_codec(name) if values else key_codec(name)

    def parse(self, text: bytes) -> bytes:
        """
        From a token to what is stored.

        Args:
            text: The token: a decimal or 0x number for int, a Python literal for tuple, JSON for
                msgpack, UTF-8 for str, and for the others any bytes.

        Returns:
            The stored bytes.

        Raises:
            Malformed: Not the form that the codec takes.
        """
        if self._codec is None:
            return text
        try:
            return self._codec.encode(self._object(text))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError) as error:
            what, reason = _FORMS[self.name], str(error) or type(error).__name__
            raise Malformed(f"not {what}: {shown(text[:60]).decode()} ({reason})") from None

    def parse_prefix(self, text: bytes) -> bytes:
        """As `parse`, for a prefix of keys."""
        stored = self.parse(text)
        if self._codec is not None and self.name == "int":
            raise Malformed("int keys have no prefixes; use START and STOP")
        return stored

    def _object(self, text: bytes) -> Any:
        if self.name == "str":
            return text.decode()
        if self.name == "int":
            if not _INT.fullmatch(text):
                raise ValueError("digits are expected")
            return int(text, 16 if b"x" in text.lower() else 10)
        return ast.literal_eval(text.decode()) if self.name == "tuple" else json.loads(text)

    def show(self, stored: bytes) -> bytes:
        """
        From what is stored to its text, which `parse` reads back.

        Args:
            stored: Bytes of the file.

        Returns:
            The text, not quoted; the stored bytes themselves where they have no such form.
        """
        if self._codec is None or self.name == "str":
            return stored
        try:
            text = self._text(self._codec.decode(stored)).encode()
            return text if self.parse(text) == stored else stored
        except (ValueError, TypeError, RecursionError):
            return stored

    def _text(self, item: Any) -> str:
        if self.name == "int":
            return str(item) if item.bit_length() <= DECIMAL_BITS_MAX else hex(item)
        return repr(item) if self.name == "tuple" else json.dumps(item, ensure_ascii=False)

    def to_json(self, stored: bytes) -> Any:
        """
        From what is stored to JSON, without loss.

        Args:
            stored: Bytes of the file.

        Returns:
            A number for an int that every reader keeps exact; else the stored bytes, as text where
            they are UTF-8, else as ``{"b64": ...}``.
        """
        if self.name == "int" and self._codec is not None:
            try:
                number: int = self._codec.decode(stored)
            except RowexError:
                number = JSON_INT_MAX
            if abs(number) < JSON_INT_MAX:
                return number
        try:
            return stored.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(stored).decode("ascii")}

    def from_json(self, item: Any) -> bytes:
        """
        The inverse of `to_json`.

        Args:
            item: What JSON held.

        Returns:
            The stored bytes.

        Raises:
            Malformed: It cannot come from `to_json`, or is not what the codec stores.
        """
        try:
            if self.name == "int" and self._codec is not None and type(item) is int:
                return self._codec.encode(item)
            if isinstance(item, str):
                stored = item.encode()
            elif isinstance(item, dict) and list(item) == ["b64"] and isinstance(item["b64"], str):
                stored = base64.b64decode(item["b64"], validate=True)
                if base64.b64encode(stored).decode("ascii") != item["b64"]:  # which Python lets pass
                    raise Malformed("base64 with too much padding, or with bits behind its last byte")
            else:
                raise Malformed('expected text or {"b64": ...}')
            if self._codec is not None:
                self._codec.decode(stored)
        except Malformed:
            raise
        except ValueError as error:
            raise Malformed(str(error)) from None
        return stored


_FORMS = {
    "str": "UTF-8",
    "int": "a whole number",
    "tuple": "a tuple as Python writes it",
    "msgpack": "JSON",
}


def json_line(keys: Side, values: Side, key: bytes, value: bytes) -> bytes:
    """
    An item as a line of JSON.

    Args:
        keys: How keys are written.
        values: How values are.
        key: As stored.
        value: As stored.

    Returns:
        ``{"key": ..., "value": ...}`` with a newline.
    """
    item = {"key": keys.to_json(key), "value": values.to_json(value)}
    return json.dumps(item, ensure_ascii=False).encode() + b"\n"
