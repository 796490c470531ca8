"""Nodes that are too far behind for the journals of the others: they copy a checkpoint and segments, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from distlog.consensus.replicated_log import ReplicatedLog, ReplicatedLogSettings
from distlog.storage.segment_files import SegmentLimits
from tests.simulation.schedule import file_differences, settled, whole_log
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.stories import block, followers, led
from tests.simulation.virtual_loop import VirtualLoop

SETTINGS = ReplicatedLogSettings(journal_size_max=256 << 10, retention_interval_s=0.5)
LIMITS = SegmentLimits(store_size_max=16 << 10, row_count_max=64)
Story = Callable[[SimulatedCluster], Awaitable[None]]


def simulated(story: Story, *, seed: int = 1, **options: Any) -> SimulatedCluster:
    """Run a story on a started cluster whose journals are small, in virtual time, and compare all nodes at the end."""
    clusters: list[SimulatedCluster] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        cluster = SimulatedCluster(loop, seed, replicated_log=SETTINGS, **options)
        clusters.append(cluster)
        await cluster.start()
        await cluster.wait_until(lambda: cluster.leader() is not None, "a leader")
        await story(cluster)
        await compare(cluster)
        assert not cluster.failures, cluster.failures

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())
    return clusters[0]


async def compare(cluster: SimulatedCluster) -> None:
    """Have all nodes come to the same end, and their files with them."""
    await cluster.wait_until(lambda: cluster.leader() is not None, "a leader")
    assert await settled(cluster), cluster.failures
    logs = [await whole_log(machine) for machine in cluster.machines.values()]
    assert all(log == logs[0] for log in logs)
    for machine in cluster.machines.values():
        await machine.stop()
    cluster.failures += file_differences({m.name: m.disk for m in cluster.machines.values()})


async def append_many(log: ReplicatedLog, topic: str, count: int, size: int = 8000) -> None:
    for number in range(count):
        await log.propose_append(topic, block(b"%d " % number + bytes(size)))


async def left_behind(cluster: SimulatedCluster, count: int = 120) -> tuple[ReplicatedLog, Machine]:
    """Have one node miss more than the journals of the others keep; return the leader's log, and the node, which is down."""
    log = await led(cluster)
    await log.create_topic("events", LIMITS)
    await append_many(log, "", 5)
    away = followers(cluster)[0]
    await away.stop()
    await append_many(log, "events", count)
    await append_many(log, "", count // 3)
    return log, away


def copies_of(machine: Machine) -> int:
    assert machine.node is not None
    files = machine.node._files
    assert files is not None
    return files.catch_up.counters["copies_finished"]


def test_a_node_that_lacks_what_no_journal_keeps_copies_a_checkpoint_and_goes_on() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log, away = await left_behind(cluster)
        assert log.status().journal_size < SETTINGS.journal_size_max
        await away.start()
        assert await cluster.wait_until(lambda: copies_of(away) == 1, "a copy is finished")
        await append_many(log, "", 5)

    simulated(story)
