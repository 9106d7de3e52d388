"""
One process of the tour: `python -m rowex.cli.tour_worker JOB` with the job as JSON.

It opens the index, says that it is ready, waits for a byte on stdin, works, and ends without closing
anything.  What it has done it reports on stdout, in records of tour_data.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sys
import traceback
from typing import Any, NoReturn

import rowex
from rowex.cli.tour_data import DONE, READY, RECORD, make_keys, make_value, rewritten_by, share_of, version_of

__all__ = ["main"]

_ROUND = 1000
_SCAN_KEYS = 40


# A handle that nobody refers to is closed; these are to stay open until the process has ended.
_open: list[Any] = []


def _keep(index: Any) -> Any:
    _open.append(index)
    return index


def _say(number: int, detail: int) -> None:
    os.write(1, RECORD.pack(number, detail))  # at most PIPE_BUF bytes: whole or not at all


def _wait_for_go() -> None:
    _say(READY, 0)
    if not os.read(0, 1):
        os._exit(1)  # whoever started us is gone


def _write(job: dict[str, Any]) -> None:
    keys = make_keys(job["seed"], job["keys"])
    share = share_of(job["keys"], job["writers"], job["writer"])
    index = _keep(rowex.open(job["path"], "c", capacity=job["capacity"]))
    _wait_for_go()
    first = job["first"]
    if first is None:  # a stand-in learns only now where to go on
        first = int.from_bytes(os.read(0, 8), "little")
    for step in range(first, len(share)):
        number = share[step]
        index.put(keys[number], make_value(keys[number], 0))
        _say(number, 0)
        again = rewritten_by(step)
        if again is not None:
            number = share[again]
            index.put(keys[number], make_value(keys[number], 1))
            _say(number, 1)
    _say(DONE, 0)


def _check_scan(index: rowex.Index, start: bytes) -> None:
    last = None
    for key, value in index.scan(start, limit=_SCAN_KEYS):
        if version_of(key, value) < 0 or key < start or (last is not None and key <= last):
            raise AssertionError(f"a scan from {start!r} yields {key!r}: {value!r} after {last!r}")
        last = key


def _read(job: dict[str, Any]) -> NoReturn:
    """
    Look keys up for ever.  A key once seen must stay, and its version must never go back.
    """
    keys = make_keys(job["seed"], job["keys"])
    rng = random.Random(job["seed"] * 1000 + job["reader"])
    seen = [-1] * len(keys)
    index = _keep(rowex.open(job["path"], "r"))
    _wait_for_go()
    while True:
        hits = 0
        for _ in range(_ROUND):
            number = int(rng.random() * len(keys))
            value = index.get(keys[number])
            version = -1 if value is None else version_of(keys[number], value)
            if version < seen[number] or (value is not None and version < 0):
                raise AssertionError(f"{keys[number]!r} was seen in version {seen[number]}, now it is {value!r}")
            seen[number] = version
            hits += value is not None
        _check_scan(index, keys[int(rng.random() * len(keys))])
        _say(_ROUND, hits)


def _stats(job: dict[str, Any]) -> None:
    index = _keep(rowex.open(job["path"], "r"))
    index.stats()  # this meets the dead, and has what they held taken over; the next one counts that
    os.write(1, json.dumps(dataclasses.asdict(index.stats())).encode())


_JOBS = {"write": _write, "read": _read, "stats": _stats}


def main() -> NoReturn:
    """
    Do the job named on the command line.

    The process ends by `os._exit`, so that no handle is closed: status 0 done, 1 not.
    """
    status = 1
    try:
        job = json.loads(sys.argv[1])
        _JOBS[job["work"]](job)
        status = 0
    except (BrokenPipeError, KeyboardInterrupt):
        pass  # whoever started us is gone, or is about to end us
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
