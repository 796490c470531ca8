"""The planner and a cluster that lives on it, second by second: who crashes, comes back, leaves and joins, and what becomes of the voters.

Only the rules are modelled, and neither the log nor partitions (tests/simulation has those): a change is committed at once if a majority
of the voters is up, a node that starts answers two seconds later, and discovery sees a failure after six.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest

from distlog.consensus.configuration import Addresses, Configuration
from distlog.consensus.reconcile import (
    Asking,
    Change,
    Intention,
    Policy,
    Situation,
    Standing,
    leaves_majority,
    plan,
)
from distlog.discovery.view import Description, Member, MemberStatus, Sight

DETECTION_S, START_S = 6, 2
ALIVE, FAILED, LEFT = MemberStatus.ALIVE, MemberStatus.FAILED, MemberStatus.LEFT
Planner = Callable[[Situation, Policy], Intention | None]


def planned(situation: Situation, policy: Policy) -> Intention | None:
    return plan(situation, policy).action


def eager(situation: Situation, policy: Policy) -> Intention | None:
    """Do as many do: remove a member as soon as it is seen to have failed."""
    for node_id, seen in situation.view.members.items():
        is_member = situation.configuration.directory_of(node_id) is not None
        if is_member and seen.status is FAILED and node_id != situation.node_id:
            return Intention(Change.REMOVE, node_id, "failed")
    return planned(situation, policy)


class Machine:
    """A node that may run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directories = 1
        self.is_up = False
        self.has_left = False
        # When it started, or stopped.
        self.since = 0
        self.seen: Member | None = None

    @property
    def directory_id(self) -> str:
        return f"{self.name}.{self.directories}"

    def answers(self, now: int) -> bool:
        return self.is_up and now - self.since >= START_S

    def status(self, now: int, *, is_lost: bool) -> MemberStatus | None:
        """Return what discovery makes of it now; None: nothing new.  is_lost: what it would have heard is lost this time."""
        if self.is_up:
            return ALIVE if now - self.since >= 1 and not is_lost else None
        if self.has_left:
            return LEFT
        return FAILED if now - self.since >= DETECTION_S else None


