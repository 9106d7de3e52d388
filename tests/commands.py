"""
The command line, called by tests: in this process, or as one of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from rowex.cli import cli


def do(*arguments: str | Path, stdin: bytes | str = b"", color: bool = False) -> Result:
    """Run a command in this process; with color, what it tells a terminal."""
    return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin, catch_exceptions=False, color=color)


def start(*arguments: str | Path, cwd: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command as a process."""
    command = [sys.executable, "-m", "rowex", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, **options)
