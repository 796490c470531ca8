"""Produce, Consume, OpenProducer and GetServers: what they do, and what they say when they cannot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from distlog import errors
from distlog.api.log.v1 import log_pb2
from distlog.block import ATTRIBUTE_STRUCTURED
from distlog.consensus.commands import ProducerStamp
from distlog.consensus.views import MemberStatus
from distlog.server.limits import MIB, ServerLimits
from tests.server.fake_replicated_log import TIMESTAMP_MS, FakeTopic
from tests.server.serving import INCIDENT_BYTES, Serving, refusal, serve

SHORT_S = 0.05


def produce(record: bytes = b"", **fields: Any) -> log_pb2.ProduceRequest:
    return log_pb2.ProduceRequest(record=record, **fields)


def consume(offset: int = 0, **fields: Any) -> log_pb2.ConsumeRequest:
    return log_pb2.ConsumeRequest(offset=offset, **fields)


def test_parity_b10_a_unary_round_trip_returns_the_offset_and_the_record() -> None:
    async def body(server: Serving) -> None:
        assert (await server.log.Produce(produce(b"hello"))).offset == 0
        assert (await server.log.Produce(produce(b"world!!!"))).offset == 1
        for offset, record in enumerate((b"hello", b"world!!!")):
            response = await server.log.Consume(consume(offset))
            assert response == log_pb2.ConsumeResponse(
                record=record, offset=offset, timestamp_ms=TIMESTAMP_MS + offset
            )

    serve(body)


def test_parity_b11_consuming_past_the_end_is_out_of_range_with_the_numbers() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"hello")
        refused = await refusal(server.log.Consume(consume(1)))
        assert refused.code == grpc.StatusCode.OUT_OF_RANGE
        assert refused.text == "offset 1 is not in [0, 1): read from one that is"
        assert isinstance(refused.error, errors.OffsetOutOfRange)
        assert refused.error.fields() == {"offset": 1, "start_offset": 0, "high_watermark": 1}

    serve(body)


def test_an_empty_log_has_no_record_at_offset_0() -> None:
    async def body(server: Serving) -> None:
        refused = await refusal(server.log.Consume(consume(0)))
        assert isinstance(refused.error, errors.OffsetOutOfRange)
        assert refused.error.high_watermark == 0

    serve(body)


def test_an_empty_record_is_a_record() -> None:
    async def body(server: Serving) -> None:
        assert (await server.log.Produce(produce(b""))).offset == 0
        response = await server.log.Consume(consume(0))
        assert (response.record, response.offset) == (b"", 0)

    serve(body)


def test_a_plain_record_is_stored_as_its_value() -> None:
    async def body(server: Serving) -> None:
        await server.log.Produce(produce(b"hello"))
        (batch,) = server.fake.topics["default"].batches
        assert batch.attributes == 0
        assert batch.frames == b"\x05\0\0\0\0\0\0\0hello"

    serve(body)


@pytest.mark.parametrize(
    "beside",
    [
        {"key": b"k"},
        {"key": b""},
        {"headers": [log_pb2.Header(name="a", value=b"1"), log_pb2.Header(name="a", value=b"2")]},
        {"key": b"k", "headers": [log_pb2.Header(name="trace", value=b"\xff")]},
    ],
    ids=["key", "empty key", "headers", "both"],
)
def test_key_and_headers_come_back_beside_the_value(beside: dict[str, Any]) -> None:
    async def body(server: Serving) -> None:
        await server.log.Produce(produce(b"value", **beside))
        assert server.fake.topics["default"].batches[0].attributes == ATTRIBUTE_STRUCTURED
        response = await server.log.Consume(consume(0))
        assert response == log_pb2.ConsumeResponse(
            record=b"value", offset=0, timestamp_ms=TIMESTAMP_MS, **beside
        )

    serve(body)


def test_any_record_of_a_batch_can_be_asked_for() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"before")
        server.fake.append(b"", b"a", b"", b"bcd", b"")
        found = [(await server.log.Consume(consume(offset))).record for offset in range(1, 6)]
        assert found == [b"", b"a", b"", b"bcd", b""]

    serve(body)


def test_an_empty_topic_is_the_default_one_and_others_are_found_by_name() -> None:
    async def body(server: Serving) -> None:
        server.fake.topics["other"] = FakeTopic(2, "other")
        await server.log.Produce(produce(b"in default"))
        await server.log.Produce(produce(b"in other", topic="other"))
        assert (await server.log.Consume(consume(0, topic="default"))).record == b"in default"
        assert (await server.log.Consume(consume(0, topic="other"))).record == b"in other"

    serve(body)


def test_an_unknown_topic_is_not_found() -> None:
    async def body(server: Serving) -> None:
        for call in (
            server.log.Produce(produce(b"x", topic="typo")),
            server.log.Consume(consume(0, topic="typo")),
            server.cluster.DescribeTopic(log_pb2.DescribeTopicRequest(topic="typo")),
        ):
            refused = await refusal(call)
            assert refused.code == grpc.StatusCode.NOT_FOUND
            assert isinstance(refused.error, errors.TopicNotFound)
            assert refused.error.topic == "typo"

    serve(body)


def test_a_topic_name_longer_than_a_trailer_is_refused_with_details() -> None:
    async def body(server: Serving) -> None:
        refused = await refusal(server.log.Consume(consume(0, topic="é" * 100_000)))
        assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
        assert isinstance(refused.error, errors.InvalidRequest)
        assert refused.error.field == "topic"

    serve(body)


@pytest.mark.parametrize("size_max", [1 * MIB, 16 * MIB], ids=["default", "configured"])
def test_a_record_at_the_limit_is_taken_and_one_byte_more_is_refused(size_max: int) -> None:
    async def body(server: Serving) -> None:
        assert (await server.log.Produce(produce(bytes(size_max)))).offset == 0
        assert (await server.log.Consume(consume(0))).record == bytes(size_max)
        refused = await refusal(server.log.Produce(produce(bytes(size_max + 1))))
        assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
        assert isinstance(refused.error, errors.RecordTooLarge)
        assert refused.error.fields() == {"size": size_max + 1, "size_max": size_max}
        assert len(server.fake.proposed) == 1

    serve(body, ServerLimits(record_size_max=size_max))


def test_key_and_headers_count_for_the_record_limit() -> None:
    async def body(server: Serving) -> None:
        refused = await refusal(server.log.Produce(produce(bytes(90), key=bytes(10))))
        assert isinstance(refused.error, errors.RecordTooLarge)
        assert refused.error.size == 104

    serve(body, ServerLimits(record_size_max=100))


def test_a_message_over_the_limit_is_refused_by_the_transport() -> None:
    async def body(server: Serving) -> None:
        refused = await refusal(server.log.Produce(produce(bytes(12 * MIB))))
        assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        # Without details a client takes the outcome of a write as unknown.
        assert refused.error is None

    serve(body)


def test_a_producer_stamp_makes_a_repeat_harmless() -> None:
    async def body(server: Serving) -> None:
        opened = await server.log.OpenProducer(log_pb2.OpenProducerRequest())
        again = await server.log.OpenProducer(
            log_pb2.OpenProducerRequest(producer_id=opened.producer_id)
        )
        assert (opened.epoch, again.epoch) == (0, 1)
        request = produce(
            b"once", producer_id=again.producer_id, producer_epoch=again.epoch, sequence=0
        )
        first, second = await server.log.Produce(request), await server.log.Produce(request)
        assert (first.offset, first.duplicate) == (0, False)
        assert (second.offset, second.duplicate) == (0, True)
        assert server.fake.proposed[0].producer == ProducerStamp(opened.producer_id, 1, 0)

    serve(body)


@pytest.mark.parametrize("half", [{"sequence": 1}, {"producer_epoch": 1}])
def test_half_of_a_producer_stamp_is_refused(half: dict[str, int]) -> None:
    async def body(server: Serving) -> None:
        refused = await refusal(server.log.Produce(produce(b"x", **half)))
        assert isinstance(refused.error, errors.InvalidRequest)
        assert refused.error.field == "producer_id"
        assert server.fake.proposed == []

    serve(body)


@pytest.mark.parametrize(
    "error",
    [
        errors.NotLeader(leader_id="n2", leader_address="10.0.0.2:8400"),
        errors.NoLeader(problem="an election is under way", retry_delay_s=0.25),
        errors.Overloaded(queue="bytes of proposals waiting", limit=64 * MIB),
        errors.OutOfSequence(producer_id=7, expected=3, actual=5),
        errors.OutcomeUnknown(cause="leadership was lost"),
    ],
    ids=lambda error: error.reason,
)
def test_what_refuses_an_append_reaches_the_caller_with_its_fields(
    error: errors.DistlogError,
) -> None:
    async def body(server: Serving) -> None:
        server.fake.failure = error
        refused = await refusal(server.log.Produce(produce(b"x")))
        assert type(refused.error) is type(error)
        assert refused.error.fields() == error.fields()
        assert refused.text == str(error)
        assert server.listener.calls.refused[error.reason] == 1

    serve(body)


def test_a_shorter_deadline_of_the_caller_ends_the_call_and_the_record_may_exist() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        writing = asyncio.ensure_future(refusal(server.log.Produce(produce(b"late"), timeout=1)))
        await server.fake.until(lambda: len(server.fake.held) == 1)
        assert (await writing).code == grpc.StatusCode.DEADLINE_EXCEEDED
        (held,) = server.fake.held
        # The server is told too: it waits no longer.
        await asyncio.wait([held.future], timeout=10)
        assert held.future.cancelled()
        server.fake.release()
        assert (await server.log.Consume(consume(0))).record == b"late"

    serve(body)


def test_a_write_without_a_deadline_ends_with_an_unknown_outcome() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        refused = await refusal(server.log.Produce(produce(b"x")))
        assert refused.code == grpc.StatusCode.ABORTED
        assert isinstance(refused.error, errors.OutcomeUnknown)
        assert refused.error.cause == "no majority confirmed it within 0.05 s"

    serve(body, ServerLimits(write_timeout_s=SHORT_S))


def test_a_read_that_nobody_can_prove_is_unavailable_and_never_out_of_range() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"here")
        server.fake.silent = True
        assert (await server.log.Consume(consume(0))).record == b"here"
        for call in (
            server.log.Consume(consume(1)),
            server.cluster.DescribeTopic(log_pb2.DescribeTopicRequest()),
        ):
            refused = await refusal(call)
            assert refused.code == grpc.StatusCode.UNAVAILABLE
            assert isinstance(refused.error, errors.NoLeader)

    serve(body, ServerLimits(read_timeout_s=SHORT_S))


def test_a_local_read_answers_without_proof() -> None:
    async def body(server: Serving) -> None:
        server.fake.silent = True
        request = consume(0, consistency=log_pb2.CONSISTENCY_LOCAL)
        assert (await refusal(server.log.Consume(request))).code == grpc.StatusCode.OUT_OF_RANGE

    serve(body)


def test_an_unknown_consistency_is_refused() -> None:
    async def body(server: Serving) -> None:
        refused = await refusal(server.log.Consume(consume(0, consistency=7)))
        assert isinstance(refused.error, errors.InvalidRequest)
        assert refused.error.field == "consistency"

    serve(body)


@pytest.mark.parametrize("min_offset", [0, 2])
def test_a_read_waits_for_the_offset_that_it_must_not_miss(min_offset: int) -> None:
    async def body(server: Serving) -> None:
        reading = asyncio.ensure_future(
            server.log.Consume(
                consume(0, min_offset=min_offset, consistency=log_pb2.CONSISTENCY_LOCAL)
            )
        )
        await server.fake.until(lambda: len(server.fake.waiting) == 1)
        for _ in range(min_offset + 1):
            assert server.fake.waiting, "it read before the offset was there"
            server.fake.append(b"x")
        assert (await reading).record == b"x"

    serve(body)


def test_garbage_instead_of_a_request_is_refused_in_words() -> None:
    async def body(server: Serving) -> None:
        call = server.channel.unary_unary("/log.v1.Log/Produce")
        refused = await refusal(call(b"\xff\xff\xff"))
        assert isinstance(refused.error, errors.InvalidRequest)
        assert refused.text == (
            "request: is not a log.v1.ProduceRequest: generate the client from log.proto"
        )

    serve(body)


@pytest.mark.parametrize(
    "failure",
    [RuntimeError("a secret detail"), errors.DiskFailed("/data", "read", "a secret detail")],
    ids=["bug", "not for callers"],
)
def test_a_mistake_of_ours_is_an_incident_that_the_log_explains(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(server: Serving) -> None:
        server.fake.failure = failure
        codes = server.listener.calls.ended["log.v1.Log.Produce"].codes
        # It is there before, or a first one would be no increase to who asks now and then.
        assert dict(codes) == {"INTERNAL": 0, "DATA_LOSS": 0}
        refused = await refusal(server.log.Produce(produce(b"x")))
        assert refused.code == grpc.StatusCode.INTERNAL
        assert codes["INTERNAL"] == 1
        assert isinstance(refused.error, errors.InternalError)
        assert refused.error.incident_id == INCIDENT_BYTES[:6].hex()
        assert "secret" not in refused.text
        assert "Traceback" not in refused.text

    with caplog.at_level(logging.ERROR):
        serve(body)
    (record,) = caplog.records
    assert (
        record.getMessage()
        == "internal error: please report it, with the lines below incident_id=001122334455 method=log.v1.Log.Produce"
    )
    assert record.exc_info is not None
    assert record.exc_info[1] is failure


def test_get_servers_lists_the_members_with_the_leader_marked() -> None:
    async def body(server: Serving) -> None:
        server.fake.members = (
            MemberStatus("n1", "127.0.0.1:8400", True, True, 8, 0),
            MemberStatus("n2", "", False, False, None, None),
        )
        response = await server.log.GetServers(log_pb2.GetServersRequest())
        assert list(response.servers) == [
            log_pb2.Server(id="n1", rpc_addr="127.0.0.1:8400", is_leader=True, connected=True),
            log_pb2.Server(id="n2"),
        ]
        # Every client asks often, and there may be ten thousand topics.
        assert server.fake.described_count == 0
        assert response.problem == ""
        server.fake.is_leader = server.fake.has_leader = False
        response = await server.log.GetServers(log_pb2.GetServersRequest())
        assert response.problem == "no leader is heard: an election is under way"

    serve(body)


def test_calls_at_the_same_time_are_limited_per_node() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        held: list[Awaitable[Any]] = [server.log.Produce(produce(b"x")) for _ in range(3)]
        await server.fake.until(lambda: len(server.fake.held) == 3)
        refused = await refusal(server.log.GetServers(log_pb2.GetServersRequest()))
        assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        server.fake.release()
        assert sorted([(await call).offset for call in held]) == [0, 1, 2]

    serve(body, ServerLimits(call_count_max=3))


def test_calls_at_the_same_time_are_limited_per_connection() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        # The client learns the limit with the connection's settings.
        await server.channel.channel_ready()
        first = [server.log.Produce(produce(b"x")) for _ in range(2)]
        await server.fake.until(lambda: len(server.fake.held) == 2)
        third = server.log.GetServers(log_pb2.GetServersRequest())
        async with server.open_channel() as other:
            # A call that came after it on another connection is answered: the third was never sent.
            answer = other.unary_unary("/log.v1.Log/GetServers")
            await answer(b"")
            assert not third.done()
        server.fake.release()
        await asyncio.gather(*first, third)

    serve(body, ServerLimits(connection_stream_count_max=2))
