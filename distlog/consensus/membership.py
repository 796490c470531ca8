"""What a leader does about the members: it looks at who should be in the cluster and who is, and takes one step at a time.

    what this node knows, view of discovery -> reconcile.plan: one action -> entry        an operator's command -> entry

Each step is one entry that replaces the configuration (configuration.py), and rules/one_change.py says when there may be another.
What is to be done decides reconcile.py, alone; here is what that rests on, and how it is carried out.
Nothing of it is kept but in the log: what a lost leader had begun, the next one sees and goes on with.  Who asks to join asks again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from distlog.consensus.configuration import (
    MEMBER_COUNT_MAX,
    Addresses,
    Configuration,
    encode_configuration_entry,
)
from distlog.consensus.library import Done
from distlog.consensus.raft import Raft
from distlog.consensus.reconcile import (
    Asking,
    Change,
    Intention,
    Plan,
    Policy,
    Situation,
    Standing,
    leaves_majority,
    plan,
    seen_as,
)
from distlog.consensus.rules import Rules
from distlog.consensus.space import Space
from distlog.discovery.view import NOTHING_SEEN, Member, MemberStatus, Sight
from distlog.errors import (
    DescriptorsExhausted,
    InvalidRequest,
    LeadershipNotTransferred,
    MemberExists,
    MemberNotFound,
    MembershipChangeRefused,
    MembershipChangeUnderWay,
    OutcomeUnknown,
    StorageFull,
)
from distlog.runtime import Clock

logger = logging.getLogger(__name__)

ASKING_COUNT_MAX = 16
# Who wants to join says so every second or two.
ASKING_AGE_MAX_S = 10.0
RETRY_DELAY_S = 0.5
# The reason that `done` gets when nobody can tell any more.
OUTCOME_UNKNOWN = -1
NOTHING = Plan((), None)


class Membership:
    """The changes that one node proposes while it leads."""

    def __init__(
        self, raft: Raft, rules: Rules, space: Space, clock: Clock, silence_max_s: float
    ) -> None:
        """silence_max_s: a voter that was not heard for so long is taken for down, and a learner that was not for half of it for silent."""
        self._raft = raft
        self._rules = rules
        self._space = space
        self._clock = clock
        self._silence_max_s = silence_max_s
        # The term that this node leads in, and since when: it has not heard everybody at once.
        self._leads_in = 0
        self._leads_since = 0.0
        # Where a member is reached, as it said last; None: this node has not heard it.
        self.heard_at: Callable[[str], Addresses | None] = lambda _node_id: None
        # Called when the members changed: those of the newest configuration, and those of the newest committed one.
        self.changed: Callable[[Configuration, Configuration], None] = lambda _new, _old: None
        # Raft indexes of the two, as last announced.
        self._announced = (0, 0)
        # Whether changes must wait for something else.
        self.is_held_up: Callable[[], bool] = lambda: False
        # What discovery sees.
        self.view: Callable[[], Sight] = lambda: NOTHING_SEEN
        # Has another voter lead.  Raises LeadershipNotTransferred.
        self.hand_over: Callable[[], None] = lambda: None
        self.policy = Policy()
        # Of how many voters this node was told that the cluster would be formed; 0: it was not.
        self.expect = 0
        # What the last step saw and did; nothing on who does not lead.
        self.plan = NOTHING
        # Who wants to join, and when it said so last.
        self._asking: dict[str, tuple[Asking, float]] = {}
        # How many voters there were when each of those that have failed was first seen to.
        self._voters_at_failure: dict[str, int] = {}
        # The term, and the raft index of the newest configuration, when the last change was proposed: it is not in the journal yet.
        self._proposed_in: tuple[int, int] | None = None
        # Whom to tell of the change under way.
        self._done: Done | None = None

    @property
    def _state(self) -> tuple[int, int]:
        return self._raft.term, self._raft.configuration.raft_index

    @property
    def committed(self) -> Configuration:
        """Return who the members are for certain: by the newest configuration that is applied here."""
        return self._raft.configurations.at(self._raft.last_applied)

    def announce(self) -> None:
        """Call after each step: tell who is a member, if that has changed."""
        newest = self._raft.configuration
        if self._announced == (newest.raft_index, newest.raft_index):
            # That one is committed, and is in force still: nothing can have changed.
            return
        committed = self.committed
        indexes = (newest.raft_index, committed.raft_index)
        if indexes != self._announced:
            self._announced = indexes
            self.changed(newest, committed)

    @property
    def is_settled(self) -> bool:
        """Tell whether another change may be proposed now."""
        return not self._held_up()

    def _held_up(self) -> str:
        """Return why no change may be proposed now; "": one may."""
        raft = self._raft
        if not raft.is_ready_leader:
            return "the leader to commit an entry of its own"
        if self.is_held_up():
            return "the hand-over of leadership that is under way"
        is_admitted = self._rules.one_change.admits(
            newest_index=raft.configuration.raft_index,
            applied_index=raft.last_applied,
            is_ready=raft.is_ready_leader,
        )
        if self._proposed_in == self._state or not is_admitted:
            return "the change of members that is under way"
        return ""

    # --- What is asked for ---------------------------------------------------------------------

    def ask(self, node_id: str, directory_id: str, addresses: Addresses) -> None:
        """A node wants to join, whose name and directory nobody has.  Take note of it; the next steps make it a member."""
        if node_id in self._asking or len(self._asking) < ASKING_COUNT_MAX:
            asked_at = self._clock.monotonic()
            self._asking[node_id] = (Asking(directory_id, addresses), asked_at)

    def check_new(self, node_id: str) -> None:
        """Raise MemberExists if a member has this name."""
        known = self._raft.configuration.directory_of(node_id)
        if known is not None:
            raise MemberExists(node_id=node_id, directory_id=known)

    def check(self, node_id: str, cluster_id: str, directory_id: str) -> None:
        """Raise MembershipChangeRefused or MemberNotFound if another cluster, or a namesake, is meant; "": the caller does not know.

        Raises MembershipChangeUnderWay while that very member is being removed.
        """
        configuration = self._raft.configuration
        if cluster_id not in ("", configuration.cluster_id):
            problem = f"this is cluster {configuration.cluster_id}, and not {cluster_id}"
            raise MembershipChangeRefused(node_id=node_id, problem=problem)
        if directory_id not in ("", configuration.directory_of(node_id)):
            if self.committed.directory_of(node_id) == directory_id:
                # Its removal may be lost yet: told that it is no member, it would stop for good, with what it has acknowledged.
                raise MembershipChangeUnderWay(retry_delay_s=RETRY_DELAY_S)
            raise MemberNotFound(node_id=node_id)

    def removed(self, node_id: str, *, force: bool) -> asyncio.Future[None]:
        """Remove a member as `remove` does; the future is fulfilled when that is committed, and raises OutcomeUnknown."""
        return self._committed(lambda done: self.remove(node_id, force=force, done=done))

    def targeted(self, target: int) -> asyncio.Future[None]:
        """Have the cluster meant for so many voters; the future is fulfilled when that is committed, and raises OutcomeUnknown.

        Raises InvalidRequest, MembershipChangeUnderWay, StorageFull; nothing was proposed then.
        """
        if not 0 <= target <= MEMBER_COUNT_MAX:
            problem = f"must be from 0 to {MEMBER_COUNT_MAX}, not {target}"
            raise InvalidRequest(field="voter_count", problem=problem)

        def propose(done: Done) -> None:
            if not self.is_settled:
                raise MembershipChangeUnderWay(retry_delay_s=RETRY_DELAY_S)
            configuration = self._raft.configuration.meant_for(target)
            self._propose(configuration, "set target", str(target), done)

        return self._committed(propose)

    def _committed(self, propose: Callable[[Done], None]) -> asyncio.Future[None]:
        """Propose something, and return a future that is fulfilled when it is committed, or raises OutcomeUnknown."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(_result: Any, reason: int) -> None:
            if future.done():
                return
            if reason == 0:
                future.set_result(None)
            else:
                future.set_exception(OutcomeUnknown(cause="leadership was lost meanwhile"))

        propose(done)
        return future

    def remove(self, node_id: str, *, force: bool, done: Done) -> None:
        """Propose to remove a member, which is not this node; done(_, 0) when that is committed.

        force: also if the voters that are up would be no majority of the rest.
        Raises MemberNotFound, MembershipChangeUnderWay, MembershipChangeRefused, StorageFull; nothing was proposed then.
        """
        configuration = self._raft.configuration
        if configuration.directory_of(node_id) is None:
            if self._is_member_for_now(node_id):
                raise MembershipChangeUnderWay(retry_delay_s=RETRY_DELAY_S)
            raise MemberNotFound(node_id=node_id)
        if node_id == self._raft.replicas.node_id:
            raise MembershipChangeRefused(
                node_id=node_id,
                problem="it is the only voter: stop it instead"
                if len(configuration.voters) == 1
                else "it leads, and must hand over first",
            )
        if not self.is_settled:
            raise MembershipChangeUnderWay(retry_delay_s=RETRY_DELAY_S)
        left = configuration.voters.keys() - {node_id}
        up = self._voters_up() & left
        is_safe = node_id in configuration.learners or leaves_majority(configuration, up, node_id)
        if not is_safe and not force:
            raise MembershipChangeRefused(
                node_id=node_id,
                problem=f"only {len(up)} of the {len(left)} voters that would be left are up ({', '.join(sorted(up))}), which is no "
                "majority: start the others first, or repeat it with --force",
            )
        self._propose(configuration.without(node_id), "remove", node_id, done)

    def _is_member_for_now(self, node_id: str) -> bool:
        """Tell whether a node is a member until its removal, which is in the journal, is committed: it may be lost yet."""
        return self.committed.directory_of(node_id) is not None

    def _voters_up(self) -> set[str]:
        raft = self._raft
        connected = set(raft.replicas.counting)
        since = raft.now - self._silence_max_s
        if raft.term == self._leads_in and self._leads_since <= since:
            connected = raft.followers.heard_since(connected, since)
        return {raft.replicas.node_id} | connected

    # --- One step ------------------------------------------------------------------------------

    def step(self) -> None:
        """Call a few times in a second: do the next thing that is to be done, if this node leads and nothing else is under way."""
        view = self.view()
        self._note_failures(view.members)
        if not self._raft.is_leader:
            self.give_up()
            self._asking.clear()
            self.plan = NOTHING
            return
        if self._raft.term != self._leads_in:
            self._leads_in, self._leads_since = self._raft.term, self._raft.now
        self.plan = plan(self._situation(view), self.policy)
        if self.plan.action is None:
            return
        try:
            self._carry_out(self.plan.action)
        except (StorageFull, DescriptorsExhausted, LeadershipNotTransferred):
            # What is to be done is seen again when there is space, or an heir.
            return

    def planned(self) -> tuple[Intention, ...]:
        """Return what the last step saw that is to be done; what it has proposed waits for that to be committed."""
        found, held_up = self.plan, self._held_up()
        if found.action is None and not held_up:
            return found.intentions
        return tuple(
            replace(each, waits_for=each.waits_for or held_up or "its turn")
            if each.change is not Change.KEEP and each is not found.action
            else each
            for each in found.intentions
        )

    def give_up(self) -> None:
        """What is under way is the next leader's."""
        done, self._done = self._done, None
        self._proposed_in = None
        if done is not None:
            done(None, OUTCOME_UNKNOWN)

    def _note_failures(self, view: Mapping[str, Member]) -> None:
        """Remember how many voters there were when one failed, also on who does not lead: it may when that one is replaced."""
        configuration = self._raft.configuration
        voters = configuration.voters
        for node_id in voters:
            seen = seen_as(view, configuration, node_id)
            if seen is not None and seen.status is MemberStatus.FAILED:
                self._voters_at_failure.setdefault(node_id, len(voters))
            else:
                self._voters_at_failure.pop(node_id, None)
        for node_id in self._voters_at_failure.keys() - voters.keys():
            del self._voters_at_failure[node_id]

    def _situation(self, view: Sight) -> Situation:
        raft, now = self._raft, self._clock.monotonic()
        self._asking = {
            node_id: asking
            for node_id, asking in self._asking.items()
            if now - asking[1] <= ASKING_AGE_MAX_S
        }
        up, caught_up = self._voters_up(), self._caught_up()
        answering = up | self._learners_heard()
        return Situation(
            node_id=raft.replicas.node_id,
            configuration=raft.configuration,
            held_up=self._held_up(),
            up=up,
            standings={
                each: Standing(
                    answers=each in answering,
                    lag=raft.journal.last_index - raft.matched.get(each, 0),
                    has_caught_up=each in caught_up,
                    heard_at=self.heard_at(each),
                )
                for each in raft.replicas.others
            },
            asking={node_id: asking for node_id, (asking, _) in self._asking.items()},
            view=view,
            voters_at_failure=dict(self._voters_at_failure),
            expect=self.expect,
        )

    def _learners_heard(self) -> set[str]:
        raft = self._raft
        learners = raft.replicas.learners & raft.replicas.reachable.keys()
        return raft.followers.heard_since(learners, raft.now - self._silence_max_s / 2)

    def _caught_up(self) -> set[str]:
        """Return the learners that may become voters."""
        raft, heard = self._raft, self._learners_heard()
        return {
            learner
            for learner in sorted(raft.replicas.learners & raft.replicas.reachable.keys())
            if self._rules.caught_up.watch(
                learner,
                # Who must copy a checkpoint is far behind, however few entries that is.
                is_silent=learner not in heard or learner in raft.stranded,
                match_index=raft.matched.get(learner, 0),
                needed_index=raft.retain_from,
                last_index=raft.journal.last_index,
                now=raft.now,
            )
        }

    def _carry_out(self, action: Intention) -> None:
        configuration, node_id = self._raft.configuration, action.node_id
        match action.change:
            case Change.HAND_OVER:
                self.hand_over()
                return
            case Change.SET_TARGET:
                changed = configuration.meant_for(action.target).located(self._heard())
            case Change.REMOVE:
                changed = configuration.without(node_id)
            case Change.LOCATE:
                changed = configuration.at(node_id, action.addresses)
            case Change.PROMOTE:
                changed = configuration.with_voter(node_id)
            case _:
                addresses = {**self._heard(), node_id: action.addresses}
                changed = configuration.with_learner(node_id, action.directory_id, addresses)
        self._propose(changed, f"{action.change}: {action.why}", node_id, _nobody)

    def _heard(self) -> dict[str, Addresses]:
        """Return where the members are reached, as they have said themselves."""
        heard = {each: self.heard_at(each) for each in self._raft.configuration.members}
        return {each: where for each, where in heard.items() if where is not None}

    def _propose(self, configuration: Configuration, change: str, node_id: str, done: Done) -> None:
        payload = encode_configuration_entry(configuration, self._clock.wall_ms())
        if not self._space.pays_for(len(payload)):
            raise self._space.refusal()
        logger.info(
            "the members change change=%r node_id=%s voters=%s learners=%s",
            change,
            node_id,
            ",".join(configuration.voters),
            ",".join(configuration.learners) or "-",
        )
        self._proposed_in = self._state
        self._done = done

        def finished(result: Any, reason: int) -> None:
            if self._done is done:
                self._done = None
                self._proposed_in = None
            done(result, reason)

        self._raft.propose(payload, finished)


def _nobody(_result: Any, _reason: int) -> None:
    """Nobody waits for it: the next step sees what became of it."""
