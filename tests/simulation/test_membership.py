"""Members of a simulated cluster come and go, and nobody is taken for somebody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from distlog.errors import MemberNotFound, MembershipChangeRefused, NotLeader
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.stories import block, led, log_of, records_of, simulated
from tests.simulation.test_leadership import Load

SPARES = ("n4", "n5", "n6")
GROWING: dict[str, Any] = {"names": ("n1",), "spares": ("n2", "n3", "n4", "n5"), "is_fixed": False}


def voters(cluster: SimulatedCluster) -> list[str]:
    configuration = cluster.configuration()
    return list(configuration.voters) if configuration is not None else []


async def join(cluster: SimulatedCluster, name: str) -> Machine:
    """Start a node that joins, and wait until it votes."""
    machine = cluster.machines[name]
    machine.way = "join"
    cluster.unused.discard(name)
    await machine.start()
    assert await cluster.wait_until(lambda: name in voters(cluster), f"{name} votes")
    return machine


async def remove(cluster: SimulatedCluster, name: str) -> None:
    """Remove a member as an operator does: at the leader, and at the next one if it led itself."""
    log = await led(cluster)
    try:
        await log.remove_member(name)
    except NotLeader:
        assert await cluster.wait_until(lambda: cluster.leader() is not None, "a leader")
        await (await led(cluster)).remove_member(name)


def test_a_cluster_grows_from_one_to_five_and_shrinks_back_under_load() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        load = Load(cluster)
        working = asyncio.ensure_future(load.run())
        for name in ("n2", "n3", "n4", "n5"):
            await join(cluster, name)
        assert voters(cluster) == ["n1", "n2", "n3", "n4", "n5"]
        # The leader is among them, and hands over first.
        for name in ("n1", "n2", "n3", "n4"):
            await remove(cluster, name)
            await asyncio.sleep(0.5)
            cluster.machines[name].crash()
        await load.stop(working)
        assert voters(cluster) == ["n5"]
        assert len(load.acknowledged) > 100
        log = log_of(cluster.machines["n5"])
        kept = await records_of(log)
        assert [record for record in kept if record not in load.unknown] == load.acknowledged

    simulated(story, **GROWING)


def test_a_fixed_set_takes_a_new_node_and_goes_on_without_an_old_one() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await log.propose_append("", block(b"before"))
        await join(cluster, "n4")
        gone = next(
            name for name in cluster.names if cluster.machines[name] is not cluster.leader()
        )
        cluster.machines[gone].crash()
        await remove(cluster, gone)
        assert gone not in voters(cluster)
        await (await led(cluster)).propose_append("", block(b"after"))
        for machine in cluster.members():
            machine.crash()
        for machine in cluster.members():
            await machine.start()
        again = await led(cluster)
        assert len(voters(cluster)) == 3
        await again.confirm()
        assert await records_of(again) == [b"before", b"after"]

    simulated(story, spares=SPARES)


def test_a_removed_node_is_told_so_and_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        leader = cluster.leader()
        gone = next(name for name in cluster.names if cluster.machines[name] is not leader)
        await remove(cluster, gone)
        term = log.status().term
        await asyncio.sleep(10.0)
        assert cluster.leader() is leader
        assert log.status().term == term, "it has not made anybody campaign"
        machine = cluster.machines[gone]
        machine.crash()
        await machine.start()
        await asyncio.sleep(5.0)
        assert (log.status().term, log_of(machine).has_leader) == (term, False)
        assert not log_of(machine).status().leader_id

    simulated(story)
    told = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert any("was removed from the cluster" in each and "--join" in each for each in told)


def test_a_removed_identity_stays_refused_and_an_empty_disk_joins_again() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        machine = await join(cluster, "n4")
        await remove(cluster, "n4")
        machine.crash()
        await machine.start()
        await asyncio.sleep(5.0)
        assert "n4" not in voters(cluster)
        machine.crash()
        machine.wipe()
        await join(cluster, "n4")

    simulated(story, spares=SPARES)


def test_a_wiped_voter_is_nobody_until_it_is_removed() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        name = next(
            each for each in cluster.names if cluster.machines[each] is not cluster.leader()
        )
        configuration = cluster.configuration()
        assert configuration is not None
        before = configuration.voters[name]
        machine = cluster.machines[name]
        machine.crash()
        machine.wipe()
        machine.way = "join"
        await machine.start()
        await asyncio.sleep(5.0)
        assert log_of(machine).status().role == "forming"
        await remove(cluster, name)
        assert await cluster.wait_until(lambda: name in voters(cluster), "it has come back")
        configuration = cluster.configuration()
        assert configuration is not None
        assert configuration.voters[name] != before

    simulated(story, spares=SPARES)


def test_an_old_backup_of_a_data_directory_does_not_vote(caplog: pytest.LogCaptureFixture) -> None:
    """What was acknowledged meanwhile is on one other disk only, and would be voted away with it."""

    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        leader = cluster.leader()
        others = [machine for machine in cluster.machines.values() if machine is not leader]
        victim, other = others
        await log.propose_append("", block(b"old"))
        backup = victim.disk.kill()
        for number in range(50):
            await log.propose_append("", block(b"new-%d" % number))
        await asyncio.sleep(1.0)
        victim.crash()
        victim.disk = backup
        await victim.start()
        await asyncio.sleep(3.0)
        assert not log_of(victim).has_leader, "the leader does not take it for the voter"
        assert leader is not None
        leader.crash()
        await asyncio.sleep(5.0)
        assert cluster.leader() is None, f"{other.name} has nobody whose vote counts"

    simulated(story)
    assert any(
        "an older copy, was put in its place" in each.getMessage() for each in caplog.records
    )


def test_two_processes_on_copies_of_one_directory_are_told_apart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        original = next(each for each in cluster.machines.values() if each is not cluster.leader())
        copy = Machine(cluster, "copy", node_id=original.name)
        copy.disk = original.disk.kill()
        cluster.watch.add("copy")
        # It is not one of the machines: it only listens and dials.
        await copy.start()
        await asyncio.sleep(5.0)
        term = log.status().term
        await log.propose_append("", block(b"x"))
        await asyncio.sleep(5.0)
        assert log.status().term == term

    simulated(story)
    told = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert any("one of the two directories is a copy" in each for each in told)


def test_a_removal_that_would_leave_no_majority_is_refused() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        first, second = [m for m in cluster.machines.values() if m is not cluster.leader()]
        first.crash()
        await asyncio.sleep(3.0)
        with pytest.raises(MembershipChangeRefused, match="only 1 of the 2"):
            await log.remove_member(second.name)
        await log.remove_member(first.name)

    simulated(story)


def test_only_the_very_member_that_is_meant_is_removed() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        second = next(m for m in cluster.machines.values() if m is not cluster.leader())
        with pytest.raises(MembershipChangeRefused, match="and not another"):
            await log.remove_member(second.name, cluster_id="another")
        with pytest.raises(MemberNotFound):
            await log.remove_member(second.name, directory_id="another")
        assert second.name in voters(cluster)

    simulated(story)
