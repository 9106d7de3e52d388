"""
The places of the core from which it stores to shared memory, or changes files, in a test build, as binutils
tell them; and those at which no scenario of the crash points can have a death.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

# A reason, and what stands in the lines (or the functions) for which it is good.
EXCEPTIONS: dict[str, tuple[str, ...]] = {
    "a file system without RENAME_NOREPLACE": ("rx_rename_new",),
    "a page that cannot be read, a flag of this process alone": ("rx_image_faulted", "rx_commit_or_unlock"),
    "a process without membarrier beside one that relies on it": ("rx_store(&b->stamp, 0); | rx_limbo_stamp",),
    "a lock word of nobody: in a damaged file": ("rx_load(&slot->uid) != holder",),
    "cannot be, checked all the same (R1)": ("rx_unlock_all < rx_lock_node",),
    "who slept through a whole generation": ("rx_cas(word, &value, have)",),
    "the file was copied by another between two looks of one that writes the log out": (
        "rx_retract < rx_leave_write < rx_turn",
    ),
    "no thread can be made": ("rx_store32(&l->checkpointing, 0); | rx_checkpoint_if_due",),
    "another was faster, between a look and the taking": (
        "(void)rx_sys_renameat(dir_fd, name, dir_fd, RX_SPARE)",
        "rx_store(&a->owner, 0); | rx_take_idle",
        "rx_store(&a->owner, 0); | rx_adopt_some",
        "rx_store(&a->owner, 0); | rx_arena_borrow",
        "rx_store(&db->arenas[i].owner, 0); | rx_arena_idle",
    ),
}

FILE_CALLS = """open pwrite fallocate ftruncate fsync fdatasync msync mkdirat linkat renameat renameat2
    unlinkat openat""".split()
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
        return dict(zip(left, map(self._line, re.split(r"^0x[0-9a-f]+\n", told, flags=re.MULTILINE)[1:]), strict=True))

    def _line(self, told: str) -> str:
        """File and line, what stands there, and the functions that lead there."""
        lines = told.splitlines()
        frames = [(where.split(" ")[0], name) for name, where in zip(lines[::2], lines[1::2], strict=False)]
        frames = [frame for frame in frames if "persist.h" not in frame[0]] or frames
        path, number = frames[0][0].rsplit(":", 1)
        source = next(self.library.parent.rglob(Path(path).name), None)
        text = source.read_text().splitlines()[int(number) - 1].strip() if source and number.isdigit() else ""
        return f"{Path(path).name}:{number} {text} | {' < '.join(name for _, name in frames[:3])}"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
