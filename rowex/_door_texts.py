"""
What `help()` says of the frequent calls: one text for both doors, `_hot` and `_slow`.
"""

from __future__ import annotations

__all__ = ["TEXTS"]

TEXTS: dict[str, str] = {
    "get": """\
The value of a key, or a default where it is absent.

Args:
    key: Any contiguous buffer, an empty one too.
    default: Returned where the key is absent, as it is.

Returns:
    The value, as new bytes; or *default*.

Raises:
    TypeError: The key is no contiguous buffer.
    CorruptionError: A node on the way is damaged.
    OSError: A page of the file could not be read.
    ClosedError: The index is closed.

Atomic: the value is one that the key had at an instant during the call, whoever changes it.  Never
waits for writers.  It need not be durable yet: wait for `position` where that counts.  Cost: O(bytes).
""",
    "lookup": """\
The value of a key; KeyError where it is absent.

Args:
    key: Any contiguous buffer, an empty one too.

Returns:
    The value, as new bytes.

Raises:
    KeyError: The key is absent.
    TypeError: The key is no contiguous buffer.
    CorruptionError: A node on the way is damaged.
    OSError: A page of the file could not be read.
    ClosedError: The index is closed.

As `index[key]`; otherwise as `get`.
""",
    "exists": """\
Whether a key is present; no value is read.

Args:
    key: Any contiguous buffer, an empty one too.

Returns:
    True or False.

Raises:
    TypeError: The key is no contiguous buffer.
    CorruptionError: A node on the way is damaged.
    OSError: A page of the file could not be read.
    ClosedError: The index is closed.

As `key in index`; otherwise as `get`.
""",
    "put": """\
Store a value under a key, replacing what was there.

Args:
    key: Any contiguous buffer of up to 1 MiB, an empty one too.
    value: Any contiguous buffer of up to 256 GiB, an empty one too.
    timeout: Seconds to wait for others in all, >= 0; None: as long as it takes.
    durable: Whether to wait until the change would survive the loss of power, also where the index
        was not opened with durability="commit".

Returns:
    The durability ticket of the change, for `wait_durable`; 0 for a file without a log.

Raises:
    TypeError: The key or the value is no contiguous buffer; nothing was changed.
    ValueError: One of them is too long, or *timeout* is below 0; nothing was changed.
    TimeoutError: Others held what it needs: nothing was changed.  Or the change was to be durable,
        and is not yet: it is made, and visible.
    DiskFullError: No room; nothing was changed.
    DurabilityError: The change was to be durable, and the log could not be written, or there is none.
    ReadOnlyError: The index may only be read.
    CorruptionError: A node on the way is damaged; nothing was changed.
    OSError: A page of the file could not be read or written.
    ClosedError: The index is closed.

Atomic: every thread and process sees the old value or the new one, and from the return on the new one.
It survives the death of any process at once, and the loss of power when its ticket is durable: here
with "commit" or *durable*, else within the flush interval.  Ctrl-C is answered while it waits.
""",
    "insert": """\
Store a value under a key that is absent.

Args:
    key: Any contiguous buffer of up to 1 MiB, an empty one too.
    value: Any contiguous buffer of up to 256 GiB, an empty one too.
    timeout: Seconds to wait for others in all, >= 0; None: as long as it takes.
    durable: As for `put`.

Returns:
    The durability ticket of the change, for `wait_durable`; 0 for a file without a log.

Raises:
    DuplicateKeyError: The key is present (a KeyError); nothing was changed.
    Exception: As `put`.

Atomic: of several that insert a key at once, one does; otherwise as `put`.
""",
    "remove": """\
Remove a key; KeyError where it is absent.

Args:
    key: Any contiguous buffer.
    timeout: Seconds to wait for others in all, >= 0; None: as long as it takes.

Returns:
    The durability ticket of the change, for `wait_durable`; 0 for a file without a log.

Raises:
    KeyError: The key is absent.
    TypeError: The key is no contiguous buffer.
    ValueError: *timeout* is below 0.
    TimeoutError: Others held what it needs: nothing was changed.  Or the index was opened with
        durability="commit", and the removal is made, and visible, but not durable yet.
    DiskFullError: No room to take the key out, for which some is kept; nothing was changed.
    DurabilityError: As for `put`.
    ReadOnlyError: The index may only be read.
    CorruptionError: A node on the way is damaged; nothing was changed.
    OSError: A page of the file could not be read or written.
    ClosedError: The index is closed.

Atomic: of several that remove a key at once, one does.  Visible and durable as with `put`.
""",
    "discard": """\
Remove a key if it is present.

Args:
    key: Any contiguous buffer.
    timeout: Seconds to wait for others in all, >= 0; None: as long as it takes.

Returns:
    Whether it was present, and this call has removed it.

Raises:
    Exception: As `remove`, but for the KeyError.

Atomic, visible and durable as with `remove`.
""",
    "get_many": """\
The values of many keys; the loop is in the core.

Args:
    keys: An iterable of contiguous buffers, or a column: a NumPy array, another buffer of one
        dimension, a `Packed`, or an array of Arrow's.  Order and repeats are kept.
    default: Stands in for the value of each absent key.
    dtype: Of the values, as NumPy takes it, or `Packed`; None: a list of bytes.

Returns:
    A list as long as *keys*, of new bytes and *default*.  With a dtype (values, found): an array of it,
    with *default* or zeros for absent keys, and an array of bool that says which are present.

Raises:
    TypeError: A key, or a dtype, that the index does not take.
    ValueError: With columns: a key that cannot be stored, or a value that does not fit the dtype.
    ImportError: A dtype was given, and NumPy is not installed; or an array of Arrow's without nanoarrow.
    Exception: As `get`.

Each value is read as by `get`, side by side and in no order: together they are no snapshot.
Ctrl-C is answered on the way.
""",
    "put_many": """\
Store many items; the loop is in the core.

Args:
    items: A mapping, or an iterable of pairs (key, value), as `put` takes them; a record batch of
        Arrow's with two columns; or the keys.
    values: As many values as keys, in order; each side a list or a column (a NumPy array, another
        buffer of one dimension, a `Packed`, an array of Arrow's).  None: *items* has both.
    timeout: Seconds to wait for others in all, >= 0; None: as long as it takes.

Returns:
    The durability ticket of the last change; 0 where nothing was put, or for a file without a log.

Raises:
    TypeError: An item that the index does not take.
    ValueError: An item that is no pair or too long, or not as many values as keys.
    Exception: As `put`, or what *items* raises.

Each put is atomic, visible and durable as `put` makes it; the whole is not: when it raises, the pairs
before the error are put.  Of equal keys the last counts.  Columns are looked at first: what of theirs
cannot be stored is an error before anything is changed, but for one that is too long.  Where the index
was opened with durability="commit", it is waited for once, for all.  Ctrl-C is answered on the way.
""",
    "scan": """\
The items with start <= key < stop, in key order.

Args:
    start: The smallest key, a contiguous buffer; None: no bound.
    stop: The first key that is too great; None: no bound.
    prefix: Only keys that begin with it; None: all.  Together with bounds, both hold.
    reverse: From the greatest key to the smallest; the bounds mean the same.
    limit: At most so many items, >= 0; None: all.

Returns:
    An iterator of (key, value), each new bytes.  It serves one thread at a time.

Raises:
    TypeError: A bound is no contiguous buffer, or *limit* no int.
    ValueError: *limit* is below 0.
    CorruptionError: While iterating: a node on the way is damaged.
    OSError: While iterating: a page of the file could not be read.
    ClosedError: The index is closed, also while iterating.

Each key at most once.  Weak, no snapshot: what is present all the time is given, what is absent all the
time is not, what comes or goes meanwhile may be.  The index may be changed while iterating; between two
batches of items the scan holds nothing up, however long it stands.
""",
}
