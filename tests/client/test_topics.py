"""Topics through the client: made, changed and deleted once, whatever happens to the calls; and offsets of times."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlog.client import Client, TimePosition
from distlog.errors import NoLeader, OffsetOutOfRange, OutcomeUnknown, TopicExists, TopicNotFound
from tests.client.fake_cluster import TIMESTAMP_MS, FakeCluster
from tests.client.faults import Fault
from tests.client.running import run

# Faults that end an attempt by themselves; the others are a producer's.
ENDING = [fault for fault in Fault if fault not in (Fault.MUTE, Fault.NOT_CAUGHT_UP)]
FAULTS = st.lists(st.sampled_from(ENDING), max_size=8)


def client_of(cluster: FakeCluster, timeout_s: float = 20.0) -> Client:
    return Client(cluster.addresses, retry_pause_s=0.001, timeout_s=timeout_s)


def test_a_topic_is_created_described_configured_trimmed_and_deleted() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.move_leader()
            topic_id = await client.create_topic(
                "orders", segment_size_max=1 << 20, retention_age_ms=5
            )
            cluster.fill([b"a", b"b", b"c"], "orders")
            await client.configure_topic("orders", retention_size=7)
            assert await client.trim_topic("orders", start_offset=2) == 2
            (default, orders) = await client.list_topics()
            assert default.name == "default"
            assert await client.describe_topic("orders") == orders
            assert (orders.name, orders.topic_id) == ("orders", topic_id)
            assert (orders.start_offset, orders.high_watermark, orders.size) == (2, 3, 27)
            assert (orders.segment_size_max, orders.segment_record_count_max) == (1 << 20, 1 << 20)
            assert (orders.retention_size, orders.retention_age_ms) == (7, 5)
            await client.configure_topic("orders", retention_age_ms=0)
            assert (await client.describe_topic("orders")).retention_age_ms == 0
            await client.delete_topic("orders")
            assert [topic.name for topic in await client.list_topics()] == ["default"]

    run(scenario())


def test_what_is_refused_is_raised_as_it_was_said() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            with pytest.raises(TopicExists):
                await client.create_topic("default")
            with pytest.raises(TopicNotFound):
                await client.configure_topic("orders", retention_size=1)
            with pytest.raises(TopicNotFound):
                await client.delete_topic("orders")
            with pytest.raises(OffsetOutOfRange) as caught:
                await client.trim_topic(start_offset=1)
            assert (caught.value.offset, caught.value.high_watermark) == (1, 0)

    run(scenario())


@settings(max_examples=20)
@given(faults=FAULTS)
def test_under_any_failures_a_configuration_and_a_trim_are_what_was_asked_for(
    faults: list[Fault],
) -> None:
    async def scenario() -> None:
        async with FakeCluster(faults=faults) as cluster, client_of(cluster) as client:
            cluster.fill([b"a", b"b", b"c"])
            await client.configure_topic(retention_size=9)
            assert await client.trim_topic(start_offset=2) == 2
            assert cluster.topics["default"].created.retention_size == 9
            assert cluster.topics["default"].start_offset == 2

    run(scenario())


@settings(max_examples=20)
@given(faults=FAULTS)
def test_under_any_failures_a_deletion_ends_well_and_meets_no_other_topic(
    faults: list[Fault],
) -> None:
    async def scenario() -> None:
        async with FakeCluster(faults=faults) as cluster, client_of(cluster) as client:
            cluster.fill([b"a"], "orders")
            cluster.topics["orders"].topic_id = 7
            await client.delete_topic("orders")
            assert list(cluster.topics) == ["default"]

    run(scenario())


def test_a_repeated_deletion_leaves_a_topic_alone_that_was_made_meanwhile() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill([b"a"], "orders")
            cluster.topics["orders"].topic_id = 7
            deleted = cluster.delete_topic

            async def delete_and_make_again(request: Any) -> Any:
                answer = await deleted(request)
                cluster.fill([b"new"], "orders")
                cluster.topics["orders"].topic_id = 8
                return answer

            cluster.delete_topic = delete_and_make_again  # type: ignore[method-assign]
            cluster.set_faults([Fault.BREAK_AFTER])
            await client.delete_topic("orders")
            assert cluster.topics["orders"].values == [b"new"]

    run(scenario())


@settings(max_examples=20)
@given(faults=FAULTS)
def test_a_creation_says_whether_the_topic_is_there_or_that_nobody_knows(
    faults: list[Fault],
) -> None:
    async def scenario() -> None:
        async with FakeCluster(faults=faults) as cluster, client_of(cluster) as client:
            try:
                topic_id = await client.create_topic("orders")
            except OutcomeUnknown:
                assert "orders" in cluster.topics
            else:
                assert cluster.topics["orders"].topic_id == topic_id

    run(scenario())


def test_the_first_offset_of_a_time_is_found_on_any_node_and_its_absence_needs_a_leader() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster, timeout_s=0.2) as client:
            cluster.fill([b"a", b"b", b"c"])
            cluster.interval_ms = 10
            assert await client.offset_for_time(0) == TimePosition(0, True)
            assert await client.offset_for_time(TIMESTAMP_MS + 11) == TimePosition(2, True)
            assert await client.offset_for_time(TIMESTAMP_MS + 21) == TimePosition(3, False)
            cluster.leader, cluster.election_rounds = None, 1000
            prefer = cluster.addresses[2]
            found = await client.offset_for_time(TIMESTAMP_MS + 1, prefer=prefer)
            assert found == TimePosition(1, True)
            assert cluster.nodes[2].calls.count("OffsetForTime") == 1
            with pytest.raises(NoLeader):
                await client.offset_for_time(TIMESTAMP_MS + 21)

    run(scenario())
