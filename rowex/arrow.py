"""
Arrow's arrays as columns, by way of nanoarrow and Arrow's C data interface: nothing is copied.

Whatever has ``__arrow_c_array__`` is taken (arrays and record batches of pyarrow and nanoarrow); what
only streams is not, for it may lie in many chunks.  The other way, `Packed` and `Items` have
``__arrow_c_array__``; what is an array of NumPy's is taken by Arrow's libraries as it is.
"""

from __future__ import annotations

from array import array
from importlib import import_module
from typing import Any, NoReturn

from rowex._native import ffi
from rowex.codecs import Codec
from rowex.columns import BYTES, FIXED, Column, Packed, input_column, numpy

__all__ = ["arrow_column", "arrow_table", "export_items", "export_packed"]

_NUMBERS = tuple("cCsSiIlLefg")
_TIMES = ("td", "tt", "ts", "tD")
_DTYPES = {"i": "int{}", "u": "uint{}", "f": "float{}"}  # of NumPy's kinds, by bits
_TEXTS, _BINARIES = ("u", "U"), ("z", "Z")


def _nanoarrow() -> Any:
    try:
        return import_module("nanoarrow")
    except ImportError:
        raise ImportError('arrays of Arrow need nanoarrow: pip install "rowex[arrow]"', name="nanoarrow") from None


def _array_of(data: Any, what: str) -> Any:
    """The `nanoarrow.c_array` of *data*, whose buffers are as large as it says."""
    na = _nanoarrow()
    try:
        found = na.c_array(data)
        found.view()
    except RuntimeError as error:  # nanoarrow's own class
        raise ValueError(f"{what}: no array of Arrow's that can be read ({error})") from error
    return found


def arrow_table(table: Any) -> tuple[Any, Any]:
    """
    The two columns of a record batch.

    Args:
        table: What has Arrow's C data interface.

    Returns:
        The keys and the values, each an array of Arrow's.

    Raises:
        TypeError: It has not two columns.
        ValueError: Whole rows are missing.
        ImportError: nanoarrow is not installed.
    """
    if isinstance(table, Packed):
        raise TypeError("a Packed is one column, of keys; the values are missing")
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
    held = memoryview(found.view().buffer(0)).cast("B")  # empty where there is no such buffer
    present = (int.from_bytes(held, "little") >> found.offset & (1 << len(found)) - 1).bit_count()
    if len(held) and present < len(found):
        raise ValueError(f"{what} have {len(found) - present} nulls, which an index cannot hold; drop them first")


def _refuse(what: str, form: str, wanted: str) -> NoReturn:
    raise TypeError(f"{what} of Arrow's format {form!r}: expected {wanted}")


