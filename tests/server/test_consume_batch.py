"""ConsumeBatch: whole batches as they are stored, from the one with the asked offset on, and then what comes."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from distlog import errors
from distlog.api.log.v1 import log_pb2
from distlog.block import ATTRIBUTE_STRUCTURED, split_frames
from distlog.server.consume_stream import READ_SIZE
from distlog.server.limits import ServerLimits
from tests.server.fake_replicated_log import FakeTopic
from tests.server.serving import Serving, refusal, serve
from tests.server.test_consume_stream import RECORD, RECORD_COUNT, fill, settled

LOCAL = log_pb2.CONSISTENCY_LOCAL


def tail(server: Serving, offset: int = 0, **fields: Any) -> Any:
    return server.log.ConsumeBatch(log_pb2.ConsumeBatchRequest(offset=offset, **fields))


async def read(stream: Any, count: int) -> list[tuple[int, list[bytes]]]:
    """Return the next `count` batches, each with its base offset."""
    found = []
    for _ in range(count):
        response = await stream.read()
        records = list(split_frames(response.frames))
        assert len(records) == response.record_count
        found.append((response.base_offset, records))
    return found


def test_batches_come_as_they_are_stored() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"a", b"", b"ccc")
        record = log_pb2.Record(key=b"k", value=b"v").SerializeToString()
        server.fake.append(record, attributes=ATTRIBUTE_STRUCTURED)
        stream = tail(server)
        for batch in server.fake.topics["default"].batches:
            response = await stream.read()
            assert response == log_pb2.ConsumeBatchResponse(
                base_offset=batch.base_offset,
                record_count=batch.record_count,
                attributes=batch.attributes,
                timestamp_ms=batch.timestamp_ms,
                data_crc32c=batch.data_crc32c,
                frames=batch.frames,
            )

    serve(body)


def test_the_first_batch_may_begin_before_the_offset() -> None:
    async def body(server: Serving) -> None:
        batches = [(0, [b"a", b"b", b"c"]), (3, [b"d"]), (4, [b"e", b"f"])]
        for _, records in batches:
            server.fake.append(*records)
        for offset, first in enumerate((0, 0, 0, 1, 2, 2)):
            assert await read(tail(server, offset), 3 - first) == batches[first:]

    serve(body)


def test_a_stream_goes_on_with_what_is_appended() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"0")
        stream = tail(server)
        assert await read(stream, 1) == [(0, [b"0"])]
        for offset in (1, 2):
            await server.fake.until(lambda: len(server.fake.waiting) == 1)
            server.fake.append(b"%d" % offset)
            assert await read(stream, 1) == [(offset, [b"%d" % offset])]

    serve(body)


def test_a_stream_from_the_end_of_an_empty_log_waits_for_the_first_batch() -> None:
    async def body(server: Serving) -> None:
        stream = tail(server)
        await server.fake.until(lambda: len(server.fake.waiting) == 1)
        server.fake.append(b"", b"")
        assert await read(stream, 1) == [(0, [b"", b""])]

    serve(body)


def test_what_was_produced_as_blocks_comes_back_as_the_same_bytes() -> None:
    async def body(server: Serving) -> None:
        records = [b"%d" % number for number in range(100)]
        requests = [log_pb2.ProduceRequest(record=record) for record in records]
        assert len([each async for each in server.log.ProduceStream(iter(requests))]) == 100
        found = await read(tail(server), 100)
        assert found == [(number, [record]) for number, record in enumerate(records)]

    serve(body)


# --- Where it may begin ---


def test_a_stream_beyond_the_end_is_out_of_range_once_that_is_proven() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"x")
        refused = await refusal(tail(server, 2).read())
        assert refused.code == grpc.StatusCode.OUT_OF_RANGE
        assert isinstance(refused.error, errors.OffsetOutOfRange)
        assert refused.error.high_watermark == 1
        assert server.fake.asked["confirmed_topic"] == 1
        server.fake.has_leader = False
        refused = await refusal(tail(server, 2).read())
        assert isinstance(refused.error, errors.NoLeader)

    serve(body)


def test_a_local_stream_beyond_the_end_waits() -> None:
    async def body(server: Serving) -> None:
        stream = tail(server, 1, consistency=LOCAL)
        await server.fake.until(lambda: len(server.fake.waiting) == 1)
        server.fake.append(b"0")
        server.fake.append(b"1")
        assert await read(stream, 1) == [(1, [b"1"])]
        assert server.fake.asked["confirmed_topic"] == 0

    serve(body)


def test_batches_that_are_present_need_no_leader() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"x")
        server.fake.silent = True
        assert await read(tail(server), 1) == [(0, [b"x"])]

    serve(body)


def test_a_stream_waits_for_the_offset_that_it_must_not_miss() -> None:
    async def body(server: Serving) -> None:
        stream = tail(server, 1, min_offset=1)
        await server.fake.until(lambda: len(server.fake.waiting) == 1)
        server.fake.append(b"0", b"1")
        assert await read(stream, 1) == [(0, [b"0", b"1"])]

    serve(body)


def test_that_wait_has_a_deadline() -> None:
    async def body(server: Serving) -> None:
        refused = await refusal(tail(server, min_offset=1).read())
        assert isinstance(refused.error, errors.NoLeader)

    serve(body, ServerLimits(read_timeout_s=0.05))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"topic": "typo"}, errors.TopicNotFound),
        ({"topic": "t" * 250}, errors.InvalidRequest),
        ({"consistency": 7}, errors.InvalidRequest),
    ],
    ids=["unknown topic", "long topic", "unknown consistency"],
)
def test_a_bad_request_is_refused(fields: dict[str, Any], error: type[errors.DistlogError]) -> None:
    async def body(server: Serving) -> None:
        assert isinstance((await refusal(tail(server, **fields).read())).error, error)

    serve(body)


# --- How it ends ---


def test_a_stream_that_was_trimmed_away_is_out_of_range() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"x")
        stream = tail(server)
        await read(stream, 1)
        await server.fake.until(lambda: len(server.fake.waiting) == 1)
        server.fake.topics["default"].start_offset = 3
        server.fake.append(*[b"y"] * 3)
        refused = await refusal(stream.read())
        assert isinstance(refused.error, errors.OffsetOutOfRange)
        assert refused.error.start_offset == 3

    serve(body)


def test_a_stream_does_not_go_on_in_another_topic_of_the_same_name() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"old")
        stream = tail(server, 1)
        await server.fake.until(lambda: len(server.fake.waiting) == 1)
        server.fake.replace_topic(FakeTopic(2, "default"))
        refused = await refusal(stream.read())
        assert refused.code == grpc.StatusCode.NOT_FOUND

    serve(body)


def test_a_slow_reader_holds_no_more_than_one_read_in_memory() -> None:
    async def body(server: Serving) -> None:
        fill(server.fake)
        stream = tail(server)
        await stream.read()
        await settled(server, lambda: len(server.fake.read_sizes))
        assert sum(server.fake.read_sizes) < RECORD_COUNT * len(RECORD) / 2
        assert max(server.fake.read_sizes) <= READ_SIZE
        offsets = [offset for offset, _ in await read(stream, RECORD_COUNT - 1)]
        assert offsets == list(range(1, RECORD_COUNT))

    serve(body)


def test_the_limit_of_tails_is_one_for_both_kinds() -> None:
    async def body(server: Serving) -> None:
        first = tail(server)
        await server.fake.until(lambda: len(server.fake.waiting) == 1)
        other = server.log.ConsumeStream(log_pb2.ConsumeRequest())
        assert isinstance((await refusal(other.read())).error, errors.Overloaded)
        first.cancel()
        await server.fake.until(lambda: not server.fake.waiting)
        again = tail(server)
        await server.fake.until(lambda: len(server.fake.waiting) == 1)
        server.fake.append(b"x")
        assert await read(again, 1) == [(0, [b"x"])]

    serve(body, ServerLimits(tail_count_max=1))


def test_a_stop_ends_a_tail_with_where_else_to_go() -> None:
    async def body(server: Serving) -> None:
        stream = tail(server)
        await server.fake.until(lambda: len(server.fake.waiting) == 1)
        stopping = asyncio.ensure_future(server.listener.stop(timeout_s=20))
        assert isinstance((await refusal(stream.read())).error, errors.ShuttingDown)
        await stopping

    serve(body)
