"""What a leader does about the members: it compares who should be in the cluster with who is, and takes one step at a time.

    a node asks to join -> learner -> caught up -> voter        an operator removes one        a member is reached elsewhere

Each step is one entry that replaces the configuration (configuration.py), and rules/one_change.py says when there may be another.
Nothing of it is kept but in the log: what a lost leader had begun, the next one sees and goes on with.  Who asks to join asks again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distlog.consensus.configuration import (
    MEMBER_COUNT_MAX,
    Addresses,
    Configuration,
    encode_configuration_entry,
)
from distlog.consensus.library import Done
from distlog.consensus.raft import Raft
from distlog.consensus.rules import Rules
from distlog.consensus.space import Space
from distlog.errors import (
    DescriptorsExhausted,
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


@dataclass(frozen=True, slots=True)
class _Asking:
    """A node that wants to join."""

    directory_id: str
    addresses: Addresses
    asked_at: float


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
        self._asking: dict[str, _Asking] = {}
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
        raft = self._raft
        return (
            raft.is_ready_leader
            and not self.is_held_up()
            and self._proposed_in != self._state
            and self._rules.one_change.admits(
                newest_index=raft.configuration.raft_index,
                applied_index=raft.last_applied,
                is_ready=raft.is_ready_leader,
            )
        )

    # --- What is asked for ---------------------------------------------------------------------

    def ask(self, node_id: str, directory_id: str, addresses: Addresses) -> None:
        """A node wants to join, whose name and directory nobody has.  Take note of it; the next steps make it a member."""
        if node_id in self._asking or len(self._asking) < ASKING_COUNT_MAX:
            asked_at = self._clock.monotonic()
            self._asking[node_id] = _Asking(directory_id, addresses, asked_at)

    def removed(self, node_id: str, *, force: bool) -> asyncio.Future[None]:
        """Remove a member as `remove` does; the future is fulfilled when that is committed, and raises OutcomeUnknown."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(_result: Any, reason: int) -> None:
            if future.done():
                return
            if reason == 0:
                future.set_result(None)
            else:
                future.set_exception(OutcomeUnknown(cause="leadership was lost meanwhile"))

        self.remove(node_id, force=force, done=done)
        return future

    def remove(self, node_id: str, *, force: bool, done: Done) -> None:
        """Propose to remove a member, which is not this node; done(_, 0) when that is committed.

        force: also if the voters that are up would be no majority of the rest.
        Raises MemberNotFound, MembershipChangeUnderWay, MembershipChangeRefused, StorageFull; nothing was proposed then.
        """
        configuration = self._raft.configuration
        if configuration.directory_of(node_id) is None:
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
        up = self._voters_up() - {node_id}
        if node_id in configuration.voters and 2 * len(up) <= len(left) and not force:
            raise MembershipChangeRefused(
                node_id=node_id,
                problem=f"only {len(up)} of the {len(left)} voters that would be left are up ({', '.join(sorted(up))}), which is no "
                "majority: start the others first, or repeat it with --force",
            )
        self._propose(configuration.without(node_id), "remove", node_id, done)

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
        if not self._raft.is_leader:
            self.give_up()
            self._asking.clear()
            return
        if self._raft.term != self._leads_in:
            self._leads_in, self._leads_since = self._raft.term, self._raft.now
        caught_up = self._caught_up()
        if not self.is_settled:
            return
        try:
            if not (self._add_next() or self._promote(caught_up)):
                self._locate_next()
        except (StorageFull, DescriptorsExhausted):
            # What is to be done is seen again when there is space.
            return

    def give_up(self) -> None:
        """What is under way is the next leader's."""
        done, self._done = self._done, None
        self._proposed_in = None
        if done is not None:
            done(None, OUTCOME_UNKNOWN)

    def _add_next(self) -> bool:
        configuration, now = self._raft.configuration, self._clock.monotonic()
        for node_id, asking in list(self._asking.items()):
            del self._asking[node_id]
            identity = (node_id, asking.directory_id)
            is_new = configuration.directory_of(node_id) is None
            if now - asking.asked_at > ASKING_AGE_MAX_S or not is_new:
                continue
            if identity in configuration.removed or len(configuration.members) >= MEMBER_COUNT_MAX:
                continue
            heard = {each: self.heard_at(each) for each in configuration.members}
            addresses = {each: where for each, where in heard.items() if where is not None}
            addresses[node_id] = asking.addresses
            learning = configuration.with_learner(node_id, asking.directory_id, addresses)
            self._propose(learning, "add learner", node_id, _nobody)
            return True
        return False

    def _caught_up(self) -> str | None:
        """Return a learner that may become a voter, if there is one."""
        raft = self._raft
        learners = raft.replicas.learners & raft.replicas.reachable.keys()
        heard = raft.followers.heard_since(learners, raft.now - self._silence_max_s / 2)
        ready = [
            learner
            for learner in sorted(learners)
            if self._rules.caught_up.watch(
                learner,
                # Who must copy a checkpoint is far behind, however few entries that is.
                is_silent=learner not in heard or learner in raft.stranded,
                match_index=raft.matched.get(learner, 0),
                needed_index=raft.retain_from,
                last_index=raft.journal.last_index,
                now=raft.now,
            )
        ]
        return ready[0] if ready else None

    def _promote(self, learner: str | None) -> bool:
        if learner is None:
            return False
        voting = self._raft.configuration.with_voter(learner)
        self._propose(voting, "caught up: voter", learner, _nobody)
        return True

    def _locate_next(self) -> None:
        configuration = self._raft.configuration
        for node_id, known in configuration.addresses.items():
            heard = self.heard_at(node_id)
            if heard is not None and all(heard) and heard != known:
                self._propose(configuration.at(node_id, heard), "moved", node_id, _nobody)
                return

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
