"""
The example in docs/: it serves while it loads, and goes on after Ctrl-C.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import rowex
from conftest import cannot_run

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "aio_example.py"


@contextmanager
def running(path: Path, count: int) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """The example, and a connection to it."""
    command = [sys.executable, str(EXAMPLE), str(path), str(count), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("serving on port"), process.communicate(timeout=30)
            with socket.create_connection(("127.0.0.1", int(first.split()[-1])), timeout=30) as connection:
                yield process, connection
        finally:
            process.kill()


def ask(connection: socket.socket, word: str) -> str:
    """One question, one answer."""
    connection.sendall(word.encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        data = connection.recv(4096)
        assert data, "it hung up"
        answer += data
    return answer.decode().strip()


@pytest.mark.limit(180)
def test_example_serves_while_it_loads_and_goes_on_after_an_interruption(path: Path) -> None:
    """Interrupted in the middle of loading: no word is missing below the mark, and the next run ends the work."""
    if not EXAMPLE.exists():
        cannot_run("the documents are not beside the tests")
    with running(path, 10_000_000) as (process, connection):
        assert ask(connection, "no such word") == "?"
        while ask(connection, "word-2000") == "?":
            pass
        assert ask(connection, "word-7") == "the 7th word"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, "interrupted" in out) == (0, True), (out, err)
    with rowex.open(path) as index:
        loaded = int(index["loaded"])
        assert 2000 < loaded < 10_000_000
        assert len(index) == loaded + 1
        assert all(index.exists(f"word-{number}") for number in range(loaded))
        index.check()
    with running(path, loaded + 1234) as (process, connection):
        assert process.stdout is not None
        assert process.stdout.readline() == f"loaded {loaded + 1234} words\n"
        assert ask(connection, f"word-{loaded + 1233}") == f"the {loaded + 1233}th word"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
