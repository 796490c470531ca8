"""Connected voters that pysyncobj must take for disconnected, since it would send them what they cannot take.

Heartbeats behind its back keep them from campaigning meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from distlog.consensus.followers import Followers
from distlog.consensus.library import Library
from distlog.consensus.rules.send_window import SendWindow


class HeldBack:
    """The voters that a leader holds back."""

    def __init__(
        self,
        library: Library,
        send_window: SendWindow,
        followers: Followers,
        heartbeat_interval_s: float,
        send_heartbeat: Callable[[str], None],
        send_notice: Callable[[str], None],
    ) -> None:
        """send_notice(voter): tell a voter that it must copy a checkpoint."""
        self._library = library
        self._send_window = send_window
        self._followers = followers
        self._heartbeat_interval_s = heartbeat_interval_s
        self._send_heartbeat = send_heartbeat
        self._send_notice = send_notice
        self._next_heartbeat = 0.0
        # Their window is full, or their disk.
        self._paused: set[str] = set()
        # They lack entries which this journal does not keep any more, and must copy a checkpoint: whether they were asked for sure.
        self.stranded: dict[str, bool] = {}

    def pause(self, voter: str) -> None:
        """Send nothing to a voter until its window has room again."""
        self._paused.add(voter)
        self._library.disconnected(voter)

    def strand(self, voter: str) -> None:
        """Send no entries to a voter that seems to need some from before the first one kept.

        What is known of it may be old: it is told only when it has been asked by a heartbeat, and was not `reached`.
        """
        self.stranded.setdefault(voter, False)
        self._library.disconnected(voter)

    def reached(self, voter: str, next_index: int) -> None:
        """Go on with a voter that has what it lacked."""
        if voter in self.stranded:
            del self.stranded[voter]
            self._library.connected(voter)
            self._library.set_next_index(voter, next_index)

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
        for voter in sorted(self._paused | self.stranded.keys()):
            self._send_heartbeat(voter)
            if voter in self.stranded:
                self._tell(voter)

    def _tell(self, voter: str) -> None:
        """Have a stranded voter copy a checkpoint, from its second heartbeat on."""
        if self.stranded[voter]:
            # Each time: who has restarted meanwhile, or heard another leader, has forgotten it.
            self._send_notice(voter)
        self.stranded[voter] = True

    def drop(self, voter: str) -> None:
        """Forget a voter whose connection is gone."""
        self._paused.discard(voter)
        self.stranded.pop(voter, None)

    def clear(self) -> None:
        """Hold nobody back: the leadership or the term changed."""
        for voter in self._paused | self.stranded.keys():
            self._library.connected(voter)
        self._paused.clear()
        self.stranded.clear()
