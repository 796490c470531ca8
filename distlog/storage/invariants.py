"""What must hold in the files, by the names that `distlog verify` gives them; and a fault: where one of them does not.

The names are part of what `--json` prints, so they never change; docs/format.md says what each of them means.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from distlog.errors import CorruptBatch, DiskFailed


class Invariant(StrEnum):
    """One thing that must hold."""

    # The files themselves.
    FILE_PRESENT = "file-present"
    FILE_SIZE = "file-size"
    READABLE = "readable"
    # One segment.
    ROW_CHECKSUM = "row-checksum"
    OFFSETS_CHAIN = "offsets-chain"
    POSITIONS_CHAIN = "positions-chain"
    TIMES_ORDERED = "times-ordered"
    BATCH_CHECKSUM = "batch-checksum"
    FRAMES_MATCH = "frames-match"
    INDEX_MATCHES = "index-matches"
    # One log.
    SEGMENTS_CHAIN = "segments-chain"
    MARK_READABLE = "mark-readable"
    MARK_FITS = "mark-fits"
    # A data directory.
    IDENTITY_READABLE = "identity-readable"
    IDENTITY_FITS = "identity-fits"
    CHECKPOINT_READABLE = "checkpoint-readable"
    JOURNAL_CHAIN = "journal-chain"
    JOURNAL_FITS = "journal-fits"
    ENTRY_READABLE = "entry-readable"
    PROVENANCE = "provenance"
    # Two directories.
    EQUAL = "equal"


@dataclass(frozen=True, slots=True)
class Fault:
    """Where something is wrong: a byte of a file, and the first offset that it touches."""

    path: str
    position: int
    # None where no record is concerned: journal, checkpoint, node.json.
    offset: int | None
    problem: str
    invariant: Invariant = Invariant.FILE_SIZE

    def error(self) -> CorruptBatch:
        return CorruptBatch(path=self.path, position=self.position, problem=self.problem)


def unreadable(error: DiskFailed, invariant: Invariant) -> Fault:
    """Return the fault of what the system does not give: `invariant` where something else has the name."""
    cause = error.__cause__
    if isinstance(cause, FileNotFoundError):
        # The name is there, or nobody would have opened it.
        return Fault(error.path, 0, None, "it is a link to what does not exist", invariant)
    if isinstance(cause, NotADirectoryError):
        return Fault(error.path, 0, None, "it is a file, not a directory", invariant)
    return Fault(error.path, 0, None, str(error), Invariant.READABLE)
