"""
What a log line of the core says of the task that it was told in.

structlog's context variables go with the task into worker threads, as all context variables do;
here the task's name is added, where lines are shown at all.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import anyio

__all__ = ["bound", "task_name"]

_standard = logging.getLogger("rowex")


def task_name() -> str | None:
    """The name of the task that asks; None where no line would be shown."""
    return anyio.get_current_task().name if _standard.isEnabledFor(logging.INFO) else None


def bound(task: str | None) -> AbstractContextManager[Any]:
    """A block in which the lines of this thread say `task`; None: as they are."""
    if task is None:
        return nullcontext()
    import structlog

    return structlog.contextvars.bound_contextvars(task=task)
