"""Make a voter of a learner only when it has what the voters have.

A voter that lacks the log counts for the majority and cannot acknowledge anything before it has caught up: a cluster of one that takes
such a second voter takes no writes until then, and one of three has lost the failure that it could have stood.
"""

from __future__ import annotations

# Entries that are on their way under load do not count as lag.
LAG_MAX = 100
# A learner that only reaches the end of a short log for a moment has not shown that it keeps up.
STEADY_S = 0.25


class CaughtUp:
    """Watches how far behind each learner is, as one leader knows it."""

    def __init__(self) -> None:
        # Since when each is close behind.
        self._close_since: dict[str, float] = {}

    def watch(
        self,
        learner: str,
        *,
        is_silent: bool,
        match_index: int,
        needed_index: int,
        last_index: int,
        now: float,
    ) -> bool:
        """Take how far a learner is; tell whether it may vote.

        is_silent: it has answered nothing for a while, and what it had says nothing of now.
        match_index: the last entry that it has durably, 0 if it has not told this leader.
        needed_index: the one that every voter has, by which an old copy of a voter's directory is told.
        """
        if is_silent or match_index < needed_index or last_index - match_index > LAG_MAX:
            self._close_since.pop(learner, None)
            return False
        return now - self._close_since.setdefault(learner, now) >= STEADY_S

    def drop(self, learner: str) -> None:
        """Forget a learner that is away."""
        self._close_since.pop(learner, None)

    def clear(self) -> None:
        """Forget everything: the leadership or the term changed."""
        self._close_since.clear()
