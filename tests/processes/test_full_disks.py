"""Full disks, really: small file systems that somebody else fills up, or the records themselves.

Nothing acknowledged is lost, reads go on, `cluster status` says which node is full, and when there is space again writes are
taken without a restart.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection
from random import Random

import pytest

from distlog.client.client import Client
from distlog.errors import NoLeader, StorageFull
from tests.processes.commands import run
from tests.processes.conftest import MakeCluster
from tests.processes.file_systems import MIB, FileSystem, FileSystems
from tests.processes.load import Load
from tests.processes.process_cluster import NODE_IDS, ProcessCluster, until
from tests.processes.settled import check_files, check_over_grpc

# The smallest reserve that the default record size allows, a checkpoint twice a second, and a journal that is compacted.
SETTINGS = (
    *("--disk-reserve-size", "40MiB"),
    *("--checkpoint-interval-s", "0.5"),
    *("--checkpoint-journal-size", "1MiB", "--journal-size-max", "16MiB"),
)
DISK_SIZE = 128 * MIB
STEP = 300
# As large as a call takes well: a disk is full sooner.
RECORD_SIZE = 200_000
CALL_TIMEOUT_S = 2.0


def cluster_on(
    disks: FileSystems, make_cluster: MakeCluster
) -> tuple[ProcessCluster, dict[str, FileSystem]]:
    """Make a cluster of which each node has a small disk of its own."""
    cluster = make_cluster(NODE_IDS, *SETTINGS)
    found = {}
    for node in cluster:
        disk = found[node.node_id] = disks.tmpfs(DISK_SIZE)
        node.place(disk.place / "data")
    return cluster, found


async def full_nodes(cluster: ProcessCluster) -> set[str]:
    """Return the nodes that `distlog cluster status` shows as full."""
    shown = await run("cluster", "status", "--json", "--server", cluster.addresses)
    return {node["node_id"] for node in json.loads(shown.output)["nodes"] if node["storage_full"]}


async def until_full(cluster: ProcessCluster, wanted: Collection[str]) -> None:
    """Wait until these nodes, and no others, say that they are full."""

    async def said() -> bool:
        statuses = await cluster.statuses(NODE_IDS)
        full = {name for name, status in statuses.items() if status and status.storage_full}
        return full == set(wanted)

    await until(said, f"full: {sorted(wanted)}", describe=cluster.describe)
    assert await full_nodes(cluster) == set(wanted)


async def check_equal(cluster: ProcessCluster) -> None:
    """Fail unless `distlog verify` finds nothing, and the same bytes on all nodes.  They are stopped."""
    first, *others = [str(node.data_dir) for node in cluster]
    for other in others:
        compared = await run("verify", "--compare", first, other)
        assert compared.status == 0, compared


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_one_full_node_takes_no_part_in_writing_until_there_is_space_again(
    disks: FileSystems, make_cluster: MakeCluster, figure: Callable[[str], None], role: str
) -> None:
    cluster, found = cluster_on(disks, make_cluster)

    async def scenario() -> None:
        cluster.start()
        async with Load(cluster, producer_count=3, tail_count=3, seed=6) as load:
            await load.allow(STEP)
            await load.acknowledged(STEP // 2)
            leader = await cluster.leader()
            victim = leader if role == "leader" else (await cluster.followers())[0]
            found[victim].fill()
            begun = time.monotonic()
            # What is acknowledged may be on the other two alone.
            await load.allow(2 * STEP)
            await until_full(cluster, [victim])
            noticed = time.monotonic() - begun
            await load.acknowledged(3 * STEP)
            before = await cluster.high_watermark(victim)
            assert before is not None
            assert len(await cluster.read_log(victim, before)) == before
            if role == "leader":
                assert await cluster.leader() != victim
            found[victim].empty()
            begun = time.monotonic()
            await until_full(cluster, [])
            await load.allow(STEP)
            await load.finish()
            history = load.history
        figure(
            f"full disk of the {role}: seen after {noticed:.1f} s, with space again all has caught up after "
            f"{time.monotonic() - begun:.1f} s"
        )
        assert history.acknowledged_count == history.sent_count == 4 * STEP
        await check_over_grpc(cluster, history, history.sent_count)
        await check_files(cluster, history)
        await check_equal(cluster)

    asyncio.run(scenario())


def test_with_all_disks_full_reads_go_on_also_after_kill_9_and_writes_when_there_is_space(
    disks: FileSystems, make_cluster: MakeCluster, figure: Callable[[str], None]
) -> None:
    cluster, found = cluster_on(disks, make_cluster)

    async def scenario() -> None:
        cluster.start()
        async with Load(cluster, producer_count=3, tail_count=3, seed=7) as load:
            await load.allow(STEP)
            await load.acknowledged(STEP // 2)
            for disk in found.values():
                disk.fill()
            await load.allow(STEP)
            await until_full(cluster, NODE_IDS)
            await refused(cluster)
            acknowledged = load.acknowledged_count
            victims = (await cluster.leader(), (await cluster.followers())[0])
            for victim in victims:
                cluster.kill(victim)
                cluster.start(victim)
                await cluster.all_answer()
            await until_full(cluster, NODE_IDS)
            for node_id in NODE_IDS:
                await cluster.reach(acknowledged, node_id)
                assert len(await cluster.read_log(node_id, acknowledged)) == acknowledged
            begun = time.monotonic()
            for disk in found.values():
                disk.empty()
            await until_full(cluster, [])
            await load.finish()
            history = load.history
        figure(
            f"all disks full: writes again {time.monotonic() - begun:.1f} s after there was space"
        )
        assert history.acknowledged_count == history.sent_count == 2 * STEP
        await check_over_grpc(cluster, history, history.sent_count)
        await check_files(cluster, history)
        await check_equal(cluster)

    asyncio.run(scenario())


async def refused(cluster: ProcessCluster) -> None:
    """Check that no record and no new topic is taken, and that both are told why."""
    async with client_of(cluster) as client:
        with pytest.raises((StorageFull, NoLeader)):
            await client.produce(b"never")
        with pytest.raises((StorageFull, NoLeader)):
            await client.create_topic("never")


def client_of(cluster: ProcessCluster) -> Client:
    addresses = [node.address for node in cluster]
    return Client(addresses, timeout_s=CALL_TIMEOUT_S, random=Random(8))


def test_a_disk_that_records_fill_up_holds_what_was_acknowledged_and_goes_on_when_it_grows(
    disks: FileSystems, make_cluster: MakeCluster, figure: Callable[[str], None]
) -> None:
    """Segments roll, checkpoints are due, and the journal is forgotten while the last space goes."""
    cluster = make_cluster(("n1",), *SETTINGS)
    node = cluster["n1"]
    disk = disks.ext4(DISK_SIZE)
    node.place(disk.place / "data")
    random = Random(9)
    acknowledged: dict[int, bytes] = {}

    async def fill_up(client: Client) -> int:
        for count in range(10_000):
            value = random.randbytes(RECORD_SIZE)
            try:
                acknowledged[await client.produce(value, topic="rolling")] = value
            except StorageFull:
                return count
        raise AssertionError("it never gets full")

    async def check_read(client: Client) -> None:
        offsets = sorted(acknowledged)
        assert offsets == list(range(len(offsets)))
        for offset in random.sample(offsets, 20):
            assert (await client.read(offset, topic="rolling")).value == acknowledged[offset]

    async def scenario() -> None:
        cluster.start()
        await cluster.all_answer()
        async with client_of(cluster) as client:
            await client.create_topic("rolling", segment_size_max=MIB)
            first = await fill_up(client)
            assert (await cluster.status("n1")).storage_full
            await check_read(client)
            node.kill()
            cluster.start()
            await cluster.all_answer()
            with pytest.raises(StorageFull):
                await client.produce(b"never")
            await check_read(client)
            # Everything above was on the disk itself; this is somebody else's file that goes.
            disk.empty()
            second = await fill_up(client)
            await check_read(client)
        figure(f"records until full: {first}, and {second} more with the space of another file")
        assert second > 0
        await cluster.terminate()
        verified = await run("verify", str(node.data_dir))
        assert verified.status == 0, verified

    # So that some space comes back.
    disk.fill(left=90 * MIB)
    asyncio.run(scenario())