def _check_utf8(data: memoryview, offsets: Any, what: str) -> None:
    """Whoever made the array may have put anything into it; what lies outside of *data* is found later."""
    at = numpy().asarray(offsets)
    try:
        str(data[max(0, int(at[0])) : int(at[-1])], "utf-8")
        inside = at[(at >= 0) & (at < min(len(data), int(at[-1])))]
        whole = not (numpy().frombuffer(data, "u1")[inside] >> 6 == 0b10).any() if len(data) else True
    except UnicodeDecodeError:
        whole = False
    if not whole:
        raise ValueError(f"{what} are said to be strings, but are no UTF-8")


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
        ValueError: Nulls, strings that are no UTF-8, or no array that can be read.
        ImportError: nanoarrow is not installed.
    """
    found = _array_of(data, what)
    form: str = found.schema.format
    number, text = form in _NUMBERS or form.startswith(_TIMES), form in _TEXTS
    if found.dictionary is not None:
        _refuse(what, found.dictionary.schema.format, "the items themselves, not a dictionary; decode it first")
    if codec.name not in ("str", "bytes", "int"):
        _refuse(what, form, "an index of str, bytes or int; `raw` is the index of bytes below")
    if codec.name == "str" and not text:
        _refuse(what, form, "strings; cast() them first")
    if codec.name == "int" and not number:
        _refuse(what, form, "integers; cast() them first")
    if not (number or text or form in _BINARIES or form.startswith("w:")):
        kinds = "integers, strings or binary" if what == "keys" else "numbers, strings or binary"
        _refuse(what, form, f"{kinds}; cast() them first")
    _forbid_nulls(found, what)
    start, count, view = found.offset, len(found), found.view()
    if number:
        return input_column(memoryview(view.buffer(1))[start : start + count], what, codec.code)
    if text or form in _BINARIES:
        offsets = memoryview(view.buffer(1))[start : start + count + 1] if count else array("q", [0])
        data = memoryview(view.buffer(2)).cast("B")
        if codec.name == "str":
            _check_utf8(data, offsets, what)
        return input_column(Packed(data, offsets), what, BYTES)
    width, held = int(form[2:]), memoryview(view.buffer(1))
    pointer = ffi.from_buffer(held)
    return Column(count, FIXED, width, ffi.cast("char *", pointer) + start * width, pointer, held, plain=True)


def export_packed(packed: Packed) -> Any:
    """
    What `Packed.__arrow_c_array__` gives: an array of strings or of binary, with nulls where nothing is.

    Args:
        packed: Its buffers are not copied, where the offsets are int64.

    Returns:
        Two capsules: a schema and an array.

    Raises:
        ValueError: Its buffers contradict each other, or text is no UTF-8.
        ImportError: nanoarrow or NumPy is not installed.
    """
    na, np = _nanoarrow(), numpy()
    offsets = np.ascontiguousarray(packed.offsets, "i8")
    if offsets[0] < 0 or offsets[-1] > len(packed.data) or (np.diff(offsets) < 0).any():
        raise ValueError("the offsets of this Packed do not ascend within its data")
    bits, nulls = None, 0
    if packed.valid is not None:
        valid = np.asarray(packed.valid, "?")
        if valid.shape != (len(packed),):
            raise ValueError(f"this Packed has {len(packed)} items, and its valid is of shape {valid.shape}")
        bits, nulls = np.packbits(valid, bitorder="little"), len(packed) - int(np.count_nonzero(valid))
    kind = na.large_string() if packed.text else na.large_binary()
    if packed.text:
        _check_utf8(memoryview(packed.data).cast("B"), offsets, "the items of this Packed")
    made = na.c_array_from_buffers(kind, len(packed), [bits, offsets, packed.data], null_count=nulls)
    return made.__arrow_c_array__()


def _export_dtype(na: Any, side: Any, what: str) -> Any:
    dtype = side.dtype
    if dtype.kind == "V" and not dtype.names and dtype.subdtype is None and dtype.itemsize:
        kind = na.fixed_size_binary(dtype.itemsize)
    elif dtype.kind in _DTYPES and dtype.itemsize <= 8 and dtype.isnative:
        kind = getattr(na, _DTYPES[dtype.kind].format(8 * dtype.itemsize))()
    else:
        raise TypeError(f"{what} of dtype {dtype} are no array of Arrow's; use another dtype, or none for a Packed")
    if side.ndim != 1:
        raise TypeError(f"{what} of dtype {dtype} and {side.ndim} dimensions are no array of Arrow's")
    return na.c_array_from_buffers(kind, len(side), [None, numpy().ascontiguousarray(side).view("u1")])


def export_items(keys: Any, values: Any) -> Any:
    """
    What `Items.__arrow_c_array__` gives: an array of structs of a key and a value.

    Args:
        keys: An array of NumPy's or a Packed, which is not copied; or what has Arrow's C data interface.
        values: Likewise; as many.

    Returns:
        Two capsules: a schema and an array.

    Raises:
        TypeError: A dtype that Arrow does not have.
        ValueError: Not as many values as keys; or as `export_packed`.
        ImportError: nanoarrow is not installed.
    """
    na, sides = _nanoarrow(), {}
    for name, side in (("key", keys), ("value", values)):
        sides[name] = _export_dtype(na, side, f"{name}s") if hasattr(side, "dtype") else na.c_array(side)
    if len(sides["key"]) != len(sides["value"]):
        raise ValueError(f"there are {len(sides['key'])} keys and {len(sides['value'])} values")
    kind = na.struct({name: side.schema for name, side in sides.items()})
    made = na.c_array_from_buffers(kind, len(sides["key"]), [None], children=sides.values())
    return made.__arrow_c_array__()
