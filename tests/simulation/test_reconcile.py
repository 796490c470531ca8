"""What becomes of the members of a whole cluster when nodes die, flap, are cut off, leave and are replaced."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from distlog.errors import DistlogError, MembershipChangeRefused, NoLeader, OutcomeUnknown
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.stories import block, followers, led, records_of, simulated
from tests.simulation.test_leadership import Load
from tests.simulation.test_membership import voters

ALIKE: dict[str, Any] = {"expect": 3, "spares": ("n4",), "dead_after_s": 10.0}
GROWN: dict[str, Any] = {
    "names": ("n1", "n2", "n3"),
    "is_fixed": False,
    "spares": ("n4",),
    "dead_after_s": 10.0,
}


async def complete(cluster: SimulatedCluster, *names: str) -> None:
    assert await cluster.wait_until(lambda: voters(cluster) == list(names), f"{names} vote")


async def start(cluster: SimulatedCluster, name: str) -> Machine:
    machine = cluster.machines[name]
    cluster.unused.discard(name)
    await machine.start()
    return machine


def other_than_leader(cluster: SimulatedCluster) -> Machine:
    leader = cluster.leader()
    return next(
        each for each in cluster.machines.values() if each.node is not None and each is not leader
    )


@pytest.mark.parametrize("options", [ALIKE, GROWN], ids=["target 3", "no target"])
def test_a_dead_node_is_replaced_by_one_that_joins(options: dict[str, Any]) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await complete(cluster, "n1", "n2", "n3")
        load = Load(cluster)
        working = asyncio.ensure_future(load.run())
        dead = other_than_leader(cluster)
        await asyncio.sleep(5.0)
        dead.crash()
        cluster.unused.add(dead.name)
        # Everybody knows that it has failed.
        await asyncio.sleep(8.0)
        await start(cluster, "n4")
        left = sorted({"n1", "n2", "n3", "n4"} - {dead.name})
        assert await cluster.wait_until(lambda: "n4" in voters(cluster), "n4 votes")
        await complete(cluster, *left)
        await load.stop(working)
        assert len(load.acknowledged) > 50
        log = await led(cluster)
        await log.confirm()
        kept = await records_of(log)
        assert [record for record in kept if record not in load.unknown] == load.acknowledged

    simulated(story, **options)


def test_a_dead_node_that_nobody_replaces_stays_and_the_status_says_why() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await complete(cluster, "n1", "n2", "n3")
        dead = other_than_leader(cluster)
        dead.crash()
        await asyncio.sleep(60.0)
        assert voters(cluster) == ["n1", "n2", "n3"]
        (planned,) = (await led(cluster)).status().planned
        assert (planned.change, planned.node_id) == ("remove", dead.name)
        assert planned.waits_for == "a node in its place: fewer than 3 voters would be left"
        await dead.start()
        await asyncio.sleep(10.0)
        assert (await led(cluster)).status().planned == ()

    simulated(story, **ALIKE)


def test_a_rolling_crash_in_which_discovery_hears_little_changes_nobodys_vote() -> None:
    """Three of ten messages of gossip are lost."""

    async def story(cluster: SimulatedCluster) -> None:
        await complete(cluster, "n1", "n2", "n3")
        await cluster.wait_until(lambda: _index(cluster) > 1, "the target is written down")
        index, losses = _index(cluster), Random(7)
        for machine in list(cluster.machines.values())[:3]:
            _lose_gossip(machine, losses)
            machine.crash()
            await asyncio.sleep(30.0)
            await machine.start()
            _lose_gossip(machine, losses)
            await led(cluster)
            await asyncio.sleep(5.0)
        assert voters(cluster) == ["n1", "n2", "n3"]
        assert _index(cluster) == index, "no configuration was written"

    simulated(story, **ALIKE)


def _index(cluster: SimulatedCluster) -> int:
    configuration = cluster.configuration()
    return configuration.raft_index if configuration is not None else 0


def _lose_gossip(machine: Machine, losses: Random) -> None:
    assert machine.node is not None
    finding = machine.node.finding
    receive = finding.frame_received

    def received(node_id: str, payload: bytes) -> str:
        return "" if losses.random() < 0.3 else receive(node_id, payload)

    finding.frame_received = received  # type: ignore[method-assign]


def test_a_node_that_flaps_keeps_its_vote() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await complete(cluster, "n1", "n2", "n3")
        await start(cluster, "n4")
        flapping = other_than_leader(cluster)
        for _ in range(8):
            flapping.crash()
            await asyncio.sleep(9.0)
            await flapping.start()
            await asyncio.sleep(4.0)
        assert voters(cluster) == ["n1", "n2", "n3"]

    simulated(story, **ALIKE)


def test_the_side_of_a_partition_without_a_majority_acknowledges_and_removes_nothing() -> None:
    five = ("n1", "n2", "n3", "n4", "n5")

    async def story(cluster: SimulatedCluster) -> None:
        await complete(cluster, *five)
        old = await led(cluster)
        leader = cluster.leader()
        assert leader is not None
        minority = {leader.name, next(name for name in five if name != leader.name)}
        cluster.network.partition(minority, set(five) - minority)
        lost = old.propose_append("", block(b"of the minority"))
        majority = [each for name, each in cluster.machines.items() if name not in minority]

        def leads() -> bool:
            return any(each.log is not None and each.log.is_leader for each in majority)

        assert await cluster.wait_until(leads, "the majority leads itself")
        # Long after the others count as dead.
        await asyncio.sleep(60.0)
        assert not lost.done() or lost.exception() is not None
        assert voters(cluster) == list(five)
        cluster.network.heal()
        again = await led(cluster)
        await again.propose_append("", block(b"of all"))
        assert b"of the minority" not in await records_of(again)

    simulated(story, names=five, dead_after_s=10.0, is_fixed=False)


@pytest.mark.parametrize("leads", [False, True])
def test_a_node_leaves_under_load_and_no_write_is_lost(leads: bool) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await complete(cluster, "n1", "n2", "n3")
        load = Load(cluster)
        working = asyncio.ensure_future(load.run())
        await asyncio.sleep(2.0)
        leaving = cluster.leader() if leads else other_than_leader(cluster)
        assert leaving is not None
        assert leaving.node is not None
        assert leaving.process is not None
        departure = leaving.node.departure
        await leaving.process.run(departure.leave())
        assert departure.left.done()
        await complete(cluster, *sorted({"n1", "n2", "n3"} - {leaving.name}))
        await leaving.stop()
        cluster.unused.add(leaving.name)
        await asyncio.sleep(20.0)
        await load.stop(working)
        log = await led(cluster)
        await log.confirm()
        kept = await records_of(log)
        assert [record for record in kept if record not in load.unknown] == load.acknowledged
        assert not load.unknown
        assert log.status().planned == ()

    simulated(story, **ALIKE)


async def a_leader_dies(
    cluster: SimulatedCluster, delay_ms: float, away_s: float, timeout_s: float
) -> tuple[Machine, asyncio.Future[None]]:
    """Have a follower leave, kill the leader meanwhile, start it again; return who left, and how that ended."""
    leading, leaving = cluster.leader(), other_than_leader(cluster)
    assert leading is not None
    assert leaving.node is not None
    assert leaving.process is not None
    asked = leaving.process.create_task(leaving.node.departure.leave(timeout_s))
    await asyncio.sleep(delay_ms / 1000)
    leading.crash()
    await asyncio.sleep(away_s)
    await leading.start()
    await asyncio.wait([asked])
    return leaving, asked


# The removal is not asked for yet, is in the log of the dead leader only, decides with that of another, is committed.
@pytest.mark.parametrize("delay_ms", [0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 5])
@pytest.mark.parametrize("is_back_in_time", [True, False])
def test_whatever_dies_a_node_that_left_is_no_member_and_one_that_did_not_is_told_so(
    delay_ms: float, is_back_in_time: bool
) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await complete(cluster, "n1", "n2", "n3")
        load = Load(cluster)
        working = asyncio.ensure_future(load.run())
        await asyncio.sleep(2.0)
        away_s, timeout_s = (3.0, 20.0) if is_back_in_time else (6.0, 5.0)
        leaving, asked = await a_leader_dies(cluster, delay_ms, away_s, timeout_s)
        assert leaving.node is not None
        assert leaving.process is not None
        departure = leaving.node.departure
        problem = asked.exception()
        if isinstance(problem, OutcomeUnknown) and not is_back_in_time:
            # The entry may be in a log that decides, and nobody speaks with who was removed: asking again settles it.
            await asyncio.sleep(10.0)
            await leaving.process.run(departure.leave())
        elif problem is not None:
            assert isinstance(problem, NoLeader)
            assert not is_back_in_time
            assert not departure.left.done()
            await complete(cluster, "n1", "n2", "n3")
        if departure.left.done():
            await leaving.stop()
            cluster.unused.add(leaving.name)
            await complete(cluster, *sorted({"n1", "n2", "n3"} - {leaving.name}))
        await load.stop(working)
        log = await led(cluster)
        await log.confirm()
        kept = await records_of(log)
        assert [record for record in kept if record not in load.unknown] == load.acknowledged

    simulated(story, **ALIKE)


def test_a_node_whose_removal_no_majority_has_is_not_told_that_it_is_no_member() -> None:
    """It would stop for good, and what it has acknowledged with it, while the removal is lost with the leader that has it."""

    async def story(cluster: SimulatedCluster) -> None:
        await complete(cluster, "n1", "n2", "n3")
        leading, leaving = cluster.leader(), other_than_leader(cluster)
        assert leading is not None
        assert leaving.node is not None
        assert leaving.process is not None
        departure = leaving.node.departure
        apart = {"n1", "n2", "n3"} - {leading.name, leaving.name}
        cluster.network.partition(sorted(apart), [leading.name, leaving.name])
        # The second asks again while the removal is under way, and what it is told is no word about the first.
        asked = [leaving.process.create_task(departure.leave(5.0)) for _ in range(2)]
        await asyncio.wait(asked)
        assert [type(each.exception()) for each in asked] == [OutcomeUnknown] * 2
        assert not departure.left.done()
        cluster.network.heal()
        await leaving.process.run(departure.leave())
        assert departure.left.done()
        await leaving.stop()
        cluster.unused.add(leaving.name)
        await complete(cluster, *sorted({"n1", "n2", "n3"} - {leaving.name}))

    simulated(story, **ALIKE)


def test_the_only_voter_does_not_leave_and_neither_does_who_would_leave_no_majority() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await complete(cluster, "n1", "n2", "n3")
        leaving, gone = (each for each in followers(cluster) if each.node is not None)
        assert leaving.node is not None
        gone.crash()
        await asyncio.sleep(5.0)
        with pytest.raises(MembershipChangeRefused, match="start the others first"):
            await leaving.node.departure.leave()
        assert len(voters(cluster)) == 3

    simulated(story, **ALIKE)

    async def alone(cluster: SimulatedCluster) -> None:
        await led(cluster)
        node = cluster.machines["n1"].node
        assert node is not None
        with pytest.raises(MembershipChangeRefused, match="only voter: stop it"):
            await node.departure.leave()

    simulated(alone, names=("n1",), is_fixed=False)


@pytest.mark.parametrize("leads", [False, True])
def test_a_node_that_says_good_bye_is_removed_and_never_by_itself(leads: bool) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await complete(cluster, "n1", "n2", "n3")
        await asyncio.sleep(5.0)
        leaving = cluster.leader() if leads else other_than_leader(cluster)
        assert leaving is not None
        assert leaving.node is not None
        discovery = leaving.node.finding.discovery
        assert discovery is not None
        await discovery.leave()
        await asyncio.sleep(2.0)
        assert len(voters(cluster)) == 3, "it still answers"
        assert cluster.leader() is not leaving
        leaving.crash()
        cluster.unused.add(leaving.name)
        await complete(cluster, *sorted({"n1", "n2", "n3"} - {leaving.name}))

    simulated(story, **ALIKE)


class Trickle:
    """A client that appends a record now and then, where the leader is; it never repeats what may have been written."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._is_stopping = False
        self.acknowledged: list[bytes] = []

    async def run(self) -> None:
        number = 0
        while not self._is_stopping:
            number += 1
            machine = self._cluster.leader()
            if machine is not None and machine.log is not None:
                record = b"r%d" % number
                try:
                    async with asyncio.timeout(5.0):
                        await machine.log.propose_append("", block(record))
                except (DistlogError, TimeoutError):
                    pass
                else:
                    self.acknowledged.append(record)
            await asyncio.sleep(0.2)

    async def stop(self, task: asyncio.Future[None]) -> None:
        self._is_stopping = True
        await task


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_to_the_nodes_nothing_is_lost_and_three_vote_in_the_end(seed: int) -> None:
    """Crashes, power cuts, partitions and lost gossip, with two spares and a short patience with the dead."""
    random = Random(seed)

    async def story(cluster: SimulatedCluster) -> None:
        await complete(cluster, "n1", "n2", "n3")
        for name in ("n4", "n5"):
            await start(cluster, name)
        trickle = Trickle(cluster)
        working = asyncio.ensure_future(trickle.run())
        machines = list(cluster.machines.values())
        for _ in range(25):
            await asyncio.sleep(6 * random.random())
            machine = random.choice(machines)
            if machine.node is None:
                await machine.start()
                if random.random() < 0.5:
                    _lose_gossip(machine, random)
            elif random.random() < 0.5 and sum(each.node is not None for each in machines) > 3:
                machine.crash()
            elif random.random() < 0.3:
                part = {each.name for each in random.sample(machines, 2)}
                cluster.network.partition(part, {each.name for each in machines} - part)
                await asyncio.sleep(8 * random.random())
                cluster.network.heal()
            configuration = cluster.configuration()
            assert configuration is None or len(configuration.voters) >= 3
        for machine in machines:
            if machine.node is None:
                await machine.start()
            if cluster.configuration() is not None:
                await _empty_the_removed(cluster)
        await led(cluster)
        assert await cluster.wait_until(lambda: len(voters(cluster)) >= 3, "three vote")
        await trickle.stop(working)
        log = await led(cluster)
        await log.confirm()
        kept = await records_of(log)
        assert [each for each in kept if each in set(trickle.acknowledged)] == trickle.acknowledged
        assert len(trickle.acknowledged) > 50

    simulated(story, seed=seed, expect=3, spares=("n4", "n5"), dead_after_s=4.0)


async def _empty_the_removed(cluster: SimulatedCluster) -> None:
    """Do what an operator does with a node that was told that it is no member any more."""
    configuration = cluster.configuration()
    assert configuration is not None
    for machine in cluster.machines.values():
        if machine.node is not None and machine.name not in configuration.members:
            machine.crash()
            machine.wipe()
            await machine.start()
