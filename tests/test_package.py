"""
The package itself: its version, its names, its import.
"""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import rowex
from tools import run_python


def test_version_is_that_of_the_package() -> None:
    """rowex.__version__ is what the installed package is called."""
    from importlib.metadata import version

    assert rowex.__version__ == version("rowex")


def test_public_names_are_documented() -> None:
    """Everything in __all__ exists and has a docstring."""
    for name in rowex.__all__:
        assert hasattr(rowex, name)
        if not name.startswith("_"):
            assert getattr(rowex, name).__doc__, name


def test_index_and_coded_index_take_the_same_arguments() -> None:
    """By name and by position; only a first value for setdefault() is known for bytes alone."""
    shared = {name for name in dir(rowex.Index) if not name.startswith("_") and hasattr(rowex.CodedIndex, name)}
    for name in shared:
        shapes = [
            [(p.name, p.kind) for p in list(inspect.signature(getattr(kind, name)).parameters.values())[1:]]
            for kind in (rowex.Index, rowex.CodedIndex)
            if callable(getattr(kind, name))
        ]
        assert shapes[:1] == shapes[1:], name
    assert shared >= {"exists", "get", "insert", "lookup", "put", "scan"}


def test_import_is_silent_and_starts_nothing() -> None:
    """Importing the package prints nothing, opens nothing and starts no thread."""
    code = "import threading, os, rowex; print(threading.active_count(), rowex.__name__)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("1 rowex\n", "")


def test_errors_are_also_builtin_kinds() -> None:
    """Code that knows nothing of Rowex can catch them."""
    kinds = {
        rowex.CorruptionError: ValueError,
        rowex.FormatError: ValueError,
        rowex.ClosedError: ValueError,
        rowex.DiskFullError: OSError,
        rowex.DurabilityError: OSError,
        rowex.ReadOnlyError: PermissionError,
        rowex.DuplicateKeyError: KeyError,
    }
    for kind, builtin in kinds.items():
        assert issubclass(kind, (rowex.RowexError,))
        assert issubclass(kind, builtin)


def test_sources_that_were_not_installed_say_so(tmp_path: Path) -> None:
    """Who starts Python in a checkout learns what to do."""
    package = Path(rowex.__file__).parent
    shutil.copytree(package, tmp_path / "rowex", ignore=shutil.ignore_patterns("_native*.so", "__pycache__"))
    done = run_python("-c", "import rowex", folder=tmp_path)
    assert "pip install ." in done.stderr.splitlines()[-1], done.stderr
    assert done.stderr.splitlines()[-1].startswith("ImportError: ")
