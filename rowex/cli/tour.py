"""
`rowex tour`: the main job, in a few seconds, on a temporary file.

Several processes write and read one small file at once.  One writer is killed with SIGKILL in the
middle, the file outgrows its capacity under all of them, and in the end nobody closes anything.
Then the file is reopened, and every key whose put had returned is looked for.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

import rowex
from rowex.cli.console import to_nowhere
from rowex.cli.tour_data import DONE, READY, RECORD, make_keys, share_of, version_of

__all__ = ["tour"]

CAPACITY_BYTES = 2 << 20
MIN_KEYS = 15_000  # fewer would fit into CAPACITY_BYTES
MIN_SHARE_KEYS = 2500  # fewer would be written before the kill arrives
LIMIT_S = 60.0
LIMIT_PER_KEY_S = 0.001


class TourError(Exception):
    """Something that the tour is there to show did not hold."""


@dataclasses.dataclass
class Worker:
    """
    A process and what it has reported so far.

    Attributes:
        name: For people.
        process: With pipes as stdin and stdout.
        share: Numbers of the keys that it writes; None for a reader.
        ready: It has opened the index.
        done: It has written its share.
        ended: Its stdout is at its end.
        steps: Keys of its share that it has acknowledged.
        puts: Acknowledged puts.
        lookups: Lookups.
        hits: Lookups that found a value.
        rest: Bytes of a record that is not complete.
    """

    name: str
    process: subprocess.Popen[bytes]
    share: range | None
    ready: bool = False
    done: bool = False
    ended: bool = False
    steps: int = 0
    puts: int = 0
    lookups: int = 0
    hits: int = 0
    rest: bytes = b""

    def send(self, data: bytes) -> None:
        """Write to its stdin, which has room for the little that it gets."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
        except BrokenPipeError:
            raise TourError(f"{self.name} failed before it had begun") from None


