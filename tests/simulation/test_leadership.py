"""Who leads a simulated cluster: what disturbs a leader, what replaces one, and how one hands over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from distlog.consensus.rules import complete_rules
from distlog.errors import (
    LeadershipNotTransferred,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    ShuttingDown,
)
from tests.consensus.missing_rules import without
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.stories import THREE, block, followers, led, log_of, records_of, simulated

# What RaftSettings has, and tests/simulation does not change.
ELECTION_MAX_S = 1.2
# Longer than any time-out but below the 6 s after which a silent connection is given up.
AWAY_S = 5.0


class Load:
    """A client that appends one record after the other, and goes where it is sent; it never repeats what may have been written."""

    def __init__(self, cluster: SimulatedCluster, pause_s: float = 0.0) -> None:
        """pause_s: between an acknowledgement and the next record; for a long time, in which few records show as much as many."""
        self._cluster, self._pause_s = cluster, pause_s
        self._stopping = False
        self.acknowledged: list[bytes] = []
        self.refused: list[Exception] = []
        self.unknown: list[bytes] = []
        # The longest time between two acknowledgements.
        self.gap_s = 0.0

    async def run(self) -> None:
        loop = self._cluster.loop
        number, last = 0, loop.time()
        names = list(self._cluster.machines)
        at = 0
        while not self._stopping:
            log = self._cluster.machines[names[at]].log
            record = b"r%d" % number
            try:
                if log is None:
                    raise NoLeader("down", 0.0)
                await log.propose_append("", block(record))
            except NotLeader as error:
                self.refused.append(error)
                at = names.index(error.leader_id)
                await asyncio.sleep(0.001)
            except (NoLeader, ShuttingDown) as error:
                self.refused.append(error)
                at = (at + 1) % len(names)
                await asyncio.sleep(0.005)
            except OutcomeUnknown:
                self.unknown.append(record)
                number += 1
            else:
                self.acknowledged.append(record)
                number += 1
                self.gap_s = max(self.gap_s, loop.time() - last)
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)
                last = loop.time()

    async def stop(self, task: asyncio.Future[None]) -> None:
        self._stopping = True
        await task


@contextmanager
def unchanged(cluster: SimulatedCluster) -> Iterator[None]:
    """Within this nothing may change who leads, nor anybody's term."""

    def state() -> dict[str, tuple[str, int]]:
        logs = {name: log_of(machine) for name, machine in cluster.machines.items()}
        return {name: (log.status().role, log.status().term) for name, log in logs.items()}

    before = state()
    yield
    assert state() == before


async def settled_leader(cluster: SimulatedCluster) -> Machine:
    """Return the leader when everybody knows it."""
    await led(cluster)

    def agreed() -> bool:
        statuses = [log_of(machine).status() for machine in cluster.machines.values()]
        return len({(status.leader_id, status.term) for status in statuses}) == 1

    assert await cluster.wait_until(agreed, "all know the leader")
    leader = cluster.leader()
    assert leader is not None
    return leader


# --- What does not disturb ------------------------------------------------------------------------


def cut_off_and_back(cluster: SimulatedCluster, name: str) -> None:
    cluster.network.partition([name], [other for other in THREE if other != name])


def test_a_node_that_was_cut_off_comes_back_and_no_term_changes() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        leader = await settled_leader(cluster)
        away = followers(cluster)[0]
        with unchanged(cluster):
            cut_off_and_back(cluster, away.name)
            await asyncio.sleep(AWAY_S)
            await log_of(leader).propose_append("", block(b"meanwhile"))
            cluster.network.heal()
            await asyncio.sleep(AWAY_S)
            assert await records_of(log_of(away)) == [b"meanwhile"]

    simulated(story)


def test_without_the_pre_vote_it_deposes_the_leader() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        leader = await settled_leader(cluster)
        term = log_of(leader).status().term
        cut_off_and_back(cluster, followers(cluster)[0].name)
        await asyncio.sleep(AWAY_S)
        cluster.network.heal()
        await asyncio.sleep(AWAY_S)
        assert log_of(leader).status().term > term

    simulated(story, rules=without("pre_vote"))


def test_a_node_that_was_away_so_long_that_its_connections_were_given_up_disturbs_nobody_either() -> (
    None
):
    async def story(cluster: SimulatedCluster) -> None:
        await settled_leader(cluster)
        away = followers(cluster)[0]
        with unchanged(cluster):
            cut_off_and_back(cluster, away.name)
            await asyncio.sleep(30.0)
            cluster.network.heal()
            await asyncio.sleep(AWAY_S)

    simulated(story)


@pytest.mark.parametrize("way", ["hears nothing", "is not heard"])
def test_a_follower_that_is_cut_off_in_one_direction_disturbs_nobody(way: str) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await settled_leader(cluster)
        away = followers(cluster)[0]
        with unchanged(cluster):
            for other in THREE:
                if other != away.name and way == "hears nothing":
                    cluster.network.block(other, away.name)
                elif other != away.name:
                    cluster.network.block(away.name, other)
            await asyncio.sleep(AWAY_S)
            cluster.network.heal()
            await asyncio.sleep(AWAY_S)

    simulated(story)


def test_a_follower_whose_connection_to_the_leader_breaks_disturbs_nobody() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        leader = await settled_leader(cluster)
        with unchanged(cluster):
            for _ in range(20):
                cluster.network.break_connections(leader.name, followers(cluster)[0].name)
                await asyncio.sleep(0.5)

    simulated(story)


