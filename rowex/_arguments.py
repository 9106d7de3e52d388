"""
Arguments: keys, values, timeouts, pairs.

What is not exactly what is wanted comes here from everywhere: from both doors and from the calls
beside them, so that all take and refuse the same, in the same words.
"""

from __future__ import annotations

import math
import re
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from operator import length_hint
from typing import TYPE_CHECKING, Any, NoReturn

from rowex._native import ffi, lib
from rowex.errors import ClosedError, made, raise_result

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "SLICE_NS",
    "UNMADE",
    "Wait",
    "changed",
    "checked_view",
    "each_of",
    "encoded",
    "encoded_keys",
    "exact_bytes",
    "export",
    "holds_objects",
    "is_arrow",
    "note_item",
    "note_key",
    "pack",
    "pair_of",
    "pairs_of",
    "raise_item",
    "seconds",
    "settle",
    "stopped",
]

SLICE_NS = 50_000_000  # one slice of a wait; bounds the wait for Ctrl-C
UNMADE = (1 << 64) - 1  # the ticket of no change


def holds_objects(form: str | None) -> bool:
    """Whether a buffer of this format has addresses of objects in it."""
    return form is not None and "O" in form and "O" in re.sub(":[^:]*:", "", form)  # names of fields between colons


def is_arrow(data: object) -> bool:
    """Whether *data* is of a class that offers itself by Arrow's C data interface; a `Packed` is."""
    return hasattr(type(data), "__arrow_c_array__")


def checked_view(data: ReadableBuffer, what: str) -> memoryview:
    """
    The one place that says what is bytes-like.

    Args:
        data: A key or a value.
        what: "key" or "value".

    Returns:
        Its buffer, which lies in one piece, row after row, and is no text and no objects.

    Raises:
        TypeError: It is not like that.
    """
    kind = type(data).__name__
    if isinstance(data, str):  # some of its subclasses are buffers
        raise TypeError(f"a {what} must be bytes-like, not str: encode it, or open with {what}s='str'")
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"a {what} must be bytes-like, not {kind}") from None
    except (BufferError, ValueError) as error:  # closed, or of a type that has no format
        raise TypeError(f"a {what} must be bytes-like, which this {kind} is not: {error}") from None
    if not view.c_contiguous:
        wrong = f"a {what} must be a contiguous buffer, which this {kind} is not"
    elif holds_objects(view.format):
        wrong = f"a {what} must be bytes-like, not objects, which this {kind} holds"
    elif what == "key" and is_single(data, view):
        wrong = (
            f"a key must be bytes-like, not a single {kind}: int(key).to_bytes(8, 'big') is what an array "
            "of integers stores, or open with keys='int'"
        )
    else:
        return view
    view.release()  # an exception that is kept keeps no buffer
    raise TypeError(wrong)


def is_single(data: object, view: memoryview) -> bool:
    """Whether it is one number (or time), whose memory is not what an array of it stores as a key."""
    if isinstance(data, bytes) or view.format.endswith("x"):  # items of S and V, which are bytes
        return False
    return view.ndim == 0 or getattr(data, "shape", None) == ()


def export(data: ReadableBuffer, what: str) -> Any:
    # A buffer that stays exported until the result is released or collected.
    return ffi.from_buffer(data if type(data) is bytes else checked_view(data, what))


def exact_bytes(data: ReadableBuffer, what: str) -> bytes:
    # Keys are immutable during a call: one that changed could end up in the wrong place.
    if type(data) is bytes:
        return data
    with checked_view(data, what) as view:
        return view.tobytes()


def pairs_of(items: Any) -> Iterator[Any]:
    """
    Of what has items(), those; of what has keys() and [], likewise; else what it gives itself.

    Args:
        items: A mapping, something like one, or an iterable of pairs.

    Returns:
        Its pairs, not looked at.

    Raises:
        TypeError: It is nothing like that.
    """
    if is_arrow(items):  # whose columns would pass for pairs
        raise TypeError(
            f"expected pairs (key, value), not the columns of {type(items).__name__}; zip() makes pairs of them"
        )
    view = getattr(items, "items", None)
    if view is not None:
        return iter(view())
    if hasattr(items, "keys"):
        return ((key, items[key]) for key in items.keys())  # noqa: SIM118 - it need not be iterable
    return iter(items)


def pair_of(item: Any) -> tuple[Any, Any]:
    """*item* as a pair (key, value)."""
    try:
        pair = tuple(item)
    except TypeError:
        raise TypeError(f"expected pairs (key, value), not {type(item).__name__}") from None
    except StopIteration as error:
        stopped(error)
    if len(pair) != 2:
        raise ValueError(f"expected pairs (key, value), not {len(pair)} items")
    return pair[0], pair[1]


def stopped(error: BaseException) -> NoReturn:
    """A StopIteration of somebody's function may not pass for the end of what it was called for."""
    raise RuntimeError("a function of the caller's raised StopIteration") from error


def note_item(error: BaseException, number: int, side: str = "") -> None:
    """Add to an error which of many items it is about, and which side of a pair."""
    if isinstance(error, Exception) and not isinstance(error, ClosedError):
        error.add_note(f"{side and f'the {side} of '}item {number}, counted from 0")


def note_key(error: BaseException, key: object) -> None:
    """Add to an error that it is about the value of a key."""
    if isinstance(error, Exception):
        error.add_note(f"the value of key {key!r:.200}")


