"""
The two doors, `_hot` and `_slow`, for the tests that go through one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from rowex._native import ffi, lib

NAMES = ("hot", "slow")


def door_module(name: str) -> Any:
    """The module of a door, ready for use."""
    try:
        module = importlib.import_module(f"rowex._{name}")
    except ImportError as error:
        from conftest import cannot_run  # which imports the fixtures below

        cannot_run(f"the extension is not built: {error}")
    if name == "hot":
        module.bind(address_of(lib.rx_hot_api()))
    return module


def address_of(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))


@pytest.fixture(params=NAMES)
def door_type(request: pytest.FixtureRequest) -> Any:
    """A class that derives from a door, as the index does."""
    base: Any = door_module(request.param).Door

    class OwnDoor(base):  # type: ignore[misc]
        pass

    return OwnDoor


@pytest.fixture
def make_door(door_type: Any, index: Any) -> Callable[..., Any]:
    """Another door to the same index."""
    return lambda *args, **options: door_type(address_of(index._rx), *args, **options)


@pytest.fixture
def door(make_door: Callable[..., Any]) -> Any:
    """A door to a new, empty index."""
    return make_door()
