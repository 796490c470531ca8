"""Failing disks on simulated machines: a node whose fsync fails, whose disk turns read-only, or that may open no more files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from distlog.errors import DescriptorsExhausted, DiskFailed, DistlogError
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

# What needs a descriptor, and what a read-only file system refuses.
OPENING = ("open", "map", "sync directory", "make directory")
WRITING = ("write", "reserve", "truncate", "rename", "remove", "make directory", "sync")


def fail_syncs(machine: Machine) -> None:
    machine.disk.fail_syncs = True


def turn_read_only(machine: Machine) -> None:
    def hook(operation: str, path: str) -> None:
        if operation in WRITING:
            raise DiskFailed(path=path, operation=operation, problem="Read-only file system")

    machine.disk.hook = hook


def take_descriptors(machine: Machine) -> None:
    def hook(operation: str, path: str) -> None:
        if operation in OPENING:
            raise DescriptorsExhausted(path=path)

    machine.disk.hook = hook


def mend(machine: Machine) -> None:
    machine.disk.fail_syncs = False
    machine.disk.hook = None


def victim_of(cluster: SimulatedCluster, role: str) -> Machine:
    leader = cluster.leader()
    assert leader is not None
    return leader if role == "leader" else followers(cluster)[0]


class Load:
    """A client that appends, some records at a time, until it is told to end."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self.acknowledged: list[bytes] = []
        # What may be in the log although nobody said so.
        self._doubtful: list[bytes] = []
        self._is_ending = False
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        number = 0
        while not self._is_ending:
            records = [b"%d-%d" % (number, part) + b"." * 500 for part in range(5)]
            await asyncio.gather(*(self._append(record) for record in records))
            number += 1

    async def _append(self, record: bytes) -> None:
        leader = self._cluster.leader()
        if leader is None:
            await asyncio.sleep(0.05)
            return
        try:
            async with asyncio.timeout(2):
                await log_of(leader).propose_append("", block(record))
        except (DistlogError, TimeoutError):
            self._doubtful.append(record)
            await asyncio.sleep(0.05)
        else:
            self.acknowledged.append(record)

    async def more(self, count: int = 30) -> None:
        """Wait until so many more are acknowledged."""
        wanted = len(self.acknowledged) + count
        assert await self._cluster.wait_until(
            lambda: len(self.acknowledged) >= wanted, "more is acknowledged"
        )

    async def finish(self) -> None:
        """End, and check that everything acknowledged is in every log, once, and nothing else but what is doubtful."""
        self._is_ending = True
        await self._task
        await settled(self._cluster, (await led(self._cluster)).topic("").high_watermark)
        machines = self._cluster.machines.values()
        found, *others = [await records_of(log_of(machine)) for machine in machines]
        assert all(other == found for other in others)
        assert len(set(found)) == len(found)
        assert set(self.acknowledged) <= set(found) <= {*self.acknowledged, *self._doubtful}


@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.parametrize("power", ["kept", "cut"])
@pytest.mark.parametrize("breaks", [fail_syncs, turn_read_only])
def test_a_node_whose_disk_fails_stops_and_comes_back_with_what_its_disk_has(
    breaks: Callable[[Machine], None], power: str, role: str
) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        load = Load(cluster)
        await load.more()
        victim = victim_of(cluster, role)
        node = victim.node
        assert node is not None
        breaks(victim)
        assert await cluster.wait_until(node.failed.done, "it stops")
        error = node.failed.exception()
        assert isinstance(error, DiskFailed)
        # It has stopped itself, as it must; its process ends, and perhaps its machine too.
        cluster.failures.remove(f"{victim.name} stopped itself: {error!r}")
        if power == "cut":
            victim.crash()
        else:
            victim.kill()
        await load.more()
        mend(victim)
        await victim.start()
        await load.more()
        await load.finish()

    simulated(story)


@pytest.mark.parametrize("role", ["leader", "follower", "all"])
def test_a_node_that_may_open_no_files_lives_and_goes_on_when_it_may_again(role: str) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        load = Load(cluster)
        await load.more()
        victims = list(cluster.machines.values()) if role == "all" else [victim_of(cluster, role)]
        for victim in victims:
            take_descriptors(victim)
        full = [log_of(victim) for victim in victims]
        assert await cluster.wait_until(
            lambda: all(log.status().is_storage_full for log in full), "they say so"
        )
        if role != "all":
            await load.more()
        for victim in victims:
            mend(victim)
        assert await cluster.wait_until(
            lambda: not any(log.status().is_storage_full for log in full), "they take writes again"
        )
        await load.more()
        await load.finish()

    simulated(story)
