"""
Rowex for async programs, on trio and asyncio, by way of anyio.

::

    import rowex.aio

    async with rowex.aio.open("users.rowex") as index:
        ticket = await index.put(b"alice", b"1")
        await index.wait_durable(ticket)
        async for key, value in index.scan(prefix=b"a"):
            ...

What need not wait is done at once on the loop; what would wait goes to a worker thread.  `serve` is
the same in the form of commands, with readers and writers of its own.
"""

from __future__ import annotations

try:
    import anyio as _anyio  # noqa: F401 - only to say what is missing
except ModuleNotFoundError as error:
    if error.name != "anyio":
        raise
    raise ModuleNotFoundError(
        "rowex.aio needs anyio, which is not installed: pip install 'rowex[aio]'", name="anyio"
    ) from None

from rowex.aio.batches import Batch
from rowex.aio.commands import Command
from rowex.aio.index import Index, Opening
from rowex.aio.opening import Serving, open, serve
from rowex.aio.scanning import Scan
from rowex.aio.service import Service

__all__ = ["Batch", "Command", "Index", "Opening", "Scan", "Service", "Serving", "open", "serve"]
