"""What an open log says of its segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distlog.storage.seed_segment import SeedSegment
from distlog.storage.segment import Segment


@dataclass(frozen=True, slots=True)
class SegmentDescription:
    """One segment."""

    path: str
    base_offset: int
    next_offset: int
    store_size: int
    batch_count: int
    # Why it cannot be read; empty if it can.
    problem: str


def describe(segments: Sequence[Segment | SeedSegment]) -> list[SegmentDescription]:
    """Return what there is, segment by segment."""
    return [
        SegmentDescription(
            path=segment.path,
            base_offset=segment.base_offset,
            next_offset=segment.next_offset,
            store_size=segment.store_size,
            batch_count=segment.batch_count,
            problem=str(segment.quarantine) if segment.quarantine else "",
        )
        for segment in segments
    ]
