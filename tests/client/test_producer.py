"""A producer: whatever fails on the way, the log is what was produced, and what is not in it is said to be missing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlog.client import Client
from distlog.client.producer import OUT_OF_SEQUENCE_COUNT_MAX
from distlog.errors import (
    AnswerInvalid,
    DistlogError,
    OutcomeUnknown,
    OutOfSequence,
    ProducerFenced,
    ProducerStopped,
    ProducerUnknown,
    RecordTooLarge,
    TopicNotFound,
    Unreachable,
)
from tests.client.fake_cluster import RECORD_SIZE_MAX, FakeCluster
from tests.client.faults import Fault
from tests.client.producing import (
    client_of,
    numbered,
    open_producer,
    produce_all,
)
from tests.client.running import run

# --- Exactly once, in order ---

# A cluster that does not come to understand a sequence has lost something, and then the producer stops.
FAULTS = st.lists(st.sampled_from(list(Fault)), max_size=25).filter(
    lambda faults: faults.count(Fault.NOT_CAUGHT_UP) < OUT_OF_SEQUENCE_COUNT_MAX
)


@settings(max_examples=40)
@given(
    faults=FAULTS,
    values=st.lists(st.binary(max_size=3), min_size=1, max_size=60),
    batch_record_count=st.integers(1, 8),
    linger_s=st.sampled_from([0.0, 0.001]),
)
def test_under_any_failures_the_log_is_exactly_what_was_produced(
    faults: list[Fault], values: list[bytes], batch_record_count: int, linger_s: float
) -> None:
    async def scenario() -> None:
        async with FakeCluster(faults=faults) as cluster, client_of(cluster) as client:
            opened = await open_producer(
                client, batch_record_count=batch_record_count, linger_s=linger_s
            )
            async with opened as producer:
                acknowledgements = await produce_all(producer, values)
            assert cluster.log == values
            assert await asyncio.gather(*acknowledgements) == list(range(len(values)))
            assert producer.acknowledged_count == len(values)
            assert (producer.first_offset, producer.last_offset) == (0, len(values) - 1)
            # What was sent again was the same block, byte for byte.
            assert cluster.wrong_repeats == []

    run(scenario())


@settings(max_examples=10)
@given(faults=FAULTS)
def test_producers_that_share_a_topic_each_keep_their_order(faults: list[Fault]) -> None:
    async def scenario() -> None:
        async def produce(client: Client, name: bytes) -> None:
            async with await open_producer(client) as producer:
                await produce_all(producer, [name + value for value in numbered(30)])

        async with FakeCluster(faults=faults) as cluster, client_of(cluster) as client:
            await asyncio.gather(
                produce(client, b"a"), produce(client, b"b"), produce(client, b"c")
            )
            for name in (b"a", b"b", b"c"):
                own = [value for value in cluster.log if value.startswith(name)]
                assert own == [name + value for value in numbered(30)]

    run(scenario())


@pytest.mark.parametrize(
    "fault",
    [Fault.BREAK_AFTER, Fault.MUTE, Fault.MOVE_AND_BREAK_AFTER],
    ids=lambda fault: fault.name,
)
def test_the_property_would_notice_a_cluster_that_does_not_recognise_repeats(fault: Fault) -> None:
    async def scenario() -> None:
        faulty = FakeCluster(faults=[Fault.NONE, fault], remembers=False)
        async with faulty as cluster, client_of(cluster) as client:
            async with await open_producer(client, batch_record_count=1) as producer:
                await produce_all(producer, numbered(20))
            assert cluster.log != numbered(20)
            assert set(cluster.log) == set(numbered(20))

    run(scenario())


def test_a_leader_that_dies_is_replaced_without_the_caller_noticing() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            async with await open_producer(client) as producer:
                for _ in range(3):
                    await produce_all(producer, numbered(50))
                    await producer.flush()
                    assert cluster.leader is not None
                    dying = cluster.nodes[cluster.leader]
                    cluster.move_leader()
                    await dying.stop()
                    await dying.start()
            assert cluster.log == numbered(50) * 3

    run(scenario())


def test_keys_headers_and_the_topic_arrive() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill([], topic="t")
            async with await client.open_producer("t") as producer:
                await producer.produce(b"v", key=b"", headers=(("h", b"1"), ("h", b"2")))
            record = await client.read(0, topic="t")
            assert (record.value, record.key, record.headers) == (
                b"v",
                b"",
                (("h", b"1"), ("h", b"2")),
            )
            assert cluster.log == []

    run(scenario())


# --- What stops a producer ---


def outcome_of(acknowledgement: asyncio.Future[int]) -> type[DistlogError] | int:
    error = acknowledgement.exception()
    assert error is None or isinstance(error, DistlogError)
    return acknowledgement.result() if error is None else type(error)


def test_a_refused_record_stops_the_producer_before_anything_behind_it_is_written() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            producer = await open_producer(client)
            values = [b"a", b"b", bytes(RECORD_SIZE_MAX + 1), b"c", b"d"]
            acknowledgements = await produce_all(producer, values)
            with pytest.raises(RecordTooLarge) as caught:
                await producer.close()
            assert (caught.value.size, caught.value.size_max) == (
                RECORD_SIZE_MAX + 1,
                RECORD_SIZE_MAX,
            )
            assert [outcome_of(each) for each in acknowledgements] == [
                0,
                1,
                RecordTooLarge,
                ProducerStopped,
                ProducerStopped,
            ]
            assert cluster.log == [b"a", b"b"]
            assert producer.acknowledged_count == 2
            with pytest.raises(ProducerStopped):
                await producer.produce(b"e")

    run(scenario())


def test_an_expired_producer_is_an_error_and_never_a_silent_append() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            producer = await open_producer(client)
            await produce_all(producer, [b"a"])
            await producer.flush()
            cluster.expire(producer.producer_id)
            (acknowledgement,) = await produce_all(producer, [b"b"])
            with pytest.raises(ProducerUnknown):
                await producer.flush()
            assert outcome_of(acknowledgement) is ProducerUnknown
            assert cluster.log == [b"a"]

    run(scenario())


def test_a_repeat_that_meets_an_expired_producer_has_an_unknown_outcome() -> None:
    async def scenario() -> None:
        async with (
            FakeCluster(faults=[Fault.BREAK_AFTER]) as cluster,
            client_of(cluster) as client,
        ):
            producer = await open_producer(client)
            cluster.expire_after_next_append = True
            (acknowledgement,) = await produce_all(producer, [b"a"])
            with pytest.raises(ProducerUnknown):
                await producer.flush()
            assert outcome_of(acknowledgement) is OutcomeUnknown

    run(scenario())


def test_a_newer_instance_stops_the_older_one() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            old = await open_producer(client)
            await (await old.produce(b"old"))
            new = await client.open_producer(producer_id=old.producer_id)
            assert (new.producer_id, new.epoch) == (old.producer_id, old.epoch + 1)
            await (await new.produce(b"new"))
            await old.produce(b"late")
            with pytest.raises(ProducerFenced):
                await old.close()
            await new.close()
            assert cluster.log == [b"old", b"new"]

    run(scenario())


def test_acknowledged_records_that_vanished_are_reported() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            producer = await open_producer(client, batch_record_count=1)
            await produce_all(producer, numbered(5))
            await producer.flush()
            cluster.lose_last(2)
            await producer.produce(b"5")
            with pytest.raises(OutOfSequence) as caught:
                await producer.close()
            assert (caught.value.expected, caught.value.actual) == (3, 5)
            assert cluster.log == numbered(3)

    run(scenario())


def test_an_offset_that_goes_back_is_reported() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            producer = await open_producer(client)
            await (await producer.produce(b"a"))
            cluster.offset_error = -1
            await producer.produce(b"b")
            with pytest.raises(AnswerInvalid, match="offset 0 that was written after offset 0"):
                await producer.close()

    run(scenario())


def test_an_unknown_topic_is_refused() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            producer = await client.open_producer("nowhere")
            await producer.produce(b"a")
            with pytest.raises(TopicNotFound):
                await producer.close()

    run(scenario())


def test_a_producer_that_gives_up_says_which_records_may_be_there() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            producer = await open_producer(client, delivery_timeout_s=0.2, batch_record_count=1)
            await produce_all(producer, numbered(3))
            await producer.flush()
            cluster.gate.clear()
            acknowledgements = await produce_all(producer, numbered(20))
            with pytest.raises(OutcomeUnknown):
                await producer.close()
            outcomes = [outcome_of(each) for each in acknowledgements]
            # What was in flight when the answers stayed away, and what never left.
            assert outcomes == [OutcomeUnknown] * 16 + [ProducerStopped] * 4
            assert producer.acknowledged_count == 3
            cluster.gate.set()

    run(scenario())


def test_when_no_node_answers_nothing_new_is_said_to_be_written() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            producer = await open_producer(client, delivery_timeout_s=0.1)
            for node in cluster.nodes:
                await node.stop()
            acknowledgements = await produce_all(producer, numbered(2))
            acknowledgements.append(await producer.produce(b"behind", key=b"another block"))
            with pytest.raises(Unreachable, match="refused"):
                await producer.close()
            # Those of the first block share its fate.
            assert [outcome_of(each) for each in acknowledgements] == [
                Unreachable,
                Unreachable,
                ProducerStopped,
            ]

    run(scenario())


# --- The ends of its life ---


def test_an_aborted_producer_leaves_nobody_waiting() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.gate.clear()
            producer = await client.open_producer()
            acknowledgements = await produce_all(producer, numbered(2))
            flushing = asyncio.create_task(producer.flush())
            await asyncio.sleep(0)
            await producer.abort()
            with pytest.raises(ProducerStopped):
                await flushing
            assert all(each.done() for each in acknowledgements)
            with pytest.raises(ProducerStopped):
                await producer.produce(b"x")
            cluster.gate.set()

    run(scenario())


def test_closing_the_client_stops_its_producers() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.gate.clear()
            async with client_of(cluster) as client:
                producer = await client.open_producer()
                (acknowledgement,) = await produce_all(producer, [b"a"])
            assert isinstance(acknowledgement.exception(), DistlogError)
            cluster.gate.set()

    run(scenario())


def test_an_error_in_the_body_does_not_wait_for_acknowledgements() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.gate.clear()
            producer = await client.open_producer()

            async def produce_and_fail() -> None:
                async with producer:
                    await producer.produce(b"a")
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await produce_and_fail()
            assert producer.acknowledged_count == 0
            cluster.gate.set()

    run(scenario())


def test_a_caller_that_no_longer_wants_to_know_does_not_stop_the_record() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            async with await client.open_producer() as producer:
                (await producer.produce(b"a")).cancel()
                await producer.produce(b"b")
            assert cluster.log == [b"a", b"b"]

    run(scenario())


def test_a_closed_producer_takes_nothing() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            producer = await client.open_producer()
            await producer.close()
            with pytest.raises(ProducerStopped, match="it is closed"):
                await producer.produce(b"a")
            assert producer.failure is None

    run(scenario())
