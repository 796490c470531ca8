"""Real nodes that were away for longer than the journals of the others reach back, or whose disks change or lose bytes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from distlog.api.log.v1 import log_pb2
from distlog.client.client import Client
from tests.processes.commands import run
from tests.processes.conftest import MakeCluster
from tests.processes.file_systems import MIB, FileSystems
from tests.processes.process_cluster import (
    NODE_IDS,
    TIMEOUT_S,
    ProcessCluster,
    until,
)

JOURNAL = (
    *("--journal-size-max", "8MiB", "--checkpoint-journal-size", "1MiB"),
    *("--checkpoint-interval-s", "0.5", "--disk-reserve-size", "40MiB"),
)
COPY = ("--copy-rate-max", "32MiB")
RECORD_SIZE = 100_000
# What the node that is away misses: far more than any journal keeps.
MISSED_SIZE = 120 * MIB


async def load(cluster: ProcessCluster, size: int, topic: str = "") -> None:
    """Append about so many bytes of records, no two of them the same."""
    random = Random(size)
    async with Client(cluster.addresses, random=Random()) as client:
        producer = await client.open_producer(topic)
        async with producer:
            for _ in range(0, size, RECORD_SIZE):
                await producer.produce(random.randbytes(RECORD_SIZE))


async def left_behind(cluster: ProcessCluster) -> str:
    """Have a node of a cluster miss most of what there is; return its id.  It is down."""
    cluster.start()
    await load(cluster, 5 * MIB)
    await cluster.leader()
    away = (await cluster.followers())[-1]
    await cluster.terminate(away)
    await load(cluster, MISSED_SIZE)
    return away


async def copy_of(cluster: ProcessCluster, node_id: str) -> log_pb2.CopyStatus | None:
    status = await cluster.status(node_id)
    return status.copy if status is not None and status.HasField("copy") else None


async def copies(cluster: ProcessCluster, node_id: str, done_size: int = 1) -> log_pb2.CopyStatus:
    """Wait until a node has copied so much."""

    async def has_begun() -> log_pb2.CopyStatus | None:
        copy = await copy_of(cluster, node_id)
        return copy if copy is not None and copy.done_size >= done_size else None

    return await until(has_begun, f"{node_id} copies {done_size} bytes", describe=cluster.describe)


async def check_equal(cluster: ProcessCluster, *node_ids: str) -> None:
    """Stop these nodes, or all, and fail unless `distlog verify` finds nothing, and the same bytes everywhere."""
    high_watermark = await cluster.high_watermark(await cluster.leader(*node_ids))
    assert high_watermark is not None
    await cluster.reach(high_watermark, *node_ids)
    await cluster.terminate(*node_ids)
    first, *others = [str(cluster[node_id].data_dir) for node_id in node_ids or cluster.nodes]
    for other in others:
        compared = await run("verify", "--compare", first, other)
        assert compared.status == 0, compared


def test_a_node_that_is_killed_five_times_while_it_copies_catches_up_and_so_it_does_without_its_source(
    make_cluster: MakeCluster, figure: Callable[[str], None]
) -> None:
    cluster = make_cluster(NODE_IDS, *JOURNAL, *COPY)

    async def scenario() -> None:
        away = await left_behind(cluster)
        done = 0
        for number in range(5):
            cluster.start(away)
            copy = await copies(cluster, away, done + 8 * MIB)
            # Nothing that was there when it was killed is fetched again.
            assert copy.fetched_size <= copy.done_size - done + 4 * MIB
            if number == 2:
                cluster.kill(copy.source)
                await copies(cluster, away, done + 9 * MIB)
                cluster.start(copy.source)
            copy = await copies(cluster, away, done + 9 * MIB)
            done = copy.done_size - 8 * MIB
            cluster.kill(away)
        cluster.start(away)
        await load(cluster, 5 * MIB)
        await check_equal(cluster)
        said = cluster[away].says()
        assert "going over to a copied checkpoint" in said
        figure(f"a copy of {MISSED_SIZE >> 20} MiB with five kills: {copy.size >> 20} MiB listed")

    asyncio.run(scenario())


@pytest.fixture
def missed_size(request: pytest.FixtureRequest) -> int:
    """How far a node with a small disk falls behind, in bytes: `--missed-mib`."""
    return int(request.config.getoption("--missed-mib")) * MIB


def test_a_copy_that_finds_no_space_waits_says_so_and_goes_on_when_there_is_some(
    disks: FileSystems, make_cluster: MakeCluster, missed_size: int, figure: Callable[[str], None]
) -> None:
    """`make small-disk` has it miss 1.5 GiB, with the journal's own limit."""
    is_long = missed_size >= 1 << 30
    cluster = make_cluster(NODE_IDS, *(() if is_long else JOURNAL))
    disk = disks.tmpfs(2 * missed_size + (512 if is_long else 80) * MIB)
    timeout_s = TIMEOUT_S * missed_size / (120 * MIB)

    async def scenario() -> None:
        cluster["n3"].place(disk.place / "data")
        cluster.start()
        await load(cluster, 5 * MIB)
        await cluster.leader()
        if await cluster.leader() == "n3":
            async with Client(cluster.addresses, random=Random()) as client:
                await client.transfer_leadership("n1")
        await cluster.terminate("n3")
        await load(cluster, missed_size)
        disk.fill(left=missed_size * 3 // 4)
        begun = time.monotonic()
        cluster.start("n3")

        async def waits() -> bool:
            copy = await copy_of(cluster, "n3")
            return copy is not None and "no room" in copy.problem

        await until(waits, "it waits for space", timeout_s=timeout_s, describe=cluster.describe)
        waited = time.monotonic() - begun
        copy = await copy_of(cluster, "n3")
        assert copy is not None
        left, done = disk.free_size, copy.done_size
        shown = await run("cluster", "status", "--server", cluster.addresses)
        assert "waits" in shown.output.decode()
        # It lives, votes, and the others take writes.
        await load(cluster, MIB)
        assert cluster["n3"].is_running
        assert "the copy waits for space on the disk" in cluster["n3"].says()
        disk.empty()
        begun = time.monotonic()
        high_watermark = await cluster.high_watermark(await cluster.leader())
        assert high_watermark is not None
        await cluster.reach(high_watermark, "n3", timeout_s=timeout_s)
        figure(
            f"a small disk, {missed_size >> 20} MiB behind: waits after {waited:.1f} s with {done >> 20} of "
            f"{copy.size >> 20} MiB and {left >> 20} MiB free, has all {time.monotonic() - begun:.1f} s after there is space"
        )
        await check_equal(cluster)

    asyncio.run(scenario())


def flip(path: Path, position: int) -> None:
    """Change a bit of a file below the node that has it open."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.pwrite(descriptor, bytes([os.pread(descriptor, 1, position)[0] ^ 1]), position)
    finally:
        os.close(descriptor)


def test_bytes_that_a_disk_has_changed_or_lost_are_replaced_from_a_peer_without_a_restart(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(NODE_IDS, "--scrub-interval-s", "1", "--checkpoint-interval-s", "0.5")

    async def scenario() -> None:
        cluster.start()
        await cluster.leader()
        server = ("--server", cluster.addresses)
        created = await run("topic", "create", "events", "--segment-size", "300KiB", *server)
        assert created.status == 0, created
        await load(cluster, 3 * MIB, "events")
        victim = (await cluster.followers())[0]

        async def stores() -> list[Path] | None:
            found = sorted((cluster[victim].data_dir / "groups/0/topics").glob("*/*.log"))
            return found if len(found) > 8 else None

        # The default topic's, then those of the other one; the last of these is written.
        store = (await until(stores, "it has them all"))[3]
        process_id = cluster[victim].process_id
        flip(store, 150_000)

        async def repaired() -> bool:
            status = await cluster.status(victim)
            return status is not None and status.scrub.repaired_count == 1

        await until(repaired, "it is replaced", describe=cluster.describe)
        status = await cluster.status(victim)
        assert status is not None
        assert (status.scrub.fault_count, list(status.scrub.damaged)) == (1, [])
        assert cluster[victim].process_id == process_id
        assert "a segment is damaged" in cluster[victim].says()
        await starts_without_segments(cluster, (await cluster.followers())[-1])
        await check_equal(cluster)

    asyncio.run(scenario())


async def starts_without_segments(cluster: ProcessCluster, victim: str) -> None:
    """Take segments from a node that is stopped: it starts, refuses to read them, says so, and has them again."""
    node = cluster[victim]
    await cluster.terminate(victim)
    stores = sorted((node.data_dir / "groups/0/topics").glob("*/*.log"))
    table = stores[5].with_suffix(".batch")
    stores[4].unlink()
    os.truncate(table, table.stat().st_size - 64)
    verified = await run("verify", str(node.data_dir))
    assert verified.status == 1
    assert "start the node" in verified.output.decode()
    cluster.start(victim)

    async def repaired() -> bool:
        status = await cluster.status(victim)
        return status is not None and status.scrub.repaired_count >= 2

    await until(repaired, "they are replaced", describe=cluster.describe)
    assert node.says().count("cannot be read") >= 2
