"""A write that is refused at once: the caller is told only what this node can prove."""

from __future__ import annotations

import pytest

from distlog import errors
from distlog.api.log.v1 import log_pb2
from distlog.api.status import error_from_message
from distlog.block import Block
from tests.server.serving import Serving, refusal, serve

REFUSAL = errors.TopicNotFound(topic="green")
ELSEWHERE = errors.NotLeader(leader_id="n2", leader_address="10.0.0.2:8400")


@pytest.mark.parametrize("successor", [None, ELSEWHERE], ids=["it leads", "another one leads"])
def test_one_record_and_a_stream_of_records(successor: errors.DistlogError | None) -> None:
    async def body(server: Serving) -> None:
        server.fake.successor = successor
        request = log_pb2.ProduceRequest(record=b"x", topic="green")
        unary = await refusal(server.log.Produce(request))
        stream = server.log.ProduceStream()
        await stream.write(request)
        await stream.write(log_pb2.ProduceRequest(record=b"behind it"))
        streamed = await refusal(stream.read())
        for refused in (unary, streamed):
            assert str(refused.error) == str(successor or REFUSAL)
        assert server.fake.asked["proven"] == 2
        assert server.fake.proposed == []

    serve(body)


@pytest.mark.parametrize("successor", [None, ELSEWHERE], ids=["it leads", "another one leads"])
def test_a_block_is_answered_with_what_is_proven(successor: errors.DistlogError | None) -> None:
    async def body(server: Serving) -> None:
        server.fake.successor = successor
        stream = server.log.ProduceBatch()
        block = Block.from_records([b"x"]).encode()
        await stream.write(log_pb2.ProduceBatchRequest(topic="green", block=block))
        answer = await stream.read()
        assert str(error_from_message(answer.error)) == str(successor or REFUSAL)
        stream.cancel()

    serve(body)
