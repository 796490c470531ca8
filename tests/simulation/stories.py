"""What a story about a simulated cluster is told with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from distlog.block import Block
from distlog.consensus.replicated_log import ReplicatedLog
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.virtual_loop import VirtualLoop

THREE = ("n1", "n2", "n3")


def simulated(
    story: Callable[[SimulatedCluster], Awaitable[None]],
    names: tuple[str, ...] = THREE,
    seed: int = 1,
    **options: Any,
) -> None:
    """Run a story on a started cluster in virtual time; the cluster's own checks must hold too."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        cluster = SimulatedCluster(loop, seed, names=names, **options)
        await cluster.start()
        await story(cluster)
        assert not cluster.failures, cluster.failures

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


async def led(cluster: SimulatedCluster) -> ReplicatedLog:
    """Return the log of the machine that leads, as soon as one does."""
    assert await cluster.wait_until(lambda: cluster.leader() is not None, "a leader")
    machine = cluster.leader()
    assert machine is not None
    return log_of(machine)


def log_of(machine: Machine) -> ReplicatedLog:
    assert machine.log is not None
    return machine.log


def followers(cluster: SimulatedCluster) -> list[Machine]:
    leader = cluster.leader()
    return [machine for machine in cluster.machines.values() if machine is not leader]


def block(*records: bytes) -> Block:
    return Block.from_records(records)


async def records_of(log: ReplicatedLog, topic: str = "", start: int = 0) -> list[bytes]:
    end = log.topic(topic).high_watermark
    records: list[bytes] = []
    while start + len(records) < end:
        for batch in await log.read(topic, start + len(records), size_max=1 << 20):
            skip = start + len(records) - batch.base_offset
            records += list(batch.records())[skip:]
    return records


async def settled(cluster: SimulatedCluster, end: int) -> None:
    """Wait until every machine that runs has applied up to `end`."""

    def applied() -> bool:
        logs = [machine.log for machine in cluster.machines.values() if machine.log is not None]
        return all(log.topic("").high_watermark >= end for log in logs)

    assert await cluster.wait_until(applied, f"all have {end} records")
