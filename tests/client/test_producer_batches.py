"""A producer's memory and its batches: who waits, what shares a block, and what is refused as a whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from distlog.client import NewRecord
from distlog.errors import (
    AnswerInvalid,
    InvalidRequest,
    Overloaded,
    ProducerStopped,
    RecordTooLarge,
)
from tests.client.fake_cluster import RECORD_SIZE_MAX, FakeCluster
from tests.client.producing import (
    client_of,
    numbered,
    open_producer,
    produce_all,
)
from tests.client.running import run

# --- Memory ---


def test_a_producer_lets_its_caller_wait_while_its_memory_is_full() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.gate.clear()
            values = [bytes(1000)] * 9
            # A record counts with something for what it costs beside its bytes.
            producer = await client.open_producer(memory_size=9 * 1100)
            await produce_all(producer, values)
            waiting = asyncio.create_task(producer.produce(b"last"))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not waiting.done()
            with pytest.raises(Overloaded, match="at its limit of 9900"):
                producer.produce_nowait(b"not taken")
            cluster.gate.set()
            assert await (await waiting) == 9
            await producer.close()
            assert cluster.log == [*values, b"last"]

    run(scenario())


def test_a_producer_that_stops_lets_go_who_waits_for_room() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.gate.clear()
            producer = await open_producer(client, delivery_timeout_s=0.1, memory_size=1)
            await producer.produce(b"a")
            with pytest.raises(ProducerStopped):
                await producer.produce(b"b")
            with pytest.raises(ProducerStopped):
                producer.produce_nowait(b"c")
            cluster.gate.set()

    run(scenario())


# --- Batches ---


def test_a_lone_record_is_sent_at_once_and_a_burst_shares_blocks() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            async with await open_producer(client, linger_s=0.0) as producer:
                assert await (await producer.produce(b"alone")) == 0
                offsets = [producer.produce_nowait(value) for value in numbered(500)]
                assert await asyncio.gather(*offsets) == list(range(1, 501))
            assert cluster.log == [b"alone", *numbered(500)]
            assert cluster.block_sizes == [1, 500]

    run(scenario())


def test_records_that_linger_wait_for_others() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            # Longer than this test may take: only what ends the waiting has anything sent.
            producer = await open_producer(client, linger_s=1000.0, batch_record_count=3)
            offsets = await produce_all(producer, numbered(4))
            assert await asyncio.gather(*offsets[:3]) == [0, 1, 2]
            assert not offsets[3].done()
            await producer.flush()
            assert offsets[3].result() == 3
            await producer.produce(b"4")
            await producer.close()
            assert cluster.block_sizes == [3, 1, 1]
            assert cluster.log == numbered(5)

    run(scenario())


def test_a_record_lingers_no_longer_than_it_may() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            async with await open_producer(client, linger_s=0.005) as producer:
                for value in numbered(3):
                    assert await (await producer.produce(value)) == int(value)
            assert cluster.block_sizes == [1, 1, 1]

    run(scenario())


def test_full_memory_ends_the_waiting_for_others() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            producer = await open_producer(client, linger_s=1000.0, memory_size=1)
            await producer.produce(b"0")
            assert await producer.produce(b"1") is not None
            await producer.close()
            assert cluster.log == numbered(2)

    run(scenario())


def test_a_block_is_cut_where_records_with_keys_begin_and_end() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            async with await open_producer(client) as producer:
                producer.produce_nowait(b"0")
                producer.produce_nowait(b"1")
                producer.produce_nowait(b"2", key=b"k")
                producer.produce_nowait(b"3", headers=(("h", b"v"),))
                producer.produce_nowait(b"4")
            assert cluster.block_sizes == [2, 2, 1]
            async with client.consume(end=5) as consumer:
                found = [(each.value, each.key, each.headers) async for each in consumer]
            assert found == [
                (b"0", None, ()),
                (b"1", None, ()),
                (b"2", b"k", ()),
                (b"3", None, (("h", b"v"),)),
                (b"4", None, ()),
            ]

    run(scenario())


def test_a_batch_is_written_whole_and_is_told_its_offsets() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            async with await open_producer(client, batch_record_count=2) as producer:
                first = producer.produce_nowait(b"0")
                batch = await producer.produce_batch(numbered(6)[1:])
                keyed = await producer.produce_batch([b"6", NewRecord(b"7", b"k")])
                last = producer.produce_nowait(b"8")
            assert (first.result(), last.result()) == (0, 8)
            assert (batch.result(), keyed.result()) == (range(1, 6), range(6, 8))
            assert cluster.log == numbered(9)
            assert cluster.block_sizes == [1, 5, 2, 1]
            assert cluster.topics["default"].records[7].key == b"k"

    run(scenario())


@pytest.mark.parametrize("records", [[], [bytes(2 << 20)] * 2], ids=["none", "too large"])
def test_a_batch_that_no_cluster_takes_is_refused_at_once(records: list[bytes]) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            async with await open_producer(client) as producer:
                with pytest.raises(InvalidRequest, match="a batch is one record or more"):
                    await producer.produce_batch(records)
                await producer.produce(b"0")
            assert cluster.log == [b"0"]

    run(scenario())


def test_a_refused_batch_fails_as_a_whole() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            producer = await open_producer(client)
            refused = await producer.produce_batch([b"0", bytes(RECORD_SIZE_MAX + 1)])
            behind = await producer.produce_batch([b"1"])
            with pytest.raises(RecordTooLarge):
                await producer.close()
            assert isinstance(refused.exception(), RecordTooLarge)
            assert isinstance(behind.exception(), ProducerStopped)
            assert cluster.log == []

    run(scenario())


def test_many_records_need_no_future_each() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            producer = await open_producer(client, memory_size=50_000)
            await producer.produce_many(numbered(3000))
            await producer.produce_many(iter([b"3000"]))
            await producer.close()
            assert cluster.log == numbered(3001)
            assert (producer.acknowledged_count, producer.last_offset) == (3001, 3000)
            with pytest.raises(ProducerStopped):
                await producer.produce_many([b"x"])

    run(scenario())


def test_who_produces_many_records_gives_way_for_each_block() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            turns = 0

            async def count_turns() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            async with await open_producer(client, batch_record_count=10) as producer:
                counting = asyncio.create_task(count_turns())
                await producer.produce_many(numbered(100))
                many, turns = turns, 0
                for value in numbered(100):
                    await producer.produce(value)
                each = turns
                counting.cancel()
            # Ten blocks; the last one is followed by nothing, and the task takes a turn to begin.
            assert 8 <= many <= 20
            assert 8 <= each <= 20
            assert cluster.log == numbered(100) * 2

    run(scenario())


def test_many_records_of_which_one_is_refused_are_written_up_to_it() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            producer = await open_producer(client)
            await producer.produce_many([b"0", b"1", bytes(RECORD_SIZE_MAX + 1), b"3"])
            with pytest.raises(RecordTooLarge):
                await producer.close()
            assert cluster.log == numbered(2)
            assert producer.acknowledged_count == 2

    run(scenario())


@pytest.mark.parametrize("value", ["text", 5, None])
def test_a_value_that_is_no_bytes_is_refused_before_it_is_taken(value: Any) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            async with await open_producer(client) as producer:
                with pytest.raises(TypeError):
                    await producer.produce(value)
                with pytest.raises(TypeError):
                    producer.produce_nowait(value, key=b"k")
                with pytest.raises(TypeError):
                    await producer.produce_many([value])
                with pytest.raises(TypeError):
                    await producer.produce_batch([b"0", value])
                changing = bytearray(b"0")
                await producer.produce(changing)
                changing[:] = b"x"
            assert cluster.log == [b"0"]

    run(scenario())


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": (4 << 20) + 1},
        {"batch_record_count": 0},
        {"memory_size": 0},
    ],
    ids=str,
)
def test_a_limit_that_cannot_be_kept_is_refused(options: dict[str, int]) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            with pytest.raises(InvalidRequest, match=next(iter(options))):
                await open_producer(client, **options)

    run(scenario())


def test_an_answer_about_another_number_of_records_is_reported() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.record_count_error = 1
            producer = await open_producer(client)
            await produce_all(producer, numbered(2))
            with pytest.raises(AnswerInvalid, match="took 3 records of a batch that has 2"):
                await producer.close()

    run(scenario())
