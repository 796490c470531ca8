"""Nodes that may open no more files: too low a limit at start, clients that take all they get, a limit lowered under a running node.

Nothing acknowledged is lost, reads go on, and writes are taken again, without a restart, when the limit is raised.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

import grpc
import grpc.aio
import pytest

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from tests.processes.checker import History
from tests.processes.conftest import MakeCluster
from tests.processes.load import Load
from tests.processes.process_cluster import (
    NODE_IDS,
    TIMEOUT_S,
    NodeProcess,
    until,
)
from tests.processes.settled import check_files, check_over_grpc

# Journal files of 256 KiB and a checkpoint twice a second: files are opened all the time.
BUSY = (
    *("--checkpoint-interval-s", "0.5"),
    *("--checkpoint-journal-size", "1MiB", "--journal-size-max", "2MiB"),
)
STEP = 300
# Fewer than a node has open: it can open nothing at all.
TOO_FEW = 8
FEW = 256
# The leader may open no files; another node does not lead; or a new leader cannot apply what the one before has left to it.
REFUSED = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAVAILABLE,
)


def limited(node: NodeProcess, count: int) -> None:
    """Let the running node open only so many files from now on."""
    hard = resource.prlimit(node.process_id, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(node.process_id, resource.RLIMIT_NOFILE, (min(count, hard), hard))


def unlimited(node: NodeProcess) -> None:
    limited(node, 1 << 30)


def cpu_s(node: NodeProcess) -> float:
    """The processor time that the node has used so far."""
    with open(f"/proc/{node.process_id}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def says(node: NodeProcess, text: str, since: int = 0) -> None:
    """Wait until the node has said this, after the first `since` characters."""

    async def said() -> bool:
        return text in node.says()[since:]

    await until(said, f"{node.node_id} says {text!r}")


async def refused(channels: Iterable[grpc.aio.Channel]) -> None:
    """Check that none of these nodes takes a record, and each says in words why."""
    for channel in channels:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await log_pb2_grpc.LogStub(channel).Produce(
                log_pb2.ProduceRequest(record=b"never"), timeout=TIMEOUT_S
            )
        code, details = caught.value.code(), caught.value.details() or ""
        assert code in REFUSED, (code, details)
        assert "no file descriptor is left" in details or "leader" in details


async def first_record(channel: grpc.aio.Channel) -> bytes:
    """Read from this very node."""
    answer = await log_pb2_grpc.LogStub(channel).Consume(
        log_pb2.ConsumeRequest(), timeout=TIMEOUT_S
    )
    return bytes(answer.record)


def value_at(history: History, offset: int) -> bytes:
    """Return what was acknowledged at an offset."""
    return next(
        producer.sent[place]
        for producer in history.producers
        for place, found in producer.acknowledged.items()
        if found == offset
    )


def test_a_limit_on_which_no_node_can_live_is_refused_at_the_start(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(("n1",))
    node = cluster["n1"]
    node.prefix = ("prlimit", "--nofile=100:100")

    async def scenario() -> None:
        node.start()
        assert await node.wait_for_exit() == 2
        assert "the system lets this process open 100" in node.says()
        assert "ulimit -n" in node.says()
        assert not node.data_dir.exists()

    asyncio.run(scenario())


def test_clients_that_open_more_connections_than_there_may_be_take_no_file_away(
    make_cluster: MakeCluster, figure: Callable[[str], None]
) -> None:
    cluster = make_cluster(NODE_IDS, *BUSY)
    for node in cluster:
        node.prefix = ("prlimit", f"--nofile={FEW}:{FEW}")

    async def scenario() -> None:
        cluster.start()
        async with (
            AsyncExitStack() as stack,
            Load(cluster, producer_count=3, tail_count=1, seed=4) as load,
        ):
            leader = cluster[await cluster.leader()]
            await load.allow(STEP)
            # Each producer has its connection: a client that comes when none is left has to wait until some are closed.
            await load.all_acknowledged()
            for _ in range(2 * FEW):
                _, writer = await asyncio.open_connection(leader.host, leader.client_port)
                stack.callback(writer.close)
            begun, used = time.monotonic(), cpu_s(leader)
            await load.allow(2 * STEP)
            await load.finish()
            share = (cpu_s(leader) - used) / (time.monotonic() - begun)
            history = load.history
        assert "may open no more files" not in leader.says()
        figure(f"{2 * FEW} connections to a node of {FEW} descriptors: {share:.2f} of a core")
        assert history.acknowledged_count == history.sent_count == 3 * STEP
        await check_over_grpc(cluster, history, history.sent_count)
        await check_files(cluster, history)

    asyncio.run(scenario())


@pytest.mark.parametrize("victims", ["leader", "follower", "all"])
def test_a_node_whose_limit_is_lowered_goes_on_and_recovers_when_it_is_raised(
    make_cluster: MakeCluster, figure: Callable[[str], None], victims: str
) -> None:
    cluster = make_cluster(NODE_IDS, *BUSY)

    async def scenario() -> None:
        cluster.start()
        async with Load(cluster, producer_count=3, tail_count=1, seed=5) as load:
            await load.allow(STEP)
            await load.acknowledged(STEP // 2)
            leader = await cluster.leader()
            followers = [node_id for node_id in NODE_IDS if node_id != leader]
            named = {"leader": [leader], "follower": followers[:1], "all": list(NODE_IDS)}[victims]
            async with AsyncExitStack() as stack:
                # Connections from before: no new ones can be accepted.
                channels = {
                    node_id: await stack.enter_async_context(cluster.channel(node_id))
                    for node_id in named
                }
                for channel in channels.values():
                    await channel.channel_ready()
                for node_id in named:
                    limited(cluster[node_id], TOO_FEW)
                begun = time.monotonic()
                for node_id in named:
                    await says(cluster[node_id], "no file can be opened")
                if len(named) == 1:
                    await load.allow(STEP)
                    await load.acknowledged(2 * STEP - STEP // 3)
                else:
                    await refused(channels.values())
                for channel in channels.values():
                    assert await first_record(channel) == value_at(load.history, 0)
                lasted = time.monotonic() - begun
                for node_id in named:
                    unlimited(cluster[node_id])
                for node_id in named:
                    await says(cluster[node_id], "may open files again")
            await load.allow(STEP)
            await load.finish()
            history = load.history
        figure(f"no descriptors for {lasted:.1f} s at {victims}")
        assert history.acknowledged_count == history.sent_count
        assert all(node.is_running for node in cluster)
        await check_over_grpc(cluster, history, history.sent_count)
        await check_files(cluster, history)

    asyncio.run(scenario())
