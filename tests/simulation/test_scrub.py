"""Bytes that a disk has changed, on whole clusters: they are found, and replaced from a peer while everything goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from distlog.catch_up.scrub import ScrubSettings
from distlog.consensus.views import ScrubStatus
from distlog.errors import CorruptBatch
from distlog.storage.segment_files import SUFFIXES
from tests.simulation import test_catch_up
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.stories import followers, led, records_of
from tests.simulation.test_catch_up import LIMITS, append_many

OFTEN = ScrubSettings(interval_s=5.0, rate_max=64 << 20)
NEVER = ScrubSettings(interval_s=0)


def simulated(story: Callable[[SimulatedCluster], Awaitable[None]], scrub: ScrubSettings) -> None:
    test_catch_up.simulated(story, scrub=scrub)


def rot(machine: Machine, topic_id: int, base_offset: int, suffix: str, position: int) -> None:
    """Flip a bit of a segment's file below the node, as a disk does."""
    path = f"data/groups/0/topics/{topic_id:020d}/{base_offset:020d}{suffix}"
    file = machine.disk.open(path)
    file.write_at(position, [bytes([file.read_at(position, 1)[0] ^ 4])])
    file.close()


def scrub_of(machine: Machine) -> ScrubStatus:
    assert machine.log is not None
    return machine.log.status().scrub


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_bit_in_a_sealed_segment_is_found_and_replaced_without_a_restart(
    suffix: str,
) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        created = await log.create_topic("events", LIMITS)
        await append_many(log, "events", 20)
        victim = followers(cluster)[0]
        starts = cluster.counts["starts"]
        assert victim.log is not None
        await victim.log.confirm()
        rot(victim, created.topic_id, 2, suffix, 20)
        assert await cluster.wait_until(
            lambda: scrub_of(victim).repaired_count == 1, "it is replaced", 30.0
        )
        scrub = scrub_of(victim)
        assert (scrub.fault_count, scrub.damaged) == (1, ())
        assert await records_of(victim.log, "events") == await records_of(log, "events")
        assert cluster.counts["starts"] == starts

    simulated(story, OFTEN)


def test_damage_that_a_read_finds_is_replaced_at_once() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        created = await log.create_topic("events", LIMITS)
        await append_many(log, "events", 20)
        victim = followers(cluster)[0]
        assert victim.log is not None
        await victim.log.confirm()
        rot(victim, created.topic_id, 4, ".log", 50)
        with pytest.raises(CorruptBatch):
            await victim.log.read("events", 4, size_max=1)
        # What is beside it can be read meanwhile.
        assert (await victim.log.read("events", 5, size_max=1))[0].base_offset == 5
        assert await cluster.wait_until(
            lambda: scrub_of(victim).repaired_count == 1, "it is replaced", 5.0
        )
        assert await records_of(victim.log, "events") == await records_of(log, "events")

    simulated(story, NEVER)


def test_damage_in_the_segment_that_is_written_is_said_and_replaced_once_it_is_sealed() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        created = await log.create_topic("events", LIMITS)
        await append_many(log, "events", 3)
        victim = followers(cluster)[0]
        assert victim.log is not None
        await victim.log.confirm()
        rot(victim, created.topic_id, 2, ".log", 50)
        assert await cluster.wait_until(
            lambda: len(scrub_of(victim).damaged) == 1, "it is said", 30.0
        )
        assert "byte 0" in scrub_of(victim).damaged[0]
        await append_many(log, "events", 4)
        assert await cluster.wait_until(
            lambda: scrub_of(victim).repaired_count == 1, "it is replaced", 30.0
        )

    simulated(story, OFTEN)


def test_a_peer_with_damage_of_its_own_is_passed_over() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        created = await log.create_topic("events", LIMITS)
        await append_many(log, "events", 20)
        one, other = followers(cluster)
        for machine in (one, other):
            assert machine.log is not None
            await machine.log.confirm()
            rot(machine, created.topic_id, 2, ".log", 100)
        assert await cluster.wait_until(
            lambda: scrub_of(one).repaired_count == scrub_of(other).repaired_count == 1,
            "both are replaced, from the leader",
            60.0,
        )

    simulated(story, OFTEN)


def test_a_peer_that_goes_away_during_a_repair_costs_nothing_but_time() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        created = await log.create_topic("events", LIMITS)
        await append_many(log, "events", 20)
        victim = followers(cluster)[0]
        assert victim.log is not None
        await victim.log.confirm()
        for _ in range(4):
            rot(victim, created.topic_id, 2, ".log", 100)
            assert await cluster.wait_until(lambda: bool(scrub_of(victim).damaged), "found", 30.0)
            for machine in cluster.machines.values():
                if machine is not victim:
                    cluster.network.break_connections(machine.name, victim.name)
            await cluster.wait_until(lambda: not scrub_of(victim).damaged, "replaced", 40.0)
        assert scrub_of(victim).repaired_count == 4

    test_catch_up.simulated(story, scrub=OFTEN, copy_rate_max=20 << 10)
