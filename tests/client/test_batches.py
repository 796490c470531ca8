"""Whole batches: what a consumer hands out untouched, checks, skips and reads ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.api.log.v1 import log_pb2
from distlog.block import ATTRIBUTE_STRUCTURED, PREFIX, Block, crc32c
from distlog.client import Batch, Client, Consumer
from distlog.client.batches import batch_of
from distlog.errors import AnswerInvalid, Unreachable
from tests.client.fake_cluster import FakeCluster
from tests.client.running import run


def client_of(cluster: FakeCluster) -> Client:
    return Client(cluster.addresses, retry_pause_s=0.001, timeout_s=20.0)


def answer(
    records: Sequence[bytes], base_offset: int = 0, attributes: int = 0, record_count: int = 0
) -> log_pb2.ConsumeBatchResponse:
    block = Block.from_records(records, attributes)
    return log_pb2.ConsumeBatchResponse(
        base_offset=base_offset,
        record_count=record_count or len(records),
        attributes=attributes,
        timestamp_ms=7,
        data_crc32c=block.data_crc32c,
        frames=bytes(block.frames),
    )


def batch(message: log_pb2.ConsumeBatchResponse, start: int = 0, end: int | None = None) -> Batch:
    return batch_of(message.SerializeToString(), "n1", start, end)


async def batches_of(consumer: Consumer) -> list[Batch]:
    async with consumer, aclosing(consumer.batches()) as batches:
        return [each async for each in batches]


# --- One batch ---


@given(
    records=st.lists(st.binary(max_size=9), min_size=1, max_size=20)
    | st.lists(st.binary(min_size=4, max_size=4), min_size=1, max_size=20),
    base_offset=st.integers(0, 1000),
    data=st.data(),
)
def test_the_wanted_records_are_those_that_were_asked_for(
    records: list[bytes], base_offset: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(base_offset, base_offset + len(records) - 1))
    end = data.draw(st.none() | st.integers(start + 1, base_offset + len(records) + 3))
    found = batch(answer(records, base_offset), start, end)
    wanted = records[start - base_offset : None if end is None else end - base_offset]
    assert found.wanted == range(start, start + len(wanted))
    assert found.values() == wanted
    assert [bytes(view) for view in found.views()] == wanted
    assert list(found.records()) == [
        (offset, value, None, (), 7) for offset, value in enumerate(wanted, start)
    ]
    assert found.frames == Block.from_records(records).frames


def test_keys_and_headers_are_told_and_what_is_no_record_is_a_value() -> None:
    record = log_pb2.Record(key=b"k", value=b"v", headers=[log_pb2.Header(name="h", value=b"1")])
    message = answer([record.SerializeToString(), b"\xff\xff"], 5, ATTRIBUTE_STRUCTURED)
    found = batch(message, 5)
    assert list(found.records()) == [
        (5, b"v", b"k", (("h", b"1"),), 7),
        (6, b"\xff\xff", None, (), 7),
    ]
    assert found.values() == [b"v", b"\xff\xff"]


def test_frames_are_not_copied() -> None:
    data = answer([bytes(10_000)]).SerializeToString()
    assert batch_of(data, "n1", 0, None).frames.obj is data


@pytest.mark.parametrize(
    ("base_offset", "count"), [(4, 2), (0, 3)], ids=["behind the next", "before the next"]
)
def test_another_batch_than_the_next_is_not_believed(base_offset: int, count: int) -> None:
    with pytest.raises(AnswerInvalid, match=f"sent offset {base_offset} where 3 comes next"):
        batch(answer([b"x"] * count, base_offset), 3)


def test_bytes_that_changed_on_their_way_are_asked_for_again() -> None:
    message = answer([b"abc"])
    message.frames = message.frames[:-1] + b"x"
    with pytest.raises(Unreachable, match="the batch of offsets 0 to 0 was changed"):
        batch(message)


def test_bytes_that_are_no_message_are_not_believed() -> None:
    for data in (b"\xff", b"\x31\x00", answer([b"abc"]).SerializeToString()[:-1]):
        with pytest.raises(AnswerInvalid):
            batch_of(data, "n1", 0, None)


MALFORMED = {
    "fewer records": (b"".join((PREFIX.pack(1), b"a", PREFIX.pack(2), b"bc")), 3),
    "more records": (b"".join((PREFIX.pack(1), b"a", PREFIX.pack(2), b"bc")), 1),
    "beyond the end": (b"".join((PREFIX.pack(1), b"a", PREFIX.pack(3), b"bc")), 2),
    "a torn prefix": (PREFIX.pack(1) + b"a" + PREFIX.pack(2)[:5], 2),
    "far beyond the end": (PREFIX.pack(2**63) + b"a", 1),
}


@pytest.mark.parametrize(("frames", "count"), MALFORMED.values(), ids=MALFORMED.keys())
def test_frames_that_are_no_such_records_are_not_believed(frames: bytes, count: int) -> None:
    message = answer([b"x"], record_count=count)
    message.frames, message.data_crc32c = frames, crc32c(frames)
    found = batch(message)
    with pytest.raises(AnswerInvalid, match="frames that are not"):
        found.values()
    with pytest.raises(AnswerInvalid, match="frames that are not"):
        found.records()


# --- A consumer's batches ---


def test_batches_come_whole_and_say_which_records_are_wanted() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            async with await client.open_producer() as producer:
                for values in ([b"0", b"1", b"2"], [b"3"], [b"4", b"5"]):
                    await producer.produce_batch(values)
            found = await batches_of(client.consume(start=1, end=5))
            assert [(each.base_offset, each.record_count) for each in found] == [
                (0, 3),
                (3, 1),
                (4, 2),
            ]
            assert [each.values() for each in found] == [[b"1", b"2"], [b"3"], [b"4"]]

    run(scenario())


def test_batches_go_on_where_the_iteration_over_records_is_and_back() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            async with await client.open_producer() as producer:
                await producer.produce_batch([b"0", b"1", b"2"])
                await producer.produce_batch([b"3", b"4"])
            async with client.consume(end=5) as consumer:
                assert (await anext(consumer)).value == b"0"
                assert consumer.next_offset == 1
                async with aclosing(consumer.batches()) as batches:
                    assert (await anext(batches)).values() == [b"1", b"2"]
                assert consumer.next_offset == 3
                assert [record.value async for record in consumer] == [b"3", b"4"]
                assert consumer.next_offset == 5

    run(scenario())


def test_a_damaged_batch_is_read_again_from_another_node() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill([b"0", b"1"])
            cluster.nodes[0].damage_count = 1
            async with client.consume(end=2) as consumer:
                assert [record.value async for record in consumer] == [b"0", b"1"]
            assert [node.calls.count("ConsumeBatch") for node in cluster.nodes] == [1, 1, 0]

    run(scenario())


@pytest.mark.parametrize("prefetch_size", [1, 4 << 20])
def test_reading_ahead_changes_nothing_but_when_it_is_read(prefetch_size: int) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            values = [b"%d" % number for number in range(50)]
            cluster.fill(values)
            consumer = client.consume(end=50, prefetch_size=prefetch_size)
            async with consumer:
                assert (await anext(consumer)).value == b"0"
                # Let it read ahead whatever it would.
                for _ in range(20):
                    await client.servers()
                assert [record.value async for record in consumer] == values[1:]

    run(scenario())


def test_a_consumer_holds_no_more_than_it_may_read_ahead() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            # More than gRPC and the sockets hold for a reader that does not read.
            cluster.fill([bytes(64 << 10)] * 600)
            async with client.consume(prefetch_size=256 << 10) as consumer:
                await anext(consumer)
                sent = -1
                while sent != cluster.sent_count:
                    sent = cluster.sent_count
                    for _ in range(20):
                        await client.servers()
                assert sent < 300
                for offset in range(1, 600):
                    assert (await anext(consumer)).offset == offset

    run(scenario())


def test_a_consumer_that_has_reached_its_end_leaves_the_node() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill([b"0"])
            consumer = client.consume(end=1)
            assert [record.value async for record in consumer] == [b"0"]
            await client.servers()
            names = [task.get_name() for task in asyncio.all_tasks() if not task.done()]
            assert not any(name.startswith("consume ") for name in names)

    run(scenario())
