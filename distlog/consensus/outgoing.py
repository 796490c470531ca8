"""What one voter sends: no promise before its fsync, and to each follower only what it can take.

the library's AppendEntries -> SendWindow -> number, commit index, retain_from -> PersistenceGate -> peers
                                  | no room, or the journal has it no more
                                  v
                               HeldBack -> heartbeats
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distlog.consensus.entry_traces import EntryTraces
from distlog.consensus.followers import Followers
from distlog.consensus.held_back import HeldBack
from distlog.consensus.journal import Journal
from distlog.consensus.library import Library, RaftSettings
from distlog.consensus.messages import AppendEntries, CheckpointNeeded, EntryTuple, Message
from distlog.consensus.replicas import Replicas
from distlog.consensus.rules import ConsensusViolated, Rules


class Outgoing:
    """The outgoing half of `Raft`."""

    def __init__(
        self,
        library: Library,
        journal: Journal,
        rules: Rules,
        replicas: Replicas,
        followers: Followers,
        settings: RaftSettings,
        retain_from: Callable[[], int],
    ) -> None:
        """retain_from(): every voter has acknowledged every entry below this one."""
        self._library = library
        self._journal = journal
        self._rules = rules
        self._replicas = replicas
        self._followers = followers
        self._retain_from = retain_from
        # What is told of the traces of entries.
        self.traces = EntryTraces()
        # AppendEntries sent by this process to anybody.
        self.sent_count = 0
        self.held_back = HeldBack(
            library,
            rules.send_window,
            followers,
            settings.heartbeat_interval_s,
            self._send_heartbeat,
            self._send_notice,
        )

    def send(self, voter: str, message: Message) -> None:
        """Send a message as soon as what it promises is durable."""
        journal = self._journal
        self._rules.persistence_gate.send(
            voter,
            message,
            sequence=journal.sequence,
            vote_sequence=journal.vote_sequence,
            promisable=journal.promisable_sequence,
        )

    def send_append(self, voter: str, message: dict[str, Any]) -> bool:
        """Send what the library wants a voter to append; False if the voter is held back."""
        if "transmission" in message:
            raise ConsensusViolated("the library splits an entry")
        if "serialized" in message:
            self.held_back.strand(voter)
            return False
        append = self._append(
            voter, message["prevLogIdx"], message["prevLogTerm"], list(message["entries"])
        )
        if not self._rules.send_window.admit(voter, append, is_full=voter in self._followers.full):
            self.held_back.pause(voter)
            return False
        if self.traces.is_following:
            append.traces = self.traces.sending(voter, append.entries)
        self.send(voter, append)
        return True

    def _append(
        self, voter: str, previous_index: int, previous_term: int, entries: list[EntryTuple]
    ) -> AppendEntries:
        self.sent_count += 1
        self._followers.told(voter, self._library.commit_index)
        return AppendEntries(
            sender_term=self._library.term,
            number=self.sent_count,
            commit_index=self._library.commit_index,
            previous_index=previous_index,
            previous_term=previous_term,
            retain_from=self._retain_from(),
            entries=entries,
        )

    @property
    def has_news(self) -> bool:
        """Tell whether this leader has committed something that a connected member was not told."""
        return self._library.is_leader and bool(
            self._followers.untold(self._replicas.reachable, self._library.commit_index)
        )

    def announce_commit(self) -> None:
        """Tell the voters what is committed, unless an AppendEntries with entries has told them meanwhile."""
        if self._library.is_leader:
            for voter in self._followers.untold(
                self._replicas.reachable, self._library.commit_index
            ):
                self._send_heartbeat(voter)

    def _send_heartbeat(self, voter: str) -> None:
        """Send an AppendEntries without entries behind what the voter has confirmed, or what every voter has.

        Who lacks that entry refuses it, and knows of its leader all the same.
        """
        matched = max(
            self._followers.matched.get(voter, self._retain_from()), self._journal.first_index
        )
        term = self._journal.term_at(matched)
        if term is not None:
            self.send(voter, self._append(voter, matched, term, []))

    def _send_notice(self, voter: str) -> None:
        # What every voter has is forgotten whenever a checkpoint is written, and a copy has one written.
        first_index = max(self._journal.first_index, self._retain_from())
        self.send(voter, CheckpointNeeded(self._library.term, first_index))
