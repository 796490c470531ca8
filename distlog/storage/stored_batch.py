"""A batch as it is read from a log: its provenance and its frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from distlog.block import split_frames


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """One batch.  `frames` are the store's bytes, prefixes included, and `data_crc32c` is
    theirs.
    """

    base_offset: int
    record_count: int
    attributes: int
    timestamp_ms: int
    # Which entry brought the batch: provenance only, nothing decides by it.
    raft_index: int
    term: int
    data_crc32c: int
    frames: bytes

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.record_count

    def records(self) -> Iterator[bytes]:
        """Yield the data of each record, from `base_offset` on."""
        return split_frames(self.frames)
