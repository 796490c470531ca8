"""How much of a log is kept: which start a retention by size, age or offset comes to.

Only whole sealed segments go, never the active one and never a part of one, so nothing is ever rewritten.  The functions
here are pure: what to keep comes from outside, also the time, and two nodes with the same log come to the same start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distlog.storage.time_search import AnySegment, first_not_older


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept at least.  What lies beyond either limit goes, as soon as a whole segment of it does."""

    # The newest so many bytes of store; 0: all.
    size: int = 0
    # What is younger than this, milliseconds; 0: everything.
    age_ms: int = 0

    def __bool__(self) -> bool:
        """Tell whether anything ever goes."""
        return bool(self.size or self.age_ms)


KEEP_ALL = Retention()


def start_by_size(segments: Sequence[AnySegment], size: int) -> int:
    """Return the start that keeps the newest `size` bytes of store, and less than a segment more.

    The last one of `segments` is the active one.  Bytes of a segment that cannot be read may not be known; then more is kept.
    """
    left = sum([segment.store_size for segment in segments])
    for segment in segments[:-1]:
        left -= segment.store_size
        if left < size:
            return segment.base_offset
    return segments[-1].base_offset


def start_by_offset(segments: Sequence[AnySegment], offset: int) -> int:
    """Return the start that keeps `offset` and what is after it: where its segment begins."""
    start = segments[0].base_offset
    for segment in segments:
        if segment.base_offset > offset:
            break
        start = segment.base_offset
    return start


class RetentionPlan:
    """A question that was asked on the log's thread and may be answered on another one."""

    def __init__(
        self, segments: Sequence[AnySegment], start_offset: int, before_ms: int | None
    ) -> None:
        """Segments of which every batch is of a time before `before_ms` go; None: none goes for its age.

        `start_offset` is what is known already.
        """
        self._sealed = segments[:-1] if before_ms is not None else ()
        self._active_base_offset = segments[-1].base_offset
        self._before_ms = before_ms
        self._start_offset = start_offset
        # False if no file is touched: run it on the log's thread then.
        self.blocking = len(self._sealed) > 0
        # Segments go from the front only, so holding the first one holds all.
        for segment in self._sealed[:1]:
            segment.readers.add(self)

    def run(self) -> int:
        """Return the start that the log would have.  Once only; in a worker if `blocking`.

        A segment that cannot be read goes when the next one does that can.
        """
        try:
            return max(self._start_offset, self._start_by_age())
        finally:
            self.release()

    def _start_by_age(self) -> int:
        if self._before_ms is None:
            return self._start_offset
        first_kept = first_not_older(self._sealed, self._before_ms)
        if first_kept == len(self._sealed):
            return self._active_base_offset
        return self._sealed[first_kept].base_offset

    def release(self) -> None:
        """Let go of the segments without an answer."""
        for segment in self._sealed[:1]:
            segment.readers.discard(self)
