"""A consumer: every record once and in order, from whichever node still answers."""

from __future__ import annotations

import asyncio

import pytest

from distlog.client import Client, Consumer
from distlog.errors import AnswerInvalid, OffsetOutOfRange, TopicNotFound, Unreachable
from tests.client.fake_cluster import TIMESTAMP_MS, FakeCluster
from tests.client.running import run


def client_of(cluster: FakeCluster, timeout_s: float = 20.0) -> Client:
    return Client(cluster.addresses, retry_pause_s=0.001, timeout_s=timeout_s)


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


async def values_of(consumer: Consumer) -> list[bytes]:
    async with consumer:
        return [record.value async for record in consumer]


async def next_of(consumer: Consumer) -> bytes:
    return (await anext(consumer)).value


def test_it_reads_from_the_start_to_the_end() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill(numbered(50))
            assert await values_of(client.consume(end=50)) == numbered(50)
            assert await values_of(client.consume(start=48, end=50)) == [b"48", b"49"]
            assert await values_of(client.consume(start=50, end=50)) == []

    run(scenario())


def test_a_record_carries_everything_that_was_produced_with_it() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            await client.produce(b"")
            await client.produce(b"v", key=b"k", headers=(("h", b"1"),))
            async with client.consume() as consumer:
                plain, structured = await anext(consumer), await anext(consumer)
            assert plain == (0, b"", None, (), TIMESTAMP_MS)
            assert structured == (1, b"v", b"k", (("h", b"1"),), TIMESTAMP_MS)

    run(scenario())


def test_it_waits_for_what_is_not_there_yet() -> None:
    async def scenario() -> None:
        async with (
            FakeCluster() as cluster,
            client_of(cluster) as client,
            client.consume() as consumer,
        ):
            waiting = asyncio.create_task(next_of(consumer))
            await client.produce(b"a")
            assert await waiting == b"a"
            assert consumer.next_offset == 1

    run(scenario())


@pytest.mark.parametrize("count", [1, 2, 7])
def test_streams_that_keep_breaking_lose_and_repeat_nothing(count: int) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill(numbered(30))
            cluster.tail_count_max = count
            assert await values_of(client.consume(end=30)) == numbered(30)
            visited = [node.calls.count("ConsumeBatch") for node in cluster.nodes]
            assert all(visited)

    run(scenario())


def test_it_reads_from_the_preferred_node_and_goes_elsewhere_when_that_dies() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill(numbered(2))
            preferred = cluster.nodes[2]
            async with client.consume(prefer=preferred.address) as consumer:
                assert await next_of(consumer) == b"0"
                assert [node.calls.count("ConsumeBatch") for node in cluster.nodes] == [0, 0, 1]
                await preferred.stop()
                assert await next_of(consumer) == b"1"
                await client.produce(b"new")
                assert await next_of(consumer) == b"new"

    run(scenario())


def test_nodes_that_were_not_named_are_found_when_the_named_one_dies() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            client = Client(cluster.addresses[:1], retry_pause_s=0.001, timeout_s=20)
            cluster.fill(numbered(1))
            async with client, client.consume() as consumer:
                assert await next_of(consumer) == b"0"
                await cluster.nodes[0].stop()
                cluster.move_leader()
                cluster.fill([b"1"])
                assert await next_of(consumer) == b"1"

    run(scenario())


def test_a_node_that_keeps_silent_about_what_exists_is_left() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill(numbered(3))
            cluster.nodes[0].tail_stops_at = 1
            consumer = client.consume(end=3, record_timeout_s=0.05)
            assert await values_of(consumer) == numbered(3)

    run(scenario())


def test_when_every_node_keeps_silent_about_what_exists_it_gives_up() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster, timeout_s=0.2) as client:
            cluster.fill(numbered(3))
            for node in cluster.nodes:
                node.tail_stops_at = 1
            with pytest.raises(Unreachable, match="did not send offset 1 within"):
                await values_of(client.consume(end=3, record_timeout_s=0.02))

    run(scenario())


def test_a_reader_that_takes_its_time_is_not_taken_for_a_silent_node() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill(numbered(3))
            async with client.consume(end=3, record_timeout_s=0.01) as consumer:
                assert await next_of(consumer) == b"0"
                # Longer than the node may be silent.
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), 0.05)
                assert await next_of(consumer) == b"1"
            assert sum(node.calls.count("ConsumeBatch") for node in cluster.nodes) == 1

    run(scenario())


def test_cancelling_a_reader_is_no_silence_of_the_node() -> None:
    async def scenario() -> None:
        async with (
            FakeCluster() as cluster,
            client_of(cluster) as client,
            client.consume() as consumer,
        ):
            waiting = asyncio.create_task(next_of(consumer))
            await cluster.nodes[0].called("ConsumeBatch")
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    run(scenario())


@pytest.mark.parametrize(("error", "sent"), [(-1, 0), (1, 2)], ids=["repeated", "skipped"])
def test_a_node_that_sends_another_record_than_the_next_is_not_believed(
    error: int, sent: int
) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill(numbered(3))
            cluster.offset_error = error
            async with client.consume(start=1) as consumer:
                with pytest.raises(AnswerInvalid, match=f"sent offset {sent} where 1 comes next"):
                    await next_of(consumer)

    run(scenario())


def test_an_offset_that_does_not_exist_is_an_error_with_the_range() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill(numbered(3))
            with pytest.raises(OffsetOutOfRange) as caught:
                await values_of(client.consume(start=4))
            assert (caught.value.start_offset, caught.value.high_watermark) == (0, 3)
            cluster.topics["default"].start_offset = 2
            with pytest.raises(OffsetOutOfRange):
                await values_of(client.consume(start=1))

    run(scenario())


def test_an_unknown_topic_is_an_error() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            with pytest.raises(TopicNotFound):
                await values_of(client.consume("nowhere"))

    run(scenario())


def test_when_no_node_answers_it_gives_up_after_its_timeout() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster, timeout_s=0.1) as client:
            for node in cluster.nodes:
                await node.stop()
            with pytest.raises(Unreachable, match="refused"):
                await values_of(client.consume())

    run(scenario())


def test_a_closed_consumer_ends() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill(numbered(2))
            consumer = client.consume()
            assert await next_of(consumer) == b"0"
            consumer.close()
            assert await values_of(consumer) == []

    run(scenario())
