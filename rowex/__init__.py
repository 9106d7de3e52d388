"""
Rowex: an embedded, ordered key-value index in one memory-mapped file.

::

    import rowex

    with rowex.open("users.rowex") as index:
        index[b"alice"] = b"1"
        for key, value in index.scan(prefix=b"a"):
            ...

Any number of threads and processes may use a file at once.  Readers never wait for writers, and a
process may be killed at any instant.

A change that raises was not made, unless the exception has the attribute `ticket`: then it is visible, but
not known to be durable, because the wait for that (`durability="commit"`, `durable=True`) took longer than
its timeout, was interrupted, or failed.  `wait_durable` goes on with the ticket.  What the call would have
returned and the ticket does not tell (of `pop`, `popitem`, `setdefault`: a value) is the attribute `result`.

Public are the names in `__all__`, here and in `rowex.aio`, and what their objects have without an
underscore; the other modules are the package's own.
"""

from __future__ import annotations

from rowex import _door, events
from rowex.batch import Batch
from rowex.coded import CodedIndex, CodedSession
from rowex.columns import Items, Packed
from rowex.errors import (
    ClosedError,
    CorruptionError,
    DiskFullError,
    DuplicateKeyError,
    DurabilityError,
    FormatError,
    ReadOnlyError,
    RowexError,
)
from rowex.files import copy, destroy, rename, salvage
from rowex.index import Index, Reader, Writer
from rowex.loading import build
from rowex.opening import memory, open
from rowex.results import CheckReport, Info, Salvaged, Stats, UidInfo

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "CheckReport",
    "ClosedError",
    "CodedIndex",
    "CodedSession",
    "CorruptionError",
    "DiskFullError",
    "DuplicateKeyError",
    "DurabilityError",
    "FormatError",
    "Index",
    "Info",
    "Items",
    "Packed",
    "ReadOnlyError",
    "Reader",
    "RowexError",
    "Salvaged",
    "Stats",
    "UidInfo",
    "Writer",
    "__version__",
    "build",
    "copy",
    "destroy",
    "door",
    "memory",
    "open",
    "rename",
    "salvage",
]

door: str = _door.name

events.install()
