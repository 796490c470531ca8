"""How much was read from the logs of a node for its clients: plain counts, of whole batches as they are read."""

from __future__ import annotations

from collections.abc import Sequence

from distlog.storage.log import StoredBatch


class ServedReads:
    """Counts since the start."""

    def __init__(self) -> None:
        self.read_count = self.record_count = self.size = 0

    def add(self, batches: Sequence[StoredBatch]) -> None:
        """Take what one read has returned."""
        self.read_count += 1
        for batch in batches:
            self.record_count += batch.record_count
            self.size += len(batch.frames)
