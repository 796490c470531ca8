"""What became of the spans of a node, for who counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SpanCounts:
    """Spans by what became of them, since the start."""

    exported: int = 0
    # The queue was full, or the node stopped.
    dropped: int = 0
    # They were sent, and not taken.
    failed: int = 0
    # In the queue, or being sent; and the limit of that.
    waiting: int = 0
    waiting_max: int = 0
