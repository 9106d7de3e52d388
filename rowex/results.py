"""
What `stats()`, `info()` and `check()` return.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

__all__ = ["CheckReport", "Info", "LogStatus", "Salvaged", "Stats", "UidInfo"]


@dataclass(frozen=True, slots=True)
class LogStatus:
    """
    Where the log stands.

    Attributes:
        position: Ticket of the last change that anybody made.
        durable: Ticket up to which everything survives the loss of power.
    """

    position: int
    durable: int


@dataclass(frozen=True)
class UidInfo:
    """
    One live uid: a thread that has worked on the index, a reader() or writer(), or what flushes the log.

    Attributes:
        uid: Never used twice.
        pid: Process, as it sees itself.
        tid: Thread in it.
        kind: "thread", "reader", "writer", or "flusher": a process's own thread that makes changes durable.
        inside: Whether an operation is in progress.
        age_s: How long that operation has been in progress, 0.0 where none is.
    """

    uid: int
    pid: int
    tid: int
    kind: str
    inside: bool
    age_s: float


@dataclass(frozen=True)
class Stats:
    """
    An index in numbers.  Taken while others may write: a weak picture, not a snapshot.

    Attributes:
        keys: As `len()` has it.
        nodes: Inner nodes by kind: "Node4", "Node16", "Node48", "Node256".
        leaves: Leaves met on the walk.
        used_bytes: In nodes and leaves.
        free_bytes: In free lists.
        retired_bytes: Unlinked, waiting for readers.
        unused_bytes: In extents, never given out.
        file_bytes: Length of the data file.
        capacity_bytes: To which it can grow before a copy and rename.
        depths: Leaves by number of nodes above them; the last entry: that many and more.
        locked_nodes: Nodes that a writer holds.
        dead_slots: Child slots whose child is gone.
        generation: 1, and one more for each copy and rename.
        epoch: The global epoch.
        growths: Steps by which the file grew, in this session of the file.
        copies: Copies and renames, likewise.
        takeovers: Uids of dead processes whose work was finished or voided, likewise.
        evictions: Stopped readers evicted, likewise.
        reclaimed_bytes: Retired bytes that were reused, likewise.
        reclaimed_cells: Retired cells that were reused, likewise.
        scans: Startup scans, likewise.
        uids: The live uids.
    """

    keys: int
    nodes: dict[str, int]
    leaves: int
    used_bytes: int
    free_bytes: int
    retired_bytes: int
    unused_bytes: int
    file_bytes: int
    capacity_bytes: int
    depths: tuple[int, ...]
    locked_nodes: int
    dead_slots: int
    generation: int
    epoch: int
    growths: int
    copies: int
    takeovers: int
    evictions: int
    reclaimed_bytes: int
    reclaimed_cells: int
    scans: int
    uids: tuple[UidInfo, ...]


@dataclass(frozen=True)
class Info:
    """
    What an index is: what its superblock says and what the handle knows.

    Attributes:
        path: Of the data file; None in memory.
        mode: As the handle was opened.
        version: Of the file format.
        uuid: Of the file; its sidecars carry it too.
        generation: 1, and one more for each copy and rename.
        session: One more at each first write after an opening.
        keys_codec: Name of the codec of the keys.
        values_codec: Name of the codec of the values.
        durability: Level, as a name.
        checksum: Whether values carry checksums.
        readonly: Whether this handle may only read.
        lockless: Whether it is read without a lock file (a read-only medium).
        clean: Whether the file is marked as closed cleanly.
        fences: Whether stores are flushed (files on DAX).
        file_bytes: Length of the data file.
        allocated_bytes: Of the data file that have blocks.
        break_bytes: Where the allocated extents end.
        capacity_bytes: To which it can grow before a copy and rename.
        max_size_bytes: Limit set at creation; None: none.
        door: "hot" or "slow".
        build: How the core was compiled.
    """

    path: str | None
    mode: str
    version: int
    uuid: UUID
    generation: int
    session: int
    keys_codec: str
    values_codec: str
    durability: str
    checksum: bool
    readonly: bool
    lockless: bool
    clean: bool
    fences: bool
    file_bytes: int
    allocated_bytes: int
    break_bytes: int
    capacity_bytes: int
    max_size_bytes: int | None
    door: str
    build: str


@dataclass(frozen=True)
class CheckReport:
    """
    A check that found no fault.

    Attributes:
        keys: As many as were counted.
        seconds: Time that it took.
    """

    keys: int
    seconds: float


@dataclass(frozen=True)
class Salvaged:
    """
    What `rowex.salvage` has got out, and what it has not.

    Each of the three files is "whole", "damaged", "missing", or "not needed" and so not read; the data
    file also "doubtful": nothing in it is damaged, but its pages may be of different moments.

    Attributes:
        target: Path of the new index.
        keys: In it.
        data_file: State of NAME.
        data_file_items: Sound items that its tree leads to.
        data_file_lost: Places in its tree that lead to nothing sound: an item each, or all that hung
            below a node.
        checkpoint: State of NAME-checkpoint.
        checkpoint_items: As of the data file.
        checkpoint_lost: Likewise.
        log: State of NAME-log.
        log_entries: Changes that were replayed.
        log_gaps: Places where changes are lost.
        log_lost_bytes: Between frames that could be read; what is lost at the end is not in it.
        orphans: Keys that are only in sound items to which nothing leads: below a lost node, or removed.
            Where they are left out, several items of one key count each.
        orphans_taken: Whether they are in the new index, perhaps with old values.
        options_known: Whether the codecs are those of the source; False: nothing told them.
        losses: What is lost and where, as text; the first 10,000.
    """

    target: str
    keys: int
    data_file: str
    data_file_items: int
    data_file_lost: int
    checkpoint: str
    checkpoint_items: int
    checkpoint_lost: int
    log: str
    log_entries: int
    log_gaps: int
    log_lost_bytes: int
    orphans: int
    orphans_taken: bool
    options_known: bool
    losses: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether the new index is what the source was when it was last durable: nothing is lost, or may be."""
        sound = self.checkpoint != "damaged" and self.log in ("whole", "not needed") and not self.losses
        return sound and self.data_file not in ("doubtful", "damaged")
