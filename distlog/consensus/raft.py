"""One voter: typed messages through the rules to the library, and what the library wants to send back out as typed messages.

receive -> rules -> library.deliver          tick -> library.tick -> send_from_library -> outgoing -> peers
                                                                 -> apply_from_library -> state machine
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from distlog.consensus.configuration import Configuration
from distlog.consensus.elections import Elections
from distlog.consensus.entry_traces import EntryTraces
from distlog.consensus.followers import Followers
from distlog.consensus.following import Following
from distlog.consensus.journal import Journal
from distlog.consensus.journal_view import JournalView, RestorePoint
from distlog.consensus.library import Done, Library, ProposedEntry, RaftSettings
from distlog.consensus.messages import (
    AppendEntries,
    AppendReply,
    CheckpointNeeded,
    Message,
    PreVoteReply,
    PreVoteRequest,
    TermNotice,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from distlog.consensus.outgoing import Outgoing
from distlog.consensus.replicas import Replicas
from distlog.consensus.rules import ConsensusViolated, Rules
from distlog.consensus.space import Space
from distlog.runtime import Clock

# Answers that may wait for an fsync.
HELD_MAX = 10_000


class Raft:
    """One voter of one group.  Single-threaded; nothing here blocks except reads of old journal entries."""

    def __init__(
        self,
        *,
        node_id: str,
        directory_id: str,
        configuration: Configuration,
        journal: Journal,
        restore_point: RestorePoint | None,
        clock: Clock,
        random: Random,
        settings: RaftSettings,
        rules: Rules,
        space: Space,
        apply: Callable[[int, int, bytes], Any],
        traces: EntryTraces | None = None,
    ) -> None:
        """configuration: that of the restore point, or what the cluster was formed with; the journal may hold newer ones.

        `apply(raft_index, term, payload)` is called for every committed entry once, in order.

        Raises ConsensusViolated if the journal does not fit the restore point.
        """
        self.journal = journal
        self._settings = settings
        self._rules, self._space = rules, space
        self._apply = apply
        self._traces = traces or EntryTraces()
        self.configurations = log = rules.configuration_log
        log.begin(configuration)
        self.replicas = replicas = Replicas(node_id, directory_id, rules)
        self.followers = followers = Followers()
        self._following = Following(journal, rules.append_filter, space)
        # Called with the first entry that the leader keeps, when this node needs older ones; often, until it does not any more.
        self.checkpoint_needed: Callable[[int], None] = lambda _first_index: None
        # Every voter has acknowledged every entry below this one, as far as this node knows.  Never falls.
        self.retain_from = 1
        # What was committed when this node first heard from a leader, or led; 0: it has not yet.  And whether all of that is applied.
        self.catch_up_target = 0
        self.has_caught_up = False
        # A message has arrived that a tick could make something of.
        self._stirred = False
        self._proposals: list[ProposedEntry] = []
        view = JournalView(journal, restore_point, lambda: self.last_applied, space, log)
        self._library = Library(
            owner=self,
            node_id=node_id,
            other_voters=sorted(replicas.voters),
            view=view,
            restore_point=restore_point,
            clock=clock,
            random=random,
            settings=settings,
        )
        replicas.steer(self._library)
        view.configuration_changed = replicas.configuration_changed
        view.count_costs()
        self.outgoing = Outgoing(
            self._library, journal, rules, replicas, followers, settings, lambda: self.retain_from
        )
        self.outgoing.traces = self._traces
        self._elections = Elections(
            replicas=replicas,
            journal=journal,
            library=self._library,
            pre_vote=rules.pre_vote,
            random=random,
            settings=settings,
            send=self.outgoing.send,
        )
        replicas.changed = self._configuration_changed

    # --- What is known -------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Return the time of the last step: it stands still while one runs, and for as long as the process is held up."""
        return self._library.now

    @property
    def configuration(self) -> Configuration:
        return self.configurations.newest

    @property
    def voters(self) -> frozenset[str]:
        """Return the other voters."""
        return self.replicas.voters

    @property
    def term(self) -> int:
        return self._library.term

    @property
    def commit_index(self) -> int:
        return self._library.commit_index

    @property
    def last_applied(self) -> int:
        return self._library.last_applied

    @property
    def is_leader(self) -> bool:
        return self._library.is_leader

    @property
    def is_ready_leader(self) -> bool:
        """Tell whether this node leads and has applied an entry of its own term: it then knows all that is committed."""
        return self.is_leader and self.journal.term_at(self.last_applied) == self.term

    @property
    def is_in_touch(self) -> bool:
        """Tell whether a majority has answered this leader within three heartbeats: hardly another one exists then.

        It proves nothing, and nothing that must be right may rest on it.
        """
        # The library's time on both sides: it falls behind the clock whenever the process is held up.
        since = self._library.now - 3 * self._settings.heartbeat_interval_s
        recent = 1 + len(self.followers.heard_since(self.voters, since))
        return self.is_leader and 2 * recent > len(self.voters) + 1

    @property
    def is_led(self) -> bool:
        """Tell whether this node leads and can take writes, or has heard its leader lately and is connected to it."""
        if self.is_leader:
            return self.is_ready_leader
        return self._library.leader_id in self.replicas.connected and self._elections.has_leader

    @property
    def campaign_count(self) -> int:
        """How often this node has campaigned."""
        return self._elections.campaign_count

    @property
    def leader_id(self) -> str | None:
        """Return who leads, if it is this node or there is a connection to it: any other is most likely gone."""
        leader = self._library.leader_id
        return leader if self.is_leader or leader in self.replicas.connected else None

    @property
    def role(self) -> str:
        """One of "leader", "candidate", "follower"."""
        return self._library.role

    @property
    def matched(self) -> Mapping[str, int]:
        """Return the highest raft index that each other voter has acknowledged to this leader in this term."""
        return self.followers.matched

    @property
    def stranded(self) -> frozenset[str]:
        """Return the connected voters that lack entries which this journal keeps no more: they must copy a checkpoint."""
        return frozenset(self.outgoing.held_back.stranded)

    @property
    def connected(self) -> frozenset[str]:
        return frozenset(self.replicas.connected)

    @property
    def has_work(self) -> bool:
        """Tell whether a tick now would commit, apply, propose or answer something, and not only watch the time."""
        if self._must_sync_first:
            return False
        return self._stirred or bool(self._proposals) or self.can_apply

    @property
    def can_apply(self) -> bool:
        """Tell whether there is a committed entry to apply, and space for it."""
        return self.commit_index > self.last_applied and self._space.applicable(1) > 0

    @property
    def must_apply_first(self) -> bool:
        """Tell whether committed entries should be applied before more is received: their space is promised until then."""
        return self._space.is_crowded and self.can_apply

    @property
    def must_answer_first(self) -> bool:
        """Tell whether so many answers wait for the fsync under way that more messages should not add to them."""
        return self._rules.persistence_gate.held_count >= HELD_MAX

    @property
    def _must_sync_first(self) -> bool:
        # A voter that is alone has no follower's acknowledgement to hold back, so the commit gate cannot help it.
        return not self.voters and self.journal.promisable_sequence < self.journal.sequence

    # --- What happens --------------------------------------------------------------------------

    def tick(self) -> None:
        """Commit, apply, propose, send, and campaign if it is time."""
        if self._must_sync_first:
            return
        self._stirred = False
        self._library.enter()
        self._elections.tick()
        self._library.tick()
        self.outgoing.held_back.tend()
        if not self.has_caught_up:
            self._look_how_far()

    def _look_how_far(self) -> None:
        if self.is_ready_leader:
            self.catch_up_target = self.last_applied
        self.has_caught_up = 0 < self.catch_up_target <= self.last_applied

    def propose(self, payload: bytes, done: Done) -> None:
        """Put an entry into the journal at the next tick, if this node leads then.

        done(result of apply, 0) when it is applied here; done(None, reason) when it certainly never will be; never
        called, if the outcome is unknown.
        """
        assert len(payload) <= self._settings.entry_size_max, "the entry is larger than its limit"
        self._proposals.append((payload, done))

    def receive(self, sender: str, message: Message) -> None:
        """Take a message of another node.  Of one that is no member it may be a leader's or a candidate's; it counts for nothing."""
        if sender not in self.replicas.connected:
            return
        self._library.enter()
        if isinstance(message, AppendReply):
            self._receive_reply(sender, message)
            return
        self._stirred = True
        if message.sender_term < self.term and isinstance(
            message, AppendEntries | VoteRequest | PreVoteRequest
        ):
            # It would be ignored, and who is ignored must learn why: a voter in a newer term would stay deaf to its leader.
            self.outgoing.send(sender, TermNotice(self.term))
            return
        match message:
            case AppendEntries():
                self._elections.leader_heard()
                self._receive_append(sender, message)
            case VoteRequest():
                self._library.deliver(sender, message)
            case VoteReply():
                if self._rules.vote_filter.admits(
                    sender, message, term=self.term, voters=self.replicas.counting.keys()
                ):
                    self._library.deliver(sender, message)
            case PreVoteRequest():
                self._elections.receive_request(sender, message)
            case PreVoteReply():
                self._elections.receive_reply(sender, message)
            case TermNotice():
                if message.sender_term > self.term:
                    self._library.adopt_term(sender, message.sender_term)
                    self._elections.term_adopted()
            case CheckpointNeeded():
                if message.sender_term == self.term and sender == self._library.leader_id:
                    self.checkpoint_needed(message.first_index)
            case TimeoutNow():
                self._elections.receive_timeout_now(sender, message)
            case _:
                raise AssertionError("reads are answered elsewhere")

    def successors(self) -> list[str]:
        """Return the connected voters, the best one to hand over to first.

        It has what is committed, or the most; of several the one that has been there for longest, to which clients find back.
        """
        return sorted(
            self.replicas.counting,
            key=lambda voter: min(self.matched.get(voter, 0), self.commit_index),
            reverse=True,
        )

    def has_everything(self, voter: str) -> bool:
        """Tell whether all that was proposed to this leader is acknowledged by `voter`, and applied here.

        A node that can apply nothing at the moment need not have: who waits for it asks the next leader.
        """
        last_index = self.journal.last_index
        is_applied = self.last_applied == last_index or self._space.applicable(1) == 0
        return not self._proposals and is_applied and self.matched.get(voter) == last_index

    def send_timeout_now(self, voter: str) -> None:
        """Have a voter that has everything begin an election."""
        self.outgoing.send(voter, TimeoutNow(self.term))

    def synced(self) -> None:
        """More of the journal may be promised: let go what waited for it."""
        self._library.enter()
        # A voter that is alone was not ticked while its operations were not to be promised.
        self._stirred = self._stirred or not self.voters
        if self._traces.is_following:
            self._traces.synced(self.journal.promisable_index)
        self._rules.persistence_gate.release(self.journal.promisable_sequence)
        for voter, reply in self._rules.commit_gate.release(self.journal.promisable_index):
            if self.is_leader and reply.sender_term == self.term:
                self._deliver_reply(voter, reply)

    def peer_connected(self, node_id: str, directory_id: str) -> None:
        self._library.enter()
        self.replicas.connect(node_id, directory_id)

    def peer_disconnected(self, node_id: str) -> None:
        self._library.enter()
        for part in (self.outgoing.held_back, self.followers, self._rules):
            part.drop(node_id)
        if self._traces.is_following:
            self._traces.disconnected(node_id)
        self._library.forget_match(node_id)
        self.replicas.disconnect(node_id)
        if node_id == self._library.leader_id:
            self._elections.leader_lost()

    def _configuration_changed(self, gone: frozenset[str]) -> None:
        """Another configuration is in force: some are members no more, or have another identity."""
        for node_id in sorted(gone):
            for part in (self.outgoing.held_back, self._rules):
                part.drop(node_id)
            self.followers.forget(node_id)
        self._elections.voters_changed()
        # Fewer may be a majority, and this node alone.
        self._stirred = True

    # --- Incoming ------------------------------------------------------------------------------

    def _receive_append(self, sender: str, message: AppendEntries) -> None:
        if message.sender_term < self.term:
            return
        if self.is_leader and message.sender_term == self.term:
            raise ConsensusViolated(f"{sender} leads term {self.term}, and so does this node")
        if not self.catch_up_target:
            self.catch_up_target = message.commit_index
        if message.traces and self._traces.is_on:
            self._traces.received(sender, message)
        admitted = self._following.admit(message, self.last_applied)
        self._library.deliver(sender, admitted)
        self._following.done()
        # What every voter has is committed, here too by now or soon: a message that says more is wrong.
        self.retain_from = max(self.retain_from, min(message.retain_from, self.commit_index))

    def _receive_reply(self, sender: str, message: AppendReply) -> None:
        if not self.is_leader or not 0 < message.next_index <= self.journal.last_index + 1:
            return
        reply = self._rules.acknowledgements.admit(
            sender,
            message,
            term=self.term,
            voters=self.replicas.reachable.keys(),
            sent=self.outgoing.sent_count,
        )
        if reply is None:
            return
        self.followers.heard(
            sender, self._library.now, is_full=reply.is_full, lacks_space=reply.lacks_space
        )
        if reply.success:
            self._rules.send_window.acknowledged(sender, reply.next_index)
            if self._traces.is_following:
                self._traces.acknowledged(sender, reply.next_index)
            self._matched_at(sender, reply.next_index - 1)
        elif reply.reset:
            reply = self.followers.refused(sender, reply, self.journal.first_index)
        if reply.reset:
            self._rules.send_window.rewound(sender, reply.next_index)
        if message.next_index > self.journal.first_index and (reply.success or reply.reset):
            self.outgoing.held_back.reached(sender, message.next_index)
        self._deliver_reply(
            sender, self._rules.commit_gate.admit(sender, reply, self.journal.promisable_index)
        )

    def _deliver_reply(self, voter: str, reply: AppendReply) -> None:
        # Most acknowledgements are of what is committed already.
        self._stirred = self._stirred or (
            reply.success and reply.next_index > self.commit_index + 1
        )
        self._library.deliver(voter, reply)
        if reply.success:
            # The library has just gone back to the acknowledged index and would send again what is on its way.
            sent_end = self._rules.send_window.next_to_send(voter, reply.next_index)
            if sent_end is not None:
                self._library.set_next_index(voter, sent_end)

    def _matched_at(self, voter: str, raft_index: int) -> None:
        self.followers.matched_at(voter, raft_index)
        # This node is a voter too: a crash takes what its own disk does not have yet, and then it needs it from others.
        voters = self.replicas.others
        if self.configuration.raft_index > self.last_applied:
            # Who is removed by an entry that is not committed may be a member again.
            before = self.configurations.at(self.last_applied).members.keys()
            voters = voters | (before - {self.replicas.node_id})
        others = self.followers.matched_by_all(voters)
        everywhere = min(self.journal.durable_index, others)
        self.retain_from = max(self.retain_from, min(everywhere, self.commit_index))

    # --- Outgoing ------------------------------------------------------------------------------

    def send_from_library(self, voter: str, message: dict[str, Any]) -> bool:
        """Translate what the library wants to send; True if it is on its way or held."""
        if voter not in self.replicas.connected:
            return False
        kind = message["type"]
        if kind == "append_entries":
            return self.outgoing.send_append(voter, message)
        if kind == "next_node_idx":
            # Below `retain_from` all voters agree, and the leader may have forgotten it.
            lowest = max(self.last_applied, self.retain_from)
            self.outgoing.send(voter, self._following.reply(message, term=self.term, lowest=lowest))
        elif kind == "request_vote":
            self.outgoing.send(
                voter,
                VoteRequest(message["term"], message["last_log_index"], message["last_log_term"]),
            )
        elif kind == "response_vote":
            self.outgoing.send(voter, VoteReply(message["term"]))
            self._elections.wait_for_leader()
        else:
            raise ConsensusViolated(
                f"the library wants to send {kind!r}: commands are never forwarded"
            )
        return True

    # --- The library's callbacks ---------------------------------------------------------------

    def take_proposals(self) -> list[ProposedEntry]:
        """Return what waits to be proposed, once."""
        proposals, self._proposals = self._proposals, []
        if self._traces.is_following and self.is_leader:
            self._traces.numbered(proposals, self.journal.last_index + 1, self.term)
        return proposals

    def apply_from_library(self, payload: bytes) -> Any:
        """Apply the next committed entry."""
        raft_index = self.last_applied + 1
        term = self.journal.term_at(raft_index)
        assert term is not None, "an entry is applied while the journal has it"
        if self._traces.is_following:
            with self._traces.applying(raft_index, term):
                result = self._apply(raft_index, term, payload)
        else:
            result = self._apply(raft_index, term, payload)
        self._space.applied(raft_index)
        return result

    def state_changed(self) -> None:
        self._rules.clear()
        if self._traces.is_following:
            self._traces.role_changed()
        self.followers.clear()
        self._elections.wait_for_leader()
        self.outgoing.held_back.clear()