# --- What replaces a leader -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_a_leader_whose_process_dies_is_replaced_at_once(seed: int) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        leader = await settled_leader(cluster)
        died_at = cluster.loop.time()
        leader.kill()
        await cluster.wait_until(lambda: cluster.leader() is not None, "another leader", 2.0)
        assert cluster.loop.time() - died_at < 0.5

    simulated(story, seed=seed)


def test_a_leader_whose_machine_loses_its_power_is_replaced_after_the_election_time_out() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        leader = await settled_leader(cluster)
        died_at = cluster.loop.time()
        leader.crash()
        await cluster.wait_until(lambda: cluster.leader() is not None, "another leader", 5.0)
        assert 0.5 < cluster.loop.time() - died_at < 2 * ELECTION_MAX_S

    simulated(story)


@pytest.mark.parametrize("way", ["both", "hears nothing", "is not heard"])
def test_a_leader_that_is_cut_off_steps_down_and_another_one_leads(way: str) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        deposed = await settled_leader(cluster)
        others = followers(cluster)
        cut_at = cluster.loop.time()
        for other in others:
            if way in ("both", "hears nothing"):
                cluster.network.block(other.name, deposed.name)
            if way in ("both", "is not heard"):
                cluster.network.block(deposed.name, other.name)
        stepped_down = await cluster.wait_until(
            lambda: log_of(deposed).status().role != "leader", "the leader steps down"
        )
        assert stepped_down
        assert cluster.loop.time() - cut_at < 2 * ELECTION_MAX_S + 0.2
        # One that hears the others may have heard by now who leads.
        refusals = (NoLeader, NotLeader) if way == "is not heard" else NoLeader
        with pytest.raises(refusals):
            log_of(deposed).propose_append("", block(b"x"))
        replaced = await cluster.wait_until(
            lambda: any(log_of(other).is_leader for other in others), "another one leads", 5.0
        )
        assert replaced
        cluster.network.heal()
        await settled_leader(cluster)

    simulated(story)


def test_a_leader_with_a_majority_leads_on() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await settled_leader(cluster)
        followers(cluster)[0].crash()
        leader = cluster.leader()
        assert leader is not None
        term = log_of(leader).status().term
        await asyncio.sleep(10 * ELECTION_MAX_S)
        assert (log_of(leader).is_leader, log_of(leader).status().term) == (True, term)

    simulated(story)


# --- Handing over ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_under_load_leadership_goes_round_and_no_append_fails(seed: int) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await settled_leader(cluster)
        loads = [Load(cluster) for _ in range(3)]
        tasks = [asyncio.ensure_future(load.run()) for load in loads]
        for _ in range(6):
            leader = await settled_leader(cluster)
            target = followers(cluster)[cluster.random.randrange(2)].name
            assert await log_of(leader).transfer_leadership(target) == target
            await asyncio.sleep(0.2)
        for load, task in zip(loads, tasks, strict=True):
            await load.stop(task)
            assert not load.unknown, "what was proposed is answered before the hand-over"
            assert load.refused, "the load went on meanwhile"
            assert len(load.acknowledged) > 50
            assert load.gap_s < 0.6
        assert cluster.counts["elections"] == 7, "an election for each hand-over and the first"

    simulated(story, seed=seed)


def test_a_leader_that_is_stopped_hands_over_first() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        leader = await settled_leader(cluster)
        load = Load(cluster)
        task = asyncio.ensure_future(load.run())
        await asyncio.sleep(0.2)
        await leader.stop()
        # It leads; on a disk that is slow at this moment it takes a little until it may say so.
        assert await cluster.wait_until(
            lambda: cluster.leader() not in (None, leader), "another one leads", 0.25
        )
        await asyncio.sleep(0.2)
        await load.stop(task)
        assert not load.unknown
        assert load.gap_s < 0.3

    simulated(story)


def test_a_target_that_is_cut_off_costs_a_moment_and_then_the_leader_leads_on() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        leader = await settled_leader(cluster)
        target = followers(cluster)[0].name
        load = Load(cluster)
        task = asyncio.ensure_future(load.run())
        cluster.network.block(leader.name, target)
        with pytest.raises(LeadershipNotTransferred, match=target):
            await log_of(leader).transfer_leadership(target)
        assert log_of(leader).is_leader
        count = len(load.acknowledged)
        await asyncio.sleep(0.5)
        await load.stop(task)
        assert len(load.acknowledged) > count
        assert not load.unknown

    simulated(story)


def test_appends_that_wait_are_refused_with_the_new_leader() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        leader = await settled_leader(cluster)
        target = followers(cluster)[0].name
        transfer = asyncio.ensure_future(log_of(leader).transfer_leadership(target))
        await asyncio.sleep(0)
        waiting: asyncio.Future[Any] = log_of(leader).propose_append("", block(b"waits"))
        with pytest.raises(NotLeader) as refusal:
            await waiting
        assert refusal.value.leader_id == target
        assert await transfer == target
        assert await records_of(log_of(cluster.machines[target])) == []

    simulated(story)


def test_a_cluster_of_one_has_nobody_to_hand_over_to() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        with pytest.raises(LeadershipNotTransferred, match="no other voter"):
            await log.transfer_leadership()
        assert await log.transfer_leadership("n1") == "n1"
        assert (await log.propose_append("", block(b"x"))).base_offset == 0

    simulated(story, names=("n1",), rules=complete_rules)
