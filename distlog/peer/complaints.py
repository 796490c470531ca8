"""Warnings about peers, not more often than a person wants to read them.

A peer that is down or not welcome is tried again every second for as long as it takes; strangers may knock at any rate.
Everything is counted, but the log gets the same complaint about the same peer once a minute, and a complaint of one
kind once a second.
"""

from __future__ import annotations

import logging

from distlog.runtime import Clock

REPEAT_S = 60.0
INTERVAL_S = 1.0
# Stands for everybody who has not said who it is: strangers share one allowance, so the table stays small.
STRANGER = ""

logger = logging.getLogger("distlog.peer")


class Complaints:
    """Decides which complaints are worth a line."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # (node id or STRANGER, event) -> when it was logged last, and with which problem.
        self._last: dict[tuple[str, str], tuple[float, str]] = {}

    def log(self, level: int, event: str, node_id: str, problem: str) -> None:
        """Log a line, unless it or one like it was logged just now.  `node_id` is a known node or STRANGER."""
        now = self._clock.monotonic()
        last = self._last.get((node_id, event))
        if last is not None:
            elapsed = now - last[0]
            if elapsed < INTERVAL_S or (elapsed < REPEAT_S and last[1] == problem):
                return
        self._last[node_id, event] = (now, problem)
        logger.log(level, "%s peer=%s problem=%s", event, node_id or "?", problem)

    def forget(self, node_id: str) -> None:
        """Log the same complaint about this node again soon, and not only after a minute: it has been fine in between.

        Not at once: a peer that shakes hands and then breaks the protocol may do so at any rate.
        """
        for (name, event), (logged_at, _) in self._last.items():
            if name == node_id:
                self._last[name, event] = (logged_at, "")
