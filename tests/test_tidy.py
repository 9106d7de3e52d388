"""
scripts/tidy.py finds what it is there to find, and finds nothing in this checkout.

The tests also run from a copy of themselves without the checkout; these need it and are left out there.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
SCRIPT = CHECKOUT / "scripts" / "tidy.py"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="these look at a checkout, this is a copy of the tests")


@pytest.fixture(scope="module")
def tidy() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("tidy", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_checkout_is_tidy(tidy: Any) -> None:
    """No breach in the sources as they are."""
    assert tidy.breaches(CHECKOUT) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("rowex/native/tree.h", '#include "../gc/gate.h"\n', "includes gate.h, which stands above it"),
        ("rowex/native/node.c", '#include "guard.h"\n', "includes guard.h, which stands above it"),
        ("rowex/gc/limbo.c", '#include "../native/change.h"\n', "includes change.h, which stands above it"),
        ("rowex/gc/news.h", "", "a header that is not in the order of reading"),
        ("rowex/native/tree.c", "__atomic_load_n(p, 0);\n", "atomics belong into persist.h"),
        ("rowex/gc/limbo.c", "rx_sys_fallocate(fd, 0, 0, 1);\n", "fallocate() belongs into file.c and its neighbours"),
        ("rowex/native/segment.c", "fsync(fd); rx_sys_fsync(fd);\n", "fsync() is called rx_sys_fsync() here"),
        ("rowex/native/tree.c", "rx_sys_openat(a); openat(b);\n", "openat() has another name here (disk.h)"),
        (
            "rowex/gc/uid.c",
            "rx_sys_fstat(a, b); /* fstat() */ fstat(c, d); __atomic_\n",
            "fstat() has another name here (disk.h)",
        ),
        (
            "rowex/native/tree.c",
            "fcntl(a, F_DUPFD, b); fcntl(c, F_OFD_SETLK, d);\n",
            "fcntl() has another name here (disk.h)",
        ),
        (
            "rowex/gc/scan.c",
            "rx_sys_malloc(8);\nvoid *p = calloc(1, 8); /* __atomic_ */\n",
            "calloc() has another name here (allocate.h)",
        ),
        ("rowex/native/tree.c", "/* caf\u00e9 */\n", "not ASCII"),
        ("rowex/native/tree.c", "\n" * 501, "501 lines, 500 are allowed"),
        ("rowex/index.py", "\n" * 451, "451 lines, 450 are allowed"),
        ("rowex/gc/uid.c", "", "without atomics, it need not be named in PROCESS_LOCAL"),
        ("rowex/index.py", "# " + "TO" + "DO: later\n", "a loose end, TO" + "DO"),
    ],
)
def test_planted_breach_is_found(tidy: Any, tmp_path: Path, name: str, text: str, expected: str) -> None:
    """Each rule has a breach that it finds, and that alone."""
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text, "utf-8")
    assert tidy.breaches(tmp_path) == [f"{name}: {expected}"]


def test_longer_file_may_shrink_but_not_grow(tidy: Any, tmp_path: Path) -> None:
    """The limit of a file that is named holds, and the name goes when it is not needed any more."""
    name = "tests/test_transactions.py"
    limit = tidy.LONGER[name]
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("\n" * limit)
    assert tidy.breaches(tmp_path) == []
    path.write_text("\n" * (limit + 1))
    assert tidy.breaches(tmp_path) == [f"{name}: {limit + 1} lines, {limit} are allowed"]
    path.write_text("\n" * 7)
    assert tidy.breaches(tmp_path) == [f"{name}: 7 lines, it need not be named in LONGER"]


def test_allowed_exceptions_are_silent(tidy: Any, tmp_path: Path) -> None:
    """What is named in the lists may stand where it stands."""
    path = tmp_path / "rowex" / "gc" / "uid.c"
    path.parent.mkdir(parents=True)
    path.write_text('#include "../native/guard.h"\n__atomic_load_n(p, 0);\n', "utf-8")
    assert tidy.breaches(tmp_path) == []
