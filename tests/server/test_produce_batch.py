"""ProduceBatch: blocks are checked, written whole and answered in order; a refused one does not end the stream."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from distlog import errors
from distlog.api.log.v1 import log_pb2
from distlog.api.status import CODES, error_from_message
from distlog.block import ATTRIBUTE_STRUCTURED, HEADER, PREFIX, Block, crc32c
from distlog.consensus.commands import ProducerStamp
from distlog.consensus.results import AppendResult
from distlog.server.limits import ServerLimits
from tests.server.serving import Serving, refusal, serve

METHOD = "log.v1.Log.ProduceBatch"
NOT_LEADER = errors.NotLeader(leader_id="n2", leader_address="127.0.0.1:8410")


def request(*records: bytes, attributes: int = 0, **fields: Any) -> log_pb2.ProduceBatchRequest:
    block = Block.from_records(records, attributes).encode()
    return log_pb2.ProduceBatchRequest(block=block, **fields)


async def answers(stream: Any) -> list[tuple[int, int]]:
    """Return base offset and record count of the remaining answers of a stream that ends well."""
    found = []
    async for response in stream:
        assert not response.HasField("error"), response.error
        found.append((response.base_offset, response.record_count))
    return found


def error_of(response: log_pb2.ProduceBatchResponse) -> errors.DistlogError:
    assert response.HasField("error")
    return error_from_message(response.error)


async def round_trips(server: Serving, count: int = 10) -> None:
    """Let the server do whatever it would do anyway: calls on the same connection pass through its loop."""
    for _ in range(count):
        await server.log.GetServers(log_pb2.GetServersRequest())


def stored(server: Serving) -> list[list[bytes]]:
    return [list(batch.records()) for batch in server.fake.topics["default"].batches]


# --- What is written ---


def test_each_block_becomes_one_batch_with_the_offsets_of_its_answer() -> None:
    async def body(server: Serving) -> None:
        requests = [request(b"a", b"", b"ccc"), request(b"d"), request(b"e", b"f")]
        stream = server.log.ProduceBatch(iter(requests))
        assert await answers(stream) == [(0, 3), (3, 1), (4, 2)]
        assert await stream.code() == grpc.StatusCode.OK
        assert stored(server) == [[b"a", b"", b"ccc"], [b"d"], [b"e", b"f"]]
        # Three requests were measured, and each of them took some time.
        answered = server.listener.answered[METHOD]
        assert (answered.codes["OK"], answered.durations.count) == (3, 3)
        assert answered.durations.total > 0

    serve(body)


def test_a_block_is_stored_as_it_was_framed() -> None:
    async def body(server: Serving) -> None:
        record = log_pb2.Record(key=b"k", value=b"v").SerializeToString()
        block = Block.from_records([record, record], ATTRIBUTE_STRUCTURED)
        sent = log_pb2.ProduceBatchRequest(block=block.encode())
        await answers(server.log.ProduceBatch(iter([sent])))
        (batch,) = server.fake.topics["default"].batches
        assert (batch.frames, batch.data_crc32c) == (block.frames, block.data_crc32c)
        assert batch.attributes == ATTRIBUTE_STRUCTURED
        for offset in (0, 1):
            response = await server.log.Consume(log_pb2.ConsumeRequest(offset=offset))
            assert (response.key, response.record) == (b"k", b"v")

    serve(body)


def test_a_record_that_is_none_in_a_block_that_promises_them_is_read_as_a_value() -> None:
    async def body(server: Serving) -> None:
        sent = request(b"\xff\xff", attributes=ATTRIBUTE_STRUCTURED)
        assert await answers(server.log.ProduceBatch(iter([sent]))) == [(0, 1)]
        response = await server.log.Consume(log_pb2.ConsumeRequest(offset=0))
        assert (response.record, response.HasField("key")) == (b"\xff\xff", False)

    serve(body)


def test_a_stream_without_requests_ends_well() -> None:
    async def body(server: Serving) -> None:
        assert await answers(server.log.ProduceBatch(iter(()))) == []

    serve(body)


def test_a_stream_carries_topics_and_the_stamps_of_producers() -> None:
    async def body(server: Serving) -> None:
        stamp = {"producer_id": 9, "producer_epoch": 2}
        stream = server.log.ProduceBatch(
            iter(
                [
                    request(b"a", b"b", **stamp, sequence=0),
                    request(b"c", **stamp, sequence=1),
                    request(b"a", b"b", **stamp, sequence=0),
                ]
            )
        )
        found = [(each.base_offset, each.record_count, each.duplicate) async for each in stream]
        assert found == [(0, 2, False), (2, 1, False), (0, 2, True)]
        assert server.fake.proposed[1].producer == ProducerStamp(9, 2, 1)

    serve(body)


# --- Its limits ---


def test_answers_come_in_the_order_of_the_requests() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceBatch(iter([request(b"%d" % number) for number in range(3)]))
        await server.fake.until(lambda: len(server.fake.held) == 3)
        for offset in (2, 1, 0):
            server.fake.held[offset].future.set_result(AppendResult(offset, 1, False))
            await round_trips(server, 2)
        assert await answers(stream) == [(0, 1), (1, 1), (2, 1)]

    serve(body)


def test_at_most_16_blocks_are_in_flight() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceBatch(iter([request(b"%d" % number) for number in range(40)]))
        await server.fake.until(lambda: len(server.fake.held) == 16)
        await round_trips(server)
        assert len(server.fake.held) == 16
        server.fake.release(1)
        await server.fake.until(lambda: len(server.fake.proposed) == 17)
        await round_trips(server)
        assert len(server.fake.held) == 16
        server.fake.holding = False
        server.fake.release()
        assert await answers(stream) == [(number, 1) for number in range(40)]

    serve(body)


def test_the_bytes_in_flight_are_limited_and_one_large_block_goes_alone() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        records = [bytes(400), bytes(400), bytes(5000), bytes(10)]
        stream = server.log.ProduceBatch(iter([request(record) for record in records]))
        for proposed in (2, 3, 4):
            await server.fake.until(lambda proposed=proposed: len(server.fake.proposed) == proposed)
            await round_trips(server)
            assert len(server.fake.proposed) == proposed
            server.fake.release()
        assert await answers(stream) == [(number, 1) for number in range(4)]

    serve(body, ServerLimits(stream_in_flight_size_max=1000))


def test_a_batch_may_have_as_many_bytes_as_its_limit_and_no_more() -> None:
    async def body(server: Serving) -> None:
        fits = request(bytes(84), bytes(100))
        larger = request(bytes(85), bytes(100))
        stream = server.log.ProduceBatch(iter([fits, larger]))
        assert (await stream.read()).record_count == 2
        error = error_of(await stream.read())
        assert isinstance(error, errors.InvalidRequest)
        assert (error.field, "201 bytes, at most 200" in error.problem) == ("block", True)

    serve(body, ServerLimits(batch_size_max=200))


def test_a_single_record_may_be_larger_than_a_batch() -> None:
    async def body(server: Serving) -> None:
        stream = server.log.ProduceBatch(iter([request(bytes(300)), request(bytes(301))]))
        assert (await stream.read()).record_count == 1
        assert isinstance(error_of(await stream.read()), errors.RecordTooLarge)

    serve(body, ServerLimits(batch_size_max=200, record_size_max=300))


def test_a_block_of_the_largest_batch_fits_into_a_message() -> None:
    async def body(server: Serving) -> None:
        # Empty records: nothing else has so many lengths beside so few bytes.
        count = server_limits.batch_size_max // 8
        lengths = np.zeros(count, dtype="<u4")
        frames = bytes(8 * count)
        block = Block(0, crc32c(frames), lengths, frames)
        sent = log_pb2.ProduceBatchRequest(block=block.encode())
        (response,) = [each async for each in server.log.ProduceBatch(iter([sent]))]
        assert response.record_count == count

    server_limits = ServerLimits()
    serve(body, server_limits)


# --- What is refused ---


def damaged(block: bytes, position: int) -> bytes:
    return block[:position] + bytes([block[position] ^ 1]) + block[position + 1 :]


GOOD = Block.from_records([b"abc", b"defg"]).encode()
TWO_LENGTHS = HEADER.size + 8
BAD_BLOCKS = {
    "none": b"",
    "torn header": GOOD[:5],
    "torn": GOOD[:-1],
    "longer": GOOD + b"x",
    "no record": HEADER.pack(0, 0, 0, 0, 0),
    "record count": damaged(GOOD, 0),
    "attribute": damaged(GOOD, 5),
    "checksum": damaged(GOOD, 8),
    "length": damaged(GOOD, HEADER.size),
    "prefix": damaged(GOOD, TWO_LENGTHS),
    "data": damaged(GOOD, TWO_LENGTHS + PREFIX.size),
}


@pytest.mark.parametrize("block", BAD_BLOCKS.values(), ids=BAD_BLOCKS.keys())
def test_a_damaged_block_is_refused_and_the_next_one_is_written(block: bytes) -> None:
    async def body(server: Serving) -> None:
        requests = [log_pb2.ProduceBatchRequest(block=block), request(b"next")]
        stream = server.log.ProduceBatch(iter(requests))
        refused, written = [each async for each in stream]
        error = error_of(refused)
        assert isinstance(error, errors.InvalidRequest)
        assert error.field == "block"
        assert (written.base_offset, written.record_count) == (0, 1)
        assert stored(server) == [[b"next"]]

    serve(body)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (request(bytes(10), bytes(101)), errors.RecordTooLarge),
        (request(b"x", topic="typo"), errors.TopicNotFound),
        (request(b"x", topic="t" * 250), errors.InvalidRequest),
        (request(b"x", sequence=4), errors.InvalidRequest),
    ],
    ids=["too large", "unknown topic", "long topic", "half a stamp"],
)
def test_a_refused_block_is_answered_and_the_stream_goes_on(
    bad: log_pb2.ProduceBatchRequest, error: type[errors.DistlogError]
) -> None:
    async def body(server: Serving) -> None:
        stream = server.log.ProduceBatch(iter([request(b"good"), bad, request(b"later")]))
        found = [each async for each in stream]
        assert [each.HasField("error") for each in found] == [False, True, False]
        assert isinstance(error_of(found[1]), error)
        assert found[2].base_offset == 1
        assert server.listener.calls.refused[error.reason] == 1
        codes = server.listener.answered[METHOD].codes
        assert {code: count for code, count in codes.items() if count} == {
            "OK": 2,
            CODES[error].name: 1,
        }
        assert server.listener.answered[METHOD].durations.count == 3

    serve(body, ServerLimits(record_size_max=100))


def test_garbage_on_a_stream_is_answered_in_words() -> None:
    async def body(server: Serving) -> None:
        call = server.channel.stream_stream("/log.v1.Log/ProduceBatch")
        stream = call(iter([b"\xff\xff\xff", b"\x0a\x01\xff", request(b"x").SerializeToString()]))
        found = [log_pb2.ProduceBatchResponse.FromString(each) async for each in stream]
        for response in found[:2]:
            error = error_of(response)
            assert isinstance(error, errors.InvalidRequest)
            assert "generate the client" in error.problem
        assert found[2].record_count == 1

    serve(body)


def test_a_refusal_says_what_a_status_would() -> None:
    async def body(server: Serving) -> None:
        server.fake.failure = NOT_LEADER
        (response,) = [each async for each in server.log.ProduceBatch(iter([request(b"x")]))]
        error = error_of(response)
        assert isinstance(error, errors.NotLeader)
        assert error.leader_address == "127.0.0.1:8410"
        assert response.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert (response.error.reason, response.error.text) == ("NOT_LEADER", str(NOT_LEADER))

    serve(body)


def test_a_refusal_waits_for_the_answers_before_it() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceBatch()
        await stream.write(request(b"a"))
        await server.fake.until(lambda: len(server.fake.held) == 1)
        server.fake.failure = NOT_LEADER
        await stream.write(request(b"refused"))
        await stream.write(request(b"b"))
        await server.fake.until(lambda: len(server.fake.held) == 2)
        server.fake.release()
        await stream.done_writing()
        found = [each async for each in stream]
        assert [each.HasField("error") for each in found] == [False, True, False]
        assert [found[0].base_offset, found[2].base_offset] == [0, 1]

    serve(body)


def test_refusals_that_nobody_reads_are_in_flight_too() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        bad = request(b"x", topic="typo")
        stream = server.log.ProduceBatch(iter([request(b"a"), *[bad] * 100]))
        await server.fake.until(lambda: len(server.fake.held) == 1)
        while server.fake.asked["propose_append"] < 16:
            await round_trips(server, 1)
        await round_trips(server)
        # The first is not answered yet, so neither are those behind it.
        assert server.fake.asked["propose_append"] == 16
        server.fake.release()
        assert len([each async for each in stream]) == 101

    serve(body)


def test_a_block_that_fails_later_is_answered_with_its_error() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceBatch(iter([request(b"%d" % number) for number in range(3)]))
        await server.fake.until(lambda: len(server.fake.held) == 3)
        futures = [held.future for held in server.fake.held]
        futures[0].set_result(AppendResult(0, 1, False))
        futures[1].set_exception(errors.OutcomeUnknown(cause="leadership was lost"))
        futures[2].set_exception(errors.OutOfSequence(9, 1, 2))
        found = [each async for each in stream]
        assert found[0].base_offset == 0
        assert isinstance(error_of(found[1]), errors.OutcomeUnknown)
        assert isinstance(error_of(found[2]), errors.OutOfSequence)

    serve(body)


def test_each_answer_has_a_deadline() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceBatch(iter([request(b"a"), request(b"b")]))
        found = [error_of(each) async for each in stream]
        assert [type(error) for error in found] == [errors.OutcomeUnknown] * 2

    serve(body, ServerLimits(write_timeout_s=0.05))


# --- How it ends ---


def test_a_mistake_of_ours_ends_the_stream_with_an_incident(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(server: Serving) -> None:
        for mistake in (ZeroDivisionError(), errors.DiskFailed("path", "write", "problem")):
            server.fake.holding = True
            stream = server.log.ProduceBatch(iter([request(b"a")]))
            await server.fake.until(lambda: len(server.fake.held) == 1)
            server.fake.held.pop().future.set_exception(mistake)
            assert isinstance((await refusal(stream.read())).error, errors.InternalError)

    with caplog.at_level(logging.ERROR):
        serve(body)
    assert len(caplog.records) == 2


def test_a_client_that_leaves_stops_its_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceBatch()
        for _ in range(3):
            await stream.write(request(b"x"))
        await server.fake.until(lambda: len(server.fake.held) == 3)
        await stream.write(request(b"x", topic="typo"))
        while server.fake.asked["propose_append"] < 4:
            await round_trips(server, 1)
        stream.cancel()
        await asyncio.wait([held.future for held in server.fake.held], timeout=10)
        assert all(held.future.cancelled() for held in server.fake.held)

    with caplog.at_level(logging.ERROR):
        serve(body)
    assert caplog.records == []


def test_a_stop_ends_a_stream_after_the_answers_of_what_is_in_flight() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceBatch()
        await stream.write(request(b"in flight"))
        await server.fake.until(lambda: len(server.fake.held) == 1)
        stopping = asyncio.ensure_future(server.listener.stop(timeout_s=20))
        refused = await refusal(server.log.Produce(log_pb2.ProduceRequest(record=b"new")))
        assert isinstance(refused.error, errors.ShuttingDown)
        server.fake.release()
        assert (await stream.read()).base_offset == 0
        refused = await refusal(stream.read())
        assert refused.code == grpc.StatusCode.UNAVAILABLE
        assert isinstance(refused.error, errors.ShuttingDown)
        await stopping

    serve(body)
