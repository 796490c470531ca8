"""A node whose disk was wiped is no voter: it cannot vote away what it had acknowledged."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable

import pytest

from distlog.client.client import Client
from tests.processes.process_cluster import NodeProcess, ProcessCluster, until

RECORDS = [b"record %d" % number for number in range(50)]
# Election time-outs are 0.6 to 1.2 s.
WATCH_S = 4.0


def keep(node: NodeProcess) -> None:
    """The node took part in forming the cluster, and knows it."""
    assert json.loads((node.data_dir / "node.json").read_text())["cluster_id"]


def forget_the_cluster(node: NodeProcess) -> None:
    """Put the node back to where a crash leaves it that comes after its first hello and before its own forming."""
    path = node.data_dir / "node.json"
    identity = json.loads(path.read_text())
    # One that is written by hand needs no checksum.
    del identity["crc32c"]
    path.write_text(json.dumps({**identity, "cluster_id": None, "voters": None}))
    shutil.rmtree(node.data_dir / "groups")


@pytest.mark.parametrize("third", [keep, forget_the_cluster])
def test_a_wiped_node_and_one_that_was_away_elect_nobody(
    cluster: ProcessCluster, third: Callable[[NodeProcess], None]
) -> None:
    async def scenario() -> None:
        await acknowledge_without_n3(cluster)
        third(cluster["n3"])
        cluster["n2"].wipe()
        cluster.start("n2", "n3")
        await cluster.all_answer("n2", "n3")
        await watch_nobody_lead(cluster, "n2", "n3")
        if third is keep:
            assert "it was replaced or wiped" in cluster["n2"].says()
            assert "restore the old directory" in cluster["n2"].says()

        cluster.start("n1")
        await cluster.leader("n1", "n3")
        await cluster.reach(len(RECORDS), "n1", "n3")
        for node_id in ("n1", "n3"):
            assert await cluster.read_log(node_id, len(RECORDS)) == list(enumerate(RECORDS))

        async def says_what_to_do() -> bool:
            return "restore the old directory" in cluster["n2"].says()

        await until(says_what_to_do, "the wiped node says how to come back")
        assert await cluster.high_watermark("n2") is None

    asyncio.run(scenario())


async def acknowledge_without_n3(cluster: ProcessCluster) -> None:
    """Form the cluster, and have records acknowledged that only n1 and n2 have.  All are stopped afterwards."""
    cluster.start()
    await cluster.leader()
    await cluster.terminate("n3")
    await cluster.leader()
    async with Client(cluster.addresses) as client, await client.open_producer() as producer:
        for record in RECORDS:
            await producer.produce(record)
    cluster.kill("n1", "n2")


async def watch_nobody_lead(cluster: ProcessCluster, *node_ids: str) -> None:
    """Fail if one of these nodes knows a leader while elections are tried."""
    loop = asyncio.get_running_loop()
    end = loop.time() + WATCH_S

    async def over() -> bool:
        for node_id, status in (await cluster.statuses(node_ids)).items():
            assert status is not None, f"{node_id} does not answer"
            assert status.leader_id == "", f"{node_id} follows {status.leader_id}"
            assert status.role != "leader", f"{node_id} leads"
        return loop.time() >= end

    await until(over, "the end of the watch", timeout_s=WATCH_S + 10)
