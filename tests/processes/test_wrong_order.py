"""A client that pipelines the blocks of one producer in any order but the right one, again and again, while the leader is killed."""

from __future__ import annotations

import asyncio
from random import Random

import grpc.aio

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.block import Block
from tests.processes.process_cluster import TIMEOUT_S, ProcessCluster

BLOCK_COUNT = 30
KILLED_AFTER = 8
# About two blocks of each permutation come at their turn.
ATTEMPTS_MAX = 400


def records_of(sequence: int) -> list[bytes]:
    return [b"%d-%d" % (sequence, number) for number in range(1 + sequence % 3)]


def request_of(
    sequence: int, identity: log_pb2.OpenProducerResponse
) -> log_pb2.ProduceBatchRequest:
    return log_pb2.ProduceBatchRequest(
        block=Block.from_records(records_of(sequence)).encode(),
        producer_id=identity.producer_id,
        producer_epoch=identity.epoch,
        sequence=sequence,
    )


async def sent(
    cluster: ProcessCluster, leader: str, requests: list[log_pb2.ProduceBatchRequest]
) -> dict[int, int]:
    """Send blocks on one stream; return the base offsets of those that were taken, by sequence."""
    taken: dict[int, int] = {}
    async with cluster.channel(leader) as channel:
        stream = log_pb2_grpc.LogStub(channel).ProduceBatch(iter(requests), timeout=TIMEOUT_S)
        position = 0
        try:
            async for answer in stream:
                if not answer.HasField("error"):
                    taken[requests[position].sequence] = answer.base_offset
                position += 1
        except grpc.aio.AioRpcError:
            # The node was killed: what is behind the last answer may be written or not.
            pass
    return taken


def test_blocks_in_a_wrong_order_are_written_once_and_in_the_right_one(
    cluster: ProcessCluster,
) -> None:
    async def scenario() -> None:
        random = Random(5)
        cluster.start()
        leader = await cluster.leader()
        async with cluster.channel(leader) as channel:
            identity = await log_pb2_grpc.LogStub(channel).OpenProducer(
                log_pb2.OpenProducerRequest(), timeout=TIMEOUT_S
            )
        offsets: dict[int, int] = {}
        killed = ""
        for _ in range(ATTEMPTS_MAX):
            if len(offsets) == BLOCK_COUNT:
                break
            # Each block twice, anywhere: most come too early, some too late.
            order = list(range(BLOCK_COUNT)) * 2
            random.shuffle(order)
            leader = await cluster.leader()
            sending = asyncio.ensure_future(
                sent(cluster, leader, [request_of(sequence, identity) for sequence in order])
            )
            if not killed and len(offsets) >= KILLED_AFTER:
                killed = leader
                cluster.kill(leader)
            for sequence, base_offset in (await sending).items():
                assert offsets.setdefault(sequence, base_offset) == base_offset
        assert killed
        assert len(offsets) == BLOCK_COUNT
        expected = [record for sequence in range(BLOCK_COUNT) for record in records_of(sequence)]
        cluster.start(killed)
        await cluster.reach(len(expected))
        for node in cluster.running:
            log = await cluster.read_log(node.node_id, len(expected))
            assert [value for _, value in log] == expected
        for sequence, base_offset in offsets.items():
            assert expected[base_offset : base_offset + len(records_of(sequence))] == records_of(
                sequence
            )

    asyncio.run(scenario())
