"""Seek by time: the first batch at or after a timestamp.

A log's timestamps never decrease, so both steps are binary searches: over the sealed segments, of which about log2 are opened,
and over the rows of one batch table.  A segment that cannot be read is passed over as long as its neighbours show that the
batch is not in it.  Where it may be, the search says so and gives no answer: the next best one would skip records silently.
"""

from __future__ import annotations

from collections.abc import Sequence

from distlog.errors import CorruptBatch
from distlog.storage.seed_segment import SeedSegment
from distlog.storage.segment import Segment

AnySegment = Segment | SeedSegment


class TimeSearch:
    """A search that was decided on the log's thread and may run on another one."""

    def __init__(
        self, sealed: Sequence[AnySegment], timestamp_ms: int, start_offset: int, end: int
    ) -> None:
        """`sealed` may hold the batch; if none of them does, the answer is `end`."""
        # False if no file is touched: run it on the log's thread then.
        self.blocking = len(sealed) > 0
        self._sealed = sealed
        self._timestamp_ms = timestamp_ms
        self._start_offset = start_offset
        self._end = end
        # Segments go from the front only, so holding the first one holds all.
        for segment in sealed[:1]:
            segment.readers.add(self)

    def run(self) -> int:
        """Return the offset.  Once only; in a worker if `blocking`.

        Raises CorruptBatch if the batch may be where nothing can be read.
        """
        try:
            # The batch may begin before what is kept of it.
            return max(self._start_offset, self._find())
        finally:
            self.release()

    def _find(self) -> int:
        timestamp_ms = self._timestamp_ms
        damage: CorruptBatch | None = None
        for segment in self._sealed[first_not_older(self._sealed, timestamp_ms) :]:
            try:
                first, _ = segment.time_range()
            except CorruptBatch as error:
                damage = damage or error
                continue
            if damage is None or first < timestamp_ms:
                return segment.find_time(timestamp_ms)
            break
        if damage is None:
            return self._end
        problem = f"{damage.problem}; the first batch of time {timestamp_ms} or later may be in it"
        raise CorruptBatch(path=damage.path, position=damage.position, problem=problem)

    def release(self) -> None:
        """Let go of the segments without searching."""
        for segment in self._sealed[:1]:
            segment.readers.discard(self)


def first_not_older(sealed: Sequence[AnySegment], timestamp_ms: int) -> int:
    """Return how many segments, from the first on, are known to hold only batches before `timestamp_ms`.

    Opens about log2 of the segments, and those that cannot be read of the ones that it comes by.
    """
    low, high = 0, len(sealed)
    # Invariant: those before `low` are older; those from `high` on are not, or cannot be read.
    while low < high:
        middle = probe = (low + high) // 2
        last = None
        while last is None and probe < high:
            last = _last_timestamp_ms(sealed[probe])
            probe += 1
        if last is not None and last < timestamp_ms:
            low = probe
        else:
            high = middle
    return low


def _last_timestamp_ms(segment: AnySegment) -> int | None:
    """Return the time of the segment's last batch, None if it cannot be read."""
    try:
        return segment.time_range()[1]
    except CorruptBatch:
        return None
