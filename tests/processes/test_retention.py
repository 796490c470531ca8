"""A topic that does not keep everything, on real nodes and through the command line: all trim the same, to the same files."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from distlog.client import Client
from tests.processes.commands import Finished, run
from tests.processes.conftest import MakeCluster
from tests.processes.process_cluster import NODE_IDS, NodeProcess, ProcessCluster, until

SEGMENT_SIZE = 4 << 10
RETENTION_SIZE = 16 << 10
LINES = [b"line %05d" % number for number in range(3_000)]


async def topic(cluster: ProcessCluster, *arguments: str, node_id: str = "") -> Any:
    """Return what `distlog topic ... --json` prints."""
    server = cluster[node_id].address if node_id else cluster.addresses
    finished = await run("topic", *arguments, "--json", "--server", server)
    assert (finished.status, finished.errors) == (0, ""), finished.errors
    return json.loads(finished.output)


async def trimmed_everywhere(cluster: ProcessCluster) -> int:
    """Wait until all nodes have the topic trimmed to its size; return where it begins."""

    async def trimmed() -> int | None:
        statuses = await cluster.statuses(NODE_IDS)
        found = {
            (each.start_offset, each.high_watermark, each.size)
            for status in statuses.values()
            if status is not None
            for each in status.topics
            if each.name == "lines"
        }
        if None in statuses.values() or len(found) != 1:
            return None
        ((start_offset, high_watermark, size),) = found
        is_trimmed = RETENTION_SIZE <= size < RETENTION_SIZE + SEGMENT_SIZE
        return start_offset if high_watermark == len(LINES) and is_trimmed else None

    return await until(trimmed, "all nodes trim", describe=cluster.describe)


def topic_directory(node: NodeProcess, topic_id: int) -> Path:
    return node.data_dir / "groups" / "0" / "topics" / f"{topic_id:020d}"


def segments_of(node: NodeProcess, topic_id: int) -> dict[str, bytes]:
    """Return the bytes of every file of a stopped node's topic that holds records."""
    directory = topic_directory(node, topic_id)
    return {
        path.name: path.read_bytes()
        for path in sorted(directory.iterdir())
        if path.suffix in (".log", ".idx", ".batch")
    }


async def check_files(cluster: ProcessCluster, topic_id: int, start_offset: int) -> None:
    """Fail unless the stopped nodes have the same files of the topic, the first of which begins where it does."""
    files = {node.node_id: segments_of(node, topic_id) for node in cluster}
    assert files["n1"] == files["n2"] == files["n3"]
    assert min(files["n1"]) == f"{start_offset:020d}.batch"
    for one, other in pairwise(cluster):
        verified = await run("verify", "--compare", str(one.data_dir), str(other.data_dir))
        assert (verified.status, verified.errors) == (0, ""), verified


async def consumed(cluster: ProcessCluster, node_id: str, *arguments: str) -> Finished:
    server = cluster[node_id].address
    return await run("consume", "--topic", "lines", "--server", server, *arguments)


async def produce_in_small_batches(cluster: ProcessCluster) -> None:
    """Write the lines in batches of which some fit a segment, one after the other: what waits together is stored as one."""
    async with Client(cluster.addresses) as client:
        producer = await client.open_producer("lines", batch_record_count=100)
        async with producer:
            for first in range(0, len(LINES), 100):
                for line in LINES[first : first + 100]:
                    await producer.produce(line)
                await producer.flush()


@pytest.mark.timeout(240)
def test_a_topic_is_kept_to_its_size_with_the_same_files_on_all_nodes_and_after_a_restart(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(
        NODE_IDS, "--retention-interval-s", "0.5", "--checkpoint-interval-s", "0.5"
    )

    async def scenario() -> None:
        cluster.start()
        await cluster.leader()
        limits = ("--segment-size", "4KiB", "--retention-size", "16KiB")
        created = await topic(cluster, "create", "lines", *limits)
        assert (created["segment_size_max"], created["retention_size"]) == (
            SEGMENT_SIZE,
            RETENTION_SIZE,
        )
        await produce_in_small_batches(cluster)
        start_offset = await trimmed_everywhere(cluster)
        assert start_offset > len(LINES) // 2
        await look_at_what_is_kept(cluster, start_offset)
        await cluster.terminate()
        await check_files(cluster, created["topic_id"], start_offset)

        cluster.start()
        await cluster.leader()
        assert await trimmed_everywhere(cluster) == start_offset
        await look_at_what_is_kept(cluster, start_offset)
        await cluster.terminate()
        await check_files(cluster, created["topic_id"], start_offset)

    asyncio.run(scenario())


async def look_at_what_is_kept(cluster: ProcessCluster, start_offset: int) -> None:
    """Read it from every node, from the start, from before it, and by time."""
    kept = b"\n".join(LINES[start_offset:]) + b"\n"
    for node_id in NODE_IDS:
        whole = await consumed(cluster, node_id)
        assert (whole.status, whole.output) == (0, kept)
    gone = await consumed(cluster, "n1", "--from", str(start_offset - 1))
    assert gone.status == 1
    assert f"[{start_offset}, {len(LINES)})" in gone.complaint
    early = await consumed(cluster, "n2", "--from", "1970-01-01T00:00:00Z", "--count", "1")
    assert early.output == LINES[start_offset] + b"\n"
    late = await consumed(cluster, "n3", "--from", "2999-01-01T00:00:00Z")
    assert (late.status, late.output) == (0, b"")
    described = await topic(cluster, "describe", "lines", node_id="n2")
    assert described["start_offset"] == start_offset
    assert described["retention_size"] == RETENTION_SIZE


@pytest.mark.timeout(120)
def test_topics_are_made_and_changed_through_any_node_and_gone_when_they_are_deleted(
    running_cluster: ProcessCluster,
) -> None:
    cluster = running_cluster

    async def scenario() -> None:
        for number, node_id in enumerate(NODE_IDS):
            name = f"topic-{number}"
            created = await topic(cluster, "create", name, node_id=node_id)
            server = ("--server", cluster[node_id].address)
            produced = await run("produce", "--topic", name, *server, given=b"a\nb\nc\n")
            assert produced.status == 0, produced.errors
            configured = await topic(
                cluster, "configure", name, "--retention-age", "7d", node_id=node_id
            )
            assert configured["retention_age_ms"] == 7 * 24 * 3600 * 1000
            assert configured["topic_id"] == created["topic_id"]
            trimmed = await topic(cluster, "trim", name, "--before", "2", node_id=node_id)
            assert trimmed["start_offset"] == 2
        for node_id in NODE_IDS:
            listed = await topic(cluster, "list", node_id=node_id)
            found = {each["name"]: each["start_offset"] for each in listed["topics"]}
            assert found["topic-0"] == found["topic-1"] == found["topic-2"] == 2
        again = await run("topic", "create", "topic-0", "--server", cluster.addresses)
        assert again.status == 1
        assert "topic-0" in again.complaint
        for number, node_id in enumerate(NODE_IDS):
            name = f"topic-{number}"
            deleted = await topic(cluster, "delete", name, "--yes", node_id=node_id)
            assert deleted == {"name": name, "deleted": True}
        gone = await run("consume", "--topic", "topic-0", "--server", cluster.addresses)
        assert gone.status == 1
        assert "topic-0" in gone.complaint

    asyncio.run(scenario())
