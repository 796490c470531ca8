"""When this voter campaigns: after silence of the leader, at once when the connection to it is lost, and never without a pre-vote.

    silence, connection lost -> questions to all -> a majority would vote -> the library's election
                  TimeoutNow of a leader that hands over ----------------->

The library never campaigns by itself: its own time-outs are out of reach.  All times here are the library's, which count a process
that was held up itself for a tenth of a second at most.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from distlog.consensus.journal import Journal
from distlog.consensus.library import Library, RaftSettings
from distlog.consensus.messages import Message, PreVoteReply, PreVoteRequest, TimeoutNow
from distlog.consensus.replicas import Replicas
from distlog.consensus.rules.pre_vote import PreVote

# A lost connection mostly means a dead process, which all others see at the same moment: the first of them asks after a random part of
# this, and who is asked meanwhile holds back.
LEADER_LOST_DELAY_MAX_S = 0.05
# A question that was not answered by a majority is asked again after so long.  It changes nothing, so it may be often.
ASK_AGAIN_MIN_S = 0.1
ASK_AGAIN_MAX_S = 0.2


class Elections:
    """The election timer of one voter."""

    def __init__(
        self,
        *,
        replicas: Replicas,
        journal: Journal,
        library: Library,
        pre_vote: PreVote,
        random: Random,
        settings: RaftSettings,
        send: Callable[[str, Message], None],
    ) -> None:
        """replicas: the other nodes, kept up to date by the caller."""
        self._replicas = replicas
        self._journal = journal
        self._library = library
        self._pre_vote = pre_vote
        self._random = random
        self._timeout_min_s = settings.election_timeout_min_s
        self._timeout_max_s = settings.election_timeout_max_s
        self._send = send
        # The last sign of a leader.  A voter that has just started does not know whom it heard before, so that counts as one.
        self._heard_at = library.now
        # When to ask the others next.
        self._due_at = library.now
        # How often it has campaigned.
        self.campaign_count = 0
        # The term whose leader told this voter to campaign.
        self._told_in = 0
        if replicas.voters:
            self.wait_for_leader()

    def tick(self) -> None:
        """Ask the others if it is time, and have the library campaign if a majority would vote; its tick must follow."""
        library = self._library
        if library.is_leader or not self._replicas.is_candidate:
            return
        if library.now >= self._due_at and not self._must_campaign:
            self._ask()
        if self._must_campaign and self._can_campaign:
            self._pre_vote.abandon()
            self.campaign_count += 1
            library.campaign()

    @property
    def _must_campaign(self) -> bool:
        term = self._library.term
        return self._told_in == term or self._pre_vote.is_won(term, self._replicas.voters)

    @property
    def _can_campaign(self) -> bool:
        # The library would keep in mind that it must, and do so much later without a question.
        return bool(self._replicas.reachable) or not self._replicas.voters

    @property
    def _hears_leader(self) -> bool:
        return self._library.is_leader or self._library.now < self._heard_at + self._timeout_min_s

    @property
    def has_leader(self) -> bool:
        """Tell whether a leader was heard as lately as a leader that hears nobody goes on leading."""
        return self._library.now < self._heard_at + 2 * self._timeout_max_s

    @property
    def _log_end(self) -> tuple[int, int]:
        """Return index and term of the last entry."""
        last_index = self._journal.last_index
        last_term = self._journal.term_at(last_index)
        assert last_term is not None, "the journal has a term for its last entry"
        return last_index, last_term

    def _ask(self) -> None:
        self._due_at = self._after(ASK_AGAIN_MIN_S, ASK_AGAIN_MAX_S)
        library = self._library
        number = self._pre_vote.begin(library.term)
        request = PreVoteRequest(library.term, number, *self._log_end)
        for voter in sorted(self._replicas.counting):
            self._send(voter, request)

    # --- What happens --------------------------------------------------------------------------

    def leader_heard(self) -> None:
        """A leader of this term, or of a newer one, has sent something."""
        self._heard_at = self._library.now
        self.wait_for_leader()

    def leader_lost(self) -> None:
        """The connection to the leader is lost: nobody has to wait for its silence."""
        self._heard_at = float("-inf")
        self._due_at = min(self._due_at, self._after(0.0, LEADER_LOST_DELAY_MAX_S))

    def wait_for_leader(self) -> None:
        """Ask nobody for an election time-out: the role of this voter changed, or it has voted."""
        self._pre_vote.abandon()
        self._due_at = self._after(self._timeout_min_s, self._timeout_max_s)

    def voters_changed(self) -> None:
        """The set of voters is another one: whoever became a voter waits for the leader, and who is alone for nobody."""
        self.wait_for_leader()
        if not self._replicas.voters:
            self._due_at = self._library.now

    def term_adopted(self) -> None:
        """The others were found to be in a newer term: what was asked in the older one is asked again."""
        if self._pre_vote.is_asking:
            self._pre_vote.abandon()
            self._due_at = self._after(0.0, LEADER_LOST_DELAY_MAX_S)

    def receive_request(self, sender: str, request: PreVoteRequest) -> None:
        """Say whether this voter would vote for `sender`; a refusal is silence."""
        library = self._library
        last_index, last_term = self._log_end
        if not self._pre_vote.grants(
            request,
            term=library.term,
            last_index=last_index,
            last_term=last_term,
            hears_leader=self._hears_leader,
        ):
            return
        if sender < self._replicas.node_id:
            # Of two that ask at the same moment one goes on: each would vote for itself, and nobody would win.
            self._pre_vote.abandon()
        self._due_at = max(self._due_at, self._after(ASK_AGAIN_MIN_S, ASK_AGAIN_MAX_S))
        self._send(sender, PreVoteReply(library.term, request.number))

    def receive_reply(self, sender: str, reply: PreVoteReply) -> None:
        """Count a voter that would vote."""
        if self._replicas.counts(sender):
            self._pre_vote.take(sender, reply)

    def receive_timeout_now(self, sender: str, message: TimeoutNow) -> None:
        """The leader hands over to this voter; of an older term, or not from the leader, that is over."""
        if sender == self._library.leader_id and message.sender_term == self._library.term:
            self._told_in = message.sender_term

    def _after(self, delay_min_s: float, delay_max_s: float) -> float:
        return self._library.now + self._random.uniform(delay_min_s, delay_max_s)
