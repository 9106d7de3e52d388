"""
How a door waits.  Its core is a few Python functions here, since the real one waits only for others.
"""

from __future__ import annotations

import ctypes
import signal
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from doors import NAMES, address_of, door_module
from rowex._native import lib
from rowex.errors import ClosedError

ADDRESS, SIZE = ctypes.c_void_p, ctypes.c_size_t
SIZE_OUT, TICKET_OUT = ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_uint64)
STORE = ctypes.CFUNCTYPE(ctypes.c_int, ADDRESS, ADDRESS, ADDRESS, SIZE, ADDRESS, SIZE, ctypes.c_int64, TICKET_OUT)
PUT_MANY = ctypes.CFUNCTYPE(
    ctypes.c_int,
    *(ADDRESS, ADDRESS, SIZE, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ctypes.c_int64, SIZE_OUT, TICKET_OUT),
)
SCAN_NEXT = ctypes.CFUNCTYPE(
    ctypes.c_int,
    *(ADDRESS, ADDRESS, ADDRESS, ADDRESS, SIZE, SIZE, ctypes.c_int, SIZE_OUT, SIZE_OUT),
)
# The order of hot_api.h, after the word with version and size.
MEMBERS = ("get", "exists", "put", "insert", "remove", "get_many", "put_many", "scan_open", "scan_next")


class FakeCore:
    """Answers for put, put_many and scan_next, behind either door; the rest is the real core."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module, self.name, self.patch = door_module(name), name, monkeypatch
        self.kept: list[Any] = []

    def use(self, **functions: Callable[..., int]) -> None:
        """Replace functions of the core by Python ones with ctypes arguments."""
        kinds = {"put": STORE, "put_many": PUT_MANY, "scan_next": SCAN_NEXT}
        if self.name == "slow":
            self._replace_slow({name: _plain(kinds[name], function) for name, function in functions.items()})
        else:
            self._replace_hot({name: kinds[name](function) for name, function in functions.items()})

    def always_waiting(self) -> Any:
        """A door of whose core nothing is ever ready, without any Python code in it."""
        if self.name == "slow":
            self._replace_slow({"put": lambda *_: int(lib.RX_WOULD_WAIT)})
        else:
            # abs() of the handle is the handle.
            self._replace_hot({"put": ctypes.CDLL(None).abs})
        return self.module.Door(int(lib.RX_WOULD_WAIT))

    def _replace_slow(self, functions: dict[str, Callable[..., int]]) -> None:
        fake = types.SimpleNamespace(**{name: getattr(lib, name) for name in dir(lib)})
        for name, function in functions.items():
            setattr(fake, f"rx_{name}", function)
        self.patch.setattr(self.module, "lib", fake)

    def _replace_hot(self, functions: dict[str, Any]) -> None:
        real = address_of(lib.rx_hot_api())
        size = ctypes.c_uint32.from_address(real + 4).value
        table = (ctypes.c_uint64 * (size // 8)).from_buffer_copy(ctypes.string_at(real, size))
        for name, function in functions.items():
            table[1 + MEMBERS.index(name)] = ctypes.cast(function, ADDRESS).value or 0
        self.kept += [table, functions]
        self.module.bind(ctypes.addressof(table))


def _plain(kind: Any, function: Callable[..., int]) -> Callable[..., int]:
    """What cffi is given, as what ctypes gives."""

    def call(*args: Any) -> int:
        pairs = zip(args, kind._argtypes_, strict=True)
        return function(*(arg if isinstance(arg, int) else ctypes.cast(address_of(arg), of) for arg, of in pairs))

    return call


@pytest.fixture(params=NAMES)
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCore]:
    """A door with replaceable functions behind it."""
    core = FakeCore(request.param, monkeypatch)
    yield core
    monkeypatch.undo()
    door_module(core.name)  # binds the real core


@pytest.fixture
def fake_door(fake: FakeCore, index: Any) -> Any:
    """A door that leads to the fake."""
    return fake.module.Door(address_of(index._rx))


def test_put_waits_in_slices_until_the_core_is_ready(fake: FakeCore, fake_door: Any) -> None:
    """The first call does not wait; the later ones do, for at most 50 ms each."""
    waits: list[int] = []

    def put(*args: Any) -> int:
        waits.append(args[6])
        if len(waits) < 4:
            return int(lib.RX_WOULD_WAIT)
        args[7][0] = 77
        return int(lib.RX_OK)

    fake.use(put=put)
    assert fake_door.put(b"k", b"v") == 77
    assert waits == [0, 50_000_000, 50_000_000, 50_000_000]
    waits.clear()
    fake_door[b"k"] = bytes(100_000)
    assert waits == [0, 50_000_000, 50_000_000, 50_000_000]


def test_put_that_waits_too_long_raises_timeout_error(fake: FakeCore, fake_door: Any) -> None:
    """timeout=0 asks once; a longer one bounds the last slice."""
    waits: list[int] = []

    def put(*args: Any) -> int:
        waits.append(args[6])
        time.sleep(args[6] / 1e9)  # what the core does with a slice of a wait
        return int(lib.RX_WOULD_WAIT)

    fake.use(put=put)
    with pytest.raises(TimeoutError):
        fake_door.put(b"k", b"v", timeout=0)
    assert waits == [0]
    waits.clear()
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        fake_door.put(b"k", b"v", timeout=0.07)
    assert time.monotonic() - begun >= 0.07
    assert 2 <= len(waits) <= 4
    assert 0 < waits[-1] < 50_000_000


def test_signal_ends_a_wait(fake: FakeCore) -> None:
    """The handler's exception comes out of put(), and its buffers are free."""

    class OwnError(Exception):
        pass

    def on_signal(number: int, frame: Any) -> None:
        raise OwnError

    value = bytearray(b"v")
    door = fake.always_waiting()
    before = signal.signal(signal.SIGALRM, on_signal)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(OwnError):
            door.put(b"k", value)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    value += b"more"


def test_close_during_a_wait_ends_it(fake: FakeCore, fake_door: Any) -> None:
    """The handle is read again after each slice."""

    def put(*args: Any) -> int:
        if args[6]:
            fake_door._rebind(0, 0)
        return int(lib.RX_WOULD_WAIT)

    fake.use(put=put)
    with pytest.raises(ClosedError):
        fake_door.put(b"k", b"v")


def test_put_many_goes_on_where_the_core_stopped(fake: FakeCore, fake_door: Any) -> None:
    """Each pair is handed over until it is done, in order."""
    counts: list[tuple[int, bool]] = []

    def put_many(*args: Any) -> int:
        n = args[2]
        counts.append((n, args[7] > 0))
        done = min(n, 40)
        args[8][0] = done
        args[9][0] = len(counts)
        return int(lib.RX_OK if done == n else lib.RX_WOULD_WAIT)

    fake.use(put_many=put_many)
    assert fake_door.put_many((b"%d" % i, b"") for i in range(100)) == 3
    assert counts == [(100, False), (60, True), (20, True)]


def test_scan_that_is_stepped_from_within_itself_raises(fake: FakeCore, fake_door: Any) -> None:
    """As a generator does: two threads cannot tear its state."""
    caught: list[str] = []
    scans: list[Iterator[Any]] = []

    def scan_next(*args: Any) -> int:
        try:
            next(scans[0])
        except ValueError as error:
            caught.append(str(error))
        return int(lib.RX_END)

    fake.use(scan_next=scan_next)
    scans.append(fake_door.scan())
    assert list(scans[0]) == []
    assert len(caught) == 1
    assert "already executing" in caught[0]
