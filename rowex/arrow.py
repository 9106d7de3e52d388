"""
Arrow's arrays as columns, by way of nanoarrow and Arrow's C data interface: nothing is copied.

Whatever has ``__arrow_c_array__`` (pyarrow, nanoarrow) or ``__arrow_c_stream__`` with one chunk
(polars, tables) is taken.  The other way, `Packed` has ``__arrow_c_array__``; what is an array of
NumPy's is taken by Arrow's libraries as it is.
"""

from __future__ import annotations

from array import array
from importlib import import_module
from typing import Any, NoReturn

from rowex._native import ffi
from rowex.codecs import Codec
from rowex.columns import BYTES, FIXED, Column, Packed, input_column, numpy

__all__ = ["arrow_column", "arrow_table", "export_packed"]

_NUMBERS = tuple("cCsSiIlLefg")
_TIMES = ("td", "tt", "ts", "tD")
_TEXTS, _BINARIES = ("u", "U"), ("z", "Z")


def _nanoarrow() -> Any:
    try:
        return import_module("nanoarrow")
    except ImportError:
        raise ImportError('arrays of Arrow need nanoarrow: pip install "rowex[arrow]"', name="nanoarrow") from None


def _array_of(data: Any, what: str) -> Any:
    """The `nanoarrow.c_array` of *data*."""
    na = _nanoarrow()
    if hasattr(data, "__arrow_c_array__"):
        return na.c_array(data)
    chunks = list(na.c_array_stream(data))
    if len(chunks) == 1:
        return chunks[0]
    raise ValueError(
        f"{what} lie in {len(chunks)} chunks of Arrow's; expected one: combine_chunks() of pyarrow and rechunk() of "
        "polars make it, or put one chunk after the other"
    )


def arrow_table(table: Any) -> tuple[Any, Any]:
    """
    The two columns of a record batch.

    Args:
        table: What has Arrow's C data interface.

    Returns:
        The keys and the values, each an array of Arrow's.

    Raises:
        TypeError: It has not two columns.
        ValueError: It lies in several chunks, or whole rows are missing.
        ImportError: nanoarrow is not installed.
    """
    found = _array_of(table, "items")
    if found.schema.format != "+s" or found.n_children != 2:
        kind = f"{found.n_children} columns" if found.schema.format == "+s" else f"format {found.schema.format!r}"
        raise TypeError(f"items of Arrow have two columns, keys and values, not {kind}")
    _forbid_nulls(found, "items")
    keys, values = (child[found.offset : found.offset + len(found)] for child in found.children)
    return keys, values


def _forbid_nulls(found: Any, what: str) -> None:
    if found.null_count == 0:
        return
    bits = int.from_bytes(memoryview(found.view().buffer(0)).cast("B"), "little")
    present = (bits >> found.offset & (1 << len(found)) - 1).bit_count()
    if bits and present < len(found):
        raise ValueError(f"{what} have {len(found) - present} nulls, which an index cannot hold; drop them first")


def _refuse(what: str, form: str, wanted: str) -> NoReturn:
    raise TypeError(f"{what} of Arrow's format {form!r}: expected {wanted}; cast() them first")


def arrow_column(data: Any, what: str, codec: Codec[Any]) -> Column:
    """
    A column to be read.

    Args:
        data: What has Arrow's C data interface.
        what: "keys" or "values".
        codec: Of these.

    Returns:
        The column; it keeps the array.

    Raises:
        TypeError: Items of a type that the codec does not take.
        ValueError: Nulls, or several chunks.
        ImportError: nanoarrow is not installed.
    """
    found = _array_of(data, what)
    form: str = found.schema.format
    number = form in _NUMBERS or form.startswith(_TIMES)
    if found.dictionary is not None:
        _refuse(what, f"dictionary of {form}", "the items themselves")
    if codec.name not in ("str", "bytes", "int"):
        _refuse(what, form, "an index of str, bytes or int; `raw` is the index of bytes below")
    if codec.name == "str" and form not in _TEXTS:
        _refuse(what, form, "strings")
    if codec.name == "int" and not number:
        _refuse(what, form, "integers")
    if not number and form not in _TEXTS and form not in _BINARIES and not form.startswith("w:"):
        _refuse(what, form, "integers, strings or binary" + (", or numbers" if what == "values" else ""))
    _forbid_nulls(found, what)
    start, count, view = found.offset, len(found), found.view()
    if number:
        return input_column(memoryview(view.buffer(1))[start : start + count], what, codec.code)
    if form in _TEXTS or form in _BINARIES:
        offsets = memoryview(view.buffer(1))[start : start + count + 1] if count else array("q", [0])
        return input_column(Packed(memoryview(view.buffer(2)), offsets), what, BYTES)
    width, held = int(form[2:]), memoryview(view.buffer(1))
    pointer = ffi.from_buffer(held)
    return Column(count, FIXED, width, ffi.cast("char *", pointer) + start * width, pointer, held, plain=True)


def export_packed(packed: Packed, requested: Any) -> Any:
    """
    What `Packed.__arrow_c_array__` gives: an array of Arrow's type large_binary, with nulls where nothing is.

    Args:
        packed: Its buffers are not copied, where the offsets are int64.
        requested: As the interface says; a type that is not this one is the taker's to cast.

    Returns:
        Two capsules: a schema and an array.

    Raises:
        ImportError: nanoarrow or NumPy is not installed.
    """
    na, np = _nanoarrow(), numpy()
    offsets = np.ascontiguousarray(packed.offsets, "i8")
    bits, nulls = None, 0
    if packed.valid is not None:
        bits, nulls = np.packbits(packed.valid, bitorder="little"), len(packed) - int(np.count_nonzero(packed.valid))
    made = na.c_array_from_buffers(na.large_binary(), len(packed), [bits, offsets, packed.data], null_count=nulls)
    return made.__arrow_c_array__(requested_schema=requested)
