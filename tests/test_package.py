"""
The package itself: its version, its names, its import.
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import get_overloads

import pytest

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


def own_bases(kind: type) -> list[type]:
    """Those of the package, whose source is Python."""
    return [base for base in kind.__mro__ if base.__module__.startswith("rowex") and base.__module__ != "rowex._hot"]


def stored_names(kind: type) -> set[str]:
    """The attributes that a class gives its objects, as its source has them."""
    nodes = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind))))
    stores = (node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return {node.attr for node in stores if isinstance(node.value, ast.Name) and node.value.id == "self"}


@pytest.mark.parametrize("module", ["rowex", "rowex.aio"])
def test_public_attributes_are_documented(module: str) -> None:
    """What has no underscore has a docstring, or stands under Attributes: nothing internal looks public."""
    public = pytest.importorskip(module)
    for kind in (found for found in map(vars(public).get, public.__all__) if isinstance(found, type)):
        texts = "\n".join(inspect.getdoc(base) or "" for base in own_bases(kind))
        for base in own_bases(kind):
            names = stored_names(base) | set(inspect.get_annotations(base)) | set(vars(base))
            for name in sorted(name for name in names if not name.startswith("_")):
                found = getattr(kind, name, None)
                told = (callable(found) or isinstance(found, property)) and inspect.getdoc(found)
                assert told or re.search(rf"^    {name}: ", texts, flags=re.MULTILINE), f"{kind.__name__}.{name}"


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


def test_what_serves_only_the_package_has_an_underscore() -> None:
    """A batch and a command show what their makers are told of, and no more."""
    aio = pytest.importorskip("rowex.aio")
    for kind, names in (
        (rowex.Batch, {"put", "remove"}),
        (aio.Batch, {"put", "remove"}),
        (aio.Command, {"accepted", "is_running", "result"}),
        (aio.Scan, {"batch"}),
        (
            aio.Service,
            {"close", "exists", "index", "insert", "lookup", "pending", "put", "readers", "remove", "stats", "writers"},
        ),
    ):
        assert {name for name in vars(kind) if not name.startswith("_")} == names, kind


def test_index_in_memory_is_typed_as_one_in_a_file_is() -> None:
    """By the codecs: an Index, or a CodedIndex of their types."""
    both = list(zip(get_overloads(rowex.open), get_overloads(rowex.memory), strict=True))
    assert next(memory.__annotations__["return"] for _, memory in both) == "Index"
    for opened, memory in both:
        for name, kind in memory.__annotations__.items():
            assert opened.__annotations__[name] == kind


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
