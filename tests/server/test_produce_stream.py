"""ProduceStream: order, pipelining, its limits, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio
import pytest

from distlog import errors
from distlog.api.log.v1 import log_pb2
from distlog.consensus.commands import ProducerStamp
from distlog.consensus.results import AppendResult
from distlog.server.limits import ServerLimits
from tests.server.serving import Serving, refusal, serve

NOT_LEADER = errors.NotLeader(leader_id="n2", leader_address="127.0.0.1:8410")


def request(record: bytes, **fields: Any) -> log_pb2.ProduceRequest:
    return log_pb2.ProduceRequest(record=record, **fields)


async def answers(stream: Any) -> list[int]:
    """Return the offsets of the remaining answers of a stream that ends well."""
    return [response.offset async for response in stream]


async def round_trips(server: Serving, count: int = 10) -> None:
    """Let the server do whatever it would do anyway: calls on the same connection pass through its loop."""
    for _ in range(count):
        await server.log.GetServers(log_pb2.GetServersRequest())


def test_parity_b10_a_produce_stream_yields_0_and_1_and_ends_well() -> None:
    async def body(server: Serving) -> None:
        stream = server.log.ProduceStream(iter([request(b"first"), request(b"second")]))
        assert await answers(stream) == [0, 1]
        assert await stream.code() == grpc.StatusCode.OK
        stored = [held.block.frames[8:] for held in server.fake.proposed]
        assert stored == [b"first", b"second"]

    serve(body)


def test_a_stream_without_requests_ends_well() -> None:
    async def body(server: Serving) -> None:
        assert await answers(server.log.ProduceStream(iter(()))) == []

    serve(body)


def test_answers_come_in_the_order_of_the_requests() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceStream(iter([request(b"a"), request(b"b"), request(b"c")]))
        await server.fake.until(lambda: len(server.fake.held) == 3)
        for offset in (2, 1, 0):
            server.fake.held[offset].future.set_result(AppendResult(offset, 1, False))
            await round_trips(server, 2)
        assert await answers(stream) == [0, 1, 2]

    serve(body)


def test_at_most_16_requests_are_in_flight() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceStream(iter([request(b"%d" % number) for number in range(40)]))
        await server.fake.until(lambda: len(server.fake.held) == 16)
        await round_trips(server)
        assert len(server.fake.held) == 16
        server.fake.release(1)
        await server.fake.until(lambda: len(server.fake.proposed) == 17)
        await round_trips(server)
        assert len(server.fake.held) == 16
        server.fake.holding = False
        server.fake.release()
        assert await answers(stream) == list(range(40))

    serve(body)


def test_the_bytes_in_flight_are_limited_and_one_large_request_goes_alone() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        records = [bytes(400), bytes(400), bytes(5000), bytes(10)]
        stream = server.log.ProduceStream(iter([request(record) for record in records]))
        for proposed in (2, 3, 4):
            await server.fake.until(lambda proposed=proposed: len(server.fake.proposed) == proposed)
            await round_trips(server)
            assert len(server.fake.proposed) == proposed
            server.fake.release()
        assert await answers(stream) == [0, 1, 2, 3]

    serve(body, ServerLimits(stream_in_flight_size_max=1000))


def test_the_first_refused_request_ends_the_stream_after_all_earlier_answers() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceStream()
        for record in (b"a", b"b"):
            await stream.write(request(record))
        await server.fake.until(lambda: len(server.fake.held) == 2)
        server.fake.failure = NOT_LEADER
        for record in (b"refused", b"later"):
            await stream.write(request(record))
        await round_trips(server)
        server.fake.release()
        assert [(await stream.read()).offset for _ in range(2)] == [0, 1]
        refused = await refusal(stream.read())
        assert isinstance(refused.error, errors.NotLeader)
        assert refused.error.leader_address == "127.0.0.1:8410"
        assert [held.block.frames[8:] for held in server.fake.proposed] == [b"a", b"b"]
        # Two were answered; the refusal is how the stream itself ended.
        answered = server.listener.answered["log.v1.Log.ProduceStream"]
        assert (answered.codes["OK"], answered.durations.count) == (2, 2)
        ended = server.listener.calls.ended["log.v1.Log.ProduceStream"].codes
        assert (ended["FAILED_PRECONDITION"], ended["OK"]) == (1, 0)

    serve(body)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (request(bytes(101)), errors.RecordTooLarge),
        (request(b"x", topic="typo"), errors.TopicNotFound),
        (request(b"x", sequence=4), errors.InvalidRequest),
    ],
    ids=["too large", "unknown topic", "half a stamp"],
)
def test_a_bad_request_ends_the_stream_and_nothing_later_is_written(
    bad: log_pb2.ProduceRequest, error: type[errors.DistlogError]
) -> None:
    async def body(server: Serving) -> None:
        stream = server.log.ProduceStream(iter([request(b"good"), bad, request(b"later")]))
        assert (await stream.read()).offset == 0
        assert isinstance((await refusal(stream.read())).error, error)
        assert len(server.fake.topics["default"].batches) == 1

    serve(body, ServerLimits(record_size_max=100))


def test_garbage_on_a_stream_ends_it_in_words() -> None:
    async def body(server: Serving) -> None:
        call = server.channel.stream_stream("/log.v1.Log/ProduceStream")
        refused = await refusal(call(iter([b"\xff\xff\xff"])).read())
        assert isinstance(refused.error, errors.InvalidRequest)

    serve(body)


def test_an_append_that_fails_later_ends_the_stream_with_its_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceStream()
        for record in (b"a", b"b", b"c"):
            await stream.write(request(record))
        await server.fake.until(lambda: len(server.fake.held) == 3)
        held = server.fake.held
        held[0].future.set_result(AppendResult(0, 1, False))
        for lost in held[1:]:
            lost.future.set_exception(errors.OutcomeUnknown(cause="leadership was lost"))
        assert (await stream.read()).offset == 0
        assert isinstance((await refusal(stream.read())).error, errors.OutcomeUnknown)

    with caplog.at_level(logging.ERROR):
        serve(body)
    # The error of the third was taken by nobody, and that is no mistake.
    assert caplog.records == []


def test_each_answer_of_a_stream_has_a_deadline() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceStream(iter([request(b"a")]))
        refused = await refusal(stream.read())
        assert isinstance(refused.error, errors.OutcomeUnknown)

    serve(body, ServerLimits(write_timeout_s=0.05))


def test_a_client_that_leaves_stops_its_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceStream()
        for _ in range(3):
            await stream.write(request(b"x"))
        await server.fake.until(lambda: len(server.fake.held) == 3)
        stream.cancel()
        await asyncio.wait([held.future for held in server.fake.held], timeout=10)
        assert all(held.future.cancelled() for held in server.fake.held)

    with caplog.at_level(logging.ERROR):
        serve(body)
    assert caplog.records == []


def test_a_client_that_leaves_at_once_stops_its_stream() -> None:
    async def body(server: Serving) -> None:
        stream = server.log.ProduceStream()
        await stream.write(request(b"x"))
        assert (await stream.read()).offset == 0
        stream.cancel()
        await round_trips(server)
        assert (await server.log.Produce(request(b"y"))).offset == 1

    serve(body)


def test_a_stream_carries_the_stamps_of_its_producer() -> None:
    async def body(server: Serving) -> None:
        stream = server.log.ProduceStream(
            iter(
                [
                    request(b"a", producer_id=9, producer_epoch=2, sequence=0),
                    request(b"b", producer_id=9, producer_epoch=2, sequence=1),
                    request(b"a", producer_id=9, producer_epoch=2, sequence=0),
                ]
            )
        )
        found = [(response.offset, response.duplicate) async for response in stream]
        assert found == [(0, False), (1, False), (0, True)]
        assert server.fake.proposed[1].producer == ProducerStamp(9, 2, 1)

    serve(body)


def test_a_stop_ends_a_stream_after_the_answers_of_what_is_in_flight() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        stream = server.log.ProduceStream()
        await stream.write(request(b"in flight"))
        await server.fake.until(lambda: len(server.fake.held) == 1)
        stopping = asyncio.ensure_future(server.listener.stop(timeout_s=20))
        # The stop has begun: nothing new is taken.
        refused = await refusal(server.log.Produce(request(b"new")))
        assert isinstance(refused.error, errors.ShuttingDown)
        server.fake.release()
        assert (await stream.read()).offset == 0
        refused = await refusal(stream.read())
        assert refused.code == grpc.StatusCode.UNAVAILABLE
        assert isinstance(refused.error, errors.ShuttingDown)
        await stopping

    serve(body)
