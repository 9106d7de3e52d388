"""
A worker of a service: a thread with a uid of its own, which takes commands from a queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from rowex.aio.commands import Command
from rowex.aio.context import bound
from rowex.coded import CodedSession
from rowex.errors import ClosedError, make_error
from rowex.events import stop_when

__all__ = ["Ended", "Finished", "Stopped", "Worker"]


class Stopped(BaseException):
    """The service is given up; nobody but the worker gets to see it."""


class Finished:
    """Told by a worker: a command is over."""

    __slots__ = ("command", "error", "result")

    def __init__(self, command: Command[Any], result: Any, error: BaseException | None) -> None:
        self.command, self.result, self.error = command, result, error


class Ended:
    """Told by a worker, last: it is no more; `error`, if it died."""

    __slots__ = ("error", "worker")

    def __init__(self, worker: Worker, error: BaseException | None) -> None:
        self.worker, self.error = worker, error


class Worker:
    """
    One thread of a service.

    Attributes:
        kind: "reader" or "writer".
        uid: Its uid, once it works; 0 before.
    """

    def __init__(
        self, kind: str, open_session: Callable[[], Any], queue: SimpleQueue[Any], tell: Callable[[object], None]
    ) -> None:
        """
        Make one and start it.

        Args:
            kind: "reader" or "writer".
            open_session: `reader` or `writer` of the index.
            queue: Where its commands come from; None: no more.
            tell: Takes what it has to tell, from any thread.
        """
        self.kind, self.uid = kind, 0
        self._open_session, self._queue, self._tell = open_session, queue, tell
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"rowex-{kind}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """What it is doing ends within some 20 ms, and has not happened then."""
        self._stopped = True

    def join(self) -> None:
        """After `Ended` was told."""
        self._thread.join()

    def _check(self) -> None:
        if self._stopped:
            raise Stopped

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            with self._open_session() as session:
                raw = session.raw if isinstance(session, CodedSession) else session
                # The service waits for durability, for all at once.
                raw._bind(raw._rx, raw._rx_thread, readonly=raw._readonly, commit=False)
                self.uid = raw.uid
                self._tell(self)
                stop_when(self._check)
                while (command := self._queue.get()) is not None:
                    self._do(command, raw)
        except Stopped:
            pass
        except BaseException as caught:  # it dies, and says so
            error = caught
        finally:
            stop_when(None)
            self._tell(Ended(self, error))

    def _do(self, command: Command[Any], session: Any) -> None:
        try:
            self._check()
            with bound(command._task):
                result = command._context.run(command._call, session)
        except Exception as error:
            self._tell(Finished(command, None, error))
        except Stopped:
            self._tell(Finished(command, None, given_up()))
            raise
        except BaseException as error:
            died = RuntimeError(
                f"the {self.kind} that did this command died: {error!r}; whether it happened is not known"
            )
            died.__cause__ = error
            self._tell(Finished(command, None, died))
            raise
        else:
            self._tell(Finished(command, result, None))


def given_up() -> Exception:
    """What a command gets that the service did not come to."""
    return make_error(ClosedError, "the service was given up before this command was done", hint="nothing was changed")
