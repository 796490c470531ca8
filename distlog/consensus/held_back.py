"""Connected voters that pysyncobj must take for disconnected, since it would send them what they cannot take.

Heartbeats behind its back keep them from campaigning meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from distlog.consensus.followers import Followers
from distlog.consensus.library import Library
from distlog.consensus.rules.send_window import SendWindow

logger = logging.getLogger(__name__)


class HeldBack:
    """The voters that a leader holds back."""

    def __init__(
        self,
        library: Library,
        send_window: SendWindow,
        followers: Followers,
        heartbeat_interval_s: float,
        send_heartbeat: Callable[[str], None],
    ) -> None:
        self._library = library
        self._send_window = send_window
        self._followers = followers
        self._heartbeat_interval_s = heartbeat_interval_s
        self._send_heartbeat = send_heartbeat
        self._next_heartbeat = 0.0
        # Their window is full, or their disk.
        self._paused: set[str] = set()
        # They lack entries which no journal keeps any more: they must be replaced.
        self.stranded: set[str] = set()

    def pause(self, voter: str) -> None:
        """Send nothing to a voter until its window has room again."""
        self._paused.add(voter)
        self._library.disconnected(voter)

    def strand(self, voter: str, first_index: int) -> None:
        """Give a voter up that needs entries from before the first one kept, and say so."""
        # Nobody keeps what this voter lacks: only an old copy of a data directory can be so far behind.
        if voter not in self.stranded:
            logger.error(
                "a voter lacks entries that no node keeps: its data directory is an old copy, so replace that node "
                "voter=%s first_kept_index=%d",
                voter,
                first_index,
            )
        self.stranded.add(voter)
        self._library.disconnected(voter)

    def tend(self) -> None:
        """Call at each tick: resume the voters that have room again, and keep the others from campaigning."""
        for voter in sorted(self._paused - self._followers.full):
            resume_at = self._send_window.resume(voter)
            if resume_at is not None:
                self._paused.discard(voter)
                self._library.connected(voter)
                # An older refusal may have set it back behind what was confirmed since, and perhaps forgotten here.
                confirmed = self._followers.matched.get(voter, 0)
                self._library.set_next_index(voter, max(resume_at, confirmed + 1))
        if not self._library.is_leader or self._library.now < self._next_heartbeat:
            return
        self._next_heartbeat = self._library.now + self._heartbeat_interval_s
        for voter in sorted(self._paused | self.stranded):
            self._send_heartbeat(voter)

    def drop(self, voter: str) -> None:
        """Forget a voter whose connection is gone."""
        self._paused.discard(voter)
        self.stranded.discard(voter)

    def clear(self) -> None:
        """Hold nobody back: the leadership or the term changed."""
        for voter in self._paused | self.stranded:
            self._library.connected(voter)
        self._paused.clear()
        self.stranded.clear()
