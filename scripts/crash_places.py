"""
The places of the core from which it stores to shared memory, or changes files, in a test build, as binutils
tell them; and those at which no scenario of the crash points can have a death.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

# A reason, and the functions that it is good for.
EXCEPTIONS: dict[str, tuple[str, ...]] = {}

FILE_CALLS = "open pwrite fallocate ftruncate fsync fdatasync msync mkdirat linkat renameat unlinkat openat".split()
POINTS = re.compile(rf"call\s.*<(rx_crashpoint|rx_sys_({'|'.join(FILE_CALLS)}))(@plt)?>")


@dataclass(frozen=True)
class Places:
    """All of them, in bytes from rx_crash_count()."""

    library: Path
    base: int
    every: frozenset[int]

    @classmethod
    def of(cls, library: Path) -> Places | None:
        """Those of a test build; None without binutils."""
        try:
            names = _output("nm", str(library))
            code = _output("objdump", "-d", "--no-show-raw-insn", str(library))
        except (OSError, subprocess.CalledProcessError):
            return None
        found = re.search(r"^([0-9a-f]+) T rx_crash_count$", names, re.MULTILINE)
        if found is None:
            return None
        # A function that was put wherever it is called stands there once more, and nobody goes there.
        used = set(re.findall(r"\t.*<(\w[\w.]*)(?:@plt)?>", code))
        base, every, after_call, inside = int(found.group(1), 16), set(), False, ""
        for line in code.splitlines():
            if line.endswith(">:"):
                inside = line.split("<")[1][:-2]
            at = re.match(r"\s+([0-9a-f]+):\t", line)
            if at is None:
                continue
            if after_call and inside != "rx_crashpoint" and inside in used:
                every.add(int(at.group(1), 16) - base)
            after_call = bool(POINTS.search(line))
        return cls(library, base, frozenset(every))

    def missed(self, died: set[int]) -> dict[int, str]:
        """Where no death was: the functions there, the innermost first."""
        left = sorted(self.every - died)
        if not left:
            return {}
        # The call, not what comes after it.
        asked = [f"{self.base + place - 1:#x}" for place in left]
        told = _output("addr2line", "-a", "-f", "-i", "-e", str(self.library), *asked)
        frames = []
        for one in re.split(r"^0x[0-9a-f]+\n", told, flags=re.MULTILINE)[1:]:
            lines = one.splitlines()
            calls = [f"{Path(where).name} {name}" for name, where in zip(lines[::2], lines[1::2], strict=False)]
            frames.append(" < ".join([call for call in calls if "persist.h" not in call][:3]))
        return dict(zip(left, frames, strict=True))


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
