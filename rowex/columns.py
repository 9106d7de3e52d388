"""
Columns: keys or values side by side in memory, as the core takes and fills them.

A column is any one-dimensional contiguous buffer (a NumPy array, an ``array.array``, a memoryview),
a two-dimensional one of bytes, whose rows are the items, a `Packed`, or an array of Arrow's (see
`arrow`).  The forms, which docs/arrays.md tells users:

integers
    In an index whose codec is int: the numbers, stored as the codec stores them.  As keys of an index
    of bytes: n >= 0 as ``n.to_bytes(8, "big")``.  As values of one: the bytes as they lie in memory.
``S``
    Each item without the zeros at its end, as NumPy gives them.
anything else of a fixed size
    As values, the bytes as they lie in memory.  As keys, only rows of bytes, and ``V``.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from typing import Any, NoReturn, overload

from rowex._arguments import holds_objects, is_arrow
from rowex._native import ffi, lib
from rowex.errors import raise_result

__all__ = [
    "Column",
    "Items",
    "Packed",
    "checked",
    "input_column",
    "is_column",
    "is_text",
    "numpy",
    "output_column",
    "packed_column",
]

FIXED, PADDED, OFFSETS = int(lib.RX_F_FIXED), int(lib.RX_F_PADDED), int(lib.RX_F_OFFSETS)
SIGNED, UNSIGNED = int(lib.RX_F_SIGNED), int(lib.RX_F_UNSIGNED)
BYTES, INT = int(lib.RX_C_BYTES), int(lib.RX_C_INT)
_INTEGERS = "bBhHiIlLqQnN"  # format characters; signed ones in lower case
_SWAPPED = ">!" if sys.byteorder == "little" else "<"


def numpy() -> Any:
    """
    The module numpy.

    Raises:
        ImportError: It is not installed; the message says what to do.
    """
    try:
        import numpy as module
    except ImportError:
        raise ImportError('arrays as results need NumPy: pip install "rowex[arrays]"', name="numpy") from None
    return module


class Packed:
    """
    Items of any length, one behind the other: a sequence of bytes.

    Attributes:
        data: The bytes of all; an array of uint8, or another buffer of bytes.
        offsets: Item i is ``data[offsets[i]:offsets[i + 1]]``: one more than there are items, int64.
        valid: Which items are there, an array of bool; None: all.  For Arrow, whose nulls the others become.
        text: The items are UTF-8.  For Arrow, to whom they are strings then.
    """

    __slots__ = ("data", "offsets", "text", "valid")

    def __init__(self, data: Any, offsets: Any, valid: Any = None) -> None:
        """
        Name the buffers, which are used as they are.

        Args:
            data: A contiguous buffer of bytes.
            offsets: A contiguous buffer of int64 (or int32), ascending, within *data*.
            valid: Which items are there, an array of bool; None: all.
        """
        self.data, self.offsets, self.valid, self.text = data, offsets, valid, False

    @classmethod
    def of(cls, items: Iterable[bytes]) -> Packed:
        """
        Pack some bytes.

        Args:
            items: Any number of bytes.

        Returns:
            A copy of them, packed.
        """
        rows = list(items)
        return cls(b"".join(rows), array("q", list(accumulate(map(len, rows), initial=0))))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, at: int, /) -> bytes: ...
    @overload
    def __getitem__(self, at: slice, /) -> list[bytes]: ...
    def __getitem__(self, at: int | slice, /) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        i = range(len(self))[at]
        return bytes(self.data[int(self.offsets[i]) : int(self.offsets[i + 1])])

    def __iter__(self) -> Iterator[bytes]:
        with memoryview(self.data) as view:
            for start, end in pairwise(self.offsets.tolist()):
                yield bytes(view[start:end])

    def tolist(self) -> list[bytes]:
        """The items as a list of bytes."""
        return list(self)

    def padded(self) -> Any:
        """
        The items as a NumPy array of ``S``, as wide as the longest.

        Raises:
            ImportError: NumPy is not installed.

        Zeros at the end of an item are lost.
        """
        np = numpy()
        offsets = np.asarray(self.offsets)
        data = np.frombuffer(self.data, "u1") if len(self.data) else np.zeros(0, "u1")
        lengths = np.diff(offsets)
        width = max(1, int(lengths.max(initial=0)))
        rows = np.zeros((len(self), width), "u1")
        rows[np.arange(width) < lengths[:, None]] = data[int(offsets[0]) : int(offsets[-1])]
        return rows.view(f"S{width}")[:, 0]

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        """
        The items as an array of Arrow's, of the same memory; so ``pyarrow.array(packed)``.

        Raises:
            ValueError: The buffers contradict each other, or text is no UTF-8.
            ImportError: nanoarrow or NumPy is not installed.

        Its type is large_string where they are text, else large_binary.
        """
        from rowex.arrow import export_packed

        return export_packed(self)  # of what type it is, is for the taker to change

    def __repr__(self) -> str:
        return f"<rowex.Packed of {len(self)} items>"


class Items:
    """
    A batch of `scan_batches`: ``keys, values = items``; to Arrow a record batch of two columns, key and value.

    Attributes:
        keys: An array of NumPy's, or a `Packed`.
        values: Likewise.
    """

    __slots__ = ("keys", "values")

    def __init__(self, keys: Any, values: Any) -> None:
        """
        Name the columns, which are used as they are.

        Args:
            keys: An array of NumPy's, or a `Packed`.
            values: As many.
        """
        self.keys, self.values = keys, values

    def __iter__(self) -> Iterator[Any]:
        return iter((self.keys, self.values))

    def __repr__(self) -> str:
        return f"<rowex.Items: {len(self.keys)}>"

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        """
        The items as a struct array of Arrow's, of the same memory; so ``pyarrow.record_batch(items)``.

        Raises:
            TypeError: A dtype that Arrow does not have.
            ValueError: Not as many values as keys; a `Packed` that Arrow would not take.
            ImportError: nanoarrow is not installed.
        """
        from rowex.arrow import export_items

        return export_items(self.keys, self.values)


class Column:
    """
    What the core is told of a column.

    Attributes:
        pointer: A `struct rx_column *`.
        count: How many items.
    """

    __slots__ = ("_held", "count", "pointer")

    def __init__(self, count: int, form: int, width: int, data: Any, *held: Any, **fields: Any) -> None:
        """
        Describe memory.

        Args:
            count: Items.
            form: One of the core's RX_F_.
            width: Bytes of an item; of an offset.
            data: Pointer to the first.
            *held: What keeps the memory alive, to be released from the first to the last.
            **fields: Others of the struct.
        """
        self.pointer = ffi.new("struct rx_column *", {"form": form, "width": width, "data": data, **fields})
        self.count, self._held = count, held

    def __enter__(self) -> Column:
        return self

    def __exit__(self, *_: object) -> None:
        """Give the buffers back, when nobody uses the pointer any more; also what an exception keeps alive of them."""
        held, self._held = self._held, ()
        for each in held:
            if isinstance(each, memoryview):
                each.release()
            elif isinstance(each, ffi.CData):
                ffi.release(each)


def packed_column(count: int, data: bytes, width: int, offsets: bytes | None) -> Column:
    """
    Of what `pack` gives.

    Args:
        count: Items.
        data: The bytes of all.
        width: Of each; 0: they differ.
        offsets: Where each begins, and the last ends, as int64, where they differ.

    Returns:
        The column, to be read.
    """
    pointer = ffi.from_buffer(data)
    if offsets is None:
        return Column(count, FIXED, width, pointer, pointer)
    offsets_pointer = ffi.from_buffer(offsets)
    return Column(count, OFFSETS, 8, pointer, pointer, offsets_pointer, offsets=offsets_pointer, capacity=len(data))


def is_column(data: object) -> bool:
    """Whether `get_many` and `put_many` take *data* as a column, rather than as a collection of objects."""
    if is_arrow(data):
        return True
    if isinstance(data, (list, tuple, bytes, bytearray, str, dict)):
        return False
    try:
        memoryview(data).release()  # type: ignore[arg-type] # whether it may is the question
    except TypeError:
        return _is_time(data)
    except ValueError:
        pass  # a buffer, if one that nobody can describe
    return True


def _is_time(data: Any) -> bool:
    return getattr(getattr(data, "dtype", None), "kind", "") in tuple("mM")


def _refuse(what: str, why: str) -> NoReturn:
    raise TypeError(f"{what} as an array: {why}")


def _view(data: Any, what: str) -> memoryview:
    """The buffer of *data*, which is contiguous and has items of one size."""
    if _is_time(data):
        data = data.view(f"{data.dtype.byteorder}i8".replace("|", "="))
    try:
        view = memoryview(data)
    except (TypeError, ValueError) as error:
        _refuse(what, f"{type(data).__name__} is no buffer that can be read ({error})")
    rows = view.ndim == 2 and view.format == "B"
    if view.ndim != 1 and not rows:
        raise ValueError(f"{what} have {view.ndim} dimensions; expected one, or two of uint8, whose rows are the items")
    if not view.c_contiguous:
        raise ValueError(f"{what} are not contiguous in memory; numpy.ascontiguousarray() makes a copy that is")
    return view


def _number_form(view: memoryview) -> int | None:
    kind = (view.format or "B")[-1]
    if view.ndim == 2 or kind not in _INTEGERS or len((view.format or "B").lstrip("@=<>!")) != 1:
        return None
    return SIGNED if kind.islower() else UNSIGNED


def input_column(data: Any, what: str, codec: int) -> Column:
    """
    A column to be read.

    Args:
        data: A buffer, or a `Packed`.
        what: "keys" or "values".
        codec: As the file stores it.

    Returns:
        The column; it keeps the buffer exported.

    Raises:
        TypeError: Items of a type that the codec does not take.
        ValueError: A shape or layout that is none.
    """
    if codec not in (BYTES, INT):
        _refuse(what, "only an index of bytes or int takes them; `raw` is the index of bytes below")
    elif isinstance(data, Packed) and codec == INT:
        _refuse(what, "this index takes integers; `raw` takes the bytes of them")
    if isinstance(data, Packed):
        return _packed_column(data, what)
    view = _view(data, what)
    form, text = _number_form(view), (view.format or "B").lstrip("@=<>!")
    if codec == INT and form is None:
        _refuse(what, f"expected integers, not items of format {view.format!r}")
    if holds_objects(view.format) or (text[-1] == "w" and not text.startswith("T")):
        _refuse(what, "neither objects nor str can be stored; numpy.char.encode() makes bytes of str")
    if form is None or (codec == BYTES and what == "values"):
        form = PADDED if text[-1] == "s" and view.ndim == 1 and not text.startswith("T") else FIXED
        if form == FIXED and what == "keys" and view.ndim == 1 and text[-1] != "x":
            _refuse(what, f"expected integers, S, or rows of uint8, not items of format {view.format!r}")
    shape = view.shape or ()
    width = shape[1] if len(shape) == 2 else view.itemsize
    pointer = ffi.from_buffer(view)
    swapped = (view.format or "B")[0] in _SWAPPED and view.itemsize > 1
    return Column(shape[0], form, width, pointer, pointer, view, plain=codec == BYTES, swapped=swapped)


def _packed_column(data: Packed, what: str) -> Column:
    bytes_view, offsets = _view(data.data, what), _view(data.offsets, f"offsets of {what}")
    if bytes_view.ndim != 1 or bytes_view.itemsize != 1:
        _refuse(what, "the data of a Packed are bytes")
    if (offsets.format or "B").lstrip("@=<") not in tuple("ilq") or offsets.itemsize not in (4, 8):
        _refuse(what, f"the offsets of a Packed are int64 or int32, not of format {offsets.format!r}")
    if len(offsets) == 0:
        raise ValueError(f"{what}: a Packed has one offset more than items, hence at least one")
    data_pointer, offsets_pointer = ffi.from_buffer(bytes_view), ffi.from_buffer(offsets)
    held = (data_pointer, offsets_pointer, bytes_view, offsets)
    return Column(
        len(offsets) - 1,
        OFFSETS,
        offsets.itemsize,
        data_pointer,
        *held,
        offsets=offsets_pointer,
        capacity=bytes_view.nbytes,
    )


def output_column(count: int, dtype: Any, what: str, codec: int) -> tuple[Any, Column]:
    """
    A new NumPy array, and the column that fills it.

    Args:
        count: Items.
        dtype: What `numpy.dtype` takes, of a fixed size.
        what: "keys" or "values".
        codec: As the file stores it.

    Returns:
        The array, of zeros, and the column.

    Raises:
        TypeError: A dtype that the codec does not give.
        ImportError: NumPy is not installed.
    """
    np = numpy()
    kind = np.dtype(dtype)
    integer = kind.kind in "iu" and kind.shape == ()
    if codec not in (BYTES, INT):
        _refuse(what, "only an index of bytes or int gives them; `raw` is the index of bytes below")
    if kind.hasobject or kind.kind == "U" or kind.itemsize == 0 or (codec == INT and not integer):
        wanted = "integers" if codec == INT else "items of a fixed size, no str and no objects"
        _refuse(what, f"expected {wanted}, not {kind}")
    if codec == INT or (what == "keys" and integer):
        form = SIGNED if kind.kind == "i" else UNSIGNED
    else:
        form = PADDED if kind.kind == "S" else FIXED
        if what == "keys" and kind.kind not in "SV":
            _refuse(what, f"expected integers, S, V or rows of uint8, not {kind}")
    made = np.zeros(count, kind)
    pointer = ffi.cast("void *", int(made.__array_interface__["data"][0]))
    swapped = integer and not kind.isnative
    return made, Column(count, form, kind.itemsize, pointer, made, plain=codec == BYTES, swapped=swapped)


def is_text(dtype: Any) -> bool:
    """Whether *dtype* is ``S``, as wide as the longest item."""
    return dtype is bytes or (isinstance(dtype, str) and dtype == "S")


def checked(column: Column, first: int, last: int) -> bool:
    """
    Look at items [first, last) of a column.

    Args:
        column: To be read.
        first: The first of them.
        last: Behind the last.

    Returns:
        Whether each is greater than the one before it.

    Raises:
        ValueError: An item that cannot be stored.
    """
    ascending = ffi.new("int *")
    whole = True
    for start in range(first, last, 1 << 20):
        end = min(start + (1 << 20), last)
        code = lib.rx_column_check(column.pointer, start, end, ascending)
        if code < 0:
            raise_result(code)
        whole = whole and bool(ascending[0])
    return whole
