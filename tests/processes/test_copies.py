"""Copies of a data directory, at real nodes: a backup that is put back, and a clone that runs beside its original."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from distlog.client.client import Client
from tests.processes.process_cluster import NodeProcess, ProcessCluster, until
from tests.processes.test_membership import MakeGrowing, all_vote, make_growing

__all__ = ["make_growing"]

NAMES = ("n1", "n2", "n3")
OLD_COPY = "lacks entries that it had before"
CLONE = "one of the two directories is a copy"


async def produce(cluster: ProcessCluster, first: int, count: int) -> None:
    async with Client(cluster.addresses) as client:
        for number in range(first, first + count):
            await client.produce(b"record %d" % number)


async def a_follower(cluster: ProcessCluster) -> str:
    leader = await cluster.leader()
    return next(name for name in NAMES if name != leader)


async def said(node: NodeProcess, words: str) -> None:
    async def says() -> bool:
        return words in node.says()

    await until(says, f"{node.node_id} says: {words}")


def test_an_old_backup_that_is_put_back_does_not_take_part_and_takes_nothing_away(
    make_growing: MakeGrowing, tmp_path: Path
) -> None:
    async def scenario() -> None:
        cluster = make_growing(NAMES)
        cluster.start()
        await all_vote(cluster, *NAMES)
        await produce(cluster, 0, 50)
        victim = await a_follower(cluster)
        await cluster.reach(50)
        await cluster[victim].terminate()
        backup = tmp_path / "backup"
        shutil.copytree(cluster[victim].data_dir, backup)
        cluster.start(victim)
        await cluster.reach(50)
        await produce(cluster, 50, 50)
        await cluster.reach(100)
        cluster.kill(victim)
        shutil.rmtree(cluster[victim].data_dir)
        shutil.copytree(backup, cluster[victim].data_dir)
        cluster.start(victim)
        await said(cluster[victim], OLD_COPY)
        others = [name for name in NAMES if name != victim]
        # The rest is a majority, and has everything.
        await produce(cluster, 100, 10)
        await cluster.reach(110, *others)
        for name in others:
            found = [value for _, value in await cluster.read_log(name, 110)]
            assert found == [b"record %d" % number for number in range(110)]

    asyncio.run(scenario())


def test_a_clone_that_runs_beside_its_original_is_told_and_nothing_is_lost(
    make_growing: MakeGrowing, tmp_path: Path
) -> None:
    async def scenario() -> None:
        cluster = make_growing(NAMES)
        cluster.start()
        await all_vote(cluster, *NAMES)
        await produce(cluster, 0, 50)
        await cluster.reach(50)
        name = await a_follower(cluster)
        original = cluster[name]
        await original.terminate()
        clone = NodeProcess(name, tmp_path / "clone", original.host, tmp_path / "clone.out")
        shutil.copytree(original.data_dir, clone.data_dir)
        clone.arguments = ["--data-dir", str(clone.data_dir), "--node-id", name]
        clone.arguments += ["--listen", clone.address, "--peer-listen", clone.peer_address]
        original.start()
        await cluster.reach(50)
        clone.start()
        try:

            async def one_is_told() -> bool:
                return CLONE in original.says() + clone.says()

            await until(one_is_told, "one of the two processes is told")
            await produce(cluster, 50, 10)
            others = [each for each in NAMES if each != name]
            await cluster.reach(60, *others)
            for each in others:
                found = [value for _, value in await cluster.read_log(each, 60)]
                assert found == [b"record %d" % number for number in range(60)]
        finally:
            clone.kill()

    asyncio.run(scenario())
