"""What becomes of the members of a whole cluster when nodes die, flap, are cut off, leave and are replaced."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from distlog.errors import MembershipChangeRefused
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
