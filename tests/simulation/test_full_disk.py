"""Full disks on simulated machines: writes are refused, or go where there is space; reads go on; nobody restarts anything."""

from __future__ import annotations

import asyncio

import pytest

from distlog.consensus.replicated_log import ReplicatedLog
from distlog.errors import NoLeader, NotLeader, StorageFull
from distlog.storage.segment_files import SegmentLimits
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.stories import (
    block,
    followers,
    led,
    log_of,
    records_of,
    settled,
    simulated,
)

RECORD = b"x" * 20_000
# What says for certain that nothing was written.
REFUSALS = (StorageFull, NotLeader, NoLeader)


def fill(machine: Machine, *, left: int = 0) -> None:
    """Leave so many bytes of a machine's disk, as another program would that writes there."""
    machine.disk.capacity = machine.disk.used + left


def free(machine: Machine) -> None:
    machine.disk.capacity = None


async def append(cluster: SimulatedCluster, record: bytes, timeout_s: float = 30.0) -> int:
    """Append as a client does that goes where the leader is, and repeats what was refused."""
    async with asyncio.timeout(timeout_s):
        while True:
            leader = cluster.leader()
            try:
                if leader is not None:
                    return (await log_of(leader).propose_append("", block(record))).base_offset
            except REFUSALS:
                pass
            await asyncio.sleep(0.05)


async def append_for_ever(cluster: SimulatedCluster) -> None:
    while True:
        await append(cluster, RECORD, timeout_s=10)


async def until_refused(log: ReplicatedLog, count_max: int = 2000) -> int:
    """Append until the log says that the disk is full, and return how many appends were acknowledged."""
    for count in range(count_max):
        try:
            await log.propose_append("", block(RECORD))
        except StorageFull:
            return count
    raise AssertionError("it never fills up")


def test_a_single_node_refuses_writes_while_its_disk_is_full_and_takes_them_again() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        machine = cluster.machines["n1"]
        await log.propose_append("", block(b"first"))
        fill(machine, left=100_000)
        count = await until_refused(log)
        assert log.status().is_storage_full
        assert len(await records_of(log)) == 1 + count, "all that was acknowledged, and it is read"
        free(machine)
        assert await append(cluster, b"again") == 1 + count
        assert not log.status().is_storage_full

    simulated(story, names=("n1",))


def test_what_was_proposed_when_the_disk_fills_up_is_acknowledged_or_refused_and_nothing_else() -> (
    None
):
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        leader = cluster.leader()
        assert leader is not None
        fill(leader, left=50_000)
        futures = []
        refused = 0
        for _ in range(40):
            for _ in range(5):
                try:
                    futures.append(log.propose_append("", block(RECORD)))
                except REFUSALS:
                    refused += 1
            await asyncio.sleep(0.001)
        async with asyncio.timeout(60):
            results = await asyncio.gather(*futures, return_exceptions=True)
        acknowledged = [result for result in results if not isinstance(result, BaseException)]
        refusals = [result for result in results if isinstance(result, BaseException)]
        assert acknowledged
        assert refused + len(refusals) > 0
        assert all(isinstance(result, REFUSALS) for result in refusals), refusals
        free(leader)
        await settled(cluster, len(acknowledged))
        assert len(await records_of(await led(cluster))) == len(acknowledged)

    simulated(story)


def test_a_leader_whose_disk_is_full_hands_over_and_goes_on_reading() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        first = cluster.leader()
        assert first is not None
        await log.propose_append("", block(b"before"))
        fill(first)
        end = [await append(cluster, RECORD) for _ in range(100)][-1] + 1
        assert cluster.leader() is not first, "another one has space"
        assert log.status().is_storage_full
        async with asyncio.timeout(5):
            assert await log.read("", 0, size_max=1)
        free(first)
        await settled(cluster, end)

    simulated(story)


def test_a_follower_whose_disk_is_full_lives_says_so_and_catches_up() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        full = followers(cluster)[0]
        fill(full)
        end = [await append(cluster, RECORD) for _ in range(60)][-1] + 1
        assert log_of(full).status().is_storage_full
        members = {member.node_id: member for member in log.status().members}
        assert members[full.name].is_storage_full
        assert (members[full.name].lag or 0) > 0
        assert log_of(full).topic("").high_watermark < end
        assert full.node is not None, "it goes on"
        term = log.status().term
        free(full)
        await settled(cluster, end)
        assert log.status().term == term, "it has disturbed nobody"
        members = {member.node_id: member for member in log.status().members}
        assert not members[full.name].is_storage_full

    simulated(story)


