"""Single records through `Client.produce`: each once, and an error that says whether it is there."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlog.client import Client
from distlog.errors import (
    OutcomeUnknown,
    RecordTooLarge,
    StorageFull,
    TopicNotFound,
    Unreachable,
)
from tests.client.fake_cluster import RECORD_SIZE_MAX, FakeCluster
from tests.client.faults import Fault
from tests.client.running import run

# Faults that end an attempt by themselves; the others need a deadline.
ENDING = [fault for fault in Fault if fault not in (Fault.MUTE, Fault.NOT_CAUGHT_UP)]


def client_of(cluster: FakeCluster, timeout_s: float = 20.0) -> Client:
    return Client(cluster.addresses, retry_pause_s=0.001, timeout_s=timeout_s)


@settings(max_examples=15)
@given(faults=st.lists(st.sampled_from(ENDING), max_size=20))
def test_under_any_failures_each_record_is_there_once_and_in_the_order_of_the_calls(
    faults: list[Fault],
) -> None:
    async def scenario() -> None:
        async with FakeCluster(faults=faults) as cluster, client_of(cluster) as client:
            values = [b"%d" % number for number in range(10)]
            offsets = [await client.produce(value) for value in values]
            assert cluster.log == values
            assert offsets == list(range(10))

    run(scenario())


@settings(max_examples=10)
@given(faults=st.lists(st.sampled_from(ENDING), max_size=20))
def test_concurrent_calls_are_each_there_once(faults: list[Fault]) -> None:
    async def scenario() -> None:
        async with FakeCluster(faults=faults) as cluster, client_of(cluster) as client:
            values = [b"%d" % number for number in range(40)]
            offsets = await asyncio.gather(*(client.produce(value) for value in values))
            assert [cluster.log[offset] for offset in offsets] == values
            assert Counter(cluster.log) == Counter(values)

    run(scenario())


def test_the_property_would_notice_a_cluster_that_does_not_recognise_repeats() -> None:
    async def scenario() -> None:
        faulty = FakeCluster(faults=[Fault.BREAK_AFTER], remembers=False)
        async with faulty as cluster, client_of(cluster) as client:
            await client.produce(b"a")
            assert cluster.log == [b"a", b"a"]

    run(scenario())


def test_an_identity_is_used_again_for_the_next_record() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            for _ in range(5):
                await client.produce(b"a")
            assert cluster.nodes[0].calls.count("OpenProducer") == 1
            assert cluster.nodes[0].calls.count("Produce") == 5

    run(scenario())


def test_the_two_names_of_the_default_topic_share_a_sequence() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            await client.produce(b"a")
            await client.produce(b"b", topic="default")
            await client.produce(b"c")
            assert cluster.log == [b"a", b"b", b"c"]

    run(scenario())


@pytest.mark.parametrize(
    ("value", "topic", "error"),
    [(bytes(RECORD_SIZE_MAX + 1), "", RecordTooLarge), (b"", "nowhere", TopicNotFound)],
    ids=["size", "topic"],
)
def test_a_refused_record_leaves_no_trace(value: bytes, topic: str, error: type[Exception]) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            with pytest.raises(error):
                await client.produce(value, topic=topic)
            assert await client.produce(b"next") == 0
            assert cluster.log == [b"next"]
            assert cluster.nodes[0].calls.count("OpenProducer") == 1

    run(scenario())


def test_an_identity_that_expired_while_it_rested_is_replaced() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            await client.produce(b"a")
            cluster.expire(1 << 16)
            await client.produce(b"b")
            assert cluster.log == [b"a", b"b"]

    run(scenario())


def test_at_the_deadline_the_outcome_of_what_was_sent_is_unknown() -> None:
    async def scenario() -> None:
        faulty = FakeCluster(faults=[Fault.NONE, Fault.MUTE])
        async with faulty as cluster, client_of(cluster, timeout_s=0.2) as client:
            await client.produce(b"a")
            with pytest.raises(OutcomeUnknown, match="deadline exceeded"):
                await client.produce(b"b")
            # Its identity wrote it, which the client cannot know; it is not used again.
            await client.produce(b"c")
            assert cluster.log == [b"a", b"b", b"c"]
            assert cluster.nodes[0].calls.count("OpenProducer") == 2

    run(scenario())


def test_a_later_refusal_does_not_make_an_unknown_outcome_known() -> None:
    async def scenario() -> None:
        faulty = FakeCluster(faults=[Fault.ELECTION_AFTER])
        async with faulty as cluster, client_of(cluster, timeout_s=0.2) as client:
            cluster.election_length = 1_000_000
            # Every attempt but the first is told that there is no leader and that it wrote nothing.
            with pytest.raises(OutcomeUnknown):
                await client.produce(b"a")
            assert cluster.log == [b"a"]

    run(scenario())


def test_a_refusal_is_not_made_unknown_by_an_attempt_that_has_no_time_left_to_be_answered() -> None:
    async def scenario() -> None:
        # At 0, 0.4, 1.2 and 2.8 s, were there no limit: the last one would have a fifteenth of the time.
        faulty = FakeCluster(faults=[*[Fault.FULL] * 3, Fault.MUTE])
        async with (
            faulty as cluster,
            Client(cluster.addresses, retry_pause_s=0.4, timeout_s=3.0) as client,
        ):
            with pytest.raises(StorageFull):
                await client.produce(b"a")
            assert cluster.log == []

    run(scenario())


def test_when_no_node_can_be_reached_nothing_is_written() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster, timeout_s=0.1) as client:
            for node in cluster.nodes:
                await node.stop()
            with pytest.raises(Unreachable, match="refused"):
                await client.produce(b"a")

    run(scenario())


def test_a_message_over_the_limit_of_the_transport_is_a_record_too_large() -> None:
    async def scenario() -> None:
        async with FakeCluster(message_size_max=4096) as cluster, client_of(cluster) as client:
            with pytest.raises(RecordTooLarge) as caught:
                await client.produce(bytes(10_000))
            assert caught.value.size_max == 4096

    run(scenario())
