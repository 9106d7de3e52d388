#!/usr/bin/env python3
"""
A small trio program that answers look-ups while it loads, and survives Ctrl-C.

    python docs/aio_example.py words.rowex 200000 [--port 7070]

It loads that many words into the index, in batches that are durable one by one, and meanwhile
serves a line protocol on the port: a word a line in, its definition or "?" out.  Ctrl-C ends it
between two batches; begun anew it goes on where it was.  Try: `echo word-17 | nc localhost 7070`.
"""

from __future__ import annotations

import argparse
from functools import partial

import trio
from tqdm import tqdm

import rowex.aio

BATCH = 500
LOADED = "loaded"  # a key: how many words are in


async def load(index: rowex.aio.Index[str, str], count: int) -> None:
    """Words and how far we are change in one batch, so nothing is loaded twice or left out."""
    begun = int(await index.get(LOADED, "0"))
    with tqdm(total=count, initial=begun, unit=" words", mininterval=0.5) as progress:
        for first in range(begun, count, BATCH):
            upto = min(first + BATCH, count)
            async with index.batch(durable=True) as batch:
                for number in range(first, upto):
                    batch.put(f"word-{number}", f"the {number}th word")
                batch.put(LOADED, str(upto))
            progress.update(upto - first)


async def answer(service: rowex.aio.Service[str, str], stream: trio.SocketStream) -> None:
    """One client: a word a line."""
    with trio.move_on_after(600):
        received = b""
        async for data in stream:
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                try:
                    found = await service.lookup(line.decode().strip())
                except KeyError:
                    found = "?"
                await stream.send_all(found.encode() + b"\n")


async def main(path: str, count: int, port: int) -> None:
    """Load and serve at once; when all is loaded, go on serving."""
    async with rowex.aio.serve(path, keys="str", values="str") as service, trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, partial(answer, service), port, host="127.0.0.1")
        listeners = await nursery.start(serve)
        print(f"serving on port {listeners[0].socket.getsockname()[1]}", flush=True)
        await load(service.index, count)
        print(f"loaded {count} words", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("count", type=int)
    parser.add_argument("--port", type=int, default=7070, help="0: any that is free")
    arguments = parser.parse_args()
    try:
        trio.run(main, arguments.path, arguments.count, arguments.port, strict_exception_groups=False)
    except KeyboardInterrupt:
        print("interrupted; begin it anew to go on", flush=True)
