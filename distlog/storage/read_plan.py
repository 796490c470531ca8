"""A read that was decided on the log's thread and may run on another one."""

from __future__ import annotations

from collections.abc import Sequence

from distlog.errors import CorruptBatch
from distlog.storage.seed_segment import SeedSegment
from distlog.storage.segment import Segment
from distlog.storage.stored_batch import StoredBatch


class ReadPlan:
    """Which segments a read goes to.  They keep their files until it has run or is forgotten."""

    def __init__(
        self,
        segments: Sequence[Segment | SeedSegment],
        offset: int,
        size_max: int,
        *,
        blocking: bool,
    ) -> None:
        # False if only memory of the active segment is touched: run it on the log's thread then.
        self.blocking = blocking
        self._segments = segments
        self._offset = offset
        self._size_max = size_max
        for segment in segments:
            segment.readers.add(self)

    def run(self) -> list[StoredBatch]:
        """Return whole batches from the offset on, at least one.  Once only; in a worker if
        `blocking`.

        Raises CorruptBatch if stored bytes are not what was written.
        """
        try:
            batches = self._segments[0].read(self._offset, self._size_max)
            left = self._size_max - sum([len(batch.frames) for batch in batches])
            for segment in self._segments[1:]:
                if batches[-1].next_offset < segment.base_offset or left <= 0:
                    break
                try:
                    more = segment.read(segment.base_offset, left)
                except CorruptBatch:
                    # What was read is good; the next read begins there, and says so.
                    break
                if len(more[0].frames) > left:
                    break
                batches += more
                left -= sum([len(batch.frames) for batch in more])
            return batches
        finally:
            self.release()

    def release(self) -> None:
        """Let go of the segments without reading."""
        for segment in self._segments:
            segment.readers.discard(self)
