"""Warnings about peers, not more often than a person wants to read them.

A peer that is down or not welcome is tried again every second for as long as it takes; strangers may knock at any rate.
Everything is counted, but the log gets the same complaint about the same peer once a minute, and a complaint of one
kind once a second.  What passes by itself as a rule, since one node knows something a moment later than another, gets a line when it lasts.
"""

from __future__ import annotations

import logging

from distlog.runtime import Clock

REPEAT_S = 60.0
INTERVAL_S = 1.0
# What passes as a rule lasts when it is still there after so long, and was complained about at least so often.
PATIENCE_S, PATIENCE_GAP_S = 5.0, 10.0
# Stands for everybody who has not said who it is: strangers share one allowance, so the table stays small.
STRANGER = ""

logger = logging.getLogger("distlog.peer")


class Complaints:
    """Decides which complaints are worth a line."""

    def __init__(self, clock: Clock, passing: tuple[str, ...] = ()) -> None:
        """passing: how problems end that pass by themselves as a rule."""
        self._clock = clock
        self._passing = passing
        # (node id or STRANGER, event) -> when it was logged last, and with which problem.
        self._last: dict[tuple[str, str], tuple[float, str]] = {}
        # (node id or STRANGER, event) -> since when there is something that passes as a rule, and when it was there last.
        self._lasting: dict[tuple[str, str], tuple[float, float]] = {}

    def log(self, level: int, event: str, node_id: str, problem: str) -> None:
        """Log a line, unless it or one like it was logged just now.  `node_id` is a known node or STRANGER."""
        now = self._clock.monotonic()
        if problem.endswith(self._passing) and not self._lasts((node_id, event), now):
            return
        last = self._last.get((node_id, event))
        if last is not None:
            elapsed = now - last[0]
            if elapsed < INTERVAL_S or (elapsed < REPEAT_S and last[1] == problem):
                return
        self._last[node_id, event] = (now, problem)
        logger.log(level, "%s peer=%s problem=%s", event, node_id or "?", problem)

    def _lasts(self, key: tuple[str, str], now: float) -> bool:
        since, last = self._lasting.get(key, (now, now))
        if now - last > PATIENCE_GAP_S:
            since = now
        self._lasting[key] = (since, now)
        return now - since >= PATIENCE_S

    def forget(self, node_id: str) -> None:
        """Log the same complaint about this node again soon, and not only after a minute: it has been fine in between.

        Not at once: a peer that shakes hands and then breaks the protocol may do so at any rate.
        """
        for (name, event), (logged_at, _) in self._last.items():
            if name == node_id:
                self._last[name, event] = (logged_at, "")
        for name, event in list(self._lasting):
            if name == node_id:
                del self._lasting[name, event]
