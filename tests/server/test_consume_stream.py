"""ConsumeStream: what it sends, what it waits for, what it costs, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from distlog import errors
from distlog.api.log.v1 import log_pb2
from distlog.block import ATTRIBUTE_STRUCTURED
from distlog.server.consume_stream import READ_SIZE
from distlog.server.limits import ServerLimits
from tests.server.fake_replicated_log import FakeReplicatedLog, FakeTopic
from tests.server.serving import Serving, refusal, serve, serving

LOCAL = log_pb2.CONSISTENCY_LOCAL


def tail(server: Serving, offset: int = 0, **fields: Any) -> Any:
    return server.log.ConsumeStream(log_pb2.ConsumeRequest(offset=offset, **fields))


async def read(stream: Any, count: int) -> list[tuple[int, bytes]]:
    """Return the next `count` records with their offsets."""
    found = []
    for _ in range(count):
        response = await stream.read()
        found.append((response.offset, response.record))
    return found


def test_parity_b10_a_consume_stream_yields_what_was_produced() -> None:
    async def body(server: Serving) -> None:
        requests = [log_pb2.ProduceRequest(record=record) for record in (b"first", b"second")]
        produced = [answer.offset async for answer in server.log.ProduceStream(iter(requests))]
        assert produced == [0, 1]
        assert await read(tail(server), 2) == [(0, b"first"), (1, b"second")]

    serve(body)


def test_a_stream_goes_on_with_what_is_appended() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"0")
        stream = tail(server)
        assert await read(stream, 1) == [(0, b"0")]
        for offset in (1, 2):
            await server.fake.until(lambda: len(server.fake.waiting) == 1)
            server.fake.append(b"%d" % offset)
            assert await read(stream, 1) == [(offset, b"%d" % offset)]

    serve(body)


def test_a_stream_from_the_end_of_an_empty_log_waits_for_the_first_record() -> None:
    async def body(server: Serving) -> None:
        stream = tail(server)
        await server.fake.until(lambda: len(server.fake.waiting) == 1)
        server.fake.append(b"")
        assert await read(stream, 1) == [(0, b"")]

    serve(body)


def test_batches_are_split_to_records_from_the_offset_asked_for() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"a", b"", b"ccc")
        server.fake.append(b"d")
        server.fake.append(
            log_pb2.Record(key=b"k", value=b"e").SerializeToString(),
            log_pb2.Record(value=b"f").SerializeToString(),
            attributes=ATTRIBUTE_STRUCTURED,
        )
        everything = [(0, b"a"), (1, b""), (2, b"ccc"), (3, b"d"), (4, b"e"), (5, b"f")]
        for offset in range(6):
            assert await read(tail(server, offset), 6 - offset) == everything[offset:]

    serve(body)


def test_a_stream_carries_keys_headers_and_times() -> None:
    async def body(server: Serving) -> None:
        header = log_pb2.Header(name="trace", value=b"7")
        await server.log.Produce(log_pb2.ProduceRequest(record=b"v", key=b"k", headers=[header]))
        response = await tail(server).read()
        assert (response.key, list(response.headers), response.record) == (b"k", [header], b"v")
        assert response.timestamp_ms == server.fake.topics["default"].batches[0].timestamp_ms

    serve(body)


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
        assert await read(stream, 1) == [(1, b"1")]
        assert server.fake.asked["confirmed_topic"] == 0

    serve(body)


def test_records_that_are_present_need_no_leader() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"x")
        server.fake.silent = True
        assert await read(tail(server), 1) == [(0, b"x")]

    serve(body)


def test_a_stream_that_was_trimmed_away_is_out_of_range() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"x")
        stream = tail(server)
        assert await read(stream, 1) == [(0, b"x")]
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
        waiting, reading = tail(server, 1), tail(server)
        await server.fake.until(lambda: len(server.fake.waiting) == 2)
        assert await read(reading, 1) == [(0, b"old")]
        server.fake.replace_topic(FakeTopic(2, "default"))
        server.fake.append(b"new")
        server.fake.append(b"newer")
        for stream in (waiting, reading):
            refused = await refusal(stream.read())
            assert refused.code == grpc.StatusCode.NOT_FOUND

    serve(body)


def test_a_stream_whose_topic_is_replaced_while_it_writes_ends() -> None:
    async def body(server: Serving) -> None:
        fill(server.fake)
        stream = tail(server)
        await stream.read()
        replacement = FakeTopic(2, "default", batches=server.fake.topics["default"].batches)
        server.fake.replace_topic(replacement)
        refused = await refusal(read(stream, RECORD_COUNT))
        assert refused.code == grpc.StatusCode.NOT_FOUND

    serve(body)


RECORD = bytes(64 << 10)
RECORD_COUNT = 600


def fill(fake: FakeReplicatedLog) -> None:
    """Put more into the log than gRPC and the sockets can hold for a reader that does not read."""
    for _ in range(RECORD_COUNT):
        fake.append(RECORD)


async def settled(server: Serving, value: Callable[[], int]) -> int:
    """Return the value once it does not change any more while other calls are served."""
    last = -1
    async with server.open_channel() as channel:
        ask = channel.unary_unary("/log.v1.Log/GetServers")
        while (now := value()) != last:
            last = now
            for _ in range(20):
                await ask(b"")
    return last


def test_a_slow_reader_holds_no_more_than_one_read_in_memory() -> None:
    async def body(server: Serving) -> None:
        fill(server.fake)
        stream = tail(server)
        await stream.read()
        count = await settled(server, lambda: len(server.fake.read_sizes))
        assert sum(server.fake.read_sizes) < RECORD_COUNT * len(RECORD) / 2
        assert max(server.fake.read_sizes) <= READ_SIZE
        # It goes on where it was as soon as somebody reads.
        assert [offset for offset, _ in await read(stream, RECORD_COUNT - 1)] == list(
            range(1, RECORD_COUNT)
        )
        assert len(server.fake.read_sizes) > count

    serve(body)


def test_tails_are_limited_per_node_and_a_closed_one_makes_room() -> None:
    async def body(server: Serving) -> None:
        first, second = tail(server), tail(server)
        await server.fake.until(lambda: len(server.fake.waiting) == 2)
        refused = await refusal(tail(server).read())
        assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert isinstance(refused.error, errors.Overloaded)
        assert refused.error.limit == 2
        assert server.listener.tail_count == 2
        first.cancel()
        await server.fake.until(lambda: len(server.fake.waiting) == 1)
        third = tail(server)
        await server.fake.until(lambda: len(server.fake.waiting) == 2)
        server.fake.append(b"x")
        assert await read(second, 1) == await read(third, 1) == [(0, b"x")]

    serve(body, ServerLimits(tail_count_max=2))


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts what it is asked to run."""

    def __init__(self) -> None:
        super().__init__()
        self.callback_count = 0

    def call_soon(self, callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
        self.callback_count += 1
        return super().call_soon(callback, *args, **kwargs)

    def call_soon_threadsafe(self, callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
        self.callback_count += 1
        return super().call_soon_threadsafe(callback, *args, **kwargs)

    def call_at(self, when: float, callback: Any, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        self.callback_count += 1
        return super().call_at(when, callback, *args, **kwargs)


def test_a_thousand_idle_tails_cost_no_cpu() -> None:
    """While other calls are served, the tails ask nothing, wake nothing, and set no timer."""
    tail_count, call_count = 1000, 50

    async def callbacks_of_calls(server: Serving, loop: CountingLoop) -> int:
        ask = server.channel.unary_unary("/log.v1.Log/GetServers")
        await ask(b"")
        before = loop.callback_count
        for _ in range(call_count):
            await ask(b"")
        return loop.callback_count - before

    async def body() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        async with asyncio.timeout(60), serving() as server:
            without_tails = await callbacks_of_calls(server, loop)
            channels = [server.open_channel() for _ in range(tail_count // 100)]
            tails = [
                channel.unary_stream("/log.v1.Log/ConsumeStream")(b"")
                for channel in channels
                for _ in range(100)
            ]
            await server.fake.until(lambda: len(server.fake.waiting) == tail_count)
            asked = server.fake.asked.copy()
            with_tails = await callbacks_of_calls(server, loop)
            assert server.fake.asked == asked
            # Had each tail done anything at all, it would be a thousand more.
            assert with_tails < without_tails + tail_count / 2
            server.fake.append(b"wake up")
            for stream in tails:
                assert log_pb2.ConsumeResponse.FromString(await stream.read()).record == b"wake up"
            for channel in channels:
                await channel.close()

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(body())
