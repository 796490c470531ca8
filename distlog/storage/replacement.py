"""Segments that take the place of others of an open log: of those that were set aside when it was opened.

What was found missing is a range of offsets: the end of a segment, or several of them at once.  What takes its place are whole segments,
so one beside it that is only cut short goes with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from distlog.storage.listing import SegmentListing
from distlog.storage.read_plan import ReadPlan
from distlog.storage.seed_segment import SeedSegment
from distlog.storage.segment import Segment

AnySegment = Segment | SeedSegment


def overlapping(segments: Sequence[AnySegment], first: int, end: int) -> list[AnySegment]:
    """Return those with one of the offsets [first, end)."""
    return [each for each in segments if each.next_offset > first and each.base_offset < end]


@contextmanager
def held(segments: Sequence[AnySegment]) -> Iterator[None]:
    """Have the files of sealed segments stay, whatever is trimmed or deleted meanwhile."""
    # As if somebody read them.
    reader = ReadPlan(segments, 0, 0, blocking=True)
    try:
        yield
    finally:
        reader.release()


def fits(segments: Sequence[AnySegment], listings: Sequence[SegmentListing]) -> bool:
    """Tell whether sealed segments, each beginning where the one before ends, fit in the place of those that they overlap.

    The last one of `segments`, which is written, is not replaced.
    """
    first, end = listings[0].base_offset, listings[-1].next_offset
    old = overlapping(segments, first, end)
    if not old or old[-1] is segments[-1] or old[-1].next_offset != end:
        return False
    # Of the first one that is kept the beginning may be missing, and trimmed.
    return old[0].base_offset == first or (old[0] is segments[0] and old[0].base_offset > first)


def replace(segments: list[AnySegment], new: Sequence[Segment]) -> None:
    """Put segments in the place of those that they overlap, whose readers they take over."""
    old = overlapping(segments, new[0].base_offset, new[-1].next_offset)
    for segment in new:
        for each in old:
            segment.readers.update(each.readers)
    place = segments.index(old[0])
    segments[place : place + len(old)] = new