def raise_item(code: int, key: object, number: int) -> NoReturn:
    """As `raise_result`, for one of many items."""
    try:
        raise_result(code, key)
    except Exception as error:
        note_item(error, number)
        raise


def encoded(
    pairs: Iterable[Any], key: Callable[[Any], bytes], value: Callable[[Any], bytes], first: int = 0
) -> Iterator[tuple[bytes, bytes]]:
    """
    Pairs as they are stored, one after the other.

    Args:
        pairs: Each (key, value).
        key: Encodes a key.
        value: Encodes a value.
        first: The number of the first.

    Returns:
        An iterator of the pairs.

    Raises:
        Exception: What was raised of an item, with a note that tells which and which side of it.
    """
    for number, item in enumerate(pairs, first):
        side = ""
        try:
            name, content = item if type(item) is tuple and len(item) == 2 else pair_of(item)
            side = "key"
            stored = key(name)
            side = "value"
            pair = stored, value(content)
        except Exception as error:
            note_item(error, number, side)
            raise
        yield pair


def each_of(rows: Iterable[Any], call: Callable[[Any], Any], first: int = 0) -> list[Any]:
    """
    What a function makes of each of many items.

    Args:
        rows: The items.
        call: The function.
        first: The number of the first.

    Returns:
        Its results.

    Raises:
        Exception: What it raised, with a note that tells of which item.
    """
    own = list(rows)
    rest = iter(own)
    try:
        return [call(row) for row in rest]  # map() would take a StopIteration of its own for the end
    except Exception as error:
        note_item(error, first + len(own) - 1 - length_hint(rest))
        raise


def seconds(number: object, name: str) -> float:
    """
    A length of time.

    Args:
        number: Anything that is a number, and not negative.
        name: Of the argument.

    Returns:
        It as a float.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, no number of that kind (NaN), or too large for a float.
    """
    try:
        length = math.ldexp(number, 0)  # type: ignore[arg-type] # as float(), but for text, which that would read
    except TypeError:
        kind = type(number).__name__
        raise TypeError(f"{name} must be a number of seconds or None, not {kind}") from None
    except OverflowError:
        raise ValueError(f"{name} is out of range") from None
    if not length >= 0:
        raise ValueError(f"{name} must not be negative: {length!r}")
    return length


class Wait:
    """How long a call may wait for others, in slices between which signals are handled."""

    __slots__ = ("_deadline_ns",)

    def __init__(self, timeout: float | None) -> None:
        self._deadline_ns: int | None = None
        length = None if timeout is None else seconds(timeout, "timeout")
        if length is not None and length < 1e9:  # more than 30 years is for ever, and fits in the sum
            self._deadline_ns = time.monotonic_ns() + int(length * 1e9)

    def once(self) -> None:
        """No more than one slice from now on."""
        end = time.monotonic_ns() + SLICE_NS
        self._deadline_ns = end if self._deadline_ns is None else min(end, self._deadline_ns)

    def more(self) -> int:
        """The length of the next slice in nanoseconds; TimeoutError when the time is over."""
        if self._deadline_ns is None:
            return SLICE_NS
        left = self._deadline_ns - time.monotonic_ns()
        if left <= 0:
            raise_result(lib.RX_E_TIMEOUT)
        return min(left, SLICE_NS)


def changed(attempt: Callable[[Any], None], settle: Callable[[Any], None]) -> int:
    """
    One change, and the wait until it is durable; what is raised after it was made says so.

    Args:
        attempt: Makes it, and stores its ticket at the place that it is given.
        settle: The wait for the ticket there.

    Returns:
        The ticket; UNMADE where nothing was to be changed.
    """
    ticket = ffi.new("uint64_t *", UNMADE)
    try:
        attempt(ticket)
        settle(ticket)
        number: int = ticket[0]
    except BaseException as error:
        if ticket[0] != UNMADE:  # Ctrl-C may come anywhere behind the core's call
            made(error, int(ticket[0]))
        raise
    return number


def settle(wait_durable: Callable[[int], int], ticket: int, wait: Wait) -> None:
    """What was changed is waited for until it is durable; what is raised says that it was changed."""
    slice_ns = SLICE_NS
    try:
        while (code := wait_durable(slice_ns)) != lib.RX_OK:
            if code != lib.RX_WOULD_WAIT:
                raise_result(code)
            slice_ns = wait.more()
    except BaseException as error:
        made(error, ticket)
        raise


def encoded_keys(keys: Iterable[Any], encode: Callable[[Any], bytes]) -> Iterator[bytes]:
    """What *encode* makes of each; an exception says of which."""
    for number, key in enumerate(keys):
        try:
            data = encode(key)
        except Exception as error:
            note_item(error, number)
            raise
        yield data


def pack(rows: list[Any], side: int, /) -> tuple[bytes, int, bytes | None] | None:
    """
    Many bytes objects as one.

    Args:
        rows: Them, or pairs of them.
        side: Which of each pair, 0 or 1; -1: the rows themselves.

    Returns:
        The bytes of all, and how many each has.  Where they differ 0, and where each begins and the
        last ends, as int64.  None: there are others than exact bytes, or than pairs of them.
    """
    if side >= 0:
        if any(type(pair) is not tuple or len(pair) != 2 for pair in rows):
            return None
        rows = [pair[side] for pair in rows]
    if any(type(row) is not bytes for row in rows):
        return None
    widths = set(map(len, rows))
    if len(widths) == 1 and (width := widths.pop()):
        return b"".join(rows), width, None
    return b"".join(rows), 0, array("q", list(accumulate(map(len, rows), initial=0))).tobytes()