class Life:
    """A cluster of abstract nodes, and the planner of whoever leads."""

    def __init__(
        self,
        count: int,
        *,
        target: int | None = None,
        policy: Policy | None = None,
        planner: Planner = planned,
        loss: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.random = Random(seed)
        self.now = 0
        self.policy = policy or Policy()
        self.planner = planner
        # Share of what discovery hears that is lost.
        self.loss = loss
        self.machines: dict[str, Machine] = {}
        names = [f"n{number}" for number in range(1, count + 1)]
        for name in names:
            self.start(name)
            self.machines[name].since = -100
        self.configuration = Configuration(
            "c",
            {name: self.machines[name].directory_id for name in names},
            raft_index=2,
            target=count if target is None else target,
        )
        self.at_failure: dict[str, int] = {}
        self.answering_since: dict[str, int] = {}
        self.changes: list[Change] = []
        self.unavailable_s = 0
        self.voter_count_min = count

    # --- What happens -----------------------------------------------------------------------

    def start(self, name: str) -> None:
        machine = self.machines.setdefault(name, Machine(name))
        if not machine.is_up:
            machine.is_up, machine.has_left, machine.since = True, False, self.now

    def _empty_the_removed(self) -> None:
        """Let an operator start who was told that it is no member any more with an empty directory."""
        for machine in self.machines.values():
            identity = (machine.name, machine.directory_id)
            if machine.is_up and identity in self.configuration.removed:
                machine.directories += 1
                machine.since = self.now

    def crash(self, name: str) -> None:
        machine = self.machines[name]
        if machine.is_up:
            machine.is_up, machine.since = False, self.now

    def leave(self, name: str) -> None:
        self.machines[name].has_left = True
        self.crash(name)

    # --- What follows -----------------------------------------------------------------------

    @property
    def up(self) -> set[str]:
        """Return the members that answer, under the identity that they have there."""
        return {
            node_id
            for node_id, directory_id in self.configuration.members.items()
            if self.machines[node_id].answers(self.now)
            and self.machines[node_id].directory_id == directory_id
        }

    @property
    def leader(self) -> str | None:
        voters = self.configuration.voters.keys()
        up = voters & self.up
        return min(up) if 2 * len(up) > len(voters) else None

    def pass_time(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now += 1
            self._empty_the_removed()
            self._look()
            leader = self.leader
            if leader is None:
                self.unavailable_s += 1
                continue
            action = self.planner(self._situation(leader), self.policy)
            if action is not None and action.change is not Change.HAND_OVER:
                self._carry_out(action, leader)

    def _look(self) -> None:
        """Let discovery see, and whoever lives remember how many voters there were."""
        for name, machine in self.machines.items():
            status = machine.status(self.now, is_lost=self.random.random() < self.loss)
            before = machine.seen
            directory_id = machine.directory_id
            if status is None or (
                before is not None
                and (before.status, before.description.directory_id) == (status, directory_id)
            ):
                continue
            described = Description(name, directory_id, f"{name}:1", f"{name}:2", "c")
            machine.seen = Member(described, status, 1, self.now)
        for name in self.configuration.voters:
            seen = self.machines[name].seen
            if seen is not None and seen.status is FAILED:
                self.at_failure.setdefault(name, len(self.configuration.voters))
            else:
                self.at_failure.pop(name, None)
        for name in self.machines:
            if name not in self.up:
                self.answering_since.pop(name, None)
            self.answering_since.setdefault(name, self.now)

    def _situation(self, leader: str) -> Situation:
        configuration, up = self.configuration, self.up
        asking = {
            name: Asking(machine.directory_id, Addresses(f"{name}:1", f"{name}:2"))
            for name, machine in self.machines.items()
            if machine.answers(self.now) and configuration.directory_of(name) is None
        }
        return Situation(
            node_id=leader,
            configuration=configuration,
            held_up="",
            up=configuration.voters.keys() & up,
            standings={
                each: Standing(
                    each in up, 0, each in up and self.now - self.answering_since[each] >= 1
                )
                for each in configuration.members
                if each != leader
            },
            asking=asking,
            view=Sight(
                {name: each.seen for name, each in self.machines.items() if each.seen},
                0.0,
                self.now,
            ),
            voters_at_failure=dict(self.at_failure),
        )

    def _carry_out(self, action: Intention, leader: str) -> None:
        before, node_id = self.configuration, action.node_id
        up = before.voters.keys() & self.up
        if action.change is Change.ADD_LEARNER:
            known = {node_id: action.addresses}
            after = before.with_learner(node_id, action.directory_id, known)
        elif action.change is Change.PROMOTE:
            after = before.with_voter(node_id)
        else:
            assert action.change is Change.REMOVE
            assert node_id != leader, "nobody removes itself"
            is_learner = node_id in before.learners
            assert is_learner or leaves_majority(before, up, node_id), "a removal loses the quorum"
            after = before.without(node_id)
            seen = self.machines[node_id].seen
            assert seen is not None
            if seen.status is FAILED:
                wanted = before.target or self.at_failure.get(node_id, 99)
                assert len(after.voters) >= wanted, "fewer voters than are wanted"
        assert len(before.voters.keys() ^ after.voters.keys()) <= 1, "two voters at once"
        self.configuration = after
        self.changes.append(action.change)
        self.voter_count_min = min(self.voter_count_min, len(after.voters))

    @property
    def voters(self) -> list[str]:
        return sorted(self.configuration.voters)


def rolling_crash(life: Life, pause_s: int) -> None:
    for name in ("n1", "n2", "n3"):
        life.pass_time(10)
        life.crash(name)
        life.pass_time(30)
        life.start(name)
        life.pass_time(pause_s)


@pytest.mark.parametrize("target", [0, 3])
@pytest.mark.parametrize("loss", [0.0, 0.3])
@pytest.mark.parametrize("pause_s", [5, 30])
def test_a_rolling_crash_changes_nobodys_vote(pause_s: int, loss: float, target: int) -> None:
    life = Life(3, target=target, loss=loss)
    rolling_crash(life, pause_s)
    assert (life.voters, life.changes, life.unavailable_s) == (["n1", "n2", "n3"], [], 0)


def test_whoever_removes_what_has_failed_is_caught_at_the_first_crash() -> None:
    life = Life(3, planner=eager)
    with pytest.raises(AssertionError, match="fewer voters than are wanted"):
        rolling_crash(life, 5)


@pytest.mark.parametrize("target", [0, 3])
def test_a_node_that_dies_for_good_is_replaced_by_one_that_joins(target: int) -> None:
    life = Life(3, target=target)
    life.pass_time(10)
    life.crash("n3")
    life.pass_time(50)
    life.start("n4")
    life.pass_time(840)
    assert life.voters == ["n1", "n2", "n4"]
    assert sorted(life.changes) == ["add learner", "promote", "remove"]
    assert (life.voter_count_min, life.unavailable_s) == (3, 0)


@pytest.mark.parametrize("target", [0, 5])
def test_when_three_of_five_die_the_cluster_stops_and_shrinks_not(target: int) -> None:
    life = Life(5, target=target, policy=Policy(dead_after_s=30))
    for name in ("n5", "n4", "n3"):
        life.pass_time(60)
        life.crash(name)
    life.pass_time(220)
    assert (len(life.voters), life.changes) == (5, [])
    assert life.unavailable_s == 220
    life.start("n3")
    life.pass_time(10)
    assert life.leader is not None


def test_a_node_that_leaves_goes_at_once_and_may_come_back_as_another() -> None:
    life = Life(3, target=3)
    life.pass_time(10)
    life.leave("n3")
    life.pass_time(5)
    assert life.voters == ["n1", "n2"]
    life.start("n3")
    life.pass_time(10)
    assert life.voters == ["n1", "n2", "n3"]
    assert life.configuration.removed == (("n3", "n3.1"),)


def test_a_node_that_flaps_stays() -> None:
    life = Life(3, target=3, policy=Policy(dead_after_s=20))
    life.start("n4")
    life.pass_time(10)
    for _ in range(20):
        life.crash("n2")
        life.pass_time(12)
        life.start("n2")
        life.pass_time(8)
    assert (life.voters, life.unavailable_s) == (["n1", "n2", "n3"], 0)


def schedule(seed: int, planner: Planner = planned, steps: int = 300) -> Life:
    """Let nodes crash, leave, start and come back at random; then start all of them and let two minutes pass."""
    random = Random(seed)
    count = random.choice((3, 4, 5))
    target = random.choice((0, count))
    policy = Policy(dead_after_s=random.choice((5, 60, 600)))
    loss = random.choice((0.0, 0.3))
    life = Life(count, target=target, policy=policy, planner=planner, loss=loss, seed=seed)
    names: Sequence[str] = [f"n{number}" for number in range(1, count + 3)]
    for _ in range(steps):
        if random.random() < 0.05:
            name = random.choice(names)
            if name not in life.machines or not life.machines[name].is_up:
                life.start(name)
            elif random.random() < 0.3:
                life.leave(name)
            else:
                life.crash(name)
        life.pass_time()
    for name in names:
        life.start(name)
    life.pass_time(120)
    return life


@pytest.mark.parametrize("first", range(0, 240, 40))
def test_no_schedule_loses_the_majority_or_the_target(first: int) -> None:
    for seed in range(first, first + 40):
        life = schedule(seed)
        assert life.leader is not None, f"seed {seed}: nobody leads"
        wanted = life.configuration.target or len(life.machines)
        assert len(life.voters) >= wanted, f"seed {seed}: {life.voters}"


def test_a_planner_that_removes_what_has_failed_is_caught() -> None:
    caught = 0
    for seed in range(20):
        try:
            schedule(seed, eager)
        except AssertionError:
            caught += 1
    assert caught > 10
