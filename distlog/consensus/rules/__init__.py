"""What must be put around pysyncobj 0.3.17 so that it keeps Raft's promises, one part a duty.

    election   Candidacy, PreVote -> pysyncobj
    incoming   Identity -> VoteFilter | AcknowledgementFilter, CommitGate | AppendFilter -> pysyncobj
    outgoing   pysyncobj -> SendWindow, PersistenceGate -> peers
    members    OneChange, CaughtUp -> journal -> ConfigurationLog -> pysyncobj's set of voters

Each part is a small class on typed messages; it knows nothing of pysyncobj, asyncio or sockets, and its file opens with the
failure that it prevents.  `Rules` composes them: the product has one composition and no switch.  A test builds a node with one
part replaced by a part that does nothing, and must see that node break its promise.

Deliberately absent: rules for snapshots, which the library never sends (distlog/catch_up copies files instead).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from distlog.consensus.messages import Message
from distlog.consensus.rules.acknowledgements import AcknowledgementFilter
from distlog.consensus.rules.append_filter import AppendFilter, ConsensusViolated
from distlog.consensus.rules.candidacy import Candidacy
from distlog.consensus.rules.caught_up import CaughtUp
from distlog.consensus.rules.commit_gate import CommitGate
from distlog.consensus.rules.configuration_log import ConfigurationLog
from distlog.consensus.rules.identity import Identity
from distlog.consensus.rules.one_change import OneChange
from distlog.consensus.rules.persistence_gate import PersistenceGate
from distlog.consensus.rules.pre_vote import PreVote
from distlog.consensus.rules.send_window import SendWindow
from distlog.consensus.rules.vote_filter import VoteFilter

__all__ = ["ConsensusViolated", "Rules", "Transmit", "complete_rules"]

Transmit = Callable[[str, Message], None]


@dataclass(frozen=True, slots=True)
class Rules:
    """The parts around one pysyncobj."""

    persistence_gate: PersistenceGate
    commit_gate: CommitGate
    append_filter: AppendFilter
    acknowledgements: AcknowledgementFilter
    vote_filter: VoteFilter
    pre_vote: PreVote
    send_window: SendWindow
    configuration_log: ConfigurationLog
    one_change: OneChange
    caught_up: CaughtUp
    identity: Identity
    candidacy: Candidacy

    def drop(self, voter: str) -> None:
        """Forget a voter whose connection is gone."""
        self.persistence_gate.drop(voter)
        self.commit_gate.drop(voter)
        self.acknowledgements.drop(voter)
        self.send_window.drop(voter)
        self.caught_up.drop(voter)

    def clear(self) -> None:
        """Forget what a leader knows of its voters: the leadership or the term changed."""
        self.commit_gate.clear()
        self.acknowledgements.clear()
        self.send_window.clear()
        self.caught_up.clear()


def complete_rules(transmit: Transmit, in_flight_size_max: int) -> Rules:
    """Return the product's composition: every part, sending by `transmit`."""
    return Rules(
        persistence_gate=PersistenceGate(transmit),
        commit_gate=CommitGate(),
        append_filter=AppendFilter(),
        acknowledgements=AcknowledgementFilter(),
        vote_filter=VoteFilter(),
        pre_vote=PreVote(),
        send_window=SendWindow(in_flight_size_max),
        configuration_log=ConfigurationLog(),
        one_change=OneChange(),
        caught_up=CaughtUp(),
        identity=Identity(),
        candidacy=Candidacy(),
    )