def test_with_all_disks_full_reads_go_on_and_writes_when_one_more_has_space() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        offset = (await log.propose_append("", block(b"kept"))).base_offset
        for machine in cluster.machines.values():
            fill(machine, left=30_000)
        with pytest.raises(TimeoutError):
            await append_for_ever(cluster)
        await asyncio.sleep(10)
        for machine in cluster.machines.values():
            async with asyncio.timeout(5):
                batches = await log_of(machine).read("", offset, size_max=1)
                await log_of(machine).confirmed_topic("")
            assert next(batches[0].records()) == b"kept"
        for machine in list(cluster.machines.values())[:2]:
            free(machine)
        await append(cluster, b"again")
        free(cluster.machines["n3"])
        await settled(cluster, log_of(cluster.machines["n1"]).topic("").high_watermark)

    simulated(story)


def test_with_all_disks_full_leadership_stays_where_it_is_and_goes_to_who_has_space_again() -> None:
    """A full follower that had to refuse nothing has space for entries, and none to lead with."""

    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await log.propose_append("", block(RECORD))
        await asyncio.sleep(1)
        for machine in cluster.machines.values():
            fill(machine)
            # As a write does that finds no space: each of them is full, and none has refused an entry.
            assert machine.node is not None
            machine.node.reserve.give_up(1)
            fill(machine)
        await asyncio.sleep(5)
        log, leader = await led(cluster), cluster.leader()
        before = log.status()
        assert all(member.is_storage_full for member in before.members)
        await asyncio.sleep(60)
        assert cluster.leader() is leader
        assert log.status().term == before.term
        assert log.status().commit_index == before.commit_index, "nothing is written for nothing"
        with_space = followers(cluster)[0]
        free(with_space)
        await append(cluster, b"again")
        assert cluster.leader() is with_space

    simulated(story)


def test_a_node_starts_on_a_full_disk_with_everything_that_was_acknowledged() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        machine = cluster.machines["n1"]
        count = 0
        for _ in range(30):
            await log.propose_append("", block(RECORD))
            count += 1
        fill(machine, left=10_000)
        count += await until_refused(log)
        machine.crash()
        # What the cut gave back is gone: another program was faster.
        fill(machine)
        await machine.start()
        log = await led(cluster)
        await asyncio.sleep(5)
        free(machine)
        await settled(cluster, count)
        assert len(await records_of(log)) == count
        await append(cluster, b"again")

    simulated(story, names=("n1",))


def test_a_full_disk_does_not_keep_a_node_from_its_checkpoint_and_the_journal_from_being_forgotten() -> (
    None
):
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        machine = cluster.machines["n1"]
        await log.propose_append("", block(RECORD))
        fill(machine, left=200_000)
        await until_refused(log)
        before = log.status()
        await asyncio.sleep(12)
        assert log.status().checkpoint_index == before.applied_index
        assert machine.node is not None

    simulated(story, names=("n1",))


def test_files_that_a_reader_held_at_the_checkpoint_go_although_nothing_is_written_any_more() -> (
    None
):
    """A full node takes no writes, so perhaps no other checkpoint comes: space that was freed must not wait for one."""

    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        machine = cluster.machines["n1"]
        limits = SegmentLimits(store_size_max=4 << 10, row_count_max=16)
        for name in ("trimmed", "deleted"):
            await log.create_topic(name, limits)
            for _ in range(3):
                await log.propose_append(name, block(RECORD))
        assert machine.node is not None
        state_machine = machine.node.group.state_machine  # type: ignore[union-attr]
        topics = [state_machine.topic_by_name(name) for name in ("trimmed", "deleted")]
        plans = [topic.log.plan_read(0, 1) for topic in topics]  # type: ignore[union-attr]
        await log.trim_topic("trimmed", 3)
        await log.delete_topic("deleted", topics[1].topic_id)  # type: ignore[union-attr]
        applied = log.status().applied_index
        assert await cluster.wait_until(
            lambda: log.status().checkpoint_index >= applied, "a checkpoint", timeout_s=300
        )
        await asyncio.sleep(10)
        used = machine.disk.used
        for plan in plans:
            plan.release()
        await asyncio.sleep(10)
        assert used - machine.disk.used >= 5 * len(RECORD)

    simulated(story, names=("n1",))


@pytest.mark.parametrize("way", ["emptied", "deleted"])
def test_an_operator_who_takes_the_reserve_away_loses_nothing(way: str) -> None:
    """What somebody does in the night who looks for space: the disk fills up, and the file named reserve is large."""

    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        machine = cluster.machines["n1"]
        await log.propose_append("", block(RECORD))
        if way == "emptied":
            machine.disk.open("data/reserve").truncate(0)
        else:
            machine.disk.remove("data/reserve")
        fill(machine, left=60_000)
        acknowledged = 1 + await until_refused(log)
        assert len(await records_of(log)) == acknowledged
        machine.crash()
        fill(machine)
        await machine.start()
        await asyncio.sleep(5)
        # Without a byte to write its vote to it may not even lead, but it lives.
        assert log_of(machine).status().is_storage_full
        free(machine)
        await led(cluster)
        await settled(cluster, acknowledged)
        assert await append(cluster, b"again") == acknowledged

    simulated(story, names=("n1",))
