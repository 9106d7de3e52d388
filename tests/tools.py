"""
What several test files share: processes that are never left behind, values that know whether
they are right, keys like those of real programs, and bytes of the file format.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
# The promised times are for a machine that is not busy with other things.
TIME_SCALE = float(os.environ.get("ROWEX_TIME_SCALE", "1"))

# ---- waiting -----------------------------------------------------------------


def eventually(condition: Callable[[], Any], timeout_s: float = 20, what: str = "") -> Any:
    """
    Ask again and again until the answer is true.

    Args:
        condition: The question.
        timeout_s: After that it is a failure.
        what: What was waited for, for the message.

    Returns:
        The first true answer.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}")
        time.sleep(0.0005)  # between two looks


# ---- refusals ------------------------------------------------------------------


def refusal(call: Callable[[], Any], *kinds: type[BaseException]) -> BaseException:
    """
    What a call raises.

    Args:
        call: Must raise one of *kinds*.
        kinds: Classes of exceptions.

    Returns:
        The exception.
    """
    try:
        answer = call()
    except kinds as error:
        return error
    raise AssertionError(f"it answered {answer!r:.200} instead of raising {kinds}")


# ---- processes ----------------------------------------------------------------


class ChildError(AssertionError):
    """What a child raised; the message is its traceback."""


class Child:
    """A forked process that runs one function and can be talked to, stopped and killed."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.pipe, inner = multiprocessing.Pipe()
        self.status: int | None = None
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self.pipe.close()
            _run_child(function, inner, args, parent)
        inner.close()
        self.descriptor = os.pidfd_open(self.pid)

    def send(self, thing: Any) -> None:
        """Hand something to the child."""
        self.pipe.send(thing)

    def recv(self, timeout_s: float = 30) -> Any:
        """What the child sent; raises what it raised."""
        if not self.pipe.poll(timeout_s):
            raise AssertionError(f"the child {self.pid} said nothing for {timeout_s} s")
        try:
            thing = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise ChildError(f"the child ended with status {self.wait()} before it answered") from None
        if isinstance(thing, ChildError):
            raise thing
        return thing

    def signal(self, number: int) -> None:
        """Send a signal."""
        signal.pidfd_send_signal(self.descriptor, number)

    def stop(self) -> None:
        """SIGSTOP, and wait until it stands still."""
        self.signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def stands_still(self) -> bool:
        """Wait until it stops by itself; False: it has done what it had to, and says so."""
        while True:
            pid, status = os.waitpid(self.pid, os.WUNTRACED | os.WNOHANG)
            if pid and os.WIFSTOPPED(status):
                return True
            if pid:  # over: what it said may not have been read yet
                self.status = os.waitstatus_to_exitcode(status)
                assert self.pipe.poll(), f"it ended with status {self.status} and said nothing"
                return False
            if self.pipe.poll(0.001):
                return False

    def go_on(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.status is None and not select.select([self.descriptor], [], [], 0)[0]

    def wait(self, timeout_s: float = 30) -> int:
        """The exit status, negative for a signal; raises what the child raised."""
        if self.status is None:
            if not select.select([self.descriptor], [], [], timeout_s)[0]:
                raise AssertionError(f"the child {self.pid} did not end within {timeout_s} s")
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def finish(self, timeout_s: float = 30) -> None:
        """Wait for it; anything but a quiet success is a failure."""
        status = self.wait(timeout_s)
        while self.pipe.poll(0):
            try:
                thing = self.pipe.recv()
            except (EOFError, ConnectionResetError):  # the latter: it left something unread
                break
            if isinstance(thing, ChildError):
                raise thing
        assert status == 0, f"the child ended with status {status}"

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.status is None:
            self.signal(signal.SIGKILL)
            self.wait()

    def cleanup(self) -> None:
        """Whatever its state, let nothing remain of it."""
        if self.descriptor >= 0:
            self.kill()
            os.close(self.descriptor)
            self.descriptor = -1
            self.pipe.close()


def _run_child(function: Callable[..., Any], pipe: Any, args: tuple[Any, ...], parent: int) -> None:
    status = 1
    try:
        die_with_parent(parent)
        gc.callbacks.clear()  # of the test tools: what a signal handler raises in them is lost
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function(pipe, *args)
        status = 0
    except BaseException:
        with contextlib.suppress(OSError):
            pipe.send(ChildError(traceback.format_exc()))
    finally:
        os._exit(status)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def as_somebody_else() -> None:
    """Give up root's rights, so that permissions count; nothing for others."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)


