"""
Which door the frequent calls take: the extension `_hot`, or cffi (`_slow`) where it is not built.

`ROWEX_DOOR=slow` or `hot` in the environment chooses, for tests and comparisons.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

try:
    from rowex._native import ffi, lib
except ModuleNotFoundError as error:
    if error.name != "rowex._native":
        raise
    raise ImportError(
        f"the C core is not compiled in {os.path.dirname(__file__)}, which are sources: "
        "install them with `pip install .`, and start Python in another folder"
    ) from None

__all__ = ["Door", "coding", "encoded", "name", "pack"]


def _choose() -> tuple[str, Any, Any]:
    wanted = os.environ.get("ROWEX_DOOR", "")
    if wanted not in ("", "hot", "slow"):
        raise ImportError(f"ROWEX_DOOR is {wanted!r}; it may be 'hot' or 'slow'")
    if wanted != "slow":
        try:
            module = import_module("rowex._hot")
            module.bind(int(ffi.cast("uintptr_t", lib.rx_hot_api())))
            return "hot", module, module
        except ImportError:
            if wanted == "hot":
                raise
    module = import_module("rowex._slow")
    return "slow", module, import_module("rowex._forms")


name, _module, coding = _choose()
Door, pack, encoded = _module.Door, _module.pack, _module.encoded
