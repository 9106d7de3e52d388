"""
The process that runs scenarios (crash_driver.py), as seen by who asks for them.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools import TESTS, clean_environment


class Driver:
    """crash_driver.py, in the test build; started anew when it hung."""

    def __init__(self, build: Path) -> None:
        self.build = build
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        """The process that answers."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", str(TESTS / "crash_driver.py")],
                env=clean_environment(self.build),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        return self.process

    def stop(self) -> None:
        """End it and all that it forked."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
            self.process = None

    def ask(self, timeout_s: float, **request: Any) -> dict[str, Any]:
        """Have it run a scenario."""
        process = self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        ready = select.select([process.stdout], [], [], timeout_s)[0]
        line = process.stdout.readline() if ready else ""
        if not line:
            self.stop()
            return {"failed": "the driver is gone" if ready else f"no answer within {timeout_s} s"}
        return dict(json.loads(line))