def clean_environment(folder: Path | None = None, **environment: str) -> dict[str, str]:
    """The environment for another interpreter that imports the package from *folder*."""
    found = [*([str(folder)] if folder else []), str(TESTS)]
    return {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(found)}


def run_python(
    *arguments: str, folder: Path | None = None, timeout_s: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """
    Run another interpreter.

    Args:
        arguments: Its arguments.
        folder: Of a variant of the package; None: the one that is tested here.
        timeout_s: After that it is killed.
        environment: Additions.

    Returns:
        How it ended, with its output as text.
    """
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", *arguments],
        env=clean_environment(folder, **environment),
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )


# ---- values that know themselves ---------------------------------------------------


def make_value(key: bytes, number: int, size: int = 24) -> bytes:
    """A value that says which key and which write it belongs to, of 8 + *size* bytes."""
    digest = hashlib.blake2b(key + b"#%d" % number, digest_size=16).digest()
    return struct.pack("<Q", number) + (digest * (size // 16 + 1))[:size]


def read_value(key: bytes, value: bytes) -> int:
    """The number of the write that made it; AssertionError if it is not whole or another key's."""
    assert len(value) >= 8, f"{key!r}: cut short: {value!r}"
    (number,) = struct.unpack_from("<Q", value)
    assert value == make_value(key, number, len(value) - 8), f"{key!r}: damaged: {value[:64].hex()}"
    return int(number)


# ---- keys -----------------------------------------------------------------------------

FIRST = "ada alan barbara claude edsger frances grace jean john katherine leslie margaret niklaus radia".split()
LAST = "allen bell borg clarke curie floyd gauss hopper knuth lamport liskov neumann noether perlman wirth".split()
HOSTS = "mail.example mail.example.org example.com example.net lists.example.org uni.example.edu".split()


def mail_keys(count: int, rng: random.Random) -> list[bytes]:
    """Distinct keys like mail addresses; at least one in 40 extends another."""
    keys: dict[bytes, None] = {}
    while len(keys) < count:
        name = f"{rng.choice(FIRST)}.{rng.choice(LAST)}{rng.randrange(count)}@{rng.choice(HOSTS)}"
        key = name.encode()
        keys[key] = None
        if rng.randrange(25) == 0 and len(keys) < count:
            keys[key + rng.choice([b".invalid", b"/inbox", b"\x00", b"+tag"])] = None
    return list(keys)


def orders(keys: list[bytes], rng: random.Random) -> Iterator[tuple[str, list[bytes]]]:
    """The same keys ascending, descending and shuffled."""
    yield "ascending", sorted(keys)
    yield "descending", sorted(keys, reverse=True)
    shuffled = list(keys)
    rng.shuffle(shuffled)
    yield "shuffled", shuffled


# ---- bytes of the file ------------------------------------------------------------------


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC-32C, bit by bit."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def reseal(image: bytearray) -> None:
    """Make the checksum of the superblock's fixed part right again."""
    image[252:256] = struct.pack("<I", crc32c(bytes(image[:252])))


# ---- the index from outside ----------------------------------------------------------------


def counted(index: Any) -> int:
    """The number of keys that a scan yields."""
    return sum(1 for _ in index.scan())


def assert_same(index: Any, expected: dict[bytes, bytes]) -> None:
    """The index holds exactly *expected*, seen from all sides, and is sound."""
    pairs = sorted(expected.items())
    assert list(index.scan()) == pairs
    assert list(index.scan(reverse=True)) == pairs[::-1]
    assert len(index) == len(pairs)
    keys = [key for key, _ in pairs]
    assert index.get_many(keys) == [value for _, value in pairs]
    index.check()


def uid_count(index: Any) -> int:
    """How many uids are alive."""
    return len(index.stats().uids)


def leftovers(path: Path) -> set[str]:
    """Names in the folder beside the index and its known sidecars."""
    ours = {path.name + side for side in ("", "-lock", "-log", "-checkpoint")}
    return {entry.name for entry in path.parent.iterdir()} - ours
