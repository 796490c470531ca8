"""The behaviour of three nodes as the system before this one had it, on real processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.client.client import Client
from tests.processes.process_cluster import NODE_IDS, ProcessCluster, until
from tests.processes.stored_log import read_stored_log

READABLE_WITHIN_S = 0.5
APPEND_COUNT = 50


class Readers:
    """A connection to each of some nodes, to time when a record is readable there."""

    def __init__(self, cluster: ProcessCluster, *node_ids: str) -> None:
        self._channels = {node_id: cluster.channel(node_id) for node_id in node_ids}
        self.slowest_s = 0.0

    async def __aenter__(self) -> Readers:
        await asyncio.gather(*(channel.channel_ready() for channel in self._channels.values()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    async def all_read(self, offset: int, value: bytes) -> None:
        """Fail unless every node gives out this record within half a second from now."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        request = log_pb2.ConsumeRequest(
            offset=offset, min_offset=offset, consistency=log_pb2.CONSISTENCY_LOCAL
        )
        answers = await asyncio.gather(
            *(self._read(channel, request) for channel in self._channels.values())
        )
        self.slowest_s = max(self.slowest_s, loop.time() - begin)
        assert [answer.record for answer in answers] == [value] * len(answers)

    async def _read(self, channel: grpc.aio.Channel, request: log_pb2.ConsumeRequest) -> Any:
        return await log_pb2_grpc.LogStub(channel).Consume(request, timeout=READABLE_WITHIN_S)


async def append_and_read(client: Client, readers: Readers, name: str) -> None:
    for number in range(APPEND_COUNT):
        value = f"{name} {number}".encode()
        await readers.all_read(await client.produce(value), value)


def test_parity_b15_three_nodes_replicate_and_list_each_other(
    cluster: ProcessCluster, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        cluster.start()
        leader = await cluster.leader()
        for node_id in NODE_IDS:
            servers = await cluster.servers(node_id)
            assert servers is not None
            assert {server.id: server.rpc_addr for server in servers} == {
                node.node_id: node.address for node in cluster
            }
            assert [server.id for server in servers if server.is_leader] == [leader]

        async with Client(cluster.addresses) as client:
            async with Readers(cluster, *NODE_IDS) as readers:
                await append_and_read(client, readers, "all three")
            figure(f"slowest append until readable on all three: {readers.slowest_s * 1000:.0f} ms")

            stopped, other = await cluster.followers()
            await cluster.terminate(stopped)
            before = read_stored_log(stopped, cluster[stopped].log_directory).records
            assert len(before) == APPEND_COUNT
            async with Readers(cluster, leader, other) as readers:
                await append_and_read(client, readers, "two of three")

        async def is_missed() -> bool:
            servers = await cluster.servers(other) or []
            assert len(servers) == len(NODE_IDS), "the set of voters is fixed"
            return [server.id for server in servers if not server.connected] == [stopped]

        await until(is_missed, "the stopped node is listed as not connected")
        assert read_stored_log(stopped, cluster[stopped].log_directory).records == before

    asyncio.run(scenario())
