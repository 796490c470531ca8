"""The calls that look after topics, and OffsetForTime: what they ask the log for, and what they refuse themselves."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from distlog import errors
from distlog.api.log.v1 import log_pb2
from distlog.consensus.views import KEEP_ALL, Retention, SegmentLimits
from distlog.server.limits import ServerLimits
from tests.server.fake_replicated_log import TIMESTAMP_MS
from tests.server.serving import Serving, refusal, serve

SHORT_S = 0.05


def test_a_topic_is_created_with_what_is_named_and_the_defaults_for_the_rest() -> None:
    async def body(server: Serving) -> None:
        created = await server.cluster.CreateTopic(log_pb2.CreateTopicRequest(topic="a"))
        assert created.topic_id == 2
        assert server.fake.topics["a"].limits == SegmentLimits(64 << 20, 1 << 20)
        assert server.fake.topics["a"].retention == KEEP_ALL
        request = log_pb2.CreateTopicRequest(
            topic="b",
            segment_size_max=4096,
            segment_record_count_max=16,
            retention_size=1,
            retention_age_ms=2,
        )
        await server.cluster.CreateTopic(request)
        assert server.fake.topics["b"].limits == SegmentLimits(4096, 16)
        assert server.fake.topics["b"].retention == Retention(1, 2)

    serve(body)


def test_a_configuration_changes_only_what_is_set_also_to_zero() -> None:
    async def body(server: Serving) -> None:
        async def configure(**fields: Any) -> tuple[int, int]:
            request = log_pb2.ConfigureTopicRequest(**fields)
            answer = await server.cluster.ConfigureTopic(request)
            return answer.retention_size, answer.retention_age_ms

        assert await configure(retention_size=5) == (5, 0)
        assert await configure(topic="default", retention_age_ms=7) == (5, 7)
        assert await configure(retention_size=0) == (0, 7)
        assert await configure() == (0, 7)
        assert server.fake.topics["default"].retention == Retention(0, 7)

    serve(body)


def test_topics_are_listed_with_proof_and_everything_about_them() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"x", b"y")
        request = log_pb2.CreateTopicRequest(topic="a", segment_size_max=4096, retention_age_ms=9)
        await server.cluster.CreateTopic(request)
        answer = await server.cluster.ListTopics(log_pb2.ListTopicsRequest())
        assert [topic.name for topic in answer.topics] == ["a", "default"]
        assert answer.topics[0] == log_pb2.TopicStatus(
            name="a",
            topic_id=2,
            segment_size_max=4096,
            segment_record_count_max=1 << 20,
            retention_age_ms=9,
        )
        assert answer.topics[1].size == 18
        assert server.fake.asked["confirm"] == 1

    serve(body)


def test_a_trim_answers_where_the_topic_begins() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"x", b"y", b"z")
        for start_offset, expected in ((2, 2), (1, 2), (3, 3)):
            request = log_pb2.TrimTopicRequest(start_offset=start_offset)
            assert (await server.cluster.TrimTopic(request)).start_offset == expected
        refused = await refusal(server.cluster.TrimTopic(log_pb2.TrimTopicRequest(start_offset=4)))
        assert refused.code == grpc.StatusCode.OUT_OF_RANGE
        assert isinstance(refused.error, errors.OffsetOutOfRange)
        assert refused.error.fields() == {"offset": 4, "start_offset": 3, "high_watermark": 3}

    serve(body)


def test_a_deletion_names_its_topic_and_may_name_its_id() -> None:
    async def body(server: Serving) -> None:
        await server.cluster.CreateTopic(log_pb2.CreateTopicRequest(topic="a"))
        other = await refusal(
            server.cluster.DeleteTopic(log_pb2.DeleteTopicRequest(topic="a", topic_id=3))
        )
        assert other.code == grpc.StatusCode.NOT_FOUND
        assert "a" in server.fake.topics
        await server.cluster.DeleteTopic(log_pb2.DeleteTopicRequest(topic="a", topic_id=2))
        assert "a" not in server.fake.topics
        unnamed = await refusal(server.cluster.DeleteTopic(log_pb2.DeleteTopicRequest()))
        assert unnamed.code == grpc.StatusCode.INVALID_ARGUMENT
        assert "name the topic" in unnamed.text
        assert "default" in server.fake.topics

    serve(body)


def create(server: Serving, topic: str) -> Any:
    return server.cluster.CreateTopic(log_pb2.CreateTopicRequest(topic=topic))


def calls_to(server: Serving, topic: str) -> list[Any]:
    """Begin every call that needs a topic that is there."""
    return [
        server.cluster.ConfigureTopic(log_pb2.ConfigureTopicRequest(topic=topic)),
        server.cluster.TrimTopic(log_pb2.TrimTopicRequest(topic=topic)),
        server.cluster.DeleteTopic(log_pb2.DeleteTopicRequest(topic=topic)),
        server.log.OffsetForTime(log_pb2.OffsetForTimeRequest(topic=topic)),
    ]


def test_a_name_that_is_too_long_to_repeat_is_refused_by_all_of_them() -> None:
    async def body(server: Serving) -> None:
        name = "a" * 250
        for call in (create(server, name), *calls_to(server, name)):
            refused = await refusal(call)
            assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
            assert isinstance(refused.error, errors.InvalidRequest)
            assert refused.error.field == "topic"

    serve(body)


def test_a_topic_that_is_not_there_or_there_already_is_named() -> None:
    async def body(server: Serving) -> None:
        exists = await refusal(create(server, "default"))
        assert exists.code == grpc.StatusCode.ALREADY_EXISTS
        for call in calls_to(server, "a"):
            refused = await refusal(call)
            assert refused.code == grpc.StatusCode.NOT_FOUND
            assert isinstance(refused.error, errors.TopicNotFound)

    serve(body)


def test_a_change_that_no_majority_confirms_has_an_unknown_outcome() -> None:
    async def body(server: Serving) -> None:
        server.fake.silent = True
        for call in (create(server, "a"), *calls_to(server, "default")[:3]):
            refused = await refusal(call)
            assert refused.code == grpc.StatusCode.ABORTED
            assert isinstance(refused.error, errors.OutcomeUnknown)

    serve(body, ServerLimits(write_timeout_s=SHORT_S))


# --- Times ----------------------------------------------------------------------------------------


def at(timestamp_ms: int, **fields: Any) -> log_pb2.OffsetForTimeRequest:
    return log_pb2.OffsetForTimeRequest(timestamp_ms=timestamp_ms, **fields)


def test_the_first_record_of_a_time_is_found_and_its_absence_is_told_apart() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"x", b"y")
        server.fake.append(b"z")
        for after_ms, offset, found in ((-5, 0, True), (0, 0, True), (1, 2, True), (3, 3, False)):
            answer = await server.log.OffsetForTime(at(TIMESTAMP_MS + after_ms))
            assert (answer.offset, answer.found) == (offset, found)
        assert (await server.log.OffsetForTime(at(-(1 << 63)))).found

    serve(body)


def test_without_a_leader_what_is_there_is_found_and_nothing_is_called_absent() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"x")
        server.fake.silent = True
        assert (await server.log.OffsetForTime(at(0))).found
        refused = await refusal(server.log.OffsetForTime(at(TIMESTAMP_MS + 1)))
        assert refused.code == grpc.StatusCode.UNAVAILABLE
        assert isinstance(refused.error, errors.NoLeader)
        local = at(TIMESTAMP_MS + 1, consistency=log_pb2.CONSISTENCY_LOCAL)
        answer = await server.log.OffsetForTime(local)
        assert (answer.offset, answer.found) == (1, False)

    serve(body, ServerLimits(read_timeout_s=SHORT_S))


@pytest.mark.parametrize("consistency", [2, 99])
def test_an_unknown_consistency_is_refused(consistency: int) -> None:
    async def body(server: Serving) -> None:
        refused = await refusal(server.log.OffsetForTime(at(0, consistency=consistency)))
        assert refused.code == grpc.StatusCode.INVALID_ARGUMENT

    serve(body)