class Tour:
    """
    The processes of one tour and what they acknowledged.

    Attributes:
        path: Of the index.
        keys: The keys, by number.
        acked: By number: the highest version whose put returned, -1 for none.
        deadline: Of `time.monotonic()`.
    """

    def __init__(self, path: str, *, keys: int, writers: int, seed: int) -> None:
        self.path = path
        self.seed = seed
        self.writers = writers
        self.keys = make_keys(seed, keys)
        self.acked = [-1] * keys
        self.deadline = time.monotonic() + LIMIT_S + keys * LIMIT_PER_KEY_S
        self.workers: list[Worker] = []
        self._selector = selectors.DefaultSelector()

    def _spawn(self, work: str, **job: Any) -> subprocess.Popen[bytes]:
        folder = os.path.dirname(os.path.dirname(os.path.abspath(rowex.__file__)))
        search = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        job.update(work=work, path=self.path, seed=self.seed, keys=len(self.keys), writers=self.writers)
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "rowex.cli.tour_worker", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search},
            bufsize=0,
        )

    def _add(self, name: str, process: subprocess.Popen[bytes], share: range | None) -> Worker:
        worker = Worker(name, process, share)
        self.workers.append(worker)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def add_writer(self, number: int, *, stand_in: bool = False) -> Worker:
        """
        Start a process that writes.

        Args:
            number: Of the share that it writes.
            stand_in: Whether it is told later from which key on.

        Returns:
            The worker, not yet ready.
        """
        first = None if stand_in else 0
        process = self._spawn("write", writer=number, first=first, capacity=CAPACITY_BYTES)
        name = "the stand-in" if stand_in else f"writer {number + 1}"
        return self._add(name, process, share_of(len(self.keys), self.writers, number))

    def add_reader(self, number: int) -> Worker:
        """Start a process that reads; *number* tells the readers apart."""
        return self._add(f"reader {number + 1}", self._spawn("read", reader=number), None)

    def _note(self, worker: Worker, number: int, detail: int) -> None:
        if number == READY:
            worker.ready = True
        elif number == DONE:
            worker.done = True
        elif worker.share is None:
            worker.lookups += number
            worker.hits += detail
        else:
            self.acked[number] = max(self.acked[number], detail)
            worker.puts += 1
            worker.steps += detail == 0

    def _receive(self, worker: Worker) -> None:
        """Take all that a worker's pipe holds."""
        assert worker.process.stdout is not None
        while not worker.ended:
            try:
                data = os.read(worker.process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                return
            if not data:
                worker.ended = True
                self._selector.unregister(worker.process.stdout)
                return
            data = worker.rest + data
            whole = len(data) - len(data) % RECORD.size
            for number, detail in RECORD.iter_unpack(data[:whole]):
                self._note(worker, number, detail)
            worker.rest = data[whole:]

    def pump(self, *, but: Worker | None = None) -> None:
        """
        Wait for reports and take them.

        Args:
            but: A worker that may end; any other that ends before its work is done is a failure.

        Raises:
            TourError: A worker failed, or the time is over.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TourError("the time is over: something waits that should not")
        for event, _ in self._selector.select(left):
            worker: Worker = event.data
            self._receive(worker)
            if worker.ended and not worker.done and worker is not but:
                raise TourError(f"{worker.name} failed (status {worker.process.wait(5)})")

    def wait_ready(self, workers: list[Worker]) -> None:
        """Wait until all *workers* have opened the index."""
        while not all(worker.ready for worker in workers):
            self.pump()

    def kill(self, victim: Worker) -> None:
        """
        End a writer with SIGKILL while it works, and take what it had acknowledged.

        Args:
            victim: Its pipe was just emptied, so that it is not waiting for us.

        Raises:
            TourError: It had finished.
        """
        victim.process.kill()
        while not victim.ended:
            self.pump(but=victim)
        if victim.process.wait(5) != -signal.SIGKILL or victim.done:
            raise TourError(f"{victim.name} finished before it could be killed")

    def stats(self) -> dict[str, Any]:
        """What a process that joins the others now is told by `Index.stats`."""
        with self._spawn("stats") as process:
            try:
                out, _ = process.communicate(timeout=max(1.0, self.deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                raise TourError("stats() took too long") from None
        if process.returncode:
            raise TourError(f"the process that asks for stats() failed (status {process.returncode})")
        numbers: dict[str, Any] = json.loads(out)
        return numbers

    def end(self) -> None:
        """SIGKILL for every worker that still lives."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.wait()
            for pipe in (worker.process.stdin, worker.process.stdout):
                if pipe is not None:
                    pipe.close()
        self._selector.close()

    def count(self, what: str) -> int:
        """The sum of an attribute over all workers."""
        return sum(getattr(worker, what) for worker in self.workers)


def _say(text: str) -> None:
    """Print a line; where nobody reads it any more, the tour still goes on to its end and its exit status."""
    try:
        click.echo(text)
    except BrokenPipeError:
        to_nowhere(sys.stdout)


def _tell(title: str, text: str) -> None:
    _say(f"  {title:<9} {text}")


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


@contextmanager
def _tour(folder: str, *, keys: int, writers: int, seed: int) -> Iterator[Tour]:
    tour = Tour(os.path.join(folder, "tour.rowex"), keys=keys, writers=writers, seed=seed)
    try:
        yield tour
    finally:
        tour.end()


def _load(tour: Tour, readers: int) -> None:
    """Writers and readers at work, one writer killed, until all is written; print what happened."""
    rng = random.Random(tour.seed)
    victim_number = rng.randrange(tour.writers)
    writing = [tour.add_writer(number) for number in range(tour.writers)]
    tour.wait_ready(writing)  # the file is there now
    reading = [tour.add_reader(number) for number in range(readers)]
    stand_in = tour.add_writer(victim_number, stand_in=True)
    tour.wait_ready([*reading, stand_in])
    victim = writing[victim_number]
    assert victim.share is not None
    enough = int(len(victim.share) * rng.uniform(0.25, 0.5))

    began = time.perf_counter()
    for worker in [*reading, *writing]:
        worker.send(b"!")
    while victim.steps < enough:
        tour.pump()
    tour.kill(victim)
    _tell("killed", f"{victim.name} by SIGKILL after {victim.steps:,} of {len(victim.share):,} keys; another went on")
    # The last put may have got no further than its acknowledgement: the stand-in repeats one step.
    stand_in.send(b"!" + max(0, victim.steps - 1).to_bytes(8, "little"))
    unfinished = [worker for worker in [*writing, stand_in] if worker is not victim]
    while not all(worker.done for worker in unfinished):
        tour.pump()
    seconds = time.perf_counter() - began
    puts, lookups, hits = tour.count("puts"), tour.count("lookups"), tour.count("hits")

    numbers = tour.stats()
    dead = len(writing) + 1
    _tell("takeover", f"of {dead} processes that ended without closing, others took over {numbers['takeovers']}")
    _tell(
        "growth",
        f"{numbers['growths']} steps in place, {numbers['copies']} by copy and rename; capacity {_mib(CAPACITY_BYTES)} "
        f"became {_mib(numbers['capacity_bytes'])}, the file has {_mib(numbers['file_bytes'])}",
    )
    _tell("written", f"{len(tour.keys):,} keys by {puts:,} puts in {seconds:.2f} s: {puts / seconds:,.0f} puts/s")
    _tell("read", f"{lookups:,} lookups, {hits:,} found a value, none a wrong one: {lookups / seconds:,.0f} lookups/s")
    if numbers["copies"] < 1:
        raise TourError("the file never outgrew its capacity")
    if numbers["takeovers"] < 1:
        raise TourError("nobody took over from the dead writer")


def _verify(tour: Tour) -> None:
    """Reopen the file that nobody closed, and look for every acknowledged key; print what was found."""
    began = time.perf_counter()
    with rowex.open(tour.path, "w") as index:
        index.get(tour.keys[0])
        seconds = time.perf_counter() - began
        _tell("reopened", f"in {seconds * 1000:.1f} ms to the first get, the startup scan included")
        began = time.perf_counter()
        missing = wrong = 0
        for key, acked, value in zip(tour.keys, tour.acked, index.get_many(tour.keys), strict=True):
            missing += acked >= 0 and value is None
            wrong += value is not None and version_of(key, value) < max(acked, 0)
        if missing or wrong:
            raise TourError(f"{missing} acknowledged keys are missing, {wrong} have a wrong or an older value")
        present = sum(1 for _ in index.scan())
        if not len(index) == present == len(tour.keys):
            raise TourError(f"{len(tour.keys)} keys were put, len() is {len(index)}, a scan finds {present}")
        index.check()
        acknowledged = sum(version >= 0 for version in tour.acked)
        _tell(
            "verified",
            f"{acknowledged:,} of {acknowledged:,} acknowledged keys, count, order and check() "
            f"in {time.perf_counter() - began:.2f} s",
        )


@click.command(help=__doc__.split("\n\n", 1)[1] if __doc__ else None)
@click.option("--keys", default=60_000, show_default=True, type=click.IntRange(min=MIN_KEYS), help="Keys to load.")
@click.option("--writers", default=3, show_default=True, type=click.IntRange(2, 64), help="Processes that write.")
@click.option("--readers", default=2, show_default=True, type=click.IntRange(1, 64), help="Processes that read.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0), help="Of keys, shares and the kill.")
def tour(keys: int, writers: int, readers: int, seed: int) -> None:
    if keys < writers * MIN_SHARE_KEYS:
        raise click.BadParameter(f"{writers} writers need at least {writers * MIN_SHARE_KEYS}", param_hint="--keys")
    _say(f"rowex tour: {keys:,} keys, {writers} writers, {readers} readers, seed {seed}")
    try:
        with tempfile.TemporaryDirectory(prefix="rowex-tour-") as folder:
            with _tour(folder, keys=keys, writers=writers, seed=seed) as run:
                _load(run, readers)
            _tell("ended", "every process by SIGKILL or os._exit; nothing was closed")
            _verify(run)
    except (TourError, rowex.RowexError, OSError) as error:
        click.echo(f"rowex tour: {error}", err=True)
        raise SystemExit(1) from None
