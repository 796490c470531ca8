"""Disks that fail under a node, really: an fsync that cannot be kept, and a file system that turns read-only.

The node stops, with exit status 1 and words that name the file and say what to do; the others go on, nothing acknowledged is
lost, and after the repair it catches up.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes.commands import run
from tests.processes.conftest import MakeCluster
from tests.processes.file_systems import MIB, Ext4, FileSystems
from tests.processes.load import Load
from tests.processes.process_cluster import NODE_IDS, ProcessCluster, until
from tests.processes.settled import check_files, check_over_grpc

SETTINGS = ("--checkpoint-interval-s", "1")
DISK_SIZE = 256 * MIB
STEP = 300


def cluster_on(
    disks: FileSystems, make_cluster: MakeCluster
) -> tuple[ProcessCluster, dict[str, Ext4]]:
    """Make a cluster of which each node has a disk of its own."""
    cluster = make_cluster(NODE_IDS, *SETTINGS)
    found = {}
    for node in cluster:
        disk = found[node.node_id] = disks.ext4(DISK_SIZE, options="errors=remount-ro")
        node.place(disk.place / "data")
    return cluster, found


async def break_and_mend(
    cluster: ProcessCluster,
    load: Load,
    victim: str,
    *,
    breaks: Callable[[], object],
    mends: Callable[[], object],
) -> str:
    """Break a node's disk, then write; return what the node said when it stopped.  Then it comes back on what it has.

    No fsync of its journal is under way when the disk breaks: one that waits for a commit of ext4 which is aborted at that moment
    may return success, and then the node has promised what it does not have.
    """
    node = cluster[victim]
    said_before = len(node.says())
    await load.all_acknowledged()
    before = load.history.sent_count
    await synced(cluster)
    breaks()
    await load.allow(3 * STEP)
    assert await node.wait_for_exit() == 1
    # Two of three are a majority.
    await load.acknowledged(before + 3 * STEP)
    mends()
    node.start()
    await cluster.reach(before + 3 * STEP)
    return node.says()[said_before:]


async def synced(cluster: ProcessCluster) -> None:
    """Wait until every node has told the leader that it has everything on its disk."""
    leader = await cluster.leader()

    async def told() -> bool:
        status = await cluster.status(leader)
        return status is not None and all(
            member.match_index == status.last_index for member in status.members
        )

    await until(told, "all have everything", describe=cluster.describe)


def stop_of(said: str) -> str:
    """Return the line in which a node says why it stopped."""
    lines = [line for line in said.splitlines() if " CRITICAL " in line]
    assert len(lines) == 1, said
    return lines[0]


@pytest.mark.parametrize(
    "breaks",
    [
        pytest.param(Ext4.fail_writes, id="failing fsync"),
        pytest.param(Ext4.fail, id="turned read-only"),
    ],
)
def test_a_node_whose_disk_fails_stops_and_comes_back_after_the_repair(
    disks: FileSystems,
    make_cluster: MakeCluster,
    figure: Callable[[str], None],
    breaks: Callable[[Ext4], None],
) -> None:
    cluster, found = cluster_on(disks, make_cluster)

    async def scenario() -> None:
        cluster.start()
        async with Load(cluster, producer_count=4, tail_count=1, seed=1) as load:
            await load.allow(STEP)
            for role in ("leader", "follower"):
                leader = await cluster.leader()
                victim = leader if role == "leader" else (await cluster.followers())[0]
                disk = found[victim]
                said = await break_and_mend(
                    cluster,
                    load,
                    victim,
                    breaks=lambda disk=disk: breaks(disk),
                    mends=disk.repair,
                )
                line = stop_of(said)
                assert str(cluster[victim].data_dir) in line
                # Which error it is, the kernel decides: what was begun fails otherwise than what comes after.
                assert "dmesg" in line
                figure(f"disk of the {role}: {line.partition('problem=')[2]}")
            await load.finish()
            history = load.history
        assert history.acknowledged_count == history.sent_count
        await check_over_grpc(cluster, history, history.sent_count)
        await check_files(cluster, history)

    asyncio.run(scenario())


def test_a_read_only_directory_is_not_started_on_but_can_be_looked_at(
    disks: FileSystems, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(("n1",), *SETTINGS)
    node = cluster["n1"]
    disk = disks.ext4(DISK_SIZE)
    node.place(disk.place / "data")

    async def scenario() -> None:
        cluster.start()
        async with Load(cluster, producer_count=1, tail_count=1, seed=3) as load:
            await load.allow(STEP)
            await load.finish()
        await cluster.terminate()
        disk.remount("ro")
        before = contents(node.data_dir)
        refused = await run("serve", *node.arguments)
        assert refused.status == 1
        assert re.search(rf"{node.data_dir}.*Read-only file system", refused.complaint)
        assert "remount" in refused.complaint
        for command in ("inspect", "verify"):
            looked = await run(command, str(node.data_dir))
            assert looked.status == 0, (command, looked)
            assert f"{STEP}".encode() in looked.output.replace(b",", b""), (command, looked)
        record = await run("inspect", "--record", f"{STEP - 1}", str(node.data_dir))
        assert record.status == 0, record
        assert f"record {STEP - 1}: ".encode() in record.output
        assert contents(node.data_dir) == before
        disk.remount("rw")
        cluster.start()
        await cluster.reach(STEP)
        await cluster.terminate()

    asyncio.run(scenario())


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
