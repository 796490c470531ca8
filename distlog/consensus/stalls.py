"""How long the event loop was kept from everything else: each step of a group is measured, and so is how late its timer comes.

A node does everything on one loop, so what takes long there makes everything else late: heartbeats, answers, fsyncs that could have
begun.  Steps are measured where they happen; a timer that comes late shows what kept the loop busy elsewhere, or kept the whole
process from running.  What is called a stall is long enough to be felt, and far from an election time-out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from distlog.measures import Histogram

logger = logging.getLogger(__name__)

STALL_S = 0.02
# Worth a line, and how often.
LOGGED_S = 0.1
LOG_INTERVAL_S = 10.0
# Upper bounds of the lengths of steps.
BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class StallReport:
    """What was measured since the start."""

    # The longest, and how many were at least STALL_S long.
    longest_s: float
    count: int


NO_STALLS = StallReport(0.0, 0)


class Stalls:
    """The numbers of one group.  All times are those of one clock, in seconds."""

    def __init__(self) -> None:
        self._longest_s = 0.0
        self._count = 0
        # Steps of the group by their length.
        self.steps = Histogram(BUCKETS_S)
        # When the last stall that was seen ended, and when one was logged last.
        self._ended_at = float("-inf")
        self._logged_at = float("-inf")

    def stepped(self, began_at: float, ended_at: float) -> None:
        """Take the times of one step."""
        duration_s = ended_at - began_at
        self.steps.add(duration_s)
        self._take(duration_s, ended_at, "a step of consensus")

    def was_due(self, due_at: float, began_at: float) -> None:
        """Take when a timer or a step was due and when it came: between the two the loop was busy, or the process did not run."""
        if self._ended_at < due_at:
            self._take(began_at - due_at, began_at, "other work, or the process did not run")

    def _take(self, duration_s: float, ended_at: float, cause: str) -> None:
        self._longest_s = max(self._longest_s, duration_s)
        if duration_s < STALL_S:
            return
        self._count += 1
        self._ended_at = ended_at
        if duration_s >= LOGGED_S and ended_at - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = ended_at
            logger.warning(
                "the event loop was held up, and everything with it: look for a busy machine or a slow disk duration_ms=%.0f "
                "cause=%s stalls=%d",
                duration_s * 1000,
                cause,
                self._count,
            )

    def report(self) -> StallReport:
        """Return the numbers as they are now."""
        return StallReport(self._longest_s, self._count)
