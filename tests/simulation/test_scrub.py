"""Bytes that a disk has changed, on whole clusters: they are found, and replaced from a peer while everything goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from distlog.catch_up.scrub import ScrubSettings
from distlog.consensus.replicated_log import ReplicatedLog
from distlog.consensus.views import Consistency, ScrubStatus
from distlog.errors import CorruptBatch
from distlog.storage.segment_files import SUFFIXES
from tests.simulation import test_catch_up
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.stories import followers, led, log_of, records_of
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


def lose(machine: Machine, topic_id: int, base_offset: int, *suffixes: str) -> None:
    """Take files of a segment from a node that is down."""
    machine.is_disk_damaged = True
    for suffix in suffixes:
        machine.disk.remove(f"data/groups/0/topics/{topic_id:020d}/{base_offset:020d}{suffix}")


async def with_events(
    cluster: SimulatedCluster, count: int
) -> tuple[ReplicatedLog, int, list[Machine]]:
    """Have records of one topic everywhere, about two in a segment; return the leader's log, the topic's id, and the followers."""
    log = await led(cluster)
    created = await log.create_topic("events", LIMITS)
    await append_many(log, "events", count)
    for machine in followers(cluster):
        await log_of(machine).confirm()
    return log, created.topic_id, followers(cluster)


def scrub_of(machine: Machine) -> ScrubStatus:
    assert machine.log is not None
    return machine.log.status().scrub


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_bit_in_a_sealed_segment_is_found_and_replaced_without_a_restart(
    suffix: str,
) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log, topic_id, (victim, _) = await with_events(cluster, 20)
        starts = cluster.counts["starts"]
        rot(victim, topic_id, 2, suffix, 20)
        assert await cluster.wait_until(
            lambda: scrub_of(victim).repaired_count == 1, "it is replaced", 30.0
        )
        scrub = scrub_of(victim)
        assert (scrub.fault_count, scrub.damaged) == (1, ())
        assert await records_of(log_of(victim), "events") == await records_of(log, "events")
        assert cluster.counts["starts"] == starts

    simulated(story, OFTEN)


def test_damage_that_a_read_finds_is_replaced_at_once() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log, topic_id, (victim, _) = await with_events(cluster, 20)
        rot(victim, topic_id, 4, ".log", 50)
        with pytest.raises(CorruptBatch):
            await log_of(victim).read("events", 4, size_max=1)
        # What is beside it can be read meanwhile.
        assert (await log_of(victim).read("events", 5, size_max=1))[0].base_offset == 5
        assert await cluster.wait_until(
            lambda: scrub_of(victim).repaired_count == 1, "it is replaced", 5.0
        )
        assert await records_of(log_of(victim), "events") == await records_of(log, "events")

    simulated(story, NEVER)


def test_damage_in_the_segment_that_is_written_is_said_and_replaced_once_it_is_sealed() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log, topic_id, (victim, _) = await with_events(cluster, 3)
        rot(victim, topic_id, 2, ".log", 50)
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
        _, topic_id, (one, other) = await with_events(cluster, 20)
        for machine in (one, other):
            rot(machine, topic_id, 2, ".log", 100)
        assert await cluster.wait_until(
            lambda: scrub_of(one).repaired_count == scrub_of(other).repaired_count == 1,
            "both are replaced, from the leader",
            60.0,
        )

    simulated(story, OFTEN)


def test_a_peer_that_goes_away_during_a_repair_costs_nothing_but_time() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        _, topic_id, (victim, _) = await with_events(cluster, 20)
        for _ in range(4):
            rot(victim, topic_id, 2, ".log", 100)
            assert await cluster.wait_until(lambda: bool(scrub_of(victim).damaged), "found", 30.0)
            for machine in cluster.machines.values():
                if machine is not victim:
                    cluster.network.break_connections(machine.name, victim.name)
            await cluster.wait_until(lambda: not scrub_of(victim).damaged, "replaced", 40.0)
        assert scrub_of(victim).repaired_count == 4

    test_catch_up.simulated(story, scrub=OFTEN, copy_rate_max=20 << 10)


def lost_of(machine: Machine) -> int:
    """Return how many segments of a node are set aside."""
    logs = [topic.log for topic in machine.group.state_machine.topics()]
    return sum(bool(segment.problem) for log in logs for segment in log.describe())


async def with_lost_segments(cluster: SimulatedCluster) -> Machine:
    """Have a node, which is down, that lacks two segments of one topic and a part of another one."""
    _, topic_id, (victim, _) = await with_events(cluster, 30)
    await victim.stop()
    lose(victim, topic_id, 4, *SUFFIXES)
    lose(victim, topic_id, 6, ".log")
    store = victim.disk.open(f"data/groups/0/topics/{topic_id:020d}/{12:020d}.log")
    store.truncate(store.size() - 1)
    return victim


def test_a_node_that_lost_sealed_segments_starts_says_so_and_has_them_replaced_while_it_runs() -> (
    None
):
    async def story(cluster: SimulatedCluster) -> None:
        victim = await with_lost_segments(cluster)
        await victim.start()
        assert await cluster.wait_until(lambda: len(scrub_of(victim).damaged) == 3, "it is said")
        for offset in (4, 6, 13):
            with pytest.raises(CorruptBatch):
                await log_of(victim).read("events", offset, size_max=1)
        # What is around them can be read meanwhile, and it takes part.
        assert (await log_of(victim).read("events", 8, size_max=1))[0].base_offset == 8
        leading = cluster.leader()
        assert leading is not None
        await append_many(log_of(leading), "events", 5)
        assert await cluster.wait_until(
            lambda: scrub_of(victim).repaired_count == 3, "they are replaced", 60.0
        )
        assert scrub_of(victim).damaged == ()
        await log_of(victim).confirm()
        assert await records_of(log_of(victim), "events") == await records_of(
            log_of(leading), "events"
        )
        # At the next start nothing is missing.
        await victim.stop()
        victim.is_disk_damaged = False
        await victim.start()

    # At this pace the copies take a while.
    test_catch_up.simulated(story, scrub=NEVER, copy_rate_max=20 << 10)


def test_a_node_leads_while_it_lacks_what_the_others_have_and_loses_nothing() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        victim = await with_lost_segments(cluster)
        await victim.start()
        leading = cluster.leader()
        assert leading is not None
        assert await cluster.wait_until(
            lambda: all(member.connected for member in log_of(victim).status().members),
            "it speaks with all",
        )
        await log_of(leading).transfer_leadership(victim.name)
        assert lost_of(victim) > 0
        log = log_of(victim)
        assert await cluster.wait_until(lambda: log.is_leader, "it leads")
        await append_many(log, "events", 10)
        await log.trim_topic("events", 7)
        assert await cluster.wait_until(
            lambda: scrub_of(victim).repaired_count >= 1 and not scrub_of(victim).damaged,
            "what is kept is replaced",
            60.0,
        )

    test_catch_up.simulated(story, scrub=NEVER, copy_rate_max=5 << 10)


def test_a_node_that_crashes_while_lost_segments_are_replaced_has_some_of_them_and_goes_on() -> (
    None
):
    async def story(cluster: SimulatedCluster) -> None:
        victim = await with_lost_segments(cluster)
        await victim.start()
        for left in (2, 1, 0):
            assert await cluster.wait_until(
                lambda left=left: lost_of(victim) <= left,  # type: ignore[misc]
                "another one is replaced",
                60.0,
            )
            lost = lost_of(victim)
            victim.crash()
            await victim.start()
            assert lost_of(victim) <= lost

    test_catch_up.simulated(story, scrub=NEVER, copy_rate_max=20 << 10)


def test_a_node_that_was_alone_goes_on_without_what_it_lost() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        victim = await with_lost_segments(cluster)
        others = [machine for machine in cluster.machines.values() if machine is not victim]
        for machine in others:
            await machine.stop()
        await victim.start()
        assert await cluster.wait_until(lambda: len(scrub_of(victim).damaged) == 3, "it is said")
        # Nobody has it: it is tried again now and then, and what is there is served.
        files = victim.node.files if victim.node is not None else None
        assert files is not None
        assert await cluster.wait_until(
            lambda: files.scrub.counters["repairs_failed"] == 9, "it has tried", 40.0
        )
        found = await log_of(victim).read("events", 8, size_max=1, consistency=Consistency.LOCAL)
        assert found[0].base_offset == 8
        for machine in others:
            await machine.start()
        assert await cluster.wait_until(lambda: not scrub_of(victim).damaged, "replaced", 60.0)

    test_catch_up.simulated(story, scrub=NEVER)


def test_two_nodes_that_each_lack_what_the_other_has_mend_each_other() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log, topic_id, damaged = await with_events(cluster, 30)
        expected = await records_of(log, "events")
        leading = cluster.leader()
        assert leading is not None
        for machine in damaged:
            await machine.stop()
        await leading.stop()
        for machine, base_offsets in zip(damaged, ((2, 6, 10), (4, 8, 12)), strict=True):
            for base_offset in base_offsets:
                lose(machine, topic_id, base_offset, *SUFFIXES)
        # The only whole copy stays away: a majority that lacks six segments between the two of them.
        for machine in damaged:
            await machine.start()
        assert await cluster.wait_until(
            lambda: all(scrub_of(machine).repaired_count == 3 for machine in damaged),
            "each has what the other had",
            60.0,
        )
        for machine in damaged:
            await log_of(machine).confirm()
            assert await records_of(log_of(machine), "events") == expected
        await leading.start()

    simulated(story, NEVER)
