"""
Options, fixtures and time limits of the test suite.

`--long` runs everything to the full; `ROWEX_SEED` repeats a random run; `ROWEX_REQUIRE_ALL=1`
makes a test that cannot run here a failure; `ROWEX_TIME_SCALE` stretches the promised times on a
busy machine, `ROWEX_LIMIT_S` is after how long a test counts as hung at the least; `ROWEX_TEST_BUILD` names a
test build to use instead of compiling one.
"""

from __future__ import annotations

import faulthandler
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

import hypothesis
import hypothesis.core
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

import rowex
from doors import door, door_type, make_door  # noqa: F401 - fixtures
from tools import Child, run_python

SEED = int(os.environ.get("ROWEX_SEED") or random.SystemRandom().randrange(2**32))
LIMIT_S = int(os.environ.get("ROWEX_LIMIT_S") or 90)
LIMIT_LONG_S = 3600
_stderr: TextIO | None = None

# What it remembers between runs does not belong in a checkout.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "rowex-hypothesis")
hypothesis.settings.register_profile(
    "rowex",
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("rowex")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run everything to the full: hours, not minutes")


def pytest_configure(config: pytest.Config) -> None:
    global _stderr
    _stderr = os.fdopen(os.dup(2), "w")
    config.addinivalue_line("markers", "limit(seconds): may take so long before it counts as hung")
    hypothesis.core.global_force_seed = SEED
    if config.getoption("--long"):
        os.environ["ROWEX_EVERY_CASE"] = "1"  # fault_driver.py


def pytest_unconfigure() -> None:
    faulthandler.cancel_dump_traceback_later()
    if _stderr is not None:
        _stderr.close()


def pytest_report_header() -> list[str]:
    return [f"rowex {rowex.__version__} from {Path(rowex.__file__).parent}", f"ROWEX_SEED={SEED}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="needs --long"))


def cannot_run(reason: str) -> NoReturn:
    """Skip; where everything must run, fail."""
    if os.environ.get("ROWEX_REQUIRE_ALL", "") not in ("", "0"):
        pytest.fail(f"ROWEX_REQUIRE_ALL is set, but {reason}")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that hangs shows where, and ends the run."""
    marker = request.node.get_closest_marker("limit")
    seconds = max(marker.args[0], LIMIT_S) if marker else LIMIT_S
    if request.config.getoption("--long"):
        seconds = LIMIT_LONG_S
    assert _stderr is not None
    faulthandler.dump_traceback_later(seconds, exit=True, file=_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def long_run(request: pytest.FixtureRequest) -> bool:
    """Whether --long was given."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of this test's own; ROWEX_SEED repeats them."""
    return random.Random(f"{SEED} {request.node.nodeid}")


def _fast_folder() -> Path | None:
    """Where files need no disk: most tests are about memory, and sync often."""
    shm = Path("/dev/shm")
    if os.environ.get("ROWEX_TEST_DIR"):
        return Path(os.environ["ROWEX_TEST_DIR"])
    if not os.access(shm, os.W_OK):
        return None
    room = os.statvfs(shm)
    return shm if room.f_bavail * room.f_frsize >= 2 << 30 else None


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, in memory where there is enough of it."""
    base = _fast_folder()
    if base is None:
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp(prefix="rowex-test-", dir=base))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def path(folder: Path) -> Path:
    """Where an index may be made."""
    return folder / "index.rowex"


@pytest.fixture
def opened() -> Iterator[Callable[..., Any]]:
    """rowex.open(), closed when the test is over."""
    handles: list[Any] = []

    def open_index(*args: Any, **options: Any) -> Any:
        handles.append(rowex.open(*args, **options))
        return handles[-1]

    yield open_index
    for handle in handles:
        handle.close()


@pytest.fixture
def index(path: Path, opened: Callable[..., Any]) -> Any:
    """A new, empty index."""
    return opened(path)


@pytest.fixture
def memory_of() -> Iterator[Callable[..., Any]]:
    """Opens indexes in memory and closes them."""
    opened: list[Any] = []

    def make(**options: Any) -> Any:
        opened.append(rowex.memory(**options))
        return opened[-1]

    yield make
    for index in opened:
        index.close()


@pytest.fixture(params=["trio", "asyncio"])
def run_async(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run an async function in a loop of its own, on each of both kinds."""
    import anyio

    def run(function: Callable[..., Any], *args: Any) -> Any:
        return anyio.run(function, *args, backend=request.param)

    run.backend = request.param  # type: ignore[attr-defined]
    return run


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    """Fork a process that runs a function; killed when the test is over."""
    children: list[Child] = []

    def start(function: Callable[..., Any], *args: Any) -> Child:
        children.append(Child(function, *args))
        return children[-1]

    yield start
    for process in children:
        process.cleanup()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a filesystem in memory of the size asked for."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        point = tmp_path / f"disk{len(mounted)}"
        point.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "none", str(point)]
        if os.geteuid() != 0:
            cannot_run("mounting a small filesystem needs root")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            cannot_run(f"mount failed: {done.stderr.strip()}")
        mounted.append(point)
        return point

    yield mount
    for point in mounted:
        subprocess.run(["umount", "-l", str(point)], check=True)


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    """Sets the umask and puts it back."""
    before = os.umask(0o022)
    os.umask(before)
    yield lambda mask: (os.umask(mask), None)[1]
    os.umask(before)


@pytest.fixture(scope="session")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that poisons freed cells, and can die at a chosen store or have a system call fail."""
    ready = os.environ.get("ROWEX_TEST_BUILD")
    if ready:
        return Path(ready)
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        cannot_run("there is no C compiler")
    output = tmp_path_factory.mktemp("build")
    defines = [f"--define={name}" for name in ("ROWEX_POISON", "ROWEX_CRASHPOINTS", "ROWEX_FAULTS")]
    done = run_python("-m", "rowex.native.build", "--output", str(output), *defines, timeout_s=600)
    assert done.returncode == 0, f"the test build failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return output


if sys.platform != "linux":
    raise RuntimeError("the tests use pidfd, prctl and mount: they run on Linux")
# What a shell starts with & ignores Ctrl-C, and so would the processes that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
