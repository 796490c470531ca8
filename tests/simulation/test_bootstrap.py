"""Empty machines that are all started alike become one cluster, once, and stay it."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import Any

import pytest

from distlog.discovery.backend import Backend
from distlog.errors import ConfigurationInvalid
from distlog.node_settings import DiscoverySettings
from distlog.storage.data_directory import DataDirectory
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.simulated_machine import CLIENT_PORT
from tests.simulation.stories import block, led, records_of, simulated
from tests.simulation.test_membership import voters
from tests.simulation.virtual_loop import VirtualLoop

FIVE = ("n1", "n2", "n3", "n4", "n5")
SIX = (*FIVE, "n6")


def unstarted(story: Any, seed: int, names: tuple[str, ...], **options: Any) -> None:
    """Tell a story of machines of which none is started."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        cluster = SimulatedCluster(loop, seed, names=(), spares=names, expect=3, **options)
        await story(cluster)
        assert not cluster.failures, cluster.failures

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


def cluster_ids(cluster: SimulatedCluster) -> set[str]:
    return {
        machine.log.status(with_topics=False).cluster_id if machine.log is not None else ""
        for machine in cluster.machines.values()
    }


async def start(cluster: SimulatedCluster, machine: Machine) -> None:
    cluster.unused.discard(machine.name)
    if machine.node is None:
        await machine.start()


async def all_belong(cluster: SimulatedCluster) -> None:
    def belong() -> bool:
        ids = cluster_ids(cluster)
        configuration = cluster.configuration()
        if configuration is None or len(ids) != 1 or "" in ids:
            return False
        return configuration.members.keys() == cluster.machines.keys()

    assert await cluster.wait_until(belong, "all belong to one cluster")


def test_three_machines_that_are_started_alike_form_a_cluster_of_three() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await log.propose_append("", block(b"first"))
        await all_belong(cluster)
        await cluster.wait_until(lambda: log.status().target == 3, "the target is written down")
        assert voters(cluster) == ["n1", "n2", "n3"]
        configuration = cluster.configuration()
        assert configuration is not None
        assert configuration.addresses.keys() == {"n1", "n2", "n3"}
        for machine in cluster.machines.values():
            machine.crash()
        for machine in cluster.machines.values():
            await machine.start()
        again = await led(cluster)
        await again.confirm()
        assert await records_of(again) == [b"first"]

    simulated(story, expect=3)


@pytest.mark.parametrize("seed", range(12))
def test_whenever_they_start_and_crash_they_form_one_cluster(seed: int) -> None:
    random = Random(seed)
    names = FIVE[: 3 + seed % 3]

    async def story(cluster: SimulatedCluster) -> None:
        machines = list(cluster.machines.values())
        for _ in range(40):
            machine = random.choice(machines)
            if machine.node is None:
                await start(cluster, machine)
            elif random.random() < 0.3:
                machine.crash()
            await asyncio.sleep(random.random() ** 3)
        for machine in machines:
            await start(cluster, machine)
        await all_belong(cluster)
        log = await led(cluster)
        await log.propose_append("", block(b"first"))
        configuration = cluster.configuration()
        assert configuration is not None
        assert (len(configuration.voters), configuration.target) == (3, 3)

    unstarted(story, seed, names)


def test_who_comes_later_joins_as_a_learner_and_forms_nothing() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        for name in ("n0", "n4"):
            await start(cluster, cluster.machines[name])
        await all_belong(cluster)
        await asyncio.sleep(5.0)
        configuration = cluster.configuration()
        assert configuration is not None
        assert list(configuration.learners) == ["n0", "n4"]
        planned = {each.node_id: each for each in (await led(cluster)).status().planned}
        assert planned["n4"].waits_for == "a place: 3 of 3 voters are there"

    simulated(story, expect=3, spares=("n0", "n4"))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("first", [SIX[:3], SIX[3:]])
def test_as_many_more_that_start_together_join_and_form_none_of_their_own(
    first: tuple[str, ...], by_name: bool, seed: int
) -> None:
    random = Random(seed)

    async def story(cluster: SimulatedCluster) -> None:
        for machine in cluster.machines.values():
            machine.way = "alone" if by_name else "join"
        for name in first:
            await start(cluster, cluster.machines[name])
        assert await cluster.wait_until(
            lambda: len(cluster_ids(cluster) - {""}) == 1, "the first three form a cluster"
        )
        await led(cluster)
        for name in SIX:
            await start(cluster, cluster.machines[name])
            await asyncio.sleep(random.random() / 20)
        await all_belong(cluster)
        configuration = cluster.configuration()
        assert configuration is not None
        assert tuple(configuration.voters) == first

    where = DiscoverySettings(Backend.DNS, "cluster", CLIENT_PORT) if by_name else None
    unstarted(story, seed, SIX, **({"discovery": where} if where else {}))


def test_machines_that_find_each_other_by_a_name_need_no_list() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        for machine in cluster.machines.values():
            machine.way = "alone"
            await start(cluster, machine)
        await all_belong(cluster)
        assert voters(cluster) == ["n1", "n2", "n3"]

    by_name = DiscoverySettings(Backend.DNS, "cluster", CLIENT_PORT)
    unstarted(story, 1, ("n1", "n2", "n3"), discovery=by_name)


@pytest.mark.parametrize("way", ["bootstrap", "alone"])
def test_a_machine_that_has_agreed_to_one_cluster_does_not_begin_another(way: str) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        machine = cluster.machines["n1"]
        directory = DataDirectory.open(machine.disk, "data", "n1", Random(1))
        directory.propose({"n1": directory.directory_id, "n2": "d2"}, is_agreed=True)
        directory.close()
        machine.way = way
        with pytest.raises(ConfigurationInvalid, match="has agreed to be a cluster with n1, n2"):
            await machine.start()

    unstarted(story, 1, ("n1",))


def test_machines_that_expect_different_numbers_say_so_and_form_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def story(cluster: SimulatedCluster) -> None:
        for name in ("n1", "n2"):
            await start(cluster, cluster.machines[name])
        cluster.expect = 2
        await start(cluster, cluster.machines["n3"])
        await asyncio.sleep(10.0)
        assert cluster_ids(cluster) == {""}

    unstarted(story, 1, ("n1", "n2", "n3"))
    told = " ".join(each.getMessage() for each in caplog.records)
    assert (
        "it was started with --expect 2, and this node with --expect 3: give all the same" in told
    )


def test_before_there_are_enough_of_them_they_say_how_many_are_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def story(cluster: SimulatedCluster) -> None:
        for name in ("n1", "n2"):
            await start(cluster, cluster.machines[name])
        await asyncio.sleep(10.0)
        log = cluster.machines["n1"].log
        assert log is not None
        with pytest.raises(Exception, match="3 nodes, of which it knows n1, n2"):
            log.propose_append("", block(b"too early"))

    unstarted(story, 1, ("n1", "n2", "n3"))
    told = [each.getMessage() for each in caplog.records]
    assert told.count("looking for the other nodes missing=3 nodes, of which it knows n1, n2") == 2
    assert not any("connection lost" in each for each in told), "they hang up to greet again"
